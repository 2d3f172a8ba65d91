//! The pure fold from observations to the picture: who is the primary, who is well, who may serve reads.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::capability::Capabilities;
use tokio::time::Instant;

use super::filters::Filters;
use super::observation::{Defaults, Observation, ProbeError, ServerFacts, WriteBlock};
use super::replication::{Progress, Reading, Replication};
use super::snapshot::{
    Decree, Gate, Greeting, Health, Lag, Role, Server, ServerId, Topology, Unreadable,
};
use crate::config::ServerConfig;

/// Probes in a row without an answer that make a server down. One is a lost packet, not a death.
const SILENT_PROBES: u32 = 3;

/// Intervals without facts after which a server gets no more reads, and the least time for that: a probe that is
/// answered slowly is not yet a lost server.
const STALE_INTERVALS: u32 = 4;
const STALE_AT_LEAST: Duration = Duration::from_secs(1);

/// What an observation, or the passing of time, changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Did the epoch grow?
    pub epoch: bool,
    /// What to tell an operator.
    pub events: Vec<Event>,
}

/// A change that an operator wants to read of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Another server has the primary's role now.
    Primary {
        /// Its predecessor.
        from: Option<Arc<str>>,
        /// The new one; `None` if there is none any more.
        to: Option<Arc<str>>,
        /// Why.
        why: Arc<str>,
    },
    /// A server's role changed, other than to or from primary.
    Role {
        /// The server.
        server: Arc<str>,
        /// What it was.
        from: Role,
        /// What it is.
        to: Role,
        /// Why.
        why: Arc<str>,
    },
    /// A server answers (again).
    Up {
        /// The server.
        server: Arc<str>,
    },
    /// A server does not answer any more.
    Down {
        /// The server.
        server: Arc<str>,
        /// What the last probe got.
        error: Arc<str>,
    },
    /// The primary takes writes (again), or does not any more.
    Writes {
        /// The primary.
        server: Arc<str>,
        /// Does it take them?
        taken: bool,
    },
    /// A replica gets reads (again), or does not any more.
    Reads {
        /// The replica.
        server: Arc<str>,
        /// Why not.
        barred: Option<Unreadable>,
    },
    /// Sessions may write to the primary, or may not any more.
    Gate {
        /// Which of these.
        gate: Gate,
    },
    /// Something else answers at a server's address now.
    Replaced {
        /// The server.
        server: Arc<str>,
    },
}

/// All that is remembered of one server.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) config: ServerConfig,
    pub(super) name: Arc<str>,
    pub(super) health: Health,
    /// The last facts, and when they were asked for.
    pub(super) seen: Option<(Arc<ServerFacts>, Instant)>,
    /// Was the last probe answered with facts?
    current: bool,
    /// Has there been any result?
    probed: bool,
    silent: u32,
    silent_since: Option<Instant>,
    error: Option<ProbeError>,
    /// Somebody opened it for writes while it ran; a restart with its configuration's defaults is no such decision.
    opened: bool,
    /// The primary that it replicates from, or last replicated from.
    followed: Option<ServerId>,
    /// Lag when its receiver was last connected, and when that was.
    pub(super) connected: Option<(Instant, Duration)>,
}

impl Watched {
    fn new(config: &ServerConfig) -> Self {
        Self {
            config: config.clone(),
            name: config.name.as_str().into(),
            health: Health::Unknown,
            seen: None,
            current: false,
            probed: false,
            silent: 0,
            silent_since: None,
            error: None,
            opened: false,
            followed: None,
            connected: None,
        }
    }

    pub(super) fn facts(&self) -> Option<&ServerFacts> {
        self.seen.as_ref().map(|(facts, _)| &**facts)
    }

    fn writable(&self) -> bool {
        self.facts()
            .is_some_and(|facts| facts.write_block.is_none())
    }

    fn identity(&self) -> Option<Arc<str>> {
        self.facts().map(ServerFacts::identity)
    }

    /// The one place where health changes.
    fn failed(&mut self, error: ProbeError, asked_at: Instant) {
        self.current = false;
        match &error {
            ProbeError::Refused
            | ProbeError::Timeout
            | ProbeError::Unresponsive
            | ProbeError::Closed => {
                let since = *self.silent_since.get_or_insert(asked_at);
                self.silent = self.silent.saturating_add(1);
                if error == ProbeError::Refused || self.silent >= SILENT_PROBES {
                    let error = error.to_string().into();
                    self.health = Health::Down { since, error };
                }
            }
            // An answer, if not the wanted one, is a sign of life.
            ProbeError::TooManyConnections | ProbeError::AccessDenied(_) | ProbeError::Tls(_) => {
                self.silent = 0;
                self.silent_since = None;
                self.health = Health::Up;
            }
            ProbeError::Other(_) => {}
        }
        self.error = Some(error);
    }

    fn answered(&mut self, facts: ServerFacts, asked_at: Instant) {
        let was_blocked = self.facts().map(|facts| facts.write_block.is_some());
        let restarted = matches!(self.health, Health::Down { .. });
        self.opened =
            facts.write_block.is_none() && !restarted && (self.opened || was_blocked == Some(true));
        self.current = true;
        self.silent = 0;
        self.silent_since = None;
        self.error = None;
        self.health = Health::Up;
        self.seen = Some((Arc::new(facts), asked_at));
    }
}

/// What entitles a server to take over, the best reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// There was no primary before.
    First,
    /// It was opened for writes while it ran.
    Opened,
    /// It and the old primary replicate from each other.
    Peer,
    /// It followed the old primary until somebody ended that.
    Detached,
    /// An operator closed the living primary, and this one does not follow it.
    Only,
}

/// Folds observations into the topology. Reads no clock: time comes with the observations and [`Tracker::tick`].
#[derive(Debug)]
pub struct Tracker {
    /// The number of the cluster.
    cluster: u8,
    servers: Vec<Watched>,
    stale_after: Duration,
    max_lag: Duration,
    primary: Option<ServerId>,
    /// Who the primary is, if that is not found out here.
    decree: Option<Decree>,
    /// Why the primary was chosen.
    chosen: Arc<str>,
    progress: Progress,
    picture: Topology,
}

impl Tracker {
    /// Knows the configured servers, and nothing of them yet. `interval` is the time between two probes of a server.
    pub fn new(
        servers: &[ServerConfig],
        interval: Duration,
        max_lag: Duration,
        now: Instant,
    ) -> Self {
        Self::of_cluster(0, servers, interval, max_lag, now)
    }

    /// The same for the cluster of this number.
    pub fn of_cluster(
        cluster: u8,
        servers: &[ServerConfig],
        interval: Duration,
        max_lag: Duration,
        now: Instant,
    ) -> Self {
        let stale_after = interval.saturating_mul(STALE_INTERVALS).max(STALE_AT_LEAST);
        let mut tracker = Self {
            cluster,
            servers: servers.iter().map(Watched::new).collect(),
            stale_after,
            max_lag,
            primary: None,
            decree: None,
            chosen: "".into(),
            progress: Progress::new(max_lag, stale_after),
            picture: Topology {
                epoch: 0,
                at: now,
                servers: Vec::new(),
                primary: None,
                reign: None,
                gate: Gate::Open,
                greeting: None,
                max_lag,
            },
        };
        tracker.picture = tracker.paint(now);
        tracker
    }

    /// Folds one observation in. An observation of a server that is not configured changes nothing.
    pub fn observe(&mut self, observation: Observation) -> Changed {
        let Observation {
            server,
            asked_at,
            at,
            result,
        } = observation;
        let Some(watched) = self.servers.get_mut(server.index()) else {
            return Changed::default();
        };
        let mut replaced = None;
        watched.probed = true;
        match result {
            Ok(facts) => {
                if watched
                    .identity()
                    .is_some_and(|known| known != facts.identity())
                {
                    replaced = Some(Event::Replaced {
                        server: watched.name.clone(),
                    });
                    watched.seen = None;
                    watched.opened = false;
                    watched.followed = None;
                    watched.connected = None;
                }
                watched.answered(facts, asked_at);
            }
            Err(error) => watched.failed(error, asked_at),
        }
        if replaced.is_some() && self.primary == Some(server) && self.decree.is_none() {
            // Whatever answers there now never was the primary.
            self.primary = None;
        }
        self.elect();
        self.note_progress(server);
        let mut changed = self.publish(at);
        changed.events.splice(0..0, replaced);
        changed
    }

    /// From now on it is not found out here who the primary is.
    pub fn decree(&mut self, decree: Decree, now: Instant) -> Changed {
        self.decree = Some(decree);
        self.elect();
        self.publish(now)
    }

    /// Lets time pass: old facts become stale.
    pub fn tick(&mut self, now: Instant) -> Changed {
        self.publish(now)
    }

    /// The present picture.
    pub fn snapshot(&self) -> Topology {
        self.picture.clone()
    }

    fn publish(&mut self, now: Instant) -> Changed {
        let mut next = self.paint(now);
        for (before, after) in self.picture.servers.iter().zip(&mut next.servers) {
            after.readable_since = match after.readable(next.max_lag) {
                Ok(()) => before.readable_since.or(Some(now)),
                Err(_) => None,
            };
            after.incarnation = before
                .incarnation
                .wrapping_add(u32::from(went_back(before, after)));
        }
        let (epoch, events) = differences(&self.picture, &next, &self.chosen);
        next.epoch = self.picture.epoch + u64::from(epoch);
        self.picture = next;
        Changed { epoch, events }
    }

    fn watched(&self, id: ServerId) -> Option<&Watched> {
        self.servers
            .get(id.index())
            .filter(|_| id.cluster() == usize::from(self.cluster))
    }

    fn replication(&self) -> Replication<'_> {
        Replication::new(self.cluster, &self.servers, self.stale_after)
    }

    fn ids(&self) -> impl Iterator<Item = ServerId> + use<> {
        ServerId::first_of(self.cluster, self.servers.len())
    }

    // --- who is the primary

    fn elect(&mut self) {
        if let Some(decree) = self.decree {
            if self.primary != Some(decree.primary) {
                self.chosen = format!("reign {}", decree.epoch).into();
                self.take_over(decree.primary);
            }
            return;
        }
        let (old, reason) = match self.primary.and_then(|id| Some((id, self.watched(id)?))) {
            Some((id, watched)) => match &watched.health {
                Health::Down { error, .. } => {
                    (Some(id), format!("{} is down ({error})", watched.name))
                }
                _ if watched.writable() => return,
                _ => (Some(id), format!("{} takes no writes", watched.name)),
            },
            // The first to answer is not the primary just because it is nearest: hear all of them first.
            None if self.servers.iter().any(|watched| !watched.probed) => return,
            None => (None, String::new()),
        };
        let Some(new) = self.best(old) else {
            return;
        };
        let name = |id| self.watched(id).map_or("", |watched| &*watched.name);
        self.chosen = match old {
            Some(_) => format!("took over: {reason} and {} takes writes", name(new)).into(),
            None => self.first_choice(new),
        };
        self.take_over(new);
    }

    fn take_over(&mut self, new: ServerId) {
        self.primary = Some(new);
        self.progress = Progress::new(self.max_lag, self.stale_after);
        self.note_progress(new);
    }

    /// The best server to take over from `old`, among those that answer and take writes.
    fn best(&self, old: Option<ServerId>) -> Option<ServerId> {
        let candidates = self.ids().filter(|id| {
            Some(*id) != old
                && self
                    .watched(*id)
                    .is_some_and(|watched| watched.current && watched.writable())
        });
        candidates
            .filter_map(|id| Some((self.claim(id, old)?, self.followers(id), id)))
            .min_by_key(|(claim, followers, id)| (*claim, Reverse(*followers), *id))
            .map(|(.., id)| id)
    }

    /// What entitles a server that takes writes to take over from `old`; `None` if nothing does.
    ///
    /// A replica that only came up without `read_only` must not get writes because the primary is silent for a while.
    fn claim(&self, id: ServerId, old: Option<ServerId>) -> Option<Claim> {
        let Some(old) = old else {
            return Some(Claim::First);
        };
        let watched = self.watched(id)?;
        let replication = self.replication();
        let follows = replication.path(id, old).is_some();
        if watched.opened {
            Some(Claim::Opened)
        } else if follows && replication.path(old, id).is_some() {
            Some(Claim::Peer)
        } else if !follows && watched.followed == Some(old) {
            Some(Claim::Detached)
        } else if !follows && self.watched(old)?.health.is_up() {
            Some(Claim::Only)
        } else {
            None
        }
    }

    /// How many servers replicate from this one, over others or not.
    fn followers(&self, id: ServerId) -> usize {
        let replication = self.replication();
        self.ids()
            .filter(|other| *other != id && replication.path(*other, id).is_some())
            .count()
    }

    fn first_choice(&self, id: ServerId) -> Arc<str> {
        let rivals = self.writable_besides(id);
        let followers = self.followers(id);
        if rivals.is_empty() {
            "the only server that takes writes".into()
        } else if rivals
            .iter()
            .all(|rival| self.followers(*rival) < followers)
        {
            "takes writes, and most others replicate from it".into()
        } else {
            "takes writes, and is the first such in the configuration".into()
        }
    }

    fn writable_besides(&self, id: ServerId) -> Vec<ServerId> {
        self.ids()
            .filter(|other| *other != id)
            .filter(|other| {
                self.watched(*other)
                    .is_some_and(|watched| watched.health.is_up() && watched.writable())
            })
            .collect()
    }

    /// Remembers what the observation of `server` says about progress, for later estimates of lag.
    fn note_progress(&mut self, server: ServerId) {
        let Some(primary) = self.primary else {
            return;
        };
        let Some((facts, asked_at)) = self
            .watched(server)
            .and_then(|watched| watched.seen.clone())
        else {
            return;
        };
        if server == primary {
            if let Some(executed) = &facts.executed {
                self.progress.push(asked_at, executed);
            }
            return;
        }
        let replication = self.replication();
        if replication.path(server, primary).is_none() {
            return;
        }
        let connected = replication.connected_lag(server, primary, &self.progress);
        if let Some(watched) = self.servers.get_mut(server.index()) {
            watched.followed = Some(primary);
            if let (true, Some(lag)) = (watched.current, connected) {
                watched.connected = Some((asked_at, lag));
            }
        }
    }

    // --- the picture

    fn paint(&self, now: Instant) -> Topology {
        Topology {
            epoch: self.picture.epoch,
            at: now,
            servers: self
                .ids()
                .filter_map(|id| Some(self.paint_server(id, self.watched(id)?, now)))
                .collect(),
            primary: self.primary,
            reign: self.decree.map(|decree| decree.epoch),
            gate: self.decree.map_or(Gate::Open, |decree| decree.gate),
            greeting: self.greeting(),
            max_lag: self.max_lag,
        }
    }

    fn paint_server(&self, id: ServerId, watched: &Watched, now: Instant) -> Server {
        let facts = watched.facts();
        let role = self.role(id, watched);
        let (lag, delay, barred) = self.eligibility(id, watched, role, now);
        let position = facts.and_then(|facts| match role {
            Role::Primary => facts.executed.clone(),
            _ => facts.replicated.clone(),
        });
        Server {
            id,
            name: watched.name.clone(),
            address: watched.config.address.clone(),
            weight: watched.config.weight,
            group: watched.config.group.as_deref().map(Arc::from),
            near: watched.config.near,
            role,
            health: watched.health.clone(),
            version: facts.map(|facts| facts.version.clone()),
            identity: watched.identity(),
            incarnation: 0,
            writable: watched.writable(),
            lag,
            position,
            asked_at: watched.seen.as_ref().map(|(_, asked_at)| *asked_at),
            wait_timeout: facts.map_or(Duration::MAX, |facts| {
                let Defaults {
                    wait_timeout,
                    interactive_timeout,
                    ..
                } = facts.defaults;
                wait_timeout.min(interactive_timeout)
            }),
            filters: self.filters(id, role),
            delay,
            readable_since: None,
            barred,
            why: self.why(id, watched, role, barred).into(),
        }
    }

    /// What is left out between the primary and a replica.
    fn filters(&self, id: ServerId, role: Role) -> Vec<Arc<Filters>> {
        match (self.primary, role) {
            (Some(primary), Role::Replica) => self.replication().filters(id, primary),
            _ => Vec::new(),
        }
    }

    fn role(&self, id: ServerId, watched: &Watched) -> Role {
        match watched.facts() {
            _ if self.primary == Some(id) => Role::Primary,
            None => Role::Unknown,
            // Before the first election nobody can say which of the writable servers is the spare one; of one that is
            // down nobody knows how it will come back.
            Some(facts) if facts.write_block.is_none() => match (self.primary, &watched.health) {
                (Some(_), Health::Up) => Role::Spare,
                _ => Role::Unknown,
            },
            Some(facts) if facts.sources.is_empty() => Role::Unknown,
            Some(_) => Role::Replica,
        }
    }

    fn eligibility(
        &self,
        id: ServerId,
        watched: &Watched,
        role: Role,
        now: Instant,
    ) -> (Lag, Duration, Option<Unreadable>) {
        let barred = |reason| (Lag::Unknown, Duration::ZERO, Some(reason));
        let offline = |facts: &ServerFacts| facts.write_block == Some(WriteBlock::Offline);
        match (&watched.health, &watched.seen, role) {
            (Health::Down { .. }, ..) => barred(Unreadable::Down),
            (_, None, _) => barred(Unreadable::NotSeen),
            (_, Some((facts, _)), _) if offline(facts) => barred(Unreadable::Offline),
            // A primary that the monitor cannot question just now still has all its own writes.
            (_, _, Role::Primary) => (Lag::Known(Duration::ZERO), Duration::ZERO, None),
            _ if self.primary.is_none() => barred(Unreadable::NoPrimary),
            (_, _, Role::Spare) => barred(Unreadable::Spare),
            (_, _, Role::Unknown) => barred(Unreadable::NoSource),
            (_, Some((_, asked_at)), _)
                if now.saturating_duration_since(*asked_at) > self.stale_after =>
            {
                barred(Unreadable::Stale)
            }
            (_, Some(_), Role::Replica) => self.replica(id, now),
        }
    }

    fn replica(&self, id: ServerId, now: Instant) -> (Lag, Duration, Option<Unreadable>) {
        let Some(primary) = self.primary else {
            return (Lag::Unknown, Duration::ZERO, Some(Unreadable::NoPrimary));
        };
        let Reading { lag, delay, barred } =
            self.replication()
                .read(id, primary, &self.progress, self.primary_time(now));
        (lag, delay, barred)
    }

    /// How far the primary's own time has come: it stands still while nobody listens at its address, since nothing can
    /// be written there. A primary that is merely silent may still be writing for others.
    fn primary_time(&self, now: Instant) -> Instant {
        let primary = self.primary.and_then(|id| self.watched(id));
        match primary {
            Some(Watched {
                health: Health::Down { since, .. },
                error: Some(ProbeError::Refused),
                ..
            }) => *since,
            _ => now,
        }
    }

    fn why(
        &self,
        id: ServerId,
        watched: &Watched,
        role: Role,
        barred: Option<Unreadable>,
    ) -> String {
        let mut why = match role {
            Role::Primary => self.why_primary(id, watched),
            Role::Replica => match watched.facts().and_then(|facts| facts.sources.first()) {
                Some(_) if barred.is_none() => self.why_replica(id),
                Some(source) => format!(
                    "replica of {}:{}: {}",
                    source.host,
                    source.port,
                    barred.map(|reason| reason.to_string()).unwrap_or_default()
                ),
                None => String::new(),
            },
            Role::Spare => {
                let primary = self
                    .primary
                    .and_then(|id| self.watched(id))
                    .map_or("", |primary| &*primary.name);
                format!(
                    "takes writes, but {primary} is the primary: set read_only=ON here to use it for reads"
                )
            }
            Role::Unknown => match watched.facts() {
                _ if matches!(watched.health, Health::Down { .. }) => "down".to_owned(),
                None => "not seen yet".to_owned(),
                Some(facts) => match facts.write_block {
                    Some(block) => format!("{block} is on and it replicates from nobody"),
                    None => "takes writes; waiting to hear from the other servers".to_owned(),
                },
            },
        };
        if let Some(error) = &watched.error {
            why.push_str("; monitor: ");
            why.push_str(&error.to_string());
        }
        if let Some(error) = watched.facts().and_then(|facts| {
            facts
                .sources
                .iter()
                .find_map(|source| source.error.as_ref())
        }) {
            why.push_str("; replication: ");
            why.push_str(error);
        }
        why
    }

    fn why_primary(&self, id: ServerId, watched: &Watched) -> String {
        let mut why = self.chosen.to_string();
        if let (true, Some(block)) = (
            watched.health.is_up(),
            watched.facts().and_then(|facts| facts.write_block),
        ) {
            why = format!("{block} is on, and no other server takes writes yet");
        } else if !watched.health.is_up() {
            why = "down, and no other server that followed it takes writes yet".to_owned();
        }
        let spares: Vec<&str> = self
            .writable_besides(id)
            .into_iter()
            .filter_map(|other| Some(&*self.watched(other)?.name))
            .collect();
        if !spares.is_empty() {
            why.push_str(&format!(
                "; also writable, and unused: {}",
                spares.join(", ")
            ));
        }
        why
    }

    fn why_replica(&self, id: ServerId) -> String {
        let through = self
            .primary
            .and_then(|primary| self.replication().path(id, primary))
            .map(|path| path.through)
            .unwrap_or_default();
        let name = |id: &ServerId| self.watched(*id).map_or("", |watched| &*watched.name);
        let primary = self.primary.as_ref().map_or("", name);
        match through.first() {
            None => format!("replicates from {primary}"),
            Some(_) => {
                let through: Vec<&str> = through.iter().map(name).collect();
                format!("replicates from {primary} through {}", through.join(", "))
            }
        }
    }

    /// What every server understands.
    fn extensions(&self) -> Capabilities {
        let all = self.servers.iter().map(|watched| {
            let facts = watched.facts();
            facts.map_or(Capabilities::empty(), |facts| facts.version.extensions())
        });
        all.reduce(|some, others| some & others).unwrap_or_default()
    }

    fn greeting(&self) -> Option<Greeting> {
        let primary = self
            .primary
            .and_then(|id| self.watched(id))
            .and_then(Watched::facts);
        let known = || self.servers.iter().filter_map(Watched::facts);
        let model = primary.or_else(|| known().next())?;
        let family = || known().filter(|facts| facts.version.flavor == model.version.flavor);
        let version = family()
            .map(|facts| &facts.version)
            .min_by_key(|version| version.number())?;
        Some(Greeting {
            version: version.clone(),
            extensions: self.extensions(),
            collation: model.collation,
            gtid: known().all(|facts| facts.gtid) && known().count() == family().count(),
            sql_mode: model.sql_mode.clone(),
            defaults: model.defaults,
        })
    }
}

/// Whether the epoch has to grow from `old` to `new`, and what to tell of it.
fn differences(old: &Topology, new: &Topology, chosen: &Arc<str>) -> (bool, Vec<Event>) {
    let mut epoch = old.primary != new.primary || old.reign != new.reign || old.gate != new.gate;
    let mut events = Vec::new();
    for (before, after) in old.servers.iter().zip(&new.servers) {
        health_difference(before, after, &mut events);
    }
    epoch |= !events.is_empty();
    if old.primary != new.primary {
        events.push(Event::Primary {
            from: old.primary().map(|server| server.name.clone()),
            to: new.primary().map(|server| server.name.clone()),
            why: chosen.clone(),
        });
    }
    for (before, after) in old.servers.iter().zip(&new.servers) {
        let found = events.len();
        server_differences(before, after, new.max_lag, &mut events);
        epoch |= events.len() > found
            || before.role != after.role
            || before.writable != after.writable
            || before.identity != after.identity
            || barrier(before, new.max_lag) != barrier(after, new.max_lag);
    }
    epoch |= old.greeting != new.greeting;
    if old.gate != new.gate {
        events.push(Event::Gate { gate: new.gate });
    }
    (epoch, events)
}

fn went_back(before: &Server, after: &Server) -> bool {
    let replaced = before.identity.is_some() && before.identity != after.identity;
    replaced
        || match (&before.position, &after.position) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new) && !new.covers(old),
            (Some(_), None) => true,
            (None, _) => false,
        }
}

fn barrier(server: &Server, max_lag: Duration) -> Option<u8> {
    server.readable(max_lag).err().map(Unreadable::kind)
}

fn health_difference(before: &Server, after: &Server, events: &mut Vec<Event>) {
    let server = || after.name.clone();
    match (&before.health, &after.health) {
        (Health::Up, Health::Up) | (Health::Down { .. }, Health::Down { .. }) => {}
        (_, Health::Up) => events.push(Event::Up { server: server() }),
        (_, Health::Down { error, .. }) => events.push(Event::Down {
            server: server(),
            error: error.clone(),
        }),
        (_, Health::Unknown) => {}
    }
}

fn server_differences(before: &Server, after: &Server, max_lag: Duration, events: &mut Vec<Event>) {
    let server = || after.name.clone();
    if before.role != after.role && before.role != Role::Primary && after.role != Role::Primary {
        events.push(Event::Role {
            server: server(),
            from: before.role,
            to: after.role,
            why: after.why.clone(),
        });
    }
    if before.role == Role::Primary
        && after.role == Role::Primary
        && before.writable != after.writable
    {
        events.push(Event::Writes {
            server: server(),
            taken: after.writable,
        });
    }
    // Of a server that is down that is said already.
    if after.role == Role::Replica
        && after.health.is_up()
        && barrier(before, max_lag) != barrier(after, max_lag)
    {
        events.push(Event::Reads {
            server: server(),
            barred: after.readable(max_lag).err(),
        });
    }
}
