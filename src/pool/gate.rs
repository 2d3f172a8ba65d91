//! How many connections to one server may be opened at once, and when none at all.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Answer;

/// Where connections to one server begin.
///
/// Two of its states matter: it is open, and each connection that succeeds lets one more begin beside the others, from
/// [`FIRST`] on; or it is shut after failures, and after a pause that grows a single one tries. What is asked of a server
/// that has just come back grows with what it has shown itself able to take.
#[derive(Debug)]
pub(super) struct Gate {
    width: usize,
    opening: usize,
    /// In a row, and when the first of them was seen.
    failures: u32,
    since: Option<Instant>,
    shut: Option<Shut>,
}

/// Why no connection may begin.
#[derive(Debug, Clone)]
pub(super) struct Shut {
    pub(super) until: Instant,
    pub(super) why: Why,
    pause: Duration,
    /// One tries.
    trial: bool,
}

/// The last failure.
#[derive(Debug, Clone)]
pub(super) enum Why {
    /// There was no answer that a server gives.
    Absent(String),
    /// The server refused whoever it would have been.
    Refused(Answer),
}

/// What the gate says to one more connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// It may begin, and its end must be told.
    Now(Pass),
    /// When others have ended.
    Later,
    /// It is shut.
    Shut,
}

/// A connection that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    trial: bool,
}

/// Connections that may be opened at once towards a server of which nothing is known.
pub(super) const FIRST: usize = 4;

/// Failures in a row that shut the gate.
const FAILURES: u32 = 3;

/// How long it is shut, the first time and at most.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);

/// ER_CON_COUNT_ERROR
pub(super) const FULL: u16 = 1040;

impl Why {
    /// The server is there, and has all the connections that it takes.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Refused(answer) if answer.code == FULL)
    }

    pub(super) fn words(&self) -> &str {
        match self {
            Self::Absent(words) => words,
            Self::Refused(answer) => &answer.message,
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            width: FIRST,
            opening: 0,
            failures: 0,
            since: None,
            shut: None,
        }
    }
}

impl Gate {
    /// Whether a connection may begin now.
    pub(super) fn pass(&mut self, now: Instant) -> Passage {
        if self.refusal(now).is_some() {
            return Passage::Shut;
        }
        if self.shut.is_none() && self.opening >= self.width {
            return Passage::Later;
        }
        self.opening += 1;
        let trial = self.shut.is_some();
        if let Some(shut) = &mut self.shut {
            shut.trial = true;
        }
        Passage::Now(Pass { trial })
    }

    /// Begins a connection in the place of one that works, whatever else is going on.
    pub(super) fn exchange(&mut self) -> Pass {
        self.opening += 1;
        Pass { trial: false }
    }

    /// Why nothing may begin, if so.
    pub(super) fn refusal(&self, now: Instant) -> Option<&Shut> {
        self.shut
            .as_ref()
            .filter(|shut| shut.trial || now < shut.until)
    }

    /// A connection has succeeded, or was refused for a reason of its account's: true if that opened the gate.
    pub(super) fn succeeded(&mut self, _: Pass) -> bool {
        self.opening -= 1;
        self.width = self.width.saturating_add(1);
        self.failures = 0;
        self.since = None;
        self.shut.take().is_some()
    }

    /// A connection has failed by the server's fault: the pause, if that shut the gate.
    pub(super) fn failed(&mut self, pass: Pass, why: Why, now: Instant) -> Option<Duration> {
        self.opening -= 1;
        self.width = FIRST;
        self.failures += 1;
        self.since.get_or_insert(now);
        let pause = match &self.shut {
            Some(shut) if pass.trial => (2 * shut.pause).min(LONGEST),
            // Others that had begun before.
            Some(_) => return None,
            // A server that says that it is full will not be less so for being asked again.
            None if self.failures < FAILURES && !why.is_full() => return None,
            None => PAUSE,
        };
        self.shut = Some(Shut {
            until: now + pause,
            why,
            pause,
            trial: false,
        });
        Some(pause)
    }

    /// Nobody waits any more for how a connection ends, or its end says nothing of the server.
    pub(super) fn abandoned(&mut self, pass: Pass) {
        self.opening -= 1;
        if let Some(shut) = self.shut.as_mut().filter(|_| pass.trial) {
            shut.trial = false;
        }
    }

    /// Nothing that was learned of the server holds any more, but for its failures.
    pub(super) fn narrow(&mut self) {
        self.width = FIRST;
    }

    /// The server is known to be back.
    pub(super) fn reopen(&mut self) {
        *self = Self {
            opening: self.opening,
            ..Self::default()
        };
    }

    /// Connections that are being opened.
    pub(super) fn opening(&self) -> usize {
        self.opening
    }

    /// How often connections failed in a row, and since when.
    pub(super) fn failures(&self) -> Option<(u32, Instant)> {
        Some((self.failures, self.since?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn absent() -> Why {
        Why::Absent("refused".into())
    }

    fn begin(gate: &mut Gate, now: Instant) -> Pass {
        match gate.pass(now) {
            Passage::Now(pass) => pass,
            other => panic!("{other:?}"),
        }
    }

    fn fail(gate: &mut Gate, now: Instant) -> Option<Duration> {
        let pass = begin(gate, now);
        gate.failed(pass, absent(), now)
    }

    #[test]
    fn each_success_lets_one_more_begin() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let mut under_way: Vec<_> = (0..FIRST).map(|_| begin(&mut gate, now)).collect();
        let mut at_once = Vec::new();
        for _ in 0..4 {
            assert_eq!(gate.pass(now), Passage::Later);
            at_once.push(under_way.len());
            for pass in std::mem::take(&mut under_way) {
                assert!(!gate.succeeded(pass));
            }
            while let Passage::Now(pass) = gate.pass(now) {
                under_way.push(pass);
            }
        }
        assert_eq!(at_once, [4, 8, 16, 32]);
        gate.narrow();
        assert_eq!(gate.pass(now), Passage::Later);
    }

    #[test]
    fn pauses_grow_while_single_trials_fail() {
        let (mut gate, mut now) = (Gate::default(), Instant::now());
        assert_eq!(fail(&mut gate, now), None);
        assert_eq!(fail(&mut gate, now), None);
        assert_eq!(fail(&mut gate, now), Some(PAUSE));
        assert_eq!(gate.failures().unwrap(), (3, now));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let until = gate.refusal(now).unwrap().until;
            assert_eq!(gate.pass(now), Passage::Shut);
            now = until;
            assert!(gate.refusal(now).is_none());
            let trial = begin(&mut gate, now);
            assert_eq!(gate.pass(now), Passage::Shut);
            pauses.push(gate.failed(trial, absent(), now).unwrap().as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
        now += LONGEST;
        let trial = begin(&mut gate, now);
        // Given up: the next one tries.
        gate.abandoned(trial);
        let trial = begin(&mut gate, now);
        assert!(gate.succeeded(trial));
        // As with a server that was never seen.
        assert_eq!(fail(&mut gate, now), None);
    }

    #[test]
    fn failures_of_what_had_begun_before_prolong_nothing() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let under_way: Vec<_> = (0..FIRST).map(|_| begin(&mut gate, now)).collect();
        let shut: Vec<_> = under_way
            .into_iter()
            .map(|pass| gate.failed(pass, absent(), now))
            .collect();
        assert_eq!(shut, [None, None, Some(PAUSE), None]);
        assert_eq!(gate.refusal(now).unwrap().until, now + PAUSE);
        gate.reopen();
        assert_eq!(
            (0..9).filter(|_| gate.pass(now) != Passage::Later).count(),
            FIRST
        );
    }

    #[test]
    fn a_full_server_shuts_it_at_once() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let pass = begin(&mut gate, now);
        let full = Why::Refused(Answer::new(FULL, b"08004", "Too many connections"));
        assert_eq!(gate.failed(pass, full, now), Some(PAUSE));
        assert!(gate.refusal(now).unwrap().why.is_full());
    }

    proptest! {
        /// Whatever happens: never more at once than the start and what has succeeded since, one alone while it is shut, and no
        /// pause without an end.
        #[test]
        fn a_gate_is_never_run_over(steps in proptest::collection::vec((0_u8..6, 0_u64..1_000), 1..300)) {
            let (mut gate, mut now) = (Gate::default(), Instant::now());
            let (mut under_way, mut bound) = (Vec::new(), FIRST);
            for (step, millis) in steps {
                now += Duration::from_millis(millis);
                let was_shut = gate.shut.is_some();
                match step {
                    0..=2 => if let Passage::Now(pass) = gate.pass(now) {
                        prop_assert!(under_way.len() < bound || was_shut);
                        prop_assert!(!was_shut || !under_way.iter().any(|other: &Pass| other.trial));
                        under_way.push(pass);
                    },
                    3 => if let Some(pass) = under_way.pop() {
                        gate.succeeded(pass);
                        bound += 1;
                    },
                    4 => if let Some(pass) = under_way.pop() {
                        gate.failed(pass, absent(), now);
                        bound = FIRST;
                    },
                    _ => if let Some(pass) = under_way.pop() {
                        gate.abandoned(pass);
                    },
                }
                prop_assert_eq!(gate.opening(), under_way.len());
                if let Some(shut) = gate.refusal(now) {
                    prop_assert!(shut.trial || shut.until <= now + LONGEST);
                }
            }
            for pass in under_way {
                gate.abandoned(pass);
            }
            prop_assert!(matches!(gate.pass(now + LONGEST), Passage::Now(_)));
        }
    }
}
