//! From a statement's class to a connection.

use std::sync::{Arc, atomic::Ordering};

use dbproxy_proto::capability::{Capabilities, StatusFlags};
use tokio::{
    select,
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{Session, finish::Kept, relay::given_up, statement::Request, tables::Wording};
use crate::{
    backend::LAYOUT,
    config::Consistency,
    error::{Error, ErrorKind, Origin},
    pool::{Bucket, Claim, Key, PooledConn},
    routing::{self, Freshness, Reason, Route, SessionView, Target, Turn, Wish},
    sql::{Kind, StatementClass},
    topology::{Server, ServerId, Topology},
};

/// The capabilities that must be the same on both sides: they change what a
/// statement means to the server, or how the bytes of its answer look.
pub(super) const PROFILE: Capabilities = Capabilities::FOUND_ROWS
    .union(Capabilities::IGNORE_SPACE)
    .union(Capabilities::INTERACTIVE)
    .union(Capabilities::LOCAL_FILES)
    .union(Capabilities::MULTI_RESULTS)
    .union(Capabilities::PS_MULTI_RESULTS)
    .union(LAYOUT);

/// Servers that failed a statement, so that it is not sent there again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried {
    replicas: [u64; 4],
    times: u8,
}

impl Tried {
    /// How often a read is tried in all.
    const LIMIT: u8 = 8;

    /// Notes a failure; false if that was the last try.
    pub(super) fn again(&mut self, server: ServerId, replica: bool) -> bool {
        if replica && let Some(word) = self.replicas.get_mut(server.index() / 64) {
            *word |= 1 << (server.index() % 64);
        }
        self.times += 1;
        self.times < Self::LIMIT
    }

    pub(super) fn contains(&self, server: ServerId) -> bool {
        let word = self.replicas.get(server.index() / 64);
        word.is_some_and(|word| word & 1 << (server.index() % 64) != 0)
    }
}

impl Session {
    /// Decides where a statement goes.
    pub(super) fn route(
        &self,
        class: &StatementClass,
        tried: Tried,
        wording: Wording<'_>,
    ) -> Route {
        let topology = self.context.topology.borrow();
        let wish = self.wish(class);
        // Only then it is worth to look.
        let opens = matches!(class.kind, Kind::Begin { .. })
            || !self.status.contains(StatusFlags::AUTOCOMMIT);
        let view = SessionView {
            in_transaction: self.status.contains(StatusFlags::IN_TRANS),
            reading: self.reading,
            read_only: opens && self.is_read_only(),
            locks_reads: opens && self.may_lock_reads(),
            read_only_transactions: self.rules.policy().read_only_transactions,
            pinned: self.pins.first(),
            autocommit: self.status.contains(StatusFlags::AUTOCOMMIT),
            wish,
            previous: self
                .kept_here()
                .filter(|kept| kept.previous)
                .map(|kept| kept.server),
        };
        let freshness = |server: &Server| match self.is_copied(server, class, wording) {
            true => self.freshness(server, &topology, &wish, &tried),
            false => Freshness::Filtered,
        };
        let load = |server: ServerId| self.context.loads.of(server);
        let policy = self.rules.policy();
        let turn = Turn {
            balance: policy.balance,
            slow_start: policy.slow_start,
            count: self.context.turn.load(Ordering::Relaxed),
            session: self.handle().id(),
        };
        routing::decide(class, &view, &topology, freshness, load, &turn)
    }

    /// Lets the next read be another replica's turn.
    ///
    /// Only a read that runs takes one: of a client that reads and writes by turns, or prepares each read, all reads
    /// would run on the same replica. What is executed next has its turn where it was prepared.
    pub(super) fn take_turn(&self, route: &Route, request: Request<'_>) {
        if matches!(route.target, Target::Replica(_)) && !matches!(request, Request::Prepare { .. })
        {
            self.context.turn.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What rules, the statement's hint, the session and the configuration ask for.
    pub(super) fn wish(&self, class: &StatementClass) -> Wish {
        let configured = self.rules.policy().consistency;
        let wish = Wish::new(class.hint, &self.settings, configured);
        match &self.ruling {
            Some(ruling) => wish.under(ruling.actions()),
            None => wish,
        }
    }

    /// What reads must see.
    pub(super) fn consistency(&self) -> Consistency {
        let configured = self.rules.policy().consistency;
        self.settings.consistency.unwrap_or(configured)
    }

    /// The connection that a route leads to, waiting for a primary where there is none now.
    ///
    /// An error of the client's origin means that the session is to end.
    pub(super) async fn connection(&mut self, route: &Route) -> Result<PooledConn, Error> {
        match self.own_connection(route)? {
            Some(conn) => Ok(conn),
            None => match route.target {
                Target::Replica(server) => self.checkout(server).await,
                _ => self.primary_connection().await,
            },
        }
    }

    /// The same without waiting for a primary.
    pub(super) async fn connection_now(&mut self, route: &Route) -> Result<PooledConn, Error> {
        match self.own_connection(route)? {
            Some(conn) => Ok(conn),
            None => match route.target {
                Target::Replica(server) => self.checkout(server).await,
                _ => self.primary_now().await,
            },
        }
    }

    /// The connection that the session has already, if the route leads there.
    fn own_connection(&mut self, route: &Route) -> Result<Option<PooledConn>, Error> {
        self.taken_previous = false;
        if route.target == Target::Nowhere {
            let text = format!("dbproxy: {}", route.reason);
            return Err(Error::answer_with(Origin::Proxy, 1792, b"25006", text));
        }
        if matches!(route.target, Target::Replica(_)) {
            return Ok(None);
        }
        if let Some(conn) = self.held.take() {
            return Ok(Some(conn));
        }
        if self.is_bound() {
            // Never on another connection: half of a transaction would be missing.
            return Err(Error::server(ErrorKind::Closed));
        }
        if route.target == Target::Primary {
            return Ok(None);
        }
        let kept = self.kept_here();
        let previous = kept.is_some_and(|kept| kept.previous);
        let conn = kept.and_then(|_| self.take_kept());
        self.taken_previous = previous && conn.is_some();
        Ok(conn)
    }

    /// Waits for something as long as the client waits too.
    pub(super) async fn patiently<T>(
        &self,
        wait: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        select! {
            biased;
            result = wait => result,
            () = self.client_left() => Err(Error::client(ErrorKind::Closed)),
            () = self.registration.handle().killed() => {
                Err(Error::client(ErrorKind::Timeout("killed while waiting for a server".into())))
            }
        }
    }

    /// Waits until the client can hardly be waiting any more. One that has closed its side may still read.
    pub(super) async fn client_left(&self) {
        self.client.closed().await;
        given_up(&self.client, &self.context.limits).await;
    }

    async fn primary_now(&mut self) -> Result<PooledConn, Error> {
        let primary = writable_primary(&self.context.topology.borrow());
        match primary {
            Some(primary) => self.checkout(primary).await,
            None => Err(Error::server(ErrorKind::Timeout("no primary".into()))),
        }
    }

    pub(super) async fn primary_connection(&mut self) -> Result<PooledConn, Error> {
        let mut deadline = None;
        loop {
            let error = match self.primary_now().await {
                // Not there, or not yet: the monitor will see it soon.
                Err(error) if error.origin != Origin::Client && error.is_absence() => error,
                result => return result,
            };
            debug!(session = self.handle().id(), %error, "primary not to be had");
            self.ask_monitor();
            let hold = self.context.limits.hold;
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + hold);
            if !self.topology_changes(deadline).await? {
                return Err(self.no_primary_for_write(Some(&error)));
            }
        }
    }

    /// Waits for news of the servers; false if there were none before the deadline.
    pub(super) async fn topology_changes(&self, deadline: Instant) -> Result<bool, Error> {
        let mut topology = self.context.topology.clone();
        topology.mark_unchanged();
        self.changes(&mut topology, deadline).await
    }

    /// The same for news since `topology` was looked at last.
    pub(super) async fn changes(
        &self,
        topology: &mut watch::Receiver<Arc<Topology>>,
        deadline: Instant,
    ) -> Result<bool, Error> {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        let changed = async { Ok(timeout_at(deadline, topology.changed()).await) };
        Ok(matches!(self.patiently(changed).await?, Ok(Ok(()))))
    }

    pub(super) fn no_primary(&self, error: Option<&Error>) -> Error {
        let text = format!(
            "Can't connect to MySQL server: {}",
            self.without_primary(error)
        );
        Error::answer_with(Origin::Server, 2003, b"HY000", text)
    }

    /// The same for what only the primary can run, in the words by which clients know that it did not.
    pub(super) fn no_primary_for_write(&self, error: Option<&Error>) -> Error {
        let text = format!(
            "The MySQL server is running with the --read-only option so it cannot execute this statement: not executed, {}",
            self.without_primary(error)
        );
        Error::answer_with(Origin::Server, 1290, b"HY000", text)
    }

    fn without_primary(&self, error: Option<&Error>) -> String {
        let hold = self.context.limits.hold;
        let mut text = format!("no primary within limits.hold = {hold:?}");
        for server in &self.context.topology.borrow().servers {
            text.push_str(&format!("; {}: {}", server.name, server.why));
        }
        if let Some(error) = error {
            text.push_str(&format!("; last attempt: {error}"));
        }
        text
    }

    /// A connection of this session's account to `server`.
    async fn checkout(&mut self, server: ServerId) -> Result<PooledConn, Error> {
        let worker = self.context.worker;
        // Nothing is asked of one that is too old: it need not be kept any longer.
        if self.kept.is_some_and(|kept| kept.server == server)
            && let Some(conn) = self.take_kept()
            && !conn.is_expired()
        {
            return Ok(conn);
        }
        let wanted = Arc::clone(&self.wanted);
        let Some(bucket) = self.bucket(server) else {
            let text = "the server is not configured any more";
            return Err(Error::answer_with(Origin::Proxy, 1105, b"HY000", text));
        };
        match bucket.take(worker, &wanted) {
            Some(conn) => Ok(conn),
            None => {
                let bucket = Arc::clone(bucket);
                let ruling = self.ruling.as_deref();
                let priority = ruling.and_then(|ruling| ruling.actions().priority);
                let claim = Claim {
                    priority: priority.unwrap_or_default(),
                    underway: self.is_bound(),
                };
                let checkout = Box::pin(bucket.checkout(worker, &self.login, &wanted, claim));
                self.patiently(checkout).await
            }
        }
    }

    /// Where an earlier statement ran, if that was at the cluster that the session is at.
    pub(super) fn kept_here(&self) -> Option<Kept> {
        let here = usize::from(self.context.cluster);
        self.kept.filter(|kept| kept.server.cluster() == here)
    }

    /// The connection of an earlier statement, if it is still as that statement left it.
    fn take_kept(&mut self) -> Option<PooledConn> {
        let kept = self.kept.take()?;
        let (worker, session) = (self.context.worker, self.handle().id());
        self.bucket(kept.server)?.take_held(worker, session)
    }

    /// Lets others have the connection of an earlier statement.
    pub(super) fn release_kept(&mut self) {
        let Some(kept) = self.kept.take() else { return };
        let (worker, session) = (self.context.worker, self.handle().id());
        if let Some(bucket) = self.bucket(kept.server) {
            bucket.release_held(worker, session);
        }
    }

    fn bucket(&mut self, server: ServerId) -> Option<&Arc<Bucket>> {
        let known = self.buckets.iter().position(|(id, _)| *id == server);
        let index = match known {
            Some(index) => index,
            None => {
                let key = Key::new(server, &self.login, self.profile());
                let bucket = self.context.pool.bucket(key)?;
                self.buckets.push((server, bucket));
                self.buckets.len() - 1
            }
        };
        self.buckets.get(index).map(|(_, bucket)| bucket)
    }

    /// What the session's connections must have in common.
    pub(super) fn profile(&self) -> Capabilities {
        let mut profile = self.capabilities & PROFILE;
        profile.set(
            Capabilities::CAN_HANDLE_EXPIRED_PASSWORDS,
            self.login.expired,
        );
        profile
    }

    /// Why a statement went where it went, for the log.
    pub(super) fn log_route(&self, reason: Reason, server: ServerId) {
        debug!(session = self.handle().id(), server = server.0, %reason, "routed");
    }
}

fn writable_primary(topology: &Topology) -> Option<ServerId> {
    topology.writable().map(|server| server.id)
}
