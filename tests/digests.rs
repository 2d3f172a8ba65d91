//! Digests group statements as the servers' own performance_schema does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use dbproxy::cli::demo::cluster::{Cluster, Flavor};
use dbproxy::sql::{Dialect, Facts, Kind, classify, digest_text, literals};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use regex::Regex;

use support::corpus::{Case, corpus, unescape};

on_both_flavors!(statements_are_grouped_as_by_the_server);

/// What the server tells apart and our digest does not, on purpose: what is replaced in the server's texts until
/// nothing changes any more, and why. In `OURS`, the other way round.
struct Difference {
    flavors: &'static [Flavor],
    folds: &'static [(&'static str, &'static str)],
    #[allow(dead_code, reason = "for people")]
    reason: &'static str,
}

const BOTH: &[Flavor] = &[Flavor::MySql, Flavor::MariaDb];

const SERVERS: &[Difference] = &[
    Difference {
        flavors: &[Flavor::MySql],
        folds: &[(r"/\*\+ .*? \*/ ", "")],
        reason: "a hint for the optimizer changes how a statement runs, and not what it asks for",
    },
    Difference {
        flavors: BOTH,
        folds: &[(r"(\(|,|[=<>!~]|\b[A-Z_]+) [-+] \?", "$1 ?")],
        reason: "the servers take a sign for a part of the number only behind some of the words and operators",
    },
    Difference {
        flavors: &[Flavor::MySql],
        folds: &[(r" \d+( |$)", " ?$1")],
        reason: "the number of a column, behind ORDER BY, is a literal to MariaDB",
    },
    Difference {
        flavors: &[Flavor::MariaDb],
        folds: &[(r"\bIN \(\?\)", "IN (...)")],
        reason: "a list of one literal is a list of literals to MySQL",
    },
    Difference {
        flavors: &[Flavor::MariaDb],
        folds: &[(r"\(unknown\)", "?")],
        reason: "MariaDB does not know again its own literals with a letter in front",
    },
    Difference {
        flavors: &[Flavor::MariaDb],
        folds: &[(r" ;$", "")],
        reason: "the end of a statement is no part of it if blanks follow, either",
    },
    Difference {
        flavors: BOTH,
        folds: &[(r"\?(, \.\.\.)? , \?(, \.\.\.)?", "?, ...")],
        reason: "what is replaced above are literals of lists, too",
    },
];

const OURS: &[Difference] = &[
    Difference {
        flavors: &[Flavor::MySql],
        folds: &[(r"[\x{10000}-\x{10FFFF}]", "")],
        reason: "the servers lose such characters",
    },
    Difference {
        flavors: BOTH,
        folds: &[(r"\b(EVERY|SQL_NO_CACHE|CONNECTION) - \?", "$1 ?")],
        reason: "behind a word that may be a column, a sign is an operator",
    },
    Difference {
        flavors: &[Flavor::MariaDb],
        folds: &[(r"\bREPLICA\b", "SLAVE")],
        reason: "MySQL tells the old word from the new one",
    },
];

/// Forms that the corpus has few of.
const FORMS: &[&str] = &[
    "SELECT NULL, a IS NULL, a IS NOT NULL, CASE WHEN a THEN NULL ELSE NULL END, IFNULL(a, NULL)",
    "CREATE TABLE x (a INT NULL, b VARCHAR(5) NOT NULL DEFAULT NULL, c JSON NULL)",
    "SELECT a FROM t ORDER BY 1, 2",
    "SELECT a FROM t ORDER BY 1 DESC, a",
    "SELECT a FROM t GROUP BY 1",
    "SELECT a<-b, a< -b, a=!b, a<>b, a!=b, a<=>b, a||b, a&&b, a<<1, a>>1, a:=1",
    "SELECT - - 1, + -a, - -a, a - - - 1, (- 1), (-1), (-a)",
    "SELECT (1), (2, 3), (4, 5), (6)",
    "SELECT count(*), COUNT(a), count, `count`, `COUNT`, now(), NOW()",
    "SELECT status, Status, `status`, t.status, t.`status`, `t`.`Status`",
    "SELECT CURRENT_DATE - 1, CURRENT_TIMESTAMP + 1, LOCALTIME - 1, TRUE - 1",
    "SELECT CURRENT_DATE(), CURDATE(), CURTIME(), CURRENT_TIME(), NOW(), LOCALTIMESTAMP(), LOCALTIME()",
    "SELECT SUBSTR(a, 1), SUBSTRING(a, 1), MID(a, 1, 1), STD(a), STDDEV(a), STDDEV_POP(a), VARIANCE(a), VAR_POP(a)",
    "SELECT USER(), SYSTEM_USER(), SESSION_USER(), DATABASE(), SCHEMA()",
    "SELECT DISTINCTROW a, a REGEXP 'x' AND a RLIKE 'y' FROM t",
    "SELECT DISTINCT a FROM t WHERE a > SOME (SELECT 1) OR a > ANY (SELECT 1)",
    "CREATE TABLE x (a INTEGER, b INT, c INT4, d DEC(5), e DECIMAL(5), f FLOAT4, g FLOAT8, h DOUBLE, i INT1, j INT2)",
    "CREATE TABLE x (a INT3, b MIDDLEINT, c MEDIUMINT, d INT8, e BIGINT, f TINYINT, g SMALLINT, h FLOAT)",
    "CREATE TABLE x (a CHARACTER(5), b CHAR(5), c VARCHARACTER(5), d VARCHAR(5), e NUMERIC(5), f REAL, g BOOL, h BOOLEAN)",
    "SELECT a + INTERVAL 1 SQL_TSI_DAY, a + INTERVAL 1 DAY, TIMESTAMPADD(SQL_TSI_HOUR, 1, a)",
    "SHOW FIELDS FROM t",
    "SHOW COLUMNS FROM t",
    "SHOW SCHEMAS",
    "SHOW DATABASES",
    "DESCRIBE t",
    "DESC t",
    "EXPLAIN t",
    "SHOW INDEX FROM t",
    "SHOW INDEXES FROM t",
    "SHOW KEYS FROM t",
    "SELECT @a, @b, @'a', @`a`, @@session.sql_mode, @@SESSION.sql_mode, @@local.sql_mode, @@SQL_MODE, @@port, @@PORT",
    "SELECT @a, 1, 2, (@a), (@a, 1)",
    "CREATE USER 'a'@'host' IDENTIFIED BY 'x'",
    "CREATE USER a@host IDENTIFIED BY 'x'",
    "SELECT 'a' 'b', N'a', n'b', x'00', b'1', 0x1f, 0b1, _utf8'a', _latin1'a', 1.5e3, .5",
    "INSERT INTO t VALUES (1, 'a'), (2, NULL), (-3, 'b'), (3, NOW()), (4, 'c')",
    "INSERT INTO t (a) VALUES (1), (2) ON DUPLICATE KEY UPDATE a = VALUES(a), b = -1",
    "SELECT a FROM t WHERE a IN (1) AND b IN (1, 2) AND c NOT IN (-1) AND (a, b) IN ((1, 2), (3, 4)) AND a IN (1, b)",
    "begin",
    "BEGIN",
    "start transaction",
    "Commit",
    "SELECT a FROM `t` AS `x y` WHERE `x y`.`a` = 1 AND `b` = '1' AND `select` = 2 AND t.`select` = 3",
    "SELECT a FROM `1t` WHERE `t$1` = 1 AND `é` = 2 AND é = 3",
];

/// Not run: they wait, end the connection or change how the account logs in.
const NOT_RUN: &[&str] = &[
    "SLEEP",
    "BENCHMARK",
    "KILL",
    "PASSWORD",
    "ALTER USER",
    "SHUTDOWN",
    "RESTART",
    "WAIT",
];

/// How many statements are asked about at once: fewer than the server remembers.
const BATCH: usize = 1_000;

async fn statements_are_grouped_as_by_the_server(flavor: Flavor) {
    let options = [
        "--performance-schema=1",
        "--performance-schema-consumer-events-statements-current=1",
        "--performance-schema-consumer-events-statements-history-long=1",
        "--performance-schema-events-statements-history-long-size=4000",
        "--performance-schema-max-digest-length=8192",
        "--performance-schema-max-sql-text-length=8192",
        "--max-digest-length=8192",
    ];
    let options: Vec<String> = options.iter().map(ToString::to_string).collect();
    let cluster = Cluster::start_with(flavor, 0, &options).await.unwrap();
    let mut root = cluster.primary().connect().await.unwrap();
    let version: String = root.query_first("SELECT version()").await.unwrap().unwrap();
    eprintln!("{version}");
    let asked = asked(flavor);
    let mut server = Server { cluster, root };
    let mut pairs = BTreeMap::new();
    let mut refused = 0;
    for batch in asked.chunks(BATCH) {
        let digests = server.digests(batch).await;
        for (number, asked) in batch.iter().enumerate() {
            let Some(theirs) = digests.get(&number) else {
                refused += 1;
                continue;
            };
            let ours = digest_text(&asked.sql, asked.dialect, usize::MAX);
            let texts = (ours, theirs.trim_end().to_owned());
            pairs.entry(texts).or_insert_with(|| asked.sql.clone());
        }
    }
    eprintln!(
        "{flavor:?}: {} statements, {refused} without a digest, {} pairs",
        asked.len(),
        pairs.len()
    );
    let mut used = BTreeSet::new();
    let mut sides: [BTreeMap<String, BTreeMap<String, &[u8]>>; 2] = Default::default();
    for ((ours, theirs), sql) in &pairs {
        let ours = folded(ours, OURS, flavor, &mut used);
        let theirs = folded(theirs, SERVERS, flavor, &mut used);
        let entry = sides[0].entry(ours.clone()).or_default();
        entry.insert(theirs.clone(), sql);
        sides[1].entry(theirs).or_default().insert(ours, sql);
    }
    let mut report = String::new();
    for (side, what) in sides.iter().zip(["tells apart", "does not tell apart"]) {
        for (one, others) in side.iter().filter(|(_, others)| others.len() > 1) {
            writeln!(report, "the server {what} {one}").unwrap();
            for (other, sql) in others {
                writeln!(report, "    {other}   of {}", sql.escape_ascii()).unwrap();
            }
        }
    }
    assert!(report.is_empty(), "\n{report}");
    assert!(refused * 3 < asked.len(), "{refused} of {}", asked.len());
    for difference in SERVERS.iter().chain(OURS) {
        for (pattern, _) in difference.folds {
            let applies = difference.flavors.contains(&flavor);
            assert_eq!(used.contains(pattern), applies, "{pattern}");
        }
    }
}

/// The text without what is told apart on purpose.
fn folded(
    text: &str,
    differences: &[Difference],
    flavor: Flavor,
    used: &mut BTreeSet<&'static str>,
) -> String {
    let mut text = text.to_owned();
    let applying = differences.iter().filter(|it| it.flavors.contains(&flavor));
    for (pattern, with) in applying.flat_map(|difference| difference.folds) {
        let matcher = Regex::new(pattern).unwrap();
        while matcher.is_match(&text) {
            used.insert(*pattern);
            text = matcher.replace_all(&text, *with).into_owned();
        }
    }
    text
}

/// A statement, and how the session that runs it reads.
struct Asked {
    sql: Vec<u8>,
    circumstances: &'static str,
    dialect: Dialect,
}

/// The statements of the corpus and their variants.
fn asked(flavor: Flavor) -> Vec<Asked> {
    let forms = FORMS.iter().map(|form| ("any", unescape(form)));
    let cases = corpus().iter().filter(|case| runs_on(case, flavor));
    let cases = cases.map(|case| (case.dialect, case.sql.clone()));
    let dot = Regex::new(r"[\s/]\.|\.[\s/]").unwrap();
    let mut asked = Vec::new();
    for (circumstances, sql) in forms.chain(cases) {
        let dialect = dialect(circumstances, flavor);
        let text = String::from_utf8_lossy(&sql).to_ascii_uppercase();
        if NOT_RUN.iter().any(|word| text.contains(word)) {
            continue;
        }
        let class = classify(&sql, dialect);
        let facts = class.facts;
        // Behind a dot with blanks around it, the servers' lexers take some names for keywords.
        if dot.is_match(&text) || facts.intersects(Facts::MULTI.union(Facts::DOUBTFUL)) {
            // Each statement of a packet has a digest of the server's.
            continue;
        }
        if class.kind == Kind::Compound {
            // Programs of this kind may run for ever.
            continue;
        }
        let mut variants: BTreeSet<Vec<u8>> = variants(&sql, dialect).into_iter().collect();
        variants.insert(sql);
        asked.extend(variants.into_iter().map(|sql| Asked {
            sql,
            circumstances,
            dialect,
        }));
    }
    asked.sort_by_key(|asked| asked.circumstances);
    asked
}

fn dialect(name: &str, flavor: Flavor) -> Dialect {
    let dialect = match flavor {
        Flavor::MySql => Dialect::of(false, 90_700),
        Flavor::MariaDb => Dialect::of(true, 101_114),
    };
    match name {
        "ansi" => dialect.with_sql_mode(b"ANSI_QUOTES"),
        "nobs" => dialect.with_sql_mode(b"NO_BACKSLASH_ESCAPES"),
        "gbk" => dialect.with_charset(b"gbk"),
        _ => dialect,
    }
}

fn runs_on(case: &Case, flavor: Flavor) -> bool {
    match case.dialect {
        "any" => true,
        "maria" => flavor == Flavor::MariaDb,
        "mysql8" | "maria12" => false,
        _ => flavor == Flavor::MySql,
    }
}

/// A literal and the bytes before and behind it, blanks aside; what stands in its place.
type Respelling<'a> = dyn Fn(&[u8], u8, u8) -> Vec<u8> + 'a;

/// The statement with other literals, blanks, comments, case and lengths of lists.
fn variants(sql: &[u8], dialect: Dialect) -> Vec<Vec<u8>> {
    let Some(literals) = literals(sql, dialect) else {
        return Vec::new();
    };
    let in_literal = |place: usize| literals.iter().any(|range| range.contains(&place));
    // Nothing is changed within other quotes and comments.
    let plain = !sql.iter().enumerate().any(|(place, byte)| {
        let special = matches!(byte, b'`' | b'"' | b'#')
            || sql[place..].starts_with(b"/*")
            || sql[place..].starts_with(b"--");
        special && !in_literal(place)
    });
    let replaced = |with: &Respelling<'_>| {
        let mut variant = Vec::new();
        let mut end = 0;
        for range in &literals {
            variant.extend_from_slice(&sql[end..range.start]);
            let before = sql[..range.start].trim_ascii_end().last().copied();
            let next = sql[range.end..].trim_ascii_start().first().copied();
            let literal = &sql[range.clone()];
            variant.extend(with(literal, before.unwrap_or(0), next.unwrap_or(0)));
            end = range.end;
        }
        [&variant, &sql[end..]].concat()
    };
    let respelled = |with: &dyn Fn(u8) -> Vec<u8>| {
        let bytes = sql.iter().enumerate();
        let spelled = bytes.flat_map(|(place, byte)| match plain && !in_literal(place) {
            true => with(*byte),
            false => vec![*byte],
        });
        spelled.collect::<Vec<u8>>()
    };
    let other = |literal: &[u8]| match literal.last() {
        Some(b'\'' | b'"') => b"'o''ther'".to_vec(),
        _ => b"73".to_vec(),
    };
    let listed = |copies: usize| {
        move |literal: &[u8], _: u8, next: u8| match next {
            b')' => vec![literal; copies].join(&b", "[..]),
            _ => literal.to_vec(),
        }
    };
    let mut variants = vec![
        replaced(&|literal, _, _| other(literal)),
        replaced(&|literal, _, _| match literal.last() {
            Some(b'\'' | b'"') => literal.to_vec(),
            _ => b"-5".to_vec(),
        }),
        replaced(&|literal, before, _| match before {
            b'(' | b',' | b'=' => b"NULL".to_vec(),
            _ => literal.to_vec(),
        }),
        replaced(&listed(2)),
        replaced(&listed(3)),
        respelled(&|byte| vec![byte.to_ascii_lowercase()]),
        respelled(&|byte| vec![byte.to_ascii_uppercase()]),
        respelled(&|byte| match byte {
            b' ' => b"\n /* it's */\t".to_vec(),
            b',' => b" , ".to_vec(),
            _ => vec![byte],
        }),
        [b"# first\n-- second\n", sql, b" /* last */;"].concat(),
    ];
    for copies in [2, 3] {
        if let Some(rows) = with_rows(sql, copies).filter(|_| plain) {
            variants.push(rows);
        }
    }
    variants
}

/// With the row behind VALUES several times.
fn with_rows(sql: &[u8], copies: usize) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(sql).ok()?;
    let values = text.to_ascii_uppercase().find("VALUES")?;
    let begin = values + text[values..].find('(')?;
    let end = begin + text[begin..].rfind(')')? + 1;
    let rows = vec![&text[begin..end]; copies].join(",");
    Some([&text[..begin], &rows, &text[end..]].concat().into_bytes())
}

struct Server {
    cluster: Cluster,
    root: Conn,
}

impl Server {
    /// The digest texts of those that the server parsed.
    async fn digests(&mut self, batch: &[Asked]) -> BTreeMap<usize, String> {
        let clear = "TRUNCATE performance_schema.events_statements_history_long";
        self.root.query_drop(clear).await.unwrap();
        let mut session = self.session().await;
        for (number, asked) in batch.iter().enumerate() {
            let circumstances = match asked.circumstances {
                "ansi" => "SET sql_mode = 'ANSI_QUOTES'",
                "nobs" => "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
                "gbk" => "SET NAMES gbk",
                _ => "SET sql_mode = ''",
            };
            if session.reset().await.is_err() || session.query_drop("USE test").await.is_err() {
                session = self.session().await;
            }
            session.query_drop(circumstances).await.unwrap();
            let marked = [format!("/*{number}*/").as_bytes(), &asked.sql].concat();
            // Most fail, without privileges: they are parsed before.

            drop(session.query_drop(marked).await);
        }
        // The server notes a statement after its answer and before the next one.
        drop(session.query_drop("DO 0").await);
        let rows: Vec<(Vec<u8>, Option<Vec<u8>>)> = self
            .root
            .query(
                "SELECT CAST(sql_text AS BINARY), CAST(digest_text AS BINARY) \
                 FROM performance_schema.events_statements_history_long WHERE sql_text LIKE '/*%'",
            )
            .await
            .unwrap();
        let mut digests = BTreeMap::new();
        for (sql, digest) in rows {
            let number = sql[2..].split(|&byte| byte == b'*').next().unwrap();
            let number = std::str::from_utf8(number).unwrap().parse();
            if let (Ok(number), Some(digest)) = (number, digest) {
                digests.insert(number, String::from_utf8_lossy(&digest).into_owned());
            }
        }
        digests
    }

    /// A login that may read and do nothing else.
    async fn session(&mut self) -> Conn {
        for sql in [
            "DROP USER IF EXISTS nobody",
            "CREATE USER nobody",
            "GRANT SELECT ON test.* TO nobody",
        ] {
            self.root.query_drop(sql).await.unwrap();
        }
        let options = OptsBuilder::default()
            .user(Some("nobody"))
            .socket(Some(self.cluster.primary().socket().display().to_string()))
            .max_allowed_packet(Some(64 << 20))
            .wait_timeout(Some(28_800))
            .db_name(Some("test"));
        Conn::new(options).await.unwrap()
    }
}
