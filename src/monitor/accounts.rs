//! Reads the accounts of the primary, so that the proxy admits whom the servers admit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};
use tracing::{info, warn};

use super::Target;
use super::connect::{classify, open, within};
use super::fields::Fields;
use crate::accounts::{
    Account, AccountKey, Directory, Expiry, Method, Named, Reading, Requirement, Resolution,
};
use crate::config::User;
use crate::topology::{Flavor, ProbeError, ServerId, Topology};

/// A changed password or a new account counts after this long at the latest, unless somebody asks earlier.
const PERIOD: Duration = Duration::from_secs(2);

/// The least time between two readings, however often somebody asks.
const REST: Duration = Duration::from_millis(100);

/// A reading has failed after this long.
const DEADLINE: Duration = Duration::from_secs(3);

/// Until there is a server to read from, it is looked for this often.
const NO_SERVER: Duration = Duration::from_millis(100);

const MYSQL: &str = "SELECT User AS user, Host AS host, plugin, CAST(authentication_string AS BINARY) AS credential, \
     account_locked, ssl_type, \
     CAST(ssl_cipher AS CHAR) AS ssl_cipher, CAST(x509_issuer AS CHAR) AS x509_issuer, \
     CAST(x509_subject AS CHAR) AS x509_subject, \
     IF(password_expired = 'Y' OR COALESCE(password_lifetime, @@global.default_password_lifetime) > 0 AND \
        password_last_changed + INTERVAL COALESCE(password_lifetime, @@global.default_password_lifetime) DAY < NOW(), \
        'Y', 'N') AS password_expired, \
     JSON_UNQUOTE(JSON_EXTRACT(User_attributes, '$.additional_password')) AS retained_credential, \
     IF(JSON_CONTAINS_PATH(User_attributes, 'one', '$.Multi_factor_authentication'), 'Y', 'N') AS multi_factor, \
     IF(JSON_EXTRACT(User_attributes, '$.Password_locking.failed_login_attempts') > 0, 'Y', 'N') AS counted \
     FROM mysql.user";

const MARIADB: &str =
    "SELECT User AS user, Host AS host, CAST(Priv AS BINARY) AS priv FROM mysql.global_priv";

/// What holds for all accounts of MariaDB: days, wrong passwords, and the time by which passwords age.
const MARIADB_RULES: &str = "SELECT @@global.default_password_lifetime AS lifetime, \
     @@global.max_password_errors < 4294967295 AS counted, UNIX_TIMESTAMP() AS now";

/// The view of older days: without locks and second methods, but monitors are more often allowed to read it.
const MARIADB_VIEW: &str = "SELECT User AS user, Host AS host, plugin, \
     CAST(authentication_string AS BINARY) AS credential, password_expired, ssl_type, \
     CAST(ssl_cipher AS CHAR) AS ssl_cipher, CAST(x509_issuer AS CHAR) AS x509_issuer, \
     CAST(x509_subject AS CHAR) AS x509_subject FROM mysql.user WHERE is_role = 'N'";

/// Reads the accounts again and again and publishes them, until nobody listens any more.
///
/// `nudge` asks for a reading at once, as after a login that failed: the account may be newer than the last reading.
/// May be dropped at any time.
pub async fn watch(
    targets: Vec<Target>,
    users: BTreeMap<String, User>,
    topology: watch::Receiver<Arc<Topology>>,
    directory: watch::Sender<Arc<Directory>>,
    nudge: Arc<Notify>,
) {
    let mut reader = Reader {
        targets,
        link: None,
        trouble: None,
    };
    loop {
        let source = choose(&topology.borrow(), directory.borrow().is_loaded());
        let asked_at = Instant::now();
        let pause = match source {
            None => NO_SERVER,
            Some(server) => {
                match reader.read(server).await {
                    Ok(reading) => {
                        let next = Directory::new(&users, reading, asked_at);
                        directory.send_replace(Arc::new(next));
                    }
                    Err(problem) => reader.report(server, &problem),
                }
                PERIOD
            }
        };
        tokio::select! {
            () = time::sleep(pause) => {}
            () = rested(&nudge) => {}
            () = directory.closed() => return,
        }
    }
}

/// A nudge, but not before the rest is over; meanwhile others may nudge for the same reading.
async fn rested(nudge: &Notify) {
    time::sleep(REST).await;
    nudge.notified().await;
}

/// The primary; before the first reading any server is better than none.
fn choose(topology: &Topology, loaded: bool) -> Option<ServerId> {
    let primary = topology.primary().filter(|server| server.health.is_up());
    let any = || {
        let up = topology.servers.iter().find(|server| server.health.is_up());
        up.filter(|_| !loaded)
    };
    primary.or_else(any).map(|server| server.id)
}

struct Reader {
    targets: Vec<Target>,
    link: Option<(ServerId, Flavor, Conn)>,
    trouble: Option<Arc<str>>,
}

impl Reader {
    async fn read(&mut self, server: ServerId) -> Result<Reading, ProbeError> {
        let (flavor, mut conn) = match self.link.take() {
            Some((linked, flavor, conn)) if linked == server => (flavor, conn),
            _ => self.open(server).await?,
        };
        let result = match within(DEADLINE, read(&mut conn, flavor)).await {
            // It may only have been closed for idleness.
            Err(ProbeError::Closed) => {
                (_, conn) = self.open(server).await?;
                within(DEADLINE, read(&mut conn, flavor)).await
            }
            result => result,
        };
        let (reading, source) = result?;
        self.link = Some((server, flavor, conn));
        self.recovered(server, source);
        Ok(reading)
    }

    async fn open(&self, server: ServerId) -> Result<(Flavor, Conn), ProbeError> {
        let (version, conn) = open(&self.targets, server, DEADLINE).await?;
        Ok((version.flavor, conn))
    }

    fn name(&self, server: ServerId) -> &str {
        let target = self.targets.iter().find(|target| target.id == server);
        target.map_or("", |target| &target.name)
    }

    fn report(&mut self, server: ServerId, problem: &ProbeError) {
        let text: Arc<str> = problem.to_string().into();
        // A server that cannot be reached at all is told of elsewhere.
        if matches!(problem, ProbeError::AccessDenied(_) | ProbeError::Other(_))
            && self.trouble.as_ref() != Some(&text)
        {
            warn!(
                server = self.name(server), error = %text,
                "accounts cannot be read: the monitor's account needs SELECT on mysql.user (MySQL) \
                 or mysql.global_priv (MariaDB), or passwords in [users.NAME]"
            );
            self.trouble = Some(text);
        }
    }

    fn recovered(&mut self, server: ServerId, source: Source) {
        let now: Option<Arc<str>> = match source {
            Source::Full => None,
            Source::View => Some("view".into()),
        };
        if self.trouble == now {
            return;
        }
        match source {
            Source::Full => info!(server = self.name(server), "accounts can be read"),
            Source::View => warn!(
                server = self.name(server),
                "accounts are read from mysql.user: without SELECT on mysql.global_priv locked accounts \
                 and alternative plugins are not seen"
            ),
        }
        self.trouble = now;
    }
}

/// Where the accounts were read.
#[derive(Clone, Copy)]
enum Source {
    Full,
    View,
}

/// The accounts of the server that `conn` leads to.
pub(super) async fn count(conn: &mut Conn, flavor: Flavor) -> Result<usize, ProbeError> {
    let read = read_accounts(conn, flavor).await;
    read.map(|(accounts, _)| accounts.len())
}

async fn read(conn: &mut Conn, flavor: Flavor) -> Result<(Reading, Source), ProbeError> {
    let (accounts, source) = read_accounts(conn, flavor).await?;
    let query =
        "SELECT @@global.skip_name_resolve AS off, @@global.disconnect_on_expired_password AS cut";
    let rows = rows(conn, query).await?;
    let number = |name| {
        let row = Fields(rows.first()?);
        row.number::<u8>(&[name])
    };
    let reading = Reading {
        accounts,
        resolution: match number("off") {
            Some(1) => Resolution::Off,
            _ => Resolution::On,
        },
        expiry: match number("cut") {
            Some(0) => Expiry::Restricts,
            _ => Expiry::Refuses,
        },
    };
    Ok((reading, source))
}

async fn read_accounts(
    conn: &mut Conn,
    flavor: Flavor,
) -> Result<(Vec<Account>, Source), ProbeError> {
    match flavor {
        Flavor::MySql => Ok((
            rows(conn, MYSQL).await?.iter().filter_map(mysql).collect(),
            Source::Full,
        )),
        Flavor::MariaDb => match rows(conn, MARIADB).await {
            Ok(accounts) => {
                let rules = rules(conn).await?;
                let accounts = accounts.iter().filter_map(|row| mariadb(row, &rules));
                Ok((accounts.collect(), Source::Full))
            }
            Err(error @ (ProbeError::Closed | ProbeError::Timeout)) => Err(error),
            // The first refusal is the one to tell of.
            Err(error) => match rows(conn, MARIADB_VIEW).await {
                Ok(rows) => {
                    let counted = rules(conn).await?.counted;
                    let accounts = rows.iter().filter_map(mysql);
                    let accounts = accounts.map(|account| Account { counted, ..account });
                    Ok((accounts.collect(), Source::View))
                }
                Err(_) => Err(error),
            },
        },
    }
}

async fn rules(conn: &mut Conn) -> Result<Rules, ProbeError> {
    let rows = rows(conn, MARIADB_RULES).await?;
    Ok(rows.first().map(Rules::of).unwrap_or_default())
}

async fn rows(conn: &mut Conn, query: &str) -> Result<Vec<Row>, ProbeError> {
    conn.query(query).await.map_err(|error| classify(&error))
}

fn key(row: &Fields<'_>) -> Option<AccountKey> {
    Some(AccountKey {
        user: row.text(&["user"])?.into(),
        host: row.text(&["host"])?.into(),
    })
}

/// A row of `mysql.user`.
fn mysql(row: &Row) -> Option<Account> {
    let row = Fields(row);
    let yes = |name| row.text(&[name]).is_some_and(|value| value == "Y");
    let plugin = row.text(&["plugin"]).unwrap_or_default();
    let stored = row.bytes(&["credential"]).unwrap_or_default();
    let mut methods = vec![Method::new(&plugin, &stored)];
    if let Some(retained) = row.bytes(&["retained_credential"]) {
        methods.push(Method::new(&plugin, &retained));
    }
    Some(Account {
        key: key(&row)?,
        methods,
        locked: yes("account_locked"),
        expired: yes("password_expired"),
        multi_factor: yes("multi_factor"),
        counted: yes("counted"),
        requirement: requirement_of(&row),
    })
}

fn requirement_of(row: &Fields<'_>) -> Requirement {
    let text = |name| row.text(&[name]).unwrap_or_default();
    match text("ssl_type").as_str() {
        "" => Requirement::None,
        "ANY" => Requirement::Tls,
        "X509" => Requirement::Certificate,
        _ => Requirement::Named(Named {
            cipher: text("ssl_cipher"),
            issuer: text("x509_issuer"),
            subject: text("x509_subject"),
        }),
    }
}

/// The document in `mysql.global_priv.Priv`
/// (<https://mariadb.com/docs/server/reference/system-tables/the-mysql-database-tables/mysql-global_priv-table>).
#[derive(Deserialize, Default)]
#[serde(default)]
struct Priv {
    plugin: String,
    authentication_string: String,
    auth_or: Vec<AuthOr>,
    account_locked: bool,
    is_role: bool,
    ssl_type: u8,
    ssl_cipher: String,
    x509_issuer: String,
    x509_subject: String,
    password_last_changed: Option<i64>,
    password_lifetime: Option<i64>,
}

/// What holds for all accounts of MariaDB.
#[derive(Default)]
struct Rules {
    /// Days after which a password expires; 0 for never.
    lifetime: i64,
    /// Wrong passwords are counted.
    counted: bool,
    /// The server's time, in seconds.
    now: i64,
}

impl Rules {
    fn of(row: &Row) -> Self {
        let row = Fields(row);
        Self {
            lifetime: row.number(&["lifetime"]).unwrap_or_default(),
            counted: row.is_set(&["counted"]),
            now: row.number(&["now"]).unwrap_or_default(),
        }
    }

    fn have_expired(&self, document: &Priv) -> bool {
        const DAY: i64 = 24 * 60 * 60;
        let Some(changed) = document.password_last_changed else {
            return false;
        };
        let own = document.password_lifetime.filter(|days| *days >= 0);
        let lifetime = own.unwrap_or(self.lifetime);
        // PASSWORD EXPIRE is stored as a password that never was changed.
        changed == 0 || lifetime > 0 && (self.now - changed) / DAY >= lifetime
    }
}

/// One alternative; an empty one stands for the document's own plugin.
#[derive(Deserialize)]
struct AuthOr {
    plugin: Option<String>,
    #[serde(default)]
    authentication_string: String,
}

fn mariadb(row: &Row, rules: &Rules) -> Option<Account> {
    let row = Fields(row);
    account_of(key(&row)?, &row.bytes(&["priv"])?, rules)
}

/// `None` for roles, and for documents that the server would not read either.
fn account_of(key: AccountKey, document: &[u8], rules: &Rules) -> Option<Account> {
    let document: Priv = serde_json::from_slice(document).ok()?;
    if document.is_role {
        return None;
    }
    let own = Method::new(&document.plugin, document.authentication_string.as_bytes());
    let mut methods: Vec<Method> = document
        .auth_or
        .iter()
        .map(|method| match &method.plugin {
            Some(plugin) => Method::new(plugin, method.authentication_string.as_bytes()),
            None => own.clone(),
        })
        .collect();
    if methods.is_empty() {
        methods.push(own);
    }
    Some(Account {
        key,
        methods,
        locked: document.account_locked,
        expired: rules.have_expired(&document),
        multi_factor: false,
        counted: rules.counted,
        requirement: match document.ssl_type {
            0 => Requirement::None,
            1 => Requirement::Tls,
            2 => Requirement::Certificate,
            _ => Requirement::Named(Named {
                cipher: document.ssl_cipher,
                issuer: document.x509_issuer,
                subject: document.x509_subject,
            }),
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn account(document: &str) -> Option<Account> {
        let key = AccountKey {
            user: "app".into(),
            host: "%".into(),
        };
        let rules = Rules {
            lifetime: 30,
            counted: false,
            now: 1_795_180_165 + 40 * 24 * 60 * 60,
        };
        account_of(key, document.as_bytes(), &rules)
    }

    fn plugins(account: &Account) -> Vec<&str> {
        account
            .methods
            .iter()
            .map(|method| &*method.plugin)
            .collect()
    }

    #[test]
    fn reads_the_documents_of_mariadb() {
        let hash = "*94BDCEBE19083CE2A1F959FD02F964C7AF4CFC29";
        let plain = account(&format!(
            r#"{{"access":541165846527,"version_id":101119,"plugin":"mysql_native_password","authentication_string":"{hash}","password_last_changed":1795180165,"password_lifetime":0}}"#
        ))
        .unwrap();
        assert_eq!(plugins(&plain), ["mysql_native_password"]);
        assert!(!plain.locked && !plain.expired && plain.requirement == Requirement::None);

        let several = account(&format!(
            r#"{{"plugin":"mysql_native_password","authentication_string":"{hash}","auth_or":[{{"plugin":"unix_socket"}},{{}}],"ssl_type":1,"account_locked":true,"password_last_changed":0}}"#
        ))
        .unwrap();
        assert_eq!(plugins(&several), ["unix_socket", "mysql_native_password"]);
        for (lifetime, expired) in [("-1", true), ("0", false), ("40", true), ("41", false)] {
            let document =
                format!(r#"{{"password_last_changed":1795180165,"password_lifetime":{lifetime}}}"#);
            assert_eq!(account(&document).unwrap().expired, expired, "{lifetime}");
        }
        assert!(several.locked && several.expired && several.requirement == Requirement::Tls);

        let old = account(r#"{"access":18446744073709551615}"#).unwrap();
        assert_eq!(plugins(&old), ["mysql_native_password"]);
        assert_eq!(account(r#"{"access":0,"is_role":true}"#), None);
        assert_eq!(account("junk"), None);
    }
}
