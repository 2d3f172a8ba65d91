//! Whether a replica would have answered the same.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    capability::Capabilities,
    packet::HEADER_LEN,
    response::{Event, Expect, ResponseTracker},
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;

use super::tap::{Likeness, Sum, Tap};
use crate::{
    accounts::Scope,
    backend::{Login, SessionState},
    error::{Answer, Error, ErrorKind},
    net::Buffers,
    pool::{Key, PooledConn},
    session::{
        Context,
        finish::is_connection_error,
        prepared::{Statement, prepare_again},
        unix_time,
    },
    stats::{Difference, Failed, Verdict},
    topology::{Role, ServerId},
};

/// How long one run of a read may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often answers that differ are compared again.
const ROUNDS: usize = 2;

pub(super) const TOO_LARGE: &str = "its answer is longer than 16 MiB";
const TOO_SLOW: &str = "it took longer than 10 seconds";
const LOST: &str = "a server could not be reached";
const BEHIND: &str = "the replica did not catch up with the primary in time";
const MOVING: &str = "the data changed while it was compared";

/// A read that was answered by the primary, to be run on a replica.
pub(super) struct Comparison {
    pub(super) context: Arc<Context>,
    /// The replica.
    pub(super) server: ServerId,
    pub(super) login: Login,
    pub(super) profile: Capabilities,
    pub(super) wanted: Arc<SessionState>,
    pub(super) session: u32,
    pub(super) read: Read,
    pub(super) digest: u64,
    /// What the client's answer came to.
    pub(super) seen: Sum,
    /// Held until the end.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What is run.
pub(in crate::session) enum Read {
    /// A command as the client sent it.
    Text(Box<[u8]>),
    /// An execution of a statement, in which the statement's id is still to be put.
    Prepared {
        statement: Statement,
        command: BytesMut,
    },
}

impl Read {
    /// Bytes that it holds.
    pub(in crate::session) fn len(&self) -> usize {
        match self {
            Self::Text(packet) => packet.len(),
            Self::Prepared { statement, command } => statement.key.text().len() + command.len(),
        }
    }

    /// Sends it on a connection that is in its session's state; what its answer looks like.
    pub(in crate::session) async fn send(
        &self,
        conn: &mut PooledConn,
        session: u32,
        buffers: &Buffers,
    ) -> Result<Expect, Error> {
        match self {
            Self::Text(packet) => {
                conn.send(&[], packet).await?;
                Ok(Expect::Query)
            }
            Self::Prepared { statement, command } => {
                let known = conn.find_prepared_for(&statement.key, session, &statement.types);
                let there = match known {
                    Some(there) => there,
                    None => prepare_again(conn, session, statement, buffers).await?,
                };
                let mut command = command.clone();
                if let Some(place) = command.get_mut(STATEMENT_ID) {
                    place.copy_from_slice(&there.id.to_le_bytes());
                }
                conn.send(&[], &command).await?;
                Ok(Expect::Execute)
            }
        }
    }
}

/// Where the id of a statement stands in a packet.
const STATEMENT_ID: std::ops::Range<usize> = HEADER_LEN + 1..HEADER_LEN + 5;

/// What a server made of it: what its answer came to, or its error. The reason if there is neither.
type Answered = Result<Result<Sum, Answer>, &'static str>;

impl Comparison {
    /// Compares, and tells the observer.
    pub(super) async fn run(self) {
        let verdict = self.judge().await;
        debug!(
            session = self.session,
            server = self.server.0,
            ?verdict,
            "answers compared"
        );
        if let Some(observer) = &self.context.observer {
            observer.judged(self.digest, verdict);
        }
        drop(self.permit);
    }

    async fn judge(&self) -> Verdict {
        match self.answer_of(self.server).await {
            Ok(Ok(sum)) => match sum.held_against(&self.seen) {
                Likeness::Same => return Verdict::Equal { reordered: false },
                Likeness::Reordered => return Verdict::Equal { reordered: true },
                Likeness::Rows | Likeness::Columns => {}
            },
            // What it lacks may be on its way.
            Ok(Err(_)) => {}
            Err(reason) => return Verdict::Unknown(reason),
        }
        for _ in 0..ROUNDS {
            if let Some(verdict) = self.judge_again().await {
                return verdict;
            }
        }
        Verdict::Unknown(MOVING)
    }

    /// Holds the replica's answer between two of the primary's, of which it has seen the first: if these two are the same and
    /// it is not, then no write explains it. None if they are not.
    async fn judge_again(&self) -> Option<Verdict> {
        let before = match self.answer_of_primary().await {
            Ok(sum) => sum,
            Err(reason) => return Some(Verdict::Unknown(reason)),
        };
        if !self.has_caught_up().await {
            return Some(Verdict::Unknown(BEHIND));
        }
        let replica = match self.answer_of(self.server).await {
            Ok(answer) => answer,
            Err(reason) => return Some(Verdict::Unknown(reason)),
        };
        let after = match self.answer_of_primary().await {
            Ok(sum) => sum,
            Err(reason) => return Some(Verdict::Unknown(reason)),
        };
        let alike = |one: &Sum, other: &Sum| {
            matches!(
                one.held_against(other),
                Likeness::Same | Likeness::Reordered
            )
        };
        if !alike(&before, &after) {
            return None;
        }
        Some(match replica {
            Ok(sum) if alike(&sum, &after) => Verdict::Later,
            Ok(sum) => Verdict::Different(Difference {
                server: self.name(),
                at: unix_time(),
                primary_rows: after.rows,
                replica_rows: sum.rows,
                columns: sum.held_against(&after) == Likeness::Columns,
            }),
            Err(answer) => Verdict::Failed(Failed {
                server: self.name(),
                at: unix_time(),
                code: answer.code,
                message: shown(&answer),
            }),
        })
    }

    fn name(&self) -> String {
        let topology = self.context.topology.borrow();
        let server = topology.server(self.server);
        server.map_or_else(String::new, |server| server.name.to_string())
    }

    /// Waits until the replica has everything that the primary has now.
    async fn has_caught_up(&self) -> bool {
        let mut topology = self.context.topology.clone();
        // As if an account had written just now: the rule is the one for reading one's own writes.
        let written = Scope::new();
        written.wrote_unknown(Instant::now());
        let patience = topology.borrow().max_lag.saturating_mul(3) + DEADLINE;
        let deadline = Instant::now() + patience;
        loop {
            {
                let now = topology.borrow_and_update();
                let there = now.server(self.server).is_some_and(|server| {
                    server.role == Role::Replica
                        && server.readable(now.max_lag).is_ok()
                        && written.is_fresh(server, &now)
                });
                if there {
                    return true;
                }
            }
            if !matches!(timeout_at(deadline, topology.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }

    async fn answer_of_primary(&self) -> Result<Sum, &'static str> {
        let primary = self.context.topology.borrow().primary;
        let Some(primary) = primary else {
            return Err(LOST);
        };
        match self.answer_of(primary).await? {
            Ok(sum) => Ok(sum),
            Err(_) => Err("it failed on the primary as well"),
        }
    }

    /// Runs it on a server, as its session would.
    async fn answer_of(&self, server: ServerId) -> Answered {
        let deadline = Instant::now() + DEADLINE;
        let mut conn = match timeout_at(deadline, self.connection(server)).await {
            Ok(Ok(conn)) => conn,
            Ok(Err(error)) => return refusal(error),
            Err(_) => return Err(LOST),
        };
        match timeout_at(deadline, self.ask(&mut conn)).await {
            Ok(Ok(Some(answer))) => {
                let broken = matches!(&answer, Err(answer) if is_connection_error(answer.code));
                if broken {
                    conn.condemn();
                    return Err(LOST);
                }
                conn.mark_idle(&self.context.buffers);
                conn.mark_clean();
                Ok(answer)
            }
            Ok(Ok(None)) => {
                self.cancel(conn).await;
                Err(TOO_LARGE)
            }
            // Dropped while it is busy, the connection is closed.
            Ok(Err(error)) => refusal(error),
            Err(_) => {
                self.cancel(conn).await;
                Err(TOO_SLOW)
            }
        }
    }

    async fn connection(&self, server: ServerId) -> Result<PooledConn, Error> {
        let key = Key::new(server, &self.login, self.profile);
        let Some(bucket) = self.context.pool.bucket(key) else {
            return Err(Error::server(ErrorKind::Closed));
        };
        bucket
            .spare(self.context.worker, &self.login, &self.wanted)
            .await
    }

    /// None: the answer is too long.
    async fn ask(&self, conn: &mut PooledConn) -> Result<Option<Result<Sum, Answer>>, Error> {
        let buffers = &self.context.buffers;
        let mut commands = BytesMut::new();
        conn.put_sync(&mut commands, &self.wanted, "");
        conn.send(&commands, &[]).await?;
        conn.settle(buffers).await?;
        let expect = self.read.send(conn, self.session, buffers).await?;
        let mut tracker = ResponseTracker::new(expect, conn.capabilities());
        let mut tap = Tap::default();
        let mut error = None;
        while !tracker.is_done() {
            let event = tracker.next(&conn.input);
            let event =
                event.map_err(|error| Error::server(ErrorKind::Protocol(error.to_string())))?;
            let len = match event {
                Event::NeedMore => {
                    conn.fill(buffers).await?;
                    continue;
                }
                Event::Data { len } | Event::Ok { len, .. } | Event::Eof { len, .. } => len,
                Event::Err { len, packet, .. } => {
                    error = Some(Answer::of(&packet));
                    len
                }
                Event::LocalInfile { .. } | Event::Prepared { .. } => {
                    let text = "a read was answered with something else";
                    return Err(Error::server(ErrorKind::Protocol(text.into())));
                }
            };
            tap.feed(
                conn.capabilities(),
                conn.input.get(..len).unwrap_or_default(),
            );
            conn.input.advance(len);
            if tap.is_full() {
                return Ok(None);
            }
        }
        Ok(Some(match error {
            Some(answer) => Err(answer),
            None => Ok(tap.sum()),
        }))
    }

    /// Ends what still runs.
    async fn cancel(&self, conn: PooledConn) {
        let (bucket, thread_id) = (conn.bucket(), conn.thread_id());
        // Busy: dropping it closes it. A server notices that only when it wants to write.
        drop(conn);
        let kill = bucket.kill_query(&self.login, thread_id, || true);
        if !matches!(timeout(DEADLINE, kill).await, Ok(Ok(()))) {
            debug!(thread_id, "a read that was compared could not be ended");
        }
    }
}

/// A server that says why it does not do it has answered.
fn refusal(error: Error) -> Answered {
    match error.kind {
        ErrorKind::Answer(answer) if !is_connection_error(answer.code) => Ok(Err(answer)),
        _ => Err(LOST),
    }
}

/// An error's text, if it names things only: others quote values.
pub(in crate::session) fn shown(answer: &Answer) -> String {
    // Access denied, unknown schema, no such table, column, function; not allowed; a view that is not valid any more.
    let names_only = matches!(
        answer.code,
        1044 | 1045
            | 1049
            | 1051
            | 1054
            | 1109
            | 1142
            | 1143
            | 1146
            | 1193
            | 1227
            | 1305
            | 1356
            | 1370
    );
    if names_only {
        answer.message.to_string()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_may_quote_values_are_not_shown() {
        let missing = Answer::new(1146, b"42S02", "Table 'shop.t' doesn't exist");
        assert_eq!(shown(&missing), "Table 'shop.t' doesn't exist");
        let quoting = Answer::new(1366, b"22007", "Incorrect integer value: 'secret'");
        assert_eq!(shown(&quoting), "");
    }
}
