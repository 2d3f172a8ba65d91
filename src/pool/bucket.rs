//! The connections of one server, account and wire profile.

mod upkeep;

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dbproxy_proto::capability::Capabilities;
use tokio::time::Instant;
use tracing::debug;

pub(super) use upkeep::Upkeep;

use super::{
    Key, WorkerId,
    gate::FULL,
    line::Claim,
    server::{Grant, Opening, ServerPool, Slot, Waited},
};
use crate::{
    backend::{BackendConn, Fault, Login, SessionState},
    error::Error,
};

/// The connections of one server, account and wire profile; where the server is told of clients, for one address of theirs.
#[derive(Debug)]
pub struct Bucket {
    key: Key,
    server: Arc<ServerPool>,
    // One for each worker.
    shards: Box<[Mutex<Shard>]>,
    upkeep: Upkeep,
    /// Who logs in to connections that are opened before anybody asks for them.
    known: Mutex<Option<Login>>,
}

#[derive(Debug, Default)]
struct Shard {
    /// The last used is at the end.
    idle: Vec<Idle>,
    /// When a session gave the last one back.
    used: Option<Instant>,
}

/// An open connection and its right to be open.
#[derive(Debug)]
pub(super) struct Entry {
    conn: Box<BackendConn>,
    slot: Slot,
    worker: WorkerId,
    /// When it has been open for long enough.
    expires: Instant,
}

impl Entry {
    pub(super) fn slot(&mut self) -> &mut Slot {
        &mut self.slot
    }

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
    /// It is to be closed as soon as that session does not.
    expired: bool,
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
    expired: bool,
}

/// From here on a sweep every second is exact enough for a connection that lies idle.
const SWEPT: Duration = Duration::from_secs(10);

impl Bucket {
    pub(super) fn new(key: Key, server: Arc<ServerPool>, workers: usize, upkeep: Upkeep) -> Self {
        Self {
            key,
            server,
            shards: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            upkeep,
            known: Mutex::default(),
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether no connection lies in it.
    pub(super) fn is_empty(&self) -> bool {
        self.all_shards().all(|shard| shard.idle.is_empty())
    }

    /// The server's ids of the connections that lie in it.
    pub(super) fn idle_threads(&self) -> Vec<u32> {
        self.all_shards()
            .flat_map(|shard| {
                let ids = shard.idle.iter().map(|idle| idle.entry.conn.thread_id());
                ids.collect::<Vec<_>>()
            })
            .collect()
    }

    fn id(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// One after the other.
    fn all_shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        (0..self.shards.len()).filter_map(|worker| self.shard(WorkerId(worker)))
    }

    fn shard(&self, worker: WorkerId) -> Option<MutexGuard<'_, Shard>> {
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
            .idle
            .iter()
            .rposition(|idle| idle.holder == Some(session))?;
        let idle = shard.idle.remove(index);
        drop(shard);
        let expired = idle.expired;
        let mut conn = self.lend_idle(idle, worker).ok()?;
        (conn.was_held, conn.expired) = (true, expired);
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
            if let Ok(conn) = self.lend_fresh(idle, worker) {
                return Some(conn);
            }
        }
    }

    fn pick(&self, worker: WorkerId, choose: impl Fn(&[Idle]) -> Option<usize>) -> Option<Idle> {
        let mut shard = self.shard(worker)?;
        let index = choose(&shard.idle)?;
        Some(shard.idle.remove(index))
    }

    /// How long a connection may lie idle: far enough from the time after which its server closes it.
    fn patience(&self, conn: &BackendConn) -> Duration {
        let server = self.server.wait_timeout();
        conn.state()
            .wait_timeout()
            .map_or(server, |own| own.min(server))
            / 2
    }

    /// The same to somebody whom it has nothing to tell.
    fn lend_fresh(self: &Arc<Self>, mut idle: Idle, worker: WorkerId) -> Result<PooledConn, Slot> {
        match idle.entry.conn.clean_up() {
            true => self.lend_idle(idle, worker),
            false => Err(idle.entry.slot),
        }
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
            // What this worker's reactor does not know yet, the system does.
            if !entry.conn.is_untouched() {
                return Err(entry.slot);
            }
            let Entry { conn, slot, .. } = entry;
            match conn.rebind() {
                Ok(conn) => {
                    entry = Entry {
                        conn: Box::new(conn),
                        slot,
                        worker,
                        expires: entry.expires,
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
            expired: false,
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
            if let Ok(conn) = self.lend_fresh(idle, worker) {
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

    /// Since when the connection lies here that was not used for longest.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.all_shards()
            .filter_map(|shard| Some(shard.idle.first()?.since))
            .min()
    }

    /// A connection for what nobody waits for: behind all who wait.
    pub async fn spare(
        self: &Arc<Self>,
        worker: WorkerId,
        login: &Login,
        state: &Arc<SessionState>,
    ) -> Result<PooledConn, Error> {
        match self.take(worker, state) {
            Some(conn) => Ok(conn),
            None => self.checkout(worker, login, state, Claim::LAST).await,
        }
    }

    /// A connection that can be taken to `state`, for one or more statements.
    ///
    /// Idle ones first (this worker's, then another's), then a new one as long
    /// as the server and its cap allow, then those held for other sessions, then the
    /// right of an idle one that does not fit; at last a place in line, by `claim` and by the account's share.
    pub async fn checkout(
        self: &Arc<Self>,
        worker: WorkerId,
        login: &Login,
        state: &SessionState,
        claim: Claim,
    ) -> Result<PooledConn, Error> {
        let mut waited = None;
        loop {
            match self.obtain(worker, state, claim, &mut waited).await? {
                Obtained::Conn(conn) => return Ok(conn),
                Obtained::Opening(opening) => match self.open(opening, worker, login).await {
                    Err(error) if error.is_answer(FULL) && self.server.is_waited_for() => {
                        debug!(server = %self.server.target.name, %error, "a statement waits for a connection");
                    }
                    opened => return Ok(self.lent(opened?, worker)),
                },
                Obtained::Nothing => {}
            }
        }
    }

    /// What the server has for a statement now, or when it is its turn.
    async fn obtain(
        self: &Arc<Self>,
        worker: WorkerId,
        state: &SessionState,
        claim: Claim,
        waited: &mut Option<Waited>,
    ) -> Result<Obtained, Error> {
        let (server, account) = (&self.server, &self.key.account);
        let free = |idle: &Idle| idle.holder.is_none() && idle.can_reach(state);
        if !server.has_waiters() {
            if let Some(conn) = self.take_anywhere(worker, free) {
                return Ok(Obtained::Conn(conn));
            }
            if let Some(opening) = server.begin(account)? {
                return Ok(Obtained::Opening(opening));
            }
        }
        let place = server.join((self.id(), account), claim, Instant::now(), *waited)?;
        *waited = Some(place.waited);
        // After the place is taken, so that what was returned a moment before is not missed.
        let held = |idle: &Idle| idle.can_reach(state);
        let found = self
            .take_anywhere(worker, free)
            .or_else(|| self.take_anywhere(worker, held));
        if let Some(conn) = found {
            return Ok(Obtained::Conn(conn));
        }
        server.advance();
        debug!(server = %server.target.name, "a statement waits for a connection");
        Ok(match server.wait(place).await? {
            Grant::Opening(opening) => Obtained::Opening(opening),
            Grant::Refused(error) => return Err(error),
            Grant::Conn(entry) if !reaches(&entry.conn, state) => {
                Obtained::Opening(server.exchange(entry.slot))
            }
            // If it has died meanwhile, its slot is the next one's in line.
            Grant::Conn(mut entry) => match entry.conn.clean_up() {
                true => self
                    .lend(entry, worker)
                    .map_or(Obtained::Nothing, Obtained::Conn),
                false => Obtained::Nothing,
            },
        })
    }

    async fn open(
        &self,
        opening: Opening,
        worker: WorkerId,
        login: &Login,
    ) -> Result<Entry, Error> {
        let target = &self.server.target;
        let conn = match BackendConn::connect(target, login, self.key.profile).await {
            Ok(conn) => conn,
            Err(failure) => {
                opening.failed(&failure);
                if failure.fault == Fault::Account {
                    // Its password may have changed: who knows better says so by logging in.
                    *self.known() = None;
                }
                return Err(failure.error);
            }
        };
        // Of clients that are told apart by their addresses there may be any number.
        if self.upkeep.warm > 0 && self.key.client.is_none() && !login.expired {
            self.known().get_or_insert_with(|| login.clone());
        }
        let seed = conn.thread_id();
        Ok(Entry {
            conn: Box::new(conn),
            slot: opening.succeeded(),
            worker,
            expires: Instant::now() + upkeep::lifetime(self.upkeep.age, seed),
        })
    }

    fn known(&self) -> MutexGuard<'_, Option<Login>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        let conn = BackendConn::connect(target, login, Capabilities::empty())
            .await
            .map_err(|failure| failure.error)?;
        if still_runs() {
            conn.kill_query(thread_id).await
        } else {
            Ok(())
        }
    }

    fn put(self: &Arc<Self>, entry: Entry, worker: WorkerId, holder: Option<u32>) {
        let now = Instant::now();
        // What a session may still ask about is not closed under it.
        let expired = now >= entry.expires;
        if expired && holder.is_none() {
            return;
        }
        let entry = if self.server.has_waiters() {
            match self.server.serve(self.id(), entry) {
                Some(entry) => entry,
                None => return,
            }
        } else {
            entry
        };
        if let Some(mut shard) = self.shard(worker) {
            shard.used = Some(now);
            shard.idle.push(Idle {
                entry,
                since: now,
                holder,
                expired,
            });
        }
        self.offer_last(worker);
    }

    /// Somebody may have joined the line between the look at it and the push.
    fn offer_last(self: &Arc<Self>, worker: WorkerId) {
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
            .idle
            .iter_mut()
            .filter(|idle| idle.holder == Some(session))
            .for_each(|idle| idle.holder = None);
    }
}

/// What a statement gets.
enum Obtained {
    Conn(PooledConn),
    Opening(Opening),
    /// What was there is not any more.
    Nothing,
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

    /// Whether it was kept for longer than a connection is used: given back, it is closed.
    pub fn is_expired(&self) -> bool {
        self.expired
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
        let Some(mut entry) = self.entry.take() else {
            return;
        };
        let good = match self.holder {
            // As it is, until it is lent to somebody else.
            Some(_) => entry.conn.is_idle(),
            None => entry.conn.clean_up(),
        };
        if good {
            self.bucket.put(entry, self.worker, self.holder);
        }
    }
}
