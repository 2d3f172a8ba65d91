//! The armour of public keys in full authentication (RFC 7468), and nothing else of PEM.

use crate::ProtocolError;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A SubjectPublicKeyInfo (DER) as a server sends it.
pub fn encode(der: &[u8]) -> String {
    let mut text = String::from(BEGIN);
    // 48 bytes make a line of 64 digits.
    for line in der.chunks(48) {
        text.push('\n');
        for group in line.chunks(3) {
            let bits = group
                .iter()
                .fold(0, |bits, &byte| bits << 8 | u32::from(byte))
                << (8 * (3 - group.len()));
            for place in 0..4 {
                let digit = DIGITS.get((bits >> (18 - 6 * place)) as usize & 63);
                text.push(
                    digit
                        .filter(|_| place <= group.len())
                        .map_or('=', |&digit| char::from(digit)),
                );
            }
        }
    }
    text.push('\n');
    text.push_str(END);
    text.push('\n');
    text
}

/// The SubjectPublicKeyInfo (DER) in what a server sent. What it holds is for the RSA implementation to judge.
///
/// # Errors
/// Anything that is not one armoured public key.
pub fn decode(pem: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    const BAD: ProtocolError = ProtocolError::Malformed("public key");
    let text = std::str::from_utf8(pem).map_err(|_| BAD)?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let body = text
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.strip_suffix(END))
        .ok_or(BAD)?;
    let digits = body.bytes().filter(|byte| !byte.is_ascii_whitespace());
    base64(digits).ok_or(BAD)
}

/// The bytes behind base64 digits, at least one; padding has to be there.
pub(super) fn base64(digits: impl Iterator<Item = u8>) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let (mut bits, mut count, mut padding) = (0_u32, 0, 0_usize);
    for byte in digits {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => 0,
            _ => return None,
        };
        match byte {
            b'=' => padding += 1,
            _ if padding > 0 => return None,
            _ => {}
        }
        bits = bits << 6 | u32::from(value);
        count += 1;
        if count == 4 {
            let [_, triple @ ..] = bits.to_be_bytes();
            let len = 3_usize.checked_sub(padding).filter(|&len| len > 0)?;
            decoded.extend(triple.iter().take(len));
            (bits, count) = (0, 0);
        }
    }
    (count == 0 && !decoded.is_empty()).then_some(decoded)
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

    #[test]
    fn round_trip_of_every_length() {
        for len in 1..200_u8 {
            let der: Vec<u8> = (0..len).map(|byte| byte.wrapping_mul(37)).collect();
            let text = encode(&der);
            assert!(text.lines().all(|line| line.len() <= 64));
            assert_eq!(decode(text.as_bytes()), Ok(der));
        }
    }

    #[test]
    fn known_text() {
        let text = encode(b"light work.");
        assert_eq!(
            text,
            "-----BEGIN PUBLIC KEY-----\nbGlnaHQgd29yay4=\n-----END PUBLIC KEY-----\n"
        );
        assert_eq!(
            decode(&[text.trim().as_bytes(), b"\0"].concat()),
            Ok(b"light work.".to_vec())
        );
    }

    #[test]
    fn nonsense_is_an_error() {
        for body in [
            "", "A", "AA", "AAA", "A===", "====", "AA=A", "AA==AAAA", "AA*A", "AAAAA",
        ] {
            assert!(
                decode(format!("{BEGIN}\n{body}\n{END}\n").as_bytes()).is_err(),
                "{body}"
            );
        }
        assert!(decode(b"-----BEGIN PUBLIC KEY-----").is_err());
        assert!(decode(b"\xff").is_err());
    }
}
