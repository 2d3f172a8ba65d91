//! Which tables a statement names: advice for people and counters, never proof.
//!
//! The parser reads three quarters of what the servers accept, and some of it wrongly, so nothing
//! here decides whether a statement is a read.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sqlparser::ast::{FromTable, ObjectName, Query, Statement, Visit, Visitor, visit_relations};
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
        && let Ok(text) = std::str::from_utf8(sql)
        // A defect of the parser must not end the worker's thread.
        && let Ok(Some(tables)) = catch_unwind(AssertUnwindSafe(|| parsed(text)))
    {
        return tables;
    }
    guessed(sql, &tokens)
}

fn parsed(text: &str) -> Option<Tables> {
    let statements = Parser::parse_sql(&MySqlDialect {}, text).ok()?;
    let mut all = BTreeSet::new();
    let mut written = BTreeSet::new();
    let mut defined = Defined::default();
    for statement in &statements {
        all.extend(relations(statement));
        let _ = statement.visit(&mut defined);
        match statement {
            Statement::Query(_) | Statement::Explain { .. } | Statement::ExplainTable { .. } => {}
            Statement::Insert(insert) => written.extend(relations(&insert.table)),
            Statement::Update(update) => written.extend(relations(&update.table)),
            Statement::Delete(delete) if !delete.tables.is_empty() => {
                written.extend(delete.tables.iter().filter_map(written_name));
            }
            Statement::Delete(delete) => {
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) =
                    &delete.from;
                written.extend(from.iter().flat_map(relations));
            }
            other => written.extend(relations(other)),
        }
    }
    Some(Tables {
        read: all
            .difference(&written)
            .filter(|name| !defined.names.contains(*name))
            .cloned()
            .collect(),
        written: written.into_iter().collect(),
        parsed: true,
    })
}

/// Names of common table expressions: they look like tables where they are used.
#[derive(Default)]
struct Defined {
    names: BTreeSet<String>,
}

impl Visitor for Defined {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.names.insert(table.alias.name.value.clone());
        }
        ControlFlow::Continue(())
    }
}

fn relations(node: &impl Visit) -> Vec<String> {
    let mut names = Vec::new();
    let _ = visit_relations(node, |name| {
        names.extend(written_name(name));
        ControlFlow::<()>::Continue(())
    });
    names
}

fn written_name(name: &ObjectName) -> Option<String> {
    let parts: Option<Vec<&str>> = name
        .0
        .iter()
        .map(|part| part.as_ident().map(|ident| ident.value.as_str()))
        .collect();
    parts.map(|parts| parts.join("."))
}

/// Names after FROM, JOIN, INTO, UPDATE and TABLE.
fn guessed(sql: &[u8], tokens: &[Token]) -> Tables {
    let mut read = BTreeSet::new();
    let mut written = BTreeSet::new();
    let deletes = word(tokens.first()) == Word::Delete;
    let mut rest = tokens;
    let mut first_from = true;
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        let is = |text: &str| token.bytes(sql).eq_ignore_ascii_case(text.as_bytes());
        let target = if token.kind() != TokenKind::Word {
            continue;
        } else if is("from") {
            let writes = deletes && first_from;
            first_from = false;
            if writes { &mut written } else { &mut read }
        } else if is("join") || is("straight_join") {
            &mut read
        } else if matches!(word(Some(token)), Word::Into | Word::Update | Word::Table) {
            &mut written
        } else {
            continue;
        };
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
            ("UPDATE LOW_PRIORITY IGNORE t SET a = 1", "", "", false),
            ("LOAD DATA LOCAL INFILE 'x' INTO TABLE t", "", "t", false),
            ("DELETE FROM t LIMIT ROWS EXAMINED 5", "", "t", false),
            ("SELECT 'open", "", "", false),
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
