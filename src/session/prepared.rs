//! The prepared statements of a session.

use std::{collections::HashMap, sync::Arc};

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    capability::StatusFlags,
    command::{code, first_types, put_command},
    packet::HEADER_LEN,
    response::{Event, Expect, ResponseTracker},
};

use super::{Flow, Session, finish::Effect, route::Tried, statement::Request, tables::Wording};
use crate::{
    backend::{BackendConn, ServerStatement, StatementKey},
    error::{Answer, Error, ErrorKind},
    net::Buffers,
    pool::PooledConn,
    routing::PinReason,
    sql::{self, Dialect, StatementClass},
};

/// A statement as the client prepared it.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    /// What finds it, or prepares it again, on any connection.
    pub(super) key: StatementKey,
    /// As far as its text tells: what it calls and names may change between executions.
    pub(super) class: StatementClass,
    /// What a rule made it from.
    pub(super) before_rules: Option<Arc<BeforeRules>>,
    /// Number of parameters.
    pub(super) parameters: u16,
    /// The parameter types that the client sent last, with names if it gives them: it sends them once, servers need them
    /// on each new connection.
    pub(super) types: Vec<u8>,
    /// Whether values of its parameters can be sent ahead.
    pub(super) ahead: Ahead,
}

/// What becomes of values of parameters that are sent ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// They are kept on a connection of the session's own cluster.
    Possible,
    /// The statement is another cluster's: there is no connection for them.
    Refused,
    /// The client has sent some all the same.
    Lost,
}

impl Statement {
    /// The same, but for its text, which has the same parameters.
    pub(super) fn with_text(self, text: &[u8], dialect: Dialect) -> Self {
        Self {
            key: StatementKey::new(text, Arc::clone(self.key.state())),
            class: sql::classify(text, dialect),
            ..self
        }
    }

    /// Bytes of its texts.
    fn size(&self) -> usize {
        let before = self.before_rules.as_ref();
        self.key.text().len() + before.map_or(0, |before| before.text.len())
    }
}

/// A statement as the client sent it.
#[derive(Debug)]
pub(super) struct BeforeRules {
    pub(super) text: Box<[u8]>,
    pub(super) class: StatementClass,
}

/// The prepared statements of a session, by the ids that its client knows.
#[derive(Debug, Default)]
pub(super) struct Statements {
    by_id: HashMap<u32, Statement>,
    /// Which copies there are, by the key of the first one.
    copies: HashMap<StatementKey, Copies>,
    /// Bytes of all texts and types.
    size: usize,
    last: u32,
    /// The client may say [`Self::LAST`].
    direct: bool,
    /// The statement that the last preparation made, if it made one.
    last_prepared: Option<u32>,
}

/// The statements of one text and state.
#[derive(Debug, Default)]
struct Copies {
    /// Numbers from here on were never used.
    next: u32,
    /// Numbers below that are used no longer.
    free: Vec<u32>,
}

impl Statements {
    /// The id that means "the one prepared last" to MariaDB.
    const LAST: u32 = u32::MAX;
    /// Most statements of one session; as a server's `max_prepared_stmt_count` for all.
    const LIMIT: usize = 16_382;
    /// Most bytes of their texts and types.
    const LIMIT_SIZE: usize = 16 << 20;

    /// No statements. `direct`: the client may speak of the one prepared last without knowing its id.
    pub(super) fn new(direct: bool) -> Self {
        Self {
            direct,
            ..Self::default()
        }
    }

    /// The key of one more statement, so that it is independent of those that the session has of the same text.
    pub(super) fn own_copy(&self, key: StatementKey) -> StatementKey {
        let copies = self.copies.get(&key);
        let free = copies.map_or(0, |copies| {
            copies.free.last().copied().unwrap_or(copies.next)
        });
        key.with_copy(free)
    }

    /// A preparation begins: the one before is not the last any more.
    pub(super) fn forget_last(&mut self) {
        self.last_prepared = None;
    }

    fn resolve(&self, id: u32) -> u32 {
        match self.last_prepared {
            Some(last) if self.direct && id == Self::LAST => last,
            _ => id,
        }
    }

    /// An id for the next statement; None if there are too many.
    pub(super) fn next_id(&mut self) -> Option<u32> {
        if self.by_id.len() >= Self::LIMIT || self.size >= Self::LIMIT_SIZE {
            return None;
        }
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && self.last != Self::LAST && self.find(self.last).is_none() {
                return Some(self.last);
            }
        }
    }

    pub(super) fn insert(&mut self, id: u32, statement: Statement) {
        self.size += statement.size();
        self.last_prepared = Some(id);
        let first = statement.key.clone().with_copy(0);
        let copies = self.copies.entry(first).or_default();
        if copies.free.pop().is_none() {
            copies.next += 1;
        }
        self.by_id.insert(id, statement);
    }

    pub(super) fn find(&self, id: u32) -> Option<&Statement> {
        self.by_id.get(&self.resolve(id))
    }

    /// Whether a value may be sent ahead for a statement. If not, its executions lack it until the statement is reset.
    pub(super) fn takes_values(&mut self, id: u32) -> bool {
        let id = self.resolve(id);
        let Some(statement) = self.by_id.get_mut(&id) else {
            return false;
        };
        if statement.ahead != Ahead::Possible {
            statement.ahead = Ahead::Lost;
        }
        statement.ahead == Ahead::Possible
    }

    /// Whether a value was sent ahead that could not be taken.
    pub(super) fn lacks_values(&self, id: u32) -> bool {
        let statement = self.find(id);
        statement.is_some_and(|statement| statement.ahead == Ahead::Lost)
    }

    /// Forgets the values that were sent ahead.
    fn forget_values(&mut self, id: u32) {
        let id = self.resolve(id);
        if let Some(statement) = self.by_id.get_mut(&id)
            && statement.ahead == Ahead::Lost
        {
            statement.ahead = Ahead::Refused;
        }
    }

    /// Remembers the types that an execution brought along for the parameters of a statement, with names or without; false if there is no room for them.
    pub(super) fn learn_types(&mut self, id: u32, types: &[u8], named: bool) -> bool {
        let id = self.resolve(id);
        let Some(statement) = self.by_id.get_mut(&id) else {
            return true;
        };
        // Those of query attributes stand behind them: they are for this execution alone.
        let count = usize::from(statement.parameters);
        let types = first_types(types, count, named).unwrap_or_default();
        if *types == *statement.types {
            return true;
        }
        let others = self.size.saturating_sub(statement.types.len());
        if others + types.len() > Self::LIMIT_SIZE {
            return false;
        }
        self.size = others + types.len();
        statement.types = types.to_vec();
        true
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Statement> {
        let statement = self.by_id.remove(&self.resolve(id))?;
        let size = statement.size() + statement.types.len();
        self.size = self.size.saturating_sub(size);
        let first = statement.key.clone().with_copy(0);
        if let Some(copies) = self.copies.get_mut(&first) {
            copies.free.push(statement.key.copy());
            if copies.free.len() == copies.next as usize {
                self.copies.remove(&first);
            }
        }
        Some(statement)
    }

    pub(super) fn clear(&mut self) {
        self.by_id = HashMap::new();
        self.copies = HashMap::new();
        self.size = 0;
        self.last_prepared = None;
    }
}

impl Session {
    /// The primary's connection, in the session's state.
    pub(super) async fn settled_connection(
        &mut self,
        class: &StatementClass,
    ) -> Result<PooledConn, Error> {
        let (route, _) = self.place(class, Tried::default(), Wording::Unknown);
        let mut conn = self.connection(&route).await?;
        let mut commands = BytesMut::new();
        self.put_state(&mut conn, class, &mut commands);
        conn.send(&commands, &[]).await?;
        conn.settle(&self.context.buffers).await?;
        Ok(conn)
    }

    /// A statement of the session's on a settled connection, prepared there if need be.
    pub(super) async fn prepared_on(
        &self,
        conn: &mut BackendConn,
        id: u32,
    ) -> Result<ServerStatement, Error> {
        let Some(statement) = self.prepared.find(id) else {
            let answer = self.unknown(id, "mysqld_stmt_execute");
            return Err(Error::client(ErrorKind::Answer(answer)));
        };
        let session = self.handle().id();
        match conn.find_prepared_for(&statement.key, session, &statement.types) {
            Some(there) => Ok(there),
            None => prepare_again(conn, session, statement, &self.context.buffers).await,
        }
    }

    /// Pins the session to a connection that has no answer outstanding.
    pub(super) fn pin_to(&mut self, mut conn: PooledConn, reason: PinReason) {
        conn.mark_idle(&self.context.buffers);
        conn.mark_soiled();
        // A transaction on a replica keeps the connection as long as it lasts. Longer it must not be kept.
        if self.reading.is_none() {
            self.pins.begin(reason);
        }
        self.hold(conn);
    }

    /// Keeps a connection until the next statement, which others can see.
    pub(super) fn hold(&mut self, conn: PooledConn) {
        self.handle().hold(conn.server(), conn.thread_id());
        self.held = Some(conn);
    }

    /// Forgets a statement. The server keeps it for executions by others who prepared the same, but not its cursor or
    /// data.
    pub(super) fn close_statement(&mut self, id: u32) {
        let Some(statement) = self.prepared.remove(id) else {
            return;
        };
        if let Some(conn) = &mut self.held
            && conn.holds_prepared(&statement.key)
        {
            conn.forget_prepared(&statement.key);
            self.loosen();
        }
    }

    pub(super) async fn reset_statement(&mut self, id: u32) -> Result<Flow, Error> {
        self.prepared.forget_values(id);
        let Some(statement) = self.prepared.find(id) else {
            return self.unknown_statement(id, "mysqld_stmt_reset").await;
        };
        let key = statement.key.clone();
        // Only that has a cursor or long data of this session's, and knows whether a transaction is open.
        let there = self.held.as_mut().and_then(|conn| conn.find_prepared(&key));
        match there {
            Some(there) => {
                if let Some(conn) = &mut self.held {
                    conn.hold_prepared(&key, false);
                }
                let mut packet = BytesMut::new();
                put_command(&mut packet, code::STMT_RESET, &there.id.to_le_bytes());
                self.forward(&packet, Expect::Status, &self.of_connection(), Effect::None)
                    .await
            }
            // A failure does not tell what has become of the transaction. MySQL would answer with the warnings before.
            None if self.base.maria && self.held.is_some() => {
                let mut packet = BytesMut::new();
                put_command(&mut packet, code::PING, &[]);
                self.forward(&packet, Expect::Status, &self.of_connection(), Effect::None)
                    .await
            }
            None => self.reply_ok().await,
        }
    }

    pub(super) async fn send_long_data(&mut self, packet: &[u8], id: u32) -> Result<Flow, Error> {
        let class = self.of_connection();
        // Has no answer, not even an error: what goes wrong shows when the statement is executed.
        if !self.prepared.takes_values(id) {
            return Ok(Flow::Continue);
        }
        let bound = self.is_bound();
        let sent = async {
            let mut conn = self.settled_connection(&class).await?;
            match self.prepared_on(&mut conn, id).await {
                Ok(there) => {
                    conn.send(&with_statement(packet, there.id), &[]).await?;
                    if let Some(statement) = self.prepared.find(id) {
                        conn.hold_prepared(&statement.key, true);
                    }
                }
                // Nor will it be executed there.
                Err(error) if is_answer(&error) => {}
                Err(error) => return Err(error),
            }
            Ok(conn)
        };
        match sent.await {
            Ok(conn) => self.pin_to(conn, PinReason::LongData),
            // With the connection its transaction is gone.
            Err(error) if bound => return Err(error),
            Err(_) => {}
        }
        Ok(Flow::Continue)
    }

    pub(super) async fn fetch(&mut self, packet: &[u8], id: u32) -> Result<Flow, Error> {
        let Some(statement) = self.prepared.find(id) else {
            return self.unknown_statement(id, "mysqld_stmt_fetch").await;
        };
        let key = statement.key.clone();
        let there = match &mut self.held {
            Some(conn) if conn.holds_prepared(&key) => conn.find_prepared(&key),
            _ => None,
        };
        let Some(there) = there else {
            let end = if self.base.maria { "" } else { "." };
            let text = format!("The statement ({id}) has no open cursor{end}");
            return self.reply_error(&Answer::new(1421, b"HY000", text)).await;
        };
        let packet = with_statement(packet, there.id);
        let class = self.of_connection();
        let request = Request::Forward {
            packet: &packet,
            expect: Expect::Fetch,
        };
        let Some(mut finished) = self.execute(&class, request).await? else {
            return Ok(Flow::Continue);
        };
        let status = finished.outcome.status.unwrap_or_default();
        if status.contains(StatusFlags::LAST_ROW_SENT) || finished.outcome.error.is_some() {
            finished.conn.hold_prepared(&key, false);
        }
        Ok(self.finish(&class, finished, Effect::None))
    }

    /// The error that a server gives for a statement id that it does not know.
    pub(super) async fn unknown_statement(&mut self, id: u32, what: &str) -> Result<Flow, Error> {
        let answer = self.unknown(id, what);
        self.reply_error(&answer).await
    }

    pub(super) fn unknown(&self, id: u32, what: &str) -> Answer {
        let what = if self.base.maria {
            what
        } else {
            "mysql_stmt_precheck"
        };
        let text = format!("Unknown prepared statement handler ({id}) given to {what}");
        Answer::new(1243, b"HY000", text)
    }
}

/// A binary command with another statement id.
fn with_statement(packet: &[u8], id: u32) -> BytesMut {
    let mut packet = BytesMut::from(packet);
    if let Some(place) = packet.get_mut(HEADER_LEN + 1..HEADER_LEN + 5) {
        place.copy_from_slice(&id.to_le_bytes());
    }
    packet
}

/// Prepares a statement on a settled connection that does not know it.
pub(super) async fn prepare_again(
    conn: &mut BackendConn,
    session: u32,
    statement: &Statement,
    buffers: &Buffers,
) -> Result<ServerStatement, Error> {
    let key = &statement.key;
    // The text means what it meant when the client prepared it.
    let wanted = Arc::clone(conn.state());
    let mut commands = BytesMut::new();
    // Nothing else: a change of autocommit would commit an open transaction.
    let reading = Arc::new(wanted.reading_as(key.state()));
    conn.put_sync(&mut commands, &reading, "");
    put_command(&mut commands, code::STMT_PREPARE, key.text());
    // An answer to something else than the preparation: the connection has to be given up.
    let unsettled = |error: Error| {
        let text = format!("the session's state could not be set: {error}");
        Error::server(ErrorKind::Protocol(text))
    };
    conn.send(&commands, &[]).await?;
    conn.settle(buffers).await.map_err(unsettled)?;
    let there = read_preparation(conn, buffers).await;
    if let Ok(there) = &there {
        conn.remember_prepared(key.clone(), *there);
        conn.find_prepared_for(key, session, &statement.types);
    } else if !there.as_ref().is_err_and(is_answer) {
        return there;
    }
    let mut back = BytesMut::new();
    conn.put_sync(&mut back, &wanted, "");
    conn.send(&back, &[]).await?;
    conn.settle(buffers).await.map_err(unsettled)?;
    there
}

fn is_answer(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Answer(_))
}

async fn read_preparation(
    conn: &mut BackendConn,
    buffers: &Buffers,
) -> Result<ServerStatement, Error> {
    let protocol = |text: String| Error::server(ErrorKind::Protocol(text));
    let mut tracker = ResponseTracker::new(Expect::Prepare, conn.capabilities());
    let mut prepared = None;
    while !tracker.is_done() {
        let consumed = match tracker
            .next(&conn.input)
            .map_err(|error| protocol(error.to_string()))?
        {
            Event::NeedMore => {
                conn.fill_soon(buffers, "preparing a statement again")
                    .await?;
                0
            }
            Event::Prepared {
                len,
                statement,
                parameters,
                ..
            } => {
                prepared = Some(ServerStatement {
                    id: statement,
                    parameters,
                });
                len
            }
            Event::Err { len, packet, .. } => {
                let answer = Answer::of(&packet);
                conn.input.advance(len);
                return Err(Error::server(ErrorKind::Answer(answer)));
            }
            Event::Data { len }
            | Event::Ok { len, .. }
            | Event::Eof { len, .. }
            | Event::LocalInfile { len } => len,
        };
        conn.input.advance(consumed);
    }
    prepared.ok_or_else(|| protocol("a preparation was answered without an id".into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        backend::{Charset, SessionState},
        sql::{Dialect, classify},
    };

    fn with_statement(parameters: u16) -> (Statements, u32) {
        let mut statements = Statements::new(false);
        let state = Arc::new(SessionState::new(None, Charset::Server, false));
        let id = statements.next_id().unwrap();
        let statement = Statement {
            key: StatementKey::new(b"SELECT ?", state),
            class: classify(b"SELECT ?", Dialect::default()),
            before_rules: None,
            parameters,
            types: Vec::new(),
            ahead: Ahead::Possible,
        };
        statements.insert(id, statement);
        (statements, id)
    }

    #[test]
    fn copies_of_one_text_have_numbers_of_their_own() {
        let (mut statements, first) = with_statement(0);
        let key = statements.find(first).unwrap().key.clone();
        let add = |statements: &mut Statements| {
            let id = statements.next_id().unwrap();
            let key = statements.own_copy(key.clone().with_copy(0));
            let copy = key.copy();
            let statement = statements.find(first).unwrap().clone();
            statements.insert(id, Statement { key, ..statement });
            (id, copy)
        };
        let (second, copy) = add(&mut statements);
        assert_eq!(copy, 1);
        assert_eq!(add(&mut statements).1, 2);
        statements.remove(second);
        assert_eq!(add(&mut statements).1, 1);
        assert_eq!(add(&mut statements).1, 3);
        for id in 0..=statements.last {
            statements.remove(id);
        }
        assert!(statements.copies.is_empty());
    }

    #[test]
    fn types_of_attributes_are_not_kept() {
        let (mut statements, id) = with_statement(1);
        assert!(statements.learn_types(id, b"\x03\0\x01a\xfd\0\x05trace", true));
        assert_eq!(statements.find(id).unwrap().types, b"\x03\0\x01a");
        assert!(statements.learn_types(id, b"\x08\0", false));
        assert_eq!(statements.find(id).unwrap().types, b"\x08\0");
    }

    #[test]
    fn types_count_like_texts() {
        let (mut statements, id) = with_statement(1);
        let mut types = b"\x03\0\xfe".to_vec();
        types.extend_from_slice(&(16_u64 << 20).to_le_bytes());
        types.resize(types.len() + (16 << 20), b'x');
        assert!(!statements.learn_types(id, &types, true));
        assert!(statements.find(id).unwrap().types.is_empty());
        assert_eq!(statements.size, 8);
        for types in [b"\x03\0", b"\x08\0"] {
            assert!(statements.learn_types(id, types, false));
            assert_eq!(statements.size, 10);
        }
        statements.remove(id);
        assert_eq!(statements.size, 0);
    }
}
