//! The single statements that change a server's place in the cluster, in each family's words.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use dbproxy_proto::gtid::Position;

use crate::topology::{Flavor, Version};

/// MySQL 8.0.22 says REPLICA, 8.0.23 CHANGE REPLICATION SOURCE, 8.0.26 has variables with the new words.
const REPLICA: u32 = 80_022;
const SOURCE: u32 = 80_023;
const VARIABLES: u32 = 80_026;
/// MariaDB 10.10 can turn a primary's position into a replica's by itself.
const DEMOTE: u32 = 101_000;

/// One thing that is done on one server, over the connection that holds its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Reads the server's facts again, for the plan to go on from.
    Look,
    /// Puts the number of the next reign down, only upwards.
    Ballot(u64),
    /// Lets the applier run, and waits until it does.
    StartApplier,
    /// Ends the connection to the source; the applier goes on.
    StopReceiver,
    /// Waits until all of this is executed.
    Await(Position),
    /// Stops both threads.
    StopReplication,
    /// Forgets the source.
    ForgetSource,
    /// Sets the source; `demoted` if the server was a primary until now.
    Follow {
        /// Where the source listens.
        host: String,
        /// Its port.
        port: u16,
        /// Was this server a primary until now?
        demoted: bool,
    },
    /// Starts both threads.
    StartReplication,
    /// Waits until both threads run, or one of them tells why it does not.
    AwaitReplication,
    /// Logins of ordinary accounts are refused and their connections ended (MySQL), or not any more.
    Offline(bool),
    /// Takes no more writes. Waits at most two seconds for statements that run.
    RefuseWrites,
    /// Takes writes.
    AcceptWrites,
    /// Ends every connection that is not an administrator's or a replica's.
    Expel,
    /// Acknowledges as a replica, or waits for acknowledgements as a primary.
    SemiSync {
        /// As a primary?
        source: bool,
    },
    /// Writes the row of the reign: the first transaction of the new primary.
    Crown {
        /// The number of the reign.
        epoch: u64,
        /// What the plan is called.
        plan: String,
    },
}

/// Who a replica is to log in as at its source; a server that has a source already keeps what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The account.
    pub user: String,
    /// Its password.
    pub password: crate::config::Secret,
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Look => f.write_str("look at its state"),
            Self::Ballot(number) => write!(f, "put down reign {number}"),
            Self::StartApplier => f.write_str("let the applier run"),
            Self::StopReceiver => f.write_str("stop the receiver"),
            Self::Await(position) => write!(f, "wait until {position} is applied"),
            Self::StopReplication => f.write_str("stop replication"),
            Self::ForgetSource => f.write_str("forget the source"),
            Self::Follow { host, port, .. } => write!(f, "replicate from {host}:{port}"),
            Self::StartReplication => f.write_str("start replication"),
            Self::AwaitReplication => f.write_str("wait until it replicates"),
            Self::Offline(true) => f.write_str("refuse ordinary accounts"),
            Self::Offline(false) => f.write_str("let ordinary accounts in"),
            Self::RefuseWrites => f.write_str("take no writes"),
            Self::AcceptWrites => f.write_str("take writes"),
            Self::Expel => f.write_str("end clients' connections"),
            Self::SemiSync { source: true } => f.write_str("wait for acknowledgements"),
            Self::SemiSync { source: false } => f.write_str("acknowledge"),
            Self::Crown { epoch, .. } => write!(f, "begin reign {epoch}"),
        }
    }
}

/// The statements of an action on a server of this version. Empty for what is more than statements ([`Action::Look`],
/// [`Action::Expel`], [`Action::AwaitReplication`]) and for what that family does not have.
///
/// `credentials` are those of a server that has to log in at a source for the first time. The text holds their password: it
/// is for the server alone; a journal uses the text without credentials.
pub fn statements(
    action: &Action,
    version: &Version,
    credentials: Option<&Credentials>,
) -> Vec<String> {
    match version.flavor {
        Flavor::MySql => mysql(action, version, credentials),
        Flavor::MariaDb => mariadb(action, version, credentials),
    }
}

fn mysql(action: &Action, version: &Version, credentials: Option<&Credentials>) -> Vec<String> {
    let word = match version.number() >= REPLICA {
        true => "REPLICA",
        false => "SLAVE",
    };
    let one = |text: String| vec![text];
    match action {
        Action::Look | Action::Expel | Action::AwaitReplication => Vec::new(),
        Action::Ballot(number) => one(format!("SET PERSIST_ONLY report_user='dbproxy-b{number}'")),
        Action::StartApplier => one(format!("START {word} SQL_THREAD")),
        Action::StopReceiver => one(format!("STOP {word} IO_THREAD")),
        Action::Await(position) => one(format!(
            "SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {WAIT_SLICE})"
        )),
        Action::StopReplication => one(format!("STOP {word}")),
        Action::ForgetSource => one(format!("RESET {word} ALL")),
        Action::Follow { host, port, .. } => one(follow_mysql(host, *port, version, credentials)),
        Action::StartReplication => one(format!("START {word}")),
        Action::Offline(on) => one(format!("SET GLOBAL offline_mode={}", switch(*on))),
        Action::RefuseWrites => vec![
            format!("SET SESSION lock_wait_timeout={LOCK_WAIT}"),
            // Persisted, so that it does not come back writable.
            "SET PERSIST super_read_only=ON".to_owned(),
        ],
        Action::AcceptWrites => vec![
            "SET GLOBAL super_read_only=OFF".to_owned(),
            "SET GLOBAL read_only=OFF".to_owned(),
            // A primary that crashed must not come back as one by itself.
            "SET PERSIST_ONLY super_read_only=ON".to_owned(),
        ],
        Action::SemiSync { source } => semi_sync(
            *source,
            match version.number() >= VARIABLES {
                true => [
                    "rpl_semi_sync_source_enabled",
                    "rpl_semi_sync_replica_enabled",
                ],
                false => [
                    "rpl_semi_sync_master_enabled",
                    "rpl_semi_sync_slave_enabled",
                ],
            },
        ),
        Action::Crown { epoch, plan } => crown(*epoch, plan, "@@server_uuid"),
    }
}

fn mariadb(action: &Action, version: &Version, credentials: Option<&Credentials>) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    match action {
        Action::Look | Action::Expel | Action::AwaitReplication | Action::Offline(_) => Vec::new(),
        Action::Ballot(number) => vec![
            "SET SESSION sql_log_bin=0".to_owned(),
            "CREATE DATABASE IF NOT EXISTS dbproxy".to_owned(),
            "CREATE TABLE IF NOT EXISTS dbproxy.ballot (id TINYINT UNSIGNED PRIMARY KEY, ballot BIGINT UNSIGNED NOT NULL)"
                .to_owned(),
            format!(
                "INSERT INTO dbproxy.ballot VALUES (1, {number}) ON DUPLICATE KEY UPDATE ballot = GREATEST(ballot, {number})"
            ),
            "SET SESSION sql_log_bin=1".to_owned(),
        ],
        Action::StartApplier => one("START SLAVE SQL_THREAD"),
        Action::StopReceiver => one("STOP SLAVE IO_THREAD"),
        Action::Await(position) => vec![format!(
            "SELECT MASTER_GTID_WAIT('{position}', {WAIT_SLICE})"
        )],
        Action::StopReplication => one("STOP SLAVE"),
        Action::ForgetSource => one("RESET SLAVE ALL"),
        Action::Follow {
            host,
            port,
            demoted,
        } => follow_mariadb(host, *port, *demoted, version, credentials),
        Action::StartReplication => one("START SLAVE"),
        Action::RefuseWrites => vec![
            format!("SET SESSION lock_wait_timeout={LOCK_WAIT}"),
            "SET GLOBAL read_only=ON".to_owned(),
        ],
        Action::AcceptWrites => one("SET GLOBAL read_only=OFF"),
        Action::SemiSync { source } => semi_sync(
            *source,
            ["rpl_semi_sync_master_enabled", "rpl_semi_sync_slave_enabled"],
        ),
        Action::Crown { epoch, plan } => crown(*epoch, plan, "@@server_id"),
    }
}

/// A lock is waited for at most so many seconds: else `read_only` waits behind a transaction for a year.
const LOCK_WAIT: u32 = 2;

/// The server is asked again after so many seconds whether it has applied all.
const WAIT_SLICE: u32 = 1;

/// How often a replica tries to reach its source, and how often it wants to hear from it.
const RETRY: Duration = Duration::from_secs(1);

fn switch(on: bool) -> &'static str {
    match on {
        true => "ON",
        false => "OFF",
    }
}

fn semi_sync(source: bool, [as_source, as_replica]: [&str; 2]) -> Vec<String> {
    let (on, off) = match source {
        true => (as_source, as_replica),
        false => (as_replica, as_source),
    };
    vec![
        format!("SET GLOBAL {off}=OFF"),
        format!("SET GLOBAL {on}=ON"),
    ]
}

fn crown(epoch: u64, plan: &str, identity: &str) -> Vec<String> {
    vec![
        "CREATE DATABASE IF NOT EXISTS dbproxy".to_owned(),
        "CREATE TABLE IF NOT EXISTS dbproxy.epoch (id TINYINT UNSIGNED PRIMARY KEY, epoch BIGINT UNSIGNED NOT NULL, \
         primary_id VARCHAR(64) CHARACTER SET ascii NOT NULL, plan VARCHAR(64) CHARACTER SET ascii NOT NULL, \
         at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            .to_owned(),
        // What is written there tells a primary that hangs from one that is idle.
        "CREATE TABLE IF NOT EXISTS dbproxy.heartbeat (instance BIGINT UNSIGNED PRIMARY KEY, beat BIGINT UNSIGNED NOT NULL, \
         at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)"
            .to_owned(),
        format!(
            "INSERT INTO dbproxy.epoch (id, epoch, primary_id, plan) VALUES (1, {epoch}, CONCAT({identity}), '{}') \
             ON DUPLICATE KEY UPDATE primary_id = IF(epoch < VALUES(epoch), VALUES(primary_id), primary_id), \
             plan = IF(epoch < VALUES(epoch), VALUES(plan), plan), at = IF(epoch < VALUES(epoch), NOW(), at), \
             epoch = GREATEST(epoch, VALUES(epoch))",
            text(plan)
        ),
    ]
}

fn follow_mysql(
    host: &str,
    port: u16,
    version: &Version,
    credentials: Option<&Credentials>,
) -> String {
    let new = version.number() >= SOURCE;
    let (verb, word) = match new {
        true => ("CHANGE REPLICATION SOURCE TO", "SOURCE"),
        false => ("CHANGE MASTER TO", "MASTER"),
    };
    let mut sql = format!(
        "{verb} {word}_HOST='{}', {word}_PORT={port}, {word}_AUTO_POSITION=1, {word}_CONNECT_RETRY={retry}, \
         {word}_RETRY_COUNT=86400, {word}_HEARTBEAT_PERIOD={retry}",
        text(host),
        retry = RETRY.as_secs()
    );
    if let Some(Credentials { user, password }) = credentials {
        // Without TLS the password of caching_sha2_password is sent encrypted with the source's key.
        sql.push_str(&format!(
            ", {word}_USER='{}', {word}_PASSWORD='{}', GET_{word}_PUBLIC_KEY=1",
            text(user),
            text(password.expose()),
            word = word
        ));
    }
    sql
}

fn follow_mariadb(
    host: &str,
    port: u16,
    demoted: bool,
    version: &Version,
    credentials: Option<&Credentials>,
) -> Vec<String> {
    let mut sql = format!(
        "CHANGE MASTER TO MASTER_HOST='{}', MASTER_PORT={port}, MASTER_CONNECT_RETRY={retry}, MASTER_HEARTBEAT_PERIOD={retry}",
        text(host),
        retry = RETRY.as_secs()
    );
    if let Some(Credentials { user, password }) = credentials {
        sql.push_str(&format!(
            ", MASTER_USER='{}', MASTER_PASSWORD='{}'",
            text(user),
            text(password.expose())
        ));
    }
    sql.push_str(match (demoted, version.number() >= DEMOTE) {
        (true, true) => ", MASTER_USE_GTID=slave_pos, MASTER_DEMOTE_TO_SLAVE=1",
        (true, false) => ", MASTER_USE_GTID=current_pos",
        (false, _) => ", MASTER_USE_GTID=slave_pos",
    });
    vec![sql]
}

/// As it stands between quotes; valid in any sql_mode that the connection of the plan has.
fn text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "''")
}
