//! Packet framing: `int<3>` payload length, `int<1>` sequence id, payload; payloads of 16 MiB - 1 and more go in chunks.
//!
//! Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html>.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

/// Bytes of a packet's header.
pub const HEADER_LEN: usize = 4;

/// The longest payload of one packet. A packet of exactly this length is followed by another one, which may be empty.
pub const MAX_PAYLOAD: usize = 0xFF_FFFF;

/// The header of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketHeader {
    /// Length of the payload that follows, at most [`MAX_PAYLOAD`].
    pub len: usize,
    /// Sequence id; wraps around after 255.
    pub seq: u8,
}

impl PacketHeader {
    /// Reads the header at the front of `buf`; `None` while fewer than [`HEADER_LEN`] bytes are there.
    #[inline]
    pub fn parse(buf: &[u8]) -> Option<Self> {
        let &[a, b, c, seq] = buf.first_chunk()?;
        Some(Self {
            len: u32::from_le_bytes([a, b, c, 0]) as usize,
            seq,
        })
    }

    /// The header's bytes. Lengths above [`MAX_PAYLOAD`] do not fit and are cut to 24 bits.
    #[inline]
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [a, b, c, ..] = (self.len as u32).to_le_bytes();
        [a, b, c, self.seq]
    }
}

/// What stands at the front of a buffer that receives commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Not a whole packet yet.
    Incomplete,
    /// One whole packet that is a whole payload.
    Complete {
        /// Bytes of the packet, header included.
        len: usize,
        /// Where its payload lies in the buffer.
        payload: Range<usize>,
    },
    /// The first packet of a payload of 16 MiB - 1 or more: to be streamed chunk by chunk, not collected.
    Large,
}

/// Whether a whole logical payload (all its chunks) is at the front of `buf`.
pub fn complete(buf: &[u8]) -> Frame {
    match PacketHeader::parse(buf) {
        None => Frame::Incomplete,
        Some(PacketHeader {
            len: MAX_PAYLOAD, ..
        }) => Frame::Large,
        Some(PacketHeader { len, .. }) if buf.len() - HEADER_LEN < len => Frame::Incomplete,
        Some(PacketHeader { len, .. }) => Frame::Complete {
            len: HEADER_LEN + len,
            payload: HEADER_LEN..HEADER_LEN + len,
        },
    }
}

/// Appends `payload` as one packet, or as several where it is longer than one may be; a payload whose length is a multiple of
/// [`MAX_PAYLOAD`] ends with an empty packet. `seq` is the first packet's id and afterwards the next one to use.
pub fn put_packet(out: &mut BytesMut, seq: &mut u8, payload: &[u8]) {
    out.reserve(payload.len() + HEADER_LEN * (1 + payload.len() / MAX_PAYLOAD));
    let mut rest = payload;
    loop {
        let (chunk, tail) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        put_header(out, seq, chunk.len());
        out.put_slice(chunk);
        rest = tail;
        if chunk.len() < MAX_PAYLOAD {
            return;
        }
    }
}

/// Appends the packet whose payload `write` appends, without a copy of it unless it is longer than one packet may be.
pub fn put_packet_with(out: &mut BytesMut, seq: &mut u8, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_slice(&[0; HEADER_LEN]);
    write(out);
    let len = out.len().saturating_sub(start + HEADER_LEN);
    if len >= MAX_PAYLOAD {
        let payload = out.split_off(start + HEADER_LEN);
        out.truncate(start);
        return put_packet(out, seq, &payload);
    }
    let header = PacketHeader { len, seq: *seq }.to_bytes();
    if let Some(place) = out.get_mut(start..start + HEADER_LEN) {
        place.copy_from_slice(&header);
    }
    *seq = seq.wrapping_add(1);
}

fn put_header(out: &mut BytesMut, seq: &mut u8, len: usize) {
    out.put_slice(&PacketHeader { len, seq: *seq }.to_bytes());
    *seq = seq.wrapping_add(1);
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;

    fn chunks(mut buf: &[u8]) -> Vec<(usize, u8)> {
        let mut found = Vec::new();
        while let Some(header) = PacketHeader::parse(buf) {
            found.push((header.len, header.seq));
            buf = &buf[HEADER_LEN + header.len..];
        }
        assert!(buf.is_empty());
        found
    }

    #[test]
    fn payloads_are_split_at_16_mib_minus_one() {
        for (len, expected) in [
            (0, vec![(0, 255)]),
            (1, vec![(1, 255)]),
            (MAX_PAYLOAD - 1, vec![(MAX_PAYLOAD - 1, 255)]),
            (MAX_PAYLOAD, vec![(MAX_PAYLOAD, 255), (0, 0)]),
            (MAX_PAYLOAD + 1, vec![(MAX_PAYLOAD, 255), (1, 0)]),
            (
                2 * MAX_PAYLOAD,
                vec![(MAX_PAYLOAD, 255), (MAX_PAYLOAD, 0), (0, 1)],
            ),
        ] {
            let payload = vec![7; len];
            let (mut out, mut seq) = (BytesMut::from(&b"before"[..]), 255);
            put_packet(&mut out, &mut seq, &payload);
            assert_eq!(chunks(&out[6..]), expected);
            assert_eq!(seq, expected.last().unwrap().1.wrapping_add(1));

            let (mut with, mut seq) = (BytesMut::from(&b"before"[..]), 255);
            put_packet_with(&mut with, &mut seq, |out| out.put_slice(&payload));
            assert!(with == out);
        }
    }

    #[test]
    fn completeness() {
        assert_eq!(complete(&[]), Frame::Incomplete);
        assert_eq!(complete(&[1, 0, 0]), Frame::Incomplete);
        assert_eq!(complete(&[1, 0, 0, 0]), Frame::Incomplete);
        assert_eq!(
            complete(&[1, 0, 0, 0, 14, 9]),
            Frame::Complete {
                len: 5,
                payload: 4..5
            }
        );
        assert_eq!(
            complete(&[0, 0, 0, 0]),
            Frame::Complete {
                len: 4,
                payload: 4..4
            }
        );
        assert_eq!(complete(&[255, 255, 255, 0]), Frame::Large);
    }
}
