//! A server's family and version number.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

/// Family of servers: decides syntax, names of variables and the form of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// MySQL and what keeps its version numbers (Percona Server).
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Display for Flavor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        })
    }
}

/// What a server says of itself in its greeting and in `@@version`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// The family.
    pub flavor: Flavor,
    /// First number.
    pub major: u16,
    /// Second number, at most 99.
    pub minor: u16,
    /// Third number, at most 99.
    pub patch: u16,
    /// As the server wrote it, without the `5.5.5-` that MariaDB before 11 puts in front in its greeting.
    pub text: Arc<str>,
}

impl Version {
    /// Reads `8.4.8`, `8.0.36-28`, `10.11.19-MariaDB-0+deb12u1` and the like; `None` if no `number.number` is in front.
    pub fn parse(text: &str) -> Option<Self> {
        let maria = text.to_ascii_lowercase().contains("mariadb");
        let text = match text.strip_prefix("5.5.5-") {
            Some(rest) if maria => rest,
            _ => text,
        };
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let mut numbers = text
            .get(..end)?
            .split('.')
            .map(|part| part.parse::<u16>().ok());
        let major = numbers.next()??;
        let minor = numbers.next()??.min(99);
        let patch = numbers.next().flatten().unwrap_or(0).min(99);
        let flavor = if maria {
            Flavor::MariaDb
        } else {
            Flavor::MySql
        };
        Some(Self {
            flavor,
            major,
            minor,
            patch,
            text: text.into(),
        })
    }

    /// The number that executable comments compare with: 80408 for 8.4.8, 101119 for 10.11.19.
    pub fn number(&self) -> u32 {
        u32::from(self.major) * 10_000 + u32::from(self.minor) * 100 + u32::from(self.patch)
    }
}

impl Display for Version {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flavor, self.text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reads_the_versions_in_the_wild() {
        for (text, flavor, number, kept) in [
            ("9.7.4", Flavor::MySql, 90704, "9.7.4"),
            ("8.0.36-28", Flavor::MySql, 80036, "8.0.36-28"),
            ("8.4.8-debug", Flavor::MySql, 80408, "8.4.8-debug"),
            (
                "10.11.19-MariaDB-0+deb12u1-log",
                Flavor::MariaDb,
                101_119,
                "10.11.19-MariaDB-0+deb12u1-log",
            ),
            (
                "5.5.5-10.5.8-MariaDB",
                Flavor::MariaDb,
                100_508,
                "10.5.8-MariaDB",
            ),
            ("12.0-mariadb", Flavor::MariaDb, 120_000, "12.0-mariadb"),
        ] {
            let version = Version::parse(text).unwrap();
            assert_eq!(
                (version.flavor, version.number(), &*version.text),
                (flavor, number, kept)
            );
        }
        for text in ["", "x", "8", "8.x", "99999999.1"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
