//! Statements without their literals, as text and as hash.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::dialect::Dialect;
use super::facts::Facts;
use super::lexer::{Lexer, Token, TokenKind};
use super::words::{Flags, Key, Word};

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
    let mut digest = Digest::new(Text {
        bytes: Vec::new(),
        limit,
    });
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
    #[inline]
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
        if self.len + 8 > BUFFER {
            self.flush();
        }
        // Always eight bytes: a fixed length costs one store, what is too much is overwritten.
        if let Some(place) = self
            .buffer
            .get_mut(self.len..)
            .and_then(|rest| rest.first_chunk_mut::<8>())
        {
            *place = word.to_le_bytes();
            self.len += len;
        }
    }
}

/// What stands before, as far as blanks and lists care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Start,
    Keyword,
    /// A name or a variable.
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

/// A run of groups of literals: `(?, ...), (?, ...)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    None,
    /// Inside the first group, nothing but literals so far; all of it is written.
    Inside,
    /// A group of literals has ended.
    Ended,
    /// And a comma came that is not yet written.
    Comma,
    /// And another group has begun; `, (` and its literals are not yet written.
    Held,
}

/// Turns tokens into the bytes of a digest.
pub(super) struct Digest<S> {
    sink: S,
    before: Before,
    end: usize,
    run: Run,
    rows: Rows,
    /// Further groups have been noted by `, ...`.
    rows_noted: bool,
    /// A sign that belongs to the number after it, if one comes.
    sign: Option<u8>,
}

impl<S: Sink> Digest<S> {
    pub(super) fn new(sink: S) -> Self {
        Self {
            sink,
            before: Before::Start,
            end: 0,
            run: Run::None,
            rows: Rows::None,
            rows_noted: false,
            sign: None,
        }
    }

    /// The sink, with all that was held back written to it.
    pub(super) fn finish(&mut self) -> &mut S {
        self.release();
        &mut self.sink
    }

    #[inline]
    pub(super) fn token(&mut self, token: &Token, key: Key, sql: &[u8]) {
        match token.kind() {
            TokenKind::Word => self.word(token, key, sql),
            TokenKind::String | TokenKind::Number => self.literal(),
            TokenKind::Punct(byte) => self.punct(byte, token),
            TokenKind::Quoted | TokenKind::UserVariable | TokenKind::SystemVariable => {
                self.name(token, sql);
            }
            TokenKind::End => {}
        }
        self.end = token.end();
    }

    #[inline]
    fn word(&mut self, token: &Token, key: Key, sql: &[u8]) {
        let Some(entry) = token.entry() else {
            return self.name(token, sql);
        };
        if !entry.flags.has(Flags::RESERVED) {
            return self.name(token, sql);
        }
        let in_list = matches!(self.run, Run::OneComma | Run::ManyComma)
            || matches!(self.before, Before::Open | Before::Comma);
        if entry.word == Word::Null && in_list {
            return self.literal();
        }
        self.release();
        // Letters of a folded key to upper case; reserved words have no digits.
        const UPPER: u64 = 0xDFDF_DFDF_DFDF_DFDF;
        let Key { first, last } = key;
        let len = token.end() - token.start();
        let blank = !matches!(self.before, Before::Start | Before::Open);
        if len <= 7 && blank {
            self.sink
                .put_short((first & UPPER) << 8 | u64::from(b' '), len + 1);
            self.before = Before::Keyword;
            return;
        }
        if blank {
            self.sink.put_short(u64::from(b' '), 1);
        }
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
        self.before = Before::Keyword;
    }

    #[inline]
    fn name(&mut self, token: &Token, sql: &[u8]) {
        self.release();
        if !matches!(self.before, Before::Start | Before::Open | Before::Dot) {
            self.sink.put_short(u64::from(b' '), 1);
        }
        let mut start = token.start();
        while token.end() - start > 8 {
            self.sink.put_short(load(sql, start), 8);
            start += 8;
        }
        self.sink.put_short(load(sql, start), token.end() - start);
        self.before = Before::Name;
    }

    #[inline]
    fn literal(&mut self) {
        self.sign = None;
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
                if self.rows != Rows::Inside || self.before != Before::Open {
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

    fn punct(&mut self, byte: u8, token: &Token) {
        match byte {
            b'?' => return self.literal(),
            b',' => match (self.run, self.rows) {
                (Run::One, _) if self.sign.is_none() => return self.run = Run::OneComma,
                (Run::Many, _) if self.sign.is_none() => return self.run = Run::ManyComma,
                (_, Rows::Ended) => return self.rows = Rows::Comma,
                _ => {}
            },
            b'(' if self.rows == Rows::Comma => {
                self.rows = Rows::Held;
                self.run = Run::None;
                return;
            }
            b')' if self.sign.is_none() => match (self.rows, self.run) {
                (Rows::Held, Run::One | Run::Many) => {
                    if !self.rows_noted {
                        self.sink.put(b", ...");
                        self.rows_noted = true;
                    }
                    self.run = Run::None;
                    self.rows = Rows::Ended;
                    self.before = Before::Close;
                    return;
                }
                (Rows::Inside, Run::One | Run::Many) => {
                    self.sink.put_short(u64::from(b')'), 1);
                    self.run = Run::None;
                    self.rows = Rows::Ended;
                    self.rows_noted = false;
                    self.before = Before::Close;
                    return;
                }
                _ => {}
            },
            b'-' | b'+' if self.sign.is_none() && self.expects_operand() => {
                self.sign = Some(byte);
                return;
            }
            _ => {}
        }
        self.release();
        self.write_punct(byte, token.start() == self.end);
        if byte == b'(' {
            self.rows = Rows::Inside;
        }
    }

    /// Whether a `-` here would be a sign and not a difference.
    fn expects_operand(&self) -> bool {
        matches!(self.run, Run::OneComma | Run::ManyComma)
            || (self.rows == Rows::Held && self.run == Run::None)
            || matches!(
                self.before,
                Before::Start | Before::Open | Before::Comma | Before::Operator | Before::Keyword
            )
    }

    fn write_punct(&mut self, byte: u8, adjacent: bool) {
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
            _ => {
                matches!(self.before, Before::Start | Before::Open)
                    || (self.before == Before::Operator && adjacent)
            }
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
        if self.run != Run::None || self.rows != Rows::None || self.sign.is_some() {
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
        if let Some(sign) = self.sign.take() {
            self.write_punct(sign, false);
        }
    }
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
                "SELECT a FROM t WHERE b IN (?, ...) AND c IN (?)",
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
                "INSERT INTO t VALUES (?, ...), (?, now()), (?, ...)",
            ),
            (
                "INSERT INTO t VALUES (1),(2) ON DUPLICATE KEY UPDATE a=1",
                "INSERT INTO t VALUES (?), ... ON DUPLICATE KEY UPDATE a = ?",
            ),
            ("SELECT (1),a", "SELECT (?), a"),
            ("SELECT (1),(a)", "SELECT (?), (a)"),
            ("SELECT (1),(-a)", "SELECT (?), (- a)"),
            ("SELECT (1),(2,-3),(4,b)", "SELECT (?), ..., (?, b)"),
            ("SELECT 1,a", "SELECT ?, a"),
            ("SELECT 1,2,-a", "SELECT ?, ..., - a"),
            (
                "SELECT/**/COUNT( * )  FROM\n`a b` . c -- x",
                "SELECT COUNT(*) FROM `a b`.c",
            ),
            ("SELECT a<=b, a := 1", "SELECT a <= b, a := ?"),
            (
                "SELECT @a, @@session.sql_mode",
                "SELECT @a, @@session.sql_mode",
            ),
            ("SELECT ?", "SELECT ?"),
            (
                "SELECT SQL_CALC_FOUND_ROWS * FROM t limit 5, 10;",
                "SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT ?, ...;",
            ),
            (
                "current_timestamp straight_join high_priority",
                "CURRENT_TIMESTAMP STRAIGHT_JOIN HIGH_PRIORITY",
            ),
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
