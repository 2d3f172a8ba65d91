//! Odd and failing commands and statements: the answers are the server's, byte by byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::Flavor;

use support::pair::{Pair, shown};
use support::raw::capability;
use support::{Options, Rig};

on_both_flavors!(
    commands_are_answered_as_by_the_server,
    statements_are_answered_as_by_the_server,
    preparations_are_answered_as_by_the_server,
    local_files_are_refused_as_by_the_server,
);

/// Commands as bytes. None of them ends the connection or depends on the time.
const COMMANDS: &[&[u8]] = &[
    b"",
    b"\x00",
    b"\x02",
    b"\x02test",
    b"\x02no_such_schema",
    b"\x02inform\x61tion_schema",
    b"\x03",
    b"\x03;",
    b"\x03 ",
    b"\x03\x00",
    b"\x04",
    b"\x04where_am_i\0",
    b"\x04where_am_i\0n%",
    b"\x04where_am_i",
    b"\x04nothing\0",
    b"\x05new_schema",
    b"\x06old_schema",
    b"\x07",
    b"\x07\x01",
    b"\x07\x40",
    b"\x08",
    b"\x0b",
    b"\x0c\xff\xff\xff\xff",
    b"\x0d",
    b"\x0e",
    b"\x0eping",
    b"\x0f",
    b"\x10",
    b"\x13",
    b"\x13\x04test\x0awhere_am_i",
    b"\x14",
    b"\x15",
    b"\x16",
    b"\x16SELEKT",
    b"\x16SELECT 1; SELECT 2",
    b"\x17",
    b"\x17\x01\x00\x00\x00",
    b"\x17\x11\x22\x33\x44\x00\x01\x00\x00\x00",
    b"\x18",
    b"\x18\x11\x22\x33\x44\x00\x00",
    b"\x18\x11\x22\x33\x44\x00\x00data",
    b"\x19",
    b"\x19\x11\x22\x33\x44",
    b"\x1a\x11\x22\x33\x44",
    b"\x1b\x00\x00",
    b"\x1b\x01\x00",
    b"\x1b\x02\x00",
    b"\x1b\xff\xff",
    b"\x1c\x11\x22\x33\x44\x01\x00\x00\x00",
    b"\x1d",
    b"\x1f",
    b"\x1fextra",
    b"\x22",
    b"\x23",
    b"\x7f",
    b"\xf0",
    b"\xfa",
    b"\xfa\x11\x22\x33\x44\x80\x00",
    b"\xfb",
    b"\xfc",
    b"\xfd",
    b"\xfe",
    b"\xff",
];

/// Commands of which MariaDB reads on behind their end.
const CUT_SHORT: &[&[u8]] = &[
    b"\x0c",
    b"\x0c\x01\x02",
    b"\x1a",
    b"\x1b",
    b"\x1c",
    b"\x1c\x11\x22\x33\x44",
];

/// Statements whose answers depend on nothing but the statement.
const STATEMENTS: &[&str] = &[
    "SELEKT",
    "SELECT",
    "SELECT 1 FROM",
    "SELECT * FROM nothing",
    "SELECT * FROM nowhere.nothing",
    "SELECT nothing FROM where_am_i",
    "SELECT no_such_function(1)",
    "SELECT test.no_such_function(1)",
    "SELECT 'abc",
    "SELECT `abc",
    "SELECT 1 /* no end",
    "SELECT 1 -- end",
    "SELECT /*!99999 nothing */ 1",
    "SELECT 1 AS a, 2 AS a",
    "SELECT NULL, '', 0, 1.5, -1, 0x41, b'1', DATE'2024-02-29', _utf8mb4'\u{20ac}'",
    "SELECT 1/0, 'x' + 1",
    "SELECT CAST('x' AS SIGNED)",
    "SHOW WARNINGS",
    "SELECT CAST('abc' AS DATE), CAST('y' AS DECIMAL)",
    "SHOW COUNT(*) WARNINGS",
    "SHOW ERRORS",
    "SELECT @@warning_count, @@error_count",
    "SELECT 18446744073709551615 + 1",
    "SELECT (SELECT 1 UNION SELECT 2)",
    "SELECT SLEEP('x')",
    "SELECT @nothing",
    "SELECT @@no_such_variable",
    "SELECT @@global.no_such_variable",
    "SELECT @@autocommit, @@sql_mode, @@max_allowed_packet",
    "SET no_such_variable = 1",
    "SET SESSION max_connections = 1",
    "SET GLOBAL max_connections = 10",
    "SET sql_mode = 'nonsense'",
    "SET NAMES nonsense",
    "SET NAMES utf8mb4 COLLATE latin1_swedish_ci",
    "SET autocommit = 5",
    "SET time_zone = 'nowhere'",
    "SET @@session.autocommit = ON",
    "SET TRANSACTION ISOLATION LEVEL nonsense",
    "SET character_set_client = ucs2",
    "SET PASSWORD = 'x' FOR nobody",
    "SET ROLE no_such_role",
    "USE nowhere",
    "USE",
    "USE test",
    "DO 1, 2",
    "DO nothing",
    "DO SLEEP(0)",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "ROLLBACK TO nothing",
    "RELEASE SAVEPOINT nothing",
    "START TRANSACTION READ ONLY",
    "INSERT INTO where_am_i VALUES ('x')",
    "ROLLBACK",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "XA START 'a', 'b', 5",
    "XA END 'a', 'b', 5",
    "XA ROLLBACK 'a', 'b', 5",
    "XA COMMIT 'nothing'",
    "INSERT INTO nothing VALUES (1)",
    "INSERT INTO where_am_i VALUES (1, 2)",
    "INSERT INTO where_am_i (nothing) VALUES (1)",
    "UPDATE where_am_i SET nothing = 1",
    "UPDATE where_am_i SET name = name",
    "UPDATE where_am_i SET name = name WHERE FALSE",
    "DELETE FROM where_am_i WHERE FALSE",
    "DELETE FROM nothing",
    "REPLACE INTO nothing VALUES (1)",
    "TRUNCATE nothing",
    "LOAD DATA INFILE '/nowhere/nothing' INTO TABLE where_am_i",
    "SELECT 1 INTO OUTFILE '/nowhere/nothing'",
    "SELECT 1 INTO DUMPFILE '/nowhere/nothing'",
    "SELECT 1 INTO @into",
    "SELECT 1 FROM where_am_i WHERE FALSE INTO @into",
    "SELECT 1 UNION SELECT 2 INTO @into",
    "CREATE TABLE where_am_i (a INT)",
    "CREATE TABLE IF NOT EXISTS where_am_i (a INT)",
    "CREATE TABLE bad (a NONSENSE)",
    "CREATE TABLE nowhere.t (a INT)",
    "CREATE TABLE bad (a INT, a INT)",
    "CREATE DATABASE test",
    "CREATE DATABASE IF NOT EXISTS test",
    "DROP DATABASE nowhere",
    "DROP DATABASE IF EXISTS nowhere",
    "DROP TABLE nothing",
    "DROP TABLE IF EXISTS nothing",
    "DROP VIEW IF EXISTS nothing",
    "DROP PROCEDURE nothing",
    "DROP FUNCTION IF EXISTS nothing",
    "DROP TRIGGER nothing",
    "DROP INDEX nothing ON where_am_i",
    "DROP USER nobody",
    "ALTER TABLE nothing ADD a INT",
    "ALTER TABLE where_am_i DROP nothing",
    "RENAME TABLE nothing TO something",
    "CALL nothing()",
    "CALL nowhere.nothing(1)",
    "EXECUTE nothing",
    "DEALLOCATE PREPARE nothing",
    "PREPARE p FROM 'SELEKT'",
    "PREPARE p FROM 'SELECT ? + 1'",
    "EXECUTE p",
    "EXECUTE p USING @into",
    "HANDLER nothing OPEN",
    "HANDLER where_am_i READ FIRST",
    "LOCK TABLES nothing READ",
    "LOCK TABLES where_am_i READ",
    "SELECT name FROM nothing",
    "INSERT INTO where_am_i VALUES ('x')",
    "UNLOCK TABLES",
    "GRANT SELECT ON *.* TO nobody",
    "REVOKE ALL ON *.* FROM nobody",
    "SHOW GRANTS FOR nobody",
    "SHOW CREATE TABLE nothing",
    "SHOW CREATE TABLE where_am_i",
    "SHOW TABLES FROM nowhere",
    "SHOW TABLES",
    "SHOW COLUMNS FROM where_am_i",
    "SHOW COLUMNS FROM nothing",
    "SHOW INDEX FROM nothing",
    "SHOW VARIABLES LIKE 'autocommit'",
    "SHOW STATUS LIKE 'nothing'",
    "SHOW NONSENSE",
    "SHOW CREATE PROCEDURE nothing",
    "SHOW COLLATION LIKE 'utf8mb4_bin'",
    "DESCRIBE nothing",
    "EXPLAIN SELECT * FROM nothing",
    "HELP 'nonsense'",
    "KILL",
    "KILL 'x",
    "KILL nonsense",
    "KILL 1, 2",
    "KILL 0",
    "KILL QUERY 0",
    "KILL 4294967295",
    "KILL QUERY 4294967295",
    "KILL CONNECTION 99999999999",
    "KILL 18446744073709551615",
    "KILL @nothing",
    "KILL 4000000000 + 1",
    "KILL HARD QUERY 4294967295",
    "KILL USER nobody",
    "KILL QUERY ID 4294967295",
    "FLUSH NONSENSE",
    "ANALYZE TABLE nothing",
    "CHECK TABLE nothing",
    "CHECK TABLE where_am_i",
    "OPTIMIZE TABLE nothing",
    "CHANGE MASTER TO MASTER_HOST = 'x'",
    "UNINSTALL PLUGIN nothing",
    "SHUTDOWN",
    "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'mine', MYSQL_ERRNO = 5000",
    "SIGNAL SQLSTATE '01000' SET MESSAGE_TEXT = 'a warning'",
    "RESIGNAL",
    "GET DIAGNOSTICS @a = NUMBER",
    "SELECT 1; SELEKT; SELECT 2",
    "SELECT 1; SELECT 2",
    "SELECT 1;",
    ";",
    "-- nothing",
    "/* nothing */",
    "DELIMITER //",
    "BEGIN NOT ATOMIC SELECT 1; END",
    "RETURN 1",
    "VALUES ROW(1), ROW(2)",
    "TABLE where_am_i LIMIT 0",
    "WITH a AS (SELECT 1) SELECT * FROM a",
    "SELECT name FROM where_am_i WHERE FALSE FOR UPDATE",
    "SELECT GET_LOCK(NULL, 0)",
    "SELECT RELEASE_LOCK('nothing')",
    "SELECT MASTER_POS_WAIT()",
    "SELECT LOAD_FILE('/nowhere')",
    "SELECT ROW_COUNT()",
    "SELECT FOUND_ROWS()",
    "SELECT LAST_INSERT_ID()",
    "SELECT LAST_INSERT_ID(5)",
    "SELECT LAST_INSERT_ID()",
];

/// What one side answers to all of them.
async fn answers(pair: &mut Pair, side: usize, commands: &[Vec<u8>]) -> Vec<String> {
    let mut heard = Vec::new();
    for command in commands {
        heard.push(shown(&pair.one(side, command).await));
    }
    heard
}

/// Holds the answers of the server itself against those through the proxy.
async fn compare(rig: &Rig, standard: u32, commands: &[Vec<u8>]) {
    let mut pair = Pair::new(rig, "test", standard, 0).await;
    let expected = answers(&mut pair, 0, commands).await;
    let found = answers(&mut pair, 1, commands).await;
    let differing: Vec<_> = commands
        .iter()
        .zip(expected.iter().zip(&found))
        .filter(|(_, (expected, found))| expected != found)
        .map(|(command, (expected, found))| {
            format!("{}\n{expected}{found}", command.escape_ascii())
        })
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// A proxy that passes administration on, so that the servers' own answers to it are seen.
async fn rig(flavor: Flavor) -> Rig {
    let options = Options {
        cluster: "administration = \"allow\"".to_owned(),
        ..Options::default()
    };
    Rig::start(flavor, 1, &options).await
}

async fn commands_are_answered_as_by_the_server(flavor: Flavor) {
    let rig = rig(flavor).await;
    // On one connection: some count the warnings of the command before.
    let mut commands = vec![b"\x03SET @pinned = 1 + 1".to_vec()];
    commands.extend(COMMANDS.iter().map(|command| command.to_vec()));
    if flavor == Flavor::MySql {
        commands.extend(CUT_SHORT.iter().map(|command| command.to_vec()));
    }
    compare(&rig, 0, &commands).await;
}

async fn statements_are_answered_as_by_the_server(flavor: Flavor) {
    let rig = rig(flavor).await;
    for standard in [0, capability::DEPRECATE_EOF] {
        let commands: Vec<_> = STATEMENTS
            .iter()
            .map(|sql| [b"\x03", sql.as_bytes()].concat())
            .collect();
        compare(&rig, standard, &commands).await;
    }
}

async fn preparations_are_answered_as_by_the_server(flavor: Flavor) {
    let rig = rig(flavor).await;
    let commands: Vec<_> = STATEMENTS
        .iter()
        .map(|sql| [b"\x16", sql.as_bytes()].concat())
        .collect();
    compare(&rig, 0, &commands).await;
}

async fn local_files_are_refused_as_by_the_server(flavor: Flavor) {
    let rig = rig(flavor).await;
    let schema = rig.schema("answers_local").await;
    let primary = rig.cluster.primary();
    let create = format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY, b VARCHAR(10))");
    primary.run(&create).await.unwrap();
    let mut pair = Pair::new(&rig, &schema, 0, 0).await;
    let mut heard = [Vec::new(), Vec::new()];
    for (raw, heard) in pair.raws.iter_mut().zip(&mut heard) {
        for (sql, file) in [
            // Refused by the client.
            ("INTO TABLE t", &b""[..]),
            // A server's error after, or amid, the file.
            ("INTO TABLE t (a, b, nothing)", b"1\tone\n"),
            ("INTO TABLE t", b"1\tone\n1\tagain\nx\ttwo\n"),
            ("INTO TABLE nothing", b"1\tone\n"),
            (
                "INTO TABLE t LINES STARTING BY 'x' (a, b) SET nothing = 1",
                b"x",
            ),
        ] {
            raw.query(&format!("LOAD DATA LOCAL INFILE 'file' {sql}"))
                .await;
            let mut answer = raw.packet().await.unwrap();
            if answer[0] == 0xfb {
                heard.push(answer);
                if !file.is_empty() {
                    raw.put(file).await.unwrap();
                }
                raw.put(b"").await.unwrap();
                answer = raw.packet().await.unwrap();
            }
            heard.push(answer);
            heard.push(raw.execute("TRUNCATE t").await);
        }
    }
    assert_eq!(heard[0], heard[1]);
    primary.run("SET GLOBAL local_infile = 0").await.unwrap();
    let mut off = Pair::new(&rig, &schema, 0, 0).await;
    off.query("LOAD DATA LOCAL INFILE 'file' INTO TABLE t")
        .await;
    primary.run("SET GLOBAL local_infile = 1").await.unwrap();
}
