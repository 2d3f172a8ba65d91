//! A logged-in connection to a server, and what is known of its state.

use std::{io, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    capability::Capabilities,
    command::{code, put_command, put_query},
    packet::{self, Frame},
    reply::ErrPacket,
    response::{Event, Expect, ResponseTracker},
};
use tokio::time::timeout;

use super::{
    accepted::Accepted,
    prepared::{Prepared, ServerStatement, StatementKey},
    state::{SessionState, put_difference},
};
use crate::{
    error::{Answer, Error, ErrorKind},
    net::{Buffers, Stream},
    topology::ServerId,
};

/// A logged-in connection to a server.
///
/// Its owner sends a command, reads [`Self::input`] until the answer is
/// complete, and marks it idle again. Whoever loses it while it is
/// busy loses the connection: what is in flight belongs to nobody else.
#[derive(Debug)]
pub struct BackendConn {
    stream: Stream,
    /// Bytes that were read and not yet consumed.
    pub input: BytesMut,
    server: ServerId,
    thread_id: u32,
    capabilities: Capabilities,
    state: Arc<SessionState>,
    /// The state at login, as long as the account's expired password may keep the connection from leaving it.
    restricted: Option<Arc<SessionState>>,
    trackers: Trackers,
    tracked: bool,
    /// Answers still to come to commands that the session did not ask for.
    pending: u32,
    /// Behind them comes the answer to whether the server has caught up, which may take so long.
    waits: Option<Duration>,
    /// None of those commands changes the schema.
    same_schema: bool,
    accepted: Arc<Accepted>,
    busy: bool,
    soiled: bool,
    /// A session was tied to it for something of which nothing should be left.
    worn: bool,
    /// A trigger may have left user variables behind.
    written: bool,
    insert_id: u64,
    prepared: Prepared,
}

/// The session trackers that the proxy needs from every server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trackers {
    /// Assignments of a SET statement that turn them on, behind others.
    on: &'static str,
    /// The statement that leaves them as the server has them by default.
    off: &'static str,
}

impl Trackers {
    pub(super) const MYSQL: Self = Self {
        on: ", SESSION session_track_gtids=OWN_GTID, SESSION session_track_state_change=ON, \
             SESSION session_track_schema=ON",
        off: "SET SESSION session_track_gtids=DEFAULT, SESSION session_track_state_change=DEFAULT, \
              SESSION session_track_schema=DEFAULT",
    };
    pub(super) const MARIADB: Self = Self {
        on: ", SESSION session_track_state_change=ON, SESSION session_track_schema=ON, \
             SESSION session_track_system_variables='autocommit,character_set_client,\
             character_set_connection,character_set_results,time_zone,last_gtid'",
        off: "SET SESSION session_track_state_change=DEFAULT, SESSION session_track_schema=DEFAULT, \
              SESSION session_track_system_variables=DEFAULT",
    };
}

/// How long a server may take to answer what only changes the connection's state, or prepares.
const SETTLE: Duration = Duration::from_secs(30);

/// Of a result with one number, names and all.
const LONGEST_ANSWER: usize = 16 << 10;

/// Whether the last row of a result with one column is the text `0`.
fn is_zero(answer: &[u8]) -> bool {
    let mut rest = answer;
    let (mut row, mut end) = (&[][..], &[][..]);
    while let Frame::Complete { len, payload } = packet::complete(rest) {
        (row, end) = (end, rest.get(payload).unwrap_or_default());
        rest = rest.get(len..).unwrap_or_default();
    }
    !end.is_empty() && row == b"\x010"
}

/// ER_MUST_CHANGE_PASSWORD
pub(super) const MUST_CHANGE_PASSWORD: u16 = 1820;

impl BackendConn {
    pub(super) fn new(
        stream: Stream,
        server: ServerId,
        thread_id: u32,
        capabilities: Capabilities,
        state: Arc<SessionState>,
        trackers: Trackers,
        accepted: Arc<Accepted>,
    ) -> Self {
        let expired = capabilities.contains(Capabilities::CAN_HANDLE_EXPIRED_PASSWORDS);
        Self {
            stream,
            input: BytesMut::new(),
            server,
            thread_id,
            capabilities,
            restricted: expired.then(|| Arc::clone(&state)),
            state,
            trackers,
            tracked: false,
            pending: 0,
            waits: None,
            same_schema: true,
            accepted,
            busy: false,
            soiled: false,
            worn: false,
            written: false,
            insert_id: 0,
            prepared: Prepared::default(),
        }
    }

    /// The server at the other end.
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// The server's own id of this connection, as in its process list.
    pub fn thread_id(&self) -> u32 {
        self.thread_id
    }

    /// The capabilities in force.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Whether the server has neither closed the idle connection nor said anything unasked.
    pub fn is_alive(&mut self) -> bool {
        if self.pending > 0 {
            // Answers may be there, and a close behind them.
            return self.stream.read_ahead(&mut self.input);
        }
        self.input.is_empty() && self.stream.is_quiet()
    }

    /// The same, but for what is said behind answers that are due, by asking the system.
    ///
    /// What [`Self::is_alive`] knows is as old as the last look of the runtime that the connection belongs to.
    pub fn is_untouched(&self) -> bool {
        self.pending > 0 || !self.stream.has_arrivals()
    }

    /// Waits until the server says something unasked, or closes the connection.
    pub async fn spoken(&mut self) {
        // A socket may be taken for readable until the system is asked.
        while self.stream.readable().await.is_ok()
            && self.stream.read_ahead(&mut self.input)
            && self.input.is_empty()
        {
            self.input = BytesMut::new();
        }
    }

    /// The error with which the server has ended an idle connection, as it came.
    pub fn last_words(&mut self) -> Option<&[u8]> {
        self.stream.read_ahead(&mut self.input);
        match packet::complete(&self.input) {
            Frame::Complete { len, payload } => {
                ErrPacket::parse(self.input.get(payload)?).ok()?;
                self.input.get(..len)
            }
            Frame::Incomplete | Frame::Large => None,
        }
    }

    /// Prepares the connection for somebody else; false if it has to be closed.
    pub fn clean_up(&mut self) -> bool {
        if (self.soiled || self.worn) && !self.busy {
            self.reset();
        }
        !self.busy
    }

    /// Whether no answer is outstanding that belongs to somebody.
    pub fn is_idle(&self) -> bool {
        !self.busy
    }

    /// The server is about to close the connection, or it must not be used again.
    pub fn condemn(&mut self) {
        self.busy = true;
    }

    /// What LAST_INSERT_ID() gives here, as far as answers told; 0 on a new connection.
    pub fn insert_id(&self) -> u64 {
        self.insert_id
    }

    /// A statement changed what LAST_INSERT_ID() gives.
    pub fn set_insert_id(&mut self, id: u64) {
        self.insert_id = id;
    }

    /// Whether it has, or may have, more of a session than can be set anew.
    pub fn is_soiled(&self) -> bool {
        self.soiled
    }

    /// The connection has a transaction, or other state that nobody else may find.
    pub fn mark_soiled(&mut self) {
        self.soiled = true;
    }

    /// The session that was tied to it may go on elsewhere; nobody else gets it before it is reset.
    pub fn mark_worn(&mut self) {
        self.worn = true;
    }

    /// Whether it ran a write of which nothing tells whether a trigger has set user variables.
    pub fn is_written(&self) -> bool {
        self.written
    }

    /// The connection ran such a write.
    pub fn mark_written(&mut self) {
        self.written = true;
    }

    /// The connection has nothing that somebody else may not find.
    pub fn mark_clean(&mut self) {
        self.soiled = false;
    }

    /// Moves the connection to the runtime that this is called on.
    pub fn rebind(self) -> io::Result<Self> {
        Ok(Self {
            stream: self.stream.rebind()?,
            ..self
        })
    }

    /// The answer is complete.
    pub fn mark_idle(&mut self, buffers: &Buffers) {
        self.busy = !self.input.is_empty();
        buffers.give_back(std::mem::take(&mut self.input));
    }

    /// The state that the connection is in, or will be when all that was sent is answered.
    pub fn state(&self) -> &Arc<SessionState> {
        &self.state
    }

    /// The state changed by a statement of the session's own.
    pub fn set_state(&mut self, state: Arc<SessionState>) {
        // The rest of that state may never have been reached.
        if self.restricted.is_none() {
            self.state = state;
        }
    }

    /// Appends a reset if the connection has something that it cannot be rid of in `wanted` without one.
    ///
    /// What is appended must be sent before anything else.
    pub fn put_way_to(&mut self, out: &mut BytesMut, wanted: &SessionState) {
        if !self.state.can_become(wanted) {
            self.put_reset(out);
        }
    }

    /// Appends what takes the connection to `wanted`. `extra` are further
    /// assignments, each beginning with a comma and a blank.
    ///
    /// What is appended must be sent before anything else.
    pub fn put_sync(&mut self, out: &mut BytesMut, wanted: &Arc<SessionState>, extra: &str) {
        self.put_way_to(out, wanted);
        self.pending += if self.tracked {
            put_difference(out, &self.state, wanted, extra, self.capabilities)
        } else {
            put_difference(
                out,
                &self.state,
                wanted,
                &format!("{extra}{}", self.trackers.on),
                self.capabilities,
            )
        };
        self.tracked = true;
        self.same_schema &= self.state.schema() == wanted.schema();
        if !Arc::ptr_eq(&self.state, wanted) {
            self.state = Arc::clone(wanted);
        }
    }

    /// Appends what leaves the session trackers to the session, until the next reset.
    ///
    /// What is appended must be sent before anything else.
    pub fn put_untrack(&mut self, out: &mut BytesMut) {
        put_query(out, self.trackers.off.as_bytes(), self.capabilities);
        self.pending += 1;
    }

    /// Appends a query that waits until the server has caught up, for at most `limit`, and answers `0` if it has.
    ///
    /// What is appended must be sent before anything else.
    pub fn put_wait(&mut self, out: &mut BytesMut, query: &str, limit: Duration) {
        put_query(out, query.as_bytes(), self.capabilities);
        self.waits = Some(limit);
    }

    /// Whether an answer to that is due.
    pub fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// Counts answers to commands that were sent for the proxy itself.
    pub fn expect_answers(&mut self, count: u32) {
        self.pending += count;
    }

    /// Whether answers are due, if any, to nothing that could fail: the server accepted the very
    /// same state before, and it is not the schema that changes, which may have been dropped.
    pub fn will_settle(&self) -> bool {
        self.pending == 0 || (self.same_schema && self.accepted.contains(&self.state))
    }

    /// Whether the account's expired password has kept the connection from the state that it should be in.
    pub fn is_restricted(&self) -> bool {
        self.restricted.is_some()
    }

    /// Whether answers are due that [`Self::settle`] has to read first.
    pub fn is_unsettled(&self) -> bool {
        self.pending > 0 || self.waits.is_some()
    }

    /// Reads the answers to what [`Self::put_sync`], a reset and [`Self::put_wait`] sent.
    ///
    /// Fails with the server's error if the state could not be reached, and with [`ErrorKind::Behind`] if the server has not
    /// caught up; the connection must then be given up.
    pub async fn settle(&mut self, buffers: &Buffers) -> Result<(), Error> {
        let due = self.pending > 0;
        let mut refused = false;
        while self.pending > 0 {
            let mut tracker = ResponseTracker::new(Expect::Status, self.capabilities);
            match tracker
                .next(&self.input)
                .map_err(|error| Error::server(ErrorKind::Protocol(error.to_string())))?
            {
                Event::NeedMore => {
                    self.fill_soon(buffers, "setting the session's state")
                        .await?
                }
                Event::Ok { len, .. } | Event::Eof { len, .. } => {
                    self.input.advance(len);
                    self.pending -= 1;
                    if self.pending == 0 && !refused {
                        self.same_schema = true;
                        self.accepted.add(&self.state);
                    }
                }
                Event::Err { len, packet, .. }
                    if packet.code == MUST_CHANGE_PASSWORD && self.restricted.is_some() =>
                {
                    // The statement itself may be the one that changes it.
                    self.input.advance(len);
                    self.pending -= 1;
                    refused = true;
                }
                Event::Err { packet, .. } => {
                    return Err(Error::server(ErrorKind::Answer(Answer::of(&packet))));
                }
                Event::Data { .. } | Event::LocalInfile { .. } | Event::Prepared { .. } => {
                    let text = "unexpected answer to a change of the session's state";
                    return Err(Error::server(ErrorKind::Protocol(text.into())));
                }
            }
        }
        if due && !refused {
            self.restricted = None;
        } else if let Some(state) = self.restricted.as_ref().filter(|_| refused) {
            self.state = Arc::clone(state);
            self.tracked = false;
        }
        match self.waits.take() {
            Some(limit) => {
                let arrived = timeout(limit + SETTLE, self.arrive(buffers)).await;
                arrived.unwrap_or_else(|_| Err(Error::server(ErrorKind::Behind)))
            }
            None => Ok(()),
        }
    }

    /// Reads the answer to a wait.
    async fn arrive(&mut self, buffers: &Buffers) -> Result<(), Error> {
        let mut tracker = ResponseTracker::new(Expect::Query, self.capabilities);
        let mut answer = BytesMut::new();
        while !tracker.is_done() {
            let event = tracker
                .next(&self.input)
                .map_err(|error| Error::server(ErrorKind::Protocol(error.to_string())))?;
            match event {
                Event::NeedMore => self.fill(buffers).await?,
                Event::Data { len } | Event::Ok { len, .. } | Event::Eof { len, .. }
                    if answer.len() + len <= LONGEST_ANSWER =>
                {
                    answer.extend_from_slice(self.input.get(..len).unwrap_or_default());
                    self.input.advance(len);
                }
                // Such as that it knows no positions.
                _ => return Err(Error::server(ErrorKind::Behind)),
            }
        }
        match is_zero(&answer) {
            true => Ok(()),
            false => Err(Error::server(ErrorKind::Behind)),
        }
    }

    /// Waits for bytes from the server and appends them to [`Self::input`].
    ///
    /// May be dropped: nothing is lost.
    pub async fn fill(&mut self, buffers: &Buffers) -> Result<(), Error> {
        if self.input.capacity() == 0 {
            self.input = buffers.lend();
        }
        if self.input.len() == self.input.capacity() {
            self.grow();
        }
        let room = self.input.capacity() - self.input.len();
        match self.stream.read(&mut self.input).await {
            Ok(0) => Err(Error::server(ErrorKind::Closed)),
            Ok(read) => {
                if read == room && self.input.capacity() < Buffers::LARGE {
                    // More is likely to be there: a bigger buffer saves system calls.
                    self.grow();
                }
                Ok(())
            }
            Err(error) => Err(Error::server(ErrorKind::Io(error))),
        }
    }

    /// The same for an answer that a server has at once; `what` was asked of it.
    pub async fn fill_soon(&mut self, buffers: &Buffers, what: &str) -> Result<(), Error> {
        match timeout(SETTLE, self.fill(buffers)).await {
            Ok(filled) => filled,
            Err(_) => Err(Error::server(ErrorKind::Timeout(what.into()))),
        }
    }

    fn grow(&mut self) {
        let wanted = (2 * self.input.capacity()).max(Buffers::SMALL);
        self.input.reserve(wanted - self.input.len());
    }

    /// Writes `prefix` and then `bytes`. On failure the connection must be given up.
    pub async fn send(&mut self, prefix: &[u8], bytes: &[u8]) -> Result<(), Error> {
        if prefix.is_empty() && bytes.is_empty() {
            return Ok(());
        }
        self.busy = true;
        self.stream
            .write_both(prefix, bytes)
            .await
            .map_err(|error| Error::server(ErrorKind::Io(error)))
    }

    /// Appends the order to forget the session: its transaction, locks, temporary tables,
    /// variables, warnings and prepared statements.
    ///
    /// What is appended must be sent before anything else.
    pub fn put_reset(&mut self, out: &mut BytesMut) {
        put_command(out, code::RESET_CONNECTION, b"");
        self.pending += 1;
        self.state = Arc::new(self.state.reset());
        self.tracked = false;
        self.insert_id = 0;
        self.soiled = false;
        self.worn = false;
        self.written = false;
        self.prepared.clear();
    }

    /// Orders the server to forget the session now, not when the next user comes.
    fn reset(&mut self) {
        let mut command = BytesMut::new();
        self.put_reset(&mut command);
        // What does not go out at once is not worth waiting for: the connection is closed.
        self.busy = !matches!(self.stream.try_write(&command), Ok(sent) if sent == command.len());
    }

    /// The id under which this connection knows a prepared statement.
    pub fn find_prepared(&mut self, key: &StatementKey) -> Option<ServerStatement> {
        self.prepared.find(key)
    }

    /// The id under which this connection knows a prepared statement that `session` may execute with parameters of these types
    /// as if it were its own.
    pub fn find_prepared_for(
        &mut self,
        key: &StatementKey,
        session: u32,
        types: &[u8],
    ) -> Option<ServerStatement> {
        self.prepared.find_for(key, session, types)
    }

    /// Remembers a prepared statement. One that has to leave for it is closed.
    pub fn remember_prepared(&mut self, key: StatementKey, statement: ServerStatement) {
        if let Some(left) = self.prepared.insert(key, statement) {
            self.close_prepared(left);
        }
    }

    /// A prepared statement has, or has no longer, a cursor or data that its session still needs.
    pub fn hold_prepared(&mut self, key: &StatementKey, held: bool) {
        self.prepared.hold(key, held);
    }

    /// Whether any prepared statement has a cursor or data that its session may still need.
    pub fn holds_any_prepared(&self) -> bool {
        self.prepared.is_any_held()
    }

    /// Whether a prepared statement has a cursor or data that its session may still need.
    pub fn holds_prepared(&self, key: &StatementKey) -> bool {
        self.prepared.is_held(key)
    }

    /// Forgets a prepared statement, for instance because it is being prepared anew.
    pub fn forget_prepared(&mut self, key: &StatementKey) {
        if let Some(left) = self.prepared.remove(key) {
            self.close_prepared(left);
        }
    }

    fn close_prepared(&mut self, statement: ServerStatement) {
        // Has no answer. What cannot be sent now goes with the connection.
        let mut command = BytesMut::new();
        put_command(&mut command, code::STMT_CLOSE, &statement.id.to_le_bytes());
        if !matches!(self.stream.try_write(&command), Ok(sent) if sent == command.len()) {
            self.busy = true;
        }
    }
}
