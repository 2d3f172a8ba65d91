//! One side of the comparison: a connection on which a client's steps are taken, and what is heard there.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::support::pair::{CLOSE, EXECUTE, FETCH, LONG_DATA, PREPARE, RESET};
use crate::support::raw::{Raw, capability};

const QUERY: u8 = 0x03;
const FIELD_LIST: u8 = 0x04;
const MORE_RESULTS: u16 = 0x08;
const CURSOR: u16 = 0x40;
const OUT_PARAMETERS: u16 = 0x1000;

/// What a client does. Statements are named by the number of their preparation, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A command, as bytes.
    Command(Vec<u8>),
    /// COM_CHANGE_USER to the same account.
    ChangeUser,
    /// Leaves, and comes back.
    Reconnect,
}

impl Step {
    pub(crate) fn query(sql: impl AsRef<[u8]>) -> Self {
        Self::Command([&[QUERY], sql.as_ref()].concat())
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(payload) => {
                write!(f, "{:#04x} {}", payload[0], payload[1..].escape_ascii())
            }
            Self::ChangeUser => f.write_str("change user"),
            Self::Reconnect => f.write_str("reconnect"),
        }
    }
}

/// A schema of a client's own has this name on the direct side, and [`PROXIED`] in its place on the other.
pub(crate) const DIRECT: &[u8] = b"xqd";
pub(crate) const PROXIED: &[u8] = b"xqp";

/// A client's connection to the server itself, or through the proxy.
pub(crate) struct Side {
    port: u16,
    proxied: bool,
    /// The schema to log in with, as it is called directly.
    schema: String,
    capabilities: u32,
    raw: Raw,
    statements: Vec<u32>,
}

impl Side {
    pub(crate) async fn connect(port: u16, proxied: bool, schema: &str, capabilities: u32) -> Self {
        let name = renamed(schema.as_bytes(), proxied);
        Self {
            port,
            proxied,
            schema: schema.to_owned(),
            capabilities,
            raw: login(port, &String::from_utf8(name).unwrap(), capabilities).await,
            statements: Vec::new(),
        }
    }

    /// Takes a step: everything that is heard, in a form to be compared.
    pub(crate) async fn take(&mut self, step: &Step) -> String {
        match step {
            Step::Reconnect => {
                // A server may still hold what the session held.
                let _ = self.raw.try_send(&[1]).await;
                while self.raw.frame().await.is_some() {}
                *self =
                    Self::connect(self.port, self.proxied, &self.schema, self.capabilities).await;
                "connected".to_owned()
            }
            Step::ChangeUser => {
                let schema = renamed(self.schema.as_bytes(), self.proxied);
                let schema = String::from_utf8(schema).unwrap();
                self.statements.clear();
                format!("{:?}", self.raw.change_user("app", "app", &schema).await)
            }
            Step::Command(payload) => {
                let packets = self.command(payload).await;
                packets.iter().fold(String::new(), |mut text, packet| {
                    writeln!(text, "{}", packet.escape_ascii()).unwrap();
                    text
                })
            }
        }
    }

    async fn command(&mut self, payload: &[u8]) -> Vec<Vec<u8>> {
        let mut payload = renamed(payload, self.proxied);
        if let [EXECUTE | FETCH | CLOSE | RESET | LONG_DATA, id @ ..] = &mut payload[..] {
            let id = id.first_chunk_mut::<4>().unwrap();
            let number = u32::from_le_bytes(*id) as usize;
            let known = self.statements.get(number.wrapping_sub(1));
            *id = known.copied().unwrap_or(u32::MAX >> 1).to_le_bytes();
        }
        self.raw.send(&payload).await;
        let mut packets = match payload[0] {
            QUERY | EXECUTE => self.results().await,
            CLOSE | LONG_DATA => Vec::new(),
            PREPARE => self.preparation().await,
            FETCH | FIELD_LIST => self.rows().await.0,
            _ => vec![self.raw.packet().await.unwrap()],
        };
        for packet in &mut packets {
            if self.proxied {
                *packet = unnamed(packet);
            }
            self.number_ids(packet);
            // MariaDB flags changes of a session's state, those that the proxy follows too, and both flavors a statement
            // that was prepared before its tables have changed.
            match &mut packet[..] {
                [0xfe, _, _, _, high] | [0xfe, _, _, _, high, _, _] => *high &= !0x44,
                _ => {}
            }
        }
        packets
    }

    /// Statements have other ids on the other side.
    fn number_ids(&self, packet: &mut Vec<u8>) {
        // Unknown handler, no open cursor.
        if !matches!(packet[..], [0xff, low, high, ..] if matches!(u16::from_le_bytes([low, high]), 1243 | 1421))
        {
            return;
        }
        let text = String::from_utf8_lossy(packet).into_owned();
        for (index, id) in self.statements.iter().enumerate() {
            if text.contains(&format!("({id})")) {
                let text = text.replace(&format!("({id})"), &format!("(number {})", index + 1));
                *packet = text.into_bytes();
                return;
            }
        }
    }

    async fn preparation(&mut self) -> Vec<Vec<u8>> {
        let mut first = self.raw.packet().await.unwrap();
        if first[0] != 0 {
            // Its number is taken, so that those that follow keep theirs.
            self.statements.push(u32::MAX >> 1);
            return vec![first];
        }
        let id = first[1..].first_chunk_mut::<4>().unwrap();
        self.statements.push(u32::from_le_bytes(*id));
        *id = [0; 4];
        let count = |at: usize| u16::from_le_bytes([first[at], first[at + 1]]);
        let (columns, parameters) = (count(5), count(7));
        let mut packets = vec![first];
        for definitions in [parameters, columns] {
            let end = u16::from(!self.is_modern() && definitions > 0);
            for _ in 0..definitions + end {
                packets.push(self.raw.packet().await.unwrap());
            }
        }
        packets
    }

    fn is_modern(&self) -> bool {
        self.capabilities & capability::DEPRECATE_EOF != 0
    }

    /// All results of a query or an execution.
    async fn results(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        loop {
            let first = self.raw.packet().await.unwrap();
            packets.push(first.clone());
            let status = match first[0] {
                0xff => return packets,
                0x00 => status_of_ok(&first),
                columns => {
                    for _ in 0..columns {
                        packets.push(self.raw.packet().await.unwrap());
                    }
                    let mut opening = 0;
                    if !self.is_modern() {
                        let end = self.raw.packet().await.unwrap();
                        packets.push(end.clone());
                        if end[0] == 0xff {
                            return packets;
                        }
                        opening = u16::from_le_bytes([end[3], end[4]]);
                        // Its rows are fetched.
                        if opening & CURSOR != 0 {
                            return packets;
                        }
                    }
                    let (rows, status) = self.rows().await;
                    packets.extend(rows);
                    // Only the first end announces what follows OUT parameters.
                    let follows = opening & OUT_PARAMETERS != 0;
                    status | if follows { MORE_RESULTS } else { 0 }
                }
            };
            if status & MORE_RESULTS == 0 {
                return packets;
            }
        }
    }

    /// Rows, or definitions, up to their end, and the status that it tells.
    async fn rows(&mut self) -> (Vec<Vec<u8>>, u16) {
        let mut packets = Vec::new();
        loop {
            let packet = self.raw.packet().await.unwrap();
            packets.push(packet.clone());
            match packet[0] {
                0xff => return (packets, 0),
                0xfe if packet.len() == 5 => {
                    return (packets, u16::from_le_bytes([packet[3], packet[4]]));
                }
                0xfe if self.is_modern() => return (packets, status_of_ok(&packet)),
                _ => {}
            }
        }
    }
}

async fn login(port: u16, schema: &str, capabilities: u32) -> Raw {
    let mut raw = Raw::tcp(port).await.unwrap();
    raw.login("app", "app", Some(schema), capabilities)
        .await
        .unwrap();
    raw
}

fn status_of_ok(packet: &[u8]) -> u16 {
    let mut rest = &packet[1..];
    for _ in 0..2 {
        match rest[0] {
            // Numbers and strings have the same prefixes.
            0xfc..=0xfe => {
                let length = [3, 4, 9][usize::from(rest[0] - 0xfc)];
                rest = &rest[length..];
            }
            _ => rest = &rest[1..],
        }
    }
    u16::from_le_bytes([rest[0], rest[1]])
}

/// Schemas and locks by the side's own names.
pub(crate) fn renamed(text: &[u8], proxied: bool) -> Vec<u8> {
    match proxied {
        true => replaced(text, DIRECT, PROXIED),
        false => text.to_vec(),
    }
}

/// The other way round, in answers, which may be in a character set of two bytes.
fn unnamed(text: &[u8]) -> Vec<u8> {
    let wide = |name: &[u8]| name.iter().flat_map(|byte| [0, *byte]).collect::<Vec<u8>>();
    let text = replaced(text, PROXIED, DIRECT);
    replaced(&text, &wide(PROXIED), &wide(DIRECT))
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for at in 0..text.len() {
        if text[at..].starts_with(from) {
            text[at..at + from.len()].copy_from_slice(to);
        }
    }
    text
}
