//! Stored functions and views: what statements of sessions change of them, and what that makes of other statements.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{Session, finish::is_system_schema};
use crate::{
    backend::SessionState,
    sql::{Cause, Facts, Kind, StatementClass, catalogue::Catalogue},
};

/// What is known of stored functions and views, and when sessions changed some of them.
#[derive(Debug)]
pub struct Definitions {
    catalogue: watch::Receiver<Arc<Catalogue>>,
    nudge: Arc<Notify>,
    begun: Instant,
    /// Nanoseconds from `begun` to the last change.
    changed: AtomicU64,
}

/// How long a read waits for what it may concern to be read again. The primary answers it then.
const PATIENCE: Duration = Duration::from_secs(1);

impl Definitions {
    /// `nudge` asks for a newer catalogue.
    pub fn new(catalogue: watch::Receiver<Arc<Catalogue>>, nudge: Arc<Notify>) -> Self {
        Self {
            catalogue,
            nudge,
            begun: Instant::now(),
            changed: AtomicU64::new(0),
        }
    }

    /// Notified whenever a newer catalogue is wanted.
    pub fn nudged(&self) -> Arc<Notify> {
        Arc::clone(&self.nudge)
    }

    /// A statement has changed some, perhaps: nothing that was asked for before counts any more.
    pub(super) fn note(&self, now: Instant) {
        self.changed.fetch_max(self.time(now), Ordering::AcqRel);
        self.nudge.notify_one();
    }

    /// What is known, if nothing has changed since.
    fn current(&self) -> Option<watch::Ref<'_, Arc<Catalogue>>> {
        let catalogue = self.catalogue.borrow();
        let asked_at = self.time(catalogue.asked_at()?);
        (asked_at > self.changed.load(Ordering::Acquire)).then_some(catalogue)
    }

    /// Whether a table of this name is surely no view.
    pub(super) fn is_no_view(&self, name: &[u8]) -> bool {
        self.catalogue.borrow().is_no_view(name)
    }

    /// What is known of all that had changed when this was asked; `None` if it is not read in time.
    async fn newer(&self) -> Option<Arc<Catalogue>> {
        let changed = self.changed.load(Ordering::Acquire);
        let mut catalogue = self.catalogue.clone();
        let newer = catalogue.wait_for(|catalogue| {
            let asked_at = catalogue.asked_at();
            asked_at.is_some_and(|at| self.time(at) > changed)
        });
        let newer = timeout(PATIENCE, newer).await.ok()?.ok()?;
        Some(Arc::clone(&newer))
    }

    fn time(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begun);
        // 0 is before everything.
        u64::try_from(since.as_nanos()).map_or(u64::MAX, |nanos| nanos.saturating_add(1))
    }
}

impl Session {
    /// What a statement is, given what is known of the functions and views that it names. `state`: where it runs.
    ///
    /// Waits for what has changed to be read, but not for long: the primary may be busy. Without one there is nothing newer
    /// to be known, and nobody else to answer.
    pub(super) async fn look_up(
        &self,
        class: StatementClass,
        text: &[u8],
        state: &SessionState,
    ) -> StatementClass {
        let looked_up = self.looked_up(class, text, state);
        if looked_up.cause != Cause::Definitions {
            return looked_up;
        }
        match Box::pin(self.context.definitions.newer()).await {
            Some(catalogue) => self.judged_by(&catalogue, class, text, state),
            None => looked_up,
        }
    }

    /// The same without waiting: what is being read again is said to be so.
    pub(super) fn looked_up(
        &self,
        class: StatementClass,
        text: &[u8],
        state: &SessionState,
    ) -> StatementClass {
        let concerned = match class.cause {
            Cause::None => class.kind != Kind::Show,
            Cause::UnknownFunction => true,
            _ => class.kind == Kind::Call,
        };
        if !concerned || state.schema().is_some_and(is_system_schema) {
            return class;
        }
        match self.context.definitions.current() {
            Some(catalogue) => self.judged_by(&catalogue, class, text, state),
            // What is bound to a connection stays there.
            None if class.kind != Kind::Call && !self.is_bound() && self.has_primary() => {
                StatementClass {
                    facts: class.facts | Facts::MAY_WRITE,
                    cause: Cause::Definitions,
                    ..class
                }
            }
            None => class,
        }
    }

    fn judged_by(
        &self,
        catalogue: &Catalogue,
        class: StatementClass,
        text: &[u8],
        state: &SessionState,
    ) -> StatementClass {
        if !catalogue.concerns(&class) {
            return class;
        }
        let dialect = self.dialect_of(state);
        catalogue.judge(class, text, dialect, state.schema(), Instant::now())
    }

    fn has_primary(&self) -> bool {
        self.context.topology.borrow().writable().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_does_not_count() {
        let (sender, catalogue) = watch::channel(Arc::new(Catalogue::unread()));
        let definitions = Definitions::new(catalogue, Arc::default());
        assert!(definitions.current().is_none());
        let read = |at| {
            let next = Catalogue::unread().confirmed(at);
            sender.send_replace(Arc::new(next));
        };
        let start = Instant::now();
        let second = Duration::from_secs(1);
        read(start);
        assert!(definitions.current().is_some());
        definitions.note(start + second);
        definitions.note(start);
        assert!(definitions.current().is_none());
        read(start + second);
        assert!(definitions.current().is_none());
        read(start + 2 * second);
        assert!(definitions.current().is_some());
    }
}
