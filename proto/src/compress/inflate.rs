//! The content of one frame, decompressed piece by piece.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::Method;
use crate::ProtocolError;

/// The largest window of zstd, as a power of two: 16 MiB, which is as much as a frame can hold.
const WINDOW_LOG: u32 = 24;

/// Decompresses one frame.
pub(super) struct Inflater {
    format: Format,
    ended: bool,
}

enum Format {
    Zlib(Decompress),
    Zstd(Box<Decoder<'static>>),
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

impl Inflater {
    pub(super) fn new(method: Method) -> Result<Self, ProtocolError> {
        let format = match method {
            Method::Zlib(_) => Format::Zlib(Decompress::new(true)),
            Method::Zstd(_) => {
                let decoder = Decoder::new().and_then(|mut decoder| {
                    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
                    Ok(decoder)
                });
                Format::Zstd(Box::new(decoder.map_err(malformed)?))
            }
        };
        Ok(Self {
            format,
            ended: false,
        })
    }

    /// Decompresses as much of `input` as `output` has room for: bytes read and bytes written.
    pub(super) fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(usize, usize), ProtocolError> {
        match &mut self.format {
            Format::Zlib(zlib) => {
                let (read, written) = (zlib.total_in(), zlib.total_out());
                let status = zlib.decompress(input, output, FlushDecompress::None);
                self.ended = status.map_err(malformed)? == Status::StreamEnd;
                let since = |now: u64, before: u64| (now - before) as usize;
                Ok((
                    since(zlib.total_in(), read),
                    since(zlib.total_out(), written),
                ))
            }
            Format::Zstd(zstd) => {
                let mut input = InBuffer::around(input);
                let mut output = OutBuffer::around(output);
                let missing = zstd.run(&mut input, &mut output).map_err(malformed)?;
                self.ended = missing == 0;
                Ok((input.pos(), output.pos()))
            }
        }
    }

    /// Whether the content is complete.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

fn malformed<E>(_: E) -> ProtocolError {
    ProtocolError::Malformed("compressed content")
}
