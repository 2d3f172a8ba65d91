//! What the comments in front of a statement ask for.

use xxhash_rust::xxh3::xxh3_64;

use super::dialect::Dialect;
use super::lexer::Lexer;
use crate::config::Consistency;

/// A name in a hint, kept as a hash so that hints stay small and free of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(u64);

impl Name {
    /// This name.
    pub fn new(name: &[u8]) -> Self {
        Self(xxh3_64(name))
    }

    /// Whether it is this one.
    pub fn is(self, name: &str) -> bool {
        self == Self::new(name.as_bytes())
    }
}

/// A wish about where a statement should run, from the comments in front of it:
/// `/* dbproxy: primary */`, `replica`, `last_used`, `server=NAME`, `group=NAME`, `max_lag=SECONDS`, `consistency=…`.
/// It also counts in `-- ` and `#` comments.
///
/// Those of other proxies that mean the same are understood too: mysqlnd_ms's `/*ms=master*/`, `slave`, `last_used`,
/// `strong`, `session` and `eventual`, MaxScale's `-- maxscale route to master`, `slave`, `last`, `server NAME` and
/// `-- maxscale max_slave_replication_lag=SECONDS`, ProxySQL's `/* max_lag_ms=N */`, and Atlas's `/*master*/`.
///
/// With several, the one that allows least wins. A hint is a wish: it never sends a write to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hint {
    /// No hint.
    #[default]
    None,
    /// The primary.
    Primary,
    /// A replica, even where reads would otherwise go to the primary by preference.
    Replica,
    /// The connection that ran the statement before.
    LastUsed,
    /// What the read must see; that it must see everything is [`Hint::Primary`].
    Consistency(Consistency),
    /// A replica at most this many milliseconds behind, else the primary.
    MaxLag(u32),
    /// The server of this name.
    Server(Name),
    /// A server of this group.
    Group(Name),
    /// Meant for the proxy, but not understood: to be counted and logged.
    Unknown,
}

/// The comment in front of a statement that a hint is in, one that is not understood if there is such a one: short, and without
/// control characters.
pub fn hint_text(sql: &[u8], dialect: Dialect) -> Option<String> {
    const MOST: usize = 120;
    let statement = Lexer::new(sql, dialect).next();
    let mut front = sql.get(..statement.start()).unwrap_or(&[]);
    let mut found = None;
    while !front.is_empty() {
        let (body, rest) = first_comment(front);
        front = rest;
        let mut hints = Hints::default();
        hints.comment(body);
        match (hints.hint(), hints.tag()) {
            (Hint::None, None) => continue,
            (Hint::Unknown, _) => {
                found = Some(body);
                break;
            }
            _ => found = found.or(Some(body)),
        }
    }
    let text = String::from_utf8_lossy(found?.trim_ascii()).into_owned();
    let mut short: String = text
        .chars()
        .take(MOST)
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    Some(short)
}

/// The comment that begins here, without its marks, and what is behind it. Nothing and one byte less if none does.
fn first_comment(text: &[u8]) -> (&[u8], &[u8]) {
    let none: (&[u8], &[u8]) = (&[], text.get(1..).unwrap_or(&[]));
    let (body, end) = match text {
        // What is in it is code.
        [b'/', b'*', b'!', ..] | [b'/', b'*', b'M', b'!', ..] => return none,
        [b'/', b'*', body @ ..] => match body.windows(2).position(|pair| pair == b"*/") {
            Some(end) => (body, Some(end)),
            None => return none,
        },
        [b'-', b'-', body @ ..] | [b'#', body @ ..] => {
            let ends = |byte: &u8| matches!(byte, b'\n' | 0);
            (body, body.iter().position(ends))
        }
        _ => return none,
    };
    body.split_at_checked(end.unwrap_or(body.len()))
        .unwrap_or((body, &[]))
}

/// Collects hints from the comments in front of a statement.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hints {
    best: Hint,
    tag: Option<Name>,
}

impl Hints {
    pub(super) fn hint(self) -> Hint {
        self.best
    }

    /// What `tag=WORD` says, for rules.
    pub(super) fn tag(self) -> Option<Name> {
        self.tag
    }

    /// Takes in a comment, given without its marks.
    pub(super) fn comment(&mut self, body: &[u8]) {
        let body = body.trim_ascii();
        if starts_with(body, b"ms=") {
            let hint = match body.get(3..).unwrap_or(&[]) {
                word if word.eq_ignore_ascii_case(b"master") => Hint::Primary,
                word if word.eq_ignore_ascii_case(b"slave") => Hint::Replica,
                word if word.eq_ignore_ascii_case(b"last_used") => Hint::LastUsed,
                word if word.eq_ignore_ascii_case(b"session") => consistency(b"user"),
                word => consistency(word),
            };
            self.add(hint);
        } else if starts_with(body, b"dbproxy")
            && let Some((b':' | b' ' | b'\t' | b'\n' | b'\r', words)) =
                body.get(7..).and_then(<[u8]>::split_first)
        {
            self.words(words);
        } else if starts_with(body, b"maxscale ") {
            self.add(maxscale(body.get(9..).unwrap_or(&[])));
        } else if body.eq_ignore_ascii_case(b"master") {
            self.add(Hint::Primary);
        } else if let Some(millis) = proxysql_lag(body) {
            self.add(Hint::MaxLag(millis));
        }
    }

    /// Words and `key=value` pairs, separated by blanks or commas.
    fn words(&mut self, words: &[u8]) {
        let mut any = false;
        for word in words.split(|byte| byte.is_ascii_whitespace() || *byte == b',') {
            if word.is_empty() {
                continue;
            }
            any = true;
            match word.split_at_checked(4) {
                Some((key, tag)) if key.eq_ignore_ascii_case(b"tag=") && !tag.is_empty() => {
                    self.tag = Some(Name::new(tag));
                }
                _ => self.add(one(word)),
            }
        }
        if !any {
            self.add(Hint::Unknown);
        }
    }

    /// Keeps the one that allows least; one that is not understood makes all of them doubtful.
    fn add(&mut self, hint: Hint) {
        fn rank(hint: Hint) -> u8 {
            match hint {
                Hint::None => 0,
                Hint::Replica => 1,
                Hint::Consistency(_) => 2,
                Hint::MaxLag(_) => 3,
                Hint::LastUsed => 4,
                Hint::Group(_) => 5,
                Hint::Server(_) => 6,
                Hint::Primary => 7,
                Hint::Unknown => 8,
            }
        }
        match (self.best, hint) {
            (Hint::MaxLag(old), Hint::MaxLag(new)) => self.best = Hint::MaxLag(old.min(new)),
            (old, new) if rank(new) >= rank(old) => self.best = new,
            _ => {}
        }
    }
}

fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len())
        .is_some_and(|front| front.eq_ignore_ascii_case(prefix))
}

/// The hint of one word.
fn one(word: &[u8]) -> Hint {
    let mut parts = word.splitn(2, |byte| *byte == b'=');
    let key = parts.next().unwrap_or(&[]);
    match parts.next() {
        None if key.eq_ignore_ascii_case(b"primary") || key.eq_ignore_ascii_case(b"master") => {
            Hint::Primary
        }
        None if key.eq_ignore_ascii_case(b"replica") || key.eq_ignore_ascii_case(b"slave") => {
            Hint::Replica
        }
        None if key.eq_ignore_ascii_case(b"last_used") => Hint::LastUsed,
        Some(value) if key.eq_ignore_ascii_case(b"max_lag") => {
            millis(value).map_or(Hint::Unknown, Hint::MaxLag)
        }
        Some(value) if key.eq_ignore_ascii_case(b"server") && !value.is_empty() => {
            Hint::Server(Name::new(value))
        }
        Some(value) if key.eq_ignore_ascii_case(b"group") && !value.is_empty() => {
            Hint::Group(Name::new(value))
        }
        Some(value) if key.eq_ignore_ascii_case(b"consistency") => consistency(value),
        _ => Hint::Unknown,
    }
}

fn consistency(word: &[u8]) -> Hint {
    match word.to_ascii_lowercase().as_slice() {
        b"eventual" => Hint::Consistency(Consistency::Eventual),
        b"connection" => Hint::Consistency(Consistency::Connection),
        b"user" => Hint::Consistency(Consistency::User),
        b"global" => Hint::Consistency(Consistency::Global),
        b"strong" => Hint::Primary,
        _ => Hint::Unknown,
    }
}

/// MaxScale's hints; not those that have a name or are for what follows, which mean something else here.
fn maxscale(hint: &[u8]) -> Hint {
    let lower = hint.to_ascii_lowercase();
    let mut words = lower
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    match [words.next(), words.next(), words.next(), words.next()] {
        [Some(b"route"), Some(b"to"), Some(b"master"), None] => Hint::Primary,
        [Some(b"route"), Some(b"to"), Some(b"slave"), None] => Hint::Replica,
        [Some(b"route"), Some(b"to"), Some(b"last"), None] => Hint::LastUsed,
        [Some(b"route"), Some(b"to"), Some(b"server"), Some(name)] if words.next().is_none() => {
            let as_written = hint.trim_ascii();
            let name = as_written.get(as_written.len() - name.len()..);
            Hint::Server(Name::new(name.unwrap_or(&[])))
        }
        [Some(lag), None, ..] => lag
            .strip_prefix(b"max_slave_replication_lag=")
            .and_then(millis)
            .map_or(Hint::Unknown, Hint::MaxLag),
        _ => Hint::Unknown,
    }
}

/// The lag among the settings of one of ProxySQL's comments, all of which have to look like settings.
fn proxysql_lag(comment: &[u8]) -> Option<u32> {
    let mut lag = None;
    for setting in comment.split(|byte| matches!(byte, b';' | b',')) {
        let setting = setting.trim_ascii();
        let equals = setting.iter().position(|byte| *byte == b'=');
        match equals.and_then(|equals| setting.split_at_checked(equals)) {
            Some((b"max_lag_ms", value)) => {
                let value = std::str::from_utf8(value.get(1..)?).ok()?;
                lag = Some(value.trim().parse().ok()?);
            }
            Some(_) => {}
            None if setting.is_empty() => {}
            None => return None,
        }
    }
    lag
}

/// `4`, `4s`, `0.5`, `250ms` as milliseconds.
pub(super) fn millis(value: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(value).ok()?;
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().ok();
    }
    let text = text.strip_suffix('s').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut millis = whole.parse::<u32>().ok()?.checked_mul(1000)?;
    let mut unit = 100;
    if fraction.is_empty() {
        return None;
    }
    for digit in fraction.bytes() {
        millis =
            millis.checked_add(u32::from(digit.is_ascii_digit().then(|| digit - b'0')?) * unit)?;
        unit /= 10;
    }
    Some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Hint = Hint::Consistency(Consistency::User);
    const EVENTUAL: Hint = Hint::Consistency(Consistency::Eventual);

    fn hint(comment: &str) -> Hint {
        let mut hints = Hints::default();
        hints.comment(comment.as_bytes());
        hints.hint()
    }

    #[test]
    fn reads_hints() {
        for (comment, expected) in [
            ("ms=master", Hint::Primary),
            (" MS=Slave ", Hint::Replica),
            ("ms=last_used", Hint::LastUsed),
            ("ms=masterX", Hint::Unknown),
            ("ms=master foo", Hint::Unknown),
            ("ms = master", Hint::None),
            (" dbproxy: primary ", Hint::Primary),
            ("dbproxy replica", Hint::Replica),
            ("DBPROXY:replica", Hint::Replica),
            ("dbproxy: max_lag=4", Hint::MaxLag(4000)),
            ("dbproxy: max_lag=0.25", Hint::MaxLag(250)),
            ("dbproxy: max_lag=250ms", Hint::MaxLag(250)),
            ("dbproxy: replica, max_lag=2s", Hint::MaxLag(2000)),
            ("dbproxy: max_lag=2 replica primary", Hint::Primary),
            ("dbproxy: max_lag=x", Hint::Unknown),
            ("dbproxy: max_lag=99999999999", Hint::Unknown),
            ("dbproxy: max_lag=-1", Hint::Unknown),
            ("dbproxy: server=", Hint::Unknown),
            ("dbproxy: fast", Hint::Unknown),
            ("dbproxy:", Hint::Unknown),
            ("dbproxy: consistency=strong", Hint::Primary),
            ("dbproxy: consistency=User", USER),
            (
                "dbproxy: consistency=eventual, max_lag=1",
                Hint::MaxLag(1000),
            ),
            ("dbproxy: consistency=weak", Hint::Unknown),
            ("ms=strong", Hint::Primary),
            ("ms=session", USER),
            ("ms=eventual", EVENTUAL),
            ("maxscale route to master", Hint::Primary),
            ("MaxScale  route to slave ", Hint::Replica),
            ("maxscale route to last", Hint::LastUsed),
            ("maxscale max_slave_replication_lag=3", Hint::MaxLag(3000)),
            ("maxscale route to all", Hint::Unknown),
            ("maxscale begin route to master", Hint::Unknown),
            ("maxscale", Hint::None),
            ("master", Hint::Primary),
            ("the master", Hint::None),
            (" max_lag_ms=300 ", Hint::MaxLag(300)),
            ("hostgroup=20; max_lag_ms=5;", Hint::MaxLag(5)),
            ("hostgroup=20", Hint::None),
            ("max_lag_ms=x", Hint::None),
            ("see max_lag_ms=5", Hint::None),
            ("a word, max_lag_ms=5", Hint::None),
            ("dbproxyx: primary", Hint::None),
            ("nothing", Hint::None),
            ("", Hint::None),
        ] {
            assert_eq!(hint(comment), expected, "{comment}");
        }
    }

    #[test]
    fn the_text_of_a_hint_is_found() {
        let long = format!("/* dbproxy: {} */ SELECT 1", "x".repeat(500));
        let shortened = format!("dbproxy: {}…", "x".repeat(111));
        for (sql, expected) in [
            ("SELECT 1", None),
            ("/* nothing */ SELECT 1 /* dbproxy: fast */", None),
            ("/* dbproxy: primary */ SELECT 1", Some("dbproxy: primary")),
            (
                "/* dbproxy: primary */ /*ms=bogus*/ # x\nSELECT 1",
                Some("ms=bogus"),
            ),
            (
                "-- maxscale begin route to master\nSELECT 1",
                Some("maxscale begin route to master"),
            ),
            ("/*! /* dbproxy: fast */ SELECT 1 */", Some("dbproxy: fast")),
            (
                "/*!99999 x */ /* dbproxy: a\nb\x1b[1m */ SELECT 1",
                Some("dbproxy: a b [1m"),
            ),
            ("/* dbproxy: tag=x */ SELECT 1", Some("dbproxy: tag=x")),
            ("/* dbproxy: fast", None),
            (&long, Some(shortened.as_str())),
        ] {
            let text = hint_text(sql.as_bytes(), Dialect::default());
            assert_eq!(text.as_deref(), expected, "{sql}");
        }
    }

    #[test]
    fn names_a_server() {
        let Hint::Server(name) = hint("dbproxy:  server=db-2.example:3306 ") else {
            panic!("no server");
        };
        assert!(name.is("db-2.example:3306"));
        assert!(!name.is("db-2.example"));
        let Hint::Server(name) = hint("maxscale route to server  Db2 ") else {
            panic!("no server");
        };
        assert!(name.is("Db2"));
        let Hint::Group(name) = hint("dbproxy: group=reports replica") else {
            panic!("no group");
        };
        assert!(name.is("reports"));
    }

    #[test]
    fn a_tag_stands_beside_the_hint() {
        let mut hints = Hints::default();
        hints.comment(b" dbproxy: tag=nightly, replica ");
        assert_eq!(hints.hint(), Hint::Replica);
        assert!(hints.tag().is_some_and(|tag| tag.is("nightly")));
        assert_eq!(hint("dbproxy: tag="), Hint::Unknown);
        assert_eq!(hint("dbproxy: tag=x"), Hint::None);
    }
}
