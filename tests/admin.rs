//! An operator's orders: from a shell to the servers and back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use dbproxy::cli::demo::cluster::{Cluster, Flavor, ServerProcess};
use tokio::process::Command;

use support::{Options, Proxy, eventually};

on_both_flavors!(
    an_order_changes_the_primary_and_answers_when_it_has,
    a_plan_changes_nothing,
);

/// What `dbproxy admin` says, and whether it says that all is well.
async fn admin(proxy: &Proxy, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dbproxy"))
        .arg("admin")
        .arg("--config")
        .arg(proxy.configuration())
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn control(proxy: &Proxy) -> PathBuf {
    let directory = proxy.configuration().parent().unwrap().join("state");
    directory.join("control.sock")
}

/// A proxy whose servers do not exist.
fn alone(cluster: &str, top: &str) -> Proxy {
    let servers = ["db1=127.0.0.1:1", "db2=127.0.0.1:2"].map(str::to_owned);
    let options = Options {
        cluster: cluster.to_owned(),
        top: top.to_owned(),
        ..Options::default()
    };
    Proxy::spawn(&servers, &options)
}

async fn listens(proxy: &Proxy) {
    eventually("the control socket", async || {
        proxy.must_run();
        UnixStream::connect(control(proxy)).is_ok()
    })
    .await;
}

/// A primary and two replicas that dbproxy looks after when it is asked to.
async fn manual(flavor: Flavor) -> (Cluster, Proxy) {
    let cluster = Cluster::start(flavor, 2).await.unwrap();
    // What README asks for, and no more.
    let (everywhere, own) = support::failover_rights(flavor);
    let rights = format!(
        "GRANT {} ON *.* TO dbproxy@'%'; GRANT {} ON dbproxy.* TO dbproxy@'%'; \
         CREATE TABLE test.t (n INT PRIMARY KEY)",
        everywhere.join(", "),
        own.join(", ")
    );
    cluster.primary().run(&rights).await.unwrap();
    cluster.caught_up().await.unwrap();
    let options = Options {
        cluster:
            "failover = \"manual\"\nreplication_user = \"repl\"\nreplication_password = \"repl\""
                .to_owned(),
        ..Options::default()
    };
    let proxy = Proxy::start(&cluster, &options).await;
    eventually("the first reign", async || {
        let (status, text, _) = admin(&proxy, &["-e", "STATUS"]).await;
        status == Some(0) && text.contains("primary db1 in reign 1: alive")
    })
    .await;
    (cluster, proxy)
}

async fn takes_writes(server: &ServerProcess) -> bool {
    server.first::<u8>("SELECT @@read_only").await.unwrap() == 0
}

async fn an_order_changes_the_primary_and_answers_when_it_has(flavor: Flavor) {
    let (cluster, proxy) = manual(flavor).await;
    let (status, text, error) = admin(&proxy, &["-e", "switchover to db2 timeout 5s;"]).await;
    assert_eq!((status, error.as_str()), (Some(0), ""));
    assert_eq!(text, "db2 is the primary, in reign 2\n");
    // It is done by then, not only begun.
    assert!(takes_writes(cluster.server("db2").unwrap()).await);
    assert!(!takes_writes(cluster.primary()).await);
    let mut conn = proxy.connect().await;
    mysql_async::prelude::Queryable::query_drop(&mut conn, "INSERT INTO test.t VALUES (1)")
        .await
        .unwrap();

    let (status, _, error) = admin(&proxy, &["-e", "SWITCHOVER TO db2"]).await;
    assert_eq!(status, Some(1));
    assert_eq!(error, "dbproxy: db2 is the primary already\n");

    // Several orders, and one that cannot be carried out ends them.
    let orders = "MAINTENANCE db3 ON; STATUS; REJOIN db2; MAINTENANCE db3 OFF";
    let (status, text, error) = admin(&proxy, &["-e", orders]).await;
    assert_eq!(status, Some(1));
    assert!(text.contains("db3: maintenance"), "{text}");
    assert_eq!(error, "dbproxy: db2 is the primary\n");
    let (_, text, _) = admin(&proxy, &["-e", "MAINTENANCE db3 OFF; STATUS"]).await;
    assert!(text.contains("db3: read-only"), "{text}");
}

async fn a_plan_changes_nothing(flavor: Flavor) {
    let (cluster, proxy) = manual(flavor).await;
    let (status, text, error) = admin(&proxy, &["-e", "PLAN SWITCHOVER TO db3"]).await;
    assert_eq!((status, error.as_str()), (Some(0), ""));
    for part in [
        "switchover (an operator wants it), reign 2",
        "db3: ",
        "promote",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let (status, text, _) = admin(&proxy, &["-e", "PLAN FAILOVER"]).await;
    assert_eq!(status, Some(0), "{text}");
    let (_, text, _) = admin(&proxy, &["-e", "STATUS"]).await;
    assert!(text.contains("primary db1 in reign 1"), "{text}");
    assert!(takes_writes(cluster.primary()).await);
    assert!(!takes_writes(cluster.server("db3").unwrap()).await);
}

#[tokio::test]
async fn orders_come_from_lines_too() {
    let proxy = alone("failover = \"manual\"", "");
    listens(&proxy).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_dbproxy"))
        .arg("admin")
        .arg("--socket")
        .arg(control(&proxy))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines = b"FREEZE\n\nSTATUS\nSWITCHOVER TO db22\nTHAW\n";
    tokio::io::AsyncWriteExt::write_all(&mut input, lines)
        .await
        .unwrap();
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.starts_with("nothing is done without being asked"),
        "{text}"
    );
    assert!(text.contains("frozen"), "{text}");
    assert!(
        !text.contains("acted upon"),
        "a failed order was not the last: {text}"
    );
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("did you mean db2? There is: db1, db2"),
        "{error}"
    );
}

#[tokio::test]
async fn without_failover_it_says_what_to_set() {
    let proxy = alone("", "");
    listens(&proxy).await;
    let (status, _, error) = admin(&proxy, &["-e", "SWITCHOVER"]).await;
    assert_eq!(status, Some(1));
    assert!(error.contains("cluster.failover is \"off\""), "{error}");
    assert!(error.contains("set it to \"manual\""), "{error}");
}

#[tokio::test]
async fn where_nobody_listens_that_is_said() {
    let proxy = alone("", "");
    listens(&proxy).await;
    proxy.terminate();
    eventually("the proxy to end", async || proxy.ended().is_some()).await;
    assert!(!control(&proxy).exists());
    let (status, _, error) = admin(&proxy, &["-e", "STATUS"]).await;
    assert_eq!(status, Some(1));
    assert!(error.contains("no dbproxy runs that listens on"), "{error}");
}

#[tokio::test]
async fn the_socket_is_for_its_own_account_and_one_dbproxy() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let top = format!("state_directory = {state:?}");
    let manual = "failover = \"manual\"";
    let socket = state.join("control.sock");
    let open = async |proxy: &Proxy| {
        eventually("the control socket", async || {
            proxy.must_run();
            UnixStream::connect(&socket).is_ok()
        })
        .await;
    };
    let first = alone(manual, &top);
    open(&first).await;
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // One that lives is not replaced, and it is said what is to be done.
    let second = alone(manual, &top);
    eventually("the second to give up", async || second.ended().is_some()).await;
    let said = second.log();
    assert!(said.contains("another process listens on it"), "{said}");
    assert!(said.contains("its own state_directory"), "{said}");
    assert!(UnixStream::connect(&socket).is_ok());

    // That of one that was killed is.
    dbproxy::cli::demo::cluster::signal(first.pid(), "KILL").unwrap();
    eventually("the first to be gone", async || first.ended().is_some()).await;
    assert!(socket.exists());
    let third = alone(manual, &top);
    open(&third).await;
    drop(third);

    let long = directory.path().join("d".repeat(90));
    let lost = alone(manual, &format!("state_directory = {long:?}"));
    eventually("it to give up", async || lost.ended().is_some()).await;
    let said = lost.log();
    assert!(
        said.contains("a socket's path may have at most 107 bytes"),
        "{said}"
    );
    assert!(said.contains("state_directory"), "{said}");
    // Where nobody needs it, it may be missing.
    let other = alone("", &format!("state_directory = {long:?}"));
    eventually("it to listen", async || {
        other.must_run();
        other.log().contains("listening")
    })
    .await;
}

#[tokio::test]
async fn hostile_clients_stop_nobody() {
    let proxy = alone("failover = \"manual\"", "");
    listens(&proxy).await;
    let ask = |text: &[u8]| {
        let mut stream = UnixStream::connect(control(&proxy)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        // It may be shown out before it has sent everything.
        let _ = stream.write_all(text);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    // Far more than there is place for, none of whom asks anything.
    let silent: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = UnixStream::connect(control(&proxy)).unwrap();
            let _ = stream.write_all(b"STAT");
            stream
        })
        .collect();
    assert!(ask(b"STATUS\n").starts_with("{\"ok\":true,"));
    drop(silent);
    let answer = ask(&[b'A'; 1 << 20]);
    assert!(
        answer.is_empty() || answer.contains("at most 4096 bytes"),
        "{answer}"
    );
    for text in [
        &b"\xff\xfe\0\n"[..],
        b"SWITCHOVER TO \"\"\n",
        b"\n",
        b"PLAN\n",
    ] {
        let answer = ask(text);
        assert!(answer.starts_with("{\"ok\":false,"), "{answer}");
        assert_eq!(answer.lines().count(), 1, "{answer}");
    }
    // Several orders over one connection, the last without an end of line.
    let answers = ask(b"FREEZE\nTHAW\nSTATUS");
    assert_eq!(answers.matches("{\"ok\":true,").count(), 3, "{answers}");
}
