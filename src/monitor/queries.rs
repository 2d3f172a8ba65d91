//! What is asked of a server, in its family's words, and how the answers are read.

use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::gtid::{GtidPosition, GtidSet, Position};
use mysql_async::Row;

use super::fields::Fields;
use crate::topology::{
    Defaults, Filters, Flavor, ProbeError, ServerFacts, SourceFacts, ThreadState, Version,
    WriteBlock,
};

/// MySQL speaks of sources and replicas from here on; SHOW SLAVE STATUS is gone in 8.4.
const MYSQL_REPLICA_WORDS: u32 = 80_022;

/// And of binary logs from here on; SHOW MASTER STATUS is gone in 8.4.
const MYSQL_LOG_WORDS: u32 = 80_200;

/// Once per connection.
pub(super) const IDENTIFY: &str = "SELECT @@version AS version";

/// Number of the default collation; some of MariaDB's have names without a character set only here.
pub(super) const COLLATION: &str =
    "SELECT id FROM information_schema.collations WHERE collation_name = @@global.collation_server";

/// MariaDB from 10.10 on keeps the numbers of its newest collations per character set.
pub(super) const COLLATION_OF_SET: &str = "SELECT id FROM information_schema.collation_character_set_applicability \
     WHERE full_collation_name = @@global.collation_server";

/// Everything a probe wants to know, in one round trip of two statements.
pub(super) fn probe(version: &Version) -> String {
    match version.flavor {
        Flavor::MySql => format!(
            "SELECT @@version AS version, @@server_uuid AS uuid, @@server_id AS server_id, \
             @@global.read_only AS read_only, @@global.super_read_only AS super_read_only, \
             @@global.innodb_read_only AS innodb_read_only, @@global.offline_mode AS offline_mode, \
             @@log_bin AS log_bin, @@global.gtid_mode AS gtid_mode, @@global.gtid_executed AS executed, \
             @@global.collation_server AS collation, @@global.sql_mode AS sql_mode, \
             @@global.wait_timeout AS wait_timeout, @@global.interactive_timeout AS interactive_timeout, \
             @@global.max_allowed_packet AS max_allowed_packet; {}",
            replication(version)
        ),
        Flavor::MariaDb => format!(
            "SELECT @@version AS version, @@server_id AS server_id, \
             @@global.read_only AS read_only, @@global.innodb_read_only AS innodb_read_only, \
             @@log_bin AS log_bin, @@global.gtid_current_pos AS executed, @@global.gtid_slave_pos AS replicated, \
             @@global.collation_server AS collation, @@global.sql_mode AS sql_mode, \
             @@global.wait_timeout AS wait_timeout, @@global.interactive_timeout AS interactive_timeout, \
             @@global.max_allowed_packet AS max_allowed_packet; {}",
            replication(version)
        ),
    }
}

fn replication(version: &Version) -> &'static str {
    match version.flavor {
        Flavor::MariaDb => "SHOW ALL SLAVES STATUS",
        Flavor::MySql if version.number() >= MYSQL_REPLICA_WORDS => "SHOW REPLICA STATUS",
        Flavor::MySql => "SHOW SLAVE STATUS",
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

fn list(row: &Fields<'_>, name: &str) -> Vec<String> {
    let text = row.text(&[name]).unwrap_or_default();
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// What a replication connection leaves out.
fn filters(row: &Fields<'_>) -> Filters {
    let other = [
        ("rewrite_db", "Replicate_Rewrite_DB"),
        ("do_domain_ids", "Replicate_Do_Domain_Ids"),
        ("ignore_domain_ids", "Replicate_Ignore_Domain_Ids"),
    ];
    let other = other.into_iter().filter_map(|(name, column)| {
        let value = row.text(&[column])?;
        (!value.trim().is_empty()).then_some((name, value))
    });
    Filters {
        do_schemas: list(row, "Replicate_Do_DB"),
        ignore_schemas: list(row, "Replicate_Ignore_DB"),
        do_tables: list(row, "Replicate_Do_Table"),
        ignore_tables: list(row, "Replicate_Ignore_Table"),
        wild_do_tables: list(row, "Replicate_Wild_Do_Table"),
        wild_ignore_tables: list(row, "Replicate_Wild_Ignore_Table"),
        other: other.collect(),
    }
}

/// Name of the server's default collation, from the first answer of a probe.
pub(super) fn collation_name(variables: &Row) -> Option<String> {
    Fields(variables).text(&["collation"])
}

/// Reads the two answers of a probe.
pub(super) fn facts(
    variables: &Row,
    connections: &[Row],
    collation: u16,
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
    let known = |position: Option<Arc<Position>>| position.filter(|_| gtid);
    Ok(ServerFacts {
        uuid: row.text(&["uuid"]).map(Into::into),
        server_id,
        write_block: write_block(&row),
        log_bin: row.is_set(&["log_bin"]),
        gtid,
        executed: known(executed),
        replicated: known(replicated),
        sources: connections.iter().filter_map(source).collect(),
        unlogged: Arc::default(),
        heartbeat: None,
        collation,
        sql_mode: row.text(&["sql_mode"]).unwrap_or_default().into(),
        defaults: defaults(&row),
        version,
    })
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

fn position(flavor: Flavor, text: &[u8]) -> Option<Arc<Position>> {
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

/// One row of SHOW REPLICA STATUS, SHOW SLAVE STATUS or SHOW ALL SLAVES STATUS.
fn source(row: &Row) -> Option<SourceFacts> {
    let row = Fields(row);
    let text = |names: &[&str]| row.text(names).unwrap_or_default();
    let channel = text(&["Channel_Name", "Connection_name"]);
    // Group Replication's own channels lead nowhere.
    if channel.starts_with("group_replication_") {
        return None;
    }
    let error = |number: &[&str], message: &[&str]| {
        let number = row.number::<u32>(number).filter(|number| *number != 0)?;
        Some(format!(
            "{number} {}",
            row.text(message).unwrap_or_default()
        ))
    };
    let error = error(&["Last_SQL_Errno"], &["Last_SQL_Error"])
        .or_else(|| error(&["Last_IO_Errno"], &["Last_IO_Error"]));
    Some(SourceFacts {
        host: text(&["Source_Host", "Master_Host"]).into(),
        port: row
            .number(&["Source_Port", "Master_Port"])
            .unwrap_or_default(),
        uuid: row
            .text(&["Source_UUID", "Master_UUID"])
            .filter(|uuid| !uuid.is_empty())
            .map(Into::into),
        server_id: row
            .number(&["Source_Server_Id", "Master_Server_Id"])
            .filter(|id| *id != 0),
        receiver: thread(&text(&["Replica_IO_Running", "Slave_IO_Running"])),
        applier: thread(&text(&["Replica_SQL_Running", "Slave_SQL_Running"])),
        behind: row
            .number(&["Seconds_Behind_Source", "Seconds_Behind_Master"])
            .map(Duration::from_secs),
        delay: Duration::from_secs(row.number(&["SQL_Delay"]).unwrap_or_default()),
        filters: Arc::new(filters(&row)),
        error: error.map(Into::into),
        channel: channel.into(),
    })
}

fn thread(state: &str) -> ThreadState {
    if state.eq_ignore_ascii_case("yes") {
        ThreadState::Running
    } else if state.eq_ignore_ascii_case("no") || state.is_empty() {
        ThreadState::Stopped
    } else {
        // "Connecting", and MariaDB's "Preparing".
        ThreadState::Connecting
    }
}
