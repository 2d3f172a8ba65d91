//! Conversations that have no end to look for: a replica's stream of events, and what is like it.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use dbproxy_proto::command::code;
use tokio::select;
use tracing::info;

use super::{Flow, Session, client_io, handle::Handle};
use crate::{
    error::{Error, ErrorKind},
    net::{Buffers, Stream},
    pool::PooledConn,
    routing::PinReason,
};

/// Whether a command of this code begins a conversation that only its two ends understand.
pub(super) fn begins(code: u8) -> bool {
    matches!(
        code,
        code::BINLOG_DUMP
            | code::BINLOG_DUMP_GTID
            | code::CLONE
            | code::SUBSCRIBE_GROUP_REPLICATION_STREAM
    )
}

impl Session {
    /// Sends the command that begins such a conversation to the primary. From then on the session is the server's.
    pub(super) async fn begin_pipe(&mut self, packet: &[u8]) -> Result<Flow, Error> {
        let class = self.of_server();
        if let Some(answer) = self.leave_replica_for(&class).await? {
            return self.reply_error(&answer).await;
        }
        let bound = self.is_bound();
        let began = async {
            let mut conn = self.settled_connection(&class).await?;
            conn.send(&[], packet).await?;
            Ok::<_, Error>(conn)
        };
        match began.await {
            Ok(conn) => {
                self.pins.begin(PinReason::Replication);
                self.hold(conn);
                Ok(Flow::Pipe)
            }
            Err(error) => self.unanswered(error, bound).await,
        }
    }

    /// Passes bytes on in both directions until one side closes. What is slow on one side is slow on the other.
    pub(super) async fn pipe(&mut self) -> Result<(), Error> {
        let Some(mut conn) = self.held.take() else {
            return Err(Error::server(ErrorKind::Closed));
        };
        let server = conn.server();
        info!(
            session = self.handle().id(),
            server = server.0,
            "passes everything on"
        );
        let handle = Arc::clone(self.registration.handle());
        let _running = handle.run_on(server, conn.thread_id());
        let mut asked = false;
        let ended = loop {
            if let Err(error) = self.pass_on(&mut conn, &handle, &mut asked).await {
                break error;
            }
        };
        if asked {
            // It may have gone on to write.
            self.scopes.wrote_unknown();
        }
        match ended {
            End::Server(ErrorKind::Closed) => Ok(()),
            End::Server(kind) => Err(Error::server(kind)),
            End::Client | End::Order => {
                self.cancel(conn);
                Ok(())
            }
        }
    }

    /// Waits for bytes of either side, and hands them to the other one.
    async fn pass_on(
        &mut self,
        conn: &mut PooledConn,
        handle: &Handle,
        asked: &mut bool,
    ) -> Result<(), End> {
        if !self.input.is_empty() {
            *asked = true;
            let sent = conn.send(&[], &self.input);
            unless_ordered(handle, async { sent.await.map_err(server) }).await?;
            self.input.clear();
        }
        if !conn.input.is_empty() {
            let written = self.client.write_all(&conn.input);
            unless_ordered(handle, async { written.await.map_err(|_| End::Client) }).await?;
            let len = conn.input.len();
            conn.input.advance(len);
        }
        let (client, input) = (&mut self.client, &mut self.input);
        let mut topology = self.context.topology.clone();
        let primary = conn.server();
        let demoted =
            topology.wait_for(|topology| topology.primary.is_some_and(|now| now != primary));
        select! {
            biased;
            () = handle.must_leave() => Err(End::Order),
            filled = conn.fill(&self.context.buffers) => filled.map_err(server),
            read = read(client, input) => read.map_err(|_| End::Client),
            // A replica is to follow the one that takes its place.
            _ = demoted => Err(End::Order),
        }
    }
}

/// Why nothing more is passed on.
enum End {
    Client,
    Server(ErrorKind),
    /// Somebody wants the session to end.
    Order,
}

fn server(error: Error) -> End {
    End::Server(error.kind)
}

/// Writing to somebody who does not read is given up on an order only.
async fn unless_ordered(
    handle: &Handle,
    write: impl Future<Output = Result<(), End>>,
) -> Result<(), End> {
    select! {
        biased;
        written = write => written,
        () = handle.must_leave() => Err(End::Order),
    }
}

async fn read(client: &mut Stream, input: &mut BytesMut) -> Result<(), Error> {
    input.reserve(Buffers::SMALL);
    match client.read(input).await.map_err(client_io)? {
        0 => Err(Error::client(ErrorKind::Closed)),
        _ => Ok(()),
    }
}
