//! Body of the fuzz target: everything in this room that reads foreign bytes.

use xxhash_rust::xxh3::xxh3_64;

use super::{Dialect, classify, digest_text, kill, set, use_schema, with_connection_id};

/// Classifies `data` and reads it as SET, USE and KILL, and looks for CONNECTION_ID().
///
/// The first byte chooses the dialect. Panics are findings; so is a digest that is not the hash of
/// the digest text.
#[expect(clippy::missing_panics_doc, reason = "said above")]
pub fn run(data: &[u8]) {
    let Some((mode, sql)) = data.split_first() else {
        return;
    };
    let maria = mode & 1 != 0;
    let dialect = Dialect {
        ansi_quotes: mode & 2 != 0,
        no_backslash_escapes: mode & 4 != 0,
        escape_ambiguous: mode & 8 != 0,
        ..Dialect::of(maria, if maria { 101_119 } else { 80_408 })
    };
    let class = classify(sql, dialect);
    let text = digest_text(sql, dialect, usize::MAX);
    if std::str::from_utf8(sql).is_ok() {
        assert_eq!(class.digest, xxh3_64(text.as_bytes()), "{text}");
    }
    let _ = class.hint;
    let _ = set::parse(sql, dialect);
    let _ = use_schema(sql, dialect);
    let _ = kill::parse(sql, dialect);
    let _ = with_connection_id(sql, dialect, u32::MAX);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn seeds_and_their_beginnings() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in fs::read_dir(manifest.join("fuzz/seeds/sql")).unwrap() {
            let seed = fs::read(file.unwrap().path()).unwrap();
            for end in 0..=seed.len() {
                run(&seed[..end]);
            }
        }
    }
}
