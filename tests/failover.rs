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

use support::{Options, Proxy, SOON, eventually, within};

on_both_flavors!(
    a_killed_primary_is_replaced,
    a_hanging_primary_is_replaced,
    a_write_in_flight_is_quarantined,
    what_was_received_is_applied_first,
    a_replica_that_was_never_connected_is_not_promoted,
    a_replica_with_transactions_of_its_own_is_not_promoted,
    a_delayed_replica_is_not_promoted,
    a_primary_that_refuses_the_monitor_stays,
    a_second_writable_server_is_fenced,
    a_restarted_primary_goes_on,
);

/// A primary, replicas, and a proxy that looks after them.
struct Scene {
    cluster: Cluster,
    proxy: Proxy,
}

impl Scene {
    async fn start(flavor: Flavor, replicas: usize) -> Self {
        let cluster = Cluster::start(flavor, replicas).await.unwrap();
        Self::with(cluster).await
    }

    async fn with(cluster: Cluster) -> Self {
        Self::prepare(&cluster).await;
        cluster.caught_up().await.unwrap();
        Self::watch(cluster).await
    }

    /// The same with replicas that do not replicate.
    async fn with_stopped(cluster: Cluster) -> Self {
        let flavor = cluster.flavor();
        for replica in cluster.replicas() {
            // So that the monitor's account may look at them all the same.
            replica.run(&both(flavor, "START")).await.unwrap();
        }
        Self::prepare(&cluster).await;
        cluster.caught_up().await.unwrap();
        for replica in cluster.replicas() {
            replica.run(&both(flavor, "STOP")).await.unwrap();
        }
        Self::watch(cluster).await
    }

    async fn prepare(cluster: &Cluster) {
        let setup = "GRANT ALL ON *.* TO dbproxy@'%'; CREATE TABLE test.t (n INT PRIMARY KEY)";
        cluster.primary().run(setup).await.unwrap();
    }

    async fn watch(cluster: Cluster) -> Self {
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
            // It has to answer without a failure for a while before it is touched.
            let follows = within(SOON * 3, async || {
                let writable: Result<u8, _> = server.first("SELECT @@read_only = 0").await;
                if writable.ok() != Some(0) {
                    return false;
                }
                let replicates = server.replicating().await.ok() == Some((true, true));
                replicates && source_port(&self.cluster, server).await == Some(primary.port())
            })
            .await;
            assert!(follows, "{what}\n{}", self.journal());
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
    scene.cluster.caught_up().await.unwrap();
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
    scene.cluster.caught_up().await.unwrap();
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
    scene.cluster.caught_up().await.unwrap();
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

fn applier(flavor: Flavor, verb: &str) -> String {
    match flavor {
        Flavor::MariaDb => format!("{verb} SLAVE SQL_THREAD"),
        Flavor::MySql => format!("{verb} REPLICA SQL_THREAD"),
    }
}

fn both(flavor: Flavor, verb: &str) -> String {
    match flavor {
        Flavor::MariaDb => format!("{verb} SLAVE"),
        Flavor::MySql => format!("{verb} REPLICA"),
    }
}

/// Waits until a replica has received, applied or not, what its source has.
async fn received(scene: &Scene, replica: &ServerProcess) {
    let (sql, column) = match scene.cluster.flavor() {
        Flavor::MariaDb => ("SHOW SLAVE STATUS", "Read_Master_Log_Pos"),
        Flavor::MySql => ("SHOW REPLICA STATUS", "Read_Source_Log_Pos"),
    };
    let (log, position) = match scene.cluster.flavor() {
        Flavor::MariaDb => ("SHOW MASTER STATUS", "Position"),
        Flavor::MySql => ("SHOW BINARY LOG STATUS", "Position"),
    };
    eventually("the replica to have received everything", async || {
        let mut there = replica.connect().await.unwrap();
        let mut here = scene.cluster.primary().connect().await.unwrap();
        let there: Option<mysql_async::Row> = there.query_first(sql).await.unwrap();
        let here: Option<mysql_async::Row> = here.query_first(log).await.unwrap();
        let there: Option<u64> = there.unwrap().get(column);
        let here: Option<u64> = here.unwrap().get(position);
        there.is_some() && there == here
    })
    .await;
}

async fn what_was_received_is_applied_first(flavor: Flavor) {
    let scene = Scene::start(flavor, 1).await;
    let replica = &scene.cluster.replicas()[0];
    let mut conn = scene.proxy.connect().await;
    insert(&scene, &mut conn, 1).await;
    replica.run(&applier(flavor, "STOP")).await.unwrap();
    for n in 2..50 {
        insert(&scene, &mut conn, n).await;
    }
    received(&scene, replica).await;
    scene.cluster.primary().kill9();
    insert(&scene, &mut conn, 50).await;
    let expected: Vec<u32> = (1..=50).collect();
    assert_eq!(numbers(replica).await, expected);
    scene.cluster.primary().restart().await.unwrap();
    scene.all_follow(replica).await;
}

async fn a_replica_that_was_never_connected_is_not_promoted(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    let scene = Scene::with_stopped(cluster).await;
    scene.cluster.primary().kill9();
    eventually("the reason to be told", async || {
        scene.journal().contains("is not replaced")
    })
    .await;
    assert_eq!(
        scene.cluster.replicas()[0]
            .first::<u8>("SELECT @@read_only = 1")
            .await
            .unwrap(),
        1
    );
    // Its own data are the newest there are: it goes on when it is back.
    scene.cluster.primary().restart().await.unwrap();
    let mut conn = scene.proxy.connect().await;
    insert(&scene, &mut conn, 1).await;
    assert_eq!(numbers(scene.cluster.primary()).await, [1]);
}

async fn a_replica_with_transactions_of_its_own_is_not_promoted(flavor: Flavor) {
    let scene = Scene::start(flavor, 2).await;
    let [errant, sound] = scene.cluster.replicas() else {
        panic!("two replicas");
    };
    let off = match flavor {
        Flavor::MariaDb => "",
        Flavor::MySql => "SET GLOBAL super_read_only=0; ",
    };
    let on = match flavor {
        Flavor::MariaDb => "",
        Flavor::MySql => "; SET GLOBAL super_read_only=1",
    };
    let stray = format!("{off}INSERT INTO test.t VALUES (777){on}");
    errant.run(&stray).await.unwrap();
    scene.cluster.primary().kill9();
    let mut conn = scene.proxy.connect().await;
    insert(&scene, &mut conn, 1).await;
    let new = scene.successor(2).await;
    assert_eq!(new.name(), sound.name(), "{}", scene.journal());
    eventually("the stray transaction to be told", async || {
        scene.journal().contains("db2 has transactions that")
    })
    .await;
    assert_eq!(numbers(sound).await, [1]);
    assert_eq!(numbers(errant).await, [777]);
}

async fn a_delayed_replica_is_not_promoted(flavor: Flavor) {
    let scene = Scene::start(flavor, 2).await;
    let [delayed, other] = scene.cluster.replicas() else {
        panic!("two replicas");
    };
    let change = match flavor {
        Flavor::MariaDb => "CHANGE MASTER TO master_delay=3600",
        Flavor::MySql => "CHANGE REPLICATION SOURCE TO source_delay=3600",
    };
    let sql = format!(
        "{}; {change}; {}",
        both(flavor, "STOP"),
        both(flavor, "START")
    );
    delayed.run(&sql).await.unwrap();
    scene.cluster.primary().kill9();
    let mut conn = scene.proxy.connect().await;
    insert(&scene, &mut conn, 1).await;
    let new = scene.successor(2).await;
    assert_eq!(new.name(), other.name(), "{}", scene.journal());
}

async fn a_primary_that_refuses_the_monitor_stays(flavor: Flavor) {
    let scene = Scene::start(flavor, 2).await;
    let mut conn = scene.proxy.connect().await;
    let primary = scene.cluster.primary();
    let id = "SELECT CONCAT(id) FROM information_schema.processlist WHERE user = 'dbproxy'";
    primary
        .run("SET sql_log_bin=0; ALTER USER dbproxy@'%' IDENTIFIED BY 'changed'")
        .await
        .unwrap();
    eventually("the monitor to be refused", async || {
        // It is asked for its password only when it connects.
        let ids: Vec<String> = primary.rows(id).await.unwrap();
        for id in ids {
            let _ = primary.run(&format!("KILL {id}")).await;
        }
        scene
            .journal()
            .contains("overloaded: db1 answers with an error")
    })
    .await;
    insert(&scene, &mut conn, 1).await;
    assert_eq!(numbers(primary).await, [1]);
    assert!(
        !scene.journal().contains("failover-"),
        "{}",
        scene.journal()
    );
}

async fn a_second_writable_server_is_fenced(flavor: Flavor) {
    let scene = Scene::start(flavor, 1).await;
    let replica = &scene.cluster.replicas()[0];
    let open = match flavor {
        Flavor::MariaDb => "SET GLOBAL read_only=0",
        Flavor::MySql => "SET GLOBAL super_read_only=0; SET GLOBAL read_only=0",
    };
    replica.run(open).await.unwrap();
    eventually("the replica to be fenced", async || {
        replica.first::<u8>("SELECT @@read_only = 1").await.ok() == Some(1)
    })
    .await;
    let mut conn = scene.proxy.connect().await;
    insert(&scene, &mut conn, 1).await;
    assert_eq!(numbers(scene.cluster.primary()).await, [1]);
    scene.all_follow(scene.cluster.primary()).await;
}

/// There is nobody who could take over.
async fn a_restarted_primary_goes_on(flavor: Flavor) {
    let scene = Scene::start(flavor, 1).await;
    let mut conn = scene.proxy.connect().await;
    let change = match flavor {
        Flavor::MariaDb => "CHANGE MASTER TO master_delay=3600",
        Flavor::MySql => "CHANGE REPLICATION SOURCE TO source_delay=3600",
    };
    let sql = format!(
        "{}; {change}; {}",
        both(flavor, "STOP"),
        both(flavor, "START")
    );
    scene.cluster.replicas()[0].run(&sql).await.unwrap();
    if flavor == Flavor::MySql {
        // As it should be in every server's configuration.
        let sql = "SET PERSIST_ONLY super_read_only=1";
        scene.cluster.primary().run(sql).await.unwrap();
    }
    insert(&scene, &mut conn, 1).await;
    scene.cluster.primary().kill9();
    scene.cluster.primary().restart().await.unwrap();
    insert(&scene, &mut conn, 2).await;
    assert_eq!(numbers(scene.cluster.primary()).await, [1, 2]);
}
