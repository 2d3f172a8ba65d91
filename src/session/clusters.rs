//! Which cluster a session belongs to.

use std::sync::Arc;

use dbproxy_proto::capability::Capabilities;

use super::Context;
use crate::routing;

/// The cluster that serves the sessions of this user.
pub(super) fn choose<'a>(
    clusters: &'a [Arc<Context>],
    server_name: Option<&str>,
    user: &[u8],
    schema: Option<&[u8]>,
) -> Option<&'a Arc<Context>> {
    let serves = clusters.iter().map(|context| &context.serves);
    let (place, _) = routing::clusters::choose(serves, server_name, Some(user), schema);
    clusters.get(place)
}

/// The cluster that a client is greeted for, of which nothing is known yet: the first whose servers have been seen.
pub(super) fn greeter(clusters: &[Arc<Context>]) -> Option<&Arc<Context>> {
    let seen = |context: &&Arc<Context>| context.topology.borrow().greeting.is_some();
    clusters.iter().find(seen).or_else(|| clusters.first())
}

/// What the servers of all clusters understand: a client is told before it is known whose it is.
pub(super) fn extensions(clusters: &[Arc<Context>]) -> Capabilities {
    let extensions = clusters.iter().map(|context| {
        let topology = context.topology.borrow();
        let greeting = topology.greeting.as_ref();
        greeting.map_or_else(Capabilities::empty, |greeting| greeting.extensions)
    });
    extensions
        .reduce(|all, one| all & one)
        .unwrap_or_else(Capabilities::empty)
}
