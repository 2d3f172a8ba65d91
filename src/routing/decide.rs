//! The decision.

use super::{Reason, pin::PinReason};
use crate::{
    sql::{Facts, Hint, StatementClass},
    topology::{Server, ServerId, Topology},
};

/// Where a statement goes, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where.
    pub target: Target,
    /// Why.
    pub reason: Reason,
}

/// Where a statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The primary.
    Primary,
    /// This replica.
    Replica(ServerId),
    /// The connection that the session holds or used last.
    Kept,
}

/// What the decision needs to know of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionView {
    /// The server's status flag.
    pub in_transaction: bool,
    /// The session is tied to its connection.
    pub pinned: Option<PinReason>,
    /// The server's status flag.
    pub autocommit: bool,
    /// All reads go to the primary.
    pub strong: bool,
    /// The server of the statement before, if its connection is still as that statement left it.
    pub previous: Option<ServerId>,
}

/// Decides where a statement goes. `fresh` says whether a replica has what this session must see.
pub fn decide(
    class: &StatementClass,
    session: &SessionView,
    topology: &Topology,
    fresh: impl Fn(&Server) -> bool,
    choose: impl FnOnce(&[&Server]) -> usize,
) -> Route {
    let primary = |reason| Route { target: Target::Primary, reason };
    if session.in_transaction {
        return Route { target: Target::Kept, reason: Reason::InTransaction };
    }
    if let Some(pin) = session.pinned {
        return Route { target: Target::Kept, reason: Reason::Pinned(pin) };
    }
    if class.facts.contains(Facts::PREVIOUS_STATEMENT) && session.previous.is_some() {
        return Route { target: Target::Kept, reason: Reason::PreviousStatement };
    }
    if !class.is_replica_read() {
        return primary(Reason::Statement(class.cause));
    }
    if !session.autocommit {
        return primary(Reason::AutocommitOff);
    }
    if class.hint == Hint::Primary {
        return primary(Reason::HintPrimary);
    }
    if session.strong {
        return primary(Reason::StrongConsistency);
    }
    let readable: Vec<&Server> = topology.readable_replicas().collect();
    if readable.is_empty() {
        return primary(Reason::NoReplica);
    }
    let fresh: Vec<&Server> = readable.into_iter().filter(|server| fresh(server)).collect();
    match fresh.get(if fresh.len() > 1 { choose(&fresh) } else { 0 }) {
        Some(server) => Route { target: Target::Replica(server.id), reason: Reason::FreshReplica },
        None => primary(Reason::NoFreshReplica),
    }
}
