//! Questions of the proxy's own, asked in the session's name.

use std::{ops::ControlFlow, sync::Arc};

use bytes::BytesMut;
use dbproxy_proto::{
    command::put_query,
    packet::{self, Frame},
    reply::ErrPacket,
    response::{Expect, ResponseTracker},
};

use super::{Flow, Session, finish::Effect, relay::Failure, statement::Finished};
use crate::{
    error::{Answer, Error},
    sql::StatementClass,
};

impl Session {
    /// The bytes of the answer to a query that the session asks the primary, or the error that ended it; none of one that is
    /// too long to be of interest.
    ///
    /// What the query leaves behind is the session's, as after any statement of its own. `Break`: there is no answer, and
    /// the client was told so.
    pub(super) async fn ask(
        &mut self,
        query: &[u8],
        class: &StatementClass,
    ) -> Result<ControlFlow<Flow, Result<BytesMut, Answer>>, Error> {
        let bound = self.is_bound();
        let mut conn = match self.settled_connection(class).await {
            Ok(conn) => conn,
            Err(error) => {
                let told = self.unanswered(error, bound).await;
                return told.map(ControlFlow::Break);
            }
        };
        let mut command = BytesMut::new();
        put_query(&mut command, query, conn.capabilities());
        let handle = Arc::clone(self.registration.handle());
        let running = handle.run_on(conn.server(), conn.thread_id());
        let tracker = ResponseTracker::new(Expect::Query, conn.capabilities());
        let heard = match conn.send(&command, &[]).await {
            Ok(()) => self.relay(class).listen(&mut conn, tracker).await,
            Err(error) => Err(Failure::Unsent(error)),
        };
        drop(running);
        let (outcome, answer) = match heard {
            Ok(heard) => heard,
            Err(failure) => {
                let told = self.give_up(conn, class, failure).await;
                return told.map(ControlFlow::Break);
            }
        };
        let heard = match outcome.error {
            Some(code) => Err(last_error(&answer, code)),
            None => Ok(answer),
        };
        match (
            self.finish(class, Finished { conn, outcome }, Effect::None),
            heard,
        ) {
            (Flow::Continue, heard) => Ok(ControlFlow::Continue(heard)),
            (flow, heard) => {
                if let Err(answer) = heard {
                    self.reply_error(&answer).await?;
                }
                Ok(ControlFlow::Break(flow))
            }
        }
    }

    /// Tells the client that what the proxy needed for its command was not to be had.
    pub(super) async fn unanswered(&mut self, error: Error, bound: bool) -> Result<Flow, Error> {
        let flow = self.reply_error(&error.answer()).await?;
        // What the connection knew of the session is lost with it.
        if bound { Err(error) } else { Ok(flow) }
    }
}

/// The error `code` at the end of an answer, behind whatever rows there are.
fn last_error(answer: &[u8], code: u16) -> Answer {
    let mut rest = answer;
    let mut last: &[u8] = &[];
    while let Frame::Complete { len, payload } = packet::complete(rest) {
        last = rest.get(payload).unwrap_or_default();
        rest = rest.get(len..).unwrap_or_default();
    }
    match ErrPacket::parse(last) {
        Ok(error) => Answer::of(&error),
        Err(_) => Answer::new(code, b"HY000", "a question of dbproxy's has failed"),
    }
}
