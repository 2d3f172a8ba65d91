//! Thousands of clusters in a time of their own: whatever goes wrong, nothing acknowledged is lost, nobody writes in two places,
//! and in the end there is one primary.
//!
//! `SIMULATE_SEED=n cargo test --test simulation seeds` runs one seed and prints what happened in it; `SIMULATE_SEEDS=n` (or
//! `make simulate SEEDS=n`) runs so many of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "simulation/mod.rs"]
mod model;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dbproxy::topology::Flavor;
use model::matrix::{self, Then};
use model::mutations::Mutation;
use model::rng::Rng;
use model::runs;
use model::setup::Setup;
use tokio::time::Instant;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on all processors.
fn each(seeds: std::ops::Range<u64>, run: impl Fn(u64) -> bool + Sync) {
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !run(seed) {
                        break;
                    }
                }
            });
        }
    });
}

#[test]
fn seeds_hold() {
    let base = Instant::now();
    if let Some(seed) = number("SIMULATE_SEED") {
        let outcome = runs::seed(seed, None, base, true);
        println!("{}", outcome.log.join("\n"));
        assert_eq!(outcome.violation, None, "seed {seed}");
        return;
    }
    let seeds = number("SIMULATE_SEEDS").unwrap_or(800);
    let first = number("SIMULATE_FROM").unwrap_or_default();
    let failed = Mutex::new(Vec::new());
    let all = Mutex::new(runs::Outcome::default());
    each(first..first + seeds, |seed| {
        let outcome = runs::seed(seed, None, base, false);
        let mut all = all.lock().unwrap();
        all.failovers += outcome.failovers;
        all.writes += outcome.writes;
        all.lost += outcome.lost;
        all.took += outcome.took;
        if let Some(text) = outcome.violation {
            failed.lock().unwrap().push((seed, text));
        }
        true
    });
    let all = all.into_inner().unwrap();
    println!(
        "{seeds} seeds, {} changes of the primary, {} writes acknowledged, {} of them lost with leave, {} s of virtual time in \
         {:.1} s",
        all.failovers,
        all.writes,
        all.lost,
        all.took / model::SECOND,
        base.elapsed().as_secs_f32()
    );
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    for (seed, text) in failed.iter().take(40) {
        println!("SIMULATE_SEED={seed}: {text}");
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds fail", failed.len());
}

/// The seed replays exactly.
#[test]
fn a_seed_says_the_same_twice() {
    let base = Instant::now();
    for seed in 0..20 {
        let logs = [0, 1].map(|_| runs::seed(seed, None, base, true).log);
        assert!(logs[0] == logs[1], "seed {seed}");
        assert!(logs[0].len() > 20);
    }
}

#[test]
fn the_fault_matrix_holds() {
    let base = Instant::now();
    let mut wrong = Vec::new();
    for row in matrix::rows() {
        for flavor in [Flavor::MySql, Flavor::MariaDb] {
            for seed in 0..5 {
                let mut setup = Setup::plain(flavor);
                setup.read_only_in_config = !row.name.contains("writable");
                (row.change)(&mut setup);
                let calm = 22 * model::SECOND;
                let outcome =
                    runs::run(setup, &row.faults, calm, None, Rng::new(seed), base, false);
                let journal = &outcome.journal;
                let failover = journal.contains(" is dead: ") && journal.contains("plan failover");
                let right = match row.then {
                    Then::Replaced => failover && outcome.primary != Some(0),
                    Then::By(place) => failover && outcome.primary == Some(place),
                    Then::Kept => !journal.contains("plan failover") && outcome.primary == Some(0),
                    Then::Reopened => {
                        !failover && outcome.primary == Some(0) && journal.contains("plan reopen")
                    }
                    Then::Open => true,
                    Then::Switched => !failover && outcome.primary == Some(2),
                };
                if !right || !journal.contains(row.says) || outcome.violation.is_some() {
                    wrong.push(format!(
                        "{} ({flavor}, {seed}): {:?}, primary {:?}\n{journal}{}",
                        row.name, outcome.violation, outcome.primary, outcome.answers
                    ));
                    break;
                }
            }
        }
    }
    assert!(matrix::rows().len() >= 25);
    assert!(
        wrong.is_empty(),
        "{} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_mistake_is_noticed() {
    let base = Instant::now();
    let unnoticed: Vec<Mutation> = Mutation::ALL
        .into_iter()
        .filter(|mutation| {
            let found = Mutex::new(None);
            each(0..MUTATED, |seed| {
                let outcome = runs::seed(seed, Some(*mutation), base, false);
                if let Some(text) = outcome.violation.filter(|text| mutation.explains(text)) {
                    found.lock().unwrap().get_or_insert((seed, text));
                }
                found.lock().unwrap().is_none()
            });
            let found = found.into_inner().unwrap();
            match &found {
                Some((seed, text)) => println!("{mutation:?}: seed {seed}: {text}"),
                None => println!("{mutation:?}: not noticed"),
            }
            found.is_none()
        })
        .collect();
    assert_eq!(unnoticed, []);
}

/// A mistake that is not found in so many seeds is not noticed.
const MUTATED: u64 = 6000;
