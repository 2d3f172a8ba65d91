//! Replicas that leave something out get no reads of that.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use support::{Options, Rig, eventually, one};

on_both_flavors!(what_a_replica_leaves_out_is_not_read_there);

/// Where a statement would go, and why.
async fn route(conn: &mut Conn, sql: &str) -> (String, String) {
    let row: Row = one(conn, &format!("EXPLAIN ROUTE {sql}")).await;
    let text = |name| row.get::<String, _>(name).unwrap();
    (text("Target"), text("Reason"))
}

/// Makes the only replica leave out what one filter says, instead of what it left out before.
async fn filter(rig: &Rig, name: &str, value: &str) {
    let kinds = [
        "ignore_db",
        "ignore_table",
        "wild_ignore_table",
        "do_db",
        "wild_do_table",
    ];
    let sql = match rig.cluster.flavor() {
        Flavor::MariaDb => {
            let set = |kind: &str| match kind == name {
                true => format!(
                    "SET GLOBAL replicate_{kind}='{}'; ",
                    value.replace(['\'', '`'], "")
                ),
                false => format!("SET GLOBAL replicate_{kind}=''; "),
            };
            let all: String = kinds.into_iter().map(set).collect();
            format!("STOP SLAVE; {all} START SLAVE")
        }
        Flavor::MySql => {
            let set = |kind: &str| {
                let value = if kind == name { value } else { "" };
                format!("replicate_{kind}=({value})")
            };
            let all = kinds.map(set).join(", ");
            format!("STOP REPLICA; CHANGE REPLICATION FILTER {all}; START REPLICA")
        }
    };
    rig.cluster.replicas()[0].run(&sql).await.unwrap();
}

async fn what_a_replica_leaves_out_is_not_read_there(flavor: Flavor) {
    let rig = Rig::start(flavor, 1, &Options::default()).await;
    let setup = "CREATE DATABASE shop; CREATE DATABASE other; \
                 CREATE TABLE shop.t (i INT PRIMARY KEY); CREATE TABLE shop.log_1 (i INT PRIMARY KEY); \
                 CREATE TABLE shop.logs (i INT PRIMARY KEY); CREATE TABLE other.t (i INT PRIMARY KEY); \
                 CREATE VIEW shop.v AS SELECT i FROM other.t; \
                 CREATE FUNCTION shop.f() RETURNS INT DETERMINISTIC READS SQL DATA RETURN (SELECT MAX(i) FROM other.t)";
    rig.cluster.primary().run(setup).await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    let mut conn = rig.connect().await;
    for sql in ["SET @dbproxy_consistency = 'eventual'", "USE shop"] {
        conn.query_drop(sql).await.unwrap();
    }
    eventually("views and functions to be read", async || {
        let mut known = true;
        for sql in ["SELECT i FROM v", "SELECT f()", "SELECT i FROM other.t"] {
            known &= route(&mut conn, sql).await.0 == "replica";
        }
        known
    })
    .await;
    // The filter, a read that then goes to the primary, and one that does not.
    for (name, value, left_out, copied) in [
        ("ignore_table", "shop.t", "t", "logs"),
        (
            "ignore_table",
            "shop.t",
            "logs JOIN shop.T USING (i)",
            "other.t",
        ),
        ("ignore_db", "other", "other.t", "t"),
        ("wild_ignore_table", "'shop.log\\_%'", "log_1", "logs"),
        ("do_db", "shop", "t, other.t x", "t"),
        ("wild_do_table", "'shop.%'", "other.t", "log_1"),
    ] {
        filter(&rig, name, value).await;
        let (left_out, copied) = (
            format!("SELECT 1 FROM {left_out}"),
            format!("SELECT 1 FROM {copied}"),
        );
        let what = format!("{name}={value} to be seen");
        eventually(&what, async || {
            route(&mut conn, &left_out).await.0 == "primary"
                && route(&mut conn, &copied).await.0 == "replica"
        })
        .await;
        let (_, reason) = route(&mut conn, &left_out).await;
        assert!(reason.contains("by their replication filters"), "{reason}");
        for (sql, target) in [
            ("SELECT 1", "replica"),
            ("SELECT i FROM v", "primary"),
            ("SELECT f()", "primary"),
            (
                "SELECT table_name FROM information_schema.tables",
                "primary",
            ),
            ("SHOW TABLES", "primary"),
            ("/* dbproxy: server=db2 */ SELECT i FROM v", "primary"),
            (
                "/* dbproxy: replica */ START TRANSACTION READ ONLY",
                "primary",
            ),
        ] {
            assert_eq!(route(&mut conn, sql).await.0, target, "{name}: {sql}");
        }
    }

    // What is written there really is not on the replica, and is read all the same; by prepared statements too.
    filter(&rig, "ignore_db", "other").await;
    eventually("the filter to be seen", async || {
        route(&mut conn, "SELECT i FROM other.t").await.0 == "primary"
            && route(&mut conn, "SELECT i FROM t").await.0 == "replica"
    })
    .await;
    conn.query_drop("USE other").await.unwrap();
    conn.query_drop("INSERT INTO t VALUES (7)").await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    let there: u64 = rig.cluster.replicas()[0]
        .first("SELECT COUNT(*) FROM other.t")
        .await
        .unwrap();
    assert_eq!(there, 0);
    assert_eq!(one::<i32>(&mut conn, "SELECT i FROM t").await, 7);
    let found: Option<i32> = conn
        .exec_first("SELECT i FROM t WHERE i = ?", (7,))
        .await
        .unwrap();
    assert_eq!(found, Some(7));

    filter(&rig, "", "").await;
    eventually("the end of the filters to be seen", async || {
        route(&mut conn, "SELECT i FROM shop.v").await.0 == "replica"
    })
    .await;
}
