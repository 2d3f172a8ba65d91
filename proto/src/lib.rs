//! The MySQL wire protocol, sans-IO: bytes in, events out, bytes back.

pub mod gtid;
