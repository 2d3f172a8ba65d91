//! What a statement speaks of besides tables: advice for people, never proof.

use super::class::{Cause, StatementClass, parts};
use super::dialect::Dialect;
use super::facts::Facts;
use super::hint::{Hint, hint_text};
use super::lexer::{Token, TokenKind, tokens};
use super::words::{Flags, Word};

/// What a statement speaks of, each once, in the order in which it does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Mentions {
    /// Functions and procedures that it calls, as written.
    calls: Vec<String>,
    /// User and system variables that it reads.
    reads: Vec<String>,
    /// Those that it sets.
    sets: Vec<String>,
    /// Savepoints.
    savepoints: Vec<String>,
    /// Temporary tables that it creates or drops.
    temporary: Vec<String>,
    /// Files on the server that it writes.
    files: Vec<String>,
}

impl Mentions {
    fn lists(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("Calls", &self.calls),
            ("Variables read", &self.reads),
            ("Variables set", &self.sets),
            ("Savepoints", &self.savepoints),
            ("Temporary tables", &self.temporary),
            ("Files written", &self.files),
        ]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(label, names)| (label, names.join(", ")))
    }
}

/// Longer statements are not looked at.
const BYTES: usize = 64 * 1024;

/// More of a kind are not told.
const MOST: usize = 50;

/// What a statement speaks of besides tables, its hint, and what the statements are if there are several: with the words that
/// users see.
pub fn mentions(
    sql: &[u8],
    class: &StatementClass,
    dialect: Dialect,
) -> Vec<(&'static str, String)> {
    let mut told: Vec<_> = find(sql, dialect).lists().collect();
    let label = match class.hint {
        Hint::Unknown => "Hint not understood",
        _ => "Hint",
    };
    told.extend(hint_text(sql, dialect).map(|text| (label, text)));
    if class.facts.contains(Facts::MULTI) {
        let of_part = |(number, (kind, cause))| match cause {
            Cause::None => format!("{number} {kind}"),
            cause => format!("{number} {kind}: {cause}"),
        };
        let parts: Vec<_> = (1..).zip(parts(sql, dialect)).map(of_part).collect();
        if parts.len() > 1 {
            told.push(("Parts", parts.join("; ")));
        }
    }
    told
}

fn find(sql: &[u8], dialect: Dialect) -> Mentions {
    let mut found = Mentions::default();
    if sql.len() > BYTES {
        return found;
    }
    let tokens = tokens(sql, dialect).unwrap_or_default();
    for statement in tokens.split(|token| token.is(b';')) {
        let mut reader = Reader {
            sql,
            statement,
            verb: word(statement.first()),
            found: &mut found,
        };
        reader.names();
        reader.variables();
        reader.assignments();
    }
    found
}

struct Reader<'a> {
    sql: &'a [u8],
    statement: &'a [Token],
    verb: Word,
    found: &'a mut Mentions,
}

impl<'a> Reader<'a> {
    fn text(&self, token: Token) -> String {
        String::from_utf8_lossy(&token.name(self.sql)).into_owned()
    }

    fn is(&self, index: usize, text: &str) -> bool {
        self.statement.get(index).is_some_and(|token| {
            token.kind() == TokenKind::Word
                && token.bytes(self.sql).eq_ignore_ascii_case(text.as_bytes())
        })
    }

    fn has(&self, index: usize, punct: u8) -> bool {
        self.statement
            .get(index)
            .is_some_and(|token| token.is(punct))
    }

    /// The `table` or `schema.table` that begins there, and the index behind it.
    fn name_at(&self, index: usize) -> Option<(String, usize)> {
        let part = |index: usize| {
            let token = *self.statement.get(index)?;
            matches!(token.kind(), TokenKind::Word | TokenKind::Quoted).then(|| self.text(token))
        };
        let first = part(index)?;
        match part(index + 2).filter(|_| self.has(index + 1, b'.')) {
            Some(second) => Some((format!("{first}.{second}"), index + 3)),
            None => Some((first, index + 1)),
        }
    }

    /// Calls, savepoints, temporary tables and files.
    fn names(&mut self) {
        let mut index = 0;
        while let Some(token) = self.statement.get(index) {
            match token.kind() {
                TokenKind::Word | TokenKind::Quoted => {
                    self.word(index);
                    let (name, next) = self.name_at(index).unwrap_or_default();
                    index = next.max(index + 1);
                    if self.has(index, b'(') && self.is_call(index - 1, next) {
                        add(&mut self.found.calls, name);
                    }
                }
                _ => index += 1,
            }
        }
    }

    /// Whether the name that ends at this index, before a `(`, is a function's.
    fn is_call(&self, last: usize, next: usize) -> bool {
        let Some(token) = self.statement.get(last) else {
            return false;
        };
        let qualified = last.checked_sub(1).is_some_and(|dot| self.has(dot, b'.'));
        let first = if qualified {
            next.saturating_sub(3)
        } else {
            last
        };
        let before = first
            .checked_sub(1)
            .and_then(|before| self.statement.get(before));
        let names_table = matches!(
            word(before),
            Word::Into
                | Word::Insert
                | Word::Replace
                | Word::Table
                | Word::With
                | Word::Recursive
                | Word::As
        );
        if names_table {
            return false;
        }
        let entry = token.entry().filter(|_| !qualified);
        let flags = entry.map_or(Flags::NONE, |entry| entry.flags);
        let built_in = [Flags::PURE, Flags::PURE_MYSQL, Flags::PURE_MARIA]
            .into_iter()
            .any(|pure| flags.has(pure))
            || entry.is_some_and(|entry| {
                matches!(
                    entry.word,
                    Word::FnLastInsertId
                        | Word::FnPreviousStatement
                        | Word::FnNamedLock
                        | Word::FnConnection
                        | Word::FnSequence
                        | Word::FnServerState
                        | Word::FnClassicHash
                )
            });
        if built_in {
            return true;
        }
        let keyword = flags.has(Flags::BEFORE_PAREN) || flags.has(Flags::RESERVED);
        // Names of columns, types and keys.
        let defines = matches!(self.verb, Word::Create | Word::Alter);
        !keyword && !defines
    }

    fn word(&mut self, index: usize) {
        let behind = |mut index: usize, words: &[&str], reader: &Self| {
            while words.iter().any(|word| reader.is(index, word)) {
                index += 1;
            }
            index
        };
        if index == 0 {
            let savepoint = match self.verb {
                Word::Savepoint => Some(1),
                Word::Release if self.is(1, "SAVEPOINT") => Some(2),
                Word::Rollback => {
                    let to = behind(1, &["WORK"], self);
                    self.is(to, "TO")
                        .then(|| behind(to + 1, &["SAVEPOINT"], self))
                }
                _ => None,
            };
            if let Some((name, _)) = savepoint.and_then(|index| self.name_at(index)) {
                add(&mut self.found.savepoints, name);
            }
        } else if self.is(index, "TEMPORARY") && self.is(index + 1, "TABLE") {
            let mut at = behind(index + 2, &["IF", "NOT", "EXISTS"], self);
            while let Some((name, next)) = self.name_at(at) {
                add(&mut self.found.temporary, name);
                if self.verb == Word::Create || !self.has(next, b',') {
                    break;
                }
                at = next + 1;
            }
        } else if (self.is(index, "OUTFILE") || self.is(index, "DUMPFILE"))
            && word(self.statement.get(index - 1)) == Word::Into
            && let Some(file) = self.statement.get(index + 1)
            && file.kind() == TokenKind::String
        {
            let file = String::from_utf8_lossy(file.plain_name(self.sql)).into_owned();
            add(&mut self.found.files, file);
        }
    }

    /// `@a` and `@@a`, wherever they stand.
    fn variables(&mut self) {
        let mut into = false;
        for (index, token) in self.statement.iter().enumerate() {
            let before = index
                .checked_sub(1)
                .and_then(|before| self.statement.get(before));
            // Also in a routine's body.
            let begins = word(before) == Word::Set
                || (self.verb == Word::Set && before.is_some_and(|comma| comma.is(b',')));
            let assigned = |behind: usize| {
                (self.has(behind, b':') && self.has(behind + 1, b'='))
                    || (begins && self.has(behind, b'='))
            };
            match token.kind() {
                TokenKind::UserVariable if !self.is_host(index) => {
                    let name = format!("@{}", plain(*token, self.sql));
                    let list = if into || assigned(index + 1) {
                        &mut self.found.sets
                    } else {
                        &mut self.found.reads
                    };
                    add(list, name);
                }
                TokenKind::SystemVariable => {
                    let mut name = format!("@@{}", plain(*token, self.sql));
                    let mut behind = index + 1;
                    if self.has(behind, b'.')
                        && let Some(part) = self.statement.get(behind + 1)
                    {
                        name = format!("{name}.{}", plain(*part, self.sql));
                        behind += 2;
                    }
                    let list = if assigned(behind) {
                        &mut self.found.sets
                    } else {
                        &mut self.found.reads
                    };
                    add(list, name);
                }
                TokenKind::Punct(b',') => continue,
                _ => {}
            }
            into = word(Some(token)) == Word::Into
                || (into && token.kind() == TokenKind::UserVariable);
        }
    }

    /// `'name'@'host'` is an account.
    fn is_host(&self, index: usize) -> bool {
        let before = index
            .checked_sub(1)
            .and_then(|before| self.statement.get(before));
        let start = self.statement.get(index).map(|token| token.start());
        before.is_some_and(|before| {
            Some(before.end()) == start
                && matches!(
                    before.kind(),
                    TokenKind::String | TokenKind::Quoted | TokenKind::Word
                )
        })
    }

    /// `SET name = value`, also with a scope in front.
    fn assignments(&mut self) {
        if self.verb != Word::Set {
            return;
        }
        for index in 1..self.statement.len() {
            if index > 1 && !self.has(index - 1, b',') {
                continue;
            }
            let scopes = ["GLOBAL", "SESSION", "LOCAL", "PERSIST", "PERSIST_ONLY"];
            let scope = scopes.into_iter().find(|scope| self.is(index, scope));
            let at = index + usize::from(scope.is_some() || self.is(index, "STATEMENT"));
            let Some((name, behind)) = self.name_at(at) else {
                continue;
            };
            let equals = behind + usize::from(self.has(behind, b':'));
            if self.has(equals, b'=') {
                let scope = scope.map_or(String::new(), |scope| {
                    format!("{}.", scope.to_ascii_lowercase())
                });
                add(&mut self.found.sets, format!("@@{scope}{name}"));
            }
        }
    }
}

fn plain(token: Token, sql: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(token.plain_name(sql))
}

fn word(token: Option<&Token>) -> Word {
    token
        .and_then(|token| token.entry())
        .map_or(Word::Other, |entry| entry.word)
}

fn add(list: &mut Vec<String>, name: String) {
    if list.len() < MOST && !list.contains(&name) {
        list.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::class::classify;
    use super::*;

    #[test]
    fn what_a_statement_speaks_of_is_told() {
        for (sql, expected) in [
            ("SELECT a FROM t WHERE b IN (1, 2)", ""),
            (
                "SELECT COUNT(*), shop.price(id), `odd`(1) FROM t",
                "calls: COUNT, shop.price, odd",
            ),
            ("CREATE TEMPORARY TABLE x (a INT)", "temporary tables: x"),
            ("CALL shop.bill(1)", "calls: shop.bill"),
            ("INSERT INTO t (a) VALUES (NOW())", "calls: NOW"),
            ("INSERT INTO s.t (a) VALUES (1)", ""),
            ("WITH c (a) AS (SELECT 1) SELECT a FROM c", ""),
            (
                "CREATE TABLE t (a VARCHAR(10), b INT DEFAULT (rand()), KEY k (a))",
                "calls: rand",
            ),
            (
                "SELECT @a, @b := 1, @@sql_mode, @@global.read_only INTO @c, @d",
                "variables read: @a, @@sql_mode, @@global.read_only; variables set: @b, @c, @d",
            ),
            (
                "SET @a = @b, sql_mode = '', SESSION sort_buffer_size := 1, @@global.x = @@y, NAMES utf8",
                "variables read: @b, @@y; variables set: @a, @@global.x, @@sql_mode, @@session.sort_buffer_size",
            ),
            (
                "SET STATEMENT max_statement_time = 1 FOR SELECT 1",
                "variables set: @@max_statement_time",
            ),
            ("GRANT ALL ON *.* TO 'a'@'%', b@localhost", ""),
            (
                "SAVEPOINT a; RELEASE SAVEPOINT b",
                "savepoints: a, b; parts: 1 savepoint: controls a transaction; 2 savepoint: controls a transaction",
            ),
            (
                "/* dbproxy: primary */ SELECT 1;; UPDATE t SET a = NOW(); /*ms=x*/",
                "calls: NOW; hint: dbproxy: primary; parts: 1 read; 2 write: write",
            ),
            ("/*ms=x*/ SELECT 1", "hint not understood: ms=x"),
            (
                "CREATE PROCEDURE p() BEGIN SET @a = 1; SELECT 1; END",
                "variables set: @a",
            ),
            ("ROLLBACK WORK TO SAVEPOINT `a b`", "savepoints: a b"),
            ("ROLLBACK", ""),
            (
                "CREATE OR REPLACE TEMPORARY TABLE IF NOT EXISTS s.t (a INT)",
                "temporary tables: s.t",
            ),
            (
                "DROP TEMPORARY TABLE IF EXISTS a, b",
                "temporary tables: a, b",
            ),
            (
                "SELECT 1 INTO OUTFILE '/tmp/x' FROM t",
                "files written: /tmp/x",
            ),
            ("SELECT 'open", ""),
            ("", ""),
        ] {
            let (sql_, dialect) = (sql.as_bytes(), Dialect::default());
            let class = classify(sql_, dialect);
            let told: Vec<_> = mentions(sql_, &class, dialect)
                .into_iter()
                .map(|(label, names)| format!("{}: {names}", label.to_lowercase()))
                .collect();
            assert_eq!(told.join("; "), expected, "{sql}");
        }
    }

    #[test]
    fn lists_are_short() {
        let many: Vec<_> = (0..1_000).map(|number| format!("@v{number}")).collect();
        let sql = format!("SELECT {}", many.join(", "));
        let found = find(sql.as_bytes(), Dialect::default());
        assert_eq!(found.reads.len(), MOST);
        let huge = format!("SELECT @a, '{}'", "x".repeat(BYTES));
        assert_eq!(
            find(huge.as_bytes(), Dialect::default()),
            Mentions::default()
        );
    }
}
