//! Composition root: the one place that knows everyone.

mod accept;
mod firewall;
pub(crate) mod observe;
mod reload;
mod worker;

use std::{future::Future, io, pin::pin, sync::Arc};

use dbproxy_proto::compress::Method;
use tokio::{
    select,
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, info, warn};

use crate::{
    accounts::{AccountStates, Credentials, Directory},
    backend,
    config::{ClientMode, Config, ServerCompression, ServerConfig},
    control,
    error::Error,
    monitor,
    net::{
        Listener,
        tls::{self, Acceptor, Admission, Connector, Outgoing},
    },
    pool::{Pool, WorkerId},
    session::{
        AccountChanges, AnswerCache, Context, Definitions, Policy, Registry, ServerKey, TICK,
    },
    shutdown::Shutdown,
    sql::{Classifier, catalogue::Catalogue},
    topology::{ServerId, Topology},
};
use observe::Observing;
use worker::Worker;

/// Statements, by digest, whose tables each worker remembers.
const DIGESTS: usize = 2_000;

/// Passwords that each worker has checked at a time.
const CHECKS: usize = 2;

/// Runs the proxy until `stop` resolves, then lets running statements end. `news` brings configurations that were read again:
/// of them counts what can be changed while it runs.
///
/// Errors: what keeps it from starting, such as an address that cannot be listened on.
pub async fn run(
    config: Config,
    news: mpsc::Receiver<Config>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let listeners = bind(&config)?;
    let server_key = Arc::new(ServerKey::generate()?);
    let observing = Observing::begin(&config)?;
    let mut control_plane = JoinSet::new();
    let for_clients =
        tls::for_clients(&config.tls.client, config.state_directory.as_deref())?.map(|followed| {
            control_plane.spawn(followed.following);
            followed.current
        });
    let for_servers = tls::for_servers(&config.tls.server)?;
    control_plane.spawn(for_servers.following);
    let (control, evidence, topology) = control::new(&config.cluster, config.monitor.interval);
    control_plane.spawn(control.run());
    let targets = monitor::targets(&config);
    for target in &targets {
        control_plane.spawn(monitor::watch(target.clone(), evidence.clone()));
    }
    drop(evidence);
    let (directory_sender, directory) =
        watch::channel(Arc::new(Directory::unloaded(&config.users)));
    let nudge = Arc::new(Notify::new());
    let accounts = monitor::accounts::watch(
        targets.clone(),
        config.users.clone(),
        topology.clone(),
        directory_sender,
        Arc::clone(&nudge),
    );
    control_plane.spawn(accounts);
    let (catalogue_sender, catalogue) = watch::channel(Arc::new(Catalogue::unread()));
    let definitions = Arc::new(Definitions::new(catalogue, Arc::default()));
    control_plane.spawn(monitor::catalogue::watch(
        targets,
        config.cluster.max_lag,
        topology.clone(),
        catalogue_sender,
        definitions.nudged(),
    ));

    let registry = Arc::new(Registry::default());
    let credentials = Arc::new(Credentials::new());
    control_plane.spawn(forget_changed_proofs(
        directory.clone(),
        Arc::clone(&credentials),
    ));
    control_plane.spawn(count_idleness(Arc::clone(&registry)));
    control_plane.spawn(announce_deaths(topology.clone(), Arc::clone(&registry)));

    let pool = Arc::new(Pool::new(
        server_targets(&config, &for_servers.current),
        config.workers,
        &config.limits,
    ));
    let keeper = firewall::Keeper::new(config.state_directory())?;
    control_plane.spawn(keeper.clone().keep());
    let (policy_sender, policy) = watch::channel(Arc::new(Policy::new(&config, None)));
    let answers = Arc::new(AnswerCache::new(config.limits.cache));
    if config.rules.iter().any(|rule| rule.then.cache.is_some()) {
        answers.turn_on();
    }
    let reloading = reload::follow(config.clone(), news, policy_sender, Arc::clone(&answers));
    control_plane.spawn(reloading);
    let states = Arc::new(AccountStates::new());
    let account_changes = Arc::new(AccountChanges::new(nudge));
    let shutdown = Shutdown::new();
    let context = |worker| Context {
        worker,
        buffers: crate::net::Buffers::default(),
        pool: Arc::clone(&pool),
        topology: topology.clone(),
        directory: directory.clone(),
        account_changes: Arc::clone(&account_changes),
        definitions: Arc::clone(&definitions),
        complaints: crate::session::Complaints::default(),
        credentials: Arc::clone(&credentials),
        states: Arc::clone(&states),
        schemas: crate::session::Schemas::default(),
        registry: Arc::clone(&registry),
        server_key: Arc::clone(&server_key),
        checks: Arc::new(Semaphore::new(CHECKS)),
        tls: for_clients.clone().map(Acceptor::new),
        limits: config.limits.clone(),
        compression: config.compression,
        balancers: config.listen.proxy_protocol.clone(),
        policy: policy.clone(),
        answers: Arc::clone(&answers),
        firewall: Arc::clone(&keeper.firewall),
        classifier: Classifier::new(DIGESTS),
        in_flight: crate::session::InFlight::new(config.cluster.servers.len()),
        turn: std::sync::atomic::AtomicU64::new(0),
        observer: observing
            .as_ref()
            .and_then(|observing| observing.observer(worker.0)),
    };
    let workers: Vec<Worker> = (0..config.workers)
        .map(|number| Worker::start(context(WorkerId(number)), shutdown.drain()))
        .collect::<io::Result<_>>()
        .map_err(|error| Error::setup(format!("cannot start a worker thread: {error}")))?;

    let workers: Arc<[Worker]> = workers.into();
    let mut accepting = JoinSet::new();
    for listener in listeners {
        info!(address = listener.name(), "listening");
        accepting.spawn(accept::run(
            listener,
            Arc::clone(&workers),
            Arc::clone(&registry),
            config.limits.clone(),
            config.listen.proxy_protocol.clone(),
        ));
    }

    let mut stop = pin!(stop);
    loop {
        select! {
            biased;
            () = &mut stop => break,
            Some(ended) = control_plane.join_next() => {
                if let Err(error) = ended {
                    error!(%error, "a part of dbproxy has failed and does not come back: what it watched is not \
                           watched any more; restart dbproxy");
                }
            }
        }
    }
    info!(
        sessions = registry.count(),
        "stopping: no new clients, running statements may end"
    );
    accepting.shutdown().await;
    registry.stop();
    drop(workers);
    if timeout(config.limits.drain, shutdown.stop()).await.is_err() {
        warn!(
            sessions = registry.count(),
            "limits.drain is over: sessions are cut off"
        );
    }
    control_plane.shutdown().await;
    keeper.finish();
    if let Some(observing) = observing {
        observing.end().await;
    }
    info!("stopped");
    Ok(())
}

fn bind(config: &Config) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    let usual = match config.tls.client.mode {
        ClientMode::Required => Admission::Secure,
        ClientMode::Disabled | ClientMode::Optional => Admission::Any,
    };
    let plain = config.listen.mysql.iter().map(|address| (address, usual));
    let with_tls = config.listen.mysql_tls.iter();
    for (address, admission) in plain.chain(with_tls.map(|address| (address, Admission::Secure))) {
        listeners.extend(Listener::bind(address, admission)?);
    }
    Ok(listeners)
}

fn server_targets(
    config: &Config,
    outgoing: &watch::Receiver<Arc<Outgoing>>,
) -> impl Iterator<Item = backend::Target> {
    (0_u16..)
        .zip(&config.cluster.servers)
        .map(|(id, server)| backend::Target {
            id: ServerId(id),
            name: server.name.as_str().into(),
            address: server.address.clone(),
            deadline: config.limits.login,
            accepted: Arc::default(),
            compression: compression(config, server),
            proxy_protocol: config.cluster.proxy_protocol_of(server),
            tls: Connector::new(config.tls.mode_towards(server), outgoing.clone()),
        })
}

fn compression(config: &Config, server: &ServerConfig) -> Option<Method> {
    match config.cluster.compression_of(server) {
        ServerCompression::Off => None,
        ServerCompression::Zlib => Some(Method::Zlib(config.compression.zlib_level)),
        ServerCompression::Zstd => Some(Method::Zstd(config.compression.zstd_level)),
    }
}

async fn forget_changed_proofs(
    mut directory: watch::Receiver<Arc<Directory>>,
    credentials: Arc<Credentials>,
) {
    while directory.changed().await.is_ok() {
        let current = Arc::clone(&directory.borrow_and_update());
        credentials.retain(&current);
    }
}

/// The clock of idle clients.
async fn count_idleness(registry: Arc<Registry>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        registry.tick();
    }
}

/// Tells the sessions that wait for a server when it is found dead.
async fn announce_deaths(mut topology: watch::Receiver<Arc<Topology>>, registry: Arc<Registry>) {
    let mut down: Vec<bool> = Vec::new();
    while topology.changed().await.is_ok() {
        let current = Arc::clone(&topology.borrow_and_update());
        down.resize(current.servers.len(), false);
        for (server, was_down) in current.servers.iter().zip(&mut down) {
            let is_down = matches!(server.health, crate::topology::Health::Down { .. });
            if is_down && !*was_down {
                registry.server_down(server.id);
            }
            *was_down = is_down;
        }
    }
}
