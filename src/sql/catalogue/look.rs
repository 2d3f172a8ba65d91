//! What a text calls and names, token by token.

use std::collections::HashSet;

use crate::sql::Cause;
use crate::sql::class::{Part, cause_of};
use crate::sql::dialect::Dialect;
use crate::sql::facts::Facts;
use crate::sql::lexer::{Lexer, Token, TokenKind};
use crate::sql::words::{Flags, Word};

/// A call of something that is no known built-in function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// As written; `None` for the schema in use.
    pub(super) schema: Option<Vec<u8>>,
    /// As written.
    pub(super) name: Vec<u8>,
}

/// What a text calls and names.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) tokens: Vec<Token>,
    /// Of all its statements, but for calls.
    pub(super) facts: Facts,
    pub(super) calls: Vec<Call>,
    /// Words that no query has, or a call of something that is not a name of one or two parts.
    pub(super) odd: bool,
}

impl Look {
    /// Looks at a text, in which `;` ends statements also in a body.
    pub(super) fn at(sql: &[u8], dialect: Dialect) -> Self {
        let mut lexer = Lexer::new(sql, dialect);
        let mut part = Part::new(sql, dialect);
        let mut look = Self {
            tokens: Vec::new(),
            facts: Facts::NONE,
            calls: Vec::new(),
            odd: false,
        };
        loop {
            let token = lexer.next();
            if token.kind() == TokenKind::End {
                break;
            }
            if token.is(b';') {
                look.end(&part);
                part = Part::new(sql, dialect);
            } else {
                part.token(&token, lexer.key);
                if part.facts.contains(Facts::UNKNOWN_FUNCTION) {
                    part.facts = part.facts.difference(Facts::UNKNOWN_FUNCTION);
                    match called(sql, &look.tokens) {
                        Some(call) => look.calls.push(call),
                        None => look.odd = true,
                    }
                }
            }
            look.tokens.push(token);
        }
        look.end(&part);
        look.facts |= lexer.facts;
        look
    }

    fn end(&mut self, part: &Part<'_>) {
        self.facts |= part.facts;
        self.odd |= part.writes();
    }

    /// Whether it has no effects besides those of what it calls and names, and depends on nothing but data and carried state.
    pub(super) fn only_reads(&self) -> bool {
        let doubtful = Facts::UNTERMINATED
            .union(Facts::AMBIGUOUS)
            .union(Facts::CALC_FOUND_ROWS);
        !self.odd && !self.facts.intersects(doubtful) && cause_of(self.facts) == Cause::None
    }

    /// All names in it, folded.
    pub(super) fn names(&self, sql: &[u8]) -> HashSet<Box<[u8]>> {
        let names = self.tokens.iter().filter(|token| is_name(**token));
        names.map(|token| fold(&token.name(sql))).collect()
    }
}

/// Whether it can be the name of a table.
pub(super) fn is_name(token: Token) -> bool {
    match token.kind() {
        TokenKind::Quoted => true,
        TokenKind::Word => token
            .entry()
            .is_none_or(|entry| !entry.flags.has(Flags::RESERVED)),
        _ => false,
    }
}

/// The name in lower case. That servers fold some letters otherwise is the business of whoever compares.
pub(super) fn fold(name: &[u8]) -> Box<[u8]> {
    if name.is_ascii() {
        return name.to_ascii_lowercase().into();
    }
    let name = String::from_utf8_lossy(name).to_lowercase();
    name.into_bytes().into()
}

/// The meaning of a word that is not a name behind a dot.
pub(super) fn word(token: Option<&Token>) -> Word {
    token
        .and_then(|token| token.entry())
        .map_or(Word::Other, |entry| entry.word)
}

/// The name that the tokens so far end with; `None` if it has more parts than schema and name.
pub(super) fn called(sql: &[u8], tokens: &[Token]) -> Option<Call> {
    let part = |token: &Token| {
        let named = matches!(token.kind(), TokenKind::Word | TokenKind::Quoted);
        named.then(|| token.name(sql))
    };
    match tokens {
        [.., before, schema, dot, name] if dot.is(b'.') && !before.is(b'.') => Some(Call {
            schema: Some(part(schema)?),
            name: part(name)?,
        }),
        [schema, dot, name] if dot.is(b'.') => Some(Call {
            schema: Some(part(schema)?),
            name: part(name)?,
        }),
        [.., dot, _] if dot.is(b'.') => None,
        [.., name] => Some(Call {
            schema: None,
            name: part(name)?,
        }),
        [] => None,
    }
}
