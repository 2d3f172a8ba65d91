//! Schemas that accounts were able to use, so that a login need not ask a server each time.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::accounts::AccountKey;

/// An account and a schema.
type Grant = (AccountKey, Box<[u8]>);

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

    pub(super) fn knows(&self, account: &AccountKey, schema: &[u8]) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&(account.clone(), schema.into()))
    }

    pub(super) fn learn(&self, account: &AccountKey, schema: &[u8]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::LIMIT {
            known.clear();
        }
        known.insert((account.clone(), schema.into()));
    }
}
