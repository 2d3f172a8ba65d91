//! Given a configuration and statements: the server that each of them runs on, as the servers' own logs tell.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "placement/cases.rs"]
mod cases;
#[path = "placement/client.rs"]
mod client;
#[path = "placement/servers.rs"]
mod servers;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use dbproxy::cli::demo::cluster::{APPLICATION_PRIVILEGES, Cluster, Flavor};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio::time;

use cases::{Case, Does, Expected, Scenario, Step, scenarios};
use client::{execute, prepare, query};
use servers::Logs;
use support::raw::{Raw, Refused, capability};
use support::{Proxy, SOON, WHERE, corpus, eventually};

on_both_flavors!(statements_run_where_they_belong);

/// Fewer cases than this would be a mistake in the file.
const AT_LEAST: usize = 150;

/// The error for statements that cannot be prepared. Drivers send them as text.
const ONLY_AS_TEXT: u16 = 1295;

/// What the statements find, in the schema in use.
const FIXTURES: &[&str] = &[
    "CREATE DATABASE shop",
    "CREATE DATABASE other",
    "CREATE TABLE shop.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT, s VARCHAR(100)) CHARSET utf8mb4",
    "INSERT INTO shop.t (a, s) VALUES (1, 'one'), (2, 'two'), (3, 'three')",
    "CREATE TABLE shop.n (id INT AUTO_INCREMENT PRIMARY KEY, a INT)",
    "CREATE TABLE shop.u (a INT)",
    "CREATE TABLE shop.balances (a INT)",
    "CREATE TABLE other.t (a INT)",
    "CREATE VIEW shop.v AS SELECT a FROM shop.t",
    "CREATE PROCEDURE shop.p () SELECT 1",
    "CREATE PROCEDURE shop.writes () INSERT INTO shop.u VALUES (1)",
];

/// Accounts besides `app`, whose passwords are their names.
const ACCOUNTS: &[&str] = &["second", "report"];

async fn statements_run_where_they_belong(flavor: Flavor) {
    let scenarios = scenarios();
    let cluster = Cluster::start(flavor, 2).await.unwrap();
    let mut root = cluster.primary().connect().await.unwrap();
    for sql in FIXTURES {
        root.query_drop(*sql).await.unwrap();
    }
    for account in ACCOUNTS {
        let user = format!("CREATE USER {account}@'%' IDENTIFIED BY '{account}'");
        let rights = format!("GRANT {APPLICATION_PRIVILEGES} ON *.* TO {account}@'%'");
        root.query_drop(user).await.unwrap();
        root.query_drop(rights).await.unwrap();
    }
    if flavor == Flavor::MariaDb {
        root.query_drop("CREATE SEQUENCE shop.q").await.unwrap();
    }
    cluster.caught_up().await.unwrap();
    let mut logs = Logs::begin(&cluster).await;
    let (mut ran, mut wrong) = (0, Vec::new());
    for scenario in &scenarios {
        let mut options = scenario.options.clone();
        // So that a place follows from what came before, and not from what replicas do meanwhile.
        options
            .cluster
            .push_str("replica_wait = \"0s\"\nmonotonic_reads = \"off\"\n");
        let proxy = Proxy::start(&cluster, &options).await;
        let mut asker = Raw::app(proxy.port()).await;
        let eventual = "SET @dbproxy_consistency = 'eventual'";
        asker.rows(eventual).await.unwrap();
        replicas_serve(asker).await;
        for case in scenario.cases.iter().filter(|case| case.is_for(flavor)) {
            for prepared in [false, true] {
                if prepared && !case.twice {
                    continue;
                }
                let mut run = Run {
                    cluster: &cluster,
                    proxy: &proxy,
                    logs: &mut logs,
                    prepared,
                    account: "app",
                    conns: BTreeMap::new(),
                    prepared_before: BTreeMap::new(),
                    before: None,
                    replica: None,
                    frozen: Vec::new(),
                };
                wrong.extend(run.case(scenario, case).await);
            }
            ran += 1;
        }
    }
    assert!(
        wrong.is_empty(),
        "{} steps came to something else:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(ran >= AT_LEAST, "only {ran} cases");
}

/// A case that runs.
struct Run<'a> {
    cluster: &'a Cluster,
    proxy: &'a Proxy,
    logs: &'a mut Logs,
    prepared: bool,
    /// Of the case's own connection.
    account: &'static str,
    /// The connections by their accounts; the case's own has no name.
    conns: BTreeMap<Option<&'static str>, Raw>,
    /// Ids and texts of statements by their names.
    prepared_before: BTreeMap<&'static str, ([u8; 4], Vec<u8>)>,
    /// Where the statement before ran.
    before: Option<String>,
    /// The last replica that one ran on.
    replica: Option<String>,
    /// Connections that keep replicas from applying anything.
    frozen: Vec<Conn>,
}

/// What a statement came to.
#[derive(Debug)]
struct Outcome {
    places: Vec<String>,
    answer: Result<Option<String>, Refused>,
    /// It could not even be prepared.
    unprepared: bool,
}

impl Run<'_> {
    /// Runs a case, and says what was not as expected.
    async fn case(&mut self, scenario: &Scenario, case: &Case) -> Vec<String> {
        if let Some(account) = case.steps.iter().find_map(|step| match step.does {
            Does::Command("@account", name) => Some(name),
            _ => None,
        }) {
            self.account = account;
        }
        // What cases before have written is no reason to read from the primary.
        let cluster = &scenario.options.cluster;
        if cluster.contains("\"user\"") && self.account == "app" {
            self.fresh().await;
        }
        let mut wrong = Vec::new();
        for step in &case.steps {
            let done = time::timeout(4 * SOON, self.step(step)).await;
            let complaint = done.unwrap_or_else(|_| Some("does not end".to_owned()));
            if let Some(complaint) = complaint {
                let form = if self.prepared { " (prepared)" } else { "" };
                wrong.push(format!(
                    "  line {}: {}{form}: {complaint}\n    {}, line {}: {}",
                    step.line, step.text, scenario.name, case.line, case.why
                ));
            }
        }
        self.restore().await;
        wrong
    }

    /// Does one thing, and says what was not as expected.
    async fn step(&mut self, step: &Step) -> Option<String> {
        let (name, sql) = match &step.does {
            Does::Command(command, what) => {
                let answer = self.command(command, what).await;
                return complaint(&step.expected, &answer.err(), None);
            }
            Does::Execute(name) => {
                let (id, sql) = self.prepared_before[name].clone();
                let answer = execute(self.conn(None).await, id).await;
                let outcome = Outcome {
                    places: self.logs.ran(&sql, true),
                    answer,
                    unprepared: false,
                };
                return self.judge(&step.expected, outcome, true);
            }
            Does::Statement(name, sql) => (*name, sql),
        };
        let sql = match self.conns.get(&None) {
            Some(own) => replace(sql, "{id}", &own.greeting.connection.to_string()),
            None => sql.clone(),
        };
        let number = if self.prepared { "2" } else { "1" };
        let sql = replace(&sql, "{n}", number);
        let prepared = self.prepared && !step.expected.is_nothing();
        match step.expected.place {
            Some("spread") => return self.is_spread(name, &sql, prepared).await,
            _ if !step.expected.soon => {
                return self.once(&step.expected, name, &sql, prepared).await;
            }
            _ => {}
        }
        let mut last = None;
        let deadline = time::Instant::now() + SOON;
        while time::Instant::now() < deadline {
            last = self.once(&step.expected, name, &sql, prepared).await;
            if last.is_none() {
                break;
            }
            time::sleep(time::Duration::from_millis(20)).await;
        }
        last
    }

    async fn once(
        &mut self,
        expected: &Expected,
        name: Option<&'static str>,
        sql: &[u8],
        prepared: bool,
    ) -> Option<String> {
        let outcome = self.run(name, sql, prepared).await;
        self.judge(expected, outcome, prepared)
    }

    /// What is wrong with an outcome.
    fn judge(&mut self, expected: &Expected, outcome: Outcome, prepared: bool) -> Option<String> {
        let wrong = !outcome.unprepared && self.is_elsewhere(expected.place, &outcome.places);
        if let [place] = &*outcome.places {
            if place != "db1" {
                self.replica = Some(place.clone());
            }
            self.before = Some(place.clone());
        }
        let places = match &*outcome.places {
            [] => "nowhere".to_owned(),
            places => places.join(" and "),
        };
        let elsewhere =
            wrong.then(|| format!("expected {}, ran {places}", expected.place.unwrap_or("")));
        let value = match &outcome.answer {
            Ok(value) => expected
                .value
                .filter(|_| !prepared)
                .filter(|wanted| value.as_deref().unwrap_or("NULL") != *wanted)
                .map(|wanted| format!("expected the answer {wanted}, not {value:?}, of {places}")),
            Err(_) => None,
        };
        complaint(expected, &outcome.answer.err(), elsewhere.or(value))
    }

    fn is_elsewhere(&self, wanted: Option<&str>, places: &[String]) -> bool {
        let Some(wanted) = wanted else { return false };
        let before = self.before.as_deref();
        match places {
            [] => wanted != "nowhere",
            [place] => match wanted {
                "primary" => place != "db1",
                "replica" => place == "db1",
                "same" => Some(&**place) != before,
                "other" => place == "db1" || Some(place) == self.replica.as_ref(),
                named => place != named,
            },
            _ => true,
        }
    }

    /// Runs a read so often that all replicas should have served it, and nobody else.
    async fn is_spread(
        &mut self,
        name: Option<&'static str>,
        sql: &[u8],
        prepared: bool,
    ) -> Option<String> {
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            seen.extend(self.run(name, sql, prepared).await.places);
        }
        let all = BTreeSet::from(["db2".to_owned(), "db3".to_owned()]);
        (seen != all).then(|| format!("expected all replicas, ran on {seen:?}"))
    }

    async fn run(&mut self, name: Option<&'static str>, sql: &[u8], prepared: bool) -> Outcome {
        let conn = self.conn(name).await;
        let id = match prepared {
            true => prepare(conn, sql).await,
            false => Err(None),
        };
        let executed = id.is_ok();
        let (answer, unprepared) = match id {
            Ok(id) => (execute(conn, id).await, false),
            Err(Some(error)) if error.code != ONLY_AS_TEXT => (Err(error), true),
            Err(_) => (query(conn, sql).await, false),
        };
        Outcome {
            places: self.logs.ran(sql, executed),
            answer,
            unprepared,
        }
    }

    async fn conn(&mut self, name: Option<&'static str>) -> &mut Raw {
        if !self.conns.contains_key(&name) {
            let account = name.unwrap_or(self.account);
            let mut raw = Raw::tcp(self.proxy.port()).await.unwrap();
            raw.login(account, account, Some("shop"), capability::USUAL)
                .await
                .unwrap();
            self.conns.insert(name, raw);
        }
        self.conns.get_mut(&name).unwrap()
    }

    /// Does something else than a statement.
    async fn command(&mut self, command: &str, what: &'static str) -> Result<(), Refused> {
        let conn = self.conn(None).await;
        match command {
            "@account" => return Ok(()),
            "@change_user" => return conn.change_user(what, what, "shop").await,
            "@prepare" => {
                let (name, sql) = what.split_once(' ').unwrap();
                let sql = corpus::unescape(sql);
                let id = prepare(conn, &sql).await.map_err(Option::unwrap)?;
                self.prepared_before.insert(name, (id, sql));
                return Ok(());
            }
            "@init_db" => conn.command(0x02, what.as_bytes()).await,
            "@ping" => conn.command(0x0e, b"").await,
            "@reset" => conn.command(0x1f, b"").await,
            "@fresh" => {
                self.fresh().await;
                return Ok(());
            }
            "@freeze" => {
                for replica in self.cluster.replicas() {
                    let mut conn = replica.connect().await.unwrap();
                    conn.query_drop("FLUSH TABLES WITH READ LOCK")
                        .await
                        .unwrap();
                    self.frozen.push(conn);
                }
                return Ok(());
            }
            "@thaw" => {
                self.thaw().await;
                return Ok(());
            }
            "@start" | "@stop" => {
                let replica = match self.cluster.flavor() {
                    Flavor::MariaDb => "SLAVE",
                    Flavor::MySql => "REPLICA",
                };
                let verb = command[1..].to_uppercase();
                let server = self.cluster.server(what).unwrap();
                let sql = format!("{verb} {replica} SQL_THREAD");
                server.run(&sql).await.unwrap();
                return Ok(());
            }
            other => panic!("{other}?"),
        }
        conn.ok().await
    }

    async fn thaw(&mut self) {
        for mut conn in self.frozen.drain(..) {
            conn.query_drop("UNLOCK TABLES").await.unwrap();
        }
    }

    /// Ends the case's connections, and has the replicas go on.
    async fn restore(&mut self) {
        for conn in self.conns.values_mut() {
            // A case may have ended it.
            let _ = conn.try_send(&[0x01]).await;
        }
        self.thaw().await;
        for replica in self.cluster.replicas() {
            if replica.replicating().await.unwrap() != (true, true) {
                let sql = match self.cluster.flavor() {
                    Flavor::MariaDb => "START SLAVE",
                    Flavor::MySql => "START REPLICA",
                };
                replica.run(sql).await.unwrap();
            }
        }
    }

    /// Waits until each replica may serve the account's reads: it has what was written, and dbproxy knows.
    async fn fresh(&mut self) {
        self.cluster.caught_up().await.unwrap();
        let mut asker = Raw::tcp(self.proxy.port()).await.unwrap();
        let account = self.account;
        asker
            .login(account, account, None, capability::USUAL)
            .await
            .unwrap();
        replicas_serve(asker).await;
    }
}

/// Waits until dbproxy would send reads of this session to each of the replicas.
async fn replicas_serve(mut asker: Raw) {
    for name in ["db2", "db3"] {
        let sql = format!("EXPLAIN ROUTE /* dbproxy: server={name} */ {WHERE}");
        eventually(&format!("{name} to serve reads"), async || {
            let rows = asker.rows(&sql).await.unwrap();
            // Where everything is only observed another column has it.
            let mut fields = rows[0].iter().flatten();
            fields.any(|field| field == name || field.starts_with(&format!("replica {name}:")))
        })
        .await;
    }
    asker.send(&[0x01]).await;
}

/// What is wrong with an error, or with its absence; else what is wrong otherwise.
fn complaint(
    expected: &Expected,
    error: &Option<Refused>,
    otherwise: Option<String>,
) -> Option<String> {
    match (expected.error, error) {
        (Some(wanted), Some(error)) if error.code == wanted => otherwise,
        (None, None) => otherwise,
        (Some(wanted), None) => Some(format!("expected error {wanted}")),
        (_, Some(error)) => Some(format!("error {}: {}", error.code, error.message)),
    }
}

fn replace(sql: &[u8], name: &str, value: &str) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = sql;
    while let Some(at) = rest
        .windows(name.len())
        .position(|part| part == name.as_bytes())
    {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(value.as_bytes());
        rest = &rest[at + name.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}
