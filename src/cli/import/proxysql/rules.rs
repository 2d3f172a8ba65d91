//! ProxySQL's query rules.
//!
//! They are tried in the order of their numbers, each that matches adds to what the others said, and `apply` ends it: that is how
//! dbproxy's are, but that there the last word counts and here the first. `flagOUT` sends a statement on to the rules with that
//! `flagIN` alone.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::Cluster;
use super::Row;
use crate::cli::import::network;
use crate::cli::import::regex::{Looks, Marks, replacement, translated};
use crate::cli::import::target::{Draft, Rule, span};
use crate::config::ListenAddress;

/// What rules speak of.
pub(super) struct Places<'a> {
    /// The clusters that are written, the first in front.
    pub(super) clusters: &'a [&'a Cluster],
    /// The hostgroup that each account begins in.
    pub(super) accounts: &'a BTreeMap<&'a str, &'a str>,
}

/// Writes the rules that can be written, and says of the others why they cannot.
pub(super) fn carry(rows: &[&Row], places: &Places<'_>, draft: &mut Draft) {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| row.column("rule_id").number());
    rows.retain(|row| {
        let is_active = row.field("active") != "0";
        if !is_active {
            draft.note(&row.setting(), "rules that were switched off");
        }
        is_active
    });
    if rows.len() > MOST {
        for row in rows.split_off(MOST) {
            draft.note(&row.setting(), TOO_MANY);
        }
    }
    let mut carrier = Carrier {
        places,
        draft,
        rules: Vec::new(),
        reached: BTreeSet::new(),
        sent_on: 0,
    };
    for (at, row) in rows.iter().enumerate() {
        if flag(row, "flagIN") == 0 {
            carrier.main(row, rows.get(at + 1..).unwrap_or_default());
        }
    }
    let Carrier {
        rules,
        reached,
        sent_on,
        ..
    } = carrier;
    for row in &rows {
        if flag(row, "flagIN") != 0 && !reached.contains(&mark(row)) {
            draft.note(
                &row.setting(),
                "no rule that could be carried over leads to it (flagIN)",
            );
        }
    }
    for (at, rule) in rules.iter().enumerate() {
        let behind = rules.get(at + 1..).unwrap_or_default();
        match overruled(rule, behind, at < sent_on) {
            Some(why) => draft.note(&rule.source(), why),
            None => draft.rule(rule.clone()),
        }
    }
}

/// As many rows are looked at, and not many more rules are made of them.
const MOST: usize = 1_000;

const TOO_MANY: &str = "more rules than anybody keeps track of";

fn flag(row: &Row, name: &str) -> u64 {
    row.column(name).number().unwrap_or(0)
}

/// Whether it says where a statement goes; there is a hostgroup 0.
fn sends(row: &Row) -> bool {
    !is_nothing(row.field("destination_hostgroup"))
}

fn ends(row: &Row) -> bool {
    flag(row, "apply") == 1
}

/// Why a rule that lets others behind it be looked at would mean something else than there.
/// `sent_on`: one behind it, which is not written, says where the statement goes.
fn overruled(rule: &Rule, behind: &[Rule], sent_on: bool) -> Option<&'static str> {
    rule.value("continue")?;
    if rule.value("rewrite").is_some() && !behind.is_empty() {
        return Some(
            "there the rules behind it see the statement as it is rewritten (apply = 0), here as it came",
        );
    }
    let again = rule
        .actions()
        .filter(|action| *action != "log")
        .any(|action| {
            behind
                .iter()
                .any(|other| other.value(action).is_some() && !other.only_stops())
        });
    let again = again || (sent_on && rule.value("route").is_some());
    again.then_some("a rule behind it says the same thing otherwise: there the last word counts (apply = 0), here the first")
}

struct Carrier<'a, 'd> {
    places: &'a Places<'a>,
    draft: &'d mut Draft,
    rules: Vec<Rule>,
    /// The rows that another leads to.
    reached: BTreeSet<(usize, String)>,
    /// How many rules stand before the last row that says where statements go and is no rule here.
    sent_on: usize,
}

fn mark(row: &Row) -> (usize, String) {
    (row.line, row.field("rule_id").to_owned())
}

impl Carrier<'_, '_> {
    /// A rule that every statement comes to, and those `behind` that it leads to.
    fn main(&mut self, row: &Row, behind: &[&Row]) {
        let onward = match flag(row, "flagOUT") {
            0 => None,
            _ if ends(row) => None,
            flag => Some(flag),
        };
        let name = format!("query rule {}", row.field("rule_id"));
        let mut rule = Rule::new(&name, &row.setting());
        let conditions = match self.rules.len() {
            ..MOST => self.conditions(row, &mut rule),
            _ => Err(TOO_MANY.to_owned()),
        };
        if let Err(why) = conditions {
            self.lost(row, &why);
            return;
        }
        let conditions = rule.clone();
        self.add(row, rule);
        let Some(onward) = onward else {
            return;
        };
        for next in behind.iter().filter(|next| flag(next, "flagIN") == onward) {
            self.reached.insert(mark(next));
            if self.rules.len() >= MOST {
                self.lost(next, TOO_MANY);
                continue;
            }
            let name = format!("{name}, then {}", next.field("rule_id"));
            let mut rule = Rule::new(&name, &next.setting());
            let merged = conditions
                .conditions()
                .try_for_each(|(key, value)| rule.put(key, value.clone()))
                .and_then(|()| self.conditions(next, &mut rule));
            let leads_on = flag(next, "flagOUT") != 0 && !ends(next);
            match merged {
                Err(why) => self.lost(next, &why),
                Ok(()) if leads_on => self.lost(
                    next,
                    "chains of rules (flagOUT) are carried over to the first step only",
                ),
                Ok(()) => self.add(next, rule),
            }
        }
        let mut stop = conditions;
        stop.stop();
        self.rules.push(stop);
    }

    /// A rule whose conditions are there.
    fn add(&mut self, row: &Row, mut rule: Rule) {
        self.actions(row, &mut rule);
        if sends(row) && rule.value("route").is_none() {
            self.sent_on = self.rules.len();
        }
        let acts = rule.actions().next().is_some();
        if acts && !ends(row) {
            // It always fits.
            let _ = rule.put("continue", Value::Boolean(true));
        }
        if !acts && ends(row) {
            rule.stop();
        }
        if acts || ends(row) {
            self.rules.push(rule);
        }
    }

    /// A rule that cannot be carried over.
    fn lost(&mut self, row: &Row, why: &str) {
        if sends(row) {
            self.sent_on = self.rules.len();
        }
        self.draft.note(&row.setting(), why);
        if ends(row) || flag(row, "flagOUT") != 0 {
            let id = row.field("rule_id");
            self.draft.todo(&format!(
                "Query rule {id} is not carried over, and kept its statements from the rules behind it: look at those again."
            ));
        }
    }

    fn conditions(&self, row: &Row, rule: &mut Rule) -> Result<(), String> {
        let said = |name: &str| Some(row.field(name)).filter(|value| !is_nothing(value));
        let mut once = |key: &'static str, value: &str| match rule.value(key) {
            Some(_) => Err(format!(
                "two rules of a chain have a condition on the {key}: dbproxy's have one"
            )),
            None => rule.text(key, value),
        };
        for (column, key) in [("username", "account"), ("schemaname", "schema")] {
            if let Some(name) = said(column) {
                if name.contains('*') {
                    return Err("a * in a name stands for anything in dbproxy".to_owned());
                }
                once(key, name)?;
            }
        }
        if let Some(address) = said("client_addr") {
            once("client", &network(address)?)?;
        }
        if said("digest").is_some() {
            return Err("dbproxy's digests are others: see EXPLAIN ROUTE for the statement's, and write a [[rule]] with it".to_owned());
        }
        if flag(row, "negate_match_pattern") == 1 {
            return Err("dbproxy's patterns cannot be negated".to_owned());
        }
        let (looks, pattern) = match (said("match_digest"), said("match_pattern")) {
            (Some(_), Some(_)) => {
                return Err(
                    "dbproxy's rules have one pattern: this has match_digest and match_pattern"
                        .to_owned(),
                );
            }
            (Some(pattern), None) => (Looks::AtDigest, Some(pattern)),
            (None, pattern) => (Looks::AtText, pattern),
        };
        if let Some(pattern) = pattern {
            let made = translated(pattern, modifier(row, "CASELESS"), looks)
                .map_err(|why| format!("its expression cannot be said in dbproxy's: {why}"))?;
            once("pattern", &made)?;
            if looks == Looks::AtDigest {
                rule.remark("it looked at the digest, here at the statement: comments and literals are seen too");
            }
        }
        self.listener(row, rule)
    }

    fn listener(&self, row: &Row, rule: &mut Rule) -> Result<(), String> {
        let (port, host) = (row.column("proxy_port").number(), row.field("proxy_addr"));
        let any_host = is_nothing(host);
        if port.is_none_or(|port| port == 0) && any_host {
            return Ok(());
        }
        let fits = |address: &ListenAddress| match address {
            ListenAddress::Tcp {
                host: own,
                port: at,
            } => {
                port.is_none_or(|port| port == 0 || port == u64::from(*at))
                    && (any_host || host == own)
            }
            ListenAddress::Unix(_) => false,
        };
        if rule.value("listener").is_some() {
            return Err(
                "two rules of a chain have a condition on the listener: dbproxy's have one"
                    .to_owned(),
            );
        }
        let listeners = self.draft.listeners(fits);
        if listeners.is_empty() {
            return Err("nothing listens there (mysql-interfaces)".to_owned());
        }
        rule.put(
            "listener",
            Value::Array(listeners.into_iter().map(Value::String).collect()),
        )
    }

    /// Says what the rule does; what it cannot say becomes a note.
    fn actions(&mut self, row: &Row, rule: &mut Rule) {
        let said = |name: &str| !is_nothing(row.field(name)) && row.field(name) != "0";
        let mut doubts: Vec<(&str, String)> = Vec::new();
        let mut carried = |column: &'static str, result: Result<(), String>| {
            doubts.extend(result.err().map(|why| (column, why)));
        };
        if said("log") {
            carried("log", rule.put("log", Value::Boolean(true)));
        }
        if said("error_msg") {
            let mut block = Table::new();
            block.insert(
                "message".to_owned(),
                Value::String(row.field("error_msg").to_owned()),
            );
            block.insert("code".to_owned(), Value::Integer(1148));
            carried("error_msg", rule.put("block", Value::Table(block)));
        } else if said("OK_msg") {
            carried("OK_msg", rule.text("answer", "ok"));
        } else {
            let millis = |column: &str| row.column(column).number().unwrap_or(0);
            for (column, key) in [("cache_ttl", "cache"), ("timeout", "timeout")] {
                if said(column) {
                    carried(column, rule.put(key, span(millis(column))));
                }
            }
            if said("replace_pattern") {
                carried("replace_pattern", rewrite(row, rule));
            }
            if sends(row) {
                carried("destination_hostgroup", self.destination(row, rule));
            }
        }
        for (column, why) in OTHERS {
            if said(column) {
                carried(column, Err((*why).to_owned()));
            }
        }
        let silent = doubts.is_empty() && rule.actions().next().is_none();
        if rule.actions().next().is_none() {
            // The reason of what it was for counts for all of it.
            let why = doubts
                .first()
                .map_or("it does nothing by itself", |(_, why)| why);
            if !silent || !(ends(row) || flag(row, "flagOUT") != 0) {
                self.draft.note(&row.setting(), why);
            }
            return;
        }
        for (column, why) in doubts {
            let mut setting = row.column(column);
            setting.name = format!("mysql_query_rules {} {column}", row.field("rule_id"));
            self.draft.note(&setting, &why);
        }
    }

    fn destination(&self, row: &Row, rule: &mut Rule) -> Result<(), String> {
        let group = row.field("destination_hostgroup");
        let begins = self.places.accounts.get(row.field("username")).copied();
        let mut clusters = self.places.clusters.iter();
        let cluster = match begins {
            Some(begins) => clusters.find(|cluster| cluster.hostgroups.contains(begins)),
            None => clusters.next(),
        };
        let Some(cluster) = cluster.filter(|cluster| cluster.hostgroups.contains(group)) else {
            return Err("a statement is never taken to another cluster than its session's: `accounts`, `schemas` or \
                        `server_names` of [clusters.NAME] say whose the sessions are"
                .to_owned());
        };
        if cluster.writers.contains(group) {
            return match is_general(row) {
                true => Err(DECIDES.to_owned()),
                false => rule.text("route", "primary"),
            };
        }
        if cluster.pair.contains(group) {
            return Err(DECIDES.to_owned());
        }
        rule.text("route", &format!("group=hostgroup-{group}"))
    }
}

const DECIDES: &str = "not needed: dbproxy tells reads from writes and from locking reads itself, and reads go to replicas; \
                       `dbproxy explain` says where a statement goes";

/// Columns that nothing in dbproxy is like.
const OTHERS: &[(&str, &str)] = &[
    (
        "mirror_hostgroup",
        "dbproxy has no mirror; `mode = \"observe\"` compares what replicas answer",
    ),
    (
        "mirror_flagOUT",
        "dbproxy has no mirror; `mode = \"observe\"` compares what replicas answer",
    ),
    (
        "delay",
        "dbproxy delays nothing; `limit.per_second` and `limit.concurrency` of a [[rule]] bound what comes",
    ),
    (
        "next_query_flagIN",
        "a rule looks at one statement, not at those behind it",
    ),
    (
        "gtid_from_hostgroup",
        "not needed: `cluster.consistency` says what reads see",
    ),
    (
        "retries",
        "a read that has not yet sent a row is repeated elsewhere, up to `limits.hold`; a write is never repeated",
    ),
    (
        "reconnect",
        "a read that has not yet sent a row is repeated elsewhere, up to `limits.hold`; a write is never repeated",
    ),
    (
        "sticky_conn",
        "dbproxy ties a session to a connection where it has to",
    ),
    (
        "multiplex",
        "dbproxy ties a session to a connection where it has to",
    ),
];

fn is_nothing(value: &str) -> bool {
    value.is_empty() || value.eq_ignore_ascii_case("null")
}

/// Whether a modifier is set; CASELESS is unless others are given.
fn modifier(row: &Row, name: &str) -> bool {
    let given = row
        .fields
        .iter()
        .find(|(column, _)| column == "re_modifiers");
    let given = given.map_or("CASELESS", |(_, value)| value.as_str());
    let mut modifiers = given.split(',').map(str::trim);
    modifiers.any(|modifier| modifier.eq_ignore_ascii_case(name))
}

/// Whether a rule is for everybody, and its pattern has no words but those of statements' kinds.
pub(super) fn is_general(row: &Row) -> bool {
    const KINDS: [&str; 24] = [
        "select",
        "for",
        "update",
        "share",
        "lock",
        "in",
        "mode",
        "insert",
        "delete",
        "replace",
        "set",
        "show",
        "begin",
        "start",
        "transaction",
        "commit",
        "rollback",
        "create",
        "alter",
        "drop",
        "call",
        "with",
        "into",
        "i",
    ];
    let narrow = [
        "username",
        "schemaname",
        "client_addr",
        "proxy_port",
        "proxy_addr",
    ];
    let for_all = narrow.iter().all(|column| is_nothing(row.field(column)));
    let pattern = [row.field("match_digest"), row.field("match_pattern")].concat();
    let mut plain = String::new();
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        if c == '\\' {
            characters.next();
        }
        plain.push(if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            ' '
        });
    }
    let plain = plain.to_ascii_lowercase();
    let mut words = plain.split_whitespace();
    for_all && words.all(|word| KINDS.contains(&word))
}

fn rewrite(row: &Row, rule: &mut Rule) -> Result<(), String> {
    let own = row.field("match_pattern");
    let known = rule
        .value("pattern")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let (false, Some(pattern)) = (is_nothing(own), known) else {
        return Err("it rewrites what match_pattern finds, which it does not have".to_owned());
    };
    let (pattern, shift, head) = match modifier(row, "GLOBAL") || own.starts_with('^') {
        true => (pattern, 0, ""),
        // Only what is found first is replaced there.
        false => (format!("^((?s-u:.*?))({pattern})"), 2, "${1}"),
    };
    let text = row.field("replace_pattern");
    let made = replacement(text, Marks::Backslash, shift).map_err(str::to_owned)?;
    rule.replace("pattern", Value::String(pattern))?;
    rule.text("rewrite", &format!("{head}{made}"))
}
