//! ProxySQL's configuration as SQL for its administration: typed by hand, a dump by `mysqldump`, or one by `sqlite3`.

use std::collections::BTreeMap;

use sqlparser::dialect::{Dialect, MySqlDialect, SQLiteDialect};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::Content;
use super::Row;
use crate::cli::import::Error;
use crate::cli::import::target::Setting;

/// Words with which a statement of such a text begins.
pub(in crate::cli::import) const STATEMENTS: [&str; 18] = [
    "ALTER", "BEGIN", "COMMIT", "CREATE", "DELETE", "DROP", "INSERT", "LOAD", "LOCK", "PRAGMA",
    "REPLACE", "SAVE", "SELECT", "SET", "START", "UNLOCK", "UPDATE", "USE",
];

/// Whether a text is SQL and not `proxysql.cnf`.
pub(super) fn is_sql(text: &str) -> bool {
    let mut in_comment = false;
    for line in text.lines().map(str::trim) {
        if in_comment || line.starts_with("/*") {
            in_comment = !line.contains("*/");
            continue;
        }
        if line.is_empty() || line.starts_with(['#', ';']) || line.starts_with("//") {
            continue;
        }
        let word = line
            .split(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default();
        let rest = line.get(word.len()..).unwrap_or_default().trim_start();
        let assigned = rest.starts_with(['=', ':']);
        return line.starts_with("--")
            || (!assigned && STATEMENTS.contains(&word.to_ascii_uppercase().as_str()));
    }
    false
}

pub(super) fn read(text: &str) -> Result<Content, Error> {
    // mysqldump escapes with backslashes, SQLite does not know them.
    let dumped = ["-- MySQL dump", "-- MariaDB dump", "/*!"];
    let dialect: &dyn Dialect = if dumped.iter().any(|mark| text.contains(mark)) {
        &MySqlDialect {}
    } else {
        &SQLiteDialect {}
    };
    let tokens = Tokenizer::new(dialect, text)
        .tokenize_with_location()
        .map_err(|error| Error::at(number(error.location.line), error.message))?;
    let tokens: Vec<_> = tokens
        .into_iter()
        .filter(|token| !is_blank(token))
        .collect();
    let mut tables = Tables::default();
    for statement in tokens.split(|token| token.token == Token::SemiColon) {
        if !statement.is_empty() {
            tables.run(&mut Cursor {
                rest: statement,
                line: 1,
            })?;
        }
    }
    Ok(tables.content)
}

fn is_blank(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_) | Token::EOF)
}

fn number(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX)
}

/// The tables while the statements run one after the other.
#[derive(Default)]
struct Tables {
    content: Content,
    columns: BTreeMap<String, Vec<String>>,
}

impl Tables {
    fn run(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        match cursor.word().to_ascii_uppercase().as_str() {
            "INSERT" | "REPLACE" => self.insert(cursor),
            "UPDATE" => self.update(cursor),
            "CREATE" => {
                self.create(cursor);
                Ok(())
            }
            "DELETE" => self.delete(cursor),
            "SET" => {
                self.set(cursor);
                Ok(())
            }
            word if STATEMENTS.contains(&word) => Ok(()),
            // A trigger's END and the like.
            _ => Err(cursor.error("no statement of ProxySQL's administration")),
        }
    }

    fn insert(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        while !cursor.skip_word("INTO") {
            // INSERT OR REPLACE, INSERT IGNORE
            if cursor.word().is_empty() {
                return Err(cursor.error("INTO is missing"));
            }
        }
        let table = cursor.table();
        let columns = if cursor.skip(&Token::LParen) {
            cursor.names()?
        } else {
            match self.columns.get(&table) {
                Some(columns) => columns.clone(),
                None if is_shadow(&table) => return Ok(()),
                None => {
                    return Err(cursor.error(&format!(
                        "which columns are meant? \"{table}\" has no CREATE TABLE in front"
                    )));
                }
            }
        };
        if !cursor.skip_word("VALUES") {
            return Err(cursor.error("VALUES is missing: only rows with plain values can be read"));
        }
        loop {
            if !cursor.skip(&Token::LParen) {
                return Err(cursor.error("\"(\" is missing"));
            }
            let line = cursor.line;
            let values = cursor.values()?;
            if values.len() != columns.len() {
                let message = format!("{} values for {} columns", values.len(), columns.len());
                return Err(Error::at(line, message));
            }
            let fields = columns.iter().cloned().zip(values).collect();
            self.row(line, &table, fields)?;
            if !cursor.skip(&Token::Comma) {
                return Ok(());
            }
        }
    }

    fn row(
        &mut self,
        line: usize,
        table: &str,
        fields: Vec<(String, String)>,
    ) -> Result<(), Error> {
        let row = Row::new(line, table, fields)?;
        if table == "global_variables" {
            self.variable(
                line,
                row.field("variable_name"),
                row.field("variable_value"),
            );
        } else if !is_shadow(table) {
            self.content.rows.push(row);
        }
        Ok(())
    }

    fn variable(&mut self, line: usize, name: &str, value: &str) {
        self.content.variables.push(Setting::new(line, name, value));
    }

    /// `UPDATE global_variables SET variable_value='…' WHERE variable_name='…'`
    fn update(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        let table = cursor.table();
        let line = cursor.line;
        if table != "global_variables" {
            return Err(Error::at(
                line,
                format!(
                    "changes rows of \"{table}\": run it, and import what SAVE CONFIG TO FILE writes"
                ),
            ));
        }
        let (mut name, mut value) = (String::new(), None);
        while !cursor.rest.is_empty() {
            let column = cursor.word();
            if cursor.skip(&Token::Eq) {
                match column.to_ascii_lowercase().as_str() {
                    "variable_value" => value = Some(cursor.value()?),
                    "variable_name" => name = cursor.value()?,
                    _ => drop(cursor.value()?),
                }
            } else if cursor.skip_word("IN") && cursor.skip(&Token::LParen) {
                for name in cursor.values()? {
                    self.variable(line, &name, value.as_deref().unwrap_or_default());
                }
                return Ok(());
            } else if column.is_empty() {
                return Err(
                    cursor.error("neither SET variable_value = … nor WHERE variable_name = …")
                );
            }
        }
        match value {
            Some(value) if !name.is_empty() => {
                self.variable(line, &name, &value);
                Ok(())
            }
            _ => Err(Error::at(
                line,
                "neither SET variable_value = … nor WHERE variable_name = …",
            )),
        }
    }

    /// `SET mysql-threads = 4`; `SET NAMES` and the like say nothing.
    fn set(&mut self, cursor: &mut Cursor<'_>) {
        let (line, scope) = (cursor.line, cursor.word());
        if !cursor.skip(&Token::Minus) {
            return;
        }
        let name = cursor.word();
        if cursor.skip(&Token::Eq)
            && let Ok(value) = cursor.value()
        {
            self.variable(line, &format!("{scope}-{name}"), &value);
        }
    }

    /// `DELETE FROM mysql_servers`, as in front of a dump's rows.
    fn delete(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        cursor.skip_word("FROM");
        let table = cursor.table();
        if !cursor.rest.is_empty() {
            return Err(cursor
                .error("deletes some rows: run it, and import what SAVE CONFIG TO FILE writes"));
        }
        self.content.rows.retain(|row| row.table != table);
        if table == "global_variables" {
            self.content.variables.clear();
        }
        Ok(())
    }

    /// Remembers the columns of `CREATE TABLE name (…)`.
    fn create(&mut self, cursor: &mut Cursor<'_>) {
        if !cursor.skip_word("TABLE") {
            return;
        }
        for word in ["IF", "NOT", "EXISTS"] {
            cursor.skip_word(word);
        }
        let table = cursor.table();
        if !cursor.skip(&Token::LParen) {
            return;
        }
        let (mut depth, mut at_start, mut columns) = (0_usize, true, Vec::new());
        while let Some(token) = cursor.next() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => break,
                Token::RParen => depth -= 1,
                Token::Comma if depth == 0 => {
                    at_start = true;
                    continue;
                }
                _ if at_start => {
                    let constraint = ["CHECK", "CONSTRAINT", "FOREIGN", "KEY", "PRIMARY", "UNIQUE"];
                    let name = text(token).unwrap_or_default();
                    let bare = matches!(token, Token::Word(word) if word.quote_style.is_none());
                    if !(bare && constraint.contains(&name.to_ascii_uppercase().as_str())) {
                        columns.push(name);
                    }
                }
                _ => {}
            }
            at_start = false;
        }
        self.columns.insert(table, columns);
    }
}

/// Whether a table is only another view of the configuration, or of what ProxySQL has seen.
fn is_shadow(table: &str) -> bool {
    let shadows = [
        "runtime_",
        "stats_",
        "history_",
        "mysql_server_",
        "debug_",
        "mysql_collations",
    ];
    shadows.iter().any(|start| table.starts_with(start))
}

/// The tokens of one statement.
struct Cursor<'t> {
    rest: &'t [TokenWithSpan],
    /// The line of the token that was read last.
    line: usize,
}

impl<'t> Cursor<'t> {
    fn error(&self, message: &str) -> Error {
        let next = self.rest.first();
        Error::at(
            next.map_or(self.line, |token| number(token.span.start.line)),
            message,
        )
    }

    fn next(&mut self) -> Option<&'t Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line = number(first.span.start.line);
        Some(&first.token)
    }

    fn skip(&mut self, wanted: &Token) -> bool {
        let found = self
            .rest
            .first()
            .is_some_and(|token| token.token == *wanted);
        if found {
            self.next();
        }
        found
    }

    fn skip_word(&mut self, wanted: &str) -> bool {
        let fits = |token: &TokenWithSpan| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(wanted));
        let found = self.rest.first().is_some_and(fits);
        if found {
            self.next();
        }
        found
    }

    /// The next token as a name; empty if it is none.
    fn word(&mut self) -> String {
        self.next().and_then(text).unwrap_or_default()
    }

    /// A table's name without its schema.
    fn table(&mut self) -> String {
        let mut name = self.word();
        while self.skip(&Token::Period) {
            name = self.word();
        }
        name.to_ascii_lowercase()
    }

    /// Names up to the closing parenthesis.
    fn names(&mut self) -> Result<Vec<String>, Error> {
        Ok(self
            .values()?
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect())
    }

    /// Values up to the closing parenthesis.
    fn values(&mut self) -> Result<Vec<String>, Error> {
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            if self.skip(&Token::RParen) {
                return Ok(values);
            }
            if !self.skip(&Token::Comma) {
                return Err(self.error("\",\" or \")\" is missing: only plain values can be read"));
            }
        }
    }

    fn value(&mut self) -> Result<String, Error> {
        let sign = if self.skip(&Token::Minus) { "-" } else { "" };
        let error = self.error("a value is missing");
        let found = self.next().ok_or_else(|| error.clone())?;
        let text = text(found).ok_or(error)?;
        // An absent value is as good as an empty one.
        let bare_null = matches!(found, Token::Word(word) if word.quote_style.is_none() && text.eq_ignore_ascii_case("NULL"));
        Ok(if bare_null {
            String::new()
        } else {
            format!("{sign}{text}")
        })
    }
}

/// A word, a string or a number as text.
fn text(token: &Token) -> Option<String> {
    Some(match token {
        Token::Word(word) => word.value.clone(),
        Token::SingleQuotedString(text)
        | Token::DoubleQuotedString(text)
        | Token::Number(text, _) => text.clone(),
        _ => return None,
    })
}
