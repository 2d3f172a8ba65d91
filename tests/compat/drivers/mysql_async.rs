//! Rust's mysql_async.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use std::time::Duration;
use std::{env, fs};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use mysql_async::prelude::{BatchQuery, Query, Queryable, WithParams};
use mysql_async::{
    ChangeUserOpts, Column, Compression, Conn, Error, IsolationLevel, Opts, OptsBuilder, Params,
    Pool, PoolConstraints, PoolOpts, QueryResult, Row, SslOpts, TxOpts, Value, WhiteListFsHandler,
    params,
};
use tokio::time::{Instant, timeout};

const ROUNDS: u32 = 100;

/// What the run tells the script: where the server is, and as whom to log in.
#[derive(Clone)]
struct Place {
    port: u16,
    socket: String,
    user: String,
    password: String,
    schema: String,
    flavor: String,
}

impl Place {
    fn options(&self) -> OptsBuilder {
        OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some(&self.user))
            .pass(Some(&self.password))
            .db_name(Some(&self.schema))
            .prefer_socket(false)
    }

    async fn connect(&self) -> Conn {
        Conn::new(self.options()).await.expect("connects")
    }

    fn statements(&self) -> Vec<String> {
        let text = fs::read_to_string(env::var("COMPAT_STATEMENTS").unwrap()).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("-- "));
        let own = format!("@{} ", self.flavor);
        lines
            .filter_map(|line| match line.strip_prefix(&own) {
                Some(statement) => Some(statement),
                None => (!line.starts_with("@m")).then_some(line),
            })
            .map(str::to_owned)
            .collect()
    }

    async fn fresh(&self) {
        let mut conn = self.connect().await;
        for (suffix, charset) in [("", "utf8mb4"), ("_other", "latin1")] {
            let name = format!("{}{suffix}", self.schema);
            let drop = format!("DROP DATABASE IF EXISTS {name}");
            conn.query_drop(drop).await.unwrap();
            let create = format!("CREATE DATABASE {name} CHARACTER SET {charset}");
            conn.query_drop(create).await.unwrap();
        }
    }
}

fn heading(what: &str) {
    println!("== {what}");
}

fn failure(error: &Error) -> String {
    match error {
        // The number that a statement has is the server's own.
        Error::Server(error) if error.code == 1243 => format!("server 1243 {}", error.state),
        Error::Server(error) => format!("server {} {} {}", error.code, error.state, error.message),
        Error::Io(_) => "an input or output error".into(),
        other => format!("{other:?}"),
    }
}

fn outcome<T: std::fmt::Debug>(what: &str, outcome: Result<T, Error>) {
    match outcome {
        Ok(value) => println!("{what}: {value:?}"),
        Err(error) => println!("{what} fails: {}", failure(&error)),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) if bytes.len() > 1000 => {
            let sum = bytes.iter().fold(0_u64, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
            });
            format!("{} bytes with sum {sum}", bytes.len())
        }
        Value::Bytes(bytes) => format!("bytes '{}'", bytes.escape_ascii()),
        other => format!("{other:?}"),
    }
}

fn row(row: Row) -> String {
    row.unwrap()
        .iter()
        .map(shown)
        .collect::<Vec<_>>()
        .join(", ")
}

fn columns(columns: &[Column]) {
    for column in columns {
        println!(
            "  column: {} {} {} {} {} {:?} {:?} {} {} {}",
            column.name_str(),
            column.org_name_str(),
            column.table_str(),
            column.org_table_str(),
            column.schema_str(),
            column.column_type(),
            column.flags(),
            column.column_length(),
            column.character_set(),
            column.decimals(),
        );
    }
}

/// All results of one execution.
async fn results<P>(mut result: QueryResult<'_, '_, P>)
where
    P: mysql_async::prelude::Protocol,
{
    while !result.is_empty() {
        columns(result.columns_ref());
        loop {
            match result.next().await {
                Ok(Some(found)) => println!("  row: {}", row(found)),
                Ok(None) => break,
                Err(error) => return println!("  fails: {}", failure(&error)),
            }
        }
        println!(
            "  done: {} {:?} {} {}",
            result.affected_rows(),
            result.last_insert_id(),
            result.warnings(),
            result.info(),
        );
    }
    outcome("  end", result.drop_result().await);
}

async fn query(conn: &mut Conn, text: &str) {
    println!("{text}");
    match conn.query_iter(text).await {
        Ok(result) => results(result).await,
        Err(error) => println!("  fails: {}", failure(&error)),
    }
    println!(
        "  afterwards: {} {:?} {}",
        conn.affected_rows(),
        conn.last_insert_id(),
        conn.get_warnings()
    );
}

async fn exec(conn: &mut Conn, text: &str, arguments: impl Into<Params> + Send) {
    println!("{text}");
    match conn.exec_iter(text, arguments.into()).await {
        Ok(result) => results(result).await,
        Err(error) => println!("  fails: {}", failure(&error)),
    }
    println!(
        "  afterwards: {} {:?} {}",
        conn.affected_rows(),
        conn.last_insert_id(),
        conn.get_warnings()
    );
}

async fn count(conn: &mut Conn, sql: &str) -> Option<u64> {
    conn.query_first(sql).await.unwrap()
}

async fn corpus(place: &Place, what: &str, options: OptsBuilder, prepared: bool) {
    heading(&format!("corpus {what}"));
    let mut conn = Conn::new(options).await.expect("connects");
    for statement in place.statements() {
        if prepared {
            exec(&mut conn, &statement, ()).await;
        } else {
            query(&mut conn, &statement).await;
        }
    }
    outcome("disconnected", conn.disconnect().await);
    place.fresh().await;
}

fn bound() -> Vec<Params> {
    let date = |year, month, day, hour, micros| Value::Date(year, month, day, hour, 8, 9, micros);
    let all: [Vec<Value>; 3] = [
        vec![
            i64::MAX.into(),
            u64::MAX.into(),
            "123456789012345.54321".into(),
            3.25_f64.into(),
            "Grüße 'x' \\ 🎉 ?".into(),
            b"\x00\x01\x27\x5c\xff".to_vec().into(),
            date(2024, 5, 6, 7, 123_456),
            date(2024, 2, 29, 0, 0),
            Value::Time(true, 2, 23, 59, 59, 5),
            2024.into(),
            b"\x81".to_vec().into(),
            "{\"a\": [1, \"ü\"]}".into(),
        ],
        vec![
            i64::MIN.into(),
            0.into(),
            "-0.00001".into(),
            (-1e100_f64).into(),
            "".into(),
            Vec::<u8>::new().into(),
            date(1000, 1, 1, 0, 0),
            date(9999, 12, 31, 0, 0),
            Value::Time(false, 34, 22, 0, 0, 0),
            1901.into(),
            b"\x00".to_vec().into(),
            "[]".into(),
        ],
        vec![Value::NULL; 12],
    ];
    all.into_iter().map(Params::Positional).collect()
}

async fn parameters(conn: &mut Conn) {
    heading("parameters");
    query(conn, "CREATE TABLE p (id INT AUTO_INCREMENT PRIMARY KEY, i BIGINT, u BIGINT UNSIGNED, d DECIMAL(20,5), f DOUBLE, s VARCHAR(100), b LONGBLOB, t DATETIME(6), da DATE, ti TIME(6), y YEAR, bi BIT(8), js JSON)").await;
    let insert = "INSERT INTO p (i, u, d, f, s, b, t, da, ti, y, bi, js) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let statement = conn.prep(insert).await.unwrap();
    println!(
        "prepared: {} parameters, {} columns",
        statement.num_params(),
        statement.num_columns()
    );
    columns(statement.params());
    for arguments in bound() {
        outcome("insert", conn.exec_drop(&statement, arguments).await);
        println!("  key: {:?}", conn.last_insert_id());
    }
    outcome("closed", conn.close(statement).await);
    for from in [Value::from(1), "2".into(), 99_u64.into(), 2.5_f32.into()] {
        exec(conn, "SELECT * FROM p WHERE id >= ? ORDER BY id", (from,)).await;
    }
    exec(
        conn,
        "INSERT INTO p (s, i, js) VALUES (:name, :number, :name_again)",
        params! { "number" => 5, "name" => "named", "name_again" => "\"x\"" },
    )
    .await;
    exec(
        conn,
        "SELECT :a + :b, :a, ':a' AS quoted, @x := :b",
        params! { "a" => 1, "b" => 2.5_f64 },
    )
    .await;
    for arguments in [
        Params::from((1, "a")),
        ("2", 3.5_f64).into(),
        (None::<i32>, b"\xff\x00".to_vec()).into(),
    ] {
        exec(conn, "SELECT ? + 0, ?", arguments).await;
    }
    exec(conn, "INSERT INTO p (id) VALUES (?)", (1,)).await;
    exec(conn, "SELECT * FROM nothing WHERE a = ?", (1,)).await;
    exec(conn, "INSERT INTO p (u) VALUES (?)", (-1,)).await;
    exec(
        conn,
        "INSERT IGNORE INTO p (s, u) VALUES (REPEAT('x', ?), ?)",
        (200, -1),
    )
    .await;
    exec(conn, "SHOW WARNINGS", ()).await;
    exec(conn, "SELECT id FROM p ORDER BY id LIMIT ?, ?", (1, 2)).await;
    let star = conn.prep("SELECT * FROM p WHERE id = ?").await.unwrap();
    for round in 0..2 {
        let found: Result<Option<Row>, _> = conn.exec_first(&star, (1,)).await;
        outcome("star", found.map(|found| found.map(|found| found.len())));
        let alter = format!("ALTER TABLE p ADD COLUMN late{round} INT DEFAULT 3");
        conn.query_drop(alter).await.unwrap();
    }
    // More than the driver keeps: it closes the oldest ones.
    let mut sum = 0;
    for number in 0..80 {
        let sql = format!("SELECT {number} + ?");
        sum += conn
            .exec_first::<i64, _, _>(sql, (number,))
            .await
            .unwrap()
            .unwrap();
    }
    println!("many statements: {sum}");
}

async fn batches(conn: &mut Conn) {
    heading("batches and streams");
    query(
        conn,
        "CREATE TABLE batched (id INT AUTO_INCREMENT PRIMARY KEY, a INT UNIQUE, s VARCHAR(20))",
    )
    .await;
    let insert = "INSERT INTO batched (a, s) VALUES (:a, :s)";
    let rows = (0..300).map(|n| params! { "a" => n, "s" => (n % 7 > 0).then(|| format!("s'{n}")) });
    outcome("batch", conn.exec_batch(insert, rows).await);
    println!(
        "  afterwards: {} {:?}",
        conn.affected_rows(),
        conn.last_insert_id()
    );
    let duplicates = [(1000, "x"), (5, "duplicate"), (1001, "y")];
    let batch = "INSERT INTO batched (a, s) VALUES (?, ?)".with(duplicates);
    outcome("with a duplicate", batch.batch(&mut *conn).await);
    query(
        conn,
        "SELECT COUNT(*), SUM(a), COUNT(s), MAX(id) FROM batched",
    )
    .await;
    let many = "SELECT x.a, y.s FROM batched x JOIN batched y ON y.a < 20 ORDER BY x.a, y.a";
    let mut stream = conn
        .query_stream::<(i64, Option<String>), _>(many)
        .await
        .unwrap();
    let (mut rows, mut sum) = (0, 0);
    while let Some(found) = stream.next().await {
        let (a, s) = found.unwrap();
        (rows, sum) = (rows + 1, sum + a + s.map_or(0, |s| s.len() as i64));
    }
    drop(stream);
    println!("streamed: {rows} {sum}");
    let prepared = "SELECT a FROM batched WHERE a >= ? ORDER BY a";
    let mut stream = conn
        .exec_stream::<i64, _, _>(prepared, (290,))
        .await
        .unwrap();
    println!("first: {:?}", stream.next().await.unwrap().unwrap());
    // The rest is read by whatever comes next.
    drop(stream);
    outcome("next", conn.query_first::<i64, _>("SELECT 77").await);
    let mapped = conn
        .query_map(
            "SELECT a, s FROM batched WHERE a < 3 ORDER BY a",
            |(a, s): (u32, Option<String>)| (a, s),
        )
        .await;
    outcome("mapped", mapped);
    let folded = conn
        .exec_fold(prepared, (100,), 0_i64, |sum, a: i64| sum + a)
        .await;
    outcome("folded", folded);
    let failing = "SELECT (SELECT y.id FROM batched y WHERE y.id = x.id OR x.a > 250 AND y.a = 1) FROM batched x ORDER BY x.id";
    outcome(
        "an error in the middle",
        conn.query::<Option<u64>, _>(failing)
            .await
            .map(|rows| rows.len()),
    );
    outcome("and then", conn.ping().await);
}

async fn several(conn: &mut Conn) {
    heading("several results");
    query(conn, "CREATE TABLE tx (id INT PRIMARY KEY, v INT)").await;
    for text in [
        "SELECT 1; SELECT 2, 3",
        "INSERT INTO tx VALUES (50, 0); SELECT * FROM tx WHERE id = 50; UPDATE tx SET v = 9; DELETE FROM tx WHERE id = 50",
        "SELECT 1; SELECT * FROM nothing; SELECT 3",
        "SELECT 1;",
        "SET @a = 1; SELECT @a; BEGIN; INSERT INTO tx VALUES (60, 0); ROLLBACK; SELECT COUNT(*) FROM tx",
    ] {
        query(conn, text).await;
    }
    let outcome_of_dropped = conn.query_drop("SELECT 1; SELECT * FROM nothing").await;
    outcome("dropped", outcome_of_dropped);
    query(conn, "CREATE PROCEDURE results (n INT) BEGIN SELECT n; SELECT a FROM batched WHERE a <= n ORDER BY a; UPDATE tx SET v = 1; END").await;
    query(conn, "CREATE PROCEDURE gives (IN a INT, INOUT b INT, OUT c VARCHAR(10)) BEGIN SET b = a + b; SET c = 'out'; END").await;
    query(conn, "CALL results(2)").await;
    exec(conn, "CALL results(?)", (2,)).await;
    query(conn, "SET @b = 2").await;
    query(conn, "CALL gives(1, @b, @c)").await;
    query(conn, "SELECT @b, @c").await;
    exec(conn, "CALL gives(?, ?, ?)", (1, 2, "x")).await;
}

async fn transactions(place: &Place, conn: &mut Conn) {
    heading("transactions");
    let mut other = place.connect().await;
    let counted = "SELECT COUNT(*) FROM tx";
    let levels = [
        None,
        Some(IsolationLevel::ReadUncommitted),
        Some(IsolationLevel::ReadCommitted),
        Some(IsolationLevel::RepeatableRead),
        Some(IsolationLevel::Serializable),
    ];
    for level in levels {
        for (snapshot, readonly) in [
            (false, None),
            (true, None),
            (false, Some(true)),
            (true, Some(false)),
        ] {
            let mut options = TxOpts::new();
            options
                .with_isolation_level(level)
                .with_consistent_snapshot(snapshot)
                .with_readonly(readonly);
            println!("begin: {level:?} {snapshot} {readonly:?}");
            let mut tx = conn.start_transaction(options).await.unwrap();
            outcome(
                "insert",
                tx.query_drop("INSERT INTO tx VALUES (1, 1)").await,
            );
            outcome("inside", tx.query_first::<u64, _>(counted).await);
            println!("outside: {:?}", count(&mut other, counted).await);
            outcome("rolled back", tx.rollback().await);
        }
    }
    let mut tx = conn.start_transaction(TxOpts::default()).await.unwrap();
    outcome(
        "batch",
        tx.exec_batch("INSERT INTO tx VALUES (?, ?)", (1..5).map(|n| (n, n)))
            .await,
    );
    outcome("savepoint", tx.query_drop("SAVEPOINT a").await);
    outcome("delete", tx.query_drop("DELETE FROM tx").await);
    outcome("back", tx.query_drop("ROLLBACK TO a").await);
    outcome("committed", tx.commit().await);
    println!("outside: {:?}", count(&mut other, counted).await);
    // A transaction that is dropped is rolled back before the next statement.
    let mut tx = conn.start_transaction(TxOpts::default()).await.unwrap();
    tx.query_drop("UPDATE tx SET v = 100").await.unwrap();
    drop(tx);
    query(conn, "SELECT SUM(v) FROM tx").await;
    query(conn, "BEGIN").await;
    outcome(
        "nested",
        conn.start_transaction(TxOpts::default()).await.map(|_| ()),
    );
    query(conn, "ROLLBACK").await;
    query(&mut other, "SET SESSION innodb_lock_wait_timeout = 1").await;
    let mut tx = conn.start_transaction(TxOpts::default()).await.unwrap();
    outcome(
        "update",
        tx.query_drop("UPDATE tx SET v = 9 WHERE id = 1").await,
    );
    query(&mut other, "UPDATE tx SET v = 8 WHERE id = 1").await;
    outcome("rolled back", tx.rollback().await);
}

async fn resets(place: &Place, conn: &mut Conn) {
    heading("reset and change of user");
    query(conn, "SET @left = 1, SESSION time_zone = '+05:00'").await;
    query(conn, "CREATE TEMPORARY TABLE mine (a INT)").await;
    let kept = conn.prep("SELECT ? + 1").await.unwrap();
    outcome("reset", conn.reset().await);
    query(conn, "SELECT @left, @@time_zone, DATABASE()").await;
    query(conn, "SELECT * FROM mine").await;
    outcome(
        "prepared before",
        conn.exec_first::<i64, _, _>(&kept, (1,)).await,
    );
    query(conn, "SET @left = 1").await;
    let other = format!("{}_other", place.schema);
    outcome(
        "same user",
        conn.change_user(ChangeUserOpts::default()).await,
    );
    query(conn, "SELECT @left, DATABASE()").await;
    let elsewhere = ChangeUserOpts::default().with_db_name(Some(other));
    outcome("other schema", conn.change_user(elsewhere).await);
    query(
        conn,
        "SELECT DATABASE(), @@character_set_client, @@collation_connection",
    )
    .await;
    let back = ChangeUserOpts::default().with_db_name(Some(place.schema.clone()));
    outcome("back", conn.change_user(back).await);
    let mut lost = place.connect().await;
    let wrong = ChangeUserOpts::default().with_pass(Some("wrong".into()));
    outcome("wrong password", lost.change_user(wrong).await);
    outcome("and then", lost.query_drop("SELECT 1").await);
}

async fn options(place: &Place) {
    heading("options");
    let all: Vec<(&str, OptsBuilder)> = vec![
        ("as it is", place.options()),
        ("without a schema", place.options().db_name(None::<String>)),
        ("by the socket", place.options().socket(Some(&place.socket))),
        ("found rows", place.options().client_found_rows(true)),
        (
            "first statements",
            place
                .options()
                .init(vec!["SET @init = 1", "SET time_zone = '+01:00'"])
                .setup(vec!["SET @setup = 2"]),
        ),
        (
            "compressed, fast",
            place.options().compression(Compression::fast()),
        ),
        (
            "compressed, best",
            place.options().compression(Compression::best()),
        ),
        ("without a cache", place.options().stmt_cache_size(0)),
        (
            "known limits",
            place
                .options()
                .max_allowed_packet(Some(1 << 20))
                .wait_timeout(Some(100)),
        ),
        (
            "attributes",
            place.options().connect_attribute("compat", "yes"),
        ),
        ("prefers the socket", place.options().prefer_socket(true)),
    ];
    for (what, options) in all {
        heading(what);
        let mut conn = match Conn::new(options).await {
            Ok(conn) => conn,
            Err(error) => {
                println!("fails: {}", failure(&error));
                continue;
            }
        };
        let table = format!("{}.tx", place.schema);
        for _ in 0..2 {
            query(&mut conn, &format!("UPDATE {table} SET v = 1")).await;
        }
        query(&mut conn, "SELECT DATABASE(), @init, @setup, @@time_zone, @@character_set_client, @@collation_connection, REPEAT('x', 5000)").await;
        exec(&mut conn, "SELECT ?", ("y".repeat(3000),)).await;
        let same = count(&mut conn, "SELECT CONNECTION_ID()").await == Some(u64::from(conn.id()));
        println!("its id: {same}, version {:?}", conn.server_version());
        outcome("ping", conn.ping().await);
        outcome("reset", conn.reset().await);
        query(&mut conn, "SELECT @init, @setup").await;
        outcome("disconnected", conn.disconnect().await);
    }
    // Only MySQL has a certificate without being told to.
    if place.flavor == "mysql" {
        let tls = || SslOpts::default().with_danger_accept_invalid_certs(true);
        for (what, options) in [
            ("TLS", place.options().ssl_opts(tls())),
            (
                "TLS, compressed",
                place
                    .options()
                    .ssl_opts(tls())
                    .compression(Compression::default()),
            ),
            (
                "TLS, unknown certificate",
                place.options().ssl_opts(SslOpts::default()),
            ),
        ] {
            heading(what);
            match Conn::new(options).await {
                Ok(mut conn) => {
                    exec(&mut conn, "SELECT DATABASE(), ?", ("z".repeat(100_000),)).await;
                    outcome("disconnected", conn.disconnect().await);
                }
                Err(error) => println!("fails: {}", failure(&error)),
            }
        }
    }
}

async fn pools(place: &Place) {
    heading("pool");
    for reset in [true, false] {
        let constraints = PoolConstraints::new(1, 3).unwrap();
        let options = PoolOpts::new()
            .with_constraints(constraints)
            .with_reset_connection(reset);
        let pool = Pool::new(place.options().pool_opts(options));
        for round in 0..4 {
            let mut conn = pool.get_conn().await.unwrap();
            query(&mut conn, "SELECT @left, @@time_zone, DATABASE()").await;
            exec(&mut conn, "SELECT ? + 1", (round,)).await;
            query(
                &mut conn,
                &format!("SET @left = {round}, time_zone = '+02:00'"),
            )
            .await;
        }
        let tasks = (0..20_u32).map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut conn = pool.get_conn().await.unwrap();
                conn.exec_first::<u32, _, _>("SELECT ?", (n,))
                    .await
                    .unwrap()
                    .unwrap()
            })
        });
        let mut sum = 0;
        for task in tasks.collect::<Vec<_>>() {
            sum += task.await.unwrap();
        }
        println!("at once: {sum}");
        let mut tx = pool.start_transaction(TxOpts::default()).await.unwrap();
        tx.query_drop("INSERT INTO tx VALUES (500, 0)")
            .await
            .unwrap();
        drop(tx);
        let left = "SELECT COUNT(*) FROM tx WHERE id = 500"
            .first::<u64, _>(&pool)
            .await;
        outcome("left behind", left);
        outcome("pool ended", pool.disconnect().await);
    }
}

async fn files(place: &Place) {
    heading("files");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.txt");
    let text: String = (10_000..40_000).map(|n| format!("{n}\t{n}\n")).collect();
    fs::write(&path, text).unwrap();
    let load = format!("LOAD DATA LOCAL INFILE '{}' INTO TABLE tx", path.display());
    let handler = WhiteListFsHandler::new([&path]);
    let mut conn = Conn::new(place.options().local_infile_handler(Some(handler)))
        .await
        .unwrap();
    for sql in [
        &load,
        "LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE tx",
    ] {
        outcome("load", conn.query_drop(sql).await);
        println!(
            "  {} {} {}",
            conn.affected_rows(),
            conn.get_warnings(),
            conn.info()
        );
    }
    conn.set_infile_handler(async {
        let parts = ["50000\t1\n500", "01\t2\nx\ty\n"].map(|part| Ok(Bytes::from(part)));
        Ok(stream::iter(parts).boxed())
    });
    query(&mut conn, "SET SESSION sql_mode = ''").await;
    outcome(
        "from a stream",
        conn.query_drop("LOAD DATA LOCAL INFILE 'mine' INTO TABLE tx")
            .await,
    );
    println!(
        "  {} {} {}",
        conn.affected_rows(),
        conn.get_warnings(),
        conn.info()
    );
    query(&mut conn, "SHOW WARNINGS").await;
    conn.set_infile_handler(async {
        let parts = [
            Ok(Bytes::from("60000\t1\n")),
            Err(std::io::Error::other("breaks off")),
        ];
        Ok(stream::iter(parts).boxed())
    });
    outcome(
        "a stream that breaks off",
        conn.query_drop("LOAD DATA LOCAL INFILE 'mine' INTO TABLE tx")
            .await,
    );
    let mut plain = place.connect().await;
    outcome("without a handler", plain.query_drop(&load).await);
    query(&mut plain, "SELECT COUNT(*), SUM(v) FROM tx").await;
}

async fn large(place: &Place) {
    heading("large");
    let big: Vec<u8> = (0..=255).cycle().take(17 << 20).collect();
    place
        .connect()
        .await
        .query_drop("CREATE TABLE big (id INT PRIMARY KEY, b LONGBLOB)")
        .await
        .unwrap();
    for (number, compression) in [None, Some(Compression::fast())].into_iter().enumerate() {
        let mut conn = Conn::new(place.options().compression(compression))
            .await
            .unwrap();
        outcome(
            "insert",
            conn.exec_drop("INSERT INTO big VALUES (?, ?)", (number, &big))
                .await,
        );
        let back: Option<Vec<u8>> = conn
            .exec_first("SELECT b FROM big WHERE id = ?", (number,))
            .await
            .unwrap();
        println!("same: {}", back.as_ref() == Some(&big));
        let back: Option<Vec<u8>> = conn
            .query_first(format!("SELECT b FROM big WHERE id = {number}"))
            .await
            .unwrap();
        println!("same: {}", back.as_ref() == Some(&big));
    }
    let mut conn = place.connect().await;
    let text = format!("INSERT INTO big VALUES (7, '{}')", "t".repeat(17 << 20));
    outcome("as text", conn.query_drop(text).await);
    query(
        &mut conn,
        "SELECT id, LENGTH(b), CRC32(b) FROM big ORDER BY id",
    )
    .await;
    query(&mut conn, "DROP TABLE big").await;
    // Larger than what the server takes.
    let mut conn = place.connect().await;
    query(&mut conn, "SELECT LENGTH(REPEAT('x', 3000000000))").await;
    query(&mut conn, "SHOW WARNINGS").await;
}

async fn errors(place: &Place) {
    heading("errors");
    for (what, options) in [
        ("password", place.options().pass(Some("wrong"))),
        ("schema", place.options().db_name(Some("no_such"))),
        ("first statement", place.options().init(vec!["SELEKT"])),
    ] {
        outcome(what, Conn::new(Opts::from(options)).await.map(|_| ()));
    }
    let mut conn = place.connect().await;
    for sql in [
        "",
        "SELEKT",
        "INSERT INTO tx VALUES (1, 1)",
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'mine', MYSQL_ERRNO = 5000",
    ] {
        query(&mut conn, sql).await;
        exec(&mut conn, sql, ()).await;
    }
    // The driver closes a connection behind arguments that do not fit.
    let mut conn = place.connect().await;
    let few = conn.exec_drop("SELECT ?, ?", (1,)).await;
    outcome("too few", few);
    let mut conn = place.connect().await;
    let missing = conn
        .exec_drop("SELECT :a, :missing", params! { "a" => 1 })
        .await;
    outcome("missing", missing);
}

async fn reads(place: &Place, conn: &mut Conn) {
    heading("reads");
    let mut other = place.connect().await;
    let mut missed = 0;
    for round in 0..ROUNDS {
        conn.exec_drop("INSERT INTO tx VALUES (?, ?)", (100_000 + round, round))
            .await
            .unwrap();
        let select = format!("SELECT v FROM tx WHERE id = {}", 100_000 + round);
        let found: Option<u32> = if round % 5 == 0 {
            place.connect().await.query_first(select).await.unwrap()
        } else {
            other.query_first(select).await.unwrap()
        };
        missed += u32::from(found != Some(round));
    }
    println!("missed: {missed}");
}

async fn killing(place: &Place, conn: &mut Conn) {
    heading("killing");
    let mut watch = place.connect().await;
    for kill in ["KILL QUERY", "KILL"] {
        let mut victim = place.connect().await;
        let id = victim.id();
        let mut tx = conn.start_transaction(TxOpts::default()).await.unwrap();
        tx.query_drop("UPDATE tx SET v = 5 WHERE id = 1")
            .await
            .unwrap();
        let blocked = tokio::spawn(async move {
            let ended = victim
                .query_drop("UPDATE tx SET v = 300 WHERE id = 1")
                .await;
            (ended, victim)
        });
        let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'UPDATE tx SET v = 300%'";
        let mut seen = false;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !seen && Instant::now() < deadline {
            seen = count(&mut watch, sql).await > Some(0);
        }
        println!("runs: {seen}");
        outcome(kill, watch.query_drop(format!("{kill} {id}")).await);
        let (ended, mut victim) = timeout(Duration::from_secs(20), blocked)
            .await
            .unwrap()
            .unwrap();
        match ended {
            // Of the connection, either the error or its end is seen first.
            Err(_) if kill == "KILL" => println!("ended"),
            other => outcome("ended", other),
        }
        outcome("rolled back", tx.rollback().await);
        if kill == "KILL" {
            println!(
                "gone: {}",
                victim.ping().await.is_err() || victim.ping().await.is_err()
            );
        } else {
            outcome("lives", victim.ping().await);
        }
    }
    // A client that goes in the middle of a statement.
    let late = timeout(
        Duration::from_millis(300),
        place.connect().await.query_drop("SELECT SLEEP(5)"),
    )
    .await;
    println!("given up: {}", late.is_err());
    outcome("and then", conn.ping().await);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = env::args().collect();
    let place = Place {
        port: arguments[2].parse().unwrap(),
        socket: arguments[3].clone(),
        user: arguments[4].clone(),
        password: arguments[5].clone(),
        schema: arguments[6].clone(),
        flavor: arguments[7].clone(),
    };
    corpus(&place, "text", place.options(), false).await;
    corpus(&place, "prepared", place.options(), true).await;
    let compressed = place
        .options()
        .compression(Compression::default())
        .stmt_cache_size(0);
    corpus(&place, "prepared, compressed", compressed, true).await;
    let found = place
        .options()
        .client_found_rows(true)
        .socket(Some(&place.socket));
    corpus(&place, "text, found rows, by the socket", found, false).await;
    let mut conn = place.connect().await;
    parameters(&mut conn).await;
    batches(&mut conn).await;
    several(&mut conn).await;
    transactions(&place, &mut conn).await;
    resets(&place, &mut conn).await;
    options(&place).await;
    pools(&place).await;
    files(&place).await;
    large(&place).await;
    errors(&place).await;
    reads(&place, &mut conn).await;
    killing(&place, &mut conn).await;
    outcome("disconnected", conn.disconnect().await);
}
