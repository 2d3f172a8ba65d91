//! Every session variable that the servers have is known, and what is said to be carried is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::Flavor;
use dbproxy::sql::variables::{self, Class};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use support::{Options, Rig, login, one};

on_both_flavors!(session_variables_are_known_and_carried);

/// Values of variables that take no number, one of which is likely to fit.
const WORDS: &[&str] = &[
    "'+03:00'",
    "'latin1'",
    "'latin1_bin'",
    "'de_DE'",
    "'MyISAM'",
    "'READ-COMMITTED'",
    "'PIPES_AS_CONCAT'",
    "'aes-256-cbc'",
    "'utf8mb4_general_ci'",
    "'/tmp'",
    "'2020-01-01 00:00:00'",
    "ON",
    "OFF",
];

async fn value(conn: &mut Conn, name: &str) -> Option<String> {
    one(conn, &format!("SELECT CAST(@@session.{name} AS CHAR)")).await
}

/// What `SET SESSION name =` may be followed by, most likely first.
fn candidates(value: Option<&str>) -> Vec<String> {
    let words = WORDS.iter().map(|word| (*word).to_owned());
    let small = ["1", "0", "2", "4"].map(str::to_owned);
    match value.and_then(|value| value.parse::<f64>().ok()) {
        Some(number) if number < 1e15 => {
            let whole = number as u64;
            let near = [whole + 1, whole / 2, whole * 2].map(|number| number.to_string());
            near.into_iter().chain(small).chain(words).collect()
        }
        Some(_) => ["1000000".to_owned()].into_iter().chain(small).collect(),
        None => words.chain(small).collect(),
    }
}

/// A value to set, and how it reads then: another than the present one where one is found, else the present one.
async fn another(direct: &mut Conn, name: &str) -> Option<(String, Option<String>)> {
    let before = value(direct, name).await;
    for candidate in candidates(before.as_deref()) {
        let sql = format!("SET SESSION {name} = {candidate}");
        if direct.query_drop(sql).await.is_ok() {
            let after = value(direct, name).await;
            if after != before {
                return Some((candidate, after));
            }
        }
    }
    let present = before.clone()?;
    let sql = format!("SET SESSION {name} = '{present}'");
    let taken = direct.query_drop(sql).await.is_ok();
    taken.then(|| (format!("'{present}'"), before))
}

async fn pin(conn: &mut Conn) -> Option<String> {
    let rows: Vec<(String, Option<String>)> = conn.query("SHOW DBPROXY SESSION").await.unwrap();
    let row = rows.into_iter().find(|(name, _)| name == "pin");
    row.unwrap().1
}

async fn session_variables_are_known_and_carried(flavor: Flavor) {
    let options = Options {
        // Sessions have to share it.
        sections: "[limits]\nserver_connections = 1\n".to_owned(),
        ..Options::default()
    };
    let rig = Rig::start(flavor, 0, &options).await;
    let account = rig.account("variables").await;
    let granted = "GRANT ALL PRIVILEGES ON *.* TO variables@'%'";
    rig.cluster.primary().run(granted).await.unwrap();
    let straight = login(rig.cluster.primary().port(), "variables", "variables");
    let mut direct = Conn::new(straight.clone()).await.unwrap();
    let list = match flavor {
        Flavor::MariaDb => {
            "SELECT LOWER(VARIABLE_NAME) FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_SCOPE <> 'GLOBAL'"
        }
        Flavor::MySql => {
            "SELECT VARIABLE_NAME FROM performance_schema.variables_metadata WHERE VARIABLE_SCOPE <> 'GLOBAL'"
        }
    };
    let names: Vec<String> = direct.query(list).await.unwrap();
    assert!(names.len() > 150, "{names:?}");
    let mut wrong = Vec::new();
    let mut changed = 0;
    let mut other = Conn::new(account.clone()).await.unwrap();
    for name in names {
        let Some(known) = variables::known(name.as_bytes()) else {
            wrong.push(format!("{name} is not known"));
            continue;
        };
        let mut direct = Conn::new(straight.clone()).await.unwrap();
        let before = value(&mut direct, &name).await;
        let found = another(&mut direct, &name).await;
        drop(direct);
        let Some((candidate, after)) = found else {
            if known.class == Class::Carried {
                wrong.push(format!("{name} is carried, but cannot be set"));
            }
            continue;
        };
        if known.class == Class::ServerOnly {
            wrong.push(format!("{name} can be set: {candidate}"));
            continue;
        }
        let mut conn = Conn::new(account.clone()).await.unwrap();
        let sql = format!("SET SESSION {name} = {candidate}");
        let set = conn.query_drop(&sql).await;
        let pinned = pin(&mut conn).await.is_some();
        // Carried with the value that clients set; with any other they tie the session down.
        let may_pin = matches!(&*name, "sql_auto_is_null" | "max_join_size");
        let carried =
            matches!(known.class, Class::Carried | Class::Autocommit) && !(may_pin && pinned);
        if set.is_err() || pinned == carried {
            wrong.push(format!("{sql}: {set:?}, pinned: {pinned}"));
        } else if carried {
            let seen = value(&mut other, &name).await;
            if seen != before {
                wrong.push(format!(
                    "{sql}: another session sees {seen:?}, not {before:?}"
                ));
            }
            let kept = value(&mut conn, &name).await;
            if kept != after {
                wrong.push(format!("{sql}: reads {kept:?}, not {after:?}"));
            }
            changed += usize::from(after != before);
            // Not all can be.
            let _ = conn
                .query_drop(format!("SET SESSION {name} = DEFAULT"))
                .await;
        }
        conn.disconnect().await.unwrap();
        if known.class == Class::Trackers {
            // Who asks for one is tied to the connection.
            continue;
        }
        let seen = value(&mut other, &name).await;
        // Clocks and the like go on. The counter is the server's, whatever the scope is called.
        let left = match carried {
            true => seen != before,
            false => seen == after && after != before && name != "sql_slave_skip_counter",
        };
        if left {
            wrong.push(format!("{sql}: leaves {seen:?} behind, not {before:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(changed > 100, "only {changed} took another value");
}
