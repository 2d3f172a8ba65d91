//! The state machine: evidence and orders in, steps and decrees out.

use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::gtid::Position;
use tokio::time::Instant;

use super::evidence::{Death, Verdict, verdict};
use super::member::Member;
use super::plan::{Done, Plan, Step};
use super::policy::{History, Mode, Policy};
use super::reign::{Reign, Standing, highest, standing};
use crate::config::ServerConfig;
use crate::topology::{Decree, Gate, Observation, ServerId, ThreadState};

/// Servers that do not answer at the start are waited for so long.
const ROLL_CALL: Duration = Duration::from_secs(5);
/// So long after the primary has fallen silent everybody is asked more often.
const ALARM: Duration = Duration::from_secs(8);
/// Who heard nothing of anybody for so long was asleep, as on a machine that was moved.
const ASLEEP: Duration = Duration::from_secs(3);
/// What did not go is tried again after this.
pub(super) const AGAIN: Duration = Duration::from_secs(10);

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Another primary, with nothing lost.
    Switchover {
        /// Which one; the best if it does not say.
        to: Option<ServerId>,
        /// Open transactions may go on for so long, instead of as configured.
        drain: Option<Duration>,
    },
    /// Another primary, whatever became of this one.
    Failover {
        /// Which one; the best if it does not say.
        to: Option<ServerId>,
        /// Though acknowledged transactions may be lost.
        accept_loss: bool,
    },
    /// A server is to follow the primary.
    Rejoin(ServerId),
    /// A server is taken out of all this, or put back.
    Maintenance(ServerId, bool),
    /// Nothing is done without being asked, or it is again.
    Freeze(bool),
    /// What would be done.
    Plan(Box<Self>),
    /// How things stand.
    Status,
}

/// What happens.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // It lives for one call.
pub enum Input {
    /// A monitor has looked.
    Seen(Observation),
    /// Since when a write of the monitor's own is not completed; `None` if none is waited for.
    Stalled(Option<Instant>),
    /// Time has passed.
    Tick,
    /// The step that was given out under this number has ended.
    Ended(u64, Done),
    /// An operator asks, and wants the answer under this number.
    Asked(u64, Order),
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Who the primary is from now on.
    Decree(Decree),
    /// Carry this out, and say under the same number what became of it. Nothing else is given out meanwhile.
    Run {
        /// Its number.
        number: u64,
        /// The plan that it is of.
        plan: String,
        /// The step.
        step: Step,
    },
    /// For the journal.
    Tell(Entry),
    /// For the operator who asked under this number.
    Reply(u64, Reply),
}

/// An answer to an operator: what was done, or why it was not.
pub type Reply = Result<String, String>;

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What kind of event: `verdict`, `plan`, `step`, `end`, `refused`, `state`.
    pub kind: &'static str,
    /// The plan that it belongs to.
    pub plan: Option<String>,
    /// In words.
    pub text: String,
    /// Has somebody to look at it?
    pub alarm: bool,
}

impl Entry {
    /// Whether a plan is over with this.
    pub fn is_end(&self) -> bool {
        self.kind == "end"
    }
}

/// A plan that is under way.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) plan: Plan,
    /// The step that is being done.
    pub(super) at: usize,
    /// Who wants to know.
    pub(super) asked_by: Option<u64>,
    /// Did it begin by itself?
    pub(super) automatic: bool,
    pub(super) accept_loss: bool,
    pub(super) wanted: Option<ServerId>,
    /// Replicas whose connection to the old primary was ended.
    pub(super) revoked: Vec<ServerId>,
    /// Since when the old primary is silent.
    pub(super) failed_since: Option<Instant>,
    /// The row of the reign is written.
    pub(super) crowned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Waiting to hear of all servers.
    Starting,
    /// Nobody has counted yet, and why that does not begin.
    New(String),
    /// There is a reign.
    Reigning,
}

/// Watches over one cluster's primary.
#[derive(Debug, Clone)]
pub struct Failover {
    pub(super) policy: Policy,
    pub(super) members: Vec<Member>,
    pub(super) reign: Option<Reign>,
    /// What was said last of the primary.
    decreed: Option<Decree>,
    phase: Phase,
    pub(super) running: Option<Running>,
    pub(super) history: History,
    frozen: bool,
    pub(super) acknowledged: Option<Position>,
    stalled_since: Option<Instant>,
    /// The highest reign that this program knew of before it was started anew.
    known: u64,
    begun: Instant,
    /// When something came in last.
    awake: Instant,
    /// The last verdict, so that only changes are told.
    verdict: Verdict,
    /// What was told last to be not done, so that it is told once.
    told: String,
    /// Before this time nothing is tried again.
    pub(super) rest_until: Option<Instant>,
    number: u64,
    pub(super) outputs: Vec<Output>,
}

impl Failover {
    /// Knows the configured servers of a cluster, and nothing of them yet.
    pub fn new(cluster: u8, servers: &[ServerConfig], policy: Policy, now: Instant) -> Self {
        let members = (0..=u8::MAX).zip(servers);
        let members = members
            .map(|(place, config)| Member::new(ServerId::new(cluster, place), config))
            .collect();
        Self {
            policy,
            members,
            reign: None,
            decreed: None,
            phase: Phase::Starting,
            running: None,
            history: History::default(),
            frozen: false,
            acknowledged: None,
            stalled_since: None,
            known: 0,
            begun: now,
            awake: now,
            verdict: Verdict::Alive,
            told: String::new(),
            rest_until: None,
            number: 0,
            outputs: Vec::new(),
        }
    }

    /// Never goes back behind this reign, which was decreed before this program was started anew: of two servers the one that
    /// answers then may be the one that was replaced.
    pub fn knows(self, epoch: u64) -> Self {
        Self {
            known: epoch,
            ..self
        }
    }

    /// Takes in what happened, and says what is to be done about it.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Output> {
        if now.saturating_duration_since(self.awake) >= ASLEEP {
            for member in &mut self.members {
                member.evidence.begin_anew(now);
            }
            self.stalled_since = None;
        }
        self.awake = now;
        match input {
            Input::Seen(observation) => self.observe(&observation),
            Input::Stalled(since) => self.stalled_since = since,
            Input::Tick => {}
            Input::Ended(number, done) => {
                if number == self.number {
                    self.ended(done, now);
                }
            }
            Input::Asked(asked_by, order) => self.asked(asked_by, order, now),
        }
        if self.running.is_none() {
            self.advance(now);
        }
        std::mem::take(&mut self.outputs)
    }

    /// The servers as they are known.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether the primary has just fallen silent, so that everybody is to be asked more often than usual.
    pub fn is_alarmed(&self, now: Instant) -> bool {
        let silent_since = self
            .reign
            .as_ref()
            .and_then(|reign| self.member(reign.primary)?.evidence.silent_since());
        self.running.is_none()
            && silent_since.is_some_and(|since| now.saturating_duration_since(since) < ALARM)
    }

    /// The plan that is under way.
    pub fn plan(&self) -> Option<&Plan> {
        self.running.as_ref().map(|running| &running.plan)
    }

    /// The present reign, if there is one.
    pub fn reign(&self) -> Option<&Reign> {
        self.reign.as_ref()
    }

    pub(super) fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    pub(super) fn name(&self, id: ServerId) -> Arc<str> {
        let member = self.member(id);
        member.map_or_else(|| "unknown".into(), |member| Arc::clone(&member.name))
    }

    fn observe(&mut self, observation: &Observation) {
        let primary = self.reign.as_ref().map(|reign| reign.primary);
        let primary = primary.and_then(|id| self.member(id)).cloned();
        let Some(member) = self
            .members
            .iter_mut()
            .find(|member| member.id == observation.server)
        else {
            return;
        };
        if let Ok(facts) = &observation.result {
            member.saw(&Arc::new(facts.clone()), observation.asked_at);
        }
        let source = primary
            .as_ref()
            .filter(|primary| primary.id != member.id)
            .and_then(|primary| member.connection_to(primary))
            .cloned();
        if let (Ok(_), Some(source)) = (&observation.result, &source)
            && source.receiver == ThreadState::Running
        {
            member.connected_at = Some(observation.asked_at);
        }
        member.evidence.observe(observation, source.as_ref());
    }

    /// Whether another server answers at the primary's address.
    fn is_replaced(&self) -> bool {
        self.reign.as_ref().is_some_and(|reign| {
            let facts = self.member(reign.primary).and_then(Member::facts);
            facts.is_some_and(|facts| facts.identity() != reign.identity)
        })
    }

    fn advance(&mut self, now: Instant) {
        match &self.phase {
            Phase::Starting => {
                let all = self.members.iter().all(Member::answers);
                let waited = now.saturating_duration_since(self.begun) >= ROLL_CALL;
                if all || (waited && self.has_majority()) {
                    self.settle(now);
                }
            }
            Phase::New(_) => self.settle(now),
            Phase::Reigning => self.watch(now),
        }
    }

    /// Finds out who the primary is.
    fn settle(&mut self, now: Instant) {
        match standing(&self.members) {
            Standing::Settled(reign) | Standing::Interrupted(reign) if reign.epoch < self.known => {
                self.stay_new(format!(
                    "reign {} was known here, and the servers that answer know of {} only: its primary is waited for",
                    self.known, reign.epoch
                ));
            }
            Standing::Settled(reign) | Standing::Interrupted(reign) => {
                self.tell("state", format!(
                    "{} is the primary, in reign {}",
                    self.name(reign.primary),
                    reign.epoch
                ));
                let gate = self.gate(&reign);
                self.begin_reign(reign, gate);
            }
            Standing::Foreign(row) => self.stay_new(format!(
                "the row of reign {} in dbproxy.epoch names {}, which is none of the configured servers: configure it, or \
                 delete the row on the primary",
                row.epoch, row.primary
            )),
            Standing::New => {
                if !self.is_resting(now) {
                    self.adopt(now);
                }
            }
        }
    }

    /// Without a reign the topology is left as it is found.
    pub(super) fn stay_new(&mut self, why: String) {
        let phase = Phase::New(why.clone());
        if self.phase != phase {
            self.phase = phase;
            self.alarm("refused", why);
        }
    }

    pub(super) fn begin_reign(&mut self, reign: Reign, gate: Gate) {
        let same = self
            .reign
            .as_ref()
            .is_some_and(|known| known.primary == reign.primary);
        if !same {
            let primary = self.member(reign.primary).cloned();
            for member in &mut self.members {
                member.evidence.forget_source();
                let connection = primary
                    .as_ref()
                    .and_then(|primary| member.connection_to(primary));
                let connected =
                    connection.is_some_and(|found| found.receiver == ThreadState::Running);
                let seen = member.seen.as_ref().filter(|_| connected);
                member.connected_at = seen.map(|(_, asked_at)| *asked_at);
            }
        }
        self.decree(&reign, gate);
        self.reign = Some(reign);
        self.phase = Phase::Reigning;
        self.told.clear();
    }

    /// Says who the primary is, if that is news.
    fn decree(&mut self, reign: &Reign, gate: Gate) {
        let decree = Decree {
            primary: reign.primary,
            epoch: reign.epoch,
            gate,
        };
        if self.decreed.replace(decree) != Some(decree) {
            self.outputs.push(Output::Decree(decree));
        }
    }

    /// What is to be done while there is a primary and no plan.
    fn watch(&mut self, now: Instant) {
        let Some(reign) = self.reign.clone() else {
            return;
        };
        if let Standing::Settled(newer) | Standing::Interrupted(newer) = standing(&self.members)
            && newer.epoch > reign.epoch
        {
            // A promotion whose end nobody heard of, or that another proxy carried out.
            self.tell(
                "state",
                format!(
                    "{} is the primary, in reign {}",
                    self.name(newer.primary),
                    newer.epoch
                ),
            );
            let gate = self.gate(&newer);
            let members = self.members.iter_mut();
            for member in members.filter(|member| member.id == newer.primary) {
                // If it takes no writes, that is because nobody knew.
                member.restarted = !member.is_writable();
            }
            self.begin_reign(newer, gate);
            return;
        }
        if self.is_replaced() {
            let text = format!(
                "another server answers at the address of {}: it gets no writes",
                self.name(reign.primary)
            );
            self.once(text);
            self.decree(&reign, Gate::Closed);
            return;
        }
        self.decree(&reign, self.gate(&reign));
        if self
            .member(reign.primary)
            .is_some_and(|member| member.maintenance)
        {
            return;
        }
        let found = verdict(reign.primary, &self.members, self.stalled_since, now);
        self.note(&found, &reign);
        match found {
            Verdict::Dead(death, why) => self.dead(death, &why, &reign, now),
            // Until that is undone or finished nobody may write.
            // What its commits wait for may be what a repair brings back. And until an interrupted plan is undone or finished
            // nobody may write.
            Verdict::Alive | Verdict::Stalled
                if !self.is_resting(now) && (!self.frozen || self.is_interrupted(&reign)) =>
            {
                self.repair(&reign, now);
            }
            _ => {}
        }
    }

    fn note(&mut self, found: &Verdict, reign: &Reign) {
        if std::mem::discriminant(found) == std::mem::discriminant(&self.verdict) {
            return;
        }
        let name = self.name(reign.primary);
        let text = match found {
            Verdict::Alive => format!("{name} answers"),
            Verdict::Suspect => format!("{name} does not answer"),
            Verdict::Dead(death, why) => format!("{name} is dead: {death} ({why})"),
            Verdict::Refuses => {
                format!("{name} answers with an error: it lives, and is not replaced")
            }
            Verdict::Stalled => format!(
                "{name} answers, and completes no writes: see who holds a lock, whether its disk is full, and whether its \
                 replicas acknowledge"
            ),
            Verdict::LinkOnly(witness) => format!(
                "{name} does not answer here, but {witness} hears from it: only the way from here is broken"
            ),
            Verdict::Isolated => format!(
                "{name} does not answer, and too few others do: it may be this proxy that is cut off"
            ),
            Verdict::Network(_) => {
                format!("{name} and others fell silent together: the network is given time")
            }
        };
        self.outputs.push(Output::Tell(Entry {
            kind: "verdict",
            plan: None,
            text: format!("{}: {text}", found.name()),
            alarm: !matches!(found, Verdict::Alive | Verdict::Suspect),
        }));
        self.verdict = found.clone();
    }

    fn dead(&mut self, death: Death, why: &str, reign: &Reign, now: Instant) {
        let name = self.name(reign.primary);
        if self.policy.mode != Mode::Automatic {
            self.once(format!(
                "{name} is dead, and cluster.failover is manual: FAILOVER replaces it"
            ));
            return;
        }
        if self.frozen {
            self.once(format!(
                "{name} is dead, and failover is frozen: THAW, or FAILOVER, replaces it"
            ));
            return;
        }
        if let Err(text) = self.history.allows(death, now) {
            self.once(format!("{name} is dead, and is not replaced: {text}"));
            return;
        }
        let why = format!("{name} is dead: {death} ({why})");
        if let Err(text) = self.fail_over(why, None, false, None, now) {
            self.once(format!("{name} is dead, and is not replaced: {text}"));
        }
    }

    fn asked(&mut self, asked_by: u64, order: Order, now: Instant) {
        let reply = match order {
            Order::Status => Some(Ok(self.status(now))),
            Order::Freeze(frozen) => {
                self.frozen = frozen;
                if !frozen {
                    self.history.acknowledge();
                }
                self.told.clear();
                self.tell("state", if frozen { "frozen" } else { "thawed" }.to_owned());
                Some(Ok(match frozen {
                    true => "nothing is done without being asked, until THAW",
                    false => "failures of the primary are acted upon again",
                }
                .to_owned()))
            }
            Order::Maintenance(id, on) => Some(self.maintain(id, on)),
            Order::Plan(order) => Some(self.plan_only(&order, now)),
            _ if self.running.is_some() => {
                Some(Err("a plan is under way: wait for its end".to_owned()))
            }
            order => self.carry_out(order, asked_by, now).err().map(Err),
        };
        if let Some(reply) = reply {
            self.outputs.push(Output::Reply(asked_by, reply));
        }
    }

    fn maintain(&mut self, id: ServerId, on: bool) -> Reply {
        let name = self.name(id);
        if on && self.running.is_some() {
            return Err("a plan is under way: wait for its end".to_owned());
        }
        let member = self.members.iter_mut().find(|member| member.id == id);
        let member = member.ok_or("there is no such server")?;
        member.maintenance = on;
        self.tell(
            "state",
            format!("{name}: maintenance {}", if on { "on" } else { "off" }),
        );
        Ok(match on {
            true => {
                format!("{name} is left alone, and does not count, until MAINTENANCE {name} OFF")
            }
            false => format!("{name} is looked after again"),
        })
    }

    /// The plan that an order would begin with what is known now. Nothing is changed.
    fn plan_only(&self, order: &Order, now: Instant) -> Reply {
        let mut copy = self.clone();
        copy.outputs.clear();
        copy.running = None;
        copy.carry_out(order.clone(), 0, now)?;
        let plan = copy.running.map(|running| running.plan);
        let plan = plan.ok_or("there is nothing to be done")?;
        Ok(plan.describe(|id| self.name(id)))
    }

    fn carry_out(&mut self, order: Order, asked_by: u64, now: Instant) -> Result<(), String> {
        match order {
            Order::Switchover { to, drain } => self.switch_over(to, drain, asked_by),
            Order::Failover { to, accept_loss } => self.fail_over(
                "an operator wants it".to_owned(),
                to,
                accept_loss,
                Some(asked_by),
                now,
            ),
            Order::Rejoin(id) => self.rejoin(id, asked_by),
            _ => Err("there is nothing to plan".to_owned()),
        }
    }

    fn status(&self, now: Instant) -> String {
        let mut text = match (&self.phase, &self.reign) {
            (Phase::Starting, _) => "waiting to hear of all servers\n".to_owned(),
            (Phase::New(why), _) => format!("no primary is counted: {why}\n"),
            (_, Some(reign)) => format!(
                "primary {} in reign {}: {}\n",
                self.name(reign.primary),
                reign.epoch,
                self.verdict.name()
            ),
            (_, None) => "no primary\n".to_owned(),
        };
        if let Some(running) = &self.running {
            let step = running.plan.steps.get(running.at);
            let step = step.map(|step| step.act.to_string()).unwrap_or_default();
            text.push_str(&format!("{} is under way: {step}\n", running.plan.name));
        }
        if self.frozen {
            text.push_str("frozen: nothing is done without being asked, until THAW\n");
        }
        if let Some(until) = self.rest_until.filter(|until| *until > now) {
            let left = until.saturating_duration_since(now).as_secs() + 1;
            text.push_str(&format!(
                "the last plan failed; the next try is in {left} s\n"
            ));
        }
        for member in &self.members {
            let state = match (
                member.maintenance,
                member.evidence.answers(),
                &member.diverged,
            ) {
                (true, ..) => "maintenance".to_owned(),
                (_, false, _) => "does not answer".to_owned(),
                (_, _, Some(why)) => format!("diverged: {why}"),
                _ if member.is_writable() => "takes writes".to_owned(),
                _ => "read-only".to_owned(),
            };
            let has = member.has().map(|has| has.to_string()).unwrap_or_default();
            text.push_str(&format!("{}: {state}; has {has}\n", member.name));
        }
        if !self.told.is_empty() {
            text.push_str(&format!("{}\n", self.told));
        }
        text
    }

    // --- words for the steps

    /// So many servers have to have the number of a reign: a majority of three or more; of two the one that is left.
    pub(super) fn quorum(&self) -> usize {
        let counted = self
            .members
            .iter()
            .filter(|member| !member.maintenance)
            .count();
        match counted {
            0..=2 => 1,
            more => more / 2 + 1,
        }
    }

    pub(super) fn has_majority(&self) -> bool {
        let answering = self.members.iter().filter(|member| member.answers());
        answering.count() >= self.quorum()
    }

    pub(super) fn next_epoch(&self) -> u64 {
        let reign = self.reign.as_ref().map_or(0, |reign| reign.epoch);
        highest(&self.members).max(reign) + 1
    }

    pub(super) fn is_interrupted(&self, reign: &Reign) -> bool {
        highest(&self.members) > reign.epoch
    }

    /// A plan that was interrupted may have got further than anybody heard: what is written meanwhile could be lost to it.
    pub(super) fn gate(&self, reign: &Reign) -> Gate {
        match self.is_interrupted(reign) {
            true => Gate::Closed,
            false => Gate::Open,
        }
    }

    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.rest_until.is_some_and(|until| until > now)
    }

    pub(super) fn start(&mut self, running: Running) {
        let plan = &running.plan;
        self.outputs.push(Output::Tell(Entry {
            kind: "plan",
            plan: Some(plan.name.clone()),
            text: plan.describe(|id| self.name(id)),
            alarm: matches!(plan.purpose, super::plan::Purpose::Failover),
        }));
        self.running = Some(running);
        self.run_step();
    }

    /// Gives out the step that is next.
    pub(super) fn run_step(&mut self) {
        let Some(running) = &self.running else {
            return;
        };
        let Some(step) = running.plan.steps.get(running.at).cloned() else {
            return;
        };
        let plan = running.plan.name.clone();
        self.number += 1;
        let gate = match step.act {
            super::plan::Act::Pause(_) => Some(Gate::Draining),
            super::plan::Act::Close => Some(Gate::Closed),
            _ => None,
        };
        if let (Some(gate), Some(reign)) = (gate, self.reign.clone()) {
            self.decree(&reign, gate);
        }
        self.outputs.push(Output::Run {
            number: self.number,
            plan,
            step,
        });
    }

    pub(super) fn tell(&mut self, kind: &'static str, text: String) {
        self.entry(kind, text, false);
    }

    pub(super) fn alarm(&mut self, kind: &'static str, text: String) {
        self.entry(kind, text, true);
    }

    fn entry(&mut self, kind: &'static str, text: String, alarm: bool) {
        let plan = self
            .running
            .as_ref()
            .map(|running| running.plan.name.clone());
        self.outputs.push(Output::Tell(Entry {
            kind,
            plan,
            text,
            alarm,
        }));
    }

    /// Tells why something is not done, unless that was said last.
    pub(super) fn once(&mut self, text: String) {
        if self.told != text {
            self.told.clone_from(&text);
            self.alarm("refused", text);
        }
    }
}
