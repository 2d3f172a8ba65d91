//! How many clients there may be: of one address, of one account, and on their way in.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::handle::Handle;

/// An address as limits see it: of IPv6 the network of 64 bits, which is one host's to choose addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
            v4 => v4,
        })
    }
}

/// Counts those who are there, by what they have in common.
#[derive(Debug)]
pub(super) struct Tally<K> {
    counts: Mutex<HashMap<K, usize>>,
}

/// A place in a [`Tally`]. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Seat<K: Clone + Eq + Hash> {
    tally: Arc<Tally<K>>,
    key: K,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
        }
    }
}

impl<K: Clone + Eq + Hash> Tally<K> {
    /// A place for one more; None if there are `limit` already.
    pub(super) fn enter(self: &Arc<Self>, key: K, limit: usize) -> Option<Seat<K>> {
        let mut counts = locked(&self.counts);
        let count = counts.entry(key.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Seat {
            tally: Arc::clone(self),
            key,
        })
    }
}

impl<K: Clone + Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut counts = locked(&self.tally.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Clients that are not logged in yet.
#[derive(Debug, Default)]
pub(super) struct Doorstep(Mutex<Crowd>);

#[derive(Debug, Default)]
struct Crowd {
    count: usize,
    arrivals: u64,
    /// In the order of their arrival.
    sources: HashMap<Option<Source>, BTreeMap<u64, Arc<Handle>>>,
}

/// A place on the doorstep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    source: Option<Source>,
    arrival: u64,
}

impl Doorstep {
    /// Lets one more wait; true if one was sent away for it ([`Self::thin`]), since there were `limit` already.
    pub(super) fn join(
        &self,
        source: Option<Source>,
        handle: Arc<Handle>,
        limit: usize,
    ) -> (Place, bool) {
        let mut crowd = locked(&self.0);
        let thinned = crowd.count >= limit && crowd.thin();
        crowd.count += 1;
        crowd.arrivals += 1;
        let arrival = crowd.arrivals;
        let waiting = crowd.sources.entry(source).or_default();
        waiting.insert(arrival, handle);
        (Place { source, arrival }, thinned)
    }

    /// Gives up a place, unless it is taken away already.
    pub(super) fn leave(&self, place: Place) {
        locked(&self.0).remove(place);
    }

    /// Sends one away: of the source that has most of them the one that has waited longest. False if nobody waits.
    pub(super) fn thin(&self) -> bool {
        locked(&self.0).thin()
    }
}

impl Crowd {
    fn thin(&mut self) -> bool {
        let crowded = self.sources.iter().max_by_key(|(_, waiting)| waiting.len());
        let Some((source, arrival)) =
            crowded.and_then(|(source, waiting)| Some((*source, *waiting.keys().next()?)))
        else {
            return false;
        };
        if let Some(handle) = self.remove(Place { source, arrival }) {
            handle.crowd_out();
        }
        true
    }

    fn remove(&mut self, place: Place) -> Option<Arc<Handle>> {
        let waiting = self.sources.get_mut(&place.source)?;
        let handle = waiting.remove(&place.arrival)?;
        if waiting.is_empty() {
            self.sources.remove(&place.source);
        }
        self.count -= 1;
        Some(handle)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_ipv6_host_is_its_network() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
    }

    #[test]
    fn places_are_counted_by_key() {
        let tally = Arc::new(Tally::default());
        let first = tally.enter("a", 2).unwrap();
        let _second = tally.enter("a", 2).unwrap();
        assert!(tally.enter("a", 2).is_none());
        let _other = tally.enter("b", 2).unwrap();
        drop(first);
        assert!(tally.enter("a", 2).is_some());
        assert_eq!(locked(&tally.counts).len(), 2);
    }
}
