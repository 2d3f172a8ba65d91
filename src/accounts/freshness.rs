//! What was written, and which servers show it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dbproxy_proto::gtid::{GtidError, Position, WriteToken};
use tokio::time::Instant;

use super::seen::Seen;
use crate::topology::{Role, Server, ServerId, Topology};

/// Servers for which the answer is remembered; those beyond are asked each time.
const REMEMBERED: usize = 16;

/// After a write without a known position, replicas wait for this many times the allowed lag.
const LAGS_AFTER_UNKNOWN: u32 = 2;

/// What some sessions wrote together, and read back: those of an account, of a key, one alone, all.
///
/// Writes are told before the client hears of them ([`Scope::wrote`], [`Scope::wrote_unknown`]); then no
/// later read in the scope is answered by a server that lacks them ([`Scope::is_fresh`]).
pub struct Scope {
    /// Grows with each write; 0 before the first.
    writes: AtomicU64,
    /// Per server the count of writes at which it was found to have them all. Reading it takes no lock, which matters
    /// where one account has all the traffic.
    fresh_at: [AtomicU64; REMEMBERED],
    written: Mutex<Written>,
    /// The last read of each server.
    seen: Mutex<Vec<Seen>>,
}

/// Longer positions are not waited for: it is a few servers' transactions that a token is about.
const LONGEST_WAIT: usize = 4096;

/// What a server has to have before reads of a scope may see it, as far as it was written at one moment.
#[derive(Debug, Clone)]
pub struct Awaited {
    token: WriteToken,
    /// The count of writes at that moment.
    writes: u64,
}

impl Awaited {
    /// What a server has at this position.
    pub fn position(position: Arc<Position>) -> Self {
        let mut token = WriteToken::default();
        token.rebase(position);
        Self { token, writes: 0 }
    }

    /// As servers read it; `None` if it is nothing, or too long to be sent with a read.
    pub fn text(&self) -> Option<String> {
        let text = self.token.to_string();
        (1..=LONGEST_WAIT).contains(&text.len()).then_some(text)
    }

    /// What all of these ask for; `None` if there is none, or that cannot be said in one.
    pub fn all(mut those: impl Iterator<Item = Self>) -> Option<Self> {
        let first = those.next()?;
        those.try_fold(first, |mut whole, next| {
            whole.token.merge(&next.token).ok()?;
            Some(whole)
        })
    }
}

impl fmt::Display for Awaited {
    /// As servers read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.token.fmt(f)
    }
}

#[derive(Clone, Default)]
struct Written {
    token: WriteToken,
    /// What was written up to a moment: the next position of the primary that is asked for later stands for all of it that
    /// has survived, however much is written meanwhile.
    sealed: Option<(WriteToken, Instant)>,
    last: Option<Instant>,
    /// When the last write happened whose position is not known; the token lacks it.
    unknown: Option<Instant>,
    /// When a write was broken off of which nobody knows whether it was carried out.
    perhaps: Option<Instant>,
    /// When the token was last replaced by a position of the primary.
    rebased: Option<Instant>,
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("writes", &self.writes.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Scope {
    /// Nothing written.
    pub fn new() -> Self {
        Self {
            writes: AtomicU64::new(0),
            fresh_at: std::array::from_fn(|_| AtomicU64::new(0)),
            written: Mutex::new(Written::default()),
            seen: Mutex::default(),
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

    /// The primary is another one now, which may lack some of what was written: reads must see what it had at this moment.
    pub fn began_anew(&self, now: Instant) {
        let mut written = self.lock();
        if written.last.is_none() {
            return;
        }
        written.token = WriteToken::default();
        written.sealed = None;
        written.unknown = written.unknown.max(Some(now));
        self.count(written, now);
    }

    fn count(&self, mut written: MutexGuard<'_, Written>, now: Instant) {
        written.last = written.last.max(Some(now));
        // Under the lock, so that no answer for the older token is remembered for the new count.
        self.writes.fetch_add(1, Ordering::Release);
    }

    /// A scope of its own that begins with all that this one has.
    #[must_use]
    pub fn branch(&self) -> Self {
        let written = self.lock().clone();
        Self {
            writes: AtomicU64::new(self.writes.load(Ordering::Acquire)),
            written: Mutex::new(written),
            ..Self::new()
        }
    }

    /// Reads must see what servers call `gtids`, as if it had been written just now.
    ///
    /// # Errors
    /// A text that is no position, or names more origins than are kept apart; then nothing changes.
    pub fn must_see(&self, gtids: &[u8], now: Instant) -> Result<(), GtidError> {
        let mut written = self.lock();
        let mut token = written.token.clone();
        token.add(gtids)?;
        written.token = token;
        self.count(written, now);
        Ok(())
    }

    /// What a server has to be waited for to have; `None` if some of it has no name.
    pub fn awaited(&self) -> Option<Awaited> {
        let written = self.lock();
        let token = written.is_known().then(|| written.whole())??;
        Some(Awaited {
            token,
            writes: self.writes.load(Ordering::Acquire),
        })
    }

    /// A server, as it was then, has what was awaited of it.
    pub fn arrived(&self, server: ServerId, incarnation: u32, awaited: &Awaited) {
        if let Some(seen) = self.fresh_at.get(server.index()) {
            seen.store(mark(awaited.writes, incarnation), Ordering::Release);
        }
    }

    /// Whether all that was written has a name, so that it can be waited for.
    pub fn is_known(&self) -> bool {
        self.lock().is_known()
    }

    /// Gives a name to all that was written: the primary's position, if that was asked for later. False if it was not.
    pub fn name_all(&self, topology: &Topology) -> bool {
        let mut written = self.lock();
        written.is_known() || (written.rebase(topology) && written.is_known())
    }

    /// What its reads must not miss, as servers write positions; empty if there is nothing, and with a mark where something is
    /// not known.
    pub fn position(&self) -> String {
        let written = self.lock();
        let whole = written.whole().unwrap_or_default();
        let mark = match (written.is_known(), whole.is_empty()) {
            (true, _) => "",
            (false, true) => "?",
            (false, false) => ",?",
        };
        format!("{whole}{mark}")
    }

    /// Does `server` show everything that was written? Costs next to nothing when it was asked before and
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
        if remembered
            .is_some_and(|seen| seen.load(Ordering::Acquire) == mark(writes, server.incarnation))
        {
            return true;
        }
        let mut written = self.lock();
        let fresh = written.shown_by(server, topology);
        if fresh && let Some(seen) = remembered {
            // No write can be counted while the lock is held.
            let writes = self.writes.load(Ordering::Acquire);
            seen.store(mark(writes, server.incarnation), Ordering::Release);
        }
        fresh
    }

    /// One of its reads has ended.
    pub fn saw(&self, read: Seen) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|earlier| earlier.server() != read.server());
        seen.push(read);
    }

    /// Whether `server` shows nothing older than what its reads saw.
    pub fn is_no_older(&self, server: &Server, topology: &Topology) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().all(|seen| seen.shown_by(server, topology))
    }

    /// When the last of its reads ended.
    pub fn last_seen(&self) -> Option<Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(Seen::at).max()
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        // Every change of it is complete before something can panic.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A count of writes, as remembered for a server: what was found stays true until its position goes back.
fn mark(writes: u64, incarnation: u32) -> u64 {
    writes.wrapping_add(u64::from(incarnation) << 48)
}

impl Written {
    fn is_known(&self) -> bool {
        self.unknown.is_none() && self.perhaps.is_none()
    }

    fn shown_by(&mut self, server: &Server, topology: &Topology) -> bool {
        let grace = topology.max_lag.saturating_mul(LAGS_AFTER_UNKNOWN);
        let past = |at: Option<Instant>| {
            at.is_none_or(|at| topology.at.saturating_duration_since(at) > grace)
        };
        let primary_answers = topology
            .primary()
            .is_some_and(|primary| primary.health.is_up());
        let is_unsure = |written: &Self| {
            written.unknown.is_some() || (written.perhaps.is_some() && primary_answers)
        };
        if is_unsure(self) {
            self.rebase(topology);
            if is_unsure(self) {
                return past(self.last);
            }
        }
        let covers = |written: &Self| {
            let position = server.position.as_ref();
            position.is_some_and(|position| written.covered_by(position))
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

    /// Everything that has a name; `None` if that is of too many origins.
    fn whole(&self) -> Option<WriteToken> {
        let mut whole = self.token.clone();
        if let Some((sealed, _)) = &self.sealed {
            whole.merge(sealed).ok()?;
        }
        Some(whole)
    }

    fn covered_by(&self, position: &Position) -> bool {
        let sealed = self.sealed.as_ref();
        self.token.covered_by(position)
            && sealed.is_none_or(|(sealed, _)| sealed.covered_by(position))
    }

    /// Takes the primary's position in the place of what was written before it was asked for; if something was written
    /// since, in that of what was written before this was tried first. False if it was not asked for late enough.
    fn rebase(&mut self, topology: &Topology) -> bool {
        let Some(primary) = topology.primary() else {
            return false;
        };
        let (Some(position), Some(asked_at)) = (&primary.position, primary.asked_at) else {
            return false;
        };
        let is_before = |at: Instant| at < asked_at;
        if self.last.is_none_or(is_before) {
            self.token.rebase(Arc::clone(position));
            self.sealed = None;
        } else if let Some((sealed, _)) = self.sealed.as_mut().filter(|(_, at)| is_before(*at)) {
            sealed.rebase(Arc::clone(position));
            // It is as good as any other write by now: the next seal takes it along.
            if self.token.merge(sealed).is_ok() {
                self.sealed = None;
            }
        } else {
            if self.sealed.is_none()
                && let Some(last) = self.last
            {
                self.sealed = Some((std::mem::take(&mut self.token), last));
            }
            return false;
        }
        self.unknown = self.unknown.filter(|at| !is_before(*at));
        self.perhaps = self.perhaps.filter(|at| !is_before(*at));
        self.rebased = Some(asked_at);
        true
    }

    fn lost(&self, topology: &Topology) -> bool {
        topology
            .primary()
            .and_then(|primary| primary.position.as_ref())
            .is_some_and(|position| !self.covered_by(position))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::time::Duration;

    use dbproxy_proto::gtid::GtidPosition;

    use super::*;
    use crate::topology::{Gate, Health, Lag, ServerId};

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
                near: false,
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
                filters: Vec::new(),
                delay: Duration::ZERO,
                readable_since: None,
                barred: None,
                why: "".into(),
            };
            let topology = Topology {
                epoch: 0,
                at: start,
                servers: vec![server(0, Role::Primary), server(1, Role::Replica)],
                primary: Some(ServerId(0)),
                reign: None,
                gate: Gate::Open,
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

        fn fresh(&self, state: &Scope) -> bool {
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
        let (mut scene, state) = (Scene::new(), Scope::new());
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
        let (mut scene, state) = (Scene::new(), Scope::new());
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
    fn who_writes_all_the_time_is_not_kept_from_replicas() {
        let (mut scene, state) = (Scene::new(), Scope::new());
        scene.probe(0, "0-1-7", 0);
        scene.probe(1, "0-1-7", 0);
        state.wrote_unknown(scene.time(50));
        // Each position of the primary is older than the last write.
        let mut fresh = 0;
        for round in 1..10 {
            let gtid = format!("0-1-{}", 8 + round);
            let time = 100 * round;
            state.wrote(gtid.as_bytes(), scene.time(time));
            scene.probe(0, &gtid, time - 1);
            assert!(!scene.fresh(&state), "{round}");
            scene.probe(1, &gtid, time + 10);
            fresh += u32::from(scene.fresh(&state));
        }
        assert!(fresh > 5, "{fresh}");
        // The same with writes that no primary has any more.
        state.wrote(b"0-1-1000", scene.time(1000));
        let mut fresh = 0;
        for round in 11..20 {
            let gtid = format!("0-2-{}", 8 + round);
            let time = 100 * round;
            state.wrote(gtid.as_bytes(), scene.time(time));
            scene.probe(0, &gtid, time - 1);
            scene.probe(1, &gtid, time + 10);
            fresh += u32::from(scene.fresh(&state));
        }
        assert!(fresh > 3, "{fresh}");
    }

    #[test]
    fn a_lost_write_does_not_keep_replicas_away_for_ever() {
        let (mut scene, state) = (Scene::new(), Scope::new());
        state.wrote(b"0-1-100", scene.time(0));
        // The next primary never got it.
        scene.probe(1, "0-2-90", 100);
        assert!(!scene.fresh(&state));
        scene.probe(0, "0-2-90", 100);
        assert!(scene.fresh(&state));
    }

    #[test]
    fn without_positions_time_decides() {
        let (mut scene, state) = (Scene::new(), Scope::new());
        state.wrote_unknown(scene.time(1000));
        scene.topology.at = scene.time(10_900);
        assert!(!scene.fresh(&state));
        scene.topology.at = scene.time(11_100);
        assert!(scene.fresh(&state));
        state.wrote_unknown(scene.time(11_200));
        assert!(!scene.fresh(&state));
    }

    #[test]
    fn what_is_awaited_is_there_once_it_has_arrived() {
        let (mut scene, state) = (Scene::new(), Scope::new());
        scene.probe(0, "0-1-7", 100);
        scene.probe(1, "0-1-7", 100);
        assert_eq!(state.awaited().unwrap().text(), None, "nothing was written");
        state.wrote(b"0-1-8", scene.time(150));
        let awaited = state.awaited().unwrap();
        assert_eq!(awaited.text().unwrap(), "0-0-8");
        assert!(!scene.fresh(&state));
        state.arrived(ServerId(1), 0, &awaited);
        assert!(scene.fresh(&state));
        // It says nothing of later writes, nor of another server at the same place.
        scene.topology.servers[1].incarnation += 1;
        assert!(!scene.fresh(&state));
        scene.topology.servers[1].incarnation -= 1;
        state.wrote(b"0-1-9", scene.time(160));
        state.arrived(ServerId(1), 0, &awaited);
        assert!(!scene.fresh(&state));
        state.wrote_unknown(scene.time(170));
        assert!(state.awaited().is_none(), "nobody knows for what to wait");
    }

    #[test]
    fn a_position_from_elsewhere_counts_as_written() {
        let (mut scene, state) = (Scene::new(), Scope::new());
        scene.probe(0, "0-1-7", 100);
        scene.probe(1, "0-1-7", 100);
        assert!(state.must_see(b"nonsense", scene.time(150)).is_err());
        assert!(scene.fresh(&state));
        state.must_see(b"0-1-8", scene.time(150)).unwrap();
        assert!(!scene.fresh(&state));
        let branch = state.branch();
        scene.probe(1, "0-1-8", 200);
        assert!(scene.fresh(&state) && scene.fresh(&branch));
        branch.wrote(b"0-1-9", scene.time(210));
        assert!(scene.fresh(&state) && !scene.fresh(&branch));
        // One that no primary ever had.
        state.must_see(b"0-1-99999", scene.time(220)).unwrap();
        assert!(!scene.fresh(&state));
        scene.probe(0, "0-1-9", 300);
        scene.probe(1, "0-1-9", 300);
        assert!(scene.fresh(&state));
    }
}
