//! Statements in the strings of others: PREPARE and EXECUTE IMMEDIATE.

use super::class::Kind;
use super::dialect::Dialect;
use super::lexer::{Lexer, Token, TokenKind};

/// The texts that a packet whose class has this kind prepares, as the servers read them: without quotes and escapes.
///
/// `None` if one is not a single string: what it says is known only when it is run.
pub fn prepared_texts(sql: &[u8], kind: Kind, dialect: Dialect) -> Option<Vec<Vec<u8>>> {
    let mut texts = Vec::new();
    let has = |word: &[u8]| {
        sql.windows(word.len())
            .any(|window| window.eq_ignore_ascii_case(word))
    };
    if !has(b"prepare") && !has(b"immediate") {
        return Some(texts);
    }
    let tokens = Lexer::new(sql, dialect).rest();
    // Programs, and what may hold them.
    let anywhere = !matches!(kind, Kind::Read | Kind::Write | Kind::Prepare);
    let mut begins = true;
    for (at, token) in tokens.iter().enumerate() {
        let rest = tokens.get(at..).unwrap_or_default();
        if begins || anywhere {
            match prepared(rest, sql, dialect) {
                Prepared::Nothing => {}
                Prepared::Text(text) => texts.push(text),
                Prepared::Computed => return None,
            }
        }
        begins = begins_behind(*token, sql);
    }
    Some(texts)
}

/// Whether a statement may begin behind this token: also behind SET STATEMENT ... FOR. In other places FOR begins nothing that
/// looks like one.
pub(super) fn begins_behind(token: Token, sql: &[u8]) -> bool {
    token.is(b';') || is_word(token, sql, "FOR")
}

pub(super) fn is_word(token: Token, sql: &[u8], word: &str) -> bool {
    token.kind() == TokenKind::Word && token.bytes(sql).eq_ignore_ascii_case(word.as_bytes())
}

/// What is prepared by the statement that some tokens begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Prepared {
    /// It is another statement.
    Nothing,
    /// This text.
    Text(Vec<u8>),
    /// A variable, or an expression.
    Computed,
}

pub(super) fn prepared(tokens: &[Token], sql: &[u8], dialect: Dialect) -> Prepared {
    let is = |token: &Token, word| is_word(*token, sql, word);
    let text = match tokens {
        [first, _, third, text @ ..] if is(first, "PREPARE") && is(third, "FROM") => text,
        [first, second, text @ ..] if is(first, "EXECUTE") && is(second, "IMMEDIATE") => text,
        _ => return Prepared::Nothing,
    };
    let ends = |behind: Option<&Token>| {
        behind.is_none_or(|token| token.is(b';') || is_word(*token, sql, "USING"))
    };
    match text {
        [text, ..] if text.kind() == TokenKind::String && ends(text_behind(tokens, text)) => {
            unquoted(text.bytes(sql), dialect).map_or(Prepared::Computed, Prepared::Text)
        }
        _ => Prepared::Computed,
    }
}

fn text_behind<'a>(tokens: &'a [Token], text: &Token) -> Option<&'a Token> {
    tokens.iter().find(|token| token.start() >= text.end())
}

/// The content of a string; `None` for one with more in front of it than its quote.
fn unquoted(string: &[u8], dialect: Dialect) -> Option<Vec<u8>> {
    let (quote, inner) = match string {
        [quote @ (b'\'' | b'"'), inner @ .., last] if quote == last => (*quote, inner),
        _ => return None,
    };
    let mut content = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' && !dialect.no_backslash_escapes {
            // https://dev.mysql.com/doc/refman/8.4/en/string-literals.html
            content.push(match bytes.next()? {
                b'0' => 0,
                b'b' => 8,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'Z' => 26,
                other => other,
            });
            continue;
        }
        if byte == quote {
            bytes.next();
        }
        content.push(byte);
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::super::classify;
    use super::*;

    #[test]
    fn texts_are_found() {
        let dialect = Dialect {
            maria: true,
            ..Dialect::default()
        };
        for (sql, expected) in [
            ("SELECT 'prepare s FROM x'", Some(vec![])),
            ("SELECT prepare p FROM t", Some(vec![])),
            ("DEALLOCATE PREPARE s", Some(vec![])),
            ("XA PREPARE 'x'", Some(vec![])),
            ("PREPARE s FROM 'SELECT 1'", Some(vec!["SELECT 1"])),
            (
                "prepare `s` from \"SELECT 'it''s', \"\"a\\n\"\"\";",
                Some(vec!["SELECT 'it''s', \"a\n\""]),
            ),
            (
                "EXECUTE IMMEDIATE 'SELECT ''a''' USING 1",
                Some(vec!["SELECT 'a'"]),
            ),
            (
                "SELECT 1; PREPARE s FROM 'DO 1'; EXECUTE IMMEDIATE 'DO 2'",
                Some(vec!["DO 1", "DO 2"]),
            ),
            (
                "BEGIN NOT ATOMIC IF 1 THEN EXECUTE IMMEDIATE 'DO 3'; END IF; END",
                Some(vec!["DO 3"]),
            ),
            (
                "SET STATEMENT max_statement_time = 1 FOR EXECUTE IMMEDIATE 'DO 4'",
                Some(vec!["DO 4"]),
            ),
            ("PREPARE s FROM @text", None),
            ("PREPARE s FROM x'31'", None),
            ("PREPARE s FROM CONCAT('a', 'b')", None),
            ("EXECUTE IMMEDIATE 'SELECT ' 'a'", None),
            ("EXECUTE IMMEDIATE 'SELECT ' || @a", None),
            ("BEGIN NOT ATOMIC EXECUTE IMMEDIATE a; END", None),
        ] {
            let kind = classify(sql.as_bytes(), dialect).kind;
            let found = prepared_texts(sql.as_bytes(), kind, dialect);
            let expected: Option<Vec<_>> =
                expected.map(|texts| texts.iter().map(|text| text.as_bytes().to_vec()).collect());
            assert_eq!(found, expected, "{sql}");
        }
        let dialect = Dialect {
            no_backslash_escapes: true,
            ..dialect
        };
        assert_eq!(
            prepared_texts(b"PREPARE s FROM 'SELECT \\n'", Kind::Prepare, dialect),
            Some(vec![b"SELECT \\n".to_vec()])
        );
    }
}
