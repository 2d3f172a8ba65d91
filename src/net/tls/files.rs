//! What stands in files: reading it, and reading it again when it has changed.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{sync::watch, time};
use tracing::{info, warn};

use crate::{
    config::{FileMark, Identity},
    error::Error,
};

/// How often the files are looked at.
const PERIOD: Duration = Duration::from_secs(2);

/// A certificate with the chain behind it, and its key.
pub(super) struct Shown {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Clone for Shown {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

pub(super) fn identity(files: &Identity, section: &str) -> Result<Shown, Error> {
    let failed = |what: &str, path: &Path, why: String| {
        Error::setup(format!("{section}.{what}: {}: {why}", path.display()))
    };
    let chain = certificates(&files.certificate)
        .map_err(|why| failed("certificate", &files.certificate, why))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| failed("key", &files.key, in_words(error, "private key")))?;
    Ok(Shown { chain, key })
}

pub(super) fn authorities(path: &Path, key: &str) -> Result<Arc<RootCertStore>, Error> {
    let failed = |why: String| Error::setup(format!("{key}: {}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    let found = certificates(path).map_err(failed)?;
    // A bundle of a system may hold a few that are too odd to be used.
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 {
        return Err(failed("no certificate in it can be used".to_owned()));
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| in_words(error, "certificate"))?;
    if certificates.is_empty() {
        return Err("holds no certificate in PEM".to_owned());
    }
    Ok(certificates)
}

fn in_words(error: rustls::pki_types::pem::Error, what: &str) -> String {
    use rustls::pki_types::pem::Error as Pem;
    match error {
        Pem::Io(error) => error.to_string(),
        Pem::NoItemsFound => format!("holds no {what} in PEM, or one with a passphrase"),
        error => format!("not PEM: {error}"),
    }
}

/// Something that stands in files.
pub struct Followed<T> {
    /// As it is now.
    pub current: watch::Receiver<Arc<T>>,
    /// The work of reading it again when a file has changed, until nobody listens any more. What cannot be read is
    /// told of, and changes nothing.
    pub following: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Follows the files that `load` reads. Errors: they cannot be used now.
pub(super) fn follow<T: Send + Sync + 'static>(
    files: Vec<PathBuf>,
    load: impl Fn() -> Result<T, Error> + Send + 'static,
) -> Result<Followed<T>, Error> {
    // Before they are read: a change in between is not missed.
    let seen = marks(&files);
    let (sender, current) = watch::channel(Arc::new(load()?));
    let following = Box::pin(keep_up(files, seen, load, sender));
    Ok(Followed { current, following })
}

async fn keep_up<T>(
    files: Vec<PathBuf>,
    mut seen: Vec<FileMark>,
    load: impl Fn() -> Result<T, Error>,
    current: watch::Sender<Arc<T>>,
) {
    let names: Vec<_> = files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let names = names.join(", ");
    while !files.is_empty() && !current.is_closed() {
        time::sleep(PERIOD).await;
        let now = marks(&files);
        if now == seen {
            continue;
        }
        seen = now;
        match load() {
            Ok(next) => {
                info!(files = names, "certificates are read again");
                current.send_replace(Arc::new(next));
            }
            Err(error) => {
                warn!(%error, "certificates have changed and cannot be used: the old ones stay");
            }
        }
    }
}

fn marks(files: &[PathBuf]) -> Vec<FileMark> {
    files.iter().map(|file| FileMark::of(file)).collect()
}
