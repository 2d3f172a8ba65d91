//! TLS, in both directions.
//!
//! [`Acceptor`] is what clients are met with, [`Connector`] how servers are spoken to. Both follow their files. The
//! library is used as a transformation of bytes: the sockets stay what they are.

mod acceptor;
mod connector;
mod files;
mod handshake;
mod layer;
mod name;
mod state;

use dbproxy_proto::handshake::voucher::Fingerprint;
use rustls::{CipherSuite, CommonState, ProtocolVersion};

pub use acceptor::{Acceptor, Admission, Incoming, check_for_clients, for_clients};
pub(super) use connector::explain;
pub use connector::{Connector, Outgoing, for_servers};
pub use files::Followed;
pub(super) use handshake::{Agreed, accept, connect};

/// What is known of the other side of a connection with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// The version as OpenSSL calls it, such as `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite as OpenSSL calls it: this is the name in `REQUIRE CIPHER`.
    pub cipher: &'static str,
    /// The certificate that the other side has shown, verified if it is a client's.
    pub certificate: Option<Names>,
    /// Of the certificate that this side has shown to a client.
    pub shown: Option<Fingerprint>,
    /// The name that a client asked for (SNI).
    pub server_name: Option<String>,
}

/// The names in a certificate as OpenSSL writes them in one line, such as `/C=SE/O=MySQL/CN=db1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Whose certificate it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
}

impl Secured {
    fn of(connection: &CommonState) -> Self {
        let certificate = connection
            .peer_certificates()
            .and_then(|chain| Names::of(chain.first()?));
        Self {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "",
            },
            cipher: connection
                .negotiated_cipher_suite()
                .map_or("", |suite| openssl_name(suite.suite())),
            certificate,
            shown: None,
            server_name: None,
        }
    }
}

/// The suites that are spoken here.
fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}
