//! What the body of a stored routine may do.

use super::look::{Call, Look, called, word};
use crate::sql::dialect::Dialect;
use crate::sql::facts::Facts;
use crate::sql::lexer::{Token, TokenKind};
use crate::sql::words::{Flags, Word};

/// What a function calls and names, if by itself it does nothing but read. `None` if that is not certain: a declaration is
/// no proof, servers do not hold functions to it.
pub(super) fn reading_function(sql: &[u8], dialect: Dialect) -> Option<Look> {
    let mut look = Look::at(sql, dialect);
    // Rows go to variables of its own: others are facts.
    look.facts = look.facts.difference(Facts::INTO);
    let certain = look.only_reads()
        && !writes_files(sql, &look.tokens)
        && Statements::new(sql, &look.tokens).only_read();
    certain.then_some(look)
}

/// The procedures that a procedure calls, if by itself it defines nothing that a catalogue has. `None` if that is not certain.
pub(super) fn procedure_without_definitions(sql: &[u8], dialect: Dialect) -> Option<Vec<Call>> {
    let look = Look::at(sql, dialect);
    if look
        .facts
        .intersects(Facts::UNTERMINATED.union(Facts::AMBIGUOUS))
    {
        return None;
    }
    let mut calls = Vec::new();
    for (index, token) in look.tokens.iter().enumerate() {
        let behind = look.tokens.get(index + 1..).unwrap_or(&[]);
        match word(Some(token)) {
            Word::Create | Word::Drop
                if matches!(word(behind.first()), Word::Table | Word::Temporary) => {}
            Word::Create
            | Word::Drop
            | Word::Alter
            | Word::Rename
            | Word::Execute
            | Word::Install
            | Word::Uninstall
            | Word::Import => return None,
            Word::Call => {
                let parts = match behind {
                    [_, dot, _, ..] if dot.is(b'.') => 3,
                    _ => 1,
                };
                // A third part is that of a package.
                if behind.get(parts).is_some_and(|next| next.is(b'.')) {
                    return None;
                }
                calls.push(called(sql, behind.get(..parts)?)?);
            }
            _ => {}
        }
    }
    Some(calls)
}

fn writes_files(sql: &[u8], tokens: &[Token]) -> bool {
    tokens.iter().any(|token| {
        let bytes = token.bytes(sql);
        token.kind() == TokenKind::Word
            && (bytes.eq_ignore_ascii_case(b"outfile") || bytes.eq_ignore_ascii_case(b"dumpfile"))
    })
}

/// Words that may begin a statement of a function that reads. Not among them: what sets anything outside of it, and what the
/// servers allow in no function.
const READING: [&str; 24] = [
    "BEGIN", "CASE", "CLOSE", "DECLARE", "DO", "ELSE", "ELSEIF", "END", "FETCH", "FOR", "IF",
    "ITERATE", "LEAVE", "LOOP", "OPEN", "REPEAT", "RESIGNAL", "RETURN", "SELECT", "SET", "SIGNAL",
    "UNTIL", "WHEN", "WHILE",
];

/// What the next token may begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A statement.
    Statement,
    /// A statement, or the value of a CASE expression.
    StatementOrValue,
    /// Neither.
    Rest,
}

/// Follows the statements of a function.
struct Statements<'a> {
    sql: &'a [u8],
    tokens: &'a [Token],
    expected: Expected,
    /// Names of variables that can be set here, the inner ones last.
    declared: Vec<Vec<u8>>,
    /// How many were declared where each open block begins.
    blocks: Vec<usize>,
    /// After DECLARE ... HANDLER FOR, behind whose conditions a statement begins.
    handler: bool,
}

impl<'a> Statements<'a> {
    fn new(sql: &'a [u8], tokens: &'a [Token]) -> Self {
        Self {
            sql,
            tokens,
            expected: Expected::Statement,
            declared: Vec::new(),
            blocks: Vec::new(),
            handler: false,
        }
    }

    fn only_read(mut self) -> bool {
        let mut index = 0;
        while let Some(token) = self.tokens.get(index) {
            match self.token(index, *token) {
                Some(next) => index = next,
                None => return false,
            }
        }
        true
    }

    fn at(&self, index: usize) -> Option<&'a Token> {
        self.tokens.get(index)
    }

    fn is(&self, index: usize, punct: u8) -> bool {
        self.at(index).is_some_and(|token| token.is(punct))
    }

    /// Whether the token is this word, and not a name behind a dot.
    fn says(&self, index: usize, text: &str) -> bool {
        self.at(index).is_some_and(|token| {
            token.kind() == TokenKind::Word
                && token.bytes(self.sql).eq_ignore_ascii_case(text.as_bytes())
        }) && !(index > 0 && self.is(index - 1, b'.'))
    }

    /// The index of the token to go on with; `None` if this one may do more than read.
    fn token(&mut self, index: usize, token: Token) -> Option<usize> {
        let expected = std::mem::replace(&mut self.expected, Expected::Rest);
        if token.is(b';') {
            self.expected = Expected::Statement;
            self.handler = false;
            return Some(index + 1);
        }
        if expected == Expected::Statement && self.is(index + 1, b':') && !self.is(index + 2, b'=')
        {
            // A label.
            let named = matches!(token.kind(), TokenKind::Word | TokenKind::Quoted);
            self.expected = Expected::Statement;
            return named.then_some(index + 2);
        }
        let begins = READING.iter().find(|word| self.says(index, word));
        match expected {
            Expected::Statement => self.statement(index, begins?),
            Expected::StatementOrValue => match begins {
                Some(&word) => self.statement(index, word),
                None if self.may_begin_another(index, token) => None,
                None => Some(index + 1),
            },
            Expected::Rest if self.handler => match begins {
                Some(&word) => {
                    self.handler = false;
                    self.statement(index, word)
                }
                None if self.may_begin_another(index, token) => None,
                None => Some(index + 1),
            },
            Expected::Rest => {
                self.inside(index);
                Some(index + 1)
            }
        }
    }

    /// A statement begins with this word.
    fn statement(&mut self, index: usize, word: &str) -> Option<usize> {
        match word {
            "BEGIN" => {
                self.blocks.push(self.declared.len());
                self.expected = Expected::Statement;
            }
            "LOOP" => self.expected = Expected::Statement,
            // Before ( it is the function, as the value of a CASE expression.
            "REPEAT" if !self.is(index + 1, b'(') => self.expected = Expected::Statement,
            "DECLARE" => return self.declare(index),
            "SET" => return self.set(index + 1).then_some(index + 1),
            // As a statement it has an expression.
            "DO" => {}
            _ => self.inside(index),
        }
        Some(index + 1)
    }

    /// Words that mean something wherever they stand.
    fn inside(&mut self, index: usize) {
        let after_end = index > 0 && self.says(index - 1, "END");
        if self.says(index, "THEN") || self.says(index, "ELSE") {
            self.expected = Expected::StatementOrValue;
        } else if self.says(index, "DO") {
            // Of WHILE or FOR.
            self.expected = Expected::Statement;
        } else if self.says(index, "CASE") && !after_end {
            self.blocks.push(self.declared.len());
        } else if self.says(index, "END") {
            let of_a_block = !["IF", "LOOP", "REPEAT", "WHILE", "FOR"]
                .iter()
                .any(|word| self.says(index + 1, word));
            if of_a_block && let Some(declared) = self.blocks.pop() {
                self.declared.truncate(declared);
            }
        }
    }

    fn declare(&mut self, index: usize) -> Option<usize> {
        let condition = ["CONTINUE", "EXIT", "UNDO"]
            .iter()
            .any(|word| self.says(index + 1, word));
        if condition && self.says(index + 2, "HANDLER") {
            self.handler = true;
            return self.says(index + 3, "FOR").then_some(index + 4);
        }
        let mut at = index + 1;
        let mut names = Vec::new();
        loop {
            names.push(self.at(at)?.name(self.sql).to_ascii_lowercase());
            at += 1;
            if !self.is(at, b',') {
                break;
            }
            at += 1;
        }
        if !self.says(at, "CURSOR") && !self.says(at, "CONDITION") {
            self.declared.append(&mut names);
        }
        Some(at)
    }

    /// Whether all that the SET whose first target stands here sets are variables declared in the function.
    fn set(&self, mut index: usize) -> bool {
        loop {
            let declared = self.at(index).is_some_and(|token| {
                matches!(token.kind(), TokenKind::Word | TokenKind::Quoted)
                    && self
                        .declared
                        .contains(&token.name(self.sql).to_ascii_lowercase())
            });
            let assigned =
                self.is(index + 1, b'=') || self.is(index + 1, b':') && self.is(index + 2, b'=');
            if !declared || !assigned {
                return false;
            }
            let mut depth = 0_usize;
            loop {
                index += 1;
                match self.at(index) {
                    None => return true,
                    Some(token) if token.is(b';') => return true,
                    Some(token) if token.is(b'(') => depth += 1,
                    Some(token) if token.is(b')') => depth = depth.saturating_sub(1),
                    Some(token) if token.is(b',') && depth == 0 => break,
                    Some(_) => {}
                }
            }
            index += 1;
        }
    }

    /// Whether a statement that does more than read may begin here, where a value or a condition may stand as well.
    fn may_begin_another(&self, index: usize, token: Token) -> bool {
        let Some(entry) = token.entry() else {
            return false;
        };
        let value = self.is(index + 1, b'(') || self.is(index + 1, b'.');
        !value
            && (entry.flags.has(Flags::WRITES)
                || matches!(
                    entry.word,
                    Word::Analyze
                        | Word::Backup
                        | Word::Binlog
                        | Word::Cache
                        | Word::Check
                        | Word::Checksum
                        | Word::Clone
                        | Word::Commit
                        | Word::Deallocate
                        | Word::Desc
                        | Word::Execute
                        | Word::Explain
                        | Word::Flush
                        | Word::Get
                        | Word::Handler
                        | Word::Help
                        | Word::Import
                        | Word::Install
                        | Word::Lock
                        | Word::Prepare
                        | Word::Purge
                        | Word::Release
                        | Word::Repair
                        | Word::Reset
                        | Word::Restart
                        | Word::Rollback
                        | Word::Savepoint
                        | Word::Show
                        | Word::Shutdown
                        | Word::Start
                        | Word::Stop
                        | Word::Table
                        | Word::Truncate
                        | Word::Uninstall
                        | Word::Unlock
                        | Word::Use
                        | Word::Values
                        | Word::With
                        | Word::Xa
                ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn dialects() -> [Dialect; 2] {
        [Dialect::of(false, 90_704), Dialect::of(true, 101_114)]
    }

    #[test]
    fn functions_that_read() {
        for sql in [
            "RETURN 1",
            "RETURN (SELECT MAX(a) FROM t WHERE b = p)",
            "BEGIN DECLARE x INT; SELECT MAX(a) INTO x FROM t; RETURN x + p; END",
            "BEGIN DECLARE x, y VARCHAR(10) DEFAULT 'a'; SET x = CONCAT(p, ','), y := (SELECT b FROM t LIMIT 1); RETURN x; END",
            "l: BEGIN IF p > 1 THEN RETURN 2; ELSEIF p = 0 THEN LEAVE l; ELSE BEGIN END; END IF; RETURN 0; END l",
            "BEGIN DECLARE done INT DEFAULT 0; DECLARE a INT; DECLARE c CURSOR FOR SELECT a FROM t; \
             DECLARE CONTINUE HANDLER FOR NOT FOUND, SQLSTATE '02000' SET done = 1; OPEN c; \
             r: LOOP FETCH c INTO a; IF done THEN LEAVE r; END IF; END LOOP; CLOSE c; RETURN a; END",
            "BEGIN DECLARE i INT DEFAULT 0; WHILE i < 3 DO SET i = i + 1; END WHILE; REPEAT SET i = i - 1; UNTIL i = 0 \
             END REPEAT; RETURN i; END",
            "BEGIN DECLARE r INT; CASE p WHEN 1 THEN SET r = 1; ELSE SET r = CASE WHEN p = 2 THEN REPEAT('a', 2) ELSE 3 END; \
             END CASE; RETURN REPLACE(r, 'a', INSERT('a', 1, 1, 'b')); END",
            "BEGIN IF p < 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF; RETURN CAST(p AS CHAR(10)); END",
            "RETURN 'INSERT INTO t' /* DELETE */ -- DROP",
            "RETURN other.f(1) + g(2)",
        ] {
            for dialect in dialects() {
                let look = reading_function(sql.as_bytes(), dialect);
                assert!(
                    look.is_some(),
                    "{sql}: {:?}",
                    Look::at(sql.as_bytes(), dialect)
                );
            }
        }
    }

    #[test]
    fn functions_that_may_do_more() {
        for sql in [
            "BEGIN INSERT INTO t VALUES (1); RETURN 1; END",
            "BEGIN IF p THEN DELETE FROM t; END IF; RETURN 1; END",
            "BEGIN IF p THEN RETURN 1; ELSE UPDATE t SET a = 1; END IF; RETURN 2; END",
            "BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION INSERT INTO t VALUES (1); RETURN 1; END",
            "BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION SET @a = 1; RETURN 1; END",
            "BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION SET timestamp = 1; RETURN 1; END",
            "BEGIN CALL p(); RETURN 1; END",
            "BEGIN SET @a = 1; RETURN 1; END",
            "BEGIN SET SESSION sort_buffer_size = 1; RETURN 1; END",
            "BEGIN SET timestamp = 1; RETURN 1; END",
            "BEGIN DECLARE x INT; SET x = 1, timestamp = 2; RETURN 1; END",
            "BEGIN BEGIN DECLARE timestamp INT; SET timestamp = 1; END; SET timestamp = 1; RETURN 1; END",
            "BEGIN DECLARE timestamp CURSOR FOR SELECT 1; SET timestamp = 1; RETURN 1; END",
            "BEGIN DECLARE x INT; SELECT a INTO x FROM t FOR UPDATE; RETURN x; END",
            "BEGIN DECLARE x INT; SELECT a INTO x FROM t LOCK IN SHARE MODE; RETURN x; END",
            "BEGIN SELECT a INTO @x FROM t; RETURN 1; END",
            "BEGIN SELECT a FROM t INTO OUTFILE '/tmp/x'; RETURN 1; END",
            "BEGIN SELECT a INTO DUMPFILE '/tmp/x' FROM t; RETURN 1; END",
            "RETURN CONNECTION_ID()",
            "RETURN CURRENT_USER()",
            "RETURN CURRENT_USER",
            "RETURN LAST_INSERT_ID()",
            "RETURN GET_LOCK('a', 1)",
            "RETURN @a",
            "RETURN @@hostname",
            "RETURN @@global.read_only",
            "RETURN (SELECT COUNT(*) FROM mysql.user)",
            "BEGIN CREATE TEMPORARY TABLE x (a INT); RETURN 1; END",
            "BEGIN DROP TEMPORARY TABLE x; RETURN 1; END",
            "BEGIN SAVEPOINT s; RETURN 1; END",
            "BEGIN IF p THEN SAVEPOINT s; END IF; RETURN 1; END",
            "BEGIN PREPARE s FROM 'x'; EXECUTE s; RETURN 1; END",
            "BEGIN WHILE p DO TRUNCATE t; END WHILE; RETURN 1; END",
            "BEGIN SOMETHING NEW; RETURN 1; END",
            "BEGIN `a`.`b`; RETURN 1; END",
            "BEGIN (SELECT 1 INTO x); RETURN 1; END",
            "RETURN a.b.c(1)",
            "RETURN 'open",
        ] {
            for dialect in dialects() {
                assert!(reading_function(sql.as_bytes(), dialect).is_none(), "{sql}");
            }
        }
        let maria = Dialect::of(true, 101_114);
        for sql in [
            "RETURN NEXTVAL(s)",
            "RETURN NEXT VALUE FOR s",
            "RETURN LASTVAL(s)",
        ] {
            assert!(reading_function(sql.as_bytes(), maria).is_none(), "{sql}");
        }
    }

    #[test]
    fn calls_are_found() {
        let sql = "BEGIN DECLARE x INT; SET x = f(1) + `g h`(2) + s . k (3); RETURN ABS(x); END";
        for dialect in dialects() {
            let look = reading_function(sql.as_bytes(), dialect).unwrap();
            let calls: Vec<String> = look
                .calls
                .iter()
                .map(|call| {
                    let schema = call.schema.as_deref().unwrap_or_default();
                    String::from_utf8([schema, b".", &call.name].concat()).unwrap()
                })
                .collect();
            assert_eq!(calls, [".f", ".g h", "s.k"]);
        }
    }

    #[test]
    fn procedures_that_define_nothing() {
        let calls = |sql: &str| {
            let calls = procedure_without_definitions(sql.as_bytes(), Dialect::default());
            calls.map(|calls| calls.len())
        };
        assert_eq!(
            calls("BEGIN INSERT INTO t VALUES (1); CALL p(); CALL s.q; END"),
            Some(2)
        );
        assert_eq!(calls("CREATE TEMPORARY TABLE t (a INT)"), Some(0));
        assert_eq!(calls("DROP TABLE IF EXISTS t"), Some(0));
        assert_eq!(calls("BEGIN PREPARE s FROM 'x'; END"), Some(0));
        for sql in [
            "CREATE VIEW v AS SELECT 1",
            "BEGIN IF a THEN DROP VIEW v; END IF; END",
            "RENAME TABLE v TO w",
            "EXECUTE IMMEDIATE 'x'",
            "CALL s.p.q()",
            "CALL",
            "SELECT 'open",
        ] {
            assert_eq!(calls(sql), None, "{sql}");
        }
    }
}
