//! CONNECTION_ID(): the id that the client knows is the proxy's, not the server's.

use super::dialect::Dialect;
use super::lexer::{Token, TokenKind, tokens};
use super::words::Word;

const CALL: &[u8] = b"CONNECTION_ID";
const VARIABLE: &[u8] = b"PSEUDO_THREAD_ID";

/// Longest name of a column, in characters.
/// <https://dev.mysql.com/doc/refman/8.4/en/identifier-length.html>
const LONGEST_NAME: usize = 64;

/// Words that end a select list.
const CLAUSES: &[&[u8]] = &[
    b"FROM",
    b"WHERE",
    b"GROUP",
    b"HAVING",
    b"WINDOW",
    b"ORDER",
    b"LIMIT",
    b"INTO",
    b"FOR",
    b"LOCK",
    b"UNION",
    b"EXCEPT",
    b"INTERSECT",
];

/// Words between SELECT and its first column.
const OPTIONS: &[&[u8]] = &[
    b"ALL",
    b"DISTINCT",
    b"DISTINCTROW",
    b"HIGH_PRIORITY",
    b"STRAIGHT_JOIN",
    b"SQL_NO_CACHE",
    b"SQL_CACHE",
    b"SQL_CALC_FOUND_ROWS",
    b"SQL_SMALL_RESULT",
    b"SQL_BIG_RESULT",
    b"SQL_BUFFER_RESULT",
];

/// The statement with `id` in place of each call of CONNECTION_ID() and each reading of
/// `@@pseudo_thread_id`; a column that is nothing else keeps its name.
///
/// `None` if nothing is to be replaced. A definition stays as it is: what it defines
/// outlives the connection.
pub fn with_connection_id(sql: &[u8], dialect: Dialect, id: u32) -> Option<Vec<u8>> {
    if !contains(sql, CALL) && !contains(sql, VARIABLE) {
        return None;
    }
    let tokens = tokens(sql, dialect)?;
    if tokens
        .iter()
        .any(|token| matches!(word(*token), Some(Word::Create | Word::Alter)))
    {
        return None;
    }
    let mut out = Vec::with_capacity(sql.len() + CALL.len() + 16);
    let mut copied = 0;
    let mut lists = SelectLists::default();
    let mut previous = Token::NONE;
    let mut rest = tokens.as_slice();
    while let Some((&token, behind)) = rest.split_first() {
        let begins_item = lists.follow(sql, token, previous);
        let len = call(sql, previous, rest).or_else(|| variable(sql, &tokens, rest));
        let found = len.and_then(|len| rest.split_at_checked(len));
        let Some(([.., last], after)) = found else {
            previous = token;
            rest = behind;
            continue;
        };
        let text = sql.get(token.start()..last.end()).unwrap_or(&[]);
        out.extend_from_slice(sql.get(copied..token.start()).unwrap_or(&[]));
        out.extend_from_slice(id.to_string().as_bytes());
        if begins_item && ends_item(sql, after) && text.len() <= LONGEST_NAME {
            out.extend_from_slice(b" AS `");
            out.extend_from_slice(text);
            out.push(b'`');
        } else {
            // A word right behind would be read together with the number.
            out.push(b' ');
        }
        copied = last.end();
        previous = *last;
        rest = after;
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(sql.get(copied..).unwrap_or(&[]));
    Some(out)
}

fn contains(sql: &[u8], name: &[u8]) -> bool {
    sql.windows(name.len())
        .any(|window| window.eq_ignore_ascii_case(name))
}

fn word(token: Token) -> Option<Word> {
    (token.kind() == TokenKind::Word).then(|| token.entry().map_or(Word::Other, |entry| entry.word))
}

fn is_word(sql: &[u8], token: Token, name: &[u8]) -> bool {
    token.kind() == TokenKind::Word && token.bytes(sql).eq_ignore_ascii_case(name)
}

/// The number of tokens of the call that `rest` begins with.
fn call(sql: &[u8], previous: Token, rest: &[Token]) -> Option<usize> {
    let [name, open, close, ..] = rest else {
        return None;
    };
    // A function of that name in a schema, or a table with an empty list of columns.
    let other = previous.is(b'.')
        || matches!(
            word(previous),
            Some(Word::Into | Word::Insert | Word::Replace | Word::InsertOption)
        );
    let is_call = is_word(sql, *name, CALL) && open.is(b'(') && close.is(b')') && !other;
    // A comment in between may hold code.
    let between = sql.get(name.end()..close.end())?;
    let plain = between
        .iter()
        .all(|byte| byte.is_ascii_whitespace() || matches!(byte, b'(' | b')'));
    (is_call && plain).then_some(3)
}

/// The number of tokens of the reading of the variable that `rest` begins with.
fn variable(sql: &[u8], statement: &[Token], rest: &[Token]) -> Option<usize> {
    let (first, _) = rest.split_first()?;
    if first.kind() != TokenKind::SystemVariable {
        return None;
    }
    let name = first.plain_name(sql);
    let len = if name.eq_ignore_ascii_case(VARIABLE) {
        1
    } else if (name.eq_ignore_ascii_case(b"SESSION") || name.eq_ignore_ascii_case(b"LOCAL"))
        && let [_, dot, name, ..] = rest
        && dot.is(b'.')
        && is_word(sql, *name, VARIABLE)
        && dot.start() == first.end()
        && name.start() == dot.end()
    {
        3
    } else {
        return None;
    };
    let set = statement.first().and_then(|token| word(*token)) == Some(Word::Set);
    let assigned = rest
        .get(len)
        .is_some_and(|next| next.is(b'=') || next.is(b':'));
    (!set || !assigned).then_some(len)
}

/// Whether what stands before `rest` ends a column of a select list.
fn ends_item(sql: &[u8], rest: &[Token]) -> bool {
    rest.first().is_none_or(|next| {
        next.is(b',')
            || next.is(b')')
            || next.is(b';')
            || CLAUSES.iter().any(|clause| is_word(sql, *next, clause))
    })
}

/// Where the select lists of a statement are: one flag for each open parenthesis, and one more.
#[derive(Default)]
struct SelectLists {
    outer: Vec<bool>,
    inside: bool,
}

impl SelectLists {
    /// Takes the next token: is it the first of a column?
    fn follow(&mut self, sql: &[u8], token: Token, previous: Token) -> bool {
        let among = |words: &[&[u8]], token| words.iter().any(|word| is_word(sql, token, word));
        let first = self.inside
            && (previous.is(b',') || is_word(sql, previous, b"SELECT") || among(OPTIONS, previous));
        if token.is(b'(') {
            self.outer.push(self.inside);
            self.inside = false;
        } else if token.is(b')') {
            self.inside = self.outer.pop().unwrap_or(false);
        } else if token.is(b';') {
            self.inside = false;
        } else if previous.is(b'.') {
            // A name, whatever word it is.
        } else if is_word(sql, token, b"SELECT") {
            self.inside = true;
        } else if among(CLAUSES, token) {
            self.inside = false;
        }
        first
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn replaced(sql: &str) -> Option<String> {
        let sql = with_connection_id(sql.as_bytes(), Dialect::default(), 7);
        sql.map(|sql| String::from_utf8(sql).unwrap())
    }

    #[test]
    fn calls_become_the_number() {
        for (sql, expected) in [
            ("SELECT CONNECTION_ID()", "SELECT 7 AS `CONNECTION_ID()`"),
            (
                "select connection_id ( ) ;",
                "select 7 AS `connection_id ( )` ;",
            ),
            (
                "SELECT a, CONNECTION_ID(), b FROM t",
                "SELECT a, 7 AS `CONNECTION_ID()`, b FROM t",
            ),
            (
                "SELECT DISTINCT Connection_Id()FROM t",
                "SELECT DISTINCT 7 AS `Connection_Id()`FROM t",
            ),
            ("SELECT CONNECTION_ID() AS id", "SELECT 7  AS id"),
            ("SELECT CONNECTION_ID()id", "SELECT 7 id"),
            ("SELECT CONNECTION_ID() + 1", "SELECT 7  + 1"),
            ("SELECT f(1, CONNECTION_ID())", "SELECT f(1, 7 )"),
            (
                "SELECT (SELECT CONNECTION_ID()), 'CONNECTION_ID()'",
                "SELECT (SELECT 7 AS `CONNECTION_ID()`), 'CONNECTION_ID()'",
            ),
            (
                "SELECT a FROM t WHERE id = CONNECTION_ID() ORDER BY a, CONNECTION_ID()",
                "SELECT a FROM t WHERE id = 7  ORDER BY a, 7 ",
            ),
            (
                "SELECT CONNECTION_ID() UNION SELECT 1; SELECT 2, CONNECTION_ID()",
                "SELECT 7 AS `CONNECTION_ID()` UNION SELECT 1; SELECT 2, 7 AS `CONNECTION_ID()`",
            ),
            (
                "INSERT INTO t VALUES (1, CONNECTION_ID())",
                "INSERT INTO t VALUES (1, 7 )",
            ),
            ("KILL CONNECTION_ID()", "KILL 7 "),
            ("SET @a = CONNECTION_ID()", "SET @a = 7 "),
        ] {
            assert_eq!(replaced(sql).as_deref(), Some(expected), "{sql}");
        }
    }

    #[test]
    fn readings_of_the_variable_become_the_number() {
        for (sql, expected) in [
            (
                "SELECT @@pseudo_thread_id",
                "SELECT 7 AS `@@pseudo_thread_id`",
            ),
            (
                "SELECT 1, @@session.pseudo_thread_id LIMIT 1",
                "SELECT 1, 7 AS `@@session.pseudo_thread_id` LIMIT 1",
            ),
            ("SELECT @@pseudo_thread_id = 5", "SELECT 7  = 5"),
            ("SET @a = @@pseudo_thread_id", "SET @a = 7 "),
        ] {
            assert_eq!(replaced(sql).as_deref(), Some(expected), "{sql}");
        }
    }

    #[test]
    fn everything_else_stays() {
        for sql in [
            "SELECT 1",
            "SELECT 'CONNECTION_ID()'",
            "SELECT `CONNECTION_ID`()",
            "SELECT 1 -- CONNECTION_ID()",
            "SELECT 1 /* CONNECTION_ID() */",
            "SELECT connection_id FROM t",
            "SELECT my.CONNECTION_ID()",
            "SELECT CONNECTION_ID(1)",
            "SELECT CONNECTION_ID/*!(*/)",
            "INSERT INTO connection_id () VALUES ()",
            "CREATE VIEW v AS SELECT CONNECTION_ID()",
            "ALTER TABLE t ALTER a SET DEFAULT (CONNECTION_ID())",
            "SET @@pseudo_thread_id = 5",
            "SET @@session.pseudo_thread_id := 5",
            "SELECT @@global.pseudo_thread_id",
            "SELECT CONNECTION_ID(), 'x",
        ] {
            assert_eq!(replaced(sql), None, "{sql}");
        }
    }
}
