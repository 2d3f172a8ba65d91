//! The accounts of the servers, searched as a server searches them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use dbproxy_proto::handshake::{auth::NativeStage2, stored::Stored};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::Requirement;
use super::host::HostPattern;
use crate::config::{Secret, User};

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
    /// It takes more than a password to log in.
    pub multi_factor: bool,
    /// The server counts wrong passwords and refuses further logins after some: only it can judge.
    pub counted: bool,
    /// `REQUIRE`.
    pub requirement: Requirement,
}

/// What a check of a password says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is right for this method.
    Right(&'a Method),
    /// It is wrong for all methods.
    Wrong,
    /// Only a server can tell.
    Open,
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
    /// By what the server stores of the password.
    Stored(Stored),
    /// The password itself, from the configuration: any plugin will do.
    Configured(Secret),
    /// By whose process the client is, at a server's own unix socket. Of the proxy's clients the server sees nothing, and
    /// would take the proxy's process for theirs.
    Process,
    /// Not here: another plugin, or no valid hash.
    Other,
}

impl Verifier {
    /// Whether this is the right password; `None` if only a server can tell. One from the configuration is compared
    /// in the login itself.
    ///
    /// Takes some milliseconds, or about a second if the server stores it with as many rounds as it can.
    pub fn accepts(&self, password: &[u8]) -> Option<bool> {
        match self {
            Self::Empty => Some(password.is_empty()),
            Self::Stored(stored) => Some(stored.fits(password)),
            Self::Process => Some(false),
            Self::Configured(expected) => Some(password.ct_eq(expected.expose().as_bytes()).into()),
            Self::Other => None,
        }
    }
}

impl Method {
    /// Reads what `mysql.user` or `mysql.global_priv` store.
    pub fn new(plugin: &str, stored: &[u8]) -> Self {
        // Very old accounts have no plugin.
        let plugin = if plugin.is_empty() {
            "mysql_native_password"
        } else {
            plugin
        };
        let may_be_empty = matches!(
            plugin,
            "mysql_native_password" | "caching_sha2_password" | "sha256_password"
        );
        let verifier = if matches!(plugin, "unix_socket" | "auth_socket") {
            Verifier::Process
        } else if stored.is_empty() && may_be_empty {
            Verifier::Empty
        } else {
            Stored::parse(plugin, stored).map_or(Verifier::Other, Verifier::Stored)
        };
        Self {
            plugin: plugin.into(),
            verifier,
            stored: stored.into(),
        }
    }
}

impl Account {
    /// The hashes of its methods that are mysql_native_password: a client that answers by it need not give its password away.
    pub fn native(&self) -> Vec<NativeStage2> {
        let native = self
            .methods
            .iter()
            .filter_map(|method| match &method.verifier {
                Verifier::Stored(stored) => stored.native().cloned(),
                _ => None,
            });
        native.collect()
    }

    /// Whether one of its methods is a login without password.
    pub fn may_be_empty(&self) -> bool {
        self.methods
            .iter()
            .any(|method| method.verifier == Verifier::Empty)
    }

    /// Whether a server may let somebody in without any proof, by whose process it is.
    pub fn goes_by_process(&self) -> bool {
        self.methods
            .iter()
            .any(|method| method.verifier == Verifier::Process)
    }

    /// The password that the configuration gives it.
    pub fn configured(&self) -> Option<&Secret> {
        self.methods
            .iter()
            .find_map(|method| match &method.verifier {
                Verifier::Configured(password) => Some(password),
                _ => None,
            })
    }

    /// Whether this is a right password, and by which method; takes as long as [`Verifier::accepts`] for each.
    pub fn check(&self, password: &[u8]) -> Verdict<'_> {
        let mut verdict = Verdict::Wrong;
        for method in &self.methods {
            match method.verifier.accepts(password) {
                Some(true) => return Verdict::Right(method),
                Some(false) => {}
                None => verdict = Verdict::Open,
            }
        }
        verdict
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("key", &self.key)
            .field("methods", &self.methods)
            .field("locked", &self.locked)
            .field("expired", &self.expired)
            .field("multi_factor", &self.multi_factor)
            .field("counted", &self.counted)
            .field("requirement", &self.requirement)
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
            Self::Stored(_) => "Stored([secret])",
            Self::Configured(_) => "Configured([secret])",
            Self::Process => "Process",
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

/// What happens to a client whose password has expired and that does not say that it can handle that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// It is refused (`disconnect_on_expired_password`).
    #[default]
    Refuses,
    /// It is let in, and can do nothing but change the password, as others can.
    Restricts,
}

/// What one reading of a server's accounts gives.
#[derive(Debug, Default)]
pub struct Reading {
    /// In any order.
    pub accounts: Vec<Account>,
    /// Of this server.
    pub resolution: Resolution,
    /// Of this server.
    pub expiry: Expiry,
}

/// All accounts. Immutable; a newer one replaces it whole.
#[derive(Debug, Default)]
pub struct Directory {
    /// In the order in which a server tries them.
    accounts: Vec<(HostPattern, Arc<Account>)>,
    configured: BTreeMap<Arc<str>, Arc<Account>>,
    /// `None` if they could not be read yet.
    asked_at: Option<Instant>,
    resolution: Resolution,
    expiry: Expiry,
}

impl Directory {
    /// Knows only the accounts of the configuration: the servers' could not be read yet.
    pub fn unloaded(users: &BTreeMap<String, User>) -> Self {
        Self::build(users, Reading::default(), None)
    }

    /// Knows the accounts that were asked for at `asked_at`, and those of the configuration, which come first.
    pub fn new(users: &BTreeMap<String, User>, reading: Reading, asked_at: Instant) -> Self {
        Self::build(users, reading, Some(asked_at))
    }

    fn build(users: &BTreeMap<String, User>, reading: Reading, asked_at: Option<Instant>) -> Self {
        let Reading {
            accounts,
            resolution,
            expiry,
        } = reading;
        let configured = users
            .iter()
            .map(|(name, user)| {
                let name: Arc<str> = name.as_str().into();
                let own = accounts.iter().find(|account| account.key.user == name);
                let plugin = own.and_then(|account| account.methods.first()).map_or_else(
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
                    multi_factor: false,
                    counted: false,
                    // That of the server's account, which depends on where the client comes from.
                    requirement: Requirement::None,
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
            asked_at,
            resolution,
            expiry,
        }
    }

    /// What becomes of clients with an expired password.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// When the accounts were asked for: whatever was changed before is in here.
    pub fn asked_at(&self) -> Option<Instant> {
        self.asked_at
    }

    /// Have the accounts of a server been read?
    pub fn is_loaded(&self) -> bool {
        self.asked_at.is_some()
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
        !self.is_loaded()
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
            let requirement = self.search(user, client).map(|own| &own.requirement);
            return Lookup::Account(match requirement {
                None | Some(Requirement::None) => account.clone(),
                Some(requirement) => Arc::new(Account {
                    requirement: requirement.clone(),
                    ..Account::clone(account)
                }),
            });
        }
        if !self.is_loaded() {
            return Lookup::NotLoaded;
        }
        match self.search(user, client) {
            Some(account) => Lookup::Account(account.clone()),
            None if self.allows_host(client) => Lookup::UnknownUser,
            None => Lookup::HostNotAllowed,
        }
    }

    /// Whether a server has no other account than this for `user`, wherever it comes from.
    pub fn is_only(&self, user: &[u8], key: &AccountKey) -> bool {
        let mut others = self.accounts.iter().filter(|(_, account)| {
            let name = account.key.user.as_bytes();
            (name == user || name.is_empty()) && account.key != *key
        });
        others.next().is_none()
    }

    fn search(&self, user: &[u8], client: &ClientAddress) -> Option<&Arc<Account>> {
        let found = self.accounts.iter().find(|(host, account)| {
            let name = account.key.user.as_bytes();
            (name == user || name.is_empty()) && host.matches(client, self.resolution)
        });
        found.map(|(_, account)| account)
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
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

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
            multi_factor: false,
            counted: false,
            requirement: Requirement::None,
        }
    }

    fn of(users: &BTreeMap<String, User>, accounts: Vec<Account>) -> Directory {
        let reading = Reading {
            accounts,
            ..Reading::default()
        };
        Directory::new(users, reading, Instant::now())
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
        let directory = of(&BTreeMap::new(), accounts);
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
        let local = of(&BTreeMap::new(), vec![account("root", "localhost")]);
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

        let loaded = of(&users, vec![account("app", "10.1.2.3")]);
        let Lookup::Account(app) = loaded.find(b"app", &ClientAddress::Unix) else {
            panic!("not found");
        };
        assert_eq!(&*app.methods[0].plugin, "mysql_native_password");
        assert!(!format!("{app:?}").contains("\"p\""));
    }

    #[test]
    fn a_configured_user_is_required_what_the_account_of_its_address_is() {
        let user = User {
            password: Secret::new("p"),
        };
        let users = BTreeMap::from([("app".to_owned(), user)]);
        let required = |host: &str, requirement| Account {
            requirement,
            ..account("app", host)
        };
        let mut accounts = vec![
            required("10.1.2.3", Requirement::Certificate),
            required("%", Requirement::None),
            required("10.1.%", Requirement::Tls),
        ];
        for _ in 0..accounts.len() {
            accounts.rotate_left(1);
            let directory = of(&users, accounts.clone());
            for (ip, expected) in [
                ("10.1.2.3", Requirement::Certificate),
                ("10.1.2.4", Requirement::Tls),
                ("10.2.2.4", Requirement::None),
            ] {
                let client = ClientAddress::Ip(ip.parse().unwrap());
                let Lookup::Account(found) = directory.find(b"app", &client) else {
                    panic!("not found");
                };
                assert_eq!(found.requirement, expected, "{ip}");
                assert!(found.configured().is_some());
            }
        }
    }

    #[test]
    fn reads_stored_hashes() {
        for (plugin, stored, kind) in [
            ("mysql_native_password", HASH, "Stored([secret])"),
            ("", HASH, "Stored([secret])"),
            ("mysql_native_password", "*94BD", "Other"),
            (
                "mysql_native_password",
                "*+4BDCEBE19083CE2A1F959FD02F964C7AF4CFC29",
                "Other",
            ),
            ("mysql_native_password", "invalid", "Other"),
            ("mysql_native_password", "", "Empty"),
            ("caching_sha2_password", "", "Empty"),
            ("sha256_password", "", "Empty"),
            ("caching_sha2_password", "$A$005$x", "Other"),
            (
                "ed25519",
                "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY",
                "Stored([secret])",
            ),
            ("ed25519", "", "Other"),
            ("unix_socket", "", "Process"),
            ("auth_socket", "", "Process"),
            ("pam", "mysql", "Other"),
        ] {
            let verifier = Method::new(plugin, stored.as_bytes()).verifier;
            assert_eq!(format!("{verifier:?}"), kind, "{plugin} {stored}");
        }
    }

    #[test]
    fn a_password_is_checked_by_what_is_stored() {
        let accepts = |plugin, stored: &str, password: &[u8]| {
            Method::new(plugin, stored.as_bytes())
                .verifier
                .accepts(password)
        };
        let ed25519 = "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY";
        assert_eq!(accepts("ed25519", ed25519, b"secret"), Some(true));
        assert_eq!(accepts("ed25519", ed25519, b"wrong"), Some(false));
        assert_eq!(accepts("mysql_native_password", "", b""), Some(true));
        assert_eq!(accepts("mysql_native_password", "", b"x"), Some(false));
        assert_eq!(accepts("pam", "mysql", b"x"), None);
        let configured = Verifier::Configured(Secret::new("p"));
        assert_eq!(configured.accepts(b"p"), Some(true));
        assert_eq!(configured.accepts(b"pp"), Some(false));
    }

    #[test]
    fn the_first_method_that_fits_counts() {
        let ed25519 = b"ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY";
        let mut app = account("app", "%");
        app.methods.push(Method::new("ed25519", ed25519));
        assert_eq!(app.native().len(), 1);
        let ed25519 = app.methods[1].clone();
        assert_eq!(app.check(b"secret"), Verdict::Right(&ed25519));
        assert_eq!(app.check(b"wrong"), Verdict::Wrong);
        app.methods.push(Method::new("unix_socket", b""));
        assert_eq!(app.check(b"wrong"), Verdict::Wrong);
        app.methods.push(Method::new("pam", b""));
        assert_eq!(app.check(b"wrong"), Verdict::Open);
        assert!(app.goes_by_process());
        assert!(!app.may_be_empty() && app.configured().is_none());
    }
}
