//! The proxy of the demo: this very program, serving with a configuration made for the cluster.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mysql_async::{Conn, OptsBuilder};
use serde_json::Value;

use super::cluster::{self, Cluster, LaunchError, ReservedPort};

/// How long the proxy may take to accept a login, and to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// Where a statement went, in the words of the proxy's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Routed {
    /// The server's name.
    pub(super) server: String,
    /// Why it went there.
    pub(super) reason: String,
}

/// `dbproxy serve` in front of a cluster. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    child: Child,
    port: ReservedPort,
    home: PathBuf,
    names: Vec<String>,
}

impl Proxy {
    /// Starts the proxy and returns when it accepts a login.
    pub(super) async fn start(cluster: &Cluster) -> Result<Self, LaunchError> {
        let mut proxy = Self::spawn(cluster)
            .map_err(|error| LaunchError::System("starting the proxy".into(), error))?;
        let port = proxy.port();
        cluster::until(PATIENCE, "the proxy to accept a login", async || {
            if let Ok(Some(status)) = proxy.child.try_wait() {
                let log = fs::read_to_string(proxy.log()).unwrap_or_default();
                return Err(LaunchError::Server(format!(
                    "the proxy ended with {status}:\n{log}"
                )));
            }
            Ok(Conn::new(login(port)).await.is_ok())
        })
        .await?;
        Ok(proxy)
    }

    fn spawn(cluster: &Cluster) -> io::Result<Self> {
        let port = ReservedPort::take()?;
        // Beside the servers' directories, where the cluster's watchdog finds the process.
        let home = cluster.directory().join("proxy");
        fs::create_dir(&home)?;
        let names: Vec<String> = cluster
            .servers()
            .iter()
            .map(|server| server.name().to_owned())
            .collect();
        let addresses = cluster.servers().iter();
        let addresses: Vec<String> = addresses
            .map(|server| format!("{}=127.0.0.1:{}", server.name(), server.port()))
            .collect();
        let text = format!(
            "state_directory = \"state\"\n\n[listen]\nmysql = [\"127.0.0.1:{}\", \"unix:{}\"]\n\n\
             [monitor]\nuser = \"dbproxy\"\npassword = \"dbproxy\"\n\n\
             [cluster]\nservers = {addresses:?}\n\n\
             # The tour reads where each statement went from the log.\n\
             [log]\nlevel = \"dbproxy=debug\"\nformat = \"json\"\n",
            port.number(),
            home.join("sock").display(),
        );
        let file = home.join("dbproxy.toml");
        let mut options = OpenOptions::new();
        // It holds passwords, though only the demo's.
        let mut private = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?;
        private.write_all(text.as_bytes())?;
        let log = File::create(home.join("log"))?;
        let child = Command::new(env::current_exe()?)
            .args(["serve", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // The terminal's interrupt is for the demo, which then ends the proxy in order.
            .process_group(0)
            .spawn()?;
        fs::write(home.join("pid"), child.id().to_string())?;
        Ok(Self {
            child,
            port,
            home,
            names,
        })
    }

    /// The TCP port, on 127.0.0.1.
    pub(super) fn port(&self) -> u16 {
        self.port.number()
    }

    /// The unix socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.home.join("sock")
    }

    /// The configuration file.
    pub(super) fn configuration(&self) -> PathBuf {
        self.home.join("dbproxy.toml")
    }

    /// The log file.
    pub(super) fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// A connection of `app` through the proxy.
    pub(super) async fn connect(&self) -> Result<Conn, LaunchError> {
        let conn = Conn::new(login(self.port())).await;
        conn.map_err(|error| LaunchError::Statement("connecting to the proxy".into(), error))
    }

    /// Where the newest statement of the session went that was logged after `offset`; and the log's end.
    pub(super) fn routed(&self, session: u32, offset: u64) -> (Option<Routed>, u64) {
        let log = read(&self.log()).unwrap_or_default();
        let new = usize::try_from(offset)
            .ok()
            .and_then(|offset| log.get(offset..))
            .unwrap_or_default();
        let routed = new
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|event| {
                let ours = event.get("message")? == "routed"
                    && event.get("session")?.as_u64()? == u64::from(session);
                let number = usize::try_from(event.get("server")?.as_u64()?).ok()?;
                let reason = event.get("reason")?.as_str()?.to_owned();
                ours.then(|| {
                    self.names
                        .get(number)
                        .cloned()
                        .map(|server| Routed { server, reason })
                })?
            });
        (routed, log.len() as u64)
    }

    /// Has it ended by itself?
    pub(super) fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the proxy in order: it stops taking clients and lets running statements end.
    pub(super) async fn stop(mut self) -> Result<(), LaunchError> {
        cluster::signal(self.child.id(), "TERM")
            .map_err(|error| LaunchError::System("stopping".into(), error))?;
        cluster::until(PATIENCE, "the proxy to end", async || Ok(self.ended())).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.home.join("pid"));
    }
}

fn login(port: u16) -> OptsBuilder {
    OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        // The client would ask for the server's own socket and go round the proxy.
        .prefer_socket(false)
        .user(Some("app"))
        .pass(Some("app"))
}

fn read(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}
