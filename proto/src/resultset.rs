//! Result sets of one's own, in text rows.
//!
//! Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset.html>.

use bytes::{BufMut, BytesMut};

use crate::codec::{put_lenenc, put_lenenc_bytes};
use crate::packet::{HEADER_LEN, PacketHeader, put_packet_with};
use crate::reply::{EOF, ERR, OK, OkHeader, OkPacket, put_eof, put_ok};
use crate::{Capabilities, StatusFlags};

/// `NULL` in a text row.
pub(crate) const NULL: u8 = 0xFB;
/// MYSQL_TYPE_VAR_STRING.
const VAR_STRING: u8 = 0xFD;
/// MYSQL_TYPE_LONGLONG.
const LONGLONG: u8 = 0x08;
/// The `binary` collation, which numbers have.
const BINARY: u16 = 63;
const BINARY_FLAG: u16 = 1 << 7;

/// A column's definition. Schema and table are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    /// Name, in the client's character set.
    pub name: &'a [u8],
    /// MYSQL_TYPE_*.
    pub kind: u8,
    /// Collation id of the values.
    pub collation: u16,
    /// Longest value in bytes; a hint for clients that print tables.
    pub length: u32,
    /// Column flags.
    pub flags: u16,
    /// Decimals; 31 for text.
    pub decimals: u8,
}

impl<'a> Column<'a> {
    /// Text of up to 1024 bytes in the given collation.
    pub const fn text(name: &'a [u8], collation: u16) -> Self {
        Self {
            name,
            kind: VAR_STRING,
            collation,
            length: 1024,
            flags: 0,
            decimals: 31,
        }
    }

    /// A 64-bit integer.
    pub const fn integer(name: &'a [u8]) -> Self {
        Self {
            name,
            kind: LONGLONG,
            collation: BINARY,
            length: 21,
            flags: BINARY_FLAG,
            decimals: 0,
        }
    }
}

/// Appends the head of a result set: the number of columns, their definitions, and the EOF for clients that want it.
pub fn put_columns(
    out: &mut BytesMut,
    seq: &mut u8,
    columns: &[Column<'_>],
    status: StatusFlags,
    caps: Capabilities,
) {
    put_packet_with(out, seq, |out| {
        put_lenenc(out, columns.len() as u64);
        if caps.intersects(Capabilities::METADATA_FLAG) {
            out.put_u8(1);
        }
    });
    for column in columns {
        put_packet_with(out, seq, |out| {
            put_lenenc_bytes(out, b"def");
            for empty_or_name in [b"", b"", b"", column.name, b""] {
                put_lenenc_bytes(out, empty_or_name);
            }
            if caps.contains(Capabilities::EXTENDED_METADATA) {
                put_lenenc_bytes(out, b"");
            }
            out.put_u8(12);
            out.put_u16_le(column.collation);
            out.put_u32_le(column.length);
            out.put_u8(column.kind);
            out.put_u16_le(column.flags);
            out.put_u8(column.decimals);
            out.put_u16_le(0);
        });
    }
    if !caps.contains(Capabilities::DEPRECATE_EOF) {
        put_eof(out, seq, status, 0);
    }
}

/// The packet with the number of columns at the front of `buf`, if that is what begins a result there and it is whole: its length.
pub fn column_count(buf: &[u8]) -> Option<usize> {
    let header = PacketHeader::parse(buf)?;
    let payload = buf.get(HEADER_LEN..HEADER_LEN + header.len)?;
    let first = *payload.first()?;
    (!matches!(first, OK | ERR | EOF | NULL)).then_some(HEADER_LEN + header.len)
}

/// Appends the packet with the number of columns that stands at the front of `buf`, with a flag behind it by which the columns'
/// definitions follow. For clients with [`Capabilities::CACHE_METADATA`] of servers without.
pub fn put_defined_count(out: &mut BytesMut, count: &[u8]) {
    let (Some(header), Some(payload)) = (PacketHeader::parse(count), count.get(HEADER_LEN..))
    else {
        return;
    };
    let mut seq = header.seq;
    put_packet_with(out, &mut seq, |out| {
        out.put_slice(payload);
        out.put_u8(1);
    });
}

/// Appends a row; `None` is NULL. There must be as many values as columns.
pub fn put_row<'v>(
    out: &mut BytesMut,
    seq: &mut u8,
    values: impl IntoIterator<Item = Option<&'v [u8]>>,
) {
    put_packet_with(out, seq, |out| {
        for value in values {
            match value {
                Some(value) => put_lenenc_bytes(out, value),
                None => out.put_u8(NULL),
            }
        }
    });
}

/// Appends the end of a result set.
pub fn put_end(
    out: &mut BytesMut,
    seq: &mut u8,
    status: StatusFlags,
    warnings: u16,
    caps: Capabilities,
) {
    if caps.contains(Capabilities::DEPRECATE_EOF) {
        let packet = OkPacket {
            status,
            warnings,
            ..OkPacket::default()
        };
        put_ok(out, seq, &packet, OkHeader::Eof, caps);
    } else {
        put_eof(out, seq, status, warnings);
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use mysql_common::constants::ColumnType;
    use mysql_common::io::ParseBuf;
    use mysql_common::packets::Column as Oracle;

    use super::*;
    use crate::packet::complete;
    use crate::response::{Event, Expect, ResponseTracker};

    #[test]
    fn our_own_tracker_follows_it() {
        for caps in [
            Capabilities::PROTOCOL_41,
            Capabilities::PROTOCOL_41 | Capabilities::DEPRECATE_EOF,
            Capabilities::PROTOCOL_41 | Capabilities::OPTIONAL_RESULTSET_METADATA,
            Capabilities::PROTOCOL_41
                | Capabilities::CACHE_METADATA
                | Capabilities::EXTENDED_METADATA,
        ] {
            let (mut out, mut seq) = (BytesMut::new(), 1);
            let columns = [Column::text(b"Route", 45), Column::integer(b"Lag")];
            put_columns(&mut out, &mut seq, &columns, StatusFlags::AUTOCOMMIT, caps);
            put_row(&mut out, &mut seq, [Some(&b"primary"[..]), None]);
            put_row(&mut out, &mut seq, [Some(&b""[..]), Some(b"17")]);
            put_end(&mut out, &mut seq, StatusFlags::AUTOCOMMIT, 3, caps);

            let mut tracker = ResponseTracker::new(Expect::Query, caps);
            let Ok(Event::Data { len }) = tracker.next(&out) else {
                panic!()
            };
            let (warnings, rest) = match tracker.next(&out[len..]).unwrap() {
                Event::Ok { len, packet, .. } => (packet.warnings, len),
                Event::Eof { len, warnings, .. } => (warnings, len),
                other => panic!("{other:?}"),
            };
            assert_eq!((warnings, tracker.rows(), len + rest), (3, 2, out.len()));
            assert!(tracker.is_done());
        }
    }

    #[test]
    fn definitions_agree_with_the_oracle() {
        let (mut out, mut seq) = (BytesMut::new(), 1);
        let columns = [Column::text(b"Route", 45)];
        put_columns(
            &mut out,
            &mut seq,
            &columns,
            StatusFlags::empty(),
            Capabilities::PROTOCOL_41,
        );
        let crate::packet::Frame::Complete { payload, .. } = complete(&out[5..]) else {
            panic!()
        };
        let column: Oracle = ParseBuf(&out[5..][payload]).parse(()).unwrap();
        assert_eq!(column.name_ref(), b"Route");
        assert_eq!(column.column_type(), ColumnType::MYSQL_TYPE_VAR_STRING);
        assert_eq!(
            (
                column.character_set(),
                column.column_length(),
                column.decimals()
            ),
            (45, 1024, 31)
        );
    }
}
