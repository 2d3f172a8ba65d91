//! `dbproxy check`: is the configuration right, and can the servers do what it needs of them?

mod report;

use std::io::Write;

use clap::Args;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{ConfigFile, Failure, Status};
use crate::app::observe;
use crate::config::{Config, Mode};
use crate::monitor::{self, Inspection, Needs};
use crate::net::tls;
use crate::topology::{Observation, Topology, Tracker};

/// What to check.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,

    /// Check the file only, without connecting to the servers
    #[arg(long)]
    offline: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Status, Failure> {
    let loaded = super::load(&arguments.file.config)?;
    for warning in &loaded.warnings {
        writeln!(out, "{warning}")?;
    }
    writeln!(out, "{}: valid", arguments.file.config.display())?;
    let tls = &loaded.config.tls;
    let for_servers = tls::for_servers(&tls.server).map(drop);
    let record = match loaded.config.mode {
        Mode::Observe => observe::kept(&loaded.config).map(drop),
        Mode::Route => Ok(()),
    };
    let broken: Vec<_> = [tls::check_for_clients(&tls.client), for_servers, record]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    for error in &broken {
        writeln!(out, "error: {error}")?;
    }
    if !broken.is_empty() {
        return Ok(Status::Problems);
    }
    if arguments.offline {
        return Ok(Status::Fine);
    }
    let config = loaded.config;
    let runtime = super::runtime()?;
    let mut blocks = Vec::new();
    for cluster in config.all_clusters() {
        let config = config.with_cluster(cluster);
        let inspections = runtime.block_on(inspect(&config));
        let topology = fold(&config, &inspections);
        blocks.extend(report::judge(&config, &inspections, &topology));
    }
    let errors = report::write(&blocks, out)?;
    Ok(if errors {
        Status::Problems
    } else {
        Status::Fine
    })
}

/// Looks at all servers at once; the answers are in the order of the configuration.
async fn inspect(config: &Config) -> Vec<Inspection> {
    let mut looks = JoinSet::new();
    for (target, server) in monitor::targets(config)
        .into_iter()
        .zip(&config.cluster.servers)
    {
        let needs = Needs::new(config, server);
        looks.spawn(async move { (target.id, monitor::inspect(&target, needs).await) });
    }
    let mut inspections = looks.join_all().await;
    inspections.sort_by_key(|(id, _)| *id);
    inspections
        .into_iter()
        .map(|(_, inspection)| inspection)
        .collect()
}

/// What the proxy would make of the servers. The looks count as simultaneous: that one server was slow to answer does
/// not make the others' answers old.
fn fold(config: &Config, inspections: &[Inspection]) -> Topology {
    let now = Instant::now();
    let (servers, interval) = (&config.cluster.servers, config.monitor.interval);
    let cluster = &config.cluster;
    let mut tracker = Tracker::of_cluster(cluster.number, servers, interval, cluster.max_lag, now);
    for (target, inspection) in monitor::targets(config).iter().zip(inspections) {
        tracker.observe(Observation {
            server: target.id,
            asked_at: now,
            at: now,
            result: inspection.facts.clone(),
        });
    }
    tracker.snapshot()
}
