//! What becomes of MaxScale's settings.

use crate::cli::import::target::Fate;
use crate::cli::import::target::Fate::{Nothing, Span};

/// What becomes of a setting, by the beginning of its name.
pub(super) fn fate(table: &[(&str, Fate)], name: &str) -> Fate {
    let mut rows = table.iter().chain(EVERYWHERE);
    let row = rows.find(|(start, _)| name.starts_with(start));
    row.map_or(Nothing("dbproxy has no such setting"), |(_, fate)| *fate)
}

pub(super) const SECONDS: &str = " (without a unit: s)";

/// Milliseconds of a duration; without a unit it is in seconds.
pub(super) fn duration(text: &str) -> Option<u64> {
    with_unit(text, 1000)
}

/// The same for the monitor, which counts in milliseconds.
pub(super) fn interval(text: &str) -> Option<u64> {
    with_unit(text, 1)
}

fn with_unit(text: &str, bare: u64) -> Option<u64> {
    let (number, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let scale = match unit.trim() {
        "" => bare,
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

const OWN_ACCOUNTS: &str = "dbproxy reads the servers' accounts with the monitor account, every two seconds, all servers being the same";
const NO_FAILOVER: &str =
    "dbproxy makes no failover yet: it follows the one that you or another tool make";
const SESSIONS: &str = "dbproxy carries what a session has set as a value, without a history, and ties the session to the primary where it cannot";
const LOGGING: &str =
    "dbproxy logs to standard error; `log.level` and `log.format` say what and how";
const NO_CONSOLE: &str = "dbproxy has no console, no REST and no metrics yet";
const TLS_DETAIL: &str = "dbproxy takes TLS 1.2 and 1.3 with safe ciphers, and no other";
const WATCHED: &str =
    "the monitor looks at each server every `monitor.interval` and has its own limits of time";
const READS: &str = "dbproxy decides by each statement, the position of the account's writes and the replica's lag; there is nothing to set";

const EVERYWHERE: &[(&str, Fate)] = &[
    ("ssl_", Nothing(TLS_DETAIL)),
    ("protocol", Nothing("there is only one protocol")),
    ("log_", Nothing(LOGGING)),
];

pub(super) const SERVER: &[(&str, Fate)] = &[
    (
        "persistpoolmax",
        Nothing("pooling is always on; `limits.server_connections` bounds it"),
    ),
    (
        "monitoruser",
        Nothing("the monitor account is one for all servers, `monitor.user`"),
    ),
    (
        "monitorpw",
        Nothing("the monitor account is one for all servers, `monitor.user`"),
    ),
    (
        "priority",
        Nothing(
            "which server is the primary, dbproxy finds out; `weight` is the share of the reads",
        ),
    ),
    (
        "rank",
        Nothing(
            "dbproxy has no standby: each replica gets reads; leave the server out if it must get none",
        ),
    ),
    ("disk_space", Nothing(WATCHED)),
    (
        "extra_port",
        Nothing(
            "dbproxy has no second port for a server; the monitor's connections count like any other",
        ),
    ),
];

pub(super) const MONITOR: &[(&str, Fate)] = &[
    (
        "module",
        Nothing("dbproxy watches replication in one way, for MariaDB and for MySQL"),
    ),
    ("auto_", Nothing(NO_FAILOVER)),
    ("failover", Nothing(NO_FAILOVER)),
    ("failcount", Nothing(NO_FAILOVER)),
    ("switchover", Nothing(NO_FAILOVER)),
    ("replication_", Nothing(NO_FAILOVER)),
    ("enforce_", Nothing(NO_FAILOVER)),
    ("promotion", Nothing(NO_FAILOVER)),
    ("demotion", Nothing(NO_FAILOVER)),
    ("cooperative", Nothing(NO_FAILOVER)),
    ("handle_events", Nothing(NO_FAILOVER)),
    ("master_conditions", Nothing(NO_FAILOVER)),
    ("slave_conditions", Nothing(NO_FAILOVER)),
    ("servers_no_promotion", Nothing(NO_FAILOVER)),
    ("verify_master_failure", Nothing(NO_FAILOVER)),
    ("master_failure_timeout", Nothing(NO_FAILOVER)),
    ("backend_", Nothing(WATCHED)),
    ("journal", Nothing(WATCHED)),
    ("disk_space", Nothing(WATCHED)),
    (
        "script",
        Nothing("dbproxy starts no scripts; it logs each change of roles"),
    ),
    (
        "events",
        Nothing("dbproxy starts no scripts; it logs each change of roles"),
    ),
    (
        "detect_",
        Nothing("which server is the primary, dbproxy finds out"),
    ),
    (
        "ignore_external",
        Nothing("which server is the primary, dbproxy finds out"),
    ),
    (
        "assume_unique",
        Nothing("which server is the primary, dbproxy finds out"),
    ),
];

pub(super) const SERVICE: &[(&str, Fate)] = &[
    (
        "router_options",
        Nothing(
            "every listener of dbproxy takes reads and writes; a [[rule]] with listener and route says otherwise",
        ),
    ),
    (
        "router",
        Nothing(
            "every listener of dbproxy takes reads and writes; a [[rule]] with listener and route says otherwise",
        ),
    ),
    (
        "user",
        Nothing("the monitor account reads the accounts too; there is no second one"),
    ),
    (
        "passw",
        Nothing("the monitor account reads the accounts too; there is no second one"),
    ),
    (
        "max_slave_connections",
        Nothing("a session has no connections of its own: it takes one for each statement"),
    ),
    (
        "slave_connections",
        Nothing("a session has no connections of its own: it takes one for each statement"),
    ),
    (
        "lazy_connect",
        Nothing("a session has no connections of its own: it takes one for each statement"),
    ),
    (
        "connection_keepalive",
        Nothing("a session has no connections of its own: it takes one for each statement"),
    ),
    (
        "idle_session_pool_time",
        Nothing("a session has no connections of its own: it takes one for each statement"),
    ),
    (
        "multiplex_timeout",
        Nothing("how long a statement waits for a connection, `limits.queue_wait` says"),
    ),
    ("slave_selection", Nothing(READS)),
    (
        "max_slave_replication_lag",
        Nothing("no limit there; `cluster.max_lag` is always one"),
    ),
    (
        "max_replication_lag",
        Nothing("no limit there; `cluster.max_lag` is always one"),
    ),
    (
        "max_connections",
        Nothing("no limit there; `limits.connections` is always one"),
    ),
    (
        "use_sql_variables_in",
        Nothing("user variables tie the session to its connection to the primary"),
    ),
    (
        "master_accept_reads",
        Nothing("the primary gets reads only if no replica can answer them"),
    ),
    (
        "master_reconnection",
        Nothing("a session outlives a change of the primary, unless it is tied to a connection"),
    ),
    (
        "master_failure_mode",
        Nothing(
            "a write waits up to `limits.hold` for a primary and then fails; the session goes on",
        ),
    ),
    (
        "delayed_retry",
        Nothing(
            "a write waits up to `limits.hold` for a primary; one that was sent is never sent again",
        ),
    ),
    (
        "retry_failed_reads",
        Nothing("a read that has not yet sent a row is always repeated elsewhere"),
    ),
    (
        "transaction_replay",
        Nothing("transactions are not replayed; the client is told, and repeats it"),
    ),
    (
        "optimistic_trx",
        Nothing("transactions run on the primary from their beginning"),
    ),
    (
        "reuse_prepared",
        Nothing("prepared statements are shared by connections as they are"),
    ),
    (
        "strict_",
        Nothing("what depends on its connection ties the session to the primary"),
    ),
    ("max_sescmd", Nothing(SESSIONS)),
    ("prune_sescmd", Nothing(SESSIONS)),
    ("disable_sescmd", Nothing(SESSIONS)),
    ("session_", Nothing(SESSIONS)),
    (
        "enable_root_user",
        Nothing("every account of the servers can log in; lock there what must not"),
    ),
    ("auth_all_servers", Nothing(OWN_ACCOUNTS)),
    ("localhost_match", Nothing(OWN_ACCOUNTS)),
    ("strip_db_esc", Nothing(OWN_ACCOUNTS)),
    ("user_accounts", Nothing(OWN_ACCOUNTS)),
    (
        "version_string",
        Nothing("clients are told the servers' own version"),
    ),
    (
        "connection_timeout",
        Nothing(
            "an idle client is ended after the `wait_timeout` that it has set, or the primary's",
        ),
    ),
    (
        "wait_timeout",
        Nothing(
            "an idle client is ended after the `wait_timeout` that it has set, or the primary's",
        ),
    ),
    (
        "net_write_timeout",
        Nothing("`limits.write_timeout` says how long a client may take nothing"),
    ),
    (
        "retain_last_statements",
        Nothing("dbproxy keeps no statements"),
    ),
];

pub(super) const LISTENER: &[(&str, Fate)] = &[
    ("authenticator", Nothing(OWN_ACCOUNTS)),
    (
        "connection_init_sql_file",
        Nothing("dbproxy sends nothing of its own; `init_connect` on the servers does the same"),
    ),
    (
        "sql_mode",
        Nothing("the session's `sql_mode` counts, from the servers or set by the client"),
    ),
    (
        "user_mapping_file",
        Nothing("dbproxy logs in to the servers as the client's user"),
    ),
];

pub(super) const GLOBAL: &[(&str, Fate)] = &[
    (
        "threads",
        Nothing("`workers` is one per core if it is left out"),
    ),
    ("admin_", Nothing(NO_CONSOLE)),
    (
        "query_classifier",
        Nothing("dbproxy's own classifier needs no settings"),
    ),
    (
        "auth_connect_timeout",
        Span("limits.login", duration, SECONDS),
    ),
    (
        "auth_",
        Nothing("`limits.login` says how long a login may take"),
    ),
    (
        "max_auth_errors",
        Nothing("wrong passwords are counted by the servers"),
    ),
    ("syslog", Nothing(LOGGING)),
    ("maxlog", Nothing(LOGGING)),
    ("ms_timestamp", Nothing(LOGGING)),
    ("logdir", Nothing(LOGGING)),
    (
        "skip_",
        Nothing(
            "addresses are never turned into names; accounts whose host is a name other than localhost let nobody in",
        ),
    ),
    ("passive", Nothing(NO_FAILOVER)),
    (
        "config_sync",
        Nothing("each dbproxy has its own file; distribute it as any other"),
    ),
    ("rebalance", Nothing("a session stays on its worker")),
    (
        "writeq_",
        Nothing("a slow client slows its server down; nothing is kept in memory"),
    ),
];
