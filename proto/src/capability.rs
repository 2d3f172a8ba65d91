//! What the two ends of a connection agreed to speak, and the status flags that packets carry.
//!
//! Sources: <https://dev.mysql.com/doc/dev/mysql-server/latest/group__group__cs__capabilities__flags.html>,
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/mysql__com_8h.html>, <https://mariadb.com/kb/en/connection/#capabilities>.

use bitflags::bitflags;

bitflags! {
    /// Capability flags: the low 32 bits are everybody's, the high 32 are MariaDB's extended ones. Unknown bits are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Capabilities: u64 {
        /// Improved password hashing. MariaDB calls the bit CLIENT_MYSQL: its *absence* announces extended capabilities.
        const LONG_PASSWORD = 1;
        /// `affected_rows` counts found rows, not changed ones.
        const FOUND_ROWS = 1 << 1;
        /// All column flags in definitions.
        const LONG_FLAG = 1 << 2;
        /// The handshake response names a schema.
        const CONNECT_WITH_DB = 1 << 3;
        /// `schema.table.column` is not allowed.
        const NO_SCHEMA = 1 << 4;
        /// zlib compressed packets.
        const COMPRESS = 1 << 5;
        /// ODBC client; no effect.
        const ODBC = 1 << 6;
        /// LOAD DATA LOCAL may ask the client for a file.
        const LOCAL_FILES = 1 << 7;
        /// Spaces before `(` of a function call are ignored.
        const IGNORE_SPACE = 1 << 8;
        /// The 4.1 protocol; nothing older is spoken here.
        const PROTOCOL_41 = 1 << 9;
        /// `interactive_timeout` instead of `wait_timeout`.
        const INTERACTIVE = 1 << 10;
        /// TLS.
        const SSL = 1 << 11;
        /// Client ignores SIGPIPE; no effect.
        const IGNORE_SIGPIPE = 1 << 12;
        /// Status flags in OK packets.
        const TRANSACTIONS = 1 << 13;
        /// Obsolete.
        const RESERVED = 1 << 14;
        /// 4.1 authentication: the auth response has a length.
        const SECURE_CONNECTION = 1 << 15;
        /// Several statements in one COM_QUERY.
        const MULTI_STATEMENTS = 1 << 16;
        /// Several results for one COM_QUERY.
        const MULTI_RESULTS = 1 << 17;
        /// Several results for one COM_STMT_EXECUTE.
        const PS_MULTI_RESULTS = 1 << 18;
        /// Plugin names in the handshake.
        const PLUGIN_AUTH = 1 << 19;
        /// Connection attributes in the handshake response.
        const CONNECT_ATTRS = 1 << 20;
        /// The auth response's length is a lenenc integer.
        const PLUGIN_AUTH_LENENC_DATA = 1 << 21;
        /// Logging in with an expired password is understood.
        const CAN_HANDLE_EXPIRED_PASSWORDS = 1 << 22;
        /// Session state changes in OK packets.
        const SESSION_TRACK = 1 << 23;
        /// OK packets with header 0xFE instead of EOF packets.
        const DEPRECATE_EOF = 1 << 24;
        /// Result sets may come without column definitions (MySQL).
        const OPTIONAL_RESULTSET_METADATA = 1 << 25;
        /// zstd compressed packets (MySQL).
        const ZSTD_COMPRESSION = 1 << 26;
        /// Query attributes in COM_QUERY and COM_STMT_EXECUTE (MySQL).
        const QUERY_ATTRIBUTES = 1 << 27;
        /// Several authentication factors (MySQL).
        const MULTI_FACTOR_AUTHENTICATION = 1 << 28;
        /// Reserved for growth of the set.
        const CAPABILITY_EXTENSION = 1 << 29;
        /// The certificate is verified; never on the wire.
        const SSL_VERIFY_SERVER_CERT = 1 << 30;
        /// Options survive a failed connect; never on the wire.
        const REMEMBER_OPTIONS = 1 << 31;

        /// MariaDB: progress reports in ERR packets with code 0xFFFF.
        const PROGRESS = 1 << 32;
        /// MariaDB: COM_MULTI (removed).
        const COM_MULTI = 1 << 33;
        /// MariaDB: COM_STMT_BULK_EXECUTE.
        const STMT_BULK_OPERATIONS = 1 << 34;
        /// MariaDB: extended type information in column definitions.
        const EXTENDED_METADATA = 1 << 35;
        /// MariaDB: column definitions of a prepared statement are sent once.
        const CACHE_METADATA = 1 << 36;
        /// MariaDB: one result per row of a bulk execution.
        const BULK_UNIT_RESULTS = 1 << 37;

        const _ = !0;
    }
}

impl Capabilities {
    /// With any of these the number of a result's columns has a flag behind it: whether their definitions follow. Both servers
    /// put it there, unlike MySQL's manual.
    pub const METADATA_FLAG: Self = Self::OPTIONAL_RESULTSET_METADATA.union(Self::CACHE_METADATA);

    /// From the standard 32 bits and MariaDB's extended 32.
    pub const fn from_parts(standard: u32, extended: u32) -> Self {
        Self::from_bits_retain(standard as u64 | (extended as u64) << 32)
    }

    /// The standard 32 bits.
    pub const fn standard(self) -> u32 {
        self.bits() as u32
    }

    /// MariaDB's extended 32 bits.
    pub const fn extended(self) -> u32 {
        (self.bits() >> 32) as u32
    }
}

bitflags! {
    /// Status flags of OK and EOF packets and of the greeting. Unknown bits are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct StatusFlags: u16 {
        /// A transaction is open.
        const IN_TRANS = 1;
        /// autocommit is on.
        const AUTOCOMMIT = 1 << 1;
        /// Another result follows.
        const MORE_RESULTS = 1 << 3;
        /// No good index was used.
        const NO_GOOD_INDEX_USED = 1 << 4;
        /// No index was used.
        const NO_INDEX_USED = 1 << 5;
        /// A cursor was opened: rows come by COM_STMT_FETCH.
        const CURSOR_EXISTS = 1 << 6;
        /// The cursor is exhausted.
        const LAST_ROW_SENT = 1 << 7;
        /// A database was dropped.
        const DB_DROPPED = 1 << 8;
        /// sql_mode NO_BACKSLASH_ESCAPES is on; clients quote by this flag.
        const NO_BACKSLASH_ESCAPES = 1 << 9;
        /// A prepared statement's columns changed on re-preparation.
        const METADATA_CHANGED = 1 << 10;
        /// The query was slow.
        const QUERY_WAS_SLOW = 1 << 11;
        /// This result set holds the OUT parameters of a procedure.
        const PS_OUT_PARAMS = 1 << 12;
        /// The open transaction is READ ONLY.
        const IN_TRANS_READONLY = 1 << 13;
        /// The OK packet carries a session state block.
        const SESSION_STATE_CHANGED = 1 << 14;
        /// MariaDB: sql_mode ANSI_QUOTES is on.
        const ANSI_QUOTES = 1 << 15;

        const _ = !0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use mysql_common::constants::{CapabilityFlags, StatusFlags as OracleStatus};

    use super::*;

    #[test]
    fn bits_agree_with_the_oracle() {
        for (name, flag) in CapabilityFlags::all().iter_names() {
            let ours = Capabilities::from_name(name.trim_start_matches("CLIENT_"));
            if let Some(ours) = ours {
                assert_eq!(ours.standard(), flag.bits(), "{name}");
            }
        }
        assert_eq!(
            Capabilities::DEPRECATE_EOF.standard(),
            CapabilityFlags::CLIENT_DEPRECATE_EOF.bits()
        );
        assert_eq!(
            Capabilities::SESSION_TRACK.standard(),
            CapabilityFlags::CLIENT_SESSION_TRACK.bits()
        );
        assert_eq!(
            StatusFlags::MORE_RESULTS.bits(),
            OracleStatus::SERVER_MORE_RESULTS_EXISTS.bits()
        );
        assert_eq!(
            StatusFlags::SESSION_STATE_CHANGED.bits(),
            OracleStatus::SERVER_SESSION_STATE_CHANGED.bits()
        );
        assert_eq!(StatusFlags::NO_BACKSLASH_ESCAPES.bits(), 512);
    }

    #[test]
    fn parts_join_and_split() {
        let both = Capabilities::from_parts(0xFFFF_FFFF, 1);
        assert!(both.contains(Capabilities::PROGRESS | Capabilities::REMEMBER_OPTIONS));
        assert_eq!((both.standard(), both.extended()), (0xFFFF_FFFF, 1));
    }
}
