//! How long idle connections live, and how many of them are kept.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::debug;

use super::{
    super::WorkerId,
    {Bucket, Entry, Idle},
};
use crate::config::Limits;

/// What is kept of a server's connections that nobody uses.
#[derive(Debug, Clone, Copy)]
pub(in crate::pool) struct Upkeep {
    /// An unused one is kept for so long.
    pub(super) idle: Duration,
    /// Any one is kept for so long.
    pub(super) age: Duration,
    /// So many are kept all the same.
    pub(super) warm: usize,
}

impl Upkeep {
    pub(in crate::pool) fn new(limits: &Limits) -> Self {
        Self {
            idle: limits.idle,
            age: limits.connection_age,
            warm: limits.warm,
        }
    }
}

/// The worker that keeps connections ready.
const KEEPER: WorkerId = WorkerId(0);

/// How long an account counts as in use after its last statement.
const WARM_FOR: Duration = Duration::from_secs(3_600);

/// What ends within this time is replaced already: some sweeps.
const AHEAD: Duration = Duration::from_secs(5);

impl Bucket {
    /// Closes what the worker should not keep.
    pub(in crate::pool) fn sweep(&self, worker: WorkerId, now: Instant) {
        let warm = self.warm(worker, now);
        let Some(mut shard) = self.shard(worker) else {
            return;
        };
        let surplus = shard.idle.len().saturating_sub(warm);
        let mut number = 0;
        let expired = |idle: &mut Idle| {
            number += 1;
            let patience = self.patience(&idle.entry.conn);
            let limit = match number <= surplus {
                true => patience.min(self.upkeep.idle),
                false => patience,
            };
            let too_old = idle.holder.is_none() && now >= idle.entry.expires;
            too_old
                || now.saturating_duration_since(idle.since) > limit
                || !idle.entry.conn.is_alive()
        };
        let closed: Vec<_> = shard.idle.extract_if(.., expired).collect();
        // Closing takes the desk's lock: not under the shard's.
        drop(shard);
        drop(closed);
    }

    /// How many idle connections the worker keeps for an account that is in use.
    fn warm(&self, worker: WorkerId, now: Instant) -> usize {
        // One worker's are enough: the others take them over.
        if self.upkeep.warm == 0 || worker != KEEPER || self.known().is_none() {
            return 0;
        }
        let used = self.all_shards().filter_map(|shard| shard.used).max();
        let quiet = used.is_some_and(|used| now.saturating_duration_since(used) > WARM_FOR);
        if quiet {
            // Nor is a password kept for it.
            *self.known() = None;
            return 0;
        }
        self.upkeep.warm
    }

    /// Opens what is missing of the connections that are kept ready, and what will be missing soon.
    pub(in crate::pool) fn refill(self: &Arc<Self>, worker: WorkerId, now: Instant) {
        let warm = self.warm(worker, now);
        // Those that a server closes sooner than is looked ahead are not heaped up.
        let enough = || self.ready(now + AHEAD) >= warm || self.ready(now) >= 2 * warm;
        if warm == 0 || enough() || self.server.has_waiters() {
            return;
        }
        let Some(login) = self.known().clone() else {
            return;
        };
        let Ok(Some(opening)) = self.server.begin(&self.key.account) else {
            return;
        };
        let bucket = Arc::clone(self);
        // Bounded by limits.login, and one for each bucket and sweep.
        tokio::spawn(async move {
            match bucket.open(opening, worker, &login).await {
                Ok(entry) => bucket.lay(entry, worker),
                Err(error) => {
                    debug!(server = %bucket.server.target.name, %error, "no connection could be kept ready");
                }
            }
        });
    }

    /// How many connections lie here that will still be good at some time.
    fn ready(&self, then: Instant) -> usize {
        let good = |idle: &&Idle| {
            let lain = then.saturating_duration_since(idle.since);
            idle.holder.is_none()
                && then < idle.entry.expires
                && lain <= self.patience(&idle.entry.conn)
        };
        self.all_shards()
            .map(|shard| shard.idle.iter().filter(good).count())
            .sum()
    }

    /// Puts a connection that nobody has used yet where the next one finds it.
    fn lay(self: &Arc<Self>, entry: Entry, worker: WorkerId) {
        if let Some(mut shard) = self.shard(worker) {
            let since = Instant::now();
            shard.idle.push(Idle {
                entry,
                since,
                holder: None,
                expired: false,
            });
        }
        self.offer_last(worker);
    }
}

/// How long a connection may be open: between four fifths of `age` and all of it. Numbers that follow each other are far
/// apart, so that connections that began together do not end together.
pub(super) fn lifetime(age: Duration, number: u32) -> Duration {
    // The golden ratio spreads any run of numbers evenly.
    let share = f64::from(number.wrapping_mul(0x9E37_79B9)) / f64::from(u32::MAX);
    age.mul_f64(1.0 - share / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_begin_together_end_apart() {
        let age = Duration::from_secs(3_600);
        let mut ends: Vec<_> = (1_000..1_100).map(|number| lifetime(age, number)).collect();
        ends.sort_unstable();
        assert!(ends.iter().all(|end| (age * 4 / 5..=age).contains(end)));
        // A hundred in twelve minutes: evenly, one every seven seconds.
        let gaps = ends.windows(2).map(|pair| match pair {
            [one, next] => *next - *one,
            _ => Duration::MAX,
        });
        let gaps: Vec<_> = gaps.collect();
        assert!(
            gaps.iter().all(|gap| (2..16).contains(&gap.as_secs())),
            "{gaps:?}"
        );
    }
}
