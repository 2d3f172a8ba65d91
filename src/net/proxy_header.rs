//! The PROXY protocol: a header in front of a connection in which a load balancer says whom it speaks for.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BytesMut};
use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};

use super::stream::Stream;
use crate::error::{Error, ErrorKind, Origin};

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 1's longest header.
const LONGEST_V1: usize = 107;
/// Bytes of version 2's header in front of its addresses.
const FIXED_V2: usize = 16;
/// Bytes of the longest header of version 2 that is taken: addresses and what balancers usually add.
const LONGEST_V2: usize = 2048;

/// Waits for the header that a connection must begin with and returns whom it speaks for; None if for itself.
///
/// Bytes that came behind it stay in `input`.
pub async fn receive(
    stream: &mut Stream,
    input: &mut BytesMut,
) -> Result<Option<SocketAddr>, Error> {
    loop {
        match find(input) {
            Found::Part => {}
            Found::Header { len, source } => {
                input.advance(len);
                return Ok(source);
            }
            Found::Nonsense => return Err(missing()),
        }
        input.reserve(256);
        match stream.read(input).await {
            Ok(0) => return Err(Error::client(ErrorKind::Closed)),
            Ok(_) => {}
            Err(error) => return Err(Error::client(ErrorKind::Io(error))),
        }
    }
}

/// What a balancer is told that sends no header.
pub fn missing() -> Error {
    let text = "Bad handshake: a connection from a network in dbproxy's listen.proxy_protocol must begin with a \
                PROXY header";
    Error::answer_with(Origin::Client, 1043, b"08S01", text)
}

/// Whether bytes that should be something else are a header.
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(V1) || bytes.starts_with(V2)
}

/// The header, of version 2, of a connection for a client at `client`; without one the proxy speaks for itself.
///
/// No ports: a connection serves all clients of an address, one after the other.
#[allow(clippy::expect_used)]
pub fn announcement(client: Option<IpAddr>) -> Vec<u8> {
    let header = client.map_or_else(ProxyHeader::with_local, |client| {
        let nowhere: IpAddr = match client {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let (source, target) = ((client, 0).into(), (nowhere, 0).into());
        ProxyHeader::with_address(ProxiedAddress::stream(source, target))
    });
    let mut bytes = Vec::new();
    header
        .encode_v2(&mut bytes)
        .expect("both addresses are of one family");
    bytes
}

/// What stands at the front of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The beginning of a header.
    Part,
    /// A header of so many bytes. Without a source the balancer speaks for itself.
    Header {
        len: usize,
        source: Option<SocketAddr>,
    },
    /// Something else, or a header that makes no sense.
    Nonsense,
}

/// Looks for a header at the front of `bytes`.
pub(super) fn find(bytes: &[u8]) -> Found {
    if begins(bytes, V1) {
        let line = bytes.get(..bytes.len().min(LONGEST_V1)).unwrap_or_default();
        // Without its end a line tells nothing, and the parser looks for more of it than there may be.
        return match line.windows(2).position(|end| end == b"\r\n") {
            Some(end) => parse(line.get(..end + 2).unwrap_or_default()),
            None if line.len() < LONGEST_V1 => Found::Part,
            None => Found::Nonsense,
        };
    }
    if !begins(bytes, V2) {
        return Found::Nonsense;
    }
    let Some(&[high, low]) = bytes.get(FIXED_V2 - 2..FIXED_V2) else {
        return Found::Part;
    };
    let len = FIXED_V2 + usize::from(u16::from_be_bytes([high, low]));
    match bytes.get(..len) {
        _ if len > LONGEST_V2 => Found::Nonsense,
        Some(header) => parse(header),
        None => Found::Part,
    }
}

fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.starts_with(with) || (bytes.len() < with.len() && with.starts_with(bytes))
}

/// Parses a header that is there to its last byte.
fn parse(header: &[u8]) -> Found {
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    match ProxyHeader::parse(header, config) {
        Ok((parsed, len)) if len == header.len() => match parsed.proxied_address() {
            Some(address) if address.protocol != Protocol::Stream => Found::Nonsense,
            address => Found::Header {
                len,
                source: address.map(|address| address.source),
            },
        },
        // Longer than its line or its length: it is not what it says.
        Ok(_) | Err(_) => Found::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2, &[0x20 | command, family], &len, rest].concat()
    }

    /// The source, after every beginning of the header was found to be one.
    fn source(header: &[u8]) -> Option<String> {
        for end in 0..header.len() {
            assert_eq!(find(&header[..end]), Found::Part, "{end}");
        }
        let Found::Header { len, source } = find(&[header, b"more"].concat()) else {
            unreachable!("a header")
        };
        assert_eq!(len, header.len());
        source.map(|source| source.to_string())
    }

    #[test]
    fn headers_tell_their_source() {
        let v1 = |line: &str| source(format!("PROXY {line}\r\n").as_bytes());
        assert_eq!(
            v1("TCP4 192.0.2.1 192.0.2.2 5000 3306").unwrap(),
            "192.0.2.1:5000"
        );
        assert_eq!(
            v1("TCP6 2001:db8::1 2001:db8::2 65535 3306").unwrap(),
            "[2001:db8::1]:65535"
        );
        assert_eq!(v1("UNKNOWN"), None);
        assert_eq!(v1("UNKNOWN whatever follows"), None);
        let ipv4 = [192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 0x0c, 0xea];
        let with_more = [&ipv4[..], &[4, 0, 1, 0]].concat();
        for rest in [&ipv4[..], &with_more] {
            assert_eq!(source(&v2(1, 0x11, rest)).unwrap(), "192.0.2.1:5000");
            assert_eq!(source(&v2(0, 0x11, rest)), None);
        }
        let mut ipv6 = [0; 36];
        ipv6[15] = 1;
        ipv6[33] = 7;
        assert_eq!(source(&v2(1, 0x21, &ipv6)).unwrap(), "[::1]:7");
        assert_eq!(source(&v2(1, 0x31, &[0; 216])), None);
        assert_eq!(source(&v2(0, 0, &[])), None);
        assert_eq!(source(&v2(1, 0, &[0; 40])), None);
    }

    #[test]
    fn clients_are_announced_by_their_address() {
        let announced = |client: &str| announcement(Some(client.parse().unwrap()));
        let ipv4 = [192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(announced("192.0.2.1"), v2(1, 0x11, &ipv4));
        let mut ipv6 = [0; 36];
        ipv6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        ipv6[15] = 9;
        assert_eq!(announced("2001:db8::9"), v2(1, 0x21, &ipv6));
        assert_eq!(announcement(None), v2(0, 0, &[]));
        assert_eq!(source(&announced("192.0.2.1")).unwrap(), "192.0.2.1:0");
    }

    #[test]
    fn nonsense_is_found_at_once() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_V1));
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000 99999\r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 1 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 1 1\r\n",
            &long,
        ] {
            assert_eq!(find(line.as_bytes()), Found::Nonsense, "{line}");
        }
        for header in [
            v2(2, 0x11, &[0; 12]),
            v2(1, 0x11, &[0; 11]),
            v2(1, 0x21, &[0; 12]),
            v2(1, 0x31, &[0; 215]),
            v2(1, 0x12, &[0; 12]),
            v2(1, 0x77, &[0; 12]),
            v2(1, 0x11, &[0; 2100]),
        ] {
            assert_eq!(find(&header), Found::Nonsense, "{header:?}");
        }
        assert_eq!(find(&[0x4a, 0, 0, 0]), Found::Nonsense);
    }
}
