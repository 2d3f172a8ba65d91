//! What the control plane knows of the sessions, and how it speaks to them: the one hatch between the two.

use std::sync::Arc;

use dbproxy_proto::gtid::Position;
use tokio::{sync::watch, time::Instant};

use crate::{
    accounts::Scopes,
    control::Sessions,
    session::Registry,
    topology::{ServerId, Topology},
};

/// The sessions of one cluster.
pub(super) struct Hatch {
    pub(super) registry: Arc<Registry>,
    pub(super) scopes: Arc<Scopes>,
    pub(super) topology: watch::Receiver<Arc<Topology>>,
}

impl Sessions for Hatch {
    fn cut(&self, server: ServerId) {
        self.registry.server_down(server);
    }

    fn running(&self, server: ServerId) -> usize {
        self.registry.running_on(server)
    }

    fn attached(&self, server: ServerId) -> usize {
        self.registry.attached_to(server)
    }

    fn acknowledged(&self) -> Option<Position> {
        let flavor = self.topology.borrow().flavor();
        self.scopes.acknowledged(flavor)
    }
}

/// With each reign what was written before counts anew: some of it may be lost, and would be waited for in vain.
pub(super) async fn follow_reigns(
    mut topology: watch::Receiver<Arc<Topology>>,
    scopes: Arc<Scopes>,
) {
    let mut known = None;
    while topology.changed().await.is_ok() {
        let (reign, primary) = {
            let current = topology.borrow_and_update();
            (current.reign, current.primary)
        };
        let Some((before, who)) = known.replace((reign, primary)) else {
            continue;
        };
        if before.is_some() && reign != before && who != primary {
            scopes.began_anew(Instant::now());
        }
    }
}
