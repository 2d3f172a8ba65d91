//! Clients and servers that break the rules: nobody else notices, and nothing is left of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "hostile/cases.rs"]
mod cases;
#[path = "hostile/offender.rs"]
mod offender;
#[path = "hostile/servers.rs"]
mod servers;
mod support;
#[path = "hostile/tamper.rs"]
mod tamper;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time;

use servers::Fate;
use support::raw::{Raw, Refused, capability, is_eof};
use support::{Options, Proxy, SOON, WHERE, within};
use tamper::{MARK, Tamper};

on_both_flavors!(malformed_conversations, hostile_servers);

/// Conversations at the same time.
const LANES: usize = 12;

/// Connections that the proxy may have to one server.
const SERVER_CONNECTIONS: usize = 10;

/// Bytes of memory that the proxy may have more in the end than in the beginning.
const MEMORY: usize = 64 << 20;

/// What a client reads of an answer without end.
const ENOUGH: usize = 100 << 20;

/// A primary and a replica, for all tests of this suite.
async fn cluster(flavor: Flavor) -> &'static Cluster {
    static MARIADB: OnceCell<Cluster> = OnceCell::const_new();
    static MYSQL: OnceCell<Cluster> = OnceCell::const_new();
    let cell = match flavor {
        Flavor::MariaDb => &MARIADB,
        Flavor::MySql => &MYSQL,
    };
    cell.get_or_init(async || {
        let cluster = Cluster::start(flavor, 1).await.unwrap();
        let sql = "CREATE DATABASE hostile; CREATE TABLE hostile.t (id INT)";
        cluster.primary().run(sql).await.unwrap();
        cluster.caught_up().await.unwrap();
        cluster
    })
    .await
}

async fn malformed_conversations(flavor: Flavor) {
    let cluster = cluster(flavor).await;
    let primary = cluster.primary();
    let sql =
        "DROP DATABASE IF EXISTS hostile; CREATE DATABASE hostile; CREATE TABLE hostile.t (id INT)";
    primary.run(sql).await.unwrap();
    cluster.caught_up().await.unwrap();
    let proxy = Arc::new(Proxy::start(cluster, &limited("10s")).await);
    proxy.knows_replicas(1).await;
    let before = memory(&proxy);
    let cases = Arc::new(cases::all());
    assert!(cases.len() > 800, "{}", cases.len());
    let next = Arc::new(AtomicUsize::new(0));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let (cases, next, proxy) = (cases.clone(), next.clone(), proxy.clone());
        lanes.spawn(async move {
            let mut failures = Vec::new();
            let mut bystander = Raw::app(proxy.port()).await;
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                match case.run(proxy.port(), "hostile").await {
                    Ok(outcome) if case.allows(outcome) => {}
                    outcome => failures.push(format!("{}: {outcome:?}", case.name)),
                }
                proxy.must_run();
                let answer = bystander.rows("SELECT 'all is well'").await.unwrap();
                assert_eq!(answer[0][0].as_deref(), Some("all is well"));
            }
            failures
        });
    }
    let failures: Vec<_> = lanes.join_all().await.concat();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    nothing_is_left(&proxy, before).await;
}

async fn hostile_servers(flavor: Flavor) {
    let cluster = cluster(flavor).await;
    let primary = Tamper::start(cluster.primary().port()).await;
    let replica = Tamper::start(cluster.replicas()[0].port()).await;
    let options = Options {
        servers: Some(vec![
            format!("db1=127.0.0.1:{}", primary.port()),
            format!("db2=127.0.0.1:{}", replica.port()),
        ]),
        ..limited("4s")
    };
    let proxy = Proxy::start(cluster, &options).await;
    proxy.knows_replicas(1).await;
    let before = memory(&proxy);
    let mut bystander = Raw::app(proxy.port()).await;
    let mut failures = Vec::new();
    for case in servers::answers() {
        failures.extend(misdeed(&proxy, &replica, &case, false).await);
        assert!(whereabouts(&mut bystander).await.starts_with("db"));
    }
    // Other capabilities are other connections to the servers: none of these is open yet.
    let kinds = [
        1_u32 << 1,
        1 << 8,
        1 << 10,
        capability::LOCAL_FILES,
        capability::MULTI_RESULTS,
    ];
    let others = capability::USUAL & !(capability::PS_MULTI_RESULTS | kinds[3] | kinds[4]);
    for (number, (name, deed)) in servers::logins().into_iter().enumerate() {
        let bits = |(at, bit): (usize, &u32)| if number >> at & 1 == 1 { *bit } else { 0 };
        let capabilities = others | kinds.iter().enumerate().map(bits).sum::<u32>();
        let mut raw = Raw::tcp(proxy.port()).await.unwrap();
        raw.login("app", "app", None, capabilities).await.unwrap();
        let before = replica.done();
        let happens = within(SOON, async || {
            // The monitor's connection may have been hit as well, and the replica be given up for a moment.
            if whereabouts(&mut bystander).await == "db2" {
                replica.plan(Some(deed.clone()));
                let answer = time::timeout(SOON, raw.rows(WHERE)).await;
                replica.plan(None);
                if !matches!(&answer, Ok(Ok(rows)) if rows.len() == 1) {
                    failures.push(format!("{name}: {answer:?}"));
                }
            }
            replica.done() > before
        })
        .await;
        if !happens {
            failures.push(format!("{name}: did not happen"));
        }
    }
    // Last: after a write whose outcome is not known, reads go to the primary.
    for case in servers::answers() {
        failures.extend(misdeed(&proxy, &primary, &case, true).await);
        assert!(whereabouts(&mut bystander).await.starts_with("db"));
    }
    drop(bystander);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    proxy.must_run();
    nothing_is_left(&proxy, before).await;
}

/// Runs one statement that `tamper` answers against the rules; what went otherwise than expected.
async fn misdeed(
    proxy: &Proxy,
    tamper: &Tamper,
    case: &servers::Case,
    writes: bool,
) -> Option<String> {
    let what = format!("{}, writes: {writes}", case.name);
    let before = tamper.done();
    tamper.plan(Some(case.deed.clone()));
    let seen = time::timeout(SOON, one_statement(proxy, writes)).await;
    let seen = seen.unwrap_or_else(|_| panic!("{what}: no end"));
    tamper.plan(None);
    if !case.fate.allows(seen) {
        return Some(format!("{what}: {seen:?} and not {:?}", case.fate));
    }
    (tamper.done() == before).then(|| format!("{what}: did not happen"))
}

async fn whereabouts(raw: &mut Raw) -> String {
    raw.rows(WHERE).await.unwrap()[0][0].clone().unwrap()
}

/// Runs one statement that is tampered with and says what its client saw.
async fn one_statement(proxy: &Proxy, writes: bool) -> Fate {
    let mut raw = Raw::tcp(proxy.port()).await.unwrap();
    let capabilities = capability::USUAL & !capability::LOCAL_FILES;
    raw.login("app", "app", None, capabilities).await.unwrap();
    if writes {
        raw.query(&format!("UPDATE hostile.t SET id = 1 WHERE id = '{MARK}'"))
            .await;
    } else {
        raw.query(&format!("{WHERE} WHERE name <> '{MARK}'")).await;
    }
    let mut packets = Vec::new();
    let mut bytes = 0;
    while let Some((_, payload)) = raw.frame().await {
        let over = payload[0] == 0xff || (packets.is_empty() && payload[0] == 0);
        bytes += payload.len();
        packets.push(payload);
        let refused = packets.last().filter(|payload| payload[0] == 0xff);
        if refused.is_some_and(|payload| Refused::parse(payload).code == 1927) {
            // The session ends: nobody knows what a write has done, and a result is not whole.
            assert_eq!(raw.frame().await, None);
            return match (writes, packets.len()) {
                (true, 1) => Fate::Spared,
                _ => Fate::Cut,
            };
        }
        let ends = packets.iter().filter(|payload| is_eof(payload)).count();
        if over || ends == 2 {
            // The session goes on, with its own answers.
            let answer = raw.execute("DO 1").await;
            assert_eq!(answer[0], 0, "{answer:?}");
            assert_eq!(whereabouts(&mut raw).await.len(), 3);
            return match (writes, packets.last().unwrap()[0], packets.len()) {
                (true, 0xff, 1) => Fate::Spared,
                // Row 4: the primary's name.
                (false, 0xfe, 5) if packets[3].ends_with(b"db1") => Fate::Spared,
                _ => Fate::Passed,
            };
        }
        if bytes > ENOUGH {
            return Fate::Cut;
        }
    }
    Fate::Cut
}

fn limited(login: &str) -> Options {
    Options {
        sections: format!(
            "[limits]\nserver_connections = {SERVER_CONNECTIONS}\nlogin = \"{login}\"\n\
             [log]\nlevel = \"info\"\n"
        ),
        ..Options::default()
    }
}

/// Resident memory of the proxy, in bytes.
fn memory(proxy: &Proxy) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() << 10
}

/// No place for a server connection is lost, no task has panicked, and memory is as before, more or less.
async fn nothing_is_left(proxy: &Proxy, before: usize) {
    let mut transactions = Vec::new();
    for _ in 0..SERVER_CONNECTIONS {
        let mut raw = Raw::app(proxy.port()).await;
        let answer = raw.execute("BEGIN").await;
        assert_eq!(answer[0], 0, "{:?}", Refused::parse(&answer));
        transactions.push(raw);
    }
    drop(transactions);
    let log = proxy.log();
    assert!(!log.contains("panicked"), "{log}");
    let after = memory(proxy);
    assert!(
        after < before + MEMORY,
        "{before} bytes of memory before, {after} after"
    );
}
