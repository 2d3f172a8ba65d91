//! `dbproxy check` against real servers: what is sound, and what is broken for real.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use dbproxy::cli::demo::cluster::{Cluster, Flavor, ServerProcess};
use dbproxy::config::Secret;
use dbproxy::failover::{Action, Credentials, statements};
use dbproxy::topology::Version;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use tokio::process::Command;

use support::addresses;

on_both_flavors!(
    a_sound_cluster_is_confirmed,
    what_is_broken_is_named,
    rights_that_are_missing_are_named,
    the_rights_that_readme_names_are_enough,
    what_servers_do_not_offer_is_named,
    what_a_failover_lacks_is_named_and_can_be_mended,
    the_rights_for_a_failover_are_enough_and_none_is_too_much,
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

async fn what_a_failover_lacks_is_named_and_can_be_mended(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 2).await.unwrap();
    cluster.caught_up().await.unwrap();
    let wanted = "failover = \"manual\"";
    let mighty = match flavor {
        Flavor::MySql => {
            "CREATE USER boss@'%'; GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO boss@'%'; GRANT EVENT ON *.* TO dbproxy@'%'"
        }
        Flavor::MariaDb => "CREATE USER boss@'%'; GRANT READ_ONLY ADMIN ON *.* TO boss@'%'",
    };
    let event =
        "SET GLOBAL event_scheduler=ON; CREATE EVENT test.e ON SCHEDULE EVERY 1 DAY DO SET @a = 1";
    cluster.primary().run(mighty).await.unwrap();
    cluster.primary().run(event).await.unwrap();
    cluster.caught_up().await.unwrap();
    let (status, text) = check(&cluster, "dbproxy", wanted).await;
    assert_eq!(status, Some(1), "{text}");
    let (timeout, change, rights) = match flavor {
        Flavor::MySql => (
            "replica_net_timeout",
            "CHANGE REPLICATION SOURCE TO SOURCE_HEARTBEAT_PERIOD=1",
            "GRANT RELOAD, PERSIST_RO_VARIABLES_ADMIN ON *.* and GRANT CREATE, INSERT, UPDATE ON dbproxy.* TO it",
        ),
        Flavor::MariaDb => (
            "slave_net_timeout",
            "CHANGE MASTER TO MASTER_HEARTBEAT_PERIOD=1",
            "GRANT RELOAD, BINLOG ADMIN ON *.* and GRANT CREATE, INSERT, UPDATE ON dbproxy.* TO it",
        ),
    };
    for part in [
        &format!(
            "error    the monitor's account may not change the primary, and a failover stops where it may not go on: {rights}"
        ),
        "warning  it does not start read-only",
        "warning  1 events run here: on another primary they do not",
        "'boss'@'%'",
        "warning  sync_binlog=0 and innodb_flush_log_at_trx_commit=2",
        "warning  it hears of its source every 5 s",
        change,
        "warning  cluster.replication_user is not set",
        "warning  replication is asynchronous: commits of the last moment",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("is ready for a failover"), "{text}");

    // Where nobody wants one, it is a hint.
    let (status, text) = check(&cluster, "dbproxy", "").await;
    assert_eq!(status, Some(0), "{text}");
    let hint = "ok       for cluster.failover, which is off, this would be missing: ";
    assert!(text.contains(hint), "{text}");

    let gone = "DROP USER boss@'%'; DROP EVENT test.e";
    cluster.primary().run(gone).await.unwrap();
    let grant = "GRANT RELOAD ON *.* TO dbproxy@'%'; GRANT CREATE, INSERT, UPDATE ON dbproxy.* TO dbproxy@'%'";
    cluster.primary().run(grant).await.unwrap();
    let dynamic = match flavor {
        Flavor::MySql => "GRANT PERSIST_RO_VARIABLES_ADMIN ON *.* TO dbproxy@'%'",
        Flavor::MariaDb => "GRANT BINLOG ADMIN ON *.* TO dbproxy@'%'",
    };
    cluster.primary().run(dynamic).await.unwrap();
    cluster.caught_up().await.unwrap();
    for server in cluster.servers() {
        let sql = match flavor {
            Flavor::MySql => {
                "SET PERSIST sync_binlog=1; SET PERSIST innodb_flush_log_at_trx_commit=1; \
                 SET PERSIST_ONLY super_read_only=ON; SET PERSIST_ONLY relay_log_recovery=ON"
            }
            // As if its configuration had it: what a statement has set hides that.
            Flavor::MariaDb => {
                "SET GLOBAL sync_binlog=1; SET GLOBAL innodb_flush_log_at_trx_commit=1; SET GLOBAL read_only=@@read_only"
            }
        };
        server.run(sql).await.unwrap();
        server
            .run(&format!("SET GLOBAL {timeout}=4"))
            .await
            .unwrap();
        if server.name() != "db1" {
            let (stop, start) = match flavor {
                Flavor::MySql => ("STOP REPLICA", "START REPLICA"),
                Flavor::MariaDb => ("STOP SLAVE", "START SLAVE"),
            };
            server
                .run(&format!("{stop}; {change}; {start}"))
                .await
                .unwrap();
        }
    }
    cluster.caught_up().await.unwrap();
    let account = format!("{wanted}\nreplication_user = \"repl\"\nreplication_password = \"repl\"");
    let (status, text) = check(&cluster, "dbproxy", &account).await;
    assert_eq!(status, Some(0), "{text}");
    let ready = text.matches("ok       is ready for a failover").count();
    // relay_log_recovery counts from the next start on.
    let expected = match flavor {
        Flavor::MySql => text.matches("relay_log_recovery is OFF").count() == 3,
        Flavor::MariaDb => ready == 3,
    };
    assert!(expected, "{text}");
}

/// Every action, in an order in which each has something to do.
fn actions() -> Vec<Action> {
    vec![
        Action::Ballot(1),
        Action::Follow {
            host: "127.0.0.1".to_owned(),
            port: 1,
            demoted: true,
        },
        Action::StartApplier,
        Action::StopReceiver,
        Action::StartReplication,
        Action::StopReplication,
        Action::ForgetSource,
        Action::SemiSync { source: true },
        Action::SemiSync { source: false },
        Action::Offline(true),
        Action::RefuseWrites,
        Action::Ballot(2),
        Action::Offline(false),
        Action::AcceptWrites,
        Action::Crown {
            epoch: 1,
            plan: "adopt-1".to_owned(),
        },
    ]
}

/// Runs everything that a plan may run on a server, with these rights and no others, and gives what was denied.
async fn denied(server: &ServerProcess, rights: &[String], flavor: Flavor) -> Vec<String> {
    let open = match flavor {
        Flavor::MySql => {
            "SET GLOBAL offline_mode=OFF; SET GLOBAL super_read_only=OFF; SET GLOBAL read_only=OFF"
        }
        Flavor::MariaDb => "SET GLOBAL read_only=OFF",
    };
    server.run(open).await.unwrap();
    let account = "SET sql_log_bin=0; DROP USER IF EXISTS bare@'%'; CREATE USER bare@'%' IDENTIFIED BY 'bare'";
    server
        .run(&format!("{account}; {}", rights.join("; ")))
        .await
        .unwrap();
    let mut conn = Conn::new(support::login(server.port(), "bare", "bare"))
        .await
        .unwrap();
    let mut victim = Conn::new(support::application(server.port()))
        .await
        .unwrap();
    let id: u64 = support::one(&mut victim, "SELECT CONNECTION_ID()").await;
    let version: String = support::one(&mut conn, "SELECT VERSION()").await;
    let version = Version::parse(&version).unwrap();
    let credentials = Credentials {
        user: "repl".to_owned(),
        password: Secret::new("repl"),
    };
    let mut all: Vec<String> = actions()
        .iter()
        .flat_map(|action| statements(action, &version, Some(&credentials)))
        .collect();
    all.push("SELECT COUNT(*) FROM dbproxy.epoch".to_owned());
    // Whose connections would else not be seen.
    all.push("SELECT COUNT(*) FROM information_schema.INNODB_TRX".to_owned());
    all.push(format!("KILL {id}"));
    let mut denied = Vec::new();
    for sql in all {
        match conn.query_drop(&sql).await {
            // A plugin that is not there, nothing to stop, a connection that offline_mode has ended.
            Ok(())
            | Err(Error::Server(mysql_async::ServerError {
                code: 1094 | 1193 | 1200 | 1617,
                ..
            })) => {}
            Err(error) => denied.push(format!("{sql}: {error}")),
        }
    }
    denied
}

async fn the_rights_for_a_failover_are_enough_and_none_is_too_much(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let server = cluster.primary();
    let (everywhere, own) = support::failover_rights(flavor);
    let grant = |everywhere: &[String], own: &[String]| {
        let mut grants = Vec::new();
        if !everywhere.is_empty() {
            grants.push(format!(
                "GRANT {} ON *.* TO bare@'%'",
                everywhere.join(", ")
            ));
        }
        grants.push(format!("GRANT {} ON dbproxy.* TO bare@'%'", own.join(", ")));
        grants
    };
    let found = denied(server, &grant(&everywhere, &own), flavor).await;
    assert!(found.is_empty(), "{found:#?}");
    for rights in [&everywhere, &own] {
        for left_out in rights {
            // The table is there by now: what makes it is tried on one that has none.
            server
                .run("SET sql_log_bin=0; DROP DATABASE IF EXISTS dbproxy")
                .await
                .unwrap();
            let but = |rights: &[String]| -> Vec<String> {
                let kept = rights.iter().filter(|right| *right != left_out);
                kept.cloned().collect()
            };
            let found = denied(server, &grant(&but(&everywhere), &but(&own)), flavor).await;
            assert!(!found.is_empty(), "nothing needs {left_out}");
        }
    }
}
