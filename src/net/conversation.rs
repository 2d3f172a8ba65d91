//! The packets of a login: short ones, whose sequence ids go on from one side to the other.

use bytes::{Buf, BytesMut};
use dbproxy_proto::packet::{self, Frame, PacketHeader, put_packet};

use super::stream::Stream;
use crate::error::{Error, ErrorKind, Origin};

/// Longest packet of a login.
const LONGEST: usize = 64 * 1024;

/// What servers say to a client whose packets have other sequence ids than are due.
pub fn out_of_order() -> Error {
    Error::answer_with(Origin::Client, 1156, b"08S01", "Got packets out of order")
}

/// Waits for the peer's next packet and returns its payload; `seq` becomes the id of the answer. A client's packet must have
/// the id `seq`.
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
        let header = PacketHeader::parse(input);
        // What is no packet at all, such as another protocol's greeting, is not waited for to its end.
        if header.is_some_and(|header| origin == Origin::Client && header.seq != *seq) {
            return Err(out_of_order());
        }
        if header.is_some_and(|header| header.len > LONGEST) {
            let text = "oversized packet during login".to_owned();
            return Err(failed(ErrorKind::Protocol(text)));
        }
        if let Frame::Complete { len, payload } = packet::complete(input) {
            *seq = header.map_or(0, |header| header.seq.wrapping_add(1));
            let mut packet = input.split_to(len);
            packet.advance(payload.start);
            return Ok(packet);
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
    stream: &mut Stream,
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
