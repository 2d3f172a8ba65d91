//! A rule that comes to be.

use std::collections::BTreeSet;
use std::mem;

use toml::Value;

use super::Draft;
use super::MOST_RULES;
use super::Setting;
use super::plain;
use crate::config;

/// A `[[rule]]`: its keys and values in the order in which they are written.
#[derive(Clone)]
pub(in crate::cli::import) struct Rule {
    pub(super) source: Setting,
    pub(super) from: Vec<String>,
    pub(super) pairs: Vec<(&'static str, Value)>,
}

/// Keys that say what a rule does.
const ACTIONS: [&str; 8] = [
    "route", "timeout", "rewrite", "answer", "block", "cache", "priority", "log",
];

impl Rule {
    /// One that matches everything and does nothing yet. Names are the caller's to keep apart.
    pub(in crate::cli::import) fn new(name: &str, from: &Setting) -> Self {
        Self {
            source: from.clone(),
            from: vec![from.to_string()],
            pairs: vec![("name", Value::String(plain(name)))],
        }
    }

    /// Says something more of where it comes from.
    pub(in crate::cli::import) fn remark(&mut self, text: &str) {
        self.from.push(text.to_owned());
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// Why it cannot have that.
    pub(in crate::cli::import) fn put(
        &mut self,
        key: &'static str,
        value: Value,
    ) -> Result<(), String> {
        config::fits(&format!("rule[].{key}"), &value.to_string())
            .map_err(|message| format!("dbproxy's `{key}` cannot say it: {message}"))?;
        self.pairs.push((key, value));
        Ok(())
    }

    /// The same for a text.
    ///
    /// # Errors
    /// Why it cannot have that.
    pub(in crate::cli::import) fn text(
        &mut self,
        key: &'static str,
        text: &str,
    ) -> Result<(), String> {
        self.put(key, Value::String(text.to_owned()))
    }

    /// Gives a key another value.
    ///
    /// # Errors
    /// Why it cannot have that.
    pub(in crate::cli::import) fn replace(
        &mut self,
        key: &'static str,
        value: Value,
    ) -> Result<(), String> {
        self.pairs.retain(|(known, _)| *known != key);
        self.put(key, value)
    }

    /// Where it comes from.
    pub(in crate::cli::import) fn source(&self) -> Setting {
        self.source.clone()
    }

    /// A key's value.
    pub(in crate::cli::import) fn value(&self, key: &str) -> Option<&Value> {
        let mut pairs = self.pairs.iter();
        pairs
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value)
    }

    /// What it does.
    pub(in crate::cli::import) fn actions(&self) -> impl Iterator<Item = &'static str> {
        let keys = self.pairs.iter().map(|(key, _)| *key);
        keys.filter(|key| ACTIONS.contains(key))
    }

    /// Its conditions alone.
    pub(in crate::cli::import) fn conditions(
        &self,
    ) -> impl Iterator<Item = &(&'static str, Value)> {
        let pairs = self.pairs.iter();
        pairs.filter(|(key, _)| !ACTIONS.contains(key) && !matches!(*key, "name" | "continue"))
    }

    /// Makes it one that does nothing but keep the rules behind it from being looked at.
    pub(in crate::cli::import) fn stop(&mut self) {
        self.remark("only keeps the rules behind it from being looked at");
        self.pairs
            .push(("priority", Value::String("normal".to_owned())));
    }

    /// Whether that is all that it does.
    pub(in crate::cli::import) fn only_stops(&self) -> bool {
        self.actions().eq(["priority"])
    }
}

impl Draft {
    /// Leaves out rules that name what there is not, and those that only keep others from being looked at, where there are none.
    pub(super) fn complete_rules(&mut self) {
        let servers = self.clusters.iter().flat_map(|cluster| &cluster.servers);
        let places: Vec<String> = servers
            .flat_map(|server| {
                let name = server.name.as_ref().map(|name| format!("server={name}"));
                let group = server.group.as_ref().map(|group| format!("group={group}"));
                name.into_iter().chain(group)
            })
            .collect();
        let mut rules = mem::take(&mut self.rules);
        let mut names = BTreeSet::new();
        for rule in &mut rules {
            // A rule without a name is called by its number.
            rule.pairs
                .retain(|(key, value)| *key != "name" || names.insert(value.to_string()));
        }
        rules.retain(|rule| {
            let place = rule.value("route").and_then(Value::as_str);
            let lost = place
                .filter(|place| place.contains('=') && !places.iter().any(|known| known == place));
            if let Some(lost) = lost {
                self.note(
                    &rule.source,
                    &format!("its servers ({}) are not there", plain(lost)),
                );
            }
            lost.is_none()
        });
        if rules.len() > MOST_RULES {
            for rule in rules.split_off(MOST_RULES) {
                self.note(
                    &rule.source,
                    &format!("more than {MOST_RULES} rules: those behind are left out"),
                );
            }
        }
        while rules.last().is_some_and(|rule| rule.only_stops()) {
            rules.pop();
        }
        self.rules = rules;
    }
}
