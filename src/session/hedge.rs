//! Reads for which a second replica is asked when the first one takes long.

use std::{mem, sync::Arc, time::Duration};

use dbproxy_proto::capability::StatusFlags;
use tokio::{
    select,
    time::{Instant, sleep},
};
use tracing::debug;

use super::{
    Session, catch_up::Wait, relay::Failure, route::Tried, statement::Request, tables::Wording,
};
use crate::{
    error::{Error, ErrorKind},
    pool::PooledConn,
    routing::{Route, Target},
    sql::StatementClass,
};

/// A read that is to be asked of another replica as well.
pub(super) struct Hedge<'a> {
    /// After this time.
    pub(super) patience: Duration,
    pub(super) request: Request<'a>,
    /// Where it was tried before.
    pub(super) tried: Tried,
}

impl Session {
    /// Whether another replica may be asked for this read as well, and when.
    pub(super) fn hedge<'a>(
        &self,
        route: &Route,
        class: &StatementClass,
        request: Request<'a>,
        wait: Option<&Wait>,
        tried: Tried,
    ) -> Option<Hedge<'a>> {
        let Target::Replica(server) = route.target else {
            return None;
        };
        let may = self.rules.policy().hedged_reads > 0
            && wait.is_none()
            && class.is_replica_read()
            && self.status.contains(StatusFlags::AUTOCOMMIT)
            && !self.is_bound()
            && !matches!(request, Request::Prepare { .. });
        let patience = may.then(|| self.context.loads.patience(server))??;
        Some(Hedge {
            patience,
            request,
            tried,
        })
    }

    /// Waits until the answer to a read begins. When that takes long another replica is asked as well, and if it is the first
    /// to answer its connection takes the place of the other, whose read is ended. Whether that was so.
    pub(super) async fn race(
        &mut self,
        conn: &mut PooledConn,
        class: &StatementClass,
        hedge: Hedge<'_>,
    ) -> Result<bool, Failure> {
        let context = Arc::clone(&self.context);
        let handle = Arc::clone(self.registration.handle());
        let asked = Instant::now();
        let lost = |error| Failure::Server {
            error,
            started: false,
        };
        let interrupted = |interrupt| Failure::Interrupted {
            interrupt,
            started: false,
        };
        let first = conn.server();
        let allowance = self.rules.policy().hedged_reads;
        let answered = |server, since: Instant| {
            context.loads.answered(server, since.elapsed(), allowance);
        };
        select! {
            biased;
            filled = conn.fill(&context.buffers) => {
                filled.map_err(lost)?;
                answered(first, asked);
                return Ok(false);
            }
            interrupt = handle.interrupted() => return Err(interrupted(interrupt)),
            () = sleep(hedge.patience) => {}
        }
        let mut tried = hedge.tried;
        tried.again(first, true);
        let (route, _) = self.place(class, tried, Wording::Request(hedge.request));
        let other = match route.target {
            Target::Replica(other) if !route.waits => other,
            _ => return Ok(false),
        };
        if !context.loads.may_ask_again() {
            return Ok(false);
        }
        let _counted = context.loads.count(other);
        let mut second = None;
        let asks = async {
            let conn = second.insert(self.connection_now(&route).await.ok()?);
            let command = self.compose(conn, class, hedge.request, None).await.ok()?;
            conn.send(&command.prefix, command.packet).await.ok()
        };
        let asked_again = Instant::now();
        let sent = select! {
            biased;
            filled = conn.fill(&context.buffers) => filled.map(|()| false).map_err(lost),
            interrupt = handle.interrupted() => Err(interrupted(interrupt)),
            sent = asks => Ok(sent.is_some()),
        };
        let Some(mut second) = second else {
            return sent.map(|_| false);
        };
        let raced = match sent {
            Ok(true) => {
                let answers = async {
                    second.settle(&context.buffers).await.ok()?;
                    match second.input.is_empty() {
                        true => second.fill(&context.buffers).await.ok(),
                        false => Some(()),
                    }
                };
                select! {
                    biased;
                    filled = conn.fill(&context.buffers) => filled.map(|()| false).map_err(lost),
                    interrupt = handle.interrupted() => Err(interrupted(interrupt)),
                    () = self.client_left() => Err(Failure::Client(Error::client(ErrorKind::Closed))),
                    answer = answers => Ok(answer.is_some()),
                }
            }
            sent => sent,
        };
        if raced.is_ok() {
            // Also of who has not answered yet it is known that it takes at least as long.
            answered(first, asked);
        }
        if matches!(raced, Ok(true)) {
            answered(other, asked_again);
            debug!(
                session = self.handle().id(),
                slow = first.0,
                server = other.0,
                "another replica was faster"
            );
            mem::swap(conn, &mut second);
        }
        // Whatever it is doing is for nobody.
        self.cancel(second);
        raced
    }
}
