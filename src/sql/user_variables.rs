//! User variables whose values are known: constants that SET gives them, and statements that only read them.

use super::dialect::Dialect;
use super::facts::Facts;
use super::lexer::{Token, TokenKind, tokens};
use super::{Kind, StatementClass};

/// A constant, as the statement wrote it: assigned again, it has the same type and value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Constant {
    /// NULL: the variable keeps the type that it had.
    Null,
    /// A number, TRUE, FALSE or a string: the same as long as the session's character sets and `sql_mode` are.
    Value(Box<[u8]>),
}

impl Constant {
    /// Reads the tokens of a constant.
    pub(super) fn read(sql: &[u8], value: &[Token]) -> Option<Self> {
        let (sign, token) = match value {
            [token] => ("", token),
            [sign, token] if sign.is(b'-') && token.kind() == TokenKind::Number => ("-", token),
            [sign, token] if sign.is(b'+') && token.kind() == TokenKind::Number => ("+", token),
            _ => return None,
        };
        let bytes = token.bytes(sql);
        let is_word = |word: &[u8]| bytes.eq_ignore_ascii_case(word);
        match token.kind() {
            TokenKind::Number if bytes.first() != Some(&b'\\') => {
                Some(Self::Value([sign.as_bytes(), bytes].concat().into()))
            }
            TokenKind::Word if is_word(b"NULL") => Some(Self::Null),
            TokenKind::Word if is_word(b"TRUE") || is_word(b"FALSE") => {
                Some(Self::Value(bytes.into()))
            }
            TokenKind::String => match bytes.first()? {
                // Not N'...': that is a character set of its own.
                b'\'' | b'"' | b'x' | b'X' | b'b' | b'B' => Some(Self::Value(bytes.into())),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The name of a user variable in lower case, if it is one that all servers tell from others in the same way.
pub(super) fn plain_name(sql: &[u8], token: Token) -> Option<Vec<u8>> {
    const LONGEST: usize = 64;
    let name = token.plain_name(sql);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    let known = token.kind() == TokenKind::UserVariable
        && (1..=LONGEST).contains(&name.len())
        && name.iter().all(is_plain);
    known.then(|| name.to_ascii_lowercase())
}

/// Whether a statement does nothing with user variables but read them, and `known` knows each of them by its name in lower case.
pub fn reads_known_variables(
    sql: &[u8],
    class: &StatementClass,
    dialect: Dialect,
    known: impl Fn(&[u8]) -> bool,
) -> bool {
    let doubtful = Facts::DOUBTFUL
        .union(Facts::MULTI)
        .union(Facts::INTO)
        .union(Facts::UNKNOWN_FUNCTION)
        .union(Facts::CODE_IN_COMMENT);
    if !matches!(class.kind, Kind::Read | Kind::Show) || class.facts.intersects(doubtful) {
        return false;
    }
    let Some(tokens) = tokens(sql, dialect) else {
        return false;
    };
    tokens.iter().all(|token| match token.kind() {
        TokenKind::UserVariable => plain_name(sql, *token).is_some_and(|name| known(&name)),
        // @a := 1
        TokenKind::Punct(b':') => false,
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::super::classify;
    use super::*;

    #[test]
    fn reading_is_told_from_assigning() {
        let reads = |sql: &str| {
            let class = classify(sql.as_bytes(), Dialect::default());
            let known = |name: &[u8]| matches!(name, b"a" | b"odd.name");
            reads_known_variables(sql.as_bytes(), &class, Dialect::default(), known)
        };
        for sql in [
            "SELECT @a",
            "select @A + 1, @`a`, @'a' from t where b = @odd.name",
            "SELECT * FROM t WHERE a IN (SELECT @a)",
            "SHOW TABLES WHERE Tables_in_db = @a",
        ] {
            assert!(reads(sql), "{sql}");
        }
        for sql in [
            "SELECT @b",
            "SELECT @a, @b",
            "SELECT @a := 1",
            "SELECT @a /* x */ := 1",
            "SELECT 1 INTO @a",
            "SELECT @`a b`",
            "SELECT @`é`",
            "SELECT f(@a)",
            "SELECT @a; SELECT 1",
            "SELECT /*! @a */ 1",
            "INSERT INTO t VALUES (@a)",
            "LOAD DATA INFILE 'x' INTO TABLE t (@a)",
            "CALL p(@a)",
            "EXECUTE s USING @a",
            "SET @a = 1",
        ] {
            assert!(!reads(sql), "{sql}");
        }
    }
}
