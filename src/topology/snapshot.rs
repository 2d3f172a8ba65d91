//! The picture of the servers at one moment.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::{capability::Capabilities, gtid::Position};
use tokio::time::Instant;

use super::filters::Filters;
use super::observation::Defaults;
use super::version::{Flavor, Version};
use crate::config::ServerAddress;

/// A server, by its place in the configured list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u16);

impl ServerId {
    /// A server by the number of its cluster and its place in there.
    pub fn new(cluster: u8, place: u8) -> Self {
        Self(u16::from(cluster) << 8 | u16::from(place))
    }

    /// The first servers of a cluster, as many as `count`. A configuration holds no more than an id can count.
    pub(super) fn first_of(cluster: u8, count: usize) -> impl Iterator<Item = Self> {
        (0..=u8::MAX)
            .take(count)
            .map(move |place| Self::new(cluster, place))
    }

    /// The place in [`Topology::servers`].
    pub fn index(self) -> usize {
        usize::from(self.0 & 0xFF)
    }

    /// The number of its cluster.
    pub fn cluster(self) -> usize {
        usize::from(self.0 >> 8)
    }
}

/// All servers at one moment. Immutable; a newer one replaces it whole.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Grows with each change of a role, of health, of eligibility for reads or of whether writes are taken; not
    /// with mere progress of positions and lag.
    pub epoch: u64,
    /// When this picture was made.
    pub at: Instant,
    /// In the order of the configuration, so that a [`ServerId`] is an index.
    pub servers: Vec<Server>,
    /// The one server that gets writes. It keeps the role while it is down or read-only, until another takes over:
    /// [`Topology::writable`] says whether it can run them now.
    pub primary: Option<ServerId>,
    /// The number of the primary's reign; `None` where nobody counts, and the primary is found by what the servers say.
    pub reign: Option<u64>,
    /// Whether sessions may write to the primary.
    pub gate: Gate,
    /// What to tell clients of the servers; `None` until one server has been seen.
    pub greeting: Option<Greeting>,
    /// Reads may be this much behind, unless a statement asks for less.
    pub max_lag: Duration,
}

/// Whether sessions may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Gate {
    /// They may.
    #[default]
    Open,
    /// Transactions that are open may end; nothing new begins.
    Draining,
    /// Nothing reaches the primary, and nothing that it still says reaches a client.
    Closed,
}

impl Display for Gate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Draining => "draining",
            Self::Closed => "closed",
        })
    }
}

/// Who the primary is, where that is not left to what the servers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decree {
    /// The primary.
    pub primary: ServerId,
    /// The number of its reign.
    pub epoch: u64,
    /// Whether sessions may write to it.
    pub gate: Gate,
}

/// What all servers have in common, for the greeting to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The lowest version seen of the primary's family.
    pub version: Version,
    /// What every server understands beyond what all versions do; nothing before all have been seen.
    pub extensions: Capabilities,
    /// Number of the default collation.
    pub collation: u16,
    /// Do all servers name their transactions, so that read-your-writes goes by position instead of by time?
    pub gtid: bool,
    /// `@@global.sql_mode`, with which sessions start.
    pub sql_mode: Arc<str>,
    /// The primary's limits for sessions.
    pub defaults: Defaults,
}

/// One server in the picture.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its place.
    pub id: ServerId,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: ServerAddress,
    /// Its share of the reads.
    pub weight: u32,
    /// Those that hints and rules name together.
    pub group: Option<Arc<str>>,
    /// Reads go there before they go to others.
    pub near: bool,
    /// What it is.
    pub role: Role,
    /// Does it answer?
    pub health: Health,
    /// Family and version; the last known while it is down.
    pub version: Option<Version>,
    /// `server_uuid`, or on MariaDB the `server_id`; another identity is another server at the same address.
    pub identity: Option<Arc<str>>,
    /// Grows whenever `position` went back or another server answers at the address: what was concluded from earlier
    /// positions does not hold any more, and connections made before lead elsewhere.
    pub incarnation: u32,
    /// Does it take writes (not `read_only`), as last seen?
    pub writable: bool,
    /// How far behind the primary it is; zero for the primary.
    pub lag: Lag,
    /// What it shows to a reader. Never more than it really has.
    pub position: Option<Arc<Position>>,
    /// When the probe that saw `position` was sent.
    pub asked_at: Option<Instant>,
    /// After this time it closes an idle connection.
    pub wait_timeout: Duration,
    /// What is left out on the way from the primary to it; empty if nothing is.
    pub filters: Vec<Arc<Filters>>,
    /// Configured delay of its replication.
    pub delay: Duration,
    /// Since when it has been serving reads; `None` while it does not.
    pub readable_since: Option<Instant>,
    /// What keeps it from reads whatever its lag is.
    pub barred: Option<Unreadable>,
    /// Role and state in words.
    pub why: Arc<str>,
}

/// What a server is for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Gets the writes. At most one server.
    Primary,
    /// Read-only and replicates.
    Replica,
    /// Takes writes but is not the primary: no traffic at all.
    Spare,
    /// Never seen, or read-only without a source.
    Unknown,
}

impl Display for Role {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Spare => "spare",
            Self::Unknown => "unknown",
        })
    }
}

/// Does a server answer?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does, or one answer is overdue.
    Up,
    /// Refused, or several probes without an answer.
    Down {
        /// When the first failed probe was sent.
        since: Instant,
        /// What the last probe got.
        error: Arc<str>,
    },
    /// Not yet seen.
    Unknown,
}

impl Health {
    /// Is it [`Health::Up`]?
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }
}

/// How old the data that a server shows is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// At most this.
    Known(Duration),
    /// The server does not know either.
    Unknown,
}

impl Display for Lag {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(lag) => write!(f, "{}.{:01} s", lag.as_secs(), lag.subsec_millis() / 100),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Why a server gets no reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It does not answer.
    Down,
    /// Nothing is known of it yet.
    NotSeen,
    /// Nobody has the primary's role yet, so nobody knows what fresh data is.
    NoPrimary,
    /// It takes writes but is not the primary.
    Spare,
    /// It is read-only and replicates from nobody.
    NoSource,
    /// It does not replicate from our primary.
    OtherSource,
    /// A server between it and the primary does not replicate.
    BrokenChain,
    /// Its receiver is stopped, or has been trying to connect for too long.
    ReceiverStopped,
    /// Its applier is stopped.
    ApplierStopped,
    /// The last good probe is too old.
    Stale,
    /// `offline_mode` is on.
    Offline,
    /// It does not know how far behind it is.
    LagUnknown,
    /// Its replication is delayed on purpose by more than is allowed.
    Delayed(Duration),
    /// It is further behind than is allowed.
    Lagging(Duration),
}

impl Unreadable {
    /// The kind without its measure: progress of the measure alone is no change.
    pub(super) fn kind(self) -> u8 {
        match self {
            Self::Down => 0,
            Self::NotSeen => 1,
            Self::Spare => 2,
            Self::NoSource => 3,
            Self::OtherSource => 4,
            Self::BrokenChain => 5,
            Self::ReceiverStopped => 6,
            Self::ApplierStopped => 7,
            Self::Stale => 8,
            Self::Offline => 9,
            Self::LagUnknown => 10,
            Self::Delayed(_) => 11,
            Self::Lagging(_) => 12,
            Self::NoPrimary => 13,
        }
    }
}

impl Display for Unreadable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("down"),
            Self::NotSeen => f.write_str("not seen yet"),
            Self::NoPrimary => f.write_str("no primary found yet"),
            Self::Spare => f.write_str("writable but not the primary"),
            Self::NoSource => f.write_str("replicates from nobody"),
            Self::OtherSource => f.write_str("does not replicate from the primary"),
            Self::BrokenChain => {
                f.write_str("a server between it and the primary does not replicate")
            }
            Self::ReceiverStopped => f.write_str("replication receiver not connected"),
            Self::ApplierStopped => f.write_str("replication applier stopped"),
            Self::Stale => f.write_str("no recent answer to the monitor"),
            Self::Offline => f.write_str("offline_mode is on"),
            Self::LagUnknown => f.write_str("lag unknown"),
            Self::Delayed(delay) => write!(f, "delayed on purpose by {} s", delay.as_secs()),
            Self::Lagging(lag) => write!(f, "{} behind", Lag::Known(*lag)),
        }
    }
}

impl Server {
    /// May this server answer reads that accept data up to `max_lag` old? If not, why not.
    ///
    /// The primary may whenever it is up. Whether it has a certain write is another question:
    /// see `accounts::Scope::is_fresh`.
    pub fn readable(&self, max_lag: Duration) -> Result<(), Unreadable> {
        if let Some(reason) = self.barred {
            return Err(reason);
        }
        if self.role == Role::Primary {
            return Ok(());
        }
        if self.delay > max_lag {
            return Err(Unreadable::Delayed(self.delay));
        }
        match self.lag {
            Lag::Unknown => Err(Unreadable::LagUnknown),
            Lag::Known(lag) if lag > max_lag => Err(Unreadable::Lagging(lag)),
            Lag::Known(_) => Ok(()),
        }
    }
}

impl Server {
    /// Whether it may lack tables that the primary has.
    pub fn is_filtered(&self) -> bool {
        !self.filters.is_empty()
    }

    /// Whether it surely has this table, if the primary has it.
    pub fn has_table(&self, schema: &str, table: &str) -> bool {
        self.filters
            .iter()
            .all(|filters| filters.copy(schema, table))
    }
}

impl Topology {
    /// The server with this id; `None` for an id of another cluster or configuration.
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers
            .get(id.index())
            .filter(|server| server.id == id)
    }

    /// The server with this name in the configuration.
    pub fn named(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| &*server.name == name)
    }

    /// The server that has the primary's role, up or not.
    pub fn primary(&self) -> Option<&Server> {
        self.primary.and_then(|id| self.server(id))
    }

    /// The primary, if it is up and takes writes now, and sessions may write; else statements for it have to wait.
    pub fn writable(&self) -> Option<&Server> {
        self.primary()
            .filter(|server| server.health.is_up() && server.writable && self.gate == Gate::Open)
    }

    /// Whether nothing may reach this server any more, and nothing that it says may reach a client.
    pub fn is_cut_off(&self, server: ServerId) -> bool {
        self.gate == Gate::Closed && self.primary == Some(server)
    }

    /// The replicas that may answer ordinary reads now.
    pub fn readable_replicas(&self) -> impl Iterator<Item = &Server> {
        self.servers
            .iter()
            .filter(|server| server.role == Role::Replica && server.readable(self.max_lag).is_ok())
    }

    /// Whether transactions of several domains run side by side, so that to have one says nothing of the others (MariaDB).
    pub fn has_domains(&self) -> bool {
        let position = self.primary().and_then(|server| server.position.as_deref());
        matches!(position, Some(Position::MariaDb(position)) if position.domains() > 1)
    }

    /// Family of the servers; MySQL until one has been seen.
    pub fn flavor(&self) -> Flavor {
        self.greeting
            .as_ref()
            .map_or(Flavor::MySql, |greeting| greeting.version.flavor)
    }
}
