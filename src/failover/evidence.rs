//! How a server answers, and what its replicas say of it: what can be concluded from that.
//!
//! One kind of failure is not like another: a refused connection is a process that is gone, and known within a second if a
//! second one sees it; silence may be the network, or the server, and takes longer; an error is an answer, and so life.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::member::Member;
use crate::topology::{Observation, ProbeError, ServerFacts, ServerId, SourceFacts, ThreadState};

/// A process that hangs is given this long from the first question without an answer.
const HUNG_AFTER: Duration = Duration::from_secs(3);
/// A host that cannot be reached.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);
/// Several servers that fall silent within this time do so because of the network.
const TOGETHER: Duration = Duration::from_secs(2);
/// So long the network is given to come back, as a spanning tree may take 50 s.
const NETWORK_GRACE: Duration = Duration::from_secs(60);
/// A replica that heard from the primary more recently than this proves it to live; at least this, since heartbeats may be
/// that far apart.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
/// The primary does not complete a write for this long.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// Without a second who saw the connection refused, it has to be refused for this long.
const REFUSED_ALONE: Duration = Duration::from_secs(3);
/// A server that was down has to answer without a failure for this long before anything is changed on its word.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// `ECONNREFUSED` and `ECONNRESET`.
const GONE: [u32; 2] = [111, 104];

/// What the last probe of a server got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Probe {
    /// There was none yet.
    #[default]
    None,
    /// Facts.
    Facts,
    /// An error that only a living server gives.
    Alive,
    /// Nobody listens.
    Refused,
    /// It takes connections and says nothing.
    Unresponsive,
    /// There is no way to it.
    Unreachable,
}

/// What the probes of one server got, and what it heard of its source.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    last: Probe,
    /// Since when there is no answer.
    silent_since: Option<Instant>,
    /// Since when there have been answers only.
    answers_since: Option<Instant>,
    times: u32,
    /// When it is known to have heard from its source last: something had come between two looks, the first of which was then.
    heard_at: Option<Instant>,
    /// What it had heard from its source, and when that was seen.
    heard: Option<(Heard, Instant)>,
    /// When that was looked at for the first time.
    listened_from: Option<Instant>,
    /// When its receiver was seen to have lost its source, and whether since that was refused.
    lost: Option<(Instant, bool)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    heartbeats: Option<u64>,
    read_to: Arc<str>,
}

impl Evidence {
    /// Takes in a probe. `source` is its connection to the primary, if it has one.
    pub(super) fn observe(&mut self, observation: &Observation, source: Option<&SourceFacts>) {
        let at = observation.asked_at;
        let probe = match &observation.result {
            Ok(_) => Probe::Facts,
            Err(ProbeError::Refused) => Probe::Refused,
            Err(ProbeError::Unresponsive) => Probe::Unresponsive,
            // A process that hangs does not take connections for ever either.
            Err(ProbeError::Timeout) if self.last == Probe::Unresponsive => self.last,
            Err(ProbeError::Timeout) => Probe::Unreachable,
            // Once it is what a process that ends does; the next probe tells.
            Err(ProbeError::Closed) => match self.last {
                Probe::Refused | Probe::Unreachable => self.last,
                _ => Probe::Unresponsive,
            },
            Err(
                ProbeError::TooManyConnections
                | ProbeError::AccessDenied(_)
                | ProbeError::Tls(_)
                | ProbeError::Other(_),
            ) => Probe::Alive,
        };
        if matches!(probe, Probe::Facts | Probe::Alive) {
            self.silent_since = None;
            self.answers_since.get_or_insert(at);
        } else {
            self.silent_since.get_or_insert(at);
            self.answers_since = None;
        }
        self.times = match probe == self.last {
            true => self.times.saturating_add(1),
            false => 1,
        };
        self.last = probe;
        if let (Ok(_), Some(source)) = (&observation.result, source) {
            self.listen(source, at);
        }
    }

    fn listen(&mut self, source: &SourceFacts, at: Instant) {
        let before = self.heard.as_ref().map(|(_, seen)| *seen);
        let heard = Heard {
            heartbeats: source.heartbeats,
            read_to: Arc::clone(&source.read_to),
        };
        match &mut self.heard {
            Some((known, seen)) => {
                if *known != heard {
                    self.heard_at = Some(*seen);
                    *known = heard;
                }
                *seen = at;
            }
            None => {
                self.heard = Some((heard, at));
                self.listened_from.get_or_insert(at);
            }
        }
        if source.receiver == ThreadState::Running {
            if self.lost.take().is_some() {
                // It has found its source again.
                self.heard_at = before.or(self.heard_at);
            }
        } else {
            let refused = source
                .contact
                .as_ref()
                .and_then(|contact| contact.system)
                .is_some_and(|number| GONE.contains(&number));
            let (since, _) = self.lost.unwrap_or((at, false));
            self.lost = Some((since, refused));
        }
    }

    /// Nobody looked or listened until now: silence, and what was not heard, begin to count now.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        if self.silent_since.is_some() {
            self.silent_since = Some(now);
        }
        self.times = 0;
        self.last = Probe::None;
        self.heard = None;
        self.heard_at = None;
        self.listened_from = Some(now);
        self.lost = None;
    }

    /// Forgets what was heard of a source: there is another one now.
    pub(super) fn forget_source(&mut self) {
        self.heard = None;
        self.listened_from = None;
        self.heard_at = None;
        self.lost = None;
    }

    /// Something that was asked of it has failed: until the next probe it does not count as answering.
    pub(super) fn distrust(&mut self) {
        self.last = Probe::Unresponsive;
    }

    /// Did the last probe get facts?
    pub fn answers(&self) -> bool {
        self.last == Probe::Facts
    }

    /// Was there any probe?
    pub fn is_known(&self) -> bool {
        self.last != Probe::None
    }

    /// Does it answer, and has it done so for a while?
    pub fn is_settled(&self, now: Instant) -> bool {
        self.answers()
            && self
                .answers_since
                .is_some_and(|since| now.saturating_duration_since(since) >= SETTLED_AFTER)
    }

    /// Since when it does not answer.
    pub fn silent_since(&self) -> Option<Instant> {
        self.silent_since
    }
}

/// How a primary died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Its process is gone: connections are refused.
    Process,
    /// Its process takes connections, or keeps them, and says nothing.
    Hung,
    /// Its host cannot be reached by anybody who was asked.
    Host,
}

impl Display for Death {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "its process is gone",
            Self::Hung => "it hangs",
            Self::Host => "its host is gone",
        })
    }
}

/// What is to be thought of the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Alive,
    /// It does not answer, which proves nothing yet.
    Suspect,
    /// It is dead, and this is why that is certain.
    Dead(Death, Arc<str>),
    /// It answers with an error, such as too many connections.
    Refuses,
    /// It answers, and completes no writes.
    Stalled,
    /// Its replicas hear from it: only the way from here is broken.
    LinkOnly(Arc<str>),
    /// Too few servers can be reached to say anything of any of them.
    Isolated,
    /// Several servers fell silent together; until then nothing is done.
    Network(Instant),
}

impl Verdict {
    /// In the words of the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead(Death::Process, _) => "dead process",
            Self::Dead(Death::Hung, _) => "hung",
            Self::Dead(Death::Host, _) => "dead host",
            Self::Refuses => "overloaded",
            Self::Stalled => "write stall",
            Self::LinkOnly(_) => "link only",
            Self::Isolated => "isolated",
            Self::Network(_) => "network event",
        }
    }
}

/// What is to be thought of `primary`. `stalled_since`: since when a write of the monitor's own is not completed.
pub(super) fn verdict(
    primary: ServerId,
    members: &[Member],
    stalled_since: Option<Instant>,
    now: Instant,
) -> Verdict {
    let Some(member) = members.iter().find(|member| member.id == primary) else {
        return Verdict::Alive;
    };
    let Some(since) = member.evidence.silent_since else {
        let stalled = stalled_since
            .is_some_and(|since| now.saturating_duration_since(since) >= STALLED_AFTER);
        return match member.evidence.last {
            Probe::None => Verdict::Suspect,
            Probe::Alive => Verdict::Refuses,
            _ if stalled => Verdict::Stalled,
            _ => Verdict::Alive,
        };
    };
    let others = Others::of(member, members);
    let silence = now.saturating_duration_since(since);
    if let Some(witness) = others.heard_after(since) {
        return Verdict::LinkOnly(Arc::clone(&witness.name));
    }
    if others.too_few() {
        return Verdict::Isolated;
    }
    match member.evidence.last {
        Probe::Refused => refused(&others, since, silence),
        Probe::Unresponsive if member.evidence.times >= 2 && silence >= HUNG_AFTER => {
            deaf(&others, since, now, Death::Hung)
        }
        Probe::Unreachable => match others.silent_together(since) {
            Some(latest) if now < latest + NETWORK_GRACE => {
                Verdict::Network(latest + NETWORK_GRACE)
            }
            _ if silence >= UNREACHABLE_AFTER && member.evidence.times >= 3 => {
                deaf(&others, since, now, Death::Host)
            }
            _ => Verdict::Suspect,
        },
        _ => Verdict::Suspect,
    }
}

/// Nobody listens at the primary's address: certain as soon as a second one has seen it.
fn refused(others: &Others<'_>, since: Instant, silence: Duration) -> Verdict {
    if let Some(witness) = others.refused_too() {
        let text = format!("refused here and at {}", witness.name);
        return Verdict::Dead(Death::Process, text.into());
    }
    // Not long before that, or later: another error of its own is no witness.
    let lost = others.lost_after(since.checked_sub(TOGETHER).unwrap_or(since));
    match lost {
        Some(witness) if silence >= REFUSED_ALONE => {
            let text = format!("refused here, and {} has lost its connection", witness.name);
            Verdict::Dead(Death::Process, text.into())
        }
        _ => Verdict::Suspect,
    }
}

/// The primary says nothing here: certain when no replica has heard anything of it for long enough.
fn deaf(others: &Others<'_>, since: Instant, now: Instant, death: Death) -> Verdict {
    let silence = now.saturating_duration_since(since);
    if !others.listened(since) {
        return Verdict::Suspect;
    }
    match others.may_yet_hear(now) {
        Some(_) => Verdict::Suspect,
        None => {
            let text = format!(
                "no answer for {:.1} s here, and no replica hears from it",
                silence.as_secs_f32()
            );
            Verdict::Dead(death, text.into())
        }
    }
}

/// The servers besides the primary.
struct Others<'a> {
    all: Vec<&'a Member>,
    replicas: Vec<&'a Member>,
    configured: usize,
}

impl<'a> Others<'a> {
    fn of(primary: &Member, members: &'a [Member]) -> Self {
        let all: Vec<&Member> = members
            .iter()
            .filter(|member| member.id != primary.id && !member.maintenance)
            .collect();
        let replicas = all
            .iter()
            .copied()
            .filter(|member| member.answers() && member.connection_to(primary).is_some())
            .collect();
        Self {
            configured: all.len() + 1,
            all,
            replicas,
        }
    }

    /// Of three or more servers a majority has to answer; of two the other one.
    fn too_few(&self) -> bool {
        let answering = self.all.iter().filter(|member| member.answers()).count();
        let needed = match self.configured {
            0..=2 => 1,
            more => more / 2 + 1,
        };
        answering < needed
    }

    fn heard_after(&self, since: Instant) -> Option<&'a Member> {
        let heard = |member: &&&Member| member.evidence.heard_at.is_some_and(|at| at > since);
        self.replicas.iter().find(heard).copied()
    }

    fn refused_too(&self) -> Option<&'a Member> {
        let refused = |member: &&&Member| matches!(member.evidence.lost, Some((_, true)));
        self.replicas.iter().find(refused).copied()
    }

    fn lost_after(&self, since: Instant) -> Option<&'a Member> {
        let lost = |member: &&&Member| matches!(member.evidence.lost, Some((at, _)) if at >= since);
        self.replicas.iter().find(lost).copied()
    }

    /// Whether any replica would have heard of the primary until it fell silent: one that was stopped before is no witness.
    fn listened(&self, since: Instant) -> bool {
        let until = |member: &Member| match member.evidence.lost {
            Some((at, _)) => at + TOGETHER >= since && !is_stopped_by_hand(member),
            None => true,
        };
        self.replicas.iter().any(|member| until(member))
    }

    /// A replica whose connection stands, and that may hear something of the primary yet.
    fn may_yet_hear(&self, now: Instant) -> Option<&'a Member> {
        let may = |member: &&&Member| {
            let evidence = &member.evidence;
            if evidence.lost.is_some() {
                return false;
            }
            let Some(last) = evidence.heard_at.or(evidence.listened_from) else {
                // Nobody has listened yet.
                return true;
            };
            now.saturating_duration_since(last) < HEARD_WITHIN.max(patience(member.facts()))
        };
        self.replicas.iter().find(may).copied()
    }

    /// When the last of several fell silent, if others did so at the same time as the primary.
    fn silent_together(&self, since: Instant) -> Option<Instant> {
        let silent = self
            .all
            .iter()
            .filter(|member| matches!(member.evidence.last, Probe::Unreachable));
        let since_others = silent.filter_map(|member| member.evidence.silent_since);
        let near = since_others.filter(|at| {
            let apart = at.max(&since).saturating_duration_since(*at.min(&since));
            apart <= TOGETHER
        });
        near.max().map(|latest| latest.max(since))
    }
}

/// Whether somebody stopped its receiver, and not a plan: that puts the number of a reign down first.
fn is_stopped_by_hand(member: &Member) -> bool {
    member.facts().is_some_and(|facts| {
        let row = facts.epoch.as_ref().map_or(0, |row| row.epoch);
        let stopped = |source: &SourceFacts| {
            source.receiver == ThreadState::Stopped && source.contact.is_none()
        };
        facts.ballot <= row && facts.sources.iter().all(stopped)
    })
}

/// How long a replica may hear nothing of a primary that lives: two of its heartbeats and a half.
fn patience(facts: Option<&ServerFacts>) -> Duration {
    let periods = facts.into_iter().flat_map(|facts| &facts.sources);
    let longest = periods.map(|source| source.heartbeat_period).max();
    longest.unwrap_or_default() * 5 / 2
}
