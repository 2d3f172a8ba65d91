//! With `mode = "observe"`: everything goes to the primary, and what would have become of it is recorded.

mod compare;
mod observer;
mod tap;

use bytes::BytesMut;
use dbproxy_proto::{
    capability::{Capabilities, StatusFlags},
    command::Command,
    packet::HEADER_LEN,
    response::Expect,
};
use tokio::sync::OwnedSemaphorePermit;

pub use observer::Observer;

use super::{Session, relay::Outcome, route::Tried, statement::Request, tables::Wording};
use crate::{
    routing::{Reason, Route, Target},
    sql::{self, StatementClass},
    stats::Verdict,
};
use compare::Comparison;
pub(super) use compare::{Read, shown};
use tap::Tap;

/// Looks on while an answer passes that is to be compared.
#[derive(Debug)]
pub(super) struct Onlooker {
    tap: Tap,
    permit: OwnedSemaphorePermit,
}

impl Onlooker {
    /// The next bytes of the answer, as they came from a connection with these capabilities.
    pub(super) fn see(&mut self, capabilities: Capabilities, bytes: &[u8]) {
        self.tap.feed(capabilities, bytes);
    }
}

impl Session {
    /// Where a statement goes, and where it would go if the mode were another.
    pub(super) fn place(
        &self,
        class: &StatementClass,
        tried: Tried,
        wording: Wording<'_>,
    ) -> (Route, Option<Route>) {
        let route = self.route(class, tried, wording);
        if self.context.observer.is_none() {
            return (route, None);
        }
        let placed = match route.target {
            Target::Replica(_) => Route::new(Target::Primary, Reason::Observing),
            Target::Primary | Target::Kept | Target::Nowhere => route,
        };
        (placed, Some(route))
    }

    /// A statement that would have taken this route is about to run.
    pub(super) fn look_on(&mut self, class: &StatementClass, would: Option<Route>) {
        if let (Some(route), Some(observer)) = (would, &self.context.observer) {
            let picked = match route.target {
                // What begins a transaction is no answer to compare, and would leave one open.
                Target::Replica(_)
                    if class.is_replica_read() && self.status.contains(StatusFlags::AUTOCOMMIT) =>
                {
                    observer.picks(class.digest)
                }
                _ => None,
            };
            self.onlooker = picked.map(|permit| {
                Box::new(Onlooker {
                    tap: Tap::default(),
                    permit,
                })
            });
        }
    }

    /// A statement that would have taken this route was answered.
    pub(super) fn observe(
        &mut self,
        class: &StatementClass,
        would: Option<Route>,
        request: Request<'_>,
        outcome: &Outcome,
    ) {
        let (Some(route), Some(observer)) = (would, &self.context.observer) else {
            return;
        };
        let onlooker = self.onlooker.take();
        let Some(text) = text_of(request, self.capabilities) else {
            return;
        };
        observer.record(class, &route, text, self.dialect);
        if let (Some(onlooker), Target::Replica(server), None) =
            (onlooker, route.target, outcome.error)
        {
            observer.begun(class.digest);
            let verdict = if sql::varies(text, self.dialect) {
                observer.varies(class.digest);
                Some("its answer varies by itself")
            } else if onlooker.tap.is_full() {
                Some(compare::TOO_LARGE)
            } else {
                None
            };
            if let Some(reason) = verdict {
                observer.judged(class.digest, Verdict::Unknown(reason));
                return;
            }
            let Some(read) = self.repeatable(request) else {
                return;
            };
            let comparison = Comparison {
                context: self.context.clone(),
                server,
                login: self.login.clone(),
                profile: self.profile(),
                wanted: self.wanted.clone(),
                session: self.handle().id(),
                read,
                digest: class.digest,
                seen: onlooker.tap.sum(),
                permit: onlooker.permit,
            };
            // Every wait in it has a deadline, and nobody waits for it.
            tokio::spawn(comparison.run());
        }
    }

    /// What it takes to run it again elsewhere.
    pub(super) fn repeatable(&self, request: Request<'_>) -> Option<Read> {
        match request {
            Request::Forward { packet, .. } => Some(Read::Text(packet.into())),
            Request::Execute {
                execution,
                statement,
            } => {
                let mut command = BytesMut::new();
                execution.put(&mut command, 0, statement).ok()?;
                Some(Read::Prepared {
                    statement: statement.clone(),
                    command,
                })
            }
            Request::Prepare { .. } => None,
        }
    }
}

/// The text of a statement that runs; None for what is none.
pub(super) fn text_of<'a>(request: Request<'a>, capabilities: Capabilities) -> Option<&'a [u8]> {
    match request {
        Request::Forward {
            packet,
            expect: Expect::Query,
        } => match Command::parse(packet.get(HEADER_LEN..)?, capabilities) {
            Ok(Command::Query(text)) => Some(text),
            _ => None,
        },
        Request::Execute { statement, .. } => Some(statement.key.text()),
        Request::Forward { .. } | Request::Prepare { .. } => None,
    }
}
