//! What is worked out once per digest.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::class::StatementClass;
use super::dialect::Dialect;
use super::facts::Facts;
use super::parse::{Tables, tables};

/// Remembers the tables of statements by digest, in bounded memory.
///
/// Not for the path of every statement: [`super::classify`] alone is faster than a look here. The
/// class itself is never remembered, since literals, which a digest has not, are part of it.
#[derive(Debug)]
pub struct Classifier {
    tables: Cache<(u64, u64, bool), Arc<Tables>>,
}

impl Classifier {
    /// Remembers at most about this many digests.
    pub fn new(digests: usize) -> Self {
        Self {
            tables: Cache::new(digests),
        }
    }

    /// The tables that a statement of this class names.
    pub fn tables(&self, sql: &[u8], class: &StatementClass, dialect: Dialect) -> Arc<Tables> {
        // Its digest is that of a text in which the code stands outside, and which can be read better.
        if class.facts.contains(Facts::CODE_IN_COMMENT) {
            return Arc::new(tables(sql, dialect));
        }
        let key = (class.digest, class.spelling, dialect.ansi_quotes);
        if let Some(known) = self.tables.get(&key) {
            return known;
        }
        let found = Arc::new(tables(sql, dialect));
        self.tables.insert(key, Arc::clone(&found));
        found
    }

    /// How many digests are remembered now.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::classify;

    #[test]
    fn code_in_comments_is_told_from_code() {
        let classifier = Classifier::new(16);
        let dialect = Dialect::default();
        for (sql, parsed) in [
            ("SELECT a FROM t JOIN b", true),
            ("SELECT a FROM t /*! JOIN b */", false),
            ("SELECT a FROM u /*! JOIN b */", false),
            ("SELECT a FROM u JOIN b", true),
        ] {
            let class = classify(sql.as_bytes(), dialect);
            let found = classifier.tables(sql.as_bytes(), &class, dialect);
            assert_eq!((found.read.len(), found.parsed), (2, parsed), "{sql}");
        }
    }

    #[test]
    fn names_that_are_keywords_are_told_apart() {
        let classifier = Classifier::new(16);
        let dialect = Dialect::default();
        let read = |sql: &str| {
            let class = classify(sql.as_bytes(), dialect);
            let found = classifier.tables(sql.as_bytes(), &class, dialect);
            (class.digest, found.read.clone())
        };
        let (digest, lower) = read("SELECT a FROM status");
        let (same, upper) = read("SELECT a FROM STATUS");
        assert_eq!(digest, same);
        assert_ne!(lower, upper);
        assert_eq!(read("SELECT a FROM status"), (digest, lower));
    }

    #[test]
    fn equal_digests_share_one_answer_and_memory_is_bounded() {
        let classifier = Classifier::new(16);
        let dialect = Dialect::default();
        let look = |sql: &str| {
            let class = classify(sql.as_bytes(), dialect);
            classifier.tables(sql.as_bytes(), &class, dialect)
        };
        let first = look("SELECT a FROM t WHERE id = 1");
        assert!(
            Arc::ptr_eq(&first, &look("select a from t where id = 2"))
                || first == look("SELECT a FROM t WHERE id = 2")
        );
        for table in 0..1_000 {
            look(&format!("SELECT a FROM t{table}"));
        }
        assert!(classifier.len() <= 16 && !classifier.is_empty());
    }
}
