//! What `check` says of the servers: what was found on each, and what the proxy makes of all of them. Pure.

use std::io::{self, Write};
use std::time::Duration;

use crate::config::{Config, Failover, Mode, ServerConfig};
use crate::monitor::{Finding, Inspection, Severity};
use crate::topology::{Flavor, Role, Server, ServerFacts, Topology, Unreadable};

/// One block of the report.
pub(super) struct Block {
    title: String,
    findings: Vec<Finding>,
}

/// Judges what was seen. `seen` is in the order of the configuration, `topology` what the proxy would make of it.
pub(super) fn judge(config: &Config, seen: &[Inspection], topology: &Topology) -> Vec<Block> {
    let mut blocks: Vec<Block> = config
        .cluster
        .servers
        .iter()
        .zip(seen)
        .zip(&topology.servers)
        .map(|((server, inspection), picture)| {
            let mut findings = inspection.findings.clone();
            let stopped = picture.role == Role::Replica
                && findings
                    .iter()
                    .any(|finding| finding.severity == Severity::Error);
            let role = role(picture, topology.max_lag);
            // What a replica itself reports says more than what follows from it.
            if inspection.facts.is_ok() && !(stopped && role.severity == Severity::Error) {
                findings.insert(0, role);
            }
            Block {
                title: title(server, inspection, picture),
                findings,
            }
        })
        .collect();
    blocks.push(Block {
        title: format!("cluster \"{}\"", config.cluster.name),
        findings: cluster_findings(config, seen, topology),
    });
    blocks
}

/// Writes the blocks and the summary; says whether an error is among them.
pub(super) fn write(blocks: &[Block], out: &mut dyn Write) -> io::Result<bool> {
    for block in blocks {
        writeln!(out, "\n{}", block.title)?;
        for finding in &block.findings {
            writeln!(
                out,
                "  {:<8} {}",
                finding.severity.to_string(),
                finding.text
            )?;
        }
    }
    let count = |severity| {
        let findings = blocks.iter().flat_map(|block| &block.findings);
        findings
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    writeln!(
        out,
        "\n{}, {}",
        plural(errors, "error"),
        plural(warnings, "warning")
    )?;
    Ok(errors > 0)
}

fn plural(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

fn title(config: &ServerConfig, inspection: &Inspection, picture: &Server) -> String {
    let mut title = config.name.clone();
    let address = config.address.to_string();
    if address != config.name {
        title.push_str(&format!(" ({address})"));
    }
    if let Ok(facts) = &inspection.facts {
        title.push_str(&format!(
            ": {}, {}: {}",
            facts.version, picture.role, picture.why
        ));
    }
    title
}

fn finding(severity: Severity, text: impl Into<String>) -> Finding {
    Finding {
        severity,
        text: text.into(),
    }
}

/// What the proxy would use the server for.
fn role(picture: &Server, max_lag: Duration) -> Finding {
    match picture.role {
        Role::Primary if picture.writable => finding(Severity::Good, "gets the writes"),
        Role::Primary => {
            let text = "is the primary but takes no writes: they wait, and fail after limits.hold";
            finding(Severity::Error, text)
        }
        Role::Spare => {
            let text = "takes writes although another server is the primary: it gets no traffic; \
                        set read_only=ON there";
            finding(Severity::Error, text)
        }
        Role::Unknown => finding(
            Severity::Error,
            "neither takes writes nor replicates: it gets no traffic",
        ),
        Role::Replica => match picture.readable(max_lag) {
            Ok(()) => finding(
                Severity::Good,
                format!("gets reads; {} behind", picture.lag),
            ),
            Err(reason @ (Unreadable::Lagging(_) | Unreadable::Delayed(_))) => {
                let allowed = max_lag.as_secs_f32();
                let text = format!("gets no reads: {reason}, and cluster.max_lag is {allowed} s");
                finding(Severity::Warning, text)
            }
            Err(reason) => finding(Severity::Error, format!("gets no reads: {reason}")),
        },
    }
}

fn cluster_findings(config: &Config, seen: &[Inspection], topology: &Topology) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match topology.primary() {
        Some(primary) => finding(Severity::Good, format!("{} is the primary", primary.name)),
        None => {
            let text = "no server is the primary: writes wait, and fail after limits.hold";
            finding(Severity::Error, text)
        }
    });
    let readable: Vec<&str> = topology
        .readable_replicas()
        .map(|server| &*server.name)
        .collect();
    findings.push(match readable.as_slice() {
        [] => finding(
            Severity::Warning,
            "no replica can get reads: they all go to the primary",
        ),
        names if config.mode == Mode::Observe => {
            let names = names.join(", ");
            let text = format!(
                "mode is observe: everything goes to the primary; reads could go to {names}"
            );
            finding(Severity::Good, text)
        }
        names => finding(Severity::Good, format!("reads go to {}", names.join(", "))),
    });
    let known: Vec<(&ServerConfig, &ServerFacts)> = config
        .cluster
        .servers
        .iter()
        .zip(seen)
        .filter_map(|(server, inspection)| Some((server, inspection.facts.as_ref().ok()?)))
        .collect();
    findings.extend(twins(&known));
    if config.cluster.failover != Failover::Off {
        failover_findings(config, &known, topology, &mut findings);
    }
    let of = |flavor: Flavor| {
        known
            .iter()
            .any(|(_, facts)| facts.version.flavor == flavor)
    };
    if of(Flavor::MySql) && of(Flavor::MariaDb) {
        let text = "MySQL and MariaDB are mixed: their positions cannot be compared, and their \
                    SQL differs";
        findings.push(finding(Severity::Error, text));
    }
    findings
}

/// A commit that waits no longer than this for acknowledgements goes on without them in an ordinary interruption.
const PATIENT: Duration = Duration::from_secs(3600);

/// What a failover of this cluster can promise.
fn failover_findings(
    config: &Config,
    known: &[(&ServerConfig, &ServerFacts)],
    topology: &Topology,
    findings: &mut Vec<Finding>,
) {
    if config.cluster.replication.is_none() {
        let text = "cluster.replication_user is not set: a former primary cannot be made a replica, so there is no SWITCHOVER, and \
                    after a failover it stays out until somebody sees to it";
        findings.push(finding(Severity::Warning, text));
    }
    if config.cluster.servers.len() < 3 {
        let text = "two servers: while one of them is away there is nobody to take over";
        findings.push(finding(Severity::Warning, text));
    }
    let primary = topology.primary().and_then(|primary| {
        let mut known = known.iter();
        known.find(|(server, _)| server.name == *primary.name)
    });
    let Some((_, primary)) = primary else {
        return;
    };
    let semi_sync = &primary.semi_sync;
    if !semi_sync.source {
        let text = format!(
            "replication is asynchronous: commits of the last moment before a crash of the primary can be lost; up to \
             cluster.max_loss, {}, of them are given up without asking. Semi-synchronous replication on all servers loses none",
            config.cluster.max_loss
        );
        findings.push(finding(Severity::Warning, text));
        return;
    }
    let (replicas, wait_for) = (semi_sync.clients, semi_sync.wait_for);
    if replicas < wait_for {
        let text = format!(
            "commits wait for {wait_for} replicas, and {replicas} acknowledge: they stand still, or are not safe"
        );
        findings.push(finding(Severity::Error, text));
    } else {
        let needed = replicas + 1 - wait_for;
        let text = format!(
            "commits wait for {wait_for} of {replicas} replicas: nothing is lost as long as {needed} of them answer when the primary \
             fails, and with fewer there is no failover without ACCEPT LOSS"
        );
        findings.push(finding(Severity::Good, text));
    }
    if semi_sync.timeout < PATIENT {
        let text = format!(
            "commits that have waited {} s for acknowledgements go on without, and can be lost then; set \
             rpl_semi_sync_source_timeout (MariaDB: rpl_semi_sync_master_timeout) to 4294967295",
            semi_sync.timeout.as_secs_f32()
        );
        findings.push(finding(Severity::Warning, text));
    }
}

/// Two names for one server, or two servers that replication cannot tell apart.
fn twins(known: &[(&ServerConfig, &ServerFacts)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, (server, facts)) in known.iter().enumerate() {
        for (other, theirs) in known.iter().skip(at + 1) {
            let names = format!("{} and {}", server.name, other.name);
            let text = if facts.uuid.is_some() && facts.uuid == theirs.uuid {
                format!("{names} are one server, or copies with the same auto.cnf")
            } else if facts.server_id == theirs.server_id {
                format!(
                    "{names} are one server, or have the same server_id, {}, and cannot replicate \
                     from each other",
                    facts.server_id
                )
            } else {
                continue;
            };
            findings.push(finding(Severity::Error, text));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use tokio::time::Instant;

    use super::*;
    use crate::config::{self, Process};
    use crate::topology::{
        Observation, ProbeError, ServerId, SourceFacts, ThreadState, Tracker, Version, WriteBlock,
    };

    fn config() -> Config {
        let text = r#"
            monitor = { user = "watch", password = "" }
            cluster.servers = ["db1=10.0.0.1", "db2=10.0.0.2", "db3=10.0.0.3"]
        "#;
        config::parse(text, "", &Process::default()).unwrap().config
    }

    fn facts(server_id: u32) -> ServerFacts {
        ServerFacts::sound(Version::parse("10.11.19-MariaDB").unwrap(), server_id)
    }

    fn replica(server_id: u32, source: u32) -> ServerFacts {
        ServerFacts {
            write_block: Some(WriteBlock::ReadOnly),
            sources: vec![SourceFacts {
                server_id: Some(source),
                ..SourceFacts::running(format!("10.0.0.{source}"), 3306)
            }],
            ..facts(server_id)
        }
    }

    /// The report on three servers, as text, and whether it holds a problem.
    fn report(results: [Result<ServerFacts, ProbeError>; 3]) -> (String, bool) {
        let config = config();
        let now = Instant::now();
        let mut tracker = Tracker::new(
            &config.cluster.servers,
            config.monitor.interval,
            config.cluster.max_lag,
            now,
        );
        for (id, result) in (0..).zip(&results) {
            let server = ServerId(id);
            tracker.observe(Observation {
                server,
                asked_at: now,
                at: now,
                result: result.clone(),
            });
        }
        let inspections = results.map(|facts| Inspection {
            server: "".into(),
            facts,
            round_trip: None,
            accounts: None,
            findings: Vec::new(),
        });
        let blocks = judge(&config, &inspections, &tracker.snapshot());
        let mut out = Vec::new();
        let problem = write(&blocks, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), problem)
    }

    #[test]
    fn a_sound_cluster_has_no_problem() {
        let (text, problem) = report([Ok(facts(1)), Ok(replica(2, 1)), Ok(replica(3, 1))]);
        assert!(!problem, "{text}");
        let title = "\ndb1 (10.0.0.1:3306): MariaDB 10.11.19-MariaDB, primary: ";
        assert!(text.contains(title), "{text}");
        assert!(text.contains("ok       gets the writes"), "{text}");
        assert!(text.contains("reads go to db2, db3"), "{text}");
        assert!(text.ends_with("\nno errors, no warnings\n"), "{text}");
    }

    #[test]
    fn two_writable_servers_are_an_error() {
        let (text, problem) = report([Ok(facts(1)), Ok(facts(2)), Err(ProbeError::Refused)]);
        assert!(problem, "{text}");
        assert!(
            text.contains("error    takes writes although another"),
            "{text}"
        );
        assert!(text.contains("warning  no replica can get reads"), "{text}");
    }

    #[test]
    fn no_primary_is_an_error() {
        let refused = || Err(ProbeError::Refused);
        let (text, problem) = report([refused(), refused(), refused()]);
        assert!(problem, "{text}");
        assert!(text.contains("no server is the primary"), "{text}");
    }

    #[test]
    fn what_acknowledgements_promise_is_told() {
        let mut config = config();
        config.cluster.failover = Failover::Manual;
        let now = Instant::now();
        for (clients, wait_for, seconds, part) in [
            (2, 1, 4_294_967, "as long as 2 of them answer when"),
            (4, 2, 4_294_967, "as long as 3 of them answer when"),
            (0, 1, 10, "commits wait for 1 replicas, and 0 acknowledge"),
            (2, 1, 10, "commits that have waited 10 s"),
        ] {
            let mut primary = facts(1);
            primary.semi_sync.source = true;
            primary.semi_sync.clients = clients;
            primary.semi_sync.wait_for = wait_for;
            primary.semi_sync.timeout = Duration::from_secs(seconds);
            let all = [primary, replica(2, 1), replica(3, 1)];
            let servers = &config.cluster.servers;
            let mut tracker = Tracker::new(servers, Duration::from_secs(1), Duration::MAX, now);
            for (id, facts) in (0..).zip(&all) {
                tracker.observe(Observation {
                    server: ServerId(id),
                    asked_at: now,
                    at: now,
                    result: Ok(facts.clone()),
                });
            }
            let known: Vec<_> = servers.iter().zip(&all).collect();
            let mut findings = Vec::new();
            failover_findings(&config, &known, &tracker.snapshot(), &mut findings);
            let mut texts = findings.iter().map(|finding| finding.text.as_str());
            assert!(
                texts.any(|text| text.contains(part)),
                "{part}: {findings:?}"
            );
        }
    }

    #[test]
    fn a_stopped_replica_gets_no_reads() {
        let mut stopped = replica(2, 1);
        stopped.sources[0].applier = ThreadState::Stopped;
        let (text, _) = report([Ok(facts(1)), Ok(stopped), Ok(replica(3, 1))]);
        assert!(
            text.contains("error    gets no reads: replication applier stopped"),
            "{text}"
        );
        assert!(text.contains("reads go to db3\n"), "{text}");
    }

    #[test]
    fn servers_that_do_not_belong_together_are_named() {
        let mysql = ServerFacts {
            version: Version::parse("8.4.8").unwrap(),
            ..replica(1, 1)
        };
        let (text, _) = report([Ok(facts(1)), Ok(mysql), Err(ProbeError::Timeout)]);
        assert!(
            text.contains("db1 and db2 are one server, or have the same server_id"),
            "{text}"
        );
        assert!(text.contains("MySQL and MariaDB are mixed"), "{text}");
    }
}
