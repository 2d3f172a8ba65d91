//! Commands: what a client asks, decoded by borrow, and writers for what is sent to a server.
//!
//! Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_command_phase.html>.

use bytes::{BufMut, BytesMut};

use crate::codec::{Reader, put_lenenc};
use crate::packet::{self, put_packet_with};
use crate::response::Expect;
use crate::{Capabilities, ProtocolError};

/// Command codes, the first byte of a command's payload.
#[allow(missing_docs)]
pub mod code {
    pub const QUIT: u8 = 0x01;
    pub const INIT_DB: u8 = 0x02;
    pub const QUERY: u8 = 0x03;
    pub const FIELD_LIST: u8 = 0x04;
    pub const REFRESH: u8 = 0x07;
    pub const SHUTDOWN: u8 = 0x08;
    pub const STATISTICS: u8 = 0x09;
    pub const PROCESS_INFO: u8 = 0x0A;
    pub const PROCESS_KILL: u8 = 0x0C;
    pub const DEBUG: u8 = 0x0D;
    pub const PING: u8 = 0x0E;
    pub const CHANGE_USER: u8 = 0x11;
    pub const BINLOG_DUMP: u8 = 0x12;
    pub const REGISTER_SLAVE: u8 = 0x15;
    pub const STMT_PREPARE: u8 = 0x16;
    pub const STMT_EXECUTE: u8 = 0x17;
    pub const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub const STMT_CLOSE: u8 = 0x19;
    pub const STMT_RESET: u8 = 0x1A;
    pub const SET_OPTION: u8 = 0x1B;
    pub const STMT_FETCH: u8 = 0x1C;
    pub const BINLOG_DUMP_GTID: u8 = 0x1E;
    pub const RESET_CONNECTION: u8 = 0x1F;
    pub const CLONE: u8 = 0x20;
    pub const SUBSCRIBE_GROUP_REPLICATION_STREAM: u8 = 0x21;
    pub const STMT_BULK_EXECUTE: u8 = 0xFA;
}

/// Flags of COM_STMT_EXECUTE.
pub mod execute_flag {
    /// The rows are to be fetched from a cursor. Of the other kinds of cursor servers know the flags alone.
    pub const CURSOR: u8 = 0x01;
    /// The number of parameters stands in front of them, query attributes counted among them, although the statement has none
    /// itself. Where parameters are [`named`](super::Execute::named) and it has some, their number always does.
    pub const PARAMETER_COUNT_AVAILABLE: u8 = 0x08;
}

/// Flags of COM_STMT_BULK_EXECUTE.
pub mod bulk_flag {
    /// The parameters' types stand in front of the rows.
    pub const SEND_TYPES: u16 = 128;
}

/// One command, borrowed from its payload. Text is bytes: its character set is the session's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// The client goes. No response.
    Quit,
    /// Change the default schema.
    InitDb(&'a [u8]),
    /// Run the text, which may be several statements. Query attributes in front of it are skipped.
    Query(&'a [u8]),
    /// Column definitions of a table.
    FieldList {
        /// The table.
        table: &'a [u8],
        /// LIKE pattern for the columns; empty: all.
        wildcard: &'a [u8],
    },
    /// FLUSH, by bits.
    Refresh(u8),
    /// One line of server statistics.
    Statistics,
    /// SHOW PROCESSLIST.
    ProcessInfo,
    /// KILL of a connection id.
    ProcessKill(u32),
    /// The server writes debug information to its log.
    Debug,
    /// Are you there.
    Ping,
    /// Log in again on the same connection.
    ChangeUser(ChangeUser<'a>),
    /// Forget the session's state, stay logged in.
    ResetConnection,
    /// 0: multi-statements on, 1: off.
    SetOption(u16),
    /// Prepare the text.
    StmtPrepare(&'a [u8]),
    /// Run a prepared statement.
    StmtExecute(Execute<'a>),
    /// Run a prepared statement once for each of several rows of parameters (MariaDB).
    StmtBulkExecute(BulkExecute<'a>),
    /// A piece of a parameter's value. No response.
    StmtSendLongData {
        /// Statement id.
        statement: u32,
        /// Parameter, counted from 0.
        parameter: u16,
        /// The piece.
        data: &'a [u8],
    },
    /// Forget a prepared statement. No response.
    StmtClose(u32),
    /// Forget long data and the cursor of a prepared statement.
    StmtReset(u32),
    /// Rows from a cursor.
    StmtFetch {
        /// Statement id.
        statement: u32,
        /// How many rows at most.
        rows: u32,
    },
    /// Everything else, such as replication's commands.
    Other {
        /// The command code.
        code: u8,
        /// The payload after it.
        body: &'a [u8],
    },
}

impl<'a> Command<'a> {
    /// Decodes a command's payload. `caps` is what was negotiated with the client.
    ///
    /// # Errors
    /// An empty payload, or an element cut short.
    pub fn parse(payload: &'a [u8], caps: Capabilities) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        let code = reader.u8("command code")?;
        Ok(match code {
            code::QUIT => Self::Quit,
            code::INIT_DB => Self::InitDb(reader.rest()),
            code::QUERY => {
                if caps.contains(Capabilities::QUERY_ATTRIBUTES) {
                    skip_query_attributes(&mut reader)?;
                }
                Self::Query(reader.rest())
            }
            code::FIELD_LIST => Self::FieldList {
                table: reader.nul_bytes("table name")?,
                wildcard: reader.nul_bytes_or_rest(),
            },
            code::REFRESH => Self::Refresh(reader.u8("refresh flags")?),
            code::STATISTICS => Self::Statistics,
            code::PROCESS_INFO => Self::ProcessInfo,
            code::PROCESS_KILL => Self::ProcessKill(reader.u32("connection id")?),
            code::DEBUG => Self::Debug,
            code::PING => Self::Ping,
            code::CHANGE_USER => Self::ChangeUser(ChangeUser::parse(reader, caps)?),
            code::RESET_CONNECTION => Self::ResetConnection,
            code::SET_OPTION => Self::SetOption(reader.u16("option")?),
            code::STMT_PREPARE => Self::StmtPrepare(reader.rest()),
            code::STMT_EXECUTE => Self::StmtExecute(Execute::parse(reader, caps)?),
            code::STMT_BULK_EXECUTE if caps.contains(Capabilities::STMT_BULK_OPERATIONS) => {
                Self::StmtBulkExecute(BulkExecute::parse(reader)?)
            }
            code::STMT_SEND_LONG_DATA => Self::StmtSendLongData {
                statement: reader.u32("statement id")?,
                parameter: reader.u16("parameter number")?,
                data: reader.rest(),
            },
            code::STMT_CLOSE => Self::StmtClose(reader.u32("statement id")?),
            code::STMT_RESET => Self::StmtReset(reader.u32("statement id")?),
            code::STMT_FETCH => Self::StmtFetch {
                statement: reader.u32("statement id")?,
                rows: reader.u32("row count")?,
            },
            code => Self::Other {
                code,
                body: reader.rest(),
            },
        })
    }

    /// The shape of the server's response; `None` where there is none, or where the conversation that follows is not a
    /// response (COM_CHANGE_USER is a login, [`Command::Other`] is unknown).
    pub const fn expect(&self) -> Option<Expect> {
        Some(match self {
            Self::Query(_) | Self::ProcessInfo => Expect::Query,
            Self::StmtExecute(execute) => execute.expect(),
            Self::StmtBulkExecute(_) => Expect::Execute,
            Self::StmtPrepare(_) => Expect::Prepare,
            Self::FieldList { .. } => Expect::FieldList,
            Self::StmtFetch { .. } => Expect::Fetch,
            Self::Statistics => Expect::Statistics,
            Self::InitDb(_)
            | Self::Refresh(_)
            | Self::ProcessKill(_)
            | Self::Debug
            | Self::Ping
            | Self::ResetConnection
            | Self::SetOption(_)
            | Self::StmtReset(_) => Expect::Status,
            Self::Quit
            | Self::StmtSendLongData { .. }
            | Self::StmtClose(_)
            | Self::ChangeUser(_)
            | Self::Other { .. } => {
                return None;
            }
        })
    }
}

/// COM_CHANGE_USER.
///
/// Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_change_user.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeUser<'a> {
    /// User name.
    pub user: &'a [u8],
    /// The answer to the scramble of the connection's greeting.
    pub auth_response: &'a [u8],
    /// Default schema; `None` when empty.
    pub database: Option<&'a [u8]>,
    /// Collation id; `None` from clients that do not send one.
    pub collation: Option<u16>,
    /// The plugin that `auth_response` is for; `None` from clients without PLUGIN_AUTH.
    pub plugin: Option<&'a [u8]>,
    /// Connection attributes.
    pub attributes: ConnectAttributes<'a>,
}

impl<'a> ChangeUser<'a> {
    fn parse(mut reader: Reader<'a>, caps: Capabilities) -> Result<Self, ProtocolError> {
        let user = reader.nul_bytes("user name")?;
        let auth_response = if caps.contains(Capabilities::SECURE_CONNECTION) {
            let len = reader.u8("auth response")?;
            reader.bytes(usize::from(len), "auth response")?
        } else {
            reader.nul_bytes("auth response")?
        };
        let database = Some(reader.nul_bytes_or_rest()).filter(|name| !name.is_empty());
        let collation = if reader.is_empty() {
            None
        } else {
            Some(reader.u16("collation")?)
        };
        let plugin = if caps.contains(Capabilities::PLUGIN_AUTH) && !reader.is_empty() {
            Some(reader.nul_bytes_or_rest())
        } else {
            None
        };
        let attributes = if caps.contains(Capabilities::CONNECT_ATTRS) {
            ConnectAttributes::parse(&mut reader)?
        } else {
            ConnectAttributes::default()
        };
        Ok(Self {
            user,
            auth_response,
            database,
            collation,
            plugin,
            attributes,
        })
    }
}

/// Connection attributes: pairs of name and value, as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectAttributes<'a> {
    block: &'a [u8],
}

impl<'a> ConnectAttributes<'a> {
    /// Takes the block with its total length from `reader`; some clients announce attributes and send none.
    pub(crate) fn parse(reader: &mut Reader<'a>) -> Result<Self, ProtocolError> {
        let block = if reader.is_empty() {
            &[]
        } else {
            reader.lenenc_bytes("connection attributes")?
        };
        Ok(Self { block })
    }

    /// The pairs in the order sent; ends early at a pair that is cut short.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut reader = Reader::new(self.block);
        std::iter::from_fn(move || {
            let name = reader.lenenc_bytes("attribute name").ok()?;
            let value = reader.lenenc_bytes("attribute value").ok()?;
            Some((name, value))
        })
    }

    /// The value of the attribute `name`.
    pub fn find(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// COM_STMT_EXECUTE.
///
/// Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_execute.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Statement id. MariaDB reads 0xFFFF_FFFF as the statement prepared last.
    pub statement: u32,
    /// See [`execute_flag`].
    pub flags: u8,
    /// Always 1.
    pub iterations: u32,
    /// [`Capabilities::QUERY_ATTRIBUTES`] is in force: parameters have names.
    pub named: bool,
    /// Everything behind; what it holds depends on the number of parameters.
    pub body: &'a [u8],
}

impl<'a> Execute<'a> {
    /// Decodes what follows the command's code. `body` may be cut short.
    ///
    /// # Errors
    /// An element cut short.
    fn parse(mut reader: Reader<'a>, caps: Capabilities) -> Result<Self, ProtocolError> {
        Ok(Self {
            statement: reader.u32("statement id")?,
            flags: reader.u8("cursor flags")?,
            iterations: reader.u32("iteration count")?,
            named: caps.contains(Capabilities::QUERY_ATTRIBUTES),
            body: reader.rest(),
        })
    }

    /// The shape of the server's response.
    pub const fn expect(&self) -> Expect {
        Self::expects(self.flags)
    }

    /// The shape of the response to an execution with these cursor flags.
    pub const fn expects(flags: u8) -> Expect {
        if flags & execute_flag::CURSOR == 0 {
            Expect::Execute
        } else {
            Expect::Cursor
        }
    }

    /// Splits the body for a statement with `count` parameters.
    ///
    /// # Errors
    /// A body too short for that many parameters.
    pub fn parameters(&self, count: usize) -> Result<Parameters<'a>, ProtocolError> {
        let mut reader = Reader::new(self.body);
        let announced = self.flags & execute_flag::PARAMETER_COUNT_AVAILABLE != 0;
        let counted = self.named && (count > 0 || announced);
        let count = if counted {
            let count = reader.lenenc("parameter count")?;
            usize::try_from(count).map_err(|_| ProtocolError::Malformed("parameter count"))?
        } else {
            count
        };
        let mut parameters = Parameters {
            count: counted.then_some(count),
            null_bitmap: &[],
            types: None,
            values: &[],
        };
        if count == 0 {
            return Ok(parameters);
        }
        parameters.null_bitmap = reader.bytes(count.div_ceil(8), "NULL bitmap")?;
        if reader.u8("new-params-bound flag")? != 0 {
            let mut rest = reader;
            let types = first_types(rest.rest(), count, self.named)
                .ok_or(ProtocolError::Truncated("parameter types"))?;
            parameters.types = Some(reader.bytes(types.len(), "parameter types")?);
        }
        parameters.values = reader.rest();
        Ok(parameters)
    }
}

/// The parameters of a COM_STMT_EXECUTE, not decoded any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters<'a> {
    /// Their number, if the command says it: those of the statement and the query attributes behind them.
    pub count: Option<usize>,
    /// One bit per parameter.
    pub null_bitmap: &'a [u8],
    /// The types if they were sent with this execution, otherwise those of the execution before count: two bytes per parameter
    /// (type, and 0x80 for unsigned), each followed by a name where parameters are [`named`](Execute::named).
    pub types: Option<&'a [u8]>,
    /// The values of the parameters that are neither NULL nor sent as long data.
    pub values: &'a [u8],
}

/// The types of the first `count` parameters of a block that an execution brought along; `None` if it has fewer.
pub fn first_types(block: &[u8], count: usize, named: bool) -> Option<&[u8]> {
    let mut rest = Reader::new(block);
    if named {
        for _ in 0..count {
            rest.u16("parameter types").ok()?;
            rest.lenenc_bytes("parameter name").ok()?;
        }
    } else {
        rest.bytes(count.checked_mul(2)?, "parameter types").ok()?;
    }
    block.get(..block.len() - rest.remaining())
}

/// Appends a COM_STMT_EXECUTE like `execute` of a statement with the id `statement`. With the parameters' `types`
/// (`new_params_bound` = 1) it is complete on a connection that never ran the statement.
pub fn put_execute(
    out: &mut BytesMut,
    seq: &mut u8,
    statement: u32,
    execute: &Execute<'_>,
    parameters: &Parameters<'_>,
    types: Option<&[u8]>,
) {
    let Parameters {
        null_bitmap,
        values,
        ..
    } = parameters;
    let block = types.unwrap_or_default();
    out.reserve(packet::HEADER_LEN + 20 + null_bitmap.len() + block.len() + values.len());
    put_packet_with(out, seq, |out| {
        out.put_u8(code::STMT_EXECUTE);
        out.put_u32_le(statement);
        out.put_u8(execute.flags);
        out.put_u32_le(execute.iterations);
        if let Some(count) = parameters.count {
            put_lenenc(out, count as u64);
        }
        if !null_bitmap.is_empty() {
            out.put_slice(null_bitmap);
            out.put_u8(u8::from(types.is_some()));
            out.put_slice(block);
            out.put_slice(values);
        }
    });
}

/// COM_STMT_BULK_EXECUTE.
///
/// Source: <https://mariadb.com/kb/en/com_stmt_bulk_execute/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkExecute<'a> {
    /// Statement id. 0xFFFF_FFFF is the statement prepared last.
    pub statement: u32,
    /// See [`bulk_flag`].
    pub flags: u16,
    /// Types, if they are sent, and rows.
    pub body: &'a [u8],
}

impl<'a> BulkExecute<'a> {
    fn parse(mut reader: Reader<'a>) -> Result<Self, ProtocolError> {
        Ok(Self {
            statement: reader.u32("statement id")?,
            flags: reader.u16("bulk flags")?,
            body: reader.rest(),
        })
    }

    /// Splits the body of a statement with `count` parameters into their types, if they are sent, and the rows.
    ///
    /// # Errors
    /// A body too short for that many parameters.
    pub fn split(&self, count: usize) -> Result<(Option<&'a [u8]>, &'a [u8]), ProtocolError> {
        let mut reader = Reader::new(self.body);
        let types = if self.flags & bulk_flag::SEND_TYPES != 0 {
            Some(reader.bytes(count.saturating_mul(2), "parameter types")?)
        } else {
            None
        };
        Ok((types, reader.rest()))
    }
}

/// Appends a COM_STMT_BULK_EXECUTE with the parameters' types, so that it is complete on a connection that never ran the statement.
pub fn put_bulk_execute(
    out: &mut BytesMut,
    seq: &mut u8,
    statement: u32,
    flags: u16,
    types: &[u8],
    rows: &[u8],
) {
    out.reserve(packet::HEADER_LEN + 7 + types.len() + rows.len());
    put_packet_with(out, seq, |out| {
        out.put_u8(code::STMT_BULK_EXECUTE);
        out.put_u32_le(statement);
        out.put_u16_le(flags | bulk_flag::SEND_TYPES);
        out.put_slice(types);
        out.put_slice(rows);
    });
}

/// Appends a COM_QUERY of the proxy's own, in the layout that `caps` ask for.
pub fn put_query(out: &mut BytesMut, text: &[u8], caps: Capabilities) {
    out.reserve(packet::HEADER_LEN + 3 + text.len());
    put_packet_with(out, &mut 0, |out| {
        out.put_u8(code::QUERY);
        if caps.contains(Capabilities::QUERY_ATTRIBUTES) {
            // No attributes, in one set.
            out.put_slice(&[0, 1]);
        }
        out.put_slice(text);
    });
}

/// Appends a command: its code and body, with sequence ids from 0. Answers with the sequence id that the response begins with, for
/// [`ResponseTracker::with_first_seq`](crate::response::ResponseTracker::with_first_seq); it is 1 unless the body is huge.
pub fn put_command(out: &mut BytesMut, code: u8, body: &[u8]) -> u8 {
    out.reserve(packet::HEADER_LEN + 1 + body.len());
    let mut seq = 0;
    put_packet_with(out, &mut seq, |out| {
        out.put_u8(code);
        out.put_slice(body);
    });
    seq
}

/// Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query.html>.
fn skip_query_attributes(reader: &mut Reader<'_>) -> Result<(), ProtocolError> {
    let count = reader.lenenc("query attribute count")?;
    reader.lenenc("query attribute set count")?;
    if count == 0 {
        return Ok(());
    }
    // Each attribute takes at least three bytes, which also bounds the walks below.
    let count = usize::try_from(count)
        .ok()
        .filter(|&count| count <= reader.remaining());
    let count = count.ok_or(ProtocolError::Truncated("query attributes"))?;
    let null_bitmap = reader.bytes(count.div_ceil(8), "NULL bitmap")?;
    if reader.u8("new-params-bound flag")? != 1 {
        return Err(ProtocolError::Malformed("new-params-bound flag"));
    }
    let mut types = *reader;
    for _ in 0..count {
        reader.u16("query attribute type")?;
        reader.lenenc_bytes("query attribute name")?;
    }
    for index in 0..count {
        let kind = types.u16("query attribute type")? as u8;
        types.lenenc_bytes("query attribute name")?;
        let null = null_bitmap
            .get(index / 8)
            .is_some_and(|byte| byte >> (index % 8) & 1 == 1);
        if !null {
            skip_binary_value(reader, kind)?;
        }
    }
    Ok(())
}

/// Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html#sect_protocol_binary_resultset_row_value>.
pub(crate) fn skip_binary_value(reader: &mut Reader<'_>, kind: u8) -> Result<(), ProtocolError> {
    const WHAT: &str = "binary value";
    let len = match kind {
        // TINY; SHORT, YEAR; LONG, FLOAT, INT24; DOUBLE, LONGLONG; NULL
        0x01 => 1,
        0x02 | 0x0D => 2,
        0x03 | 0x04 | 0x09 => 4,
        0x05 | 0x08 => 8,
        0x06 => 0,
        // TIMESTAMP, DATE, TIME, DATETIME carry their length in a byte
        0x07 | 0x0A | 0x0B | 0x0C => usize::from(reader.u8(WHAT)?),
        // DECIMAL, VARCHAR, BIT, JSON, NEWDECIMAL, ENUM, SET, blobs, VAR_STRING, STRING, GEOMETRY
        0x00 | 0x0F | 0x10 | 0xF5..=0xFF => return reader.lenenc_bytes(WHAT).map(drop),
        _ => return Err(ProtocolError::Malformed("type of a binary value")),
    };
    reader.bytes(len, WHAT).map(drop)
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

    const CAPS: Capabilities = Capabilities::SECURE_CONNECTION
        .union(Capabilities::PLUGIN_AUTH)
        .union(Capabilities::CONNECT_ATTRS);

    fn parse(payload: &[u8]) -> Result<Command<'_>, ProtocolError> {
        Command::parse(payload, CAPS)
    }

    #[test]
    fn simple_commands() {
        assert_eq!(parse(b"\x01"), Ok(Command::Quit));
        assert_eq!(parse(b"\x02shop"), Ok(Command::InitDb(b"shop")));
        assert_eq!(parse(b"\x03SELECT 1"), Ok(Command::Query(b"SELECT 1")));
        assert_eq!(parse(b"\x03"), Ok(Command::Query(b"")));
        assert_eq!(
            parse(b"\x04t\0a%"),
            Ok(Command::FieldList {
                table: b"t",
                wildcard: b"a%"
            })
        );
        assert_eq!(parse(b"\x0c\x2a\0\0\0"), Ok(Command::ProcessKill(42)));
        assert_eq!(parse(b"\x0e"), Ok(Command::Ping));
        assert_eq!(parse(b"\x1b\x01\0"), Ok(Command::SetOption(1)));
        assert_eq!(parse(b"\x19\x01\0\0\0"), Ok(Command::StmtClose(1)));
        assert_eq!(
            parse(b"\x1c\x01\0\0\0\x02\0\0\0"),
            Ok(Command::StmtFetch {
                statement: 1,
                rows: 2
            })
        );
        assert_eq!(
            parse(b"\x12abc"),
            Ok(Command::Other {
                code: 0x12,
                body: b"abc"
            })
        );
        assert!(parse(b"").is_err());
        assert!(parse(b"\x0c\x2a\0\0").is_err());
    }

    #[test]
    fn change_user_of_every_age() {
        let new = b"\x11ann\0\x02xyshop\0\x2d\0mysql_native_password\0\x08\x03_os\x03bsd";
        let Ok(Command::ChangeUser(command)) = parse(new) else {
            panic!()
        };
        assert_eq!(command.user, b"ann");
        assert_eq!(command.auth_response, b"xy");
        assert_eq!(command.database, Some(&b"shop"[..]));
        assert_eq!(command.collation, Some(45));
        assert_eq!(command.plugin, Some(&b"mysql_native_password"[..]));
        assert_eq!(command.attributes.find(b"_os"), Some(&b"bsd"[..]));

        let Ok(Command::ChangeUser(old)) =
            Command::parse(b"\x11ann\0\0\0", Capabilities::SECURE_CONNECTION)
        else {
            panic!()
        };
        assert_eq!(
            (old.auth_response, old.database, old.collation, old.plugin),
            (&b""[..], None, None, None)
        );
    }

    #[test]
    fn execute_round_trip() {
        let mut out = BytesMut::new();
        let sent = Execute {
            statement: 1,
            flags: 1,
            iterations: 1,
            named: false,
            body: &[0b10, 0, 9, 0, 0, 0],
        };
        let values = sent.parameters(2).unwrap();
        put_execute(&mut out, &mut 0, 7, &sent, &values, Some(&[3, 0, 0xFD, 0]));
        let Ok(Command::StmtExecute(execute)) = parse(&out[4..]) else {
            panic!()
        };
        assert_eq!(
            (execute.statement, execute.flags, execute.iterations),
            (7, 1, 1)
        );
        let parameters = execute.parameters(2).unwrap();
        assert_eq!(parameters.null_bitmap, [0b10]);
        assert_eq!(parameters.types, Some(&[3, 0, 0xFD, 0][..]));
        assert_eq!(parameters.values, [9, 0, 0, 0]);
        assert!(execute.parameters(1000).is_err());
        assert!(execute.parameters(usize::MAX).is_err());

        let mut none = BytesMut::new();
        let sent = Execute {
            flags: 0,
            body: &[],
            ..sent
        };
        let no_values = sent.parameters(0).unwrap();
        put_execute(&mut none, &mut 0, 7, &sent, &no_values, None);
        assert_eq!(&none[..], b"\x0a\0\0\0\x17\x07\0\0\0\0\x01\0\0\0");
    }

    #[test]
    fn rebound_types_are_absent() {
        let execute = Execute {
            statement: 1,
            flags: 0,
            iterations: 1,
            named: false,
            body: &[0, 0, 5],
        };
        let parameters = execute.parameters(3).unwrap();
        assert_eq!((parameters.types, parameters.values), (None, &[5][..]));
    }

    #[test]
    fn attributes_of_an_execution_are_carried() {
        let caps = Capabilities::QUERY_ATTRIBUTES;
        // One parameter, and one attribute "id".
        let payload = b"\x17\x05\0\0\0\x08\x01\0\0\0\x02\0\x01\x03\0\0\xfe\0\x02id\x09\0\0\0\x01x";
        let Ok(Command::StmtExecute(execute)) = Command::parse(payload, caps) else {
            panic!()
        };
        let parameters = execute.parameters(1).unwrap();
        assert_eq!(parameters.count, Some(2));
        assert_eq!(parameters.types, Some(&b"\x03\0\0\xfe\0\x02id"[..]));
        assert_eq!(parameters.values, b"\x09\0\0\0\x01x");
        let mut out = BytesMut::new();
        put_execute(&mut out, &mut 0, 5, &execute, &parameters, parameters.types);
        assert_eq!(&out[4..], payload);
        for end in 10..payload.len() - 6 {
            let Ok(Command::StmtExecute(cut)) = Command::parse(&payload[..end], caps) else {
                panic!()
            };
            assert!(cut.parameters(1).is_err(), "{end}");
        }
    }

    #[test]
    fn bulk_executions_are_completed() {
        let caps = Capabilities::STMT_BULK_OPERATIONS;
        let payload = b"\xfa\xff\xff\xff\xff\x80\0\x03\0\0\x01\0\0\0";
        let Ok(Command::StmtBulkExecute(bulk)) = Command::parse(payload, caps) else {
            panic!()
        };
        let (types, rows) = bulk.split(1).unwrap();
        assert_eq!((types, rows), (Some(&[3, 0][..]), &b"\0\x01\0\0\0"[..]));
        assert!(bulk.split(9).is_err());
        let mut out = BytesMut::new();
        put_bulk_execute(&mut out, &mut 0, u32::MAX, 0, &[3, 0], rows);
        assert_eq!(&out[4..], payload);
        assert!(matches!(
            Command::parse(payload, Capabilities::empty()),
            Ok(Command::Other { code: 0xFA, .. })
        ));
    }

    #[test]
    fn query_attributes_are_skipped() {
        let caps = Capabilities::QUERY_ATTRIBUTES;
        assert_eq!(
            Command::parse(b"\x03\0\x01SELECT 1", caps),
            Ok(Command::Query(b"SELECT 1"))
        );
        let two = b"\x03\x02\x01\x02\x01\xfe\0\x02id\x03\0\x01n\x03abcSELECT 1";
        assert_eq!(Command::parse(two, caps), Ok(Command::Query(b"SELECT 1")));
        assert!(
            Command::parse(
                b"\x03\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01SELECT 1",
                caps
            )
            .is_err()
        );
    }
}
