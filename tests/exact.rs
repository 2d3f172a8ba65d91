//! Many clients on few server connections: every answer is the one that they would get on connections of their own.
//!
//! `DBPROXY_EXACT` is the number of statements for each flavor, `DBPROXY_EXACT_SEED` another choice of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "exact/generate.rs"]
mod generate;
#[path = "exact/lists.rs"]
mod lists;
#[path = "exact/shrink.rs"]
mod shrink;
mod support;
#[path = "exact/talk.rs"]
mod talk;

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use mysql_async::prelude::Queryable;
use tokio::task::JoinSet;
use tokio::time::timeout;

use support::raw::capability;
use support::{Options, Proxy, SOON};
use talk::{Side, Step};

on_both_flavors!(
    answers_are_those_of_own_connections,
    differences_of_the_past_are_gone,
    settings_are_what_the_statements_say,
);

const CLIENTS: usize = 32;

/// What clients of different drivers ask for; connections are not shared between them.
const CAPABILITIES: &[u32] = &[
    capability::USUAL,
    capability::USUAL,
    capability::USUAL | capability::DEPRECATE_EOF,
    capability::USUAL,
    capability::USUAL,
    capability::USUAL | capability::FOUND_ROWS,
    capability::USUAL,
    capability::USUAL,
];

async fn answers_are_those_of_own_connections(flavor: Flavor) {
    let count: usize = setting("DBPROXY_EXACT").unwrap_or(6000);
    let seed: u64 = setting("DBPROXY_EXACT_SEED").unwrap_or(1);
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    make_shared(&cluster).await;
    let proxy = sharing(&cluster, 4).await;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = Client::new(&cluster, &proxy, number).await;
        let seed = seed.wrapping_mul(1000) + number as u64;
        let steps = generate::sequence(
            seed,
            &client.schema,
            count / CLIENTS,
            flavor == Flavor::MySql,
        );
        clients.spawn(async move { (client.run(steps.clone()).await.err(), client, steps) });
    }
    let results = clients.join_all().await;
    let failed = results
        .into_iter()
        .filter_map(|(difference, client, steps)| Some((difference?, client, steps)));
    let mut failed: Vec<_> = failed.collect();
    failed.sort_by_key(|(difference, ..)| difference.at);
    let mut report = format!("{} of {CLIENTS} clients with seed {seed}\n", failed.len());
    for (number, (difference, client, mut steps)) in failed.into_iter().enumerate() {
        report += &format!(
            "\n{}, step {}: {difference}\n",
            client.schema, difference.at
        );
        steps.truncate(difference.at + 1);
        if number < setting("DBPROXY_EXACT_SHRINK").unwrap_or(3) {
            report += &shrink::shrunk(&cluster, &client, steps).await;
        } else {
            report += &shrink::listed("the last steps were", &steps);
        }
    }
    assert!(report.starts_with("0 "), "{report}");
}

async fn differences_of_the_past_are_gone(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    make_shared(&cluster).await;
    let proxy = sharing(&cluster, 1).await;
    let _noise = shrink::noise(&cluster, &proxy).await;
    for (name, statements) in lists::PAST {
        let client = Client::new(&cluster, &proxy, 0).await;
        let steps = statements.iter().map(Step::query).collect();
        let difference = client.run(steps).await.err();
        assert!(difference.is_none(), "{name}: {}", difference.unwrap());
    }
}

async fn settings_are_what_the_statements_say(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    make_shared(&cluster).await;
    let proxy = sharing(&cluster, 1).await;
    let _noise = shrink::noise(&cluster, &proxy).await;
    let list = lists::settings(flavor);
    assert!(list.len() >= 150, "{}", list.len());
    let client = Client::new(&cluster, &proxy, 0).await;
    let steps = list.iter().flat_map(lists::Setting::steps).collect();
    let difference = client.run(steps).await.err();
    assert!(difference.is_none(), "{}", difference.unwrap());
    // What the server itself makes of them.
    let mut wrong = String::new();
    let mut raw = support::raw::Raw::tcp(cluster.primary().port())
        .await
        .unwrap();
    let usual = capability::USUAL;
    raw.login("app", "app", None, usual).await.unwrap();
    for setting in list {
        wrong += &setting.check(&mut raw).await;
    }
    assert!(wrong.is_empty(), "{flavor:?} says otherwise:\n{wrong}");
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// A proxy whose sessions share so many connections.
async fn sharing(cluster: &Cluster, connections: u32) -> Proxy {
    let options = Options {
        sections: format!(
            "[limits]\nserver_connections = {connections}\nqueue_wait = \"300s\"\n\
             [log]\nlevel = \"info\"\n"
        ),
        ..Options::default()
    };
    Proxy::start(cluster, &options).await
}

/// What all clients read.
async fn make_shared(cluster: &Cluster) {
    let sql = "CREATE DATABASE xq_shared; CREATE TABLE xq_shared.words (n INT PRIMARY KEY, word VARCHAR(20)); \
               INSERT INTO xq_shared.words VALUES (1, 'one'), (2, 'two'), (3, 'three'), (5, 'five'), (8, 'été'); \
               CREATE TABLE xq_shared.two (id INT); INSERT INTO xq_shared.two VALUES (1), (2); \
               SET GLOBAL table_open_cache = 8000; SET GLOBAL table_definition_cache = 8000";
    // A table that has left the cache forgets the numbers that it gave to rows which were never there.
    cluster.primary().run(sql).await.unwrap();
}

/// Where one client's two connections are.
#[derive(Clone)]
pub(crate) struct Client {
    ports: [u16; 2],
    schema: String,
    capabilities: u32,
}

impl Client {
    /// With schemas that nothing has happened in.
    pub(crate) async fn new(cluster: &Cluster, proxy: &Proxy, number: usize) -> Self {
        let schema = format!("{}{number:02}", String::from_utf8_lossy(talk::DIRECT));
        let mut conn = cluster.primary().connect().await.unwrap();
        for proxied in [false, true] {
            let name = talk::renamed(schema.as_bytes(), proxied);
            let name = String::from_utf8(name).unwrap();
            for schema in [format!("{name}b"), name.clone()] {
                let sql = format!("DROP DATABASE IF EXISTS {schema}");
                conn.query_drop(sql).await.unwrap();
                let sql = format!("CREATE DATABASE {schema} DEFAULT CHARACTER SET utf8mb4");
                conn.query_drop(sql).await.unwrap();
            }
            for sql in generate::SCHEMA.split("//\n") {
                let sql = format!("USE {name}; {}", sql.replace("{s}", &name));
                conn.query_drop(sql).await.unwrap();
            }
        }
        conn.disconnect().await.unwrap();
        Self {
            ports: [cluster.primary().port(), proxy.port()],
            schema,
            capabilities: CAPABILITIES[number % CAPABILITIES.len()],
        }
    }

    /// Takes the steps on both connections, and compares what is heard.
    pub(crate) async fn run(&self, steps: Vec<Step>) -> Result<(), Difference> {
        let at = Arc::new(AtomicUsize::new(0));
        let named: Vec<String> = steps.iter().map(|step| format!("{step}\n")).collect();
        let taken = tokio::spawn(self.clone().walk(steps, at.clone()));
        match taken.await {
            Ok(result) => result,
            // A connection that was closed, or packets that are none.
            Err(error) => {
                let panic = error.into_panic();
                let text = panic.downcast_ref::<String>().cloned();
                let at = at.load(Ordering::Relaxed);
                Err(Difference {
                    at,
                    step: named.get(at).cloned().unwrap_or_default(),
                    expected: "an answer".to_owned(),
                    found: text.unwrap_or_else(|| "panicked".to_owned()),
                })
            }
        }
    }

    async fn walk(self, steps: Vec<Step>, position: Arc<AtomicUsize>) -> Result<(), Difference> {
        let [server, proxy] = self.ports;
        let mut direct = Side::connect(server, false, &self.schema, self.capabilities).await;
        let mut proxied = Side::connect(proxy, true, &self.schema, self.capabilities).await;
        for (at, step) in steps.iter().enumerate() {
            position.store(at, Ordering::Relaxed);
            let both = async { tokio::join!(direct.take(step), proxied.take(step)) };
            let (expected, found) = timeout(SOON, both).await.expect("it took too long");
            if expected != found && !is_explained(step, &expected, &found) {
                return Err(Difference {
                    at,
                    step: format!("{step}"),
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

/// Differences that README tells of.
fn is_explained(step: &Step, expected: &str, found: &str) -> bool {
    // With COM_PING, COM_INIT_DB and COM_SET_OPTION MySQL tells how many warnings the statement before had.
    let is_one = matches!(step, Step::Command(payload) if matches!(payload[0], 0x02 | 0x0e | 0x1b));
    let is_well = |text: &str| text.starts_with("\\x00") || text.starts_with("\\xfe");
    // MySQL 9.7 looks for the parent before it looks for a duplicate, but after it on a connection that was ever reset, and
    // does not quote the names in the same way.
    let is_refused = |text: &str| text.contains(DUPLICATE) || text.contains(NO_PARENT);
    (is_one && is_well(expected) && is_well(found)) || (is_refused(expected) && is_refused(found))
}

const DUPLICATE: &str = "#23000Duplicate entry";
const NO_PARENT: &str = "#23000Cannot add or update a child row";

/// An answer that was another one through the proxy.
pub(crate) struct Difference {
    at: usize,
    step: String,
    expected: String,
    found: String,
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            step,
            expected,
            found,
            ..
        } = self;
        write!(f, "{step}\ndirect:\n{expected}proxied:\n{found}")
    }
}
