//! What logins proved, in memory only: the means to log in to servers as the same account.

use std::fmt;
use std::sync::Arc;

use dashmap::DashMap;
use dbproxy_proto::handshake::auth::{NativeStage1, NativeStage2};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::directory::{Account, AccountKey, Directory, Method};

/// What a successful login proved. Overwritten when the last holder lets go; never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// mysql_native_password: SHA1(password), which logs in to every server with that plugin.
    Native(Zeroizing<[u8; 20]>),
    /// The password itself.
    Password {
        /// It: most plugins want it, some a signature made with it.
        password: Zeroizing<Vec<u8>>,
        /// SHA256(password), for caching_sha2_password's fast logins.
        stage1: Zeroizing<[u8; 32]>,
    },
    /// The account has no password.
    Empty,
}

impl Proof {
    /// Whether it is that of the password with this digest, SHA256(password).
    pub fn is_of(&self, digest: &[u8; 32]) -> bool {
        match self {
            Self::Password { stage1, .. } => stage1.ct_eq(digest).into(),
            Self::Native(_) | Self::Empty => false,
        }
    }

    /// What mysql_native_password would store of the password, if that is known.
    pub fn native(&self) -> Option<NativeStage2> {
        match self {
            Self::Password { password, .. } => Some(NativeStage1::of(password).stage2()),
            Self::Native(_) | Self::Empty => None,
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native(_) => "Native([secret])",
            Self::Password { .. } => "Password([secret])",
            Self::Empty => "Empty",
        })
    }
}

/// A proof, and the stored hash that it was made against.
struct Proven {
    stored: Arc<[u8]>,
    proof: Arc<Proof>,
}

/// The proofs of all accounts, one for each way to log in. A proof lasts until the server stores another hash for it.
#[derive(Default)]
pub struct Credentials {
    proven: DashMap<AccountKey, Vec<Proven>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([secret])")
    }
}

impl Credentials {
    /// Nothing proven yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers that a login to `account` by `method`, whose stored hash the password fits, succeeded. It replaces an
    /// older proof.
    pub fn remember(&self, account: &Account, method: &Method, proof: Arc<Proof>) {
        let mut proven = self.proven.entry(account.key.clone()).or_default();
        proven.retain(|proven| holds(account, proven) && proven.stored != method.stored);
        proven.push(Proven {
            stored: method.stored.clone(),
            proof,
        });
    }

    /// What was proven for `account`, except against hashes that have changed since.
    ///
    /// `account` has to come from the present directory.
    pub fn proofs(&self, account: &Account) -> Vec<Arc<Proof>> {
        let Some(proven) = self.proven.get(&account.key) else {
            return Vec::new();
        };
        let holding = proven.iter().filter(|proven| holds(account, proven));
        holding.map(|proven| proven.proof.clone()).collect()
    }

    /// Forgets the proofs that do not hold in `directory` any more.
    pub fn retain(&self, directory: &Directory) {
        self.proven.retain(|key, proven| {
            let account = directory.account(key);
            proven.retain(|proven| account.is_some_and(|account| holds(account, proven)));
            !proven.is_empty()
        });
    }
}

fn holds(account: &Account, proven: &Proven) -> bool {
    account
        .methods
        .iter()
        .any(|method| method.stored == proven.stored)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use std::collections::BTreeMap;

    use tokio::time::Instant;

    use super::*;
    use crate::accounts::{Reading, Requirement};

    fn account(stored: &[u8]) -> Account {
        Account {
            key: AccountKey {
                user: "app".into(),
                host: "%".into(),
            },
            methods: vec![Method::new("caching_sha2_password", stored)],
            locked: false,
            expired: false,
            multi_factor: false,
            counted: false,
            requirement: Requirement::None,
        }
    }

    #[test]
    fn a_changed_password_ends_the_proof() {
        let credentials = Credentials::new();
        let before = account(b"$A$005$one");
        let proof = Arc::new(Proof::Password {
            password: Zeroizing::new(b"hush".to_vec()),
            stage1: Zeroizing::new([7; 32]),
        });
        credentials.remember(&before, &before.methods[0], proof.clone());
        credentials.remember(&before, &before.methods[0], proof.clone());
        assert_eq!(credentials.proofs(&before), std::slice::from_ref(&proof));
        assert_eq!(credentials.proofs(&account(b"$A$005$two")), []);

        // The password before counts as long as it is retained.
        let mut both = account(b"$A$005$two");
        both.methods.push(before.methods[0].clone());
        credentials.remember(&both, &both.methods[0], proof);
        assert_eq!(credentials.proofs(&both).len(), 2);

        let directory = |account| {
            let reading = Reading {
                accounts: vec![account],
                ..Reading::default()
            };
            Directory::new(&BTreeMap::new(), reading, Instant::now())
        };
        credentials.retain(&directory(before.clone()));
        assert_eq!(credentials.proofs(&before).len(), 1);
        credentials.retain(&directory(account(b"$A$005$two")));
        assert_eq!(credentials.proofs(&before), []);
    }

    #[test]
    fn secrets_are_not_shown() {
        let proof = Proof::Native(Zeroizing::new([9; 20]));
        assert!(!format!("{proof:?} {:?}", Credentials::new()).contains('9'));
    }
}
