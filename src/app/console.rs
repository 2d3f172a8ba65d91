//! The operator's console, as far as it is wanted.

use tracing::info;

use crate::{
    admin::{Desk, Door},
    config::{Config, Failover},
    error::Error,
};

use super::cluster::Cluster;

/// Opens the console.
///
/// Errors: what keeps it shut. Where nobody can order anything that is only a warning.
pub(super) fn open(config: &Config) -> Result<Option<Door>, Error> {
    let mut clusters = config.all_clusters();
    let is_needed = clusters.any(|cluster| cluster.failover != Failover::Off);
    match Door::open(config.state_directory()) {
        Ok(door) => Ok(Some(door)),
        Err(error) if is_needed => Err(error),
        Err(error) => {
            info!(%error, "nobody can give orders");
            Ok(None)
        }
    }
}

/// Who takes orders for these clusters.
pub(super) fn desk(clusters: &[Cluster]) -> Desk {
    Desk::new(clusters.iter().map(Cluster::orders))
}
