//! From tokens to a statement's class.

use std::fmt;

use super::dialect::Dialect;
use super::facts::Facts;
use super::hint::Hint;

/// What kind of statement it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SELECT, TABLE, VALUES, WITH ... SELECT; also those that must not go to a replica.
    Read,
    /// INSERT, UPDATE, DELETE, REPLACE, and what may do as they do.
    Write,
    /// Definitions and accounts: CREATE, ALTER, DROP, TRUNCATE, RENAME, GRANT, ...
    Ddl,
    /// BEGIN, START TRANSACTION.
    Begin {
        /// With READ ONLY.
        read_only: bool,
    },
    /// COMMIT.
    Commit,
    /// ROLLBACK of the whole transaction.
    Rollback,
    /// SAVEPOINT, ROLLBACK TO, RELEASE SAVEPOINT.
    Savepoint,
    /// SET of anything: see [`super::set::parse`].
    Set,
    /// USE: see [`super::use_schema`].
    Use,
    /// SHOW, HELP.
    Show,
    /// EXPLAIN, DESCRIBE, ANALYZE of a query.
    Explain,
    /// CALL.
    Call,
    /// DO.
    Do,
    /// A compound statement outside a routine: BEGIN NOT ATOMIC, IF, LOOP, ...
    Compound,
    /// Administration: FLUSH, OPTIMIZE, replication control, ...
    Admin,
    /// KILL: see [`super::kill::parse`].
    Kill,
    /// XA transactions.
    Xa,
    /// LOCK TABLES, LOCK INSTANCE.
    LockTables,
    /// UNLOCK TABLES, UNLOCK INSTANCE.
    UnlockTables,
    /// HANDLER.
    Handler,
    /// PREPARE, EXECUTE, DEALLOCATE PREPARE as SQL text.
    Prepare,
    /// LOAD DATA, LOAD XML.
    LoadData,
    /// GET DIAGNOSTICS, SIGNAL, RESIGNAL.
    Diagnostics,
    /// Several statements in one packet that are not all reads.
    Multi,
    /// Nothing but blanks and comments.
    Empty,
    /// Not understood.
    Unknown,
}

/// Why a statement is not one that a replica may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cause {
    /// There is no such reason: a replica may answer it.
    #[default]
    None,
    /// It writes.
    Write,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "read",
            Self::Write => "write",
        })
    }
}

/// What a statement means, as far as the proxy needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatementClass {
    /// What kind of statement it is.
    pub kind: Kind,
    /// What it touches besides rows.
    pub facts: Facts,
    /// What its leading comments ask for.
    pub hint: Hint,
    /// Hash of [`super::digest_text`]: equal for statements that differ only in literals,
    /// blanks, comments and the case of reserved words.
    pub digest: u64,
    /// Why a replica may not answer it; [`Cause::None`] if one may.
    pub cause: Cause,
}

impl StatementClass {
    /// Whether a replica may answer it, as far as the text tells.
    pub fn is_replica_read(&self) -> bool {
        self.cause == Cause::None
    }
}

/// Classifies a statement: one pass, no allocation, for any bytes.
///
/// A statement whose `cause` is [`Cause::None`] writes nothing, locks nothing and has the same
/// answer on every connection with the same session state, given the same data. Views and
/// generated columns that call functions are beyond what the text can tell.
pub fn classify(_sql: &[u8], _dialect: Dialect) -> StatementClass {
    StatementClass {
        kind: Kind::Unknown,
        facts: Facts::MAY_WRITE,
        hint: Hint::None,
        digest: 0,
        cause: Cause::Write,
    }
}
