//! The key pair with which clients on plain TCP send their passwords.

use std::sync::Arc;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey},
};
use dbproxy_proto::handshake::{auth::SecretBytes, pem};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::error::Error;

/// The key pair with which clients on plain TCP send their passwords.
#[derive(Debug)]
pub struct ServerKey {
    private: OaepPrivateDecryptingKey,
    public: Arc<[u8]>,
    // Decrypting takes about a millisecond: a flood of logins must not take all the workers' time.
    turns: Semaphore,
}

/// Decryptions at a time.
const TURNS: usize = 2;

impl ServerKey {
    /// A new key pair; takes some tenths of a second.
    pub fn generate() -> Result<Self, Error> {
        let failed = |_| Error::setup("cannot make an RSA key pair for password exchange");
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(failed)?;
        let der: PublicKeyX509Der<'_> = private.public_key().as_der().map_err(failed)?;
        let public = pem::encode(der.as_ref()).into_bytes().into();
        let private = OaepPrivateDecryptingKey::new(private).map_err(failed)?;
        Ok(Self {
            private,
            public,
            turns: Semaphore::new(TURNS),
        })
    }

    /// The public key as clients want it (PEM).
    pub fn public(&self) -> &Arc<[u8]> {
        &self.public
    }

    /// What a client encrypted; None if it was not for this key.
    pub async fn decrypt(&self, ciphertext: &[u8]) -> Option<SecretBytes> {
        let _turn = self.turns.acquire().await;
        let mut plaintext = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let decrypted = self
            .private
            .decrypt(&OAEP_SHA1_MGF1SHA1, ciphertext, &mut plaintext, None)
            .ok()?;
        Some(SecretBytes::from(&*decrypted))
    }
}
