//! Who shares with whom what reads must see.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dbproxy_proto::gtid::{GtidPosition, GtidSet, Position};
use tokio::time::Instant;

use super::directory::AccountKey;
use super::freshness::Scope;
use crate::sql::setting::ScopeKey;
use crate::topology::Flavor;

/// Keys that have a scope of their own; those beyond have their account's.
const KEYS: usize = 50_000;

/// A key that nobody has used for so long has nothing to remember any more.
const UNUSED: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Keyed {
    scope: Arc<Scope>,
    /// When a session had it last, as far as that was asked for.
    used: Instant,
}

/// All scopes of a cluster.
#[derive(Debug, Default)]
pub struct Scopes {
    accounts: DashMap<AccountKey, Arc<Scope>>,
    keys: DashMap<(AccountKey, ScopeKey), Keyed>,
    /// When it was last looked for keys that nobody uses.
    purged: Mutex<Option<Instant>>,
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
    /// Memory is bounded: keys that nobody has used for a while are forgotten, and with too many there is none for the next.
    pub fn of_key(&self, account: &AccountKey, key: ScopeKey, now: Instant) -> Option<Arc<Scope>> {
        let place = (account.clone(), key);
        if let Some(mut keyed) = self.keys.get_mut(&place) {
            keyed.used = now;
            return Some(Arc::clone(&keyed.scope));
        }
        if self.keys.len() >= KEYS {
            self.purge(now);
        }
        if self.keys.len() >= KEYS {
            return None;
        }
        let branch = || Keyed {
            scope: Arc::new(self.of_account(account).branch()),
            used: now,
        };
        let keyed = self.keys.entry(place).or_insert_with(branch);
        Some(Arc::clone(&keyed.scope))
    }

    fn purge(&self, now: Instant) {
        let mut purged = self.purged.lock().unwrap_or_else(PoisonError::into_inner);
        if purged.is_some_and(|at| now < at + Duration::from_secs(1)) {
            return;
        }
        *purged = Some(now);
        self.keys
            .retain(|_, keyed| Arc::strong_count(&keyed.scope) > 1 || now < keyed.used + UNUSED);
    }

    /// Everything that sessions were told to be committed, of which the position is known.
    pub fn acknowledged(&self, flavor: Flavor) -> Option<Position> {
        let texts = self.accounts.iter().map(|scope| scope.position());
        let positions = texts.filter_map(|text| {
            let text = text.trim_end_matches('?').trim_end_matches(',');
            match flavor {
                Flavor::MySql => GtidSet::parse(text.as_bytes()).map(Position::MySql),
                Flavor::MariaDb => GtidPosition::parse(text.as_bytes()).map(Position::MariaDb),
            }
            .ok()
        });
        positions.reduce(|mut all, position| {
            // Both are of this flavor.
            let _ = all.merge(&position);
            all
        })
    }

    /// There is another primary: see [`Scope::began_anew`].
    pub fn began_anew(&self, now: Instant) {
        self.accounts.iter().for_each(|scope| scope.began_anew(now));
        let keyed = self.keys.iter();
        keyed.for_each(|keyed| keyed.scope.began_anew(now));
        if let Some(everyone) = self.everyone.get() {
            everyone.began_anew(now);
        }
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
    #![allow(clippy::unwrap_used)]

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
        let now = Instant::now();
        let of = |account, key: &[u8]| scopes.of_key(account, ScopeKey::new(key), now).unwrap();
        let scope = of(&app, b"visitor 1");
        assert!(Arc::ptr_eq(&scope, &of(&app, b"visitor 1")));
        assert!(!Arc::ptr_eq(&scope, &of(&other, b"visitor 1")));
        assert!(!Arc::ptr_eq(&scope, &of(&app, b"visitor 2")));
    }

    #[test]
    fn keys_that_nobody_uses_are_forgotten_and_miss_nothing() {
        let scopes = Scopes::new();
        let app = account("app");
        let start = Instant::now();
        let of =
            |number: usize, now| scopes.of_key(&app, ScopeKey::new(&number.to_le_bytes()), now);
        let held = of(0, start).unwrap();
        held.wrote(b"0-1-5", start);
        scopes.of_account(&app).wrote(b"0-1-5", start);
        for key in 1..KEYS {
            assert!(of(key, start).is_some());
        }
        // All were used just now.
        assert!(of(KEYS, start + Duration::from_secs(2)).is_none());
        let first = of(1, start + UNUSED / 2).unwrap();
        drop(first);
        let later = start + UNUSED + Duration::from_secs(5);
        assert!(of(KEYS, later).is_some());
        assert!(scopes.keys.len() < 10);
        assert!(Arc::ptr_eq(&held, &of(0, later).unwrap()));
        assert_eq!(of(2, later).unwrap().position(), "0-0-5");
    }

    #[test]
    fn what_everyone_wrote_is_unknown_at_first() {
        let scopes = Scopes::new();
        assert!(scopes.of_everyone_if_counted().is_none());
        assert!(!scopes.of_everyone().is_known());
        assert!(scopes.of_everyone_if_counted().is_some());
    }
}
