//! What an answer's rows add up to, seen as they pass.

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    capability::Capabilities,
    codec::Reader,
    packet::{self, Frame, HEADER_LEN},
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What the rows of an answer add up to. Nothing of them can be found out from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    results: u32,
    /// Of the columns' names, in their order.
    columns: u64,
    pub(super) rows: u64,
    /// The same whatever the order is.
    content: u64,
    order: u64,
}

/// How one answer is to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    Same,
    /// The same rows in another order.
    Reordered,
    /// Other rows.
    Rows,
    /// Other columns.
    Columns,
}

impl Sum {
    pub(super) fn held_against(&self, other: &Self) -> Likeness {
        if self.results != other.results || self.columns != other.columns {
            Likeness::Columns
        } else if self.rows != other.rows || self.content != other.content {
            Likeness::Rows
        } else if self.order != other.order {
            Likeness::Reordered
        } else {
            Likeness::Same
        }
    }
}

/// Adds up an answer that passes by. It changes nothing and asks for nothing.
#[derive(Debug, Default)]
pub(super) struct Tap {
    sum: Sum,
    place: Place,
    /// A packet of which the end is still to come.
    rest: BytesMut,
    seen: usize,
}

/// What the next packet is.
#[derive(Debug, Default)]
enum Place {
    /// The first one of a result.
    #[default]
    Start,
    /// The definition of a column; so many are left.
    Columns(u64),
    /// The EOF behind them.
    ColumnsEnd,
    /// A row, or what ends them.
    Rows,
}

/// First bytes of packets.
const OK: u8 = 0x00;
const LOCAL_INFILE: u8 = 0xFB;
const EOF: u8 = 0xFE;
const ERR: u8 = 0xFF;

impl Tap {
    /// Bytes of an answer beyond which it is not looked at. No packet within that is continued in another one.
    const LIMIT: usize = 16 << 20;

    /// The next bytes of the answer, as they came from a connection with these capabilities.
    pub(super) fn feed(&mut self, capabilities: Capabilities, bytes: &[u8]) {
        self.seen = self.seen.saturating_add(bytes.len());
        if self.is_full() {
            self.rest = BytesMut::new();
        } else if self.rest.is_empty() {
            let walked = self.walk(capabilities, bytes);
            let rest = bytes.get(walked..).unwrap_or_default();
            self.rest.extend_from_slice(rest);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(bytes);
            let walked = self.walk(capabilities, &rest);
            rest.advance(walked);
            self.rest = rest;
        }
    }

    /// Whether there was more than is looked at.
    pub(super) fn is_full(&self) -> bool {
        self.seen > Self::LIMIT
    }

    /// What it came to.
    pub(super) fn sum(&self) -> Sum {
        self.sum
    }

    /// How many of the bytes were whole packets.
    fn walk(&mut self, capabilities: Capabilities, bytes: &[u8]) -> usize {
        let mut walked = 0;
        loop {
            let rest = bytes.get(walked..).unwrap_or_default();
            match packet::complete(rest) {
                Frame::Complete { len, payload } if len >= HEADER_LEN => {
                    self.packet(capabilities, rest.get(payload).unwrap_or_default());
                    walked += len;
                }
                _ => return walked,
            }
        }
    }

    fn packet(&mut self, capabilities: Capabilities, payload: &[u8]) {
        let without_eof = capabilities.contains(Capabilities::DEPRECATE_EOF);
        let first = payload.first().copied();
        let behind_columns = if without_eof {
            Place::Rows
        } else {
            Place::ColumnsEnd
        };
        self.place = match self.place {
            _ if first == Some(ERR) => Place::Start,
            Place::Start => match (first, count(capabilities, payload)) {
                (Some(OK | LOCAL_INFILE | EOF) | None, _) | (_, None) => Place::Start,
                (_, Some((columns, defined))) => {
                    self.sum.results += 1;
                    self.sum.columns = xxh3_64_with_seed(&columns.to_le_bytes(), self.sum.columns);
                    if defined {
                        Place::Columns(columns)
                    } else {
                        behind_columns
                    }
                }
            },
            Place::Columns(left) => {
                if let Some(name) = name(payload) {
                    self.sum.columns = xxh3_64_with_seed(name, self.sum.columns);
                }
                match left {
                    0 | 1 => behind_columns,
                    _ => Place::Columns(left - 1),
                }
            }
            Place::ColumnsEnd => Place::Rows,
            // A row begins like this only where its first value is longer than anything that is looked at.
            Place::Rows if first == Some(EOF) && (without_eof || payload.len() < 9) => Place::Start,
            Place::Rows => {
                self.row(payload);
                Place::Rows
            }
        };
    }

    fn row(&mut self, payload: &[u8]) {
        let hash = xxh3_64(payload);
        self.sum.rows += 1;
        self.sum.content = self.sum.content.wrapping_add(hash);
        // An odd number, so that nothing is lost of what came before.
        const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
        self.sum.order = (self.sum.order ^ hash).wrapping_mul(FACTOR).rotate_left(29);
    }
}

/// The number of a result's columns, and whether their definitions follow.
fn count(capabilities: Capabilities, payload: &[u8]) -> Option<(u64, bool)> {
    let mut reader = Reader::new(payload);
    let columns = reader.lenenc("column count").ok()?;
    let defined = !capabilities.intersects(Capabilities::METADATA_FLAG)
        || reader.u8("metadata flag") != Ok(0);
    Some((columns, defined))
}

/// The name of a column: the fifth of its texts.
fn name(payload: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(payload);
    for _ in 0..4 {
        reader.lenenc_bytes("definition").ok()?;
    }
    reader.lenenc_bytes("name").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dbproxy_proto::{
        capability::StatusFlags,
        resultset::{Column, put_columns, put_end, put_row},
    };

    const USUAL: Capabilities = Capabilities::PROTOCOL_41;
    const MODERN: Capabilities = USUAL.union(Capabilities::DEPRECATE_EOF);

    fn answer(capabilities: Capabilities, names: &[&str], rows: &[&[&str]]) -> BytesMut {
        let mut out = BytesMut::new();
        let (mut seq, status) = (1, StatusFlags::AUTOCOMMIT);
        let columns: Vec<_> = names
            .iter()
            .map(|name| Column::text(name.as_bytes(), 45))
            .collect();
        put_columns(&mut out, &mut seq, &columns, status, capabilities);
        for row in rows {
            let values = row.iter().map(|value| Some(value.as_bytes()));
            put_row(&mut out, &mut seq, values);
        }
        put_end(&mut out, &mut seq, status, 0, capabilities);
        out
    }

    fn sum(capabilities: Capabilities, bytes: &[u8], piece: usize) -> Sum {
        let mut tap = Tap::default();
        for bytes in bytes.chunks(piece) {
            tap.feed(capabilities, bytes);
        }
        assert!(!tap.is_full() && tap.rest.is_empty());
        tap.sum()
    }

    #[test]
    fn rows_are_added_up_whatever_the_pieces() {
        for capabilities in [USUAL, MODERN] {
            let rows: &[&[&str]] = &[&["1", "a"], &["2", ""], &["3", "c"]];
            let bytes = answer(capabilities, &["id", "name"], rows);
            let whole = sum(capabilities, &bytes, bytes.len());
            assert_eq!((whole.rows, whole.results), (3, 1));
            for piece in 1..40 {
                assert_eq!(sum(capabilities, &bytes, piece), whole, "{piece}");
            }
        }
    }

    #[test]
    fn likeness_tells_order_rows_and_columns_apart() {
        let of = |names: &[&str], rows: &[&[&str]]| {
            let bytes = answer(MODERN, names, rows);
            sum(MODERN, &bytes, bytes.len())
        };
        let one = of(&["a"], &[&["1"], &["2"], &["2"]]);
        for (other, expected) in [
            (of(&["a"], &[&["1"], &["2"], &["2"]]), Likeness::Same),
            (of(&["a"], &[&["2"], &["1"], &["2"]]), Likeness::Reordered),
            (of(&["a"], &[&["1"], &["1"], &["2"]]), Likeness::Rows),
            (of(&["a"], &[&["1"], &["2"]]), Likeness::Rows),
            (of(&["a"], &[]), Likeness::Rows),
            (of(&["b"], &[&["1"], &["2"], &["2"]]), Likeness::Columns),
            (of(&["a", "a"], &[]), Likeness::Columns),
        ] {
            assert_eq!(one.held_against(&other), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken_whatever_the_pieces(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
            // Short packets, so that there are several.
            short in proptest::bool::ANY,
            modern in proptest::bool::ANY,
            piece in 1_usize..20,
        ) {
            let mut bytes = bytes;
            if short {
                bytes.chunks_mut(7).for_each(|packet| {
                    for (byte, header) in packet.iter_mut().zip([3, 0, 0]) {
                        *byte = header;
                    }
                });
            }
            let capabilities = if modern { MODERN } else { USUAL };
            let (mut whole, mut pieces) = (Tap::default(), Tap::default());
            whole.feed(capabilities, &bytes);
            bytes.chunks(piece).for_each(|bytes| pieces.feed(capabilities, bytes));
            proptest::prop_assert_eq!(whole.sum(), pieces.sum());
        }
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let mut tap = Tap::default();
        // A row that is announced and never ends.
        tap.feed(MODERN, &answer(MODERN, &["a"], &[])[..1]);
        for _ in 0..17 {
            tap.feed(MODERN, &vec![b'x'; 1 << 20]);
        }
        assert!(tap.is_full() && tap.rest.is_empty());
    }

    #[test]
    fn an_error_has_no_rows() {
        let error = b"\x09\0\0\x01\xff\x7a\x04#42S02";
        assert_eq!(sum(USUAL, error, 3), Sum::default());
    }
}
