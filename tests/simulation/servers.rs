//! The servers: what they have, what they take, and what they say of themselves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dbproxy::topology::{
    Contact, EpochRow, Filters, Flavor, ServerFacts, SourceFacts, ThreadState, Version, WriteBlock,
};
use dbproxy_proto::gtid::{GtidHistory, GtidPosition, GtidSet, Position};

use super::clients::Session;
use super::setup::{SemiSync, Setup};
use super::world::Event;
use super::{SECOND, Time};

/// The first port; a server's place is added.
pub(crate) const PORT: u16 = 3300;

/// A transaction, by the order in which the world saw it.
pub(crate) type TxId = u32;

/// A transaction that a server has committed.
#[derive(Debug, Clone)]
pub(crate) struct Tx {
    pub(crate) origin: u8,
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    pub(crate) at: Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was there already.
    Old,
    /// A client's write through the proxy.
    Write(u32),
    /// A write past the proxy.
    Direct,
    /// A DBA's write on a replica.
    Errant,
    /// The row of a reign.
    Crown { epoch: u64, primary: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    Running,
    /// By SIGSTOP: the kernel still takes connections for it.
    Stopped,
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    Stopped,
    Connecting,
    Connected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applier {
    Stopped,
    Running,
    Broken(&'static str),
}

/// What a server replicates from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) server: usize,
    pub(crate) receiver: Receiver,
    pub(crate) applier: Applier,
    /// Why its receiver has no contact.
    pub(crate) contact: Option<Contact>,
    /// Where in the source's log it goes on.
    pub(crate) cursor: usize,
    pub(crate) heard_at: Time,
    pub(crate) heartbeats: u64,
    pub(crate) events: u64,
    /// It acknowledges over this connection.
    pub(crate) acks: bool,
    /// It was connected once.
    pub(crate) known: bool,
    /// A change of anything of this makes what was planned for it void.
    pub(crate) generation: u32,
    pub(crate) delivering: bool,
    pub(crate) applying: bool,
}

impl Source {
    pub(crate) fn new(server: usize, generation: u32) -> Self {
        Self {
            server,
            receiver: Receiver::Stopped,
            applier: Applier::Stopped,
            contact: None,
            cursor: 0,
            heard_at: 0,
            heartbeats: 0,
            events: 0,
            acks: false,
            known: false,
            generation,
            delivering: false,
            applying: false,
        }
    }
}

/// A commit that waits for replicas.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) tx: TxId,
    pub(crate) acks: u8,
    pub(crate) session: Option<Session>,
    pub(crate) since: Time,
}

/// Numbers of transactions per server, as intervals.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers([Vec<(u64, u64)>; 6]);

impl Numbers {
    pub(crate) fn add(&mut self, origin: u8, number: u64) {
        let all = &mut self.0[usize::from(origin)];
        match all.last_mut() {
            Some((_, high)) if *high + 1 == number => *high = number,
            _ => all.push((number, number)),
        }
    }

    pub(crate) fn set(&self) -> GtidSet {
        let mut text = String::with_capacity(128);
        for (origin, intervals) in self.0.iter().enumerate() {
            if intervals.is_empty() {
                continue;
            }
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(uuid(origin));
            for (low, high) in intervals {
                text.push_str(&format!(":{low}-{high}"));
            }
        }
        GtidSet::parse(text.as_bytes()).expect("a set")
    }
}

pub(crate) fn uuid(place: usize) -> &'static str {
    const ALL: [&str; 6] = [
        "00000000-0000-0000-0000-00000000000a",
        "00000000-0000-0000-0000-00000000000b",
        "00000000-0000-0000-0000-00000000000c",
        "00000000-0000-0000-0000-00000000000d",
        "00000000-0000-0000-0000-00000000000e",
        "00000000-0000-0000-0000-00000000000f",
    ];
    ALL[place]
}

/// What answers a probe besides facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Overloaded,
    Denies,
    /// Answers only now and then in time.
    Slow,
}

#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) place: usize,
    pub(crate) process: Process,
    pub(crate) host_down: bool,
    pub(crate) mood: Mood,
    /// Grows with each start.
    pub(crate) life: u32,
    pub(crate) started: Time,
    /// What came in while it was stopped.
    pub(crate) inbox: Vec<Event>,
    /// Its log: its own transactions and what it has applied.
    pub(crate) log: Vec<TxId>,
    holds: Vec<bool>,
    /// In the log and visible.
    pub(crate) executed: Numbers,
    /// Of each server the last number in the log.
    lasts: [u64; 6],
    next: u64,
    pub(crate) waiting: VecDeque<Waiting>,
    /// Received and not applied.
    pub(crate) relay: VecDeque<TxId>,
    /// The last transaction that it applied as a replica.
    pub(crate) replicated: Option<TxId>,
    pub(crate) source: Option<Source>,
    pub(crate) read_only: bool,
    pub(crate) offline: bool,
    /// What it comes back with.
    pub(crate) persisted: Option<bool>,
    pub(crate) ballot: u64,
    pub(crate) epoch: Option<(u64, u8)>,
    pub(crate) semi_source: bool,
    pub(crate) semi_replica: bool,
    pub(crate) fell_back: bool,
    /// No commit comes to its end.
    pub(crate) stalled: bool,
    /// Its data is older than it looks.
    pub(crate) months_old: bool,
    pub(crate) filtered: bool,
    pub(crate) delay: Time,
    /// A DBA wrote to it, or stopped its threads.
    pub(crate) errant: bool,
    pub(crate) meddled: bool,
    pub(crate) closed_by_hand: bool,
    pub(crate) generation: u32,
    positions: Option<(Arc<Position>, Option<Arc<GtidHistory>>)>,
    version: Version,
}

impl Server {
    pub(crate) fn new(place: usize, setup: &Setup) -> Self {
        let number = match (setup.flavor, setup.newer == Some(place)) {
            (Flavor::MySql, false) => "8.4.8",
            (Flavor::MySql, true) => "9.7.4",
            (Flavor::MariaDb, false) => "10.11.19-MariaDB",
            (Flavor::MariaDb, true) => "11.4.2-MariaDB",
        };
        let semi = setup.semi_sync != SemiSync::Off;
        Self {
            place,
            process: Process::Running,
            host_down: false,
            mood: Mood::Well,
            life: 1,
            started: 0,
            inbox: Vec::new(),
            log: Vec::new(),
            holds: Vec::new(),
            executed: Numbers::default(),
            lasts: [0; 6],
            next: 1,
            waiting: VecDeque::new(),
            relay: VecDeque::new(),
            replicated: None,
            source: None,
            read_only: place != 0,
            offline: false,
            persisted: None,
            ballot: 0,
            epoch: None,
            semi_source: semi,
            semi_replica: semi,
            fell_back: false,
            stalled: false,
            months_old: setup.months_old == Some(place),
            filtered: setup.filtered == Some(place),
            delay: if setup.delayed == Some(place) {
                3600 * SECOND
            } else {
                0
            },
            errant: false,
            meddled: false,
            closed_by_hand: false,
            generation: 0,
            positions: None,
            version: Version::parse(number).expect("a version"),
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.process == Process::Running && !self.host_down
    }

    pub(crate) fn writable(&self) -> bool {
        !self.read_only && !self.offline
    }

    pub(crate) fn holds(&self, tx: TxId) -> bool {
        self.holds.get(tx as usize).copied().unwrap_or_default()
    }

    /// In the log, in the relay log, or neither.
    pub(crate) fn received(&self, tx: TxId) -> bool {
        self.holds(tx) || self.relay.contains(&tx)
    }

    /// The number that its next transaction has.
    pub(crate) fn next_number(&mut self, flavor: Flavor) -> u64 {
        match flavor {
            Flavor::MySql => {
                self.next += 1;
                self.next - 1
            }
            Flavor::MariaDb => self.lasts.iter().max().copied().unwrap_or_default() + 1,
        }
    }

    pub(crate) fn last_number(&self) -> u64 {
        self.lasts.iter().max().copied().unwrap_or_default()
    }

    /// Puts a transaction in the log; `visible` if nobody is waited for.
    pub(crate) fn append(&mut self, id: TxId, tx: &Tx, visible: bool) {
        let at = id as usize;
        if self.holds.len() <= at {
            self.holds.resize(at + 32, false);
        }
        self.holds[at] = true;
        self.log.push(id);
        let last = &mut self.lasts[usize::from(tx.origin)];
        *last = (*last).max(tx.number);
        if usize::from(tx.origin) == self.place {
            self.next = self.next.max(tx.number + 1);
        }
        if visible {
            self.show(tx);
        }
        self.positions = None;
    }

    /// A transaction that waited is committed.
    pub(crate) fn show(&mut self, tx: &Tx) {
        self.executed.add(tx.origin, tx.number);
        if let Kind::Crown { epoch, primary } = tx.kind {
            self.epoch = Some((epoch, primary));
        }
        self.positions = None;
    }

    /// Takes the end of the log off that nobody acknowledged.
    pub(crate) fn truncate(&mut self, id: TxId, txs: &[Tx]) {
        self.holds[id as usize] = false;
        self.log.retain(|held| *held != id);
        self.lasts = [0; 6];
        for held in &self.log {
            let tx = &txs[*held as usize];
            let last = &mut self.lasts[usize::from(tx.origin)];
            *last = (*last).max(tx.number);
        }
        self.positions = None;
    }

    fn position(&self, id: Option<TxId>, txs: &[Tx]) -> Position {
        let text = id.map_or_else(String::new, |id| {
            let tx = &txs[id as usize];
            format!("0-{}-{}", tx.origin + 1, tx.number)
        });
        Position::MariaDb(GtidPosition::parse(text.as_bytes()).expect("a position"))
    }

    fn history(&self) -> GtidHistory {
        let lasts = self.lasts.iter().enumerate().filter(|(_, last)| **last > 0);
        let all: Vec<String> = lasts
            .map(|(origin, last)| format!("0-{}-{last}", origin + 1))
            .collect();
        GtidHistory::parse(all.join(",").as_bytes()).expect("a history")
    }

    /// What it says of itself.
    pub(crate) fn facts(
        &mut self,
        setup: &Setup,
        txs: &[Tx],
        clients: u32,
        now: Time,
    ) -> ServerFacts {
        let maria = setup.flavor == Flavor::MariaDb;
        if self.positions.is_none() {
            self.positions = Some(match maria {
                false => (Arc::new(Position::MySql(self.executed.set())), None),
                true => (
                    Arc::new(self.position(self.log.last().copied(), txs)),
                    Some(Arc::new(self.history())),
                ),
            });
        }
        let (executed, history) = self.positions.clone().expect("just made");
        let number = self.place as u32 + 1;
        let mut facts = ServerFacts::sound(self.version.clone(), number);
        facts.replicated = Some(match maria {
            true => Arc::new(self.position(self.replicated, txs)),
            false => Arc::clone(&executed),
        });
        facts.executed = Some(executed);
        facts.history = history;
        if !maria {
            facts.uuid = Some(uuid(self.place).into());
        }
        facts.write_block = match (self.offline, self.read_only, maria) {
            (true, ..) => Some(WriteBlock::Offline),
            (_, true, true) => Some(WriteBlock::ReadOnly),
            (_, true, false) => Some(WriteBlock::SuperReadOnly),
            _ => None,
        };
        facts.sources = self
            .source
            .iter()
            .map(|source| self.source_facts(source, txs, setup))
            .collect();
        facts.epoch = self.epoch.map(|(epoch, primary)| EpochRow {
            epoch,
            primary: match maria {
                true => (primary + 1).to_string().into(),
                false => uuid(usize::from(primary)).into(),
            },
        });
        facts.ballot = self.ballot;
        facts.seconds_up =
            (now.saturating_sub(self.started)) / SECOND + if self.life == 1 { 100_000 } else { 0 };
        facts.semi_sync = self.semi_facts(setup, clients);
        facts
    }

    fn semi_facts(&self, setup: &Setup, clients: u32) -> dbproxy::topology::SemiSync {
        let timeout = match setup.semi_sync {
            SemiSync::Off => return dbproxy::topology::SemiSync::default(),
            SemiSync::Strict => Duration::from_secs(4_294_967),
            SemiSync::Fallback(time) => Duration::from_micros(time),
        };
        dbproxy::topology::SemiSync {
            source: self.semi_source,
            replica: self.semi_replica,
            active: self.semi_source && !self.fell_back,
            replica_active: self
                .source
                .as_ref()
                .is_some_and(|source| source.acks && source.receiver == Receiver::Connected),
            clients,
            waiting: self.waiting.len() as u32,
            wait_for: setup.wait_for,
            timeout,
        }
    }

    fn source_facts(&self, source: &Source, txs: &[Tx], setup: &Setup) -> SourceFacts {
        let maria = setup.flavor == Flavor::MariaDb;
        let host = format!("db{}", source.server);
        let mut facts = SourceFacts::running(host, PORT + source.server as u16);
        if source.known {
            facts.server_id = Some(source.server as u32 + 1);
            facts.uuid = (!maria).then(|| uuid(source.server).into());
        }
        facts.receiver = match source.receiver {
            Receiver::Stopped => ThreadState::Stopped,
            Receiver::Connecting => ThreadState::Connecting,
            Receiver::Connected => ThreadState::Running,
        };
        facts.applier = match source.applier {
            Applier::Running => ThreadState::Running,
            _ => ThreadState::Stopped,
        };
        facts.applier_error = match source.applier {
            Applier::Broken(text) => Some(text.into()),
            _ => None,
        };
        facts.contact = source.contact;
        facts.delay = Duration::from_micros(self.delay);
        if self.filtered {
            facts.filters = Arc::new(Filters {
                ignore_schemas: vec!["logs".to_owned()],
                ..Filters::default()
            });
        }
        facts.received = match maria {
            true => Some(Arc::new(
                self.position(self.relay.back().copied().or(self.replicated), txs),
            )),
            false if self.relay.is_empty() => None,
            false => {
                let mut numbers = Numbers::default();
                for id in &self.relay {
                    let tx = &txs[*id as usize];
                    numbers.add(tx.origin, tx.number);
                }
                Some(Arc::new(Position::MySql(numbers.set())))
            }
        };
        facts.heartbeats = Some(source.heartbeats);
        facts.heartbeat_period = Duration::from_secs(1);
        facts.read_to = source.events.to_string().into();
        facts
    }
}
