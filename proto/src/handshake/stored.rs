//! What servers store of passwords, and whether a password fits.

use std::fmt;

use subtle::ConstantTimeEq;

use super::auth::{NativeStage1, NativeStage2};
use super::crypt::{DIGITS, sha256_crypt};
use super::curve::{Derivation, PublicKey};

/// Longer passwords fit nothing: servers refuse to store them, and the time of a check grows with the length.
const LONGEST: usize = 256;

/// Bytes of salt in a stored hash of caching_sha2_password.
const SALT: usize = 20;

/// Rounds of sha256_password.
const ROUNDS: u32 = 5000;

/// A password's stored form. Not printed: passwords can be tried against it.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    /// mysql_native_password
    Native(NativeStage2),
    /// caching_sha2_password and sha256_password
    Crypted {
        rounds: u32,
        salt: Vec<u8>,
        digits: [u8; DIGITS],
    },
    /// ed25519
    Ed25519(PublicKey),
    /// parsec
    Parsec {
        derivation: Derivation,
        key: PublicKey,
    },
}

impl Stored {
    /// What `plugin`, by the server's name for it, stores as `bytes`; `None` if it is another plugin or another form.
    pub fn parse(plugin: &str, bytes: &[u8]) -> Option<Self> {
        let form = match plugin {
            "mysql_native_password" => {
                Form::Native(NativeStage2::parse(std::str::from_utf8(bytes).ok()?)?)
            }
            "caching_sha2_password" => {
                let rest = bytes.strip_prefix(b"$A$")?;
                let (rounds, rest) = rest.split_first_chunk::<3>()?;
                // In thousands, hexadecimal.
                let rounds = u32::from_str_radix(std::str::from_utf8(rounds).ok()?, 16).ok()?;
                let (salt, digits) = rest.strip_prefix(b"$")?.split_at_checked(SALT)?;
                crypted(rounds.checked_mul(1000)?, salt, digits)?
            }
            "sha256_password" => {
                let rest = bytes.strip_prefix(b"$5$")?;
                let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
                crypted(ROUNDS, rest.strip_suffix(b"$")?, digits)?
            }
            "ed25519" => Form::Ed25519(PublicKey::parse(bytes)?),
            "parsec" => {
                let (derivation, key) = Derivation::parse(bytes)?;
                let key = PublicKey::parse(key)?;
                Form::Parsec { derivation, key }
            }
            _ => return None,
        };
        Some(Self(form))
    }

    /// Whether it is `password`'s. Takes some milliseconds, as the stored form is slow on purpose: about a second with
    /// the 4,095,000 rounds of `$A$FFF`.
    pub fn fits(&self, password: &[u8]) -> bool {
        if password.is_empty() || password.len() > LONGEST {
            return false;
        }
        match &self.0 {
            Form::Native(stage2) => NativeStage1::of(password).stage2() == *stage2,
            Form::Crypted {
                rounds,
                salt,
                digits,
            } => sha256_crypt(password, salt, *rounds).ct_eq(digits).into(),
            Form::Ed25519(key) => key.is_ed25519_of(password),
            Form::Parsec { derivation, key } => key.is_parsec_of(password, derivation),
        }
    }

    /// mysql_native_password's hash, against which a token can be checked without the password.
    pub const fn native(&self) -> Option<&NativeStage2> {
        match &self.0 {
            Form::Native(stage2) => Some(stage2),
            _ => None,
        }
    }
}

fn crypted(rounds: u32, salt: &[u8], digits: &[u8]) -> Option<Form> {
    Some(Form::Crypted {
        rounds,
        salt: salt.to_vec(),
        digits: digits.try_into().ok()?,
    })
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
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
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(pair).collect()
    }

    /// Read from servers: MySQL 9.7 with 5000 and with 10000 rounds, MariaDB 10.11.
    #[test]
    fn the_password_fits_and_no_other() {
        let sha2 = |hex| (unhex(hex), "caching_sha2_password");
        for (stored, plugin) in [
            sha2(
                "24412430303524235B3014296A7F731B3630236D74335D7A3A737A6E32667277497A36553668333444384565785A\
                 436D555A6D7259302E68482E424D714E6F3151336E6D6744",
            ),
            sha2(
                "24412430304124742B483E50585E3509136D450F2522253E56512C5A66675931693449664B3834756D754C7A2E7A\
                 327A523768515033746D43383766464F686C596949432E34",
            ),
            (
                unhex(
                    "243524661013746470167F323C27780F6829507B434F712469382F6964625938316F336E6D34565379536B32\
                     4A6A6A4D534D324E475834644C50626A5A574152304639",
                ),
                "sha256_password",
            ),
            (
                b"*14E65567ABDB5135D0CFD9A70B3032C179A49EE7".to_vec(),
                "mysql_native_password",
            ),
            (
                b"ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY".to_vec(),
                "ed25519",
            ),
        ] {
            let parsed = Stored::parse(plugin, &stored).unwrap();
            assert!(parsed.fits(b"secret"), "{plugin}");
            for wrong in [&b""[..], b"Secret", b"secret\0", &[b's'; 1 << 20]] {
                assert!(!parsed.fits(wrong), "{plugin}");
            }
            assert_eq!(format!("{parsed:?}"), "[secret]");
            assert_eq!(parsed.native().is_some(), plugin.contains("native"));
            assert!(Stored::parse(plugin, &stored[1..]).is_none(), "{plugin}");
            assert!(Stored::parse(plugin, &stored[..stored.len() - 1]).is_none());
            assert!(Stored::parse("unix_socket", &stored).is_none());
        }
    }

    #[test]
    fn what_no_password_fits() {
        let reserved = b"$A$005$THISISACOMBINATIONOFINVALIDSALTANDPASSWORDTHATMUSTNEVERBRBEUSED";
        let stored = Stored::parse("caching_sha2_password", reserved).unwrap();
        assert!(!stored.fits(b"secret"));
        for (plugin, form) in [
            ("caching_sha2_password", &b""[..]),
            ("caching_sha2_password", b"$A$00\xff$"),
            ("sha256_password", b"$5$"),
            ("parsec", b"P0:"),
            ("ed25519", b"invalid"),
        ] {
            assert!(Stored::parse(plugin, form).is_none(), "{plugin}");
        }
    }
}
