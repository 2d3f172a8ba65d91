//! The library's state machine as a layer of a stream.

use std::{
    fmt::{self, Debug},
    io, mem,
};

use bytes::{Buf, BytesMut};
use rustls::{
    CommonState,
    client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
    unbuffered::{
        ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    },
};

use crate::net::layer::Layer;

/// One side of a TLS connection. It keeps no buffers while nothing is under way.
#[derive(Debug)]
pub(super) struct Tls {
    side: Side,
    /// Decoded bytes for which there was no room.
    left: BytesMut,
    /// What the connection has to say for itself, encoded.
    own: BytesMut,
    /// The peer has said that nothing follows.
    ended: bool,
}

enum Side {
    Accepting(UnbufferedServerConnection),
    Connecting(UnbufferedClientConnection),
}

impl Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepting(_) => "Accepting",
            Self::Connecting(_) => "Connecting",
        })
    }
}

/// What the state machine did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Something, and there may be more to do.
    Progress,
    /// Nothing more with the bytes that there are.
    Idle,
}

/// Whether a handshake is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shaken {
    /// Application data may follow.
    Done,
    /// More bytes are needed.
    Waiting,
}

/// Bytes that a record takes beyond its content: header, nonce, tag and type, with room to spare.
const OVERHEAD: usize = 64;

/// The longest content of a record.
const RECORD: usize = 16 * 1024;

impl Tls {
    /// The side of one who was connected to.
    pub(super) fn accepting(connection: UnbufferedServerConnection) -> Self {
        Self::new(Side::Accepting(connection))
    }

    /// The side of one who connects.
    pub(super) fn connecting(connection: UnbufferedClientConnection) -> Self {
        Self::new(Side::Connecting(connection))
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            left: BytesMut::new(),
            own: BytesMut::new(),
            ended: false,
        }
    }

    /// What is known of the connection.
    pub(super) fn state(&self) -> &CommonState {
        match &self.side {
            Side::Accepting(connection) => connection,
            Side::Connecting(connection) => connection,
        }
    }

    /// Goes on with the handshake. What has to be sent is in `outgoing`, also after an error: the peer is told of it.
    pub(super) fn shake(
        &mut self,
        incoming: &mut BytesMut,
        outgoing: &mut BytesMut,
    ) -> io::Result<Shaken> {
        let result = loop {
            match self.advance(incoming) {
                Ok(Step::Progress) => {}
                Ok(Step::Idle) if self.ended => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Step::Idle) if self.state().is_handshaking() => break Ok(Shaken::Waiting),
                Ok(Step::Idle) => break Ok(Shaken::Done),
                Err(error) => {
                    // The alert that the error makes.
                    while matches!(self.advance(&mut BytesMut::new()), Ok(Step::Progress)) {}
                    break Err(error);
                }
            }
        };
        self.say_own(outgoing);
        result
    }

    /// Lets the state machine take one step with what was received.
    fn advance(&mut self, wire: &mut BytesMut) -> io::Result<Step> {
        let Self {
            side,
            left,
            own,
            ended,
        } = self;
        let (used, step) = match side {
            Side::Accepting(connection) => {
                take(connection.process_tls_records(wire), left, own, ended)
            }
            Side::Connecting(connection) => {
                take(connection.process_tls_records(wire), left, own, ended)
            }
        };
        wire.advance(used.min(wire.len()));
        step
    }

    /// Moves what the connection has to say for itself behind what is in `wire`.
    fn say_own(&mut self, wire: &mut BytesMut) {
        if !self.own.is_empty() {
            wire.unsplit(mem::take(&mut self.own));
        }
    }

    /// Moves what is decoded to where there is room for it; true if there was something.
    fn hand_over(&mut self, plain: &mut BytesMut) -> bool {
        if self.left.is_empty() {
            return false;
        }
        let room = plain.capacity() - plain.len();
        let len = room.min(self.left.len());
        plain.extend_from_slice(self.left.get(..len).unwrap_or_default());
        self.left.advance(len);
        if self.left.is_empty() {
            // An idle connection has no need for it.
            self.left = BytesMut::new();
        }
        true
    }
}

impl Layer for Tls {
    fn decode(&mut self, wire: &mut BytesMut, plain: &mut BytesMut) -> io::Result<()> {
        while !self.hand_over(plain) {
            if self.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if wire.is_empty() || self.advance(wire)? == Step::Idle && !self.ended {
                return Ok(());
            }
        }
        Ok(())
    }

    fn encode(&mut self, plain: &[u8], wire: &mut BytesMut) -> io::Result<()> {
        self.say_own(wire);
        if plain.is_empty() {
            return Ok(());
        }
        loop {
            let written = match &mut self.side {
                Side::Accepting(connection) => {
                    put(connection.process_tls_records(&mut []), plain, wire)
                }
                Side::Connecting(connection) => {
                    put(connection.process_tls_records(&mut []), plain, wire)
                }
            };
            if written? {
                return Ok(());
            }
        }
    }
}

/// Deals with one state: `left` gets decoded bytes, `own` encoded ones. Also says how much of the input is used up.
fn take<D>(
    status: UnbufferedStatus<'_, '_, D>,
    left: &mut BytesMut,
    own: &mut BytesMut,
    ended: &mut bool,
) -> (usize, io::Result<Step>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    left.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(broken(error)),
                None => break Ok(Step::Progress),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            match grown(own, |room| data.encode(room)) {
                Ok(()) => Ok(Step::Progress),
                Err(error) => Err(io::Error::other(error)),
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Progress)
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
            *ended = true;
            Ok(Step::Idle)
        }
        Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => Ok(Step::Idle),
        // Early data is not accepted here.
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(error) => Err(broken(error)),
    };
    (discard, step)
}

/// Appends `plain`, encrypted, to `wire`; false if the connection had to say something else first.
fn put<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &[u8],
    wire: &mut BytesMut,
) -> io::Result<bool> {
    match status.state.map_err(broken)? {
        ConnectionState::WriteTraffic(mut traffic) => {
            wire.reserve(plain.len() + OVERHEAD * (1 + plain.len() / RECORD));
            grown(wire, |room| traffic.encrypt(plain, room)).map_err(io::Error::other)?;
            Ok(true)
        }
        ConnectionState::EncodeTlsData(mut data) => {
            grown(wire, |room| data.encode(room)).map_err(io::Error::other)?;
            Ok(false)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(false)
        }
        // It can still be written to.
        ConnectionState::PeerClosed => Ok(false),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Has `write` fill the room behind what is in `out`, which grows if that is too small.
fn grown<E: TooSmall>(
    out: &mut BytesMut,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let start = out.len();
    loop {
        out.resize(out.capacity(), 0);
        let written = write(out.get_mut(start..).unwrap_or_default());
        match written {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(error) => {
                out.truncate(start);
                let required = error.required().ok_or(error)?;
                out.reserve(required);
            }
        }
    }
}

/// An error that may say how much room is needed.
trait TooSmall: Sized {
    fn required(&self) -> Option<usize>;
}

impl TooSmall for EncodeError {
    fn required(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl TooSmall for EncryptError {
    fn required(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::EncryptExhausted => None,
        }
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
