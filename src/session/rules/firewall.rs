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
use dashmap::DashMap;
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
    learned: DashMap<Key, Arc<Met>>,
    /// Those that were met and not learned.
    unknown: DashMap<Key, Arc<Met>>,
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
    hits: AtomicU64,
    /// Seconds since 1970.
    last: AtomicU64,
}

/// Statements that are learned.
const LEARNED: usize = 100_000;

/// Others that are remembered: whoever makes up new ones takes no room from those that are learned.
const UNKNOWN: usize = 10_000;

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
                let met = Met::new(&rule, statement, 0);
                firewall.learned.insert(key, Arc::new(met));
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
        for entry in &self.learned {
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
        let statement = match learnable(text, dialect) {
            Ok(statement) => statement,
            Err(shown) => {
                self.meet(rule, key(rule, &shown), shown, now);
                return mode != rule::Firewall::Enforce;
            }
        };
        let key = key(rule, &statement);
        if let Some(met) = self.learned.get(&key) {
            met.hit(now);
            return true;
        }
        if mode == rule::Firewall::Learn {
            self.learn(rule, key, statement, now);
        } else {
            self.meet(rule, key, statement, now);
        }
        mode != rule::Firewall::Enforce
    }

    fn learn(&self, rule: &str, key: Key, statement: String, now: u64) {
        if self.learned.len() >= LEARNED {
            if !self.is_full.swap(true, SeqCst) {
                error!(
                    rule,
                    "the firewall has learned {LEARNED} statements, and has no room for more"
                );
            }
            return;
        }
        let met = Met::new(rule, shortened(statement), now);
        met.hit(now);
        self.learned.insert(key, Arc::new(met));
        self.unknown.remove(&key);
        self.changed.store(true, SeqCst);
    }

    /// Takes down a statement that was not learned, and tells the log of it if it is new.
    fn meet(&self, rule: &str, key: Key, statement: String, now: u64) {
        if let Some(met) = self.unknown.get(&key) {
            return met.hit(now);
        }
        if self.unknown.len() >= UNKNOWN {
            self.forget_some();
        }
        let statement = shortened(statement);
        warn!(rule, %statement, "the firewall has not learned this statement");
        let met = Met::new(rule, statement, now);
        met.hit(now);
        self.unknown.insert(key, Arc::new(met));
    }

    /// Forgets a tenth of what was not learned: what was met longest ago.
    fn forget_some(&self) {
        let mut oldest: Vec<_> = self
            .unknown
            .iter()
            .map(|met| (met.last.load(Relaxed), *met.key()))
            .collect();
        oldest.sort_unstable();
        for (_, key) in oldest.iter().take(UNKNOWN / 10) {
            self.unknown.remove(key);
        }
    }

    /// What people see of it, a row each: rule, whether it was learned, hits, last time, statement.
    pub(in crate::session) fn describe(&self) -> Vec<Vec<Option<String>>> {
        let states = [(&self.learned, "learned"), (&self.unknown, "unknown")];
        let mut rows: Vec<_> = states
            .into_iter()
            .flat_map(|(all, state)| all.iter().map(move |met| (met, state)))
            .map(|(met, state)| {
                let last = met.last.load(Relaxed);
                vec![
                    Some(met.rule.clone()),
                    Some(state.to_owned()),
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
    fn new(rule: &str, statement: String, last: u64) -> Self {
        Self {
            rule: rule.to_owned(),
            statement,
            hits: AtomicU64::new(0),
            last: AtomicU64::new(last),
        }
    }

    fn hit(&self, now: u64) {
        self.hits.fetch_add(1, Relaxed);
        self.last.fetch_max(now, Relaxed);
    }
}

/// What a statement is known by, with the text that it prepares if it prepares one.
///
/// # Errors
/// What people see of one that cannot be learned, because its digest does not tell what it would run.
fn learnable(text: &[u8], dialect: Dialect) -> Result<String, String> {
    let digest = |text: &[u8]| {
        let unsure = || "(a statement that servers may read in several ways)".to_owned();
        sql::loggable_digest(text, dialect, TEXT).ok_or_else(unsure)
    };
    let prepared = |text: &[u8]| {
        let kind = sql::classify(text, dialect).kind;
        sql::prepared_texts(text, kind, dialect)
    };
    let mut statement = digest(text)?;
    let computed = format!("{statement}: (a text that is not in the statement)");
    let Some(texts) = prepared(text) else {
        return Err(computed);
    };
    for text in texts {
        if prepared(&text).is_none_or(|inner| !inner.is_empty()) {
            return Err(computed);
        }
        statement = format!("{statement}: {}", digest(&text)?);
    }
    Ok(statement)
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
    fn what_may_be_read_otherwise_is_not_learned() {
        let firewall = Firewall::default();
        let gbk = Dialect::default().with_charset(b"gbk");
        let plain = b"SELECT a FROM t WHERE b = 'x'";
        let injected = b"SELECT a FROM t WHERE b = '\xbf\x5c' OR 1=1 -- '";
        let admits = |mode, text: &[u8]| firewall.admits("web", mode, text, gbk, 1_000);
        assert!(admits(Learn, plain) && admits(Enforce, plain));
        assert!(!admits(Enforce, injected));
        assert!(admits(Detect, injected) && admits(Learn, injected));
        assert!(!admits(Enforce, injected));
        assert!(!admits(Enforce, b"SELECT a FROM t WHERE b = 'x"));
        let met = firewall.describe();
        assert_eq!(met.len(), 2, "{met:?}");
        assert!(!format!("{met:?}").contains("OR"));
    }

    #[test]
    fn a_prepared_text_has_to_be_known_too() {
        let firewall = Firewall::default();
        let admits = |mode, sql: &str| admits(&firewall, "web", mode, sql);
        for (learned, same, other) in [
            (
                "PREPARE s FROM 'SELECT a FROM t WHERE b = ''x'' '",
                "PREPARE s FROM 'SELECT a FROM t WHERE b = 5'",
                "PREPARE s FROM 'DROP TABLE t'",
            ),
            (
                "EXECUTE IMMEDIATE 'SELECT 1'",
                "EXECUTE IMMEDIATE \"SELECT 2\"",
                "EXECUTE IMMEDIATE 'SELECT 1 FROM t'",
            ),
            (
                "SELECT 1; PREPARE s FROM 'SELECT 1'",
                "SELECT 2; PREPARE s FROM 'SELECT 2'",
                "SELECT 1; PREPARE s FROM 'DROP TABLE t'",
            ),
        ] {
            assert!(admits(Learn, learned));
            assert!(admits(Enforce, same), "{same}");
            assert!(!admits(Enforce, other), "{other}");
        }
        for computed in [
            "PREPARE s FROM @text",
            "EXECUTE IMMEDIATE CONCAT('SELECT', ' 1')",
            "PREPARE s FROM 'EXECUTE IMMEDIATE ''SELECT 1'' '",
        ] {
            assert!(admits(Learn, computed));
            assert!(!admits(Enforce, computed), "{computed}");
        }
    }

    #[test]
    fn what_is_not_learned_takes_no_room_from_what_is() {
        let firewall = Firewall::default();
        for number in 0..2 * UNKNOWN {
            let now = u64::try_from(number).unwrap();
            let sql = format!("SELECT a{number} FROM t");
            firewall.admits("web", Detect, sql.as_bytes(), Dialect::default(), now);
        }
        assert!(firewall.unknown.len() <= UNKNOWN);
        // The latest are remembered.
        let last = format!("SELECT a{} FROM t", 2 * UNKNOWN - 1);
        let rows = firewall.describe();
        assert!(
            rows.iter()
                .any(|row| row.last().unwrap().as_deref() == Some(&last))
        );
        assert!(admits(&firewall, "web", Learn, &last));
        assert!(admits(&firewall, "web", Learn, "SELECT b FROM t"));
        assert!(admits(&firewall, "web", Enforce, &last));
        assert!(admits(&firewall, "web", Enforce, "SELECT b FROM t"));
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
