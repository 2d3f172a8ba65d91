//! A closer look at one server, for `dbproxy check`: what is missing, and what that costs.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::time::{self, Instant};

use super::connect::{classify, connect, options, within};
use super::fields::Fields;
use super::probe::Prober;
use super::{Target, accounts, catalogue, heartbeat, offers, probe, readiness};
use crate::config::{
    Config, Failover, ProxyProtocol, ServerAddress, ServerCompression, ServerConfig, ServerMode,
};
use crate::topology::{Flavor, ProbeError, ServerFacts, ThreadState, Version};

/// A look takes at most this long.
const DEADLINE: Duration = Duration::from_secs(10);

/// Connections of the monitor to one server: for the probes, the accounts, functions and views, and the heartbeats.
const MONITOR_CONNECTIONS: usize = 4;

/// Oldest versions whose words are known.
const OLDEST_MYSQL: u32 = 80_000;
const OLDEST_MARIADB: u32 = 100_500;

/// Variables that findings speak of; a server that lacks one does not list it.
const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('gtid_mode', 'gtid_strict_mode', 'log_bin', \
     'log_slave_updates', 'log_replica_updates', 'binlog_format', 'sync_binlog', 'innodb_flush_log_at_trx_commit', \
     'rpl_semi_sync_master_enabled', 'rpl_semi_sync_source_enabled', 'rpl_semi_sync_slave_enabled', \
     'rpl_semi_sync_replica_enabled', 'max_connections', 'require_secure_transport', 'proxy_protocol_networks', \
     'protocol_compression_algorithms')";

/// Where the server sees this connection come from.
const HOST: &str = "SELECT SUBSTRING_INDEX(USER(), '@', -1)";

/// What was found on one server.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Its name in the configuration.
    pub server: Arc<str>,
    /// What a probe sees; the error if it sees nothing.
    pub facts: Result<ServerFacts, ProbeError>,
    /// Time of one question on an open connection.
    pub round_trip: Option<Duration>,
    /// Accounts that can be read.
    pub accounts: Option<usize>,
    /// What else there is to say, in the order of the questions.
    pub findings: Vec<Finding>,
}

/// One statement about a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found and, unless it is good, what it costs and what to do.
    pub text: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works, with a drawback.
    Warning,
    /// Something that the proxy promises does not work.
    Error,
}

impl Display for Severity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// What the configuration needs of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Most connections that the proxy opens for its clients.
    pub connections: usize,
    /// Whether clients get in by the servers' accounts only: without any in `[users]`.
    pub accounts: bool,
    /// How its connections shall be compressed.
    pub compression: ServerCompression,
    /// Whether it shall be told where clients are.
    pub proxy_protocol: ProxyProtocol,
    /// Whether dbproxy replaces the primary.
    pub failover: bool,
}

impl Needs {
    /// What `config` needs of one of its servers.
    pub fn new(config: &Config, server: &ServerConfig) -> Self {
        Self {
            connections: config.limits.server_connections,
            accounts: config.users.is_empty(),
            compression: config.cluster.compression_of(server),
            proxy_protocol: config.cluster.proxy_protocol_of(server),
            failover: config.cluster.failover != Failover::Off,
        }
    }
}

/// Looks at one server, once.
pub async fn inspect(target: &Target, needs: Needs) -> Inspection {
    let facts = Prober::new(target.clone()).probe().await;
    let mut inspection = Inspection {
        server: target.name.clone(),
        facts,
        round_trip: None,
        accounts: None,
        findings: Vec::new(),
    };
    if let Err(error) = &inspection.facts {
        let text = match error {
            ProbeError::AccessDenied(_) => {
                format!("{error}: create the account or correct [monitor] user and password")
            }
            ProbeError::Other(_) => {
                format!(
                    "{error}: the monitor's account needs REPLICATION CLIENT (MariaDB: also SLAVE MONITOR)"
                )
            }
            ProbeError::Tls(_) => format!("{error}: correct [tls.server]"),
            _ => error.to_string(),
        };
        inspection.findings.push(error_finding(text));
    }
    let looked = time::timeout(DEADLINE, look(target, needs, &mut inspection)).await;
    match looked {
        Ok(Ok(())) => {}
        // That the server cannot be reached is said already.
        _ if inspection.facts.is_err() => {}
        Ok(Err(error)) => inspection.findings.push(error_finding(error.to_string())),
        Err(_) => inspection
            .findings
            .push(error_finding("no answer in time".to_owned())),
    }
    inspection
}

async fn look(
    target: &Target,
    needs: Needs,
    inspection: &mut Inspection,
) -> Result<(), ProbeError> {
    let mut conn = within(DEADLINE, connect(&options(target))).await?;
    let begun = Instant::now();
    let version = probe::version(&mut conn).await?;
    inspection.round_trip = Some(begun.elapsed());
    let variables = variables(&mut conn).await?;
    let findings = &mut inspection.findings;
    version_finding(&version, findings);
    position_findings(&version, &variables, findings);
    findings.push(tracking(&mut conn, version.flavor).await);
    durability_findings(&variables, findings);
    findings.extend(transport_finding(target, &variables));
    findings.extend(offers::compression(
        version.flavor,
        &variables,
        needs.compression,
    ));
    if needs.proxy_protocol == ProxyProtocol::On {
        let host = conn.query_first(HOST).await;
        let host: Option<String> = host.map_err(|error| classify(&error))?;
        let host = host.unwrap_or_default();
        findings.push(offers::proxy_protocol(version.flavor, &variables, &host));
    }
    findings.extend(connections_finding(&variables, needs));
    if let Ok(facts) = &inspection.facts {
        replication_findings(facts, findings);
    }
    if target.pulse.is_some() {
        let facts = inspection.facts.as_ref();
        let writes = facts.is_ok_and(|facts| facts.write_block.is_none());
        findings.push(heartbeat_finding(&mut conn, &variables, writes).await);
    }
    match accounts::count(&mut conn, version.flavor).await {
        Ok(count) => {
            inspection.accounts = Some(count);
            findings.push(good(format!("{count} accounts can be read")));
        }
        Err(error) => findings.push(unread_accounts(&error, version.flavor, needs)),
    }
    match catalogue::seen(&mut conn, &version).await {
        Ok(seen) => seen.findings(version.flavor, findings),
        Err(error) => findings.push(warning(format!(
            "stored functions and views cannot be read ({error}): calls of functions go to the primary"
        ))),
    }
    let facts = inspection.facts.as_ref().ok();
    match readiness::look(&mut conn, &version, facts, needs.failover).await {
        Ok(found) => findings.extend(found),
        Err(error) if needs.failover => findings.push(warning(format!(
            "whether it is ready for a failover cannot be seen: {error}"
        ))),
        Err(_) => {}
    }
    // The server may close first.
    let _ = conn.disconnect().await;
    Ok(())
}

pub(super) fn good(text: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Good,
        text: text.into(),
    }
}

pub(super) fn warning(text: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Warning,
        text: text.into(),
    }
}

pub(super) fn error_finding(text: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Error,
        text: text.into(),
    }
}

async fn variables(conn: &mut Conn) -> Result<HashMap<String, String>, ProbeError> {
    let rows: Vec<Row> = conn
        .query(VARIABLES)
        .await
        .map_err(|error| classify(&error))?;
    let pairs = rows.iter().filter_map(|row| {
        let row = Fields(row);
        let name = row.text(&["Variable_name"])?;
        Some((name.to_ascii_lowercase(), row.text(&["Value"])?))
    });
    Ok(pairs.collect())
}

fn version_finding(version: &Version, findings: &mut Vec<Finding>) {
    let oldest = match version.flavor {
        Flavor::MySql => OLDEST_MYSQL,
        Flavor::MariaDb => OLDEST_MARIADB,
    };
    if version.number() < oldest {
        findings.push(error_finding(format!(
            "{version} is too old: MySQL from 8.0 and MariaDB from 10.5 on are supported"
        )));
    }
}

fn is_on(variables: &HashMap<String, String>, names: &[&str]) -> bool {
    names.iter().any(|name| {
        variables
            .get(*name)
            .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("on"))
    })
}

fn position_findings(
    version: &Version,
    variables: &HashMap<String, String>,
    findings: &mut Vec<Finding>,
) {
    match version.flavor {
        Flavor::MySql if is_on(variables, &["gtid_mode"]) => findings.push(good("gtid_mode is ON")),
        Flavor::MySql => findings.push(warning(
            "gtid_mode is not ON: after a write, reads of the account stay on the primary for twice max_lag",
        )),
        Flavor::MariaDb if is_on(variables, &["gtid_strict_mode"]) => findings.push(good("gtid_strict_mode is ON")),
        Flavor::MariaDb => findings.push(warning(
            "gtid_strict_mode is OFF: a write on a replica can make its position look further than it is",
        )),
    }
    if !is_on(variables, &["log_bin"]) {
        findings.push(warning(
            "log_bin is OFF: writes have no position here, and no server can replicate from this one",
        ));
    } else if !is_on(variables, &["log_replica_updates", "log_slave_updates"]) {
        findings.push(warning(
            "log_replica_updates is OFF: other replicas cannot follow this server if it becomes the primary",
        ));
    }
}

/// Does the server tell the position of a write in its answer?
async fn tracking(conn: &mut Conn, flavor: Flavor) -> Finding {
    let query = match flavor {
        Flavor::MySql => "SET SESSION session_track_gtids = 'OWN_GTID'",
        Flavor::MariaDb => "SET SESSION session_track_system_variables = 'last_gtid'",
    };
    match conn.query_drop(query).await {
        Ok(()) => good("positions of writes are told in their answers"),
        Err(error) => error_finding(format!(
            "positions of writes are not told in their answers ({error}): after a write, reads of the account wait \
             for the next probe of the primary"
        )),
    }
}

fn durability_findings(variables: &HashMap<String, String>, findings: &mut Vec<Finding>) {
    let value = |name: &str| variables.get(name).map(String::as_str);
    if value("sync_binlog") != Some("1") || value("innodb_flush_log_at_trx_commit") != Some("1") {
        findings.push(warning(
            "sync_binlog and innodb_flush_log_at_trx_commit are not both 1: a crash of the host loses acknowledged writes",
        ));
    }
    let semisync = [
        "rpl_semi_sync_master_enabled",
        "rpl_semi_sync_source_enabled",
        "rpl_semi_sync_slave_enabled",
        "rpl_semi_sync_replica_enabled",
    ];
    if is_on(variables, &semisync) {
        findings.push(good("semi-synchronous replication is on"));
    } else {
        findings.push(warning(
            "replication is asynchronous: a failover can lose the last acknowledged writes",
        ));
    }
}

/// Whether the server takes the connections of clients' sessions as they are made.
fn transport_finding(target: &Target, variables: &HashMap<String, String>) -> Option<Finding> {
    if matches!(target.address, ServerAddress::Unix(_))
        || !is_on(variables, &["require_secure_transport"])
    {
        return None;
    }
    match target.tls.mode {
        ServerMode::Disabled => Some(error_finding(
            "require_secure_transport is ON, and dbproxy does not use TLS here: set tls.server.mode = \"required\"",
        )),
        // Only a connection of a session shows whether it does.
        ServerMode::Preferred => Some(warning(
            "require_secure_transport is ON, and if the server is on this machine dbproxy does not use TLS: set \
             tls.server.mode = \"required\"",
        )),
        ServerMode::Required | ServerMode::VerifyCa | ServerMode::VerifyIdentity => None,
    }
}

async fn heartbeat_finding(
    conn: &mut Conn,
    variables: &HashMap<String, String>,
    writes: bool,
) -> Finding {
    const WITHOUT: &str = "lag is known by positions and what the servers say themselves";
    let format = variables.get("binlog_format");
    if format.is_some_and(|format| format.eq_ignore_ascii_case("statement")) {
        return warning(format!(
            "no heartbeat with binlog_format=STATEMENT: {WITHOUT}; set it to ROW or MIXED"
        ));
    }
    match heartbeat::allowed(conn, writes).await {
        Ok(()) if writes => good("lag is measured with heartbeats, which can be written here"),
        Ok(()) => good("heartbeats can be read"),
        Err(error) => warning(format!(
            "no heartbeat ({error}): {WITHOUT}; on the primary: {}; GRANT SELECT, INSERT, UPDATE, DELETE ON \
             dbproxy.heartbeat TO the monitor's account; or set monitor.heartbeat = \"off\"",
            heartbeat::CREATE
        )),
    }
}

fn unread_accounts(error: &ProbeError, flavor: Flavor, needs: Needs) -> Finding {
    let table = match flavor {
        Flavor::MySql => "mysql.user",
        Flavor::MariaDb => "mysql.global_priv",
    };
    if needs.accounts {
        error_finding(format!(
            "accounts cannot be read ({error}): GRANT SELECT ON {table} TO the monitor's account, or give passwords in \
             [users.NAME]"
        ))
    } else {
        warning(format!(
            "accounts cannot be read ({error}): only users with a [users.NAME] section get in, unless you GRANT SELECT \
             ON {table} TO the monitor's account"
        ))
    }
}

fn connections_finding(variables: &HashMap<String, String>, needs: Needs) -> Option<Finding> {
    let allowed: usize = variables.get("max_connections")?.parse().ok()?;
    let used = needs.connections + MONITOR_CONNECTIONS;
    (allowed < used).then(|| {
        warning(format!(
            "max_connections is {allowed}: too few for limits.server_connections, {}, and the monitor's \
             {MONITOR_CONNECTIONS}; under load the server refuses connections with error 1040",
            needs.connections
        ))
    })
}

fn replication_findings(facts: &ServerFacts, findings: &mut Vec<Finding>) {
    if let Some(block) = facts.write_block {
        findings.push(good(format!("takes no writes ({block})")));
    } else if facts.sources.is_empty() {
        findings.push(good("takes writes"));
    } else {
        findings.push(warning(
            "takes writes although it replicates: unless it is the primary it gets no traffic; set read_only=ON",
        ));
    }
    if !facts.unlogged.is_empty() {
        findings.push(warning(format!(
            "its binary log leaves something out ({}): replicas get no reads of that",
            facts.unlogged
        )));
    }
    for source in &facts.sources {
        let from = format!("{}:{}", source.host, source.port);
        let stopped = [source.receiver, source.applier]
            .iter()
            .any(|thread| *thread != ThreadState::Running);
        let error = source.error.as_deref().unwrap_or("no error");
        findings.push(match (stopped, source.behind) {
            (true, _) => error_finding(format!(
                "replication from {from} does not run ({error}): it gets no reads"
            )),
            (false, None) => error_finding(format!(
                "replication from {from} has no known lag: it gets no reads"
            )),
            (false, Some(behind)) => good(format!(
                "replicates from {from}, {} s behind",
                behind.as_secs()
            )),
        });
        if !source.filters.is_empty() {
            findings.push(warning(format!(
                "replication from {from} leaves something out ({}): reads of other tables than are surely here, or of views, and \
                 those that call stored functions go elsewhere, and so do transactions",
                source.filters
            )));
        }
        if !source.delay.is_zero() {
            findings.push(warning(format!(
                "replication from {from} is delayed by {} s on purpose",
                source.delay.as_secs()
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, ServerTls};
    use crate::topology::ServerId;

    const NEEDS: Needs = Needs {
        connections: 100,
        accounts: true,
        compression: ServerCompression::Off,
        proxy_protocol: ProxyProtocol::Off,
        failover: false,
    };

    #[test]
    fn too_few_connections_are_warned_of() {
        let needs = NEEDS;
        for (allowed, warned) in [("103", true), ("104", false), ("unknown", false)] {
            let variables = HashMap::from([("max_connections".to_owned(), allowed.to_owned())]);
            let found = connections_finding(&variables, needs).map(|finding| finding.severity);
            assert_eq!(found, warned.then_some(Severity::Warning), "{allowed}");
        }
        assert_eq!(connections_finding(&HashMap::new(), needs), None);
    }

    #[test]
    fn a_server_that_requires_tls_may_not_get_it() {
        let variables = |value: &str| {
            HashMap::from([("require_secure_transport".to_owned(), value.to_owned())])
        };
        for (mode, severity) in [
            (ServerMode::Disabled, Some(Severity::Error)),
            (ServerMode::Preferred, Some(Severity::Warning)),
            (ServerMode::Required, None),
        ] {
            for host in ["127.0.0.1", "db1"] {
                let target = Target {
                    id: ServerId(0),
                    name: "db1".into(),
                    address: ServerAddress::Tcp {
                        host: host.to_owned(),
                        port: 3306,
                    },
                    user: String::new(),
                    password: Secret::new(""),
                    interval: Duration::ZERO,
                    tls: ServerTls {
                        mode,
                        ..ServerTls::default()
                    },
                    pulse: None,
                };
                let found = |value| transport_finding(&target, &variables(value));
                assert_eq!(found("ON").map(|finding| finding.severity), severity);
                assert_eq!(found("OFF"), None);
            }
        }
    }

    #[test]
    fn unread_accounts_matter_only_without_configured_users() {
        let error = ProbeError::Other("denied".into());
        for (accounts, severity) in [(true, Severity::Error), (false, Severity::Warning)] {
            let needs = Needs { accounts, ..NEEDS };
            let finding = unread_accounts(&error, Flavor::MySql, needs);
            assert_eq!(finding.severity, severity, "{}", finding.text);
        }
    }
}
