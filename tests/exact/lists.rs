//! Sequences and statements that are known by name.

use dbproxy::cli::demo::cluster::Flavor;

use crate::support::raw::Raw;
use crate::talk::Step;

/// What went wrong once.
pub(crate) const PAST: &[(&str, &[&str])] = &[
    (
        "the checks of foreign keys are the session's own",
        &[
            "INSERT INTO child VALUES (1, 1)",
            "SELECT @@foreign_key_checks, @@unique_checks",
            "INSERT INTO child VALUES (1, 1)",
            "SET foreign_key_checks = 0",
            "INSERT INTO child VALUES (2, 2)",
            "SET foreign_key_checks = DEFAULT",
            "INSERT INTO child VALUES (3, 3)",
            "SELECT @@foreign_key_checks, @@unique_checks",
        ],
    ),
    (
        "a statement that fails may leave a transaction open",
        &[
            "SET SESSION autocommit = OFF",
            "INSERT INTO t (a, b) VALUES ('x5', 'two')",
            "SET @mine = 1 + 1",
            "ROLLBACK",
        ],
    ),
    (
        "characteristics of transactions without a scope are the session's",
        &[
            "SET transaction_read_only = 1",
            "SET tx_read_only = 1",
            "INSERT INTO t (a) VALUES (1)",
            "INSERT INTO t (a) VALUES (2)",
            "SELECT 1",
            "INSERT INTO t (a) VALUES (3)",
        ],
    ),
    (
        "a value that was adapted is accepted in every mode",
        &[
            "SET sql_mode = ''",
            "SET div_precision_increment = 99999",
            "SET sql_mode = DEFAULT",
            "SELECT 1 / 7, @@div_precision_increment, @@sql_mode",
            "INSERT INTO t (a, b) VALUES ('x5', 'two')",
            "SELECT LAST_INSERT_ID(), @@sql_mode",
        ],
    ),
    (
        "user variables are what they were",
        &[
            "SET @a = 5, @b = 'text', @c = NULL",
            "SELECT @a, @b, @c, CHARSET(@b), COERCIBILITY(@b)",
            "SET @a = NULL",
            "SELECT @a, @never_set",
            "INSERT INTO fires (a) VALUES (3)",
            "SELECT @a",
        ],
    ),
    (
        "a savepoint in front of a transaction is in it",
        &[
            "SET autocommit = 0",
            "SAVEPOINT one",
            "INSERT INTO t (a) VALUES (1)",
            "ROLLBACK TO one",
            "SELECT COUNT(*) FROM t",
            "COMMIT",
        ],
    ),
    (
        "what is set in front of a transaction outlasts it",
        &[
            "SET TRANSACTION READ ONLY",
            "SET @mine = 7",
            "BEGIN",
            "COMMIT",
            "SELECT @mine",
        ],
    ),
    (
        "the last id stays where a SET ties the session to a connection",
        &[
            "INSERT INTO t (a) VALUES (1), (2)",
            "SET rand_seed1 = 5",
            "SELECT LAST_INSERT_ID()",
        ],
    ),
    (
        "a comparison with NULL finds no rows of others",
        &[
            "INSERT INTO t (a) VALUES (1), (2)",
            "SET sql_auto_is_null = 1",
            "SELECT id FROM t WHERE id IS NULL",
            "INSERT INTO t (a) VALUES (3)",
            "SELECT id FROM t WHERE id IS NULL",
        ],
    ),
    (
        "the largest join changes what selects may be",
        &[
            "SET sql_big_selects = 1",
            "SET max_join_size = 2",
            "SELECT @@sql_big_selects, @@max_join_size",
            "SELECT COUNT(*) FROM xq_shared.words a, xq_shared.words b",
            "SET sql_big_selects = 1",
            "SELECT COUNT(*) FROM xq_shared.words a, xq_shared.words b",
        ],
    ),
];

/// A SET statement, and what is asked behind it with the answers that are expected.
pub(crate) struct Setting {
    sql: String,
    /// In the session of the statement before, not in a new one.
    goes_on: bool,
    asked: Vec<(String, Option<String>)>,
}

/// The list. A line without blanks in front is a statement, `+` a further one of the same session; the others have
/// expressions with their values, for one flavor where the other says something else.
pub(crate) fn settings(flavor: Flavor) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    for line in include_str!("../data/set_statements.txt").lines() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let Some(asked) = line.strip_prefix("  ") else {
            settings.push(Setting {
                sql: line.trim_start_matches('+').to_owned(),
                goes_on: line.starts_with('+'),
                asked: Vec::new(),
            });
            continue;
        };
        let (flavors, asked) = match asked.split_once(": ") {
            Some(("mariadb", asked)) => (Some(Flavor::MariaDb), asked),
            Some(("mysql", asked)) => (Some(Flavor::MySql), asked),
            _ => (None, asked),
        };
        if flavors.is_none_or(|only| only == flavor) {
            let (expression, value) = match asked.split_once(" => ") {
                Some((expression, value)) => (expression, Some(value.to_owned())),
                None => (asked, None),
            };
            let setting = settings.last_mut().unwrap();
            setting.asked.push((expression.to_owned(), value));
        }
    }
    settings
}

impl Setting {
    /// What a client does to see what comes of it.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let first = (!self.goes_on).then_some(Step::ChangeUser);
        let asks = self.asked.iter().map(|(expression, _)| {
            let sql = format!("SELECT {expression}");
            Step::query(sql)
        });
        first
            .into_iter()
            .chain([Step::query(&self.sql)])
            .chain(asks)
            .collect()
    }

    /// The values that are not the expected ones.
    pub(crate) async fn check(&self, raw: &mut Raw) -> String {
        if !self.goes_on {
            raw.change_user("app", "app", "").await.unwrap();
        }
        raw.query(&self.sql).await;
        raw.answer(&[]).await;
        let mut wrong = String::new();
        for (expression, expected) in &self.asked {
            let sql = format!("SELECT HEX(CAST({expression} AS CHAR CHARACTER SET utf8mb4))");
            let found = match raw.rows(&sql).await {
                Ok(rows) => match rows.first() {
                    Some(row) => row[0].as_deref().map_or_else(|| "NULL".to_owned(), unhexed),
                    None => "no rows".to_owned(),
                },
                Err(refused) => format!("error {}", refused.code),
            };
            if expected.as_deref() != Some(&*found) {
                wrong += &format!("{}\n  {expression} => {found}\n", self.sql);
            }
        }
        wrong
    }
}

/// Text that no character set of results has changed.
fn unhexed(hex: &str) -> String {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| *byte != 0)
        .map(|byte| (byte as char).to_digit(16).unwrap() as u8)
        .collect();
    let bytes = digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    String::from_utf8(bytes).unwrap()
}
