//! Managers that do it wrong, each in one way: what the checks have to notice.

use dbproxy::failover::{Act, Action, Need, Step};
use dbproxy::topology::{Flavor, ServerFacts, ThreadState};

use super::setup::{SemiSync, Setup};
use super::world::World;

/// One thing that is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The proxy goes on with the old primary while it is replaced.
    NoClose,
    /// What the old primary says late reaches clients.
    LateOks,
    /// The new primary does not apply what it has received.
    NoAwait,
    /// Replicas go on to acknowledge to the old primary.
    NoRevoke,
    /// Both threads are stopped before all is applied.
    StopsBoth,
    /// The old primary goes on to take writes in a switchover.
    NoRefusal,
    /// The row of the reign is not written.
    NoCrown,
    /// The number of the reign is not put down.
    NoBallot,
    /// Statements of which nobody knows what became are run again.
    RunAgain,
    /// A server does not tell what it has and the primary has not.
    HidesSurplus,
    /// A server does not tell what it has received and not applied.
    HidesReceived,
    /// A replica does not tell that it hears from its source.
    HidesHeartbeats,
    /// A replica whose threads have stopped says that they run.
    HidesAge,
    /// A replica does not tell that it leaves something out.
    HidesFilters,
    /// Nothing is made to follow the new primary.
    NoFollow,
    /// A server that takes writes without being the primary is left alone.
    NoFence,
}

impl Mutation {
    pub(crate) const ALL: [Self; 16] = [
        Self::NoClose,
        Self::LateOks,
        Self::NoAwait,
        Self::NoRevoke,
        Self::StopsBoth,
        Self::NoRefusal,
        Self::NoCrown,
        Self::NoBallot,
        Self::RunAgain,
        Self::HidesSurplus,
        Self::HidesReceived,
        Self::HidesHeartbeats,
        Self::HidesAge,
        Self::HidesFilters,
        Self::NoFollow,
        Self::NoFence,
    ];

    /// What the mistake needs to show soon.
    pub(crate) fn stage(self, setup: &mut Setup) {
        match self {
            Self::StopsBoth | Self::HidesReceived => {
                setup.flavor = if self == Self::StopsBoth {
                    Flavor::MariaDb
                } else {
                    setup.flavor
                };
                (setup.semi_sync, setup.wait_for) = (SemiSync::Strict, 1);
                setup.slow_applier = 30;
            }
            Self::HidesAge => {
                setup.ring = false;
                (setup.servers, setup.months_old, setup.semi_sync) = (2, Some(1), SemiSync::Off);
                (setup.delayed, setup.filtered, setup.newer) = (None, None, None);
                (setup.max_loss, setup.wait_for) = (1000, 1);
            }
            Self::HidesFilters if setup.servers > 2 => setup.filtered = Some(1),
            Self::NoClose => (setup.semi_sync, setup.clients) = (SemiSync::Off, 6),
            _ => {}
        }
    }

    /// Whether this is what the mistake leads to, and not something that follows from it later.
    pub(crate) fn explains(self, violation: &str) -> bool {
        let wanted: &[&str] = match self {
            Self::NoClose | Self::LateOks => &["I2: write"],
            Self::NoAwait | Self::StopsBoth | Self::HidesReceived => &["I1: "],
            Self::NoRevoke => &["still acknowledge"],
            Self::NoRefusal => &[
                "I1: ",
                "I2: ",
                "is to follow",
                "takes writes as well",
                "not well",
            ],
            Self::NoCrown | Self::NoBallot | Self::NoFollow => {
                &["not well", "I1: ", "I2: ", "begins reign"]
            }
            Self::RunAgain => &["I3: "],
            Self::HidesSurplus => &["is to follow", "transactions of its own"],
            Self::HidesHeartbeats => &["hears from it"],
            Self::HidesAge => &["months old"],
            Self::HidesFilters => &["leaves something out"],
            Self::NoFence => &["not well"],
        };
        wanted.iter().any(|part| violation.contains(part))
    }

    /// Changes a step that is to be carried out.
    pub(crate) fn alter(self, step: &mut Step) {
        let drop = |step: &mut Step, unwanted: fn(&Action) -> bool| {
            for job in &mut step.jobs {
                job.actions.retain(|action| !unwanted(action));
                if job.actions.is_empty() {
                    job.actions.push(Action::Look);
                }
            }
        };
        match self {
            Self::NoAwait => drop(step, |action| matches!(action, Action::Await(_))),
            Self::NoRevoke if step.act == Act::Revoke => {
                drop(step, |action| *action == Action::StopReceiver)
            }
            Self::StopsBoth if step.act == Act::Revoke => {
                for job in &mut step.jobs {
                    job.actions = vec![Action::StopReplication, Action::StartApplier, Action::Look];
                }
            }
            Self::NoRefusal if matches!(step.act, Act::Fence | Act::Freeze) => {
                drop(step, |action| {
                    matches!(
                        action,
                        Action::RefuseWrites | Action::Offline(true) | Action::Expel
                    )
                })
            }
            Self::NoBallot => drop(step, |action| matches!(action, Action::Ballot(_))),
            Self::NoFollow if step.act == Act::Follow => {
                drop(step, |action| *action != Action::Look)
            }
            Self::NoFence if step.act == Act::Fence && step.need == Need::All => {
                drop(step, |action| *action != Action::Look)
            }
            _ => {}
        }
    }

    /// Changes what a server says of itself.
    pub(crate) fn lie(self, facts: &mut ServerFacts, world: &World) {
        match self {
            Self::HidesSurplus => {
                let primary = world.primary().map(|id| id.index() as u32 + 1);
                if primary.is_some_and(|number| number != facts.server_id) {
                    world.hide_surplus(facts);
                }
            }
            Self::HidesReceived => facts
                .sources
                .iter_mut()
                .for_each(|source| source.received = None),
            Self::HidesHeartbeats => facts.sources.iter_mut().for_each(|source| {
                source.heartbeats = None;
                source.read_to = "".into();
            }),
            Self::HidesAge => facts.sources.iter_mut().for_each(|source| {
                source.receiver = ThreadState::Running;
                source.applier = ThreadState::Running;
            }),
            Self::HidesFilters => facts
                .sources
                .iter_mut()
                .for_each(|source| source.filters = Default::default()),
            _ => {}
        }
    }
}

impl World {
    /// What its primary has is all that it says to have.
    fn hide_surplus(&self, facts: &mut ServerFacts) {
        let Some(mut primary) = self.primary().map(|id| self.servers[id.index()].clone()) else {
            return;
        };
        let theirs = primary.facts(&self.setup, &self.txs, 0, self.now);
        facts.executed = theirs.executed;
        facts.history = theirs.history;
    }
}
