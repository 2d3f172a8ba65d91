//! What a replica says of the connections to its sources.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Row;

use super::fields::Fields;
use super::queries::{list, position};
use crate::topology::{Contact, Filters, Flavor, SourceFacts, ThreadState, Version};

/// MySQL speaks of sources and replicas from here on; SHOW SLAVE STATUS is gone in 8.4.
const MYSQL_REPLICA_WORDS: u32 = 80_022;

/// Both families' own, where a server does not tell.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(30);

/// What asks for them.
pub(super) fn question(version: &Version) -> &'static str {
    match version.flavor {
        Flavor::MariaDb => "SHOW ALL SLAVES STATUS",
        Flavor::MySql if version.number() >= MYSQL_REPLICA_WORDS => "SHOW REPLICA STATUS",
        Flavor::MySql => "SHOW SLAVE STATUS",
    }
}

/// One row of SHOW REPLICA STATUS, SHOW SLAVE STATUS or SHOW ALL SLAVES STATUS.
pub(super) fn read(row: &Row, flavor: Flavor) -> Option<SourceFacts> {
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
    let applier_error: Option<Arc<str>> =
        error(&["Last_SQL_Errno"], &["Last_SQL_Error"]).map(Into::into);
    let receiver_error = || error(&["Last_IO_Errno"], &["Last_IO_Error"]).map(Into::into);
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
        error: applier_error.clone().or_else(receiver_error),
        applier_error,
        received: row
            .bytes(&["Retrieved_Gtid_Set", "Gtid_IO_Pos"])
            .filter(|text| !text.trim_ascii().is_empty())
            .and_then(|text| position(flavor, &text)),
        heartbeats: row.number(&["Slave_received_heartbeats"]),
        heartbeat_period: period(&row).unwrap_or(HEARTBEAT_PERIOD),
        read_to: format!(
            "{}:{}",
            text(&["Source_Log_File", "Master_Log_File"]),
            text(&["Read_Source_Log_Pos", "Read_Master_Log_Pos"])
        )
        .into(),
        contact: contact(&row),
        auto_position: match row.text(&["Using_Gtid"]) {
            Some(using) => !using.eq_ignore_ascii_case("no"),
            None => row.is_set(&["Auto_Position"]),
        },
        remaining_delay: row
            .number(&["SQL_Remaining_Delay"])
            .map(Duration::from_secs),
        channel: channel.into(),
    })
}

/// The period of heartbeats, in seconds with a fraction.
pub(super) fn period(row: &Fields<'_>) -> Option<Duration> {
    let seconds = row.text(&["Slave_heartbeat_period", "period"])?;
    Duration::try_from_secs_f64(seconds.parse().ok()?).ok()
}

fn contact(row: &Fields<'_>) -> Option<Contact> {
    let errno = row.number(&["Last_IO_Errno"]).filter(|errno| *errno != 0)?;
    let text = row.text(&["Last_IO_Error"]).unwrap_or_default();
    Some(Contact {
        errno,
        system: system_error(&text),
    })
}

/// The operating system's error in a client's message: `… (111)`, MariaDB's `… (111 "Connection refused")`, and
/// `…, system error: 104` of a connection that is lost during login.
fn system_error(text: &str) -> Option<u32> {
    let number = |text: &str| -> Option<(u32, usize)> {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        Some((text.get(..end)?.parse().ok()?, end))
    };
    let in_brackets = || {
        text.rsplit('(').find_map(|part| {
            let (errno, end) = number(part)?;
            let rest = part.get(end..)?;
            (rest.starts_with(')') || rest.starts_with(" \"")).then_some(errno)
        })
    };
    let named = text.rsplit_once("system error: ");
    let named = named
        .and_then(|(_, rest)| number(rest))
        .map(|(errno, _)| errno);
    named.or_else(in_brackets).filter(|errno| *errno != 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_found_in_messages() {
        for (text, system) in [
            (
                "Error connecting to source 'repl@127.0.0.1:3306'. This was attempt 1/10, with a delay of 1 seconds \
                 between attempts. Message: Can't connect to MySQL server on '127.0.0.1:3306' (111)",
                Some(111),
            ),
            (
                "error connecting to master 'repl@127.0.0.1:3306' - retry-time: 1  maximum-retries: 100000  message: \
                 Can't connect to server on '127.0.0.1' (111 \"Connection refused\")",
                Some(111),
            ),
            (
                "Lost connection to MySQL server at 'reading initial communication packet', system error: 104",
                Some(104),
            ),
            (
                "Lost connection to server at 'handshake: reading initial communication packet', system error: 0 \
                 \"Internal error/check (Not system error)\"",
                None,
            ),
            ("Unknown MySQL server host 'db1' (-2)", None),
            (
                "Access denied for user 'repl'@'10.0.0.1' (using password: YES)",
                None,
            ),
            ("(99999999999)", None),
            ("", None),
        ] {
            assert_eq!(system_error(text), system, "{text}");
        }
    }
}
