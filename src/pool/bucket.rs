//! The connections of one server, account and wire profile.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dbproxy_proto::capability::Capabilities;
use tokio::time::Instant;

use super::{
    Key, WorkerId,
    server::{Grant, ServerPool, Slot},
};
use crate::{
    backend::{BackendConn, Login},
    error::{Error, ErrorKind},
};

/// The connections of one server, account and wire profile.
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

impl Bucket {
    pub(super) fn new(key: Key, server: Arc<ServerPool>, workers: usize) -> Self {
        Self {
            key,
            server,
            shards: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
        }
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
        let mut conn = self.lend(idle, worker)?;
        conn.was_held = true;
        Some(conn)
    }

    /// An idle connection of this worker's that nobody holds: one that is in the state with
    /// this fingerprint before others, the last used first.
    pub fn take(self: &Arc<Self>, worker: WorkerId, fingerprint: u64) -> Option<PooledConn> {
        let free = |idle: &Idle| idle.holder.is_none();
        let ready =
            |idle: &Idle| free(idle) && idle.entry.conn.state().fingerprint() == fingerprint;
        loop {
            let idle = self.pick(worker, |shard| {
                shard
                    .iter()
                    .rposition(ready)
                    .or_else(|| shard.iter().rposition(free))
            })?;
            if let Some(conn) = self.lend(idle, worker) {
                return Some(conn);
            }
        }
    }

    fn pick(&self, worker: WorkerId, choose: impl Fn(&[Idle]) -> Option<usize>) -> Option<Idle> {
        let mut shard = self.shard(worker)?;
        let index = choose(&shard)?;
        Some(shard.remove(index))
    }

    /// None if the server has closed the connection meanwhile.
    fn lend(self: &Arc<Self>, idle: Idle, worker: WorkerId) -> Option<PooledConn> {
        let mut entry = idle.entry;
        if !entry.conn.is_alive() {
            return None;
        }
        if entry.worker != worker {
            entry = Entry {
                conn: Box::new(entry.conn.rebind().ok()?),
                slot: entry.slot,
                worker,
            };
        }
        Some(PooledConn {
            entry: Some(entry),
            bucket: Arc::clone(self),
            worker,
            holder: None,
            was_held: false,
        })
    }

    /// An idle connection from anywhere, those that nobody holds first.
    fn take_anywhere(self: &Arc<Self>, worker: WorkerId) -> Option<PooledConn> {
        let workers = || {
            (0..self.shards.len()).map(|offset| WorkerId((worker.0 + offset) % self.shards.len()))
        };
        let free = |shard: &[Idle]| shard.iter().rposition(|idle| idle.holder.is_none());
        loop {
            let idle = workers().find_map(|other| self.pick(other, free))?;
            if let Some(conn) = self.lend(idle, worker) {
                return Some(conn);
            }
        }
    }

    fn take_from_holder(self: &Arc<Self>, worker: WorkerId) -> Option<PooledConn> {
        loop {
            let any = |shard: &[Idle]| (!shard.is_empty()).then_some(0);
            let idle = (0..self.shards.len()).find_map(|other| self.pick(WorkerId(other), any))?;
            if let Some(conn) = self.lend(idle, worker) {
                return Some(conn);
            }
        }
    }

    /// An idle connection to be closed for the sake of another bucket.
    pub(super) fn take_oldest(&self) -> Option<Entry> {
        let any = |shard: &[Idle]| (!shard.is_empty()).then_some(0);
        (0..self.shards.len())
            .find_map(|worker| self.pick(WorkerId(worker), any))
            .map(|idle| idle.entry)
    }

    /// A connection for one or more statements.
    ///
    /// Idle ones first (this worker's, then another's), then a new one as long
    /// as the server's cap allows, then those held for other sessions, then the
    /// right of another account's idle one; at last a place in line.
    pub async fn checkout(
        self: &Arc<Self>,
        worker: WorkerId,
        login: &Login,
    ) -> Result<PooledConn, Error> {
        if !self.server.has_waiters() {
            if let Some(conn) = self.take_anywhere(worker) {
                return Ok(conn);
            }
            if let Some(slot) = self.server.slot() {
                return self.open(slot, worker, login).await;
            }
        }
        let place = self.server.join(self.id(), Instant::now())?;
        // After the place is taken, so that what was returned a moment before is not missed.
        if place.first {
            if let Some(conn) = self
                .take_anywhere(worker)
                .or_else(|| self.take_from_holder(worker))
            {
                return Ok(conn);
            }
            if let Some(slot) = self.server.slot().or_else(|| self.server.evict()) {
                return self.open(slot, worker, login).await;
            }
        }
        match self.server.wait(place).await? {
            Grant::Slot(slot) => self.open(slot, worker, login).await,
            Grant::Conn(entry) => {
                let idle = Idle {
                    entry,
                    since: Instant::now(),
                    holder: None,
                };
                self.lend(idle, worker)
                    .ok_or_else(|| Error::server(ErrorKind::Closed))
            }
        }
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
        Ok(PooledConn {
            entry: Some(entry),
            bucket: Arc::clone(self),
            worker,
            holder: None,
            was_held: false,
        })
    }

    /// Ends what runs on one of this account's connections, over a connection of its own.
    pub async fn kill_query(&self, login: &Login, thread_id: u32) -> Result<(), Error> {
        let _turn = self.server.kills.acquire().await;
        BackendConn::connect(&self.server.target, login, Capabilities::empty())
            .await?
            .kill_query(thread_id)
            .await
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
