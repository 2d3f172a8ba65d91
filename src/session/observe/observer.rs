//! What one worker has observed since it was last collected.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    routing::{Reason, Route, Target},
    session::unix_time,
    sql::{Dialect, StatementClass, loggable_digest},
    stats::{Comparisons, Destination, Observations, Statement, Verdict},
};

/// Reads that one worker compares at a time; others meanwhile are not compared.
const AT_A_TIME: usize = 4;

/// Most bytes of a text.
const TEXT: usize = 1_000;

/// Records where a worker's statements would have gone, and which reads are compared.
#[derive(Debug)]
pub struct Observer {
    // Only the worker's own thread uses it, but for the moment in which it is collected.
    table: Mutex<Table>,
    /// A read is compared if chance is below.
    below: u64,
    chance: AtomicU64,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Table {
    statements: HashMap<u64, Entry>,
    beyond: BTreeMap<Destination, u64>,
}

/// The statements of one digest.
#[derive(Debug)]
struct Entry {
    text: Arc<str>,
    first: u64,
    last: u64,
    // Few: a linear search is faster than any other.
    routes: Vec<(Destination, Reason, u64)>,
    compared: Comparisons,
    /// One of them was compared, or is being.
    met: bool,
    /// Its answers vary by themselves.
    varies: bool,
}

impl Observer {
    /// An observer that has this share of the reads for replicas compared. `seed` is any number, another for each worker.
    pub fn new(sample: f64, seed: u64) -> Self {
        Self {
            table: Mutex::default(),
            // A share of 1 is all but one of 2^64.
            below: (sample.clamp(0.0, 1.0) * u64::MAX as f64) as u64,
            chance: AtomicU64::new(seed),
            places: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// Takes what was observed since the last time.
    pub fn collect(&self) -> Observations {
        let mut taken = Vec::new();
        let mut table = self.lock();
        // Those that nobody has used meanwhile make room once there is little left; until then they are remembered as
        // compared.
        let crowded = table.statements.len() > Observations::LIMIT / 2;
        table.statements.retain(|digest, entry| {
            let used = !entry.routes.is_empty() || !entry.compared.is_empty();
            if used {
                taken.push((*digest, entry.take()));
            }
            used || !crowded
        });
        let beyond = std::mem::take(&mut table.beyond);
        // The worker does not wait for the rest.
        drop(table);
        let now = unix_time();
        let first = taken.iter().map(|(_, entry)| entry.first).min();
        let statements = taken.into_iter().map(|(digest, entry)| {
            let digest = format!("{digest:016x}");
            (digest, entry.into_statement())
        });
        Observations {
            since: first.unwrap_or(now),
            until: now,
            statements: statements.collect(),
            beyond,
        }
    }

    /// Counts a statement.
    pub(super) fn record(
        &self,
        class: &StatementClass,
        route: &Route,
        text: &[u8],
        dialect: Dialect,
    ) {
        let destination = match route.target {
            Target::Primary => Destination::Primary,
            Target::Replica(_) => Destination::Replica,
            Target::Kept | Target::Nowhere => Destination::Connection,
        };
        let now = unix_time();
        let mut table = self.lock();
        let room = table.statements.len() < Observations::LIMIT;
        let entry = match table.statements.entry(class.digest) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) if room => {
                let text = loggable_digest(text, dialect, TEXT).unwrap_or_default();
                vacant.insert(Entry::new(text, now))
            }
            std::collections::hash_map::Entry::Vacant(_) => {
                *table.beyond.entry(destination).or_default() += 1;
                return;
            }
        };
        if entry.routes.is_empty() {
            entry.first = now;
        }
        entry.last = now;
        let mut routes = entry.routes.iter_mut();
        match routes.find(|(to, why, _)| *to == destination && *why == route.reason) {
            Some((_, _, count)) => *count += 1,
            None => entry.routes.push((destination, route.reason, 1)),
        }
    }

    /// Whether a read of this digest is to be compared, and the right to do it.
    pub(super) fn picks(&self, digest: u64) -> Option<OwnedSemaphorePermit> {
        if self.below == 0 {
            return None;
        }
        let first = match self.lock().statements.get(&digest) {
            Some(entry) if entry.varies => return None,
            Some(entry) => !entry.met,
            None => true,
        };
        if !first && self.draw() > self.below {
            return None;
        }
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// A read of this digest is being compared.
    pub(super) fn begun(&self, digest: u64) {
        if let Some(entry) = self.lock().statements.get_mut(&digest) {
            entry.met = true;
        }
    }

    /// The answers to statements of this digest vary: none is compared any more.
    pub(super) fn varies(&self, digest: u64) {
        if let Some(entry) = self.lock().statements.get_mut(&digest) {
            entry.varies = true;
        }
    }

    /// Counts what came of a comparison.
    pub(super) fn judged(&self, digest: u64, verdict: Verdict) {
        if let Some(entry) = self.lock().statements.get_mut(&digest) {
            entry.compared.add(verdict);
        }
    }

    /// The next number of a sequence that looks like chance.
    fn draw(&self) -> u64 {
        // https://prng.di.unimi.it/splitmix64.c
        let state = self.chance.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Counts may be one short if something panicked, nothing worse.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(text: String, now: u64) -> Self {
        Self {
            text: text.into(),
            first: now,
            last: now,
            routes: Vec::new(),
            compared: Comparisons::default(),
            met: false,
            varies: false,
        }
    }

    /// What was counted; from here on it is counted anew.
    fn take(&mut self) -> Self {
        Self {
            text: Arc::clone(&self.text),
            routes: std::mem::take(&mut self.routes),
            compared: std::mem::take(&mut self.compared),
            ..*self
        }
    }

    fn into_statement(self) -> Statement {
        let mut routes: BTreeMap<_, BTreeMap<String, u64>> = BTreeMap::new();
        for (destination, reason, count) in self.routes {
            let reasons = routes.entry(destination).or_default();
            *reasons.entry(reason.to_string()).or_default() += count;
        }
        Statement {
            text: self.text.to_string(),
            first: self.first,
            last: self.last,
            routes,
            compared: self.compared,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::{sql::classify, topology::ServerId};

    const TO_REPLICA: Route = Route::new(Target::Replica(ServerId(1)), Reason::FreshReplica);

    fn record(observer: &Observer, sql: &str, route: Route) -> u64 {
        let class = classify(sql.as_bytes(), Dialect::default());
        observer.record(&class, &route, sql.as_bytes(), Dialect::default());
        class.digest
    }

    #[test]
    fn statements_are_counted_by_digest_and_reason_without_their_literals() {
        let observer = Observer::new(0.5, 1);
        let read = record(&observer, "SELECT a FROM t WHERE b = 'secret'", TO_REPLICA);
        record(&observer, "SELECT a FROM t WHERE b = 'other'", TO_REPLICA);
        let primary = Route::new(Target::Primary, Reason::NoFreshReplica);
        record(&observer, "SELECT a FROM t WHERE b = 'other'", primary);
        let broken = record(&observer, "SELECT 'secret", primary);
        observer.judged(read, Verdict::Later);
        let collected = observer.collect();
        let statement = &collected.statements[&format!("{read:016x}")];
        assert_eq!(statement.text, "SELECT a FROM t WHERE b = ?");
        assert_eq!(statement.count_to(Destination::Replica), 2);
        assert_eq!(statement.count_to(Destination::Primary), 1);
        assert_eq!(statement.compared.later, 1);
        assert_eq!(collected.statements[&format!("{broken:016x}")].text, "");
        assert!(observer.collect().is_empty());
    }

    #[test]
    fn the_first_of_each_kind_is_compared_and_of_others_a_share() {
        let observer = Observer::new(0.1, 7);
        let digest = record(&observer, "SELECT a FROM t", TO_REPLICA);
        assert!(observer.picks(digest).is_some() && observer.picks(digest).is_some());
        observer.begun(digest);
        let picked = (0..10_000)
            .filter(|_| observer.picks(digest).is_some())
            .count();
        assert!((800..1_200).contains(&picked), "{picked}");
        observer.varies(digest);
        assert!((0..1_000).all(|_| observer.picks(digest).is_none()));
        assert!(Observer::new(0.0, 7).picks(digest).is_none());
        let all = Observer::new(1.0, 7);
        record(&all, "SELECT a FROM t", TO_REPLICA);
        all.begun(digest);
        assert!((0..1_000).all(|_| all.picks(digest).is_some()));
        let held: Vec<_> = (0..AT_A_TIME).map(|_| all.picks(digest)).collect();
        assert!(held.iter().all(Option::is_some) && all.picks(digest).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let observer = Observer::new(0.0, 1);
        for table in 0..Observations::LIMIT + 5 {
            record(&observer, &format!("SELECT a FROM t{table}"), TO_REPLICA);
        }
        assert_eq!(observer.collect().beyond[&Destination::Replica], 5);
        assert!(observer.collect().is_empty());
        assert!(observer.lock().statements.is_empty());
        record(&observer, "SELECT a FROM other", TO_REPLICA);
        assert_eq!(observer.collect().statements.len(), 1);
    }
}
