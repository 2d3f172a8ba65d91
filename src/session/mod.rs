//! One client: login, command loop, relay, pins, prepared statements.

mod account_changes;
mod administration;
mod ask;
mod catch_up;
mod clusters;
mod command;
mod complaints;
mod definitions;
mod door;
mod elsewhere;
mod execution;
mod finish;
#[doc(hidden)]
pub mod fuzz;
mod guest;
mod handle;
mod hedge;
mod hints;
mod inquiry;
mod kill;
mod large;
mod limits;
mod load;
mod login;
mod loss;
mod mirror;
mod observe;
mod pins;
mod pipe;
mod prepared;
mod process_list;
mod reading;
mod relay;
mod replay;
mod route;
mod rules;
mod schemas;
mod scopes;
mod server_key;
mod span;
mod statement;
mod status_list;
mod tables;

use std::{
    future::pending,
    mem,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    capability::{Capabilities, StatusFlags},
    handshake::auth::Scramble,
    packet::{self, Frame, PacketHeader},
    reply::{ErrPacket, OkHeader, OkPacket, put_err, put_ok},
};
use tokio::{
    select,
    sync::{Notify, Semaphore, watch},
    time::{Instant, timeout},
};
use tracing::{debug, info};

pub use account_changes::AccountChanges;
pub use catch_up::CatchUp;
pub use complaints::Complaints;
pub use definitions::Definitions;
pub use handle::{Full, Handle, Interrupt, Registration, Registry, TICK};
pub use limits::Source;
pub use load::Loads;
pub use mirror::Mirrored;
pub use observe::Observer;
pub use rules::{AnswerCache, Firewall, Policy};
pub use schemas::Schemas;
pub use server_key::ServerKey;

use finish::Kept;
use guest::Guest;
use handle::Dismissal;
use limits::Seat;
use loss::Loss;
use mirror::Lane;
use observe::Onlooker;
use pins::Pins;
use relay::News;
use replay::Recording;
use scopes::SessionScopes;

use crate::{
    accounts::{AccountKey, Credentials, Directory, Scopes},
    backend::{Login, SessionState},
    config::{Compression, Limits, Network, Serves},
    error::{Answer, Error, ErrorKind, Origin},
    net::{Buffers, Entrance, Peer, Stream, tls::Acceptor},
    pool::{Bucket, Pool, PooledConn, WorkerId},
    routing::Reading,
    sql::{Classifier, Counts, Dialect, setting::Settings},
    topology::{Flavor, ServerId, Topology},
};

/// What a worker's sessions of one cluster share.
#[derive(Debug)]
pub struct Context {
    /// The worker.
    pub worker: WorkerId,
    /// The cluster's number.
    pub cluster: u8,
    /// Its name.
    pub name: Box<str>,
    /// Whose sessions it serves.
    pub serves: Serves,
    /// Its buffers.
    pub buffers: Buffers,
    /// Server connections, shared with the other workers.
    pub pool: Arc<Pool>,
    /// The servers as they are now.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// The accounts as they are now.
    pub directory: watch::Receiver<Arc<Directory>>,
    /// What sessions changed of them.
    pub account_changes: Arc<AccountChanges>,
    /// What is known of functions and views, and what sessions changed of them.
    pub definitions: Arc<Definitions>,
    /// Of which accounts the log was told.
    pub complaints: Complaints,
    /// What logins have proven.
    pub credentials: Arc<Credentials>,
    /// What was written, and by whom.
    pub scopes: Arc<Scopes>,
    /// Schemas that accounts are known to have.
    pub schemas: Schemas,
    /// All sessions, shared with the other workers.
    pub registry: Arc<Registry>,
    /// The key pair for passwords over plain TCP.
    pub server_key: Arc<ServerKey>,
    /// Passwords that are checked at a time, away from the worker's thread.
    pub checks: Arc<Semaphore>,
    /// What clients are met with that ask for TLS; `None` if it is not offered.
    pub tls: Option<Acceptor>,
    /// Limits of time and number.
    pub limits: Limits,
    /// Compression to clients.
    pub compression: Compression,
    /// Whose connections begin with a PROXY header.
    pub balancers: Vec<Network>,
    /// What of the configuration counts at once when it is read again.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// Answers that rules keep.
    pub answers: Arc<AnswerCache>,
    /// What rules have learned.
    pub firewall: Arc<Firewall>,
    /// The tables of statements.
    pub classifier: Classifier,
    /// What this worker has running, by server.
    pub loads: Loads,
    /// By server, what asks for a probe at once.
    pub probes: Arc<[Arc<Notify>]>,
    /// Replicas that reads waited for in vain.
    pub catch_up: CatchUp,
    /// Counts reads, for the balance between replicas.
    pub turn: AtomicU64,
    /// What other clusters' sessions have it run a copy of.
    pub mirrored: Mirrored,
    /// Where everything goes to the primary and is only observed: who records it.
    pub observer: Option<Arc<Observer>>,
}

/// Longest command that is collected whole before it is understood; longer ones are streamed.
const COLLECTED: usize = 1 << 20;

/// A logged-in client.
struct Session {
    context: Arc<Context>,
    /// All clusters, its own among them.
    clusters: Arc<[Arc<Context>]>,
    registration: Registration,
    client: Stream,
    /// Bytes from the client that were read and not yet dealt with.
    input: BytesMut,
    capabilities: Capabilities,
    /// What its reads must see, and who must see what it writes.
    scopes: SessionScopes,
    /// Counts for `limits.account_connections`.
    seat: Option<Seat<AccountKey>>,
    /// When it began.
    since: Instant,
    login: Login,
    /// The greeting's, for COM_CHANGE_USER.
    scramble: Scramble,
    peer: Peer,
    /// What it wants otherwise than the configuration says.
    settings: Settings,
    /// The rules that concern it.
    rules: rules::View,
    /// What they say of the statement that runs.
    ruling: Option<Box<rules::Ruling>>,
    /// What the open transaction, or the statement that runs, may have written, if that matters to anybody.
    written: Option<Box<rules::Written>>,
    /// The state that statements must find.
    wanted: Arc<SessionState>,
    /// What `wanted` is reset to.
    initial: Arc<SessionState>,
    /// How statements are read as long as the session changes nothing about it.
    base: Dialect,
    dialect: Dialect,
    /// The schema in use is one of the server's own, whose tables differ from server to server.
    in_system_schema: bool,
    /// The status flags that the client was last told.
    status: StatusFlags,
    /// The connection of an open transaction, or of a pinned session.
    held: Option<PooledConn>,
    pins: Pins,
    /// What went with a connection, until the client is told.
    loss: Option<Loss>,
    /// The open transaction, as far as it can be run again.
    recording: Option<Box<Recording>>,
    /// How long the client was idle before its last command, where that matters.
    rested: Duration,
    /// The open transaction, if it only reads and is on a replica.
    reading: Option<Reading>,
    /// Its logins at other clusters.
    guest: Option<Box<Guest>>,
    /// Its copies for other clusters.
    lanes: Vec<Arc<Lane>>,
    /// The buckets used so far, by server.
    buckets: Vec<(ServerId, Arc<Bucket>)>,
    /// A connection in the pool that may still be asked about an earlier statement.
    kept: Option<Kept>,
    /// How many hints were not understood.
    unknown_hints: u32,
    last_insert_id: u64,
    /// What the statement before would be asked for, if that is known without its connection.
    counts: Option<Counts>,
    /// The connection just taken ran the statement before.
    taken_previous: bool,
    /// The open transaction has a statement that may have written.
    wrote_in_transaction: bool,
    prepared: prepared::Statements,
    /// Looks on while the answer to the statement that runs now passes, if that is to be compared.
    onlooker: Option<Box<Onlooker>>,
    /// What the client is told of changes of its state.
    news: News,
    /// The trackers of the connection that the session is pinned to are as the client set them.
    owns_trackers: bool,
    /// `max_allowed_packet` as it was at the login: a command must be shorter.
    max_packet: usize,
    /// `wait_timeout` as it was at the login.
    wait_timeout: Duration,
}

/// Whether a session goes on after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    End,
    /// What follows is between the client and its server.
    Pipe,
}

/// Serves one client of one of these clusters from the greeting to its end. It connected at this listener.
pub async fn serve(
    client: Stream,
    peer: Peer,
    entrance: Entrance,
    registration: Registration,
    clusters: Arc<[Arc<Context>]>,
) {
    let id = registration.handle().id();
    let Some(limit) = clusters.first().map(|context| context.limits.login) else {
        return;
    };
    let login = Box::pin(login::login(client, peer, entrance, registration, clusters));
    let mut session = match timeout(limit, login).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return debug!(session = id, %error, "login failed"),
        Err(_) => return debug!(session = id, "login took longer than limits.login"),
    };
    match session.run().await {
        Ok(()) => debug!(session = id, "session ended"),
        // A client that leaves or falls silent is nobody's business but its own.
        Err(error) if error.origin == Origin::Client => {
            debug!(session = id, %error, "session broken off");
        }
        Err(error) => info!(session = id, %error, "session broken off"),
    }
}

impl Session {
    fn handle(&self) -> &Handle {
        self.registration.handle()
    }

    async fn run(&mut self) -> Result<(), Error> {
        loop {
            let command = self.next_command().await?;
            self.client.begin_answer();
            let flow = match command {
                None => return Ok(()),
                Some(Frame::Complete { len, .. }) => {
                    let mut input = mem::take(&mut self.input);
                    let flow = self.dispatch(input.get(..len).unwrap_or_default()).await;
                    // A command with a conversation of its own may have read ahead.
                    let ahead = mem::take(&mut self.input);
                    input.advance(len);
                    input.extend_from_slice(&ahead);
                    self.input = input;
                    flow?
                }
                // What is rare lies elsewhere, so that an idle session needs no room for it.
                Some(_) => Box::pin(self.stream_large()).await?,
            };
            match flow {
                Flow::Continue => {}
                Flow::End => return Ok(()),
                Flow::Pipe => return Box::pin(self.pipe()).await,
            }
        }
    }

    /// Waits for the next command; None if the session is to end.
    ///
    /// As long as nothing has arrived the session holds no buffer.
    async fn next_command(&mut self) -> Result<Option<Frame>, Error> {
        self.rested = Duration::ZERO;
        loop {
            let header = PacketHeader::parse(&self.input);
            if header.is_some_and(|header| header.seq != 0) {
                return Err(self.out_of_order().await);
            }
            let announced = header.map_or(0, |header| header.len);
            match packet::complete(&self.input) {
                _ if announced >= self.max_packet => return Ok(Some(Frame::Large)),
                Frame::Incomplete if announced <= COLLECTED => {}
                Frame::Incomplete => return Ok(Some(Frame::Large)),
                frame => return Ok(Some(frame)),
            }
            let begun = !self.input.is_empty();
            if !begun {
                let context = &self.context;
                context.buffers.give_back(mem::take(&mut self.input));
                let since = context.limits.reset_on_ping.map(|_| Instant::now());
                if !self.client_speaks().await? {
                    return Ok(None);
                }
                self.rested = since.map_or(Duration::ZERO, |since| since.elapsed());
                self.input = self.context.buffers.lend();
            } else if self.input.len() == self.input.capacity() {
                self.input.reserve(self.input.len());
            }
            let read = if begun {
                let read = self.client.read(&mut self.input);
                match timeout(self.context.limits.read_timeout, read).await {
                    Ok(read) => read,
                    Err(_) => return Err(self.interrupted_read().await),
                }
            } else {
                match self.client.read_now(&mut self.input).await {
                    Some(read) => read,
                    // There was nothing after all: it stays idle, where it can be dismissed.
                    None => continue,
                }
            };
            match read {
                Ok(0) if !begun => return Ok(None),
                Ok(0) => return Err(Error::client(ErrorKind::Closed)),
                Ok(_) => {}
                Err(error) => return Err(client_io(error)),
            }
        }
    }

    /// Waits for the client as long as it may be idle, and as long as the server keeps what the session holds.
    async fn client_speaks(&mut self) -> Result<bool, Error> {
        let handle = Arc::clone(self.registration.handle());
        handle.idle_begins();
        loop {
            let dismissal = select! {
                biased;
                readable = self.client.readable() => {
                    handle.idle_ends();
                    return readable.map(|()| true).map_err(client_io);
                }
                dismissal = handle.dismissed() => dismissal,
                () = farewell(&mut self.held) => {
                    Box::pin(self.server_left()).await?;
                    continue;
                }
            };
            return match dismissal {
                Dismissal::Ended => self.client_goes_on().await,
                Dismissal::Overdue => Err(self.dismiss().await),
            };
        }
    }

    /// The server has closed the connection that the session holds: for the session's sake, which ends with it, or since it
    /// has failed, of which the client hears when it goes on.
    async fn server_left(&mut self) -> Result<(), Error> {
        let server = self.held.as_ref().map(|conn| conn.server());
        if let Some(server) = server
            && self.has_failed(server).await?
        {
            self.lose_held();
            return Ok(());
        }
        Err(self.pass_farewell().await)
    }

    /// The session was killed, or the proxy stops. In the latter case the client may end an open transaction.
    async fn client_goes_on(&mut self) -> Result<bool, Error> {
        if !self.status.contains(StatusFlags::IN_TRANS) {
            return Ok(false);
        }
        let handle = self.registration.handle();
        select! {
            biased;
            () = handle.killed() => Ok(false),
            readable = self.client.readable() => readable.map(|()| true).map_err(client_io),
            () = farewell(&mut self.held) => Err(self.pass_farewell().await),
        }
    }

    /// Ends the session of a client that was idle for too long, as its server would.
    async fn dismiss(&mut self) -> Error {
        let version = self
            .context
            .topology
            .borrow()
            .greeting
            .as_ref()
            .map(|greeting| greeting.version.clone());
        // https://dev.mysql.com/doc/relnotes/mysql/8.0/en/news-8-0-24.html: others close without a word.
        if version
            .is_some_and(|version| version.flavor == Flavor::MySql && version.number() >= 80_024)
        {
            let text = "The client was disconnected by the server because of inactivity. \
                        See wait_timeout and interactive_timeout for configuring this behavior.";
            let answer = Answer::new(4031, b"HY000", text);
            let mut out = BytesMut::new();
            put_err(&mut out, &mut 0, &answer.packet(), self.capabilities);
            let _ = self.reply(&out).await;
        }
        Error::client(ErrorKind::Timeout("the next command".into()))
    }

    /// The server has closed the connection that the session holds, perhaps with a word: so does the session.
    async fn pass_farewell(&mut self) -> Error {
        if let Some(mut conn) = self.held.take() {
            conn.condemn();
            if let Some(said) = conn.last_words() {
                let _ = self.reply(said).await;
            }
        }
        Error::server(ErrorKind::Closed)
    }

    /// The client has stopped in the middle of a command.
    async fn interrupted_read(&mut self) -> Error {
        let answer = Answer::new(1159, b"08S01", "Got timeout reading communication packets");
        let _ = self.reply_error(&answer).await;
        Error::client(ErrorKind::Timeout("the rest of a command".into()))
    }

    /// Answers with an OK packet of the proxy's own.
    async fn reply_ok(&mut self) -> Result<Flow, Error> {
        let packet = OkPacket {
            status: self.status,
            ..OkPacket::default()
        };
        let mut out = BytesMut::new();
        put_ok(&mut out, &mut 1, &packet, OkHeader::Ok, self.capabilities);
        self.reply(&out).await
    }

    async fn reply_error(&mut self, answer: &Answer) -> Result<Flow, Error> {
        let mut out = BytesMut::new();
        let packet: ErrPacket<'_> = answer.packet();
        put_err(&mut out, &mut 1, &packet, self.capabilities);
        self.reply(&out).await
    }

    async fn reply(&mut self, bytes: &[u8]) -> Result<Flow, Error> {
        self.client.write_all(bytes).await.map_err(client_io)?;
        Ok(Flow::Continue)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.release_kept();
    }
}

/// Seconds since 1970.
fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Waits until a server that should be silent says something, or closes.
async fn farewell(held: &mut Option<PooledConn>) {
    match held {
        Some(conn) => conn.spoken().await,
        None => pending().await,
    }
}

fn client_io(error: std::io::Error) -> Error {
    Error::client(ErrorKind::Io(error))
}
