//! Several clusters behind one listener.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, SslOpts};

use support::{Options, Proxy, WHERE, application, eventually, login, one};

on_both_flavors!(sessions_find_their_cluster);

/// A cluster whose servers have this table to tell it by.
async fn cluster(flavor: Flavor, mark: &str, replicas: usize) -> Cluster {
    let cluster = Cluster::start(flavor, replicas).await.unwrap();
    let sql = format!("CREATE DATABASE {mark}; CREATE TABLE {mark}.mark SELECT '{mark}' AS name");
    cluster.primary().run(&sql).await.unwrap();
    cluster.caught_up().await.unwrap();
    cluster
}

async fn schemas(conn: &mut Conn) -> Vec<String> {
    let sql = "SELECT schema_name FROM information_schema.schemata WHERE schema_name IN ('shop', 'archive') ORDER BY 1";
    conn.query(sql).await.unwrap()
}

async fn sessions_find_their_cluster(flavor: Flavor) {
    let shop = cluster(flavor, "shop", 1).await;
    let archive = cluster(flavor, "archive", 1).await;
    let make = "CREATE USER keeper@'%' IDENTIFIED BY 'keeper'; GRANT ALL ON *.* TO keeper@'%'";
    archive.primary().run(make).await.unwrap();
    let servers: Vec<_> = archive
        .servers()
        .iter()
        .map(|server| format!("archive-{}=127.0.0.1:{}", server.name(), server.port()))
        .collect();
    let options = Options {
        sections: format!(
            "[clusters.archive]\nservers = {servers:?}\nschemas = [\"archive\", \"old_*\"]\naccounts = \"keeper\"\n\
             server_names = \"archive.example\"\n\
             [[rule]]\ntag = \"counted\"\nschema = \"*\"\nroute = \"primary\"\n"
        ),
        ..Options::default()
    };
    let proxy = Proxy::start(&shop, &options).await;
    proxy.knows_replicas(1).await;
    let port = proxy.port();
    let to = |options| async move { Conn::new(options).await };

    let mut usual = proxy.connect().await;
    assert_eq!(schemas(&mut usual).await, ["shop"]);
    let by_schema = application(port).db_name(Some("archive"));
    eventually("the other cluster to be seen", async || {
        Conn::new(by_schema.clone()).await.is_ok()
    })
    .await;
    let mut by_schema = to(by_schema).await.unwrap();
    assert_eq!(schemas(&mut by_schema).await, ["archive"]);
    let mut by_account = to(login(port, "keeper", "keeper")).await.unwrap();
    assert_eq!(schemas(&mut by_account).await, ["archive"]);
    let named = |name: &'static str| {
        let tls = SslOpts::default()
            .with_danger_accept_invalid_certs(true)
            .with_danger_skip_domain_validation(true)
            .with_danger_tls_hostname_override(Some(name));
        application(port).ssl_opts(tls)
    };
    let mut by_name = to(named("archive.example")).await.unwrap();
    assert_eq!(schemas(&mut by_name).await, ["archive"]);
    let mut other_name = to(named("shop.example")).await.unwrap();
    assert_eq!(schemas(&mut other_name).await, ["shop"]);
    // An account of the one is nobody in the other.
    let refused = to(login(port, "keeper", "keeper").db_name(Some("shop"))).await;
    assert!(
        matches!(refused, Err(Error::Server(error)) if error.code == 1049),
        "no such schema there"
    );

    // Each splits reads and writes for itself, and sees its own writes.
    for conn in [&mut usual, &mut by_schema] {
        let mark = schemas(conn).await.remove(0);
        conn.query_drop(format!("CREATE TABLE {mark}.t (a INT)"))
            .await
            .unwrap();
        for number in 0..20_u32 {
            conn.query_drop(format!("INSERT INTO {mark}.t VALUES ({number})"))
                .await
                .unwrap();
            let sql = format!("SELECT MAX(a) FROM {mark}.t");
            assert_eq!(one::<u32>(conn, &sql).await, number);
        }
        eventually("a replica to answer", async || {
            one::<String>(conn, WHERE).await == "db2"
        })
        .await;
    }
    // Rules are everybody's; this one needs a schema.
    let counted = format!("/* dbproxy: tag=counted */ {WHERE}");
    assert_eq!(one::<String>(&mut usual, &counted).await, "db2");
    assert_eq!(
        one::<String>(
            &mut by_schema,
            &format!("/* dbproxy: tag=counted */ {WHERE}")
        )
        .await,
        "db1"
    );
    let route: mysql_async::Row = by_schema
        .query_first("EXPLAIN ROUTE INSERT INTO t VALUES (1)")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(route.get::<String, _>("Server").unwrap(), "archive-db1");

    // Sessions can be ended across clusters by whoever has the right in the other one.
    let id: u32 = one(&mut by_schema, "SELECT CONNECTION_ID()").await;
    let sleeper = tokio::spawn(async move {
        let slept = by_schema.query_drop("SELECT SLEEP(600) FROM mark").await;
        (by_schema, slept)
    });
    eventually("it to run", async || {
        let sql =
            "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
        let mut running = 0;
        for server in archive.servers() {
            running += server.first::<u64>(sql).await.unwrap();
        }
        running == 1
    })
    .await;
    usual.query_drop(format!("KILL QUERY {id}")).await.unwrap();
    let (mut by_schema, _) = sleeper.await.unwrap();

    // The loss of one cluster is nobody else's.
    drop(shop);
    assert_eq!(
        one::<String>(&mut by_schema, "SELECT name FROM mark").await,
        "archive"
    );
    eventually("a newcomer to be let in", async || {
        let options = application(port).db_name(Some("archive"));
        Conn::new(options).await.is_ok()
    })
    .await;
}
