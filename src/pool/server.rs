//! The hard cap of one server, and the line of those who wait for a connection.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout},
};

use super::bucket::{Bucket, Entry};
use crate::{
    backend::Target,
    config::{Limits, rule::Priority},
    error::{Error, Origin},
};

/// One server's connections over all workers.
#[derive(Debug)]
pub(super) struct ServerPool {
    pub(super) target: Target,
    limit: usize,
    queue_depth: usize,
    queue_wait: Duration,
    open: AtomicUsize,
    /// Milliseconds after which the server closes an idle connection.
    wait_timeout: AtomicU64,
    // Equal to the length of the line, so that a return need not take the lock.
    waiting: AtomicUsize,
    line: Mutex<Line>,
    buckets: Mutex<Vec<Weak<Bucket>>>,
    /// Connections beyond the cap, for ending queries of clients that left.
    pub(super) kills: Semaphore,
}

const KILLS: usize = 4;

#[derive(Debug, Default)]
struct Line {
    waiters: VecDeque<Waiter>,
    /// Since when there has been somebody waiting.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    bucket: usize,
    priority: Priority,
    grant: oneshot::Sender<Grant>,
}

/// What somebody in the line gets.
#[derive(Debug)]
pub(super) enum Grant {
    /// A connection of the bucket that was asked for.
    Conn(Entry),
    /// The right to open one.
    Slot(Slot),
}

/// A place in the line.
#[derive(Debug)]
pub(super) struct Place {
    granted: oneshot::Receiver<Grant>,
}

/// The right to have one connection open. Dropping it passes it to the next in line.
#[derive(Debug)]
pub(super) struct Slot(Arc<ServerPool>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
        self.0.serve_slot();
    }
}

impl ServerPool {
    pub(super) fn new(target: Target, limits: &Limits) -> Self {
        Self {
            target,
            limit: limits.server_connections,
            queue_depth: limits.queue_depth,
            queue_wait: limits.queue_wait,
            open: AtomicUsize::new(0),
            wait_timeout: AtomicU64::new(u64::MAX),
            waiting: AtomicUsize::new(0),
            line: Mutex::default(),
            buckets: Mutex::default(),
            kills: Semaphore::new(KILLS),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// After this time the server closes an idle connection.
    pub(super) fn wait_timeout(&self) -> Duration {
        Duration::from_millis(self.wait_timeout.load(Relaxed))
    }

    pub(super) fn set_wait_timeout(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.wait_timeout.store(millis, Relaxed);
    }

    pub(super) fn adopt(&self, bucket: &Arc<Bucket>) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        // Only then, so that it costs little however many there are.
        if buckets.len() == buckets.capacity() {
            buckets.retain(|bucket| bucket.strong_count() > 0);
        }
        buckets.push(Arc::downgrade(bucket));
    }

    #[cfg(test)]
    pub(super) fn adopted(&self) -> usize {
        self.buckets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to open a connection, if the cap leaves one and nobody is in line for it.
    pub(super) fn slot(self: &Arc<Self>) -> Option<Slot> {
        let below = |open| (open < self.limit).then_some(open + 1);
        let before = self.open.fetch_update(SeqCst, SeqCst, below).ok()?;
        if before == 0 {
            // As after a restart of the server.
            self.target.accepted.clear();
        }
        Some(Slot(Arc::clone(self)))
    }

    /// Closes an idle connection of any bucket and returns its right to be open.
    pub(super) fn evict(&self) -> Option<Slot> {
        let buckets = self
            .buckets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        buckets
            .iter()
            .filter_map(Weak::upgrade)
            .find_map(|bucket| bucket.take_oldest())
            .map(Entry::into_slot)
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Gives a connection that is free to the first in line. Returns it if nobody waits.
    pub(super) fn serve(&self, bucket: usize, mut entry: Entry) -> Option<Entry> {
        while let Some(waiter) = self.next_in_line() {
            let grant = if waiter.bucket == bucket {
                Grant::Conn(entry)
            } else {
                Grant::Slot(entry.into_slot())
            };
            match waiter.grant.send(grant) {
                Ok(()) => return None,
                // Given up meanwhile.
                Err(Grant::Conn(back)) => entry = back,
                // Dropping the slot serves the next in line.
                Err(Grant::Slot(_)) => return None,
            }
        }
        Some(entry)
    }

    fn serve_slot(self: &Arc<Self>) {
        if !self.has_waiters() {
            return;
        }
        let Some(mut slot) = self.slot() else { return };
        while let Some(waiter) = self.next_in_line() {
            match waiter.grant.send(Grant::Slot(slot)) {
                Err(Grant::Slot(back)) => slot = back,
                Ok(()) | Err(Grant::Conn(_)) => return,
            }
        }
    }

    fn next_in_line(&self) -> Option<Waiter> {
        let mut line = self.line();
        let waiter = line.waiters.pop_front();
        self.waiting.store(line.waiters.len(), SeqCst);
        if line.waiters.is_empty() {
            line.since = None;
        }
        waiter
    }

    /// Takes a place in the line, behind all of the same priority. Dropping the place gives it up.
    pub(super) fn join(
        &self,
        bucket: usize,
        priority: Priority,
        now: Instant,
    ) -> Result<Place, Error> {
        let (grant, granted) = oneshot::channel();
        let mut line = self.line();
        line.waiters.retain(|waiter| !waiter.grant.is_closed());
        if line.waiters.len() >= self.queue_depth {
            let what = format!(
                "limits.queue_depth = {} statements are waiting",
                self.queue_depth
            );
            return Err(self.full(line.since, now, &what));
        }
        line.since.get_or_insert(now);
        let behind = |waiter: &Waiter| waiter.priority >= priority;
        let place = line.waiters.partition_point(behind);
        let waiter = Waiter {
            bucket,
            priority,
            grant,
        };
        line.waiters.insert(place, waiter);
        self.waiting.store(line.waiters.len(), SeqCst);
        Ok(Place { granted })
    }

    /// Gives up a place.
    pub(super) fn leave(&self, place: Place) {
        drop(place);
        let mut line = self.line();
        line.waiters.retain(|waiter| !waiter.grant.is_closed());
        self.waiting.store(line.waiters.len(), SeqCst);
        if line.waiters.is_empty() {
            line.since = None;
        }
    }

    /// Waits until it is this place's turn.
    pub(super) async fn wait(&self, place: Place) -> Result<Grant, Error> {
        match timeout(self.queue_wait, place.granted).await {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(_)) | Err(_) => {
                let since = self.line().since;
                let what = format!("no connection became free within {:?}", self.queue_wait);
                Err(self.full(since, Instant::now(), &what))
            }
        }
    }

    fn full(&self, since: Option<Instant>, now: Instant, what: &str) -> Error {
        let waiting = since.map_or_else(Duration::default, |since| {
            now.saturating_duration_since(since)
        });
        Error::answer_with(
            Origin::Proxy,
            1040,
            b"08004",
            format!(
                "Too many connections: {what}: server {} has {} of limits.server_connections = {} open, \
                 and statements have been waiting for {:.1} s",
                self.target.name,
                self.open(),
                self.limit,
                waiting.as_secs_f64()
            ),
        )
    }
}
