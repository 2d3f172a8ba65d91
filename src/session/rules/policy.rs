//! What of the configuration counts at once when it is read again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use time::OffsetDateTime;

use super::quota::Quotas;
use crate::config::{
    Administration, Balance, Config, Consistency, MonotonicReads, ReadOnlyTransactions, Rule,
    TransactionReplay,
};

/// What of the configuration counts at once when it is read again.
#[derive(Debug)]
pub struct Policy {
    /// What a read must at least have seen.
    pub consistency: Consistency,
    /// Who never reads anything older than what was read before.
    pub monotonic_reads: MonotonicReads,
    /// How long a read may wait for a replica.
    pub replica_wait: Duration,
    /// How one of several eligible replicas is chosen.
    pub balance: Balance,
    /// How long a replica that has just come gets less than its share.
    pub slow_start: Duration,
    /// The part of the reads, in thousandths, that may be asked of a second replica.
    pub hedged_reads: u32,
    /// Where transactions run that only read.
    pub read_only_transactions: ReadOnlyTransactions,
    /// The longest transaction that is run again when its server is lost, in bytes of its statements; `None`: none is.
    pub transaction_replay: Option<u64>,
    /// What becomes of statements that would break the cluster.
    pub administration: Administration,
    pub(super) rules: Arc<[Arc<Entry>]>,
}

impl Policy {
    /// Those of a configuration's clusters, which have the rules in common. Rules that stand in the ones `before` as they are
    /// keep their counters.
    pub fn of_all(config: &Config, before: &[Arc<Self>]) -> Vec<Self> {
        let known = |rule: &Rule| {
            let mut before = before.first()?.rules.iter();
            before.find(|entry| entry.rule == *rule).cloned()
        };
        let rules: Arc<[_]> = config
            .rules
            .iter()
            .map(|rule| known(rule).unwrap_or_else(|| Arc::new(Entry::new(rule.clone()))))
            .collect();
        let clusters = config.all_clusters();
        clusters
            .map(|cluster| Self {
                consistency: cluster.consistency,
                monotonic_reads: cluster.monotonic_reads,
                replica_wait: cluster.replica_wait,
                balance: cluster.balance,
                slow_start: cluster.slow_start,
                hedged_reads: cluster.hedged_reads,
                read_only_transactions: cluster.read_only_transactions,
                transaction_replay: match cluster.transaction_replay {
                    TransactionReplay::On => Some(cluster.transaction_replay_size),
                    TransactionReplay::Off => None,
                },
                administration: cluster.administration,
                rules: Arc::clone(&rules),
            })
            .collect()
    }

    /// What people see of the rules, a row each: name, conditions, actions, hits, last match, and of copies how many ran, were
    /// left out, and failed.
    pub(in crate::session) fn describe(&self) -> Vec<Vec<Option<String>>> {
        let rules = self.rules.iter();
        rules
            .map(|entry| {
                let mirrors = match entry.rule.then.mirror {
                    Some(_) => entry.mirrors.describe().map(Some),
                    None => [const { None }; 3],
                };
                let known = entry.describe().into_iter().map(Some);
                known.chain(mirrors).collect()
            })
            .collect()
    }
}

/// A rule, and what became of it.
#[derive(Debug)]
pub(in crate::session) struct Entry {
    pub(super) rule: Rule,
    pub(super) quotas: Quotas,
    /// Statements that fitted, of which a rule with a sample matches only a share.
    fitted: AtomicU64,
    hits: AtomicU64,
    /// Seconds since 1970, 0 if there was none.
    last: AtomicU64,
    mirrors: Mirrors,
}

/// What became of the copies of statements that a rule matched.
#[derive(Debug, Default)]
pub(in crate::session) struct Mirrors {
    succeeded: AtomicU64,
    left_out: AtomicU64,
    failed: AtomicU64,
}

impl Mirrors {
    /// Counts one that has run.
    pub(in crate::session) fn succeed(&self) {
        self.succeeded.fetch_add(1, Relaxed);
    }

    /// Counts a statement that was not copied.
    pub(in crate::session) fn leave_out(&self) {
        self.left_out.fetch_add(1, Relaxed);
    }

    /// Counts one that did not run, or got an error.
    pub(in crate::session) fn fail(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    fn describe(&self) -> [String; 3] {
        [&self.succeeded, &self.left_out, &self.failed].map(|count| count.load(Relaxed).to_string())
    }
}

impl Entry {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            quotas: Quotas::default(),
            fitted: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            last: AtomicU64::new(0),
            mirrors: Mirrors::default(),
        }
    }

    /// The rule's name.
    pub(in crate::session) fn name(&self) -> &str {
        &self.rule.name
    }

    /// What became of copies.
    pub(in crate::session) fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    /// Whether a statement that fits is of the share that matches.
    pub(super) fn draws(&self) -> bool {
        const WHOLE: u64 = 1_000_000;
        let Some(sample) = self.rule.when.sample else {
            return true;
        };
        let part = |number: u64| number % WHOLE * u64::from(sample) / WHOLE;
        let number = self.fitted.fetch_add(1, Relaxed) % WHOLE;
        part(number) < part(number + 1) || number + 1 == WHOLE && sample > 0
    }

    /// Whether more statements that fit match than do not.
    pub(super) fn mostly_draws(&self) -> bool {
        let sample = self.rule.when.sample;
        sample.is_none_or(|sample| sample >= 500_000)
    }

    /// Counts a match, `now` seconds after 1970.
    pub(super) fn hit(&self, now: u64) {
        self.hits.fetch_add(1, Relaxed);
        self.last.fetch_max(now, Relaxed);
    }

    fn describe(&self) -> [String; 5] {
        let last = match self.last.load(Relaxed) {
            0 => "never".to_owned(),
            seconds => in_utc(seconds),
        };
        [
            self.rule.name.clone(),
            self.rule.when.to_string(),
            self.rule.effect(),
            self.hits.load(Relaxed).to_string(),
            last,
        ]
    }
}

pub(super) fn in_utc(seconds: u64) -> String {
    let at = i64::try_from(seconds)
        .ok()
        .map(OffsetDateTime::from_unix_timestamp);
    let Some(Ok(at)) = at else {
        return String::new();
    };
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rule::{Actions, Conditions};

    #[test]
    fn a_sample_is_a_share() {
        for (sample, of, expected) in [
            (1_000_000, 1_000, 1_000),
            (250_000, 1_000, 250),
            (1, 2_000_000, 2),
        ] {
            let entry = Entry::new(Rule {
                name: "r".to_owned(),
                when: Conditions {
                    sample: Some(sample),
                    ..Conditions::default()
                },
                then: Actions::default(),
                go_on: false,
            });
            let drawn = (0..of).filter(|_| entry.draws()).count();
            assert_eq!(drawn, expected, "{sample}");
        }
    }
}
