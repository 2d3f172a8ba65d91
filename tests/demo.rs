//! The demo: its tour ends well with both flavours.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::process::Command;

fn tour(flavor: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbproxy"));
    let output = command
        .args(["demo", "--once", "--flavor", flavor])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{said}");
    assert!(
        printed.contains("-> db1 (primary)") && printed.contains("(replica)"),
        "{printed}"
    );
}

#[test]
fn mariadb() {
    tour("mariadb");
}

#[test]
fn mysql() {
    tour("mysql");
}

#[test]
fn missing_servers_are_named_with_the_command_that_installs_them() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbproxy"));
    let nowhere = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nowhere");
    command
        .args(["demo", "--once", "--flavor", "mysql"])
        .env("DBPROXY_SERVERS", nowhere)
        .env("PATH", nowhere);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("compose/install-servers mysql"), "{said}");
}
