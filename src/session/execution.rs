//! Preparing statements, and running what is prepared.

use std::sync::Arc;

use bytes::BytesMut;
use dbproxy_proto::{
    ProtocolError,
    capability::StatusFlags,
    command::{BulkExecute, Execute, execute_flag, first_types, put_bulk_execute, put_execute},
    response::Expect,
};

use super::{
    Flow, Session,
    administration::refused,
    command::Changed,
    finish::{Effect, HOLDS},
    prepared::{Ahead, BeforeRules, Statement},
    statement::{Finished, Request},
};
use crate::{
    backend::StatementKey,
    error::{Answer, Error},
    routing::PinReason,
    sql::{self, Cause, Facts, Hint, Kind, StatementClass},
};

/// One execution of a prepared statement, as the client asks for it.
#[derive(Clone, Copy)]
pub(super) enum Execution<'a> {
    /// With one row of parameters.
    Once(Execute<'a>),
    /// With many.
    Bulk(BulkExecute<'a>),
}

impl<'a> Execution<'a> {
    pub(super) fn statement(&self) -> u32 {
        match self {
            Self::Once(execute) => execute.statement,
            Self::Bulk(execute) => execute.statement,
        }
    }

    /// Bytes that it takes at most as a packet, without types that it does not bring.
    pub(super) fn len(&self) -> usize {
        const HEAD: usize = 20;
        HEAD + match self {
            Self::Once(execute) => execute.body.len(),
            Self::Bulk(execute) => execute.body.len(),
        }
    }

    /// What the answer looks like.
    pub(super) fn expect(&self) -> Expect {
        match self {
            Self::Once(execute) => execute.expect(),
            Self::Bulk(_) => Expect::Execute,
        }
    }

    pub(super) fn wants_cursor(&self) -> bool {
        matches!(self, Self::Once(execute) if execute.flags & execute_flag::CURSOR != 0)
    }

    /// The parameter types that it brings along for a statement with `count` parameters.
    pub(super) fn types(&self, count: usize) -> Result<Option<&'a [u8]>, ProtocolError> {
        Ok(match self {
            Self::Once(execute) => execute.parameters(count)?.types,
            Self::Bulk(execute) => execute.split(count)?.0,
        })
    }

    /// Whether its parameters have names.
    pub(super) fn is_named(&self) -> bool {
        matches!(self, Self::Once(execute) if execute.named)
    }

    /// Whether nobody has said of what types the parameters are. It must not reach a server: MariaDB ends itself for it.
    pub(super) fn lacks_types(&self, statement: &Statement) -> bool {
        let count = usize::from(statement.parameters);
        match self {
            Self::Once(execute) => execute.parameters(count).is_ok_and(|parameters| {
                let count = parameters.count.unwrap_or(count);
                count > 0
                    && parameters.types.is_none()
                    && first_types(&statement.types, count, execute.named).is_none()
            }),
            Self::Bulk(execute) => {
                let split = execute.split(count);
                count > 0
                    && statement.types.is_empty()
                    && split.is_ok_and(|(types, _)| types.is_none())
            }
        }
    }

    /// The types that the client sent with an earlier execution, if this one needs them and brings none, and how many bytes of
    /// it come behind them.
    ///
    /// # Errors
    /// An execution too short for its parameters.
    pub(super) fn types_to_add<'s>(
        &self,
        statement: &'s Statement,
    ) -> Result<Option<(usize, &'s [u8])>, ProtocolError> {
        let count = usize::from(statement.parameters);
        Ok(match self {
            Self::Once(execute) => {
                let parameters = execute.parameters(count)?;
                let count = parameters.count.unwrap_or(count);
                let known = first_types(&statement.types, count, execute.named);
                known
                    .filter(|types| !types.is_empty() && parameters.types.is_none())
                    .map(|types| (parameters.values.len(), types))
            }
            Self::Bulk(execute) => {
                let (types, rows) = execute.split(count)?;
                types
                    .is_none()
                    .then_some((rows.len(), &*statement.types))
                    .filter(|(_, types)| !types.is_empty())
            }
        })
    }

    /// The value of the first parameter, if it is a number, of a statement that has but one.
    pub(super) fn number(&self, types: &[u8]) -> Option<u64> {
        let Self::Once(execute) = self else {
            return None;
        };
        let values = execute.parameters(1).ok()?.values;
        match types.first()? {
            0x01 => values.first().map(|byte| u64::from(*byte)),
            0x02 => Some(u16::from_le_bytes(*values.first_chunk()?).into()),
            0x03 | 0x09 => Some(u32::from_le_bytes(*values.first_chunk()?).into()),
            0x08 => Some(u64::from_le_bytes(*values.first_chunk()?)),
            // Text of a length that one byte tells.
            _ => std::str::from_utf8(values.get(1..)?).ok()?.parse().ok(),
        }
    }

    /// Appends the command for the server's statement `id`, with the types that the client sent last.
    pub(super) fn put(
        &self,
        out: &mut BytesMut,
        id: u32,
        statement: &Statement,
    ) -> Result<(), ProtocolError> {
        let count = usize::from(statement.parameters);
        match self {
            Self::Once(execute) => {
                let parameters = execute.parameters(count)?;
                let known = || {
                    let count = parameters.count.unwrap_or(count);
                    first_types(&statement.types, count, execute.named)
                };
                let types = parameters.types.or_else(known);
                put_execute(out, &mut 0, id, execute, &parameters, types);
            }
            Self::Bulk(execute) => {
                let (types, rows) = execute.split(count)?;
                let types = types.unwrap_or(&statement.types);
                put_bulk_execute(out, &mut 0, id, execute.flags, types, rows);
            }
        }
        Ok(())
    }
}

/// The answer to an execution whose parameters have no types.
pub(super) fn untyped() -> Answer {
    let text = "Incorrect arguments to mysqld_stmt_execute";
    Answer::new(1210, b"HY000", text)
}

/// The answer to an execution whose types cannot be remembered.
pub(super) fn no_room_for_types() -> Answer {
    let text = "dbproxy: the prepared statements of this session and the names of their parameters take more than 16 MiB; \
                close some of them";
    Answer::new(1461, b"42000", text)
}

/// The answer to the preparation of what the proxy answers itself. Clients that know the number send it as text then.
fn text_only() -> Answer {
    let text = "This command is not supported in the prepared statement protocol yet: dbproxy answers EXPLAIN ROUTE, \
                SHOW DBPROXY ..., SET @dbproxy_..., SELECT @@dbproxy_... and ROUTER SET as text only";
    Answer::new(1295, b"HY000", text)
}

/// What is known of a statement before it is prepared.
struct Unprepared {
    id: u32,
    class: StatementClass,
    before_rules: Option<Arc<BeforeRules>>,
    /// It is prepared on another cluster.
    elsewhere: bool,
}

/// The answer to an execution of which a parameter's value was sent ahead, and nowhere to.
pub(super) fn lacks_values() -> Answer {
    let text = "dbproxy: this statement was prepared on another cluster than the session's own, where no parameter's value can \
                be sent ahead (COM_STMT_SEND_LONG_DATA): send it with the execution";
    Answer::new(1105, b"HY000", text)
}

impl Session {
    /// Whether a statement is none that a server is to see.
    pub(super) fn is_for_the_proxy(&self, class: &StatementClass, text: &[u8]) -> bool {
        match class.kind {
            Kind::Set => sql::setting::apply(text, self.dialect, self.settings).is_some(),
            Kind::Unknown => self.router_settings(text).is_some(),
            _ => self.inquiry(class, text).is_some(),
        }
    }

    pub(super) async fn prepare(&mut self, packet: &[u8], text: &[u8]) -> Result<Flow, Error> {
        self.prepared.forget_last();
        let Some(id) = self.prepared.next_id() else {
            let text =
                "Can't create more than max_prepared_stmt_count statements (current value: 16382)";
            return self.reply_error(&Answer::new(1461, b"42000", text)).await;
        };
        let mut text_class = self.classify(text);
        if text_class.hint == Hint::Unknown {
            self.note_unknown_hint(text);
        }
        let mut ruled = None;
        if self.has_rules() {
            match self.rule_preparation(packet, text, &text_class) {
                Ok(changed) => ruled = changed,
                Err(answer) => return self.reply_error(&answer).await,
            }
        }
        let before_rules = ruled.as_ref().map(|_| {
            let class = text_class;
            Arc::new(BeforeRules {
                text: text.into(),
                class,
            })
        });
        let (packet, text) = ruled.as_ref().map_or((packet, text), Changed::parts);
        if ruled.is_some() {
            text_class = self.classify(text);
        }
        if self.is_for_the_proxy(&text_class, text) {
            self.ruling = None;
            return self.reply_error(&text_only()).await;
        }
        if let Some(breach) = self.breach(&text_class, text) {
            self.ruling = None;
            return self.reply_error(&refused(breach)).await;
        }
        let departed = self.depart(text, &text_class, None, false).await;
        self.ruling = None;
        let home = match departed? {
            Ok(home) => home,
            Err(answer) => return self.reply_error(&answer).await,
        };
        if home.is_some() {
            text_class = self.classify(text);
        }
        let statement = Unprepared {
            id,
            class: text_class,
            before_rules,
            elsewhere: home.is_some(),
        };
        let flow = self.prepare_here(packet, text, statement).await;
        self.come_home(home);
        flow
    }

    async fn prepare_here(
        &mut self,
        packet: &[u8],
        text: &[u8],
        statement: Unprepared,
    ) -> Result<Flow, Error> {
        let id = statement.id;
        let class = self.look_up(statement.class, text, &self.wanted).await;
        let changed = self.with_connection_id(&class, packet, text);
        let (packet, text) = changed.as_ref().map_or((packet, text), Changed::parts);
        let state = match self.wanted.user_variables() {
            0 => Arc::clone(&self.wanted),
            // A text that names some is executed on this connection.
            _ => Arc::new(self.wanted.without_user_variables()),
        };
        let key = StatementKey::new(text, state);
        let key = self.prepared.own_copy(key);
        let request = Request::Prepare {
            packet,
            key: &key,
            id,
        };
        // Within a transaction on a replica it is prepared there: it may never run, and if it does, elsewhere. Nor is it
        // refused before it runs.
        let routed = if self.reading.is_some() || self.refuses(&class) {
            self.of_connection()
        } else {
            class
        };
        let Some(finished) = self.execute(&routed, request).await? else {
            return Ok(Flow::Continue);
        };
        let prepared = finished.outcome.prepared;
        if class.facts.contains(Facts::USER_VARIABLE) && self.reading.is_none() {
            // Servers keep the types that its variables have now, and make those already that it will set.
            self.pins.begin(PinReason::UserVariable);
        }
        let flow = self.finish_preparation(&class, finished);
        if let Some(prepared) = prepared {
            let parameters = prepared.parameters;
            self.prepared.insert(
                id,
                Statement {
                    key,
                    class: statement.class,
                    before_rules: statement.before_rules,
                    parameters,
                    types: Vec::new(),
                    ahead: match statement.elsewhere {
                        true => Ahead::Refused,
                        false => Ahead::Possible,
                    },
                },
            );
        }
        Ok(flow)
    }

    pub(super) async fn execute_prepared(
        &mut self,
        execution: Execution<'_>,
    ) -> Result<Flow, Error> {
        if self.has_rules() || self.left_answers_elsewhere() {
            return Box::pin(self.execute_under_rules(execution)).await;
        }
        self.run_prepared(execution).await
    }

    /// Executes a prepared statement, rules or not.
    pub(super) async fn run_prepared(&mut self, execution: Execution<'_>) -> Result<Flow, Error> {
        let id = execution.statement();
        if self.prepared.lacks_values(id) {
            return self.reply_error(&lacks_values()).await;
        }
        let Some(statement) = self.prepared.find(id) else {
            return self.unknown_statement(id, "mysqld_stmt_execute").await;
        };
        match execution.types(usize::from(statement.parameters)) {
            Ok(None) if execution.lacks_types(statement) => {
                return self.reply_error(&untyped()).await;
            }
            Ok(Some(types)) if !self.prepared.learn_types(id, types, execution.is_named()) => {
                return self.reply_error(&no_room_for_types()).await;
            }
            Ok(_) => {}
            Err(_) => return self.malformed().await,
        }
        let Some(statement) = self.prepared.find(id).cloned() else {
            return self.unknown_statement(id, "mysqld_stmt_execute").await;
        };
        if self.ruling.is_some()
            && let Some(flow) = Box::pin(self.execution_again(execution, &statement)).await?
        {
            return Ok(flow);
        }
        let dialect = self.dialect_of(statement.key.state());
        let statement = match self.with_counts(&statement.class, statement.key.text()) {
            Some(text) => statement.with_text(&text, dialect),
            None => statement,
        };
        let (class, effect) = self
            .begin_execution(&statement, execution.wants_cursor())
            .await?;
        if let Some(answer) = self.leave_replica_for(&class).await? {
            return self.reply_error(&answer).await;
        }
        let request = Request::Execute {
            execution,
            statement: &statement,
        };
        if class.kind == Kind::Kill {
            let kill = self.kill_statement(request, statement.key.text(), &class);
            return Box::pin(kill).await;
        }
        let Some(finished) = self.execute(&class, request).await? else {
            return Ok(Flow::Continue);
        };
        Ok(self.finish_execution(&class, finished, &statement.key, effect))
    }

    /// Readies the session for an execution: what that means, and what it changes if it succeeds.
    pub(super) async fn begin_execution(
        &mut self,
        statement: &Statement,
        wants_cursor: bool,
    ) -> Result<(StatementClass, Effect), Error> {
        let key = &statement.key;
        let mut class = self.look_up(statement.class, key.text(), key.state()).await;
        if self.concerns_trackers(&class, statement.key.text()) {
            Box::pin(self.untrack(&class)).await?;
        }
        if wants_cursor {
            // A cursor lives on its connection.
            class.cause = Cause::ServerState;
        }
        let effect = match class.kind {
            Kind::Read | Kind::Write if !class.facts.intersects(HOLDS) => Effect::None,
            _ => match self.effect_of(&class, key.text()) {
                // What its names mean was found when it was prepared.
                Effect::Holds(_)
                    if key.state().schema() != self.wanted.schema()
                        || !key.state().reads_text_as(&self.wanted) =>
                {
                    Effect::None
                }
                effect => effect,
            },
        };
        Ok((self.weighed(class, &effect), effect))
    }

    /// Takes over what a finished execution of the statement `key` changed.
    pub(super) fn finish_execution(
        &mut self,
        class: &StatementClass,
        mut finished: Finished,
        key: &StatementKey,
        mut effect: Effect,
    ) -> Flow {
        let status = finished.outcome.status.unwrap_or_default();
        let has_cursor = status.contains(StatusFlags::CURSOR_EXISTS);
        if has_cursor {
            effect = Effect::Pin(PinReason::Cursor);
        }
        if has_cursor || !self.pins.is_empty() {
            // Data that was sent ahead is gone, and so is the cursor before.
            finished.conn.hold_prepared(key, has_cursor);
        }
        self.finish(class, finished, effect)
    }
}
