//! What has changed when a configuration is read again.

use std::collections::BTreeMap;

use super::Config;

/// What differs between two configurations, in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// What counts at once.
    pub at_once: Vec<String>,
    /// The keys and sections that count only for a program that starts anew.
    pub at_restart: Vec<&'static str>,
}

impl Difference {
    /// What makes `new` another configuration than `old`.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut at_once = Vec::new();
        if old.cluster.consistency != new.cluster.consistency {
            at_once.push(format!(
                "cluster.consistency is {}",
                new.cluster.consistency
            ));
        }
        if old.cluster.monotonic_reads != new.cluster.monotonic_reads {
            at_once.push("cluster.monotonic_reads".to_owned());
        }
        if old.cluster.replica_wait != new.cluster.replica_wait {
            at_once.push("cluster.replica_wait".to_owned());
        }
        if old.cluster.balance != new.cluster.balance {
            at_once.push("cluster.balance".to_owned());
        }
        if old.cluster.slow_start != new.cluster.slow_start {
            at_once.push("cluster.slow_start".to_owned());
        }
        if old.cluster.hedged_reads != new.cluster.hedged_reads {
            at_once.push("cluster.hedged_reads".to_owned());
        }
        if old.cluster.read_only_transactions != new.cluster.read_only_transactions {
            at_once.push("cluster.read_only_transactions".to_owned());
        }
        if old.cluster.transaction_replay != new.cluster.transaction_replay {
            at_once.push("cluster.transaction_replay".to_owned());
        }
        if old.cluster.transaction_replay_size != new.cluster.transaction_replay_size {
            at_once.push("cluster.transaction_replay_size".to_owned());
        }
        if old.cluster.administration != new.cluster.administration {
            at_once.push("cluster.administration".to_owned());
        }
        let mut changed = old.clone();
        changed.take_policy_of(new);
        for (before, after) in old.clusters.iter().zip(&changed.clusters) {
            if before != after {
                at_once.push(format!("clusters.{}", after.name));
            }
        }
        at_once.extend(rules(old, new));
        let parts = [
            ("listen", old.listen == new.listen),
            ("monitor", old.monitor == new.monitor),
            ("cluster.name", old.cluster.name == new.cluster.name),
            (
                "cluster.servers",
                old.cluster.servers == new.cluster.servers,
            ),
            (
                "cluster.max_lag",
                old.cluster.max_lag == new.cluster.max_lag,
            ),
            (
                "cluster.failover",
                old.cluster.failover == new.cluster.failover
                    && old.cluster.max_loss == new.cluster.max_loss
                    && old.cluster.rejoin == new.cluster.rejoin
                    && old.cluster.replication == new.cluster.replication
                    && old.cluster.hooks == new.cluster.hooks,
            ),
            (
                "cluster.compression",
                old.cluster.compression == new.cluster.compression,
            ),
            (
                "cluster.proxy_protocol",
                old.cluster.proxy_protocol == new.cluster.proxy_protocol,
            ),
            ("clusters", changed.clusters == new.clusters),
            ("users", old.users == new.users),
            ("compression", old.compression == new.compression),
            ("tls", old.tls == new.tls),
            ("limits", old.limits == new.limits),
            ("log", old.log == new.log),
            ("mode", old.mode == new.mode),
            ("observe", old.observe == new.observe),
            ("workers", old.workers == new.workers),
            (
                "state_directory",
                old.state_directory == new.state_directory,
            ),
        ];
        let parts = parts.into_iter().filter(|(_, same)| !same);
        Self {
            at_once,
            at_restart: parts.map(|(name, _)| name).collect(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.at_once.is_empty() && self.at_restart.is_empty()
    }
}

fn rules(old: &Config, new: &Config) -> Vec<String> {
    let by_name = |config: &Config| -> BTreeMap<String, usize> {
        let names = config.rules.iter().map(|rule| rule.name.clone());
        names.zip(0..).collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    let mut said = Vec::new();
    let gone = old
        .rules
        .iter()
        .filter(|rule| !after.contains_key(&rule.name));
    said.extend(gone.map(|rule| format!("rule \"{}\" is gone", rule.name)));
    for rule in &new.rules {
        let known = before.get(&rule.name).and_then(|at| old.rules.get(*at));
        match known {
            None => said.push(format!("rule \"{}\" is new", rule.name)),
            Some(known) if known != rule => {
                said.push(format!("rule \"{}\" has changed", rule.name))
            }
            Some(_) => {}
        }
    }
    let order = |config: &Config, other: &BTreeMap<String, usize>| -> Vec<String> {
        let names = config.rules.iter().map(|rule| rule.name.clone());
        names.filter(|name| other.contains_key(name)).collect()
    };
    if order(old, &after) != order(new, &before) {
        said.push("rules stand in another order".to_owned());
    }
    said
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Process, parse};

    fn config(top: &str, cluster: &str, rules: &[(&str, &str)]) -> Config {
        let mut text = format!(
            "{top}\n[monitor]\nuser = \"m\"\npassword = \"p\"\n[cluster]\nservers = [\"db1=10.0.0.1\"]\n{cluster}\n"
        );
        for (name, lines) in rules {
            text.push_str(&format!("[[rule]]\nname = \"{name}\"\n{lines}\n"));
        }
        parse(&text, "test.toml", &Process::default())
            .unwrap()
            .config
    }

    #[test]
    fn changes_are_told_apart_by_when_they_count() {
        let old = config(
            "workers = 1",
            "",
            &[
                ("a", "log = true"),
                ("b", "log = true"),
                ("c", "log = true"),
            ],
        );
        assert!(Difference::between(&old, &old).is_empty());
        let new = config(
            "mode = \"observe\"\nworkers = 2",
            "consistency = \"strong\"\nmax_lag = \"1s\"",
            &[
                ("c", "log = true"),
                ("b", "route = \"primary\""),
                ("d", "log = true"),
            ],
        );
        let difference = Difference::between(&old, &new);
        assert_eq!(
            difference.at_restart,
            ["cluster.max_lag", "mode", "workers"]
        );
        assert_eq!(
            difference.at_once,
            [
                "cluster.consistency is strong",
                "rule \"a\" is gone",
                "rule \"b\" has changed",
                "rule \"d\" is new",
                "rules stand in another order",
            ]
        );
    }
}
