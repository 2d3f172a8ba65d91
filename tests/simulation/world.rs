//! Everything there is, and what happens next.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use dbproxy::topology::{Observation, ProbeError, ServerFacts, ServerId};
use tokio::time::Instant;

use super::checks::Checks;
use super::clients::{Client, Outcome, Session};
use super::faults::Fault;
use super::manager::{Errand, Manager};
use super::mutations::Mutation;
use super::network::Network;
use super::rng::Rng;
use super::servers::{Kind, Mood, Process, Server, Source, Tx, TxId};
use super::setup::Setup;
use super::{MILLI, SECOND, Time};

/// What happens at some time. What happens to a server names the life of it that is meant.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Probe(usize),
    Probed(u32, Box<Observation>),
    Tick(u32),
    /// An action of a step arrives.
    Act(Box<Errand>),
    /// What became of it arrives.
    Acted(u32, u64, usize, Result<Option<Arc<ServerFacts>>, String>),
    /// The time of a step is over, or something that the proxy does itself has ended.
    Late(u32, u64),
    Own(u32, u64),
    Start(u32),
    Resume(u32),
    /// A replica's receiver tries to connect, gets something, hears something; its applier applies: generation.
    Connect(usize, u32),
    Deliver(usize, u32),
    Heartbeat(usize, u32),
    Apply(usize, u32),
    /// From a replica: it has this.
    Ack(usize, usize, TxId),
    SemiTimeout(usize, u32),
    Client(usize),
    GiveUp(Session),
    /// A client's write arrives at a server, and what became of it at the proxy.
    Commit(usize, u32, Session),
    Reply(usize, Session, Outcome),
    Direct,
    Fault(Fault),
    Restart(usize, u32),
    Wake(usize),
    /// A message that the network has not let through yet.
    Held(usize, usize, Box<Self>, u32),
    Calm,
    Inspect,
}

impl Event {
    /// The server that has to run for it to happen.
    fn place(&self) -> Option<usize> {
        match self {
            Self::Connect(place, _)
            | Self::Deliver(place, _)
            | Self::Heartbeat(place, _)
            | Self::Apply(place, _)
            | Self::Ack(place, ..)
            | Self::SemiTimeout(place, _)
            | Self::Commit(place, ..) => Some(*place),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Due {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) rng: Rng,
    pub(crate) now: Time,
    base: Instant,
    due: BinaryHeap<Reverse<Due>>,
    order: u64,
    pub(crate) txs: Vec<Tx>,
    /// Of each transaction, whether its commit waited for replicas.
    pub(crate) safe: Vec<bool>,
    pub(crate) servers: Vec<Server>,
    pub(crate) network: Network,
    pub(crate) clients: Vec<Client>,
    pub(crate) manager: Manager,
    pub(crate) checks: Checks,
    pub(crate) mutation: Option<Mutation>,
    /// Faults are over.
    pub(crate) calm: Option<Time>,
    /// Nothing has to be done any more.
    pub(crate) over: bool,
    /// What happened, if somebody wants to read it.
    pub(crate) log: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(setup: Setup, mut rng: Rng, base: Instant, log: bool) -> Self {
        let servers = (0..setup.servers).map(|place| Server::new(place, &setup));
        let mut world = Self {
            network: Network::new(setup.servers, &mut rng),
            servers: servers.collect(),
            clients: (0..setup.clients).map(|_| Client::default()).collect(),
            manager: Manager::new(&setup, base),
            checks: Checks::default(),
            setup,
            rng,
            now: 0,
            base,
            due: BinaryHeap::new(),
            order: 0,
            txs: Vec::new(),
            safe: Vec::new(),
            mutation: None,
            calm: None,
            over: false,
            log: log.then(Vec::new),
        };
        world.begin();
        world
    }

    /// All have some data, and replicate from the first server.
    fn begin(&mut self) {
        for number in 1..=2 {
            let tx = Tx {
                origin: 0,
                number,
                kind: Kind::Old,
                at: 0,
            };
            self.txs.push(tx.clone());
            for server in &mut self.servers {
                if !server.months_old || number == 1 {
                    server.append(number as TxId - 1, &tx, true);
                    server.replicated = Some(number as TxId - 1);
                }
            }
        }
        self.servers[0].replicated = None;
        for place in 0..self.servers.len() {
            if place == 0 && !self.setup.ring {
                continue;
            }
            let source = if place == 0 { 1 } else { 0 };
            self.servers[place].source = Some(Source {
                known: true,
                ..Source::new(source, 0)
            });
            if !self.servers[place].months_old {
                self.start_threads(place);
            }
        }
        for place in 0..self.servers.len() {
            let at = self.rng.below(250 * MILLI);
            self.at(at, Event::Probe(place));
        }
        for client in 0..self.clients.len() {
            let at = 600 * MILLI + self.rng.below(SECOND);
            self.at(at, Event::Client(client));
        }
        if self.setup.direct {
            self.at(SECOND, Event::Direct);
        }
        self.at(100 * MILLI, Event::Tick(0));
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>11.6} {}", self.now as f64 / 1e6, text()));
        }
    }

    pub(crate) fn instant(&self, at: Time) -> Instant {
        self.base + Duration::from_micros(at)
    }

    pub(crate) fn at(&mut self, at: Time, event: Event) {
        self.order += 1;
        let order = self.order;
        self.due.push(Reverse(Due { at, order, event }));
    }

    pub(crate) fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn proxy(&self) -> usize {
        self.network.proxy()
    }

    pub(crate) fn id(&self, place: usize) -> ServerId {
        ServerId::new(0, place as u8)
    }

    /// Puts a message on its way. Over a broken link it may arrive when that is mended, or never.
    pub(crate) fn send(&mut self, from: usize, to: usize, event: Event) {
        self.send_again(from, to, event, 0);
    }

    fn send_again(&mut self, from: usize, to: usize, event: Event, times: u32) {
        if self.network.passes(from, to)
            && !self.servers.get(to).is_some_and(|server| server.host_down)
        {
            let latency = self.network.latency(from, to, &mut self.rng);
            return self.after(latency, event);
        }
        if times < 40 && (times > 0 || self.rng.percent(50)) {
            self.after(
                300 * MILLI,
                Event::Held(from, to, Box::new(event), times + 1),
            );
        }
    }

    /// Lets things happen until nothing is to be done any more; the error is what must not have happened.
    pub(crate) fn run(&mut self, limit: Time) -> Result<(), String> {
        while let Some(Reverse(due)) = self.due.pop() {
            if due.at > limit || self.over {
                break;
            }
            self.now = due.at;
            self.happen(due.event);
            if let Some(text) = self.checks.violation.take() {
                return Err(text);
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) {
        if let Some(place) = event.place() {
            let server = &mut self.servers[place];
            match server.process {
                Process::Running if !server.host_down => {}
                Process::Stopped => return server.inbox.push(event),
                _ => return self.nobody_there(event),
            }
        }
        match event {
            Event::Probe(place) => self.probe(place),
            Event::Probed(life, observation) => self.probed(life, *observation),
            Event::Tick(life) => self.tick(life),
            Event::Act(errand) => self.act(*errand),
            Event::Acted(life, number, job, result) => self.acted(life, number, job, result),
            Event::Late(life, number) => self.late(life, number),
            Event::Own(life, number) => self.own(life, number),
            Event::Start(life) => self.start_manager(life),
            Event::Resume(life) => self.resume_manager(life),
            Event::Connect(place, generation) => self.connect(place, generation),
            Event::Deliver(place, generation) => self.deliver(place, generation),
            Event::Heartbeat(place, generation) => self.heartbeat(place, generation),
            Event::Apply(place, generation) => self.apply(place, generation),
            Event::Ack(place, replica, tx) => self.acknowledged(place, replica, tx),
            Event::SemiTimeout(place, life) => self.semi_timeout(place, life),
            Event::Client(client) => self.client(client),
            Event::GiveUp(session) => self.give_up(session),
            Event::Commit(place, write, session) => self.commit(place, write, session),
            Event::Reply(place, session, outcome) => self.reply(place, session, outcome),
            Event::Direct => self.direct(),
            Event::Fault(fault) => self.fault(&fault),
            Event::Restart(place, life) => self.restart(place, life),
            Event::Wake(place) => self.wake(place),
            Event::Held(from, to, event, times) => self.send_again(from, to, *event, times),
            Event::Calm => self.become_calm(),
            Event::Inspect => self.inspect(),
        }
    }

    /// What comes to a process that is gone.
    fn nobody_there(&mut self, event: Event) {
        if let Event::Commit(place, _, session) = event
            && !self.servers[place].host_down
        {
            self.send(
                place,
                self.proxy(),
                Event::Reply(place, session, Outcome::Lost),
            );
        }
    }

    fn probe(&mut self, place: usize) {
        let life = self.manager.life;
        let (proxy, now) = (self.proxy(), self.now);
        let reaches = self.network.reaches(proxy, place) && !self.servers[place].host_down;
        let there = self.network.latency(proxy, place, &mut self.rng);
        let back = self.network.latency(place, proxy, &mut self.rng);
        let took = there + back;
        let process = self.servers[place].process;
        let mood = self.servers[place].mood;
        let (took, result) = match process {
            _ if !reaches || took > SECOND => (SECOND, Err(ProbeError::Timeout)),
            Process::Dead if self.rng.percent(20) => (took, Err(ProbeError::Closed)),
            Process::Dead => (took, Err(ProbeError::Refused)),
            Process::Stopped => (SECOND, Err(ProbeError::Unresponsive)),
            Process::Running => match mood {
                Mood::Well => (took, Ok(self.look(place))),
                Mood::Overloaded => (took, Err(ProbeError::TooManyConnections)),
                Mood::Denies => (took, Err(ProbeError::AccessDenied("1045 denied".into()))),
                Mood::Slow => (SECOND, Err(ProbeError::Unresponsive)),
            },
        };
        let observation = Observation {
            server: self.id(place),
            asked_at: self.instant(now),
            at: self.instant(now + took),
            result,
        };
        self.after(took, Event::Probed(life, Box::new(observation)));
        let pause = self.rng.below(5) * MILLI;
        self.after(took.max(250 * MILLI) + pause, Event::Probe(place));
    }

    /// What a server says of itself now.
    pub(crate) fn look(&mut self, place: usize) -> ServerFacts {
        let clients = self.acknowledging(place);
        let now = self.now;
        self.servers[place].facts(&self.setup, &self.txs, clients, now)
    }

    /// A new transaction of a server.
    pub(crate) fn create(&mut self, place: usize, kind: Kind) -> TxId {
        let number = self.servers[place].next_number(self.setup.flavor);
        let id = self.txs.len() as TxId;
        let at = self.now;
        self.txs.push(Tx {
            origin: place as u8,
            number,
            kind,
            at,
        });
        id
    }

    fn direct(&mut self) {
        let place = self.rng.place(self.servers.len());
        if self.servers[place].runs() && self.servers[place].writable() {
            self.begin_commit(place, Kind::Direct, None);
        }
        let next = self.rng.between(200, 1500) * MILLI;
        self.after(next, Event::Direct);
    }
}
