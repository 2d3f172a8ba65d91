//! The certificate that clients see when none is given: made at the first start, and kept.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tracing::{info, warn};

use super::files::Shown;
use crate::{
    config::{Config, Identity},
    error::Error,
    state,
};

/// Certificate and key in one file: nobody can find one without the other.
const IDENTITY: &str = "tls-identity.pem";

/// The certificate alone, for those who are to verify it.
const CERTIFICATE: &str = "tls-certificate.pem";

const DAY: Duration = Duration::from_secs(86_400);

/// Where what clients see comes from.
pub(super) enum Source {
    /// From this file.
    Kept(Identity),
    /// From memory: there is no place to keep it.
    Lost(Shown),
}

/// The certificate of this proxy. `directory` is where the configuration wants it; there it must be possible.
pub(super) fn own(directory: Option<&Path>) -> Result<Source, Error> {
    let place = directory.unwrap_or_else(|| Path::new(Config::STATE_DIRECTORY));
    let file = place.join(IDENTITY);
    match kept(place, &file) {
        Ok(()) => Ok(Source::Kept(Identity {
            certificate: file.clone(),
            key: file,
        })),
        Err(error) if directory.is_some() => Err(Error::setup(format!(
            "state_directory: cannot keep a certificate in {}: {error}",
            place.display()
        ))),
        Err(error) => {
            warn!(
                directory = %place.display(), %error,
                "the certificate that clients see lasts until the next start: set state_directory, or tls.client.certificate and key"
            );
            let (certificate, key) = make().map_err(Error::setup)?;
            Ok(Source::Lost(Shown {
                chain: vec![certificate.der().clone()],
                key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            }))
        }
    }
}

/// Makes sure that the file is there.
fn kept(directory: &Path, file: &Path) -> io::Result<()> {
    if file.exists() {
        // Readable for this process?
        return fs::File::open(file).map(drop);
    }
    let (certificate, key) = make().map_err(io::Error::other)?;
    let text = certificate.pem() + &key.serialize_pem();
    state::write(directory, CERTIFICATE, certificate.pem().as_bytes(), 0o644)?;
    state::write(directory, IDENTITY, text.as_bytes(), 0o600)?;
    info!(
        certificate = %directory.join(CERTIFICATE).display(),
        "made a certificate for clients to see"
    );
    Ok(())
}

fn make() -> Result<(rcgen::Certificate, KeyPair), String> {
    let made = || {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params
            .distinguished_name
            .push(DnType::CommonName, "dbproxy, made by itself");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now();
        // A client's clock may be behind.
        params.not_before = (now - DAY).into();
        params.not_after = (now + 3650 * DAY).into();
        let key = KeyPair::generate()?;
        Ok::<_, rcgen::Error>((params.self_signed(&key)?, key))
    };
    made().map_err(|error| format!("cannot make a certificate: {error}"))
}
