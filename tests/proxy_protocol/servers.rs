//! Servers that are told where clients are: they see that address, and choose the account by it.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::LazyLock;
use std::time::Duration;

use dbproxy::cli::demo::cluster::{Cluster, Flavor, PrivateDirectory};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::support::raw::{Raw, Refused, capability};
use crate::support::{Options, Proxy, eventually};
use crate::{behind, from, v1};

/// MariaDB with a replica, which take headers from the proxy's address and offer TLS.
async fn listed() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER
        .get_or_init(async || {
            let mut options = with_tls();
            options.push("--proxy-protocol-networks=127.0.0.1".to_owned());
            Cluster::start_with(Flavor::MariaDb, 1, &options)
                .await
                .unwrap()
        })
        .await
}

/// The options of a server that shows a certificate.
fn with_tls() -> Vec<String> {
    // It ends with the process, as the suite's servers do.
    static FILES: LazyLock<PrivateDirectory> = LazyLock::new(|| {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let directory = PrivateDirectory::create().unwrap();
        let write = |name, text| fs::write(directory.path().join(name), text).unwrap();
        write("cert.pem", made.cert.pem());
        write("key.pem", made.signing_key.serialize_pem());
        directory
    });
    let path = |name| FILES.path().join(name).display().to_string();
    vec![
        format!("--ssl-cert={}", path("cert.pem")),
        format!("--ssl-key={}", path("key.pem")),
    ]
}

/// A proxy that tells its servers of clients, and is told of them by the balancer.
fn options(sections: &str) -> Options {
    Options {
        listen: "proxy_protocol = [\"127.0.0.2\"]".to_owned(),
        cluster: "proxy_protocol = \"on\"".to_owned(),
        sections: sections.to_owned(),
        ..Options::default()
    }
}

async fn told(cluster: &Cluster, sections: &str) -> Proxy {
    Proxy::start(cluster, &options(sections)).await
}

/// A client at `address` that has logged in; its password is its name.
async fn client(proxy: &Proxy, address: &str, user: &str) -> Raw {
    try_client(proxy, address, user, user, None).await.unwrap()
}

async fn try_client(
    proxy: &Proxy,
    address: &str,
    user: &str,
    password: &str,
    schema: Option<&str>,
) -> Result<Raw, Refused> {
    let mut raw = behind(proxy.port(), &v1(address)).await?;
    raw.login(user, password, schema, capability::USUAL).await?;
    Ok(raw)
}

async fn cell(raw: &mut Raw, sql: &str) -> String {
    raw.rows(sql).await.unwrap()[0][0].clone().unwrap()
}

/// Makes accounts on the primary and waits until the first of them can log in from `address`.
async fn make(cluster: &Cluster, proxy: &Proxy, sql: &str, (address, user): (&str, &str)) {
    cluster.primary().run(sql).await.unwrap();
    cluster.caught_up().await.unwrap();
    eventually("the account to be known", async || {
        try_client(proxy, address, user, user, None).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn servers_see_the_clients_own_address() {
    let proxy = told(listed().await, "").await;
    proxy.knows_replicas(1).await;
    let asked = [
        "/* dbproxy: primary */ SELECT USER()",
        "SELECT USER() FROM test.where_am_i",
    ];
    for (source, seen) in [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::9", "2001:db8::9"),
        ("::ffff:192.0.2.8", "192.0.2.8"),
    ] {
        let mut raw = client(&proxy, source, "app").await;
        for sql in asked {
            assert_eq!(cell(&mut raw, sql).await, format!("app@{seen}"), "{sql}");
        }
        assert_eq!(cell(&mut raw, "SELECT CURRENT_USER()").await, "app@%");
        let threads = raw
            .rows("SELECT id, user, host FROM information_schema.processlist")
            .await
            .unwrap();
        let host = Some(seen.to_owned());
        assert!(
            threads.iter().any(|thread| thread[2] == host),
            "{threads:?}"
        );
        // The next login on the same connection is one of the same client.
        raw.change_user("app", "app", "test").await.unwrap();
        for sql in asked {
            assert_eq!(cell(&mut raw, sql).await, format!("app@{seen}"), "{sql}");
        }
    }
    // Without a balancer, and without an address.
    let stream = from(Ipv4Addr::new(127, 0, 0, 3), proxy.port()).await;
    let own = Raw::over(stream).await.unwrap();
    let local = Raw::unix(&proxy.socket()).await.unwrap();
    for (mut raw, seen) in [(own, "app@127.0.0.3"), (local, "app@127.0.0.1")] {
        raw.login("app", "app", None, capability::USUAL)
            .await
            .unwrap();
        for sql in asked {
            assert_eq!(cell(&mut raw, sql).await, seen, "{sql}");
        }
    }
}

#[tokio::test]
async fn servers_choose_the_account_by_it() {
    let cluster = listed().await;
    let proxy = told(cluster, "").await;
    let sql = "CREATE DATABASE twin_a; CREATE DATABASE twin_b; CREATE TABLE twin_a.t (a INT PRIMARY KEY); \
               CREATE USER twin@'192.0.2.1' IDENTIFIED BY 'twin'; GRANT SELECT, INSERT ON twin_a.* TO twin@'192.0.2.1'; \
               CREATE USER twin@'192.0.2.2' IDENTIFIED BY 'twin'; GRANT SELECT ON twin_b.* TO twin@'192.0.2.2'; \
               CREATE USER far@'198.51.100.1' IDENTIFIED BY 'far'";
    make(cluster, &proxy, sql, ("192.0.2.1", "twin")).await;
    let login = async |address, schema| {
        let raw = try_client(&proxy, address, "twin", "twin", Some(schema)).await;
        raw.map_err(|refused| refused.code)
    };
    let mut one = login("192.0.2.1", "twin_a").await.unwrap();
    let mut other = login("192.0.2.2", "twin_b").await.unwrap();
    let who = "SELECT CURRENT_USER()";
    assert_eq!(cell(&mut one, who).await, "twin@192.0.2.1");
    assert_eq!(cell(&mut other, who).await, "twin@192.0.2.2");
    one.rows("INSERT INTO twin_a.t VALUES (1)").await.unwrap();
    let refused = other
        .rows("INSERT INTO twin_a.t VALUES (2)")
        .await
        .unwrap_err();
    assert_eq!(refused.code, 1142);
    assert!(
        refused.message.contains("'twin'@'192.0.2.2'"),
        "{}",
        refused.message
    );
    // What one may use, the other may not.
    assert_eq!(login("192.0.2.1", "twin_b").await.err(), Some(1044));
    assert_eq!(login("192.0.2.2", "twin_a").await.err(), Some(1044));
    assert_eq!(login("192.0.3.1", "twin_a").await.err(), Some(1045));
    // The server would not let the proxy in by its own address.
    let mut far = client(&proxy, "198.51.100.1", "far").await;
    assert_eq!(cell(&mut far, who).await, "far@198.51.100.1");
}

#[tokio::test]
async fn servers_judge_passwords_for_that_address() {
    let options = [
        "--proxy-protocol-networks=127.0.0.1",
        "--max-password-errors=1000",
    ];
    let options = options.map(str::to_owned);
    let cluster = Cluster::start_with(Flavor::MariaDb, 0, &options)
        .await
        .unwrap();
    let proxy = told(&cluster, "").await;
    let sql = "CREATE USER judged@'192.0.2.1' IDENTIFIED BY 'judged'";
    make(&cluster, &proxy, sql, ("192.0.2.1", "judged")).await;
    let refused = try_client(&proxy, "192.0.2.1", "judged", "wrong", None).await;
    let refused = refused.err().unwrap();
    assert_eq!(refused.code, 1045);
    assert!(
        refused.message.contains("'judged'@'192.0.2.1'"),
        "{}",
        refused.message
    );
}

#[tokio::test]
async fn connections_are_shared_by_clients_of_one_address() {
    let cluster = listed().await;
    let told = told(cluster, "").await;
    let silent = Options {
        cluster: String::new(),
        ..options("")
    };
    let silent = Proxy::start(cluster, &silent).await;
    let sql = "CREATE USER sharer@'%' IDENTIFIED BY 'sharer'";
    make(cluster, &told, sql, ("192.0.2.200", "sharer")).await;
    make(cluster, &silent, "DO 0", ("192.0.2.200", "sharer")).await;
    let open = async || {
        let sql = "SELECT SUBSTRING_INDEX(host, ':', 1), COUNT(*) FROM information_schema.processlist \
                   WHERE user = 'sharer' GROUP BY 1 ORDER BY 1";
        let rows: Vec<(String, u32)> = cluster.primary().rows(sql).await.unwrap();
        rows
    };
    let use_it = async |proxy: &Proxy, address: &str| {
        let mut raw = client(proxy, address, "sharer").await;
        cell(&mut raw, "/* dbproxy: primary */ SELECT 1").await;
        raw.command(0x01, b"").await;
        // Until it is closed the session may still be there.
        assert!(raw.packet().await.is_err());
    };
    for address in [
        "192.0.2.1",
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.1",
        "192.0.2.2",
    ] {
        use_it(&told, address).await;
    }
    let one_each = [("192.0.2.1".to_owned(), 1), ("192.0.2.2".to_owned(), 1)];
    assert_eq!(open().await, one_each);
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.1"] {
        use_it(&silent, address).await;
    }
    let [one, two] = one_each;
    assert_eq!(open().await, [("127.0.0.1".to_owned(), 1), one, two]);
}

#[tokio::test]
async fn the_cap_is_for_all_addresses() {
    let cluster = listed().await;
    let proxy = told(
        cluster,
        "[limits]\nserver_connections = 2\nqueue_wait = \"20s\"",
    )
    .await;
    let mut held = Vec::new();
    for address in 1..9 {
        let mut raw = client(&proxy, &format!("192.0.2.{address}"), "app").await;
        let seen = cell(&mut raw, "/* dbproxy: primary */ SELECT USER()").await;
        assert_eq!(seen, format!("app@192.0.2.{address}"));
        held.push(raw);
    }
    for (address, raw) in (1..).zip(&mut held) {
        let seen = cell(raw, "/* dbproxy: primary */ SELECT USER()").await;
        assert_eq!(seen, format!("app@192.0.2.{address}"));
    }
}

#[tokio::test]
async fn kills_reach_clients_of_other_addresses() {
    let cluster = listed().await;
    let proxy = told(cluster, "").await;
    let sql = "CREATE USER killer@'%' IDENTIFIED BY 'killer'; CREATE USER stranger@'%' IDENTIFIED BY 'stranger'";
    make(cluster, &proxy, sql, ("192.0.2.1", "killer")).await;
    let runs = async |sql: &str| {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE host = '192.0.2.31' AND info LIKE '%{sql}%'"
        );
        cluster.primary().first::<u32>(&sql).await.unwrap() == 1
    };
    let mut victim = client(&proxy, "192.0.2.31", "killer").await;
    let id = victim.greeting.connection;
    victim
        .query("/* dbproxy: primary */ SELECT SLEEP(300)")
        .await;
    eventually("the query to run", async || runs("SLEEP(300)").await).await;
    let mut stranger = client(&proxy, "192.0.2.32", "stranger").await;
    let refused = stranger.rows(&format!("KILL {id}")).await.unwrap_err();
    assert_eq!(refused.code, 1095);
    let mut killer = client(&proxy, "192.0.2.32", "killer").await;
    killer.query(&format!("KILL QUERY {id}")).await;
    killer.ok().await.unwrap();
    assert_eq!(victim.result().await.unwrap_err().code, 1317);
    assert_eq!(cell(&mut victim, "SELECT 1").await, "1");
    killer.query(&format!("KILL {id}")).await;
    killer.ok().await.unwrap();
    // A client that leaves has its query ended too.
    let mut leaver = client(&proxy, "192.0.2.31", "killer").await;
    leaver
        .query("/* dbproxy: primary */ SELECT SLEEP(301)")
        .await;
    eventually("the query to run", async || runs("SLEEP(301)").await).await;
    drop(leaver);
    eventually("the query to end", async || !runs("SLEEP(301)").await).await;
}

#[tokio::test]
async fn the_header_stands_in_front_of_tls() {
    let cluster = listed().await;
    let proxy = told(cluster, "[tls.server]\nmode = \"required\"").await;
    let cipher = "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'";
    let mut raw = client(&proxy, "192.0.2.1", "app").await;
    assert_eq!(cell(&mut raw, "SELECT USER()").await, "app@192.0.2.1");
    assert_ne!(cell(&mut raw, cipher).await, "");
}

#[tokio::test]
async fn mariadb_that_does_not_list_the_proxy_is_named() {
    let cluster = Cluster::start_with(Flavor::MariaDb, 0, &with_tls())
        .await
        .unwrap();
    refusals_are_explained(&cluster, "Proxy header is not accepted from 127.0.0.1").await;
    // Only a server can check passwords: that it does not says nothing about them.
    let proxy = told(&cluster, "").await;
    let sql =
        "SET GLOBAL max_password_errors = 1000; CREATE USER counted@'%' IDENTIFIED BY 'counted'";
    cluster.primary().run(sql).await.unwrap();
    eventually("the account to be judged by the server", async || {
        let refused = try_client(&proxy, "192.0.2.1", "counted", "counted", None).await;
        matches!(refused, Err(refused) if is_explained(&refused))
    })
    .await;
    // From then on it does.
    let sql = "SET GLOBAL proxy_protocol_networks = '10.0.0.0/8,127.0.0.1'";
    cluster.primary().run(sql).await.unwrap();
    let mut raw = client(&proxy, "192.0.2.1", "counted").await;
    assert_eq!(cell(&mut raw, "SELECT USER()").await, "counted@192.0.2.1");
}

#[tokio::test]
async fn mysql_is_named() {
    let cluster = Cluster::start(Flavor::MySql, 0).await.unwrap();
    refusals_are_explained(&cluster, "Got packets out of order").await;
}

fn is_explained(refused: &Refused) -> bool {
    refused.code == 1043
        && [
            "server db1",
            "proxy_protocol_networks",
            "cluster.proxy_protocol",
        ]
        .iter()
        .all(|word| refused.message.contains(word))
}

/// With and without TLS, at logins and at statements.
async fn refusals_are_explained(cluster: &Cluster, word: &str) {
    for mode in ["disabled", "required"] {
        let proxy = told(cluster, &format!("[tls.server]\nmode = \"{mode}\"")).await;
        let mut heard = Vec::new();
        let began = Instant::now();
        // Each way in which its answer and its end can meet what is sent.
        for _ in 0..20 {
            let mut raw = client(&proxy, "192.0.2.1", "app").await;
            heard.push(raw.rows("SELECT 1").await.unwrap_err());
            heard.push(raw.rows("SELECT 1").await.unwrap_err());
            let login = try_client(&proxy, "192.0.2.1", "app", "app", Some("test")).await;
            heard.push(login.err().unwrap());
            let mut local = Raw::unix(&proxy.socket()).await.unwrap();
            let login = local.login("app", "app", Some("test"), capability::USUAL);
            heard.push(login.await.unwrap_err());
        }
        assert!(began.elapsed() < Duration::from_secs(10), "it waits");
        for refused in heard {
            assert!(is_explained(&refused), "{mode}: {}", refused.message);
            assert!(
                refused.message.contains(word),
                "{mode}: {}",
                refused.message
            );
        }
    }
}
