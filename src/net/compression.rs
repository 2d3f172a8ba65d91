//! Compression as a layer of a stream.

use std::io;

use bytes::BytesMut;
use dbproxy_proto::compress::{Compression, FRAME_HEADER_LEN};

use super::layer::Layer;

impl Layer for Compression {
    fn decode(&mut self, wire: &mut BytesMut, plain: &mut BytesMut) -> io::Result<()> {
        Self::decode(self, wire, plain)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn encode(&mut self, plain: &[u8], wire: &mut BytesMut) -> io::Result<()> {
        wire.reserve(plain.len() + FRAME_HEADER_LEN);
        Self::encode(self, plain, wire);
        Ok(())
    }

    fn begin(&mut self) {
        Self::begin(self);
    }

    fn begin_result(&mut self) {
        Self::begin_result(self);
    }
}
