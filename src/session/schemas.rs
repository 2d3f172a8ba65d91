//! Schemas that accounts were able to use, so that a login need not ask a server each time.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

/// An account's user name and a schema.
type Grant = (Arc<str>, Box<[u8]>);

/// Pairs of account and schema that a server accepted once.
///
/// A schema that is dropped later is noticed by the first statement instead of by the login.
#[derive(Debug, Default)]
pub struct Schemas {
    known: Mutex<HashSet<Grant>>,
}

impl Schemas {
    /// Pairs remembered; with more everything is forgotten and learned again.
    const LIMIT: usize = 10_000;

    pub(super) fn knows(&self, user: &Arc<str>, schema: &[u8]) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&(Arc::clone(user), schema.into()))
    }

    pub(super) fn learn(&self, user: &Arc<str>, schema: &[u8]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::LIMIT {
            known.clear();
        }
        known.insert((Arc::clone(user), schema.into()));
    }
}
