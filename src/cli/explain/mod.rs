//! `dbproxy explain`: where statements would go, and why, without a server.
//!
//! The statements are those of one session, one after the other: what a statement opens or ties counts for the next.

mod rules;
mod servers;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, Status};
use crate::config::rule::{Actions, FixedAnswer};
use crate::config::{
    Administration, Cluster, Config, Consistency, ReadOnlyTransactions, Rule, ServerConfig,
};
use crate::routing::clusters::{self, By};
use crate::routing::rewrite::rewritten;
use crate::routing::{
    self, Freshness, Load, PinReason, Reading, Reason, Route, SessionView, Target, Turn, Wish,
};
use crate::sql::set::Assignment;
use crate::sql::setting::Settings;
use crate::sql::{self, Cause, Dialect, Facts, Hint, Kind, StatementClass};
use crate::topology::{Server, ServerId, Topology};
use rules::Client;
use servers::{Flavor, imagined, sound};

/// What to explain.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration with the rules and the servers to take part; a cluster's first counts as its primary
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The user, for rules and to tell the cluster
    #[arg(long, value_name = "NAME", requires = "config")]
    account: Option<String>,

    /// The schema in use at the beginning, for the same
    #[arg(long, value_name = "NAME", requires = "config")]
    schema: Option<String>,

    /// The client's address, for rules
    #[arg(long, value_name = "ADDRESS", requires = "config")]
    client: Option<IpAddr>,

    /// The servers' family, which decides how the statements are read
    #[arg(long, value_name = "FLAVOR", default_value = "mysql")]
    flavor: Flavor,

    /// Statements of one session; without any, one per line from standard input
    #[arg(value_name = "STATEMENT")]
    statements: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Status, Failure> {
    let mut session = match &arguments.config {
        Some(file) => Session::of(super::load(file)?.config, arguments),
        None => Session::new(imagined(), Consistency::default(), arguments.flavor),
    };
    if arguments.statements.is_empty() {
        // Statements need not be UTF-8.
        for line in io::stdin().lock().split(b'\n') {
            session.explain(&line?, out)?;
        }
    }
    for statement in &arguments.statements {
        session.explain(statement.as_bytes(), out)?;
    }
    Ok(Status::Fine)
}

/// A session as far as statements alone tell.
struct Session {
    topology: Topology,
    /// What reads must see by the configuration.
    consistency: Consistency,
    dialect: Dialect,
    view: SessionView,
    administration: Administration,
    /// The cluster that it belongs to, in words, if there are several.
    cluster: Option<String>,
    rules: Vec<Rule>,
    client: Client,
    /// The user variables that have got constants.
    variables: BTreeSet<Vec<u8>>,
    explained: bool,
}

impl Session {
    fn new(servers: Vec<ServerConfig>, consistency: Consistency, flavor: Flavor) -> Self {
        Self {
            topology: sound(&servers, flavor),
            consistency,
            dialect: flavor.dialect(),
            view: SessionView {
                in_transaction: false,
                reading: None,
                read_only: false,
                locks_reads: false,
                read_only_transactions: ReadOnlyTransactions::Primary,
                pinned: None,
                autocommit: true,
                wish: Wish::new(Hint::None, &Settings::default(), consistency),
                previous: None,
            },
            administration: Administration::default(),
            cluster: None,
            rules: Vec::new(),
            client: Client::default(),
            variables: BTreeSet::new(),
            explained: false,
        }
    }

    /// That of a client of which the arguments tell what they tell.
    fn of(config: Config, arguments: &Arguments) -> Self {
        let client = Client {
            account: arguments.account.clone(),
            address: arguments.client,
            schema: arguments.schema.clone().map(String::into_bytes),
        };
        let (cluster, by) = cluster_of(&config, &client);
        let (servers, consistency) = (cluster.servers.clone(), cluster.consistency);
        let mut session = Self::new(servers, consistency, arguments.flavor);
        session.view.read_only_transactions = cluster.read_only_transactions;
        session.administration = cluster.administration;
        session.cluster =
            (!config.clusters.is_empty()).then(|| in_words(cluster, by, &config, &client));
        session.rules = config.rules;
        session.client = client;
        session
    }

    /// Writes what becomes of a statement, and lets it run in the imagination. A blank one is left out.
    fn explain(&mut self, statement: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let statement = statement.trim_ascii();
        if statement.is_empty() {
            return Ok(());
        }
        if self.explained {
            writeln!(out)?;
        }
        self.explained = true;
        writeln!(out, "{}", String::from_utf8_lossy(statement))?;
        if let Some(cluster) = &self.cluster {
            writeln!(out, "  cluster {cluster}")?;
        }
        let class = sql::classify(statement, self.dialect);
        let (actions, made) = self.rule(statement, &class, out)?;
        if let Some(answer) = &actions.answer {
            let does = match answer {
                FixedAnswer::Error { .. } => "refuses it",
                FixedAnswer::Ok | FixedAnswer::Rows { .. } => "answers it",
            };
            writeln!(out, "  class   {}", class.kind)?;
            writeln!(out, "  target  nowhere")?;
            writeln!(out, "  reason  a rule {does}")?;
            return writeln!(out, "  digest  {:016x}", class.digest);
        }
        let made = made.trim_ascii();
        let class = sql::classify(made, self.dialect);
        self.place(made, &class, &actions, out)
    }

    /// Writes which rules concern a statement; what they say of it, and the statement that they make of it.
    fn rule<'s>(
        &self,
        statement: &'s [u8],
        class: &StatementClass,
        out: &mut dyn Write,
    ) -> io::Result<(Actions, Cow<'s, [u8]>)> {
        let found = rules::find(&self.rules, statement, class, &self.client, self.dialect);
        for rule in &found.matching {
            writeln!(out, "  rule    {}: {}", rule.name, rule.effect())?;
        }
        for (rule, unknown) in &found.possible {
            let unknown = unknown.join(", ");
            let effect = rule.effect();
            writeln!(out, "  may match  {} (by {unknown}): {effect}", rule.name)?;
        }
        let actions = Actions::of(found.matching.iter().map(|rule| &rule.then));
        if actions.answer.is_some() {
            return Ok((actions, Cow::Borrowed(statement)));
        }
        match rewritten(found.matching.iter().copied(), statement, self.dialect) {
            Ok(Some(made)) => {
                writeln!(out, "  becomes {}", String::from_utf8_lossy(&made))?;
                Ok((actions, Cow::Owned(made)))
            }
            Ok(None) => Ok((actions, Cow::Borrowed(statement))),
            Err(message) => {
                let refused = FixedAnswer::Error {
                    code: 1105,
                    state: *b"HY000",
                    message,
                };
                let answer = Some(refused);
                let actions = Actions { answer, ..actions };
                Ok((actions, Cow::Borrowed(statement)))
            }
        }
    }

    /// Writes what a statement is and where it goes under what rules say, and takes in what it leaves behind.
    fn place(
        &mut self,
        statement: &[u8],
        class: &StatementClass,
        actions: &Actions,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let route = self.route(statement, class, actions);
        writeln!(out, "  class   {}", class.kind)?;
        if class.facts != Facts::default() {
            writeln!(out, "  facts   {:?}", class.facts)?;
        }
        writeln!(out, "  target  {}", self.target(&route))?;
        writeln!(out, "  reason  {}", route.reason)?;
        if class.cause == Cause::UnknownFunction {
            let note = "the servers' functions are not known here; EXPLAIN ROUTE knows them";
            writeln!(out, "  note    {note}")?;
        }
        let tables = sql::tables(statement, self.dialect);
        let doubt = if tables.parsed { "" } else { " (guessed)" };
        for (label, names) in [("reads ", &tables.read), ("writes", &tables.written)] {
            if !names.is_empty() {
                writeln!(out, "  {label}  {}{doubt}", names.join(", "))?;
            }
        }
        for (label, text) in sql::mentions(statement, class, self.dialect) {
            writeln!(out, "  {:<6}  {text}", label.to_lowercase())?;
        }
        writeln!(out, "  digest  {:016x}", class.digest)?;
        self.follow(statement, class, &route);
        Ok(())
    }

    fn route(&mut self, statement: &[u8], class: &StatementClass, actions: &Actions) -> Route {
        if self.administration == Administration::Refuse
            && let Some(breach) = sql::administration::find(statement, class.kind, self.dialect)
        {
            return Route::new(Target::Nowhere, Reason::Administration(breach.harm));
        }
        let wish = Wish::new(class.hint, &Settings::default(), self.consistency);
        self.view.wish = wish.under(actions);
        routing::decide(
            class,
            &self.view,
            &self.topology,
            |_| Freshness::Fresh,
            |_| Load::default(),
            &Turn::default(),
        )
    }

    fn target(&self, route: &Route) -> String {
        let name = |server: Option<&Server>| server.map_or("?", |server| &server.name).to_owned();
        let of_role = |role: &str, server: Option<&Server>| match name(server) {
            same if same == role => same,
            name => format!("{role} {name}"),
        };
        match route.target {
            Target::Primary => of_role("primary", self.topology.primary()),
            Target::Replica(id) if self.is_only_choice(route.reason, id) => {
                of_role("replica", self.topology.server(id))
            }
            Target::Replica(id) => match self.group(route.reason, id) {
                Some(group) => format!("any replica of group {group}"),
                None => "any replica".to_owned(),
            },
            Target::Nowhere => "nowhere".to_owned(),
            Target::Kept => {
                let server = self.view.previous.and_then(|id| self.topology.server(id));
                format!(
                    "the connection in use, to {}",
                    name(server.or_else(|| self.topology.primary()))
                )
            }
        }
    }

    /// The group that a read is for, if it is for one.
    fn group(&self, reason: Reason, of: ServerId) -> Option<&str> {
        let server = self.topology.server(of)?;
        let asked = matches!(reason, Reason::HintGroup | Reason::RuleGroup);
        server.group.as_deref().filter(|_| asked)
    }

    fn is_only_choice(&self, reason: Reason, chosen: ServerId) -> bool {
        let group = self.group(reason, chosen);
        let fits = |server: &&Server| group.is_none() || server.group.as_deref() == group;
        matches!(reason, Reason::HintServer | Reason::RuleServer)
            || self.topology.readable_replicas().filter(fits).count() == 1
    }

    /// What the statement leaves behind, if it succeeds.
    fn follow(&mut self, statement: &[u8], class: &StatementClass, route: &Route) {
        if let Some(schema) = sql::use_schema(statement, self.dialect) {
            self.client.schema = Some(schema);
        }
        let view = &mut self.view;
        let opened = match route.target {
            Target::Nowhere => return,
            Target::Replica(server)
                if !view.autocommit || routing::begins_reading(class, view.read_only) =>
            {
                Some(server)
            }
            Target::Primary if view.reading.is_some() => {
                view.reading = None;
                None
            }
            _ => None,
        };
        view.previous = match route.target {
            Target::Primary => self.topology.primary,
            Target::Replica(id) => Some(id),
            Target::Kept | Target::Nowhere => view.previous.or(self.topology.primary),
        };
        let known = |name: &[u8]| self.variables.contains(name);
        let mut free = *class;
        if sql::reads_known_variables(statement, class, self.dialect, known) {
            free.facts = free.facts.difference(Facts::USER_VARIABLE);
        }
        let mut pin = routing::pin_for(&free);
        if !self.variables.is_empty() && routing::may_change_variables(class) {
            pin = pin.or(Some(PinReason::UserVariable));
        }
        if class.kind == Kind::Set {
            let assignments = sql::set::parse(statement, self.dialect);
            pin = routing::pin_for_set(assignments.as_deref());
            for assignment in assignments.iter().flatten() {
                if let (Assignment::UserVariable { name, .. }, None) = (assignment, pin) {
                    self.variables.insert(name.clone());
                }
                if let Assignment::Autocommit(on) = assignment {
                    view.autocommit = *on;
                    view.in_transaction &= !*on;
                }
                if let Assignment::Variable { name, value } = assignment
                    && matches!(name.as_str(), "transaction_read_only" | "tx_read_only")
                {
                    view.read_only = value == b"1" || value.eq_ignore_ascii_case(b"on");
                }
            }
        }
        let opens = matches!(
            class.kind,
            Kind::Read | Kind::Write | Kind::LoadData | Kind::Call
        );
        view.in_transaction = match class.kind {
            Kind::Begin { .. } => true,
            Kind::Commit | Kind::Rollback => class.facts.contains(Facts::CHAIN),
            _ if class.facts.contains(Facts::IMPLICIT_COMMIT) => false,
            _ => view.in_transaction || (opens && !view.autocommit),
        };
        view.reading = match view.in_transaction {
            true => Reading::after(view.reading, class, opened),
            false => None,
        };
        let over = class.kind != Kind::Set && !view.in_transaction;
        if view.pinned == Some(PinReason::NextTransaction) && over {
            view.pinned = None;
        }
        // Whether a procedure leaves something behind, only the server can tell.
        view.pinned = view
            .pinned
            .or_else(|| pin.filter(|pin| *pin != PinReason::Procedure));
    }
}

/// The cluster of a client's session.
fn cluster_of<'c>(config: &'c Config, client: &Client) -> (&'c Cluster, By) {
    let user = client.account.as_deref().map(str::as_bytes);
    let serves = config.all_clusters().map(|cluster| &cluster.serves);
    let (place, by) = clusters::choose(serves, None, user, client.schema.as_deref());
    let cluster = config.all_clusters().nth(place);
    (cluster.unwrap_or(&config.cluster), by)
}

fn in_words(cluster: &Cluster, by: By, config: &Config, client: &Client) -> String {
    let mut text = format!("{}: {by}", cluster.name);
    let others = || config.clusters.iter().map(|cluster| &cluster.serves);
    let mut doubts = Vec::new();
    if others().any(|serves| !serves.server_names.is_empty()) {
        doubts.push("the name that the client asks for by TLS");
    }
    if client.account.is_none() && others().any(|serves| !serves.accounts.is_empty()) {
        doubts.push("--account");
    }
    let by_schema = others().any(|serves| !serves.schemas.is_empty());
    if client.schema.is_none() && by == By::Nothing && by_schema {
        doubts.push("--schema");
    }
    if !doubts.is_empty() {
        text = format!("{text}, unless {} says otherwise", doubts.join(" or "));
    }
    text
}
