//! Rules: what is to be done with statements that the defaults do not suit.

mod glob;
pub(super) mod keys;
pub(super) mod kinds;
mod read;
mod time;
mod words;

use std::fmt;
use std::time::Duration;

use regex::bytes::Regex;

use super::Consistency;
use super::ListenAddress;
use super::Network;
pub use glob::Glob;
pub(super) use read::rules;
pub use time::TimeOfDay;

/// One rule: conditions, all of which must hold, and what follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name in logs, answers and counters; unique.
    pub name: String,
    /// When it matches.
    pub when: Conditions,
    /// What follows; never nothing.
    pub then: Actions,
    /// The rules behind it are looked at too.
    pub go_on: bool,
}

/// When a rule matches: of each list that is not empty, one entry has to fit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conditions {
    /// The user's name.
    pub account: Vec<Glob>,
    /// Where the client is. Clients at unix sockets are nowhere.
    pub client: Vec<Network>,
    /// Where it connected.
    pub listener: Vec<ListenAddress>,
    /// What the client calls itself.
    pub application: Vec<Glob>,
    /// The schema in use.
    pub schema: Vec<Glob>,
    /// A table that the statement names, as `schema.table`.
    pub table: Vec<Glob>,
    /// What kind of statement it is.
    pub kind: Vec<RuleKind>,
    /// The word behind `tag=` in the statement's hint.
    pub tag: Vec<String>,
    /// The statement's digest.
    pub digest: Vec<u64>,
    /// What the statement's text looks like.
    pub pattern: Option<Pattern>,
    /// When it is.
    pub time: Vec<TimeOfDay>,
    /// The share of what would match that does, in parts of a million.
    pub sample: Option<u32>,
}

/// What a rule does with a statement.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Actions {
    /// Where reads go.
    pub route: Option<RouteTo>,
    /// The cluster that gets a copy.
    pub mirror: Option<String>,
    /// What they must have seen.
    pub consistency: Option<Consistency>,
    /// How far behind the replica may be.
    pub max_lag: Option<Duration>,
    /// How long the statement may run; then it is ended on the server.
    pub timeout: Option<Duration>,
    /// What is run in its place: see the key `rule[].rewrite`.
    pub rewrite: Option<String>,
    /// What the client gets in place of the server's answer.
    pub answer: Option<FixedAnswer>,
    /// How much of it there may be.
    pub limit: Limit,
    /// How long its answer is given again.
    pub cache: Option<Duration>,
    /// Its place among those that wait for a connection.
    pub priority: Option<Priority>,
    /// What becomes of statements that were not learned.
    pub firewall: Option<Firewall>,
    /// It is told to the log.
    pub log: bool,
}

impl Actions {
    /// What rules that match say together, but for limits and firewalls, which are each rule's own: of each action, what the first
    /// that has it says.
    pub fn of<'r>(rules: impl Iterator<Item = &'r Self>) -> Self {
        let mut actions = Self::default();
        for then in rules {
            actions.route = actions.route.or_else(|| then.route.clone());
            actions.mirror = actions.mirror.or_else(|| then.mirror.clone());
            actions.consistency = actions.consistency.or(then.consistency);
            actions.max_lag = actions.max_lag.or(then.max_lag);
            actions.timeout = actions.timeout.or(then.timeout);
            actions.rewrite = actions.rewrite.or_else(|| then.rewrite.clone());
            actions.answer = actions.answer.or_else(|| then.answer.clone());
            actions.cache = actions.cache.or(then.cache);
            actions.priority = actions.priority.or(then.priority);
            actions.log |= then.log;
        }
        actions
    }
}

/// Who goes first where statements wait for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Behind the others.
    Low,
    /// In the order in which they came.
    #[default]
    Normal,
    /// In front of the others.
    High,
}

/// What becomes of statements that were not learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Firewall {
    /// They are learned.
    Learn,
    /// The log is told.
    Detect,
    /// They are refused.
    Enforce,
}

/// Where a rule sends reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RouteTo {
    /// The primary.
    Primary,
    /// A replica, whatever a hint says.
    Replica,
    /// The server of this name.
    Server(String),
    /// A server of this group.
    Group(String),
    /// Another cluster; there writes go too.
    Cluster(String),
}

/// An answer that no server gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FixedAnswer {
    /// It is done.
    Ok,
    /// Columns by name, and rows of them; none is longer or shorter.
    Rows {
        /// At least one.
        columns: Vec<String>,
        /// `None` is NULL.
        rows: Vec<Vec<Option<String>>>,
    },
    /// It is refused.
    Error {
        /// 1 to 65535.
        code: u16,
        /// Five letters and digits.
        state: [u8; 5],
        /// In words.
        message: String,
    },
}

/// How much there may be of what a rule matches; no figure is zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Limit {
    /// Statements that begin in a second.
    pub per_second: Option<u32>,
    /// Statements that run at a time.
    pub concurrency: Option<u32>,
    /// Rows in an answer.
    pub rows: Option<u64>,
    /// Bytes in an answer.
    pub bytes: Option<u64>,
    /// Who has that much.
    pub per: LimitPer,
}

/// Whose statements are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LimitPer {
    /// All that the rule matches.
    #[default]
    Rule,
    /// Each account for itself.
    Account,
    /// Each client address for itself.
    Client,
}

/// The kinds of statement that rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// A read that a replica may answer.
    Read,
    /// Any other SELECT, TABLE or VALUES: one that locks, or whose answer depends on the connection.
    PrimaryRead,
    /// INSERT, UPDATE, DELETE, REPLACE, LOAD DATA.
    Write,
    /// CREATE, ALTER, DROP, GRANT and the like.
    Definition,
    /// SHOW, DESCRIBE, EXPLAIN.
    Show,
    /// CALL, DO, and programs.
    Call,
    /// SET and USE.
    Set,
    /// BEGIN, START TRANSACTION.
    Transaction,
    /// LOCK TABLES, HANDLER.
    Lock,
    /// FLUSH, OPTIMIZE, KILL, replication and the like.
    Administration,
    /// Several statements in one packet.
    Multi,
    /// What is not understood.
    Unknown,
}

/// As in the file.
impl fmt::Display for RuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = keys::KINDS.iter().find(|(_, kind)| kind == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// A regular expression over the bytes of a statement.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// The expression itself.
    pub fn regex(&self) -> &Regex {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        /// What it may take, in bytes, once it is compiled.
        const SIZE: usize = 1 << 20;
        let built = regex::bytes::RegexBuilder::new(text)
            .size_limit(SIZE)
            .dfa_size_limit(SIZE)
            .build();
        built.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "is too big a regular expression".to_owned(),
            // The parser draws a picture of several lines, of which the last says what is wrong.
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                format!(
                    "not a regular expression: {}",
                    last.trim_start_matches("error: ")
                )
            }
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0.as_str(), f)
    }
}
