//! Servers as they would be if all were well.

use std::time::Duration;

use clap::ValueEnum;
use tokio::time::Instant;

use crate::config::{ServerAddress, ServerConfig};
use crate::sql::Dialect;
use crate::topology::{
    Observation, ServerFacts, ServerId, SourceFacts, Topology, Tracker, Version, WriteBlock,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Flavor {
    #[value(name = "mariadb")]
    MariaDb,
    #[value(name = "mysql")]
    MySql,
}

impl Flavor {
    /// A version that is in use; it decides which executable comments are code.
    pub(super) fn version(self) -> Option<Version> {
        Version::parse(match self {
            Self::MariaDb => "10.11.0-MariaDB",
            Self::MySql => "8.4.0",
        })
    }

    pub(super) fn dialect(self) -> Dialect {
        let number = self.version().map_or(0, |version| version.number());
        Dialect::of(self == Self::MariaDb, number)
    }
}

/// The smallest cluster in which something can be decided.
pub(super) fn imagined() -> Vec<ServerConfig> {
    let server = |name: &str| {
        let host = name.to_owned();
        ServerConfig::new(name, ServerAddress::Tcp { host, port: 3306 })
    };
    vec![server("primary"), server("replica")]
}

/// These servers, all up and without lag, the first of them writable.
pub(super) fn sound(servers: &[ServerConfig], flavor: Flavor) -> Topology {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut tracker = Tracker::new(servers, second, second, now);
    let source = servers.first().map(|server| &server.address);
    for (id, version) in (0..).zip(servers.iter().map(|_| flavor.version())) {
        let Some(version) = version else {
            continue;
        };
        let facts = ServerFacts {
            write_block: (id > 0).then_some(WriteBlock::ReadOnly),
            sources: source
                .filter(|_| id > 0)
                .map(replication)
                .into_iter()
                .collect(),
            ..ServerFacts::sound(version, u32::from(id) + 1)
        };
        let server = ServerId(id);
        tracker.observe(Observation {
            server,
            asked_at: now,
            at: now,
            result: Ok(facts),
        });
    }
    tracker.snapshot()
}

fn replication(from: &ServerAddress) -> SourceFacts {
    let (host, port) = match from {
        ServerAddress::Tcp { host, port } => (host.as_str(), *port),
        ServerAddress::Unix(_) => ("localhost", 3306),
    };
    SourceFacts {
        server_id: Some(1),
        ..SourceFacts::running(host, port)
    }
}
