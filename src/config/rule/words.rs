//! Rules in words.

use std::fmt;
use std::fmt::Write;

use super::Actions;
use super::Conditions;
use super::Firewall;
use super::FixedAnswer;
use super::LimitPer;
use super::Priority;
use super::RouteTo;
use super::Rule;

/// Pairs of key and value, as they would stand in the file but for their form.
#[derive(Default)]
struct Pairs(String);

impl Pairs {
    fn put(&mut self, key: &str, value: impl fmt::Display) {
        let comma = if self.0.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{comma}{key} = {value}");
    }

    fn list<T: ToString>(&mut self, key: &str, values: &[T]) {
        if !values.is_empty() {
            let shown: Vec<_> = values.iter().map(ToString::to_string).collect();
            self.put(key, shown.join(" | "));
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = conditions(self);
        f.write_str(if pairs.is_empty() {
            "everything"
        } else {
            &pairs
        })
    }
}

impl Rule {
    /// What it does, and whether the rules behind it are looked at too.
    pub fn effect(&self) -> String {
        actions(&self.then, self.go_on)
    }
}

fn conditions(when: &Conditions) -> String {
    let mut pairs = Pairs::default();
    pairs.list("account", &when.account);
    pairs.list("client", &when.client);
    pairs.list("listener", &when.listener);
    pairs.list("application", &when.application);
    pairs.list("schema", &when.schema);
    pairs.list("table", &when.table);
    pairs.list("kind", &when.kind);
    pairs.list("tag", &when.tag);
    let digests = when.digest.iter().map(|digest| format!("{digest:016x}"));
    pairs.list("digest", &digests.collect::<Vec<_>>());
    if let Some(pattern) = &when.pattern {
        pairs.put("pattern", pattern.regex());
    }
    pairs.list("time", &when.time);
    if let Some(sample) = when.sample {
        pairs.put("sample", f64::from(sample) / 1e6);
    }
    pairs.0
}

fn actions(then: &Actions, go_on: bool) -> String {
    let mut pairs = Pairs::default();
    match &then.route {
        None => {}
        Some(RouteTo::Primary) => pairs.put("route", "primary"),
        Some(RouteTo::Replica) => pairs.put("route", "replica"),
        Some(RouteTo::Server(name)) => pairs.put("route", format_args!("server={name}")),
        Some(RouteTo::Group(name)) => pairs.put("route", format_args!("group={name}")),
        Some(RouteTo::Cluster(name)) => pairs.put("route", format_args!("cluster={name}")),
    }
    if let Some(mirror) = &then.mirror {
        pairs.put("mirror", mirror);
    }
    if let Some(consistency) = then.consistency {
        pairs.put("consistency", consistency);
    }
    if let Some(lag) = then.max_lag {
        pairs.put("max_lag", format_args!("{lag:?}"));
    }
    if let Some(timeout) = then.timeout {
        pairs.put("timeout", format_args!("{timeout:?}"));
    }
    if let Some(rewrite) = &then.rewrite {
        pairs.put("rewrite", rewrite);
    }
    match &then.answer {
        None => {}
        Some(FixedAnswer::Ok) => pairs.put("answer", "ok"),
        Some(FixedAnswer::Rows { rows, .. }) => {
            pairs.put("answer", format_args!("{} rows", rows.len()));
        }
        Some(FixedAnswer::Error { code, message, .. }) => {
            pairs.put("block", format_args!("{code} {message}"));
        }
    }
    let limit = &then.limit;
    let figures = [
        ("per_second", limit.per_second.map(u64::from)),
        ("concurrency", limit.concurrency.map(u64::from)),
        ("rows", limit.rows),
        ("bytes", limit.bytes),
    ];
    for (name, figure) in figures {
        if let Some(figure) = figure {
            pairs.put(&format!("limit.{name}"), figure);
        }
    }
    match limit.per {
        LimitPer::Rule => {}
        LimitPer::Account => pairs.put("limit.per", "account"),
        LimitPer::Client => pairs.put("limit.per", "client"),
    }
    if let Some(cache) = then.cache {
        pairs.put("cache", format_args!("{cache:?}"));
    }
    if let Some(priority) = then.priority {
        let word = match priority {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        };
        pairs.put("priority", word);
    }
    if let Some(firewall) = then.firewall {
        let word = match firewall {
            Firewall::Learn => "learn",
            Firewall::Detect => "detect",
            Firewall::Enforce => "enforce",
        };
        pairs.put("firewall", word);
    }
    if then.log {
        pairs.put("log", true);
    }
    if go_on {
        pairs.put("continue", true);
    }
    pairs.0
}
