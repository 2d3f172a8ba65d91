//! What an account asks of its connections: `REQUIRE` in SQL.

use std::fmt;

/// What a connection must have before it may be the account's.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    #[default]
    None,
    /// `REQUIRE SSL`.
    Tls,
    /// `REQUIRE X509`: a certificate by a known authority.
    Certificate,
    /// `REQUIRE` with `CIPHER`, `ISSUER` or `SUBJECT`.
    Named(Named),
}

/// What has to be exactly so; empty: anything.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// The cipher suite as OpenSSL calls it.
    pub cipher: String,
    /// Who signed the certificate, in OpenSSL's one line.
    pub issuer: String,
    /// Whose certificate it is, in OpenSSL's one line.
    pub subject: String,
}

/// What a login needs to succeed, whatever the names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Demand {
    /// Neither.
    #[default]
    Nothing,
    /// TLS.
    Tls,
    /// TLS and a certificate of one's own.
    Certificate,
}

/// What a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport<'a> {
    /// The cipher suite.
    pub cipher: &'a str,
    /// Issuer and subject of the peer's verified certificate.
    pub certificate: Option<(&'a str, &'a str)>,
}

impl Requirement {
    /// Whether a connection has what is asked for; `None` is one without TLS.
    pub fn is_met(&self, transport: Option<Transport<'_>>) -> bool {
        let Some(transport) = transport else {
            return *self == Self::None;
        };
        match self {
            Self::None | Self::Tls => true,
            Self::Certificate => transport.certificate.is_some(),
            Self::Named(named) => named.is_met(transport),
        }
    }

    /// What the proxy needs when it logs in itself.
    pub fn demand(&self) -> Demand {
        match self {
            Self::None => Demand::Nothing,
            Self::Certificate => Demand::Certificate,
            Self::Named(named) if named.needs_certificate() => Demand::Certificate,
            Self::Tls | Self::Named(_) => Demand::Tls,
        }
    }
}

impl Named {
    fn needs_certificate(&self) -> bool {
        !(self.issuer.is_empty() && self.subject.is_empty())
    }

    fn is_met(&self, transport: Transport<'_>) -> bool {
        let fits = |wanted: &str, found| wanted.is_empty() || wanted == found;
        let shown = match transport.certificate {
            Some((issuer, subject)) => fits(&self.issuer, issuer) && fits(&self.subject, subject),
            None => !self.needs_certificate(),
        };
        shown && fits(&self.cipher, transport.cipher)
    }
}

impl fmt::Debug for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("NONE"),
            Self::Tls => f.write_str("SSL"),
            Self::Certificate => f.write_str("X509"),
            Self::Named(named) => write!(
                f,
                "CIPHER {:?} ISSUER {:?} SUBJECT {:?}",
                named.cipher, named.issuer, named.subject
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_must_have_what_is_asked_for() {
        let named = |cipher: &str, issuer: &str, subject: &str| {
            Requirement::Named(Named {
                cipher: cipher.to_owned(),
                issuer: issuer.to_owned(),
                subject: subject.to_owned(),
            })
        };
        let bare = Some(Transport {
            cipher: "AES",
            certificate: None,
        });
        let shown = Some(Transport {
            cipher: "AES",
            certificate: Some(("/CN=ca", "/CN=me")),
        });
        for (requirement, without, with_tls, with_certificate) in [
            (Requirement::None, true, true, true),
            (Requirement::Tls, false, true, true),
            (Requirement::Certificate, false, false, true),
            (named("AES", "", ""), false, true, true),
            (named("DES", "", ""), false, false, false),
            (named("", "/CN=ca", ""), false, false, true),
            (named("", "", "/CN=me"), false, false, true),
            (named("AES", "/CN=ca", "/CN=me"), false, false, true),
            (named("", "/CN=me", "/CN=me"), false, false, false),
            (named("", "/CN=ca", "/CN=ME"), false, false, false),
        ] {
            let met = [None, bare, shown].map(|transport| requirement.is_met(transport));
            assert_eq!(requirement.demand() == Demand::Nothing, without);
            assert_eq!(
                met,
                [without, with_tls, with_certificate],
                "{requirement:?}"
            );
        }
    }
}
