//! Replicas and the tools of replication read the primary's log through the proxy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::process::Stdio;

use dbproxy::cli::demo::cluster::{Flavor, ServerProcess};
use mysql_async::Row;
use mysql_async::prelude::Queryable;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use support::raw::{Raw, capability};
use support::{Options, Rig, SOON, WHERE, eventually, output, within};

on_both_flavors!(
    a_log_is_read_to_its_end,
    a_log_is_followed,
    a_replica_replicates_through_the_proxy,
    a_refused_dump_is_answered,
    a_refused_registration_leaves_the_session_free,
);

/// The program that reads a server's log, with what it needs to log in.
fn reader(rig: &Rig, port: u16) -> Command {
    let (name, own): (_, &[&str]) = match rig.cluster.flavor() {
        Flavor::MariaDb => ("mariadb-binlog", &["--stop-never-slave-server-id=90"]),
        Flavor::MySql => (
            "mysqlbinlog",
            &["--get-server-public-key", "--connection-server-id=90"],
        ),
    };
    let mut command = Command::from(rig.cluster.client(name).unwrap());
    command
        .args(["--read-from-remote-server", "--host=127.0.0.1"])
        .args(["--protocol=tcp", "--user=repl", "--password=repl"])
        .arg(format!("--port={port}"))
        .args(own);
    command
}

async fn log_file(primary: &ServerProcess) -> String {
    let logs: Vec<Row> = primary.rows("SHOW BINARY LOGS").await.unwrap();
    logs.last().unwrap().get(0).unwrap()
}

/// The threads of the primary that send its log to somebody other than its own replicas.
async fn dumps(primary: &ServerProcess) -> u64 {
    let sql =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
    primary.first(sql).await.unwrap()
}

async fn a_log_is_read_to_its_end(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("replication_log").await;
    let primary = rig.cluster.primary();
    primary
        .run(&format!(
            "CREATE TABLE {schema}.t (t LONGTEXT); INSERT INTO {schema}.t VALUES (REPEAT('x', 3000000))"
        ))
        .await
        .unwrap();
    let file = log_file(primary).await;
    // From now on nothing is written, so that both see the same.
    let mut printed = Vec::new();
    for port in [primary.port(), rig.proxy.port()] {
        let mut command = reader(rig, port);
        command.arg(&file);
        let text = output(command).await;
        // The names of temporary files differ.
        let lines = text.lines().filter(|line| !line.contains("/tmp/"));
        printed.push(lines.collect::<Vec<_>>().join("\n"));
    }
    assert!(printed[0].contains(&schema), "{}", printed[0]);
    assert!(printed[0].len() > 3_000_000);
    assert!(printed[0] == printed[1]);
}

async fn a_log_is_followed(flavor: Flavor) {
    let rig = Rig::start(flavor, 0, &Options::default()).await;
    let primary = rig.cluster.primary();
    let file = log_file(primary).await;
    let follow = || {
        let mut command = reader(&rig, rig.proxy.port());
        command
            .args(["--stop-never", &file])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command.spawn().unwrap()
    };
    let mut reading = follow();
    let mut lines = BufReader::new(reading.stdout.take().unwrap()).lines();
    eventually("the log to be read", async || dumps(primary).await == 1).await;
    let mut conn = rig.connect().await;
    for round in 0..3 {
        let marker = format!("marker_{round}");
        conn.query_drop(format!("CREATE DATABASE {marker}"))
            .await
            .unwrap();
        let seen = async { while !lines.next_line().await.unwrap().unwrap().contains(&marker) {} };
        timeout(SOON, seen).await.expect("the event arrives");
    }
    // The server's thread ends with the reader.
    reading.kill().await.unwrap();
    eventually("the server's thread to end", async || {
        dumps(primary).await == 0
    })
    .await;
    // The reader ends when it is killed by the id that the proxy's sessions have, and with the server.
    let mut reading = follow();
    eventually("the log to be read", async || dumps(primary).await == 1).await;
    primary.kill9();
    timeout(SOON, reading.wait())
        .await
        .expect("it ends")
        .unwrap();
}

async fn a_replica_replicates_through_the_proxy(flavor: Flavor) {
    let rig = Rig::start(flavor, 1, &Options::default()).await;
    let (primary, replica) = (rig.cluster.primary(), &rig.cluster.replicas()[0]);
    let port = rig.proxy.port();
    let (plugins, semisync, via, count) = match flavor {
        Flavor::MariaDb => (
            ["DO 1", "DO 1"],
            [
                "SET GLOBAL rpl_semi_sync_master_enabled = 1, rpl_semi_sync_master_timeout = 600000",
                "SET GLOBAL rpl_semi_sync_slave_enabled = 1",
            ],
            format!("STOP SLAVE; CHANGE MASTER TO master_port = {port}; START SLAVE"),
            "Rpl_semi_sync_master_yes_tx",
        ),
        Flavor::MySql => (
            [
                "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
                "INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'",
            ],
            [
                "SET GLOBAL rpl_semi_sync_source_enabled = 1, GLOBAL rpl_semi_sync_source_timeout = 600000",
                "SET GLOBAL rpl_semi_sync_replica_enabled = 1",
            ],
            format!(
                "STOP REPLICA; CHANGE REPLICATION SOURCE TO source_port = {port}, source_ssl = 0, get_source_public_key = 1; START REPLICA"
            ),
            "Rpl_semi_sync_source_yes_tx",
        ),
    };
    primary.run(plugins[0]).await.unwrap();
    replica.run("SET GLOBAL read_only = 0").await.unwrap();
    replica.run(plugins[1]).await.unwrap();
    replica.run("SET GLOBAL read_only = 1").await.unwrap();
    replica.run(semisync[1]).await.unwrap();
    replica.run(&via).await.unwrap();
    let running = async || replica.replicating().await.unwrap() == (true, true);
    if !within(SOON, running).await {
        let sql = "SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_connection_status";
        let error = replica.first::<String>(sql).await;
        panic!(
            "the replica does not replicate: {error:?}\n{}",
            replica.log()
        );
    }
    primary.run(semisync[0]).await.unwrap();
    let clients = count.replace("yes_tx", "clients");
    let status = async |name: &str| {
        let sql = format!("SHOW GLOBAL STATUS LIKE '{name}'");
        let (_, value): (String, u64) = primary.first(&sql).await.unwrap();
        value
    };
    eventually("the replica to acknowledge", async || {
        status(&clients).await == 1
    })
    .await;
    let mut conn = rig.connect().await;
    let before = status(count).await;
    for sql in [
        "CREATE DATABASE through",
        "CREATE TABLE through.t (t LONGTEXT)",
        "INSERT INTO through.t VALUES (REPEAT('x', 20000000))",
        "INSERT INTO through.t VALUES ('last')",
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    // Each waited for the replica's word, which came back through the proxy.
    assert_eq!(status(count).await, before + 4);
    replica
        .reach(&primary.position().await.unwrap())
        .await
        .unwrap();
    let sql = "SELECT COUNT(*) FROM through.t";
    assert_eq!(replica.first::<u64>(sql).await.unwrap(), 2);
}

async fn a_refused_dump_is_answered(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut heard = Vec::new();
    // Not the number of the other tests: MariaDB ends the dump that another replica of one's number reads.
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        let mut raw = Raw::tcp(port).await.unwrap();
        raw.login("app", "app", None, capability::USUAL)
            .await
            .unwrap();
        let mut packets = Vec::new();
        let register = [&[0x15, 91, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
        packets.extend(raw.exchange(&register).await);
        let dump = [
            &[0x12, 4, 0, 0, 0, 1, 0, 91, 0, 0, 0][..],
            b"no_such_log.000001",
        ]
        .concat();
        packets.extend(raw.exchange(&dump).await);
        let mut raw = Raw::tcp(port).await.unwrap();
        raw.login("repl", "repl", None, capability::USUAL)
            .await
            .unwrap();
        packets.extend(raw.exchange(&dump).await);
        heard.push(packets);
    }
    assert_eq!(heard[0], heard[1]);
}

async fn a_refused_registration_leaves_the_session_free(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    let register = [&[0x15, 90, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
    raw.send(&register).await;
    raw.refused().await;
    eventually("a read on a replica", async || {
        raw.rows(WHERE).await.unwrap()[0][0].as_deref() != Some("db1")
    })
    .await;
}
