//! What may be done without being asked, and how often.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::evidence::Death;
pub use crate::config::Failover as Mode;
use crate::config::{Cluster, Rejoin};

/// From one automatic failover to the next.
const REST: Duration = Duration::from_secs(600);
/// How many there may be in a day.
const PER_DAY: usize = 3;
const DAY: Duration = Duration::from_secs(86_400);
/// After a plan that failed the next one waits this long.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Open transactions have so long when the primary is changed on purpose.
const DRAIN: Duration = Duration::from_secs(2);
/// A new primary has so long to apply what it has received.
const APPLY: Duration = Duration::from_secs(60);
/// A connection that was broken for longer than this when the primary failed makes a replica's data old.
const MAX_STALENESS: Duration = Duration::from_secs(10);

/// What the configuration allows.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Who decides.
    pub mode: Mode,
    /// How long open transactions may go on when the primary is changed.
    pub drain: Duration,
    /// How long the new primary may take to apply what it has received.
    pub apply: Duration,
    /// A replica whose connection was broken for longer than this before the primary failed is not promoted.
    pub max_staleness: Duration,
    /// Without semi-synchronous replication: so many transactions that were acknowledged may be missing on the new primary.
    pub max_loss: u64,
    /// Whether servers that came back are made replicas without being asked.
    pub rejoin: bool,
    /// Whether a server that has no source can be given one.
    pub credentials: bool,
    /// The operator's programs that there are.
    pub hooks: Hooks,
}

/// Which programs of the operator's are run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hooks {
    /// To cut an old primary's power.
    pub fence: bool,
    /// Before a server is promoted.
    pub before_promote: bool,
    /// After that.
    pub after_promote: bool,
    /// Each of them has so long.
    pub timeout: Duration,
}

impl Policy {
    /// What a cluster's configuration says.
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            mode: cluster.failover,
            drain: DRAIN,
            apply: APPLY,
            max_staleness: MAX_STALENESS,
            max_loss: cluster.max_loss,
            rejoin: cluster.rejoin == Rejoin::Automatic,
            credentials: cluster.replication.is_some(),
            hooks: Hooks {
                fence: cluster.hooks.fence.is_some(),
                before_promote: cluster.hooks.before_promote.is_some(),
                after_promote: cluster.hooks.after_promote.is_some(),
                timeout: cluster.hooks.timeout,
            },
        }
    }
}

/// What was done without being asked.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    automatic: VecDeque<Instant>,
    failed_at: Option<Instant>,
}

impl History {
    pub(super) fn promoted(&mut self, now: Instant) {
        self.automatic.push_back(now);
        self.failed_at = None;
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failed_at = Some(now);
    }

    /// An operator has looked: counting begins anew.
    pub(super) fn acknowledge(&mut self) {
        self.automatic.clear();
        self.failed_at = None;
    }

    /// Whether there may be an automatic failover now; the error says why not.
    pub(super) fn allows(&mut self, death: Death, now: Instant) -> Result<(), String> {
        let since = |at: &Instant| now.saturating_duration_since(*at);
        self.automatic.retain(|at| since(at) < DAY);
        if self
            .failed_at
            .as_ref()
            .is_some_and(|at| since(at) < AFTER_FAILURE)
        {
            return Err(format!(
                "the last plan failed; the next one begins {} s after that",
                AFTER_FAILURE.as_secs()
            ));
        }
        if self.automatic.len() >= PER_DAY {
            return Err(format!(
                "there have been {PER_DAY} automatic failovers within a day: an operator has to look (THAW lets it go on)"
            ));
        }
        let recent = self.automatic.iter().filter(|at| since(at) < REST).count();
        // One more if the new primary's process died as well: that is no flapping network.
        let allowed = if death == Death::Process { 2 } else { 1 };
        if recent >= allowed {
            return Err(format!(
                "there was an automatic failover less than {} minutes ago: an operator has to look (THAW lets it go on)",
                REST.as_secs() / 60
            ));
        }
        Ok(())
    }
}
