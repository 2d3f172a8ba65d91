//! Statements that rules have learned, and others that they met.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use dashmap::{DashMap, Entry};
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::policy::in_utc;
use crate::{
    config::rule,
    sql::{self, Dialect},
};

/// Statements that rules have learned, and others that they met.
#[derive(Debug, Default)]
pub struct Firewall {
    met: DashMap<Key, Arc<Met>>,
    /// Something was learned that is not kept in the file yet.
    changed: AtomicBool,
    is_full: AtomicBool,
}

/// A hash of a rule's name and a digest's text: nobody can make up a statement that passes for another one.
type Key = [u8; SHA256_OUTPUT_LEN];

#[derive(Debug)]
struct Met {
    rule: String,
    /// The beginning of the digest's text.
    statement: String,
    is_learned: bool,
    hits: AtomicU64,
    /// Seconds since 1970.
    last: AtomicU64,
}

/// Statements that are remembered, those that were not learned among them.
const MOST: usize = 100_000;

/// Longest digest text, in bytes; of a longer one the beginning counts.
const TEXT: usize = 1 << 20;

/// Bytes of it that people see.
const SHOWN: usize = 1_000;

/// The file's form.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    rules: BTreeMap<String, BTreeMap<String, String>>,
}

impl Firewall {
    /// What was learned before, from the text of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.format != FORMAT {
            return Err(format!("its format is {}, not {FORMAT}", file.format));
        }
        let firewall = Self::default();
        for (rule, statements) in file.rules {
            for (hash, statement) in statements {
                let key = unhex(&hash).ok_or_else(|| format!("\"{hash}\" is not a hash"))?;
                firewall
                    .met
                    .insert(key, Arc::new(Met::new(&rule, statement, true, 0)));
            }
        }
        Ok(firewall)
    }

    /// The text of the file that has what was learned; `None` if nothing has been learned since the last one.
    pub fn write(&self) -> Option<String> {
        if !self.changed.swap(false, SeqCst) {
            return None;
        }
        let mut rules = BTreeMap::<String, BTreeMap<String, String>>::new();
        for entry in self.met.iter().filter(|entry| entry.is_learned) {
            let statements = rules.entry(entry.rule.clone()).or_default();
            statements.insert(hex(entry.key()), entry.statement.clone());
        }
        let file = File {
            format: FORMAT,
            rules,
        };
        // Strings in maps: nothing in it can fail.
        serde_json::to_string_pretty(&file).ok()
    }

    /// What could not be written is to be written again.
    pub fn not_kept(&self) {
        self.changed.store(true, SeqCst);
    }

    /// Whether a statement that a rule matches may run, `now` seconds after 1970.
    pub(super) fn admits(
        &self,
        rule: &str,
        mode: rule::Firewall,
        text: &[u8],
        dialect: Dialect,
        now: u64,
    ) -> bool {
        let statement = sql::digest_text(text, dialect, TEXT);
        let key = key(rule, &statement);
        if let Some(met) = self.met.get(&key)
            && (met.is_learned || mode != rule::Firewall::Learn)
        {
            met.hits.fetch_add(1, Relaxed);
            met.last.fetch_max(now, Relaxed);
            return met.is_learned || mode == rule::Firewall::Detect;
        }
        let learns = mode == rule::Firewall::Learn;
        let statement = shortened(statement);
        if self.met.len() >= MOST {
            if !self.is_full.swap(true, SeqCst) {
                error!(
                    rule,
                    "the firewall remembers {MOST} statements, and has no room for more"
                );
            }
            return mode != rule::Firewall::Enforce;
        }
        if !learns {
            warn!(rule, %statement, "the firewall has not learned this statement");
        }
        let met = Arc::new(Met::new(rule, statement, learns, now));
        met.hits.fetch_add(1, Relaxed);
        match self.met.entry(key) {
            Entry::Occupied(mut known) if learns => drop(known.insert(met)),
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => drop(place.insert(met)),
        }
        if learns {
            self.changed.store(true, SeqCst);
        }
        mode != rule::Firewall::Enforce
    }

    /// What people see of it, a row each: rule, whether it was learned, hits, last time, statement.
    pub(in crate::session) fn describe(&self) -> Vec<Vec<Option<String>>> {
        let mut rows: Vec<_> = self
            .met
            .iter()
            .map(|met| {
                let learned = if met.is_learned { "learned" } else { "unknown" };
                let last = met.last.load(Relaxed);
                vec![
                    Some(met.rule.clone()),
                    Some(learned.to_owned()),
                    Some(met.hits.load(Relaxed).to_string()),
                    (last > 0).then(|| in_utc(last)),
                    Some(met.statement.clone()),
                ]
            })
            .collect();
        rows.sort_unstable();
        rows
    }
}

impl Met {
    fn new(rule: &str, statement: String, is_learned: bool, last: u64) -> Self {
        Self {
            rule: rule.to_owned(),
            statement,
            is_learned,
            hits: AtomicU64::new(0),
            last: AtomicU64::new(last),
        }
    }
}

fn key(rule: &str, statement: &str) -> Key {
    // No name holds a NUL byte that TOML lets through unescaped, and one that does only meets itself.
    let named = [rule.as_bytes(), b"\0", statement.as_bytes()].concat();
    let mut key = Key::default();
    key.copy_from_slice(digest(&SHA256, &named).as_ref());
    key
}

fn shortened(mut text: String) -> String {
    let end = (0..=SHOWN.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

fn hex(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Key> {
    let mut key = Key::default();
    if text.len() != 2 * key.len() || !text.is_ascii() {
        return None;
    }
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rule::Firewall::{Detect, Enforce, Learn};

    fn admits(firewall: &Firewall, rule: &str, mode: rule::Firewall, sql: &str) -> bool {
        firewall.admits(rule, mode, sql.as_bytes(), Dialect::default(), 1_000)
    }

    #[test]
    fn what_was_learned_passes_and_is_kept() {
        let firewall = Firewall::default();
        assert!(admits(
            &firewall,
            "web",
            Learn,
            "SELECT a FROM t WHERE b = 1"
        ));
        assert!(admits(
            &firewall,
            "web",
            Enforce,
            "select a from t where b = 'x'"
        ));
        assert!(!admits(
            &firewall,
            "web",
            Enforce,
            "SELECT a FROM t WHERE b = 1 OR 1 = 1"
        ));
        assert!(admits(
            &firewall,
            "web",
            Detect,
            "SELECT a FROM t WHERE b = 1 OR 1 = 1"
        ));
        // Each rule learns for itself.
        assert!(!admits(
            &firewall,
            "api",
            Enforce,
            "SELECT a FROM t WHERE b = 1"
        ));
        let text = firewall.write().unwrap();
        assert!(!text.contains("OR"), "{text}");
        assert_eq!(firewall.write(), None);
        firewall.not_kept();
        assert_eq!(firewall.write().as_deref(), Some(text.as_str()));
        let again = Firewall::read(&text).unwrap();
        assert!(admits(
            &again,
            "web",
            Enforce,
            "SELECT a FROM t WHERE b = 2"
        ));
        assert!(!admits(
            &again,
            "web",
            Enforce,
            "SELECT a FROM u WHERE b = 2"
        ));
        // What was refused can be learned later.
        assert!(admits(&again, "web", Learn, "SELECT a FROM u WHERE b = 2"));
        assert!(admits(
            &again,
            "web",
            Enforce,
            "SELECT a FROM u WHERE b = 2"
        ));
    }

    #[test]
    fn broken_files_are_refused() {
        for text in [
            "",
            "{}",
            "{\"format\":2,\"rules\":{}}",
            "{\"format\":1,\"rules\":{\"a\":{\"zz\":\"\"}}}",
        ] {
            assert!(Firewall::read(text).is_err(), "{text}");
        }
    }
}
