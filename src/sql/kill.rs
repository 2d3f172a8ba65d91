//! KILL statements.

use super::dialect::Dialect;
use super::lexer::{TokenKind, tokens};
use super::words::Word;

/// What a KILL statement ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole connection.
    Connection,
    /// The statement it runs.
    Query,
}

/// A KILL statement, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// What to end.
    pub scope: Scope,
    /// SOFT: spare what must not be interrupted (MariaDB).
    pub soft: bool,
    /// Which connection, by the id shown to clients.
    pub id: u64,
}

/// Reads `KILL [HARD|SOFT] [CONNECTION|QUERY] number`.
///
/// `None` for any other statement, also for `KILL` of an expression, of a user or of a query id.
pub fn parse(sql: &[u8], dialect: Dialect) -> Option<Kill> {
    let tokens = tokens(sql, dialect)?;
    let mut words = tokens.iter().peekable();
    let mut take = |wanted: Word| {
        words
            .next_if(|token| token.entry().is_some_and(|entry| entry.word == wanted))
            .is_some()
    };
    if !take(Word::Kill) {
        return None;
    }
    let soft = take(Word::Soft) || {
        take(Word::Hard);
        false
    };
    let scope = if take(Word::Query) {
        Scope::Query
    } else {
        take(Word::Connection);
        Scope::Connection
    };
    let number = words.next()?;
    if number.kind() != TokenKind::Number || words.next().is_some() {
        return None;
    }
    let id = std::str::from_utf8(number.bytes(sql)).ok()?.parse().ok()?;
    Some(Kill { scope, soft, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kill() {
        let kill = |scope, soft, id| Some(Kill { scope, soft, id });
        for (sql, expected) in [
            ("KILL 5", kill(Scope::Connection, false, 5)),
            ("kill connection 6;", kill(Scope::Connection, false, 6)),
            ("KILL/**/QUERY 7", kill(Scope::Query, false, 7)),
            ("KILL SOFT QUERY 8", kill(Scope::Query, true, 8)),
            ("KILL HARD 9", kill(Scope::Connection, false, 9)),
            (
                "KILL SOFT CONNECTION 18446744073709551615",
                kill(Scope::Connection, true, u64::MAX),
            ),
            ("KILL QUERY ID 5", None),
            ("KILL USER foo", None),
            ("KILL CONNECTION_ID()", None),
            ("KILL 5 + 1", None),
            ("KILL 5; SELECT 1", None),
            ("KILL 1.5", None),
            ("KILL 18446744073709551616", None),
            ("KILL", None),
            ("SELECT 5", None),
            ("", None),
        ] {
            assert_eq!(parse(sql.as_bytes(), Dialect::default()), expected, "{sql}");
        }
    }
}
