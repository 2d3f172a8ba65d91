//! Other proxies' configurations, read and turned into one for dbproxy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dbproxy::cli::import::{self, Format};
use dbproxy::config::{
    self, Balance, ClientCompression, Config, Consistency, ProxyProtocol, SecretFile,
    ServerCompression, ServerMode, Sources,
};
use proptest::prelude::*;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/import");

/// The environment in which the result is used.
struct Deployed;

impl Sources for Deployed {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "DBPROXY_MONITOR_PASSWORD").then(|| "deployed".to_owned())
    }

    fn file(&self, _: &Path) -> io::Result<SecretFile> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn cores(&self) -> usize {
        3
    }
}

/// What became of a file, and how dbproxy reads it.
struct Imported {
    text: String,
    config: Config,
    holds_secret: bool,
}

fn imported(file: &str, cluster: Option<&str>) -> Imported {
    let source = fs::read(format!("{DATA}/{file}")).unwrap();
    let written = import::import(&source, file, None, cluster)
        .unwrap_or_else(|error| panic!("{file}:{error}"));
    let loaded = config::parse(&written.text, "dbproxy.toml", &Deployed)
        .unwrap_or_else(|problems| panic!("{problems}\n{}", written.text));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    Imported {
        text: written.text,
        config: loaded.config,
        holds_secret: written.holds_secret,
    }
}

impl Imported {
    /// Name, address and weight of each server.
    fn servers(&self) -> Vec<(String, String, u32)> {
        let servers = self.config.cluster.servers.iter();
        servers
            .map(|server| {
                (
                    server.name.clone(),
                    server.address.to_string(),
                    server.weight,
                )
            })
            .collect()
    }

    fn listens(&self) -> Vec<String> {
        self.config
            .listen
            .mysql
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Each of these is named in a comment behind the heading, under a reason.
    fn names(&self, settings: &[&str]) {
        let (_, unequal) = self
            .text
            .split_once("# What has no equal in dbproxy, and why\n")
            .expect("the heading");
        assert!(
            unequal.lines().all(|line| line.starts_with('#')),
            "{unequal}"
        );
        for setting in settings {
            let mut reason = None;
            let found = unequal.lines().find(|line| {
                if line.ends_with(':') && !line.starts_with("#   ") {
                    reason = Some(line.len() > 10);
                }
                line.starts_with("#   ") && line.contains(setting)
            });
            assert!(found.is_some(), "{setting} in\n{unequal}");
            assert_eq!(reason, Some(true), "{setting}");
        }
    }

    /// Name and effect of each rule.
    fn rules(&self) -> Vec<String> {
        let rules = self.config.rules.iter();
        rules
            .map(|rule| format!("{}: {}", rule.name, rule.effect()))
            .collect()
    }

    fn lacks(&self, secrets: &[&str]) {
        for secret in secrets {
            assert!(!self.text.contains(secret), "{secret} in\n{}", self.text);
        }
    }
}

fn server(name: &str, address: &str, weight: u32) -> (String, String, u32) {
    (name.to_owned(), address.to_owned(), weight)
}

#[test]
fn mysqlnd_ms() {
    let shop = imported("mysqlnd_ms.json", None);
    assert_eq!(
        shop.servers(),
        [
            server("shop_master", "10.1.0.11:3306", 1),
            server("shop_far", "[fd00::13]:3306", 2),
            server("shop_near", "10.1.0.12:3307", 8),
        ]
    );
    let cluster = &shop.config.cluster;
    assert_eq!(cluster.name, "shop");
    assert_eq!(cluster.balance, Balance::RoundRobin);
    assert_eq!(cluster.max_lag, Duration::from_secs(4));
    // Eventual reads, but those of a request that has written.
    assert_eq!(cluster.consistency, Consistency::User);
    assert_eq!(shop.config.monitor.password.expose(), "deployed");
    assert!(!shop.holds_secret);
    assert!(shop.config.users.is_empty());
    shop.names(&[
        "shop.master.shop_master.user = shop",
        "shop.master.shop_master.password = …",
        "shop.master.shop_master.db = shop",
        "user_multi.callback = pick_by_hour",
        "roundrobin.sticky",
        "failover.strategy = loop_before_master",
        "failover.remember_failed",
        "lazy_connections",
        "server_charset = utf8mb4",
        "trx_stickiness",
        "check_for_gtid",
        "fetch_last_gtid",
        "report_error",
        "mysql_error_codes",
        "xa.rollback_on_close",
        "xa.state_store.mysql.password = …",
    ]);
    shop.lacks(&["horse-battery", "staple"]);
    shop.names(&["shop.filters.node_groups.no group"]);
    let servers = cluster.servers.iter();
    let groups: Vec<_> = servers.map(|server| server.group.as_deref()).collect();
    assert_eq!(groups, [Some("Reports"), Some("Reports"), None]);
    assert_eq!(shop.rules(), ["node group Reports: route = group=Reports"]);
    let pattern = shop.config.rules[0].when.pattern.as_ref().unwrap().regex();
    assert!(pattern.is_match(b"/*Reports*/ SELECT 1"));
    assert!(!pattern.is_match(b"SELECT 1 /*Reports*/"));
    assert!(
        shop.text.contains("# - reports (localhost)"),
        "{}",
        shop.text
    );

    let reports = imported("mysqlnd_ms.json", Some("reports"));
    assert_eq!(
        reports.servers(),
        [server(
            "unix:/run/mysqld/reports.sock",
            "unix:/run/mysqld/reports.sock",
            1
        )]
    );
    assert_eq!(reports.config.cluster.name, "reports");
}

#[test]
fn proxysql_cnf() {
    let shop = imported("proxysql.cnf", None);
    assert_eq!(
        shop.servers(),
        [
            server("10.2.0.11:3306", "10.2.0.11:3306", 1),
            server("10.2.0.12:3306", "10.2.0.12:3306", 1000),
            server("10.2.0.13:3306", "10.2.0.13:3306", 500),
        ]
    );
    assert_eq!(
        shop.listens(),
        ["0.0.0.0:6033", "unix:/run/proxysql/proxysql.sock"]
    );
    let config = &shop.config;
    assert_eq!(config.workers, 4);
    assert_eq!(config.listen.proxy_protocol.len(), 1);
    assert_eq!(config.monitor.user, "monitor");
    assert_eq!(config.monitor.password.expose(), "correct \"horse\"");
    assert!(shop.holds_secret);
    assert_eq!(config.cluster.name, "hostgroup-10");
    assert_eq!(config.cluster.max_lag, Duration::from_secs(12));
    assert_eq!(config.compression.client, ClientCompression::Off);
    assert_eq!(config.limits.connections, 2048);
    assert_eq!(config.limits.server_connections, 300);
    assert_eq!(config.limits.account_connections, Some(150));
    assert_eq!(config.limits.login, Duration::from_secs(8));
    assert_eq!(config.limits.queue_wait, Duration::from_millis(12_500));
    let [first, second, _] = config.cluster.servers.as_slice() else {
        panic!("three servers");
    };
    assert_eq!(first.tls, Some(ServerMode::Required));
    assert_eq!(second.compression, Some(ServerCompression::Zlib));
    assert_eq!(
        config.tls.server.ca.as_deref(),
        Some(Path::new("/etc/proxysql/ca.pem"))
    );
    assert!(config.tls.server.identity.is_some());
    shop.names(&[
        "datadir",
        "admin-admin_credentials = …",
        "admin-mysql_ifaces",
        "line 15: mysql-default_query_timeout = 36000000",
        "mysql-connect_timeout_server = 1500",
        "mysql-server_version",
        "mysql-monitor_ping_interval",
        "mysql-eventslog_filename",
        "mysql-shun_on_failures",
        "mysql-future_setting",
        "10.2.0.12 comment = the big one",
        "10.2.0.13 max_latency_ms = 40",
        "10.2.0.14 status = OFFLINE_SOFT",
        "mysql_replication_hostgroups: writer_hostgroup=10",
        "mysql_users = shop",
        "mysql_users shop default_schema",
        "mysql_users old active = 0",
        "rule_id=1 ",
        "rule_id=2 ",
        "rule_id=5 ",
        "scheduler: …",
    ]);
    shop.lacks(&["not-for-comments", "tr0ub4dor", "hidden-too"]);
    // What comes behind the rule for all SELECTs gets none, there as here.
    assert_eq!(
        shop.rules(),
        [
            "query rule 1: priority = normal",
            "query rule 2: priority = normal",
            "query rule 3: cache = 60s",
            "query rule 4: block = 1148 no, continue = true",
        ]
    );
    let [archive] = config.clusters.as_slice() else {
        panic!("{}", shop.text);
    };
    assert_eq!(archive.name, "hostgroup-30");
    assert_eq!(archive.servers[0].address.to_string(), "10.3.0.21:3306");
    assert!(archive.serves.accounts[0].fits(b"archive"));

    let archive = imported("proxysql.cnf", Some("hostgroup-30"));
    assert_eq!(
        archive.servers(),
        [server("10.3.0.21:3306", "10.3.0.21:3306", 1)]
    );
}

#[test]
fn rules_of_proxysql() {
    let shop = imported("proxysql_rules.cnf", None);
    assert_eq!(
        shop.rules(),
        [
            "query rule 10: block = 1148 not here",
            "query rule 30: route = group=hostgroup-40",
            "query rule 40: rewrite = SELECT ${1}",
            "query rule 41: rewrite = ${1}new_$$name",
            "query rule 60: answer = ok",
            "query rule 70: route = primary, log = true",
            "query rule 75: priority = normal",
            "query rule 80, then 81: timeout = 60s",
            "query rule 80: priority = normal",
            "query rule 100: priority = normal",
            "query rule 110: timeout = 1.5s, cache = 60s",
        ]
    );
    let rules = &shop.config.rules;
    assert_eq!(
        rules[1].when.to_string(),
        "account = reports, client = 10.9.0.0/16, listener = 0.0.0.0:6034, schema = shop"
    );
    assert!(rules[7].when.account[0].fits(b"batch"));
    for (rule, fitting, other) in [
        (0, "drop  database x", "DROP TABLE x"),
        (2, "select distinct a, b", "SELECT a"),
        (3, "SELECT 'old_name'", "SELECT OLD_NAME"),
        (7, "delete from t", "SELECT 1"),
        (10, "/* c */ SELECT a FROM  country", "SELECT a FROM county"),
    ] {
        let pattern = rules[rule].when.pattern.as_ref().unwrap().regex();
        assert!(pattern.is_match(fitting.as_bytes()), "{pattern}");
        assert!(!pattern.is_match(other.as_bytes()), "{pattern}");
    }
    // Only what is found first is replaced.
    let pattern = rules[3].when.pattern.as_ref().unwrap().regex();
    let rewrite = rules[3].then.rewrite.as_ref().unwrap().as_bytes();
    let rewritten = pattern.replace_all(b"a.old_name = b.old_name", rewrite);
    assert_eq!(rewritten, &b"a.new_$name = b.old_name"[..]);

    let servers = shop.config.cluster.servers.iter();
    let groups: Vec<_> = servers.map(|server| server.group.as_deref()).collect();
    assert_eq!(groups, [None, None, Some("hostgroup-40")]);
    let [archive] = shop.config.clusters.as_slice() else {
        panic!("{}", shop.text);
    };
    assert_eq!(archive.servers.len(), 2);
    let names: Vec<_> = archive
        .serves
        .accounts
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["archiver", "keeper"]);
    shop.names(&[
        "rule_id=20 ",
        "rule_id=50 ",
        "rule_id=51 ",
        "rule_id=52 ",
        "mysql_query_rules 70 delay = 100",
        "rule_id=65 ",
        "rule_id=66 ",
        "rule_id=75 ",
        "rule_id=82 ",
        "rule_id=83 ",
        "rule_id=84 ",
        "rule_id=90 ",
        "rule_id=100 ",
        "rule_id=120 ",
        "mysql_users shop max_connections = 50",
    ]);
    // Each says where it comes from.
    assert!(shop.text.contains("mysql_query_rules: rule_id=110 "));
    // One cluster alone.
    let archive = imported("proxysql_rules.cnf", Some("hostgroup-30"));
    assert_eq!(archive.servers().len(), 2);
    assert!(archive.config.clusters.is_empty());
    assert!(archive.text.contains("# - hostgroup-10 (10.2.0.11"));
}

#[test]
fn proxysql_sql() {
    let web = imported("proxysql.sql", None);
    assert_eq!(
        web.servers(),
        [
            server("db-a:3306", "db-a:3306", 1),
            server("db-b:3306", "db-b:3306", 3),
            server(
                "unix:/run/mysqld/third.sock",
                "unix:/run/mysqld/third.sock",
                1
            ),
        ]
    );
    assert_eq!(web.config.cluster.name, "hostgroup-1");
    assert_eq!(web.config.monitor.user, "watch");
    assert_eq!(web.config.monitor.password.expose(), "it's \\here");
    assert_eq!(web.config.limits.connections, 300);
    web.names(&[
        "line 9: mysql_servers db-b gtid_port = 33061",
        "mysql_users = web",
        "rule_id=10",
        "rule_id=11",
    ]);
    web.lacks(&["C0FFEE"]);
}

#[test]
fn a_dump_of_proxysqls_tables() {
    let group = imported("proxysql_dump.sql", None);
    assert_eq!(
        group.servers(),
        [
            server("gr1:3306", "gr1:3306", 1),
            server("gr2:3306", "gr2:3306", 4),
            server("gr3:3306", "gr3:3306", 1),
        ]
    );
    assert_eq!(group.listens(), ["0.0.0.0:6033"]);
    assert_eq!(group.config.monitor.password.expose(), "back\\slash");
    group.names(&[
        "admin-stats_credentials = …",
        "gr3 weight = 0",
        "mysql_group_replication_hostgroups: writer_hostgroup=5",
    ]);
    group.lacks(&["stats:hidden"]);
    assert!(
        group
            .text
            .contains("# - The servers are a cluster of Galera, Group Replication")
    );
}

#[test]
fn maxscale() {
    let shop = imported("maxscale.cnf", None);
    assert_eq!(
        shop.servers(),
        [
            server("db1", "10.4.0.11:3306", 9),
            server("db2", "[fd00::12]:3307", 5),
            server("db3", "unix:/run/mysqld/third.sock", 1),
        ]
    );
    let config = &shop.config;
    assert_eq!(shop.listens(), ["0.0.0.0:4006", "[::]:4006"]);
    assert_eq!(config.listen.mysql_tls.len(), 1);
    assert_eq!(config.listen.proxy_protocol.len(), 2);
    assert_eq!(config.cluster.name, "Replication-Monitor");
    assert_eq!(config.monitor.user, "watch");
    assert_eq!(config.monitor.password.expose(), "open sesame");
    assert_eq!(config.monitor.interval, Duration::from_millis(1500));
    assert_eq!(config.cluster.max_lag, Duration::from_secs(20));
    assert_eq!(config.cluster.consistency, Consistency::User);
    assert_eq!(config.cluster.replica_wait, Duration::from_secs(5));
    assert_eq!(config.limits.login, Duration::from_secs(7));
    assert_eq!(config.limits.idle, Duration::from_secs(90));
    assert_eq!(config.limits.hold, Duration::from_secs(25));
    assert_eq!(config.limits.connections, 500);
    assert_eq!(config.limits.server_connections, 60);
    assert!(config.tls.client.identity.is_some());
    let [first, second, third] = config.cluster.servers.as_slice() else {
        panic!("three servers");
    };
    assert_eq!(first.tls, Some(ServerMode::VerifyCa));
    assert_eq!(second.tls, Some(ServerMode::VerifyIdentity));
    assert_eq!(third.proxy_protocol, Some(ProxyProtocol::On));
    shop.names(&[
        "[maxscale] threads = auto",
        "[maxscale] admin_host",
        "[maxscale] admin_secure_gui",
        "[maxscale] log_info",
        "[db1] protocol",
        "[db1] persistpoolmax",
        "[other1]",
        "[Other-Monitor]",
        "[Replication-Monitor] module",
        "[Replication-Monitor] auto_failover",
        "[Replication-Monitor] backend_connect_timeout",
        "[RW] user = maxscale",
        "[RW] password = …",
        "[RW] transaction_replay",
        "[RW] max_sescmd_history",
        "[RO-Listener] authenticator",
        "[Mask] filter masking",
        "[Names] log_file",
        "[Keep] storage",
        "[Slow] filter throttlefilter",
        "[Wall] filter dbfwfilter",
    ]);
    assert_eq!(
        shop.rules(),
        [
            "filter Names match01 of RW: route = primary, continue = true",
            "filter Names match02 of RW: route = server=db3, continue = true",
            "filter Old of RW: rewrite = ENGINE=${1}, continue = true",
            "filter Keep of RW: cache = 10s, continue = true",
            "service RO: route = group=RO",
        ]
    );
    assert_eq!(
        config.rules[1].when.to_string(),
        "client = 10.4.0.0/24, listener = 0.0.0.0:4006 | [::]:4006, pattern = (?i-u)from big_"
    );
    assert_eq!(config.rules[4].when.to_string(), "listener = 10.4.0.2:4008");
    let servers = config.cluster.servers.iter();
    let groups: Vec<_> = servers.map(|server| server.group.as_deref()).collect();
    assert_eq!(groups, [None, Some("RO"), Some("RO")]);
    let old = config.rules[2].when.pattern.as_ref().unwrap().regex();
    assert!(old.is_match(b"TYPE=x") && !old.is_match(b"type=x"));
    shop.lacks(&["other-secret"]);

    let other = imported("maxscale.cnf", Some("Other-Monitor"));
    assert_eq!(other.servers(), [server("other1", "10.5.0.11:3306", 1)]);
    // Encrypted for MaxScale, so of no use here.
    assert_eq!(other.config.monitor.password.expose(), "deployed");
    assert!(!other.holds_secret);
    other.names(&["[Other-Monitor] password = …"]);
}

#[test]
fn haproxy() {
    let shop = imported("haproxy.cfg", None);
    assert_eq!(
        shop.servers(),
        [
            server("db1", "10.6.0.11:3306", 1),
            server("db2", "10.6.0.12:3306", 100),
            server("db3", "10.6.0.13:3306", 50),
        ]
    );
    assert_eq!(
        shop.listens(),
        [
            "10.6.0.2:3306",
            "0.0.0.0:3316",
            "unix:/run/haproxy/read.sock"
        ]
    );
    let config = &shop.config;
    assert_eq!(config.workers, 4);
    assert_eq!(config.cluster.name, "primary");
    assert_eq!(config.cluster.balance, Balance::LeastConnections);
    assert_eq!(config.limits.connections, 900);
    assert_eq!(config.limits.server_connections, 200);
    assert_eq!(config.limits.login, Duration::from_secs(4));
    assert_eq!(config.limits.queue_wait, Duration::from_millis(1500));
    let proxied: Vec<_> = config
        .cluster
        .servers
        .iter()
        .map(|server| server.proxy_protocol)
        .collect();
    assert_eq!(proxied, [None, Some(ProxyProtocol::On), None]);
    shop.names(&[
        "log /dev/log local0",
        "chroot /var/lib/haproxy",
        "line 5: user haproxy",
        "daemon",
        "stats socket",
        "option tcplog",
        "retries 3",
        "timeout client 30m",
        "timeout server 30m",
        "frontend web",
        "listen queue",
        "accept-proxy",
        "acl office",
        "tcp-request connection",
        "default_backend primary",
        "option mysql-check user haproxy_check",
        "balance first",
        "server db1 inter 2s",
        "server db1 rise 2",
        "server db2 backup",
        "server db3 check",
        "server db4 10.6.0.14:3306 check disabled",
        "listen stats",
    ]);
    shop.lacks(&["in-the-open"]);
    assert!(
        shop.text.contains("# - queue (10.6.0.61:5672)"),
        "{}",
        shop.text
    );
}

#[test]
fn what_is_broken_is_said_with_its_line() {
    let nested = "{\"a\":".repeat(500);
    let deep = format!("mysql_variables = {}", "(".repeat(100_000));
    for (source, format, error) in [
        (
            "",
            None,
            "error: neither of mysqlnd_ms, ProxySQL, MaxScale nor HAProxy",
        ),
        ("hello world\n", None, "error: neither of"),
        ("{\n\"app\": {,}\n}", None, "2: error: key must be a string"),
        (&nested, None, "1: error: recursion limit exceeded"),
        (
            "[]",
            Some(Format::MysqlndMs),
            "1: error: invalid type: sequence, expected an object",
        ),
        ("{}", None, "error: names no server"),
        ("{\"app\": 1}", None, "error: \"app\" is not an object"),
        (
            "{\"app\": {\"slave\": []}}",
            None,
            "error: \"app\" lacks its key \"master\"",
        ),
        (
            "{\"app\": {\"master\": [{\"host\": \"a b\"}]}}",
            None,
            "error: app.master.0: \"a b\" is not a host name",
        ),
        (
            "{\"app\": {\"fabric\": {\"hosts\": []}}}",
            None,
            "error: \"app\" gets its servers from MySQL Fabric",
        ),
        (
            "mysql_servers =\n(\n{ address = \"a\" hostgroup }\n)",
            None,
            "3: error: \"=\" is missing behind \"hostgroup\"",
        ),
        (
            "mysql_servers = (\n{ address = \"a }\n)",
            None,
            "2: error: a string without its closing quote",
        ),
        (
            "mysql_variables =\n{ threads = 4",
            None,
            "2: error: a \"{\" without its \"}\"",
        ),
        (
            "mysql_servers = ( 1 )",
            None,
            "1: error: \"mysql_servers\" has rows in braces",
        ),
        (
            "mysql_servers = ( { hostname = \"a\" port = 70000 } )",
            None,
            "1: error: \"70000\" is not a port",
        ),
        (&deep, None, "1: error: groups in groups in groups"),
        (
            "@include \"users.cnf\"\n",
            None,
            "1: error: includes \"users.cnf\"",
        ),
        (
            "INSERT INTO mysql_servers VALUES (1,'a',3306);",
            None,
            "1: error: which columns are meant?",
        ),
        (
            "SET mysql-threads=2;\nINSERT INTO mysql_servers (hostname, port) VALUES ('a');",
            None,
            "2: error: 1 values for 2 columns",
        ),
        (
            "INSERT INTO mysql_servers (hostname)\nSELECT 1;",
            None,
            "2: error: VALUES is missing",
        ),
        (
            "SET a-b=1;\nINSERT INTO mysql_servers (hostname) VALUES ('a",
            None,
            "2: error: Unterminated string literal",
        ),
        (
            "UPDATE mysql_servers SET weight=2;",
            None,
            "1: error: changes rows of \"mysql_servers\"",
        ),
        (
            "[db1]\ntype=server\nnonsense\n",
            None,
            "3: error: is neither key=value nor a [section]",
        ),
        (
            "[db1\ntype=server\n",
            None,
            "1: error: a section lacks its \"]\"",
        ),
        (
            "type=server\n",
            Some(Format::MaxScale),
            "1: error: stands before the first [section]",
        ),
        (
            "[db1]\ntype=server\naddress=a\n",
            None,
            "error: names no server",
        ),
        (
            "[db1]\ntype=server\naddress=a\nport=x\n[M]\ntype=monitor\nservers=db1",
            None,
            "3: error: \"x\" is not a port",
        ),
        (
            "listen a\n  server one 'x\n",
            None,
            "2: error: a quote is not closed",
        ),
        (
            "bind *:3306\n",
            Some(Format::HaProxy),
            "1: error: \"bind\" stands before the first section",
        ),
        (
            "listen a\n  server one\n",
            None,
            "2: error: an address is empty",
        ),
        (
            "global\n.if defined(X)\n",
            None,
            "2: error: \".if\": decide by hand",
        ),
        ("frontend a\n  bind :3306\n", None, "error: names no server"),
        ("SQLite format 3\0", None, "error: a database, not a text"),
    ] {
        let found =
            import::import(source.as_bytes(), "x", format, None).map(|written| written.text);
        let found = found.expect_err(source).to_string();
        assert!(found.starts_with(error), "{found}\nfor {source:.80}");
    }
    let found = import::import(b"global\n\xff\n", "x", None, None).unwrap_err();
    assert_eq!(found.to_string(), "2: error: not UTF-8");
    let found = import::import(&vec![b' '; (1 << 20) + 1], "x", None, None).unwrap_err();
    assert!(found.to_string().contains("1 MiB"), "{found}");
    let sample = fs::read(format!("{DATA}/haproxy.cfg")).unwrap();
    let found = import::import(&sample, "x", None, Some("no\u{7}ne")).unwrap_err();
    assert!(
        found.to_string().contains("there are: primary, queue"),
        "{found}"
    );
}

/// Sources that are as long as allowed, and made to take for ever where a reader is quadratic.
#[test]
fn large_sources_are_read_or_refused() {
    let fill = |head: &str, line: &str| {
        let lines = ((1 << 20) - head.len()) / line.len();
        format!("{head}{}", line.repeat(lines))
    };
    let wide =
        |width: usize, head: &str, line: &str| fill(&format!("{head}{}", "x".repeat(width)), line);
    for source in [
        fill("listen a\n", "bind *:3306\n"),
        fill("listen a\n", "server a b:1 disabled\n"),
        fill("listen a\nserver a b:1\n", "maxconn 5\n"),
        fill("", "listen a\nserver a b:1\n"),
        fill("defaults\n", "listen a\nmode tcp\n"),
        fill("[a]\n", "ssl_cert=1\n"),
        fill("", "[a]\ntype=server\n"),
        fill("mysql_servers=(", "{hostgroup=1 hostname=\"a\"},"),
        fill("mysql_servers=({", "a=1;"),
        fill(
            "mysql_servers=({address=\"a\"})mysql_query_rules=(",
            "{log=1},",
        ),
        fill(
            "mysql_servers=({address=\"a\"})mysql_query_rules=(",
            "{match_pattern=\"(a{9}){9}\" log=1 flagIN=1},{flagOUT=1},",
        ),
        fill(
            "[a]\ntype=server\naddress=b\n[f]\ntype=filter\nmodule=cache\nttl=1\n",
            "[s]\ntype=service\nservers=a\nfilters=f|f|f|f\n",
        ),
        fill(
            "INSERT INTO mysql_servers (hostgroup_id,hostname) VALUES ",
            "(1,'a'),",
        ),
        fill("mysql_variables={", "a=1;"),
        fill("mysql_variables={", "proxy_protocol_networks=\"1.1.1.1\";"),
        wide(
            500_000,
            "{\"a\":{\"master\":[{\"host\":\"a\",\"",
            "\":1,\"b",
        ),
        wide(500_000, "[", "]\na=b\n"),
    ] {
        import::fuzz::run(source.as_bytes());
    }
}

#[test]
fn beginnings_of_every_file() {
    for file in fs::read_dir(DATA).unwrap() {
        let seed = fs::read(file.unwrap().path()).unwrap();
        for end in (0..seed.len()).step_by(97).chain([seed.len()]) {
            import::fuzz::run(&seed[..end]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        import::fuzz::run(&bytes);
    }

    /// Pieces of the formats in any order.
    #[test]
    fn any_words_are_read_or_refused(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..60)) {
        import::fuzz::run(words.concat().as_bytes());
    }

    /// A file with something cut out or put in.
    #[test]
    fn a_damaged_file_is_read_or_refused(which in 0..7_usize, at in any::<prop::sample::Index>(), cut in 0..40_usize, put in any::<Vec<u8>>()) {
        let files = ["haproxy.cfg", "maxscale.cnf", "mysqlnd_ms.json", "proxysql.cnf", "proxysql.sql", "proxysql_dump.sql", "proxysql_rules.cnf"];
        let mut bytes = fs::read(format!("{DATA}/{}", files[which])).unwrap();
        let at = at.index(bytes.len());
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, put);
        import::fuzz::run(&bytes);
    }
}

const WORDS: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "=",
    ":",
    ";",
    ",",
    "\"",
    "'",
    "\n",
    " ",
    "#",
    "\\",
    "/*",
    "*/",
    "--",
    "1",
    "0",
    "a",
    "é",
    "\0",
    "listen",
    "backend",
    "bind",
    "server",
    "a b:1",
    "maxconn",
    "weight",
    "mysql_servers",
    "mysql_variables",
    "hostname=\"a\"",
    "[x]\n",
    "type=server\n",
    "type=monitor\n",
    "servers=x\n",
    "address=a\n",
    "INSERT INTO ",
    "mysql_servers(hostname)",
    " VALUES ",
    "('a')",
    "UPDATE ",
    "global_variables",
    "SET ",
    "\"master\":",
    "{\"host\":\"a\"}",
    "unix@/",
    "*:3306",
    "[::]:1",
    "mysql_query_rules=({",
    "match_pattern=\"^(a\"",
    " replace_pattern=\"\\\\1\"",
    " cache_ttl=1",
    " destination_hostgroup=1",
    "type=filter\nmodule=regexfilter\n",
    "match=^a$\nreplace=$1\n",
    "filters=x\n",
];

fn dbproxy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dbproxy"))
        .args(arguments)
        .stdin(Stdio::null())
        .env("DBPROXY_MONITOR_PASSWORD", "deployed")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_program_writes_files_that_check_takes() {
    let directory = tempfile::tempdir().unwrap();
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files = [
        ("proxysql.cnf", true),
        ("haproxy.cfg", false),
        ("proxysql_rules.cnf", false),
        ("mysqlnd_ms.json", false),
    ];
    for (file, secret) in files {
        let source = format!("{DATA}/{file}");
        let target = directory.path().join(file).display().to_string();
        let written = dbproxy(&["import", &source, "--output", &target]);
        assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
        assert!(stderr(&written).contains("settings have no equal"));
        assert!(written.stdout.is_empty());
        assert_eq!(mode(&target) & 0o077 == 0, secret, "{:o}", mode(&target));
        let shown = dbproxy(&["import", &source]);
        assert_eq!(shown.stdout, fs::read(&target).unwrap());
    }
    // The certificates of the others are not on this machine.
    for (file, _) in &files[1..] {
        let target = directory.path().join(file).display().to_string();
        let checked = dbproxy(&["check", "--offline", "-c", &target]);
        assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    }
    // What was moved is explained.
    let target = directory.path().join("proxysql_rules.cnf");
    let target = target.display().to_string();
    let told = dbproxy(&[
        "explain",
        "-c",
        &target,
        "--account",
        "keeper",
        "DROP DATABASE x",
    ]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("  rule    query rule 10: block"), "{told}");
    assert!(
        told.contains("  cluster hostgroup-30: by its account"),
        "{told}"
    );
}

#[test]
fn the_program_replaces_nothing_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("dbproxy.toml").display().to_string();
    fs::write(&target, "precious").unwrap();
    let source = format!("{DATA}/maxscale.cnf");
    let refused = dbproxy(&["import", &source, "--output", &target]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--force"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    let forced = dbproxy(&["import", &source, "--output", &target, "--force"]);
    assert_eq!(forced.status.code(), Some(0), "{}", stderr(&forced));
    assert!(fs::read_to_string(&target).unwrap().contains("open sesame"));
    assert_eq!(
        fs::metadata(&target).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn the_program_says_what_is_wrong() {
    let source = format!("{DATA}/maxscale.cnf");
    for (arguments, status, said) in [
        (&["import"][..], 2, "FILE"),
        (&["import", &source, "--from", "oracle"], 2, "maxscale"),
        (&["import", &source, "--force"], 2, "--output"),
        (
            &["import", "/nonexistent/x.cnf"],
            1,
            "/nonexistent/x.cnf: error: cannot read the file",
        ),
        (
            &["import", &source, "--from", "haproxy"],
            1,
            "maxscale.cnf:2: error: ",
        ),
        (
            &["import", &source, "--cluster", "none"],
            1,
            "there are: Replication-Monitor, Other-Monitor",
        ),
    ] {
        let output = dbproxy(arguments);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(said),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty());
    }
}
