//! What is to be done, step by step, before any of it is done.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::gtid::Position;

use super::action::Action;
use crate::topology::{ServerFacts, ServerId};

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A primary that nobody counted becomes the first of its line.
    Adopt,
    /// The primary is dead.
    Failover,
    /// An operator wants another primary.
    Switchover,
    /// The primary came back read-only and goes on.
    Reopen,
    /// A replica is made to follow the primary.
    Repoint,
    /// A former primary is made a replica.
    Rejoin,
    /// A server takes writes and is not the primary.
    Fence,
    /// Enough replicas are back for the primary's commits to wait for them.
    Guard,
}

impl Display for Purpose {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adopt => "adopt",
            Self::Failover => "failover",
            Self::Switchover => "switchover",
            Self::Reopen => "reopen",
            Self::Repoint => "repoint",
            Self::Rejoin => "rejoin",
            Self::Fence => "fence",
            Self::Guard => "guard",
        })
    }
}

/// What a step is in its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The proxy begins nothing new on the primary, and lets open transactions end for at most this long.
    Pause(Duration),
    /// The proxy cuts its connections to the old primary; what that still answers reaches nobody.
    Close,
    /// The next reign is put down.
    Ballot,
    /// The old primary is made to take no writes, if it answers.
    Fence,
    /// The old primary takes no more writes, and says what it has.
    Freeze,
    /// The replicas end their connections to the old primary, which then gets no acknowledgement any more.
    Revoke,
    /// The new primary applies all that it has received.
    Apply,
    /// The new primary takes writes, and its first one is the row of the reign: what is behind this is never undone.
    Promote,
    /// The proxy sends writes to the primary.
    Publish,
    /// A server ends its connection to its source, so that it gets nothing more from there.
    Detach,
    /// The primary says what it has: all that the detached server has, or that cannot follow it.
    Compare,
    /// A server replicates from the primary.
    Follow,
    /// The primary's commits wait for replicas.
    Guard,
    /// What was done is undone.
    Undo,
    /// A program of the operator's is run.
    Hook(Hook),
}

/// When a program of the operator's is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// The old primary does not answer: its power may be cut. Its success proves that it is off; its failure ends the plan only
    /// where nothing else does.
    Fence,
    /// Before the new primary takes writes. Its failure ends the plan.
    BeforePromote,
    /// When the new primary has taken over. Its failure is only told.
    AfterPromote,
}

impl Hook {
    /// Its key in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::BeforePromote => "before_promote",
            Self::AfterPromote => "after_promote",
        }
    }
}

/// On how many servers a step has to succeed for the plan to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// On every one.
    All,
    /// On at least so many.
    Some(usize),
    /// On none: it is tried.
    Try,
}

/// What is done on one server, in this order, over the connection that holds its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The server.
    pub server: ServerId,
    /// What is done.
    pub actions: Vec<Action>,
}

/// A part of a plan: jobs that are done side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub act: Act,
    /// What is done on servers; nothing for what the proxy does itself.
    pub jobs: Vec<Job>,
    /// How much of it has to succeed.
    pub need: Need,
    /// After this it has failed.
    pub deadline: Duration,
}

impl Step {
    pub(super) fn own(act: Act) -> Self {
        let deadline = match &act {
            Act::Pause(drain) => *drain + USUAL,
            _ => USUAL,
        };
        Self {
            act,
            jobs: Vec::new(),
            need: Need::All,
            deadline,
        }
    }

    pub(super) fn on(act: Act, need: Need, jobs: Vec<Job>) -> Self {
        Self {
            act,
            jobs,
            need,
            deadline: USUAL,
        }
    }

    pub(super) fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }
}

/// For a step that needs no time.
const USUAL: Duration = Duration::from_secs(5);

impl Job {
    pub(super) fn new(server: ServerId, actions: impl Into<Vec<Action>>) -> Self {
        Self {
            server,
            actions: actions.into(),
        }
    }
}

/// Steps that lead to a purpose, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it is called in the journal and in the row of the reign.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Why.
    pub why: String,
    /// The reign that it begins, or belongs to.
    pub epoch: u64,
    /// The primary so far.
    pub old: Option<ServerId>,
    /// The primary, or the server that it is about, when it is done. In a failover it is chosen on the way.
    pub new: Option<ServerId>,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan as people read it; `name` gives a server's name.
    pub fn describe(&self, name: impl Fn(ServerId) -> Arc<str>) -> String {
        let mut text = format!("{} ({}), reign {}\n", self.purpose, self.why, self.epoch);
        for (number, step) in (1..).zip(&self.steps) {
            text.push_str(&format!("{number}. {}", step.act));
            match step.need {
                Need::Try if !step.jobs.is_empty() => text.push_str(" (if possible)"),
                Need::Some(needed) if needed < step.jobs.len() => {
                    text.push_str(&format!(" ({needed} of {})", step.jobs.len()));
                }
                _ => {}
            }
            text.push('\n');
            for job in &step.jobs {
                let actions: Vec<String> = job.actions.iter().map(ToString::to_string).collect();
                text.push_str(&format!(
                    "   {}: {}\n",
                    name(job.server),
                    actions.join("; ")
                ));
            }
        }
        text
    }
}

impl Display for Act {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause(drain) => write!(
                f,
                "pause: statements wait, transactions may end within {} s",
                drain.as_secs_f32()
            ),
            Self::Close => f.write_str("close: no session reaches the old primary any more"),
            Self::Ballot => f.write_str("ballot"),
            Self::Fence => f.write_str("fence"),
            Self::Freeze => f.write_str("freeze"),
            Self::Revoke => f.write_str("revoke"),
            Self::Apply => f.write_str("apply"),
            Self::Promote => f.write_str("promote"),
            Self::Publish => f.write_str("publish: statements run on the primary"),
            Self::Detach => f.write_str("detach"),
            Self::Compare => f.write_str("compare"),
            Self::Follow => f.write_str("follow"),
            Self::Guard => f.write_str("guard"),
            Self::Undo => f.write_str("undo"),
            Self::Hook(hook) => write!(f, "hook {}", hook.name()),
        }
    }
}

/// What became of one job.
#[derive(Debug, Clone)]
pub struct Report {
    /// The server.
    pub server: ServerId,
    /// What it said when it was looked at last in the job, if it was.
    pub facts: Option<Arc<ServerFacts>>,
    /// Why the job was not done to its end.
    pub failure: Option<Failure>,
}

/// Why a job was not done to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// At which of its actions.
    pub at: Option<Action>,
    /// What the server, or the connection to it, said.
    pub text: String,
    /// Is it unknown whether that action was carried out?
    pub unknown: bool,
}

/// What became of a step.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Of each job, in any order.
    pub reports: Vec<Report>,
    /// What clients were told to be committed, for [`Act::Close`] and [`Act::Pause`].
    pub acknowledged: Option<Position>,
    /// Why something that the proxy does itself has failed.
    pub failure: Option<String>,
}

impl Done {
    pub(super) fn succeeded(&self) -> impl Iterator<Item = &Report> {
        self.reports
            .iter()
            .filter(|report| report.failure.is_none())
    }

    pub(super) fn report(&self, server: ServerId) -> Option<&Report> {
        self.reports.iter().find(|report| report.server == server)
    }
}

impl Step {
    /// Whether the plan goes on; the error says why not.
    pub(super) fn judge(&self, done: &Done) -> Result<(), String> {
        if let Some(failure) = &done.failure {
            return Err(failure.clone());
        }
        let enough = match self.need {
            Need::All => self.jobs.len(),
            Need::Some(needed) => needed,
            Need::Try => 0,
        };
        if done.succeeded().count() >= enough {
            return Ok(());
        }
        let failures: Vec<&str> = done
            .reports
            .iter()
            .filter_map(|report| Some(report.failure.as_ref()?.text.as_str()))
            .collect();
        Err(failures.join("; "))
    }
}
