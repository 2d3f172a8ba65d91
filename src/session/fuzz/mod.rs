//! Bodies of the fuzz targets that hold whole conversations: a session between a client and a server, one of which keeps to
//! the protocol and one of which does anything at all.
//!
//! The session, the pool and the sockets are the real ones; client and server are models. Nothing waits for time to pass: when
//! nothing moves any more the server's connections are closed, then the client's.
#![allow(clippy::missing_panics_doc, clippy::panic, clippy::expect_used)]

mod client;
mod script;
mod server;

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use dbproxy_proto::capability::Capabilities;
use tokio::{
    net::UnixStream,
    runtime::Builder,
    sync::{Semaphore, watch},
    task::{JoinHandle, yield_now},
    time::Instant,
};

use super::{
    AccountChanges, AnswerCache, CatchUp, Complaints, Context, Definitions, Loads, Mirrored,
    Policy, Registry, Schemas, ServerKey, serve,
};
use crate::{
    accounts::{Credentials, Directory, Reading, Scopes},
    backend::Target,
    config::{
        self, Config, ListenAddress, ProxyProtocol, SecretFile, ServerAddress, ServerMode, Serves,
        Sources,
    },
    net::{
        Buffers, Entrance, Peer, Stream,
        tls::{self, Admission, Connector},
    },
    pool::{Pool, WorkerId},
    sql::{Classifier, catalogue::Catalogue},
    topology::{Defaults, Gate, Greeting, Health, Lag, Role, Server, ServerId, Topology, Version},
};
use client::{Client, Manners};
use script::Script;
use server::Model;

/// A client that does anything at all, and a server that keeps to the protocol.
pub fn hostile_client(data: &[u8]) {
    converse(Script::new(data), Manners::Bad);
}

/// A server that does anything at all, and a client that keeps to the protocol.
pub fn hostile_server(data: &[u8]) {
    converse(Script::new(data), Manners::Good);
}

fn converse(script: Script, manners: Manners) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    runtime.block_on(async {
        let (for_client, for_server) = match manners {
            Manners::Bad => (script, Script::default()),
            Manners::Good => (Script::new(&[]), script),
        };
        let world = World::new(for_server);
        world.serve(for_client, manners).await;
        // Whatever happened, the next client finds everything in order.
        world.model.behave();
        let served = world.serve(Script::new(&[]), Manners::Good).await;
        assert!(served, "the next client was not served");
        assert_eq!(world.context.registry.count(), 0);
    });
}

/// Rounds of the runtime without a byte from anybody, after which nothing will come any more.
const QUIET: u32 = 200;

/// A session that is not over by then hangs. Only failures take that long.
const HANGS: Duration = Duration::from_secs(20);

struct World {
    context: Arc<Context>,
    model: Arc<Model>,
    // Without it, waiting for another topology would end at once.
    _topology: watch::Sender<Arc<Topology>>,
}

impl World {
    fn new(script: Script) -> Self {
        let config = configuration();
        let address = ServerAddress::Unix(private_address());
        let ServerAddress::Unix(path) = &address else {
            unreachable!("as made above")
        };
        let model = Model::listen(path, script);
        let outgoing = tls::for_servers(&config.tls.server)
            .expect("nothing is read")
            .current;
        let targets = (0..2).map(|id| Target {
            id: ServerId(id),
            name: format!("db{id}").into(),
            address: address.clone(),
            deadline: config.limits.login,
            accepted: Arc::default(),
            compression: None,
            proxy_protocol: ProxyProtocol::default(),
            tls: Connector::new(ServerMode::Disabled, outgoing.clone()),
        });
        let pool = Arc::new(Pool::new(targets, 1, &config.limits));
        let (sender, topology) = watch::channel(Arc::new(servers(&address)));
        let directory = Arc::new(Directory::new(
            &config.users,
            Reading::default(),
            Instant::now(),
        ));
        let policy = Policy::of_all(&config, &[]).remove(0);
        let context = Context {
            cluster: 0,
            name: "main".into(),
            serves: Serves::default(),
            worker: WorkerId(0),
            buffers: Buffers::default(),
            pool,
            topology,
            directory: watch::channel(directory).1,
            account_changes: Arc::new(AccountChanges::new(Arc::default())),
            definitions: Arc::new(Definitions::new(
                watch::channel(Arc::new(Catalogue::unread().confirmed(Instant::now()))).1,
                Arc::default(),
            )),
            credentials: Arc::new(Credentials::new()),
            scopes: Arc::new(Scopes::new()),
            schemas: Schemas::default(),
            registry: Arc::new(Registry::default()),
            server_key: server_key(),
            checks: Arc::new(Semaphore::new(1)),
            tls: None,
            limits: config.limits.clone(),
            compression: config.compression,
            balancers: Vec::new(),
            loads: Loads::new(2),
            probes: Arc::from([]),
            catch_up: CatchUp::new(2),
            policy: watch::channel(Arc::new(policy)).1,
            answers: Arc::new(AnswerCache::new(1 << 20)),
            firewall: Arc::default(),
            classifier: Classifier::new(100),
            complaints: Complaints::default(),
            turn: AtomicU64::new(0),
            mirrored: Mirrored::default(),
            observer: None,
        };
        Self {
            context: Arc::new(context),
            model,
            _topology: sender,
        }
    }

    /// Serves one client to its end; whether it got all the answers that it waited for.
    async fn serve(&self, script: Script, manners: Manners) -> bool {
        let (near, far) = UnixStream::pair().expect("a pair of sockets can be made");
        let registration = self
            .context
            .registry
            .register(None, true, &self.context.limits);
        let registration = registration.expect("the session before is gone");
        let context = Arc::clone(&self.context);
        let session = serve(
            Stream::unix(near),
            Peer::Unix,
            Entrance {
                listener: Arc::new(ListenAddress::Unix("/nowhere".into())),
                admission: Admission::Any,
            },
            registration,
            Arc::new([context]),
        );
        let session = tokio::spawn(session);
        let progress = Arc::clone(&self.model.progress);
        let client = Client::new(Stream::unix(far), script, manners, progress);
        let waits = client.waits();
        let client = tokio::spawn(client.talk());
        let began = Instant::now();
        let (mut quiet, mut seen, mut cut) = (0, 0, false);
        while !(session.is_finished() && client.is_finished()) {
            assert!(began.elapsed() < HANGS, "the session does not end");
            yield_now().await;
            let now = self.model.progress.load(SeqCst);
            quiet = if now == seen { quiet + 1 } else { 0 };
            seen = now;
            if quiet < QUIET {
                continue;
            }
            quiet = 0;
            let unanswered = waits.load(Relaxed) && self.model.behaves();
            assert!(!unanswered, "a whole command is not answered");
            if cut {
                client.abort();
            }
            self.model.cut();
            cut = true;
        }
        ended(session).await;
        ended(client).await.unwrap_or(false)
    }
}

/// What a task returned, unless it was stopped. Its panic is the caller's.
async fn ended<T>(task: JoinHandle<T>) -> Option<T> {
    match task.await {
        Ok(value) => Some(value),
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

fn configuration() -> Config {
    struct Nothing;
    impl Sources for Nothing {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }
        fn file(&self, _: &Path) -> std::io::Result<SecretFile> {
            Err(std::io::ErrorKind::NotFound.into())
        }
        fn cores(&self) -> usize {
            1
        }
    }
    let text = "[monitor]\nuser = \"m\"\npassword = \"m\"\n[cluster]\nservers = [\"a\", \"b\"]\n\
                [users.app]\npassword = \"app\"\n\
                [limits]\nhold = \"1ms\"\nqueue_wait = \"1s\"\nserver_connections = 4\n";
    let loaded = config::parse(text, "", &Nothing);
    loaded.map(|loaded| loaded.config).expect("it is sound")
}

/// An address of the kernel's own, without a file.
fn private_address() -> PathBuf {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Relaxed);
    let name = format!("\0dbproxy-fuzz-{}-{number}", process::id());
    PathBuf::from(OsStr::from_bytes(name.as_bytes()))
}

/// Takes too long to be made for every run.
fn server_key() -> Arc<ServerKey> {
    static KEY: std::sync::OnceLock<Arc<ServerKey>> = std::sync::OnceLock::new();
    let generate = || Arc::new(ServerKey::generate().expect("a key can be made"));
    Arc::clone(KEY.get_or_init(generate))
}

/// A primary and a replica that is never behind.
fn servers(address: &ServerAddress) -> Topology {
    let version = Version::parse("8.4.0").expect("it is a version");
    let server = |id: u16, role| Server {
        id: ServerId(id),
        name: format!("db{id}").into(),
        address: address.clone(),
        weight: 1,
        group: None,
        near: false,
        role,
        health: Health::Up,
        version: Some(version.clone()),
        identity: None,
        incarnation: 0,
        writable: role == Role::Primary,
        lag: Lag::Known(Duration::ZERO),
        position: None,
        asked_at: None,
        filters: Vec::new(),
        delay: Duration::ZERO,
        readable_since: None,
        barred: None,
        why: "".into(),
        wait_timeout: Duration::MAX,
    };
    Topology {
        epoch: 1,
        at: Instant::now(),
        servers: vec![server(0, Role::Primary), server(1, Role::Replica)],
        primary: Some(ServerId(0)),
        reign: None,
        gate: Gate::Open,
        greeting: Some(Greeting {
            version: version.clone(),
            collation: 255,
            gtid: true,
            sql_mode: "".into(),
            extensions: Capabilities::empty(),
            defaults: Defaults::default(),
        }),
        max_lag: Duration::from_secs(5),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, path::Path};

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = fs::read_dir(manifest.join("fuzz/seeds").join(name)).unwrap();
        let seeds: Vec<_> = files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        seeds
    }

    #[test]
    fn seeds_of_hostile_clients() {
        seeds("session_client")
            .iter()
            .for_each(|seed| hostile_client(seed));
    }

    #[test]
    fn seeds_of_hostile_servers() {
        seeds("session_server")
            .iter()
            .for_each(|seed| hostile_server(seed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_script(script in vec(prop_oneof![0u8..12, any::<u8>()], 0..120)) {
            hostile_client(&script);
            hostile_server(&script);
        }
    }

    #[test]
    fn both_sides_keep_to_the_protocol() {
        hostile_client(b"");
        hostile_server(b"");
    }
}
