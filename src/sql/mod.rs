//! What a statement means.
//!
//! [`classify`] reads a statement's bytes once, without allocating and without trusting them, and
//! says what kind of statement it is, what it touches that a replica or another connection could
//! not answer rightly, which hint its leading comment gives, and the digest it is counted under.
//! Whatever is not surely a read is not called a read. The room is pure: no IO, no clock.

pub mod administration;
mod cache;
pub mod catalogue;
mod class;
mod connection_id;
mod counts;
mod dialect;
mod digest;
mod facts;
mod functions;
pub mod fuzz;
mod hint;
pub mod holding;
pub mod inquiry;
mod keywords;
pub mod kill;
mod lexer;
mod literals;
mod mentions;
mod parse;
mod prepared_text;
mod replace;
pub mod router;
pub mod set;
pub mod setting;
mod user_variables;
pub mod variables;
mod varying;
mod words;

pub use cache::Classifier;
pub use class::{Cause, Kind, StatementClass, classify};
pub use connection_id::with_connection_id;
pub use counts::{Counts, with_counts};
pub use dialect::Dialect;
pub use digest::{digest_text, loggable_digest};
pub use facts::Facts;
pub use functions::pure_functions;
pub use hint::{Hint, Name, hint_text};
pub use literals::literals;
pub use mentions::mentions;
pub use parse::{Tables, tables};
pub use prepared_text::prepared_texts;
pub use user_variables::{Constant, reads_known_variables};
pub use varying::{depends_on_chance, varies};

/// The schema that a USE statement names, unquoted; `None` for any other statement.
pub fn use_schema(sql: &[u8], dialect: Dialect) -> Option<Vec<u8>> {
    match lexer::tokens(sql, dialect)?.as_slice() {
        [verb, name]
            if verb
                .entry()
                .is_some_and(|entry| entry.word == words::Word::Use)
                && matches!(
                    name.kind(),
                    lexer::TokenKind::Word | lexer::TokenKind::Quoted
                ) =>
        {
            Some(name.name(sql))
        }
        _ => None,
    }
}

/// Whether a statement begins with WITH: its beginning does not tell whether it reads or writes.
pub fn begins_with_expressions(sql: &[u8], dialect: Dialect) -> bool {
    let first = lexer::Lexer::new(sql, dialect).next();
    first
        .entry()
        .is_some_and(|entry| entry.word == words::Word::With)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_use() {
        for (sql, expected) in [
            ("USE shop", Some("shop")),
            ("use `my``shop`;", Some("my`shop")),
            ("USE/**/shop -- x", Some("shop")),
            ("USE `select`", Some("select")),
            ("USE", None),
            ("USE a b", None),
            ("USE a; SELECT 1", None),
            ("USE 'a'", None),
            ("SELECT a", None),
        ] {
            let schema = use_schema(sql.as_bytes(), Dialect::default());
            assert_eq!(schema.as_deref(), expected.map(str::as_bytes), "{sql}");
        }
    }
}
