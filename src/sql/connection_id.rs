//! CONNECTION_ID(): the id that the client knows is the proxy's, not the server's.

use super::dialect::Dialect;
use super::lexer::{Token, TokenKind, tokens};
use super::words::Word;

const CALL: &[u8] = b"CONNECTION_ID";
const VARIABLE: &[u8] = b"PSEUDO_THREAD_ID";

/// Longest alias of a column, in characters.
/// <https://dev.mysql.com/doc/refman/8.4/en/identifier-length.html>
const LONGEST_NAME: usize = 256;

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
    b"ON",
    b"RETURNING",
    b"PROCEDURE",
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
/// `@@pseudo_thread_id`, as an expression of the same type; a column keeps its name.
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
    let kill = tokens.first().and_then(|token| word(*token)) == Some(Word::Kill);
    let mut out = Vec::with_capacity(sql.len() + 96);
    let mut copied = 0;
    let mut lists = SelectLists::default();
    let mut previous = Token::NONE;
    let mut rest = tokens.as_slice();
    while let Some((&token, behind)) = rest.split_first() {
        if let Some(name) = lists.follow(sql, token, previous) {
            out.extend_from_slice(sql.get(copied..previous.end()).unwrap_or(&[]));
            put_alias(&mut out, name);
            copied = previous.end();
        }
        let found = match call(sql, previous, rest) {
            // Statements that take a number take no expression.
            Some(len) if kill => Some((len, id.to_string())),
            // All ten digits: the type and the length are then those of the function.
            Some(len) => Some((len, format!("CAST({id:010} AS UNSIGNED)"))),
            // A number that can be NULL, as the variable is to the servers.
            None => variable(sql, &tokens, rest).map(|len| (len, format!("NULLIF({id}|0,0)"))),
        };
        let Some((len, number)) = found else {
            previous = token;
            rest = behind;
            continue;
        };
        let Some(([.., last], after)) = rest.split_at_checked(len) else {
            return None;
        };
        out.extend_from_slice(sql.get(copied..token.start()).unwrap_or(&[]));
        out.extend_from_slice(number.as_bytes());
        lists.replaced(last.end());
        copied = last.end();
        previous = *last;
        rest = after;
    }
    if copied == 0 {
        return None;
    }
    if let Some(name) = lists.end(sql, previous) {
        out.extend_from_slice(sql.get(copied..previous.end()).unwrap_or(&[]));
        put_alias(&mut out, name);
        copied = previous.end();
    }
    out.extend_from_slice(sql.get(copied..).unwrap_or(&[]));
    Some(out)
}

/// The name that a column would have had.
fn put_alias(out: &mut Vec<u8>, name: &[u8]) {
    out.extend_from_slice(b" AS `");
    for byte in name {
        if *byte == b'`' {
            out.push(b'`');
        }
        out.push(*byte);
    }
    out.push(b'`');
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

/// Where the select lists of a statement are, and where their columns begin.
#[derive(Default)]
struct SelectLists {
    /// What was going on outside of each open parenthesis.
    outer: Vec<List>,
    list: List,
}

#[derive(Default, Clone, Copy)]
struct List {
    inside: bool,
    column: Option<Column>,
}

#[derive(Clone, Copy)]
struct Column {
    start: usize,
    /// Where the last thing that was replaced in it ends.
    replaced: Option<usize>,
}

impl SelectLists {
    /// Takes the next token; the text of the column that ended before it, if that needs its name back.
    fn follow<'a>(&mut self, sql: &'a [u8], token: Token, previous: Token) -> Option<&'a [u8]> {
        let among = |words: &[&[u8]], token| words.iter().any(|word| is_word(sql, token, word));
        let clause = !previous.is(b'.') && among(CLAUSES, token);
        let ends = token.is(b',') || token.is(b')') || token.is(b';') || clause;
        let named = if ends { self.end(sql, previous) } else { None };
        if self.list.inside
            && (previous.is(b',') || is_word(sql, previous, b"SELECT") || among(OPTIONS, previous))
        {
            self.list.column = Some(Column {
                start: token.start(),
                replaced: None,
            });
        }
        if token.is(b'(') {
            self.outer.push(self.list);
            self.list = List::default();
        } else if token.is(b')') {
            self.list = self.outer.pop().unwrap_or_default();
        } else if token.is(b';') || clause {
            self.list = List::default();
        } else if !previous.is(b'.') && is_word(sql, token, b"SELECT") {
            self.list.inside = true;
        }
        named
    }

    /// Something that ends at `end` was replaced in the columns that are open.
    fn replaced(&mut self, end: usize) {
        let open = self.outer.iter_mut().chain([&mut self.list]);
        for column in open.filter_map(|list| list.column.as_mut()) {
            column.replaced = Some(end);
        }
    }

    /// The column that ends with the token `last`: its text, if something was replaced in it and it has no alias.
    ///
    /// Only what ends with a parenthesis, a number, a variable or what was replaced is sure to have none.
    fn end<'a>(&mut self, sql: &'a [u8], last: Token) -> Option<&'a [u8]> {
        let column = self.list.column.take()?;
        let replaced = column.replaced?;
        let bare = replaced == last.end()
            || last.is(b')')
            || last.kind() == TokenKind::Number
            || last.kind() == TokenKind::SystemVariable;
        let text = sql.get(column.start..last.end())?;
        (bare && text.len() <= LONGEST_NAME).then_some(text)
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
        let id = "CAST(0000000007 AS UNSIGNED)";
        for (sql, expected) in [
            ("SELECT CONNECTION_ID()", "SELECT {id} AS `CONNECTION_ID()`"),
            (
                "select connection_id ( ) ;",
                "select {id} AS `connection_id ( )` ;",
            ),
            (
                "SELECT a, CONNECTION_ID(), b FROM t",
                "SELECT a, {id} AS `CONNECTION_ID()`, b FROM t",
            ),
            (
                "SELECT DISTINCT Connection_Id()FROM t",
                "SELECT DISTINCT {id} AS `Connection_Id()`FROM t",
            ),
            ("SELECT CONNECTION_ID() AS id", "SELECT {id} AS id"),
            ("SELECT CONNECTION_ID()id", "SELECT {id}id"),
            (
                "SELECT CONNECTION_ID() AS pseudo_thread_id",
                "SELECT {id} AS pseudo_thread_id",
            ),
            (
                "INSERT INTO t SELECT 'a', CONNECTION_ID() ON DUPLICATE KEY UPDATE b = VALUES(b)",
                "INSERT INTO t SELECT 'a', {id} AS `CONNECTION_ID()` ON DUPLICATE KEY UPDATE b = VALUES(b)",
            ),
            (
                "INSERT INTO t SELECT CONNECTION_ID() ON DUPLICATE KEY UPDATE b = 1",
                "INSERT INTO t SELECT {id} AS `CONNECTION_ID()` ON DUPLICATE KEY UPDATE b = 1",
            ),
            (
                "INSERT INTO t SELECT CONNECTION_ID() RETURNING f()",
                "INSERT INTO t SELECT {id} AS `CONNECTION_ID()` RETURNING f()",
            ),
            (
                "SELECT CONNECTION_ID() PROCEDURE ANALYSE(1)",
                "SELECT {id} AS `CONNECTION_ID()` PROCEDURE ANALYSE(1)",
            ),
            ("SELECT CONNECTION_ID() id, 1", "SELECT {id} id, 1"),
            (
                "SELECT CONNECTION_ID() + 1",
                "SELECT {id} + 1 AS `CONNECTION_ID() + 1`",
            ),
            (
                "SELECT f(`a`, CONNECTION_ID())",
                "SELECT f(`a`, {id}) AS `f(``a``, CONNECTION_ID())`",
            ),
            (
                "SELECT CONNECTION_ID() = a, f(CONNECTION_ID()) b",
                "SELECT {id} = a, f({id}) b",
            ),
            (
                "SELECT (SELECT CONNECTION_ID()), 'CONNECTION_ID()'",
                "SELECT (SELECT {id} AS `CONNECTION_ID()`) AS `(SELECT CONNECTION_ID())`, 'CONNECTION_ID()'",
            ),
            (
                "SELECT a FROM t WHERE id = CONNECTION_ID() ORDER BY a, CONNECTION_ID()",
                "SELECT a FROM t WHERE id = {id} ORDER BY a, {id}",
            ),
            (
                "SELECT CONNECTION_ID() UNION SELECT 1; SELECT 2, CONNECTION_ID()",
                "SELECT {id} AS `CONNECTION_ID()` UNION SELECT 1; SELECT 2, {id} AS `CONNECTION_ID()`",
            ),
            (
                "INSERT INTO t VALUES (1, CONNECTION_ID())",
                "INSERT INTO t VALUES (1, {id})",
            ),
            ("KILL CONNECTION_ID()", "KILL 7"),
            ("SET @a = CONNECTION_ID()", "SET @a = {id}"),
        ] {
            let expected = expected.replace("{id}", id);
            assert_eq!(replaced(sql), Some(expected), "{sql}");
        }
    }

    #[test]
    fn readings_of_the_variable_become_the_number() {
        for (sql, expected) in [
            (
                "SELECT @@pseudo_thread_id",
                "SELECT NULLIF(7|0,0) AS `@@pseudo_thread_id`",
            ),
            (
                "SELECT 1, @@session.pseudo_thread_id LIMIT 1",
                "SELECT 1, NULLIF(7|0,0) AS `@@session.pseudo_thread_id` LIMIT 1",
            ),
            (
                "SELECT @@pseudo_thread_id = 5",
                "SELECT NULLIF(7|0,0) = 5 AS `@@pseudo_thread_id = 5`",
            ),
            ("SELECT @@pseudo_thread_id x", "SELECT NULLIF(7|0,0) x"),
            (
                "SELECT @@pseudo_thread_id pseudo_thread_id",
                "SELECT NULLIF(7|0,0) pseudo_thread_id",
            ),
            ("SET @a = @@pseudo_thread_id", "SET @a = NULLIF(7|0,0)"),
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
