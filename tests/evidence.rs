//! What probes see of real servers that bears on whether one of them has died, and who could take over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use dbproxy::cli::demo::cluster::{Cluster, ServerProcess};
use dbproxy::config::{Secret, ServerAddress, ServerTls};
use dbproxy::monitor::{self, Target};
use dbproxy::topology::{
    Contact, EpochRow, Flavor, Observation, ProbeError, SemiSync, ServerFacts, ServerId,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

on_both_flavors!(
    tables_are_read_as_soon_as_they_are_there,
    what_is_not_applied_yet_is_received,
    waiting_for_replicas_is_seen,
    heartbeats_of_the_source_are_counted,
    a_replica_tells_that_its_source_refuses,
    a_stopped_server_is_not_a_dead_one,
    little_is_seen_with_few_rights,
);

/// Probes of one server, until it is dropped.
struct Probes {
    seen: mpsc::Receiver<Observation>,
    task: JoinHandle<()>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn target(address: ServerAddress, user: &str, password: &str) -> Target {
    Target {
        id: ServerId(0),
        name: "db".into(),
        address,
        user: user.to_owned(),
        password: Secret::new(password),
        interval: Duration::from_millis(50),
        tls: ServerTls::default(),
        pulse: None,
    }
}

fn tcp(server: &ServerProcess) -> ServerAddress {
    ServerAddress::Tcp {
        host: "127.0.0.1".to_owned(),
        port: server.port(),
    }
}

impl Probes {
    fn of(server: &ServerProcess) -> Self {
        Self::start(target(tcp(server), "dbproxy", "dbproxy"))
    }

    fn start(target: Target) -> Self {
        let (evidence, seen) = mpsc::channel(1);
        let task = tokio::spawn(monitor::watch(target, evidence, Arc::default()));
        Self { seen, task }
    }

    async fn next(&mut self) -> Result<ServerFacts, ProbeError> {
        self.seen.recv().await.unwrap().result
    }

    /// Waits for a result that fulfils the condition.
    async fn until(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&Result<ServerFacts, ProbeError>) -> bool,
    ) -> Result<ServerFacts, ProbeError> {
        let mut last = None;
        let found = async {
            loop {
                let result = self.next().await;
                if condition(&result) {
                    return result;
                }
                last = Some(result);
            }
        };
        match tokio::time::timeout(support::SOON, found).await {
            Ok(result) => result,
            Err(_) => panic!("waited for {what}: {last:#?}"),
        }
    }

    async fn fails(&mut self, error: ProbeError) {
        let found = self.until("an error", |result| result.as_ref() == Err(&error));
        found.await.unwrap_err();
    }

    async fn facts(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&ServerFacts) -> bool,
    ) -> ServerFacts {
        let found = self.until(what, |result| result.as_ref().is_ok_and(&mut condition));
        found.await.unwrap()
    }
}

fn statement<'a>(flavor: Flavor, maria: &'a str, mysql: &'a str) -> &'a str {
    match flavor {
        Flavor::MariaDb => maria,
        Flavor::MySql => mysql,
    }
}

const EPOCH: &str = "CREATE DATABASE dbproxy; CREATE TABLE dbproxy.epoch (id TINYINT UNSIGNED PRIMARY KEY, \
    epoch BIGINT UNSIGNED NOT NULL, primary_id VARCHAR(64) CHARACTER SET ascii NOT NULL, \
    plan VARCHAR(64) CHARACTER SET ascii NOT NULL, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";

async fn tables_are_read_as_soon_as_they_are_there(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    let (primary, replica) = (cluster.primary(), &cluster.replicas()[0]);
    let (mut first, mut second) = (Probes::of(primary), Probes::of(replica));
    let facts = first.next().await.unwrap();
    assert_eq!((&facts.epoch, facts.ballot), (&None, 0));
    assert!(facts.log_updates && facts.row_format);
    let identity = facts.identity();

    primary.run(EPOCH).await.unwrap();
    let row = format!(
        "INSERT INTO dbproxy.epoch (id, epoch, primary_id, plan) VALUES (1, 46, '{identity}', 'p')"
    );
    primary.run(&row).await.unwrap();
    let ballot = statement(
        flavor,
        "SET sql_log_bin=0; CREATE TABLE dbproxy.ballot (id TINYINT UNSIGNED PRIMARY KEY, \
         ballot BIGINT UNSIGNED NOT NULL); INSERT INTO dbproxy.ballot VALUES (1, 47), (2, 45)",
        "SET PERSIST_ONLY report_user='dbproxy-b47'",
    );
    primary.run(ballot).await.unwrap();
    let row = Some(EpochRow {
        epoch: 46,
        primary: identity,
    });
    let known = |facts: &ServerFacts| facts.epoch == row;
    let both = |facts: &ServerFacts| known(facts) && facts.ballot == 47;
    first.facts("the epoch and the ballot", both).await;
    let facts = second.facts("the epoch on the replica", known).await;
    assert_eq!(facts.ballot, 0, "it is not replicated");

    // Locked, it cannot be read again, but all else can.
    let mut lock = primary.connect().await.unwrap();
    let sql = "LOCK TABLES dbproxy.epoch WRITE";
    mysql_async::prelude::Queryable::query_drop(&mut lock, sql)
        .await
        .unwrap();
    let events = primary.run("SET GLOBAL event_scheduler=ON");
    events.await.unwrap();
    for _ in 0..20 {
        assert!(both(&first.next().await.unwrap()));
    }
    first.facts("the rest", |facts| facts.event_scheduler).await;
    drop(lock);

    primary.run("DROP TABLE dbproxy.epoch").await.unwrap();
    let gone = |facts: &ServerFacts| facts.epoch.is_none() && facts.ballot == 47;
    first.facts("the table to be gone", gone).await;
}

async fn what_is_not_applied_yet_is_received(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    let (primary, replica) = (cluster.primary(), &cluster.replicas()[0]);
    let (mut first, mut second) = (Probes::of(primary), Probes::of(replica));
    let stop = statement(flavor, "STOP SLAVE SQL_THREAD", "STOP REPLICA SQL_THREAD");
    replica.run(stop).await.unwrap();
    let before = second.next().await.unwrap();
    primary.run("CREATE TABLE test.r (i INT)").await.unwrap();
    let ahead = |facts: &ServerFacts| match (&facts.sources[0].received, &facts.executed) {
        (Some(received), Some(executed)) => !executed.covers(received),
        _ => false,
    };
    let facts = second.facts("more to be received", ahead).await;
    let source = &facts.sources[0];
    assert!(source.auto_position && source.contact.is_none());
    assert_ne!(source.read_to, before.sources[0].read_to);
    let all = |facts: &ServerFacts| {
        let received = source.received.as_ref().unwrap();
        facts.executed.as_ref().unwrap().covers(received)
    };
    first.facts("the primary to have all of it", all).await;
}

async fn waiting_for_replicas_is_seen(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    let (primary, replica) = (cluster.primary(), &cluster.replicas()[0]);
    let (mut first, mut second) = (Probes::of(primary), Probes::of(replica));
    if flavor == Flavor::MySql {
        assert_eq!(first.next().await.unwrap().semi_sync, SemiSync::default());
        let plugins = "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; \
                       INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'";
        let plugins = format!("SET sql_log_bin=0; {plugins}");
        primary.run(&plugins).await.unwrap();
        let open = "SET GLOBAL super_read_only=0";
        replica.run(open).await.unwrap();
        replica.run(&plugins).await.unwrap();
    }
    let source = statement(
        flavor,
        "SET GLOBAL rpl_semi_sync_master_timeout=600000, GLOBAL rpl_semi_sync_master_enabled=1",
        "SET GLOBAL rpl_semi_sync_source_timeout=600000, GLOBAL rpl_semi_sync_source_enabled=1",
    );
    primary.run(source).await.unwrap();
    let restart = statement(
        flavor,
        "SET GLOBAL rpl_semi_sync_slave_enabled=1; STOP SLAVE IO_THREAD; START SLAVE IO_THREAD",
        "SET GLOBAL rpl_semi_sync_replica_enabled=1; STOP REPLICA IO_THREAD; START REPLICA IO_THREAD",
    );
    replica.run(restart).await.unwrap();
    let expected = SemiSync {
        source: true,
        active: true,
        clients: 1,
        wait_for: 1,
        timeout: Duration::from_secs(600),
        ..SemiSync::default()
    };
    let good = |facts: &ServerFacts| facts.semi_sync == expected;
    first.facts("the primary to wait", good).await;
    let acknowledges = |facts: &ServerFacts| {
        let semi_sync = &facts.semi_sync;
        semi_sync.replica && semi_sync.replica_active && !semi_sync.source
    };
    second
        .facts("the replica to acknowledge", acknowledges)
        .await;

    let stop = statement(flavor, "STOP SLAVE IO_THREAD", "STOP REPLICA IO_THREAD");
    replica.run(stop).await.unwrap();
    let write = primary.run("CREATE TABLE test.w (i INT)");
    let seen = async {
        let waits = |facts: &ServerFacts| facts.semi_sync.waiting == 1;
        first.facts("a session to wait", waits).await;
        let start = statement(flavor, "START SLAVE IO_THREAD", "START REPLICA IO_THREAD");
        replica.run(start).await.unwrap();
    };
    let (written, ()) = tokio::join!(write, seen);
    written.unwrap();
    first.facts("nobody to wait", good).await;
}

async fn heartbeats_of_the_source_are_counted(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    let replica = &cluster.replicas()[0];
    let period = statement(
        flavor,
        "STOP SLAVE; CHANGE MASTER TO master_heartbeat_period=1; START SLAVE",
        "STOP REPLICA; CHANGE REPLICATION SOURCE TO source_heartbeat_period=1; START REPLICA",
    );
    replica.run(period).await.unwrap();
    let mut probes = Probes::of(replica);
    let beats = |facts: &ServerFacts| facts.sources[0].heartbeats;
    let before = beats(&probes.next().await.unwrap()).unwrap();
    let more = |facts: &ServerFacts| beats(facts).is_some_and(|now| now >= before + 2);
    let facts = probes.facts("two more heartbeats", more).await;
    assert!(facts.seconds_up > 0);
}

async fn a_replica_tells_that_its_source_refuses(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    let mut probes = Probes::of(&cluster.replicas()[0]);
    assert_eq!(probes.next().await.unwrap().sources[0].contact, None);
    cluster.primary().kill9();
    let refused = Contact {
        errno: 2003,
        system: Some(111),
    };
    let tells = |facts: &ServerFacts| facts.sources[0].contact == Some(refused);
    probes.facts("the refusal to be told", tells).await;
    cluster.primary().restart().await.unwrap();
    let back = |facts: &ServerFacts| facts.sources[0].contact.is_none();
    probes.facts("it to be forgotten", back).await;
}

async fn a_stopped_server_is_not_a_dead_one(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let server = cluster.primary();
    let socket = ServerAddress::Unix(server.socket());
    let mut ways = [
        Probes::of(server),
        Probes::start(target(socket, "dbproxy", "dbproxy")),
    ];
    for probes in &mut ways {
        probes.facts("an answer", |_| true).await;
    }
    server.stop().unwrap();
    for probes in &mut ways {
        probes.fails(ProbeError::Unresponsive).await;
        // On a new connection it says nothing either.
        assert_eq!(probes.next().await, Err(ProbeError::Unresponsive));
    }
    server.cont().unwrap();
    for probes in &mut ways {
        probes.facts("it to be back", |_| true).await;
    }
    server.stop().unwrap();
    for probes in &mut ways {
        probes.fails(ProbeError::Unresponsive).await;
    }
    server.kill9();
    for probes in &mut ways {
        probes.fails(ProbeError::Refused).await;
    }
}

/// A process that ends resets the connections that it has not accepted yet.
#[tokio::test]
async fn a_reset_before_the_greeting_is_a_refusal() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ServerAddress::Tcp {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
    };
    let mut probes = Probes::start(target(address, "dbproxy", "dbproxy"));
    let (first, _) = listener.accept().await.unwrap();
    first.set_zero_linger().unwrap();
    drop(first);
    assert_eq!(probes.next().await, Err(ProbeError::Refused));
}

/// No more connections fit, so that not even one that is made by the system alone succeeds.
#[tokio::test]
async fn without_a_connection_it_is_a_timeout() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    loop {
        let connect = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(300), connect).await {
            Ok(connected) => waiting.push(connected.unwrap()),
            Err(_) => break,
        }
    }
    let address = ServerAddress::Tcp {
        host: "127.0.0.1".to_owned(),
        port: address.port(),
    };
    let mut probes = Probes::start(target(address, "dbproxy", "dbproxy"));
    assert_eq!(probes.next().await, Err(ProbeError::Timeout));
    waiting.clear();
}

async fn little_is_seen_with_few_rights(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    let (primary, replica) = (cluster.primary(), &cluster.replicas()[0]);
    let rights = statement(
        flavor,
        "BINLOG MONITOR, SLAVE MONITOR",
        "REPLICATION CLIENT",
    );
    let sql = format!(
        "CREATE USER few@'%' IDENTIFIED BY 'few'; GRANT {rights} ON *.* TO few@'%'; {EPOCH}; \
         INSERT INTO dbproxy.epoch (id, epoch, primary_id, plan) VALUES (1, 46, 'x', 'p')"
    );
    primary.run(&sql).await.unwrap();
    cluster.caught_up().await.unwrap();
    let mut probes = Probes::start(target(tcp(replica), "few", "few"));
    let facts = probes.next().await.unwrap();
    assert_eq!((&facts.epoch, facts.ballot), (&None, 0));
    let source = &facts.sources[0];
    assert!(source.received.is_some() && facts.row_format && facts.log_updates);
    assert_eq!(source.heartbeats.is_some(), flavor == Flavor::MariaDb);
    let grant = "GRANT SELECT ON dbproxy.epoch TO few@'%'";
    primary.run(grant).await.unwrap();
    let seen = |facts: &ServerFacts| facts.epoch.as_ref().is_some_and(|row| row.epoch == 46);
    probes.facts("the epoch", seen).await;
}
