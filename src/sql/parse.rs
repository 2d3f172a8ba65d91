//! Which tables a statement names: advice for people and counters, never proof.
//!
//! The parser reads three quarters of what the servers accept, and some of it wrongly, so nothing
//! here decides whether a statement is a read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sqlparser::ast::{
    Delete, FromTable, ObjectName, ObjectType, Query, SetExpr, ShowCreateObject, Statement, Visit,
    Visitor,
};
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;

use super::dialect::Dialect;
use super::lexer::{Token, TokenKind, tokens};
use super::words::{Flags, Word};

/// The tables that a statement names, without duplicates, in alphabetical order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tables {
    /// Those that it reads, as written, without quotes: `schema.table` or `table`.
    pub read: Vec<String>,
    /// Those that it changes or defines.
    pub written: Vec<String>,
    /// A full parser agreed; otherwise the names are guessed from the words before them.
    pub parsed: bool,
}

/// Longer statements are not given to the parser.
const BYTES: usize = 64 * 1024;

/// Nor those of more tokens: the depth of its tree, and so the stack, grows with them.
const TOKENS: usize = 2_000;

/// Finds the tables that a statement names.
pub fn tables(sql: &[u8], dialect: Dialect) -> Tables {
    if sql.len() > BYTES {
        return Tables::default();
    }
    let Some(tokens) = tokens(sql, dialect) else {
        return Tables::default();
    };
    if tokens.len() <= TOKENS
        && is_plain(sql, dialect)
        && let Ok(text) = std::str::from_utf8(sql)
        // A defect of the parser must not end the worker's thread.
        && let Ok(Some(tables)) = catch_unwind(AssertUnwindSafe(|| parsed(text)))
    {
        return tables;
    }
    guessed(sql, &tokens)
}

/// Whether the parser reads the text as the servers do, as far as its bytes tell.
fn is_plain(sql: &[u8], dialect: Dialect) -> bool {
    let has_other_strings = dialect.no_backslash_escapes && sql.contains(&b'\\');
    !has_other_strings && !may_have_code(sql)
}

/// Whether a comment may be code: the parser does not see it, and a digest does not tell it from other code.
fn may_have_code(sql: &[u8]) -> bool {
    let mut rest = sql;
    while let Some(at) = rest.iter().position(|byte| *byte == b'/') {
        rest = rest.get(at + 1..).unwrap_or_default();
        if rest.starts_with(b"*!") || rest.starts_with(b"*M!") {
            return true;
        }
    }
    false
}

fn parsed(text: &str) -> Option<Tables> {
    let statements = Parser::parse_sql(&MySqlDialect {}, text).ok()?;
    let mut all = Names::default();
    let mut written = Names::default();
    let mut expressions = Expressions::default();
    for statement in &statements {
        let _ = statement.visit(&mut all);
        let _ = statement.visit(&mut expressions);
        match statement {
            Statement::Query(_) | Statement::Explain { .. } | Statement::ExplainTable { .. } => {}
            Statement::Insert(insert) => written.visit(&insert.table),
            Statement::Update(update) => written.visit(&update.table),
            Statement::Delete(delete) => written.deleted(delete),
            // Names that are no relations to the parser.
            Statement::Drop {
                object_type: ObjectType::Table | ObjectType::View,
                names,
                ..
            } => names.iter().for_each(|name| written.add(name)),
            Statement::RenameTable(renamed) => renamed.iter().for_each(|table| {
                written.add(&table.old_name);
                written.add(&table.new_name);
            }),
            Statement::ShowCreate {
                obj_type: ShowCreateObject::Table | ShowCreateObject::View,
                obj_name,
            } => all.add(obj_name),
            Statement::ShowColumns { .. } => {}
            Statement::LockTables { .. } => return None,
            other => written.visit(other),
        }
    }
    let is_doubtful = all.is_doubtful || written.is_doubtful || expressions.is_doubtful;
    let written: BTreeSet<_> = written.all.into_iter().collect();
    let mut uses = BTreeMap::<&str, usize>::new();
    for name in &all.all {
        *uses.entry(name).or_default() += 1;
    }
    Some(Tables {
        read: uses
            .into_iter()
            .filter(|(name, uses)| !written.contains(*name) && !expressions.are(name, *uses))
            .map(|(name, _)| name.to_owned())
            .collect(),
        written: written.into_iter().collect(),
        parsed: !is_doubtful,
    })
}

/// The names of tables in a part of a statement, as often as they stand there.
#[derive(Default)]
struct Names {
    all: Vec<String>,
    /// A name holds a dot: what is then the schema cannot be told.
    is_doubtful: bool,
}

impl Names {
    fn visit(&mut self, node: &impl Visit) {
        let _ = node.visit(self);
    }

    fn of(node: &impl Visit) -> Self {
        let mut names = Self::default();
        names.visit(node);
        names
    }

    /// Every table that is named before WHERE: those that rows are deleted from may stand there as aliases of others.
    fn deleted(&mut self, delete: &Delete) {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        self.visit(from);
        self.visit(&delete.using);
        delete.tables.iter().for_each(|name| self.add(name));
    }

    fn add(&mut self, name: &ObjectName) {
        let parts: Option<Vec<&str>> = name
            .0
            .iter()
            .map(|part| part.as_ident().map(|ident| ident.value.as_str()))
            .collect();
        match parts {
            Some(parts) => self.put(&parts),
            None => self.is_doubtful = true,
        }
    }

    fn put(&mut self, parts: &[&str]) {
        self.is_doubtful |= parts.iter().any(|part| part.contains('.'));
        self.all.push(parts.join("."));
    }

    /// TABLE, which is no relation to the parser.
    fn body(&mut self, body: &SetExpr) {
        match body {
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left);
                self.body(right);
            }
            SetExpr::Table(table) => {
                let parts: Vec<_> = [&table.schema_name, &table.table_name]
                    .into_iter()
                    .flatten()
                    .map(String::as_str)
                    .collect();
                self.put(&parts);
            }
            _ => {}
        }
    }
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        self.add(name);
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.body(&query.body);
        ControlFlow::Continue(())
    }
}

/// Common table expressions: they look like tables where they are used.
#[derive(Default)]
struct Expressions {
    /// How often each name stands where it is surely the expression; `None` if it has several.
    uses: BTreeMap<String, Option<usize>>,
    is_doubtful: bool,
}

impl Expressions {
    /// Whether a name that is used so often in all is never a table's.
    fn are(&self, name: &str, uses: usize) -> bool {
        self.uses.get(name) == Some(&Some(uses))
    }
}

impl Visitor for Expressions {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let Some(with) = &query.with else {
            return ControlFlow::Continue(());
        };
        let inside = Names::of(query).all;
        for (index, table) in with.cte_tables.iter().enumerate() {
            let name = &table.alias.name.value;
            self.is_doubtful |= name.contains('.');
            // In its own definition, and in those before, the name is a table's, but for its own in a recursive one.
            let own = if with.recursive { index } else { index + 1 };
            let tables = with.cte_tables.iter().take(own);
            let of_tables = tables.flat_map(|table| Names::of(&table.query).all);
            let count = |names: &mut dyn Iterator<Item = String>| {
                names.filter(|other| other == name).count()
            };
            let uses = count(&mut inside.iter().cloned()) - count(&mut of_tables.into_iter());
            self.uses
                .entry(name.clone())
                .and_modify(|uses| *uses = None)
                .or_insert(Some(uses));
        }
        ControlFlow::Continue(())
    }
}

/// Names after FROM, JOIN, INTO, UPDATE, TABLE, LOCK TABLES and HANDLER.
fn guessed(sql: &[u8], tokens: &[Token]) -> Tables {
    let mut read = BTreeSet::new();
    let mut written = BTreeSet::new();
    let deletes = word(tokens.first()) == Word::Delete;
    let mut rest = tokens;
    let mut first_from = true;
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        let is = |text: &str| token.bytes(sql).eq_ignore_ascii_case(text.as_bytes());
        let locks = is("tables") && word(tokens.first()) == Word::Lock;
        let target = if token.kind() != TokenKind::Word {
            continue;
        } else if is("from") {
            let writes = deletes && first_from;
            first_from = false;
            if writes { &mut written } else { &mut read }
        } else if is("join") || is("straight_join") {
            &mut read
        } else if matches!(word(Some(token)), Word::Into | Word::Update | Word::Table)
            || locks
            || (is("handler") && after.len() + 1 == tokens.len())
        {
            &mut written
        } else {
            continue;
        };
        while word(rest.first()) == Word::InsertOption {
            rest = rest.get(1..).unwrap_or(&[]);
        }
        while let Some((name, after)) = name(sql, rest) {
            target.insert(name);
            rest = after;
            // An alias, then perhaps another table.
            if word(rest.first()) == Word::As {
                rest = rest.get(1..).unwrap_or(&[]);
            }
            if rest.first().is_some_and(|token| may_be_name(*token)) {
                rest = rest.get(1..).unwrap_or(&[]);
            }
            while locks && rest.first().is_some_and(|token| !token.is(b',')) {
                rest = rest.get(1..).unwrap_or(&[]);
            }
            match rest.split_first() {
                Some((comma, after)) if comma.is(b',') => rest = after,
                _ => break,
            }
        }
    }
    Tables {
        read: read.difference(&written).cloned().collect(),
        written: written.into_iter().collect(),
        parsed: false,
    }
}

fn word(token: Option<&Token>) -> Word {
    token
        .and_then(|token| token.entry())
        .map_or(Word::Other, |entry| entry.word)
}

fn may_be_name(token: Token) -> bool {
    match token.kind() {
        TokenKind::Quoted => true,
        TokenKind::Word => token
            .entry()
            .is_none_or(|entry| !entry.flags.has(Flags::RESERVED)),
        _ => false,
    }
}

/// `table` or `schema.table` at the front.
fn name<'a>(sql: &[u8], tokens: &'a [Token]) -> Option<(String, &'a [Token])> {
    let part = |token: &Token| {
        may_be_name(*token).then(|| String::from_utf8_lossy(&token.name(sql)).into_owned())
    };
    let (first, mut rest) = tokens.split_first()?;
    let mut name = part(first)?;
    if let [dot, second, after @ ..] = rest
        && dot.is(b'.')
        && let Some(second) = part(second)
    {
        name = format!("{name}.{second}");
        rest = after;
    }
    Some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_tables() {
        for (sql, read, written, parsed) in [
            ("SELECT 1", "", "", true),
            (
                "SELECT a FROM t JOIN db.u ON t.id = u.id",
                "db.u t",
                "",
                true,
            ),
            (
                "SELECT a FROM `my t` WHERE b IN (SELECT c FROM v)",
                "my t v",
                "",
                true,
            ),
            ("WITH c AS (SELECT 1 FROM t) SELECT * FROM c", "t", "", true),
            ("INSERT INTO t SELECT * FROM u", "u", "t", true),
            ("UPDATE t SET a = (SELECT MAX(a) FROM u)", "u", "t", true),
            ("DELETE FROM t WHERE a IN (SELECT a FROM u)", "u", "t", true),
            (
                "SELECT a FROM t x, db.u AS y LOCK IN SHARE MODE",
                "db.u t",
                "",
                false,
            ),
            ("UPDATE LOW_PRIORITY IGNORE t SET a = 1", "", "t", false),
            ("DROP TABLE IF EXISTS db.t, u", "", "db.t u", true),
            ("DROP VIEW v", "", "v", true),
            ("DROP DATABASE db", "", "", true),
            ("RENAME TABLE t TO db.u, x TO y", "", "db.u t x y", true),
            ("SHOW CREATE TABLE db.t", "db.t", "", true),
            ("SHOW COLUMNS FROM db.t", "db.t", "", true),
            ("LOCK TABLES db.t AS a READ, u WRITE", "", "db.t u", false),
            ("HANDLER db.t OPEN", "", "db.t", false),
            ("LOAD DATA LOCAL INFILE 'x' INTO TABLE t", "", "t", false),
            ("DELETE FROM t LIMIT ROWS EXAMINED 5", "", "t", false),
            ("SELECT 'open", "", "", false),
            (
                "DELETE o FROM orders o JOIN x ON o.id = x.id",
                "",
                "o orders x",
                true,
            ),
            (
                "DELETE FROM o USING orders o JOIN x ON o.id = x.id",
                "",
                "o orders x",
                true,
            ),
            ("DELETE orders, x FROM orders JOIN x", "", "orders x", true),
            ("WITH t AS (SELECT a FROM t) SELECT a FROM t", "t", "", true),
            (
                "WITH c AS (SELECT a FROM d), d AS (SELECT 1) SELECT a FROM c, d",
                "d",
                "",
                true,
            ),
            (
                "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c) SELECT n FROM c",
                "",
                "",
                true,
            ),
            (
                "SELECT a FROM (WITH t AS (SELECT 1) SELECT 1 FROM t) x JOIN t",
                "t",
                "",
                true,
            ),
            ("SELECT a FROM x UNION TABLE orders", "orders x", "", true),
            (
                "SELECT a FROM t WHERE b IN (TABLE db.u)",
                "db.u t",
                "",
                true,
            ),
            ("SELECT a FROM `b.c`", "b.c", "", false),
            ("SELECT a FROM t /*! JOIN b */", "b t", "", false),
            ("SELECT a FROM t /*M! JOIN b */", "t", "", false),
        ] {
            let found = tables(sql.as_bytes(), Dialect::default());
            assert_eq!(
                (found.read.join(" "), found.written.join(" "), found.parsed),
                (read.to_owned(), written.to_owned(), parsed),
                "{sql}"
            );
        }
    }

    #[test]
    fn what_the_parser_would_read_otherwise_is_not_given_to_it() {
        let maria = Dialect {
            maria: true,
            version: 101_100,
            ..Dialect::default()
        };
        let found = tables(b"SELECT a FROM t /*M! JOIN b */", maria);
        assert_eq!(
            (found.read.join(" ").as_str(), found.parsed),
            ("b t", false)
        );
        let plain = Dialect {
            no_backslash_escapes: true,
            ..Dialect::default()
        };
        let found = tables(b"SELECT '\\' FROM a WHERE b = '\\'", plain);
        assert_eq!((found.read.join(" ").as_str(), found.parsed), ("a", false));
    }

    #[test]
    fn hostile_sizes_are_left_alone() {
        let long = format!("SELECT {} FROM t", "1 AND ".repeat(9_000) + "1");
        let found = tables(long.as_bytes(), Dialect::default());
        assert!(!found.parsed);
        assert_eq!(found.read, ["t"]);
        let deep = format!("SELECT {}1{} FROM t", "(".repeat(900), ")".repeat(900));
        assert_eq!(tables(deep.as_bytes(), Dialect::default()).read, ["t"]);
        let huge = "SELECT a FROM t WHERE ".to_owned() + &"a".repeat(BYTES);
        assert_eq!(
            tables(huge.as_bytes(), Dialect::default()),
            Tables::default()
        );
    }
}
