//! Logging in to a server as an account that has proven itself to the proxy.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand,
    rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey},
};
use bytes::BytesMut;
use dbproxy_proto::{
    capability::Capabilities,
    command::put_query,
    compress::{Method, Side},
    handshake::{
        auth::{Channel, NativeStage1, SecretBytes, Secrets, Sha2Stage1},
        client::{self, LoggedIn, LoginError, ServerGreeting, Step},
    },
};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{
    accepted::Accepted,
    conn::{BackendConn, Trackers},
    state::{Charset, SessionState},
    talk::Talk,
};
use crate::{
    accounts::{Account, AccountKey, Demand, Proof},
    config::{ProxyProtocol, ServerAddress, ServerMode},
    error::{Answer, Error, ErrorKind},
    net::{Stream, proxy_header, tls::Connector},
    topology::{Flavor, ServerId},
};

/// A server as connections need it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its place in the topology.
    pub id: ServerId,
    /// Its name for people.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: ServerAddress,
    /// How long connecting and logging in may take together.
    pub deadline: Duration,
    /// The session states that it is known to accept.
    pub accepted: Arc<Accepted>,
    /// How connections to it are compressed, if it offers that.
    pub compression: Option<Method>,
    /// Whether it is told where clients are.
    pub proxy_protocol: ProxyProtocol,
    /// Whether and how TLS is used.
    pub tls: Connector,
}

impl Target {
    /// Whether it listens at a unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.address, ServerAddress::Unix(_))
    }
}

/// Who logs in.
#[derive(Clone, Debug)]
pub struct Login {
    /// User name.
    pub user: Arc<str>,
    /// The account that this stands for.
    pub account: AccountKey,
    /// What the account has proven.
    pub proof: Arc<Proof>,
    /// Its password has expired: it may change that, and nothing else.
    pub expired: bool,
    /// The schema to log in with: one whose password has expired cannot choose it later.
    pub schema: Option<Arc<[u8]>>,
    /// What the servers demand of the account's connections.
    pub demand: Demand,
    /// Where the client is, for servers that are told; None if it is on the proxy's own machine, at a unix socket.
    pub client: Option<IpAddr>,
}

impl Login {
    /// A login as `user`, whose account is `account`.
    pub fn new(user: &[u8], account: &Account, proof: Arc<Proof>, client: Option<IpAddr>) -> Self {
        Self {
            user: String::from_utf8_lossy(user).into(),
            account: account.key.clone(),
            proof,
            expired: account.expired,
            schema: None,
            demand: account.requirement.demand(),
            client,
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub struct Unconnected {
    /// What happened.
    pub error: Error,
    /// Whom it concerns.
    pub fault: Fault,
}

/// Whom a failure to connect concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Everybody: the server is not there, or takes nobody now.
    Server,
    /// Whoever logs in as this account, or from this client: the server has greeted.
    Account,
}

impl Unconnected {
    fn new(error: Error, greeted: bool, target: &Target) -> Self {
        let takes_nobody = match &error.kind {
            // ER_CON_COUNT_ERROR, ER_SERVER_SHUTDOWN: said to those whom the server knows already as well.
            ErrorKind::Answer(answer) if matches!(answer.code, 1040 | 1053) => true,
            // ER_HOST_IS_BLOCKED, ER_HOST_NOT_PRIVILEGED: dbproxy's own host, unless the client's counts.
            ErrorKind::Answer(answer) if matches!(answer.code, 1129 | 1130) => {
                !greeted && target.proxy_protocol == ProxyProtocol::Off
            }
            _ => !greeted,
        };
        let fault = if takes_nobody {
            Fault::Server
        } else {
            Fault::Account
        };
        Self { error, fault }
    }
}

/// The capabilities asked of every server: what the proxy itself needs.
const ALWAYS: Capabilities = Capabilities::LONG_PASSWORD
    .union(Capabilities::LONG_FLAG)
    .union(Capabilities::PROTOCOL_41)
    .union(Capabilities::TRANSACTIONS)
    .union(Capabilities::SECURE_CONNECTION)
    .union(Capabilities::PLUGIN_AUTH)
    .union(Capabilities::PLUGIN_AUTH_LENENC_DATA)
    .union(Capabilities::CONNECT_ATTRS)
    .union(Capabilities::SESSION_TRACK);

/// The capabilities that change the bytes of commands and answers: without one of them a connection is of no use to who
/// wants it.
pub const LAYOUT: Capabilities = Capabilities::DEPRECATE_EOF
    .union(Capabilities::OPTIONAL_RESULTSET_METADATA)
    .union(Capabilities::QUERY_ATTRIBUTES)
    .union(Capabilities::PROGRESS)
    .union(Capabilities::STMT_BULK_OPERATIONS)
    .union(Capabilities::EXTENDED_METADATA)
    .union(Capabilities::BULK_UNIT_RESULTS);

impl BackendConn {
    /// Connects and logs in. `profile` are the capabilities wanted beyond those that the proxy itself needs.
    pub async fn connect(
        target: &Target,
        login: &Login,
        profile: Capabilities,
    ) -> Result<Self, Unconnected> {
        let mut greeted = false;
        let connecting = connect(target, login, profile, &mut greeted);
        let conn = timeout(target.deadline, connecting).await;
        let conn = conn.unwrap_or_else(|_| {
            let what = format!(
                "connecting to server {} took longer than {:?}",
                target.name, target.deadline
            );
            Err(Error::server(ErrorKind::Timeout(what)))
        });
        conn.map_err(|error| Unconnected::new(explain(target, error), greeted, target))
    }

    /// Ends the query that another connection of the same account runs.
    pub async fn kill_query(mut self, thread_id: u32) -> Result<(), Error> {
        let mut command = BytesMut::new();
        let kill = format!("KILL QUERY {thread_id}");
        put_query(&mut command, kill.as_bytes(), self.capabilities());
        self.send(&command, &[]).await?;
        self.expect_answers(1);
        self.settle(&crate::net::Buffers::default()).await
    }
}

async fn connect(
    target: &Target,
    login: &Login,
    profile: Capabilities,
    greeted: &mut bool,
) -> Result<BackendConn, Error> {
    let io = |error: io::Error| {
        let text = format!(
            "cannot connect to server {} ({}): {error}",
            target.name, target.address
        );
        Error::server(ErrorKind::Io(io::Error::new(error.kind(), text)))
    };
    let stream = match &target.address {
        ServerAddress::Tcp { host, port } => Stream::tcp(
            TcpStream::connect((host.as_str(), *port))
                .await
                .map_err(io)?,
        )
        .map_err(io)?,
        ServerAddress::Unix(path) => Stream::unix(UnixStream::connect(path).await.map_err(io)?),
    };
    let mut talk = Talk::new(stream);
    // In front of everything, TLS too. Nothing answers it: a server greets at once and reads it before the login.
    let announced = match target.proxy_protocol {
        ProxyProtocol::Off => Ok(()),
        ProxyProtocol::On => {
            let header = proxy_header::announcement(login.client);
            talk.stream.write_all(&header).await.map_err(io)
        }
    };
    let greeting = talk.answer_to(announced).await?;
    let greeting = ServerGreeting::parse(&greeting).map_err(|error| refused(target, error))?;
    *greeted = true;
    let (compressed, zstd_level) = match target.compression {
        Some(Method::Zlib(_)) => (Capabilities::COMPRESS, 0),
        Some(Method::Zstd(level)) => (Capabilities::ZSTD_COMPRESSION, level),
        None => (Capabilities::empty(), 0),
    };
    let wanted = ALWAYS | profile | compressed;
    let mut request = client::Login::new(login.user.as_bytes(), wanted, Channel::Plain);
    request.zstd_level = zstd_level;
    request.tls = wants_tls(target, login, &talk.stream, &greeting)?;
    if let Some(payload) = request.tls_request(&greeting) {
        talk.secure(target, &payload).await?;
    }
    if talk.stream.is_secure() {
        request.channel = Channel::Secure;
    }
    request.secrets = secrets(&login.proof);
    request.database = login.schema.as_deref().map(Into::into);
    rand::fill(&mut request.nonce)
        .map_err(|_| Error::setup("the system gives no random numbers"))?;
    request.attributes = vec![(b"_client_name".to_vec(), b"dbproxy".to_vec())];
    let mut step = request
        .start(&greeting)
        .map_err(|error| refused(target, error))?;
    let logged_in: LoggedIn = loop {
        step = match step {
            Step::Send { payload, next } => {
                let sent = talk.send(&payload).await;
                next.handle(&talk.answer_to(sent).await?)
                    .map_err(|error| refused(target, error))?
            }
            Step::Receive(next) => next
                .handle(&talk.receive().await?)
                .map_err(|error| refused(target, error))?,
            Step::Encrypt { key, message, next } => {
                let ciphertext = encrypt(&key, &message).ok_or_else(|| {
                    let text =
                        format!("server {} sent an RSA key that cannot be used", target.name);
                    Error::server(ErrorKind::Protocol(text))
                })?;
                next.handle(&ciphertext)
            }
            Step::Done(done) => break done,
        };
    };
    let missing = (profile & LAYOUT).difference(logged_in.capabilities);
    if !missing.is_empty() {
        let text = format!(
            "server {} does not speak {missing:?}, which the client was offered when all servers did: connect again",
            target.name
        );
        return Err(Error::server(ErrorKind::Answer(Answer::new(
            1105, b"HY000", text,
        ))));
    }
    if let Some(method) = target.compression
        && logged_in.capabilities.intersects(compressed)
    {
        talk.stream.compress(method, Side::Client, talk.input);
    }
    let (flavor, trackers) = if greeting.version.contains("MariaDB") {
        (Flavor::MariaDb, Trackers::MARIADB)
    } else {
        (Flavor::MySql, Trackers::MYSQL)
    };
    // As logged in, with the collation of client::Login::new.
    let charset = Charset::of_login(Charset::HANDSHAKE_ID, flavor);
    let mut state = SessionState::new(login.schema.as_deref(), charset, false);
    if logged_in.capabilities.contains(Capabilities::IGNORE_SPACE) {
        // It has changed the mode until the next reset: to nothing that a session asks for by name.
        state = state.with_variable("sql_mode", "");
    }
    let state = Arc::new(state);
    Ok(BackendConn::new(
        talk.stream,
        target.id,
        greeting.connection_id,
        logged_in.capabilities,
        state,
        trackers,
        Arc::clone(&target.accepted),
    ))
}

/// Whether TLS comes in between; an error if it has to and cannot.
fn wants_tls(
    target: &Target,
    login: &Login,
    stream: &Stream,
    greeting: &ServerGreeting,
) -> Result<bool, Error> {
    let (mode, offered) = (
        target.tls.mode,
        greeting.capabilities.contains(Capabilities::SSL),
    );
    let unable = |why: &str| {
        let text = format!(
            "Access denied: dbproxy cannot log in to server {} as {}: {why}",
            target.name, login.account
        );
        // Not 1045, which says that the password is wrong.
        Error::server(ErrorKind::Answer(Answer::new(1698, b"28000", text)))
    };
    if matches!(target.address, ServerAddress::Unix(_)) {
        // Servers take no unix socket for TLS here, although it is as secure.
        return match login.demand {
            Demand::Nothing => Ok(false),
            Demand::Tls | Demand::Certificate => Err(unable(
                "the account requires TLS, which is not used on a unix socket: give the server's TCP address",
            )),
        };
    }
    match mode {
        _ if login.demand == Demand::Certificate && !target.tls.has_certificate() => Err(unable(
            "the account requires a client certificate; give dbproxy one: tls.server.certificate and tls.server.key",
        )),
        ServerMode::Disabled if login.demand != Demand::Nothing => Err(unable(
            "the account requires TLS, and tls.server.mode is \"disabled\"",
        )),
        ServerMode::Disabled => Ok(false),
        ServerMode::Preferred if !offered && login.demand != Demand::Nothing => Err(unable(
            "the account requires TLS, and the server does not offer it",
        )),
        ServerMode::Preferred => {
            Ok(offered && (login.demand != Demand::Nothing || !stream.is_local()))
        }
        _ if !offered => {
            let text = format!(
                "server {} does not offer TLS, which tls.server.mode requires",
                target.name
            );
            let error = io::Error::new(io::ErrorKind::Unsupported, text);
            Err(Error::server(ErrorKind::Io(error)))
        }
        _ => Ok(true),
    }
}

fn secrets(proof: &Proof) -> Secrets {
    match proof {
        Proof::Native(stage1) => Secrets {
            native_stage1: Some(NativeStage1::new(**stage1)),
            ..Secrets::default()
        },
        Proof::Password { password, stage1 } => Secrets {
            password: Some(SecretBytes::from(password.as_slice())),
            sha2_stage1: Some(Sha2Stage1::new(**stage1)),
            ..Secrets::default()
        },
        Proof::Empty => Secrets {
            password: Some(SecretBytes::default()),
            ..Secrets::default()
        },
    }
}

/// Says of an error what it means if it is about the PROXY header, which no client knows of.
fn explain(target: &Target, error: Error) -> Error {
    let ErrorKind::Answer(answer) = &error.kind else {
        return error;
    };
    let is_about_it = match answer.code {
        // MariaDB's word for addresses that it does not list. Other hosts that are not allowed get the same number.
        1130 => answer.message.starts_with("Proxy header"),
        // To other servers it is a packet that makes no sense.
        1043 | 1156 => true,
        _ => false,
    };
    if target.proxy_protocol == ProxyProtocol::Off || !is_about_it {
        return error;
    }
    let text = format!(
        "Bad handshake: server {} does not take the PROXY header of dbproxy ({}): list dbproxy's address in the server's \
         proxy_protocol_networks, or set cluster.proxy_protocol = \"off\" (or cluster.server[].proxy_protocol) in dbproxy",
        target.name, answer.message
    );
    Error::server(ErrorKind::Answer(Answer::new(1043, b"08S01", text)))
}

fn refused(target: &Target, error: LoginError) -> Error {
    match error {
        LoginError::Refused {
            code,
            sqlstate,
            message,
        } => Error::server(ErrorKind::Answer(Answer::new(code, &sqlstate, message))),
        LoginError::Protocol(error) => Error::server(ErrorKind::Protocol(format!(
            "server {}: {error}",
            target.name
        ))),
        error => {
            let text = format!(
                "Access denied: dbproxy cannot log in to server {}: {error}",
                target.name
            );
            Error::server(ErrorKind::Answer(Answer::new(1045, b"28000", text)))
        }
    }
}

fn encrypt(key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(key).ok()?).ok()?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    let written = key
        .encrypt(&OAEP_SHA1_MGF1SHA1, message, &mut ciphertext, None)
        .ok()?
        .len();
    ciphertext.truncate(written);
    Some(ciphertext)
}
