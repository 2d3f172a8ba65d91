//! Statements without their literals, as text and as hash.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::dialect::Dialect;
use super::facts::Facts;
use super::lexer::{Lexer, Token, TokenKind};
use super::words::{self, Entry, Flags, Key, Word};

/// The statement with literals replaced by `?`, lists of literals shortened to `?, ...`, blanks and
/// comments normalised and reserved words in upper case. At most `limit` bytes.
///
/// Not SQL: for people and for counting. Without a limit its XXH3 hash is
/// [`super::StatementClass::digest`].
pub fn digest_text(sql: &[u8], dialect: Dialect, limit: usize) -> String {
    digested(sql, dialect, limit).0
}

/// [`digest_text`] of a statement whose literals surely are where they seem to be; `None` for others, whose digest might show one,
/// or be the same as that of a statement with another meaning.
pub fn loggable_digest(sql: &[u8], dialect: Dialect, limit: usize) -> Option<String> {
    let (text, facts) = digested(sql, dialect, limit);
    (!facts.intersects(Facts::DOUBTFUL)).then_some(text)
}

fn digested(sql: &[u8], dialect: Dialect, limit: usize) -> (String, Facts) {
    let mut lexer = Lexer::new(sql, dialect);
    let mut digest = Digest::new(
        Text {
            bytes: Vec::new(),
            limit,
        },
        dialect,
    );
    loop {
        let token = lexer.next();
        if token.kind() == TokenKind::End {
            break;
        }
        digest.token(&token, lexer.key, sql);
    }
    let mut bytes = std::mem::take(&mut digest.finish().bytes);
    bytes.truncate(limit);
    (String::from_utf8_lossy(&bytes).into_owned(), lexer.facts)
}

/// Where the bytes of a digest go.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    /// The first `len` bytes of a word of at most 8 bytes.
    #[inline]
    fn put_short(&mut self, word: u64, len: usize) {
        self.put(word.to_le_bytes().get(..len).unwrap_or(&[]));
    }
}

struct Text {
    bytes: Vec<u8>,
    limit: usize,
}

impl Sink for Text {
    fn put(&mut self, bytes: &[u8]) {
        if self.bytes.len() < self.limit {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

/// Hashes a digest without keeping it: short ones in one go from the stack.
pub(super) struct Hash {
    buffer: [u8; BUFFER],
    len: usize,
    /// Once the buffer has been full. Boxed because it is large and nearly always absent.
    stream: Option<Box<Xxh3>>,
}

const BUFFER: usize = 768;

impl Hash {
    pub(super) fn new() -> Self {
        Self {
            buffer: [0; BUFFER],
            len: 0,
            stream: None,
        }
    }

    #[cold]
    fn flush(&mut self) {
        let stream = self.stream.get_or_insert_with(Box::default);
        stream.update(self.buffer.get(..self.len).unwrap_or(&[]));
        self.len = 0;
    }

    pub(super) fn value(&mut self) -> u64 {
        if self.stream.is_some() {
            self.flush();
        }
        match &self.stream {
            Some(stream) => stream.digest(),
            None => xxh3_64(self.buffer.get(..self.len).unwrap_or(&[])),
        }
    }
}

impl Sink for Hash {
    #[inline(never)]
    fn put(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(BUFFER) {
            if chunk.len() > BUFFER - self.len {
                self.flush();
            }
            let end = self.len + chunk.len();
            if let Some(place) = self.buffer.get_mut(self.len..end) {
                place.copy_from_slice(chunk);
                self.len = end;
            }
        }
    }

    #[inline]
    fn put_short(&mut self, word: u64, len: usize) {
        let rest = self.buffer.get_mut(self.len..);
        let Some(place) = rest.and_then(|rest| rest.first_chunk_mut::<8>()) else {
            return self.put(word.to_le_bytes().get(..len).unwrap_or(&[]));
        };
        // Always eight bytes: a fixed length costs one store, what is too much is overwritten.
        *place = word.to_le_bytes();
        self.len += len;
    }
}

/// What stands before, as far as blanks and lists care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Start,
    Keyword,
    /// A keyword that an expression may follow.
    Asking,
    /// IN.
    In,
    /// A name, a variable or a word that may be one.
    Name,
    Literal,
    Open,
    Close,
    Comma,
    Dot,
    Operator,
}

/// A run of literals with commas between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    None,
    One,
    /// One literal and a comma that is not yet written.
    OneComma,
    Many,
    ManyComma,
}

/// A run of groups of literals: `(?, ...), (?, ...)`. Those with one and those with several do not mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    None,
    /// Inside the first group, nothing but literals so far; all of it is written.
    Inside,
    /// The same, behind IN: how many literals there are says nothing.
    InList,
    /// A group of literals has ended.
    Ended,
    /// And a comma came that is not yet written.
    Comma,
    /// And another group has begun; `, (` and its literals are not yet written.
    Held,
}

/// What an unquoted word is to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Keyword,
    /// A keyword if `(` follows at once, otherwise a name.
    CalledKeyword,
    Name,
}

/// A few signs in a row: a bit for each, set for `+`, behind a set bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signs(u8);

impl Signs {
    const NONE: Self = Self(1);

    /// With another one, if there is room.
    fn and(self, sign: u8) -> Option<Self> {
        let room = self.0.leading_zeros() > 0;
        room.then_some(Self(self.0 << 1 | u8::from(sign == b'+')))
    }

    fn bytes(self) -> impl Iterator<Item = u8> {
        let signs = 7 - self.0.leading_zeros();
        let is_plus = move |place: u32| self.0 >> place & 1 == 1;
        (0..signs)
            .rev()
            .map(move |place| if is_plus(place) { b'+' } else { b'-' })
    }
}

/// Turns tokens into the bytes of a digest.
pub(super) struct Digest<S> {
    sink: S,
    dialect: Dialect,
    before: Before,
    end: usize,
    run: Run,
    rows: Rows,
    /// What the groups before hold: [`Run::One`] or [`Run::Many`].
    row: Run,
    /// Further groups have been noted by `, ...`.
    rows_noted: bool,
    /// Signs that belong to the number after them, if one comes.
    signs: Signs,
    /// A `;` that is written if something follows.
    ended: bool,
    /// How the keywords that may be names are written.
    spelling: u64,
}

impl<S: Sink> Digest<S> {
    pub(super) fn new(sink: S, dialect: Dialect) -> Self {
        Self {
            sink,
            dialect,
            before: Before::Start,
            end: 0,
            run: Run::None,
            rows: Rows::None,
            row: Run::None,
            rows_noted: false,
            signs: Signs::NONE,
            ended: false,
            spelling: 0,
        }
    }

    /// The sink, with all that was held back written to it.
    pub(super) fn finish(&mut self) -> &mut S {
        self.ended = false;
        self.release();
        &mut self.sink
    }

    /// Differs for statements of one digest that may name other things: some names are keywords too, and these are
    /// in upper case in a digest.
    pub(super) fn spelling(&self) -> u64 {
        self.spelling
    }

    #[inline]
    pub(super) fn token(&mut self, token: &Token, key: Key, sql: &[u8]) {
        match token.kind() {
            TokenKind::Word => self.word(token, key, sql),
            TokenKind::Number => {
                self.signs = Signs::NONE;
                self.literal();
            }
            TokenKind::String => self.unsigned(),
            TokenKind::Punct(byte) => self.punct(byte, token, sql),
            TokenKind::Quoted => self.quoted(token, sql),
            TokenKind::UserVariable => self.user_variable(token, sql),
            TokenKind::SystemVariable => self.system_variable(token, sql),
            TokenKind::End => {}
        }
        self.end = token.end();
    }

    #[inline]
    fn word(&mut self, token: &Token, key: Key, sql: &[u8]) {
        let (start, end) = (token.start(), token.end());
        match token.entry().map(|entry| (entry, self.meaning(entry))) {
            Some((entry, Meaning::Keyword))
                if entry.flags.has(Flags::RESERVED) || !qualifies(sql, end) =>
            {
                self.keyword(token, entry, key, sql);
            }
            Some((entry, Meaning::CalledKeyword)) if sql.get(end) == Some(&b'(') => {
                self.keyword(token, entry, key, sql);
            }
            Some((_, Meaning::CalledKeyword)) => {
                self.blank_before_name();
                self.in_backticks(token.bytes(sql));
            }
            _ => self.name(sql, start, end),
        }
    }

    /// What a word is to the server that is not behind a dot.
    #[inline]
    fn meaning(&self, entry: &Entry) -> Meaning {
        const MYSQL: Flags = Flags(Flags::RESERVED.0 | Flags::KEYWORD_MYSQL.0);
        const MARIA: Flags = Flags(Flags::RESERVED.0 | Flags::KEYWORD_MARIA.0);
        const CALLED: Flags = Flags(Flags::ADJACENT.0 | Flags::CALLED.0);
        let keywords = if self.dialect.maria { MARIA } else { MYSQL };
        if entry.flags.has(keywords) {
            Meaning::Keyword
        } else if entry.flags.has(CALLED) {
            Meaning::CalledKeyword
        } else {
            Meaning::Name
        }
    }

    #[inline]
    fn keyword(&mut self, token: &Token, entry: &Entry, key: Key, sql: &[u8]) {
        let expression =
            self.expects_operand() && !matches!(self.before, Before::Keyword | Before::Start);
        if entry.word == Word::Null && expression {
            return self.unsigned();
        }
        self.release();
        if !matches!(self.before, Before::Start | Before::Open | Before::Dot) {
            self.sink.put_short(u64::from(b' '), 1);
        }
        if entry.flags.has(Flags::RESPELLED) {
            self.sink.put(entry.shown().as_bytes());
        } else {
            self.upper(entry, key, token.end() - token.start());
        }
        self.before = if self.before == Before::Start {
            Before::Asking
        } else if !entry.flags.has(Flags::RESERVED) {
            let spelling = self.spelling ^ load(sql, token.start());
            self.spelling = spelling.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
            Before::Name
        } else if entry.word == Word::In {
            Before::In
        } else if entry.flags.has(Flags::BEFORE_PAREN)
            && !entry.flags.has(Flags::TYPE)
            && entry.word != Word::Not
        {
            Before::Asking
        } else {
            Before::Keyword
        };
    }

    /// A word without digits, in upper case.
    #[inline]
    fn upper(&mut self, entry: &Entry, key: Key, len: usize) {
        // Letters of a folded key to upper case.
        const UPPER: u64 = 0xDFDF_DFDF_DFDF_DFDF;
        let Key { first, last } = key;
        if len <= 8 {
            self.sink.put_short(first & UPPER, len);
        } else if len <= 16 {
            self.sink.put_short(first & UPPER, 8);
            let rest = len - 8;
            self.sink
                .put_short((last & UPPER) >> ((8 - rest) * 8), rest);
        } else {
            self.sink.put(entry.text().as_bytes());
        }
    }

    /// The bytes of a name, or of what stands for one.
    #[inline]
    fn name(&mut self, sql: &[u8], mut start: usize, end: usize) {
        self.blank_before_name();
        while end - start > 8 {
            self.sink.put_short(load(sql, start), 8);
            start += 8;
        }
        self.sink.put_short(load(sql, start), end - start);
    }

    #[inline]
    fn blank_before_name(&mut self) {
        self.release();
        if !matches!(self.before, Before::Start | Before::Open | Before::Dot) {
            self.sink.put_short(u64::from(b' '), 1);
        }
        self.before = Before::Name;
    }

    /// A name in quotes: without them, if they change nothing.
    fn quoted(&mut self, token: &Token, sql: &[u8]) {
        if token.is_plain() {
            let (start, end) = (token.start() + 1, token.end() - 1);
            let inner = token.plain_name(sql);
            let key = Key::of(sql, start, end);
            let bare = self.before == Before::Dot
                || qualifies(sql, token.end())
                || sql
                    .get(token.end()..)
                    .is_some_and(|rest| rest.starts_with(b".`"))
                || !(inner.first().is_some_and(u8::is_ascii_digit)
                    || words::find(key, sql, start, end)
                        .entry()
                        .is_some_and(|entry| self.meaning(entry) != Meaning::Name));
            if bare {
                return self.name(sql, start, end);
            }
        }
        self.blank_before_name();
        self.quoted_bytes(token.bytes(sql));
    }

    /// A name in quotes of either kind, in backticks; as it stands if it does not end.
    #[cold]
    fn quoted_bytes(&mut self, quoted: &[u8]) {
        if let [b'"', inner @ .., b'"'] = quoted {
            self.in_backticks(
                String::from_utf8_lossy(inner)
                    .replace("\"\"", "\"")
                    .as_bytes(),
            );
        } else {
            self.sink.put(quoted);
        }
    }

    #[cold]
    fn in_backticks(&mut self, name: &[u8]) {
        self.sink.put(b"`");
        for piece in name.split_inclusive(|&byte| byte == b'`') {
            self.sink.put(piece);
            if piece.ends_with(b"`") {
                self.sink.put(b"`");
            }
        }
        self.sink.put(b"`");
    }

    /// Without its name, as the servers have it: to their lexers, that is a host's, and a literal.
    fn user_variable(&mut self, token: &Token, sql: &[u8]) {
        self.blank_before_name();
        let quote = token.bytes(sql).get(1);
        if quote == Some(&b'`') || (quote == Some(&b'"') && self.dialect.ansi_quotes) {
            self.sink.put(b"@");
            self.quoted_bytes(token.bytes(sql).get(1..).unwrap_or(&[]));
        } else {
            self.sink.put(b"@?");
            self.run = Run::One;
        }
    }

    fn system_variable(&mut self, token: &Token, sql: &[u8]) {
        self.blank_before_name();
        self.sink.put(b"@@");
        let name = token.plain_name(sql);
        let quoted = name.len() + 2 < token.end() - token.start();
        match words::find_bytes(name) {
            Some(entry) if !quoted && self.meaning(entry) == Meaning::Keyword => {
                self.sink.put(entry.shown().as_bytes());
            }
            _ => self.sink.put(name),
        }
    }

    /// A literal that takes no sign.
    fn unsigned(&mut self) {
        if self.signs != Signs::NONE {
            self.release();
        }
        self.literal();
    }

    #[inline]
    fn literal(&mut self) {
        if self.rows == Rows::Held {
            self.run = match self.run {
                Run::None => Run::One,
                _ => Run::Many,
            };
            return;
        }
        match self.run {
            Run::OneComma => {
                self.sink.put(b", ...");
                self.run = Run::Many;
            }
            Run::ManyComma => self.run = Run::Many,
            _ => {
                if !matches!(self.rows, Rows::Inside | Rows::InList) || self.before != Before::Open
                {
                    self.release();
                }
                if self.before == Before::Open {
                    self.sink.put_short(u64::from(b'?'), 1);
                } else {
                    self.sink
                        .put_short(u64::from_le_bytes(*b" ?\0\0\0\0\0\0"), 2);
                }
                self.run = Run::One;
            }
        }
        self.before = Before::Literal;
    }

    fn punct(&mut self, byte: u8, token: &Token, sql: &[u8]) {
        match byte {
            b'?' => return self.unsigned(),
            b',' => match (self.run, self.rows) {
                (Run::One, _) if self.signs == Signs::NONE => return self.run = Run::OneComma,
                (Run::Many, _) if self.signs == Signs::NONE => return self.run = Run::ManyComma,
                (_, Rows::Ended) => return self.rows = Rows::Comma,
                _ => {}
            },
            b'(' if self.rows == Rows::Comma => {
                self.rows = Rows::Held;
                self.run = Run::None;
                return;
            }
            b')' if self.signs == Signs::NONE
                && matches!(self.run, Run::One | Run::Many)
                && self.row_ends() =>
            {
                return;
            }
            b'-' | b'+' if self.signs != Signs::NONE || self.expects_operand() => {
                if let Some(signs) = self.signs.and(byte) {
                    return self.signs = signs;
                }
            }
            b';' if self.ended => return,
            b';' => {
                self.release();
                return self.ended = true;
            }
            _ => {}
        }
        let in_list = self.before == Before::In;
        self.release();
        let adjacent = token.start() == self.end && self.before == Before::Operator;
        let left = match token.start().checked_sub(1).and_then(|left| sql.get(left)) {
            Some(left) if adjacent => *left,
            _ => 0,
        };
        // Both spellings of one operator.
        let byte = match (left, byte, sql.get(token.end())) {
            (_, b'<', Some(b'>')) => b'!',
            (b'<', b'>', _) => b'=',
            _ => byte,
        };
        self.write_punct(byte, is_operator(left, byte));
        if byte == b'(' {
            self.rows = if in_list { Rows::InList } else { Rows::Inside };
        }
    }

    /// A `)` behind literals; whether that ends a group of nothing else.
    fn row_ends(&mut self) -> bool {
        match self.rows {
            Rows::InList => {
                if self.run == Run::One {
                    self.sink.put(b", ...");
                }
                self.sink.put_short(u64::from(b')'), 1);
                self.rows = Rows::None;
            }
            Rows::Inside => {
                self.sink.put_short(u64::from(b')'), 1);
                self.rows = Rows::Ended;
                self.row = self.run;
                self.rows_noted = false;
            }
            Rows::Held if self.row == self.run => {
                if !self.rows_noted {
                    self.sink.put(b", ...");
                    self.rows_noted = true;
                }
                self.rows = Rows::Ended;
            }
            Rows::Held => {
                self.row = self.run;
                self.release_held();
                self.sink.put_short(u64::from(b')'), 1);
                self.rows = Rows::Ended;
                self.rows_noted = false;
            }
            _ => return false,
        }
        self.run = Run::None;
        self.before = Before::Close;
        true
    }

    /// Whether a `-` here would be a sign and not a difference.
    fn expects_operand(&self) -> bool {
        matches!(self.run, Run::OneComma | Run::ManyComma)
            || (self.rows == Rows::Held && self.run == Run::None)
            || self.rows == Rows::Comma
            || matches!(
                self.before,
                Before::Start
                    | Before::Open
                    | Before::Comma
                    | Before::Operator
                    | Before::Keyword
                    | Before::Asking
                    | Before::In
            )
    }

    /// Writes a byte, as a part of the operator before if it is one.
    fn write_punct(&mut self, byte: u8, is_part: bool) {
        let now = match byte {
            b'(' => Before::Open,
            b')' => Before::Close,
            b',' | b';' => Before::Comma,
            b'.' => Before::Dot,
            _ => Before::Operator,
        };
        let tight = match now {
            Before::Close | Before::Comma | Before::Dot => true,
            Before::Open => matches!(self.before, Before::Start | Before::Open | Before::Name),
            _ => is_part || matches!(self.before, Before::Start | Before::Open),
        };
        if tight {
            self.sink.put_short(u64::from(byte), 1);
        } else {
            self.sink
                .put_short(u64::from(b' ') | u64::from(byte) << 8, 2);
        }
        self.before = now;
    }

    /// Writes what was held back, because something else follows.
    #[inline]
    fn release(&mut self) {
        if self.run != Run::None
            || self.rows != Rows::None
            || self.signs != Signs::NONE
            || self.ended
        {
            self.release_held();
        }
    }

    fn release_held(&mut self) {
        match self.rows {
            Rows::Comma => self.write_punct(b',', false),
            Rows::Held => {
                self.write_punct(b',', false);
                self.write_punct(b'(', false);
                match self.run {
                    Run::None => {}
                    Run::One | Run::OneComma => {
                        self.sink.put(b"?");
                        self.before = Before::Literal;
                    }
                    Run::Many | Run::ManyComma => {
                        self.sink.put(b"?, ...");
                        self.before = Before::Literal;
                    }
                }
            }
            _ => {}
        }
        self.rows = Rows::None;
        if matches!(self.run, Run::OneComma | Run::ManyComma) {
            self.write_punct(b',', false);
        }
        self.run = Run::None;
        for sign in std::mem::replace(&mut self.signs, Signs::NONE).bytes() {
            self.write_punct(sign, false);
        }
        if std::mem::take(&mut self.ended) {
            self.write_punct(b';', false);
        }
    }
}

/// Whether a dot and another name follow at once: then a name ends there, even if it reads like a keyword.
#[inline]
fn qualifies(sql: &[u8], end: usize) -> bool {
    sql.get(end) == Some(&b'.')
        && sql.get(end + 1).is_some_and(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
        })
}

/// Whether a byte right behind another one goes on with its operator.
fn is_operator(left: u8, byte: u8) -> bool {
    matches!(
        (left, byte),
        (b'<', b'=' | b'<')
            | (b'>', b'=' | b'>')
            | (b'!' | b':', b'=')
            | (b'=' | b'-', b'>')
            | (b'|', b'|')
            | (b'&', b'&')
    )
}

/// Up to eight bytes from `start`, zeros behind the end.
#[inline]
fn load(sql: &[u8], start: usize) -> u64 {
    match sql.get(start..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => {
            let mut word = 0;
            for (index, &byte) in sql.get(start..).unwrap_or(&[]).iter().take(8).enumerate() {
                word |= u64::from(byte) << (index * 8);
            }
            word
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::classify;

    fn digest(sql: &str) -> String {
        let dialect = Dialect::default();
        let text = digest_text(sql.as_bytes(), dialect, usize::MAX);
        assert_eq!(
            classify(sql.as_bytes(), dialect).digest,
            xxh3_64(text.as_bytes()),
            "{sql}"
        );
        text
    }

    #[test]
    fn replaces_literals_and_shortens_lists() {
        for (sql, expected) in [
            (
                "select c FROM sbtest1 WHERE id=5021",
                "SELECT c FROM sbtest1 WHERE id = ?",
            ),
            ("SELECT 'a''b', \"c\", x'00', N'x', 1.5e-3", "SELECT ?, ..."),
            ("SELECT 1", "SELECT ?"),
            ("SELECT -1", "SELECT ?"),
            (
                "SELECT a - 1, a -1, (-1), a*-1",
                "SELECT a - ?, a - ?, (?), a * ?",
            ),
            ("SELECT - a", "SELECT - a"),
            (
                "SELECT a FROM t WHERE b IN (1,2,3) AND c IN(4)",
                "SELECT a FROM t WHERE b IN (?, ...) AND c IN (?, ...)",
            ),
            ("SELECT a IN (1, -2, NULL)", "SELECT a IN (?, ...)"),
            (
                "SELECT a IS NULL, IFNULL(NULL, 1)",
                "SELECT a IS NULL, IFNULL(?, ...)",
            ),
            (
                "INSERT INTO t VALUES (1,'a'),(2,'b'),(3,NULL)",
                "INSERT INTO t VALUES (?, ...), ...",
            ),
            ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (?)"),
            (
                "INSERT INTO t VALUES (1),(2)",
                "INSERT INTO t VALUES (?), ...",
            ),
            (
                "INSERT INTO t VALUES (1,2),(3,now()),(4,5)",
                "INSERT INTO t VALUES (?, ...), (?, NOW()), (?, ...)",
            ),
            (
                "INSERT INTO t VALUES (1),(2) ON DUPLICATE KEY UPDATE a=1",
                "INSERT INTO t VALUES (?), ... ON DUPLICATE KEY UPDATE a = ?",
            ),
            ("SELECT (1),a", "SELECT (?), a"),
            ("SELECT (1),(a)", "SELECT (?), (a)"),
            ("SELECT (1),(-a)", "SELECT (?), (- a)"),
            ("SELECT (1),(2,-3),(4,b)", "SELECT (?), (?, ...), (?, b)"),
            ("SELECT 1,a", "SELECT ?, a"),
            ("SELECT 1,2,-a", "SELECT ?, ..., - a"),
            (
                "SELECT/**/COUNT( * )  FROM\n`a b` . c -- x",
                "SELECT COUNT(*) FROM `a b`.c",
            ),
            ("SELECT a<=b, a := 1", "SELECT a <= b, a := ?"),
            (
                "SELECT @a, @`a`, @@session.sql_mode",
                "SELECT @?, @`a`, @@SESSION.sql_mode",
            ),
            ("SELECT ?", "SELECT ?"),
            (
                "SELECT SQL_CALC_FOUND_ROWS * FROM t limit 5, 10;",
                "SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT ?, ...",
            ),
            (
                "current_timestamp straight_join high_priority",
                "NOW STRAIGHT_JOIN HIGH_PRIORITY",
            ),
            (
                "select count(*), `count`, count from `t` as `select`",
                "SELECT COUNT(*), `count`, `count` FROM t AS `select`",
            ),
            (
                "SELECT a<>b, a<-b, - - 1, - -a",
                "SELECT a != b, a < - b, ?, - - a",
            ),
            ("begin;", "BEGIN"),
            ("SELECT 1;SELECT 2;", "SELECT ?; SELECT ?"),
            ("", ""),
            ("-- only a comment", ""),
        ] {
            assert_eq!(digest(sql), expected, "{sql}");
        }
    }

    #[test]
    fn doubtful_literals_are_not_shown() {
        let gbk = Dialect::default().with_charset(b"gbk");
        let injected = b"SELECT a FROM t WHERE b = '\xbf\x5c' OR 1=1 -- '";
        assert_eq!(loggable_digest(injected, gbk, 100), None);
        assert_eq!(loggable_digest(b"SELECT 'open", gbk, 100), None);
        assert_eq!(
            loggable_digest(b"SELECT 'closed'", gbk, 100).as_deref(),
            Some("SELECT ?")
        );
    }

    #[test]
    fn long_digests_hash_like_short_ones() {
        let mut sql = String::from("SELECT ");
        for index in 0..500 {
            sql.push_str(&format!("a_rather_long_column_{index} + "));
        }
        sql.push('1');
        digest(&sql);
        let short = digest_text(sql.as_bytes(), Dialect::default(), 20);
        assert_eq!(short, "SELECT a_rather_long");
    }
}
