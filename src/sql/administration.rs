//! Statements that change what a server is to its cluster, or take from replicas what they need.

use std::fmt;

use super::class::Kind;
use super::dialect::Dialect;
use super::lexer::{Lexer, Token, TokenKind};
use super::prepared_text::{Prepared, begins_behind, is_word, prepared};

/// Such a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breach {
    /// The words that it begins with, or the variable that it sets.
    pub what: &'static str,
    /// What it would do.
    pub harm: Harm,
}

/// What a statement does to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Harm {
    /// It changes what a server replicates, and whether it does.
    Replication,
    /// It takes away logs or positions.
    Logs,
    /// It changes which server takes writes, or how they are known.
    Role,
    /// It ends the server, or replaces its data.
    Server,
}

/// In the words that users see, behind "it".
impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replication => "changes what the primary replicates",
            Self::Logs => "takes from the primary what its replicas need",
            Self::Role => {
                "changes whether the primary takes writes, or how replicas know what they have"
            }
            Self::Server => "ends the primary, or replaces its data",
        })
    }
}

/// Finds such a statement in a packet whose class has this kind, also behind `;`, in the body of a compound statement, behind
/// SET STATEMENT ... FOR, and in the text of a PREPARE or EXECUTE IMMEDIATE.
///
/// What a stored program does, or text that is in a variable, is not seen.
pub fn find(sql: &[u8], kind: Kind, dialect: Dialect) -> Option<Breach> {
    let worth = match kind {
        Kind::Admin | Kind::Multi | Kind::Compound | Kind::Prepare => true,
        Kind::Set => [&b"global"[..], b"persist"].iter().any(|scope| {
            sql.windows(scope.len())
                .any(|window| window.eq_ignore_ascii_case(scope))
        }),
        // SET STATEMENT ... FOR
        Kind::Write => is_word(Lexer::new(sql, dialect).next(), sql, "SET"),
        _ => false,
    };
    worth
        .then(|| in_text(sql, kind == Kind::Compound, dialect, Depth::Outer))
        .flatten()
}

/// Whether the text is in a string of another one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Outer,
    Inner,
}

fn in_text(sql: &[u8], anywhere: bool, dialect: Dialect, depth: Depth) -> Option<Breach> {
    let tokens = Lexer::new(sql, dialect).rest();
    let mut begins = true;
    for (at, token) in tokens.iter().enumerate() {
        let rest = tokens.get(at..).unwrap_or_default();
        if begins || anywhere {
            let found = statement(rest, sql).or_else(|| match depth {
                Depth::Outer => in_prepared(rest, sql, dialect),
                Depth::Inner => None,
            });
            if found.is_some() {
                return found;
            }
        }
        begins = begins_behind(*token, sql);
    }
    None
}

/// The statement that these tokens begin with, if it is one of those.
fn statement(tokens: &[Token], sql: &[u8]) -> Option<Breach> {
    if is_word(*tokens.first()?, sql, "SET") {
        return assignments(tokens, sql);
    }
    STATEMENTS
        .iter()
        .find(|(what, _)| {
            let words = what.split(' ');
            let mut rest = tokens.iter();
            words
                .into_iter()
                .all(|word| rest.next().is_some_and(|token| is_word(*token, sql, word)))
        })
        .map(|&(what, harm)| Breach { what, harm })
}

/// A server-wide variable in a SET. Its scope holds on for those behind it.
fn assignments(tokens: &[Token], sql: &[u8]) -> Option<Breach> {
    let mut server_wide = false;
    // What stands in a value only reads.
    let mut is_target = true;
    let mut depth = 0_usize;
    for token in tokens.iter().skip(1) {
        let is = |words: &[&str]| {
            let name = token.plain_name(sql);
            words
                .iter()
                .any(|word| name.eq_ignore_ascii_case(word.as_bytes()))
        };
        match token.kind() {
            TokenKind::Punct(b';') => return None,
            TokenKind::Punct(b'(') => depth += 1,
            TokenKind::Punct(b')') => depth = depth.saturating_sub(1),
            TokenKind::Punct(b',') if depth == 0 => is_target = true,
            TokenKind::Punct(b'=') => is_target = false,
            _ if !is_target => {}
            TokenKind::SystemVariable | TokenKind::Word
                if is(&["GLOBAL", "PERSIST", "PERSIST_ONLY"]) =>
            {
                server_wide = true;
            }
            TokenKind::SystemVariable | TokenKind::Word if is(&["SESSION", "LOCAL"]) => {
                server_wide = false;
            }
            TokenKind::Word | TokenKind::Quoted if server_wide => {
                let name = token.plain_name(sql);
                let known = VARIABLES.iter().find(|(variable, _)| {
                    name.eq_ignore_ascii_case(variable.trim_start_matches("SET GLOBAL ").as_bytes())
                });
                if let Some(&(what, harm)) = known {
                    return Some(Breach { what, harm });
                }
            }
            _ => {}
        }
    }
    None
}

/// Such a statement in the text that is prepared.
fn in_prepared(tokens: &[Token], sql: &[u8], dialect: Dialect) -> Option<Breach> {
    match prepared(tokens, sql, dialect) {
        Prepared::Text(text) => in_text(&text, false, dialect, Depth::Inner),
        Prepared::Nothing | Prepared::Computed => None,
    }
}

const STATEMENTS: &[(&str, Harm)] = &[
    ("STOP REPLICA", Harm::Replication),
    ("STOP SLAVE", Harm::Replication),
    ("STOP ALL SLAVES", Harm::Replication),
    ("STOP ALL REPLICAS", Harm::Replication),
    ("STOP GROUP_REPLICATION", Harm::Replication),
    ("START REPLICA", Harm::Replication),
    ("START SLAVE", Harm::Replication),
    ("START ALL SLAVES", Harm::Replication),
    ("START ALL REPLICAS", Harm::Replication),
    ("START GROUP_REPLICATION", Harm::Replication),
    ("RESET REPLICA", Harm::Replication),
    ("RESET SLAVE", Harm::Replication),
    ("CHANGE MASTER", Harm::Replication),
    ("CHANGE REPLICATION", Harm::Replication),
    ("RESET MASTER", Harm::Logs),
    ("RESET BINARY LOGS", Harm::Logs),
    ("PURGE BINARY LOGS", Harm::Logs),
    ("PURGE MASTER LOGS", Harm::Logs),
    ("SHUTDOWN", Harm::Server),
    ("RESTART", Harm::Server),
    ("CLONE INSTANCE", Harm::Server),
];

const VARIABLES: &[(&str, Harm)] = &[
    ("SET GLOBAL read_only", Harm::Role),
    ("SET GLOBAL super_read_only", Harm::Role),
    ("SET GLOBAL offline_mode", Harm::Role),
    ("SET GLOBAL server_id", Harm::Role),
    ("SET GLOBAL gtid_mode", Harm::Role),
    ("SET GLOBAL enforce_gtid_consistency", Harm::Role),
    ("SET GLOBAL gtid_domain_id", Harm::Role),
    ("SET GLOBAL gtid_slave_pos", Harm::Logs),
    ("SET GLOBAL gtid_binlog_state", Harm::Logs),
    ("SET GLOBAL gtid_purged", Harm::Logs),
    ("SET GLOBAL rpl_semi_sync_master_enabled", Harm::Role),
    ("SET GLOBAL rpl_semi_sync_source_enabled", Harm::Role),
    ("SET GLOBAL rpl_semi_sync_slave_enabled", Harm::Role),
    ("SET GLOBAL rpl_semi_sync_replica_enabled", Harm::Role),
    ("SET GLOBAL wsrep_cluster_address", Harm::Role),
    ("SET GLOBAL group_replication_bootstrap_group", Harm::Role),
];

#[cfg(test)]
mod tests {
    use super::super::classify;
    use super::*;

    fn found(sql: &str) -> Option<&'static str> {
        let dialect = Dialect {
            maria: true,
            ..Dialect::default()
        };
        let kind = classify(sql.as_bytes(), dialect).kind;
        find(sql.as_bytes(), kind, dialect).map(|breach| breach.what)
    }

    #[test]
    fn what_breaks_a_cluster_is_found() {
        for (sql, what) in [
            ("STOP SLAVE", "STOP SLAVE"),
            ("stop/**/replica io_thread;", "STOP REPLICA"),
            ("/* x */ START ALL SLAVES", "START ALL SLAVES"),
            ("STOP SLAVE 'one'", "STOP SLAVE"),
            ("/*!50000 STOP */ SLAVE", "STOP SLAVE"),
            ("/*! STOP SLAVE */", "STOP SLAVE"),
            ("/*M! RESET MASTER */", "RESET MASTER"),
            ("RESET SLAVE ALL", "RESET SLAVE"),
            ("RESET BINARY LOGS AND GTIDS", "RESET BINARY LOGS"),
            ("CHANGE MASTER 'a' TO MASTER_HOST = 'x'", "CHANGE MASTER"),
            (
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'x'",
                "CHANGE REPLICATION",
            ),
            ("PURGE BINARY LOGS TO 'x'", "PURGE BINARY LOGS"),
            ("SHUTDOWN", "SHUTDOWN"),
            ("RESTART", "RESTART"),
            (
                "CLONE INSTANCE FROM a@b:3306 IDENTIFIED BY 'x'",
                "CLONE INSTANCE",
            ),
            ("SELECT 1; STOP SLAVE", "STOP SLAVE"),
            ("INSERT INTO t VALUES (';'); SHUTDOWN; SELECT 1", "SHUTDOWN"),
            ("SET GLOBAL read_only = 1", "SET GLOBAL read_only"),
            ("set @@global.read_only=1", "SET GLOBAL read_only"),
            ("SET @@GLOBAL . `read_only` := 1", "SET GLOBAL read_only"),
            (
                "SET NAMES utf8, PERSIST super_read_only = ON",
                "SET GLOBAL super_read_only",
            ),
            ("SET @@persist_only.server_id = 5", "SET GLOBAL server_id"),
            (
                "SET GLOBAL max_connections = 5, read_only = 1",
                "SET GLOBAL read_only",
            ),
            (
                "SET @z = IF(1, 2, 3), @@global.slow_launch_time = 2, server_id = (1)",
                "SET GLOBAL server_id",
            ),
            ("SELECT 1; SET GLOBAL read_only = 1", "SET GLOBAL read_only"),
            ("PREPARE s FROM 'STOP SLAVE'", "STOP SLAVE"),
            ("PREPARE s FROM 'STOP\\nSLAVE'", "STOP SLAVE"),
            (
                "EXECUTE IMMEDIATE 'SET GLOBAL read_only=1'",
                "SET GLOBAL read_only",
            ),
            (
                "BEGIN NOT ATOMIC IF 1 THEN STOP SLAVE; END IF; END",
                "STOP SLAVE",
            ),
            (
                "SET STATEMENT max_statement_time = 1 FOR STOP SLAVE",
                "STOP SLAVE",
            ),
        ] {
            assert_eq!(found(sql), Some(what), "{sql}");
        }
    }

    #[test]
    fn everything_else_is_not() {
        for sql in [
            "SELECT 1",
            "SELECT 'STOP SLAVE'",
            "INSERT INTO stop (slave) VALUES ('; SHUTDOWN')",
            "FLUSH TABLES WITH READ LOCK",
            "FLUSH BINARY LOGS",
            "SHOW SLAVE STATUS",
            "START TRANSACTION",
            "RESET QUERY CACHE",
            "CLONE LOCAL DATA DIRECTORY = '/x'",
            "INSTALL PLUGIN a SONAME 'x'",
            "SET SESSION read_only = 1",
            "SET GLOBAL max_connections = 5",
            "SET GLOBAL slow_query_log_file = read_only",
            "SET GLOBAL max_connections = 5, SESSION sql_mode = ''",
            "SET @read_only = 1, @global = 1",
            "SELECT 1; SELECT @@global.read_only",
            "SET @x = @@global.read_only",
            "SET @a = (SELECT @@global.server_id), @b = 1",
            "SET @a = (SELECT 1, @@global.server_id)",
            "SET @x := CONCAT(1, @@global.server_id)",
            "SET GLOBAL slow_launch_time = 2, @z := @@global.read_only",
            "SET TRANSACTION READ ONLY",
            "SET GLOBAL TRANSACTION READ ONLY",
            "PREPARE s FROM 'SELECT 1'",
            "PREPARE s FROM @stop",
            "CREATE PROCEDURE p() STOP SLAVE",
            "SET STATEMENT max_statement_time = 1 FOR SELECT 1",
            "",
        ] {
            assert_eq!(found(sql), None, "{sql}");
        }
    }
}
