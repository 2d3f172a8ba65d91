//! How servers are spoken to.

use std::{fmt::Display, io, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::sync::watch;

use super::files::{self, Followed, Shown, follow};
use crate::{
    config::{ServerMode, ServerTls},
    error::{Error, tls_problem},
};

/// How one server is spoken to.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Whether there is TLS, and what is asked of the certificate.
    pub mode: ServerMode,
    outgoing: watch::Receiver<Arc<Outgoing>>,
}

/// What servers see, and what they have to show, by what is verified.
#[derive(Debug)]
pub struct Outgoing {
    unverified: Arc<ClientConfig>,
    authority: Option<Arc<ClientConfig>>,
    identity: Option<Arc<ClientConfig>>,
    has_certificate: bool,
}

impl Connector {
    /// A connector that shows and verifies what `outgoing` says at the time.
    pub fn new(mode: ServerMode, outgoing: watch::Receiver<Arc<Outgoing>>) -> Self {
        Self { mode, outgoing }
    }

    /// Whether a server that asks for a certificate is shown one.
    pub fn has_certificate(&self) -> bool {
        self.outgoing.borrow().has_certificate
    }

    pub(in crate::net) fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let outgoing = self.outgoing.borrow();
        let config = match self.mode {
            ServerMode::Disabled | ServerMode::Preferred | ServerMode::Required => {
                Some(&outgoing.unverified)
            }
            ServerMode::VerifyCa => outgoing.authority.as_ref(),
            ServerMode::VerifyIdentity => outgoing.identity.as_ref(),
        };
        let missing = || io::Error::other("tls.server.ca is missing");
        config.map(Arc::clone).ok_or_else(missing)
    }
}

/// What is shown to servers and asked of them, and the work of following the files.
///
/// Errors: files that cannot be used.
pub fn for_servers(tls: &ServerTls) -> Result<Followed<Outgoing>, Error> {
    let tls = tls.clone();
    let identity = tls.identity.iter();
    let files = identity.flat_map(|files| [&files.certificate, &files.key]);
    let files = files.chain(&tls.ca).cloned().collect();
    follow(files, move || outgoing(&tls))
}

const SECTION: &str = "tls.server";

fn outgoing(tls: &ServerTls) -> Result<Outgoing, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let shown = tls.identity.as_ref();
    let shown = shown
        .map(|files| files::identity(files, SECTION))
        .transpose()?;
    let with = |verifier| client_config(&provider, verifier, shown.clone()).map(Arc::new);
    let authorities = tls.ca.as_deref().map(authorities).transpose()?;
    let verifier = authorities
        .map(|roots| {
            let provider = Arc::clone(&provider);
            WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| failed(&error))
        })
        .transpose()?;
    let verifying = |what: fn(Arc<WebPkiServerVerifier>) -> Arc<dyn ServerCertVerifier>| {
        verifier
            .clone()
            .map(|verifier| with(what(verifier)))
            .transpose()
    };
    Ok(Outgoing {
        unverified: with(Arc::new(AnyCertificate(Arc::clone(&provider))))?,
        authority: verifying(|verifier| Arc::new(AnyName(verifier)))?,
        identity: verifying(|verifier| verifier)?,
        has_certificate: tls.identity.is_some(),
    })
}

fn authorities(path: &Path) -> Result<Arc<RootCertStore>, Error> {
    files::authorities(path, "tls.server.ca")
}

fn failed(error: &dyn Display) -> Error {
    Error::setup(format!("{SECTION}: {error}"))
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    shown: Option<Shown>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match shown {
        None => Ok(builder.with_no_client_auth()),
        Some(Shown { chain, key }) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| failed(&error)),
    }
}

/// Why a connection with TLS could not be made, in words.
pub(in crate::net) fn explain(error: io::Error) -> io::Error {
    let found = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let text = match found {
        Some(error) => tls_problem(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection in the middle of the handshake".to_owned()
        }
        None => return error,
    };
    io::Error::new(error.kind(), text)
}

/// Verifies nothing: `required` is against those who listen, not against those who interfere.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // Nothing would be won by knowing that an unknown key has signed.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies everything but the name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .0
            .verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            // The name is looked at last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
