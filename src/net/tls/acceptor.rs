//! What clients are met with.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
};

use dbproxy_proto::handshake::voucher::Fingerprint;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio::sync::{Semaphore, watch};

use super::{
    files::{self, Followed, Shown, follow},
    state::{self, Source},
};
use crate::{
    config::{ClientMode, ClientTls},
    error::Error,
};

/// Handshakes that one worker works on before it looks after everybody else again.
const AT_ONCE: usize = 2;

/// Whether a client may come in without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Any,
    /// Only on a unix socket.
    Secure,
}

/// Meets the clients of one worker.
#[derive(Debug)]
pub struct Acceptor {
    incoming: watch::Receiver<Arc<Incoming>>,
    pub(in crate::net) turns: Semaphore,
}

/// What clients see.
#[derive(Debug)]
pub struct Incoming {
    pub(in crate::net) config: Arc<ServerConfig>,
    /// Of the certificate that is shown.
    pub(in crate::net) fingerprint: Option<Fingerprint>,
}

impl Acceptor {
    /// An acceptor that shows what `incoming` says at the time.
    pub fn new(incoming: watch::Receiver<Arc<Incoming>>) -> Self {
        Self {
            incoming,
            turns: Semaphore::new(AT_ONCE),
        }
    }

    pub(in crate::net) fn incoming(&self) -> Arc<Incoming> {
        Arc::clone(&self.incoming.borrow())
    }
}

/// What clients see, from files or made here, and the work of following those files. `None` if TLS is disabled.
///
/// Errors: files that cannot be used.
pub fn for_clients(
    tls: &ClientTls,
    state_directory: Option<&Path>,
) -> Result<Option<Followed<Incoming>>, Error> {
    if tls.mode == ClientMode::Disabled {
        return Ok(None);
    }
    let source = match &tls.identity {
        Some(identity) => Source::Kept(identity.clone()),
        None => state::own(state_directory)?,
    };
    let ca = tls.ca.clone();
    let mut files: Vec<PathBuf> = ca.iter().cloned().collect();
    if let Source::Kept(identity) = &source {
        files.extend([identity.certificate.clone(), identity.key.clone()]);
    }
    let load = move || match &source {
        Source::Kept(identity) => incoming(files::identity(identity, SECTION)?, ca.as_deref()),
        Source::Lost(shown) => incoming(shown.clone(), ca.as_deref()),
    };
    follow(files, load).map(Some)
}

const SECTION: &str = "tls.client";

/// Reads the files that would be used, without making any.
pub fn check_for_clients(tls: &ClientTls) -> Result<(), Error> {
    if tls.mode == ClientMode::Disabled {
        return Ok(());
    }
    let Some(identity) = &tls.identity else {
        return tls
            .ca
            .as_deref()
            .map_or(Ok(()), |ca| authorities(ca).map(drop));
    };
    incoming(files::identity(identity, SECTION)?, tls.ca.as_deref()).map(drop)
}

fn authorities(path: &Path) -> Result<Arc<RootCertStore>, Error> {
    files::authorities(path, "tls.client.ca")
}

fn incoming(shown: Shown, ca: Option<&Path>) -> Result<Incoming, Error> {
    Ok(Incoming {
        fingerprint: shown.chain.first().map(|own| Fingerprint::of(own)),
        config: Arc::new(server_config(shown, ca)?),
    })
}

fn server_config(shown: Shown, ca: Option<&Path>) -> Result<ServerConfig, Error> {
    let failed = |error: &dyn Display| Error::setup(format!("{SECTION}: {error}"));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities(ca)?, provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| failed(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(shown.chain, shown.key)
        .map_err(|error| failed(&error))?;
    // Hardly a client of these resumes: what it takes would be in vain, and would outlive a change of authorities.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
