//! Bytes of a response on their way from the server to the client.

use std::{future::pending, time::Duration};

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    capability::{Capabilities, StatusFlags},
    command::{code, put_command},
    packet::{HEADER_LEN, PacketHeader},
    reply::{OkPacket, put_eof, put_err, put_ok},
    response::{Event, Expect, ResponseTracker},
    resultset::{column_count, put_defined_count},
    rows::Format,
    track::Change,
};
use tokio::{
    select,
    time::{Instant, sleep, timeout},
};

use super::{
    account_changes::{AccountChanges, changes_nothing},
    definitions::Definitions,
    finish::{is_connection_error, may_have_written},
    handle::{Handle, Interrupt, Registry},
    loss::{self, Refusals},
    observe::Onlooker,
    process_list,
    replay::Witness,
    rules::{AnswerCache, Curb, Filling, Written},
    scopes::SessionScopes,
    span::Span,
    status_list::{self, Connected},
};
use crate::{
    backend::{BackendConn, ServerStatement},
    config::Limits,
    error::{Answer, Error, ErrorKind},
    net::{Buffers, Departure, Stream, conversation},
    pool::Pool,
    sql::{Facts, Kind, StatementClass},
};

/// Carries one response to the client, following it without decoding rows.
pub(super) struct Relay<'a> {
    pub(super) client: &'a mut Stream,
    pub(super) capabilities: Capabilities,
    pub(super) handle: &'a Handle,
    pub(super) scopes: &'a SessionScopes,
    pub(super) account_changes: &'a AccountChanges,
    pub(super) definitions: &'a Definitions,
    pub(super) buffers: &'a Buffers,
    /// What the client has sent behind the command.
    pub(super) ahead: &'a mut BytesMut,
    pub(super) limits: &'a Limits,
    /// What the client is told of the session's state.
    pub(super) news: News,
    /// The sessions that stand for a server's threads in a list of these.
    pub(super) registry: &'a Registry,
    /// Whose idle connections are left out there.
    pub(super) pool: &'a Pool,
    /// The key with which clients may encrypt their passwords.
    pub(super) key: &'a [u8],
    /// What runs.
    pub(super) class: StatementClass,
    /// The transaction that is open now may have written.
    pub(super) wrote_before: bool,
    pub(super) in_transaction: bool,
    /// What rules allow the answer.
    pub(super) curb: Option<Box<Curb>>,
    /// Collects the answer, to be kept.
    pub(super) filling: Option<Box<Filling>>,
    /// What was kept of what the transaction, or the statement, wrote.
    pub(super) answers: &'a AnswerCache,
    pub(super) written: Option<&'a Written>,
    /// Sees what comes from the server.
    pub(super) onlooker: Option<&'a mut Onlooker>,
    /// What a server may say instead of running the statement that then can run elsewhere.
    pub(super) refusals: Refusals,
    /// Sums up what the server says, if that has to be known later.
    pub(super) witness: Option<Box<Witness>>,
}

/// What a client is told of changes of its session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum News {
    /// Nothing: it has not asked for it.
    None,
    /// What the server tells by default.
    Usual,
    /// All that the connection tells: its trackers are as the client set them.
    All,
}

/// What a complete response said.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The status flags of its last packet that had any.
    pub(super) status: Option<StatusFlags>,
    /// The number of the error that ended it.
    pub(super) error: Option<u16>,
    /// That error, if by it the server says that it is not the one to run this, or ends the connection.
    pub(super) excuse: Option<Answer>,
    /// What the answer came to, if somebody wanted to know.
    pub(super) witness: Option<Box<Witness>>,
    /// The insert id of its last OK packet.
    pub(super) last_insert_id: u64,
    /// Rows changed, of its last OK packet.
    pub(super) affected_rows: u64,
    /// The number of its rows.
    pub(super) rows: u64,
    /// Warnings of its last packet.
    pub(super) warnings: u16,
    /// The schema that the server says is in use now.
    pub(super) schema: Option<Box<[u8]>>,
    /// The server says that session state changed.
    pub(super) state_changed: bool,
    /// A result set ended with a packet that cannot tell a transaction's position.
    pub(super) untracked: bool,
    /// The position of a transaction was told.
    pub(super) tracked: bool,
    /// How long the server took to begin its answer, if it had not before that was waited for.
    pub(super) waited: Option<Duration>,
    /// The statement that was prepared.
    pub(super) prepared: Option<ServerStatement>,
}

impl Outcome {
    /// Of a statement that this error ended.
    pub(super) fn failed(error: u16) -> Self {
        Self {
            error: Some(error),
            ..Self::default()
        }
    }
}

/// Why a response did not reach the client whole.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server's side failed before it had the whole statement.
    Unsent(Error),
    /// The server has not run the statement, since it is not the one to run it now.
    Refused(Answer),
    /// The server's side failed. `started`: the client has seen a part of the response.
    Server { error: Error, started: bool },
    /// The server would not prepare the statement again. The connection is as before.
    Unprepared(Error),
    /// The client is gone.
    Client(Error),
    /// The session was told to stop.
    Interrupted { interrupt: Interrupt, started: bool },
}

impl Relay<'_> {
    /// Relays the response to what was just sent on `conn`.
    ///
    /// `statement` replaces the server's statement id in the answer to a
    /// preparation. An error that only says that the server ends the connection, or is not the one to run this, is not passed
    /// on, but returned as a failure. An answer that ends in the middle is ended with an error where one can stand.
    pub(super) async fn run(
        &mut self,
        conn: &mut BackendConn,
        tracker: ResponseTracker,
        statement: u32,
    ) -> Result<Outcome, Failure> {
        let ended = self.follow(conn, tracker, statement).await;
        if let Some(mut curb) = self.curb.take()
            && curb.end().await
            && ended.is_ok()
        {
            self.take_late_kill(conn).await?;
        }
        ended
    }

    /// An order to end the statement may have come behind its end: then the server ends the next one, which this is.
    async fn take_late_kill(&mut self, conn: &mut BackendConn) -> Result<(), Failure> {
        let failed = |error| Failure::Server {
            error,
            started: true,
        };
        let mut ping = BytesMut::new();
        put_command(&mut ping, code::PING, b"");
        conn.send(&[], &ping).await.map_err(failed)?;
        let tracker = ResponseTracker::new(Expect::Status, conn.capabilities());
        self.listen(conn, tracker).await.map(|_| ())
    }

    async fn follow(
        &mut self,
        conn: &mut BackendConn,
        mut tracker: ResponseTracker,
        statement: u32,
    ) -> Result<Outcome, Failure> {
        let mut outcome = Outcome {
            witness: self.witness.take(),
            ..Outcome::default()
        };
        let asked = Instant::now();
        let mut started = false;
        // What takes the place of the rest of an answer that is too long, and its sequence id.
        let mut cut: Option<(Answer, u8)> = None;
        let mut passed = 0;
        let mut rewritten = BytesMut::new();
        let is_list = self.class.kind == Kind::Show
            && self
                .class
                .facts
                .intersects(Facts::PROCESS_LIST | Facts::STATUS);
        let mut list = is_list.then(BytesMut::new);
        let format = tracker.format();
        // The sequence id of what comes behind the client's file.
        let mut behind_file = None;
        loop {
            let begun = tracker.pending();
            let mut walked = self
                .walk(
                    &conn.input,
                    &mut tracker,
                    &mut outcome,
                    &mut rewritten,
                    statement,
                )
                .map_err(|text| Failure::Server {
                    error: Error::server(ErrorKind::Protocol(text)),
                    started,
                })?;
            if let Some(onlooker) = &mut self.onlooker {
                let seen = conn.input.get(..walked.end).unwrap_or_default();
                onlooker.see(conn.capabilities(), seen);
            }
            if let (false, Some(excuse)) = (started, outcome.excuse.take()) {
                return Err(match is_connection_error(excuse.code) {
                    true => Failure::Server {
                        error: Error::server(ErrorKind::Answer(excuse)),
                        started,
                    },
                    false => Failure::Refused(excuse),
                });
            }
            passed += walked.end as u64;
            // A list that is collected has not begun for the client: it is whole or not at all.
            if let (Some(curb), None, Some(begun), None) = (&mut self.curb, &cut, begun, &list)
                && let Some(next) = conn.input.get(begun..walked.end)
                && let Some(next) = PacketHeader::parse(next)
                && let Some(answer) = curb.too_long(tracker.rows(), passed)
            {
                cut = Some((answer, next.seq));
                self.filling = None;
                // The packet that has begun belongs to the client whole.
                rewritten.clear();
                rewritten.extend_from_slice(conn.input.get(..begun).unwrap_or_default());
                let written = self.client.write_all(&rewritten).await;
                written.map_err(|error| Failure::Client(Error::client(ErrorKind::Io(error))))?;
                started |= begun > 0;
            }
            if let Some((answer, seq)) = &cut {
                rewritten.clear();
                conn.input.advance(walked.end);
                if tracker.is_done() {
                    outcome.error = Some(answer.code);
                    let mut seq = *seq;
                    put_err(
                        &mut rewritten,
                        &mut seq,
                        &answer.packet(),
                        self.capabilities,
                    );
                    let written = self.client.write_all(&rewritten).await;
                    let lost = |error| Failure::Client(Error::client(ErrorKind::Io(error)));
                    return written.map_err(lost).map(|()| outcome);
                }
                if !walked.result_ended {
                    self.wait(conn, started).await?;
                }
                continue;
            }
            let unchanged = conn
                .input
                .get(walked.copied..walked.end)
                .unwrap_or_default();
            if let Some(mut whole) = list.take() {
                // Collected, so that it can be rewritten.
                whole.extend_from_slice(&rewritten);
                whole.extend_from_slice(unchanged);
                rewritten.clear();
                conn.input.advance(walked.end);
                if !tracker.is_done() && whole.len() < LIST {
                    list = Some(whole);
                    self.wait(conn, started).await?;
                    continue;
                }
                rewritten = match tracker.is_done() {
                    true if self.class.facts.contains(Facts::STATUS) => {
                        self.with_connection(&whole, format)
                    }
                    true => self.with_sessions(&whole, format, conn),
                    false => whole,
                };
                walked = Walked::default();
            }
            let unchanged = conn
                .input
                .get(walked.copied..walked.end)
                .unwrap_or_default();
            if !rewritten.is_empty() || !unchanged.is_empty() {
                started = true;
                if let Some(filling) = &mut self.filling {
                    filling.add(&rewritten);
                    filling.add(unchanged);
                }
                let written = self.client.write_both(&rewritten, unchanged).await;
                written.map_err(|error| Failure::Client(Error::client(ErrorKind::Io(error))))?;
                rewritten.clear();
                conn.input.advance(walked.end);
            }
            if tracker.is_done() {
                return Ok(outcome);
            }
            if walked.result_ended {
                self.client.begin_result();
                continue;
            }
            if let Some(due) = walked.file {
                behind_file = Some(self.send_file(conn, due).await?.wrapping_add(1));
                tracker.local_infile_sent();
            }
            if let Err(failure) = self.wait(conn, started).await {
                if tracker.pending() == Some(0) && failure.has_started() {
                    let seq = behind_file.unwrap_or_else(|| tracker.next_seq());
                    self.break_off(seq).await;
                }
                return Err(failure);
            }
            outcome.waited.get_or_insert_with(|| asked.elapsed());
        }
    }

    /// Follows the response to a question of the proxy's own to its end: its bytes, or none if they are too many.
    pub(super) async fn listen(
        &mut self,
        conn: &mut BackendConn,
        mut tracker: ResponseTracker,
    ) -> Result<(Outcome, BytesMut), Failure> {
        let protocol = |text: String| Failure::Server {
            error: Error::server(ErrorKind::Protocol(text)),
            started: false,
        };
        let mut outcome = Outcome {
            witness: self.witness.take(),
            ..Outcome::default()
        };
        let (mut heard, mut len) = (BytesMut::new(), 0_usize);
        loop {
            let mut rewritten = BytesMut::new();
            let walked = self
                .walk(&conn.input, &mut tracker, &mut outcome, &mut rewritten, 0)
                .map_err(protocol)?;
            if walked.file.is_some() {
                return Err(protocol("a question was answered with one".into()));
            }
            len = len.saturating_add(walked.end);
            if len <= HEARD {
                heard.extend_from_slice(conn.input.get(..walked.end).unwrap_or_default());
            } else {
                heard = BytesMut::new();
            }
            conn.input.advance(walked.end);
            if tracker.is_done() {
                return Ok((outcome, heard));
            }
            if !walked.result_ended {
                self.wait(conn, false).await?;
            }
        }
    }

    /// Follows the response through the bytes that are there.
    ///
    /// Up to `copied` they went to `rewritten`; from there to `end` they can be
    /// passed on as they are.
    fn walk(
        &self,
        input: &[u8],
        tracker: &mut ResponseTracker,
        outcome: &mut Outcome,
        rewritten: &mut BytesMut,
        session_statement: u32,
    ) -> Result<Walked, String> {
        let mut walked = Walked::default();
        while !tracker.is_done() {
            let mut rest = input.get(walked.end..).unwrap_or_default();
            if self.caches_metadata()
                && tracker.is_at_result()
                && let Some(count) = column_count(rest)
            {
                // Servers are not asked to leave out what they think is known: statements change their connections.
                rest = rest.get(..count).unwrap_or_default();
                rewritten
                    .extend_from_slice(input.get(walked.copied..walked.end).unwrap_or_default());
                put_defined_count(rewritten, rest);
                walked.copied = walked.end + count;
            }
            match tracker.next(rest).map_err(|error| error.to_string())? {
                Event::NeedMore => break,
                Event::Data { len } => {
                    if let Some(witness) = &mut outcome.witness {
                        witness.data(rest.get(..len).unwrap_or_default());
                    }
                    walked.end += len;
                }
                Event::Ok {
                    len,
                    packet,
                    header,
                    mut seq,
                    last,
                } => {
                    self.note(&packet, outcome);
                    if let Some(witness) = &mut outcome.witness {
                        witness.ok(&packet);
                    }
                    if let Some(state) = self.rewritten_state(&packet) {
                        rewritten.extend_from_slice(
                            input.get(walked.copied..walked.end).unwrap_or_default(),
                        );
                        let mut packet = packet;
                        packet.session_state = &state;
                        packet
                            .status
                            .set(StatusFlags::SESSION_STATE_CHANGED, !state.is_empty());
                        put_ok(rewritten, &mut seq, &packet, header, self.capabilities);
                        walked.copied = walked.end + len;
                    }
                    walked.end += len;
                    if self.ends_result(last) {
                        walked.result_ended = true;
                        break;
                    }
                }
                Event::Eof {
                    len,
                    status,
                    warnings,
                    mut seq,
                    last,
                } => {
                    outcome.status = Some(status);
                    outcome.warnings = warnings;
                    outcome.untracked = true;
                    if let Some(witness) = &mut outcome.witness {
                        witness.eof(warnings);
                    }
                    let shown = status.difference(StatusFlags::SESSION_STATE_CHANGED);
                    if shown != status && !self.capabilities.contains(Capabilities::SESSION_TRACK) {
                        rewritten.extend_from_slice(
                            input.get(walked.copied..walked.end).unwrap_or_default(),
                        );
                        put_eof(rewritten, &mut seq, shown, warnings);
                        walked.copied = walked.end + len;
                    }
                    walked.end += len;
                    if self.ends_result(last) {
                        walked.result_ended = true;
                        break;
                    }
                }
                Event::Err {
                    len,
                    packet,
                    mut seq,
                } => {
                    outcome.error = Some(packet.code);
                    if let Some(witness) = &mut outcome.witness {
                        witness.error(packet.code);
                    }
                    if is_connection_error(packet.code) || self.refusals.contain(&packet) {
                        outcome.excuse = Some(Answer::of(&packet));
                    }
                    let overdue = self.curb.as_ref().and_then(|curb| curb.timed_out());
                    if let Some(answer) = overdue.filter(|_| packet.code == INTERRUPTED) {
                        outcome.error = Some(answer.code);
                        rewritten.extend_from_slice(
                            input.get(walked.copied..walked.end).unwrap_or_default(),
                        );
                        put_err(rewritten, &mut seq, &answer.packet(), self.capabilities);
                        walked.copied = walked.end + len;
                    }
                    walked.end += len;
                }
                Event::LocalInfile { len } => {
                    walked.end += len;
                    walked.file = PacketHeader::parse(rest).map(|asks| asks.seq.wrapping_add(1));
                    break;
                }
                Event::Prepared {
                    len,
                    statement,
                    parameters,
                    ..
                } => {
                    outcome.prepared = Some(ServerStatement {
                        id: statement,
                        parameters,
                    });
                    rewritten.extend_from_slice(
                        input
                            .get(walked.copied..walked.end + len)
                            .unwrap_or_default(),
                    );
                    // Header, status byte, then the id.
                    let at = rewritten.len() - len + HEADER_LEN + 1;
                    if let Some(id) = rewritten.get_mut(at..at + 4) {
                        id.copy_from_slice(&session_statement.to_le_bytes());
                    }
                    walked.end += len;
                    walked.copied = walked.end;
                }
            }
        }
        if tracker.is_done() {
            outcome.rows = tracker.rows();
            let prepares = session_statement != 0;
            self.note_end(outcome, prepares);
        }
        Ok(walked)
    }

    /// A list of a server's threads as a list of sessions.
    fn with_sessions(&self, list: &[u8], format: Format, conn: &BackendConn) -> BytesMut {
        let server = conn.server();
        process_list::rewrite(
            list,
            (self.capabilities, format),
            self.handle.id(),
            &self.registry.list(server),
            &self.pool.idle_threads(server),
        )
    }

    /// A server's status with what is said of the connection said of the client's.
    fn with_connection(&self, list: &[u8], format: Format) -> BytesMut {
        let connected = Connected {
            tls: self.client.tls(),
            key: self.key,
        };
        status_list::rewrite(list, (self.capabilities, format), &connected)
    }

    /// Whether the stream has to know that another result follows: compression begins each in a frame of its own.
    fn ends_result(&self, last: bool) -> bool {
        !last && self.client.has_layers()
    }

    fn caches_metadata(&self) -> bool {
        self.capabilities.contains(Capabilities::CACHE_METADATA)
    }

    /// The changes of state that the client is told of; None if they are those in the packet.
    fn rewritten_state(&self, packet: &OkPacket<'_>) -> Option<Vec<u8>> {
        match self.news {
            News::None => Some(Vec::new()),
            News::All => None,
            News::Usual => packet.state_without(|change| {
                matches!(
                    change,
                    Change::StateChanged(_)
                        | Change::Gtids(_)
                        | Change::SystemVariable {
                            name: b"last_gtid",
                            ..
                        }
                )
            }),
        }
    }

    /// A change of accounts or definitions, or a write whose position was not told: before the client can see that it ended.
    fn note_end(&self, outcome: &Outcome, prepares: bool) {
        // Of several statements, those before the one that failed have run.
        let several = self.class.facts.contains(Facts::MULTI);
        if self.class.facts.contains(Facts::DEFINITIONS)
            && !prepares
            && (several || !outcome.error.is_some_and(changes_nothing))
        {
            self.definitions.note(Instant::now());
        }
        if self.class.facts.contains(Facts::ACCOUNTS) && !prepares {
            match outcome.error {
                Some(code) if !several && changes_nothing(code) => self.account_changes.nudge(),
                _ => self.account_changes.note(Instant::now()),
            }
        }
        let in_transaction = match outcome.status {
            Some(status) => status.contains(StatusFlags::IN_TRANS),
            None => self.in_transaction,
        };
        if !(outcome.tracked || in_transaction || self.class.kind == Kind::Rollback) {
            self.note_untold(outcome);
        }
        // Behind what makes readers wait: or they would fill the cache with what was before.
        let commits = outcome.tracked
            || matches!(
                self.class.kind,
                Kind::Commit | Kind::Rollback | Kind::Begin { .. } | Kind::Ddl | Kind::Multi
            );
        match self.written {
            Some(written) if !in_transaction || commits => self.answers.forget(written),
            // It was written before anybody kept answers.
            None if self.wrote_before && !in_transaction && self.answers.is_used() => {
                self.answers.forget_all();
            }
            _ => {}
        }
    }

    /// A write whose position was not told.
    fn note_untold(&self, outcome: &Outcome) {
        let wrote = match outcome.error {
            // Parts of it may have been committed before it failed.
            Some(_) => {
                self.class.facts.contains(Facts::MAY_WRITE) && self.class.kind != Kind::Write
            }
            None => self.wrote_before || may_have_written(&self.class, outcome),
        };
        if wrote {
            self.scopes.wrote_unknown();
        }
    }

    /// Takes over what an OK packet says, before the client can see it.
    fn note(&self, packet: &OkPacket<'_>, outcome: &mut Outcome) {
        outcome.status = Some(packet.status);
        outcome.warnings = packet.warnings;
        outcome.last_insert_id = packet.last_insert_id;
        outcome.affected_rows = packet.affected_rows;
        for change in packet.changes().map_while(Result::ok) {
            match change {
                Change::Gtids(text) => {
                    outcome.tracked = true;
                    self.scopes.wrote(text);
                }
                Change::SystemVariable {
                    name: b"last_gtid",
                    value,
                } if !value.is_empty() => {
                    outcome.tracked = true;
                    self.scopes.wrote(value);
                }
                Change::Schema(name) => outcome.schema = Some(name.into()),
                Change::StateChanged(changed) => outcome.state_changed |= changed,
                _ => {}
            }
        }
    }

    /// Waits for more of the response, for the client's end, or for an order to stop.
    async fn wait(&mut self, conn: &mut BackendConn, started: bool) -> Result<(), Failure> {
        if self.curb.is_some() {
            return Box::pin(self.wait_curbed(conn, started)).await;
        }
        let handle = self.handle;
        select! {
            biased;
            filled = conn.fill(self.buffers) => filled.map_err(|error| Failure::Server { error, started }),
            () = self.abandoned() => Err(Failure::Client(Error::client(ErrorKind::Closed))),
            interrupt = handle.interrupted() => Err(Failure::Interrupted { interrupt, started }),
        }
    }

    /// The same for a statement that rules may end.
    async fn wait_curbed(&mut self, conn: &mut BackendConn, started: bool) -> Result<(), Failure> {
        let mut curb = self.curb.take();
        let (handle, buffers) = (self.handle, self.buffers);
        let waited = loop {
            let expired = async {
                match &mut curb {
                    Some(curb) => curb.expire().await,
                    None => pending().await,
                }
            };
            select! {
                biased;
                filled = conn.fill(buffers) => {
                    break filled.map_err(|error| Failure::Server { error, started });
                }
                () = self.abandoned() => {
                    break Err(Failure::Client(Error::client(ErrorKind::Closed)));
                }
                interrupt = handle.interrupted() => {
                    break Err(Failure::Interrupted { interrupt, started });
                }
                () = expired => {}
            }
        };
        self.curb = curb;
        waited
    }

    /// Waits until nobody can be waiting for the answer any more.
    ///
    /// A server runs a statement to its end whatever its client does meanwhile. A client that has closed its side may
    /// have closed only that: a write goes on until its end, a read for a while.
    async fn abandoned(&mut self) {
        if self.client.departed(self.ahead).await == Departure::Gone {
            return;
        }
        if self.class.facts.contains(Facts::MAY_WRITE) {
            return self.client.broken().await;
        }
        given_up(self.client, self.limits).await;
    }

    /// Ends an answer that the client has seen the beginning of. The session ends behind it.
    async fn break_off(&mut self, mut seq: u8) {
        let answer = match self.class.kind {
            Kind::LoadData if self.in_transaction => loss::rolled_back(),
            Kind::LoadData => loss::unknown(),
            _ => loss::broken_off(),
        };
        let mut out = BytesMut::new();
        put_err(&mut out, &mut seq, &answer.packet(), self.capabilities);
        // It may be gone as well.
        let _ = self.client.write_all(&out).await;
    }

    /// Streams the client's packets to the server until the empty one, whose sequence id this gives.
    async fn send_file(&mut self, conn: &mut BackendConn, due: u8) -> Result<u8, Failure> {
        let mut span = Span::file(due);
        let mut failed = false;
        loop {
            let end = span.advance(self.ahead);
            if span.is_broken() {
                let error = conversation::out_of_order();
                let mut out = BytesMut::new();
                let mut seq = due;
                put_err(
                    &mut out,
                    &mut seq,
                    &error.answer().packet(),
                    self.capabilities,
                );
                // The client may be gone already.
                let _ = self.client.write_all(&out).await;
                return Err(Failure::Client(error));
            }
            // A server that gave up on the file has said why; the client still sends all of it.
            failed = failed
                || conn
                    .send(&[], self.ahead.get(..end).unwrap_or_default())
                    .await
                    .is_err();
            self.ahead.advance(end);
            if span.is_complete() {
                return Ok(span.seq());
            }
            self.ahead.reserve(Buffers::SMALL);
            let read = timeout(self.limits.read_timeout, self.client.read(self.ahead)).await;
            let kind = match read {
                Ok(Ok(0)) => ErrorKind::Closed,
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => ErrorKind::Io(error),
                Err(_) => ErrorKind::Timeout("the rest of a file".into()),
            };
            return Err(Failure::Client(Error::client(kind)));
        }
    }
}

/// Waits until a client that has closed its side, but may still read, can hardly be there any more.
pub(super) async fn given_up(client: &Stream, limits: &Limits) {
    select! {
        () = client.broken() => {}
        () = sleep(limits.abandoned) => {}
    }
}

/// ER_QUERY_INTERRUPTED
const INTERRUPTED: u16 = 1317;

/// Longest answer to a question that is of interest.
const HEARD: usize = 1 << 20;

/// A longer list of threads is passed on as it is.
const LIST: usize = 16 << 20;

#[derive(Debug, Default)]
struct Walked {
    copied: usize,
    end: usize,
    /// Another result of the answer follows.
    result_ended: bool,
    /// The server asked for a file, whose first packet has this sequence id.
    file: Option<u8>,
}
