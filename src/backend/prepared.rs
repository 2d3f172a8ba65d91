//! Which prepared statements a server connection has.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use xxhash_rust::xxh3::xxh3_64;

use super::state::SessionState;

/// What makes a prepared statement the same on any connection: its text, the state under which the server read it, and
/// which of its session's statements of that text it is.
#[derive(Clone, Debug)]
pub struct StatementKey {
    text: Arc<[u8]>,
    state: Arc<SessionState>,
    /// Tells the statements apart that a session prepared from the same text: each has a cursor and data of its own.
    copy: u32,
    hash: u64,
}

impl StatementKey {
    /// The key of `text` prepared by a session in `state`.
    pub fn new(text: &[u8], state: Arc<SessionState>) -> Self {
        let hash = xxh3_64(text) ^ state.fingerprint();
        Self {
            text: text.into(),
            state,
            copy: 0,
            hash,
        }
    }

    /// The key of one more statement of the same text and state, from 0.
    pub fn with_copy(self, copy: u32) -> Self {
        Self { copy, ..self }
    }

    /// Which of the statements of this text and state it is.
    pub fn copy(&self) -> u32 {
        self.copy
    }

    /// Whether both are of the same text and state, whichever copies they are.
    fn is_copy_of(&self, other: &Self) -> bool {
        self.hash == other.hash
            && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
            && (Arc::ptr_eq(&self.state, &other.state) || self.state == other.state)
    }

    /// The statement's text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The state that a connection must be in to prepare it.
    pub fn state(&self) -> &Arc<SessionState> {
        &self.state
    }
}

impl PartialEq for StatementKey {
    fn eq(&self, other: &Self) -> bool {
        self.copy == other.copy && self.is_copy_of(other)
    }
}

impl Eq for StatementKey {}

impl Hash for StatementKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash ^ u64::from(self.copy));
    }
}

/// A prepared statement on one server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerStatement {
    /// The server's id for it, valid on this connection only.
    pub id: u32,
    /// Number of parameters.
    pub parameters: u16,
}

/// The prepared statements of one connection, the least recently used leaving first.
///
/// They stay when their session closes them: when another session that has prepared the same text elsewhere executes it
/// here, it need not be prepared again.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    statements: HashMap<StatementKey, Entry>,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    statement: ServerStatement,
    used: u64,
    /// It has a cursor or data that its session still needs.
    held: bool,
    /// Who executed it last, and a hash of the types that its parameters had then.
    executed: Option<(u32, u64)>,
}

impl Prepared {
    /// Statements kept on one connection. A server allows 16382 over all
    /// connections by default (`max_prepared_stmt_count`).
    const KEPT: usize = 64;

    pub(super) fn find(&mut self, key: &StatementKey) -> Option<ServerStatement> {
        let entry = self.statements.get_mut(key)?;
        self.uses += 1;
        entry.used = self.uses;
        Some(entry.statement)
    }

    /// Finds a statement for `session` to execute with parameters of `types`; None if others executed it with other types: MySQL
    /// takes the type of `?` from executions before where nothing else tells it.
    pub(super) fn find_for(
        &mut self,
        key: &StatementKey,
        session: u32,
        types: &[u8],
    ) -> Option<ServerStatement> {
        let types = xxh3_64(types);
        let entry = self.statements.get_mut(key)?;
        if let Some((other, theirs)) = entry.executed
            && (other != session && theirs != types && !entry.held)
        {
            return None;
        }
        entry.executed = Some((session, types));
        self.find(key)
    }

    /// Whether the statement has something that must not leave with it.
    pub(super) fn hold(&mut self, key: &StatementKey, held: bool) {
        if let Some(entry) = self.statements.get_mut(key) {
            entry.held = held;
        }
    }

    pub(super) fn is_any_held(&self) -> bool {
        self.statements.values().any(|entry| entry.held)
    }

    pub(super) fn is_held(&self, key: &StatementKey) -> bool {
        self.statements.get(key).is_some_and(|entry| entry.held)
    }

    /// Remembers a statement; returns one that has to be closed for it, if there is one that nobody needs.
    pub(super) fn insert(
        &mut self,
        key: StatementKey,
        statement: ServerStatement,
    ) -> Option<ServerStatement> {
        self.uses += 1;
        let entry = Entry {
            statement,
            used: self.uses,
            held: false,
            executed: None,
        };
        if let Some(replaced) = self.statements.insert(key, entry) {
            return Some(replaced.statement);
        }
        if self.statements.len() <= Self::KEPT {
            return None;
        }
        let oldest = self
            .statements
            .iter()
            .filter(|(_, entry)| !entry.held && entry.used != self.uses)
            .min_by_key(|(_, entry)| entry.used)
            .map(|(key, _)| key.clone())?;
        self.remove(&oldest)
    }

    pub(super) fn remove(&mut self, key: &StatementKey) -> Option<ServerStatement> {
        self.statements.remove(key).map(|entry| entry.statement)
    }

    pub(super) fn clear(&mut self) {
        self.statements.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Charset;

    #[test]
    fn the_least_recently_used_leaves() {
        let state = Arc::new(SessionState::new(None, Charset::Server, false));
        let key =
            |n: usize| StatementKey::new(format!("SELECT {n}").as_bytes(), Arc::clone(&state));
        let mut prepared = Prepared::default();
        for n in 0..Prepared::KEPT {
            assert_eq!(
                prepared.insert(
                    key(n),
                    ServerStatement {
                        id: n as u32,
                        parameters: 0
                    }
                ),
                None
            );
        }
        assert!(prepared.find(&key(0)).is_some());
        let left = prepared.insert(
            key(1000),
            ServerStatement {
                id: 1000,
                parameters: 0,
            },
        );
        assert_eq!(left.map(|statement| statement.id), Some(1));
        assert!(prepared.find(&key(1)).is_none());
        assert_eq!(
            prepared.find(&key(0)).map(|statement| statement.id),
            Some(0)
        );
    }

    #[test]
    fn what_is_held_stays() {
        let state = Arc::new(SessionState::new(None, Charset::Server, false));
        let key = StatementKey::new(b"SELECT 1", state);
        let mut prepared = Prepared::default();
        let mut left = Vec::new();
        for id in 0..2 + Prepared::KEPT as u32 {
            let statement = ServerStatement { id, parameters: 0 };
            left.extend(prepared.insert(key.clone().with_copy(id), statement));
            prepared.hold(&key.clone().with_copy(0), true);
        }
        assert_eq!(left.iter().map(|left| left.id).collect::<Vec<_>>(), [1, 2]);
        assert!(prepared.is_held(&key));
    }

    #[test]
    fn the_state_at_preparation_is_part_of_the_key() {
        let here = Arc::new(SessionState::new(Some(b"a"), Charset::Server, false));
        let there = Arc::new(SessionState::new(Some(b"b"), Charset::Server, false));
        assert_ne!(
            StatementKey::new(b"SELECT * FROM t", here),
            StatementKey::new(b"SELECT * FROM t", there)
        );
    }
}
