//! What the suites share: the built proxy in front of real servers, and clients for it.

// Every suite uses its own part of this.
#![allow(dead_code, unreachable_pub)]

pub mod corpus;
pub mod pair;
pub mod raw;
pub mod relay;
pub mod tls;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Error, OptsBuilder};
use tokio::sync::OnceCell;
use tokio::time::{self, Instant, MissedTickBehavior};

use dbproxy::cli::demo::cluster::{
    self, Cluster, Flavor, PrivateDirectory, ReservedPort, ServerProcess,
};

/// An ordinary read whose answer is the name of the server that ran it.
pub const WHERE: &str = "SELECT name FROM test.where_am_i";

/// How long anything may take that is expected to happen soon. Only failures wait this long.
pub const SOON: Duration = Duration::from_secs(30);

/// Both flavours' servers with the proxy in front, started once per suite.
pub struct Rig {
    pub cluster: Cluster,
    pub proxy: Proxy,
}

impl Rig {
    /// A primary, `replicas` replicas and the proxy, for one test alone.
    pub async fn start(flavor: Flavor, replicas: usize, options: &Options) -> Self {
        let cluster = Cluster::start(flavor, replicas).await.unwrap();
        let proxy = Proxy::start(&cluster, options).await;
        proxy.knows_replicas(replicas).await;
        Self { cluster, proxy }
    }

    /// The suite's own rig: a primary and two replicas. Tests that share it keep to their own schemas.
    pub async fn shared(flavor: Flavor) -> &'static Self {
        static MARIADB: OnceCell<Rig> = OnceCell::const_new();
        static MYSQL: OnceCell<Rig> = OnceCell::const_new();
        let cell = match flavor {
            Flavor::MariaDb => &MARIADB,
            Flavor::MySql => &MYSQL,
        };
        cell.get_or_init(async || Self::start(flavor, 2, &Options::default()).await)
            .await
    }

    /// An empty schema for one test, made on the primary and known to every server, and its name.
    pub async fn schema(&self, name: &str) -> String {
        self.cluster
            .primary()
            .run(&format!(
                "DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}"
            ))
            .await
            .unwrap();
        self.cluster.caught_up().await.unwrap();
        name.to_owned()
    }

    /// An account with the rights of `app`, whose password is its name. What it writes is remembered for it alone.
    pub async fn account(&self, name: &str) -> OptsBuilder {
        let sql = format!(
            "CREATE USER IF NOT EXISTS {name}@'%' IDENTIFIED BY '{name}'; \
             GRANT {} ON *.* TO {name}@'%'",
            cluster::APPLICATION_PRIVILEGES
        );
        self.cluster.primary().run(&sql).await.unwrap();
        self.cluster.caught_up().await.unwrap();
        let options = login(self.proxy.port(), name, name);
        eventually("the new account to be known", async || {
            Conn::new(options.clone()).await.is_ok()
        })
        .await;
        options
    }

    /// A connection of `app` through the proxy.
    pub async fn connect(&self) -> Conn {
        self.proxy.connect().await
    }

    /// A connection of `app` to the server itself.
    pub async fn direct(&self, server: &ServerProcess) -> Conn {
        Conn::new(application(server.port())).await.unwrap()
    }
}

/// What differs from the smallest configuration.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// Lines of the section `[cluster]`.
    pub cluster: String,
    /// Whole sections.
    pub sections: String,
    /// Keys before the first section; the `state_directory` is the proxy's own unless one stands here.
    pub top: String,
    /// Further lines of the section `[listen]`.
    pub listen: String,
    /// `name=address` of each server, instead of the cluster's own addresses.
    pub servers: Option<Vec<String>>,
    /// The group of each server that has one, by its name.
    pub groups: Vec<(&'static str, &'static str)>,
}

/// `dbproxy serve`, as it is built, with a configuration of its own.
#[derive(Debug)]
pub struct Proxy {
    child: Mutex<Option<Child>>,
    port: ReservedPort,
    directory: PrivateDirectory,
}

impl Proxy {
    /// Starts the proxy in front of the cluster and returns when it accepts a login.
    pub async fn start(cluster: &Cluster, options: &Options) -> Self {
        let servers = options
            .servers
            .clone()
            .unwrap_or_else(|| addresses(cluster));
        let proxy = Self::spawn(&servers, options);
        eventually("the proxy to accept a login", async || {
            proxy.must_run();
            Conn::new(application(proxy.port())).await.is_ok()
        })
        .await;
        proxy
    }

    /// Starts the proxy without waiting for anything.
    pub fn spawn(servers: &[String], options: &Options) -> Self {
        let port = ReservedPort::take().unwrap();
        let directory = PrivateDirectory::create().unwrap();
        // One level below, where the directory's watchdog looks for processes to end.
        let home = directory.path().join("proxy");
        fs::create_dir(&home).unwrap();
        let configuration = format!(
            "{}\n\n[listen]\nmysql = [\"127.0.0.1:{}\", \"unix:{}\"]\n{}\n\n\
             [monitor]\nuser = \"dbproxy\"\npassword = \"dbproxy\"\n\n\
             [cluster]\n{}\n{}\n\n{}\n{}\n",
            if options.top.contains("state_directory") {
                options.top.clone()
            } else {
                // Not the system's own.
                format!("{}\nstate_directory = \"state\"", options.top)
            },
            port.number(),
            home.join("sock").display(),
            options.listen,
            if options.groups.is_empty() {
                format!("servers = {servers:?}")
            } else {
                String::new()
            },
            options.cluster,
            long_form(servers, &options.groups),
            options.sections,
        );
        let configuration = if options.sections.contains("[log]") {
            configuration
        } else {
            configuration + "[log]\nlevel = \"debug\"\n"
        };
        let file = home.join("dbproxy.toml");
        let mut options = OpenOptions::new();
        let mut private = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .unwrap();
        private.write_all(configuration.as_bytes()).unwrap();
        let log = File::create(home.join("log")).unwrap();
        // Another build can be put to the same tests.
        let built = env!("CARGO_BIN_EXE_dbproxy").to_owned();
        let program = std::env::var("DBPROXY_TEST_PROGRAM").unwrap_or(built);
        let child = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        fs::write(home.join("pid"), child.id().to_string()).unwrap();
        Self {
            child: Mutex::new(Some(child)),
            port,
            directory,
        }
    }

    /// The TCP port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.home().join("sock")
    }

    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.home().join("dbproxy.toml")
    }

    /// The process number.
    pub fn pid(&self) -> u32 {
        self.child().as_ref().unwrap().id()
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.home().join("log")).unwrap_or_default()).into_owned()
    }

    /// A connection of `app` over TCP.
    pub async fn connect(&self) -> Conn {
        Conn::new(application(self.port()))
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Waits until that many servers other than the primary get reads.
    pub async fn knows_replicas(&self, replicas: usize) {
        let mut seen = BTreeSet::new();
        let known = within(SOON, async || {
            let mut conn = self.connect().await;
            // Else its reads stay with one of them.
            conn.query_drop("SET @dbproxy_consistency = 'eventual'")
                .await
                .unwrap();
            for _ in 0..20 {
                seen.extend(conn.query::<String, _>(WHERE).await.unwrap());
            }
            seen.iter().filter(|name| *name != "db1").count() == replicas
        })
        .await;
        assert!(
            known,
            "reads went only to {seen:?}; the proxy's log:\n{}",
            self.log()
        );
    }

    /// Asks the proxy to end (SIGTERM).
    pub fn terminate(&self) {
        cluster::signal(self.pid(), "TERM").unwrap();
    }

    /// The exit status, once the process has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().as_mut().unwrap().try_wait().unwrap()
    }

    /// Fails when the process has ended, with what it logged.
    pub fn must_run(&self) {
        if let Some(status) = self.ended() {
            panic!("the proxy ended with {status}; its log:\n{}", self.log());
        }
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("proxy")
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(100)..].join("\n");
            eprintln!("the proxy's log ends:\n{end}");
        }
        if let Some(mut child) = self.child().take() {
            // A proxy that does not stop by itself is the business of the test for that.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.home().join("pid"));
    }
}

/// The servers with their groups; nothing if there are none.
fn long_form(servers: &[String], groups: &[(&str, &str)]) -> String {
    let mut sections = String::new();
    for server in servers.iter().filter(|_| !groups.is_empty()) {
        let (name, address) = server.split_once('=').unwrap();
        let group = groups.iter().find(|(of, _)| *of == name);
        let group = group.map_or(String::new(), |(_, group)| format!("group = \"{group}\"\n"));
        sections.push_str(&format!(
            "[[cluster.server]]\nname = \"{name}\"\naddress = \"{address}\"\n{group}"
        ));
    }
    sections
}

/// The rights that README asks for the monitor's account where there is failover: everywhere, and in its own schema.
pub fn failover_rights(flavor: Flavor) -> (Vec<String>, Vec<String>) {
    let name = match flavor {
        Flavor::MySql => "-- MySQL, for failover\n",
        Flavor::MariaDb => "-- MariaDB, for failover\n",
    };
    let readme = include_str!("../../README.md");
    let (_, rest) = readme
        .split_once(name)
        .expect("README names the rights for failover");
    let mut grants = rest.split("GRANT ").skip(1).map(|grant| {
        let (rights, _) = grant.split_once(" ON ").unwrap();
        rights
            .split(',')
            .map(|right| right.trim().to_owned())
            .collect()
    });
    (grants.next().unwrap(), grants.next().unwrap())
}

/// `name=address` of every server, as in the configuration.
pub fn addresses(cluster: &Cluster) -> Vec<String> {
    cluster
        .servers()
        .iter()
        .map(|server| format!("{}=127.0.0.1:{}", server.name(), server.port()))
        .collect()
}

/// The options of `app` on a port of this machine.
pub fn application(port: u16) -> OptsBuilder {
    login(port, "app", "app")
}

/// The options of an account on a port of this machine.
pub fn login(port: u16, user: &str, password: &str) -> OptsBuilder {
    OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        // The client would ask for the server's unix socket and go round the proxy.
        .prefer_socket(false)
        // It would ask for these, and a connection of its own for the answer.
        .max_allowed_packet(Some(64 << 20))
        .wait_timeout(Some(28_800))
        .user(Some(user))
        .pass(Some(password))
}

/// The name of the server that answers an ordinary read.
pub async fn whereabouts(conn: &mut Conn) -> String {
    one(conn, WHERE).await
}

/// The first row of a query.
pub async fn one<T: FromRow + Send + 'static>(conn: &mut Conn, sql: &str) -> T {
    match conn.query_first(sql).await {
        Ok(Some(row)) => row,
        Ok(None) => panic!("{sql}: no rows"),
        Err(error) => panic!("{sql}: {error}"),
    }
}

/// The number of the error that a statement ends with.
pub async fn error_of(conn: &mut Conn, sql: &str) -> u16 {
    match conn.query_drop(sql).await {
        Ok(()) => panic!("{sql}: no error"),
        Err(error) => code(&error),
    }
}

/// What a program prints; it must end well.
pub async fn output(mut command: tokio::process::Command) -> String {
    let run = command.kill_on_drop(true).output();
    let output = time::timeout(4 * SOON, run)
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"));
    let output = output.unwrap_or_else(|error| {
        panic!("{command:?}: {error}; the programs come from: compose/install-servers --tests");
    });
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{printed}{said}",
        output.status
    );
    printed + &said
}

/// A server's error number; 0 for an error that no server sent.
pub fn code(error: &Error) -> u16 {
    match error {
        Error::Server(error) => error.code,
        _ => 0,
    }
}

/// Asks for `condition` again and again until it holds; panics when that takes longer than [`SOON`].
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(within(SOON, condition).await, "waited {SOON:?} for {what}");
}

/// Asks for `condition` again and again until it holds: did it, within `patience`?
pub async fn within(patience: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    let mut ticks = time::interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if condition().await {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// Runs each test body named once per flavour, as `mariadb::name` and `mysql::name`.
#[macro_export]
macro_rules! on_both_flavors {
    ($($name:ident),* $(,)?) => {
        mod mariadb {
            $(#[tokio::test]
            async fn $name() { super::$name(dbproxy::cli::demo::cluster::Flavor::MariaDb).await; })*
        }
        mod mysql {
            $(#[tokio::test]
            async fn $name() { super::$name(dbproxy::cli::demo::cluster::Flavor::MySql).await; })*
        }
    };
}
