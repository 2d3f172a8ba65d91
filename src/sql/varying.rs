//! Statements whose answers differ from one moment, or one server, to the next with the same data.

use super::dialect::Dialect;
use super::lexer::{TokenKind, tokens};
use super::words::Word;

/// Whether the answer may vary though the data does not: by time, by chance, or by what a server estimates.
///
/// For comparing answers, not for routing. A doubtful text counts as one that varies; what a view or a stored function does
/// is not seen.
pub fn varies(sql: &[u8], dialect: Dialect) -> bool {
    let Some(tokens) = tokens(sql, dialect) else {
        return true;
    };
    let verb = tokens.iter().find(|token| !token.is(b'('));
    if verb.is_some_and(|verb| match verb.entry() {
        Some(entry) => matches!(entry.word, Word::Explain | Word::Show),
        None => false,
    }) {
        return true;
    }
    tokens.iter().enumerate().any(|(index, token)| {
        let word = token.bytes(sql);
        let called = || tokens.get(index + 1).is_some_and(|next| next.is(b'('));
        let is_one_of = |list: &[&str]| {
            list.iter()
                .any(|one| word.eq_ignore_ascii_case(one.as_bytes()))
        };
        match token.kind() {
            TokenKind::Word => {
                is_one_of(WORDS)
                    || (is_one_of(FUNCTIONS) && called())
                    // With an argument it only converts.
                    || (is_one_of(&["UNIX_TIMESTAMP"])
                        && called()
                        && tokens.get(index + 2).is_some_and(|next| next.is(b')')))
            }
            TokenKind::Quoted => token
                .plain_name(sql)
                .eq_ignore_ascii_case(b"information_schema"),
            TokenKind::SystemVariable => true,
            _ => false,
        }
    })
}

/// Whether a text calls what gives something else each time, even at the same moment.
pub fn depends_on_chance(sql: &[u8], dialect: Dialect) -> bool {
    let Some(tokens) = tokens(sql, dialect) else {
        return true;
    };
    tokens.iter().enumerate().any(|(index, token)| {
        let word = token.bytes(sql);
        let is_one = CHANCE
            .iter()
            .any(|one| word.eq_ignore_ascii_case(one.as_bytes()));
        let called = || tokens.get(index + 1).is_some_and(|next| next.is(b'('));
        token.kind() == TokenKind::Word
            && (word.eq_ignore_ascii_case(b"TABLESAMPLE")
                // Without parentheses too, in Oracle's mode.
                || word.eq_ignore_ascii_case(b"SYSDATE")
                || (is_one && called()))
    })
}

const CHANCE: &[&str] = &[
    "ENCRYPT",
    "RAND",
    "RANDOM_BYTES",
    "SYSTIMESTAMP",
    "SYS_GUID",
    "UUID",
    "UUID_SHORT",
    "UUID_V4",
    "UUID_V7",
];

/// Also without parentheses.
const WORDS: &[&str] = &[
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "INFORMATION_SCHEMA",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "TABLESAMPLE",
    "UTC_DATE",
    "UTC_TIME",
    "UTC_TIMESTAMP",
];

const FUNCTIONS: &[&str] = &[
    "AES_ENCRYPT",
    "BENCHMARK",
    "CURDATE",
    "CURTIME",
    "ENCRYPT",
    "NOW",
    "RAND",
    "RANDOM_BYTES",
    "SLEEP",
    "SYSDATE",
    "SYSTIMESTAMP",
    "SYS_GUID",
    "UUID",
    "UUID_SHORT",
    "UUID_V4",
    "UUID_V7",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_told_from_time() {
        for (sql, expected) in [
            ("INSERT INTO t VALUES (NOW())", false),
            ("INSERT INTO t VALUES (CURRENT_TIMESTAMP)", false),
            ("INSERT INTO t VALUES (UUID())", true),
            ("INSERT INTO t VALUES (rand ( ))", true),
            ("SELECT SYSDATE()", true),
            ("SELECT uuid, t.rand FROM t WHERE a = 'UUID()'", false),
            ("SELECT 'unterminated", true),
        ] {
            let told = depends_on_chance(sql.as_bytes(), Dialect::default());
            assert_eq!(told, expected, "{sql}");
        }
    }

    #[test]
    fn what_varies_is_known() {
        for (sql, expected) in [
            ("SELECT a FROM t WHERE id = 1", false),
            ("(SELECT a FROM t)", false),
            ("SELECT now FROM t", false),
            ("SELECT t.rand, `uuid` FROM t WHERE a = 'NOW()'", false),
            ("SELECT UNIX_TIMESTAMP(a) FROM t", false),
            ("SELECT UNIX_TIMESTAMP() - a FROM t", true),
            ("SELECT NOW()", true),
            ("select a from t where b > now() - interval 1 day", true),
            ("SELECT current_timestamp", true),
            ("SELECT a FROM t ORDER BY RAND() LIMIT 1", true),
            ("SELECT UUID()", true),
            ("SELECT SLEEP(1)", true),
            ("EXPLAIN SELECT a FROM t", true),
            ("SHOW TABLE STATUS", true),
            ("SELECT table_rows FROM information_schema.tables", true),
            ("SELECT 'unterminated", true),
        ] {
            assert_eq!(
                varies(sql.as_bytes(), Dialect::default()),
                expected,
                "{sql}"
            );
        }
    }
}
