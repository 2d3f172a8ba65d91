//! Body of the fuzz target: everything in this room that reads foreign bytes.

use xxhash_rust::xxh3::xxh3_64;

use super::catalogue::{self, Reading, Routine, RoutineKind, View};
use super::{
    Counts, Dialect, administration, classify, digest_text, kill, prepared_texts, set, use_schema,
    with_connection_id, with_counts,
};

/// Classifies `data` and reads it as SET, USE and KILL, and looks for CONNECTION_ID(), texts to prepare and
/// administration.
///
/// The first byte chooses the dialect. Panics are findings; so is a digest that is not the hash of
/// the digest text, and a read with a word in it that can write or lock.
#[expect(clippy::missing_panics_doc, reason = "said above")]
pub fn run(data: &[u8]) {
    let Some((mode, sql)) = data.split_first() else {
        return;
    };
    let maria = mode & 1 != 0;
    let dialect = Dialect {
        ansi_quotes: mode & 2 != 0,
        no_backslash_escapes: mode & 4 != 0,
        escape_ambiguous: mode & 8 != 0,
        ..Dialect::of(maria, if maria { 101_119 } else { 80_408 })
    };
    let class = classify(sql, dialect);
    let text = digest_text(sql, dialect, usize::MAX);
    if std::str::from_utf8(sql).is_ok() {
        assert_eq!(class.digest, xxh3_64(text.as_bytes()), "{text}");
    }
    if class.is_replica_read() {
        for danger in dangers(sql, dialect) {
            assert!(
                danger.excuse.is_some(),
                "{danger:?}: {}",
                sql.escape_ascii()
            );
        }
    }
    let _ = class.hint;
    let _ = set::parse(sql, dialect);
    let _ = use_schema(sql, dialect);
    let _ = kill::parse(sql, dialect);
    let _ = prepared_texts(sql, class.kind, dialect);
    let _ = administration::find(sql, class.kind, dialect);
    let _ = with_connection_id(sql, dialect, u32::MAX);
    let counts = Counts {
        found_rows: u64::MAX,
        row_count: -1,
    };
    let _ = with_counts(sql, dialect, counts);
    catalogued(sql, dialect);
}

/// Takes `sql` for the body of a function and of a procedure and for a view's definition.
fn catalogued(sql: &[u8], dialect: Dialect) {
    let routine = |kind, name: &[u8]| Routine {
        kind,
        schema: b"s".to_vec(),
        name: name.to_vec(),
        sql_mode: Vec::new(),
        charset: Vec::new(),
        body: Some(sql.to_vec()),
    };
    let reading = Reading {
        dialect,
        routines: vec![
            routine(RoutineKind::Function { reads: true }, b"f"),
            routine(RoutineKind::Procedure, b"p"),
        ],
        views: vec![View {
            schema: b"s".to_vec(),
            name: b"v".to_vec(),
            definition: Some(sql.to_vec()),
        }],
        loadable: Some(Vec::new()),
        folds_names: false,
    };
    catalogue::look_through(&reading);
}

/// A word that can write or lock, outside of strings, comments and quoted names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Danger {
    /// In upper case.
    pub word: String,
    /// Why it is harmless where it stands.
    pub excuse: Option<Excuse>,
}

/// Why a word that can write or lock does neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Excuse {
    /// Right behind a dot it is a name.
    Name,
    /// INSERT and REPLACE before `(` are functions.
    Function,
    /// SHOW CREATE shows.
    Shown,
}

/// Statements that can be reads begin with one of these.
const VERBS: &[&str] = &[
    "ANALYZE", "DESC", "DESCRIBE", "EXPLAIN", "SELECT", "SHOW", "TABLE", "VALUES", "WITH",
];

/// Reserved words that no read holds.
const RESERVED: &[&str] = &[
    "ALTER", "CALL", "CHANGE", "CREATE", "DELETE", "DROP", "GRANT", "INSERT", "INTO", "KILL",
    "LOAD", "OPTIMIZE", "OUTFILE", "PURGE", "RENAME", "REPLACE", "REVOKE", "UPDATE",
];

/// Functions that no read calls.
const FUNCTIONS: &[&str] = &[
    "CONNECTION_ID",
    "FOUND_ROWS",
    "GET_LOCK",
    "IS_FREE_LOCK",
    "IS_USED_LOCK",
    "LASTVAL",
    "LAST_INSERT_ID",
    "LOAD_FILE",
    "MASTER_GTID_WAIT",
    "MASTER_POS_WAIT",
    "NEXTVAL",
    "RELEASE_ALL_LOCKS",
    "RELEASE_LOCK",
    "ROW_COUNT",
    "SETVAL",
    "UUID_SHORT",
    "WAIT_FOR_EXECUTED_GTID_SET",
];

/// Looks for words that can write or lock, in another way than the lexer does: by taking out
/// first what is quoted or commented.
pub fn dangers(sql: &[u8], dialect: Dialect) -> Vec<Danger> {
    let pieces = pieces(&bare(sql, dialect));
    let mut found = Vec::new();
    let mut begins = true;
    for (index, piece) in pieces.iter().enumerate() {
        let at = |back: usize| index.checked_sub(back).and_then(|place| pieces.get(place));
        let is = |piece: Option<&Piece>, text: &str| piece.is_some_and(|piece| piece.text == text);
        let next = pieces.get(index + 1);
        let word = piece.text.as_str();
        if matches!(word, ";" | "(") && begins {
            continue;
        }
        let after_dot = piece.joined && is(at(1), ".");
        let before = at(1).filter(|before| {
            // A name behind a dot is no keyword.
            !(before.joined && is(at(2), "."))
        });
        let danger = (begins && !VERBS.contains(&word))
            || RESERVED.contains(&word)
            || (FUNCTIONS.contains(&word) && is(next, "("))
            || (word == "SHARE" && is(before, "FOR"))
            || (word == "IN" && is(before, "LOCK"))
            || word == "@";
        begins = word == ";";
        if !danger {
            continue;
        }
        let excuse = if after_dot {
            Some(Excuse::Name)
        } else if matches!(word, "INSERT" | "REPLACE") && is(next, "(") {
            Some(Excuse::Function)
        } else if word == "CREATE" && is(before, "SHOW") {
            Some(Excuse::Shown)
        } else if word == "@" && (is(next, "@") || is(at(1), "@")) {
            // A system variable: not every one is about the server or the connection.
            continue;
        } else {
            None
        };
        found.push(Danger {
            word: word.to_owned(),
            excuse,
        });
    }
    found
}

/// A word in upper case, or another byte.
struct Piece {
    text: String,
    /// Nothing stands between it and the piece before.
    joined: bool,
}

fn pieces(bare: &[u8]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut in_word = false;
    let mut joined = false;
    for &byte in bare {
        if byte.is_ascii_whitespace() || byte == 0x0b {
            in_word = false;
            joined = false;
            continue;
        }
        let is_word = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
        let letter = char::from(byte.to_ascii_uppercase());
        match pieces.last_mut().filter(|_| in_word && is_word) {
            Some(word) => word.text.push(letter),
            None => pieces.push(Piece {
                text: letter.to_string(),
                joined,
            }),
        }
        in_word = is_word;
        joined = true;
    }
    pieces
}

/// The statement with blanks instead of comments and of the marks of executable ones, and `''`
/// instead of strings and quoted names.
fn bare(sql: &[u8], dialect: Dialect) -> Vec<u8> {
    let mut bare = Vec::with_capacity(sql.len());
    let mut rest = sql;
    let mut in_code = false;
    let until = |rest: &[u8], end: &[u8]| {
        rest.windows(end.len())
            .position(|window| window == end)
            .map_or(rest.len(), |offset| offset + end.len())
    };
    while let Some((&first, tail)) = rest.split_first() {
        let skipped = match (first, tail) {
            (b'\'' | b'"' | b'`', _) => {
                bare.extend(b"''");
                let name = first == b'`' || (first == b'"' && dialect.ansi_quotes);
                quoted(rest, !name && !dialect.no_backslash_escapes)
            }
            (b'#', _) => until(rest, b"\n"),
            (b'-', [b'-']) => rest.len(),
            (b'-', [b'-', 0..=b' ' | 127, ..]) => until(rest, b"\n"),
            (b'*', [b'/', ..]) if in_code => {
                in_code = false;
                2
            }
            (b'/', [b'*', b'!', digits @ ..]) => match code(digits, false, dialect) {
                Some(skipped) => {
                    in_code = true;
                    3 + skipped
                }
                None => 3 + until(digits, b"*/"),
            },
            (b'/', [b'*', b'M', b'!', digits @ ..]) if dialect.maria => {
                match code(digits, true, dialect) {
                    Some(skipped) => {
                        in_code = true;
                        4 + skipped
                    }
                    None => 4 + until(digits, b"*/"),
                }
            }
            (b'/', [b'*', comment @ ..]) => 2 + until(comment, b"*/"),
            _ => {
                bare.push(first);
                rest = tail;
                continue;
            }
        };
        if !matches!(first, b'\'' | b'"' | b'`') {
            bare.push(b' ');
        }
        rest = rest.get(skipped..).unwrap_or(&[]);
    }
    bare
}

/// How long the string or quoted name is that begins here.
fn quoted(text: &[u8], escapes: bool) -> usize {
    let Some((quote, mut rest)) = text.split_first() else {
        return 0;
    };
    loop {
        rest = match rest {
            [] => return text.len(),
            [b'\\', _, after @ ..] if escapes => after,
            [first, second, after @ ..] if first == quote && second == quote => after,
            [first, after @ ..] if first == quote => return text.len() - after.len(),
            [_, after @ ..] => after,
        };
    }
}

/// How many digits of a version begin an executable comment that this server runs.
fn code(text: &[u8], maria_only: bool, dialect: Dialect) -> Option<usize> {
    let digits = text
        .iter()
        .take(6)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if digits < 5 {
        return Some(0);
    }
    let version: u32 = std::str::from_utf8(text.get(..digits)?)
        .ok()?
        .parse()
        .ok()?;
    let foreign = dialect.maria && !maria_only && (50_700..=99_999).contains(&version);
    (!foreign && version <= dialect.version).then_some(digits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn seeds_and_their_beginnings() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in fs::read_dir(manifest.join("fuzz/seeds/sql")).unwrap() {
            let seed = fs::read(file.unwrap().path()).unwrap();
            for end in 0..=seed.len() {
                run(&seed[..end]);
            }
        }
    }

    #[test]
    fn dangers_are_found_where_they_stand() {
        let words = |sql: &str, dialect: Dialect| -> Vec<String> {
            dangers(sql.as_bytes(), dialect)
                .into_iter()
                .filter(|danger| danger.excuse.is_none())
                .map(|danger| danger.word)
                .collect()
        };
        let plain = Dialect::default();
        for (sql, expected) in [
            ("SELECT 'UPDATE', \"x\\\" DELETE\", `DROP``x`", &[][..]),
            ("SELECT 1 /* UPDATE */ -- DELETE\n# DROP", &[]),
            ("SELECT t.update, REPLACE(a, 1, 2), @@sql_mode FROM t", &[]),
            ("SHOW CREATE TABLE t; (SELECT 1)", &[]),
            ("SELECT 1 /*! FOR UPDATE */", &["UPDATE"]),
            ("SELECT 1 /*!40000 INTO */ /*!990000 DROP */", &["INTO"]),
            ("SELECT 'a''' FOR/**/SHARE", &["SHARE"]),
            ("select 1 lock in share mode", &["IN"]),
            ("SELECT Get_Lock /**/ (1), @a", &["GET_LOCK", "@"]),
            ("SELECT 1; DO 1; ((DELETE", &["DO", "DELETE"]),
            ("SELECT @a:=1, @@b", &["@"]),
        ] {
            assert_eq!(words(sql, plain), expected, "{sql}");
        }
        let strict = plain.with_sql_mode(b"ANSI_QUOTES,NO_BACKSLASH_ESCAPES");
        assert_eq!(words("SELECT '\\', \"\\\" DROP", strict), ["DROP"]);
        let maria = Dialect::of(true, 101_119);
        assert_eq!(
            words("SELECT 1 /*M! INTO */ /*!80000 DROP */", maria),
            ["INTO"]
        );
        assert_eq!(words("SELECT 1 /*M! INTO */", plain), Vec::<String>::new());
    }
}
