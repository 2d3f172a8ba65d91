//! What becomes of ProxySQL's variables, rules and lesser tables.

use crate::cli::import::target::Fate;
use crate::cli::import::target::Fate::{Count, Nothing, Span, Text};

fn millis(text: &str) -> Option<u64> {
    text.parse().ok()
}

const IN_MILLIS: &str = " (in ms)";

/// A variable, by the beginning of its name.
pub(super) fn of_variable(name: &str) -> Fate {
    let Some(name) = name.strip_prefix("mysql-") else {
        return match name {
            name if name.starts_with("admin-") => Nothing(CONSOLE),
            name if name.starts_with("pgsql-") => Nothing("dbproxy speaks the MySQL protocol only"),
            _ => Nothing(
                "files and processes are the service manager's business; dbproxy needs no directory for its data",
            ),
        };
    };
    let mut rows = VARIABLES.iter();
    let row = rows.find(|(start, _)| name.starts_with(start));
    row.map_or(Nothing("dbproxy has no such setting"), |(_, fate)| *fate)
}

/// Why a table is not carried over.
pub(super) fn of_table(table: &str) -> &'static str {
    match table {
        "mysql_hostgroup_attributes" => "dbproxy has no settings for a group of servers",
        "mysql_query_rules_fast_routing" => {
            "`accounts` and `schemas` of [clusters.NAME] say which sessions are whose; within a cluster a [[rule]] with account, schema \
             and route"
        }
        "mysql_servers_ssl_params" => {
            "`tls` of a server and [tls.server] say how servers are spoken to"
        }
        "mysql_firewall_whitelist_users"
        | "mysql_firewall_whitelist_rules"
        | "mysql_firewall_whitelist_sqli_fingerprints" => {
            "a firewall learns anew: a [[rule]] with the account, a name and firewall = \"learn\", later \"detect\" and \"enforce\""
        }
        "proxysql_servers" => "each dbproxy has its own file; distribute it as any other",
        "scheduler" | "restapi_routes" => "dbproxy starts no scripts",
        table if table.starts_with("pgsql") => "dbproxy speaks the MySQL protocol only",
        table if table.starts_with("clickhouse") => "dbproxy speaks to MySQL and MariaDB only",
        _ => "dbproxy has nothing like it",
    }
}

const CONSOLE: &str = "dbproxy has no console, no web page and no metrics yet";
const WATCHED: &str = "one look at each server every `monitor.interval` finds out everything, within its own limits of time";
const POOL: &str = "the pool keeps and shares connections by itself; `limits.idle` says how long an unused one is kept, `limits.warm` how many all the same";
const SESSION: &str = "dbproxy carries what a session has set from connection to connection, and ties the session to one where it cannot";
const RETRIES: &str = "a read that has not yet sent a row is repeated elsewhere, up to `limits.hold`; a write is never repeated";
const STATISTICS: &str = "dbproxy keeps no statistics of statements yet";
const LOGS: &str = "statements are logged by a [[rule]] with log; `log.level` says what it logs, to standard error";
const MEMORY: &str = "answers pass through as they arrive; there is nothing to set";
const TIMES: &str =
    "a [[rule]] with timeout bounds the time of statements; transactions have no bound";

/// The first that fits counts, so longer names stand in front.
const VARIABLES: &[(&str, Fate)] = &[
    ("monitor_username", Text("monitor.user")),
    ("monitor_", Nothing(WATCHED)),
    ("threads", Count("workers")),
    ("max_connections", Count("limits.connections")),
    (
        "connect_timeout_client",
        Span("limits.login", millis, IN_MILLIS),
    ),
    (
        "connect_timeout_server_max",
        Span("limits.queue_wait", millis, IN_MILLIS),
    ),
    (
        "connect_timeout_server",
        Nothing("`limits.login` is also how long dbproxy may take to log in to a server"),
    ),
    ("ssl_p2s_ca", Text("tls.server.ca")),
    (
        "ssl_p2s_",
        Nothing("dbproxy takes TLS 1.2 and 1.3 with safe ciphers, and no other"),
    ),
    (
        "proxy_protocol_networks",
        Nothing("who may tell a client's address has to be named: `listen.proxy_protocol`"),
    ),
    ("default_query_timeout", Nothing(TIMES)),
    ("max_transaction_", Nothing(TIMES)),
    ("default_query_delay", Nothing("dbproxy delays nothing")),
    (
        "throttle_",
        Nothing("dbproxy slows nothing down; `limits` has its bounds"),
    ),
    (
        "wait_timeout",
        Nothing(
            "an idle client is ended after the `wait_timeout` that it has set, or the primary's",
        ),
    ),
    (
        "default_",
        Nothing("a session begins with the servers' own character set, schema and variables"),
    ),
    (
        "init_connect",
        Nothing("dbproxy sends nothing of its own; `init_connect` on the servers does the same"),
    ),
    (
        "server_version",
        Nothing("clients are told the servers' own version"),
    ),
    (
        "server_capabilities",
        Nothing("clients are offered what every server can"),
    ),
    ("max_allowed_packet", Nothing("the primary's counts")),
    (
        "query_cache",
        Nothing("a [[rule]] with cache keeps answers; `limits.cache` bounds the memory"),
    ),
    ("mirror_", Nothing("what copies may take is fixed")),
    (
        "firewall_",
        Nothing("a [[rule]] with firewall = \"learn\" is the beginning of one"),
    ),
    (
        "automatic_detect_sqli",
        Nothing("a [[rule]] with firewall = \"learn\" is the beginning of one"),
    ),
    ("query_retries", Nothing(RETRIES)),
    ("connect_retries", Nothing(RETRIES)),
    ("shun_", Nothing(WATCHED)),
    ("unshun_", Nothing(WATCHED)),
    ("ping_", Nothing(WATCHED)),
    ("aurora_", Nothing(WATCHED)),
    (
        "query_processor",
        Nothing("dbproxy's rules have nothing to be tuned"),
    ),
    ("query_digests", Nothing(STATISTICS)),
    ("commands_stats", Nothing(STATISTICS)),
    ("stats_", Nothing(STATISTICS)),
    ("sessions_sort", Nothing(MEMORY)),
    ("long_query_time", Nothing(STATISTICS)),
    (
        "show_processlist",
        Nothing("SHOW PROCESSLIST is the primary's, with dbproxy's sessions in it"),
    ),
    ("eventslog", Nothing(LOGS)),
    ("auditlog", Nothing(LOGS)),
    ("log_", Nothing(LOGS)),
    ("verbose_", Nothing(LOGS)),
    ("hostgroup_manager_verbose", Nothing(LOGS)),
    ("threshold_", Nothing(MEMORY)),
    ("stacksize", Nothing(MEMORY)),
    ("poll_timeout", Nothing(MEMORY)),
    ("session_idle", Nothing(MEMORY)),
    ("min_num_servers", Nothing(MEMORY)),
    (
        "max_stmts",
        Nothing(
            "prepared statements are a session's own; the servers' max_prepared_stmt_count counts",
        ),
    ),
    ("multiplexing", Nothing(POOL)),
    ("free_connections_pct", Nothing(POOL)),
    (
        "connection_max_age_ms",
        Span("limits.connection_age", millis, IN_MILLIS),
    ),
    ("connection_", Nothing(POOL)),
    ("auto_increment_delay", Nothing(POOL)),
    (
        "kill_backend_connection",
        Nothing(
            "a read goes on for `limits.abandoned` after its client is gone, a write to its end",
        ),
    ),
    (
        "use_tcp_keepalive",
        Nothing(
            "clients and servers that are gone are found by `limits.read_timeout` and the monitor",
        ),
    ),
    (
        "tcp_keepalive",
        Nothing(
            "clients and servers that are gone are found by `limits.read_timeout` and the monitor",
        ),
    ),
    ("autocommit_false", Nothing(SESSION)),
    ("enforce_autocommit", Nothing(SESSION)),
    ("forward_autocommit", Nothing(SESSION)),
    ("keep_multiplexing", Nothing(SESSION)),
    ("set_query_lock", Nothing(SESSION)),
    ("set_parser", Nothing(SESSION)),
    ("handle_", Nothing(SESSION)),
    ("reset_connection", Nothing(SESSION)),
    ("session_track", Nothing(SESSION)),
    ("client_session_track", Nothing(SESSION)),
    (
        "client_found_rows",
        Nothing("servers are asked for what the client asks for"),
    ),
    (
        "client_multi_statements",
        Nothing("servers are asked for what the client asks for"),
    ),
    (
        "enable_",
        Nothing("servers are asked for what the client asks for"),
    ),
    (
        "client_host",
        Nothing("`limits.address_connections` and `limits.logins` bound what one address can do"),
    ),
    ("ldap_", Nothing("who may log in, the servers say")),
];
