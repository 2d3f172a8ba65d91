//! Packets of every size, and results of every length, in both directions and both protocols.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};
use tokio::time::timeout;

use support::raw::{Raw, capability, field, is_eof};
use support::{Options, Rig, SOON, application, eventually, one};

on_both_flavors!(
    statements_of_every_size,
    rows_of_every_size,
    parameters_of_every_size,
    executions_without_types_of_every_size,
    preparations_of_many_sizes,
    a_statement_of_many_rows,
    a_statement_too_large_is_refused,
    a_server_decides_what_is_too_large,
    no_command_at_all,
    as_many_columns_as_a_table_can_have,
    results_of_every_length,
    results_of_every_length_in_binary,
    wide_rows,
    a_slow_reader_gets_everything,
);

/// One packet holds less than 16 MiB: its largest payload.
const LARGEST: usize = 0xff_ffff;

/// Payload sizes round the limits of one packet, two packets, and the proxy's buffers.
const SIZES: [usize; 9] = [
    1 << 10,
    (256 << 10) - 4,
    256 << 10,
    LARGEST - 1,
    LARGEST,
    LARGEST + 1,
    2 * LARGEST,
    2 * LARGEST + 1,
    40 << 20,
];

async fn statements_of_every_size(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    for size in SIZES {
        // The payload is the command's byte and the statement.
        let around = "SELECT LENGTH('')".len() + 1;
        let sql = format!("SELECT LENGTH('{}')", "x".repeat(size - around));
        assert_eq!(sql.len() + 1, size);
        assert_eq!(
            raw.rows(&sql).await.unwrap()[0][0],
            Some((size - around).to_string()),
            "{size}"
        );
        // The same where it must go to the primary.
        let sql = format!("SELECT LENGTH('{}'), @@port", "x".repeat(size - around));
        assert_eq!(
            raw.rows(&sql).await.unwrap()[0][0],
            Some((size - around).to_string()),
            "{size}"
        );
        assert_eq!(
            raw.rows("SELECT 1").await.unwrap()[0][0].as_deref(),
            Some("1")
        );
    }
}

async fn rows_of_every_size(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for capabilities in [
        capability::USUAL,
        capability::USUAL | capability::DEPRECATE_EOF | capability::SESSION_TRACK,
    ] {
        let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
        raw.login("app", "app", None, capabilities).await.unwrap();
        for size in SIZES {
            // The row's payload is the length in front of the value, and the value.
            let length = [1, 3, 4, 9]
                .into_iter()
                .find(|header| size - header <= largest_value(*header))
                .unwrap();
            let value = size - length;
            raw.query(&format!("SELECT REPEAT('y', {value})")).await;
            assert_eq!(raw.packet().await.unwrap(), [1]);
            raw.packet().await.unwrap();
            if capabilities & capability::DEPRECATE_EOF == 0 {
                assert!(is_eof(&raw.packet().await.unwrap()));
            }
            let row = raw.packet().await.unwrap();
            assert_eq!(row.len(), size);
            let mut rest = &row[..];
            let seen = field(&mut rest).unwrap();
            assert!(
                seen.len() == value && seen.iter().all(|&byte| byte == b'y'),
                "{size}"
            );
            assert_eq!(raw.packet().await.unwrap()[0], 0xfe);
        }
    }
}

/// The largest value whose length is written in so many bytes.
fn largest_value(header: usize) -> usize {
    match header {
        1 => 250,
        3 => 0xffff,
        4 => LARGEST,
        _ => usize::MAX,
    }
}

async fn parameters_of_every_size(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut conn = Conn::new(application(rig.proxy.port())).await.unwrap();
    for size in SIZES {
        let value = vec![b'z'; size];
        let row: Option<(u64, Vec<u8>)> = conn
            .exec_first(
                "SELECT LENGTH(?), ?",
                (Value::Bytes(value.clone()), Value::Bytes(value.clone())),
            )
            .await
            .unwrap();
        let (length, seen) = row.unwrap();
        assert_eq!(length, size as u64);
        assert!(seen == value, "{size}");
    }
    let schema = rig.schema("packets_stored").await;
    conn.query_drop(format!(
        "CREATE TABLE {schema}.t (id INT PRIMARY KEY, b LONGBLOB)"
    ))
    .await
    .unwrap();
    let large: Vec<u8> = (0..LARGEST + 10)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect();
    conn.exec_drop(format!("INSERT INTO {schema}.t VALUES (1, ?)"), (&large,))
        .await
        .unwrap();
    let seen: Vec<u8> = one(&mut conn, &format!("SELECT b FROM {schema}.t WHERE id = 1")).await;
    assert!(seen == large);
}

/// COM_STMT_EXECUTE with one string, of so many bytes in all.
fn execution(id: &[u8], size: usize, types: bool) -> Vec<u8> {
    let mut payload = vec![0x17];
    payload.extend_from_slice(id);
    payload.extend_from_slice(&[0, 1, 0, 0, 0, 0, u8::from(types)]);
    if types {
        payload.extend_from_slice(&[0xfd, 0]);
    }
    let value = size - payload.len() - 9;
    payload.push(0xfe);
    payload.extend_from_slice(&(value as u64).to_le_bytes());
    payload.resize(size, b'z');
    payload
}

async fn executions_without_types_of_every_size(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.command(0x16, b"SELECT LENGTH(?)").await;
    let prepared = raw.packet().await.unwrap();
    assert_eq!(prepared[0], 0);
    for _ in 0..4 {
        raw.packet().await.unwrap();
    }
    // The client tells the types once. What is executed next may find another connection.
    for (size, types) in [
        (1000, true),
        (2000, false),
        (2 << 20, false),
        (LARGEST - 100, false),
        (LARGEST, false),
        (LARGEST + 1, false),
        (2 * LARGEST - 100, false),
        (2 * LARGEST, false),
        (40 << 20, false),
        (40 << 20, true),
        (1000, false),
    ] {
        raw.send(&execution(&prepared[1..5], size, types)).await;
        let answer = raw.answer(b"").await;
        let length = size - if types { 23 } else { 21 };
        // Header and NULL bitmap of a binary row.
        assert_eq!(answer[3][..2], [0, 0], "{size}");
        let seen = answer[3][2..]
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        assert_eq!(seen, length, "{size}");
        raw.rows("SELECT @@port").await.unwrap();
    }
    // A statement that there is not.
    raw.send(&execution(&[0xee, 0xee, 0, 0], 20 << 20, false))
        .await;
    assert_eq!(raw.refused().await.code, 1243);
    raw.rows("SELECT 1").await.unwrap();
}

async fn preparations_of_many_sizes(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut conn = rig.connect().await;
    for size in [1 << 10, (1 << 20) - 1, 1 << 20, 3 << 20, 6 << 20] {
        let sql = format!("SELECT LENGTH('{}'), ?", "p".repeat(size));
        let row: Option<(usize, i64)> = conn.exec_first(&sql, (size as i64,)).await.unwrap();
        assert_eq!(row, Some((size, size as i64)));
    }
}

async fn a_statement_of_many_rows(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("packets_rows").await;
    let row = format!("(NULL, '{}')", "r".repeat(1000));
    let sql = format!(
        "INSERT INTO {schema}.t VALUES {}",
        vec![row; 20_000].join(",")
    );
    let mut answers = Vec::new();
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        rig.schema("packets_rows").await;
        let mut raw = Raw::app(port).await;
        raw.execute(&format!(
            "CREATE TABLE {schema}.t (id INT PRIMARY KEY AUTO_INCREMENT, a TEXT)"
        ))
        .await;
        answers.push(raw.execute(&sql).await);
        let id = raw.rows("SELECT LAST_INSERT_ID()").await.unwrap();
        assert_eq!(id[0][0].as_deref(), Some("1"));
    }
    assert_eq!(answers[1], answers[0]);
}

/// Sends a command that may be refused before all of it is sent: the answer, and that nothing follows it.
async fn refusal(mut raw: Raw, payload: &[u8]) -> Vec<u8> {
    let _ = raw.try_send(payload).await;
    let (_, answer) = raw.frame().await.expect("an answer");
    let end = timeout(SOON, raw.frame()).await;
    assert!(
        matches!(end, Ok(None)),
        "{end:?} behind {}",
        answer.escape_ascii()
    );
    answer
}

async fn a_server_decides_what_is_too_large(flavor: Flavor) {
    const LIMIT: usize = 1 << 20;
    const COMMANDS: [u8; 7] = [0x03, 0x02, 0x16, 0x17, 0x18, 0x1c, 0x0e];
    let rig = Rig::start(flavor, 1, &Options::default()).await;
    let mut before = Raw::app(rig.proxy.port()).await;
    // Nobody has run a statement for this account: its first connections will have the new limit.
    rig.account("late").await;
    let mut late = Vec::new();
    for code in [0x03, 0x02, 0x16] {
        for size in [LIMIT, 2 * LIMIT, 5 * LIMIT] {
            let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
            let usual = capability::USUAL;
            raw.login("late", "late", None, usual).await.unwrap();
            late.push((code, size, raw));
        }
    }
    for server in rig.cluster.servers() {
        let sql = format!("SET GLOBAL max_allowed_packet = {LIMIT}");
        server.run(&sql).await.unwrap();
    }
    let statement = |size: usize| {
        let mut payload = b"\x03SELECT LENGTH('".to_vec();
        payload.resize(size - 2, b'x');
        payload.extend_from_slice(b"')");
        payload
    };
    let of = |code: u8, size: usize| {
        let mut payload = statement(size);
        payload[0] = code;
        payload
    };
    let primary = Raw::app(rig.cluster.primary().port()).await;
    let direct = refusal(primary, &statement(LIMIT)).await;
    // Of those who were there before, the proxy does not know the new value: their server refuses what they send.
    for (code, size, raw) in late {
        let answer = refusal(raw, &of(code, size)).await;
        assert_eq!(answer, direct, "{code:x} {size}");
    }
    // The proxy sees the new value soon.
    eventually("the limit to be known", async || {
        let mut raw = Raw::app(rig.proxy.port()).await;
        let _ = raw.try_send(&statement(LIMIT)).await;
        matches!(raw.frame().await, Some((1, answer)) if answer[0] == 0xff)
    })
    .await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.send(&statement(LIMIT - 1)).await;
    let length = raw.result().await.unwrap()[0][0].clone();
    assert_eq!(length, Some((LIMIT - 1 - 18).to_string()));
    for size in [LIMIT, LIMIT + 1, 2 * LIMIT, LARGEST, LARGEST + 1, 40 << 20] {
        let raw = Raw::app(rig.proxy.port()).await;
        assert_eq!(refusal(raw, &statement(size)).await, direct, "{size}");
    }
    // Whatever command it is.
    for code in COMMANDS {
        let raw = Raw::app(rig.proxy.port()).await;
        let answer = refusal(raw, &of(code, 2 * LIMIT)).await;
        assert_eq!(answer, direct, "{code:x}");
    }
    // Who was there before keeps his limit, as long as a connection has it.
    before.rows("SELECT 1").await.unwrap();
    rig.proxy.must_run();
}

async fn no_command_at_all(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut answers = Vec::new();
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        let mut raw = Raw::app(port).await;
        raw.send(&[]).await;
        let answer = raw.packet().await.unwrap();
        // The session goes on.
        raw.rows("SELECT 1").await.unwrap();
        answers.push(answer);
    }
    assert_eq!(answers[1], answers[0]);
}

async fn as_many_columns_as_a_table_can_have(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let columns: Vec<String> = (0..4096)
        .map(|number| format!("{number} AS c{number}"))
        .collect();
    for sql in [
        format!("SELECT {}", columns.join(", ")),
        format!("SELECT {}, nosuch", columns.join(", ")),
    ] {
        for capabilities in [
            capability::USUAL,
            capability::USUAL | capability::DEPRECATE_EOF,
        ] {
            let mut seen = Vec::new();
            for port in [rig.cluster.primary().port(), rig.proxy.port()] {
                let mut raw = Raw::tcp(port).await.unwrap();
                raw.login("app", "app", None, capabilities).await.unwrap();
                raw.query(&sql).await;
                let mut packets = wide_answer(&mut raw).await;
                raw.command(0x16, sql.as_bytes()).await;
                let mut prepared = raw.packet().await.unwrap();
                if prepared[0] == 0 {
                    let id: [u8; 4] = prepared[1..5].try_into().unwrap();
                    let columns = usize::from(u16::from_le_bytes([prepared[5], prepared[6]]));
                    let eof = usize::from(capabilities & capability::DEPRECATE_EOF == 0);
                    for _ in 0..columns + eof {
                        packets.push(raw.packet().await.unwrap());
                    }
                    prepared[1..5].fill(0);
                    raw.send(&[&[0x17][..], &id, &[0, 1, 0, 0, 0]].concat())
                        .await;
                    packets.extend(wide_answer(&mut raw).await);
                }
                packets.push(prepared);
                seen.push(packets);
            }
            assert!(seen[1] == seen[0]);
        }
    }
}

/// An answer with more columns than fit into one byte, to its end; an error is all of it.
async fn wide_answer(raw: &mut Raw) -> Vec<Vec<u8>> {
    let mut packets = vec![raw.packet().await.unwrap()];
    let mut ends = if raw.capabilities & capability::DEPRECATE_EOF == 0 {
        2
    } else {
        1
    };
    while packets[0][0] != 0xff && ends > 0 {
        packets.push(raw.packet().await.unwrap());
        ends -= usize::from(packets[packets.len() - 1][0] == 0xfe);
    }
    packets
}

async fn a_statement_too_large_is_refused(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    let sql = format!("SELECT LENGTH('{}')", "x".repeat(257 << 20));
    raw.send(&[]).await;
    // An empty command is no command.
    let empty = raw.packet().await.unwrap();
    assert_eq!(empty[0], 0xff);
    let mut payload = vec![3];
    payload.extend_from_slice(sql.as_bytes());
    let mut raw = Raw::app(rig.proxy.port()).await;
    // The server may close before everything is sent: then the error or the end is heard, never an answer.
    if raw.try_send(&payload).await.is_ok()
        && let Ok(answer) = raw.packet().await
    {
        assert_eq!(answer[..3], [0xff, 0x81, 0x04], "error 1153");
    }
    rig.proxy.must_run();
    let mut conn = rig.connect().await;
    assert_eq!(one::<i64>(&mut conn, "SELECT 1").await, 1);
}

/// Makes the digits 0 to 9 from which results of any length are made.
async fn digits(rig: &Rig, name: &str) -> String {
    let schema = rig.schema(name).await;
    let sql = format!(
        "CREATE TABLE {schema}.d (n INT PRIMARY KEY); \
         INSERT INTO {schema}.d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)"
    );
    rig.cluster.primary().run(&sql).await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    schema
}

fn numbers(schema: &str, count: u64) -> String {
    format!(
        "SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n + 100000 * f.n AS number \
         FROM {schema}.d a, {schema}.d b, {schema}.d c, {schema}.d d, {schema}.d e, {schema}.d f LIMIT {count}"
    )
}

const COUNTS: [u64; 6] = [0, 1, 2, 999, 65_536, 1_000_000];

async fn results_of_every_length(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = digits(rig, "packets_text").await;
    let mut conn = rig.connect().await;
    for count in COUNTS {
        let rows: Vec<u64> = conn.query(numbers(&schema, count)).await.unwrap();
        all_there(rows, count);
    }
    let mut raw = Raw::app(rig.proxy.port()).await;
    for count in COUNTS {
        let rows = raw.rows(&numbers(&schema, count)).await.unwrap();
        all_there(
            rows.into_iter()
                .map(|row| row[0].as_deref().unwrap().parse().unwrap())
                .collect(),
            count,
        );
    }
}

async fn results_of_every_length_in_binary(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = digits(rig, "packets_binary").await;
    let mut conn = rig.connect().await;
    for count in COUNTS {
        let rows: Vec<u64> = conn.exec(numbers(&schema, count), ()).await.unwrap();
        all_there(rows, count);
    }
}

fn all_there(mut rows: Vec<u64>, count: u64) {
    assert_eq!(rows.len() as u64, count);
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len() as u64, count);
}

async fn wide_rows(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut conn = rig.connect().await;
    let columns: Vec<String> = (0..2000)
        .map(|number| format!("{number} AS c{number}"))
        .collect();
    let sql = format!("SELECT {}", columns.join(", "));
    let row: mysql_async::Row = one(&mut conn, &sql).await;
    assert_eq!(row.len(), 2000);
    assert_eq!(row.get::<u64, _>("c1999"), Some(1999));
    let row: Option<mysql_async::Row> = conn.exec_first(&sql, ()).await.unwrap();
    assert_eq!(row.unwrap().get::<u64, _>("c1999"), Some(1999));
}

async fn a_slow_reader_gets_everything(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = digits(rig, "packets_slow").await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.query(&format!(
        "SELECT n.number, REPEAT('w', 500) FROM ({}) n",
        numbers(&schema, 100_000)
    ))
    .await;
    // While this answer waits for its reader, everybody else is served.
    let mut conn = rig.connect().await;
    for number in 0..200_i64 {
        assert_eq!(
            one::<i64>(&mut conn, &format!("SELECT {number}")).await,
            number
        );
    }
    assert_eq!(raw.result().await.unwrap().len(), 100_000);
}
