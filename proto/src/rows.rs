//! The rows of an answer that is there as a whole: read, and written again.
//!
//! Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset.html>,
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html>.

use bytes::{BufMut, BytesMut};

use crate::Capabilities;
use crate::codec::{Reader, put_lenenc_bytes};
use crate::command::skip_binary_value;
use crate::packet::{HEADER_LEN, PacketHeader, put_packet_with};
use crate::reply::{EOF, ERR, OK};
use crate::resultset::{NULL, column_count};

/// How the values of a result are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As text: the answer to a query.
    Text,
    /// In their types' own forms: the answer to an execution.
    Binary,
}

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// Text, as all values of a text row are.
    Bytes(&'a [u8]),
    /// An integer of a binary row: its bytes as a number without a sign.
    Integer(u64),
    /// Another value of a binary row, as it is written there.
    Other(&'a [u8]),
}

/// The rows of the first result in a whole answer. An answer without rows, or without what it takes to read them, has none.
#[derive(Debug, Clone)]
pub struct Rows<'a> {
    format: Format,
    /// The columns' types, MYSQL_TYPE_*; empty if they were not told.
    kinds: Vec<u8>,
    rest: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Starts behind the definitions.
    pub fn new(answer: &'a [u8], caps: Capabilities, format: Format) -> Self {
        let (kinds, rest) = start(answer, caps).unwrap_or_default();
        let legible = format == Format::Text || !kinds.is_empty();
        let rest = if legible { rest } else { &[] };
        Self {
            format,
            kinds,
            rest,
        }
    }

    fn put(&self, out: &mut BytesMut, seq: &mut u8, row: Vec<Value<'_>>) {
        put_packet_with(out, seq, |out| match self.format {
            Format::Text => row.into_iter().for_each(|value| put_text(out, value)),
            Format::Binary => put_binary(out, &self.kinds, row),
        });
    }

    fn split(&self, payload: &'a [u8]) -> Option<Vec<Value<'a>>> {
        let mut reader = Reader::new(payload);
        match self.format {
            Format::Text => {
                let mut values = Vec::with_capacity(self.kinds.len());
                while let Some(first) = reader.peek() {
                    values.push(if first == NULL {
                        reader.u8("NULL").ok()?;
                        Value::Null
                    } else {
                        Value::Bytes(reader.lenenc_bytes("value").ok()?)
                    });
                }
                Some(values)
            }
            Format::Binary => {
                reader.u8("row header").ok()?;
                let nulls = reader
                    .bytes(nulls_len(self.kinds.len()), "NULL bitmap")
                    .ok()?;
                let values = self.kinds.iter().enumerate().map(|(column, &kind)| {
                    let (at, bit) = null_bit(column);
                    if nulls.get(at).is_some_and(|byte| byte & bit != 0) {
                        return Some(Value::Null);
                    }
                    let before = reader;
                    skip_binary_value(&mut reader, kind).ok()?;
                    let mut value = before;
                    let bytes = value.bytes(before.remaining() - reader.remaining(), "value");
                    let bytes = bytes.ok()?;
                    Some(match kind {
                        _ if is_integer(kind) => Value::Integer(little_endian(bytes)),
                        _ if is_text(kind) => {
                            Value::Bytes(Reader::new(bytes).lenenc_bytes("value").ok()?)
                        }
                        _ => Value::Other(bytes),
                    })
                });
                values.collect()
            }
        }
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Vec<Value<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (packet, rest) = split_packet(self.rest)?;
        let payload = packet.get(HEADER_LEN..)?;
        let is_row = match self.format {
            // A value that begins like this has 16 MiB.
            Format::Text => !matches!(payload.first(), None | Some(&(EOF | ERR))),
            Format::Binary => payload.first() == Some(&OK),
        };
        let row = self.split(payload).filter(|_| is_row)?;
        self.rest = rest;
        Some(row)
    }
}

impl<'a> Value<'a> {
    /// The text, if that is what it is.
    pub const fn text(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(text) => Some(text),
            _ => None,
        }
    }

    /// The number without a sign that it is, or that its text says.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            Self::Integer(number) => Some(number),
            Self::Null | Self::Other(_) => None,
        }
    }
}

/// A whole answer with other rows in its first result: what `change` makes of those that it has. If there are none, or
/// `change` gives none, it stays as it is.
pub fn with_rows<'a, R>(
    answer: &'a [u8],
    caps: Capabilities,
    format: Format,
    change: impl FnOnce(Vec<Vec<Value<'a>>>) -> Option<R>,
) -> BytesMut
where
    R: IntoIterator<Item = Vec<Value<'a>>>,
{
    let mut rows = Rows::new(answer, caps, format);
    let head = answer.len() - rows.rest.len();
    let first = PacketHeader::parse(rows.rest);
    let found: Vec<_> = rows.by_ref().collect();
    let changed = if found.is_empty() {
        None
    } else {
        change(found)
    };
    let (Some(PacketHeader { mut seq, .. }), Some(changed)) = (first, changed) else {
        return BytesMut::from(answer);
    };
    let mut out = BytesMut::with_capacity(answer.len());
    out.put_slice(answer.get(..head).unwrap_or_default());
    for row in changed {
        rows.put(&mut out, &mut seq, row);
    }
    put_renumbered(&mut out, &mut seq, rows.rest);
    out
}

/// Appends packets with sequence ids that go on from `seq`.
fn put_renumbered(out: &mut BytesMut, seq: &mut u8, mut packets: &[u8]) {
    while let Some((packet, rest)) = split_packet(packets) {
        let at = out.len() + HEADER_LEN - 1;
        out.put_slice(packet);
        if let Some(byte) = out.get_mut(at) {
            *byte = *seq;
        }
        *seq = seq.wrapping_add(1);
        packets = rest;
    }
    out.put_slice(packets);
}

fn start(answer: &[u8], caps: Capabilities) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = answer.get(column_count(answer)?..)?;
    let mut count = Reader::new(answer.get(HEADER_LEN..)?);
    let columns = count.lenenc("column count").ok()?;
    let defined =
        !caps.intersects(Capabilities::METADATA_FLAG) || count.u8("metadata flag").ok()? != 0;
    let mut kinds = Vec::new();
    for _ in 0..if defined { columns } else { 0 } {
        let packet;
        (packet, rest) = split_packet(rest)?;
        kinds.push(kind(packet.get(HEADER_LEN..)?, caps)?);
    }
    if !caps.contains(Capabilities::DEPRECATE_EOF) {
        (_, rest) = split_packet(rest)?;
    }
    Some((kinds, rest))
}

/// The type in a column's definition.
fn kind(definition: &[u8], caps: Capabilities) -> Option<u8> {
    let mut reader = Reader::new(definition);
    let names = 6 + usize::from(caps.contains(Capabilities::EXTENDED_METADATA));
    for _ in 0..names {
        reader.lenenc_bytes("column definition").ok()?;
    }
    // Their length, character set, length of values.
    reader.bytes(1 + 2 + 4, "column definition").ok()?;
    reader.u8("column type").ok()
}

fn put_text(out: &mut BytesMut, value: Value<'_>) {
    match value {
        Value::Null => out.put_u8(NULL),
        Value::Bytes(text) | Value::Other(text) => put_lenenc_bytes(out, text),
        Value::Integer(number) => put_lenenc_bytes(out, number.to_string().as_bytes()),
    }
}

fn put_binary<'v>(out: &mut BytesMut, kinds: &[u8], values: impl IntoIterator<Item = Value<'v>>) {
    out.put_u8(OK);
    let nulls = out.len();
    out.put_bytes(0, nulls_len(kinds.len()));
    let mut values = values.into_iter();
    for (column, &kind) in kinds.iter().enumerate() {
        match values.next().unwrap_or(Value::Null) {
            Value::Null => {
                let (at, bit) = null_bit(column);
                if let Some(byte) = out.get_mut(nulls + at) {
                    *byte |= bit;
                }
            }
            Value::Other(bytes) => out.put_slice(bytes),
            value if is_integer(kind) => {
                out.put_uint_le(value.number().unwrap_or_default(), integer_len(kind));
            }
            value if kind == FLOAT => out.put_f32_le(value.number().unwrap_or_default() as f32),
            value if kind == DOUBLE => out.put_f64_le(value.number().unwrap_or_default() as f64),
            value => put_text(out, value),
        }
    }
}

/// MYSQL_TYPE_FLOAT.
const FLOAT: u8 = 0x04;
/// MYSQL_TYPE_DOUBLE.
const DOUBLE: u8 = 0x05;

const fn is_integer(kind: u8) -> bool {
    integer_len(kind) > 0
}

/// Bytes of a value: TINY; SHORT, YEAR; LONG, INT24; LONGLONG.
const fn integer_len(kind: u8) -> usize {
    match kind {
        0x01 => 1,
        0x02 | 0x0D => 2,
        0x03 | 0x09 => 4,
        0x08 => 8,
        _ => 0,
    }
}

/// Whether values are written as text with its length in front: DECIMAL, VARCHAR, BIT, JSON to GEOMETRY.
const fn is_text(kind: u8) -> bool {
    matches!(kind, 0x00 | 0x0F | 0x10 | 0xF5..=0xFF)
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Two bits in front are unused in rows.
const fn nulls_len(columns: usize) -> usize {
    (columns + 2).div_ceil(8)
}

const fn null_bit(column: usize) -> (usize, u8) {
    ((column + 2) / 8, 1 << ((column + 2) % 8))
}

fn split_packet(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = PacketHeader::parse(bytes)?;
    bytes.split_at_checked(HEADER_LEN + header.len)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;
    use crate::StatusFlags;
    use crate::resultset::{Column, put_columns, put_end, put_row};

    const CAPS: [Capabilities; 4] = [
        Capabilities::PROTOCOL_41,
        Capabilities::PROTOCOL_41.union(Capabilities::DEPRECATE_EOF),
        Capabilities::PROTOCOL_41.union(Capabilities::OPTIONAL_RESULTSET_METADATA),
        Capabilities::PROTOCOL_41
            .union(Capabilities::CACHE_METADATA)
            .union(Capabilities::EXTENDED_METADATA),
    ];

    /// Head and, from the second number on, rows.
    fn head(caps: Capabilities) -> (BytesMut, u8) {
        let (mut out, mut seq) = (BytesMut::new(), 1);
        let columns = [Column::text(b"Route", 45), Column::integer(b"Lag")];
        put_columns(&mut out, &mut seq, &columns, StatusFlags::AUTOCOMMIT, caps);
        (out, seq)
    }

    #[test]
    fn text_is_read_and_written() {
        for caps in CAPS {
            let (mut out, mut seq) = head(caps);
            put_row(&mut out, &mut seq, [Some(&b"primary"[..]), None]);
            put_row(&mut out, &mut seq, [Some(&b""[..]), Some(b"17")]);
            let end = out.len();
            put_end(&mut out, &mut seq, StatusFlags::AUTOCOMMIT, 3, caps);

            let mut rows = Rows::new(&out, caps, Format::Text);
            let found: Vec<_> = rows.by_ref().collect();
            let primary = [Value::Bytes(b"primary"), Value::Null];
            assert_eq!(found, [primary, [Value::Bytes(b""), Value::Bytes(b"17")]]);
            assert_eq!(rows.rest, &out[end..]);
            assert_eq!(with_rows(&out, caps, Format::Text, Some), out);
            let less = with_rows(&out, caps, Format::Text, |rows| {
                Some(rows.into_iter().take(1).collect::<Vec<_>>())
            });
            let (first, rest) = out.split_at(end);
            let second = first.len() - b"....\0\x0217".len();
            let mut expected = first[..second].to_vec();
            expected.extend_from_slice(rest);
            expected[second + 3] = rest[3] - 1;
            assert_eq!(less, expected);
            for end in 0..out.len() {
                assert!(Rows::new(&out[..end], caps, Format::Text).count() < 3);
            }
        }
    }

    #[test]
    fn binary_is_read_and_written() {
        for caps in CAPS {
            let (mut out, mut seq) = head(caps);
            // Header, NULL bitmap, values.
            let packets: [&[u8]; 2] = [
                b"\0\0\x07primary\x11\x01\0\0\0\0\0\0",
                b"\0\x04\x2a\0\0\0\0\0\0\0",
            ];
            for payload in packets {
                put_packet_with(&mut out, &mut seq, |out| out.put_slice(payload));
            }
            put_end(&mut out, &mut seq, StatusFlags::AUTOCOMMIT, 0, caps);

            let mut rows = Rows::new(&out, caps, Format::Binary);
            let found: Vec<_> = rows.by_ref().collect();
            let primary = [Value::Bytes(b"primary"), Value::Integer(273)];
            assert_eq!(found, [primary, [Value::Null, Value::Integer(42)]]);
            assert_eq!(with_rows(&out, caps, Format::Binary, Some), out);
            for end in 0..out.len() {
                assert!(Rows::new(&out[..end], caps, Format::Binary).count() < 3);
            }
        }
    }

    #[test]
    fn packets_behind_other_rows_are_counted_on() {
        let (mut out, mut seq) = (BytesMut::new(), 255);
        put_renumbered(&mut out, &mut seq, b"\x01\0\0\x07a\x01\0\0\x08b");
        assert_eq!((&out[..], seq), (&b"\x01\0\0\xffa\x01\0\0\0b"[..], 1));
    }
}
