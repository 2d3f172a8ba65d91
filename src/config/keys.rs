//! The table of keys: the one source of what may stand in the file, of the defaults, and of the reference in README.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::Administration;
use super::Balance;
use super::ClientCompression;
use super::ClientMode;
use super::Consistency;
use super::Failover;
use super::Heartbeat;
use super::LogFormat;
use super::Mode;
use super::MonotonicReads;
use super::Promote;
use super::ProxyProtocol;
use super::ReadOnlyTransactions;
use super::Rejoin;
use super::ServerAddress;
use super::ServerCompression;
use super::ServerMode;
use super::TransactionReplay;
use super::kind::Choice;
use super::kind::Count;
use super::kind::FilePath;
use super::kind::Filter;
use super::kind::Kind;
use super::kind::Listeners;
use super::kind::Networks;
use super::kind::Own;
use super::kind::Parsed;
use super::kind::Password;
use super::kind::Portion;
use super::kind::Program;
use super::kind::Report;
use super::kind::Servers;
use super::kind::Size;
use super::kind::Span;
use super::kind::Text;
use super::kind::server_name;
use super::rule::Glob;
use super::rule::keys as rule;
use super::rule::kinds::Several;

/// One key.
pub(super) struct Key<K> {
    /// Its path; `NAME` stands for any name, `[]` after a segment for a list of tables.
    pub(super) path: &'static str,
    pub(super) kind: K,
    /// What it means, in Markdown.
    pub(super) meaning: &'static str,
}

/// What can be asked of a key whatever its kind.
pub(super) trait Entry {
    fn path(&self) -> &'static str;
    fn describe(&self) -> String;
    fn default(&self) -> String;
    fn meaning(&self) -> &'static str;
    /// Reports what is wrong with a value.
    fn check(&self, value: &Spanned<DeValue<'_>>, report: &mut Report<'_>);
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

    fn check(&self, value: &Spanned<DeValue<'_>>, report: &mut Report<'_>) {
        self.kind.read(value, self.path, report);
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) const WORKERS: Key<Own<Count>> = Key {
    path: "workers",
    kind: Own {
        kind: Count {
            default: 1,
            min: 1,
            max: 1024,
        },
        otherwise: "one per core",
    },
    meaning: "Worker threads. A session lives on one of them.",
};

pub(super) const MODE: Key<Choice<Mode>> = Key {
    path: "mode",
    kind: Choice {
        default: ("route", Mode::Route),
        names: &[("route", Mode::Route), ("observe", Mode::Observe)],
        later: &[],
    },
    meaning: "`observe`: everything goes to the primary, and `dbproxy observe-report` tells where it would have gone, and whether \
              replicas would have answered the same. It is kept in `state_directory`.",
};

pub(super) const OBSERVE_SAMPLE: Key<Portion> = Key {
    path: "observe.sample",
    kind: Portion { default: 0.01 },
    meaning: "Of the reads that `mode = \"observe\"` would have sent to a replica, the share that it runs there as well and compares; \
              the first of each kind of statement is always one of them. With `0` nothing runs on replicas.",
};

pub(super) const LISTEN_MYSQL: Key<Listeners> = Key {
    path: "listen.mysql",
    kind: Listeners {
        default: Some("127.0.0.1:3306"),
    },
    meaning: "Where clients connect. Port 0 lets the system choose; the log says which.",
};

pub(super) const LISTEN_MYSQL_TLS: Key<Listeners> = Key {
    path: "listen.mysql_tls",
    kind: Listeners { default: None },
    meaning: "More such addresses, where a client has to use TLS whatever `tls.client.mode` says.",
};

pub(super) const PROXY_PROTOCOL: Key<Networks> = Key {
    path: "listen.proxy_protocol",
    kind: Networks,
    meaning: "The networks of load balancers that speak the PROXY protocol (version 1 or 2). Each connection from there must \
              begin with its header, and counts as coming from the address in it; others must not have one.",
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

pub(super) const MONITOR_HEARTBEAT: Key<Choice<Heartbeat>> = Key {
    path: "monitor.heartbeat",
    kind: Choice {
        default: ("auto", Heartbeat::Auto),
        names: &[("auto", Heartbeat::Auto), ("off", Heartbeat::Off)],
        later: &[],
    },
    meaning: "`auto`: if there is a table `dbproxy.heartbeat` that its account may write to, lag is measured with a row in there, \
              which is changed on the primary every `monitor.interval`.",
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
            ("connection", Consistency::Connection),
            ("user", Consistency::User),
            ("global", Consistency::Global),
            ("strong", Consistency::Strong),
        ],
        later: &[],
    },
    meaning: "What a read has at least seen: `eventual` nothing in particular, `connection` every write of the same \
              connection, `user` every write of the same account, `global` every write through this dbproxy, `strong` \
              everything (reads go to the primary).",
};

pub(super) const MONOTONIC_READS: Key<Choice<MonotonicReads>> = Key {
    path: "cluster.monotonic_reads",
    kind: Choice {
        default: ("connection", MonotonicReads::Connection),
        names: &[
            ("off", MonotonicReads::Off),
            ("connection", MonotonicReads::Connection),
        ],
        later: &[],
    },
    meaning: "`connection`: none of them, nor those with the same key, ever reads anything older than what it has read \
              before, also of others' writes. Not with `consistency = \"eventual\"`.",
};

pub(super) const REPLICA_WAIT: Key<Span> = Key {
    path: "cluster.replica_wait",
    kind: Span {
        default: millis(100),
        min: Duration::ZERO,
        max: secs(60),
    },
    meaning: "How long a read may wait on a replica for the writes that it must see, before the primary gets it. Where a \
              replica is known to be further behind, none waits; `\"0s\"`: never.",
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
        default: ("latency", Balance::Latency),
        names: &[
            ("latency", Balance::Latency),
            ("least-connections", Balance::LeastConnections),
            ("round-robin", Balance::RoundRobin),
            ("random", Balance::Random),
            ("sticky", Balance::Sticky),
        ],
        later: &[],
    },
    meaning: "How one of several eligible replicas is chosen, always by weight. `least-connections`: the one with less to do of two \
              that are drawn. `latency`: the same, and who answers more slowly than others, or fails, is drawn less often. \
              `sticky`: each session has its own.",
};

pub(super) const SLOW_START: Key<Span> = Key {
    path: "cluster.slow_start",
    kind: Span {
        default: secs(10),
        min: Duration::ZERO,
        max: secs(3600),
    },
    meaning: "How long a replica that has just begun, or begun again, to serve reads gets less than its share, with \
              `latency` and `least-connections`.",
};

pub(super) const HEDGED_READS: Key<Portion> = Key {
    path: "cluster.hedged_reads",
    kind: Portion { default: 0.0 },
    meaning: "The part of the reads that may be asked of a second replica as well, when the first takes longer to begin its answer \
              than 99 of 100 of its answers did. The first answer counts, the other read is ended. `0.05` is much.",
};

pub(super) const ZONE: Key<Own<Parsed<String>>> = Key {
    path: "cluster.zone",
    kind: ZONES,
    meaning: "Where this dbproxy is. Reads go to replicas of the same zone (`cluster.server[].zone`) as long as one of them can \
              serve them at once.",
};

const ZONES: Own<Parsed<String>> = Own {
    kind: Parsed {
        described: "string of letters, digits, `.`, `_`, `-`",
        parse: server_name,
    },
    otherwise: "none",
};

pub(super) const READ_ONLY_TRANSACTIONS: Key<Choice<ReadOnlyTransactions>> = Key {
    path: "cluster.read_only_transactions",
    kind: Choice {
        default: ("primary", ReadOnlyTransactions::Primary),
        names: &[
            ("primary", ReadOnlyTransactions::Primary),
            ("replica", ReadOnlyTransactions::Replica),
        ],
        later: &[],
    },
    meaning: "Where transactions run that are begun `READ ONLY`, or in a session that is. `replica`: on one replica \
              from beginning to end; a statement that only the primary can run gets error 1792 there once the \
              transaction has read.",
};

pub(super) const TRANSACTION_REPLAY: Key<Choice<TransactionReplay>> = Key {
    path: "cluster.transaction_replay",
    kind: Choice {
        default: ("off", TransactionReplay::Off),
        names: &[
            ("off", TransactionReplay::Off),
            ("on", TransactionReplay::On),
        ],
        later: &[],
    },
    meaning: "What becomes of a transaction whose server is lost before COMMIT was sent. `off`: error 1213 (40001). `on`: it is \
              run again on the new primary, and goes on if all answers are the same as before; else error 1213.",
};

pub(super) const TRANSACTION_REPLAY_SIZE: Key<Size> = Key {
    path: "cluster.transaction_replay_size",
    kind: Size {
        default: 1 << 20,
        min: 1 << 10,
        max: 1 << 30,
    },
    meaning: "The longest transaction that is kept for that, in bytes of its statements.",
};

pub(super) const ADMINISTRATION: Key<Choice<Administration>> = Key {
    path: "cluster.administration",
    kind: Choice {
        default: ("refuse", Administration::Refuse),
        names: &[
            ("refuse", Administration::Refuse),
            ("allow", Administration::Allow),
        ],
        later: &[],
    },
    meaning: "What becomes of statements that change what the primary is to its replicas, such as `STOP REPLICA`, \
              `RESET BINARY LOGS`, `SET GLOBAL read_only` or `SHUTDOWN`. `refuse`: error 1290. `allow`: the primary \
              runs them, if the account may.",
};

pub(super) const FAILOVER: Key<Choice<Failover>> = Key {
    path: "cluster.failover",
    kind: Choice {
        default: ("off", Failover::Off),
        names: &[
            ("automatic", Failover::Automatic),
            ("manual", Failover::Manual),
            ("off", Failover::Off),
        ],
        later: &[],
    },
    meaning: "Who replaces a primary that has failed. `automatic`: dbproxy. `manual`: dbproxy, when an operator says so. `off`: \
              somebody else; dbproxy follows what it finds, and changes nothing on the servers.",
};

pub(super) const MAX_LOSS: Key<Count> = Key {
    path: "cluster.max_loss",
    kind: Count {
        default: 1000,
        min: 0,
        max: 1_000_000_000,
    },
    meaning: "So many transactions that were committed may be missing on the new primary without an operator's word. Replication \
              that is not semi-synchronous cannot promise none.",
};

pub(super) const REJOIN: Key<Choice<Rejoin>> = Key {
    path: "cluster.rejoin",
    kind: Choice {
        default: ("automatic", Rejoin::Automatic),
        names: &[("automatic", Rejoin::Automatic), ("manual", Rejoin::Manual)],
        later: &[],
    },
    meaning: "Whether a server that came back is made a replica of the primary without being asked, if it has nothing that the \
              primary does not have.",
};

pub(super) const REPLICATION_USER: Key<Own<Text>> = Key {
    path: "cluster.replication_user",
    kind: Own {
        kind: Text { default: None },
        otherwise: "what a replica has already",
    },
    meaning: "The account by which replicas log in to the primary.",
};

pub(super) const REPLICATION_PASSWORD: Key<Own<Password>> = Key {
    path: "cluster.replication_password",
    kind: Own {
        kind: Password,
        otherwise: "what a replica has already",
    },
    meaning: "Its password.",
};

const PROGRAM: Own<Program> = Own {
    kind: Program,
    otherwise: "none",
};

pub(super) const HOOK_FENCE: Key<Own<Program>> = Key {
    path: "cluster.hooks.fence",
    kind: PROGRAM,
    meaning: "A program that makes sure that a primary that does not answer is off (its power, its port of the switch) before \
              another one takes over. Status 0 says that it is. It is told the case as JSON on its standard input.",
};

pub(super) const HOOK_BEFORE_PROMOTE: Key<Own<Program>> = Key {
    path: "cluster.hooks.before_promote",
    kind: PROGRAM,
    meaning: "A program that is run before a server becomes the primary; another status than 0 ends the plan.",
};

pub(super) const HOOK_AFTER_PROMOTE: Key<Own<Program>> = Key {
    path: "cluster.hooks.after_promote",
    kind: PROGRAM,
    meaning: "A program that is run when a server has become the primary, such as one that moves an address.",
};

pub(super) const HOOK_TIMEOUT: Key<Span> = Key {
    path: "cluster.hooks.timeout",
    kind: Span {
        default: secs(30),
        min: millis(100),
        max: secs(3600),
    },
    meaning: "A program that has not ended after this is killed, and has failed.",
};

pub(super) const SERVER_PROMOTE: Key<Choice<Promote>> = Key {
    path: "cluster.server[].promote",
    kind: Choice {
        default: ("yes", Promote::Yes),
        names: &[
            ("prefer", Promote::Prefer),
            ("yes", Promote::Yes),
            ("avoid", Promote::Avoid),
            ("never", Promote::Never),
        ],
        later: &[],
    },
    meaning: "Whether the server may become the primary: of several that have the same data the first of these words counts.",
};

const COMPRESSION: Choice<ServerCompression> = Choice {
    default: ("off", ServerCompression::Off),
    names: &[
        ("off", ServerCompression::Off),
        ("zlib", ServerCompression::Zlib),
        ("zstd", ServerCompression::Zstd),
    ],
    later: &[],
};

pub(super) const CLUSTER_COMPRESSION: Key<Choice<ServerCompression>> = Key {
    path: "cluster.compression",
    kind: COMPRESSION,
    meaning: "How connections to the servers are compressed, where a server offers it (MariaDB has no `zstd`).",
};

pub(super) const SERVER_COMPRESSION: Key<Own<Choice<ServerCompression>>> = Key {
    path: "cluster.server[].compression",
    kind: Own {
        kind: COMPRESSION,
        otherwise: "`cluster.compression`",
    },
    meaning: "The same for this server.",
};

const PROXY_PROTOCOL_SENT: Choice<ProxyProtocol> = Choice {
    default: ("off", ProxyProtocol::Off),
    names: &[("off", ProxyProtocol::Off), ("on", ProxyProtocol::On)],
    later: &[],
};

pub(super) const CLUSTER_PROXY_PROTOCOL: Key<Choice<ProxyProtocol>> = Key {
    path: "cluster.proxy_protocol",
    kind: PROXY_PROTOCOL_SENT,
    meaning: "Whether servers are told the client's address by the PROXY protocol (version 2), and choose the account by it. \
              MariaDB only: dbproxy's own address must be in the servers' `proxy_protocol_networks`.",
};

pub(super) const SERVER_PROXY_PROTOCOL: Key<Own<Choice<ProxyProtocol>>> = Key {
    path: "cluster.server[].proxy_protocol",
    kind: Own {
        kind: PROXY_PROTOCOL_SENT,
        otherwise: "`cluster.proxy_protocol`",
    },
    meaning: "The same for this server.",
};

pub(super) const SERVER_NAME: Key<Own<Parsed<String>>> = Key {
    path: "cluster.server[].name",
    kind: Own {
        kind: Parsed {
            described: "string of letters, digits, `.`, `_`, `-`",
            parse: server_name,
        },
        otherwise: "the address",
    },
    meaning: "The server's name in logs and reasons.",
};

pub(super) const SERVER_ADDRESS: Key<Parsed<ServerAddress>> = Key {
    path: "cluster.server[].address",
    kind: Parsed {
        described: "`host:port`, `host`, `[IPv6]:port`, `unix:/path`",
        parse: ServerAddress::parse,
    },
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

pub(super) const SERVER_GROUP: Key<Own<Parsed<String>>> = Key {
    path: "cluster.server[].group",
    kind: Own {
        kind: Parsed {
            described: "string of letters, digits, `.`, `_`, `-`",
            parse: server_name,
        },
        otherwise: "none",
    },
    meaning: "The name of a group that the server belongs to, for hints and rules.",
};

pub(super) const SERVER_ZONE: Key<Own<Parsed<String>>> = Key {
    path: "cluster.server[].zone",
    kind: ZONES,
    meaning: "Where the server is, such as a data centre.",
};

pub(super) const SERVER_TLS: Key<Own<Choice<ServerMode>>> = Key {
    path: "cluster.server[].tls",
    kind: Own {
        kind: SERVER_MODES,
        otherwise: "`tls.server.mode`",
    },
    meaning: "How this server is spoken to.",
};

const NAMES: Several<Glob> = Several {
    described: "name with `*`",
    parse: Glob::parse,
    otherwise: "none",
};

pub(super) const SERVES_SERVER_NAMES: Key<Several<Glob>> = Key {
    path: "clusters.NAME.server_names",
    kind: NAMES,
    meaning: "A further cluster, which has all keys of `cluster` but `name`. It serves sessions of clients that ask for \
              this name by TLS (SNI);",
};

pub(super) const SERVES_ACCOUNTS: Key<Several<Glob>> = Key {
    path: "clusters.NAME.accounts",
    kind: NAMES,
    meaning: "else those of these users;",
};

pub(super) const SERVES_SCHEMAS: Key<Several<Glob>> = Key {
    path: "clusters.NAME.schemas",
    kind: NAMES,
    meaning: "else those that begin in these schemas. All others belong to `[cluster]`.",
};

pub(super) const USER_PASSWORD: Key<Password> = Key {
    path: "users.NAME.password",
    kind: Password,
    meaning: "The account's password on the servers. Only for accounts that dbproxy cannot read \
              from them.",
};

pub(super) const CLIENT_COMPRESSION: Key<Choice<ClientCompression>> = Key {
    path: "compression.client",
    kind: Choice {
        default: ("on", ClientCompression::On),
        names: &[
            ("on", ClientCompression::On),
            ("off", ClientCompression::Off),
        ],
        later: &[],
    },
    meaning: "Whether clients that want compression get it: zlib, and from MySQL's family zstd too. \
              If it is `off`, a client that compresses all the same is refused.",
};

pub(super) const ZLIB_LEVEL: Key<Count> = Key {
    path: "compression.zlib_level",
    kind: Count {
        default: 6,
        min: 1,
        max: 9,
    },
    meaning: "How hard dbproxy tries with zlib; 1 is the fastest.",
};

pub(super) const ZSTD_LEVEL: Key<Count> = Key {
    path: "compression.zstd_level",
    kind: Count {
        default: 3,
        min: 1,
        max: 22,
    },
    meaning: "The same for zstd. Servers are asked for this level; clients get the level that they ask for, at most this one.",
};

pub(super) const TLS_CLIENT_MODE: Key<Choice<ClientMode>> = Key {
    path: "tls.client.mode",
    kind: Choice {
        default: ("optional", ClientMode::Optional),
        names: &[
            ("disabled", ClientMode::Disabled),
            ("optional", ClientMode::Optional),
            ("required", ClientMode::Required),
        ],
        later: &[],
    },
    meaning: "Whether clients are offered TLS, and whether they have to use it; a unix socket is as good.",
};

pub(super) const TLS_CLIENT_CERTIFICATE: Key<Own<FilePath>> = Key {
    path: "tls.client.certificate",
    kind: Own {
        kind: FilePath,
        otherwise: "one that dbproxy makes",
    },
    meaning: "The certificate that clients see (PEM), and behind it those that lead to the authority. \
              Read again when it changes.",
};

pub(super) const TLS_CLIENT_KEY: Key<Own<FilePath>> = Key {
    path: "tls.client.key",
    kind: Own {
        kind: FilePath,
        otherwise: "one that dbproxy makes",
    },
    meaning: "Its private key (PEM).",
};

pub(super) const TLS_CLIENT_CA: Key<Own<FilePath>> = Key {
    path: "tls.client.ca",
    kind: Own {
        kind: FilePath,
        otherwise: "none",
    },
    meaning: "The authorities (PEM) whose certificates clients may show. Needed for accounts with `REQUIRE X509`, \
              `SUBJECT` or `ISSUER`.",
};

const SERVER_MODES: Choice<ServerMode> = Choice {
    default: ("preferred", ServerMode::Preferred),
    names: &[
        ("disabled", ServerMode::Disabled),
        ("preferred", ServerMode::Preferred),
        ("required", ServerMode::Required),
        ("verify-ca", ServerMode::VerifyCa),
        ("verify-identity", ServerMode::VerifyIdentity),
    ],
    later: &[],
};

pub(super) const TLS_SERVER_MODE: Key<Choice<ServerMode>> = Key {
    path: "tls.server.mode",
    kind: SERVER_MODES,
    meaning: "How servers are spoken to. `preferred`: with TLS if the server offers it and is not on this machine, or \
              if the account needs it. `required`: with TLS, whatever the certificate. `verify-ca`: it must be signed by \
              `tls.server.ca`. `verify-identity`: and be for the name or address in the configuration. Never on a unix socket.",
};

pub(super) const TLS_SERVER_CA: Key<Own<FilePath>> = Key {
    path: "tls.server.ca",
    kind: Own {
        kind: FilePath,
        otherwise: "none",
    },
    meaning: "The authorities (PEM) that sign the servers' certificates.",
};

pub(super) const TLS_SERVER_CERTIFICATE: Key<Own<FilePath>> = Key {
    path: "tls.server.certificate",
    kind: Own {
        kind: FilePath,
        otherwise: "none",
    },
    meaning: "The certificate (PEM) that dbproxy shows to servers, for accounts with `REQUIRE X509`.",
};

pub(super) const TLS_SERVER_KEY: Key<Own<FilePath>> = Key {
    path: "tls.server.key",
    kind: Own {
        kind: FilePath,
        otherwise: "none",
    },
    meaning: "Its private key (PEM).",
};

pub(super) const STATE_DIRECTORY: Key<Own<FilePath>> = Key {
    path: "state_directory",
    kind: Own {
        kind: FilePath,
        otherwise: "`/var/lib/dbproxy`, if it can be written",
    },
    meaning: "Where dbproxy keeps what it makes itself: the certificate for clients that it makes at its first start \
              if none is given, what it observes (`mode`), and `control.sock` for `dbproxy admin`.",
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

pub(super) const ADDRESS_CONNECTIONS: Key<Own<Count>> = Key {
    path: "limits.address_connections",
    kind: Own {
        kind: UP_TO_A_MILLION,
        otherwise: "no limit",
    },
    meaning: "Clients from one address (IPv6: one network of 64 bits). One more gets error 1040.",
};

pub(super) const ACCOUNT_CONNECTIONS: Key<Own<Count>> = Key {
    path: "limits.account_connections",
    kind: Own {
        kind: UP_TO_A_MILLION,
        otherwise: "no limit",
    },
    meaning: "Sessions of one account. One more gets error 1203.",
};

const UP_TO_A_MILLION: Count = Count {
    default: 1,
    min: 1,
    max: 1_000_000,
};

pub(super) const LOGINS: Key<Count> = Key {
    path: "limits.logins",
    kind: Count {
        default: 5_000,
        min: 1,
        max: 1_000_000,
    },
    meaning: "Clients that are not logged in yet. One more takes the place of the one that has waited longest, \
              among those of the address that has most of them.",
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

pub(super) const CONNECTION_AGE: Key<Span> = Key {
    path: "limits.connection_age",
    kind: Span {
        default: secs(3_600),
        min: secs(1),
        max: secs(7 * 86_400),
    },
    meaning: "How long a server connection is used; each up to a fifth less, so that they do not all end at once. One that a \
              session is tied to is used on.",
};

pub(super) const WARM: Key<Count> = Key {
    path: "limits.warm",
    kind: Count {
        default: 0,
        min: 0,
        max: 1_000,
    },
    meaning: "Unused connections that are kept ready on each server for each account that has used it within the last hour, within \
              `limits.server_connections`.",
};

pub(super) const READ_TIMEOUT: Key<Span> = Key {
    path: "limits.read_timeout",
    kind: Span {
        default: secs(30),
        min: millis(100),
        max: secs(3_600),
    },
    meaning: "How long a client may pause in the middle of what it sends. Between commands its `wait_timeout` counts.",
};

pub(super) const WRITE_TIMEOUT: Key<Span> = Key {
    path: "limits.write_timeout",
    kind: Span {
        default: secs(60),
        min: millis(100),
        max: secs(3_600),
    },
    meaning: "How long a client may take nothing of what is sent to it.",
};

pub(super) const ABANDONED: Key<Span> = Key {
    path: "limits.abandoned",
    kind: Span {
        default: secs(5),
        min: millis(1),
        max: secs(3_600),
    },
    meaning: "How long a read goes on for a client that has closed its side. Writes run to their end.",
};

pub(super) const RESET_ON_PING: Key<Own<Span>> = Key {
    path: "limits.reset_on_ping",
    kind: Own {
        kind: Span {
            default: secs(30),
            min: millis(1),
            max: secs(86_400),
        },
        otherwise: "never",
    },
    meaning: "A client that sends COM_PING after it was idle for so long begins anew, as with COM_RESET_CONNECTION, but for the \
              character set of its login: for persistent connections of PHP, which PDO asks that way before another request \
              uses them. An open transaction is rolled back. A client that pings to keep its connection alive must not be \
              idle for so long.",
};

pub(super) const CACHE: Key<Size> = Key {
    path: "limits.cache",
    kind: Size {
        default: 64 << 20,
        min: 1 << 20,
        max: 64 << 30,
    },
    meaning: "Memory for answers that rules keep. Those used least go first.",
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
    &LISTEN_MYSQL_TLS,
    &PROXY_PROTOCOL,
    &MONITOR_USER,
    &MONITOR_PASSWORD,
    &MONITOR_INTERVAL,
    &MONITOR_HEARTBEAT,
    &CLUSTER_NAME,
    &SERVERS,
    &CONSISTENCY,
    &MONOTONIC_READS,
    &REPLICA_WAIT,
    &MAX_LAG,
    &BALANCE,
    &SLOW_START,
    &HEDGED_READS,
    &ZONE,
    &READ_ONLY_TRANSACTIONS,
    &TRANSACTION_REPLAY,
    &TRANSACTION_REPLAY_SIZE,
    &ADMINISTRATION,
    &FAILOVER,
    &MAX_LOSS,
    &REJOIN,
    &REPLICATION_USER,
    &REPLICATION_PASSWORD,
    &HOOK_FENCE,
    &HOOK_BEFORE_PROMOTE,
    &HOOK_AFTER_PROMOTE,
    &HOOK_TIMEOUT,
    &CLUSTER_COMPRESSION,
    &CLUSTER_PROXY_PROTOCOL,
    &SERVER_NAME,
    &SERVER_ADDRESS,
    &SERVER_WEIGHT,
    &SERVER_GROUP,
    &SERVER_ZONE,
    &SERVER_PROMOTE,
    &SERVER_COMPRESSION,
    &SERVER_PROXY_PROTOCOL,
    &SERVER_TLS,
    &SERVES_SERVER_NAMES,
    &SERVES_ACCOUNTS,
    &SERVES_SCHEMAS,
    &rule::NAME,
    &rule::ACCOUNT,
    &rule::CLIENT,
    &rule::LISTENER,
    &rule::APPLICATION,
    &rule::SCHEMA,
    &rule::TABLE,
    &rule::KIND,
    &rule::TAG,
    &rule::DIGEST,
    &rule::PATTERN,
    &rule::TIME,
    &rule::SAMPLE,
    &rule::ROUTE,
    &rule::MIRROR,
    &rule::CONSISTENCY,
    &rule::MAX_LAG,
    &rule::TIMEOUT,
    &rule::REWRITE,
    &rule::ANSWER,
    &rule::BLOCK,
    &rule::PER_SECOND,
    &rule::CONCURRENCY,
    &rule::ROWS,
    &rule::BYTES,
    &rule::PER,
    &rule::CACHE,
    &rule::PRIORITY,
    &rule::FIREWALL,
    &rule::LOG,
    &rule::CONTINUE,
    &USER_PASSWORD,
    &CLIENT_COMPRESSION,
    &ZLIB_LEVEL,
    &ZSTD_LEVEL,
    &TLS_CLIENT_MODE,
    &TLS_CLIENT_CERTIFICATE,
    &TLS_CLIENT_KEY,
    &TLS_CLIENT_CA,
    &TLS_SERVER_MODE,
    &TLS_SERVER_CA,
    &TLS_SERVER_CERTIFICATE,
    &TLS_SERVER_KEY,
    &HOLD,
    &CONNECTIONS,
    &ADDRESS_CONNECTIONS,
    &ACCOUNT_CONNECTIONS,
    &LOGINS,
    &SERVER_CONNECTIONS,
    &QUEUE_DEPTH,
    &QUEUE_WAIT,
    &LOGIN,
    &IDLE,
    &CONNECTION_AGE,
    &WARM,
    &READ_TIMEOUT,
    &WRITE_TIMEOUT,
    &ABANDONED,
    &RESET_ON_PING,
    &DRAIN,
    &CACHE,
    &LEVEL,
    &FORMAT,
    &MODE,
    &OBSERVE_SAMPLE,
    &WORKERS,
    &STATE_DIRECTORY,
];

/// Keys that the design knows and this version does not: they get a better answer than "unknown".
pub(super) const LATER: &[&str] = &["listen.admin", "listen.http"];
