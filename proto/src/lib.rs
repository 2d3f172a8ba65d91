//! The MySQL wire protocol, sans-IO: bytes in, events out, bytes back.
//!
//! Nothing here reads a socket, a clock or a random source. Parsers borrow from the caller's buffer, writers append to the
//! caller's [`bytes::BytesMut`], state machines take a payload and answer with what to send. Input is hostile by assumption:
//! a wrong byte gives a [`ProtocolError`], never a panic and never an allocation larger than the bytes received.
//!
//! The protocol's own description is the MySQL internals manual
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>) and MariaDB's
//! (<https://mariadb.com/kb/en/clientserver-protocol/>); items name the page they follow where the two differ.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

pub mod capability;
pub mod codec;
pub mod command;
pub mod compress;
mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod gtid;
pub mod handshake;
pub mod packet;
pub mod reply;
pub mod response;
pub mod resultset;
pub mod rows;
pub mod track;

pub use capability::{Capabilities, StatusFlags};
pub use error::ProtocolError;
