//! What goes wrong, and how it ends.

use std::time::Duration;

use dbproxy::failover::Order;
use dbproxy::topology::Flavor;

use super::rng::Rng;
use super::servers::{Applier, Kind, Mood, Process, Receiver};
use super::setup::{SemiSync, Setup};
use super::world::{Event, World};
use super::{MILLI, SECOND, Time};

/// A server: this one, or whichever is the primary then.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who {
    Primary,
    Server(usize),
    /// That many places behind the primary.
    Replica(usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Its process is killed, and comes back after this.
    Kill(Who, Option<Time>),
    /// The power of its host fails.
    Power(Who, Time),
    /// Its process stands still.
    Stop(Who, Time),
    Isolate(Who, Time),
    /// The way between two; one direction only if it says so.
    Cut(Who, Who, bool, Time),
    /// The way from the proxy.
    CutProxy(Who, bool, Time),
    /// Servers whose bit is set from the others and the proxy.
    Split(u8, Time),
    Lossy(Who, u64, Time),
    Mood(Who, Mood, Time),
    Stall(Time),
    KillProxy(Time),
    /// It is killed after so many more steps and answers.
    ProxyDies(u32),
    PauseProxy(Time),
    Errant(Who),
    StopApplier(Who),
    StopReplication(Who),
    ReadOnly,
    Open(Who),
    Switchover(Option<Who>),
    Failover(Option<Who>, bool),
    Rejoin(Who),
    Maintenance(Who, bool),
    Freeze(bool),
    /// The end of something.
    Join(usize, usize, bool),
    JoinAll(usize),
    PowerOn(usize),
    Well(usize),
    Unstall(usize),
}

impl Fault {
    /// What a seed lets go wrong, at a time.
    pub(crate) fn draw(rng: &mut Rng, setup: &Setup) -> Self {
        let count = setup.servers;
        let time = match rng.below(3) {
            0 => rng.between(100, 3000),
            1 => rng.between(1000, 10_000),
            _ => rng.between(5000, 40_000),
        } * MILLI;
        let any = match rng.percent(60) {
            true => Who::Primary,
            false => Who::Server(rng.place(count)),
        };
        let other = Who::Server(rng.place(count));
        let replica = Who::Replica(1 + rng.place(count - 1));
        let some = rng.percent(60).then_some(replica);
        match rng.below(40) {
            0..=8 => Self::Kill(any, rng.percent(70).then_some(time)),
            9 | 10 => Self::Power(any, time),
            11..=13 => Self::Stop(any, time),
            14 | 15 => Self::Isolate(any, time),
            16 | 17 => Self::Cut(any, other, rng.percent(30), time),
            18 | 19 => Self::CutProxy(any, rng.percent(30), time),
            20 => Self::Split(rng.next() as u8, time),
            21 => Self::Lossy(any, rng.between(10, 60), time),
            22 => Self::Mood(
                any,
                [Mood::Overloaded, Mood::Denies, Mood::Slow][rng.place(3)],
                time,
            ),
            23 => Self::Stall(time),
            24 => Self::KillProxy(time / 8),
            25 | 26 => Self::ProxyDies(rng.below(20) as u32),
            27 => Self::PauseProxy([time, 30 * SECOND][rng.place(2)]),
            28 => Self::Errant(replica),
            29 => Self::StopApplier(replica),
            30 => Self::StopReplication(replica),
            31 => Self::ReadOnly,
            32 => Self::Open(replica),
            33..=35 => Self::Switchover(some),
            36 => Self::Failover(some, !setup.strict() && rng.percent(40)),
            37 => Self::Rejoin(replica),
            38 => Self::Maintenance(any, rng.percent(70)),
            _ => Self::Freeze(rng.percent(50)),
        }
    }
}

impl World {
    /// The server that is meant.
    pub(crate) fn who(&self, who: Who) -> usize {
        let primary = self.primary().map_or(0, |id| id.index());
        match who {
            Who::Primary => primary,
            Who::Server(place) => place,
            Who::Replica(offset) => (primary + offset) % self.servers.len(),
        }
    }

    pub(crate) fn fault(&mut self, fault: &Fault) {
        if self.calm.is_some()
            && !matches!(
                fault,
                Fault::Maintenance(..) | Fault::Freeze(_) | Fault::Failover(..)
            )
        {
            return;
        }
        self.note(|| format!("fault: {fault:?}"));
        let proxy = self.proxy();
        match *fault {
            Fault::Kill(who, restart) => self.kill(who, restart),
            Fault::Power(who, time) => {
                let place = self.who(who);
                self.servers[place].host_down = true;
                self.kill(Who::Server(place), None);
                self.after(time, Event::Fault(Fault::PowerOn(place)));
            }
            Fault::Stop(who, time) => self.stop(who, time),
            Fault::Isolate(who, time) => {
                let place = self.who(who);
                self.split(1 << place);
                self.after(time, Event::Fault(Fault::JoinAll(place)));
            }
            Fault::Cut(one, other, half, time) => {
                self.cut_link(self.who(one), self.who(other), half, time)
            }
            Fault::CutProxy(who, half, time) => self.cut_link(self.who(who), proxy, half, time),
            Fault::Split(mask, time) => {
                self.split(mask);
                for place in 0..self.servers.len() {
                    self.after(time, Event::Fault(Fault::JoinAll(place)));
                }
            }
            Fault::Lossy(who, loss, time) => {
                let place = self.who(who);
                self.network.set_loss(proxy, place, loss);
                self.network.set_loss(place, proxy, loss);
                self.trouble(place);
                self.after(time, Event::Fault(Fault::Well(place)));
            }
            Fault::Mood(who, mood, time) => {
                let place = self.who(who);
                self.servers[place].mood = mood;
                self.after(time, Event::Fault(Fault::Well(place)));
            }
            Fault::Stall(time) => {
                let place = self.who(Who::Primary);
                self.servers[place].stalled = true;
                self.after(time, Event::Fault(Fault::Unstall(place)));
            }
            Fault::KillProxy(time) => self.kill_manager(time),
            Fault::ProxyDies(steps) => self.manager.dies_in = Some(steps),
            Fault::PauseProxy(time) => self.pause_manager(time),
            Fault::Errant(_)
            | Fault::StopApplier(_)
            | Fault::StopReplication(_)
            | Fault::ReadOnly
            | Fault::Open(_) => {
                self.meddle(*fault);
            }
            Fault::Switchover(to) => self.switchover(to),
            Fault::Failover(to, accept_loss) => {
                let to = to.map(|who| self.id(self.who(who)));
                self.checks.accepts_loss |= accept_loss;
                self.order(Order::Failover { to, accept_loss });
            }
            Fault::Rejoin(who) => self.order(Order::Rejoin(self.id(self.who(who)))),
            Fault::Maintenance(who, on) => {
                self.order(Order::Maintenance(self.id(self.who(who)), on))
            }
            Fault::Freeze(on) => self.order(Order::Freeze(on)),
            Fault::Join(from, to, half) => self.join(from, to, half),
            Fault::JoinAll(place) => (0..=proxy)
                .filter(|to| *to != place)
                .for_each(|to| self.join(place, to, false)),
            Fault::PowerOn(place) => {
                self.servers[place].host_down = false;
                self.trouble(place);
                let life = self.servers[place].life;
                self.after(2 * SECOND, Event::Restart(place, life));
            }
            Fault::Well(place) => {
                self.servers[place].mood = Mood::Well;
                self.network.set_loss(proxy, place, 0);
                self.network.set_loss(place, proxy, 0);
                self.trouble(place);
            }
            Fault::Unstall(place) => {
                self.servers[place].stalled = false;
                self.trouble(place);
            }
        }
    }

    fn trouble(&mut self, place: usize) {
        self.checks.troubled[place] = self.now;
    }

    fn switchover(&mut self, to: Option<Who>) {
        let to = to.map(|who| self.id(self.who(who)));
        let drain = self.rng.percent(30).then_some(Duration::from_millis(100));
        self.order(Order::Switchover { to, drain });
    }

    fn cut_link(&mut self, one: usize, other: usize, half: bool, time: Time) {
        if one == other {
            return;
        }
        self.network.set(one, other, true);
        if !half {
            self.network.set(other, one, true);
        }
        self.after(time, Event::Fault(Fault::Join(one, other, half)));
    }

    fn join(&mut self, one: usize, other: usize, half: bool) {
        self.network.set(one, other, false);
        if !half {
            self.network.set(other, one, false);
        }
        for place in [one, other] {
            if place != self.proxy() {
                self.trouble(place);
                self.drive_replicas(place);
            }
        }
    }

    /// Cuts the servers of the mask off from all others.
    fn split(&mut self, mask: u8) {
        let inside = |place: usize| place < 8 && mask & (1 << place) != 0;
        let proxy = self.proxy();
        for from in 0..=proxy {
            for to in 0..=proxy {
                if from != to && (inside(from) && from != proxy) != (inside(to) && to != proxy) {
                    self.network.set(from, to, true);
                }
            }
        }
    }

    pub(crate) fn kill(&mut self, who: Who, restart: Option<Time>) {
        let place = self.who(who);
        let server = &mut self.servers[place];
        let down = server.host_down;
        if server.process == Process::Dead {
            return;
        }
        server.process = Process::Dead;
        server.inbox.clear();
        let life = server.life;
        self.expel_dead(place);
        if !down {
            for replica in 0..self.servers.len() {
                let source = &mut self.servers[replica].source;
                let ends = source.as_mut().filter(|source| {
                    source.server == place && source.receiver == Receiver::Connected
                });
                if let Some(source) = ends {
                    source.receiver = Receiver::Connecting;
                    self.renew(replica);
                }
            }
        }
        if let Some(time) = restart {
            self.after(time, Event::Restart(place, life));
        }
    }

    fn expel_dead(&mut self, place: usize) {
        let sessions = self.servers[place]
            .waiting
            .iter_mut()
            .filter_map(|waiting| waiting.session.take());
        let sessions: Vec<_> = sessions.collect();
        if !self.servers[place].host_down {
            for session in sessions {
                self.send(
                    place,
                    self.proxy(),
                    Event::Reply(place, session, super::clients::Outcome::Lost),
                );
            }
        }
    }

    pub(crate) fn stop(&mut self, who: Who, time: Time) {
        let place = self.who(who);
        if self.servers[place].process == Process::Running {
            self.servers[place].process = Process::Stopped;
            self.after(time, Event::Wake(place));
        }
    }

    pub(crate) fn wake(&mut self, place: usize) {
        if self.servers[place].process != Process::Stopped {
            return;
        }
        self.note(|| format!("db{place} goes on"));
        self.servers[place].process = Process::Running;
        self.trouble(place);
        let inbox = std::mem::take(&mut self.servers[place].inbox);
        for event in inbox {
            self.after(MILLI, event);
        }
        self.drive_replicas(place);
    }

    pub(crate) fn restart(&mut self, place: usize, life: u32) {
        let (maria, truncates) = (self.setup.flavor == Flavor::MariaDb, self.setup.truncates);
        let config = self.setup.read_only_in_config;
        let semi = self.setup.semi_sync != SemiSync::Off;
        let now = self.now;
        let server = &mut self.servers[place];
        if server.life != life || server.process != Process::Dead || server.host_down {
            return;
        }
        server.process = Process::Running;
        server.life += 1;
        server.started = now;
        server.offline = false;
        server.read_only = server.persisted.filter(|_| !maria).unwrap_or(config);
        server.relay.clear();
        server.mood = Mood::Well;
        server.stalled = false;
        server.fell_back = false;
        server.meddled = false;
        (server.semi_source, server.semi_replica) = (semi, semi);
        let waiting = std::mem::take(&mut server.waiting);
        for waiting in waiting {
            if truncates {
                server.truncate(waiting.tx, &self.txs);
            } else {
                let tx = self.txs[waiting.tx as usize].clone();
                server.show(&tx);
            }
        }
        if let Some(source) = &mut server.source {
            source.receiver = Receiver::Stopped;
            source.applier = Applier::Stopped;
        }
        self.trouble(place);
        self.note(|| format!("db{place} is up again"));
        self.renew(place);
        self.start_threads(place);
    }

    /// What people do.
    fn meddle(&mut self, fault: Fault) {
        match fault {
            Fault::Errant(who) => {
                let place = self.who(who);
                // In a ring what is written to the passive one is no secret.
                if self.servers[place].runs() && !self.setup.ring {
                    self.servers[place].errant = true;
                    let id = self.create(place, Kind::Errant);
                    let tx = self.txs[id as usize].clone();
                    self.servers[place].append(id, &tx, true);
                    self.drive_replicas(place);
                }
            }
            Fault::StopApplier(who) | Fault::StopReplication(who) => {
                let place = self.who(who);
                if self.servers[place].runs() {
                    self.servers[place].meddled = true;
                    self.stop_applier(place);
                    if matches!(fault, Fault::StopReplication(_)) {
                        self.stop_receiver(place);
                    }
                }
            }
            Fault::ReadOnly => {
                let place = self.who(Who::Primary);
                if self.servers[place].waiting.is_empty() {
                    self.servers[place].read_only = true;
                    self.servers[place].closed_by_hand = true;
                }
            }
            Fault::Open(who) => {
                let place = self.who(who);
                self.servers[place].read_only = false;
            }
            _ => {}
        }
    }

    /// Whatever was wrong is mended, and operators have looked.
    pub(crate) fn become_calm(&mut self) {
        self.note(|| "all faults end".to_owned());
        self.network.heal();
        self.manager.dies_in = None;
        for place in 0..self.servers.len() {
            self.trouble(place);
            self.wake(place);
            let server = &mut self.servers[place];
            server.host_down = false;
            server.mood = Mood::Well;
            server.stalled = false;
            let life = server.life;
            let time = self.rng.between(100, 3000) * MILLI;
            self.after(time, Event::Restart(place, life));
            self.at(
                self.now + 30 * SECOND,
                Event::Fault(Fault::Maintenance(Who::Server(place), false)),
            );
        }
        // Who closed the primary opens it again, unless it is replaced.
        for server in &mut self.servers {
            if server.closed_by_hand
                && server
                    .epoch
                    .is_some_and(|(_, primary)| usize::from(primary) == server.place)
            {
                server.read_only = false;
            }
        }
        for delay in [1, 35, 70] {
            self.after(delay * SECOND, Event::Fault(Fault::Freeze(false)));
        }
        self.calm = Some(self.now);
        self.after(3 * SECOND, Event::Inspect);
        if !self.manager.up {
            let life = self.manager.life;
            self.after(SECOND, Event::Start(life));
        }
    }
}
