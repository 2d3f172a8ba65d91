//! Which rules concern a statement.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::ListenAddress;
use crate::config::rule::{Conditions, RuleKind};
use crate::sql::{Kind, StatementClass, Tables};

/// Whose statements they are.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The user's name.
    pub user: &'a str,
    /// Where the client is; `None` for a unix socket.
    pub client: Option<IpAddr>,
    /// Where it connected.
    pub listener: &'a ListenAddress,
}

/// What rules look at in a statement.
pub struct Statement<'a> {
    /// Its text, or the beginning of one that is too long to be looked at whole.
    pub text: &'a [u8],
    /// What it means.
    pub class: &'a StatementClass,
    /// The schema in use.
    pub schema: Option<&'a [u8]>,
    /// What the client called itself at its login.
    pub program: Option<&'a [u8]>,
    /// Seconds since 1970.
    pub now: u64,
    /// Finds the tables that it names.
    pub find_tables: &'a dyn Fn() -> Arc<Tables>,
    /// Those that were found.
    pub tables: OnceCell<Arc<Tables>>,
}

/// Whether a rule can match any statement of this client.
pub fn concerns(when: &Conditions, asker: &Asker<'_>) -> bool {
    let fits = |client: IpAddr| when.client.iter().any(|network| network.contains(client));
    (when.account.is_empty()
        || when
            .account
            .iter()
            .any(|name| name.fits(asker.user.as_bytes())))
        && (when.client.is_empty() || asker.client.is_some_and(fits))
        && (when.listener.is_empty() || when.listener.contains(asker.listener))
}

/// Whether a rule that [`concerns`] the client matches a statement. The rule's sample is the caller's.
pub fn matches(when: &Conditions, statement: &Statement<'_>) -> bool {
    let class = statement.class;
    let is_now = || {
        let second = u32::try_from(statement.now % 86_400).unwrap_or(0);
        when.time.iter().any(|time| time.contains(second))
    };
    // What costs least stands first.
    (when.kind.is_empty() || kind_of(class).is_some_and(|kind| when.kind.contains(&kind)))
        && (when.digest.is_empty() || when.digest.contains(&class.digest))
        && (when.tag.is_empty()
            || class
                .tag
                .is_some_and(|tag| when.tag.iter().any(|word| tag.is(word))))
        && (when.schema.is_empty() || is_in_schema(when, statement))
        && (when.time.is_empty() || is_now())
        && (when.application.is_empty() || is_of_application(when, statement))
        && when
            .pattern
            .as_ref()
            .is_none_or(|pattern| pattern.regex().is_match(statement.text))
        && (when.table.is_empty() || names_table(when, statement))
}

/// The kind that rules call it by; `None` for what ends a transaction or lock, which rules leave alone.
pub fn kind_of(class: &StatementClass) -> Option<RuleKind> {
    Some(match class.kind {
        Kind::Commit
        | Kind::Rollback
        | Kind::Savepoint
        | Kind::UnlockTables
        | Kind::Xa
        | Kind::Empty => {
            return None;
        }
        Kind::Read if class.is_replica_read() => RuleKind::Read,
        Kind::Read => RuleKind::PrimaryRead,
        Kind::Write | Kind::LoadData => RuleKind::Write,
        Kind::Ddl => RuleKind::Definition,
        Kind::Show | Kind::Explain => RuleKind::Show,
        Kind::Call | Kind::Do | Kind::Compound | Kind::Prepare => RuleKind::Call,
        Kind::Set | Kind::Use => RuleKind::Set,
        Kind::Begin { .. } => RuleKind::Transaction,
        Kind::LockTables | Kind::Handler => RuleKind::Lock,
        Kind::Admin | Kind::Kill | Kind::Diagnostics => RuleKind::Administration,
        Kind::Multi => RuleKind::Multi,
        Kind::Unknown => RuleKind::Unknown,
    })
}

fn is_in_schema(when: &Conditions, statement: &Statement<'_>) -> bool {
    let fits = |schema: &[u8]| when.schema.iter().any(|name| name.fits(schema));
    statement.schema.is_some_and(fits)
}

fn names_table(when: &Conditions, statement: &Statement<'_>) -> bool {
    let tables = statement.tables.get_or_init(statement.find_tables);
    let mut names = tables.read.iter().chain(&tables.written);
    names.any(|name| {
        let qualified = match (name.contains('.'), statement.schema) {
            (true, _) => name.as_bytes().to_vec(),
            (false, schema) => [schema.unwrap_or_default(), b".", name.as_bytes()].concat(),
        };
        when.table.iter().any(|table| table.fits(&qualified))
    })
}

fn is_of_application(when: &Conditions, statement: &Statement<'_>) -> bool {
    let fits = |name: &[u8]| when.application.iter().any(|glob| glob.fits(name));
    statement.program.is_some_and(fits)
        || comments(statement.text)
            .any(|comment| commented(comment).is_some_and(|name| fits(&name)))
}

/// The comments at both ends of a statement, where sqlcommenter and its kin put theirs.
fn comments(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.trim_ascii();
    let first = text.strip_prefix(b"/*").and_then(|rest| {
        let end = rest.windows(2).position(|two| two == b"*/")?;
        rest.get(..end)
    });
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii_end();
    let last = text.strip_suffix(b"*/").and_then(|rest| {
        let begin = rest.windows(2).rposition(|two| two == b"/*")?;
        rest.get(begin + 2..)
    });
    first.into_iter().chain(last)
}

/// The value of `application='…'`, URL-encoded: <https://google.github.io/sqlcommenter/spec/>.
fn commented(comment: &[u8]) -> Option<Vec<u8>> {
    comment.split(|byte| *byte == b',').find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(b"application=")?;
        let value = value.trim_ascii().strip_prefix(b"'")?.strip_suffix(b"'")?;
        let mut decoded = Vec::new();
        let mut rest = value;
        while let Some((byte, after)) = rest.split_first() {
            let escaped = (*byte == b'%')
                .then(|| after.split_at_checked(2))
                .flatten()
                .and_then(|(digits, after)| {
                    let digits = std::str::from_utf8(digits).ok()?;
                    Some((u8::from_str_radix(digits, 16).ok()?, after))
                });
            let (byte, after) = escaped.unwrap_or((*byte, after));
            decoded.push(byte);
            rest = after;
        }
        Some(decoded)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{self, Rule};
    use crate::sql::{Dialect, classify, tables};

    /// The rule of these lines.
    fn rule(lines: &str) -> Rule {
        let text = format!(
            "[monitor]\nuser = \"m\"\npassword = \"p\"\n[cluster]\nservers = [\"db1=10.0.0.1\"]\n\
             [listen]\nmysql = [\"127.0.0.1:3306\", \"unix:/run/x.sock\"]\n[[rule]]\n{lines}\nlog = true\n"
        );
        let loaded = config::parse(&text, "test.toml", &config::Process::default()).unwrap();
        loaded.config.rules.into_iter().next().unwrap()
    }

    fn matched(lines: &str, sql: &str) -> bool {
        let class = classify(sql.as_bytes(), Dialect::default());
        let statement = Statement {
            text: sql.as_bytes(),
            class: &class,
            schema: Some(b"shop"),
            program: Some(b"cron.php"),
            now: 86_400 * 7 + 23 * 3_600,
            find_tables: &|| Arc::new(tables(sql.as_bytes(), Dialect::default())),
            tables: OnceCell::new(),
        };
        matches(&rule(lines).when, &statement)
    }

    #[test]
    fn every_condition_has_to_hold() {
        for (lines, sql, expected) in [
            ("", "SELECT 1", true),
            ("kind = 'read'", "SELECT 1", true),
            ("kind = 'read'", "SELECT 1 FOR UPDATE", false),
            (
                "kind = ['write', 'primary-read']",
                "SELECT 1 FOR UPDATE",
                true,
            ),
            ("kind = 'read'", "COMMIT", false),
            ("kind = 'write'", "LOAD DATA INFILE 'x' INTO TABLE t", true),
            ("schema = 'SHOP'", "SELECT 1", true),
            ("schema = 'sho'", "SELECT 1", false),
            ("table = 'orders'", "SELECT * FROM orders", true),
            ("table = 'orders'", "SELECT * FROM x.Orders", true),
            ("table = 'shop.orders'", "SELECT * FROM orders", true),
            ("table = 'shop.orders'", "SELECT * FROM x.orders", false),
            ("table = 'log_*'", "INSERT INTO log_2026 VALUES (1)", true),
            ("table = 'log_*'", "SELECT 'log_2026'", false),
            (
                "tag = 'nightly'",
                "/* dbproxy: tag=nightly */ SELECT 1",
                true,
            ),
            (
                "tag = 'nightly'",
                "/* dbproxy: tag=daily */ SELECT 1",
                false,
            ),
            ("tag = 'nightly'", "SELECT 1", false),
            ("pattern = '(?i)from +audit'", "SELECT a FROM  audit", true),
            ("pattern = '^SELECT'", "select 1", false),
            ("time = '22:00-06:00'", "SELECT 1", true),
            ("time = '06:00-22:00'", "SELECT 1", false),
            ("application = 'cron*'", "SELECT 1", true),
            ("application = 'web'", "SELECT 1", false),
            (
                "application = 'my web'",
                "SELECT 1 /*action='x',application='my%20web'*/;",
                true,
            ),
            (
                "application = 'web'",
                "/* application='web' */ SELECT 1",
                true,
            ),
            (
                "application = 'web'",
                "SELECT '/*application=''web''*/'",
                false,
            ),
            (
                "kind = 'read'\ntable = 't'\nschema = 'other'",
                "SELECT * FROM t",
                false,
            ),
        ] {
            assert_eq!(matched(lines, sql), expected, "{lines}: {sql}");
        }
        let digest = classify(b"SELECT a FROM t WHERE b = 5", Dialect::default()).digest;
        let lines = format!("digest = '{digest:016X}'");
        assert!(matched(&lines, "select a from t where b = 7"));
        assert!(!matched(&lines, "SELECT a FROM t WHERE c = 5"));
    }

    #[test]
    fn clients_are_told_apart() {
        let tcp = ListenAddress::parse("127.0.0.1:3306").unwrap();
        let unix = ListenAddress::parse("unix:/run/x.sock").unwrap();
        let asker = Asker {
            user: "app",
            client: Some([10, 1, 2, 3].into()),
            listener: &tcp,
        };
        let local = Asker {
            client: None,
            listener: &unix,
            ..asker
        };
        for (lines, of_tcp, of_unix) in [
            ("", true, true),
            ("account = ['x', 'a*']", true, true),
            ("account = 'x'", false, false),
            ("client = '10.0.0.0/8'", true, false),
            ("client = ['10.2.0.0/16', '::1']", false, false),
            ("listener = 'unix:/run/x.sock'", false, true),
        ] {
            let when = rule(lines).when;
            assert_eq!(concerns(&when, &asker), of_tcp, "{lines}");
            assert_eq!(concerns(&when, &local), of_unix, "{lines}");
        }
    }
}
