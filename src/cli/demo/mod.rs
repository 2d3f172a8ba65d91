//! `dbproxy demo`: real servers on this machine, and a guided tour through the proxy in front of them.

pub mod cluster;
mod directory;
mod error;
mod port;
mod process;
mod programs;
mod proxy;
mod template;
mod tour;

use std::io::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time;

use super::{Failure, Status};
use cluster::{Cluster, LaunchError};
use proxy::Proxy;
use tour::Tour;

/// What to show.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Whose servers to start
    #[arg(long, value_name = "FLAVOR", default_value = "mariadb")]
    flavor: Flavor,

    /// End after the tour, with status 0 only if everything was as expected
    #[arg(long)]
    once: bool,

    /// Start the servers and the proxy, without data and without the tour
    #[arg(long, conflicts_with = "once")]
    bare: bool,

    /// How many replicas to start with --bare
    #[arg(long, value_name = "NUMBER", default_value_t = 2, requires = "bare")]
    replicas: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flavor {
    #[value(name = "mariadb")]
    MariaDb,
    #[value(name = "mysql")]
    MySql,
}

impl From<Flavor> for cluster::Flavor {
    fn from(flavor: Flavor) -> Self {
        match flavor {
            Flavor::MariaDb => Self::MariaDb,
            Flavor::MySql => Self::MySql,
        }
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        Self::Other(error.to_string())
    }
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Status, Failure> {
    super::runtime()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            status = demonstrate(arguments, out) => status,
            // Everything that was started ends as its owners are dropped.
            _ = interrupt.recv() => Ok(Status::Fine),
            _ = terminate.recv() => Ok(Status::Fine),
        }
    })
}

async fn demonstrate(arguments: &Arguments, out: &mut dyn Write) -> Result<Status, Failure> {
    let flavor = cluster::Flavor::from(arguments.flavor);
    writeln!(out, "Starting {flavor} servers and the proxy ...")?;
    out.flush()?;
    let cluster = Cluster::start(flavor, arguments.replicas).await?;
    if !arguments.bare {
        tour::load(&cluster).await?;
    }
    let mut proxy = Proxy::start(&cluster).await?;
    for server in cluster.servers() {
        let role = if server.name() == "db1" {
            "primary"
        } else {
            "replica"
        };
        writeln!(
            out,
            "  {}   {role}   127.0.0.1:{}",
            server.name(),
            server.port()
        )?;
    }
    writeln!(out, "  dbproxy         127.0.0.1:{}", proxy.port())?;
    if !arguments.bare {
        let status = show(&cluster, &proxy, out).await?;
        if arguments.once {
            proxy.stop().await?;
            return Ok(status);
        }
    }
    let schema = if arguments.bare { "test" } else { "shop" };
    how_to_connect(&cluster, &proxy, schema, out)?;
    out.flush()?;
    let mut ticks = time::interval(Duration::from_millis(500));
    while !proxy.ended() {
        ticks.tick().await;
    }
    let log = proxy.log();
    Err(Failure::Other(format!(
        "the proxy ended; its log was {}",
        log.display()
    )))
}

/// Gives the tour and says whether everything was as expected.
async fn show(cluster: &Cluster, proxy: &Proxy, out: &mut dyn Write) -> Result<Status, Failure> {
    let wrong = Tour::new(cluster, proxy, out).await?.run().await?;
    if wrong.is_empty() {
        writeln!(out, "\nEverything was as expected.")?;
        return Ok(Status::Fine);
    }
    writeln!(out, "\nNot as expected:")?;
    for what in &wrong {
        writeln!(out, "  {what}")?;
    }
    Ok(Status::Problems)
}

fn how_to_connect(
    cluster: &Cluster,
    proxy: &Proxy,
    schema: &str,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let port = proxy.port();
    let socket = proxy.socket();
    let socket = socket.display();
    writeln!(
        out,
        "\nThe proxy keeps running. Connect to it as an application would:\n"
    )?;
    match cluster.flavor() {
        cluster::Flavor::MariaDb => writeln!(
            out,
            "  mariadb -h 127.0.0.1 -P {port} -u app -papp {schema}"
        )?,
        cluster::Flavor::MySql => {
            writeln!(
                out,
                "  mysql -h 127.0.0.1 -P {port} -u app -papp --get-server-public-key {schema}"
            )?;
        }
    }
    writeln!(out, "  mariadb -S {socket} -u app -papp {schema}")?;
    writeln!(
        out,
        "  new PDO('mysql:host=127.0.0.1;port={port};dbname={schema};charset=utf8mb4', 'app', 'app')"
    )?;
    writeln!(
        out,
        "  new mysqli('127.0.0.1', 'app', 'app', '{schema}', {port})\n"
    )?;
    writeln!(out, "Who answers:       SELECT name FROM test.where_am_i")?;
    writeln!(out, "Where and why:     tail -f {}", proxy.log().display())?;
    writeln!(
        out,
        "Configuration:     {}",
        proxy.configuration().display()
    )?;
    for server in cluster.servers() {
        let socket = server.socket();
        writeln!(
            out,
            "Directly to {}:   mariadb -S {} -u root",
            server.name(),
            socket.display()
        )?;
    }
    writeln!(out, "\nCtrl-C ends everything and removes it.")?;
    Ok(())
}
