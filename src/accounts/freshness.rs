//! What an account wrote, and which servers show it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dbproxy_proto::gtid::WriteToken;
use tokio::time::Instant;

use super::directory::AccountKey;
use crate::topology::{Role, Server, Topology};

/// Servers for which the answer is remembered; those beyond are asked each time.
const REMEMBERED: usize = 16;

/// After a write without a known position, replicas wait for this many times the allowed lag.
const LAGS_AFTER_UNKNOWN: u32 = 2;

/// What one account wrote; all its sessions share it.
///
/// Writes are told before the client hears of them ([`AccountState::wrote`], [`AccountState::wrote_unknown`]); then no
/// later read of the account is answered by a server that lacks them ([`AccountState::is_fresh`]).
pub struct AccountState {
    /// Grows with each write; 0 before the first.
    writes: AtomicU64,
    /// Per server the count of writes at which it was found to have them all. Reading it takes no lock, which matters
    /// where one account has all the traffic.
    fresh_at: [AtomicU64; REMEMBERED],
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    token: WriteToken,
    last: Option<Instant>,
    /// When the last write happened whose position is not known; the token lacks it.
    unknown: Option<Instant>,
    /// When a write was broken off of which nobody knows whether it was carried out.
    perhaps: Option<Instant>,
    /// When the token was last replaced by a position of the primary.
    rebased: Option<Instant>,
}

impl Default for AccountState {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for AccountState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountState")
            .field("writes", &self.writes.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl AccountState {
    /// Nothing written.
    pub fn new() -> Self {
        Self {
            writes: AtomicU64::new(0),
            fresh_at: std::array::from_fn(|_| AtomicU64::new(0)),
            written: Mutex::new(Written::default()),
        }
    }

    /// A write was acknowledged; `gtids` is what its OK packet said of its position. A text that cannot be read
    /// counts as no text.
    pub fn wrote(&self, gtids: &[u8], now: Instant) {
        let mut written = self.lock();
        if written.token.add(gtids).is_err() {
            written.unknown = written.unknown.max(Some(now));
        }
        self.count(written, now);
    }

    /// A write may have happened, and its position is not known. Only a position of the primary that was asked for
    /// after `now` can tell which servers have it.
    pub fn wrote_unknown(&self, now: Instant) {
        let mut written = self.lock();
        written.unknown = written.unknown.max(Some(now));
        self.count(written, now);
    }

    /// A write was broken off, and nobody knows whether it was carried out. As long as the primary answers, reads
    /// go where it can be seen; without a primary they rather go on than wait for what was never acknowledged.
    pub fn wrote_perhaps(&self, now: Instant) {
        let mut written = self.lock();
        written.perhaps = written.perhaps.max(Some(now));
        self.count(written, now);
    }

    fn count(&self, mut written: MutexGuard<'_, Written>, now: Instant) {
        written.last = written.last.max(Some(now));
        // Under the lock, so that no answer for the older token is remembered for the new count.
        self.writes.fetch_add(1, Ordering::Release);
    }

    /// What its reads must not miss, as servers write positions; empty if there is nothing, and with a mark where something is
    /// not known.
    pub fn position(&self) -> String {
        let written = self.lock();
        let unknown = written.unknown.is_some() || written.perhaps.is_some();
        let mark = match (unknown, written.token.is_empty()) {
            (false, _) => "",
            (true, true) => "?",
            (true, false) => ",?",
        };
        format!("{}{mark}", written.token)
    }

    /// Does `server` show everything that this account wrote? Costs next to nothing when it was asked before and
    /// nothing was written since.
    ///
    /// Whether the server may serve reads at all is [`Server::readable`]'s to say.
    pub fn is_fresh(&self, server: &Server, topology: &Topology) -> bool {
        if server.role == Role::Primary {
            return true;
        }
        let writes = self.writes.load(Ordering::Acquire);
        if writes == 0 {
            return true;
        }
        let remembered = self.fresh_at.get(server.id.index());
        if remembered.is_some_and(|seen| seen.load(Ordering::Acquire) == mark(writes, server)) {
            return true;
        }
        let mut written = self.lock();
        let fresh = written.shown_by(server, topology);
        if fresh && let Some(seen) = remembered {
            // No write can be counted while the lock is held.
            let writes = self.writes.load(Ordering::Acquire);
            seen.store(mark(writes, server), Ordering::Release);
        }
        fresh
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        // Every change of it is complete before something can panic.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A count of writes, as remembered for a server: what was found stays true until its position goes back.
fn mark(writes: u64, server: &Server) -> u64 {
    writes.wrapping_add(u64::from(server.incarnation) << 48)
}

impl Written {
    fn shown_by(&mut self, server: &Server, topology: &Topology) -> bool {
        let grace = topology.max_lag.saturating_mul(LAGS_AFTER_UNKNOWN);
        let past = |at: Option<Instant>| {
            at.is_none_or(|at| topology.at.saturating_duration_since(at) > grace)
        };
        let primary_answers = topology
            .primary()
            .is_some_and(|primary| primary.health.is_up());
        let unsure = self.unknown.is_some() || (self.perhaps.is_some() && primary_answers);
        if unsure && !self.rebase(topology) {
            return past(self.last);
        }
        let covers = |written: &Self| {
            let position = server.position.as_ref();
            position.is_some_and(|position| written.token.covered_by(position))
        };
        if covers(self) {
            return true;
        }
        // Writes that the primary itself does not show were lost with a former primary, or their numbers have gaps
        // that nobody will ever fill.
        if self.lost(topology) && self.rebase(topology) && covers(self) {
            return true;
        }
        // A replica set up by hand may never have what the primary had from of old; of that time is proof enough.
        self.rebased.is_some() && past(self.last)
    }

    /// Takes the primary's position for the token, if it was asked for after all the writes.
    fn rebase(&mut self, topology: &Topology) -> bool {
        let Some(primary) = topology.primary() else {
            return false;
        };
        let (Some(position), Some(asked_at)) = (&primary.position, primary.asked_at) else {
            return false;
        };
        if self.last.is_some_and(|last| asked_at <= last) {
            return false;
        }
        self.token.rebase(position.clone());
        self.unknown = None;
        self.perhaps = None;
        self.rebased = Some(asked_at);
        true
    }

    fn lost(&self, topology: &Topology) -> bool {
        topology
            .primary()
            .and_then(|primary| primary.position.as_ref())
            .is_some_and(|position| !self.token.covered_by(position))
    }
}

/// The states of all accounts.
#[derive(Debug, Default)]
pub struct AccountStates {
    states: DashMap<AccountKey, Arc<AccountState>>,
}

impl AccountStates {
    /// No account has written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state of this account, for a session to keep.
    pub fn of(&self, key: &AccountKey) -> Arc<AccountState> {
        if let Some(state) = self.states.get(key) {
            return state.clone();
        }
        self.states.entry(key.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::time::Duration;

    use dbproxy_proto::gtid::{GtidPosition, Position};

    use super::*;
    use crate::topology::{Health, Lag, ServerId};

    const MAX_LAG: Duration = Duration::from_secs(5);

    struct Scene {
        start: Instant,
        topology: Topology,
    }

    impl Scene {
        fn new() -> Self {
            let start = Instant::now();
            let server = |id, role| Server {
                id: ServerId(id),
                name: format!("db{id}").into(),
                address: crate::config::ServerAddress::parse("127.0.0.1").unwrap(),
                weight: 1,
                group: None,
                role,
                health: Health::Up,
                version: None,
                identity: None,
                incarnation: 0,
                writable: false,
                lag: Lag::Known(Duration::ZERO),
                position: None,
                asked_at: None,
                wait_timeout: Duration::MAX,
                delay: Duration::ZERO,
                barred: None,
                why: "".into(),
            };
            let topology = Topology {
                epoch: 0,
                at: start,
                servers: vec![server(0, Role::Primary), server(1, Role::Replica)],
                primary: Some(ServerId(0)),
                greeting: None,
                max_lag: MAX_LAG,
            };
            Self { start, topology }
        }

        fn time(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn probe(&mut self, server: usize, position: &str, millis: u64) {
            let position = GtidPosition::parse(position.as_bytes()).unwrap();
            let at = self.time(millis);
            self.topology.at = at;
            let server = &mut self.topology.servers[server];
            server.position = Some(Arc::new(Position::MariaDb(position)));
            server.asked_at = Some(at);
        }

        fn fresh(&self, state: &AccountState) -> bool {
            assert!(state.is_fresh(&self.topology.servers[0], &self.topology));
            let first = state.is_fresh(&self.topology.servers[1], &self.topology);
            assert_eq!(
                first,
                state.is_fresh(&self.topology.servers[1], &self.topology),
                "remembered"
            );
            first
        }
    }

    #[test]
    fn a_replica_is_fresh_when_it_has_the_write() {
        let (mut scene, state) = (Scene::new(), AccountState::new());
        assert!(scene.fresh(&state));
        state.wrote(b"0-1-7", scene.time(0));
        assert!(!scene.fresh(&state));
        scene.probe(0, "0-1-7", 100);
        scene.probe(1, "0-1-6", 100);
        assert!(!scene.fresh(&state));
        scene.probe(1, "0-1-7", 200);
        assert!(scene.fresh(&state));
        state.wrote(b"0-1-9", scene.time(300));
        assert!(!scene.fresh(&state));
        scene.probe(1, "0-1-10", 400);
        assert!(scene.fresh(&state));
        // The replica was set up anew from an old backup.
        scene.probe(1, "0-1-2", 500);
        scene.topology.servers[1].incarnation += 1;
        assert!(!scene.fresh(&state));
    }

    #[test]
    fn an_unknown_write_asks_for_a_later_position_of_the_primary() {
        let (mut scene, state) = (Scene::new(), AccountState::new());
        scene.probe(0, "0-1-7", 100);
        scene.probe(1, "0-1-7", 100);
        state.wrote_unknown(scene.time(150));
        assert!(!scene.fresh(&state));
        scene.probe(1, "0-1-8", 200);
        assert!(!scene.fresh(&state), "the primary has not been asked since");
        scene.probe(0, "0-1-9", 200);
        assert!(!scene.fresh(&state));
        scene.probe(1, "0-1-9", 300);
        assert!(scene.fresh(&state));
        state.wrote(b"unreadable", scene.time(350));
        assert!(!scene.fresh(&state));
        scene.probe(0, "0-1-9", 400);
        assert!(scene.fresh(&state));
    }

    #[test]
    fn a_lost_write_does_not_keep_replicas_away_for_ever() {
        let (mut scene, state) = (Scene::new(), AccountState::new());
        state.wrote(b"0-1-100", scene.time(0));
        // The next primary never got it.
        scene.probe(1, "0-2-90", 100);
        assert!(!scene.fresh(&state));
        scene.probe(0, "0-2-90", 100);
        assert!(scene.fresh(&state));
    }

    #[test]
    fn without_positions_time_decides() {
        let (mut scene, state) = (Scene::new(), AccountState::new());
        state.wrote_unknown(scene.time(1000));
        scene.topology.at = scene.time(10_900);
        assert!(!scene.fresh(&state));
        scene.topology.at = scene.time(11_100);
        assert!(scene.fresh(&state));
        state.wrote_unknown(scene.time(11_200));
        assert!(!scene.fresh(&state));
    }

    #[test]
    fn sessions_of_an_account_share_its_state() {
        let states = AccountStates::new();
        let key = AccountKey {
            user: "app".into(),
            host: "%".into(),
        };
        assert!(Arc::ptr_eq(&states.of(&key), &states.of(&key)));
    }
}
