//! Other clients: what they print through the proxy is what they print with the server itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::prelude::Queryable;
use tokio::process::Command;

use support::{Rig, output};

on_both_flavors!(pymysql, the_mariadb_shell, their_own_shell, the_dump);

/// Runs a command with the primary itself and through the proxy, each time in an empty schema, and compares.
async fn same(
    flavor: Flavor,
    schema: &str,
    lines: usize,
    command: impl Fn(u16, PathBuf) -> Command,
) {
    let rig = Rig::shared(flavor).await;
    let primary = rig.cluster.primary();
    let mut printed = Vec::new();
    for (port, socket) in [
        (primary.port(), primary.socket()),
        (rig.proxy.port(), rig.proxy.socket()),
    ] {
        rig.schema(schema).await;
        let text = output(command(port, socket)).await;
        // The port stands in some messages.
        printed.push(text.replace(&port.to_string(), "PORT"));
    }
    assert!(printed[0].lines().count() >= lines, "{}", printed[0]);
    for (number, (direct, through)) in printed[0].lines().zip(printed[1].lines()).enumerate() {
        assert_eq!(through, direct, "line {}", number + 1);
    }
    assert_eq!(printed[1], printed[0]);
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

async fn pymysql(flavor: Flavor) {
    let servers = env::var_os("DBPROXY_SERVERS").unwrap_or_else(|| "/var/cache/dbproxy".into());
    let python = Path::new(&servers).join("python/bin/python");
    same(flavor, "clients_pymysql", 20, |port, socket| {
        let mut command = Command::new(&python);
        command
            .arg(tests().join("pymysql_tour.py"))
            .args(["127.0.0.1", &port.to_string()])
            .arg(socket)
            .args(["app", "app", "clients_pymysql"]);
        command
    })
    .await;
}

/// A client program of the flavour's own packages.
fn client(rig: &Rig, name: &str, port: u16) -> Command {
    let mut command = Command::from(rig.cluster.client(name).unwrap());
    command
        .args(["--host=127.0.0.1", "--user=app", "--password=app"])
        .arg(format!("--port={port}"));
    if rig.cluster.flavor() == Flavor::MySql {
        command.arg("--get-server-public-key");
    }
    command
}

async fn the_mariadb_shell(flavor: Flavor) {
    same(flavor, "clients_mariadb", 30, |port, _| {
        let mut command = Command::new("mariadb");
        command.args([
            "--no-defaults",
            "--host=127.0.0.1",
            "--user=app",
            "--password=app",
        ]);
        command.arg(format!("--port={port}"));
        shell_options(command, "clients_mariadb")
    })
    .await;
}

async fn their_own_shell(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let name = match flavor {
        Flavor::MariaDb => "mariadb",
        Flavor::MySql => "mysql",
    };
    same(flavor, "clients_own", 30, |port, _| {
        shell_options(client(rig, name, port), "clients_own")
    })
    .await;
}

/// The shell runs a file, goes on after errors, and prints statements and tables.
fn shell_options(mut command: Command, schema: &str) -> Command {
    command.args([
        "--force",
        "--show-warnings",
        "--verbose",
        "--table",
        "--default-character-set=utf8mb4",
    ]);
    command
        .arg(schema)
        .stdin(File::open(tests().join("shell.sql")).unwrap());
    command
}

async fn the_dump(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("clients_dumped").await;
    let mut conn = rig.direct(rig.cluster.primary()).await;
    for sql in [
        format!("CREATE TABLE {schema}.t (id INT PRIMARY KEY, name VARCHAR(50), raw BLOB)"),
        format!("INSERT INTO {schema}.t VALUES (1, 'one', x'00ff'), (2, NULL, NULL)"),
        format!("CREATE VIEW {schema}.v AS SELECT name FROM {schema}.t"),
        format!(
            "CREATE TRIGGER {schema}.g BEFORE INSERT ON {schema}.t FOR EACH ROW SET NEW.name = 'triggered'"
        ),
        format!("CREATE PROCEDURE {schema}.p () SELECT 1"),
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    rig.cluster.caught_up().await.unwrap();
    let (name, own): (_, &[&str]) = match flavor {
        Flavor::MariaDb => ("mariadb-dump", &[]),
        Flavor::MySql => (
            "mysqldump",
            &["--set-gtid-purged=OFF", "--column-statistics=0"],
        ),
    };
    same(flavor, "clients_dump", 30, |port, _| {
        let mut command = client(rig, name, port);
        command.args([
            "--single-transaction",
            "--routines",
            "--no-tablespaces",
            "--skip-dump-date",
            "--hex-blob",
        ]);
        command.args(own).arg(&schema);
        command
    })
    .await;
}
