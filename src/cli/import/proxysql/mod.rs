//! ProxySQL: the tables and variables of its administration, whether they come as `proxysql.cnf` or as SQL.
//!
//! A cluster is a pair of hostgroups, or what hostgroups share of servers and rules.

mod clusters;
mod cnf;
mod fates;
mod rules;
mod sql;

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use super::Error;
use super::choose;
use super::target::Draft;
use super::target::Server;
use super::target::Setting;
use crate::config::ServerAddress;
use clusters::{Cluster, PAIRS, clusters};
pub(super) use sql::STATEMENTS;

/// What a source says, in the order of the source.
#[derive(Default)]
struct Content {
    /// Variables, named as in `global_variables`.
    variables: Vec<Setting>,
    rows: Vec<Row>,
}

/// A row of a table.
struct Row {
    line: usize,
    table: String,
    /// Columns under their names in the administration, and their values.
    fields: Vec<(String, String)>,
}

/// More than any table has.
const MOST_COLUMNS: usize = 100;

impl Row {
    fn new(line: usize, table: &str, fields: Vec<(String, String)>) -> Result<Self, Error> {
        if fields.len() > MOST_COLUMNS {
            let message = format!("more than {MOST_COLUMNS} columns in a row");
            return Err(Error::at(line, message));
        }
        Ok(Self {
            line,
            table: table.to_owned(),
            fields,
        })
    }

    fn field(&self, name: &str) -> &str {
        let mut fields = self.fields.iter();
        let found = fields.find(|(column, _)| column == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// The row as one setting. Passwords are left out, and what is at its default.
    fn setting(&self) -> Setting {
        let said = |(name, value): &&(String, String)| {
            !name.contains("passw") && !value.is_empty() && !value.eq_ignore_ascii_case("null")
        };
        let shown: Vec<_> = self
            .fields
            .iter()
            .filter(said)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut setting = Setting::new(self.line, self.table.clone(), shown.join(" "));
        setting.between = ": ";
        setting
    }

    /// One column as a setting.
    fn column(&self, name: &str) -> Setting {
        let owner = match self.field("hostname") {
            "" => self.field("username"),
            host => host,
        };
        Setting::new(
            self.line,
            format!("{} {owner} {name}", self.table),
            self.field(name),
        )
    }
}

pub(super) fn draft(text: &str, wanted: Option<&str>) -> Result<Draft, Error> {
    let is_sql = sql::is_sql(text);
    let mut content = if is_sql {
        sql::read(text)?
    } else {
        cnf::read(text)?
    };
    for row in content
        .rows
        .iter_mut()
        .filter(|row| row.table == "mysql_servers")
    {
        if row.field("hostgroup_id").is_empty() {
            row.fields.push(("hostgroup_id".to_owned(), "0".to_owned()));
        }
    }
    // A rule is off by default in the table, and on in the file.
    let rules = content
        .rows
        .iter_mut()
        .filter(|row| row.table == "mysql_query_rules");
    for row in rules.filter(|row| is_sql && row.field("active").is_empty()) {
        row.fields.push(("active".to_owned(), "0".to_owned()));
    }
    let of = |table: &'static str| content.rows.iter().filter(move |row| row.table == table);
    let clusters = clusters(&content);
    let names: Vec<String> = clusters
        .iter()
        .map(|cluster| cluster.name.clone())
        .collect();
    let chosen = choose(&names, wanted)?;
    let accounts: BTreeMap<&str, &str> = of("mysql_users")
        .filter(|row| row.field("active") != "0")
        .map(|row| (row.field("username"), row.field("default_hostgroup")))
        .collect();
    let mut hosts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in of("mysql_servers") {
        hosts
            .entry(row.field("hostgroup_id"))
            .or_default()
            .push(row.field("hostname"));
    }
    let mut draft = Draft::default();
    let mut own: Vec<&Cluster> = Vec::new();
    for (at, cluster) in clusters.iter().enumerate() {
        let is_served = wanted.is_none() && cluster.is_served(&content);
        if at == chosen || is_served {
            draft.begin(&cluster.name);
            own.push(cluster);
            fill(cluster, at == chosen, &content, &mut draft)?;
        } else {
            let groups = cluster.hostgroups.iter();
            let hosts = groups.filter_map(|group| hosts.get(group.as_str()));
            let hosts: BTreeSet<&str> = hosts.flatten().copied().collect();
            let hosts: Vec<_> = hosts.into_iter().collect();
            draft.other(&cluster.name, &hosts.join(", "));
        }
    }
    for setting in &content.variables {
        variable(setting, &mut draft);
    }
    for row in &content.rows {
        if row.table != "mysql_servers" {
            other_row(row, &own, &mut draft);
        }
    }
    let rules: Vec<&Row> = of("mysql_query_rules").collect();
    let places = rules::Places {
        clusters: &own,
        accounts: &accounts,
    };
    rules::carry(&rules, &places, &mut draft);
    complete_tls(&content.variables, &mut draft);
    uniform_limit(&content, &mut draft);
    Ok(draft)
}

/// Adds a cluster's servers, and whose sessions it serves if it is not the `main` one.
fn fill(cluster: &Cluster, main: bool, content: &Content, draft: &mut Draft) -> Result<(), Error> {
    for row in &content.rows {
        let of_group = |column: &str| cluster.hostgroups.contains(row.field(column));
        match row.table.as_str() {
            "mysql_servers" if of_group("hostgroup_id") => server(row, cluster, draft)?,
            "mysql_users" if !main && is_account(row) && of_group("default_hostgroup") => {
                let setting = row.column("default_hostgroup");
                draft.append("clusters.NAME.accounts", row.field("username"), &setting);
            }
            _ => {}
        }
    }
    if draft.servers().iter().any(|server| server.group.is_some()) {
        draft.todo("Servers of a group also get reads that no rule sends there: a group says where a rule's reads go, and keeps no others away.");
    }
    Ok(())
}

/// Whether a user can be named in a list of accounts.
fn is_account(row: &Row) -> bool {
    let name = row.field("username");
    row.field("active") != "0" && !name.is_empty() && !name.contains('*')
}

fn is_offline(row: &Row) -> bool {
    row.field("status")
        .to_ascii_uppercase()
        .starts_with("OFFLINE")
}

fn server(row: &Row, own: &Cluster, draft: &mut Draft) -> Result<(), Error> {
    let (host, port) = (row.field("hostname"), row.field("port"));
    // Port 0 says that the name is a path.
    let text = match port {
        "0" => format!("unix:{host}"),
        _ => {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.to_owned()
            };
            format!("{host}:{}", if port.is_empty() { "3306" } else { port })
        }
    };
    let address = ServerAddress::parse(&text).map_err(|message| Error::at(row.line, message))?;
    let status = row.column("status");
    if is_offline(row) {
        draft.note(
            &status,
            "a server that is out of service is left out; add it when it comes back",
        );
        return Ok(());
    }
    let group = row.field("hostgroup_id");
    let port = if port.is_empty() { "3306" } else { port };
    let from = Setting::new(
        row.line,
        format!("mysql_servers {host}:{port} hostgroup {group}"),
        "",
    );
    let mut server = Server::new(address, &from);
    if !own.pair.contains(group) {
        server.group = Some(format!("hostgroup-{group}"));
    }
    let weight = row.column("weight");
    // The primary gets no reads here: its share is what it has among the readers.
    if !own.writers.contains(group) || own.hostgroups.len() == 1 {
        server.weight = weight.number();
    }
    if weight.number() == Some(0) && !own.writers.contains(group) {
        draft.note(&weight, "dbproxy has no server without reads: it is there with the smallest share; take it out if it must get none");
        server.weight = Some(1);
    }
    server.zlib = row
        .column("compression")
        .number()
        .is_some_and(|level| level > 0);
    if row.column("use_ssl").is_on() {
        server.tls = Some("required");
    }
    draft.server(server)?;
    for (name, value) in &row.fields {
        let setting = row.column(name);
        match name.as_str() {
            "max_connections" if !value.is_empty() => {
                draft.at_most("limits.server_connections", &setting)
            }
            "max_replication_lag" if setting.number().is_some_and(|lag| lag > 0) => {
                draft.at_most_seconds("cluster.max_lag", &setting);
            }
            "gtid_port" if setting.number() != Some(0) => {
                draft.note(
                    &setting,
                    "not needed: the servers tell dbproxy the position of a write in their answers",
                );
            }
            "max_latency_ms" if setting.number() != Some(0) => {
                draft.note(&setting, "dbproxy does not choose by response time yet");
            }
            "comment" if !value.is_empty() => {
                draft.note(&setting, "a remark; `name` is what logs call the server")
            }
            _ => {}
        }
    }
    Ok(())
}

/// Two variables have no equal alone: a certificate and its key.
fn complete_tls(variables: &[Setting], draft: &mut Draft) {
    let find = |name: &str| {
        variables
            .iter()
            .find(|setting| setting.name == name && !setting.value.is_empty())
    };
    let pair = (find("mysql-ssl_p2s_cert"), find("mysql-ssl_p2s_key"));
    match pair {
        (Some(certificate), Some(key)) => {
            draft.text("tls.server.certificate", &certificate.value, certificate);
            draft.text("tls.server.key", &key.value, key);
        }
        (Some(alone), None) | (None, Some(alone)) => {
            draft.note(
                alone,
                "a certificate and its key stand together or not at all",
            );
        }
        (None, None) => {}
    }
}

/// A limit that all accounts have is one of dbproxy's, which has it for all accounts.
fn uniform_limit(content: &Content, draft: &mut Draft) {
    let users = content.rows.iter().filter(|row| row.table == "mysql_users");
    let limits: Vec<_> = users
        .map(|row| row.column("max_connections"))
        .filter(|limit| !matches!(limit.number(), None | Some(0 | 10_000)))
        .collect();
    let mut values: Vec<_> = limits.iter().filter_map(Setting::number).collect();
    values.dedup();
    for limit in &limits {
        match (values.as_slice(), i64::try_from(limit.number().unwrap_or_default())) {
            ([_], Ok(number)) => draft.set("limits.account_connections", Value::Integer(number), limit, ""),
            _ => draft.note(limit, "dbproxy has one limit for every account, `limits.account_connections`; MAX_USER_CONNECTIONS of an account on the servers counts too"),
        }
    }
}

fn variable(setting: &Setting, draft: &mut Draft) {
    match setting.name.as_str() {
        "mysql-interfaces" => {
            for address in setting
                .value
                .split(';')
                .map(str::trim)
                .filter(|item| !item.is_empty())
            {
                if address.starts_with('/') {
                    draft.listen(&format!("unix:{address}"), false, setting);
                } else {
                    draft.listen(address, false, setting);
                }
            }
        }
        "mysql-monitor_password" => draft.password(setting),
        "mysql-have_compress" if !setting.is_on() => {
            draft.set(
                "compression.client",
                Value::String("off".to_owned()),
                setting,
                "",
            );
        }
        "mysql-have_ssl" if !setting.is_on() => {
            draft.set(
                "tls.client.mode",
                Value::String("disabled".to_owned()),
                setting,
                "",
            );
        }
        "mysql-have_compress" | "mysql-have_ssl" => draft.note(setting, "so by default"),
        "mysql-proxy_protocol_networks" if setting.value != "*" && !setting.value.is_empty() => {
            for network in setting.value.split([',', ';']).map(str::trim) {
                draft.append("listen.proxy_protocol", network, setting);
            }
            draft.todo("Connections from listen.proxy_protocol must begin with a PROXY header here; in ProxySQL they could.");
        }
        "mysql-ssl_p2s_cert" | "mysql-ssl_p2s_key" => {}
        name if setting.value.is_empty() && !name.ends_with("password") => {}
        name => draft.apply(fates::of_variable(name), setting),
    }
}

fn other_row(row: &Row, own: &[&Cluster], draft: &mut Draft) {
    let setting = row.setting();
    let is_own = |group: &str| own.iter().any(|cluster| cluster.hostgroups.contains(group));
    match row.table.as_str() {
        "mysql_users" => user(row, own, draft),
        "mysql_replication_hostgroups" if is_own(row.field("writer_hostgroup")) => draft.note(
            &setting,
            "not needed: which server is the primary and which are replicas, dbproxy finds out",
        ),
        table if PAIRS.contains(&table) && is_own(row.field("writer_hostgroup")) => {
            draft.note(
                &setting,
                "dbproxy follows asynchronous and semi-synchronous replication only",
            );
            draft.todo("The servers are a cluster of Galera, Group Replication or Aurora: dbproxy does not know their roles yet, and cannot serve it.");
        }
        table if PAIRS.contains(&table) => draft.note(&setting, "it belongs to another cluster"),
        "mysql_query_rules" => {}
        table => draft.note(&setting, fates::of_table(table)),
    }
}

fn user(row: &Row, own: &[&Cluster], draft: &mut Draft) {
    let name = Setting::new(row.line, "mysql_users", row.field("username"));
    let group = row.field("default_hostgroup");
    let is_own = |group: &str| own.iter().any(|cluster| cluster.hostgroups.contains(group));
    if !group.is_empty() && !is_own(group) {
        draft.note(&name, "accounts of another cluster");
        return;
    }
    draft.note(
        &name,
        "not needed: clients log in with the servers' accounts, which dbproxy reads. Only for one that it cannot read, \
         its password belongs into [users.NAME]",
    );
    for (column, value) in &row.fields {
        let why = match (column.as_str(), value.as_str()) {
            (_, "" | "NULL" | "null") => continue,
            ("active", "0") => {
                "an account that must not log in has to be locked on the servers (ACCOUNT LOCK)"
            }
            ("default_schema", _) => "the client names the schema, at its login or by USE",
            ("transaction_persistent", "0") => "a transaction always stays on its connection",
            ("fast_forward", "1") => {
                "every statement is routed; what dbproxy does not decode passes through as it is"
            }
            ("use_ssl", "1") => {
                "REQUIRE SSL of the account on the servers says the same, and counts at dbproxy"
            }
            ("frontend", "0") | ("backend", "0") => {
                "clients and servers see one account with one password; a second one for the servers alone is not possible"
            }
            ("attributes", _) => "dbproxy has no attributes of accounts",
            _ => continue,
        };
        draft.note(&row.column(column), why);
    }
}
