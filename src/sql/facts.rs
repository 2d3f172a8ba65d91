//! What a statement touches besides rows.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of facts about a statement.
///
/// Facts are a superset: a doubtful one is set. Each says something that a replica, or another
/// connection than the one the session used before, could answer wrongly.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Facts(u64);

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident = $bit:literal,)*) => {
        impl Facts {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &'static [(&'static str, Self)] = &[$((stringify!($name), Self::$name),)*];
        }
    };
}

facts! {
    /// The packet holds more than one statement.
    MULTI = 0,
    /// A user variable is read or set (`@x`, `:=`).
    USER_VARIABLE = 1,
    /// LAST_INSERT_ID(), @@last_insert_id, @@identity, @@insert_id.
    LAST_INSERT_ID = 2,
    /// The answer is about the statement before: ROW_COUNT(), FOUND_ROWS(), SHOW WARNINGS,
    /// SHOW ERRORS, GET DIAGNOSTICS, @@warning_count, @@error_count.
    PREVIOUS_STATEMENT = 3,
    /// SQL_CALC_FOUND_ROWS: the next statement may ask for FOUND_ROWS() and must then run on the
    /// same connection.
    CALC_FOUND_ROWS = 4,
    /// Creates or drops a temporary table.
    TEMPORARY_TABLE = 5,
    /// FOR UPDATE, FOR SHARE, LOCK IN SHARE MODE, at any depth.
    LOCKING_READ = 6,
    /// SELECT or TABLE with INTO (file or variables).
    INTO = 7,
    /// Named locks: GET_LOCK, RELEASE_LOCK, IS_FREE_LOCK and kin, the locking service.
    NAMED_LOCK = 8,
    /// LOCK TABLES, LOCK INSTANCE, FLUSH TABLES WITH READ LOCK, BACKUP STAGE, BACKUP LOCK.
    LOCK_TABLES = 9,
    /// UNLOCK TABLES, UNLOCK INSTANCE, BACKUP UNLOCK.
    UNLOCK_TABLES = 10,
    /// HANDLER OPEN, READ, CLOSE.
    HANDLER = 11,
    /// PREPARE, EXECUTE, DEALLOCATE as SQL text.
    TEXT_PREPARE = 12,
    /// Calls a function that is not a known built-in one, or a qualified or quoted name.
    UNKNOWN_FUNCTION = 13,
    /// Reads a system variable (`@@x`).
    SYSTEM_VARIABLE = 14,
    /// Names information_schema, performance_schema, mysql or sys.
    SYSTEM_SCHEMA = 15,
    /// The answer depends on the connection or the login: CONNECTION_ID(), CURRENT_USER(), USER().
    CONNECTION = 16,
    /// Sequences: NEXTVAL, LASTVAL, SETVAL, NEXT VALUE FOR, PREVIOUS VALUE FOR.
    SEQUENCE = 17,
    /// Can change data, or cannot be shown not to.
    MAY_WRITE = 18,
    /// Commits an open transaction before or after it runs.
    IMPLICIT_COMMIT = 19,
    /// A string, quoted name or comment has no end.
    UNTERMINATED = 20,
    /// Changes what the session believes (SET, USE), or may do so (CALL and the like); within a
    /// multi-statement nobody follows it.
    SESSION_STATE = 21,
    /// COMMIT or ROLLBACK ... AND CHAIN: the next transaction is open at once.
    CHAIN = 22,
    /// COMMIT or ROLLBACK ... RELEASE: the server closes the connection.
    RELEASE = 23,
    /// The answer is about one server and is asked of the primary: server status, logs,
    /// processes, VERSION(), server-wide variables.
    SERVER_STATE = 24,
    /// Bytes that server versions or character sets read differently; never a read.
    AMBIGUOUS = 25,
    /// SHOW PROCESSLIST: to be a list of the proxy's sessions.
    PROCESS_LIST = 26,
    /// SHOW STATUS: what it says of the connection is to be the client's.
    STATUS = 27,
    /// May change who can log in, and how.
    ACCOUNTS = 28,
    /// START TRANSACTION with more than READ ONLY behind it: READ WRITE, WITH CONSISTENT SNAPSHOT.
    CHARACTERISTICS = 29,
    /// May change which stored routines and views there are, or what they do.
    DEFINITIONS = 30,
    /// Has a comment of the kind whose content some versions run (`/*! ... */`).
    CODE_IN_COMMENT = 31,
    /// FOUND_ROWS() behind it may be another number than that of its rows: UNION and kin, a limit with an offset, PROCEDURE.
    UNCOUNTED = 32,
    /// LAST_INSERT_ID(expression): the connection has another one from then on, which not every answer tells.
    SETS_INSERT_ID = 33,
}

impl Facts {
    /// No facts.
    pub const NONE: Self = Self(0);

    /// The servers may cut the text into other tokens than this room does.
    pub const DOUBTFUL: Self = Self::UNTERMINATED.union(Self::AMBIGUOUS);

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether nothing is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// These facts without `other`.
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Both sets together, for constants.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names of the set facts, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .iter()
            .filter(move |(_, fact)| self.contains(*fact))
            .map(|(name, _)| *name)
    }
}

impl BitOr for Facts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Facts {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("NONE");
        }
        for (index, name) in self.names().enumerate() {
            if index > 0 {
                f.write_str("|")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}
