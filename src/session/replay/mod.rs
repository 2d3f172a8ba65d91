//! Transactions that are run again when their server is lost before COMMIT was sent.
//!
//! Of each statement what was sent and a sum of what was answered is kept. On the new primary all of them run in a new
//! transaction; if each has the same answer as before, nobody can tell the difference, and the session goes on in it.

mod recording;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use dbproxy_proto::{capability::StatusFlags, command::put_query, response::ResponseTracker};
use tokio::time::timeout_at;
use tracing::info;

use recording::{Entry, Resumed};
pub(super) use recording::{Recording, Witness};

use super::{
    Session,
    loss::{Patience, is_repeatable, is_single},
    observe::text_of,
    relay::{Failure, Outcome},
    statement::Request,
};
use crate::{
    error::{Error, Origin},
    pool::PooledConn,
    routing::PinReason,
    sql::{self, Facts, Kind, StatementClass},
};

/// How often one transaction is run again.
const ATTEMPTS: u8 = 5;

/// How running a transaction again has ended.
enum Ended {
    /// Everything was answered as before; the status flags of the last answer.
    Same(Option<StatusFlags>),
    /// Something was not.
    Otherwise,
    /// Statements of this digest bring the values of AUTO_INCREMENT columns along.
    OwnIds(u64),
    /// The server, or another transaction there, was in the way: it can be tried once more.
    Hindered,
}

impl Session {
    /// What sums up the answer to a statement that a transaction may begin with, or that is part of one, if that may have to be
    /// run again.
    pub(super) fn begin_witness(&self, class: &StatementClass) -> Option<Box<Witness>> {
        self.rules.policy().transaction_replay?;
        let concerns = self.recording.is_some()
            || self.status.contains(StatusFlags::IN_TRANS)
            || !self.status.contains(StatusFlags::AUTOCOMMIT)
            || matches!(class.kind, Kind::Begin { .. } | Kind::Set);
        concerns.then(|| Box::new(Witness::new(now())))
    }

    /// Takes down a statement that has run. Whether it was part of a transaction is known when the session has taken over what
    /// it changed, see [`Self::keep_recording`].
    pub(super) fn record(
        &mut self,
        class: &StatementClass,
        request: Request<'_>,
        witness: &Witness,
        outcome: &Outcome,
    ) {
        let limit = self.rules.policy().transaction_replay.unwrap_or_default();
        let begun = self.status.contains(StatusFlags::IN_TRANS);
        if matches!(class.kind, Kind::Begin { .. }) && begun {
            // The one before has ended with it.
            self.recording = None;
        } else if begun && self.recording.is_none() {
            let mut recording = Recording::new(self.wanted.clone(), self.last_insert_id);
            recording.spoil("its beginning was not recorded");
            self.recording = Some(Box::new(recording));
        }
        let Some(entry) = Entry::new(request, *class, self.wanted.clone(), witness, outcome) else {
            return;
        };
        let why = self.unrepeatable(class, request);
        let (state, last_insert_id) = (self.wanted.clone(), self.last_insert_id);
        let recording = self
            .recording
            .get_or_insert_with(|| Box::new(Recording::new(state, last_insert_id)));
        if let Some(why) = why {
            recording.spoil(why);
        }
        recording.add(entry, limit);
    }

    /// Why a transaction with this statement cannot be run again.
    fn unrepeatable(&self, class: &StatementClass, request: Request<'_>) -> Option<&'static str> {
        const BOUND: Facts = Facts::USER_VARIABLE
            .union(Facts::NAMED_LOCK)
            .union(Facts::TEMPORARY_TABLE)
            .union(Facts::SEQUENCE)
            .union(Facts::CHAIN);
        let of_a_kind = matches!(
            class.kind,
            Kind::Read
                | Kind::Write
                | Kind::Begin { .. }
                | Kind::Savepoint
                | Kind::Set
                | Kind::Use
                | Kind::Show
                | Kind::Explain
                | Kind::Diagnostics
                | Kind::Empty
        );
        if !is_single(class) || !of_a_kind || !is_repeatable(request) {
            // One that ends the transaction has no need to.
            return Some(
                "one of its statements may do more than its text tells, or cannot be repeated",
            );
        }
        if class.facts.intersects(BOUND) {
            return Some("one of its statements leaves something on the connection");
        }
        if matches!(request, Request::Execute { execution, .. } if execution.wants_cursor()) {
            return Some("it has a cursor");
        }
        let text = text_of(request, self.capabilities);
        if text.is_some_and(|text| sql::depends_on_chance(text, self.dialect)) {
            return Some("one of its statements depends on chance");
        }
        None
    }

    /// Keeps what was recorded as long as the transaction lasts. `lasts`: it does, or may.
    pub(super) fn keep_recording(&mut self, lasts: bool) {
        let Some(recording) = &mut self.recording else {
            return;
        };
        let lasts = lasts || self.pins.first() == Some(PinReason::NextTransaction);
        if !lasts {
            self.recording = None;
            return;
        }
        if !recording.take_current() {
            recording.spoil("one of its statements was not recorded");
        }
        if self
            .pins
            .first()
            .is_some_and(|pin| pin != PinReason::NextTransaction)
        {
            recording.spoil("the session has something on the connection that no other has");
        }
    }

    /// The session is about to lose the transaction that it is in.
    pub(super) fn suspend_recording(&mut self) {
        let (pin, wrote) = (self.pins.first(), self.wrote_in_transaction);
        if let Some(recording) = &mut self.recording {
            recording.resumed = Resumed { pin, wrote };
        }
    }

    /// Whether a transaction that was lost may be run again.
    pub(super) fn may_replay(&self) -> bool {
        let recording = self.recording.as_ref();
        recording.is_some_and(|recording| recording.is_spoiled().is_none())
    }

    /// Runs a lost transaction again on the primary, so that the session is in it as before. False if that cannot be.
    ///
    /// An error of the client's origin means that the session is to end.
    pub(super) async fn replay(&mut self, patience: &mut Patience) -> Result<bool, Error> {
        let Some(mut recording) = self.recording.take() else {
            return Ok(false);
        };
        let session = self.handle().id();
        if let Some(reason) = recording.is_spoiled() {
            info!(session, reason, "transaction not replayed");
            return Ok(false);
        }
        let deadline = patience.deadline(self.context.limits.hold);
        while patience.replays < ATTEMPTS {
            patience.replays += 1;
            let mut conn = match timeout_at(deadline, self.primary_connection()).await {
                Ok(Ok(conn)) => conn,
                Ok(Err(error)) if error.origin == Origin::Client => return Err(error),
                Ok(Err(_)) | Err(_) => return Ok(false),
            };
            // What runs belongs to a transaction: the connection's state is the recording's.
            self.status |= StatusFlags::IN_TRANS;
            let again = Box::pin(self.run_again(&mut conn, &recording));
            // Another transaction may have locked what it needs.
            let ended = timeout_at(deadline, again).await;
            self.status.remove(StatusFlags::IN_TRANS);
            match ended.unwrap_or(Ok(Ended::Otherwise))? {
                Ended::Same(status) => {
                    info!(
                        session,
                        server = conn.server().0,
                        statements = recording.entries.len(),
                        "transaction replayed"
                    );
                    self.resume(conn, recording, status);
                    return Ok(true);
                }
                Ended::Otherwise => {
                    conn.condemn();
                    info!(
                        session,
                        server = conn.server().0,
                        reason = "an answer was another one",
                        "transaction not replayed"
                    );
                    return Ok(false);
                }
                Ended::OwnIds(digest) => {
                    conn.condemn();
                    recording.bring_own_ids(digest);
                }
                Ended::Hindered => {
                    conn.condemn();
                    drop(conn);
                    self.ask_monitor();
                    if !self.topology_changes(deadline).await? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(false)
    }

    /// The session goes on in the transaction that was run again on `conn`.
    fn resume(
        &mut self,
        mut conn: PooledConn,
        recording: Box<Recording>,
        status: Option<StatusFlags>,
    ) {
        let Resumed { pin, wrote } = recording.resumed;
        let flags = StatusFlags::IN_TRANS | StatusFlags::IN_TRANS_READONLY;
        self.status |= status.unwrap_or_default() & flags;
        self.pins.clear();
        if let Some(pin) = pin {
            self.pins.begin(pin);
        }
        self.wrote_in_transaction = wrote;
        conn.set_state(self.wanted.clone());
        conn.set_insert_id(self.last_insert_id);
        conn.mark_idle(&self.context.buffers);
        conn.mark_soiled();
        if wrote && self.context.answers.is_used() {
            let class = self.of_connection();
            self.note_written(&class, None);
        }
        self.recording = Some(recording);
        self.hold(conn);
    }

    async fn run_again(
        &mut self,
        conn: &mut PooledConn,
        recording: &Recording,
    ) -> Result<Ended, Error> {
        let mut commands = BytesMut::new();
        let extra = format!(", SESSION last_insert_id={}", recording.last_insert_id);
        conn.put_sync(&mut commands, &recording.state, &extra);
        if self.send_and_settle(conn, &commands).await.is_err() {
            return Ok(Ended::Hindered);
        }
        let pins_time = recording.state.variable("timestamp").is_none()
            && self.wanted.variable("timestamp").is_none();
        let mut status = None;
        for entry in &recording.entries {
            conn.set_state(entry.state.clone());
            let pinned = pins_time && matches!(entry.class.kind, Kind::Read | Kind::Write);
            if pinned && !self.set_aside(conn, &pins(entry)).await {
                return Ok(Ended::Hindered);
            }
            let (outcome, sum) = match self.run_entry(conn, entry).await {
                Ok(ran) => ran,
                Err(Failure::Client(error)) => return Err(error),
                Err(_) => return Ok(Ended::Hindered),
            };
            match outcome.error {
                _ if sum == entry.sum => {}
                // Another transaction was in the way, or it is refused there.
                Some(1205 | 1213) => return Ok(Ended::Hindered),
                Some(_) if outcome.excuse.is_some() => return Ok(Ended::Hindered),
                _ => return Ok(Ended::Otherwise),
            }
            if pinned && !self.set_aside(conn, UNPIN).await {
                return Ok(Ended::OwnIds(entry.class.digest));
            }
            status = outcome.status.or(status);
        }
        Ok(Ended::Same(status))
    }

    /// Runs a statement of the proxy's own; false if that failed.
    async fn set_aside(&self, conn: &mut PooledConn, set: &str) -> bool {
        let mut command = BytesMut::new();
        put_query(&mut command, set.as_bytes(), conn.capabilities());
        conn.expect_answers(1);
        self.send_and_settle(conn, &command).await.is_ok()
    }

    async fn send_and_settle(&self, conn: &mut PooledConn, commands: &[u8]) -> Result<(), Error> {
        conn.send(commands, &[]).await?;
        self.patiently(conn.settle(&self.context.buffers)).await
    }

    /// Runs one statement again, and keeps its answer from the client.
    async fn run_entry(
        &mut self,
        conn: &mut PooledConn,
        entry: &Entry,
    ) -> Result<(Outcome, u64), Failure> {
        let handle = std::sync::Arc::clone(self.registration.handle());
        let _running = handle.run_on(conn.server(), conn.thread_id());
        self.may_reach(conn.server(), &entry.class)
            .map_err(Failure::Unsent)?;
        let command = self
            .compose(conn, &entry.class, entry.request(), None)
            .await?;
        let lost = Failure::Unsent;
        conn.send(&command.prefix, command.packet)
            .await
            .map_err(lost)?;
        conn.settle(&self.context.buffers).await.map_err(lost)?;
        let tracker = ResponseTracker::new(command.expect, conn.capabilities());
        let mut relay = self.relay(&entry.class);
        relay.witness = Some(Box::new(Witness::new(entry.at)));
        let (mut outcome, _) = relay.listen(conn, tracker).await?;
        let sum = outcome.witness.take().map_or(0, |witness| witness.sum());
        Ok((outcome, sum))
    }
}

/// What gives a statement the time and the AUTO_INCREMENT values that it had before.
fn pins(entry: &Entry) -> String {
    let (seconds, micros) = (entry.at / 1_000_000, entry.at % 1_000_000);
    let mut set = format!("SET SESSION timestamp={seconds}.{micros:06}");
    if entry.insert_id != 0 {
        set.push_str(&format!(", SESSION insert_id={}", entry.insert_id));
    }
    set
}

/// Lets the time go on. Fails, by a subquery with two rows, if the value for an AUTO_INCREMENT column was not used, which only a
/// use takes away again on MariaDB.
const UNPIN: &str = "SET SESSION timestamp=COALESCE((SELECT 0 FROM (SELECT 1 AS a UNION SELECT 2) AS two \
                     WHERE @@SESSION.insert_id <> 0), 0)";

/// Microseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since: Duration = since.unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
