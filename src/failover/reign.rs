//! Whose turn it is to be the primary, by what the servers themselves have put down.

use std::sync::Arc;

use super::member::Member;
use crate::topology::{EpochRow, ServerId};

/// A primary and the number of its reign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reign {
    /// Grows with each change.
    pub epoch: u64,
    /// The primary.
    pub primary: ServerId,
    /// Who that is, whatever answers at its address.
    pub identity: Arc<str>,
}

/// What the rows and ballots of all servers say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody ever counted.
    New,
    /// There is a primary, and no plan began since.
    Settled(Reign),
    /// A plan began and did not come to its row.
    Interrupted(Reign),
    /// The row names a server that is not configured.
    Foreign(EpochRow),
}

/// Reads what the servers have put down, as they were seen last.
pub(super) fn standing(members: &[Member]) -> Standing {
    let facts = || {
        members
            .iter()
            .filter_map(|member| Some((member, member.facts()?)))
    };
    let rows = facts().filter_map(|(_, facts)| facts.epoch.as_ref());
    let Some(row) = rows.max_by_key(|row| row.epoch) else {
        return Standing::New;
    };
    let named = facts().find(|(_, facts)| facts.identity() == row.primary);
    let named = named.map(|(member, _)| member);
    let Some(member) = named.or_else(|| by_replicas(members, &row.primary)) else {
        return Standing::Foreign(row.clone());
    };
    let reign = Reign {
        epoch: row.epoch,
        primary: member.id,
        identity: Arc::clone(&row.primary),
    };
    match highest(members) > row.epoch {
        true => Standing::Interrupted(reign),
        false => Standing::Settled(reign),
    }
}

/// A server that was not seen yet, and of which a replica knows who it is.
fn by_replicas<'a>(members: &'a [Member], identity: &str) -> Option<&'a Member> {
    let sources = members
        .iter()
        .filter_map(Member::facts)
        .flat_map(|facts| &facts.sources);
    let mut named = sources.filter(|source| match &source.uuid {
        Some(uuid) => **uuid == *identity,
        None => source
            .server_id
            .is_some_and(|id| id.to_string() == identity),
    });
    named.find_map(|source| {
        let mut unseen = members.iter().filter(|member| member.facts().is_none());
        unseen.find(|member| member.is_at(source))
    })
}

/// The highest number that any server has put down.
pub(super) fn highest(members: &[Member]) -> u64 {
    let facts = members.iter().filter_map(Member::facts);
    let numbers = facts.map(|facts| {
        let row = facts.epoch.as_ref().map_or(0, |row| row.epoch);
        row.max(facts.ballot)
    });
    numbers.max().unwrap_or_default()
}
