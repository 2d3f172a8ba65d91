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

use support::raw::{Raw, capability};
use support::{Rig, error_of, eventually, one};

on_both_flavors!(a_name_is_no_privilege,);

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

#[tokio::test]
async fn all_sessions_of_a_user_are_ended() {
    let rig = Rig::shared(Flavor::MariaDb).await;
    let many = rig.account("kill_many").await;
    let weak = rig.account("kill_weak").await;
    let strong = rig.account("kill_strong").await;
    let grant = "GRANT CONNECTION ADMIN ON *.* TO kill_strong@'%'";
    rig.cluster.primary().run(grant).await.unwrap();
    let mut victims = [login(&many).await, login(&many).await];
    victims[0].query_drop("SET @held = 1").await.unwrap();
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
