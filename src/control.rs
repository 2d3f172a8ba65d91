//! The single writer of the topology: evidence in, pictures out, changes told; and what is done when the primary fails.

mod execute;
mod hook;
mod job;
mod journal;
mod steward;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::{info, warn};

pub use execute::Sessions;
pub use steward::{Asked, Orders, Steward};

use crate::config::Cluster;
use crate::failover::{Input, Output};
use crate::topology::{Changed, Event, Observation, Role, Topology, Tracker};

/// Observations that may wait to be folded; the monitor of a server never has more than one under way.
const EVIDENCE: usize = 64;

/// Where the monitors send what they see.
pub type Evidence = mpsc::Sender<Observation>;

/// Folds observations into the topology and publishes it.
pub struct Control {
    tracker: Tracker,
    evidence: mpsc::Receiver<Observation>,
    topology: watch::Sender<Arc<Topology>>,
    tick: Duration,
    /// Nobody, where somebody else replaces the primary.
    steward: Option<Steward>,
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
        steward: None,
    };
    (control, sender, published)
}

impl Control {
    /// The primary is not only found from now on, but also replaced.
    pub fn with_steward(self, steward: Steward) -> Self {
        Self {
            steward: Some(steward),
            ..self
        }
    }

    /// Works until all senders of evidence are gone. Must run alone: it is the one writer.
    pub async fn run(mut self) {
        let mut ticks = time::interval(self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                observation = self.evidence.recv() => match observation {
                    Some(observation) => {
                        let changed = self.tracker.observe(observation.clone());
                        self.publish(&changed);
                        Input::Seen(observation)
                    }
                    None => return,
                },
                now = ticks.tick() => {
                    let changed = self.tracker.tick(now);
                    self.publish(&changed);
                    Input::Tick
                }
                input = Steward::hear(&mut self.steward) => input,
            };
            self.steer(input);
        }
    }

    /// Lets the steward decide, and carries out what is to be done here.
    fn steer(&mut self, input: Input) {
        let Some(steward) = &mut self.steward else {
            return;
        };
        let now = Instant::now();
        for output in steward.decide(input, now) {
            let Output::Decree(decree) = output else {
                if let Some(steward) = &mut self.steward {
                    steward.carry_out(output);
                }
                continue;
            };
            // Before the step behind it: sessions must know when they are counted.
            let changed = self.tracker.decree(decree, now);
            self.publish(&changed);
            if let Some(steward) = &mut self.steward {
                steward.decreed(decree);
            }
        }
    }

    fn publish(&self, changed: &Changed) {
        let topology = Arc::new(self.tracker.snapshot());
        for event in &changed.events {
            tell(event, topology.epoch);
        }
        self.topology.send_replace(topology);
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
