//! Hints that nobody understands: they have no effect, and somebody should know.

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Session, complaints::Matter};
use crate::sql;

impl Session {
    /// Counts such a hint, and tells the log of the session's first one, but not of each session of an account.
    #[cold]
    pub(super) fn note_unknown_hint(&mut self, text: &[u8]) {
        self.unknown_hints = self.unknown_hints.saturating_add(1);
        if self.unknown_hints > 1 {
            return;
        }
        let (session, account) = (self.handle().id(), &self.login.account);
        let hint = sql::hint_text(text, self.dialect).unwrap_or_default();
        let complaints = &self.context.complaints;
        if complaints.is_due(account, Matter::Hint, Instant::now()) {
            warn!(session, %account, hint, "a hint is not understood and has no effect");
        } else {
            debug!(session, %account, hint, "a hint is not understood and has no effect");
        }
    }
}
