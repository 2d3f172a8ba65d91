//! What others may know of a session, and how they reach it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
};

use dashmap::DashMap;
use tokio::sync::Notify;

use crate::topology::ServerId;

/// The sessions of the proxy by the connection ids that their clients know.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: DashMap<u32, Arc<Handle>>,
    count: AtomicUsize,
    last: AtomicU32,
    stopping: AtomicBool,
}

/// One session, as seen by others.
#[derive(Debug)]
pub struct Handle {
    id: u32,
    /// Server (plus one, in the high half) and thread id of the statement that runs now; 0 if none.
    running: AtomicU64,
    killed: AtomicBool,
    stopping: AtomicBool,
    /// A server (plus one) that is down: whoever runs a statement there should not wait for it.
    down: AtomicU32,
    changed: Notify,
    user: Mutex<Option<Arc<str>>>,
}

/// The mark that a statement runs.
#[derive(Debug)]
pub(super) struct Running<'a>(&'a Handle);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.store(0, SeqCst);
    }
}

/// Why a session should not wait any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Another session killed it.
    Killed,
    /// The server that runs its statement is down.
    ServerDown,
}

/// A session's place in the registry. Dropping it gives the place up.
#[derive(Debug)]
pub struct Registration {
    registry: Arc<Registry>,
    handle: Arc<Handle>,
}

impl Registry {
    /// Registers a new session; None if there are `limit` already.
    pub fn register(self: &Arc<Self>, limit: usize) -> Option<Registration> {
        let below = |count| (count < limit).then_some(count + 1);
        self.count.fetch_update(SeqCst, SeqCst, below).ok()?;
        loop {
            let id = self.last.fetch_add(1, Relaxed).wrapping_add(1);
            if id == 0 || self.sessions.contains_key(&id) {
                continue;
            }
            let handle = Arc::new(Handle {
                id,
                running: AtomicU64::new(0),
                killed: AtomicBool::new(false),
                stopping: AtomicBool::new(self.stopping.load(SeqCst)),
                down: AtomicU32::new(0),
                changed: Notify::new(),
                user: Mutex::default(),
            });
            self.sessions.insert(id, Arc::clone(&handle));
            return Some(Registration {
                registry: Arc::clone(self),
                handle,
            });
        }
    }

    /// The session that a client knows by this id.
    pub fn find(&self, id: u32) -> Option<Arc<Handle>> {
        self.sessions.get(&id).map(|entry| Arc::clone(&entry))
    }

    /// Sessions now.
    pub fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// Tells those who run a statement on `server` not to wait for it.
    pub fn server_down(&self, server: ServerId) {
        for entry in &self.sessions {
            if entry
                .running()
                .is_some_and(|(running, _)| running == server)
            {
                entry.down.store(u32::from(server.0) + 1, SeqCst);
                entry.changed.notify_one();
            }
        }
    }

    /// Tells every session to end after what it is doing now.
    pub fn stop(&self) {
        self.stopping.store(true, SeqCst);
        for entry in &self.sessions {
            entry.stopping.store(true, SeqCst);
            entry.changed.notify_one();
        }
    }
}

impl Handle {
    /// The connection id that the client knows.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn set_user(&self, user: &Arc<str>) {
        *self.user.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(user));
    }

    /// Whether the session is logged in as `user`.
    pub(super) fn belongs_to(&self, user: &Arc<str>) -> bool {
        self.user
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            == Some(user)
    }

    /// Where its statement runs: the server, and the server's id of the connection.
    pub fn running(&self) -> Option<(ServerId, u32)> {
        let packed = self.running.load(SeqCst);
        let server = u16::try_from(packed >> 32).ok()?.checked_sub(1)?;
        Some((ServerId(server), packed as u32))
    }

    /// A statement runs on this connection of a server's for as long as the result lives.
    pub(super) fn run_on(&self, server: ServerId, thread_id: u32) -> Running<'_> {
        self.running.store(
            (u64::from(server.0) + 1) << 32 | u64::from(thread_id),
            SeqCst,
        );
        Running(self)
    }

    /// Forgets the death of a server that an earlier statement was told of.
    pub(super) fn forget_down(&self) {
        self.down.store(0, SeqCst);
    }

    /// Ends the session.
    pub fn kill(&self) {
        self.killed.store(true, SeqCst);
        self.changed.notify_one();
    }

    /// Whether the session is to end after what it is doing now.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Whether a session that is waiting for its client should end.
    pub(super) fn has_ended(&self) -> bool {
        self.killed.load(SeqCst) || self.stopping.load(SeqCst)
    }

    /// Waits until a session that is waiting for its client should end.
    pub(super) async fn ended(&self) {
        while !self.has_ended() {
            self.changed.notified().await;
        }
    }

    /// Waits until the session is killed.
    pub(super) async fn killed(&self) {
        while !self.killed.load(SeqCst) {
            self.changed.notified().await;
        }
    }

    /// Waits until a session that is waiting for a server should not wait any longer.
    pub(super) async fn interrupted(&self) -> Interrupt {
        loop {
            if self.killed.load(SeqCst) {
                return Interrupt::Killed;
            }
            let down = self.down.swap(0, SeqCst);
            if down != 0
                && self
                    .running()
                    .is_some_and(|(server, _)| u32::from(server.0) + 1 == down)
            {
                return Interrupt::ServerDown;
            }
            self.changed.notified().await;
        }
    }
}

impl Registration {
    /// The session's handle.
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.sessions.remove(&self.handle.id);
        self.registry.count.fetch_sub(1, SeqCst);
    }
}
