//! Understanding SET well enough to repeat it on another connection.

use super::dialect::Dialect;

/// One assignment of a SET statement.
///
/// Order matters: apply them first to last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// A session variable that keeps its meaning on another connection: `SET SESSION name = value`.
    Variable {
        /// Name in lower case, as written (`tx_isolation` and `transaction_isolation` are one
        /// variable: see [`super::variables::Variable::same_as`]).
        name: String,
        /// The value as SQL text: one literal, or one bare word such as `ON` or `DEFAULT`.
        value: Vec<u8>,
    },
    /// `SET NAMES charset [COLLATE collation]`; values as SQL text, `DEFAULT` possible.
    Names {
        /// Character set, quotes as written.
        charset: Vec<u8>,
        /// Collation, quotes as written.
        collation: Option<Vec<u8>>,
    },
    /// `SET CHARACTER SET charset`: client and results as given, connection as the schema's.
    CharacterSet(Vec<u8>),
    /// `SET autocommit = 0|1`.
    Autocommit(bool),
    /// Characteristics of the next transaction only (`SET TRANSACTION ...` without scope, or
    /// `SET @@transaction_isolation = ...`): holds on this connection until that transaction ends.
    NextTransaction,
    /// Server-wide (`GLOBAL`, `PERSIST`, `PERSIST_ONLY`), or about accounts (`PASSWORD`, `DEFAULT ROLE`): the primary
    /// runs it, the session's state does not change.
    ServerWide,
}

/// Reads a SET statement.
///
/// `None`: not a SET, or it does something to the session that cannot be repeated with the same
/// meaning elsewhere (user variables, expressions, subqueries, roles, variables that are not in
/// [`super::variables`], ...): the session must stay on the connection that runs it.
pub fn parse(_sql: &[u8], _dialect: Dialect) -> Option<Vec<Assignment>> {
    None
}
