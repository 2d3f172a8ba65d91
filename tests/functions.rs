//! The list of built-in functions, held against those of the servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeSet;

use dbproxy::cli::demo::cluster::Flavor;
use dbproxy::sql::{Cause, Dialect, Facts, classify, pure_functions};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use support::{Rig, code, one};

on_both_flavors!(
    what_the_servers_know_is_known,
    what_is_called_pure_is_the_servers_own,
);

/// What a server says to a call of a function by that name without arguments.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// It is a native function.
    Native,
    /// It is a word of the grammar, which no stored function can be called by.
    Word,
    /// It would be a stored function.
    Stored,
}

async fn find(conn: &mut Conn, name: &str) -> Found {
    match conn.query_drop(format!("SELECT {name}()")).await {
        Ok(()) => Found::Native,
        Err(error) => match code(&error) {
            1064 => Found::Word,
            // ER_SP_DOES_NOT_EXIST, ER_FUNC_INEXISTENT_NAME_COLLISION
            1305 | 1630 => Found::Stored,
            _ => Found::Native,
        },
    }
}

async fn connect(flavor: Flavor) -> (Conn, Dialect) {
    let rig = Rig::shared(flavor).await;
    let mut conn = rig.cluster.primary().connect().await.unwrap();
    // Without a schema servers say that there is none.
    conn.query_drop("USE test").await.unwrap();
    let version: String = one(&mut conn, "SELECT VERSION()").await;
    let mut parts = version.split(['.', '-']);
    let mut part = || -> u32 { parts.next().unwrap().parse().unwrap() };
    let version = part() * 10_000 + part() * 100 + part();
    (conn, Dialect::of(flavor == Flavor::MariaDb, version))
}

/// Every name of a function that the server tells itself.
async fn told(conn: &mut Conn, flavor: Flavor) -> BTreeSet<String> {
    let sql = match flavor {
        Flavor::MariaDb => "SELECT function FROM information_schema.sql_functions",
        Flavor::MySql => {
            "SELECT SUBSTRING_INDEX(name, ' FUNCTION', 1) FROM mysql.help_topic
             UNION SELECT word FROM information_schema.keywords"
        }
    };
    let names: Vec<String> = conn.query(sql).await.unwrap();
    let is_name = |name: &String| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let names: BTreeSet<_> = names.into_iter().filter(is_name).collect();
    assert!(names.len() > 250, "{names:?}");
    names
}

async fn what_the_servers_know_is_known(flavor: Flavor) {
    let (mut conn, dialect) = connect(flavor).await;
    let mut unknown = BTreeSet::new();
    for name in told(&mut conn, flavor).await {
        if find(&mut conn, &name).await != Found::Native {
            continue;
        }
        let class = classify(format!("SELECT {name}(1)").as_bytes(), dialect);
        if class.facts.contains(Facts::UNKNOWN_FUNCTION) {
            unknown.insert(name);
        }
    }
    let deliberate: &[&str] = match flavor {
        Flavor::MariaDb => DELIBERATE_MARIADB,
        Flavor::MySql => DELIBERATE_MYSQL,
    };
    let deliberate: BTreeSet<_> = deliberate.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(unknown, deliberate);
}

async fn what_is_called_pure_is_the_servers_own(flavor: Flavor) {
    let (mut conn, dialect) = connect(flavor).await;
    let mut stored = BTreeSet::new();
    for name in pure_functions(dialect) {
        let class = classify(format!("SELECT {name}(1)").as_bytes(), dialect);
        assert_eq!(class.cause, Cause::None, "{name}");
        if find(&mut conn, name).await == Found::Stored {
            stored.insert(name);
        }
    }
    let elsewhere: &[&str] = match flavor {
        Flavor::MariaDb => ELSEWHERE_MARIADB,
        Flavor::MySql => ELSEWHERE_MYSQL,
    };
    assert_eq!(stored, elsewhere.iter().copied().collect());
}

/// What the servers write into definitions of their own; nobody calls it.
const DELIBERATE_MARIADB: &[&str] = &[
    "CONCAT_OPERATOR_ORACLE",
    "DECODE_ORACLE",
    "LPAD_ORACLE",
    "LTRIM_ORACLE",
    "REPLACE_ORACLE",
    "RPAD_ORACLE",
    "RTRIM_ORACLE",
    "SUBSTR_ORACLE",
];
/// Those of the data dictionary's views, which refuse to be called from elsewhere.
const DELIBERATE_MYSQL: &[&str] = &[
    "CAN_ACCESS_COLUMN",
    "CAN_ACCESS_DATABASE",
    "CAN_ACCESS_TABLE",
    "CAN_ACCESS_USER",
    "CAN_ACCESS_VIEW",
    "GET_DD_COLUMN_PRIVILEGES",
    "GET_DD_CREATE_OPTIONS",
    "GET_DD_INDEX_SUB_PART_LENGTH",
    "INTERNAL_AUTO_INCREMENT",
    "INTERNAL_AVG_ROW_LENGTH",
    "INTERNAL_CHECKSUM",
    "INTERNAL_CHECK_TIME",
    "INTERNAL_DATA_FREE",
    "INTERNAL_DATA_LENGTH",
    "INTERNAL_DD_CHAR_LENGTH",
    "INTERNAL_GET_COMMENT_OR_ERROR",
    "INTERNAL_GET_ENABLED_ROLE_JSON",
    "INTERNAL_GET_HOSTNAME",
    "INTERNAL_GET_USERNAME",
    "INTERNAL_GET_VIEW_WARNING_OR_ERROR",
    "INTERNAL_INDEX_COLUMN_CARDINALITY",
    "INTERNAL_INDEX_LENGTH",
    "INTERNAL_IS_ENABLED_ROLE",
    "INTERNAL_IS_MANDATORY_ROLE",
    "INTERNAL_KEYS_DISABLED",
    "INTERNAL_MAX_DATA_LENGTH",
    "INTERNAL_TABLE_ROWS",
    "INTERNAL_UPDATE_TIME",
    "IS_VISIBLE_DD_OBJECT",
];
/// It stands in FROM, where no stored function can.
const ELSEWHERE_MARIADB: &[&str] = &["JSON_TABLE"];
const ELSEWHERE_MYSQL: &[&str] = &[];
