//! The sequence ids of the packets inside frames, in either direction.

use crate::packet::{HEADER_LEN, MAX_PAYLOAD, PacketHeader};

/// Packets on their way in, which get the ids that they would have without compression.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// Bytes of the current packet's header.
    header: [u8; HEADER_LEN],
    /// How many of them are there.
    filled: usize,
    /// Bytes of the current packet's payload that are still to come.
    missing: usize,
    /// The next packet continues the payload of the one before.
    continued: bool,
    next: u8,
    /// Each payload is a command.
    commands: bool,
}

impl Incoming {
    /// Whether the last payload is complete.
    pub(super) fn is_between(&self) -> bool {
        self.filled == 0 && self.missing == 0 && !self.continued
    }

    /// What comes next are commands.
    pub(super) fn expect_commands(&mut self) {
        self.commands = true;
    }

    /// What comes next answers the packet of the id `last`.
    pub(super) fn expect_answer(&mut self, last: Option<u8>) {
        self.commands = false;
        self.next = last.map_or(0, |last| last.wrapping_add(1));
    }

    /// Writes the ids into the packets that `bytes` are a piece of.
    pub(super) fn number(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (payload, header) = rest.split_at_mut(self.missing.min(rest.len()));
            self.missing -= payload.len();
            let Some((byte, after)) = header.split_first_mut() else {
                return;
            };
            rest = after;
            if let Some(place) = self.header.get_mut(self.filled) {
                *place = *byte;
            }
            self.filled += 1;
            if self.filled == HEADER_LEN {
                *byte = self.enter();
            }
        }
    }

    /// A header is complete: the packet's id.
    fn enter(&mut self) -> u8 {
        self.filled = 0;
        self.missing = PacketHeader::parse(&self.header).map_or(0, |header| header.len);
        let seq = if self.commands && !self.continued {
            0
        } else {
            self.next
        };
        self.continued = self.missing == MAX_PAYLOAD;
        self.next = seq.wrapping_add(1);
        seq
    }
}

/// Packets on their way out.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Bytes of the current packet's payload that are still to come.
    missing: usize,
    /// The id of the last packet.
    last: Option<u8>,
    /// The beginning of a header that was cut off.
    held: Vec<u8>,
}

/// What stands at the front of bytes on their way out.
pub(super) enum Walked {
    /// So many bytes of a payload.
    Payload { len: usize },
    /// A packet's header.
    Header { header: PacketHeader },
    /// The beginning of a header, which is held back.
    Cut,
}

impl Outgoing {
    /// What was held back when the bytes before ended.
    pub(super) fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    pub(super) fn step(&mut self, bytes: &[u8]) -> Walked {
        if self.missing > 0 {
            let len = self.missing.min(bytes.len());
            self.missing -= len;
            return Walked::Payload { len };
        }
        match PacketHeader::parse(bytes) {
            Some(header) => Walked::Header { header },
            None => {
                self.held = bytes.to_vec();
                Walked::Cut
            }
        }
    }

    /// The packet of this header is sent.
    pub(super) fn enter(&mut self, header: PacketHeader) {
        self.missing = header.len;
        self.last = Some(header.seq);
    }

    /// The id of the last packet.
    pub(super) fn last(&self) -> Option<u8> {
        self.last
    }
}
