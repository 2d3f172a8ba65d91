//! When a read has taken so long that another replica is asked as well.

use std::time::Duration;

/// How long all but one in a hundred of a server's answers take to begin, estimated as they come.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tail {
    /// Binary logarithm of microseconds; 0 as long as nothing is known.
    log: f32,
}

impl Tail {
    const RANK: f32 = 0.99;
    /// Doublings by which one answer moves the estimate, shared between up and down by the rank.
    const STEP: f32 = 0.25;
    /// It begins this many doublings above the first answer: better too late than too often.
    const MARGIN: f32 = 3.0;
    /// Less is not worth a question.
    const LEAST: Duration = Duration::from_millis(1);

    /// As it is after an answer that began after this time.
    #[must_use]
    pub fn answered(self, time: Duration) -> Self {
        let micros = time.as_micros().clamp(1, 60_000_000) as f32;
        let seen = micros.log2();
        let log = match self.log {
            0.0 => seen + Self::MARGIN,
            before if seen > before => before + Self::STEP * Self::RANK,
            before => before - Self::STEP * (1.0 - Self::RANK),
        };
        Self { log: log.max(0.01) }
    }

    /// How long to wait before another one is asked; `None` as long as nothing is known.
    pub fn patience(self) -> Option<Duration> {
        let micros = f64::from(self.log).exp2();
        (self.log > 0.0).then(|| Duration::from_micros(micros as u64).max(Self::LEAST))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn it_finds_the_slowest_hundredth() {
        let mut tail = Tail::default();
        assert_eq!(tail.patience(), None);
        // One in fifty takes 80 ms: the hundredth is among them. One in a thousand: it is not.
        for (every, least, most) in [(50, 40, 200), (1000, 1, 8)] {
            for number in 1..200_000_u64 {
                let millis = if number % every == 0 { 80 } else { 2 };
                tail = tail.answered(Duration::from_millis(millis));
            }
            let millis = tail.patience().unwrap().as_millis();
            assert!((least..=most).contains(&millis), "{every}: {millis} ms");
        }
    }

    #[test]
    fn it_is_bounded_and_survives_as_a_number() {
        let mut tail = Tail::default();
        for _ in 0..10_000 {
            tail = tail.answered(Duration::ZERO);
        }
        assert_eq!(tail.patience(), Some(Duration::from_millis(1)));
        for _ in 0..10_000 {
            tail = tail.answered(Duration::MAX);
        }
        assert!(tail.patience().unwrap() < Duration::from_secs(120));
        assert_eq!(Tail::from_bits(tail.to_bits()), tail);
        assert_eq!(Tail::from_bits(f32::INFINITY.to_bits()).patience(), None);
    }
}
