//! Who shares with whom what reads must see.

use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use tokio::time::Instant;

use super::directory::AccountKey;
use super::freshness::Scope;
use crate::sql::setting::ScopeKey;

/// Keys of an account that have a scope of their own; those beyond share the account's.
const KEYS: usize = 10_000;

/// All scopes of a cluster.
#[derive(Debug, Default)]
pub struct Scopes {
    accounts: DashMap<AccountKey, Arc<Scope>>,
    keys: DashMap<(AccountKey, ScopeKey), Arc<Scope>>,
    /// There from when somebody asks for it.
    everyone: OnceLock<Scope>,
    begun: OnceLock<()>,
}

impl Scopes {
    /// Nothing was written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What this account wrote.
    pub fn of_account(&self, key: &AccountKey) -> Arc<Scope> {
        if let Some(scope) = self.accounts.get(key) {
            return scope.clone();
        }
        self.accounts.entry(key.clone()).or_default().clone()
    }

    /// What the sessions of an account wrote that have this key, and what the account had written before there was one.
    ///
    /// Memory is bounded: scopes that no session holds are forgotten, and with too many keys it is all that the account writes.
    pub fn of_key(&self, account: &AccountKey, key: ScopeKey) -> Arc<Scope> {
        let whole = self.of_account(account);
        if self.keys.len() >= KEYS {
            self.keys.retain(|_, scope| Arc::strong_count(scope) > 1);
        }
        let place = (account.clone(), key);
        if let Some(scope) = self.keys.get(&place) {
            return scope.clone();
        }
        if self.keys.len() >= KEYS {
            return whole;
        }
        let scope = self
            .keys
            .entry(place)
            .or_insert_with(|| Arc::new(whole.branch()));
        scope.clone()
    }

    /// What everyone wrote. It is counted from the first call on; of what was before, no name is known.
    pub fn of_everyone(&self) -> &Scope {
        let scope = self.everyone.get_or_init(Scope::new);
        // Not before it can be found: whoever writes later than this counts it, and what was written earlier is before now.
        self.begun
            .get_or_init(|| scope.wrote_unknown(Instant::now()));
        scope
    }

    /// The same, if it is counted.
    pub fn of_everyone_if_counted(&self) -> Option<&Scope> {
        self.everyone.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(user: &str) -> AccountKey {
        AccountKey {
            user: user.into(),
            host: "%".into(),
        }
    }

    #[test]
    fn sessions_share_the_scope_of_their_account_and_key() {
        let scopes = Scopes::new();
        let (app, other) = (account("app"), account("other"));
        assert!(Arc::ptr_eq(
            &scopes.of_account(&app),
            &scopes.of_account(&app)
        ));
        let key = ScopeKey::new(b"visitor 1");
        let scope = scopes.of_key(&app, key);
        assert!(Arc::ptr_eq(&scope, &scopes.of_key(&app, key)));
        assert!(!Arc::ptr_eq(&scope, &scopes.of_key(&other, key)));
        assert!(!Arc::ptr_eq(
            &scope,
            &scopes.of_key(&app, ScopeKey::new(b"visitor 2"))
        ));
    }

    #[test]
    fn keys_without_sessions_are_forgotten_and_miss_nothing() {
        let scopes = Scopes::new();
        let app = account("app");
        let kept = scopes.of_key(&app, ScopeKey::new(b"kept"));
        kept.wrote(b"0-1-5", Instant::now());
        scopes.of_account(&app).wrote(b"0-1-5", Instant::now());
        for key in 0..2 * KEYS {
            scopes.of_key(&app, ScopeKey::new(&key.to_le_bytes()));
            assert!(scopes.keys.len() <= KEYS);
        }
        assert!(Arc::ptr_eq(
            &kept,
            &scopes.of_key(&app, ScopeKey::new(b"kept"))
        ));
        drop(kept);
        scopes.keys.clear();
        assert_eq!(
            scopes.of_key(&app, ScopeKey::new(b"kept")).position(),
            "0-0-5"
        );
    }

    #[test]
    fn too_many_keys_share_what_their_account_wrote() {
        let scopes = Scopes::new();
        let app = account("app");
        let held: Vec<_> = (0..KEYS)
            .map(|key| scopes.of_key(&app, ScopeKey::new(&key.to_le_bytes())))
            .collect();
        let beyond = scopes.of_key(&app, ScopeKey::new(b"one more"));
        assert!(Arc::ptr_eq(&beyond, &scopes.of_account(&app)));
        assert_eq!(held.len(), KEYS);
    }

    #[test]
    fn what_everyone_wrote_is_unknown_at_first() {
        let scopes = Scopes::new();
        assert!(scopes.of_everyone_if_counted().is_none());
        assert!(!scopes.of_everyone().is_known());
        assert!(scopes.of_everyone_if_counted().is_some());
    }
}
