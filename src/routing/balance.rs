//! Which of several equal replicas.

use std::time::Duration;

use crate::config::Balance;

/// A replica to choose from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// What tells it from the others, for as long as it is configured.
    pub id: u16,
    /// Its share relative to the others; 0 counts as 1.
    pub weight: u32,
    /// What it has to do, and how it has been doing that.
    pub load: Load,
    /// For how long it has been a candidate.
    pub age: Duration,
}

/// What a server has to do for one worker, and how it has been doing that.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Statements in flight on it now.
    pub in_flight: usize,
    /// How it answers, see [`Pace`].
    pub pace: Pace,
    /// Since when it has not answered anything.
    pub rest: Duration,
}

/// How fast a server usually answers.
///
/// The mean of logarithms: one statement that takes long says little, all that take three times as long say all.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    /// Binary logarithm of microseconds; 0 as long as nothing is known.
    log: f32,
}

impl Pace {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { log: 0.0 };
    /// The share that one answer has in the mean.
    const WEIGHT: f32 = 1.0 / 16.0;
    /// An answer that did not come counts as if the server had become slower by these doublings.
    const FAILURE: f32 = 3.0;
    /// A millisecond, where nothing else is known.
    const USUAL: f32 = 10.0;
    /// A minute.
    const SLOWEST: f32 = 26.0;

    /// As it is after an answer that began after this time.
    #[must_use]
    pub fn answered(self, time: Duration) -> Self {
        let micros = time.as_micros().clamp(1, 60_000_000) as f32;
        let log = match self.log {
            0.0 => micros.log2(),
            before => before + (micros.log2() - before) * Self::WEIGHT,
        };
        Self { log: log.max(0.01) }
    }

    /// As it is after an answer that did not come.
    #[must_use]
    pub fn failed(self) -> Self {
        let before = match self.log {
            0.0 => Self::USUAL,
            log => log,
        };
        let log = (before + Self::FAILURE).min(Self::SLOWEST);
        Self { log }
    }

    /// For those who have to keep it as a number.
    pub fn to_bits(self) -> u32 {
        self.log.to_bits()
    }

    /// The same as it was kept.
    pub fn from_bits(bits: u32) -> Self {
        let log = f32::from_bits(bits);
        Self {
            log: if log.is_finite() { log } else { 0.0 },
        }
    }
}

/// Shares are counted in these parts of a weight.
const PARTS: f32 = 1024.0;

/// A slow server keeps at least this part of its share, so that it is seen when it has become faster.
const LEAST: f32 = 1.0 / 64.0;

/// Differences up to this many doublings are none.
const NOISE: f32 = 0.5;

/// What is known of a server's pace counts half after this many seconds without an answer.
const HALF_LIFE: f32 = 5.0;

impl Candidate {
    fn weight(self) -> u64 {
        u64::from(self.weight.max(1))
    }

    /// Its share by weight, by age if it has not been there for long, and by its pace next to the fastest's.
    fn share(self, fastest: Option<f32>, slow_start: Duration) -> u64 {
        let mut part = 1.0;
        if self.age < slow_start {
            part = (self.age.as_secs_f32() / slow_start.as_secs_f32()).max(0.1);
        }
        if let Some(fastest) = fastest {
            let faded = (-self.load.rest.as_secs_f32() / HALF_LIFE).exp2();
            let behind = (self.load.pace.log - fastest - NOISE).max(0.0) * faded;
            part *= (-behind).exp2().max(LEAST);
        }
        let share = self.weight() as f32 * PARTS * part;
        (share as u64).max(1)
    }
}

/// How one of several is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn {
    /// By what.
    pub balance: Balance,
    /// A replica that has just come gets its share bit by bit for so long.
    pub slow_start: Duration,
    /// A counter: the round robin's place, and the source of chance.
    pub count: u64,
    /// Who asks, for those who stay with one.
    pub session: u32,
}

/// The index of the chosen candidate; `None` only if there are none.
///
/// The same arguments give the same answer. The freest of all is not sought: many callers that know the
/// same counts would all choose it at once, so two are drawn by their shares and the freer one is taken.
pub fn pick(candidates: &[Candidate], turn: &Turn) -> Option<usize> {
    if candidates.len() < 2 {
        return candidates.first().map(|_| 0);
    }
    let by_weight = |candidate: &Candidate| candidate.weight();
    match turn.balance {
        Balance::RoundRobin => {
            let total: u64 = candidates.iter().map(by_weight).sum();
            at(candidates, by_weight, turn.count % total)
        }
        Balance::Random => {
            let total: u64 = candidates.iter().map(by_weight).sum();
            at(candidates, by_weight, mixed(turn.count) % total)
        }
        Balance::Sticky => own(candidates, turn.session),
        Balance::LeastConnections => freer_of_two(candidates, turn.count, |candidate| {
            candidate.share(None, turn.slow_start)
        }),
        Balance::Latency => {
            let known = candidates.iter().map(|candidate| candidate.load.pace.log);
            let fastest = known.filter(|log| *log > 0.0).reduce(f32::min);
            freer_of_two(candidates, turn.count, |candidate| {
                candidate.share(fastest, turn.slow_start)
            })
        }
    }
}

fn freer_of_two(
    candidates: &[Candidate],
    count: u64,
    share: impl Fn(&Candidate) -> u64,
) -> Option<usize> {
    let chance = mixed(count);
    let total: u64 = candidates.iter().map(&share).sum();
    let first = at(candidates, &share, chance % total)?;
    let one = candidates.get(first)?;
    // Drawn from the others: never the same twice.
    let rest = total - share(one);
    let mut place = (chance >> 32) % rest;
    if place >= candidates.iter().take(first).map(&share).sum() {
        place += share(one);
    }
    let second = at(candidates, &share, place)?;
    let other = candidates.get(second)?;
    let load = |of: &Candidate, against: &Candidate| {
        u128::from(of.load.in_flight as u64) * u128::from(share(against))
    };
    let is_freer = load(other, one) < load(one, other);
    Some(if is_freer { second } else { first })
}

/// The one that a session stays with, by weight; while others come and go, few sessions change theirs.
fn own(candidates: &[Candidate], session: u32) -> Option<usize> {
    // Weighted rendezvous hashing: the shortest of waiting times drawn by weight.
    let wait = |candidate: &Candidate| {
        let drawn = mixed(u64::from(session) << 16 | u64::from(candidate.id)) >> 11;
        let uniform = (drawn as f64 + 1.0) / (1_u64 << 53) as f64;
        -uniform.ln() / candidate.weight() as f64
    };
    let waits = candidates.iter().map(wait).enumerate();
    waits
        .min_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(index, _)| index)
}

/// The candidate at this place of all shares laid end to end.
fn at(
    candidates: &[Candidate],
    share: impl Fn(&Candidate) -> u64,
    mut place: u64,
) -> Option<usize> {
    candidates.iter().position(|candidate| {
        let share = share(candidate);
        let here = place < share;
        place = place.saturating_sub(share);
        here
    })
}

/// A counter made to look like chance (the finisher of SplitMix64).
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    const OLD: Duration = Duration::from_secs(3600);

    fn candidates(of: &[(usize, u32)]) -> Vec<Candidate> {
        (0..)
            .zip(of)
            .map(|(id, &(in_flight, weight))| Candidate {
                id,
                weight,
                load: Load {
                    in_flight,
                    ..Load::default()
                },
                age: OLD,
            })
            .collect()
    }

    fn shares_of(balance: Balance, candidates: &[Candidate], draws: u64) -> Vec<u64> {
        let mut shares = vec![0; candidates.len()];
        for count in 0..draws {
            let turn = Turn {
                balance,
                slow_start: Duration::from_secs(10),
                count,
                session: count as u32,
            };
            shares[pick(candidates, &turn).unwrap()] += 1;
        }
        shares
    }

    fn shares(balance: Balance, of: &[(usize, u32)], draws: u64) -> Vec<u64> {
        shares_of(balance, &candidates(of), draws)
    }

    const ALL: [Balance; 5] = [
        Balance::Latency,
        Balance::LeastConnections,
        Balance::RoundRobin,
        Balance::Random,
        Balance::Sticky,
    ];

    #[test]
    fn nobody_and_one() {
        for balance in ALL {
            assert_eq!(shares(balance, &[(9, 0)], 7), [7]);
            let turn = Turn {
                balance,
                slow_start: OLD,
                count: 7,
                session: 7,
            };
            assert_eq!(pick(&[], &turn), None);
        }
    }

    #[test]
    fn round_robin_follows_the_weights_exactly() {
        assert_eq!(shares(Balance::RoundRobin, &[(0, 1), (9, 4)], 50), [10, 40]);
        assert_eq!(
            shares(Balance::RoundRobin, &[(0, 0), (0, 1), (0, 1)], 30),
            [10, 10, 10]
        );
    }

    #[test]
    fn chance_and_sessions_follow_the_weights_roughly() {
        for balance in [Balance::Random, Balance::Sticky] {
            let shares = shares(balance, &[(0, 1), (0, 3)], 10_000);
            assert!(
                (2_200..2_800).contains(&shares[0]),
                "{balance:?} {shares:?}"
            );
        }
    }

    #[test]
    fn idle_replicas_share_by_weight_and_busy_ones_are_spared() {
        for balance in [Balance::LeastConnections, Balance::Latency] {
            let idle = shares(balance, &[(0, 1), (0, 1), (0, 2)], 10_000);
            assert!(
                idle[0] > 1_500 && idle[1] > 1_500 && idle[2] > 4_000,
                "{idle:?}"
            );
            assert_eq!(shares(balance, &[(3, 1), (2, 1)], 100), [0, 100]);
            // Twice the weight carries twice as much.
            assert_eq!(shares(balance, &[(3, 2), (2, 1)], 100), [100, 0]);
            let busy = shares(balance, &[(50, 1), (0, 1), (0, 1)], 1_000);
            assert_eq!(busy[0], 0);
        }
    }

    #[test]
    fn a_session_stays_with_its_replica_while_others_come_and_go() {
        let all = candidates(&[(0, 1), (0, 1), (0, 1)]);
        let place = |candidates: &[Candidate], session| {
            let turn = Turn {
                balance: Balance::Sticky,
                slow_start: OLD,
                count: 1,
                session,
            };
            candidates[pick(candidates, &turn).unwrap()].id
        };
        for session in 0..1000 {
            let with_all = place(&all, session);
            let without = place(&all[1..], session);
            assert!(with_all == 0 || without == with_all);
        }
    }

    fn paced(micros: &[u64]) -> Vec<Candidate> {
        let mut candidates = candidates(&vec![(0, 1); micros.len()]);
        for (candidate, micros) in candidates.iter_mut().zip(micros) {
            for _ in 0..100 {
                let time = Duration::from_micros(*micros);
                candidate.load.pace = candidate.load.pace.answered(time);
            }
        }
        candidates
    }

    #[test]
    fn who_answers_slowly_gets_less_and_never_nothing() {
        let shares = |micros: &[u64]| shares_of(Balance::Latency, &paced(micros), 10_000);
        let like = shares(&[200, 250]);
        assert!(like[0] > 4_500 && like[1] > 4_500, "{like:?}");
        let slow = shares(&[200, 1_600]);
        assert!((1_000..2_500).contains(&slow[1]), "{slow:?}");
        let hanging = shares(&[200, 5_000_000]);
        assert!((50..300).contains(&hanging[1]), "{hanging:?}");
        // It makes no difference to those who did not ask for it.
        let even = shares_of(Balance::LeastConnections, &paced(&[200, 5_000_000]), 10_000);
        assert!(even[1] > 4_500, "{even:?}");
    }

    #[test]
    fn one_long_statement_says_little_and_a_failure_much() {
        let mut candidates = paced(&[200, 200]);
        let pace = candidates[1].load.pace;
        candidates[1].load.pace = pace.answered(Duration::from_secs(10));
        let after_report = shares_of(Balance::Latency, &candidates, 10_000);
        assert!(after_report[1] > 3_500, "{after_report:?}");
        let mut unknown = paced(&[200, 200]);
        unknown[1].load.pace = Pace::UNKNOWN.failed();
        let after_failure = shares_of(Balance::Latency, &unknown, 10_000);
        assert!(after_failure[1] < 2_000, "{after_failure:?}");
        candidates[1].load.pace = pace.failed();
        let after_failure = shares_of(Balance::Latency, &candidates, 10_000);
        assert!(after_failure[1] < 2_000, "{after_failure:?}");
        // And less so the longer ago it is.
        candidates[1].load.rest = Duration::from_secs(20);
        let later = shares_of(Balance::Latency, &candidates, 10_000);
        assert!(later[1] > 4_000, "{later:?}");
        for _ in 0..1000 {
            candidates[1].load.pace = candidates[1].load.pace.failed();
        }
        for _ in 0..100 {
            let pace = candidates[1].load.pace;
            candidates[1].load.pace = pace.answered(Duration::from_micros(200));
        }
        candidates[1].load.rest = Duration::ZERO;
        let well_again = shares_of(Balance::Latency, &candidates, 10_000);
        assert!(well_again[1] > 4_500, "{well_again:?}");
    }

    #[test]
    fn who_has_just_come_gets_its_share_bit_by_bit() {
        for balance in [Balance::LeastConnections, Balance::Latency] {
            let mut before = 0;
            for (age, least, most) in [(0, 500, 1_300), (5, 2_500, 4_000), (10, 4_500, 5_500)] {
                let mut candidates = candidates(&[(0, 1), (0, 1)]);
                candidates[1].age = Duration::from_secs(age);
                let shares = shares_of(balance, &candidates, 10_000);
                assert!((least..most).contains(&shares[1]), "{age}: {shares:?}");
                assert!(shares[1] > before);
                before = shares[1];
            }
        }
    }

    #[test]
    fn a_pace_survives_as_a_number() {
        let pace = Pace::default().answered(Duration::from_millis(3));
        assert_eq!(Pace::from_bits(pace.to_bits()), pace);
        assert_eq!(Pace::from_bits(f32::NAN.to_bits()), Pace::default());
        assert_eq!(Pace::from_bits(0), Pace::default());
    }
}
