//! One statement from its route to its answer.

use std::sync::Arc;

use bytes::BytesMut;
use dbproxy_proto::{
    ProtocolError,
    capability::StatusFlags,
    compress::FRAME_LEN,
    response::{Expect, ResponseTracker},
};
use tokio::select;
use tracing::debug;

use super::{
    Flow, Session,
    catch_up::Wait,
    execution::Execution,
    handle::Interrupt,
    hedge::Hedge,
    loss::{Next, Patience},
    prepared::{Statement, prepare_again},
    relay::{Failure, Outcome, Relay},
    route::Tried,
    tables::Wording,
};
use crate::{
    backend::{ServerStatement, StatementKey},
    error::{Error, ErrorKind, Origin},
    pool::PooledConn,
    routing::{self, Target},
    sql::{Cause, Facts, Kind, StatementClass},
};

/// What is to be run.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    /// A whole command as the client sent it, header included.
    Forward { packet: &'a [u8], expect: Expect },
    /// A statement to be prepared, under the session's own id.
    Prepare {
        packet: &'a [u8],
        key: &'a StatementKey,
        id: u32,
    },
    /// A prepared statement to be executed.
    Execute {
        execution: Execution<'a>,
        statement: &'a Statement,
    },
}

impl Request<'_> {
    /// Whether it takes more than one frame where it is compressed.
    fn is_long(&self) -> bool {
        let len = match self {
            Self::Forward { packet, .. } | Self::Prepare { packet, .. } => packet.len(),
            Self::Execute {
                execution,
                statement,
            } => execution.len() + statement.types.len(),
        };
        len > FRAME_LEN
    }
}

/// What is sent so that a server runs a statement.
pub(super) struct Command<'a> {
    /// What comes before, or all of it.
    pub(super) prefix: BytesMut,
    pub(super) packet: &'a [u8],
    pub(super) expect: Expect,
    /// The session's own id of the statement that is prepared.
    statement: u32,
}

/// A statement that ran to its end.
pub(super) struct Finished {
    pub(super) conn: PooledConn,
    pub(super) outcome: Outcome,
}

impl Session {
    /// Runs a statement where it belongs and relays the answer. A read that
    /// fails before the client saw anything of it is tried elsewhere.
    ///
    /// None if the client was answered with an error of the proxy's own.
    pub(super) async fn execute(
        &mut self,
        class: &StatementClass,
        request: Request<'_>,
    ) -> Result<Option<Finished>, Error> {
        let mut tried = Tried::default();
        let mut patience = Patience::default();
        let context = Arc::clone(&self.context);
        loop {
            self.handle().forget_down();
            let (route, would) = self.place(class, tried, Wording::Request(request));
            self.take_turn(&would.unwrap_or(route), request);
            let replica = matches!(route.target, Target::Replica(_));
            // A transaction that only reads can begin anywhere.
            let movable = (replica || class.is_replica_read()) && !self.is_bound();
            let conn = if movable {
                self.connection_now(&route).await
            } else {
                self.connection(&route).await
            };
            let mut conn = match conn {
                Ok(conn) => conn,
                // The client is gone, or the session is to end.
                Err(error) if error.origin == Origin::Client => return Err(error),
                Err(error) if let Target::Replica(server) = route.target => {
                    debug!(session = self.handle().id(), server = server.0, %error, "replica not to be had");
                    if !tried.again(server, true) {
                        return self.answer_failure(error).await;
                    }
                    continue;
                }
                Err(error) if self.is_bound() => {
                    self.reply_error(&error.answer()).await?;
                    return Err(error);
                }
                // A read need not wait for the primary: a replica may serve it sooner.
                Err(error) if movable && error.is_absence() => {
                    let deadline = patience.deadline(context.limits.hold);
                    if !self.topology_changes(deadline).await? {
                        return self.answer_failure(self.no_primary(Some(&error))).await;
                    }
                    continue;
                }
                Err(error) => return self.answer_failure(error).await,
            };
            let _counted = context.loads.count(conn.server());
            self.log_route(route.reason, conn.server());
            self.look_on(class, would);
            if class.facts.contains(Facts::MAY_WRITE) && context.answers.is_used() {
                self.note_written(class, Some(request));
            }
            let waited = match route.target {
                Target::Replica(server) if route.waits => {
                    Box::pin(self.wait_for(server, class)).await
                }
                _ => Ok(None),
            };
            let Ok(wait) = waited else {
                // Somebody has written meanwhile what has no name, or the primary does not tell how far it is.
                self.asked_in_vain();
                if !tried.again(conn.server(), replica) {
                    let error = Error::server(ErrorKind::Behind);
                    return self.answer_failure(error).await;
                }
                continue;
            };
            self.note_reading(class, conn.server());
            // Who may be asked twice is timed there.
            let hedge = self.hedge(&route, class, request, wait.as_ref(), tried);
            let hedged = hedge.is_some();
            match self
                .attempt(&mut conn, class, request, wait.as_ref(), hedge)
                .await
            {
                Ok(mut outcome) => {
                    if let Some(witness) = outcome.witness.take() {
                        self.record(class, request, &witness, &outcome);
                    }
                    if let Some(wait) = &wait {
                        self.arrived(conn.server(), wait);
                    }
                    if let (true, false, None, Some(time)) =
                        (replica, hedged, &wait, outcome.waited)
                    {
                        let allowance = self.rules.policy().hedged_reads;
                        context.loads.answered(conn.server(), time, allowance);
                    }
                    self.note_seen(class, request, &outcome, conn.server());
                    self.note_ruling(&conn, route.reason, &outcome);
                    self.observe(class, would, request, &outcome);
                    if self.ruling.is_some() {
                        self.mirror(class, request, &outcome);
                    }
                    return Ok(Some(Finished { conn, outcome }));
                }
                // As the execution of what was prepared before would fail.
                Err(Failure::Unprepared(error)) if !replica => {
                    self.onlooker = None;
                    let answer = error.answer();
                    let outcome = Outcome::failed(answer.code);
                    self.reply_error(&answer).await?;
                    return Ok(Some(Finished { conn, outcome }));
                }
                Err(failure) if movable && failure.is_unseen() => {
                    self.onlooker = None;
                    debug!(
                        session = self.handle().id(),
                        server = conn.server().0,
                        ?failure,
                        "read tried elsewhere"
                    );
                    let again = tried.again(conn.server(), replica);
                    if !failure.is_behind() {
                        context.loads.failed(conn.server());
                    }
                    if let (true, Some(wait)) = (failure.is_behind(), &wait) {
                        self.waited_in_vain(conn.server(), wait);
                        // The read is running there, for nobody.
                        self.cancel(conn);
                    }
                    if !again {
                        return self.answer_failure(failure.into_error()).await;
                    }
                }
                Err(failure) => {
                    self.onlooker = None;
                    let recovered =
                        self.recover(conn, class, Some(request), failure, &mut patience);
                    if Box::pin(recovered).await? == Next::Told {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Whether the connection carries state of this session that another one does not have.
    pub(super) fn is_bound(&self) -> bool {
        !self.pins.is_empty()
            || self.reading.is_some()
            || self.status.contains(StatusFlags::IN_TRANS)
    }

    async fn answer_failure(&mut self, error: Error) -> Result<Option<Finished>, Error> {
        self.reply_error(&error.answer()).await?;
        Ok(None)
    }

    /// Ends a question of the proxy's own, or a command that was streamed, that has not got its whole answer.
    pub(super) async fn give_up(
        &mut self,
        conn: PooledConn,
        class: &StatementClass,
        failure: Failure,
    ) -> Result<Flow, Error> {
        let mut patience = Patience::default();
        let recovered = self.recover(conn, class, None, failure, &mut patience);
        Box::pin(recovered).await.map(|_| Flow::Continue)
    }

    /// Sends one statement on `conn` and relays its answer.
    async fn attempt(
        &mut self,
        conn: &mut PooledConn,
        class: &StatementClass,
        request: Request<'_>,
        wait: Option<&Wait>,
        hedge: Option<Hedge<'_>>,
    ) -> Result<Outcome, Failure> {
        let handle = Arc::clone(self.registration.handle());
        let _running = handle.run_on(conn.server(), conn.thread_id());
        // Who is told of a server's death is who runs something there when it is found.
        self.may_reach(conn.server(), class)
            .map_err(Failure::Unsent)?;
        let command = select! {
            biased;
            command = self.compose(conn, class, request, wait) => command?,
            interrupt = handle.interrupted() => return Err(unsent(interrupt)),
        };
        let outcome = self.carry_out(conn, command, class, hedge).await?;
        if let (Request::Prepare { key, .. }, Some(statement)) = (request, outcome.prepared) {
            conn.remember_prepared(key.clone(), statement);
        }
        Ok(outcome)
    }

    /// What has to be sent on `conn` so that it runs a statement in the session's state. Whatever has to be answered before, is.
    pub(super) async fn compose<'a>(
        &self,
        conn: &mut PooledConn,
        class: &StatementClass,
        request: Request<'a>,
        wait: Option<&Wait>,
    ) -> Result<Command<'a>, Failure> {
        let mut prefix = BytesMut::new();
        self.put_state(conn, class, &mut prefix);
        if let Some(wait) = wait {
            conn.put_wait(&mut prefix, &wait.query, wait.limit);
        }
        if request.is_long() || !class.is_replica_read() && !conn.will_settle() {
            // A statement that writes must not run in a state that cannot be reached: it does not
            // share a round trip with a change of state that could fail. Compressed, the answers to two commands
            // can be told apart only if each command is one frame.
            conn.send(&prefix, &[]).await.map_err(not_started)?;
            prefix.clear();
            conn.settle(&self.context.buffers)
                .await
                .map_err(not_started)?;
        }
        Ok(match request {
            Request::Forward { packet, expect } => Command {
                prefix,
                packet,
                expect,
                statement: 0,
            },
            Request::Prepare { packet, key, id } => {
                conn.forget_prepared(key);
                Command {
                    prefix,
                    packet,
                    expect: Expect::Prepare,
                    statement: id,
                }
            }
            Request::Execute {
                execution,
                statement,
            } => {
                let there = self.prepared_behind(&mut prefix, conn, statement).await?;
                let malformed = |error: ProtocolError| {
                    Failure::Client(Error::client(ErrorKind::Protocol(error.to_string())))
                };
                execution
                    .put(&mut prefix, there.id, statement)
                    .map_err(malformed)?;
                Command {
                    prefix,
                    packet: &[],
                    expect: execution.expect(),
                    statement: 0,
                }
            }
        })
    }

    /// A statement as `conn` has it prepared; if it has not, it is prepared behind what is in `prefix`, which is sent.
    async fn prepared_behind(
        &self,
        prefix: &mut BytesMut,
        conn: &mut PooledConn,
        statement: &Statement,
    ) -> Result<ServerStatement, Failure> {
        let session = self.handle().id();
        if let Some(there) = conn.find_prepared_for(&statement.key, session, &statement.types) {
            return Ok(there);
        }
        conn.send(prefix, &[]).await.map_err(not_started)?;
        prefix.clear();
        conn.settle(&self.context.buffers)
            .await
            .map_err(not_started)?;
        let handle = self.handle();
        let _running = handle.run_on(conn.server(), conn.thread_id());
        select! {
            biased;
            there = prepare_again(conn, session, statement, &self.context.buffers) => {
                there.map_err(|error| match &error.kind {
                    ErrorKind::Answer(_) => Failure::Unprepared(error),
                    _ => not_started(error),
                })
            }
            interrupt = handle.interrupted() => Err(unsent(interrupt)),
        }
    }

    /// Sends a command in two parts and relays its answer.
    async fn carry_out(
        &mut self,
        conn: &mut PooledConn,
        command: Command<'_>,
        class: &StatementClass,
        hedge: Option<Hedge<'_>>,
    ) -> Result<Outcome, Failure> {
        let Command {
            prefix,
            packet,
            expect,
            statement,
        } = command;
        let error = match conn.send(&prefix, packet).await {
            Ok(()) => {
                let answer = self.relay_answer(conn, expect, statement, class, hedge);
                return answer.await;
            }
            Err(error) => error,
        };
        // A server that refuses what is too large says so and closes, before it has all of it.
        if !is_cut(&error) || conn.settle(&self.context.buffers).await.is_err() {
            return Err(not_started(error));
        }
        match self
            .relay_answer(conn, expect, statement, class, None)
            .await
        {
            Err(Failure::Server { started: false, .. }) => Err(not_started(error)),
            answer => answer,
        }
    }

    /// Appends what the connection needs so that the statement finds the session's state.
    pub(super) fn put_state(
        &self,
        conn: &mut PooledConn,
        class: &StatementClass,
        out: &mut BytesMut,
    ) {
        if self.is_bound() && !conn.is_restricted() {
            return;
        }
        let asks_before = class.facts.contains(Facts::PREVIOUS_STATEMENT)
            && !(conn.was_held() && self.taken_previous);
        let uses_id = class.facts.contains(Facts::LAST_INSERT_ID) || self.may_bind(class);
        let names_variables =
            class.facts.contains(Facts::USER_VARIABLE) || class.cause == Cause::UserVariable;
        // One that the session holds is soiled.
        let others = !conn.was_held() && !conn.is_soiled();
        let others_variables = names_variables && conn.is_written() && others;
        if asks_before || others_variables {
            // Nothing is left to be asked about, neither of another session nor of this one.
            conn.put_reset(out);
        }
        if asks_before || others_variables || uses_id {
            self.put_session(conn, out);
        } else {
            conn.put_sync(out, &self.wanted, "");
        }
    }

    /// Appends what gives the connection all of the session's state that it can have.
    pub(super) fn put_session(&self, conn: &mut PooledConn, out: &mut BytesMut) {
        conn.put_way_to(out, &self.wanted);
        if conn.insert_id() == self.last_insert_id {
            return conn.put_sync(out, &self.wanted, "");
        }
        let extra = format!(", SESSION last_insert_id={}", self.last_insert_id);
        conn.put_sync(out, &self.wanted, &extra);
        conn.set_insert_id(self.last_insert_id);
    }

    /// Whether the session may be tied to the connection that runs this.
    fn may_bind(&self, class: &StatementClass) -> bool {
        matches!(class.kind, Kind::Begin { .. } | Kind::Multi | Kind::Set)
            || !self.status.contains(StatusFlags::AUTOCOMMIT)
            || routing::pin_for(class).is_some()
            || self.may_change_variables(class)
    }

    async fn relay_answer(
        &mut self,
        conn: &mut PooledConn,
        expect: Expect,
        statement: u32,
        class: &StatementClass,
        hedge: Option<Hedge<'_>>,
    ) -> Result<Outcome, Failure> {
        if conn.is_unsettled() {
            // A write behind it may have run all the same, and not as the session wanted.
            let started = !class.is_replica_read() && !conn.waits();
            let handle = self.registration.handle();
            select! {
                biased;
                settled = conn.settle(&self.context.buffers) => {
                    settled.map_err(|error| Failure::Server { error, started })?;
                }
                interrupt = handle.interrupted() => {
                    return Err(Failure::Interrupted { interrupt, started });
                }
            }
        }
        let handle = Arc::clone(self.registration.handle());
        let mut _running = None;
        let curb = self.curb(conn, class);
        // What rules limit is ended where it runs.
        if let (Some(hedge), None) = (hedge, &curb)
            && conn.input.is_empty()
            && Box::pin(self.race(conn, class, hedge)).await?
        {
            _running = Some(handle.run_on(conn.server(), conn.thread_id()));
        }
        let tracker = ResponseTracker::new(expect, conn.capabilities());
        let filling = self.begin_filling();
        let witness = self.begin_witness(class);
        let mut relay = self.relay(class);
        relay.witness = witness;
        (relay.curb, relay.filling) = (curb, filling);
        let ended = relay.run(conn, tracker, statement).await;
        let filling = relay.filling.take();
        self.filled(filling);
        ended
    }

    pub(super) fn relay(&mut self, class: &StatementClass) -> Relay<'_> {
        Relay {
            refusals: self.refusals(class),
            witness: None,
            registry: &self.context.registry,
            pool: &self.context.pool,
            account_changes: &self.context.account_changes,
            definitions: &self.context.definitions,
            key: self.context.server_key.public(),
            class: *class,
            curb: None,
            filling: None,
            answers: &self.context.answers,
            written: self.written.as_deref(),
            wrote_before: self.wrote_in_transaction,
            in_transaction: self.status.contains(StatusFlags::IN_TRANS),
            onlooker: self.onlooker.as_deref_mut(),
            client: &mut self.client,
            ahead: &mut self.input,
            limits: &self.context.limits,
            news: self.news,
            capabilities: self.capabilities,
            handle: self.registration.handle(),
            scopes: &self.scopes,
            buffers: &self.context.buffers,
        }
    }

    /// Ends what still runs for a client that is gone.
    pub(super) fn cancel(&self, mut conn: PooledConn) {
        let (bucket, thread_id) = (conn.bucket(), conn.thread_id());
        // Dropping it closes it: what is ended must be nobody else's. A server notices that only when it wants to write.
        conn.condemn();
        drop(conn);
        let login = self.login.clone();
        tokio::spawn(async move {
            if let Err(error) = bucket.kill_query(&login, thread_id, || true).await {
                debug!(thread_id, %error, "query of a client that left could not be ended");
            }
        });
    }
}

pub(super) fn server_down() -> Error {
    Error::server(ErrorKind::Timeout(
        "the server does not answer the monitor either".into(),
    ))
}

impl Failure {
    /// Whether the server failed before the client saw anything of its answer.
    fn is_unseen(&self) -> bool {
        matches!(
            self,
            Self::Unsent(_)
                | Self::Unprepared(_)
                | Self::Refused(_)
                | Self::Server { started: false, .. }
                | Self::Interrupted {
                    interrupt: Interrupt::ServerDown,
                    started: false
                }
        )
    }

    /// Whether a replica did not get in time what the read must see.
    fn is_behind(&self) -> bool {
        matches!(self, Self::Unsent(error) | Self::Server { error, .. } if matches!(error.kind, ErrorKind::Behind))
    }

    /// Whether the server is lost when the client has seen a part of its answer.
    pub(super) fn has_started(&self) -> bool {
        matches!(
            self,
            Self::Server { started: true, .. }
                | Self::Interrupted {
                    interrupt: Interrupt::ServerDown,
                    started: true
                }
        )
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Unsent(error)
            | Self::Unprepared(error)
            | Self::Server { error, .. }
            | Self::Client(error) => error,
            Self::Refused(answer) => Error::server(ErrorKind::Answer(answer)),
            Self::Interrupted { .. } => server_down(),
        }
    }
}

/// Whether the other side has closed in the middle of what was sent.
fn is_cut(error: &Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(&error.kind, ErrorKind::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset))
}

fn not_started(error: Error) -> Failure {
    Failure::Unsent(error)
}

/// A session was told not to wait before its statement was sent.
fn unsent(interrupt: Interrupt) -> Failure {
    match interrupt {
        Interrupt::ServerDown => Failure::Unsent(server_down()),
        Interrupt::Killed => Failure::Interrupted {
            interrupt,
            started: false,
        },
    }
}
