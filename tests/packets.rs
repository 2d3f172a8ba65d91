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

use support::raw::{Raw, capability, field, is_eof};
use support::{Rig, application, one};

on_both_flavors!(
    statements_of_every_size,
    rows_of_every_size,
    parameters_of_every_size,
    a_statement_too_large_is_refused,
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
