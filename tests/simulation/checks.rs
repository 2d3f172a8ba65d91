//! What must never be, and what has to be in the end.

use dbproxy::failover::Entry;
use dbproxy::topology::{Decree, Gate};

use super::clients::Session;
use super::servers::{Applier, Kind, Process, Receiver, Tx, TxId};
use super::world::{Event, World};
use super::{SECOND, Time};

/// After the last fault everything has to be well within this.
const CONVERGES: Time = 200 * SECOND;

/// A client was told that its write is committed.
#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    tx: TxId,
    write: u32,
    /// The life of the proxy.
    life: u32,
    /// A replica had it by then.
    safe: bool,
    lost: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) violation: Option<String>,
    executed: Vec<bool>,
    acknowledged: Vec<Acknowledged>,
    last_acknowledged: Option<(Time, usize)>,
    /// The highest reign under which something was acknowledged, or that was decreed, and whose it is.
    acknowledging: Option<(u64, usize)>,
    pub(crate) decreed: Option<(u64, usize)>,
    opened: Option<usize>,
    /// Every reign that was begun on a server.
    crowns: Vec<(u64, usize)>,
    rows: [u64; 6],
    /// An operator said that loss is no matter.
    pub(crate) accepts_loss: bool,
    told_loss: bool,
    /// Transactions that there were when the last plan began.
    planned_at: TxId,
    planned_since: Time,
    automatic: bool,
    /// When something was wrong with a server, or with the way to it, for the last time.
    pub(crate) troubled: [Time; 6],
    well: u32,
    pub(crate) failovers: u32,
    pub(crate) lost: u32,
}

impl Checks {
    pub(crate) fn fail(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    pub(crate) fn new_write(&mut self) -> u32 {
        self.executed.push(false);
        self.executed.len() as u32 - 1
    }

    pub(crate) fn executed_before(&self, write: u32) -> bool {
        self.executed[write as usize]
    }

    pub(crate) fn executed(&mut self, write: u32) {
        self.executed[write as usize] = true;
    }

    pub(crate) fn writes(&self) -> usize {
        self.acknowledged.len()
    }
}

impl World {
    /// I2: what is acknowledged comes from one server, and reigns follow each other.
    pub(crate) fn check_acknowledged(&mut self, place: usize, session: Session, tx: TxId) {
        let life = self.manager.life;
        let safe = self.setup.strict() && self.safe.get(tx as usize).copied().unwrap_or_default();
        let checks = &mut self.checks;
        checks.acknowledged.push(Acknowledged {
            tx,
            write: session.write,
            life,
            safe,
            lost: false,
        });
        checks.last_acknowledged = Some((self.now, place));
        let (epoch, write) = (session.epoch, session.write);
        let after = checks
            .crowns
            .iter()
            .find(|(number, server)| *number > epoch && *server != place);
        if let Some((number, server)) = after {
            let text = format!(
                "I2: write {write} on db{place} is acknowledged in reign {epoch}, after db{server} began reign {number}"
            );
            checks.fail(text);
        }
        if let Some((known, server)) = checks.acknowledging
            && epoch <= known
            && server != place
        {
            let text = format!(
                "I2: write {write} on db{place} in reign {epoch}, after one on db{server} in reign {known}"
            );
            checks.fail(text);
        }
        let highest = checks
            .acknowledging
            .map_or(epoch, |(known, _)| known.max(epoch));
        checks.acknowledging = Some((highest, place));
    }

    pub(crate) fn check_decree(&mut self, decree: Decree) {
        let (epoch, place) = (decree.epoch, decree.primary.index());
        let checks = &mut self.checks;
        if let Some((known, server)) = checks.decreed
            && (epoch < known || epoch == known && server != place)
        {
            let text = format!(
                "I2: db{place} is decreed in reign {epoch}, after db{server} in reign {known}"
            );
            checks.fail(text);
        }
        checks.decreed = Some((epoch, place));
        if decree.gate == Gate::Open && checks.opened != Some(place) {
            if checks.opened.is_some() {
                checks.failovers += 1;
            }
            checks.opened = Some(place);
            self.check_lost(place);
            self.checks.told_loss = false;
        }
    }

    /// I1: what was acknowledged is on the primary, or its loss was accepted and told.
    fn check_lost(&mut self, place: usize) {
        let (life, tracked) = (self.manager.life, self.setup.tracked);
        let server = &self.servers[place];
        let checks = &mut self.checks;
        let (mut count, mut known) = (0_u64, false);
        for one in checks.acknowledged.iter_mut().filter(|one| !one.lost) {
            if server.holds(one.tx) {
                continue;
            }
            one.lost = true;
            count += 1;
            known |= one.life == life;
            if one.safe && !checks.accepts_loss {
                let text = format!(
                    "I1: write {} was acknowledged and is not on db{place}",
                    one.write
                );
                checks.violation.get_or_insert(text);
            }
        }
        checks.lost += count as u32;
        if !checks.accepts_loss && tracked && known {
            if !checks.told_loss {
                checks.fail(format!(
                    "I1: {count} acknowledged writes are lost on db{place}, and nobody said so"
                ));
            } else if count > self.setup.max_loss {
                checks.fail(format!(
                    "I1: {count} acknowledged writes are lost on db{place}, more than allowed"
                ));
            }
        }
    }

    /// A row of a reign has come to a server.
    pub(crate) fn crowned(&mut self, place: usize, tx: &Tx) {
        let Kind::Crown { epoch, .. } = tx.kind else {
            return;
        };
        let row = &mut self.checks.rows[place];
        if epoch < *row {
            let text = format!("db{place}: its reign goes back from {row} to {epoch}");
            self.checks.fail(text);
        } else {
            *row = epoch;
        }
    }

    /// A server is about to begin a reign.
    pub(crate) fn check_crown(&mut self, place: usize, epoch: u64) {
        self.note(|| format!("db{place} begins reign {epoch}"));
        if let Some((known, other)) = self.checks.crowns.iter().find(|(known, _)| *known >= epoch) {
            let text =
                format!("db{place} begins reign {epoch}, after db{other} began reign {known}");
            return self.checks.fail(text);
        }
        self.checks.crowns.push((epoch, place));
        let Some(old) = self.checks.opened.filter(|old| *old != place) else {
            return;
        };
        let server = &self.servers[place];
        if self.checks.accepts_loss {
            return;
        }
        // Whoever hangs may wake up, and must not get an acknowledgement then.
        let wakes = self.servers[old].process != Process::Dead
            && self.servers[old].writable()
            && self.servers[old].started < self.checks.planned_since;
        if self.checks.automatic
            && self.setup.strict()
            && wakes
            && self.acknowledging(old) >= self.setup.wait_for
        {
            return self.checks.fail(format!(
                "db{place} is promoted, and replicas still acknowledge to db{old}"
            ));
        }
        // What was done while the plan ran, or before this proxy saw the old primary, cannot be told from history.
        let seen = self.manager.failover.members()[old].seen.is_some();
        let errant = server.log.iter().any(|id| {
            let before = *id < self.checks.planned_at;
            seen && before
                && self.txs[*id as usize].kind == Kind::Errant
                && !self.servers[old].holds(*id)
        });
        let wrong = match () {
            () if !server.holds(1) => "its data is months old",
            () if server.delay > 0 => "it is late on purpose",
            () if server.filtered => "it leaves something out",
            () if errant => "it has transactions of its own",
            () => return,
        };
        self.checks
            .fail(format!("db{place} is promoted, and {wrong}"));
    }

    /// A replica must not get a source that lacks what it has.
    pub(crate) fn check_follows(&mut self, place: usize, source: usize) {
        let (server, source_server) = (&self.servers[place], &self.servers[source]);
        // Nobody can know what a DBA did a moment ago.
        let known = |id: &TxId| {
            let tx = &self.txs[*id as usize];
            tx.kind != Kind::Errant || tx.at + SECOND < self.now
        };
        let surplus = server
            .log
            .iter()
            .find(|id| known(id) && !source_server.received(**id));
        if let Some(id) = surplus.copied() {
            let kind = self.txs[id as usize].kind.clone();
            let text = format!(
                "db{place} is to follow db{source}, which lacks its transaction {id} ({kind:?})"
            );
            self.checks.fail(text);
        }
    }

    pub(crate) fn check_entry(&mut self, entry: &Entry) {
        if entry.text.contains("lost: ") && entry.alarm {
            self.checks.told_loss = true;
        }
        if entry.kind == "plan" {
            self.checks.planned_at = self.txs.len() as TxId;
            self.checks.planned_since = self.now;
            self.checks.automatic = entry.text.contains(" is dead: ");
        }
        if entry.kind == "plan"
            && entry.text.starts_with("failover (")
            && entry.text.contains(" is dead: ")
        {
            self.check_death();
        }
    }

    /// Nobody is declared dead who lives and can be heard.
    fn check_death(&mut self) {
        let Some(primary) = self.primary().map(|id| id.index()) else {
            return;
        };
        let (now, proxy) = (self.now, self.proxy());
        let server = &self.servers[primary];
        if server.process != Process::Running || server.host_down || server.stalled {
            return;
        }
        let calm = |place: usize| now.saturating_sub(self.checks.troubled[place]) > 3 * SECOND;
        if self.network.reaches(proxy, primary) && calm(primary) {
            return self.checks.fail(format!(
                "db{primary} is replaced, and nothing is wrong with it"
            ));
        }
        if now.saturating_sub(self.checks.troubled[primary]) < 2 * SECOND {
            return;
        }
        let hears = self.servers.iter().find(|replica| {
            let place = replica.place;
            let source = replica
                .source
                .as_ref()
                .filter(|source| source.server == primary);
            replica.runs()
                && self.network.reaches(proxy, place)
                && calm(place)
                && source.is_some_and(|source| {
                    source.receiver == Receiver::Connected && source.heard_at + SECOND > now
                })
        });
        if let Some(replica) = hears {
            let text = format!(
                "db{primary} is replaced, and db{} hears from it",
                replica.place
            );
            self.checks.fail(text);
        }
    }

    // --- in the end

    pub(crate) fn inspect(&mut self) {
        let Some(since) = self.calm else {
            return;
        };
        match self.unsettled() {
            None => self.checks.well += 1,
            Some(why) => {
                self.checks.well = 0;
                if self.now > since + CONVERGES {
                    return self.checks.fail(format!("not well in the end: {why}"));
                }
            }
        }
        if self.checks.well >= 3 {
            self.over = true;
            if let Some(place) = self.checks.opened {
                self.check_lost(place);
            }
            return;
        }
        self.after(SECOND, Event::Inspect);
    }

    /// Whether it gets what the primary writes, over others or not.
    fn follows(&self, place: usize, primary: usize, depth: usize) -> bool {
        let source = self.servers[place].source.as_ref();
        source.is_some_and(|source| {
            let runs = source.receiver == Receiver::Connected && source.applier == Applier::Running;
            (runs || depth > 0 && self.servers[place].meddled)
                && depth < 5
                && (source.server == primary || self.follows(source.server, primary, depth + 1))
        })
    }

    /// What is not as it should be.
    fn unsettled(&self) -> Option<String> {
        let Some(decree) = self
            .manager
            .decree
            .filter(|decree| decree.gate == Gate::Open)
        else {
            return Some("no primary is decreed".to_owned());
        };
        if !self.manager.is_idle() {
            return Some("a plan is under way".to_owned());
        }
        let primary = decree.primary.index();
        let server = &self.servers[primary];
        if !server.writable() {
            return Some(format!("db{primary} takes no writes"));
        }
        let starved = self.setup.strict()
            && server.semi_source
            && self.acknowledging(primary) < self.setup.wait_for;
        if !starved && server.epoch != Some((decree.epoch, primary as u8)) {
            return Some(format!("db{primary} has the row {:?}", server.epoch));
        }
        let recent = self
            .checks
            .last_acknowledged
            .is_some_and(|(at, place)| at + 2 * SECOND > self.now && place == primary);
        if !recent && !starved {
            return Some("no write is acknowledged".to_owned());
        }
        self.servers
            .iter()
            .filter(|other| other.place != primary)
            .find_map(|other| {
                let place = other.place;
                if other.writable() && other.runs() {
                    return Some(format!("db{place} takes writes as well"));
                }
                let source = other.source.as_ref();
                let broken =
                    source.is_some_and(|source| matches!(source.applier, Applier::Broken(_)));
                let apart = other.log.iter().any(|id| !server.holds(*id));
                if apart || broken || other.errant || other.meddled || other.months_old {
                    return None;
                }
                (!self.follows(place, primary, 0))
                    .then(|| format!("db{place} does not follow db{primary}"))
            })
    }
}
