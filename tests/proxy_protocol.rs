//! The PROXY protocol: whom a load balancer speaks for, who may say so, and what servers are told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "proxy_protocol/servers.rs"]
mod servers;
mod support;

use std::net::Ipv4Addr;

use dbproxy::cli::demo::cluster::Flavor;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use support::raw::{Raw, Refused, capability};
use support::{Options, Proxy, Rig};

on_both_flavors!(
    clients_come_from_where_the_header_says,
    headers_are_demanded_of_balancers_only,
    limits_count_the_clients_own_address,
);

const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn proxy(rig: &Rig, limits: &str) -> Proxy {
    let options = Options {
        listen: "proxy_protocol = [\"127.0.0.2\", \"fd00::/8\"]".to_owned(),
        sections: format!("[limits]\n{limits}"),
        ..Options::default()
    };
    Proxy::start(&rig.cluster, &options).await
}

async fn from(address: Ipv4Addr, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    let stream = socket
        .connect((Ipv4Addr::LOCALHOST, port).into())
        .await
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// What a connection from the balancer gets that begins with these bytes, once it is greeted.
async fn behind(port: u16, header: &[u8]) -> Result<Raw, Refused> {
    let mut stream = from(BALANCER, port).await;
    stream.write_all(header).await.unwrap();
    Raw::over(stream).await
}

fn v1(source: &str) -> Vec<u8> {
    let family = if source.contains(':') { "TCP6" } else { "TCP4" };
    let target = if source.contains(':') {
        "::1"
    } else {
        "127.0.0.1"
    };
    format!("PROXY {family} {source} {target} 50000 3306\r\n").into_bytes()
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [
        &b"\r\n\r\n\0\r\nQUIT\n"[..],
        &[0x20 | command, family],
        &length,
        rest,
    ]
    .concat()
}

/// Version 2 over IPv4, with something behind the addresses that is to be skipped.
fn v2_ipv4(source: [u8; 4]) -> Vec<u8> {
    let mut rest = source.to_vec();
    rest.extend_from_slice(&[127, 0, 0, 1, 0xc3, 0x50, 0x0c, 0xea, 0x05, 0, 3, 1, 2, 3]);
    v2(1, 0x11, &rest)
}

/// The host that the server's own words give to a client.
async fn host(mut raw: Raw) -> String {
    let refused = raw
        .login("app", "wrong", None, capability::USUAL)
        .await
        .unwrap_err();
    assert_eq!(refused.code, 1045);
    refused.message.split('\'').nth(3).unwrap().to_owned()
}

async fn clients_come_from_where_the_header_says(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = proxy(rig, "").await;
    let mut ipv6 = vec![0; 36];
    ipv6[..2].copy_from_slice(&[0x20, 0x01]);
    ipv6[15] = 9;
    for (header, expected) in [
        (v1("198.51.100.7"), "198.51.100.7"),
        (v1("2001::8"), "2001::8"),
        (v2_ipv4([198, 51, 100, 8]), "198.51.100.8"),
        (v2(1, 0x21, &ipv6), "2001::9"),
        // For itself, or for somebody without an address.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.2"),
        (v2(0, 0, &[]), "127.0.0.2"),
        (
            v2(0, 0x11, &[198, 51, 100, 9, 127, 0, 0, 1, 1, 1, 2, 2]),
            "127.0.0.2",
        ),
        (v2(1, 0x31, &[0; 216]), "127.0.0.2"),
    ] {
        assert_eq!(
            host(behind(proxy.port(), &header).await.unwrap()).await,
            expected
        );
        let mut raw = behind(proxy.port(), &header).await.unwrap();
        raw.login("app", "app", None, capability::USUAL)
            .await
            .unwrap();
        assert_eq!(
            raw.rows("SELECT 1").await.unwrap()[0][0].as_deref(),
            Some("1")
        );
    }
    // However it arrives.
    let mut stream = from(BALANCER, proxy.port()).await;
    for byte in v2_ipv4([198, 51, 100, 10]) {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert_eq!(
        host(Raw::over(stream).await.unwrap()).await,
        "198.51.100.10"
    );
    if flavor == Flavor::MySql {
        // There only the server can judge a password, and it knows no more than dbproxy's address.
        return;
    }
    // Accounts are chosen by that address.
    let own = "CREATE USER IF NOT EXISTS balanced@'198.51.100.%' IDENTIFIED BY 'one'";
    rig.cluster.primary().run(own).await.unwrap();
    let login = async |source: &str| {
        let mut raw = behind(proxy.port(), &v1(source)).await.unwrap();
        raw.login("balanced", "one", None, capability::USUAL).await
    };
    support::eventually("the account to be known", async || {
        login("198.51.100.1").await.is_ok()
    })
    .await;
    assert_eq!(login("203.0.113.1").await.unwrap_err().code, 1045);
}

async fn headers_are_demanded_of_balancers_only(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = proxy(rig, "login = \"2s\"").await;
    let mut refused = Vec::new();
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x20\0\0\x01\x85\xa6\xff\x01",
        b"PROXY TCP4 198.51.100.7\r\n",
        &v2(1, 0x11, &[0; 4]),
        &v2(5, 0x11, &[0; 12]),
        &[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
        // Only the time is up.
        b"",
        b"PROXY TCP4 198.51",
    ] {
        refused.push(behind(proxy.port(), nonsense).await.err().unwrap());
    }
    for refused in refused {
        assert_eq!(refused.code, 1043);
        assert!(
            refused.message.contains("listen.proxy_protocol"),
            "{}",
            refused.message
        );
    }
    // Anybody else speaks for itself.
    for header in [v1("198.51.100.7"), v2_ipv4([198, 51, 100, 7])] {
        let mut raw = Raw::over(from(Ipv4Addr::LOCALHOST, proxy.port()).await)
            .await
            .unwrap();
        raw.write(&header).await.unwrap();
        let refused = raw.refused().await;
        assert_eq!(refused.code, 1043);
        assert!(refused.message.contains("127.0.0.1"), "{}", refused.message);
        assert!(
            refused.message.contains("listen.proxy_protocol"),
            "{}",
            refused.message
        );
    }
    let mut raw = Raw::unix(&proxy.socket()).await.unwrap();
    raw.login("app", "app", None, capability::USUAL)
        .await
        .unwrap();
    proxy.must_run();
}

async fn limits_count_the_clients_own_address(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = proxy(rig, "address_connections = 2").await;
    let mut held = Vec::new();
    for client in 1..5 {
        for _ in 0..2 {
            let header = v2_ipv4([198, 51, 100, client]);
            held.push(behind(proxy.port(), &header).await.unwrap());
        }
    }
    let refused = behind(proxy.port(), &v1("198.51.100.3"))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code, 1040);
    assert!(
        refused.message.contains("198.51.100.3"),
        "{}",
        refused.message
    );
    drop(held);
    support::eventually("a place", async || {
        behind(proxy.port(), &v1("198.51.100.3")).await.is_ok()
    })
    .await;
}
