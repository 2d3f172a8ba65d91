//! Stored functions and views: reads through them go where what they do may be done.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use support::{Options, Proxy, Rig, WHERE, code, eventually, one};

on_both_flavors!(
    functions_that_read_go_to_a_replica,
    functions_that_do_more_stay_on_the_primary,
    views_go_where_their_definitions_may_go,
    definitions_through_the_proxy_count_at_once,
    definitions_made_on_the_server_count_soon,
    prepared_statements_are_judged_anew,
    servers_judge_rights,
    hidden_definitions_are_not_trusted,
);

/// Changes settle as fast as the servers allow.
const QUICK: &str = "max_lag = \"1s\"\nmonotonic_reads = \"off\"";

const VIEWS: &str = "names a view that is not known to only read";
const FUNCTIONS: &str = "calls a function that is not known to only read";
const FRESH: &str = "read: a replica has every write it must see";

/// A primary and a replica with definitions that every server has, and the proxy, which has read them.
async fn rig(flavor: Flavor) -> Rig {
    let options = Options {
        cluster: QUICK.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    // By the account that will replace some.
    let mut primary = rig.direct(rig.cluster.primary()).await;
    for definition in DEFINITIONS {
        primary.query_drop(*definition).await.unwrap();
    }
    rig.cluster.caught_up().await.unwrap();
    let mut conn = rig.connect().await;
    is_routed(&mut conn, "SELECT s.last_there()", "replica", FRESH).await;
    rig
}

/// The functions that say where they run read the name of the server, which differs between the servers' copies of a table.
const DEFINITIONS: &[&str] = &[
    "CREATE DATABASE s",
    "CREATE DATABASE other",
    "CREATE TABLE s.t (a INT)",
    "CREATE FUNCTION s.wherever() RETURNS VARCHAR(64) DETERMINISTIC READS SQL DATA \
     BEGIN DECLARE found VARCHAR(64); SELECT name INTO found FROM test.where_am_i; RETURN found; END",
    "CREATE FUNCTION s.calls() RETURNS VARCHAR(64) DETERMINISTIC READS SQL DATA RETURN CONCAT(wherever(), '')",
    "CREATE FUNCTION other.wherever() RETURNS VARCHAR(64) DETERMINISTIC READS SQL DATA RETURN s.calls()",
    "CREATE FUNCTION s.undeclared() RETURNS VARCHAR(64) READS SQL DATA RETURN (SELECT name FROM test.where_am_i)",
    "CREATE FUNCTION s.liar(p INT) RETURNS INT DETERMINISTIC READS SQL DATA \
     BEGIN IF p > 0 THEN CALL s.writes(p); END IF; RETURN p; END",
    "CREATE FUNCTION s.writer(p INT) RETURNS INT DETERMINISTIC CONTAINS SQL \
     BEGIN INSERT INTO s.t VALUES (p); RETURN p; END",
    "CREATE FUNCTION s.calls_writer(p INT) RETURNS INT DETERMINISTIC RETURN s.writer(p)",
    "CREATE FUNCTION s.whoever() RETURNS VARCHAR(64) DETERMINISTIC RETURN CURRENT_USER()",
    "CREATE PROCEDURE s.writes(p INT) INSERT INTO s.t VALUES (p)",
    "CREATE PROCEDURE s.defines() CREATE OR REPLACE VIEW s.called AS SELECT s.writer(9) AS a",
    "CREATE VIEW s.plain AS SELECT name, COUNT(*) AS n, NOW() AS t, IF(name = 'x', 1, CAST(2 AS CHAR(5))) AS c, \
     GROUP_CONCAT(DISTINCT name ORDER BY name SEPARATOR ',') AS g, EXTRACT(YEAR FROM NOW()) AS y, \
     TRIM(BOTH 'x' FROM name) AS trimmed, name LIKE '%' ESCAPE '|' AS l, 'it''s \\\\ \"' AS quoted, \
     EXISTS (SELECT 1 FROM s.t) AS e, NOW() + INTERVAL 1 DAY AS later, CONVERT(name USING utf8mb4) AS converted \
     FROM test.where_am_i GROUP BY name",
    "CREATE VIEW s.through AS SELECT s.wherever() AS name",
    "CREATE VIEW s.outer_plain AS SELECT name FROM s.plain",
    "CREATE VIEW s.writing AS SELECT s.writer(5) AS a, name FROM test.where_am_i",
    "CREATE VIEW s.nested AS SELECT name FROM s.writing",
    "CREATE VIEW s.whose AS SELECT CURRENT_USER() AS u, name FROM test.where_am_i",
    "CREATE VIEW s.called AS SELECT 1 AS a",
    "CREATE FUNCTION s.reads_nested() RETURNS VARCHAR(64) DETERMINISTIC READS SQL DATA \
     RETURN (SELECT MAX(name) FROM s.nested)",
    "CREATE FUNCTION s.last_there() RETURNS INT DETERMINISTIC RETURN 1",
];

/// Where a statement goes, and why.
async fn route(conn: &mut Conn, sql: &str) -> (String, String) {
    let row: (String, Option<String>, String) = {
        let row: mysql_async::Row = one(conn, &format!("EXPLAIN ROUTE {sql}")).await;
        (
            row.get("Target").unwrap(),
            row.get("Server").unwrap(),
            row.get("Reason").unwrap(),
        )
    };
    (row.0, row.2)
}

/// Waits until a statement goes there, for that reason.
async fn is_routed(conn: &mut Conn, sql: &str, target: &str, reason: &str) {
    let mut last = Default::default();
    let arrived = support::within(support::SOON, async || {
        last = route(conn, sql).await;
        last.0 == target && last.1 == reason
    })
    .await;
    assert!(arrived, "{sql}: {last:?}");
}

async fn functions_that_read_go_to_a_replica(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut conn = rig.connect().await;
    let replica: String = one(&mut conn, WHERE).await;
    for sql in [
        "SELECT s.wherever()",
        "SELECT `s`.WherEver ( )",
        "SELECT s.calls()",
        "SELECT other.wherever()",
        "SELECT MAX(s.calls()) FROM test.where_am_i WHERE LENGTH(s.wherever()) > 0",
    ] {
        assert_eq!(one::<String>(&mut conn, sql).await, replica, "{sql}");
    }
    // By the schema in use.
    for schema in ["s", "other"] {
        conn.query_drop(format!("USE {schema}")).await.unwrap();
        assert_eq!(one::<String>(&mut conn, "SELECT wherever()").await, replica);
    }
    // Nor does a transaction that reads end with its session.
    let mut third = rig.connect().await;
    third
        .query_drop("/* dbproxy: replica */ START TRANSACTION READ ONLY")
        .await
        .unwrap();
    assert_eq!(one::<String>(&mut third, "SELECT s.calls()").await, replica);
    assert_eq!(
        one::<String>(&mut third, "SELECT name FROM s.through").await,
        replica
    );
    third.query_drop("COMMIT").await.unwrap();
    assert_eq!(one::<String>(&mut third, "SELECT s.calls()").await, replica);
    assert_eq!(support::error_of(&mut conn, "SELECT calls()").await, 1305);
    let pins: Vec<(String, Option<String>)> = conn.query("SHOW DBPROXY SESSION").await.unwrap();
    assert!(pins.contains(&(
        "pin".to_owned(),
        Some("function that may be a stored one".to_owned())
    )));
}

async fn functions_that_do_more_stay_on_the_primary(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut conn = rig.connect().await;
    for sql in [
        "SELECT s.undeclared()",
        "SELECT s.writer(1)",
        "SELECT s.liar(1)",
        "SELECT s.calls_writer(1)",
        "SELECT s.whoever()",
        "SELECT s.reads_nested()",
        "SELECT s.nowhere()",
        "SELECT s.wherever(), s.writer(1)",
    ] {
        let expected = ("primary".to_owned(), FUNCTIONS.to_owned());
        assert_eq!(route(&mut conn, sql).await, expected, "{sql}");
    }
    for (index, sql) in [
        "SELECT s.writer(1)",
        "SELECT s.liar(1)",
        "SELECT s.calls_writer(1)",
    ]
    .iter()
    .enumerate()
    {
        let mut conn = rig.connect().await;
        assert_eq!(one::<i32>(&mut conn, sql).await, 1, "{sql}");
        let rows: usize = one(&mut conn, "SELECT COUNT(*) FROM s.t").await;
        assert_eq!(rows, index + 1, "{sql} writes once");
    }
}

async fn views_go_where_their_definitions_may_go(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut conn = rig.connect().await;
    let replica: String = one(&mut conn, WHERE).await;
    for sql in [
        "SELECT name FROM s.plain",
        "SELECT name FROM s.through",
        "SELECT name FROM s.outer_plain",
    ] {
        assert_eq!(
            route(&mut conn, sql).await,
            ("replica".to_owned(), FRESH.to_owned()),
            "{sql}"
        );
        assert_eq!(one::<String>(&mut conn, sql).await, replica, "{sql}");
    }
    let primary = rig.cluster.primary().name();
    for sql in [
        "SELECT name FROM s.writing",
        "SELECT name FROM s.`NESTED`",
        "SELECT name FROM (SELECT name FROM s.nested) x",
        "SELECT name FROM s.whose",
    ] {
        assert_eq!(
            route(&mut conn, sql).await,
            ("primary".to_owned(), VIEWS.to_owned()),
            "{sql}"
        );
    }
    assert_eq!(
        one::<String>(&mut conn, "SELECT name FROM s.whose").await,
        primary
    );
    // The view does not tie the session down.
    assert_eq!(one::<String>(&mut conn, WHERE).await, replica);
    let before: usize = one(&mut conn, "SELECT COUNT(*) FROM s.t").await;
    let got: (i32, String) = one(&mut conn, "SELECT a, name FROM s.writing").await;
    assert_eq!(got, (5, primary.to_owned()));
    let rows: usize = one(&mut conn, "SELECT COUNT(*) FROM s.t").await;
    assert_eq!(rows, before + 1);
}

async fn definitions_through_the_proxy_count_at_once(flavor: Flavor) {
    let rig = rig(flavor).await;
    let (mut conn, mut other) = (rig.connect().await, rig.connect().await);
    let primary = rig.cluster.primary().name();
    let mut rows = 0;
    let views = [
        "CREATE OR REPLACE VIEW s.called AS SELECT s.writer(1) AS a",
        "CALL s.defines()",
        "SELECT 1; CREATE OR REPLACE VIEW s.called AS SELECT s.writer(2) AS a",
        "PREPARE p FROM 'CREATE OR REPLACE VIEW s.called AS SELECT s.writer(3) AS a'; EXECUTE p",
    ];
    for view in views {
        // Until that was read, and replicas have it, others are not affected.
        is_routed(&mut other, WHERE, "replica", FRESH).await;
        conn.query_drop(view).await.unwrap();
        let got: Vec<i32> = other.query("SELECT a FROM s.called").await.unwrap();
        assert_eq!(got.len(), 1, "{view}");
        rows += 1;
        let counted: usize = one(&mut conn, "SELECT COUNT(*) FROM s.t").await;
        assert_eq!(counted, rows, "{view}");
        let back = "CREATE OR REPLACE VIEW s.called AS SELECT 1 AS a";
        let mut direct = rig.direct(rig.cluster.primary()).await;
        direct.query_drop(back).await.unwrap();
        (conn, other) = (rig.connect().await, rig.connect().await);
        is_routed(&mut other, "SELECT a FROM s.called", "replica", FRESH).await;
    }
    conn.query_drop("DROP FUNCTION s.last_there").await.unwrap();
    conn.query_drop("CREATE FUNCTION s.last_there() RETURNS INT DETERMINISTIC BEGIN INSERT INTO s.t VALUES (1); RETURN 2; END")
        .await
        .unwrap();
    assert_eq!(one::<i32>(&mut other, "SELECT s.last_there()").await, 2);
    let mut third = rig.connect().await;
    let counted: usize = one(&mut third, "SELECT COUNT(*) FROM s.t").await;
    assert_eq!(counted, rows + 1);
    // What changes nothing of them costs no reads: not even a procedure that writes.
    is_routed(&mut third, WHERE, "replica", FRESH).await;
    third.query_drop("CALL s.writes(1)").await.unwrap();
    third.query_drop("CREATE TABLE s.u (a INT)").await.unwrap();
    let mut fourth = rig.account("fourth").await;
    fourth = fourth.db_name(Some("s"));
    let mut fourth = Conn::new(fourth).await.unwrap();
    third.query_drop("CALL s.writes(1)").await.unwrap();
    assert_ne!(one::<String>(&mut fourth, WHERE).await, primary);
}

async fn definitions_made_on_the_server_count_soon(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut conn = rig.connect().await;
    let primary = rig.cluster.primary();
    is_routed(&mut conn, "SELECT a FROM s.called", "replica", FRESH).await;
    primary
        .run("CREATE OR REPLACE VIEW s.called AS SELECT s.writer(1) AS a")
        .await
        .unwrap();
    is_routed(&mut conn, "SELECT a FROM s.called", "primary", VIEWS).await;
    primary
        .run("DROP FUNCTION s.last_there; CREATE FUNCTION s.last_there() RETURNS INT NOT DETERMINISTIC READS SQL DATA RETURN 1")
        .await
        .unwrap();
    is_routed(&mut conn, "SELECT s.last_there()", "primary", FUNCTIONS).await;
    primary
        .run(
            "CREATE OR REPLACE VIEW s.called AS SELECT 1 AS a; DROP FUNCTION s.last_there; \
             CREATE FUNCTION s.last_there() RETURNS INT DETERMINISTIC RETURN 1; \
             CREATE FUNCTION s.newest() RETURNS INT DETERMINISTIC RETURN 3",
        )
        .await
        .unwrap();
    is_routed(&mut conn, "SELECT a FROM s.called", "replica", FRESH).await;
    is_routed(&mut conn, "SELECT s.last_there()", "replica", FRESH).await;
    is_routed(&mut conn, "SELECT s.newest()", "replica", FRESH).await;
    // Every replica has it by then.
    assert_eq!(one::<i32>(&mut conn, "SELECT s.newest()").await, 3);
}

async fn prepared_statements_are_judged_anew(flavor: Flavor) {
    let rig = rig(flavor).await;
    let (mut conn, mut other) = (rig.connect().await, rig.connect().await);
    let replica: String = one(&mut conn, WHERE).await;
    conn.query_drop("USE s").await.unwrap();
    let function = conn.prep("SELECT wherever(), ?").await.unwrap();
    let view = conn
        .prep("SELECT a FROM s.called WHERE a > ?")
        .await
        .unwrap();
    conn.query_drop("USE test").await.unwrap();
    let got: Option<(String, i32)> = conn.exec_first(&function, (1,)).await.unwrap();
    assert_eq!(got, Some((replica, 1)));
    let got: Option<i32> = conn.exec_first(&view, (0,)).await.unwrap();
    assert_eq!(got, Some(1));
    other
        .query_drop("CREATE OR REPLACE VIEW s.called AS SELECT s.writer(4) AS a")
        .await
        .unwrap();
    for _ in 0..2 {
        let got: Option<i32> = conn.exec_first(&view, (0,)).await.unwrap();
        assert_eq!(got, Some(4));
        let mut third = rig.connect().await;
        is_routed(&mut third, "SELECT a FROM s.called", "primary", VIEWS).await;
    }
    let written: usize = one(&mut other, "SELECT COUNT(*) FROM s.t WHERE a = 4").await;
    assert!(written >= 2);
    other.query_drop("DROP FUNCTION s.wherever").await.unwrap();
    other
        .query_drop("CREATE FUNCTION s.wherever() RETURNS VARCHAR(64) DETERMINISTIC BEGIN INSERT INTO s.t VALUES (7); RETURN 'x'; END")
        .await
        .unwrap();
    let got: Option<(String, i32)> = conn.exec_first(&function, (2,)).await.unwrap();
    assert_eq!(got, Some(("x".to_owned(), 2)));
    let written: usize = one(&mut other, "SELECT COUNT(*) FROM s.t WHERE a = 7").await;
    assert_eq!(written, 1);
}

async fn servers_judge_rights(flavor: Flavor) {
    let rig = rig(flavor).await;
    rig.cluster
        .primary()
        .run("CREATE USER few@'%' IDENTIFIED BY 'few'; GRANT SELECT ON test.* TO few@'%'")
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let options = support::login(rig.proxy.port(), "few", "few");
    let mut direct = Conn::new(support::login(rig.cluster.primary().port(), "few", "few"))
        .await
        .unwrap();
    eventually("the account to be known", async || {
        Conn::new(options.clone()).await.is_ok()
    })
    .await;
    let mut conn = Conn::new(options).await.unwrap();
    for sql in [
        "SELECT s.wherever()",
        "SELECT s.writer(1)",
        "SELECT * FROM s.plain",
        "SELECT * FROM s.writing",
    ] {
        let expected = direct.query_drop(sql).await.unwrap_err();
        let got = conn.query_drop(sql).await.unwrap_err();
        assert!(
            code(&expected) != 0 && code(&got) == code(&expected),
            "{sql}: {got}, {expected}"
        );
    }
}

async fn hidden_definitions_are_not_trusted(flavor: Flavor) {
    let rig = rig(flavor).await;
    rig.cluster
        .primary()
        .run("REVOKE SELECT ON *.* FROM dbproxy@'%'")
        .await
        .unwrap();
    let users = match flavor {
        Flavor::MariaDb => "mysql.global_priv",
        Flavor::MySql => "mysql.user",
    };
    rig.cluster
        .primary()
        .run(&format!("GRANT SELECT ON {users} TO dbproxy@'%'"))
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    // Rights count for connections that are made later.
    let proxy = Proxy::start(&rig.cluster, &Options::default()).await;
    proxy.knows_replicas(1).await;
    let mut conn = proxy.connect().await;
    // Names of views are shown, what they do is not.
    is_routed(&mut conn, "SELECT name FROM s.plain", "primary", VIEWS).await;
    is_routed(&mut conn, "SELECT name FROM s.nested", "primary", VIEWS).await;
    conn.query_drop("USE s").await.unwrap();
    is_routed(&mut conn, "SELECT wherever()", "primary", FUNCTIONS).await;
    is_routed(&mut conn, WHERE, "replica", FRESH).await;
    assert!(
        proxy
            .log()
            .contains("not all stored functions and views are shown")
    );
}
