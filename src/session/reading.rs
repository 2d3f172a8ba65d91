//! Transactions that only read, on a replica.

use bytes::BytesMut;
use dbproxy_proto::{capability::StatusFlags, command::put_query};

use super::{Session, finish::Effect, route::Tried, tables::Wording};
use crate::{
    error::{Answer, Error, Origin},
    routing::{self, Reason, Target},
    sql::{Cause, Facts, Kind, StatementClass, set::Assignment, setting::Access},
    topology::ServerId,
};

impl Session {
    /// Leaves the replica that has the session's transaction if the statement must not run there: the transaction ends, or
    /// begins anew on the primary. If neither is right, the client is told so.
    ///
    /// What the client is to be told, also if it has promised not to write; None if the statement is to run.
    pub(super) async fn leave_replica_for(
        &mut self,
        class: &StatementClass,
    ) -> Result<Option<Answer>, Error> {
        if self.refuses(class) {
            return Ok(Some(refused_write()));
        }
        if self.reading.is_none() {
            return Ok(None);
        }
        Box::pin(self.leave_replica(class)).await
    }

    /// Whether the session has said that it only reads, and this may be more.
    pub(super) fn refuses(&self, class: &StatementClass) -> bool {
        self.settings.access == Some(Access::ReadOnly) && class.may_change_data()
    }

    async fn leave_replica(&mut self, class: &StatementClass) -> Result<Option<Answer>, Error> {
        let route = self.route(class, Tried::default(), Wording::Unknown);
        if route.target == Target::Kept {
            return Ok(None);
        }
        if let Reason::NotInReading(cause) = route.reason {
            return Ok(Some(self.not_in_reading(cause)));
        }
        if matches!(class.kind, Kind::Begin { .. } | Kind::LockTables) {
            self.end_reading();
            return Ok(None);
        }
        match self.begin_anew().await {
            Ok(()) => Ok(None),
            Err(error) if error.origin == Origin::Client => Err(error),
            Err(error) => Ok(Some(error.answer())),
        }
    }

    fn not_in_reading(&self, cause: Cause) -> Answer {
        let topology = self.context.topology.borrow();
        let server = self
            .reading
            .and_then(|reading| topology.server(reading.server));
        let server = server.map_or("a replica", |server| &server.name);
        // ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, as the server says to a write.
        let text = format!(
            "Cannot execute statement in a READ ONLY transaction: dbproxy runs it on {server}, where it has begun to read, \
             and only the primary can run this one ({cause}); begin the transaction with \
             /* dbproxy: primary */ START TRANSACTION READ ONLY"
        );
        Answer::new(1792, b"25006", text)
    }

    /// Begins the transaction on the primary that has done nothing yet on a replica.
    async fn begin_anew(&mut self) -> Result<(), Error> {
        let mut conn = self.primary_connection().await?;
        let mut commands = BytesMut::new();
        self.put_session(&mut conn, &mut commands);
        put_query(
            &mut commands,
            b"START TRANSACTION READ ONLY",
            conn.capabilities(),
        );
        conn.expect_answers(1);
        conn.send(&commands, &[]).await?;
        conn.settle(&self.context.buffers).await?;
        // Not before: without a primary the client still has the transaction that it knows of.
        self.end_reading();
        self.status |= StatusFlags::IN_TRANS;
        conn.mark_idle(&self.context.buffers);
        conn.mark_soiled();
        self.hold(conn);
        Ok(())
    }

    /// Gives up the transaction on a replica, which has changed nothing.
    fn end_reading(&mut self) {
        self.reading = None;
        self.status.remove(StatusFlags::IN_TRANS);
        self.handle().release();
        // Soiled: it is reset on its way to the pool.
        self.held = None;
    }

    /// The server of a statement that ran, if it is a replica on which it has opened a transaction, if it has opened one.
    pub(super) fn opens_reading(
        &self,
        class: &StatementClass,
        server: ServerId,
    ) -> Option<ServerId> {
        let opens = routing::begins_reading(class, self.is_read_only())
            || (class.is_replica_read() && !self.status.contains(StatusFlags::AUTOCOMMIT));
        (opens && !self.is_bound() && !self.is_primary(server)).then_some(server)
    }

    /// Whether the session's transactions only read, unless they say otherwise, and lock nothing that they read.
    pub(super) fn is_read_only(&self) -> bool {
        let is = |name, values: &[&str]| {
            let value = self.wanted.variable(name);
            value.map(|value| {
                let value = value.trim_matches('\'');
                values.iter().any(|known| value.eq_ignore_ascii_case(known))
            })
        };
        is("transaction_read_only", ON)
            .or_else(|| is("tx_read_only", ON))
            .unwrap_or(false)
    }

    /// Whether the session has asked for an isolation in which reads lock, or for one that is not known.
    pub(super) fn may_lock_reads(&self) -> bool {
        ["transaction_isolation", "tx_isolation"]
            .iter()
            .filter_map(|name| self.wanted.variable(name))
            .any(|value| {
                let value = value.trim_matches('\'');
                !LOCK_FREE
                    .iter()
                    .any(|known| value.eq_ignore_ascii_case(known))
            })
    }

    /// The class of a SET with what only the whole of it tells: whether it may run on a replica.
    pub(super) fn weighed(&self, mut class: StatementClass, effect: &Effect) -> StatementClass {
        let carried = match effect {
            Effect::Assign(assignments) => !assignments.contains(&Assignment::ServerWide),
            _ => false,
        };
        if self.reading.is_some() && class.kind == Kind::Set && !carried {
            class.facts |= Facts::MAY_WRITE;
        }
        class
    }
}

/// The answer to what may write in a session that only reads: the server's number for that.
fn refused_write() -> Answer {
    let text = "dbproxy is set to read only in this session so it cannot execute this statement, which writes or cannot be \
                shown not to; ROUTER SET access_mode = 'auto' allows it again";
    Answer::new(1290, b"HY000", text)
}

const ON: &[&str] = &["1", "ON", "TRUE"];
const LOCK_FREE: &[&str] = &["READ-UNCOMMITTED", "READ-COMMITTED", "REPEATABLE-READ"];
