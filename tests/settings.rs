//! What a session asks of the proxy: in MySQL Router's words, and in hints that nobody understands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeMap;

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use support::{Rig, code, error_of, eventually, one, whereabouts};

on_both_flavors!(
    routers_access_mode_is_understood,
    router_waits_for_writes,
    what_router_does_not_know_is_an_error,
    unknown_hints_are_counted_and_logged,
    explanations_tell_what_a_statement_speaks_of,
);

async fn run(conn: &mut Conn, sql: &str) {
    if let Err(error) = conn.query_drop(sql).await {
        panic!("{sql}: {error}");
    }
}

/// A connection of an account of that name, in a schema with a table `t` that every server has.
async fn connect(flavor: Flavor, name: &str) -> Conn {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema(name).await;
    let made = format!("CREATE TABLE {schema}.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)");
    rig.cluster.primary().run(&made).await.unwrap();
    let options = rig.account(name).await.db_name(Some(schema));
    Conn::new(options).await.unwrap()
}

async fn row(conn: &mut Conn, sql: &str) -> BTreeMap<String, Option<String>> {
    let row: Row = conn.query_first(sql).await.unwrap().unwrap();
    let names = row.columns_ref().iter().enumerate();
    names
        .map(|(index, column)| (column.name_str().into_owned(), row.get(index).unwrap()))
        .collect()
}

async fn reason(conn: &mut Conn, sql: &str) -> String {
    let mut row = row(conn, &format!("EXPLAIN ROUTE {sql}")).await;
    row.remove("Reason").unwrap().unwrap()
}

/// What SHOW DBPROXY SESSION says.
async fn said(conn: &mut Conn, name: &str) -> Option<String> {
    let rows: Vec<(String, Option<String>)> = conn.query("SHOW DBPROXY SESSION").await.unwrap();
    let found = rows.into_iter().find(|(row, _)| row == name);
    found.unwrap().1
}

async fn is_on_replica(conn: &mut Conn) -> bool {
    whereabouts(conn).await != "db1"
}

async fn routers_access_mode_is_understood(flavor: Flavor) {
    let mut conn = connect(flavor, "settings_access").await;
    eventually("a replica to have it all", async || {
        is_on_replica(&mut conn).await
    })
    .await;
    let insert = conn.prep("INSERT INTO t (a) VALUES (?)").await.unwrap();
    assert_eq!(
        said(&mut conn, "access_mode").await.as_deref(),
        Some("auto")
    );

    run(&mut conn, "ROUTER SET access_mode='read_write'").await;
    assert!(!is_on_replica(&mut conn).await);
    let why = "the session asks for the primary";
    assert_eq!(reason(&mut conn, "SELECT 1").await, why);
    // A hint means its statement, as soon as a replica shows nothing older than what was read.
    eventually("the hint to count", async || {
        reason(&mut conn, "/* dbproxy: replica */ SELECT 1").await
            == "read: hint asks for a replica"
    })
    .await;
    run(&mut conn, "INSERT INTO t (a) VALUES (1)").await;

    run(&mut conn, "ROUTER SET access_mode = 'read_only'").await;
    let mode = said(&mut conn, "access_mode").await;
    assert_eq!(mode.as_deref(), Some("read_only"));
    eventually("a replica to have it all", async || {
        is_on_replica(&mut conn).await
    })
    .await;
    let why = "read: the session asks for replicas";
    assert_eq!(reason(&mut conn, "SELECT 1").await, why);
    let why = "may write, and the session is set to read only";
    assert_eq!(reason(&mut conn, "DELETE FROM t").await, why);
    for sql in [
        "INSERT INTO t (a) VALUES (2)",
        "/* dbproxy: primary */ DELETE FROM t",
        "CREATE TABLE other (id INT)",
        "SELECT a FROM t INTO OUTFILE '/nowhere/at/all'",
        "CALL nothing()",
        "SET NAMES utf8mb4; UPDATE t SET a = 3",
    ] {
        assert_eq!(error_of(&mut conn, sql).await, 1290, "{sql}");
    }
    // What was prepared before, and what is now.
    for statement in [
        insert.clone(),
        conn.prep("UPDATE t SET a = ?").await.unwrap(),
    ] {
        let error = conn.exec_drop(&statement, (2,)).await.unwrap_err();
        assert_eq!(code(&error), 1290, "{error}");
        assert!(error.to_string().contains("access_mode = 'auto'"));
    }
    // Nothing of that ends the session, nor what ties it to its connection.
    run(&mut conn, "SET @a = 0 + 1").await;
    assert_eq!(error_of(&mut conn, "DELETE FROM t").await, 1290);
    assert_eq!(one::<u8>(&mut conn, "SELECT @a").await, 1);
    conn.reset().await.unwrap();
    assert_eq!(
        said(&mut conn, "access_mode").await.as_deref(),
        Some("auto")
    );

    // A transaction that only reads goes along, another one is on the primary; both stay as they are.
    run(&mut conn, "ROUTER SET access_mode = 'read_only'").await;
    run(&mut conn, "START TRANSACTION READ ONLY").await;
    assert!(is_on_replica(&mut conn).await);
    let mode = "ROUTER SET access_mode = 'auto'";
    assert_eq!(error_of(&mut conn, mode).await, 1064);
    assert_eq!(error_of(&mut conn, "DELETE FROM t").await, 1290);
    assert!(is_on_replica(&mut conn).await);
    run(&mut conn, "COMMIT").await;
    run(&mut conn, "BEGIN").await;
    assert!(!is_on_replica(&mut conn).await);
    assert_eq!(error_of(&mut conn, "DELETE FROM t").await, 1290);
    run(&mut conn, "ROLLBACK").await;

    run(&mut conn, mode).await;
    let count: u32 = one(&mut conn, "SELECT COUNT(*) FROM t").await;
    assert_eq!(count, 1);
    run(&mut conn, "DELETE FROM t").await;
    conn.disconnect().await.unwrap();
}

async fn router_waits_for_writes(flavor: Flavor) {
    let mut conn = connect(flavor, "settings_writes").await;
    for (sql, consistency) in [
        ("ROUTER SET wait_for_my_writes = 0", "eventual"),
        ("ROUTER SET wait_for_my_writes_timeout = 5", "eventual"),
        ("ROUTER SET wait_for_my_writes = 1", "user"),
        ("ROUTER SET trace = 0", "user"),
    ] {
        run(&mut conn, sql).await;
        let now = said(&mut conn, "consistency").await;
        assert_eq!(now.as_deref(), Some(consistency), "{sql}");
    }
    assert_eq!(said(&mut conn, "pin").await, None);
}

async fn what_router_does_not_know_is_an_error(flavor: Flavor) {
    let mut conn = connect(flavor, "settings_wrong").await;
    for (sql, number) in [
        ("ROUTER SET access_mode = 'write'", 1064),
        ("ROUTER SET wait_for_my_writes = 2", 1064),
        ("ROUTER SET wait_for_my_writes_timeout = 3601", 1064),
        ("ROUTER SET trace = 1", 1235),
        ("ROUTER SET access_mod = 'auto'", 1193),
        // The server's own word.
        ("ROUTER", 1064),
    ] {
        assert_eq!(error_of(&mut conn, sql).await, number, "{sql}");
    }
    assert_eq!(
        said(&mut conn, "access_mode").await.as_deref(),
        Some("auto")
    );
    let error = conn.prep("ROUTER SET trace = 0").await.unwrap_err();
    assert_eq!(code(&error), 1295, "{error}");
    assert!(matches!(error, Error::Server(error) if error.message.contains("as text only")));
}

async fn unknown_hints_are_counted_and_logged(flavor: Flavor) {
    let mut conn = connect(flavor, "settings_hints").await;
    assert_eq!(said(&mut conn, "unknown_hints").await.as_deref(), Some("0"));
    run(&mut conn, "/* dbproxy: primary */ SELECT 1").await;
    run(&mut conn, "SELECT 1 /* dbproxy: fast */").await;
    assert_eq!(said(&mut conn, "unknown_hints").await.as_deref(), Some("0"));
    run(&mut conn, "/* dbproxy: fa\nst */ SELECT 1").await;
    run(&mut conn, "/*ms=bogus*/ SELECT 1").await;
    run(&mut conn, "-- maxscale begin route to master\nSELECT 1").await;
    run(
        &mut conn,
        "-- maxscale mine prepare route to master\nSELECT 1",
    )
    .await;
    let prepared = conn.prep("/*ms=bogus*/ SELECT 1").await.unwrap();
    for _ in 0..3 {
        conn.exec_drop(&prepared, ()).await.unwrap();
    }
    let long = format!("/* dbproxy: far */ SELECT '{}'", "x".repeat(2 << 20));
    run(&mut conn, &long).await;
    assert_eq!(said(&mut conn, "unknown_hints").await.as_deref(), Some("6"));

    // Once, with who and what.
    let log = Rig::shared(flavor).await.proxy.log();
    let of_account = |line: &&str| line.contains("WARN") && line.contains("'settings_hints'@'%'");
    let lines: Vec<_> = log.lines().filter(of_account).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("dbproxy: fa st"), "{}", lines[0]);
}

async fn explanations_tell_what_a_statement_speaks_of(flavor: Flavor) {
    let mut conn = connect(flavor, "settings_facts").await;
    let sql = "EXPLAIN ROUTE /*ms=bogus*/ SELECT ABS(@a), @@sql_mode FROM t INTO @b";
    let told = row(&mut conn, sql).await;
    for (column, expected) in [
        ("Calls", "ABS"),
        ("Variables read", "@a, @@sql_mode"),
        ("Variables set", "@b"),
        ("Hint not understood", "ms=bogus"),
    ] {
        let text = told.get(column).and_then(Option::as_deref);
        assert_eq!(text, Some(expected), "{column}: {told:?}");
    }
    // It is no statement with a hint.
    assert_eq!(said(&mut conn, "unknown_hints").await.as_deref(), Some("0"));
}
