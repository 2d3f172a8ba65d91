//! What logins proved, in memory only: the means to log in to servers as the same account.

use std::fmt;
use std::sync::Arc;

use dashmap::DashMap;
use zeroize::Zeroizing;

use super::directory::{Account, AccountKey, Directory, Method};

/// What a successful login proved. Overwritten when the last holder lets go; never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// mysql_native_password: SHA1(password), which logs in to every server with that plugin.
    Native(Zeroizing<[u8; 20]>),
    /// caching_sha2_password.
    Sha2 {
        /// The password: a server that has not seen the account yet wants it whole.
        password: Zeroizing<Vec<u8>>,
        /// SHA256(password), for fast logins.
        stage1: Zeroizing<[u8; 32]>,
    },
    /// The account has no password.
    Empty,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native(_) => "Native([secret])",
            Self::Sha2 { .. } => "Sha2([secret])",
            Self::Empty => "Empty",
        })
    }
}

/// A proof, and the stored hash that it was made against.
struct Proven {
    stored: Arc<[u8]>,
    proof: Arc<Proof>,
}

/// The proofs of all accounts. A proof lasts until the server stores another hash for its account.
#[derive(Default)]
pub struct Credentials {
    proven: DashMap<AccountKey, Proven>,
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

    /// Remembers that a login to `account` by `method` succeeded. It replaces an older proof.
    pub fn remember(&self, account: &Account, method: &Method, proof: Proof) {
        let proven = Proven {
            stored: method.stored.clone(),
            proof: Arc::new(proof),
        };
        self.proven.insert(account.key.clone(), proven);
    }

    /// What was proven for `account`; `None` if nothing was, or if the hash has changed since.
    ///
    /// `account` has to come from the present directory.
    pub fn proof(&self, account: &Account) -> Option<Arc<Proof>> {
        let found = self.proven.get(&account.key)?;
        holds(account, &found).then(|| found.proof.clone())
    }

    /// Forgets the proof of one account, as after a server refused it.
    pub fn forget(&self, key: &AccountKey) {
        self.proven.remove(key);
    }

    /// Forgets the proofs that do not hold in `directory` any more.
    pub fn retain(&self, directory: &Directory) {
        self.proven.retain(|key, proven| {
            directory
                .account(key)
                .is_some_and(|account| holds(account, proven))
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
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    fn account(stored: &[u8]) -> Account {
        Account {
            key: AccountKey {
                user: "app".into(),
                host: "%".into(),
            },
            methods: vec![Method::new("caching_sha2_password", stored)],
            locked: false,
            expired: false,
            requires_tls: false,
        }
    }

    #[test]
    fn a_changed_password_ends_the_proof() {
        let credentials = Credentials::new();
        let before = account(b"$A$005$one");
        let proof = Proof::Sha2 {
            password: Zeroizing::new(b"hush".to_vec()),
            stage1: Zeroizing::new([7; 32]),
        };
        credentials.remember(&before, before.method().unwrap(), proof.clone());
        assert_eq!(*credentials.proof(&before).unwrap(), proof);
        assert_eq!(credentials.proof(&account(b"$A$005$two")), None);

        let directory = |account| Directory::new(&BTreeMap::new(), vec![account]);
        credentials.retain(&directory(before.clone()));
        assert!(credentials.proof(&before).is_some());
        credentials.retain(&directory(account(b"$A$005$two")));
        assert!(credentials.proof(&before).is_none());
    }

    #[test]
    fn secrets_are_not_shown() {
        let proof = Proof::Native(Zeroizing::new([9; 20]));
        assert!(!format!("{proof:?} {:?}", Credentials::new()).contains('9'));
    }
}
