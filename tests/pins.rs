//! What ties a session to its connection, and that it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::path::Path;

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use support::raw::{Raw, capability};
use support::{Options, Proxy, Rig, one, output};

on_both_flavors!(
    pins_end_with_what_they_stand_for,
    cursors_and_long_data_end,
    user_variables_go_along,
    user_variables_are_their_sessions_alone,
    pins_are_counted,
    a_ping_after_a_rest_begins_anew,
);

/// Sessions share the only connection, so that one that is tied to it keeps all others waiting.
async fn sharing(flavor: Flavor, account: &str) -> (Rig, mysql_async::Opts) {
    let options = Options {
        sections: "[limits]\nserver_connections = 1\n".to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 0, &options).await;
    let options = rig.account(account).await;
    let granted = format!("GRANT ALL PRIVILEGES ON *.* TO {account}@'%'");
    rig.cluster.primary().run(&granted).await.unwrap();
    rig.schema("pins").await;
    let sql = "CREATE TABLE pins.t (id INT PRIMARY KEY); INSERT INTO pins.t VALUES (1), (2), (3)";
    rig.cluster.primary().run(sql).await.unwrap();
    (rig, options.into())
}

async fn pins(conn: &mut Conn) -> Option<String> {
    let rows: Vec<(String, Option<String>)> = conn.query("SHOW DBPROXY SESSION").await.unwrap();
    let row = rows.into_iter().find(|(name, _)| name == "pin");
    row.unwrap().1
}

async fn pins_end_with_what_they_stand_for(flavor: Flavor) {
    let (_rig, account) = sharing(flavor, "pins_end").await;
    let mut conn = Conn::new(account.clone()).await.unwrap();
    let mut other = Conn::new(account).await.unwrap();
    conn.query_drop("USE pins").await.unwrap();
    for (reason, steps) in [
        (
            "temporary table",
            &[
                "CREATE TEMPORARY TABLE a (n INT)",
                "CREATE TEMPORARY TABLE pins.b (n INT)",
                "INSERT INTO a VALUES (1)",
                "DROP TEMPORARY TABLE b",
                "DROP TEMPORARY TABLE IF EXISTS a",
            ][..],
        ),
        (
            "named lock",
            &[
                "SELECT GET_LOCK('pins', 0)",
                "SELECT GET_LOCK('pins', 0)",
                "SELECT RELEASE_LOCK('pins')",
                "SELECT RELEASE_LOCK('pins')",
            ],
        ),
        (
            "named lock",
            &[
                "SELECT GET_LOCK(CONCAT('p', 'ins'), 0)",
                "SELECT RELEASE_LOCK('pins')",
                "DO RELEASE_ALL_LOCKS()",
            ],
        ),
        (
            "HANDLER",
            &[
                "HANDLER t OPEN AS h",
                "HANDLER h READ FIRST",
                "HANDLER h CLOSE",
            ],
        ),
        (
            "LOCK TABLES",
            &["LOCK TABLES t READ", "SELECT * FROM t", "UNLOCK TABLES"],
        ),
    ] {
        let (last, before) = steps.split_last().unwrap();
        for sql in before {
            conn.query_drop(*sql).await.unwrap();
            assert_eq!(pins(&mut conn).await.as_deref(), Some(reason), "{sql}");
        }
        conn.query_drop(*last).await.unwrap();
        assert_eq!(pins(&mut conn).await, None, "{last}");
        // The only connection is free.
        assert_eq!(one::<u8>(&mut other, "SELECT 1").await, 1, "{reason}");
    }
    // Where it is not certain, the session stays.
    for steps in [
        &[
            "CREATE TEMPORARY TABLE a (n INT)",
            "ALTER TABLE a RENAME TO b",
            "DROP TEMPORARY TABLE IF EXISTS a",
        ][..],
        &["SELECT GET_LOCK('pins', 0)", "SELECT RELEASE_LOCK('Pins')"],
        &["SELECT @a := 1", "SELECT 1"],
    ] {
        for sql in steps {
            conn.query_drop(*sql).await.unwrap();
        }
        assert!(pins(&mut conn).await.is_some(), "{steps:?}");
        conn.reset().await.unwrap();
        assert_eq!(pins(&mut conn).await, None);
        conn.query_drop("USE pins").await.unwrap();
    }
}

async fn cursors_and_long_data_end(flavor: Flavor) {
    let (rig, account) = sharing(flavor, "pins_cursors").await;
    let mut other = Conn::new(account).await.unwrap();
    let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
    let usual = capability::USUAL;
    raw.login("pins_cursors", "pins_cursors", Some("pins"), usual)
        .await
        .unwrap();
    let pin = async |raw: &mut Raw| {
        let rows = raw.rows("SHOW DBPROXY SESSION").await.unwrap();
        let row = rows
            .into_iter()
            .find(|row| row[0].as_deref() == Some("pin"));
        row.unwrap()[1].clone()
    };
    for ending in ["all rows", "reset", "close"] {
        let id = prepared(&mut raw, "SELECT id FROM t ORDER BY id").await;
        let command = |code: u8, rest: &[u8]| [&[code][..], &id.to_le_bytes(), rest].concat();
        raw.send(&command(0x17, &[1, 1, 0, 0, 0])).await;
        // The count of columns, one column, and their end.
        for _ in 0..3 {
            raw.packet().await.unwrap();
        }
        assert_eq!(pin(&mut raw).await.as_deref(), Some("open cursor"));
        match ending {
            "all rows" => {
                raw.send(&command(0x1c, &9_u32.to_le_bytes())).await;
                for _ in 0..4 {
                    raw.packet().await.unwrap();
                }
            }
            "reset" => {
                raw.send(&command(0x1a, &[])).await;
                raw.packet().await.unwrap();
            }
            _ => raw.send(&command(0x19, &[])).await,
        }
        assert_eq!(pin(&mut raw).await, None, "{ending}");
        assert_eq!(one::<u8>(&mut other, "SELECT 1").await, 1);
    }
    let id = prepared(&mut raw, "SELECT LENGTH(?)").await;
    let data = [&[0x18][..], &id.to_le_bytes(), &[0, 0], b"long"].concat();
    raw.send(&data).await;
    assert_eq!(
        pin(&mut raw).await.as_deref(),
        Some("parameter value sent ahead")
    );
    let execute = [
        &[0x17][..],
        &id.to_le_bytes(),
        &[0, 1, 0, 0, 0, 0, 1, 252, 0],
    ]
    .concat();
    raw.send(&execute).await;
    for _ in 0..5 {
        raw.packet().await.unwrap();
    }
    assert_eq!(pin(&mut raw).await, None);
    assert_eq!(one::<u8>(&mut other, "SELECT 1").await, 1);
}

/// The id of a statement with at most one parameter and one column.
async fn prepared(raw: &mut Raw, sql: &str) -> u32 {
    raw.send(&[&[0x16], sql.as_bytes()].concat()).await;
    let first = raw.packet().await.unwrap();
    let parameters = u16::from_le_bytes([first[7], first[8]]);
    for _ in 0..2 + 2 * parameters {
        raw.packet().await.unwrap();
    }
    u32::from_le_bytes(first[1..5].try_into().unwrap())
}

async fn user_variables_go_along(flavor: Flavor) {
    let (rig, account) = sharing(flavor, "pins_variables").await;
    let direct = rig.cluster.primary().connect().await.unwrap();
    let proxied = Conn::new(account.clone()).await.unwrap();
    let mut other = Conn::new(account).await.unwrap();
    let mut told = Vec::new();
    for (mut conn, schema) in [(direct, "pins"), (proxied, "pins")] {
        let mut heard = Vec::new();
        conn.query_drop(format!("USE {schema}")).await.unwrap();
        conn.query_drop("SET NAMES utf8mb4 COLLATE utf8mb4_bin")
            .await
            .unwrap();
        for sql in [
            "SET @n = 5, @d := -1.50, @f = 1e3, @big = 18446744073709551615",
            "SET @s = 'it''s é', @x = x'41', @none = NULL",
            "SET @typed = 7",
            "SET @typed = NULL",
        ] {
            conn.query_drop(sql).await.unwrap();
            let _: Option<u8> = other.query_first("SELECT 1").await.unwrap();
        }
        for sql in [
            "SELECT @n, @d, @f, @big, @s, @x, @none, @typed",
            "SELECT CHARSET(@s), COLLATION(@s), COERCIBILITY(@s), COERCIBILITY(@n)",
            "SELECT id FROM t WHERE id > @n - 3 ORDER BY id",
        ] {
            // Others use the connection, and leave theirs behind.
            other
                .query_drop("SET @n = 'other', @stray = 1")
                .await
                .unwrap();
            let mut result = conn.query_iter(sql).await.unwrap();
            heard.push(format!("{:?}", result.columns_ref()));
            let rows: Vec<Row> = result.collect().await.unwrap();
            heard.push(format!("{rows:?}"));
        }
        told.push(heard);
        if told.len() == 2 {
            assert_eq!(pins(&mut conn).await, None);
            // What a table is made of is what they are.
            conn.query_drop("DROP TABLE IF EXISTS made").await.unwrap();
            conn.query_drop("CREATE TABLE made SELECT @n, @d, @s")
                .await
                .unwrap();
            let made: (String, String) = conn
                .query_first("SHOW CREATE TABLE made")
                .await
                .unwrap()
                .unwrap();
            assert!(
                made.1.contains("utf8mb4_bin") && made.1.contains("bigint"),
                "{}",
                made.1
            );
        }
    }
    assert_eq!(told[0], told[1]);
}

async fn user_variables_are_their_sessions_alone(flavor: Flavor) {
    let (rig, account) = sharing(flavor, "pins_alone").await;
    let mut one_session = Conn::new(account.clone()).await.unwrap();
    let mut another = Conn::new(account).await.unwrap();
    one_session
        .query_drop("SET @x = 1, @y = 'mine'")
        .await
        .unwrap();
    assert_eq!(one::<Option<u8>>(&mut another, "SELECT @x").await, None);
    another.query_drop("SET @y = 2").await.unwrap();
    another.reset().await.unwrap();
    assert_eq!(one::<Option<u8>>(&mut another, "SELECT @y").await, None);
    another.reset().await.unwrap();
    assert_eq!(one::<String>(&mut one_session, "SELECT @y").await, "mine");
    one_session.reset().await.unwrap();
    assert_eq!(
        one::<Option<String>>(&mut one_session, "SELECT @y").await,
        None
    );
    // A trigger may set one of which no answer tells.
    one_session.reset().await.unwrap();
    let sql = "CREATE TRIGGER pins.sets BEFORE INSERT ON pins.t FOR EACH ROW SELECT NEW.id INTO @x";
    rig.cluster.primary().run(sql).await.unwrap();
    one_session.query_drop("SET @x = 0").await.unwrap();
    one_session
        .query_drop("INSERT INTO pins.t VALUES (10)")
        .await
        .unwrap();
    assert_eq!(one::<u8>(&mut one_session, "SELECT @x").await, 10);
    one_session.reset().await.unwrap();
    one_session
        .query_drop("INSERT INTO pins.t VALUES (11)")
        .await
        .unwrap();
    drop(one_session);
    assert_eq!(one::<Option<u8>>(&mut another, "SELECT @x").await, None);
}

async fn pins_are_counted(flavor: Flavor) {
    let (_rig, account) = sharing(flavor, "pins_counted").await;
    let mut conn = Conn::new(account).await.unwrap();
    let count = async |conn: &mut Conn| {
        let rows: Vec<(String, u64, u64, f64)> = conn.query("SHOW DBPROXY PINS").await.unwrap();
        let row = rows.into_iter().find(|row| row.0 == "named lock").unwrap();
        (row.1, row.2)
    };
    assert_eq!(count(&mut conn).await, (0, 0));
    conn.query_drop("SELECT GET_LOCK('counted', 0)")
        .await
        .unwrap();
    assert_eq!(count(&mut conn).await, (1, 1));
    let rows: Vec<(String, Option<String>)> = conn.query("SHOW DBPROXY SESSION").await.unwrap();
    let all = rows
        .into_iter()
        .find(|(name, _)| name == "pins")
        .unwrap()
        .1
        .unwrap();
    assert!(all.starts_with("named lock ("), "{all}");
    conn.query_drop("SELECT RELEASE_LOCK('counted')")
        .await
        .unwrap();
    assert_eq!(count(&mut conn).await, (1, 0));
    conn.query_drop("SELECT GET_LOCK('counted', 0)")
        .await
        .unwrap();
    conn.reset().await.unwrap();
    assert_eq!(count(&mut conn).await, (2, 0));
}

async fn a_ping_after_a_rest_begins_anew(flavor: Flavor) {
    let rested = |after: &str| Options {
        sections: format!("[limits]\nreset_on_ping = \"{after}\"\n"),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 0, &rested("1ms")).await;
    rig.schema("rested").await;
    rig.cluster
        .primary()
        .run("CREATE TABLE rested.t (id INT)")
        .await
        .unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php/persistent.php");
    let mut command = tokio::process::Command::new("php");
    command
        .arg(&script)
        .args(["127.0.0.1", &rig.proxy.port().to_string()])
        .args(["app", "app", "rested"]);
    let printed = output(command).await;
    // The same connection with nothing of what the page before has left, but for what it has committed.
    assert_eq!(
        printed,
        "same session, SYSTEM, utf8mb4, rested, no variable, rows: 0\n"
    );

    // Who is not idle for so long keeps everything.
    let proxy = Proxy::start(&rig.cluster, &rested("1h")).await;
    let mut raw = Raw::tcp(proxy.port()).await.unwrap();
    let usual = capability::USUAL;
    raw.login("app", "app", Some("rested"), usual)
        .await
        .unwrap();
    raw.rows("SET @mine = 1").await.unwrap();
    raw.send(&[0x0e]).await;
    raw.ok().await.unwrap();
    let mine = raw.rows("SELECT @mine").await.unwrap();
    assert_eq!(mine, [[Some("1".to_owned())]]);
}
