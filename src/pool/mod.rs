//! Idle and active server connections: checkout, limits, fair waiting.
//!
//! Idle connections lie in a [`Bucket`] per server, account and wire profile
//! (and address of clients, where the server is told of it), in one shard per
//! worker, so that the usual checkout and return touch nothing that another
//! core uses. The limit per server is a hard cap over all buckets and workers;
//! who finds it reached waits in line.

mod bucket;
mod gate;
mod line;
mod server;

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use dashmap::DashMap;
use dbproxy_proto::capability::Capabilities;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use bucket::Upkeep;
pub use bucket::{Bucket, PooledConn};
pub use line::Claim;
use server::ServerPool;

use crate::{
    accounts::AccountKey,
    backend::{BackendConn, Login, Target},
    config::{Limits, ProxyProtocol},
    error::{Error, ErrorKind},
    topology::ServerId,
};

/// All pools of the proxy.
#[derive(Debug)]
pub struct Pool {
    servers: Vec<Arc<ServerPool>>,
    buckets: DashMap<Key, Arc<Bucket>>,
    workers: usize,
    upkeep: Upkeep,
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
    /// Where the client is, on servers that are told: they choose the account by it.
    pub client: Option<IpAddr>,
}

impl Key {
    /// What `login` needs of connections to `server`, which have to have these capabilities.
    pub fn new(server: ServerId, login: &Login, profile: Capabilities) -> Self {
        Self {
            server,
            account: login.account.clone(),
            profile,
            client: login.client,
        }
    }
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
            upkeep: Upkeep::new(limits),
            trials: Semaphore::new(TRIALS),
        }
    }

    /// The bucket for `key`. Worth keeping as long as a session lives.
    ///
    /// None if there is no such server.
    pub fn bucket(&self, mut key: Key) -> Option<Arc<Bucket>> {
        let server = self.servers.get(key.server.index())?;
        if server.target.proxy_protocol == ProxyProtocol::Off {
            // To this server all clients are one.
            key.client = None;
        }
        if let Some(bucket) = self.buckets.get(&key) {
            return Some(Arc::clone(&bucket));
        }
        let bucket = self.buckets.entry(key.clone()).or_insert_with(|| {
            let bucket = Arc::new(Bucket::new(
                key,
                Arc::clone(server),
                self.workers,
                self.upkeep,
            ));
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

    /// Finds out whether a server lets somebody in, and as which account; `None` if its expired password keeps it from
    /// telling.
    ///
    /// Beyond the cap, but only a few at a time: it is done for clients that have proven nothing yet.
    pub async fn try_login(
        &self,
        server: ServerId,
        login: &Login,
    ) -> Result<Option<AccountKey>, Error> {
        let _turn = self.trials.acquire().await;
        let Some(target) = self.target(server) else {
            return Err(Error::server(ErrorKind::Closed));
        };
        let conn = BackendConn::connect(&target, login, Capabilities::empty())
            .await
            .map_err(|failure| failure.error)?;
        let whose = timeout(target.deadline, conn.whose()).await;
        whose.unwrap_or_else(|_| {
            let what = format!("asking server {} for the account", target.name);
            Err(Error::server(ErrorKind::Timeout(what)))
        })
    }

    /// Closes a worker's connections that were idle for too long, are too old or that their server has closed, opens those
    /// that are to be kept ready, and forgets the buckets of which nothing is left: there may be one for each address of a
    /// client.
    pub fn sweep(&self, worker: WorkerId, now: Instant) {
        let buckets: Vec<_> = self
            .buckets
            .iter()
            .map(|entry| Arc::clone(&entry))
            .collect();
        for bucket in buckets {
            bucket.refill(worker, now);
            bucket.sweep(worker, now);
            if bucket.is_empty() {
                let key = bucket.key().clone();
                drop(bucket);
                // With nobody else to put something into it.
                let is_left = |_: &Key, bucket: &Arc<Bucket>| {
                    Arc::strong_count(bucket) == 1 && bucket.is_empty()
                };
                self.buckets.remove_if(&key, is_left);
            }
        }
        for server in &self.servers {
            // Of a pause that is over nobody else tells those who wait.
            server.advance();
        }
    }

    /// A server was found dead: of the next one at its address nothing is known.
    pub fn went_down(&self, server: ServerId) {
        if let Some(server) = self.servers.get(server.index()) {
            server.went_down();
        }
    }

    /// A server that was found dead answers again.
    pub fn came_back(&self, server: ServerId) {
        if let Some(server) = self.servers.get(server.index()) {
            server.came_back();
        }
    }

    /// After this time the server closes an idle connection: none is lent that comes near it.
    pub fn set_wait_timeout(&self, server: ServerId, timeout: Duration) {
        if let Some(server) = self.servers.get(server.index()) {
            server.set_wait_timeout(timeout);
        }
    }

    /// The server's ids of the connections to it that nobody uses.
    pub fn idle_threads(&self, server: ServerId) -> HashSet<u32> {
        let buckets = self.buckets.iter();
        let there = buckets.filter(|entry| entry.key().server == server);
        there.flat_map(|bucket| bucket.idle_threads()).collect()
    }

    /// How many connections to a server are open or being opened.
    pub fn open(&self, server: ServerId) -> usize {
        self.servers
            .get(server.index())
            .map_or(0, |server| server.open())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::{
        config::{ServerAddress, ServerMode, ServerTls},
        net::tls::{self, Connector},
    };

    /// One pool of a server that is told where clients are, and one of a server that is not.
    fn pool() -> Pool {
        let outgoing = tls::for_servers(&ServerTls::default()).unwrap().current;
        let target = |(id, proxy_protocol)| Target {
            id: ServerId(id),
            name: "db".into(),
            address: ServerAddress::Unix("/nowhere".into()),
            deadline: Duration::ZERO,
            accepted: Arc::default(),
            compression: None,
            proxy_protocol,
            tls: Connector::new(ServerMode::Disabled, outgoing.clone()),
        };
        let targets = (0..).zip([ProxyProtocol::On, ProxyProtocol::Off]);
        Pool::new(targets.map(target), 2, &Limits::default())
    }

    fn bucket(pool: &Pool, server: u16, client: [u8; 4]) -> Arc<Bucket> {
        let key = Key {
            server: ServerId(server),
            account: AccountKey {
                user: "app".into(),
                host: "%".into(),
            },
            profile: Capabilities::empty(),
            client: Some(client.into()),
        };
        pool.bucket(key).unwrap()
    }

    #[test]
    fn only_servers_that_are_told_tell_clients_apart() {
        let pool = pool();
        let same = |server, other| {
            let one = bucket(&pool, server, [192, 0, 2, 1]);
            Arc::ptr_eq(&one, &bucket(&pool, server, other))
        };
        assert!(same(0, [192, 0, 2, 1]) && !same(0, [192, 0, 2, 2]));
        assert!(same(1, [192, 0, 2, 1]) && same(1, [192, 0, 2, 2]));
    }

    #[tokio::test]
    async fn buckets_of_clients_that_left_are_forgotten() {
        let pool = pool();
        let stays = bucket(&pool, 0, [192, 0, 2, 1]);
        for round in 0..100 {
            for client in 0..100 {
                bucket(&pool, 0, [10, 0, round, client]);
            }
            pool.sweep(WorkerId(0), Instant::now());
            assert_eq!(pool.buckets.len(), 1);
        }
        assert!(pool.servers[0].adopted() <= 512);
        assert!(Arc::ptr_eq(&stays, &bucket(&pool, 0, [192, 0, 2, 1])));
        drop(stays);
        pool.sweep(WorkerId(1), Instant::now());
        assert!(pool.buckets.is_empty());
    }
}
