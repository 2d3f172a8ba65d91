//! What is asked of a server, in its family's words, and how the answers are read.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::gtid::{GtidHistory, GtidPosition, GtidSet, Position};
use mysql_async::Row;

use super::fields::Fields;
use super::sources;
use crate::topology::{
    Defaults, Filters, Flavor, ProbeError, SemiSync, ServerFacts, Version, WriteBlock,
};

/// MySQL speaks of binary logs from here on; SHOW MASTER STATUS is gone in 8.4.
const MYSQL_LOG_WORDS: u32 = 80_200;

/// Once per connection.
pub(super) const IDENTIFY: &str = "SELECT @@version AS version";

/// Once per connection as well: a lock is waited for as short as the family allows.
pub(super) fn no_wait(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MySql => "SET SESSION lock_wait_timeout = 1",
        Flavor::MariaDb => "SET SESSION lock_wait_timeout = 0",
    }
}

/// Number of the default collation; some of MariaDB's have names without a character set only here.
pub(super) const COLLATION: &str =
    "SELECT id FROM information_schema.collations WHERE collation_name = @@global.collation_server";

/// MariaDB from 10.10 on keeps the numbers of its newest collations per character set.
pub(super) const COLLATION_OF_SET: &str = "SELECT id FROM information_schema.collation_character_set_applicability \
     WHERE full_collation_name = @@global.collation_server";

/// By name, since a variable or plugin that is not there must not be an error. Of the session rather than global: those of the
/// server are the same, and nothing is summed up over all sessions.
const MYSQL_STATUS: &str = "SELECT variable_name AS name, variable_value AS value FROM performance_schema.global_variables \
     WHERE variable_name IN ('binlog_format', 'event_scheduler', 'log_replica_updates', 'log_slave_updates', \
     'rpl_semi_sync_source_enabled', 'rpl_semi_sync_source_timeout', 'rpl_semi_sync_source_wait_for_replica_count', \
     'rpl_semi_sync_master_enabled', 'rpl_semi_sync_master_timeout', 'rpl_semi_sync_master_wait_for_slave_count', \
     'rpl_semi_sync_replica_enabled', 'rpl_semi_sync_slave_enabled') \
     UNION ALL SELECT variable_name, variable_value FROM performance_schema.session_status \
     WHERE variable_name IN ('Uptime', 'Rpl_semi_sync_source_status', 'Rpl_semi_sync_source_clients', \
     'Rpl_semi_sync_source_wait_sessions', 'Rpl_semi_sync_master_status', 'Rpl_semi_sync_master_clients', \
     'Rpl_semi_sync_master_wait_sessions', 'Rpl_semi_sync_replica_status', 'Rpl_semi_sync_slave_status')";

const MARIADB_STATUS: &str = "SELECT variable_name AS name, variable_value AS value FROM information_schema.session_status \
     WHERE variable_name IN ('Uptime', 'Rpl_semi_sync_master_status', 'Rpl_semi_sync_master_clients', \
     'Rpl_semi_sync_master_wait_sessions', 'Rpl_semi_sync_slave_status')";

/// Everything a probe has to know, in one round trip of three statements.
pub(super) fn probe(version: &Version) -> String {
    match version.flavor {
        Flavor::MySql => format!(
            "SELECT @@version AS version, @@server_uuid AS uuid, @@server_id AS server_id, \
             @@global.read_only AS read_only, @@global.super_read_only AS super_read_only, \
             @@global.innodb_read_only AS innodb_read_only, @@global.offline_mode AS offline_mode, \
             @@log_bin AS log_bin, @@global.gtid_mode AS gtid_mode, @@global.gtid_executed AS executed, \
             @@global.collation_server AS collation, @@global.sql_mode AS sql_mode, \
             @@global.wait_timeout AS wait_timeout, @@global.interactive_timeout AS interactive_timeout, \
             @@global.max_allowed_packet AS max_allowed_packet; {}; {MYSQL_STATUS}",
            sources::question(version)
        ),
        Flavor::MariaDb => format!(
            "SELECT @@version AS version, @@server_id AS server_id, \
             @@global.read_only AS read_only, @@global.innodb_read_only AS innodb_read_only, \
             @@log_bin AS log_bin, @@global.gtid_current_pos AS executed, @@global.gtid_slave_pos AS replicated, \
             @@global.gtid_binlog_state AS history, \
             @@global.collation_server AS collation, @@global.sql_mode AS sql_mode, \
             @@global.wait_timeout AS wait_timeout, @@global.interactive_timeout AS interactive_timeout, \
             @@global.max_allowed_packet AS max_allowed_packet, \
             @@global.log_slave_updates AS log_slave_updates, @@global.binlog_format AS binlog_format, \
             @@global.event_scheduler AS event_scheduler, \
             @@global.rpl_semi_sync_master_enabled AS rpl_semi_sync_master_enabled, \
             @@global.rpl_semi_sync_master_timeout AS rpl_semi_sync_master_timeout, \
             @@global.rpl_semi_sync_slave_enabled AS rpl_semi_sync_slave_enabled; {}; {MARIADB_STATUS}",
            sources::question(version)
        ),
    }
}

/// What tells what the server's log leaves out, which never changes while it runs.
pub(super) fn log_status(version: &Version) -> &'static str {
    match version.flavor {
        Flavor::MySql if version.number() >= MYSQL_LOG_WORDS => "SHOW BINARY LOG STATUS",
        _ => "SHOW MASTER STATUS",
    }
}

/// Reads the answer to that.
pub(super) fn unlogged(row: &Row) -> Filters {
    let row = Fields(row);
    Filters {
        do_schemas: list(&row, "Binlog_Do_DB"),
        ignore_schemas: list(&row, "Binlog_Ignore_DB"),
        ..Filters::default()
    }
}

pub(super) fn list(row: &Fields<'_>, name: &str) -> Vec<String> {
    let text = row.text(&[name]).unwrap_or_default();
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// Name of the server's default collation, from the first answer of a probe.
pub(super) fn collation_name(variables: &Row) -> Option<String> {
    Fields(variables).text(&["collation"])
}

/// What a server answers to [`probe`].
pub(super) struct Answers {
    pub(super) variables: Row,
    pub(super) connections: Vec<Row>,
    pub(super) status: Vec<Row>,
}

/// Reads them. The number of the collation, and what needs other questions, are still to be added.
pub(super) fn facts(
    Answers {
        variables,
        connections,
        status,
    }: &Answers,
) -> Result<ServerFacts, ProbeError> {
    let row = Fields(variables);
    let lacking =
        |what: &str| ProbeError::Other(format!("the server does not tell its {what}").into());
    let version = row
        .text(&["version"])
        .and_then(|text| Version::parse(&text))
        .ok_or_else(|| lacking("version"))?;
    let server_id = row
        .number(&["server_id"])
        .ok_or_else(|| lacking("server_id"))?;
    let position = |name| {
        row.bytes(&[name])
            .and_then(|text| position(version.flavor, &text))
    };
    let executed = position("executed");
    let (gtid, replicated) = match version.flavor {
        Flavor::MySql => (
            row.text(&["gtid_mode"])
                .is_some_and(|mode| mode.eq_ignore_ascii_case("on")),
            executed.clone(),
        ),
        Flavor::MariaDb => (true, position("replicated")),
    };
    let settings = Settings { row: &row, status };
    let known = |position: Option<Arc<Position>>| position.filter(|_| gtid);
    Ok(ServerFacts {
        uuid: row.text(&["uuid"]).map(Into::into),
        server_id,
        write_block: write_block(&row),
        log_bin: row.is_set(&["log_bin"]),
        gtid,
        executed: known(executed),
        replicated: known(replicated),
        history: row
            .bytes(&["history"])
            .and_then(|text| GtidHistory::parse(&text).ok())
            .map(Arc::new),
        sources: connections
            .iter()
            .filter_map(|row| sources::read(row, version.flavor))
            .collect(),
        unlogged: Arc::default(),
        heartbeat: None,
        collation: 0,
        sql_mode: row.text(&["sql_mode"]).unwrap_or_default().into(),
        defaults: defaults(&row),
        log_updates: settings.is_on(&["log_replica_updates", "log_slave_updates"]),
        // Versions without the variable know no other.
        row_format: settings
            .text(&["binlog_format"])
            .is_none_or(|format| format.eq_ignore_ascii_case("row")),
        event_scheduler: settings.is_on(&["event_scheduler"]),
        epoch: None,
        ballot: 0,
        semi_sync: semi_sync(&settings),
        seconds_up: settings.number(&["Uptime"]).unwrap_or_default(),
        version,
    })
}

/// Variables and states, wherever the server's family tells them.
struct Settings<'a> {
    row: &'a Fields<'a>,
    status: &'a [Row],
}

impl Settings<'_> {
    /// The first of these that exists.
    fn text(&self, names: &[&str]) -> Option<String> {
        self.row.text(names).or_else(|| {
            self.status.iter().map(Fields).find_map(|row| {
                let name = row.text(&["name"])?;
                let wanted = names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted));
                row.text(&["value"]).filter(|_| wanted)
            })
        })
    }

    fn number<N: FromStr>(&self, names: &[&str]) -> Option<N> {
        self.text(names)?.parse().ok()
    }

    fn is_on(&self, names: &[&str]) -> bool {
        self.text(names)
            .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("on"))
    }
}

/// In the words of MySQL from 8.0.26 on, and in those that came before and are MariaDB's.
fn semi_sync(settings: &Settings<'_>) -> SemiSync {
    let on = |new: &str, old: &str| settings.is_on(&[new, old]);
    let count = |new: &str, old: &str| settings.number(&[new, old]);
    let timeout = [
        "rpl_semi_sync_source_timeout",
        "rpl_semi_sync_master_timeout",
    ];
    let timeout: Option<u64> = settings.number(&timeout);
    let clients = count(
        "Rpl_semi_sync_source_clients",
        "Rpl_semi_sync_master_clients",
    );
    let waiting = count(
        "Rpl_semi_sync_source_wait_sessions",
        "Rpl_semi_sync_master_wait_sessions",
    );
    let wait_for = count(
        "rpl_semi_sync_source_wait_for_replica_count",
        "rpl_semi_sync_master_wait_for_slave_count",
    );
    SemiSync {
        source: on(
            "rpl_semi_sync_source_enabled",
            "rpl_semi_sync_master_enabled",
        ),
        replica: on(
            "rpl_semi_sync_replica_enabled",
            "rpl_semi_sync_slave_enabled",
        ),
        active: on("Rpl_semi_sync_source_status", "Rpl_semi_sync_master_status"),
        replica_active: on("Rpl_semi_sync_replica_status", "Rpl_semi_sync_slave_status"),
        clients: clients.unwrap_or_default(),
        waiting: waiting.unwrap_or_default(),
        // MariaDB, which has no such variable, waits for one.
        wait_for: wait_for.unwrap_or_else(|| u32::from(timeout.is_some())),
        timeout: Duration::from_millis(timeout.unwrap_or_default()),
    }
}

fn defaults(row: &Fields<'_>) -> Defaults {
    let usual = Defaults::default();
    let seconds = |name| row.number(&[name]).map(Duration::from_secs);
    Defaults {
        wait_timeout: seconds("wait_timeout").unwrap_or(usual.wait_timeout),
        interactive_timeout: seconds("interactive_timeout").unwrap_or(usual.interactive_timeout),
        max_allowed_packet: row
            .number(&["max_allowed_packet"])
            .unwrap_or(usual.max_allowed_packet),
    }
}

pub(super) fn position(flavor: Flavor, text: &[u8]) -> Option<Arc<Position>> {
    let position = match flavor {
        Flavor::MySql => GtidSet::parse(text).map(Position::MySql),
        Flavor::MariaDb => GtidPosition::parse(text).map(Position::MariaDb),
    };
    position.ok().map(Arc::new)
}

fn write_block(row: &Fields<'_>) -> Option<WriteBlock> {
    [
        ("offline_mode", WriteBlock::Offline),
        ("super_read_only", WriteBlock::SuperReadOnly),
        ("read_only", WriteBlock::ReadOnly),
        ("innodb_read_only", WriteBlock::InnodbReadOnly),
    ]
    .into_iter()
    .find(|(name, _)| row.is_set(&[name]))
    .map(|(_, block)| block)
}
