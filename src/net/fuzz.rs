//! Body of the fuzz target: the header in front of a connection from a load balancer.

use super::proxy_header::{Found, find};

/// Looks for a header at the front of `data`. What is found does not change with what comes behind it, and nothing is
/// found, for better or worse, before it is there.
pub fn proxy_header(data: &[u8]) {
    let found = find(data);
    let longer = [data, b"\r\n"].concat();
    match found {
        Found::Part => {}
        Found::Nonsense => assert_eq!(find(&longer), found),
        Found::Header { len, .. } => {
            assert!(len <= data.len(), "{len}");
            assert_eq!(find(&longer), found);
            let header = data.get(..len).unwrap_or_default();
            assert_eq!(find(header), found);
            let shorter = header.split_last().map_or(header, |(_, shorter)| shorter);
            assert_eq!(find(shorter), Found::Part);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, path::Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seeds_and_their_beginnings() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in fs::read_dir(manifest.join("fuzz/seeds/proxy_header")).unwrap() {
            let seed = fs::read(file.unwrap().path()).unwrap();
            for end in 0..=seed.len() {
                proxy_header(seed.get(..end).unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes(version in 0_usize..3, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let front: &[u8] = match version {
                0 => b"",
                1 => b"PROXY ",
                _ => b"\r\n\r\n\0\r\nQUIT\n",
            };
            proxy_header(&[front, &bytes].concat());
        }
    }
}
