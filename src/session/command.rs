//! The commands of a session, one arm each.

use std::sync::Arc;

use bytes::BytesMut;
use dbproxy_proto::{
    ProtocolError,
    command::{Command, Execute, code, put_command},
    packet::HEADER_LEN,
    response::Expect,
};

use super::{
    Flow, Session,
    finish::Effect,
    prepared::{Statement, unknown},
    statement::Request,
};
use crate::{
    backend::StatementKey,
    error::{Answer, Error},
    routing::{self, PinReason},
    sql::{self, Cause, Facts, Kind, StatementClass, kill::Scope, set::Assignment},
};

/// A command that goes to the server with another text than the client's.
struct Changed {
    packet: BytesMut,
    text: Vec<u8>,
}

impl Changed {
    fn parts(&self) -> (&[u8], &[u8]) {
        (&self.packet, &self.text)
    }
}

impl Session {
    /// Carries out one command. `packet` is the whole of it, header included.
    pub(super) async fn dispatch(&mut self, packet: &[u8]) -> Result<Flow, Error> {
        let payload = packet.get(HEADER_LEN..).unwrap_or_default();
        let command = match Command::parse(payload, self.capabilities) {
            Ok(command) => command,
            Err(error) => return self.malformed(&error).await,
        };
        match command {
            Command::Query(text) => self.query(packet, text).await,
            Command::StmtExecute(execute) => self.execute_prepared(execute).await,
            Command::StmtPrepare(text) => Box::pin(self.prepare(packet, text)).await,
            Command::Ping if self.held.is_none() => self.reply_ok().await,
            Command::Quit => Ok(Flow::End),
            other => Box::pin(self.dispatch_rare(packet, other)).await,
        }
    }

    async fn dispatch_rare(&mut self, packet: &[u8], command: Command<'_>) -> Result<Flow, Error> {
        match command {
            Command::InitDb(name) => {
                let effect = Effect::Schema(name.to_vec());
                self.forward(packet, Expect::Status, &self.of_connection(), effect)
                    .await
            }
            Command::SetOption(option) => {
                let effect = Effect::MultiStatements(option == 0);
                self.forward(packet, Expect::Status, &self.of_connection(), effect)
                    .await
            }
            Command::StmtClose(id) => {
                self.prepared.remove(id);
                Ok(Flow::Continue)
            }
            Command::StmtReset(id) => self.reset_statement(id).await,
            Command::StmtSendLongData { statement, .. } => {
                self.send_long_data(packet, statement).await
            }
            Command::StmtFetch { statement, .. } => self.fetch(packet, statement).await,
            Command::ResetConnection => {
                self.reset();
                self.reply_ok().await
            }
            Command::ChangeUser(request) => self.change_user(request).await,
            Command::ProcessKill(id) => self.kill(Scope::Connection, u64::from(id)).await,
            Command::Ping | Command::Debug | Command::Refresh(_) => {
                self.forward(packet, Expect::Status, &self.of_connection(), Effect::None)
                    .await
            }
            Command::Statistics => {
                self.forward(
                    packet,
                    Expect::Statistics,
                    &self.of_connection(),
                    Effect::None,
                )
                .await
            }
            Command::ProcessInfo => {
                self.forward(packet, Expect::Query, &self.of_connection(), Effect::None)
                    .await
            }
            Command::FieldList { .. } => {
                self.forward(
                    packet,
                    Expect::FieldList,
                    &self.of_connection(),
                    Effect::None,
                )
                .await
            }
            Command::Other { .. }
            | Command::Quit
            | Command::Query(_)
            | Command::StmtPrepare(_)
            | Command::StmtExecute(_) => {
                self.reply_error(&Answer::new(1047, b"08S01", "Unknown command"))
                    .await
            }
        }
    }

    async fn malformed(&mut self, error: &ProtocolError) -> Result<Flow, Error> {
        self.reply_error(&Answer::new(
            1835,
            b"HY000",
            format!("Malformed communication packet: {error}"),
        ))
        .await
    }

    /// The class of a command that is about the connection and goes to the primary.
    pub(super) fn of_connection(&self) -> StatementClass {
        sql::classify(b"SHOW STATUS", self.dialect)
    }

    pub(super) async fn forward(
        &mut self,
        packet: &[u8],
        expect: Expect,
        class: &StatementClass,
        effect: Effect,
    ) -> Result<Flow, Error> {
        if let Some(finished) = self
            .execute(class, Request::Forward { packet, expect })
            .await?
        {
            return Ok(self.finish(class, finished, effect));
        }
        Ok(Flow::Continue)
    }

    fn classify(&self, text: &[u8]) -> StatementClass {
        let mut class = sql::classify(text, self.dialect);
        if self.in_system_schema && class.is_replica_read() {
            class.cause = Cause::SystemSchema;
        }
        class
    }

    async fn query(&mut self, packet: &[u8], text: &[u8]) -> Result<Flow, Error> {
        let class = self.classify(text);
        let changed = self.with_connection_id(&class, code::QUERY, text);
        let (packet, text) = changed.as_ref().map_or((packet, text), Changed::parts);
        let effect = match class.kind {
            Kind::Read | Kind::Write => Effect::None,
            _ if class.facts.contains(Facts::KILL) || hides_kill(&class, text) => {
                if let Some(kill) = sql::kill::parse(text, self.dialect) {
                    return Box::pin(self.kill(kill.scope, kill.id)).await;
                }
                // The server would take the id for one of its own.
                let text = "This version of dbproxy doesn't yet support 'KILL of anything but a connection id'";
                return self.reply_error(&Answer::new(1235, b"42000", text)).await;
            }
            _ => self.effect_of(&class, text),
        };
        let request = Request::Forward {
            packet,
            expect: Expect::Query,
        };
        match self.execute(&class, request).await? {
            Some(finished) => {
                let flow = self.finish(&class, finished, effect);
                let released = class.facts.contains(Facts::RELEASE);
                Ok(if released { Flow::End } else { flow })
            }
            None => Ok(Flow::Continue),
        }
    }

    /// The command with the id that the client knows in place of CONNECTION_ID(); None if it stays as it is.
    fn with_connection_id(&self, class: &StatementClass, code: u8, text: &[u8]) -> Option<Changed> {
        let asks = Facts::CONNECTION.union(Facts::SYSTEM_VARIABLE);
        // There it is compared with ids that are the server's own: IS_USED_LOCK(), the list of processes.
        let compares = Facts::NAMED_LOCK.union(Facts::SYSTEM_SCHEMA);
        if !class.facts.intersects(asks) || class.facts.intersects(compares) {
            return None;
        }
        let text = sql::with_connection_id(text, self.dialect, self.handle().id())?;
        let mut packet = BytesMut::new();
        put_command(&mut packet, code, &text);
        Some(Changed { packet, text })
    }

    /// What the statement changes in the session if it succeeds.
    pub(super) fn effect_of(&self, class: &StatementClass, text: &[u8]) -> Effect {
        match class.kind {
            Kind::Set => {
                let assignments = sql::set::parse(text, self.dialect);
                match routing::pin_for_set(assignments.as_deref()) {
                    None if !assignments.iter().flatten().all(can_be_repeated) => {
                        Effect::Pin(PinReason::Set)
                    }
                    Some(reason) => Effect::Pin(reason),
                    None => assignments.map_or(Effect::Pin(PinReason::Set), Effect::Assign),
                }
            }
            Kind::Use => sql::use_schema(text, self.dialect).map_or(Effect::None, Effect::Schema),
            _ => Effect::None,
        }
    }

    async fn prepare(&mut self, packet: &[u8], text: &[u8]) -> Result<Flow, Error> {
        let Some(id) = self.prepared.next_id() else {
            let text =
                "Can't create more than max_prepared_stmt_count statements (current value: 16382)";
            return self.reply_error(&Answer::new(1461, b"42000", text)).await;
        };
        let class = self.classify(text);
        if class.kind == Kind::Kill {
            let text = "This command is not supported in the prepared statement protocol yet";
            return self.reply_error(&Answer::new(1295, b"HY000", text)).await;
        }
        let changed = self.with_connection_id(&class, code::STMT_PREPARE, text);
        let (packet, text) = changed.as_ref().map_or((packet, text), Changed::parts);
        let key = StatementKey::new(text, Arc::clone(&self.wanted));
        let request = Request::Prepare {
            packet,
            key: &key,
            id,
        };
        if let Some(finished) = self.execute(&class, request).await? {
            let prepared = finished.outcome.prepared;
            self.finish_preparation(&class, finished);
            if let Some(prepared) = prepared {
                let parameters = prepared.parameters;
                self.prepared.insert(
                    id,
                    Statement {
                        key,
                        class,
                        parameters,
                        types: Vec::new(),
                    },
                );
            }
        }
        Ok(Flow::Continue)
    }

    async fn execute_prepared(&mut self, execute: Execute<'_>) -> Result<Flow, Error> {
        let Some(statement) = self.prepared.find_mut(execute.statement) else {
            return self
                .reply_error(&unknown(execute.statement, "mysqld_stmt_execute"))
                .await;
        };
        match execute.parameters(usize::from(statement.parameters)) {
            Ok(parameters) => {
                if let Some(types) = parameters.types
                    && types != statement.types
                {
                    statement.types = types.to_vec();
                }
            }
            Err(error) => return self.malformed(&error).await,
        }
        let statement = statement.clone();
        let mut class = statement.class;
        if execute.flags != 0 {
            // A cursor lives on its connection.
            class.cause = Cause::ServerState;
        }
        let effect = match class.kind {
            _ if execute.flags != 0 => Effect::Pin(PinReason::Cursor),
            Kind::Read | Kind::Write => Effect::None,
            _ => self.effect_of(&class, statement.key.text()),
        };
        let request = Request::Execute {
            execute,
            statement: &statement,
        };
        if let Some(finished) = self.execute(&class, request).await? {
            return Ok(self.finish(&class, finished, effect));
        }
        Ok(Flow::Continue)
    }

    /// Forgets everything but the login, as COM_RESET_CONNECTION does.
    pub(super) fn reset(&mut self) {
        self.leave_connections();
        let schema = self.wanted.schema().map(<[u8]>::to_vec);
        self.set_wanted(self.initial.with_schema(schema.as_deref()));
        self.status = super::login::initial_status(self.base);
    }

    /// Gives back what the session holds; its connections are reset where they need it.
    pub(super) fn leave_connections(&mut self) {
        self.pin = None;
        // Soiled: it is reset on its way to the pool.
        self.held = None;
        self.release_kept();
        self.prepared.clear();
        self.last_insert_id = 0;
    }
}

/// Whether a statement that runs another one, given as text, may run a KILL.
fn hides_kill(class: &StatementClass, text: &[u8]) -> bool {
    let is_word =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    (class.kind == Kind::Compound || class.facts.contains(Facts::TEXT_PREPARE))
        && text.windows(4).enumerate().any(|(at, word)| {
            word.eq_ignore_ascii_case(b"kill")
                && !is_word(at.checked_sub(1).and_then(|before| text.get(before)))
                && !is_word(text.get(at + 4))
        })
}

/// Whether an assignment has the same meaning on a connection that has seen another history.
fn can_be_repeated(assignment: &Assignment) -> bool {
    match assignment {
        // A number stands for modes that only the server knows how to spell.
        Assignment::Variable { name, value } if name == "sql_mode" => {
            !value.first().is_some_and(u8::is_ascii_digit)
        }
        _ => true,
    }
}
