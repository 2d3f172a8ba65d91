//! Clients that are idle, slow, half gone or ahead of their answers, and servers that close what is idle.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::time::Duration;

use dbproxy::cli::demo::cluster::Flavor;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use support::raw::{Raw, Refused, capability, is_eof, packet, status_of_ok};
use support::{Options, Rig, SOON, eventually, within};

on_both_flavors!(
    an_idle_client_is_ended_as_a_server_ends_it,
    an_interactive_client_has_its_own_time,
    a_client_in_a_transaction_is_ended_by_its_server,
    a_busy_client_is_not_idle,
    servers_that_close_idle_connections_are_not_noticed,
    a_client_that_stops_within_a_command_is_ended,
    a_slow_but_steady_client_is_served,
    a_client_that_does_not_read_is_ended,
    a_half_closed_client_gets_its_answer,
    a_write_outlives_its_client,
    statements_before_a_quit_are_run,
    many_commands_at_once,
    commands_after_a_statement_that_runs,
);

/// Short limits.
async fn rig(flavor: Flavor) -> &'static Rig {
    static MARIADB: OnceCell<Rig> = OnceCell::const_new();
    static MYSQL: OnceCell<Rig> = OnceCell::const_new();
    let cell = match flavor {
        Flavor::MariaDb => &MARIADB,
        Flavor::MySql => &MYSQL,
    };
    cell.get_or_init(async || {
        let sections =
            "[limits]\nread_timeout = \"2s\"\nwrite_timeout = \"2s\"\nabandoned = \"1s\"\n";
        let options = Options {
            sections: sections.to_owned(),
            ..Options::default()
        };
        Rig::start(flavor, 1, &options).await
    })
    .await
}

/// The last words on a connection before it is closed; None if it is closed without a word.
async fn last_words(raw: &mut Raw) -> Option<Refused> {
    match timeout(SOON, raw.frame())
        .await
        .expect("the end of the connection")
    {
        Some((sequence, payload)) => {
            assert_eq!((sequence, payload[0]), (0, 0xff), "{payload:?}");
            assert_eq!(raw.frame().await, None);
            Some(Refused::parse(&payload))
        }
        None => None,
    }
}

/// The first field of the first row.
async fn value(raw: &mut Raw, sql: &str) -> Option<String> {
    raw.rows(sql).await.unwrap()[0][0].clone()
}

/// Prepares connections to the server itself and to the proxy alike, and compares how they end.
async fn same_end(flavor: Flavor, capabilities: u32, statements: &[&str]) {
    let rig = rig(flavor).await;
    let mut ends = Vec::new();
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        let mut raw = Raw::tcp(port).await.unwrap();
        raw.login("app", "app", None, capabilities).await.unwrap();
        for sql in statements {
            raw.rows(sql).await.unwrap();
        }
        ends.push(last_words(&mut raw).await);
    }
    assert_eq!(ends[1], ends[0]);
}

async fn an_idle_client_is_ended_as_a_server_ends_it(flavor: Flavor) {
    same_end(flavor, capability::USUAL, &["SET wait_timeout = 1"]).await;
    same_end(
        flavor,
        capability::USUAL,
        &["SET SESSION wait_timeout = 0 + 1"],
    )
    .await;
}

async fn an_interactive_client_has_its_own_time(flavor: Flavor) {
    const INTERACTIVE: u32 = 1 << 10;
    let rig = rig(flavor).await;
    let primary = rig.cluster.primary();
    primary
        .run("SET GLOBAL interactive_timeout = 1")
        .await
        .unwrap();
    let ended = within(SOON, async || {
        let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
        let capabilities = capability::USUAL | INTERACTIVE;
        raw.login("app", "app", None, capabilities).await.unwrap();
        // Until the new value is known, it is the old one.
        timeout(Duration::from_secs(4), raw.frame()).await.is_ok()
    })
    .await;
    // The session's own value counts for others only.
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.rows("SET interactive_timeout = 1").await.unwrap();
    let other = timeout(Duration::from_secs(3), raw.frame()).await;
    primary
        .run("SET GLOBAL interactive_timeout = 28800")
        .await
        .unwrap();
    assert!(ended);
    assert!(other.is_err(), "{other:?}");
}

async fn a_client_in_a_transaction_is_ended_by_its_server(flavor: Flavor) {
    let begun = ["SET wait_timeout = 1", "START TRANSACTION", "SELECT 1"];
    same_end(flavor, capability::USUAL, &begun).await;
    same_end(
        flavor,
        capability::USUAL,
        &["SET @a = 1 + 1", "SET wait_timeout = 1"],
    )
    .await;
    if flavor == Flavor::MariaDb {
        let begun = ["SET idle_transaction_timeout = 1", "BEGIN"];
        same_end(flavor, capability::USUAL, &begun).await;
    }
}

async fn a_busy_client_is_not_idle(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.rows("SET wait_timeout = 1").await.unwrap();
    assert_eq!(
        value(&mut raw, "SELECT SLEEP(3.5)").await.as_deref(),
        Some("0")
    );
    assert_eq!(
        value(&mut raw, "SELECT @@wait_timeout").await.as_deref(),
        Some("1")
    );
}

async fn servers_that_close_idle_connections_are_not_noticed(flavor: Flavor) {
    let rig = Rig::start(flavor, 1, &Options::default()).await;
    let schema = rig.schema("timeouts_pool").await;
    let primary = rig.cluster.primary();
    primary
        .run(&format!("CREATE TABLE {schema}.t (a INT)"))
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let mut raw = Raw::app(rig.proxy.port()).await;
    let mut other = Raw::app(rig.proxy.port()).await;
    // Its connections are closed soon, those of others are not.
    other.rows("SET wait_timeout = 2").await.unwrap();
    for server in rig.cluster.servers() {
        server
            .run("SET GLOBAL wait_timeout = 1; SET GLOBAL interactive_timeout = 1")
            .await
            .unwrap();
    }
    // Reads and writes at every distance from the moment at which the servers close, in two sessions.
    for pause in [0_u64, 300, 700, 900, 950, 980, 1000, 1020, 1050, 1100, 1300] {
        for raw in [&mut raw, &mut other] {
            raw.rows(&format!("INSERT INTO {schema}.t VALUES ({pause})"))
                .await
                .unwrap();
            assert_eq!(
                value(raw, "SELECT 7").await.as_deref(),
                Some("7"),
                "{pause}"
            );
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        for raw in [&mut raw, &mut other] {
            raw.rows(&format!("INSERT INTO {schema}.t VALUES ({pause})"))
                .await
                .unwrap();
            assert_eq!(
                value(raw, "SELECT 8").await.as_deref(),
                Some("8"),
                "{pause}"
            );
        }
    }
}

async fn a_client_that_stops_within_a_command_is_ended(flavor: Flavor) {
    let rig = rig(flavor).await;
    for half in [
        &b"\x20\0"[..],
        b"\x20\0\0\0\x03SELECT",
        b"\xff\xff\xff\0\x03SELECT",
    ] {
        let mut raw = Raw::app(rig.proxy.port()).await;
        raw.write(half).await.unwrap();
        let (_, payload) = timeout(SOON, raw.frame()).await.unwrap().unwrap();
        assert_eq!(Refused::parse(&payload).code, 1159);
        assert_eq!(raw.frame().await, None);
    }
    // In the middle of a file.
    let schema = rig.schema("timeouts_file").await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.execute(&format!("CREATE TABLE {schema}.t (a INT)"))
        .await;
    raw.query(&format!("LOAD DATA LOCAL INFILE 'x' INTO TABLE {schema}.t"))
        .await;
    assert_eq!(raw.packet().await.unwrap()[0], 0xfb);
    raw.put(b"1\n2\n").await.unwrap();
    assert_eq!(timeout(SOON, raw.frame()).await.unwrap(), None);
    let count = format!("SELECT COUNT(*) FROM {schema}.t");
    eventually("nothing of the file to stay", async || {
        rig.cluster.primary().first::<u32>(&count).await.unwrap() == 0
    })
    .await;
}

async fn a_slow_but_steady_client_is_served(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    // Longer than limits.read_timeout in all.
    for part in packet(b"\x03SELECT 'slow'").chunks(4) {
        raw.write(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    raw.restart_sequence(1);
    assert_eq!(raw.result().await.unwrap()[0][0].as_deref(), Some("slow"));
}

async fn a_client_that_does_not_read_is_ended(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.query(
        "SELECT 'unread_rows', REPEAT('x', 1000000) FROM information_schema.collations a, information_schema.collations b",
    )
    .await;
    let running = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%unread_rows%' AND user = 'app'";
    let count = async || {
        let mut count = 0;
        for server in rig.cluster.servers() {
            count += server.first::<u32>(running).await.unwrap();
        }
        count
    };
    eventually("the query to run", async || count().await == 1).await;
    eventually("the query to end", async || count().await == 0).await;
    assert_eq!(
        value(&mut Raw::app(rig.proxy.port()).await, "SELECT 1")
            .await
            .as_deref(),
        Some("1")
    );
}

async fn a_half_closed_client_gets_its_answer(flavor: Flavor) {
    let rig = rig(flavor).await;
    let schema = rig.schema("timeouts_half").await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.execute(&format!("CREATE TABLE {schema}.t (a INT)"))
        .await;
    // A read.
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.query("SELECT SLEEP(0.3)").await;
    raw.half_close().await;
    assert_eq!(raw.result().await.unwrap()[0][0].as_deref(), Some("0"));
    // A write that takes longer than a read may.
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.query(&format!(
        "INSERT INTO {schema}.t SELECT 1 FROM (SELECT SLEEP(2)) s"
    ))
    .await;
    raw.half_close().await;
    assert_eq!(raw.packet().await.unwrap()[..2], [0, 1]);
    assert_eq!(
        raw.frame().await.filter(|(_, payload)| payload[0] != 0xff),
        None
    );
    // Several commands.
    let mut raw = Raw::app(rig.proxy.port()).await;
    let commands = [&b"\x03SELECT SLEEP(0.3)"[..], b"\x0e", b"\x03SELECT 5"]
        .map(packet)
        .concat();
    raw.write(&commands).await.unwrap();
    raw.half_close().await;
    for expected in [Some("0"), None, Some("5")] {
        raw.restart_sequence(1);
        match expected {
            None => raw.ok().await.unwrap(),
            Some(_) => assert_eq!(raw.result().await.unwrap()[0][0].as_deref(), expected),
        }
    }
}

async fn a_write_outlives_its_client(flavor: Flavor) {
    let rig = rig(flavor).await;
    let schema = rig.schema("timeouts_left").await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.execute(&format!("CREATE TABLE {schema}.t (a INT)"))
        .await;
    raw.query(&format!(
        "INSERT INTO {schema}.t SELECT 1 FROM (SELECT SLEEP(2)) s"
    ))
    .await;
    let running = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'INSERT INTO timeouts_left%'";
    let primary = rig.cluster.primary();
    eventually("the write to run", async || {
        primary.first::<u32>(running).await.unwrap() == 1
    })
    .await;
    drop(raw);
    let count = format!("SELECT COUNT(*) FROM {schema}.t");
    eventually("the write to be done", async || {
        primary.first::<u32>(&count).await.unwrap() == 1
    })
    .await;
    // A transaction that was not ended is none.
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.execute("START TRANSACTION").await;
    raw.query(&format!(
        "INSERT INTO {schema}.t SELECT 2 FROM (SELECT SLEEP(2)) s"
    ))
    .await;
    eventually("the write to run", async || {
        primary.first::<u32>(running).await.unwrap() == 1
    })
    .await;
    drop(raw);
    eventually("the write to end", async || {
        primary.first::<u32>(running).await.unwrap() == 0
    })
    .await;
    assert_eq!(primary.first::<u32>(&count).await.unwrap(), 1);
}

async fn statements_before_a_quit_are_run(flavor: Flavor) {
    let rig = rig(flavor).await;
    let schema = rig.schema("timeouts_quit").await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.execute(&format!("CREATE TABLE {schema}.t (a INT)"))
        .await;
    let insert = |number: u8, pause: &str| {
        let sql =
            format!("\x03INSERT INTO {schema}.t SELECT {number} FROM (SELECT SLEEP({pause})) s");
        packet(sql.as_bytes())
    };
    let quit = packet(b"\x01");
    // All at once, and closed at once.
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.write(&[insert(1, "0.5"), insert(2, "0"), quit.clone()].concat())
        .await
        .unwrap();
    drop(raw);
    // The end comes later than the statement, and the answers are read.
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.write(&insert(3, "0.5")).await.unwrap();
    raw.write(&[insert(4, "0"), quit.clone()].concat())
        .await
        .unwrap();
    for _ in 0..2 {
        raw.restart_sequence(1);
        raw.ok().await.unwrap();
    }
    assert_eq!(raw.frame().await, None);
    let count = format!("SELECT COUNT(DISTINCT a) FROM {schema}.t");
    let primary = rig.cluster.primary();
    eventually("all of it to be run", async || {
        primary.first::<u32>(&count).await.unwrap() == 4
    })
    .await;
}

async fn many_commands_at_once(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    let mut commands = Vec::new();
    for number in 0..1000 {
        commands.extend(packet(format!("\x03SELECT {number}").as_bytes()));
        if number % 10 == 0 {
            commands.extend(packet(b"\x0e"));
        }
        if number % 100 == 0 {
            // Closing has no answer.
            commands.extend(packet(b"\x19\x63\0\0\0"));
            commands.extend(packet(b"\x16SELECT ?"));
        }
    }
    raw.write(&commands).await.unwrap();
    for number in 0..1000 {
        raw.restart_sequence(1);
        let rows = raw.result().await.unwrap();
        assert_eq!(rows[0][0], Some(number.to_string()));
        if number % 10 == 0 {
            raw.restart_sequence(1);
            assert_eq!(status_of_ok(&raw.packet().await.unwrap()), 2);
        }
        if number % 100 == 0 {
            raw.restart_sequence(1);
            assert_eq!(raw.packet().await.unwrap()[5..9], [1, 0, 1, 0]);
            for _ in 0..2 {
                raw.packet().await.unwrap();
                assert!(is_eof(&raw.packet().await.unwrap()));
            }
        }
    }
    assert_eq!(value(&mut raw, "SELECT 1").await.as_deref(), Some("1"));
}

async fn commands_after_a_statement_that_runs(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    // More than is read ahead comes while the first one runs; a close behind it is seen all the same, in the end.
    raw.write(&packet(b"\x03SELECT SLEEP(0.5)")).await.unwrap();
    let filler = "x".repeat(1000);
    let next = packet(format!("\x03SELECT '{filler}'").as_bytes()).repeat(300);
    raw.write(&next).await.unwrap();
    raw.write(&packet(b"\x01")).await.unwrap();
    raw.restart_sequence(1);
    assert_eq!(raw.result().await.unwrap()[0][0].as_deref(), Some("0"));
    for _ in 0..300 {
        raw.restart_sequence(1);
        assert_eq!(raw.result().await.unwrap()[0][0].as_deref(), Some(&*filler));
    }
    assert_eq!(raw.frame().await, None);
}
