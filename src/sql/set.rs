//! Understanding SET well enough to repeat it on another connection.

use super::dialect::Dialect;
use super::lexer::{Token, TokenKind, tokens};
use super::user_variables::{Constant, plain_name};
use super::variables;
use super::words::Word;

/// One assignment of a SET statement.
///
/// Order matters: apply them first to last. Values of system variables are SQL text that reads the same under every
/// `sql_mode` and character set: a number, a bare word such as `ON` or `DEFAULT`, or a string in
/// single quotes without quotes, backslashes or bytes beyond ASCII in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// A session variable that keeps its meaning on another connection: `SET SESSION name = value`.
    Variable {
        /// Name in lower case, as written; see [`variables::Variable::canonical`].
        name: String,
        /// The value.
        value: Vec<u8>,
    },
    /// `SET NAMES charset [COLLATE collation]`.
    Names {
        /// Character set, possibly `DEFAULT`.
        charset: Vec<u8>,
        /// Collation, possibly `DEFAULT`.
        collation: Option<Vec<u8>>,
    },
    /// `SET CHARACTER SET charset`: client and results as given, connection as the schema's.
    CharacterSet(Vec<u8>),
    /// `SET autocommit = 0|1`.
    Autocommit(bool),
    /// Characteristics of the next transaction only (`SET TRANSACTION ...` and
    /// `SET @@transaction_isolation = ...` without a scope): holds on this connection until that
    /// transaction ends.
    NextTransaction,
    /// `SET @name = constant`.
    UserVariable {
        /// Name in lower case.
        name: Vec<u8>,
        /// The value.
        value: Constant,
    },
    /// Server-wide (`GLOBAL`, `PERSIST`, `PERSIST_ONLY`) or about accounts (`PASSWORD`,
    /// `DEFAULT ROLE`): the primary runs it, the session's state does not change.
    ServerWide,
}

/// Reads a SET statement, with or without `;` at its end.
///
/// `None`: not a SET, or it does something to the session that cannot be repeated with the same
/// meaning elsewhere (expressions, subqueries, roles, variables that are not in
/// [`variables`], ...): the session must stay on the connection that runs it.
pub fn parse(sql: &[u8], dialect: Dialect) -> Option<Vec<Assignment>> {
    let tokens = tokens(sql, dialect)?;
    let mut reader = Reader {
        sql,
        dialect,
        tokens: &tokens,
        server_wide: false,
    };
    reader.expect(Word::Set)?;
    match reader.word()? {
        // Statements of their own, without a list; commas would be part of them or of something unknown.
        Word::Password => return reader.no_comma().then(|| vec![Assignment::ServerWide]),
        Word::Default => {
            return (reader.peek(1)? == Word::Role).then(|| vec![Assignment::ServerWide]);
        }
        Word::Role | Word::Resource | Word::Statement | Word::New | Word::Old => return None,
        Word::Transaction => return reader.transaction(None),
        scope @ (Word::Session | Word::Local | Word::Global)
            if reader.peek(1) == Some(Word::Transaction) =>
        {
            reader.skip();
            return reader.transaction(Some(scope));
        }
        _ => {}
    }
    let mut assignments = Vec::new();
    loop {
        assignments.push(reader.assignment()?);
        match reader.tokens.first() {
            None => return Some(assignments),
            Some(token) if token.is(b',') => reader.skip(),
            Some(_) => return None,
        }
    }
}

struct Reader<'a> {
    sql: &'a [u8],
    dialect: Dialect,
    tokens: &'a [Token],
    /// GLOBAL or PERSIST has stood before an earlier variable.
    server_wide: bool,
}

/// How a variable is named on the left of the `=`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// `@@name`: of transaction characteristics, those of the next transaction.
    Unsaid,
    Session,
    ServerWide,
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or(&[]);
    }

    fn peek(&self, ahead: usize) -> Option<Word> {
        let token = self.tokens.get(ahead)?;
        Some(match token.entry() {
            Some(entry) if token.kind() == TokenKind::Word => entry.word,
            _ => Word::Other,
        })
    }

    fn word(&self) -> Option<Word> {
        self.peek(0)
    }

    fn expect(&mut self, word: Word) -> Option<()> {
        (self.word()? == word).then(|| self.skip())
    }

    fn no_comma(&self) -> bool {
        !self
            .tokens
            .iter()
            .any(|token| token.is(b',') || token.is(b';'))
    }

    fn assignment(&mut self) -> Option<Assignment> {
        let next_is_name = self
            .tokens
            .get(1)
            .is_some_and(|token| !token.is(b'=') && !token.is(b':') && !token.is(b'.'));
        match self.word()? {
            Word::Names if next_is_name => {
                self.skip();
                let charset = self.value()?;
                let collation = if self.word() == Some(Word::Collate) {
                    self.skip();
                    Some(self.value()?)
                } else {
                    None
                };
                Some(Assignment::Names { charset, collation })
            }
            Word::Charset if next_is_name => {
                self.skip();
                Some(Assignment::CharacterSet(self.value()?))
            }
            Word::Character if self.peek(1) == Some(Word::Set) => {
                self.skip();
                self.skip();
                Some(Assignment::CharacterSet(self.value()?))
            }
            _ => self.variable(),
        }
    }

    /// `@name = constant`.
    fn user_variable(&mut self, token: Token) -> Option<Assignment> {
        let name = plain_name(self.sql, token)?;
        self.skip();
        self.equals()?;
        let len = self
            .tokens
            .iter()
            .take_while(|token| !token.is(b','))
            .count();
        let (value, rest) = self.tokens.split_at_checked(len)?;
        self.tokens = rest;
        let value = Constant::read(self.sql, value)?;
        Some(Assignment::UserVariable { name, value })
    }

    fn variable(&mut self) -> Option<Assignment> {
        if let Some(token) = self.tokens.first()
            && token.kind() == TokenKind::UserVariable
        {
            return self.user_variable(*token);
        }
        let (scope, name) = self.target()?;
        self.equals()?;
        let value = self.value();
        if scope == Scope::ServerWide {
            // Any value will do, if its end can be told.
            if value.is_none() {
                self.tokens = self.no_comma().then_some(&[][..])?;
            }
            return Some(Assignment::ServerWide);
        }
        let value = value?;
        if name == "autocommit" {
            return switch(&value).map(Assignment::Autocommit);
        }
        let variable = variables::find(name.as_bytes())?;
        let transaction = matches!(
            variable.canonical,
            "transaction_isolation" | "transaction_read_only"
        );
        if transaction && scope == Scope::Unsaid {
            return Some(Assignment::NextTransaction);
        }
        Some(Assignment::Variable { name, value })
    }

    /// The left side: `[scope] name` or `@@[scope.]name`.
    fn target(&mut self) -> Option<(Scope, String)> {
        let token = *self.tokens.first()?;
        if token.kind() == TokenKind::SystemVariable {
            self.skip();
            let name = token.plain_name(self.sql);
            let scope = if is_one_of(name, &["session", "local"]) {
                Scope::Session
            } else if is_one_of(name, &["global", "persist", "persist_only"]) {
                Scope::ServerWide
            } else {
                return Some((Scope::Unsaid, lower(name)?));
            };
            self.tokens.first()?.is(b'.').then(|| self.skip())?;
            return Some((scope, self.name(scope)?));
        }
        let scope = match self.word()? {
            Word::Session | Word::Local => Scope::Session,
            Word::Global | Word::Persist | Word::PersistOnly => {
                self.server_wide = true;
                Scope::ServerWide
            }
            _ if self.server_wide => {
                // The scope before goes on to variables without one.
                return None;
            }
            _ => return Some((Scope::Session, self.name(Scope::Session)?)),
        };
        self.skip();
        Some((scope, self.name(scope)?))
    }

    fn name(&mut self, scope: Scope) -> Option<String> {
        let token = *self.tokens.first()?;
        if !matches!(token.kind(), TokenKind::Word | TokenKind::Quoted) {
            return None;
        }
        self.skip();
        // Variables of components and key caches have a prefix; all of them are server-wide.
        while scope == Scope::ServerWide && self.tokens.first().is_some_and(|token| token.is(b'.'))
        {
            self.skip();
            self.skip();
        }
        lower(token.plain_name(self.sql))
    }

    fn equals(&mut self) -> Option<()> {
        if self.tokens.first()?.is(b':') {
            self.skip();
        }
        self.tokens.first()?.is(b'=').then(|| self.skip())
    }

    /// One literal or bare word.
    fn value(&mut self) -> Option<Vec<u8>> {
        let mut token = *self.tokens.first()?;
        let mut sign = "";
        if let TokenKind::Punct(byte @ (b'-' | b'+')) = token.kind() {
            sign = if byte == b'-' { "-" } else { "" };
            self.skip();
            token = *self.tokens.first()?;
            if token.kind() != TokenKind::Number {
                return None;
            }
        }
        let bytes = token.bytes(self.sql);
        let text = std::str::from_utf8(bytes).ok()?;
        let value = match token.kind() {
            TokenKind::Number
                if bytes
                    .iter()
                    .all(|byte| byte.is_ascii_digit() || *byte == b'.') =>
            {
                format!("{sign}{text}")
            }
            TokenKind::Word
                if bytes
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') =>
            {
                text.to_owned()
            }
            // In quotes of any kind; a quoted name stands for its text here.
            TokenKind::String | TokenKind::Quoted
                if matches!(bytes.first(), Some(b'\'' | b'"' | b'`')) =>
            {
                let inner = token.plain_name(self.sql);
                if !inner.iter().all(|byte| {
                    matches!(byte, b' '..=b'~') && !matches!(byte, b'\'' | b'"' | b'`' | b'\\')
                }) {
                    return None;
                }
                format!("'{}'", std::str::from_utf8(inner).ok()?)
            }
            _ => return None,
        };
        self.skip();
        // An operator, a call or a second literal makes it an expression.
        match self.tokens.first() {
            None => Some(value.into_bytes()),
            Some(next) if next.is(b',') || self.word() == Some(Word::Collate) => {
                Some(value.into_bytes())
            }
            Some(_) => None,
        }
    }

    /// `SET [scope] TRANSACTION characteristic [, characteristic]`.
    fn transaction(&mut self, scope: Option<Word>) -> Option<Vec<Assignment>> {
        self.expect(Word::Transaction)?;
        let old_names = self.dialect.maria && self.dialect.version < 110_100;
        let mut assignments = Vec::new();
        loop {
            let (name, value) = self.characteristic(old_names)?;
            assignments.push(match scope {
                None => Assignment::NextTransaction,
                Some(Word::Global) => Assignment::ServerWide,
                Some(_) => Assignment::Variable {
                    name: name.to_owned(),
                    value: value.as_bytes().to_vec(),
                },
            });
            match self.tokens.first() {
                None => return Some(assignments),
                Some(token) if token.is(b',') => self.skip(),
                Some(_) => return None,
            }
        }
    }

    fn characteristic(&mut self, old_names: bool) -> Option<(&'static str, &'static str)> {
        let words: Vec<Vec<u8>> = self
            .tokens
            .iter()
            .take_while(|token| token.kind() == TokenKind::Word)
            .map(|token| token.bytes(self.sql).to_ascii_uppercase())
            .collect();
        let isolation = if old_names {
            "tx_isolation"
        } else {
            "transaction_isolation"
        };
        let read_only = if old_names {
            "tx_read_only"
        } else {
            "transaction_read_only"
        };
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let found = match words.as_slice() {
            [b"ISOLATION", b"LEVEL", b"READ", b"UNCOMMITTED"] => (isolation, "'READ-UNCOMMITTED'"),
            [b"ISOLATION", b"LEVEL", b"READ", b"COMMITTED"] => (isolation, "'READ-COMMITTED'"),
            [b"ISOLATION", b"LEVEL", b"REPEATABLE", b"READ"] => (isolation, "'REPEATABLE-READ'"),
            [b"ISOLATION", b"LEVEL", b"SERIALIZABLE"] => (isolation, "'SERIALIZABLE'"),
            [b"READ", b"ONLY"] => (read_only, "1"),
            [b"READ", b"WRITE"] => (read_only, "0"),
            _ => return None,
        };
        self.tokens = self.tokens.get(words.len()..).unwrap_or(&[]);
        Some(found)
    }
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn lower(name: &[u8]) -> Option<String> {
    std::str::from_utf8(name).ok().map(str::to_ascii_lowercase)
}

/// A boolean variable's value.
fn switch(value: &[u8]) -> Option<bool> {
    match value.to_ascii_uppercase().as_slice() {
        b"1" | b"ON" | b"'ON'" | b"TRUE" => Some(true),
        b"0" | b"OFF" | b"'OFF'" | b"FALSE" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Option<Vec<Assignment>> {
        parse(sql.as_bytes(), Dialect::default())
    }

    fn variable(name: &str, value: &str) -> Assignment {
        Assignment::Variable {
            name: name.to_owned(),
            value: value.as_bytes().to_vec(),
        }
    }

    fn user(name: &str, value: Constant) -> Assignment {
        Assignment::UserVariable {
            name: name.as_bytes().to_vec(),
            value,
        }
    }

    fn plain(text: &str) -> Constant {
        Constant::Value(text.as_bytes().into())
    }

    fn names(charset: &str, collation: Option<&str>) -> Assignment {
        Assignment::Names {
            charset: charset.as_bytes().to_vec(),
            collation: collation.map(|name| name.as_bytes().to_vec()),
        }
    }

    #[test]
    fn reads_what_frameworks_send() {
        let laravel = "SET NAMES 'utf8mb4' COLLATE 'utf8mb4_unicode_ci', time_zone='+00:00', SESSION sql_mode='ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES';";
        assert_eq!(
            read(laravel),
            Some(vec![
                names("'utf8mb4'", Some("'utf8mb4_unicode_ci'")),
                variable("time_zone", "'+00:00'"),
                variable("sql_mode", "'ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES'"),
            ])
        );
        for (sql, expected) in [
            ("SET NAMES utf8mb4", vec![names("utf8mb4", None)]),
            ("set names default", vec![names("default", None)]),
            (
                "SET NAMES latin1 COLLATE latin1_bin;",
                vec![names("latin1", Some("latin1_bin"))],
            ),
            ("SET NAMES \"utf8\"", vec![names("'utf8'", None)]),
            ("SET NAMES binary", vec![names("binary", None)]),
            (
                "SET CHARACTER SET utf8",
                vec![Assignment::CharacterSet(b"utf8".to_vec())],
            ),
            (
                "SET CHARSET 'utf8'",
                vec![Assignment::CharacterSet(b"'utf8'".to_vec())],
            ),
            (
                "SET SESSION sql_mode = 'ANSI,TRADITIONAL'",
                vec![variable("sql_mode", "'ANSI,TRADITIONAL'")],
            ),
            (
                "SET sql_mode=TRADITIONAL",
                vec![variable("sql_mode", "TRADITIONAL")],
            ),
            ("SET SQL_MODE = ''", vec![variable("sql_mode", "''")]),
            (
                "SET @@SESSION.sql_mode := ''",
                vec![variable("sql_mode", "''")],
            ),
            (
                "SET @@local.`sql_mode` = ''",
                vec![variable("sql_mode", "''")],
            ),
            ("SET @@sql_mode = ''", vec![variable("sql_mode", "''")]),
            (
                "SET LOCAL time_zone = SYSTEM",
                vec![variable("time_zone", "SYSTEM")],
            ),
            (
                "SET character_set_results = NULL",
                vec![variable("character_set_results", "NULL")],
            ),
            (
                "SET SQL_AUTO_IS_NULL = 0",
                vec![variable("sql_auto_is_null", "0")],
            ),
            (
                "SET foreign_key_checks=OFF, unique_checks = 0",
                vec![
                    variable("foreign_key_checks", "OFF"),
                    variable("unique_checks", "0"),
                ],
            ),
            (
                "SET max_statement_time = 1.5",
                vec![variable("max_statement_time", "1.5")],
            ),
            (
                "SET lock_wait_timeout = +5",
                vec![variable("lock_wait_timeout", "5")],
            ),
            (
                "SET div_precision_increment = -1",
                vec![variable("div_precision_increment", "-1")],
            ),
            (
                "SET wait_timeout = DEFAULT",
                vec![variable("wait_timeout", "DEFAULT")],
            ),
            ("SET autocommit=0", vec![Assignment::Autocommit(false)]),
            ("SET AUTOCOMMIT = ON;", vec![Assignment::Autocommit(true)]),
            ("SET @@autocommit = 1", vec![Assignment::Autocommit(true)]),
            (
                "SET SESSION autocommit = 'off'",
                vec![Assignment::Autocommit(false)],
            ),
            (
                "/* x */ SET /* y */ autocommit -- z\n = 1 ;",
                vec![Assignment::Autocommit(true)],
            ),
            (
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;",
                vec![variable("transaction_isolation", "'READ-COMMITTED'")],
            ),
            (
                "SET LOCAL TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
                vec![
                    variable("transaction_isolation", "'REPEATABLE-READ'"),
                    variable("transaction_read_only", "1"),
                ],
            ),
            (
                "SET SESSION TRANSACTION READ WRITE",
                vec![variable("transaction_read_only", "0")],
            ),
            (
                "SET SESSION tx_isolation='SERIALIZABLE'",
                vec![variable("tx_isolation", "'SERIALIZABLE'")],
            ),
            (
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                vec![Assignment::NextTransaction],
            ),
            (
                "SET TRANSACTION READ ONLY",
                vec![Assignment::NextTransaction],
            ),
            (
                "SET transaction_isolation = 'SERIALIZABLE'",
                vec![variable("transaction_isolation", "'SERIALIZABLE'")],
            ),
            (
                "SET @@transaction_isolation = 'SERIALIZABLE'",
                vec![Assignment::NextTransaction],
            ),
            ("SET @@tx_read_only = 1", vec![Assignment::NextTransaction]),
            (
                "SET GLOBAL TRANSACTION READ ONLY",
                vec![Assignment::ServerWide],
            ),
            (
                "SET GLOBAL max_connections = 100",
                vec![Assignment::ServerWide],
            ),
            (
                "SET GLOBAL max_connections = 50 + 50",
                vec![Assignment::ServerWide],
            ),
            (
                "SET @@global.x = 1, autocommit = 1",
                vec![Assignment::ServerWide, Assignment::Autocommit(true)],
            ),
            (
                "SET PERSIST validate_password.policy = 'LOW'",
                vec![Assignment::ServerWide],
            ),
            ("SET @@PERSIST_ONLY.x = 1", vec![Assignment::ServerWide]),
            (
                "SET PASSWORD FOR a@b = PASSWORD('x')",
                vec![Assignment::ServerWide],
            ),
            ("SET DEFAULT ROLE a, b TO c@d", vec![Assignment::ServerWide]),
            ("SET names = 1", vec![]),
            ("SET @a = 1", vec![user("a", plain("1"))]),
            (
                "SET @A := -1.50, autocommit = 1, @`b` = NULL, @c.d = 'it''s', @'e' = \"x\";",
                vec![
                    user("a", plain("-1.50")),
                    Assignment::Autocommit(true),
                    user("b", Constant::Null),
                    user("c.d", Constant::Value((*b"'it''s'").into())),
                    user("e", Constant::Value((*b"\"x\"").into())),
                ],
            ),
            (
                "SET @f = 1e3, @g = x'41', @h = 0x41, @i = b'1', @j = true",
                vec![
                    user("f", plain("1e3")),
                    user("g", plain("x'41'")),
                    user("h", plain("0x41")),
                    user("i", plain("b'1'")),
                    user("j", plain("true")),
                ],
            ),
        ] {
            let expected = (!expected.is_empty()).then_some(expected);
            assert_eq!(read(sql), expected, "{sql}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_repeated() {
        for sql in [
            "",
            "SELECT 1",
            "SET",
            "SET @a = 1 + 1",
            "SET @a = @b",
            "SET @a = (1)",
            "SET @a = 'a' 'b'",
            "SET @a = 'a' COLLATE utf8mb4_bin",
            "SET @a = _utf8mb4'a'",
            "SET @a = N'a'",
            "SET @a = \\N",
            "SET @a = b",
            "SET @a = DEFAULT",
            "SET @a = - - 1",
            "SET @a = -'1'",
            "SET @a = DATE '2020-01-01'",
            "SET @a = 1, @b = NOW()",
            "SET @a",
            "SET @a =",
            "SET @a = 1,",
            "SET @`a b` = 1",
            "SET @`é` = 1",
            "SET autocommit = DEFAULT",
            "SET autocommit = 1; DROP TABLE t",
            "SET sql_mode = CONCAT(@@sql_mode, ',ANSI')",
            "SET sql_mode = @@global.sql_mode",
            "SET sql_mode = @old",
            "SET sql_mode = (SELECT 'ANSI')",
            "SET sql_mode = 'a' 'b'",
            "SET sql_mode = 'it''s'",
            "SET sql_mode = 'a\\n'",
            "SET sql_mode = 'ä'",
            "SET sql_mode = _utf8'ANSI'",
            "SET sql_mode = x'41'",
            "SET wait_timeout = 1 + 1",
            "SET wait_timeout = - 1 * 2",
            "SET wait_timeout = 0x10",
            "SET wait_timeout",
            "SET wait_timeout =",
            "SET wait_timeout = 1,",
            "SET sql_log_bin = 0",
            "SET timestamp = 1",
            "SET insert_id = 5",
            "SET no_such_variable = 1",
            "SET a.b = 1",
            "SET ROLE admin",
            "SET STATEMENT max_statement_time = 1 FOR SELECT 1",
            "SET RESOURCE GROUP rg",
            "SET NEW.a = 1",
            "SET GLOBAL a = 1, b = 2",
            "SET GLOBAL a = (1), wait_timeout = 2",
            "SET TRANSACTION ISOLATION LEVEL NOTHING",
            "SET SESSION TRANSACTION READ ONLY, ",
            "SET sql_mode = 'open",
            "SET NAMES utf8 COLLATE",
            "SET NAMES utf8 utf8",
            "SET time_zone = '+00:00' /*!99999 x */",
        ] {
            assert_eq!(read(sql), None, "{sql}");
        }
    }

    #[test]
    fn names_follow_the_flavour_and_quotes_the_mode() {
        let maria = Dialect::of(true, 101_119);
        assert_eq!(
            parse(b"SET SESSION TRANSACTION READ ONLY", maria),
            Some(vec![variable("tx_read_only", "1")])
        );
        let ansi = Dialect::default().with_sql_mode(b"ANSI_QUOTES");
        assert_eq!(
            parse(b"SET sql_mode = \"ANSI\"", ansi),
            Some(vec![variable("sql_mode", "'ANSI'")])
        );
    }
}
