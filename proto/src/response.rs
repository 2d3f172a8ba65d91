//! Following a response without decoding it: where it ends, and the status it carries on the way.
//!
//! [`ResponseTracker`] looks at packet headers and first bytes only; rows and definitions are reported as runs of bytes to forward
//! unchanged. Only packets that carry status are looked at whole.
//!
//! Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response.html> and the pages beside it.

use crate::codec::Reader;
use crate::packet::{HEADER_LEN, MAX_PAYLOAD, PacketHeader};
use crate::reply::{EOF, ERR, EofPacket, ErrPacket, OK, OkHeader, OkPacket};
use crate::rows::Format;
use crate::{Capabilities, ProtocolError, StatusFlags};

/// The longest packet that is looked at whole (OK, ERR, EOF, counts), in bytes of payload.
pub const MAX_STATUS: usize = 1 << 20;

/// The shortest answer to a preparation that succeeded, in bytes of payload.
const PREPARED: usize = 9;

/// First byte of a request for a local file.
const LOCAL_INFILE: u8 = 0xFB;

/// What was asked, which decides the shape of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// COM_QUERY, COM_PROCESS_INFO: results with text rows, OK, ERR, LOCAL INFILE.
    Query,
    /// COM_STMT_EXECUTE: the same with binary rows.
    Execute,
    /// COM_STMT_EXECUTE that asks for a cursor: if there is one, the response ends after the definitions.
    Cursor,
    /// COM_STMT_PREPARE.
    Prepare,
    /// COM_FIELD_LIST: definitions up to an EOF.
    FieldList,
    /// COM_STMT_FETCH: binary rows up to an EOF.
    Fetch,
    /// COM_STATISTICS: one packet that is the text itself.
    Statistics,
    /// Everything that is answered by one OK, ERR or EOF.
    Status,
}

/// What stands at the front of the buffer. After every event the caller drops its `len` bytes from the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// An incomplete header, or an incomplete packet that must be seen whole. Keep the buffer and read more.
    NeedMore,
    /// Result data, possibly many packets, possibly part of one: forward unchanged.
    Data {
        /// Bytes, at least 1.
        len: usize,
    },
    /// A whole OK packet, which may stand at the end of a result set.
    Ok {
        /// Bytes, header included.
        len: usize,
        /// What it says.
        packet: OkPacket<'a>,
        /// Which kind it is.
        header: OkHeader,
        /// Its sequence id.
        seq: u8,
        /// The response is complete after it.
        last: bool,
    },
    /// A whole EOF packet. The one between definitions and rows is [`Event::Data`], unless a cursor ends the response there.
    Eof {
        /// Bytes, header included.
        len: usize,
        /// Status flags.
        status: StatusFlags,
        /// Number of warnings.
        warnings: u16,
        /// Its sequence id.
        seq: u8,
        /// The response is complete after it.
        last: bool,
    },
    /// A whole ERR packet. It always ends the response.
    Err {
        /// Bytes, header included.
        len: usize,
        /// What it says.
        packet: ErrPacket<'a>,
        /// Its sequence id.
        seq: u8,
    },
    /// The server asks for a file. The caller forwards this, streams the client's packets up to the empty one to the server, calls
    /// [`ResponseTracker::local_infile_sent`] and goes on with the server's answer.
    LocalInfile {
        /// Bytes, header included.
        len: usize,
    },
    /// The statement is prepared. Definitions follow as [`Event::Data`].
    Prepared {
        /// Bytes, header included.
        len: usize,
        /// Statement id.
        statement: u32,
        /// Number of result columns.
        columns: u16,
        /// Number of parameters.
        parameters: u16,
        /// Number of warnings.
        warnings: u16,
        /// No definitions follow: the response is complete.
        last: bool,
    },
}

/// Follows one response, packet header by packet header.
///
/// ```
/// use dbproxy_proto::{Capabilities, response::{Event, Expect, ResponseTracker}};
///
/// let answer = b"\x07\0\0\x01\0\x01\0\x02\0\0\0"; // OK, one row affected
/// let mut tracker = ResponseTracker::new(Expect::Query, Capabilities::PROTOCOL_41);
/// assert_eq!(tracker.next(&answer[..9]), Ok(Event::NeedMore));
/// let Ok(Event::Ok { len: 11, packet, last: true, .. }) = tracker.next(answer) else { panic!() };
/// assert_eq!(packet.affected_rows, 1);
/// assert!(tracker.is_done());
/// ```
#[derive(Debug, Clone)]
pub struct ResponseTracker {
    caps: Capabilities,
    expect: Expect,
    state: State,
    /// Sequence id of the next packet.
    seq: u8,
    seq_rule: SeqRule,
    /// Bytes of the current data packet that are still to come.
    pending: usize,
    /// The packet before was of the maximal length: the next one continues it.
    continued: bool,
    /// Definitions are sent; without them, their EOFs still are.
    defined: bool,
    /// The rows that follow are OUT parameters, behind which comes the procedure's OK. MySQL announces it in the EOF in front of
    /// them and not in the one behind them.
    out_parameters: bool,
    rows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first packet of a result.
    Start,
    /// `left` column definitions of a result set, then rows.
    Columns { left: u16 },
    /// The EOF between definitions and rows.
    ColumnsEnd,
    /// Rows, or the definitions of a FIELD_LIST, up to a status packet.
    Rows,
    /// `left` parameter definitions of a prepared statement, then `columns` column definitions.
    PreparedParameters { left: u16, columns: u16 },
    /// The EOF after them.
    PreparedParametersEnd { columns: u16 },
    /// `left` column definitions of a prepared statement.
    PreparedColumns { left: u16 },
    /// The EOF after them.
    PreparedColumnsEnd,
    /// The client sends a file to the server.
    Infile,
    /// Nothing more is expected.
    Done,
}

/// How strict the next packet's sequence id is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SeqRule {
    /// The first packet. An ERR may have any id: servers that end a session send one before they have read the command.
    First,
    /// Every packet continues the one before.
    Exact,
    /// The client's file took ids of its own.
    Any,
}

/// How far a walk over packets came.
enum Walk {
    /// Everything before this position is data; the walk may go on from there.
    To(usize),
    /// Everything before this position is data; what follows is too short to be judged.
    Short(usize),
    /// Everything before this position is data; a packet with status stands there.
    Status(usize),
}

impl ResponseTracker {
    /// Follows the response to a command that fitted into one packet. `caps` is what is in force on the connection to the server.
    pub const fn new(expect: Expect, caps: Capabilities) -> Self {
        let state = match expect {
            Expect::FieldList | Expect::Fetch => State::Rows,
            _ => State::Start,
        };
        Self {
            caps,
            expect,
            state,
            seq: 1,
            seq_rule: SeqRule::First,
            pending: 0,
            continued: false,
            defined: true,
            out_parameters: false,
            rows: 0,
        }
    }

    /// The response begins with this sequence id: one more than the command's last packet had.
    #[must_use]
    pub const fn with_first_seq(mut self, seq: u8) -> Self {
        self.seq = seq;
        self
    }

    /// Whether the response is complete. Bytes beyond belong to the next one.
    #[inline]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done) && self.pending == 0 && !self.continued
    }

    /// Whether the next packet begins a result, and is the number of its columns if that has rows.
    pub const fn is_at_result(&self) -> bool {
        matches!(self.state, State::Start)
            && matches!(
                self.expect,
                Expect::Query | Expect::Execute | Expect::Cursor
            )
    }

    /// How the rows of results are written.
    pub const fn format(&self) -> Format {
        match self.expect {
            Expect::Execute | Expect::Cursor | Expect::Fetch => Format::Binary,
            _ => Format::Text,
        }
    }

    /// Bytes of the packet that has begun which are still to come; `None` if another one continues it.
    pub const fn pending(&self) -> Option<usize> {
        if self.continued {
            None
        } else {
            Some(self.pending)
        }
    }

    /// The sequence id of the next packet.
    pub const fn next_seq(&self) -> u8 {
        self.seq
    }

    /// Rows that began so far, over all result sets; for COM_FIELD_LIST, definitions.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The file that [`Event::LocalInfile`] asked for was streamed to the server; its answer comes next.
    pub fn local_infile_sent(&mut self) {
        if self.state == State::Infile {
            self.state = State::Start;
            self.seq_rule = SeqRule::Any;
        }
    }

    /// What stands at the front of `buf`. Must not be called again once [`is_done`](Self::is_done) or while a local file is being sent;
    /// it answers [`Event::NeedMore`] then.
    ///
    /// # Errors
    /// Bytes that cannot be a part of this response. The connection is out of step and must not be used again.
    #[inline]
    pub fn next<'a>(&mut self, buf: &'a [u8]) -> Result<Event<'a>, ProtocolError> {
        let mut pos = self.pending.min(buf.len());
        self.pending -= pos;
        loop {
            if self.pending > 0 || self.is_done() {
                return Ok(data(pos));
            }
            let walk = if self.continued {
                self.walk_continuation(buf, pos)?
            } else {
                match self.state {
                    State::Rows => self.walk_rows(buf, pos)?,
                    State::Columns { .. }
                    | State::PreparedParameters { .. }
                    | State::PreparedColumns { .. } => self.walk_definition(buf, pos)?,
                    State::ColumnsEnd
                    | State::PreparedParametersEnd { .. }
                    | State::PreparedColumnsEnd => self.walk_definitions_end(buf, pos)?,
                    State::Start => self.walk_start(buf, pos)?,
                    State::Infile | State::Done => Walk::Short(pos),
                }
            };
            match walk {
                Walk::To(end) => pos = end,
                Walk::Status(0) => return self.status(buf),
                Walk::Short(end) | Walk::Status(end) => return Ok(data(end)),
            }
        }
    }

    /// The hot loop: one header and one byte per row.
    fn walk_rows(&mut self, buf: &[u8], mut pos: usize) -> Result<Walk, ProtocolError> {
        let (mut seq, mut rows) = (self.seq, 0);
        let walk = loop {
            let Some(&[a, b, c, found, first]) = buf.get(pos..).and_then(|rest| rest.first_chunk())
            else {
                // Without this an empty packet would be waited for until something follows it.
                if header_at(buf, pos).is_some_and(|header| header.len == 0) {
                    return Err(ProtocolError::Malformed("row"));
                }
                break Walk::Short(pos);
            };
            let len = u32::from_le_bytes([a, b, c, 0]) as usize;
            if first >= EOF && self.ends_rows(first, len) {
                break Walk::Status(pos);
            }
            if found != seq {
                return Err(ProtocolError::Sequence {
                    expected: seq,
                    found,
                });
            }
            if len == 0 {
                return Err(ProtocolError::Malformed("row"));
            }
            seq = seq.wrapping_add(1);
            rows += 1;
            let end = pos + HEADER_LEN + len;
            if end > buf.len() || len == MAX_PAYLOAD {
                self.continued = len == MAX_PAYLOAD;
                self.pending = end.saturating_sub(buf.len());
                break Walk::To(end.min(buf.len()));
            }
            pos = end;
        };
        if rows > 0 {
            self.seq = seq;
            self.seq_rule = SeqRule::Exact;
            self.rows += rows;
        }
        Ok(walk)
    }

    /// Whether a packet in the place of a row is none. A row's first byte is 0xFE only when its first value is 16 MiB or longer.
    #[cold]
    fn ends_rows(&self, first: u8, len: usize) -> bool {
        let limit = if self.no_eof() { MAX_PAYLOAD } else { 9 };
        len > 0 && (first == ERR || len < limit)
    }

    /// Whether the client's cursor stands in the place of rows. Cursors inside stored routines set the same flag, in front of rows that
    /// follow all the same: for a client that asked for none, or among the several results of a CALL, which never become a cursor.
    fn opens_cursor(&self, status: StatusFlags) -> bool {
        self.expect == Expect::Cursor
            && status.contains(StatusFlags::CURSOR_EXISTS)
            && !status.contains(StatusFlags::MORE_RESULTS)
    }

    /// A packet that continues the one before, whatever it is.
    fn walk_continuation(&mut self, buf: &[u8], pos: usize) -> Result<Walk, ProtocolError> {
        let Some(header) = header_at(buf, pos) else {
            return Ok(Walk::Short(pos));
        };
        self.take_data(header, buf, pos)
    }

    fn walk_definition(&mut self, buf: &[u8], pos: usize) -> Result<Walk, ProtocolError> {
        let Some((header, first)) = first_byte_at(buf, pos)? else {
            return Ok(Walk::Short(pos));
        };
        if first == ERR {
            return Ok(Walk::Status(pos));
        }
        let walk = self.take_data(header, buf, pos)?;
        let no_eof = self.no_eof();
        self.state = match self.state {
            State::Columns { left: 2.. }
            | State::PreparedParameters { left: 2.., .. }
            | State::PreparedColumns { left: 2.. } => self.state.one_less(),
            State::Columns { .. } if no_eof => State::Rows,
            State::Columns { .. } => State::ColumnsEnd,
            State::PreparedParameters { columns, .. } if no_eof => self.prepared_columns(columns),
            State::PreparedParameters { columns, .. } => State::PreparedParametersEnd { columns },
            State::PreparedColumns { .. } if no_eof => State::Done,
            _ => State::PreparedColumnsEnd,
        };
        Ok(walk)
    }

    /// The EOF after a block of definitions, from servers without DEPRECATE_EOF.
    fn walk_definitions_end(&mut self, buf: &[u8], pos: usize) -> Result<Walk, ProtocolError> {
        let Some((header, first)) = first_byte_at(buf, pos)? else {
            return Ok(Walk::Short(pos));
        };
        if first == ERR {
            return Ok(Walk::Status(pos));
        }
        let Some(payload) = payload_at(buf, pos, header)? else {
            return Ok(Walk::Short(pos));
        };
        let eof = EofPacket::parse(payload)?;
        if self.opens_cursor(eof.status) {
            return Ok(Walk::Status(pos));
        }
        self.out_parameters = eof
            .status
            .contains(StatusFlags::PS_OUT_PARAMS.union(StatusFlags::MORE_RESULTS));
        let walk = self.take_data(header, buf, pos)?;
        self.state = match self.state {
            State::PreparedParametersEnd { columns } => self.prepared_columns(columns),
            State::PreparedColumnsEnd => State::Done,
            _ => State::Rows,
        };
        Ok(walk)
    }

    fn walk_start(&mut self, buf: &[u8], pos: usize) -> Result<Walk, ProtocolError> {
        match self.expect {
            Expect::Query | Expect::Execute | Expect::Cursor => self.walk_column_count(buf, pos),
            Expect::Statistics => self.walk_statistics(buf, pos),
            _ => Ok(Walk::Status(pos)),
        }
    }

    fn walk_column_count(&mut self, buf: &[u8], pos: usize) -> Result<Walk, ProtocolError> {
        let Some((header, first)) = first_byte_at(buf, pos)? else {
            return Ok(Walk::Short(pos));
        };
        if matches!(first, OK | LOCAL_INFILE | EOF | ERR) {
            return Ok(Walk::Status(pos));
        }
        let Some(payload) = payload_at(buf, pos, header)? else {
            return Ok(Walk::Short(pos));
        };
        let mut reader = Reader::new(payload);
        let columns = reader.lenenc("column count")?;
        let columns =
            u16::try_from(columns).map_err(|_| ProtocolError::Malformed("column count"))?;
        let defined = !self.caps.intersects(Capabilities::METADATA_FLAG)
            || reader.is_empty()
            || reader.u8("metadata flag")? != 0;
        if !reader.is_empty() {
            return Err(ProtocolError::Malformed("column count"));
        }
        let walk = self.take_data(header, buf, pos)?;
        self.state = if defined {
            State::Columns { left: columns }
        } else if self.no_eof() {
            State::Rows
        } else {
            State::ColumnsEnd
        };
        Ok(walk)
    }

    fn walk_statistics(&mut self, buf: &[u8], pos: usize) -> Result<Walk, ProtocolError> {
        let Some((header, first)) = first_byte_at(buf, pos)? else {
            return Ok(Walk::Short(pos));
        };
        if first == ERR {
            return Ok(Walk::Status(pos));
        }
        let walk = self.take_data(header, buf, pos)?;
        self.state = State::Done;
        Ok(walk)
    }

    /// Passes over one data packet, of which the end may still be missing.
    fn take_data(
        &mut self,
        header: PacketHeader,
        buf: &[u8],
        pos: usize,
    ) -> Result<Walk, ProtocolError> {
        self.take_seq(header.seq)?;
        let end = pos + HEADER_LEN + header.len;
        self.continued = header.len == MAX_PAYLOAD;
        self.pending = end.saturating_sub(buf.len());
        Ok(Walk::To(end.min(buf.len())))
    }

    fn take_seq(&mut self, found: u8) -> Result<(), ProtocolError> {
        if found != self.seq && self.seq_rule != SeqRule::Any {
            return Err(ProtocolError::Sequence {
                expected: self.seq,
                found,
            });
        }
        self.seq_rule = SeqRule::Exact;
        self.seq = found.wrapping_add(1);
        Ok(())
    }

    /// A packet at the front of `buf` that must be seen whole.
    fn status<'a>(&mut self, buf: &'a [u8]) -> Result<Event<'a>, ProtocolError> {
        let Some((header, first)) = first_byte_at(buf, 0)? else {
            return Ok(Event::NeedMore);
        };
        let Some(payload) = payload_at(buf, 0, header)? else {
            return Ok(Event::NeedMore);
        };
        let (len, seq) = (HEADER_LEN + header.len, header.seq);
        if first == ERR {
            if self.seq_rule == SeqRule::First {
                self.seq = seq;
            }
            self.take_seq(seq)?;
            if self.caps.contains(Capabilities::PROGRESS) && payload.get(1..3) == Some(&[0xFF; 2]) {
                // How far the statement is: no answer yet.
                return Ok(Event::Data { len });
            }
            let packet = ErrPacket::parse(payload)?;
            self.state = State::Done;
            return Ok(Event::Err { len, packet, seq });
        }
        self.take_seq(seq)?;
        match (self.state, self.expect, first) {
            // MySQL says so of some statements that it should refuse; nothing is prepared then.
            (State::Start, Expect::Prepare, OK) if payload.len() < PREPARED => {
                let packet = OkPacket::parse(payload, self.caps)?;
                Ok(Event::Ok {
                    len,
                    packet,
                    header: OkHeader::Ok,
                    seq,
                    last: self.end_result(packet.status),
                })
            }
            (State::Start, Expect::Prepare, OK) => self.prepared(payload, len),
            // A server may only ask who offered it.
            (State::Start, Expect::Query | Expect::Execute | Expect::Cursor, LOCAL_INFILE)
                if self.caps.contains(Capabilities::LOCAL_FILES) =>
            {
                self.state = State::Infile;
                Ok(Event::LocalInfile { len })
            }
            (
                State::Start,
                Expect::Query | Expect::Execute | Expect::Cursor | Expect::Status,
                OK,
            ) => {
                let packet = OkPacket::parse(payload, self.caps)?;
                Ok(Event::Ok {
                    len,
                    packet,
                    header: OkHeader::Ok,
                    seq,
                    last: self.end_result(packet.status),
                })
            }
            (State::Rows, _, EOF)
            | (State::Start, Expect::Status, EOF)
            | (State::ColumnsEnd, _, EOF) => {
                // Shorter than any OK packet: a server that keeps to EOF here all the same.
                if header.len == 5 {
                    let EofPacket { warnings, status } = EofPacket::parse(payload)?;
                    return Ok(Event::Eof {
                        len,
                        status,
                        warnings,
                        seq,
                        last: self.end_result(status),
                    });
                }
                if !self.no_eof() {
                    return Err(ProtocolError::Malformed("EOF packet"));
                }
                let packet = OkPacket::parse(payload, self.caps)?;
                Ok(Event::Ok {
                    len,
                    packet,
                    header: OkHeader::Eof,
                    seq,
                    last: self.end_result(packet.status),
                })
            }
            _ => Err(ProtocolError::Malformed("response")),
        }
    }

    /// Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_prepare.html>.
    fn prepared<'a>(&mut self, payload: &[u8], len: usize) -> Result<Event<'a>, ProtocolError> {
        const WHAT: &str = "prepare response";
        let mut reader = Reader::new(payload);
        reader.u8(WHAT)?;
        let statement = reader.u32(WHAT)?;
        let columns = reader.u16(WHAT)?;
        let parameters = reader.u16(WHAT)?;
        // Absent from servers before 5.0.
        let warnings = if reader.is_empty() {
            0
        } else {
            reader.u8(WHAT)?;
            reader.u16(WHAT)?
        };
        let optional = self
            .caps
            .contains(Capabilities::OPTIONAL_RESULTSET_METADATA);
        self.defined = !optional || reader.is_empty() || reader.u8(WHAT)? != 0;
        self.state = match parameters {
            0 => self.prepared_columns(columns),
            left if self.defined => State::PreparedParameters { left, columns },
            _ if self.no_eof() => self.prepared_columns(columns),
            _ => State::PreparedParametersEnd { columns },
        };
        let last = self.is_done();
        Ok(Event::Prepared {
            len,
            statement,
            columns,
            parameters,
            warnings,
            last,
        })
    }

    /// The state in front of the definitions of a prepared statement's columns.
    const fn prepared_columns(&self, left: u16) -> State {
        match left {
            0 => State::Done,
            left if self.defined => State::PreparedColumns { left },
            _ if self.no_eof() => State::Done,
            _ => State::PreparedColumnsEnd,
        }
    }

    const fn no_eof(&self) -> bool {
        self.caps.contains(Capabilities::DEPRECATE_EOF)
    }

    /// A result ended with these flags: whether it was the last.
    fn end_result(&mut self, status: StatusFlags) -> bool {
        let results = matches!(
            self.expect,
            Expect::Query | Expect::Execute | Expect::Cursor
        );
        let announced = status.contains(StatusFlags::MORE_RESULTS) || self.out_parameters;
        self.out_parameters = false;
        let more = results && announced;
        self.state = if more { State::Start } else { State::Done };
        !more
    }
}

impl State {
    const fn one_less(self) -> Self {
        match self {
            Self::Columns { left } => Self::Columns { left: left - 1 },
            Self::PreparedParameters { left, columns } => Self::PreparedParameters {
                left: left - 1,
                columns,
            },
            Self::PreparedColumns { left } => Self::PreparedColumns { left: left - 1 },
            other => other,
        }
    }
}

const fn data<'a>(len: usize) -> Event<'a> {
    if len == 0 {
        Event::NeedMore
    } else {
        Event::Data { len }
    }
}

fn header_at(buf: &[u8], pos: usize) -> Option<PacketHeader> {
    buf.get(pos..).and_then(PacketHeader::parse)
}

/// The header at `pos` and the first byte of its payload, which no packet may be without.
fn first_byte_at(buf: &[u8], pos: usize) -> Result<Option<(PacketHeader, u8)>, ProtocolError> {
    let Some(header) = header_at(buf, pos) else {
        return Ok(None);
    };
    if header.len == 0 {
        return Err(ProtocolError::Malformed("empty packet"));
    }
    Ok(buf.get(pos + HEADER_LEN).map(|&first| (header, first)))
}

/// The whole payload of the packet at `pos`, once it is there.
fn payload_at(
    buf: &[u8],
    pos: usize,
    header: PacketHeader,
) -> Result<Option<&[u8]>, ProtocolError> {
    if header.len > MAX_STATUS {
        return Err(ProtocolError::TooLarge {
            what: "status packet",
            len: header.len,
        });
    }
    Ok(buf.get(pos + HEADER_LEN..pos + HEADER_LEN + header.len))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use bytes::BytesMut;

    use super::*;
    use crate::packet::put_packet;
    use crate::reply::{put_eof, put_err, put_ok};

    const CLASSIC: Capabilities = Capabilities::PROTOCOL_41;
    const MODERN: Capabilities = CLASSIC
        .union(Capabilities::DEPRECATE_EOF)
        .union(Capabilities::SESSION_TRACK);

    /// Builds a server's side of a conversation.
    struct Server {
        out: BytesMut,
        seq: u8,
        caps: Capabilities,
    }

    impl Server {
        fn new(caps: Capabilities) -> Self {
            Self {
                out: BytesMut::new(),
                seq: 1,
                caps,
            }
        }

        fn packet(mut self, payload: &[u8]) -> Self {
            put_packet(&mut self.out, &mut self.seq, payload);
            self
        }

        fn definitions(mut self, count: usize) -> Self {
            for _ in 0..count {
                self = self.packet(b"\x03def\0\0\0\x01a\0\x0c\x3f\0\x01\0\0\0\x08\x81\0\0\0\0");
            }
            self
        }

        fn classic_eof(mut self, status: StatusFlags) -> Self {
            if !self.caps.contains(Capabilities::DEPRECATE_EOF) {
                put_eof(&mut self.out, &mut self.seq, status, 0);
            }
            self
        }

        fn rows_end(mut self, status: StatusFlags) -> Self {
            if self.caps.contains(Capabilities::DEPRECATE_EOF) {
                let packet = OkPacket {
                    status,
                    ..OkPacket::default()
                };
                put_ok(
                    &mut self.out,
                    &mut self.seq,
                    &packet,
                    OkHeader::Eof,
                    self.caps,
                );
            } else {
                put_eof(&mut self.out, &mut self.seq, status, 0);
            }
            self
        }

        fn ok(mut self, packet: &OkPacket<'_>) -> Self {
            put_ok(
                &mut self.out,
                &mut self.seq,
                packet,
                OkHeader::Ok,
                self.caps,
            );
            self
        }

        fn err(mut self) -> Self {
            let packet = ErrPacket {
                code: 1317,
                sqlstate: *b"70100",
                message: b"interrupted",
            };
            put_err(&mut self.out, &mut self.seq, &packet, self.caps);
            self
        }

        fn result_set(self, rows: usize, status: StatusFlags) -> Self {
            let mut server = self
                .packet(b"\x02")
                .definitions(2)
                .classic_eof(StatusFlags::empty());
            for _ in 0..rows {
                server = server.packet(b"\x01a\xfb");
            }
            server.rows_end(status)
        }
    }

    /// One event without its borrow; neighbouring data joined.
    #[derive(Debug, PartialEq, Eq, Clone)]
    enum Seen {
        Data(usize),
        Ok(u64, OkHeader, bool),
        Eof(StatusFlags, bool),
        Err(u16),
        Infile,
        Prepared(u32, u16, u16, bool),
    }

    /// Feeds `bytes` in pieces of `step` bytes.
    fn follow(
        tracker: &mut ResponseTracker,
        bytes: &[u8],
        step: usize,
    ) -> Result<Vec<Seen>, ProtocolError> {
        let mut seen = Vec::new();
        let (mut from, mut to) = (0, 0);
        while !tracker.is_done() {
            let (len, event) = match tracker.next(&bytes[from..to])? {
                Event::NeedMore if to == bytes.len() => return Ok(seen),
                Event::NeedMore => {
                    to = (to + step).min(bytes.len());
                    continue;
                }
                Event::Data { len } => {
                    assert!(len > 0);
                    from += len;
                    match seen.last_mut() {
                        Some(Seen::Data(before)) => *before += len,
                        _ => seen.push(Seen::Data(len)),
                    }
                    continue;
                }
                Event::Ok {
                    len,
                    packet,
                    header,
                    last,
                    ..
                } => (len, Seen::Ok(packet.affected_rows, header, last)),
                Event::Eof {
                    len, status, last, ..
                } => (len, Seen::Eof(status, last)),
                Event::Err { len, packet, .. } => (len, Seen::Err(packet.code)),
                Event::LocalInfile { len } => (len, Seen::Infile),
                Event::Prepared {
                    len,
                    statement,
                    columns,
                    parameters,
                    last,
                    ..
                } => (len, Seen::Prepared(statement, columns, parameters, last)),
            };
            from += len;
            seen.push(event);
            assert!(from <= to);
            if tracker.state == State::Infile {
                return Ok(seen);
            }
        }
        assert_eq!(from, bytes.len(), "the tracker stopped early");
        Ok(seen)
    }

    #[track_caller]
    fn assert_follows(expect: Expect, server: &Server, expected: &[Seen]) {
        for step in [1, 2, 3, 5, 7, 64, usize::MAX / 2] {
            let mut tracker = ResponseTracker::new(expect, server.caps);
            assert_eq!(
                follow(&mut tracker, &server.out, step).as_deref(),
                Ok(expected),
                "step {step}"
            );
        }
    }

    #[test]
    fn ok_err_and_more_results() {
        for caps in [CLASSIC, MODERN] {
            let more = OkPacket {
                affected_rows: 5,
                status: StatusFlags::MORE_RESULTS,
                ..OkPacket::default()
            };
            let server = Server::new(caps).ok(&more).ok(&OkPacket::default());
            assert_follows(
                Expect::Query,
                &server,
                &[
                    Seen::Ok(5, OkHeader::Ok, false),
                    Seen::Ok(0, OkHeader::Ok, true),
                ],
            );
            assert_follows(Expect::Query, &Server::new(caps).err(), &[Seen::Err(1317)]);
            let server = Server::new(caps).ok(&more).err();
            assert_follows(
                Expect::Query,
                &server,
                &[Seen::Ok(5, OkHeader::Ok, false), Seen::Err(1317)],
            );
        }
    }

    #[test]
    fn result_sets() {
        let server = Server::new(CLASSIC).result_set(3, StatusFlags::AUTOCOMMIT);
        assert_follows(
            Expect::Query,
            &server,
            &[
                Seen::Data(server.out.len() - 9),
                Seen::Eof(StatusFlags::AUTOCOMMIT, true),
            ],
        );
        let server = Server::new(MODERN).result_set(3, StatusFlags::AUTOCOMMIT);
        assert_follows(
            Expect::Query,
            &server,
            &[
                Seen::Data(server.out.len() - 11),
                Seen::Ok(0, OkHeader::Eof, true),
            ],
        );
        let mut tracker = ResponseTracker::new(Expect::Query, MODERN);
        follow(&mut tracker, &server.out, 10).unwrap();
        assert_eq!(tracker.rows(), 3);
    }

    #[test]
    fn a_procedure_ends_with_its_own_ok() {
        let more = StatusFlags::MORE_RESULTS;
        let first = Server::new(CLASSIC).result_set(1, more);
        let data = first.out.len() - 9;
        let server = first.result_set(0, more).ok(&OkPacket::default());
        let second = server.out.len() - data - 9 - 9 - 11;
        for expect in [Expect::Query, Expect::Execute] {
            assert_follows(
                expect,
                &server,
                &[
                    Seen::Data(data),
                    Seen::Eof(more, false),
                    Seen::Data(second),
                    Seen::Eof(more, false),
                    Seen::Ok(0, OkHeader::Ok, true),
                ],
            );
        }
    }

    #[test]
    fn binary_rows_are_not_ok_packets() {
        for (caps, end) in [
            (CLASSIC, Seen::Eof(StatusFlags::empty(), true)),
            (MODERN, Seen::Ok(0, OkHeader::Eof, true)),
        ] {
            let server = Server::new(caps)
                .packet(b"\x01")
                .definitions(1)
                .classic_eof(StatusFlags::empty());
            let server = server
                .packet(b"\0\0\x01\0\0\0")
                .packet(b"\0\x04")
                .rows_end(StatusFlags::empty());
            let tail = if caps == CLASSIC { 9 } else { 11 };
            assert_follows(
                Expect::Execute,
                &server,
                &[Seen::Data(server.out.len() - tail), end],
            );
        }
    }

    #[test]
    fn out_parameters_are_followed_by_an_ok_that_only_the_first_eof_announces() {
        let server = Server::new(CLASSIC)
            .packet(b"\x01")
            .definitions(1)
            .classic_eof(StatusFlags::MORE_RESULTS | StatusFlags::PS_OUT_PARAMS)
            .packet(b"\0\0\x07\0\0\0")
            .classic_eof(StatusFlags::AUTOCOMMIT)
            .ok(&OkPacket::default());
        assert_follows(
            Expect::Execute,
            &server,
            &[
                Seen::Data(server.out.len() - 9 - 11),
                Seen::Eof(StatusFlags::AUTOCOMMIT, false),
                Seen::Ok(0, OkHeader::Ok, true),
            ],
        );
    }

    #[test]
    fn progress_is_no_answer() {
        let caps = CLASSIC | Capabilities::PROGRESS;
        let progress = b"\xff\xff\xff\x01\x01\x02\x10\x27\0\x04copy";
        let server = Server::new(caps)
            .packet(progress)
            .packet(progress)
            .ok(&OkPacket::default());
        for step in [1, 7, server.out.len()] {
            let mut tracker = ResponseTracker::new(Expect::Query, caps);
            assert_eq!(
                follow(&mut tracker, &server.out, step),
                Ok(vec![
                    Seen::Data(2 * (HEADER_LEN + progress.len())),
                    Seen::Ok(0, OkHeader::Ok, true)
                ])
            );
        }
        let only = Server::new(CLASSIC).packet(progress);
        assert_follows(Expect::Query, &only, &[Seen::Err(0xFFFF)]);
    }

    #[test]
    fn an_error_among_rows_or_definitions() {
        let server = Server::new(MODERN)
            .packet(b"\x01")
            .definitions(1)
            .packet(b"\xfb");
        let data = server.out.len();
        assert_follows(
            Expect::Query,
            &server.err(),
            &[Seen::Data(data), Seen::Err(1317)],
        );
        for caps in [CLASSIC, MODERN] {
            let server = Server::new(caps).packet(b"\x02").definitions(1);
            let data = server.out.len();
            assert_follows(
                Expect::Query,
                &server.err(),
                &[Seen::Data(data), Seen::Err(1317)],
            );
        }
        let server = Server::new(CLASSIC).packet(b"\x01").definitions(1);
        let data = server.out.len();
        assert_follows(
            Expect::Query,
            &server.err(),
            &[Seen::Data(data), Seen::Err(1317)],
        );
    }

    #[test]
    fn local_infile() {
        let server = Server::new(CLASSIC).packet(b"\xfb/tmp/file");
        let mut unasked = ResponseTracker::new(Expect::Query, CLASSIC);
        assert!(follow(&mut unasked, &server.out, 3).is_err());
        let offered = CLASSIC.union(Capabilities::LOCAL_FILES);
        let mut server = Server::new(offered).packet(b"\xfb/tmp/file");
        let mut tracker = ResponseTracker::new(Expect::Query, offered);
        assert_eq!(follow(&mut tracker, &server.out, 3), Ok(vec![Seen::Infile]));
        assert_eq!(tracker.next(b"\x01\0"), Ok(Event::NeedMore));
        tracker.local_infile_sent();
        server.out.clear();
        server.seq = 9;
        let server = server.ok(&OkPacket::default());
        assert_eq!(
            follow(&mut tracker, &server.out, 3),
            Ok(vec![Seen::Ok(0, OkHeader::Ok, true)])
        );
    }

    #[test]
    fn prepare() {
        for caps in [CLASSIC, MODERN] {
            for (parameters, columns) in [(0, 0), (2, 0), (0, 3), (2, 3)] {
                let ok = [
                    0,
                    7,
                    0,
                    0,
                    0,
                    columns as u8,
                    0,
                    parameters as u8,
                    0,
                    0,
                    1,
                    0,
                ];
                let mut server = Server::new(caps).packet(&ok);
                let start = server.out.len();
                for count in [parameters, columns] {
                    if count > 0 {
                        server = server.definitions(count).classic_eof(StatusFlags::empty());
                    }
                }
                let none = parameters + columns == 0;
                let mut expected = vec![Seen::Prepared(7, columns as u16, parameters as u16, none)];
                if !none {
                    expected.push(Seen::Data(server.out.len() - start));
                }
                assert_follows(Expect::Prepare, &server, &expected);
            }
        }
    }

    #[test]
    fn prepare_without_metadata() {
        let caps = MODERN | Capabilities::OPTIONAL_RESULTSET_METADATA;
        let server = Server::new(caps).packet(&[0, 7, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0]);
        assert_follows(Expect::Prepare, &server, &[Seen::Prepared(7, 3, 2, true)]);

        // Without DEPRECATE_EOF the EOFs of the missing definitions come all the same.
        let caps = CLASSIC | Capabilities::OPTIONAL_RESULTSET_METADATA;
        let server = Server::new(caps)
            .packet(&[0, 7, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0])
            .classic_eof(StatusFlags::AUTOCOMMIT)
            .classic_eof(StatusFlags::AUTOCOMMIT);
        assert_follows(
            Expect::Prepare,
            &server,
            &[Seen::Prepared(7, 3, 2, false), Seen::Data(18)],
        );
        let server = Server::new(caps)
            .packet(&[2, 0])
            .classic_eof(StatusFlags::AUTOCOMMIT)
            .packet(b"\x01a\x01b")
            .rows_end(StatusFlags::AUTOCOMMIT);
        assert_follows(
            Expect::Query,
            &server,
            &[Seen::Data(23), Seen::Eof(StatusFlags::AUTOCOMMIT, true)],
        );
    }

    #[test]
    fn cursors() {
        let cursor = StatusFlags::CURSOR_EXISTS | StatusFlags::AUTOCOMMIT;
        let server = Server::new(CLASSIC).packet(b"\x01").definitions(1);
        let data = server.out.len();
        let server = server.classic_eof(cursor);
        assert_follows(
            Expect::Cursor,
            &server,
            &[Seen::Data(data), Seen::Eof(cursor, true)],
        );

        let server = Server::new(MODERN).packet(b"\x01").definitions(1);
        let data = server.out.len();
        let server = server.rows_end(cursor);
        assert_follows(
            Expect::Cursor,
            &server,
            &[Seen::Data(data), Seen::Ok(0, OkHeader::Eof, true)],
        );

        let last = cursor | StatusFlags::LAST_ROW_SENT;
        for (caps, end, tail) in [
            (CLASSIC, Seen::Eof(last, true), 9),
            (MODERN, Seen::Ok(0, OkHeader::Eof, true), 11),
        ] {
            let server = Server::new(caps)
                .packet(b"\0\0a")
                .packet(b"\0\0b")
                .rows_end(last);
            assert_follows(
                Expect::Fetch,
                &server,
                &[Seen::Data(server.out.len() - tail), end.clone()],
            );
            assert_follows(Expect::Fetch, &Server::new(caps).rows_end(last), &[end]);
            assert_follows(Expect::Fetch, &Server::new(caps).err(), &[Seen::Err(1317)]);
        }
    }

    #[test]
    fn a_cursor_inside_a_routine_is_not_the_clients() {
        let flag = StatusFlags::CURSOR_EXISTS;
        for (expect, status) in [
            (Expect::Execute, flag),
            (Expect::Execute, flag | StatusFlags::MORE_RESULTS),
            (Expect::Cursor, flag | StatusFlags::MORE_RESULTS),
        ] {
            let more = status.contains(StatusFlags::MORE_RESULTS);
            let server = Server::new(CLASSIC)
                .packet(b"\x01")
                .definitions(1)
                .classic_eof(status)
                .packet(b"\0\0\x01\0\0\0");
            let data = server.out.len();
            let mut server = server.classic_eof(status);
            let mut seen = vec![Seen::Data(data), Seen::Eof(status, !more)];
            if more {
                server = server.ok(&OkPacket::default());
                seen.push(Seen::Ok(0, OkHeader::Ok, true));
            }
            assert_follows(expect, &server, &seen);
        }
    }

    #[test]
    fn field_list_statistics_and_status() {
        let server = Server::new(CLASSIC)
            .definitions(2)
            .classic_eof(StatusFlags::empty());
        assert_follows(
            Expect::FieldList,
            &server,
            &[
                Seen::Data(server.out.len() - 9),
                Seen::Eof(StatusFlags::empty(), true),
            ],
        );
        assert_follows(
            Expect::FieldList,
            &Server::new(CLASSIC).err(),
            &[Seen::Err(1317)],
        );

        let server = Server::new(MODERN).packet(b"Uptime: 12  Threads: 1");
        assert_follows(Expect::Statistics, &server, &[Seen::Data(26)]);
        assert_follows(
            Expect::Statistics,
            &Server::new(MODERN).err(),
            &[Seen::Err(1317)],
        );

        assert_follows(
            Expect::Status,
            &Server::new(MODERN).ok(&OkPacket::default()),
            &[Seen::Ok(0, OkHeader::Ok, true)],
        );
        let server = Server::new(CLASSIC).rows_end(StatusFlags::AUTOCOMMIT);
        assert_follows(
            Expect::Status,
            &server,
            &[Seen::Eof(StatusFlags::AUTOCOMMIT, true)],
        );
        let server = Server::new(MODERN).rows_end(StatusFlags::AUTOCOMMIT);
        assert_follows(Expect::Status, &server, &[Seen::Ok(0, OkHeader::Eof, true)]);
    }

    #[test]
    fn huge_rows() {
        // The first value is so long that its length takes 0xFE and eight bytes; the second chunk begins with 0xFF.
        let mut row = vec![0xFE];
        row.extend((MAX_PAYLOAD as u64 + 10).to_le_bytes());
        row.resize(9 + MAX_PAYLOAD + 10, 0xFF);
        for len in [row.len(), 2 * MAX_PAYLOAD] {
            row.resize(len, 0xFF);
            for caps in [CLASSIC, MODERN] {
                let server = Server::new(caps)
                    .packet(b"\x01")
                    .definitions(1)
                    .classic_eof(StatusFlags::empty());
                let server = server.packet(&row).packet(b"\x01b");
                let data = server.out.len();
                let server = server.err();
                for step in [4093, 1 << 20, server.out.len()] {
                    let mut tracker = ResponseTracker::new(Expect::Query, caps);
                    let seen = follow(&mut tracker, &server.out, step);
                    assert_eq!(seen, Ok(vec![Seen::Data(data), Seen::Err(1317)]));
                    assert_eq!(tracker.rows(), 2);
                }
            }
        }
    }

    #[test]
    fn sequence_ids_are_checked() {
        let mut server = Server::new(CLASSIC).result_set(300, StatusFlags::empty());
        assert!(
            follow(
                &mut ResponseTracker::new(Expect::Query, CLASSIC),
                &server.out,
                100
            )
            .is_ok()
        );
        let last = server.out.len() - 6;
        server.out[last] ^= 1;
        assert!(matches!(
            follow(
                &mut ResponseTracker::new(Expect::Query, CLASSIC),
                &server.out,
                100
            ),
            Err(ProtocolError::Sequence { .. })
        ));

        let stale = b"\x07\0\0\x02\0\0\0\x02\0\0\0";
        let tracker = ResponseTracker::new(Expect::Query, CLASSIC);
        assert!(tracker.clone().next(stale).is_err());
        assert!(tracker.with_first_seq(2).next(stale).is_ok());
    }

    #[test]
    fn a_farewell_may_have_any_sequence_id() {
        let bye = b"\x0c\0\0\0\xff\xbf\x0f#HY000bye";
        assert!(matches!(
            ResponseTracker::new(Expect::Query, CLASSIC).next(bye),
            Ok(Event::Err { seq: 0, .. })
        ));
        assert!(matches!(
            ResponseTracker::new(Expect::Fetch, CLASSIC).next(bye),
            Ok(Event::Err { seq: 0, .. })
        ));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [
            &b"\0\0\0\x01\0"[..],                // no payload
            b"\xff\xff\xff\x01\0",               // an OK packet of 16 MiB
            b"\x02\0\0\x01\xfd\0",               // column count cut short
            b"\x04\0\0\x01\xfd\0\0\x01",         // 65536 columns
            b"\x02\0\0\x01\x01\x01",             // something after the count
            b"\x05\0\0\x01\xfe\0\0\0\0",         // EOF in place of a result
            b"\x01\0\0\x01\x01\x01\0\0\x03\x03", // sequence
        ] {
            assert!(
                ResponseTracker::new(Expect::Query, CLASSIC)
                    .next(bytes)
                    .is_err()
                    || {
                        let mut tracker = ResponseTracker::new(Expect::Query, CLASSIC);
                        let Ok(Event::Data { len }) = tracker.next(bytes) else {
                            panic!("{bytes:?}")
                        };
                        tracker.next(&bytes[len..]).is_err()
                    }
            );
        }
        assert!(
            ResponseTracker::new(Expect::Status, CLASSIC)
                .next(b"\x01\0\0\x01\x05")
                .is_err()
        );
        assert!(
            ResponseTracker::new(Expect::Prepare, CLASSIC)
                .next(b"\x03\0\0\x01\0\0\0")
                .is_err()
        );
    }
}
