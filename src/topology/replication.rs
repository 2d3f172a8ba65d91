//! Who replicates from whom, and how far behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::gtid::Position;
use tokio::time::Instant;

use super::filters::Filters;
use super::observation::{ServerFacts, SourceFacts, ThreadState};
use super::snapshot::{Lag, ServerId, Unreadable};
use super::tracker::Watched;
use crate::config::ServerAddress;

/// Steps that follow each other more closely are one.
const SPACING: Duration = Duration::from_millis(100);

/// So are those that lie together more closely than this part of their age: lag is known as exactly as that.
const PRECISION: u32 = 32;

/// The table that this dbproxy's own heartbeats are in.
const HEARTBEAT: (&str, &str) = ("dbproxy", "heartbeat");

/// What the primary executed lately, step by step.
///
/// Replicas tell their lag in seconds and by their own clock, and tell 0 when their connection is dead without their
/// knowing. Whether a replica has what the primary had at a known time is proof.
#[derive(Debug)]
pub(super) struct Progress {
    /// What the primary executed up to each time since the step before.
    steps: VecDeque<(Instant, Position)>,
    latest: Option<(Instant, Arc<Position>)>,
    spacing: Duration,
    kept: Duration,
    fresh: Duration,
}

impl Progress {
    /// `fresh`: how long a position of the primary counts as its present one.
    pub(super) fn new(max_lag: Duration, fresh: Duration) -> Self {
        Self {
            steps: VecDeque::new(),
            latest: None,
            spacing: SPACING.min(max_lag / PRECISION),
            kept: max_lag.saturating_mul(2),
            fresh,
        }
    }

    /// Adds the position that the primary was found at.
    pub(super) fn push(&mut self, at: Instant, position: &Arc<Position>) {
        if let Some((_, latest)) = &self.latest
            && latest != position
        {
            let step = position.since(latest);
            let recent = self
                .steps
                .back_mut()
                .filter(|(begun, _)| at.saturating_duration_since(*begun) < self.spacing);
            match recent {
                // The earlier time stays, so that lag is never underrated.
                Some((_, whole)) => merge(whole, &step),
                None => self.steps.push_back((at, step)),
            }
        }
        self.latest = Some((at, position.clone()));
        self.forget(at);
    }

    /// Makes one step of those that are too old for their difference to matter. None is dropped: a replica whose
    /// connection died unnoticed before a pause in the writes is still behind after it.
    fn forget(&mut self, now: Instant) {
        self.thin(now);
        let old = |step: Option<&(Instant, Position)>| {
            step.is_some_and(|(at, _)| now.saturating_duration_since(*at) > self.kept)
        };
        while old(self.steps.front()) && old(self.steps.get(1)) {
            let Some((_, oldest)) = self.steps.pop_front() else {
                return;
            };
            if let Some((_, next)) = self.steps.front_mut() {
                merge(next, &oldest);
            }
        }
    }

    /// Of steps that are put together the earlier time stays, so that lag is never underrated.
    fn thin(&mut self, now: Instant) {
        let mut index = 0;
        while let (Some((begun, _)), Some((next, _))) =
            (self.steps.get(index), self.steps.get(index + 1))
        {
            let between = next.saturating_duration_since(*begun);
            if between >= now.saturating_duration_since(*next) / PRECISION {
                index += 1;
            } else if let Some((_, later)) = self.steps.remove(index + 1)
                && let Some((_, whole)) = self.steps.get_mut(index)
            {
                merge(whole, &later);
            }
        }
    }

    /// Does a server that showed `position` at `at` have all that the primary had then?
    fn reached_by(&self, position: &Position, at: Instant) -> bool {
        self.latest.as_ref().is_some_and(|(seen, latest)| {
            at.saturating_duration_since(*seen) <= self.fresh && position.covers(latest)
        })
    }

    /// When the primary was last seen, if a server at `position` has all that it had then.
    fn reached_at(&self, position: &Position) -> Option<Instant> {
        let (seen, latest) = self.latest.as_ref()?;
        position.covers(latest).then_some(*seen)
    }

    /// When the primary was first found to have something that `position` lacks. What it had from the beginning does
    /// not count: a replica set up by hand may name old transactions differently.
    fn missing_since(&self, position: &Position) -> Option<Instant> {
        self.steps
            .iter()
            .find(|(_, step)| !position.covers(step))
            .map(|(at, _)| *at)
    }
}

fn merge(whole: &mut Position, step: &Position) {
    if whole.merge(step).is_err() {
        // Another family at the same address: what was before has no meaning any more.
        *whole = step.clone();
    }
}

/// How a replica is connected with the primary.
#[derive(Debug, Clone)]
pub(super) struct Path<'a> {
    /// The connection of the replica that leads to the primary.
    pub(super) source: &'a SourceFacts,
    /// The servers in between, the nearest to the replica first.
    pub(super) through: Vec<ServerId>,
}

/// What the state of a replica's replication says about reads from it.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) lag: Lag,
    pub(super) delay: Duration,
    pub(super) barred: Option<Unreadable>,
}

/// The replication connections of all servers.
#[derive(Clone, Copy)]
pub(super) struct Replication<'a> {
    /// The cluster's number.
    cluster: u8,
    servers: &'a [Watched],
    /// A heartbeat of the primary that is older than this is none.
    beats_for: Duration,
}

impl<'a> Replication<'a> {
    pub(super) fn new(cluster: u8, servers: &'a [Watched], beats_for: Duration) -> Self {
        Self {
            cluster,
            servers,
            beats_for,
        }
    }

    fn facts(&self, id: ServerId) -> Option<&'a ServerFacts> {
        self.servers.get(id.index())?.facts()
    }

    /// The way by which `replica` gets what `primary` writes, whether or not it runs; the shortest one.
    pub(super) fn path(&self, replica: ServerId, primary: ServerId) -> Option<Path<'a>> {
        let mut seen = vec![replica];
        let mut ways: VecDeque<Path<'a>> = self
            .sources(replica)
            .map(|source| Path {
                source,
                through: Vec::new(),
            })
            .collect();
        let mut heads: VecDeque<&'a SourceFacts> = ways.iter().map(|way| way.source).collect();
        while let (Some(way), Some(head)) = (ways.pop_front(), heads.pop_front()) {
            let Some(next) = self.resolve(head) else {
                continue;
            };
            if next == primary {
                return Some(way);
            }
            if seen.contains(&next) {
                continue;
            }
            seen.push(next);
            for source in self.sources(next) {
                let mut through = way.through.clone();
                through.push(next);
                ways.push_back(Path {
                    source: way.source,
                    through,
                });
                heads.push_back(source);
            }
        }
        None
    }

    fn sources(&self, id: ServerId) -> impl Iterator<Item = &'a SourceFacts> + use<'a> {
        self.facts(id).into_iter().flat_map(|facts| &facts.sources)
    }

    /// The configured server that a replication connection leads to.
    fn resolve(&self, source: &SourceFacts) -> Option<ServerId> {
        if let Some(uuid) = &source.uuid {
            let same = |facts: &ServerFacts| facts.uuid.as_ref() == Some(uuid);
            return match self.only(same) {
                Some(id) => Some(id),
                None => self.at_address(source, |watched| watched.facts().is_none()),
            };
        }
        if let Some(server_id) = source.server_id.filter(|id| *id != 0) {
            let same = |facts: &ServerFacts| facts.server_id == server_id;
            return match self.only(same) {
                Some(id) => Some(id),
                // Nobody, or several that an operator gave the same number.
                None => self.at_address(source, |watched| watched.facts().is_none_or(same)),
            };
        }
        self.at_address(source, |_| true)
    }

    fn only(&self, matches: impl Fn(&ServerFacts) -> bool) -> Option<ServerId> {
        let mut found = self
            .ids()
            .filter(|id| self.facts(*id).is_some_and(&matches));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    fn at_address(
        &self,
        source: &SourceFacts,
        matches: impl Fn(&Watched) -> bool,
    ) -> Option<ServerId> {
        self.ids().find(|id| {
            self.servers.get(id.index()).is_some_and(|watched| {
                let here = match &watched.config.address {
                    ServerAddress::Tcp { host, port } => {
                        host.eq_ignore_ascii_case(&source.host) && *port == source.port
                    }
                    ServerAddress::Unix(_) => false,
                };
                here && matches(watched)
            })
        })
    }

    fn ids(&self) -> impl Iterator<Item = ServerId> + use<> {
        ServerId::first_of(self.cluster, self.servers.len())
    }

    /// What `replica` is good for. `now` is the primary's time.
    pub(super) fn read(
        &self,
        replica: ServerId,
        primary: ServerId,
        progress: &Progress,
        now: Instant,
    ) -> Reading {
        let Some(path) = self.path(replica, primary) else {
            return Reading {
                lag: Lag::Unknown,
                delay: Duration::ZERO,
                barred: Some(Unreadable::OtherSource),
            };
        };
        let barred = |reason| {
            let lag = self.measured(replica, primary, progress);
            Reading {
                lag: lag.map_or(Lag::Unknown, Lag::Known),
                delay: path.source.delay,
                barred: Some(reason),
            }
        };
        if !path.through.iter().all(|id| self.passes_on(*id, primary)) {
            return barred(Unreadable::BrokenChain);
        }
        if path.source.applier != ThreadState::Running {
            return barred(Unreadable::ApplierStopped);
        }
        let lag = match path.source.receiver {
            ThreadState::Stopped => return barred(Unreadable::ReceiverStopped),
            ThreadState::Running => self.lag(replica, primary, &path, progress),
            ThreadState::Connecting => match self.beats(replica, primary) {
                Some(_) => self.measured(replica, primary, progress),
                None => self.lag_unconnected(replica, progress, now),
            },
        };
        Reading {
            lag: lag.map_or(Lag::Unknown, Lag::Known),
            delay: path.source.delay,
            barred: None,
        }
    }

    /// Lag of `replica` if its connection runs.
    pub(super) fn connected_lag(
        &self,
        replica: ServerId,
        primary: ServerId,
        progress: &Progress,
    ) -> Option<Duration> {
        let path = self.path(replica, primary)?;
        let runs = path.source.receiver == ThreadState::Running
            && path.source.applier == ThreadState::Running;
        runs.then(|| self.lag(replica, primary, &path, progress))
            .flatten()
    }

    /// Does a server in the middle of a chain hand on what it gets?
    fn passes_on(&self, id: ServerId, primary: ServerId) -> bool {
        self.servers
            .get(id.index())
            .is_some_and(|watched| watched.health.is_up())
            && self.path(id, primary).is_some_and(|path| {
                path.source.receiver == ThreadState::Running
                    && path.source.applier == ThreadState::Running
            })
    }

    /// Lag of a replica whose connection runs: as measured with heartbeats; else what the servers say, or what is proven if
    /// that is more.
    fn lag(
        &self,
        replica: ServerId,
        primary: ServerId,
        path: &Path<'_>,
        progress: &Progress,
    ) -> Option<Duration> {
        let measured = self.measured(replica, primary, progress);
        let (facts, asked_at) = self.seen(replica)?;
        let has_all = |position: &Arc<Position>| progress.reached_by(position, asked_at);
        if facts.replicated.as_ref().is_some_and(has_all) || self.beats(replica, primary).is_some()
        {
            return measured;
        }
        Some(self.told(path)?.max(measured.unwrap_or_default()))
    }

    /// What is known of a replica's lag without asking any server for its opinion: by this program's clock alone.
    fn measured(
        &self,
        replica: ServerId,
        primary: ServerId,
        progress: &Progress,
    ) -> Option<Duration> {
        let (facts, asked_at) = self.seen(replica)?;
        let position = facts.replicated.as_ref();
        if position.is_some_and(|position| progress.reached_by(position, asked_at)) {
            return Some(Duration::ZERO);
        }
        // A heartbeat may overtake other transactions where they are not committed in order; positions tell.
        let since = position.and_then(|position| progress.missing_since(position));
        let missing = since.map(|since| asked_at.saturating_duration_since(since));
        missing.max(self.beats(replica, primary))
    }

    /// By how much time a replica's newest heartbeat is behind the primary's own; `None` if the primary's does not beat.
    ///
    /// Since both are what the servers show, a primary that is only slow, or silent, makes nobody lag.
    fn beats(&self, replica: ServerId, primary: ServerId) -> Option<Duration> {
        let (facts, asked_at) = self.seen(replica)?;
        let (ahead, ahead_asked_at) = self.seen(primary)?;
        let newest = ahead.heartbeat?;
        let stale = self.beats_for;
        let is_alive = ahead_asked_at.saturating_duration_since(newest) <= stale
            && asked_at.saturating_duration_since(ahead_asked_at) <= stale;
        let (schema, table) = HEARTBEAT;
        let filters = self.filters(replica, primary);
        let arrives = filters.iter().all(|filters| filters.copy(schema, table));
        let behind = newest.saturating_duration_since(facts.heartbeat?);
        (is_alive && arrives).then_some(behind)
    }

    fn seen(&self, id: ServerId) -> Option<(&'a ServerFacts, Instant)> {
        let watched = self.servers.get(id.index())?;
        let (facts, asked_at) = watched.seen.as_ref()?;
        Some((facts, *asked_at))
    }

    /// What is left out on the way from `primary` to `replica`.
    pub(super) fn filters(&self, replica: ServerId, primary: ServerId) -> Vec<Arc<Filters>> {
        let mut filters = Vec::new();
        let mut note = |some: &Arc<Filters>| {
            if !some.is_empty() {
                filters.push(Arc::clone(some));
            }
        };
        if let Some(path) = self.path(replica, primary) {
            note(&path.source.filters);
            for between in &path.through {
                let on_the_way = self.path(*between, primary);
                on_the_way.iter().for_each(|way| note(&way.source.filters));
                self.facts(*between)
                    .iter()
                    .for_each(|facts| note(&facts.unlogged));
            }
            self.facts(primary)
                .iter()
                .for_each(|facts| note(&facts.unlogged));
        }
        filters
    }

    /// What the servers on the way say themselves.
    fn told(&self, path: &Path<'_>) -> Option<Duration> {
        path.through
            .iter()
            .try_fold(path.source.behind?, |sum, id| {
                let behind = self.sources(*id).filter_map(|source| source.behind).max()?;
                sum.checked_add(behind)
            })
    }

    /// Lag of a replica that lost its source: it ages from when it was last connected. Unless it has all that the
    /// primary was found to have since.
    fn lag_unconnected(
        &self,
        replica: ServerId,
        progress: &Progress,
        now: Instant,
    ) -> Option<Duration> {
        let watched = self.servers.get(replica.index())?;
        if let Some(position) = watched.facts().and_then(|facts| facts.replicated.as_ref())
            && let Some(at) = progress.reached_at(position)
        {
            return Some(now.saturating_duration_since(at));
        }
        let (at, lag) = watched.connected?;
        lag.checked_add(now.saturating_duration_since(at))
    }
}
