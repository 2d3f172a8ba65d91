//! Which server runs which statement, seen in the servers' own logs, and what every reader may rely on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use dbproxy::cli::demo::cluster::{Flavor, ServerProcess};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row};

use support::{Options, Rig, WHERE, error_of, eventually, login, one, whereabouts};

on_both_flavors!(
    statements_reach_the_right_server,
    the_state_of_the_session_is_carried,
    everybody_reads_what_he_wrote,
    writes_of_every_kind_are_seen_while_replicas_hang_behind,
    reads_are_spread_over_the_replicas,
    a_replica_that_falls_behind_gets_no_reads,
    roles_are_followed,
    two_writable_servers_are_one_primary,
    sessions_say_where_statements_go,
    sessions_choose_their_consistency,
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Primary,
    Replica,
}

use Place::{Primary, Replica};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As text only: it cannot be prepared.
    Text,
    /// As text and prepared.
    Any,
}

use Form::{Any, Text};

/// A statement, what runs before it on the same connection, and where it belongs. `{s}` is the schema.
type Case = (Place, Form, &'static [&'static str], &'static str);

const CASES: &[Case] = &[
    (Replica, Any, &[], "SELECT name FROM test.where_am_i"),
    (
        Replica,
        Any,
        &[],
        "select NAME from test.where_am_i where name <> ''",
    ),
    (
        Replica,
        Any,
        &[],
        "/* a comment */ SELECT name FROM test.where_am_i",
    ),
    (
        Replica,
        Any,
        &[],
        "-- a comment\nSELECT name FROM test.where_am_i",
    ),
    (
        Replica,
        Any,
        &[],
        "# a comment\n  SELECT name FROM test.where_am_i",
    ),
    (
        Replica,
        Any,
        &[],
        "SELECT COUNT(*), MAX(name) FROM test.where_am_i GROUP BY LENGTH(name) HAVING COUNT(*) > 0",
    ),
    (
        Replica,
        Any,
        &[],
        "SELECT a.name FROM test.where_am_i a JOIN test.where_am_i b ON a.name = b.name ORDER BY 1 LIMIT 5",
    ),
    (
        Replica,
        Any,
        &[],
        "SELECT name FROM test.where_am_i WHERE name IN (SELECT name FROM test.where_am_i)",
    ),
    (
        Replica,
        Any,
        &[],
        "SELECT name FROM test.where_am_i UNION ALL SELECT 'x'",
    ),
    (
        Replica,
        Any,
        &[],
        "(SELECT name FROM test.where_am_i) UNION (SELECT 'y')",
    ),
    (
        Replica,
        Any,
        &[],
        "SELECT * FROM (SELECT name FROM test.where_am_i) inside_parentheses",
    ),
    (
        Replica,
        Any,
        &[],
        "WITH c AS (SELECT name FROM test.where_am_i) SELECT * FROM c",
    ),
    (
        Replica,
        Any,
        &[],
        "SELECT 'INSERT INTO x', 'FOR UPDATE', name FROM test.where_am_i",
    ),
    (
        Replica,
        Any,
        &[],
        "SELECT name AS `for update` FROM test.where_am_i",
    ),
    (
        Replica,
        Any,
        &[],
        "SELECT UPPER(name), CONCAT(name, 'x'), COALESCE(name, 1) FROM test.where_am_i",
    ),
    (
        Replica,
        Any,
        &["SET NAMES utf8mb4"],
        "SELECT name FROM test.where_am_i",
    ),
    (
        Replica,
        Any,
        &["SET SESSION sql_mode = 'TRADITIONAL'"],
        "SELECT name FROM test.where_am_i",
    ),
    (
        Replica,
        Any,
        &["SET time_zone = '+01:00'"],
        "SELECT name FROM test.where_am_i",
    ),
    (
        Replica,
        Any,
        &["SET autocommit = 1"],
        "SELECT name FROM test.where_am_i",
    ),
    (Replica, Any, &["USE test"], "SELECT name FROM where_am_i"),
    (
        Replica,
        Any,
        &["START TRANSACTION", "COMMIT"],
        "SELECT name FROM test.where_am_i",
    ),
    (
        Replica,
        Text,
        &[],
        "SELECT name FROM test.where_am_i; SELECT 1",
    ),
    (Primary, Any, &[], "INSERT INTO {s}.t (a) VALUES (1)"),
    (Primary, Any, &[], "insert into {s}.t (a) select 2"),
    (
        Primary,
        Any,
        &[],
        "/* SELECT */ INSERT INTO {s}.t (a) VALUES (3)",
    ),
    (Primary, Any, &[], "REPLACE INTO {s}.t (a) VALUES (4)"),
    (Primary, Any, &[], "UPDATE {s}.t SET a = 5 WHERE a = 1"),
    (Primary, Any, &[], "DELETE FROM {s}.t WHERE a = 5"),
    (Primary, Any, &[], "CREATE TABLE {s}.made_{n} (a INT)"),
    (Primary, Any, &[], "ALTER TABLE {s}.t COMMENT 'altered'"),
    (Primary, Any, &[], "TRUNCATE TABLE {s}.u"),
    (Primary, Any, &[], "DROP TABLE IF EXISTS {s}.none"),
    (Primary, Text, &[], "LOCK TABLES {s}.t READ"),
    (Primary, Any, &[], "FLUSH TABLES"),
    (Primary, Any, &[], "ANALYZE TABLE {s}.t"),
    (Primary, Any, &[], "CALL {s}.p()"),
    (Primary, Any, &[], "DO SLEEP(0)"),
    (Primary, Any, &[], "SELECT {s}.writes()"),
    (Primary, Any, &[], "SELECT a FROM {s}.t FOR UPDATE"),
    (Primary, Any, &[], "SELECT a FROM {s}.t LOCK IN SHARE MODE"),
    (
        Primary,
        Any,
        &[],
        "SELECT a FROM {s}.t /* c */ FOR\n/* d */ UPDATE",
    ),
    (Primary, Any, &[], "(SELECT a FROM {s}.t FOR UPDATE)"),
    (
        Primary,
        Any,
        &[],
        "SELECT * FROM (SELECT a FROM {s}.t FOR UPDATE) x",
    ),
    (Primary, Any, &[], "SELECT 1 INTO @x"),
    (Primary, Any, &[], "SELECT @x := 5"),
    (
        Primary,
        Any,
        &["SET @x = 4"],
        "SELECT @x, name FROM test.where_am_i",
    ),
    (Primary, Any, &[], "SELECT @@server_id"),
    (Primary, Any, &[], "SELECT LAST_INSERT_ID()"),
    (Primary, Any, &[], "SELECT GET_LOCK('routing', 0)"),
    (Primary, Any, &[], "SELECT IS_FREE_LOCK('routing')"),
    (
        Replica,
        Any,
        &["SELECT SQL_CALC_FOUND_ROWS name FROM test.where_am_i LIMIT 1"],
        "SELECT FOUND_ROWS()",
    ),
    (
        Primary,
        Any,
        &["SELECT SQL_CALC_FOUND_ROWS a FROM {s}.t LIMIT 1 FOR UPDATE"],
        "SELECT FOUND_ROWS()",
    ),
    (
        Primary,
        Any,
        &["INSERT INTO {s}.t (a) VALUES (6)"],
        "SELECT ROW_COUNT()",
    ),
    (
        Primary,
        Any,
        &["START TRANSACTION"],
        "SELECT name FROM test.where_am_i",
    ),
    (
        Primary,
        Any,
        &["BEGIN", "INSERT INTO {s}.t (a) VALUES (7)"],
        "SELECT name FROM test.where_am_i",
    ),
    (
        Primary,
        Any,
        &["SET autocommit = 0"],
        "SELECT name FROM test.where_am_i",
    ),
    (
        Primary,
        Any,
        &["CREATE TEMPORARY TABLE {s}.mine (a INT)"],
        "SELECT * FROM {s}.mine",
    ),
    (
        Primary,
        Any,
        &["CREATE TEMPORARY TABLE {s}.mine (a INT)"],
        "SELECT name FROM test.where_am_i",
    ),
    (
        Primary,
        Any,
        &["SELECT GET_LOCK('routing_2', 0)"],
        "SELECT name FROM test.where_am_i",
    ),
    (
        Primary,
        Text,
        &[],
        "SELECT name FROM test.where_am_i; INSERT INTO {s}.t (a) VALUES (8)",
    ),
    (
        Primary,
        Text,
        &[],
        "INSERT INTO {s}.t (a) VALUES (9); SELECT name FROM test.where_am_i",
    ),
    (
        Primary,
        Any,
        &[],
        "SELECT /*!40000 SQL_NO_CACHE */ a FROM {s}.t /*!40000 FOR UPDATE */",
    ),
    (
        Primary,
        Any,
        &[],
        "/* dbproxy: primary */ SELECT name FROM test.where_am_i",
    ),
    (
        Primary,
        Any,
        &[],
        "/* dbproxy: replica */ INSERT INTO {s}.t (a) VALUES (10)",
    ),
    (Primary, Any, &[], "CREATE VIEW {s}.seen_{n} AS SELECT 1"),
];

const MARIADB_CASES: &[Case] = &[
    (Primary, Any, &[], "SELECT NEXTVAL({s}.q)"),
    (Primary, Any, &[], "SELECT NEXT VALUE FOR {s}.q"),
    (
        Primary,
        Any,
        &[],
        "INSERT INTO {s}.t (a) VALUES (11) RETURNING a",
    ),
    (Primary, Any, &[], "SELECT a FROM {s}.t /*M! FOR UPDATE */"),
];

const MYSQL_CASES: &[Case] = &[
    (Primary, Any, &[], "SELECT a FROM {s}.t FOR SHARE"),
    (
        Primary,
        Any,
        &[],
        "SELECT a FROM {s}.t FOR UPDATE SKIP LOCKED",
    ),
    (
        Primary,
        Any,
        &[],
        "WITH c AS (SELECT a FROM {s}.t) UPDATE {s}.t SET a = 12 WHERE a IN (SELECT a FROM c)",
    ),
    (Replica, Any, &[], "TABLE test.where_am_i"),
];

async fn statements_reach_the_right_server(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("routing_statements").await;
    let primary = rig.cluster.primary();
    primary
        .run(&format!(
            "CREATE TABLE {schema}.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT); CREATE TABLE {schema}.u (a INT)"
        ))
        .await
        .unwrap();
    let mut direct = primary.connect().await.unwrap();
    for sql in [
        format!("CREATE PROCEDURE {schema}.p () INSERT INTO {schema}.t (a) VALUES (20)"),
        format!(
            "CREATE FUNCTION {schema}.writes () RETURNS INT MODIFIES SQL DATA \
             BEGIN INSERT INTO {schema}.t (a) VALUES (21); RETURN 1; END"
        ),
    ] {
        direct.query_drop(sql).await.unwrap();
    }
    if flavor == Flavor::MariaDb {
        direct
            .query_drop(format!("CREATE SEQUENCE {schema}.q"))
            .await
            .unwrap();
    }
    for server in rig.cluster.servers() {
        server.run("SET GLOBAL general_log = 1").await.unwrap();
    }
    let reader = rig.account("routing_reader").await;
    let writer = rig.account("routing_writer").await;
    let own = match flavor {
        Flavor::MariaDb => MARIADB_CASES,
        Flavor::MySql => MYSQL_CASES,
    };
    let mut wrong = Vec::new();
    // Reads first: after its own writes an account has a reason to read from the primary.
    for wanted in [Replica, Primary] {
        let account = if wanted == Replica { &reader } else { &writer };
        let cases = CASES
            .iter()
            .chain(own)
            .enumerate()
            .filter(|(_, case)| case.0 == wanted);
        for (number, (_, form, before, sql)) in cases {
            for prepared in [false, true] {
                if prepared && *form == Text {
                    continue;
                }
                let marker = format!("case_{number}_{prepared}");
                let fill = |sql: &str| sql.replace("{s}", &schema).replace("{n}", &marker);
                let mut conn = Conn::new(account.clone()).await.unwrap();
                for sql in *before {
                    conn.query_drop(fill(sql))
                        .await
                        .unwrap_or_else(|error| panic!("{sql}: {error}"));
                }
                let sql = format!("{} /* {marker} */", fill(sql));
                let result = if prepared {
                    conn.exec_drop(&*sql, ()).await
                } else {
                    conn.query_drop(&*sql).await
                };
                result.unwrap_or_else(|error| panic!("{sql}: {error}"));
                let ran = ran_on(rig, &marker, prepared);
                let right = match wanted {
                    Primary => ran == ["db1"],
                    Replica => ran.len() == 1 && ran != ["db1"],
                };
                if !right {
                    wrong.push(format!(
                        "{sql}{}: {ran:?}",
                        if prepared { " (prepared)" } else { "" }
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "on the wrong servers:\n{}",
        wrong.join("\n")
    );
}

/// The servers that were asked by this test's accounts to run a statement with the marker.
fn ran_on<'a>(rig: &'a Rig, marker: &str, prepared: bool) -> Vec<&'a str> {
    let action = if prepared { "Execute" } else { "Query" };
    let ran = |server: &&ServerProcess| {
        // Replicas log what replication runs as well, on connections that nobody opened.
        let mut ours = BTreeSet::new();
        let mut current = false;
        server.statements().lines().any(|line| {
            if let Some((connection, did, text)) = event(line) {
                if ["Connect", "Change user"].contains(&did) && text.starts_with("routing_") {
                    ours.insert(connection.to_owned());
                }
                current = did == action && ours.contains(connection);
            }
            // A statement may go on over several lines.
            current && line.contains(&format!("/* {marker} */"))
        })
    };
    rig.cluster
        .servers()
        .iter()
        .filter(ran)
        .map(ServerProcess::name)
        .collect()
}

/// The connection's number, what happened, and the text, of a line of a general log that starts an event.
fn event(line: &str) -> Option<(&str, &str, &str)> {
    // The time comes first, or nothing where it is the same as before; both end with a tab.
    let (_, rest) = line.split_once('\t')?;
    let (front, text) = rest.trim_start_matches(['\t', ' ']).split_once('\t')?;
    let (connection, did) = front.split_once(' ')?;
    let numeric = connection.bytes().all(|byte| byte.is_ascii_digit());
    numeric.then_some((connection, did, text))
}

async fn the_state_of_the_session_is_carried(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let account = rig.account("routing_state").await;
    let checks: &[(&str, &str, &str)] = &[
        ("SET NAMES latin1", "CHARSET('x')", "latin1"),
        (
            "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
            "COLLATION('x')",
            "utf8mb4_bin",
        ),
        (
            "SET time_zone = '+03:00'",
            "FROM_UNIXTIME(0)",
            "1970-01-01 03:00:00",
        ),
        (
            "SET SESSION sql_mode = 'PIPES_AS_CONCAT'",
            "'a' || 'b'",
            "ab",
        ),
        ("SET SESSION sql_mode = ''", "'a' || 'b'", "0"),
        (
            "SET @@session.group_concat_max_len = 4",
            "GROUP_CONCAT(CONCAT(name, 'xxxxxx'))",
            "db",
        ),
        (
            "SET lc_time_names = 'de_DE'",
            "DATE_FORMAT('2024-03-01', '%M')",
            "März",
        ),
        ("SET SESSION div_precision_increment = 1", "1 / 3", "0.3"),
        (
            "USE test",
            "(SELECT MAX(LENGTH(name)) FROM where_am_i)",
            "3",
        ),
    ];
    let mut conn = Conn::new(account.clone()).await.unwrap();
    let mut servers = BTreeSet::new();
    for (set, expression, value) in checks {
        conn.query_drop(*set).await.unwrap();
        let sql = format!("SELECT MAX(name), CAST({expression} AS CHAR) FROM test.where_am_i");
        for round in 0..6 {
            let (name, seen): (String, String) = one(&mut conn, &sql).await;
            assert!(
                seen.starts_with(value),
                "{set}, then {expression} on {name}: {seen}"
            );
            // A statement keeps the meaning that it had when it was prepared.
            let sql = format!("{sql} /* {set} {round} */");
            let (name, seen): (String, String) = conn.exec_first(&*sql, ()).await.unwrap().unwrap();
            assert!(
                seen.starts_with(value),
                "{set}, then {expression} prepared on {name}: {seen}"
            );
            servers.insert(name);
        }
        // Another session has its own state, on whichever of the same connections it is served.
        let mut other = Conn::new(account.clone()).await.unwrap();
        let fresh: String = one(
            &mut other,
            "SELECT CAST(FROM_UNIXTIME(0) AS CHAR) FROM test.where_am_i",
        )
        .await;
        let direct: String = one(
            &mut Conn::new(login(rig.cluster.primary().port(), "app", "app"))
                .await
                .unwrap(),
            "SELECT CAST(FROM_UNIXTIME(0) AS CHAR)",
        )
        .await;
        assert_eq!(fresh, direct);
    }
    assert!(
        servers.iter().any(|name| name != "db1"),
        "the state kept the reads on {servers:?}"
    );
    // The primary has the state as well.
    conn.query_drop("SET NAMES latin1").await.unwrap();
    conn.query_drop("SET time_zone = '+04:00'").await.unwrap();
    let row: (String, String, String) = one(
        &mut conn,
        "SELECT @@character_set_client, @@time_zone, @@character_set_results",
    )
    .await;
    assert_eq!(row, ("latin1".into(), "+04:00".into(), "latin1".into()));
}

async fn everybody_reads_what_he_wrote(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("routing_own").await;
    let account = rig.account("routing_own").await;
    let mut writer = Conn::new(account.clone()).await.unwrap();
    let mut reader = Conn::new(account.clone()).await.unwrap();
    writer
        .query_drop(format!(
            "CREATE TABLE {schema}.t (a INT PRIMARY KEY, b INT)"
        ))
        .await
        .unwrap();
    let last = format!("SELECT MAX(a) FROM {schema}.t");
    for number in 0..300_u32 {
        match number % 3 {
            0 => writer
                .query_drop(format!("INSERT INTO {schema}.t VALUES ({number}, 0)"))
                .await
                .unwrap(),
            1 => writer
                .exec_drop(format!("INSERT INTO {schema}.t VALUES (?, 0)"), (number,))
                .await
                .unwrap(),
            _ => {
                writer.query_drop("START TRANSACTION").await.unwrap();
                writer
                    .query_drop(format!("INSERT INTO {schema}.t VALUES ({number}, 0)"))
                    .await
                    .unwrap();
                writer.query_drop("COMMIT").await.unwrap();
            }
        }
        assert_eq!(
            one::<u32>(&mut writer, &last).await,
            number,
            "on the connection that wrote"
        );
        assert_eq!(
            one::<u32>(&mut reader, &last).await,
            number,
            "on another connection"
        );
        if number % 30 == 0 {
            let mut fresh = Conn::new(account.clone()).await.unwrap();
            assert_eq!(
                one::<u32>(&mut fresh, &last).await,
                number,
                "on a new connection"
            );
        }
    }
    eventually("the replicas to serve the writer again", async || {
        whereabouts(&mut reader).await != "db1"
    })
    .await;
    assert_eq!(one::<u32>(&mut reader, &last).await, 299);
}

/// Ways to write the number `{n}` into the table `own.t`, as the statements of one session.
const WRITES: &[&[&str]] = &[
    &["INSERT INTO own.t VALUES ({n})"],
    &["REPLACE INTO own.t VALUES ({n})"],
    &["UPDATE own.t SET n = {n} ORDER BY n DESC LIMIT 1"],
    &[
        "START TRANSACTION",
        "INSERT INTO own.t VALUES ({n})",
        "COMMIT",
    ],
    &[
        "START TRANSACTION",
        "INSERT INTO own.t VALUES ({n})",
        "COMMIT AND CHAIN",
        "ROLLBACK",
    ],
    &[
        "START TRANSACTION",
        "INSERT INTO own.t VALUES ({n})",
        "START TRANSACTION",
        "ROLLBACK",
    ],
    &[
        "START TRANSACTION",
        "INSERT INTO own.t VALUES ({n})",
        "CREATE TABLE own.implicit_{n} (a INT)",
    ],
    &[
        "SET autocommit = 0",
        "INSERT INTO own.t VALUES ({n})",
        "COMMIT",
        "SET autocommit = 1",
    ],
    &[
        "SET autocommit = 0",
        "INSERT INTO own.t VALUES ({n})",
        "SET autocommit = 1",
    ],
    &["CALL own.p({n})"],
    &["SELECT own.f({n})"],
    &["DO own.f({n})"],
    &["SET @n = own.f({n})"],
    &["INSERT INTO own.t VALUES ({n}); SELECT 1"],
    &["SELECT 1; INSERT INTO own.t VALUES ({n})"],
    &["SELECT 1; INSERT INTO own.t VALUES ({n}); SELECT name FROM test.where_am_i"],
    &[
        "PREPARE s FROM 'INSERT INTO own.t VALUES ({n})'",
        "EXECUTE s",
    ],
    &[
        "XA START 'x{n}'",
        "INSERT INTO own.t VALUES ({n})",
        "XA END 'x{n}'",
        "XA COMMIT 'x{n}' ONE PHASE",
    ],
    &[
        "LOCK TABLES own.t WRITE",
        "INSERT INTO own.t VALUES ({n})",
        "UNLOCK TABLES",
    ],
    &[
        "CREATE TEMPORARY TABLE own.mine (a INT)",
        "INSERT INTO own.t VALUES ({n})",
    ],
    &[
        "CREATE TABLE own.made_{n} AS SELECT 1 AS a",
        "INSERT INTO own.t SELECT a - 1 + {n} FROM own.made_{n}",
    ],
];

async fn writes_of_every_kind_are_seen_while_replicas_hang_behind(flavor: Flavor) {
    let (rig, other) = own_rig(flavor, "max_lag = \"1h\"\nmonotonic_reads = \"off\"\n").await;
    let primary = rig.cluster.primary();
    let mut root = primary.connect().await.unwrap();
    for sql in [
        "CREATE DATABASE own",
        "CREATE TABLE own.t (n INT PRIMARY KEY)",
        "INSERT INTO own.t VALUES (0)",
        "CREATE PROCEDURE own.p (IN n INT) BEGIN SELECT 'before'; INSERT INTO own.t VALUES (n); SELECT 'after'; END",
        "CREATE FUNCTION own.f (n INT) RETURNS INT MODIFIES SQL DATA BEGIN INSERT INTO own.t VALUES (n); RETURN n; END",
    ] {
        root.query_drop(sql).await.unwrap();
    }
    rig.cluster.caught_up().await.unwrap();
    // From here on the replicas apply nothing, and answer reads all the same.
    let mut locks = Vec::new();
    for replica in rig.cluster.replicas() {
        let mut conn = replica.connect().await.unwrap();
        conn.query_drop("FLUSH TABLES WITH READ LOCK")
            .await
            .unwrap();
        locks.push(conn);
    }
    let mut reader = rig.connect().await;
    let mut bystander = Conn::new(other).await.unwrap();
    let newest = "SELECT MAX(n) FROM own.t";
    let mut number = 0;
    for prepared in [false, true] {
        for statements in WRITES {
            number += 1;
            // Preparing them is not what this is about, and some cannot be.
            let plain = statements
                .iter()
                .all(|sql| !sql.contains("; ") && !sql.contains("XA") && !sql.contains("LOCK"));
            if prepared && (!plain || statements.iter().any(|sql| sql.starts_with("PREPARE"))) {
                continue;
            }
            let mut writer = rig.connect().await;
            for sql in *statements {
                let sql = sql.replace("{n}", &number.to_string());
                let control = sql.starts_with("START") || sql.starts_with("EXECUTE");
                let result = if prepared && !control {
                    writer.exec_drop(&*sql, ()).await
                } else {
                    writer.query_drop(&*sql).await
                };
                result.unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
            for conn in [&mut reader, &mut writer] {
                let seen: i64 = one(conn, newest).await;
                assert_eq!(seen, number, "after {statements:?} (prepared: {prepared})");
            }
        }
        // Who wrote nothing is served by the replicas all the time.
        assert_ne!(whereabouts(&mut bystander).await, "db1");
        assert_eq!(one::<i64>(&mut bystander, newest).await, 0);
    }
    drop(locks);
    rig.cluster.caught_up().await.unwrap();
    eventually("the replicas to serve the writers again", async || {
        whereabouts(&mut reader).await != "db1"
    })
    .await;
    assert_eq!(
        one::<i64>(&mut reader, newest).await,
        one::<i64>(&mut bystander, newest).await
    );
}

async fn reads_are_spread_over_the_replicas(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let account = rig.account("routing_spread").await;
    // A read that runs keeps its replica busy, and the next read has reason to go elsewhere.
    let mut seen = BTreeSet::new();
    let mut conns = Vec::new();
    for _ in 0..8 {
        conns.push(Conn::new(account.clone()).await.unwrap());
    }
    eventually("both replicas to serve reads", async || {
        let mut running = tokio::task::JoinSet::new();
        for mut conn in conns.drain(..) {
            running.spawn(async move {
                let name: String = one(&mut conn, WHERE).await;
                (conn, name)
            });
        }
        while let Some(done) = running.join_next().await {
            let (conn, name) = done.unwrap();
            conns.push(conn);
            seen.insert(name);
        }
        seen.is_superset(&BTreeSet::from(["db2".to_owned(), "db3".to_owned()]))
    })
    .await;
    assert!(!seen.contains("db1"), "{seen:?}");
}

/// Eventually, and from then on for a while, reads of the account are served by exactly these servers.
async fn served_by(conn: &mut Conn, names: &[&str]) {
    let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut seen = BTreeSet::new();
    let mut round = async || {
        seen.clear();
        for _ in 0..40 {
            seen.insert(whereabouts(conn).await);
        }
        seen == wanted
    };
    eventually(&format!("reads on {names:?}"), &mut round).await;
}

/// Eventually reads are served by some of these servers and by no other.
async fn served_within(conn: &mut Conn, names: &[&str]) {
    eventually(&format!("reads on {names:?} only"), async || {
        for _ in 0..40 {
            let name = whereabouts(conn).await;
            if !names.contains(&&*name) {
                return false;
            }
        }
        true
    })
    .await;
}

async fn own_rig(flavor: Flavor, cluster: &str) -> (Rig, OptsBuilder) {
    let options = Options {
        cluster: cluster.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 2, &options).await;
    let account = rig.account("reader").await;
    (rig, account)
}

fn words(flavor: Flavor) -> (&'static str, &'static str, &'static str) {
    match flavor {
        Flavor::MariaDb => ("SLAVE", "CHANGE MASTER TO MASTER_DELAY", "SQL_THREAD"),
        Flavor::MySql => (
            "REPLICA",
            "CHANGE REPLICATION SOURCE TO SOURCE_DELAY",
            "SQL_THREAD",
        ),
    }
}

async fn a_replica_that_falls_behind_gets_no_reads(flavor: Flavor) {
    let (rig, account) = own_rig(
        flavor,
        "max_lag = \"2s\"\nbalance = \"round-robin\"\nmonotonic_reads = \"off\"\n",
    )
    .await;
    let mut conn = Conn::new(account).await.unwrap();
    let (replica, delay, applier) = words(flavor);
    let [second, third] = [&rig.cluster.replicas()[0], &rig.cluster.replicas()[1]];
    served_by(&mut conn, &["db2", "db3"]).await;
    // Stopped threads.
    second
        .run(&format!("STOP {replica} {applier}"))
        .await
        .unwrap();
    served_by(&mut conn, &["db3"]).await;
    second
        .run(&format!("START {replica}; STOP {replica} IO_THREAD"))
        .await
        .unwrap();
    served_by(&mut conn, &["db3"]).await;
    second.run(&format!("START {replica}")).await.unwrap();
    served_by(&mut conn, &["db2", "db3"]).await;
    // Lag beyond max_lag, while the threads run.
    second
        .run(&format!("STOP {replica}; {delay} = 3600; START {replica}"))
        .await
        .unwrap();
    rig.cluster
        .primary()
        .run("CREATE TABLE test.lag (a INT)")
        .await
        .unwrap();
    served_by(&mut conn, &["db3"]).await;
    // Nothing else is left: the primary serves reads, and one's own writes are seen at once.
    third
        .run(&format!("STOP {replica} {applier}"))
        .await
        .unwrap();
    served_by(&mut conn, &["db1"]).await;
    conn.query_drop("CREATE TABLE test.own (a INT)")
        .await
        .unwrap();
    for number in 0..20_i64 {
        conn.query_drop(format!("INSERT INTO test.own VALUES ({number})"))
            .await
            .unwrap();
        assert_eq!(
            one::<i64>(&mut conn, "SELECT MAX(a) FROM test.own").await,
            number
        );
    }
    third.run(&format!("START {replica}")).await.unwrap();
    served_by(&mut conn, &["db3"]).await;
    assert_eq!(
        one::<i64>(&mut conn, "SELECT MAX(a) FROM test.own").await,
        19
    );
    second
        .run(&format!("STOP {replica}; {delay} = 0; START {replica}"))
        .await
        .unwrap();
    served_by(&mut conn, &["db2", "db3"]).await;
    // Killed and back.
    third.kill9();
    served_by(&mut conn, &["db2"]).await;
    third.restart().await.unwrap();
    served_by(&mut conn, &["db2", "db3"]).await;
}

async fn roles_are_followed(flavor: Flavor) {
    let (rig, account) = own_rig(
        flavor,
        "balance = \"round-robin\"\nmonotonic_reads = \"off\"\n",
    )
    .await;
    let mut conn = Conn::new(account).await.unwrap();
    conn.query_drop("CREATE TABLE test.roles (a INT PRIMARY KEY)")
        .await
        .unwrap();
    let servers = rig.cluster.servers();
    let mut number = 0;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let mut pinned = rig.connect().await;
        pinned.query_drop("SET @seen = 1 + 1").await.unwrap();
        rig.cluster
            .switch_primary(&servers[from], &servers[to])
            .await
            .unwrap();
        // A connection from before the change and a new one both follow.
        eventually("a write on the new primary", async || {
            number += 1;
            conn.query_drop(format!("INSERT INTO test.roles VALUES ({number})"))
                .await
                .is_ok()
        })
        .await;
        let sql = format!("SELECT COUNT(*) FROM test.roles WHERE a = {number}");
        assert_eq!(servers[to].first::<i64>(&sql).await.unwrap(), 1);
        assert_eq!(one::<i64>(&mut conn, &sql).await, 1);
        // What only the former primary knew of a session is lost, and the session is told so.
        let error = pinned.query_drop("SELECT @seen").await.unwrap_err();
        assert!(error.to_string().contains("2013"), "{error}");
        assert!(error.to_string().contains("had there is gone"), "{error}");
        let mut fresh = rig.connect().await;
        number += 1;
        fresh
            .query_drop(format!("INSERT INTO test.roles VALUES ({number})"))
            .await
            .unwrap();
        let replicas: Vec<&str> = servers
            .iter()
            .map(ServerProcess::name)
            .filter(|name| *name != servers[to].name())
            .collect();
        served_by(&mut conn, &replicas).await;
    }
}

async fn two_writable_servers_are_one_primary(flavor: Flavor) {
    let (rig, account) = own_rig(
        flavor,
        "balance = \"round-robin\"\nmonotonic_reads = \"off\"\n",
    )
    .await;
    let mut conn = Conn::new(account).await.unwrap();
    let second = &rig.cluster.replicas()[0];
    conn.query_drop("CREATE TABLE test.two (a INT PRIMARY KEY)")
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    second
        .run(match flavor {
            Flavor::MariaDb => "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0",
            Flavor::MySql => "STOP REPLICA; RESET REPLICA ALL; SET GLOBAL super_read_only = 0; SET GLOBAL read_only = 0",
        })
        .await
        .unwrap();
    served_within(&mut conn, &["db1", "db3"]).await;
    for number in 0..50 {
        conn.query_drop(format!("INSERT INTO test.two VALUES ({number})"))
            .await
            .unwrap();
    }
    assert_eq!(
        rig.cluster
            .primary()
            .first::<i64>("SELECT COUNT(*) FROM test.two")
            .await
            .unwrap(),
        50
    );
    assert_eq!(
        second
            .first::<i64>("SELECT COUNT(*) FROM test.two")
            .await
            .unwrap(),
        0
    );
    assert!(rig.proxy.log().contains("db2"), "{}", rig.proxy.log());
}

/// The first row of an answer by its columns' names.
async fn row(conn: &mut Conn, sql: &str) -> BTreeMap<String, Option<String>> {
    let row: Row = conn.query_first(sql).await.unwrap().unwrap();
    let names = row.columns_ref().iter().enumerate();
    names
        .map(|(index, column)| (column.name_str().into_owned(), row.get(index).unwrap()))
        .collect()
}

async fn sessions_say_where_statements_go(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("routing_explained").await;
    let user = "routing_explained";
    let options = rig.account(user).await.db_name(Some(schema.clone()));
    let mut conn = Conn::new(options).await.unwrap();
    let route = async |conn: &mut Conn, sql: &str| {
        let mut row = row(conn, &format!("EXPLAIN ROUTE {sql}")).await;
        let server = row.remove("Server").unwrap();
        let place = if server.as_deref() == Some("db1") {
            Primary
        } else {
            Replica
        };
        let mut text = |name: &str| row.remove(name).unwrap().unwrap_or_default();
        (
            place,
            [
                text("Target"),
                text("Reason"),
                text("Class"),
                text("Reads"),
                text("Writes"),
            ],
        )
    };
    let words = |words: [&str; 5]| words.map(str::to_owned);
    let fresh = "read: a replica has every write it must see";
    let (place, said) = route(&mut conn, "SELECT id FROM t").await;
    assert_eq!(
        (place, said),
        (Replica, words(["replica", fresh, "read", "t", ""]))
    );
    let (place, said) = route(&mut conn, "/* dbproxy: primary */ SELECT 1").await;
    let hint = "hint asks for the primary";
    assert_eq!(
        (place, said),
        (Primary, words(["primary", hint, "read", "", ""]))
    );

    let several = row(&mut conn, "EXPLAIN ROUTE SELECT 1; SELECT 2").await;
    assert_eq!(several["Target"].as_deref(), Some("replica"));
    assert_eq!(several["Parts"].as_deref(), Some("1 read; 2 read"));

    // Nothing is carried out.
    conn.query_drop("CREATE TABLE t (id INT)").await.unwrap();
    conn.query_drop("INSERT INTO t VALUES (1), (2)")
        .await
        .unwrap();
    let (place, said) = route(&mut conn, "DELETE FROM t").await;
    assert_eq!(
        (place, said[0].as_str(), said[2].as_str()),
        (Primary, "primary", "write")
    );
    assert_eq!(said[4], "t");
    assert_eq!(one::<u32>(&mut conn, "SELECT COUNT(*) FROM t").await, 2);

    // Several statements go together; what each of them is, is told.
    for sql in [
        "SELECT id FROM t; DELETE FROM t",
        "BEGIN; SELECT id FROM t; COMMIT",
    ] {
        let (place, said) = route(&mut conn, sql).await;
        let several = "one of several statements is not a read";
        assert_eq!((place, said[1].as_str()), (Primary, several), "{sql}");
        let whole = row(&mut conn, &format!("EXPLAIN ROUTE {sql}")).await;
        let parts = whole["Parts"].as_deref().unwrap_or_default();
        assert_eq!(parts.contains("1 read; 2 write"), sql.contains("DELETE"));
        assert_eq!(parts.contains("1 begin: "), sql.contains("BEGIN"));
        assert!(!whole.contains_key("Refused"));
    }
    let (place, said) = route(&mut conn, "SELECT 1; STOP SLAVE").await;
    assert_eq!((place, said[0].as_str()), (Replica, "nowhere"), "{said:?}");
    assert_eq!(one::<u32>(&mut conn, "SELECT COUNT(*) FROM t").await, 2);

    // What the session is in the middle of counts.
    conn.query_drop("BEGIN").await.unwrap();
    let (place, said) = route(&mut conn, "SELECT id FROM t").await;
    assert_eq!(
        (place, said[0].as_str()),
        (Primary, "the connection in use")
    );
    conn.query_drop("ROLLBACK").await.unwrap();
    conn.query_drop("CREATE TEMPORARY TABLE mine (id INT)")
        .await
        .unwrap();
    let (_, said) = route(&mut conn, "SELECT id FROM t").await;
    assert_eq!(said[1], "session is pinned: temporary table");

    let rows: Vec<(String, Option<String>)> = conn.query("SHOW DBPROXY SESSION").await.unwrap();
    let session: BTreeMap<_, _> = rows.into_iter().collect();
    let text = |name: &str| session[name].as_deref();
    assert_eq!(text("id"), Some(conn.id().to_string().as_str()));
    assert_eq!(text("account"), Some(format!("'{user}'@'%'").as_str()));
    assert_eq!(text("schema"), Some(schema.as_str()));
    assert_eq!(
        (text("server"), text("pin")),
        (Some("db1"), Some("temporary table"))
    );
    assert_eq!(
        (text("transaction"), text("autocommit")),
        (Some("no"), Some("yes"))
    );
    assert_eq!(text("consistency"), Some("user"));
    let sql = match flavor {
        Flavor::MariaDb => "SELECT SUBSTRING_INDEX(@@last_gtid, '-', -1)",
        Flavor::MySql => "SELECT SUBSTRING_INDEX(@@gtid_executed, ':', 1)",
    };
    let part: String = one(&mut conn, sql).await;
    let position = text("position").unwrap();
    assert!(position.contains(&part), "{position} has no {part}");

    // What the proxy answers itself is not prepared; PDO sends it as text for this error.
    for sql in [
        "EXPLAIN ROUTE SELECT 1",
        "EXPLAIN ROUTE SELECT 1; STOP SLAVE",
        "SHOW DBPROXY SESSION",
        "SET @dbproxy_consistency = 'strong'",
        "SET @dbproxy_consistency = ?",
        "SET @dbproxy_nothing = 1",
    ] {
        let error = conn.prep(sql).await.unwrap_err();
        assert_eq!(support::code(&error), 1295, "{sql}: {error}");
        assert!(error.to_string().contains("as text only"), "{error}");
    }
    assert!(conn.prep("SET @a = 'dbproxy_'").await.is_ok());

    // A table of that name can still be described.
    conn.query_drop("CREATE TABLE route (id INT, other INT)")
        .await
        .unwrap();
    let row = row(&mut conn, "EXPLAIN route other").await;
    assert_eq!(row["Field"].as_deref(), Some("other"));
}

async fn sessions_choose_their_consistency(flavor: Flavor) {
    let (rig, _) = own_rig(flavor, "max_lag = \"1h\"\nmonotonic_reads = \"off\"\n").await;
    let mut conn = rig.connect().await;
    let place = async |conn: &mut Conn| match whereabouts(conn).await.as_str() {
        "db1" => Primary,
        _ => Replica,
    };
    let set = async |conn: &mut Conn, sql: &str| conn.query_drop(sql).await.unwrap();
    assert_eq!(place(&mut conn).await, Replica);
    set(&mut conn, "SET @dbproxy_consistency = 'strong'").await;
    assert_eq!(place(&mut conn).await, Primary);
    set(&mut conn, "SET @dbproxy_consistency = NULL").await;
    assert_eq!(place(&mut conn).await, Replica);

    // From here on the replicas apply nothing, and answer reads all the same.
    let mut locks = Vec::new();
    for replica in rig.cluster.replicas() {
        let mut conn = replica.connect().await.unwrap();
        set(&mut conn, "FLUSH TABLES WITH READ LOCK").await;
        locks.push(conn);
    }
    set(&mut conn, "CREATE TABLE test.chosen (id INT)").await;
    assert_eq!(place(&mut conn).await, Primary);
    for hint in ["dbproxy: consistency=eventual", "ms=eventual"] {
        let name: String = one(&mut conn, &format!("/* {hint} */ {WHERE}")).await;
        assert_ne!(name, "db1", "{hint}");
    }
    set(&mut conn, "SET @dbproxy_consistency = 'eventual'").await;
    assert_eq!(place(&mut conn).await, Replica);
    // The lag grows.
    set(&mut conn, "SET @dbproxy_max_lag = 1").await;
    eventually("the replicas to be too late", async || {
        place(&mut conn).await == Primary
    })
    .await;
    let reason = row(&mut conn, "EXPLAIN ROUTE SELECT 1").await;
    let reason = reason["Reason"].clone().unwrap();
    assert_eq!(
        reason,
        "read: no replica is within the lag that a rule, the hint or the session allows"
    );
    set(&mut conn, "SET @dbproxy_max_lag = NULL").await;
    assert_eq!(place(&mut conn).await, Replica);

    // Nothing ties the session to a connection, and a reset forgets it.
    let rows: Vec<(String, Option<String>)> = conn.query("SHOW DBPROXY SESSION").await.unwrap();
    let session: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(session["pin"], None);
    assert_eq!(session["consistency"].as_deref(), Some("eventual"));
    conn.reset().await.unwrap();
    assert_eq!(place(&mut conn).await, Primary);
    let wrong = error_of(&mut conn, "SET @dbproxy_consistency = 'storng'").await;
    assert_eq!(wrong, 1231);
}
