//! What was read, and which servers show nothing older.

use tokio::time::Instant;

use crate::topology::{Server, ServerId, Topology};

/// A server that holds nobody to it after this many times the allowed lag: by then all that are read from have what it had.
const LAGS: u32 = 2;

/// The end of a read, and the server that answered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    server: ServerId,
    incarnation: u32,
    at: Instant,
    since: Instant,
}

impl Seen {
    /// A read of `server` has just ended, and one `before`.
    pub fn new(server: &Server, now: Instant, before: Option<Self>) -> Self {
        let same = before.filter(|before| before.server == server.id);
        Self {
            server: server.id,
            incarnation: server.incarnation,
            at: now,
            since: same.map_or(now, |before| before.since),
        }
    }

    /// When it ended.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// When the first of the reads ended that were all of this server.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The server.
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// Whether `server` surely shows nothing older. How far the server that was read had come nobody said: it is less than
    /// what that server, or the primary, was found to have when it was asked later.
    pub fn shown_by(&self, server: &Server, topology: &Topology) -> bool {
        let same = server.id == self.server && server.incarnation == self.incarnation;
        if same {
            return true;
        }
        let has_all_of = |other: Option<&Server>| {
            other.is_some_and(|other| {
                other.asked_at.is_some_and(|asked_at| asked_at > self.at)
                    && match (&server.position, &other.position) {
                        (Some(has), Some(all)) => has.covers(all),
                        _ => false,
                    }
            })
        };
        has_all_of(topology.server(self.server))
            || has_all_of(topology.primary())
            || topology.at.saturating_duration_since(self.at)
                > topology.max_lag.saturating_mul(LAGS)
    }
}
