//! Which rules of a configuration concern a statement, as far as can be known without a session.

use std::cell::OnceCell;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::rule::Conditions;
use crate::config::{Glob, Rule};
use crate::routing::rules::{Statement, kind_of, matches};
use crate::sql::{self, Dialect, StatementClass, Tables};

/// Whose statements they are; what is not known is `None`.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    pub(super) account: Option<String>,
    pub(super) address: Option<IpAddr>,
    /// The schema in use.
    pub(super) schema: Option<Vec<u8>>,
}

/// The rules that concern a statement.
#[derive(Default)]
pub(super) struct Found<'r> {
    /// Those that match.
    pub(super) matching: Vec<&'r Rule>,
    /// Those that match if these conditions of theirs hold.
    pub(super) possible: Vec<(&'r Rule, Vec<&'static str>)>,
}

/// Finds the rules that concern a statement. One that only may match keeps none behind it from being looked at.
pub(super) fn find<'r>(
    rules: &'r [Rule],
    text: &[u8],
    class: &StatementClass,
    client: &Client,
    dialect: Dialect,
) -> Found<'r> {
    let mut found = Found::default();
    if kind_of(class).is_none() {
        return found;
    }
    let question = Question {
        text,
        class,
        client,
        tables: Arc::new(sql::tables(text, dialect)),
    };
    for rule in rules {
        match question.unknown(&rule.when) {
            None => {}
            Some(unknown) if unknown.is_empty() => {
                found.matching.push(rule);
                if !rule.go_on {
                    break;
                }
            }
            Some(unknown) => found.possible.push((rule, unknown)),
        }
    }
    found
}

struct Question<'a> {
    text: &'a [u8],
    class: &'a StatementClass,
    client: &'a Client,
    tables: Arc<Tables>,
}

impl Question<'_> {
    /// The conditions of which nobody knows whether they hold; `None` if one surely does not.
    fn unknown(&self, when: &Conditions) -> Option<Vec<&'static str>> {
        let user = self.client.account.as_deref().map(str::as_bytes);
        let address = self.client.address;
        let schema = self.client.schema.as_deref();
        let mut known = Conditions {
            time: Vec::new(),
            sample: None,
            ..when.clone()
        };
        // A comment in the statement may name it, else the client does.
        let commented = Conditions {
            application: mem::take(&mut known.application),
            ..Conditions::default()
        };
        let tables = match schema {
            Some(_) => Vec::new(),
            None => mem::take(&mut known.table),
        };
        known.schema.clear();
        let surely = |condition: bool| condition.then_some(true);
        let answers = [
            (
                "account",
                holds(&when.account, user, |name, user| name.fits(user)),
            ),
            (
                "client",
                holds(&when.client, address, |network, client| {
                    network.contains(client)
                }),
            ),
            ("listener", surely(when.listener.is_empty())),
            ("application", surely(self.matches(&commented))),
            (
                "schema",
                holds(&when.schema, schema, |name, schema| name.fits(schema)),
            ),
            ("table", self.names(tables)),
            ("time", surely(when.time.is_empty())),
            (
                "sample",
                surely(when.sample.is_none_or(|parts| parts == 1_000_000)),
            ),
        ];
        let possible = answers.iter().all(|(_, answer)| *answer != Some(false));
        let unknown = answers.iter().filter(|(_, answer)| answer.is_none());
        (possible && self.matches(&known)).then(|| unknown.map(|(name, _)| *name).collect())
    }

    /// Whether the statement names one of these tables, while the schema in use is not known.
    fn names(&self, tables: Vec<Glob>) -> Option<bool> {
        let may_be = |table: &Glob| {
            let table = table.to_string();
            let table = table.split_once('.').map(|(_, table)| Glob::parse(table));
            let mut names = self.tables.read.iter().chain(&self.tables.written);
            names.any(|name| {
                let fits = |glob: &Glob| glob.fits(name.as_bytes());
                !name.contains('.') && matches!(&table, Some(Ok(glob)) if fits(glob))
            })
        };
        let possible = tables.iter().any(may_be);
        let named = Conditions {
            table: tables,
            ..Conditions::default()
        };
        match self.matches(&named) {
            false if possible => None,
            named => Some(named),
        }
    }

    fn matches(&self, when: &Conditions) -> bool {
        let statement = Statement {
            text: self.text,
            class: self.class,
            schema: self.client.schema.as_deref(),
            program: None,
            now: 0,
            find_tables: &|| Arc::clone(&self.tables),
            tables: OnceCell::new(),
        };
        matches(when, &statement)
    }
}

/// Whether one of a condition's entries fits; `None` if it is not known what they have to fit.
fn holds<T, N: Copy>(entries: &[T], name: Option<N>, fits: impl Fn(&T, N) -> bool) -> Option<bool> {
    match name {
        _ if entries.is_empty() => Some(true),
        name => name.map(|name| entries.iter().any(|entry| fits(entry, name))),
    }
}
