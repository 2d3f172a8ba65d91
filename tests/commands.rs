//! Every command of the protocol: the same answer through the proxy as from the server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{collections::BTreeSet, io};

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::prelude::{Query, Queryable, WithParams};
use mysql_async::{Conn, TxOpts, Value};

use support::raw::{Raw, Refused, capability, is_eof};
use support::{Rig, SOON, application, code, error_of, eventually, one, within};

on_both_flavors!(
    simple_commands,
    schemas_are_changed,
    nothing_of_a_session_is_left_to_the_next,
    fields_are_listed,
    a_reset_forgets_everything,
    several_statements_need_the_option,
    statements_are_prepared,
    parameters_come_in_pieces,
    cursors_inside_routines_are_not_the_clients,
    rows_come_through_a_cursor,
    the_connection_id_is_the_clients,
    a_statement_is_killed,
    a_connection_is_killed,
    processes_have_the_clients_ids,
    idle_sessions_are_listed,
    a_victim_may_be_an_expression,
    an_administrator_kills_anybody,
    unknown_commands_are_refused,
    procedures_answer_several_times,
    errors_come_in_the_middle,
    files_are_loaded_from_the_client,
    every_type_is_carried,
    counts_and_ids_are_carried,
    warnings_and_found_rows_are_carried,
    reads_are_counted_wherever_they_run,
    transactions_end_as_they_should,
    commands_may_be_pipelined,
);

const QUIT: u8 = 0x01;
const QUERY: u8 = 0x03;
const INIT_DB: u8 = 0x02;
const FIELD_LIST: u8 = 0x04;
const STATISTICS: u8 = 0x09;
const PROCESS_INFO: u8 = 0x0a;
const PROCESS_KILL: u8 = 0x0c;
const PING: u8 = 0x0e;
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;
const LONG_DATA: u8 = 0x18;
const CLOSE: u8 = 0x19;
const STMT_RESET: u8 = 0x1a;
const SET_OPTION: u8 = 0x1b;
const FETCH: u8 = 0x1c;
const RESET_CONNECTION: u8 = 0x1f;

/// One connection through the proxy, one to the primary itself.
async fn both(rig: &Rig) -> [Raw; 2] {
    [
        Raw::app(rig.cluster.primary().port()).await,
        Raw::app(rig.proxy.port()).await,
    ]
}

async fn simple_commands(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for mut raw in both(rig).await {
        raw.send(&[PING]).await;
        raw.ok().await.unwrap();
        raw.send(&[STATISTICS]).await;
        let text = raw.packet().await.unwrap();
        assert!(
            text.starts_with(b"Uptime: "),
            "{}",
            String::from_utf8_lossy(&text)
        );
        raw.send(&[PROCESS_INFO]).await;
        let rows = raw.result().await;
        match flavor {
            Flavor::MariaDb => assert!(!rows.unwrap().is_empty()),
            // It may be gone from the server; then the refusal is the answer.
            Flavor::MySql => drop(rows),
        }
        raw.send(&[PING]).await;
        raw.ok().await.unwrap();
        raw.send(&[QUIT]).await;
        assert_eq!(
            raw.packet().await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}

async fn nothing_of_a_session_is_left_to_the_next(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_left").await;
    let left = "SELECT CONCAT_WS(',', IFNULL(DATABASE(), '-'), IFNULL(@seen, '-'), @@sql_mode, @@time_zone, \
                @@autocommit, LAST_INSERT_ID())";
    let mut first = Raw::app(rig.proxy.port()).await;
    let clean = first.rows(left).await.unwrap();
    for _ in 0..10 {
        let mut raw = Raw::app(rig.proxy.port()).await;
        assert_eq!(raw.rows(left).await.unwrap(), clean);
        let changes = [
            format!("USE {schema}"),
            "CREATE TABLE IF NOT EXISTS t (id INT AUTO_INCREMENT PRIMARY KEY)".into(),
            "SET time_zone = '+05:00', sql_mode = 'ANSI', autocommit = 0".into(),
            "INSERT INTO t VALUES (NULL)".into(),
            "SET @seen = 1 + 1".into(),
        ];
        for sql in changes {
            raw.rows(&sql).await.unwrap();
        }
        assert_ne!(raw.rows(left).await.unwrap(), clean);
        raw.send(&[QUIT]).await;
        assert!(raw.packet().await.is_err());
        // What was not committed is rolled back, its locks are gone.
        assert_eq!(
            first
                .rows(&format!("SELECT COUNT(*) FROM {schema}.t FOR UPDATE"))
                .await
                .unwrap()[0][0]
                .as_deref(),
            Some("0")
        );
    }
}

async fn schemas_are_changed(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_schema").await;
    let mut heard = Vec::new();
    for mut raw in both(rig).await {
        raw.command(INIT_DB, schema.as_bytes()).await;
        raw.ok().await.unwrap();
        assert_eq!(
            raw.rows("SELECT DATABASE()").await.unwrap()[0][0].as_deref(),
            Some(&*schema)
        );
        raw.command(INIT_DB, b"no_such_schema").await;
        heard.push(raw.refused().await);
        assert_eq!(
            raw.rows("SELECT DATABASE()").await.unwrap()[0][0].as_deref(),
            Some(&*schema)
        );
        raw.rows("USE test").await.unwrap();
        assert_eq!(
            raw.rows("SELECT DATABASE()").await.unwrap()[0][0].as_deref(),
            Some("test")
        );
        assert!(raw.rows("SELECT name FROM where_am_i").await.unwrap()[0][0].is_some());
    }
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0].code, 1049);
}

async fn fields_are_listed(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_fields").await;
    rig.cluster
        .primary()
        .run(&format!(
            "CREATE TABLE {schema}.t (a INT, bb TEXT, ab DATETIME)"
        ))
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let mut heard: Vec<Vec<Vec<u8>>> = Vec::new();
    for mut raw in both(rig).await {
        raw.command(INIT_DB, schema.as_bytes()).await;
        raw.ok().await.unwrap();
        let mut packets = Vec::new();
        for request in [&b"t\0"[..], b"t\0a%", b"no_such_table\0"] {
            raw.command(FIELD_LIST, request).await;
            loop {
                let payload = raw.packet().await.unwrap();
                let last = payload[0] == 0xff || is_eof(&payload);
                packets.push(payload);
                if last {
                    break;
                }
            }
        }
        raw.send(&[PING]).await;
        raw.ok().await.unwrap();
        heard.push(packets);
    }
    assert_eq!(heard[0], heard[1]);
}

async fn a_reset_forgets_everything(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_reset").await;
    for mut raw in both(rig).await {
        raw.command(INIT_DB, schema.as_bytes()).await;
        raw.ok().await.unwrap();
        raw.rows("SET @mine = 7, SESSION group_concat_max_len = 77")
            .await
            .unwrap();
        raw.rows("CREATE TEMPORARY TABLE mine (a INT)")
            .await
            .unwrap();
        raw.rows("SELECT GET_LOCK('commands_reset', 0)")
            .await
            .unwrap();
        raw.command(PREPARE, b"SELECT 1").await;
        let statement = prepared(&mut raw, 0, 1).await;
        raw.send(&[RESET_CONNECTION]).await;
        raw.ok().await.unwrap();
        let row = raw
            .rows("SELECT @mine, @@group_concat_max_len = 77, IS_FREE_LOCK('commands_reset')")
            .await
            .unwrap();
        assert_eq!(row[0], [None, Some("0".to_owned()), Some("1".to_owned())]);
        raw.command(INIT_DB, schema.as_bytes()).await;
        raw.ok().await.unwrap();
        assert_eq!(raw.rows("SELECT * FROM mine").await.unwrap_err().code, 1146);
        raw.send(&execute(statement, 0, &[])).await;
        assert_eq!(raw.refused().await.code, 1243);
    }
}

async fn several_statements_need_the_option(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        let mut raw = Raw::tcp(port).await.unwrap();
        raw.login(
            "app",
            "app",
            None,
            capability::USUAL & !capability::MULTI_STATEMENTS,
        )
        .await
        .unwrap();
        assert_eq!(raw.rows("SELECT 1; SELECT 2").await.unwrap_err().code, 1064);
        if port == rig.proxy.port() {
            let told = raw.rows("EXPLAIN ROUTE SELECT 1; SELECT 2").await.unwrap();
            let refused = told[0].iter().flatten();
            let refused: Vec<_> = refused.filter(|text| text.contains("1064")).collect();
            assert_eq!(refused.len(), 1, "{told:?}");
        }
        raw.send(&[SET_OPTION, 0, 0]).await;
        assert!(is_eof(&raw.packet().await.unwrap()));
        assert_eq!(
            raw.rows("SELECT 1; SELECT 2").await.unwrap()[0][0].as_deref(),
            Some("1")
        );
        assert_eq!(raw.result().await.unwrap()[0][0].as_deref(), Some("2"));
        raw.send(&[SET_OPTION, 1, 0]).await;
        assert!(is_eof(&raw.packet().await.unwrap()));
        assert_eq!(raw.rows("SELECT 1; SELECT 2").await.unwrap_err().code, 1064);
        // An error ends the rest of several statements, not the connection.
        raw.send(&[SET_OPTION, 0, 0]).await;
        assert!(is_eof(&raw.packet().await.unwrap()));
        assert_eq!(
            raw.rows("SELECT 1; SELECT * FROM test.nothing; SELECT 3")
                .await
                .unwrap()[0][0]
                .as_deref(),
            Some("1")
        );
        assert_eq!(raw.result().await.unwrap_err().code, 1146);
        assert_eq!(
            raw.rows("SELECT 4").await.unwrap()[0][0].as_deref(),
            Some("4")
        );
    }
}

async fn statements_are_prepared(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_prepared").await;
    rig.cluster
        .primary()
        .run(&format!(
            "CREATE TABLE {schema}.t (a INT PRIMARY KEY, b VARCHAR(20))"
        ))
        .await
        .unwrap();
    let mut conn = rig.connect().await;
    conn.query_drop(format!("USE {schema}")).await.unwrap();
    let insert = conn.prep("INSERT INTO t VALUES (?, ?)").await.unwrap();
    for number in 0..10 {
        conn.exec_drop(&insert, (number, format!("row {number}")))
            .await
            .unwrap();
        assert_eq!(conn.affected_rows(), 1);
    }
    let error = conn.exec_drop(&insert, (3, "again")).await.unwrap_err();
    assert_eq!(code(&error), 1062);
    conn.exec_drop(&insert, (10, Value::NULL)).await.unwrap();
    let select = conn.prep("SELECT b FROM t WHERE a = ?").await.unwrap();
    let row: Option<Option<String>> = conn.exec_first(&select, (3,)).await.unwrap();
    assert_eq!(row.unwrap().as_deref(), Some("row 3"));
    let row: Option<Option<String>> = conn.exec_first(&select, (10,)).await.unwrap();
    assert_eq!(row.unwrap(), None);
    let row: Option<Option<String>> = conn.exec_first(&select, ("4",)).await.unwrap();
    assert_eq!(row.unwrap().as_deref(), Some("row 4"));
    // Some more than a session would keep on one server connection.
    for number in 0..300 {
        let sql = format!("SELECT {number} + ?");
        let sum: Option<i64> = conn.exec_first(sql, (1,)).await.unwrap();
        assert_eq!(sum, Some(number + 1));
    }
    let error = conn
        .prep("SELECT * FROM nothing WHERE a = ?")
        .await
        .unwrap_err();
    assert_eq!(code(&error), 1146);
    let error = conn.prep("SELEKT").await.unwrap_err();
    assert_eq!(code(&error), 1064);
    conn.close(select).await.unwrap();
    let count: Option<i64> = conn.exec_first("SELECT COUNT(*) FROM t", ()).await.unwrap();
    assert_eq!(count, Some(11));

    for mut raw in both(rig).await {
        raw.command(PREPARE, b"SELECT ? + 1").await;
        let statement = prepared(&mut raw, 1, 1).await;
        // Types are sent with the first execution only, as drivers do.
        for (round, value) in [5_u32, 6, 7].into_iter().enumerate() {
            let mut parameters = vec![0];
            if round == 0 {
                parameters.extend_from_slice(&[1, 3, 0]);
            } else {
                parameters.push(0);
            }
            parameters.extend_from_slice(&value.to_le_bytes());
            raw.send(&execute(statement, 0, &parameters)).await;
            let row = binary_rows(&mut raw).await.unwrap().remove(0);
            assert_eq!(
                u64::from_le_bytes(row[2..10].try_into().unwrap()),
                u64::from(value) + 1
            );
        }
        raw.command(STMT_RESET, &statement.to_le_bytes()).await;
        raw.ok().await.unwrap();
        raw.command(CLOSE, &statement.to_le_bytes()).await;
        raw.send(&execute(statement, 0, &[0, 0, 0, 0, 0, 0])).await;
        assert_eq!(raw.refused().await.code, 1243);
        raw.command(STMT_RESET, &4711_u32.to_le_bytes()).await;
        assert_eq!(raw.refused().await.code, 1243);
    }
}

async fn parameters_come_in_pieces(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for mut raw in both(rig).await {
        raw.command(PREPARE, b"SELECT LENGTH(?), CRC32(?)").await;
        let statement = prepared(&mut raw, 2, 2).await;
        for round in 1..3_usize {
            let piece = vec![b'x'; 100_000 * round];
            for parameter in [0_u16, 1] {
                for _ in 0..3 {
                    let mut request = statement.to_le_bytes().to_vec();
                    request.extend_from_slice(&parameter.to_le_bytes());
                    request.extend_from_slice(&piece);
                    raw.command(LONG_DATA, &request).await;
                }
            }
            raw.send(&execute(statement, 0, &[0, 1, 0xfc, 0, 0xfc, 0]))
                .await;
            let row = binary_rows(&mut raw).await.unwrap().remove(0);
            assert_eq!(
                usize::try_from(u32::from_le_bytes(row[2..6].try_into().unwrap())).unwrap(),
                piece.len() * 3
            );
            raw.command(STMT_RESET, &statement.to_le_bytes()).await;
            raw.ok().await.unwrap();
        }
    }
}

async fn cursors_inside_routines_are_not_the_clients(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_inner_cursor").await;
    let mut admin = rig.cluster.primary().connect().await.unwrap();
    for sql in [
        "CREATE PROCEDURE {}.p() BEGIN DECLARE c CURSOR FOR SELECT 1; OPEN c; CLOSE c; SELECT 2; SELECT 3; END",
        "CREATE FUNCTION {}.f(x INT) RETURNS INT DETERMINISTIC READS SQL DATA BEGIN DECLARE r INT; \
         DECLARE c CURSOR FOR SELECT x + 1; OPEN c; FETCH c INTO r; CLOSE c; RETURN r; END",
    ] {
        admin.query_drop(sql.replace("{}", &schema)).await.unwrap();
    }
    rig.cluster.caught_up().await.unwrap();
    for mut raw in both(rig).await {
        // MySQL runs the function in front of the definitions.
        let function =
            format!("SELECT 4 FROM (SELECT {schema}.f(1) AS a) t WHERE a = {schema}.f(1)");
        let procedure = format!("CALL {schema}.p()");
        for (sql, cursor, values) in [
            (&function, 0, vec![4]),
            (&procedure, 0, vec![2, 3]),
            (&procedure, 1, vec![2, 3]),
        ] {
            raw.command(PREPARE, sql.as_bytes()).await;
            let answer = raw.packet().await.unwrap();
            let statement = u32::from_le_bytes(answer[1..5].try_into().unwrap());
            let columns = u16::from_le_bytes(answer[5..7].try_into().unwrap());
            for _ in 0..columns + u16::from(columns > 0) {
                raw.packet().await.unwrap();
            }
            raw.send(&execute(statement, cursor, &[])).await;
            for value in &values {
                assert_eq!(raw.packet().await.unwrap(), [1]);
                for _ in 0..2 {
                    raw.packet().await.unwrap();
                }
                // A proxy that takes the flag for the client's cursor sends nothing more.
                let row = tokio::time::timeout(SOON, raw.packet())
                    .await
                    .expect("rows");
                let row = row.unwrap();
                assert_eq!(row[..3], [0, 0, *value], "{sql}");
                assert!(is_eof(&raw.packet().await.unwrap()), "{sql}");
            }
            if values.len() > 1 {
                raw.ok().await.unwrap();
            }
            assert_eq!(
                raw.rows("SELECT 1").await.unwrap()[0][0].as_deref(),
                Some("1")
            );
        }
    }
}

async fn rows_come_through_a_cursor(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_cursor").await;
    rig.cluster
        .primary()
        .run(&format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY)"))
        .await
        .unwrap();
    let values: Vec<String> = (0..25).map(|number| format!("({number})")).collect();
    let sql = format!("INSERT INTO {schema}.t VALUES {}", values.join(","));
    rig.cluster.primary().run(&sql).await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    for mut raw in both(rig).await {
        raw.command(
            PREPARE,
            format!("SELECT a FROM {schema}.t ORDER BY a").as_bytes(),
        )
        .await;
        let statement = prepared(&mut raw, 0, 1).await;
        raw.send(&execute(statement, 1, &[])).await;
        let columns = raw.packet().await.unwrap();
        assert_eq!(columns, [1]);
        raw.packet().await.unwrap();
        let end = raw.packet().await.unwrap();
        assert!(is_eof(&end), "{end:?}");
        assert_eq!(
            u16::from_le_bytes([end[3], end[4]]) & 0x40,
            0x40,
            "a cursor exists"
        );
        let mut seen = Vec::new();
        loop {
            let mut request = statement.to_le_bytes().to_vec();
            request.extend_from_slice(&10_u32.to_le_bytes());
            raw.command(FETCH, &request).await;
            let status = loop {
                let payload = raw.packet().await.unwrap();
                if is_eof(&payload) {
                    break u16::from_le_bytes([payload[3], payload[4]]);
                }
                seen.push(u32::from_le_bytes(payload[2..6].try_into().unwrap()));
            };
            // Another statement between two fetches does not disturb the cursor.
            assert_eq!(
                raw.rows("SELECT 1").await.unwrap()[0][0].as_deref(),
                Some("1")
            );
            if status & 0x80 != 0 {
                break;
            }
        }
        assert_eq!(seen, (0..25).collect::<Vec<u32>>());
        raw.command(CLOSE, &statement.to_le_bytes()).await;
        raw.send(&[PING]).await;
        raw.ok().await.unwrap();
    }
}

async fn the_connection_id_is_the_clients(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut conn = rig.connect().await;
    let id = conn.id();
    let row: mysql_async::Row = one(&mut conn, "SELECT connection_id(), @@pseudo_thread_id").await;
    let names: Vec<_> = row
        .columns_ref()
        .iter()
        .map(|column| column.name_str().into_owned())
        .collect();
    assert_eq!(names, ["connection_id()", "@@pseudo_thread_id"]);
    assert_eq!(mysql_async::from_row::<(u32, u32)>(row), (id, id));
    let prepared: Option<u32> = conn
        .exec_first("SELECT CONNECTION_ID() FROM DUAL WHERE ? = 1", (1,))
        .await
        .unwrap();
    assert_eq!(prepared, Some(id));
    // The holder of a lock is told by the server's own id.
    let sql = "SELECT GET_LOCK('commands_id', 0) AND IS_USED_LOCK('commands_id') = CONNECTION_ID()";
    assert!(one::<bool>(&mut conn, sql).await);
    conn.query_drop("KILL CONNECTION_ID()").await.ok();
    gone(conn).await;
}

async fn a_statement_is_killed(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut victim = rig.connect().await;
    let id = victim.id();
    let running = tokio::spawn(async move {
        let result = victim
            .query_first::<i64, _>("SELECT SLEEP(300) FROM DUAL WHERE 'commands_killed' <> ''")
            .await;
        (victim, result)
    });
    let mut killer = rig.connect().await;
    eventually("the statement to run", async || {
        running_statements(rig, "commands_killed").await > 0
    })
    .await;
    killer.query_drop(format!("KILL QUERY {id}")).await.unwrap();
    let (mut victim, result) = running.await.unwrap();
    match result {
        Ok(interrupted) => assert_eq!(interrupted, Some(1)),
        Err(error) => assert_eq!(code(&error), 1317),
    }
    assert_eq!(one::<i64>(&mut victim, "SELECT 5").await, 5);
    assert_eq!(error_of(&mut killer, "KILL QUERY 4294967294").await, 1094);
}

async fn a_connection_is_killed(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut killer = Raw::app(rig.proxy.port()).await;
    let victim = rig.connect().await;
    let id = victim.id();
    killer.rows(&format!("KILL {id}")).await.unwrap();
    gone(victim).await;
    let victim = rig.connect().await;
    let id = victim.id();
    killer.command(PROCESS_KILL, &id.to_le_bytes()).await;
    match killer.ok().await {
        Ok(()) => gone(victim).await,
        Err(refused) => assert_eq!((flavor, refused.code), (Flavor::MySql, 1047)),
    }
    // Another account's connections are not ours to kill.
    let other = Conn::new(rig.account("commands_other").await)
        .await
        .unwrap();
    let mut weak = rig.direct(rig.cluster.primary()).await;
    let direct = Conn::new(support::login(
        rig.cluster.primary().port(),
        "commands_other",
        "commands_other",
    ))
    .await
    .unwrap();
    let expected = error_of(&mut weak, &format!("KILL {}", direct.id())).await;
    let heard = killer
        .rows(&format!("KILL {}", other.id()))
        .await
        .unwrap_err();
    assert_eq!(heard.code, expected);
}

async fn gone(mut conn: Conn) {
    eventually("the connection to end", async || conn.ping().await.is_err()).await;
}

async fn running_statements(rig: &Rig, marker: &str) -> u64 {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%{marker}%' AND id <> CONNECTION_ID()"
    );
    let mut count = 0;
    for server in rig.cluster.servers() {
        count += server.first::<u64>(&sql).await.unwrap();
    }
    count
}

async fn unknown_commands_are_refused(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut heard: Vec<Vec<Refused>> = Vec::new();
    for mut raw in both(rig).await {
        let mut refusals = Vec::new();
        for code in [0x60_u8, 0xf9, 0x05] {
            raw.send(&[code]).await;
            refusals.push(raw.refused().await);
        }
        assert_eq!(
            raw.rows("SELECT 1").await.unwrap()[0][0].as_deref(),
            Some("1")
        );
        heard.push(refusals);
    }
    assert_eq!(heard[0][0].code, 1047);
    assert_eq!(heard[0], heard[1]);
}

async fn procedures_answer_several_times(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_call").await;
    let mut conn = rig.connect().await;
    conn.query_drop(format!("USE {schema}")).await.unwrap();
    conn.query_drop("CREATE TABLE t (a INT)").await.unwrap();
    conn.query_drop(
        "CREATE PROCEDURE p (IN n INT, OUT total INT) BEGIN \
         SELECT n; INSERT INTO t VALUES (n); SELECT a, a * 2 FROM t; SET total = (SELECT SUM(a) FROM t); END",
    )
    .await
    .unwrap();
    for round in 1..=3_u64 {
        let mut result = conn.query_iter("CALL p(4, @total)").await.unwrap();
        let first: Vec<i64> = result.collect().await.unwrap();
        assert_eq!(first, [4]);
        let second: Vec<(i64, i64)> = result.collect().await.unwrap();
        assert_eq!(second.len() as u64, round);
        drop(result);
        assert_eq!(one::<u64>(&mut conn, "SELECT @total").await, round * 4);
    }
    // The same by the binary protocol.
    let mut result = conn.exec_iter("CALL p(?, @total)", (5,)).await.unwrap();
    let first: Vec<i64> = result.collect().await.unwrap();
    assert_eq!(first, [5]);
    let second: Vec<(i64, i64)> = result.collect().await.unwrap();
    assert_eq!(second.len(), 4);
    drop(result);
    // An error after the first result.
    conn.query_drop("CREATE PROCEDURE q () BEGIN SELECT 1; SELECT * FROM nothing; SELECT 2; END")
        .await
        .unwrap();
    let mut result = conn.query_iter("CALL q()").await.unwrap();
    let first: Vec<i64> = result.collect().await.unwrap();
    assert_eq!(first, [1]);
    let error = result.collect::<i64>().await.unwrap_err();
    assert_eq!(code(&error), 1146);
    drop(result);
    assert_eq!(one::<i64>(&mut conn, "SELECT 1").await, 1);
}

async fn errors_come_in_the_middle(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_middle").await;
    rig.cluster
        .primary()
        .run(&format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY)"))
        .await
        .unwrap();
    let values: Vec<String> = (0..1000).map(|number| format!("({number})")).collect();
    rig.cluster
        .primary()
        .run(&format!(
            "INSERT INTO {schema}.t VALUES {}",
            values.join(",")
        ))
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let sql = format!(
        "SELECT a, REPEAT('x', 1000), IF(a = 990, (SELECT b.a FROM {schema}.t b WHERE b.a IN (1, a.a - 1)), 0) \
         FROM {schema}.t a ORDER BY a"
    );
    for mut raw in both(rig).await {
        assert_eq!(raw.rows(&sql).await.unwrap_err().code, 1242);
        assert_eq!(
            raw.rows("SELECT 1").await.unwrap()[0][0].as_deref(),
            Some("1")
        );
    }
    let mut conn = rig.connect().await;
    let error = conn.exec_drop(sql.as_str(), ()).await.unwrap_err();
    assert_eq!(code(&error), 1242);
    assert_eq!(one::<i64>(&mut conn, "SELECT 1").await, 1);
}

async fn files_are_loaded_from_the_client(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_infile").await;
    rig.cluster
        .primary()
        .run(&format!("CREATE TABLE {schema}.t (a INT, b VARCHAR(200))"))
        .await
        .unwrap();
    for mut raw in both(rig).await {
        raw.rows(&format!("TRUNCATE {schema}.t")).await.unwrap();
        let sql = format!("LOAD DATA LOCAL INFILE 'some file' INTO TABLE {schema}.t");
        assert_eq!(raw.execute(&sql).await, b"\xfbsome file");
        for number in 0..5000 {
            raw.put(format!("{number}\t{}\n", "y".repeat(100)).as_bytes())
                .await
                .unwrap();
        }
        raw.put(&[]).await.unwrap();
        let done = raw.packet().await.unwrap();
        assert_eq!(done[..4], [0, 0xfc, 0x88, 0x13], "5000 rows");
        // A client without the file sends nothing.
        assert_eq!(raw.execute(&sql).await, b"\xfbsome file");
        raw.put(&[]).await.unwrap();
        let done = raw.packet().await.unwrap();
        assert_eq!(done[..2], [0, 0]);
        let rows = raw
            .rows(&format!("SELECT COUNT(DISTINCT a) FROM {schema}.t"))
            .await
            .unwrap();
        assert_eq!(rows[0][0].as_deref(), Some("5000"));
        // The file may be asked for in the middle of several statements.
        let several = format!("SELECT 1; {sql}; SELECT 2");
        raw.send(&[SET_OPTION, 0, 0]).await;
        assert!(is_eof(&raw.packet().await.unwrap()));
        assert_eq!(
            raw.rows(&several).await.unwrap()[0][0].as_deref(),
            Some("1")
        );
        assert_eq!(raw.packet().await.unwrap(), b"\xfbsome file");
        raw.put(b"7\tseven\n").await.unwrap();
        raw.put(&[]).await.unwrap();
        raw.ok().await.unwrap();
        assert_eq!(raw.result().await.unwrap()[0][0].as_deref(), Some("2"));
        assert_eq!(
            raw.rows("SELECT 3").await.unwrap()[0][0].as_deref(),
            Some("3")
        );
    }
}

async fn every_type_is_carried(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_types").await;
    rig.cluster
        .primary()
        .run(&format!(
            "CREATE TABLE {schema}.t (a TINYINT, b SMALLINT UNSIGNED, c BIGINT, d FLOAT, e DOUBLE, f DECIMAL(20,5), \
             g DATE, h DATETIME(6), i TIME(3), j TIMESTAMP NULL, k YEAR, l CHAR(5), m VARBINARY(20), n LONGTEXT, \
             o ENUM('x','y'), p SET('p','q'), q BIT(9), r JSON)"
        ))
        .await
        .unwrap();
    rig.cluster
        .primary()
        .run(&format!(
            "INSERT INTO {schema}.t VALUES (-5, 65535, -9223372036854775808, 1.5, 2.25, 123456.78901, '2024-02-29', \
             '2024-02-29 12:34:56.789012', '-12:34:56.789', '2024-02-29 01:02:03', 2024, 'abc', x'00ff27', \
             REPEAT('long ', 1000), 'y', 'p,q', b'101010101', '{{\"a\": [1, null]}}'), \
             (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
        ))
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    let sql = format!("SELECT * FROM {schema}.t");
    let mut direct = rig.direct(rig.cluster.primary()).await;
    let mut through = rig.connect().await;
    let expected: Vec<mysql_async::Row> = direct.query(&sql).await.unwrap();
    let seen: Vec<mysql_async::Row> = through.query(&sql).await.unwrap();
    assert_eq!(format!("{seen:?}"), format!("{expected:?}"));
    let expected: Vec<mysql_async::Row> = direct.exec(&sql, ()).await.unwrap();
    let seen: Vec<mysql_async::Row> = through.exec(&sql, ()).await.unwrap();
    assert_eq!(format!("{seen:?}"), format!("{expected:?}"));
}

async fn counts_and_ids_are_carried(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_counts").await;
    let mut conn = rig.connect().await;
    conn.query_drop(format!("USE {schema}")).await.unwrap();
    conn.query_drop("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)")
        .await
        .unwrap();
    conn.query_drop("INSERT INTO t (a) VALUES (1), (2), (3)")
        .await
        .unwrap();
    assert_eq!((conn.affected_rows(), conn.last_insert_id()), (3, Some(1)));
    assert!(conn.info().contains("Records: 3"), "{}", conn.info());
    assert_eq!(one::<u64>(&mut conn, "SELECT LAST_INSERT_ID()").await, 1);
    conn.query_drop("UPDATE t SET a = 1").await.unwrap();
    assert_eq!(conn.affected_rows(), 2);
    assert_eq!(one::<i64>(&mut conn, "SELECT ROW_COUNT()").await, 2);
    conn.query_drop("DELETE FROM t").await.unwrap();
    assert_eq!(conn.affected_rows(), 3);
    conn.exec_drop("INSERT INTO t (a) VALUES (?)", (9,))
        .await
        .unwrap();
    assert_eq!(conn.last_insert_id(), Some(4));
    // What the client asked for at its login decides what is counted.
    conn.query_drop("UPDATE t SET a = 9").await.unwrap();
    assert_eq!(conn.affected_rows(), 0);
    let options = application(rig.proxy.port())
        .client_found_rows(true)
        .db_name(Some(schema));
    let mut counting = Conn::new(options).await.unwrap();
    counting.query_drop("UPDATE t SET a = 9").await.unwrap();
    assert_eq!(counting.affected_rows(), 1);
    conn.query_drop("UPDATE t SET a = 9").await.unwrap();
    assert_eq!(conn.affected_rows(), 0);
}

async fn warnings_and_found_rows_are_carried(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_warnings").await;
    let mut conn = rig.connect().await;
    conn.query_drop(format!("USE {schema}")).await.unwrap();
    conn.query_drop("SET SESSION sql_mode = ''").await.unwrap();
    conn.query_drop("CREATE TABLE t (a TINYINT)").await.unwrap();
    conn.query_drop("INSERT INTO t VALUES (1000), (2), (3)")
        .await
        .unwrap();
    assert_eq!(conn.get_warnings(), 1);
    let warnings: Vec<(String, u16, String)> = conn.query("SHOW WARNINGS").await.unwrap();
    assert_eq!(warnings[0].1, 1264);
    assert_eq!(error_of(&mut conn, "SELECT * FROM nothing").await, 1146);
    let errors: Vec<(String, u16, String)> = conn.query("SHOW ERRORS").await.unwrap();
    assert_eq!(errors[0].1, 1146);
    conn.query_drop("SELECT 1/0, CAST('x' AS SIGNED)")
        .await
        .unwrap();
    let warnings: Vec<(String, u16, String)> = conn.query("SHOW WARNINGS").await.unwrap();
    assert!(
        warnings.iter().any(|warning| warning.1 == 1292),
        "{warnings:?}"
    );
    let rows: Vec<i64> = conn
        .query("SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1")
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(one::<u64>(&mut conn, "SELECT FOUND_ROWS()").await, 3);
    let rows: Vec<i64> = conn.query("SELECT a FROM t LIMIT 2").await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(one::<u64>(&mut conn, "SELECT FOUND_ROWS()").await, 2);
}

/// Statements, each of them asked about.
const COUNTED: &[&str] = &[
    "SELECT a FROM t LIMIT 2",
    "SELECT a FROM t LIMIT 1, 2",
    "SELECT a FROM t ORDER BY b DESC, a LIMIT 2 OFFSET 1",
    "SELECT a FROM t LIMIT 0",
    "SELECT b, COUNT(*) FROM t GROUP BY b WITH ROLLUP LIMIT 2",
    "SELECT DISTINCT b FROM t LIMIT 2",
    "SELECT MAX(a) FROM t WHERE 1 = 0",
    "SELECT a FROM t WHERE a = 77",
    "SELECT a FROM t UNION ALL SELECT b FROM t LIMIT 3",
    "SELECT * FROM (SELECT a FROM t LIMIT 3) x LIMIT 2",
    "SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1",
    "WITH RECURSIVE x AS (SELECT 1 n UNION ALL SELECT n + 1 FROM x WHERE n < 4) SELECT * FROM x",
    "SELECT 1 WHERE 1 = 0",
    "SELECT a, 1/0 FROM t",
    "SHOW TABLES",
    "SELECT FOUND_ROWS(), ROW_COUNT()",
];

async fn reads_are_counted_wherever_they_run(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_counted").await;
    let made = format!(
        "CREATE TABLE {schema}.t (a INT PRIMARY KEY, b INT); \
         INSERT INTO {schema}.t VALUES (1, 1), (2, 1), (3, 2), (4, 2), (5, 3)"
    );
    rig.cluster.primary().run(&made).await.unwrap();
    rig.cluster.caught_up().await.unwrap();
    let [mut direct, mut proxied] = both(rig).await;
    for raw in [&mut direct, &mut proxied] {
        raw.execute(&format!("USE {schema}")).await;
    }
    let questions = [
        "SELECT FOUND_ROWS(), ROW_COUNT(), FOUND_ROWS() + 1 AS more",
        "SELECT a, found_rows( ) FROM t WHERE a < FOUND_ROWS() ORDER BY a",
    ];
    for sql in COUNTED {
        for question in questions {
            let mut answers = Vec::new();
            for raw in [&mut direct, &mut proxied] {
                raw.command(QUERY, sql.as_bytes()).await;
                let _ = raw.answer(b"").await;
                raw.command(QUERY, question.as_bytes()).await;
                // MySQL warns that FOUND_ROWS() will go; of a number that stands for it nobody does.
                let answer = raw.answer(b"").await;
                let said = answer.into_iter().filter(|packet| !is_eof(packet));
                answers.push(said.collect::<Vec<_>>());
            }
            let [direct, proxied] = [&answers[0], &answers[1]];
            assert_eq!(direct, proxied, "{sql}; {question}");
        }
    }
    // Across what does not count, and prepared.
    let mut answers = Vec::new();
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        let mut conn = Conn::new(application(port)).await.unwrap();
        conn.query_drop(format!("USE {schema}")).await.unwrap();
        let question = conn
            .prep("SELECT FOUND_ROWS(), ROW_COUNT() + ?")
            .await
            .unwrap();
        let mut seen = Vec::new();
        for between in ["DO 0", "SET NAMES utf8mb4", "BEGIN", "COMMIT", "ROLLBACK"] {
            conn.query_drop("SELECT a FROM t LIMIT 3").await.unwrap();
            if between != "DO 0" {
                conn.query_drop(between).await.unwrap();
            }
            let counts: Option<(u64, i64)> = conn.exec_first(&question, (0,)).await.unwrap();
            seen.push(counts.unwrap());
        }
        let limited = conn.prep("SELECT a FROM t LIMIT ?").await.unwrap();
        conn.exec_drop(&limited, (4,)).await.unwrap();
        seen.push(one(&mut conn, "SELECT FOUND_ROWS(), ROW_COUNT()").await);
        answers.push(seen);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][0], (3, -1));
}

async fn transactions_end_as_they_should(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_transactions").await;
    let mut conn = rig.connect().await;
    let mut other = rig.connect().await;
    conn.query_drop(format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY)"))
        .await
        .unwrap();
    let count = format!("SELECT COUNT(*) FROM {schema}.t");
    let mut transaction = conn.start_transaction(TxOpts::default()).await.unwrap();
    transaction
        .query_drop(format!("INSERT INTO {schema}.t VALUES (1)"))
        .await
        .unwrap();
    assert_eq!(
        transaction.query_first::<u64, _>(&count).await.unwrap(),
        Some(1)
    );
    assert_eq!(one::<u64>(&mut other, &count).await, 0);
    transaction.rollback().await.unwrap();
    assert_eq!(one::<u64>(&mut conn, &count).await, 0);
    let mut transaction = conn.start_transaction(TxOpts::default()).await.unwrap();
    transaction
        .query_drop(format!("INSERT INTO {schema}.t VALUES (1)"))
        .await
        .unwrap();
    transaction
        .exec_drop(format!("INSERT INTO {schema}.t VALUES (?)"), (2,))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(one::<u64>(&mut other, &count).await, 2);
    // A client that leaves without a word leaves nothing behind.
    let mut leaving = rig.connect().await;
    leaving.query_drop("START TRANSACTION").await.unwrap();
    leaving
        .query_drop(format!("INSERT INTO {schema}.t VALUES (3)"))
        .await
        .unwrap();
    drop(leaving);
    eventually("the row's lock to be free", async || {
        conn.query_drop("SET SESSION innodb_lock_wait_timeout = 1")
            .await
            .unwrap();
        conn.query_drop(format!("INSERT INTO {schema}.t VALUES (3)"))
            .await
            .is_ok()
    })
    .await;
    // Without autocommit everything is a transaction.
    conn.query_drop("SET autocommit = 0").await.unwrap();
    conn.query_drop(format!("INSERT INTO {schema}.t VALUES (4)"))
        .await
        .unwrap();
    assert_eq!(one::<u64>(&mut other, &count).await, 3);
    conn.query_drop("ROLLBACK").await.unwrap();
    conn.query_drop("SET autocommit = 1").await.unwrap();
    assert_eq!(one::<u64>(&mut conn, &count).await, 3);
    let sql = format!("INSERT INTO {schema}.t VALUES (1)");
    assert_eq!(error_of(&mut conn, &sql).await, 1062);
    let rows: Vec<u64> = "SELECT a FROM commands_transactions.t WHERE a > ? ORDER BY a"
        .with((1,))
        .fetch(&mut conn)
        .await
        .unwrap();
    assert_eq!(rows, [2, 3]);
}

async fn commands_may_be_pipelined(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for mut raw in both(rig).await {
        for number in 0..100 {
            raw.query(&format!("SELECT {number}")).await;
        }
        raw.send(&[PING]).await;
        // The client's sequence starts anew with each answer.
        for number in 0..100 {
            raw.restart_sequence(1);
            assert_eq!(
                raw.result().await.unwrap()[0][0].as_deref(),
                Some(&*number.to_string())
            );
        }
        raw.restart_sequence(1);
        raw.ok().await.unwrap();
    }
}

fn execute(statement: u32, flags: u8, parameters: &[u8]) -> Vec<u8> {
    let mut payload = vec![EXECUTE];
    payload.extend_from_slice(&statement.to_le_bytes());
    payload.extend_from_slice(&[flags, 1, 0, 0, 0]);
    payload.extend_from_slice(parameters);
    payload
}

/// Reads the answer to a prepare: the statement's id.
async fn prepared(raw: &mut Raw, parameters: u16, columns: u16) -> u32 {
    let payload = raw.packet().await.unwrap();
    assert_eq!(payload[0], 0, "{payload:?}");
    assert_eq!(u16::from_le_bytes([payload[5], payload[6]]), columns);
    assert_eq!(u16::from_le_bytes([payload[7], payload[8]]), parameters);
    for definitions in [parameters, columns] {
        if definitions > 0 {
            for _ in 0..definitions {
                raw.packet().await.unwrap();
            }
            assert!(is_eof(&raw.packet().await.unwrap()));
        }
    }
    u32::from_le_bytes(payload[1..5].try_into().unwrap())
}

/// Reads a binary result set: the rows' payloads.
async fn binary_rows(raw: &mut Raw) -> Result<Vec<Vec<u8>>, Refused> {
    let first = raw.packet().await.unwrap();
    if first[0] == 0xff {
        return Err(Refused::parse(&first));
    }
    while !is_eof(&raw.packet().await.unwrap()) {}
    let mut rows = Vec::new();
    loop {
        let payload = raw.packet().await.unwrap();
        if is_eof(&payload) {
            return Ok(rows);
        }
        rows.push(payload);
    }
}

async fn processes_have_the_clients_ids(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut watcher = Raw::app(rig.proxy.port()).await;
    let mut idle = Raw::app(rig.proxy.port()).await;
    idle.rows("SET @commands_idle = 1 + 1").await.unwrap();
    let mut preparing = Raw::app(rig.proxy.port()).await;
    preparing.execute("BEGIN").await;
    preparing.command(PREPARE, b"SELECT @@port").await;
    prepared(&mut preparing, 0, 1).await;
    let mut busy = Raw::app(rig.proxy.port()).await;
    busy.query("SELECT SLEEP(300), GET_LOCK('commands_busy', 0)")
        .await;
    let id = |raw: &Raw| Some(raw.greeting.connection.to_string());
    for full in ["", "FULL "] {
        let mut rows = Vec::new();
        eventually("the statement to run", async || {
            rows = watcher
                .rows(&format!("SHOW {full}PROCESSLIST"))
                .await
                .unwrap();
            let sleeps = |info: &Option<String>| info.iter().any(|info| info.contains("SLEEP"));
            rows.iter()
                .any(|row| row[0] == id(&busy) && sleeps(&row[7]))
        })
        .await;
        let found = |raw: &Raw| rows.iter().filter(|row| row[0] == id(raw)).count();
        assert_eq!(
            [
                found(&watcher),
                found(&idle),
                found(&preparing),
                found(&busy)
            ],
            [1, 1, 1, 1],
            "{rows:?}"
        );
    }
    watcher.send(&[PROCESS_INFO]).await;
    match watcher.result().await {
        Ok(rows) => assert!(rows.iter().any(|row| row[0] == id(&watcher))),
        Err(refused) => assert_eq!((flavor, refused.code), (Flavor::MySql, 1047)),
    }
    // The servers' own ids are told apart, and can be used as well.
    let sql = "SELECT id FROM information_schema.processlist WHERE info LIKE '%commands_busy%' \
               AND id <> CONNECTION_ID()";
    let thread = watcher.rows(sql).await.unwrap()[0][0].clone().unwrap();
    assert_ne!(Some(&thread), id(&busy).as_ref());
    let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE id = CONNECTION_ID()";
    assert_eq!(watcher.rows(sql).await.unwrap()[0][0].as_deref(), Some("1"));
    watcher.rows(&format!("KILL QUERY {thread}")).await.unwrap();
    let _ = busy.result().await;
    assert_eq!(busy.rows("SELECT 1").await.unwrap().len(), 1);
}

async fn idle_sessions_are_listed(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("commands_listed").await;
    let user = "commands_watched";
    let options = rig.account(user).await;
    let revoke = format!("REVOKE PROCESS ON *.* FROM {user}@'%'");
    rig.cluster.primary().run(&revoke).await.unwrap();
    let connect = async || Conn::new(options.clone()).await.unwrap();
    let mut watcher = connect().await;
    // One that a replica or nobody works for, one in a transaction, and one that has left a connection behind.
    let (mut idle, mut bound, mut gone) = (connect().await, connect().await, connect().await);
    idle.query_drop(format!("USE {schema}")).await.unwrap();
    let _: Option<u32> = idle.query_first("SELECT 1").await.unwrap();
    bound.query_drop("BEGIN").await.unwrap();
    gone.query_drop("DO 1").await.unwrap();
    gone.disconnect().await.unwrap();
    let administrator = rig.account("commands_watching").await;
    let mut administrator = Conn::new(administrator).await.unwrap();

    let of = |row: &mysql_async::Row, column: usize| row.get::<Option<String>, _>(column).unwrap();
    // Id, schema, command; and the hosts.
    let theirs = async |conn: &mut Conn, prepared: bool| {
        let mut rows: Vec<mysql_async::Row> = if prepared {
            conn.exec("SHOW FULL PROCESSLIST", ()).await.unwrap()
        } else {
            conn.query("SHOW FULL PROCESSLIST").await.unwrap()
        };
        rows.retain(|row| of(row, 1).as_deref() == Some(user));
        for row in &rows {
            // MySQL's clocks may be a second apart.
            let seconds: i64 = row.get(5).unwrap();
            assert!((-1..100).contains(&seconds), "{seconds}");
        }
        let mut sessions: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.get::<u32, _>(0).unwrap(),
                    of(row, 3),
                    of(row, 4).unwrap(),
                )
            })
            .collect();
        sessions.sort();
        let hosts: BTreeSet<_> = rows.iter().map(|row| of(row, 2).unwrap()).collect();
        (sessions, hosts)
    };
    let expected = |watching: &str| {
        [
            (watcher.id(), None, watching.to_owned()),
            (idle.id(), Some(schema.clone()), "Sleep".to_owned()),
            (bound.id(), None, "Sleep".to_owned()),
        ]
    };
    let asks = [(false, "Query"), (true, "Execute")];
    let asks = asks.map(|(prepared, command)| (prepared, expected(command), expected("Sleep")));
    for (prepared, watching, administrated) in asks {
        for (conn, expected) in [
            (&mut watcher, watching),
            (&mut administrator, administrated),
        ] {
            let mut seen = Vec::new();
            let listed = within(SOON, async || {
                let (sessions, hosts) = theirs(conn, prepared).await;
                // The clients' addresses, not the proxy's.
                assert!(hosts.iter().all(|host| host.starts_with("127.0.0.1:")));
                assert_eq!(hosts.len(), sessions.len());
                seen = sessions;
                seen == expected
            });
            assert!(listed.await, "{seen:?}");
        }
    }
    // Sessions of others are not for everybody's eyes.
    let rows = watcher.query_map("SHOW PROCESSLIST", |row: mysql_async::Row| {
        row.get::<String, usize>(1).unwrap()
    });
    assert_eq!(rows.await.unwrap(), [user; 3]);
    let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
    raw.login(user, user, None, capability::USUAL)
        .await
        .unwrap();
    let utf16 = "SET character_set_results = utf16";
    raw.rows(utf16).await.unwrap();
    let rows = raw.rows("SHOW PROCESSLIST").await.unwrap();
    let name: String = user.chars().flat_map(|char| ['\0', char]).collect();
    assert!(!rows.is_empty() && rows.iter().all(|row| row[1].as_ref() == Some(&name)));
}

async fn a_victim_may_be_an_expression(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut killer = Raw::app(rig.proxy.port()).await;
    let victim = async || {
        let conn = rig.connect().await;
        (conn.id(), conn)
    };
    let (id, conn) = victim().await;
    killer.rows(&format!("SET @id = {id}")).await.unwrap();
    killer.rows("KILL @id").await.unwrap();
    gone(conn).await;
    let (id, conn) = victim().await;
    killer
        .rows(&format!("KILL CONNECTION {} + 1", id - 1))
        .await
        .unwrap();
    gone(conn).await;
    let (id, conn) = victim().await;
    let mut prepared = rig.connect().await;
    match prepared.exec_drop("KILL ?", (id,)).await {
        Ok(()) => gone(conn).await,
        // Dynamic parameters can only be used in DML statements.
        Err(error) => assert_eq!((flavor, code(&error)), (Flavor::MySql, 6413)),
    }
    assert_eq!(error_of(&mut prepared, "KILL @id").await, 1094);
    // Itself: as the server says it.
    let mut heard = Vec::new();
    for mut raw in both(rig).await {
        let mut packets = raw.exchange(b"\x03KILL QUERY CONNECTION_ID()").await;
        packets.extend(raw.exchange(b"\x03KILL CONNECTION_ID()").await);
        heard.push(packets);
    }
    assert_eq!(heard[0], heard[1]);
}

async fn an_administrator_kills_anybody(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut root = Conn::new(rig.account("commands_root").await).await.unwrap();
    let administrator = rig.account("commands_admin").await;
    let other = rig.account("commands_victim").await;
    let idle = Conn::new(other.clone()).await.unwrap();
    let kill = format!("KILL {}", idle.id());
    assert_eq!(error_of(&mut root, &kill).await, 1095);
    let grant = match flavor {
        Flavor::MariaDb => "GRANT CONNECTION ADMIN ON *.* TO commands_admin@'%'",
        Flavor::MySql => "GRANT CONNECTION_ADMIN ON *.* TO commands_admin@'%'",
    };
    rig.cluster.primary().run(grant).await.unwrap();
    let mut root = Conn::new(administrator).await.unwrap();
    root.query_drop(kill).await.unwrap();
    gone(idle).await;
    let mut pinned = Conn::new(other.clone()).await.unwrap();
    pinned.query_drop("SET @pinned = 1 + 1").await.unwrap();
    root.query_drop(format!("KILL {}", pinned.id()))
        .await
        .unwrap();
    gone(pinned).await;
    if flavor == Flavor::MariaDb {
        let [first, second] = [
            Conn::new(other.clone()).await.unwrap(),
            Conn::new(other).await.unwrap(),
        ];
        root.query_drop("KILL USER commands_victim").await.unwrap();
        gone(first).await;
        gone(second).await;
    }
}
