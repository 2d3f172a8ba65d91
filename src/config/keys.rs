//! The table of keys: the one source of what may stand in the file, of the defaults, and of the reference in README.

use std::time::Duration;

use super::Balance;
use super::Consistency;
use super::LogFormat;
use super::kind::Address;
use super::kind::Choice;
use super::kind::Count;
use super::kind::Filter;
use super::kind::Kind;
use super::kind::Listeners;
use super::kind::Password;
use super::kind::ServerName;
use super::kind::Servers;
use super::kind::Span;
use super::kind::Text;
use super::kind::Threads;

/// One key.
pub(super) struct Key<K> {
    /// Its path; `NAME` stands for any name, `[]` after a segment for a list of tables.
    pub(super) path: &'static str,
    pub(super) kind: K,
    /// What it means, in Markdown.
    pub(super) meaning: &'static str,
}

/// What the reference and the search for unknown keys want to know of a key.
pub(super) trait Entry {
    fn path(&self) -> &'static str;
    fn describe(&self) -> String;
    fn default(&self) -> String;
    fn meaning(&self) -> &'static str;
}

impl<K: Kind> Entry for Key<K> {
    fn path(&self) -> &'static str {
        self.path
    }

    fn describe(&self) -> String {
        self.kind.describe()
    }

    fn default(&self) -> String {
        self.kind.shown_default()
    }

    fn meaning(&self) -> &'static str {
        self.meaning
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) const WORKERS: Key<Threads> = Key {
    path: "workers",
    kind: Threads { max: 1024 },
    meaning: "Worker threads. A session lives on one of them.",
};

pub(super) const LISTEN_MYSQL: Key<Listeners> = Key {
    path: "listen.mysql",
    kind: Listeners {
        default: "127.0.0.1:3306",
    },
    meaning: "Where clients connect. Port 0 lets the system choose; the log says which.",
};

pub(super) const MONITOR_USER: Key<Text> = Key {
    path: "monitor.user",
    kind: Text { default: None },
    meaning: "The account that watches the servers and reads their accounts.",
};

pub(super) const MONITOR_PASSWORD: Key<Password> = Key {
    path: "monitor.password",
    kind: Password,
    meaning: "Its password.",
};

pub(super) const MONITOR_INTERVAL: Key<Span> = Key {
    path: "monitor.interval",
    kind: Span {
        default: millis(250),
        min: millis(50),
        max: secs(60),
    },
    meaning: "Time from one probe of a server to the next.",
};

pub(super) const CLUSTER_NAME: Key<Text> = Key {
    path: "cluster.name",
    kind: Text {
        default: Some("main"),
    },
    meaning: "The name that logs show.",
};

pub(super) const SERVERS: Key<Servers> = Key {
    path: "cluster.servers",
    kind: Servers,
    meaning: "The servers, in short; `[[cluster.server]]` is the long form. Which is the primary, dbproxy finds out.",
};

pub(super) const CONSISTENCY: Key<Choice<Consistency>> = Key {
    path: "cluster.consistency",
    kind: Choice {
        default: ("user", Consistency::User),
        names: &[
            ("eventual", Consistency::Eventual),
            ("user", Consistency::User),
            ("strong", Consistency::Strong),
        ],
        later: &["connection", "global"],
    },
    meaning: "What a read has at least seen: `eventual` nothing in particular, `user` every write \
              of the same account, `strong` everything (reads go to the primary).",
};

pub(super) const MAX_LAG: Key<Span> = Key {
    path: "cluster.max_lag",
    kind: Span {
        default: secs(5),
        min: millis(1),
        max: secs(7 * 86_400),
    },
    meaning: "A replica that is further behind gets no reads.",
};

pub(super) const BALANCE: Key<Choice<Balance>> = Key {
    path: "cluster.balance",
    kind: Choice {
        default: ("least-connections", Balance::LeastConnections),
        names: &[
            ("least-connections", Balance::LeastConnections),
            ("round-robin", Balance::RoundRobin),
            ("random", Balance::Random),
        ],
        later: &["latency", "sticky"],
    },
    meaning: "How one of several eligible replicas is chosen, always by weight.",
};

pub(super) const SERVER_NAME: Key<ServerName> = Key {
    path: "cluster.server[].name",
    kind: ServerName,
    meaning: "The server's name in logs and reasons.",
};

pub(super) const SERVER_ADDRESS: Key<Address> = Key {
    path: "cluster.server[].address",
    kind: Address,
    meaning: "Where it listens. Without a port: 3306.",
};

pub(super) const SERVER_WEIGHT: Key<Count> = Key {
    path: "cluster.server[].weight",
    kind: Count {
        default: 1,
        min: 1,
        max: 1000,
    },
    meaning: "Its share of the reads relative to the other replicas.",
};

pub(super) const USER_PASSWORD: Key<Password> = Key {
    path: "users.NAME.password",
    kind: Password,
    meaning: "The account's password on the servers. Only for accounts that dbproxy cannot read \
              from them.",
};

pub(super) const HOLD: Key<Span> = Key {
    path: "limits.hold",
    kind: Span {
        default: secs(30),
        min: millis(1),
        max: secs(3_600),
    },
    meaning: "How long a statement waits for a server that can run it, such as a primary.",
};

pub(super) const CONNECTIONS: Key<Count> = Key {
    path: "limits.connections",
    kind: Count {
        default: 10_000,
        min: 1,
        max: 1_000_000,
    },
    meaning: "Clients in all. One more gets error 1040.",
};

pub(super) const SERVER_CONNECTIONS: Key<Count> = Key {
    path: "limits.server_connections",
    kind: Count {
        default: 100,
        min: 1,
        max: 100_000,
    },
    meaning: "Connections to one server, over all workers; beyond it only a few short ones that check a password or end a query.",
};

pub(super) const QUEUE_DEPTH: Key<Count> = Key {
    path: "limits.queue_depth",
    kind: Count {
        default: 10_000,
        min: 1,
        max: 1_000_000,
    },
    meaning: "Statements that may wait for a connection to one server.",
};

pub(super) const QUEUE_WAIT: Key<Span> = Key {
    path: "limits.queue_wait",
    kind: Span {
        default: secs(10),
        min: millis(1),
        max: secs(3_600),
    },
    meaning: "How long a statement may wait in that queue.",
};

pub(super) const LOGIN: Key<Span> = Key {
    path: "limits.login",
    kind: Span {
        default: secs(10),
        min: millis(100),
        max: secs(600),
    },
    meaning: "How long a login may take, of a client here and of dbproxy on a server.",
};

pub(super) const IDLE: Key<Span> = Key {
    path: "limits.idle",
    kind: Span {
        default: secs(300),
        min: secs(1),
        max: secs(86_400),
    },
    meaning: "How long an unused server connection is kept.",
};

pub(super) const DRAIN: Key<Span> = Key {
    path: "limits.drain",
    kind: Span {
        default: secs(30),
        min: millis(1),
        max: secs(3_600),
    },
    meaning: "How long a stop waits for running statements.",
};

pub(super) const LEVEL: Key<Filter> = Key {
    path: "log.level",
    kind: Filter { default: "info" },
    meaning: "What is logged. The environment variable `DBPROXY_LOG` overrides it.",
};

pub(super) const FORMAT: Key<Choice<LogFormat>> = Key {
    path: "log.format",
    kind: Choice {
        default: ("text", LogFormat::Text),
        names: &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        later: &[],
    },
    meaning: "How a log line looks.",
};

/// Every key, in the reference's order.
pub(super) const ALL: &[&dyn Entry] = &[
    &LISTEN_MYSQL,
    &MONITOR_USER,
    &MONITOR_PASSWORD,
    &MONITOR_INTERVAL,
    &CLUSTER_NAME,
    &SERVERS,
    &CONSISTENCY,
    &MAX_LAG,
    &BALANCE,
    &SERVER_NAME,
    &SERVER_ADDRESS,
    &SERVER_WEIGHT,
    &USER_PASSWORD,
    &HOLD,
    &CONNECTIONS,
    &SERVER_CONNECTIONS,
    &QUEUE_DEPTH,
    &QUEUE_WAIT,
    &LOGIN,
    &IDLE,
    &DRAIN,
    &LEVEL,
    &FORMAT,
    &WORKERS,
];

/// Keys that the design knows and this version does not: they get a better answer than "unknown".
pub(super) const LATER: &[&str] = &[
    "listen.admin",
    "listen.http",
    "cluster.failover",
    "cluster.server[].group",
    "cluster.server[].promote",
    "clusters",
    "mode",
    "rule",
    "tls",
];
