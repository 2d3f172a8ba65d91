//! The packets of a login: short ones, whose sequence ids go on from one side to the other.

use bytes::{Buf, BytesMut};
use dbproxy_proto::packet::{self, Frame, put_packet};

use super::stream::Stream;
use crate::error::{Error, ErrorKind, Origin};

/// Longest packet of a login.
const LONGEST: usize = 64 * 1024;

/// Waits for the peer's next packet and returns its payload; `seq` becomes the id of the answer.
///
/// Bytes that came behind it stay in `input`. Errors are the peer's, which is `origin`.
pub async fn receive(
    stream: &mut Stream,
    input: &mut BytesMut,
    seq: &mut u8,
    origin: Origin,
) -> Result<BytesMut, Error> {
    let failed = |kind| Error { kind, origin };
    loop {
        match packet::complete(input) {
            Frame::Complete { len, payload } => {
                *seq = input.get(3).map_or(0, |seq| seq.wrapping_add(1));
                let mut packet = input.split_to(len);
                packet.advance(payload.start);
                return Ok(packet);
            }
            Frame::Incomplete if input.len() < LONGEST => {}
            Frame::Incomplete | Frame::Large => {
                let text = "oversized packet during login".to_owned();
                return Err(failed(ErrorKind::Protocol(text)));
            }
        }
        input.reserve(1024);
        match stream.read(input).await {
            Ok(0) => return Err(failed(ErrorKind::Closed)),
            Ok(_) => {}
            Err(error) => return Err(failed(ErrorKind::Io(error))),
        }
    }
}

/// Sends a packet with the id `seq`, which becomes the next one.
pub async fn send(
    stream: &Stream,
    seq: &mut u8,
    payload: &[u8],
    origin: Origin,
) -> Result<(), Error> {
    let mut out = BytesMut::with_capacity(payload.len() + packet::HEADER_LEN);
    put_packet(&mut out, seq, payload);
    let failed = |error| Error {
        kind: ErrorKind::Io(error),
        origin,
    };
    stream.write_all(&out).await.map_err(failed)
}
