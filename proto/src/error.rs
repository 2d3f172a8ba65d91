//! What can be wrong with bytes from a peer.

use std::fmt;

/// The peer broke the protocol, or uses a part of it that is not spoken here. The connection cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// The payload ends before the named element is complete.
    Truncated(&'static str),
    /// The named element has a value that the protocol does not allow.
    Malformed(&'static str),
    /// A packet's sequence id does not continue the one before it.
    Sequence {
        /// The id that had to come.
        expected: u8,
        /// The id that came.
        found: u8,
    },
    /// The named element is longer than anything legitimate.
    TooLarge {
        /// The element.
        what: &'static str,
        /// Its length in bytes as announced.
        len: usize,
    },
    /// Valid, but not supported.
    Unsupported(&'static str),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(what) => write!(f, "malformed packet: {what} is cut short"),
            Self::Malformed(what) => write!(f, "malformed packet: invalid {what}"),
            Self::Sequence { expected, found } => {
                write!(
                    f,
                    "packets out of order: expected {expected}, received {found}"
                )
            }
            Self::TooLarge { what, len } => write!(f, "malformed packet: {what} of {len} bytes"),
            Self::Unsupported(what) => write!(f, "not supported: {what}"),
        }
    }
}

impl std::error::Error for ProtocolError {}
