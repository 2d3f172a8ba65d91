//! Names with `*` in them.

use std::fmt;

/// A name, in which `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob(String);

impl Glob {
    /// Reads one.
    ///
    /// # Errors
    /// An empty one.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty; \"*\" is any name".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether a name fits, whatever the case of its ASCII letters.
    ///
    /// Linear in the name's length times the number of stars.
    pub fn fits(&self, name: &[u8]) -> bool {
        let mut parts = self.0.as_bytes().split(|byte| *byte == b'*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = strip_prefix(name, first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            let found = (0..=rest.len()).find_map(|at| strip_prefix(rest.get(at..)?, part));
            match found {
                Some(after) => rest = after,
                None => return false,
            }
        }
        let tail = rest.len().checked_sub(last.len());
        tail.and_then(|at| rest.get(at..))
            .is_some_and(|tail| tail.eq_ignore_ascii_case(last))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn strip_prefix<'n>(name: &'n [u8], prefix: &[u8]) -> Option<&'n [u8]> {
    let (front, rest) = name.split_at_checked(prefix.len())?;
    front.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (glob, fitting, others) in [
            ("app", &["app", "APP"][..], &["ap", "appx", "xapp", ""][..]),
            ("*", &["", "x", "x.y"], &[]),
            ("app*", &["app", "apple"], &["ap", "xapp"]),
            ("*.log", &["a.log", ".log", "a.b.log"], &["log", "a.logs"]),
            ("a*b*c", &["abc", "a-b-c", "abbc"], &["acb", "ab", "ac"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("**", &["", "x"], &[]),
        ] {
            let glob = Glob::parse(glob).unwrap();
            for name in fitting {
                assert!(glob.fits(name.as_bytes()), "{glob} {name}");
            }
            for name in others {
                assert!(!glob.fits(name.as_bytes()), "{glob} {name}");
            }
        }
        assert!(Glob::parse("").is_err());
    }
}
