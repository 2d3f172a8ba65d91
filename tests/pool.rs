//! Who gets a server's connections, how they are opened, and how they end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio::task::JoinSet;

use support::relay::Relay;
use support::{Options, Proxy, Rig, application, code, eventually, login, one};

on_both_flavors!(
    a_hot_account_starves_nobody,
    a_transaction_that_moves_goes_first,
    a_server_that_comes_back_is_not_overrun,
    a_server_that_takes_no_connections_is_left_alone,
    a_full_server_is_no_error_while_it_serves_others,
    a_wrong_password_shuts_nobody_out,
    connections_that_the_server_closed_are_not_lent,
    connections_end_by_age_unnoticed,
    connections_are_kept_ready,
);

async fn proxy(cluster: &Cluster, limits: &str) -> Proxy {
    let options = Options {
        sections: format!("[limits]\n{limits}"),
        top: "workers = 2".to_owned(),
        ..Options::default()
    };
    Proxy::start(cluster, &options).await
}

/// A proxy in front of one server that it reaches by the relay.
async fn relayed(cluster: &Cluster, limits: &str) -> (Relay, Proxy) {
    let relay = Relay::start(cluster.primary().port()).await;
    let options = Options {
        sections: format!("[limits]\n{limits}"),
        servers: Some(vec![format!("db1=127.0.0.1:{}", relay.port())]),
        ..Options::default()
    };
    let proxy = Proxy::start(cluster, &options).await;
    (relay, proxy)
}

async fn connect(options: &OptsBuilder) -> Conn {
    let mut connected = None;
    eventually("a login", async || {
        connected = Conn::new(options.clone()).await.ok();
        connected.is_some()
    })
    .await;
    connected.unwrap()
}

/// The servers' ids of an account's connections to the primary.
async fn threads(cluster: &Cluster, user: &str) -> BTreeSet<u64> {
    let sql = format!("SELECT id FROM information_schema.processlist WHERE user = '{user}'");
    let rows: Vec<u64> = cluster.primary().rows(&sql).await.unwrap();
    rows.into_iter().collect()
}

const LINE: &str = "a statement waits for a connection";

/// Waits until so many statements have begun to wait for a connection since the start.
async fn waiting(proxy: &Proxy, count: usize) {
    eventually("statements to wait", async || {
        proxy.log().matches(LINE).count() >= count
    })
    .await;
}

async fn a_hot_account_starves_nobody(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.account("quiet").await;
    let proxy = proxy(
        &rig.cluster,
        "server_connections = 4\nqueue_wait = \"60s\"\n",
    )
    .await;
    let mut quiet = connect(&login(proxy.port(), "quiet", "quiet")).await;
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut hot = JoinSet::new();
    for _ in 0..200 {
        let mut conn = proxy.connect().await;
        let (stop, done) = (stop.clone(), done.clone());
        hot.spawn(async move {
            while !stop.load(SeqCst) {
                let sql = "/* dbproxy: primary */ SELECT SLEEP(0.1)";
                conn.query_drop(sql).await.unwrap();
                done.fetch_add(1, SeqCst);
            }
        });
    }
    // 196 of them wait at any time from now on.
    eventually("the hot account to be served", async || {
        done.load(SeqCst) > 4
    })
    .await;
    let before = done.load(SeqCst);
    let turns = 15;
    for number in 0..turns {
        let sql = format!("/* dbproxy: primary */ SELECT {number}");
        assert_eq!(one::<usize>(&mut quiet, &sql).await, number);
    }
    let overtaken = done.load(SeqCst) - before;
    stop.store(true, SeqCst);
    // In the order of their coming they would have been some 190 each time.
    assert!(overtaken < turns * 40, "{overtaken} for {turns}");
    assert!(overtaken > 0);
    hot.join_all().await;
}

async fn a_transaction_that_moves_goes_first(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("pool_moves").await;
    rig.cluster
        .primary()
        .run(&format!("CREATE TABLE {schema}.t (a INT)"))
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let options = Options {
        cluster: "read_only_transactions = \"replica\"".to_owned(),
        sections: "[limits]\nserver_connections = 1\nqueue_wait = \"60s\"\n".to_owned(),
        ..Options::default()
    };
    let proxy = Proxy::start(&rig.cluster, &options).await;
    proxy.knows_replicas(2).await;
    let before = proxy.log().matches(LINE).count();
    let mut holder = proxy.connect().await;
    holder.query_drop("BEGIN").await.unwrap();
    let mut moves = proxy.connect().await;
    moves
        .query_drop("START TRANSACTION READ ONLY")
        .await
        .unwrap();
    let mut new = JoinSet::new();
    for number in 0..3 {
        let mut conn = proxy.connect().await;
        let sql = format!("INSERT INTO {schema}.t VALUES ({number})");
        new.spawn(async move { conn.query_drop(sql).await.unwrap() });
    }
    waiting(&proxy, before + 3).await;
    let asks = format!("SELECT COUNT(*), @@port FROM {schema}.t");
    let moved = tokio::spawn(async move {
        let counted = one::<(u64, u16)>(&mut moves, &asks).await;
        moves.query_drop("COMMIT").await.unwrap();
        counted
    });
    waiting(&proxy, before + 4).await;
    holder.query_drop("COMMIT").await.unwrap();
    // It came last, and none of the others had run before it.
    let (count, port) = moved.await.unwrap();
    assert_eq!((count, port), (0, rig.cluster.primary().port()));
    new.join_all().await;
}

async fn a_server_that_comes_back_is_not_overrun(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let limits = "server_connections = 100\nhold = \"120s\"\nqueue_wait = \"120s\"\n";
    let (relay, proxy) = relayed(&cluster, limits).await;
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(proxy.connect().await);
    }
    cluster.primary().kill9();
    eventually("the death to be seen", async || {
        proxy.log().contains("server down")
    })
    .await;
    relay.count_logins_anew();
    let mut running = JoinSet::new();
    for (number, mut conn) in clients.into_iter().enumerate() {
        running.spawn(async move {
            // Long enough that one connection could not serve them all.
            let sql = format!("/* dbproxy: primary */ SELECT {number} + SLEEP(0.2)");
            assert_eq!(one::<usize>(&mut conn, &sql).await, number);
        });
    }
    cluster.primary().restart().await.unwrap();
    running.join_all().await;
    let logins = relay.logins();
    // Four, and what the monitor opens beside them.
    assert!(logins.steepest <= 4 + 4, "{logins:?}");
    assert!((20..=110).contains(&logins.completed), "{logins:?}");
}

async fn a_server_that_takes_no_connections_is_left_alone(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let (relay, proxy) = relayed(&cluster, "hold = \"2s\"\nidle = \"1s\"\n").await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(proxy.connect().await);
    }
    eventually("no connection to be left", async || {
        threads(&cluster, "app").await.is_empty()
    })
    .await;
    relay.close_door();
    relay.count_logins_anew();
    let mut running = JoinSet::new();
    for mut conn in clients {
        running.spawn(async move {
            let sql = "/* dbproxy: primary */ SELECT 1";
            let error = conn.query_drop(sql).await.unwrap_err();
            assert_eq!(code(&error), 2003, "{error}");
            let named = error
                .to_string()
                .contains("server db1 gets no new connections");
            (conn, named)
        });
    }
    let (clients, named): (Vec<_>, Vec<_>) = running.join_all().await.into_iter().unzip();
    // The last attempt of one or another may have been the single one.
    let named = named.into_iter().filter(|named| *named).count();
    assert!(named > 10, "{named}");
    // Each of twenty would have tried again with each of the monitor's looks at the server.
    let arrived = relay.logins().arrived;
    assert!((3..=30).contains(&arrived), "{arrived}");
    relay.open_door();
    for mut conn in clients {
        eventually("an answer", async || {
            conn.query_drop("/* dbproxy: primary */ SELECT 1")
                .await
                .is_ok()
        })
        .await;
    }
    assert!(proxy.log().contains("server takes connections again"));
}

async fn a_full_server_is_no_error_while_it_serves_others(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let proxy = proxy(
        &cluster,
        "server_connections = 50\nqueue_wait = \"60s\"\nidle = \"1s\"\n",
    )
    .await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(proxy.connect().await);
    }
    // Three more than there are, however many those of the monitor and of the rig are; MariaDB allows no less than ten.
    let server = cluster.primary();
    let sql = "SELECT CAST(variable_value AS UNSIGNED) FROM \
               (SELECT variable_value FROM X.global_status WHERE variable_name = 'Threads_connected') t";
    let schema = match flavor {
        Flavor::MariaDb => "information_schema",
        Flavor::MySql => "performance_schema",
    };
    let there: u64 = server.first(&sql.replace('X', schema)).await.unwrap();
    server
        .run(&format!(
            "SET GLOBAL max_connections = {}",
            (there + 3).max(10)
        ))
        .await
        .unwrap();
    let mut running = JoinSet::new();
    for (number, mut conn) in clients.into_iter().enumerate() {
        running.spawn(async move {
            for _ in 0..3 {
                let sql = format!("/* dbproxy: primary */ SELECT {number} + SLEEP(0.05)");
                assert_eq!(one::<usize>(&mut conn, &sql).await, number);
            }
        });
    }
    running.join_all().await;
    let log = proxy.log();
    assert!(
        log.contains("no new connections to a server that fails them"),
        "the server was never full: {there}"
    );
}

async fn a_wrong_password_shuts_nobody_out(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.account("forgetful").await;
    // dbproxy lets in whoever has the password that stands here, and the server does not.
    let options = Options {
        sections: "[users.forgetful]\npassword = \"other\"\n".to_owned(),
        ..Options::default()
    };
    let proxy = Proxy::start(&rig.cluster, &options).await;
    let mut wrong = 0;
    for _ in 0..20 {
        let refused = match Conn::new(login(proxy.port(), "forgetful", "other")).await {
            Ok(mut conn) => conn.query_drop("/* dbproxy: primary */ SELECT 1").await,
            Err(error) => Err(error),
        };
        let error = refused.unwrap_err();
        wrong += usize::from(code(&error) == 1045);
        let mut conn = proxy.connect().await;
        conn.query_drop("/* dbproxy: primary */ SELECT 1")
            .await
            .unwrap();
        conn.disconnect().await.unwrap();
    }
    assert_eq!(wrong, 20);
    assert!(!proxy.log().contains("no new connections to a server"));
}

async fn connections_that_the_server_closed_are_not_lent(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("pool_closed").await;
    let user = rig.account("closing").await;
    drop(user);
    rig.cluster
        .primary()
        .run(&format!("CREATE TABLE {schema}.t (a INT)"))
        .await
        .unwrap();
    let proxy = proxy(&rig.cluster, "").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(connect(&login(proxy.port(), "closing", "closing")).await);
    }
    for round in 0..40 {
        for id in threads(&rig.cluster, "closing").await {
            // It may have ended by itself.
            let _ = rig.cluster.primary().run(&format!("KILL {id}")).await;
        }
        eventually("the connections to be closed", async || {
            threads(&rig.cluster, "closing").await.is_empty()
        })
        .await;
        // Sent to a dead connection, a write is lost, and nobody may run it again. Clients of both workers take turns.
        let sql = format!("INSERT INTO {schema}.t VALUES ({round})");
        let conn = &mut clients[round % 4];
        let inserted = conn.query_drop(sql).await;
        assert!(inserted.is_ok(), "round {round}: {inserted:?}");
    }
}

async fn connections_end_by_age_unnoticed(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("pool_age").await;
    rig.account("aging").await;
    rig.cluster
        .primary()
        .run(&format!(
            "CREATE TABLE {schema}.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)"
        ))
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let proxy = proxy(&rig.cluster, "connection_age = \"1s\"\n").await;
    let aging = login(proxy.port(), "aging", "aging");
    let mut open = connect(&aging).await;
    open.query_drop("BEGIN").await.unwrap();
    open.query_drop(format!("INSERT INTO {schema}.t (a) VALUES (-1)"))
        .await
        .unwrap();
    let tied = threads(&rig.cluster, "aging").await;
    let mut conn = connect(&aging).await;
    let insert = conn
        .prep(format!("INSERT INTO {schema}.t (a) VALUES (?)"))
        .await
        .unwrap();
    conn.query_drop("SET @@sort_buffer_size = 654321")
        .await
        .unwrap();
    let mut seen = BTreeSet::new();
    let mut number = 0_u64;
    eventually("several generations", async || {
        for _ in 0..20 {
            number += 1;
            conn.exec_drop(&insert, (number,)).await.unwrap();
            let id = conn.last_insert_id().unwrap();
            let told: (u64, u64, u64) = one(
                &mut conn,
                &format!(
                    "SELECT LAST_INSERT_ID(), @@sort_buffer_size, a FROM {schema}.t \
                     WHERE id = LAST_INSERT_ID()"
                ),
            )
            .await;
            assert_eq!(told, (id, 654_321, number));
        }
        let now = threads(&rig.cluster, "aging").await;
        assert!(tied.is_subset(&now), "{tied:?} {now:?}");
        seen.extend(now);
        seen.len() >= 5
    })
    .await;
    open.query_drop("COMMIT").await.unwrap();
    let sql = format!("SELECT COUNT(*) FROM {schema}.t WHERE a = -1");
    assert_eq!(rig.cluster.primary().first::<u64>(&sql).await.unwrap(), 1);
}

async fn connections_are_kept_ready(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.account("ready").await;
    let proxy = proxy(&rig.cluster, "warm = 3\nidle = \"1s\"\n").await;
    let mut conn = connect(&login(proxy.port(), "ready", "ready")).await;
    conn.query_drop("BEGIN").await.unwrap();
    eventually("three beside the one in use", async || {
        threads(&rig.cluster, "ready").await.len() == 4
    })
    .await;
    conn.query_drop("COMMIT").await.unwrap();
    conn.disconnect().await.unwrap();
    eventually("one less when nobody uses it", async || {
        threads(&rig.cluster, "ready").await.len() == 3
    })
    .await;
    // Longer than unused ones are kept otherwise.
    let kept = threads(&rig.cluster, "ready").await;
    for id in kept.iter().take(2) {
        rig.cluster
            .primary()
            .run(&format!("KILL {id}"))
            .await
            .unwrap();
    }
    eventually("three connections again", async || {
        let now = threads(&rig.cluster, "ready").await;
        now.len() == 3 && now.intersection(&kept).count() == 1
    })
    .await;
    // The next session has one at once.
    let mut conn = Conn::new(application(proxy.port())).await.unwrap();
    conn.query_drop("/* dbproxy: primary */ SELECT 1")
        .await
        .unwrap();
    assert_eq!(threads(&rig.cluster, "app").await.len().min(1), 1);
}
