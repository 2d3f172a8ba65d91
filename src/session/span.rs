//! How far the client's current sequence of packets reaches.

use dbproxy_proto::packet::{HEADER_LEN, MAX_PAYLOAD, PacketHeader};

/// Walks over packet headers to the end of what belongs together: the chunks of
/// one command, or the packets of a file.
#[derive(Debug)]
pub(super) struct Span {
    kind: Kind,
    /// Bytes of the current packet that are still to come.
    missing: usize,
    last_header: bool,
    seq: u8,
    /// The sequence id that the next packet must have.
    due: u8,
    broken: bool,
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ends with the first packet that is not of the greatest length.
    Command,
    /// Ends with an empty packet.
    File,
}

impl Span {
    pub(super) fn command() -> Self {
        Self::new(Kind::Command, 0)
    }

    /// `due` is the sequence id of the file's first packet.
    pub(super) fn file(due: u8) -> Self {
        Self::new(Kind::File, due)
    }

    fn new(kind: Kind, due: u8) -> Self {
        Self {
            kind,
            missing: 0,
            last_header: false,
            seq: 0,
            due,
            broken: false,
            len: 0,
        }
    }

    /// Whether nothing more belongs to it.
    pub(super) fn is_complete(&self) -> bool {
        self.last_header && self.missing == 0
    }

    /// Whether a packet came out of order. It must not reach a server, which would answer more than once: the next to use
    /// the connection would be told.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The sequence id of the last packet seen.
    pub(super) fn seq(&self) -> u8 {
        self.seq
    }

    /// The length of the packets seen so far, without their headers.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many of the bytes that come next belong to it. The rest is to be
    /// shown again, with more behind it, unless it is complete.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut end = 0;
        while !self.is_complete() && !self.broken && end < bytes.len() {
            if self.missing > 0 {
                let part = self.missing.min(bytes.len() - end);
                self.missing -= part;
                end += part;
            } else if let Some(header) = bytes.get(end..).and_then(PacketHeader::parse) {
                if header.seq != self.due {
                    self.broken = true;
                    break;
                }
                self.missing = header.len;
                self.seq = header.seq;
                self.due = header.seq.wrapping_add(1);
                self.len = self.len.saturating_add(header.len);
                self.last_header = match self.kind {
                    Kind::Command => header.len < MAX_PAYLOAD,
                    Kind::File => header.len == 0,
                };
                end += HEADER_LEN;
            } else {
                break;
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(mut span: Span, bytes: &[u8], step: usize) -> (usize, bool) {
        let (mut end, mut shown) = (0, 0);
        while !span.is_complete() && shown < bytes.len() {
            shown = (shown + step).min(bytes.len());
            end += span.advance(&bytes[end..shown]);
        }
        (end, span.is_complete())
    }

    #[test]
    fn a_file_ends_with_an_empty_packet() {
        let bytes = b"\x03\0\0\x02abc\x01\0\0\x03d\0\0\0\x04rest";
        for step in 1..bytes.len() {
            assert_eq!(walk(Span::file(2), bytes, step), (16, true));
        }
    }

    #[test]
    fn a_packet_out_of_order_is_not_passed_on() {
        let bytes = b"\x03\0\0\x02abc\0\0\0\x04";
        for step in 1..bytes.len() {
            assert_eq!(walk(Span::file(2), bytes, step), (7, false));
            assert_eq!(walk(Span::file(1), bytes, step), (0, false));
        }
    }

    #[test]
    fn a_command_ends_with_a_packet_that_is_not_full() {
        let mut bytes = b"\xff\xff\xff\x00".to_vec();
        bytes.resize(4 + MAX_PAYLOAD, b'x');
        assert_eq!(walk(Span::command(), &bytes, 1 << 16), (bytes.len(), false));
        bytes.extend_from_slice(b"\0\0\0\x01next");
        assert_eq!(
            walk(Span::command(), &bytes, 1 << 16),
            (bytes.len() - 4, true)
        );
    }
}
