//! SHA-crypt with SHA-256, by which servers store passwords: slow on purpose, and with a salt of 20 bytes.
//!
//! Source: <https://www.akkadia.org/drepper/SHA-crypt.txt>, which allows only 16 bytes of salt.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Digits of a crypted password.
pub(super) const DIGITS: usize = 43;

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Crypts `password`. The time it takes grows with `rounds` and with the password's length.
pub(super) fn sha256_crypt(password: &[u8], salt: &[u8], rounds: u32) -> [u8; DIGITS] {
    let twice = Sha256::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize();
    let mut mixed = Sha256::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(repeated(&twice, password.len()));
    let mut bits = password.len();
    while bits > 0 {
        mixed.update(if bits & 1 == 1 { &twice[..] } else { password });
        bits >>= 1;
    }
    let mut digest: Zeroizing<[u8; 32]> = Zeroizing::new(mixed.finalize().into());

    let mut many = Sha256::new();
    for _ in 0..password.len() {
        many.update(password);
    }
    let password = repeated(&many.finalize(), password.len());
    let mut many = Sha256::new();
    let [first, ..] = *digest;
    for _ in 0..16 + usize::from(first) {
        many.update(salt);
    }
    let salt = repeated(&many.finalize(), salt.len());

    for round in 0..rounds {
        let odd = round % 2 == 1;
        let mut next = Sha256::new();
        next.update(if odd { &password[..] } else { &digest[..] });
        if round % 3 != 0 {
            next.update(&salt[..]);
        }
        if round % 7 != 0 {
            next.update(&password[..]);
        }
        next.update(if odd { &digest[..] } else { &password[..] });
        *digest = next.finalize().into();
    }
    digits(&digest)
}

/// `len` bytes: the digest again and again.
fn repeated(digest: &[u8], len: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(digest.iter().copied().cycle().take(len).collect())
}

/// Three bytes make four digits, in an order of their own.
fn digits(digest: &[u8; 32]) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    let mut places = digits.iter_mut();
    let byte = |at: usize| digest.get(at).copied().map_or(0, u32::from);
    for group in 0..11 {
        let (high, middle, low) = match group {
            10 => (0, byte(31), byte(30)),
            _ => {
                let first = [0, 10, 20].map(|start| byte((start + 21 * group) % 30));
                (first[0], first[1], first[2])
            }
        };
        let mut bits = high << 16 | middle << 8 | low;
        for place in places.by_ref().take(4) {
            *place = ALPHABET
                .get(bits as usize & 63)
                .copied()
                .unwrap_or_default();
            bits >>= 6;
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From another implementation (crypt(3)).
    #[test]
    fn known_answers() {
        let long = "a password of more than thirty-two bytes, to wrap the digest around";
        for (password, salt, rounds, crypted) in [
            (
                "Hello world!",
                "saltstring",
                5000,
                "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
            ),
            (
                "Hello world!",
                "saltstringsaltst",
                10000,
                "3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
            ),
            (
                "",
                "abc",
                5000,
                "bBHLwRRW2Li0XKaX13kz/g2fkDil4Jx46aNvd.48MS8",
            ),
            (
                long,
                "x",
                1000,
                "JXvyctGu/mHLXJsz2Q6iKV0DcpsgSqSpGDnQHBoco01",
            ),
        ] {
            let found = sha256_crypt(password.as_bytes(), salt.as_bytes(), rounds);
            assert_eq!(String::from_utf8_lossy(&found), crypted, "{password}");
        }
    }
}
