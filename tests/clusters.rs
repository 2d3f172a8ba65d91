//! Several clusters behind one listener.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row, SslOpts};

use support::pair::{execute, prepare, with_id};
use support::raw::Raw;
use support::{Options, Proxy, WHERE, application, eventually, login, one};

on_both_flavors!(
    sessions_find_their_cluster,
    statements_run_on_another_cluster,
    what_cannot_run_elsewhere_is_refused,
    only_who_is_known_there_gets_there,
    copies_run_on_another_cluster,
    copies_hurt_nobody,
);

/// A cluster whose servers have this table to tell it by.
async fn cluster(flavor: Flavor, mark: &str, replicas: usize) -> Cluster {
    let cluster = Cluster::start(flavor, replicas).await.unwrap();
    let sql = format!("CREATE DATABASE {mark}; CREATE TABLE {mark}.mark SELECT '{mark}' AS name");
    cluster.primary().run(&sql).await.unwrap();
    cluster.caught_up().await.unwrap();
    cluster
}

async fn schemas(conn: &mut Conn) -> Vec<String> {
    let sql = "SELECT schema_name FROM information_schema.schemata WHERE schema_name IN ('shop', 'archive') ORDER BY 1";
    conn.query(sql).await.unwrap()
}

/// Waits until one statement sleeps on the servers of a cluster.
async fn runs_a_sleep(cluster: &Cluster) {
    eventually("it to run", async || {
        let sql =
            "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
        let mut running = 0;
        for server in cluster.servers() {
            running += server.first::<u64>(sql).await.unwrap();
        }
        running == 1
    })
    .await;
}

async fn sessions_find_their_cluster(flavor: Flavor) {
    let shop = cluster(flavor, "shop", 1).await;
    let archive = cluster(flavor, "archive", 1).await;
    let make = "CREATE USER keeper@'%' IDENTIFIED BY 'keeper'; GRANT ALL ON *.* TO keeper@'%'";
    archive.primary().run(make).await.unwrap();
    let servers: Vec<_> = archive
        .servers()
        .iter()
        .map(|server| format!("archive-{}=127.0.0.1:{}", server.name(), server.port()))
        .collect();
    let options = Options {
        sections: format!(
            "[clusters.archive]\nservers = {servers:?}\nschemas = [\"archive\", \"old_*\"]\naccounts = \"keeper\"\n\
             server_names = \"archive.example\"\n\
             [[rule]]\ntag = \"counted\"\nschema = \"*\"\nroute = \"primary\"\n"
        ),
        ..Options::default()
    };
    let proxy = Proxy::start(&shop, &options).await;
    proxy.knows_replicas(1).await;
    let port = proxy.port();
    let to = |options| async move { Conn::new(options).await };

    let mut usual = proxy.connect().await;
    assert_eq!(schemas(&mut usual).await, ["shop"]);
    let by_schema = application(port).db_name(Some("archive"));
    eventually("the other cluster to be seen", async || {
        Conn::new(by_schema.clone()).await.is_ok()
    })
    .await;
    let mut by_schema = to(by_schema).await.unwrap();
    assert_eq!(schemas(&mut by_schema).await, ["archive"]);
    let mut by_account = to(login(port, "keeper", "keeper")).await.unwrap();
    assert_eq!(schemas(&mut by_account).await, ["archive"]);
    let named = |name: &'static str| {
        let tls = SslOpts::default()
            .with_danger_accept_invalid_certs(true)
            .with_danger_skip_domain_validation(true)
            .with_danger_tls_hostname_override(Some(name));
        application(port).ssl_opts(tls)
    };
    let mut by_name = to(named("archive.example")).await.unwrap();
    assert_eq!(schemas(&mut by_name).await, ["archive"]);
    let mut other_name = to(named("shop.example")).await.unwrap();
    assert_eq!(schemas(&mut other_name).await, ["shop"]);
    // An account of the one is nobody in the other.
    let refused = to(login(port, "keeper", "keeper").db_name(Some("shop"))).await;
    assert!(
        matches!(refused, Err(Error::Server(error)) if error.code == 1049),
        "no such schema there"
    );

    // Each splits reads and writes for itself, and sees its own writes.
    for conn in [&mut usual, &mut by_schema] {
        let mark = schemas(conn).await.remove(0);
        conn.query_drop(format!("CREATE TABLE {mark}.t (a INT)"))
            .await
            .unwrap();
        for number in 0..20_u32 {
            conn.query_drop(format!("INSERT INTO {mark}.t VALUES ({number})"))
                .await
                .unwrap();
            let sql = format!("SELECT MAX(a) FROM {mark}.t");
            assert_eq!(one::<u32>(conn, &sql).await, number);
        }
        eventually("a replica to answer", async || {
            one::<String>(conn, WHERE).await == "db2"
        })
        .await;
    }
    // Rules are everybody's; this one needs a schema.
    let counted = format!("/* dbproxy: tag=counted */ {WHERE}");
    assert_eq!(one::<String>(&mut usual, &counted).await, "db2");
    assert_eq!(
        one::<String>(
            &mut by_schema,
            &format!("/* dbproxy: tag=counted */ {WHERE}")
        )
        .await,
        "db1"
    );
    let route: Row = by_schema
        .query_first("EXPLAIN ROUTE INSERT INTO t VALUES (1)")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(route.get::<String, _>("Server").unwrap(), "archive-db1");

    // Sessions can be ended across clusters by whoever has the right in the other one.
    let id: u32 = one(&mut by_schema, "SELECT CONNECTION_ID()").await;
    let sleeper = tokio::spawn(async move {
        let slept = by_schema.query_drop("SELECT SLEEP(600) FROM mark").await;
        (by_schema, slept)
    });
    runs_a_sleep(&archive).await;
    usual.query_drop(format!("KILL QUERY {id}")).await.unwrap();
    let (mut by_schema, _) = sleeper.await.unwrap();

    // The loss of one cluster is nobody else's.
    drop(shop);
    assert_eq!(
        one::<String>(&mut by_schema, "SELECT name FROM mark").await,
        "archive"
    );
    eventually("a newcomer to be let in", async || {
        let options = application(port).db_name(Some("archive"));
        Conn::new(options).await.is_ok()
    })
    .await;
}

/// A proxy in front of the clusters `shop` and `archive`, with these rules.
async fn two(flavor: Flavor, rules: &str) -> (Cluster, Cluster, Proxy) {
    let shop = cluster(flavor, "shop", 1).await;
    let archive = cluster(flavor, "archive", 1).await;
    for (cluster, password) in [(&shop, "one"), (&archive, "two")] {
        let sql = format!(
            "CREATE USER twin@'%' IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO twin@'%'; \
             CREATE USER boss@'%' IDENTIFIED BY 'boss'; GRANT ALL ON *.* TO boss@'%'"
        );
        cluster.primary().run(&sql).await.unwrap();
    }
    let make = "CREATE USER homely@'%' IDENTIFIED BY 'home'; GRANT ALL ON *.* TO homely@'%'";
    shop.primary().run(make).await.unwrap();
    let servers: Vec<_> = archive
        .servers()
        .iter()
        .map(|server| format!("archive-{}=127.0.0.1:{}", server.name(), server.port()))
        .collect();
    let options = Options {
        sections: format!(
            "[clusters.archive]\nservers = {servers:?}\nschemas = \"archive\"\n{rules}"
        ),
        ..Options::default()
    };
    let proxy = Proxy::start(&shop, &options).await;
    proxy.knows_replicas(1).await;
    let there = application(proxy.port()).db_name(Some("archive"));
    eventually(
        "a replica of the other cluster to answer",
        async || match Conn::new(there.clone()).await {
            Ok(mut conn) => {
                let name: Option<String> = conn.query_first(WHERE).await.unwrap_or_default();
                name.as_deref() == Some("db2")
            }
            Err(_) => false,
        },
    )
    .await;
    (shop, archive, proxy)
}

const OLD: &str = "[[rule]]\nname = \"old\"\ntable = \"archive.*\"\nroute = \"cluster=archive\"\n";

async fn refusal(conn: &mut Conn, sql: &str) -> (u16, String) {
    match conn.query_drop(sql).await {
        Err(Error::Server(error)) => (error.code, error.message),
        other => panic!("{sql}: {other:?}"),
    }
}

async fn explained(conn: &mut Conn, sql: &str, column: &str) -> Option<String> {
    let row: Option<Row> = conn
        .query_first(format!("EXPLAIN ROUTE {sql}"))
        .await
        .unwrap();
    row.unwrap().get::<Option<String>, _>(column).flatten()
}

async fn statements_run_on_another_cluster(flavor: Flavor) {
    let (shop, archive, proxy) = two(flavor, OLD).await;
    let mut conn = proxy.connect().await;
    assert_eq!(
        one::<String>(&mut conn, "SELECT name FROM archive.mark").await,
        "archive"
    );
    assert_eq!(
        one::<String>(&mut conn, "SELECT name FROM shop.mark").await,
        "shop"
    );
    // All kinds of statement, and the account's own writes are seen.
    conn.query_drop(
        "CREATE TABLE archive.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT) AUTO_INCREMENT = 700",
    )
    .await
    .unwrap();
    for number in 0..20_u32 {
        conn.query_drop(format!("INSERT INTO archive.t (a) VALUES ({number})"))
            .await
            .unwrap();
        assert_eq!(
            one::<u32>(&mut conn, "SELECT LAST_INSERT_ID()").await,
            700 + number
        );
        assert_eq!(
            one::<u32>(&mut conn, "SELECT MAX(a) FROM archive.t").await,
            number
        );
    }
    assert_eq!(
        archive
            .primary()
            .first::<u32>("SELECT COUNT(*) FROM archive.t")
            .await
            .unwrap(),
        20
    );
    let there = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'archive'";
    assert_eq!(shop.primary().first::<u32>(there).await.unwrap(), 0);
    eventually("a replica there to answer", async || {
        explained(&mut conn, "SELECT * FROM archive.t", "Server")
            .await
            .as_deref()
            == Some("archive-db2")
    })
    .await;
    assert_eq!(
        explained(&mut conn, "DELETE FROM archive.t", "Server")
            .await
            .as_deref(),
        Some("archive-db1")
    );
    assert_eq!(
        explained(&mut conn, "DELETE FROM archive.t", "Cluster")
            .await
            .as_deref(),
        Some("archive")
    );
    // Questions about the statement before are asked where that ran.
    conn.query_drop("UPDATE archive.t SET a = a + 1 WHERE a < 7")
        .await
        .unwrap();
    assert_eq!(one::<i64>(&mut conn, "SELECT ROW_COUNT()").await, 7);
    conn.query_drop("SELECT CAST('x' AS SIGNED) FROM archive.mark")
        .await
        .unwrap();
    let warnings: Vec<(String, u16, String)> = conn.query("SHOW WARNINGS").await.unwrap();
    assert_eq!(warnings[0].1, 1292);
    let _: Vec<u32> = conn
        .query("SELECT SQL_CALC_FOUND_ROWS a FROM archive.t LIMIT 1")
        .await
        .unwrap();
    assert_eq!(one::<u32>(&mut conn, "SELECT FOUND_ROWS()").await, 20);
    assert_eq!(
        refusal(&mut conn, "SELECT nothing FROM archive.t").await.0,
        1054
    );
    let errors: Vec<(String, u16, String)> = conn.query("SHOW ERRORS").await.unwrap();
    assert_eq!(errors[0].1, 1054);
    conn.query_drop("UPDATE archive.t SET a = 0").await.unwrap();
    let count: Option<i64> = conn.exec_first("SELECT ROW_COUNT()", ()).await.unwrap();
    assert_eq!(count, Some(20));
    conn.query_drop("UPDATE archive.t SET a = 1").await.unwrap();
    let (code, text) = refusal(&mut conn, "SELECT ROW_COUNT() FROM shop.mark").await;
    assert!(
        code == 1105 && text.contains("asks about the one before"),
        "{text}"
    );
    // By text and prepared, in the session's state.
    conn.query_drop("SET SESSION sql_mode = 'ANSI_QUOTES', time_zone = '+03:00'")
        .await
        .unwrap();
    conn.query_drop("USE test").await.unwrap();
    let state =
        "SELECT CONCAT(@@sql_mode, @@time_zone, DATABASE()) FROM \"archive\".\"mark\" WHERE 1 = ?";
    let found: Option<String> = conn.exec_first(state, (1,)).await.unwrap();
    assert_eq!(found.as_deref(), Some("ANSI_QUOTES+03:00test"));
    let found: String = one(&mut conn, &state.replace('?', "1")).await;
    assert_eq!(found, "ANSI_QUOTES+03:00test");
    let insert = conn
        .prep("INSERT INTO archive.t (a) VALUES (?)")
        .await
        .unwrap();
    for number in 100..103_u32 {
        conn.exec_drop(&insert, (number,)).await.unwrap();
    }
    assert_eq!(conn.last_insert_id(), Some(722));
    conn.query_drop("START TRANSACTION").await.unwrap();
    assert!(matches!(
        conn.exec_drop(&insert, (103,)).await,
        Err(Error::Server(error)) if error.code == 1105 && error.message.contains("transaction")
    ));
    conn.query_drop("COMMIT").await.unwrap();
    conn.exec_drop(&insert, (104,)).await.unwrap();
    assert_eq!(
        one::<u32>(&mut conn, "SELECT MAX(a) FROM archive.t").await,
        104
    );

    let shown: Vec<(String, String)> = conn.query("SHOW CREATE TABLE archive.t").await.unwrap();
    assert!(shown[0].1.contains("AUTO_INCREMENT"));
    conn.query_drop("RENAME TABLE archive.t TO archive.u")
        .await
        .unwrap();
    conn.query_drop("DROP TABLE archive.u").await.unwrap();

    // What runs there can be ended.
    let id: u32 = one(&mut conn, "SELECT CONNECTION_ID()").await;
    let sleeper = tokio::spawn(async move {
        let slept = conn.query_drop("SELECT SLEEP(600) FROM archive.mark").await;
        (conn, slept)
    });
    runs_a_sleep(&archive).await;
    let mut other = proxy.connect().await;
    other.query_drop(format!("KILL QUERY {id}")).await.unwrap();
    let (mut conn, _) = sleeper.await.unwrap();
    assert_eq!(
        one::<String>(&mut conn, "SELECT name FROM archive.mark").await,
        "archive"
    );
    // A cluster that is new in the file is not there yet.
    let file = proxy.configuration();
    let before = std::fs::read_to_string(&file).unwrap();
    let other = OLD.replace("cluster=archive", "cluster=next");
    let next = "[clusters.next]\nservers = [\"next=127.0.0.1:1\"]\naccounts = \"nobody\"\n";
    std::fs::write(&file, before.replace(OLD, &other) + next).unwrap();
    eventually("the rule to name another cluster", async || {
        match conn.query_drop("SELECT name FROM archive.mark").await {
            Err(Error::Server(error)) => error.code == 1105 && error.message.contains("restart"),
            _ => false,
        }
    })
    .await;
    // Without the rule the statement is its own cluster's.
    std::fs::write(&file, before.replace(OLD, "")).unwrap();
    eventually("the rule to be gone", async || {
        explained(&mut conn, "SELECT name FROM archive.mark", "Rules")
            .await
            .is_none()
    })
    .await;
    let (code, _) = refusal(&mut conn, "SELECT name FROM archive.mark").await;
    assert!(matches!(code, 1049 | 1146), "{code}");
}

async fn what_cannot_run_elsewhere_is_refused(flavor: Flavor) {
    let rules =
        format!("{OLD}[[rule]]\nname = \"all\"\naccount = \"boss\"\nroute = \"cluster=archive\"\n");
    let (shop, archive, proxy) = two(flavor, &rules).await;
    let mut conn = proxy.connect().await;
    conn.query_drop("CREATE TABLE shop.t (a INT)")
        .await
        .unwrap();
    conn.query_drop("CREATE TABLE archive.t (a INT)")
        .await
        .unwrap();
    // A transaction goes on without it.
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("INSERT INTO shop.t VALUES (1)")
        .await
        .unwrap();
    let (code, text) = refusal(&mut conn, "INSERT INTO archive.t VALUES (1)").await;
    assert_eq!(code, 1105);
    assert!(
        text.contains("(old)") && text.contains("cluster archive") && text.contains("transaction"),
        "{text}"
    );
    assert_eq!(
        explained(&mut conn, "INSERT INTO archive.t VALUES (1)", "Target")
            .await
            .as_deref(),
        Some("nowhere")
    );
    conn.query_drop("COMMIT").await.unwrap();
    assert_eq!(
        shop.primary()
            .first::<u32>("SELECT COUNT(*) FROM shop.t")
            .await
            .unwrap(),
        1
    );
    conn.query_drop("SET autocommit = 0").await.unwrap();
    let (code, text) = refusal(&mut conn, "SELECT * FROM archive.t").await;
    assert!(code == 1105 && text.contains("autocommit"), "{text}");
    conn.query_drop("SET autocommit = 1").await.unwrap();
    for (sql, why) in [
        ("SELECT @found := name FROM archive.mark", "user variable"),
        ("SELECT name INTO @found FROM archive.mark", "user variable"),
        ("LOCK TABLES shop.mark READ, archive.t WRITE", "LOCK TABLES"),
        (
            "CREATE TEMPORARY TABLE archive.brief (a INT)",
            "temporary table",
        ),
        ("SELECT GET_LOCK('x', 0) FROM archive.mark", "named lock"),
    ] {
        let (code, text) = refusal(&mut conn, sql).await;
        assert!(code == 1105 && text.contains(why), "{sql}: {text}");
    }
    let several = "INSERT INTO archive.t VALUES (2); INSERT INTO archive.t VALUES (3)";
    let (code, text) = refusal(&mut conn, several).await;
    assert!(code == 1105 && text.contains("one by one"), "{text}");
    assert_eq!(
        archive
            .primary()
            .first::<u32>("SELECT COUNT(*) FROM archive.t")
            .await
            .unwrap(),
        0
    );
    conn.query_drop("SET @mine = 1 + 1").await.unwrap();
    let (code, text) = refusal(&mut conn, "SELECT * FROM archive.t").await;
    assert!(code == 1105 && text.contains("(SET that"), "{text}");
    conn.reset().await.unwrap();
    conn.query_drop("SELECT * FROM archive.t").await.unwrap();

    // What concerns the session is its own cluster's, whatever a rule says of the account.
    let mut boss = Conn::new(login(proxy.port(), "boss", "boss"))
        .await
        .unwrap();
    boss.query_drop("SET NAMES latin1").await.unwrap();
    assert_eq!(
        one::<String>(&mut boss, "SELECT @@character_set_client").await,
        "latin1"
    );
    assert_eq!(schemas(&mut boss).await, ["archive"]);
    let (code, text) = refusal(&mut boss, "LOCK TABLES archive.t WRITE").await;
    assert!(code == 1105 && text.contains("LOCK TABLES"), "{text}");
    boss.query_drop("BEGIN").await.unwrap();
    assert_eq!(refusal(&mut boss, "SELECT 1").await.0, 1105);
    boss.query_drop("ROLLBACK").await.unwrap();
    let long = format!("INSERT INTO archive.t VALUES ({}1)", " ".repeat(2 << 20));
    let (code, text) = refusal(&mut boss, &long).await;
    assert!(code == 1105 && text.contains("too long"), "{text}");
    // Nor is a value sent ahead without its statement.
    let mut raw = Raw::app(proxy.port()).await;
    let prepared = raw
        .exchange(&prepare("INSERT INTO archive.t VALUES (?)"))
        .await;
    let statement = u32::from_le_bytes(prepared[0].1[1..5].try_into().unwrap());
    raw.send(&with_id(0x18, statement, b"\0\0value")).await;
    let execution = execute(statement, 0, b"\0\x01\xfc\0");
    let refused = raw.exchange(&execution).await;
    assert_eq!(refused[0].1[..3], [0xff, 0x51, 0x04]);
    raw.exchange(&with_id(0x1a, statement, b"")).await;
    let execution = execute(statement, 0, b"\0\x01\x03\0\x09\0\0\0");
    assert_eq!(raw.exchange(&execution).await[0].1[0], 0);
    let nine = "SELECT a FROM archive.t";
    assert_eq!(archive.primary().first::<u32>(nine).await.unwrap(), 9);
    // A trigger there leaves nothing of the session behind.
    archive
        .primary()
        .run("CREATE TRIGGER archive.marks BEFORE INSERT ON archive.t FOR EACH ROW SET @left = 1")
        .await
        .unwrap();
    conn.query_drop("INSERT INTO archive.t VALUES (4)")
        .await
        .unwrap();
    conn.query_drop("INSERT INTO archive.t VALUES (5)")
        .await
        .unwrap();
    assert_eq!(one::<Option<u32>>(&mut conn, "SELECT @left").await, None);
}

async fn only_who_is_known_there_gets_there(flavor: Flavor) {
    let (_shop, _archive, proxy) = two(flavor, OLD).await;
    let sql = "SELECT name FROM archive.mark";
    let port = proxy.port();
    // Connections of the account there lie in the pool.
    let mut there = Conn::new(login(port, "twin", "two").db_name(Some("archive")))
        .await
        .unwrap();
    assert_eq!(
        one::<String>(&mut there, "SELECT name FROM mark").await,
        "archive"
    );
    for (user, password, why) in [
        ("twin", "one", "another one there"),
        ("homely", "home", "no such account"),
    ] {
        let mut conn = Conn::new(login(port, user, password)).await.unwrap();
        for _ in 0..2 {
            let (code, text) = refusal(&mut conn, sql).await;
            assert!(
                code == 1429 && text.contains(why) && text.contains("archive"),
                "{text}"
            );
        }
        assert_eq!(
            explained(&mut conn, "SELECT 1 FROM shop.mark", "Cluster").await,
            None
        );
        assert_eq!(
            one::<String>(&mut conn, "SELECT name FROM shop.mark").await,
            "shop"
        );
    }
    let mut conn = proxy.connect().await;
    assert_eq!(one::<String>(&mut conn, sql).await, "archive");
    // Nor does somebody else get there by a change of user.
    let options = mysql_async::ChangeUserOpts::new()
        .with_user(Some("homely".into()))
        .with_pass(Some("home".into()));
    conn.change_user(options).await.unwrap();
    assert_eq!(refusal(&mut conn, sql).await.0, 1429);
}

/// What became of the copies of statements that a rule matched: ran, left out, failed.
async fn mirrored(boss: &mut Conn, rule: &str) -> (u64, u64, u64) {
    let rows: Vec<Row> = boss.query("SHOW DBPROXY RULES").await.unwrap();
    let row = rows
        .iter()
        .find(|row| row.get::<String, _>("Rule").as_deref() == Some(rule))
        .unwrap();
    let count = |name: &str| row.get::<String, _>(name).unwrap().parse().unwrap();
    (count("Mirrored"), count("Left_out"), count("Failed"))
}

async fn copies_run_on_another_cluster(flavor: Flavor) {
    let rules = "[[rule]]\nname = \"copied\"\ntable = \"shop.*\"\nmirror = \"archive\"\n";
    let (shop, archive, proxy) = two(flavor, rules).await;
    archive.primary().run("CREATE DATABASE shop").await.unwrap();
    archive.caught_up().await.unwrap();
    let mut boss = Conn::new(login(proxy.port(), "boss", "boss"))
        .await
        .unwrap();
    let mut conn = proxy.connect().await;
    conn.query_drop("USE shop").await.unwrap();
    conn.query_drop("CREATE TABLE t (id INT PRIMARY KEY, n BIGINT, name VARCHAR(20))")
        .await
        .unwrap();
    assert_eq!(
        explained(&mut conn, "DELETE FROM t", "Mirror")
            .await
            .as_deref(),
        Some("archive")
    );
    let insert = conn.prep("INSERT INTO t VALUES (?, 1, ?)").await.unwrap();
    let mut copies = 1;
    for number in 0..30_u64 {
        // One after the other, in the session's state.
        conn.exec_drop(&insert, (number, "prepared")).await.unwrap();
        conn.query_drop("UPDATE t SET n = (n * 3 + 1) % 1000003")
            .await
            .unwrap();
        conn.query_drop(format!("SET time_zone = '+{:02}:00'", number % 12))
            .await
            .unwrap();
        conn.query_drop("UPDATE t SET name = @@time_zone WHERE n % 2 = 0")
            .await
            .unwrap();
        copies += 3;
    }
    let reads: Vec<u64> = conn.query("SELECT id FROM t").await.unwrap();
    assert_eq!(reads.len(), 30);
    copies += 1;
    let sum = "SELECT CONCAT(COUNT(*), '/', SUM(n), '/', SUM(CRC32(name))) FROM shop.t";
    let expected: String = shop.primary().first(sum).await.unwrap();
    eventually("all copies to have run", async || {
        mirrored(&mut boss, "copied").await == (copies, 0, 0)
    })
    .await;
    assert_eq!(
        archive.primary().first::<String>(sum).await.unwrap(),
        expected
    );
    // Not what fails, nor what makes no sense alone.
    assert_eq!(
        refusal(&mut conn, "INSERT INTO t VALUES (1, 1, '')")
            .await
            .0,
        1062
    );
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("DELETE FROM t").await.unwrap();
    conn.query_drop("ROLLBACK").await.unwrap();
    conn.query_drop("DELETE FROM t WHERE id = 0; DELETE FROM t WHERE id = 1")
        .await
        .unwrap();
    conn.query_drop("DELETE FROM t WHERE id = 3").await.unwrap();
    eventually("the last copy to have run", async || {
        mirrored(&mut boss, "copied").await.0 > copies
    })
    .await;
    assert_eq!(mirrored(&mut boss, "copied").await, (copies + 1, 2, 0));
    assert_eq!(
        archive
            .primary()
            .first::<u32>("SELECT COUNT(*) FROM shop.t")
            .await
            .unwrap(),
        29
    );
}

async fn copies_hurt_nobody(flavor: Flavor) {
    let rules =
        "[[rule]]\nname = \"copied\"\ntable = [\"test.t\", \"shop.*\"]\nmirror = \"archive\"\n";
    let (shop, archive, proxy) = two(flavor, rules).await;
    let mut boss = Conn::new(login(proxy.port(), "boss", "boss"))
        .await
        .unwrap();
    let mut conn = proxy.connect().await;
    conn.query_drop("CREATE TABLE test.t (a INT)")
        .await
        .unwrap();
    eventually("the table to be there", async || {
        mirrored(&mut boss, "copied").await == (1, 0, 0)
    })
    .await;
    // What is not there fails there only, and the log does not quote it.
    conn.query_drop("INSERT INTO shop.mark VALUES ('psst')")
        .await
        .unwrap();
    eventually("it to have failed", async || {
        mirrored(&mut boss, "copied").await == (1, 0, 1)
    })
    .await;
    let log = proxy.log();
    assert!(
        log.contains("a mirrored statement has failed") && !log.contains("psst"),
        "{log}"
    );
    // Who is nobody there has no copies.
    let mut homely = Conn::new(login(proxy.port(), "homely", "home"))
        .await
        .unwrap();
    homely
        .query_drop("INSERT INTO test.t VALUES (0)")
        .await
        .unwrap();
    eventually("it to be left out", async || {
        mirrored(&mut boss, "copied").await == (1, 1, 1)
    })
    .await;
    let mut twin = Conn::new(login(proxy.port(), "twin", "one")).await.unwrap();
    twin.query_drop("INSERT INTO test.t VALUES (0)")
        .await
        .unwrap();
    eventually("it to be refused", async || {
        mirrored(&mut boss, "copied").await == (1, 1, 2)
    })
    .await;

    // A cluster that does not keep up loses copies, and holds up nobody.
    let mut lock = Conn::new(login(archive.primary().port(), "boss", "boss"))
        .await
        .unwrap();
    lock.query_drop("LOCK TABLES test.t WRITE").await.unwrap();
    for number in 0..1_100_u32 {
        conn.query_drop(format!("INSERT INTO test.t VALUES ({number})"))
            .await
            .unwrap();
    }
    eventually("the others to be left out", async || {
        mirrored(&mut boss, "copied").await == (1, 101, 2)
    })
    .await;
    drop(lock);
    eventually("others to have run", async || {
        mirrored(&mut boss, "copied").await.0 > 50
    })
    .await;
    let count = "SELECT COUNT(*) FROM test.t";
    assert!(archive.primary().first::<u32>(count).await.unwrap() >= 50);
    assert_eq!(shop.primary().first::<u32>(count).await.unwrap(), 1_102);
    drop(archive);
    for number in 0..100_u32 {
        conn.query_drop(format!("INSERT INTO test.t VALUES ({number})"))
            .await
            .unwrap();
    }
    eventually("the copies to have failed", async || {
        mirrored(&mut boss, "copied").await.2 > 2
    })
    .await;
    assert_eq!(
        one::<u32>(&mut conn, "SELECT COUNT(*) FROM test.t").await,
        1_202
    );
}
