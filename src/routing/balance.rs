//! Which of several equal replicas.

use crate::config::Balance;

/// A replica to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Statements in flight on it now.
    pub in_flight: usize,
    /// Its share relative to the others; 0 counts as 1.
    pub weight: u32,
}

impl Candidate {
    fn weight(self) -> u64 {
        u64::from(self.weight.max(1))
    }

    /// Whether it has less to do for its weight than another.
    fn is_freer_than(self, other: Self) -> bool {
        let load = |of: Self, against: Self| {
            u128::from(of.in_flight as u64) * u128::from(against.weight())
        };
        load(self, other) < load(other, self)
    }
}

/// The index of the chosen candidate; `None` only if there are none.
///
/// `seed` is a counter from the caller, the round robin's place and the source of chance. The same
/// arguments give the same answer. The freest of all is not sought: many callers that know the
/// same counts would all choose it at once, so two are drawn by weight and the freer one is taken.
pub fn pick(balance: Balance, candidates: &[Candidate], seed: u64) -> Option<usize> {
    if candidates.len() < 2 {
        return candidates.first().map(|_| 0);
    }
    let total: u64 = candidates.iter().map(|candidate| candidate.weight()).sum();
    match balance {
        Balance::RoundRobin => at(candidates, seed % total),
        Balance::Random => at(candidates, mixed(seed) % total),
        Balance::LeastConnections => {
            let chance = mixed(seed);
            let first = at(candidates, chance % total)?;
            let one = *candidates.get(first)?;
            // Drawn from the others: never the same twice.
            let rest = total - one.weight();
            let mut share = (chance >> 32) % rest;
            if share >= start_of(candidates, first) {
                share += one.weight();
            }
            let second = at(candidates, share)?;
            let other = *candidates.get(second)?;
            Some(if other.is_freer_than(one) {
                second
            } else {
                first
            })
        }
    }
}

/// The candidate at this place of all weights laid end to end.
fn at(candidates: &[Candidate], mut share: u64) -> Option<usize> {
    candidates.iter().position(|candidate| {
        let weight = candidate.weight();
        let here = share < weight;
        share = share.saturating_sub(weight);
        here
    })
}

fn start_of(candidates: &[Candidate], index: usize) -> u64 {
    candidates
        .iter()
        .take(index)
        .map(|candidate| candidate.weight())
        .sum()
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

    fn candidates(of: &[(usize, u32)]) -> Vec<Candidate> {
        of.iter()
            .map(|&(in_flight, weight)| Candidate { in_flight, weight })
            .collect()
    }

    fn shares(balance: Balance, of: &[(usize, u32)], draws: u64) -> Vec<u64> {
        let candidates = candidates(of);
        let mut shares = vec![0; of.len()];
        for seed in 0..draws {
            shares[pick(balance, &candidates, seed).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn nobody_and_one() {
        for balance in [
            Balance::LeastConnections,
            Balance::RoundRobin,
            Balance::Random,
        ] {
            assert_eq!(pick(balance, &[], 7), None);
            assert_eq!(pick(balance, &candidates(&[(9, 0)]), 7), Some(0));
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
    fn chance_follows_the_weights_roughly() {
        let shares = shares(Balance::Random, &[(0, 1), (0, 3)], 10_000);
        assert!((2_200..2_800).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn idle_replicas_share_by_weight_and_busy_ones_are_spared() {
        let idle = shares(Balance::LeastConnections, &[(0, 1), (0, 1), (0, 2)], 10_000);
        assert!(
            idle[0] > 1_500 && idle[1] > 1_500 && idle[2] > 4_000,
            "{idle:?}"
        );
        assert_eq!(
            shares(Balance::LeastConnections, &[(3, 1), (2, 1)], 100),
            [0, 100]
        );
        // Twice the weight carries twice as much.
        assert_eq!(
            shares(Balance::LeastConnections, &[(3, 2), (2, 1)], 100),
            [100, 0]
        );
        let busy = shares(Balance::LeastConnections, &[(50, 1), (0, 1), (0, 1)], 1_000);
        assert_eq!(busy[0], 0);
    }
}
