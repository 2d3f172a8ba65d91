//! How many statements there may be, by account or client.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dashmap::DashMap;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    accounts::AccountKey,
    config::rule::{Limit, LimitPer},
};

/// The quotas of one rule.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    by: DashMap<Whose, Arc<Quota>>,
}

/// Whose statements are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    Everybody,
    Account(AccountKey),
    /// `None`: all clients at unix sockets.
    Client(Option<IpAddr>),
}

impl Whose {
    pub(super) fn new(per: LimitPer, account: &AccountKey, client: Option<IpAddr>) -> Self {
        match per {
            LimitPer::Rule => Self::Everybody,
            LimitPer::Account => Self::Account(account.clone()),
            LimitPer::Client => Self::Client(client),
        }
    }
}

/// With more than this, those that nobody uses are forgotten.
const MANY: usize = 10_000;

impl Quotas {
    /// The quota of somebody, by the rule's limit.
    pub(super) fn of(&self, whose: Whose, limit: &Limit, now: Instant) -> Arc<Quota> {
        if let Some(quota) = self.by.get(&whose) {
            return Arc::clone(&quota);
        }
        if self.by.len() >= MANY {
            self.by
                .retain(|_, quota| Arc::strong_count(quota) > 1 || !quota.is_unused(limit, now));
        }
        let quota = self.by.entry(whose);
        Arc::clone(&quota.or_insert_with(|| Arc::new(Quota::new(limit, now))))
    }
}

/// What somebody may still do.
#[derive(Debug)]
pub(super) struct Quota {
    /// Statements that may begin now, and when that was.
    rate: Mutex<(f64, Instant)>,
    running: Option<Arc<Semaphore>>,
}

impl Quota {
    fn new(limit: &Limit, now: Instant) -> Self {
        let full = limit.per_second.map_or(0.0, f64::from);
        let running = limit
            .concurrency
            .map(|most| Arc::new(Semaphore::new(most as usize)));
        Self {
            rate: Mutex::new((full, now)),
            running,
        }
    }

    /// Takes one of the statements of a second; false if there is none left.
    pub(super) fn take(&self, per_second: u32, now: Instant) -> bool {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        refill(&mut rate, per_second, now);
        let may = rate.0 >= 1.0;
        if may {
            rate.0 -= 1.0;
        }
        may
    }

    /// One of the places for statements that run; `None` if there was none in time.
    pub(super) async fn place(&self, patience: Duration) -> Option<Place> {
        let Some(running) = &self.running else {
            return Some(Place { _permit: None });
        };
        let place = Arc::clone(running).acquire_owned();
        let permit = tokio::time::timeout(patience, place).await.ok()?.ok()?;
        Some(Place {
            _permit: Some(permit),
        })
    }

    /// Whether forgetting it changes nothing.
    fn is_unused(&self, limit: &Limit, now: Instant) -> bool {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let per_second = limit.per_second.unwrap_or(0);
        refill(&mut rate, per_second, now);
        let free = self
            .running
            .as_ref()
            .map_or(0, |running| running.available_permits());
        rate.0 >= f64::from(per_second) && free == limit.concurrency.unwrap_or(0) as usize
    }
}

fn refill(rate: &mut (f64, Instant), per_second: u32, now: Instant) {
    let (left, since) = *rate;
    let per_second = f64::from(per_second);
    let more = now.saturating_duration_since(since).as_secs_f64() * per_second;
    *rate = ((left + more).min(per_second), since.max(now));
}

/// The place of a statement that runs.
#[derive(Debug)]
pub(super) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn limit(per_second: Option<u32>, concurrency: Option<u32>) -> Limit {
        Limit {
            per_second,
            concurrency,
            ..Limit::default()
        }
    }

    #[test]
    fn a_second_has_so_many_statements() {
        let start = Instant::now();
        let quota = Quota::new(&limit(Some(10), None), start);
        let taken = |at: Instant| (0..100).filter(|_| quota.take(10, at)).count();
        assert_eq!(taken(start), 10);
        assert_eq!(taken(start), 0);
        assert_eq!(taken(start + Duration::from_millis(500)), 5);
        assert_eq!(taken(start + Duration::from_secs(3_600)), 10);
        // A clock that stands still gives nothing.
        assert_eq!(taken(start), 0);
    }

    #[tokio::test]
    async fn places_are_given_back() {
        let quota = Quota::new(&limit(None, Some(1)), Instant::now());
        let place = quota.place(Duration::ZERO).await.unwrap();
        assert!(quota.place(Duration::ZERO).await.is_none());
        drop(place);
        assert!(quota.place(Duration::ZERO).await.is_some());
    }

    #[test]
    fn quotas_of_those_who_left_are_forgotten() {
        let quotas = Quotas::default();
        let (limit, start) = (limit(Some(5), None), Instant::now());
        let client = |number: u32| Whose::Client(Some(IpAddr::from(number.to_be_bytes())));
        for number in 0..MANY as u32 {
            quotas.of(client(number), &limit, start).take(5, start);
        }
        // All have used something just now, so that none can be forgotten.
        quotas.of(client(u32::MAX), &limit, start);
        assert_eq!(quotas.by.len(), MANY + 1);
        quotas.of(client(u32::MAX - 1), &limit, start + Duration::from_secs(1));
        assert!(quotas.by.len() <= 2);
    }
}
