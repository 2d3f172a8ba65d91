//! Bytes of a response on their way from the server to the client.

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    capability::{Capabilities, StatusFlags},
    packet::HEADER_LEN,
    reply::{OkPacket, put_ok},
    response::{Event, ResponseTracker},
    track::Change,
};
use tokio::{select, time::Instant};

use super::{
    finish::{is_connection_error, may_have_written},
    handle::{Handle, Interrupt},
    span::Span,
};
use crate::{
    accounts::AccountState,
    backend::{BackendConn, ServerStatement},
    error::{Error, ErrorKind},
    net::{Buffers, Stream},
    sql::{Facts, Kind, StatementClass},
};

/// Carries one response to the client, following it without decoding rows.
pub(super) struct Relay<'a> {
    pub(super) client: &'a mut Stream,
    pub(super) capabilities: Capabilities,
    pub(super) handle: &'a Handle,
    pub(super) account: &'a AccountState,
    pub(super) buffers: &'a Buffers,
    /// What runs.
    pub(super) class: StatementClass,
    /// The transaction that is open now may have written.
    pub(super) wrote_before: bool,
    pub(super) in_transaction: bool,
}

/// What a complete response said.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The status flags of its last packet that had any.
    pub(super) status: Option<StatusFlags>,
    /// The number of the error that ended it.
    pub(super) error: Option<u16>,
    /// The insert id of its last OK packet.
    pub(super) last_insert_id: u64,
    /// Rows changed, of its last OK packet.
    pub(super) affected_rows: u64,
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
    /// The statement that was prepared.
    pub(super) prepared: Option<ServerStatement>,
}

/// Why a response did not reach the client whole.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server's side failed. `started`: the client has seen a part of the response.
    Server { error: Error, started: bool },
    /// The client is gone.
    Client(Error),
    /// The session was told to stop.
    Interrupted { interrupt: Interrupt, started: bool },
}

impl Relay<'_> {
    /// Relays the response to what was just sent on `conn`.
    ///
    /// `statement` replaces the server's statement id in the answer to a
    /// preparation. `secluded`: an error that only says that the server ends
    /// the connection is not passed on, but returned as a failure.
    pub(super) async fn run(
        &mut self,
        conn: &mut BackendConn,
        mut tracker: ResponseTracker,
        statement: u32,
        secluded: bool,
    ) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::default();
        let mut started = false;
        let mut rewritten = BytesMut::new();
        loop {
            let walked = self
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
            if let (false, true, Some(code)) = (started, secluded, outcome.error)
                && is_connection_error(code)
            {
                return Err(Failure::Server {
                    error: Error::server(ErrorKind::Closed),
                    started,
                });
            }
            let unchanged = conn
                .input
                .get(walked.copied..walked.end)
                .unwrap_or_default();
            if !rewritten.is_empty() || !unchanged.is_empty() {
                started = true;
                let written = self.client.write_both(&rewritten, unchanged).await;
                written.map_err(|error| Failure::Client(Error::client(ErrorKind::Io(error))))?;
                rewritten.clear();
                conn.input.advance(walked.end);
            }
            if tracker.is_done() {
                return Ok(outcome);
            }
            if walked.infile {
                self.send_file(conn).await?;
                tracker.local_infile_sent();
            }
            self.wait(conn, started).await?;
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
            let rest = input.get(walked.end..).unwrap_or_default();
            match tracker.next(rest).map_err(|error| error.to_string())? {
                Event::NeedMore => break,
                Event::Data { len } => walked.end += len,
                Event::Ok {
                    len,
                    packet,
                    header,
                    mut seq,
                    ..
                } => {
                    self.note(&packet, outcome);
                    if !self.capabilities.contains(Capabilities::SESSION_TRACK) {
                        rewritten.extend_from_slice(
                            input.get(walked.copied..walked.end).unwrap_or_default(),
                        );
                        put_ok(rewritten, &mut seq, &packet, header, self.capabilities);
                        walked.copied = walked.end + len;
                    }
                    walked.end += len;
                }
                Event::Eof {
                    len,
                    status,
                    warnings,
                    ..
                } => {
                    outcome.status = Some(status);
                    outcome.warnings = warnings;
                    outcome.untracked = true;
                    walked.end += len;
                }
                Event::Err { len, packet, .. } => {
                    outcome.error = Some(packet.code);
                    walked.end += len;
                }
                Event::LocalInfile { len } => {
                    walked.end += len;
                    walked.infile = true;
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
            self.note_end(outcome);
        }
        Ok(walked)
    }

    /// A write whose position was not told: before the client can see that it ended.
    fn note_end(&self, outcome: &Outcome) {
        let in_transaction = match outcome.status {
            Some(status) => status.contains(StatusFlags::IN_TRANS),
            None => self.in_transaction,
        };
        if outcome.tracked || in_transaction || self.class.kind == Kind::Rollback {
            return;
        }
        let wrote = match outcome.error {
            // Parts of it may have been committed before it failed.
            Some(_) => {
                self.class.facts.contains(Facts::MAY_WRITE) && self.class.kind != Kind::Write
            }
            None => self.wrote_before || may_have_written(&self.class, outcome),
        };
        if wrote {
            self.account.wrote_unknown(Instant::now());
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
                    self.account.wrote(text, Instant::now());
                }
                Change::SystemVariable {
                    name: b"last_gtid",
                    value,
                } if !value.is_empty() => {
                    outcome.tracked = true;
                    self.account.wrote(value, Instant::now());
                }
                Change::Schema(name) => outcome.schema = Some(name.into()),
                Change::StateChanged(changed) => outcome.state_changed |= changed,
                _ => {}
            }
        }
    }

    /// Waits for more of the response, for the client's end, or for an order to stop.
    async fn wait(&self, conn: &mut BackendConn, started: bool) -> Result<(), Failure> {
        select! {
            biased;
            filled = conn.fill(self.buffers) => filled.map_err(|error| Failure::Server { error, started }),
            () = self.client.closed() => Err(Failure::Client(Error::client(ErrorKind::Closed))),
            interrupt = self.handle.interrupted() => Err(Failure::Interrupted { interrupt, started }),
        }
    }

    /// Streams the client's packets to the server until the empty one.
    async fn send_file(&mut self, conn: &mut BackendConn) -> Result<(), Failure> {
        let mut input = self.buffers.lend();
        let mut span = Span::file();
        let mut failed = false;
        while !span.is_complete() {
            input.reserve(Buffers::SMALL);
            match self.client.read(&mut input).await {
                Ok(0) => return Err(Failure::Client(Error::client(ErrorKind::Closed))),
                Ok(_) => {}
                Err(error) => return Err(Failure::Client(Error::client(ErrorKind::Io(error)))),
            }
            let end = span.advance(&input);
            // A server that gave up on the file has said why; the client still sends all of it.
            failed = failed
                || conn
                    .send(&[], input.get(..end).unwrap_or_default())
                    .await
                    .is_err();
            input.advance(end);
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Walked {
    copied: usize,
    end: usize,
    infile: bool,
}
