//! How plans go on when a step has ended, and how they end.

use std::sync::Arc;

use tokio::time::Instant;

use super::action::Action;
use super::begin::Guards;
use super::machine::{AGAIN, Entry, Failover, Output, Running};
use super::plan::{Act, Done, Job, Need, Plan, Purpose, Step};
use super::reign::Reign;
use crate::topology::{Gate, ServerFacts, ServerId};

impl Failover {
    /// Takes in what became of the step that was given out.
    pub(super) fn ended(&mut self, done: Done, now: Instant) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        for report in &done.reports {
            if let Some(facts) = &report.facts
                && let Some(member) = self
                    .members
                    .iter_mut()
                    .find(|member| member.id == report.server)
            {
                member.saw(facts, now);
            }
        }
        if let Some(acknowledged) = &done.acknowledged {
            self.acknowledged = Some(acknowledged.clone());
        }
        let Some(step) = running.plan.steps.get(running.at).cloned() else {
            return;
        };
        let judged = step.judge(&done);
        let went = match (&step.act, judged) {
            (Act::Promote, judged) => self.promoted(&mut running, &done, judged),
            (Act::Hook(_), Err(text)) if step.need == Need::Try => {
                self.running = Some(running.clone());
                self.alarm("step", format!("{}: {text}", step.act));
                Ok(())
            }
            (_, Err(text)) => Err(text),
            (Act::Ballot, Ok(())) => self.outvoted(&running, &done),
            (Act::Revoke, Ok(())) => self.revoked(&mut running, &done),
            (Act::Freeze, Ok(())) => self.frozen_at(&mut running, &done),
            (Act::Apply, Ok(())) => {
                self.applied(&mut running);
                Ok(())
            }
            (Act::Compare, Ok(())) => running.plan.new.map_or(Ok(()), |id| self.compare(id)),
            (Act::Publish, Ok(())) => {
                self.publish(&running, now);
                Ok(())
            }
            (_, Ok(())) => Ok(()),
        };
        if let Err(text) = went {
            return self.failed(running, &step, &text, now);
        }
        running.at += 1;
        let finished = running.at >= running.plan.steps.len();
        self.running = Some(running);
        match finished {
            true => self.finish(Ok(()), now),
            false => self.run_step(),
        }
    }

    /// Somebody else has put a higher number down.
    fn outvoted(&self, running: &Running, done: &Done) -> Result<(), String> {
        let facts = done
            .reports
            .iter()
            .filter_map(|report| report.facts.as_ref());
        let higher = facts.map(|facts| facts.ballot).max().unwrap_or_default();
        if higher > running.plan.epoch {
            return Err(format!("reign {higher} has begun elsewhere"));
        }
        Ok(())
    }

    /// The replicas have told what they have: now it is decided who follows.
    fn revoked(&mut self, running: &mut Running, done: &Done) -> Result<(), String> {
        let succeeded = done.succeeded().map(|report| report.server);
        running.revoked.extend(succeeded);
        let stuck: Vec<Job> = done
            .reports
            .iter()
            .filter(|report| {
                let at = report
                    .failure
                    .as_ref()
                    .and_then(|failure| failure.at.as_ref());
                at == Some(&Action::StartApplier)
            })
            .map(|report| Job::new(report.server, [Action::StopReceiver, Action::Look]))
            .collect();
        if !stuck.is_empty() {
            // What it has may be of no use, but it must not acknowledge any more.
            let step = Step::on(Act::Revoke, Need::Try, stuck);
            running.plan.steps.insert(running.at + 1, step);
            return Ok(());
        }
        for report in &done.reports {
            if report.failure.is_some() {
                // It may have more than it says, and may acknowledge more.
                self.leave_out(report.server);
            }
        }
        let choice = self
            .choice(running)
            .map_err(|refusal| refusal.to_string())?;
        running.plan.new = Some(choice.server);
        running.plan.steps.truncate(running.at + 1);
        let succession = self.succession(running, &choice);
        running.plan.steps.extend(succession);
        let mut text = format!("{} follows", self.name(choice.server));
        for (other, why) in &choice.others {
            text.push_str(&format!("; not {}: {why}", self.name(*other)));
        }
        if let Some(lost) = &choice.lost {
            text.push_str(&format!("; lost: {lost}"));
        }
        let alarm = choice.lost.is_some();
        self.outputs.push(Output::Tell(Entry {
            kind: "step",
            plan: Some(running.plan.name.clone()),
            text,
            alarm,
        }));
        Ok(())
    }

    /// Until it answers a probe again it counts as silent.
    fn leave_out(&mut self, server: ServerId) {
        if let Some(member) = self.members.iter_mut().find(|member| member.id == server) {
            member.evidence.distrust();
        }
    }

    /// The old primary takes no writes any more: what it has now is what the new one must have.
    fn frozen_at(&self, running: &mut Running, done: &Done) -> Result<(), String> {
        let facts = done
            .reports
            .first()
            .and_then(|report| report.facts.as_ref());
        let facts = facts.ok_or("the old primary did not say what it has")?;
        if facts.write_block.is_none() {
            return Err("the old primary still takes writes".to_owned());
        }
        let target = facts
            .executed
            .as_deref()
            .ok_or("the old primary did not say what it has")?;
        let new = running.plan.new.ok_or("nobody was chosen")?;
        for step in &mut running.plan.steps {
            if step.act == Act::Apply {
                *step = super::begin::apply(new, target, self.policy.apply);
            }
        }
        Ok(())
    }

    /// Now it is known what the new primary has, and so who can follow it.
    fn applied(&mut self, running: &mut Running) {
        let plan = &mut running.plan;
        let Some(new) = plan.new else {
            return;
        };
        let promote = self.promote(new, plan.old, plan.epoch, plan.purpose);
        let step = plan.steps.iter_mut().find(|step| step.act == Act::Promote);
        if let Some(step) = step {
            *step = promote;
        }
        let old = plan.old.and_then(|old| self.member(old));
        if matches!(self.guards(new, old), Guards::TooFew) {
            let text = format!(
                "commits on {} wait for no replica until enough of them follow it: what it acknowledges is on it alone",
                self.name(new)
            );
            self.running = Some(running.clone());
            self.alarm("step", text);
        }
    }

    /// The one step of which only the server itself can say whether it was done.
    fn promoted(
        &self,
        running: &mut Running,
        done: &Done,
        judged: Result<(), String>,
    ) -> Result<(), String> {
        let new = running.plan.new.ok_or("nobody was chosen")?;
        let facts = done.report(new).and_then(|report| report.facts.as_ref());
        running.crowned = facts.is_some_and(|facts| is_crowned(facts, running.plan.epoch));
        match (running.crowned, judged) {
            (true, _) => Ok(()),
            (false, Err(text)) => Err(text),
            (false, Ok(())) => Err("its row of the reign does not say so".to_owned()),
        }
    }

    fn publish(&mut self, running: &Running, now: Instant) {
        let Some((new, identity)) = running.plan.new.and_then(|new| {
            let facts = self.member(new)?.facts()?;
            Some((new, facts.identity()))
        }) else {
            return;
        };
        let reign = Reign {
            epoch: running.plan.epoch,
            primary: new,
            identity,
        };
        if let Some(member) = self.members.iter_mut().find(|member| member.id == new) {
            member.restarted = false;
        }
        if running.automatic && running.plan.purpose == Purpose::Failover {
            self.history.promoted(now);
        }
        self.begin_reign(reign, Gate::Open);
    }

    /// Undoes what was done, as far as that is more than trying again will see to.
    fn failed(&mut self, running: Running, step: &Step, text: &str, now: Instant) {
        let undone = matches!(step.act, Act::Undo);
        self.running = Some(running.clone());
        self.alarm("step", format!("{} has failed: {text}", step.act));
        let name = |id: Option<ServerId>| id.map_or_else(|| "".into(), |id| self.name(id));
        let outcome = match running.plan.purpose {
            Purpose::Failover | Purpose::Switchover => format!(
                "{} stays the primary: {} has failed: {text}",
                name(running.plan.old),
                step.act
            ),
            _ => format!("{} has failed: {text}", step.act),
        };
        let restarts: Vec<Job> = running
            .revoked
            .iter()
            .map(|id| Job::new(*id, [Action::StartApplier, Action::StartReplication]))
            .collect();
        if !undone && !restarts.is_empty() && !is_promoting(step) {
            // Their source may come back, and then they must not be without it.
            let undo = Plan {
                steps: vec![Step::on(Act::Undo, Need::Try, restarts)],
                why: outcome.clone(),
                ..running.plan.clone()
            };
            self.running = Some(Running {
                plan: undo,
                at: 0,
                revoked: Vec::new(),
                ..running
            });
            self.run_step();
            return;
        }
        self.finish(Err(outcome), now);
    }

    /// The plan is over.
    fn finish(&mut self, outcome: Result<(), String>, now: Instant) {
        let Some(running) = self.running.take() else {
            return;
        };
        let undone = running.plan.steps.iter().all(|step| step.act == Act::Undo);
        let outcome = match outcome {
            Ok(()) if undone => Err(running.plan.why.clone()),
            other => other,
        };
        let plan = Some(running.plan.name.clone());
        let (text, alarm) = match &outcome {
            Ok(()) => (self.achieved(&running), false),
            Err(text) => (text.clone(), true),
        };
        self.outputs.push(Output::Tell(Entry {
            kind: "end",
            plan,
            text: text.clone(),
            alarm,
        }));
        if outcome.is_err() {
            // What such a plan leaves behind is undone at once.
            let changes = matches!(
                running.plan.purpose,
                Purpose::Failover | Purpose::Switchover
            );
            self.rest_until = (!changes).then(|| now + AGAIN);
            if running.automatic && running.plan.purpose == Purpose::Failover {
                self.history.failed(now);
            }
            // Sessions may write to the old primary again, if that lives and takes writes.
            if let Some(reign) = self.reign.clone()
                && changes
            {
                let gate = self.gate(&reign);
                self.begin_reign(reign, gate);
            }
        } else {
            self.rest_until = None;
        }
        if let Some(asked_by) = running.asked_by {
            let reply = outcome.map(|()| text);
            self.outputs.push(Output::Reply(asked_by, reply));
        }
    }

    fn achieved(&self, running: &Running) -> String {
        let name: Arc<str> = running
            .plan
            .new
            .map_or_else(|| "".into(), |id| self.name(id));
        let epoch = running.plan.epoch;
        match running.plan.purpose {
            Purpose::Adopt | Purpose::Failover | Purpose::Switchover | Purpose::Reopen => {
                format!("{name} is the primary, in reign {epoch}")
            }
            Purpose::Repoint | Purpose::Rejoin => format!("{name} follows the primary"),
            Purpose::Fence => format!("{name} takes no writes"),
            Purpose::Guard => format!("commits on {name} wait for replicas"),
        }
    }
}

fn is_promoting(step: &Step) -> bool {
    step.act == Act::Promote
}

fn is_crowned(facts: &ServerFacts, epoch: u64) -> bool {
    let named = facts
        .epoch
        .as_ref()
        .is_some_and(|row| row.epoch == epoch && row.primary == facts.identity());
    named && facts.write_block.is_none()
}
