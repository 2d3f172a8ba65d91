//! Addresses of listeners and servers.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The port that MySQL and MariaDB servers listen on unless told otherwise.
const MYSQL_PORT: u16 = 3306;

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A TCP address.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// 0 lets the system choose one.
        port: u16,
    },
    /// An absolute path of a unix socket.
    Unix(PathBuf),
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A TCP address.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// An absolute path of a unix socket.
    Unix(PathBuf),
}

/// A network of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `address/bits`, or an address that stands for itself.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let invalid = || {
            format!("\"{text}\" is not a network: write \"10.0.0.0/8\", \"fd00::/8\" or an address")
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| invalid())?,
            None => width,
        };
        if bits > width {
            return Err(invalid());
        }
        Ok(Self { address, bits })
    }

    /// Whether an address belongs to it. IPv4 may be written as IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differs = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                u128::from(own.to_bits() ^ other.to_bits()) << 96
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differs.leading_zeros() >= self.bits
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl ListenAddress {
    /// Reads `host:port`, `[IPv6]:port` or `unix:/path`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match split(text)? {
            Parts::Unix(path) => Self::Unix(path),
            Parts::Tcp(host, Some(port)) => Self::Tcp { host, port },
            Parts::Tcp(host, None) => {
                return Err(format!(
                    "\"{text}\" lacks a port: write \"{}\"",
                    tcp(&host, MYSQL_PORT)
                ));
            }
        })
    }
}

impl ServerAddress {
    /// Reads `host:port`, `host` (port 3306), `[IPv6]:port` or `unix:/path`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match split(text)? {
            Parts::Unix(path) => Self::Unix(path),
            Parts::Tcp(_, Some(0)) => {
                return Err(format!("\"{text}\": no server listens on port 0"));
            }
            Parts::Tcp(host, port) => Self::Tcp {
                host,
                port: port.unwrap_or(MYSQL_PORT),
            },
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => f.write_str(&tcp(host, *port)),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => f.write_str(&tcp(host, *port)),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

enum Parts {
    Tcp(String, Option<u16>),
    Unix(PathBuf),
}

/// `sun_path` of the operating system holds 108 bytes, the last of them a zero.
const UNIX_PATH_MAX: usize = 107;

fn split(text: &str) -> Result<Parts, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    if text.starts_with('/') {
        return Err(format!(
            "\"{text}\" is a path: write \"unix:{text}\" for a unix socket"
        ));
    }
    if text.is_empty() {
        return Err("an address is empty".to_owned());
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return Err(format!("\"{text}\" lacks the closing bracket"));
        };
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("\"{host}\" is not an IPv6 address"));
        }
        return match rest.strip_prefix(':') {
            Some(digits) => Ok(Parts::Tcp(host.to_owned(), Some(port(digits)?))),
            None if rest.is_empty() => Ok(Parts::Tcp(host.to_owned(), None)),
            None => Err(format!("\"{text}\" is not an address")),
        };
    }
    if text.matches(':').count() > 1 {
        return Err(format!(
            "\"{text}\": an IPv6 address stands in brackets, such as \"[::1]:3306\""
        ));
    }
    let (host, digits) = match text.split_once(':') {
        Some((host, digits)) => (host, Some(digits)),
        None => (text, None),
    };
    // Host names and IPv4 addresses; everything else would only fail later, and less clearly.
    let sane = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(sane) {
        return Err(format!("\"{host}\" is not a host name or an IP address"));
    }
    let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    if numeric && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err(format!("\"{host}\" is not an IPv4 address"));
    }
    Ok(Parts::Tcp(host.to_owned(), digits.map(port).transpose()?))
}

fn unix(path: &str) -> Result<Parts, String> {
    if !path.starts_with('/') {
        return Err(format!(
            "\"unix:{path}\": the path of a unix socket must be absolute"
        ));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(format!(
            "\"unix:{path}\": the path of a unix socket has at most {UNIX_PATH_MAX} bytes"
        ));
    }
    Ok(Parts::Unix(PathBuf::from(path)))
}

fn port(digits: &str) -> Result<u16, String> {
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    digits
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| format!("\"{digits}\" is not a port: 1 to 65535"))
}

fn tcp(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_and_shows() {
        for text in [
            "127.0.0.1:3306",
            "[::1]:3307",
            "db1.example.org:1",
            "unix:/run/mysqld.sock",
        ] {
            assert_eq!(
                ServerAddress::parse(text).map(|a| a.to_string()),
                Ok(text.to_owned())
            );
            assert_eq!(
                ListenAddress::parse(text).map(|a| a.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!(
            ServerAddress::parse("db1").map(|a| a.to_string()),
            Ok("db1:3306".to_owned())
        );
        assert_eq!(
            ServerAddress::parse("[fe80::1]").map(|a| a.to_string()),
            Ok("[fe80::1]:3306".to_owned())
        );
        assert_eq!(
            ListenAddress::parse("0.0.0.0:0").map(|a| a.to_string()),
            Ok("0.0.0.0:0".to_owned())
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let long = format!("unix:/{}", "x".repeat(200));
        for text in [
            "",
            ":3306",
            "db1:0",
            "db1:65536",
            "db1:+1",
            "db1:",
            "::1",
            "[::1",
            "[::1]x",
            "[db1]:1",
            "/run/x.sock",
            "unix:x.sock",
            "unix:",
            "db 1:3306",
            "10.0.0:3306",
            "300.1.1.1:3306",
            "user@db1:3306",
            &long,
        ] {
            assert!(ServerAddress::parse(text).is_err(), "{text}");
        }
        assert!(ListenAddress::parse("127.0.0.1").is_err());
    }
}
