//! Changes of accounts by statements of sessions, after which older readings of the accounts do not count.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Asks for the accounts to be read again, and knows when sessions changed them.
#[derive(Debug)]
pub struct AccountChanges {
    nudge: Arc<Notify>,
    last: Mutex<Option<Instant>>,
}

/// After this long they have been read again, or cannot be: logins do not wait any more.
const RECENT: Duration = Duration::from_secs(3);

impl AccountChanges {
    /// `nudge` asks for a reading.
    pub fn new(nudge: Arc<Notify>) -> Self {
        Self {
            nudge,
            last: Mutex::new(None),
        }
    }

    /// Asks for a reading at once.
    pub(super) fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// A statement has changed them, perhaps.
    pub(super) fn note(&self, now: Instant) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (*last).max(Some(now));
        self.nudge();
    }

    /// When they were last changed, if that is not long ago.
    pub(super) fn recent(&self, now: Instant) -> Option<Instant> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|&last| now.saturating_duration_since(last) < RECENT)
    }
}

/// Whether a statement that ends with this error has changed no account. With other errors it may have changed some of
/// those that it names.
pub(super) fn changes_nothing(code: u16) -> bool {
    matches!(
        code,
        // No right to it.
        1044 | 1045 | 1131 | 1132 | 1142 | 1143 | 1227 | 1370 | 1410 | 1698 | 1820
        // Not understood.
        | 1064 | 1149
        // The server is read-only.
        | 1290 | 1836
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_have_changed_something_is_waited_for() {
        for refused in [1044, 1064, 1142, 1227, 1410] {
            assert!(changes_nothing(refused), "{refused}");
        }
        // DROP USER drops those that there are.
        assert!(!changes_nothing(1396));
    }

    #[test]
    fn changes_are_recent_for_a_while() {
        let changes = AccountChanges::new(Arc::default());
        let start = Instant::now();
        assert_eq!(changes.recent(start), None);
        let later = start + Duration::from_secs(1);
        changes.note(later);
        changes.note(start);
        assert_eq!(changes.recent(later), Some(later));
        assert_eq!(changes.recent(later + RECENT), None);
    }
}
