//! What servers have to do for a worker, and how they have been doing that.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    routing::{Load, Pace, Tail},
    topology::ServerId,
};

/// Of the reads that were not asked twice, as many are saved up for later, in thousandths.
const SAVED: u32 = 10_000;

/// What one worker has running, by server, and how it has been answered.
#[derive(Debug)]
pub struct Loads {
    began: Instant,
    // Only the worker's own thread writes: what it reads is never contended.
    servers: Box<[Counts]>,
    /// Reads that may be asked of a second server now, in thousandths.
    budget: AtomicU32,
}

#[derive(Debug, Default)]
struct Counts {
    running: AtomicUsize,
    pace: AtomicU32,
    tail: AtomicU32,
    /// When the last answer came, or failed to come, in milliseconds.
    heard: AtomicU64,
}

/// One statement that runs. Dropping it ends the count.
#[derive(Debug)]
pub(super) struct Counted<'a>(Option<&'a AtomicUsize>);

impl Loads {
    /// Those of as many servers.
    pub fn new(servers: usize) -> Self {
        Self {
            began: Instant::now(),
            servers: (0..servers).map(|_| Counts::default()).collect(),
            budget: AtomicU32::new(0),
        }
    }

    /// That of a server now.
    pub(super) fn of(&self, server: ServerId) -> Load {
        let Some(counts) = self.servers.get(server.index()) else {
            return Load::default();
        };
        let heard = Duration::from_millis(counts.heard.load(Relaxed));
        Load {
            in_flight: counts.running.load(Relaxed),
            pace: Pace::from_bits(counts.pace.load(Relaxed)),
            rest: self.began.elapsed().saturating_sub(heard),
        }
    }

    /// Counts a statement on `server` for as long as the result lives.
    pub(super) fn count(&self, server: ServerId) -> Counted<'_> {
        let running = self
            .servers
            .get(server.index())
            .map(|counts| &counts.running);
        if let Some(running) = running {
            running.fetch_add(1, Relaxed);
        }
        Counted(running)
    }

    /// A server has begun to answer a read after this time. `allowance`: the part of the reads, in thousandths, that may be asked
    /// of a second server.
    pub(super) fn answered(&self, server: ServerId, time: Duration, allowance: u32) {
        self.note(server, |pace| pace.answered(time));
        if allowance == 0 {
            return;
        }
        if let Some(counts) = self.servers.get(server.index()) {
            let tail = Tail::from_bits(counts.tail.load(Relaxed)).answered(time);
            counts.tail.store(tail.to_bits(), Relaxed);
        }
        let budget = self.budget.load(Relaxed).saturating_add(allowance);
        self.budget.store(budget.min(SAVED), Relaxed);
    }

    /// How long a read of a server is waited for before another one is asked; `None`: for ever.
    pub(super) fn patience(&self, server: ServerId) -> Option<Duration> {
        let counts = self.servers.get(server.index())?;
        Tail::from_bits(counts.tail.load(Relaxed)).patience()
    }

    /// Whether one more read may be asked of a second server; then it is counted.
    pub(super) fn may_ask_again(&self) -> bool {
        let left = self.budget.load(Relaxed).checked_sub(1000);
        if let Some(left) = left {
            self.budget.store(left, Relaxed);
        }
        left.is_some()
    }

    /// A server has failed to answer a read.
    pub(super) fn failed(&self, server: ServerId) {
        self.note(server, Pace::failed);
    }

    fn note(&self, server: ServerId, change: impl Fn(Pace) -> Pace) {
        let Some(counts) = self.servers.get(server.index()) else {
            return;
        };
        let pace = change(Pace::from_bits(counts.pace.load(Relaxed)));
        counts.pace.store(pace.to_bits(), Relaxed);
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        counts.heard.store(now, Relaxed);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.0 {
            running.fetch_sub(1, Relaxed);
        }
    }
}
