//! The proxy: it feeds the failover with what it sees, and carries out what that wants.

use std::sync::Arc;
use std::time::Duration;

use dbproxy::config::{ServerAddress, ServerConfig};
use dbproxy::failover::{
    Act, Action, Done, Entry, Failover, Failure, Input, Order, Output, Reply, Report, Step,
};
use dbproxy::topology::{Decree, Flavor, Gate, Observation, ServerFacts, ServerId};
use dbproxy_proto::gtid::{GtidPosition, Position};
use tokio::time::Instant;

use super::actions::Progress;
use super::mutations::Mutation;
use super::servers::{Numbers, PORT, Process, TxId};
use super::setup::Setup;
use super::world::{Event, World};
use super::{MILLI, Time};

/// One action on its way to a server.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    pub(crate) life: u32,
    pub(crate) number: u64,
    pub(crate) job: usize,
    pub(crate) server: usize,
    pub(crate) action: Action,
    pub(crate) waited: Time,
}

/// The step that is being carried out.
#[derive(Debug, Clone)]
struct Running {
    number: u64,
    step: Step,
    since: Time,
    jobs: Vec<Progressing>,
}

#[derive(Debug, Clone, Default)]
struct Progressing {
    at: usize,
    facts: Option<Arc<ServerFacts>>,
    failure: Option<Failure>,
    done: bool,
}

pub(crate) struct Manager {
    /// Grows with each start.
    pub(crate) life: u32,
    pub(crate) up: bool,
    pub(crate) failover: Failover,
    pub(crate) decree: Option<Decree>,
    pub(crate) acknowledged: Numbers,
    pub(crate) highest: Option<TxId>,
    /// It is killed after so many steps and answers.
    pub(crate) dies_in: Option<u32>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) answers: Vec<Reply>,
    running: Option<Running>,
    paused_until: Option<Time>,
    orders: u64,
}

fn failover(setup: &Setup, now: Instant) -> Failover {
    let servers: Vec<ServerConfig> = (0..setup.servers)
        .map(|place| {
            let address = ServerAddress::Tcp {
                host: format!("db{place}"),
                port: PORT + place as u16,
            };
            ServerConfig::new(format!("db{place}"), address)
        })
        .collect();
    Failover::new(0, &servers, setup.policy(), now)
}

impl Manager {
    pub(crate) fn new(setup: &Setup, now: Instant) -> Self {
        Self {
            life: 0,
            up: true,
            failover: failover(setup, now),
            decree: None,
            acknowledged: Numbers::default(),
            highest: None,
            dies_in: None,
            entries: Vec::new(),
            answers: Vec::new(),
            running: None,
            paused_until: None,
            orders: 0,
        }
    }

    pub(crate) fn works(&self, now: Time) -> bool {
        self.up && self.paused_until(now).is_none()
    }

    pub(crate) fn paused_until(&self, now: Time) -> Option<Time> {
        self.paused_until.filter(|until| *until > now)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_none()
    }
}

impl World {
    pub(crate) fn probed(&mut self, life: u32, mut observation: Observation) {
        if life == self.manager.life && self.manager.works(self.now) {
            if let (Some(mutation), Ok(facts)) = (self.mutation, &mut observation.result) {
                mutation.lie(facts, self);
            }
            self.feed(Input::Seen(observation));
        }
    }

    pub(crate) fn tick(&mut self, life: u32) {
        if life != self.manager.life {
            return;
        }
        if self.manager.works(self.now) {
            if let Some(decree) = self.manager.decree {
                let server = &self.servers[decree.primary.index()];
                let oldest = server.waiting.front().map(|waiting| waiting.since);
                let since =
                    oldest.or_else(|| server.stalled.then(|| self.now.saturating_sub(MILLI)));
                let known = self.network.reaches(self.proxy(), server.place);
                let since = since.filter(|_| known).map(|since| self.instant(since));
                self.feed(Input::Stalled(since));
            }
            self.feed(Input::Tick);
        }
        self.after(250 * MILLI, Event::Tick(life));
    }

    pub(crate) fn order(&mut self, order: Order) {
        if self.manager.works(self.now) {
            self.note(|| format!("an operator: {order:?}"));
            self.manager.orders += 1;
            let number = self.manager.orders;
            self.feed(Input::Asked(number, order));
        }
    }

    fn feed(&mut self, input: Input) {
        let now = self.instant(self.now);
        let outputs = self.manager.failover.handle(input, now);
        for output in outputs {
            match output {
                Output::Decree(decree) => self.decree(decree),
                Output::Run { number, plan, step } => self.run_step(number, &plan, step),
                Output::Tell(entry) => {
                    self.note(|| {
                        format!(
                            "journal: {} {}{}",
                            entry.kind,
                            entry.text.trim_end(),
                            if entry.alarm { " (!)" } else { "" }
                        )
                    });
                    self.check_entry(&entry);
                    self.manager.entries.push(entry);
                }
                Output::Reply(_, reply) => {
                    self.note(|| format!("answer: {reply:?}"));
                    self.manager.answers.push(reply);
                }
            }
        }
    }

    fn decree(&mut self, decree: Decree) {
        self.note(|| {
            format!(
                "decree: {} reign {} {}",
                decree.primary.index(),
                decree.epoch,
                decree.gate
            )
        });
        self.check_decree(decree);
        if self.mutation == Some(Mutation::NoClose) && decree.gate == Gate::Closed {
            return;
        }
        let before = self.manager.decree.replace(decree);
        let other = before.is_some_and(|before| before.primary != decree.primary);
        if decree.gate == Gate::Closed || other {
            self.cut();
        }
    }

    fn run_step(&mut self, number: u64, plan: &str, mut step: Step) {
        self.note(|| format!("step {number} of {plan}: {}", step.act));
        if let Some(mutation) = self.mutation {
            mutation.alter(&mut step);
        }
        let life = self.manager.life;
        let since = self.now;
        let jobs = vec![Progressing::default(); step.jobs.len()];
        let deadline = step.deadline.as_micros() as Time;
        let own = step.jobs.is_empty();
        self.manager.running = Some(Running {
            number,
            step,
            since,
            jobs,
        });
        if own {
            let time = self.rng.between(1, 5) * MILLI;
            return self.after(time, Event::Own(life, number));
        }
        self.after(deadline, Event::Late(life, number));
        let jobs = self
            .manager
            .running
            .as_ref()
            .map_or(0, |running| running.jobs.len());
        for job in 0..jobs {
            self.next_action(job);
        }
        if self.may_die() {
            let delay = self.rng.below(3000) * MILLI;
            self.kill_manager(delay);
        }
    }

    /// Whether its time has come.
    fn may_die(&mut self) -> bool {
        match &mut self.manager.dies_in {
            Some(0) => {
                self.manager.dies_in = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn next_action(&mut self, job: usize) {
        let life = self.manager.life;
        let Some(running) = &mut self.manager.running else {
            return;
        };
        let work = &running.step.jobs[job];
        let Some(action) = work.actions.get(running.jobs[job].at).cloned() else {
            running.jobs[job].done = true;
            return self.ended_if_done();
        };
        let (number, server) = (running.number, work.server.index());
        let errand = Errand {
            life,
            number,
            job,
            server,
            action,
            waited: 0,
        };
        if self.servers[server].process == Process::Stopped {
            // A connection that stands takes the statement; a new one is not greeted.
            self.servers[server]
                .inbox
                .push(Event::Act(Box::new(errand)));
            return;
        }
        if self.network.passes(self.proxy(), server) {
            let latency = self.network.latency(self.proxy(), server, &mut self.rng);
            self.after(latency, Event::Act(Box::new(errand)));
        }
    }

    /// An action arrives at its server.
    pub(crate) fn act(&mut self, mut errand: Errand) {
        let place = errand.server;
        let server = &mut self.servers[place];
        match server.process {
            _ if server.host_down => return,
            Process::Dead => return self.answer(&errand, Err("connection refused".to_owned())),
            Process::Stopped => return server.inbox.push(Event::Act(Box::new(errand))),
            Process::Running => {}
        }
        if errand.waited == 0 {
            self.note(|| format!("db{place}: {}", errand.action));
        } else if !self.is_current(errand.life, errand.number) {
            return;
        }
        let result = match self.perform(place, &errand.action, errand.waited) {
            Progress::Waits(time) => {
                errand.waited += time;
                return self.after(time, Event::Act(Box::new(errand)));
            }
            Progress::Failed(text) => {
                self.note(|| format!("db{place}: {} has failed: {text}", errand.action));
                Err(text)
            }
            Progress::Done => Ok(matches!(errand.action, Action::Look).then(|| {
                let mut facts = self.look(place);
                if let Some(mutation) = self.mutation {
                    mutation.lie(&mut facts, self);
                }
                Arc::new(facts)
            })),
        };
        let time = self.rng.between(1, 10) * MILLI / 4;
        let acted = Event::Acted(errand.life, errand.number, errand.job, result);
        if self.network.passes(place, self.proxy()) {
            self.after(time, acted);
        }
    }

    fn answer(&mut self, errand: &Errand, result: Result<Option<Arc<ServerFacts>>, String>) {
        let acted = Event::Acted(errand.life, errand.number, errand.job, result);
        if self.network.passes(errand.server, self.proxy()) {
            self.after(MILLI, acted);
        }
    }

    fn is_current(&self, life: u32, number: u64) -> bool {
        life == self.manager.life
            && self
                .manager
                .running
                .as_ref()
                .is_some_and(|running| running.number == number)
    }

    pub(crate) fn acted(
        &mut self,
        life: u32,
        number: u64,
        job: usize,
        result: Result<Option<Arc<ServerFacts>>, String>,
    ) {
        if !self.is_current(life, number) || !self.manager.works(self.now) {
            return;
        }
        if self.may_die() {
            return self.kill_manager(0);
        }
        let Some(running) = &mut self.manager.running else {
            return;
        };
        let state = &mut running.jobs[job];
        match result {
            Ok(facts) => {
                state.facts = facts.or_else(|| state.facts.take());
                state.at += 1;
                self.next_action(job);
            }
            Err(text) => {
                let at = running.step.jobs[job].actions.get(state.at).cloned();
                state.failure = Some(Failure {
                    at,
                    text,
                    unknown: false,
                });
                state.done = true;
                self.look_again(job);
                self.ended_if_done();
            }
        }
    }

    /// The deadline of a step.
    pub(crate) fn late(&mut self, life: u32, number: u64) {
        if self.is_current(life, number) && self.manager.works(self.now) {
            self.fail_rest("no answer in time");
        }
    }

    /// A server's last word after a job that failed.
    fn look_again(&mut self, job: usize) {
        let Some(place) = self
            .manager
            .running
            .as_ref()
            .map(|running| running.step.jobs[job].server.index())
        else {
            return;
        };
        if !self.servers[place].runs()
            || !self.network.reaches(self.proxy(), place)
            || self.rng.percent(20)
        {
            return;
        }
        let mut facts = self.look(place);
        if let Some(mutation) = self.mutation {
            mutation.lie(&mut facts, self);
        }
        if let Some(running) = &mut self.manager.running {
            running.jobs[job].facts = Some(Arc::new(facts));
        }
    }

    fn fail_rest(&mut self, text: &str) {
        let Some(running) = &mut self.manager.running else {
            return;
        };
        let mut late = Vec::new();
        for (place, (state, job)) in running.jobs.iter_mut().zip(&running.step.jobs).enumerate() {
            if !state.done {
                let at = job.actions.get(state.at).cloned();
                state.failure = Some(Failure {
                    at,
                    text: text.to_owned(),
                    unknown: true,
                });
                state.done = true;
                late.push(place);
            }
        }
        late.into_iter().for_each(|job| self.look_again(job));
        self.ended_if_done();
    }

    fn ended_if_done(&mut self) {
        let Some(running) = &self.manager.running else {
            return;
        };
        if !running.jobs.iter().all(|job| job.done) {
            return;
        }
        let reports = running
            .step
            .jobs
            .iter()
            .zip(&running.jobs)
            .map(|(job, state)| Report {
                server: job.server,
                facts: state.facts.clone(),
                failure: state.failure.clone(),
            });
        let done = Done {
            reports: reports.collect(),
            ..Done::default()
        };
        self.end_step(done);
    }

    fn end_step(&mut self, done: Done) {
        if let Some(running) = self.manager.running.take() {
            self.feed(Input::Ended(running.number, done));
        }
    }

    /// What the proxy does itself.
    pub(crate) fn own(&mut self, life: u32, number: u64) {
        if !self.is_current(life, number) || !self.manager.works(self.now) {
            return;
        }
        let Some(running) = &self.manager.running else {
            return;
        };
        let (act, since) = (running.step.act.clone(), running.since);
        if let Act::Pause(drain) = &act {
            let over = self.now >= since + drain.as_micros() as Time;
            if self.busy() && !over {
                return self.after(10 * MILLI, Event::Own(life, number));
            }
        }
        let told = matches!(act, Act::Pause(_) | Act::Close);
        let acknowledged = told.then(|| self.acknowledged_position()).flatten();
        if self.may_die() {
            return self.kill_manager(0);
        }
        self.end_step(Done {
            acknowledged,
            ..Done::default()
        });
    }

    fn acknowledged_position(&self) -> Option<Position> {
        let highest = self.manager.highest.filter(|_| self.setup.tracked)?;
        Some(match self.setup.flavor {
            Flavor::MySql => Position::MySql(self.manager.acknowledged.set()),
            Flavor::MariaDb => {
                let tx = &self.txs[highest as usize];
                let text = format!("0-{}-{}", tx.origin + 1, tx.number);
                Position::MariaDb(GtidPosition::parse(text.as_bytes()).expect("a position"))
            }
        })
    }

    // --- its own faults

    pub(crate) fn kill_manager(&mut self, delay: Time) {
        if !self.manager.up {
            return;
        }
        self.note(|| "the proxy is killed".to_owned());
        self.manager.up = false;
        self.manager.life += 1;
        self.manager.running = None;
        self.manager.decree = None;
        self.manager.paused_until = None;
        self.manager.acknowledged = Numbers::default();
        self.manager.highest = None;
        self.cut();
        let life = self.manager.life;
        self.after(200 * MILLI + delay, Event::Start(life));
    }

    pub(crate) fn start_manager(&mut self, life: u32) {
        if life != self.manager.life || self.manager.up {
            return;
        }
        self.note(|| "the proxy starts".to_owned());
        self.manager.up = true;
        // It has written down which reign it knew of.
        let known = self.checks.decreed.map_or(0, |(epoch, _)| epoch);
        self.manager.failover = failover(&self.setup, self.instant(self.now)).knows(known);
        self.after(MILLI, Event::Tick(life));
    }

    pub(crate) fn pause_manager(&mut self, time: Time) {
        if !self.manager.works(self.now) {
            return;
        }
        self.note(|| {
            format!(
                "the proxy stands still for {:?}",
                Duration::from_micros(time)
            )
        });
        self.manager.paused_until = Some(self.now + time);
        let life = self.manager.life;
        self.after(time, Event::Resume(life));
    }

    /// Its connections, and with them its locks, have ended meanwhile.
    pub(crate) fn resume_manager(&mut self, life: u32) {
        if life != self.manager.life {
            return;
        }
        self.note(|| "the proxy goes on".to_owned());
        let own = self
            .manager
            .running
            .as_ref()
            .filter(|running| running.jobs.is_empty());
        if let Some(number) = own.map(|running| running.number) {
            return self.own(life, number);
        }
        self.fail_rest("the connection was lost");
    }

    pub(crate) fn primary(&self) -> Option<ServerId> {
        self.manager.decree.map(|decree| decree.primary)
    }
}
