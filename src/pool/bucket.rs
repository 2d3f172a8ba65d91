//! The connections of one server, account and wire profile.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dbproxy_proto::capability::Capabilities;
use tokio::time::Instant;
use tracing::debug;

use super::{
    Key, WorkerId,
    server::{Grant, ServerPool, Slot},
};
use crate::{
    backend::{BackendConn, Login, SessionState},
    config::rule::Priority,
    error::Error,
};

/// The connections of one server, account and wire profile; where the server is told of clients, for one address of theirs.
#[derive(Debug)]
pub struct Bucket {
    key: Key,
    server: Arc<ServerPool>,
    // One for each worker; the last used is at the end.
    shards: Box<[Mutex<Vec<Idle>>]>,
}

/// An open connection and its right to be open.
#[derive(Debug)]
pub(super) struct Entry {
    conn: Box<BackendConn>,
    slot: Slot,
    worker: WorkerId,
}

impl Entry {
    pub(super) fn into_slot(self) -> Slot {
        self.slot
    }
}

#[derive(Debug)]
struct Idle {
    entry: Entry,
    since: Instant,
    /// The session that may still ask for what its last statement left behind.
    holder: Option<u32>,
}

impl Idle {
    fn can_reach(&self, state: &SessionState) -> bool {
        reaches(&self.entry.conn, state)
    }
}

/// A connection with a schema cannot be without one again.
fn reaches(conn: &BackendConn, state: &SessionState) -> bool {
    state.schema().is_some() || conn.state().schema().is_none()
}

/// A connection that is checked out. Dropping it gives it back, or closes it if
/// an answer is still outstanding.
#[derive(Debug)]
pub struct PooledConn {
    // None only while dropping.
    entry: Option<Entry>,
    bucket: Arc<Bucket>,
    worker: WorkerId,
    holder: Option<u32>,
    was_held: bool,
}

/// From here on a sweep every second is exact enough for a connection that lies idle.
const SWEPT: Duration = Duration::from_secs(10);

impl Bucket {
    pub(super) fn new(key: Key, server: Arc<ServerPool>, workers: usize) -> Self {
        Self {
            key,
            server,
            shards: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether no connection lies in it.
    pub(super) fn is_empty(&self) -> bool {
        (0..self.shards.len()).all(|worker| {
            self.shard(WorkerId(worker))
                .is_none_or(|shard| shard.is_empty())
        })
    }

    /// The server's ids of the connections that lie in it.
    pub(super) fn idle_threads(&self) -> Vec<u32> {
        let shards = (0..self.shards.len()).filter_map(|worker| self.shard(WorkerId(worker)));
        shards
            .flat_map(|shard| {
                let ids = shard.iter().map(|idle| idle.entry.conn.thread_id());
                ids.collect::<Vec<_>>()
            })
            .collect()
    }

    fn id(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    fn shard(&self, worker: WorkerId) -> Option<MutexGuard<'_, Vec<Idle>>> {
        Some(
            self.shards
                .get(worker.0)?
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// The idle connection that `session` used last and that nobody used since.
    pub fn take_held(self: &Arc<Self>, worker: WorkerId, session: u32) -> Option<PooledConn> {
        let mut shard = self.shard(worker)?;
        let index = shard
            .iter()
            .rposition(|idle| idle.holder == Some(session))?;
        let idle = shard.remove(index);
        drop(shard);
        let mut conn = self.lend_idle(idle, worker).ok()?;
        conn.was_held = true;
        Some(conn)
    }

    /// An idle connection of this worker's that nobody holds: one that is in the very `state`
    /// before others, the last used first.
    pub fn take(self: &Arc<Self>, worker: WorkerId, state: &SessionState) -> Option<PooledConn> {
        let free = |idle: &Idle| idle.holder.is_none() && idle.can_reach(state);
        let ready = |idle: &Idle| {
            idle.holder.is_none() && idle.entry.conn.state().fingerprint() == state.fingerprint()
        };
        loop {
            let idle = self.pick(worker, |shard| {
                shard
                    .iter()
                    .rposition(ready)
                    .or_else(|| shard.iter().rposition(free))
            })?;
            if let Ok(conn) = self.lend_idle(idle, worker) {
                return Some(conn);
            }
        }
    }

    fn pick(&self, worker: WorkerId, choose: impl Fn(&[Idle]) -> Option<usize>) -> Option<Idle> {
        let mut shard = self.shard(worker)?;
        let index = choose(&shard)?;
        Some(shard.remove(index))
    }

    /// How long a connection may lie idle: far enough from the time after which its server closes it.
    fn patience(&self, conn: &BackendConn) -> Duration {
        let server = self.server.wait_timeout();
        conn.state()
            .wait_timeout()
            .map_or(server, |own| own.min(server))
            / 2
    }

    fn lend_idle(self: &Arc<Self>, idle: Idle, worker: WorkerId) -> Result<PooledConn, Slot> {
        let patience = self.patience(&idle.entry.conn);
        // Longer ones are for the sweep: the usual checkout reads no clock.
        if patience < SWEPT && idle.since.elapsed() > patience {
            return Err(idle.entry.slot);
        }
        self.lend(idle.entry, worker)
    }

    /// If the server has closed the connection meanwhile: its right to be open.
    fn lend(self: &Arc<Self>, mut entry: Entry, worker: WorkerId) -> Result<PooledConn, Slot> {
        if !entry.conn.is_alive() {
            return Err(entry.slot);
        }
        if entry.worker != worker {
            let Entry { conn, slot, .. } = entry;
            match conn.rebind() {
                Ok(conn) => {
                    entry = Entry {
                        conn: Box::new(conn),
                        slot,
                        worker,
                    }
                }
                Err(_) => return Err(slot),
            }
        }
        Ok(self.lent(entry, worker))
    }

    fn lent(self: &Arc<Self>, entry: Entry, worker: WorkerId) -> PooledConn {
        PooledConn {
            entry: Some(entry),
            bucket: Arc::clone(self),
            worker,
            holder: None,
            was_held: false,
        }
    }

    /// An idle connection from anywhere, this worker's first, the last used first.
    fn take_anywhere(
        self: &Arc<Self>,
        worker: WorkerId,
        fits: impl Fn(&Idle) -> bool,
    ) -> Option<PooledConn> {
        let count = self.shards.len();
        let workers = || (0..count).map(|offset| WorkerId((worker.0 + offset) % count));
        let choose = |shard: &[Idle]| shard.iter().rposition(&fits);
        loop {
            let idle = workers().find_map(|other| self.pick(other, choose))?;
            if let Ok(conn) = self.lend_idle(idle, worker) {
                return Some(conn);
            }
        }
    }

    /// An idle connection to be closed for the sake of another one.
    pub(super) fn take_oldest(&self) -> Option<Entry> {
        let any = |shard: &[Idle]| (!shard.is_empty()).then_some(0);
        (0..self.shards.len())
            .find_map(|worker| self.pick(WorkerId(worker), any))
            .map(|idle| idle.entry)
    }

    /// A connection that can be taken to `state`, for one or more statements.
    ///
    /// Idle ones first (this worker's, then another's), then a new one as long
    /// as the server's cap allows, then those held for other sessions, then the
    /// right of an idle one that does not fit; at last a place in line, by `priority`.
    pub async fn checkout(
        self: &Arc<Self>,
        worker: WorkerId,
        login: &Login,
        state: &SessionState,
        priority: Priority,
    ) -> Result<PooledConn, Error> {
        let free = |idle: &Idle| idle.holder.is_none() && idle.can_reach(state);
        if !self.server.has_waiters() {
            if let Some(conn) = self.take_anywhere(worker, free) {
                return Ok(conn);
            }
            if let Some(slot) = self.server.slot() {
                return self.open(slot, worker, login).await;
            }
        }
        let place = self.server.join(self.id(), priority, Instant::now())?;
        // After the place is taken, so that what was returned a moment before is not missed.
        let held = |idle: &Idle| idle.can_reach(state);
        let found = self
            .take_anywhere(worker, free)
            .or_else(|| self.take_anywhere(worker, held));
        if let Some(conn) = found {
            self.server.leave(place);
            return Ok(conn);
        }
        if let Some(slot) = self.server.slot().or_else(|| self.server.evict()) {
            self.server.leave(place);
            return self.open(slot, worker, login).await;
        }
        debug!(server = %self.server.target.name, "a statement waits for a connection");
        let slot = match self.server.wait(place).await? {
            Grant::Slot(slot) => slot,
            Grant::Conn(entry) if !reaches(&entry.conn, state) => entry.slot,
            Grant::Conn(entry) => match self.lend(entry, worker) {
                Ok(conn) => return Ok(conn),
                Err(slot) => slot,
            },
        };
        self.open(slot, worker, login).await
    }

    async fn open(
        self: &Arc<Self>,
        slot: Slot,
        worker: WorkerId,
        login: &Login,
    ) -> Result<PooledConn, Error> {
        let conn = BackendConn::connect(&self.server.target, login, self.key.profile).await?;
        let entry = Entry {
            conn: Box::new(conn),
            slot,
            worker,
        };
        Ok(self.lent(entry, worker))
    }

    /// Ends what runs on one of the server's connections, over a connection of its own,
    /// unless `still_runs` says by then that it has ended.
    pub async fn kill_query(
        &self,
        login: &Login,
        thread_id: u32,
        still_runs: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let _turn = self.server.kills.acquire().await;
        let target = &self.server.target;
        let conn = BackendConn::connect(target, login, Capabilities::empty()).await?;
        if still_runs() {
            conn.kill_query(thread_id).await
        } else {
            Ok(())
        }
    }

    fn put(self: &Arc<Self>, entry: Entry, worker: WorkerId, holder: Option<u32>) {
        let entry = if self.server.has_waiters() {
            match self.server.serve(self.id(), entry) {
                Some(entry) => entry,
                None => return,
            }
        } else {
            entry
        };
        if let Some(mut shard) = self.shard(worker) {
            shard.push(Idle {
                entry,
                since: Instant::now(),
                holder,
            });
        }
        // Somebody may have joined the line between the first look and the push.
        if self.server.has_waiters()
            && let Some(idle) = self.pick(worker, |shard| shard.len().checked_sub(1))
        {
            drop(self.server.serve(self.id(), idle.entry));
        }
    }

    /// Ends the hold of a session that leaves.
    pub fn release_held(&self, worker: WorkerId, session: u32) {
        let Some(mut shard) = self.shard(worker) else {
            return;
        };
        shard
            .iter_mut()
            .filter(|idle| idle.holder == Some(session))
            .for_each(|idle| idle.holder = None);
    }

    pub(super) fn sweep(&self, worker: WorkerId, now: Instant, limit: Duration) {
        let Some(mut shard) = self.shard(worker) else {
            return;
        };
        let expired = |idle: &mut Idle| {
            let limit = limit.min(self.patience(&idle.entry.conn));
            now.saturating_duration_since(idle.since) > limit || !idle.entry.conn.is_alive()
        };
        let closed: Vec<_> = shard.extract_if(.., expired).collect();
        // Closing takes the line's lock: not under the shard's.
        drop(shard);
        drop(closed);
    }
}

impl PooledConn {
    /// Keeps the connection for `session` after it is given back, unless it is
    /// needed elsewhere: its next statement may ask about this one.
    pub fn hold_for(&mut self, session: u32) {
        self.holder = Some(session);
    }

    /// Whether it was kept, and is as the session's own last statement there left it.
    pub fn was_held(&self) -> bool {
        self.was_held
    }

    /// Where it came from.
    pub fn bucket(&self) -> Arc<Bucket> {
        Arc::clone(&self.bucket)
    }
}

impl Deref for PooledConn {
    type Target = BackendConn;

    #[allow(clippy::expect_used)]
    fn deref(&self) -> &BackendConn {
        &self
            .entry
            .as_ref()
            .expect("only dropping takes the entry")
            .conn
    }
}

impl DerefMut for PooledConn {
    #[allow(clippy::expect_used)]
    fn deref_mut(&mut self) -> &mut BackendConn {
        &mut self
            .entry
            .as_mut()
            .expect("only dropping takes the entry")
            .conn
    }
}

impl Drop for PooledConn {
    fn drop(&mut self) {
        if let Some(mut entry) = self.entry.take()
            && entry.conn.clean_up()
        {
            self.bucket.put(entry, self.worker, self.holder);
        }
    }
}
