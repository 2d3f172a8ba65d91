//! Transactions that are run again on the new primary, and those that are not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::{Flavor, ServerProcess};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use support::{Options, Rig, eventually, one};

on_both_flavors!(
    a_transaction_goes_on_after_a_crash,
    a_transaction_goes_on_after_a_switch,
    what_cannot_be_repeated_is_rolled_back,
);

async fn rig(flavor: Flavor, cluster: &str) -> Rig {
    let options = Options {
        sections: "[limits]\nhold = \"60s\"\n".to_owned(),
        cluster: format!("transaction_replay = \"on\"\n{cluster}"),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 2, &options).await;
    let sql = "CREATE TABLE test.t (id INT AUTO_INCREMENT PRIMARY KEY, n INT UNIQUE, made TIMESTAMP(6) NULL); \
               INSERT INTO test.t (n) VALUES (1),(2),(3); CREATE TABLE test.w (n INT); \
               CREATE PROCEDURE test.p() SQL SECURITY INVOKER UPDATE test.t SET n = 9 WHERE n = 2";
    rig.cluster.primary().run(sql).await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    rig
}

async fn promote(rig: &Rig) -> &ServerProcess {
    let next = &rig.cluster.replicas()[0];
    next.run(match rig.cluster.flavor() {
        Flavor::MariaDb => "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=0",
        Flavor::MySql => {
            "STOP REPLICA; RESET REPLICA ALL; SET PERSIST super_read_only=0; SET PERSIST read_only=0"
        }
    })
    .await
    .unwrap();
    next
}

fn number<T: std::fmt::Debug>(result: Result<T, Error>) -> u16 {
    match result {
        Err(Error::Server(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

async fn run(conn: &mut Conn, statements: &[&str]) {
    for sql in statements {
        conn.query_drop(*sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// Sessions in the middle of transactions of every kind that can be run again.
async fn open(rig: &Rig) -> Vec<Conn> {
    let mut conns = Vec::new();
    // Text, savepoints, an error that the transaction survives, the time, and changes of the session within it.
    let mut conn = rig.connect().await;
    run(
        &mut conn,
        &[
            "SET SESSION transaction_isolation = 'READ-COMMITTED'",
            "START TRANSACTION",
            "INSERT INTO test.t (n, made) VALUES (10, NOW(6))",
            "SAVEPOINT s",
            "UPDATE test.t SET n = 20 WHERE n = 1",
            "ROLLBACK TO SAVEPOINT s",
            "USE test",
            "SET SESSION sql_mode = 'ANSI_QUOTES'",
        ][usize::from(rig.cluster.flavor() == Flavor::MariaDb)..],
    )
    .await;
    assert_eq!(
        number(conn.query_drop("INSERT INTO \"t\" (n) VALUES (2)").await),
        1062
    );
    let rows: Vec<u32> = conn.query("SELECT n FROM t ORDER BY n").await.unwrap();
    assert_eq!(rows, [1, 2, 3, 10]);
    conns.push(conn);
    // Prepared statements.
    let mut conn = rig.connect().await;
    run(&mut conn, &["SET autocommit = 0"]).await;
    conn.exec_drop("INSERT INTO test.t (n) VALUES (?)", (11,))
        .await
        .unwrap();
    let found: Option<u32> = conn
        .exec_first("SELECT n FROM test.t WHERE n = ?", (11,))
        .await
        .unwrap();
    assert_eq!(found, Some(11));
    conns.push(conn);
    // Nothing but its beginning, and what that has to be like.
    let mut conn = rig.connect().await;
    run(
        &mut conn,
        &[
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "START TRANSACTION",
        ],
    )
    .await;
    conns.push(conn);
    // Values that count up: a row with one of its own, and then some.
    let mut conn = rig.connect().await;
    run(
        &mut conn,
        &[
            "BEGIN",
            "INSERT INTO test.t (id, n) VALUES (500, 500)",
            "INSERT INTO test.t (n) VALUES (501), (502)",
        ],
    )
    .await;
    conns.push(conn);
    conns
}

/// They go on as if nothing had happened, each in its own way.
async fn go_on(conns: Vec<Conn>, next: &ServerProcess) {
    let [mut text, mut prepared, mut begun, mut counts]: [Conn; 4] = conns.try_into().ok().unwrap();
    text.query_drop("INSERT INTO t (n) VALUES (100)")
        .await
        .unwrap();
    text.query_drop("COMMIT").await.unwrap();
    assert_eq!(
        one::<String>(&mut text, "SELECT @@sql_mode").await,
        "ANSI_QUOTES"
    );
    prepared
        .exec_drop("INSERT INTO test.t (n) VALUES (?)", (101,))
        .await
        .unwrap();
    prepared.query_drop("COMMIT").await.unwrap();
    begun
        .query_drop("INSERT INTO test.t (n) VALUES (102)")
        .await
        .unwrap();
    begun.query_drop("COMMIT").await.unwrap();
    counts
        .query_drop("INSERT INTO test.t (n) VALUES (103)")
        .await
        .unwrap();
    counts.query_drop("COMMIT").await.unwrap();
    let rows: Vec<u32> = next.rows("SELECT n FROM test.t ORDER BY n").await.unwrap();
    assert_eq!(rows, [1, 2, 3, 10, 11, 100, 101, 102, 103, 500, 501, 502]);
    let sql = "SELECT COUNT(*) FROM test.t WHERE n = 10 AND ABS(TIMESTAMPDIFF(SECOND, made, NOW(6))) < 600";
    assert_eq!(next.first::<u32>(sql).await.unwrap(), 1);
}

async fn a_transaction_goes_on_after_a_crash(flavor: Flavor) {
    let rig = rig(flavor, "").await;
    let mut conns = open(&rig).await;
    // One is in the middle of a statement, and one at the first of its transaction.
    let running = "SELECT COUNT(*) FROM test.t WHERE n = 10 AND SLEEP(4) = 0";
    let mut first = rig.connect().await;
    run(&mut first, &["SET autocommit = 0"]).await;
    let first = tokio::spawn(async move {
        let sql = "INSERT INTO test.t (n) SELECT 12 FROM DUAL WHERE SLEEP(4) = 0";
        first.query_drop(sql).await.unwrap();
        first.query_drop("ROLLBACK").await.unwrap();
    });
    let mut conn = conns.remove(0);
    let busy = tokio::spawn(async move {
        let count: Option<u32> = conn.query_first(running).await.unwrap();
        (count, conn)
    });
    eventually("both to run", async || {
        let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(4)%' AND user = 'app'";
        rig.cluster.primary().first::<u32>(sql).await.unwrap() == 2
    })
    .await;
    rig.cluster.primary().kill9();
    let next = promote(&rig).await;
    let (count, conn) = busy.await.unwrap();
    assert_eq!(count, Some(1));
    conns.insert(0, conn);
    first.await.unwrap();
    go_on(conns, next).await;
    assert!(rig.proxy.log().contains("transaction replayed"));
}

async fn a_transaction_goes_on_after_a_switch(flavor: Flavor) {
    let rig = rig(flavor, "").await;
    let primary = rig.cluster.primary();
    let mut conns = open(&rig).await;
    // Refused there, and at once: COMMIT, and a write.
    let mut commits = rig.connect().await;
    run(
        &mut commits,
        &["BEGIN", "UPDATE test.t SET made = '2001-01-01' WHERE n = 3"],
    )
    .await;
    primary
        .run(match flavor {
            Flavor::MariaDb => "SET GLOBAL read_only=1",
            Flavor::MySql => "SET PERSIST super_read_only=1",
        })
        .await
        .unwrap();
    let commits = tokio::spawn(async move { commits.query_drop("COMMIT").await });
    let mut conn = conns.remove(1);
    let writes = tokio::spawn(async move {
        conn.query_drop("INSERT INTO test.w VALUES (1)")
            .await
            .unwrap();
        conn
    });
    eventually("both to be refused", async || {
        rig.proxy.log().matches("statement refused").count() >= 2
    })
    .await;
    rig.cluster
        .switch_primary(primary, &rig.cluster.replicas()[0])
        .await
        .unwrap();
    let next = &rig.cluster.replicas()[0];
    commits.await.unwrap().unwrap();
    conns.insert(1, writes.await.unwrap());
    go_on(conns, next).await;
    let sql = "SELECT made = '2001-01-01' FROM test.t WHERE n = 3";
    assert!(next.first::<bool>(sql).await.unwrap());
}

async fn what_cannot_be_repeated_is_rolled_back(flavor: Flavor) {
    let rig = rig(flavor, "transaction_replay_size = \"4KiB\"\n").await;
    let long = format!(
        "INSERT INTO test.t (n) VALUES (40) /* {} */",
        "x".repeat(5000)
    );
    let mut lost = Vec::new();
    for statement in [
        // Another answer: the row is gone.
        "SELECT n FROM test.t WHERE n = 3",
        "INSERT INTO test.t (n) VALUES (41 + 0 * RAND())",
        "CALL test.p()",
        &*long,
    ] {
        let mut conn = rig.connect().await;
        run(&mut conn, &["BEGIN"]).await;
        run(&mut conn, &[statement]).await;
        // What went through before does not count.
        run(&mut conn, &["SELECT n FROM test.t WHERE n = 1"]).await;
        lost.push(conn);
    }
    let mut commits = rig.connect().await;
    run(
        &mut commits,
        &["BEGIN", "INSERT INTO test.t (n) VALUES (50)"],
    )
    .await;
    rig.cluster.primary().kill9();
    let next = &rig.cluster.replicas()[0];
    let stop = match flavor {
        Flavor::MariaDb => "STOP SLAVE; SET sql_log_bin = 0",
        Flavor::MySql => "STOP REPLICA; SET GLOBAL super_read_only = 0; SET sql_log_bin = 0",
    };
    next.run(&format!("{stop}; DELETE FROM test.t WHERE n = 3"))
        .await
        .unwrap();
    promote(&rig).await;
    for (index, mut conn) in lost.into_iter().enumerate() {
        let sql = "INSERT INTO test.t (n) VALUES (60)";
        // Nobody knows what a procedure has left in the session.
        let expected = if index == 2 { 2013 } else { 1213 };
        assert_eq!(number(conn.query_drop(sql).await), expected);
        run(
            &mut conn,
            &["BEGIN", "SELECT n FROM test.t WHERE n = 1", "COMMIT"],
        )
        .await;
    }
    run(&mut commits, &["COMMIT"]).await;
    let rows: Vec<u32> = next.rows("SELECT n FROM test.t ORDER BY n").await.unwrap();
    assert_eq!(rows, [1, 2, 50]);
}
