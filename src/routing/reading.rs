//! Transactions that only read, on a replica from beginning to end.

use super::pin::pin_for;
use crate::config::Consistency;
use crate::sql::{Cause, Facts, Hint, Kind, StatementClass};
use crate::topology::ServerId;

/// A transaction that only reads and is open on a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The replica.
    pub server: ServerId,
    /// How far it has come.
    pub stage: Stage,
    /// It was begun by somebody who does not mind what it misses.
    pub eventual: bool,
}

/// How far a transaction on a replica has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It has done nothing that would be missed if it began anew somewhere else.
    Begun,
    /// It has read, or holds something else that only this server has.
    Settled,
}

/// Whether a statement begins a transaction that only reads. `session`: all of the session's do, unless they say otherwise.
pub fn begins_reading(class: &StatementClass, session: bool) -> bool {
    let Kind::Begin { read_only } = class.kind else {
        return false;
    };
    let otherwise = class.facts.contains(Facts::CHARACTERISTICS);
    (read_only || (session && !otherwise))
        && class.cause == Cause::Transaction
        && !class.facts.intersects(Facts::MULTI | Facts::MAY_WRITE)
}

impl Reading {
    /// The transaction that a statement leaves open that ran within one, or opened one on the replica `opened`.
    pub fn after(
        before: Option<Self>,
        class: &StatementClass,
        opened: Option<ServerId>,
    ) -> Option<Self> {
        let next = stage_after(class);
        match before {
            Some(reading) if matches!(class.kind, Kind::Commit | Kind::Rollback) => {
                // Another one follows at once on the same server.
                Some(Self {
                    stage: next,
                    ..reading
                })
            }
            Some(reading) if !matches!(class.kind, Kind::Begin { .. }) => {
                let settles = next == Stage::Settled;
                let stage = if settles { next } else { reading.stage };
                Some(Self { stage, ..reading })
            }
            _ => opened.map(|server| Self {
                server,
                stage: next,
                eventual: class.hint == Hint::Consistency(Consistency::Eventual),
            }),
        }
    }
}

/// The stage of a transaction once this has run.
pub(super) fn stage_after(class: &StatementClass) -> Stage {
    match class.kind {
        // A snapshot is of the moment at which it is taken.
        Kind::Begin { .. } if class.facts.contains(Facts::CHARACTERISTICS) => Stage::Settled,
        Kind::Begin { .. }
        | Kind::Commit
        | Kind::Rollback
        | Kind::Set
        | Kind::Use
        | Kind::Empty => Stage::Begun,
        _ => Stage::Settled,
    }
}

/// Whether a statement may run within a transaction on a replica: it neither changes nor locks anything, leaves nothing
/// behind on the connection, and asks for nothing but the data and the session itself.
///
/// Of a SET the class does not tell enough: what its assignments bring has to be in the facts.
pub(super) fn runs_in_reading(class: &StatementClass) -> bool {
    let facts = class.facts;
    if facts.intersects(Facts::MAY_WRITE | Facts::LOCKING_READ) || pin_for(class).is_some() {
        return false;
    }
    match class.kind {
        // Not SAVEPOINT: MariaDB logs it, and refuses the COMMIT behind it where nothing may be written.
        Kind::Commit | Kind::Rollback | Kind::Use | Kind::Set | Kind::Diagnostics | Kind::Empty => {
            true
        }
        Kind::Read | Kind::Show | Kind::Explain => match class.cause {
            Cause::None => true,
            Cause::Connection | Cause::LastInsertId | Cause::PreviousStatement => {
                !facts.contains(Facts::SERVER_STATE)
            }
            _ => false,
        },
        Kind::Do => class.cause == Cause::Do,
        _ => false,
    }
}

/// Whether a statement ends the transaction before it does anything else.
pub(super) fn ends_reading(class: &StatementClass) -> bool {
    matches!(class.kind, Kind::Begin { .. } | Kind::LockTables)
        && !class.facts.contains(Facts::MULTI)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Dialect, classify};

    fn class(sql: &str) -> StatementClass {
        classify(sql.as_bytes(), Dialect::default())
    }

    #[test]
    fn beginnings_are_told() {
        use Stage::{Begun, Settled};
        for (sql, alone, in_session, stage) in [
            ("START TRANSACTION READ ONLY", true, true, Begun),
            ("start transaction /* x */ read only;", true, true, Begun),
            (
                "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
                true,
                true,
                Settled,
            ),
            (
                "START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT",
                true,
                true,
                Settled,
            ),
            ("START TRANSACTION", false, true, Begun),
            ("BEGIN", false, true, Begun),
            ("BEGIN WORK", false, true, Begun),
            ("START TRANSACTION READ WRITE", false, false, Settled),
            (
                "START TRANSACTION WITH CONSISTENT SNAPSHOT",
                false,
                false,
                Settled,
            ),
            (
                "START TRANSACTION READ ONLY; SELECT 1",
                false,
                false,
                Settled,
            ),
            ("BEGIN NOT ATOMIC SELECT 1; END", false, false, Settled),
            ("SELECT 1", false, false, Settled),
        ] {
            let class = class(sql);
            assert_eq!(begins_reading(&class, false), alone, "{sql}");
            assert_eq!(begins_reading(&class, true), in_session, "{sql}");
            if in_session {
                assert_eq!(stage_after(&class), stage, "{sql}");
            }
        }
    }

    #[test]
    fn what_needs_the_primary_does_not_run_on_a_replica() {
        for sql in [
            "SELECT 1",
            "SELECT * FROM t",
            "SELECT 1; SELECT a FROM t",
            "SHOW TABLES",
            "EXPLAIN SELECT * FROM t",
            "SELECT LAST_INSERT_ID()",
            "SELECT CONNECTION_ID(), CURRENT_USER()",
            "SELECT ROW_COUNT()",
            "SELECT SQL_CALC_FOUND_ROWS * FROM t",
            "SELECT FOUND_ROWS()",
            "SHOW WARNINGS",
            "GET DIAGNOSTICS CONDITION 1 @a = MESSAGE_TEXT",
            "COMMIT",
            "ROLLBACK AND CHAIN",
            "USE x",
            "SET NAMES utf8mb4",
            "DO SLEEP(0)",
        ] {
            let expected = !sql.contains('@');
            assert_eq!(runs_in_reading(&class(sql)), expected, "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES (1)",
            "CREATE TEMPORARY TABLE t (a INT)",
            "SELECT GET_LOCK('a', 1)",
            "SELECT RELEASE_ALL_LOCKS()",
            "DO GET_LOCK('a', 1)",
            "SELECT a FROM t FOR UPDATE",
            "SELECT a FROM t LOCK IN SHARE MODE",
            "SELECT NEXTVAL(s)",
            "SELECT my_function()",
            "SELECT @a",
            "SELECT 1 INTO @a",
            "SELECT 1 INTO OUTFILE 'x'",
            "SELECT @@read_only",
            "SELECT @@hostname, CONNECTION_ID()",
            "SELECT @@gtid_current_pos",
            "SELECT * FROM performance_schema.threads",
            "SHOW STATUS",
            "SHOW PROCESSLIST",
            "CALL p()",
            "HANDLER t OPEN",
            "PREPARE s FROM 'SELECT 1'",
            "KILL 5",
            "FLUSH TABLES",
            "XA START 'x'",
            "SAVEPOINT a",
            "COMMIT; SELECT 1",
            "SELECT 1; INSERT INTO t VALUES (1)",
            "UNLOCK TABLES",
            "GIBBERISH",
            "SELECT 'a",
        ] {
            assert!(!runs_in_reading(&class(sql)), "{sql}");
        }
    }
}
