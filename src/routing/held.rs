//! What a connection holds for its session, as far as that is certain.

use std::collections::{BTreeMap, BTreeSet};

use super::pin::PinReason;
use crate::sql::holding::{Holding, TableName};
use crate::sql::{Facts, Kind, StatementClass};

/// Temporary tables, locks and handlers that a session has on its connection: at least all that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    tables: BTreeSet<TableName>,
    /// How often each was asked for.
    locks: BTreeMap<Vec<u8>, u64>,
    handlers: BTreeSet<Vec<u8>>,
    locked: bool,
    /// There may be more.
    more: Facts,
}

/// More things than this are not told apart.
const LIMIT: usize = 256;

impl Held {
    /// A statement of this class ran that does this, as far as it is known; with names of tables in `schema` if they have none.
    pub fn note(
        &mut self,
        class: &StatementClass,
        holding: Option<Holding>,
        schema: Option<&[u8]>,
        failed: bool,
    ) {
        let Some(holding) = holding.filter(|_| !class.facts.contains(Facts::MULTI)) else {
            return self.note_unknown(class);
        };
        match holding {
            Holding::CreateTable(table) => match qualified(table, schema) {
                _ if failed => {}
                Some(table) => {
                    self.tables.insert(table);
                }
                None => self.more |= Facts::TEMPORARY_TABLE,
            },
            Holding::DropTables(tables) if !failed => {
                for table in tables {
                    if let Some(table) = qualified(table, schema) {
                        self.tables.remove(&table);
                    }
                }
            }
            // One that was not got counts as well: what is not held is not released either, and so it is never too few.
            Holding::Lock(name) => *self.locks.entry(name).or_default() += 1,
            Holding::Unlock(name) if !failed => {
                if let Some(times) = self.locks.get_mut(&name) {
                    *times = times.saturating_sub(1);
                }
                self.locks.retain(|_, times| *times > 0);
            }
            Holding::UnlockAll if !failed => {
                self.locks.clear();
                self.more = self.more.difference(Facts::NAMED_LOCK);
            }
            Holding::OpenHandler(name) if !failed => {
                self.handlers.insert(name);
            }
            Holding::CloseHandler(name) if !failed => {
                self.handlers.remove(&name);
            }
            Holding::LockTables => self.locked = true,
            Holding::UnlockTables if !failed => self.locked = false,
            _ => {}
        }
        for (fact, len) in [
            (Facts::TEMPORARY_TABLE, self.tables.len()),
            (Facts::NAMED_LOCK, self.locks.len()),
            (Facts::HANDLER, self.handlers.len()),
        ] {
            if len > LIMIT {
                self.more |= fact;
            }
        }
    }

    fn note_unknown(&mut self, class: &StatementClass) {
        for fact in [
            Facts::TEMPORARY_TABLE,
            Facts::NAMED_LOCK,
            Facts::HANDLER,
            Facts::LOCK_TABLES,
        ] {
            if class.facts.contains(fact) {
                self.more |= fact;
            }
        }
        // It may give a temporary table another name.
        if matches!(class.kind, Kind::Ddl | Kind::Multi) && !self.tables.is_empty() {
            self.more |= Facts::TEMPORARY_TABLE;
        }
    }

    /// Whether what this reason stands for is certainly over.
    pub fn is_over(&self, reason: PinReason) -> bool {
        let (fact, is_empty) = match reason {
            PinReason::TemporaryTable => (Facts::TEMPORARY_TABLE, self.tables.is_empty()),
            PinReason::NamedLock => (Facts::NAMED_LOCK, self.locks.is_empty()),
            PinReason::Handler => (Facts::HANDLER, self.handlers.is_empty()),
            PinReason::LockTables => (Facts::LOCK_TABLES, !self.locked),
            _ => return false,
        };
        is_empty && !self.more.contains(fact)
    }
}

fn qualified(table: TableName, schema: Option<&[u8]>) -> Option<TableName> {
    let schema = table.schema.or_else(|| schema.map(<[u8]>::to_vec))?;
    Some(TableName {
        schema: Some(schema),
        ..table
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Dialect, classify, holding::holding};

    /// After these statements, of which those with a `!` fail.
    fn after(statements: &[&str]) -> Held {
        let mut held = Held::default();
        for sql in statements {
            let (sql, failed) = match sql.strip_prefix('!') {
                Some(sql) => (sql, true),
                None => (*sql, false),
            };
            let class = classify(sql.as_bytes(), Dialect::default());
            let holding = holding(sql.as_bytes(), Dialect::default());
            held.note(&class, holding, Some(b"s"), failed);
        }
        held
    }

    #[test]
    fn what_is_all_gone_is_over() {
        for (reason, statements) in [
            (
                PinReason::TemporaryTable,
                &[
                    "CREATE TEMPORARY TABLE a (n INT)",
                    "INSERT INTO a VALUES (1)",
                    "DROP TEMPORARY TABLE IF EXISTS s.a, b",
                ][..],
            ),
            (
                PinReason::TemporaryTable,
                &["!CREATE TEMPORARY TABLE a (n INT)"],
            ),
            (
                PinReason::NamedLock,
                &["SELECT GET_LOCK('a', 1)", "SELECT RELEASE_LOCK('a')"],
            ),
            (
                PinReason::NamedLock,
                &[
                    "SELECT GET_LOCK('a', 1)",
                    "SELECT GET_LOCK(@b, 1)",
                    "SELECT RELEASE_ALL_LOCKS()",
                ],
            ),
            (PinReason::NamedLock, &["SELECT IS_FREE_LOCK('a')"]),
            (
                PinReason::Handler,
                &[
                    "HANDLER t OPEN AS h",
                    "HANDLER h READ FIRST",
                    "HANDLER h CLOSE",
                ],
            ),
            (
                PinReason::LockTables,
                &["LOCK TABLES t READ", "UNLOCK TABLES"],
            ),
            (
                PinReason::LockTables,
                &["FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES"],
            ),
        ] {
            assert!(after(statements).is_over(reason), "{statements:?}");
        }
    }

    #[test]
    fn what_may_be_there_is_not() {
        for (reason, statements) in [
            (
                PinReason::TemporaryTable,
                &["CREATE TEMPORARY TABLE a (n INT)"][..],
            ),
            (
                PinReason::TemporaryTable,
                &[
                    "CREATE TEMPORARY TABLE a (n INT)",
                    "DROP TEMPORARY TABLE other.a",
                ],
            ),
            (
                PinReason::TemporaryTable,
                &[
                    "CREATE TEMPORARY TABLE a (n INT)",
                    "!DROP TEMPORARY TABLE a, b",
                ],
            ),
            (
                PinReason::TemporaryTable,
                &[
                    "CREATE TEMPORARY TABLE a (n INT)",
                    "ALTER TABLE a RENAME b",
                    "DROP TEMPORARY TABLE IF EXISTS a",
                ],
            ),
            (PinReason::TemporaryTable, &["CREATE TEMPORARY SEQUENCE a"]),
            (
                PinReason::NamedLock,
                &[
                    "SELECT GET_LOCK('a', 1)",
                    "SELECT GET_LOCK('a', 1)",
                    "SELECT RELEASE_LOCK('a')",
                ],
            ),
            (
                PinReason::NamedLock,
                &["SELECT GET_LOCK('a', 1)", "SELECT RELEASE_LOCK('b')"],
            ),
            (
                PinReason::NamedLock,
                &["SELECT GET_LOCK(?, 1)", "SELECT RELEASE_LOCK('a')"],
            ),
            (PinReason::NamedLock, &["!SELECT GET_LOCK('a', 1)"]),
            (
                PinReason::Handler,
                &["HANDLER t OPEN", "HANDLER t OPEN AS h", "HANDLER h CLOSE"],
            ),
            (
                PinReason::LockTables,
                &["LOCK TABLES t READ", "!UNLOCK TABLES"],
            ),
            (
                PinReason::LockTables,
                &["LOCK INSTANCE FOR BACKUP", "UNLOCK TABLES"],
            ),
            (PinReason::UserVariable, &["SELECT @a := 1"]),
        ] {
            assert!(!after(statements).is_over(reason), "{statements:?}");
        }
    }
}
