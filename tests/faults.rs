//! Real faults: killed and hanging servers, cut connections, clients that vanish, and a proxy that is told to stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::task::JoinSet;
use tokio::time::timeout;

use support::raw::{Raw, capability, is_eof};
use support::relay::{Fault, Relay};
use support::{
    Options, Proxy, Rig, SOON, WHERE, application, code, eventually, one, whereabouts, within,
};

on_both_flavors!(
    a_cut_after_execution_never_doubles_a_write,
    a_cut_before_execution_is_told,
    a_cut_read_is_repeated_elsewhere,
    a_replica_is_killed,
    the_primary_is_killed,
    a_server_hangs,
    a_preparation_does_not_wait_for_ever,
    a_session_on_a_dead_server_is_killed,
    a_client_that_vanishes_ends_its_query,
    two_thousand_connections,
    the_proxy_stops_gracefully,
    a_proxy_that_stops_waits_for_a_transaction,
    the_proxy_starts_before_its_servers,
    a_full_server_is_waited_for,
);

/// A cluster whose servers are reached through relays, with the proxy in front.
struct Relayed {
    proxy: Proxy,
    relays: Vec<Relay>,
    cluster: Cluster,
}

impl Relayed {
    async fn start(flavor: Flavor, replicas: usize, options: &Options) -> Self {
        let cluster = Cluster::start(flavor, replicas).await.unwrap();
        let mut relays = Vec::new();
        let mut servers = Vec::new();
        for server in cluster.servers() {
            let relay = Relay::start(server.port()).await;
            servers.push(format!("{}=127.0.0.1:{}", server.name(), relay.port()));
            relays.push(relay);
        }
        let options = Options {
            servers: Some(servers),
            ..options.clone()
        };
        let proxy = Proxy::start(&cluster, &options).await;
        proxy.knows_replicas(replicas).await;
        Self {
            proxy,
            relays,
            cluster,
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

async fn a_cut_after_execution_never_doubles_a_write(flavor: Flavor) {
    let rig = Relayed::start(flavor, 1, &Options::default()).await;
    let primary = rig.cluster.primary();
    // Without a unique key a repetition would be kept.
    primary
        .run("CREATE TABLE test.once (n INT, KEY (n)) ENGINE=InnoDB")
        .await
        .unwrap();
    rig.relays[0].judge(|bytes| {
        if contains(bytes, "INTO test.once") {
            Fault::CutAfter
        } else {
            Fault::None
        }
    });
    let mut conn = rig.proxy.connect().await;
    let mut told = 0;
    for number in 0..1000_u32 {
        let result = match number % 2 {
            0 => {
                conn.query_drop(format!("INSERT INTO test.once VALUES ({number})"))
                    .await
            }
            _ => {
                // The relay cuts where it sees the text: in the execution, which a comment in a parameter marks.
                let sql = "INSERT INTO once (n) SELECT ? FROM DUAL WHERE ? <> ''";
                conn.query_drop("USE test")
                    .await
                    .and(conn.exec_drop(sql, (number, "INTO test.once")).await)
            }
        };
        assert!(
            result.is_err(),
            "write {number} was cut before its answer, and yet answered"
        );
        told += 1;
        if conn.ping().await.is_err() {
            conn = rig.proxy.connect().await;
        }
    }
    assert_eq!(told, 1000);
    assert!(
        rig.relays[0].faults() >= 1000,
        "{} cuts",
        rig.relays[0].faults()
    );
    rig.relays[0].judge(|_| Fault::None);
    let rows: Vec<(u32, u32)> = primary
        .rows("SELECT n, COUNT(*) FROM test.once GROUP BY n")
        .await
        .unwrap();
    let counts: BTreeMap<u32, u32> = rows.into_iter().collect();
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "executed twice: {doubled:?}");
    assert_eq!(
        counts.len(),
        1000,
        "the relay waits for the answer, so everything was executed"
    );
    let mut conn = rig.proxy.connect().await;
    assert_eq!(
        one::<u32>(&mut conn, "SELECT COUNT(*) FROM test.once").await,
        1000
    );
}

async fn a_cut_before_execution_is_told(flavor: Flavor) {
    let rig = Relayed::start(flavor, 1, &Options::default()).await;
    rig.cluster
        .primary()
        .run("CREATE TABLE test.never (n INT)")
        .await
        .unwrap();
    rig.relays[0].judge(|bytes| {
        if contains(bytes, "INTO test.never") {
            Fault::CutBefore
        } else {
            Fault::None
        }
    });
    for number in 0..20 {
        let mut conn = rig.proxy.connect().await;
        let sql = format!("INSERT INTO test.never VALUES ({number})");
        assert!(conn.query_drop(sql).await.is_err());
        // In a transaction as well; what was before it in the transaction is gone with it.
        let mut conn = rig.proxy.connect().await;
        conn.query_drop("START TRANSACTION").await.unwrap();
        assert!(
            conn.query_drop("INSERT INTO test.never VALUES (-1)")
                .await
                .is_err()
        );
        // The rest of the transaction must not be run outside of it.
        let _ = conn
            .query_drop("INSERT INTO `test`.never VALUES (-2)")
            .await;
        let _ = conn.query_drop("COMMIT").await;
    }
    rig.relays[0].judge(|_| Fault::None);
    let count: u32 = rig
        .cluster
        .primary()
        .first("SELECT COUNT(*) FROM test.never")
        .await
        .unwrap();
    assert_eq!(count, 0);
}

async fn a_cut_read_is_repeated_elsewhere(flavor: Flavor) {
    let rig = Relayed::start(flavor, 2, &Options::default()).await;
    let cuts = Arc::new(AtomicBool::new(false));
    for relay in &rig.relays[1..] {
        let cuts = cuts.clone();
        relay.judge(move |bytes| {
            let first =
                contains(bytes, "FROM test.where_am_i") && cuts.swap(false, Ordering::SeqCst);
            if first { Fault::CutAfter } else { Fault::None }
        });
    }
    let mut conn = rig.proxy.connect().await;
    for round in 0..100 {
        cuts.store(true, Ordering::SeqCst);
        let name = match round % 2 {
            0 => whereabouts(&mut conn).await,
            _ => conn
                .exec_first::<String, _, _>(WHERE, ())
                .await
                .unwrap()
                .unwrap(),
        };
        assert!(name.starts_with("db"));
    }
    let cut: u32 = rig.relays.iter().map(Relay::faults).sum();
    assert!(cut > 0, "no read was cut");
    // In a transaction nothing is repeated, whatever it is.
    cuts.store(false, Ordering::SeqCst);
    rig.relays[0].judge(|bytes| {
        if contains(bytes, "within_transaction") {
            Fault::CutAfter
        } else {
            Fault::None
        }
    });
    conn.query_drop("START TRANSACTION").await.unwrap();
    assert!(
        conn.query_drop("SELECT name AS within_transaction FROM test.where_am_i")
            .await
            .is_err()
    );
}

async fn a_replica_is_killed(flavor: Flavor) {
    let rig = Rig::start(flavor, 2, &Options::default()).await;
    let mut conns = Vec::new();
    for _ in 0..6 {
        conns.push(rig.connect().await);
    }
    for round in 0..6 {
        let victim = &rig.cluster.replicas()[round % 2];
        // Idle connections of the pool die with it; readers notice nothing.
        victim.kill9();
        for conn in &mut conns {
            for _ in 0..5 {
                assert_ne!(whereabouts(conn).await, victim.name());
            }
        }
        victim.restart().await.unwrap();
        eventually("the replica to serve reads again", async || {
            let mut running = JoinSet::new();
            for mut conn in conns.drain(..) {
                running.spawn(async move { (whereabouts(&mut conn).await, conn) });
            }
            let mut back = false;
            while let Some(done) = running.join_next().await {
                let (name, conn) = done.unwrap();
                back |= name == victim.name();
                conns.push(conn);
            }
            back
        })
        .await;
    }
    // Killed in the middle of reads that have not sent anything: they are run again elsewhere.
    let slow = format!("{WHERE} WHERE SLEEP(1) = 0");
    for round in 0..2 {
        let victim = &rig.cluster.replicas()[round];
        let mut running = JoinSet::new();
        for mut conn in conns.drain(..) {
            let slow = slow.clone();
            running.spawn(async move {
                let result: Result<Option<String>, _> = conn.query_first(&slow).await;
                (result, conn)
            });
        }
        eventually("the reads to run", async || {
            let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(1)%' AND user = 'app'";
            victim.first::<u32>(sql).await.unwrap() > 0
        })
        .await;
        victim.kill9();
        while let Some(done) = running.join_next().await {
            let (result, conn) = done.unwrap();
            assert_ne!(result.unwrap().unwrap(), victim.name());
            conns.push(conn);
        }
        victim.restart().await.unwrap();
    }
}

async fn the_primary_is_killed(flavor: Flavor) {
    let sections = "[limits]\nhold = \"60s\"\n".to_owned();
    let options = Options {
        sections,
        ..Options::default()
    };
    let rig = Rig::start(flavor, 2, &options).await;
    let primary = rig.cluster.primary();
    primary
        .run("CREATE TABLE test.killed (n INT)")
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let mut conn = rig.connect().await;
    let mut waiting = rig.connect().await;
    let mut running = rig.connect().await;
    let running = tokio::spawn(async move {
        let result = running
            .query_drop("INSERT INTO test.killed SELECT 1 FROM DUAL WHERE SLEEP(300) = 0")
            .await;
        (result, running)
    });
    eventually("the write to run", async || {
        let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'INSERT%SLEEP(300)%'";
        primary.first::<u32>(sql).await.unwrap() > 0
    })
    .await;
    primary.kill9();
    // The write that ran has an unknown outcome: an error, never a repetition.
    let (result, _) = running.await.unwrap();
    assert!(result.is_err());
    // Reads go on.
    for _ in 0..10 {
        assert_ne!(whereabouts(&mut conn).await, "db1");
    }
    // A write that begins now is held until there is a primary again.
    let held = tokio::spawn(async move {
        waiting
            .query_drop("INSERT INTO test.killed VALUES (2)")
            .await
            .unwrap();
        waiting
    });
    primary.restart().await.unwrap();
    let mut waiting = held.await.unwrap();
    assert_eq!(
        one::<u32>(&mut waiting, "SELECT COUNT(*) FROM test.killed WHERE n = 2").await,
        1
    );
    assert_eq!(
        primary
            .first::<u32>("SELECT COUNT(*) FROM test.killed")
            .await
            .unwrap(),
        1
    );
}

async fn a_server_hangs(flavor: Flavor) {
    let rig = Rig::start(flavor, 2, &Options::default()).await;
    let mut conn = rig.connect().await;
    for victim in rig.cluster.replicas() {
        victim.stop().unwrap();
        eventually("no reads on the hanging server", async || {
            // A connection whose read went there waits with the server; others must not.
            let Ok(mut fresh) = Conn::new(application(rig.proxy.port())).await else {
                return false;
            };
            let read = within_reason(whereabouts(&mut fresh));
            read.await.is_some_and(|name| name != victim.name())
        })
        .await;
        for _ in 0..20 {
            assert_ne!(whereabouts(&mut conn).await, victim.name());
        }
        victim.cont().unwrap();
        eventually("reads on the server that goes on", async || {
            let mut running = JoinSet::new();
            for _ in 0..6 {
                let mut conn = rig.connect().await;
                running.spawn(async move { whereabouts(&mut conn).await });
            }
            running
                .join_all()
                .await
                .iter()
                .any(|name| name == victim.name())
        })
        .await;
    }
}

async fn a_preparation_does_not_wait_for_ever(flavor: Flavor) {
    let rig = Rig::start(flavor, 0, &Options::default()).await;
    rig.account("prepares").await;
    let session = async || {
        let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
        let usual = capability::USUAL;
        raw.login("prepares", "prepares", None, usual)
            .await
            .unwrap();
        raw
    };
    let mut raw = session().await;
    raw.command(0x16, b"SELECT @@port").await;
    let prepared = raw.packet().await.unwrap();
    while !is_eof(&raw.packet().await.unwrap()) {}
    let execution = [&[0x17], &prepared[1..5], &[0, 1, 0, 0, 0]].concat();
    // The connection on which it was prepared goes to another session, and there is one that has never heard of it.
    let mut other = session().await;
    other.execute("BEGIN").await;
    session().await.rows("SELECT @@port").await.unwrap();
    rig.cluster.primary().stop().unwrap();
    raw.send(&execution).await;
    let answer = timeout(2 * SOON, raw.packet()).await;
    assert_eq!(answer.expect("an answer").unwrap()[0], 0xff);
    rig.cluster.primary().cont().unwrap();
    drop(other);
    eventually("the statement to be executed again", async || {
        raw.send(&execution).await;
        let answer = raw.packet().await.unwrap();
        if answer[0] == 0xff {
            return false;
        }
        for _ in 0..2 {
            while !is_eof(&raw.packet().await.unwrap()) {}
        }
        true
    })
    .await;
}

async fn a_session_on_a_dead_server_is_killed(flavor: Flavor) {
    let rig = Rig::start(flavor, 0, &Options::default()).await;
    let mut killer = rig.connect().await;
    let mut victim = rig.connect().await;
    victim.query_drop("SET @held = 1 + 1").await.unwrap();
    rig.cluster.primary().stop().unwrap();
    let kill = format!("KILL {}", victim.id());
    let killed = timeout(2 * SOON, killer.query_drop(&kill)).await;
    killed.expect("an answer").unwrap();
    let ended = timeout(SOON, victim.ping()).await;
    ended.expect("the end of the session").unwrap_err();
    rig.cluster.primary().cont().unwrap();
}

/// The answer, unless it takes longer than anything that works takes.
async fn within_reason<T>(answer: impl Future<Output = T>) -> Option<T> {
    timeout(std::time::Duration::from_secs(3), answer)
        .await
        .ok()
}

async fn a_client_that_vanishes_ends_its_query(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("faults_vanish").await;
    let running = async |marker: &str| {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%{marker}%' AND user = 'app'"
        );
        let mut count = 0;
        for server in rig.cluster.servers() {
            count += server.first::<u32>(&sql).await.unwrap();
        }
        count
    };
    // Before the first row.
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.query("SELECT 'vanish_before', SLEEP(300)").await;
    eventually("the query to run", async || {
        running("vanish_before").await == 1
    })
    .await;
    drop(raw);
    eventually("the query to end", async || {
        running("vanish_before").await == 0
    })
    .await;
    // In the middle of a result that nobody reads any more.
    rig.cluster
        .primary()
        .run(&format!(
            "CREATE TABLE {schema}.d (n INT); INSERT INTO {schema}.d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)"
        ))
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let d = format!("{schema}.d");
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.query(&format!(
        "SELECT 'vanish_middle', REPEAT('x', 1000) FROM {d} a, {d} b, {d} c, {d} d, {d} e, {d} f, {d} g, {d} h"
    ))
    .await;
    let mut buffer = vec![0; 100_000];
    raw.bytes(&mut buffer).await.unwrap();
    eventually("the query to run", async || {
        running("vanish_middle").await == 1
    })
    .await;
    drop(raw);
    eventually("the query to end", async || {
        running("vanish_middle").await == 0
    })
    .await;
    // In a transaction that holds locks.
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.rows("START TRANSACTION").await.unwrap();
    raw.rows(&format!("UPDATE {d} SET n = n + 10"))
        .await
        .unwrap();
    drop(raw);
    let mut conn = rig.connect().await;
    conn.query_drop(format!("UPDATE {d} SET n = n + 1"))
        .await
        .unwrap();
    assert_eq!(
        one::<u32>(&mut conn, &format!("SELECT MAX(n) FROM {d}")).await,
        10
    );
}

async fn two_thousand_connections(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut opening = JoinSet::new();
    let started = Arc::new(AtomicU32::new(0));
    for _ in 0..20 {
        let started = started.clone();
        let options = application(rig.proxy.port());
        opening.spawn(async move {
            let mut conns = Vec::new();
            while started.fetch_add(1, Ordering::SeqCst) < 2000 {
                conns.push(Conn::new(options.clone()).await.unwrap());
            }
            conns
        });
    }
    let mut conns: Vec<Conn> = opening.join_all().await.into_iter().flatten().collect();
    assert_eq!(conns.len(), 2000);
    // All of them are served, by far fewer connections to the servers.
    for conn in &mut conns {
        assert!(whereabouts(conn).await.starts_with("db"));
    }
    let mut running = JoinSet::new();
    for mut conn in conns {
        running.spawn(async move {
            let number: u32 =
                one(&mut conn, "SELECT COUNT(*) FROM test.where_am_i FOR UPDATE").await;
            (number, conn)
        });
    }
    let answers = running.join_all().await;
    assert!(answers.iter().all(|(number, _)| *number == 1));
    for server in rig.cluster.servers() {
        let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app'";
        let used: u32 = server.first(sql).await.unwrap();
        assert!(used <= 100, "{used} connections on {}", server.name());
    }
}

async fn the_proxy_stops_gracefully(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = Proxy::start(&rig.cluster, &Options::default()).await;
    let mut idle = proxy.connect().await;
    assert_eq!(one::<u32>(&mut idle, "SELECT 1").await, 1);
    let mut busy = proxy.connect().await;
    let busy = tokio::spawn(async move {
        busy.query_first::<u32, _>("SELECT SLEEP(2) FROM test.where_am_i")
            .await
    });
    eventually("the statement to run", async || {
        let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(2) FROM%'";
        let mut count = 0;
        for server in rig.cluster.servers() {
            count += server.first::<u32>(sql).await.unwrap();
        }
        count > 0
    })
    .await;
    proxy.terminate();
    // No new clients, the running statement ends as if nothing happened, and the program with it.
    eventually("new clients to be refused", async || {
        Conn::new(application(proxy.port())).await.is_err()
    })
    .await;
    assert_eq!(busy.await.unwrap().unwrap(), Some(0));
    eventually("the proxy to end", async || proxy.ended().is_some()).await;
    assert!(proxy.ended().unwrap().success(), "{}", proxy.log());
    assert!(idle.ping().await.is_err());
    assert!(!proxy.socket().exists(), "the socket's file is left behind");
}

async fn a_proxy_that_stops_waits_for_a_transaction(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("faults_drained").await;
    let create = format!("CREATE TABLE {schema}.t (a LONGTEXT)");
    rig.cluster.primary().run(&create).await.unwrap();
    let proxy = Proxy::start(&rig.cluster, &Options::default()).await;
    let insert = |value: &str| format!("\x03INSERT INTO {schema}.t VALUES ('{value}')");
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::app(proxy.port()).await;
        raw.execute("BEGIN").await;
        raw.execute(&insert("begun")[1..]).await;
        open.push(raw);
    }
    let mut killer = Raw::app(proxy.port()).await;
    let mut killed = Raw::app(proxy.port()).await;
    for raw in [&mut killer, &mut killed] {
        raw.execute("BEGIN").await;
    }
    proxy.terminate();
    eventually("new clients to be refused", async || {
        Conn::new(application(proxy.port())).await.is_err()
    })
    .await;
    // Who is killed is not waited for any more.
    let kill = format!("KILL {}", killed.greeting.connection);
    assert_eq!(killer.execute(&kill).await[0], 0);
    let end = timeout(SOON / 2, killed.packet()).await;
    end.expect("the end of the session").unwrap_err();
    open.push(killer);
    // One command comes in pieces, the other one is longer than a read.
    let [split, long, ..] = &mut open[..] else {
        panic!("two sessions");
    };
    let payload = insert("split").into_bytes();
    let header = [
        &u32::try_from(payload.len()).unwrap().to_le_bytes()[..3],
        &[0],
    ]
    .concat();
    split
        .write(&[&header, &payload[..5]].concat())
        .await
        .unwrap();
    long.send(insert(&"x".repeat(300_000)).as_bytes()).await;
    assert_eq!(long.packet().await.unwrap()[0], 0);
    split.write(&payload[5..]).await.unwrap();
    split.restart_sequence(1);
    assert_eq!(split.packet().await.unwrap()[0], 0);
    for raw in &mut open {
        assert_eq!(raw.execute("COMMIT").await[0], 0);
    }
    eventually("the proxy to end", async || proxy.ended().is_some()).await;
    let count = format!("SELECT COUNT(*) FROM {schema}.t");
    let count: u64 = rig.cluster.primary().first(&count).await.unwrap();
    assert_eq!(count, 4);
}

async fn the_proxy_starts_before_its_servers(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    for server in cluster.servers() {
        server.kill9();
    }
    let proxy = Proxy::spawn(&support::addresses(&cluster), &Options::default());
    for server in cluster.servers() {
        server.restart().await.unwrap();
    }
    eventually("a login", async || {
        proxy.must_run();
        Conn::new(application(proxy.port())).await.is_ok()
    })
    .await;
    proxy.knows_replicas(1).await;
}

async fn a_full_server_is_waited_for(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let sections = "[limits]\nserver_connections = 2\nqueue_wait = \"1s\"\n".to_owned();
    let proxy = Proxy::start(
        &rig.cluster,
        &Options {
            sections,
            ..Options::default()
        },
    )
    .await;
    // Twenty clients over two connections: everybody gets his turn.
    let mut running = JoinSet::new();
    for number in 0..20_u32 {
        let mut conn = proxy.connect().await;
        running.spawn(async move {
            for _ in 0..5 {
                assert_eq!(
                    one::<u32>(
                        &mut conn,
                        &format!("SELECT {number} FROM test.where_am_i FOR UPDATE")
                    )
                    .await,
                    number
                );
            }
        });
    }
    running.join_all().await;
    // Both are taken for long: an error that names the server and its limit.
    let mut conn = proxy.connect().await;
    let mut holding = Vec::new();
    for _ in 0..2 {
        let mut conn = proxy.connect().await;
        conn.query_drop("START TRANSACTION").await.unwrap();
        conn.query_drop("SELECT name FROM test.where_am_i")
            .await
            .unwrap();
        holding.push(conn);
    }
    let locking = "SELECT name FROM test.where_am_i FOR UPDATE";
    let error = conn.query_drop(locking).await.unwrap_err();
    assert_ne!(code(&error), 0, "{error}");
    assert!(error.to_string().contains("db1"), "{error}");
    holding.pop();
    let free = within(SOON, async || conn.query_drop(locking).await.is_ok());
    assert!(free.await);
}
