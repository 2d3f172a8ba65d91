//! What reads must see: their scope's writes, waited for on replicas, and nothing older than what was read before.
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

use support::{Options, Proxy, Rig, error_of, eventually, login, one};

on_both_flavors!(
    a_read_waits_for_the_replica,
    every_kind_of_position_is_waited_for,
    what_comes_too_late_is_read_from_the_primary,
    each_scope_sees_its_own_writes,
    positions_are_handed_on,
    nobody_reads_anything_older_than_before,
    who_reads_from_the_primary_for_long_leaves_it_again,
);

/// Where it ran, and how many rows it saw.
const COUNT: &str = "SELECT name, (SELECT COUNT(*) FROM test.t) FROM test.where_am_i";
const INSERT: &str = "INSERT INTO test.t VALUES ()";

async fn rig(flavor: Flavor, cluster: &str) -> Rig {
    let options = Options {
        cluster: format!("max_lag = \"1h\"\n{cluster}"),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 2, &options).await;
    let table = "CREATE TABLE test.t (id INT AUTO_INCREMENT PRIMARY KEY)";
    rig.cluster.primary().run(table).await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    rig
}

/// From here on until they are dropped the replicas apply nothing, and answer reads all the same.
async fn freeze(rig: &Rig) -> Vec<Conn> {
    rig.cluster.caught_up().await.unwrap();
    let mut locks = Vec::new();
    for replica in rig.cluster.replicas() {
        let mut conn = replica.connect().await.unwrap();
        run(&mut conn, "FLUSH TABLES WITH READ LOCK").await;
        locks.push(conn);
    }
    locks
}

async fn connect(options: &OptsBuilder) -> Conn {
    Conn::new(options.clone()).await.unwrap()
}

async fn run(conn: &mut Conn, sql: &str) {
    let ran = conn.query_drop(sql).await;
    ran.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Whether a replica answers, and how many rows it shows.
async fn count(conn: &mut Conn) -> (bool, u64) {
    let (name, count): (String, u64) = one(conn, COUNT).await;
    (name != "db1", count)
}

async fn reason(conn: &mut Conn, sql: &str) -> String {
    let row: mysql_async::Row = one(conn, &format!("EXPLAIN ROUTE {sql}")).await;
    row.get("Reason").unwrap()
}

async fn a_read_waits_for_the_replica(flavor: Flavor) {
    let rig = rig(flavor, "replica_wait = \"60s\"\n").await;
    let account = rig.account("patient").await;
    let mut writer = connect(&account).await;
    for prepared in [false, true] {
        let before = count(&mut writer).await.1;
        let mut locks = freeze(&rig).await;
        run(&mut writer, INSERT).await;
        let mut reader = connect(&account).await;
        assert_eq!(
            reason(&mut reader, COUNT).await,
            "read: a replica has every write it must see in a moment, and is waited for"
        );
        let read = tokio::spawn(async move {
            let row: Option<(String, u64)> = match prepared {
                false => reader.query_first(COUNT).await.unwrap(),
                true => reader.exec_first(COUNT, ()).await.unwrap(),
            };
            row.unwrap()
        });
        let function = match flavor {
            Flavor::MariaDb => "MASTER_GTID_WAIT",
            Flavor::MySql => "WAIT_FOR_EXECUTED_GTID_SET",
        };
        // Seen by the connections that hold the locks: others might be held up by them.
        eventually("the read to wait on a replica", async || {
            let waiting = format!(
                "SELECT COUNT(*) FROM information_schema.processlist \
                 WHERE info LIKE 'SELECT {function}%' AND id <> CONNECTION_ID()"
            );
            let mut waits = 0;
            for lock in &mut locks {
                waits += one::<u64>(lock, &waiting).await;
            }
            waits == 1
        })
        .await;
        assert!(!read.is_finished());
        drop(locks);
        let (name, seen) = read.await.unwrap();
        assert_ne!(name, "db1");
        assert_eq!(seen, before + 1);
        // What was found out holds for the next one.
        let mut next = connect(&account).await;
        assert_eq!(count(&mut next).await, (true, before + 1));
    }
}

/// Transactions of several domains (MariaDB), and of a tag (MySQL).
async fn every_kind_of_position_is_waited_for(flavor: Flavor) {
    let rig = rig(flavor, "replica_wait = \"60s\"\n").await;
    let account = rig.account("numbered").await;
    let (grant, set, unset) = match flavor {
        Flavor::MariaDb => (
            "GRANT BINLOG REPLAY ON *.* TO numbered@'%'",
            "SET SESSION gtid_domain_id = 7",
            "SET SESSION gtid_domain_id = 0",
        ),
        Flavor::MySql => (
            "GRANT TRANSACTION_GTID_TAG, REPLICATION_APPLIER ON *.* TO numbered@'%'",
            "SET SESSION gtid_next = 'AUTOMATIC:shop'",
            "SET SESSION gtid_next = 'AUTOMATIC'",
        ),
    };
    rig.cluster.primary().run(grant).await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    let mut writer = connect(&account).await;
    let mut reader = connect(&account).await;
    for round in 1..=3 {
        let locks = freeze(&rig).await;
        run(&mut writer, set).await;
        run(&mut writer, INSERT).await;
        run(&mut writer, unset).await;
        run(&mut writer, INSERT).await;
        let position: String = one(&mut reader, "SELECT @@dbproxy_position").await;
        let special = match flavor {
            Flavor::MariaDb => position.split(',').any(|gtid| gtid.starts_with("7-")),
            Flavor::MySql => position.contains(":shop:"),
        };
        assert!(special, "{position}");
        let read = tokio::spawn(async move {
            let seen = count(&mut reader).await;
            (seen, reader)
        });
        drop(locks);
        let seen;
        (seen, reader) = read.await.unwrap();
        assert_eq!(seen, (true, 2 * round));
    }
}

async fn what_comes_too_late_is_read_from_the_primary(flavor: Flavor) {
    let rig = rig(flavor, "replica_wait = \"50ms\"\n").await;
    let account = rig.account("hurried").await;
    let mut conn = connect(&account).await;
    let locks = freeze(&rig).await;
    for written in 1..=20 {
        run(&mut conn, INSERT).await;
        assert_eq!(count(&mut conn).await, (false, written));
        let row: Option<(String, u64)> = conn.exec_first(COUNT, ()).await.unwrap();
        assert_eq!(row.unwrap(), ("db1".to_owned(), written));
        // Several results, of which none is another statement's.
        let rows: Vec<u64> = conn
            .query("SELECT id FROM test.t ORDER BY id")
            .await
            .unwrap();
        assert_eq!(rows.len() as u64, written);
    }
    drop(locks);
    eventually("replicas to serve the account again", async || {
        let (on_replica, seen) = count(&mut conn).await;
        assert_eq!(seen, 20);
        on_replica
    })
    .await;
    // A session may have more patience than the configuration, or none.
    let locks = freeze(&rig).await;
    run(&mut conn, INSERT).await;
    run(&mut conn, "ROUTER SET wait_for_my_writes_timeout = 0").await;
    assert_eq!(count(&mut conn).await, (false, 21));
    assert!(
        reason(&mut conn, COUNT)
            .await
            .contains("no replica is fresh")
    );
    run(&mut conn, "ROUTER SET wait_for_my_writes_timeout = 3600").await;
    eventually("the failed waits to be over", async || {
        reason(&mut conn, COUNT).await.contains("in a moment")
    })
    .await;
    drop(locks);
    assert_eq!(count(&mut conn).await, (true, 21));
}

async fn each_scope_sees_its_own_writes(flavor: Flavor) {
    let off = "replica_wait = \"0s\"\nmonotonic_reads = \"off\"\n";
    let rig = rig(flavor, off).await;
    let account = rig.account("scoped").await;
    let (mut writer, mut sibling) = (connect(&account).await, connect(&account).await);
    let mut stranger = connect(&rig.account("stranger").await).await;
    // What everyone writes is counted from when somebody first asks for it.
    run(&mut stranger, "SET @dbproxy_consistency = 'global'").await;
    count(&mut stranger).await;
    let mut visitor = connect(&account).await;
    let mut same_visitor = connect(&account).await;
    let mut other_visitor = connect(&account).await;
    run(&mut visitor, "SET @dbproxy_session = 'visitor 1'").await;
    run(&mut same_visitor, "SET @dbproxy_session = 'visitor 1'").await;
    run(&mut other_visitor, "SET @dbproxy_session = 'visitor 2'").await;
    for conn in [&mut writer, &mut sibling] {
        run(conn, "SET @dbproxy_consistency = 'connection'").await;
        count(conn).await;
    }
    let locks = freeze(&rig).await;
    eventually("what was written before to be everywhere", async || {
        count(&mut stranger).await.0 && count(&mut sibling).await.0
    })
    .await;

    run(&mut writer, INSERT).await;
    assert_eq!(count(&mut writer).await, (false, 1), "its own write");
    assert_eq!(count(&mut sibling).await, (true, 0), "another connection's");
    assert_eq!(count(&mut stranger).await, (false, 1), "anybody's");
    run(&mut stranger, "SET @dbproxy_consistency = 'user'").await;
    assert_eq!(count(&mut stranger).await, (true, 0), "another account's");
    let as_user = format!("/* dbproxy: consistency=user */ {COUNT}");
    let (name, _): (String, u64) = one(&mut sibling, &as_user).await;
    assert_eq!(name, "db1", "its account's");
    let globally = format!("/* dbproxy: consistency=global */ {COUNT}");
    let (name, _): (String, u64) = one(&mut stranger, &globally).await;
    assert_eq!(name, "db1", "anybody's");

    // Of a visitor without writes nobody else's count.
    for conn in [&mut visitor, &mut same_visitor, &mut other_visitor] {
        assert_eq!(count(conn).await, (true, 0));
    }
    run(&mut visitor, INSERT).await;
    assert_eq!(count(&mut visitor).await, (false, 2));
    assert_eq!(count(&mut same_visitor).await, (false, 2));
    assert_eq!(count(&mut other_visitor).await, (true, 0));
    run(&mut other_visitor, "SET @dbproxy_session = NULL").await;
    assert_eq!(count(&mut other_visitor).await, (false, 2), "its account's");
    // A pool's next user is another visitor.
    same_visitor.reset().await.unwrap();
    run(&mut same_visitor, "SET @dbproxy_session = 'visitor 3'").await;
    assert_eq!(
        count(&mut same_visitor).await,
        (false, 2),
        "begins with its account's"
    );
    drop(locks);
}

async fn positions_are_handed_on(flavor: Flavor) {
    let off = "replica_wait = \"0s\"\nmonotonic_reads = \"off\"\n";
    let rig = rig(flavor, off).await;
    let options = Options {
        cluster: format!("max_lag = \"1h\"\n{off}"),
        ..Options::default()
    };
    let second = Proxy::start(&rig.cluster, &options).await;
    second.knows_replicas(2).await;
    let mut writer = connect(&rig.account("handing").await).await;
    let mut third = connect(&rig.account("third").await).await;
    let mut fourth = connect(&rig.account("fourth").await).await;
    // The same account there, which knows nothing of what was written here.
    let there = login(second.port(), "handing", "handing");
    let mut reader = connect(&there).await;
    let locks = freeze(&rig).await;
    run(&mut writer, INSERT).await;
    assert_eq!(count(&mut reader).await, (true, 0));
    let position: String = one(&mut writer, "SELECT @@dbproxy_position").await;
    run(
        &mut reader,
        &format!("SET @dbproxy_position = '{position}'"),
    )
    .await;
    assert_eq!(count(&mut reader).await, (false, 1));
    // Of that session alone.
    assert_eq!(count(&mut connect(&there).await).await, (true, 0));
    // Handed on once more, together with what was written itself.
    run(&mut reader, INSERT).await;
    let both: Option<mysql_async::Row> = reader
        .query_first("SELECT @@dbproxy_position AS position")
        .await
        .unwrap();
    let both: String = both.unwrap().get("position").unwrap();
    run(&mut third, &format!("SET @dbproxy_position = '{both}'")).await;
    assert_eq!(count(&mut third).await, (false, 2));
    // Nothing written is no position, and to take that in is no mistake.
    let nothing: String = one(&mut fourth, "SELECT @@dbproxy_position").await;
    assert_eq!(nothing, "");
    run(&mut fourth, "SET @dbproxy_position = ''").await;
    assert_eq!(count(&mut fourth).await, (true, 0));
    assert_eq!(
        error_of(&mut fourth, "SET @dbproxy_position = 'x'").await,
        1231
    );
    drop(locks);
    eventually("replicas to serve who brought a position", async || {
        count(&mut third).await == (true, 2)
    })
    .await;
}

async fn nobody_reads_anything_older_than_before(flavor: Flavor) {
    let rig = rig(flavor, "replica_wait = \"0s\"\n").await;
    let mut conn = connect(&rig.account("steady").await).await;
    let mut told = connect(&rig.account("told").await).await;
    let mut free = connect(&rig.account("free").await).await;
    run(&mut free, "SET @dbproxy_consistency = 'eventual'").await;
    let account = rig.account("visited").await;
    let (mut visitor, mut again) = (connect(&account).await, connect(&account).await);
    for conn in [&mut visitor, &mut again] {
        run(conn, "SET @dbproxy_session = 'v'").await;
    }
    let locks = freeze(&rig).await;
    // Somebody else's write, which went past the proxy.
    rig.cluster.primary().run(INSERT).await.unwrap();
    assert_eq!(count(&mut conn).await, (true, 0), "nobody has seen it yet");
    // Who is told of it by a write that fails has seen it as well.
    assert_eq!(
        error_of(&mut told, "INSERT INTO test.t VALUES (1)").await,
        1062
    );
    assert_eq!(count(&mut told).await, (false, 1));
    let newest = format!("/* dbproxy: primary */ {COUNT}");
    for conn in [&mut conn, &mut free, &mut visitor] {
        let (_, seen): (String, u64) = one(conn, &newest).await;
        assert_eq!(seen, 1);
    }
    // It is seen for good, on whichever connection of the key.
    for _ in 0..20 {
        assert_eq!(count(&mut conn).await, (false, 1));
        assert_eq!(count(&mut again).await, (false, 1));
        assert_eq!(count(&mut free).await, (true, 0), "who asks for nothing");
    }
    drop(locks);
    for conn in [&mut conn, &mut again] {
        eventually("replicas to serve it again", async || {
            let (on_replica, seen) = count(conn).await;
            assert_eq!(seen, 1);
            on_replica
        })
        .await;
    }
}

async fn who_reads_from_the_primary_for_long_leaves_it_again(flavor: Flavor) {
    let rig = rig(flavor, "replica_wait = \"10s\"\n").await;
    let mut conn = connect(&rig.account("busy").await).await;
    // Others write all the time, so that no look at the servers finds a replica that has all.
    let port = rig.cluster.primary().port();
    let writer = tokio::spawn(async move {
        let mut writer = Conn::new(support::application(port)).await.unwrap();
        loop {
            run(&mut writer, INSERT).await;
        }
    });
    let newest = format!("/* dbproxy: primary */ {COUNT}");
    let (_, mut last): (String, u64) = one(&mut conn, &newest).await;
    let mut served = 0;
    eventually("a replica to serve who never stops reading", async || {
        let (on_replica, seen) = count(&mut conn).await;
        assert!(seen >= last, "{seen} after {last}");
        last = seen;
        served += u32::from(on_replica);
        served > 50
    })
    .await;
    writer.abort();
}
