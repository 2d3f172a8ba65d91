//! Which hostgroups belong together.

use std::collections::{BTreeMap, BTreeSet};

use super::Content;
use super::Row;
use super::is_account;
use super::is_offline;
use super::rules;
use crate::cli::import::target::groups;

/// Hostgroups that hold the same data.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) hostgroups: BTreeSet<String>,
    /// Those that get writes.
    pub(super) writers: BTreeSet<String>,
    /// Those and the ones of all reads; a server of another is in a group.
    pub(super) pair: BTreeSet<String>,
}

impl Cluster {
    /// Whether there is a server, and an account by which its sessions are known.
    pub(super) fn is_served(&self, content: &Content) -> bool {
        let of = |row: &Row, column: &str| self.hostgroups.contains(row.field(column));
        let rows = || content.rows.iter();
        rows()
            .any(|row| row.table == "mysql_servers" && of(row, "hostgroup_id") && !is_offline(row))
            && rows().any(|row| {
                row.table == "mysql_users" && of(row, "default_hostgroup") && is_account(row)
            })
    }
}

/// Tables that say which hostgroups belong together, and how.
pub(super) const PAIRS: [&str; 4] = [
    "mysql_replication_hostgroups",
    "mysql_group_replication_hostgroups",
    "mysql_galera_hostgroups",
    "mysql_aws_aurora_hostgroups",
];

pub(super) fn clusters(content: &Content) -> Vec<Cluster> {
    // Each set is a statement "these belong together": a pair, a server in several hostgroups, a rule of an account.
    let mut sets: Vec<Vec<String>> = Vec::new();
    let mut writers = BTreeSet::new();
    for row in content
        .rows
        .iter()
        .filter(|row| PAIRS.contains(&row.table.as_str()))
    {
        let columns = row
            .fields
            .iter()
            .filter(|(name, _)| name.ends_with("_hostgroup"));
        sets.push(columns.map(|(_, group)| group.clone()).collect());
        writers.insert(row.field("writer_hostgroup").to_owned());
    }
    // Two pairs of a table are two clusters, whatever rules send from one to the other.
    let paired: BTreeSet<String> = sets.iter().flatten().cloned().collect();
    let mut used: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for row in content
        .rows
        .iter()
        .filter(|row| row.table == "mysql_servers")
    {
        let key = (row.field("hostname"), row.field("port"));
        used.entry(key)
            .or_default()
            .push(row.field("hostgroup_id").to_owned());
    }
    sets.extend(used.into_values());
    let defaults: BTreeMap<&str, &str> = content
        .rows
        .iter()
        .filter(|row| row.table == "mysql_users")
        .map(|row| (row.field("username"), row.field("default_hostgroup")))
        .collect();
    let common: BTreeSet<&str> = defaults.values().copied().collect();
    if writers.is_empty() {
        writers.extend(common.iter().map(|group| (*group).to_owned()));
    }
    for row in content
        .rows
        .iter()
        .filter(|row| row.table == "mysql_query_rules")
    {
        let by_text =
            !row.field("match_digest").is_empty() || !row.field("match_pattern").is_empty();
        let default = match row.field("username") {
            // A rule for everybody says nothing if everybody has a cluster of their own.
            "" if common.len() == 1 => common.first(),
            name => defaults.get(name),
        };
        let destination = row.field("destination_hostgroup");
        if let Some(default) = default.filter(|_| by_text && row.field("schemaname").is_empty())
            && !(paired.contains(*default) && paired.contains(destination))
        {
            sets.push(vec![(*default).to_owned(), destination.to_owned()]);
        }
    }
    sets.iter_mut()
        .for_each(|set| set.retain(|group| !group.is_empty()));
    let filled: BTreeSet<&str> = content
        .rows
        .iter()
        .filter(|row| row.table == "mysql_servers")
        .map(|row| row.field("hostgroup_id"))
        .collect();
    let mut found = Vec::new();
    for group in groups(&sets) {
        let members = group.iter().filter_map(|at| sets.get(*at)).flatten();
        let hostgroups: BTreeSet<String> = members.cloned().collect();
        let writing: BTreeSet<String> = hostgroups.intersection(&writers).cloned().collect();
        let first = group.first().and_then(|at| sets.get(*at)?.first());
        let Some(name) = writing.first().or(first) else {
            continue;
        };
        if hostgroups
            .iter()
            .any(|group| filled.contains(group.as_str()))
        {
            found.push(Cluster {
                name: format!("hostgroup-{name}"),
                pair: pair(content, &hostgroups, &writing),
                hostgroups,
                writers: writing,
            });
        }
    }
    found
}

/// Of a cluster's hostgroups those of writes and of reads in general: as a table says, else the one that `SELECT` goes to, else all.
fn pair(
    content: &Content,
    hostgroups: &BTreeSet<String>,
    writers: &BTreeSet<String>,
) -> BTreeSet<String> {
    let of = |row: &Row, column: &str| hostgroups.contains(row.field(column));
    let tables = content
        .rows
        .iter()
        .filter(|row| PAIRS.contains(&row.table.as_str()));
    let mut pair: BTreeSet<String> = tables
        .filter(|row| of(row, "writer_hostgroup"))
        .flat_map(|row| &row.fields)
        .filter(|(column, _)| column.ends_with("_hostgroup"))
        .map(|(_, group)| group.clone())
        .collect();
    if pair.is_empty() {
        let mut general = content.rows.iter().filter(|row| {
            let column = "destination_hostgroup";
            row.table == "mysql_query_rules"
                && rules::is_general(row)
                && of(row, column)
                && !writers.contains(row.field(column))
        });
        pair.extend(
            general
                .next()
                .map(|row| row.field("destination_hostgroup").to_owned()),
        );
        if pair.is_empty() {
            return hostgroups.clone();
        }
    }
    pair.extend(writers.iter().cloned());
    pair
}
