//! Expressions whose value the proxy knows, in place of calls whose answer is the connection's.

use super::lexer::{Token, TokenKind};
use super::words::Word;

/// Longest alias of a column, in characters.
/// <https://dev.mysql.com/doc/refman/8.4/en/identifier-length.html>
const LONGEST_NAME: usize = 256;

/// Words that end a select list.
const CLAUSES: &[&[u8]] = &[
    b"FROM",
    b"WHERE",
    b"GROUP",
    b"HAVING",
    b"WINDOW",
    b"ORDER",
    b"LIMIT",
    b"INTO",
    b"FOR",
    b"LOCK",
    b"UNION",
    b"EXCEPT",
    b"INTERSECT",
    b"ON",
    b"RETURNING",
    b"PROCEDURE",
];

/// Words between SELECT and its first column.
const OPTIONS: &[&[u8]] = &[
    b"ALL",
    b"DISTINCT",
    b"DISTINCTROW",
    b"HIGH_PRIORITY",
    b"STRAIGHT_JOIN",
    b"SQL_NO_CACHE",
    b"SQL_CACHE",
    b"SQL_CALC_FOUND_ROWS",
    b"SQL_SMALL_RESULT",
    b"SQL_BIG_RESULT",
    b"SQL_BUFFER_RESULT",
];

/// The statement with other expressions in place of some of its own; a column keeps its name.
///
/// `find` is asked at each token, given the one before and all from there on: how many of them are to be replaced, and by what.
/// `None` if nothing is to be replaced. A definition stays as it is: what it defines outlives the connection.
pub(super) fn replace(
    sql: &[u8],
    tokens: &[Token],
    find: impl Fn(Token, &[Token]) -> Option<(usize, String)>,
) -> Option<Vec<u8>> {
    if tokens
        .iter()
        .any(|token| matches!(word(*token), Some(Word::Create | Word::Alter)))
    {
        return None;
    }
    let mut out = Vec::with_capacity(sql.len() + 96);
    let mut copied = 0;
    let mut lists = SelectLists::default();
    let mut previous = Token::NONE;
    let mut rest = tokens;
    while let Some((&token, behind)) = rest.split_first() {
        if let Some(name) = lists.follow(sql, token, previous) {
            out.extend_from_slice(sql.get(copied..previous.end()).unwrap_or(&[]));
            put_alias(&mut out, name);
            copied = previous.end();
        }
        let Some((len, expression)) = find(previous, rest) else {
            previous = token;
            rest = behind;
            continue;
        };
        let Some(([.., last], after)) = rest.split_at_checked(len) else {
            return None;
        };
        out.extend_from_slice(sql.get(copied..token.start()).unwrap_or(&[]));
        out.extend_from_slice(expression.as_bytes());
        lists.replaced(last.end());
        copied = last.end();
        previous = *last;
        rest = after;
    }
    if copied == 0 {
        return None;
    }
    if let Some(name) = lists.end(sql, previous) {
        out.extend_from_slice(sql.get(copied..previous.end()).unwrap_or(&[]));
        put_alias(&mut out, name);
        copied = previous.end();
    }
    out.extend_from_slice(sql.get(copied..).unwrap_or(&[]));
    Some(out)
}

/// The name that a column would have had.
fn put_alias(out: &mut Vec<u8>, name: &[u8]) {
    out.extend_from_slice(b" AS `");
    for byte in name {
        if *byte == b'`' {
            out.push(b'`');
        }
        out.push(*byte);
    }
    out.push(b'`');
}

pub(super) fn contains(sql: &[u8], name: &[u8]) -> bool {
    sql.windows(name.len())
        .any(|window| window.eq_ignore_ascii_case(name))
}

pub(super) fn word(token: Token) -> Option<Word> {
    (token.kind() == TokenKind::Word).then(|| token.entry().map_or(Word::Other, |entry| entry.word))
}

pub(super) fn is_word(sql: &[u8], token: Token, name: &[u8]) -> bool {
    token.kind() == TokenKind::Word && token.bytes(sql).eq_ignore_ascii_case(name)
}

/// The number of tokens of the call of the function `name` without arguments that `rest` begins with.
pub(super) fn call(sql: &[u8], name: &[u8], previous: Token, rest: &[Token]) -> Option<usize> {
    let [called, open, close, ..] = rest else {
        return None;
    };
    // A function of that name in a schema, or a table with an empty list of columns.
    let other = previous.is(b'.')
        || matches!(
            word(previous),
            Some(Word::Into | Word::Insert | Word::Replace | Word::InsertOption)
        );
    let is_call = is_word(sql, *called, name) && open.is(b'(') && close.is(b')') && !other;
    // A comment in between may hold code.
    let between = sql.get(called.end()..close.end())?;
    let plain = between
        .iter()
        .all(|byte| byte.is_ascii_whitespace() || matches!(byte, b'(' | b')'));
    (is_call && plain).then_some(3)
}

/// Where the select lists of a statement are, and where their columns begin.
#[derive(Default)]
struct SelectLists {
    /// What was going on outside of each open parenthesis.
    outer: Vec<List>,
    list: List,
}

#[derive(Default, Clone, Copy)]
struct List {
    inside: bool,
    column: Option<Column>,
}

#[derive(Clone, Copy)]
struct Column {
    start: usize,
    /// Where the last thing that was replaced in it ends.
    replaced: Option<usize>,
}

impl SelectLists {
    /// Takes the next token; the text of the column that ended before it, if that needs its name back.
    fn follow<'a>(&mut self, sql: &'a [u8], token: Token, previous: Token) -> Option<&'a [u8]> {
        let among = |words: &[&[u8]], token| words.iter().any(|word| is_word(sql, token, word));
        let clause = !previous.is(b'.') && among(CLAUSES, token);
        let ends = token.is(b',') || token.is(b')') || token.is(b';') || clause;
        let named = if ends { self.end(sql, previous) } else { None };
        if self.list.inside
            && (previous.is(b',') || is_word(sql, previous, b"SELECT") || among(OPTIONS, previous))
        {
            self.list.column = Some(Column {
                start: token.start(),
                replaced: None,
            });
        }
        if token.is(b'(') {
            self.outer.push(self.list);
            self.list = List::default();
        } else if token.is(b')') {
            self.list = self.outer.pop().unwrap_or_default();
        } else if token.is(b';') || clause {
            self.list = List::default();
        } else if !previous.is(b'.') && is_word(sql, token, b"SELECT") {
            self.list.inside = true;
        }
        named
    }

    /// Something that ends at `end` was replaced in the columns that are open.
    fn replaced(&mut self, end: usize) {
        let open = self.outer.iter_mut().chain([&mut self.list]);
        for column in open.filter_map(|list| list.column.as_mut()) {
            column.replaced = Some(end);
        }
    }

    /// The column that ends with the token `last`: its text, if something was replaced in it and it has no alias.
    ///
    /// Only what ends with a parenthesis, a number, a variable or what was replaced is sure to have none.
    fn end<'a>(&mut self, sql: &'a [u8], last: Token) -> Option<&'a [u8]> {
        let column = self.list.column.take()?;
        let replaced = column.replaced?;
        let bare = replaced == last.end()
            || last.is(b')')
            || last.kind() == TokenKind::Number
            || last.kind() == TokenKind::SystemVariable;
        let text = sql.get(column.start..last.end())?;
        (bare && text.len() <= LONGEST_NAME).then_some(text)
    }
}
