//! The primary fails, or is switched, and dbproxy sees to it: real servers, and real faults.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::{Cluster, Flavor, ServerProcess};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use support::{Options, Proxy, eventually};

on_both_flavors!(
    a_killed_primary_is_replaced,
    a_hanging_primary_is_replaced,
    a_write_in_flight_is_quarantined,
);

/// A primary, replicas, and a proxy that looks after them.
struct Scene {
    cluster: Cluster,
    proxy: Proxy,
}

impl Scene {
    async fn start(flavor: Flavor, replicas: usize) -> Self {
        let cluster = Cluster::start(flavor, replicas).await.unwrap();
        let setup = "GRANT ALL ON *.* TO dbproxy@'%'; CREATE TABLE test.t (n INT PRIMARY KEY)";
        cluster.primary().run(setup).await.unwrap();
        cluster.caught_up().await.unwrap();
        let options = Options {
            cluster: "failover = \"automatic\"\nreplication_user = \"repl\"\nreplication_password = \"repl\"".to_owned(),
            ..Options::default()
        };
        let proxy = Proxy::start(&cluster, &options).await;
        let scene = Self { cluster, proxy };
        scene.reigns("db1", 1).await;
        scene
    }

    /// What the proxy has decided and done, for a test that fails.
    fn journal(&self) -> String {
        let log = self.proxy.log();
        let lines = log.lines().filter(|line| line.contains("dbproxy::control"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Waits until a server reigns, as everybody says who is up.
    async fn reigns(&self, name: &str, epoch: u64) {
        let server = self.cluster.server(name).unwrap();
        let what = format!("{name} to reign in {epoch}");
        eventually(&what, async || {
            let row = "SELECT CONCAT(epoch) FROM dbproxy.epoch";
            let row: Result<String, _> = server.first(row).await;
            row.is_ok_and(|row| row == epoch.to_string())
        })
        .await;
    }

    /// The server that reigns in this epoch, which is not db1.
    async fn successor(&self, epoch: u64) -> &ServerProcess {
        let primary = self.primary().await;
        assert_ne!(primary.name(), "db1");
        self.reigns(primary.name(), epoch).await;
        primary
    }

    /// Who takes writes, as the proxy sees it.
    async fn primary(&self) -> &ServerProcess {
        let mut conn = self.proxy.connect().await;
        let port: u16 = conn
            .query_first("/* dbproxy: primary */ SELECT @@port")
            .await
            .unwrap()
            .unwrap();
        let servers = self.cluster.servers().iter();
        let mut found = servers.filter(|server| server.port() == port);
        found.next().unwrap()
    }

    /// Waits until all others replicate from this one, and nobody else takes writes.
    async fn all_follow(&self, primary: &ServerProcess) {
        for server in self.cluster.servers() {
            if server.name() == primary.name() {
                continue;
            }
            let what = format!("{} to follow {}", server.name(), primary.name());
            eventually(&what, async || {
                let writable: Result<u8, _> = server.first("SELECT @@read_only = 0").await;
                if writable.ok() != Some(0) {
                    return false;
                }
                let replicates = server.replicating().await.ok() == Some((true, true));
                replicates && source_port(&self.cluster, server).await == Some(primary.port())
            })
            .await;
        }
    }
}

async fn source_port(cluster: &Cluster, server: &ServerProcess) -> Option<u16> {
    let (sql, column) = match cluster.flavor() {
        Flavor::MariaDb => ("SHOW SLAVE STATUS", "Master_Port"),
        Flavor::MySql => ("SHOW REPLICA STATUS", "Source_Port"),
    };
    let mut conn = server.connect().await.ok()?;
    let row: mysql_async::Row = conn.query_first(sql).await.ok()??;
    row.get(column)
}

async fn insert(scene: &Scene, conn: &mut Conn, n: u32) {
    let done = conn
        .query_drop(format!("INSERT INTO test.t VALUES ({n})"))
        .await;
    done.unwrap_or_else(|error| panic!("{error}\n{}", scene.journal()));
}

async fn numbers(server: &ServerProcess) -> Vec<u32> {
    let rows = server.rows("SELECT n FROM test.t ORDER BY n").await;
    rows.unwrap()
}

async fn a_killed_primary_is_replaced(flavor: Flavor) {
    let scene = Scene::start(flavor, 2).await;
    let mut conn = scene.proxy.connect().await;
    conn.query_drop("SET @@session.lock_wait_timeout = 77")
        .await
        .unwrap();
    insert(&scene, &mut conn, 1).await;
    scene.cluster.primary().kill9();
    // Held, and then run.
    insert(&scene, &mut conn, 2).await;
    let kept: u32 = conn
        .query_first("SELECT @@session.lock_wait_timeout")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept, 77);
    let new = scene.successor(2).await;
    assert_eq!(
        new.rows::<u32>("SELECT n FROM test.t ORDER BY n")
            .await
            .unwrap(),
        [1, 2]
    );
    scene.cluster.primary().restart().await.unwrap();
    scene.all_follow(new).await;
}

async fn a_hanging_primary_is_replaced(flavor: Flavor) {
    let scene = Scene::start(flavor, 2).await;
    let mut conn = scene.proxy.connect().await;
    insert(&scene, &mut conn, 1).await;
    let old = scene.cluster.primary();
    old.stop().unwrap();
    let new = scene.successor(2).await;
    insert(&scene, &mut conn, 2).await;
    // It wakes up and thinks that it is the primary.
    old.cont().unwrap();
    scene.all_follow(new).await;
    old.reach(&new.position().await.unwrap()).await.unwrap();
    assert_eq!(numbers(old).await, [1, 2]);
}

/// What a primary executes that nobody hears of is not lost silently, and reaches nobody.
async fn a_write_in_flight_is_quarantined(flavor: Flavor) {
    let scene = Scene::start(flavor, 2).await;
    let mut conn = scene.proxy.connect().await;
    insert(&scene, &mut conn, 1).await;
    let old = scene.cluster.primary();
    old.stop().unwrap();
    let told = conn.query_drop("INSERT INTO test.t VALUES (2)").await;
    let told = told.unwrap_err().to_string();
    assert!(told.contains("1927") && told.contains("08S01"), "{told}");
    let new = scene.successor(2).await;
    let mut conn = scene.proxy.connect().await;
    insert(&scene, &mut conn, 3).await;
    old.cont().unwrap();
    eventually("the old primary to be fenced", async || {
        old.first::<u8>("SELECT @@read_only = 1").await.ok() == Some(1)
    })
    .await;
    eventually("its own write to be told", async || {
        scene.journal().contains("db1 has transactions that")
    })
    .await;
    assert_eq!(numbers(old).await, [1, 2]);
    assert_eq!(numbers(new).await, [1, 3]);
    assert_eq!(source_port(&scene.cluster, old).await, None);
}
