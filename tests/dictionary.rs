//! The servers' own tables and SHOW statements: what replicas may answer of them is the data dictionary, and the same there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeSet;

use dbproxy::cli::demo::cluster::Flavor;
use dbproxy::sql::{Dialect, classify};
use mysql_async::prelude::Queryable;

use support::{Rig, eventually, one};

on_both_flavors!(
    only_the_dictionary_is_read_on_replicas,
    the_dictionary_is_the_same_on_replicas,
);

/// Tables of `information_schema` that speak of the data, and that both families have.
const DICTIONARY: &[&str] = &[
    "CHARACTER_SETS",
    "CHECK_CONSTRAINTS",
    "COLLATIONS",
    "COLLATION_CHARACTER_SET_APPLICABILITY",
    "COLUMNS",
    "KEY_COLUMN_USAGE",
    "PARAMETERS",
    "PARTITIONS",
    "REFERENTIAL_CONSTRAINTS",
    "ROUTINES",
    "SCHEMATA",
    "STATISTICS",
    "TABLES",
    "TABLE_CONSTRAINTS",
    "TRIGGERS",
    "VIEWS",
];

/// Those of MySQL alone.
const OF_MYSQL: &[&str] = &["ST_GEOMETRY_COLUMNS"];

/// Columns of them that each server fills in for itself: estimates, and times and places of its own.
const OF_A_SERVER: &[&str] = &[
    "AVG_ROW_LENGTH",
    "CARDINALITY",
    "CHECK_TIME",
    "CREATE_TIME",
    "DATA_FREE",
    "DATA_LENGTH",
    "INDEX_LENGTH",
    "MAX_INDEX_LENGTH",
    "TABLE_ROWS",
    "UPDATE_TIME",
];

fn expected(flavor: Flavor) -> BTreeSet<String> {
    let others = match flavor {
        Flavor::MariaDb => &[][..],
        Flavor::MySql => OF_MYSQL,
    };
    let names = DICTIONARY.iter().chain(others);
    names
        .map(|name| format!("information_schema.{}", name.to_lowercase()))
        .collect()
}

async fn dialect(rig: &Rig, flavor: Flavor) -> Dialect {
    let mut conn = rig.cluster.primary().connect().await.unwrap();
    let version: String = one(&mut conn, "SELECT VERSION()").await;
    let mut parts = version.split(['.', '-']);
    let mut part = || -> u32 { parts.next().unwrap().parse().unwrap() };
    let version = part() * 10_000 + part() * 100 + part();
    Dialect::of(flavor == Flavor::MariaDb, version)
}

/// Every table of the running server is known as one of the dictionary, or is read on the primary.
async fn only_the_dictionary_is_read_on_replicas(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let dialect = dialect(rig, flavor).await;
    let mut conn = rig.cluster.primary().connect().await.unwrap();
    let sql = "SELECT LOWER(CONCAT(table_schema, '.', table_name)) FROM information_schema.tables
               WHERE table_schema IN ('information_schema', 'performance_schema', 'mysql', 'sys')";
    let tables: Vec<String> = conn.query(sql).await.unwrap();
    assert!(tables.len() > 150, "{tables:?}");
    for form in [
        "SELECT * FROM {}",
        "SELECT 1 FROM t JOIN {} USING (a)",
        "EXPLAIN SELECT * FROM {}",
        "SELECT (SELECT COUNT(*) FROM {})",
        "TABLE {}",
    ] {
        let is_read = |table: &&String| {
            let sql = form.replace("{}", table);
            classify(sql.as_bytes(), dialect).is_replica_read()
        };
        let read: BTreeSet<_> = tables.iter().filter(is_read).cloned().collect();
        assert_eq!(read, expected(flavor), "{form}");
    }
}

async fn the_dictionary_is_the_same_on_replicas(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("dictionary").await;
    for sql in [
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT NOT NULL DEFAULT 3 COMMENT 'x', CHECK (a > 1), KEY (a))",
        "CREATE TABLE u (id INT, t INT, FOREIGN KEY (t) REFERENCES t (id)) ENGINE = InnoDB",
        "CREATE TABLE p (id INT) PARTITION BY HASH (id) PARTITIONS 3",
        "CREATE VIEW v AS SELECT a FROM t",
        "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 4",
        "CREATE PROCEDURE pr(IN x INT) SELECT x",
        "INSERT INTO t (a) VALUES (2), (3)",
    ] {
        let sql = format!("USE {schema}; {sql}");
        rig.cluster.primary().run(&sql).await.unwrap();
    }
    rig.cluster.caught_up().await.unwrap();
    let tables = expected(flavor);
    for table in &tables {
        let name = table.rsplit('.').next().unwrap();
        let mut conn = rig.cluster.primary().connect().await.unwrap();
        let sql = format!(
            "SELECT column_name AS c FROM information_schema.columns
             WHERE table_schema = 'information_schema' AND LOWER(table_name) = '{name}'"
        );
        let columns: Vec<String> = conn.query(sql).await.unwrap();
        let of_schema = columns.iter().find(|column| {
            let column = column.to_uppercase();
            column.ends_with("_SCHEMA") && column != "UNIQUE_CONSTRAINT_SCHEMA"
                || column == "SCHEMA_NAME"
        });
        let kept = columns
            .iter()
            .filter(|column| !OF_A_SERVER.contains(&column.to_uppercase().as_str()));
        let list = kept.map(|column| format!("IFNULL(`{column}`, 'NULL')"));
        let list = list.collect::<Vec<_>>().join(", ");
        let within = of_schema.map_or(String::new(), |column| {
            format!(" WHERE `{column}` = '{schema}'")
        });
        let sql = format!(
            "SELECT CONCAT_WS('|', {list}) AS r FROM information_schema.{name}{within} ORDER BY r"
        );
        let here: Vec<String> = conn.query(&sql).await.unwrap();
        assert!(
            !here.is_empty() || name == "st_geometry_columns",
            "{table} shows nothing"
        );
        for replica in rig.cluster.replicas() {
            // What a server keeps of it in memory may be older than what it has.
            eventually(&format!("{table} to be the same"), async || {
                let there: Vec<String> = replica.rows(&sql).await.unwrap();
                there == here
            })
            .await;
        }
    }
}
