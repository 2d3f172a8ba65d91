//! The operator's programs, in plans on real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use mysql_async::prelude::Queryable;
use serde_json::Value;
use tokio::process::Command;

use support::{Options, Proxy, eventually};

on_both_flavors!(programs_take_part_in_plans);

/// Writes down what it is told, and fails while a file says that it shall.
const PROGRAM: &str = r#"
input=$(cat)
echo "$input" >> $here/calls
echo "heard of it"
case "$input" in
    *'"hook":"before_promote"'*) [ ! -e $here/refuse ] ;;
    *'"hook":"fence"'*) [ ! -e $here/powered ] ;;
esac
"#;

struct Scene {
    cluster: Cluster,
    proxy: Proxy,
    directory: tempfile::TempDir,
}

impl Scene {
    async fn start(flavor: Flavor) -> Self {
        let cluster = Cluster::start(flavor, 2).await.unwrap();
        let rights = "GRANT ALL ON *.* TO dbproxy@'%'; CREATE TABLE test.t (n INT PRIMARY KEY)";
        cluster.primary().run(rights).await.unwrap();
        cluster.caught_up().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let text = format!("#!/bin/sh\nhere={}\n{PROGRAM}", directory.path().display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let options = Options {
            cluster: "failover = \"manual\"\nreplication_user = \"repl\"\nreplication_password = \"repl\"".to_owned(),
            sections: format!(
                "[cluster.hooks]\nfence = {path:?}\nbefore_promote = {path:?}\nafter_promote = {path:?}"
            ),
            ..Options::default()
        };
        let proxy = Proxy::start(&cluster, &options).await;
        let scene = Self {
            cluster,
            proxy,
            directory,
        };
        scene.shows("primary db1 in reign 1: alive").await;
        scene
    }

    async fn order(&self, order: &str) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_dbproxy"))
            .args(["admin", "-e", order, "-c"])
            .arg(self.proxy.configuration())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    }

    async fn shows(&self, part: &str) {
        eventually(part, async || {
            let status = self.order("STATUS").await;
            status.is_ok_and(|status| status.contains(part))
        })
        .await;
    }

    fn flag(&self, name: &str) -> impl AsRef<Path> + use<> {
        self.directory.path().join(name)
    }

    /// The program's calls since the last look: which, about whom.
    fn calls(&self) -> Vec<(String, String, String)> {
        let path = self.directory.path().join("calls");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        let word = |value: &Value| value.as_str().unwrap_or("nobody").to_owned();
        text.lines()
            .map(|line| {
                let call: Value = serde_json::from_str(line).unwrap();
                let (old, new) = (&call["old"], &call["new"]);
                assert!(old["address"].as_str().unwrap().starts_with("127.0.0.1:"));
                assert!(!word(&old["identity"]).is_empty());
                (word(&call["hook"]), word(&old["name"]), word(&new["name"]))
            })
            .collect()
    }
}

fn call(hook: &str, old: &str, new: &str) -> (String, String, String) {
    (hook.to_owned(), old.to_owned(), new.to_owned())
}

async fn programs_take_part_in_plans(flavor: Flavor) {
    let scene = Scene::start(flavor).await;

    // It may refuse, and then nothing has changed.
    fs::write(scene.flag("refuse"), "").unwrap();
    let error = scene.order("SWITCHOVER TO db2").await.unwrap_err();
    assert!(error.contains("db1 stays the primary"), "{error}");
    assert!(error.contains("(exit status: 1): heard of it"), "{error}");
    assert_eq!(scene.calls(), [call("before_promote", "db1", "db2")]);
    let mut conn = scene.proxy.connect().await;
    // It is open again at once, or as soon as the next plan has seen to it.
    eventually("db1 to take writes", async || {
        conn.query_drop("INSERT INTO test.t VALUES (1)")
            .await
            .is_ok()
    })
    .await;

    fs::remove_file(scene.flag("refuse")).unwrap();
    scene.shows("db3: read-only").await;
    eventually("a switchover", async || {
        // What the first one has left is put in order first.
        scene.order("SWITCHOVER TO db2").await.is_ok()
    })
    .await;
    let both = [
        call("before_promote", "db1", "db2"),
        call("after_promote", "db1", "db2"),
    ];
    assert_eq!(scene.calls(), both);
    let db1 = scene.cluster.primary();
    let db2 = scene.cluster.server("db2").unwrap();
    eventually("db1 to follow db2", async || {
        let runs = db1.replicating().await.ok() == Some((true, true));
        runs && source(flavor, db1).await == Some(db2.port())
    })
    .await;

    // With the primary and one of two replicas gone, nothing but the program can say that the primary takes no writes.
    conn.query_drop("INSERT INTO test.t VALUES (2)")
        .await
        .unwrap();
    let written = db2.position().await.unwrap();
    db1.reach(&written).await.unwrap();
    fs::write(scene.flag("powered"), "").unwrap();
    scene.cluster.server("db3").unwrap().kill9();
    db2.kill9();
    eventually("the program to be asked", async || {
        let error = scene.order("FAILOVER").await.unwrap_err();
        error.contains("hook fence has failed")
    })
    .await;
    assert_eq!(scene.calls().pop(), Some(call("fence", "db2", "db1")));
    assert_eq!(db1.first::<u8>("SELECT @@read_only").await.unwrap(), 1);

    fs::remove_file(scene.flag("powered")).unwrap();
    let text = scene.order("FAILOVER").await.unwrap();
    assert!(text.starts_with("db1 is the primary"), "{text}");
    let all = ["fence", "before_promote", "after_promote"];
    assert_eq!(scene.calls(), all.map(|hook| call(hook, "db2", "db1")));
    conn.query_drop("INSERT INTO test.t VALUES (3)")
        .await
        .unwrap();
    let rows: Vec<u8> = db1.rows("SELECT n FROM test.t ORDER BY n").await.unwrap();
    assert_eq!(rows, [1, 2, 3]);

    let state = scene.proxy.configuration().parent().unwrap().join("state");
    let journal = fs::read_to_string(state.join("failover.jsonl")).unwrap();
    let lines = journal
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let said: Vec<_> = lines.filter(|line| line["kind"] == "hook").collect();
    assert!(said.len() >= 7);
    assert!(said.iter().all(|line| line["output"] == "heard of it"));
}

async fn source(
    flavor: Flavor,
    server: &dbproxy::cli::demo::cluster::ServerProcess,
) -> Option<u16> {
    let (sql, column) = match flavor {
        Flavor::MariaDb => ("SHOW SLAVE STATUS", "Master_Port"),
        Flavor::MySql => ("SHOW REPLICA STATUS", "Source_Port"),
    };
    let mut conn = server.connect().await.ok()?;
    let row: mysql_async::Row = conn.query_first(sql).await.ok()??;
    row.get(column)
}
