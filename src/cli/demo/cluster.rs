//! A cluster of real database servers on loopback: one primary and its replicas, replicating by GTID.
//!
//! Every server has a private data directory, which is removed in the end, and a port of its own. The servers end with
//! this process, however it ends. Accounts: `root` without a password on the unix socket, `app`/`app` for
//! applications, `dbproxy`/`dbproxy` for the monitor, `repl`/`repl` for replication. The table
//! `test.where_am_i (name)` has another row on every server, outside replication: an ordinary read that tells who
//! answered.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::time::{self, Instant, MissedTickBehavior};

use crate::cli::demo::error::system;
use crate::cli::demo::programs::Programs;
use crate::cli::demo::template::Template;

pub use crate::cli::demo::directory::PrivateDirectory;
pub use crate::cli::demo::error::LaunchError;
pub use crate::cli::demo::port::ReservedPort;
pub use crate::cli::demo::process::{ServerProcess, signal};
pub use crate::cli::demo::template::APPLICATION_PRIVILEGES;
pub use crate::topology::Flavor;

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
        Self::start_with(flavor, replicas, &[]).await
    }

    /// As [`start`](Self::start), with further options for the servers.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(
        flavor: Flavor,
        replicas: usize,
        options: &[String],
    ) -> Result<Self, LaunchError> {
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
                options,
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
                    server.name()
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
        self.servers.iter().find(|server| server.name() == name)
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
        let what = format!("{} to replicate from {}", replica.name(), source.name());
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
        for server in self
            .servers
            .iter()
            .filter(|server| server.name() != to.name())
        {
            if server.name() != from.name() {
                server.run(stop_replica(self.flavor)).await?;
            }
            self.replicate(server, to).await?;
        }
        Ok(())
    }
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

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
mod tests {
    use mysql_async::prelude::Queryable;
    use mysql_async::{Conn, OptsBuilder};

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
        until(Duration::from_secs(10), "replication", async || {
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
