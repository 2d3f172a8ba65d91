//! The program as a person at a shell meets it: arguments, output, exit status.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::time;

fn dbproxy(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbproxy"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    dbproxy(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_status_tells_wrong_calls_from_found_problems() {
    for (arguments, status) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["explain", "SELECT 1"], 0),
        (&[], 2),
        (&["sevre"], 2),
        (&["explain", "--flavor", "oracle", "SELECT 1"], 2),
        (&["check", "--config"], 2),
        (&["check", "-c", "/nonexistent/dbproxy.toml"], 1),
        (&["serve", "-c", "/nonexistent/dbproxy.toml"], 1),
    ] {
        let output = output(arguments);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_bad_configuration_is_reported_whole_on_standard_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dbproxy.toml");
    fs::write(&path, "[cluster]\nservers = []\nlag = 5\n").unwrap();
    for command in ["check", "serve"] {
        let output = output(&[command, "-c", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        let shown = stderr(&output);
        for key in [
            "cluster.servers",
            "cluster.lag",
            "monitor.user",
            "monitor.password",
        ] {
            assert!(
                shown.contains(&format!("error: {key}: ")),
                "{key} in {shown}"
            );
        }
        assert!(stdout(&output).is_empty());
    }
}

#[test]
fn explain_reads_arguments_or_lines() {
    let from_arguments = output(&["explain", "SELECT 1", "DELETE FROM t"]);
    let mut command = dbproxy(&["explain"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"SELECT 1\n\n  DELETE FROM t")
        .unwrap();
    let from_lines = child.wait_with_output().unwrap();
    assert_eq!(stdout(&from_arguments), stdout(&from_lines));
    assert_eq!(stdout(&from_arguments).matches("reason").count(), 2);
}

#[test]
fn explain_names_what_a_statement_speaks_of() {
    let sql = "/*ms=x*/ SELECT f(1) INTO @a; UPDATE t SET a = @b; SAVEPOINT s";
    let text = stdout(&output(&["explain", sql]));
    for line in [
        "  calls   f",
        "  variables read  @b",
        "  variables set  @a",
        "  savepoints  s",
        "  hint not understood  ms=x",
        "  parts   1 read: calls a function that is not known to only read; 2 write: write; \
         3 savepoint: controls a transaction",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
}

#[test]
fn explain_follows_one_session() {
    let text = stdout(&output(&[
        "explain",
        "SELECT a FROM t",
        "BEGIN",
        "SELECT a FROM t",
        "COMMIT",
        "SET autocommit = 0",
        "SELECT a FROM t",
        "SELECT b FROM t",
        "SET autocommit = 1",
        "SELECT b FROM t",
        "SELECT @x := 1",
        "SELECT a FROM t",
    ]));
    let reasons: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  reason  "))
        .collect();
    for (at, reason) in [
        (0, "read: a replica has every write it must see"),
        (2, "in a transaction"),
        (5, "autocommit is off"),
        (6, "in a transaction"),
        (8, "read: a replica has every write it must see"),
        (10, "session is pinned: user variable"),
    ] {
        assert_eq!(reasons[at], reason, "statement {at} in\n{text}");
    }
    let targets: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  target  "))
        .collect();
    assert_eq!(targets[0], "replica");
    assert_eq!(targets[2], "the connection in use, to primary");
}

#[test]
fn explain_follows_a_transaction_on_a_replica() {
    let begin = "/* dbproxy: replica */ START TRANSACTION READ ONLY";
    let text = stdout(&output(&[
        "explain",
        begin,
        "SELECT a FROM t",
        "SELECT GET_LOCK('a', 1)",
        "COMMIT",
        begin,
        "SELECT @@hostname",
        "SELECT a FROM t",
    ]));
    let targets: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  target  "))
        .collect();
    let on_replica = "the connection in use, to replica";
    let expected = [
        "replica",
        on_replica,
        "nowhere",
        on_replica,
        "replica",
        "primary",
        "the connection in use, to primary",
    ];
    assert_eq!(targets, expected, "{text}");
}

const RULED: &str = r#"
[listen]
mysql = ["127.0.0.1:3306"]

[monitor]
user = "watch"
password = "not-shown"

[cluster]
name = "shop"

[[cluster.server]]
name = "db1"
address = "10.0.0.1"

[[cluster.server]]
name = "db2"
address = "10.0.0.2"

[[cluster.server]]
name = "db3"
address = "10.0.0.3"
group = "reports"

[clusters.archive]
servers = ["old1=10.0.1.1"]
accounts = "keeper"
schemas = "old_*"

[[rule]]
name = "sampled"
kind = "read"
sample = 0.5
cache = "1s"

[[rule]]
name = "reports"
account = "report*"
route = "group=reports"
timeout = "30s"
continue = true

[[rule]]
name = "local"
client = "10.9.0.0/16"
table = "shop.balances"
consistency = "strong"

[[rule]]
name = "jobs"
application = "cron"
time = "22:00-06:00"
block = "not at night"

[[rule]]
name = "audit"
pattern = "^SELECT \\* FROM audit$"
rewrite = "SELECT id FROM audit LIMIT 10"

[[rule]]
kind = "definition"
block = "no"
"#;

/// What is explained under those rules, statement by statement.
fn ruled(arguments: &[&str]) -> Vec<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dbproxy.toml");
    fs::write(&path, RULED).unwrap();
    let file = path.to_str().unwrap();
    let output = output(&[&["explain", "-c", file], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let statements = text.split("\n\n");
    let lines = |statement: &str| statement.lines().map(str::to_owned).collect();
    statements.map(lines).collect()
}

/// Each of these lines is there.
fn has(statement: &[String], lines: &[&str]) {
    for line in lines {
        let found = statement.iter().any(|shown| shown.trim_start() == *line);
        assert!(found, "{line} in\n{}", statement.join("\n"));
    }
}

#[test]
fn explain_knows_the_rules() {
    let reports = "rule    reports: route = group=reports, timeout = 30s, continue = true";
    let sampled = "may match  sampled (by sample): cache = 1s";
    let told = ruled(&[
        "--account",
        "reporter",
        "SELECT 1",
        "SELECT * FROM audit",
        "DROP TABLE t",
        "SELECT a FROM balances",
        "USE shop",
        "SELECT a FROM balances",
        "COMMIT",
    ]);
    let to_group = [
        "target  replica db3",
        "reason  a rule names the server's group",
    ];
    has(&told[0], &[reports, sampled, to_group[0], to_group[1]]);
    let night = "may match  jobs (by application, time): block = 1227 not at night";
    has(&told[0], &[night]);
    let audit = "becomes SELECT id FROM audit LIMIT 10";
    has(&told[1], &[reports, audit, to_group[0], "reads   audit"]);
    let block = "rule    rule 6: block = 1227 no";
    has(
        &told[2],
        &[block, "target  nowhere", "reason  a rule refuses it"],
    );
    let unknown = "may match  local (by client, table): consistency = strong";
    has(&told[3], &[unknown]);
    let known = "may match  local (by client): consistency = strong";
    has(&told[5], &[known]);
    assert!(!told[6].iter().any(|line| line.contains("rule")));

    let here = [
        "--account",
        "web",
        "--schema",
        "shop",
        "--client",
        "10.9.1.1",
    ];
    let strong = "rule    local: consistency = strong";
    let told = ruled(&[&here[..], &["SELECT a FROM balances"]].concat());
    has(&told[0], &[strong, "reason  read: consistency is strong"]);
    assert!(!told[0].iter().any(|line| line.contains("reports")));
    let told = ruled(&[&here[..], &["SELECT a FROM old_x.balances"]].concat());
    has(&told[0], &["target  any replica"]);
    let comment = "SELECT a FROM t /* application='cron' */";
    has(
        &ruled(&[comment])[0],
        &["may match  jobs (by time): block = 1227 not at night"],
    );
    has(
        &ruled(&["SELECT mine(1)"])[0],
        &["note    the servers' functions are not known here; EXPLAIN ROUTE knows them"],
    );
}

#[test]
fn explain_knows_the_clusters() {
    let sql = "INSERT INTO t VALUES (1)";
    for (arguments, cluster, target) in [
        (
            &["--account", "keeper"][..],
            "cluster archive: by its account",
            "target  primary old1",
        ),
        (
            &["--account", "web", "--schema", "old_2020"],
            "cluster archive: by its schema",
            "target  primary old1",
        ),
        (
            &["--account", "web", "--schema", "shop"],
            "cluster shop: no other serves it",
            "target  primary db1",
        ),
        (
            &[],
            "cluster shop: no other serves it, unless --account or --schema says otherwise",
            "target  primary db1",
        ),
    ] {
        let told = ruled(&[arguments, &[sql]].concat());
        has(&told[0], &[cluster, target]);
    }
    // Without a configuration there is nothing that they could say.
    let wrong = output(&["explain", "--account", "web", sql]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn explain_names_the_tables() {
    let text = stdout(&output(&[
        "explain",
        "INSERT INTO shop.orders SELECT * FROM carts c JOIN shop.items i ON i.id = c.item",
        "OPTIMIZE TABLE carts",
        "SELECT 1",
    ]));
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("  reads ") || line.starts_with("  writes "))
        .collect();
    assert_eq!(
        lines,
        [
            "  reads   carts, shop.items",
            "  writes  shop.orders",
            "  writes  carts (guessed)",
        ],
        "{text}"
    );
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let mut child = dbproxy(&["explain"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    // More than any buffer holds; the program may be gone before all of it is written.
    for _ in 0..20_000 {
        if stdin.write_all(b"SELECT 1\n").is_err() {
            break;
        }
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
}

/// A proxy without servers, started and stopped by signals; what it logged, and how it ended.
async fn served(format: &str, level: Option<&str>, signal: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dbproxy.toml");
    let socket = directory.path().join("proxy.sock");
    let text = format!(
        "state_directory = \"state\"\n[listen]\nmysql = [\"unix:{}\"]\n[monitor]\nuser = \"u\"\npassword = \"hunter2\"\n\
         [cluster]\nservers = [\"db1=127.0.0.1:1\"]\n[log]\nformat = \"{format}\"\n",
        socket.display()
    );
    fs::write(&path, text).unwrap();
    let mut command = dbproxy(&["serve", "-c", path.to_str().unwrap()]);
    match level {
        Some(level) => command.env("DBPROXY_LOG", level),
        None => command.env_remove("DBPROXY_LOG"),
    };
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The signal handlers are there before the listeners are.
    let listening = async {
        let mut tick = time::interval(Duration::from_millis(20));
        while !socket.exists() {
            tick.tick().await;
        }
    };
    time::timeout(Duration::from_secs(30), listening)
        .await
        .expect("the proxy listens");
    let kill = Command::new("kill")
        .args(["-s", signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(stdout(&output), "");
    (output.status.code(), stderr(&output))
}

#[tokio::test]
async fn serve_logs_text_and_stops_on_a_signal() {
    for signal in ["TERM", "INT"] {
        let (status, log) = served("text", None, signal).await;
        assert_eq!(status, Some(0), "{log}");
        assert!(
            log.contains(" INFO ") && log.contains(&format!("SIG{signal}")),
            "{log}"
        );
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[tokio::test]
async fn serve_logs_json_of_the_level_asked_for() {
    let (status, log) = served("json", None, "TERM").await;
    assert_eq!(status, Some(0), "{log}");
    for line in log.lines() {
        let fields: serde_json::Value = serde_json::from_str(line).expect(line);
        for field in ["timestamp", "level", "message", "target"] {
            assert!(fields[field].is_string(), "{field} in {line}");
        }
    }
    assert!(
        log.contains("\"problem\":"),
        "the warning about the password is missing: {log}"
    );

    let (status, log) = served("json", Some("off"), "TERM").await;
    assert_eq!((status, log.as_str()), (Some(0), ""));
}
