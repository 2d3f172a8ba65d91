//! FOUND_ROWS() and ROW_COUNT(): answers about the statement before, where that ran on a connection that others use by now.

use super::dialect::Dialect;
use super::lexer::tokens;
use super::replace::{call, contains, replace};

const FOUND_ROWS: &[u8] = b"FOUND_ROWS";
const ROW_COUNT: &[u8] = b"ROW_COUNT";

/// What is known of the statement before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// What FOUND_ROWS() gives behind it.
    pub found_rows: u64,
    /// What ROW_COUNT() gives.
    pub row_count: i64,
}

/// The statement with these numbers in place of each call of FOUND_ROWS() and ROW_COUNT(), as expressions of the same type; a
/// column keeps its name.
///
/// `None` if nothing is to be replaced.
pub fn with_counts(sql: &[u8], dialect: Dialect, counts: Counts) -> Option<Vec<u8>> {
    if !contains(sql, FOUND_ROWS) && !contains(sql, ROW_COUNT) {
        return None;
    }
    // What all servers give the type and the length of these functions.
    let expression = |number: String| format!("IFNULL(TIMESTAMPDIFF(DAY,NULL,NULL),{number})");
    let tokens = tokens(sql, dialect)?;
    replace(sql, &tokens, |previous, rest| {
        let found_rows = call(sql, FOUND_ROWS, previous, rest);
        let row_count = || call(sql, ROW_COUNT, previous, rest);
        found_rows
            .map(|len| (len, expression(counts.found_rows.to_string())))
            .or_else(|| row_count().map(|len| (len, expression(counts.row_count.to_string()))))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn calls_become_the_numbers() {
        let counts = Counts {
            found_rows: 7,
            row_count: -1,
        };
        let of = |number| format!("IFNULL(TIMESTAMPDIFF(DAY,NULL,NULL),{number})");
        for (sql, expected) in [
            ("SELECT FOUND_ROWS()", Some("SELECT {7} AS `FOUND_ROWS()`")),
            (
                "select found_rows( ), row_count() AS n;",
                Some("select {7} AS `found_rows( )`, {-1} AS n;"),
            ),
            ("SET @n = ROW_COUNT()", Some("SET @n = {-1}")),
            (
                "INSERT INTO t VALUES (FOUND_ROWS())",
                Some("INSERT INTO t VALUES ({7})"),
            ),
            ("SELECT 'FOUND_ROWS()', found_rows FROM t", None),
            ("CREATE VIEW v AS SELECT FOUND_ROWS()", None),
            ("SELECT my.FOUND_ROWS()", None),
            ("SHOW WARNINGS", None),
        ] {
            let expected =
                expected.map(|sql| sql.replace("{7}", &of("7")).replace("{-1}", &of("-1")));
            let replaced = with_counts(sql.as_bytes(), Dialect::default(), counts);
            let replaced = replaced.map(|sql| String::from_utf8(sql).unwrap());
            assert_eq!(replaced, expected, "{sql}");
        }
    }
}
