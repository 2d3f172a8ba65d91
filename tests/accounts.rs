//! Every kind of account, and what becomes of a login when an account changes: the same as at the servers themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use dbproxy::cli::demo::cluster::{APPLICATION_PRIVILEGES, Cluster, Flavor};
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout};

use support::raw::{Raw, Refused, capability};
use support::relay::{Fault, Relay};
use support::{Options, Proxy, Rig, eventually};

on_both_flavors!(
    every_kind_of_account_logs_in,
    the_servers_own_client_logs_in,
    wrong_logins_hear_what_the_server_says,
    an_expired_password_can_be_changed,
    wrong_passwords_are_counted_by_the_server,
    an_account_that_the_proxy_itself_cannot_use_is_told_of,
    nobody_is_taken_for_the_proxys_own_process,
    the_user_changes_to_every_kind_of_account,
    a_change_of_user_that_fails_ends_as_on_the_server,
    changes_count_without_a_restart,
    changes_by_sessions_count_at_once,
    logins_wait_for_changes_of_accounts_and_nothing_else,
    roles_and_hosts_are_the_servers,
    nothing_secret_is_logged,
);

/// Where a client connects.
#[derive(Debug, Clone, Copy)]
enum Way {
    Tcp,
    Unix,
}

/// Which side it connects to.
#[derive(Debug, Clone, Copy)]
enum Side {
    Direct,
    Proxied,
}

async fn connect(rig: &Rig, side: Side, way: Way) -> Raw {
    let raw = match (side, way) {
        (Side::Direct, Way::Tcp) => Raw::tcp(rig.cluster.primary().port()).await,
        (Side::Direct, Way::Unix) => Raw::unix(&rig.cluster.primary().socket()).await,
        (Side::Proxied, Way::Tcp) => Raw::tcp(rig.proxy.port()).await,
        (Side::Proxied, Way::Unix) => Raw::unix(&rig.proxy.socket()).await,
    };
    raw.unwrap()
}

/// Logs in, beginning with `plugin`: the current user, or the refusal.
async fn attempt(
    rig: &Rig,
    side: Side,
    way: Way,
    plugin: &str,
    (user, password): (&str, &str),
) -> Result<String, Refused> {
    let mut raw = connect(rig, side, way).await;
    if !plugin.is_empty() {
        raw.greeting.plugin = plugin.to_owned();
    }
    raw.login(user, password, None, capability::USUAL).await?;
    current_user(&mut raw).await
}

async fn current_user(raw: &mut Raw) -> Result<String, Refused> {
    let rows = raw.rows("SELECT CURRENT_USER()").await?;
    Ok(rows[0][0].clone().unwrap())
}

/// Makes accounts on the primary and waits until the proxy has read them.
async fn create(rig: &Rig, accounts: &[(&str, &str)]) {
    for (name, how) in accounts {
        let sql = format!(
            "CREATE USER {name}@'%' {how}; GRANT {APPLICATION_PRIVILEGES} ON *.* TO {name}@'%'"
        );
        rig.cluster.primary().run(&sql).await.unwrap();
    }
    rig.cluster.caught_up().await.unwrap();
    known(rig).await;
}

/// Waits until the proxy has read all accounts that there are.
async fn known(rig: &Rig) {
    static MARKS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let mark = MARKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let sql = format!("CREATE USER mark{mark}@'%' IDENTIFIED BY 'mark'");
    rig.cluster.primary().run(&sql).await.unwrap();
    let user = format!("mark{mark}");
    eventually("the accounts to be read", async || {
        let who = (user.as_str(), "mark");
        attempt(rig, Side::Proxied, Way::Tcp, "", who).await.is_ok()
    })
    .await;
}

/// Once per test run and flavour: a plugin cannot be installed twice.
async fn plugins(rig: &Rig, flavor: Flavor) {
    if flavor == Flavor::MariaDb {
        for server in rig.cluster.servers() {
            let _ = server.run("INSTALL SONAME 'auth_ed25519'").await;
        }
    }
}

/// Accounts of every kind, with the passwords that let in, each under a prefix of the test's own.
async fn kinds(rig: &Rig, flavor: Flavor, prefix: &str) -> Vec<(String, Vec<&'static str>)> {
    plugins(rig, flavor).await;
    let long = "a password that is longer than any digest made of it, and has a \u{e4}";
    let long_sql = format!("IDENTIFIED BY '{long}'");
    let kinds: Vec<(&str, &str, Vec<&str>)> = match flavor {
        Flavor::MySql => vec![
            (
                "sha2",
                "IDENTIFIED WITH caching_sha2_password BY 'one'",
                vec!["one"],
            ),
            (
                "sha256",
                "IDENTIFIED WITH sha256_password BY 'one'",
                vec!["one"],
            ),
            ("long", &long_sql, vec![long]),
            ("empty", "IDENTIFIED BY ''", vec![""]),
            (
                "empty256",
                "IDENTIFIED WITH sha256_password BY ''",
                vec![""],
            ),
            ("dual", "IDENTIFIED BY 'one'", vec!["one", "two"]),
        ],
        Flavor::MariaDb => vec![
            ("native", "IDENTIFIED BY 'one'", vec!["one"]),
            ("long", &long_sql, vec![long]),
            ("empty", "IDENTIFIED BY ''", vec![""]),
            (
                "ed25519",
                "IDENTIFIED VIA ed25519 USING PASSWORD('one')",
                vec!["one"],
            ),
            (
                "both",
                "IDENTIFIED VIA ed25519 USING PASSWORD('one') OR mysql_native_password USING PASSWORD('two')",
                vec!["one", "two"],
            ),
            (
                "reverse",
                "IDENTIFIED VIA mysql_native_password USING PASSWORD('one') OR ed25519 USING PASSWORD('two')",
                vec!["one", "two"],
            ),
            (
                "socket",
                "IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD('one')",
                vec!["one"],
            ),
        ],
    };
    let names: Vec<_> = kinds
        .iter()
        .map(|(name, how, _)| (format!("{prefix}_{name}"), *how))
        .collect();
    let accounts: Vec<_> = names
        .iter()
        .map(|(name, how)| (name.as_str(), *how))
        .collect();
    create(rig, &accounts).await;
    if flavor == Flavor::MySql {
        let sql =
            format!("ALTER USER {prefix}_dual@'%' IDENTIFIED BY 'two' RETAIN CURRENT PASSWORD");
        rig.cluster.primary().run(&sql).await.unwrap();
        rig.cluster.caught_up().await.unwrap();
        known(rig).await;
    }
    let passwords = kinds.into_iter().map(|(_, _, passwords)| passwords);
    names
        .into_iter()
        .map(|(name, _)| name)
        .zip(passwords)
        .collect()
}

const PLUGINS: [&str; 5] = [
    "mysql_native_password",
    "caching_sha2_password",
    "sha256_password",
    "mysql_clear_password",
    "nobody_knows_this",
];

async fn every_kind_of_account_logs_in(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for (user, passwords) in kinds(rig, flavor, "kind").await {
        for password in passwords.iter().copied() {
            for way in [Way::Tcp, Way::Unix] {
                for plugin in PLUGINS {
                    let found = attempt(rig, Side::Proxied, way, plugin, (&user, password)).await;
                    assert_eq!(
                        found,
                        Ok(format!("{user}@%")),
                        "{user} {password} {way:?} {plugin}"
                    );
                }
            }
            // On every server: reads are spread.
            let mut raw = connect(rig, Side::Proxied, Way::Tcp).await;
            raw.login(&user, password, None, capability::USUAL)
                .await
                .unwrap();
            for _ in 0..6 {
                raw.rows(support::WHERE).await.unwrap();
            }
        }
        for wrong in ["wrong", "", "one\0"] {
            if passwords.contains(&wrong) {
                continue;
            }
            for way in [Way::Tcp, Way::Unix] {
                let found = attempt(rig, Side::Proxied, way, "", (&user, wrong)).await;
                let code = found.unwrap_err().code;
                assert!(
                    matches!(code, 1045 | 1698),
                    "{code} {user} {wrong:?} {way:?}"
                );
            }
        }
    }
}

/// With all the libraries' own habits, on either way.
async fn the_servers_own_client_logs_in(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let (program, option) = match flavor {
        Flavor::MySql => ("mysql", "--get-server-public-key"),
        Flavor::MariaDb => ("mariadb", "--skip-ssl"),
    };
    let (port, socket) = (rig.proxy.port().to_string(), rig.proxy.socket());
    for (user, passwords) in kinds(rig, flavor, "client").await {
        let ways = [
            vec!["--protocol=TCP", "--host=127.0.0.1", "--port", &port],
            vec!["--socket", socket.to_str().unwrap()],
        ];
        for way in ways {
            for password in &passwords {
                let mut command: tokio::process::Command =
                    rig.cluster.client(program).unwrap().into();
                command.args(&way).arg(option);
                command.args(["--skip-column-names", "--user", &user]);
                command.arg(format!("--password={password}"));
                command.args(["--execute", "SELECT CURRENT_USER()"]);
                let printed = support::output(command).await;
                assert!(
                    printed.contains(&format!("{user}@%")),
                    "{user} {way:?}: {printed}"
                );
            }
        }
    }
}

async fn wrong_logins_hear_what_the_server_says(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut logins = Vec::new();
    for (user, passwords) in kinds(rig, flavor, "wrong").await {
        for password in ["wrong", ""] {
            if !passwords.contains(&password) {
                logins.push((user.clone(), password));
            }
        }
    }
    create(
        rig,
        &[
            ("wrong_locked", "IDENTIFIED BY 'one' ACCOUNT LOCK"),
            ("wrong_expired", "IDENTIFIED BY 'one' PASSWORD EXPIRE"),
        ],
    )
    .await;
    for user in ["wrong_locked", "wrong_expired", "wrong_nobody"] {
        for password in ["one", "wrong", ""] {
            logins.push((user.to_owned(), password));
        }
    }
    for (user, password) in logins {
        for way in [Way::Tcp, Way::Unix] {
            let [direct, proxied] = [Side::Direct, Side::Proxied]
                .map(|side| attempt(rig, side, way, "", (&user, password)));
            let (direct, proxied) = (direct.await, proxied.await);
            // For a user that there is not MariaDB speaks as for one of those that there are, whichever.
            let decoyed = |refused: &Refused| matches!(refused.code, 1045 | 1698);
            if user == "wrong_nobody" && direct.as_ref().is_err_and(decoyed) {
                assert!(proxied.is_err_and(|refused| decoyed(&refused)));
                continue;
            }
            assert!(direct.is_err());
            assert_eq!(proxied, direct, "{user} {password:?} {way:?}");
        }
    }
}

/// Statements of a session whose password has expired, and what becomes of them.
async fn expired(rig: &Rig, side: Side, user: &str, capabilities: u32) -> Vec<String> {
    let mut raw = connect(rig, side, Way::Tcp).await;
    let mut heard = Vec::new();
    if let Err(refused) = raw.login(user, "one", Some("test"), capabilities).await {
        return vec![format!("{refused:?}")];
    }
    let change = match rig.cluster.flavor() {
        Flavor::MySql => format!("ALTER USER {user}@'%' IDENTIFIED BY 'two'"),
        Flavor::MariaDb => "SET PASSWORD = PASSWORD('two')".to_owned(),
    };
    for sql in [
        "SELECT 1",
        support::WHERE,
        "SELECT name FROM where_am_i",
        "BEGIN",
        "INSERT INTO test.where_am_i VALUES ('never')",
        &change,
        "SELECT CURRENT_USER(), DATABASE()",
        "SET NAMES latin2",
        "SELECT @@character_set_client",
    ] {
        heard.push(format!("{:?}", raw.rows(sql).await));
    }
    heard
}

async fn an_expired_password_can_be_changed(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let usual = capability::USUAL;
    let handles = usual | capability::CAN_HANDLE_EXPIRED_PASSWORDS;
    for (number, capabilities) in [(1, usual), (2, handles)] {
        let mut answers = Vec::new();
        for side in [Side::Direct, Side::Proxied] {
            let user = format!("expired{number}{side:?}");
            create(rig, &[(&user, "IDENTIFIED BY 'one' PASSWORD EXPIRE")]).await;
            let heard = expired(rig, side, &user, capabilities).await;
            answers.push(heard.join("\n").replace(&user, "USER"));
            if heard.len() > 1 {
                eventually("the new password to count", async || {
                    let found = attempt(rig, side, Way::Tcp, "", (&user, "two")).await;
                    found == Ok(format!("{user}@%"))
                })
                .await;
            }
        }
        assert_eq!(answers[1], answers[0]);
    }
}

async fn wrong_passwords_are_counted_by_the_server(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let sql = match flavor {
        Flavor::MySql => {
            "CREATE USER counted1@'%' IDENTIFIED BY 'one' FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME 2; \
             CREATE USER counted2@'%' IDENTIFIED BY 'one' FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME 2"
        }
        Flavor::MariaDb => {
            "SET GLOBAL max_password_errors = 3; CREATE USER counted1@'%' IDENTIFIED BY 'one'; \
             CREATE USER counted2@'%' IDENTIFIED BY 'one'; \
             CREATE USER counted3@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('one') OR unix_socket; \
             CREATE USER counted4@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('one') OR unix_socket"
        }
    };
    cluster.primary().run(sql).await.unwrap();
    let pairs: &[_] = match flavor {
        Flavor::MySql => &[("counted1", "counted2")],
        Flavor::MariaDb => &[("counted1", "counted2"), ("counted3", "counted4")],
    };
    counted(cluster, pairs).await;
    if flavor == Flavor::MariaDb {
        // By monitors that may not read mysql.global_priv as well.
        let cluster = Cluster::start(flavor, 0).await.unwrap();
        cluster.primary().run(sql).await.unwrap();
        let sql =
            "REVOKE SELECT ON *.* FROM dbproxy@'%'; GRANT SELECT ON mysql.user TO dbproxy@'%'";
        cluster.primary().run(sql).await.unwrap();
        counted(cluster, &pairs[..1]).await;
    }
}

async fn counted(cluster: Cluster, pairs: &[(&str, &str)]) {
    let proxy = Proxy::start(&cluster, &Options::default()).await;
    let rig = Rig { cluster, proxy };
    known(&rig).await;
    for &(at_server, at_proxy) in pairs {
        for password in ["one", "no", "no", "one", "no", "no", "no", "no", "one"] {
            let direct = attempt(&rig, Side::Direct, Way::Tcp, "", (at_server, password)).await;
            let before = denials(&rig).await;
            let proxied = attempt(&rig, Side::Proxied, Way::Tcp, "", (at_proxy, password)).await;
            let wrong = matches!(&proxied, Err(refused) if refused.code != 4150);
            if wrong && rig.cluster.flavor() == Flavor::MariaDb {
                assert!(
                    denials(&rig).await > before,
                    "{at_proxy}: the server was not asked"
                );
            }
            let same = |text: String| text.replace(at_proxy, at_server);
            let proxied = proxied.map(same).map_err(|refused| Refused {
                message: same(refused.message),
                ..refused
            });
            assert_eq!(proxied, direct, "{at_server} {password}");
        }
    }
}

/// How many logins the server has denied, if it tells.
async fn denials(rig: &Rig) -> u64 {
    let sql = "SHOW GLOBAL STATUS LIKE 'Access_denied_errors'";
    let row: Option<(String, u64)> = rig.cluster.primary().rows(sql).await.unwrap().pop();
    row.map_or(0, |(_, count)| count)
}

/// A server asked about a password says the same whether that is wrong or the proxy's address is none of the account's.
async fn an_account_that_the_proxy_itself_cannot_use_is_told_of(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let (before, counts) = match flavor {
        Flavor::MySql => ("", "FAILED_LOGIN_ATTEMPTS 100 PASSWORD_LOCK_TIME 1"),
        Flavor::MariaDb => ("SET GLOBAL max_password_errors = 100;", ""),
    };
    let sql = format!(
        "{before} CREATE USER far@'127.0.2.%' IDENTIFIED BY 'there' {counts}; \
         CREATE USER near@'127.0.2.%' IDENTIFIED BY 'there' {counts}; \
         CREATE USER near@'127.0.0.1' IDENTIFIED BY 'here' {counts}; \
         CREATE USER any@'%' IDENTIFIED BY 'there' {counts}"
    );
    cluster.primary().run(&sql).await.unwrap();
    let proxy = Proxy::start(&cluster, &Options::default()).await;
    let rig = Rig { cluster, proxy };
    known(&rig).await;
    let far = Ipv4Addr::new(127, 0, 2, 9);
    for (user, password) in [
        ("far", "there"),
        ("far", "wrong"),
        ("near", "there"),
        // Right for the account that the server uses, which is not the client's.
        ("near", "here"),
        ("near", "wrong"),
        ("any", "wrong"),
        ("nobody", "there"),
    ] {
        let mut raw = from(far, rig.proxy.port()).await.unwrap();
        let refused = raw.login(user, password, None, capability::USUAL).await;
        let refused = refused.unwrap_err();
        let said = format!("Access denied for user '{user}'@'127.0.2.9' (using password: YES)");
        assert_eq!((refused.code, refused.message), (1045, said), "{password}");
    }
    let log = rig.proxy.log();
    let complains = |account: &str| {
        let mut lines = log.lines();
        lines.any(|line| line.contains("cluster.proxy_protocol") && line.contains(account))
    };
    assert!(complains("'far'@'127.0.2.%'") && complains("'near'@'127.0.2.%'"));
    assert!(!complains("any") && !complains("nobody"));
    let mut raw = from(far, rig.proxy.port()).await.unwrap();
    raw.login("any", "there", None, capability::USUAL)
        .await
        .unwrap();
}

/// At a unix socket a server asks the system who is at the other end, and that is the proxy.
async fn nobody_is_taken_for_the_proxys_own_process(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let whoami = tokio::process::Command::new("id").arg("-un").output().await;
    let own = String::from_utf8(whoami.unwrap().stdout).unwrap();
    let own = own.trim();
    let sql = match flavor {
        Flavor::MySql => format!(
            "INSTALL PLUGIN auth_socket SONAME 'auth_socket.so'; CREATE USER {own}@'127.0.2.%' IDENTIFIED BY 'two'; \
             CREATE USER IF NOT EXISTS {own}@localhost; ALTER USER {own}@localhost IDENTIFIED WITH auth_socket"
        ),
        Flavor::MariaDb => format!(
            "CREATE USER IF NOT EXISTS {own}@localhost; CREATE USER {own}@'127.0.2.%' IDENTIFIED BY 'two'; \
             ALTER USER {own}@localhost IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD('one')"
        ),
    };
    let primary = cluster.primary();
    primary.run(&sql).await.unwrap();
    // A process of this user needs no password at the server itself.
    let mut direct = Raw::unix(&primary.socket()).await.unwrap();
    let entered = direct.login(own, "wrong", None, capability::USUAL).await;
    assert_eq!(entered, Ok(()));

    for counting in [false, true] {
        if counting {
            let sql = match flavor {
                Flavor::MySql => format!(
                    "ALTER USER {own}@'127.0.2.%' FAILED_LOGIN_ATTEMPTS 100 PASSWORD_LOCK_TIME 1"
                ),
                Flavor::MariaDb => "SET GLOBAL max_password_errors = 100".to_owned(),
            };
            cluster.primary().run(&sql).await.unwrap();
        }
        let socket = cluster.primary().socket();
        let options = Options {
            servers: Some(vec![format!("db1=unix:{}", socket.display())]),
            ..Options::default()
        };
        let proxy = Proxy::start(&cluster, &options).await;
        for password in ["wrong", "", "one"] {
            let mut raw = Raw::unix(&proxy.socket()).await.unwrap();
            let entered = raw.login(own, password, None, capability::USUAL).await;
            let right = password == "one" && flavor == Flavor::MariaDb;
            assert_eq!(entered.is_ok(), right, "{counting} {password} {entered:?}");
        }
        // From elsewhere it is another account, and only the server takes the proxy's process for this one.
        for password in ["wrong", "", "one"] {
            let mut raw = from(Ipv4Addr::new(127, 0, 2, 9), proxy.port())
                .await
                .unwrap();
            let entered = raw.login(own, password, None, capability::USUAL).await;
            let code = entered.map_err(|refused| refused.code);
            assert_eq!(code, Err(1045), "{counting} {password}");
        }
    }
}

async fn the_user_changes_to_every_kind_of_account(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut raw = Raw::app(rig.proxy.port()).await;
    let mut keeping = Raw::app(rig.proxy.port()).await;
    keeping.keeps_scramble = true;
    for (user, passwords) in kinds(rig, flavor, "change").await {
        for password in passwords.iter().copied().cycle().take(4) {
            keeping.change_user(&user, password, "test").await.unwrap();
            keeping.change_user("app", "app", "test").await.unwrap();
        }
        for password in passwords {
            for (plugin, when_asked) in PLUGINS.into_iter().flat_map(|p| [(p, false), (p, true)]) {
                raw.greeting.plugin = plugin.to_owned();
                raw.rows("SET @mine = 1, SESSION sort_buffer_size = 65536")
                    .await
                    .unwrap();
                if when_asked {
                    let changed = raw.change_user_when_asked(&user, password, "test").await;
                    changed.unwrap();
                } else {
                    raw.change_user(&user, password, "test").await.unwrap();
                }
                let sql = "SELECT CURRENT_USER(), DATABASE(), @mine, \
                           @@sort_buffer_size = @@global.sort_buffer_size";
                let row = raw.rows(sql).await.unwrap().remove(0);
                let row: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
                let who = format!("{user}@%");
                assert_eq!(
                    row,
                    [Some(who.as_str()), Some("test"), None, Some("1")],
                    "{plugin}"
                );
            }
        }
    }
}

async fn a_change_of_user_that_fails_ends_as_on_the_server(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    create(rig, &[("fails_locked", "IDENTIFIED BY 'one' ACCOUNT LOCK")]).await;
    for (user, password, schema) in [
        ("app", "wrong", ""),
        ("fails_nobody", "x", ""),
        ("fails_locked", "one", ""),
        ("app", "app", "no_such_schema"),
    ] {
        let mut heard = Vec::new();
        for side in [Side::Direct, Side::Proxied] {
            let mut raw = connect(rig, side, Way::Tcp).await;
            raw.login("app", "app", None, capability::USUAL)
                .await
                .unwrap();
            let refused = raw.change_user(user, password, schema).await.unwrap_err();
            let mut after = [0; 64];
            let _ = raw.try_send(b"\x0e").await;
            let goes_on = matches!(raw.bytes(&mut after).await, Ok(1..));
            heard.push((refused, goes_on));
        }
        assert_eq!(heard[1], heard[0], "{user} {password} {schema}");
    }
}

async fn changes_count_without_a_restart(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    create(rig, &[("changes", "IDENTIFIED BY 'one'")]).await;
    let run = async |sql: &str| rig.cluster.primary().run(sql).await.unwrap();
    let enters = async |password: &str| {
        attempt(rig, Side::Proxied, Way::Tcp, "", ("changes", password)).await
    };
    let code = async |password: &str| {
        enters(password)
            .await
            .err()
            .map_or(0, |refused| refused.code)
    };
    assert!(enters("one").await.is_ok());
    let mut session = connect(rig, Side::Proxied, Way::Tcp).await;
    session
        .login("changes", "one", None, capability::USUAL)
        .await
        .unwrap();
    session.rows("SELECT 1").await.unwrap();

    run("ALTER USER changes@'%' IDENTIFIED BY 'two'").await;
    eventually("the old password to be refused", async || {
        code("one").await == 1045
    })
    .await;
    assert!(enters("two").await.is_ok());
    run("ALTER USER changes@'%' ACCOUNT LOCK").await;
    let locked = match flavor {
        Flavor::MySql => 3118,
        Flavor::MariaDb => 4151,
    };
    eventually("the lock to count", async || code("two").await == locked).await;
    run("ALTER USER changes@'%' ACCOUNT UNLOCK").await;
    eventually("the lock to be gone", async || code("two").await == 0).await;
    run("DROP USER changes@'%'").await;
    eventually("the account to be gone", async || code("two").await == 1045).await;
    // Sessions go on, as on the servers.
    session.rows("SELECT 1").await.unwrap();
}

async fn changes_by_sessions_count_at_once(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut session = connect(rig, Side::Proxied, Way::Tcp).await;
    session
        .login("app", "app", None, capability::USUAL)
        .await
        .unwrap();
    let set = match flavor {
        Flavor::MySql => "SET PASSWORD FOR at_once@'%' = 'three'",
        Flavor::MariaDb => "SET PASSWORD FOR at_once@'%' = PASSWORD('three')",
    };
    for _ in 0..3 {
        for (sql, right) in [
            ("CREATE USER at_once@'%' IDENTIFIED BY 'one'", "one"),
            ("ALTER USER at_once@'%' IDENTIFIED BY 'two'", "two"),
            (set, "three"),
            ("DROP USER at_once@'%'", ""),
        ] {
            session.rows(sql).await.unwrap();
            for password in ["one", "two", "three"] {
                let login = ("at_once", password);
                let entered = attempt(rig, Side::Proxied, Way::Tcp, "", login).await;
                assert_eq!(entered.is_ok(), password == right, "{sql}: {password}");
            }
        }
    }
}

/// The primary is slow to tell its accounts.
async fn logins_wait_for_changes_of_accounts_and_nothing_else(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let sql =
        "CREATE USER slow@'%' IDENTIFIED BY 'one'; CREATE USER powerless@'%' IDENTIFIED BY 'one'";
    cluster.primary().run(sql).await.unwrap();
    let relay = Relay::start(cluster.primary().port()).await;
    let options = Options {
        servers: Some(vec![format!("db1=127.0.0.1:{}", relay.port())]),
        // The relay has to read what the monitor asks.
        sections: "[tls.server]\nmode = \"disabled\"\n".to_owned(),
        ..Options::default()
    };
    let proxy = Proxy::start(&cluster, &options).await;
    let rig = Rig { cluster, proxy };
    known(&rig).await;
    let mut powerless = connect(&rig, Side::Proxied, Way::Tcp).await;
    let login = powerless.login("powerless", "one", None, capability::USUAL);
    login.await.unwrap();
    let mut powerful = Raw::app(rig.proxy.port()).await;
    relay.judge(|bytes| {
        let sql = String::from_utf8_lossy(bytes);
        let asks = sql.contains("AS priv FROM mysql.") || sql.contains("AS credential");
        if asks { Fault::Withhold } else { Fault::None }
    });

    powerless.rows("DROP USER slow@'%'").await.unwrap_err();
    powerful.command(0x16, b"DROP USER slow@'%'").await;
    assert_eq!(powerful.packet().await.unwrap()[0], 0);
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        let login = ("slow", "one");
        let entered = attempt(&rig, Side::Proxied, Way::Tcp, "", login).await;
        assert!(entered.is_ok(), "{entered:?}");
        quickest = quickest.min(began.elapsed());
    }
    assert!(quickest < Duration::from_millis(300), "{quickest:?}");

    powerful
        .rows("ALTER USER slow@'%' IDENTIFIED BY 'two'")
        .await
        .unwrap();
    let login = ("slow", "one");
    let mut entering = pin!(attempt(&rig, Side::Proxied, Way::Tcp, "", login));
    let early = timeout(Duration::from_millis(600), &mut entering).await;
    assert!(early.is_err(), "{early:?}");
    relay.release();
    assert_eq!(entering.await.unwrap_err().code, 1045);
}

/// A client that comes from this address, to the port.
async fn from(address: Ipv4Addr, port: u16) -> Result<Raw, Refused> {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::new(IpAddr::V4(address), 0))
        .unwrap();
    let stream = socket
        .connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .await
        .unwrap();
    Raw::over(stream).await
}

async fn roles_and_hosts_are_the_servers(flavor: Flavor) {
    let cluster = Cluster::start(flavor, 0).await.unwrap();
    let netmask = match flavor {
        Flavor::MySql => "127.0.3.0/24",
        Flavor::MariaDb => "127.0.3.0/255.255.255.0",
    };
    let default_role = match flavor {
        Flavor::MySql => "SET DEFAULT ROLE reader TO roled@'%'",
        Flavor::MariaDb => "SET DEFAULT ROLE reader FOR roled@'%'",
    };
    let sql = format!(
        "CREATE USER many@'127.0.0.1' IDENTIFIED BY 'here'; \
         CREATE USER many@'127.0.2.%' IDENTIFIED BY 'there'; \
         CREATE USER many@'{netmask}' IDENTIFIED BY 'net'; \
         CREATE USER ''@'127.0.4.%' IDENTIFIED BY 'anonymous'; \
         CREATE USER ''@'%' IDENTIFIED BY 'anonymous'; \
         CREATE ROLE reader; GRANT SELECT ON test.* TO reader; \
         CREATE USER roled@'%' IDENTIFIED BY 'roled'; GRANT reader TO roled@'%'; {default_role}"
    );
    cluster.primary().run(&sql).await.unwrap();
    let proxy = Proxy::start(&cluster, &Options::default()).await;
    let rig = Rig { cluster, proxy };
    known(&rig).await;
    let ports = [rig.cluster.primary().port(), rig.proxy.port()];

    // The account decides, and that the client's address.
    for (last, password) in [
        ([0, 1], "here"),
        ([0, 1], "there"),
        ([0, 1], "anonymous"),
        ([2, 9], "there"),
        ([2, 9], "here"),
        ([3, 9], "net"),
        ([3, 9], "here"),
        ([4, 9], "anonymous"),
        ([4, 9], "here"),
        ([5, 9], "here"),
    ] {
        let mut heard = Vec::new();
        for port in ports {
            let address = Ipv4Addr::new(127, 0, last[0], last[1]);
            let mut raw = from(address, port).await.unwrap();
            heard.push(raw.login("many", password, None, capability::USUAL).await);
        }
        assert_eq!(heard[1], heard[0], "{last:?} {password}");
    }

    for (user, password, sql) in [
        ("stranger", "anonymous", "SELECT CURRENT_USER(), USER()"),
        ("many", "here", "SELECT CURRENT_USER(), USER()"),
        ("roled", "roled", "SELECT CURRENT_ROLE(), CURRENT_USER()"),
        ("roled", "roled", support::WHERE),
    ] {
        let mut heard = Vec::new();
        for port in ports {
            let mut raw = Raw::tcp(port).await.unwrap();
            raw.login(user, password, None, capability::USUAL)
                .await
                .unwrap();
            let mut rows = vec![raw.rows(sql).await];
            raw.rows("SET ROLE NONE").await.unwrap();
            rows.push(raw.rows(sql).await);
            heard.push(rows);
        }
        assert_eq!(heard[1], heard[0], "{user} {sql}");
    }
}

async fn nothing_secret_is_logged(flavor: Flavor) {
    let shared = Rig::shared(flavor).await;
    let passwords = ["hush-hush-one", "hush-hush-two", "hush-hush-wrong"];
    let options = Options {
        sections: "[log]\nlevel = \"trace\"\n\n[users.hush_set]\npassword = \"hush-hush-one\"\n"
            .to_owned(),
        ..Options::default()
    };
    plugins(shared, flavor).await;
    let kinds: &[(&str, &str)] = match flavor {
        Flavor::MySql => &[
            ("hush_sha2", "IDENTIFIED BY 'hush-hush-one'"),
            (
                "hush_sha256",
                "IDENTIFIED WITH sha256_password BY 'hush-hush-one'",
            ),
            ("hush_set", "IDENTIFIED BY 'hush-hush-one'"),
        ],
        Flavor::MariaDb => &[
            ("hush_native", "IDENTIFIED BY 'hush-hush-one'"),
            (
                "hush_ed25519",
                "IDENTIFIED VIA ed25519 USING PASSWORD('hush-hush-one')",
            ),
            ("hush_set", "IDENTIFIED BY 'hush-hush-one'"),
        ],
    };
    create(shared, kinds).await;
    let proxy = Proxy::start(&shared.cluster, &options).await;
    for (user, _) in kinds {
        for plugin in PLUGINS {
            for password in passwords {
                for unix in [false, true] {
                    let mut raw = match unix {
                        true => Raw::unix(&proxy.socket()).await.unwrap(),
                        false => Raw::tcp(proxy.port()).await.unwrap(),
                    };
                    raw.greeting.plugin = plugin.to_owned();
                    if raw
                        .login(user, password, None, capability::USUAL)
                        .await
                        .is_ok()
                    {
                        raw.rows("SELECT 1").await.unwrap();
                        let _ = raw.change_user(user, passwords[1], "").await;
                    }
                }
            }
        }
    }
    let query = match flavor {
        Flavor::MySql => {
            "SELECT HEX(authentication_string) FROM mysql.user WHERE user LIKE 'hush%'"
        }
        Flavor::MariaDb => {
            "SELECT HEX(authentication_string) FROM mysql.user WHERE user LIKE 'hush%'"
        }
    };
    let hashes: Vec<String> = shared.cluster.primary().rows(query).await.unwrap();
    assert_eq!(hashes.len(), kinds.len());
    let log = proxy.log();
    assert!(
        log.contains("login failed"),
        "the log says something:\n{log}"
    );
    let mut secrets: Vec<Vec<u8>> = passwords
        .iter()
        .map(|word| word.as_bytes().to_vec())
        .collect();
    for hash in hashes {
        let pairs = (0..hash.len()).step_by(2);
        let bytes = pairs.map(|at| u8::from_str_radix(&hash[at..at + 2], 16).unwrap());
        secrets.push(bytes.collect());
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.unwrap().split_whitespace().skip(4).collect();
    assert_eq!(core[..2], ["0", "0"], "a crash leaves no memory behind");
    for secret in secrets {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{secret:?}");
        let list = list.trim_matches(['[', ']']);
        let text = String::from_utf8_lossy(&secret).into_owned();
        for form in [text.as_str(), &text[1..], &hex, &hex.to_uppercase(), list] {
            assert!(!log.contains(form), "the log has {form:?}");
        }
    }
}
