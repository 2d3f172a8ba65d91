//! Who gets in, by which method, and what those hear who do not: the same as from the servers themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use mysql_async::prelude::Queryable;
use mysql_async::{ChangeUserOpts, Conn, OptsBuilder};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use support::raw::{Raw, Refused, capability};
use support::{Options, Proxy, Rig, addresses, code, eventually, login, one, within};

on_both_flavors!(
    the_greeting_is_the_servers,
    the_collation_of_the_handshake_counts,
    backslashes_mean_what_the_flags_say,
    app_logs_in_over_tcp_and_socket,
    a_password_may_be_empty,
    errors_are_the_servers,
    a_switch_of_method_is_asked_for,
    the_schema_of_the_handshake_counts,
    a_password_may_stand_in_the_configuration,
    a_changed_password_counts,
    a_new_account_counts_at_once,
    a_dropped_account_is_refused,
    no_server_is_said_clearly,
    the_user_can_be_changed,
    there_is_a_limit_of_connections,
    a_host_without_accounts_is_refused,
    rubbish_is_refused,
    the_client_may_leave_at_any_time,
);

/// Logs in by the raw client: the current user, or the refusal.
async fn attempt(
    port: u16,
    user: &str,
    password: &str,
    schema: Option<&str>,
) -> Result<String, Refused> {
    let mut raw = Raw::tcp(port).await?;
    raw.login(user, password, schema, capability::USUAL).await?;
    let rows = raw.rows("SELECT CURRENT_USER()").await?;
    Ok(rows[0][0].clone().unwrap())
}

async fn the_greeting_is_the_servers(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let direct = Raw::tcp(rig.cluster.primary().port())
        .await
        .unwrap()
        .greeting;
    let through = Raw::tcp(rig.proxy.port()).await.unwrap().greeting;
    assert_eq!(through.version, direct.version);
    assert_eq!(through.charset, direct.charset);
    assert_eq!(through.plugin, direct.plugin);
    // MariaDB leaves the first flag out to say that further capabilities follow.
    let wanted = capability::USUAL & !1;
    assert_eq!(through.capabilities & wanted, wanted);
    assert_ne!(through.capabilities & capability::TLS, 0);
    assert_ne!(through.connection, 0);
    let again = Raw::tcp(rig.proxy.port()).await.unwrap().greeting;
    assert_ne!(through.scramble, again.scramble);
    assert_ne!(through.connection, again.connection);
}

/// The character sets of a session as SQL sees them.
const CHARACTER_SETS: &str =
    "SELECT @@character_set_client, @@character_set_results, @@collation_connection";

async fn the_collation_of_the_handshake_counts(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for collation in [0, 8, 33, 45, 46, 224, 248, 255] {
        let mut heard = Vec::new();
        for port in [rig.cluster.primary().port(), rig.proxy.port()] {
            let mut raw = Raw::tcp(port).await.unwrap();
            raw.collation = collation;
            raw.login("app", "app", None, capability::USUAL)
                .await
                .unwrap();
            let at_login = raw.rows(CHARACTER_SETS).await.unwrap();
            raw.rows("SET NAMES latin2").await.unwrap();
            raw.change_user("app", "app", "").await.unwrap();
            heard.push((at_login, raw.rows(CHARACTER_SETS).await.unwrap()));
        }
        assert_eq!(heard[1], heard[0], "{collation}");
    }
}

async fn backslashes_mean_what_the_flags_say(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let sql = "SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'";
    cluster.primary().run(sql).await.unwrap();
    let proxy = Proxy::start(&cluster, &Options::default()).await;
    let mut heard = Vec::new();
    for port in [cluster.primary().port(), proxy.port()] {
        let mut raw = Raw::tcp(port).await.unwrap();
        let mut flags = vec![raw.greeting.status];
        raw.login("app", "app", None, capability::USUAL)
            .await
            .unwrap();
        let set = b"\x03SET sql_mode = ''";
        for command in [&b"\x0e"[..], set, b"\x0e", b"\x1f", b"\x0e"] {
            raw.send(command).await;
            let payload = raw.packet().await.unwrap();
            assert_eq!(payload[..3], [0; 3], "an OK packet");
            flags.push(u16::from_le_bytes([payload[3], payload[4]]));
        }
        let set: Vec<bool> = flags.iter().map(|flags| flags & 0x0200 != 0).collect();
        assert_eq!(set, [true, true, false, false, true, true]);
        heard.push(flags);
    }
    assert_eq!(heard[1], heard[0]);
}

#[tokio::test]
async fn a_default_collation_beyond_a_byte_is_greeted_by_its_character_set() {
    let cluster = Cluster::start(Flavor::MariaDb, 0).await.unwrap();
    let sql = "SET GLOBAL collation_server = 'utf8mb4_uca1400_ai_ci', \
               GLOBAL collation_connection = 'utf8mb4_uca1400_ai_ci'";
    cluster.primary().run(sql).await.unwrap();
    let proxy = Proxy::start(&cluster, &Options::default()).await;
    let mut raw = Raw::tcp(proxy.port()).await.unwrap();
    assert_eq!(raw.greeting.charset, 45);
    // Who asks for nothing that the server knows gets its default.
    raw.collation = 0;
    raw.login("app", "app", None, capability::USUAL)
        .await
        .unwrap();
    let row = raw.rows(CHARACTER_SETS).await.unwrap().remove(0);
    assert_eq!(row[2].as_deref(), Some("utf8mb4_uca1400_ai_ci"));
}

async fn app_logs_in_over_tcp_and_socket(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    assert_eq!(
        attempt(rig.proxy.port(), "app", "app", None).await.unwrap(),
        "app@%"
    );
    // Again: now from what was remembered.
    assert_eq!(
        attempt(rig.proxy.port(), "app", "app", None).await.unwrap(),
        "app@%"
    );
    let mut raw = Raw::unix(&rig.proxy.socket()).await.unwrap();
    raw.login("app", "app", None, capability::USUAL)
        .await
        .unwrap();
    assert_eq!(
        raw.rows("SELECT CURRENT_USER()").await.unwrap()[0][0].as_deref(),
        Some("app@%")
    );
    let socket = rig.proxy.socket().to_str().map(str::to_owned);
    let options = OptsBuilder::default()
        .socket(socket)
        .user(Some("app"))
        .pass(Some("app"));
    let mut conn = Conn::new(options).await.unwrap();
    assert_eq!(
        one::<String>(&mut conn, "SELECT CURRENT_USER()").await,
        "app@%"
    );
    let mut conn = Conn::new(login(rig.proxy.port(), "app", "app"))
        .await
        .unwrap();
    assert_eq!(
        one::<String>(&mut conn, "SELECT CURRENT_USER()").await,
        "app@%"
    );
}

async fn a_password_may_be_empty(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.cluster
        .primary()
        .run("CREATE USER nopassword@'%' IDENTIFIED BY ''")
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    eventually("the account to be known", async || {
        attempt(rig.proxy.port(), "nopassword", "", None)
            .await
            .is_ok()
    })
    .await;
    let refused = attempt(rig.proxy.port(), "nopassword", "something", None)
        .await
        .unwrap_err();
    assert_eq!(refused.code, 1045);
}

async fn errors_are_the_servers(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.cluster
        .primary()
        .run(
            "CREATE USER elsewhere@'10.9.8.7' IDENTIFIED BY 'x'; \
             CREATE USER noschemas@'%' IDENTIFIED BY 'noschemas'; CREATE DATABASE IF NOT EXISTS login_forbidden",
        )
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
    eventually("the account to be known", async || {
        attempt(rig.proxy.port(), "noschemas", "noschemas", None)
            .await
            .is_ok()
    })
    .await;
    for (user, password, schema) in [
        ("app", "wrong", None),
        ("app", "", None),
        ("nobody", "x", None),
        ("nobody", "", None),
        ("elsewhere", "x", None),
        ("app", "app", Some("no_such_schema")),
        ("noschemas", "noschemas", Some("login_forbidden")),
    ] {
        // A server without skip_name_resolve says localhost, and so does the proxy.
        let by_name = |refused: Refused| Refused {
            message: refused.message.replace("127.0.0.1", "localhost"),
            ..refused
        };
        let direct = attempt(rig.cluster.primary().port(), user, password, schema)
            .await
            .unwrap_err();
        let through = attempt(rig.proxy.port(), user, password, schema)
            .await
            .unwrap_err();
        assert_eq!(
            by_name(through),
            by_name(direct),
            "{user} {password} {schema:?}"
        );
    }
    // An attempt that failed spoils nothing for the next.
    assert!(attempt(rig.proxy.port(), "app", "app", None).await.is_ok());
}

async fn a_switch_of_method_is_asked_for(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let other = match flavor {
        Flavor::MariaDb => "caching_sha2_password",
        Flavor::MySql => "mysql_native_password",
    };
    let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
    raw.greeting.plugin = other.to_owned();
    raw.login("app", "app", None, capability::USUAL)
        .await
        .unwrap();
    assert_eq!(
        raw.rows("SELECT CURRENT_USER()").await.unwrap()[0][0].as_deref(),
        Some("app@%")
    );
    let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
    raw.greeting.plugin = other.to_owned();
    assert_eq!(
        raw.login("app", "wrong", None, capability::USUAL)
            .await
            .unwrap_err()
            .code,
        1045
    );
}

async fn the_schema_of_the_handshake_counts(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut conn = Conn::new(login(rig.proxy.port(), "app", "app").db_name(Some("test")))
        .await
        .unwrap();
    assert_eq!(one::<String>(&mut conn, "SELECT DATABASE()").await, "test");
    let name: String = one(&mut conn, "SELECT name FROM where_am_i").await;
    assert!(name.starts_with("db"), "{name}");
}

async fn a_password_may_stand_in_the_configuration(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let sections = "[users.app]\npassword = \"app\"\n".to_owned();
    let proxy = Proxy::start(
        &rig.cluster,
        &Options {
            sections,
            ..Options::default()
        },
    )
    .await;
    assert_eq!(
        attempt(proxy.port(), "app", "app", None).await.unwrap(),
        "app@%"
    );
    assert_eq!(
        attempt(proxy.port(), "app", "wrong", None)
            .await
            .unwrap_err()
            .code,
        1045
    );
    assert_eq!(
        attempt(proxy.port(), "dbproxy", "wrong", None)
            .await
            .unwrap_err()
            .code,
        1045
    );
}

async fn a_changed_password_counts(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.account("changing").await;
    let port = rig.proxy.port();
    let before = attempt(port, "changing", "changing", None).await;
    assert_eq!(before.unwrap(), "changing@%");
    rig.cluster
        .primary()
        .run("ALTER USER changing@'%' IDENTIFIED BY 'changed'")
        .await
        .unwrap();
    eventually("the new password to count", async || {
        attempt(port, "changing", "changed", None).await.is_ok()
    })
    .await;
    eventually("the old password to be refused", async || {
        attempt(port, "changing", "changing", None)
            .await
            .is_err_and(|refused| refused.code == 1045)
    })
    .await;
}

async fn a_new_account_counts_at_once(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let run = async |sql: String| rig.cluster.primary().run(&sql).await.unwrap();
    // The first attempt is let in unless the machine is too slow to read the accounts in the meantime.
    let (mut new, mut changed) = (0, 0);
    for round in 0..4 {
        let name = format!("newcomer{round}");
        run(format!("CREATE USER {name}@'%' IDENTIFIED BY 'first'")).await;
        new += i32::from(
            attempt(rig.proxy.port(), &name, "first", None)
                .await
                .is_ok(),
        );
        eventually("the account to be known", async || {
            attempt(rig.proxy.port(), &name, "first", None)
                .await
                .is_ok()
        })
        .await;
        run(format!("ALTER USER {name}@'%' IDENTIFIED BY 'second'")).await;
        changed += i32::from(
            attempt(rig.proxy.port(), &name, "second", None)
                .await
                .is_ok(),
        );
        for password in ["third", ""] {
            let refused = attempt(rig.proxy.port(), &name, password, None).await;
            assert_eq!(refused.unwrap_err().code, 1045);
        }
    }
    assert!(new > 0 && changed > 0, "{new} new, {changed} changed");
}

async fn a_dropped_account_is_refused(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.account("leaving").await;
    rig.cluster
        .primary()
        .run("DROP USER leaving@'%'")
        .await
        .unwrap();
    eventually("the account to be gone", async || {
        attempt(rig.proxy.port(), "leaving", "leaving", None)
            .await
            .is_err_and(|refused| refused.code == 1045)
    })
    .await;
}

async fn no_server_is_said_clearly(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let sections = "[limits]\nhold = \"1s\"\n".to_owned();
    let options = Options {
        sections,
        ..Options::default()
    };
    let proxy = Proxy::start(&cluster, &options).await;
    cluster.primary().kill9();
    let mut refused = None;
    eventually("the login to be refused", async || {
        refused = attempt(proxy.port(), "app", "app", None).await.err();
        refused.is_some()
    })
    .await;
    let refused = refused.unwrap();
    assert!(
        refused.message.to_lowercase().contains("connect"),
        "{refused:?}"
    );
    // The proxy that never saw a server says it as well.
    let blind = Proxy::spawn(&addresses(&cluster), &options);
    eventually("the proxy to listen", async || {
        blind.must_run();
        TcpStream::connect((Ipv4Addr::LOCALHOST, blind.port()))
            .await
            .is_ok()
    })
    .await;
    let refused = attempt(blind.port(), "app", "app", None).await.unwrap_err();
    assert!(
        refused.message.to_lowercase().contains("connect"),
        "{refused:?}"
    );
    cluster.primary().restart().await.unwrap();
    eventually("a login after the server came back", async || {
        attempt(proxy.port(), "app", "app", None).await.is_ok()
            && attempt(blind.port(), "app", "app", None).await.is_ok()
    })
    .await;
}

async fn the_user_can_be_changed(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.account("second").await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    raw.rows("SET @mine = 1, time_zone = '+05:00'")
        .await
        .unwrap();
    raw.change_user("second", "second", "test").await.unwrap();
    let sql = "SELECT CURRENT_USER(), DATABASE(), @mine, @@time_zone = @@global.time_zone";
    let row = raw.rows(sql).await.unwrap().remove(0);
    let row: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
    assert_eq!(row, [Some("second@%"), Some("test"), None, Some("1")]);
    let refused = raw.change_user("app", "wrong", "").await.unwrap_err();
    assert_eq!((refused.code, refused.state.as_str()), (1045, "28000"));

    let mut conn = rig.connect().await;
    let options = ChangeUserOpts::default()
        .with_user(Some("second".into()))
        .with_pass(Some("second".into()));
    conn.change_user(options).await.unwrap();
    assert_eq!(
        one::<String>(&mut conn, "SELECT CURRENT_USER()").await,
        "second@%"
    );
}

async fn there_is_a_limit_of_connections(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let sections = "[limits]\nconnections = 3\n".to_owned();
    let proxy = Proxy::start(
        &rig.cluster,
        &Options {
            sections,
            ..Options::default()
        },
    )
    .await;
    let mut held = Vec::new();
    eventually("three connections", async || {
        if let Ok(conn) = Conn::new(login(proxy.port(), "app", "app")).await {
            held.push(conn);
        }
        held.len() == 3
    })
    .await;
    assert_eq!(
        attempt(proxy.port(), "app", "app", None)
            .await
            .unwrap_err()
            .code,
        1040
    );
    held.pop();
    eventually("a place for the next", async || {
        attempt(proxy.port(), "app", "app", None).await.is_ok()
    })
    .await;
}

async fn a_host_without_accounts_is_refused(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    for account in ["app", "dbproxy", "repl"] {
        cluster
            .primary()
            .run(&format!(
                "RENAME USER {account}@'%' TO {account}@'127.0.0.1'"
            ))
            .await
            .unwrap();
    }
    cluster.primary().run("FLUSH PRIVILEGES").await.unwrap();
    let proxy = Proxy::start(&cluster, &Options::default()).await;
    assert_eq!(
        attempt(proxy.port(), "app", "app", None).await.unwrap(),
        "app@127.0.0.1"
    );
    let from_elsewhere = async |port: u16| -> Refused {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 0))
            .unwrap();
        let stream = socket
            .connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .await
            .unwrap();
        match Raw::over(stream).await {
            Err(refused) => refused,
            Ok(mut raw) => raw
                .login("app", "app", None, capability::USUAL)
                .await
                .unwrap_err(),
        }
    };
    let direct = from_elsewhere(cluster.primary().port()).await;
    let through = from_elsewhere(proxy.port()).await;
    assert_eq!((direct.code, through.code), (1130, 1130));
    assert_eq!(through.message, direct.message);
}

async fn rubbish_is_refused(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for rubbish in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0, 0, 0, 1],
        &[1, 0, 0, 1, 0],
        &[1, 0, 0, 9, 0],
    ] {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, rig.proxy.port()))
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, rubbish)
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut stream)
            .await
            .unwrap();
        let mut heard = Vec::new();
        // The end comes as an orderly close or as a reset; both are an end.
        let ended = within(support::SOON, async || {
            !matches!(stream.read_buf(&mut heard).await, Ok(1..))
        })
        .await;
        assert!(ended, "{rubbish:?}");
    }
    rig.proxy.must_run();
    assert!(attempt(rig.proxy.port(), "app", "app", None).await.is_ok());
}

async fn the_client_may_leave_at_any_time(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for _ in 0..20 {
        drop(
            TcpStream::connect((Ipv4Addr::LOCALHOST, rig.proxy.port()))
                .await
                .unwrap(),
        );
        drop(Raw::tcp(rig.proxy.port()).await.unwrap());
    }
    rig.proxy.must_run();
    let mut conn = rig.connect().await;
    conn.query_drop("SELECT 1").await.unwrap();
    assert_eq!(
        code(
            &Conn::new(login(rig.proxy.port(), "app", "no"))
                .await
                .unwrap_err()
        ),
        1045
    );
}
