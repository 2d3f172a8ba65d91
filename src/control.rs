//! The single writer of the topology: evidence in, pictures out, changes told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::{info, warn};

use crate::config::Cluster;
use crate::topology::{Event, Observation, Role, Topology, Tracker};

/// Observations that may wait to be folded; the monitor of a server never has more than one under way.
const EVIDENCE: usize = 64;

/// Where the monitors send what they see.
pub type Evidence = mpsc::Sender<Observation>;

/// Folds observations into the topology and publishes it.
#[derive(Debug)]
pub struct Control {
    tracker: Tracker,
    evidence: mpsc::Receiver<Observation>,
    topology: watch::Sender<Arc<Topology>>,
    tick: Duration,
}

/// Makes the control of `cluster`, whose servers are probed every `interval`.
pub fn new(
    cluster: &Cluster,
    interval: Duration,
) -> (Control, Evidence, watch::Receiver<Arc<Topology>>) {
    let now = Instant::now();
    let tracker = Tracker::of_cluster(
        cluster.number,
        &cluster.servers,
        interval,
        cluster.max_lag,
        now,
    );
    let (topology, published) = watch::channel(Arc::new(tracker.snapshot()));
    let (sender, evidence) = mpsc::channel(EVIDENCE);
    let control = Control {
        tracker,
        evidence,
        topology,
        tick: interval,
    };
    (control, sender, published)
}

impl Control {
    /// Works until all senders of evidence are gone. Must run alone: it is the one writer.
    pub async fn run(mut self) {
        let mut ticks = time::interval(self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changed = tokio::select! {
                observation = self.evidence.recv() => match observation {
                    Some(observation) => self.tracker.observe(observation),
                    None => return,
                },
                now = ticks.tick() => self.tracker.tick(now),
            };
            let topology = Arc::new(self.tracker.snapshot());
            for event in &changed.events {
                tell(event, topology.epoch);
            }
            self.topology.send_replace(topology);
        }
    }
}

fn tell(event: &Event, epoch: u64) {
    fn name(server: &Option<Arc<str>>) -> &str {
        server.as_deref().unwrap_or("none")
    }
    match event {
        Event::Primary { from, to, why } => {
            info!(epoch, from = %name(from), server = %name(to), reason = %why, "primary");
        }
        Event::Role {
            server,
            to: Role::Spare,
            why,
            ..
        } => warn!(epoch, %server, reason = %why, "two writable servers"),
        Event::Role {
            server,
            from,
            to,
            why,
        } => {
            info!(epoch, %server, %from, %to, reason = %why, "role");
        }
        Event::Up { server } => info!(epoch, %server, "server up"),
        Event::Down { server, error } => warn!(epoch, %server, %error, "server down"),
        Event::Writes {
            server,
            taken: true,
        } => info!(epoch, %server, "primary takes writes"),
        Event::Writes {
            server,
            taken: false,
        } => warn!(epoch, %server, "primary takes no writes"),
        Event::Reads {
            server,
            barred: None,
        } => info!(epoch, %server, "replica gets reads"),
        Event::Reads {
            server,
            barred: Some(reason),
        } => warn!(epoch, %server, %reason, "replica gets no reads"),
        Event::Gate { gate } => info!(epoch, %gate, "writes"),
        Event::Replaced { server } => {
            warn!(epoch, %server, "another server answers at this address")
        }
    }
}
