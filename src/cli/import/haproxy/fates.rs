//! What becomes of HAProxy's lines.

use crate::cli::import::target::Fate;
use crate::cli::import::target::Fate::{Count, Nothing, Span};

const IN_MILLIS: &str = " (without a unit: ms)";

/// Milliseconds of a time.
fn time(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let number: u64 = number.parse().ok()?;
    match unit {
        "us" => Some(number.div_ceil(1000)),
        "" | "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    }
}

/// What becomes of a line, by its beginning.
pub(super) fn fate(line: &str) -> Fate {
    let row = LINES.iter().find(|(start, _)| line.starts_with(start));
    row.map_or(Nothing("dbproxy has no such setting"), |(_, fate)| *fate)
}

const SERVICE_MANAGER: &str = "users, files and processes are the service manager's business";
const LOGGING: &str =
    "dbproxy logs to standard error; `log.level` and `log.format` say what and how";
const NO_CONSOLE: &str = "dbproxy has no console, no web page and no metrics yet";
const CHECKS: &str =
    "not needed: dbproxy's monitor looks at each server every `monitor.interval`, by SQL";
const IDLE: &str =
    "an idle client is ended after the `wait_timeout` that it has set, or the primary's";
const RULES: &str = "accounts on the servers say from where they may be used; a [[rule]] with client and block refuses statements";

const LINES: &[(&str, Fate)] = &[
    ("maxconn ", Count("limits.connections")),
    ("nbthread ", Count("workers")),
    (
        "nbproc ",
        Nothing("one process serves all; `workers` is its threads"),
    ),
    (
        "cpu-map ",
        Nothing("the system places threads on processors"),
    ),
    ("timeout connect", Span("limits.login", time, IN_MILLIS)),
    ("contimeout ", Span("limits.login", time, IN_MILLIS)),
    ("timeout queue", Span("limits.queue_wait", time, IN_MILLIS)),
    ("timeout client", Nothing(IDLE)),
    ("clitimeout ", Nothing(IDLE)),
    ("timeout tunnel", Nothing(IDLE)),
    (
        "timeout server",
        Nothing(
            "it bounded how long a server may say nothing: a [[rule]] with timeout bounds the time of statements",
        ),
    ),
    (
        "srvtimeout ",
        Nothing(
            "it bounded how long a server may say nothing: a [[rule]] with timeout bounds the time of statements",
        ),
    ),
    ("timeout check", Nothing(CHECKS)),
    ("timeout http", Nothing("it is for HTTP")),
    ("timeout ", Nothing("dbproxy has no such limit of time")),
    (
        "option mysql-check",
        Nothing(
            "the check needs an account without a password; the monitor has one with a password and the rights that README tells",
        ),
    ),
    ("option httpchk", Nothing(CHECKS)),
    ("option tcp-check", Nothing(CHECKS)),
    ("option allbackups", Nothing("every replica gets reads")),
    (
        "option redispatch",
        Nothing("a statement that found no server is tried elsewhere, up to `limits.hold`"),
    ),
    (
        "option tcpka",
        Nothing(
            "clients and servers that are gone are found by `limits.read_timeout` and the monitor",
        ),
    ),
    (
        "option clitcpka",
        Nothing(
            "clients and servers that are gone are found by `limits.read_timeout` and the monitor",
        ),
    ),
    (
        "option srvtcpka",
        Nothing(
            "clients and servers that are gone are found by `limits.read_timeout` and the monitor",
        ),
    ),
    ("option tcplog", Nothing(LOGGING)),
    ("option dontlog", Nothing(LOGGING)),
    ("option log", Nothing(LOGGING)),
    ("option http", Nothing("it is for HTTP")),
    ("option forwardfor", Nothing("it is for HTTP")),
    ("tcp-check ", Nothing(CHECKS)),
    ("http-check ", Nothing(CHECKS)),
    ("external-check ", Nothing(CHECKS)),
    (
        "retries ",
        Nothing("a statement that found no server is tried elsewhere, up to `limits.hold`"),
    ),
    ("spread-checks ", Nothing(CHECKS)),
    ("log", Nothing(LOGGING)),
    ("stats ", Nothing(NO_CONSOLE)),
    ("user ", Nothing(SERVICE_MANAGER)),
    ("group ", Nothing(SERVICE_MANAGER)),
    ("uid ", Nothing(SERVICE_MANAGER)),
    ("gid ", Nothing(SERVICE_MANAGER)),
    ("daemon ", Nothing(SERVICE_MANAGER)),
    ("chroot ", Nothing(SERVICE_MANAGER)),
    ("pidfile ", Nothing(SERVICE_MANAGER)),
    ("ulimit-n ", Nothing(SERVICE_MANAGER)),
    ("master-worker ", Nothing(SERVICE_MANAGER)),
    (
        "ssl-",
        Nothing("dbproxy takes TLS 1.2 and 1.3 with safe ciphers, and no other"),
    ),
    (
        "ca-base ",
        Nothing("paths stand whole in [tls.client] and [tls.server]"),
    ),
    (
        "crt-base ",
        Nothing("paths stand whole in [tls.client] and [tls.server]"),
    ),
    (
        "tune.",
        Nothing("dbproxy's memory and buffers need no settings"),
    ),
    ("stick", Nothing("a session is not kept on one server")),
    ("acl ", Nothing(RULES)),
    ("tcp-request ", Nothing(RULES)),
    ("tcp-response ", Nothing(RULES)),
    ("http-", Nothing("it is for HTTP")),
    (
        "use_backend ",
        Nothing(
            "one listener serves all; what belongs to the primary and what to a replica, each statement decides",
        ),
    ),
    (
        "default_backend ",
        Nothing(
            "one listener serves all; what belongs to the primary and what to a replica, each statement decides",
        ),
    ),
    (
        "rate-limit ",
        Nothing("`limits.logins` and `limits.address_connections` bound what comes in"),
    ),
    (
        "fullconn ",
        Nothing("`limits.server_connections` bounds connections to a server"),
    ),
    (
        "server-template ",
        Nothing("the servers have to be named, each with its address"),
    ),
    (
        "source ",
        Nothing("the system chooses the address from which servers are reached"),
    ),
    ("errorfile ", Nothing("it is for HTTP")),
    ("mode ", Nothing("dbproxy speaks the MySQL protocol only")),
];
