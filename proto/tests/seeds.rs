//! Every seed of the fuzz targets through its body.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::Path;

use dbproxy_proto::fuzz;
use proptest::collection::vec;
use proptest::prelude::*;

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 9] = [
    ("command", fuzz::command),
    ("reply", fuzz::reply),
    ("response", fuzz::response),
    ("server_login", fuzz::server_login),
    ("client_login", fuzz::client_login),
    ("key", fuzz::key),
    ("gtid", fuzz::gtid),
    ("compress", fuzz::compress),
    ("stored", fuzz::stored),
];

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/seeds")
        .join(name);
    let files = fs::read_dir(directory).unwrap();
    files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn every_seed() {
    for (name, body) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            body(&seed);
            for end in 0..seed.len() {
                body(&seed[..end]);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(data in vec(any::<u8>(), 0..200)) {
        TARGETS.iter().for_each(|(_, body)| body(&data));
    }

    #[test]
    fn seeds_with_damage(at: prop::sample::Index, place: prop::sample::Index, byte: u8) {
        for (name, body) in TARGETS {
            let seeds = seeds(name);
            let mut seed = at.get(&seeds).clone();
            if !seed.is_empty() {
                let place = place.index(seed.len());
                seed[place] = byte;
            }
            body(&seed);
        }
    }
}
