//! Statements that run on another cluster than the session's own.

use std::{mem, sync::Arc};

use dbproxy_proto::capability::StatusFlags;

use super::{Context, Session, door, rules::Policy, scopes::SessionScopes};
use crate::{
    backend::{Login, SessionState},
    config::rule::RouteTo,
    error::{Answer, Error, Origin},
    routing,
    sql::{Dialect, Facts, Kind, StatementClass},
};

/// What of a session is its own cluster's, while a statement of its runs on another one.
pub(super) struct Home {
    context: Arc<Context>,
    scopes: SessionScopes,
    login: Login,
    policy: Arc<Policy>,
    base: Dialect,
    dialect: Dialect,
    status: StatusFlags,
    wanted: Arc<SessionState>,
}

impl Session {
    /// Takes the session to the cluster on which a statement is to run, if that is another one, until it comes
    /// [`home`](Self::come_home). `state`: in which it was prepared, if it was; `cursor`: it is to open one.
    ///
    /// # Errors
    /// What the client is told in place of the statement's answer.
    pub(super) async fn depart(
        &mut self,
        text: &[u8],
        class: &StatementClass,
        state: Option<&SessionState>,
        cursor: bool,
    ) -> Result<Result<Option<Home>, Answer>, Error> {
        let context = match self.destination(text, class) {
            Ok(None) => return Ok(Ok(None)),
            Ok(Some(context)) => context,
            Err(answer) => return Ok(Err(answer)),
        };
        if let Some(why) = self.stays_for() {
            return Ok(Err(self.refused_at(&context, &why)));
        }
        let login = match self.login_at(&context).await {
            Ok(login) => login,
            Err(error) if error.origin == Origin::Client => return Err(error),
            Err(error) => return Ok(Err(error.answer())),
        };
        let scopes = self.scopes_at(&context);
        let home = match scopes {
            Some(scopes) => self.visit_again(&context, login, scopes),
            None => self.visit(&context, login),
        };
        let class = match state {
            Some(_) => *class,
            None => self.classify(text),
        };
        let wanted = Arc::clone(&self.wanted);
        let class = self.look_up(class, text, state.unwrap_or(&wanted)).await;
        if let Some(why) = would_leave_something(&class, cursor) {
            self.come_home(Some(home));
            return Ok(Err(self.refused_at(&context, &why)));
        }
        Ok(Ok(Some(home)))
    }

    /// Takes the session to where a statement would run, if that is another cluster, for as long as only questions are asked.
    ///
    /// # Errors
    /// What the client would be told in place of the statement's answer.
    pub(super) fn would_depart(
        &mut self,
        text: &[u8],
        class: &StatementClass,
    ) -> Result<Option<Home>, Answer> {
        let Some(context) = self.destination(text, class)? else {
            return Ok(None);
        };
        if let Some(why) = self.stays_for() {
            return Err(self.refused_at(&context, &why));
        }
        let claim = self.claim_at(&context).map_err(|error| error.answer())?;
        let home = self.visit(&context, claim.login());
        let class = self.looked_up(self.classify(text), text, &self.wanted);
        if let Some(why) = would_leave_something(&class, false) {
            self.end_visit(home);
            return Err(self.refused_at(&context, &why));
        }
        Ok(Some(home))
    }

    /// Makes another cluster the session's own for a while, as one that has seen nothing of it yet.
    pub(super) fn visit(&mut self, context: &Arc<Context>, login: Login) -> Home {
        let consistency = context.policy.borrow().consistency;
        let scopes = SessionScopes::begin(context, &login.account, consistency);
        self.visit_again(context, login, scopes)
    }

    /// The same for one to which what it has written and seen there before is known.
    fn visit_again(
        &mut self,
        context: &Arc<Context>,
        login: Login,
        mut scopes: SessionScopes,
    ) -> Home {
        scopes.set_key(&login.account, self.settings.key);
        let mut policy = Arc::clone(&context.policy.borrow());
        self.rules.swap_policy(&mut policy);
        let base = {
            let topology = context.topology.borrow();
            topology.greeting.as_ref().map(door::dialect)
        };
        // Whatever the servers' default is there: nothing may be left open.
        let wanted = Arc::new(self.wanted.with_variable("autocommit", "1"));
        let home = Home {
            scopes: mem::replace(&mut self.scopes, scopes),
            context: mem::replace(&mut self.context, Arc::clone(context)),
            login: mem::replace(&mut self.login, login),
            policy,
            base: self.base,
            dialect: self.dialect,
            status: self.status,
            wanted: mem::replace(&mut self.wanted, wanted),
        };
        self.base = base.unwrap_or(self.base);
        self.dialect = self.dialect_of(&self.wanted);
        home
    }

    /// Returns from where the session was, if it was anywhere and something ran there.
    pub(super) fn come_home(&mut self, home: Option<Home>) {
        let Some(home) = home else { return };
        let cluster = self.context.cluster;
        let scopes = self.end_visit(home);
        self.keep_scopes(cluster, scopes);
        // What nobody could foresee, such as a variable that a trigger has set, is left behind: the connection is reset.
        self.pins.clear();
        self.reading = None;
        self.wrote_in_transaction = false;
        if self.held.take().is_some() {
            self.handle().release();
        }
    }

    /// Makes the session its own cluster's again; what it has written and seen where it was.
    pub(super) fn end_visit(&mut self, mut home: Home) -> SessionScopes {
        self.rules.swap_policy(&mut home.policy);
        self.context = home.context;
        let scopes = mem::replace(&mut self.scopes, home.scopes);
        self.login = home.login;
        self.base = home.base;
        self.dialect = home.dialect;
        self.status = home.status;
        self.wanted = home.wanted;
        scopes
    }

    /// The cluster on which a statement runs, if it is not the session's own.
    pub(super) fn destination(
        &self,
        text: &[u8],
        class: &StatementClass,
    ) -> Result<Option<Arc<Context>>, Answer> {
        let asks = class.facts.contains(Facts::PREVIOUS_STATEMENT) && !self.is_bound();
        let previous = self.kept.filter(|kept| kept.previous && asks);
        if self.ruled_name().is_none() && previous.is_none() {
            return Ok(None);
        }
        let is_the_sessions = matches!(
            class.kind,
            Kind::Set | Kind::Use | Kind::Begin { .. } | Kind::Kill | Kind::Empty
        ) || self.is_for_the_proxy(class, text)
            || self.concerns_trackers(class, text);
        if is_the_sessions {
            return Ok(None);
        }
        let ruled = self.ruled_cluster()?.unwrap_or(&self.context);
        let asked = previous.and_then(|kept| self.clusters.get(kept.server.cluster()));
        let asked = asked.unwrap_or(ruled);
        if !Arc::ptr_eq(asked, ruled) {
            let tables = self.context.classifier.tables(text, class, self.dialect);
            if !tables.read.is_empty() || !tables.written.is_empty() {
                let text = format!(
                    "dbproxy: this statement asks about the one before, which ran on the cluster {}, and names tables of the \
                     cluster {}: ask first",
                    asked.name, ruled.name
                );
                return Err(Answer::new(1105, b"HY000", text));
            }
        }
        Ok((!Arc::ptr_eq(asked, &self.context)).then(|| Arc::clone(asked)))
    }

    fn ruled_name(&self) -> Option<&str> {
        match &self.ruling.as_deref()?.actions().route {
            Some(RouteTo::Cluster(name)) => Some(name),
            _ => None,
        }
    }

    /// The cluster that a rule names.
    fn ruled_cluster(&self) -> Result<Option<&Arc<Context>>, Answer> {
        let Some(name) = self.ruled_name() else {
            return Ok(None);
        };
        let found = self.clusters.iter().find(|context| *context.name == *name);
        let Some(found) = found else {
            let text = format!(
                "dbproxy: a rule sends this statement to the cluster {name}, which is there only after a restart"
            );
            return Err(Answer::new(1105, b"HY000", text));
        };
        let flavor = |context: &Context| {
            let topology = context.topology.borrow();
            topology
                .greeting
                .as_ref()
                .map(|greeting| greeting.version.flavor)
        };
        match (flavor(found), flavor(&self.context)) {
            (Some(its), Some(own)) if its != own => {
                Err(self.refused_at(found, "its servers are of another family"))
            }
            _ => Ok(Some(found)),
        }
    }

    /// Whether the statement before left answers on another cluster.
    pub(super) fn left_answers_elsewhere(&self) -> bool {
        let own = usize::from(self.context.cluster);
        self.kept
            .is_some_and(|kept| kept.previous && kept.server.cluster() != own)
    }

    /// Why nothing of this session can run elsewhere now.
    fn stays_for(&self) -> Option<String> {
        if self.status.contains(StatusFlags::IN_TRANS) || self.reading.is_some() {
            return Some(
                "a transaction is open, which cannot reach over two clusters: end it first"
                    .to_owned(),
            );
        }
        if let Some(pin) = self.pins.first() {
            return Some(format!(
                "the session is tied to a connection of its own cluster ({pin})"
            ));
        }
        let autocommit = self.status.contains(StatusFlags::AUTOCOMMIT);
        (!autocommit).then(|| {
            "autocommit is off, and a transaction cannot reach over two clusters: switch it on first".to_owned()
        })
    }

    /// The answer to a statement that cannot run where it should.
    pub(super) fn refused_at(&self, context: &Context, why: &str) -> Answer {
        let by = match &self.ruling {
            Some(ruling) => format!("by the rules ({})", ruling.names()),
            None => "as a question about the statement before".to_owned(),
        };
        let text = format!(
            "dbproxy: {by} this statement belongs to the cluster {}, but {why}",
            context.name
        );
        Answer::new(1105, b"HY000", text)
    }
}

/// What a statement would leave on its connection, which a session can have at its own cluster only.
fn would_leave_something(class: &StatementClass, cursor: bool) -> Option<String> {
    if class.kind == Kind::Multi {
        return Some("it is one of several in a packet: send them one by one".to_owned());
    }
    let cursor = cursor && matches!(class.kind, Kind::Read | Kind::Show | Kind::Explain);
    let pin = if cursor {
        Some(routing::PinReason::Cursor)
    } else {
        routing::pin_for(class)
    };
    pin.map(|pin| format!("it would tie the session to a connection there ({pin})"))
}
