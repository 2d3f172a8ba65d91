//! Session states that a server is known to accept.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use super::state::SessionState;

/// The states that a server took on without an error since it was last connected to anew.
///
/// What was accepted once is accepted again, but for the schema: that can be dropped. User variables with known values are
/// always taken.
#[derive(Debug, Default)]
pub struct Accepted {
    fingerprints: Mutex<HashSet<u64>>,
}

impl Accepted {
    /// States remembered; with more everything is forgotten and learned again.
    const LIMIT: usize = 4096;

    pub(super) fn contains(&self, state: &SessionState) -> bool {
        let fingerprints = self
            .fingerprints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        fingerprints.contains(&state.settings_fingerprint())
    }

    pub(super) fn add(&self, state: &SessionState) {
        let mut fingerprints = self
            .fingerprints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if fingerprints.len() >= Self::LIMIT {
            fingerprints.clear();
        }
        fingerprints.insert(state.settings_fingerprint());
    }

    /// Forgets everything: the server may be another one now.
    pub fn clear(&self) {
        self.fingerprints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
