//! CONNECTION_ID(): the id that the client knows is the proxy's, not the server's.

use super::dialect::Dialect;
use super::lexer::{Token, TokenKind, tokens};
use super::replace::{call, contains, is_word, replace, word};
use super::words::Word;

const CALL: &[u8] = b"CONNECTION_ID";
const VARIABLE: &[u8] = b"PSEUDO_THREAD_ID";

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
    let kill = tokens.first().and_then(|token| word(*token)) == Some(Word::Kill);
    replace(sql, &tokens, |previous, rest| {
        match call(sql, CALL, previous, rest) {
            // Statements that take a number take no expression.
            Some(len) if kill => Some((len, id.to_string())),
            // All ten digits: the type and the length are then those of the function.
            Some(len) => Some((len, format!("CAST({id:010} AS UNSIGNED)"))),
            // A number that can be NULL, as the variable is to the servers.
            None => variable(sql, &tokens, rest).map(|len| (len, format!("NULLIF({id}|0,0)"))),
        }
    })
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
