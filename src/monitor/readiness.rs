//! Whether a server is ready for a failover: what it lacks, what that costs, and the statement that mends it.

use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::connect::classify;
use super::fields::Fields;
use super::inspect::{Finding, Severity, good};
use crate::topology::{Flavor, ProbeError, ServerFacts, Version};

/// Beyond what `check` asks for anyway.
const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('gtid_mode', 'gtid_strict_mode', 'log_bin', 'read_only', \
     'super_read_only', 'log_slave_updates', 'log_replica_updates', 'binlog_format', 'sync_binlog', 'innodb_flush_log_at_trx_commit', \
     'slave_net_timeout', 'replica_net_timeout', 'relay_log_recovery', 'event_scheduler', 'rpl_semi_sync_master_wait_no_slave', \
     'rpl_semi_sync_source_wait_no_replica')";

/// A replica that hears less often of its primary is late to notice that this is silent.
const HEARTBEAT: f32 = 2.0;

/// A replica that tries less often is too old to be promoted when it comes back.
const RETRY: u64 = 10;

/// A server that does not hear of its source for so long connects anew.
const NET_TIMEOUT: u64 = 10;

/// What the monitor's account needs everywhere.
const MYSQL_RIGHTS: [&str; 6] = [
    "PROCESS",
    "RELOAD",
    "REPLICATION_SLAVE_ADMIN",
    "SYSTEM_VARIABLES_ADMIN",
    "PERSIST_RO_VARIABLES_ADMIN",
    "CONNECTION_ADMIN",
];
const MARIADB_RIGHTS: [&str; 7] = [
    "PROCESS",
    "RELOAD",
    "REPLICATION SLAVE ADMIN",
    "REPLICATION MASTER ADMIN",
    "READ_ONLY ADMIN",
    "BINLOG ADMIN",
    "CONNECTION ADMIN",
];
/// And in its own schema.
const OWN_RIGHTS: [&str; 4] = ["CREATE", "SELECT", "INSERT", "UPDATE"];

/// What was read of a server.
struct Seen {
    version: Version,
    variables: HashMap<String, String>,
    start: Start,
    /// Seconds between a replica's attempts to reach its source; the longest.
    retry: Option<u64>,
    grants: Vec<String>,
    /// Events that run here.
    events: u64,
    /// Accounts that read_only does not stop.
    mighty: Vec<String>,
}

/// How a server comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    ReadOnly,
    Writable,
    /// MariaDB does not tell what its configuration says of a value that a statement has set since.
    Hidden,
}

/// Something that is not as a failover needs it.
struct Lack {
    severity: Severity,
    what: &'static str,
    text: String,
}

/// Looks for what a failover needs. Where nobody has asked for one (`wanted`), it is told what would be missing.
pub(super) async fn look(
    conn: &mut Conn,
    version: &Version,
    facts: Option<&ServerFacts>,
    wanted: bool,
) -> Result<Vec<Finding>, ProbeError> {
    let seen = see(conn, version).await?;
    let lacks = seen.lacks(facts);
    let real = || {
        let lacks = lacks.iter();
        lacks.filter(|lack| lack.severity != Severity::Good)
    };
    if wanted {
        let ready = real().next().is_none();
        let ready = ready.then(|| good("is ready for a failover"));
        let findings = lacks.iter().map(|lack| Finding {
            severity: lack.severity,
            text: lack.text.clone(),
        });
        return Ok(ready.into_iter().chain(findings).collect());
    }
    let what: Vec<&str> = real().map(|lack| lack.what).collect();
    Ok(match what.as_slice() {
        [] => Vec::new(),
        what => vec![good(format!(
            "for cluster.failover, which is off, this would be missing: {}",
            what.join(", ")
        ))],
    })
}

async fn see(conn: &mut Conn, version: &Version) -> Result<Seen, ProbeError> {
    let is_mysql = version.flavor == Flavor::MySql;
    let rows = rows(conn, VARIABLES).await?;
    let pairs = rows.iter().filter_map(|row| {
        let name = Fields(row).text(&["Variable_name"])?.to_ascii_lowercase();
        Some((name, Fields(row).text(&["Value"])?))
    });
    let variables = pairs.collect();
    let start = match is_mysql {
        true => {
            "SELECT COUNT(*) AS n FROM performance_schema.variables_info AS info JOIN performance_schema.global_variables AS now \
             USING (variable_name) LEFT JOIN performance_schema.persisted_variables AS kept USING (variable_name) \
             WHERE variable_name IN ('read_only', 'super_read_only') AND (kept.variable_value = 'ON' OR kept.variable_value IS NULL \
             AND now.variable_value = 'ON' AND info.variable_source NOT IN ('COMPILED', 'DYNAMIC'))"
        }
        false => {
            "SELECT CASE WHEN GLOBAL_VALUE_ORIGIN = 'SQL' THEN 2 WHEN GLOBAL_VALUE IN ('OFF', '0') THEN 0 ELSE 1 END AS n \
             FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'READ_ONLY'"
        }
    };
    let sources = match (is_mysql, version.number() >= 80_022) {
        (true, true) => "SHOW REPLICA STATUS",
        (true, false) => "SHOW SLAVE STATUS",
        (false, _) => "SHOW ALL SLAVES STATUS",
    };
    let retries = self::rows(conn, sources).await?;
    // On MySQL those of schemas where the account has the right EVENT.
    let events = match is_mysql {
        true => "SELECT COUNT(*) AS n FROM information_schema.EVENTS WHERE STATUS = 'ENABLED'",
        false => "SELECT COUNT(*) AS n FROM mysql.event WHERE status = 'ENABLED'",
    };
    let rights = match is_mysql {
        true => "'SUPER', 'CONNECTION_ADMIN', 'SYSTEM_VARIABLES_ADMIN'",
        false => "'SUPER', 'READ_ONLY ADMIN'",
    };
    let mighty = format!(
        "SELECT DISTINCT GRANTEE AS account FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE IN ({rights}) \
         AND GRANTEE NOT LIKE '\\'root\\'@%' AND GRANTEE NOT LIKE '\\'mysql.%' AND GRANTEE NOT LIKE '\\'mariadb.sys\\'@%' \
         AND GRANTEE NOT LIKE CONCAT('\\'', SUBSTRING_INDEX(CURRENT_USER(), '@', 1), '\\'@%') ORDER BY 1 LIMIT 20"
    );
    Ok(Seen {
        version: version.clone(),
        variables,
        start: match (count(conn, start).await?, is_mysql) {
            (0, _) => Start::Writable,
            (2, false) => Start::Hidden,
            _ => Start::ReadOnly,
        },
        retry: retries
            .iter()
            .filter_map(|row| Fields(row).number(&["Connect_Retry"]))
            .max(),
        grants: grants(conn, version.flavor).await?,
        // Not every account may look.
        events: count(conn, events).await.unwrap_or_default(),
        mighty: self::rows(conn, &mighty)
            .await?
            .iter()
            .filter_map(|row| Fields(row).text(&["account"]))
            .collect(),
    })
}

async fn rows(conn: &mut Conn, sql: &str) -> Result<Vec<Row>, ProbeError> {
    conn.query(sql).await.map_err(|error| classify(&error))
}

async fn count(conn: &mut Conn, sql: &str) -> Result<u64, ProbeError> {
    let rows = rows(conn, sql).await?;
    let first = rows.first();
    Ok(first
        .and_then(|row| Fields(row).number(&["n"]))
        .unwrap_or_default())
}

/// What the account may do, also by the roles that it has at its login.
async fn grants(conn: &mut Conn, flavor: Flavor) -> Result<Vec<String>, ProbeError> {
    let mut sql = "SHOW GRANTS".to_owned();
    if flavor == Flavor::MySql {
        let roles = conn.query_first("SELECT CURRENT_ROLE()").await;
        let roles: Option<String> = roles.map_err(|error| classify(&error))?;
        if let Some(roles) = roles.filter(|roles| roles != "NONE") {
            sql = format!("SHOW GRANTS FOR CURRENT_USER USING {roles}");
        }
    }
    conn.query(sql).await.map_err(|error| classify(&error))
}

impl Seen {
    fn value(&self, names: &[&str]) -> &str {
        let mut names = names.iter();
        names
            .find_map(|name| self.variables.get(*name))
            .map_or("", String::as_str)
    }

    fn is_on(&self, names: &[&str]) -> bool {
        let value = self.value(names);
        value == "1" || value.eq_ignore_ascii_case("on")
    }

    fn lacks(&self, facts: Option<&ServerFacts>) -> Vec<Lack> {
        let mut lacks = Vec::new();
        let mut lack = |severity, what, text: String| {
            lacks.push(Lack {
                severity,
                what,
                text,
            });
        };
        self.log(&mut lack);
        self.after_a_crash(&mut lack);
        if let Some(facts) = facts {
            self.replication(facts, &mut lack);
            self.events_and_accounts(facts, &mut lack);
        }
        if let Some(text) = self.rights() {
            lack(Severity::Error, "rights of the monitor's account", text);
        }
        lacks
    }

    /// What makes a server one that others can follow.
    fn log(&self, lack: &mut impl FnMut(Severity, &'static str, String)) {
        if !self.is_on(&["log_bin"]) {
            let text = "log_bin is OFF: nobody could follow it, and it is not promoted; set log_bin in its configuration";
            lack(Severity::Error, "log_bin", text.to_owned());
        } else if !self.is_on(&["log_replica_updates", "log_slave_updates"]) {
            let text = "log_replica_updates is OFF: the other replicas could not follow it, and it is not promoted; set \
                        log_replica_updates=ON in its configuration";
            lack(Severity::Error, "log_replica_updates", text.to_owned());
        }
        if !self.value(&["binlog_format"]).eq_ignore_ascii_case("row")
            && self.variables.contains_key("binlog_format")
        {
            let text = "binlog_format is not ROW: statements may do something else on a replica, and a server that logs rows is \
                        promoted before it; SET GLOBAL binlog_format=ROW, and in its configuration";
            lack(Severity::Warning, "binlog_format=ROW", text.to_owned());
        }
        match self.version.flavor {
            Flavor::MySql if !self.is_on(&["gtid_mode"]) => {
                let text = "gtid_mode is not ON: nobody knows what it has and what it lacks, and it is not promoted; set \
                            gtid_mode=ON and enforce_gtid_consistency=ON";
                lack(Severity::Error, "gtid_mode", text.to_owned());
            }
            Flavor::MariaDb if !self.is_on(&["gtid_strict_mode"]) => {
                let text = "gtid_strict_mode is OFF: what a server has that the primary does not have can stay unnoticed; SET \
                            GLOBAL gtid_strict_mode=ON, and in its configuration";
                lack(Severity::Warning, "gtid_strict_mode", text.to_owned());
            }
            _ => {}
        }
    }

    /// What a server is when it has crashed and comes back.
    fn after_a_crash(&self, lack: &mut impl FnMut(Severity, &'static str, String)) {
        let what = "read_only=ON in its configuration";
        match self.start {
            Start::ReadOnly => {}
            Start::Writable => {
                let mend = match self.version.flavor {
                    Flavor::MySql => "SET PERSIST_ONLY super_read_only=ON",
                    Flavor::MariaDb => "put read_only=ON into its configuration",
                };
                let text = format!(
                    "it does not start read-only: as a primary that has crashed and comes back it takes writes of those who reach it \
                     without dbproxy, until it is fenced; {mend}. dbproxy opens the primary itself"
                );
                lack(Severity::Warning, what, text);
            }
            Start::Hidden => {
                let text = "its configuration should have read_only=ON; whether it has cannot be seen since a statement has set \
                            read_only";
                lack(Severity::Good, what, text.to_owned());
            }
        }
        let (log, data) = (
            self.value(&["sync_binlog"]),
            self.value(&["innodb_flush_log_at_trx_commit"]),
        );
        if log != "1" || data != "1" {
            let text = format!(
                "sync_binlog={log} and innodb_flush_log_at_trx_commit={data}: after a crash of its host it lacks what it has \
                 acknowledged; SET {} sync_binlog=1, {0} innodb_flush_log_at_trx_commit=1{}",
                self.scope(),
                self.kept()
            );
            let what = "sync_binlog=1 and innodb_flush_log_at_trx_commit=1";
            lack(Severity::Warning, what, text);
        }
        if self.version.flavor == Flavor::MySql && !self.is_on(&["relay_log_recovery"]) {
            let text = "relay_log_recovery is OFF: after a crash of its host a replica can stop at a broken relay log; SET \
                        PERSIST_ONLY relay_log_recovery=ON and restart it";
            lack(Severity::Warning, "relay_log_recovery", text.to_owned());
        }
    }

    fn scope(&self) -> &'static str {
        match self.version.flavor {
            Flavor::MySql => "PERSIST",
            Flavor::MariaDb => "GLOBAL",
        }
    }

    fn kept(&self) -> &'static str {
        match self.version.flavor {
            Flavor::MySql => "",
            Flavor::MariaDb => ", and in its configuration",
        }
    }

    /// How soon a replica notices that its source is silent, and that it is back.
    fn replication(
        &self,
        facts: &ServerFacts,
        lack: &mut impl FnMut(Severity, &'static str, String),
    ) {
        let name = match self.version.flavor {
            Flavor::MySql if self.version.number() >= 80_026 => "replica_net_timeout",
            _ => "slave_net_timeout",
        };
        let seconds = self.value(&[name]).parse::<u64>().unwrap_or_default();
        if seconds > NET_TIMEOUT {
            let text = format!(
                "{name} is {seconds}: as a replica it keeps a connection for so long on which nothing comes; SET {} {name}=4{}",
                self.scope(),
                self.kept()
            );
            lack(Severity::Warning, "replica_net_timeout", text);
        }
        let change = |what: &str| match self.version.flavor {
            Flavor::MySql if self.version.number() >= 80_023 => {
                format!("STOP REPLICA; CHANGE REPLICATION SOURCE TO SOURCE_{what}=1; START REPLICA")
            }
            // Nothing that was received is lost while the applier runs.
            _ => format!("STOP SLAVE; CHANGE MASTER TO MASTER_{what}=1; START SLAVE"),
        };
        let periods = facts.sources.iter().map(|source| source.heartbeat_period);
        let period = periods.max().unwrap_or_default().as_secs_f32();
        if period > HEARTBEAT {
            let text = format!(
                "it hears of its source every {period} s: that a primary hangs is certain only after two and a half times as long; {}",
                change("HEARTBEAT_PERIOD")
            );
            lack(Severity::Warning, "heartbeat period of 1 s", text);
        }
        if let Some(retry) = self.retry.filter(|retry| *retry > RETRY) {
            let text = format!(
                "it tries to reach its source every {retry} s: after an interruption it is too old to be promoted for as long; {}",
                change("CONNECT_RETRY")
            );
            lack(Severity::Warning, "connect retry of 1 s", text);
        }
        let waits = self.is_on(&[
            "rpl_semi_sync_source_wait_no_replica",
            "rpl_semi_sync_master_wait_no_slave",
        ]);
        if facts.semi_sync.source && !waits {
            let text = "it does not wait for acknowledgements when too few replicas are connected: what is committed then can be \
                        lost; set rpl_semi_sync_source_wait_no_replica (MariaDB: rpl_semi_sync_master_wait_no_slave) to ON";
            let what = "semi-sync that waits for replicas";
            lack(Severity::Warning, what, text.to_owned());
        }
    }

    fn events_and_accounts(
        &self,
        facts: &ServerFacts,
        lack: &mut impl FnMut(Severity, &'static str, String),
    ) {
        let is_replica = facts.write_block.is_some();
        let events = self.events;
        if events > 0 && self.is_on(&["event_scheduler"]) {
            let text = match is_replica {
                true => format!(
                    "{events} events run here although it is a replica: they fail, or write what the primary does not have; ALTER \
                     EVENT … DISABLE ON SLAVE"
                ),
                false => format!(
                    "{events} events run here: on another primary they do not, until somebody says ALTER EVENT … ENABLE there"
                ),
            };
            lack(Severity::Warning, "events", text);
        }
        // They are replicated: said once.
        if !is_replica && !self.mighty.is_empty() {
            let accounts = self.mighty.join(", ");
            let text = match self.version.flavor {
                Flavor::MySql => format!(
                    "these accounts can make a read-only server writable, and stay when it is fenced: {accounts}; REVOKE SUPER, \
                     CONNECTION_ADMIN and SYSTEM_VARIABLES_ADMIN from applications"
                ),
                Flavor::MariaDb => format!(
                    "these accounts write on read-only servers: {accounts}; REVOKE READ_ONLY ADMIN and SUPER from applications"
                ),
            };
            lack(Severity::Warning, "accounts that read_only stops", text);
        }
    }

    /// Which rights the monitor's account lacks, if any.
    fn rights(&self) -> Option<String> {
        let needed: &[&str] = match self.version.flavor {
            Flavor::MySql => &MYSQL_RIGHTS,
            Flavor::MariaDb => &MARIADB_RIGHTS,
        };
        // Older ones have no finer word for it.
        let is_super = self.version.flavor == Flavor::MariaDb
            && self.version.number() < 101_100
            && may(&self.grants, "SUPER", false);
        let everywhere: Vec<&str> = needed
            .iter()
            .copied()
            .filter(|right| !may(&self.grants, right, false))
            .filter(|right| !is_super || ["PROCESS", "RELOAD"].contains(right))
            .collect();
        let own: Vec<&str> = OWN_RIGHTS
            .into_iter()
            .filter(|right| !may(&self.grants, right, true))
            .collect();
        let mut statements = Vec::new();
        if !everywhere.is_empty() {
            statements.push(format!("GRANT {} ON *.*", everywhere.join(", ")));
        }
        if !own.is_empty() {
            statements.push(format!("GRANT {} ON dbproxy.*", own.join(", ")));
        }
        let (first, more) = statements.split_first()?;
        let more: String = more.iter().map(|more| format!(" and {more}")).collect();
        Some(format!(
            "the monitor's account may not change the primary, and a failover stops where it may not go on: {first}{more} TO it"
        ))
    }
}

/// Whether one of these grants has this right for everything, or (`own`) for the schema of dbproxy's own tables.
fn may(grants: &[String], right: &str, own: bool) -> bool {
    grants.iter().any(|grant| {
        let Some((rights, rest)) = grant
            .strip_prefix("GRANT ")
            .and_then(|grant| grant.split_once(" ON "))
        else {
            return false;
        };
        let place = rest.split(" TO ").next().unwrap_or_default();
        let fits = place == "*.*" || own && place.replace('`', "") == "dbproxy.*";
        let mut rights = rights.split(',').map(str::trim);
        fits && rights.any(|given| given == right || given == "ALL PRIVILEGES")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn seen(version: &str, grants: &[&str], variables: &[(&str, &str)]) -> Seen {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Seen {
            version: Version::parse(version).unwrap(),
            variables: variables.iter().map(own).collect(),
            start: Start::ReadOnly,
            retry: Some(1),
            grants: grants.iter().map(|grant| (*grant).to_owned()).collect(),
            events: 0,
            mighty: Vec::new(),
        }
    }

    #[test]
    fn rights_that_are_missing_are_found_in_each_familys_words() {
        let mysql = "GRANT PROCESS, RELOAD ON *.* TO `dbproxy`@`%`";
        let dynamic = "GRANT CONNECTION_ADMIN,PERSIST_RO_VARIABLES_ADMIN,REPLICATION_SLAVE_ADMIN,SYSTEM_VARIABLES_ADMIN ON *.* \
                       TO `dbproxy`@`%`";
        let own = "GRANT SELECT, INSERT, UPDATE, CREATE ON `dbproxy`.* TO `dbproxy`@`%`";
        assert_eq!(seen("8.4.3", &[mysql, dynamic, own], &[]).rights(), None);
        let text = seen("8.4.3", &[mysql, own], &[]).rights().unwrap();
        assert!(text.contains("GRANT REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, PERSIST_RO_VARIABLES_ADMIN, CONNECTION_ADMIN ON *.* TO"));
        let text = seen("8.4.3", &[mysql, dynamic], &[]).rights().unwrap();
        assert!(text.contains("GRANT CREATE, SELECT, INSERT, UPDATE ON dbproxy.* TO"));
        // The right for another schema's table is none.
        let other = "GRANT CREATE, INSERT, UPDATE, SELECT ON `shop`.* TO `dbproxy`@`%`";
        assert!(
            seen("8.4.3", &[mysql, dynamic, other], &[])
                .rights()
                .is_some()
        );

        let all = "GRANT ALL PRIVILEGES ON *.* TO `dbproxy`@`%` IDENTIFIED BY PASSWORD '*X'";
        assert_eq!(seen("10.11.6-MariaDB", &[all], &[]).rights(), None);
        let old = ["GRANT PROCESS, RELOAD, SUPER ON *.* TO `dbproxy`@`%`", own];
        assert_eq!(seen("10.6.6-MariaDB", &old, &[]).rights(), None);
        let text = seen("10.11.6-MariaDB", &old, &[]).rights().unwrap();
        assert!(text.contains("READ_ONLY ADMIN"), "{text}");
    }

    #[test]
    fn each_lack_says_what_it_costs_and_what_mends_it() {
        let all = "GRANT ALL PRIVILEGES ON *.* TO `dbproxy`@`%`";
        let sound = [
            ("log_bin", "ON"),
            ("log_slave_updates", "ON"),
            ("binlog_format", "ROW"),
            ("gtid_strict_mode", "ON"),
            ("sync_binlog", "1"),
            ("innodb_flush_log_at_trx_commit", "1"),
            ("slave_net_timeout", "4"),
        ];
        let facts = ServerFacts::sound(Version::parse("10.11.6-MariaDB").unwrap(), 1);
        let mut server = seen("10.11.6-MariaDB", &[all], &sound);
        assert!(server.lacks(Some(&facts)).is_empty());
        for (name, value, part) in [
            ("log_bin", "OFF", "is not promoted"),
            ("log_slave_updates", "OFF", "could not follow it"),
            ("binlog_format", "MIXED", "SET GLOBAL binlog_format=ROW"),
            ("gtid_strict_mode", "OFF", "SET GLOBAL gtid_strict_mode=ON"),
            ("sync_binlog", "0", "SET GLOBAL sync_binlog=1"),
            ("slave_net_timeout", "60", "SET GLOBAL slave_net_timeout=4"),
        ] {
            server.variables.insert(name.to_owned(), value.to_owned());
            let lacks = server.lacks(Some(&facts));
            assert_eq!(lacks.len(), 1, "{name}");
            let text = &lacks.first().unwrap().text;
            assert!(text.contains(part), "{text}");
            let good = sound.iter().find(|(known, _)| *known == name).unwrap().1;
            server.variables.insert(name.to_owned(), good.to_owned());
        }
        server.start = Start::Writable;
        server.retry = Some(60);
        server.events = 2;
        server.mighty = vec!["'app'@'%'".to_owned()];
        server
            .variables
            .insert("event_scheduler".to_owned(), "ON".to_owned());
        let text: Vec<_> = server
            .lacks(Some(&facts))
            .into_iter()
            .map(|lack| lack.text)
            .collect();
        let text = text.join("\n");
        for part in [
            "does not start read-only",
            "MASTER_CONNECT_RETRY=1",
            "2 events run here",
            "'app'@'%'",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
