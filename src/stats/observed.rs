//! Where statements would have gone, and whether replicas would have answered them right.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What the file says it is.
const FORMAT: &str = "dbproxy observations";

/// The version of its format.
const VERSION: u32 = 1;

/// Statements, by their digest, that were observed; those beyond [`Observations::LIMIT`] are only counted.
///
/// Nothing in it has a value that an application used or stored: texts are without literals, and examples of a difference
/// are counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observations {
    /// When the first statement was observed, in seconds of Unix time; 0 before that.
    pub since: u64,
    /// When the last one was.
    pub until: u64,
    /// By digest, as 16 hexadecimal digits.
    pub statements: BTreeMap<String, Statement>,
    /// Statements for which there was no room.
    pub beyond: BTreeMap<Destination, u64>,
}

/// The statements of one digest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Their text without literals; empty if nobody can be sure what in it is a literal.
    pub text: String,
    /// When the first one was seen, in seconds of Unix time.
    pub first: u64,
    /// When the last one was.
    pub last: u64,
    /// How many would have gone where, by reason.
    pub routes: BTreeMap<Destination, BTreeMap<String, u64>>,
    /// What came of running some on a replica as well.
    #[serde(default, skip_serializing_if = "Comparisons::is_empty")]
    pub compared: Comparisons,
}

/// Where a statement would have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// To a replica.
    Replica,
    /// To the primary.
    Primary,
    /// To the connection that its session held.
    Connection,
}

/// What came of comparisons. Each counts once, but for those that are `reordered`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Comparisons {
    /// The answers had the same rows.
    pub equal: u64,
    /// Of those, in another order.
    pub reordered: u64,
    /// They differed at first, and not any more once the replica had all that the primary had.
    pub later: u64,
    /// They differed though the replica had everything and nothing changed meanwhile.
    pub different: u64,
    /// The replica answered with an error, the primary did not.
    pub failed: u64,
    /// Nothing can be said, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown: BTreeMap<String, u64>,
    /// The last difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// The last error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failed>,
}

/// How two answers differed. No data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The replica.
    pub server: String,
    /// When, in seconds of Unix time.
    pub at: u64,
    /// Rows that the primary gave.
    pub primary_rows: u64,
    /// Rows that the replica gave.
    pub replica_rows: u64,
    /// The columns had other names, or were others.
    pub columns: bool,
}

/// An error that only a replica gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The replica.
    pub server: String,
    /// When, in seconds of Unix time.
    pub at: u64,
    /// The error's number.
    pub code: u16,
    /// Its text; empty if that might quote what the statement has or reads.
    pub message: String,
}

/// What came of one comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The same rows.
    Equal {
        /// In another order.
        reordered: bool,
    },
    /// The same rows at a second look.
    Later,
    /// Other rows.
    Different(Difference),
    /// An error from the replica.
    Failed(Failed),
    /// None, for this reason.
    Unknown(&'static str),
}

impl Comparisons {
    /// Counts one more.
    pub fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Equal { reordered } => {
                self.equal += 1;
                self.reordered += u64::from(reordered);
            }
            Verdict::Later => self.later += 1,
            Verdict::Different(difference) => {
                self.different += 1;
                self.difference = Some(difference);
            }
            Verdict::Failed(failure) => {
                self.failed += 1;
                self.failure = Some(failure);
            }
            Verdict::Unknown(reason) => *self.unknown.entry(reason.to_owned()).or_default() += 1,
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.equal + self.later + self.different + self.failed + self.unknown()
    }

    /// Of how many nothing can be said.
    pub fn unknown(&self) -> u64 {
        self.unknown.values().sum()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Counts those of `newer` as well, whose examples are the last.
    pub fn merge(&mut self, newer: Self) {
        self.equal += newer.equal;
        self.reordered += newer.reordered;
        self.later += newer.later;
        self.different += newer.different;
        self.failed += newer.failed;
        for (reason, count) in newer.unknown {
            *self.unknown.entry(reason).or_default() += count;
        }
        self.difference = newer.difference.or_else(|| self.difference.take());
        self.failure = newer.failure.or_else(|| self.failure.take());
    }
}

impl Statement {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.routes.values().flat_map(BTreeMap::values).sum()
    }

    /// How many would have gone there.
    pub fn count_to(&self, destination: Destination) -> u64 {
        let routes = self.routes.get(&destination);
        routes.map_or(0, |reasons| reasons.values().sum())
    }

    fn merge(&mut self, newer: Self) {
        self.first = self.first.min(newer.first);
        self.last = self.last.max(newer.last);
        for (destination, reasons) in newer.routes {
            let known = self.routes.entry(destination).or_default();
            for (reason, count) in reasons {
                *known.entry(reason).or_default() += count;
            }
        }
        self.compared.merge(newer.compared);
    }
}

impl Observations {
    /// Most digests that are told apart.
    pub const LIMIT: usize = 5_000;

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty() && self.beyond.is_empty()
    }

    /// Counts those of `newer` as well.
    pub fn merge(&mut self, newer: Self) {
        if newer.is_empty() {
            return;
        }
        self.since = if self.is_empty() {
            newer.since
        } else {
            self.since.min(newer.since)
        };
        self.until = self.until.max(newer.until);
        for (digest, statement) in newer.statements {
            let room = self.statements.len() < Self::LIMIT;
            match self.statements.get_mut(&digest) {
                Some(known) => known.merge(statement),
                None if room => {
                    self.statements.insert(digest, statement);
                }
                None => {
                    for destination in statement.routes.keys() {
                        *self.beyond.entry(*destination).or_default() +=
                            statement.count_to(*destination);
                    }
                }
            }
        }
        for (destination, count) in newer.beyond {
            *self.beyond.entry(destination).or_default() += count;
        }
    }

    /// The text of the file.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Whole<'a> {
            format: &'static str,
            version: u32,
            #[serde(flatten)]
            observations: &'a Observations,
        }
        let mut text = serde_json::to_vec_pretty(&Whole {
            format: FORMAT,
            version: VERSION,
            observations: self,
        })?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What it is instead.
    pub fn from_json(text: &[u8]) -> Result<Self, Unusable> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        match serde_json::from_slice::<Head>(text) {
            Ok(head) if head.format == FORMAT && head.version > VERSION => {
                Err(Unusable::Newer(head.version))
            }
            Ok(head) if head.format == FORMAT => {
                serde_json::from_slice(text).map_err(|error| Unusable::Damaged(error.to_string()))
            }
            Ok(_) | Err(_) => Err(Unusable::Foreign),
        }
    }
}

/// Why a file is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// It is something else.
    Foreign,
    /// A later dbproxy wrote it, in a format of this version.
    Newer(u32),
    /// It is not whole, for this reason.
    Damaged(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("is not a record of dbproxy's observations"),
            Self::Newer(version) => write!(
                f,
                "was written by a newer dbproxy (format {version}; this one reads up to {VERSION})"
            ),
            Self::Damaged(error) => write!(f, "is damaged: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn one(digest: usize, destination: Destination, reason: &str, at: u64) -> Observations {
        let statement = Statement {
            text: format!("SELECT {digest}"),
            first: at,
            last: at,
            routes: BTreeMap::from([(destination, BTreeMap::from([(reason.to_owned(), 1)]))]),
            compared: Comparisons::default(),
        };
        Observations {
            since: at,
            until: at,
            statements: BTreeMap::from([(format!("{digest:016x}"), statement)]),
            ..Observations::default()
        }
    }

    #[test]
    fn merging_adds_up() {
        let mut all = Observations::default();
        assert!(all.is_empty());
        all.merge(one(1, Destination::Primary, "write", 20));
        all.merge(one(1, Destination::Replica, "read", 10));
        all.merge(one(1, Destination::Replica, "read", 30));
        all.merge(one(2, Destination::Replica, "read", 15));
        assert_eq!((all.since, all.until, all.statements.len()), (10, 30, 2));
        let statement = &all.statements["0000000000000001"];
        assert_eq!((statement.first, statement.last), (10, 30));
        assert_eq!(statement.count(), 3);
        assert_eq!(statement.count_to(Destination::Replica), 2);
        assert_eq!(statement.count_to(Destination::Connection), 0);
    }

    #[test]
    fn comparisons_add_up_and_the_last_example_stays() {
        let example = |at| Difference {
            server: "db2".to_owned(),
            at,
            primary_rows: 1,
            replica_rows: 0,
            columns: false,
        };
        let mut all = Comparisons::default();
        all.add(Verdict::Equal { reordered: true });
        all.add(Verdict::Different(example(1)));
        let mut newer = Comparisons::default();
        newer.add(Verdict::Different(example(2)));
        newer.add(Verdict::Unknown("too large"));
        newer.add(Verdict::Later);
        all.merge(newer);
        all.merge(Comparisons::default());
        assert_eq!((all.count(), all.equal, all.reordered), (5, 1, 1));
        assert_eq!((all.different, all.unknown(), all.later), (2, 1, 1));
        assert_eq!(all.difference, Some(example(2)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut all = Observations::default();
        for digest in 0..Observations::LIMIT + 7 {
            all.merge(one(digest, Destination::Replica, "read", 1));
        }
        all.merge(one(3, Destination::Replica, "read", 1));
        assert_eq!(all.statements.len(), Observations::LIMIT);
        assert_eq!(all.beyond[&Destination::Replica], 7);
    }

    #[test]
    fn a_file_is_read_as_it_was_written_or_refused() {
        let mut all = one(1, Destination::Connection, "in a transaction", 5);
        all.beyond.insert(Destination::Primary, 9);
        let text = all.to_json().unwrap();
        assert_eq!(Observations::from_json(&text), Ok(all));
        let text = String::from_utf8(text).unwrap();
        let newer = text.replace("\"version\": 1", "\"version\": 2");
        for (text, expected) in [
            (newer.as_str(), Unusable::Newer(2)),
            ("{}", Unusable::Foreign),
            ("", Unusable::Foreign),
            ("{\"format\": \"other\", \"version\": 1}", Unusable::Foreign),
        ] {
            assert_eq!(Observations::from_json(text.as_bytes()), Err(expected));
        }
        let damaged = text.replace("\"since\"", "\"begin\"");
        assert!(matches!(
            Observations::from_json(damaged.as_bytes()),
            Err(Unusable::Damaged(_))
        ));
    }
}
