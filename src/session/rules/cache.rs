//! Answers that rules keep for a while.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use dbproxy_proto::capability::Capabilities;
use quick_cache::{Weighter, sync::Cache};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    accounts::AccountKey,
    config::Rule,
    routing::Wish,
    session::relay::News,
    sql::{Tables, setting::ScopeKey},
};

/// Answers of servers, until they are too old or a table that they tell of is written through this proxy.
#[derive(Debug)]
pub struct AnswerCache {
    answers: Cache<AnswerKey, Kept, ByBytes>,
    /// Counts writes, by a hash of the table's name: bounded, whatever tables statements name.
    writes: Box<[AtomicU64]>,
    /// Counts all writes.
    any: AtomicU64,
    /// Counts those of which it is not known what they write.
    unknown: AtomicU64,
    /// Rules keep answers, or have done so.
    used: AtomicBool,
}

/// Tables are told apart as far as this many can be.
const TABLES: usize = 1 << 14;

/// The longest answer that is kept.
const LONGEST: usize = 1 << 20;

/// What has to be the same for an answer to be the right one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::session) struct AnswerKey {
    /// The cluster's number.
    pub(super) cluster: u8,
    pub(super) account: AccountKey,
    /// Fingerprints of the session's state, and of the one in which the text was prepared.
    pub(super) states: (u64, u64),
    pub(super) capabilities: Capabilities,
    pub(super) news: News,
    /// Where it was to be asked for: another session may want to see more.
    pub(super) wish: Wish,
    /// With whose writes.
    pub(super) key: Option<ScopeKey>,
    /// The whole command.
    pub(super) command: Box<[u8]>,
    /// The text of a prepared statement.
    pub(super) prepared: Box<[u8]>,
}

#[derive(Clone, Debug)]
struct Kept {
    bytes: Bytes,
    since: Instant,
    reads: Reads,
}

/// What an answer depends on, and how often that had been written when it was asked for.
#[derive(Clone, Debug)]
pub(in crate::session) struct Reads {
    unknown: u64,
    /// `None`: nobody knows, so any write.
    tables: Result<Arc<[(usize, u64)]>, u64>,
}

/// An answer that is being collected.
#[derive(Debug)]
pub(in crate::session) struct Filling {
    key: AnswerKey,
    reads: Reads,
    bytes: BytesMut,
    is_too_long: bool,
}

impl Filling {
    /// The answer begins anew.
    pub(in crate::session) fn restart(&mut self) {
        self.bytes.clear();
        self.is_too_long = false;
    }

    /// The next bytes that the client gets.
    pub(in crate::session) fn add(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.bytes.len() + bytes.len() > LONGEST;
        if !self.is_too_long {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

/// What the statements of an open transaction have written.
#[derive(Debug, Default)]
pub(in crate::session) struct Written {
    tables: Vec<usize>,
    is_unknown: bool,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<AnswerKey, Kept> for ByBytes {
    fn weight(&self, key: &AnswerKey, kept: &Kept) -> u64 {
        const OVERHEAD: usize = 400;
        (OVERHEAD + key.command.len() + key.prepared.len() + kept.bytes.len()) as u64
    }
}

impl AnswerCache {
    /// Takes at most about this many bytes.
    pub fn new(bytes: u64) -> Self {
        const USUAL: u64 = 4_096;
        let entries = usize::try_from(bytes / USUAL).unwrap_or(usize::MAX).max(16);
        Self {
            answers: Cache::with_weighter(entries, bytes, ByBytes),
            writes: (0..TABLES).map(|_| AtomicU64::new(0)).collect(),
            any: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            used: AtomicBool::new(false),
        }
    }

    /// The answer to a command, if there is one that is younger than `ttl` and of which nothing was written since.
    pub(super) fn find(&self, key: &AnswerKey, ttl: Duration, now: Instant) -> Option<Bytes> {
        let kept = self.answers.get(key)?;
        let is_young = now.saturating_duration_since(kept.since) < ttl;
        if is_young && self.is_current(&kept.reads) {
            return Some(kept.bytes);
        }
        self.answers.remove(key);
        None
    }

    /// Begins to collect the answer to a command that is about to be asked for.
    pub(super) fn begin(&self, key: AnswerKey, tables: &Tables, schema: &[u8]) -> Filling {
        let count = |slot: usize| self.writes.get(slot).map_or(0, |count| count.load(SeqCst));
        let reads = Reads {
            unknown: self.unknown.load(SeqCst),
            tables: if tables.parsed {
                let slots = tables.read.iter().map(|name| slot(name, schema));
                Ok(slots.map(|slot| (slot, count(slot))).collect())
            } else {
                Err(self.any.load(SeqCst))
            },
        };
        Filling {
            key,
            reads,
            bytes: BytesMut::new(),
            is_too_long: false,
        }
    }

    /// Keeps a complete answer, unless something of it was written meanwhile.
    pub(super) fn keep(&self, filling: Filling, now: Instant) {
        if !filling.is_too_long && self.is_current(&filling.reads) {
            let kept = Kept {
                bytes: filling.bytes.freeze(),
                since: now,
                reads: filling.reads,
            };
            self.answers.insert(filling.key, kept);
        }
    }

    fn is_current(&self, reads: &Reads) -> bool {
        self.unknown.load(SeqCst) == reads.unknown
            && match &reads.tables {
                Ok(tables) => tables.iter().all(|(slot, before)| {
                    self.writes
                        .get(*slot)
                        .is_some_and(|now| now.load(SeqCst) == *before)
                }),
                Err(before) => self.any.load(SeqCst) == *before,
            }
    }

    /// If one of these rules keeps answers, it counts from now on what is written.
    pub fn attend(&self, rules: &[Rule]) {
        if rules.iter().any(|rule| rule.then.cache.is_some()) {
            self.used.store(true, SeqCst);
        }
    }

    /// Whether it can make a difference what is written.
    pub(in crate::session) fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    /// Something was written of which nobody knows what it was.
    pub(in crate::session) fn forget_all(&self) {
        self.any.fetch_add(1, SeqCst);
        self.unknown.fetch_add(1, SeqCst);
    }

    /// What was written can be seen from now on.
    pub(in crate::session) fn forget(&self, written: &Written) {
        if written.is_unknown {
            return self.forget_all();
        }
        self.any.fetch_add(1, SeqCst);
        for slot in &written.tables {
            if let Some(count) = self.writes.get(*slot) {
                count.fetch_add(1, SeqCst);
            }
        }
    }
}

impl Written {
    /// A statement may write these tables; `None`: any.
    pub(in crate::session) fn add(&mut self, tables: Option<&Tables>, schema: &[u8]) {
        /// So many in one transaction are as good as all.
        const MANY: usize = 1_000;
        match tables {
            Some(tables)
                if tables.parsed && !tables.written.is_empty() && self.tables.len() < MANY =>
            {
                let slots = tables.written.iter().map(|name| slot(name, schema));
                self.tables.extend(slots);
            }
            _ => self.is_unknown = true,
        }
    }
}

fn slot(name: &str, schema: &[u8]) -> usize {
    let mut qualified = if name.contains('.') {
        name.as_bytes().to_vec()
    } else {
        [schema, b".", name.as_bytes()].concat()
    };
    // Whether case counts depends on the server.
    qualified.make_ascii_lowercase();
    usize::try_from(xxh3_64(&qualified)).unwrap_or(0) % TABLES
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        config::Consistency,
        sql::{Dialect, Hint, setting::Settings, tables},
    };

    fn key(command: &str) -> AnswerKey {
        AnswerKey {
            cluster: 0,
            account: AccountKey {
                user: "app".into(),
                host: "%".into(),
            },
            states: (1, 1),
            capabilities: Capabilities::empty(),
            news: News::None,
            wish: Wish::new(Hint::None, &Settings::default(), Consistency::User),
            key: None,
            command: command.as_bytes().into(),
            prepared: Box::default(),
        }
    }

    fn ask(cache: &AnswerCache, sql: &str) -> Filling {
        let mut filling = cache.begin(
            key(sql),
            &tables(sql.as_bytes(), Dialect::default()),
            b"shop",
        );
        filling.add(b"answer");
        filling
    }

    fn write(cache: &AnswerCache, sql: &str) {
        let mut written = Written::default();
        written.add(Some(&tables(sql.as_bytes(), Dialect::default())), b"shop");
        cache.forget(&written);
    }

    #[test]
    fn answers_last_until_their_tables_are_written() {
        let cache = AnswerCache::new(1 << 20);
        let now = Instant::now();
        let (of_a, of_b) = ("SELECT x FROM a", "SELECT x FROM shop.b JOIN c USING (x)");
        let ttl = Duration::from_secs(10);
        let there = |sql: &str| cache.find(&key(sql), ttl, now).is_some();
        let fill = || {
            for sql in [of_a, of_b] {
                cache.keep(ask(&cache, sql), now);
                assert!(there(sql));
            }
        };
        fill();
        write(&cache, "INSERT INTO d VALUES (1)");
        write(&cache, "UPDATE other.a SET x = 1");
        assert!(there(of_a) && there(of_b));
        write(&cache, "UPDATE B SET x = 1");
        assert!(there(of_a) && !there(of_b));
        fill();
        write(&cache, "CALL anything()");
        assert!(!there(of_a) && !there(of_b));
        fill();
        assert!(cache.find(&key(of_a), ttl, now + ttl).is_none());
        // What is not understood depends on everything.
        let odd = "SELECT x FROM a LOCK IN SHARE MODE";
        cache.keep(ask(&cache, odd), now);
        assert!(there(odd));
        write(&cache, "INSERT INTO d VALUES (1)");
        assert!(!there(odd));
    }

    #[test]
    fn an_answer_that_a_write_overtook_is_not_kept() {
        let cache = AnswerCache::new(1 << 20);
        let asked = ask(&cache, "SELECT x FROM a");
        write(&cache, "DELETE FROM a");
        cache.keep(asked, Instant::now());
        let ttl = Duration::from_secs(1);
        assert!(
            cache
                .find(&key("SELECT x FROM a"), ttl, Instant::now())
                .is_none()
        );
    }

    #[test]
    fn memory_is_bounded() {
        let cache = AnswerCache::new(1 << 20);
        for number in 0..100 {
            let mut filling = ask(&cache, &format!("SELECT {number} FROM a"));
            filling.add(&[0; 100_000]);
            cache.keep(filling, Instant::now());
        }
        assert!(cache.answers.weight() <= 1 << 20);
        let mut filling = ask(&cache, "SELECT 'long' FROM a");
        (0..20).for_each(|_| filling.add(&[0; 100_000]));
        assert!(filling.bytes.len() <= LONGEST);
        cache.keep(filling, Instant::now());
        let ttl = Duration::from_secs(1);
        assert!(
            cache
                .find(&key("SELECT 'long' FROM a"), ttl, Instant::now())
                .is_none()
        );
    }
}
