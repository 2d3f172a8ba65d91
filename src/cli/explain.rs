//! `dbproxy explain`: where statements would go, and why, without a server.
//!
//! The statements are those of one session, one after the other: what a statement opens or ties counts for the next.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::Instant;

use super::{Failure, Status};
use crate::config::{
    Administration, Consistency, ReadOnlyTransactions, ServerAddress, ServerConfig,
};
use crate::routing::{
    self, Freshness, Load, PinReason, Reading, Reason, Route, SessionView, Target, Turn, Wish,
};
use crate::sql::set::Assignment;
use crate::sql::setting::Settings;
use crate::sql::{self, Dialect, Facts, Hint, Kind, StatementClass};
use crate::topology::{
    Observation, Server, ServerFacts, ServerId, SourceFacts, ThreadState, Topology, Tracker,
    Version, WriteBlock,
};

/// What to explain.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration with the servers to take part; the first counts as the primary
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The servers' family, which decides how the statements are read
    #[arg(long, value_name = "FLAVOR", default_value = "mysql")]
    flavor: Flavor,

    /// Statements of one session; without any, one per line from standard input
    #[arg(value_name = "STATEMENT")]
    statements: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flavor {
    #[value(name = "mariadb")]
    MariaDb,
    #[value(name = "mysql")]
    MySql,
}

impl Flavor {
    /// A version that is in use; it decides which executable comments are code.
    fn version(self) -> Option<Version> {
        Version::parse(match self {
            Self::MariaDb => "10.11.0-MariaDB",
            Self::MySql => "8.4.0",
        })
    }

    fn dialect(self) -> Dialect {
        let number = self.version().map_or(0, |version| version.number());
        Dialect::of(self == Self::MariaDb, number)
    }
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Status, Failure> {
    let mut session = match &arguments.config {
        Some(file) => {
            let cluster = super::load(file)?.config.cluster;
            let mut session = Session::new(cluster.servers, cluster.consistency, arguments.flavor);
            session.view.read_only_transactions = cluster.read_only_transactions;
            session.administration = cluster.administration;
            session
        }
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

/// The smallest cluster in which something can be decided.
fn imagined() -> Vec<ServerConfig> {
    let server = |name: &str| {
        let host = name.to_owned();
        ServerConfig::new(name, ServerAddress::Tcp { host, port: 3306 })
    };
    vec![server("primary"), server("replica")]
}

/// A session as far as statements alone tell.
struct Session {
    topology: Topology,
    dialect: Dialect,
    view: SessionView,
    administration: Administration,
    explained: bool,
}

impl Session {
    fn new(servers: Vec<ServerConfig>, consistency: Consistency, flavor: Flavor) -> Self {
        Self {
            topology: sound(&servers, flavor),
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
            explained: false,
        }
    }

    /// Writes what becomes of a statement, and lets it run in the imagination. A blank one is left out.
    fn explain(&mut self, statement: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let statement = statement.trim_ascii();
        if statement.is_empty() {
            return Ok(());
        }
        let class = sql::classify(statement, self.dialect);
        let consistency = self.view.wish.consistency;
        self.view.wish = Wish::new(class.hint, &Settings::default(), consistency);
        let mut route = routing::decide(
            &class,
            &self.view,
            &self.topology,
            |_| Freshness::Fresh,
            |_| Load::default(),
            &Turn::default(),
        );
        if self.administration == Administration::Refuse
            && let Some(breach) = sql::administration::find(statement, class.kind, self.dialect)
        {
            route = Route {
                target: Target::Nowhere,
                reason: Reason::Administration(breach.harm),
            };
        }
        if self.explained {
            writeln!(out)?;
        }
        self.explained = true;
        writeln!(out, "{}", String::from_utf8_lossy(statement))?;
        writeln!(out, "  class   {}", class.kind)?;
        if class.facts != Facts::default() {
            writeln!(out, "  facts   {:?}", class.facts)?;
        }
        writeln!(out, "  target  {}", self.target(&route))?;
        writeln!(out, "  reason  {}", route.reason)?;
        let tables = sql::tables(statement, self.dialect);
        let doubt = if tables.parsed { "" } else { " (guessed)" };
        for (label, names) in [("reads ", &tables.read), ("writes", &tables.written)] {
            if !names.is_empty() {
                writeln!(out, "  {label}  {}{doubt}", names.join(", "))?;
            }
        }
        for (label, text) in sql::mentions(statement, &class, self.dialect) {
            writeln!(out, "  {:<6}  {text}", label.to_lowercase())?;
        }
        writeln!(out, "  digest  {:016x}", class.digest)?;
        self.follow(statement, &class, &route);
        Ok(())
    }

    fn target(&self, route: &Route) -> String {
        let name = |server: Option<&Server>| server.map_or("?", |server| &server.name).to_owned();
        let of_role = |role: &str, server: Option<&Server>| match name(server) {
            same if same == role => same,
            name => format!("{role} {name}"),
        };
        match route.target {
            Target::Primary => of_role("primary", self.topology.primary()),
            Target::Replica(id) if self.is_only_choice(route.reason) => {
                of_role("replica", self.topology.server(id))
            }
            Target::Replica(_) => "any replica".to_owned(),
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

    fn is_only_choice(&self, reason: Reason) -> bool {
        reason == Reason::HintServer || self.topology.readable_replicas().count() == 1
    }

    /// What the statement leaves behind, if it succeeds.
    fn follow(&mut self, statement: &[u8], class: &StatementClass, route: &Route) {
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
        let mut pin = routing::pin_for(class);
        if class.kind == Kind::Set {
            let assignments = sql::set::parse(statement, self.dialect);
            pin = routing::pin_for_set(assignments.as_deref());
            for assignment in assignments.iter().flatten() {
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

/// These servers, all up and without lag, the first of them writable.
fn sound(servers: &[ServerConfig], flavor: Flavor) -> Topology {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut tracker = Tracker::new(servers, second, second, now);
    let source = servers.first().map(|server| &server.address);
    for (id, version) in (0..).zip(servers.iter().map(|_| flavor.version())) {
        let Some(version) = version else {
            continue;
        };
        let facts = ServerFacts {
            version,
            uuid: None,
            server_id: u32::from(id) + 1,
            write_block: (id > 0).then_some(WriteBlock::ReadOnly),
            log_bin: true,
            gtid: true,
            executed: None,
            replicated: None,
            sources: source
                .filter(|_| id > 0)
                .map(replication)
                .into_iter()
                .collect(),
            collation: 45,
            sql_mode: "".into(),
            defaults: crate::topology::Defaults::default(),
        };
        let server = ServerId(id);
        tracker.observe(Observation {
            server,
            asked_at: now,
            at: now,
            result: Ok(facts),
        });
    }
    tracker.snapshot()
}

fn replication(from: &ServerAddress) -> SourceFacts {
    let (host, port) = match from {
        ServerAddress::Tcp { host, port } => (host.as_str(), *port),
        ServerAddress::Unix(_) => ("localhost", 3306),
    };
    SourceFacts {
        channel: "".into(),
        host: host.into(),
        port,
        uuid: None,
        server_id: Some(1),
        receiver: ThreadState::Running,
        applier: ThreadState::Running,
        behind: Some(Duration::ZERO),
        delay: Duration::ZERO,
        error: None,
    }
}
