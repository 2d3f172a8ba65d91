//! How many statements run on which server.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::topology::ServerId;

/// Statements that one worker runs now, by server.
#[derive(Debug)]
pub struct InFlight {
    // Only the worker's own thread writes: the counters are never contended.
    running: Box<[AtomicUsize]>,
}

/// One statement that runs. Dropping it ends the count.
#[derive(Debug)]
pub(super) struct Counted<'a>(Option<&'a AtomicUsize>);

impl InFlight {
    /// Counters for as many servers.
    pub fn new(servers: usize) -> Self {
        Self {
            running: (0..servers).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// Statements that run on `server` now.
    pub(super) fn of(&self, server: ServerId) -> usize {
        self.running
            .get(server.index())
            .map_or(0, |running| running.load(Relaxed))
    }

    /// Counts a statement on `server` for as long as the result lives.
    pub(super) fn count(&self, server: ServerId) -> Counted<'_> {
        let running = self.running.get(server.index());
        if let Some(running) = running {
            running.fetch_add(1, Relaxed);
        }
        Counted(running)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.0 {
            running.fetch_sub(1, Relaxed);
        }
    }
}
