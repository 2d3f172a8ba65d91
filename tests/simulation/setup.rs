//! What a seed decides before anything happens.

use std::time::Duration;

use dbproxy::config::Failover as Mode;
use dbproxy::failover::{Hooks, Policy};
use dbproxy::topology::Flavor;

use super::rng::Rng;
use super::{MILLI, SECOND, Time};

/// How commits wait for replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SemiSync {
    /// They do not.
    Off,
    /// Until replicas acknowledge, whatever that takes.
    Strict,
    /// At most this long; then all of them go on without.
    Fallback(Time),
}

/// The cluster, and what everybody in it is like.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) flavor: Flavor,
    pub(crate) servers: usize,
    /// The first two replicate from each other.
    pub(crate) ring: bool,
    pub(crate) semi_sync: SemiSync,
    /// Replicas that a commit waits for.
    pub(crate) wait_for: u32,
    /// Servers come back read-only by their configuration.
    pub(crate) read_only_in_config: bool,
    /// MariaDB: a primary that crashed forgets what nobody acknowledged.
    pub(crate) truncates: bool,
    /// A replica asks a source that does not answer again after this, and gives a silent one up after that.
    pub(crate) connect_retry: Time,
    pub(crate) net_timeout: Time,
    /// Clients that write through the proxy.
    pub(crate) clients: usize,
    /// Somebody writes past the proxy to whatever server takes it.
    pub(crate) direct: bool,
    /// The proxy knows the positions of what it acknowledged.
    pub(crate) tracked: bool,
    pub(crate) max_loss: u64,
    /// A replica that is late on purpose, one that leaves something out, and one whose threads broke long ago.
    pub(crate) delayed: Option<usize>,
    pub(crate) filtered: Option<usize>,
    pub(crate) months_old: Option<usize>,
    /// A replica of a newer version than all others.
    pub(crate) newer: Option<usize>,
    /// Probability of a slow application of a transaction.
    pub(crate) slow_applier: u64,
}

impl Setup {
    /// Three sound servers with semi-synchronous replication, and two clients.
    pub(crate) fn plain(flavor: Flavor) -> Self {
        Self {
            flavor,
            servers: 3,
            ring: false,
            semi_sync: SemiSync::Strict,
            wait_for: 1,
            read_only_in_config: true,
            truncates: false,
            connect_retry: SECOND,
            net_timeout: 4 * SECOND,
            clients: 2,
            direct: false,
            tracked: true,
            max_loss: 0,
            delayed: None,
            filtered: None,
            months_old: None,
            newer: None,
            slow_applier: 0,
        }
    }

    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let flavor = match rng.percent(50) {
            true => Flavor::MySql,
            false => Flavor::MariaDb,
        };
        let servers = [2, 3, 3, 3, 4, 5][rng.place(6)];
        let semi_sync = match rng.below(10) {
            0..=5 => SemiSync::Strict,
            6..=7 => SemiSync::Fallback(rng.between(500, 10_000) * MILLI),
            _ => SemiSync::Off,
        };
        let odd = |rng: &mut Rng, chance| {
            (servers > 2 && rng.percent(chance)).then(|| 1 + rng.place(servers - 1))
        };
        Self {
            servers,
            ring: servers <= 3 && rng.percent(15),
            semi_sync,
            // MariaDB waits for one.
            wait_for: match flavor == Flavor::MySql && servers >= 4 && rng.percent(40) {
                true => 2,
                false => 1,
            },
            read_only_in_config: rng.percent(75),
            truncates: flavor == Flavor::MariaDb && rng.percent(50),
            connect_retry: if rng.percent(85) { SECOND } else { 60 * SECOND },
            net_timeout: if rng.percent(85) {
                4 * SECOND
            } else {
                60 * SECOND
            },
            clients: 1 + rng.place(3),
            direct: rng.percent(8),
            tracked: rng.percent(70),
            max_loss: if rng.percent(50) { 0 } else { 1000 },
            delayed: odd(rng, 8),
            filtered: odd(rng, 5),
            months_old: odd(rng, 8),
            newer: odd(rng, 5),
            slow_applier: [0, 0, 2, 30][rng.place(4)],
            flavor,
        }
    }

    pub(crate) fn strict(&self) -> bool {
        self.semi_sync == SemiSync::Strict
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy {
            mode: Mode::Automatic,
            drain: Duration::from_millis(500),
            apply: Duration::from_secs(20),
            max_staleness: Duration::from_secs(10),
            max_loss: self.max_loss,
            rejoin: true,
            credentials: true,
            hooks: Hooks::default(),
        }
    }
}
