//! What becomes of a statement, and of its session, when the server is lost.

use std::time::Duration;

use dbproxy_proto::{
    capability::StatusFlags,
    command::{Command, code},
    packet::HEADER_LEN,
    reply::ErrPacket,
};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    Flow, Session,
    handle::Interrupt,
    observe::text_of,
    relay::Failure,
    statement::{Request, server_down},
};
use crate::{
    error::{Answer, Error, ErrorKind, Origin},
    pool::PooledConn,
    routing::PinReason,
    sql::{self, Dialect, Facts, Kind, StatementClass, set::Assignment},
    topology::{Health, Server, ServerId, Topology},
};

/// The monitor has at most this long to say whether a server has failed that has closed a connection.
const LONGEST_QUESTION: Duration = Duration::from_secs(3);

/// How often one statement is refused by servers that are said to take it, until the client is told.
const REFUSALS: u8 = 3;

/// What a server's end has done to a statement that was sent to it and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has left nothing behind: it can run again.
    Harmless,
    /// Its answer is lost, but it has written nothing.
    Lost,
    /// It was part of a transaction that is undone.
    RolledBack,
    /// What it asked for has come about by itself.
    Done,
    /// Nobody knows. It must not run again.
    Unknown,
}

/// What a session had on a connection that is gone, of which its client is still to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// A transaction that was not committed.
    Transaction,
    /// What no other connection has.
    State(PinReason),
}

/// How a statement goes on that has lost its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is placed anew.
    Again,
    /// The client was told.
    Told,
}

/// How often one statement was tried in vain, and how long it may still be.
#[derive(Debug, Default)]
pub(super) struct Patience {
    deadline: Option<Instant>,
    refusals: u8,
    losses: u8,
    pub(super) replays: u8,
}

impl Patience {
    /// Until when the statement may wait, from the first time on that it has to.
    pub(super) fn deadline(&mut self, hold: Duration) -> Instant {
        *self.deadline.get_or_insert_with(|| Instant::now() + hold)
    }
}

/// Which errors of a server's say that another one is to run the statement, which it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusals {
    /// None: a part of the statement may have run, or the error is the session's own doing.
    None,
    /// Those of a server that is read-only or serves nobody.
    Server,
    /// These, and that transactions only read, which the session has not asked for.
    Transaction,
}

impl Refusals {
    /// Whether this error is one of them.
    pub(super) fn contain(self, error: &ErrPacket<'_>) -> bool {
        let says = |words: &[u8]| error.message.windows(words.len()).any(|part| part == words);
        self != Self::None
            && match error.code {
                // ER_OPTION_PREVENTS_STATEMENT: --read-only, --super-read-only, or something else.
                1290 => says(b"read-only") || says(b"read_only"),
                // ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
                1792 => self == Self::Transaction,
                // ER_UNKNOWN_COM_ERROR, with which a node of a cluster says that it is not ready.
                1047 => says(b"WSREP"),
                // ER_READ_ONLY_MODE, ER_SERVER_OFFLINE_MODE
                1836 | 3032 => true,
                _ => false,
            }
    }
}

impl Session {
    /// What a server may answer to a statement so that it is held, and run on another one.
    pub(super) fn refusals(&self, class: &StatementClass) -> Refusals {
        let in_transaction = self.in_transaction();
        match is_single(class) && (in_transaction || self.pins.is_empty()) {
            false => Refusals::None,
            true if in_transaction || self.is_read_only() => Refusals::Server,
            true => Refusals::Transaction,
        }
    }

    /// Whether what the session has done is not committed yet, as far as it knows.
    fn in_transaction(&self) -> bool {
        self.status.contains(StatusFlags::IN_TRANS) || self.reading.is_some()
    }

    /// Whether the session was on a connection that leads nowhere any more, of which the client is to be told, or is found to
    /// be on one now.
    pub(super) fn has_loss(&mut self) -> bool {
        if let Some(conn) = &self.held
            && self.is_lost(conn.server())
        {
            self.lose_held();
        }
        self.loss.is_some()
    }

    /// Fails if a statement must not reach a server any more.
    ///
    /// To be asked when the session is already counted among those that run something there: who cuts sessions off waits for
    /// those that are counted, and the others see it here.
    pub(super) fn may_reach(&self, server: ServerId, class: &StatementClass) -> Result<(), Error> {
        let topology = self.context.topology.borrow();
        let is_primary = topology.primary == Some(server);
        let writes = class.facts.contains(Facts::MAY_WRITE);
        if topology.server(server).is_some_and(is_down) {
            Err(server_down())
        } else if topology.is_cut_off(server) || (writes && topology.reign.is_some() && !is_primary)
        {
            let text = "the server is not the primary any more";
            Err(Error::server(ErrorKind::Timeout(text.into())))
        } else {
            Ok(())
        }
    }

    /// Whether a server cannot go on with what this session has begun there.
    fn is_lost(&self, server: ServerId) -> bool {
        let topology = self.context.topology.borrow();
        let elsewhere = self.reading.is_none() && topology.primary.is_some_and(|now| now != server);
        elsewhere || topology.is_cut_off(server) || topology.server(server).is_none_or(is_down)
    }

    /// Gives up the connection that the session holds, and remembers what went with it.
    pub(super) fn lose_held(&mut self) {
        if let Some(mut conn) = self.held.take() {
            conn.condemn();
        }
        self.loss = self.leave_lost();
    }

    /// Forgets everything that only the connection knew; what of it the client has to be told.
    fn leave_lost(&mut self) -> Option<Loss> {
        self.suspend_recording();
        let pin = self.pins.gravest();
        self.pins.clear();
        let loss = match pin {
            Some(PinReason::NextTransaction) => Some(Loss::Transaction),
            // A FETCH is told that there is no cursor.
            None | Some(PinReason::Cursor) => self.in_transaction().then_some(Loss::Transaction),
            Some(pin) => Some(Loss::State(pin)),
        };
        self.reading = None;
        self.wrote_in_transaction = false;
        self.status
            .remove(StatusFlags::IN_TRANS | StatusFlags::IN_TRANS_READONLY);
        if self.owns_trackers {
            self.forget_news();
        }
        self.handle().release();
        self.forget_written();
        loss
    }

    /// Tells the client in place of an answer what it has lost; `None` if the command needs no answer, or its own.
    pub(super) async fn tell_loss(&mut self, command: &Command<'_>) -> Result<Option<Flow>, Error> {
        let Some(loss) = self.loss else {
            return Ok(None);
        };
        let class = match command {
            // They forget what is lost, or ask for nothing.
            Command::Quit
            | Command::Ping
            | Command::StmtClose(_)
            | Command::ResetConnection
            | Command::ChangeUser(_) => return Ok(None),
            // The execution is told.
            Command::StmtSendLongData { .. } => {
                let regained = self.regain().await?;
                return Ok((!regained).then_some(Flow::Continue));
            }
            Command::Query(text) => Some(self.classify(text)),
            Command::StmtExecute(execute) => {
                let statement = self.prepared.find(execute.statement);
                statement.map(|statement| statement.class)
            }
            _ => None,
        };
        if loss == Loss::Transaction && class.is_some_and(|class| is_plain(&class, Kind::Rollback))
        {
            self.take_loss();
            return self.reply_ok().await.map(Some);
        }
        if self.regain().await? {
            return Ok(None);
        }
        self.take_loss();
        self.reply_error(&loss.answer()).await.map(Some)
    }

    /// What the client is told of its loss in place of an answer to a command that is too long to be looked at.
    pub(super) fn take_loss(&mut self) -> Option<Answer> {
        self.recording = None;
        self.loss.take().map(Loss::answer)
    }

    /// Runs a transaction again that the client has not been told of, if it can be: then nothing is lost.
    pub(super) async fn regain(&mut self) -> Result<bool, Error> {
        let lost = self.loss == Some(Loss::Transaction);
        if !lost || !Box::pin(self.replay(&mut Patience::default())).await? {
            return Ok(false);
        }
        self.loss = None;
        Ok(true)
    }

    /// Whether a server that has closed a connection has failed, or is not the one any more that the session needs; else it
    /// has closed that connection alone.
    ///
    /// An error of the client's origin means that the session is to end.
    pub(super) async fn has_failed(&self, server: ServerId) -> Result<bool, Error> {
        let since = Instant::now();
        let deadline = since + LONGEST_QUESTION;
        let mut news = self.context.topology.clone();
        loop {
            let lives = {
                let topology = news.borrow_and_update();
                match topology.server(server) {
                    None => Some(false),
                    Some(server) if is_down(server) => Some(false),
                    Some(server) => was_asked(server, since)
                        .then(|| self.reading.is_some() || takes_writes(&topology, server)),
                }
            };
            if let Some(lives) = lives {
                return Ok(!lives);
            }
            self.ask_monitor();
            if !self.changes(&mut news, deadline).await? {
                return Ok(true);
            }
        }
    }

    /// Has the monitor look at all servers at once.
    pub(super) fn ask_monitor(&self) {
        for probe in &*self.context.probes {
            probe.notify_one();
        }
    }

    /// Waits until there is news of the servers; `Told` if there is none as long as a statement may wait.
    async fn wait_for_news(
        &mut self,
        patience: &mut Patience,
        error: &Error,
    ) -> Result<Next, Error> {
        let deadline = patience.deadline(self.context.limits.hold);
        self.ask_monitor();
        if self.topology_changes(deadline).await? {
            return Ok(Next::Again);
        }
        let error = self.no_primary_for_write(Some(error));
        self.reply_error(&error.answer()).await?;
        Ok(Next::Told)
    }

    /// Ends a statement that has not got its whole answer, or takes it up again where that is right. What may have been
    /// carried out is never run again.
    pub(super) async fn recover(
        &mut self,
        mut conn: PooledConn,
        class: &StatementClass,
        request: Option<Request<'_>>,
        failure: Failure,
        patience: &mut Patience,
    ) -> Result<Next, Error> {
        let server = conn.server();
        let (error, sent) = match failure {
            Failure::Refused(answer) => {
                drop(conn);
                return self.refused(server, answer, patience).await;
            }
            Failure::Unsent(error) => (error, false),
            failure => {
                if class.facts.contains(Facts::MAY_WRITE) || self.wrote_in_transaction {
                    // It may have been carried out all the same.
                    self.scopes.wrote_perhaps();
                }
                self.forget_written();
                match failure {
                    Failure::Client(error) => {
                        // What may write is not stopped half-way: servers do not either.
                        if !class.facts.contains(Facts::MAY_WRITE) {
                            self.cancel(conn);
                        }
                        return Err(error);
                    }
                    Failure::Interrupted {
                        interrupt: Interrupt::Killed,
                        started,
                    } => {
                        self.cancel(conn);
                        let text = "Connection was killed";
                        let error = Error::answer_with(Origin::Proxy, 1927, b"70100", text);
                        if !started {
                            self.reply_error(&error.answer()).await?;
                        }
                        return Err(error);
                    }
                    failure => {
                        let started = failure.has_started();
                        let error = failure.into_error();
                        if started {
                            warn!(session = self.handle().id(), server = server.0, %error, "lost an answer's connection");
                            return Err(error);
                        }
                        (error, true)
                    }
                }
            }
        };
        conn.condemn();
        drop(conn);
        warn!(session = self.handle().id(), server = server.0, %error, "lost a statement's connection");
        if !sent && !error.is_absence() {
            // The server has an objection to the session's state.
            let bound = self.is_bound();
            self.reply_error(&error.answer()).await?;
            return if bound { Err(error) } else { Ok(Next::Told) };
        }
        let fate = match sent {
            true => self.fate(class, request),
            false => Fate::Harmless,
        };
        match self.is_bound() {
            true if request.is_some_and(is_ping) => {
                if !self.has_failed(server).await? {
                    return Err(error);
                }
                // The next statement is told.
                self.loss = self.leave_lost();
                self.reply_ok().await?;
                Ok(Next::Told)
            }
            true => self.lose_bound(server, fate, (error, sent), patience).await,
            false => self.lose_free(server, fate, error, patience).await,
        }
    }

    /// A statement of a session that is tied to no connection has lost its server.
    async fn lose_free(
        &mut self,
        server: ServerId,
        fate: Fate,
        error: Error,
        patience: &mut Patience,
    ) -> Result<Next, Error> {
        match fate {
            Fate::Harmless => {
                patience.losses = patience.losses.saturating_add(1);
                // The connection may have been closed while it was unused; a second one was not.
                if patience.losses == 1 {
                    return Ok(Next::Again);
                }
                self.wait_for_news(patience, &error).await
            }
            Fate::Lost => {
                self.reply_error(&error.answer()).await?;
                Ok(Next::Told)
            }
            // It was the first of its transaction.
            Fate::RolledBack if self.rules.policy().transaction_replay.is_some() => {
                self.wait_for_news(patience, &error).await
            }
            Fate::RolledBack => {
                self.reply_error(&rolled_back()).await?;
                Ok(Next::Told)
            }
            Fate::Done => {
                self.reply_ok().await?;
                Ok(Next::Told)
            }
            // What a server says that lives on is true: somebody has ended the connection.
            Fate::Unknown
                if matches!(error.kind, ErrorKind::Answer(_))
                    && !self.has_failed(server).await? =>
            {
                self.reply_error(&error.answer()).await?;
                Ok(Next::Told)
            }
            Fate::Unknown => {
                self.reply_error(&unknown()).await?;
                Err(error)
            }
        }
    }

    /// The same of one that is in a transaction, or has something else there.
    async fn lose_bound(
        &mut self,
        server: ServerId,
        fate: Fate,
        (error, sent): (Error, bool),
        patience: &mut Patience,
    ) -> Result<Next, Error> {
        if !self.has_failed(server).await? {
            // It has closed this connection, and with that the session.
            let is_answer = matches!(error.kind, ErrorKind::Answer(_));
            let answer = match fate {
                Fate::Unknown if !is_answer => unknown(),
                _ => error.answer(),
            };
            self.reply_error(&answer).await?;
            return Err(error);
        }
        let loss = self.leave_lost();
        match (fate, loss) {
            (Fate::Unknown, _) => {
                self.reply_error(&unknown()).await?;
                Err(error)
            }
            (Fate::Done, loss) => {
                self.loss = loss.filter(|loss| *loss != Loss::Transaction);
                self.reply_ok().await?;
                Ok(Next::Told)
            }
            (_, Some(Loss::Transaction)) if Box::pin(self.replay(patience)).await? => {
                Ok(Next::Again)
            }
            (_, Some(loss)) => {
                self.reply_error(&loss.answer()).await?;
                Ok(Next::Told)
            }
            (_, None) if sent => {
                self.reply_error(&error.answer()).await?;
                Ok(Next::Told)
            }
            (_, None) => Ok(Next::Again),
        }
    }

    /// A server has not run a statement, since it is not the one to run it now.
    async fn refused(
        &mut self,
        server: ServerId,
        answer: Answer,
        patience: &mut Patience,
    ) -> Result<Next, Error> {
        let since = Instant::now();
        self.ask_monitor();
        let lost = self.in_transaction().then(|| {
            let loss = self.leave_lost();
            loss.unwrap_or(Loss::Transaction)
        });
        if let Some(loss) = lost
            && !(loss == Loss::Transaction && self.may_replay())
        {
            self.reply_error(&loss.answer()).await?;
            return Ok(Next::Told);
        }
        patience.refusals += 1;
        debug!(
            session = self.handle().id(),
            server = server.0,
            code = answer.code,
            "statement refused"
        );
        if patience.refusals > REFUSALS {
            // It says so though it takes writes.
            self.reply_error(&answer).await?;
            return Ok(Next::Told);
        }
        let deadline = patience.deadline(self.context.limits.hold);
        let mut news = self.context.topology.clone();
        loop {
            let found = {
                let topology = news.borrow_and_update();
                let primary = topology.writable();
                primary.is_some_and(|now| now.id != server || was_asked(now, since))
            };
            if found {
                break;
            }
            if !self.changes(&mut news, deadline).await? {
                let error = self.no_primary_for_write(None);
                let answer = lost.map_or_else(|| error.answer(), Loss::answer);
                self.reply_error(&answer).await?;
                return Ok(Next::Told);
            }
        }
        if let Some(loss) = lost
            && !Box::pin(self.replay(patience)).await?
        {
            self.reply_error(&loss.answer()).await?;
            return Ok(Next::Told);
        }
        Ok(Next::Again)
    }

    /// What the end of its server has done to a statement that was sent there.
    fn fate(&self, class: &StatementClass, request: Option<Request<'_>>) -> Fate {
        let may_write = class.facts.contains(Facts::MAY_WRITE);
        if matches!(request, Some(Request::Prepare { .. })) {
            return match self.in_transaction() {
                true => Fate::RolledBack,
                false => Fate::Harmless,
            };
        }
        let commits = self.may_commit(class, request);
        if self.in_transaction() {
            return match commits && (may_write || self.wrote_in_transaction) {
                true => Fate::Unknown,
                false if is_plain(class, Kind::Rollback) || is_plain(class, Kind::Commit) => {
                    Fate::Done
                }
                false => Fate::RolledBack,
            };
        }
        match may_write {
            true if commits || self.status.contains(StatusFlags::AUTOCOMMIT) => Fate::Unknown,
            true => Fate::RolledBack,
            false
                if request.is_some_and(is_repeatable)
                    && is_harmless(
                        class,
                        request.and_then(|request| text_of(request, self.capabilities)),
                        self.dialect,
                    ) =>
            {
                Fate::Harmless
            }
            false => Fate::Lost,
        }
    }

    /// Whether a statement may have committed a transaction, itself or by what it runs.
    fn may_commit(&self, class: &StatementClass, request: Option<Request<'_>>) -> bool {
        let text = request.and_then(|request| text_of(request, self.capabilities));
        !is_single(class)
            || class.facts.contains(Facts::IMPLICIT_COMMIT)
            || match (class.kind, text) {
                (Kind::Commit, _) => true,
                (Kind::Set, Some(text)) => sql::set::parse(text, self.dialect)
                    .is_none_or(|list| list.contains(&Assignment::Autocommit(true))),
                (Kind::Set, None) => true,
                // Only its beginning was seen.
                (_, None) => request.is_none() && class.facts.contains(Facts::DEFINITIONS),
                _ => false,
            }
    }
}

impl Loss {
    /// What the client is told.
    fn answer(self) -> Answer {
        match self {
            Self::Transaction => rolled_back(),
            Self::State(pin) => {
                let text = format!(
                    "Lost connection to MySQL server: the server failed or is not the primary any more, and what the session had there is gone ({pin}), with its transaction if there was one; it goes on without"
                );
                Answer::new(2013, b"08S01", text)
            }
        }
    }
}

/// The answer to a statement of a transaction that went with its server.
pub(super) fn rolled_back() -> Answer {
    let text = "transaction rolled back: the server failed or is not the primary any more before COMMIT was sent; \
                try restarting transaction";
    Answer::new(1213, b"40001", text)
}

/// The answer to a statement of which nobody knows what it has done.
pub(super) fn unknown() -> Answer {
    let text = "the outcome is unknown: the server was lost while it ran this statement, which may have taken effect or not; \
                it was not run again";
    Answer::new(1927, b"08S01", text)
}

/// What comes in place of the rest of a result.
pub(super) fn broken_off() -> Answer {
    let text = "the result is not complete: its server was lost";
    Answer::new(1927, b"08S01", text)
}

/// Whether the text tells all that the statement does, and that it is one.
pub(super) fn is_single(class: &StatementClass) -> bool {
    const MORE: Facts = Facts::MULTI
        .union(Facts::UNKNOWN_FUNCTION)
        .union(Facts::TEXT_PREPARE)
        .union(Facts::DOUBTFUL);
    !class.facts.intersects(MORE)
        && !matches!(
            class.kind,
            Kind::Call | Kind::Compound | Kind::Xa | Kind::Multi | Kind::Prepare | Kind::Unknown
        )
}

/// Whether it is COMMIT or ROLLBACK and nothing more.
fn is_plain(class: &StatementClass, kind: Kind) -> bool {
    class.kind == kind
        && !class
            .facts
            .intersects(Facts::CHAIN | Facts::RELEASE | Facts::MULTI)
}

/// Whether a statement that writes nothing means the same when it has run before, on a server that is gone.
fn is_harmless(class: &StatementClass, text: Option<&[u8]>, dialect: Dialect) -> bool {
    const BOUND: Facts = Facts::USER_VARIABLE
        .union(Facts::NAMED_LOCK)
        .union(Facts::PREVIOUS_STATEMENT)
        .union(Facts::SEQUENCE)
        .union(Facts::SETS_INSERT_ID)
        .union(Facts::INTO)
        .union(Facts::HANDLER)
        .union(Facts::TEMPORARY_TABLE);
    let wide = || {
        let parts = text.and_then(|text| sql::set::parse(text, dialect));
        parts.is_none_or(|parts| parts.contains(&Assignment::ServerWide))
    };
    is_single(class) && !class.facts.intersects(BOUND) && !(class.kind == Kind::Set && wide())
}

/// Whether a command is one whose class tells all of it.
pub(super) fn is_repeatable(request: Request<'_>) -> bool {
    match request {
        Request::Prepare { .. } | Request::Execute { .. } => true,
        Request::Forward { packet, .. } => matches!(
            packet.get(HEADER_LEN),
            Some(&(code::QUERY | code::INIT_DB | code::SET_OPTION | code::PING | code::FIELD_LIST))
        ),
    }
}

fn is_ping(request: Request<'_>) -> bool {
    matches!(request, Request::Forward { packet, .. } if packet.get(HEADER_LEN) == Some(&code::PING))
}

fn is_down(server: &Server) -> bool {
    matches!(server.health, Health::Down { .. })
}

/// Whether the monitor has asked a server since then, and got an answer.
fn was_asked(server: &Server, since: Instant) -> bool {
    server.asked_at.is_some_and(|asked_at| asked_at > since)
}

fn takes_writes(topology: &Topology, server: &Server) -> bool {
    topology.writable().is_some_and(|now| now.id == server.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Dialect, classify};

    #[test]
    fn what_has_left_nothing_behind_can_run_again() {
        for (sql, expected) in [
            ("SELECT a FROM t", true),
            ("SELECT a FROM t FOR UPDATE", true),
            ("SELECT SQL_CALC_FOUND_ROWS a FROM t", true),
            ("SELECT LAST_INSERT_ID()", true),
            ("SHOW TABLES", true),
            ("USE x", true),
            ("BEGIN", true),
            ("SET SESSION sql_mode = ''", true),
            ("SET GLOBAL max_connections = 10", false),
            ("SELECT f(1)", false),
            ("SELECT GET_LOCK('a', 1)", false),
            ("SELECT @a := 1", false),
            ("SELECT LAST_INSERT_ID(5)", false),
            ("SELECT FOUND_ROWS()", false),
            ("SELECT 1 INTO @a", false),
            ("SELECT 1; SELECT 2", false),
            ("HANDLER t OPEN", false),
            ("CALL p()", false),
        ] {
            let class = classify(sql.as_bytes(), Dialect::default());
            let harmless = is_harmless(&class, Some(sql.as_bytes()), Dialect::default());
            assert_eq!(harmless, expected, "{sql}");
        }
    }

    #[test]
    fn a_server_that_is_not_the_one_is_told_from_an_error() {
        let says = |code, text: &'static str| ErrPacket {
            code,
            sqlstate: *b"HY000",
            message: text.as_bytes(),
        };
        let read_only = says(1290, "running with the --read-only option so");
        let super_read_only = says(1290, "running with the --super-read-only option so");
        let files = says(1290, "running with the --secure-file-priv option so");
        let transaction = says(1792, "Cannot execute statement in a READ ONLY transaction");
        let not_ready = says(1047, "WSREP has not yet prepared node for application use");
        let unknown = says(1047, "Unknown command");
        for (refusals, expected) in [
            (Refusals::None, [false; 6]),
            (Refusals::Server, [true, true, false, false, true, false]),
            (
                Refusals::Transaction,
                [true, true, false, true, true, false],
            ),
        ] {
            let all = [
                &read_only,
                &super_read_only,
                &files,
                &transaction,
                &not_ready,
                &unknown,
            ];
            assert_eq!(all.map(|error| refusals.contain(error)), expected);
        }
    }
}
