//! Which server follows the primary: by what it has, never by what it says of its delay.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::gtid::Position;
use tokio::time::Instant;

use super::member::Member;
use super::policy::Policy;
use crate::config::Promote;
use crate::topology::{ServerFacts, ServerId, SourceFacts, ThreadState};

/// Why a server cannot become the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It does not answer.
    Silent,
    /// An operator has taken it out.
    Maintenance,
    /// `promote = "never"`.
    Never,
    /// It is of another family than the primary.
    OtherFlavor,
    /// Its version is newer than that of a server that would have to replicate from it.
    Newer(Arc<str>),
    /// It writes no binary log, or does not log what it replicates.
    NoLog,
    /// Its transactions have no names (MySQL: `gtid_mode` is not ON).
    NoNames,
    /// It does not log rows, and another one does.
    Format,
    /// It leaves something out.
    Filtered,
    /// It is late on purpose.
    Delayed(Duration),
    /// Its applier has stopped with an error.
    Broken(Arc<str>),
    /// It does not replicate from the primary.
    NoReplica,
    /// Its connection to the primary was broken before the primary failed, for so long.
    Stale(Duration),
    /// Its connection to the primary was never seen at work.
    NeverConnected,
    /// It has transactions that nobody else has.
    Errant(Position),
    /// It does not have any more what it was seen to have.
    Forgot(Position),
    /// It lacks what another one has.
    Behind(Arc<str>),
}

impl Display for Unfit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("it does not answer"),
            Self::Maintenance => f.write_str("it is in maintenance"),
            Self::Never => f.write_str("promote = \"never\""),
            Self::OtherFlavor => f.write_str("it is of another family than the primary"),
            Self::Newer(other) => write!(f, "its version is newer than that of {other}"),
            Self::NoLog => f.write_str("it does not log what it replicates"),
            Self::NoNames => f.write_str("gtid_mode is not ON"),
            Self::Format => f.write_str("binlog_format is not ROW"),
            Self::Filtered => f.write_str("its replication leaves something out"),
            Self::Delayed(delay) => write!(f, "it is late on purpose by {} s", delay.as_secs()),
            Self::Broken(error) => write!(f, "its replication is broken: {error}"),
            Self::NoReplica => f.write_str("it does not replicate from the primary"),
            Self::Stale(age) => write!(
                f,
                "its connection was broken already {} s before",
                age.as_secs()
            ),
            Self::NeverConnected => f.write_str("its connection was never seen at work"),
            Self::Errant(what) => write!(f, "it has transactions of its own: {what}"),
            Self::Forgot(what) => write!(f, "it has lost what it had received: {what}"),
            Self::Behind(other) => write!(f, "{other} has more"),
        }
    }
}

/// Who is to be promoted, and what that costs.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The new primary.
    pub server: ServerId,
    /// It has to apply all of this first.
    pub to_apply: Position,
    /// What the old primary was known to have, or acknowledged, and this server does not have.
    pub lost: Option<Position>,
    /// Why not the others.
    pub others: Vec<(ServerId, Unfit)>,
}

/// Why nobody can be promoted.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// Nobody is fit.
    Nobody(Vec<(Arc<str>, Unfit)>),
    /// Each of these has what the other has not.
    Diverged(Arc<str>, Arc<str>),
    /// So many acknowledged transactions would be lost, more than is allowed.
    Loss(Position, u64),
    /// The primary's writes waited for acknowledgements, and too few of the servers that gave these answer.
    Unconfirmed {
        /// Servers that acknowledge and answer.
        answering: u32,
        /// As many have to.
        needed: u32,
    },
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(unfit) => {
                f.write_str("no server can be promoted")?;
                for (name, why) in unfit {
                    write!(f, "; {name}: {why}")?;
                }
                Ok(())
            }
            Self::Diverged(one, other) => write!(
                f,
                "{one} and {other} each have transactions that the other lacks: decide which one counts"
            ),
            Self::Loss(lost, allowed) => write!(
                f,
                "acknowledged transactions would be lost, and {allowed} may be (cluster.max_loss; none where commits waited for \
                 replicas): {lost}"
            ),
            Self::Unconfirmed { answering, needed } => write!(
                f,
                "the last writes may be on a replica that does not answer: {answering} of the acknowledging replicas answer, \
                 {needed} have to"
            ),
        }
    }
}

/// What a choice starts from.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The primary that is to be followed.
    pub old: ServerId,
    /// All servers.
    pub members: &'a [Member],
    /// The newest position that a client was told to be committed.
    pub acknowledged: Option<&'a Position>,
    /// Since when the primary is silent; `None` while it answers.
    pub failed_since: Option<Instant>,
    /// An operator wants this one.
    pub wanted: Option<ServerId>,
    /// The old primary lives, and the new one will have all of it before it takes over.
    pub planned: bool,
    /// An operator accepts that acknowledged transactions are lost.
    pub accept_loss: bool,
    /// The present reign: a server without a source that has a higher number was about to begin the next one.
    pub epoch: u64,
    /// What the configuration allows.
    pub policy: &'a Policy,
}

/// Chooses the server that follows the primary.
///
/// Errors: why nobody is.
pub fn choose(question: &Question<'_>) -> Result<Choice, Refusal> {
    let members = question.members;
    let old = members.iter().find(|member| member.id == question.old);
    let mut unfit: Vec<(ServerId, Unfit)> = Vec::new();
    let mut fit: Vec<(&Member, Position)> = Vec::new();
    for member in members.iter().filter(|member| member.id != question.old) {
        let wanted = question.wanted.is_none_or(|wanted| wanted == member.id);
        match fitness(member, old, question) {
            Ok(has) if wanted => fit.push((member, has)),
            Ok(_) => {}
            Err(why) => unfit.push((member.id, why)),
        }
    }
    let best = best(&fit)?;
    let Some((best, has)) = best else {
        return Err(Refusal::Nobody(named(&unfit, members)));
    };
    if let Some(ahead) = ahead_of(best, &has, question)
        && !question.accept_loss
        && !question.planned
    {
        return Err(match ahead {
            Ahead::Other(name) => {
                Refusal::Nobody(vec![(Arc::clone(&best.name), Unfit::Behind(name))])
            }
            Ahead::Apart(name) => Refusal::Diverged(Arc::clone(&best.name), name),
        });
    }
    let lost = old.and_then(|old| lost(old, question.acknowledged, &has));
    if !question.accept_loss && !question.planned {
        confirmed(old, question)?;
        let waited = old
            .and_then(Member::facts)
            .is_some_and(|facts| facts.semi_sync.active);
        // What waited for a replica is not to be lost at all.
        let allowed = if waited { 0 } else { question.policy.max_loss };
        if let Some(lost) = lost
            .as_ref()
            .filter(|lost| lost.count_since(&has) > allowed)
        {
            return Err(Refusal::Loss(lost.clone(), allowed));
        }
    }
    for (other, _) in &fit {
        if other.id != best.id {
            unfit.push((other.id, Unfit::Behind(Arc::clone(&best.name))));
        }
    }
    Ok(Choice {
        server: best.id,
        to_apply: has,
        lost,
        others: unfit,
    })
}

fn named(unfit: &[(ServerId, Unfit)], members: &[Member]) -> Vec<(Arc<str>, Unfit)> {
    let name = |id: ServerId| {
        let member = members.iter().find(|member| member.id == id);
        member.map_or_else(|| "".into(), |member| Arc::clone(&member.name))
    };
    let all = unfit.iter();
    all.map(|(id, why)| (name(*id), why.clone())).collect()
}

/// Everything that a server has, if it could be the primary.
fn fitness(
    member: &Member,
    old: Option<&Member>,
    question: &Question<'_>,
) -> Result<Position, Unfit> {
    if member.maintenance {
        return Err(Unfit::Maintenance);
    }
    if member.promote == Promote::Never && question.wanted != Some(member.id) {
        return Err(Unfit::Never);
    }
    let facts = member.facts().filter(|_| member.answers());
    let facts = facts.ok_or(Unfit::Silent)?;
    if !facts.log_bin || !facts.log_updates {
        return Err(Unfit::NoLog);
    }
    if !facts.gtid {
        return Err(Unfit::NoNames);
    }
    if facts
        .sources
        .iter()
        .any(|source| !source.filters.is_empty())
        || !facts.unlogged.is_empty()
    {
        return Err(Unfit::Filtered);
    }
    for other in question.members {
        let Some(other_facts) = other.facts().filter(|_| other.id != member.id) else {
            continue;
        };
        if other_facts.row_format && !facts.row_format {
            return Err(Unfit::Format);
        }
        let follows = other.id != question.old && other.answers();
        let newer = (facts.version.major, facts.version.minor)
            > (other_facts.version.major, other_facts.version.minor);
        if follows && newer {
            return Err(Unfit::Newer(Arc::clone(&other.name)));
        }
    }
    let Some(old) = old else {
        return member.has().ok_or(Unfit::NoNames);
    };
    if old
        .flavor()
        .is_some_and(|flavor| Some(flavor) != member.flavor())
    {
        return Err(Unfit::OtherFlavor);
    }
    match member.connection_to(old) {
        Some(connection) => connected(member, connection, question)?,
        None if is_half_way(member, old, question) => {}
        None => return Err(Unfit::NoReplica),
    }
    if let Some(lost) = member.lost() {
        return Err(Unfit::Forgot(lost));
    }
    if let Some(errant) = errant(member, old, question.members) {
        return Err(Unfit::Errant(errant));
    }
    member.has().ok_or(Unfit::NoNames)
}

/// Whether it has the row of the reign: its data is not older.
fn is_of(facts: &ServerFacts, epoch: u64) -> bool {
    facts.epoch.as_ref().is_some_and(|row| row.epoch >= epoch)
}

/// Whether a plan that was interrupted has taken it off the old primary: it has no source, or follows the one that was chosen.
fn is_half_way(member: &Member, old: &Member, question: &Question<'_>) -> bool {
    let others = || {
        question
            .members
            .iter()
            .filter(|other| other.id != old.id && other.id != member.id)
    };
    member.facts().is_some_and(|facts| {
        facts.ballot > question.epoch
            && is_of(facts, question.epoch)
            && facts.sources.iter().all(|source| source.delay.is_zero())
            && facts.sources.len() <= 1
            && (facts.sources.is_empty()
                || others().any(|other| member.connection_to(other).is_some()))
    })
}

/// Whether a replica's connection to the old primary was what it should be, until that failed.
fn connected(
    member: &Member,
    connection: &SourceFacts,
    question: &Question<'_>,
) -> Result<(), Unfit> {
    if !connection.delay.is_zero() {
        return Err(Unfit::Delayed(connection.delay));
    }
    if let Some(error) = connection.applier_error.clone() {
        return Err(Unfit::Broken(error));
    }
    // An operator who names a server knows how old its data is.
    let Some(since) = question.failed_since.filter(|_| question.wanted.is_none()) else {
        return Ok(());
    };
    let Some(connected) = member.connected_at else {
        // It was seen for the first time after that: it has to be of this reign, and to try, unless a plan stopped it.
        let facts = member.facts().filter(|facts| is_of(facts, question.epoch));
        let tries = facts.is_some_and(|facts| {
            connection.receiver != ThreadState::Stopped || facts.ballot > question.epoch
        });
        return if tries {
            Ok(())
        } else {
            Err(Unfit::NeverConnected)
        };
    };
    let broken_for = since.saturating_duration_since(connected);
    match broken_for > question.policy.max_staleness {
        true => Err(Unfit::Stale(broken_for)),
        false => Ok(()),
    }
}

/// What a replica has executed that came from nowhere: not from the primary, and nobody else has it.
pub(super) fn errant(member: &Member, old: &Member, members: &[Member]) -> Option<Position> {
    let facts = member.facts()?;
    let executed = facts.executed.as_deref()?;
    let mut known = match executed {
        // What it got by replication; its own log may have more.
        Position::MariaDb(_) => replicated(member)?,
        Position::MySql(set) => {
            let primary = old.facts()?.uuid.as_deref().unwrap_or_default();
            Position::MySql(set.of(primary))
        }
    };
    let others = members.iter().filter(|other| other.id != member.id);
    for position in others.filter_map(|other| other.remembered.as_ref()) {
        known.merge(position).ok()?;
    }
    (!known.covers(executed)).then(|| executed.since(&known))
}

/// What a server has got from its sources, applied or not.
fn replicated(member: &Member) -> Option<Position> {
    let facts = member.facts()?;
    let mut all = facts.replicated.as_deref()?.clone();
    let received = facts
        .sources
        .iter()
        .filter_map(|source| source.received.as_deref());
    for received in received {
        all.merge(received).ok()?;
    }
    Some(all)
}

/// The one that has everything that the others have; among equals the one that is preferred.
fn best<'a>(fit: &[(&'a Member, Position)]) -> Result<Option<(&'a Member, Position)>, Refusal> {
    let most: Vec<&(&Member, Position)> = fit
        .iter()
        .filter(|(_, has)| fit.iter().all(|(_, other)| has.covers(other)))
        .collect();
    if let (true, Some((one, has))) = (most.is_empty(), fit.first()) {
        let other = fit.iter().find(|(_, other)| !has.covers(other));
        let other = other.map_or(&one.name, |(other, _)| &other.name);
        return Err(Refusal::Diverged(Arc::clone(&one.name), Arc::clone(other)));
    }
    let best = most
        .into_iter()
        .min_by_key(|(member, _)| (member.promote, member.id));
    Ok(best.map(|(member, has)| (*member, has.clone())))
}

enum Ahead {
    /// Has all of it and more.
    Other(Arc<str>),
    /// Has other transactions.
    Apart(Arc<str>),
}

/// A server that answers and has what the best candidate lacks, though it may not become the primary itself.
fn ahead_of(best: &Member, has: &Position, question: &Question<'_>) -> Option<Ahead> {
    let others = question
        .members
        .iter()
        .filter(|member| member.id != best.id && member.id != question.old && member.answers());
    let old = question
        .members
        .iter()
        .find(|member| member.id == question.old)?;
    others
        .filter_map(|other| Some((other, inherited(other, old, question.members)?)))
        .find_map(|(other, theirs)| {
            if has.covers(&theirs) || other.diverged.is_some() {
                None
            } else if theirs.covers(has) {
                Some(Ahead::Other(Arc::clone(&other.name)))
            } else {
                Some(Ahead::Apart(Arc::clone(&other.name)))
            }
        })
}

/// What a server has besides transactions of its own.
fn inherited(member: &Member, old: &Member, members: &[Member]) -> Option<Position> {
    let has = member.has()?;
    match (&has, errant(member, old, members)) {
        (_, None) => Some(has),
        (Position::MySql(_), Some(errant)) => Some(has.since(&errant)),
        (Position::MariaDb(_), Some(_)) => replicated(member),
    }
}

/// Of what the old primary was known to have, and of what clients were told, what the new one lacks.
fn lost(old: &Member, acknowledged: Option<&Position>, has: &Position) -> Option<Position> {
    let known = old.facts().and_then(|facts| facts.executed.as_deref());
    let mut all = known.or(acknowledged)?.clone();
    if let Some(acknowledged) = acknowledged {
        all.merge(acknowledged).ok()?;
    }
    (!has.covers(&all)).then(|| all.since(has))
}

/// A replica is looked at now and then only.
const MARGIN: Duration = Duration::from_secs(1);

/// With semi-synchronous replication a write was acknowledged by some replicas: one of those that answer has to have it.
fn confirmed(old: Option<&Member>, question: &Question<'_>) -> Result<(), Refusal> {
    let (Some(old), Some(since)) = (old, question.failed_since) else {
        return Ok(());
    };
    let others = || question.members.iter().filter(|member| member.id != old.id);
    let (clients, wait_for) = match old.facts().map(|facts| &facts.semi_sync) {
        Some(semi_sync) if semi_sync.active => (semi_sync.clients, semi_sync.wait_for),
        Some(_) => return Ok(()),
        // It was never seen: any other one may have acknowledged.
        None => {
            let enabled = others()
                .filter_map(Member::facts)
                .map(|facts| &facts.semi_sync);
            let enabled = enabled.filter(|semi_sync| semi_sync.replica || semi_sync.source);
            let Some(wait_for) = enabled.map(|semi_sync| semi_sync.wait_for).min() else {
                return Ok(());
            };
            (
                u32::try_from(others().count()).unwrap_or(u32::MAX),
                wait_for,
            )
        }
    };
    let acknowledging = others().filter(|member| {
        member.answers()
            && (member.connection_to(old).is_some() || is_half_way(member, old, question))
            // One that had lost the primary before does not know what was acknowledged since.
            && member.connected_at.is_none_or(|at| at + MARGIN >= since)
            && member.facts().is_some_and(|facts| facts.semi_sync.replica || facts.semi_sync.source)
    });
    let answering = u32::try_from(acknowledging.count()).unwrap_or(u32::MAX);
    // Any so many of them include one that acknowledged.
    let needed = (clients + 1).saturating_sub(wait_for);
    if answering < needed {
        return Err(Refusal::Unconfirmed { answering, needed });
    }
    Ok(())
}
