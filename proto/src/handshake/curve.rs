//! MariaDB's two plugins that sign a scramble with a key made from the password: ed25519 and parsec.
//!
//! Sources: <https://mariadb.com/docs/server/reference/plugins/authentication-plugins/authentication-plugin-ed25519>,
//! <https://mariadb.com/docs/server/reference/plugins/authentication-plugins/authentication-plugin-parsec>.

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use pbkdf2::pbkdf2_hmac;
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::pem::base64;

/// Bytes that a server sends to be signed.
pub(super) const CHALLENGE: usize = 32;

/// Length of a public key in base64 without its padding.
const KEY_TEXT: usize = 43;

/// The largest power of 2 in parsec's number of iterations, beyond the first ten: 8192 of them.
const MAX_FACTOR: u8 = 3;

/// What a server keeps of a password: a public key. No secret, but passwords can be tried against it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PublicKey([u8; 32]);

impl PublicKey {
    /// From the stored form: base64 without padding.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != KEY_TEXT {
            return None;
        }
        let key = base64(text.iter().copied().chain([b'=']))?;
        key.try_into().ok().map(Self)
    }

    /// Whether it is the key that ed25519 makes of `password`.
    pub(super) fn is_ed25519_of(&self, password: &[u8]) -> bool {
        self.equals(&VerifyingKey::from(&ed25519_key(password)))
    }

    /// Whether it is the key that parsec makes of `password`.
    pub(super) fn is_parsec_of(&self, password: &[u8], derivation: &Derivation) -> bool {
        self.equals(&derivation.key(password).verifying_key())
    }

    fn equals(&self, key: &VerifyingKey) -> bool {
        self.0.ct_eq(key.as_bytes()).into()
    }
}

/// ed25519: the password's SHA-512 is the expanded key, which usually is the hash of a random seed.
fn ed25519_key(password: &[u8]) -> ExpandedSecretKey {
    let hash: Zeroizing<[u8; 64]> = Zeroizing::new(Sha512::digest(password).into());
    ExpandedSecretKey::from_bytes(&hash)
}

/// ed25519: the signature that answers a challenge.
pub(super) fn ed25519_answer(challenge: &[u8; CHALLENGE], password: &[u8]) -> [u8; 64] {
    let key = ed25519_key(password);
    raw_sign::<Sha512>(&key, challenge, &VerifyingKey::from(&key)).to_bytes()
}

/// parsec: how a key is made from a password (PBKDF2 with HMAC-SHA512).
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Derivation {
    factor: u8,
    salt: Vec<u8>,
}

impl Derivation {
    /// From the packet in which a server tells it: `P`, the factor, the salt.
    pub(super) fn from_wire(packet: &[u8]) -> Option<Self> {
        match packet {
            [b'P', factor @ 0..=MAX_FACTOR, salt @ ..] if !salt.is_empty() => Some(Self {
                factor: *factor,
                salt: salt.to_vec(),
            }),
            _ => None,
        }
    }

    /// From the stored form, `P0:` and the salt in base64; `rest` is what follows the next colon.
    pub(super) fn parse(stored: &[u8]) -> Option<(Self, &[u8])> {
        let [b'P', factor @ b'0'..=b'9', b':', rest @ ..] = stored else {
            return None;
        };
        let factor = factor - b'0';
        let colon = rest.iter().position(|&byte| byte == b':')?;
        let (salt, key) = rest.split_at_checked(colon)?;
        let padding = std::iter::repeat_n(b'=', salt.len().next_multiple_of(4) - salt.len());
        let salt = base64(salt.iter().copied().chain(padding))?;
        (factor <= MAX_FACTOR).then_some((Self { factor, salt }, key.get(1..)?))
    }

    fn key(&self, password: &[u8]) -> SigningKey {
        let mut seed = Zeroizing::new([0; 32]);
        pbkdf2_hmac::<Sha512>(password, &self.salt, 1024 << self.factor, &mut *seed);
        SigningKey::from_bytes(&seed)
    }

    /// The answer to a challenge: `nonce` and a signature over both.
    pub(super) fn answer(
        &self,
        challenge: &[u8; CHALLENGE],
        nonce: &[u8; CHALLENGE],
        password: &[u8],
    ) -> Vec<u8> {
        let signature = self
            .key(password)
            .sign(&[&challenge[..], nonce].concat())
            .to_bytes();
        [&nonce[..], &signature].concat()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use ed25519_dalek::Signature;

    use super::*;

    #[test]
    fn ed25519_signs_what_the_public_key_verifies() {
        // ed25519_password('secret')
        let text = b"ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY";
        let key = PublicKey::parse(text).unwrap();
        assert!(key.is_ed25519_of(b"secret") && !key.is_ed25519_of(b"Secret"));
        let signature = Signature::from_bytes(&ed25519_answer(&[7; 32], b"secret"));
        let verifying = VerifyingKey::from_bytes(&key.0).unwrap();
        assert!(verifying.verify_strict(&[7; 32], &signature).is_ok());
        assert!(verifying.verify_strict(&[8; 32], &signature).is_err());
        assert!(PublicKey::parse(&text[1..]).is_none());
        assert!(PublicKey::parse(&[b'*'; 43]).is_none());
    }

    #[test]
    fn parsec_signs_both_nonces() {
        let derivation = Derivation::from_wire(b"P\x01eighteen bytes, yes").unwrap();
        let answer = derivation.answer(&[1; 32], &[2; 32], b"secret");
        let (nonce, signature) = answer.split_at(32);
        assert_eq!(nonce, [2; 32]);
        let key = derivation.key(b"secret").verifying_key();
        let signature = Signature::from_slice(signature).unwrap();
        let message = [[1; 32], [2; 32]].concat();
        assert!(key.verify_strict(&message, &signature).is_ok());
        assert!(PublicKey(*key.as_bytes()).is_parsec_of(b"secret", &derivation));
        assert!(!PublicKey(*key.as_bytes()).is_parsec_of(b"secrets", &derivation));
        for wrong in [&b""[..], b"P", b"P\x00", b"P\x04salt", b"Q\x00salt"] {
            assert!(Derivation::from_wire(wrong).is_none());
        }
    }

    #[test]
    fn parsec_reads_what_servers_store() {
        // The documentation's example.
        let stored = b"P0:WW9sXaaL/o:vubFBzIrapbfHct1/J72dnUryz5VS7lA6XHH8sIx4TI";
        let (derivation, key) = Derivation::parse(stored).unwrap();
        assert_eq!((derivation.factor, derivation.salt.len()), (0, 7));
        assert!(PublicKey::parse(key).is_some());
        for wrong in [
            &b""[..],
            b"P0",
            b"P0:",
            b"P0:abcd",
            b"P4:abcd:x",
            b"P0:*:x",
            b"X0:abcd:x",
        ] {
            assert!(Derivation::parse(wrong).is_none());
        }
    }
}
