//! What rules say of a statement of which only the beginning is known.

use std::sync::Arc;

use tokio::time::Instant;

use super::Ruling;
use crate::{
    routing::rules::{kind_of, matches},
    session::Session,
    sql::{self, Cause, Dialect, Kind, StatementClass, Tables},
};

/// How much of a statement's text there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Known {
    Whole,
    Start,
}

impl Session {
    /// What the rules say of a statement that begins like this, whatever its rest may be: a rule that may match is one that
    /// does, but only one that surely does keeps those behind it from being asked.
    pub(super) fn judge_start(&self, text: &[u8], class: &StatementClass) -> Option<Ruling> {
        let find_tables = || Arc::new(Tables::default());
        let readings = readings(text, class, self.dialect, self.wanted.multi_statements());
        let statements: Vec<_> = readings
            .iter()
            .filter(|class| kind_of(class).is_some())
            .map(|class| self.to_match(text, class, &find_tables))
            .collect();
        let mut matched = Vec::new();
        for number in &self.rules.mine {
            let Some(entry) = self.rules.current.rules.get(usize::from(*number)) else {
                continue;
            };
            let when = &entry.rule.when;
            let fits = statements
                .iter()
                .filter(|statement| matches(when, statement))
                .count();
            if fits > 0 && entry.draws() {
                matched.push(Arc::clone(entry));
                // The rest could be such that the pattern does not match any more.
                let surely = fits == readings.len() && when.pattern.is_none();
                if surely && !entry.rule.go_on {
                    break;
                }
            }
        }
        Ruling::new(matched, Instant::now())
    }
}

/// What a statement can be that begins with one of this class.
fn readings(
    text: &[u8],
    class: &StatementClass,
    dialect: Dialect,
    multi_statements: bool,
) -> Vec<StatementClass> {
    let mut seen = *class;
    // The digest is of what was seen only, and so no rule's.
    seen.digest = 0;
    let mut readings = vec![seen];
    match seen.kind {
        Kind::Read if matches!(seen.cause, Cause::None | Cause::Unterminated) => {
            let cause = Cause::Large;
            readings.push(StatementClass { cause, ..seen });
            if let Some(seen) = readings.first_mut() {
                seen.cause = Cause::None;
            }
        }
        // BEGIN NOT ATOMIC
        Kind::Begin { .. } => readings.push(StatementClass {
            kind: Kind::Unknown,
            ..seen
        }),
        _ => {}
    }
    if seen.kind == Kind::Read && sql::begins_with_expressions(text, dialect) {
        let kind = Kind::Write;
        readings.push(StatementClass { kind, ..seen });
    }
    if multi_statements && seen.kind != Kind::Multi {
        let kind = Kind::Multi;
        readings.push(StatementClass { kind, ..seen });
    }
    readings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::rule::RuleKind, sql::classify};

    #[test]
    fn what_was_not_seen_can_be_more() {
        use RuleKind::{Multi, PrimaryRead, Read, Transaction, Unknown, Write};
        for (start, multi, expected) in [
            ("SELECT 'xxx", false, &[Some(Read), Some(PrimaryRead)][..]),
            ("SELECT a, b", false, &[Some(Read), Some(PrimaryRead)]),
            (
                "SELECT a, b",
                true,
                &[Some(Read), Some(PrimaryRead), Some(Multi)],
            ),
            ("SELECT @a, b", false, &[Some(PrimaryRead)]),
            ("INSERT INTO t VALUES ('x", false, &[Some(Write)]),
            (
                "INSERT INTO t VALUES ('x",
                true,
                &[Some(Write), Some(Multi)],
            ),
            ("BEGIN ", false, &[Some(Transaction), Some(Unknown)]),
            ("COMMIT ", true, &[None, Some(Multi)]),
            ("COMMIT ", false, &[None]),
            (
                "WITH a AS (SELECT 'x",
                false,
                &[Some(Read), Some(PrimaryRead), Some(Write)],
            ),
            ("/* x", false, &[Some(Unknown)]),
        ] {
            let (text, dialect) = (start.as_bytes(), Dialect::default());
            let class = classify(text, dialect);
            let readings = readings(text, &class, dialect, multi);
            let found: Vec<_> = readings.iter().map(kind_of).collect();
            assert_eq!(found, expected, "{start}");
        }
    }
}
