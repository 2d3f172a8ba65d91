//! Commands too long to be collected: streamed to the primary as they arrive.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    command::{Command, bulk_flag, code},
    packet::{self, Frame, HEADER_LEN, MAX_PAYLOAD, PacketHeader},
    reply::put_err,
    response::{Expect, ResponseTracker},
};
use tokio::time::timeout;

use super::{
    COLLECTED, Flow, Session,
    administration::refused,
    client_io,
    execution::{Execution, lacks_values, no_room_for_types, untyped},
    finish::Effect,
    prepared::{Ahead, Statement},
    rules::Known,
    span::Span,
    statement::Finished,
};
use crate::{
    error::{Answer, Error, ErrorKind},
    net::{Buffers, conversation},
    pool::PooledConn,
    routing::{PinReason, Reason},
    sql::{self, Facts, Hint, Kind, StatementClass},
};

/// Bytes beyond the limit that a client may still send after it was told so, and the time that it has for them.
const LINGERING: (usize, Duration) = (64 << 20, Duration::from_secs(2));

/// Where the statement id of a binary command lies in its packet.
const STATEMENT_ID: std::ops::Range<usize> = HEADER_LEN + 1..HEADER_LEN + 5;

/// How sending a long command has ended.
enum Sent {
    /// All of it was sent, and its last packet had this sequence id.
    Whole(u8),
    /// It is longer than the session may send; this is where it was too much.
    TooMuch(Span),
    /// It takes another number of packets than the client sent, of which the last had this sequence id, so that the answer
    /// would come out of order. The server has only a part of it.
    Unanswerable(u8),
}

/// What a long execution lacks that the server may need.
struct Types {
    /// Where in the payload they belong.
    at: usize,
    /// The byte, and the bit in it, by which they are there.
    flag: (usize, u8),
    block: Arc<[u8]>,
}

/// The flags of a bulk execution stand behind its code and statement id.
const BULK_FLAG: (usize, u8) = (5, bulk_flag::SEND_TYPES as u8);

impl Session {
    /// Carries out a command whose packet is longer than [`COLLECTED`].
    pub(super) async fn stream_large(&mut self) -> Result<Flow, Error> {
        let len = PacketHeader::parse(&self.input).map_or(0, |header| header.len);
        if len >= self.max_packet {
            return self.refuse_oversized(Span::command()).await;
        }
        if self.has_loss() && !Box::pin(self.regain()).await? {
            let is_answered = self.input.get(HEADER_LEN) != Some(&code::STMT_SEND_LONG_DATA);
            return match is_answered.then(|| self.take_loss()).flatten() {
                Some(answer) => self.discard_with(&answer).await,
                None => self.discard().await.map(|_| Flow::Continue),
            };
        }
        while self.input.len() < COLLECTED {
            self.read_some().await?;
        }
        match self.input.get(HEADER_LEN).copied() {
            Some(code::QUERY) => self.stream_query().await,
            Some(code::STMT_SEND_LONG_DATA) => self.stream_long_data().await,
            Some(code::STMT_EXECUTE | code::STMT_BULK_EXECUTE) => {
                Box::pin(self.stream_execution(len)).await
            }
            _ => self.collect(len).await,
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

    /// Tells the client that its command is too long, and ends its session as a server does. `span` is the rest of the command.
    async fn refuse_oversized(&mut self, mut span: Span) -> Result<Flow, Error> {
        self.reply_error_after(span.seq(), &too_large()).await?;
        // A close in the middle of what the client sends would take the answer away from it.
        let (most, patience) = LINGERING;
        let lingering = async {
            while span.len() < self.max_packet.saturating_add(most) {
                let end = span.advance(&self.input);
                self.input.advance(end);
                self.input.reserve(Buffers::SMALL);
                if span.is_complete()
                    || span.is_broken()
                    || !matches!(self.client.read(&mut self.input).await, Ok(1..))
                {
                    return;
                }
            }
        };
        let _ = timeout(patience, lingering).await;
        Ok(Flow::End)
    }

    /// Collects a packet of `len` bytes whole after all: its beginning cannot be understood without its end.
    async fn collect(&mut self, len: usize) -> Result<Flow, Error> {
        if len == MAX_PAYLOAD {
            return self.discard_with(&too_large()).await;
        }
        while self.input.len() < HEADER_LEN + len {
            self.read_some().await?;
        }
        let packet = self.input.split_to(HEADER_LEN + len);
        self.dispatch(&packet).await
    }

    async fn stream_query(&mut self) -> Result<Flow, Error> {
        let has_rules = self.has_rules();
        let payload = self.input.get(HEADER_LEN..).unwrap_or_default();
        let start = match Command::parse(payload, self.capabilities) {
            Ok(Command::Query(text)) => text,
            // The text has not even begun.
            _ => &[],
        };
        let begun = !start.is_empty();
        let mut class = sql::classify(start, self.dialect);
        // What was not seen could be anything.
        if class.kind == Kind::Empty {
            class.kind = Kind::Unknown;
        }
        let (seen, breach) = (class, self.breach(&class, start));
        let has_unknown_hint = class.hint == Hint::Unknown;
        let start = if has_rules || has_unknown_hint {
            start.to_vec()
        } else {
            Vec::new()
        };
        if has_unknown_hint {
            self.note_unknown_hint(&start);
        }
        if let Some(breach) = breach {
            return self.discard_with(&refused(breach)).await;
        }
        let effect = match class.kind {
            Kind::Write | Kind::LoadData if begun && !self.wanted.multi_statements() => {
                Effect::None
            }
            _ => {
                class.facts |= Facts::DEFINITIONS;
                Effect::Pin(PinReason::LargeStatement)
            }
        };
        class.digest = 0;
        class.cause = sql::Cause::Write;
        class.facts |= Facts::MAY_WRITE;
        if has_rules {
            if let Err(answer) = Box::pin(self.rule_long(&start, &seen, Known::Start)).await? {
                return self.discard_with(&answer).await;
            }
            let flow = Box::pin(self.stream_class(class, effect)).await;
            self.close_ruling(&start);
            return flow;
        }
        self.stream_class(class, effect).await
    }

    /// Streams a query that means this to the primary.
    async fn stream_class(&mut self, class: StatementClass, effect: Effect) -> Result<Flow, Error> {
        if let Some(answer) = self.leave_replica_for(&class).await? {
            return self.discard_with(&answer).await;
        }
        let mut conn = match self.settled_connection(&class).await {
            Ok(conn) => conn,
            Err(error) => return self.discard_for(error).await,
        };
        let handle = Arc::clone(self.registration.handle());
        let _running = handle.run_on(conn.server(), conn.thread_id());
        if let Err(error) = self.may_reach(conn.server(), &class) {
            return self.discard_for(error).await;
        }
        let sent = self.send_through(&mut conn).await?;
        match self.relay_sent(conn, sent, &class, Expect::Query).await? {
            Ok(finished) => Ok(self.finish(&class, finished, effect)),
            Err(flow) => Ok(flow),
        }
    }

    fn announced_statement(&self) -> Option<u32> {
        Some(u32::from_le_bytes(
            self.input.get(STATEMENT_ID)?.try_into().ok()?,
        ))
    }

    /// Streams an execution whose first packet has `len` bytes.
    async fn stream_execution(&mut self, len: usize) -> Result<Flow, Error> {
        let payload = self.input.get(HEADER_LEN..).unwrap_or_default();
        let execution = match Command::parse(payload, self.capabilities) {
            Ok(Command::StmtExecute(execute)) => Execution::Once(execute),
            Ok(Command::StmtBulkExecute(execute)) => Execution::Bulk(execute),
            _ => return self.collect(len).await,
        };
        let id = execution.statement();
        let Some(statement) = self.prepared.find(id) else {
            let answer = self.unknown(id, "mysqld_stmt_execute");
            return self.discard_with(&answer).await;
        };
        if statement.ahead == Ahead::Lost {
            return self.discard_with(&lacks_values()).await;
        }
        if execution.lacks_types(statement) {
            return self.discard_with(&untyped()).await;
        }
        let (expect, cursor) = (execution.expect(), execution.wants_cursor());
        let types = match execution.types_to_add(statement) {
            // Shorter than what is there of it by now.
            Err(_) => return self.collect(len).await,
            Ok(Some((_, types))) if len + types.len() < MAX_PAYLOAD => {
                return self.collect(len).await;
            }
            Ok(types) => types.map(|(behind, block)| {
                let at = payload.len() - behind;
                let flag = match execution {
                    Execution::Once(_) => (at - 1, 1),
                    Execution::Bulk(_) => BULK_FLAG,
                };
                let block = block.into();
                Types { at, flag, block }
            }),
        };
        if let Ok(Some(sent)) = execution.types(usize::from(statement.parameters))
            && !self.prepared.learn_types(id, sent, execution.is_named())
        {
            return self.discard_with(&no_room_for_types()).await;
        }
        let Some(statement) = self.prepared.find(id).cloned() else {
            return self.collect(len).await;
        };
        let (mut class, effect) = self.begin_execution(&statement, cursor).await?;
        class.cause = sql::Cause::Write;
        let rules = match self.has_rules() {
            true => {
                let text = statement.key.text();
                Box::pin(self.rule_long(text, &statement.class, Known::Whole)).await?
            }
            false => Ok(()),
        };
        if let Err(answer) = rules {
            return self.discard_with(&answer).await;
        }
        let flow = self
            .stream_statement(&statement, (class, effect), types, expect)
            .await;
        self.close_ruling(statement.key.text());
        flow
    }

    /// Streams an execution of `statement` that means this.
    async fn stream_statement(
        &mut self,
        statement: &Statement,
        (class, effect): (StatementClass, Effect),
        types: Option<Types>,
        expect: Expect,
    ) -> Result<Flow, Error> {
        if let Some(answer) = self.leave_replica_for(&class).await? {
            return self.discard_with(&answer).await;
        }
        let id = self.announced_statement();
        let mut conn = match self.large_connection(&class, id).await {
            Ok(conn) => conn,
            Err(error) => return self.discard_for(error).await,
        };
        let handle = Arc::clone(self.registration.handle());
        let _running = handle.run_on(conn.server(), conn.thread_id());
        if let Err(error) = self.may_reach(conn.server(), &class) {
            return self.discard_for(error).await;
        }
        let sent = match types {
            None => self.send_through(&mut conn).await?,
            Some(types) => self.send_with_types(&mut conn, types).await?,
        };
        match self.relay_sent(conn, sent, &class, expect).await? {
            Ok(finished) => Ok(self.finish_execution(&class, finished, &statement.key, effect)),
            Err(flow) => Ok(flow),
        }
    }

    /// Sends the execution at the front of the input with the types that the client sent with an earlier one: the server may
    /// need them again.
    ///
    /// They shift everything behind them, so that the packets are cut anew, one by one.
    async fn send_with_types(
        &mut self,
        conn: &mut PooledConn,
        types: Types,
    ) -> Result<Sent, Error> {
        let mut span = Span::command();
        let (mut out, mut failed) = (BytesMut::new(), false);
        let (mut received, mut sent) = (0_usize, 0_usize);
        loop {
            let end = loop {
                match packet::complete(&self.input) {
                    Frame::Complete { len, .. } => break len,
                    Frame::Large => break HEADER_LEN + MAX_PAYLOAD,
                    Frame::Incomplete => self.read_some().await?,
                }
            };
            while self.input.len() < end {
                self.read_some().await?;
            }
            span.advance(self.input.get(..end).unwrap_or_default());
            if span.is_broken() {
                return Err(self.out_of_order().await);
            }
            let mut packet = self.input.split_to(end);
            if span.len() >= self.max_packet {
                return Ok(Sent::TooMuch(span));
            }
            packet.advance(HEADER_LEN);
            if received == 0 {
                let (place, bit) = types.flag;
                if let Some(place) = packet.get_mut(place) {
                    *place |= bit;
                }
                let behind = packet.split_off(types.at.min(packet.len()));
                packet.extend_from_slice(&types.block);
                packet.unsplit(behind);
            }
            out.unsplit(packet);
            received += 1;
            if span.is_complete() && sent + out.len() / MAX_PAYLOAD + 1 != received {
                return Ok(Sent::Unanswerable(span.seq()));
            }
            while span.is_complete() || out.len() >= MAX_PAYLOAD {
                let chunk = out.split_to(out.len().min(MAX_PAYLOAD));
                let header = PacketHeader {
                    len: chunk.len(),
                    seq: sent as u8,
                };
                // What a server that refuses it says is read afterwards.
                failed = failed || conn.send(&header.to_bytes(), &chunk).await.is_err();
                sent += 1;
                if chunk.len() < MAX_PAYLOAD {
                    return Ok(Sent::Whole(span.seq()));
                }
            }
        }
    }

    async fn stream_long_data(&mut self) -> Result<Flow, Error> {
        let class = self.of_connection();
        let known = self
            .announced_statement()
            .filter(|id| self.prepared.takes_values(*id));
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
            return self.discard().await.map(|_| Flow::Continue);
        };
        match self.send_through(&mut conn).await? {
            Sent::Whole(_) | Sent::Unanswerable(_) => {
                if let Some(statement) = known.and_then(|id| self.prepared.find(id)) {
                    conn.hold_prepared(&statement.key, true);
                }
                self.pin_to(conn, PinReason::LongData);
                Ok(Flow::Continue)
            }
            Sent::TooMuch(span) => {
                conn.condemn();
                self.refuse_oversized(span).await
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
        let seq = self.discard().await?;
        self.reply_error_after(seq, answer).await
    }

    /// Answers a command whose last packet had the id `seq` with an error.
    async fn reply_error_after(&mut self, seq: u8, answer: &Answer) -> Result<Flow, Error> {
        let mut out = BytesMut::new();
        let mut seq = seq.wrapping_add(1);
        put_err(&mut out, &mut seq, &answer.packet(), self.capabilities);
        self.reply(&out).await
    }

    /// Relays the answer to what was sent, if it was; otherwise how the session goes on.
    async fn relay_sent(
        &mut self,
        mut conn: PooledConn,
        sent: Sent,
        class: &StatementClass,
        expect: Expect,
    ) -> Result<Result<Finished, Flow>, Error> {
        let seq = match sent {
            Sent::Whole(seq) => seq,
            Sent::TooMuch(span) => {
                conn.condemn();
                return self.refuse_oversized(span).await.map(Err);
            }
            Sent::Unanswerable(seq) => {
                conn.condemn();
                let text = "dbproxy cannot pass this execution on: it needs one more packet than the client sent";
                let answer = Answer::new(1105, b"HY000", text);
                self.reply_error_after(seq, &answer).await?;
                return Ok(Err(Flow::End));
            }
        };
        let tracker =
            ResponseTracker::new(expect, conn.capabilities()).with_first_seq(seq.wrapping_add(1));
        if class.facts.contains(Facts::MAY_WRITE) && self.context.answers.is_used() {
            self.note_written(class, None);
        }
        let curb = self.curb(&conn, class);
        let mut relay = self.relay(class);
        relay.curb = curb;
        match relay.run(&mut conn, tracker, 0).await {
            Ok(outcome) => {
                self.note_large(&outcome, conn.server());
                let reason = Reason::Statement(class.cause);
                self.note_ruling(&conn, reason, &outcome);
                self.leave_out_of_mirror(&outcome);
                Ok(Ok(Finished { conn, outcome }))
            }
            Err(failure) => self.give_up(conn, class, failure).await.map(Err),
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

    /// Passes over the command at the front of the input; the sequence id of its last packet.
    async fn discard(&mut self) -> Result<u8, Error> {
        let mut span = Span::command();
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

fn too_large() -> Answer {
    let text = "Got a packet bigger than 'max_allowed_packet' bytes";
    Answer::new(1153, b"08S01", text)
}
