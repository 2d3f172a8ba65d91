//! What the corpus calls a read is one for the servers themselves: it changes nothing, locks nothing, and says the
//! same on every connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use dbproxy::cli::demo::cluster::{Cluster, Flavor, ServerProcess};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder, Row};

use support::{code, corpus::Case, corpus::corpus};

on_both_flavors!(reads_only_read);

/// What differs from one execution to the next, whatever the connection.
const VARYING: &[&str] = &[
    "RAND(",
    "RANDOM_BYTES(",
    "SYSDATE(",
    "SYS_GUID(",
    "UUID(",
    // How long it took.
    "EXPLAIN ANALYZE",
    "ANALYZE FORMAT=JSON",
    // Temporary tables of the server's own, made when it is asked, are among them.
    "SELECT * FROM INFORMATION_SCHEMA.TABLES",
];

/// What a server answers to syntax, names and values that its version or the schema below do not have.
const REFUSALS: &[(u16, &str)] = &[
    (1052, "ambiguous column"),
    (1054, "unknown column"),
    (1064, "syntax"),
    (1146, "no such table"),
    (1191, "no full-text index"),
    (1193, "unknown system variable"),
    (1214, "no full-text index"),
    (1222, "numbers of columns differ"),
    (1305, "no such function"),
    (1411, "not a UUID"),
    (1919, "not a dynamic column"),
    (3146, "not JSON"),
    (3158, "null as a name in JSON"),
];

/// Of a hundred reads, so many must run.
const SHARE: usize = 97;

/// Statements that are no reads, and must be found out.
const NO_READS: &[&str] = &[
    "SELECT a FROM t WHERE id = 1 FOR UPDATE",
    "SELECT a FROM t LOCK IN SHARE MODE",
    "INSERT INTO t (id) VALUES (9)",
    "SELECT GET_LOCK('a', 0)",
    "SELECT @a",
    "SELECT LAST_INSERT_ID()",
    "SELECT FOUND_ROWS()",
    "SELECT @@last_insert_id",
    "SHOW WARNINGS",
    "SELECT CONNECTION_ID()",
    "SELECT f(1)",
    "SELECT * FROM past.temporary",
    "COMMIT",
];

/// Reads of the corpus run in transactions that only read, on two connections: one that has just begun, and one with
/// a past. After each, the server tells which locks the transaction holds and where its binary log ends.
async fn reads_only_read(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let mut trial = Trial::new(cluster.primary(), flavor).await;
    let mut refused: BTreeMap<u16, usize> = BTreeMap::new();
    let mut ran = 0;
    let mut failures = String::new();
    let mut varied = BTreeSet::new();
    for case in corpus().iter().filter(|case| runs_on(case, flavor)) {
        match trial.of(case.dialect, &case.sql).await {
            Verdict::Reads => ran += 1,
            Verdict::Varies(what) => {
                ran += 1;
                varied.extend(what);
            }
            Verdict::Refused(error) => {
                *refused.entry(code(&error)).or_default() += 1;
                eprintln!("line {}: {error}", case.line);
            }
            Verdict::Wrong(what) => {
                let sql = case.sql.escape_ascii();
                writeln!(failures, "line {}: {sql}: {what}", case.line).unwrap();
            }
        }
    }
    let all = ran + refused.values().sum::<usize>();
    eprintln!("{flavor:?}: {ran} of {all} reads ran");
    for (number, count) in &refused {
        eprintln!(
            "  {count} refused with {number}: {}",
            refusal(*number).unwrap()
        );
    }
    assert!(failures.is_empty(), "\n{failures}");
    trial.has_the_same_data().await;
    assert!(ran * 100 >= all * SHARE, "{ran} of {all} ran");
    for what in VARYING {
        let elsewhere = match flavor {
            Flavor::MySql => ["SYS_GUID(", "ANALYZE FORMAT=JSON"].contains(what),
            Flavor::MariaDb => *what == "EXPLAIN ANALYZE",
        };
        assert!(elsewhere || varied.contains(what), "no read has {what}");
    }
    for sql in NO_READS {
        let verdict = trial.of("any", sql.as_bytes()).await;
        assert!(matches!(verdict, Verdict::Wrong(_)), "{sql}: {verdict:?}");
    }
}

#[derive(Debug)]
enum Verdict {
    Reads,
    /// It reads, and its answers differ by what it asks for.
    Varies(Vec<&'static str>),
    /// The server does not know what it names.
    Refused(Error),
    Wrong(String),
}

fn refusal(number: u16) -> Option<&'static str> {
    let found = REFUSALS.iter().find(|(known, _)| *known == number);
    found.map(|(_, what)| *what)
}

/// A server with data, sessions in it, and somebody who looks at it from outside.
struct Trial {
    /// By dialect: with and without a past.
    sessions: BTreeMap<&'static str, [Session; 2]>,
    observer: Observer,
    data: Vec<(String, u64)>,
    log_end: (String, u64),
}

impl Trial {
    async fn new(server: &ServerProcess, flavor: Flavor) -> Self {
        let mut conn = server.connect().await.unwrap();
        conn.query_drop(schema(flavor)).await.unwrap();
        // An error of a later statement in the packet comes out only now.
        conn.query_drop("DO 0").await.unwrap();
        let mut sessions = BTreeMap::new();
        for dialect in ["any", "maria", "mysql", "ansi", "nobs", "gbk"] {
            let fresh = Session::new(server, dialect, false).await;
            let used = Session::new(server, dialect, true).await;
            sessions.insert(dialect, [fresh, used]);
        }
        let mut observer = Observer { conn, flavor };
        Self {
            sessions,
            data: observer.data().await,
            log_end: observer.log_end().await,
            observer,
        }
    }

    /// Runs a statement on both connections.
    async fn of(&mut self, dialect: &str, sql: &[u8]) -> Verdict {
        let mut wrong = Vec::new();
        let mut answers = Vec::new();
        let circumstances = match dialect {
            "mysql9" => "mysql",
            other => other,
        };
        for session in self.sessions.get_mut(circumstances).unwrap() {
            session.begin().await;
            let answer = session.answer(sql).await;
            let locks = self.observer.locks(session.id).await;
            if !locks.is_empty() {
                wrong.push(format!("locks {locks:?}"));
            }
            if !session.has_begun(self.observer.flavor).await {
                wrong.push("ends the transaction".to_owned());
            }
            session.end().await;
            answers.push(answer);
        }
        let log_end = self.observer.log_end().await;
        if log_end != self.log_end {
            wrong.push(format!("moves the log to {log_end:?}"));
            self.log_end = log_end;
        }
        if !wrong.is_empty() {
            return Verdict::Wrong(wrong.join(", "));
        }
        let text = String::from_utf8_lossy(sql).to_ascii_uppercase();
        let mut varies = VARYING.to_vec();
        varies.retain(|what| text.contains(what));
        let second = answers.pop().unwrap();
        match (answers.pop().unwrap(), second) {
            (Ok(_), Ok(_)) if !varies.is_empty() => Verdict::Varies(varies),
            (Ok(fresh), Ok(used)) if fresh == used => Verdict::Reads,
            (Err(error), Err(other))
                if code(&error) == code(&other) && refusal(code(&error)).is_some() =>
            {
                Verdict::Refused(error)
            }
            (fresh, used) => Verdict::Wrong(format!("says {fresh:?} and {used:?}")),
        }
    }

    async fn has_the_same_data(&mut self) {
        assert_eq!(self.observer.data().await, self.data);
    }
}

fn runs_on(case: &Case, flavor: Flavor) -> bool {
    case.target == "replica"
        && match case.dialect {
            "any" => true,
            "maria" => flavor == Flavor::MariaDb,
            // Of versions that are not these.
            "mysql8" | "maria12" => false,
            _ => flavor == Flavor::MySql,
        }
}

/// A connection in the circumstances of a dialect.
struct Session {
    conn: Conn,
    id: u32,
    has_past: bool,
}

impl Session {
    async fn new(server: &ServerProcess, dialect: &str, has_past: bool) -> Self {
        let options = OptsBuilder::default()
            .user(Some("root"))
            .socket(Some(server.socket().display().to_string()))
            .max_allowed_packet(Some(64 << 20))
            .wait_timeout(Some(28_800))
            .db_name(Some("db"));
        let mut conn = Conn::new(options).await.unwrap();
        if has_past {
            conn.query_drop(PAST).await.unwrap();
        }
        conn.query_drop("SET timestamp = 1700000000").await.unwrap();
        let circumstances = match dialect {
            "ansi" => "SET sql_mode = 'ANSI_QUOTES'",
            "nobs" => "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
            "gbk" => "SET NAMES gbk",
            // Without ONLY_FULL_GROUP_BY: what an application takes from a group is its own affair.
            _ => "SET sql_mode = ''",
        };
        conn.query_drop(circumstances).await.unwrap();
        Self {
            id: conn.id(),
            conn,
            has_past,
        }
    }

    /// Begins a transaction that only reads, for the one with a past right after statements that leave traces.
    async fn begin(&mut self) {
        self.conn
            .query_drop("START TRANSACTION READ ONLY")
            .await
            .unwrap();
        if self.has_past {
            self.conn.query_drop(TRACES).await.unwrap();
        }
    }

    /// Every row of every result.
    async fn answer(&mut self, sql: &[u8]) -> Result<Vec<Vec<Row>>, Error> {
        let mut result = self.conn.query_iter(sql).await?;
        let mut answers = Vec::new();
        while !result.is_empty() {
            answers.push(result.collect().await?);
        }
        drop(result);
        // The error of a later statement in the packet comes out only now.
        self.conn.query_drop("DO 0").await?;
        Ok(answers)
    }

    /// Whether the transaction is still the one that began.
    async fn has_begun(&mut self, flavor: Flavor) -> bool {
        let sql = match flavor {
            Flavor::MySql => {
                "SELECT state = 'ACTIVE' AND access_mode = 'READ ONLY' \
                 FROM performance_schema.events_transactions_current WHERE thread_id = PS_CURRENT_THREAD_ID()"
            }
            Flavor::MariaDb => "SELECT @@in_transaction",
        };
        self.conn.query_first(sql).await.unwrap() == Some(1)
    }

    async fn end(&mut self) {
        self.conn.query_drop("ROLLBACK").await.unwrap();
    }
}

const PAST: &str = "CREATE TEMPORARY TABLE past.temporary (a INT); INSERT INTO past.temporary VALUES (1), (2); \
                    INSERT INTO past.p VALUES (NULL), (NULL), (NULL); SET last_insert_id = 77, insert_id = 88; \
                    PREPARE s FROM 'SELECT 1'; SET @a = 5, @b = 'x', @n = 3, @x = 4, @j = '[1]'; \
                    SELECT LAST_INSERT_ID(99)";
const TRACES: &str = "SET @a = @a + 1; SELECT SQL_CALC_FOUND_ROWS id FROM past.p ORDER BY id LIMIT 1; \
                      SELECT CAST('no number' AS SIGNED) + 1 / 0";

/// Looks at the server from outside.
struct Observer {
    conn: Conn,
    flavor: Flavor,
}

impl Observer {
    /// The locks that a connection holds, other than those that keep a table's definition while it is read.
    async fn locks(&mut self, connection: u32) -> Vec<String> {
        match self.flavor {
            Flavor::MySql => {
                let sql = format!(
                    "SELECT CONCAT_WS(' ', lock_type, object_type, object_schema, object_name) \
                     FROM performance_schema.metadata_locks \
                     JOIN performance_schema.threads t ON t.thread_id = owner_thread_id \
                     WHERE t.processlist_id = {connection} \
                     AND NOT (lock_type IN ('SHARED', 'SHARED_HIGH_PRIO', 'SHARED_READ') \
                              AND object_type <> 'LOCKING SERVICE') \
                     AND NOT (lock_type = 'INTENTION_EXCLUSIVE' AND object_type = 'SCHEMA') \
                     UNION ALL SELECT CONCAT_WS(' ', lock_mode, lock_type, object_schema, object_name) \
                     FROM performance_schema.data_locks JOIN performance_schema.threads t USING (thread_id) \
                     WHERE t.processlist_id = {connection}"
                );
                self.conn.query(sql).await.unwrap()
            }
            Flavor::MariaDb => {
                let sql = format!(
                    "SELECT CONCAT_WS(' ', lock_mode, lock_type, table_schema, table_name) \
                     FROM information_schema.metadata_lock_info WHERE thread_id = {connection} \
                     AND lock_mode NOT IN ('MDL_SHARED', 'MDL_SHARED_HIGH_PRIO', 'MDL_SHARED_READ')"
                );
                let mut locks: Vec<String> = self.conn.query(sql).await.unwrap();
                locks.extend(self.innodb_locks(connection).await);
                locks
            }
        }
    }

    /// What MariaDB's status says of the transaction: `innodb_trx` is up to date only now and then.
    async fn innodb_locks(&mut self, connection: u32) -> Option<String> {
        let status: (String, String, String) = self
            .conn
            .query_first("SHOW ENGINE INNODB STATUS")
            .await
            .unwrap()
            .unwrap();
        let thread = format!("thread id {connection},");
        let transaction = status
            .2
            .split("---TRANSACTION")
            .find(|transaction| transaction.contains(&thread))?;
        let locks = transaction
            .lines()
            .find(|line| line.contains(" lock struct(s)"))?;
        (!locks.starts_with("0 ")).then(|| locks.to_owned())
    }

    async fn log_end(&mut self) -> (String, u64) {
        let sql = match self.flavor {
            Flavor::MySql => "SHOW BINARY LOG STATUS",
            Flavor::MariaDb => "SHOW MASTER STATUS",
        };
        let row: Row = self.conn.query_first(sql).await.unwrap().unwrap();
        (row.get(0).unwrap(), row.get(1).unwrap())
    }

    /// Checksums of all tables with data.
    async fn data(&mut self) -> Vec<(String, u64)> {
        let tables: Vec<String> = self
            .conn
            .query(
                "SELECT CONCAT(table_schema, '.`', table_name, '`') FROM information_schema.tables \
                 WHERE table_schema IN ('db', 'past') AND table_type <> 'VIEW' ORDER BY 1",
            )
            .await
            .unwrap();
        let sql = format!("CHECKSUM TABLE {}", tables.join(", "));
        self.conn.query(sql).await.unwrap()
    }
}

/// What the statements of the corpus name.
fn schema(flavor: Flavor) -> String {
    let mut sql = String::from(
        "CREATE DATABASE db; CREATE DATABASE d; CREATE DATABASE past; USE db; \
         CREATE TABLE past.p (id INT AUTO_INCREMENT PRIMARY KEY); \
         CREATE TABLE small (id INT PRIMARY KEY, a INT, b INT, c INT, KEY i (a));",
    );
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|name| format!("`{}` INT NOT NULL DEFAULT 0", name.replace('`', "``")))
        .collect();
    let columns = columns.join(", ");
    let versioned = match flavor {
        Flavor::MariaDb => "WITH SYSTEM VERSIONING",
        Flavor::MySql => "",
    };
    for table in TABLES {
        write!(
            sql,
            "CREATE TABLE {table} (id INT PRIMARY KEY, a INT, b INT, j JSON, {columns}, KEY i (a), KEY j (b)) \
             CHARACTER SET utf8mb4 {versioned} PARTITION BY HASH (id) PARTITIONS 2; \
             INSERT INTO {table} (id, a, b, j) VALUES (1, 1, 2, '{{\"a\": 1}}'), (2, 3, 4, '[1, 2]'), \
             (3, NULL, 1, '[]');"
        )
        .unwrap();
    }
    for table in ["u", "`FOR UPDATE`"] {
        write!(
            sql,
            "CREATE TABLE {table} LIKE small; INSERT INTO {table} VALUES (1, 1, 3, 4), (2, 2, 1, 0);"
        )
        .unwrap();
    }
    sql.push_str(
        "CREATE VIEW v AS SELECT id, a FROM t; CREATE PROCEDURE p() SELECT 1; \
         CREATE FUNCTION f(x INT) RETURNS INT NO SQL RETURN CONNECTION_ID(); \
         CREATE TRIGGER x BEFORE INSERT ON u FOR EACH ROW SET NEW.c = 1;",
    );
    if flavor == Flavor::MariaDb {
        sql.push_str(
            "CREATE SEQUENCE s; CREATE TABLE vt (a INT) WITH SYSTEM VERSIONING PARTITION BY HASH (a); \
             INSERT INTO vt VALUES (1); UPDATE vt SET a = 2; \
             CREATE TABLE pt (a INT, d1 DATE, d2 DATE, PERIOD FOR p (d1, d2)); \
             INSERT INTO pt VALUES (1, '2019-01-01', '2021-01-01'); INSTALL SONAME 'metadata_lock_info';",
        );
    }
    sql
}

const TABLES: &[&str] = &[
    "t",
    "t1",
    "t2",
    "`my table`",
    "`INTO`",
    "begin",
    "flush",
    "connection",
    "`東京`",
    "`straße`",
];

const COLUMNS: &[&str] = &[
    "for",
    "update",
    "into",
    "lock",
    "share",
    "insert",
    "replace",
    "select",
    "from",
    "where",
    "delete",
    "call",
    "drop",
    "set",
    "kill",
    "outfile",
    "execute",
    "desc",
    "explain",
    "analyze",
    "get_lock",
    "release_lock",
    "row_count",
    "found_rows",
    "connection_id",
    "last_insert_id",
    "benchmark",
    "sleep",
    "uuid",
    "rand",
    "nextval",
    "setval",
    "lastval",
    "LASTVALUE",
    "for_update",
    "into_x",
    "lock_in",
    "update_time",
    "insert_id",
    "delete_flag",
    "replace_with",
    "updates",
    "inserted",
    "deleted",
    "replaced",
    "dropped",
    "begin",
    "end",
    "commit",
    "work",
    "xa",
    "handler",
    "shutdown",
    "flush",
    "do",
    "prepare",
    "savepoint",
    "start",
    "stop",
    "restart",
    "reset",
    "open",
    "close",
    "data",
    "value",
    "names",
    "session",
    "global",
    "local",
    "process",
    "password",
    "account",
    "role",
    "roles",
    "authors",
    "user",
    "status",
    "level",
    "name",
    "type",
    "comment",
    "message_text",
    "sequence",
    "next",
    "previous",
    "binlog",
    "master",
    "slave",
    "replica",
    "source",
    "host",
    "port",
    "backup",
    "clone",
    "import",
    "instance",
    "plugin",
    "server",
    "temporary",
    "table_name",
    "tables",
    "tablespace",
    "date",
    "time",
    "timestamp",
    "year",
    "month",
    "day",
    "hour",
    "KEY_BLOCK_SIZE",
    "c",
    "d",
    "ä",
    "日本",
    "größe",
    "1a",
    "1e",
    "1e5e",
    "5",
    "a$b",
    "_a",
    "__b",
    "$a",
    "FOR UPDATE",
    "@a",
    " a",
    "a b",
    "a`b",
    "a`; DELETE",
    "a/*b",
    "a-- b",
    "a--b",
    "a#b",
    "a\"b",
    ";",
    "'",
    "\"",
    "/*!a*/",
    "; DELETE FROM t",
    "it's",
];
