//! Questions of the proxy's own, asked in the session's name.

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    command::put_query,
    response::{Event, Expect, ResponseTracker},
    resultset::TextRows,
};

use super::Session;
use crate::{
    error::{Error, ErrorKind},
    sql::StatementClass,
};

/// Longest answer that is of interest.
const LIMIT: usize = 1 << 20;

impl Session {
    /// The first value of the first row that a query gives to the session on the primary; None if it is NULL, or an error.
    pub(super) async fn ask(
        &mut self,
        query: &[u8],
        class: &StatementClass,
    ) -> Result<Option<Vec<u8>>, Error> {
        let answer = self.ask_all(query, class).await?;
        let mut rows = TextRows::new(&answer, self.profile());
        Ok(rows.next().and_then(|row| row.first().map(<[u8]>::to_vec)))
    }

    /// The bytes of the answer to a query.
    pub(super) async fn ask_all(
        &mut self,
        query: &[u8],
        class: &StatementClass,
    ) -> Result<BytesMut, Error> {
        let bound = self.is_bound();
        let mut conn = self.settled_connection(class).await?;
        let mut command = BytesMut::new();
        put_query(&mut command, query, conn.capabilities());
        conn.send(&command, &[]).await?;
        let mut tracker = ResponseTracker::new(Expect::Query, conn.capabilities());
        let mut answer = BytesMut::new();
        while !tracker.is_done() {
            let event = tracker
                .next(&conn.input)
                .map_err(|error| Error::server(ErrorKind::Protocol(error.to_string())))?;
            let len = match event {
                Event::NeedMore => {
                    conn.fill(&self.context.buffers).await?;
                    continue;
                }
                Event::Data { len }
                | Event::Ok { len, .. }
                | Event::Eof { len, .. }
                | Event::Err { len, .. }
                | Event::LocalInfile { len }
                | Event::Prepared { len, .. } => len,
            };
            if answer.len() + len <= LIMIT {
                answer.extend_from_slice(conn.input.get(..len).unwrap_or_default());
            }
            conn.input.advance(len);
        }
        conn.mark_idle(&self.context.buffers);
        if bound {
            self.hold(conn);
        }
        Ok(answer)
    }
}
