//! `dbproxy check` against real servers: what is sound, and what is broken for real.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use tokio::process::Command;

use support::addresses;

on_both_flavors!(
    a_sound_cluster_is_confirmed,
    what_is_broken_is_named,
    rights_that_are_missing_are_named,
    the_rights_that_readme_names_are_enough,
    what_servers_do_not_offer_is_named,
);

/// Runs `dbproxy check` for these servers.
async fn check(cluster: &Cluster, password: &str, sections: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dbproxy.toml");
    let servers = addresses(cluster);
    let text = format!(
        "[monitor]\nuser = \"dbproxy\"\npassword = \"{password}\"\n\
         [cluster]\nservers = {servers:?}\n{sections}"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbproxy"));
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .arg("check")
        .arg("-c")
        .arg(&path)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&stderr), "");
    (status.code(), String::from_utf8(stdout).unwrap())
}

async fn a_sound_cluster_is_confirmed(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 2).await.unwrap();
    cluster.caught_up().await.unwrap();
    let (status, text) = check(&cluster, "dbproxy", "").await;
    assert_eq!(status, Some(0), "{text}");
    let primary = cluster.primary().name();
    assert!(
        text.contains(&format!("ok       {primary} is the primary")),
        "{text}"
    );
    let replicas: Vec<_> = cluster
        .replicas()
        .iter()
        .map(|server| server.name())
        .collect();
    assert!(
        text.contains(&format!("ok       reads go to {}", replicas.join(", "))),
        "{text}"
    );
    assert!(text.contains("accounts can be read"), "{text}");
}

async fn what_is_broken_is_named(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 2).await.unwrap();
    cluster.caught_up().await.unwrap();
    let [stopped, open] = cluster.replicas() else {
        panic!("two replicas")
    };
    let stop = match flavor {
        Flavor::MariaDb => "STOP SLAVE SQL_THREAD",
        Flavor::MySql => "STOP REPLICA SQL_THREAD",
    };
    stopped.run(stop).await.unwrap();
    open.run("SET GLOBAL read_only = OFF").await.unwrap();

    let (status, text) = check(&cluster, "dbproxy", "").await;
    assert_eq!(status, Some(1), "{text}");
    let block = |name: &str| {
        let start = text.find(&format!("\n{name} ")).unwrap();
        text[start + 1..].split("\n\n").next().unwrap().to_owned()
    };
    assert!(
        block(cluster.primary().name()).contains("ok       gets the writes"),
        "{text}"
    );
    assert!(block(stopped.name()).contains("does not run"), "{text}");
    assert!(
        block(open.name()).contains("takes writes although another server is the primary"),
        "{text}"
    );
    assert!(text.contains("warning  no replica can get reads"), "{text}");

    stopped.kill9();
    let (status, text) = check(&cluster, "dbproxy", "").await;
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("error    connection refused"), "{text}");
}

async fn rights_that_are_missing_are_named(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    cluster.caught_up().await.unwrap();
    let (status, text) = check(&cluster, "wrong", "").await;
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("Access denied for user 'dbproxy'"), "{text}");

    let primary = cluster.primary();
    primary
        .run("REVOKE ALL PRIVILEGES, GRANT OPTION FROM dbproxy@'%'")
        .await
        .unwrap();
    cluster.caught_up().await.unwrap();
    let (status, text) = check(&cluster, "dbproxy", "").await;
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("accounts cannot be read"), "{text}");
    assert!(text.contains("REPLICATION CLIENT"), "{text}");
}

async fn the_rights_that_readme_names_are_enough(flavor: Flavor) {
    let readme = include_str!("../README.md");
    let (mysql, mariadb) = readme
        .split_once("-- MySQL\n")
        .and_then(|(_, rest)| rest.split_once("\n```"))
        .and_then(|(sql, _)| sql.split_once("-- MariaDB\n"))
        .expect("README shows how to make the monitor account");
    let sql = match flavor {
        Flavor::MySql => mysql,
        Flavor::MariaDb => mariadb,
    };
    let sql = sql.replace('…', "dbproxy").replace("10.0.0.%", "%");
    let cluster = Cluster::start(flavor, 1).await.unwrap();
    let primary = cluster.primary();
    primary.run("DROP USER dbproxy@'%'").await.unwrap();
    primary.run(&sql).await.unwrap();
    cluster.caught_up().await.unwrap();
    let (status, text) = check(&cluster, "dbproxy", "").await;
    assert_eq!(status, Some(0), "{text}");
}

async fn what_servers_do_not_offer_is_named(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let told = "proxy_protocol = \"on\"\n";
    let said = match flavor {
        Flavor::MariaDb => "error    proxy_protocol_networks is empty",
        Flavor::MySql => "error    the server does not know the PROXY protocol",
    };
    let (status, text) = check(&cluster, "dbproxy", told).await;
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains(said), "{text}");
    assert!(text.contains("cluster.proxy_protocol"), "{text}");
    if flavor == Flavor::MariaDb {
        let others = "SET GLOBAL proxy_protocol_networks = '10.0.0.0/8,::1'";
        cluster.primary().run(others).await.unwrap();
        let (status, text) = check(&cluster, "dbproxy", told).await;
        assert_eq!(status, Some(1), "{text}");
        let said = "error    proxy_protocol_networks (10.0.0.0/8,::1) does not list dbproxy's address, 127.0.0.1";
        assert!(text.contains(said), "{text}");
    }
    let algorithms = "SET GLOBAL protocol_compression_algorithms = 'zlib,uncompressed'";
    let prepare = match flavor {
        Flavor::MariaDb => "SET GLOBAL proxy_protocol_networks = '127.0.0.1'",
        Flavor::MySql => algorithms,
    };
    cluster.primary().run(prepare).await.unwrap();
    let offered = match flavor {
        Flavor::MariaDb => told,
        Flavor::MySql => "",
    };
    for (compression, warned) in [("zlib", false), ("zstd", true)] {
        let sections = format!("{offered}compression = \"{compression}\"\n");
        let (status, text) = check(&cluster, "dbproxy", &sections).await;
        assert_eq!(status, Some(0), "{text}");
        let word = "warning  compression is \"zstd\", which the server does not offer";
        assert_eq!(text.contains(word), warned, "{text}");
        assert_eq!(
            text.contains("is told where clients are"),
            flavor == Flavor::MariaDb,
            "{text}"
        );
    }
}
