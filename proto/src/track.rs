//! The session state block of an OK packet: what a statement changed in its session.
//!
//! Sources: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_ok_packet.html#sect_protocol_basic_ok_packet_sessinfo>,
//! <https://mariadb.com/kb/en/ok_packet/#session-state-info>.

use bytes::BytesMut;

use crate::ProtocolError;
use crate::codec::{Reader, put_lenenc_bytes};

/// One change of the session's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// A tracked system variable was assigned. MariaDB reports the position of a commit as the variable `last_gtid`.
    SystemVariable {
        /// Its name.
        name: &'a [u8],
        /// Its new value as text.
        value: &'a [u8],
    },
    /// The default schema.
    Schema(&'a [u8]),
    /// Whether state changed that a reconnect would lose (`session_track_state_change`).
    StateChanged(bool),
    /// GTIDs of the committed transaction as text.
    Gtids(&'a [u8]),
    /// The statements that would bring the transaction characteristics back.
    TransactionCharacteristics(&'a [u8]),
    /// Eight letters about the open transaction, `T_______` and such.
    TransactionState(&'a [u8]),
    /// A kind not known here.
    Other {
        /// Its number.
        kind: u8,
        /// Its data.
        data: &'a [u8],
    },
}

/// Iterator over a session state block. Unknown kinds are passed on; a block that is cut short ends with one error.
#[derive(Debug, Clone)]
pub struct Changes<'a> {
    block: Reader<'a>,
    /// Further pairs of a system variables entry: MariaDB's manual allows several in one.
    variables: Reader<'a>,
}

impl<'a> Changes<'a> {
    /// Starts at the front of `block`.
    pub const fn new(block: &'a [u8]) -> Self {
        Self {
            block: Reader::new(block),
            variables: Reader::new(&[]),
        }
    }

    fn read(&mut self) -> Result<Change<'a>, ProtocolError> {
        if !self.variables.is_empty() {
            return self.variable();
        }
        let kind = self.block.u8("session state kind")?;
        let data = self.block.lenenc_bytes("session state entry")?;
        let mut entry = Reader::new(data);
        Ok(match kind {
            0 => {
                self.variables = entry;
                self.variable()?
            }
            1 => Change::Schema(entry.lenenc_bytes("schema")?),
            // The manual has a string<lenenc> in the entry; servers send the one character alone.
            2 => Change::StateChanged(matches!(data, b"1" | b"\x011")),
            // The entry begins with the encoding of the set; only text (0) exists.
            3 if entry.peek() == Some(0) => {
                entry.u8("GTID encoding")?;
                Change::Gtids(entry.lenenc_bytes("GTIDs")?)
            }
            4 => Change::TransactionCharacteristics(
                entry.lenenc_bytes("transaction characteristics")?,
            ),
            5 => Change::TransactionState(entry.lenenc_bytes("transaction state")?),
            kind => Change::Other { kind, data },
        })
    }

    fn variable(&mut self) -> Result<Change<'a>, ProtocolError> {
        Ok(Change::SystemVariable {
            name: self.variables.lenenc_bytes("variable name")?,
            value: self.variables.lenenc_bytes("variable value")?,
        })
    }
}

/// The block without the changes that `hidden` chooses; `None` if it has none of them, or makes no sense.
pub(crate) fn without(
    block: &[u8],
    mut hidden: impl FnMut(&Change<'_>) -> bool,
) -> Option<Vec<u8>> {
    let mut changes = Changes::new(block);
    let mut any = false;
    for change in changes.clone() {
        any |= hidden(&change.ok()?);
    }
    if !any {
        return None;
    }
    let mut kept = BytesMut::new();
    loop {
        let before = changes.block.remaining();
        let Some(Ok(change)) = changes.next() else {
            return Some(kept.into());
        };
        if hidden(&change) {
            continue;
        }
        if let Change::SystemVariable { name, value } = change {
            let mut pair = BytesMut::new();
            put_lenenc_bytes(&mut pair, name);
            put_lenenc_bytes(&mut pair, value);
            kept.extend_from_slice(&[0]);
            put_lenenc_bytes(&mut kept, &pair);
        } else {
            let end = block.len() - changes.block.remaining();
            kept.extend_from_slice(block.get(block.len() - before..end).unwrap_or_default());
        }
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<Change<'a>, ProtocolError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.variables.is_empty() && self.block.is_empty() {
            return None;
        }
        let change = self.read();
        if change.is_err() {
            *self = Self::new(&[]);
        }
        Some(change)
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
    fn every_kind() {
        let block = b"\x00\x0f\x0aautocommit\x03OFF\x01\x05\x04shop\x02\x02\x011\x03\x05\x00\x03a:1\x04\x01\x00\x05\x09\x08T_______\x63\x02ab";
        let changes: Vec<_> = Changes::new(block).map(Result::unwrap).collect();
        assert_eq!(
            changes,
            [
                Change::SystemVariable {
                    name: b"autocommit",
                    value: b"OFF"
                },
                Change::Schema(b"shop"),
                Change::StateChanged(true),
                Change::Gtids(b"a:1"),
                Change::TransactionCharacteristics(b""),
                Change::TransactionState(b"T_______"),
                Change::Other {
                    kind: 0x63,
                    data: b"ab"
                },
            ]
        );
    }

    #[test]
    fn a_change_of_state_as_servers_send_it() {
        let changes: Vec<_> = Changes::new(b"\x01\x03\x02st\x02\x011\x03\x05\x00\x03a:1")
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            changes,
            [
                Change::Schema(b"st"),
                Change::StateChanged(true),
                Change::Gtids(b"a:1")
            ]
        );
    }

    #[test]
    fn changes_can_be_hidden() {
        let block = b"\x00\x08\x01a\x01b\x01c\x01d\x01\x05\x04shop\x02\x02\x011\x63\x02ab";
        assert_eq!(without(block, |_| false), None);
        assert_eq!(without(block, |_| true), Some(Vec::new()));
        let hidden = |change: &Change<'_>| {
            matches!(
                change,
                Change::StateChanged(_) | Change::SystemVariable { name: b"a", .. }
            )
        };
        assert_eq!(
            without(block, hidden).as_deref(),
            Some(&b"\x00\x04\x01c\x01d\x01\x05\x04shop\x63\x02ab"[..])
        );
        assert_eq!(without(b"\x01\x05\x04sho", |_| true), None);
    }

    #[test]
    fn several_variables_in_one_entry() {
        let changes: Vec<_> = Changes::new(b"\x00\x08\x01a\x01b\x01c\x01d")
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            changes,
            [
                Change::SystemVariable {
                    name: b"a",
                    value: b"b"
                },
                Change::SystemVariable {
                    name: b"c",
                    value: b"d"
                }
            ]
        );
    }

    #[test]
    fn a_cut_block_ends_with_one_error() {
        let whole = b"\x01\x05\x04shop\x02\x02\x011";
        for cut in 1..whole.len() {
            let changes: Vec<_> = Changes::new(&whole[..cut]).collect();
            let good = changes.iter().filter(|change| change.is_ok()).count();
            assert_eq!(good, usize::from(cut >= 7), "{cut}");
            assert_eq!(changes.len() - good, usize::from(cut != 7), "{cut}");
        }
    }

    #[test]
    fn gtids_in_another_encoding_are_passed_on() {
        let changes: Vec<_> = Changes::new(b"\x03\x02\x01x").collect();
        assert_eq!(
            changes,
            [Ok(Change::Other {
                kind: 3,
                data: b"\x01x"
            })]
        );
    }
}
