//! The way in: greeting, authentication, and what is checked of an account before it is let in.

mod authenticate;
mod refusal;
mod verify;

use std::{future::Future, io, sync::Arc};

use aws_lc_rs::rand;
use bytes::BytesMut;
use dbproxy_proto::{
    capability::Capabilities,
    command::ChangeUser,
    compress::Method,
    handshake::{
        auth::{AuthPlugin, Channel, Scramble},
        server::{Answer as AuthAnswer, FirstPacket, Greeting as FirstWords, LoginRequest},
    },
    reply::put_err,
};
use tokio::{select, time::timeout};
use tracing::debug;

use super::{Context, Registration, Source, clusters, login::initial_status};
use crate::{
    accounts::{Account, ClientAddress, Proof},
    backend::{Charset, Login, SessionState},
    config::{ClientCompression, Compression},
    error::{Error, ErrorKind, Origin},
    net::{Peer, Stream, conversation, proxy_header, tls::Admission},
    sql::Dialect,
    topology::{Flavor, Greeting, Health, Topology},
};
use refusal::{refusal, unreachable};

/// What clients are offered.
///
/// Besides ways to compress, which no server connection's profile shall know of.
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
    .union(Capabilities::CAN_HANDLE_EXPIRED_PASSWORDS)
    .union(Capabilities::SESSION_TRACK)
    .union(Capabilities::DEPRECATE_EOF);

/// The ways to compress.
const COMPRESSIONS: Capabilities = Capabilities::COMPRESS.union(Capabilities::ZSTD_COMPRESSION);

/// The ways to compress that a client may choose from: MariaDB's servers have but one.
fn compressions(setting: ClientCompression, flavor: Flavor) -> Capabilities {
    match (setting, flavor) {
        (ClientCompression::Off, _) => Capabilities::empty(),
        (ClientCompression::On, Flavor::MySql) => COMPRESSIONS,
        (ClientCompression::On, Flavor::MariaDb) => Capabilities::COMPRESS,
    }
}

/// A client that is not logged in yet.
pub(super) struct Door<'a> {
    pub(super) client: &'a mut Stream,
    pub(super) peer: Peer,
    pub(super) admission: Admission,
    /// The cluster that is greeted for, and then the client's own.
    pub(super) context: &'a Arc<Context>,
    pub(super) clusters: &'a [Arc<Context>],
    pub(super) input: &'a mut BytesMut,
    /// The sequence id of the next packet, in either direction.
    pub(super) seq: u8,
    pub(super) capabilities: Capabilities,
}

/// Who has proven to be somebody.
pub(super) struct Entered {
    pub(super) account: Arc<Account>,
    pub(super) proof: Arc<Proof>,
    /// The info of the OK packet; empty if nothing is to be said.
    pub(super) voucher: Vec<u8>,
}

/// The connection attribute in which programs give their name.
pub(super) const PROGRAM: &[u8] = b"program_name";

/// Who came in.
pub(super) struct Admitted {
    pub(super) account: Arc<Account>,
    pub(super) voucher: Vec<u8>,
    pub(super) login: Login,
    pub(super) state: SessionState,
    pub(super) base: Dialect,
    pub(super) scramble: Scramble,
    /// How everything after the login is compressed.
    pub(super) compression: Option<Method>,
    /// What the client calls itself.
    pub(super) program: Option<Box<[u8]>>,
    /// Its cluster.
    pub(super) context: Arc<Context>,
}

/// Who wants in, and by what right.
pub(super) struct Claim<'a> {
    pub(super) user: &'a [u8],
    pub(super) answer: AuthAnswer<'a>,
}

/// How statements are read when a session begins.
pub(super) fn dialect(servers: &Greeting) -> Dialect {
    let maria = servers.version.flavor == Flavor::MariaDb;
    Dialect::of(maria, servers.version.number())
        .with_sql_mode(servers.sql_mode.as_bytes())
        .with_charset(Charset::name_of(servers.collation).as_bytes())
}

impl Door<'_> {
    /// Learns from a load balancer whom it speaks for.
    pub(super) async fn meet(&mut self, registration: &mut Registration) -> Result<(), Error> {
        let Peer::Tcp(balancer) = self.peer else {
            return Ok(());
        };
        let mut balancers = self.context.balancers.iter();
        if !balancers.any(|network| network.contains(balancer.ip())) {
            return Ok(());
        }
        let limits = &self.context.limits;
        // Most of the time that a login may take: the balancer is to be told.
        let patience = limits.login * 4 / 5;
        let header = timeout(patience, proxy_header::receive(self.client, self.input)).await;
        let client = header
            .unwrap_or_else(|_| Err(proxy_header::missing()))?
            .unwrap_or(balancer);
        self.peer = Peer::Tcp(client);
        let source = Source::from(client.ip());
        registration
            .comes_from(source, limits)
            .map_err(|full| Error {
                kind: ErrorKind::Answer(full.answer(Some(client.ip()), limits)),
                origin: Origin::Proxy,
            })
    }

    pub(super) async fn admit(&mut self, id: u32) -> Result<Admitted, Error> {
        let topology = self.first_topology().await?;
        let Some(servers) = &topology.greeting else {
            return Err(unreachable(&topology));
        };
        self.check_host(servers)?;
        let scramble = scramble()?;
        let setting = &self.context.compression;
        let compressions = compressions(setting.client, servers.version.flavor);
        let plugin = self.default_plugin();
        let version = servers.version.greeting();
        let base = dialect(servers);
        let greeting = FirstWords {
            version: &version,
            connection_id: id,
            scramble,
            capabilities: self.offered(servers) | compressions,
            collation: u16::from(Charset::greeting_id(servers.collation)),
            status: initial_status(base),
            plugin: plugin.clone(),
        };
        self.send(&greeting.payload()).await?;
        let packet = self.login_packet(id).await?;
        let FirstPacket::Login(request) = FirstPacket::parse(&packet).map_err(malformed)? else {
            return Err(refusal(1043, b"08S01", "Bad handshake"));
        };
        if self.admission == Admission::Secure && !self.client.is_secure() {
            return Err(self.insecure(&request));
        }
        let compression = compression(&request, compressions, setting)?;
        self.capabilities =
            request.capabilities & (self.offered(servers) | Capabilities::LONG_PASSWORD);
        let greeted = self.context;
        self.choose_cluster(request.user, request.database);
        let topology = Arc::clone(&self.context.topology.borrow());
        let Some(own) = &topology.greeting else {
            return Err(unreachable(&topology));
        };
        let base = if Arc::ptr_eq(greeted, self.context) {
            base
        } else {
            self.greeted_for_another(servers, own)?
        };
        let claim = Claim {
            user: request.user,
            answer: request.answer(scramble),
        };
        let Entered {
            account,
            proof,
            voucher,
        } = self.authenticate(claim, plugin, scramble).await?;
        let login = Login::new(request.user, &account, proof, self.peer.ip());
        let charset = Charset::of_login(u16::from(request.collation), servers.version.flavor);
        let multi_statements = self.capabilities.contains(Capabilities::MULTI_STATEMENTS);
        let state = SessionState::new(request.database, charset, multi_statements);
        Ok(Admitted {
            account,
            voucher,
            login,
            state,
            base,
            scramble,
            compression,
            program: request.attributes.find(PROGRAM).map(Into::into),
            context: Arc::clone(self.context),
        })
    }

    /// Refuses a change to a user whose sessions are another cluster's: nothing of the session could go on.
    pub(super) fn stay_in_cluster(&self, request: &ChangeUser<'_>) -> Result<(), Error> {
        let tls = self.client.tls();
        let name = tls.and_then(|tls| tls.server_name.as_deref());
        let chosen = clusters::choose(self.clusters, name, request.user, request.database);
        if chosen.is_none_or(|chosen| Arc::ptr_eq(chosen, self.context)) {
            return Ok(());
        }
        let text =
            "dbproxy: the sessions of this user or schema belong to another cluster: connect anew";
        Err(Error::answer_with(Origin::Proxy, 1105, b"HY000", text))
    }

    fn check_host(&self, servers: &Greeting) -> Result<(), Error> {
        if self.context.directory.borrow().allows_host(&self.address()) {
            Ok(())
        } else {
            Err(self.host_not_allowed(servers.version.flavor))
        }
    }

    /// Takes the client to the cluster that serves it.
    fn choose_cluster(&mut self, user: &[u8], schema: Option<&[u8]>) {
        let tls = self.client.tls();
        let name = tls.and_then(|tls| tls.server_name.as_deref());
        if let Some(chosen) = clusters::choose(self.clusters, name, user, schema) {
            self.context = chosen;
        }
    }

    /// How statements are read in the client's own cluster, when it was greeted for another one.
    fn greeted_for_another(&self, greeted: &Greeting, own: &Greeting) -> Result<Dialect, Error> {
        if own.version.flavor != greeted.version.flavor {
            let text = "Clients of this cluster need a dbproxy of their own: its servers are of another family than those \
                        that clients are greeted for";
            return Err(Error::answer_with(Origin::Proxy, 1105, b"HY000", text));
        }
        self.check_host(own)?;
        Ok(dialect(own))
    }

    /// What clients of these servers are offered: to those of MariaDB the absence of the first flag tells that its
    /// extended capabilities follow.
    fn offered(&self, servers: &Greeting) -> Capabilities {
        let mut offered = OFFERED | servers.extensions & clusters::extensions(self.clusters);
        offered.set(Capabilities::SSL, self.context.tls.is_some());
        match servers.version.flavor {
            Flavor::MySql => offered,
            Flavor::MariaDb => offered.difference(Capabilities::LONG_PASSWORD),
        }
    }

    /// The client's login, after TLS is agreed on if it asks for that first.
    async fn login_packet(&mut self, id: u32) -> Result<BytesMut, Error> {
        let packet = match self.receive().await {
            Err(_) if proxy_header::is_header(self.input) => return Err(self.unasked_header()),
            packet => packet?,
        };
        let (FirstPacket::TlsRequest { .. }, Some(acceptor)) = (
            FirstPacket::parse(&packet).map_err(malformed)?,
            &self.context.tls,
        ) else {
            return Ok(packet);
        };
        let agreed = self.client.accept_tls(acceptor, self.input).await;
        agreed.map_err(|error| {
            let text = format!("TLS handshake: {error}");
            Error::client(ErrorKind::Io(io::Error::new(error.kind(), text)))
        })?;
        if let Some(tls) = self.client.tls() {
            let subject = tls.certificate.as_ref().map(|names| &*names.subject);
            debug!(
                session = id,
                version = tls.version,
                cipher = tls.cipher,
                certificate = subject,
                "TLS"
            );
        }
        self.receive().await
    }

    /// The plugin that clients try first: that of most accounts.
    pub(super) fn default_plugin(&self) -> AuthPlugin {
        match self.flavor() {
            Flavor::MariaDb => AuthPlugin::MysqlNativePassword,
            Flavor::MySql => AuthPlugin::CachingSha2Password,
        }
    }

    /// Waits until every server was looked for, and one of them seen: the greeting has to speak for all of them.
    async fn first_topology(&self) -> Result<Arc<Topology>, Error> {
        let mut topology = self.context.topology.clone();
        // Most of the time that a login may take: the client is to be told.
        let patience = self.context.limits.login * 4 / 5;
        let looked_for = |topology: &Arc<Topology>| {
            topology
                .servers
                .iter()
                .all(|server| server.health != Health::Unknown)
        };
        // One that is silent is not waited for as long as one that is the only one.
        let all = timeout(patience / 4, topology.wait_for(looked_for));
        let _ = self.unless_closed(async { all.await.is_ok() }).await?;
        let seen = topology.wait_for(|topology| topology.greeting.is_some());
        match self.unless_closed(timeout(patience, seen)).await? {
            Ok(Ok(topology)) => Ok(Arc::clone(&topology)),
            _ => {
                let topology = Arc::clone(&self.context.topology.borrow());
                Err(unreachable(&topology))
            }
        }
    }

    fn channel(&self) -> Channel {
        if self.client.is_secure() {
            Channel::Secure
        } else {
            Channel::Plain
        }
    }

    /// Waits for something that is of no use once the client has left.
    async fn unless_closed<T>(&self, wait: impl Future<Output = T>) -> Result<T, Error> {
        select! {
            biased;
            done = wait => Ok(done),
            () = self.client.closed() => Err(Error::client(ErrorKind::Closed)),
        }
    }

    fn address(&self) -> ClientAddress {
        self.peer
            .ip()
            .map_or(ClientAddress::Unix, ClientAddress::Ip)
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

/// How a client will compress, given what it was offered.
fn compression(
    request: &LoginRequest<'_>,
    offered: Capabilities,
    setting: &Compression,
) -> Result<Option<Method>, Error> {
    let wanted = request.capabilities & COMPRESSIONS;
    let common = wanted & offered;
    if common.contains(Capabilities::COMPRESS) {
        Ok(Some(Method::Zlib(setting.zlib_level)))
    } else if common.contains(Capabilities::ZSTD_COMPRESSION) {
        let level = request.zstd_level.unwrap_or(setting.zstd_level);
        Ok(Some(Method::Zstd(level.clamp(1, setting.zstd_level))))
    } else if wanted.is_empty() {
        Ok(None)
    } else {
        // Some clients compress what follows whatever they were offered.
        let text = "Bad handshake: compression is switched off in dbproxy (compression.client); \
                    switch it off in the client too";
        Err(refusal(1043, b"08S01", text))
    }
}

fn malformed(_: dbproxy_proto::ProtocolError) -> Error {
    refusal(1043, b"08S01", "Bad handshake")
}

fn scramble() -> Result<Scramble, Error> {
    let mut random = [0; Scramble::LEN];
    rand::fill(&mut random).map_err(|_| Error::setup("the system gives no random numbers"))?;
    Ok(Scramble::from_random(random))
}
