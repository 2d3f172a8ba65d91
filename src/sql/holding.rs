//! Statements that begin or end what ties a session to its connection, as far as the text tells exactly what.

use super::dialect::Dialect;
use super::lexer::{Token, TokenKind, tokens};

/// What a statement does to the things that a connection holds for its session, if it succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// CREATE TEMPORARY TABLE
    CreateTable(TableName),
    /// DROP TEMPORARY TABLE
    DropTables(Vec<TableName>),
    /// GET_LOCK() of this name.
    Lock(Vec<u8>),
    /// RELEASE_LOCK() of this name.
    Unlock(Vec<u8>),
    /// RELEASE_ALL_LOCKS()
    UnlockAll,
    /// IS_FREE_LOCK(), IS_USED_LOCK()
    AskForLock,
    /// HANDLER ... OPEN by this name.
    OpenHandler(Vec<u8>),
    /// HANDLER ... READ
    ReadHandler,
    /// HANDLER ... CLOSE
    CloseHandler(Vec<u8>),
    /// LOCK TABLES, FLUSH TABLES WITH READ LOCK, FLUSH TABLES ... FOR EXPORT
    LockTables,
    /// UNLOCK TABLES
    UnlockTables,
}

/// A table, in the schema in use if it names none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// The schema.
    pub schema: Option<Vec<u8>>,
    /// The table.
    pub table: Vec<u8>,
}

/// Reads a statement that begins or ends such a thing; `None` for any other, and for one that may do more than it seems.
pub fn holding(sql: &[u8], dialect: Dialect) -> Option<Holding> {
    let tokens = tokens(sql, dialect)?;
    if tokens.iter().any(|token| token.is(b';')) {
        return None;
    }
    let reader = Reader { sql };
    let is = |token: &Token, word| reader.is(token, word);
    match tokens.as_slice() {
        [create, rest @ ..] if is(create, "CREATE") => reader.created(rest),
        [drop, temporary, table, rest @ ..]
            if is(drop, "DROP")
                && is(temporary, "TEMPORARY")
                && (is(table, "TABLE") || is(table, "TABLES")) =>
        {
            reader.dropped(rest)
        }
        [verb, call @ ..] if is(verb, "SELECT") || is(verb, "DO") => reader.lock(call),
        [handler, rest @ ..] if is(handler, "HANDLER") => reader.handler(rest),
        [lock, tables, ..] if is(lock, "LOCK") && (is(tables, "TABLES") || is(tables, "TABLE")) => {
            Some(Holding::LockTables)
        }
        [flush, tables, ..] if is(flush, "FLUSH") && is(tables, "TABLES") => {
            Some(Holding::LockTables)
        }
        [unlock, tables]
            if is(unlock, "UNLOCK") && (is(tables, "TABLES") || is(tables, "TABLE")) =>
        {
            Some(Holding::UnlockTables)
        }
        _ => None,
    }
}

struct Reader<'a> {
    sql: &'a [u8],
}

impl Reader<'_> {
    fn is(&self, token: &Token, word: &str) -> bool {
        token.kind() == TokenKind::Word
            && token.bytes(self.sql).eq_ignore_ascii_case(word.as_bytes())
    }

    /// A name that means the same in every character set.
    fn name(&self, token: &Token) -> Option<Vec<u8>> {
        let name = token.plain_name(self.sql);
        let is_plain = |byte: &u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'-' | b'.' | b':' | b'/')
        };
        let is_name = matches!(token.kind(), TokenKind::Word | TokenKind::Quoted);
        (is_name && !name.is_empty() && name.iter().all(is_plain)).then(|| name.to_vec())
    }

    /// The table that the tokens begin with, and what follows.
    fn table<'t>(&self, tokens: &'t [Token]) -> Option<(TableName, &'t [Token])> {
        let (first, rest) = tokens.split_first()?;
        let first = self.name(first)?;
        let (schema, table, rest) = match rest {
            [dot, second, rest @ ..] if dot.is(b'.') => (Some(first), self.name(second)?, rest),
            _ => (None, first, rest),
        };
        Some((TableName { schema, table }, rest))
    }

    fn created(&self, mut rest: &[Token]) -> Option<Holding> {
        if let [or, replace, behind @ ..] = rest
            && self.is(or, "OR")
            && self.is(replace, "REPLACE")
        {
            rest = behind;
        }
        let [temporary, table, behind @ ..] = rest else {
            return None;
        };
        if !self.is(temporary, "TEMPORARY") || !self.is(table, "TABLE") {
            return None;
        }
        rest = behind;
        if let [first, second, third, behind @ ..] = rest
            && self.is(first, "IF")
            && self.is(second, "NOT")
            && self.is(third, "EXISTS")
        {
            rest = behind;
        }
        self.table(rest)
            .map(|(table, _)| Holding::CreateTable(table))
    }

    fn dropped(&self, mut rest: &[Token]) -> Option<Holding> {
        if let [first, second, behind @ ..] = rest
            && self.is(first, "IF")
            && self.is(second, "EXISTS")
        {
            rest = behind;
        }
        let mut tables = Vec::new();
        loop {
            let (table, behind) = self.table(rest)?;
            tables.push(table);
            match behind {
                [] => return Some(Holding::DropTables(tables)),
                [comma, behind @ ..] if comma.is(b',') => rest = behind,
                _ => return None,
            }
        }
    }

    /// A single call, perhaps with an alias.
    fn lock(&self, call: &[Token]) -> Option<Holding> {
        let (function, rest) = call.split_first()?;
        let (open, rest) = rest.split_first()?;
        let end = rest.iter().position(|token| token.is(b')'))?;
        let (arguments, alias) = rest.split_at_checked(end)?;
        let is_alias = |token: &Token| {
            matches!(
                token.kind(),
                TokenKind::Word | TokenKind::Quoted | TokenKind::String
            )
        };
        let ends = match alias {
            [_] => true,
            [_, alias] => is_alias(alias),
            [_, word, alias] => self.is(word, "AS") && is_alias(alias),
            _ => false,
        };
        if !open.is(b'(') || !ends {
            return None;
        }
        let is = |word| self.is(function, word);
        match arguments {
            [] if is("RELEASE_ALL_LOCKS") => Some(Holding::UnlockAll),
            [name] if is("RELEASE_LOCK") => self.text(name).map(Holding::Unlock),
            [name] if is("IS_FREE_LOCK") || is("IS_USED_LOCK") => {
                self.text(name).map(|_| Holding::AskForLock)
            }
            [name, comma, rest @ ..] if is("GET_LOCK") && comma.is(b',') => {
                let is_number = matches!(rest, [number] if number.kind() == TokenKind::Number)
                    || matches!(rest, [sign, number] if sign.is(b'-') && number.kind() == TokenKind::Number);
                is_number.then(|| self.text(name).map(Holding::Lock))?
            }
            _ => None,
        }
    }

    /// A string that means the same in every character set.
    fn text(&self, token: &Token) -> Option<Vec<u8>> {
        let ([b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"']) = token.bytes(self.sql) else {
            return None;
        };
        let is_plain =
            |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'\'' | b'"' | b'\\');
        let known = token.kind() == TokenKind::String && inner.iter().all(is_plain);
        known.then(|| inner.to_vec())
    }

    fn handler(&self, rest: &[Token]) -> Option<Holding> {
        let (TableName { table, schema }, rest) = self.table(rest)?;
        match rest {
            [open] if self.is(open, "OPEN") => Some(Holding::OpenHandler(table)),
            [open, alias] if self.is(open, "OPEN") => self.name(alias).map(Holding::OpenHandler),
            [open, word, alias] if self.is(open, "OPEN") && self.is(word, "AS") => {
                self.name(alias).map(Holding::OpenHandler)
            }
            [close] if self.is(close, "CLOSE") && schema.is_none() => {
                Some(Holding::CloseHandler(table))
            }
            [read, ..] if self.is(read, "READ") => Some(Holding::ReadHandler),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Option<Holding> {
        holding(sql.as_bytes(), Dialect::default())
    }

    fn table(schema: Option<&str>, table: &str) -> TableName {
        TableName {
            schema: schema.map(|schema| schema.as_bytes().to_vec()),
            table: table.as_bytes().to_vec(),
        }
    }

    #[test]
    fn what_begins_and_ends_is_read() {
        use Holding::*;
        for (sql, expected) in [
            (
                "CREATE TEMPORARY TABLE a (n INT)",
                CreateTable(table(None, "a")),
            ),
            (
                "create or replace temporary table `s`.`b` as select 1;",
                CreateTable(table(Some("s"), "b")),
            ),
            (
                "CREATE TEMPORARY TABLE IF NOT EXISTS a LIKE b",
                CreateTable(table(None, "a")),
            ),
            (
                "DROP TEMPORARY TABLE IF EXISTS a, s.b",
                DropTables(vec![table(None, "a"), table(Some("s"), "b")]),
            ),
            ("SELECT GET_LOCK('a b', 10)", Lock(b"a b".to_vec())),
            ("DO get_lock(\"a\", -1)", Lock(b"a".to_vec())),
            ("SELECT GET_LOCK('a', 0.5) AS got", Lock(b"a".to_vec())),
            ("SELECT RELEASE_LOCK('a') r;", Unlock(b"a".to_vec())),
            ("SELECT RELEASE_ALL_LOCKS()", UnlockAll),
            ("SELECT IS_FREE_LOCK('a')", AskForLock),
            ("HANDLER t OPEN", OpenHandler(b"t".to_vec())),
            ("HANDLER s.t OPEN AS h", OpenHandler(b"h".to_vec())),
            ("HANDLER h READ NEXT LIMIT 5", ReadHandler),
            ("HANDLER `h` CLOSE", CloseHandler(b"h".to_vec())),
            ("LOCK TABLES t READ, u WRITE", LockTables),
            ("FLUSH TABLES WITH READ LOCK", LockTables),
            ("UNLOCK TABLES", UnlockTables),
        ] {
            assert_eq!(of(sql), Some(expected), "{sql}");
        }
    }

    #[test]
    fn what_may_be_more_is_not() {
        for sql in [
            "CREATE TABLE a (n INT)",
            "CREATE TEMPORARY SEQUENCE s",
            "CREATE TEMPORARY TABLE `é` (n INT)",
            "DROP TABLE a",
            "DROP TEMPORARY TABLE a RESTRICT",
            "DROP TEMPORARY TABLE a; SELECT 1",
            "SELECT GET_LOCK('a', 1), GET_LOCK('b', 1)",
            "SELECT GET_LOCK(?, 1)",
            "SELECT GET_LOCK(@a, 1)",
            "SELECT GET_LOCK('é', 1)",
            "SELECT GET_LOCK(CONCAT('a', 'b'), 1)",
            "SELECT GET_LOCK('a', f())",
            "SELECT RELEASE_LOCK('a') FROM t",
            "SELECT RELEASE_LOCK('a') = 1",
            "SELECT 1 + RELEASE_ALL_LOCKS()",
            "UNLOCK INSTANCE",
            "LOCK INSTANCE FOR BACKUP",
            "BACKUP STAGE START",
        ] {
            assert_eq!(of(sql), None, "{sql}");
        }
    }
}
