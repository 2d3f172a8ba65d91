//! What the monitor sees of real servers, and what the topology makes of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dbproxy::accounts::{ClientAddress, Directory, Lookup, Requirement, Verifier};
use dbproxy::cli::demo::cluster::{self, ServerProcess};
use dbproxy::config::{
    Administration, Balance, Consistency, MonotonicReads, ProxyProtocol, ReadOnlyTransactions,
    Secret, ServerAddress, ServerCompression, ServerConfig, ServerTls, TransactionReplay, User,
};
use dbproxy::monitor::{self, Pulse, Target};
use dbproxy::topology::{Flavor, Health, Lag, Role, ServerId, Topology, Unreadable, WriteProbe};
use dbproxy::{config, control};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use support::{eventually, relay::Relay};

on_both_flavors!(
    roles_and_positions_are_read,
    stopped_and_lagging_replicas_get_no_reads,
    an_operators_switch_is_followed,
    lost_servers_are_noticed,
    accounts_are_followed,
    lag_is_measured_with_heartbeats,
    heartbeats_are_written_to_nobody_else,
    writes_that_get_no_answer_are_noticed,
);

const INTERVAL: Duration = Duration::from_millis(100);

/// The control plane over a cluster of its own; it ends with the scene.
struct Scene {
    cluster: cluster::Cluster,
    topology: watch::Receiver<Arc<Topology>>,
    writes: watch::Receiver<WriteProbe>,
    directory: watch::Receiver<Arc<Directory>>,
    nudge: Arc<Notify>,
    _tasks: JoinSet<()>,
}

fn target(id: u16, server: &ServerProcess, password: &str, pulse: Option<Pulse>) -> Target {
    Target {
        id: ServerId(id),
        name: server.name().into(),
        address: ServerAddress::Tcp {
            host: "127.0.0.1".to_owned(),
            port: server.port(),
        },
        user: "dbproxy".to_owned(),
        password: Secret::new(password),
        interval: INTERVAL,
        tls: ServerTls::default(),
        pulse,
    }
}

impl Scene {
    async fn start(flavor: Flavor, replicas: usize, max_lag: Duration) -> Self {
        let cluster = cluster::Cluster::start(flavor, replicas).await.unwrap();
        Self::watch(cluster, max_lag, None).await
    }

    /// With heartbeats, if there is a pulse for them.
    async fn watch(cluster: cluster::Cluster, max_lag: Duration, pulse: Option<Pulse>) -> Self {
        let replicas = cluster.replicas().len();
        let targets: Vec<_> = (0..)
            .zip(cluster.servers())
            .map(|(id, server)| target(id, server, "dbproxy", pulse))
            .collect();
        let configured = config::Cluster {
            number: 0,
            serves: config::Serves::default(),
            name: "main".to_owned(),
            servers: targets
                .iter()
                .map(|target| ServerConfig::new(&*target.name, target.address.clone()))
                .collect(),
            consistency: Consistency::User,
            monotonic_reads: MonotonicReads::default(),
            replica_wait: Duration::ZERO,
            max_lag,
            balance: Balance::RoundRobin,
            slow_start: Duration::ZERO,
            hedged_reads: 0,
            read_only_transactions: ReadOnlyTransactions::Primary,
            transaction_replay: TransactionReplay::Off,
            transaction_replay_size: 1 << 20,
            administration: Administration::Refuse,
            failover: config::Failover::Off,
            max_loss: 0,
            rejoin: config::Rejoin::Manual,
            replication: None,
            hooks: config::Hooks::default(),
            compression: ServerCompression::Off,
            proxy_protocol: ProxyProtocol::Off,
        };
        let (control, evidence, topology) = control::new(&configured, INTERVAL);
        let (publish, directory) = watch::channel(Arc::new(Directory::default()));
        let nudge = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(control.run());
        for target in &targets {
            tasks.spawn(monitor::watch(
                target.clone(),
                evidence.clone(),
                Arc::default(),
            ));
        }
        let (fate, writes) = watch::channel(WriteProbe::default());
        tasks.spawn(monitor::heartbeat::beat(
            targets.clone(),
            topology.clone(),
            fate,
        ));
        tasks.spawn(monitor::accounts::watch(
            targets,
            BTreeMap::<String, User>::new(),
            topology.clone(),
            publish,
            nudge.clone(),
        ));
        let scene = Self {
            cluster,
            topology,
            writes,
            directory,
            nudge,
            _tasks: tasks,
        };
        scene
            .until("all replicas to be readable", |topology| {
                topology.writable().is_some() && topology.readable_replicas().count() == replicas
            })
            .await;
        scene
    }

    /// Waits for a picture that fulfils the condition.
    async fn until(&self, what: &str, condition: impl Fn(&Topology) -> bool) -> Arc<Topology> {
        let mut pictures = self.topology.clone();
        let found = pictures.wait_for(|topology| condition(topology));
        match tokio::time::timeout(support::SOON, found).await {
            Ok(topology) => topology.unwrap().clone(),
            Err(_) => panic!("waited for {what}: {:#?}", self.topology.borrow().servers),
        }
    }

    fn server(&self, number: usize) -> &ServerProcess {
        &self.cluster.servers()[number - 1]
    }
}

fn barred(topology: &Topology, number: usize) -> Option<Unreadable> {
    topology.servers[number - 1]
        .readable(topology.max_lag)
        .err()
}

fn statement<'a>(flavor: Flavor, maria: &'a str, mysql: &'a str) -> &'a str {
    match flavor {
        Flavor::MariaDb => maria,
        Flavor::MySql => mysql,
    }
}

async fn roles_and_positions_are_read(flavor: Flavor) {
    let scene = Scene::start(flavor, 2, Duration::from_secs(5)).await;
    scene
        .server(1)
        .run("CREATE TABLE test.p (i INT PRIMARY KEY); INSERT INTO test.p VALUES (1)")
        .await
        .unwrap();
    scene.cluster.caught_up().await.unwrap();
    let written = scene.server(1).position().await.unwrap();
    let topology = scene
        .until("positions to be equal", |topology| {
            let shown = |index: usize| {
                topology.servers[index]
                    .position
                    .as_ref()
                    .map(ToString::to_string)
            };
            shown(0) == shown(1)
                && shown(0) == shown(2)
                && shown(0).is_some_and(|text| written.ends_with(&text))
        })
        .await;
    assert_eq!(topology.primary, Some(ServerId(0)));
    let greeting = topology.greeting.as_ref().unwrap();
    assert_eq!((greeting.version.flavor, greeting.gtid), (flavor, true));
    let (text, collation): (String, u16) = scene
        .server(1)
        .first("SELECT @@version, id FROM information_schema.collations WHERE collation_name=@@collation_server")
        .await
        .unwrap();
    assert_eq!(
        (&*greeting.version.text, greeting.collation),
        (&*text, collation)
    );
    for replica in topology.readable_replicas() {
        assert_eq!(
            (replica.role, replica.lag),
            (Role::Replica, Lag::Known(Duration::ZERO))
        );
        assert_eq!(&*replica.why, "replicates from db1");
    }
}

async fn stopped_and_lagging_replicas_get_no_reads(flavor: Flavor) {
    let scene = Scene::start(flavor, 2, Duration::from_secs(1)).await;
    let stop = statement(flavor, "STOP SLAVE SQL_THREAD", "STOP REPLICA SQL_THREAD");
    let start = statement(flavor, "START SLAVE", "START REPLICA");
    scene.server(2).run(stop).await.unwrap();
    let found = |topology: &Topology| barred(topology, 2) == Some(Unreadable::ApplierStopped);
    scene.until("the applier to be seen stopped", found).await;
    scene.server(2).run(start).await.unwrap();
    scene
        .until("the replica to be back", |topology| {
            barred(topology, 2).is_none()
        })
        .await;

    let stop = statement(flavor, "STOP SLAVE IO_THREAD", "STOP REPLICA IO_THREAD");
    scene.server(3).run(stop).await.unwrap();
    let found = |topology: &Topology| barred(topology, 3) == Some(Unreadable::ReceiverStopped);
    scene.until("the receiver to be seen stopped", found).await;
    scene.server(3).run(start).await.unwrap();
    scene
        .until("the replica to be back", |topology| {
            barred(topology, 3).is_none()
        })
        .await;

    // Its threads run, but it cannot apply: it lags from the first write on.
    let mut lock = scene.server(2).connect().await.unwrap();
    mysql_async::prelude::Queryable::query_drop(&mut lock, "FLUSH TABLES WITH READ LOCK")
        .await
        .unwrap();
    scene
        .server(1)
        .run("CREATE TABLE test.l (i INT PRIMARY KEY)")
        .await
        .unwrap();
    let found = |topology: &Topology| matches!(barred(topology, 2), Some(Unreadable::Lagging(_)));
    let topology = scene.until("the replica to lag", found).await;
    assert_eq!(barred(&topology, 3), None);
    drop(lock);
    scene
        .until("the replica to be back", |topology| {
            barred(topology, 2).is_none()
        })
        .await;
}

async fn an_operators_switch_is_followed(flavor: Flavor) {
    let scene = Scene::start(flavor, 2, Duration::from_secs(5)).await;
    // A second writable server gets nothing.
    let open = statement(
        flavor,
        "SET GLOBAL read_only=0",
        "SET GLOBAL super_read_only=0, GLOBAL read_only=0",
    );
    scene.server(2).run(open).await.unwrap();
    let topology = scene
        .until("the spare to be seen", |topology| {
            topology.servers[1].role == Role::Spare
        })
        .await;
    assert_eq!(topology.primary, Some(ServerId(0)));
    scene.server(1).run("SET GLOBAL read_only=1").await.unwrap();
    let topology = scene
        .until("the switch to be followed", |topology| {
            topology.primary == Some(ServerId(1))
        })
        .await;
    assert!(topology.writable().is_some());
    assert_eq!(barred(&topology, 3), Some(Unreadable::OtherSource));
    let (server, replica) = (scene.server(2), scene.server(3));
    let reset = statement(
        flavor,
        "STOP SLAVE; RESET SLAVE ALL",
        "STOP REPLICA; RESET REPLICA ALL",
    );
    server.run(reset).await.unwrap();
    replica
        .run(statement(flavor, "STOP SLAVE", "STOP REPLICA"))
        .await
        .unwrap();
    scene.cluster.replicate(replica, server).await.unwrap();
    scene
        .cluster
        .replicate(scene.server(1), server)
        .await
        .unwrap();
    scene
        .until("the others to follow", |topology| {
            topology.readable_replicas().count() == 2
        })
        .await;
}

async fn lost_servers_are_noticed(flavor: Flavor) {
    let scene = Scene::start(flavor, 1, Duration::from_secs(5)).await;
    scene.server(2).stop().unwrap();
    scene
        .until("the silent replica to lose reads", |topology| {
            barred(topology, 2) == Some(Unreadable::Stale)
        })
        .await;
    scene
        .until("the silent replica to be down", |topology| {
            matches!(topology.servers[1].health, Health::Down { .. })
        })
        .await;
    scene.server(2).cont().unwrap();
    scene
        .until("the replica to be back", |topology| {
            barred(topology, 2).is_none()
        })
        .await;

    scene.server(1).kill9();
    let topology = scene
        .until("the primary to be down", |topology| {
            topology.writable().is_none()
        })
        .await;
    assert_eq!(
        topology.primary,
        Some(ServerId(0)),
        "nobody else takes writes"
    );
    let Health::Down { error, .. } = &topology.servers[0].health else {
        panic!("{:?}", topology.servers[0].health);
    };
    assert_eq!(&**error, "connection refused");
    scene
        .until("reads to go on", |topology| {
            !topology.servers[0].health.is_up() && barred(topology, 2).is_none()
        })
        .await;
    scene.server(1).restart().await.unwrap();
    scene
        .until("the primary to be back", |topology| {
            topology.writable().is_some()
        })
        .await;
}

/// Makes the table of the heartbeats as README says.
async fn make_table(cluster: &cluster::Cluster) {
    let sql = "CREATE DATABASE dbproxy; CREATE TABLE dbproxy.heartbeat (instance BIGINT UNSIGNED PRIMARY KEY, \
               beat BIGINT UNSIGNED NOT NULL, \
               at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP); \
               GRANT SELECT, INSERT, UPDATE, DELETE ON dbproxy.heartbeat TO dbproxy@'%'";
    cluster.primary().run(sql).await.unwrap();
    cluster.caught_up().await.unwrap();
}

fn needs() -> monitor::Needs {
    monitor::Needs {
        connections: 100,
        accounts: true,
        compression: ServerCompression::Off,
        proxy_protocol: ProxyProtocol::Off,
        failover: false,
    }
}

fn lag(topology: &Topology, number: usize) -> Option<Duration> {
    match topology.servers[number - 1].lag {
        Lag::Known(lag) => Some(lag),
        Lag::Unknown => None,
    }
}

async fn lag_is_measured_with_heartbeats(flavor: Flavor) {
    const SECOND: Duration = Duration::from_secs(1);
    let cluster = cluster::Cluster::start(flavor, 1).await.unwrap();
    make_table(&cluster).await;
    let relay = Relay::start(cluster.primary().port()).await;
    let (stop, start) = (
        statement(flavor, "STOP SLAVE", "STOP REPLICA"),
        statement(flavor, "START SLAVE", "START REPLICA"),
    );
    let change = |maria: &str, mysql: &str| {
        let change = statement(flavor, "CHANGE MASTER TO", "CHANGE REPLICATION SOURCE TO");
        let what = statement(flavor, maria, mysql);
        format!("{stop}; {change} {what}; {start}")
    };
    let port = relay.port();
    let through = change(
        &format!("master_host='127.0.0.1', master_port={port}"),
        &format!("source_host='127.0.0.1', source_port={port}"),
    );
    cluster.servers()[1].run(&through).await.unwrap();
    let pulse = Pulse::new();
    let scene = Scene::watch(cluster, SECOND, Some(pulse)).await;
    let beats = async |number: usize| {
        let target = target(0, scene.server(number), "dbproxy", Some(pulse));
        let inspection = monitor::inspect(&target, needs()).await;
        inspection
            .facts
            .is_ok_and(|facts| facts.heartbeat.is_some())
    };
    eventually("the heart to beat", async || {
        beats(1).await && beats(2).await
    })
    .await;
    let behind = |topology: &Topology| lag(topology, 2).is_some_and(|lag| lag > 2 * SECOND);
    let back = |topology: &Topology| {
        barred(topology, 2).is_none() && lag(topology, 2).is_some_and(|lag| lag < SECOND)
    };
    scene.until("the replica to be near", back).await;

    let applier = statement(flavor, "STOP SLAVE SQL_THREAD", "STOP REPLICA SQL_THREAD");
    scene.server(2).run(applier).await.unwrap();
    let topology = scene
        .until("the stopped applier to be behind", behind)
        .await;
    assert_eq!(barred(&topology, 2), Some(Unreadable::ApplierStopped));
    scene.server(2).run(start).await.unwrap();
    scene.until("it to be back", back).await;

    // Its receiver believes that it is connected, and that there is nothing new.
    relay.hold();
    let topology = scene
        .until("the hanging replica to be behind", behind)
        .await;
    assert!(matches!(barred(&topology, 2), Some(Unreadable::Lagging(_))));
    assert_eq!(scene.server(2).replicating().await.unwrap(), (true, true));
    relay.resume();
    scene.until("it to be back", back).await;

    let delay = change("master_delay=3", "source_delay=3");
    scene.server(2).run(&delay).await.unwrap();
    let topology = scene
        .until("the delayed replica to be behind", behind)
        .await;
    assert!(matches!(barred(&topology, 2), Some(Unreadable::Delayed(_))));
    let no_delay = change("master_delay=0", "source_delay=0");
    scene.server(2).run(&no_delay).await.unwrap();
    scene.until("it to be back", back).await;
}

async fn heartbeats_are_written_to_nobody_else(flavor: Flavor) {
    let cluster = cluster::Cluster::start(flavor, 1).await.unwrap();
    make_table(&cluster).await;
    let scene = Scene::watch(cluster, Duration::from_secs(5), None).await;
    // The monitor's account may write there in spite of read_only.
    if flavor == Flavor::MySql {
        let open = "SET GLOBAL super_read_only=0";
        scene.server(2).run(open).await.unwrap();
    }
    let inserts = async |number: usize| {
        let sql = "SHOW GLOBAL STATUS LIKE 'Com_insert_select'";
        let (_, count): (String, u64) = scene.server(number).first(sql).await.unwrap();
        count
    };
    let rows = async |number: usize| {
        let sql = "SELECT COUNT(*) FROM dbproxy.heartbeat";
        scene.server(number).first::<u64>(sql).await.unwrap()
    };
    // A picture that is wrong: the replica is said to be the primary.
    let wrong = {
        let mut topology = (**scene.topology.borrow()).clone();
        topology.primary = Some(ServerId(1));
        for (server, role) in topology
            .servers
            .iter_mut()
            .zip([Role::Replica, Role::Primary])
        {
            server.role = role;
            server.writable = role == Role::Primary;
        }
        topology
    };
    let targets = |pulse| -> Vec<_> {
        (0..)
            .zip(scene.cluster.servers())
            .map(|(id, server)| target(id, server, "dbproxy", Some(pulse)))
            .collect()
    };
    let (publish, topology) = watch::channel(Arc::new(wrong));
    let mut tasks = JoinSet::new();
    tasks.spawn(monitor::heartbeat::beat(
        targets(Pulse::new()),
        topology,
        watch::Sender::new(WriteProbe::default()),
    ));
    eventually("it to be tried", async || inserts(2).await >= 2).await;
    assert_eq!(rows(2).await, 0);

    // Two writable servers: nothing is even tried. The right picture: one row, there alone.
    let mut two = (**scene.topology.borrow()).clone();
    two.servers[1].role = Role::Spare;
    two.servers[1].writable = true;
    publish.send_replace(Arc::new(two));
    let before = inserts(1).await;
    let seen = scene.topology.borrow().servers[0].asked_at;
    let later =
        |topology: &Topology| topology.servers[0].asked_at > seen.map(|at| at + 5 * INTERVAL);
    scene.until("some probes", later).await;
    assert_eq!((inserts(1).await, rows(1).await), (before, 0));
    publish.send_replace(Arc::clone(&scene.topology.borrow()));
    eventually("the primary to get beats", async || {
        inserts(1).await > before + 1
    })
    .await;
    assert_eq!(rows(1).await, 1);
    eventually("them to be replicated", async || rows(2).await == 1).await;

    // Another server answers at the primary's address than the one that was seen there.
    let mut other = (**scene.topology.borrow()).clone();
    other.servers[0].identity = Some("12345".into());
    publish.send_replace(Arc::new(other));
    let beat = async || {
        let sql = "SELECT beat FROM dbproxy.heartbeat";
        scene.server(1).first::<u64>(sql).await.unwrap()
    };
    let before = inserts(1).await;
    eventually("it to be tried", async || inserts(1).await > before + 2).await;
    let last = beat().await;
    let before = inserts(1).await;
    eventually("it to be tried again", async || {
        inserts(1).await > before + 2
    })
    .await;
    assert_eq!(beat().await, last);
}

async fn writes_that_get_no_answer_are_noticed(flavor: Flavor) {
    let cluster = cluster::Cluster::start(flavor, 1).await.unwrap();
    make_table(&cluster).await;
    let scene = Scene::watch(cluster, Duration::from_secs(5), Some(Pulse::new())).await;
    let until = async |what: &str, condition: &dyn Fn(&WriteProbe) -> bool| {
        let mut writes = scene.writes.clone();
        let found = writes.wait_for(|fate| condition(fate));
        match tokio::time::timeout(support::SOON, found).await {
            Ok(fate) => *fate.unwrap(),
            Err(_) => panic!("waited for {what}: {:?}", *scene.writes.borrow()),
        }
    };
    let fate = until("writes", &|fate| fate.last_ok.is_some()).await;
    assert_eq!(fate.server, Some(ServerId(0)));

    let mut lock = scene.server(1).connect().await.unwrap();
    mysql_async::prelude::Queryable::query_drop(&mut lock, "FLUSH TABLES WITH READ LOCK")
        .await
        .unwrap();
    // Longer than one that is sent anew now and then would have been without an answer.
    eventually("a write to be stuck", async || {
        let since = scene.writes.borrow().pending_since;
        since.is_some_and(|since| since.elapsed() > Duration::from_secs(6))
    })
    .await;
    let stuck = *scene.writes.borrow();
    assert_eq!(stuck.server, Some(ServerId(0)));
    assert!(stuck.last_ok < stuck.pending_since);
    assert!(scene.topology.borrow().writable().is_some());
    drop(lock);
    until("writes again", &|fate| {
        fate.pending_since.is_none() && fate.last_ok > stuck.last_ok
    })
    .await;

    scene.server(1).run("SET GLOBAL read_only=1").await.unwrap();
    until("nobody to be written to", &|fate| {
        *fate == WriteProbe::default()
    })
    .await;
}

async fn accounts_are_followed(flavor: Flavor) {
    let scene = Scene::start(flavor, 1, Duration::from_secs(5)).await;
    let verifier = |user: &str| match scene
        .directory
        .borrow()
        .find(user.as_bytes(), &ClientAddress::Unix)
    {
        Lookup::Account(account) => Some(account.methods[0].verifier.clone()),
        _ => None,
    };
    eventually("the accounts to be read", async || {
        verifier("app").is_some()
    })
    .await;
    assert_eq!(verifier("newcomer"), None);
    scene
        .server(1)
        .run("CREATE USER newcomer@'%' IDENTIFIED BY 'one'")
        .await
        .unwrap();
    scene.nudge.notify_one();
    eventually("the new account", async || verifier("newcomer").is_some()).await;
    let first = verifier("newcomer").unwrap();
    assert!(matches!(first, Verifier::Stored(_)));
    assert_eq!(first.accepts(b"one"), Some(true));
    assert_eq!(first.accepts(b"two"), Some(false));
    let stored = || match scene
        .directory
        .borrow()
        .find(b"newcomer", &ClientAddress::Unix)
    {
        Lookup::Account(account) => account.methods[0].stored.clone(),
        _ => panic!("gone"),
    };
    let before = stored();
    scene
        .server(1)
        .run("ALTER USER newcomer@'%' IDENTIFIED BY 'two' ACCOUNT LOCK")
        .await
        .unwrap();
    eventually("the new password", async || stored() != before).await;
    let directory = scene.directory.borrow().clone();
    let Lookup::Account(account) = directory.find(b"newcomer", &ClientAddress::Unix) else {
        panic!("gone");
    };
    assert!(account.locked && !account.expired && account.requirement == Requirement::None);
    scene.server(1).run("DROP USER newcomer@'%'").await.unwrap();
    eventually("the account to be gone", async || {
        verifier("newcomer").is_none()
    })
    .await;
}

#[tokio::test]
async fn a_wrong_monitor_password_is_not_death() {
    let cluster = cluster::Cluster::start(Flavor::MariaDb, 0).await.unwrap();
    let inspection = monitor::inspect(&target(0, cluster.primary(), "wrong", None), needs()).await;
    assert!(matches!(
        inspection.facts,
        Err(dbproxy::topology::ProbeError::AccessDenied(_))
    ));
    let inspection =
        monitor::inspect(&target(0, cluster.primary(), "dbproxy", None), needs()).await;
    assert!(inspection.facts.is_ok());
    assert!(inspection.accounts.is_some_and(|accounts| accounts >= 3));
}
