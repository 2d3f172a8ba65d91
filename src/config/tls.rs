//! TLS: what clients are shown, and how servers are spoken to.

use std::path::PathBuf;

use super::ServerConfig;
use super::check::Section;
use super::keys;
use super::keys::Key;
use super::kind::FilePath;
use super::kind::Own;
use super::kind::Report;

/// TLS on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// To clients.
    pub client: ClientTls,
    /// To servers.
    pub server: ServerTls,
}

impl Tls {
    /// How `server` is spoken to.
    pub fn mode_towards(&self, server: &ServerConfig) -> ServerMode {
        server.tls.unwrap_or(self.server.mode)
    }
}

/// TLS to clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Whether it is offered, and whether it has to be used.
    pub mode: ClientMode,
    /// What clients are shown; one that is made at the first start if this is absent.
    pub identity: Option<Identity>,
    /// Who signs the certificates of clients, if any are asked for.
    pub ca: Option<PathBuf>,
}

/// Whether clients are offered TLS, and whether they have to use it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientMode {
    /// Not offered.
    Disabled,
    /// Offered.
    #[default]
    Optional,
    /// Needed to log in, except on a unix socket.
    Required,
}

/// TLS to servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// For servers that do not say otherwise.
    pub mode: ServerMode,
    /// Who signs the certificates of servers; present if a mode verifies them.
    pub ca: Option<PathBuf>,
    /// What servers are shown that ask for a certificate.
    pub identity: Option<Identity>,
}

/// How a server is spoken to. Never with TLS on a unix socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerMode {
    /// Without TLS.
    Disabled,
    /// With TLS if the server offers it and is on another machine, or if the account needs it.
    #[default]
    Preferred,
    /// With TLS or not at all; any certificate will do.
    Required,
    /// As `Required`, and a known authority has signed the certificate.
    VerifyCa,
    /// As `VerifyCa`, and the certificate is for the name or address that stands in the configuration.
    VerifyIdentity,
}

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and behind it those that lead to the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

pub(super) fn tls(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Tls> {
    let client = client(&section.section("client"), report);
    let server = server(&section.section("server"), report);
    Some(Tls {
        client: client?,
        server: server?,
    })
}

fn client(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<ClientTls> {
    let mode = section.read(&keys::TLS_CLIENT_MODE, report);
    let (certificate, key) = (&keys::TLS_CLIENT_CERTIFICATE, &keys::TLS_CLIENT_KEY);
    let identity = identity(section, certificate, key, report);
    let ca = section.read(&keys::TLS_CLIENT_CA, report);
    Some(ClientTls {
        mode: mode?,
        identity: identity?,
        ca: ca?,
    })
}

fn server(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<ServerTls> {
    let mode = section.read(&keys::TLS_SERVER_MODE, report);
    let ca = section.read(&keys::TLS_SERVER_CA, report);
    let (certificate, key) = (&keys::TLS_SERVER_CERTIFICATE, &keys::TLS_SERVER_KEY);
    let identity = identity(section, certificate, key, report);
    let (mode, ca) = (mode?, ca?);
    if let (Some(value), None) = (section.value("mode"), &ca) {
        needs_ca(mode, value.span(), "tls.server.mode", report);
    }
    Some(ServerTls {
        mode,
        ca,
        identity: identity?,
    })
}

/// Reports a mode that verifies certificates against nothing.
pub(super) fn needs_ca(
    mode: ServerMode,
    span: std::ops::Range<usize>,
    key: &str,
    report: &mut Report<'_>,
) {
    if mode >= ServerMode::VerifyCa {
        let message = "needs tls.server.ca, the certificates to verify against";
        report.error(span, key, message);
    }
}

/// Certificate and key are given together or not at all.
fn identity(
    section: &Section<'_, '_>,
    certificate: &Key<Own<FilePath>>,
    key: &Key<Own<FilePath>>,
    report: &mut Report<'_>,
) -> Option<Option<Identity>> {
    let given = (section.read(certificate, report), section.read(key, report));
    let lacking = match (given.0?, given.1?) {
        (None, None) => return Some(None),
        (Some(certificate), Some(key)) => return Some(Some(Identity { certificate, key })),
        (Some(_), None) => ("certificate", certificate.path, key.path),
        (None, Some(_)) => ("key", key.path, certificate.path),
    };
    let (name, path, other) = lacking;
    let span = section.value(name).map(toml::Spanned::span);
    report.error(
        span.unwrap_or_default(),
        path,
        format!("needs {other} as well"),
    );
    None
}
