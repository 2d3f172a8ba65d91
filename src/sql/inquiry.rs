//! Statements that ask the proxy itself. No server knows them.

use std::ops::Range;

use super::dialect::Dialect;
use super::lexer::{Lexer, Token, TokenKind, tokens};
use super::words::Word;

/// A question to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inquiry {
    /// `EXPLAIN ROUTE` and a statement, or several of one packet, which stand at this place of the text.
    Route(Range<usize>),
    /// `SHOW DBPROXY SESSION`.
    Session,
    /// `SHOW DBPROXY RULES`.
    Rules,
    /// `SHOW DBPROXY FIREWALL`.
    Firewall,
    /// `SHOW DBPROXY PINS`.
    Pins,
    /// `SELECT @@dbproxy_position`, perhaps by another name, which stands at this place of the text.
    Position(Option<Range<usize>>),
}

/// Reads a question to the proxy; `None` for any other statement.
///
/// `EXPLAIN route` and one word more describes a column of a table of that name: what is to be explained has two words at least,
/// or is the first of several statements and begins or ends a transaction.
pub fn parse(sql: &[u8], dialect: Dialect) -> Option<Inquiry> {
    let verb = Lexer::new(sql, dialect).next().entry()?.word;
    if !matches!(verb, Word::Explain | Word::Show | Word::Select) {
        return None;
    }
    let tokens = tokens(sql, dialect)?;
    let is_word = |index: usize, word: &[u8]| {
        tokens.get(index).is_some_and(|token| {
            token.kind() == TokenKind::Word && token.bytes(sql).eq_ignore_ascii_case(word)
        })
    };
    match (verb, tokens.as_slice()) {
        (Word::Select, [_, variable, rest @ ..]) => {
            let name = variable.plain_name(sql);
            if variable.kind() != TokenKind::SystemVariable
                || !name.eq_ignore_ascii_case(b"dbproxy_position")
            {
                return None;
            }
            match rest {
                [] => Some(Inquiry::Position(None)),
                [alias] => Some(Inquiry::Position(Some(alias.start()..alias.end()))),
                [_, alias] if is_word(2, b"AS") => {
                    Some(Inquiry::Position(Some(alias.start()..alias.end())))
                }
                _ => None,
            }
        }
        (Word::Explain, [_, route, first, next, ..]) if is_word(1, b"ROUTE") => {
            let begins = match next.is(b';') {
                true => stands_alone(first),
                false => first.kind() == TokenKind::Word || first.is(b'('),
            };
            begins.then_some(Inquiry::Route(route.end()..sql.len()))
        }
        (Word::Show, [_, _, _]) if is_word(1, b"DBPROXY") && is_word(2, b"SESSION") => {
            Some(Inquiry::Session)
        }
        (Word::Show, [_, _, _]) if is_word(1, b"DBPROXY") && is_word(2, b"RULES") => {
            Some(Inquiry::Rules)
        }
        (Word::Show, [_, _, _]) if is_word(1, b"DBPROXY") && is_word(2, b"FIREWALL") => {
            Some(Inquiry::Firewall)
        }
        (Word::Show, [_, _, _]) if is_word(1, b"DBPROXY") && is_word(2, b"PINS") => {
            Some(Inquiry::Pins)
        }
        _ => None,
    }
}

fn stands_alone(token: &Token) -> bool {
    token
        .entry()
        .is_some_and(|entry| matches!(entry.word, Word::Begin | Word::Commit | Word::Rollback))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn questions_are_told_from_statements() {
        let route = |rest: &str| Some(Some(rest.to_owned()));
        for (sql, expected) in [
            ("EXPLAIN ROUTE SELECT 1", route(" SELECT 1")),
            (
                "explain/**/route /* dbproxy: primary */ (SELECT 1)",
                route(" /* dbproxy: primary */ (SELECT 1)"),
            ),
            ("EXPLAIN ROUTE DELETE FROM t", route(" DELETE FROM t")),
            (
                "EXPLAIN ROUTE SELECT 1; DELETE FROM t",
                route(" SELECT 1; DELETE FROM t"),
            ),
            (
                "EXPLAIN ROUTE BEGIN; SELECT 1; COMMIT",
                route(" BEGIN; SELECT 1; COMMIT"),
            ),
            ("EXPLAIN ROUTE id; SELECT 1", None),
            ("EXPLAIN ROUTE COMMIT;", None),
            ("SELECT 1; EXPLAIN ROUTE SELECT 1", None),
            ("SHOW DBPROXY SESSION; SELECT 1", None),
            ("SHOW DBPROXY SESSION;", Some(None)),
            ("show dbproxy session", Some(None)),
            ("SHOW DBPROXY RULES", Some(None)),
            ("SHOW DBPROXY firewall", Some(None)),
            ("SHOW DBPROXY Pins", Some(None)),
            ("SELECT @@dbproxy_position", Some(None)),
            ("/* x */ select @@DBPROXY_POSITION;", Some(None)),
            ("SELECT @@dbproxy_position AS p", route("p")),
            ("SELECT @@dbproxy_position `p`", route("`p`")),
            ("SELECT @@dbproxy_position, 1", None),
            ("SELECT @dbproxy_position", None),
            ("SELECT @@version", None),
            ("SHOW DBPROXY", None),
            ("SHOW DBPROXY SESSION x", None),
            ("SHOW `DBPROXY` SESSION", None),
            ("EXPLAIN route", None),
            ("EXPLAIN route id", None),
            ("EXPLAIN route 'i%'", None),
            ("EXPLAIN route.orders id", None),
            ("EXPLAIN `route` SELECT 1", None),
            ("DESC ROUTE SELECT 1", None),
            ("EXPLAIN SELECT 1", None),
            ("", None),
        ] {
            let found = parse(sql.as_bytes(), Dialect::default()).map(|inquiry| match inquiry {
                Inquiry::Route(range) => Some(sql.get(range).unwrap().to_owned()),
                Inquiry::Position(Some(alias)) => Some(sql.get(alias).unwrap().to_owned()),
                _ => None,
            });
            assert_eq!(found, expected, "{sql}");
        }
    }
}
