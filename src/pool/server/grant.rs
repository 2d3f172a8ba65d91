//! What who waits for a connection holds, waits for and gets.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use super::{Desk, ServerPool};
use crate::{
    accounts::AccountKey,
    backend::{Fault, Unconnected},
    error::Error,
    pool::{bucket::Entry, gate::Pass, line::Ticket},
};

/// What somebody in the line gets.
#[derive(Debug)]
pub(in crate::pool) enum Grant {
    /// A connection of the bucket that was asked for.
    Conn(Entry),
    /// The right to open one.
    Opening(Opening),
    /// Nothing.
    Refused(Error),
}

/// A place in the line. Dropping it gives it up.
#[derive(Debug)]
pub(in crate::pool) struct Place {
    pub(super) server: Arc<ServerPool>,
    pub(super) account: AccountKey,
    pub(in crate::pool) waited: Waited,
    pub(super) granted: oneshot::Receiver<Grant>,
}

/// What a place is, and how long it is waited there.
#[derive(Debug, Clone, Copy)]
pub(in crate::pool) struct Waited {
    pub(super) ticket: Ticket,
    pub(super) until: Instant,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut desk = self.server.desk();
        desk.line.leave(&self.account, self.waited.ticket);
        self.server.count(&mut desk);
    }
}

/// The right to have one connection open. Dropping it passes it to the next in line.
#[derive(Debug)]
pub(in crate::pool) struct Slot {
    pub(super) server: Arc<ServerPool>,
    /// Whose share it counts to.
    pub(super) account: Option<AccountKey>,
}

impl Slot {
    pub(super) fn vacate(&mut self, desk: &mut Desk) {
        if let Some(account) = self.account.take() {
            desk.line.release(&account);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let server = Arc::clone(&self.server);
        let mut desk = server.desk();
        self.vacate(&mut desk);
        desk.open -= 1;
        if desk.open == 0 {
            // As after a restart of the server.
            desk.gate.narrow();
            server.target.accepted.clear();
        }
        drop(desk);
        server.advance();
    }
}

/// A connection that is being opened. Dropping it gives up.
#[derive(Debug)]
pub(in crate::pool) struct Opening {
    // None only while dropping, or when the end was told.
    pub(super) slot: Option<Slot>,
    pass: Pass,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.server.desk().gate.abandoned(self.pass);
            // Dropping the slot looks for the next in line.
        }
    }
}

impl Opening {
    pub(super) fn new(slot: Slot, pass: Pass) -> Self {
        Self {
            slot: Some(slot),
            pass,
        }
    }

    /// The connection is open.
    #[allow(clippy::expect_used)]
    pub(in crate::pool) fn succeeded(mut self) -> Slot {
        let slot = self.slot.take().expect("only its end takes the slot");
        slot.server.note_success(self.pass);
        slot.server.advance();
        slot
    }

    /// The connection could not be opened.
    pub(in crate::pool) fn failed(mut self, failure: &Unconnected) {
        match failure.fault {
            Fault::Server => {
                if let Some(slot) = self.slot.take() {
                    slot.server.note_failure(self.pass, &failure.error);
                }
            }
            // The server is there. Of one that does not end what it has begun that is not sure.
            Fault::Account if !failure.error.is_absence() => {
                if let Some(slot) = self.slot.take() {
                    slot.server.note_success(self.pass);
                }
            }
            Fault::Account => {}
        }
    }
}
