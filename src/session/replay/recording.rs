//! What a transaction has run and been told so far.

use std::{fmt, sync::Arc};

use dbproxy_proto::{
    command::{BulkExecute, Execute},
    reply::OkPacket,
    response::Expect,
};
use xxhash_rust::xxh3::Xxh3Default;

use crate::{
    backend::SessionState,
    routing::PinReason,
    session::{execution::Execution, prepared::Statement, relay::Outcome, statement::Request},
    sql::{Facts, Kind, StatementClass},
};

/// What one entry takes beyond its bytes.
const ENTRY: u64 = 256;

/// A transaction as it can be run again.
#[derive(Debug)]
pub(in crate::session) struct Recording {
    /// What its connection has to be set to, and give for LAST_INSERT_ID().
    pub(super) state: Arc<SessionState>,
    pub(super) last_insert_id: u64,
    pub(super) entries: Vec<Entry>,
    size: u64,
    /// Why it cannot be run again.
    spoiled: Option<&'static str>,
    /// The statement that has just run is the last entry.
    current: bool,
    /// What the session was when it lost the transaction.
    pub(super) resumed: Resumed,
}

/// What a session is again when its transaction has run again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resumed {
    pub(super) pin: Option<PinReason>,
    pub(super) wrote: bool,
}

/// One statement of it.
#[derive(Debug)]
pub(super) struct Entry {
    what: What,
    pub(super) class: StatementClass,
    /// The session's state before it.
    pub(super) state: Arc<SessionState>,
    /// Microseconds since 1970.
    pub(super) at: u64,
    /// What the client was told.
    pub(super) sum: u64,
    /// The first value that it gave to an AUTO_INCREMENT column; 0 if none is known.
    pub(super) insert_id: u64,
}

#[derive(Debug)]
enum What {
    Forward {
        packet: Box<[u8]>,
        expect: Expect,
    },
    Once {
        statement: Box<Statement>,
        flags: u8,
        iterations: u32,
        named: bool,
        body: Box<[u8]>,
    },
    Bulk {
        statement: Box<Statement>,
        flags: u16,
        body: Box<[u8]>,
    },
}

impl Recording {
    pub(super) fn new(state: Arc<SessionState>, last_insert_id: u64) -> Self {
        Self {
            state,
            last_insert_id,
            entries: Vec::new(),
            size: 0,
            spoiled: None,
            current: false,
            resumed: Resumed::default(),
        }
    }

    /// It cannot be run again from now on.
    pub(in crate::session) fn spoil(&mut self, why: &'static str) {
        self.spoiled.get_or_insert(why);
        self.entries = Vec::new();
    }

    /// Why it cannot be run again; `None` if it can.
    pub(in crate::session) fn is_spoiled(&self) -> Option<&'static str> {
        self.spoiled
    }

    /// The statement that has ended now is the last entry. A second one is not.
    pub(super) fn take_current(&mut self) -> bool {
        std::mem::take(&mut self.current)
    }

    /// Statements like this give no values to an AUTO_INCREMENT column themselves.
    pub(super) fn bring_own_ids(&mut self, digest: u64) {
        for entry in &mut self.entries {
            if entry.class.digest == digest {
                entry.insert_id = 0;
            }
        }
    }

    /// Adds a statement, unless that makes it longer than `limit`.
    pub(super) fn add(&mut self, entry: Entry, limit: u64) {
        self.current = true;
        self.size = self.size.saturating_add(entry.size());
        match self.spoiled {
            Some(_) => {}
            None if self.size > limit => {
                self.spoil("it is longer than cluster.transaction_replay_size");
            }
            None => self.entries.push(entry),
        }
    }
}

impl Entry {
    pub(super) fn new(
        request: Request<'_>,
        class: StatementClass,
        state: Arc<SessionState>,
        witness: &Witness,
        outcome: &Outcome,
    ) -> Option<Self> {
        let what = match request {
            Request::Prepare { .. } => return None,
            Request::Forward { packet, expect } => What::Forward {
                packet: packet.into(),
                expect,
            },
            Request::Execute {
                execution: Execution::Once(execute),
                statement,
            } => What::Once {
                statement: Box::new(statement.clone()),
                flags: execute.flags,
                iterations: execute.iterations,
                named: execute.named,
                body: execute.body.into(),
            },
            Request::Execute {
                execution: Execution::Bulk(execute),
                statement,
            } => What::Bulk {
                statement: Box::new(statement.clone()),
                flags: execute.flags,
                body: execute.body.into(),
            },
        };
        Some(Self {
            what,
            class,
            state,
            at: witness.at,
            sum: witness.sum(),
            insert_id: match class.kind {
                Kind::Write if !class.facts.contains(Facts::SETS_INSERT_ID) => {
                    outcome.last_insert_id
                }
                _ => 0,
            },
        })
    }

    pub(super) fn request(&self) -> Request<'_> {
        match &self.what {
            What::Forward { packet, expect } => Request::Forward {
                packet,
                expect: *expect,
            },
            What::Once {
                statement,
                flags,
                iterations,
                named,
                body,
            } => Request::Execute {
                execution: Execution::Once(Execute {
                    // The server's own takes its place.
                    statement: 0,
                    flags: *flags,
                    iterations: *iterations,
                    named: *named,
                    body,
                }),
                statement,
            },
            What::Bulk {
                statement,
                flags,
                body,
            } => Request::Execute {
                execution: Execution::Bulk(BulkExecute {
                    statement: 0,
                    flags: *flags,
                    body,
                }),
                statement,
            },
        }
    }

    fn size(&self) -> u64 {
        let len = match &self.what {
            What::Forward { packet, .. } => packet.len(),
            // The text is the session's own; the types may change with each execution.
            What::Once {
                statement, body, ..
            }
            | What::Bulk {
                statement, body, ..
            } => body.len() + statement.types.len() + statement.key.text().len(),
        };
        ENTRY.saturating_add(len as u64)
    }
}

/// Sums up what a server answers to a statement: rows, and what its OK packets count.
pub(in crate::session) struct Witness {
    sum: Box<Xxh3Default>,
    /// When the statement was sent, in microseconds since 1970.
    at: u64,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

impl Witness {
    pub(super) fn new(at: u64) -> Self {
        Self {
            sum: Box::new(Xxh3Default::new()),
            at,
        }
    }

    /// Definitions or rows, whole or in parts.
    pub(in crate::session) fn data(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
    }

    /// The end of a result. Its flags speak of the server, and its session state names the transaction.
    pub(in crate::session) fn ok(&mut self, packet: &OkPacket<'_>) {
        self.sum.update(b"ok");
        self.sum.update(&packet.affected_rows.to_le_bytes());
        self.sum.update(&packet.last_insert_id.to_le_bytes());
        self.sum.update(&packet.warnings.to_le_bytes());
    }

    pub(in crate::session) fn eof(&mut self, warnings: u16) {
        self.sum.update(b"eof");
        self.sum.update(&warnings.to_le_bytes());
    }

    pub(in crate::session) fn error(&mut self, code: u16) {
        self.sum.update(b"error");
        self.sum.update(&code.to_le_bytes());
    }

    pub(super) fn sum(&self) -> u64 {
        self.sum.digest()
    }
}
