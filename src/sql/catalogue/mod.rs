//! What is known of stored functions and views, and what that makes of a statement.
//!
//! A function is a read if it is declared so and its body, read with our own lexer, holds nothing else, nor calls or names
//! anything that does. A view is a read if its definition is one. Whatever is not known is neither.

mod body;
mod look;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::class::{Cause, Kind, StatementClass, classify};
use super::dialect::Dialect;
use super::facts::Facts;
use super::lexer::{Lexer, TokenKind};
use super::words::Word;
use look::{Call, Look, called, fold, is_name, word};

/// What a server says of its routines and views.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// How it reads their text, but for their `sql_mode`.
    pub dialect: Dialect,
    /// Functions, procedures and packages.
    pub routines: Vec<Routine>,
    /// Views.
    pub views: Vec<View>,
    /// Names of loadable functions, which come before stored ones; `None` if they cannot be read.
    pub loadable: Option<Vec<Vec<u8>>>,
    /// Names of tables and schemas are stored in another case than they are written.
    pub folds_names: bool,
}

/// What a routine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutineKind {
    /// A function. `reads`: it is declared deterministic, and not to modify data.
    Function {
        /// See above.
        reads: bool,
    },
    /// A procedure.
    Procedure,
    /// A package of routines.
    Package,
}

/// A stored routine.
#[derive(Debug, Clone)]
pub struct Routine {
    /// What it is.
    pub kind: RoutineKind,
    /// Its schema.
    pub schema: Vec<u8>,
    /// Its name.
    pub name: Vec<u8>,
    /// The `sql_mode` in which it was made, and runs.
    pub sql_mode: Vec<u8>,
    /// The `character_set_client` in which it was made.
    pub charset: Vec<u8>,
    /// Its body; `None` if it is not shown, or is too long.
    pub body: Option<Vec<u8>>,
}

/// A view.
#[derive(Debug, Clone)]
pub struct View {
    /// Its schema.
    pub schema: Vec<u8>,
    /// Its name.
    pub name: Vec<u8>,
    /// Its query as the server prints it; `None` if it is not shown, or is too long.
    pub definition: Option<Vec<u8>>,
}

/// What is known of routines and views.
#[derive(Debug, Clone)]
pub struct Catalogue {
    asked_at: Option<Instant>,
    known: Arc<Known>,
}

#[derive(Debug, Default)]
struct Known {
    lookup: Lookup,
    /// Functions that are reads, from that time on if there is one.
    functions: HashMap<Name, Option<Instant>>,
    /// Views that are not plain reads, by name alone, folded.
    views: HashMap<Box<[u8]>, Unplain>,
    /// All views, by name alone, folded; `None` if they are not known.
    all_views: Option<HashSet<Box<[u8]>>>,
    /// Procedures that change nothing of what is known here.
    procedures: HashSet<Name>,
    /// A name that is not all ASCII may be one of `views`.
    foreign: bool,
}

/// Schema and name of a routine; the latter in lower case, since servers find them so.
type Name = Box<[u8]>;

/// What reading a view does besides.
#[derive(Debug, Clone, Copy)]
struct Unplain {
    facts: Facts,
    /// It is so no more, but replicas may not know yet before that time.
    until: Option<Instant>,
}

/// Functions and views that refer to others more deeply than this are not looked through.
const DEPTH: usize = 64;

impl Catalogue {
    /// Nothing is known, since nothing was read.
    pub fn unread() -> Self {
        Self {
            asked_at: None,
            known: Arc::default(),
        }
    }

    /// What follows from a reading that was asked for at `asked_at`.
    ///
    /// What is a read now and was not one in the reading `before` counts as one only after `settle`, when every replica that
    /// may serve reads has the change.
    pub fn new(reading: &Reading, before: &Self, asked_at: Instant, settle: Duration) -> Self {
        let mut known = Known::of(reading);
        if before.asked_at.is_some() {
            let settled = asked_at + settle;
            for (name, since) in &mut known.functions {
                *since = match before.known.functions.get(name) {
                    Some(since) => *since,
                    None => Some(settled),
                };
            }
            for (name, view) in &before.known.views {
                let until = view.until.unwrap_or(settled);
                if until > asked_at {
                    known.views.entry(name.clone()).or_insert(Unplain {
                        until: Some(until),
                        ..*view
                    });
                }
            }
        }
        known.foreign = !known.views.is_empty()
            && (reading.folds_names || known.views.keys().any(|name| !name.is_ascii()));
        Self {
            asked_at: Some(asked_at),
            known: Arc::new(known),
        }
    }

    /// The same, since nothing had changed when it was asked for at `asked_at`.
    pub fn confirmed(&self, asked_at: Instant) -> Self {
        Self {
            asked_at: Some(asked_at),
            known: Arc::clone(&self.known),
        }
    }

    /// What is left when nothing can be read any more: no function is a read, and no view becomes one.
    pub fn unreadable(&self, asked_at: Instant) -> Self {
        Self {
            asked_at: Some(asked_at),
            known: Arc::new(Known {
                views: self.known.views.clone(),
                foreign: self.known.foreign,
                ..Known::default()
            }),
        }
    }

    /// When the reading was asked for: whatever was done before is in it.
    pub fn asked_at(&self) -> Option<Instant> {
        self.asked_at
    }

    /// Whether a table of this name is surely no view, in whatever schema.
    pub fn is_no_view(&self, name: &[u8]) -> bool {
        let views = self.known.all_views.as_ref();
        name.is_ascii() && views.is_some_and(|views| !views.contains(&fold(name)))
    }

    /// Whether what is known can make something else of a statement of this class.
    pub fn concerns(&self, class: &StatementClass) -> bool {
        match class.cause {
            Cause::None => !self.known.views.is_empty(),
            Cause::UnknownFunction => !self.known.functions.is_empty(),
            _ => class.kind == Kind::Call && !self.known.procedures.is_empty(),
        }
    }

    /// What a statement is, given what is known: the class of its text with the calls of functions that are reads taken for
    /// reads, and with what the views that it names do besides.
    ///
    /// `schema` is the one in use.
    pub fn judge(
        &self,
        class: StatementClass,
        sql: &[u8],
        dialect: Dialect,
        schema: Option<&[u8]>,
        now: Instant,
    ) -> StatementClass {
        let class = match class.cause {
            Cause::UnknownFunction => match class.with_reading_functions() {
                Some(read) if self.calls_reads(sql, dialect, schema, now) => read,
                _ => return class,
            },
            Cause::None => class,
            _ if class.kind == Kind::Call && self.keeps_definitions(sql, dialect, schema) => {
                return StatementClass {
                    facts: class.facts.difference(Facts::DEFINITIONS),
                    ..class
                };
            }
            _ => return class,
        };
        match self.unplain(sql, dialect, now) {
            Some(facts) => StatementClass {
                facts: class.facts | facts,
                cause: Cause::View,
                ..class
            },
            None => class,
        }
    }

    /// Whether all functions that it calls, and that are not built in, are reads.
    fn calls_reads(
        &self,
        sql: &[u8],
        dialect: Dialect,
        schema: Option<&[u8]>,
        now: Instant,
    ) -> bool {
        let look = Look::at(sql, dialect);
        !look.odd
            && look.calls.iter().all(|call| {
                let name = self.known.lookup.function(call, schema);
                let since = name.and_then(|name| self.known.functions.get(&name));
                since.is_some_and(|since| since.is_none_or(|since| since <= now))
            })
    }

    /// What the views that it names do besides; `None` if they are plain.
    fn unplain(&self, sql: &[u8], dialect: Dialect, now: Instant) -> Option<Facts> {
        if self.known.views.is_empty() {
            return None;
        }
        let mut facts = None;
        let mut lexer = Lexer::new(sql, dialect);
        loop {
            let token = lexer.next();
            if token.kind() == TokenKind::End {
                return facts;
            }
            if is_name(token)
                && let Some(found) = self.unplain_name(token.plain_name(sql), now)
            {
                *facts.get_or_insert(Facts::NONE) |= found;
            }
        }
    }

    fn unplain_name(&self, name: &[u8], now: Instant) -> Option<Facts> {
        /// Longest name, in characters.
        const LONGEST: usize = 64;
        if !name.is_ascii() {
            // It is in the client's character set, and by which rule the server compares it is not known.
            return self.known.foreign.then_some(Facts::MAY_WRITE);
        }
        let mut folded = [0; LONGEST];
        let view = match folded.get_mut(..name.len()) {
            Some(folded) => {
                folded.copy_from_slice(name);
                folded.make_ascii_lowercase();
                self.known.views.get(&*folded)
            }
            // Quotes doubled inside make it longer than it is.
            None => self.known.views.get(&fold(name)),
        };
        let view = view.filter(|view| view.until.is_none_or(|until| now < until));
        view.map(|view| view.facts)
    }

    /// Whether it calls a procedure that changes nothing of what is known here.
    fn keeps_definitions(&self, sql: &[u8], dialect: Dialect, schema: Option<&[u8]>) -> bool {
        let Some(tokens) = super::lexer::tokens(sql, dialect) else {
            return false;
        };
        if word(tokens.first()) != Word::Call {
            return false;
        }
        let behind = tokens.get(1..).unwrap_or(&[]);
        let end = behind.iter().position(|token| token.is(b'('));
        let call = called(
            sql,
            behind.get(..end.unwrap_or(behind.len())).unwrap_or(&[]),
        );
        let name = call.and_then(|call| self.known.lookup.routine(&call, schema));
        name.is_some_and(|name| self.known.procedures.contains(&name))
    }
}

/// Reads all texts of a reading, for the fuzz target.
pub(super) fn look_through(reading: &Reading) {
    let _ = Known::of(reading);
}

impl Default for Catalogue {
    fn default() -> Self {
        Self::unread()
    }
}

/// How a call's name is looked up.
#[derive(Debug, Default)]
struct Lookup {
    /// Names of packages: what is qualified by one of them may be a routine of its.
    packages: HashSet<Box<[u8]>>,
    /// Names of loadable functions, which come before stored ones; `None` if there may be any.
    loadable: Option<HashSet<Box<[u8]>>>,
    folds_schemas: bool,
}

impl Lookup {
    fn new(reading: &Reading) -> Self {
        let packages = reading
            .routines
            .iter()
            .filter(|routine| routine.kind == RoutineKind::Package);
        let loadable = reading.loadable.as_ref();
        Self {
            packages: packages.map(|package| fold(&package.name)).collect(),
            loadable: loadable.map(|names| names.iter().map(|name| fold(name)).collect()),
            folds_schemas: reading.folds_names,
        }
    }

    fn key(&self, schema: &[u8], name: &[u8]) -> Name {
        let mut key = [schema, &[0], name].concat();
        let folded = if self.folds_schemas { 0 } else { schema.len() };
        if let Some(name) = key.get_mut(folded..) {
            name.make_ascii_lowercase();
        }
        key.into()
    }

    /// The key of the function that is called with this schema in use; `None` if that cannot be said.
    fn function(&self, call: &Call, schema: Option<&[u8]>) -> Option<Name> {
        if call.schema.is_none() {
            let loadable = self.loadable.as_ref()?;
            if loadable.contains(&fold(&call.name)) {
                return None;
            }
        }
        self.routine(call, schema)
    }

    fn routine(&self, call: &Call, schema: Option<&[u8]>) -> Option<Name> {
        if let Some(schema) = &call.schema
            && self.packages.contains(&fold(schema))
        {
            return None;
        }
        let schema = call.schema.as_deref().or(schema)?;
        // Other letters are in the character set of whoever wrote it, and compared by rules that are the server's.
        let plain = schema.is_ascii() && call.name.is_ascii();
        plain.then(|| self.key(schema, &call.name))
    }
}

/// A function or view that is a read if all that it refers to is.
struct Node<'a> {
    of: Of<'a>,
    calls: Vec<Name>,
    /// It calls what cannot be looked up.
    calls_unknown: bool,
    /// Names of views in it, folded.
    views: Vec<Box<[u8]>>,
}

enum Of<'a> {
    Function(Name),
    View(&'a View),
}

impl<'a> Node<'a> {
    fn new(
        of: Of<'a>,
        (look, text): (&Look, &[u8]),
        schema: &[u8],
        lookup: &Lookup,
        views: &HashSet<Box<[u8]>>,
    ) -> Self {
        let calls = look.calls.iter();
        let calls: Vec<_> = calls
            .map(|call| lookup.function(call, Some(schema)))
            .collect();
        let names = look.names(text);
        Self {
            of,
            calls_unknown: look.odd || calls.contains(&None),
            calls: calls.into_iter().flatten().collect(),
            views: names.intersection(views).cloned().collect(),
        }
    }
}

impl Known {
    fn of(reading: &Reading) -> Self {
        let mut known = Self {
            lookup: Lookup::new(reading),
            ..Self::default()
        };
        let views: HashSet<_> = reading.views.iter().map(|view| fold(&view.name)).collect();
        known.all_views = Some(views.clone());
        let mut nodes = Vec::new();
        let mut procedures = Vec::new();
        for routine in &reading.routines {
            let (Some(body), Some(dialect)) = (&routine.body, dialect_of(routine, reading.dialect))
            else {
                continue;
            };
            let name = known.lookup.key(&routine.schema, &routine.name);
            match routine.kind {
                RoutineKind::Function { reads: true } => {
                    let Some(look) = body::reading_function(body, dialect) else {
                        continue;
                    };
                    known.functions.insert(name.clone(), None);
                    let text = (&look, &**body);
                    let of = Of::Function(name);
                    nodes.push(Node::new(of, text, &routine.schema, &known.lookup, &views));
                }
                RoutineKind::Procedure => {
                    let calls = body::procedure_without_definitions(body, dialect);
                    let calls = calls.and_then(|calls| {
                        let calls = calls.iter();
                        calls
                            .map(|call| known.lookup.routine(call, Some(&routine.schema)))
                            .collect::<Option<Vec<_>>>()
                    });
                    procedures.extend(calls.map(|calls| (name, calls)));
                }
                RoutineKind::Function { reads: false } | RoutineKind::Package => {}
            }
        }
        for view in &reading.views {
            let Some(definition) = &view.definition else {
                known.add(&view.name, Facts::MAY_WRITE);
                continue;
            };
            // It is printed, and read again, without what a sql_mode changes about quotes.
            let class = classify(definition, reading.dialect);
            let read = class.with_reading_functions().unwrap_or(class);
            if !read.is_replica_read() {
                let facts = class.facts.difference(Facts::UNKNOWN_FUNCTION);
                known.add(&view.name, facts);
            }
            let look = Look::at(definition, reading.dialect);
            let text = (&look, &**definition);
            let of = Of::View(view);
            nodes.push(Node::new(of, text, &view.schema, &known.lookup, &views));
        }
        known.spread(&nodes);
        known.keep_procedures(procedures);
        known
    }

    /// Notes what a view does besides; whether that is news.
    fn add(&mut self, view: &[u8], facts: Facts) -> bool {
        let mut news = false;
        let known = self.views.entry(fold(view)).or_insert_with(|| {
            news = true;
            Unplain { facts, until: None }
        });
        news |= !known.facts.contains(facts);
        known.facts |= facts;
        news
    }

    /// Takes away the functions, and adds the views, that refer to what does more than read.
    fn spread(&mut self, nodes: &[Node<'_>]) {
        const CALLS: Facts = Facts::UNKNOWN_FUNCTION.union(Facts::MAY_WRITE);
        for _ in 0..DEPTH {
            let mut changed = false;
            for node in nodes {
                let calls_more = node.calls_unknown
                    || !node
                        .calls
                        .iter()
                        .all(|name| self.functions.contains_key(name));
                let named = node.views.iter().filter_map(|name| self.views.get(name));
                let named = named.map(|view| view.facts).reduce(Facts::union);
                match &node.of {
                    Of::Function(name) if calls_more || named.is_some() => {
                        changed |= self.functions.remove(name).is_some();
                    }
                    Of::View(view) if calls_more || named.is_some() => {
                        let calls = if calls_more { CALLS } else { Facts::NONE };
                        let facts = named.unwrap_or(Facts::NONE) | calls;
                        changed |= self.add(&view.name, facts);
                    }
                    Of::Function(_) | Of::View(_) => {}
                }
            }
            if !changed {
                return;
            }
        }
        self.functions.clear();
        for node in nodes {
            let refers = !node.calls.is_empty() || !node.views.is_empty();
            if let Of::View(view) = node.of
                && refers
            {
                self.add(&view.name, CALLS);
            }
        }
    }

    /// Remembers the procedures that call only others of them.
    fn keep_procedures(&mut self, procedures: Vec<(Name, Vec<Name>)>) {
        let mut kept: HashMap<Name, Vec<Name>> = procedures.into_iter().collect();
        for _ in 0..DEPTH {
            let calls_other: Vec<Name> = kept
                .iter()
                .filter(|(_, calls)| !calls.iter().all(|name| kept.contains_key(name)))
                .map(|(name, _)| name.clone())
                .collect();
            if calls_other.is_empty() {
                self.procedures = kept.into_keys().collect();
                return;
            }
            for name in calls_other {
                kept.remove(&name);
            }
        }
    }
}

/// How a routine's body is read; `None` if in a way that is not known here.
fn dialect_of(routine: &Routine, server: Dialect) -> Option<Dialect> {
    let mut modes = routine.sql_mode.split(|&byte| byte == b',');
    let oracle = modes.any(|mode| mode.trim_ascii().eq_ignore_ascii_case(b"ORACLE"));
    let plain = !oracle && !Dialect::charset_is_ambiguous(&routine.charset);
    plain.then(|| server.with_sql_mode(&routine.sql_mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(7);

    fn function(name: &str, body: &str) -> Routine {
        Routine {
            kind: RoutineKind::Function { reads: true },
            schema: b"s".to_vec(),
            name: name.as_bytes().to_vec(),
            sql_mode: Vec::new(),
            charset: b"utf8mb4".to_vec(),
            body: Some(body.as_bytes().to_vec()),
        }
    }

    fn procedure(name: &str, body: &str) -> Routine {
        Routine {
            kind: RoutineKind::Procedure,
            ..function(name, body)
        }
    }

    fn view(name: &str, definition: &str) -> View {
        View {
            schema: b"s".to_vec(),
            name: name.as_bytes().to_vec(),
            definition: Some(definition.as_bytes().to_vec()),
        }
    }

    fn reading() -> Reading {
        Reading {
            dialect: Dialect::of(true, 101_114),
            routines: vec![
                function("looks", "RETURN (SELECT MAX(a) FROM t)"),
                function("Calls_Reads", "RETURN looks() + s.looks()"),
                function("writes", "BEGIN INSERT INTO t VALUES (1); RETURN 1; END"),
                function("calls_writes", "RETURN writes()"),
                function("calls_calls", "RETURN calls_writes()"),
                function("calls_missing", "RETURN missing()"),
                function("reads_view", "RETURN (SELECT MAX(a) FROM plain)"),
                function("reads_writing_view", "RETURN (SELECT MAX(a) FROM nested)"),
                function("loaded", "RETURN 1"),
                function("ours", "RETURN ours() + theirs()"),
                function("theirs", "RETURN ours()"),
                Routine {
                    kind: RoutineKind::Function { reads: false },
                    ..function("undeclared", "RETURN 1")
                },
                Routine {
                    sql_mode: b"ORACLE".to_vec(),
                    ..function("oracle", "RETURN 1")
                },
                Routine {
                    sql_mode: b"ANSI_QUOTES".to_vec(),
                    ..function("ansi", "RETURN (SELECT MAX(\"a\") FROM \"nested\")")
                },
                Routine {
                    body: None,
                    ..function("hidden", "")
                },
                Routine {
                    kind: RoutineKind::Package,
                    schema: b"s".to_vec(),
                    name: b"pack".to_vec(),
                    ..function("", "")
                },
                Routine {
                    schema: b"pack".to_vec(),
                    ..function("f", "RETURN 1")
                },
                procedure("inserts", "INSERT INTO t VALUES (1)"),
                procedure("calls_inserts", "BEGIN CALL inserts(); CALL s.inserts; END"),
                procedure("defines", "CREATE VIEW x AS SELECT 1"),
                procedure(
                    "calls_defines",
                    "BEGIN CALL calls_inserts(); CALL defines(); END",
                ),
            ],
            views: vec![
                view("plain", "select `s`.`t`.`a` AS `a` from `s`.`t`"),
                view("calls_read", "select `s`.`looks`() AS `a`"),
                view("calls_write", "select `s`.`writes`() AS `a`"),
                view(
                    "nested",
                    "select `calls_write`.`a` AS `a` from `s`.`calls_write`",
                ),
                view("deeper", "select 1 from `s`.`plain` join `s`.`nested`"),
                view("who", "select current_user() AS `u`"),
                view("Id", "select last_insert_id() AS `u`"),
                view("locks", "select `a` from `t` for update"),
                view("server", "select * from `performance_schema`.`threads`"),
                View {
                    definition: None,
                    ..view("hidden", "")
                },
            ],
            loadable: Some(vec![b"Loaded".to_vec()]),
            folds_names: false,
        }
    }

    fn catalogue(reading: &Reading) -> Catalogue {
        Catalogue::new(reading, &Catalogue::unread(), Instant::now(), SETTLE)
    }

    fn cause(catalogue: &Catalogue, sql: &str) -> Cause {
        judged(catalogue, sql, Instant::now()).cause
    }

    fn judged(catalogue: &Catalogue, sql: &str, now: Instant) -> StatementClass {
        let dialect = Dialect::of(true, 101_114);
        let class = classify(sql.as_bytes(), dialect);
        catalogue.judge(class, sql.as_bytes(), dialect, Some(b"s"), now)
    }

    #[test]
    fn functions_are_looked_up() {
        let catalogue = catalogue(&reading());
        for sql in [
            "SELECT looks()",
            "SELECT LOOKS(), s.`looks`() FROM t",
            "SELECT s . looks (1) FROM plain",
            "EXPLAIN SELECT looks()",
            "SELECT calls_reads()",
            "SELECT reads_view()",
            // None of the two can be called without an error.
            "SELECT ours()",
        ] {
            assert_eq!(cause(&catalogue, sql), Cause::None, "{sql}");
            let class = judged(&catalogue, sql, Instant::now());
            let left = Facts::UNKNOWN_FUNCTION.union(Facts::MAY_WRITE);
            assert!(!class.facts.intersects(left), "{sql}");
        }
        for sql in [
            "SELECT writes()",
            "SELECT looks(), writes()",
            "SELECT calls_writes()",
            "SELECT calls_calls()",
            "SELECT calls_missing()",
            "SELECT reads_writing_view()",
            "SELECT loaded()",
            "SELECT undeclared()",
            "SELECT oracle()",
            "SELECT ansi()",
            "SELECT hidden()",
            "SELECT missing()",
            "SELECT other.looks()",
            "SELECT S.looks()",
            "SELECT pack.f()",
            "SELECT a.s.looks()",
            "SELECT @a, looks()",
            "SELECT looks(); SELECT 1",
        ] {
            assert_ne!(cause(&catalogue, sql), Cause::None, "{sql}");
        }
        // By its schema it is not the loadable one.
        assert_eq!(cause(&catalogue, "SELECT s.loaded()"), Cause::None);
        let hidden = Reading {
            loadable: None,
            ..reading()
        };
        let catalogue = self::catalogue(&hidden);
        assert_ne!(cause(&catalogue, "SELECT looks()"), Cause::None);
        assert_eq!(cause(&catalogue, "SELECT s.looks()"), Cause::None);
    }

    #[test]
    fn no_schema_in_use_and_folded_schemas() {
        let dialect = Dialect::default();
        let sql = b"SELECT looks(), S.looks()";
        let class = classify(sql, dialect);
        let folded = Reading {
            folds_names: true,
            ..reading()
        };
        let catalogue = catalogue(&folded);
        let judge = |schema| {
            catalogue
                .judge(class, sql, dialect, schema, Instant::now())
                .cause
        };
        assert_eq!(judge(Some(b"S")), Cause::None);
        assert_eq!(judge(Some(b"other")), Cause::UnknownFunction);
        assert_eq!(judge(None), Cause::UnknownFunction);
    }

    #[test]
    fn views_do_what_their_definitions_do() {
        let catalogue = catalogue(&reading());
        for sql in [
            "SELECT * FROM plain",
            "SELECT * FROM s.calls_read",
            "SELECT 'nested' FROM t /* who */",
            "SELECT * FROM whose",
        ] {
            assert_eq!(cause(&catalogue, sql), Cause::None, "{sql}");
        }
        for (sql, facts) in [
            ("SELECT * FROM calls_write", Facts::UNKNOWN_FUNCTION),
            ("SELECT * FROM x.`NESTED`", Facts::UNKNOWN_FUNCTION),
            ("TABLE deeper", Facts::MAY_WRITE),
            ("SELECT looks() FROM deeper", Facts::UNKNOWN_FUNCTION),
            ("SELECT * FROM t JOIN who", Facts::CONNECTION),
            ("SELECT * FROM id", Facts::LAST_INSERT_ID),
            ("SELECT * FROM locks", Facts::LOCKING_READ),
            ("SELECT * FROM server", Facts::SERVER_STATE),
            ("SELECT * FROM hidden", Facts::MAY_WRITE),
            ("SELECT 1; SELECT * FROM hidden", Facts::MAY_WRITE),
        ] {
            let class = judged(&catalogue, sql, Instant::now());
            assert_eq!(class.cause, Cause::View, "{sql}");
            assert!(class.facts.contains(facts), "{sql}: {:?}", class.facts);
        }
        let class = judged(&catalogue, "SELECT * FROM who", Instant::now());
        assert!(!class.facts.contains(Facts::UNKNOWN_FUNCTION));
        assert_eq!(
            cause(&catalogue, "INSERT INTO deeper VALUES (1)"),
            Cause::Write
        );
    }

    #[test]
    fn what_is_surely_no_view_is_known() {
        assert!(!Catalogue::unread().is_no_view(b"t"));
        let now = Instant::now();
        let reading = Reading {
            views: vec![view("V1", "select 1")],
            ..Reading::default()
        };
        let read = Catalogue::new(&reading, &Catalogue::unread(), now, Duration::ZERO);
        for (name, expected) in [
            ("t", true),
            ("v1", false),
            ("V1", false),
            ("stra\u{df}e", false),
        ] {
            assert_eq!(read.is_no_view(name.as_bytes()), expected, "{name}");
        }
        assert!(!read.unreadable(now).is_no_view(b"t"));
    }

    #[test]
    fn foreign_names_may_be_those_of_views() {
        let sql = "SELECT * FROM `größe`";
        assert_eq!(cause(&catalogue(&reading()), sql), Cause::None);
        let mut foreign = reading();
        foreign.views.push(view("straße", "select current_user()"));
        assert_eq!(cause(&catalogue(&foreign), sql), Cause::View);
        let folds = Reading {
            folds_names: true,
            ..reading()
        };
        assert_eq!(cause(&catalogue(&folds), sql), Cause::View);
    }

    #[test]
    fn procedures_that_define_nothing_are_known() {
        let catalogue = catalogue(&reading());
        let defines = |sql: &str| {
            let class = judged(&catalogue, sql, Instant::now());
            class.facts.contains(Facts::DEFINITIONS)
        };
        for sql in [
            "CALL inserts()",
            "call `s`.Inserts",
            "CALL calls_inserts(1, (2));",
        ] {
            assert!(!defines(sql), "{sql}");
        }
        for sql in [
            "CALL defines()",
            "CALL calls_defines()",
            "CALL missing()",
            "CALL pack.p()",
        ] {
            assert!(defines(sql), "{sql}");
        }
    }

    #[test]
    fn changes_count_once_replicas_have_them() {
        let start = Instant::now();
        let first = Catalogue::new(&reading(), &Catalogue::unread(), start, SETTLE);
        let mut changed = reading();
        changed.routines.push(function("young", "RETURN 1"));
        changed.views.retain(|view| view.name != b"who");
        let later = start + Duration::from_secs(1);
        let second = Catalogue::new(&changed, &first, later, SETTLE);
        let third = Catalogue::new(&changed, &second, later + SETTLE / 2, SETTLE);
        for catalogue in [&second, &third, &third.confirmed(later + SETTLE)] {
            for sql in ["SELECT young()", "SELECT * FROM who"] {
                let before = later + SETTLE - Duration::from_millis(1);
                assert_ne!(judged(catalogue, sql, before).cause, Cause::None, "{sql}");
                let after = judged(catalogue, sql, later + SETTLE);
                assert_eq!(after.cause, Cause::None, "{sql}");
            }
            assert_eq!(
                judged(catalogue, "SELECT looks()", later).cause,
                Cause::None
            );
        }
        // What does more than read counts at once.
        let back = Catalogue::new(&reading(), &third, later + SETTLE, SETTLE);
        let now = later + SETTLE;
        assert_ne!(judged(&back, "SELECT young()", now).cause, Cause::None);
        assert_eq!(judged(&back, "SELECT * FROM who", now).cause, Cause::View);

        let lost = third.unreadable(now);
        assert_ne!(judged(&lost, "SELECT looks()", now).cause, Cause::None);
        assert_eq!(
            judged(&lost, "SELECT * FROM nested", now).cause,
            Cause::View
        );
    }

    #[test]
    fn long_chains_end() {
        let mut reading = reading();
        for depth in 0..200 {
            let body = format!("RETURN chain{}()", depth + 1);
            reading
                .routines
                .push(function(&format!("chain{depth}"), &body));
            let definition = format!("select * from `s`.`v{}`", depth + 1);
            reading.views.push(view(&format!("v{depth}"), &definition));
        }
        reading.views.push(view("v200", "select current_user()"));
        let catalogue = catalogue(&reading);
        assert_ne!(cause(&catalogue, "SELECT chain0()"), Cause::None);
        assert_eq!(cause(&catalogue, "SELECT * FROM v0"), Cause::View);
        assert_eq!(cause(&catalogue, "SELECT * FROM plain"), Cause::None);
    }
}
