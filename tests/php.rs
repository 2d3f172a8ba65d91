//! PHP's drivers: a script prints the same through the proxy as with the server itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::path::Path;

use dbproxy::cli::demo::cluster::Flavor;

use support::{Rig, output};

on_both_flavors!(mysqli, pdo);

async fn mysqli(flavor: Flavor) {
    same(flavor, "mysqli").await;
}

async fn pdo(flavor: Flavor) {
    same(flavor, "pdo").await;
}

/// Runs a script with the primary itself and through the proxy, each time in an empty schema.
async fn same(flavor: Flavor, name: &str) {
    let rig = Rig::shared(flavor).await;
    let schema = format!("php_{name}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/php")
        .join(format!("{name}.php"));
    let mut printed = Vec::new();
    let primary = rig.cluster.primary();
    for (port, socket) in [
        (primary.port(), primary.socket()),
        (rig.proxy.port(), rig.proxy.socket()),
    ] {
        rig.schema(&schema).await;
        let mut command = tokio::process::Command::new("php");
        command
            .args(["-d", "mysqli.allow_local_infile=1"])
            .arg(&script)
            .args(["127.0.0.1", &port.to_string()])
            .arg(socket)
            .args(["app", "app", &schema]);
        printed.push(output(command).await);
    }
    assert!(printed[0].lines().count() > 50, "{}", printed[0]);
    for (number, (direct, through)) in printed[0].lines().zip(printed[1].lines()).enumerate() {
        assert_eq!(through, direct, "line {}", number + 1);
    }
    assert_eq!(printed[1], printed[0]);
}
