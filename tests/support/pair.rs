//! A connection to the primary and one through the proxy, held against each other.

use std::fmt::Write as _;

use super::Rig;
use super::raw::{Raw, capability};

pub const PREPARE: u8 = 0x16;
pub const EXECUTE: u8 = 0x17;
pub const LONG_DATA: u8 = 0x18;
pub const CLOSE: u8 = 0x19;
pub const RESET: u8 = 0x1a;
pub const FETCH: u8 = 0x1c;
pub const BULK: u8 = 0xfa;

/// A connection to the primary itself and one through the proxy, with the ids of their statements.
pub struct Pair {
    pub raws: [Raw; 2],
    statements: [Vec<u32>; 2],
}

/// What was heard: each packet with its sequence id.
pub type Packets = Vec<(u8, Vec<u8>)>;

impl Pair {
    /// With these capabilities on top of the usual ones.
    pub async fn new(rig: &Rig, schema: &str, standard: u32, extended: u32) -> Self {
        let ports = [rig.cluster.primary().port(), rig.proxy.port()];
        let mut raws = Vec::new();
        for port in ports {
            let mut raw = Raw::tcp(port).await.unwrap();
            raw.extended = extended;
            raw.login("app", "app", Some(schema), capability::USUAL | standard)
                .await
                .unwrap();
            raws.push(raw);
        }
        Self {
            raws: raws.try_into().unwrap_or_else(|_| panic!("two")),
            statements: [Vec::new(), Vec::new()],
        }
    }

    /// Carries out a command on one side. A statement is named by its number in the order of preparation, from 1.
    pub async fn one(&mut self, side: usize, payload: &[u8]) -> Packets {
        let (raw, statements) = (&mut self.raws[side], &mut self.statements[side]);
        let mut payload = payload.to_vec();
        if let [EXECUTE | FETCH | CLOSE | RESET | LONG_DATA | BULK, id @ ..] = &mut payload[..]
            && let Some(id) = id.first_chunk_mut::<4>()
            && let Some(known) = statements.get((u32::from_le_bytes(*id) as usize).wrapping_sub(1))
        {
            *id = known.to_le_bytes();
        }
        let mut packets = raw.exchange(&payload).await;
        if payload.first() == Some(&PREPARE) && packets[0].1[0] == 0 && packets[0].1.len() >= 12 {
            let id = packets[0].1[1..].first_chunk_mut::<4>().unwrap();
            statements.push(u32::from_le_bytes(*id));
            *id = u32::try_from(statements.len()).unwrap().to_le_bytes();
        }
        for (number, id) in statements.iter().enumerate() {
            for (_, packet) in &mut packets {
                let text = String::from_utf8_lossy(packet).into_owned();
                if packet[0] == 0xff && text.contains(&format!("({id})")) {
                    let text =
                        text.replace(&format!("({id})"), &format!("(number {})", number + 1));
                    *packet = text.into_bytes();
                }
            }
        }
        packets
    }

    /// Carries out the same command on both and compares the answers byte by byte.
    pub async fn same(&mut self, payload: &[u8]) -> Packets {
        let expected = self.one(0, payload).await;
        let found = self.one(1, payload).await;
        assert_eq!(
            shown(&found),
            shown(&expected),
            "of {}",
            payload.escape_ascii()
        );
        expected
    }

    /// The same for a query.
    pub async fn query(&mut self, sql: &str) -> Packets {
        let payload = query(&self.raws[0], sql);
        self.same(&payload).await
    }
}

/// Packets in a form to be read and compared.
pub fn shown(packets: &[(u8, Vec<u8>)]) -> String {
    packets
        .iter()
        .fold(String::new(), |mut text, (seq, payload)| {
            writeln!(text, "{seq} {}", payload.escape_ascii()).unwrap();
            text
        })
}

/// The command of a query, in the form that the connection has.
pub fn query(raw: &Raw, sql: &str) -> Vec<u8> {
    let attributes: &[u8] = match raw.capabilities & capability::QUERY_ATTRIBUTES {
        0 => &[],
        _ => &[0, 1],
    };
    [&[0x03], attributes, sql.as_bytes()].concat()
}

/// The command to prepare a statement.
pub fn prepare(sql: &str) -> Vec<u8> {
    [&[PREPARE], sql.as_bytes()].concat()
}

/// A command about the statement of that number.
pub fn with_id(code: u8, statement: u32, rest: &[u8]) -> Vec<u8> {
    [&[code][..], &statement.to_le_bytes(), rest].concat()
}

/// The command to execute the statement of that number.
pub fn execute(statement: u32, flags: u8, parameters: &[u8]) -> Vec<u8> {
    with_id(
        EXECUTE,
        statement,
        &[&[flags, 1, 0, 0, 0], parameters].concat(),
    )
}

/// The command to fetch rows of the statement of that number.
pub fn fetch(statement: u32, rows: u32) -> Vec<u8> {
    with_id(FETCH, statement, &rows.to_le_bytes())
}
