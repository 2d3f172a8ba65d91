//! The commands of a session, one arm each.

use bytes::BytesMut;
use dbproxy_proto::{
    capability::StatusFlags,
    command::{Command, code},
    packet::{HEADER_LEN, put_packet},
    response::Expect,
};

use super::{
    Flow, Session,
    administration::refused,
    execution::Execution,
    finish::{Effect, HOLDS},
    pipe,
    relay::News,
    statement::Request,
};
use crate::{
    backend::Charset,
    error::{Answer, Error},
    routing::{self, PinReason},
    sql::{
        self, Cause, Facts, Hint, Kind, StatementClass,
        administration::Harm,
        kill::Scope,
        set::Assignment,
        setting::{Change, Settings, Wrong},
    },
    topology::Flavor,
};

/// A command that goes to the server with another text than the client's.
pub(super) struct Changed {
    packet: BytesMut,
    text: Vec<u8>,
}

impl Changed {
    /// `packet`, whose text has `before` bytes, with this one; None if it is shorter than that.
    pub(super) fn new(packet: &[u8], before: usize, text: Vec<u8>) -> Option<Self> {
        // The command's code, and query attributes.
        let front = packet.len().checked_sub(before)?;
        let front = packet.get(HEADER_LEN..front)?;
        let mut packet = BytesMut::new();
        put_packet(&mut packet, &mut 0, &[front, &text].concat());
        Some(Self { packet, text })
    }

    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        (&self.packet, &self.text)
    }
}

impl Session {
    /// Carries out one command. `packet` is the whole of it, header included.
    pub(super) async fn dispatch(&mut self, packet: &[u8]) -> Result<Flow, Error> {
        let payload = packet.get(HEADER_LEN..).unwrap_or_default();
        let Ok(command) = Command::parse(payload, self.capabilities) else {
            return Box::pin(self.dispatch_malformed(packet, payload)).await;
        };
        if self.has_loss()
            && let Some(flow) = Box::pin(self.tell_loss(&command)).await?
        {
            return Ok(flow);
        }
        match command {
            Command::Query(text) => self.query(packet, text).await,
            Command::StmtExecute(execute) => self.execute_prepared(Execution::Once(execute)).await,
            Command::Ping if self.has_rested() => {
                self.begin_again();
                self.reply_ok().await
            }
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
            Command::StmtBulkExecute(execute) => {
                self.execute_prepared(Execution::Bulk(execute)).await
            }
            Command::StmtClose(id) => {
                self.close_statement(id);
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
            Command::ProcessKill(id) => match self.context.registry.find(id) {
                Some(victim) if self.servers_know_process_kill() => {
                    self.kill(Scope::Connection, &victim).await
                }
                // A server that does not know the command says so, one that does that there is no such thread.
                _ => {
                    self.forward(packet, Expect::Status, &self.of_server(), Effect::None)
                        .await
                }
            },
            Command::Ping => {
                self.forward(packet, Expect::Status, &self.of_connection(), Effect::None)
                    .await
            }
            Command::Refresh(flags)
                if flags & RESETS != 0
                    && let Some(answer) = self.forbidden("COM_REFRESH", Harm::Logs) =>
            {
                self.reply_error(&answer).await
            }
            Command::Other {
                code: code::SHUTDOWN,
                ..
            } if let Some(answer) = self.forbidden("COM_SHUTDOWN", Harm::Server) => {
                self.reply_error(&answer).await
            }
            Command::Debug | Command::Refresh(_) => {
                self.forward(packet, Expect::Status, &self.of_server(), Effect::None)
                    .await
            }
            Command::Statistics => {
                self.forward(packet, Expect::Statistics, &self.of_server(), Effect::None)
                    .await
            }
            Command::ProcessInfo => {
                let class = sql::classify(b"SHOW PROCESSLIST", self.dialect);
                self.forward(packet, Expect::Query, &class, Effect::None)
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
            Command::Other { code, .. } if pipe::begins(code) => self.begin_pipe(packet).await,
            Command::Other { code, .. } => {
                let effect = match code {
                    code::REGISTER_SLAVE => Effect::Pin(PinReason::Replication),
                    _ => Effect::None,
                };
                // Whatever it is: the server says what it thinks of it.
                self.forward(packet, Expect::Status, &self.of_server(), effect)
                    .await
            }
            Command::Quit => Ok(Flow::End),
            Command::Query(text) => self.query(packet, text).await,
            Command::StmtPrepare(text) => self.prepare(packet, text).await,
            Command::StmtExecute(execute) => self.execute_prepared(Execution::Once(execute)).await,
        }
    }

    /// Whether COM_PROCESS_KILL is a command: MySQL 8.4 has lost it.
    fn servers_know_process_kill(&self) -> bool {
        let topology = self.context.topology.borrow();
        let version = topology.greeting.as_ref().map(|greeting| &greeting.version);
        version.is_none_or(|version| version.flavor == Flavor::MariaDb || version.number() < 80_400)
    }

    /// A command that is cut short is answered as servers do it, of which some do not mind.
    async fn dispatch_malformed(&mut self, packet: &[u8], payload: &[u8]) -> Result<Flow, Error> {
        let class = self.of_server();
        match payload.first().copied() {
            None => {
                self.reply_error(&Answer::new(1047, b"08S01", "Unknown command"))
                    .await
            }
            Some(code::FIELD_LIST) => {
                self.forward(packet, Expect::FieldList, &class, Effect::None)
                    .await
            }
            Some(code::REFRESH) => {
                self.forward(packet, Expect::Status, &class, Effect::None)
                    .await
            }
            Some(code::PROCESS_KILL) if !self.base.maria => {
                self.forward(packet, Expect::Status, &class, Effect::None)
                    .await
            }
            Some(code::STMT_SEND_LONG_DATA | code::STMT_CLOSE) if self.base.maria => {
                Ok(Flow::Continue)
            }
            Some(_) => self.malformed().await,
        }
    }

    pub(super) async fn malformed(&mut self) -> Result<Flow, Error> {
        let text = if self.base.maria {
            "Malformed communication packet"
        } else {
            "Malformed communication packet."
        };
        self.reply_error(&Answer::new(1835, b"HY000", text)).await
    }

    /// The class of a command that is about the connection; without one it goes to the primary.
    pub(super) fn of_connection(&self) -> StatementClass {
        sql::classify(b"", self.dialect)
    }

    /// The class of a command that is about the server, which is the primary.
    pub(super) fn of_server(&self) -> StatementClass {
        sql::classify(b"SHOW STATUS", self.dialect)
    }

    pub(super) async fn forward(
        &mut self,
        packet: &[u8],
        expect: Expect,
        class: &StatementClass,
        effect: Effect,
    ) -> Result<Flow, Error> {
        if let Some(answer) = self.leave_replica_for(class).await? {
            return self.reply_error(&answer).await;
        }
        if let Some(finished) = self
            .execute(class, Request::Forward { packet, expect })
            .await?
        {
            return Ok(self.finish(class, finished, effect));
        }
        Ok(Flow::Continue)
    }

    pub(super) fn classify(&self, text: &[u8]) -> StatementClass {
        let mut class = sql::classify(text, self.dialect);
        if self.in_system_schema && class.is_replica_read() {
            class.cause = Cause::SystemSchema;
        }
        class
    }

    async fn query(&mut self, packet: &[u8], text: &[u8]) -> Result<Flow, Error> {
        let class = self.classify(text);
        if class.hint == Hint::Unknown {
            self.note_unknown_hint(text);
        }
        if self.has_rules() || self.left_answers_elsewhere() {
            return Box::pin(self.query_under_rules(packet, text, class)).await;
        }
        self.run_query(packet, text, class).await
    }

    /// Runs a text query, rules or not.
    pub(super) async fn run_query(
        &mut self,
        packet: &[u8],
        text: &[u8],
        class: StatementClass,
    ) -> Result<Flow, Error> {
        if let Some(inquiry) = self.inquiry(&class, text) {
            return Box::pin(self.answer(inquiry, text)).await;
        }
        let counted = self.with_counts(&class, text);
        let counted = counted.and_then(|changed| Changed::new(packet, text.len(), changed));
        let (packet, text) = counted.as_ref().map_or((packet, text), Changed::parts);
        let class = match counted {
            Some(_) => self.classify(text),
            None => class,
        };
        let class = self.look_up(class, text, &self.wanted).await;
        let changed = self.with_connection_id(&class, packet, text);
        let (packet, text) = changed.as_ref().map_or((packet, text), Changed::parts);
        if let Some(breach) = self.breach(&class, text) {
            return self.reply_error(&refused(breach)).await;
        }
        if self.concerns_trackers(&class, text) {
            Box::pin(self.untrack(&class)).await?;
        }
        let effect = match class.kind {
            Kind::Read | Kind::Write if !class.facts.intersects(HOLDS) => Effect::None,
            Kind::Kill => {
                if let Some(answer) = self.leave_replica_for(&class).await? {
                    return self.reply_error(&answer).await;
                }
                let request = Request::Forward {
                    packet,
                    expect: Expect::Query,
                };
                return Box::pin(self.kill_statement(request, text, &class)).await;
            }
            Kind::Set => match sql::setting::apply(text, self.dialect, self.settings) {
                Some(settings) => return Box::pin(self.take_settings(settings)).await,
                None => self.effect_of(&class, text),
            },
            Kind::Unknown if let Some(settings) = self.router_settings(text) => {
                return Box::pin(self.take_settings(settings)).await;
            }
            _ => self.effect_of(&class, text),
        };
        let class = self.weighed(class, &effect);
        let class = self.with_known_variables(class, text);
        if let Some(answer) = self.leave_replica_for(&class).await? {
            return self.reply_error(&answer).await;
        }
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

    fn change_settings(&mut self, change: Change) -> Result<(), Wrong> {
        if let Some(position) = &change.position {
            let taken = self.scopes.must_see(position);
            taken.map_err(|error| Wrong {
                code: 1231,
                text: format!("@dbproxy_position is what SELECT @@dbproxy_position gave: {error}"),
            })?;
        }
        if change.settings.key != self.settings.key {
            self.scopes
                .set_key(&self.login.account, change.settings.key);
        }
        self.settings = change.settings;
        Ok(())
    }

    /// What a statement of MySQL Router's asks for; None if it is none.
    pub(super) fn router_settings(&self, text: &[u8]) -> Option<Result<Change, Wrong>> {
        let in_transaction = self.status.contains(StatusFlags::IN_TRANS);
        let settings = sql::router::apply(text, self.dialect, self.settings, in_transaction)?;
        Some(settings.map(|settings| Change {
            settings,
            position: None,
        }))
    }

    async fn take_settings(&mut self, change: Result<Change, Wrong>) -> Result<Flow, Error> {
        match change.and_then(|change| self.change_settings(change)) {
            Ok(()) => self.reply_ok().await,
            Err(Wrong { code, text }) => {
                let answer = Answer::new(code, b"42000", text);
                self.reply_error(&answer).await
            }
        }
    }

    /// The command with the id that the client knows in place of CONNECTION_ID(); None if it stays as it is.
    pub(super) fn with_connection_id(
        &self,
        class: &StatementClass,
        packet: &[u8],
        text: &[u8],
    ) -> Option<Changed> {
        let asks = Facts::CONNECTION.union(Facts::SYSTEM_VARIABLE);
        // There it is compared with ids that are the server's own: IS_USED_LOCK(), the list of processes.
        let compares = Facts::NAMED_LOCK.union(Facts::SYSTEM_SCHEMA);
        if !class.facts.intersects(asks) || class.facts.intersects(compares) {
            return None;
        }
        let changed = sql::with_connection_id(text, self.dialect, self.handle().id())?;
        Changed::new(packet, text.len(), changed)
    }

    /// The statement with what it asks about the one before, if that is known and the session is not tied to a connection that
    /// knows it too.
    pub(super) fn with_counts(&self, class: &StatementClass, text: &[u8]) -> Option<Vec<u8>> {
        let asks = class.facts.contains(Facts::PREVIOUS_STATEMENT)
            && !class.facts.contains(Facts::MULTI)
            && self.pins.is_empty();
        let counts = self.counts.filter(|_| asks)?;
        sql::with_counts(text, self.dialect, counts)
    }

    /// The class of a statement that ties the session to nothing if it only reads user variables whose values are known: a
    /// connection is given them before.
    pub(super) fn with_known_variables(
        &self,
        mut class: StatementClass,
        text: &[u8],
    ) -> StatementClass {
        let known = |name: &[u8]| self.wanted.has_user_variable(name);
        if class.facts.contains(Facts::USER_VARIABLE)
            && self.wanted.user_variables() > 0
            && sql::reads_known_variables(text, &class, self.dialect, known)
        {
            class.facts = class.facts.difference(Facts::USER_VARIABLE);
        }
        class
    }

    /// Whether a statement sets or shows session trackers, which are the proxy's own so far.
    pub(super) fn concerns_trackers(&self, class: &StatementClass, text: &[u8]) -> bool {
        const NAME: &[u8] = b"session_track";
        (matches!(class.kind, Kind::Set | Kind::Show | Kind::Multi)
            || class.facts.contains(Facts::SYSTEM_VARIABLE))
            && !self.owns_trackers
            && self.reading.is_none()
            // There one of them cannot be set.
            && !self.status.contains(StatusFlags::IN_TRANS)
            && text
                .windows(NAME.len())
                .any(|window| window.eq_ignore_ascii_case(NAME))
    }

    /// Leaves the session trackers of a connection to the session, which keeps it.
    pub(super) async fn untrack(&mut self, class: &StatementClass) -> Result<(), Error> {
        if self.refuses(class) {
            return Ok(());
        }
        let bound = self.is_bound();
        let owned = async {
            let mut conn = self.settled_connection(class).await?;
            let mut command = BytesMut::new();
            conn.put_untrack(&mut command);
            conn.send(&command, &[]).await?;
            conn.settle(&self.context.buffers).await?;
            Ok(conn)
        };
        match owned.await {
            Ok(conn) => {
                self.pin_to(conn, PinReason::Set);
                self.owns_trackers = true;
                if self.news == News::Usual {
                    self.news = News::All;
                }
            }
            // With the connection its state is gone.
            Err(error) if bound => return Err(error),
            // The statement itself will fail as well.
            Err(_) => {}
        }
        Ok(())
    }

    /// What the statement changes in the session if it succeeds.
    pub(super) fn effect_of(&self, class: &StatementClass, text: &[u8]) -> Effect {
        match class.kind {
            Kind::Set => {
                let Some(assignments) = sql::set::parse(text, self.dialect) else {
                    return Effect::Pin(PinReason::Set);
                };
                match routing::pin_for_set(Some(&assignments)) {
                    None if assignments.iter().all(can_be_repeated) => Effect::Assign(assignments),
                    Some(PinReason::Set) | None => Effect::AssignHere(assignments),
                    Some(reason) => Effect::Pin(reason),
                }
            }
            Kind::Use => sql::use_schema(text, self.dialect).map_or(Effect::None, Effect::Schema),
            // It is there before the transaction is, of which the servers tell only when it touches a table.
            Kind::Savepoint
                if !self
                    .status
                    .intersects(StatusFlags::AUTOCOMMIT | StatusFlags::IN_TRANS) =>
            {
                Effect::Pin(PinReason::NextTransaction)
            }
            _ if class.facts.intersects(HOLDS) => {
                sql::holding::holding(text, self.dialect).map_or(Effect::None, Effect::Holds)
            }
            _ => Effect::None,
        }
    }

    /// Forgets everything but the login, as COM_RESET_CONNECTION does. MySQL forgets the login's character set too.
    pub(super) fn reset(&mut self) {
        self.begin_again();
        if !self.base.maria {
            self.set_wanted(self.wanted.with_charset(Charset::Server));
        }
    }

    /// Whether the client was idle for so long before this command that a ping is the beginning of something new.
    fn has_rested(&self) -> bool {
        let enough = self.context.limits.reset_on_ping;
        enough.is_some_and(|enough| self.rested >= enough)
    }

    /// Forgets everything but the login and the schema in use.
    fn begin_again(&mut self) {
        self.leave_connections();
        let schema = self.wanted.schema().map(<[u8]>::to_vec);
        self.set_wanted(self.initial.with_schema(schema.as_deref()));
        self.forget_settings();
        self.scopes.forget_reads();
        self.status = super::login::initial_status(self.base);
        self.forget_news();
    }

    /// The session wants everything as the configuration says.
    pub(super) fn forget_settings(&mut self) {
        self.settings = Settings::default();
        self.scopes.set_key(&self.login.account, None);
    }

    /// Gives back what the session holds; its connections are reset where they need it.
    pub(super) fn leave_connections(&mut self) {
        self.pins.clear();
        self.loss = None;
        self.recording = None;
        self.reading = None;
        self.handle().release();
        // Soiled: it is reset on its way to the pool.
        self.held = None;
        self.release_kept();
        self.prepared.clear();
        self.last_insert_id = 0;
        self.counts = None;
    }
}

/// Flags of COM_REFRESH: RESET MASTER and RESET SLAVE.
const RESETS: u8 = 0x80 | 0x40;

/// Whether an assignment has the same meaning on a connection that has seen another history.
fn can_be_repeated(assignment: &Assignment) -> bool {
    match assignment {
        // How long the client may be idle is for the proxy to know.
        Assignment::Variable { name, value } if name == "wait_timeout" => {
            value.iter().all(u8::is_ascii_digit) || value.eq_ignore_ascii_case(b"default")
        }
        // To MySQL that is off, not what others have.
        Assignment::Variable { name, value }
            if matches!(name.as_str(), "foreign_key_checks" | "unique_checks") =>
        {
            !value.eq_ignore_ascii_case(b"default")
        }
        // A number stands for modes that only the server knows how to spell.
        Assignment::Variable { name, value } if name == "sql_mode" => {
            !value.first().is_some_and(u8::is_ascii_digit)
        }
        // With it a comparison with NULL finds the row that the connection has inserted last.
        Assignment::Variable { name, value } if name == "sql_auto_is_null" => {
            [&b"0"[..], b"OFF", b"FALSE", b"DEFAULT"]
                .iter()
                .any(|off| value.eq_ignore_ascii_case(off))
        }
        // It changes sql_big_selects as well.
        Assignment::Variable { name, .. } => name != "max_join_size",
        _ => true,
    }
}
