//! Statements that would break the cluster if they reached the primary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use support::raw::{Raw, capability};
use support::{Options, Rig, code, error_of, login, one};

on_both_flavors!(they_are_refused, they_are_allowed);

/// Statements that end or change nothing here even if they are carried out.
fn harmless(flavor: Flavor) -> Vec<&'static str> {
    let mut all = vec![
        "SET GLOBAL read_only = 0",
        "SET @@global.read_only = OFF",
        "/*! SET */ GLOBAL read_only = 0",
        "SET NAMES utf8mb4, GLOBAL read_only = 0",
        "SELECT 1; SET GLOBAL read_only = 0",
        "PURGE BINARY LOGS BEFORE '2000-01-01'",
    ];
    all.extend(match flavor {
        Flavor::MariaDb => &[
            "STOP SLAVE",
            "STOP ALL SLAVES",
            "/*M! RESET SLAVE ALL */",
            "EXECUTE IMMEDIATE 'RESET SLAVE ALL'",
            "BEGIN NOT ATOMIC SET GLOBAL read_only = 0; END",
        ][..],
        Flavor::MySql => &[
            "STOP REPLICA",
            "RESET REPLICA ALL",
            "SET PERSIST super_read_only = OFF",
            "/*!80000 RESET REPLICA ALL */",
        ],
    });
    all
}

/// Statements that must never be carried out here.
fn deadly(flavor: Flavor) -> &'static [&'static str] {
    match flavor {
        Flavor::MariaDb => &[
            "SHUTDOWN",
            "RESET MASTER",
            "CHANGE MASTER TO MASTER_HOST = 'x'",
            "START SLAVE",
            "SET GLOBAL read_only = 1",
            "SET GLOBAL server_id = 77",
            "SET GLOBAL gtid_slave_pos = ''",
            "SET STATEMENT max_statement_time = 1 FOR SHUTDOWN",
            "PREPARE s FROM 'SHUTDOWN'",
        ],
        Flavor::MySql => &[
            "SHUTDOWN",
            "RESTART",
            "RESET BINARY LOGS AND GTIDS",
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'x'",
            "START REPLICA",
            "SET GLOBAL super_read_only = 1",
            "SET PERSIST read_only = 1",
            "SET PERSIST_ONLY server_id = 77",
            "SET GLOBAL offline_mode = ON",
            "PREPARE s FROM 'SET GLOBAL read_only = 1'",
        ],
    }
}

/// A connection of an account that may do anything.
async fn administrator(rig: &Rig, name: &str) -> Conn {
    let grant = format!("GRANT ALL ON *.* TO {name}@'%' WITH GRANT OPTION");
    let made = format!("CREATE USER {name}@'%' IDENTIFIED BY '{name}'; {grant}");
    rig.cluster.primary().run(&made).await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    let options = login(rig.proxy.port(), name, name);
    support::eventually("the new account to be known", async || {
        Conn::new(options.clone()).await.is_ok()
    })
    .await;
    Conn::new(options).await.unwrap()
}

async fn they_are_refused(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut conn = administrator(rig, "administration").await;
    for sql in harmless(flavor).iter().chain(deadly(flavor)) {
        let error = conn.query_drop(*sql).await.unwrap_err();
        assert_eq!(code(&error), 1290, "{sql}: {error}");
        let text = error.to_string();
        assert!(text.contains("dbproxy refuses"), "{sql}: {text}");
        assert!(text.contains("cluster.administration"), "{sql}: {text}");
        let prepared = conn.prep(*sql).await;
        assert_eq!(code(&prepared.unwrap_err()), 1290, "{sql}");
        if sql.contains(';') || !sql.contains(' ') {
            // Of several statements there is no route, and of one word it would be a column's.
            continue;
        }
        let row = conn.query_first(format!("EXPLAIN ROUTE {sql}")).await;
        let row: Option<mysql_async::Row> = row.unwrap();
        let target: Option<String> = row.unwrap().get("Target").unwrap();
        assert_eq!(target.as_deref(), Some("nowhere"), "{sql}");
    }
    // Neither the session nor the server has noticed, and other statements of that kind are the account's business.
    let name: String = one(&mut conn, "SELECT USER()").await;
    assert!(name.starts_with("administration@"));
    for sql in [
        "SET GLOBAL max_connections = 500",
        "FLUSH TABLES",
        "FLUSH TABLES WITH READ LOCK",
        "UNLOCK TABLES",
        "FLUSH LOGS",
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    // Those of the protocol: COM_SHUTDOWN, COM_REFRESH.
    let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
    let usual = capability::USUAL;
    raw.login("administration", "administration", None, usual)
        .await
        .unwrap();
    for command in [&[0x08][..], &[0x08, 0], &[0x07, 0x80], &[0x07, 0x41]] {
        let packets = raw.exchange(command).await;
        assert_eq!(packets[0].1[..3], [0xff, 0x0a, 0x05], "{command:?}");
    }
    conn.query_drop("DO 1").await.unwrap();
}

async fn they_are_allowed(flavor: Flavor) {
    let options = Options {
        cluster: "administration = \"allow\"\n".to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut conn = administrator(&rig, "administration").await;
    for sql in harmless(flavor) {
        conn.query_drop(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    // Whether an account may, the server says.
    let mut app = rig.connect().await;
    let refused = error_of(&mut app, "SET GLOBAL read_only = 0").await;
    assert_eq!(refused, 1227);
}
