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
