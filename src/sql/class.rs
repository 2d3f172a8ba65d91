//! From tokens to a statement's class.

use std::fmt;

use super::dialect::Dialect;
use super::digest::{Digest, Hash};
use super::facts::Facts;
use super::functions::{exists, has_classic_hashes};
use super::hint::{Hint, Name};
use super::lexer::{Lexer, Token, TokenKind};
use super::variables;
use super::words::{self, Flags, Key, Word};

/// What kind of statement it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SELECT, TABLE, VALUES, WITH ... SELECT; also those that must not go to a replica.
    Read,
    /// INSERT, UPDATE, DELETE, REPLACE, and what may do as they do.
    Write,
    /// Definitions and accounts: CREATE, ALTER, DROP, TRUNCATE, RENAME, GRANT, ...
    Ddl,
    /// BEGIN, START TRANSACTION.
    Begin {
        /// With READ ONLY.
        read_only: bool,
    },
    /// COMMIT.
    Commit,
    /// ROLLBACK of the whole transaction.
    Rollback,
    /// SAVEPOINT, ROLLBACK TO, RELEASE SAVEPOINT.
    Savepoint,
    /// SET of anything: see [`super::set::parse`].
    Set,
    /// USE: see [`super::use_schema`].
    Use,
    /// SHOW.
    Show,
    /// EXPLAIN, DESCRIBE, ANALYZE of a query.
    Explain,
    /// CALL.
    Call,
    /// DO.
    Do,
    /// A compound statement outside a routine: BEGIN NOT ATOMIC, IF, LOOP, ...
    Compound,
    /// Administration: FLUSH, OPTIMIZE, replication control, HELP, ...
    Admin,
    /// KILL: see [`super::kill::parse`].
    Kill,
    /// XA transactions.
    Xa,
    /// LOCK TABLES, LOCK INSTANCE.
    LockTables,
    /// UNLOCK TABLES, UNLOCK INSTANCE.
    UnlockTables,
    /// HANDLER.
    Handler,
    /// PREPARE, EXECUTE, DEALLOCATE PREPARE as SQL text.
    Prepare,
    /// LOAD DATA, LOAD XML.
    LoadData,
    /// GET DIAGNOSTICS, SIGNAL, RESIGNAL.
    Diagnostics,
    /// Several statements in one packet that are not all reads.
    Multi,
    /// Nothing but blanks and comments.
    Empty,
    /// Not understood.
    Unknown,
}

/// In the words that users see.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Ddl => "definition",
            Self::Begin { read_only: false } => "begin",
            Self::Begin { read_only: true } => "begin, read only",
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::Savepoint => "savepoint",
            Self::Set => "set",
            Self::Use => "use",
            Self::Show => "show",
            Self::Explain => "explain",
            Self::Call => "call",
            Self::Do => "do",
            Self::Compound => "compound statement",
            Self::Admin => "administration",
            Self::Kill => "kill",
            Self::Xa => "XA transaction",
            Self::LockTables => "lock tables",
            Self::UnlockTables => "unlock tables",
            Self::Handler => "handler",
            Self::Prepare => "prepare in SQL text",
            Self::LoadData => "load data",
            Self::Diagnostics => "diagnostics",
            Self::Multi => "several statements",
            Self::Empty => "nothing",
            Self::Unknown => "not understood",
        })
    }
}

/// Why a statement is not one that a replica may answer.
///
/// `Display` gives the words that users see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cause {
    /// There is no such reason: a replica may answer it.
    #[default]
    None,
    /// It changes data.
    Write,
    /// It changes definitions or accounts.
    Definition,
    /// It controls a transaction.
    Transaction,
    /// It changes what the session believes.
    SessionState,
    /// It administers the server.
    Administration,
    /// It calls a procedure or runs a program.
    Procedure,
    /// DO.
    Do,
    /// It is SQL text for PREPARE or EXECUTE.
    TextPrepare,
    /// LOCK TABLES and kin.
    LockTables,
    /// HANDLER.
    Handler,
    /// A read that locks rows.
    LockingRead,
    /// A read with INTO.
    Into,
    /// It uses user variables.
    UserVariable,
    /// It asks for the last insert id.
    LastInsertId,
    /// It asks about the statement before.
    PreviousStatement,
    /// It uses named locks.
    NamedLock,
    /// It uses a sequence.
    Sequence,
    /// It calls a function that is not a known built-in one.
    UnknownFunction,
    /// It names a view that does more than read. Never from [`classify`].
    View,
    /// Functions or views have just been defined, and are not known again yet. Never from [`classify`].
    Definitions,
    /// It asks who or which connection it is.
    Connection,
    /// It asks about the server.
    ServerState,
    /// It reads a system table that is each server's own.
    SystemSchema,
    /// It explains a write.
    ExplainedWrite,
    /// One of several statements in the packet is not a read.
    Multi,
    /// There is no statement.
    Empty,
    /// It is too long to be looked at whole. Never from [`classify`].
    Large,
    /// A string, name or comment does not end.
    Unterminated,
    /// It is not understood.
    NotUnderstood,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "read",
            Self::Write => "write",
            Self::Definition => "changes definitions or accounts",
            Self::Transaction => "controls a transaction",
            Self::SessionState => "changes session state",
            Self::Administration => "administers the server",
            Self::Procedure => "runs a stored program",
            Self::Do => "DO: only its effects count",
            Self::TextPrepare => "PREPARE or EXECUTE in SQL text",
            Self::LockTables => "locks or unlocks tables",
            Self::Handler => "HANDLER",
            Self::LockingRead => "locking read",
            Self::Into => "read with INTO",
            Self::UserVariable => "uses a user variable",
            Self::LastInsertId => "asks for the last insert id",
            Self::PreviousStatement => "asks about the statement before",
            Self::NamedLock => "uses a named lock",
            Self::Sequence => "uses a sequence",
            Self::UnknownFunction => "calls a function that is not known to only read",
            Self::View => "names a view that is not known to only read",
            Self::Definitions => "functions or views have changed and are being read again",
            Self::Connection => "asks about its connection or account",
            Self::ServerState => "asks about the server",
            Self::SystemSchema => "reads a system table that each server has for itself",
            Self::ExplainedWrite => "explains a write",
            Self::Multi => "one of several statements is not a read",
            Self::Empty => "no statement",
            Self::Large => "too long to be understood whole",
            Self::Unterminated => "a string, name or comment does not end",
            Self::NotUnderstood => "not understood",
        })
    }
}

/// What a statement means, as far as the proxy needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatementClass {
    /// What kind of statement it is.
    pub kind: Kind,
    /// What it touches besides rows.
    pub facts: Facts,
    /// What its leading comments ask for.
    pub hint: Hint,
    /// The word that they tag it with, for rules.
    pub tag: Option<Name>,
    /// Hash of [`super::digest_text`]: equal for statements that differ only in literals,
    /// blanks, comments and the case of keywords.
    pub digest: u64,
    /// Hash of how the words are written that are keywords and may be names: with the digest, it tells which tables are named.
    pub spelling: u64,
    /// Why a replica may not answer it; [`Cause::None`] if one may.
    pub cause: Cause,
}

impl StatementClass {
    /// Whether a replica may answer it, as far as the text tells.
    pub fn is_replica_read(&self) -> bool {
        self.cause == Cause::None
    }

    /// What it is if all the functions that are not built-in only read, provided that nothing else keeps a replica from
    /// answering it.
    pub(super) fn with_reading_functions(mut self) -> Option<Self> {
        let doubtful = Facts::MULTI
            .union(Facts::UNTERMINATED)
            .union(Facts::AMBIGUOUS);
        self.facts = self
            .facts
            .difference(Facts::UNKNOWN_FUNCTION.union(Facts::MAY_WRITE));
        let only_objection = self.cause == Cause::UnknownFunction
            && matches!(self.kind, Kind::Read | Kind::Explain)
            && !self.facts.intersects(doubtful)
            && cause_of(self.facts) == Cause::None;
        self.cause = Cause::None;
        only_objection.then_some(self)
    }

    /// Whether it has no place where nothing is to be changed. What runs on is ended there, and a table's rows are walked.
    pub fn may_change_data(&self) -> bool {
        self.facts.contains(Facts::MAY_WRITE) && !matches!(self.kind, Kind::Kill | Kind::Handler)
    }
}

/// Classifies a statement: one pass, no allocation, for any bytes.
///
/// A statement whose `cause` is [`Cause::None`] writes nothing, locks nothing and has the same
/// answer on every connection with the same session state, given the same data. What views do is
/// beyond what the text can tell: see [`super::catalogue`].
pub fn classify(sql: &[u8], dialect: Dialect) -> StatementClass {
    let mut lexer = Lexer::new(sql, dialect);
    let mut digest = Digest::new(Hash::new(), dialect);
    let mut packet = Packet::default();
    let mut part = Part::new(sql, dialect);
    loop {
        let token = lexer.next();
        if token.kind() == TokenKind::End {
            break;
        }
        digest.token(&token, lexer.key, sql);
        if token.is(b';') && !part.body {
            packet.add(&part);
            part = Part::new(sql, dialect);
        } else {
            part.token(&token, lexer.key);
        }
    }
    packet.add(&part);
    let (kind, facts, cause) = packet.finish(lexer.facts);
    StatementClass {
        kind,
        facts,
        hint: lexer.hints.hint(),
        tag: lexer.hints.tag(),
        digest: digest.finish().value(),
        spelling: digest.spelling(),
        cause,
    }
}

/// What the statements of a packet are, each by itself, up to a number that people can read.
pub(super) fn parts(sql: &[u8], dialect: Dialect) -> Vec<(Kind, Cause)> {
    const MOST: usize = 50;
    let mut lexer = Lexer::new(sql, dialect);
    let mut parts = Vec::new();
    let mut part = Part::new(sql, dialect);
    loop {
        let token = lexer.next();
        let ends = token.kind() == TokenKind::End;
        let separates = token.is(b';') && !part.body;
        if !(ends || separates) {
            part.token(&token, lexer.key);
            continue;
        }
        if !part.is_empty() {
            let (kind, _, cause) = part.finish();
            parts.push((kind, cause));
        }
        if ends || parts.len() == MOST {
            return parts;
        }
        part = Part::new(sql, dialect);
    }
}

/// The statements of one packet, folded.
#[derive(Default)]
struct Packet {
    parts: u32,
    kind: Option<Kind>,
    facts: Facts,
    cause: Cause,
}

impl Packet {
    fn add(&mut self, part: &Part<'_>) {
        if part.is_empty() {
            return;
        }
        let (kind, facts, cause) = part.finish();
        self.parts += 1;
        self.facts |= facts;
        if matches!(
            kind,
            Kind::Set | Kind::Use | Kind::Call | Kind::Compound | Kind::Xa | Kind::Unknown
        ) {
            self.facts |= Facts::SESSION_STATE;
        }
        match self.kind {
            None => {
                self.kind = Some(kind);
                self.cause = cause;
            }
            Some(_) => {
                self.facts |= Facts::MULTI;
                if self.cause != Cause::None || cause != Cause::None {
                    self.kind = Some(Kind::Multi);
                    self.cause = Cause::Multi;
                }
            }
        }
    }

    fn finish(mut self, seen: Facts) -> (Kind, Facts, Cause) {
        self.facts |= seen;
        let Some(kind) = self.kind else {
            return if seen.intersects(Facts::UNTERMINATED.union(Facts::AMBIGUOUS)) {
                (
                    Kind::Unknown,
                    self.facts | Facts::MAY_WRITE,
                    Cause::NotUnderstood,
                )
            } else {
                (Kind::Empty, self.facts, Cause::Empty)
            };
        };
        if seen.contains(Facts::AMBIGUOUS) {
            self.facts |= Facts::MAY_WRITE;
            if self.cause == Cause::None {
                self.cause = Cause::NotUnderstood;
            }
        }
        if seen.contains(Facts::UNTERMINATED) {
            self.facts |= Facts::MAY_WRITE;
            if self.cause == Cause::None {
                self.cause = Cause::Unterminated;
            }
        }
        if kind == Kind::Multi {
            self.facts |= Facts::MAY_WRITE;
        }
        (kind, self.facts, self.cause)
    }
}

/// How many of the first words of a statement are remembered.
const HEAD: usize = 8;

/// One statement of a packet, as far as it has been read.
pub(super) struct Part<'a> {
    sql: &'a [u8],
    dialect: Dialect,
    pub(super) facts: Facts,
    /// The first words; names count as [`Word::Other`].
    head: [Word; HEAD],
    words: usize,
    depth: i32,
    /// Bit n: at depth n stands a WITH whose common table expressions are still being listed.
    with: u64,
    /// The token before; [`TokenKind::End`] if there is none.
    last: Token,
    /// The word before, if the token before is a word.
    last_word: Word,
    /// The word before the name, or before the names with dots between, that the last token ends.
    chain: Word,
    /// The last token is a name behind a dot.
    qualified: bool,
    /// The schema name before the last dot.
    schema: Word,
    /// The scope before the last dot of a system variable, as in `@@global.x`.
    scope: Option<Scope>,
    /// A word that begins or marks a write.
    writes: bool,
    /// INSERT or REPLACE stood before: a write unless `(` follows.
    may_be_function: bool,
    /// It begins with something else than a word or `(`.
    odd_start: bool,
    /// The number of tokens since LIMIT, if that may still get an offset.
    limit: u8,
    /// READ ONLY.
    read_only: bool,
    /// The word LOCK.
    lock: bool,
    /// The word PROCEDURE.
    procedure: bool,
    /// The word EXPORT.
    export: bool,
    /// AND CHAIN without NO.
    chains: bool,
    releases: bool,
    /// `'name'@'host'` or the like.
    account: bool,
    /// The rest is the body of a routine, or a program: its `;` end nothing here.
    body: bool,
    /// More statements, or a body's, follow a `;` in a body.
    body_goes_on: bool,
}

/// Which of the two values of a system variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Session,
    Global,
}

impl<'a> Part<'a> {
    pub(super) fn new(sql: &'a [u8], dialect: Dialect) -> Self {
        Self {
            sql,
            dialect,
            facts: Facts::NONE,
            head: [Word::Other; HEAD],
            words: 0,
            depth: 0,
            with: 0,
            last: Token::NONE,
            last_word: Word::Other,
            chain: Word::Other,
            qualified: false,
            schema: Word::Other,
            scope: None,
            writes: false,
            may_be_function: false,
            odd_start: false,
            limit: 0,
            read_only: false,
            lock: false,
            procedure: false,
            export: false,
            chains: false,
            releases: false,
            account: false,
            body: false,
            body_goes_on: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.last.kind() == TokenKind::End
    }

    #[inline]
    pub(super) fn token(&mut self, token: &Token, key: Key) {
        if self.body {
            self.body_token(token);
        }
        if self.may_be_function && !token.is(b'(') {
            self.writes = true;
        }
        self.may_be_function = false;
        if self.limit > 0 {
            self.limit_token(token);
        }
        let mut word = Word::Other;
        match token.kind() {
            TokenKind::Word => word = self.word(token, key),
            TokenKind::Quoted => self.quoted(token),
            TokenKind::Punct(byte) => self.punct(byte, token),
            TokenKind::UserVariable => self.user_variable(token),
            TokenKind::SystemVariable => self.system_variable(token),
            TokenKind::String | TokenKind::Number | TokenKind::End => {
                if self.words == 0 {
                    self.odd_start = true;
                }
            }
        }
        self.last_word = word;
        self.last = *token;
    }

    /// A token behind LIMIT: of `LIMIT 5, 10` the second one is a comma.
    fn limit_token(&mut self, token: &Token) {
        if self.limit == 2 && token.is(b',') {
            self.facts |= Facts::UNCOUNTED;
        }
        self.limit = (self.limit + 1) % 3;
    }

    fn last_is(&self, punct: u8) -> bool {
        self.last.is(punct)
    }

    #[inline]
    fn word(&mut self, token: &Token, key: Key) -> Word {
        let after_dot = self.last_is(b'.');
        let word = token.entry().map_or(Word::Other, |entry| entry.word);
        if let Some(place) = self.head.get_mut(self.words) {
            *place = word;
        }
        self.words += 1;
        let Some(entry) = token.entry() else {
            self.name(token, key, after_dot);
            return Word::Other;
        };
        self.name(token, key, after_dot);
        if entry.flags.has(Flags::WRITES) {
            match word {
                Word::Update if self.last_word == Word::For => self.facts |= Facts::LOCKING_READ,
                Word::Insert | Word::Replace => self.may_be_function = true,
                Word::Create if self.words == 2 && self.last_word == Word::Show => {}
                _ => self.writes = true,
            }
        } else if word != Word::Other {
            self.meaning(word);
        }
        word
    }

    /// Words that mean something wherever they stand.
    fn meaning(&mut self, word: Word) {
        match word {
            Word::Share if self.last_word == Word::For => self.facts |= Facts::LOCKING_READ,
            Word::Lock => self.lock = true,
            Word::In if self.last_word == Word::Lock => self.facts |= Facts::LOCKING_READ,
            Word::Into => self.facts |= Facts::INTO,
            Word::Combine | Word::Offset => self.facts |= Facts::UNCOUNTED,
            Word::Limit => self.limit = 1,
            Word::SqlCalcFoundRows => self.facts |= Facts::CALC_FOUND_ROWS,
            Word::Value if matches!(self.last_word, Word::Next | Word::Previous) => {
                self.facts |= Facts::SEQUENCE;
            }
            Word::CurrentUser | Word::CurrentRole => self.facts |= Facts::CONNECTION,
            Word::Only if self.last_word == Word::Read => self.read_only = true,
            Word::Export => self.export = true,
            Word::Chain if self.last_word != Word::No => self.chains = true,
            Word::Release if self.last_word != Word::No => self.releases = true,
            Word::With if self.words == 1 || self.last_is(b'(') || self.explains_what_follows() => {
                self.with |= self.depth_bit();
            }
            Word::Select | Word::Values | Word::Table => {
                self.with &= !self.depth_bit();
                // MySQL locks the rows that a query within SHOW reads.
                if self.head[0] == Word::Show && self.last_is(b'(') {
                    self.facts |= Facts::LOCKING_READ;
                }
            }
            Word::Procedure | Word::Function | Word::Trigger | Word::Event | Word::Package
                if self.words <= HEAD =>
            {
                // A routine is named after OR REPLACE and DEFINER = name at most; CREATE TABLE event is none.
                let before = self.head.get(1..self.words - 1).unwrap_or(&[]);
                let creates = match self.head[0] {
                    Word::Create => true,
                    Word::Alter => word == Word::Event,
                    _ => false,
                };
                self.procedure |= word == Word::Procedure;
                self.body |= creates
                    && before.iter().all(|word| {
                        matches!(
                            word,
                            Word::Or
                                | Word::Replace
                                | Word::Other
                                | Word::CurrentUser
                                | Word::CurrentRole
                        )
                    });
            }
            Word::Procedure => {
                self.procedure = true;
                self.facts |= Facts::UNCOUNTED;
            }
            Word::Atomic if matches!(self.head, [Word::Begin, Word::Not, ..]) => self.body = true,
            Word::If | Word::Case | Word::While | Word::Loop | Word::Repeat if self.words == 1 => {
                self.body = true;
            }
            _ => {}
        }
    }

    /// Whether it is an explanation, read up to where the explained query begins.
    fn explains_what_follows(&self) -> bool {
        matches!(self.head[0], Word::Explain | Word::Desc | Word::Analyze)
            && self.depth == 0
            && !(self.heads(Word::Select) || self.heads(Word::Values) || self.heads(Word::Table))
    }

    fn depth_bit(&self) -> u64 {
        u32::try_from(self.depth).map_or(0, |depth| 1u64.checked_shl(depth).unwrap_or(0))
    }

    /// A word or quoted name that can be an identifier.
    #[inline]
    fn name(&mut self, token: &Token, key: Key, after_dot: bool) {
        self.qualified = after_dot;
        if after_dot {
            self.name_after_dot(token, key);
            return;
        }
        self.chain = self.last_word;
    }

    /// Whether the name that the last token ends is a table's or an alias: `(` then begins a list.
    fn names_table(&self) -> bool {
        match self.chain {
            Word::Into
            | Word::Insert
            | Word::Replace
            | Word::Table
            | Word::With
            | Word::Recursive
            | Word::As => true,
            // HIGH_PRIORITY stands in queries too, and a column follows there.
            Word::InsertOption => self.writes && !self.heads(Word::Select),
            _ => false,
        }
    }

    fn name_after_dot(&mut self, token: &Token, key: Key) {
        const NEXTVAL: Key = Key {
            first: u64::from_le_bytes(*b"nextval\0"),
            last: 0,
        };
        const CURRVAL: Key = Key {
            first: u64::from_le_bytes(*b"currval\0"),
            last: 0,
        };
        if self.dialect.maria && (key == NEXTVAL || key == CURRVAL) {
            self.facts |= Facts::SEQUENCE;
        }
        if let Some(scope) = self.scope.take() {
            self.variable(token.plain_name(self.sql), scope);
        }
        match std::mem::replace(&mut self.schema, Word::Other) {
            Word::SystemSchema => self.facts |= Facts::SYSTEM_SCHEMA | Facts::SERVER_STATE,
            Word::InformationSchema => {
                self.facts |= Facts::SYSTEM_SCHEMA;
                let replicated = words::find_bytes(token.plain_name(self.sql))
                    .is_some_and(|entry| entry.flags.has(Flags::SCHEMA_VIEW));
                if !replicated {
                    self.facts |= Facts::SERVER_STATE;
                }
            }
            _ => {}
        }
    }

    fn quoted(&mut self, token: &Token) {
        if self.words == 0 {
            self.odd_start = true;
        }
        let after_dot = self.last_is(b'.');
        self.name(token, Key { first: 0, last: 0 }, after_dot);
    }

    fn punct(&mut self, byte: u8, token: &Token) {
        match byte {
            b'(' => {
                self.open(token);
                self.depth = self.depth.saturating_add(1);
                self.with &= !self.depth_bit();
            }
            b')' => {
                self.depth = self.depth.saturating_sub(1);
                self.odd_start |= self.words == 0;
            }
            b'.' => {
                self.dot();
                self.odd_start |= self.words == 0;
            }
            _ if self.words == 0 => self.odd_start = true,
            _ => {}
        }
    }

    fn dot(&mut self) {
        let last = self.last;
        if last.kind() != TokenKind::SystemVariable {
            self.scope_ends_bare();
        } else if self.scope.is_none() {
            // A component's variable.
            self.facts |= Facts::SERVER_STATE;
        }
        self.schema = match last.kind() {
            TokenKind::Word => match self.last_word {
                word @ (Word::SystemSchema | Word::InformationSchema) => word,
                _ => Word::Other,
            },
            TokenKind::Quoted => system_schema(last.plain_name(self.sql)),
            _ => Word::Other,
        };
    }

    /// An opening parenthesis: does it make the name before it a call?
    #[inline]
    fn open(&mut self, token: &Token) {
        let last = self.last;
        match last.kind() {
            TokenKind::Word => {}
            TokenKind::Quoted => return self.unknown_call(),
            _ => return,
        }
        let Some(entry) = last.entry().filter(|_| !self.qualified) else {
            return self.unknown_call();
        };
        let flags = entry.flags;
        let maria = self.dialect.maria;
        if flags.has(Flags::BEFORE_PAREN) {
            // MariaDB evaluates the column's default, which may be the next value of a sequence.
            // In a definition it only begins an expression.
            let defines = matches!(self.head[0], Word::Create | Word::Alter);
            if entry.word == Word::Default && maria && !defines {
                self.facts |= Facts::SEQUENCE;
            }
            return;
        }
        if flags.has(Flags::RESERVED) || (flags.has(Flags::BEFORE_PAREN_MYSQL) && !maria) {
            return;
        }
        let pure = flags.has(Flags::PURE)
            || flags.has(if maria {
                Flags::PURE_MARIA
            } else {
                Flags::PURE_MYSQL
            });
        if pure {
            let stored = flags.has(Flags::ADJACENT) && last.end() != token.start();
            if stored || (flags.has(Flags::VERSIONED) && !exists(entry.text(), self.dialect)) {
                self.unknown_call();
            }
            return;
        }
        match entry.word {
            Word::FnLastInsertId => {
                let rest = self.sql.get(token.end()..).unwrap_or_default();
                self.facts |= match rest.trim_ascii_start().first() {
                    Some(b')') => Facts::LAST_INSERT_ID,
                    _ => Facts::LAST_INSERT_ID | Facts::SETS_INSERT_ID,
                };
            }
            Word::FnPreviousStatement => self.facts |= Facts::PREVIOUS_STATEMENT,
            Word::FnNamedLock => self.facts |= Facts::NAMED_LOCK,
            Word::FnConnection => self.facts |= Facts::CONNECTION,
            Word::FnSequence => self.facts |= Facts::SEQUENCE,
            Word::FnServerState => self.facts |= Facts::SERVER_STATE,
            Word::FnClassicHash if has_classic_hashes(self.dialect) => {}
            Word::FnClassicHash => self.facts |= Facts::SERVER_STATE,
            _ => self.unknown_call(),
        }
    }

    fn unknown_call(&mut self) {
        if !self.names_table() && self.with & self.depth_bit() == 0 {
            self.facts |= Facts::UNKNOWN_FUNCTION;
        }
    }

    fn user_variable(&mut self, token: &Token) {
        let last = self.last;
        let account = last.end() == token.start()
            && match last.kind() {
                TokenKind::String | TokenKind::Quoted => true,
                TokenKind::Word => last
                    .entry()
                    .is_none_or(|entry| !entry.flags.has(Flags::RESERVED)),
                _ => false,
            };
        if account {
            self.account = true;
        } else {
            self.facts |= Facts::USER_VARIABLE;
        }
        if self.words == 0 {
            self.odd_start = true;
        }
    }

    fn system_variable(&mut self, token: &Token) {
        self.facts |= Facts::SYSTEM_VARIABLE;
        if self.words == 0 {
            self.odd_start = true;
        }
        let name = token.plain_name(self.sql);
        let is = |scope: &[u8]| name.eq_ignore_ascii_case(scope);
        self.scope_ends_bare();
        if is(b"global") {
            self.scope = Some(Scope::Global);
        } else if is(b"session") || is(b"local") {
            self.scope = Some(Scope::Session);
        } else {
            self.variable(name, Scope::Session);
        }
    }

    /// A scope without a name is nothing that is known here.
    fn scope_ends_bare(&mut self) {
        if self.scope.take().is_some() {
            self.facts |= Facts::SERVER_STATE;
        }
    }

    /// A system variable is read.
    fn variable(&mut self, name: &[u8], scope: Scope) {
        let is = |names: &[&[u8]]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
        if is(&[b"last_insert_id", b"identity", b"insert_id"]) {
            self.facts |= Facts::LAST_INSERT_ID;
        } else if is(&[b"warning_count", b"error_count"]) {
            self.facts |= Facts::PREVIOUS_STATEMENT;
        } else if scope == Scope::Global
            || (variables::find(name).is_none() && !is(&[b"autocommit"]))
        {
            self.facts |= Facts::SERVER_STATE;
        }
    }

    fn body_token(&mut self, token: &Token) {
        if self.last_is(b';') && !token.is(b';') {
            self.body_goes_on = true;
        }
    }

    /// Whether one of the first words is this one.
    fn heads(&self, wanted: Word) -> bool {
        self.head
            .get(..self.words.min(HEAD))
            .is_some_and(|head| head.contains(&wanted))
    }

    /// Whether its words so far are those of something else than a query.
    pub(super) fn writes(&self) -> bool {
        self.writes || self.may_be_function || self.procedure
    }

    fn finish(&self) -> (Kind, Facts, Cause) {
        let writes = self.writes || self.may_be_function;
        let mut facts = self.facts;
        if self.scope.is_some() {
            facts |= Facts::SERVER_STATE;
        }
        let (kind, cause) = if self.odd_start {
            (Kind::Unknown, Cause::NotUnderstood)
        } else {
            self.verb(writes, &mut facts)
        };
        let accounts = matches!(
            kind,
            Kind::Ddl | Kind::Admin | Kind::Show | Kind::Kill | Kind::Set
        );
        if self.account && !accounts {
            facts |= Facts::USER_VARIABLE;
        }
        if kind == Kind::Ddl && self.body {
            // What a routine does is done when it is called.
            facts = Facts::NONE;
            if self.body_goes_on {
                facts |= Facts::MULTI | Facts::SESSION_STATE;
            }
        }
        if self.may_define(kind) {
            facts |= Facts::DEFINITIONS;
        }
        if !matches!(kind, Kind::Read | Kind::Explain | Kind::Show) {
            facts = facts.difference(Facts::INTO);
        }
        match kind {
            Kind::Read | Kind::Show | Kind::Explain => {
                let cause = if cause == Cause::None {
                    cause_of(facts)
                } else {
                    cause
                };
                let unsure = Facts::UNKNOWN_FUNCTION
                    .union(Facts::SEQUENCE)
                    .union(Facts::INTO);
                if facts.intersects(unsure) || matches!(cause, Cause::NotUnderstood | Cause::Write)
                {
                    facts |= Facts::MAY_WRITE;
                }
                (kind, facts, cause)
            }
            Kind::Begin { .. }
            | Kind::Commit
            | Kind::Rollback
            | Kind::Savepoint
            | Kind::Use
            | Kind::UnlockTables
            | Kind::LockTables
            | Kind::Diagnostics
            | Kind::Empty => (kind, facts, cause),
            Kind::Set | Kind::Do
                if !facts.intersects(Facts::UNKNOWN_FUNCTION.union(Facts::SEQUENCE)) && !writes =>
            {
                (kind, facts, cause)
            }
            _ => (kind, facts | Facts::MAY_WRITE, cause),
        }
    }

    /// What the first words say.
    fn verb(&self, writes: bool, facts: &mut Facts) -> (Kind, Cause) {
        let second = self.head[1];
        if self.concerns_accounts() {
            *facts |= Facts::ACCOUNTS;
        }
        match self.head[0] {
            Word::Select | Word::Values | Word::With => {
                if writes && self.head[0] == Word::With {
                    (Kind::Write, Cause::Write)
                } else if writes || self.procedure {
                    // Reserved words that no query holds, but for SELECT ... PROCEDURE ANALYSE().
                    (Kind::Read, Cause::NotUnderstood)
                } else {
                    (Kind::Read, Cause::None)
                }
            }
            Word::Table => (
                Kind::Read,
                if writes {
                    Cause::NotUnderstood
                } else {
                    Cause::None
                },
            ),
            Word::Insert | Word::Update | Word::Delete | Word::Replace => {
                (Kind::Write, Cause::Write)
            }
            Word::Show => self.show(writes, facts),
            Word::Explain | Word::Desc => self.explain(writes, facts),
            Word::Analyze => {
                if matches!(second, Word::Table | Word::Tables | Word::Local) {
                    *facts |= Facts::IMPLICIT_COMMIT;
                    (Kind::Admin, Cause::Administration)
                } else if writes {
                    (Kind::Write, Cause::Write)
                } else if self.heads(Word::Select) || self.heads(Word::With) {
                    (Kind::Explain, Cause::None)
                } else {
                    (Kind::Unknown, Cause::NotUnderstood)
                }
            }
            Word::Begin if self.body => (Kind::Compound, Cause::Procedure),
            Word::Begin if self.words == 1 || (self.words == 2 && second == Word::Work) => {
                *facts |= Facts::IMPLICIT_COMMIT;
                (Kind::Begin { read_only: false }, Cause::Transaction)
            }
            Word::Start if second == Word::Transaction => {
                *facts |= Facts::IMPLICIT_COMMIT;
                if self.words > if self.read_only { 4 } else { 2 } {
                    *facts |= Facts::CHARACTERISTICS;
                }
                (
                    Kind::Begin {
                        read_only: self.read_only,
                    },
                    Cause::Transaction,
                )
            }
            Word::Commit | Word::Rollback => {
                if self.head[0] == Word::Rollback && self.heads(Word::To) {
                    return (Kind::Savepoint, Cause::Transaction);
                }
                if self.chains {
                    *facts |= Facts::CHAIN;
                }
                if self.releases {
                    *facts |= Facts::RELEASE;
                }
                let kind = if self.head[0] == Word::Commit {
                    Kind::Commit
                } else {
                    Kind::Rollback
                };
                (kind, Cause::Transaction)
            }
            Word::Savepoint => (Kind::Savepoint, Cause::Transaction),
            Word::Release if second == Word::Savepoint => (Kind::Savepoint, Cause::Transaction),
            // SET STATEMENT x=y FOR ... is that statement.
            Word::Set if second == Word::Statement => (Kind::Write, Cause::Write),
            Word::Set => (Kind::Set, Cause::SessionState),
            Word::Use => (Kind::Use, Cause::SessionState),
            Word::Call => (Kind::Call, Cause::Procedure),
            Word::Do => (Kind::Do, self.do_cause(*facts)),
            Word::Xa => {
                *facts |= Facts::IMPLICIT_COMMIT;
                (Kind::Xa, Cause::Transaction)
            }
            Word::Kill => (Kind::Kill, Cause::Administration),
            Word::Handler => {
                *facts |= Facts::HANDLER;
                (Kind::Handler, Cause::Handler)
            }
            Word::Prepare | Word::Execute | Word::Deallocate => {
                *facts |= Facts::TEXT_PREPARE;
                (Kind::Prepare, Cause::TextPrepare)
            }
            Word::Lock => {
                *facts |= Facts::LOCK_TABLES | Facts::IMPLICIT_COMMIT;
                (Kind::LockTables, Cause::LockTables)
            }
            Word::Unlock => {
                *facts |= Facts::UNLOCK_TABLES | Facts::IMPLICIT_COMMIT;
                (Kind::UnlockTables, Cause::LockTables)
            }
            Word::Load if second == Word::Index => (Kind::Admin, Cause::Administration),
            Word::Load => (Kind::LoadData, Cause::Write),
            Word::Get | Word::Signal | Word::Resignal => {
                *facts |= Facts::PREVIOUS_STATEMENT;
                (Kind::Diagnostics, Cause::PreviousStatement)
            }
            Word::If | Word::Case | Word::While | Word::Loop | Word::Repeat if self.body => {
                (Kind::Compound, Cause::Procedure)
            }
            Word::Drop if second == Word::Prepare => {
                *facts |= Facts::TEXT_PREPARE;
                (Kind::Prepare, Cause::TextPrepare)
            }
            Word::Create
            | Word::Drop
            | Word::Alter
            | Word::Truncate
            | Word::Rename
            | Word::Grant
            | Word::Revoke => self.definition(facts),
            _ => self.administration(facts),
        }
    }

    /// Whether it may change what routines and views there are, or what they do.
    fn may_define(&self, kind: Kind) -> bool {
        let [first, second, third, fourth, ..] = self.head;
        match kind {
            Kind::Call | Kind::Compound | Kind::Unknown => true,
            Kind::Prepare => first == Word::Execute,
            Kind::Admin => matches!(first, Word::Install | Word::Uninstall | Word::Import),
            // SET STATEMENT x=y FOR ...
            Kind::Write => first == Word::Set && (self.writes || self.heads(Word::Execute)),
            Kind::Ddl => match first {
                Word::Rename => true,
                Word::Create | Word::Alter | Word::Drop => {
                    let object = match (second, third) {
                        (Word::Or, Word::Replace) => fourth,
                        _ => second,
                    };
                    // USER is known as a function.
                    !matches!(
                        object,
                        Word::Table
                            | Word::Temporary
                            | Word::Index
                            | Word::FnConnection
                            | Word::Role
                            | Word::Trigger
                            | Word::Event
                            | Word::Sequence
                    )
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn concerns_accounts(&self) -> bool {
        let head = self.head.get(..self.words.min(HEAD)).unwrap_or(&[]);
        concern_accounts(match head {
            [Word::Set, Word::Statement, rest @ ..] => {
                let inner = rest.iter().position(|&word| word == Word::For);
                inner.and_then(|at| rest.get(at + 1..)).unwrap_or(&[])
            }
            _ => head,
        })
    }

    fn do_cause(&self, facts: Facts) -> Cause {
        match cause_of(facts) {
            Cause::None => Cause::Do,
            cause => cause,
        }
    }

    fn definition(&self, facts: &mut Facts) -> (Kind, Cause) {
        // Names of types and constraints before `(` look like calls.
        *facts = facts.difference(Facts::UNKNOWN_FUNCTION);
        let head = self.head.get(..4).unwrap_or(&[]);
        if matches!(self.head[0], Word::Create | Word::Drop) && head.contains(&Word::Temporary) {
            *facts |= Facts::TEMPORARY_TABLE;
        } else {
            *facts |= Facts::IMPLICIT_COMMIT;
        }
        (Kind::Ddl, Cause::Definition)
    }

    fn administration(&self, facts: &mut Facts) -> (Kind, Cause) {
        let second = self.head[1];
        match self.head[0] {
            Word::Flush => {
                *facts |= Facts::IMPLICIT_COMMIT;
                if self.lock || self.export {
                    *facts |= Facts::LOCK_TABLES;
                }
            }
            Word::Backup => {
                *facts |= if second == Word::Unlock {
                    Facts::UNLOCK_TABLES
                } else {
                    Facts::LOCK_TABLES
                };
            }
            Word::Optimize
            | Word::Repair
            | Word::Check
            | Word::Checksum
            | Word::Reset
            | Word::Purge
            | Word::Cache => {
                *facts |= Facts::IMPLICIT_COMMIT;
            }
            Word::Change
            | Word::Start
            | Word::Stop
            | Word::Install
            | Word::Uninstall
            | Word::Binlog
            | Word::Clone
            | Word::Shutdown
            | Word::Restart
            | Word::Import
            | Word::Help => {}
            _ => return (Kind::Unknown, Cause::NotUnderstood),
        }
        (Kind::Admin, Cause::Administration)
    }

    fn show(&self, writes: bool, facts: &mut Facts) -> (Kind, Cause) {
        let mut words = self
            .head
            .get(1..self.words.min(HEAD))
            .unwrap_or(&[])
            .iter()
            .copied()
            .skip_while(|word| matches!(word, Word::Full | Word::Extended | Word::Storage));
        let first = words.next().unwrap_or(Word::Other);
        let second = words.next().unwrap_or(Word::Other);
        match (first, second) {
            (Word::Warnings | Word::Errors | Word::Count, _) => *facts |= Facts::PREVIOUS_STATEMENT,
            (Word::Processlist, _) => *facts |= Facts::PROCESS_LIST | Facts::SERVER_STATE,
            (Word::Status, _) | (Word::Global | Word::Session | Word::Local, Word::Status) => {
                *facts |= Facts::STATUS | Facts::SERVER_STATE;
            }
            (Word::Profile, _) => *facts |= Facts::PREVIOUS_STATEMENT,
            (
                Word::Tables
                | Word::Columns
                | Word::Fields
                | Word::Index
                | Word::Indexes
                | Word::Keys
                | Word::Databases
                | Word::Collation
                | Word::Charset
                | Word::Triggers,
                _,
            )
            | (Word::Character, Word::Set)
            | (Word::Table, Word::Status)
            | (Word::Procedure | Word::Function, Word::Status)
            | (
                Word::Create,
                Word::Table
                | Word::View
                | Word::SchemaDatabase
                | Word::Procedure
                | Word::Function
                | Word::Trigger
                | Word::Sequence,
            ) => {}
            _ => *facts |= Facts::SERVER_STATE,
        }
        let cause = if writes {
            Cause::NotUnderstood
        } else {
            Cause::None
        };
        (Kind::Show, cause)
    }

    fn explain(&self, writes: bool, facts: &mut Facts) -> (Kind, Cause) {
        let analyze = self.heads(Word::Analyze);
        if self
            .head
            .windows(2)
            .any(|pair| pair == [Word::For, Word::Connection])
        {
            *facts |= Facts::CONNECTION;
        }
        match (writes, analyze) {
            (true, true) => (Kind::Explain, Cause::Write),
            (true, false) => (Kind::Explain, Cause::ExplainedWrite),
            (false, _) => (Kind::Explain, Cause::None),
        }
    }
}

/// Whether a statement with these first words changes accounts, roles among them.
fn concern_accounts(head: &[Word]) -> bool {
    let (verb, object) = match head {
        [Word::Create, Word::Or, Word::Replace, object, ..] => (Word::Create, *object),
        [verb, object, ..] => (*verb, *object),
        _ => return false,
    };
    match verb {
        Word::Grant | Word::Revoke => true,
        // USER is known as a function.
        Word::Create | Word::Drop | Word::Alter | Word::Rename => {
            matches!(object, Word::FnConnection | Word::Role)
        }
        Word::Set => object == Word::Password || matches!(head, [_, Word::Default, Word::Role, ..]),
        Word::Flush => head.contains(&Word::Privileges),
        _ => false,
    }
}

/// What a quoted name means as a schema.
fn system_schema(name: &[u8]) -> Word {
    // Most names are of other lengths: sys, mysql, information_schema, performance_schema.
    if !matches!(name.len(), 3 | 5 | 18) {
        return Word::Other;
    }
    match words::find_bytes(name) {
        Some(entry) if matches!(entry.word, Word::SystemSchema | Word::InformationSchema) => {
            entry.word
        }
        _ => Word::Other,
    }
}

/// The first fact that keeps a read from replicas.
pub(super) fn cause_of(facts: Facts) -> Cause {
    for (fact, cause) in [
        (Facts::LOCKING_READ, Cause::LockingRead),
        (Facts::NAMED_LOCK, Cause::NamedLock),
        (Facts::SEQUENCE, Cause::Sequence),
        (Facts::UNKNOWN_FUNCTION, Cause::UnknownFunction),
        (Facts::INTO, Cause::Into),
        (Facts::USER_VARIABLE, Cause::UserVariable),
        (Facts::LAST_INSERT_ID, Cause::LastInsertId),
        (Facts::PREVIOUS_STATEMENT, Cause::PreviousStatement),
        (Facts::CONNECTION, Cause::Connection),
        (
            Facts::SYSTEM_SCHEMA.union(Facts::SERVER_STATE),
            Cause::SystemSchema,
        ),
        (Facts::SERVER_STATE, Cause::ServerState),
    ] {
        if facts.contains(fact) {
            return cause;
        }
    }
    Cause::None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_told_from_tables() {
        let defines = |sql: &str| {
            let facts = classify(sql.as_bytes(), Dialect::default()).facts;
            facts.contains(Facts::DEFINITIONS)
        };
        for sql in [
            "CREATE FUNCTION f() RETURNS INT RETURN 1",
            "CREATE DEFINER = CURRENT_USER FUNCTION f() RETURNS INT RETURN 1",
            "CREATE AGGREGATE FUNCTION f RETURNS STRING SONAME 'f.so'",
            "CREATE OR REPLACE ALGORITHM = MERGE DEFINER = a SQL SECURITY INVOKER VIEW v AS SELECT 1",
            "CREATE VIEW v AS SELECT 1",
            "CREATE OR REPLACE PROCEDURE p() SELECT 1",
            "ALTER VIEW v AS SELECT 2",
            "ALTER FUNCTION f SQL SECURITY INVOKER",
            "DROP FUNCTION f",
            "DROP VIEW v",
            "DROP DATABASE d",
            "DROP SCHEMA d",
            "RENAME TABLE v TO w",
            "CALL p()",
            "EXECUTE s",
            "EXECUTE IMMEDIATE 'CREATE VIEW v AS SELECT 1'",
            "BEGIN NOT ATOMIC CREATE VIEW v AS SELECT 1; END",
            "SET STATEMENT max_statement_time = 5 FOR CREATE VIEW v AS SELECT 1",
            "SELECT 1; CREATE VIEW v AS SELECT 1",
            "INSERT INTO t VALUES (1); DROP VIEW v",
            "GIBBERISH",
        ] {
            assert!(defines(sql), "{sql}");
        }
        for sql in [
            "CREATE TABLE view (a INT)",
            "CREATE OR REPLACE TABLE t (a INT)",
            "CREATE TEMPORARY TABLE t (a INT)",
            "CREATE INDEX i ON t (a)",
            "CREATE USER u",
            "ALTER TABLE t ADD b INT",
            "DROP TABLE t",
            "DROP TEMPORARY TABLE t",
            "TRUNCATE t",
            "GRANT SELECT ON *.* TO u",
            "PREPARE s FROM 'SELECT 1'",
            "DEALLOCATE PREPARE s",
            "SET STATEMENT max_statement_time = 5 FOR SELECT 1",
            "INSERT INTO t VALUES (1)",
            "SELECT 1",
            "SHOW CREATE VIEW v",
            "FLUSH TABLES",
            "SET @a = 1",
        ] {
            assert!(!defines(sql), "{sql}");
        }
    }

    #[test]
    fn changes_of_accounts_are_told_from_tables_of_that_name() {
        let concern = |sql: &str| {
            let facts = classify(sql.as_bytes(), Dialect::default()).facts;
            facts.contains(Facts::ACCOUNTS)
        };
        for sql in [
            "CREATE USER a",
            "CREATE USER IF NOT EXISTS a@'%' IDENTIFIED BY 'x'",
            "CREATE OR REPLACE USER a",
            "ALTER USER a",
            "ALTER USER IF EXISTS a ACCOUNT LOCK",
            "DROP USER a, b",
            "RENAME USER a TO b",
            "CREATE ROLE r",
            "CREATE OR REPLACE ROLE r",
            "DROP ROLE IF EXISTS r",
            "SET DEFAULT ROLE r FOR a",
            "SET PASSWORD = 'x'",
            "SET PASSWORD FOR a = 'x'",
            "SET STATEMENT max_statement_time = 5 FOR ALTER USER a ACCOUNT LOCK",
            "GRANT SELECT ON *.* TO a",
            "REVOKE r FROM a",
            "FLUSH PRIVILEGES",
            "FLUSH LOCAL PRIVILEGES",
            "SELECT 1; DROP USER a",
        ] {
            assert!(concern(sql), "{sql}");
        }
        for sql in [
            "CREATE TABLE user (id INT)",
            "CREATE TEMPORARY TABLE user (id INT)",
            "CREATE TABLE IF NOT EXISTS user (user INT)",
            "ALTER TABLE user ADD role INT",
            "DROP TABLE user",
            "DROP TABLE IF EXISTS role, user",
            "RENAME TABLE user TO role",
            "CREATE OR REPLACE VIEW user AS SELECT 1",
            "CREATE INDEX user ON t (user)",
            "DROP TRIGGER user",
            "SET ROLE r",
            "SET @password = 1",
            "SET STATEMENT max_statement_time = 5 FOR SELECT user FROM user",
            "SELECT user FROM user",
        ] {
            assert!(!concern(sql), "{sql}");
        }
    }
}
