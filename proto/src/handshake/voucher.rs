//! How a server vouches for a certificate that nobody has signed: by the password that it shares with the client.
//!
//! Clients of MariaDB 11.4 and later verify certificates unless they are told not to. One that is signed by itself they take if
//! the OK packet that ends the login has this in its info; nobody in the middle, who has another certificate, can make it. The
//! server sends it unasked: there is no capability for it, and other clients pay no attention to the info of a login. It only
//! means something where the client's answer did not give the password away: to mysql_native_password and to MariaDB's ed25519
//! and parsec, of which only the first is spoken to clients here.
//!
//! Source: <https://mariadb.org/mission-impossible-zero-configuration-ssl/>, <https://jira.mariadb.org/browse/MDEV-31855>.

use sha2::{Digest, Sha256};

use super::auth::{NativeStage2, Scramble};

/// The one kind of voucher that there is: SHA256.
const KIND: u8 = 0x01;

/// SHA256 of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

/// The info of the OK packet for a client that has answered `scramble` by mysql_native_password: the kind, and
/// SHA256(stored hash, scramble, fingerprint) in upper case hex digits, which is how clients compare it.
pub fn voucher(stored: &NativeStage2, scramble: &Scramble, fingerprint: &Fingerprint) -> Vec<u8> {
    let digest = Sha256::new()
        .chain_update(stored.as_bytes())
        .chain_update(scramble.as_bytes())
        .chain_update(fingerprint.0)
        .finalize();
    let mut info = vec![KIND];
    info.extend(digest.iter().flat_map(|byte| {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
        [byte >> 4, byte & 15].map(|nibble| digit(nibble).to_ascii_uppercase() as u8)
    }));
    info
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::auth::NativeStage1;
    use super::*;

    /// The answers were made by other means than these.
    #[test]
    fn vouchers() {
        for (password, scramble, certificate, expected) in [
            (
                "secret",
                b"abcdefghijklmnopqrst",
                "a certificate",
                "\x014CE3219EC19D0E4BEAEE32B9CA47B280F3EBEE5869E17A734E36EDDCCE69913B",
            ),
            (
                "\u{e4} password",
                b"ABCDEFGHIJKLMNOPQRST",
                "another",
                "\x01BD9FCBF6EA3D71643B13BBBDF0A7C75088C51A45E39984142B3355FFFB074228",
            ),
        ] {
            let stored = NativeStage1::of(password.as_bytes()).stage2();
            let scramble = Scramble::from_wire(scramble).unwrap();
            let fingerprint = Fingerprint::of(certificate.as_bytes());
            assert_eq!(
                voucher(&stored, &scramble, &fingerprint),
                expected.as_bytes()
            );
            let other = voucher(&stored, &scramble, &Fingerprint::of(b"yet another"));
            assert_ne!(other, expected.as_bytes());
        }
    }
}
