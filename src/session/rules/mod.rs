//! Rules at work: which of them say something of a statement, and what becomes of it.

mod again;
mod cache;
mod curb;
mod firewall;
mod policy;
mod quota;
mod ruling;
mod start;

use std::{cell::OnceCell, mem, sync::Arc};

use bytes::BytesMut;
use tokio::{sync::watch, time::Instant};

pub use cache::AnswerCache;
pub(super) use cache::{Filling, Written};
pub(super) use curb::Curb;
pub use firewall::Firewall;
pub(super) use policy::Entry;
pub use policy::Policy;
pub(super) use ruling::Ruling;
pub(super) use start::Known;

use super::{
    Flow, Session, command::Changed, execution::Execution, prepared::Statement as Prepared,
    relay::Outcome, unix_time,
};
use crate::{
    config::{
        ListenAddress,
        rule::{self, FixedAnswer, RouteTo},
    },
    error::{Answer, Error},
    pool::PooledConn,
    routing::{
        Reason,
        rules::{Asker, Statement, concerns, kind_of, matches},
    },
    sql::{Facts, StatementClass, Tables},
};

/// The rules as they concern one session.
pub(super) struct View {
    policy: watch::Receiver<Arc<Policy>>,
    current: Arc<Policy>,
    /// Which of its rules can match.
    mine: Box<[u16]>,
    /// Where the client connected.
    listener: Arc<ListenAddress>,
    /// What it calls itself.
    program: Option<Box<[u8]>>,
}

impl View {
    /// That of a client which connected at `listener`; nothing concerns it before [`Session::look_up_rules`].
    pub(super) fn new(
        policy: &watch::Receiver<Arc<Policy>>,
        listener: Arc<ListenAddress>,
        program: Option<Box<[u8]>>,
    ) -> Self {
        let mut policy = policy.clone();
        let current = Arc::clone(&policy.borrow_and_update());
        Self {
            policy,
            current,
            mine: Box::default(),
            listener,
            program,
        }
    }

    /// What the configuration says now.
    pub(super) fn policy(&self) -> &Policy {
        &self.current
    }

    /// What another cluster's configuration says counts for a while; the rules are the same.
    pub(super) fn swap_policy(&mut self, policy: &mut Arc<Policy>) {
        mem::swap(&mut self.current, policy);
    }

    /// Takes over what the client calls itself; what it called itself before.
    pub(super) fn rename(&mut self, program: Option<Box<[u8]>>) -> Option<Box<[u8]>> {
        mem::replace(&mut self.program, program)
    }
}

impl Session {
    /// Finds out which rules concern the client.
    pub(super) fn look_up_rules(&mut self) {
        let view = &mut self.rules;
        view.current = Arc::clone(&view.policy.borrow_and_update());
        let asker = Asker {
            user: &self.login.user,
            client: self.peer.ip(),
            listener: &view.listener,
        };
        let rules = (0..).zip(view.current.rules.iter());
        view.mine = rules
            .filter(|(_, entry)| concerns(&entry.rule.when, &asker))
            .map(|(number, _)| number)
            .collect();
    }

    /// Whether rules may have a say in what the session does. Takes over what has changed of them.
    pub(super) fn has_rules(&mut self) -> bool {
        // An error says that nobody is left who could change them.
        if self.rules.policy.has_changed().unwrap_or(false) {
            self.look_up_rules();
        }
        !self.rules.mine.is_empty()
    }

    /// What the rules say of a statement; `None` if nothing. Their samples are drawn, but nothing else is counted yet.
    fn judge(&self, text: &[u8], class: &StatementClass) -> Option<Ruling> {
        self.judged(text, class, Entry::draws)
    }

    fn judged(
        &self,
        text: &[u8],
        class: &StatementClass,
        draws: impl Fn(&Entry) -> bool,
    ) -> Option<Ruling> {
        kind_of(class)?;
        let dialect = self.dialect;
        let find_tables = || self.context.classifier.tables(text, class, dialect);
        let statement = self.to_match(text, class, &find_tables);
        let mut matched = Vec::new();
        for number in &self.rules.mine {
            let Some(entry) = self.rules.current.rules.get(usize::from(*number)) else {
                continue;
            };
            if matches(&entry.rule.when, &statement) && draws(entry) {
                matched.push(Arc::clone(entry));
                if !entry.rule.go_on {
                    break;
                }
            }
        }
        Ruling::new(matched, Instant::now())
    }

    /// What rules look at in a statement.
    fn to_match<'a>(
        &'a self,
        text: &'a [u8],
        class: &'a StatementClass,
        find_tables: &'a dyn Fn() -> Arc<Tables>,
    ) -> Statement<'a> {
        Statement {
            text,
            class,
            schema: self.wanted.schema(),
            program: self.rules.program.as_deref(),
            now: unix_time(),
            find_tables,
            tables: OnceCell::new(),
        }
    }

    /// What the rules would most likely say of a statement.
    pub(super) fn would_rule(
        &mut self,
        text: &[u8],
        class: &StatementClass,
    ) -> Option<Box<Ruling>> {
        if !self.has_rules() {
            return None;
        }
        self.judged(text, class, Entry::mostly_draws).map(Box::new)
    }

    /// Runs a text query that rules may have a say in.
    pub(super) async fn query_under_rules(
        &mut self,
        packet: &[u8],
        text: &[u8],
        class: StatementClass,
    ) -> Result<Flow, Error> {
        // Questions to the proxy are answered whatever rules say.
        if self.inquiry(&class, text).is_some() {
            return self.run_query(packet, text, class).await;
        }
        let Some(mut ruling) = self.judge(text, &class) else {
            return self.query_where_it_belongs(packet, text, class).await;
        };
        ruling.count(unix_time());
        if let Err(answer) = self.admit(&mut ruling, Some(text)).await? {
            return self.reply_error(&answer).await;
        }
        if let Some(answer) = ruling.answer() {
            let answer = answer.clone();
            self.log_ruling(&ruling, text);
            return self.reply_fixed(&answer).await;
        }
        let changed = match ruling.rewritten(text, self.dialect) {
            Ok(changed) => changed.and_then(|changed| Changed::new(packet, text.len(), changed)),
            Err(answer) => return self.reply_error(&answer).await,
        };
        let (packet, run) = changed.as_ref().map_or((packet, text), Changed::parts);
        let class = if changed.is_some() {
            self.classify(run)
        } else {
            class
        };
        self.ruling = Some(Box::new(ruling));
        let flow = self.query_where_it_belongs(packet, run, class).await;
        self.close_ruling(text);
        flow
    }

    /// Runs a text query, or answers it again, at the cluster that it belongs to.
    async fn query_where_it_belongs(
        &mut self,
        packet: &[u8],
        text: &[u8],
        class: StatementClass,
    ) -> Result<Flow, Error> {
        let home = match self.depart(text, &class, None, false).await? {
            Ok(home) => home,
            Err(answer) => return self.reply_error(&answer).await,
        };
        let class = match home {
            Some(_) => self.classify(text),
            None => class,
        };
        let wanted = Arc::clone(&self.wanted);
        let flow = match self
            .answer_again(&class, packet, (text, &wanted), false)
            .await
        {
            Ok(None) => self.run_query(packet, text, class).await,
            Ok(Some(flow)) => Ok(flow),
            Err(error) => Err(error),
        };
        self.come_home(home);
        flow
    }

    /// Executes a prepared statement at the cluster that it belongs to.
    async fn execute_where_it_belongs(
        &mut self,
        execution: Execution<'_>,
        statement: &Prepared,
    ) -> Result<Flow, Error> {
        let (key, cursor) = (&statement.key, execution.wants_cursor());
        let departed = self.depart(key.text(), &statement.class, Some(key.state()), cursor);
        let home = match departed.await? {
            Ok(home) => home,
            Err(answer) => return self.reply_error(&answer).await,
        };
        let flow = self.run_prepared(execution).await;
        self.come_home(home);
        flow
    }

    /// Executes a prepared statement that rules may have a say in.
    pub(super) async fn execute_under_rules(
        &mut self,
        execution: Execution<'_>,
    ) -> Result<Flow, Error> {
        let Some(statement) = self.prepared.find(execution.statement()).cloned() else {
            return self.run_prepared(execution).await;
        };
        // The client's own, if a rule made another one of it.
        let (text, class) = match &statement.before_rules {
            Some(before) => (&*before.text, before.class),
            None => (statement.key.text(), statement.class),
        };
        let Some(mut ruling) = self.judge(text, &class) else {
            return self.execute_where_it_belongs(execution, &statement).await;
        };
        ruling.count(unix_time());
        if let Err(answer) = self.admit(&mut ruling, Some(text)).await? {
            return self.reply_error(&answer).await;
        }
        if let Some(answer) = ruling.answer() {
            // The rule came after the preparation, or it would have been refused.
            let answer = prepared_answer(answer, &ruling.names());
            self.log_ruling(&ruling, text);
            return self.reply_error(&answer).await;
        }
        self.ruling = Some(Box::new(ruling));
        let flow = self.execute_where_it_belongs(execution, &statement).await;
        self.close_ruling(text);
        flow
    }

    /// What rules say of a statement that is to be prepared: another text, or an error. The ruling stays in force until it is
    /// known where that happens; everything else it says at the executions.
    pub(super) fn rule_preparation(
        &mut self,
        packet: &[u8],
        text: &[u8],
        class: &StatementClass,
    ) -> Result<Option<Changed>, Answer> {
        let Some(ruling) = self.judge(text, class) else {
            return Ok(None);
        };
        if let Some(answer) = ruling.answer() {
            ruling.count(unix_time());
            self.log_ruling(&ruling, text);
            return Err(prepared_answer(answer, &ruling.names()));
        }
        self.pass_firewall(&ruling, Some(text))?;
        let changed = ruling.rewritten(text, self.dialect)?;
        self.ruling = Some(Box::new(ruling));
        Ok(changed.and_then(|changed| Changed::new(packet, text.len(), changed)))
    }

    /// What rules say of a statement that is too long to be collected.
    ///
    /// # Errors
    /// What the client is told in its place.
    pub(super) async fn rule_long(
        &mut self,
        text: &[u8],
        class: &StatementClass,
        known: Known,
    ) -> Result<Result<(), Answer>, Error> {
        if !self.has_rules() {
            return Ok(Ok(()));
        }
        let ruling = match known {
            Known::Whole => self.judge(text, class),
            Known::Start => self.judge_start(text, class),
        };
        let Some(mut ruling) = ruling else {
            return Ok(Ok(()));
        };
        ruling.count(unix_time());
        if let Err(answer) = self.admit(&mut ruling, None).await? {
            return Ok(Err(answer));
        }
        if let Some(answer) = ruling.answer() {
            return Ok(Err(prepared_answer(answer, &ruling.names())));
        }
        if ruling.actions().rewrite.is_some() {
            let text = format!(
                "dbproxy: rule {} rewrites this statement, which is too long for that",
                ruling.names()
            );
            return Ok(Err(Answer::new(1105, b"HY000", text)));
        }
        if let Some(RouteTo::Cluster(name)) = &ruling.actions().route
            && *name != *self.context.name
        {
            let text = format!(
                "dbproxy: by the rules ({}) this statement belongs to the cluster {name}, but it is too long to be taken there",
                ruling.names()
            );
            return Ok(Err(Answer::new(1105, b"HY000", text)));
        }
        self.ruling = Some(Box::new(ruling));
        Ok(Ok(()))
    }

    /// Whether the statement may run, of which the firewall knows nothing if its `text` is not known whole.
    async fn admit(
        &mut self,
        ruling: &mut Ruling,
        text: Option<&[u8]>,
    ) -> Result<Result<(), Answer>, Error> {
        if let Err(answer) = self.pass_firewall(ruling, text) {
            return Ok(Err(answer));
        }
        let patience = self.context.limits.queue_wait;
        let (account, client) = (self.login.account.clone(), self.peer.ip());
        // Others may wait for what it has locked, in places that it would wait for.
        let patience = (!self.is_bound()).then_some(patience);
        let admitted = async { Ok(ruling.admit(&account, client, patience).await) };
        self.patiently(admitted).await
    }

    fn pass_firewall(&self, ruling: &Ruling, text: Option<&[u8]>) -> Result<(), Answer> {
        for (rule, mode) in ruling.firewalls() {
            let admitted = match text {
                Some(text) => {
                    let firewall = &self.context.firewall;
                    firewall.admits(rule, mode, text, self.dialect, unix_time())
                }
                None => mode != rule::Firewall::Enforce,
            };
            if !admitted {
                let why = match text {
                    Some(_) => "the firewall has not learned this statement",
                    None => "this statement is too long for the firewall to know it",
                };
                let text = format!("dbproxy: rule \"{rule}\": {why}");
                return Err(Answer::new(1227, b"42000", text));
            }
        }
        Ok(())
    }

    /// The statement has ended, whatever became of it.
    pub(super) fn close_ruling(&mut self, text: &[u8]) {
        if let Some(ruling) = self.ruling.take() {
            self.log_ruling(&ruling, text);
        }
    }

    fn log_ruling(&self, ruling: &Ruling, text: &[u8]) {
        ruling.log(self.handle().id(), &self.login.account, text, self.dialect);
    }

    /// What rules allow the answer that is about to come on `conn`.
    pub(super) fn curb(&self, conn: &PooledConn, class: &StatementClass) -> Option<Box<Curb>> {
        let ruling = self.ruling.as_deref()?;
        let may_write = class.facts.contains(Facts::MAY_WRITE);
        Curb::new(ruling, conn, &self.login, may_write).map(Box::new)
    }

    /// Takes down where the statement ran that rules have a say in.
    pub(super) fn note_ruling(&mut self, conn: &PooledConn, reason: Reason, outcome: &Outcome) {
        let error = outcome.error;
        if let Some(ruling) = &mut self.ruling {
            if let Some(filling) = ruling.filling.take()
                && (error, outcome.warnings) == (None, 0)
            {
                self.context.answers.keep(*filling, Instant::now());
            }
            let topology = self.context.topology.borrow();
            let server = topology.server(conn.server());
            ruling.ran(server.map_or("", |server| &server.name), reason, error);
        }
    }

    async fn reply_fixed(&mut self, answer: &FixedAnswer) -> Result<Flow, Error> {
        match answer {
            FixedAnswer::Ok => self.reply_ok().await,
            FixedAnswer::Error {
                code,
                state,
                message,
            } => {
                let answer = Answer::new(*code, state, message.clone());
                self.reply_error(&answer).await
            }
            FixedAnswer::Rows { columns, rows } => {
                let mut out = BytesMut::new();
                let names: Vec<_> = columns.iter().map(String::as_str).collect();
                self.put_table(&mut out, &names, rows);
                self.reply(&out).await
            }
        }
    }
}

/// A fixed answer where only an error can be given.
fn prepared_answer(answer: &FixedAnswer, rules: &str) -> Answer {
    match answer {
        FixedAnswer::Error {
            code,
            state,
            message,
        } => Answer::new(*code, state, message.clone()),
        // ER_UNSUPPORTED_PS: drivers that can then send the text itself.
        _ => Answer::new(
            1295,
            b"HY000",
            format!(
                "dbproxy: rule {rules} answers this statement, which it does only for text queries"
            ),
        ),
    }
}
