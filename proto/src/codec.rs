//! Integers and strings of the protocol: a borrowing [`Reader`] and writers into [`BytesMut`].
//!
//! Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_data_types.html>.

use bytes::{BufMut, BytesMut};

use crate::ProtocolError;

/// Reads a payload from the front; every slice it hands out borrows from that payload.
///
/// The `what` arguments name the element being read, for the error.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `payload`.
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// Bytes not read yet.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything was read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte, without taking it.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Everything that is left (`string<EOF>`).
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ProtocolError> {
        let (array, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(ProtocolError::Truncated(what))?;
        self.rest = rest;
        Ok(*array)
    }

    /// The next `len` bytes (`string<fix>`).
    #[inline]
    pub fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], ProtocolError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(ProtocolError::Truncated(what))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// `int<1>`.
    #[inline]
    pub fn u8(&mut self, what: &'static str) -> Result<u8, ProtocolError> {
        let [byte] = self.array(what)?;
        Ok(byte)
    }

    /// `int<2>`.
    #[inline]
    pub fn u16(&mut self, what: &'static str) -> Result<u16, ProtocolError> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// `int<3>`.
    #[inline]
    pub fn u24(&mut self, what: &'static str) -> Result<u32, ProtocolError> {
        let [a, b, c] = self.array(what)?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    }

    /// `int<4>`.
    #[inline]
    pub fn u32(&mut self, what: &'static str) -> Result<u32, ProtocolError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// `int<8>`.
    #[inline]
    pub fn u64(&mut self, what: &'static str) -> Result<u64, ProtocolError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// `int<lenenc>`. The bytes 0xFB (NULL) and 0xFF (ERR) are no integers.
    #[inline]
    pub fn lenenc(&mut self, what: &'static str) -> Result<u64, ProtocolError> {
        match self.u8(what)? {
            0xFC => self.u16(what).map(u64::from),
            0xFD => self.u24(what).map(u64::from),
            0xFE => self.u64(what),
            0xFB | 0xFF => Err(ProtocolError::Malformed(what)),
            byte => Ok(u64::from(byte)),
        }
    }

    /// `string<lenenc>`.
    #[inline]
    pub fn lenenc_bytes(&mut self, what: &'static str) -> Result<&'a [u8], ProtocolError> {
        let len =
            usize::try_from(self.lenenc(what)?).map_err(|_| ProtocolError::Truncated(what))?;
        self.bytes(len, what)
    }

    /// `string<NUL>`: the bytes before the next NUL, which is taken too.
    pub fn nul_bytes(&mut self, what: &'static str) -> Result<&'a [u8], ProtocolError> {
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(ProtocolError::Truncated(what))?;
        let bytes = self.bytes(end, what)?;
        self.u8(what)?;
        Ok(bytes)
    }

    /// `string<NUL>` as the last element, where some peers leave the NUL out.
    pub fn nul_bytes_or_rest(&mut self) -> &'a [u8] {
        let mut attempt = *self;
        match attempt.nul_bytes("string") {
            Ok(bytes) => {
                *self = attempt;
                bytes
            }
            Err(_) => self.rest(),
        }
    }
}

/// Appends `int<lenenc>`.
#[inline]
pub fn put_lenenc(out: &mut BytesMut, value: u64) {
    match value {
        0..=0xFA => out.put_u8(value as u8),
        0xFB..=0xFFFF => {
            out.put_u8(0xFC);
            out.put_u16_le(value as u16);
        }
        0x1_0000..=0xFF_FFFF => {
            out.put_u8(0xFD);
            out.put_uint_le(value, 3);
        }
        _ => {
            out.put_u8(0xFE);
            out.put_u64_le(value);
        }
    }
}

/// Appends `string<lenenc>`.
#[inline]
pub fn put_lenenc_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_lenenc(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Appends `string<NUL>`. A NUL inside would end the string early: what follows it is left out.
pub fn put_nul_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.extend(bytes.iter().take_while(|&&byte| byte != 0));
    out.put_u8(0);
}

/// Bytes that [`put_lenenc`] needs for `value`.
pub const fn lenenc_len(value: u64) -> usize {
    match value {
        0..=0xFA => 1,
        0xFB..=0xFFFF => 3,
        0x1_0000..=0xFF_FFFF => 4,
        _ => 9,
    }
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

    #[test]
    fn lenenc_round_trip_at_every_boundary() {
        for value in [
            0,
            0xFA,
            0xFB,
            0xFC,
            0xFFFF,
            0x1_0000,
            0xFF_FFFF,
            0x100_0000,
            u64::MAX,
        ] {
            let mut out = BytesMut::new();
            put_lenenc(&mut out, value);
            assert_eq!(out.len(), lenenc_len(value));
            let mut reader = Reader::new(&out);
            assert_eq!(reader.lenenc("n"), Ok(value));
            assert!(reader.is_empty());
            for cut in 0..out.len() {
                assert_eq!(
                    Reader::new(&out[..cut]).lenenc("n"),
                    Err(ProtocolError::Truncated("n"))
                );
            }
        }
    }

    #[test]
    fn null_and_err_are_no_integers() {
        assert!(Reader::new(&[0xFB]).lenenc("n").is_err());
        assert!(
            Reader::new(&[0xFF, 1, 2, 3, 4, 5, 6, 7, 8])
                .lenenc("n")
                .is_err()
        );
    }

    #[test]
    fn a_length_beyond_the_payload_is_truncated() {
        let mut payload = vec![0xFE];
        payload.extend(u64::MAX.to_le_bytes());
        payload.push(b'x');
        assert_eq!(
            Reader::new(&payload).lenenc_bytes("s"),
            Err(ProtocolError::Truncated("s"))
        );
    }

    #[test]
    fn nul_strings() {
        let mut reader = Reader::new(b"one\0two");
        assert_eq!(reader.nul_bytes("s"), Ok(&b"one"[..]));
        assert!(reader.nul_bytes("s").is_err());
        assert_eq!(reader.nul_bytes_or_rest(), b"two");
        let mut out = BytesMut::new();
        put_nul_bytes(&mut out, b"a\0b");
        assert_eq!(&out[..], b"a\0");
    }
}
