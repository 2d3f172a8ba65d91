//! The configuration as users meet it: whole files in, typed values or all problems at once out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dbproxy::config::{
    self, Balance, ClientCompression, ClientMode, Compression, Config, Consistency, Heartbeat,
    Limits, ListenAddress, LogFormat, Mode, Problems, ProxyProtocol, SecretFile, ServerAddress,
    ServerCompression, ServerMode, Severity, Sources, Tls,
};

const SMALLEST: &str = r#"
[monitor]
user = "dbproxy"
password = "secret"

[cluster]
servers = ["db1=10.0.0.11:3306", "db2=10.0.0.12:3306"]
"#;

/// An environment and files that only the test knows.
#[derive(Default)]
struct World {
    variables: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<&'static str, (&'static str, bool)>,
}

impl Sources for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }

    fn file(&self, path: &Path) -> io::Result<SecretFile> {
        let found = path.to_str().and_then(|path| self.files.get(path));
        let (text, world_readable) = *found.ok_or(io::ErrorKind::NotFound)?;
        Ok(SecretFile {
            text: text.to_owned().into(),
            world_readable,
        })
    }

    fn cores(&self) -> usize {
        3
    }
}

fn parse(text: &str) -> Result<Config, Problems> {
    config::parse(text, "dbproxy.toml", &World::default()).map(|loaded| loaded.config)
}

/// The problems of a text, as the lines a user reads.
fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// The one problem that a line added to the smallest file makes.
fn problem_with(addition: &str) -> String {
    let problems = problems(&format!("{SMALLEST}{addition}"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

#[test]
fn the_smallest_file_has_all_defaults() {
    let config = parse(SMALLEST).unwrap();
    let local = ListenAddress::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 3306,
    };
    assert_eq!(config.listen.mysql, [local]);
    assert_eq!(config.monitor.user, "dbproxy");
    assert_eq!(config.monitor.password.expose(), "secret");
    assert_eq!(config.monitor.interval, Duration::from_millis(250));
    assert_eq!(config.monitor.heartbeat, Heartbeat::Auto);
    assert_eq!(config.cluster.name, "main");
    assert_eq!(config.cluster.consistency, Consistency::User);
    assert_eq!(config.cluster.max_lag, Duration::from_secs(5));
    assert_eq!(config.cluster.balance, Balance::default());
    let names: Vec<_> = config
        .cluster
        .servers
        .iter()
        .map(|server| server.name.as_str())
        .collect();
    assert_eq!(names, ["db1", "db2"]);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.limits.hold, Duration::from_secs(30));
    assert_eq!(config.limits.connections, 10_000);
    assert_eq!(config.limits.server_connections, 100);
    assert_eq!(config.log.level, "info");
    assert_eq!(config.log.format, LogFormat::Text);
    assert!(config.users.is_empty());
    assert_eq!(config.workers, 3);
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        workers = 2
        [listen]
        mysql = ["0.0.0.0:3307", "[::]:3308", "unix:/run/dbproxy/mysqld.sock"]
        proxy_protocol = ["10.1.0.0/16", "fd00::1"]
        [monitor]
        user = "watch"
        password = ""
        interval = "1s"
        heartbeat = "off"
        [cluster]
        name = "shop"
        consistency = "strong"
        max_lag = "2m"
        balance = "round-robin"
        compression = "zstd"
        proxy_protocol = "on"
        [[cluster.server]]
        name = "db1"
        address = "db1.example.org"
        compression = "zlib"
        proxy_protocol = "off"
        [[cluster.server]]
        address = "unix:/run/mysqld/a=b.sock"
        weight = 5
        [users.app]
        password = "one"
        [users."with.dot"]
        password = "two"
        [compression]
        client = "off"
        zlib_level = 1
        zstd_level = 2
        [limits]
        hold = "1s"
        connections = 1
        address_connections = 8
        account_connections = 9
        logins = 10
        server_connections = 2
        queue_depth = 3
        queue_wait = "4s"
        login = "5s"
        idle = "6s"
        connection_age = "2h"
        warm = 11
        read_timeout = "31s"
        write_timeout = "61s"
        abandoned = "4s"
        drain = "7s"
        cache = "128MiB"
        [log]
        level = "warn,dbproxy::monitor=debug"
        format = "json"
        "#,
    )
    .unwrap();
    assert_eq!(config.workers, 2);
    let listen: Vec<_> = config
        .listen
        .mysql
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        listen,
        ["0.0.0.0:3307", "[::]:3308", "unix:/run/dbproxy/mysqld.sock"]
    );
    let balancer = |address: &str| {
        let address = address.parse().unwrap();
        let mut networks = config.listen.proxy_protocol.iter();
        networks.any(|network| network.contains(address))
    };
    assert!(balancer("10.1.255.1") && balancer("::ffff:10.1.0.1") && balancer("fd00::1"));
    assert!(!balancer("10.2.0.1") && !balancer("fd00::2") && !balancer("::1"));
    assert_eq!(config.monitor.interval, Duration::from_secs(1));
    assert_eq!(config.monitor.heartbeat, Heartbeat::Off);
    assert_eq!(config.cluster.name, "shop");
    assert_eq!(config.cluster.consistency, Consistency::Strong);
    assert_eq!(config.cluster.max_lag, Duration::from_secs(120));
    assert_eq!(config.cluster.balance, Balance::RoundRobin);
    let [first, second] = &config.cluster.servers[..] else {
        panic!("two servers")
    };
    let address = ServerAddress::Tcp {
        host: "db1.example.org".to_owned(),
        port: 3306,
    };
    assert_eq!(
        (first.name.as_str(), &first.address, first.weight),
        ("db1", &address, 1)
    );
    assert_eq!(
        (second.name.as_str(), second.weight),
        ("unix:/run/mysqld/a=b.sock", 5)
    );
    assert_eq!(config.cluster.compression, ServerCompression::Zstd);
    assert_eq!(
        (first.compression, second.compression),
        (Some(ServerCompression::Zlib), None)
    );
    let of = |server| {
        let cluster = &config.cluster;
        (
            cluster.compression_of(server),
            cluster.proxy_protocol_of(server),
        )
    };
    assert_eq!(of(first), (ServerCompression::Zlib, ProxyProtocol::Off));
    assert_eq!(of(second), (ServerCompression::Zstd, ProxyProtocol::On));
    let compression = Compression {
        client: ClientCompression::Off,
        zlib_level: 1,
        zstd_level: 2,
    };
    assert_eq!(config.compression, compression);
    assert_eq!(config.users["app"].password.expose(), "one");
    assert_eq!(config.users["with.dot"].password.expose(), "two");
    let limits = Limits {
        hold: Duration::from_secs(1),
        connections: 1,
        address_connections: Some(8),
        account_connections: Some(9),
        logins: 10,
        server_connections: 2,
        queue_depth: 3,
        queue_wait: Duration::from_secs(4),
        login: Duration::from_secs(5),
        idle: Duration::from_secs(6),
        connection_age: Duration::from_secs(7_200),
        warm: 11,
        read_timeout: Duration::from_secs(31),
        write_timeout: Duration::from_secs(61),
        abandoned: Duration::from_secs(4),
        reset_on_ping: None,
        drain: Duration::from_secs(7),
        cache: 128 << 20,
    };
    assert_eq!(config.limits, limits);
    assert_eq!(config.log.level, "warn,dbproxy::monitor=debug");
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn all_problems_come_at_once_in_order_with_place_key_and_suggestion() {
    let found = problems(
        r#"workrs = 2

[listen]
mysql = ["127.0.0.1", "unix:run/x.sock"]

[monitor]
user = "dbproxy"
password = "env:NOT_SET"
interval = 250

[cluster]
servers = ["db1=10.0.0.11:3306", "db1=10.0.0.12:3306", "db3=10.0.0.11:3306", "db4=10.0.0.14:0"]
max_lagg = "5s"
consistency = "usr"

[limits]
hold = "0s"
connections = -1
max_lag = "5s"

[users.app]
passwort = "x"

[log]
level = "inof"
format = true
"#,
    );
    let expected = [
        r#"dbproxy.toml:1:1: error: workrs: unknown key; did you mean "workers"?"#,
        r#"dbproxy.toml:4:10: error: listen.mysql: "127.0.0.1" lacks a port: write "127.0.0.1:3306""#,
        r#"dbproxy.toml:4:23: error: listen.mysql: "unix:run/x.sock": the path of a unix socket must be absolute"#,
        r#"dbproxy.toml:8:12: error: monitor.password: the environment variable "NOT_SET" is not set"#,
        r#"dbproxy.toml:9:12: error: monitor.interval: a duration is a string with a unit; write "250s" or "250ms""#,
        r#"dbproxy.toml:12:34: error: cluster.servers: two servers are named "db1""#,
        r#"dbproxy.toml:12:56: error: cluster.servers: "db3" and "db1" have the same address, 10.0.0.11:3306"#,
        r#"dbproxy.toml:12:78: error: cluster.servers: "10.0.0.14:0": no server listens on port 0"#,
        r#"dbproxy.toml:13:1: error: cluster.max_lagg: unknown key; did you mean "max_lag"?"#,
        r#"dbproxy.toml:14:15: error: cluster.consistency: "usr" is not known; did you mean "user"?"#,
        r#"dbproxy.toml:17:8: error: limits.hold: must not be zero"#,
        r#"dbproxy.toml:18:15: error: limits.connections: -1 is out of range: 1 to 1000000"#,
        r#"dbproxy.toml:19:1: error: limits.max_lag: unknown key; "max_lag" belongs in [cluster]"#,
        r#"dbproxy.toml:21:1: error: users.app.password: is missing (The account's password on the servers)"#,
        r#"dbproxy.toml:22:1: error: users.app.passwort: unknown key; did you mean "password"?"#,
        r#"dbproxy.toml:25:9: error: log.level: "inof" is not a level; did you mean "info"?"#,
        r#"dbproxy.toml:26:10: error: log.format: expected a string, found boolean"#,
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn what_is_missing_is_named() {
    let found = problems("");
    assert_eq!(
        found,
        [
            "dbproxy.toml: error: monitor.user: is missing (The account that watches the servers and reads their accounts)",
            "dbproxy.toml: error: monitor.password: is missing (Its password)",
            "dbproxy.toml: error: cluster.servers: names no server; write servers = [\"db1=10.0.0.11:3306\", …]",
        ]
    );
}

#[test]
fn keys_of_later_versions_say_so() {
    for (addition, key) in [
        ("[listen]\nadmin = []", "listen.admin"),
        ("[listen]\nhttp = []", "listen.http"),
    ] {
        let problem = problem_with(addition);
        assert!(
            problem.ends_with(&format!("error: {key}: is not supported yet")),
            "{problem}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_rule_is_said() {
    for (lines, expected) in [
        (
            "kind = \"read\"",
            "rule: does nothing: it has no action, such as route or block",
        ),
        ("kind = \"reed\"\nlog = true", "did you mean \"read\"?"),
        ("rute = \"primary\"", "did you mean \"route\"?"),
        (
            "route = \"master\"",
            "it can be \"primary\", \"replica\", \"server=NAME\", \"group=NAME\" or \"cluster=NAME\"",
        ),
        (
            "route = \"cluster=mian\"",
            "there is no cluster \"mian\"; did you mean \"main\"?",
        ),
        ("route = \"cluster=\"", "must name a cluster"),
        (
            "mirror = \"shadow\"",
            "rule.mirror: there is no cluster \"shadow\"; there are main",
        ),
        (
            "block = \"x\"\nmirror = \"main\"",
            "rule.mirror: has no meaning",
        ),
        (
            "route = \"server=db9\"",
            "there is no server \"db9\"; did you mean",
        ),
        (
            "route = \"group=reports\"",
            "servers get into a group by `group` in [[cluster.server]]",
        ),
        (
            "listener = \"127.0.0.1:1\"\nlog = true",
            "nothing listens on 127.0.0.1:1",
        ),
        ("client = \"10.0.0.0/40\"\nlog = true", "is not a network"),
        ("account = []\nlog = true", "an empty list fits nothing"),
        (
            "table = \"a.b.c\"\nlog = true",
            "write \"table\" or \"schema.table\"",
        ),
        ("digest = \"12\"\nlog = true", "16 hexadecimal digits"),
        (
            "pattern = \"(\"\nlog = true",
            "not a regular expression: unclosed group",
        ),
        (
            "pattern = \"(a{999}){999}\"\nlog = true",
            "is too big a regular expression",
        ),
        ("time = \"25:00-26:00\"\nlog = true", "is not a time of day"),
        ("sample = 0\nlog = true", "is out of range: 0.000001 to 1"),
        ("sample = 1.5\nlog = true", "is out of range: 0.000001 to 1"),
        ("log = \"yes\"", "expected true or false"),
        (
            "pattern = \"(a)\"\nrewrite = \"$1 $2\"",
            "the pattern has no group \"2\"",
        ),
        (
            "pattern = \"a\"\nrewrite = \"${name}\"",
            "the pattern has no group \"name\"",
        ),
        ("answer = \"no\"", "expected \"ok\" or { columns"),
        (
            "answer = { columns = [], rows = [] }",
            "columns: one to 4096 names",
        ),
        (
            "answer = { columns = [\"a\"], rows = [[1, 2]] }",
            "each is a list of 1 strings",
        ),
        (
            "answer = { columns = [\"a\"], row = [[1]] }",
            "there are columns, rows",
        ),
        ("block = { code = 1 }", "expected a text, or"),
        (
            "block = { message = \"x\", state = \"00000\" }",
            "five digits and capital letters",
        ),
        (
            "block = { message = \"x\", code = 0 }",
            "code is 1 to 65535",
        ),
        (
            "block = \"x\"\nanswer = \"ok\"",
            "a rule answers or blocks, not both",
        ),
        (
            "block = \"x\"\nroute = \"primary\"",
            "lets no server see the statement",
        ),
        ("limit.rows = 0", "is out of range"),
        ("limit.row = 1", "did you mean \"rows\"?"),
        ("limit = 5", "expected a table"),
    ] {
        let problems = problems(&format!("{SMALLEST}[[rule]]\n{lines}"));
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{lines}: {problems:#?}"
        );
    }
    let twice = "[[rule]]\nname = \"a\"\nlog = true\n".repeat(2);
    assert!(problem_with(&twice).contains("another rule has the name \"a\""));
}

#[test]
fn what_is_wrong_with_a_cluster_is_said() {
    let good = "[clusters.b]\nservers = [\"x1=10.0.9.1\"]\nschemas = \"b\"\nmax_lag = \"1s\"\n\
                [clusters.a]\nschemas = \"a\"\n[[clusters.a.server]]\naddress = \"10.0.9.2\"\n";
    let config = parse(&format!("{SMALLEST}{good}")).unwrap();
    let found: Vec<_> = config
        .all_clusters()
        .map(|cluster| (cluster.number, cluster.name.as_str()))
        .collect();
    assert_eq!(found, [(0, "main"), (1, "a"), (2, "b")]);
    assert_eq!(config.clusters[1].max_lag, Duration::from_secs(1));
    for (lines, expected) in [
        (
            "servers = [\"x=10.0.9.1\"]",
            "serves nobody: give it accounts, schemas or server_names",
        ),
        ("schemas = \"a\"", "names no server"),
        (
            "servers = [\"db1=10.0.9.1\"]\nschemas = \"a\"",
            "another cluster has a server \"db1\" too",
        ),
        (
            "servers = [\"x=10.0.9.1\"]\nschema = \"a\"",
            "did you mean \"schemas\"?",
        ),
        (
            "servers = [\"x=10.0.9.1\"]\nschemas = \"a\"\nname = \"b\"",
            "clusters.a.name: unknown key",
        ),
        (
            "servers = [\"x=10.0.9.1\"]\nschemas = []",
            "an empty list fits nothing",
        ),
    ] {
        let problems = problems(&format!("{SMALLEST}[clusters.a]\n{lines}"));
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{lines}: {problems:#?}"
        );
    }
    let same = format!("{SMALLEST}[clusters.main]\nservers = [\"x=10.0.9.1\"]\nschemas = \"a\"");
    assert!(problems(&same)[0].contains("[cluster] has this name"));
}

#[test]
fn tables_and_lists_are_told_apart() {
    let problem = problem_with("[limits]\nhold = { seconds = 1 }");
    assert!(
        problem.ends_with("limits.hold: expected a string, found table"),
        "{problem}"
    );
    let problem = problem_with("[users]\napp = \"secret\"");
    assert!(
        problem.contains("users.app: expected a table: write [users.app], found string"),
        "{problem}"
    );
    let problem = problem_with("[cluster.server]\naddress = \"x\"");
    assert!(problem.contains("write [[cluster.server]]"), "{problem}");
    let found = problems("cluster = 5\nmonitor = []\n[[limits]]");
    for key in ["cluster", "monitor", "limits"] {
        assert!(
            found
                .iter()
                .any(|problem| problem.contains(&format!("{key}: expected a table"))),
            "{found:#?}"
        );
    }
}

#[test]
fn two_ways_to_name_servers_do_not_mix() {
    let problem = problem_with("[[cluster.server]]\naddress = \"10.0.0.13\"");
    assert!(
        problem.contains("use either cluster.servers or [[cluster.server]]"),
        "{problem}"
    );
}

#[test]
fn a_proxy_does_not_connect_to_itself() {
    let problem = problem_with("[listen]\nmysql = [\"10.0.0.11:3306\"]");
    assert!(
        problem.contains("listen.mysql: 10.0.0.11:3306 is also the address of a server"),
        "{problem}"
    );
}

#[test]
fn tls_is_read() {
    let config = parse(SMALLEST).unwrap();
    assert_eq!(config.tls, Tls::default());
    assert_eq!(config.tls.client.mode, ClientMode::Optional);
    assert_eq!(config.tls.server.mode, ServerMode::Preferred);
    assert_eq!(config.state_directory, None);
    let config = parse(
        r#"
        state_directory = "state"
        [listen]
        mysql_tls = ["127.0.0.1:3307"]
        [monitor]
        user = "watch"
        password = ""
        [[cluster.server]]
        address = "db1"
        tls = "verify-ca"
        [[cluster.server]]
        address = "db2"
        [tls.client]
        mode = "required"
        certificate = "c.pem"
        key = "c.key"
        ca = "clients.pem"
        [tls.server]
        mode = "required"
        ca = "/servers.pem"
        "#,
    )
    .unwrap();
    let path = |path: &str| Some(PathBuf::from(path));
    assert_eq!(config.state_directory, path("state"));
    assert_eq!(config.listen.mysql_tls[0].to_string(), "127.0.0.1:3307");
    let client = config.tls.client;
    assert_eq!(client.mode, ClientMode::Required);
    let identity = client.identity.unwrap();
    assert_eq!(Some(identity.certificate), path("c.pem"));
    assert_eq!(Some(identity.key), path("c.key"));
    assert_eq!(client.ca, path("clients.pem"));
    assert_eq!(config.tls.server.mode, ServerMode::Required);
    assert_eq!(config.tls.server.ca, path("/servers.pem"));
    let modes: Vec<_> = config
        .cluster
        .servers
        .iter()
        .map(|server| server.tls)
        .collect();
    assert_eq!(modes, [Some(ServerMode::VerifyCa), None]);
}

#[test]
fn listeners_may_all_need_tls() {
    let listen = |lines: &str| {
        parse(&format!("{SMALLEST}\n[listen]\n{lines}"))
            .unwrap()
            .listen
    };
    assert_eq!(listen("mysql_tls = []"), parse(SMALLEST).unwrap().listen);
    let only = listen("mysql = []\nmysql_tls = [\"127.0.0.1:3307\"]");
    assert_eq!((only.mysql.len(), only.mysql_tls.len()), (0, 1));
}

#[test]
fn observing_is_asked_for() {
    let usual = parse(SMALLEST).unwrap();
    assert_eq!(usual.mode, Mode::Route);
    assert!((usual.observe.sample - 0.01).abs() < f64::EPSILON);
    let sample = |value: &str| {
        let text = format!("mode = \"observe\"\n{SMALLEST}\n[observe]\nsample = {value}");
        let config = parse(&text).unwrap();
        assert_eq!(config.mode, Mode::Observe);
        config.observe.sample
    };
    for (value, expected) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1e-3", 0.001)] {
        assert!((sample(value) - expected).abs() < f64::EPSILON, "{value}");
    }
    for (value, said) in [
        ("1.5", "is out of range: 0 to 1"),
        ("-1", "is out of range: 0 to 1"),
        ("nan", "is out of range: 0 to 1"),
        ("\"1 %\"", "a number from 0 to 1"),
    ] {
        let problem = problem_with(&format!("[observe]\nsample = {value}"));
        assert!(
            problem.contains("observe.sample") && problem.contains(said),
            "{problem}"
        );
    }
}

#[test]
fn tls_does_not_contradict_itself() {
    for (addition, said) in [
        (
            "[tls.client]\ncertificate = \"c.pem\"",
            "tls.client.certificate: needs tls.client.key as well",
        ),
        (
            "[tls.server]\nkey = \"k.pem\"",
            "tls.server.key: needs tls.server.certificate as well",
        ),
        (
            "[tls.server]\nmode = \"verify-ca\"",
            "tls.server.mode: needs tls.server.ca",
        ),
        (
            "[tls.server]\nmode = \"verify_identity\"",
            "did you mean \"verify-identity\"?",
        ),
        (
            "[tls.client]\nmode = \"disabled\"\n[listen]\nmysql_tls = [\"127.0.0.1:3307\"]",
            "listen.mysql_tls: needs TLS, which tls.client.mode disables",
        ),
        (
            "[listen]\nmysql = [\"127.0.0.1:3307\"]\nmysql_tls = [\"127.0.0.1:3307\"]",
            "listen.mysql_tls: 127.0.0.1:3307 is also in listen.mysql",
        ),
    ] {
        let problem = problem_with(addition);
        assert!(problem.contains(said), "{problem}");
    }
    assert!(problem_with("[listen]\nmysql = []").contains("listen.mysql: must name at least one"));
    let text = "[monitor]\nuser = \"u\"\npassword = \"\"\n[[cluster.server]]\naddress = \"db1\"\ntls = \"verify-ca\"";
    let problem = problems(text).join("\n");
    assert!(problem.contains("needs tls.server.ca"), "{problem}");
    // A server that is wrong in another way does not shift the places of the others.
    let text = "[monitor]\nuser = \"u\"\npassword = \"\"\n[[cluster.server]]\nname = \"db0\"\n[[cluster.server]]\naddress = \"db1\"\ntls = \"verify-ca\"";
    let problem = problems(text).join("\n");
    assert!(
        problem.contains("dbproxy.toml:6:1: error: cluster.server.tls"),
        "{problem}"
    );
}

#[test]
fn syntax_errors_have_a_place_and_come_alone() {
    let found = problems("[monitor]\nuser = \"unfinished\npassword = \"hunter2\n");
    assert!(found.len() >= 2, "{found:#?}");
    assert!(found[0].starts_with("dbproxy.toml:2:"), "{found:#?}");
    assert!(
        found.iter().all(|problem| !problem.contains("is missing")),
        "{found:#?}"
    );
    assert!(
        found.iter().all(|problem| !problem.contains("hunter2")),
        "{found:#?}"
    );

    let found = problems(&format!("{SMALLEST}servers = []"));
    assert!(found[0].contains("duplicate key"), "{found:#?}");
}

#[test]
fn secrets_come_from_the_environment_and_from_files() {
    let world = World {
        variables: BTreeMap::from([("MONITOR", "from-env")]),
        files: BTreeMap::from([
            ("app.secret", ("from-file\n", false)),
            ("web.secret", ("two\nlines\r\n", true)),
        ]),
    };
    let text = SMALLEST.replace("\"secret\"", "\"env:MONITOR\"")
        + "[users.app]\npassword = \"file:app.secret\"\n[users.web]\npassword = \"file:web.secret\"\n";
    let loaded = config::parse(&text, "dbproxy.toml", &world).unwrap();
    assert_eq!(loaded.config.monitor.password.expose(), "from-env");
    assert_eq!(loaded.config.users["app"].password.expose(), "from-file");
    assert_eq!(loaded.config.users["web"].password.expose(), "two\nlines");
    let [warning] = &loaded.warnings[..] else {
        panic!("{:#?}", loaded.warnings)
    };
    assert_eq!(warning.severity, Severity::Warning);
    assert!(
        warning
            .to_string()
            .contains("every account of this machine can read \"web.secret\"")
    );

    let problem = problem_with("[users.app]\npassword = \"file:/none\"");
    assert!(
        problem.contains("users.app.password: cannot read \"/none\""),
        "{problem}"
    );
}

#[test]
fn no_secret_is_ever_shown() {
    let text = format!("{SMALLEST}[users.app]\npassword = \"hunter2\"\n");
    let config = parse(&text).unwrap();
    let shown = format!("{config:?}");
    assert!(
        shown.contains("[secret]") && !shown.contains("hunter2"),
        "{shown}"
    );

    // A wrong type would be the one occasion to print the value.
    for value in ["12345678", "[\"hunter2\"]", "{ hunter2 = \"hunter2\" }"] {
        let problem = problem_with(&format!("[users.app]\npassword = {value}\n"));
        assert!(
            !problem.contains("hunter2") && !problem.contains("12345678"),
            "{problem}"
        );
    }
}

#[test]
fn a_file_is_loaded_with_its_own_directory_and_permissions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dbproxy.toml");
    fs::write(directory.path().join("monitor.secret"), "from-file\n").unwrap();
    fs::set_permissions(
        directory.path().join("monitor.secret"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    fs::write(
        &path,
        SMALLEST.replace("\"secret\"", "\"file:monitor.secret\""),
    )
    .unwrap();
    let loaded = config::load(&path).unwrap();
    assert_eq!(loaded.config.monitor.password.expose(), "from-file");
    assert!(loaded.warnings.is_empty(), "{:#?}", loaded.warnings);

    fs::write(&path, SMALLEST).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = config::load(&path).unwrap();
    assert!(
        loaded.warnings[0].message.contains("holds a password"),
        "{:#?}",
        loaded.warnings
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(config::load(&path).unwrap().warnings.is_empty());

    let Problems(missing) = config::load(&directory.path().join("none.toml")).unwrap_err();
    assert!(
        missing[0].message.contains("cannot read the file"),
        "{missing:#?}"
    );
}

#[test]
fn the_examples_are_accepted() {
    let world = World {
        variables: BTreeMap::from([
            ("DBPROXY_MONITOR_PASSWORD", "x"),
            ("DBPROXY_REPLICATION_PASSWORD", "x"),
            ("APP_PASSWORD", "x"),
        ]),
        files: BTreeMap::from([("/etc/dbproxy/reports.secret", ("x\n", false))]),
    };
    let mut seen = 0;
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let text = fs::read_to_string(&path).unwrap();
            if let Err(problems) = config::parse(&text, &path.display().to_string(), &world) {
                panic!("{problems}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 2);
}

/// README shows the table of keys that the program itself uses. `DBPROXY_UPDATE=1 cargo test --test config` writes it.
#[test]
fn the_reference_in_readme_is_the_one_in_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(path).unwrap();
    let (begin, end) = (
        "<!-- configuration reference: begin -->\n",
        "<!-- configuration reference: end -->",
    );
    let (before, rest) = readme
        .split_once(begin)
        .expect("README has the begin marker");
    let (shown, after) = rest.split_once(end).expect("README has the end marker");
    let wanted = format!("\n{}\n", config::reference());
    if shown == wanted {
        return;
    }
    if std::env::var_os("DBPROXY_UPDATE").is_some() {
        fs::write(path, format!("{before}{begin}{wanted}{end}{after}")).unwrap();
        return;
    }
    panic!(
        "README's configuration reference is not the code's: run DBPROXY_UPDATE=1 cargo test --test config"
    );
}

/// Half-written files and files with a value of the wrong type are what editors save.
#[test]
fn no_text_makes_it_panic_or_report_nothing() {
    let full = include_str!("../examples/full.toml");
    for end in (0..full.len()).filter(|end| full.is_char_boundary(*end)) {
        if let Err(Problems(problems)) = config::parse(&full[..end], "x", &World::default()) {
            assert!(
                problems
                    .iter()
                    .any(|problem| problem.severity == Severity::Error)
            );
        }
    }
    for value in [
        "1",
        "-1",
        "1.5",
        "true",
        "\"\"",
        "\"x\"",
        "[]",
        "[[]]",
        "[1]",
        "{}",
        "{ x = {} }",
        "2026-01-01",
    ] {
        for (at, _) in full.match_indices(" = ") {
            let end = full[at..].find('\n').map_or(full.len(), |end| at + end);
            let text = format!("{} = {value}{}", &full[..at], &full[end..]);
            let _ = config::parse(&text, "x", &World::default());
        }
        for key in [
            "workers",
            "listen",
            "monitor",
            "cluster",
            "cluster.server",
            "users",
            "users.x",
            "limits",
            "log",
        ] {
            let _ = config::parse(&format!("{key} = {value}"), "x", &World::default());
        }
    }
}

#[test]
fn a_single_value_is_checked_as_in_the_file() {
    for (key, value) in [
        ("limits.connections", "5"),
        ("limits.hold", "\"5s\""),
        ("cluster.server[].address", "\"db1\""),
        ("cluster.server[].weight", "1000"),
        ("listen.proxy_protocol", "[\"10.0.0.0/8\"]"),
        ("monitor.password", "\"open sesame\""),
    ] {
        assert_eq!(config::fits(key, value), Ok(()), "{key} = {value}");
    }
    for (key, value, message) in [
        ("limits.connection", "5", "is not a key"),
        ("limits.connections", "0", "0 is out of range: 1 to 1000000"),
        ("limits.hold", "5", "a duration is a string with a unit"),
        ("cluster.server[].weight", "1\nx = 2", "is not a value"),
        ("monitor.password", "\"env:NAME\"", "is not set"),
    ] {
        let found = config::fits(key, value).unwrap_err();
        assert!(found.contains(message), "{key} = {value}: {found}");
    }
}

#[test]
fn programs_are_files_that_can_be_run() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, mode: u32| {
        let path = directory.path().join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    };
    file("good", 0o700);
    file("plain", 0o600);
    let process = config::Process {
        directory: directory.path().to_owned(),
    };
    let parse = |key: &str, value: &str| {
        let text = format!("{SMALLEST}[cluster.hooks]\n{key} = {value:?}\n");
        config::parse(&text, "x", &process)
    };
    let hooks = parse("fence", "good").unwrap().config.cluster.hooks;
    assert_eq!(hooks.fence, Some(directory.path().join("good")));
    assert_eq!(hooks.timeout, Duration::from_secs(30));
    for key in ["fence", "before_promote", "after_promote"] {
        for (value, part) in [
            ("plain", "is not executable"),
            ("lacking", "cannot be read"),
            (".", "is not a file"),
        ] {
            let Err(Problems(problems)) = parse(key, value) else {
                panic!("accepted {value}");
            };
            let text = problems[0].to_string();
            assert!(text.contains(&format!("cluster.hooks.{key}")), "{text}");
            assert!(text.contains(part), "{text}");
        }
    }
}
