//! Durations with a unit: `250ms`, `5s`, `2m`, `1h`; sizes with one: `64MiB`.

use std::time::Duration;

/// The units, longest first within a power, with their length in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration; a fraction is allowed (`1.5s`) down to a millisecond.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim();
    if unit.is_empty() && !number.is_empty() {
        return Err("a duration needs a unit: ms, s, m or h".to_owned());
    }
    let scale = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale);
    let (Some(scale), Ok(number)) = (scale, number.parse::<f64>()) else {
        return Err(format!(
            "\"{text}\" is not a duration: write a number and ms, s, m or h"
        ));
    };
    // A thousand years: far beyond use, and far from where an addition to an instant overflows.
    let millis = number * scale as f64;
    if millis > 3.2e13 {
        return Err(format!("\"{text}\" is too long"));
    }
    if millis > 0.0 && millis < 1.0 {
        return Err(format!("\"{text}\" is less than a millisecond"));
    }
    Ok(Duration::from_millis(millis.round() as u64))
}

/// The shortest text that [`parse`] reads back as the same duration, to the millisecond.
pub(super) fn show(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let (unit, scale) = UNITS
        .into_iter()
        .find(|(_, scale)| millis.is_multiple_of(*scale))
        .unwrap_or(("ms", 1));
    format!("{}{unit}", millis / scale)
}

/// The units of sizes.
const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads a size: a whole number and its unit.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let wrong = || format!("\"{text}\" is not a size: write a whole number and KiB, MiB or GiB");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let scale = SIZES.iter().find(|(name, _)| *name == unit.trim());
    let (_, scale) = scale.ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(*scale).ok_or_else(wrong)
}

/// The shortest text that [`parse_size`] reads back as the same size, which is a number of KiB.
pub(super) fn show_size(bytes: u64) -> String {
    let units = SIZES.iter();
    let fitting = units
        .clone()
        .find(|(_, scale)| bytes.is_multiple_of(*scale));
    let (unit, scale) = fitting
        .or_else(|| units.last())
        .copied()
        .unwrap_or(("KiB", 1 << 10));
    format!("{}{unit}", bytes / scale)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        for (text, bytes) in [
            ("1KiB", 1 << 10),
            ("64MiB", 64 << 20),
            ("2GiB", 2 << 30),
            ("1025KiB", 1025 << 10),
        ] {
            assert_eq!(parse_size(text), Ok(bytes));
            assert_eq!(show_size(bytes), text);
        }
        for text in [
            "",
            "5",
            "MiB",
            "5MB",
            "-1KiB",
            "1.5GiB",
            "99999999999999999999GiB",
            "17179869184GiB",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_and_shows_every_unit() {
        for (text, millis) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("90s", 90_000),
        ] {
            let duration = parse(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(parse(&show(duration)).unwrap(), duration, "{text}");
        }
        assert_eq!(parse("1.5s").unwrap(), Duration::from_millis(1_500));
        assert_eq!(parse(" 10 s ").unwrap(), Duration::from_secs(10));
        assert_eq!(show(Duration::from_secs(90)), "90s");
        assert_eq!(show(Duration::ZERO), "0s");
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "",
            "s",
            "5",
            "5 days",
            "5sec",
            "-5s",
            "1.2.3s",
            ".",
            "99999999999h",
            "0.1ms",
            "NaNs",
            "é5s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
