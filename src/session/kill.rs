//! KILL. Clients know sessions by the proxy's ids, and everything else by the servers' own.

use std::ops::ControlFlow;

use bytes::BytesMut;
use dbproxy_proto::{
    command::put_query,
    response::Expect,
    rows::{Format, Rows, Value},
};

use super::{Flow, Session, finish::Effect, handle::Handle, statement::Request};
use crate::{
    error::{Answer, Error, ErrorKind},
    pool::Key,
    sql::{
        self, Cause, Facts, StatementClass,
        kill::{Kill, Scope, Victim},
    },
    topology::ServerId,
};

impl Session {
    /// Carries out a KILL: of a session here, or else by the primary, of whose threads it may speak.
    pub(super) async fn kill_statement(
        &mut self,
        request: Request<'_>,
        text: &[u8],
        class: &StatementClass,
    ) -> Result<Flow, Error> {
        let kill = sql::kill::parse(text, self.dialect);
        let mut evaluated = BytesMut::new();
        let mut request = request;
        let id = match kill.as_ref().map(|kill| &kill.victim) {
            Some(Victim::Id(id)) => Some(*id),
            Some(Victim::Expression(range)) => {
                let expression = text.get(range.clone()).unwrap_or_default();
                let number = match self.evaluate(expression).await? {
                    ControlFlow::Continue(number) => number,
                    ControlFlow::Break(flow) => return Ok(flow),
                };
                if let Some(number) = &number {
                    // Once is enough: it may set variables, or take its time.
                    let before = text.get(..range.start).unwrap_or_default();
                    let behind = text.get(range.end..).unwrap_or_default();
                    let text = [before, number.as_bytes(), behind].concat();
                    put_query(&mut evaluated, &text, self.profile());
                    request = Request::Forward {
                        packet: &evaluated,
                        expect: Expect::Query,
                    };
                }
                number.and_then(|number| number.parse().ok())
            }
            Some(Victim::Parameter) => match request {
                Request::Execute {
                    execution,
                    statement,
                } => execution.number(&statement.types),
                _ => None,
            },
            _ => None,
        };
        let victim = id.and_then(|id| self.context.registry.find(u32::try_from(id).ok()?));
        if let (Some(victim), Some(kill)) = (victim, &kill) {
            return self.kill(kill.scope, &victim).await;
        }
        if let Some(Kill {
            scope: Scope::Connection,
            victim: Victim::User { name, host },
        }) = &kill
        {
            return self.kill_user(request, class, name, host.as_deref()).await;
        }
        self.leave_to_primary(request, class).await
    }

    /// The number that an expression gives, as text; None if it means nothing to a server, whose own words for that follow
    /// from the statement itself.
    async fn evaluate(
        &mut self,
        expression: &[u8],
    ) -> Result<ControlFlow<Flow, Option<String>>, Error> {
        // A sum is a number whatever it is made of.
        let select = [b"SELECT 0 + (", expression, b")"].concat();
        let mut class = self.classify(&select);
        if class.facts.contains(Facts::UNKNOWN_FUNCTION) {
            // Servers refuse stored functions here.
            return Ok(ControlFlow::Continue(None));
        }
        class.cause = Cause::Administration;
        let answer = match self.ask(&select, &class).await? {
            ControlFlow::Continue(Ok(answer)) => answer,
            ControlFlow::Continue(Err(error)) if INTERRUPTIONS.contains(&error.code) => {
                return self.reply_error(&error).await.map(ControlFlow::Break);
            }
            ControlFlow::Continue(Err(_)) => return Ok(ControlFlow::Continue(None)),
            ControlFlow::Break(flow) => return Ok(ControlFlow::Break(flow)),
        };
        let mut rows = Rows::new(&answer, self.profile(), Format::Text);
        let number = rows.next().and_then(|row| {
            let number = first(&row).unwrap_or(b"NULL");
            let number = std::str::from_utf8(number).ok()?;
            (number == "NULL" || number.parse::<f64>().is_ok()).then(|| number.to_owned())
        });
        Ok(ControlFlow::Continue(number))
    }

    /// Leaves a KILL to the primary.
    async fn leave_to_primary(
        &mut self,
        request: Request<'_>,
        class: &StatementClass,
    ) -> Result<Flow, Error> {
        Ok(match self.execute(class, request).await? {
            Some(finished) => self.finish(class, finished, Effect::None),
            None => Flow::Continue,
        })
    }

    /// Ends all sessions of a user: what they have on the primary is the primary's to end.
    ///
    /// It asks for a right only where it finds something to end, which says nothing of the sessions that have nothing there.
    async fn kill_user(
        &mut self,
        request: Request<'_>,
        class: &StatementClass,
        user: &[u8],
        host: Option<&[u8]>,
    ) -> Result<Flow, Error> {
        let sessions = self.context.registry.sessions_of(user, host);
        if !sessions.is_empty() && user != self.login.user.as_bytes() {
            match self.may_kill().await? {
                ControlFlow::Continue(true) => {}
                ControlFlow::Continue(false) => {
                    let text = format!(
                        "Operation KILL USER failed for {}@{}",
                        String::from_utf8_lossy(user),
                        String::from_utf8_lossy(host.unwrap_or(b"%"))
                    );
                    return self
                        .reply_error(&Answer::new(KILL_DENIED, b"HY000", text))
                        .await;
                }
                ControlFlow::Break(flow) => return Ok(flow),
            }
        }
        let Some(finished) = self.execute(class, request).await? else {
            return Ok(Flow::Continue);
        };
        // One that ends itself as well hears of that.
        if matches!(finished.outcome.error, None | Some(1317 | 1927)) {
            sessions.iter().for_each(|session| session.kill());
        }
        Ok(self.finish(class, finished, Effect::None))
    }

    /// Ends another session, or the statement it runs.
    ///
    /// Whether this account may do that is the server's to say: what the session has there is ended there, by this
    /// account. One that has nothing there can be ended by its own account, and by those who may end any.
    pub(super) async fn kill(&mut self, scope: Scope, victim: &Handle) -> Result<Flow, Error> {
        if victim.id() == self.handle().id() {
            return self.kill_itself(scope).await;
        }
        let ended = match victim.connection() {
            Some(place) => self.end_at_server(victim, place).await,
            None => Err(Error::server(ErrorKind::Closed)),
        };
        match ended {
            Ok(()) => {}
            // It has nothing at a server, or at none that answers: then nobody else is there to judge.
            Err(error) if error.is_absence() || error.is_answer(NO_SUCH_THREAD) => {
                if !victim.belongs_to(&self.login.user) {
                    match self.may_kill().await? {
                        ControlFlow::Continue(true) => {}
                        ControlFlow::Continue(false) => {
                            let text = format!("You are not owner of thread {}", victim.id());
                            let answer = Answer::new(KILL_DENIED, b"HY000", text);
                            return self.reply_error(&answer).await;
                        }
                        ControlFlow::Break(flow) => return Ok(flow),
                    }
                }
            }
            Err(error) => return self.reply_error(&error.answer()).await,
        }
        if scope == Scope::Connection {
            victim.kill();
        }
        self.reply_ok().await
    }

    /// Ends what a session has on this connection of a server's, by this account's right.
    async fn end_at_server(
        &mut self,
        victim: &Handle,
        (server, thread_id): (ServerId, u32),
    ) -> Result<(), Error> {
        let Some(cluster) = self.clusters.get(server.cluster()).cloned() else {
            return Err(Error::server(ErrorKind::Closed));
        };
        // It may be of another cluster, where this user has a say too, or none.
        let login = match cluster.cluster == self.context.cluster {
            true => self.login.clone(),
            false => self.login_at(&cluster).await?,
        };
        let key = Key::new(server, &login, self.profile());
        let Some(bucket) = cluster.pool.bucket(key) else {
            return Err(Error::server(ErrorKind::Closed));
        };
        // It may have ended meanwhile, and its connection may serve somebody else.
        let still_there = || victim.connection() == Some((server, thread_id));
        let ended = bucket.kill_query(&login, thread_id, still_there).await;
        ended.map_err(|mut error| {
            if let ErrorKind::Answer(answer) = &mut error.kind
                && answer.code == KILL_DENIED
            {
                // The server speaks of its own id.
                let (its, ours) = (thread_id.to_string(), victim.id().to_string());
                answer.message = answer.message.replace(&its, &ours).into();
            }
            error
        })
    }

    /// The statement that runs is the KILL.
    async fn kill_itself(&mut self, scope: Scope) -> Result<Flow, Error> {
        let answer = match (self.base.maria, scope) {
            (true, Scope::Connection) => Answer::new(1927, b"70100", "Connection was killed"),
            _ => Answer::new(1317, b"70100", "Query execution was interrupted"),
        };
        self.reply_error(&answer).await?;
        Ok(match scope {
            Scope::Connection => Flow::End,
            Scope::Query => Flow::Continue,
        })
    }

    /// Whether the account may end everybody's sessions.
    pub(super) async fn may_kill(&mut self) -> Result<ControlFlow<Flow, bool>, Error> {
        let class = self.of_connection();
        let grants = match self.ask(b"SHOW GRANTS", &class).await? {
            ControlFlow::Continue(grants) => grants.unwrap_or_default(),
            ControlFlow::Break(flow) => return Ok(ControlFlow::Break(flow)),
        };
        let mut grants = Rows::new(&grants, self.profile(), Format::Text);
        let ends = |grant: Vec<Value<'_>>| first(&grant).is_some_and(sql::kill::may_end_others);
        Ok(ControlFlow::Continue(grants.any(ends)))
    }
}

/// The text that a row begins with.
fn first<'a>(row: &[Value<'a>]) -> Option<&'a [u8]> {
    row.first().copied().and_then(Value::text)
}

/// ER_NO_SUCH_THREAD
const NO_SUCH_THREAD: u16 = 1094;

/// ER_KILL_DENIED_ERROR
const KILL_DENIED: u16 = 1095;

/// Errors of a statement that could have run: ER_QUERY_INTERRUPTED, MariaDB's ER_CONNECTION_KILLED and ER_STATEMENT_TIMEOUT,
/// MySQL's ER_QUERY_TIMEOUT.
const INTERRUPTIONS: [u16; 4] = [1317, 1927, 1969, 3024];
