//! Configuration: one TOML file, checked whole, and the typed result.
//!
//! [`load`] reads a file, [`parse`] a text. Both report every problem at once ([`Problems`]), each with its place, its
//! key and, where there is one, a suggestion. What comes out is plain data: whoever holds a [`Config`] need not check
//! it again.

mod address;
mod check;
mod difference;
mod file;
#[doc(hidden)]
pub mod fuzz;
mod keys;
mod kind;
mod problem;
mod reference;
pub mod rule;
mod secret;
mod tls;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address::{ListenAddress, Network, ServerAddress};
pub use check::{fits, parse};
pub use difference::Difference;
pub use file::{FileMark, Process, load};
pub use kind::closest;
pub use problem::{Loaded, Problem, Problems, Severity};
pub use reference::reference;
pub use rule::{Glob, Rule};
pub use secret::{Secret, SecretFile, Sources};
pub use tls::{ClientMode, ClientTls, Identity, ServerMode, ServerTls, Tls};
pub use units::parse as duration;

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect.
    pub listen: Listen,
    /// How the servers are watched.
    pub monitor: Monitor,
    /// The servers and how reads are spread over them.
    pub cluster: Cluster,
    /// Further clusters, each for sessions of its own.
    pub clusters: Vec<Cluster>,
    /// What is to be done with some statements, in the order in which they are tried.
    pub rules: Vec<Rule>,
    /// Accounts with a password of their own; every other account is read from the servers.
    pub users: BTreeMap<String, User>,
    /// Compression, to clients and to servers.
    pub compression: Compression,
    /// TLS on both sides.
    pub tls: Tls,
    /// Limits of time and number.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: Log,
    /// What becomes of statements.
    pub mode: Mode,
    /// What [`Mode::Observe`] does besides.
    pub observe: Observe,
    /// Where the proxy keeps what it makes itself; `None` means [`Config::STATE_DIRECTORY`] if it can be written.
    pub state_directory: Option<PathBuf>,
    /// Worker threads; at least 1.
    pub workers: usize,
}

impl Config {
    /// All clusters, `[cluster]` first.
    pub fn all_clusters(&self) -> impl Iterator<Item = &Cluster> + Clone {
        std::iter::once(&self.cluster).chain(&self.clusters)
    }

    /// The same configuration with another cluster of it as its own.
    #[must_use]
    pub fn with_cluster(&self, cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            ..self.clone()
        }
    }

    /// Takes over from another configuration what can be changed while the program runs. Clusters that are not in both stay as
    /// they are.
    pub fn take_policy_of(&mut self, other: &Self) {
        self.cluster.take_policy_of(&other.cluster);
        for cluster in &mut self.clusters {
            let mut others = other.clusters.iter();
            if let Some(other) = others.find(|other| other.name == cluster.name) {
                cluster.take_policy_of(other);
            }
        }
        self.rules = other.rules.clone();
    }

    /// The usual place for what a program keeps.
    pub const STATE_DIRECTORY: &str = "/var/lib/dbproxy";

    /// Where the proxy keeps what it makes itself.
    pub fn state_directory(&self) -> &Path {
        let configured = self.state_directory.as_deref();
        configured.unwrap_or_else(|| Path::new(Self::STATE_DIRECTORY))
    }
}

/// What becomes of statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// They go where they belong.
    #[default]
    Route,
    /// They go to the primary, and it is recorded where they would have gone.
    Observe,
}

/// What [`Mode::Observe`] does besides recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observe {
    /// The share, from 0 to 1, of the reads for replicas that run there as well to be compared.
    pub sample: f64,
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Addresses that speak the MySQL protocol; no duplicates.
    pub mysql: Vec<ListenAddress>,
    /// The same, where TLS is required whatever [`ClientTls::mode`] says; no duplicates, none of the others.
    pub mysql_tls: Vec<ListenAddress>,
    /// Whose connections begin with a PROXY header; those of others do not.
    pub proxy_protocol: Vec<Network>,
}

/// The account that watches the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Its name on every server; never empty.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Time from one probe of a server to the next; never zero.
    pub interval: Duration,
    /// Whether lag is measured with heartbeats.
    pub heartbeat: Heartbeat,
}

/// Whether lag is measured with heartbeats: a row of a table that dbproxy changes on the primary and looks for on the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Heartbeat {
    /// If the table is there, and the monitor's account may write to it.
    #[default]
    Auto,
    /// It is not.
    Off,
}

/// A replication cluster: the servers that hold the same data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its place among all clusters; 0 for `[cluster]`.
    pub number: u8,
    /// Whose sessions it serves; `[cluster]` serves all that no other does.
    pub serves: Serves,
    /// The name that logs and metrics show.
    pub name: String,
    /// Never empty; names and addresses are unique.
    pub servers: Vec<ServerConfig>,
    /// What a read must at least have seen.
    pub consistency: Consistency,
    /// Who never reads anything older than what was read before.
    pub monotonic_reads: MonotonicReads,
    /// How long a read may wait for a replica to have what it must see; zero: not at all.
    pub replica_wait: Duration,
    /// A replica that is further behind gets no reads; never zero.
    pub max_lag: Duration,
    /// How one of several eligible replicas is chosen.
    pub balance: Balance,
    /// How long a replica that has just come gets less than its share.
    pub slow_start: Duration,
    /// The part of the reads, in thousandths, that may be asked of a second replica when the first takes long.
    pub hedged_reads: u32,
    /// Where transactions run that only read.
    pub read_only_transactions: ReadOnlyTransactions,
    /// What becomes of transactions whose server is lost.
    pub transaction_replay: TransactionReplay,
    /// The longest transaction that is run again, in bytes of its statements.
    pub transaction_replay_size: u64,
    /// What becomes of statements that would break the cluster.
    pub administration: Administration,
    /// Who replaces a primary that has failed.
    pub failover: Failover,
    /// So many committed transactions may be missing on a new primary without an operator's word.
    pub max_loss: u64,
    /// Whether servers that came back are made replicas without being asked.
    pub rejoin: Rejoin,
    /// The account by which replicas log in to the primary; `None`: only what each replica has already.
    pub replication: Option<Account>,
    /// Programs that are run when the primary changes.
    pub hooks: Hooks,
    /// How connections to the servers are compressed.
    pub compression: ServerCompression,
    /// Whether the servers are told where clients are.
    pub proxy_protocol: ProxyProtocol,
}

/// Who replaces a primary that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Failover {
    /// This program, by itself.
    Automatic,
    /// This program, when an operator says so.
    Manual,
    /// Somebody else.
    #[default]
    Off,
}

/// Whether servers that came back are made replicas without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rejoin {
    /// They are, if they have nothing of their own.
    #[default]
    Automatic,
    /// Only when an operator says so.
    Manual,
}

/// Programs of the operator's that are run when the primary changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Makes sure that an old primary is off.
    pub fence: Option<PathBuf>,
    /// Before a server is promoted.
    pub before_promote: Option<PathBuf>,
    /// After that.
    pub after_promote: Option<PathBuf>,
    /// Each of them has so long.
    pub timeout: Duration,
}

/// Whether a server may become the primary; the first of these before the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Promote {
    /// Rather than others that have the same data.
    Prefer,
    /// It may.
    #[default]
    Yes,
    /// If there is no other.
    Avoid,
    /// Never by itself.
    Never,
}

/// An account on the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// Whose sessions a cluster serves: those that one of these fits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Serves {
    /// The name that the client asked for by TLS.
    pub server_names: Vec<Glob>,
    /// The user's name.
    pub accounts: Vec<Glob>,
    /// The schema that the session begins with.
    pub schemas: Vec<Glob>,
}

impl Cluster {
    fn take_policy_of(&mut self, other: &Self) {
        self.consistency = other.consistency;
        self.monotonic_reads = other.monotonic_reads;
        self.replica_wait = other.replica_wait;
        self.balance = other.balance;
        self.slow_start = other.slow_start;
        self.hedged_reads = other.hedged_reads;
        self.read_only_transactions = other.read_only_transactions;
        self.transaction_replay = other.transaction_replay;
        self.transaction_replay_size = other.transaction_replay_size;
        self.administration = other.administration;
    }

    /// How connections to one of its servers are compressed, if it offers that.
    pub fn compression_of(&self, server: &ServerConfig) -> ServerCompression {
        server.compression.unwrap_or(self.compression)
    }

    /// Whether one of its servers is told where clients are.
    pub fn proxy_protocol_of(&self, server: &ServerConfig) -> ProxyProtocol {
        server.proxy_protocol.unwrap_or(self.proxy_protocol)
    }
}

/// One configured server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerConfig {
    /// Its name in logs, hints and metrics; the address if none was given.
    pub name: String,
    /// Where it listens.
    pub address: ServerAddress,
    /// Its share of the reads relative to the other replicas; at least 1.
    pub weight: u32,
    /// Those that hints and rules name together.
    pub group: Option<String>,
    /// It is where this program is.
    pub near: bool,
    /// Whether it may become the primary.
    pub promote: Promote,
    /// How connections to it are compressed, if it offers that; `None`: as the cluster's.
    pub compression: Option<ServerCompression>,
    /// Whether it is told where clients are; `None`: as the cluster's.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How it is spoken to; [`ServerTls::mode`] if it does not say.
    pub tls: Option<ServerMode>,
}

impl ServerConfig {
    /// A server with everything else as it is by default.
    pub fn new(name: impl Into<String>, address: ServerAddress) -> Self {
        Self {
            name: name.into(),
            address,
            weight: 1,
            group: None,
            near: false,
            promote: Promote::default(),
            compression: None,
            proxy_protocol: None,
            tls: None,
        }
    }
}

/// Compression, to clients and to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// Whether clients may have it.
    pub client: ClientCompression,
    /// 1 to 9.
    pub zlib_level: u8,
    /// 1 to 22.
    pub zstd_level: u8,
}

/// Whether clients may have compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientCompression {
    /// Those that want it.
    #[default]
    On,
    /// Nobody.
    Off,
}

/// How connections to a server are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ServerCompression {
    /// Not at all.
    #[default]
    Off,
    /// By zlib.
    Zlib,
    /// By zstd.
    Zstd,
}

/// Whether a server is told where clients are, by a header in front of each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ProxyProtocol {
    /// It sees the proxy's address.
    #[default]
    Off,
    /// It sees the client's address.
    On,
}

/// What a read must at least have seen before a replica may answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Consistency {
    /// Nothing: any replica within `max_lag`.
    Eventual,
    /// Every write of the same connection.
    Connection,
    /// Every write of the same account, from whichever connection.
    #[default]
    User,
    /// Every write that went through this program.
    Global,
    /// Everything: reads go to the primary.
    Strong,
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eventual => "eventual",
            Self::Connection => "connection",
            Self::User => "user",
            Self::Global => "global",
            Self::Strong => "strong",
        })
    }
}

/// Who never reads anything older than what was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MonotonicReads {
    /// Nobody.
    Off,
    /// Each connection, and all that have the same key.
    #[default]
    Connection,
}

/// How one of several eligible replicas is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Balance {
    /// As the next, but replicas that answer more slowly than others, or not at all, get less.
    #[default]
    Latency,
    /// The freer one of two that are drawn by weight.
    LeastConnections,
    /// One after the other, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// Each session has its own, by weight.
    Sticky,
}

/// Where transactions run that only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReadOnlyTransactions {
    /// On the primary, as all others; a hint may send one to a replica.
    #[default]
    Primary,
    /// On one replica.
    Replica,
}

/// What becomes of a transaction whose server is lost before it was to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TransactionReplay {
    /// The client is told.
    #[default]
    Off,
    /// It is run again.
    On,
}

/// What becomes of statements that change what a server is to its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Administration {
    /// The client gets an error.
    #[default]
    Refuse,
    /// The primary runs them.
    Allow,
}

/// An account whose password stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What clients prove, and what dbproxy logs in to the servers with.
    pub password: Secret,
}

/// Limits of time and number; none is zero but `warm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long a statement waits for a server that can run it.
    pub hold: Duration,
    /// Clients in all; one more gets error 1040.
    pub connections: usize,
    /// Clients from one address; one more gets error 1040.
    pub address_connections: Option<usize>,
    /// Sessions of one account; one more gets error 1203.
    pub account_connections: Option<usize>,
    /// Clients that are not logged in yet; one more takes the place of another.
    pub logins: usize,
    /// Connections to one server, over all workers; beyond it only a few short ones that check a password or end a query.
    pub server_connections: usize,
    /// Statements that may wait for a connection to one server.
    pub queue_depth: usize,
    /// How long a statement may wait in that queue.
    pub queue_wait: Duration,
    /// How long a client, or a server, may take to complete a login.
    pub login: Duration,
    /// How long an unused server connection is kept.
    pub idle: Duration,
    /// How long a server connection is used.
    pub connection_age: Duration,
    /// Unused connections kept for each account and server; 0 for none.
    pub warm: usize,
    /// How long a client may pause in the middle of a command or a file.
    pub read_timeout: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub write_timeout: Duration,
    /// How long a read goes on for a client that has closed its side.
    pub abandoned: Duration,
    /// A ping after so long begins a session anew.
    pub reset_on_ping: Option<Duration>,
    /// How long a stop waits for running statements.
    pub drain: Duration,
    /// Bytes for answers that rules keep.
    pub cache: u64,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A filter in `tracing_subscriber::EnvFilter` syntax, known to parse.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hold: keys::HOLD.kind.default,
            connections: keys::CONNECTIONS.kind.default,
            address_connections: None,
            account_connections: None,
            logins: keys::LOGINS.kind.default,
            server_connections: keys::SERVER_CONNECTIONS.kind.default,
            queue_depth: keys::QUEUE_DEPTH.kind.default,
            queue_wait: keys::QUEUE_WAIT.kind.default,
            login: keys::LOGIN.kind.default,
            idle: keys::IDLE.kind.default,
            connection_age: keys::CONNECTION_AGE.kind.default,
            warm: keys::WARM.kind.default,
            read_timeout: keys::READ_TIMEOUT.kind.default,
            write_timeout: keys::WRITE_TIMEOUT.kind.default,
            abandoned: keys::ABANDONED.kind.default,
            reset_on_ping: None,
            drain: keys::DRAIN.kind.default,
            cache: keys::CACHE.kind.default,
        }
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            fence: None,
            before_promote: None,
            after_promote: None,
            timeout: keys::HOOK_TIMEOUT.kind.default,
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            client: ClientCompression::default(),
            zlib_level: keys::ZLIB_LEVEL.kind.default as u8,
            zstd_level: keys::ZSTD_LEVEL.kind.default as u8,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: keys::LEVEL.kind.default.to_owned(),
            format: LogFormat::default(),
        }
    }
}
