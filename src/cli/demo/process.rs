//! One database server: its process, its files, its addresses, and what it answers.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder};
use tokio::time::{self, Instant};

use crate::cli::demo::cluster::until;
use crate::cli::demo::error::{LaunchError, statement, system};
use crate::cli::demo::port::ReservedPort;
use crate::cli::demo::programs::{self, Programs};
use crate::cli::demo::template::{Template, copy_directory};
use crate::topology::Flavor;

/// One server: its process, its files and its addresses.
#[derive(Debug)]
pub struct ServerProcess {
    flavor: Flavor,
    name: String,
    number: usize,
    port: ReservedPort,
    directory: PathBuf,
    programs: Programs,
    options: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl ServerProcess {
    /// Copies the template and starts a server on it; `number` is its `server_id` and in its name, `options` come on top of the usual ones.
    pub(super) fn create(
        programs: &Programs,
        flavor: Flavor,
        directory: &Path,
        template: &Template,
        number: usize,
        options: &[String],
    ) -> Result<Self, LaunchError> {
        let name = format!("db{number}");
        let directory = directory.join(&name);
        fs::create_dir(&directory).map_err(system("making a server's directory"))?;
        // A starting MariaDB removes the temporary tables of every other server that has the same directory for them.
        fs::create_dir(directory.join("tmp")).map_err(system("making a server's directory"))?;
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
            options: options.to_vec(),
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
        self.signal("STOP")?;
        let deadline = Instant::now() + PATIENCE;
        // On a busy machine a thread may still answer a query before the signal reaches it.
        while let Some(pid) = self.pid()
            && !is_stopped(pid)
            && Instant::now() < deadline
        {
            std::thread::yield_now();
        }
        Ok(())
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
            .arg(programs::option("--tmpdir", &self.directory.join("tmp")))
            .arg(format!("--port={}", self.port()))
            .arg(format!("--report-port={}", self.port()))
            .arg(format!("--server-id={}", self.number))
            .args(COMMON_OPTIONS)
            .args(programs::redo_log(self.flavor))
            .args(match self.flavor {
                Flavor::MariaDb => MARIADB_OPTIONS,
                Flavor::MySql => MYSQL_OPTIONS,
            })
            .args(&self.options);
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

/// Whether every thread of a process is stopped, as `/proc` has it.
fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state follows the name, which stands in parentheses and may hold anything.
        stat.rsplit(") ")
            .next()
            .is_none_or(|rest| rest.starts_with('T'))
    })
}

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
