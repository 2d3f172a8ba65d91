//! What ties a session to its connection now, and how often and for how long anything did.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::routing::{Held, PinReason};

/// Pins of all sessions, by reason.
#[derive(Debug)]
pub struct PinCounts {
    began: Instant,
    counts: [Count; PinReason::ALL.len()],
}

#[derive(Debug, Default)]
struct Count {
    started: AtomicU64,
    ended: AtomicU64,
    /// Milliseconds, of those that have ended.
    held: AtomicU64,
    /// The sum of the moments at which those began that last, in milliseconds.
    since: AtomicU64,
}

impl Default for PinCounts {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            counts: Default::default(),
        }
    }
}

impl PinCounts {
    fn of(&self, reason: PinReason) -> Option<&Count> {
        self.counts.get(reason as usize)
    }

    fn moment(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn begin(&self, reason: PinReason, at: Instant) {
        if let Some(count) = self.of(reason) {
            count.since.fetch_add(self.moment(at), Relaxed);
            count.started.fetch_add(1, Relaxed);
        }
    }

    fn end(&self, reason: PinReason, began: Instant) {
        if let Some(count) = self.of(reason) {
            let (began, now) = (self.moment(began), self.moment(Instant::now()));
            count.ended.fetch_add(1, Relaxed);
            count.since.fetch_sub(began, Relaxed);
            count.held.fetch_add(now.saturating_sub(began), Relaxed);
        }
    }

    /// By reason: how many there were, how many there are, and for how long in all.
    pub fn describe(&self) -> Vec<(PinReason, u64, u64, Duration)> {
        let now = self.moment(Instant::now());
        let described = PinReason::ALL
            .iter()
            .zip(&self.counts)
            .map(|(reason, count)| {
                let started = count.started.load(Relaxed);
                let lasting = started.saturating_sub(count.ended.load(Relaxed));
                let until_now = lasting
                    .saturating_mul(now)
                    .saturating_sub(count.since.load(Relaxed));
                let held = count.held.load(Relaxed).saturating_add(until_now);
                (*reason, started, lasting, Duration::from_millis(held))
            });
        described.collect()
    }
}

/// The pins of one session.
#[derive(Debug)]
pub(super) struct Pins {
    reasons: Vec<(PinReason, Instant)>,
    /// What is known of what they stand for.
    held: Option<Box<Held>>,
    counts: Arc<PinCounts>,
}

impl Pins {
    pub(super) fn new(counts: Arc<PinCounts>) -> Self {
        Self {
            reasons: Vec::new(),
            held: None,
            counts,
        }
    }

    /// The oldest of those that last, or the one that ends with the transaction.
    pub(super) fn first(&self) -> Option<PinReason> {
        let mut reasons = self.reasons.iter().map(|(reason, _)| *reason);
        let lasting = reasons
            .clone()
            .find(|reason| *reason != PinReason::NextTransaction);
        lasting.or_else(|| reasons.next())
    }

    /// The oldest of those whose end the client would have to be told of before any other's.
    pub(super) fn gravest(&self) -> Option<PinReason> {
        let mut reasons = self.reasons.iter().map(|(reason, _)| *reason);
        let others = [PinReason::NextTransaction, PinReason::Cursor];
        let grave = reasons.find(|reason| !others.contains(reason));
        grave.or_else(|| self.first())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    pub(super) fn contains(&self, reason: PinReason) -> bool {
        self.reasons.iter().any(|(other, _)| *other == reason)
    }

    /// All of them and for how long each has lasted.
    pub(super) fn describe(&self) -> Option<String> {
        let described = |(reason, since): &(PinReason, Instant)| {
            format!("{reason} ({} s)", since.elapsed().as_secs())
        };
        let all: Vec<_> = self.reasons.iter().map(described).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    pub(super) fn begin(&mut self, reason: PinReason) {
        if !self.contains(reason) {
            let now = Instant::now();
            self.reasons.push((reason, now));
            self.counts.begin(reason, now);
        }
    }

    pub(super) fn end(&mut self, reason: PinReason) {
        self.end_where(|other| other == reason);
    }

    pub(super) fn clear(&mut self) {
        self.end_where(|_| true);
        self.held = None;
    }

    fn end_where(&mut self, ends: impl Fn(PinReason) -> bool) {
        let counts = &self.counts;
        self.reasons.retain(|(reason, since)| {
            if ends(*reason) {
                counts.end(*reason, *since);
            }
            !ends(*reason)
        });
    }

    /// What the connection holds, to be followed.
    pub(super) fn held(&mut self) -> &mut Held {
        self.held.get_or_insert_default()
    }

    /// Whether anything is followed.
    pub(super) fn follows(&self) -> bool {
        self.held.is_some()
    }

    /// Ends those of which nothing is left.
    pub(super) fn end_what_is_over(&mut self) {
        let Some(held) = self.held.take() else { return };
        self.end_where(|reason| held.is_over(reason));
        if !self.reasons.is_empty() {
            self.held = Some(held);
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_counts_by_itself() {
        let counts = Arc::<PinCounts>::default();
        let count = |reason: PinReason| {
            let described = counts.describe();
            let found = described.into_iter().find(|(other, ..)| *other == reason);
            found.map(|(_, started, lasting, _)| (started, lasting))
        };
        let mut pins = Pins::new(Arc::clone(&counts));
        pins.begin(PinReason::Cursor);
        pins.begin(PinReason::Cursor);
        pins.begin(PinReason::Handler);
        assert_eq!(pins.first(), Some(PinReason::Cursor));
        assert_eq!(count(PinReason::Cursor), Some((1, 1)));
        pins.end(PinReason::Cursor);
        assert_eq!(count(PinReason::Cursor), Some((1, 0)));
        assert_eq!(pins.first(), Some(PinReason::Handler));
        pins.begin(PinReason::Cursor);
        drop(pins);
        assert_eq!(count(PinReason::Cursor), Some((2, 0)));
        assert_eq!(count(PinReason::Handler), Some((1, 0)));
    }
}
