//! Sessions that share server connections are exact and apart: none finds, loses or ends what is another's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io;
use std::net::{Ipv4Addr, Shutdown};

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::net::TcpStream;
use tokio::time::timeout;

use support::raw::{Raw, Refused, capability, is_eof};
use support::{Options, Proxy, Rig, SOON, addresses, code, error_of, eventually, one};

on_both_flavors!(
    a_failed_call_leaves_its_transaction_to_its_session,
    what_a_call_binds_stays_with_its_session,
    accounts_of_one_user_name_are_apart,
    a_statement_prepared_before_joins_the_transaction,
    found_rows_of_a_replica_do_not_bind_writes,
    half_a_transaction_is_never_committed,
    a_write_of_a_client_that_left_is_not_run,
    a_read_only_transaction_is_for_its_session_alone,
    the_last_insert_id_is_the_sessions,
    character_sets_are_the_same_everywhere,
    types_of_parameters_are_the_sessions_own,
    effects_of_failed_statements_are_seen,
    a_hidden_kill_ends_nobody_else,
    warnings_are_of_the_statement_before,
    warnings_of_other_sessions_are_not_shown,
    a_reset_connection_is_as_the_client_logged_in,
    a_reset_connection_has_the_servers_character_set,
);

const QUIT: u8 = 0x01;
const PING: u8 = 0x0e;
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;
const RESET_CONNECTION: u8 = 0x1f;
const LONG_DATA: u8 = 0x18;

/// A proxy whose sessions share so many connections to each server.
async fn sharing(rig: &Rig, connections: u32) -> Proxy {
    let options = Options {
        sections: format!("[limits]\nserver_connections = {connections}\nqueue_wait = \"60s\"\n"),
        ..Options::default()
    };
    Proxy::start(&rig.cluster, &options).await
}

async fn types_of_parameters_are_the_sessions_own(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = sharing(rig, 1).await;
    let mut numbers = Conn::new(support::application(proxy.port())).await.unwrap();
    let mut words = Conn::new(support::application(proxy.port())).await.unwrap();
    let sql = "SELECT ?, @@port > 0";
    let (for_numbers, for_words) = (
        numbers.prep(sql).await.unwrap(),
        words.prep(sql).await.unwrap(),
    );
    for round in 0..3 {
        // MySQL would make a number of the word where the same statement had numbers before.
        let number: Option<(u64, u8)> = numbers.exec_first(&for_numbers, (round,)).await.unwrap();
        assert_eq!(number, Some((round, 1)));
        let word: Option<(String, u8)> = words.exec_first(&for_words, ("word",)).await.unwrap();
        assert_eq!(word, Some(("word".to_owned(), 1)));
    }
}

/// Ends a session as clients do, and returns when the other side has closed.
async fn quit(mut raw: Raw) {
    raw.send(&[QUIT]).await;
    assert_eq!(
        raw.packet().await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

/// The only field of the first row.
async fn field(raw: &mut Raw, sql: &str) -> Option<String> {
    match raw.rows(sql).await {
        Ok(rows) => rows[0][0].clone(),
        Err(refused) => panic!("{sql}: {refused:?}"),
    }
}

/// Counts on the primary itself.
async fn count(rig: &Rig, from: &str) -> u64 {
    let sql = format!("SELECT COUNT(*) FROM {from}");
    rig.cluster.primary().first(&sql).await.unwrap()
}

/// Runs statements on the primary itself; they may hold semicolons, other than `run` allows.
async fn create(rig: &Rig, statements: &[String]) {
    let mut direct = rig.cluster.primary().connect().await.unwrap();
    for sql in statements {
        direct
            .query_drop(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    direct.disconnect().await.unwrap();
    rig.cluster.caught_up().await.unwrap();
}

/// Prepares a statement: its id.
async fn prepare(raw: &mut Raw, sql: &str) -> Result<u32, Refused> {
    raw.command(PREPARE, sql.as_bytes()).await;
    let payload = raw.packet().await.unwrap();
    if payload[0] == 0xff {
        return Err(Refused::parse(&payload));
    }
    for at in [7, 5] {
        let definitions = u16::from_le_bytes([payload[at], payload[at + 1]]);
        if definitions > 0 {
            while !is_eof(&raw.packet().await.unwrap()) {}
        }
    }
    Ok(u32::from_le_bytes(payload[1..5].try_into().unwrap()))
}

fn execution(statement: u32) -> Vec<u8> {
    let mut payload = vec![EXECUTE];
    payload.extend_from_slice(&statement.to_le_bytes());
    payload.extend_from_slice(&[0, 1, 0, 0, 0]);
    payload
}

async fn a_failed_call_leaves_its_transaction_to_its_session(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_call").await;
    create(
        rig,
        &[
            format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY)"),
            format!(
                "CREATE PROCEDURE {schema}.fails (IN n INT) BEGIN START TRANSACTION; \
                 INSERT INTO {schema}.t VALUES (n); SIGNAL SQLSTATE '45000'; END"
            ),
        ],
    )
    .await;
    let proxy = sharing(rig, 3).await;
    let mut expected = 0;
    for round in 0..5_u32 {
        let mut calls = Vec::new();
        for (place, end) in ["ROLLBACK", "COMMIT"].into_iter().enumerate() {
            let number = 1000 + 10 * round + u32::try_from(place).unwrap();
            let mut raw = Raw::app(proxy.port()).await;
            let call = format!("CALL {schema}.fails({number})");
            let refused = if round % 2 == 0 {
                raw.rows(&call).await.unwrap_err()
            } else {
                let statement = prepare(&mut raw, &call).await.unwrap();
                raw.send(&execution(statement)).await;
                raw.refused().await
            };
            assert_eq!(refused.state, "45000", "{refused:?}");
            calls.push((raw, number, end));
        }
        // Others go on writing while the transactions are open, and leave.
        for place in 0..4 {
            let mut raw = Raw::app(proxy.port()).await;
            raw.rows(&format!(
                "INSERT INTO {schema}.t VALUES ({})",
                10 * round + place
            ))
            .await
            .unwrap();
            quit(raw).await;
            expected += 1;
            assert_eq!(
                count(rig, &format!("{schema}.t WHERE a < 1000")).await,
                expected
            );
        }
        for (mut raw, number, end) in calls {
            let mine = format!("{schema}.t WHERE a = {number}");
            assert_eq!(count(rig, &mine).await, 0, "nothing was committed yet");
            let seen = field(&mut raw, &format!("SELECT COUNT(*) FROM {mine}")).await;
            assert_eq!(
                seen.as_deref(),
                Some("1"),
                "its own transaction is still open"
            );
            raw.rows(end).await.unwrap();
            assert_eq!(count(rig, &mine).await, u64::from(end == "COMMIT"));
            quit(raw).await;
        }
        // One that just leaves.
        let mut raw = Raw::app(proxy.port()).await;
        let call = format!("CALL {schema}.fails({})", 2000 + round);
        raw.rows(&call).await.unwrap_err();
        quit(raw).await;
        for place in 5..9 {
            let mut raw = Raw::app(proxy.port()).await;
            raw.rows(&format!(
                "INSERT INTO {schema}.t VALUES ({})",
                10 * round + place
            ))
            .await
            .unwrap();
            quit(raw).await;
            expected += 1;
        }
        assert_eq!(
            count(rig, &format!("{schema}.t WHERE a < 1000")).await,
            expected
        );
        assert_eq!(count(rig, &format!("{schema}.t WHERE a >= 2000")).await, 0);
    }
}

async fn what_a_call_binds_stays_with_its_session(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_bound").await;
    let lock = "isolation_bound";
    let bodies = [
        format!("DO GET_LOCK('{lock}', 0);"),
        format!("CREATE TEMPORARY TABLE {schema}.mine (a INT);"),
        "SET @isolation_x = 7;".to_owned(),
    ];
    let mut statements = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        let ends = [("p", ""), ("q", "SIGNAL SQLSTATE '45000';")];
        for (name, end) in ends {
            statements.push(format!(
                "CREATE PROCEDURE {schema}.{name}{number} () BEGIN {body} {end} END"
            ));
        }
    }
    create(rig, &statements).await;
    // What the creator sees, and what everybody else sees.
    let sights = [
        format!("SELECT IF(IS_USED_LOCK('{lock}') IS NULL, 'other', 'own')"),
        format!("SELECT IF(COUNT(*) = 0, 'own', '') FROM {schema}.mine"),
        "SELECT IF(@isolation_x = 7, 'own', 'other')".to_owned(),
    ];
    let proxy = sharing(rig, 2).await;
    for round in 0..2 {
        for (number, sight) in sights.iter().enumerate() {
            for name in ["p", "q"] {
                let what = format!("round {round}: {name}{number}");
                let mut creator = Raw::app(proxy.port()).await;
                let called = creator
                    .rows(&format!("CALL {schema}.{name}{number}()"))
                    .await;
                assert_eq!(called.is_err(), name == "q", "{what}");
                let mut other = Raw::app(proxy.port()).await;
                for _ in 0..3 {
                    assert_eq!(
                        field(&mut creator, sight).await.as_deref(),
                        Some("own"),
                        "{what}"
                    );
                    if number == 0 {
                        let taken = format!("SELECT GET_LOCK('{lock}', 0)");
                        assert_eq!(
                            field(&mut other, &taken).await.as_deref(),
                            Some("0"),
                            "{what}"
                        );
                    } else {
                        alone(&mut other, sight, &what).await;
                    }
                }
                quit(other).await;
                quit(creator).await;
                if number == 0 {
                    let free = format!("SELECT IS_FREE_LOCK('{lock}')");
                    eventually("the lock to be free", async || {
                        rig.cluster.primary().first::<u8>(&free).await.unwrap() == 1
                    })
                    .await;
                }
                for _ in 0..4 {
                    let mut other = Raw::app(proxy.port()).await;
                    alone(&mut other, sight, &what).await;
                    quit(other).await;
                }
            }
        }
    }
}

/// A session that must not find what is another's.
async fn alone(other: &mut Raw, sight: &str, what: &str) {
    match other.rows(sight).await {
        Ok(rows) => assert_eq!(rows[0][0].as_deref(), Some("other"), "{what}"),
        Err(refused) => assert_eq!(refused.code, 1146, "{what}: {refused:?}"),
    }
}

async fn accounts_of_one_user_name_are_apart(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_accounts").await;
    // By the socket or by TCP, a server takes the proxy for one or the other account.
    let by_socket: Vec<String> = rig
        .cluster
        .servers()
        .iter()
        .map(|server| format!("{}=unix:{}", server.name(), server.socket().display()))
        .collect();
    let secret = format!("SELECT a FROM {schema}.secret");
    for (place, strong_host, weak_host) in
        [(0, "127.0.0.1", "localhost"), (1, "localhost", "127.0.0.1")]
    {
        let user = format!("isolation_two{place}");
        rig.cluster
            .primary()
            .run(&format!(
                "CREATE TABLE IF NOT EXISTS {schema}.secret (a INT); \
                 CREATE USER {user}@'{strong_host}' IDENTIFIED BY 'strong'; \
                 CREATE USER {user}@'{weak_host}' IDENTIFIED BY 'weak'; \
                 GRANT SELECT, INSERT, UPDATE ON {schema}.* TO {user}@'{strong_host}'"
            ))
            .await
            .unwrap();
        rig.cluster.caught_up().await.unwrap();
        for (servers, seen_host) in [
            (addresses(&rig.cluster), "127.0.0.1"),
            (by_socket.clone(), "localhost"),
        ] {
            let options = Options {
                sections: "[limits]\nserver_connections = 2\n".to_owned(),
                servers: Some(servers),
                ..Options::default()
            };
            let proxy = Proxy::start(&rig.cluster, &options).await;
            let what = format!("{user}, {strong_host} is strong, the server sees {seen_host}");
            let reach = async |host: &str, password: &str| -> Result<Raw, Refused> {
                let mut raw = match host {
                    "localhost" => Raw::unix(&proxy.socket()).await?,
                    _ => Raw::tcp(proxy.port()).await?,
                };
                raw.login(&user, password, None, capability::USUAL).await?;
                Ok(raw)
            };
            let weak_never_reads = async || {
                for _ in 0..3 {
                    let Ok(mut raw) = reach(weak_host, "weak").await else {
                        assert_ne!(seen_host, weak_host, "{what}: the weak one is let in");
                        continue;
                    };
                    for sql in [
                        &secret,
                        &format!("{secret} FOR UPDATE"),
                        &format!("INSERT INTO {schema}.secret VALUES (1)"),
                    ] {
                        let refused = raw.rows(sql).await.unwrap_err();
                        assert!(refused.code != 0, "{what}: {refused:?}");
                    }
                    if let Ok(rows) = raw.rows("SELECT CURRENT_USER()").await {
                        let current = rows[0][0].as_deref();
                        assert_eq!(current, Some(&*format!("{user}@{weak_host}")), "{what}");
                    }
                }
            };
            if seen_host == weak_host {
                eventually("the weak account to be known", async || {
                    reach(weak_host, "weak").await.is_ok()
                })
                .await;
            }
            weak_never_reads().await;
            // Each with the other's password: only who proves the strong one may have its rights.
            let _ = reach(weak_host, "strong").await;
            if let Ok(mut raw) = reach(strong_host, "weak").await {
                raw.rows(&secret).await.unwrap_err();
                quit(raw).await;
            }
            weak_never_reads().await;
            if seen_host == strong_host {
                // The pool's connections are this account's now, and stay when the client has gone.
                let mut held = Vec::new();
                for _ in 0..3 {
                    let mut raw = reach(strong_host, "strong").await.unwrap();
                    raw.rows(&secret).await.unwrap();
                    raw.rows(&format!("{secret} FOR UPDATE")).await.unwrap();
                    held.push(raw);
                }
                weak_never_reads().await;
                for raw in held {
                    quit(raw).await;
                }
                weak_never_reads().await;
            }
        }
    }
}

async fn a_statement_prepared_before_joins_the_transaction(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_prepared").await;
    create(
        rig,
        &[format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY)")],
    )
    .await;
    let few = sharing(rig, 2).await;
    for (round, proxy) in [&few, &rig.proxy, &few, &rig.proxy].into_iter().enumerate() {
        let mut conn = proxy.connect().await;
        let select = conn
            .prep(format!("SELECT COUNT(*) FROM {schema}.t"))
            .await
            .unwrap();
        let asked = round < 2;
        if asked {
            let seen: Option<u64> = conn.exec_first(&select, ()).await.unwrap();
            assert_eq!(seen, Some(0));
        }
        conn.query_drop("SET autocommit = 0").await.unwrap();
        conn.query_drop(format!("INSERT INTO {schema}.t VALUES (1)"))
            .await
            .unwrap();
        let seen: Option<u64> = conn.exec_first(&select, ()).await.unwrap();
        assert_eq!(seen, Some(1), "it runs in the same transaction");
        assert_eq!(count(rig, &format!("{schema}.t")).await, 0);
        conn.query_drop("ROLLBACK").await.unwrap();
        assert_eq!(count(rig, &format!("{schema}.t")).await, 0);
        let seen: Option<u64> = conn.exec_first(&select, ()).await.unwrap();
        assert_eq!(seen, Some(0));
        conn.disconnect().await.unwrap();
        assert_eq!(count(rig, &format!("{schema}.t")).await, 0);
    }
}

async fn found_rows_of_a_replica_do_not_bind_writes(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_found").await;
    create(
        rig,
        &[
            format!("CREATE TABLE {schema}.t (a INT)"),
            format!("INSERT INTO {schema}.t VALUES (1), (2), (3)"),
            format!("CREATE TABLE {schema}.log (a INT)"),
        ],
    )
    .await;
    let calculated = format!(
        "SELECT SQL_CALC_FOUND_ROWS (SELECT name FROM test.where_am_i) FROM {schema}.t LIMIT 1"
    );
    let mut written = 0;
    for _ in 0..2 {
        for using in [
            format!("INSERT INTO {schema}.log VALUES (FOUND_ROWS())"),
            "SET @n = FOUND_ROWS()".to_owned(),
            "SELECT FOUND_ROWS() INTO @n".to_owned(),
        ] {
            let mut raw = Raw::app(rig.proxy.port()).await;
            eventually("the rows to be found on a replica", async || {
                field(&mut raw, &calculated).await.as_deref() != Some("db1")
            })
            .await;
            if let Err(refused) = raw.rows(&using).await {
                panic!("{using}: {refused:?}");
            }
            for later in ["INSERT INTO log VALUES (100)", "UPDATE log SET a = a"] {
                let later = later.replace("log", &format!("{schema}.log"));
                if let Err(refused) = raw.rows(&later).await {
                    panic!("{later} after {using}: {refused:?}");
                }
            }
            written += 1 + u64::from(using.starts_with("INSERT"));
            assert_eq!(count(rig, &format!("{schema}.log")).await, written);
            quit(raw).await;
        }
    }
    // The question alone is answered by the server that found them.
    let mut raw = Raw::app(rig.proxy.port()).await;
    for _ in 0..10 {
        field(&mut raw, &calculated).await;
        assert_eq!(
            field(&mut raw, "SELECT FOUND_ROWS()").await.as_deref(),
            Some("3")
        );
    }
}

async fn half_a_transaction_is_never_committed(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_half").await;
    create(
        rig,
        &[format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY)")],
    )
    .await;
    let proxy = sharing(rig, 3).await;
    for round in 0..6_u32 {
        create(rig, &[format!("CREATE TABLE {schema}.gone (a TEXT)")]).await;
        let mut raw = Raw::app(proxy.port()).await;
        let statement = prepare(&mut raw, &format!("INSERT INTO {schema}.gone VALUES (?)"))
            .await
            .unwrap();
        create(rig, &[format!("DROP TABLE {schema}.gone")]).await;
        // The connections on which it was prepared may be others' by now.
        let mut holding = Vec::new();
        for _ in 0..round % 3 {
            let mut other = Raw::app(proxy.port()).await;
            other.rows("BEGIN").await.unwrap();
            other
                .rows("SELECT name FROM test.where_am_i")
                .await
                .unwrap();
            holding.push(other);
        }
        let halves = [2 * round, 2 * round + 1];
        let mut data = vec![LONG_DATA];
        data.extend_from_slice(&statement.to_le_bytes());
        data.extend_from_slice(&[0, 0]);
        data.extend_from_slice(b"some text");
        let insert = |half: u32| {
            [
                &[3],
                format!("INSERT INTO {schema}.t VALUES ({half})").as_bytes(),
            ]
            .concat()
        };
        let commands = [
            (b"\x03BEGIN".to_vec(), true),
            (insert(halves[0]), true),
            (data, false),
            (insert(halves[1]), true),
            (b"\x03COMMIT".to_vec(), true),
        ];
        let mut cut = false;
        for (command, answered) in commands {
            if raw.try_send(&command).await.is_err() {
                cut = true;
                break;
            }
            if !answered {
                continue;
            }
            // As a client that goes on after an error.
            match raw.packet().await {
                Ok(_) => {}
                Err(_) => {
                    cut = true;
                    break;
                }
            }
        }
        drop(raw);
        let there = |half: u32| format!("{schema}.t WHERE a = {half}");
        let [first, second] = [
            count(rig, &there(halves[0])).await,
            count(rig, &there(halves[1])).await,
        ];
        assert_eq!(first, second, "round {round}: cut: {cut}");
        assert!(
            cut || first == 1,
            "round {round}: all was committed or the client was cut off"
        );
    }
}

async fn a_write_of_a_client_that_left_is_not_run(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_left").await;
    create(
        rig,
        &[format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY)")],
    )
    .await;
    let proxy = sharing(rig, 1).await;
    for round in 0..3_u32 {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))
            .await
            .unwrap();
        let socket = stream.into_std().unwrap();
        let end = socket.try_clone().unwrap();
        let mut leaving = Raw::over(TcpStream::from_std(socket).unwrap())
            .await
            .unwrap();
        leaving
            .login("app", "app", None, capability::USUAL)
            .await
            .unwrap();
        let mut holder = Raw::app(proxy.port()).await;
        holder.rows("BEGIN").await.unwrap();
        holder
            .rows(&format!("INSERT INTO {schema}.t VALUES ({})", 100 + round))
            .await
            .unwrap();
        leaving
            .query(&format!("INSERT INTO {schema}.t VALUES ({round})"))
            .await;
        // To the other side this is a close; here the answer to it can still be seen.
        end.shutdown(Shutdown::Write).unwrap();
        let answer = timeout(SOON, leaving.packet()).await;
        let answer = answer.expect("the proxy notices that the client has left");
        assert!(answer.is_err(), "round {round}: {answer:?}");
        holder.rows("COMMIT").await.unwrap();
        // Over the same connection, so after whatever was still to come.
        let mut after = Raw::app(proxy.port()).await;
        after
            .rows(&format!("INSERT INTO {schema}.t VALUES ({})", 200 + round))
            .await
            .unwrap();
        quit(after).await;
        quit(holder).await;
        assert_eq!(count(rig, &format!("{schema}.t WHERE a < 100")).await, 0);
        assert_eq!(
            count(rig, &format!("{schema}.t WHERE a >= 100")).await,
            2 * u64::from(round + 1)
        );
    }
}

async fn a_read_only_transaction_is_for_its_session_alone(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_read_only").await;
    create(rig, &[format!("CREATE TABLE {schema}.t (a INT)")]).await;
    let insert = format!("INSERT INTO {schema}.t VALUES (1)");
    let proxy = sharing(rig, 2).await;
    let mut expected = 0;
    for round in 0..4 {
        for characteristic in ["READ ONLY", "ISOLATION LEVEL SERIALIZABLE, READ ONLY"] {
            let mut raw = Raw::app(proxy.port()).await;
            raw.rows(&format!("SET TRANSACTION {characteristic}"))
                .await
                .unwrap();
            raw.send(&[PING]).await;
            raw.ok().await.unwrap();
            // While it is there, and after it has gone.
            let mut staying = Some(raw);
            for _ in 0..2 {
                for _ in 0..3 {
                    let mut other = Raw::app(proxy.port()).await;
                    if let Err(refused) = other.rows(&insert).await {
                        panic!("round {round}, {characteristic}: {refused:?}");
                    }
                    expected += 1;
                    quit(other).await;
                }
                if let Some(raw) = staying.take() {
                    quit(raw).await;
                }
            }
            assert_eq!(count(rig, &format!("{schema}.t")).await, expected);
        }
    }
    // For its own session it means what it means on the server.
    let mut heard = Vec::new();
    for port in [rig.cluster.primary().port(), proxy.port()] {
        let mut raw = Raw::app(port).await;
        let mut answers = Vec::new();
        for sql in [
            "SET TRANSACTION READ ONLY",
            "BEGIN",
            &insert,
            "ROLLBACK",
            &insert,
            "SET TRANSACTION READ ONLY",
            &insert,
            &insert,
        ] {
            answers.push(raw.rows(sql).await.map_err(|refused| refused.code));
            raw.send(&[PING]).await;
            raw.ok().await.unwrap();
        }
        heard.push(answers);
    }
    assert_eq!(heard[1], heard[0]);
    assert_eq!(heard[0][2], Err(1792));
}

async fn the_last_insert_id_is_the_sessions(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_id").await;
    create(
        rig,
        &[
            format!("CREATE TABLE {schema}.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)"),
            format!("CREATE TABLE {schema}.child (parent INT)"),
        ],
    )
    .await;
    let insert = format!("INSERT INTO {schema}.t (a) VALUES (1)");
    let asked = "SELECT LAST_INSERT_ID()";
    let proxy = sharing(rig, 2).await;
    let mut never = proxy.connect().await;
    for begin in ["BEGIN", "START TRANSACTION", "SET autocommit = 0"] {
        let mut first = proxy.connect().await;
        first.query_drop(&insert).await.unwrap();
        let id = first.last_insert_id().unwrap();
        let others_insert = async || {
            for _ in 0..4 {
                let mut other = proxy.connect().await;
                for _ in 0..3 {
                    other.query_drop(&insert).await.unwrap();
                }
                other.disconnect().await.unwrap();
            }
        };
        others_insert().await;
        assert_eq!(one::<u64>(&mut first, asked).await, id);
        others_insert().await;
        first.query_drop(begin).await.unwrap();
        assert_eq!(one::<u64>(&mut first, asked).await, id, "{begin}");
        first
            .query_drop(format!(
                "INSERT INTO {schema}.child VALUES (LAST_INSERT_ID())"
            ))
            .await
            .unwrap();
        first.query_drop("COMMIT").await.unwrap();
        assert_eq!(
            count(rig, &format!("{schema}.child WHERE parent = {id}")).await,
            1
        );
        others_insert().await;
        assert_eq!(one::<u64>(&mut never, asked).await, 0);
        never.query_drop(begin).await.unwrap();
        assert_eq!(one::<u64>(&mut never, asked).await, 0, "{begin}");
        never.query_drop("COMMIT").await.unwrap();
        never.query_drop("SET autocommit = 1").await.unwrap();
        // In a transaction without a statement in between that could have told the proxy.
        let mut fresh = proxy.connect().await;
        fresh.query_drop(begin).await.unwrap();
        let prepared: Option<u64> = fresh.exec_first(asked, ()).await.unwrap();
        assert_eq!(prepared, Some(0), "{begin}");
        fresh.query_drop("ROLLBACK").await.unwrap();
        fresh.disconnect().await.unwrap();
        first.disconnect().await.unwrap();
    }
    // A value that a read has given it is its session's, and nobody else's.
    let mut giver = proxy.connect().await;
    assert_eq!(
        one::<u64>(&mut giver, "SELECT LAST_INSERT_ID(4711)").await,
        4711
    );
    assert_eq!(one::<u64>(&mut never, asked).await, 0);
    assert_eq!(one::<u64>(&mut giver, asked).await, 4711);
    giver.disconnect().await.unwrap();
    for _ in 0..4 {
        assert_eq!(one::<u64>(&mut never, asked).await, 0);
        let mut next = proxy.connect().await;
        assert_eq!(one::<u64>(&mut next, asked).await, 0);
    }
}

async fn character_sets_are_the_same_everywhere(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_charset").await;
    create(
        rig,
        &[format!(
            "CREATE TABLE {schema}.t (a VARCHAR(10) CHARACTER SET utf8mb4)"
        )],
    )
    .await;
    let asked = "SELECT @@character_set_client, @@character_set_results, @@character_set_connection, \
                 @@collation_connection, name FROM test.where_am_i";
    let locking = format!("{asked} FOR UPDATE");
    let changes: [&[&str]; 8] = [
        &["SET NAMES DEFAULT"],
        &["SET NAMES latin1", "SET NAMES DEFAULT"],
        &[
            "SET collation_connection = 'utf8mb4_bin'",
            "SET character_set_connection = 'latin1'",
        ],
        &[
            "SET character_set_connection = 'latin1'",
            "SET collation_connection = 'utf8mb4_bin'",
        ],
        &["SET collation_connection = 'latin1_bin', character_set_connection = 'utf8mb4'"],
        &[
            "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
            "SET character_set_connection = 'latin1'",
        ],
        &["SET CHARACTER SET latin1"],
        &[
            "SET collation_connection = 'latin1_bin'",
            "SET NAMES utf8mb4",
        ],
    ];
    for change in changes {
        let mut direct = Raw::app(rig.cluster.primary().port()).await;
        let mut raw = Raw::app(rig.proxy.port()).await;
        for sql in change {
            direct.rows(sql).await.unwrap();
            if let Err(refused) = raw.rows(sql).await {
                panic!("{sql}: {refused:?}");
            }
        }
        let expected = direct.rows(asked).await.unwrap().remove(0);
        let there = raw.rows(&locking).await.unwrap().remove(0);
        assert_eq!(there, expected, "{change:?}");
        eventually(
            &format!("a read on a replica after {change:?}"),
            async || {
                let seen = raw.rows(asked).await.unwrap().remove(0);
                assert_eq!(seen[..4], expected[..4], "{change:?} {seen:?}");
                // What these mean may differ between servers: the session may stay on the primary.
                let pinned = ["SET NAMES DEFAULT", "SET CHARACTER SET latin1"];
                change.iter().any(|sql| pinned.contains(sql)) || seen[4].as_deref() != Some("db1")
            },
        )
        .await;
        raw.rows(&format!("INSERT INTO {schema}.t VALUES ('x')"))
            .await
            .unwrap();
        let seen = field(&mut raw, &format!("SELECT COUNT(*) > 0 FROM {schema}.t")).await;
        assert_eq!(seen.as_deref(), Some("1"));
        quit(raw).await;
    }
}

async fn effects_of_failed_statements_are_seen(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_failed").await;
    create(
        rig,
        &[
            format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY)"),
            format!(
                "CREATE PROCEDURE {schema}.fails (IN n INT) BEGIN INSERT INTO {schema}.t VALUES (n); \
                 SIGNAL SQLSTATE '45000'; END"
            ),
        ],
    )
    .await;
    // What others write must not make up for what this account's failed statements are not known to have written.
    let options = rig.account("isolation_failed").await;
    for round in 0..20 {
        create(rig, &[format!("CREATE TABLE {schema}.a (a INT)")]).await;
        // The replicas cannot follow while somebody reads there.
        let mut readers = Vec::new();
        for replica in rig.cluster.replicas() {
            let mut reader = rig.direct(replica).await;
            reader.query_drop("BEGIN").await.unwrap();
            reader
                .query_drop(format!("SELECT * FROM {schema}.a"))
                .await
                .unwrap();
            readers.push(reader);
        }
        let mut dropping = Conn::new(options.clone()).await.unwrap();
        let sql = format!("DROP TABLE {schema}.a, {schema}.missing");
        assert_eq!(error_of(&mut dropping, &sql).await, 1051);
        let sql = format!(
            "information_schema.tables WHERE table_schema = '{schema}' AND table_name = 'a'"
        );
        // MySQL drops all of them or none.
        let left = count(rig, &sql).await;
        assert_eq!(left, u64::from(flavor == Flavor::MySql));
        let mut conn = Conn::new(options.clone()).await.unwrap();
        let read = conn.query_drop(format!("SELECT * FROM {schema}.a")).await;
        match read {
            Ok(()) => assert_eq!(left, 1, "round {round}: a dropped table was read"),
            Err(error) => assert_eq!((left, code(&error)), (0, 1146), "round {round}: {error}"),
        }
        let call = format!("CALL {schema}.fails({round})");
        assert_eq!(error_of(&mut dropping, &call).await, 1644);
        let mut conn = Conn::new(options.clone()).await.unwrap();
        let sql = format!("SELECT COUNT(*) FROM {schema}.t WHERE a = {round}");
        assert_eq!(one::<u64>(&mut conn, &sql).await, 1, "round {round}");
        for mut reader in readers {
            reader.query_drop("ROLLBACK").await.unwrap();
        }
        create(rig, &[format!("DROP TABLE IF EXISTS {schema}.a")]).await;
    }
}

async fn a_hidden_kill_ends_nobody_else(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut ended = Vec::new();
    for hidden in [
        "SELECT 1; KILL {}",
        "EXECUTE IMMEDIATE 'KILL {}'",
        "PREPARE s FROM 'KILL {}'; EXECUTE s",
        "BEGIN NOT ATOMIC KILL {}; END",
    ] {
        let mut victim = rig.connect().await;
        let id: u64 = one(&mut victim, "SELECT CONNECTION_ID()").await;
        assert_eq!(id, u64::from(victim.id()));
        let sql = hidden.replace("{}", &id.to_string());
        let mut raw = Raw::app(rig.proxy.port()).await;
        let results = sql.matches("; ").count() + 1;
        raw.query(&sql).await;
        for _ in 0..results {
            if raw.result().await.is_err() || hidden.starts_with("BEGIN") {
                break;
            }
        }
        // To the server, which alone sees that it is a KILL, the session's id is nobody's.
        if victim.query_drop("SELECT 1").await.is_err() {
            ended.push(hidden);
        }
    }
    assert!(ended.is_empty(), "{ended:?}");
}

const QUESTIONS: [&str; 3] = [
    "SHOW WARNINGS",
    "SHOW COUNT(*) WARNINGS",
    "SELECT @@warning_count",
];

/// No warnings, or their number is 0.
fn nothing(rows: Vec<Vec<Option<String>>>) -> bool {
    rows.is_empty() || rows == [[Some("0".to_owned())]]
}

async fn warnings_are_of_the_statement_before(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_warnings").await;
    create(
        rig,
        &[
            format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY)"),
            format!("INSERT INTO {schema}.t VALUES (1)"),
        ],
    )
    .await;
    let warned = format!("INSERT IGNORE INTO {schema}.t VALUES (1)");
    let mut raw = Raw::app(rig.proxy.port()).await;
    for question in QUESTIONS {
        let mut replica = false;
        for round in 0.. {
            raw.rows(&warned).await.unwrap();
            let name = field(&mut raw, support::WHERE).await;
            let rows = raw.rows(question).await.unwrap();
            assert!(nothing(rows.clone()), "{question} after {name:?}: {rows:?}");
            replica |= name.as_deref() != Some("db1");
            if replica && round > 10 {
                break;
            }
            assert!(round < 10_000, "no read was on a replica");
        }
        raw.rows(&warned).await.unwrap();
        assert!(!nothing(raw.rows(question).await.unwrap()), "{question}");
    }
}

async fn warnings_of_other_sessions_are_not_shown(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("isolation_warned").await;
    create(
        rig,
        &[
            format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY)"),
            format!("INSERT INTO {schema}.t VALUES (1)"),
        ],
    )
    .await;
    let warned = format!("INSERT IGNORE INTO {schema}.t VALUES (1)");
    // On the same server connection.
    let proxy = sharing(rig, 1).await;
    let mut clean = Raw::app(proxy.port()).await;
    let mut warning = Raw::app(proxy.port()).await;
    for question in QUESTIONS {
        clean
            .rows(&format!("UPDATE {schema}.t SET a = 1"))
            .await
            .unwrap();
        warning.rows(&warned).await.unwrap();
        let rows = clean.rows(question).await.unwrap();
        assert!(nothing(rows.clone()), "{question}: {rows:?}");
        // Nor of one that has run nothing yet.
        warning.rows(&warned).await.unwrap();
        let mut fresh = Raw::app(proxy.port()).await;
        let rows = fresh.rows(question).await.unwrap();
        assert!(nothing(rows.clone()), "{question}: {rows:?}");
        quit(fresh).await;
    }
}

/// CLIENT_IGNORE_SPACE changes `sql_mode` at login, and a reset takes that back.
async fn a_reset_connection_is_as_the_client_logged_in(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = sharing(rig, 1).await;
    let flags = capability::USUAL | capability::IGNORE_SPACE;
    let mut modes = Vec::new();
    for port in [rig.cluster.primary().port(), proxy.port(), proxy.port()] {
        let mut raw = Raw::tcp(port).await.unwrap();
        raw.login("app", "app", None, flags).await.unwrap();
        let count = raw.rows("SELECT COUNT (*) FROM (SELECT 1) t").await;
        assert_eq!(count.unwrap(), [[Some("1".to_owned())]]);
        modes.push(field(&mut raw, "SELECT @@SESSION.sql_mode").await);
        // Ties the session to its connection, which is reset afterwards.
        raw.rows("SET @a = 1 + 1").await.unwrap();
        raw.send(&[RESET_CONNECTION]).await;
        raw.ok().await.unwrap();
        modes.push(field(&mut raw, "SELECT @@SESSION.sql_mode").await);
        raw.rows("SET @a = 1 + 1").await.unwrap();
        quit(raw).await;
    }
    assert_eq!(modes[..2], modes[2..4]);
    assert_eq!(modes[..2], modes[4..]);
}

/// MariaDB goes back to the character set of the login, MySQL to its own.
async fn a_reset_connection_has_the_servers_character_set(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let names = "SELECT CONCAT_WS(' ', @@character_set_client, @@character_set_results, @@collation_connection)";
    let mut heard = Vec::new();
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        let mut seen = Vec::new();
        // latin1, utf8mb4 and utf8mb4_bin.
        for collation in [8, 45, 46] {
            let mut raw = Raw::tcp(port).await.unwrap();
            raw.collation = collation;
            raw.login("app", "app", None, capability::USUAL)
                .await
                .unwrap();
            seen.push(field(&mut raw, names).await);
            raw.execute("SET NAMES cp1251").await;
            raw.send(&[RESET_CONNECTION]).await;
            raw.ok().await.unwrap();
            seen.push(field(&mut raw, names).await);
            quit(raw).await;
        }
        heard.push(seen);
    }
    assert_eq!(heard[0], heard[1]);
}
