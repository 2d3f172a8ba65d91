//! Authentication plugins: scrambles, tokens, and what proves what.
//!
//! For both challenge-response plugins, `stage1 = H(password)` is enough to log in and `stage2 = H(stage1)` is enough to verify, and
//! whoever verifies a token learns stage1. H is SHA1 for mysql_native_password and SHA256 for caching_sha2_password.
//!
//! Sources: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_authentication_methods_native_password_authentication.html>,
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html>.

use std::fmt;
use std::ops::Deref;

use sha1::{Digest, Sha1};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// An authentication plugin by its name on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AuthPlugin {
    /// `mysql_native_password`
    MysqlNativePassword,
    /// `caching_sha2_password`
    CachingSha2Password,
    /// `mysql_clear_password`
    MysqlClearPassword,
    /// `sha256_password`
    Sha256Password,
    /// `client_ed25519`, which MariaDB's accounts call `ed25519`
    Ed25519,
    /// `parsec`
    Parsec,
    /// `dialog`, by which MariaDB's `pam` asks questions
    Dialog,
    /// Any other.
    Other(String),
}

impl AuthPlugin {
    /// From the name as sent by a peer.
    pub fn from_name(name: &[u8]) -> Self {
        match name {
            b"mysql_native_password" => Self::MysqlNativePassword,
            b"caching_sha2_password" => Self::CachingSha2Password,
            b"mysql_clear_password" => Self::MysqlClearPassword,
            b"sha256_password" => Self::Sha256Password,
            b"client_ed25519" => Self::Ed25519,
            b"parsec" => Self::Parsec,
            b"dialog" => Self::Dialog,
            other => Self::Other(String::from_utf8_lossy(other).into_owned()),
        }
    }

    /// The name on the wire.
    pub fn name(&self) -> &str {
        match self {
            Self::MysqlNativePassword => "mysql_native_password",
            Self::CachingSha2Password => "caching_sha2_password",
            Self::MysqlClearPassword => "mysql_clear_password",
            Self::Sha256Password => "sha256_password",
            Self::Ed25519 => "client_ed25519",
            Self::Parsec => "parsec",
            Self::Dialog => "dialog",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for AuthPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether others can read what goes over the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// A unix socket, or TLS: a password may be sent as it is.
    Secure,
    /// Plain TCP.
    Plain,
}

/// The random bytes that a token answers to. No secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scramble([u8; 20]);

impl Scramble {
    /// Length in bytes.
    pub const LEN: usize = 20;

    /// From random bytes, mapped to what may stand in a greeting: 7-bit, neither NUL nor `$`.
    pub fn from_random(random: [u8; Self::LEN]) -> Self {
        Self(random.map(|byte| match byte & 0x7F {
            byte @ (0 | b'$') => byte + 1,
            byte => byte,
        }))
    }

    /// From a peer's packet. A NUL behind the 20 bytes is usual; short scrambles do not exist since 4.1.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first_chunk() {
            Some((scramble, [] | [0])) => Some(Self(*scramble)),
            _ => None,
        }
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// Secret bytes of any length: a password, or a payload that may hold one. Wiped when dropped, compared in constant time, never
/// printed.
#[derive(Clone, Default)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes the bytes over.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for SecretBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretBytes {}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        ///
        /// Wiped when dropped, compared in constant time, never printed.
        #[derive(Clone)]
        pub struct $name([u8; $len]);

        impl $name {
            /// From the digest itself.
            pub const fn new(digest: [u8; $len]) -> Self {
                Self(digest)
            }

            /// The digest.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[secret]")
            }
        }
    };
}

digest!(
    /// mysql_native_password: SHA1(password). As good as the password for this plugin.
    NativeStage1,
    20
);
digest!(
    /// mysql_native_password: SHA1(SHA1(password)), what servers store as `*` and 40 hex digits.
    NativeStage2,
    20
);
digest!(
    /// caching_sha2_password: SHA256(password). As good as the password for fast authentication.
    Sha2Stage1,
    32
);
digest!(
    /// caching_sha2_password: SHA256(SHA256(password)), what servers keep in their cache.
    Sha2Stage2,
    32
);

impl NativeStage1 {
    /// Of a password.
    pub fn of(password: &[u8]) -> Self {
        Self(Sha1::digest(password).into())
    }

    /// What a server stores of it.
    pub fn stage2(&self) -> NativeStage2 {
        NativeStage2(Sha1::digest(self.0).into())
    }

    /// The answer to `scramble`: `stage1 XOR SHA1(scramble + stage2)`.
    pub fn token(&self, scramble: &Scramble) -> [u8; 20] {
        xor(&self.0, &self.stage2().mask(scramble))
    }
}

impl NativeStage2 {
    /// From the stored form: `*` and 40 hex digits.
    pub fn parse(stored: &str) -> Option<Self> {
        let digits = stored
            .strip_prefix('*')
            .filter(|digits| digits.len() == 40)?;
        let mut digest = Self([0; 20]);
        let mut nibbles = digits.chars().map(|digit| digit.to_digit(16));
        for byte in &mut digest.0 {
            *byte = (nibbles.next()?? << 4 | nibbles.next()??) as u8;
        }
        Some(digest)
    }

    /// The stored form, upper case.
    pub fn to_stored(&self) -> String {
        self.0.iter().fold(String::from("*"), |text, byte| {
            text + &format!("{byte:02X}")
        })
    }

    fn mask(&self, scramble: &Scramble) -> [u8; 20] {
        Sha1::new()
            .chain_update(scramble.0)
            .chain_update(self.0)
            .finalize()
            .into()
    }
}

/// Checks a client's mysql_native_password answer against the stored hash. A right one gives SHA1(password) away.
pub fn native_verify(
    stored: &NativeStage2,
    scramble: &Scramble,
    token: &[u8; 20],
) -> Option<NativeStage1> {
    let stage1 = NativeStage1(xor(token, &stored.mask(scramble)));
    (stage1.stage2() == *stored).then_some(stage1)
}

impl Sha2Stage1 {
    /// Of a password.
    pub fn of(password: &[u8]) -> Self {
        Self(Sha256::digest(password).into())
    }

    /// What a server keeps of it.
    pub fn stage2(&self) -> Sha2Stage2 {
        Sha2Stage2(Sha256::digest(self.0).into())
    }

    /// The answer to `scramble`: `stage1 XOR SHA256(stage2 + scramble)`.
    pub fn token(&self, scramble: &Scramble) -> [u8; 32] {
        xor(&self.0, &self.stage2().mask(scramble))
    }
}

impl Sha2Stage2 {
    fn mask(&self, scramble: &Scramble) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.0)
            .chain_update(scramble.0)
            .finalize()
            .into()
    }
}

/// Checks a client's caching_sha2_password answer against the cached digest. A right one gives SHA256(password) away.
pub fn sha2_verify(
    known: &Sha2Stage2,
    scramble: &Scramble,
    token: &[u8; 32],
) -> Option<Sha2Stage1> {
    let stage1 = Sha2Stage1(xor(token, &known.mask(scramble)));
    (stage1.stage2() == *known).then_some(stage1)
}

/// The message that is encrypted with the server's key in full authentication, or what comes out of decrypting it: XOR with the
/// repeated scramble, which is its own inverse.
pub fn rsa_mask(message: &[u8], scramble: &Scramble) -> SecretBytes {
    SecretBytes(
        message
            .iter()
            .zip(scramble.0.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect(),
    )
}

/// What is known about an account when logging in to a server, any subset of it. Nothing at all is an account without password.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// The password; an empty one is no password.
    pub password: Option<SecretBytes>,
    /// Enough for mysql_native_password.
    pub native_stage1: Option<NativeStage1>,
    /// Enough for caching_sha2_password while the server has the account in its cache.
    pub sha2_stage1: Option<Sha2Stage1>,
}

impl Secrets {
    /// Whether the account has no password.
    pub fn is_empty(&self) -> bool {
        self.password().is_none() && self.native_stage1.is_none() && self.sha2_stage1.is_none()
    }

    pub(super) fn password(&self) -> Option<&SecretBytes> {
        self.password
            .as_ref()
            .filter(|password| !password.is_empty())
    }

    pub(super) fn native(&self) -> Option<NativeStage1> {
        let derived = || self.password().map(|password| NativeStage1::of(password));
        self.native_stage1.clone().or_else(derived)
    }

    pub(super) fn sha2(&self) -> Option<Sha2Stage1> {
        let derived = || self.password().map(|password| Sha2Stage1::of(password));
        self.sha2_stage1.clone().or_else(derived)
    }
}

fn xor<const N: usize>(left: &[u8; N], right: &[u8; N]) -> [u8; N] {
    let mut result = *left;
    for (byte, mask) in result.iter_mut().zip(right) {
        *byte ^= mask;
    }
    result
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use mysql_common::scramble::{scramble_native, scramble_sha256};

    use super::*;

    const SCRAMBLE: Scramble = Scramble(*b"abcdefghijklmnopqrst");

    #[test]
    fn tokens_agree_with_the_oracle() {
        let nonce = SCRAMBLE.as_bytes();
        assert_eq!(
            Some(NativeStage1::of(b"secret").token(&SCRAMBLE)),
            scramble_native(nonce, b"secret")
        );
        assert_eq!(
            Some(Sha2Stage1::of(b"secret").token(&SCRAMBLE)),
            scramble_sha256(nonce, b"secret")
        );
    }

    #[test]
    fn a_right_token_gives_stage1_away() {
        let native = NativeStage1::of(b"secret");
        assert!(
            native_verify(&native.stage2(), &SCRAMBLE, &native.token(&SCRAMBLE)).unwrap() == native
        );
        let sha2 = Sha2Stage1::of(b"secret");
        assert!(sha2_verify(&sha2.stage2(), &SCRAMBLE, &sha2.token(&SCRAMBLE)).unwrap() == sha2);
    }

    #[test]
    fn a_wrong_bit_anywhere_is_refused() {
        let native = NativeStage1::of(b"secret");
        let sha2 = Sha2Stage1::of(b"secret");
        for bit in 0..160 {
            let mut token = native.token(&SCRAMBLE);
            token[bit / 8] ^= 1 << (bit % 8);
            assert!(native_verify(&native.stage2(), &SCRAMBLE, &token).is_none());
            let mut token = sha2.token(&SCRAMBLE);
            token[bit / 8] ^= 1 << (bit % 8);
            assert!(sha2_verify(&sha2.stage2(), &SCRAMBLE, &token).is_none());
        }
    }

    #[test]
    fn stored_hashes() {
        // SELECT PASSWORD('secret')
        let stored = "*14E65567ABDB5135D0CFD9A70B3032C179A49EE7";
        let stage2 = NativeStage2::parse(stored).unwrap();
        assert!(stage2 == NativeStage1::of(b"secret").stage2());
        assert_eq!(stage2.to_stored(), stored);
        assert!(NativeStage2::parse(&stored.to_lowercase()).unwrap() == stage2);
        for wrong in [
            "",
            "*",
            &stored[1..],
            &stored[..40],
            "*G4E65567ABDB5135D0CFD9A70B3032C179A49EE7",
            "*é4E65567ABDB5135D0CFD9A70B3032C179A49EE",
        ] {
            assert!(NativeStage2::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn scrambles_hold_nothing_that_ends_a_string() {
        for byte in 0..=255 {
            let scramble = Scramble::from_random([byte; 20]);
            assert!(
                scramble
                    .0
                    .iter()
                    .all(|&byte| byte < 0x80 && byte != 0 && byte != b'$')
            );
        }
        assert_eq!(
            Scramble::from_wire(b"abcdefghijklmnopqrst\0"),
            Some(SCRAMBLE)
        );
        assert_eq!(Scramble::from_wire(b"abcdefghijklmnopqrst"), Some(SCRAMBLE));
        assert_eq!(Scramble::from_wire(b"abcdefgh"), None);
        assert_eq!(Scramble::from_wire(b"abcdefghijklmnopqrstu"), None);
    }

    #[test]
    fn secrets_are_not_printed() {
        let secrets = Secrets {
            password: Some(SecretBytes::from(&b"secret"[..])),
            native_stage1: Some(NativeStage1::of(b"secret")),
            sha2_stage1: None,
        };
        let text = format!("{secrets:?} {:?}", NativeStage1::of(b"a").stage2());
        assert_eq!(
            text,
            "Secrets { password: Some([secret]), native_stage1: Some([secret]), sha2_stage1: None } [secret]"
        );
    }

    #[test]
    fn the_mask_is_its_own_inverse() {
        let message = b"a password longer than the scramble\0";
        assert_eq!(
            &rsa_mask(&rsa_mask(message, &SCRAMBLE), &SCRAMBLE)[..],
            message
        );
    }
}
