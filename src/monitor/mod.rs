//! Watches the servers: probes for the topology, accounts for logins, definitions for routes, and a closer look on demand.
//!
//! Nothing is decided here. A probe becomes an [`Observation`], whatever came of it.

pub mod accounts;
mod admin;
pub mod catalogue;
mod connect;
mod extras;
mod fields;
pub mod heartbeat;
pub mod inspect;
mod offers;
mod probe;
mod queries;
mod readiness;
mod sources;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::{info, warn};

pub use admin::{Admin, AdminError};
pub use heartbeat::Pulse;
pub use inspect::{Finding, Inspection, Needs, Severity, inspect};

use crate::config::{Config, Heartbeat, Secret, ServerAddress, ServerTls};
use crate::topology::{Observation, ProbeError, ServerId};
use probe::Prober;

/// A server that refuses the monitor's account, or whose name is unknown, is asked less and less often up to this:
/// failed logins fill its error log and may lock the account.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// One server, and how to watch it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its place in the configuration.
    pub id: ServerId,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: ServerAddress,
    /// The monitor's account.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Time from one probe to the next.
    pub interval: Duration,
    /// Whether and how TLS is used with this server.
    pub tls: ServerTls,
    /// The row of the heartbeats, if there are to be any; the same for all servers of a cluster.
    pub pulse: Option<Pulse>,
}

/// The servers of this configuration's own cluster.
pub fn targets(config: &Config) -> Vec<Target> {
    let pulse = (config.monitor.heartbeat == Heartbeat::Auto).then(Pulse::new);
    let targets = (0_u8..=u8::MAX)
        .zip(&config.cluster.servers)
        .map(|(place, server)| Target {
            id: ServerId::new(config.cluster.number, place),
            name: server.name.as_str().into(),
            address: server.address.clone(),
            user: config.monitor.user.clone(),
            password: config.monitor.password.clone(),
            interval: config.monitor.interval,
            tls: ServerTls {
                mode: config.tls.mode_towards(server),
                ..config.tls.server.clone()
            },
            pulse,
        });
    targets.collect()
}

/// Between two probes of a server lies at least this, whoever asks for one.
const REST: Duration = Duration::from_millis(5);

/// Probes one server every `target.interval`, and at once when there is a `nudge`, and sends what it sees, until nobody
/// listens any more.
///
/// May be dropped at any time.
pub async fn watch(target: Target, evidence: mpsc::Sender<Observation>, nudge: Arc<Notify>) {
    let mut prober = Prober::new(target.clone());
    let mut ticks = time::interval(target.interval);
    // After a slow probe there is nothing to catch up with.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pause = Duration::ZERO;
    let mut trouble = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = rested(&nudge) => {}
            () = evidence.closed() => return,
        }
        let asked_at = Instant::now();
        let result = prober.probe().await;
        let observation = Observation {
            server: target.id,
            asked_at,
            at: Instant::now(),
            result,
        };
        pause = next_pause(pause, &observation.result, &target);
        report(&target, &mut trouble, observation.result.as_ref().err());
        if evidence.send(observation).await.is_err() {
            return;
        }
        if !pause.is_zero() {
            tokio::select! {
                () = time::sleep(pause) => {}
                () = evidence.closed() => return,
            }
        }
    }
}

/// A nudge, but not before the rest is over; meanwhile others may nudge for the same probe.
async fn rested(nudge: &Notify) {
    time::sleep(REST).await;
    nudge.notified().await;
}

fn next_pause<T>(pause: Duration, result: &Result<T, ProbeError>, target: &Target) -> Duration {
    match result {
        Err(ProbeError::AccessDenied(_)) => {
            let least = target.interval.saturating_mul(2);
            pause.saturating_mul(2).min(REFUSED_PAUSE).max(least)
        }
        _ => Duration::ZERO,
    }
}

/// Tells of troubles that are the monitor's rather than the server's, once each; control tells of the servers' health.
fn report(target: &Target, last: &mut Option<ProbeError>, now: Option<&ProbeError>) {
    let own = |error: &&ProbeError| {
        matches!(
            error,
            ProbeError::TooManyConnections
                | ProbeError::AccessDenied(_)
                | ProbeError::Tls(_)
                | ProbeError::Other(_)
        )
    };
    let now = now.filter(own);
    if now == last.as_ref() {
        return;
    }
    let server = &*target.name;
    match now {
        Some(error) => warn!(server, %error, "monitor cannot ask the server"),
        None => info!(server, "monitor can ask the server again"),
    }
    *last = now.cloned();
}
