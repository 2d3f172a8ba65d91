//! Composition root: the one place that knows everyone.

mod accept;
mod cluster;
mod console;
mod failover;
mod firewall;
pub(crate) mod observe;
mod reload;
mod worker;

use std::{future::Future, io, pin::pin, sync::Arc};

use tokio::{
    select,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, info, warn};

use crate::{
    config::{ClientMode, Config},
    error::Error,
    net::{
        Listener,
        tls::{self, Admission},
    },
    pool::WorkerId,
    session::{AnswerCache, Policy, Registry, ServerKey, TICK},
    shutdown::Shutdown,
};
use cluster::{Cluster, Common};
use observe::Observing;
use worker::Worker;

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
    let door = console::open(&config)?;
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
    let keeper = firewall::Keeper::new(config.state_directory())?;
    control_plane.spawn(keeper.clone().keep());
    let answers = Arc::new(AnswerCache::new(config.limits.cache));
    answers.attend(&config.rules);
    let registry = Arc::new(Registry::default());
    control_plane.spawn(count_idleness(Arc::clone(&registry)));
    let common = Common {
        registry: Arc::clone(&registry),
        server_key,
        answers: Arc::clone(&answers),
        firewall: Arc::clone(&keeper.firewall),
        for_clients,
        for_servers: for_servers.current,
    };
    let (senders, policies): (Vec<_>, Vec<_>) = Policy::of_all(&config, &[])
        .into_iter()
        .map(|policy| watch::channel(Arc::new(policy)))
        .unzip();
    let clusters: Vec<_> = config
        .all_clusters()
        .zip(policies)
        .map(|(cluster, policy)| {
            Cluster::start(
                config.with_cluster(cluster),
                policy,
                &common,
                &mut control_plane,
            )
        })
        .collect();
    control_plane.spawn(reload::follow(config.clone(), news, senders, answers));
    let shutdown = Shutdown::new();
    let contexts = |worker: WorkerId| {
        let observer = observing
            .as_ref()
            .and_then(|observing| observing.observer(worker.0));
        let of_worker = clusters.iter();
        of_worker
            .map(|cluster| Arc::new(cluster.context(worker, &common, observer.clone())))
            .collect()
    };
    let workers: Vec<Worker> = (0..config.workers)
        .map(|number| Worker::start(contexts(WorkerId(number)), shutdown.drain()))
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

    if let Some(door) = door {
        accepting.spawn(door.serve(Arc::new(console::desk(&clusters))));
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

/// The clock of idle clients.
async fn count_idleness(registry: Arc<Registry>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        registry.tick();
    }
}
