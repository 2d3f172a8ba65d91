//! KILL: whom an account may end through the proxy, and what is left of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio::time::timeout;

use support::raw::{Raw, capability};
use support::{Options, Proxy, Rig, SOON, error_of, eventually, one};

on_both_flavors!(
    a_name_is_no_privilege,
    an_expression_is_evaluated_once,
    what_is_no_victim_is_refused_as_servers_do,
    what_an_expression_leaves_is_its_sessions,
    an_expression_that_takes_its_time_can_be_ended,
    a_change_of_user_can_be_ended,
);

async fn login(options: &OptsBuilder) -> Conn {
    Conn::new(options.clone()).await.unwrap()
}

async fn gone(mut conn: Conn) {
    eventually("the connection to end", async || conn.ping().await.is_err()).await;
}

/// It was not killed: that would be seen at the second statement at the latest.
async fn stays(conn: &mut Conn) {
    for _ in 0..3 {
        assert_eq!(one::<i64>(conn, "SELECT 1").await, 1);
    }
}

/// Clients that read an id as a signed number, as Connector/J does, write it into their KILL as that.
#[tokio::test]
async fn ids_are_no_negative_numbers() {
    let rig = Rig::shared(Flavor::MariaDb).await;
    let (mut conn, victim) = (rig.connect().await, rig.connect().await);
    let id = victim.id() as i32;
    assert!(id > 0, "{id}");
    conn.query_drop(format!("KILL {id}")).await.unwrap();
    gone(victim).await;
}

#[tokio::test]
async fn all_sessions_of_a_user_are_ended() {
    let rig = Rig::shared(Flavor::MariaDb).await;
    let many = rig.account("kill_many").await;
    let weak = rig.account("kill_weak").await;
    let strong = rig.account("kill_strong").await;
    let grant = "GRANT CONNECTION ADMIN ON *.* TO kill_strong@'%'";
    rig.cluster.primary().run(grant).await.unwrap();
    let mut victims = [login(&many).await, login(&many).await];
    victims[0].query_drop("SET @held = 1 + 1").await.unwrap();
    let mut weak = [login(&weak).await, login(&weak).await];
    // A server has no right to ask for where it finds nobody.
    let nowhere = "KILL USER 'kill_many'@'nowhere'";
    weak[0].query_drop(nowhere).await.unwrap();
    let mut heard = Vec::new();
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        let mut raw = Raw::tcp(port).await.unwrap();
        let usual = capability::USUAL;
        raw.login("kill_weak", "kill_weak", None, usual)
            .await
            .unwrap();
        heard.push(raw.rows("KILL USER kill_many").await.unwrap_err());
    }
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0].code, 1095);
    let mut strong = login(&strong).await;
    let elsewhere = "KILL USER kill_many@'10.9.8.7'";
    strong.query_drop(elsewhere).await.unwrap();
    let elsewhere = "KILL USER kill_weak@'10.9.8.7'";
    weak[0].query_drop(elsewhere).await.unwrap();
    for conn in victims.iter_mut().chain(&mut weak) {
        stays(conn).await;
    }
    let here = "KILL USER kill_many@'127.0.0.1'";
    strong.query_drop(here).await.unwrap();
    for victim in victims {
        gone(victim).await;
    }
    let [mut first, second] = weak;
    // It ends itself as well.
    let _ = first.query_drop("KILL USER kill_weak").await;
    gone(first).await;
    gone(second).await;
}

async fn a_name_is_no_privilege(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let named = rig.account("kill_SUPER").await;
    let mut victim = login(&rig.account("kill_named").await).await;
    let grants = "CREATE DATABASE IF NOT EXISTS `SUPER`; \
                  GRANT SELECT ON `SUPER`.* TO `kill_SUPER`@'%'";
    rig.cluster.primary().run(grants).await.unwrap();
    let mut named = login(&named).await;
    let kill = format!("KILL {}", victim.id());
    assert_eq!(error_of(&mut named, &kill).await, 1095);
    stays(&mut victim).await;
}

async fn an_expression_is_evaluated_once(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut conn = rig.connect().await;
    conn.query_drop("SET @n = 0").await.unwrap();
    let kill = "KILL 2000000000 + (@n := @n + 1)";
    assert_eq!(error_of(&mut conn, kill).await, 1094);
    assert_eq!(one::<u64>(&mut conn, "SELECT @n").await, 1);
}

async fn what_is_no_victim_is_refused_as_servers_do(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("kill_refused").await;
    let mut direct = rig.cluster.primary().connect().await.unwrap();
    for sql in [
        format!("CREATE TABLE {schema}.t (a INT)"),
        format!(
            "CREATE FUNCTION {schema}.f() RETURNS INT MODIFIES SQL DATA \
             BEGIN INSERT INTO {schema}.t VALUES (1); RETURN 2000000000; END"
        ),
    ] {
        direct.query_drop(sql).await.unwrap();
    }
    let function = format!("{schema}.f()");
    let mut heard = Vec::new();
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        let mut raw = Raw::app(port).await;
        for victim in [
            &*function,
            "(SELECT 2000000000)",
            "nosuch",
            "1 +",
            "(1, 2)",
            "NULL",
            "'x'",
            "0x5 + '2000000000x'",
            "-1",
            "2e9",
        ] {
            heard.push(raw.rows(&format!("KILL {victim}")).await.unwrap_err());
        }
    }
    let (by_server, by_proxy) = heard.split_at(heard.len() / 2);
    assert_eq!(by_server, by_proxy);
    let count = format!("SELECT COUNT(*) FROM {schema}.t");
    assert_eq!(one::<u64>(&mut direct, &count).await, 0);
}

async fn what_an_expression_leaves_is_its_sessions(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    // Their connections to the primary are nobody else's.
    let account = rig.account("kill_left").await;
    let mut first = login(&account).await;
    let mut second = login(&account).await;
    let victim = login(&account).await;
    let id = victim.id();
    let kill = format!("KILL (@kill_left := {id}) + 0 * GET_LOCK('kill_left', 0)");
    first.query_drop(&kill).await.unwrap();
    gone(victim).await;
    let sql = "SELECT @kill_left, GET_LOCK('kill_left', 0)";
    let left: (Option<u32>, u8) = one(&mut second, sql).await;
    assert_eq!(left, (None, 0));
    let left: (Option<u32>, u8) = one(&mut first, sql).await;
    assert_eq!(left, (Some(id), 1));
}

/// Statements like this that sleep on the primary: one that only begins may not hear of a KILL.
async fn sleeping(rig: &Rig, marker: &str) -> u64 {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.processlist \
         WHERE info LIKE '%{marker}%' AND state = 'User sleep'"
    );
    rig.cluster.primary().first(&sql).await.unwrap()
}

async fn an_expression_that_takes_its_time_can_be_ended(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let sql = "KILL 2000000077 + SLEEP(300)";
    let start = async || {
        let mut raw = Raw::app(rig.proxy.port()).await;
        raw.query(sql).await;
        eventually("the statement to run", async || {
            sleeping(rig, "2000000077").await == 1
        })
        .await;
        raw
    };
    let over = async || {
        eventually("the statement to end", async || {
            sleeping(rig, "2000000077").await == 0
        })
        .await;
    };
    // Its client leaves.
    drop(start().await);
    over().await;
    let mut killer = rig.connect().await;
    for scope in ["QUERY", "CONNECTION"] {
        let mut raw = start().await;
        let id = raw.greeting.connection;
        killer
            .query_drop(format!("KILL {scope} {id}"))
            .await
            .unwrap();
        over().await;
        // The sum may be known all the same: then there is no such thread.
        let ended = raw.packet().await;
        assert!(ended.is_err() || ended.unwrap()[0] == 0xff);
    }
}

async fn a_change_of_user_can_be_ended(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let options = Options {
        sections: "[limits]\nlogin = \"2s\"\n".to_owned(),
        ..Options::default()
    };
    let hasty = Proxy::start(&rig.cluster, &options).await;
    let mut killer = rig.connect().await;
    for proxy in [&rig.proxy, &hasty] {
        let mut raw = Raw::app(proxy.port()).await;
        let request = b"app\0\x01x\0\x2d\0by_another_method\0";
        raw.command(0x11, request).await;
        // It is asked for a proof, and does not give one.
        assert_eq!(raw.packet().await.unwrap()[0], 0xfe);
        if std::ptr::eq(proxy, &rig.proxy) {
            let kill = format!("KILL {}", raw.greeting.connection);
            killer.query_drop(kill).await.unwrap();
        }
        let end = timeout(SOON, raw.packet()).await;
        end.expect("the end of the session").unwrap_err();
    }
}
