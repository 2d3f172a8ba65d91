//! The literals of a statement.

use std::ops::Range;

use super::dialect::Dialect;
use super::lexer::{TokenKind, tokens};

/// Where the literals stand in a statement, quotes and all: those that a digest leaves out, each for itself. A sign in front of a
/// number is not a part of it.
///
/// `None` if the text cannot be taken apart for certain.
pub fn literals(sql: &[u8], dialect: Dialect) -> Option<Vec<Range<usize>>> {
    let tokens = tokens(sql, dialect)?;
    let literals = tokens
        .iter()
        .filter(|token| matches!(token.kind(), TokenKind::String | TokenKind::Number));
    Some(
        literals
            .map(|token| token.end() - token.bytes(sql).len()..token.end())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn literals_are_found_with_their_quotes() {
        let sql =
            "SELECT 'it''s', -5, x'0f', `7`, @v1 /* 8 */ FROM t WHERE a IN (0x1f, \"b\") AND c = ?";
        let found = literals(sql.as_bytes(), Dialect::default()).unwrap();
        let found: Vec<_> = found.into_iter().map(|range| &sql[range]).collect();
        assert_eq!(found, ["'it''s'", "5", "x'0f'", "0x1f", "\"b\""]);
        assert_eq!(literals(b"SELECT 'open", Dialect::default()), None);
    }
}
