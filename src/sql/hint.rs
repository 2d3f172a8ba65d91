//! What the comments in front of a statement ask for.

/// Where a server's name stands in the statement's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerName {
    start: u32,
    len: u32,
}

impl ServerName {
    /// The name, given the statement it was found in; empty for another statement.
    pub fn of(self, sql: &[u8]) -> &[u8] {
        let start = self.start as usize;
        sql.get(start..start + self.len as usize).unwrap_or(&[])
    }
}

/// A wish about where a statement should run, from the comments in front of it:
/// `/* dbproxy: primary */`, `replica`, `server=NAME`, `max_lag=SECONDS`, and `/*ms=master*/`,
/// `ms=slave`, `ms=last_used`. It also counts in `-- ` and `#` comments.
///
/// With several, the one that allows least wins. A hint is a wish: it never sends a write to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hint {
    /// No hint.
    #[default]
    None,
    /// The primary.
    Primary,
    /// A replica, even where reads would otherwise go to the primary by preference.
    Replica,
    /// The connection that ran the statement before.
    LastUsed,
    /// A replica at most this many milliseconds behind, else the primary.
    MaxLag(u32),
    /// The server of this name.
    Server(ServerName),
    /// Meant for the proxy, but not understood: to be counted and logged.
    Unknown,
}
