//! Body of the fuzz target: the text of a configuration.

use std::{io, path::Path};

use super::{SecretFile, Sources, parse};

/// Reads `data` as a configuration. Whatever is wrong is said without panicking, each problem at a place of the text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let lines = text.split('\n').count();
    if let Err(problems) = parse(text, "fuzz.toml", &Nothing) {
        assert!(!problems.to_string().is_empty());
        for problem in &problems.0 {
            let inside = |(line, column)| (1..=lines).contains(&line) && column > 0;
            assert!(problem.place.is_none_or(inside), "{problem:?}");
        }
    }
}

/// An environment without anything.
struct Nothing;

impl Sources for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &Path) -> io::Result<SecretFile> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn cores(&self) -> usize {
        1
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn seeds_and_their_beginnings() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in fs::read_dir(manifest.join("fuzz/seeds/config")).unwrap() {
            let seed = fs::read(file.unwrap().path()).unwrap();
            for end in (0..seed.len()).step_by(11).chain([seed.len()]) {
                run(&seed[..end]);
            }
        }
    }
}
