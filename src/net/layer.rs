//! What stands between the bytes of the protocol and those on the wire, such as TLS.

use std::{fmt::Debug, io};

use bytes::{Buf, BytesMut};

use super::{Buffers, socket::Socket};

/// A transformation of a stream of bytes, in both directions. Does no IO of its own.
pub(super) trait Layer: Debug + Send + Sync {
    /// Decodes bytes from the front of `wire`, which it consumes, into `plain`'s spare room: never more than that.
    ///
    /// Adds nothing only if more has to be received first. What it leaves in `wire` then, it wants to see again in
    /// front of that. Errors: `UnexpectedEof` when the peer has said that nothing follows, others when the bytes make
    /// no sense.
    fn decode(&mut self, wire: &mut BytesMut, plain: &mut BytesMut) -> io::Result<()>;

    /// Appends `plain`, encoded, to `wire`, and before it whatever the layer has to say for itself.
    fn encode(&mut self, plain: &[u8], wire: &mut BytesMut) -> io::Result<()>;

    /// What follows answers the next command.
    fn begin(&mut self) {}

    /// What follows is another result of the same answer.
    fn begin_result(&mut self) {}
}

/// Bytes that are decoded to see whether there are any.
const PROBE: usize = 16;

/// The layers of a stream, and the bytes on their way through them.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// The one next to the socket is first.
    levels: Vec<Level>,
    /// Encoded bytes that the socket has not taken yet.
    outgoing: BytesMut,
    /// There may be more to read although nothing more comes from the socket.
    more: bool,
    /// Decoded to see whether there is.
    ahead: BytesMut,
    /// What went wrong behind those bytes, until a read tells it.
    failed: Option<io::Error>,
}

#[derive(Debug)]
struct Level {
    layer: Box<dyn Layer>,
    /// Bytes that the layer has not consumed yet.
    incoming: BytesMut,
}

impl Layers {
    /// Puts a layer on top. `incoming` came before it was there, but is for it to decode.
    pub(super) fn push(&mut self, layer: Box<dyn Layer>, incoming: BytesMut) {
        self.levels.push(Level { layer, incoming });
        self.more = true;
    }

    /// Whether a read is done, with bytes, the end or an error, although nothing more comes from the socket.
    pub(super) fn hold_bytes(&mut self) -> bool {
        if self.ahead.is_empty() && self.failed.is_none() && self.more {
            self.ahead.reserve(PROBE);
            match decode_through(&mut self.levels, &mut self.ahead) {
                Ok(decoded) => self.more = decoded > 0,
                Err(error) => self.failed = Some(error),
            }
        }
        !self.ahead.is_empty() || self.failed.is_some()
    }

    /// Decodes what has been received into `buffer`'s spare room; 0 if more has to be received for that.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        let taken = self.ahead.split_to(room.min(self.ahead.len()));
        buffer.extend_from_slice(&taken);
        if !taken.is_empty() && taken.len() == room {
            return Ok(room);
        }
        let before = buffer.len();
        let decoded = match self.failed.take() {
            Some(error) => Err(error),
            None => decode_through(&mut self.levels, buffer),
        };
        match decoded {
            Ok(decoded) => {
                self.more = decoded > 0;
                Ok(taken.len() + decoded)
            }
            Err(error) if taken.is_empty() => Err(error),
            Err(error) => {
                // What came with the error does not count, as it would not have without bytes ahead.
                buffer.truncate(before);
                self.failed = Some(error);
                Ok(taken.len())
            }
        }
    }

    /// Where bytes from the socket go to.
    pub(super) fn receiving(&mut self) -> Option<&mut BytesMut> {
        let incoming = &mut self.levels.first_mut()?.incoming;
        incoming.reserve(Buffers::SMALL);
        self.more = true;
        Some(incoming)
    }

    /// What follows answers the next command.
    pub(super) fn begin(&mut self) {
        for level in &mut self.levels {
            level.layer.begin();
        }
    }

    /// What follows is another result of the same answer.
    pub(super) fn begin_result(&mut self) {
        for level in &mut self.levels {
            level.layer.begin_result();
        }
    }

    /// Gives memory back that is not needed while nothing is under way.
    pub(super) fn rest(&mut self) {
        for level in &mut self.levels {
            if level.incoming.is_empty() {
                level.incoming = BytesMut::new();
            }
        }
        if self.outgoing.is_empty() {
            self.outgoing = BytesMut::new();
        }
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }

    /// Encodes `bytes` for [`Self::try_flush`].
    pub(super) fn encode(&mut self, bytes: &[u8]) -> io::Result<()> {
        encode_through(&mut self.levels, bytes, &mut self.outgoing)
    }

    /// How many encoded bytes are still to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends what is encoded, without waiting; true when all of it is sent.
    pub(super) fn try_flush(&mut self, socket: &Socket) -> io::Result<bool> {
        while !self.outgoing.is_empty() {
            match socket.try_write(&self.outgoing) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.outgoing.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn encode_through(levels: &mut [Level], plain: &[u8], wire: &mut BytesMut) -> io::Result<()> {
    let Some((top, below)) = levels.split_last_mut() else {
        return Ok(());
    };
    if below.is_empty() {
        return top.layer.encode(plain, wire);
    }
    let mut encoded = BytesMut::new();
    top.layer.encode(plain, &mut encoded)?;
    encode_through(below, &encoded, wire)
}

fn decode_through(levels: &mut [Level], buffer: &mut BytesMut) -> io::Result<usize> {
    let Some((top, below)) = levels.split_last_mut() else {
        return Ok(0);
    };
    let before = buffer.len();
    loop {
        top.layer.decode(&mut top.incoming, buffer)?;
        if buffer.len() > before {
            return Ok(buffer.len() - before);
        }
        // What the lowest needs comes from the socket.
        if below.is_empty() {
            return Ok(0);
        }
        top.incoming.reserve(Buffers::SMALL);
        if decode_through(below, &mut top.incoming)? == 0 {
            return Ok(0);
        }
    }
}
