//! What ties a session to one connection.

use std::fmt;

use crate::sql::set::Assignment;
use crate::sql::{Facts, Kind, StatementClass};

/// Why a session stays on its connection to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PinReason {
    /// User variables live on the connection, but for those whose values are known.
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
    /// LASTVAL() and PREVIOUS VALUE are known on this connection only.
    Sequence,
    /// LAST_INSERT_ID() was given a value that no answer tells.
    InsertId,
    /// A cursor of a prepared statement is open. Never from [`pin_for`].
    Cursor,
    /// A parameter's value was sent ahead. Never from [`pin_for`].
    LongData,
    /// A statement too long to be understood whole may have left state behind. Never from
    /// [`pin_for`].
    LargeStatement,
    /// A replica is registered, or reads the primary's log. Never from [`pin_for`].
    Replication,
    /// A statement that was not understood may have left state behind.
    NotUnderstood,
    /// The account's password has expired and can be changed on this connection. Never from [`pin_for`].
    ExpiredPassword,
}

impl PinReason {
    /// Every one, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::UserVariable,
        Self::TemporaryTable,
        Self::LockTables,
        Self::NamedLock,
        Self::Handler,
        Self::TextPrepare,
        Self::Set,
        Self::NextTransaction,
        Self::MultiStatement,
        Self::Procedure,
        Self::UnknownFunction,
        Self::Xa,
        Self::Sequence,
        Self::InsertId,
        Self::Cursor,
        Self::LongData,
        Self::LargeStatement,
        Self::Replication,
        Self::NotUnderstood,
        Self::ExpiredPassword,
    ];
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
            Self::Sequence => "sequence value",
            Self::InsertId => "LAST_INSERT_ID(expression)",
            Self::Cursor => "open cursor",
            Self::LongData => "parameter value sent ahead",
            Self::LargeStatement => "statement too long to be understood whole",
            Self::Replication => "replication",
            Self::NotUnderstood => "statement not understood",
            Self::ExpiredPassword => "expired password",
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
        // What SET does to them only its assignments tell.
        let by_class = fact != Facts::USER_VARIABLE || class.kind != Kind::Set;
        if facts.contains(fact) && by_class {
            return Some(pin);
        }
    }
    match class.kind {
        Kind::Call => Some(PinReason::Procedure),
        // The answers to others tell it.
        kind if kind != Kind::Write && facts.contains(Facts::SETS_INSERT_ID) => {
            Some(PinReason::InsertId)
        }
        Kind::Xa => Some(PinReason::Xa),
        Kind::Multi if facts.contains(Facts::SESSION_STATE) => Some(PinReason::MultiStatement),
        Kind::Compound => Some(PinReason::MultiStatement),
        Kind::Ddl if facts.contains(Facts::SESSION_STATE) => Some(PinReason::MultiStatement),
        Kind::Unknown => Some(PinReason::NotUnderstood),
        _ if facts.contains(Facts::UNKNOWN_FUNCTION) => Some(PinReason::UnknownFunction),
        _ => None,
    }
}

/// Whether a statement may change user variables without a word about them: a trigger or a function does.
pub fn may_change_variables(class: &StatementClass) -> bool {
    class.facts.contains(Facts::MAY_WRITE)
        && !matches!(class.kind, Kind::Ddl | Kind::Admin | Kind::Kill)
}

/// The pin that a SET brings, given what [`crate::sql::set::parse`] made of it.
pub fn pin_for_set(assignments: Option<&[Assignment]>) -> Option<PinReason> {
    match assignments {
        None => Some(PinReason::Set),
        // What it makes of the connection's character set depends on the schema at that moment.
        Some(list)
            if list
                .iter()
                .any(|item| matches!(item, Assignment::CharacterSet(_))) =>
        {
            Some(PinReason::Set)
        }
        Some(list) if list.contains(&Assignment::NextTransaction) => {
            Some(PinReason::NextTransaction)
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Dialect, classify, set};

    fn pin(sql: &str) -> Option<PinReason> {
        let class = classify(sql.as_bytes(), Dialect::default());
        match class.kind {
            Kind::Set => pin_for_set(set::parse(sql.as_bytes(), Dialect::default()).as_deref()),
            _ => pin_for(&class),
        }
    }

    #[test]
    fn every_reason_has_its_number() {
        for (number, reason) in PinReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{reason}");
        }
    }

    #[test]
    fn pins_what_stays_on_the_connection() {
        for (sql, expected) in [
            ("SELECT 1", None),
            ("INSERT INTO t (a) VALUES (1)", None),
            (
                "INSERT INTO `t` (`a`) VALUES (1), (2) ON DUPLICATE KEY UPDATE a = VALUES(a)",
                None,
            ),
            ("INSERT INTO db.t(a) SELECT b FROM u", None),
            (
                "INSERT INTO t (a) VALUES (1) AS new(x) ON DUPLICATE KEY UPDATE a = new.x",
                None,
            ),
            ("REPLACE t(a) VALUES (NOW())", None),
            ("LOAD DATA LOCAL INFILE 'x' INTO TABLE t (a, b)", None),
            (
                "CREATE TABLE t (id INT(11), KEY k (id), CONSTRAINT c FOREIGN KEY (a) REFERENCES u (b))",
                None,
            ),
            ("CREATE USER 'a'@'%' IDENTIFIED BY 'x'", None),
            ("GRANT ALL ON *.* TO app@localhost", None),
            ("BEGIN", None),
            ("COMMIT", None),
            ("USE x", None),
            ("SET NAMES utf8mb4", None),
            ("SET autocommit = 0", None),
            ("SELECT LAST_INSERT_ID()", None),
            ("SELECT SQL_CALC_FOUND_ROWS * FROM t", None),
            (
                "UPDATE t SET a = my_function(b)",
                Some(PinReason::UnknownFunction),
            ),
            ("SELECT db.my_function(1)", Some(PinReason::UnknownFunction)),
            ("SET @a = 1, @b = 'text', @c = NULL", None),
            ("SET @a = 1 + 1", Some(PinReason::Set)),
            ("SELECT @a", Some(PinReason::UserVariable)),
            ("SELECT @a := 1", Some(PinReason::UserVariable)),
            ("SELECT 1 INTO @a", Some(PinReason::UserVariable)),
            ("INSERT INTO t VALUES (@a)", Some(PinReason::UserVariable)),
            ("SET CHARACTER SET utf8", Some(PinReason::Set)),
            (
                "SET TRANSACTION READ ONLY",
                Some(PinReason::NextTransaction),
            ),
            ("SET sql_log_bin = 0", Some(PinReason::Set)),
            (
                "CREATE TEMPORARY TABLE t (a INT)",
                Some(PinReason::TemporaryTable),
            ),
            (
                "CREATE OR REPLACE TEMPORARY TABLE t (a INT)",
                Some(PinReason::TemporaryTable),
            ),
            (
                "/*!40000 CREATE */ TEMPORARY TABLE t AS SELECT 1",
                Some(PinReason::TemporaryTable),
            ),
            ("LOCK TABLES t READ", Some(PinReason::LockTables)),
            ("FLUSH TABLES WITH READ LOCK", Some(PinReason::LockTables)),
            ("FLUSH TABLES t FOR EXPORT", Some(PinReason::LockTables)),
            ("SELECT GET_LOCK('a', 1)", Some(PinReason::NamedLock)),
            ("DO get_lock('a', 1)", Some(PinReason::NamedLock)),
            ("HANDLER t OPEN", Some(PinReason::Handler)),
            ("PREPARE s FROM 'SELECT 1'", Some(PinReason::TextPrepare)),
            ("EXECUTE s", Some(PinReason::TextPrepare)),
            ("DROP PREPARE s", Some(PinReason::TextPrepare)),
            ("CALL p()", Some(PinReason::Procedure)),
            ("XA START 'x'", Some(PinReason::Xa)),
            ("SET NAMES utf8; SELECT 1", Some(PinReason::MultiStatement)),
            ("SELECT 1; SET NAMES utf8", Some(PinReason::MultiStatement)),
            (
                "INSERT INTO t VALUES (1); USE x",
                Some(PinReason::MultiStatement),
            ),
            (
                "BEGIN NOT ATOMIC SET x = 1; END",
                Some(PinReason::MultiStatement),
            ),
            ("GIBBERISH", Some(PinReason::NotUnderstood)),
            (
                "CREATE PROCEDURE p() SELECT 1; SET NAMES utf8",
                Some(PinReason::MultiStatement),
            ),
            ("CREATE PROCEDURE p() SET @a = 1", None),
        ] {
            assert_eq!(pin(sql), expected, "{sql}");
        }
    }
}
