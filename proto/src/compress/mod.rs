//! The compressed protocol: packets inside frames of `int<3>` length as sent, `int<1>` frame number, `int<3>` length before
//! compression (0: the frame's bytes are stored as they are).
//!
//! Frames and packets have nothing to do with each other: a packet may lie across frames, a frame may hold several packets.
//! What peers put into the packets' own sequence ids differs too, since nobody looks at them here; [`Compression`] hands packets
//! out with the ids that they would have without compression, so that they can be passed on to a peer that does look.
//!
//! Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_compression.html>.

mod inflate;
mod numbers;

use std::borrow::Cow;

use bytes::{Buf, BytesMut};
use flate2::{Compress, FlushCompress, Status};
use zstd::bulk::Compressor;

use crate::ProtocolError;
use crate::packet::{HEADER_LEN, PacketHeader};
use inflate::Inflater;
use numbers::{Incoming, Outgoing, Walked};

/// Bytes of a frame's header.
pub const FRAME_HEADER_LEN: usize = 7;

/// Shorter contents are not worth compressing.
const SHORTEST: usize = 50;

/// Bytes that are compressed at once, and most of a frame's content.
pub const FRAME_LEN: usize = 64 * 1024;

/// Bytes that are decompressed at once.
const PIECE: usize = 16 * 1024;

/// How frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// zlib, at a level of 1 to 9.
    Zlib(u8),
    /// zstd, at a level of 1 to 22.
    Zstd(u8),
}

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The end that sends commands.
    Client,
    /// The end that answers.
    Server,
}

/// Who spoke last in the exchange that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Sent,
    Received,
}

/// One end of a compressed connection. Between frames it holds next to nothing.
#[derive(Debug)]
pub struct Compression {
    method: Method,
    side: Side,
    /// The number of the next frame to send.
    number: u8,
    /// The number of the next frame that goes on with what the peer was sending. Another one than `number`, since a client
    /// may send its next command while the last one is still being answered.
    due: u8,
    turn: Turn,
    /// What the ids of packets inside frames have on top of those outside.
    shift: u8,
    /// The next packet begins another result of the same answer.
    resumes: bool,
    frame: Option<Frame>,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// A frame of which a part is still to come.
#[derive(Debug)]
struct Frame {
    /// Bytes to come as they are sent.
    wire: usize,
    /// Bytes to come of the content.
    plain: usize,
    /// None: stored.
    inflater: Option<Inflater>,
}

impl Compression {
    /// One end of a connection on which nothing was sent compressed yet.
    pub fn new(method: Method, side: Side) -> Self {
        Self {
            method,
            side,
            number: 0,
            due: 0,
            turn: Turn::Sent,
            shift: 0,
            resumes: false,
            frame: None,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
        }
    }

    /// What follows answers the next command. Where commands were received before the one in front of them was answered,
    /// the frames' numbers start anew with each answer.
    pub fn begin(&mut self) {
        self.number = self.due;
        self.turn = Turn::Received;
    }

    /// What follows is another result of the same answer.
    pub fn begin_result(&mut self) {
        self.resumes = true;
    }

    /// Decompresses bytes from the front of `wire`, which it consumes, into the spare room of `plain`, never more than that.
    ///
    /// Adds nothing only if there is no room, or if it needs more of `wire`. Holds the state of one frame, which is at most
    /// 16 MiB and some for zstd, and some tens of KiB for zlib.
    ///
    /// # Errors
    /// Frames out of order, or that do not hold what they announce. The connection is of no further use.
    pub fn decode(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
    ) -> Result<(), ProtocolError> {
        while plain.len() < plain.capacity() {
            let Some(frame) = &mut self.frame else {
                let Some(header) = wire.first_chunk::<FRAME_HEADER_LEN>() else {
                    return Ok(());
                };
                let header = *header;
                wire.advance(FRAME_HEADER_LEN);
                self.begin_frame(header)?;
                continue;
            };
            let start = plain.len();
            let progress = frame.decode(wire, plain)?;
            self.incoming
                .number(plain.get_mut(start..).unwrap_or_default());
            if frame.is_complete() {
                self.frame = None;
            } else if !progress {
                return Ok(());
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self, header: [u8; FRAME_HEADER_LEN]) -> Result<(), ProtocolError> {
        let [a, b, c, number, d, e, f] = header;
        let length = |bytes: [u8; 3]| {
            let [low, middle, high] = bytes;
            u32::from_le_bytes([low, middle, high, 0]) as usize
        };
        let (wire, announced) = (length([a, b, c]), length([d, e, f]));
        self.follow(number)?;
        let (plain, inflater) = match announced {
            0 => (wire, None),
            _ if wire == 0 => return Err(ProtocolError::Malformed("compressed length")),
            announced => (announced, Some(Inflater::new(self.method)?)),
        };
        self.frame = (wire > 0).then_some(Frame {
            wire,
            plain,
            inflater,
        });
        Ok(())
    }

    /// Finds out what a frame of this number continues.
    fn follow(&mut self, number: u8) -> Result<(), ProtocolError> {
        let next = number.wrapping_add(1);
        let spoke = self.turn == Turn::Sent;
        let between = self.incoming.is_between();
        let goes_on = number == self.due && (number != 0 || !spoke || !between);
        match self.side {
            Side::Server if goes_on => {
                if !spoke {
                    self.number = next;
                }
            }
            // Whether or not the last one is answered.
            Side::Server if number == 0 && between => {
                self.incoming.expect_commands();
            }
            Side::Server if spoke && between && number == self.number => {
                self.incoming.expect_answer(self.outgoing.last());
                self.number = next;
                self.turn = Turn::Received;
            }
            Side::Server => return Err(self.out_of_order(number)),
            // Answers to commands that were sent together are told apart by their numbers, which takes commands of one frame
            // each. A server that says goodbye unasked may use any.
            Side::Client => {
                if spoke || number != self.due {
                    if !between {
                        return Err(self.out_of_order(number));
                    }
                    self.incoming.expect_answer(self.outgoing.last());
                }
                self.number = next;
                self.turn = Turn::Received;
            }
        }
        self.due = next;
        Ok(())
    }

    fn out_of_order(&self, found: u8) -> ProtocolError {
        ProtocolError::Sequence {
            expected: self.due,
            found,
        }
    }

    /// Appends `plain` to `wire` in frames.
    ///
    /// Commands begin frames of their own, numbered from 0, as servers expect. Of a packet's header that `plain` cuts off, the
    /// first bytes are held back until the rest comes.
    pub fn encode(&mut self, plain: &[u8], wire: &mut BytesMut) {
        if plain.is_empty() {
            return;
        }
        let mut plain = Cow::Borrowed(plain);
        let held = self.outgoing.take_held();
        if !held.is_empty() {
            plain = Cow::Owned([&held, &*plain].concat());
        }
        let (mut begin, mut end) = (0, 0);
        while end < plain.len() {
            match self.outgoing.step(plain.get(end..).unwrap_or_default()) {
                Walked::Payload { len } => end += len,
                Walked::Header { header } => {
                    if self.is_command(header) {
                        self.put_frames(plain.get(begin..end).unwrap_or_default(), wire);
                        begin = end;
                        self.number = 0;
                    }
                    let seq = self.send(header);
                    if seq != header.seq
                        && let Some(place) = plain.to_mut().get_mut(end + HEADER_LEN - 1)
                    {
                        *place = seq;
                    }
                    end += HEADER_LEN;
                }
                Walked::Cut => break,
            }
        }
        self.put_frames(plain.get(begin..end).unwrap_or_default(), wire);
    }

    /// The packet of this header goes out: the id that it has inside its frame.
    ///
    /// Where the turn comes to it, and where another result begins, a server continues with the number of the frame, and some
    /// clients count on that.
    fn send(&mut self, header: PacketHeader) -> u8 {
        if self.side == Side::Server && (self.turn == Turn::Received || self.resumes) {
            self.shift = self.number.wrapping_sub(header.seq);
        }
        self.turn = Turn::Sent;
        self.resumes = false;
        self.outgoing.enter(header);
        header.seq.wrapping_add(self.shift)
    }

    /// Whether the packet is the first of a command, not a later one of a file whose ids have wrapped around.
    fn is_command(&self, header: PacketHeader) -> bool {
        let continues = self.turn == Turn::Sent && self.outgoing.last() == Some(u8::MAX);
        self.side == Side::Client && header.seq == 0 && !continues
    }

    fn put_frames(&mut self, content: &[u8], wire: &mut BytesMut) {
        for content in content.chunks(FRAME_LEN) {
            put_frame(self.method, self.number, content, wire);
            self.number = self.number.wrapping_add(1);
        }
    }
}

impl Frame {
    /// Decodes as [`Compression::decode`]; false if that needs more of `wire`.
    fn decode(&mut self, wire: &mut BytesMut, plain: &mut BytesMut) -> Result<bool, ProtocolError> {
        let start = plain.len();
        let room = (plain.capacity() - start).min(PIECE).min(self.plain);
        let input = wire.get(..wire.len().min(self.wire)).unwrap_or_default();
        let (read, written) = match &mut self.inflater {
            None => {
                let len = input.len().min(room);
                plain.extend_from_slice(input.get(..len).unwrap_or_default());
                (len, len)
            }
            // All is there that was announced: only the end may come.
            Some(inflater) if room == 0 => match inflater.run(input, &mut [0])? {
                (read, 0) => (read, 0),
                _ => return Err(ProtocolError::Malformed("length of compressed content")),
            },
            Some(inflater) => {
                plain.resize(start + room, 0);
                let output = plain.get_mut(start..).unwrap_or_default();
                let result = inflater.run(input, output);
                plain.truncate(start + result.map_or(0, |(_, written)| written));
                result?
            }
        };
        wire.advance(read);
        self.wire -= read;
        self.plain -= written;
        let complete = self.is_complete();
        if complete && (self.wire > 0 || self.plain > 0) {
            return Err(ProtocolError::Malformed("length of compressed content"));
        }
        let progress = read > 0 || written > 0;
        if !complete && !progress && self.wire == 0 {
            return Err(ProtocolError::Truncated("compressed content"));
        }
        Ok(progress)
    }

    fn is_complete(&self) -> bool {
        match &self.inflater {
            None => self.wire == 0,
            Some(inflater) => inflater.has_ended(),
        }
    }
}

/// Appends one frame; stored if it is not worth compressing.
fn put_frame(method: Method, number: u8, content: &[u8], wire: &mut BytesMut) {
    let start = wire.len();
    let place = start + FRAME_HEADER_LEN;
    wire.resize(place + content.len(), 0);
    let compressed = match wire.get_mut(place..) {
        // What does not become shorter does not fit.
        Some([room @ .., _]) if content.len() >= SHORTEST => compress(method, content, room),
        _ => None,
    };
    let (len, announced) = match compressed {
        Some(len) => (len, content.len()),
        None => {
            if let Some(place) = wire.get_mut(place..) {
                place.copy_from_slice(content);
            }
            (content.len(), 0)
        }
    };
    wire.truncate(place + len);
    let [a, b, c, _] = (len as u32).to_le_bytes();
    let [d, e, f, _] = (announced as u32).to_le_bytes();
    if let Some(header) = wire.get_mut(start..place) {
        header.copy_from_slice(&[a, b, c, number, d, e, f]);
    }
}

/// Compresses into `room`; None if it does not fit.
///
/// The compressor is made anew for each frame: it takes hundreds of KiB, which no idle connection shall hold.
fn compress(method: Method, content: &[u8], room: &mut [u8]) -> Option<usize> {
    match method {
        Method::Zlib(level) => {
            let mut zlib = Compress::new(flate2::Compression::new(level.into()), true);
            let status = zlib.compress(content, room, FlushCompress::Finish).ok()?;
            (status == Status::StreamEnd).then_some(zlib.total_out() as usize)
        }
        Method::Zstd(level) => Compressor::new(level.into())
            .and_then(|mut zstd| zstd.compress_to_buffer(content, room))
            .ok(),
    }
}
