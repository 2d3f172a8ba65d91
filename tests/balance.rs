//! Which of several replicas answers a read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeSet;

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use support::{Options, Rig, WHERE, eventually, one, whereabouts};

on_both_flavors!(
    a_second_replica_is_asked_when_the_first_takes_long,
    sticky_sessions_stay_with_their_replica,
);

async fn rig(flavor: Flavor, cluster: &str) -> Rig {
    let options = Options {
        cluster: format!("monotonic_reads = \"off\"\n{cluster}"),
        ..Options::default()
    };
    Rig::start(flavor, 2, &options).await
}

async fn a_second_replica_is_asked_when_the_first_takes_long(flavor: Flavor) {
    let rig = rig(flavor, "balance = \"round-robin\"\nhedged_reads = 1.0\n").await;
    let mut conn = rig.connect().await;
    let mut seen = BTreeSet::new();
    // So that it is known what is long.
    for _ in 0..100 {
        seen.insert(whereabouts(&mut conn).await);
    }
    assert_eq!(seen, BTreeSet::from(["db2".to_owned(), "db3".to_owned()]));

    let slow = &rig.cluster.replicas()[0];
    let mut locker = slow.connect().await.unwrap();
    if flavor == Flavor::MySql {
        // It stays read-only for everybody else.
        locker
            .query_drop("SET GLOBAL super_read_only = 0")
            .await
            .unwrap();
    }
    locker
        .query_drop("LOCK TABLES test.where_am_i WRITE")
        .await
        .unwrap();
    for prepared in [false, true] {
        for _ in 0..10 {
            let name: Option<String> = match prepared {
                false => conn.query_first(WHERE).await.unwrap(),
                true => conn.exec_first(WHERE, ()).await.unwrap(),
            };
            assert_eq!(name.as_deref(), Some("db3"), "while db2 does not answer");
        }
    }
    // What the slow one was asked is not left there.
    let waiting =
        format!("SELECT COUNT(*) FROM information_schema.processlist WHERE info = '{WHERE}'");
    eventually("the slower reads to be ended", async || {
        one::<u64>(&mut locker, &waiting).await == 0
    })
    .await;
    locker.query_drop("UNLOCK TABLES").await.unwrap();
    eventually("the slow replica to serve again", async || {
        whereabouts(&mut conn).await == "db2"
    })
    .await;
}

async fn sticky_sessions_stay_with_their_replica(flavor: Flavor) {
    let rig = rig(flavor, "balance = \"sticky\"\n").await;
    let mut servers = BTreeSet::new();
    let mut conns: Vec<Conn> = Vec::new();
    for _ in 0..32 {
        conns.push(rig.connect().await);
    }
    for conn in &mut conns {
        let first = whereabouts(conn).await;
        for _ in 0..10 {
            assert_eq!(whereabouts(conn).await, first);
        }
        servers.insert(first);
    }
    assert_eq!(
        servers,
        BTreeSet::from(["db2".to_owned(), "db3".to_owned()])
    );
}
