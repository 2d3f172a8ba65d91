//! Host patterns of accounts, matched and ordered as servers do.
//!
//! <https://dev.mysql.com/doc/refman/9.4/en/account-names.html>,
//! <https://dev.mysql.com/doc/refman/9.4/en/connection-access.html>,
//! <https://mariadb.com/docs/server/reference/sql-statements/account-management-sql-statements/create-user#host-name-component>

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::directory::{ClientAddress, Resolution};

/// Positions of a first wildcard count up to here when patterns are ordered (`get_sort`, sql/auth/sql_auth_cache.cc).
const LAST_PREFIX: u8 = 127;

/// The host part of an account's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostPattern {
    /// Addresses that agree with `address` in the bits of `mask`.
    Network {
        address: u128,
        mask: u128,
        v4: bool,
        notation: Notation,
    },
    /// A name or an address with `%` and `_`; matched without regard to case.
    Text(Box<[u8]>),
}

/// How a network is written; an address comes before CIDR, CIDR before a netmask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Notation {
    Address,
    Cidr,
    Netmask,
}

/// Order in which patterns are tried: ascending.
pub(super) type Specificity = (u8, Notation, Reverse<u128>, Reverse<u8>);

impl HostPattern {
    pub(super) fn parse(text: &str) -> Self {
        Self::network(text)
            .unwrap_or_else(|| Self::Text(text.to_ascii_lowercase().into_bytes().into()))
    }

    fn network(text: &str) -> Option<Self> {
        let (address, mask) = match text.split_once('/') {
            Some((address, mask)) => (address, Some(mask)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let v4 = address.is_ipv4();
        let width: u32 = if v4 { 32 } else { 128 };
        let ones = u128::MAX >> (128 - width);
        let (mask, notation) = match mask {
            None => (ones, Notation::Address),
            Some(mask) => match mask.parse::<u32>() {
                Ok(bits) if bits <= width => {
                    let host = ones.checked_shr(bits).unwrap_or(0);
                    (ones & !host, Notation::Cidr)
                }
                Ok(_) => return None,
                Err(_) => {
                    let mask: IpAddr = mask.parse().ok()?;
                    if mask.is_ipv4() != v4 {
                        return None;
                    }
                    (bits(mask), Notation::Netmask)
                }
            },
        };
        Some(Self::Network {
            address: bits(address),
            mask,
            v4,
            notation,
        })
    }

    pub(super) fn matches(&self, client: &ClientAddress, resolution: Resolution) -> bool {
        let ip = match client {
            ClientAddress::Unix => None,
            ClientAddress::Ip(ip) => Some(ip.to_canonical()),
        };
        match self {
            Self::Network {
                address, mask, v4, ..
            } => ip.is_some_and(|ip| ip.is_ipv4() == *v4 && bits(ip) & mask == address & mask),
            // An empty host part is any host. Most accounts have one of these: no address is written out for them.
            Self::Text(pattern) if matches!(**pattern, [] | [b'%']) => true,
            Self::Text(pattern) => {
                // The only addresses whose name it is: 127.0.0.2 has none.
                let local = ip.is_none_or(|ip| {
                    resolution == Resolution::On
                        && (ip == IpAddr::V4(Ipv4Addr::LOCALHOST)
                            || ip == IpAddr::V6(Ipv6Addr::LOCALHOST))
                });
                (local && like(pattern, b"localhost"))
                    || ip.is_some_and(|ip| like(pattern, ip.to_string().as_bytes()))
            }
        }
    }

    /// The most specific first.
    pub(super) fn specificity(&self) -> Specificity {
        match self {
            Self::Network { mask, notation, .. } => (0, *notation, Reverse(*mask), Reverse(0)),
            Self::Text(pattern) => {
                let prefix = pattern
                    .iter()
                    .position(|byte| matches!(byte, b'%' | b'_'))
                    .map(|at| u8::try_from(at + 1).map_or(LAST_PREFIX, |at| at.min(LAST_PREFIX)));
                let weight = match prefix {
                    Some(prefix) => prefix,
                    None if pattern.is_empty() => 0,
                    None => LAST_PREFIX + 1,
                };
                (1, Notation::Address, Reverse(0), Reverse(weight))
            }
        }
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// SQL's LIKE: `%` any bytes, `_` one byte, `\` takes the next literally. In time of the lengths' product at most.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match (pattern, text) {
            ([b'%', rest @ ..], _) => {
                retry = Some((rest, text));
                Some((rest, text))
            }
            ([], []) => return true,
            ([b'\\', wanted, rest @ ..], [byte, tail @ ..]) if wanted == byte => Some((rest, tail)),
            ([b'_', rest @ ..], [_, tail @ ..]) => Some((rest, tail)),
            ([wanted, rest @ ..], [byte, tail @ ..]) if wanted == byte && *wanted != b'\\' => {
                Some((rest, tail))
            }
            _ => None,
        };
        (pattern, text) = match (step, &mut retry) {
            (Some(next), _) => next,
            (None, Some((rest, tail))) => {
                // Let the last % take one byte more.
                let Some((_, shorter)) = tail.split_first() else {
                    return false;
                };
                *tail = shorter;
                (*rest, shorter)
            }
            (None, None) => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn client(text: &str) -> ClientAddress {
        match text {
            "unix" => ClientAddress::Unix,
            ip => ClientAddress::Ip(ip.parse().unwrap()),
        }
    }

    #[test]
    fn patterns_match_as_on_the_server() {
        for (pattern, address, matches) in [
            ("%", "10.1.2.3", true),
            ("%", "unix", true),
            ("", "unix", true),
            ("localhost", "unix", true),
            ("LocalHost", "unix", true),
            ("localhost", "127.0.0.1", true),
            ("localhost", "::1", true),
            ("localhost", "10.1.2.3", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("127.0.0.1", "unix", false),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.%", "10.1.2.3", true),
            ("10.1.%", "10.11.2.3", false),
            ("10.1.2._", "10.1.2.3", true),
            ("10.1.2._", "10.1.2.33", false),
            ("%.3", "10.1.2.3", true),
            ("1%.%3", "10.1.2.3", true),
            ("192.168.1.0/255.255.255.0", "192.168.1.77", true),
            ("192.168.1.0/255.255.255.0", "192.168.2.77", false),
            ("10.0.0.0/8", "10.200.1.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "11.0.0.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::1", "::1", true),
            ("2001:db8::/32", "2001:db8:5::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("2001:db8:%", "2001:db8::7", true),
            ("fe80::1", "unix", false),
            ("10.0.0.0/33", "10.0.0.0", false),
            ("db1.example.com", "10.1.2.3", false),
        ] {
            let found = HostPattern::parse(pattern).matches(&client(address), Resolution::On);
            assert_eq!(found, matches, "{pattern} {address}");
        }
    }

    #[test]
    fn specific_patterns_come_first() {
        let mut patterns = [
            "",
            "%",
            "10.%",
            "10.1.%",
            "localhost",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.3",
        ];
        patterns.sort_by_key(|pattern| HostPattern::parse(pattern).specificity());
        assert_eq!(
            patterns,
            [
                "10.1.2.3",
                "10.1.0.0/16",
                "10.0.0.0/8",
                "10.0.0.0/255.0.0.0",
                "localhost",
                "10.1.%",
                "10.%",
                "%",
                ""
            ]
        );
    }

    #[test]
    fn like_handles_escapes_and_repeats() {
        for (pattern, text, matches) in [
            ("a\\_b", "a_b", true),
            ("a\\_b", "axb", false),
            ("%%%", "", true),
            ("%a%b", "xaxbxab", true),
            ("%a%b", "xaxbxac", false),
            ("a\\", "a\\", false),
            ("_%", "", false),
        ] {
            assert_eq!(
                like(pattern.as_bytes(), text.as_bytes()),
                matches,
                "{pattern} {text}"
            );
        }
        let many = "%a".repeat(60) + "b";
        assert!(!like(many.as_bytes(), "a".repeat(2000).as_bytes()));
    }
}
