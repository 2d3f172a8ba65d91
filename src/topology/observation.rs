//! What a probe saw: the evidence that the tracker folds.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::gtid::{GtidHistory, Position};
use tokio::time::Instant;

use super::filters::Filters;
use super::snapshot::ServerId;
use super::version::Version;

/// One probe of one server.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Which server.
    pub server: ServerId,
    /// When the probe was sent: what it saw is at least this recent.
    pub asked_at: Instant,
    /// When its result was complete.
    pub at: Instant,
    /// What it saw.
    pub result: Result<ServerFacts, ProbeError>,
}

/// Why a server takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteBlock {
    /// `read_only` is not OFF.
    ReadOnly,
    /// `super_read_only` is ON (MySQL).
    SuperReadOnly,
    /// `innodb_read_only` is ON.
    InnodbReadOnly,
    /// `offline_mode` is ON (MySQL): no ordinary account may log in.
    Offline,
}

impl Display for WriteBlock {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read_only",
            Self::SuperReadOnly => "super_read_only",
            Self::InnodbReadOnly => "innodb_read_only",
            Self::Offline => "offline_mode",
        })
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFacts {
    /// Family and version.
    pub version: Version,
    /// `@@server_uuid`; `None` on MariaDB.
    pub uuid: Option<Arc<str>>,
    /// `@@server_id`.
    pub server_id: u32,
    /// Why it takes no writes; `None` if it does.
    pub write_block: Option<WriteBlock>,
    /// `@@log_bin`.
    pub log_bin: bool,
    /// Does it name its transactions so that positions can be compared (MySQL: `gtid_mode=ON`; MariaDB: always)?
    pub gtid: bool,
    /// What it has executed, by whatever way (MySQL `gtid_executed`, MariaDB `gtid_current_pos`).
    pub executed: Option<Arc<Position>>,
    /// What it has executed as a replica (MySQL `gtid_executed`, MariaDB `gtid_slave_pos`): MariaDB's
    /// `gtid_current_pos` would count its own stray writes as the primary's.
    pub replicated: Option<Arc<Position>>,
    /// What its log holds of each server (MariaDB `gtid_binlog_state`); `None` on MySQL, whose sets tell it.
    pub history: Option<Arc<GtidHistory>>,
    /// Its replication connections, running or not.
    pub sources: Vec<SourceFacts>,
    /// What its log leaves out (`binlog_do_db`, `binlog_ignore_db`).
    pub unlogged: Arc<Filters>,
    /// When the newest of this dbproxy's own heartbeats was sent that it shows; `None` if it shows none.
    pub heartbeat: Option<Instant>,
    /// `@@global.collation_server`, its number as in the greeting.
    pub collation: u16,
    /// `@@global.sql_mode`.
    pub sql_mode: Arc<str>,
    /// What new sessions get.
    pub defaults: Defaults,
    /// Whether its log has what it executes as a replica (`log_replica_updates`).
    pub log_updates: bool,
    /// Whether its log has rows rather than statements (`binlog_format=ROW`).
    pub row_format: bool,
    /// Whether its scheduled events run (`event_scheduler=ON`).
    pub event_scheduler: bool,
    /// Whose reign it knows of; `None` if it has no such row, or the row cannot be read.
    pub epoch: Option<EpochRow>,
    /// The highest ballot that was left with it; 0 if there is none, or it cannot be read.
    pub ballot: u64,
    /// Whether commits wait for replicas.
    pub semi_sync: SemiSync,
    /// `Uptime`: seconds since it started.
    pub seconds_up: u64,
}

impl ServerFacts {
    /// A writable server that is set up as it should be, and of which nothing else is known.
    pub fn sound(version: Version, server_id: u32) -> Self {
        Self {
            version,
            uuid: None,
            server_id,
            write_block: None,
            log_bin: true,
            gtid: true,
            executed: None,
            replicated: None,
            history: None,
            sources: Vec::new(),
            unlogged: Arc::default(),
            heartbeat: None,
            collation: 45,
            sql_mode: "".into(),
            defaults: Defaults::default(),
            log_updates: true,
            row_format: true,
            event_scheduler: false,
            epoch: None,
            ballot: 0,
            semi_sync: SemiSync::default(),
            seconds_up: 0,
        }
    }

    /// What tells it from every other server: `@@server_uuid`, or on MariaDB `@@server_id`.
    pub fn identity(&self) -> Arc<str> {
        self.uuid
            .clone()
            .unwrap_or_else(|| self.server_id.to_string().into())
    }
}

/// The row of `dbproxy.epoch`, which replicates with the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRow {
    /// Number of the reign.
    pub epoch: u64,
    /// [Identity](ServerFacts::identity) of the primary that it began with.
    pub primary: Arc<str>,
}

/// Semi-synchronous replication; the default is a server without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SemiSync {
    /// Enabled for when it is a primary.
    pub source: bool,
    /// Enabled for when it is a replica.
    pub replica: bool,
    /// Its commits wait for replicas now.
    pub active: bool,
    /// It acknowledges what it receives now.
    pub replica_active: bool,
    /// Replicas that acknowledge.
    pub clients: u32,
    /// Sessions that wait for replicas now.
    pub waiting: u32,
    /// Replicas that a commit waits for.
    pub wait_for: u32,
    /// A commit that waited this long ends the waiting for all of them.
    pub timeout: Duration,
}

/// How the proxy's own writes on the primary fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteProbe {
    /// Where they are written; `None` while they are not.
    pub server: Option<ServerId>,
    /// When the last one there that succeeded was answered.
    pub last_ok: Option<Instant>,
    /// When the first of those was sent that had no answer since.
    pub pending_since: Option<Instant>,
}

/// Global variables of a server that hold for every new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// `wait_timeout`: how long a client may be idle.
    pub wait_timeout: Duration,
    /// `interactive_timeout`: the same for a client that calls itself interactive.
    pub interactive_timeout: Duration,
    /// `max_allowed_packet`: a command must be shorter.
    pub max_allowed_packet: usize,
}

impl Default for Defaults {
    /// As the servers are built.
    fn default() -> Self {
        Self {
            wait_timeout: Duration::from_secs(28_800),
            interactive_timeout: Duration::from_secs(28_800),
            max_allowed_packet: 64 << 20,
        }
    }
}

/// State of one replication thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThreadState {
    /// Running.
    Running,
    /// The receiver tries to reach its source.
    Connecting,
    /// Stopped, by an operator or an error.
    Stopped,
}

/// One replication connection of a replica.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceFacts {
    /// Name of the channel or connection; empty for the default one.
    pub channel: Arc<str>,
    /// Host it is configured with.
    pub host: Arc<str>,
    /// Port it is configured with.
    pub port: u16,
    /// `Source_UUID`; `None` on MariaDB and before the first contact.
    pub uuid: Option<Arc<str>>,
    /// `Source_Server_Id`; `None` before the first contact.
    pub server_id: Option<u32>,
    /// The receiver (IO thread).
    pub receiver: ThreadState,
    /// The applier (SQL thread).
    pub applier: ThreadState,
    /// `Seconds_Behind_Source`; `None` for NULL.
    pub behind: Option<Duration>,
    /// Configured delay.
    pub delay: Duration,
    /// What it leaves out.
    pub filters: Arc<Filters>,
    /// Why a thread stopped, or cannot connect: number and text; `None` without an error.
    pub error: Option<Arc<str>>,
    /// Why its applier has stopped: number and text; `None` without an error.
    pub applier_error: Option<Arc<str>>,
    /// What it has received, applied or not (MySQL `Retrieved_Gtid_Set`, which is not what it received before a restart;
    /// MariaDB `Gtid_IO_Pos`); `None` if it is empty.
    pub received: Option<Arc<Position>>,
    /// Heartbeats that its receiver got of the source; `None` if the server does not tell.
    pub heartbeats: Option<u64>,
    /// After how long without anything else its source sends one.
    pub heartbeat_period: Duration,
    /// How far it has read in the source's log: to be compared with what it was before, and nothing else.
    pub read_to: Arc<str>,
    /// Why its receiver has no contact to the source; `None` without an error.
    pub contact: Option<Contact>,
    /// Whether it finds its place in the source's log by GTID.
    pub auto_position: bool,
    /// How long the next transaction is still delayed; `None` if none is.
    pub remaining_delay: Option<Duration>,
}

impl SourceFacts {
    /// A connection that runs without lag, and of which nothing else is known.
    pub fn running(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self {
            channel: "".into(),
            host: host.into(),
            port,
            uuid: None,
            server_id: None,
            receiver: ThreadState::Running,
            applier: ThreadState::Running,
            behind: Some(Duration::ZERO),
            delay: Duration::ZERO,
            filters: Arc::default(),
            error: None,
            applier_error: None,
            received: None,
            heartbeats: None,
            heartbeat_period: Duration::from_secs(30),
            read_to: "".into(),
            contact: None,
            auto_position: true,
            remaining_delay: None,
        }
    }
}

/// A receiver's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// `Last_IO_Errno`.
    pub errno: u16,
    /// The operating system's error that its text names.
    pub system: Option<u32>,
}

/// Why a probe has no facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// Nobody listens there, or the connection was reset while it was made: the process is gone.
    Refused,
    /// No answer and no connection in time, or no way to the host. Once is not death.
    Timeout,
    /// No answer in time, although connections can be made: the process hangs or is stopped. Once is not death.
    Unresponsive,
    /// The connection was cut before the answer was complete.
    Closed,
    /// It answers, but has no connection left for the monitor.
    TooManyConnections,
    /// It answers, but refuses the monitor's account.
    AccessDenied(Arc<str>),
    /// It answers, but TLS with it, which has to be, is not possible.
    Tls(Arc<str>),
    /// It answers, but not with facts (a missing grant, an unknown family), or its name cannot be resolved.
    Other(Arc<str>),
}

impl Display for ProbeError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Unresponsive => f.write_str("accepts connections, but does not answer in time"),
            Self::Closed => f.write_str("connection closed by the server"),
            Self::TooManyConnections => f.write_str("too many connections"),
            Self::Tls(text) => write!(f, "no TLS with the server: {text}"),
            Self::AccessDenied(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ProbeError {}
