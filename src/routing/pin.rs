//! What ties a session to one connection.

use std::fmt;

use crate::sql::set::Assignment;
use crate::sql::{Facts, Kind, StatementClass};

/// Why a session stays on its connection to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PinReason {
    /// User variables live on the connection.
    UserVariable,
    /// Temporary tables live on the connection.
    TemporaryTable,
    /// LOCK TABLES, FLUSH TABLES WITH READ LOCK, ...
    LockTables,
    /// GET_LOCK() and kin.
    NamedLock,
    /// HANDLER ... OPEN.
    Handler,
    /// PREPARE as SQL text.
    TextPrepare,
    /// A SET that cannot be repeated elsewhere.
    Set,
    /// SET TRANSACTION for the next transaction; ends when that transaction has ended.
    NextTransaction,
    /// State was changed inside a multi-statement packet or a compound statement.
    MultiStatement,
    /// A stored procedure may have left state behind.
    Procedure,
    /// A function that may be a stored one may have left state behind.
    UnknownFunction,
    /// An XA transaction belongs to the connection.
    Xa,
    /// LAST_INSERT_ID() is known on this connection only. Never from [`pin_for`]: for the caller,
    /// when a response carries an insert id.
    LastInsertId,
    /// LASTVAL() and PREVIOUS VALUE are known on this connection only.
    Sequence,
    /// A cursor of a prepared statement is open.
    Cursor,
    /// A parameter's value was sent ahead.
    LongData,
    /// A statement too long to be understood whole may have left state behind.
    LargeStatement,
    /// A statement that was not understood may have left state behind.
    NotUnderstood,
}

impl fmt::Display for PinReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserVariable => "user variable",
            Self::TemporaryTable => "temporary table",
            Self::LockTables => "LOCK TABLES",
            Self::NamedLock => "named lock",
            Self::Handler => "HANDLER",
            Self::TextPrepare => "PREPARE in SQL text",
            Self::Set => "SET that cannot be repeated on another connection",
            Self::NextTransaction => "SET TRANSACTION for the next transaction",
            Self::MultiStatement => "session state changed inside a multi-statement",
            Self::Procedure => "stored procedure",
            Self::UnknownFunction => "function that may be a stored one",
            Self::Xa => "XA transaction",
            Self::LastInsertId => "last insert id",
            Self::Sequence => "sequence value",
            Self::Cursor => "open cursor",
            Self::LongData => "parameter value sent ahead",
            Self::LargeStatement => "statement too long to be understood whole",
            Self::NotUnderstood => "statement not understood",
        })
    }
}

/// The pin that a statement of this class brings once it is sent; `None` if it leaves the session free.
///
/// For [`Kind::Set`] the class does not know enough: ask [`pin_for_set`] with what
/// [`crate::sql::set::parse`] gave.
pub fn pin_for(class: &StatementClass) -> Option<PinReason> {
    let facts = class.facts;
    for (fact, pin) in [
        (Facts::USER_VARIABLE, PinReason::UserVariable),
        (Facts::TEMPORARY_TABLE, PinReason::TemporaryTable),
        (Facts::LOCK_TABLES, PinReason::LockTables),
        (Facts::NAMED_LOCK, PinReason::NamedLock),
        (Facts::HANDLER, PinReason::Handler),
        (Facts::TEXT_PREPARE, PinReason::TextPrepare),
        (Facts::SEQUENCE, PinReason::Sequence),
    ] {
        if facts.contains(fact) {
            return Some(pin);
        }
    }
    match class.kind {
        Kind::Call => Some(PinReason::Procedure),
        Kind::Xa => Some(PinReason::Xa),
        Kind::Multi if facts.contains(Facts::SESSION_STATE) => Some(PinReason::MultiStatement),
        Kind::Compound => Some(PinReason::MultiStatement),
        Kind::Unknown => Some(PinReason::NotUnderstood),
        _ if facts.contains(Facts::UNKNOWN_FUNCTION) => Some(PinReason::UnknownFunction),
        _ => None,
    }
}

/// The pin that a SET brings, given what [`crate::sql::set::parse`] made of it.
pub fn pin_for_set(assignments: Option<&[Assignment]>) -> Option<PinReason> {
    match assignments {
        None => Some(PinReason::Set),
        Some(list) if list.contains(&Assignment::NextTransaction) => {
            Some(PinReason::NextTransaction)
        }
        Some(_) => None,
    }
}
