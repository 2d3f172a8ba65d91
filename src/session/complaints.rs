//! What the log is told of accounts, but not at each of their logins.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::accounts::AccountKey;

/// When each account was last complained of. Only accounts that there are come in here.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<HashMap<(AccountKey, Matter), Instant>>);

/// What is complained of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Matter {
    /// A hint that is not understood.
    Hint,
    /// That nobody can log in.
    Login,
}

/// The time between two complaints of one account.
const PAUSE: Duration = Duration::from_secs(60);

impl Complaints {
    /// Whether to complain of it now.
    pub(super) fn is_due(&self, account: &AccountKey, matter: Matter, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, last| now.saturating_duration_since(*last) < PAUSE);
        let key = (account.clone(), matter);
        if last.contains_key(&key) {
            return false;
        }
        last.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_complained_of_once_in_a_while() {
        let complaints = Complaints::default();
        let [one, two] = ["one", "two"].map(|user| AccountKey {
            user: user.into(),
            host: "%".into(),
        });
        let now = Instant::now();
        let is_due = |account, now| complaints.is_due(account, Matter::Login, now);
        assert!(is_due(&one, now));
        assert!(!is_due(&one, now));
        assert!(complaints.is_due(&one, Matter::Hint, now));
        assert!(is_due(&two, now));
        assert!(!is_due(&one, now + PAUSE / 2));
        assert!(is_due(&one, now + PAUSE));
    }
}
