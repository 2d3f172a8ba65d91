//! Clients that write through the proxy, and what the proxy does with their writes.

use dbproxy::topology::{Decree, Gate};

use super::mutations::Mutation;
use super::servers::{Kind, TxId};
use super::world::{Event, World};
use super::{MILLI, SECOND, Time};

/// A connection to a server for one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) client: usize,
    /// A later one of the client makes this void.
    pub(crate) generation: u32,
    pub(crate) write: u32,
    pub(crate) epoch: u64,
    pub(crate) server: usize,
}

/// What became of a write, as the proxy is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed(TxId),
    /// The server takes no writes: it was not executed.
    ReadOnly,
    /// The connection has ended: nobody knows.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum State {
    #[default]
    Idle,
    /// It has begun a transaction on a server.
    Open(Session),
    /// Its commit is under way.
    Sent(Session),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Client {
    pub(crate) state: State,
    generation: u32,
    /// The write that was surely not executed and may be sent again.
    again: Option<u32>,
    /// Events of the past that are still to come.
    waits: bool,
}

impl World {
    /// A client does what is next for it.
    pub(crate) fn client(&mut self, place: usize) {
        self.clients[place].waits = false;
        if self.over {
            return;
        }
        let gate = self.manager.decree.filter(|_| self.manager.works(self.now));
        match (self.clients[place].state, gate) {
            (State::Open(session), Some(_)) => self.send_commit(place, session),
            (State::Idle, Some(decree)) if decree.gate == Gate::Open => {
                self.begin_write(place, decree)
            }
            (State::Sent(_), _) => {}
            _ => self.client_later(place, 100 * MILLI),
        }
    }

    pub(crate) fn client_later(&mut self, place: usize, delay: Time) {
        if !self.clients[place].waits {
            self.clients[place].waits = true;
            self.after(delay, Event::Client(place));
        }
    }

    fn begin_write(&mut self, place: usize, decree: Decree) {
        let write = self.clients[place]
            .again
            .take()
            .unwrap_or_else(|| self.checks.new_write());
        let client = &mut self.clients[place];
        client.generation += 1;
        let session = Session {
            client: place,
            generation: client.generation,
            write,
            epoch: decree.epoch,
            server: decree.primary.index(),
        };
        client.state = State::Open(session);
        if self.rng.percent(50) {
            return self.send_commit(place, session);
        }
        let long = self.rng.percent(5);
        let time = if long { 3000 } else { self.rng.between(2, 150) };
        self.client_later(place, time * MILLI);
    }

    fn send_commit(&mut self, place: usize, session: Session) {
        self.clients[place].state = State::Sent(session);
        self.send(
            self.proxy(),
            session.server,
            Event::Commit(session.server, self.servers[session.server].life, session),
        );
        self.after(10 * SECOND, Event::GiveUp(session));
    }

    /// A client's write arrives at a server.
    pub(crate) fn commit(&mut self, place: usize, life: u32, session: Session) {
        let server = &self.servers[place];
        if server.life != life || server.offline {
            // A connection to a server that was started anew, or that has ended it.
            return self.send(
                place,
                self.proxy(),
                Event::Reply(place, session, Outcome::Lost),
            );
        }
        if server.stalled {
            return self.after(500 * MILLI, Event::Commit(place, life, session));
        }
        if server.read_only {
            return self.send(
                place,
                self.proxy(),
                Event::Reply(place, session, Outcome::ReadOnly),
            );
        }
        if self.checks.executed_before(session.write) {
            let text = format!("I3: write {} is executed twice", session.write);
            self.checks.fail(text);
        }
        let id = self.begin_commit(place, Kind::Write(session.write), Some(session));
        self.checks.executed(session.write);
        self.note(|| {
            format!(
                "db{place}: write {} of client {} is transaction {id}",
                session.write, session.client
            )
        });
    }

    /// What a server says arrives at the proxy.
    pub(crate) fn reply(&mut self, place: usize, session: Session, outcome: Outcome) {
        if let Some(until) = self.manager.paused_until(self.now) {
            return self.at(until + MILLI, Event::Reply(place, session, outcome));
        }
        let late = self.clients[session.client].state != State::Sent(session);
        if late
            && !(self.mutation == Some(Mutation::LateOks)
                && matches!(outcome, Outcome::Committed(_)))
        {
            return;
        }
        let next = self.rng.between(20, 300) * MILLI;
        match outcome {
            Outcome::Committed(id) => {
                self.acknowledge(place, session, id);
                self.clients[session.client].state = State::Idle;
            }
            Outcome::ReadOnly => {
                let client = &mut self.clients[session.client];
                client.again = Some(session.write);
                client.state = State::Idle;
            }
            Outcome::Lost => self.unknown(session),
        }
        self.client_later(session.client, next);
    }

    /// A session ends while its write is under way: the client is told that nobody knows.
    fn unknown(&mut self, session: Session) {
        let client = &mut self.clients[session.client];
        client.state = State::Idle;
        if self.mutation == Some(Mutation::RunAgain) {
            client.again = Some(session.write);
        }
        self.note(|| {
            format!(
                "client {}: outcome of write {} unknown",
                session.client, session.write
            )
        });
    }

    pub(crate) fn give_up(&mut self, session: Session) {
        if self.clients[session.client].state == State::Sent(session) {
            self.unknown(session);
            self.client_later(session.client, 100 * MILLI);
        }
    }

    /// The proxy ends every session on the primary.
    pub(crate) fn cut(&mut self) {
        for place in 0..self.clients.len() {
            match self.clients[place].state {
                State::Idle => {}
                State::Open(_) => self.clients[place].state = State::Idle,
                State::Sent(session) => self.unknown(session),
            }
            self.client_later(place, 100 * MILLI);
        }
    }

    /// Whether any client is in a transaction.
    pub(crate) fn busy(&self) -> bool {
        self.clients
            .iter()
            .any(|client| client.state != State::Idle)
    }

    fn acknowledge(&mut self, place: usize, session: Session, id: TxId) {
        self.note(|| {
            format!(
                "client {}: write {} is committed on db{place}",
                session.client, session.write
            )
        });
        let tx = self.txs[id as usize].clone();
        self.manager.acknowledged.add(tx.origin, tx.number);
        self.manager.highest = Some(id);
        self.check_acknowledged(place, session, id);
    }
}
