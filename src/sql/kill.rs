//! KILL statements.

use std::ops::Range;

use super::dialect::Dialect;
use super::lexer::{Token, TokenKind, tokens};
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// What to end.
    pub scope: Scope,
    /// Whose.
    pub victim: Victim,
}

/// Whom a KILL statement means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Victim {
    /// The connection of this id, as shown to clients.
    Id(u64),
    /// The connection of the id that the expression at this place of the text gives.
    Expression(Range<usize>),
    /// The connection of the id that a prepared statement's only parameter gives.
    Parameter,
    /// All connections of this user (MariaDB), from this host if one is named.
    User {
        /// The user's name.
        name: Vec<u8>,
        /// The client's host.
        host: Option<Vec<u8>>,
    },
}

/// Reads `KILL [HARD|SOFT] [CONNECTION|QUERY]` and what is behind.
///
/// `None` for any other statement, also for `KILL` of a query id.
pub fn parse(sql: &[u8], dialect: Dialect) -> Option<Kill> {
    let tokens = tokens(sql, dialect)?;
    let mut rest = tokens.as_slice();
    let mut take = |wanted: Word| match rest.split_first() {
        Some((first, behind)) if first.entry().is_some_and(|entry| entry.word == wanted) => {
            rest = behind;
            true
        }
        _ => false,
    };
    if !take(Word::Kill) {
        return None;
    }
    let _ = take(Word::Soft) || take(Word::Hard);
    let scope = if take(Word::Query) {
        Scope::Query
    } else {
        take(Word::Connection);
        Scope::Connection
    };
    let (first, last) = (rest.first()?, rest.last()?);
    let is_word = |word: &[u8]| {
        first.kind() == TokenKind::Word && first.bytes(sql).eq_ignore_ascii_case(word)
    };
    let victim = match rest {
        [number] if number.kind() == TokenKind::Number => {
            Victim::Id(std::str::from_utf8(number.bytes(sql)).ok()?.parse().ok()?)
        }
        [_, name, host @ ..] if dialect.maria && is_word(b"USER") => Victim::User {
            name: name.name(sql),
            host: host_of(host, sql),
        },
        [_, _] if dialect.maria && is_word(b"ID") => return None,
        [mark] if mark.is(b'?') => Victim::Parameter,
        _ if rest.iter().any(|token| token.is(b';') || token.is(b'?')) => return None,
        // Servers refuse it, before they evaluate anything.
        _ if rest.iter().any(is_select) => return None,
        _ => Victim::Expression(first.start()..last.end()),
    };
    Some(Kill { scope, victim })
}

/// Whether one line of SHOW GRANTS lets an account end the connections of others.
///
/// Names stand in it too, of users and of what else they may do: a list of privileges that holds for everything has none.
pub fn may_end_others(grant: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b' ' | b'_' | b',');
    let privileges = grant.strip_prefix(b"GRANT ").and_then(|rest| {
        let end = rest.windows(EVERYTHING.len());
        let end = end.take_while(|window| *window != EVERYTHING).count();
        let everywhere = end + EVERYTHING.len() <= rest.len();
        rest.get(..end).filter(|_| everywhere)
    });
    privileges.is_some_and(|privileges| {
        let mut items = privileges.split(|byte| *byte == b',');
        privileges.iter().all(plain) && items.any(|item| ENDING.contains(&item.trim_ascii()))
    })
}

const EVERYTHING: &[u8] = b" ON *.* ";

/// The privileges to end the connections of others, as SHOW GRANTS writes them.
const ENDING: [&[u8]; 4] = [
    b"ALL PRIVILEGES",
    b"SUPER",
    b"CONNECTION_ADMIN",
    b"CONNECTION ADMIN",
];

fn is_select(token: &Token) -> bool {
    token
        .entry()
        .is_some_and(|entry| entry.word == Word::Select)
}

/// The host behind the name of a user; None for any.
fn host_of(tokens: &[Token], sql: &[u8]) -> Option<Vec<u8>> {
    let host = match tokens {
        [] => return None,
        // Blanks may stand behind the mark.
        [host] | [_, host] => host.plain_name(sql),
        // Nobody comes from there.
        _ => b"",
    };
    (host != b"%").then(|| host.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kill() {
        let id = |scope, id| Some((scope, Victim::Id(id)));
        let expression = |range| Some((Scope::Connection, Victim::Expression(range)));
        let user = |scope, name: &str, host: Option<&str>| {
            let (name, host) = (name.into(), host.map(Into::into));
            Some((scope, Victim::User { name, host }))
        };
        let maria = Dialect::of(true, 101_100);
        for (sql, expected) in [
            ("KILL 5", id(Scope::Connection, 5)),
            ("kill connection 6;", id(Scope::Connection, 6)),
            ("KILL/**/QUERY 7", id(Scope::Query, 7)),
            ("KILL SOFT QUERY 8", id(Scope::Query, 8)),
            ("KILL HARD 9", id(Scope::Connection, 9)),
            (
                "KILL SOFT CONNECTION 18446744073709551615",
                id(Scope::Connection, u64::MAX),
            ),
            ("KILL @id", expression(5..8)),
            ("KILL 5 + 1 ;", expression(5..10)),
            ("KILL (SELECT 5)", None),
            ("KILL QUERY ID 5", None),
            (
                "KILL QUERY USER `f``oo`@'%'",
                user(Scope::Query, "f`oo", None),
            ),
            ("KILL USER a@b, c", user(Scope::Connection, "a", Some(""))),
            ("KILL USER root", user(Scope::Connection, "root", None)),
            (
                "KILL USER 'root'@'nowhere'",
                user(Scope::Connection, "root", Some("nowhere")),
            ),
            (
                "KILL USER root @ '10.0.0.1';",
                user(Scope::Connection, "root", Some("10.0.0.1")),
            ),
            (
                "KILL USER root@localhost",
                user(Scope::Connection, "root", Some("localhost")),
            ),
            ("KILL 5; SELECT 1", None),
            ("KILL ?", Some((Scope::Connection, Victim::Parameter))),
            ("KILL ? + 1", None),
            ("KILL 18446744073709551616", None),
            ("KILL", None),
            ("SELECT 5", None),
            ("", None),
        ] {
            let found = parse(sql.as_bytes(), maria).map(|kill| (kill.scope, kill.victim));
            assert_eq!(found, expected, "{sql}");
        }
    }
    #[test]
    fn only_privileges_let_end_others() {
        for (grant, expected) in [
            ("GRANT ALL PRIVILEGES ON *.* TO `root`@`%`", true),
            ("GRANT RELOAD, SUPER ON *.* TO 'a'@'%'", true),
            ("GRANT SUPER ON *.* TO `a`@`%` WITH GRANT OPTION", true),
            ("GRANT BACKUP_ADMIN,CONNECTION_ADMIN ON *.* TO a", true),
            ("GRANT CONNECTION ADMIN, FILE ON *.* TO a", true),
            ("GRANT USAGE ON *.* TO `SUPER`@`%`", false),
            ("GRANT SELECT ON `SUPER`.* TO `a`@`%`", false),
            ("GRANT ALL PRIVILEGES ON `a`.* TO `a`@`%`", false),
            ("GRANT ALL PRIVILEGES ON ` ON *.* `.* TO a", false),
            ("GRANT SELECT (`a, SUPER ON *.* b`) ON t.t TO a", false),
            ("GRANT `SUPER`@`%` TO `a`@`%`", false),
            ("REVOKE SUPER ON *.* FROM a", false),
            ("GRANT SUPERB, X SUPER ON *.* TO a", false),
            ("GRANT SUPER", false),
            ("GRANT ", false),
            ("", false),
        ] {
            assert_eq!(may_end_others(grant.as_bytes()), expected, "{grant}");
        }
    }
}
