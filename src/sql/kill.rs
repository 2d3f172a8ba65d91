//! KILL statements.

/// What a KILL statement ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole connection.
    Connection,
    /// The statement it runs.
    Query,
}

/// A KILL statement, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// What to end.
    pub scope: Scope,
    /// SOFT: spare what must not be interrupted (MariaDB).
    pub soft: bool,
    /// Which connection, by the id shown to clients.
    pub id: u64,
}

/// Reads `KILL [HARD|SOFT] [CONNECTION|QUERY] number`.
///
/// `None` for any other statement, also for `KILL` of an expression, of a user or of a query id.
pub fn parse(_sql: &[u8], _dialect: super::Dialect) -> Option<Kill> {
    None
}
