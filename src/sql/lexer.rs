//! Tokens of SQL text, as the servers' own lexers cut them.
//!
//! The rules are those of MySQL's and MariaDB's `sql_lex.cc`; where versions or character sets
//! read the same bytes differently, the lexer says so by a fact instead of choosing.

use super::dialect::Dialect;
use super::facts::Facts;
use super::hint::Hints;
use super::words::{self, Entry, EntryId, Flags, Key};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Keyword or unquoted identifier.
    Word,
    /// Identifier in backticks, or in double quotes under ANSI_QUOTES.
    Quoted,
    /// String, hexadecimal or bit literal in quotes.
    String,
    /// Number, also `0x..` and `0b..`.
    Number,
    /// `@name`, also quoted.
    UserVariable,
    /// `@@name`, only the part up to a `.`; also quoted.
    SystemVariable,
    /// Any other single byte.
    Punct(u8),
    /// End of the text.
    End,
}

/// A piece of the statement.
///
/// Two words, so that it travels in registers: it is copied for each token, and a copy through
/// memory of fields just written one by one stalls the processor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    /// From the lowest bits: kind (8), the byte if it is punctuation or 1 for plain quoted names (8), [`EntryId`] (16),
    /// start (32).
    head: u64,
    end: u64,
}

/// The lowest bits of a quoted name that needs no quotes.
const PLAIN_NAME: u16 = 2 | 1 << 8;

impl Token {
    /// No token.
    pub(super) const NONE: Self = Self { head: 0, end: 0 };

    #[inline]
    fn new(kind: TokenKind, entry: EntryId, start: usize, end: usize) -> Self {
        let kind = match kind {
            TokenKind::End => 0,
            TokenKind::Word => 1,
            TokenKind::Quoted => 2,
            TokenKind::String => 3,
            TokenKind::Number => 4,
            TokenKind::UserVariable => 5,
            TokenKind::SystemVariable => 6,
            TokenKind::Punct(byte) => 7 | u64::from(byte) << 8,
        };
        Self {
            head: kind | u64::from(entry.0) << 16 | (start as u64) << 32,
            end: end as u64,
        }
    }

    /// What it is.
    #[inline]
    pub(super) fn kind(self) -> TokenKind {
        match self.head as u8 {
            0 => TokenKind::End,
            1 => TokenKind::Word,
            2 => TokenKind::Quoted,
            3 => TokenKind::String,
            4 => TokenKind::Number,
            5 => TokenKind::UserVariable,
            6 => TokenKind::SystemVariable,
            _ => TokenKind::Punct((self.head >> 8) as u8),
        }
    }

    /// Where it begins in the statement.
    #[inline]
    pub(super) fn start(self) -> usize {
        (self.head >> 32) as usize
    }

    /// Where it ends in the statement.
    #[inline]
    pub(super) fn end(self) -> usize {
        self.end as usize
    }

    /// What is known of it, if it is a word.
    #[inline]
    pub(super) fn entry(self) -> Option<&'static Entry> {
        EntryId((self.head >> 16) as u16).entry()
    }

    /// The token's bytes.
    pub(super) fn bytes(self, sql: &[u8]) -> &[u8] {
        sql.get(self.start()..self.end()).unwrap_or(&[])
    }

    /// Whether it is a quoted name that needs no quotes, other than for being a keyword or a number.
    #[inline]
    pub(super) fn is_plain(self) -> bool {
        self.head as u16 == PLAIN_NAME
    }

    /// Whether it is this punctuation.
    pub(super) fn is(self, punct: u8) -> bool {
        self.head as u16 == 7 | u16::from(punct) << 8
    }

    /// The name of a word, quoted name or variable, without quotes and marks. Quotes doubled inside stay.
    pub(super) fn plain_name(self, sql: &[u8]) -> &[u8] {
        let marks = match self.kind() {
            TokenKind::UserVariable => 1,
            TokenKind::SystemVariable => 2,
            _ => 0,
        };
        match sql.get(self.start() + marks..self.end()).unwrap_or(&[]) {
            [b'`', inner @ .., b'`'] | [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => {
                inner
            }
            name => name,
        }
    }

    /// The name of a word or quoted name as the server stores it.
    pub(super) fn name(self, sql: &[u8]) -> Vec<u8> {
        let inner = self.plain_name(sql);
        let quote = match self.bytes(sql).first() {
            Some(quote @ (b'`' | b'"')) => *quote,
            _ => return inner.to_vec(),
        };
        let mut name = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter().copied();
        while let Some(byte) = bytes.next() {
            if byte == quote {
                bytes.next();
            }
            name.push(byte);
        }
        name
    }
}

/// All tokens of a single statement, without `;` at its end; `None` if its text is doubtful.
pub(super) fn tokens(sql: &[u8], dialect: Dialect) -> Option<Vec<Token>> {
    let mut lexer = Lexer::new(sql, dialect);
    let mut tokens = lexer.rest();
    while tokens.last().is_some_and(|token| token.is(b';')) {
        tokens.pop();
    }
    let certain = !lexer
        .facts
        .intersects(Facts::UNTERMINATED.union(Facts::AMBIGUOUS));
    certain.then_some(tokens)
}

/// Cuts a statement into tokens, once, from front to back.
pub(super) struct Lexer<'a> {
    sql: &'a [u8],
    pos: usize,
    dialect: Dialect,
    /// Inside `/*! ... */` whose content is code.
    in_code_comment: bool,
    /// The token before was a `.` that ended here.
    dot_end: usize,
    /// The end of the token before, if that was a name: a `.` right there separates names.
    name_end: usize,
    /// Nothing but comments so far.
    leading: bool,
    /// Of the last word.
    pub(super) key: Key,
    pub(super) facts: Facts,
    pub(super) hints: Hints,
}

/// Byte classes. One byte has one of the first group; the second group are bits of identifier bytes.
const SPACE: u8 = 1;
const WORD: u8 = 2;
const DIGIT: u8 = 3;
const QUOTE: u8 = 4;
const PUNCT: u8 = 5;
const SPECIAL: u8 = 6;
const DOT: u8 = 7;
const CLASS: u8 = 0x0f;
const IDENT: u8 = 0x10;
const HIGH: u8 = 0x20;

static CLASSES: [u8; 256] = {
    let mut classes = [PUNCT; 256];
    let mut index = 0;
    while index < 256 {
        let byte = index as u8;
        classes[index] = match byte {
            b' ' | 9..=13 => SPACE,
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => WORD | IDENT,
            b'0'..=b'9' => DIGIT | IDENT,
            0x80..=0xff => WORD | IDENT | HIGH,
            b'\'' | b'"' | b'`' => QUOTE,
            // `$` is part of identifiers and so needs IDENT, but as a first character is checked.
            b'$' => SPECIAL | IDENT,
            b'.' => DOT,
            b'-' | b'#' | b'/' | b'*' | b'@' | b'\\' => SPECIAL,
            // Control characters are a syntax error everywhere outside quotes.
            0..=8 | 14..=31 | 127 => SPECIAL,
            _ => PUNCT,
        };
        index += 1;
    }
    classes
};

#[inline]
fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

impl<'a> Lexer<'a> {
    /// The tokens up to the end, which is none of them.
    pub(super) fn rest(&mut self) -> Vec<Token> {
        let mut tokens = Vec::new();
        loop {
            let token = self.next();
            if token.kind() == TokenKind::End {
                return tokens;
            }
            tokens.push(token);
        }
    }

    pub(super) fn new(sql: &'a [u8], dialect: Dialect) -> Self {
        let mut facts = Facts::NONE;
        let mut sql = sql;
        if u32::try_from(sql.len()).is_err() {
            // Longer than any packet that a server takes.
            facts |= Facts::UNTERMINATED;
            sql = &[];
        }
        if dialect.escape_ambiguous
            && sql.iter().any(|byte| *byte >= 0x80)
            && sql.iter().any(|byte| matches!(byte, b'\\' | b'`'))
        {
            facts |= Facts::AMBIGUOUS;
        }
        Self {
            sql,
            pos: 0,
            dialect,
            in_code_comment: false,
            dot_end: usize::MAX,
            name_end: usize::MAX,
            leading: true,
            key: Key { first: 0, last: 0 },
            facts,
            hints: Hints::default(),
        }
    }

    #[inline]
    fn at(&self, pos: usize) -> Option<u8> {
        self.sql.get(pos).copied()
    }

    /// The next token; [`TokenKind::End`] for ever after the last.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Token {
        loop {
            let mut start = self.pos;
            // One blank between tokens is the rule: skipping it here saves a jump that is hard to predict.
            if self.at(start) == Some(b' ') {
                start += 1;
                self.pos = start;
            }
            let Some(byte) = self.at(start) else {
                return self.end();
            };
            match class(byte) & CLASS {
                SPACE => self.pos = start + 1,
                WORD => return self.identifier(start),
                PUNCT => return self.punct(start, byte),
                DIGIT => return self.number(start),
                DOT => return self.dot(start),
                QUOTE => return self.quoted(start, byte),
                _ => {
                    if let Some(token) = self.special(start, byte) {
                        return token;
                    }
                }
            }
        }
    }

    #[cold]
    fn end(&mut self) -> Token {
        if self.in_code_comment {
            self.facts |= Facts::UNTERMINATED;
        }
        self.token(TokenKind::End, self.pos, self.pos)
    }

    #[inline]
    fn token(&mut self, kind: TokenKind, start: usize, end: usize) -> Token {
        self.pos = end;
        self.leading = false;
        Token::new(kind, EntryId::NONE, start, end)
    }

    #[inline]
    fn punct(&mut self, start: usize, byte: u8) -> Token {
        self.token(TokenKind::Punct(byte), start, start + 1)
    }

    #[inline]
    fn dot(&mut self, start: usize) -> Token {
        if self.name_end != start && matches!(self.at(start + 1), Some(b'0'..=b'9')) {
            let end = self.digits(start + 1);
            let end = self.exponent(end);
            return self.token(TokenKind::Number, start, end);
        }
        self.dot_end = start + 1;
        self.punct(start, b'.')
    }

    #[inline(always)]
    fn identifier(&mut self, start: usize) -> Token {
        let mut len = 0;
        let mut seen = 0;
        for &byte in self.sql.get(start..).unwrap_or(&[]) {
            let class = class(byte);
            if class & IDENT == 0 {
                break;
            }
            seen |= class;
            len += 1;
        }
        let end = start + len;
        if seen & HIGH != 0 {
            self.check_high(start, end);
        }
        let key = Key::of(self.sql, start, end);
        if len == 1
            && self.at(end) == Some(b'\'')
            && matches!(
                self.at(start),
                Some(b'n' | b'N' | b'x' | b'X' | b'b' | b'B')
            )
            && self.dot_end != start
        {
            let string = self.quoted(end, b'\'');
            return Token::new(string.kind(), EntryId::NONE, start, string.end());
        }
        // Right after a dot it is a name, even if it reads like a keyword.
        let entry = if self.dot_end == start {
            EntryId::NONE
        } else {
            words::find(key, self.sql, start, end)
        };
        self.name_end = end;
        self.key = key;
        self.pos = end;
        self.leading = false;
        Token::new(TokenKind::Word, entry, start, end)
    }

    /// Bytes from 0x80 are letters in one character set and blanks in another: if the word would
    /// then fall into pieces that mean something, nothing is certain.
    #[cold]
    fn check_high(&mut self, start: usize, end: usize) {
        let bytes = self.sql.get(start..end).unwrap_or(&[]);
        for piece in bytes.split(|byte| *byte >= 0x80) {
            if words::find_bytes(piece).is_some_and(|entry| {
                entry.word != words::Word::Other
                    || entry.flags.has(Flags(Flags::RESERVED.0 | Flags::WRITES.0))
            }) {
                self.facts |= Facts::AMBIGUOUS;
            }
        }
    }

    /// [`Self::identifier`], not inlined, for the rare ways to it.
    #[cold]
    fn word(&mut self, start: usize) -> Token {
        self.identifier(start)
    }

    fn number(&mut self, start: usize) -> Token {
        if self.dot_end == start {
            return self.word(start);
        }
        let mut end = start + 1;
        let prefix = (self.at(start), self.at(end));
        if let (Some(b'0'), Some(kind @ (b'x' | b'b'))) = prefix {
            end += 1;
            let digits = end;
            while self.at(end).is_some_and(|byte| match kind {
                b'x' => byte.is_ascii_hexdigit(),
                _ => matches!(byte, b'0' | b'1'),
            }) {
                end += 1;
            }
            if end > digits && !self.is_ident(end) {
                return self.token(TokenKind::Number, start, end);
            }
            return self.word(start);
        }
        end = self.digits(end);
        match self.at(end) {
            Some(b'.') => {
                end = self.digits(end + 1);
                end = self.exponent(end);
                self.token(TokenKind::Number, start, end)
            }
            Some(b'e' | b'E') => {
                let with = self.exponent(end);
                if with > end {
                    self.token(TokenKind::Number, start, with)
                } else {
                    self.word(start)
                }
            }
            Some(byte) if class(byte) & IDENT != 0 => self.word(start),
            _ => self.token(TokenKind::Number, start, end),
        }
    }

    fn is_ident(&self, pos: usize) -> bool {
        self.at(pos).is_some_and(|byte| class(byte) & IDENT != 0)
    }

    fn digits(&self, mut pos: usize) -> usize {
        while self.at(pos).is_some_and(|byte| byte.is_ascii_digit()) {
            pos += 1;
        }
        pos
    }

    /// The end of an exponent that begins at `pos`; `pos` if there is none.
    fn exponent(&self, pos: usize) -> usize {
        if !matches!(self.at(pos), Some(b'e' | b'E')) {
            return pos;
        }
        let mut digits = pos + 1;
        if matches!(self.at(digits), Some(b'+' | b'-')) {
            digits += 1;
        }
        let end = self.digits(digits);
        if end > digits { end } else { pos }
    }

    fn quoted(&mut self, start: usize, quote: u8) -> Token {
        if quote == b'`' || (quote == b'"' && self.dialect.ansi_quotes) {
            return self.quoted_name(start, quote);
        }
        let end = self.string(start + 1, quote);
        self.token(TokenKind::String, start, end)
    }

    fn quoted_name(&mut self, start: usize, quote: u8) -> Token {
        let content = self.sql.get(start + 1..).unwrap_or(&[]);
        let is_plain = |byte: &&u8| class(**byte) & (IDENT | HIGH) == IDENT;
        let last = start + 1 + content.iter().take_while(is_plain).count();
        let ends = self.at(last) == Some(quote) && self.at(last + 1) != Some(quote);
        let plain = ends && last > start + 1;
        let end = if plain {
            last + 1
        } else {
            self.name_in_quotes(start + 1, quote)
        };
        self.name_end = end;
        let mut token = self.token(TokenKind::Quoted, start, end);
        token.head |= u64::from(plain) << 8;
        token
    }

    /// The end of the string whose content begins at `pos`.
    fn string(&mut self, mut pos: usize, quote: u8) -> usize {
        let escapes = !self.dialect.no_backslash_escapes;
        loop {
            let rest = self.sql.get(pos..).unwrap_or(&[]);
            let Some(offset) = rest.iter().position(|&byte| byte == quote || byte == b'\\') else {
                self.facts |= Facts::UNTERMINATED;
                return self.sql.len();
            };
            pos += offset;
            if self.at(pos) == Some(b'\\') {
                pos += if escapes { 2 } else { 1 };
            } else if self.at(pos + 1) == Some(quote) {
                pos += 2;
            } else {
                return pos + 1;
            }
        }
    }

    /// The end of the quoted name whose content begins at `begin`.
    fn name_in_quotes(&mut self, begin: usize, quote: u8) -> usize {
        let mut pos = begin;
        let mut high = false;
        loop {
            match self.at(pos) {
                None => {
                    self.facts |= Facts::UNTERMINATED;
                    return self.sql.len();
                }
                Some(byte) if byte == quote => {
                    if self.at(pos + 1) != Some(quote) {
                        break;
                    }
                    pos += 2;
                }
                Some(byte) => {
                    // A NUL ends the name for the servers, with a syntax error.
                    if byte == 0 {
                        self.facts |= Facts::AMBIGUOUS;
                    }
                    high |= byte >= 0x80;
                    pos += 1;
                }
            }
        }
        // The servers skip a whole character by its first byte alone here, so that a broken one
        // swallows the closing quote.
        if high
            && self
                .sql
                .get(begin..pos)
                .is_none_or(|name| std::str::from_utf8(name).is_err())
        {
            self.facts |= Facts::AMBIGUOUS;
        }
        pos + 1
    }

    /// Comments, variables and odd bytes; `None` after something that is no token.
    fn special(&mut self, start: usize, byte: u8) -> Option<Token> {
        match (byte, self.at(start + 1)) {
            (b'-', Some(b'-')) if self.blank_or_end(start + 2) => self.line_comment(start, 2),
            (b'-', Some(b'-')) => {
                // In some character sets such a byte is a blank, and these begin a comment.
                if self.at(start + 2).is_some_and(|byte| byte >= 0x80) {
                    self.facts |= Facts::AMBIGUOUS;
                }
                return Some(self.punct(start, byte));
            }
            (b'#', _) => self.line_comment(start, 1),
            (b'/', Some(b'*')) => self.block_comment(start),
            (b'*', Some(b'/')) if self.in_code_comment => {
                self.in_code_comment = false;
                self.pos = start + 2;
            }
            (b'@', Some(b'@')) => return Some(self.system_variable(start)),
            (b'@', _) => return Some(self.user_variable(start)),
            (b'\\', Some(b'N')) => return Some(self.token(TokenKind::Number, start, start + 2)),
            (b'$', _) => {
                // `$tag$` begins a string in newer MySQL versions.
                if !self.dialect.maria {
                    self.facts |= Facts::AMBIGUOUS;
                }
                return Some(self.word(start));
            }
            (b'\\' | 0..=8 | 14..=31 | 127, _) => {
                self.facts |= Facts::AMBIGUOUS;
                return Some(self.punct(start, byte));
            }
            _ => return Some(self.punct(start, byte)),
        }
        None
    }

    fn blank_or_end(&self, pos: usize) -> bool {
        self.at(pos).is_none_or(|byte| byte <= b' ' || byte == 127)
    }

    fn line_comment(&mut self, start: usize, marker: usize) {
        let begin = start + marker;
        let rest = self.sql.get(begin..).unwrap_or(&[]);
        // The servers end it at a NUL too, and then fail on the NUL.
        let end = rest
            .iter()
            .position(|&byte| byte == b'\n' || byte == 0)
            .map_or(self.sql.len(), |offset| begin + offset);
        if self.leading {
            self.hints.comment(self.sql.get(begin..end).unwrap_or(&[]));
        }
        self.pos = end;
    }

    fn block_comment(&mut self, start: usize) {
        match (self.at(start + 2), self.at(start + 3)) {
            (Some(b'!'), _) => self.version_comment(start, start + 3, false),
            (Some(b'M'), Some(b'!')) if self.dialect.maria => {
                self.version_comment(start, start + 4, true);
            }
            (kind, _) => {
                let Some(end) = self.comment_end(start + 2) else {
                    return;
                };
                let body = self.sql.get(start + 2..end).unwrap_or(&[]);
                // The hint lexer knows quotes, so it may find another end.
                if kind == Some(b'+') && body.iter().any(|byte| matches!(byte, b'\'' | b'"' | b'`'))
                {
                    self.facts |= Facts::AMBIGUOUS;
                }
                if self.leading {
                    self.hints.comment(body);
                }
            }
        }
    }

    /// Goes behind the comment that goes on at `pos`; returns where its `*/` stands.
    fn comment_end(&mut self, pos: usize) -> Option<usize> {
        let rest = self.sql.get(pos..).unwrap_or(&[]);
        if let Some(offset) = rest.windows(2).position(|pair| pair == b"*/") {
            self.pos = pos + offset + 2;
            return Some(pos + offset);
        }
        self.facts |= Facts::UNTERMINATED;
        self.pos = self.sql.len();
        None
    }

    /// `/*! code */`, `/*!80400 code */`, `/*M!100500 code */`: code or comment by version.
    fn version_comment(&mut self, start: usize, begin: usize, maria_only: bool) {
        self.facts |= Facts::CODE_IN_COMMENT;
        let mut end = begin;
        let mut version = 0;
        while end < begin + 6
            && let Some(digit @ b'0'..=b'9') = self.at(end)
        {
            version = version * 10 + u32::from(digit - b'0');
            end += 1;
        }
        if end < begin + 5 {
            // Not a version: always code, digits included.
            self.enter_code(begin);
            return;
        }
        // MariaDB shares MySQL's numbers only up to 5.6.
        let foreign = self.dialect.maria && !maria_only && (50700..=99999).contains(&version);
        if !foreign && version <= self.dialect.version {
            self.enter_code(end);
            return;
        }
        let Some(close) = self.comment_end(begin) else {
            return;
        };
        let body = self.sql.get(start + 2..close).unwrap_or(&[]);
        // Another server of the cluster may be of a later version, and comments nest here.
        if !foreign || body.windows(2).any(|pair| pair == b"/*") {
            self.facts |= Facts::AMBIGUOUS;
        }
    }

    fn enter_code(&mut self, pos: usize) {
        if self.in_code_comment {
            self.facts |= Facts::AMBIGUOUS;
        }
        self.in_code_comment = true;
        self.pos = pos;
    }

    fn user_variable(&mut self, start: usize) -> Token {
        let mut end = start + 1;
        match self.at(end) {
            Some(quote @ (b'\'' | b'"')) => end = self.string(end + 1, quote),
            Some(b'`') => end = self.name_in_quotes(end + 1, b'`'),
            _ => {
                while self
                    .at(end)
                    .is_some_and(|byte| class(byte) & IDENT != 0 || byte == b'.')
                {
                    end += 1;
                }
            }
        }
        self.token(TokenKind::UserVariable, start, end)
    }

    fn system_variable(&mut self, start: usize) -> Token {
        let mut end = start + 2;
        match self.at(end) {
            Some(b'`') => end = self.name_in_quotes(end + 1, b'`'),
            Some(b'"') if self.dialect.ansi_quotes => end = self.name_in_quotes(end + 1, b'"'),
            _ => {
                while self.is_ident(end) {
                    end += 1;
                }
            }
        }
        self.name_end = end;
        self.token(TokenKind::SystemVariable, start, end)
    }
}
