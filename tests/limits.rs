//! How many clients there may be, and that those who only knock keep nobody out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::net::Ipv4Addr;

use dbproxy::cli::demo::cluster::Flavor;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};

use support::raw::{Raw, Refused, capability};
use support::{Options, Proxy, Rig, SOON, application, code, eventually, one};

on_both_flavors!(
    clients_of_one_address_are_counted,
    sessions_of_one_account_are_counted,
    half_open_logins_keep_nobody_out,
    half_open_logins_make_room_in_a_full_house,
);

async fn proxy(rig: &Rig, limits: &str) -> Proxy {
    let options = Options {
        sections: format!("[limits]\n{limits}"),
        ..Options::default()
    };
    Proxy::start(&rig.cluster, &options).await
}

/// Connects from an address of this machine.
async fn from(address: Ipv4Addr, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket
        .connect((Ipv4Addr::LOCALHOST, port).into())
        .await
        .unwrap()
}

const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn login(stream: TcpStream) -> Result<Raw, Refused> {
    let mut raw = Raw::over(stream).await?;
    raw.login("app", "app", None, capability::USUAL).await?;
    Ok(raw)
}

async fn clients_of_one_address_are_counted(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = proxy(rig, "address_connections = 3").await;
    let mut held = Vec::new();
    for round in 0..3 {
        eventually("three clients", async || {
            if let Ok(raw) = login(from(Ipv4Addr::LOCALHOST, proxy.port()).await).await {
                held.push(raw);
            }
            held.len() == 3
        })
        .await;
        let refused = login(from(Ipv4Addr::LOCALHOST, proxy.port()).await)
            .await
            .err()
            .unwrap();
        assert_eq!(refused.code, 1040);
        assert!(refused.message.contains("127.0.0.1"), "{}", refused.message);
        assert!(
            refused.message.contains("limits.address_connections"),
            "{}",
            refused.message
        );
        let mut other = login(from(OTHER, proxy.port()).await).await.unwrap();
        let mut by_socket = Raw::unix(&proxy.socket()).await.unwrap();
        by_socket
            .login("app", "app", None, capability::USUAL)
            .await
            .unwrap();
        // One leaves, one is killed, one fails to log in.
        match round {
            0 => drop(held.pop()),
            1 => {
                let id = held.pop().unwrap().greeting.connection;
                other.execute(&format!("KILL {id}")).await;
            }
            _ => {
                drop(held.pop());
                eventually("a place", async || {
                    let Ok(mut raw) =
                        Raw::over(from(Ipv4Addr::LOCALHOST, proxy.port()).await).await
                    else {
                        return false;
                    };
                    let wrong = raw.login("app", "wrong", None, capability::USUAL).await;
                    assert_eq!(wrong.unwrap_err().code, 1045);
                    true
                })
                .await;
            }
        }
    }
    eventually("a place for the next", async || {
        login(from(Ipv4Addr::LOCALHOST, proxy.port()).await)
            .await
            .is_ok()
    })
    .await;
}

async fn sessions_of_one_account_are_counted(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.account("limited").await;
    let proxy = proxy(rig, "account_connections = 2").await;
    let limited = support::login(proxy.port(), "limited", "limited");
    let mut held = Vec::new();
    for round in 0..3 {
        eventually("two sessions", async || {
            if let Ok(conn) = Conn::new(limited.clone()).await {
                held.push(conn);
            }
            held.len() == 2
        })
        .await;
        let refused = Conn::new(limited.clone()).await.unwrap_err();
        assert_eq!(code(&refused), 1203);
        let text = refused.to_string();
        assert!(
            text.contains("limited") && text.contains("limits.account_connections"),
            "{text}"
        );
        // Other accounts have limits of their own, and nobody becomes a third by the back door.
        let mut raw = Raw::app(proxy.port()).await;
        let refused = raw.change_user("limited", "limited", "").await.unwrap_err();
        assert_eq!(refused.code, 1203);
        let mut left = held.pop().unwrap();
        match round {
            0 => left.disconnect().await.unwrap(),
            // To itself, then to another account.
            1 => {
                let to = |name: &str| {
                    mysql_async::ChangeUserOpts::default()
                        .with_user(Some(name.to_owned()))
                        .with_pass(Some(name.to_owned()))
                };
                left.change_user(to("limited")).await.unwrap();
                left.change_user(to("app")).await.unwrap();
            }
            _ => {
                let id = left.id();
                let killed = held[0].query_drop(format!("KILL {id}")).await;
                assert!(killed.is_ok(), "{killed:?}");
            }
        }
    }
    eventually("a place for the next", async || {
        Conn::new(limited.clone()).await.is_ok()
    })
    .await;
}

async fn half_open_logins_keep_nobody_out(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = proxy(rig, "logins = 100").await;
    let mut inside = Conn::new(application(proxy.port())).await.unwrap();
    let mut knocking = Vec::new();
    for number in 0..1500_i64 {
        knocking.push(from(Ipv4Addr::LOCALHOST, proxy.port()).await);
        if number % 50 == 0 {
            assert_eq!(
                one::<i64>(&mut inside, &format!("SELECT {number}")).await,
                number
            );
        }
    }
    // Somebody from elsewhere is let in, and so is one from the same address: it is among the last to come.
    let mut other = login(from(OTHER, proxy.port()).await).await.unwrap();
    assert_eq!(
        other.rows("SELECT 1").await.unwrap()[0][0].as_deref(),
        Some("1")
    );
    login(from(Ipv4Addr::LOCALHOST, proxy.port()).await)
        .await
        .unwrap();
    assert_eq!(one::<i64>(&mut inside, "SELECT 1").await, 1);
    // The first ones have been sent away, the last ones not.
    let first = &mut knocking[0];
    let mut said = Vec::new();
    tokio::time::timeout(SOON, first.read_to_end(&mut said))
        .await
        .unwrap()
        .unwrap();
    let mut last = login(knocking.pop().unwrap()).await.unwrap();
    assert_eq!(
        last.rows("SELECT 2").await.unwrap()[0][0].as_deref(),
        Some("2")
    );
    proxy.must_run();
}

async fn half_open_logins_make_room_in_a_full_house(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = proxy(rig, "connections = 5").await;
    let mut knocking = Vec::new();
    for _ in 0..20 {
        knocking.push(from(Ipv4Addr::LOCALHOST, proxy.port()).await);
    }
    let mut inside = Vec::new();
    for _ in 0..5 {
        inside.push(login(from(OTHER, proxy.port()).await).await.unwrap());
    }
    // Now nobody is left to make room.
    let refused = login(from(OTHER, proxy.port()).await).await.err().unwrap();
    assert_eq!(refused.code, 1040);
    assert!(
        refused.message.contains("limits.connections"),
        "{}",
        refused.message
    );
    for raw in &mut inside {
        assert_eq!(
            raw.rows("SELECT 1").await.unwrap()[0][0].as_deref(),
            Some("1")
        );
    }
}
