//! What clients see when the primary fails or is switched: what is held, what runs again, what is rolled back, and what nobody
//! knows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::{Flavor, ServerProcess, signal};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, TxOpts};
use tokio::task::{JoinHandle, JoinSet};

use support::raw::{Raw, Refused, capability};
use support::{Options, Rig, application, eventually, one, whereabouts};

on_both_flavors!(
    what_runs_when_the_primary_dies,
    what_is_open_when_the_primary_dies,
    what_is_open_when_the_primary_hangs,
    what_is_open_when_the_primary_is_shut_down,
    sessions_keep_their_state,
    what_a_read_only_primary_refuses,
    a_transaction_on_a_primary_that_is_closed,
    reads_go_on_without_a_primary,
);

/// A primary and two replicas, and a proxy that waits long for a primary.
async fn rig(flavor: Flavor) -> Rig {
    rig_with(flavor, "[limits]\nhold = \"60s\"\n").await
}

async fn rig_with(flavor: Flavor, sections: &str) -> Rig {
    let options = Options {
        sections: sections.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 2, &options).await;
    let sql = "CREATE TABLE test.t (id INT AUTO_INCREMENT PRIMARY KEY, n INT); \
               CREATE TABLE test.d (n INT); CREATE TABLE test.s (n INT); INSERT INTO test.d VALUES (1),(2),(3); \
               CREATE PROCEDURE test.p() SQL SECURITY INVOKER INSERT INTO test.s SELECT 99 FROM DUAL WHERE SLEEP(300) = 0";
    rig.cluster.primary().run(sql).await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    rig
}

/// Makes the first replica the primary, by hand.
async fn promote(rig: &Rig) -> &ServerProcess {
    let [next, other] = rig.cluster.replicas() else {
        panic!("two replicas");
    };
    let (stop, open) = match rig.cluster.flavor() {
        Flavor::MariaDb => ("STOP SLAVE", "RESET SLAVE ALL; SET GLOBAL read_only=0"),
        Flavor::MySql => (
            "STOP REPLICA",
            "RESET REPLICA ALL; SET PERSIST super_read_only=0; SET PERSIST read_only=0",
        ),
    };
    next.run(&format!("{stop}; {open}")).await.unwrap();
    other.run(stop).await.unwrap();
    rig.cluster.replicate(other, next).await.unwrap();
    next
}

fn told<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::Server(error)) => (error.code, error.state),
        other => panic!("{other:?}"),
    }
}

fn is(code: u16, state: &str) -> (u16, String) {
    (code, state.to_owned())
}

async fn is_gone(conn: &mut Conn) -> bool {
    conn.ping().await.is_err()
}

/// Runs a statement aside.
fn start(mut conn: Conn, sql: &str) -> JoinHandle<(Result<Option<String>, Error>, Conn)> {
    let sql = sql.to_owned();
    tokio::spawn(async move {
        let result = match sql.strip_prefix("prepared: ") {
            Some(sql) => conn.exec_first(sql, ()).await,
            None => conn.query_first(sql).await,
        };
        (result, conn)
    })
}

async fn in_transaction(rig: &Rig) -> Conn {
    let mut conn = rig.connect().await;
    conn.query_drop("START TRANSACTION").await.unwrap();
    conn.query_drop("INSERT INTO test.t (n) VALUES (1000)")
        .await
        .unwrap();
    conn
}

async fn what_runs_when_the_primary_dies(flavor: Flavor) {
    let rig = rig(flavor).await;
    let primary = rig.cluster.primary();
    let insert = "INSERT INTO test.s SELECT 1 FROM DUAL WHERE SLEEP(300) = 0";
    let mut unknown = Vec::new();
    for sql in [
        insert,
        &format!("prepared: {insert}"),
        "CREATE TABLE test.made AS SELECT SLEEP(300) AS s",
        "CALL test.p()",
    ] {
        unknown.push(start(rig.connect().await, sql));
    }
    // What has begun by itself may have committed before.
    unknown.push(start(
        in_transaction(&rig).await,
        "CREATE TABLE test.made2 AS SELECT SLEEP(300) AS s",
    ));
    let update = "UPDATE test.d SET n = n WHERE SLEEP(300) = 0";
    let mut undone = Vec::new();
    for sql in [update, &format!("prepared: {update}"), "SELECT SLEEP(300)"] {
        undone.push(start(in_transaction(&rig).await, sql));
    }
    let mut off = rig.connect().await;
    off.query_drop("SET autocommit = 0").await.unwrap();
    undone.push(start(off, insert));
    let mut again = Vec::new();
    for sql in [
        "/* dbproxy: primary */ SELECT name FROM test.where_am_i WHERE SLEEP(4) = 0",
        "SELECT name FROM test.where_am_i WHERE SLEEP(4) = 0 FOR UPDATE",
        "prepared: SELECT name FROM test.where_am_i WHERE SLEEP(4) = 0 FOR UPDATE",
    ] {
        again.push(start(rig.connect().await, sql));
    }
    let mut several = Raw::tcp(rig.proxy.port()).await.unwrap();
    let capabilities = capability::USUAL | 1 << 16;
    several
        .login("app", "app", None, capabilities)
        .await
        .unwrap();
    several
        .query("SELECT 5; UPDATE test.d SET n = n WHERE SLEEP(300) = 0")
        .await;
    assert_eq!(several.result().await.unwrap()[0][0].as_deref(), Some("5"));
    let mut loads = Raw::tcp(rig.proxy.port()).await.unwrap();
    let capabilities = capability::USUAL | capability::LOCAL_FILES;
    loads.login("app", "app", None, capabilities).await.unwrap();
    loads
        .query("LOAD DATA LOCAL INFILE 'x' INTO TABLE test.d")
        .await;
    assert_eq!(loads.packet().await.unwrap()[0], 0xfb);
    loads.put(b"50\n").await.unwrap();
    eventually("all of them to run", async || {
        let sql = "SELECT COUNT(*) FROM information_schema.processlist \
                   WHERE user = 'app' AND command IN ('Query', 'Execute')";
        primary.first::<u64>(sql).await.unwrap() == 14
    })
    .await;
    primary.kill9();
    for running in unknown {
        let (result, mut conn) = running.await.unwrap();
        assert_eq!(told(result), is(1927, "08S01"));
        assert!(is_gone(&mut conn).await);
    }
    let mut sessions = Vec::new();
    for running in undone {
        let (result, conn) = running.await.unwrap();
        assert_eq!(told(result), is(1213, "40001"));
        sessions.push(conn);
    }
    loads.put(b"").await.unwrap();
    assert_eq!(loads.refused().await.code, 1927);
    let broken: Refused = several.refused().await;
    assert_eq!(broken.code, 1927);
    let next = promote(&rig).await.name();
    for running in again {
        let (result, _) = running.await.unwrap();
        let name = result.unwrap().unwrap();
        assert!(name == next || name == "db3", "{name}");
    }
    // The sessions live on, outside of their transactions.
    sessions[3].query_drop("SET autocommit = 1").await.unwrap();
    for conn in &mut sessions {
        conn.query_drop("INSERT INTO test.t (n) VALUES (2000)")
            .await
            .unwrap();
    }
    let mut conn = rig.connect().await;
    // The definition had committed its transaction before it ran.
    let sql = "SELECT SUM(n = 2000), SUM(n = 1000) <= 1 FROM test.t FOR UPDATE";
    assert_eq!(one::<(u64, bool)>(&mut conn, sql).await, (4, true));
}

async fn what_is_open_when_the_primary_dies(flavor: Flavor) {
    let rig = rig(flavor).await;
    open_when_lost(&rig, async || rig.cluster.primary().kill9()).await;
}

async fn what_is_open_when_the_primary_hangs(flavor: Flavor) {
    let rig = rig(flavor).await;
    open_when_lost(&rig, async || rig.cluster.primary().stop().unwrap()).await;
    rig.cluster.primary().cont().unwrap();
}

async fn what_is_open_when_the_primary_is_shut_down(flavor: Flavor) {
    let rig = rig(flavor).await;
    let primary = rig.cluster.primary();
    open_when_lost(&rig, async || {
        signal(primary.pid().unwrap(), "TERM").unwrap();
        eventually("the primary to be gone", async || {
            Conn::new(application(primary.port())).await.is_err()
        })
        .await;
    })
    .await;
}

async fn open_when_lost(rig: &Rig, fault: impl AsyncFnOnce()) {
    let mut commits = in_transaction(rig).await;
    let mut writes = in_transaction(rig).await;
    let mut undoes = in_transaction(rig).await;
    let mut locked = in_transaction(rig).await;
    locked
        .query_drop("DO GET_LOCK('outcomes', 1)")
        .await
        .unwrap();
    let mut executes = in_transaction(rig).await;
    let statement = executes
        .prep("INSERT INTO test.t (n) VALUES (?)")
        .await
        .unwrap();
    let mut temporary = rig.connect().await;
    temporary
        .query_drop("CREATE TEMPORARY TABLE test.temporary (n INT)")
        .await
        .unwrap();
    fault().await;
    let next = promote(rig).await;
    for conn in [&mut commits, &mut writes] {
        conn.ping().await.unwrap();
    }
    assert_eq!(told(commits.query_drop("COMMIT").await), is(1213, "40001"));
    let insert = "INSERT INTO test.t (n) VALUES (1001)";
    assert_eq!(told(writes.query_drop(insert).await), is(1213, "40001"));
    assert_eq!(
        told(executes.exec_drop(&statement, (1002,)).await),
        is(1213, "40001")
    );
    undoes.query_drop("ROLLBACK").await.unwrap();
    // What could not be kept is told once.
    for (conn, sql) in [
        (&mut locked, insert),
        (&mut temporary, "SELECT COUNT(*) FROM test.temporary"),
    ] {
        assert_eq!(told(conn.query_drop(sql).await), is(2013, "08S01"));
    }
    assert_eq!(
        told(temporary.query_drop("SELECT * FROM test.temporary").await).0,
        1146
    );
    executes.exec_drop(&statement, (2000,)).await.unwrap();
    for conn in [
        &mut commits,
        &mut writes,
        &mut undoes,
        &mut locked,
        &mut temporary,
    ] {
        let mut transaction = conn.start_transaction(TxOpts::default()).await.unwrap();
        transaction
            .query_drop("INSERT INTO test.t (n) VALUES (2000)")
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
    let sql = "SELECT COUNT(*), COALESCE(SUM(n = 2000), 0) FROM test.t";
    assert_eq!(next.first::<(u64, u64)>(sql).await.unwrap(), (6, 6));
}

async fn sessions_keep_their_state(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut conn = rig.connect().await;
    conn.query_drop("USE test").await.unwrap();
    conn.query_drop("SET SESSION time_zone = '+05:00', SESSION sql_mode = 'ANSI_QUOTES'")
        .await
        .unwrap();
    conn.query_drop("INSERT INTO t (n) VALUES (1),(2)")
        .await
        .unwrap();
    let statement = conn.prep("INSERT INTO \"t\" (n) VALUES (?)").await.unwrap();
    let id = conn.id();
    rig.cluster.caught_up().await.unwrap();
    rig.cluster.primary().kill9();
    // Held until there is a primary.
    let held = tokio::spawn(async move {
        let (last, zone): (u64, String) = one(
            &mut conn,
            "SELECT LAST_INSERT_ID(), @@time_zone FROM t LIMIT 1 FOR UPDATE",
        )
        .await;
        conn.exec_drop(&statement, (7,)).await.unwrap();
        (last, zone, conn)
    });
    let mut waiting = JoinSet::new();
    for number in 0..10 {
        let mut conn = rig.connect().await;
        waiting.spawn(async move {
            conn.query_drop(format!("INSERT INTO test.d VALUES ({number})"))
                .await
                .unwrap();
        });
    }
    let next = promote(&rig).await;
    let (last, zone, conn) = held.await.unwrap();
    assert_eq!((last, &*zone, conn.id()), (1, "+05:00", id));
    waiting.join_all().await;
    assert_eq!(
        next.first::<u64>("SELECT COUNT(*) FROM test.d")
            .await
            .unwrap(),
        13
    );
    assert_eq!(
        next.first::<u64>("SELECT COUNT(*) FROM test.t")
            .await
            .unwrap(),
        3
    );
}

fn close(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MariaDb => "SET GLOBAL read_only = 1",
        Flavor::MySql => "SET GLOBAL super_read_only = 1",
    }
}

fn open(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MariaDb => "SET GLOBAL read_only = 0",
        Flavor::MySql => "SET GLOBAL super_read_only = 0; SET GLOBAL read_only = 0",
    }
}

async fn what_a_read_only_primary_refuses(flavor: Flavor) {
    let rig = rig(flavor).await;
    let primary = rig.cluster.primary();
    let refused = || rig.proxy.log().matches("statement refused").count();
    let mut rounds = 0;
    // The monitor may know of it sooner.
    while refused() < 6 {
        let mut running = Vec::new();
        let mut conns = Vec::new();
        for _ in 0..3 {
            conns.push(rig.connect().await);
        }
        primary.run(close(flavor)).await.unwrap();
        for (conn, sql) in conns.into_iter().zip([
            "INSERT INTO test.t (n) VALUES (1)",
            "prepared: INSERT INTO test.t (n) VALUES (2)",
            "CREATE TABLE IF NOT EXISTS test.made (n INT)",
        ]) {
            running.push(start(conn, sql));
        }
        eventually("the monitor to know", async || {
            rig.proxy.log().matches("primary takes no writes").count() > rounds
        })
        .await;
        assert!(running.iter().all(|running| !running.is_finished()));
        primary.run(open(flavor)).await.unwrap();
        for running in running {
            running.await.unwrap().0.unwrap();
        }
        rounds += 1;
    }
    let count = 2 * rounds as u64;
    assert_eq!(
        primary
            .first::<u64>("SELECT COUNT(*) FROM test.t")
            .await
            .unwrap(),
        count
    );
    // Until a client is told that it was not executed.
    let hasty = Options {
        sections: "[limits]\nhold = \"500ms\"\n".to_owned(),
        ..Options::default()
    };
    let hasty = support::Proxy::start(&rig.cluster, &hasty).await;
    let mut conn = hasty.connect().await;
    primary.run(close(flavor)).await.unwrap();
    for _ in 0..2 {
        let refused = told(conn.query_drop("INSERT INTO test.t (n) VALUES (3)").await);
        assert_eq!(refused, is(1290, "HY000"));
    }
    primary.run(open(flavor)).await.unwrap();
    conn.query_drop("INSERT INTO test.t (n) VALUES (4)")
        .await
        .unwrap();
    // What servers refuse for other reasons is the client's to know.
    let only_reads = match flavor {
        Flavor::MariaDb => "SET SESSION tx_read_only = 1",
        Flavor::MySql => "SET SESSION transaction_read_only = 1",
    };
    conn.query_drop(only_reads).await.unwrap();
    let refused = told(conn.query_drop("INSERT INTO test.t (n) VALUES (5)").await);
    assert_eq!(refused, is(1792, "25006"));
}

async fn a_transaction_on_a_primary_that_is_closed(flavor: Flavor) {
    let rig = rig(flavor).await;
    let primary = rig.cluster.primary();
    let mut commits = in_transaction(&rig).await;
    let mut writes = rig.connect().await;
    writes.query_drop("START TRANSACTION").await.unwrap();
    writes.query_drop("SELECT * FROM test.d").await.unwrap();
    primary.run(close(flavor)).await.unwrap();
    assert_eq!(told(commits.query_drop("COMMIT").await), is(1213, "40001"));
    let insert = "INSERT INTO test.t (n) VALUES (1)";
    assert_eq!(told(writes.query_drop(insert).await), is(1213, "40001"));
    primary.run(open(flavor)).await.unwrap();
    for conn in [&mut commits, &mut writes] {
        conn.query_drop(insert).await.unwrap();
    }
    assert_eq!(
        primary
            .first::<u64>("SELECT COUNT(*) FROM test.t")
            .await
            .unwrap(),
        2
    );
    // A transaction on a server that is not the primary any more ends before it can commit anything there.
    let mut open = in_transaction(&rig).await;
    let mut pinned = rig.connect().await;
    pinned
        .query_drop("DO GET_LOCK('outcomes', 1)")
        .await
        .unwrap();
    rig.cluster
        .switch_primary(primary, &rig.cluster.replicas()[0])
        .await
        .unwrap();
    eventually("the new primary to be known", async || {
        rig.proxy.log().contains("db2 is the primary")
            || one::<String>(&mut commits, "SELECT name FROM test.where_am_i FOR UPDATE").await
                == "db2"
    })
    .await;
    assert_eq!(told(open.query_drop("COMMIT").await), is(1213, "40001"));
    assert_eq!(told(pinned.query_drop("SELECT 1").await), is(2013, "08S01"));
    pinned.query_drop("SELECT 1").await.unwrap();
}

async fn reads_go_on_without_a_primary(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut wrote = rig.connect().await;
    wrote
        .query_drop("INSERT INTO test.t (n) VALUES (1)")
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let mut prepares = rig.connect().await;
    let statement = prepares.prep("SELECT COUNT(*) FROM test.t").await.unwrap();
    let mut state = rig.connect().await;
    state
        .query_drop("SET SESSION time_zone = '+05:00'")
        .await
        .unwrap();
    rig.cluster.primary().kill9();
    for _ in 0..50 {
        assert_eq!(
            one::<u64>(&mut wrote, "SELECT COUNT(*) FROM test.t").await,
            1
        );
        assert_ne!(whereabouts(&mut wrote).await, "db1");
        let count: Option<u64> = prepares.exec_first(&statement, ()).await.unwrap();
        assert_eq!(count, Some(1));
        assert_eq!(
            one::<String>(&mut state, "SELECT @@time_zone FROM test.where_am_i").await,
            "+05:00"
        );
    }
    promote(&rig).await;
    wrote
        .query_drop("INSERT INTO test.t (n) VALUES (2)")
        .await
        .unwrap();
    assert_eq!(
        one::<u64>(&mut wrote, "SELECT COUNT(*) FROM test.t").await,
        2
    );
}
