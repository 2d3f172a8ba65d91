//! Commands too long to be collected: streamed to the primary as they arrive.

use std::{mem, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, BytesMut};
use dbproxy_proto::{
    command::{Command, Execute, code},
    packet::{HEADER_LEN, MAX_PAYLOAD, PacketHeader},
    reply::put_err,
    response::{Expect, ResponseTracker},
};
use tokio::time::timeout;

use super::{
    COLLECTED, Flow, Session, client_io,
    execution::{Execution, untyped},
    finish::Effect,
    span::Span,
    statement::Finished,
};
use crate::{
    error::{Answer, Error, ErrorKind},
    net::{Buffers, conversation},
    pool::PooledConn,
    routing::PinReason,
    sql::{self, Facts, Kind, StatementClass},
};

/// Bytes of the parameter types of an execution, two for each.
const LONGEST_TYPES: usize = 2 * 0xffff;

/// Bytes beyond the limit that a client may still send after it was told so, and the time that it has for them.
const LINGERING: (usize, Duration) = (64 << 20, Duration::from_secs(2));

/// Where the statement id of a binary command lies in its packet.
const STATEMENT_ID: std::ops::Range<usize> = HEADER_LEN + 1..HEADER_LEN + 5;

/// Where COM_STMT_EXECUTE has its cursor flags.
const CURSOR_FLAGS: usize = HEADER_LEN + 5;

/// How sending a long command has ended.
enum Sent {
    /// All of it was sent, and its last packet had this sequence id.
    Whole(u8),
    /// It is longer than the session may send; this is where it was too much.
    TooMuch(Span),
}

impl Session {
    /// Carries out a command whose packet is longer than [`COLLECTED`].
    pub(super) async fn stream_large(&mut self) -> Result<Flow, Error> {
        let header = PacketHeader::parse(&self.input);
        let (len, seq) = header.map_or((0, 0), |header| (header.len, header.seq));
        if len >= self.max_packet {
            return self.refuse_oversized(seq, Span::command()).await;
        }
        while self.input.len() < COLLECTED {
            self.read_some().await?;
        }
        let single = len < MAX_PAYLOAD;
        match self.input.get(HEADER_LEN).copied() {
            Some(code::QUERY) => self.stream_query().await,
            Some(code::STMT_SEND_LONG_DATA) => self.stream_long_data().await,
            Some(code::STMT_EXECUTE | code::STMT_BULK_EXECUTE)
                if let Some(types) = self.announced_types() =>
            {
                self.stream_execution(types).await
            }
            // With its types it may need one packet more.
            Some(code::STMT_EXECUTE) if len + LONGEST_TYPES >= MAX_PAYLOAD => {
                self.stream_without_types().await
            }
            _ if single => self.collect().await,
            _ => {
                let text = "Got a packet bigger than 'max_allowed_packet' bytes";
                self.discard_with(&Answer::new(1153, b"08S01", text)).await
            }
        }
    }

    async fn read_some(&mut self) -> Result<(), Error> {
        self.input.reserve(Buffers::LARGE);
        let limit = self.context.limits.read_timeout;
        match timeout(limit, self.client.read(&mut self.input)).await {
            Ok(Ok(0)) => Err(Error::client(ErrorKind::Closed)),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(client_io(error)),
            Err(_) => Err(self.interrupted_read().await),
        }
    }

    /// Tells the client that its command is too long, and ends its session as a server does. `seq` is that of the
    /// packet that was too much, `span` the rest of the command.
    async fn refuse_oversized(&mut self, seq: u8, mut span: Span) -> Result<Flow, Error> {
        let text = "Got a packet bigger than 'max_allowed_packet' bytes";
        let answer = Answer::new(1153, b"08S01", text);
        self.reply_error_after(seq, &answer).await?;
        // A close in the middle of what the client sends would take the answer away from it.
        let (most, patience) = LINGERING;
        let lingering = async {
            while span.len() < self.max_packet.saturating_add(most) {
                let end = span.advance(&self.input);
                self.input.advance(end);
                self.input.reserve(Buffers::SMALL);
                if span.is_complete() || !matches!(self.client.read(&mut self.input).await, Ok(1..))
                {
                    return;
                }
            }
        };
        let _ = timeout(patience, lingering).await;
        Ok(Flow::End)
    }

    /// Collects a packet whole after all: its beginning cannot be understood without its end.
    async fn collect(&mut self) -> Result<Flow, Error> {
        let len = HEADER_LEN + PacketHeader::parse(&self.input).map_or(0, |header| header.len);
        while self.input.len() < len {
            self.read_some().await?;
        }
        let packet = self.input.split_to(len);
        self.dispatch(&packet).await
    }

    async fn stream_query(&mut self) -> Result<Flow, Error> {
        let payload = self.input.get(HEADER_LEN..).unwrap_or_default();
        let start = match Command::parse(payload, self.capabilities) {
            Ok(Command::Query(text)) => text,
            // The text has not even begun.
            _ => &[],
        };
        let begun = !start.is_empty();
        let mut class = sql::classify(start, self.dialect);
        // What was not seen could be anything.
        let effect = match class.kind {
            Kind::Write | Kind::LoadData if begun && !self.wanted.multi_statements() => {
                Effect::None
            }
            _ => Effect::Pin(PinReason::LargeStatement),
        };
        class.cause = sql::Cause::Write;
        class.facts |= Facts::MAY_WRITE;
        self.stream(&class, None, Expect::Query, effect).await
    }

    /// The parameter types that the execution at the front of the input brings along, if it is complete on
    /// a connection that never ran its statement.
    fn announced_types(&self) -> Option<Vec<u8>> {
        let payload = self.input.get(HEADER_LEN..)?;
        let execution = match Command::parse(payload, self.capabilities).ok()? {
            Command::StmtExecute(execute) => Execution::Once(execute),
            Command::StmtBulkExecute(execute) => Execution::Bulk(execute),
            _ => return None,
        };
        let statement = self.prepared.find(execution.statement())?;
        let types = execution.types(usize::from(statement.parameters)).ok()??;
        Some(types.to_vec())
    }

    fn announced_statement(&self) -> Option<u32> {
        Some(u32::from_le_bytes(
            self.input.get(STATEMENT_ID)?.try_into().ok()?,
        ))
    }

    async fn stream_execution(&mut self, types: Vec<u8>) -> Result<Flow, Error> {
        let id = self.announced_statement().unwrap_or(0);
        let Some(statement) = self.prepared.find_mut(id) else {
            return self.collect().await;
        };
        statement.types = types;
        let mut class = statement.class;
        class.cause = sql::Cause::Write;
        let flags = self.input.get(CURSOR_FLAGS).copied().unwrap_or(0);
        self.stream(&class, Some(id), Execute::expects(flags), Effect::None)
            .await
    }

    /// Streams an execution that brings no types along: the client sent them once, the server may need them again.
    ///
    /// They shift everything behind them, so that the packets are cut anew, one by one.
    async fn stream_without_types(&mut self) -> Result<Flow, Error> {
        let id = self.announced_statement().unwrap_or(0);
        let Some(statement) = self.prepared.find(id) else {
            let answer = self.unknown(id, "mysqld_stmt_execute");
            return self.discard_with(&answer).await;
        };
        let (mut class, types) = (statement.class, statement.types.clone());
        if types.len() < 2 * usize::from(statement.parameters) {
            return self.discard_with(&untyped()).await;
        }
        let flags = self.input.get(CURSOR_FLAGS).copied().unwrap_or(0);
        class.cause = sql::Cause::Write;
        let flag = STATEMENT_ID.end + 5 + usize::from(statement.parameters).div_ceil(8);
        let mut conn = match self.large_connection(&class, Some(id)).await {
            Ok(conn) => conn,
            Err(error) => return self.discard_for(error).await,
        };
        let handle = Arc::clone(self.registration.handle());
        let _running = handle.run_on(conn.server(), conn.thread_id());
        let (mut out, mut out_seq) = (BytesMut::new(), 0_u8);
        let (mut len, mut first) = (0, true);
        let in_seq = loop {
            while PacketHeader::parse(&self.input)
                .is_none_or(|header| self.input.len() < HEADER_LEN + header.len)
            {
                self.read_some().await?;
            }
            let Some(header) = PacketHeader::parse(&self.input) else {
                continue;
            };
            len += header.len;
            if len >= self.max_packet {
                conn.condemn();
                return self.refuse_oversized(header.seq, Span::command()).await;
            }
            let mut packet = self.input.split_to(HEADER_LEN + header.len);
            packet.advance(HEADER_LEN);
            if mem::take(&mut first) && !types.is_empty() && flag < HEADER_LEN + packet.len() {
                out.extend_from_slice(&packet.split_to(flag - HEADER_LEN));
                out.put_u8(1);
                out.extend_from_slice(&types);
                packet.advance(1);
            }
            out.unsplit(packet);
            let last = header.len < MAX_PAYLOAD;
            while last || out.len() >= MAX_PAYLOAD {
                let chunk = out.split_to(out.len().min(MAX_PAYLOAD));
                let header = PacketHeader {
                    len: chunk.len(),
                    seq: out_seq,
                };
                out_seq = out_seq.wrapping_add(1);
                // What a server that refuses it says is read afterwards.
                let _ = conn.send(&header.to_bytes(), &chunk).await;
                if chunk.len() < MAX_PAYLOAD {
                    break;
                }
            }
            if last {
                break header.seq;
            }
        };
        if in_seq.wrapping_add(1) != out_seq {
            // The answer would come out of order: this cannot be passed on, and is not worth more than a word.
            conn.condemn();
            let text = "dbproxy cannot pass this execution on: it needs one more packet than the client sent";
            let answer = Answer::new(1105, b"HY000", text);
            self.reply_error_after(in_seq, &answer).await?;
            return Ok(Flow::End);
        }
        let expect = Execute::expects(flags);
        self.relay_streamed(conn, &class, expect, Effect::None, in_seq)
            .await
    }

    async fn stream_long_data(&mut self) -> Result<Flow, Error> {
        let class = self.of_connection();
        let known = self
            .announced_statement()
            .filter(|id| self.prepared.find(*id).is_some());
        let bound = self.is_bound();
        let conn = match known {
            Some(id) => match self.large_connection(&class, Some(id)).await {
                Ok(conn) => Some(conn),
                // With the connection its transaction is gone.
                Err(error) if bound => return Err(error),
                Err(_) => None,
            },
            None => None,
        };
        // Has no answer, not even an error.
        let Some(mut conn) = conn else {
            return self.discard(Span::command()).await.map(|_| Flow::Continue);
        };
        match self.send_through(&mut conn).await? {
            Sent::Whole(_) => {
                if let Some(statement) = known.and_then(|id| self.prepared.find(id)) {
                    conn.hold_prepared(&statement.key, true);
                }
                self.pin_to(conn, PinReason::LongData);
                Ok(Flow::Continue)
            }
            Sent::TooMuch(span) => {
                conn.condemn();
                self.refuse_oversized(span.seq(), span).await
            }
        }
    }

    /// Streams the command at the front of the input to the primary and relays the answer.
    async fn stream(
        &mut self,
        class: &StatementClass,
        statement: Option<u32>,
        expect: Expect,
        effect: Effect,
    ) -> Result<Flow, Error> {
        let mut conn = match self.large_connection(class, statement).await {
            Ok(conn) => conn,
            Err(error) => return self.discard_for(error).await,
        };
        let handle = Arc::clone(self.registration.handle());
        let _running = handle.run_on(conn.server(), conn.thread_id());
        match self.send_through(&mut conn).await? {
            Sent::Whole(seq) => self.relay_streamed(conn, class, expect, effect, seq).await,
            Sent::TooMuch(span) => {
                conn.condemn();
                self.refuse_oversized(span.seq(), span).await
            }
        }
    }

    /// Passes over a command that cannot be carried out, and says why.
    async fn discard_for(&mut self, error: Error) -> Result<Flow, Error> {
        let bound = self.is_bound();
        let flow = self.discard_with(&error.answer()).await;
        if bound { Err(error) } else { flow }
    }

    /// Passes over a command, and answers it with an error.
    async fn discard_with(&mut self, answer: &Answer) -> Result<Flow, Error> {
        let seq = self.discard(Span::command()).await?;
        self.reply_error_after(seq, answer).await
    }

    /// Answers a command whose last packet had the id `seq` with an error.
    async fn reply_error_after(&mut self, seq: u8, answer: &Answer) -> Result<Flow, Error> {
        let mut out = BytesMut::new();
        let mut seq = seq.wrapping_add(1);
        put_err(&mut out, &mut seq, &answer.packet(), self.capabilities);
        self.reply(&out).await
    }

    /// Relays the answer to a command whose last packet had the id `seq`.
    async fn relay_streamed(
        &mut self,
        mut conn: PooledConn,
        class: &StatementClass,
        expect: Expect,
        effect: Effect,
        seq: u8,
    ) -> Result<Flow, Error> {
        let tracker =
            ResponseTracker::new(expect, conn.capabilities()).with_first_seq(seq.wrapping_add(1));
        let relayed = self.relay(class).run(&mut conn, tracker, 0, false).await;
        match relayed {
            Ok(outcome) => Ok(self.finish(class, Finished { conn, outcome }, effect)),
            Err(failure) => self.give_up(conn, class, failure).await,
        }
    }

    /// The connection for a streamed command, in the session's state. The
    /// statement's id in the input is replaced by the server's.
    async fn large_connection(
        &mut self,
        class: &StatementClass,
        statement: Option<u32>,
    ) -> Result<PooledConn, Error> {
        let mut conn = self.settled_connection(class).await?;
        if let Some(id) = statement {
            let there = self.prepared_on(&mut conn, id).await?;
            if let Some(place) = self.input.get_mut(STATEMENT_ID) {
                place.copy_from_slice(&there.id.to_le_bytes());
            }
        }
        Ok(conn)
    }

    /// Sends the command at the front of the input, reading on to its end.
    async fn send_through(&mut self, conn: &mut PooledConn) -> Result<Sent, Error> {
        let mut span = Span::command();
        let mut failed = false;
        loop {
            let end = span.advance(&self.input);
            if span.is_broken() {
                return Err(self.out_of_order().await);
            }
            if span.len() >= self.max_packet {
                self.input.advance(end);
                return Ok(Sent::TooMuch(span));
            }
            // A server that refuses the command says why and closes: its answer is read afterwards.
            failed = failed
                || conn
                    .send(&[], self.input.get(..end).unwrap_or_default())
                    .await
                    .is_err();
            self.input.advance(end);
            if span.is_complete() {
                return Ok(Sent::Whole(span.seq()));
            }
            self.read_some().await?;
        }
    }

    /// Passes over what `span` reaches; the sequence id of its last packet.
    async fn discard(&mut self, mut span: Span) -> Result<u8, Error> {
        loop {
            let end = span.advance(&self.input);
            if span.is_broken() {
                return Err(self.out_of_order().await);
            }
            self.input.advance(end);
            if span.is_complete() {
                return Ok(span.seq());
            }
            self.read_some().await?;
        }
    }

    /// Tells the client that its packets are out of order, with which its session ends.
    pub(super) async fn out_of_order(&mut self) -> Error {
        let error = conversation::out_of_order();
        // It may be gone already.
        let _ = self.reply_error(&error.answer()).await;
        error
    }
}
