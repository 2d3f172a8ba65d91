//! What a finished statement means for the session and for its connection.

use std::sync::Arc;

use dbproxy_proto::capability::StatusFlags;

use super::{Flow, Session, relay::Outcome, statement::Finished};
use crate::{
    backend::{Charset, SessionState},
    pool::PooledConn,
    routing::{self, PinReason, Reading},
    sql::{
        Cause, Counts, Facts, Kind, StatementClass, holding::Holding, set::Assignment, variables,
    },
    topology::ServerId,
};

/// What is begun and ended by statements that may be understood exactly.
pub(super) const HOLDS: Facts = Facts::TEMPORARY_TABLE
    .union(Facts::NAMED_LOCK)
    .union(Facts::HANDLER)
    .union(Facts::LOCK_TABLES)
    .union(Facts::UNLOCK_TABLES);

/// What a statement changes in the session's state.
#[derive(Debug)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// A SET that was understood.
    Assign(Vec<Assignment>),
    /// The same, of which not everything can be repeated on another connection.
    AssignHere(Vec<Assignment>),
    /// USE or COM_INIT_DB.
    Schema(Vec<u8>),
    /// COM_SET_OPTION.
    MultiStatements(bool),
    /// Something that the connection holds for the session from now on, or no longer.
    Holds(Holding),
    /// Something that only the connection knows from now on. One that fails may have changed some of it, unless it was a
    /// replica that was not let in.
    Pin(PinReason),
}

/// A connection that ran the statement before and still waits for questions about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) server: ServerId,
    /// It ran the very last statement, not one before that.
    pub(super) previous: bool,
}

impl Session {
    /// Takes over what a finished statement changed, and keeps its connection or gives it back.
    pub(super) fn finish(
        &mut self,
        class: &StatementClass,
        finished: Finished,
        effect: Effect,
    ) -> Flow {
        let Finished { mut conn, outcome } = finished;
        conn.mark_idle(&self.context.buffers);
        if routing::may_change_variables(class) {
            conn.mark_written();
        }
        let opens_reading = self.opens_reading(class, conn.server());
        let next_transaction = self.pins.contains(PinReason::NextTransaction);
        let was_in_transaction = self.status.contains(StatusFlags::IN_TRANS);
        if let Some(status) = outcome.status {
            self.status = status.difference(PASSING);
        }
        let in_transaction = self.status.contains(StatusFlags::IN_TRANS);
        let failed = outcome.error.is_some();
        self.counts = self.counts_after(class, &outcome, &effect);
        let understood = !matches!(effect, Effect::None);
        let effect = self.note_holding(class, effect, failed);
        if matches!(effect, Effect::AssignHere(_)) {
            self.pins.begin(PinReason::Set);
        }
        if let Effect::Pin(reason) = effect {
            if !failed || reason != PinReason::Replication {
                self.pins.begin(reason);
            }
        } else if failed && sets_user_variable(&effect) {
            // Some of them may have been set all the same.
            self.pins.begin(PinReason::UserVariable);
        } else if !failed {
            // A number out of range was taken for another one, perhaps as sql_mode allowed: it may be another one when it is
            // set elsewhere.
            let adapted = outcome.warnings > 0 && matches!(effect, Effect::Assign(_));
            if let Some((wanted, pin)) = self.changed(effect) {
                self.set_wanted(match adapted {
                    true => wanted.taken_leniently(),
                    false => wanted,
                });
                conn.set_state(Arc::clone(&self.wanted));
                if let Some(reason) = pin {
                    self.pins.begin(reason);
                }
            }
        }
        if let Some(schema) = &outcome.schema
            && self.wanted.schema() != Some(schema)
        {
            self.set_wanted(self.wanted.with_schema(Some(schema)));
            conn.set_state(Arc::clone(&self.wanted));
        }
        // Servers say so of each stored function and of some views, whatever they do. Those of a read are known to leave
        // nothing behind, or are not shown: then a reset is enough, since nobody has asked for what is left.
        let reads = matches!(class.cause, Cause::None | Cause::View | Cause::Definitions);
        let called = outcome.state_changed
            && reads
            && routing::pin_for(class).is_none()
            && (self.reading.is_some() || !(was_in_transaction || in_transaction));
        let unexplained = outcome.state_changed && !understood && !called;
        self.update_pin(class, unexplained, failed);
        if next_transaction && was_in_transaction && !in_transaction {
            // It was for the transaction that has ended.
            self.pins.end(PinReason::NextTransaction);
        }
        let freed = self.end_pins(&conn);
        if freed {
            conn.mark_worn();
        }
        self.note_writes(class, &outcome, in_transaction);
        if !in_transaction {
            // The relay has seen to the cache before the client could know.
            self.written = None;
        }
        if outcome.last_insert_id != 0 {
            self.last_insert_id = outcome.last_insert_id;
            conn.set_insert_id(outcome.last_insert_id);
        }
        // An error does not say whether it opened a transaction, or left one open.
        let unsure = failed && !self.status.contains(StatusFlags::AUTOCOMMIT);
        self.reading = match in_transaction || unsure {
            true => Reading::after(self.reading, class, opens_reading),
            false => None,
        };
        let bound = !self.pins.is_empty() || in_transaction || unsure;
        self.keep_recording(in_transaction || unsure);
        if let Some(flow) = parting(&mut conn, &outcome, bound) {
            return flow;
        }
        if class.facts.contains(Facts::RELEASE)
            || (!self.pins.is_empty() && !in_transaction && !self.is_primary(conn.server()))
        {
            // The server ends the connection, or a read has tied the session to a replica,
            // where nothing can be written.
            conn.condemn();
            return if bound { Flow::End } else { Flow::Continue };
        }
        if bound {
            conn.mark_soiled();
            self.hold(conn);
            return Flow::Continue;
        }
        conn.mark_clean();
        if called && !freed {
            conn.mark_soiled();
            return Flow::Continue;
        }
        let leaves_answers = failed
            || (freed && self.counts.is_none())
            || outcome.warnings > 0
            || (matches!(class.kind, Kind::Read | Kind::Show) && self.counts.is_none())
            || class.kind == Kind::Write
            || class
                .facts
                .intersects(Facts::CALC_FOUND_ROWS | Facts::PREVIOUS_STATEMENT)
            || (self.last_insert_id != 0 && !class.is_replica_read());
        if leaves_answers {
            self.keep(conn, true);
        } else if let Some(kept) = &mut self.kept {
            kept.previous = false;
        }
        Flow::Continue
    }

    /// Follows what the connection holds for the session.
    fn note_holding(&mut self, class: &StatementClass, effect: Effect, failed: bool) -> Effect {
        let (holding, rest) = match effect {
            Effect::Holds(holding) => (Some(holding), Effect::None),
            effect => (None, effect),
        };
        if class.facts.intersects(HOLDS) || self.pins.follows() {
            let schema = self.wanted.schema();
            self.pins.held().note(class, holding, schema, failed);
        }
        rest
    }

    /// Ends the pins of which nothing is left on the connection; whether none is left then of those that there were.
    pub(super) fn end_pins(&mut self, conn: &PooledConn) -> bool {
        if self.pins.is_empty() {
            self.pins.clear();
            return false;
        }
        if !conn.holds_any_prepared() {
            self.pins.end(PinReason::Cursor);
            self.pins.end(PinReason::LongData);
        }
        self.pins.end_what_is_over();
        self.pins.is_empty()
    }

    /// Lets the connection go that the session holds if nothing of it is left there.
    pub(super) fn loosen(&mut self) {
        let Some(mut conn) = self.held.take() else {
            return;
        };
        let freed = self.end_pins(&conn);
        if freed {
            conn.mark_worn();
        }
        let open = self.is_bound() || !self.status.contains(StatusFlags::AUTOCOMMIT);
        if open || !freed {
            self.held = Some(conn);
            return;
        }
        self.handle().release();
        conn.mark_clean();
        self.keep(conn, true);
    }

    /// Remembers within a transaction that it may have written; the relay has seen to the rest.
    fn note_writes(&mut self, class: &StatementClass, outcome: &Outcome, in_transaction: bool) {
        let wrote = may_have_written(class, outcome);
        self.wrote_in_transaction = in_transaction && (self.wrote_in_transaction || wrote);
    }

    /// What FOUND_ROWS() and ROW_COUNT() give behind a statement; None if only its connection knows.
    fn counts_after(
        &self,
        class: &StatementClass,
        outcome: &Outcome,
        effect: &Effect,
    ) -> Option<Counts> {
        let counted = !class.facts.intersects(
            Facts::MULTI
                .union(Facts::CALC_FOUND_ROWS)
                .union(Facts::INTO)
                .union(Facts::UNCOUNTED)
                .union(Facts::CODE_IN_COMMENT)
                .union(Facts::DOUBTFUL),
        ) && class.cause != Cause::Large
            && !matches!(effect, Effect::Pin(_) | Effect::AssignHere(_));
        match class.kind {
            _ if outcome.error.is_some() => None,
            Kind::Read if counted => Some(Counts {
                found_rows: outcome.rows,
                row_count: -1,
            }),
            Kind::Set if !matches!(effect, Effect::Assign(_)) => None,
            Kind::Set | Kind::Begin { .. } | Kind::Commit | Kind::Rollback => {
                let before = self.counts?;
                Some(Counts {
                    row_count: 0,
                    ..before
                })
            }
            _ => None,
        }
    }

    pub(super) fn is_primary(&self, server: ServerId) -> bool {
        self.context.topology.borrow().primary == Some(server)
    }

    /// A statement was prepared: nothing ran, so that questions about the statement before are still to be answered.
    pub(super) fn finish_preparation(
        &mut self,
        class: &StatementClass,
        finished: Finished,
    ) -> Flow {
        let Finished { mut conn, outcome } = finished;
        conn.mark_idle(&self.context.buffers);
        if let Some(status) = outcome.status {
            self.status = status.difference(PASSING);
        }
        // A statement that failed before may have opened a transaction here, which no flag tells.
        let unsure = conn.is_soiled() && !self.status.contains(StatusFlags::AUTOCOMMIT);
        let bound = self.is_bound() || unsure;
        if let Some(flow) = parting(&mut conn, &outcome, bound) {
            return flow;
        }
        if bound {
            conn.mark_soiled();
            self.hold(conn);
        } else if conn.was_held() {
            self.keep(conn, class.facts.contains(Facts::PREVIOUS_STATEMENT));
        }
        Flow::Continue
    }

    fn keep(&mut self, mut conn: PooledConn, previous: bool) {
        let server = conn.server();
        if self.kept.is_some_and(|kept| kept.server != server) {
            self.release_kept();
        }
        conn.hold_for(self.handle().id());
        self.kept = Some(Kept { server, previous });
    }

    /// The session's state after a statement that succeeded, and why it is not all that the connection has; None if it is as
    /// before.
    fn changed(&self, effect: Effect) -> Option<(SessionState, Option<PinReason>)> {
        let state = match effect {
            Effect::None | Effect::Pin(_) | Effect::Holds(_) => return None,
            Effect::Schema(name) => self.wanted.with_schema(Some(&name)),
            Effect::MultiStatements(on) => self.wanted.with_multi_statements(on),
            Effect::Assign(assignments) | Effect::AssignHere(assignments) => {
                return Some(self.assigned(assignments));
            }
        };
        Some((state, None))
    }

    fn assigned(&self, assignments: Vec<Assignment>) -> (SessionState, Option<PinReason>) {
        let mut state = SessionState::clone(&self.wanted);
        let mut pin = None;
        for assignment in assignments {
            if let Assignment::UserVariable { name, value } = &assignment {
                match state.with_user_variable(name, value) {
                    Some(changed) => state = changed,
                    None => pin = Some(PinReason::UserVariable),
                }
            }
            state = assigned(state, assignment);
        }
        // Numbers too have the collation of the moment at which they were set.
        if state.user_variables() > 0 && !state.reads_text_as(&self.wanted) {
            pin = Some(PinReason::UserVariable);
        }
        (state, pin)
    }

    /// Whether user variables have known values that a statement may change without a word.
    pub(super) fn may_change_variables(&self, class: &StatementClass) -> bool {
        self.wanted.user_variables() > 0 && routing::may_change_variables(class)
    }

    /// Changes the state that statements must find, and how their text is read.
    pub(super) fn set_wanted(&mut self, state: SessionState) {
        if state.schema() != self.wanted.schema() {
            self.handle().set_schema(state.schema());
        }
        self.wanted = Arc::new(state);
        self.handle()
            .set_patience(self.wanted.wait_timeout().unwrap_or(self.wait_timeout));
        self.dialect = self.dialect_of(&self.wanted);
        self.in_system_schema = self.wanted.schema().is_some_and(is_system_schema);
    }

    fn update_pin(&mut self, class: &StatementClass, unexplained: bool, failed: bool) {
        let reason = match routing::pin_for(class) {
            // One of its parts may have opened a transaction before another one failed.
            None if failed && class.kind == Kind::Multi => Some(PinReason::MultiStatement),
            None if unexplained && class.kind != Kind::Set => Some(PinReason::NotUnderstood),
            None if self.may_change_variables(class) => Some(PinReason::UserVariable),
            reason => reason,
        };
        if let Some(reason) = reason {
            self.pins.begin(reason);
        }
    }
}

fn sets_user_variable(effect: &Effect) -> bool {
    let is_one = |assignment: &Assignment| matches!(assignment, Assignment::UserVariable { .. });
    matches!(effect, Effect::Assign(assignments) if assignments.iter().any(is_one))
}

/// Gives up a connection that its server closes after this answer: how the session goes on, which may be bound to it.
/// None if the connection stays.
fn parting(conn: &mut PooledConn, outcome: &Outcome, bound: bool) -> Option<Flow> {
    let error = outcome.error?;
    let too_large = error == NET_PACKET_TOO_LARGE;
    if !too_large && !is_connection_error(error) {
        return None;
    }
    conn.condemn();
    // With the connection its state is gone. A client that has sent too much expects to be left.
    Some(if too_large || bound {
        Flow::End
    } else {
        Flow::Continue
    })
}

/// Whether a statement may have changed data, given its answer.
pub(super) fn may_have_written(class: &StatementClass, outcome: &Outcome) -> bool {
    class.facts.contains(Facts::MAY_WRITE)
        && (class.kind != Kind::Write || outcome.affected_rows > 0 || outcome.untracked)
}

/// With this the server ends the connection of a client that has sent too much.
const NET_PACKET_TOO_LARGE: u16 = 1153;

/// Errors by which a server says that it ends the connection, not that the statement failed.
pub(super) fn is_connection_error(code: u16) -> bool {
    // ER_SERVER_SHUTDOWN, ER_NET_PACKETS_OUT_OF_ORDER, ER_NET_READ_ERROR to ER_NET_WRITE_INTERRUPTED, ER_CONNECTION_KILLED,
    // ER_CLIENT_INTERACTION_TIMEOUT
    matches!(code, 1053 | 1156 | 1158..=1161 | 1927 | 4031)
}

pub(super) fn is_system_schema(name: &[u8]) -> bool {
    let system: [&[u8]; 4] = [
        b"mysql",
        b"information_schema",
        b"performance_schema",
        b"sys",
    ];
    system
        .iter()
        .any(|schema| name.eq_ignore_ascii_case(schema))
}

/// Flags that speak of one answer, not of the session.
const PASSING: StatusFlags = StatusFlags::MORE_RESULTS
    .union(StatusFlags::CURSOR_EXISTS)
    .union(StatusFlags::LAST_ROW_SENT)
    .union(StatusFlags::DB_DROPPED)
    .union(StatusFlags::METADATA_CHANGED)
    .union(StatusFlags::QUERY_WAS_SLOW)
    .union(StatusFlags::NO_GOOD_INDEX_USED)
    .union(StatusFlags::NO_INDEX_USED)
    .union(StatusFlags::PS_OUT_PARAMS)
    .union(StatusFlags::SESSION_STATE_CHANGED);

fn assigned(state: SessionState, assignment: Assignment) -> SessionState {
    match assignment {
        Assignment::Variable { name, value } => {
            // The other spelling of the same variable must not come after it.
            let canonical = variables::find(name.as_bytes()).map(|variable| variable.canonical);
            let other = canonical.and_then(|canonical| state.spelling_of(canonical, &name));
            let state = match other {
                Some(other) => state.with_variable(&other, "DEFAULT"),
                None => state,
            };
            state.with_variable(&name, &String::from_utf8_lossy(&value))
        }
        Assignment::Autocommit(on) => state.with_variable("autocommit", if on { "1" } else { "0" }),
        Assignment::Names { charset, collation } => state.with_charset(Charset::Names {
            charset: unquoted(&charset).into(),
            collation: collation.map(|name| unquoted(&name).into()),
        }),
        // What that is depends on the schema at that moment: no other connection is ever given it.
        Assignment::CharacterSet(charset) => {
            let charset = String::from_utf8_lossy(&charset);
            state
                .with_variable("character_set_client", &charset)
                .with_variable("character_set_results", &charset)
                .with_variable("collation_connection", "@@collation_database")
        }
        Assignment::NextTransaction | Assignment::ServerWide | Assignment::UserVariable { .. } => {
            state
        }
    }
}

fn unquoted(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.trim_matches(['\'', '"', '`']).to_owned()
}
