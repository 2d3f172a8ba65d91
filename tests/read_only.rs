//! Transactions that only read, on one replica from beginning to end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio::sync::OnceCell;

use support::{Options, Rig, WHERE, code, error_of, eventually, one, whereabouts};

on_both_flavors!(
    they_are_on_the_primary_unless_somebody_asks,
    they_stay_on_one_replica,
    what_needs_the_primary_takes_the_transaction_there,
    what_comes_too_late_is_refused,
    sessions_that_only_read_use_replicas,
    prepared_statements_follow,
    they_begin_with_all_that_was_written,
    a_replica_that_is_lost_takes_them_along,
);

const BEGIN: &str = "START TRANSACTION READ ONLY";

/// A rig that has them on replicas.
async fn rig(flavor: Flavor) -> &'static Rig {
    static MARIADB: OnceCell<Rig> = OnceCell::const_new();
    static MYSQL: OnceCell<Rig> = OnceCell::const_new();
    let cell = match flavor {
        Flavor::MariaDb => &MARIADB,
        Flavor::MySql => &MYSQL,
    };
    cell.get_or_init(async || own_rig(flavor).await).await
}

async fn own_rig(flavor: Flavor) -> Rig {
    let options = Options {
        cluster:
            "read_only_transactions = \"replica\"\nmax_lag = \"1h\"\nmonotonic_reads = \"off\"\n"
                .to_owned(),
        ..Options::default()
    };
    Rig::start(flavor, 2, &options).await
}

/// An account of that name with a table `t` in a schema of that name, which every server has.
async fn account(rig: &Rig, name: &str) -> OptsBuilder {
    let schema = rig.schema(name).await;
    let made = format!(
        "CREATE TABLE {schema}.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT); INSERT INTO {schema}.t (a) VALUES (1)"
    );
    rig.cluster.primary().run(&made).await.unwrap();
    rig.account(name).await.db_name(Some(schema))
}

async fn connect(options: &OptsBuilder) -> Conn {
    Conn::new(options.clone()).await.unwrap()
}

async fn run(conn: &mut Conn, sql: &str) {
    if let Err(error) = conn.query_drop(sql).await {
        panic!("{sql}: {error}");
    }
}

/// Waits until a replica has all that the session must see.
async fn fresh(conn: &mut Conn) {
    eventually("a replica to have it all", async || {
        let row = conn.query_first("EXPLAIN ROUTE SELECT 1").await.unwrap();
        let row: mysql_async::Row = row.unwrap();
        row.get::<String, _>("Server").unwrap() != "db1"
    })
    .await;
}

async fn begin(conn: &mut Conn, begin: &str) {
    fresh(conn).await;
    run(conn, begin).await;
}

async fn count(conn: &mut Conn) -> u32 {
    one(conn, "SELECT COUNT(*) FROM t").await
}

async fn they_are_on_the_primary_unless_somebody_asks(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut conn = connect(&account(rig, "read_only_default").await).await;
    for (sql, on_primary) in [
        (BEGIN, true),
        (
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
            true,
        ),
        ("/* dbproxy: replica */ START TRANSACTION READ ONLY", false),
        (
            "/* dbproxy: server=db3 */ START TRANSACTION READ ONLY",
            false,
        ),
        ("/* dbproxy: replica */ START TRANSACTION", true),
        ("/* dbproxy: replica */ START TRANSACTION READ WRITE", true),
        ("/* dbproxy: replica */ BEGIN", true),
    ] {
        begin(&mut conn, sql).await;
        assert_eq!(whereabouts(&mut conn).await == "db1", on_primary, "{sql}");
        run(&mut conn, "COMMIT").await;
        run(&mut conn, "INSERT INTO t (a) VALUES (2)").await;
    }
}

async fn they_stay_on_one_replica(flavor: Flavor) {
    let rig = rig(flavor).await;
    let options = account(rig, "read_only_stays").await;
    let mut conn = connect(&options).await;
    let mut other = connect(&options).await;
    for sql in [
        BEGIN,
        "start transaction /* so it be */ read only;",
        "START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT",
    ] {
        begin(&mut conn, sql).await;
        let place = whereabouts(&mut conn).await;
        assert_ne!(place, "db1", "{sql}");
        let before = count(&mut conn).await;
        run(&mut other, "INSERT INTO t (a) VALUES (3)").await;
        rig.cluster.caught_up().await.unwrap();
        for _ in 0..10 {
            assert_eq!(whereabouts(&mut conn).await, place, "{sql}");
            // Hints come after transactions.
            let hinted = format!("/* dbproxy: primary */ {WHERE}");
            assert_eq!(one::<String>(&mut conn, &hinted).await, place);
            assert_eq!(count(&mut conn).await, before, "{sql}");
        }
        run(&mut conn, "COMMIT").await;
        assert_eq!(count(&mut conn).await, before + 1, "{sql}");
        run(&mut conn, "INSERT INTO t (a) VALUES (4)").await;
        assert_eq!(count(&mut conn).await, before + 2, "{sql}");
    }

    // What the session and the statement before left is there.
    run(&mut conn, "INSERT INTO t (a) VALUES (5)").await;
    let id: u64 = one(&mut conn, "SELECT LAST_INSERT_ID()").await;
    run(&mut conn, "SET time_zone = '+05:00'").await;
    begin(&mut conn, BEGIN).await;
    let place = whereabouts(&mut conn).await;
    assert_ne!(place, "db1");
    assert_eq!(one::<u64>(&mut conn, "SELECT LAST_INSERT_ID()").await, id);
    let own = conn.id();
    assert_eq!(one::<u32>(&mut conn, "SELECT CONNECTION_ID()").await, own);
    assert_eq!(
        one::<String>(&mut conn, "SELECT @@time_zone").await,
        "+05:00"
    );
    run(&mut conn, "SET time_zone = '+06:00', NAMES utf8mb4").await;
    run(&mut conn, "SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1").await;
    assert!(one::<u32>(&mut conn, "SELECT FOUND_ROWS()").await > 1);
    let user: String = one(&mut conn, "SELECT CURRENT_USER()").await;
    assert_eq!(user, "read_only_stays@%");
    conn.ping().await.unwrap();
    assert_eq!(whereabouts(&mut conn).await, place);
    run(&mut conn, "ROLLBACK").await;
    assert_eq!(
        one::<String>(&mut conn, "SELECT @@time_zone").await,
        "+06:00"
    );

    // A transaction is ended by the next one, wherever that goes.
    begin(&mut conn, BEGIN).await;
    assert_ne!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "BEGIN").await;
    assert_eq!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "INSERT INTO t (a) VALUES (6)").await;
    run(&mut conn, BEGIN).await;
    assert_eq!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT").await;

    // A reset forgets it.
    begin(&mut conn, BEGIN).await;
    assert_ne!(whereabouts(&mut conn).await, "db1");
    conn.reset().await.unwrap();
    run(&mut conn, "INSERT INTO t (a) VALUES (7)").await;

    // Who is tied to the primary stays there, as does who wants it so.
    run(
        &mut conn,
        "/* dbproxy: primary */ START TRANSACTION READ ONLY",
    )
    .await;
    assert_eq!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT").await;
    run(&mut conn, "SET @dbproxy_consistency = 'strong'").await;
    run(&mut conn, BEGIN).await;
    assert_eq!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT").await;
    run(&mut conn, "SET @dbproxy_consistency = NULL").await;
    run(&mut conn, "SET TRANSACTION READ ONLY").await;
    run(&mut conn, "BEGIN").await;
    assert_eq!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT").await;
    run(&mut conn, "CREATE TEMPORARY TABLE mine (a INT)").await;
    run(&mut conn, BEGIN).await;
    run(&mut conn, "INSERT INTO mine VALUES (1)").await;
    assert_eq!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT").await;
}

async fn what_needs_the_primary_takes_the_transaction_there(flavor: Flavor) {
    let rig = rig(flavor).await;
    let options = account(rig, "read_only_leaves").await;
    let mut direct = rig.direct(rig.cluster.primary()).await;
    for first in [
        "SELECT GET_LOCK('read_only_leaves', 0)",
        "DO GET_LOCK('read_only_leaves', 0)",
        "SELECT @@hostname, GET_LOCK('read_only_leaves', 0)",
        "SET @a = GET_LOCK('read_only_leaves', 0)",
    ] {
        let mut conn = connect(&options).await;
        begin(&mut conn, BEGIN).await;
        run(&mut conn, "SET NAMES utf8mb4").await;
        conn.ping().await.unwrap();
        run(&mut conn, first).await;
        let free = "SELECT IS_FREE_LOCK('read_only_leaves')";
        assert_eq!(one::<u8>(&mut direct, free).await, 0, "{first}");
        // It is a transaction that only reads there as well.
        assert_eq!(whereabouts(&mut conn).await, "db1");
        assert_eq!(
            error_of(&mut conn, "INSERT INTO t (a) VALUES (8)").await,
            1792
        );
        run(&mut conn, "COMMIT").await;
        run(&mut conn, "SELECT RELEASE_ALL_LOCKS()").await;
        run(&mut conn, "INSERT INTO t (a) VALUES (8)").await;
    }
    let mut conn = connect(&options).await;
    for first in [
        "SELECT @@read_only",
        "SHOW STATUS LIKE 'Uptime'",
        "SHOW PROCESSLIST",
        "SAVEPOINT s",
        "SELECT a FROM t LOCK IN SHARE MODE",
        "/* dbproxy: primary */ SELECT a FROM t",
        "SET @@global.max_connections = @@global.max_connections",
    ] {
        begin(&mut conn, BEGIN).await;
        if first.starts_with("SET") {
            // Without the right to do so, on the primary as anywhere.
            assert_eq!(error_of(&mut conn, first).await, 1227);
        } else {
            run(&mut conn, first).await;
        }
        assert_eq!(whereabouts(&mut conn).await, "db1", "{first}");
        run(&mut conn, "COMMIT").await;
    }
    begin(&mut conn, BEGIN).await;
    assert_eq!(
        error_of(&mut conn, "INSERT INTO t (a) VALUES (9)").await,
        1792
    );
    assert_eq!(
        one::<u8>(&mut conn, "SELECT @@read_only").await,
        0,
        "an application that reads 1 believes that the database is read-only"
    );
    run(&mut conn, "COMMIT").await;
    // After a chain nothing has been read yet.
    begin(&mut conn, BEGIN).await;
    assert_ne!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT AND CHAIN").await;
    run(&mut conn, "SELECT GET_LOCK('read_only_chained', 0)").await;
    assert_eq!(whereabouts(&mut conn).await, "db1");
}

async fn what_comes_too_late_is_refused(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut conn = connect(&account(rig, "read_only_late").await).await;
    begin(&mut conn, BEGIN).await;
    let place = whereabouts(&mut conn).await;
    assert_ne!(place, "db1");
    for late in [
        "SELECT GET_LOCK('read_only_late', 0)",
        "SET @a = 1 + 1",
        "SELECT @a",
        "SELECT @@hostname",
        "SELECT @@read_only",
        "SHOW STATUS",
        "SELECT a FROM t FOR UPDATE",
        "INSERT INTO t (a) VALUES (10)",
        "CREATE TEMPORARY TABLE mine (a INT)",
        "CREATE TABLE u (a INT)",
        "SELECT unheard_of()",
        "SET GLOBAL max_connections = 10",
        "SET sql_log_bin = 0",
        "KILL 1",
        "CALL p()",
        "FLUSH TABLES",
        "SELECT 1; INSERT INTO t (a) VALUES (10)",
        "SAVEPOINT s",
    ] {
        assert_eq!(error_of(&mut conn, late).await, 1792, "{late}");
    }
    let error = conn.query_drop("SELECT GET_LOCK('a', 0)").await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("/* dbproxy: primary */") && text.contains(&place),
        "{text}"
    );
    let row: Option<mysql_async::Row> = conn
        .query_first("EXPLAIN ROUTE SELECT GET_LOCK('a', 0)")
        .await
        .unwrap();
    let target: String = row.unwrap().get("Target").unwrap();
    assert_eq!(target, "nowhere");
    // A command about the server is none for a replica either.
    assert_eq!(whereabouts(&mut conn).await, place);
    run(&mut conn, "COMMIT").await;
    run(&mut conn, "INSERT INTO t (a) VALUES (10)").await;
    // Tables are locked where they can be written, and the transaction is over.
    begin(&mut conn, BEGIN).await;
    assert_ne!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "LOCK TABLES t WRITE").await;
    run(&mut conn, "INSERT INTO t (a) VALUES (11)").await;
    run(&mut conn, "UNLOCK TABLES").await;
}

async fn sessions_that_only_read_use_replicas(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut conn = connect(&account(rig, "read_only_session").await).await;
    run(&mut conn, "SET SESSION TRANSACTION READ ONLY").await;
    for (sql, on_primary) in [
        ("BEGIN", false),
        ("START TRANSACTION", false),
        (BEGIN, false),
        ("START TRANSACTION READ WRITE", true),
    ] {
        begin(&mut conn, sql).await;
        assert_eq!(whereabouts(&mut conn).await == "db1", on_primary, "{sql}");
        run(&mut conn, "COMMIT").await;
    }
    // As Connector/J does it for Spring's and Hibernate's transactions that only read.
    run(&mut conn, "SET autocommit = 0").await;
    for _ in 0..3 {
        let place = whereabouts(&mut conn).await;
        assert_ne!(place, "db1");
        let before = count(&mut conn).await;
        for _ in 0..10 {
            assert_eq!(whereabouts(&mut conn).await, place);
        }
        assert_eq!(
            error_of(&mut conn, "INSERT INTO t (a) VALUES (12)").await,
            1792
        );
        assert_eq!(count(&mut conn).await, before);
        run(&mut conn, "COMMIT").await;
    }
    // An error does not say whether a transaction is open.
    assert_eq!(error_of(&mut conn, "SELECT * FROM none").await, 1146);
    assert_eq!(
        error_of(&mut conn, "INSERT INTO t (a) VALUES (13)").await,
        1792
    );
    run(&mut conn, "ROLLBACK").await;
    run(&mut conn, "SELECT GET_LOCK('read_only_session', 0)").await;
    assert_eq!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT").await;
    run(&mut conn, "SELECT RELEASE_ALL_LOCKS()").await;
    run(&mut conn, "SET autocommit = 1").await;
    run(&mut conn, "SET SESSION TRANSACTION READ WRITE").await;
    run(&mut conn, "INSERT INTO t (a) VALUES (14)").await;
    run(&mut conn, "BEGIN").await;
    assert_eq!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT").await;

    // Where reads lock, they lock where it counts.
    conn.reset().await.unwrap();
    run(
        &mut conn,
        "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    )
    .await;
    begin(&mut conn, BEGIN).await;
    assert_eq!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT").await;
    run(
        &mut conn,
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    )
    .await;
    begin(&mut conn, BEGIN).await;
    assert_ne!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT").await;
}

async fn prepared_statements_follow(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut conn = connect(&account(rig, "read_only_prepared").await).await;
    let place = conn.prep(WHERE).await.unwrap();
    let insert = conn.prep("INSERT INTO t (a) VALUES (?)").await.unwrap();
    let lock = conn.prep("SELECT GET_LOCK(?, 0)").await.unwrap();
    let where_am_i =
        async |conn: &mut Conn| -> String { conn.exec_first(&place, ()).await.unwrap().unwrap() };
    {
        begin(&mut conn, BEGIN).await;
        let replica = where_am_i(&mut conn).await;
        assert_ne!(replica, "db1");
        assert_eq!(whereabouts(&mut conn).await, replica);
        let error = conn.exec_drop(&insert, (15,)).await.unwrap_err();
        assert_eq!(code(&error), 1792);
        let error = conn.exec_drop(&lock, ("read_only_prepared",)).await;
        assert_eq!(code(&error.unwrap_err()), 1792);
        // What is only prepared does no harm.
        let hostname = conn.prep("SELECT @@hostname").await.unwrap();
        assert_eq!(where_am_i(&mut conn).await, replica);
        run(&mut conn, "COMMIT").await;
        conn.exec_drop(&hostname, ()).await.unwrap();
        conn.exec_drop(&insert, (17,)).await.unwrap();

        begin(&mut conn, BEGIN).await;
        conn.exec_drop(&lock, ("read_only_prepared",))
            .await
            .unwrap();
        assert_eq!(where_am_i(&mut conn).await, "db1");
    }
}

async fn they_begin_with_all_that_was_written(flavor: Flavor) {
    let rig = own_rig(flavor).await;
    let options = account(&rig, "read_only_fresh").await;
    let mut conn = connect(&options).await;
    let mut other = connect(&options).await;
    // From here on the replicas apply nothing, and answer reads all the same.
    let mut locks = Vec::new();
    for replica in rig.cluster.replicas() {
        let mut conn = replica.connect().await.unwrap();
        run(&mut conn, "FLUSH TABLES WITH READ LOCK").await;
        locks.push(conn);
    }
    begin(&mut conn, BEGIN).await;
    let before = count(&mut conn).await;
    assert_ne!(whereabouts(&mut conn).await, "db1");
    // Begun in time, but what it sees is settled by its first read.
    let mut third = connect(&options).await;
    begin(&mut third, BEGIN).await;
    run(&mut other, "INSERT INTO t (a) VALUES (18)").await;
    assert_eq!(count(&mut third).await, before + 1);
    assert_eq!(whereabouts(&mut third).await, "db1");
    // The snapshot is what it was.
    assert_eq!(count(&mut conn).await, before);
    run(&mut conn, "COMMIT").await;
    run(&mut conn, BEGIN).await;
    assert_eq!(count(&mut conn).await, before + 1);
    assert_eq!(whereabouts(&mut conn).await, "db1");
    run(&mut conn, "COMMIT").await;
    let eventual = "/* dbproxy: consistency=eventual */ START TRANSACTION READ ONLY";
    run(&mut conn, eventual).await;
    assert_ne!(whereabouts(&mut conn).await, "db1");
    assert_eq!(count(&mut conn).await, before);
    run(&mut conn, "COMMIT").await;
    drop(locks);
    begin(&mut conn, BEGIN).await;
    assert_eq!(count(&mut conn).await, before + 1);
    assert_ne!(whereabouts(&mut conn).await, "db1");
}

async fn a_replica_that_is_lost_takes_them_along(flavor: Flavor) {
    let rig = own_rig(flavor).await;
    let options = account(&rig, "read_only_lost").await;
    let mut conn = connect(&options).await;
    begin(&mut conn, BEGIN).await;
    let place = whereabouts(&mut conn).await;
    let lost = rig.cluster.replicas().iter();
    let lost = lost.filter(|server| server.name() == place);
    for server in lost {
        server.kill9();
    }
    assert!(conn.query_drop(WHERE).await.is_err());
    // As with any transaction whose server is lost, the session ends.
    let mut conn = connect(&options).await;
    for _ in 0..10 {
        begin(&mut conn, BEGIN).await;
        assert_ne!(whereabouts(&mut conn).await, place);
        run(&mut conn, "COMMIT").await;
        run(&mut conn, "INSERT INTO t (a) VALUES (19)").await;
    }
}
