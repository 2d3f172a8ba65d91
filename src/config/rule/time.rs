//! Times of day.

use std::fmt;

/// A time of day, in seconds of the day in UTC: from the first up to, but without, the second. It may go past midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeOfDay {
    from: u32,
    to: u32,
}

const DAY: u32 = 86_400;

impl TimeOfDay {
    /// Reads `HH:MM-HH:MM`, in UTC, or with what the clock there is ahead of it: `HH:MM-HH:MM+HH:MM`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is not a time of day: write \"22:00-06:00\" (in UTC), or \"22:00-06:00+01:00\" for a clock \
                 that is an hour ahead of it"
            )
        };
        let (from, rest) = text.split_once('-').ok_or_else(wrong)?;
        let (to, offset) = match rest.find(['+', '-']) {
            Some(at) => rest.split_at(at),
            None => (rest, "+00:00"),
        };
        let clock = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let number = |digits: &str, most: u32| {
                let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
                let number: u32 = digits.parse().ok().filter(|_| plain)?;
                (number <= most).then_some(number)
            };
            let seconds = number(hours, 24)? * 3_600 + number(minutes, 59)? * 60;
            (seconds <= DAY).then_some(seconds)
        };
        let (from, to) = (clock(from).ok_or_else(wrong)?, clock(to).ok_or_else(wrong)?);
        let ahead = offset.get(1..).and_then(clock).ok_or_else(wrong)?;
        if from % DAY == to % DAY && from == to {
            return Err(format!("\"{text}\" is no time at all"));
        }
        let utc = |seconds: u32| {
            let ahead = if offset.starts_with('+') {
                DAY - ahead % DAY
            } else {
                ahead
            };
            (seconds + ahead) % DAY
        };
        Ok(Self {
            from: utc(from),
            to: utc(to),
        })
    }

    /// Whether a second of the day, in UTC, belongs to it.
    pub fn contains(self, second: u32) -> bool {
        let second = second % DAY;
        if self.from < self.to {
            (self.from..self.to).contains(&second)
        } else {
            second >= self.from || second < self.to
        }
    }
}

/// In UTC.
impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = [self.from, self.to].map(|second| (second / 3_600, second / 60 % 60));
        write!(f, "{:02}:{:02}-{:02}:{:02}", from.0, from.1, to.0, to.1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_may_pass_midnight_and_have_a_zone() {
        let at = |text: &str, hour: u32, minute: u32| {
            TimeOfDay::parse(text)
                .unwrap()
                .contains(hour * 3_600 + minute * 60)
        };
        assert!(at("08:00-17:30", 8, 0) && at("08:00-17:30", 17, 29));
        assert!(!at("08:00-17:30", 17, 30) && !at("08:00-17:30", 7, 59));
        assert!(at("22:00-06:00", 23, 0) && at("22:00-06:00", 5, 59));
        assert!(!at("22:00-06:00", 6, 0) && !at("22:00-06:00", 21, 59));
        assert!(at("00:00-24:00", 0, 0) && at("00:00-24:00", 23, 59));
        assert!(at("22:00-06:00+01:00", 21, 0) && !at("22:00-06:00+01:00", 5, 0));
        assert!(at("00:00-01:00-05:30", 5, 30) && !at("00:00-01:00-05:30", 6, 30));
        let zoned = TimeOfDay::parse("22:00-06:30+01:00").unwrap();
        assert_eq!(zoned.to_string(), "21:00-05:30");
        for nonsense in [
            "",
            "8:00-9:00",
            "08:00",
            "25:00-26:00",
            "08:60-09:00",
            "08:00-08:00",
            "08:00-09:00+x",
            "08:00-09:00+",
            "08:00-09:00CET",
            "24:01-01:00",
        ] {
            assert!(TimeOfDay::parse(nonsense).is_err(), "{nonsense}");
        }
    }
}
