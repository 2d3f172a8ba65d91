//! Commands too long to be collected: streamed to the primary as they arrive.

use std::{sync::Arc, time::Duration};

use bytes::Buf;
use dbproxy_proto::{
    command::code,
    packet::{HEADER_LEN, PacketHeader},
    response::{Expect, ResponseTracker},
};
use tokio::time::timeout;

use super::{COLLECTED, Flow, Session, client_io, finish::Effect, span::Span, statement::Finished};
use crate::{
    error::{Answer, Error, ErrorKind},
    net::Buffers,
    pool::PooledConn,
    routing::PinReason,
    sql::{self, Facts, Kind, StatementClass},
};

/// How long a client may pause in the middle of a command that holds a server connection.
const STALLED: Duration = Duration::from_secs(60);

/// Where the statement id of a binary command lies in its packet.
const STATEMENT_ID: std::ops::Range<usize> = HEADER_LEN + 1..HEADER_LEN + 5;

impl Session {
    /// Carries out a command whose packet is longer than [`COLLECTED`].
    pub(super) async fn stream_large(&mut self) -> Result<Flow, Error> {
        while self.input.len() < COLLECTED {
            self.read_some().await?;
        }
        let single = PacketHeader::parse(&self.input)
            .is_some_and(|header| header.len < dbproxy_proto::packet::MAX_PAYLOAD);
        match self.input.get(HEADER_LEN).copied() {
            Some(code::QUERY) => self.stream_query().await,
            Some(code::STMT_SEND_LONG_DATA) => self.stream_long_data().await,
            Some(code::STMT_EXECUTE) if self.sends_types() => self.stream_execution().await,
            _ if single => self.collect().await,
            _ => {
                self.discard(Span::command()).await?;
                self.reply_error(&Answer::new(
                    1153,
                    b"08S01",
                    "Got a packet bigger than 'max_allowed_packet' bytes",
                ))
                .await
            }
        }
    }

    async fn read_some(&mut self) -> Result<(), Error> {
        self.input.reserve(Buffers::LARGE);
        match timeout(STALLED, self.client.read(&mut self.input)).await {
            Ok(Ok(0)) => Err(Error::client(ErrorKind::Closed)),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(client_io(error)),
            Err(_) => Err(Error::client(ErrorKind::Timeout(
                "the rest of a command".into(),
            ))),
        }
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
        let start = self.input.get(HEADER_LEN + 1..).unwrap_or_default();
        let mut class = sql::classify(start, self.dialect);
        // What was not seen could be anything.
        let effect = match class.kind {
            Kind::Write | Kind::LoadData if !self.wanted.multi_statements() => Effect::None,
            _ => Effect::Pin(PinReason::LargeStatement),
        };
        class.cause = sql::Cause::Write;
        class.facts |= Facts::MAY_WRITE;
        self.stream(&class, None, Expect::Query, effect).await
    }

    /// Whether the execution at the front of the input brings its parameter types along.
    fn sends_types(&self) -> bool {
        let Some(statement) = self.announced_statement() else {
            return false;
        };
        let parameters = self
            .prepared
            .find(statement)
            .map_or(0, |statement| usize::from(statement.parameters));
        let flag = HEADER_LEN + 10 + parameters.div_ceil(8);
        parameters > 0 && self.input.get(flag) == Some(&1)
    }

    fn announced_statement(&self) -> Option<u32> {
        Some(u32::from_le_bytes(
            self.input.get(STATEMENT_ID)?.try_into().ok()?,
        ))
    }

    async fn stream_execution(&mut self) -> Result<Flow, Error> {
        let id = self.announced_statement().unwrap_or(0);
        let class = self
            .prepared
            .find(id)
            .map_or_else(|| self.of_connection(), |statement| statement.class);
        let mut class = class;
        class.cause = sql::Cause::Write;
        let parameters = self
            .prepared
            .find(id)
            .map_or(0, |statement| usize::from(statement.parameters));
        let types = HEADER_LEN + 11 + parameters.div_ceil(8);
        let types = self
            .input
            .get(types..types + 2 * parameters)
            .map(<[u8]>::to_vec);
        if let (Some(statement), Some(types)) = (self.prepared.find_mut(id), types) {
            statement.types = types;
        }
        self.stream(&class, Some(id), Expect::Execute, Effect::None)
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
            return self.discard(Span::command()).await.map(|()| Flow::Continue);
        };
        self.send_through(&mut conn).await?;
        self.pin_to(conn, PinReason::LongData);
        Ok(Flow::Continue)
    }

    /// Streams the command at the front of the input to the primary and relays the answer.
    async fn stream(
        &mut self,
        class: &StatementClass,
        statement: Option<u32>,
        expect: Expect,
        effect: Effect,
    ) -> Result<Flow, Error> {
        let bound = self.is_bound();
        let mut conn = match self.large_connection(class, statement).await {
            Ok(conn) => conn,
            Err(error) => {
                self.discard(Span::command()).await?;
                let flow = self.reply_error(&error.answer()).await;
                return if bound { Err(error) } else { flow };
            }
        };
        let handle = Arc::clone(self.registration.handle());
        let _running = handle.run_on(conn.server(), conn.thread_id());
        let seq = self.send_through(&mut conn).await?;
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
    /// Returns the sequence id of its last packet.
    async fn send_through(&mut self, conn: &mut PooledConn) -> Result<u8, Error> {
        let mut span = Span::command();
        let mut failed = false;
        loop {
            let end = span.advance(&self.input);
            // A server that refuses the command says why and closes: its answer is read afterwards.
            failed = failed
                || conn
                    .send(&[], self.input.get(..end).unwrap_or_default())
                    .await
                    .is_err();
            self.input.advance(end);
            if span.is_complete() {
                return Ok(span.seq());
            }
            self.read_some().await?;
        }
    }

    async fn discard(&mut self, mut span: Span) -> Result<(), Error> {
        loop {
            let end = span.advance(&self.input);
            self.input.advance(end);
            if span.is_complete() {
                return Ok(());
            }
            self.read_some().await?;
        }
    }
}
