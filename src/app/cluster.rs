//! One cluster: what watches it, and what its sessions share.

use std::sync::{Arc, atomic::AtomicU64};

use dbproxy_proto::compress::Method;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
};

use crate::{
    accounts::{Credentials, Directory, Scopes},
    backend,
    config::{self, Config, Failover, ServerCompression, ServerConfig},
    control::{self, Orders, Steward},
    monitor,
    net::{
        Buffers,
        tls::{Acceptor, Connector, Incoming, Outgoing},
    },
    pool::{Pool, WorkerId},
    session::{
        AccountChanges, AnswerCache, CatchUp, Complaints, Context, Definitions, Firewall, Loads,
        Mirrored, Observer, Policy, Registry, Schemas, ServerKey,
    },
    sql::{Classifier, catalogue::Catalogue},
    topology::{Health, ServerId, Topology, WriteProbe},
};

use super::failover::{Hatch, follow_reigns};

/// Passwords that each worker has checked at a time.
const CHECKS: usize = 2;

/// Statements, by digest, whose tables each worker remembers.
const DIGESTS: usize = 2_000;

/// What the clusters share.
pub(super) struct Common {
    pub(super) registry: Arc<Registry>,
    pub(super) server_key: Arc<ServerKey>,
    pub(super) answers: Arc<AnswerCache>,
    pub(super) firewall: Arc<Firewall>,
    pub(super) for_clients: Option<watch::Receiver<Arc<Incoming>>>,
    pub(super) for_servers: watch::Receiver<Arc<Outgoing>>,
}

/// A cluster that is watched, and what its sessions share on all workers.
pub(super) struct Cluster {
    /// The configuration as if it had this cluster only.
    config: Config,
    pool: Arc<Pool>,
    topology: watch::Receiver<Arc<Topology>>,
    directory: watch::Receiver<Arc<Directory>>,
    account_changes: Arc<AccountChanges>,
    definitions: Arc<Definitions>,
    credentials: Arc<Credentials>,
    scopes: Arc<Scopes>,
    /// Where orders to change the primary go, if anybody takes them.
    orders: Option<Orders>,
    probes: Arc<[Arc<Notify>]>,
    policy: watch::Receiver<Arc<Policy>>,
}

impl Cluster {
    /// Begins to watch the cluster that `config` has as its own.
    pub(super) fn start(
        config: Config,
        policy: watch::Receiver<Arc<Policy>>,
        common: &Common,
        control_plane: &mut JoinSet<()>,
    ) -> Self {
        let (control, evidence, topology) = control::new(&config.cluster, config.monitor.interval);
        let targets = monitor::targets(&config);
        let probes: Arc<[_]> = targets.iter().map(|_| Arc::<Notify>::default()).collect();
        let scopes = Arc::new(Scopes::new());
        let writes = watch::Sender::new(WriteProbe::default());
        let (steward, orders) = match config.cluster.failover {
            Failover::Off => (None, None),
            Failover::Automatic | Failover::Manual => {
                let hatch = Hatch {
                    registry: Arc::clone(&common.registry),
                    scopes: Arc::clone(&scopes),
                    topology: topology.clone(),
                };
                let (steward, orders) = Steward::new(
                    &config.cluster,
                    targets.clone(),
                    Arc::new(hatch),
                    writes.subscribe(),
                    Arc::clone(&probes),
                    config.state_directory(),
                );
                (Some(steward), Some(orders))
            }
        };
        let control = match steward {
            Some(steward) => control.with_steward(steward),
            None => control,
        };
        control_plane.spawn(control.run());
        control_plane.spawn(follow_reigns(topology.clone(), Arc::clone(&scopes)));
        for (target, nudge) in targets.iter().zip(&*probes) {
            let watched = monitor::watch(target.clone(), evidence.clone(), Arc::clone(nudge));
            control_plane.spawn(watched);
        }
        drop(evidence);
        let beats = monitor::heartbeat::beat(targets.clone(), topology.clone(), writes);
        control_plane.spawn(beats);
        let (directory_sender, directory) =
            watch::channel(Arc::new(Directory::unloaded(&config.users)));
        let nudge = Arc::new(Notify::new());
        control_plane.spawn(monitor::accounts::watch(
            targets.clone(),
            config.users.clone(),
            topology.clone(),
            directory_sender,
            Arc::clone(&nudge),
        ));
        let (catalogue_sender, catalogue) = watch::channel(Arc::new(Catalogue::unread()));
        let definitions = Arc::new(Definitions::new(catalogue, Arc::default()));
        control_plane.spawn(monitor::catalogue::watch(
            targets,
            config.cluster.max_lag,
            topology.clone(),
            catalogue_sender,
            definitions.nudged(),
        ));
        let credentials = Arc::new(Credentials::new());
        control_plane.spawn(forget_changed_proofs(
            directory.clone(),
            Arc::clone(&credentials),
        ));
        let pool = Arc::new(Pool::new(
            server_targets(&config, &common.for_servers),
            config.workers,
            &config.limits,
        ));
        control_plane.spawn(announce_health(
            topology.clone(),
            Arc::clone(&common.registry),
            Arc::clone(&pool),
        ));
        Self {
            config,
            pool,
            topology,
            directory,
            account_changes: Arc::new(AccountChanges::new(nudge)),
            definitions,
            credentials,
            scopes,
            orders,
            probes,
            policy,
        }
    }

    /// The cluster, and where orders to change its primary go.
    pub(super) fn orders(&self) -> (config::Cluster, Option<Orders>) {
        (self.config.cluster.clone(), self.orders.clone())
    }

    /// What a worker's sessions of this cluster share.
    pub(super) fn context(
        &self,
        worker: WorkerId,
        common: &Common,
        observer: Option<Arc<Observer>>,
    ) -> Context {
        let config = &self.config;
        Context {
            worker,
            cluster: config.cluster.number,
            name: config.cluster.name.as_str().into(),
            serves: config.cluster.serves.clone(),
            buffers: Buffers::default(),
            pool: Arc::clone(&self.pool),
            topology: self.topology.clone(),
            directory: self.directory.clone(),
            account_changes: Arc::clone(&self.account_changes),
            definitions: Arc::clone(&self.definitions),
            complaints: Complaints::default(),
            credentials: Arc::clone(&self.credentials),
            scopes: Arc::clone(&self.scopes),
            schemas: Schemas::default(),
            registry: Arc::clone(&common.registry),
            server_key: Arc::clone(&common.server_key),
            checks: Arc::new(Semaphore::new(CHECKS)),
            tls: common.for_clients.clone().map(Acceptor::new),
            limits: config.limits.clone(),
            compression: config.compression,
            balancers: config.listen.proxy_protocol.clone(),
            policy: self.policy.clone(),
            answers: Arc::clone(&common.answers),
            firewall: Arc::clone(&common.firewall),
            classifier: Classifier::new(DIGESTS),
            loads: Loads::new(config.cluster.servers.len()),
            probes: Arc::clone(&self.probes),
            catch_up: CatchUp::new(config.cluster.servers.len()),
            turn: AtomicU64::new(0),
            mirrored: Mirrored::default(),
            observer,
        }
    }
}

fn server_targets(
    config: &Config,
    outgoing: &watch::Receiver<Arc<Outgoing>>,
) -> impl Iterator<Item = backend::Target> {
    (0_u8..=u8::MAX)
        .zip(&config.cluster.servers)
        .map(|(place, server)| backend::Target {
            id: ServerId::new(config.cluster.number, place),
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

/// Tells the sessions that wait for a server when it is found dead, and the pool when it is found dead or back.
async fn announce_health(
    mut topology: watch::Receiver<Arc<Topology>>,
    registry: Arc<Registry>,
    pool: Arc<Pool>,
) {
    let mut down: Vec<bool> = Vec::new();
    while topology.changed().await.is_ok() {
        let current = Arc::clone(&topology.borrow_and_update());
        down.resize(current.servers.len(), false);
        for (server, was_down) in current.servers.iter().zip(&mut down) {
            let is_down = matches!(server.health, Health::Down { .. });
            match (*was_down, is_down) {
                (false, true) => {
                    pool.went_down(server.id);
                    registry.server_down(server.id);
                }
                (true, false) => pool.came_back(server.id),
                _ => {}
            }
            *was_down = is_down;
        }
    }
}
