//! Rules: what each condition and each action does to statements on real servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::fs;

use dbproxy::cli::demo::cluster::{self, Flavor};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use support::raw::{Raw, capability};
use support::{Options, Rig, WHERE, eventually, one, whereabouts};

on_both_flavors!(
    reads_go_where_a_rule_says,
    answers_without_a_server,
    statements_are_rewritten,
    statements_are_ended_in_time,
    answers_have_a_limit,
    statements_have_a_limit,
    rules_are_read_again,
    long_statements_are_ruled_too,
    what_was_not_seen_passes_no_rule,
    a_failed_change_of_user_keeps_the_program,
    rules_tell_what_they_did,
    a_firewall_learns,
    priorities_order_the_line,
    answers_are_kept,
    kept_answers_are_nobody_elses,
    executions_without_types_find_theirs,
    rules_keep_nothing_open,
);

/// A row of `SHOW DBPROXY RULES`: name, conditions, actions, hits, last match, and what became of copies.
type RuleRow = (
    String,
    String,
    String,
    u64,
    String,
    Option<u64>,
    Option<u64>,
    Option<u64>,
);

/// Number and text of the error that a statement ends with.
async fn refusal(conn: &mut Conn, sql: &str) -> (u16, String) {
    match conn.query_drop(sql).await {
        Err(Error::Server(error)) => (error.code, error.message),
        other => panic!("{sql}: {other:?}"),
    }
}

async fn explained(conn: &mut Conn, sql: &str, column: &str) -> Option<String> {
    let row: Row = conn
        .query_first(format!("EXPLAIN ROUTE {sql}"))
        .await
        .unwrap()
        .unwrap();
    row.get::<Option<String>, _>(column).unwrap()
}

async fn reads_go_where_a_rule_says(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        name = "reports"
        tag = "report"
        route = "group=reports"

        [[rule]]
        name = "one server"
        tag = "third"
        route = "server=db3"

        [[rule]]
        name = "not this table"
        table = "ruled.accounts"
        route = "primary"

        [[rule]]
        name = "whatever the hint"
        schema = "ruled_hints"
        kind = "read"
        route = "replica"

        [[rule]]
        name = "strictly"
        pattern = "(?i)where_am_i a$"
        consistency = "strong"
    "#;
    let options = Options {
        cluster: "monotonic_reads = \"off\"\n".to_owned(),
        sections: rules.to_owned(),
        groups: vec![("db1", "web"), ("db2", "reports"), ("db3", "web")],
        ..Options::default()
    };
    let rig = Rig::start(flavor, 2, &options).await;
    rig.schema("ruled").await;
    rig.schema("ruled_hints").await;
    let mut conn = rig.connect().await;
    conn.query_drop("CREATE TABLE ruled.accounts SELECT name FROM test.where_am_i WHERE 1 = 0")
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let group = format!("/* dbproxy: tag=report */ {WHERE}");
    let server = format!("/* dbproxy: tag=third */ {WHERE}");
    let hint = format!("/* dbproxy: group=reports */ {WHERE}");
    let primary_too = format!("/* dbproxy: group=web */ {WHERE}");
    let nowhere = format!("/* dbproxy: group=nowhere */ {WHERE}");
    eventually("the replicas to have what was written", async || {
        one::<String>(&mut conn, &group).await == "db2"
    })
    .await;
    for _ in 0..10 {
        assert_eq!(one::<String>(&mut conn, &group).await, "db2");
        assert_eq!(one::<String>(&mut conn, &hint).await, "db2");
        assert_eq!(one::<String>(&mut conn, &server).await, "db3");
        // A group's replicas come first, and a group that nobody is in keeps no read from being answered.
        assert_eq!(one::<String>(&mut conn, &primary_too).await, "db3");
        assert_ne!(one::<String>(&mut conn, &nowhere).await, "db1");
        assert_eq!(one::<String>(&mut conn, &format!("{WHERE} a")).await, "db1");
        let prepared: Option<String> = conn.exec_first(&group, ()).await.unwrap();
        assert_eq!(prepared.as_deref(), Some("db2"));
    }
    let named =
        "SELECT name FROM test.where_am_i WHERE name NOT IN (SELECT name FROM ruled.accounts)";
    assert_eq!(one::<String>(&mut conn, named).await, "db1");
    conn.query_drop("USE ruled").await.unwrap();
    let unqualified = named.replace("ruled.accounts", "accounts");
    assert_eq!(one::<String>(&mut conn, &unqualified).await, "db1");
    assert_eq!(
        explained(&mut conn, &unqualified, "Reason")
            .await
            .as_deref(),
        Some("a rule asks for the primary")
    );
    assert_eq!(
        explained(&mut conn, &unqualified, "Rules").await.as_deref(),
        Some("not this table")
    );
    assert_eq!(explained(&mut conn, "SELECT 1", "Rules").await, None);
    conn.query_drop("USE ruled_hints").await.unwrap();
    let insists = format!("/* dbproxy: primary */ {WHERE}");
    assert_ne!(one::<String>(&mut conn, &insists).await, "db1");
    // No rule sends anything to a replica that may not go there.
    for sql in [
        format!("{insists} FOR UPDATE"),
        "INSERT INTO ruled.accounts VALUES ('x')".to_owned(),
        "/* dbproxy: tag=report */ DELETE FROM ruled.accounts".to_owned(),
    ] {
        assert_eq!(
            explained(&mut conn, &sql, "Target").await.as_deref(),
            Some("primary"),
            "{sql}"
        );
    }
    // A transaction stays where it is.
    conn.query_drop("BEGIN").await.unwrap();
    assert_eq!(one::<String>(&mut conn, &group).await, "db1");
    conn.query_drop("COMMIT").await.unwrap();
    // Without the group's server its reads go elsewhere.
    rig.cluster
        .server("db2")
        .unwrap()
        .run("STOP SLAVE SQL_THREAD")
        .await
        .unwrap_or(());
    rig.cluster
        .server("db2")
        .unwrap()
        .run("STOP REPLICA SQL_THREAD")
        .await
        .unwrap_or(());
    eventually("another server to take the group's reads", async || {
        one::<String>(&mut conn, &group).await == "db3"
    })
    .await;
    assert_eq!(
        explained(&mut conn, &group, "Reason").await.as_deref(),
        Some("read: no server of the group may serve it now, this replica may")
    );
}

async fn answers_without_a_server(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        name = "no deletes"
        kind = "write"
        pattern = "(?i)^\\s*delete(?-i).*$"
        block = "ask first"

        [[rule]]
        kind = "write"
        pattern = "TRUNCATE|nobody"
        block = { message = "never", code = 4000, state = "45001" }

        [[rule]]
        pattern = "^SELECT version_of_shop"
        answer = { columns = ["version", "since"], rows = [["2.1", 2026], ["2.0", {}]] }

        [[rule]]
        pattern = "^SET NAMES latin2"
        answer = "ok"

        [[rule]]
        kind = ["definition"]
        account = "app"
        listener = "LISTENER"
        block = "not from here"

        [[rule]]
        application = "batch"
        block = "no batches"
    "#;
    let options = Options {
        sections: rules.to_owned(),
        ..Options::default()
    };
    // The listener's address has a port that only the proxy's start knows.
    let cluster = cluster::Cluster::start(flavor, 1).await.unwrap();
    let second = cluster::ReservedPort::take().unwrap();
    let address = format!("127.0.0.1:{}", second.number());
    let options = Options {
        sections: options.sections.replace("LISTENER", &address),
        listen: format!("mysql_tls = [\"{address}\"]"),
        ..options
    };
    let proxy = support::Proxy::start(&cluster, &options).await;
    proxy.knows_replicas(1).await;
    let mut conn = proxy.connect().await;
    conn.query_drop("CREATE TABLE test.kept (a INT)")
        .await
        .unwrap();
    conn.query_drop("INSERT INTO test.kept VALUES (1)")
        .await
        .unwrap();
    for sql in ["DELETE FROM test.kept", "  delete from test.kept"] {
        assert_eq!(
            refusal(&mut conn, sql).await,
            (1227, "ask first".to_owned())
        );
    }
    match conn.query_drop("INSERT INTO test.nobody VALUES (1)").await {
        Err(Error::Server(error)) => {
            assert_eq!((error.code, error.state.as_str()), (4000, "45001"));
            assert_eq!(error.message, "never");
        }
        other => panic!("{other:?}"),
    }
    // Prepared ones too, when they are prepared.
    let error = conn
        .exec_drop("DELETE FROM test.kept WHERE a = ?", (1,))
        .await;
    assert!(matches!(error, Err(Error::Server(error)) if error.code == 1227));
    assert_eq!(
        one::<u64>(&mut conn, "SELECT COUNT(*) FROM test.kept").await,
        1
    );
    let rows: Vec<(String, Option<u32>)> = conn.query("SELECT version_of_shop").await.unwrap();
    assert_eq!(
        rows,
        [("2.1".to_owned(), Some(2026)), ("2.0".to_owned(), None)]
    );
    // Where it cannot be answered, a driver is told to send the text.
    let error = conn.exec_drop("SELECT version_of_shop", ()).await;
    assert!(matches!(error, Err(Error::Server(error)) if error.code == 1295));
    conn.query_drop("SET NAMES latin2").await.unwrap();
    let charset: String = one(&mut conn, "SELECT @@character_set_client").await;
    assert_ne!(charset, "latin2");
    assert_eq!(
        refusal(&mut conn, "SELECT 1 /*controller='x',application='batch'*/")
            .await
            .1,
        "no batches"
    );
    // In the middle of a transaction only the statement fails, and what ends it is never refused.
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("INSERT INTO test.kept VALUES (2)")
        .await
        .unwrap();
    refusal(&mut conn, "DELETE FROM test.kept").await;
    conn.query_drop("COMMIT").await.unwrap();
    assert_eq!(
        one::<u64>(&mut conn, "SELECT COUNT(*) FROM test.kept").await,
        2
    );
    // The rule for the other listener does not concern this one.
    conn.query_drop("CREATE TABLE test.here (a INT)")
        .await
        .unwrap();
    let options = support::login(second.number(), "app", "app").ssl_opts(
        mysql_async::SslOpts::default()
            .with_danger_accept_invalid_certs(true)
            .with_danger_skip_domain_validation(true),
    );
    let mut there = Conn::new(options).await.unwrap();
    assert_eq!(
        refusal(&mut there, "CREATE TABLE test.there (a INT)")
            .await
            .1,
        "not from here"
    );
}

async fn statements_are_rewritten(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        pattern = "FROM old_(\\w+)"
        rewrite = "FROM rewritten.new_$1"

        [[rule]]
        digest = "DIGEST"
        rewrite = "SELECT ?2 AS second, ?1 AS first"

        [[rule]]
        tag = "broken"
        rewrite = "SELECT ?9"
    "#;
    let sql = "SELECT 'a', 7 FROM DUAL WHERE 1 = 1";
    let digest = dbproxy::sql::classify(sql.as_bytes(), dbproxy::sql::Dialect::default()).digest;
    let options = Options {
        sections: rules.replace("DIGEST", &format!("{digest:016x}")),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    rig.schema("rewritten").await;
    let mut conn = rig.connect().await;
    conn.query_drop("CREATE TABLE rewritten.new_users (a INT)")
        .await
        .unwrap();
    conn.query_drop("INSERT INTO rewritten.new_users VALUES (41), (42)")
        .await
        .unwrap();
    let found: Vec<u32> = conn
        .query("SELECT a FROM old_users ORDER BY a")
        .await
        .unwrap();
    assert_eq!(found, [41, 42]);
    for wanted in [41, 42] {
        let sql = "SELECT a FROM old_users WHERE a = ?";
        let found: Option<u32> = conn.exec_first(sql, (wanted,)).await.unwrap();
        assert_eq!(found, Some(wanted));
    }
    let row: (u32, String) = conn
        .query_first("SELECT 'it''s', 8 FROM DUAL WHERE 1 = 1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row, (8, "it's".to_owned()));
    let (code, text) = refusal(&mut conn, "/* dbproxy: tag=broken */ SELECT 1").await;
    assert_eq!(code, 1105);
    assert!(text.contains("literal 9, and there are 1"), "{text}");
    // Comments and hints of the statement stay where the pattern is not.
    let read = "/* dbproxy: primary */ SELECT COUNT(*) FROM old_users";
    assert_eq!(one::<u64>(&mut conn, read).await, 2);
}

async fn statements_are_ended_in_time(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        name = "patience"
        pattern = "SLEEP"
        timeout = "200ms"
    "#;
    let options = Options {
        sections: rules.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut conn = rig.connect().await;
    // SLEEP() itself takes a KILL QUERY for an answer: something behind it has to fail.
    let slow = "SELECT COUNT(*) FROM test.where_am_i a WHERE SLEEP(600) = 0 AND (SELECT COUNT(*) FROM test.where_am_i) > 0";
    let update = "UPDATE test.patience SET a = SLEEP(600)";
    conn.query_drop("CREATE TABLE test.patience (a INT)")
        .await
        .unwrap();
    conn.query_drop("INSERT INTO test.patience VALUES (5), (5)")
        .await
        .unwrap();
    for sql in [update, update] {
        let (code, text) = refusal(&mut conn, sql).await;
        assert_eq!(code, 3024, "{text}");
        assert_eq!(
            text,
            "dbproxy: rule \"patience\" ended the statement, which took longer than 200ms"
        );
    }
    let error = conn
        .exec_drop("UPDATE test.patience SET a = SLEEP(?)", (600,))
        .await;
    assert!(matches!(error, Err(Error::Server(error)) if error.code == 3024));
    // What is quick is let alone, also on the connection that was used for the slow one.
    for _ in 0..20 {
        assert_eq!(one::<u32>(&mut conn, "SELECT SLEEP(0)").await, 0);
    }
    // Servers answer a query whose SLEEP() alone was interrupted with its rows, or with an error: it ends, in any case.
    let _ = conn.query_drop(slow).await;
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("INSERT INTO test.patience VALUES (6)")
        .await
        .unwrap();
    assert_eq!(refusal(&mut conn, update).await.0, 3024);
    conn.query_drop("COMMIT").await.unwrap();
    let sum: u32 = one(
        &mut conn,
        "SELECT CAST(SUM(a) AS SIGNED) FROM test.patience",
    )
    .await;
    assert_eq!(sum, 16);
}

async fn answers_have_a_limit(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        tag = "few"
        limit.rows = 100

        [[rule]]
        tag = "short"
        limit.bytes = 100000
    "#;
    let options = Options {
        sections: rules.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut conn = rig.connect().await;
    let digits = "(SELECT 0 UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 \
                  UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
    let rows = |tag: &str, tens: usize| {
        let from: Vec<_> = (0..tens).map(|n| format!("{digits} d{n}")).collect();
        format!(
            "/* dbproxy: tag={tag} */ SELECT REPEAT('x', 50) FROM {}",
            from.join(", ")
        )
    };
    assert_eq!(
        conn.query::<String, _>(rows("few", 2)).await.unwrap().len(),
        100
    );
    for (tag, tens, unit) in [
        ("few", 3, "100 rows"),
        ("few", 6, "100 rows"),
        ("short", 4, "100000 bytes"),
    ] {
        let (code, text) = refusal(&mut conn, &rows(tag, tens)).await;
        assert_eq!(code, 1226);
        assert!(
            text.ends_with(&format!("allows {unit} in an answer")),
            "{text}"
        );
        let error = conn.exec_drop(rows(tag, tens), ()).await;
        assert!(matches!(error, Err(Error::Server(error)) if error.code == 1226));
    }
    assert_eq!(
        conn.query::<String, _>(rows("short", 3))
            .await
            .unwrap()
            .len(),
        1_000
    );
    // What writes has happened: it is not said to have failed.
    conn.query_drop("CREATE TABLE test.many (a VARCHAR(50))")
        .await
        .unwrap();
    conn.query_drop(rows("few", 3).replace("SELECT REPEAT", "INSERT INTO test.many SELECT REPEAT"))
        .await
        .unwrap();
    assert_eq!(
        one::<u64>(&mut conn, "SELECT COUNT(*) FROM test.many").await,
        1_000
    );
    // A transaction goes on.
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("INSERT INTO test.many VALUES ('y')")
        .await
        .unwrap();
    assert_eq!(refusal(&mut conn, &rows("few", 6)).await.0, 1226);
    conn.query_drop("COMMIT").await.unwrap();
    assert_eq!(
        one::<u64>(&mut conn, "SELECT COUNT(*) FROM test.many").await,
        1_001
    );
}

async fn statements_have_a_limit(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        name = "slowly"
        tag = "slow"
        limit.per_second = 3
        limit.per = "account"

        [[rule]]
        name = "one by one"
        tag = "alone"
        limit.concurrency = 1
    "#;
    let options = Options {
        sections: format!("{rules}\n[limits]\nqueue_wait = \"300ms\"\n"),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut other = Conn::new(rig.account("other").await).await.unwrap();
    let mut conn = rig.connect().await;
    let sql = "/* dbproxy: tag=slow */ SELECT 1";
    let mut refused = None;
    for _ in 0..1_000 {
        if let Err(error) = conn.query_drop(sql).await {
            refused = Some(error);
            break;
        }
    }
    match refused {
        Some(Error::Server(error)) => {
            assert_eq!(error.code, 1226);
            assert_eq!(
                error.message,
                "dbproxy: rule \"slowly\" allows 3 statements in a second"
            );
        }
        other => panic!("{other:?}"),
    }
    // Another account has its own, and it comes back.
    other.query_drop(sql).await.unwrap();
    eventually("another second", async || {
        conn.query_drop(sql).await.is_ok()
    })
    .await;
    // Two at a time wait for each other; one that waits too long is told.
    let sleeping = "/* dbproxy: tag=alone */ SELECT SLEEP(600)";
    let id: u32 = one(&mut other, "SELECT CONNECTION_ID()").await;
    let sleeper = tokio::spawn(async move {
        let _ = other.query_drop(sleeping).await;
        other
    });
    let quick = "/* dbproxy: tag=alone */ SELECT 2";
    let mut message = String::new();
    eventually("the place to be taken", async || {
        match conn.query_drop(quick).await {
            Err(Error::Server(error)) => {
                message = error.message;
                error.code == 1226
            }
            _ => false,
        }
    })
    .await;
    assert_eq!(
        message,
        "dbproxy: rule \"one by one\" allows 1 statements at a time, and none ended within 300ms"
    );
    let mut again = Conn::new(rig.account("other").await).await.unwrap();
    again.query_drop(format!("KILL QUERY {id}")).await.unwrap();
    let mut other = sleeper.await.unwrap();
    conn.query_drop(quick).await.unwrap();
    other.query_drop(quick).await.unwrap();
}

async fn rules_are_read_again(flavor: Flavor) {
    let rig = Rig::start(flavor, 1, &Options::default()).await;
    let mut conn = rig.connect().await;
    let mut prepared = rig.connect().await;
    let statement = prepared.prep(WHERE).await.unwrap();
    assert_eq!(whereabouts(&mut conn).await, "db2");
    let file = rig.proxy.configuration();
    let before = fs::read_to_string(&file).unwrap();
    // A file that cannot be used changes nothing, and says why.
    fs::write(
        &file,
        format!("{before}\n[[rule]]\nkind = \"raed\"\nroute = \"primary\"\n"),
    )
    .unwrap();
    eventually("the mistake to be told", async || {
        rig.proxy.log().contains("did you mean \\\"read\\\"?")
            || rig.proxy.log().contains("did you mean \"read\"?")
    })
    .await;
    assert_eq!(whereabouts(&mut conn).await, "db2");
    fs::write(
        &file,
        format!("{before}\n[[rule]]\nname = \"home\"\nkind = \"read\"\nroute = \"primary\"\n"),
    )
    .unwrap();
    eventually("the new rule to count", async || {
        whereabouts(&mut conn).await == "db1"
    })
    .await;
    // For statements that were prepared before it as well.
    let place: Option<String> = prepared.exec_first(&statement, ()).await.unwrap();
    assert_eq!(place.as_deref(), Some("db1"));
    let log = rig.proxy.log();
    assert!(
        log.contains("rule \\\"home\\\" is new") || log.contains("rule \"home\" is new"),
        "{log}"
    );
    // By a signal, and with the cluster's consistency.
    fs::write(
        &file,
        before.replace(
            "[cluster]",
            "[cluster]\nconsistency = \"strong\"\nmax_lag = \"3s\"",
        ),
    )
    .unwrap();
    cluster::signal(rig.proxy.pid(), "HUP").unwrap();
    eventually("the rule to be gone", async || {
        explained(&mut conn, WHERE, "Reason").await.as_deref()
            == Some("read: consistency is strong")
    })
    .await;
    assert_eq!(explained(&mut conn, WHERE, "Rules").await, None);
    eventually("what needs a restart to be told", async || {
        rig.proxy.log().contains("cluster.max_lag")
    })
    .await;
}

async fn long_statements_are_ruled_too(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        pattern = "INTO test.closed"
        block = "closed"

        [[rule]]
        pattern = "INTO test.other"
        rewrite = "INTO test.long_one"
    "#;
    let options = Options {
        sections: rules.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut conn = rig.connect().await;
    conn.query_drop("CREATE TABLE test.long_one (a LONGTEXT)")
        .await
        .unwrap();
    let insert = |table: &str| {
        format!(
            "INSERT INTO test.{table} VALUES ('{}')",
            "x".repeat(3 << 20)
        )
    };
    assert_eq!(refusal(&mut conn, &insert("closed")).await.1, "closed");
    let (_, text) = refusal(&mut conn, &insert("other")).await;
    assert!(text.contains("too long"), "{text}");
    conn.query_drop(insert("long_one")).await.unwrap();
    assert_eq!(
        one::<u64>(&mut conn, "SELECT COUNT(*) FROM test.long_one").await,
        1
    );
}

async fn what_was_not_seen_passes_no_rule(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        name = "reads"
        kind = "read"
        pattern = "/\\* read \\*/"
        block = "a read"

        [[rule]]
        name = "locked"
        kind = "primary-read"
        pattern = "/\\* either \\*/"
        block = "it may lock"

        [[rule]]
        kind = ["read", "primary-read", "write", "set", "definition", "administration"]
        log = true

        [[rule]]
        block = "nothing else"
    "#;
    let options = Options {
        sections: rules.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let connected = async |capabilities: u32| {
        let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
        raw.login("app", "app", None, capabilities).await.unwrap();
        raw
    };
    let single = capability::USUAL & !capability::MULTI_STATEMENTS;
    let mut raw = connected(single).await;
    let long = "x".repeat(3 << 20);
    let blanks = " ".repeat(3 << 20);
    for (sql, code, text) in [
        (format!("{blanks}DROP TABLE test.t"), 1227, "nothing else"),
        (
            format!("/*{blanks}*/ DROP TABLE test.t"),
            1227,
            "nothing else",
        ),
        (
            format!("SELECT /* read */ LENGTH('{long}')"),
            1227,
            "a read",
        ),
        (
            format!("SELECT /* either */ LENGTH('{long}')"),
            1227,
            "it may lock",
        ),
        // What would break the cluster is refused as in short ones.
        (format!("STOP SLAVE /* {long} */"), 1290, "STOP SLAVE"),
        (
            format!("SET GLOBAL server_id = LENGTH('{long}')"),
            1290,
            "server_id",
        ),
    ] {
        let refused = raw.rows(&sql).await.unwrap_err();
        assert_eq!(refused.code, code, "{}", refused.message);
        assert!(refused.message.contains(text), "{}", refused.message);
    }
    let select = format!("SELECT LENGTH('{long}')");
    let rows = raw.rows(&select).await.unwrap();
    assert_eq!(rows, [[Some(long.len().to_string())]]);
    // Another statement could follow.
    let mut raw = connected(capability::USUAL).await;
    let refused = raw.rows(&select).await.unwrap_err();
    assert_eq!(refused.message, "nothing else");
    if flavor == Flavor::MySql {
        // Attributes that fill what is looked at.
        let mut raw = connected(single | capability::QUERY_ATTRIBUTES).await;
        let mut query = vec![0x03, 1, 1, 0, 1, 0xfe, 0, 1, b'a', 0xfd, 0, 0, 0x20];
        query.extend(vec![b'x'; 2 << 20]);
        query.extend_from_slice(b"DROP TABLE test.t");
        raw.send(&query).await;
        assert_eq!(raw.refused().await.message, "nothing else");
    }
}

/// MariaDB goes on with the user before; MySQL ends the session.
async fn a_failed_change_of_user_keeps_the_program(flavor: Flavor) {
    let options = Options {
        sections: "[[rule]]\napplication = \"batch\"\nblock = \"no batches\"\n".to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
    raw.program = Some("batch");
    raw.login("app", "app", None, capability::USUAL)
        .await
        .unwrap();
    assert_eq!(
        raw.rows("SELECT 1").await.unwrap_err().message,
        "no batches"
    );
    raw.program = Some("shop");
    raw.change_user("app", "app", "no_such_schema")
        .await
        .unwrap_err();
    if flavor == Flavor::MariaDb {
        assert_eq!(
            raw.rows("SELECT 1").await.unwrap_err().message,
            "no batches"
        );
        raw.change_user("app", "app", "").await.unwrap();
        raw.rows("SELECT 1").await.unwrap();
    }
}

async fn rules_tell_what_they_did(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        name = "watched"
        table = "where_am_i"
        log = true
        continue = true

        [[rule]]
        name = "every second"
        tag = "half"
        sample = 0.5
        route = "primary"

        [[rule]]
        name = "never"
        schema = "nowhere"
        block = "no"
    "#;
    let options = Options {
        cluster: "monotonic_reads = \"off\"\n".to_owned(),
        sections: rules.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut conn = rig.connect().await;
    let sql = "/* dbproxy: tag=half */ SELECT name, 'secret words' FROM test.where_am_i";
    let mut primary = 0;
    for _ in 0..20 {
        let (name, _): (String, String) = conn.query_first(sql).await.unwrap().unwrap();
        primary += u32::from(name == "db1");
    }
    assert_eq!(primary, 10);
    // The client has its answer before.
    let mut logged = Vec::new();
    eventually("the statements to be logged", async || {
        let log = rig.proxy.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("watched, every second"));
        logged = lines.map(str::to_owned).collect();
        logged.len() == 10
    })
    .await;
    let first = &logged[0];
    assert!(
        first.contains("server=\"db1\"") && first.contains("SELECT NAME, ? FROM"),
        "{first}"
    );
    let log = rig.proxy.log();
    assert!(!log.contains("secret words"));
    // Only those who may administer the server see them.
    assert_eq!(refusal(&mut conn, "SHOW DBPROXY RULES").await.0, 1227);
    rig.cluster
        .primary()
        .run("CREATE USER boss@'%' IDENTIFIED BY 'boss'; GRANT ALL ON *.* TO boss@'%'")
        .await
        .unwrap();
    let options = support::login(rig.proxy.port(), "boss", "boss");
    let mut boss = loop {
        if let Ok(conn) = Conn::new(options.clone()).await {
            break conn;
        }
    };
    let rules: Vec<RuleRow> = boss.query("SHOW DBPROXY RULES").await.unwrap();
    let told: Vec<_> = rules
        .iter()
        .map(|(name, matches, does, ..)| (name.as_str(), matches.as_str(), does.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                "watched",
                "table = *.where_am_i",
                "log = true, continue = true"
            ),
            (
                "every second",
                "tag = half, sample = 0.5",
                "route = primary"
            ),
            ("never", "schema = nowhere", "block = 1227 no"),
        ]
    );
    assert_eq!((rules[1].3, rules[2].3), (10, 0));
    assert!(rules[0].3 >= 20);
    assert_eq!((rules[0].5, rules[0].6, rules[0].7), (None, None, None));
    assert!(rules[1].4.starts_with("20") && rules[2].4 == "never");
}

async fn a_firewall_learns(flavor: Flavor) {
    let options = Options {
        sections: "[[rule]]\nname = \"web\"\naccount = \"app\"\nfirewall = \"learn\"\n".to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut conn = rig.connect().await;
    conn.query_drop("SELECT name FROM test.where_am_i WHERE name = 'a'")
        .await
        .unwrap();
    conn.exec_drop(
        "SELECT COUNT(*) FROM test.where_am_i WHERE name = ?",
        ("b",),
    )
    .await
    .unwrap();
    let boss = rig.account("boss").await;
    let grant = "GRANT ALL ON *.* TO boss@'%'";
    rig.cluster.primary().run(grant).await.unwrap();
    let mode = async |mode: &str| {
        let file = rig.proxy.configuration();
        let text = fs::read_to_string(&file).unwrap();
        let start = text.find("firewall = ").unwrap();
        let end = start + text[start..].find('\n').unwrap();
        let text = format!("{}firewall = \"{mode}\"{}", &text[..start], &text[end..]);
        fs::write(&file, text).unwrap();
        let told = format!("firewall = {mode}");
        eventually("the rule to change", async || {
            let mut conn = Conn::new(boss.clone()).await.unwrap();
            let rules: Vec<RuleRow> = conn.query("SHOW DBPROXY RULES").await.unwrap_or_default();
            rules.iter().any(|rule| rule.2 == told)
        })
        .await;
    };
    mode("detect").await;
    // Rules concern the account app alone.
    let injected = "SELECT name FROM test.where_am_i WHERE name = 'a' OR 1 = 1";
    conn.query_drop(injected).await.unwrap();
    eventually("the log to be told", async || {
        rig.proxy
            .log()
            .contains("the firewall has not learned this statement")
    })
    .await;
    mode("enforce").await;
    conn.query_drop("select name from test.where_am_i /* x */ where name = 'another'")
        .await
        .unwrap();
    let found: Option<u64> = conn
        .exec_first(
            "SELECT COUNT(*) FROM test.where_am_i WHERE name = ?",
            ("db1",),
        )
        .await
        .unwrap();
    assert!(found.is_some());
    let (code, text) = refusal(&mut conn, injected).await;
    assert_eq!(code, 1227);
    assert_eq!(
        text,
        "dbproxy: rule \"web\": the firewall has not learned this statement"
    );
    let error = conn.exec_drop("SELECT ? FROM test.where_am_i", (1,)).await;
    assert!(matches!(error, Err(Error::Server(error)) if error.code == 1227));
    let long = format!("SELECT '{}'", "x".repeat(2 << 20));
    assert!(
        refusal(&mut conn, &long)
            .await
            .1
            .contains("too long for the firewall")
    );
    let mut boss = Conn::new(boss.clone()).await.unwrap();
    let met: Vec<(String, String, u64, Option<String>, String)> =
        boss.query("SHOW DBPROXY FIREWALL").await.unwrap();
    let state = |part: &str| {
        met.iter()
            .find(|met| met.4.contains(part))
            .map(|met| met.1.clone())
    };
    assert_eq!(state("OR").as_deref(), Some("unknown"));
    assert_eq!(state("COUNT").as_deref(), Some("learned"));
    // It outlives the process.
    let kept = rig
        .proxy
        .configuration()
        .with_file_name("state")
        .join("firewall.json");
    eventually("it to be kept", async || {
        fs::read_to_string(&kept).is_ok_and(|text| text.contains("COUNT"))
    })
    .await;
    let text = fs::read_to_string(&kept).unwrap();
    assert!(!text.contains(" OR ") && !text.contains("'a'"), "{text}");
}

async fn priorities_order_the_line(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        tag = "first"
        priority = "high"

        [[rule]]
        tag = "last"
        priority = "low"
    "#;
    let options = Options {
        sections: format!("{rules}\n[limits]\nserver_connections = 1\n"),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut holder = rig.connect().await;
    holder
        .query_drop("CREATE TABLE test.line (a INT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(9))")
        .await
        .unwrap();
    let mut clients = Vec::new();
    for who in ["last", "usual", "first"] {
        clients.push((who, rig.connect().await));
    }
    holder.query_drop("BEGIN").await.unwrap();
    holder
        .query_drop("INSERT INTO test.line (who) VALUES ('holder')")
        .await
        .unwrap();
    let mut waiting = Vec::new();
    for (number, (who, mut conn)) in clients.into_iter().enumerate() {
        let sql = format!("/* dbproxy: tag={who} */ INSERT INTO test.line (who) VALUES ('{who}')");
        waiting.push(tokio::spawn(async move { conn.query_drop(sql).await }));
        // They come one after the other: each waits before the next one does.
        eventually("it to wait", async || {
            rig.proxy.log().matches("waits for a connection").count() > number
        })
        .await;
    }
    holder.query_drop("COMMIT").await.unwrap();
    for one in waiting {
        one.await.unwrap().unwrap();
    }
    let order: Vec<String> = holder
        .query("SELECT who FROM test.line ORDER BY a")
        .await
        .unwrap();
    assert_eq!(order, ["holder", "first", "usual", "last"]);
}

async fn answers_are_kept(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        name = "kept"
        pattern = "FROM (test\\.)?prices|, NOW"
        cache = "10m"
        log = true
    "#;
    let options = Options {
        sections: rules.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut conn = rig.connect().await;
    for sql in [
        "CREATE TABLE test.prices (id INT PRIMARY KEY, price INT)",
        "CREATE TABLE test.others (id INT PRIMARY KEY)",
        "INSERT INTO test.prices VALUES (1, 10), (2, 20)",
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    rig.cluster.caught_up().await.unwrap();
    // What is changed behind the proxy's back shows where an answer comes from.
    let mut price = 100;
    let mut change = async || {
        price += 1;
        let sql = format!("UPDATE test.prices SET price = {price} WHERE id = 1");
        rig.cluster.primary().run(&sql).await.unwrap();
        rig.cluster.caught_up().await.unwrap();
        price
    };
    let sql = "SELECT price FROM test.prices WHERE id = 1";
    let prepared = "SELECT price FROM test.prices WHERE id = ?";
    let before: u32 = one(&mut conn, sql).await;
    assert_eq!(before, 10);
    assert_eq!(
        conn.exec_first::<u32, _, _>(prepared, (1,)).await.unwrap(),
        Some(10)
    );
    let now = change().await;
    assert_eq!(one::<u32>(&mut conn, sql).await, 10);
    assert_eq!(
        conn.exec_first::<u32, _, _>(prepared, (1,)).await.unwrap(),
        Some(10)
    );
    // Of another statement, other parameters, another client of the account in another state, and another account it is not the answer.
    assert_eq!(one::<u32>(&mut conn, &format!("{sql} -- again")).await, now);
    assert_eq!(
        conn.exec_first::<u32, _, _>(prepared, (2,)).await.unwrap(),
        Some(20)
    );
    let mut second = rig.connect().await;
    assert_eq!(one::<u32>(&mut second, sql).await, 10);
    second.query_drop("USE test").await.unwrap();
    assert_eq!(one::<u32>(&mut second, sql).await, now);
    let mut other = Conn::new(rig.account("other").await).await.unwrap();
    assert_eq!(one::<u32>(&mut other, sql).await, now);
    // Nor is it in a transaction, or where somebody wants to see everything.
    conn.query_drop("BEGIN").await.unwrap();
    assert_eq!(one::<u32>(&mut conn, sql).await, now);
    conn.query_drop("COMMIT").await.unwrap();
    assert_eq!(one::<u32>(&mut conn, sql).await, 10);
    let mut strong = rig.connect().await;
    strong
        .query_drop("SET @dbproxy_consistency = 'strong'")
        .await
        .unwrap();
    assert_eq!(one::<u32>(&mut strong, sql).await, now);
    // Writes of other tables change nothing; one of this table does, whoever makes it, and it is seen at once.
    conn.query_drop("INSERT INTO test.others VALUES (1)")
        .await
        .unwrap();
    assert_eq!(one::<u32>(&mut conn, sql).await, 10);
    conn.query_drop("UPDATE test.prices SET price = 5 WHERE id = 1")
        .await
        .unwrap();
    assert_eq!(one::<u32>(&mut conn, sql).await, 5);
    assert_eq!(
        conn.exec_first::<u32, _, _>(prepared, (1,)).await.unwrap(),
        Some(5)
    );
    rig.cluster.caught_up().await.unwrap();
    change().await;
    assert_eq!(one::<u32>(&mut conn, sql).await, 5);
    // A transaction counts when it ends.
    other.query_drop("BEGIN").await.unwrap();
    other
        .exec_drop("UPDATE test.prices SET price = ? WHERE id = 1", (6,))
        .await
        .unwrap();
    assert_eq!(one::<u32>(&mut conn, sql).await, 5);
    other.query_drop("COMMIT").await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    assert_eq!(one::<u32>(&mut conn, sql).await, 6);
    change().await;
    assert_eq!(one::<u32>(&mut conn, sql).await, 6);
    // What is not understood may write anything.
    conn.query_drop("CREATE PROCEDURE test.nothing() SELECT 1")
        .await
        .unwrap();
    let now = change().await;
    assert_eq!(one::<u32>(&mut conn, sql).await, now);
    // What varies by itself is asked for each time.
    let first: String = one(
        &mut conn,
        "SELECT UUID() FROM test.prices, (SELECT 1) AS b, (SELECT NOW()) AS c LIMIT 1",
    )
    .await;
    let again: String = one(
        &mut conn,
        "SELECT UUID() FROM test.prices, (SELECT 1) AS b, (SELECT NOW()) AS c LIMIT 1",
    )
    .await;
    assert_ne!(first, again);
    assert!(rig.proxy.log().contains("statement, from the cache"));
}

async fn kept_answers_are_nobody_elses(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        kind = "read"
        table = "prices"
        cache = "10m"
    "#;
    let options = Options {
        sections: rules.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut conn = rig.connect().await;
    for schema in ["first", "second"] {
        for sql in [
            format!("CREATE DATABASE {schema}"),
            format!("CREATE TABLE {schema}.prices (id INT PRIMARY KEY, name VARCHAR(9))"),
            format!("INSERT INTO {schema}.prices VALUES (1, '{schema}'), (2, 'two')"),
        ] {
            conn.query_drop(sql).await.unwrap();
        }
    }
    rig.cluster.caught_up().await.unwrap();
    // A prepared statement means what it meant when it was prepared, whatever schema is in use when it is executed.
    let sql = "SELECT name FROM prices WHERE id = 1";
    conn.query_drop("USE first").await.unwrap();
    let mut other = rig.connect().await;
    other.query_drop("USE second").await.unwrap();
    let of_first = conn.prep(sql).await.unwrap();
    let of_second = other.prep(sql).await.unwrap();
    conn.query_drop("USE second").await.unwrap();
    for _ in 0..3 {
        let name: Option<String> = conn.exec_first(&of_first, ()).await.unwrap();
        assert_eq!(name.as_deref(), Some("first"));
        let name: Option<String> = other.exec_first(&of_second, ()).await.unwrap();
        assert_eq!(name.as_deref(), Some("second"));
    }
    let change = conn
        .prep("UPDATE second.prices SET name = ? WHERE id = 1")
        .await
        .unwrap();
    let unqualified = other
        .prep("UPDATE prices SET name = ? WHERE id = 1")
        .await
        .unwrap();
    other.query_drop("USE first").await.unwrap();
    for (name, statement) in [("a", &change), ("b", &unqualified)] {
        let writer = if name == "a" { &mut conn } else { &mut other };
        writer.exec_drop(statement, (name,)).await.unwrap();
        let found: Option<String> = other.exec_first(&of_second, ()).await.unwrap();
        assert_eq!(found.as_deref(), Some(name));
    }
    // A commit that begins the next transaction is a commit.
    let count = "SELECT COUNT(*) FROM first.prices";
    assert_eq!(one::<u32>(&mut other, count).await, 2);
    for end in ["COMMIT AND CHAIN", "BEGIN"] {
        let before: u32 = one(&mut other, count).await;
        conn.query_drop("BEGIN").await.unwrap();
        conn.query_drop(format!(
            "INSERT INTO first.prices VALUES ({}, 'x')",
            before + 1
        ))
        .await
        .unwrap();
        conn.query_drop(end).await.unwrap();
        assert_eq!(one::<u32>(&mut other, count).await, before + 1, "{end}");
        conn.query_drop("COMMIT").await.unwrap();
    }
    // FOUND_ROWS() is asked of the statement before, which has to have run.
    for _ in 0..2 {
        conn.query_drop("SELECT SQL_CALC_FOUND_ROWS id FROM first.prices LIMIT 1")
            .await
            .unwrap();
        assert_eq!(one::<u32>(&mut conn, "SELECT FOUND_ROWS()").await, 4);
    }
    // What may be old for one is not given to another who wants to see what was written.
    let stop = match flavor {
        Flavor::MariaDb => "STOP SLAVE SQL_THREAD",
        Flavor::MySql => "STOP REPLICA SQL_THREAD",
    };
    let replica = rig.cluster.server("db2").unwrap();
    replica.run(stop).await.unwrap();
    conn.query_drop("UPDATE first.prices SET name = 'new' WHERE id = 2")
        .await
        .unwrap();
    let name = "SELECT name FROM first.prices WHERE id = 2";
    other
        .query_drop("SET @dbproxy_consistency = 'eventual'")
        .await
        .unwrap();
    let _: String = one(&mut other, name).await;
    assert_eq!(one::<String>(&mut conn, name).await, "new");
    replica.run(&stop.replace("STOP", "START")).await.unwrap();
}

async fn executions_without_types_find_theirs(flavor: Flavor) {
    let rules = "[[rule]]\nkind = \"read\"\ncache = \"10m\"\n";
    let options = Options {
        sections: rules.to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    let sql = b"SELECT name, ? FROM test.where_am_i";
    let prepare = [&[0x16][..], sql].concat();
    let execute = |id: [u8; 4], types: &[u8], value: &[u8]| {
        let bound = u8::from(!types.is_empty());
        [&[0x17][..], &id, &[0, 1, 0, 0, 0, 0, bound], types, value].concat()
    };
    let long = [0x08, 0];
    let mut answers = Vec::new();
    for _ in 0..2 {
        let prepared = raw.exchange(&prepare).await;
        let id: [u8; 4] = prepared[0].1[1..5].try_into().unwrap();
        answers.push(
            raw.exchange(&execute(id, &long, &7_u64.to_le_bytes()))
                .await,
        );
        // This one brings none: they are those of the one before, which was answered from memory the second time.
        answers.push(raw.exchange(&execute(id, &[], &7_u64.to_le_bytes())).await);
        let other = raw.exchange(&execute(id, &[], &8_u64.to_le_bytes())).await;
        assert_ne!(other, answers[0]);
    }
    assert!(answers[0].len() > 3, "{answers:?}");
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
}

async fn rules_keep_nothing_open(flavor: Flavor) {
    let rules = r#"
        [[rule]]
        name = "writes"
        kind = "write"
        limit.concurrency = 1
        continue = true

        [[rule]]
        tag = "closed"
        block = "closed"

        [[rule]]
        pattern = "^SELECT slowly"
        rewrite = "SELECT COUNT(*) FROM test.locked WHERE SLEEP(600) = 0 AND (SELECT MAX(a) FROM test.locked) > 0"
        timeout = "200ms"

        [[rule]]
        pattern = "STATUS|PROCESSLIST"
        limit.rows = 2
    "#;
    let options = Options {
        sections: format!("{rules}\n[limits]\nqueue_wait = \"20s\"\n"),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 1, &options).await;
    let mut holder = rig.connect().await;
    holder
        .query_drop("CREATE TABLE test.locked (id INT PRIMARY KEY, a INT)")
        .await
        .unwrap();
    holder
        .query_drop("INSERT INTO test.locked VALUES (1, 1), (2, 2)")
        .await
        .unwrap();
    // Who waits for a lock has the only place. Who has the lock needs none.
    holder.query_drop("BEGIN").await.unwrap();
    holder
        .query_drop("UPDATE test.locked SET a = 5 WHERE id = 1")
        .await
        .unwrap();
    let mut waiter = rig.connect().await;
    let waiting = tokio::spawn(async move {
        waiter
            .query_drop("UPDATE test.locked SET a = 6 WHERE id = 1")
            .await
            .unwrap();
        waiter
    });
    let primary = rig.cluster.primary();
    eventually("it to wait for the lock", async || {
        let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'UPDATE test.locked SET a = 6%'";
        primary.first::<u64>(sql).await.unwrap() == 1
    })
    .await;
    holder
        .query_drop("UPDATE test.locked SET a = 7 WHERE id = 2")
        .await
        .unwrap();
    holder.query_drop("COMMIT").await.unwrap();
    waiting.await.unwrap();
    // XA goes through to its end.
    for sql in [
        "XA START 'x'",
        "INSERT INTO test.locked VALUES (3, 3)",
        "XA END 'x'",
        "XA PREPARE 'x'",
        "XA COMMIT 'x'",
    ] {
        holder
            .query_drop(format!(
                "/* dbproxy: tag={} */ {sql}",
                if sql.starts_with("XA") {
                    "closed"
                } else {
                    "open"
                }
            ))
            .await
            .unwrap();
    }
    // A rule that rewrites goes on to count when the statement is prepared.
    let text = holder.query_drop("SELECT slowly").await;
    let prepared = holder.exec_drop("SELECT slowly", ()).await;
    for ended in [text, prepared] {
        // Servers end a SLEEP() that is interrupted with its rows, or with the error.
        assert!(
            matches!(&ended, Err(Error::Server(error)) if error.code == 3024) || ended.is_ok(),
            "{ended:?}"
        );
    }
    // Lists that the proxy makes are whole.
    let status: Vec<(String, String)> = holder.query("SHOW STATUS").await.unwrap();
    assert!(status.len() > 100);
    assert!(
        !holder
            .query::<Row, _>("SHOW FULL PROCESSLIST")
            .await
            .unwrap()
            .is_empty()
    );
}
