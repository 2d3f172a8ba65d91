//! How plans begin: which steps, for which servers.

use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::gtid::Position;
use tokio::time::Instant;

use super::action::Action;
use super::candidate::{Choice, Question, Refusal, choose, errant};
use super::evidence::Death;
use super::machine::{AGAIN, Failover, Running};
use super::member::Member;
use super::plan::{Act, Hook, Job, Need, Plan, Purpose, Step};
use super::policy::Mode;
use super::reign::Reign;
use crate::config::ServerAddress;
use crate::topology::{ServerFacts, ServerId, SourceFacts, ThreadState};

/// An old primary that does not answer is tried for no longer than this before its successor is opened.
const FENCE: Duration = Duration::from_secs(2);
/// To end connections and to wait for statements that run.
const FREEZE: Duration = Duration::from_secs(8);

impl Failover {
    /// Counts a primary that was there already: the first reign.
    pub(super) fn adopt(&mut self, now: Instant) {
        let writable: Vec<&Member> = self
            .members
            .iter()
            .filter(|member| member.answers() && member.is_writable())
            .collect();
        let silent = self.members.iter().find(|member| !member.answers());
        let primary = match (writable.as_slice(), silent) {
            (_, Some(silent)) => {
                let text = format!(
                    "{} does not answer, and without it nobody knows that there is one primary",
                    silent.name
                );
                return self.stay_new(text);
            }
            ([], _) => {
                return self.stay_new(
                    "no server takes writes: open the one that is to be the primary".to_owned(),
                );
            }
            ([one, other, ..], _) => {
                let text = format!(
                    "{} and {} both take writes: set read_only=ON on all but the primary",
                    one.name, other.name
                );
                return self.stay_new(text);
            }
            ([primary], None) => primary.id,
        };
        let epoch = self.next_epoch();
        let steps = vec![
            self.ballot(epoch, None),
            crown(primary, epoch, Purpose::Adopt, Vec::new()),
            Step::own(Act::Publish),
        ];
        let why = format!(
            "{} is the primary, and nobody counted yet",
            self.name(primary)
        );
        let plan = plan(
            Purpose::Adopt,
            why,
            epoch,
            Some(primary),
            Some(primary),
            steps,
        );
        self.rest_until = Some(now + AGAIN);
        self.start(Running::new(plan, None));
    }

    /// Replaces the primary, which is dead, or which an operator wants to be replaced whatever it does.
    ///
    /// Errors: why nobody can be promoted. Nothing was begun.
    pub(super) fn fail_over(
        &mut self,
        why: String,
        wanted: Option<ServerId>,
        accept_loss: bool,
        asked_by: Option<u64>,
        now: Instant,
    ) -> Result<(), String> {
        if self.is_resting(now) && asked_by.is_none() {
            return Ok(());
        }
        let reign = self.reign.clone().ok_or("no primary is counted yet")?;
        let old = reign.primary;
        if wanted == Some(old) {
            return Err(format!("{} is the primary", self.name(old)));
        }
        let failed_since = self
            .member(old)
            .and_then(|member| member.evidence.silent_since());
        let has_fence = self.policy.hooks.fence && failed_since.is_some();
        if !self.has_majority() && !has_fence {
            return Err("too few servers answer".to_owned());
        }
        let mut running = Running::new(
            plan(
                Purpose::Failover,
                why,
                self.next_epoch(),
                Some(old),
                None,
                Vec::new(),
            ),
            asked_by,
        );
        running.wanted = wanted;
        running.accept_loss = accept_loss;
        running.failed_since = failed_since;
        let choice = self
            .choice(&running)
            .map_err(|refusal| refusal.to_string())?;
        let epoch = running.plan.epoch;
        let steps = &mut running.plan.steps;
        steps.push(Step::own(Act::Close));
        if has_fence {
            steps.push(self.hook(Hook::Fence));
        }
        let mut ballot = self.ballot(epoch, Some(old));
        if !self.has_majority() {
            ballot.need = Need::Some(ballot.jobs.len().max(1));
        }
        steps.push(ballot);
        if failed_since.is_none() || self.member(old).is_some_and(Member::answers) {
            steps.push(self.fence(old));
        }
        steps.push(self.revoke(old));
        running.plan.new = Some(choice.server);
        running
            .plan
            .steps
            .extend(self.succession(&running, &choice));
        self.start(running);
        Ok(())
    }

    /// Whom a failover promotes, by what is known now.
    pub(super) fn choice(&self, running: &Running) -> Result<Choice, Refusal> {
        let Some(reign) = &self.reign else {
            return Err(Refusal::Nobody(Vec::new()));
        };
        choose(&Question {
            old: reign.primary,
            members: &self.members,
            acknowledged: self.acknowledged.as_ref(),
            failed_since: running.failed_since,
            wanted: running.wanted,
            planned: running.plan.purpose == Purpose::Switchover,
            accept_loss: running.accept_loss,
            epoch: reign.epoch,
            policy: &self.policy,
        })
    }

    /// The steps that make the chosen server the primary.
    pub(super) fn succession(&self, running: &Running, choice: &Choice) -> Vec<Step> {
        let plan = &running.plan;
        let mut steps = vec![apply(choice.server, &choice.to_apply, self.policy.apply)];
        if self.policy.hooks.before_promote {
            steps.push(self.hook(Hook::BeforePromote));
        }
        steps.push(self.promote(choice.server, plan.old, plan.epoch, plan.purpose));
        steps.push(Step::own(Act::Publish));
        if self.policy.hooks.after_promote {
            steps.push(self.hook(Hook::AfterPromote));
        }
        steps
    }

    fn hook(&self, hook: Hook) -> Step {
        let need = match hook {
            // Where too few servers can be asked, nothing else proves that the old primary takes no writes.
            Hook::Fence if !self.has_majority() => Need::All,
            Hook::BeforePromote => Need::All,
            Hook::Fence | Hook::AfterPromote => Need::Try,
        };
        Step::on(Act::Hook(hook), need, Vec::new()).within(self.policy.hooks.timeout)
    }

    pub(super) fn promote(
        &self,
        server: ServerId,
        old: Option<ServerId>,
        epoch: u64,
        purpose: Purpose,
    ) -> Step {
        let member = self.member(server);
        let old = old.and_then(|old| self.member(old));
        let mut actions = Vec::new();
        let peers = member.zip(old).is_some_and(|(member, old)| {
            old.connection_to(member).is_some() && member.connection_to(old).is_some()
        });
        match (peers, purpose) {
            // In a ring both go on to replicate from each other: the old primary takes no writes any more.
            (true, Purpose::Switchover) => {}
            // What a dead primary did not hand on must not come in when it is back, before somebody has looked at it.
            (true, _) => actions.push(Action::StopReplication),
            (false, _) => actions.extend([Action::StopReplication, Action::ForgetSource]),
        }
        let (waits, followers) = match self.guards(server, old) {
            Guards::Enough(followers) => (Some(true), followers),
            Guards::TooFew => (Some(false), Vec::new()),
            Guards::None => (None, Vec::new()),
        };
        actions.extend(waits.map(|source| Action::SemiSync { source }));
        actions.extend([Action::Offline(false), Action::AcceptWrites]);
        let mut step = crown(server, epoch, purpose, actions);
        step.jobs.extend(followers);
        step
    }

    /// With semi-synchronous replication the first commit of a reign waits for replicas as well: they follow at the same time.
    pub(super) fn guards(&self, new: ServerId, old: Option<&Member>) -> Guards {
        let Some((new, semi_sync)) = self
            .member(new)
            .and_then(|new| Some((new, new.facts()?.semi_sync)))
        else {
            return Guards::None;
        };
        let old_waited = old
            .and_then(Member::facts)
            .map(|facts| facts.semi_sync.source);
        if !semi_sync.source && !old_waited.unwrap_or(semi_sync.replica) {
            return Guards::None;
        }
        let followers: Vec<Job> = self
            .members
            .iter()
            .filter(|member| member.id != new.id && old.is_none_or(|old| member.id != old.id))
            .filter(|member| member.answers() && member.diverged.is_none() && is_quiet(member))
            .filter(|member| {
                let follows = |source| member.connection_to(source).is_some();
                old.is_some_and(follows) || follows(new)
            })
            .filter(|member| {
                let all = member.has().zip(new.has());
                all.is_some_and(|(theirs, ours)| ours.covers(&theirs))
                    && surplus(member, new).is_none()
            })
            .filter_map(|member| {
                let mut actions = vec![Action::RefuseWrites, Action::StopReplication];
                actions.extend([
                    Action::SemiSync { source: false },
                    source(member, new, false).ok()?,
                ]);
                actions.extend([Action::StartReplication, Action::Look]);
                Some(Job::new(member.id, actions))
            })
            .collect();
        match u32::try_from(followers.len()).is_ok_and(|count| count >= semi_sync.wait_for.max(1)) {
            true => Guards::Enough(followers),
            false => Guards::TooFew,
        }
    }

    fn ballot(&self, epoch: u64, besides: Option<ServerId>) -> Step {
        let jobs = self
            .members
            .iter()
            .filter(|member| member.answers() && Some(member.id) != besides);
        let jobs = jobs.map(|member| Job::new(member.id, [Action::Ballot(epoch), Action::Look]));
        Step::on(Act::Ballot, Need::Some(self.quorum()), jobs.collect())
    }

    fn fence(&self, server: ServerId) -> Step {
        let mut actions = vec![Action::Offline(true), Action::Expel];
        let facts = self.member(server).and_then(Member::facts);
        if facts.is_some_and(|facts| facts.semi_sync.source) {
            // Behind commits that wait for replicas it could not be made read-only. Nobody hears any more that they are done.
            actions.push(Action::SemiSync { source: false });
        }
        actions.extend([Action::RefuseWrites, Action::Expel, Action::Look]);
        Step::on(Act::Fence, Need::Try, vec![Job::new(server, actions)]).within(FENCE)
    }

    fn revoke(&self, old: ServerId) -> Step {
        let replicas = self.members.iter().filter(|member| {
            let old = self.member(old);
            member.answers()
                && old.is_some_and(|old| member.id != old.id && member.connection_to(old).is_some())
        });
        // In this order: a relay log is lost on MariaDB when both threads have stopped.
        let actions = [Action::StartApplier, Action::StopReceiver, Action::Look];
        let jobs: Vec<Job> = replicas
            .map(|member| Job::new(member.id, actions.clone()))
            .collect();
        Step::on(Act::Revoke, Need::Some(jobs.len().min(1)), jobs)
    }

    /// Changes the primary with nothing lost, and nothing refused outside of long transactions.
    pub(super) fn switch_over(
        &mut self,
        to: Option<ServerId>,
        drain: Option<Duration>,
        asked_by: u64,
    ) -> Result<(), String> {
        let reign = self.reign.clone().ok_or("no primary is counted yet")?;
        let old = reign.primary;
        if to == Some(old) {
            return Err(format!("{} is the primary already", self.name(old)));
        }
        let member = self.member(old).ok_or("the primary is not configured")?;
        if !member.answers() || !member.is_writable() {
            return Err(format!(
                "{} does not answer or takes no writes: FAILOVER replaces it",
                member.name
            ));
        }
        if !self.has_majority() {
            return Err("too few servers answer".to_owned());
        }
        let mut running = Running::new(
            plan(
                Purpose::Switchover,
                "an operator wants it".to_owned(),
                self.next_epoch(),
                Some(old),
                None,
                Vec::new(),
            ),
            Some(asked_by),
        );
        running.wanted = to;
        let choice = self
            .choice(&running)
            .map_err(|refusal| refusal.to_string())?;
        let new = self
            .member(choice.server)
            .ok_or("the candidate is not configured")?;
        if !new.follows(member) {
            return Err(format!(
                "{} does not replicate from {} just now",
                new.name, member.name
            ));
        }
        let is_ring = member.connection_to(new).is_some();
        if !is_ring && !self.policy.credentials {
            return Err(format!(
                "{} could not be made a replica: set cluster.replication_user and cluster.replication_password",
                member.name
            ));
        }
        let epoch = running.plan.epoch;
        let drain = drain.unwrap_or(self.policy.drain);
        let freeze = [Action::RefuseWrites, Action::Expel, Action::Look];
        running.plan.new = Some(choice.server);
        running.plan.steps = vec![
            self.ballot(epoch, None),
            Step::own(Act::Pause(drain)),
            Step::own(Act::Close),
            Step::on(Act::Freeze, Need::All, vec![Job::new(old, freeze)]).within(FREEZE),
        ];
        running
            .plan
            .steps
            .extend(self.succession(&running, &choice));
        self.start(running);
        Ok(())
    }

    /// The primary goes on, in a reign of its own: what an interrupted plan did is undone.
    pub(super) fn reopen(&mut self, reign: &Reign, why: String, asked_by: Option<u64>) {
        let primary = reign.primary;
        let epoch = self.next_epoch();
        let mut steps = vec![self.ballot(epoch, None)];
        let stopped: Vec<Job> = self
            .members
            .iter()
            .filter(|member| self.is_stopped_replica(member, primary))
            .map(|member| Job::new(member.id, [Action::StartApplier, Action::StartReplication]))
            .collect();
        if !stopped.is_empty() {
            steps.push(Step::on(Act::Undo, Need::Try, stopped));
        }
        let mut actions = vec![Action::Offline(false), Action::AcceptWrites];
        if !self.is_guarded(primary) {
            actions.insert(0, Action::SemiSync { source: false });
            let text = format!(
                "commits on {} wait for no replica until enough of them follow it: what it acknowledges is on it alone",
                self.name(primary)
            );
            self.alarm("state", text);
        }
        steps.push(crown(primary, epoch, Purpose::Reopen, actions));
        steps.push(Step::own(Act::Publish));
        let plan = plan(
            Purpose::Reopen,
            why,
            epoch,
            Some(primary),
            Some(primary),
            steps,
        );
        self.start(Running::new(plan, asked_by));
    }

    /// Whether a commit of the primary, if it is to wait for replicas, will be acknowledged by some.
    fn is_guarded(&self, primary: ServerId) -> bool {
        let Some((member, semi_sync)) = self
            .member(primary)
            .and_then(|member| Some((member, member.facts()?.semi_sync)))
        else {
            return true;
        };
        let follows = |other: &&Member| {
            other.id != primary
                && other.answers()
                && other.connection_to(member).is_some()
                && errant(other, member, &self.members).is_none()
        };
        // They come back by themselves; unless something waits for them already.
        let expected = match semi_sync.waiting {
            0 => u32::try_from(self.members.iter().filter(follows).count()).unwrap_or(u32::MAX),
            _ => 0,
        };
        !semi_sync.source || semi_sync.clients.max(expected) >= semi_sync.wait_for
    }

    fn is_stopped_replica(&self, member: &Member, primary: ServerId) -> bool {
        let connection = self
            .member(primary)
            .filter(|primary| primary.id != member.id && member.answers())
            .and_then(|primary| member.connection_to(primary));
        connection.is_some_and(|connection| connection.receiver == ThreadState::Stopped)
    }

    /// Sees to it that everything but the primary is read-only and follows it. One thing at a time.
    pub(super) fn repair(&mut self, reign: &Reign, now: Instant) {
        let Some(primary) = self.member(reign.primary) else {
            return;
        };
        let (name, writable) = (primary.name.clone(), primary.is_writable());
        let primary = primary.clone();
        let stray = self
            .members
            .iter()
            .find(|member| member.id != reign.primary && member.answers() && member.is_writable());
        if let Some(stray) = stray {
            let why = format!("{} takes writes, and {name} is the primary", stray.name);
            let id = stray.id;
            let step = Step {
                need: Need::All,
                ..self.fence(id).within(FREEZE)
            };
            let plan = plan(Purpose::Fence, why, reign.epoch, None, Some(id), vec![step]);
            return self.start(Running::new(plan, None));
        }
        if self.is_interrupted(reign) {
            let why = format!("a plan did not come to its end, and {name} lives");
            return self.reopen(reign, why, None);
        }
        if !writable {
            return self.read_only_primary(reign, &primary, now);
        }
        if primary.facts().is_some_and(is_unguarded) {
            return self.guard(reign, &primary);
        }
        self.follow_primary(reign, &primary, now);
    }

    /// A primary that was restarted comes back read-only, as it should: it goes on, unless somebody has more than it.
    fn read_only_primary(&mut self, reign: &Reign, primary: &Member, now: Instant) {
        let restarted = primary.restarted;
        let ahead = self.members.iter().find(|member| {
            member.id != primary.id
                && member.diverged.is_none()
                && member.connection_to(primary).is_some()
                && errant(member, primary, &self.members).is_none()
                && matches!((primary.has(), member.has()), (Some(has), Some(theirs)) if !has.covers(&theirs))
        });
        match (restarted, ahead) {
            (true, None) => {
                let why = format!(
                    "{} was restarted, and nobody has more than it",
                    primary.name
                );
                self.reopen(reign, why, None);
            }
            (true, Some(ahead)) if self.policy.mode == Mode::Automatic => {
                let why = format!(
                    "{} came back without what {} has of it",
                    primary.name, ahead.name
                );
                let refused = self.history.allows(Death::Process, now).err();
                let refused =
                    refused.or_else(|| self.fail_over(why.clone(), None, false, None, now).err());
                if let Some(text) = refused {
                    self.once(format!("{why}, and is not replaced: {text}"));
                }
            }
            (true, Some(ahead)) => {
                let text = format!(
                    "{} came back without what {} has of it, and takes no writes: FAILOVER TO {} goes on with that",
                    primary.name, ahead.name, ahead.name
                );
                self.once(text);
            }
            (false, _) => {
                let text = format!(
                    "{} is read-only, which was not done here: it stays so. MAINTENANCE {} ON if that is meant; SWITCHOVER \
                     needs it writable",
                    primary.name, primary.name
                );
                self.once(text);
            }
        }
    }

    /// Its commits wait for replicas again.
    fn guard(&mut self, reign: &Reign, primary: &Member) {
        let why = format!("enough replicas follow {} to acknowledge", primary.name);
        let job = Job::new(
            primary.id,
            [Action::SemiSync { source: true }, Action::Look],
        );
        let steps = vec![Step::on(Act::Guard, Need::All, vec![job])];
        let plan = plan(
            Purpose::Guard,
            why,
            reign.epoch,
            None,
            Some(primary.id),
            steps,
        );
        self.start(Running::new(plan, None));
    }

    /// In a ring the primary replicates from its peer again, when that has nothing that could come back by it.
    fn close_ring(&mut self, reign: &Reign, primary: &Member, now: Instant) -> bool {
        let peer = self.members.iter().find(|peer| {
            let stopped = primary.connection_to(peer).is_some_and(is_stopped);
            let sound = peer.answers() && peer.evidence.is_settled(now) && peer.diverged.is_none();
            stopped
                && sound
                && is_quiet(peer)
                && peer.follows(primary)
                && primary.is_seen_after(peer)
                && surplus(peer, primary).is_none()
        });
        let Some(peer) = peer else {
            return false;
        };
        let why = format!(
            "{} has nothing that {} does not have",
            peer.name, primary.name
        );
        self.restart(reign, primary.id, why, None);
        true
    }

    fn follow_primary(&mut self, reign: &Reign, primary: &Member, now: Instant) {
        if !self.policy.rejoin || self.close_ring(reign, primary, now) {
            return;
        }
        let astray = self.members.iter().find(|member| {
            member.id != primary.id
                && member.answers()
                && member.evidence.is_settled(now)
                && member.diverged.is_none()
                && (primary.is_seen_after(member) || surplus(member, primary).is_none())
                && self.is_astray(member, primary)
        });
        let Some(member) = astray else {
            return;
        };
        let id = member.id;
        let begun =
            match member.connection_to(primary).is_some() && surplus(member, primary).is_none() {
                true => {
                    let why = format!("{} was left without {}", member.name, primary.name);
                    self.restart(reign, id, why, None);
                    Ok(())
                }
                false => self.follow(reign, id, None),
            };
        if let Err(text) = begun {
            self.once(text);
        }
    }

    /// Lets a server replicate from the source that it has.
    fn restart(&mut self, reign: &Reign, id: ServerId, why: String, asked_by: Option<u64>) {
        let actions = [
            Action::StartReplication,
            Action::AwaitReplication,
            Action::Look,
        ];
        let step = Step::on(Act::Follow, Need::All, vec![Job::new(id, actions)]);
        let plan = plan(
            Purpose::Repoint,
            why,
            reign.epoch,
            None,
            Some(id),
            vec![step],
        );
        self.start(Running::new(plan, asked_by));
    }

    /// Whether it gets nothing from the primary, over others or not, though nobody has stopped that.
    fn is_astray(&self, member: &Member, primary: &Member) -> bool {
        if let Some(connection) = member.connection_to(primary) {
            let is_ring = primary.connection_to(member).is_some();
            return is_left_behind(member, connection) || is_ring && is_stopped(connection);
        }
        let over_others = self.members.iter().any(|other| {
            other.id != member.id
                && other.answers()
                && member
                    .connection_to(other)
                    .is_some_and(|connection| connection.receiver != ThreadState::Stopped)
                && other.connection_to(primary).is_some()
        });
        !over_others
    }

    /// Makes a server follow the primary, if it has nothing that the primary does not have.
    ///
    /// Errors: why not. Nothing was begun.
    pub(super) fn follow(
        &mut self,
        reign: &Reign,
        id: ServerId,
        asked_by: Option<u64>,
    ) -> Result<(), String> {
        let primary = self.member(reign.primary).ok_or("there is no primary")?;
        let member = self.member(id).ok_or("there is no such server")?;
        let name = Arc::clone(&member.name);
        if surplus(member, primary).is_some() {
            if !primary.is_seen_after(member) {
                return Err(format!("{} has to answer first", primary.name));
            }
            return self.compare(id);
        }
        if !is_quiet(member) {
            return Err(format!(
                "{name} takes writes, or has some that wait for replicas: it has to be fenced first"
            ));
        }
        let was_primary = member.facts().is_some_and(|facts| facts.sources.is_empty());
        if was_primary && !self.policy.credentials {
            return Err(format!(
                "{name} has no source, and dbproxy no account for it: set cluster.replication_user and \
                 cluster.replication_password"
            ));
        }
        let mut detach = vec![Action::RefuseWrites];
        if !was_primary {
            detach.push(Action::StopReplication);
        }
        detach.push(Action::Look);
        let compare = Job::new(primary.id, [Action::Look]);
        let mut actions = Vec::new();
        let semi_sync = primary.facts().is_some_and(|facts| facts.semi_sync.source);
        if semi_sync {
            actions.push(Action::SemiSync { source: false });
        }
        actions.extend([
            source(member, primary, was_primary)?,
            Action::StartReplication,
            Action::AwaitReplication,
            Action::Offline(false),
            Action::Look,
        ]);
        let purpose = match was_primary {
            true => Purpose::Rejoin,
            false => Purpose::Repoint,
        };
        let why = format!("{name} is to follow {}", primary.name);
        let steps = vec![
            Step::on(Act::Detach, Need::All, vec![Job::new(id, detach)]).within(FREEZE),
            Step::on(Act::Compare, Need::All, vec![compare]),
            Step::on(Act::Follow, Need::All, vec![Job::new(id, actions)]).within(FREEZE),
        ];
        let plan = plan(purpose, why, reign.epoch, None, Some(id), steps);
        self.start(Running::new(plan, asked_by));
        Ok(())
    }

    /// Errors: the server has what the primary does not have, and is left alone from now on.
    pub(super) fn compare(&mut self, id: ServerId) -> Result<(), String> {
        let primary = self.reign.as_ref().map(|reign| reign.primary);
        let primary = primary.and_then(|primary| self.member(primary));
        let Some((member, primary)) = self.member(id).zip(primary) else {
            return Ok(());
        };
        let Some(surplus) = surplus(member, primary) else {
            return Ok(());
        };
        let text = format!(
            "{} has transactions that {} does not have: {surplus}. It gets no traffic; save what counts of them, make it anew \
             from a copy of {}, then REJOIN {}",
            member.name, primary.name, primary.name, member.name
        );
        let members = self.members.iter_mut();
        for member in members.filter(|member| member.id == id) {
            member.diverged = Some(text.as_str().into());
        }
        Err(text)
    }

    /// An operator says that a server may follow the primary again.
    pub(super) fn rejoin(&mut self, id: ServerId, asked_by: u64) -> Result<(), String> {
        let reign = self.reign.clone().ok_or("no primary is counted yet")?;
        if id == reign.primary {
            return Err(format!("{} is the primary", self.name(id)));
        }
        let member = self.members.iter_mut().find(|member| member.id == id);
        let member = member.ok_or("there is no such server")?;
        if !member.answers() {
            return Err(format!(
                "{} does not answer, or is in maintenance",
                member.name
            ));
        }
        member.diverged = None;
        // An operator may have made it anew: what it had before does not count.
        member.remembered = member.has();
        let pair = self.member(id).zip(self.member(reign.primary));
        let is_there = pair.is_some_and(|(member, primary)| {
            member.connection_to(primary).is_some() && surplus(member, primary).is_none()
        });
        if is_there {
            let why = "an operator wants it".to_owned();
            self.restart(&reign, id, why, Some(asked_by));
            return Ok(());
        }
        self.follow(&reign, id, Some(asked_by))
    }
}

impl Running {
    pub(super) fn new(plan: Plan, asked_by: Option<u64>) -> Self {
        Self {
            plan,
            at: 0,
            automatic: asked_by.is_none(),
            asked_by,
            accept_loss: false,
            wanted: None,
            revoked: Vec::new(),
            failed_since: None,
            crowned: false,
        }
    }
}

fn plan(
    purpose: Purpose,
    why: String,
    epoch: u64,
    old: Option<ServerId>,
    new: Option<ServerId>,
    steps: Vec<Step>,
) -> Plan {
    Plan {
        name: format!("{purpose}-{epoch}"),
        purpose,
        why,
        epoch,
        old,
        new,
        steps,
    }
}

/// Whether commits of a new primary can wait for replicas.
pub(super) enum Guards {
    /// They are not to.
    None,
    /// These follow it at once.
    Enough(Vec<Job>),
    /// They are to, and nobody would acknowledge.
    TooFew,
}

/// What makes `primary` the source of a server.
fn source(member: &Member, primary: &Member, demoted: bool) -> Result<Action, String> {
    match &primary.address {
        ServerAddress::Tcp { host, port } => Ok(Action::Follow {
            host: host.clone(),
            port: *port,
            demoted,
        }),
        ServerAddress::Unix(_) => Err(format!(
            "{} cannot follow {}, which is configured by a unix socket",
            member.name, primary.name
        )),
    }
}

/// The step behind which nothing is undone.
fn crown(server: ServerId, epoch: u64, purpose: Purpose, mut actions: Vec<Action>) -> Step {
    actions.extend([
        Action::Crown {
            epoch,
            plan: format!("{purpose}-{epoch}"),
        },
        Action::Look,
    ]);
    Step::on(Act::Promote, Need::All, vec![Job::new(server, actions)])
}

pub(super) fn apply(server: ServerId, position: &Position, within: Duration) -> Step {
    let actions = [Action::Await(position.clone()), Action::Look];
    Step::on(Act::Apply, Need::All, vec![Job::new(server, actions)]).within(within)
}

/// Whether nothing is written to it, and nothing comes up that it does not show yet.
fn is_quiet(member: &Member) -> bool {
    let facts = member.facts();
    facts.is_some_and(|facts| facts.write_block.is_some() && facts.semi_sync.waiting == 0)
}

/// Whether a plan that was interrupted stopped its receiver, or set its source and did not start it.
fn is_left_behind(member: &Member, connection: &SourceFacts) -> bool {
    let revoked = member.facts().is_some_and(|facts| {
        let row = facts.epoch.as_ref();
        row.is_some_and(|row| facts.ballot > row.epoch)
    });
    let never_started = connection.applier == ThreadState::Stopped
        && connection.uuid.is_none()
        && connection.server_id.is_none();
    is_stopped(connection) && (revoked || never_started)
}

/// Whether its receiver was stopped, and not by an error.
fn is_stopped(connection: &SourceFacts) -> bool {
    connection.receiver == ThreadState::Stopped
        && connection.contact.is_none()
        && connection.applier_error.is_none()
}

/// Whether a primary was left without replicas that acknowledge, and now has them.
fn is_unguarded(facts: &ServerFacts) -> bool {
    let semi_sync = &facts.semi_sync;
    semi_sync.replica && !semi_sync.source && semi_sync.clients >= semi_sync.wait_for.max(1)
}

/// What a server has that the primary does not have.
fn surplus(member: &Member, primary: &Member) -> Option<String> {
    let (theirs, ours) = (member.facts()?, primary.facts()?);
    if let (Some(theirs), Some(ours)) = (&theirs.history, &ours.history) {
        // MariaDB tells the last number of each server in each domain: exact where a position is not.
        let surplus = theirs.beyond(ours);
        return (!surplus.is_empty()).then(|| surplus.to_string());
    }
    let (theirs, ours) = (theirs.executed.as_deref()?, ours.executed.as_deref()?);
    (!ours.covers(theirs)).then(|| theirs.since(ours).to_string())
}
