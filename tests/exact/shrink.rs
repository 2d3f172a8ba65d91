//! The few steps of many that a difference needs.

use std::time::Duration;

use dbproxy::cli::demo::cluster::Cluster;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::Proxy;
use crate::support::raw::Raw;
use crate::support::raw::capability;
use crate::talk::Step;
use crate::{Client, Difference, sharing};

/// No more of it than a person waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Others who want the only connection at any time, and leave much behind.
const NOISE: &[&str] = &[
    "SET SESSION sql_mode = 'ANSI', time_zone = '+11:00', NAMES latin1, div_precision_increment = 7",
    "SELECT 1 / 0, CAST('noise' AS SIGNED)",
    "INSERT INTO noise (a) VALUES (1), (2), (3)",
    "SELECT SQL_CALC_FOUND_ROWS id FROM noise LIMIT 1",
    "SET @a = 'noise', @b = 'noise'",
    "SELEKT noise",
    "RESET",
    "BEGIN",
    "SET SESSION foreign_key_checks = 0, unique_checks = 0, sql_big_selects = 0, sql_select_limit = 1",
    "ROLLBACK",
];

/// The shortest beginning found that still ends in a difference, tried with one connection for several sessions.
pub(crate) async fn shrunk(cluster: &Cluster, client: &Client, steps: Vec<Step>) -> String {
    let proxy = sharing(cluster, 1).await;
    let _noise = noise(cluster, &proxy).await;
    let number = client.schema.trim_start_matches(char::is_alphabetic);
    let number: usize = number.parse().unwrap();
    let tried = async |steps: &[Step]| -> Option<Difference> {
        let client = Client::new(cluster, &proxy, number).await;
        client.run(steps.to_vec()).await.err()
    };
    let deadline = Instant::now() + PATIENCE;
    let Some(mut difference) = tried(&steps).await else {
        return listed(
            "not seen again with one connection; the last steps were",
            &steps,
        );
    };
    let mut steps = steps;
    steps.truncate(difference.at + 1);
    let mut chunk = steps.len().div_ceil(2);
    while chunk > 0 && Instant::now() < deadline {
        let mut start = 0;
        while start < steps.len() && Instant::now() < deadline {
            let mut fewer = steps.clone();
            fewer.drain(start..steps.len().min(start + chunk));
            match tried(&fewer).await {
                Some(found) => {
                    fewer.truncate(found.at + 1);
                    (steps, difference) = (fewer, found);
                }
                None => start += chunk,
            }
        }
        chunk /= 2;
    }
    listed("the same with fewer steps", &steps) + &difference.to_string()
}

pub(crate) fn listed(what: &str, steps: &[Step]) -> String {
    let last = &steps[steps.len().saturating_sub(40)..];
    let lines: Vec<String> = last.iter().map(|step| format!("    {step}\n")).collect();
    format!("  {what}:\n{}", lines.concat())
}

/// Sessions that use every moment in which nobody else has the connection, until the result is dropped.
pub(crate) async fn noise(cluster: &Cluster, proxy: &Proxy) -> JoinSet<()> {
    let sql = "CREATE DATABASE IF NOT EXISTS xq_noise; \
               CREATE TABLE IF NOT EXISTS xq_noise.noise (id INT AUTO_INCREMENT PRIMARY KEY, a INT)";
    cluster.primary().run(sql).await.unwrap();
    let mut noise = JoinSet::new();
    for _ in 0..3 {
        noise.spawn(make_noise(proxy.port()));
    }
    noise
}

async fn make_noise(port: u16) {
    let mut raw = Raw::tcp(port).await.unwrap();
    raw.login("app", "app", Some("xq_noise"), capability::USUAL)
        .await
        .unwrap();
    for sql in NOISE.iter().cycle() {
        if *sql == "RESET" {
            raw.send(&[0x1f]).await;
            raw.packet().await.unwrap();
        } else {
            raw.query(sql).await;
            raw.answer(&[]).await;
        }
    }
}
