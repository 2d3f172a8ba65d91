//! What servers have to do for a worker, and how they have been doing that.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    routing::{Load, Pace},
    topology::ServerId,
};

/// What one worker has running, by server, and how it has been answered.
#[derive(Debug)]
pub struct Loads {
    began: Instant,
    // Only the worker's own thread writes: what it reads is never contended.
    servers: Box<[Counts]>,
}

#[derive(Debug, Default)]
struct Counts {
    running: AtomicUsize,
    pace: AtomicU32,
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

    /// A server has begun to answer a read after this time.
    pub(super) fn answered(&self, server: ServerId, time: Duration) {
        self.note(server, |pace| pace.answered(time));
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
