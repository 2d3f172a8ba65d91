//! A cluster of real database servers on loopback: one primary and its replicas, replicating by GTID.
//!
//! Every server has a private data directory, which is removed in the end, and a port of its own. The servers end with
//! this process, however it ends. Accounts: `root` without a password on the unix socket, `app`/`app` for
//! applications, `dbproxy`/`dbproxy` for the monitor, `repl`/`repl` for replication. The table
//! `test.where_am_i (name)` has another row on every server, outside replication: an ordinary read that tells who
//! answered.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder};
use tokio::time::{self, Instant, MissedTickBehavior};

use crate::cli::demo::directory;
use crate::cli::demo::programs::{self, Programs};

pub use crate::cli::demo::directory::PrivateDirectory;
pub use crate::topology::Flavor;

/// Why a cluster could not be started or asked.
#[derive(Debug)]
pub enum LaunchError {
    /// The server programs are not on this machine.
    MissingPrograms(Flavor),
    /// The system refused something; the text says what was tried.
    System(String, io::Error),
    /// A server did not do what it should; the text has the end of its log.
    Server(String),
    /// A statement failed on a server of the cluster.
    Statement(String, mysql_async::Error),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingPrograms(flavor) => {
                let key = key(*flavor);
                write!(
                    f,
                    "no {flavor} server on this machine; install it with: sudo compose/install-servers {key}"
                )
            }
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Server(what) => f.write_str(what),
            Self::Statement(sql, error) => write!(f, "{sql}: {error}"),
        }
    }
}

impl std::error::Error for LaunchError {}

/// One primary and its replicas, all of them processes of this machine.
#[derive(Debug)]
pub struct Cluster {
    flavor: Flavor,
    // Before the directory: the servers end before their files go.
    servers: Vec<ServerProcess>,
    directory: PrivateDirectory,
}

impl Cluster {
    /// Starts a primary (`db1`) and `replicas` replicas (`db2`, ...) of it, and returns when all of them replicate.
    ///
    /// # Errors
    /// Missing programs, or a server that does not start.
    pub async fn start(flavor: Flavor, replicas: usize) -> Result<Self, LaunchError> {
        let programs = Programs::find(flavor)?;
        let directory = PrivateDirectory::create().map_err(system("making a private directory"))?;
        let template = Template::prepare(&programs, flavor)?;
        let mut servers = Vec::with_capacity(replicas + 1);
        for number in 1..=replicas + 1 {
            servers.push(ServerProcess::create(
                &programs,
                flavor,
                directory.path(),
                &template,
                number,
            )?);
        }
        let cluster = Self {
            flavor,
            servers,
            directory,
        };
        for server in &cluster.servers {
            server.ready().await?;
            server
                .run(&format!(
                    "SET sql_log_bin=0; INSERT INTO test.where_am_i VALUES ('{}')",
                    server.name
                ))
                .await?;
        }
        for replica in cluster.replicas() {
            cluster.replicate(replica, cluster.primary()).await?;
            replica.run(read_only(flavor)).await?;
        }
        cluster.caught_up().await?;
        Ok(cluster)
    }

    /// Whose servers they are.
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// A client program of the servers' packages (`mariadb`, `mysqldump`, ...) that reads no option files.
    ///
    /// # Errors
    /// Missing programs.
    pub fn client(&self, name: &str) -> Result<Command, LaunchError> {
        Ok(Programs::find(self.flavor)?.client(name))
    }

    /// All servers; the first is the one that started as the primary.
    pub fn servers(&self) -> &[ServerProcess] {
        &self.servers
    }

    /// The server that started as the primary, `db1`.
    #[allow(clippy::indexing_slicing)] // There is always a first server: `start` makes at least one.
    pub fn primary(&self) -> &ServerProcess {
        &self.servers[0]
    }

    /// The servers that started as replicas.
    pub fn replicas(&self) -> &[ServerProcess] {
        self.servers.get(1..).unwrap_or_default()
    }

    /// The server of that name.
    pub fn server(&self, name: &str) -> Option<&ServerProcess> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// Where the servers' files are: `<directory>/<name>/{log,sock,pid,data}`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Makes `replica` replicate from `source` by GTID, and waits until both of its threads run.
    ///
    /// # Errors
    /// What the server says, or that the threads did not start.
    pub async fn replicate(
        &self,
        replica: &ServerProcess,
        source: &ServerProcess,
    ) -> Result<(), LaunchError> {
        let port = source.port();
        let sql = match self.flavor {
            Flavor::MariaDb => format!(
                "SET GLOBAL gtid_slave_pos=@@gtid_current_pos; \
                 CHANGE MASTER TO master_host='127.0.0.1', master_port={port}, master_user='repl', \
                 master_password='repl', master_use_gtid=slave_pos, master_connect_retry=1; START SLAVE"
            ),
            Flavor::MySql => format!(
                "CHANGE REPLICATION SOURCE TO source_host='127.0.0.1', source_port={port}, source_user='repl', \
                 source_password='repl', source_auto_position=1, get_source_public_key=1, source_connect_retry=1; \
                 START REPLICA"
            ),
        };
        replica.run(&sql).await?;
        let what = format!("{} to replicate from {}", replica.name, source.name);
        until(Duration::from_secs(30), &what, async || {
            Ok(replica.replicating().await? == (true, true))
        })
        .await
    }

    /// Waits until every replica has applied everything that `db1` has in its binary log now.
    ///
    /// # Errors
    /// A replica that does not get there within 30 seconds.
    pub async fn caught_up(&self) -> Result<(), LaunchError> {
        for replica in self.replicas() {
            replica.reach(&self.primary().position().await?).await?;
        }
        Ok(())
    }

    /// Changes roles as an operator would: `to` becomes writable, all others become its read-only replicas.
    ///
    /// # Errors
    /// What a server says.
    pub async fn switch_primary(
        &self,
        from: &ServerProcess,
        to: &ServerProcess,
    ) -> Result<(), LaunchError> {
        from.run(read_only(self.flavor)).await?;
        to.reach(&from.position().await?).await?;
        to.run(match self.flavor {
            Flavor::MariaDb => "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=0",
            Flavor::MySql => "STOP REPLICA; RESET REPLICA ALL; SET PERSIST super_read_only=0; SET PERSIST read_only=0",
        })
        .await?;
        for server in self.servers.iter().filter(|server| server.name != to.name) {
            if server.name != from.name {
                server.run(stop_replica(self.flavor)).await?;
            }
            self.replicate(server, to).await?;
        }
        Ok(())
    }
}

/// One server: its process, its files and its addresses.
#[derive(Debug)]
pub struct ServerProcess {
    flavor: Flavor,
    name: String,
    number: usize,
    port: ReservedPort,
    directory: PathBuf,
    programs: Programs,
    child: Mutex<Option<Child>>,
}

impl ServerProcess {
    fn create(
        programs: &Programs,
        flavor: Flavor,
        directory: &Path,
        template: &Template,
        number: usize,
    ) -> Result<Self, LaunchError> {
        let name = format!("db{number}");
        let directory = directory.join(&name);
        fs::create_dir(&directory).map_err(system("making a server's directory"))?;
        copy_directory(&template.data, &directory.join("data"))
            .map_err(system("copying a data directory"))?;
        let port = ReservedPort::take().map_err(system("looking for a free port"))?;
        let child = Mutex::new(None);
        let programs = programs.clone();
        let server = Self {
            flavor,
            name,
            number,
            port,
            directory,
            programs,
            child,
        };
        server.spawn()?;
        Ok(server)
    }

    /// Its name in the configuration: `db1`, `db2`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The TCP port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The unix socket, on which `root` needs no password.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("sock")
    }

    /// The number of the server's process, or `None` while it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Kills the server without warning (SIGKILL) and returns when its process is gone.
    pub fn kill9(&self) {
        if let Some(mut child) = self.child().take() {
            // Both fail only when the process has already ended, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.directory.join("pid"));
        let _ = fs::remove_file(self.socket());
    }

    /// Makes the server hang (SIGSTOP): its sockets stay open, nothing answers.
    ///
    /// # Errors
    /// What the system says.
    pub fn stop(&self) -> Result<(), LaunchError> {
        self.signal("STOP")
    }

    /// Lets a server that was stopped go on (SIGCONT).
    ///
    /// # Errors
    /// What the system says.
    pub fn cont(&self) -> Result<(), LaunchError> {
        self.signal("CONT")
    }

    /// Starts the server again on the same data and port after [`kill9`](Self::kill9), and waits until it answers.
    ///
    /// # Errors
    /// A server that does not start.
    pub async fn restart(&self) -> Result<(), LaunchError> {
        self.kill9();
        self.spawn()?;
        self.ready().await
    }

    /// A connection as `root` through the unix socket.
    ///
    /// # Errors
    /// What the server says.
    pub async fn connect(&self) -> Result<Conn, LaunchError> {
        let options = OptsBuilder::default()
            .user(Some("root"))
            .socket(self.socket().to_str().map(str::to_owned));
        let connecting = Conn::new(options);
        match time::timeout(PATIENCE, connecting).await {
            Ok(result) => result.map_err(statement("connecting")),
            Err(_) => Err(LaunchError::Server(format!(
                "{} did not answer a login within {PATIENCE:?}",
                self.name
            ))),
        }
    }

    /// Runs statements, separated by semicolons, as `root`.
    ///
    /// # Errors
    /// What the server says to the first that fails.
    pub async fn run(&self, sql: &str) -> Result<(), LaunchError> {
        let mut conn = self.connect().await?;
        // Each statement by itself: the end of a multi-statement's later errors is easily overlooked.
        for part in sql.split("; ") {
            conn.query_drop(part).await.map_err(statement(part))?;
        }
        let _ = conn.disconnect().await;
        Ok(())
    }

    /// All rows of one statement, run as `root`.
    ///
    /// # Errors
    /// What the server says.
    pub async fn rows<T: FromRow + Send + 'static>(
        &self,
        sql: &str,
    ) -> Result<Vec<T>, LaunchError> {
        let mut conn = self.connect().await?;
        let rows = conn.query(sql).await.map_err(statement(sql))?;
        let _ = conn.disconnect().await;
        Ok(rows)
    }

    /// The first row of one statement, run as `root`.
    ///
    /// # Errors
    /// What the server says, and an answer without rows.
    pub async fn first<T: FromRow + Send + 'static>(&self, sql: &str) -> Result<T, LaunchError> {
        let row = self.rows(sql).await?.into_iter().next();
        row.ok_or_else(|| LaunchError::Server(format!("{sql}: no rows")))
    }

    /// What the server has written or applied: a GTID set (MySQL) or a GTID position (MariaDB), as text.
    ///
    /// # Errors
    /// What the server says.
    pub async fn position(&self) -> Result<String, LaunchError> {
        let position: String = self
            .first(match self.flavor {
                Flavor::MariaDb => "SELECT @@gtid_binlog_pos",
                Flavor::MySql => "SELECT @@gtid_executed",
            })
            .await?;
        Ok(position.replace('\n', ""))
    }

    /// Waits until the server has applied `position`.
    ///
    /// # Errors
    /// A server that does not get there within 30 seconds.
    pub async fn reach(&self, position: &str) -> Result<(), LaunchError> {
        let reached: i64 = self
            .first(&match self.flavor {
                Flavor::MariaDb => format!("SELECT MASTER_GTID_WAIT('{position}', 30)"),
                Flavor::MySql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', 30)"),
            })
            .await?;
        if reached != 0 {
            let error = self.replication_error().await?;
            let what = format!(
                "{} did not reach {position} within 30 s; replication: {error}",
                self.name
            );
            return Err(LaunchError::Server(what));
        }
        Ok(())
    }

    /// The last error of the applying thread, or an empty text.
    async fn replication_error(&self) -> Result<String, LaunchError> {
        let sql = match self.flavor {
            Flavor::MariaDb => "SHOW SLAVE STATUS",
            Flavor::MySql => "SHOW REPLICA STATUS",
        };
        let rows: Vec<mysql_async::Row> = self.rows(sql).await?;
        Ok(rows
            .iter()
            .find_map(|row| row.get("Last_SQL_Error"))
            .unwrap_or_default())
    }

    /// Do the receiving and the applying thread run?
    ///
    /// # Errors
    /// What the server says.
    pub async fn replicating(&self) -> Result<(bool, bool), LaunchError> {
        let (sql, io, applier) = match self.flavor {
            Flavor::MariaDb => ("SHOW SLAVE STATUS", "Slave_IO_Running", "Slave_SQL_Running"),
            Flavor::MySql => (
                "SHOW REPLICA STATUS",
                "Replica_IO_Running",
                "Replica_SQL_Running",
            ),
        };
        let rows: Vec<mysql_async::Row> = self.rows(sql).await?;
        let runs = |column: &str| {
            rows.iter().any(|row| {
                row.get::<String, _>(column)
                    .is_some_and(|state| state.eq_ignore_ascii_case("yes"))
            })
        };
        Ok((runs(io), runs(applier)))
    }

    /// The statements received so far, in the form of the server's general log, once `general_log` is on.
    pub fn statements(&self) -> String {
        let bytes = fs::read(self.directory.join("data/statements")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The server's error log so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the server answers on its unix socket; by then it listens on TCP too.
    ///
    /// # Errors
    /// A server that ended, or that does not answer within 60 seconds.
    pub async fn ready(&self) -> Result<(), LaunchError> {
        let what = format!("{} to answer", self.name);
        until(Duration::from_secs(60), &what, async || {
            if let Some(Ok(Some(status))) = self.child().as_mut().map(Child::try_wait) {
                return Err(self.failed(&format!("ended with {status}")));
            }
            Ok(self.socket().exists() && self.connect().await.is_ok())
        })
        .await
        .map_err(|error| match error {
            LaunchError::Server(text) if text.starts_with("waited") => self.failed(&text),
            other => other,
        })
    }

    fn failed(&self, what: &str) -> LaunchError {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines
            .get(lines.len().saturating_sub(20)..)
            .unwrap_or_default()
            .join("\n");
        LaunchError::Server(format!("{} {what}; its log ends:\n{end}", self.name))
    }

    fn spawn(&self) -> Result<(), LaunchError> {
        let path = self.directory.join("log");
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(system("opening a log"))?;
        let also = log.try_clone().map_err(system("opening a log"))?;
        let mut command = self.programs.server();
        command
            .arg(programs::option("--datadir", &self.directory.join("data")))
            .arg(programs::option("--socket", &self.socket()))
            .arg(programs::option(
                "--pid-file",
                &self.directory.join("server.pid"),
            ))
            .arg(format!("--port={}", self.port()))
            .arg(format!("--report-port={}", self.port()))
            .arg(format!("--server-id={}", self.number))
            .args(COMMON_OPTIONS)
            .args(programs::redo_log(self.flavor))
            .args(match self.flavor {
                Flavor::MariaDb => MARIADB_OPTIONS,
                Flavor::MySql => MYSQL_OPTIONS,
            });
        if self.number > 1 {
            command.arg("--read-only=1");
        }
        // A group of its own: the terminal's interrupt is for the program that started it.
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(also)
            .process_group(0);
        let child = command.spawn().map_err(system("starting a server"))?;
        let pid = child.id().to_string();
        *self.child() = Some(child);
        fs::write(self.directory.join("pid"), pid).map_err(system("writing a process number"))
    }

    fn signal(&self, name: &str) -> Result<(), LaunchError> {
        let Some(pid) = self.pid() else {
            return Err(LaunchError::Server(format!("{} does not run", self.name)));
        };
        signal(pid, name).map_err(system("sending a signal"))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// A TCP port on loopback that nobody else takes while this lives.
///
/// It lies below the range from which the system takes ports for outgoing connections: a server that was killed must
/// find its port free when it comes back.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    /// Keeps our other processes from it.
    _lock: File,
}

impl ReservedPort {
    /// Finds a port on which nobody listens.
    ///
    /// # Errors
    /// What the system says, and that no free port was found.
    pub fn take() -> io::Result<Self> {
        let locks = directory::shared()?.join("ports");
        fs::create_dir_all(&locks)?;
        for _ in 0..1000 {
            let random = RandomState::new().build_hasher().finish();
            let number = 12_000 + u16::try_from(random % 20_000).unwrap_or_default();
            let lock = File::create(locks.join(number.to_string()))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "no free port found",
        ))
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Sends a signal (`STOP`, `CONT`, `TERM`, ...) to a process.
///
/// # Errors
/// What the system says; there is no such process.
pub fn signal(pid: u32, name: &str) -> io::Result<()> {
    // The shell's own kill: the program of that name is not installed everywhere.
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid.to_string()])
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("kill -s {name} {pid}: {status}")));
    }
    Ok(())
}

/// Asks for `condition` again and again until it holds.
///
/// # Errors
/// The condition's own error, at once; or that it did not hold within `patience`.
pub async fn until(
    patience: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<bool, LaunchError>,
) -> Result<(), LaunchError> {
    let deadline = Instant::now() + patience;
    let mut ticks = time::interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if condition().await? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(LaunchError::Server(format!(
                "waited {patience:?} for {what}"
            )));
        }
    }
}

/// A data directory that has the accounts, and that no server runs on. Servers get copies.
#[derive(Debug)]
struct Template {
    data: PathBuf,
}

impl Template {
    /// Finds the template of this server version, or makes it. Several processes may ask at once.
    fn prepare(programs: &Programs, flavor: Flavor) -> Result<Self, LaunchError> {
        let shared = directory::shared().map_err(system("making the cache directory"))?;
        let accounts = accounts(flavor);
        let key = format!(
            "{}-{:016x}",
            key(flavor),
            fingerprint(&[programs.version(), &accounts])
        );
        let data = shared.join(&key);
        let lock = File::create(shared.join(format!("{key}.lock")))
            .map_err(system("locking a template"))?;
        lock.lock().map_err(system("locking a template"))?;
        if !data.exists() {
            let scratch =
                PrivateDirectory::create().map_err(system("making a private directory"))?;
            let file = scratch.path().join("accounts.sql");
            fs::write(&file, accounts).map_err(system("writing the accounts"))?;
            let fresh = scratch.path().join("data");
            let output = programs
                .initialize(&fresh, &file)
                .output()
                .map_err(system("initialising a server"))?;
            if !output.status.success() {
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(LaunchError::Server(format!(
                    "initialising {flavor} failed:\n{text}"
                )));
            }
            // Every MySQL server makes its own identity when this file is missing.
            let _ = fs::remove_file(fresh.join("auto.cnf"));
            // A process that dies in the middle leaves only this, which the next one removes.
            let unfinished = shared.join(format!("{key}.unfinished"));
            let _ = fs::remove_dir_all(&unfinished);
            copy_directory(&fresh, &unfinished).map_err(system("keeping a template"))?;
            fs::rename(&unfinished, &data).map_err(system("keeping a template"))?;
        }
        Ok(Self { data })
    }
}

fn accounts(flavor: Flavor) -> String {
    let (before, monitor) = match flavor {
        // While the system tables are being made no account exists in memory.
        Flavor::MariaDb => (
            "FLUSH PRIVILEGES;\nDELETE FROM mysql.global_priv WHERE User='' OR User='root' AND Host<>'localhost';\n\
             FLUSH PRIVILEGES;\n",
            "PROCESS, REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR, REPLICATION SLAVE ADMIN, \
             REPLICATION MASTER ADMIN, READ_ONLY ADMIN, CONNECTION ADMIN",
        ),
        Flavor::MySql => (
            "",
            "PROCESS, REPLICATION SLAVE, REPLICATION CLIENT, REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, \
             CONNECTION_ADMIN",
        ),
    };
    let performance_schema = match flavor {
        Flavor::MariaDb => "",
        Flavor::MySql => "GRANT SELECT ON performance_schema.* TO dbproxy@'%';\n",
    };
    format!(
        "{before}\
         CREATE USER repl@'%' IDENTIFIED BY 'repl';\n\
         GRANT REPLICATION SLAVE ON *.* TO repl@'%';\n\
         CREATE USER app@'%' IDENTIFIED BY 'app';\n\
         GRANT {APPLICATION_PRIVILEGES} ON *.* TO app@'%';\n\
         CREATE USER dbproxy@'%' IDENTIFIED BY 'dbproxy';\n\
         GRANT {monitor} ON *.* TO dbproxy@'%';\n\
         GRANT SELECT ON mysql.* TO dbproxy@'%';\n\
         {performance_schema}\
         CREATE DATABASE test;\n\
         CREATE TABLE test.where_am_i (name VARCHAR(64) PRIMARY KEY) ENGINE=InnoDB;\n"
    )
}

/// The flavour's name in options, commands and files.
pub(super) fn key(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MariaDb => "mariadb",
        Flavor::MySql => "mysql",
    }
}

fn read_only(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MariaDb => "SET GLOBAL read_only=1",
        // Persisted, so that a restarted replica is as strict as before.
        Flavor::MySql => "SET PERSIST super_read_only=1",
    }
}

fn stop_replica(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MariaDb => "STOP SLAVE",
        Flavor::MySql => "STOP REPLICA",
    }
}

/// Copies a directory with everything in it.
fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A number that differs when the texts differ, the same in every process.
fn fingerprint(texts: &[&str]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(texts.join("\n").as_bytes())
}

fn system(what: &str) -> impl FnOnce(io::Error) -> LaunchError + use<> {
    let what = what.to_owned();
    move |error| LaunchError::System(what, error)
}

fn statement(sql: &str) -> impl FnOnce(mysql_async::Error) -> LaunchError + use<> {
    let sql = sql.to_owned();
    move |error| LaunchError::Statement(sql, error)
}

/// What `app` may do everywhere: all that applications need, and nothing that overrides read_only.
pub const APPLICATION_PRIVILEGES: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, \
    SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, \
    ALTER ROUTINE, EVENT, TRIGGER, PROCESS, RELOAD";

/// How long a server that runs may take to accept a login.
const PATIENCE: Duration = Duration::from_secs(10);

const COMMON_OPTIONS: &[&str] = &[
    "--bind-address=127.0.0.1",
    "--report-host=127.0.0.1",
    "--skip-name-resolve",
    "--local-infile=1",
    "--log-bin-trust-function-creators=1",
    "--general-log-file=statements",
    "--max-connections=3000",
    "--max-allowed-packet=256M",
    "--log-bin=bin",
    "--relay-log=relay",
    "--sync-binlog=0",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-buffer-pool-size=64M",
];

const MARIADB_OPTIONS: &[&str] = &[
    "--binlog-format=ROW",
    "--log-slave-updates=1",
    "--gtid-strict-mode=1",
    "--performance-schema=0",
    "--slave-net-timeout=10",
];

const MYSQL_OPTIONS: &[&str] = &[
    "--gtid-mode=ON",
    "--enforce-gtid-consistency=ON",
    "--log-replica-updates=1",
    "--mysqlx=0",
    "--secure-file-priv=NULL",
    "--replica-net-timeout=10",
    "--performance-schema-max-table-instances=200",
    "--table-open-cache=400",
];

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
mod tests {
    use super::*;

    async fn replicates(flavor: Flavor) {
        let cluster = Cluster::start(flavor, 1).await.unwrap();
        cluster
            .primary()
            .run("CREATE TABLE test.t (a INT PRIMARY KEY); INSERT INTO test.t VALUES (1)")
            .await
            .unwrap();
        cluster.caught_up().await.unwrap();
        let replica = &cluster.replicas()[0];
        assert_eq!(
            replica.first::<i32>("SELECT a FROM test.t").await.unwrap(),
            1
        );
        assert_eq!(
            replica
                .first::<String>("SELECT name FROM test.where_am_i")
                .await
                .unwrap(),
            "db2"
        );
        let options = OptsBuilder::default()
            .tcp_port(replica.port())
            .user(Some("app"))
            .pass(Some("app"));
        let mut application = Conn::new(options.ip_or_hostname("127.0.0.1"))
            .await
            .unwrap();
        let refused = application
            .query_drop("INSERT INTO test.t VALUES (2)")
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("read-only"), "{refused}");
        cluster
            .switch_primary(cluster.primary(), replica)
            .await
            .unwrap();
        application
            .query_drop("INSERT INTO test.t VALUES (2)")
            .await
            .unwrap();
        cluster
            .primary()
            .reach(&replica.position().await.unwrap())
            .await
            .unwrap();
        assert_eq!(
            cluster
                .primary()
                .rows::<i32>("SELECT a FROM test.t")
                .await
                .unwrap(),
            [1, 2]
        );
        cluster.primary().restart().await.unwrap();
        until(PATIENCE, "replication", async || {
            Ok(cluster.primary().replicating().await? == (true, true))
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn mariadb_replicates() {
        replicates(Flavor::MariaDb).await;
    }

    #[tokio::test]
    async fn mysql_replicates() {
        replicates(Flavor::MySql).await;
    }
}
