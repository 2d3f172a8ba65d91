//! Session variables whose value can be carried to another connection.

/// A session variable that `SET SESSION name = value` gives the same meaning on any connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name, lower case.
    pub name: &'static str,
    /// The name under which both spellings of one variable are kept (`tx_isolation` is
    /// `transaction_isolation`); equal to `name` for all others.
    pub canonical: &'static str,
    /// It changes how the bytes of statements are read: `sql_mode`, `character_set_client`.
    pub changes_reading: bool,
}

/// Finds a variable by its name in any case; `None` if it cannot be carried.
pub fn find(_name: &[u8]) -> Option<&'static Variable> {
    None
}
