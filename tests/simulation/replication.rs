//! How transactions get from one server to another, and how commits wait for that.

use dbproxy::topology::{Contact, Flavor};

use super::clients::{Outcome, Session};
use super::servers::{Applier, Kind, Process, Receiver, TxId, Waiting};
use super::setup::SemiSync;
use super::world::{Event, World};
use super::{MILLI, SECOND};

const REFUSED: Contact = Contact {
    errno: 2003,
    system: Some(111),
};
const TIMED_OUT: Contact = Contact {
    errno: 2003,
    system: Some(110),
};
const DIVERGED: Contact = Contact {
    errno: 1236,
    system: None,
};

impl World {
    /// Replicas that acknowledge to this server.
    pub(crate) fn acknowledging(&self, place: usize) -> u32 {
        let acks = self.servers.iter().filter(|replica| {
            replica.process != Process::Dead
                && replica.source.as_ref().is_some_and(|source| {
                    source.server == place && source.receiver == Receiver::Connected && source.acks
                })
        });
        acks.count() as u32
    }

    pub(crate) fn start_threads(&mut self, place: usize) {
        self.start_receiver(place);
        self.start_applier(place);
    }

    fn start_receiver(&mut self, place: usize) {
        let Some(source) = &mut self.servers[place].source else {
            return;
        };
        if source.receiver == Receiver::Stopped {
            source.receiver = Receiver::Connecting;
            source.contact = None;
            let generation = source.generation;
            self.after(5 * MILLI, Event::Connect(place, generation));
        }
    }

    /// MariaDB reads the relay log anew when both threads had stopped: what was not applied is gone.
    fn forget_relay_log(&mut self, place: usize) {
        let server = &mut self.servers[place];
        let stopped = server.source.as_ref().is_none_or(|source| {
            source.receiver == Receiver::Stopped && source.applier != Applier::Running
        });
        if stopped && self.setup.flavor == Flavor::MariaDb {
            server.relay.clear();
        }
    }

    pub(crate) fn start_applier(&mut self, place: usize) {
        let Some(source) = &mut self.servers[place].source else {
            return;
        };
        if source.applier == Applier::Stopped {
            source.applier = Applier::Running;
        }
        self.drive_applier(place);
    }

    pub(crate) fn stop_receiver(&mut self, place: usize) {
        if let Some(source) = &mut self.servers[place].source {
            source.receiver = Receiver::Stopped;
            source.contact = None;
        }
        self.renew(place);
        self.forget_relay_log(place);
    }

    pub(crate) fn stop_applier(&mut self, place: usize) {
        if let Some(source) = &mut self.servers[place].source
            && source.applier == Applier::Running
        {
            source.applier = Applier::Stopped;
        }
        self.renew(place);
        self.forget_relay_log(place);
    }

    /// What was planned for its threads is void; what still runs begins anew.
    pub(crate) fn renew(&mut self, place: usize) {
        let server = &mut self.servers[place];
        server.generation += 1;
        let generation = server.generation;
        let Some(source) = &mut server.source else {
            return;
        };
        source.generation = generation;
        source.delivering = false;
        source.applying = false;
        match source.receiver {
            Receiver::Stopped => {}
            Receiver::Connecting => self.after(50 * MILLI, Event::Connect(place, generation)),
            Receiver::Connected => {
                self.after(SECOND, Event::Heartbeat(place, generation));
                self.drive_receiver(place);
            }
        }
        self.drive_applier(place);
    }

    pub(crate) fn connect(&mut self, place: usize, generation: u32) {
        let Some(source) = self.servers[place].source.clone() else {
            return;
        };
        if source.generation != generation || source.receiver != Receiver::Connecting {
            return;
        }
        let peer = source.server;
        let (retry, net) = (self.setup.connect_retry, self.setup.net_timeout);
        let reaches = self.network.reaches(place, peer) && !self.servers[peer].host_down;
        let (contact, wait) = match (reaches, self.servers[peer].process) {
            (false, _) => (TIMED_OUT, SECOND + retry),
            (_, Process::Dead) => (REFUSED, retry),
            (_, Process::Stopped) => (
                Contact {
                    errno: 2013,
                    system: Some(110),
                },
                net.min(10 * SECOND) + retry,
            ),
            (_, Process::Running) => return self.connected(place, peer),
        };
        if let Some(source) = &mut self.servers[place].source {
            source.contact = Some(contact);
        }
        self.after(wait, Event::Connect(place, generation));
    }

    fn connected(&mut self, place: usize, peer: usize) {
        let cursor = self.place_in_log(place, peer);
        let (now, acks) = (self.now, self.servers[place].semi_replica);
        let Some(source) = &mut self.servers[place].source else {
            return;
        };
        source.known = true;
        let Some(cursor) = cursor else {
            source.receiver = Receiver::Stopped;
            source.contact = Some(DIVERGED);
            self.note(|| format!("db{place}: error 1236 of db{peer}"));
            return;
        };
        source.cursor = cursor;
        source.receiver = Receiver::Connected;
        source.contact = None;
        source.heard_at = now;
        source.acks = acks;
        source.delivering = false;
        let generation = source.generation;
        self.note(|| format!("db{place}: receives from db{peer}"));
        self.after(SECOND, Event::Heartbeat(place, generation));
        self.drive_receiver(place);
    }

    /// Where a source begins to send; `None` if it refuses to.
    fn place_in_log(&self, place: usize, peer: usize) -> Option<usize> {
        let (replica, source) = (&self.servers[place], &self.servers[peer]);
        match self.setup.flavor {
            Flavor::MySql => {
                // It may not have transactions of the source's own that the source does not have.
                let all = replica.log.iter().chain(&replica.relay);
                let beyond = all.clone().any(|id| {
                    usize::from(self.txs[*id as usize].origin) == peer && !source.holds(*id)
                });
                (!beyond).then_some(0)
            }
            Flavor::MariaDb => match replica.relay.back().copied().or(replica.replicated) {
                None => Some(0),
                Some(last) => source
                    .log
                    .iter()
                    .position(|id| *id == last)
                    .map(|at| at + 1),
            },
        }
    }

    /// Sees to it that a replica gets what it does not have yet.
    fn drive_receiver(&mut self, place: usize) {
        let Some(source) = &self.servers[place].source else {
            return;
        };
        if source.receiver != Receiver::Connected || source.delivering {
            return;
        }
        let (peer, generation) = (source.server, source.generation);
        if source.cursor >= self.servers[peer].log.len()
            || !self.servers[peer].runs()
            || !self.network.passes(peer, place)
        {
            return;
        }
        if let Some(source) = &mut self.servers[place].source {
            source.delivering = true;
        }
        let latency = self.network.latency(peer, place, &mut self.rng);
        self.after(latency, Event::Deliver(place, generation));
    }

    pub(crate) fn drive_replicas(&mut self, of: usize) {
        for place in 0..self.servers.len() {
            if self.servers[place]
                .source
                .as_ref()
                .is_some_and(|source| source.server == of)
            {
                self.drive_receiver(place);
            }
        }
    }

    pub(crate) fn deliver(&mut self, place: usize, generation: u32) {
        let now = self.now;
        let Some(source) = &mut self.servers[place].source else {
            return;
        };
        if source.generation != generation || source.receiver != Receiver::Connected {
            return;
        }
        source.delivering = false;
        let (peer, cursor, acks) = (source.server, source.cursor, source.acks);
        source.heard_at = now;
        source.events += 1;
        source.cursor += 1;
        if let Some(id) = self.servers[peer].log.get(cursor).copied() {
            let own = usize::from(self.txs[id as usize].origin) == place;
            if !own && !self.servers[place].received(id) {
                self.servers[place].relay.push_back(id);
            }
            if acks
                && self.servers[peer]
                    .waiting
                    .iter()
                    .any(|waiting| waiting.tx == id)
            {
                self.send(place, peer, Event::Ack(peer, place, id));
            }
            self.drive_applier(place);
        }
        self.drive_receiver(place);
    }

    pub(crate) fn heartbeat(&mut self, place: usize, generation: u32) {
        let now = self.now;
        let Some(source) = &self.servers[place].source else {
            return;
        };
        if source.generation != generation || source.receiver != Receiver::Connected {
            return;
        }
        let peer = source.server;
        let hears = self.servers[peer].runs() && self.network.passes(peer, place);
        let silent = now.saturating_sub(source.heard_at) >= self.setup.net_timeout;
        if let Some(source) = &mut self.servers[place].source {
            if hears {
                source.heartbeats += 1;
                source.heard_at = now;
            } else if silent {
                source.receiver = Receiver::Connecting;
                source.contact = Some(TIMED_OUT);
                return self.after(10 * MILLI, Event::Connect(place, generation));
            }
        }
        self.drive_receiver(place);
        self.after(SECOND, Event::Heartbeat(place, generation));
    }

    pub(crate) fn drive_applier(&mut self, place: usize) {
        let server = &mut self.servers[place];
        let Some(source) = &mut server.source else {
            return;
        };
        if source.applier != Applier::Running || source.applying || server.relay.is_empty() {
            return;
        }
        source.applying = true;
        let generation = source.generation;
        let slow = self.rng.percent(self.setup.slow_applier);
        let time = if slow {
            self.rng.between(200, 4000) * MILLI
        } else {
            self.rng.between(1, 8) * MILLI
        };
        let time = time + self.servers[place].delay;
        self.after(time, Event::Apply(place, generation));
    }

    pub(crate) fn apply(&mut self, place: usize, generation: u32) {
        let maria = self.setup.flavor == Flavor::MariaDb;
        let server = &mut self.servers[place];
        let Some(source) = &mut server.source else {
            return;
        };
        if source.generation != generation || source.applier != Applier::Running {
            return;
        }
        source.applying = false;
        let Some(id) = server.relay.front().copied() else {
            return;
        };
        let tx = self.txs[id as usize].clone();
        if maria && tx.number <= server.last_number() {
            let server = &mut self.servers[place];
            if let Some(source) = &mut server.source {
                source.applier = Applier::Broken("1950 out of order");
            }
            self.note(|| format!("db{place}: its applier breaks"));
            return;
        }
        let server = &mut self.servers[place];
        server.relay.pop_front();
        server.replicated = Some(id);
        server.append(id, &tx, true);
        self.crowned(place, &tx);
        self.drive_replicas(place);
        self.drive_applier(place);
    }

    // --- commits

    /// A server writes a transaction to its log, and may have to wait for others before it is committed.
    pub(crate) fn begin_commit(
        &mut self,
        place: usize,
        kind: Kind,
        session: Option<Session>,
    ) -> TxId {
        let id = self.create(place, kind);
        let tx = self.txs[id as usize].clone();
        let now = self.now;
        let server = &mut self.servers[place];
        let waits = server.semi_source && !server.fell_back;
        server.append(id, &tx, !waits);
        self.safe.resize(self.txs.len(), false);
        self.safe[id as usize] = waits;
        let server = &mut self.servers[place];
        if waits {
            server.waiting.push_back(Waiting {
                tx: id,
                acks: 0,
                session,
                since: now,
            });
            if let SemiSync::Fallback(time) = self.setup.semi_sync {
                let life = self.servers[place].life;
                self.after(time, Event::SemiTimeout(place, life));
            }
        } else {
            self.committed(place, id, session);
        }
        self.drive_replicas(place);
        id
    }

    fn committed(&mut self, place: usize, id: TxId, session: Option<Session>) {
        let tx = self.txs[id as usize].clone();
        self.crowned(place, &tx);
        if let Some(session) = session {
            self.send(
                place,
                self.proxy(),
                Event::Reply(place, session, Outcome::Committed(id)),
            );
        }
    }

    pub(crate) fn acknowledged(&mut self, place: usize, replica: usize, id: TxId) {
        let needed = self.setup.wait_for;
        let server = &mut self.servers[place];
        if server.log.last() == Some(&id) || server.fell_back && server.waiting.is_empty() {
            server.fell_back = false;
        }
        let Some(at) = server.waiting.iter().position(|waiting| waiting.tx == id) else {
            return;
        };
        for waiting in server.waiting.iter_mut().take(at + 1) {
            waiting.acks |= 1 << replica;
        }
        while self.servers[place]
            .waiting
            .front()
            .is_some_and(|waiting| waiting.acks.count_ones() >= needed)
        {
            self.release(place);
        }
    }

    /// The oldest commit that waits is done.
    fn release(&mut self, place: usize) {
        let Some(waiting) = self.servers[place].waiting.pop_front() else {
            return;
        };
        let tx = self.txs[waiting.tx as usize].clone();
        self.servers[place].show(&tx);
        self.committed(place, waiting.tx, waiting.session);
    }

    /// Nobody is waited for any more.
    pub(crate) fn release_all(&mut self, place: usize) {
        for waiting in &self.servers[place].waiting {
            self.safe[waiting.tx as usize] = false;
        }
        while !self.servers[place].waiting.is_empty() {
            self.release(place);
        }
    }

    pub(crate) fn semi_timeout(&mut self, place: usize, life: u32) {
        let SemiSync::Fallback(time) = self.setup.semi_sync else {
            return;
        };
        let now = self.now;
        let server = &mut self.servers[place];
        let late = server
            .waiting
            .front()
            .is_some_and(|waiting| now >= waiting.since + time);
        if server.life == life && late {
            server.fell_back = true;
            self.note(|| format!("db{place}: waits for nobody any more"));
            self.release_all(place);
        }
    }
}
