//! One server, as the failover knows it.

use std::sync::Arc;

use dbproxy_proto::gtid::Position;
use tokio::time::Instant;

use super::evidence::Evidence;
pub use crate::config::Promote;
use crate::config::{ServerAddress, ServerConfig};
use crate::topology::{Flavor, ServerFacts, ServerId, SourceFacts, ThreadState};

/// A server that is up for fewer seconds when it is seen first was started just now.
const JUST_STARTED: u64 = 300;

/// A server, what it said last, and what it was found to have had.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its place.
    pub id: ServerId,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: ServerAddress,
    /// Whether it may become the primary.
    pub promote: Promote,
    /// An operator has taken it out: it is neither asked nor changed, and does not count.
    pub maintenance: bool,
    /// How it answers.
    pub evidence: Evidence,
    /// What it said last, and when it was asked.
    pub seen: Option<(Arc<ServerFacts>, Instant)>,
    /// Everything that it was found to have received or executed. A server that shows less of it has lost something.
    pub remembered: Option<Position>,
    /// When its connection to the primary was last seen at work.
    pub connected_at: Option<Instant>,
    /// It was started anew since it was last seen to take writes.
    pub restarted: bool,
    /// Why it must not be made a replica: it has transactions that the primary does not have.
    pub diverged: Option<Arc<str>>,
}

impl Member {
    pub(super) fn new(id: ServerId, config: &ServerConfig) -> Self {
        Self {
            id,
            name: config.name.as_str().into(),
            address: config.address.clone(),
            promote: config.promote,
            maintenance: false,
            evidence: Evidence::default(),
            seen: None,
            remembered: None,
            connected_at: None,
            restarted: false,
            diverged: None,
        }
    }

    /// What it said last.
    pub fn facts(&self) -> Option<&ServerFacts> {
        self.seen.as_ref().map(|(facts, _)| &**facts)
    }

    /// Whether it answers, and counts.
    pub fn answers(&self) -> bool {
        !self.maintenance && self.evidence.answers()
    }

    /// Whether it answers, and said later than `other` what it has: what it lacks then, it does not have.
    pub(super) fn is_seen_after(&self, other: &Self) -> bool {
        let asked_at = |member: &Self| member.seen.as_ref().map(|(_, at)| *at);
        self.answers() && asked_at(self) >= asked_at(other)
    }

    /// Whether it takes writes, as last seen.
    pub fn is_writable(&self) -> bool {
        self.facts()
            .is_some_and(|facts| facts.write_block.is_none())
    }

    /// Its family.
    pub fn flavor(&self) -> Option<Flavor> {
        self.facts().map(|facts| facts.version.flavor)
    }

    /// Everything that it has received or executed, as it says itself now.
    pub fn has(&self) -> Option<Position> {
        self.facts().and_then(has)
    }

    /// Takes over what it says. `asked_at` is when it was asked.
    pub(super) fn saw(&mut self, facts: &Arc<ServerFacts>, asked_at: Instant) {
        if self
            .facts()
            .is_some_and(|known| known.identity() != facts.identity())
        {
            self.remembered = None;
            self.connected_at = None;
            self.diverged = None;
        }
        self.restarted = match (&facts.write_block, &self.seen) {
            (None, _) => false,
            (Some(_), Some((_, at))) => {
                // It has run for no longer than since it was seen.
                let since = asked_at.saturating_duration_since(*at).as_secs();
                self.restarted || facts.seconds_up <= since + 1
            }
            // Together with this program, it seems.
            (Some(_), None) => facts.seconds_up < JUST_STARTED,
        };
        if let Some(has) = has(facts) {
            let merged = self
                .remembered
                .as_mut()
                .is_some_and(|known| known.merge(&has).is_ok());
            if !merged {
                self.remembered = Some(has);
            }
        }
        self.seen = Some((Arc::clone(facts), asked_at));
    }

    /// Of what it was found to have, what it does not have any more.
    pub(super) fn lost(&self) -> Option<Position> {
        let (has, remembered) = (self.has()?, self.remembered.as_ref()?);
        (!has.covers(remembered)).then(|| remembered.since(&has))
    }

    /// The connection by which it replicates from `source`, running or not.
    pub fn connection_to(&self, source: &Self) -> Option<&SourceFacts> {
        let facts = self.facts()?;
        facts.sources.iter().find(|found| source.is_source(found))
    }

    /// Whether a replication connection leads here: by identity if it tells one, else by address.
    fn is_source(&self, source: &SourceFacts) -> bool {
        let known = self.facts();
        if let (Some(uuid), Some(facts)) = (&source.uuid, known) {
            return facts.uuid.as_ref() == Some(uuid);
        }
        if let (Some(number), Some(facts)) = (source.server_id, known) {
            return facts.server_id == number;
        }
        self.is_at(source)
    }

    /// Whether it listens where a replication connection leads to.
    pub(super) fn is_at(&self, source: &SourceFacts) -> bool {
        matches!(&self.address, ServerAddress::Tcp { host, port }
            if host.eq_ignore_ascii_case(&source.host) && *port == source.port)
    }

    /// Whether it replicates from `source` with both threads at work.
    pub fn follows(&self, source: &Self) -> bool {
        self.connection_to(source).is_some_and(|connection| {
            connection.receiver == ThreadState::Running
                && connection.applier == ThreadState::Running
        })
    }
}

/// Everything that a server has received or executed.
fn has(facts: &ServerFacts) -> Option<Position> {
    let mut all = facts.replicated.as_deref()?.clone();
    let received = facts
        .sources
        .iter()
        .filter_map(|source| source.received.as_deref());
    for position in facts.executed.as_deref().into_iter().chain(received) {
        all.merge(position).ok()?;
    }
    Some(all)
}
