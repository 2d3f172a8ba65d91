//! Idle and active server connections: checkout, limits, fair waiting.
//!
//! Idle connections lie in a [`Bucket`] per server, account and wire profile,
//! in one shard per worker, so that the usual checkout and return touch
//! nothing that another core uses. The limit per server is a hard cap over all
//! buckets and workers; who finds it reached waits in line.

mod bucket;
mod server;

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use dbproxy_proto::capability::Capabilities;
use tokio::{sync::Semaphore, time::Instant};

pub use bucket::{Bucket, PooledConn};
use server::ServerPool;

use crate::{
    accounts::AccountKey,
    backend::{BackendConn, Login, Target},
    config::Limits,
    error::{Error, ErrorKind},
    topology::ServerId,
};

/// All pools of the proxy.
#[derive(Debug)]
pub struct Pool {
    servers: Vec<Arc<ServerPool>>,
    buckets: DashMap<Key, Arc<Bucket>>,
    workers: usize,
    idle: Duration,
    trials: Semaphore,
}

/// Logins tried at a time.
const TRIALS: usize = 4;

/// What makes two sessions unable to share connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The server.
    pub server: ServerId,
    /// The account, by its user and its host pattern: two of the same user name may have
    /// different passwords and rights.
    pub account: AccountKey,
    /// The capabilities that change what a statement means or how its answer's bytes look.
    pub profile: Capabilities,
}

/// The number of a worker, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(pub usize);

impl Pool {
    /// Pools for `targets`, one for each server in the order of their ids.
    pub fn new(targets: impl IntoIterator<Item = Target>, workers: usize, limits: &Limits) -> Self {
        let servers = targets
            .into_iter()
            .map(|target| Arc::new(ServerPool::new(target, limits)))
            .collect();
        Self {
            servers,
            buckets: DashMap::new(),
            workers,
            idle: limits.idle,
            trials: Semaphore::new(TRIALS),
        }
    }

    /// The bucket for `key`. Worth keeping as long as a session lives.
    ///
    /// None if there is no such server.
    pub fn bucket(&self, key: &Key) -> Option<Arc<Bucket>> {
        if let Some(bucket) = self.buckets.get(key) {
            return Some(Arc::clone(&bucket));
        }
        let server = self.servers.get(key.server.index())?;
        let bucket = self.buckets.entry(key.clone()).or_insert_with(|| {
            let bucket = Arc::new(Bucket::new(key.clone(), Arc::clone(server), self.workers));
            server.adopt(&bucket);
            bucket
        });
        Some(Arc::clone(&bucket))
    }

    /// Where a server's connections go.
    pub fn target(&self, server: ServerId) -> Option<Target> {
        self.servers
            .get(server.index())
            .map(|server| server.target.clone())
    }

    /// Finds out whether a server lets this account in.
    ///
    /// Beyond the cap, but only a few at a time: it is done for clients that have proven nothing yet.
    pub async fn try_login(&self, server: ServerId, login: &Login) -> Result<(), Error> {
        let _turn = self.trials.acquire().await;
        let Some(target) = self.target(server) else {
            return Err(Error::server(ErrorKind::Closed));
        };
        BackendConn::connect(&target, login, Capabilities::empty())
            .await
            .map(drop)
    }

    /// Closes a worker's connections that were idle for too long or that their server has closed.
    pub fn sweep(&self, worker: WorkerId, now: Instant) {
        let buckets: Vec<_> = self
            .buckets
            .iter()
            .map(|entry| Arc::clone(&entry))
            .collect();
        for bucket in buckets {
            bucket.sweep(worker, now, self.idle);
        }
    }

    /// After this time the server closes an idle connection: none is lent that comes near it.
    pub fn set_wait_timeout(&self, server: ServerId, timeout: Duration) {
        if let Some(server) = self.servers.get(server.index()) {
            server.set_wait_timeout(timeout);
        }
    }

    /// How many connections to a server are open or being opened.
    pub fn open(&self, server: ServerId) -> usize {
        self.servers
            .get(server.index())
            .map_or(0, |server| server.open())
    }
}
