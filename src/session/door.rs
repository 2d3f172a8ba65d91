//! The way in: greeting, authentication, and what is checked of an account before it is let in.

use std::{future::Future, sync::Arc, time::Duration};

use aws_lc_rs::rand;
use bytes::BytesMut;
use dbproxy_proto::{
    capability::Capabilities,
    handshake::{
        auth::{AuthPlugin, Channel, NativeStage2, Scramble, SecretBytes, Sha2Stage1},
        server::{
            Answer as AuthAnswer, Credential, FirstPacket, Greeting, Outcome, Proof as Proven,
            ServerAuth, Step,
        },
    },
    reply::put_err,
};
use tokio::{
    select,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tracing::info;
use zeroize::Zeroizing;

use super::{Context, login::initial_status};
use crate::{
    accounts::{Account, ClientAddress, Lookup, Proof, Verifier},
    backend::{Charset, Login, SessionState},
    error::{Answer, Error, ErrorKind, Origin},
    net::{Peer, Stream, conversation},
    sql::Dialect,
    topology::{Flavor, Topology},
};

/// What clients are offered.
const OFFERED: Capabilities = Capabilities::LONG_PASSWORD
    .union(Capabilities::FOUND_ROWS)
    .union(Capabilities::LONG_FLAG)
    .union(Capabilities::CONNECT_WITH_DB)
    .union(Capabilities::ODBC)
    .union(Capabilities::LOCAL_FILES)
    .union(Capabilities::IGNORE_SPACE)
    .union(Capabilities::PROTOCOL_41)
    .union(Capabilities::INTERACTIVE)
    .union(Capabilities::IGNORE_SIGPIPE)
    .union(Capabilities::TRANSACTIONS)
    .union(Capabilities::SECURE_CONNECTION)
    .union(Capabilities::MULTI_STATEMENTS)
    .union(Capabilities::MULTI_RESULTS)
    .union(Capabilities::PS_MULTI_RESULTS)
    .union(Capabilities::PLUGIN_AUTH)
    .union(Capabilities::CONNECT_ATTRS)
    .union(Capabilities::PLUGIN_AUTH_LENENC_DATA)
    .union(Capabilities::SESSION_TRACK)
    .union(Capabilities::DEPRECATE_EOF);

/// The same for either family: to clients of MariaDB the absence of the first
/// flag tells that its extended capabilities follow, of which there are none.
fn offered(flavor: Flavor) -> Capabilities {
    match flavor {
        Flavor::MySql => OFFERED,
        Flavor::MariaDb => OFFERED.difference(Capabilities::LONG_PASSWORD),
    }
}

/// A denial comes this long after what the client gave. Accounts newer than the last reading can be read until then,
/// and the time tells nobody whether the user is known.
const DENIAL: Duration = Duration::from_millis(300);

/// A client that is not logged in yet.
pub(super) struct Door<'a> {
    pub(super) client: &'a mut Stream,
    pub(super) peer: Peer,
    pub(super) context: &'a Context,
    pub(super) input: &'a mut BytesMut,
    /// The sequence id of the next packet, in either direction.
    pub(super) seq: u8,
    pub(super) capabilities: Capabilities,
}

/// Who came in.
pub(super) struct Admitted {
    pub(super) account: Arc<Account>,
    pub(super) login: Login,
    pub(super) state: SessionState,
    pub(super) base: Dialect,
    pub(super) scramble: Scramble,
}

/// Who wants in, and by what right.
pub(super) struct Claim<'a> {
    pub(super) user: &'a [u8],
    pub(super) answer: AuthAnswer<'a>,
}

impl Door<'_> {
    pub(super) async fn admit(&mut self, id: u32) -> Result<Admitted, Error> {
        let topology = self.first_topology().await?;
        let Some(servers) = &topology.greeting else {
            return Err(unreachable(&topology));
        };
        let directory = Arc::clone(&self.context.directory.borrow());
        if !directory.allows_host(&self.address()) {
            return Err(self.host_not_allowed(servers.version.flavor));
        }
        let maria = servers.version.flavor == Flavor::MariaDb;
        let scramble = scramble()?;
        let plugin = self.default_plugin();
        let version = if maria {
            format!("5.5.5-{}", servers.version.text)
        } else {
            servers.version.text.to_string()
        };
        let base = Dialect::of(maria, servers.version.number())
            .with_sql_mode(servers.sql_mode.as_bytes())
            .with_charset(Charset::name_of(servers.collation).as_bytes());
        let greeting = Greeting {
            version: &version,
            connection_id: id,
            scramble,
            capabilities: offered(servers.version.flavor),
            collation: u16::from(Charset::greeting_id(servers.collation)),
            status: initial_status(base),
            plugin: plugin.clone(),
        };
        self.send(&greeting.payload()).await?;
        let packet = self.receive().await?;
        let malformed = |error: dbproxy_proto::ProtocolError| {
            Error::client(ErrorKind::Protocol(error.to_string()))
        };
        let request = match FirstPacket::parse(&packet).map_err(malformed)? {
            FirstPacket::Login(request) => request,
            FirstPacket::TlsRequest { .. } => {
                return Err(refusal(
                    1235,
                    b"42000",
                    "This version of dbproxy doesn't yet support 'TLS to clients'",
                ));
            }
        };
        if request
            .capabilities
            .intersects(Capabilities::COMPRESS | Capabilities::ZSTD_COMPRESSION)
        {
            let text = "This version of dbproxy doesn't yet support 'compression': switch it off in the client";
            return Err(refusal(1235, b"42000", text));
        }
        self.capabilities = request.capabilities & OFFERED;
        let claim = Claim {
            user: request.user,
            answer: request.answer(scramble),
        };
        let (account, proof) = self.authenticate(claim, plugin, scramble).await?;
        let login = Login {
            user: String::from_utf8_lossy(request.user).into(),
            account: account.key.clone(),
            proof,
        };
        let charset = Charset::of_login(u16::from(request.collation), servers.version.flavor);
        let multi_statements = self.capabilities.contains(Capabilities::MULTI_STATEMENTS);
        let state = SessionState::new(request.database, charset, multi_statements);
        Ok(Admitted {
            account,
            login,
            state,
            base,
            scramble,
        })
    }

    /// The plugin that clients try first: that of most accounts.
    pub(super) fn default_plugin(&self) -> AuthPlugin {
        match self.flavor() {
            Flavor::MariaDb => AuthPlugin::MysqlNativePassword,
            Flavor::MySql => AuthPlugin::CachingSha2Password,
        }
    }

    /// Waits until a server was seen, so that the greeting can speak for it.
    async fn first_topology(&self) -> Result<Arc<Topology>, Error> {
        let mut topology = self.context.topology.clone();
        // Most of the time that a login may take: the client is to be told.
        let patience = self.context.limits.login * 4 / 5;
        let seen = topology.wait_for(|topology| topology.greeting.is_some());
        match self.unless_closed(timeout(patience, seen)).await? {
            Ok(Ok(topology)) => Ok(Arc::clone(&topology)),
            _ => {
                let topology = Arc::clone(&self.context.topology.borrow());
                Err(unreachable(&topology))
            }
        }
    }

    /// Has the client prove that it is who it says.
    pub(super) async fn authenticate(
        &mut self,
        claim: Claim<'_>,
        default: AuthPlugin,
        scramble: Scramble,
    ) -> Result<(Arc<Account>, Arc<Proof>), Error> {
        let began = Instant::now();
        let lookup = self.lookup(claim.user).await?;
        let (account, plugin, credential) = match lookup {
            Lookup::Account(account) => {
                let (plugin, credential) = self.credential(&account)?;
                (Some(account), plugin, credential)
            }
            // Looks the same to the client as no credential at all, but keeps a password for an account that is
            // newer than the last reading.
            Lookup::UnknownUser => (None, default, Credential::Sha2 { known: None }),
            Lookup::HostNotAllowed => return Err(self.host_not_allowed(self.flavor())),
            Lookup::NotLoaded => {
                let text = "Access denied: dbproxy has not been able to read the accounts from a server yet; \
                            `dbproxy check` says what is missing";
                return Err(refusal(1045, b"28000", text));
            }
        };
        let auth = ServerAuth {
            plugin: plugin.clone(),
            credential,
            channel: self.channel(),
            public_key: Some(self.context.server_key.public()),
        };
        let mut last = claim.answer.clone();
        let mut reply;
        let mut step = auth.start(claim.answer, scramble);
        let outcome = loop {
            step = match step {
                Step::Send { payload, next } => {
                    self.send(&payload).await?;
                    reply = Zeroizing::new(self.receive().await?.to_vec());
                    last = AuthAnswer::to_switch(plugin.clone(), &reply, scramble);
                    next.handle(&reply)
                }
                Step::Decrypt { ciphertext, next } => {
                    let plaintext = self.context.server_key.decrypt(&ciphertext).await;
                    next.handle(plaintext.as_deref())
                }
                Step::Finished { payload, outcome } => {
                    if let Some(payload) = payload {
                        self.send(&payload).await?;
                    }
                    break outcome;
                }
            };
        };
        let with_password = match &outcome {
            Outcome::Denied { with_password } => *with_password,
            Outcome::Proven(_) => true,
            Outcome::Unsupported => {
                let text = "Client does not support authentication protocol requested by server; \
                            consider upgrading MySQL client";
                return Err(refusal(1251, b"08004", text));
            }
        };
        let denial_at = Instant::now() + DENIAL.min(self.context.limits.login / 2);
        let judged = match (outcome, account) {
            (Outcome::Proven(proven), Some(account)) => Some((account, proven)),
            (outcome, _) => self
                .newer_account(claim.user, began, denial_at)
                .await?
                .and_then(|account| {
                    let proven = self.judge_again(&account, outcome, last, scramble)?;
                    Some((account, proven))
                }),
        };
        let accepted = match judged {
            Some((account, proven)) => {
                let proof = self.accept(&account, proven).await;
                proof.map(|proof| (account, proof))
            }
            None => Err(self.denied(claim.user, with_password)),
        };
        match accepted {
            Ok((account, proof)) => {
                self.check_state(&account)?;
                Ok((account, proof))
            }
            Err(error) => {
                if error.answer().code == 1045 {
                    self.unless_closed(sleep_until(denial_at)).await?;
                }
                Err(error)
            }
        }
    }

    /// The account, if it stands in a reading of the accounts that is newer than this attempt.
    async fn newer_account(
        &self,
        user: &[u8],
        attempt: Instant,
        until: Instant,
    ) -> Result<Option<Arc<Account>>, Error> {
        self.context.nudge.notify_one();
        let mut directory = self.context.directory.clone();
        let newer = directory.wait_for(|directory| directory.asked_at() >= Some(attempt));
        let newer = self.unless_closed(timeout_at(until, newer)).await?;
        Ok(match newer {
            Ok(Ok(directory)) => match directory.find(user, &self.address()) {
                Lookup::Account(account) => Some(account),
                Lookup::HostNotAllowed | Lookup::UnknownUser | Lookup::NotLoaded => None,
            },
            _ => None,
        })
    }

    /// Judges by a newer account what the client has given already: nothing more can be asked of it.
    fn judge_again(
        &self,
        account: &Account,
        outcome: Outcome,
        answer: AuthAnswer<'_>,
        scramble: Scramble,
    ) -> Option<Proven> {
        if let Outcome::Proven(password @ Proven::Password { .. }) = outcome {
            return Some(password);
        }
        let (plugin, credential) = self.credential(account).ok()?;
        let auth = ServerAuth {
            plugin,
            credential,
            channel: self.channel(),
            public_key: None,
        };
        match auth.start(answer, scramble) {
            Step::Finished {
                payload: None,
                outcome: Outcome::Proven(proven),
            } => Some(proven),
            Step::Finished { .. } | Step::Send { .. } | Step::Decrypt { .. } => None,
        }
    }

    fn channel(&self) -> Channel {
        if self.client.is_secure() {
            Channel::Secure
        } else {
            Channel::Plain
        }
    }

    /// Looks the user up, waiting a little while the accounts are not read yet.
    async fn lookup(&self, user: &[u8]) -> Result<Lookup, Error> {
        let address = self.address();
        let mut directory = self.context.directory.clone();
        let known =
            directory.wait_for(|directory| directory.find(user, &address) != Lookup::NotLoaded);
        let patience = self.context.limits.login / 2;
        let known = self.unless_closed(timeout(patience, known)).await?;
        Ok(match known {
            Ok(Ok(directory)) => directory.find(user, &address),
            _ => Lookup::NotLoaded,
        })
    }

    /// Waits for something that is of no use once the client has left.
    async fn unless_closed<T>(&self, wait: impl Future<Output = T>) -> Result<T, Error> {
        select! {
            biased;
            done = wait => Ok(done),
            () = self.client.closed() => Err(Error::client(ErrorKind::Closed)),
        }
    }

    fn credential(&self, account: &Account) -> Result<(AuthPlugin, Credential), Error> {
        let Some(method) = account.method() else {
            return Ok((AuthPlugin::MysqlNativePassword, Credential::Unknown));
        };
        let plugin = AuthPlugin::from_name(method.plugin.as_bytes());
        let credential = match &method.verifier {
            Verifier::Empty => Credential::NoPassword,
            Verifier::Native(stage2) => Credential::Native(NativeStage2::new(*stage2)),
            Verifier::Sha2 => {
                let known = match self.context.credentials.proof(account).as_deref() {
                    Some(Proof::Sha2 { stage1, .. }) => Some(Sha2Stage1::new(**stage1).stage2()),
                    _ => None,
                };
                Credential::Sha2 { known }
            }
            Verifier::Configured(password) => {
                Credential::Cleartext(SecretBytes::from(password.expose().as_bytes()))
            }
            Verifier::Other => {
                let text = format!(
                    "Access denied: account {} uses the plugin '{}', which dbproxy does not support yet; \
                     its password can be given in the configuration, [users.{}]",
                    account.key, method.plugin, account.key.user
                );
                return Err(refusal(1045, b"28000", text));
            }
        };
        let supported = matches!(
            plugin,
            AuthPlugin::MysqlNativePassword | AuthPlugin::CachingSha2Password
        );
        Ok((
            if supported {
                plugin
            } else {
                AuthPlugin::CachingSha2Password
            },
            credential,
        ))
    }

    /// Turns what the client proved into what logs in to servers.
    async fn accept(&self, account: &Account, proven: Proven) -> Result<Arc<Proof>, Error> {
        let configured = account
            .methods
            .iter()
            .find_map(|method| match &method.verifier {
                Verifier::Configured(password) => Some(password.expose().as_bytes()),
                _ => None,
            });
        let (proof, verified) = match (configured, proven) {
            (Some(password), _) => return Ok(Arc::new(sha2_proof(password))),
            (None, Proven::NoPassword) => return Ok(Arc::new(Proof::Empty)),
            (None, Proven::NativeStage1(stage1)) => {
                return Ok(Arc::new(Proof::Native(Zeroizing::new(*stage1.as_bytes()))));
            }
            (None, Proven::Sha2Fast(_)) => {
                let known = self.context.credentials.proof(account);
                return known.ok_or_else(|| self.denied(account.key.user.as_bytes(), true));
            }
            (None, Proven::Password { password, verified }) => (sha2_proof(&password), verified),
        };
        let proof = Arc::new(proof);
        if !verified {
            self.verify_at_primary(account, &proof).await?;
        }
        if let Some(method) = account.method() {
            self.context
                .credentials
                .remember(account, method, Proof::clone(&proof));
        }
        Ok(proof)
    }

    /// Only a server can check a password against its stored hash; a login there says whether it is right.
    async fn verify_at_primary(&self, account: &Account, proof: &Arc<Proof>) -> Result<(), Error> {
        let login = Login {
            user: Arc::clone(&account.key.user),
            account: account.key.clone(),
            proof: Arc::clone(proof),
        };
        let topology = Arc::clone(&self.context.topology.borrow());
        let server = topology
            .primary()
            .or_else(|| topology.servers.iter().find(|server| server.health.is_up()));
        let Some(server) = server else {
            return Err(unreachable(&topology));
        };
        match self.context.pool.try_login(server.id, &login).await {
            Ok(()) => Ok(()),
            Err(Error {
                kind: ErrorKind::Answer(Answer { code: 1045, .. }),
                ..
            }) => Err(self.denied(account.key.user.as_bytes(), true)),
            Err(
                error @ Error {
                    kind: ErrorKind::Answer(_),
                    ..
                },
            ) => Err(error),
            Err(error) => {
                info!(server = %server.name, %error, "password could not be checked");
                Err(unreachable(&topology))
            }
        }
    }

    fn check_state(&self, account: &Account) -> Result<(), Error> {
        let maria = self.flavor() == Flavor::MariaDb;
        if account.locked {
            let text = format!(
                "Access denied for user '{}'@'{}'. Account is locked.",
                account.key.user,
                self.host()
            );
            return Err(if maria {
                refusal(4151, b"HY000", "Access denied, this account is locked")
            } else {
                refusal(3118, b"HY000", text)
            });
        }
        if account.expired {
            let text = "Your password has expired. To log in you must change it using a client that supports \
                        expired passwords.";
            return Err(refusal(if maria { 1820 } else { 1862 }, b"HY000", text));
        }
        if account.requires_tls {
            return Err(self.denied(account.key.user.as_bytes(), true));
        }
        Ok(())
    }

    fn address(&self) -> ClientAddress {
        match self.peer {
            Peer::Unix => ClientAddress::Unix,
            Peer::Tcp(address) => ClientAddress::Ip(address.ip().to_canonical()),
        }
    }

    /// The client's host as servers write it in their errors.
    fn host(&self) -> String {
        match self.address() {
            ClientAddress::Unix => "localhost".into(),
            ClientAddress::Ip(address) => address.to_string(),
        }
    }

    pub(super) fn flavor(&self) -> Flavor {
        self.context.topology.borrow().flavor()
    }

    fn denied(&self, user: &[u8], with_password: bool) -> Error {
        let user = String::from_utf8_lossy(user);
        let using = if with_password { "YES" } else { "NO" };
        let text = format!(
            "Access denied for user '{user}'@'{}' (using password: {using})",
            self.host()
        );
        refusal(1045, b"28000", text)
    }

    fn host_not_allowed(&self, flavor: Flavor) -> Error {
        let family = if flavor == Flavor::MariaDb {
            "MariaDB"
        } else {
            "MySQL"
        };
        let text = format!(
            "Host '{}' is not allowed to connect to this {family} server",
            self.host()
        );
        refusal(1130, b"HY000", text)
    }

    pub(super) async fn refuse(&mut self, error: &Error) {
        let answer = error.answer();
        if matches!(error.kind, ErrorKind::Closed | ErrorKind::Io(_))
            && error.origin == Origin::Client
        {
            return;
        }
        let mut out = BytesMut::new();
        put_err(
            &mut out,
            &mut self.seq,
            &answer.packet(),
            Capabilities::PROTOCOL_41,
        );
        // The client may be gone: then there is nobody to be told.
        let _ = self.client.write_all(&out).await;
    }

    async fn receive(&mut self) -> Result<BytesMut, Error> {
        conversation::receive(self.client, self.input, &mut self.seq, Origin::Client).await
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        conversation::send(self.client, &mut self.seq, payload, Origin::Client).await
    }
}

fn refusal(
    code: u16,
    sqlstate: &[u8; 5],
    text: impl Into<std::borrow::Cow<'static, str>>,
) -> Error {
    Error::answer_with(Origin::Proxy, code, sqlstate, text)
}

fn unreachable(topology: &Topology) -> Error {
    let servers: Vec<_> = topology
        .servers
        .iter()
        .map(|server| format!("{}: {}", server.name, server.why))
        .collect();
    let text = format!(
        "Can't connect to MySQL server: no server can be reached ({})",
        servers.join("; ")
    );
    Error::answer_with(Origin::Server, 2003, b"HY000", text)
}

pub(super) fn scramble() -> Result<Scramble, Error> {
    let mut random = [0; Scramble::LEN];
    rand::fill(&mut random).map_err(|_| Error::setup("the system gives no random numbers"))?;
    Ok(Scramble::from_random(random))
}

fn sha2_proof(password: &[u8]) -> Proof {
    if password.is_empty() {
        return Proof::Empty;
    }
    Proof::Sha2 {
        password: Zeroizing::new(password.to_vec()),
        stage1: Zeroizing::new(*Sha2Stage1::of(password).as_bytes()),
    }
}
