//! `mode = "observe"`: everything goes to the primary, and the report says where it would have gone and whether that would
//! have been right.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use dbproxy::sql::{Dialect, digest_text};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use support::{Options, Proxy, WHERE, eventually, one, whereabouts, within};

on_both_flavors!(
    reads_reach_the_primary_and_the_report_says_where_else,
    differences_are_found_where_they_are,
    a_replica_that_is_only_late_is_not_different,
    what_changes_all_the_time_is_not_different,
    a_restart_continues,
);

/// A primary and a replica, started once.
async fn cluster(flavor: Flavor) -> &'static Cluster {
    static MARIADB: OnceCell<Cluster> = OnceCell::const_new();
    static MYSQL: OnceCell<Cluster> = OnceCell::const_new();
    let cell = match flavor {
        Flavor::MariaDb => &MARIADB,
        Flavor::MySql => &MYSQL,
    };
    cell.get_or_init(async || Cluster::start(flavor, 1).await.unwrap())
        .await
}

/// A proxy that observes, and where it keeps what it sees.
struct Observing {
    proxy: Proxy,
    state: PathBuf,
}

impl Observing {
    async fn start(cluster: &Cluster, state: &Path, sample: &str, settings: &str) -> Self {
        let options = Options {
            top: format!("mode = \"observe\"\nstate_directory = {:?}", state),
            cluster: settings.to_owned(),
            sections: format!("[observe]\nsample = {sample}\n"),
            ..Options::default()
        };
        let proxy = Proxy::start(cluster, &options).await;
        let mut conn = proxy.connect().await;
        eventually("the replica to be known", async || {
            explained(&mut conn, WHERE).await["With mode route"].starts_with("replica db2: ")
        })
        .await;
        Self {
            proxy,
            state: state.to_path_buf(),
        }
    }

    /// Stops it; everything is written then.
    async fn stop(self) -> Value {
        self.proxy.terminate();
        let ended = within(support::SOON, async || self.proxy.ended().is_some()).await;
        assert!(ended, "{}", self.proxy.log());
        report(&self.state)
    }
}

fn file(state: &Path) -> PathBuf {
    state.join("observe.json")
}

fn observe_report(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbproxy"));
    command.arg("observe-report").args(arguments);
    command.output().unwrap()
}

fn report(state: &Path) -> Value {
    let file = file(state);
    let output = observe_report(&["--json", "--file", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The report in words.
fn words(state: &Path) -> (String, Option<i32>) {
    let file = file(state);
    let output = observe_report(&["--file", file.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    (text, output.status.code())
}

/// The entry of a statement, as either family's servers would group it.
fn entry<'r>(report: &'r Value, sql: &str) -> &'r Value {
    let text = |maria| digest_text(sql.as_bytes(), Dialect::of(maria, 101_119), usize::MAX);
    let texts = [text(false), text(true)];
    let digests = report["digests"].as_array().unwrap();
    digests
        .iter()
        .find(|digest| texts.iter().any(|text| digest["text"] == **text))
        .unwrap_or(&Value::Null)
}

async fn explained(conn: &mut Conn, sql: &str) -> BTreeMap<String, String> {
    let sql = format!("EXPLAIN ROUTE {sql}");
    let row: mysql_async::Row = conn.query_first(sql).await.unwrap().unwrap();
    let columns = row.columns();
    let names = columns.iter().map(|column| column.name_str().into_owned());
    let values = row.unwrap();
    let values = values
        .into_iter()
        .map(|value| mysql_async::from_value::<Option<String>>(value).unwrap_or_default());
    names.zip(values).collect()
}

async fn schema(cluster: &Cluster, name: &str) -> String {
    let sql = format!(
        "CREATE DATABASE {name}; CREATE TABLE {name}.same (id INT PRIMARY KEY, word VARCHAR(20)); \
         INSERT INTO {name}.same VALUES (1, 'one'), (2, 'two'), (3, 'three')"
    );
    cluster.primary().run(&sql).await.unwrap();
    cluster.caught_up().await.unwrap();
    name.to_owned()
}

async fn reads_reach_the_primary_and_the_report_says_where_else(flavor: Flavor) {
    let cluster = cluster(flavor).await;
    let schema = schema(cluster, "observed_routes").await;
    let state = TempDir::new().unwrap();
    let observing = Observing::start(cluster, state.path(), "0", "").await;
    let replica = &cluster.replicas()[0];
    replica.run("SET GLOBAL general_log = ON").await.unwrap();
    let mut conn = observing.proxy.connect().await;
    conn.query_drop(format!("USE {schema}")).await.unwrap();
    for sql in [
        WHERE,
        "/* dbproxy: replica */ SELECT name FROM test.where_am_i",
    ] {
        for _ in 0..5 {
            assert_eq!(one::<String>(&mut conn, sql).await, "db1");
        }
    }
    let prepared = "SELECT name FROM test.where_am_i WHERE name <> ?";
    for _ in 0..3 {
        let name: Option<String> = conn.exec_first(prepared, ("sekret",)).await.unwrap();
        assert_eq!(name.as_deref(), Some("db1"));
    }
    for sql in [
        "INSERT INTO same VALUES (4, 'sekret')",
        "BEGIN",
        "SELECT word FROM same WHERE word = 'sekret'",
        "COMMIT",
        "SELECT word FROM same FOR UPDATE",
        "/* dbproxy: primary */ SELECT id FROM same",
    ] {
        conn.query_drop(sql).await.unwrap();
    }

    // Once the replica has what was just written.
    eventually("a read for replicas", async || {
        let told = explained(&mut conn, WHERE).await;
        assert_eq!(told["Target"], "primary");
        told["Reason"] == "read: mode is observe"
    })
    .await;
    let told = explained(&mut conn, WHERE).await;
    assert_eq!(told["Server"], "db1");
    let told = explained(&mut conn, "SELECT 1 FROM same FOR UPDATE").await;
    assert_eq!(
        (told["Reason"].as_str(), told["With mode route"].as_str()),
        ("locking read", "the same")
    );
    let session: Vec<(String, Option<String>)> = conn.query("SHOW DBPROXY SESSION").await.unwrap();
    let mode = "observe: everything goes to the primary";
    assert!(session.contains(&("mode".to_owned(), Some(mode.to_owned()))));

    let permissions = fs::metadata(file(state.path())).unwrap().permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);
    let report = observing.stop().await;
    let text = fs::read_to_string(file(state.path())).unwrap();
    assert!(!text.contains("sekret"), "{text}");
    let fresh = "read: a replica has every write it must see";
    for (statement, destination, reason, count) in [
        (WHERE, "replica", fresh, 5),
        (WHERE, "replica", "read: hint asks for a replica", 5),
        (prepared, "replica", fresh, 3),
        ("INSERT INTO same VALUES (4, 'x')", "primary", "write", 1),
        (
            "SELECT word FROM same WHERE word = ?",
            "connection",
            "in a transaction",
            1,
        ),
        (
            "SELECT word FROM same FOR UPDATE",
            "primary",
            "locking read",
            1,
        ),
        (
            "SELECT id FROM same",
            "primary",
            "hint asks for the primary",
            1,
        ),
    ] {
        let found = &entry(&report, statement)["routes"][destination][reason];
        assert_eq!(found, count, "{statement}: {report:#}");
    }
    assert_eq!(report["compared"], 0);
    let statements = replica.statements();
    assert!(!statements.contains("WHERE name <>"), "{statements}");
    replica.run("SET GLOBAL general_log = OFF").await.unwrap();
    let (text, status) = words(state.path());
    for part in [
        "would go to a replica",
        "in a transaction",
        "Verdict: not yet.",
        "no two answers could be held against each other yet",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(status, Some(1));
}

async fn differences_are_found_where_they_are(flavor: Flavor) {
    let cluster = cluster(flavor).await;
    let schema = schema(cluster, "observed_differences").await;
    let sql = format!(
        "CREATE TABLE {schema}.other (id INT PRIMARY KEY, word VARCHAR(20)); \
         INSERT INTO {schema}.other SELECT * FROM {schema}.same; \
         CREATE TABLE {schema}.gone (id INT)"
    );
    cluster.primary().run(&sql).await.unwrap();
    cluster.caught_up().await.unwrap();
    let (before, after) = match flavor {
        Flavor::MariaDb => ("", ""),
        Flavor::MySql => (
            "SET GLOBAL super_read_only = OFF; ",
            "; SET GLOBAL super_read_only = ON",
        ),
    };
    let sql = format!(
        "{before}SET sql_log_bin = 0; DELETE FROM {schema}.other WHERE id = 3; \
         UPDATE {schema}.other SET word = 'sekret' WHERE id = 2; DROP TABLE {schema}.gone{after}"
    );
    cluster.replicas()[0].run(&sql).await.unwrap();

    let state = TempDir::new().unwrap();
    let observing = Observing::start(cluster, state.path(), "1", "").await;
    let mut conn = observing.proxy.connect().await;
    conn.query_drop(format!("USE {schema}")).await.unwrap();
    conn.query_drop("SET time_zone = '+05:00'").await.unwrap();
    let equal = [
        "SELECT * FROM same",
        "SELECT word FROM same ORDER BY id DESC",
        "SELECT id FROM other WHERE id < ?",
        "SELECT CAST(FROM_UNIXTIME(id) AS CHAR) FROM same",
    ];
    let different = ["SELECT * FROM other", "SELECT word FROM other WHERE id = ?"];
    let failing = "SELECT id FROM gone";
    let varying = "SELECT id, NOW(?) FROM same";
    let large = "SELECT REPEAT (word, ?) FROM same";
    let all_met = async || {
        for sql in equal.iter().chain(&different) {
            // Prepared if it has a parameter, and as text.
            if sql.contains('?') {
                conn.exec_drop(*sql, (2,)).await.unwrap();
            } else {
                conn.query_drop(*sql).await.unwrap();
            }
        }
        conn.query_drop(failing).await.unwrap();
        conn.query_drop("SELECT id, NOW(6) FROM same")
            .await
            .unwrap();
        let sql = "SELECT REPEAT(word, 2000000) FROM same";
        conn.query_drop(sql).await.unwrap();
        let report = report(state.path());
        let met = |sql: &str| !entry(&report, sql)["compared"].is_null();
        equal.into_iter().chain(different).all(met) && met(failing) && met(varying) && met(large)
    };
    let met = within(support::SOON, all_met).await;
    let log = observing.proxy.log();
    let report = observing.stop().await;
    assert!(met, "{report:#}\n{log}");

    let compared = |sql: &str, key: &str| entry(&report, sql)["compared"][key].clone();
    for sql in equal {
        assert!(
            compared(sql, "equal").as_u64() > Some(0),
            "{sql}: {report:#}"
        );
        for key in ["different", "failed"] {
            assert_eq!(compared(sql, key), 0, "{sql}: {report:#}");
        }
    }
    for (sql, rows) in different.into_iter().zip([(3, 2), (1, 1)]) {
        assert!(compared(sql, "different").as_u64() > Some(0), "{report:#}");
        assert_eq!(
            (compared(sql, "equal"), compared(sql, "failed")),
            (0.into(), 0.into())
        );
        let example = compared(sql, "difference");
        assert_eq!(example["server"], "db2");
        assert_eq!(
            (&example["primary_rows"], &example["replica_rows"]),
            (&rows.0.into(), &rows.1.into())
        );
    }
    assert!(compared(failing, "failed").as_u64() > Some(0), "{report:#}");
    let failure = compared(failing, "failure");
    assert_eq!(failure["code"], 1146);
    assert!(failure["message"].as_str().unwrap().contains("gone"));
    let unknown = compared(varying, "unknown");
    assert!(
        unknown["its answer varies by itself"].as_u64() > Some(0),
        "{report:#}"
    );
    let unknown = compared(large, "unknown");
    assert!(
        unknown["its answer is longer than 16 MiB"].as_u64() > Some(0),
        "{report:#}"
    );
    for sql in [varying, large] {
        assert_eq!(
            (compared(sql, "equal"), compared(sql, "different")),
            (0.into(), 0.into())
        );
    }

    let text = fs::read_to_string(file(state.path())).unwrap();
    assert!(!text.contains("sekret"), "{text}");
    let (text, status) = words(state.path());
    for part in [
        "3 rows on the primary, 2 on db2",
        "2 kinds of read got other answers",
        "1 kind of read failed on a replica",
        "Verdict: not yet.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(status, Some(1));
}

async fn a_replica_that_is_only_late_is_not_different(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    let schema = schema(&cluster, "observed_late").await;
    let sql = match flavor {
        Flavor::MariaDb => "STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = 2; START SLAVE",
        Flavor::MySql => {
            "STOP REPLICA; CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 2; START REPLICA"
        }
    };
    cluster.replicas()[0].run(sql).await.unwrap();
    let state = TempDir::new().unwrap();
    let settings = "max_lag = \"20s\"\nconsistency = \"eventual\"";
    let observing = Observing::start(&cluster, state.path(), "1", settings).await;
    let mut conn = observing.proxy.connect().await;
    let mut next = 10;
    let late = within(2 * support::SOON, async || {
        next += 1;
        let sql = format!("INSERT INTO {schema}.same VALUES ({next}, 'new')");
        conn.query_drop(sql).await.unwrap();
        let read = format!("SELECT MAX(id) FROM {schema}.same");
        assert_eq!(one::<i32>(&mut conn, &read).await, next);
        // Not again before what came of it is known: the data must not change meanwhile.
        let before = report(state.path())["compared"].as_u64();
        let known = within(support::SOON, async || {
            report(state.path())["compared"].as_u64() > before
        })
        .await;
        assert!(known, "{}", observing.proxy.log());
        report(state.path())["results"]["later"].as_u64() > Some(0)
    })
    .await;
    assert!(late, "{}", observing.proxy.log());
    let report = observing.stop().await;
    assert_eq!(report["results"]["different"], 0, "{report:#}");
    assert_eq!(report["results"]["failed"], 0, "{report:#}");
    let (text, status) = words(state.path());
    assert!(
        text.contains("Verdict: switch on: mode = \"route\""),
        "{text}"
    );
    assert_eq!(status, Some(0));
}

async fn what_changes_all_the_time_is_not_different(flavor: Flavor) {
    let cluster = cluster(flavor).await;
    let schema = schema(cluster, "observed_moving").await;
    let state = TempDir::new().unwrap();
    let settings = "consistency = \"eventual\"";
    let observing = Observing::start(cluster, state.path(), "1", settings).await;
    let mut writer = observing.proxy.connect().await;
    let mut reader = observing.proxy.connect().await;
    let change = format!("UPDATE {schema}.same SET word = UUID_SHORT()");
    let read = format!("SELECT * FROM {schema}.same");
    let seen = within(2 * support::SOON, async || {
        for _ in 0..50 {
            writer.query_drop(&change).await.unwrap();
            reader.query_drop(&read).await.unwrap();
        }
        let results = &report(state.path())["results"];
        // Some were not equal at first.
        let unknown = results["unknown"]["the data changed while it was compared"].as_u64();
        unknown > Some(5) || results["later"].as_u64() > Some(5)
    })
    .await;
    assert!(seen, "{}", observing.proxy.log());
    let report = observing.stop().await;
    assert_eq!(report["results"]["different"], 0, "{report:#}");
    assert_eq!(report["results"]["failed"], 0, "{report:#}");
}

async fn a_restart_continues(flavor: Flavor) {
    let cluster = cluster(flavor).await;
    let state = TempDir::new().unwrap();
    for round in 1..=2 {
        let observing = Observing::start(cluster, state.path(), "0", "").await;
        let mut conn = observing.proxy.connect().await;
        for _ in 0..10 {
            assert_eq!(whereabouts(&mut conn).await, "db1");
        }
        // Also while it runs.
        eventually("it to be written", async || {
            entry(&report(state.path()), WHERE)["count"] == 10 * round
        })
        .await;
        let report = observing.stop().await;
        assert_eq!(entry(&report, WHERE)["count"], 10 * round);
    }
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 3, "no rests");
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let directory = TempDir::new().unwrap();
    let place = directory.path();
    let file = file(place);
    let configuration = place.join("dbproxy.toml");
    let text = format!(
        "mode = \"observe\"\nstate_directory = {place:?}\n[listen]\nmysql = [\"127.0.0.1:0\"]\n\
         [monitor]\nuser = \"a\"\npassword = \"b\"\n[cluster]\nservers = [\"127.0.0.1:1\"]\n"
    );
    fs::write(&configuration, &text).unwrap();
    let configuration = configuration.to_str().unwrap();
    let serve = |configuration: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dbproxy"));
        command.args(["serve", "-c", configuration]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dbproxy"));
        command.args(["check", "--offline", "-c", configuration]);
        let output = command.output().unwrap();
        (
            String::from_utf8(output.stdout).unwrap(),
            output.status.code(),
        )
    };
    assert_eq!(check().1, Some(0));
    let output = observe_report(&["-c", configuration]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("nothing has been observed yet"), "{said}");
    let newer = r#"{"format": "dbproxy observations", "version": 9}"#;
    for (content, why) in [
        ("{}", "is not a record of dbproxy's observations"),
        ("\u{0}", "is not a record of dbproxy's observations"),
        (
            newer,
            "was written by a newer dbproxy (format 9; this one reads up to 1)",
        ),
    ] {
        fs::write(&file, content).unwrap();
        let output = observe_report(&["-c", configuration]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains(why) && said.contains("observe.json"),
            "{said}"
        );
        assert_eq!(output.status.code(), Some(1));
        let said = serve(configuration);
        assert!(
            said.contains(why) && said.contains("move it away"),
            "{said}"
        );
        let (said, status) = check();
        assert!(said.contains(why), "{said}");
        assert_eq!(status, Some(1));
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }

    // A file in the place of the directory: even root cannot write there.
    let blocked = place.join("blocked.toml");
    let inside = file.join("state");
    let text = text.replace(&format!("{place:?}"), &format!("{inside:?}"));
    fs::write(&blocked, text).unwrap();
    let said = serve(blocked.to_str().unwrap());
    assert!(said.contains("state_directory"), "{said}");
}
