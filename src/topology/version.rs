//! A server's family and version number.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use dbproxy_proto::capability::Capabilities;

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

    /// As the server says it in its greeting. MariaDB before 11 pretends to be a MySQL 5.5.5 to old replicas:
    /// <https://jira.mariadb.org/browse/MDEV-28910>.
    pub fn greeting(&self) -> Cow<'_, str> {
        if self.flavor == Flavor::MariaDb && self.major < 11 {
            Cow::Owned(format!("5.5.5-{}", self.text))
        } else {
            Cow::Borrowed(&self.text)
        }
    }

    /// The number that executable comments compare with: 80408 for 8.4.8, 101119 for 10.11.19.
    pub fn number(&self) -> u32 {
        u32::from(self.major) * 10_000 + u32::from(self.minor) * 100 + u32::from(self.patch)
    }
}

/// What servers have learned since the oldest that are supported, and since when.
///
/// Sources: <https://dev.mysql.com/doc/relnotes/mysql/8.0/en/>, <https://mariadb.com/kb/en/connection/#capabilities>.
const EXTENSIONS: [(Flavor, u32, Capabilities); 7] = [
    (
        Flavor::MySql,
        80003,
        Capabilities::OPTIONAL_RESULTSET_METADATA,
    ),
    (Flavor::MySql, 80023, Capabilities::QUERY_ATTRIBUTES),
    (Flavor::MariaDb, 100_200, Capabilities::PROGRESS),
    (Flavor::MariaDb, 100_200, Capabilities::STMT_BULK_OPERATIONS),
    (Flavor::MariaDb, 100_502, Capabilities::EXTENDED_METADATA),
    (Flavor::MariaDb, 100_600, Capabilities::CACHE_METADATA),
    (Flavor::MariaDb, 110_501, Capabilities::BULK_UNIT_RESULTS),
];

impl Version {
    /// The capabilities that servers of this version have and others do not.
    pub fn extensions(&self) -> Capabilities {
        EXTENSIONS
            .iter()
            .filter(|(flavor, since, _)| *flavor == self.flavor && *since <= self.number())
            .fold(Capabilities::empty(), |all, (.., capability)| {
                all | *capability
            })
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
    fn extensions_come_with_versions() {
        let has = |text, capability| {
            Version::parse(text)
                .unwrap()
                .extensions()
                .contains(capability)
        };
        assert!(!has("8.0.22", Capabilities::QUERY_ATTRIBUTES));
        assert!(has("8.0.23-log", Capabilities::QUERY_ATTRIBUTES));
        assert!(!has("10.5.1-MariaDB", Capabilities::EXTENDED_METADATA));
        assert!(has("10.11.6-MariaDB", Capabilities::CACHE_METADATA));
        assert!(!has("10.11.6-MariaDB", Capabilities::BULK_UNIT_RESULTS));
        assert!(!has("9.1.0", Capabilities::STMT_BULK_OPERATIONS));
    }

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
        for (text, greeting) in [
            ("10.11.14-MariaDB-log", "5.5.5-10.11.14-MariaDB-log"),
            ("11.4.2-MariaDB", "11.4.2-MariaDB"),
            ("9.7.4", "9.7.4"),
        ] {
            assert_eq!(Version::parse(text).unwrap().greeting(), greeting);
        }
        for text in ["", "x", "8", "8.x", "99999999.1"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
