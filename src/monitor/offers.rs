//! Whether a server offers what the configuration wants of connections to it. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use super::inspect::{Finding, error_finding, good, warning};
use crate::config::{Network, ServerCompression};
use crate::topology::Flavor;

/// Whether the server can compress its connections as they shall be.
pub(super) fn compression(
    flavor: Flavor,
    variables: &HashMap<String, String>,
    wanted: ServerCompression,
) -> Option<Finding> {
    let wanted = match wanted {
        ServerCompression::Off => return None,
        ServerCompression::Zlib => "zlib",
        ServerCompression::Zstd => "zstd",
    };
    let offered = match flavor {
        Flavor::MariaDb => "zlib",
        Flavor::MySql => variables.get("protocol_compression_algorithms")?,
    };
    let mut offers = offered.split(',').map(str::trim);
    (!offers.any(|offer| offer.eq_ignore_ascii_case(wanted))).then(|| {
        warning(format!(
            "compression is \"{wanted}\", which the server does not offer ({offered}): its connections are not \
             compressed; correct cluster.compression or cluster.server[].compression"
        ))
    })
}

/// Whether the server lets itself be told by `host` where clients are.
pub(super) fn proxy_protocol(
    flavor: Flavor,
    variables: &HashMap<String, String>,
    host: &str,
) -> Finding {
    let networks = variables.get("proxy_protocol_networks");
    let keys = "cluster.proxy_protocol (or cluster.server[].proxy_protocol)";
    match (flavor, networks.map(|networks| networks.trim())) {
        (_, None) => error_finding(format!(
            "the server does not know the PROXY protocol, and refuses all clients: set {keys} = \"off\""
        )),
        (Flavor::MySql, Some(_)) => error_finding(format!(
            "where this server takes a PROXY header it demands one of the monitor too, which has none: \
             set {keys} = \"off\""
        )),
        (Flavor::MariaDb, Some("")) => error_finding(format!(
            "proxy_protocol_networks is empty, and the server refuses all clients: list dbproxy's address there, or \
             set {keys} = \"off\""
        )),
        (Flavor::MariaDb, Some(networks)) => match lists(networks, host) {
            Some(true) => good("is told where clients are"),
            Some(false) => error_finding(format!(
                "proxy_protocol_networks ({networks}) does not list dbproxy's address, {host}, and the server refuses \
                 all clients: list it there, or set {keys} = \"off\""
            )),
            None => good(format!(
                "is told where clients are, if the address of {host} is in proxy_protocol_networks ({networks})"
            )),
        },
    }
}

/// Whether one of these networks has the host in it; None if that is not known of a host that is no address.
fn lists(networks: &str, host: &str) -> Option<bool> {
    let mut networks = networks
        .split([',', ' '])
        .filter(|network| !network.is_empty());
    if networks.clone().any(|network| network == "*") {
        return Some(true);
    }
    let host: IpAddr = host.parse().ok()?;
    Some(
        networks.any(|network| Network::parse(network).is_ok_and(|network| network.contains(host))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::inspect::Severity;

    fn variable(name: &str, value: &str) -> HashMap<String, String> {
        HashMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn compression_that_is_not_offered_is_warned_of() {
        let found = |flavor, variables: &HashMap<_, _>, wanted| {
            compression(flavor, variables, wanted).map(|finding| finding.severity)
        };
        let (zlib, zstd) = (ServerCompression::Zlib, ServerCompression::Zstd);
        let (none, warned) = (HashMap::new(), Some(Severity::Warning));
        let algorithms = |value| variable("protocol_compression_algorithms", value);
        for (flavor, variables, wanted, expected) in [
            (Flavor::MariaDb, &none, ServerCompression::Off, None),
            (Flavor::MariaDb, &none, zlib, None),
            (Flavor::MariaDb, &none, zstd, warned),
            (Flavor::MySql, &none, zstd, None),
            (
                Flavor::MySql,
                &algorithms("zlib,zstd,uncompressed"),
                zstd,
                None,
            ),
            (Flavor::MySql, &algorithms("zlib, zstd"), zlib, None),
            (Flavor::MySql, &algorithms("uncompressed"), zlib, warned),
            (
                Flavor::MySql,
                &algorithms("zlib,uncompressed"),
                zstd,
                warned,
            ),
        ] {
            let told = format!("{flavor:?} {variables:?} {wanted:?}");
            assert_eq!(found(flavor, variables, wanted), expected, "{told}");
        }
    }

    #[test]
    fn servers_must_take_the_header() {
        let found = |flavor, variables: &HashMap<_, _>| {
            proxy_protocol(flavor, variables, "10.1.2.3").severity
        };
        let networks = |value| variable("proxy_protocol_networks", value);
        for (flavor, variables, severity) in [
            (
                Flavor::MariaDb,
                networks("10.0.0.0/8, localhost"),
                Severity::Good,
            ),
            (
                Flavor::MariaDb,
                networks("10.2.0.0/16, ::1"),
                Severity::Error,
            ),
            (Flavor::MariaDb, networks(""), Severity::Error),
            (Flavor::MariaDb, HashMap::new(), Severity::Error),
            (Flavor::MySql, HashMap::new(), Severity::Error),
            (Flavor::MySql, networks(""), Severity::Error),
            (Flavor::MySql, networks("10.0.0.0/8"), Severity::Error),
        ] {
            let told = format!("{flavor:?} {variables:?}");
            assert_eq!(found(flavor, &variables), severity, "{told}");
        }
        for (listed, host, expected) in [
            ("::1 10.0.0.0/8", "10.1.2.3", Some(true)),
            ("10.0.0.0/8", "::ffff:10.1.2.3", Some(true)),
            ("fd00::/8", "fd00::7", Some(true)),
            ("*", "proxy.example.org", Some(true)),
            ("10.0.0.0/8,localhost", "localhost", None),
            ("10.0.0.0/8", "proxy.example.org", None),
        ] {
            assert_eq!(lists(listed, host), expected, "{listed} {host}");
        }
    }
}
