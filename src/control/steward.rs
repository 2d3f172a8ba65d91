//! What stands between the decisions and their execution: steps out, ends in, operators' questions and answers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::execute::{Executor, Sessions};
use super::hook::{Case, Server};
use super::journal::Journal;
use crate::config::Cluster;
use crate::failover::{Act, Decree, Done, Failover, Input, Order, Output, Policy, Reply, Step};
use crate::monitor::Target;
use crate::topology::{ServerId, WriteProbe};

/// Orders that may wait.
const ORDERS: usize = 16;

/// Time from one look to the next while it is not clear what has become of the primary.
const HURRY: Duration = Duration::from_millis(50);

/// An order, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is wanted.
    pub order: Order,
    /// For what became of it.
    pub reply: oneshot::Sender<Reply>,
}

/// Where operators' orders go.
pub type Orders = mpsc::Sender<Asked>;

/// Who looks after the primary of one cluster.
pub struct Steward {
    failover: Failover,
    /// Out while a step is carried out.
    executor: Option<Executor>,
    ended: mpsc::Receiver<(u64, Executor, Done)>,
    end: mpsc::Sender<(u64, Executor, Done)>,
    orders: mpsc::Receiver<Asked>,
    waiting: HashMap<u64, oneshot::Sender<Reply>>,
    asked: u64,
    writes: watch::Receiver<WriteProbe>,
    journal: Arc<Journal>,
    cluster: String,
    primary: Option<ServerId>,
    /// What makes the monitors look at once, and when that was used last.
    probes: Arc<[Arc<Notify>]>,
    nudged: Option<Instant>,
}

impl Steward {
    /// Looks after the primary of `cluster`. `writes` tells how the monitor's own writes fare.
    pub fn new(
        cluster: &Cluster,
        targets: Vec<Target>,
        sessions: Arc<dyn Sessions>,
        writes: watch::Receiver<WriteProbe>,
        probes: Arc<[Arc<Notify>]>,
        state_directory: &Path,
    ) -> (Self, Orders) {
        let journal = Arc::new(Journal::new(state_directory, &cluster.name));
        let executor = Executor::new(cluster, targets, sessions, Arc::clone(&journal));
        let (end, ended) = mpsc::channel(1);
        let (sender, orders) = mpsc::channel(ORDERS);
        let policy = Policy::new(cluster);
        let steward = Self {
            failover: Failover::new(cluster.number, &cluster.servers, policy, Instant::now()),
            executor: Some(executor),
            ended,
            end,
            orders,
            waiting: HashMap::new(),
            asked: 0,
            writes,
            journal,
            cluster: cluster.name.clone(),
            primary: None,
            probes,
            nudged: None,
        };
        (steward, sender)
    }

    /// The next thing that happens besides observations; never, where there is no steward.
    pub(super) async fn hear(steward: &mut Option<Self>) -> Input {
        let Some(steward) = steward else {
            return std::future::pending().await;
        };
        tokio::select! {
            // Its own sender keeps this channel open.
            Some((number, executor, done)) = steward.ended.recv() => {
                steward.executor = Some(executor);
                Input::Ended(number, done)
            }
            Some(Asked { order, reply }) = steward.orders.recv() => {
                steward.asked += 1;
                steward.waiting.insert(steward.asked, reply);
                Input::Asked(steward.asked, order)
            }
            else => std::future::pending().await,
        }
    }

    pub(super) fn decide(&mut self, input: Input, now: Instant) -> Vec<Output> {
        let writes = *self.writes.borrow();
        let pending = writes
            .pending_since
            .filter(|_| writes.server == self.primary);
        let mut outputs = self.failover.handle(Input::Stalled(pending), now);
        outputs.extend(self.failover.handle(input, now));
        self.hurry(now);
        outputs
    }

    /// Lets the monitors look more often while it is not clear what has become of the primary.
    fn hurry(&mut self, now: Instant) {
        let rested = self
            .nudged
            .is_none_or(|at| now.saturating_duration_since(at) >= HURRY);
        if rested && self.failover.is_alarmed(now) {
            self.nudged = Some(now);
            self.probes.iter().for_each(|probe| probe.notify_one());
        }
    }

    pub(super) fn decreed(&mut self, decree: Decree) {
        self.primary = Some(decree.primary);
    }

    pub(super) fn carry_out(&mut self, output: Output) {
        match output {
            // Not here.
            Output::Decree(_) => {}
            Output::Tell(entry) => {
                if let (true, Some(executor)) = (entry.is_end(), &mut self.executor) {
                    executor.release();
                }
                self.journal.tell(entry);
            }
            Output::Reply(number, reply) => {
                if let Some(waiting) = self.waiting.remove(&number) {
                    // Who asked may have gone.
                    let _ = waiting.send(reply);
                }
            }
            Output::Run { number, plan, step } => {
                let (end, primary) = (self.end.clone(), self.primary);
                let case = self.case(&step);
                let Some(mut executor) = self.executor.take() else {
                    return;
                };
                tokio::spawn(async move {
                    let done = executor.carry_out(&plan, step, primary, case).await;
                    // The control has ended.
                    let _ = end.send((number, executor, done)).await;
                });
            }
        }
    }

    /// What a program is told, if the step is one.
    fn case(&self, step: &Step) -> Option<Case> {
        let Act::Hook(hook) = &step.act else {
            return None;
        };
        let plan = self.failover.plan()?;
        let server = |id: Option<ServerId>| {
            let mut members = self.failover.members().iter();
            let member = members.find(|member| Some(member.id) == id)?;
            Some(Server {
                name: member.name.to_string(),
                address: member.address.to_string(),
                identity: member.facts().map(|facts| facts.identity().to_string()),
            })
        };
        Some(Case {
            hook: hook.name(),
            cluster: self.cluster.clone(),
            plan: plan.name.clone(),
            purpose: plan.purpose.to_string(),
            epoch: plan.epoch,
            why: plan.why.clone(),
            old: server(plan.old),
            new: server(plan.new),
        })
    }
}
