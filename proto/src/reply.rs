//! OK, ERR and EOF packets: read by borrow, written for any set of client capabilities.
//!
//! Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_response_packets.html>.

use bytes::{BufMut, BytesMut};

use crate::codec::{Reader, put_lenenc, put_lenenc_bytes};
use crate::packet::put_packet_with;
use crate::track::{Change, Changes, without};
use crate::{Capabilities, ProtocolError, StatusFlags};

/// First byte of an OK packet.
pub const OK: u8 = 0x00;
/// First byte of an EOF packet, and of an OK packet that stands in for one.
pub const EOF: u8 = 0xFE;
/// First byte of an ERR packet.
pub const ERR: u8 = 0xFF;

/// The SQLSTATE of an error that has none of its own.
pub const GENERAL_ERROR: [u8; 5] = *b"HY000";

/// An OK packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OkPacket<'a> {
    /// Rows changed, or found with [`Capabilities::FOUND_ROWS`].
    pub affected_rows: u64,
    /// The first value generated for an AUTO_INCREMENT column.
    pub last_insert_id: u64,
    /// Status flags after the statement.
    pub status: StatusFlags,
    /// Number of warnings.
    pub warnings: u16,
    /// Human readable: `Rows matched: 1  Changed: 1  Warnings: 0`.
    pub info: &'a [u8],
    /// The session state block, raw. See [`OkPacket::changes`].
    pub session_state: &'a [u8],
}

impl<'a> OkPacket<'a> {
    /// Reads an OK packet with either header. `caps` is what is in force on the connection.
    ///
    /// # Errors
    /// Another packet's header, or an element cut short.
    pub fn parse(payload: &'a [u8], caps: Capabilities) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        if !matches!(reader.u8("OK packet")?, OK | EOF) {
            return Err(ProtocolError::Malformed("OK packet header"));
        }
        let mut packet = Self {
            affected_rows: reader.lenenc("affected rows")?,
            last_insert_id: reader.lenenc("last insert id")?,
            ..Self::default()
        };
        if caps.intersects(Capabilities::PROTOCOL_41.union(Capabilities::TRANSACTIONS)) {
            packet.status = StatusFlags::from_bits_retain(reader.u16("status flags")?);
        }
        if caps.contains(Capabilities::PROTOCOL_41) {
            packet.warnings = reader.u16("warning count")?;
        }
        if reader.is_empty() {
            return Ok(packet);
        }
        if caps.contains(Capabilities::SESSION_TRACK) {
            packet.info = reader.lenenc_bytes("info")?;
            if packet.status.contains(StatusFlags::SESSION_STATE_CHANGED) {
                packet.session_state = reader.lenenc_bytes("session state")?;
            }
        } else {
            // The manual says string<EOF> here, servers send string<lenenc> all the same.
            let mut attempt = reader;
            packet.info = attempt
                .lenenc_bytes("info")
                .unwrap_or_else(|_| reader.rest());
        }
        Ok(packet)
    }

    /// The session state block without the changes that `hidden` chooses; `None` if it has none of them.
    pub fn state_without(&self, hidden: impl FnMut(&Change<'_>) -> bool) -> Option<Vec<u8>> {
        without(self.session_state, hidden)
    }

    /// The changes of session state that the packet tells of.
    pub const fn changes(&self) -> Changes<'a> {
        Changes::new(self.session_state)
    }
}

/// What an OK packet's first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OkHeader {
    /// 0x00: the statement had no result set.
    Ok,
    /// 0xFE: the end of a result set, for clients with [`Capabilities::DEPRECATE_EOF`].
    Eof,
}

/// An ERR packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrPacket<'a> {
    /// Error number.
    pub code: u16,
    /// SQLSTATE; [`GENERAL_ERROR`] where the packet has none, as before login.
    pub sqlstate: [u8; 5],
    /// The text.
    pub message: &'a [u8],
}

impl<'a> ErrPacket<'a> {
    /// Reads an ERR packet, with or without SQLSTATE.
    ///
    /// # Errors
    /// Another packet's header, or an element cut short.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        if reader.u8("ERR packet")? != ERR {
            return Err(ProtocolError::Malformed("ERR packet header"));
        }
        let code = reader.u16("error number")?;
        let mut sqlstate = GENERAL_ERROR;
        if reader.peek() == Some(b'#') {
            reader.u8("SQLSTATE")?;
            sqlstate = reader.array("SQLSTATE")?;
        }
        Ok(Self {
            code,
            sqlstate,
            message: reader.rest(),
        })
    }
}

/// An EOF packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EofPacket {
    /// Number of warnings.
    pub warnings: u16,
    /// Status flags after the statement.
    pub status: StatusFlags,
}

impl EofPacket {
    /// Reads an EOF packet of the 4.1 protocol.
    ///
    /// # Errors
    /// Another packet's header or length.
    pub fn parse(payload: &[u8]) -> Result<Self, ProtocolError> {
        let &[EOF, w0, w1, s0, s1] = payload else {
            return Err(ProtocolError::Malformed("EOF packet"));
        };
        Ok(Self {
            warnings: u16::from_le_bytes([w0, w1]),
            status: StatusFlags::from_bits_retain(u16::from_le_bytes([s0, s1])),
        })
    }
}

/// Appends an OK packet as a client with `caps` reads it. A client without [`Capabilities::SESSION_TRACK`] gets neither the session
/// state nor the flag that announces it.
pub fn put_ok(
    out: &mut BytesMut,
    seq: &mut u8,
    packet: &OkPacket<'_>,
    header: OkHeader,
    caps: Capabilities,
) {
    let track = caps.contains(Capabilities::SESSION_TRACK);
    let mut status = packet.status;
    if !track {
        status.remove(StatusFlags::SESSION_STATE_CHANGED);
    }
    let changed = status.contains(StatusFlags::SESSION_STATE_CHANGED);
    put_packet_with(out, seq, |out| {
        out.put_u8(match header {
            OkHeader::Ok => OK,
            OkHeader::Eof => EOF,
        });
        put_lenenc(out, packet.affected_rows);
        put_lenenc(out, packet.last_insert_id);
        if caps.intersects(Capabilities::PROTOCOL_41.union(Capabilities::TRANSACTIONS)) {
            out.put_u16_le(status.bits());
        }
        if caps.contains(Capabilities::PROTOCOL_41) {
            out.put_u16_le(packet.warnings);
        }
        if changed || !packet.info.is_empty() {
            put_lenenc_bytes(out, packet.info);
        }
        if changed {
            put_lenenc_bytes(out, packet.session_state);
        }
    });
}

/// Appends an ERR packet. The SQLSTATE is written when `caps` has [`Capabilities::PROTOCOL_41`]; before login nothing is
/// negotiated yet, and empty `caps` leave it out.
pub fn put_err(out: &mut BytesMut, seq: &mut u8, packet: &ErrPacket<'_>, caps: Capabilities) {
    put_packet_with(out, seq, |out| {
        out.put_u8(ERR);
        out.put_u16_le(packet.code);
        if caps.contains(Capabilities::PROTOCOL_41) {
            out.put_u8(b'#');
            out.put_slice(&packet.sqlstate);
        }
        out.put_slice(packet.message);
    });
}

/// Appends an EOF packet.
pub fn put_eof(out: &mut BytesMut, seq: &mut u8, status: StatusFlags, warnings: u16) {
    put_packet_with(out, seq, |out| {
        out.put_u8(EOF);
        out.put_u16_le(warnings);
        out.put_u16_le(status.bits());
    });
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

    const TRACK: Capabilities = Capabilities::PROTOCOL_41.union(Capabilities::SESSION_TRACK);

    fn sample() -> OkPacket<'static> {
        OkPacket {
            affected_rows: 300,
            last_insert_id: 7,
            status: StatusFlags::AUTOCOMMIT | StatusFlags::SESSION_STATE_CHANGED,
            warnings: 2,
            info: b"Rows matched: 1",
            session_state: b"\x01\x05\x04shop",
        }
    }

    #[test]
    fn ok_round_trip() {
        for header in [OkHeader::Ok, OkHeader::Eof] {
            let mut out = BytesMut::new();
            put_ok(&mut out, &mut 1, &sample(), header, TRACK);
            assert_eq!(OkPacket::parse(&out[4..], TRACK), Ok(sample()));
        }
    }

    #[test]
    fn session_state_is_stripped_with_its_flag() {
        let mut out = BytesMut::new();
        put_ok(
            &mut out,
            &mut 1,
            &sample(),
            OkHeader::Ok,
            Capabilities::PROTOCOL_41,
        );
        let stripped = OkPacket::parse(&out[4..], Capabilities::PROTOCOL_41).unwrap();
        assert_eq!(stripped.status, StatusFlags::AUTOCOMMIT);
        assert_eq!(stripped.info, b"Rows matched: 1");
        assert_eq!(stripped.session_state, b"");
    }

    #[test]
    fn info_as_the_manual_has_it_is_understood_too() {
        let ok = OkPacket::parse(b"\0\0\0\x02\0\0\0Records: 1", Capabilities::PROTOCOL_41).unwrap();
        assert_eq!(ok.info, b"Records: 1");
    }

    #[test]
    fn errors_with_and_without_sqlstate() {
        let err = ErrPacket {
            code: 1045,
            sqlstate: *b"28000",
            message: b"Access denied",
        };
        let mut out = BytesMut::new();
        put_err(&mut out, &mut 2, &err, Capabilities::PROTOCOL_41);
        assert_eq!(&out[..], b"\x16\0\0\x02\xff\x15\x04#28000Access denied");
        assert_eq!(ErrPacket::parse(&out[4..]), Ok(err));

        let mut out = BytesMut::new();
        put_err(&mut out, &mut 0, &err, Capabilities::empty());
        assert_eq!(
            ErrPacket::parse(&out[4..]),
            Ok(ErrPacket {
                sqlstate: GENERAL_ERROR,
                ..err
            })
        );
        assert!(ErrPacket::parse(b"\xff\x15\x04#280").is_err());
    }

    #[test]
    fn eof_round_trip() {
        let mut out = BytesMut::new();
        put_eof(&mut out, &mut 5, StatusFlags::AUTOCOMMIT, 3);
        assert_eq!(&out[..], b"\x05\0\0\x05\xfe\x03\0\x02\0");
        assert_eq!(
            EofPacket::parse(&out[4..]),
            Ok(EofPacket {
                warnings: 3,
                status: StatusFlags::AUTOCOMMIT
            })
        );
    }
}
