//! Random sequences of statements, as one client of an application with bad habits sends them.

use crate::support::pair::{CLOSE, EXECUTE, FETCH, LONG_DATA, PREPARE, RESET, with_id};
use crate::talk::Step;

/// Numbers that look random and are the same for the same seed.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    // https://prng.di.unimi.it/splitmix64.c
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// What every client's schema has in the beginning. `{s}` is its name; statements end with a line of `//`.
pub(crate) const SCHEMA: &str = include_str!("schema.sql");

/// The steps of one client: at least `count` statements.
///
/// MySQL tells some answers by the types of the executions before, which is known: with `steady` they do not change.
pub(crate) fn sequence(seed: u64, schema: &str, count: usize, steady: bool) -> Vec<Step> {
    let mut client = Client {
        random: Random::new(seed),
        schema: schema.to_owned(),
        steps: Vec::new(),
        prepared: Vec::new(),
        count: 0,
        pinned_since: None,
        fresh_since: 0,
        steady,
    };
    while client.steps.len() < count {
        client.block();
    }
    client.steps
}

/// The type of a parameter, and what binds it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Number,
    Text,
    Any,
}

struct Prepared {
    number: u32,
    parameters: Vec<Kind>,
    /// The types that it was executed with last.
    bound: Option<Vec<(u8, u8)>>,
    reads: bool,
    /// It was executed with a cursor: MySQL 9.7 answers further executions without one by metadata and an OK.
    cursor: bool,
    /// MariaDB may forget the types of its parameters when anybody changes a routine.
    calls: bool,
}

struct Client {
    random: Random,
    schema: String,
    steps: Vec<Step>,
    prepared: Vec<Prepared>,
    /// Preparations so far on this connection, also failed ones.
    count: u32,
    /// The step that tied the session to a connection.
    pinned_since: Option<usize>,
    /// The step with which it became as after a login.
    fresh_since: usize,
    /// A parameter is always of the same type.
    steady: bool,
}

type Block = fn(&mut Client);

impl Client {
    fn block(&mut self) {
        const BLOCKS: &[(usize, Block)] = &[
            (14, Client::settings),
            (18, Client::changes),
            (10, Client::reads),
            (12, Client::transaction),
            (14, Client::preparations),
            (5, Client::temporary_tables),
            (6, Client::user_variables),
            (6, Client::constants),
            (4, Client::locks),
            (6, Client::calls),
            (4, Client::several),
            (4, Client::prepared_as_text),
            (6, Client::errors),
            (6, Client::commands),
            (2, Client::definitions),
            (6, Client::character_sets),
            (3, Client::ends),
        ];
        let total: usize = BLOCKS.iter().map(|(weight, _)| weight).sum();
        let mut at = self.random.below(total);
        for (weight, block) in BLOCKS {
            if at < *weight {
                block(self);
                break;
            }
            at -= weight;
        }
        // Others wait for the connection.
        let now = self.steps.len();
        if self.pinned_since.is_some_and(|since| now - since > 25) || now - self.fresh_since > 150 {
            self.fresh();
        }
    }

    fn query(&mut self, sql: impl AsRef<[u8]>) {
        self.command(&[&[0x03], sql.as_ref()].concat());
        if self.random.percent(8) {
            self.question();
        }
    }

    /// A statement whose answer nothing must come in front of.
    fn only(&mut self, sql: impl AsRef<[u8]>) {
        self.command(&[&[0x03], sql.as_ref()].concat());
    }

    fn command(&mut self, payload: &[u8]) {
        self.steps.push(Step::Command(payload.to_vec()));
    }

    fn one_of(&mut self, statements: &[&str]) {
        let sql = self.random.pick(statements);
        let sql = self.filled(sql);
        // Where MySQL looks for parents depends on whether the connection was ever reset, and with it whether a failure leaves
        // a transaction open.
        if sql.contains(" child") || sql.contains(" parent") {
            self.only(sql);
            return self.only("ROLLBACK");
        }
        self.query(sql);
    }

    /// Puts values in for `#` (a small number), `$` (a word in quotes), and the schema's name for `{s}`.
    fn filled(&mut self, sql: &str) -> String {
        let mut out = String::new();
        for part in sql.split_inclusive(['#', '$']) {
            match part.strip_suffix(['#', '$']) {
                Some(rest) if part.ends_with('#') => {
                    out += rest;
                    out += &self.random.below(12).to_string();
                }
                Some(rest) => {
                    out += rest;
                    out += &format!("'{}'", self.random.pick(WORDS));
                }
                None => out += part,
            }
        }
        out.replace("{s}", &self.schema)
    }

    fn pins(&mut self) {
        if self.pinned_since.is_none() {
            self.only("SET @pinned = 1 + 1");
            self.pinned_since = Some(self.steps.len());
        }
    }

    /// A question about the statement before.
    fn question(&mut self) {
        // Only a session that keeps its connection has answers about the statement before for sure: the limit of
        // connections may take it from any other one.
        let Some(Step::Command(before)) = self.steps.last() else {
            return;
        };
        let before = String::from_utf8_lossy(before).into_owned();
        if self.pinned_since.is_none() || before.contains(';') {
            return;
        }
        // What a failed statement leaves of FOUND_ROWS() and LAST_INSERT_ID() it has from statements before.
        let writes = [
            "\x03INSERT",
            "\x03UPDATE",
            "\x03DELETE",
            "\x03REPLACE",
            "\x03SELEKT",
        ];
        let sql = if before.starts_with("\x03SELECT ") {
            "SELECT ROW_COUNT()"
        } else if writes.iter().any(|start| before.starts_with(start)) {
            self.random.pick(&[
                "SELECT ROW_COUNT()",
                "SHOW WARNINGS",
                "SHOW WARNINGS LIMIT 1",
                "SHOW COUNT(*) WARNINGS",
                "SHOW ERRORS",
                "SELECT @@warning_count, @@error_count",
            ])
        } else {
            return;
        };
        self.only(sql);
    }

    /// Everything is as after a login from here on.
    fn fresh(&mut self) {
        match self.random.below(10) {
            0..=5 => self.command(&[0x1f]),
            6..=7 => self.steps.push(Step::ChangeUser),
            _ => self.steps.push(Step::Reconnect),
        }
        if !matches!(self.steps.last(), Some(Step::ChangeUser | Step::Reconnect)) {
            // A reset leaves the schema as it is.
            let schema = self.schema.clone();
            self.command(&[&[0x02], schema.as_bytes()].concat());
            self.command(&[0x1b, 0, 0]);
        }
        if matches!(self.steps.last(), Some(Step::ChangeUser | Step::Reconnect)) {
            self.count = 0;
        }
        self.fresh_since = self.steps.len();
        self.prepared.clear();
        self.pinned_since = None;
    }

    fn ends(&mut self) {
        self.fresh();
    }

    fn settings(&mut self) {
        for _ in 0..=self.random.below(3) {
            let (variable, values, shows) = SETTINGS[self.random.below(SETTINGS.len())];
            let value = self.random.pick(values);
            if PINNING.contains(&variable) {
                self.pins();
            }
            let scope = self
                .random
                .pick(&["", "SESSION ", "LOCAL ", "@@", "@@session."]);
            self.query(format!("SET {scope}{variable} = {value}"));
            if self.random.percent(20) {
                let (other, values, _) = SETTINGS[self.random.below(SETTINGS.len())];
                let other_value = self.random.pick(values);
                self.query(format!(
                    "SET {variable} = {value}, SESSION {other} = {other_value}"
                ));
            }
            if variable != "timestamp" && self.random.percent(60) {
                self.query(format!("SELECT @@{variable}"));
            }
            if variable != "timestamp" && self.random.percent(15) {
                self.query(format!("SHOW VARIABLES LIKE '{variable}'"));
            }
            if !shows.is_empty() {
                self.query(shows);
            }
        }
        if self.random.percent(35) {
            self.one_of(&[
                "SET sql_mode = DEFAULT",
                "SET SESSION sql_mode = DEFAULT, time_zone = DEFAULT",
                "SET sql_select_limit = DEFAULT",
                "SET autocommit = 1, unique_checks = DEFAULT, foreign_key_checks = 1",
            ]);
        }
    }

    fn change(&mut self) {
        self.one_of(&[
            "INSERT INTO t (a, b) VALUES (#, $)",
            "INSERT INTO t (a, b) VALUES (#, $), (#, $), (#, $)",
            "INSERT INTO t (a, b, u) VALUES (#, $, #)",
            "INSERT INTO t (a, u) VALUES (#, #) ON DUPLICATE KEY UPDATE a = a + 1",
            "INSERT INTO t (a, u) VALUES (#, #) ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), b = $",
            "INSERT IGNORE INTO t (a, u) VALUES (#, #), (#, #)",
            "INSERT IGNORE INTO t (a, b) VALUES ('x#', $), (NULL, 'a text that is too long for it')",
            "INSERT INTO t (a, b) VALUES ('x#', $)",
            "INSERT INTO t (a, b) SELECT n, word FROM xq_shared.words WHERE n < #",
            "INSERT INTO t SET a = #, b = $",
            "INSERT INTO plain VALUES (#, $)",
            "REPLACE INTO t (u, a) VALUES (#, #)",
            "UPDATE t SET a = # WHERE a = #",
            "UPDATE t SET a = a WHERE a < #",
            "UPDATE t SET b = 'a text that is too long for it' WHERE a = #",
            "UPDATE IGNORE t SET u = # WHERE a = #",
            "UPDATE t SET a = LAST_INSERT_ID(a + 1) WHERE id = # LIMIT 1",
            "UPDATE t JOIN plain ON t.a = plain.n SET t.b = plain.s",
            "DELETE FROM t WHERE a = #",
            "DELETE FROM t ORDER BY id LIMIT #",
            "DELETE t FROM t JOIN plain ON t.a = plain.n WHERE plain.n = #",
            "DELETE FROM plain WHERE n < #",
            "INSERT INTO parent (id) VALUES (#)",
            "INSERT INTO child (id, parent_id) VALUES (#, #)",
            "DELETE FROM parent WHERE id = #",
            "DELETE FROM child",
            "INSERT INTO kinds (i, d, f, dt, ti, y, s) VALUES (#, # / 7, #.5, '2020-0#-11 10:11:12', '10:11:#', 20#, $)",
            "REPLACE INTO plain SELECT a, b FROM t WHERE id = #",
            "DO 1, #",
            "TRUNCATE TABLE plain",
        ]);
    }

    fn changes(&mut self) {
        for _ in 0..=self.random.below(4) {
            self.change();
            if self.random.percent(50) {
                self.question();
            }
            if self.random.percent(20) {
                self.question();
            }
        }
        if self.random.percent(25) {
            self.one_of(&[
                "DELETE FROM t",
                "DELETE FROM t WHERE id > #",
                "DELETE FROM kinds",
            ]);
        }
    }

    fn read(&mut self) {
        self.one_of(&[
            "SELECT * FROM t ORDER BY id",
            "SELECT * FROM t ORDER BY id LIMIT #",
            "SELECT id, a FROM t ORDER BY id LIMIT #, #",
            "SELECT SQL_CALC_FOUND_ROWS id FROM t ORDER BY id LIMIT 1",
            "SELECT SQL_CALC_FOUND_ROWS n FROM xq_shared.words ORDER BY n LIMIT #",
            "SELECT COUNT(*), SUM(a), MAX(b) FROM t",
            "SELECT a / 3, 1 / 7, AVG(a) FROM t GROUP BY a ORDER BY a",
            "SELECT GROUP_CONCAT(word ORDER BY n) FROM xq_shared.words",
            "SELECT * FROM kinds ORDER BY i, s, f",
            "SELECT word FROM xq_shared.words WHERE n = #",
            "SELECT word FROM xq_shared.words WHERE word = $",
            "SELECT CAST('x#' AS SIGNED), CAST($ AS DECIMAL(4,1)), 1 / 0",
            "SELECT s, LENGTH(s), HEX(s) FROM words ORDER BY id LIMIT #",
            "SELECT id FROM t WHERE a = # FOR UPDATE",
            "SELECT DATABASE(), SCHEMA(), CURRENT_USER(), USER() LIKE 'app@%'",
            "SELECT f_double(#), f_counts(#)",
            "SELECT f_warns()",
            "SELECT * FROM v ORDER BY 1, 2",
            "SELECT n FROM xq_shared.words ORDER BY n LIMIT # UNION ALL SELECT #",
            "(SELECT 1) UNION (SELECT #) ORDER BY 1 LIMIT 1",
            "SELECT a FROM t WHERE a > # AND 0",
            "SHOW TABLES",
            "SHOW COLUMNS FROM t",
            "SHOW CREATE TABLE t",
            "DESCRIBE plain",
            "SHOW VARIABLES LIKE 'sql_mode'",
            "SELECT @@sql_mode, @@autocommit, @@time_zone",
            "SELECT @@session.tx_read_only",
            "SELECT @@transaction_isolation",
            "SHOW SESSION VARIABLES LIKE 'character_set_%t'",
            "SHOW VARIABLES WHERE Variable_name IN ('autocommit', 'sql_select_limit', 'collation_connection')",
            "SELECT BENCHMARK(10, MD5(#))",
            "SELECT RAND(#), MD5($), CRC32($)",
            "VALUES (#, 2)",
            "TABLE plain",
            "SELECT 1 WHERE 0",
            "SELECT * FROM t WHERE b LIKE 'é%' ORDER BY id",
        ]);
    }

    fn reads(&mut self) {
        for _ in 0..=self.random.below(4) {
            self.read();
            if self.random.percent(45) {
                self.question();
            }
        }
    }

    fn transaction(&mut self) {
        let begin = self.random.below(13);
        let sets = begin >= 9;
        self.query(
            [
                "BEGIN",
                "START TRANSACTION",
                "START TRANSACTION READ WRITE",
                "START TRANSACTION WITH CONSISTENT SNAPSHOT",
                "START TRANSACTION READ ONLY",
                "BEGIN WORK",
                "BEGIN",
                "SET autocommit = 0",
                "SET SESSION autocommit = OFF",
                "SET TRANSACTION READ ONLY",
                "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                "SET @@transaction_isolation = 'READ-UNCOMMITTED'",
            ][begin],
        );
        if sets && self.random.percent(70) {
            self.only("BEGIN");
        }
        for _ in 0..self.random.below(6) {
            match self.random.below(10) {
                0..=3 => self.change(),
                4..=5 => self.read(),
                6 => self.question(),
                7 => self.one_of(&[
                    "SAVEPOINT one",
                    "SAVEPOINT two",
                    "ROLLBACK TO one",
                    "ROLLBACK TO SAVEPOINT two",
                    "RELEASE SAVEPOINT one",
                ]),
                8 => self.error(),
                _ => self.one_of(&["COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "BEGIN"]),
            }
        }
        self.one_of(&[
            "COMMIT",
            "ROLLBACK",
            "COMMIT",
            "ROLLBACK",
            "COMMIT AND NO CHAIN",
            "ROLLBACK WORK",
        ]);
        if self.random.percent(60) {
            self.only("SELECT COUNT(*), MAX(id) FROM t");
        }
        if self.random.percent(70) {
            self.only("SET autocommit = 1");
        }
        if begin >= 11 {
            self.only("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ");
        }
    }

    fn prepare(&mut self) {
        use Kind::{Any, Number, Text};
        let (sql, parameters, reads): (&str, &[Kind], bool) = [
            (
                "SELECT id, a, b FROM t WHERE a < ? ORDER BY id",
                &[Number][..],
                true,
            ),
            ("SELECT * FROM kinds ORDER BY i, s, f", &[], true),
            ("SELECT * FROM t ORDER BY id LIMIT ?", &[Number], true),
            (
                "SELECT n, word FROM xq_shared.words WHERE n > ? ORDER BY n",
                &[Number],
                true,
            ),
            ("INSERT INTO t (a, b) VALUES (?, ?)", &[Number, Text], false),
            (
                "INSERT INTO t (a, b, u) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE a = a + ?",
                &[Number, Text, Number, Number],
                false,
            ),
            (
                "INSERT IGNORE INTO t (a, b) VALUES (?, ?)",
                &[Any, Any],
                false,
            ),
            (
                "INSERT INTO kinds (i, d, f, dt, ti, y, s) VALUES (?, ?, ?, ?, ?, ?, ?)",
                &[Any, Any, Any, Any, Any, Any, Any],
                false,
            ),
            ("UPDATE t SET a = ? WHERE id = ?", &[Number, Number], false),
            ("DELETE FROM t WHERE a = ?", &[Number], false),
            (
                "SELECT CONCAT(?, '/', s) FROM words WHERE id = ?",
                &[Text, Number],
                true,
            ),
            (
                "SELECT CAST(? AS CHAR(20)), CAST(? AS DATETIME(6)), CAST(? AS SIGNED)",
                &[Any, Any, Any],
                true,
            ),
            (
                "SELECT SQL_CALC_FOUND_ROWS id FROM t WHERE id > ? ORDER BY id LIMIT 2",
                &[Number],
                true,
            ),
            ("SELECT 1 + 1", &[], true),
            ("SELECT 2", &[], true),
            ("SELECT 3", &[], true),
            ("CALL p_results(?)", &[Number], false),
            ("CALL p_out(?, ?)", &[Number, Number], false),
            ("SELECT f_double(?)", &[Number], true),
            ("SELECT * FROM changing ORDER BY 1", &[], true),
            ("SET SESSION group_concat_max_len = ?", &[Number], false),
            ("SET time_zone = '+03:00'", &[], false),
            (
                "SELECT @@time_zone, @@group_concat_max_len, FROM_UNIXTIME(?)",
                &[Number],
                true,
            ),
            ("BEGIN", &[], false),
            ("COMMIT", &[], false),
            ("SELECT nothing FROM t", &[], true),
            ("SELEKT", &[], true),
            ("SET @a = 7, @b = 'text', @c = NULL", &[], false),
            ("SELECT @a, @b, @c", &[], true),
            (
                "SELECT COUNT(*) FROM xq_shared.words WHERE n = @a",
                &[],
                true,
            ),
        ][self.random.below(30)];
        if sql.starts_with("CALL") {
            self.pins();
        }
        self.command(&[&[PREPARE], sql.as_bytes()].concat());
        self.count += 1;
        self.prepared.push(Prepared {
            number: self.count,
            parameters: parameters.to_vec(),
            bound: None,
            reads,
            cursor: false,
            calls: sql.starts_with("CALL"),
        });
    }

    fn preparations(&mut self) {
        for _ in 0..=self.random.below(3) {
            self.prepare();
        }
        for _ in 0..self.random.below(10) {
            match self.random.below(20) {
                0..=11 => self.execute(),
                12 => self.prepare(),
                13 => self.about_one(RESET),
                14 => {
                    if self.prepared.len() > 1 {
                        let index = self.random.below(self.prepared.len());
                        let number = self.prepared.remove(index).number;
                        self.command(&with_id(CLOSE, number, &[]));
                        if self.random.percent(20) {
                            self.command(&with_id(EXECUTE, number, &[0, 1, 0, 0, 0]));
                        }
                    }
                }
                15 => self.change(),
                16 => self.read(),
                17 => self.question(),
                18 => self.one_of(&[
                    "ALTER TABLE changing ADD COLUMN b INT DEFAULT 3",
                    "ALTER TABLE changing DROP COLUMN b",
                    "ALTER TABLE changing MODIFY a VARCHAR(9)",
                    "ALTER TABLE changing MODIFY a INT",
                    "INSERT INTO changing (a) VALUES (#)",
                    "DELETE FROM changing",
                ]),
                _ => self.settings(),
            }
        }
        if self.prepared.len() > 12 {
            for Prepared { number, .. } in std::mem::take(&mut self.prepared) {
                self.command(&with_id(CLOSE, number, &[]));
            }
        }
    }

    fn about_one(&mut self, code: u8) {
        if !self.prepared.is_empty() {
            let index = self.random.below(self.prepared.len());
            let number = self.prepared[index].number;
            self.command(&with_id(code, number, &[]));
        }
    }

    fn execute(&mut self) {
        if self.prepared.is_empty() {
            return self.prepare();
        }
        let index = self.random.below(self.prepared.len());
        let cursor =
            self.prepared[index].cursor || self.prepared[index].reads && self.random.percent(15);
        self.prepared[index].cursor = cursor;
        let (number, parameters) = {
            let prepared = &self.prepared[index];
            (prepared.number, prepared.parameters.clone())
        };
        let mut long = None;
        if parameters.len() > 1 && self.random.percent(8) {
            let at = parameters.iter().position(|kind| *kind == Kind::Text);
            if let Some(at) = at {
                long = Some(at);
                for _ in 0..=self.random.below(2) {
                    let data = [&u16::try_from(at).unwrap().to_le_bytes()[..], b"long"].concat();
                    self.command(&with_id(LONG_DATA, number, &data));
                }
            }
        }
        let again = self.prepared[index].bound.clone();
        let repeats = !self.prepared[index].calls && self.random.percent(30);
        let again = again.filter(|_| repeats);
        let mut nulls = vec![0; parameters.len().div_ceil(8)];
        let (mut types, mut values) = (Vec::new(), Vec::new());
        for (at, kind) in parameters.iter().enumerate() {
            let (code, flags, value) = match &again {
                Some(bound) => {
                    let (code, flags) = bound[at];
                    (code, flags, self.value_of(code))
                }
                None => self.value(*kind, at, long == Some(at)),
            };
            types.push((code, flags));
            if long == Some(at) {
                // It was sent before.
            } else if code == 6 || self.random.percent(6) {
                nulls[at / 8] |= 1 << (at % 8);
            } else {
                values.extend(value);
            }
        }
        let mut payload = vec![u8::from(cursor), 1, 0, 0, 0];
        if !parameters.is_empty() {
            payload.extend(nulls);
            payload.push(u8::from(again.is_none()));
            if again.is_none() {
                payload.extend(types.iter().flat_map(|(code, flags)| [*code, *flags]));
            }
            payload.extend(values);
        }
        self.prepared[index].bound = Some(types);
        self.command(&with_id(EXECUTE, number, &payload));
        if cursor {
            for _ in 0..self.random.below(4) {
                let rows = u32::try_from(1 + self.random.below(3)).unwrap();
                self.command(&with_id(FETCH, number, &rows.to_le_bytes()));
            }
            self.command(&with_id(RESET, number, &[]));
        } else if self.random.percent(15) {
            self.question();
        }
    }

    fn value(&mut self, kind: Kind, at: usize, long: bool) -> (u8, u8, Vec<u8>) {
        let codes: &[&u8] = match kind {
            Kind::Number if self.steady => &[&8],
            Kind::Text if self.steady => &[&253],
            Kind::Any if self.steady => [&[&3], &[&246], &[&5], &[&12], &[&11], &[&8], &[&253]][at],
            _ if long => &[&252],
            Kind::Number => &[&1, &2, &3, &8, &8, &6, &5],
            Kind::Text => &[&253, &254, &252, &6],
            Kind::Any => &[
                &1, &2, &3, &8, &4, &5, &6, &7, &12, &10, &11, &253, &252, &246,
            ],
        };
        let code = *self.random.pick(codes);
        let flags = if !self.steady && matches!(code, 1..=3 | 8) && self.random.percent(30) {
            0x80
        } else {
            0
        };
        let value = self.value_of(code);
        (code, flags, value)
    }

    fn value_of(&mut self, code: u8) -> Vec<u8> {
        let number = self.random.below(9) as u8;
        let string = |bytes: &[u8]| [&[bytes.len() as u8], bytes].concat();
        match code {
            1 => vec![number],
            2 | 13 => u16::from(number).to_le_bytes().to_vec(),
            3 => u32::from(number).to_le_bytes().to_vec(),
            8 => u64::from(number).to_le_bytes().to_vec(),
            4 => (f32::from(number) / 2.0).to_le_bytes().to_vec(),
            5 => f64::from(number).to_le_bytes().to_vec(),
            7 | 12 if number < 4 => vec![7, 0xe4, 7, 1 + number, 2, 3, 4, 5],
            7 | 12 => vec![11, 0xe4, 7, 1 + number, 2, 3, 4, 5, number, 0, 0, 0],
            10 => vec![4, 0xe4, 7, 1 + number, 28],
            11 => vec![8, number & 1, 0, 0, 0, 0, number, 2, 3],
            246 => string(format!("{number}.25").as_bytes()),
            6 => Vec::new(),
            _ => {
                // What a number is made of beyond ASCII, MySQL tells by the types of the execution before.
                let word = self.random.pick(&["one", "two", "12", "", "x\"y", "a\\b"]);
                string(word.as_bytes())
            }
        }
    }

    fn temporary_tables(&mut self) {
        let lasting = self.random.percent(60);
        if lasting {
            self.pins();
        }
        for _ in 0..2 + self.random.below(5) {
            self.one_of(&[
                "CREATE TEMPORARY TABLE tmp (n INT, s VARCHAR(20))",
                "CREATE TEMPORARY TABLE IF NOT EXISTS tmp (n INT)",
                "CREATE TEMPORARY TABLE tmp2 AS SELECT a, b FROM t",
                "CREATE TEMPORARY TABLE t (only_here INT)",
                "CREATE TEMPORARY TABLE plain LIKE t",
                "INSERT INTO tmp (n) VALUES (#), (#)",
                "SELECT * FROM tmp ORDER BY 1",
                "SELECT * FROM t ORDER BY 1 LIMIT 3",
                "SELECT COUNT(*) FROM tmp2",
                "DROP TEMPORARY TABLE IF EXISTS t",
                "DROP TEMPORARY TABLE tmp",
                "DROP TEMPORARY TABLE IF EXISTS tmp, tmp2, plain",
                "ALTER TABLE tmp ADD COLUMN x INT",
                "SHOW CREATE TABLE tmp",
            ]);
        }
        if lasting && self.random.percent(60) {
            self.fresh();
        } else {
            self.only("DROP TEMPORARY TABLE IF EXISTS t, plain, tmp2, tmp");
            self.reads();
        }
    }

    fn user_variables(&mut self) {
        self.pins();
        for _ in 0..2 + self.random.below(5) {
            self.one_of(&[
                "SET @a = #",
                "SET @b = $",
                "SET @a := #, @c = NULL",
                "SET @a = @a + 1",
                "SET @d = CONCAT(@b, '-', @a)",
                "SET @e = NOW() IS NULL",
                "SET @f = 1.50, @g = 1e3, @h = x'41', @i = 0x42, @j = b'1', @k = TRUE",
                "SET @a = (SELECT MAX(id) FROM t)",
                "SET @`odd name` = #, @'b' = $",
                "SELECT @a, @b, @c, @d",
                "SELECT @f, @g, @h, @i, @j, @k, @`odd name`",
                "SELECT @a := @a + 1",
                "SELECT # INTO @a",
                "SELECT n, word FROM xq_shared.words WHERE n = # INTO @a, @b",
                "SELECT @never_set",
                "SELECT CHARSET(@b), COLLATION(@b), COERCIBILITY(@b)",
                "SELECT id, @n := @n + 1 FROM t, (SELECT @n := 0) x ORDER BY id",
                "INSERT INTO t (a, b) VALUES (@a, @b)",
                "SET @saved = @@sql_mode, sql_mode = ''",
                "SET sql_mode = @saved",
                "SET @old_time_zone = @@time_zone",
                "SET time_zone = @old_time_zone",
                "SET NAMES utf8mb4",
            ]);
        }
        if self.random.percent(50) {
            self.fresh();
        }
    }

    /// User variables that go along with the session, until something happens to them.
    fn constants(&mut self) {
        // A session of which nothing is known but that it has written may find another one's connection.
        self.only("SET @a = 12");
        for _ in 0..2 + self.random.below(6) {
            self.one_of(&[
                "SET @a = #",
                "SET @a := -#.50, @B = NULL",
                "SET @b = $",
                "SET @c = NULL",
                "SET @a = NULL, @c = 18446744073709551615",
                "SET @`d` = 1e#, @'e' = x'41', @f = 0x42, @g = b'1', @h = TRUE, @i.j = +#",
                "SET @b = \"double\", sql_notes = 1",
                "SELECT @a, @b, @c",
                "SELECT @d, @e, @f, @g, @h, @`i.j`",
                "SELECT CHARSET(@b), COLLATION(@b), COERCIBILITY(@b), COERCIBILITY(@a)",
                "SELECT n FROM xq_shared.words WHERE n = @a OR word = @b ORDER BY n",
                "SELECT @a + 1, CONCAT(@b, @c), IFNULL(@c, 'none')",
                "SELECT 1",
                "SELECT word FROM xq_shared.words WHERE n = #",
            ]);
            match self.random.below(30) {
                0 => self.change(),
                1 => self.one_of(&[
                    "SET NAMES latin1",
                    "SET NAMES utf8mb4",
                    "SET sql_mode = 'ANSI_QUOTES'",
                ]),
                2 => self.one_of(&["BEGIN", "COMMIT"]),
                3 => self.one_of(&[
                    "SELECT @a := 5",
                    "SELECT # INTO @b",
                    "SELECT @a, @never_set",
                ]),
                4 => self.one_of(&["SELECT fires(#)", "INSERT INTO fires (a) VALUES (#)"]),
                _ => {}
            }
        }
        if self.random.percent(40) {
            self.fresh();
        }
    }

    /// Else what the session was tied to its connection for has ended.
    fn fresh_if(&mut self, lasting: bool) {
        match lasting {
            true => self.fresh(),
            false => self.reads(),
        }
    }

    fn locks(&mut self) {
        let lasting = self.random.percent(60);
        if lasting {
            self.pins();
        }
        match self.random.below(3) {
            0 => {
                for _ in 0..2 + self.random.below(3) {
                    self.one_of(&[
                        "SELECT GET_LOCK('{s}', 0)",
                        "SELECT GET_LOCK('{s}b', 1)",
                        "SELECT IS_FREE_LOCK('{s}'), IS_USED_LOCK('{s}b') IS NULL",
                        "SELECT RELEASE_LOCK('{s}')",
                        "DO RELEASE_LOCK('{s}b')",
                        "SELECT RELEASE_ALL_LOCKS()",
                    ]);
                }
                self.one_of(&["SELECT RELEASE_ALL_LOCKS()", "SELECT RELEASE_ALL_LOCKS()"]);
                self.fresh_if(lasting);
            }
            1 => {
                self.one_of(&[
                    "LOCK TABLES t WRITE",
                    "LOCK TABLES t READ, plain WRITE",
                    "LOCK TABLE t AS other READ",
                ]);
                for _ in 0..self.random.below(4) {
                    match self.random.below(3) {
                        0 => self.change(),
                        1 => self.read(),
                        _ => self.one_of(&["BEGIN", "SELECT COUNT(*) FROM plain", "COMMIT"]),
                    }
                }
                self.only("UNLOCK TABLES");
            }
            _ => {
                self.one_of(&[
                    "HANDLER t OPEN",
                    "HANDLER t OPEN AS h",
                    "HANDLER plain OPEN",
                ]);
                for _ in 0..1 + self.random.below(3) {
                    self.one_of(&[
                        "HANDLER t READ FIRST",
                        "HANDLER t READ `PRIMARY` FIRST",
                        "HANDLER t READ NEXT",
                        "HANDLER h READ NEXT LIMIT #",
                        "HANDLER plain READ FIRST",
                    ]);
                }
                for sql in ["HANDLER t CLOSE", "HANDLER h CLOSE", "HANDLER plain CLOSE"] {
                    self.only(sql);
                }
                self.fresh_if(lasting);
            }
        }
    }

    fn calls(&mut self) {
        self.pins();
        for _ in 0..=self.random.below(3) {
            self.one_of(&[
                "CALL p_results(#)",
                "CALL p_out(#, @out)",
                "SELECT @out",
                "CALL p_fails(#)",
                "CALL p_sets(#)",
                "SELECT @from_procedure, @@div_precision_increment",
                "CALL p_temporary()",
                "SELECT COUNT(*) FROM from_procedure",
                "CALL {s}.p_warns()",
                "CALL p_begins()",
                "CALL nothing()",
            ]);
            if self.random.percent(40) {
                self.question();
            }
        }
        if self.random.percent(80) {
            self.only("ROLLBACK");
            self.fresh();
        }
    }

    fn several(&mut self) {
        self.pins();
        self.one_of(&[
            "SELECT 1; SELECT #",
            "INSERT INTO t (a) VALUES (#); SELECT LAST_INSERT_ID(); SELECT ROW_COUNT()",
            "BEGIN; INSERT INTO t (a) VALUES (#); COMMIT",
            "BEGIN; INSERT INTO t (a) VALUES (#)",
            "SELECT 1; SELEKT; SELECT 2",
            "SELECT 1; SELECT nothing FROM t; SELECT 2",
            "SET time_zone = '+02:00'; SELECT FROM_UNIXTIME(0)",
            "USE {s}b; SELECT DATABASE(); USE {s}",
            "UPDATE t SET a = 1 WHERE a = #; SELECT 1 / 0; SHOW WARNINGS",
            "SELECT SQL_CALC_FOUND_ROWS id FROM t LIMIT 1; SELECT FOUND_ROWS()",
            "SELECT 1;",
            "SELECT #; ",
            "; SELECT 1",
        ]);
        self.question();
        self.only("ROLLBACK");
        if self.random.percent(40) {
            let off = u8::from(self.random.percent(50));
            self.command(&[0x1b, off, 0]);
        }
        if self.random.percent(50) {
            self.fresh();
        }
    }

    fn prepared_as_text(&mut self) {
        self.pins();
        for _ in 0..1 + self.random.below(5) {
            self.one_of(&[
                "PREPARE one FROM 'SELECT id, a FROM t WHERE a > ? ORDER BY id'",
                "PREPARE one FROM 'INSERT INTO t (a) VALUES (?)'",
                "PREPARE two FROM 'SELECT 1 + 1'",
                "PREPARE two FROM 'SELEKT'",
                "SET @x = #",
                "EXECUTE one USING @x",
                "EXECUTE two",
                "EXECUTE one",
                "DEALLOCATE PREPARE one",
                "DROP PREPARE two",
            ]);
        }
        if self.random.percent(70) {
            self.fresh();
        }
    }

    fn error(&mut self) {
        self.one_of(&[
            "SELEKT #",
            "SELECT",
            "SELECT nothing FROM t",
            "SELECT * FROM no_such_table",
            "INSERT INTO t (id) VALUES (1), (1)",
            "INSERT INTO t (nothing) VALUES (#)",
            "SELECT * FROM no_such_schema.t",
            "SELECT f_nothing(#)",
            "INSERT INTO t (u) VALUES (#), (#), (#)",
            "SET nothing = 1",
            "SET sql_mode = 'NOTHING'",
            "SET time_zone = 'nowhere'",
            "SET NAMES nothing",
            "SET sql_select_limit = 'x'",
            "SET div_precision_increment = 99999",
            "SET max_sort_length = 1",
            "SELECT (SELECT id FROM xq_shared.two)",
            "SELECT 'open",
            "UPDATE t SET a = (SELECT 1 UNION SELECT 2)",
            "INSERT INTO child VALUES (#, 99)",
            "INSERT INTO child VALUES (77, 77)",
            "CREATE TABLE t (a INT)",
            "DROP TABLE no_such_table",
            "USE no_such_schema",
            "ROLLBACK TO nothing",
            "",
            ";",
            "-- nothing",
            "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'mine'",
            "KILL 4000000000",
            "GRANT SELECT ON *.* TO nobody",
        ]);
    }

    fn errors(&mut self) {
        for _ in 0..=self.random.below(2) {
            self.error();
            self.question();
        }
    }

    fn commands(&mut self) {
        let schema = self.schema.clone();
        match self.random.below(10) {
            0 => self.command(&[0x0e]),
            1 => self.command(&[&[0x02], schema.as_bytes(), b"b"].concat()),
            2 => self.command(&[&[0x02], schema.as_bytes()].concat()),
            3 => self.command(b"\x02no_such_schema"),
            4 => self.command(&[0x1b, 0, 0]),
            5 => self.command(b"\x04t\0%"),
            6 => self.command(b"\x04nothing\0"),
            7 => self.query(format!("USE {schema}b")),
            8 => self.query(format!("USE `{schema}`")),
            _ => self.command(&[0x1a, 0xff, 0xff, 0xff, 0xff]),
        }
        if self.random.percent(40) {
            self.question();
        }
        self.one_of(&["SELECT DATABASE()", "SHOW TABLES", "SELECT COUNT(*) FROM t"]);
        self.only(format!("USE {schema}"));
    }

    fn definitions(&mut self) {
        self.one_of(&[
            "CREATE TABLE made (a INT)",
            "CREATE TABLE IF NOT EXISTS made (a INT)",
            "DROP TABLE IF EXISTS made",
            "DROP TABLE made",
            "ALTER TABLE plain COMMENT = $",
            "CREATE OR REPLACE VIEW v AS SELECT a, COUNT(*) AS c FROM t GROUP BY a",
            "ANALYZE TABLE plain",
            "TRUNCATE TABLE changing",
            "DROP VIEW IF EXISTS no_view",
            "DROP FUNCTION IF EXISTS f_made",
            "CREATE FUNCTION f_made() RETURNS INT DETERMINISTIC RETURN #",
            "SELECT f_made()",
        ]);
        self.question();
    }

    fn character_sets(&mut self) {
        self.one_of(&[
            "SET NAMES utf8mb4",
            "SET NAMES latin1",
            "SET NAMES 'utf8mb4' COLLATE 'utf8mb4_unicode_ci'",
            "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
            "SET NAMES binary",
            "SET NAMES cp1251",
            "SET NAMES DEFAULT",
            "SET NAMES sjis",
            "SET NAMES gbk",
            "SET CHARACTER SET latin1",
            "SET CHARACTER SET utf8mb4",
            "SET character_set_results = NULL",
            "SET character_set_results = utf8mb4",
            "SET character_set_client = latin1",
            "SET character_set_client = utf8mb4",
            "SET character_set_connection = latin2",
            "SET collation_connection = utf8mb4_general_ci",
            "SET collation_connection = latin1_bin",
            "SET character_set_client = utf8mb4, character_set_results = latin1",
        ]);
        for _ in 0..=self.random.below(3) {
            let text: &[u8] = [
                &b"\xe9t\xe9"[..],
                "été".as_bytes(),
                "日本".as_bytes(),
                "😀".as_bytes(),
                b"\x83\\",
            ][self.random.below(5)];
            let sql: Vec<u8> = match self.random.below(4) {
                0 => [
                    b"INSERT INTO words (s, l) VALUES ('",
                    text,
                    b"', '",
                    text,
                    b"')",
                ]
                .concat(),
                1 => [
                    b"SELECT '",
                    text,
                    b"' AS '",
                    text,
                    b"', HEX('",
                    text,
                    b"'), CHARSET('')",
                ]
                .concat(),
                2 => [b"SELECT COUNT(*) FROM words WHERE s = '", text, b"'"].concat(),
                _ => b"SELECT id, s, l, HEX(s) FROM words ORDER BY id LIMIT 4".to_vec(),
            };
            self.query(sql);
        }
        if self.random.percent(30) {
            self.only("DELETE FROM words");
        }
        if self.random.percent(50) {
            self.only(
                "SELECT @@character_set_client, @@character_set_connection, @@character_set_results, \
                 @@collation_connection",
            );
        }
        if self.random.percent(60) {
            self.only("SET NAMES utf8mb4");
        }
    }
}

const WORDS: &[&str] = &[
    "one", "two", "three", "é", "日本", "", "O''Hara", "a\\\\b", "x\"y",
];

/// Those that a proxy can hardly carry to another connection.
const PINNING: &[&str] = &[
    "timestamp",
    "insert_id",
    "last_insert_id",
    "rand_seed1",
    "session_track_schema",
    "profiling",
    "max_join_size",
    "sql_auto_is_null",
];

/// Variables with values, some of them wrong, and a statement whose answer depends on them.
const SETTINGS: &[(&str, &[&str], &str)] = &[
    (
        "sql_mode",
        &[
            "''",
            "'ANSI_QUOTES'",
            "'NO_BACKSLASH_ESCAPES'",
            "'ANSI'",
            "'TRADITIONAL'",
            "'STRICT_TRANS_TABLES'",
            "'PIPES_AS_CONCAT,IGNORE_SPACE'",
            "DEFAULT",
            "''",
        ],
        "SELECT 'a\\\\b', \"x\", 1 || 0",
    ),
    (
        "time_zone",
        &["'+00:00'", "'-05:30'", "'SYSTEM'", "DEFAULT", "'+09:00'"],
        "SELECT FROM_UNIXTIME(1600000000), @@time_zone",
    ),
    (
        "sql_select_limit",
        &["1", "2", "DEFAULT", "DEFAULT", "18446744073709551615"],
        "SELECT n FROM xq_shared.words ORDER BY n",
    ),
    (
        "group_concat_max_len",
        &["4", "10", "DEFAULT", "1000000"],
        "SELECT GROUP_CONCAT(word ORDER BY n) FROM xq_shared.words",
    ),
    (
        "div_precision_increment",
        &["0", "2", "10", "30", "DEFAULT"],
        "SELECT 1 / 7",
    ),
    (
        "lc_time_names",
        &["'de_DE'", "'ja_JP'", "en_US", "DEFAULT", "'xx_XX'"],
        "SELECT DATE_FORMAT('2020-03-04', '%W %M')",
    ),
    (
        "foreign_key_checks",
        &["0", "1", "OFF", "ON", "DEFAULT"],
        "SELECT @@foreign_key_checks",
    ),
    ("unique_checks", &["0", "1"], ""),
    (
        "default_week_format",
        &["1", "3", "0", "9"],
        "SELECT WEEK('2020-02-20')",
    ),
    ("sql_safe_updates", &["1", "0", "0"], "UPDATE t SET a = 3"),
    (
        "sql_notes",
        &["0", "1", "1"],
        "DROP TABLE IF EXISTS no_such_table",
    ),
    ("sql_warnings", &["0", "1"], "INSERT INTO t (a) VALUES (1)"),
    (
        "sql_auto_is_null",
        &["0"],
        "SELECT id FROM t WHERE id IS NULL",
    ),
    (
        "sql_quote_show_create",
        &["1", "0"],
        "SHOW CREATE TABLE plain",
    ),
    ("sql_big_selects", &["0", "1", "1"], ""),
    (
        "max_sort_length",
        &["4", "64", "1024", "DEFAULT"],
        "SELECT word FROM xq_shared.words ORDER BY word, n",
    ),
    (
        "max_error_count",
        &["1", "0", "64", "DEFAULT"],
        "SELECT 1 / 0, CAST('x' AS SIGNED), CAST('y' AS SIGNED)",
    ),
    (
        "auto_increment_increment",
        &["3", "1", "1"],
        "INSERT INTO t (a) VALUES (1), (2)",
    ),
    (
        "auto_increment_offset",
        &["2", "1", "1"],
        "INSERT INTO t (a) VALUES (1), (2)",
    ),
    (
        "default_storage_engine",
        &["MyISAM", "InnoDB", "'innodb'", "DEFAULT"],
        "",
    ),
    ("innodb_lock_wait_timeout", &["5", "50"], ""),
    ("lock_wait_timeout", &["5", "DEFAULT"], ""),
    ("wait_timeout", &["1000", "28800"], ""),
    ("net_write_timeout", &["99", "DEFAULT"], ""),
    (
        "completion_type",
        &["'CHAIN'", "0", "'NO_CHAIN'", "DEFAULT"],
        "COMMIT",
    ),
    (
        "max_join_size",
        &["100", "DEFAULT", "18446744073709551615"],
        "",
    ),
    ("low_priority_updates", &["1", "0"], ""),
    ("updatable_views_with_limit", &["0", "1"], ""),
    (
        "tmp_table_size",
        &["2048", "DEFAULT"],
        "SELECT a, COUNT(*) FROM t GROUP BY a ORDER BY a",
    ),
    ("old_alter_table", &["0", "1"], ""),
    (
        "timestamp",
        &["1600000000", "1000000000.5", "DEFAULT"],
        "SELECT NOW() > '2021-01-01'",
    ),
    ("insert_id", &["500", "600"], "INSERT INTO t (a) VALUES (1)"),
    ("last_insert_id", &["7", "8"], "SELECT LAST_INSERT_ID()"),
    ("rand_seed1", &["5"], ""),
    ("max_execution_time", &["9000", "0"], ""),
    ("max_statement_time", &["90", "0"], ""),
    ("eq_range_index_dive_limit", &["10", "DEFAULT"], ""),
    ("long_query_time", &["5", "DEFAULT"], ""),
    ("session_track_schema", &["1", "0"], ""),
    ("transaction_read_only", &["1", "0", "0"], ""),
    ("autocommit", &["1", "1", "0"], "SELECT @@autocommit"),
    ("profiling", &["0"], ""),
];
