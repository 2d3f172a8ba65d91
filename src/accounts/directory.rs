//! The accounts of the servers, searched as a server searches them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::host::HostPattern;
use crate::config::{Secret, User};

/// Length of `*` and 40 hexadecimal digits: how mysql_native_password stores a hash.
const NATIVE_TEXT: usize = 41;

/// Where a client connects from, as the accounts' host patterns see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// A unix socket: the host is `localhost`.
    Unix,
    /// TCP. Names are not looked up: a pattern with a host name other than `localhost` matches no address.
    Ip(IpAddr),
}

/// The name of an account: what the server's grants belong to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    /// User part; empty for the anonymous account.
    pub user: Arc<str>,
    /// Host pattern.
    pub host: Arc<str>,
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'@'{}'", self.user, self.host)
    }
}

/// One account.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub key: AccountKey,
    /// The ways to log in, in the server's order; never empty. MariaDB accounts may have several, MySQL accounts a
    /// retained second password.
    pub methods: Vec<Method>,
    /// `ACCOUNT LOCK`.
    pub locked: bool,
    /// The password has expired.
    pub expired: bool,
    /// `REQUIRE SSL`, `X509` or more.
    pub requires_tls: bool,
}

/// One way to log in to an account.
#[derive(Clone, PartialEq, Eq)]
pub struct Method {
    /// The authentication plugin.
    pub plugin: Arc<str>,
    /// How a proof can be checked here.
    pub verifier: Verifier,
    /// What the server stores, to notice changes.
    pub stored: Arc<[u8]>,
}

/// How a client's proof can be checked here.
#[derive(Clone, PartialEq, Eq)]
pub enum Verifier {
    /// The empty password.
    Empty,
    /// mysql_native_password: SHA1(SHA1(password)).
    Native([u8; 20]),
    /// caching_sha2_password: the stored hash is salted and slow on purpose; let the primary check the first login.
    Sha2,
    /// The password itself, from the configuration: any plugin will do.
    Configured(Secret),
    /// Not here: another plugin, or no valid hash.
    Other,
}

impl Method {
    /// Reads what `mysql.user` or `mysql.global_priv` store.
    pub fn new(plugin: &str, stored: &[u8]) -> Self {
        let verifier = match plugin {
            // Very old accounts have no plugin.
            "" | "mysql_native_password" if stored.is_empty() => Verifier::Empty,
            "" | "mysql_native_password" => {
                native(stored).map_or(Verifier::Other, Verifier::Native)
            }
            "caching_sha2_password" if stored.is_empty() => Verifier::Empty,
            "caching_sha2_password" => Verifier::Sha2,
            _ => Verifier::Other,
        };
        let plugin = if plugin.is_empty() {
            "mysql_native_password"
        } else {
            plugin
        };
        Self {
            plugin: plugin.into(),
            verifier,
            stored: stored.into(),
        }
    }
}

fn native(stored: &[u8]) -> Option<[u8; 20]> {
    let digits = stored
        .strip_prefix(b"*")
        .filter(|_| stored.len() == NATIVE_TEXT)?;
    let mut hash = [0; 20];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    digits.iter().all(u8::is_ascii_hexdigit).then_some(hash)
}

impl Account {
    /// The method to ask a client for: the first that can be checked here, else the first.
    pub fn method(&self) -> Option<&Method> {
        self.methods
            .iter()
            .find(|method| method.verifier != Verifier::Other)
            .or_else(|| self.methods.first())
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("key", &self.key)
            .field("methods", &self.methods)
            .field("locked", &self.locked)
            .field("expired", &self.expired)
            .field("requires_tls", &self.requires_tls)
            .finish()
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Method({} {:?})", self.plugin, self.verifier)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Native(_) => "Native([secret])",
            Self::Sha2 => "Sha2",
            Self::Configured(_) => "Configured([secret])",
            Self::Other => "Other",
        })
    }
}

/// What a search finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The account that the server would use.
    Account(Arc<Account>),
    /// No account at all may come from there: error 1130.
    HostNotAllowed,
    /// Others may come from there, this user may not: error 1045, after a proof was asked for as of everybody.
    UnknownUser,
    /// The accounts could not be read from a server yet, and the configuration does not know the user either.
    NotLoaded,
}

/// Does a server look up the names of its clients' addresses?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resolution {
    /// It does: a client on its own host is `localhost` over TCP as well.
    #[default]
    On,
    /// It does not (`skip_name_resolve`): only a unix socket is `localhost`.
    Off,
}

/// All accounts. Immutable; a newer one replaces it whole.
#[derive(Debug, Default)]
pub struct Directory {
    /// In the order in which a server tries them.
    accounts: Vec<(HostPattern, Arc<Account>)>,
    configured: BTreeMap<Arc<str>, Arc<Account>>,
    loaded: bool,
    read_at: Option<Instant>,
    resolution: Resolution,
}

impl Directory {
    /// Knows only the accounts of the configuration: the servers' could not be read yet.
    pub fn unloaded(users: &BTreeMap<String, User>) -> Self {
        Self::build(users, Vec::new(), false)
    }

    /// Knows the accounts that were read from a server, and those of the configuration, which come first.
    pub fn new(users: &BTreeMap<String, User>, accounts: Vec<Account>) -> Self {
        Self::build(users, accounts, true)
    }

    fn build(users: &BTreeMap<String, User>, accounts: Vec<Account>, loaded: bool) -> Self {
        let configured = users
            .iter()
            .map(|(name, user)| {
                let name: Arc<str> = name.as_str().into();
                let plugin = accounts
                    .iter()
                    .find(|account| account.key.user == name)
                    .and_then(|account| account.methods.first())
                    .map_or_else(
                        || "caching_sha2_password".into(),
                        |method| method.plugin.clone(),
                    );
                let account = Account {
                    key: AccountKey {
                        user: name.clone(),
                        host: "%".into(),
                    },
                    methods: vec![Method {
                        plugin,
                        verifier: Verifier::Configured(user.password.clone()),
                        // Enough to notice another password, and not a second copy of it.
                        stored: xxh3_64(user.password.expose().as_bytes())
                            .to_be_bytes()
                            .as_slice()
                            .into(),
                    }],
                    locked: false,
                    expired: false,
                    requires_tls: false,
                };
                (name, Arc::new(account))
            })
            .collect();
        let mut accounts: Vec<_> = accounts
            .into_iter()
            .map(|account| (HostPattern::parse(&account.key.host), Arc::new(account)))
            .collect();
        // The host decides first: an anonymous account of the client's very address comes before the client's own
        // account of any address, as on the servers.
        accounts.sort_by_cached_key(|(host, account)| {
            (
                host.specificity(),
                account.key.user.is_empty(),
                account.key.clone(),
            )
        });
        Self {
            accounts,
            configured,
            loaded,
            read_at: None,
            resolution: Resolution::On,
        }
    }

    /// Notes when the accounts were asked for.
    pub fn read_at(self, at: Instant) -> Self {
        Self {
            read_at: Some(at),
            ..self
        }
    }

    /// Notes whether the server looks up the names of its clients.
    pub fn with_resolution(self, resolution: Resolution) -> Self {
        Self { resolution, ..self }
    }

    /// When the accounts were asked for: whatever was changed before is in here.
    pub fn asked_at(&self) -> Option<Instant> {
        self.read_at
    }

    /// Have the accounts of a server been read?
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// How many accounts there are.
    pub fn len(&self) -> usize {
        self.accounts.len() + self.configured.len()
    }

    /// Is there no account?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// May anybody come from there? If not, a server answers with error 1130 instead of a greeting.
    pub fn allows_host(&self, client: &ClientAddress) -> bool {
        !self.loaded
            || !self.configured.is_empty()
            || self
                .accounts
                .iter()
                .any(|(host, _)| host.matches(client, self.resolution))
    }

    /// The account that a server would use for `user` (the bytes of the login packet) from `client`.
    pub fn find(&self, user: &[u8], client: &ClientAddress) -> Lookup {
        if let Some(account) = std::str::from_utf8(user)
            .ok()
            .and_then(|user| self.configured.get(user))
        {
            return Lookup::Account(account.clone());
        }
        if !self.loaded {
            return Lookup::NotLoaded;
        }
        let found = self.accounts.iter().find(|(host, account)| {
            let name = account.key.user.as_bytes();
            (name == user || name.is_empty()) && host.matches(client, self.resolution)
        });
        match found {
            Some((_, account)) => Lookup::Account(account.clone()),
            None if self.allows_host(client) => Lookup::UnknownUser,
            None => Lookup::HostNotAllowed,
        }
    }

    /// The account with this very name.
    pub fn account(&self, key: &AccountKey) -> Option<&Arc<Account>> {
        self.configured
            .get(&key.user)
            .filter(|account| account.key == *key)
            .or_else(|| {
                self.accounts
                    .iter()
                    .map(|(_, account)| account)
                    .find(|account| account.key == *key)
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    const HASH: &str = "*94BDCEBE19083CE2A1F959FD02F964C7AF4CFC29";

    fn account(user: &str, host: &str) -> Account {
        Account {
            key: AccountKey {
                user: user.into(),
                host: host.into(),
            },
            methods: vec![Method::new("mysql_native_password", HASH.as_bytes())],
            locked: false,
            expired: false,
            requires_tls: false,
        }
    }

    fn find(directory: &Directory, user: &str, ip: &str) -> String {
        match directory.find(user.as_bytes(), &ClientAddress::Ip(ip.parse().unwrap())) {
            Lookup::Account(account) => account.key.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn finds_the_account_that_a_server_would_use() {
        let names = [
            ("app", "%"),
            ("app", "10.1.%"),
            ("app", "10.1.2.3"),
            ("", "10.9.%"),
            ("", "localhost"),
            ("root", "localhost"),
        ];
        let accounts = names
            .iter()
            .map(|(user, host)| account(user, host))
            .collect();
        let directory = Directory::new(&BTreeMap::new(), accounts);
        for (user, ip, found) in [
            ("app", "10.1.2.3", "'app'@'10.1.2.3'"),
            ("app", "10.1.2.4", "'app'@'10.1.%'"),
            ("app", "10.2.2.4", "'app'@'%'"),
            ("app", "10.9.2.4", "''@'10.9.%'"),
            ("root", "127.0.0.1", "'root'@'localhost'"),
            ("root", "10.1.2.3", "UnknownUser"),
            ("App", "10.1.2.3", "UnknownUser"),
            ("who", "127.0.0.1", "''@'localhost'"),
        ] {
            assert_eq!(find(&directory, user, ip), found, "{user} {ip}");
        }
        let local = Directory::new(&BTreeMap::new(), vec![account("root", "localhost")]);
        assert_eq!(find(&local, "root", "10.1.2.3"), "HostNotAllowed");
        assert!(!local.allows_host(&ClientAddress::Ip("10.1.2.3".parse().unwrap())));
    }

    #[test]
    fn the_configuration_comes_first() {
        let user = User {
            password: Secret::new("p"),
        };
        let users = BTreeMap::from([("app".to_owned(), user)]);
        let unloaded = Directory::unloaded(&users);
        assert_eq!(find(&unloaded, "app", "10.1.2.3"), "'app'@'%'");
        assert_eq!(find(&unloaded, "who", "10.1.2.3"), "NotLoaded");

        let loaded = Directory::new(&users, vec![account("app", "10.1.2.3")]);
        let Lookup::Account(app) = loaded.find(b"app", &ClientAddress::Unix) else {
            panic!("not found");
        };
        assert_eq!(&*app.method().unwrap().plugin, "mysql_native_password");
        assert!(!format!("{app:?}").contains("\"p\""));
    }

    #[test]
    fn reads_stored_hashes() {
        for (plugin, stored, native, other) in [
            ("mysql_native_password", HASH, true, false),
            ("", HASH, true, false),
            ("mysql_native_password", "*94BD", false, true),
            (
                "mysql_native_password",
                "*+4BDCEBE19083CE2A1F959FD02F964C7AF4CFC29",
                false,
                true,
            ),
            ("mysql_native_password", "invalid", false, true),
            ("mysql_native_password", "", false, false),
            ("caching_sha2_password", "$A$005$x", false, false),
            ("unix_socket", "", false, true),
        ] {
            let verifier = Method::new(plugin, stored.as_bytes()).verifier;
            assert_eq!(
                matches!(verifier, Verifier::Native(_)),
                native,
                "{plugin} {stored}"
            );
            assert_eq!(verifier == Verifier::Other, other, "{plugin} {stored}");
        }
    }
}
