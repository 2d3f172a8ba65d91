//! What others may know of a session, and how they reach it.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst,
        },
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::sync::Notify;

use super::limits::{Doorstep, Place, Seat, Source, Tally};
use super::pins::PinCounts;
use crate::{accounts::AccountKey, config::Limits, error::Answer, net::Peer, topology::ServerId};

/// The sessions of the proxy by the connection ids that their clients know.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: DashMap<u32, Arc<Handle>>,
    count: AtomicUsize,
    last: AtomicU32,
    stopping: AtomicBool,
    doorstep: Doorstep,
    addresses: Arc<Tally<Source>>,
    accounts: Arc<Tally<AccountKey>>,
    pins: Arc<PinCounts>,
}

/// Which limit leaves no room for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `limits.connections`
    Connections,
    /// `limits.address_connections`
    Address,
}

/// The ids of sessions begin here: servers count from 1, so that an id says whose it is. They stay below twice that: some
/// clients read an id as a signed number, and what they then kill is nobody.
const FIRST: u32 = 1 << 30;

fn packed(server: ServerId, thread_id: u32) -> u64 {
    (u64::from(server.0) + 1) << 32 | u64::from(thread_id)
}

fn unpacked(packed: u64) -> Option<(ServerId, u32)> {
    let server = u16::try_from(packed >> 32).ok()?.checked_sub(1)?;
    Some((ServerId(server), packed as u32))
}

impl Full {
    /// What the client is told.
    pub fn answer(self, address: Option<IpAddr>, limits: &Limits) -> Answer {
        let text = match (self, address, limits.address_connections) {
            (Self::Address, Some(address), Some(limit)) => {
                format!("Too many connections from {address}: limits.address_connections = {limit}")
            }
            _ => format!(
                "Too many connections: limits.connections = {}",
                limits.connections
            ),
        };
        Answer::new(1040, b"08004", text)
    }
}

/// One session, as seen by others.
#[derive(Debug)]
pub struct Handle {
    id: u32,
    /// Server (plus one, in the high half) and thread id of the statement that runs now; 0 if none.
    running: AtomicU64,
    /// The same of the connection that it keeps between its statements.
    held: AtomicU64,
    killed: AtomicBool,
    /// Killed for the sake of another client on its way in.
    crowded_out: AtomicBool,
    stopping: AtomicBool,
    /// A server (plus one) that is down: whoever runs a statement there should not wait for it.
    down: AtomicU32,
    /// Ticks that the client has been idle, plus one; 0 while it is not, [`OVERDUE`] when it was for too long.
    idle: AtomicU32,
    /// Ticks that it may be.
    patience: AtomicU32,
    changed: Notify,
    holder: Mutex<Option<Holder>>,
}

/// Whose session it is.
#[derive(Debug)]
struct Holder {
    user: Arc<str>,
    peer: Peer,
    schema: Option<Box<[u8]>>,
}

/// What others may see of a session.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) id: u32,
    pub(super) user: Arc<str>,
    /// The client's address and port, as servers write them.
    pub(super) host: String,
    pub(super) schema: Option<Box<[u8]>>,
    /// Seconds since it has said something; `None` if it waits for an answer.
    pub(super) idle: Option<u32>,
    /// The id of its connection to the server that is looked at, if it has one there.
    pub(super) thread: Option<u32>,
    /// A statement runs there.
    pub(super) runs: bool,
}

impl Holder {
    /// Whether servers would write the client's host like this.
    fn is_from(&self, host: &[u8]) -> bool {
        let address = match self.peer {
            Peer::Unix => return host == b"localhost",
            Peer::Tcp(address) => address.ip().to_canonical(),
        };
        (address.is_loopback() && host == b"localhost") || host == address.to_string().as_bytes()
    }

    fn host(&self) -> String {
        match self.peer {
            Peer::Unix => "localhost".into(),
            Peer::Tcp(address) => format!("{}:{}", address.ip().to_canonical(), address.port()),
        }
    }
}

/// Of a client that was idle for too long.
const OVERDUE: u32 = u32::MAX;

/// The time from one [`Registry::tick`] to the next.
pub const TICK: Duration = Duration::from_secs(1);

/// Why a session that waits for its client should not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dismissal {
    /// It was killed, or the proxy stops.
    Ended,
    /// Its client was idle for too long.
    Overdue,
}

/// The mark that a statement runs.
#[derive(Debug)]
pub(super) struct Running<'a> {
    handle: &'a Handle,
    /// What ran before, and still does.
    before: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.handle.running.store(self.before, SeqCst);
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
    /// Until it is logged in.
    place: Option<Place>,
    address: Option<Seat<Source>>,
}

impl Registry {
    /// How often and for how long its sessions were tied to connections.
    pub fn pins(&self) -> &Arc<PinCounts> {
        &self.pins
    }

    /// Registers a client on its way in, from an address if it has one. `counted`: the address is the client's own, for
    /// which there may be a limit.
    ///
    /// Where there are as many as there may be, one that is not logged in yet makes room for it.
    pub fn register(
        self: &Arc<Self>,
        source: Option<Source>,
        counted: bool,
        limits: &Limits,
    ) -> Result<Registration, Full> {
        let address = self.seat_from(source.filter(|_| counted), limits)?;
        if self.count.fetch_add(1, SeqCst) >= limits.connections {
            // It takes the place of one that is sent away, however long that takes to go.
            self.count.fetch_sub(1, SeqCst);
            if !self.doorstep.thin() {
                return Err(Full::Connections);
            }
        }
        loop {
            let id = FIRST + self.last.fetch_add(1, Relaxed).wrapping_add(1) % FIRST;
            if self.sessions.contains_key(&id) {
                continue;
            }
            let handle = Arc::new(Handle {
                id,
                running: AtomicU64::new(0),
                held: AtomicU64::new(0),
                killed: AtomicBool::new(false),
                crowded_out: AtomicBool::new(false),
                stopping: AtomicBool::new(self.stopping.load(SeqCst)),
                down: AtomicU32::new(0),
                idle: AtomicU32::new(0),
                patience: AtomicU32::new(u32::MAX),
                changed: Notify::new(),
                holder: Mutex::default(),
            });
            self.sessions.insert(id, Arc::clone(&handle));
            let place = self.join_doorstep(source, &handle, limits);
            return Ok(Registration {
                registry: Arc::clone(self),
                handle,
                place: Some(place),
                address,
            });
        }
    }

    fn join_doorstep(
        &self,
        source: Option<Source>,
        handle: &Arc<Handle>,
        limits: &Limits,
    ) -> Place {
        let (place, thinned) = self
            .doorstep
            .join(source, Arc::clone(handle), limits.logins);
        if thinned {
            self.count.fetch_sub(1, SeqCst);
        }
        place
    }

    fn seat_from(
        &self,
        source: Option<Source>,
        limits: &Limits,
    ) -> Result<Option<Seat<Source>>, Full> {
        match (source, limits.address_connections) {
            (Some(source), Some(limit)) => {
                let seat = self.addresses.enter(source, limit);
                seat.map(Some).ok_or(Full::Address)
            }
            _ => Ok(None),
        }
    }

    /// A place for a session of this account; None if it has `limit` already.
    pub(super) fn seat(&self, account: &AccountKey, limit: usize) -> Option<Seat<AccountKey>> {
        self.accounts.enter(account.clone(), limit)
    }

    /// The session that a client knows by this id.
    pub fn find(&self, id: u32) -> Option<Arc<Handle>> {
        self.sessions.get(&id).map(|entry| Arc::clone(&entry))
    }

    /// The sessions that are logged in, as others may see them who look at `server`; in the order of their ids.
    pub(super) fn list(&self, server: ServerId) -> Vec<Listed> {
        let sessions = self.sessions.iter();
        let mut list: Vec<_> = sessions.filter_map(|entry| entry.listed(server)).collect();
        list.sort_unstable_by_key(|session| session.id);
        list
    }

    /// The sessions of a user, from one host or from any.
    pub(super) fn sessions_of(&self, user: &[u8], host: Option<&[u8]>) -> Vec<Arc<Handle>> {
        let sessions = self.sessions.iter();
        let theirs = sessions.filter(|entry| {
            let holder = entry.holder();
            holder.as_ref().is_some_and(|holder| {
                holder.user.as_bytes() == user && host.is_none_or(|host| holder.is_from(host))
            })
        });
        theirs.map(|entry| Arc::clone(&entry)).collect()
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

    /// How many run a statement on `server`.
    pub fn running_on(&self, server: ServerId) -> usize {
        let there = self.sessions.iter().filter(|entry| {
            let running = entry.running();
            running.is_some_and(|(running, _)| running == server)
        });
        there.count()
    }

    /// How many run a statement on `server`, or keep a connection to it between their statements.
    pub fn attached_to(&self, server: ServerId) -> usize {
        let there = self.sessions.iter().filter(|entry| {
            let connection = entry.connection();
            connection.is_some_and(|(connected, _)| connected == server)
        });
        there.count()
    }

    /// Counts the time of idle clients. To be called every [`TICK`]: one clock for all of them.
    pub fn tick(&self) {
        for entry in &self.sessions {
            entry.tick();
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

    fn holder(&self) -> MutexGuard<'_, Option<Holder>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_user(&self, user: &Arc<str>, peer: Peer, schema: Option<&[u8]>) {
        let holder = Holder {
            user: Arc::clone(user),
            peer,
            schema: schema.map(Into::into),
        };
        *self.holder() = Some(holder);
    }

    /// The schema in use has changed.
    pub(super) fn set_schema(&self, schema: Option<&[u8]>) {
        if let Some(holder) = self.holder().as_mut() {
            holder.schema = schema.map(Into::into);
        }
    }

    fn listed(&self, server: ServerId) -> Option<Listed> {
        let holder = self.holder();
        let holder = holder.as_ref()?;
        let there = |place: &(ServerId, u32)| place.0 == server;
        let running = self.running().filter(there);
        let held = unpacked(self.held.load(SeqCst)).filter(there);
        let idle = match self.idle.load(Relaxed) {
            OVERDUE => Some(self.patience.load(Relaxed)),
            ticks => ticks.checked_sub(1),
        };
        Some(Listed {
            id: self.id,
            user: Arc::clone(&holder.user),
            host: holder.host(),
            schema: holder.schema.clone(),
            idle,
            thread: running.or(held).map(|(_, thread)| thread),
            runs: running.is_some(),
        })
    }

    /// Whether the session is logged in as `user`.
    pub(super) fn belongs_to(&self, user: &Arc<str>) -> bool {
        let holder = self.holder();
        holder.as_ref().is_some_and(|holder| holder.user == *user)
    }

    /// Where its statement runs: the server, and the server's id of the connection.
    pub fn running(&self) -> Option<(ServerId, u32)> {
        unpacked(self.running.load(SeqCst))
    }

    /// The connection that runs its statement, or that it keeps between its statements.
    pub(super) fn connection(&self) -> Option<(ServerId, u32)> {
        self.running().or_else(|| unpacked(self.held.load(SeqCst)))
    }

    /// The session keeps this connection until its next statement.
    pub(super) fn hold(&self, server: ServerId, thread_id: u32) {
        self.held.store(packed(server, thread_id), SeqCst);
    }

    /// The session keeps no connection.
    pub(super) fn release(&self) {
        if self.held.load(SeqCst) != 0 {
            self.held.store(0, SeqCst);
        }
    }

    /// A statement runs on this connection of a server's for as long as the result lives.
    pub(super) fn run_on(&self, server: ServerId, thread_id: u32) -> Running<'_> {
        let before = self.running.swap(packed(server, thread_id), SeqCst);
        self.release();
        Running {
            handle: self,
            before,
        }
    }

    /// Forgets the death of a server that an earlier statement was told of.
    pub(super) fn forget_down(&self) {
        self.down.store(0, SeqCst);
    }

    /// How long the client may be idle.
    pub(super) fn set_patience(&self, patience: Duration) {
        let ticks = u32::try_from(patience.as_secs()).unwrap_or(u32::MAX);
        self.patience.store(ticks, Relaxed);
    }

    /// The client is idle from now on.
    pub(super) fn idle_begins(&self) {
        self.idle.store(1, Relaxed);
    }

    /// The client has said something.
    pub(super) fn idle_ends(&self) {
        self.idle.store(0, Relaxed);
    }

    fn tick(&self) {
        let patience = self.patience.load(Relaxed);
        let count = |ticks: u32| match ticks {
            0 | OVERDUE => None,
            ticks if ticks > patience => Some(OVERDUE),
            ticks => Some(ticks.saturating_add(1)),
        };
        if let Ok(ticks) = self.idle.fetch_update(Relaxed, Relaxed, count)
            && ticks > patience
        {
            self.changed.notify_one();
        }
    }

    /// Waits until a session that is waiting for its client should not go on.
    pub(super) async fn dismissed(&self) -> Dismissal {
        self.until(|session| {
            let overdue = || session.idle.load(Relaxed) == OVERDUE;
            let ended = session.has_ended().then_some(Dismissal::Ended);
            ended.or_else(|| overdue().then_some(Dismissal::Overdue))
        })
        .await
    }

    /// Waits until a look at the session finds what it looks for.
    async fn until<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            self.changed.notified().await;
        }
    }

    /// Ends the session.
    pub fn kill(&self) {
        self.killed.store(true, SeqCst);
        self.changed.notify_one();
    }

    /// Ends a login for the sake of another one.
    pub(super) fn crowd_out(&self) {
        self.crowded_out.store(true, SeqCst);
        self.kill();
    }

    /// Whether it was ended for the sake of another one.
    pub(super) fn is_crowded_out(&self) -> bool {
        self.crowded_out.load(SeqCst)
    }

    /// Whether a session that is waiting for its client should end.
    pub(super) fn has_ended(&self) -> bool {
        self.is_killed() || self.stopping.load(SeqCst)
    }

    /// Waits until a session that is waiting for its client should end.
    pub(super) async fn ended(&self) {
        self.until(|session| session.has_ended().then_some(()))
            .await;
    }

    /// Waits until a session that only passes bytes on should end.
    pub(super) async fn must_leave(&self) {
        self.until(|session| (session.has_ended() || session.is_down()).then_some(()))
            .await;
    }

    /// Whether the server that runs its statement was found to be down.
    fn is_down(&self) -> bool {
        let down = self.down.swap(0, SeqCst);
        down != 0
            && self
                .running()
                .is_some_and(|(server, _)| u32::from(server.0) + 1 == down)
    }

    fn is_killed(&self) -> bool {
        self.killed.load(SeqCst)
    }

    /// Waits until the session is killed.
    pub(super) async fn killed(&self) {
        self.until(|session| session.is_killed().then_some(()))
            .await;
    }

    /// Waits until a session that is waiting for a server should not wait any longer.
    pub(super) async fn interrupted(&self) -> Interrupt {
        self.until(|session| {
            let killed = session.is_killed().then_some(Interrupt::Killed);
            killed.or_else(|| session.is_down().then_some(Interrupt::ServerDown))
        })
        .await
    }
}

impl Registration {
    /// The session's handle.
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// The client's own address has become known.
    pub(super) fn comes_from(&mut self, source: Source, limits: &Limits) -> Result<(), Full> {
        self.address = self.registry.seat_from(Some(source), limits)?;
        if let Some(place) = self.place.take() {
            self.registry.doorstep.leave(place);
            let place = self
                .registry
                .join_doorstep(Some(source), &self.handle, limits);
            self.place = Some(place);
        }
        Ok(())
    }

    /// The client is logged in: it makes room for nobody any more.
    pub(super) fn logged_in(&mut self) {
        if let Some(place) = self.place.take() {
            self.registry.doorstep.leave(place);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.logged_in();
        self.registry.sessions.remove(&self.handle.id);
        // Who was sent away is not counted any more.
        if !self.handle.is_crowded_out() {
            self.registry.count.fetch_sub(1, SeqCst);
        }
    }
}
