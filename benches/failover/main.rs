//! Kills, stops and switches primaries under load, and counts what became of every write.
//!
//!     cargo bench --bench failover -- [mariadb|mysql|both] [kill|stop|switch|all] [RUNS] [--async]
//!
//! Each run of `kill` and `stop` has servers of its own: a primary and two replicas with semi-synchronous replication (`--async`:
//! without), and a proxy with `failover = "automatic"`. 16 clients add to counters of their own, 8 move money between accounts;
//! each knows what it was told to be committed, and of which writes it was told that nobody knows. Afterwards the new primary
//! must have every write that was acknowledged, none twice, and all the money.
//!
//! Exit status: 0 all promises are kept; 1 one is broken, or something failed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod load;

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use support::{Options, Proxy, eventually};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use load::{Load, Tally};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    Switch,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let runs = arguments.iter().find_map(|argument| argument.parse().ok());
    let runs: usize = runs.unwrap_or(5);
    let flavors = [("mariadb", Flavor::MariaDb), ("mysql", Flavor::MySql)];
    let faults = [
        ("kill", Fault::Kill),
        ("stop", Fault::Stop),
        ("switch", Fault::Switch),
    ];
    let named = |name: &str, all: &[&str]| has(name) || !all.iter().any(|other| has(other));
    let mut sound = true;
    for (name, flavor) in flavors {
        if !named(name, &["mariadb", "mysql"]) {
            continue;
        }
        for (what, fault) in faults {
            if named(what, &["kill", "stop", "switch"]) {
                sound &= series(flavor, name, fault, what, runs, !has("--async")).await;
            }
        }
    }
    match sound {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

async fn series(
    flavor: Flavor,
    name: &str,
    fault: Fault,
    what: &str,
    runs: usize,
    semi_sync: bool,
) -> bool {
    let mut gaps = Vec::new();
    let mut tally = Tally::default();
    match fault {
        Fault::Switch => {
            let scene = Scene::start(flavor, semi_sync).await;
            for _ in 0..runs {
                gaps.push(scene.switch(&mut tally).await);
            }
        }
        _ => {
            for _ in 0..runs {
                let scene = Scene::start(flavor, semi_sync).await;
                gaps.push(scene.fail(fault, &mut tally).await);
            }
        }
    }
    gaps.sort_unstable();
    let rank = |part: f64| gaps[((gaps.len() - 1) as f64 * part).round() as usize].as_millis();
    println!(
        "{name} {what}: {} runs, without a write for {} ms (median), {} ms (p99), {} ms (longest); {tally}",
        gaps.len(),
        rank(0.5),
        rank(0.99),
        rank(1.0),
    );
    tally.is_sound(semi_sync, fault == Fault::Switch)
}

struct Scene {
    cluster: Cluster,
    proxy: Proxy,
}

impl Scene {
    async fn start(flavor: Flavor, semi_sync: bool) -> Self {
        let cluster = Cluster::start(flavor, 2).await.unwrap();
        let rights = "GRANT ALL ON *.* TO dbproxy@'%'";
        cluster.primary().run(rights).await.unwrap();
        cluster.primary().run(load::TABLES).await.unwrap();
        cluster.caught_up().await.unwrap();
        for server in cluster.servers() {
            let durable = "SET GLOBAL sync_binlog=1; SET GLOBAL innodb_flush_log_at_trx_commit=1";
            server.run(durable).await.unwrap();
        }
        if semi_sync {
            wait_for_replicas(&cluster).await;
        }
        let options = Options {
            cluster: "failover = \"automatic\"\nreplication_user = \"repl\"\nreplication_password = \"repl\""
                .to_owned(),
            sections: "[limits]\nhold = \"60s\"".to_owned(),
            ..Options::default()
        };
        let proxy = Proxy::start(&cluster, &options).await;
        let scene = Self { cluster, proxy };
        eventually("the first reign", async || {
            let row = "SELECT CONCAT(epoch) FROM dbproxy.epoch";
            scene.cluster.primary().first::<String>(row).await.is_ok()
        })
        .await;
        scene
    }

    /// How long there was no write after the primary has failed.
    async fn fail(&self, fault: Fault, tally: &mut Tally) -> Duration {
        let load = Load::start(self.proxy.port()).await;
        sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        match fault {
            Fault::Stop => self.cluster.primary().stop().unwrap(),
            _ => self.cluster.primary().kill9(),
        }
        load.writes_after(begun + Duration::from_millis(50)).await;
        let gap = load.longest_gap(begun);
        tally.add(load.end(self.proxy.port()).await);
        gap
    }

    /// How long there was no write while the primary was changed on purpose.
    async fn switch(&self, tally: &mut Tally) -> Duration {
        let load = Load::start(self.proxy.port()).await;
        sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        let order = Command::new(env!("CARGO_BIN_EXE_dbproxy"))
            .args(["admin", "-e", "SWITCHOVER", "--config"])
            .arg(self.proxy.configuration())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(
            order.status.success(),
            "{}{}",
            String::from_utf8_lossy(&order.stdout),
            String::from_utf8_lossy(&order.stderr)
        );
        load.writes_after(Instant::now()).await;
        let gap = load.longest_gap(begun);
        tally.add(load.end(self.proxy.port()).await);
        // The old primary is a replica again before the next one.
        eventually("both others to replicate", async || {
            let mut following = 0;
            for server in self.cluster.servers() {
                following += usize::from(server.replicating().await.ok() == Some((true, true)));
            }
            following == 2
        })
        .await;
        gap
    }
}

/// Every commit waits for a replica, and never gives up.
async fn wait_for_replicas(cluster: &Cluster) {
    for server in cluster.servers() {
        let sql = match cluster.flavor() {
            Flavor::MariaDb => {
                "SET GLOBAL rpl_semi_sync_slave_enabled=1; SET GLOBAL rpl_semi_sync_master_timeout=4294967295; \
                 SET GLOBAL rpl_semi_sync_master_wait_point=AFTER_SYNC"
            }
            Flavor::MySql => {
                "SET sql_log_bin=0; SET @was = @@global.super_read_only; SET GLOBAL super_read_only=0; \
                 INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; \
                 INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'; \
                 SET GLOBAL super_read_only=@was; \
                 SET GLOBAL rpl_semi_sync_replica_enabled=1; SET GLOBAL rpl_semi_sync_source_timeout=4294967295"
            }
        };
        server.run(sql).await.unwrap();
    }
    for replica in cluster.replicas() {
        let sql = match cluster.flavor() {
            Flavor::MariaDb => "STOP SLAVE IO_THREAD; START SLAVE IO_THREAD",
            Flavor::MySql => "STOP REPLICA IO_THREAD; START REPLICA IO_THREAD",
        };
        replica.run(sql).await.unwrap();
    }
    let (enable, clients) = match cluster.flavor() {
        Flavor::MariaDb => (
            "SET GLOBAL rpl_semi_sync_master_enabled=1",
            "SELECT CONCAT(variable_value) FROM information_schema.global_status \
             WHERE variable_name = 'Rpl_semi_sync_master_clients'",
        ),
        Flavor::MySql => (
            "SET GLOBAL rpl_semi_sync_source_enabled=1",
            "SELECT CONCAT(variable_value) FROM performance_schema.global_status \
             WHERE variable_name = 'Rpl_semi_sync_source_clients'",
        ),
    };
    cluster.primary().run(enable).await.unwrap();
    eventually("both replicas to acknowledge", async || {
        let count: Result<String, _> = cluster.primary().first(clients).await;
        count.is_ok_and(|count| count == "2")
    })
    .await;
}
