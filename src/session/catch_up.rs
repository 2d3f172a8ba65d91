//! Reads that wait on a replica for what they must see.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{Session, relay::Outcome, route::Tried, statement::Request};
use crate::{
    accounts::Awaited,
    config::{Consistency, MonotonicReads},
    routing::{Freshness, Wish},
    sql::{Cause, Kind, StatementClass},
    topology::{Flavor, Lag, Server, ServerId, Topology},
};

/// A wait that was in vain costs its length; for this many times as long, none is tried on that server.
const REST: u32 = 10;

/// It is tried again after this at the latest.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// The primary has at most this long to say how far it is.
const LONGEST_QUESTION: Duration = Duration::from_secs(1);

/// A session that was on the primary for longer than this goes back to replicas, even if that costs a question.
const LINGERING: Duration = Duration::from_millis(250);

/// On which servers waits were in vain, as one worker has found.
#[derive(Debug)]
pub struct CatchUp {
    began: Instant,
    /// Per server the time until which it is not waited for, in milliseconds.
    until: Box<[AtomicU64]>,
}

impl CatchUp {
    /// Knows nothing yet of as many servers.
    pub fn new(servers: usize) -> Self {
        Self {
            began: Instant::now(),
            until: (0..servers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn may_wait(&self, server: ServerId) -> bool {
        let until = self
            .until
            .get(server.index())
            .map_or(0, |until| until.load(Relaxed));
        until == 0 || self.millis(Instant::now()) >= until
    }

    /// The primary did not say in time for what a server would have to be waited for: it would not for others either.
    pub(super) fn unanswered(&self, wait: Duration) {
        for server in 0..self.until.len() {
            self.rest(server, wait);
        }
    }

    /// A server was waited for in vain for this long.
    pub(super) fn failed(&self, server: ServerId, wait: Duration) {
        self.rest(server.index(), wait);
    }

    fn rest(&self, server: usize, wait: Duration) {
        if let Some(until) = self.until.get(server) {
            let end = Instant::now() + wait.saturating_mul(REST).min(LONGEST_REST);
            until.store(self.millis(end), Relaxed);
        }
    }
}

/// What a read waits for on a replica.
#[derive(Debug)]
pub(super) struct Wait {
    /// The query that waits, with `0` for an answer if that was not in vain.
    pub(super) query: String,
    /// How long at most.
    pub(super) limit: Duration,
    consistency: Consistency,
    incarnation: u32,
    awaited: [Option<Awaited>; 2],
}

impl Session {
    /// Whether a replica has what a read must see.
    pub(super) fn freshness(
        &self,
        server: &Server,
        topology: &Topology,
        wish: &Wish,
        tried: &Tried,
    ) -> Freshness {
        if tried.contains(server.id) {
            return Freshness::Stale;
        }
        if wish.consistency == Consistency::Eventual {
            return Freshness::Fresh;
        }
        // First, since to ask also finds names for what had none.
        let fresh = self.scopes.is_fresh(wish.consistency, server, topology);
        let no_older = self.is_no_older(server, topology);
        if fresh && no_older {
            return Freshness::Fresh;
        }
        let limit = self.longest_wait();
        let is_near = matches!(server.lag, Lag::Known(lag) if lag <= limit);
        let may_wait = !limit.is_zero()
            && is_near
            && server.position.is_some()
            && self.context.catch_up.may_wait(server.id)
            && self.scopes.can_await(wish.consistency);
        // To ask how far the primary is takes longer than the read: only who goes on reading there leaves it that way.
        let lingers = || {
            let seen = self.scopes.last_seen();
            seen.is_some_and(|(_, since)| since.elapsed() > LINGERING)
        };
        match may_wait && (no_older || lingers()) {
            true => Freshness::Soon,
            false => Freshness::Stale,
        }
    }

    fn is_no_older(&self, server: &Server, topology: &Topology) -> bool {
        self.rules.policy().monotonic_reads == MonotonicReads::Off
            || self.scopes.is_no_older(server, topology)
    }

    fn longest_wait(&self) -> Duration {
        let configured = self.rules.policy().replica_wait;
        let asked = self.settings.wait;
        asked.map_or(configured, |millis| {
            Duration::from_millis(u64::from(millis))
        })
    }

    /// What a read that goes to this replica has to wait for there; `None` if it has come meanwhile.
    ///
    /// # Errors
    /// The replica will not do: what it would have to be waited for is not known.
    pub(super) async fn wait_for(
        &self,
        server: ServerId,
        class: &StatementClass,
    ) -> Result<Option<Wait>, Unknown> {
        let consistency = self.wish(class).consistency;
        let limit = self.longest_wait();
        if limit.is_zero() {
            return Err(Unknown);
        }
        let no_older = {
            let topology = self.context.topology.borrow();
            let server = topology.server(server).ok_or(Unknown)?;
            let no_older = self.is_no_older(server, &topology);
            if no_older && self.scopes.is_fresh(consistency, server, &topology) {
                return Ok(None);
            }
            no_older
        };
        let seen = match no_older {
            true => None,
            false => Some(self.position_after_reads().await.ok_or(Unknown)?),
        };
        let topology = self.context.topology.borrow();
        let incarnation = topology.server(server).ok_or(Unknown)?.incarnation;
        let awaited = self.scopes.awaited(consistency).ok_or(Unknown)?;
        let whole = Awaited::all(awaited.iter().flatten().cloned().chain(seen));
        let position = whole.as_ref().and_then(Awaited::text).ok_or(Unknown)?;
        Ok(Some(Wait {
            query: query(topology.flavor(), &position, limit),
            limit,
            consistency,
            incarnation,
            awaited,
        }))
    }

    /// How far the primary is now that everything was read that must not be missed; `None` if it does not tell in time.
    async fn position_after_reads(&self) -> Option<Awaited> {
        let (read_at, _) = self.scopes.last_seen()?;
        let deadline = Instant::now() + self.longest_wait().min(LONGEST_QUESTION);
        let mut news = self.context.topology.clone();
        loop {
            {
                let topology = news.borrow_and_update();
                let primary = topology.primary()?;
                if primary.asked_at.is_some_and(|asked_at| asked_at > read_at) {
                    return primary.position.clone().map(Awaited::position);
                }
                self.context.probes.get(primary.id.index())?.notify_one();
            }
            if !matches!(self.changes(&mut news, deadline).await, Ok(true)) {
                return None;
            }
        }
    }

    /// Tells those that share what the session reads, before it reads.
    pub(super) fn note_reading(&self, class: &StatementClass, server: ServerId) {
        if !self.scopes.shares_reads() || !self.keeps_reads(class) {
            return;
        }
        let topology = self.context.topology.borrow();
        if let Some(server) = topology.server(server) {
            self.scopes.sees(server);
        }
    }

    /// Whether what a statement reads counts for later reads.
    fn keeps_reads(&self, class: &StatementClass) -> bool {
        // Where everything goes to the primary, that is not where it would have read.
        self.context.observer.is_none()
            // What a write says of the rows that it has met was read, too.
            && (reads_data(class) || class.kind == Kind::Write)
            && self.rules.policy().monotonic_reads != MonotonicReads::Off
            && self.wish(class).consistency != Consistency::Eventual
    }

    /// Remembers which state of the data the session has seen.
    pub(super) fn note_seen(
        &mut self,
        class: &StatementClass,
        request: Request<'_>,
        outcome: &Outcome,
        server: ServerId,
    ) {
        let topology = self.context.topology.borrow();
        if outcome.tracked && !topology.has_domains() {
            return self.scopes.saw_own_write();
        }
        let is_kept = self.keeps_reads(class) && !matches!(request, Request::Prepare { .. });
        if let (true, Some(server)) = (is_kept, topology.server(server)) {
            self.scopes.saw(server);
        }
    }

    /// The same of a statement of which only the beginning was seen: it may have read.
    pub(super) fn note_large(&mut self, outcome: &Outcome, server: ServerId) {
        let topology = self.context.topology.borrow();
        let counts = self.rules.policy().monotonic_reads != MonotonicReads::Off;
        if let (true, false, Some(server)) = (counts, outcome.tracked, topology.server(server)) {
            self.scopes.saw(server);
        }
    }

    /// The replica has not got in time what was waited for.
    pub(super) fn waited_in_vain(&self, server: ServerId, wait: &Wait) {
        // A position that the session has brought along says nothing of others' reads.
        if !self.scopes.is_alone() {
            self.context.catch_up.failed(server, wait.limit);
        }
    }

    /// What a replica would have to be waited for is not to be had.
    pub(super) fn asked_in_vain(&self) {
        self.context.catch_up.unanswered(self.longest_wait());
    }

    /// The replica has got what was waited for.
    pub(super) fn arrived(&self, server: ServerId, wait: &Wait) {
        self.scopes
            .arrived(wait.consistency, server, wait.incarnation, &wait.awaited);
    }
}

/// Whether its answer comes from tables, not from the connection or the server.
fn reads_data(class: &StatementClass) -> bool {
    matches!(class.kind, Kind::Read | Kind::Multi)
        && !matches!(
            class.cause,
            Cause::Connection
                | Cause::ServerState
                | Cause::SystemSchema
                | Cause::LastInsertId
                | Cause::PreviousStatement
        )
}

/// The query that waits for a position.
///
/// <https://dev.mysql.com/doc/refman/9.4/en/gtid-functions.html>,
/// <https://mariadb.com/docs/server/reference/sql-functions/secondary-functions/miscellaneous-functions/master_gtid_wait>
fn query(flavor: Flavor, position: &str, limit: Duration) -> String {
    let function = match flavor {
        Flavor::MySql => "WAIT_FOR_EXECUTED_GTID_SET",
        Flavor::MariaDb => "MASTER_GTID_WAIT",
    };
    format!(
        "SELECT {function}('{position}', {:.3})",
        // None would be no limit at all.
        limit.as_secs_f64().max(0.001)
    )
}

/// What a replica would have to be waited for is not known.
#[derive(Debug)]
pub(super) struct Unknown;
