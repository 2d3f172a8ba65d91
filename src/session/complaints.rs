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
pub struct Complaints(Mutex<HashMap<AccountKey, Instant>>);

/// The time between two complaints of one account.
const PAUSE: Duration = Duration::from_secs(60);

impl Complaints {
    /// Whether to complain of it now.
    pub(super) fn is_due(&self, account: &AccountKey, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, last| now.saturating_duration_since(*last) < PAUSE);
        if last.contains_key(account) {
            return false;
        }
        last.insert(account.clone(), now);
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
        assert!(complaints.is_due(&one, now));
        assert!(!complaints.is_due(&one, now));
        assert!(complaints.is_due(&two, now));
        assert!(!complaints.is_due(&one, now + PAUSE / 2));
        assert!(complaints.is_due(&one, now + PAUSE));
    }
}
