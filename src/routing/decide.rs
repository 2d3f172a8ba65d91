//! The decision.

use std::time::Duration;

use super::balance::{self, Candidate, Load, Pace, Turn};
use super::pin::{PinReason, pin_for};
use super::reading::{Reading, Stage, begins_reading, ends_reading, runs_in_reading, stage_after};
use super::reason::Reason;
use super::wish::{Author, Place, Wish};
use crate::config::{Consistency, ReadOnlyTransactions};
use crate::sql::{Facts, Kind, StatementClass};
use crate::topology::{Role, Server, ServerId, Topology};

/// Where a statement goes, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where.
    pub target: Target,
    /// Why.
    pub reason: Reason,
    /// The replica will have what the read must see only in a moment, for which it has to wait there.
    pub waits: bool,
}

impl Route {
    /// To where nothing has to be waited for.
    pub const fn new(target: Target, reason: Reason) -> Self {
        Self {
            target,
            reason,
            waits: false,
        }
    }
}

/// Where a statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The primary.
    Primary,
    /// This replica.
    Replica(ServerId),
    /// The connection that the session holds, or used last; if it has none, one to the primary.
    Kept,
    /// Nowhere: the client is told why.
    Nowhere,
}

/// What the decision needs to know of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionView {
    /// The servers' status flag.
    pub in_transaction: bool,
    /// The open transaction, if it only reads and is on a replica.
    pub reading: Option<Reading>,
    /// Its transactions only read, unless they say otherwise.
    pub read_only: bool,
    /// What its transactions read may be locked by that.
    pub locks_reads: bool,
    /// Where transactions run that only read.
    pub read_only_transactions: ReadOnlyTransactions,
    /// The session is tied to its connection.
    pub pinned: Option<PinReason>,
    /// The servers' status flag.
    pub autocommit: bool,
    /// What is asked for.
    pub wish: Wish,
    /// The server of the statement before, if its connection is still as that statement left it.
    pub previous: Option<ServerId>,
}

/// Whether a replica has what a reader must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It has.
    Fresh,
    /// It will have it in a moment, for which the read can wait there.
    Soon,
    /// It lacks it.
    Stale,
    /// By the filters of its replication, it may lack a table that is read.
    Filtered,
}

/// More replicas than this are not looked at.
const CANDIDATES: usize = 32;

/// Decides where a statement goes.
///
/// Transaction and pin come first, then what the statement needs, then the wish of a rule or a hint, then the choice
/// among the replicas: those that are readable within the allowed lag and have what this session must see, else those that
/// will have it soon. A wish never sends anything to a replica that would not be allowed
/// there without it. `load` says what a server has to do now, `turn` how one of several is
/// chosen, see [`balance::pick`].
pub fn decide(
    class: &StatementClass,
    session: &SessionView,
    topology: &Topology,
    freshness: impl Fn(&Server) -> Freshness,
    load: impl Fn(ServerId) -> Load,
    turn: &Turn,
) -> Route {
    let primary = |reason| Route::new(Target::Primary, reason);
    let kept = |reason| Route::new(Target::Kept, reason);
    if session.wish.reads_only && class.may_change_data() {
        return Route::new(Target::Nowhere, Reason::ReadOnlySession);
    }
    if let Some(reading) = session.reading
        && !ends_reading(class)
    {
        return within(reading, class, session, topology, freshness);
    }
    if session.in_transaction && session.reading.is_none() {
        return kept(Reason::InTransaction);
    }
    if let Some(pin) = session.pinned {
        return kept(Reason::Pinned(pin));
    }
    // A replica that ran the statement before may be asked about it, but not for more.
    let only_asks = !class
        .facts
        .intersects(Facts::MAY_WRITE.union(Facts::LOCKING_READ))
        && class.kind != Kind::Set
        && pin_for(class).is_none();
    if class.facts.contains(Facts::PREVIOUS_STATEMENT)
        && session
            .previous
            .is_some_and(|server| only_asks || topology.primary == Some(server))
    {
        return kept(Reason::PreviousStatement);
    }
    let by_default =
        session.read_only_transactions == ReadOnlyTransactions::Replica && !session.locks_reads;
    let wish = session.wish;
    // A rule says where reads go, a hint means this very statement, and a session that only reads all of its own.
    let by_wish = wish.author != Author::Rule
        && matches!(
            wish.place,
            Place::Replica | Place::Server(_) | Place::Group(_)
        )
        && !session.locks_reads;
    let begins = (by_default || by_wish) && begins_reading(class, session.read_only);
    if !class.is_replica_read() && !begins {
        return primary(Reason::Statement(class.cause));
    }
    let only_reads = by_default && session.read_only;
    if !session.autocommit && !only_reads {
        return primary(Reason::AutocommitOff);
    }
    let asked = |by_hint, by_rule| match wish.author {
        Author::Rule => by_rule,
        _ => by_hint,
    };
    if wish.place == Place::Primary {
        return primary(asks_for_primary(wish.author));
    }
    if wish.consistency == Consistency::Strong {
        return primary(Reason::StrongConsistency);
    }
    let max_lag = topology.max_lag.min(wish.max_lag.unwrap_or(Duration::MAX));
    let opens = begins || !session.autocommit;
    let mut reason = if opens {
        Reason::ReadOnlyTransaction
    } else {
        Reason::FreshReplica
    };
    let choose = |among: &dyn Fn(&Server) -> bool| {
        let freshness = |server: &Server| match among(server) {
            // What else a transaction will read is not known.
            true if opens && server.is_filtered() => Freshness::Filtered,
            true => freshness(server),
            false => Freshness::Stale,
        };
        replica(topology, max_lag, freshness, &load, turn)
    };
    match wish.place {
        Place::LastUsed if session.previous.is_some() && !opens => {
            let server = session.previous.and_then(|id| topology.server(id));
            let lacks =
                |server: &Server| server.is_filtered() && freshness(server) == Freshness::Filtered;
            if !server.is_some_and(lacks) {
                return kept(Reason::HintLastUsed);
            }
        }
        Place::Server(name) => {
            let reason = asked(Reason::HintServer, Reason::RuleServer);
            let is_it = |server: &Server| name.is(&server.name);
            if let Some(route) = one_of(topology, &is_it, &choose, reason) {
                return route;
            }
        }
        Place::Group(name) => {
            let is_member =
                |server: &Server| server.group.as_deref().is_some_and(|group| name.is(group));
            let by = asked(Reason::HintGroup, Reason::RuleGroup);
            if let Some(route) = one_of(topology, &is_member, &choose, by) {
                return route;
            }
            reason = Reason::NoneOfGroup;
        }
        Place::Replica if !opens => {
            reason = match wish.author {
                Author::Hint => Reason::HintReplica,
                Author::Rule => Reason::RuleReplica,
                Author::Session => Reason::SessionReplica,
            };
        }
        _ => {}
    }
    match choose(&|_| true) {
        Choice::Found(server) => Route::new(Target::Replica(server), reason),
        Choice::Soon(server) => Route {
            target: Target::Replica(server),
            reason: match reason {
                Reason::FreshReplica => Reason::SoonFresh,
                reason => reason,
            },
            waits: true,
        },
        Choice::NotFresh => primary(Reason::NoFreshReplica),
        Choice::Filtered => primary(Reason::NoReplicaHasTables),
        Choice::None if max_lag < topology.max_lag => primary(Reason::NoReplicaWithinLag),
        Choice::None => primary(Reason::NoReplica),
    }
}

fn asks_for_primary(author: Author) -> Reason {
    match author {
        Author::Hint => Reason::HintPrimary,
        Author::Rule => Reason::RulePrimary,
        Author::Session => Reason::SessionPrimary,
    }
}

/// Where a statement goes that does not end the transaction that is open on a replica.
fn within(
    reading: Reading,
    class: &StatementClass,
    session: &SessionView,
    topology: &Topology,
    freshness: impl Fn(&Server) -> Freshness,
) -> Route {
    let (target, reason) = match (runs_in_reading(class), reading.stage) {
        (true, Stage::Settled) => (Target::Kept, Reason::InReading),
        (false, Stage::Settled) => (Target::Nowhere, Reason::NotInReading(class.cause)),
        (false, Stage::Begun) => (Target::Primary, Reason::BegunAnew(class.cause)),
        // What the first read sees, the whole transaction sees.
        (true, Stage::Begun) if stage_after(class) == Stage::Settled => {
            let server = topology.server(reading.server);
            let will_do = |server: &Server| {
                server.role == Role::Replica
                    && server.readable(topology.max_lag).is_ok()
                    && match freshness(server) {
                        Freshness::Fresh => true,
                        Freshness::Soon | Freshness::Stale => reading.eventual,
                        Freshness::Filtered => false,
                    }
            };
            if session.wish.place == Place::Primary {
                (Target::Primary, asks_for_primary(session.wish.author))
            } else if session.wish.consistency == Consistency::Strong {
                (Target::Primary, Reason::StrongConsistency)
            } else if server.is_some_and(will_do) {
                (Target::Kept, Reason::InReading)
            } else {
                (Target::Primary, Reason::NoFreshReplica)
            }
        }
        (true, Stage::Begun) => (Target::Kept, Reason::InReading),
    };
    Route::new(target, reason)
}

enum Choice {
    Found(ServerId),
    /// The read has to wait there.
    Soon(ServerId),
    NotFresh,
    /// Of those that could serve it, none surely has the tables.
    Filtered,
    None,
}

/// Replicas to choose from.
struct Candidates {
    places: [Candidate; CANDIDATES],
    count: usize,
    /// Only those count that are near.
    near: bool,
}

impl Candidates {
    const NONE: Self = Self {
        places: [Candidate {
            id: 0,
            weight: 0,
            load: Load {
                in_flight: 0,
                pace: Pace::UNKNOWN,
                rest: Duration::ZERO,
            },
            age: Duration::ZERO,
        }; CANDIDATES],
        count: 0,
        near: false,
    };

    /// Those that are near keep the others away.
    fn add(&mut self, server: &Server, topology: &Topology, load: &impl Fn(ServerId) -> Load) {
        match (self.near, server.near) {
            (true, false) => return,
            (false, true) => (self.near, self.count) = (true, 0),
            _ => {}
        }
        let age = server.readable_since.map_or(Duration::MAX, |since| {
            topology.at.saturating_duration_since(since)
        });
        if let Some(place) = self.places.get_mut(self.count) {
            *place = Candidate {
                id: server.id.0,
                weight: server.weight,
                load: load(server.id),
                age,
            };
            self.count += 1;
        }
    }

    fn pick(&self, turn: &Turn) -> Option<ServerId> {
        let places = self.places.get(..self.count)?;
        let chosen = balance::pick(places, turn)?;
        places.get(chosen).map(|chosen| ServerId(chosen.id))
    }
}

fn replica(
    topology: &Topology,
    max_lag: Duration,
    freshness: impl Fn(&Server) -> Freshness,
    load: &impl Fn(ServerId) -> Load,
    turn: &Turn,
) -> Choice {
    let mut fresh = Candidates::NONE;
    let mut awaits = false;
    let mut filtered = false;
    let mut stale = false;
    let mut readable = false;
    let replicas = || {
        let servers = topology.servers.iter();
        servers.filter(|server| server.role == Role::Replica && server.readable(max_lag).is_ok())
    };
    for server in replicas() {
        readable = true;
        match freshness(server) {
            Freshness::Fresh => fresh.add(server, topology, load),
            Freshness::Soon => awaits = true,
            Freshness::Stale => stale = true,
            Freshness::Filtered => filtered = true,
        }
    }
    if let Some(server) = fresh.pick(turn) {
        return Choice::Found(server);
    }
    if awaits {
        let mut soon = Candidates::NONE;
        let may = |server: &Server| matches!(freshness(server), Freshness::Fresh | Freshness::Soon);
        for server in replicas().filter(|server| may(server)) {
            soon.add(server, topology, load);
        }
        if let Some(server) = soon.pick(turn) {
            return Choice::Soon(server);
        }
    }
    match (readable, filtered && !stale) {
        (true, true) => Choice::Filtered,
        (true, false) => Choice::NotFresh,
        (false, _) => Choice::None,
    }
}

/// Chooses among the servers that fit.
type Choose<'a> = dyn Fn(&dyn Fn(&Server) -> bool) -> Choice + 'a;

/// One of the servers that are named, if a read may go there now: a replica, else the primary if it is named too.
fn one_of(
    topology: &Topology,
    named: &dyn Fn(&Server) -> bool,
    choose: &Choose<'_>,
    reason: Reason,
) -> Option<Route> {
    match choose(named) {
        Choice::Found(server) => Some(Route::new(Target::Replica(server), reason)),
        Choice::Soon(server) => Some(Route {
            waits: true,
            ..Route::new(Target::Replica(server), reason)
        }),
        Choice::NotFresh | Choice::Filtered | Choice::None => topology
            .primary()
            .filter(|server| named(server))
            .map(|_| Route::new(Target::Primary, reason)),
    }
}
