//! What a plan's actions do to a server.

use dbproxy::failover::Action;
use dbproxy::topology::Flavor;
use dbproxy_proto::gtid::Position;

use super::MILLI;
use super::clients::Outcome;
use super::mutations::Mutation;
use super::servers::{Applier, Kind, PORT, Receiver, Source};
use super::world::{Event, World};

/// How far an action has come.
pub(crate) enum Progress {
    Done,
    /// It is looked at again after this.
    Waits(u64),
    Failed(String),
}

fn failed(text: &str) -> Progress {
    Progress::Failed(text.to_owned())
}

impl World {
    /// Does an action, or goes on with it. `waited` says for how long it has waited already.
    pub(crate) fn perform(&mut self, place: usize, action: &Action, waited: u64) -> Progress {
        let mysql = self.setup.flavor == Flavor::MySql;
        match action {
            Action::Look => Progress::Done,
            Action::Ballot(number) => {
                let server = &mut self.servers[place];
                if *number < server.ballot {
                    return failed("a higher reign was put down");
                }
                server.ballot = *number;
                Progress::Done
            }
            Action::StartApplier => self.let_apply(place),
            Action::StopReceiver => {
                self.stop_receiver(place);
                Progress::Done
            }
            Action::Await(position) => self.await_position(place, position),
            Action::StopReplication => {
                self.stop_receiver(place);
                self.stop_applier(place);
                Progress::Done
            }
            Action::ForgetSource => {
                let server = &mut self.servers[place];
                server.source = None;
                server.relay.clear();
                Progress::Done
            }
            Action::Follow { port, demoted, .. } => {
                self.follow(place, usize::from(*port - PORT), *demoted)
            }
            Action::StartReplication => {
                if self.servers[place].source.is_none() {
                    return failed("1200 not configured as a replica");
                }
                self.start_threads(place);
                Progress::Done
            }
            Action::AwaitReplication => self.await_replication(place),
            Action::Offline(on) if mysql => {
                self.servers[place].offline = *on;
                if *on {
                    self.expel(place);
                }
                Progress::Done
            }
            Action::Offline(_) => Progress::Done,
            Action::RefuseWrites => self.refuse_writes(place, waited),
            Action::AcceptWrites => {
                let server = &mut self.servers[place];
                server.read_only = false;
                if mysql {
                    server.persisted = Some(true);
                }
                Progress::Done
            }
            Action::Expel => {
                self.expel(place);
                Progress::Done
            }
            Action::SemiSync { source } => {
                let server = &mut self.servers[place];
                let off = server.semi_source && !source;
                server.semi_source = *source;
                server.semi_replica = !source;
                if off {
                    // Everybody who waits gets an OK.
                    self.release_all(place);
                }
                Progress::Done
            }
            Action::Crown { epoch, .. } => self.crown(place, *epoch, waited),
        }
    }

    fn let_apply(&mut self, place: usize) -> Progress {
        match self.servers[place]
            .source
            .as_ref()
            .map(|source| source.applier)
        {
            None => failed("1200 not configured as a replica"),
            Some(Applier::Broken(text)) => failed(text),
            Some(_) => {
                self.start_applier(place);
                Progress::Done
            }
        }
    }

    fn await_position(&mut self, place: usize, position: &Position) -> Progress {
        // MariaDB waits for what it has as a replica.
        match self.look(place).replicated {
            Some(own) if own.covers(position) => Progress::Done,
            _ => Progress::Waits(50 * MILLI),
        }
    }

    fn follow(&mut self, place: usize, source: usize, demoted: bool) -> Progress {
        self.check_follows(place, source);
        let server = &mut self.servers[place];
        let running = server.source.as_ref().is_some_and(|source| {
            source.receiver != Receiver::Stopped || source.applier == Applier::Running
        });
        if running {
            return failed("3021 stop replication first");
        }
        server.generation += 1;
        server.relay.clear();
        if demoted {
            server.replicated = server.log.last().copied();
        }
        server.source = Some(Source::new(source, server.generation));
        Progress::Done
    }

    fn await_replication(&mut self, place: usize) -> Progress {
        match &self.servers[place].source {
            None => failed("it has no source"),
            Some(source) => match (source.receiver, source.applier) {
                (Receiver::Connected, Applier::Running) => Progress::Done,
                (_, Applier::Broken(text)) => failed(text),
                (Receiver::Stopped, _) => failed("its receiver has stopped"),
                _ => Progress::Waits(50 * MILLI),
            },
        }
    }

    /// Waits for commits that are under way, for two seconds.
    fn refuse_writes(&mut self, place: usize, waited: u64) -> Progress {
        let mysql = self.setup.flavor == Flavor::MySql;
        let server = &mut self.servers[place];
        if server.read_only {
            if mysql {
                server.persisted = Some(true);
            }
            return Progress::Done;
        }
        if !server.waiting.is_empty() || server.stalled {
            return match waited >= 2000 * MILLI {
                true => failed("1205 lock wait timeout exceeded"),
                false => Progress::Waits(100 * MILLI),
            };
        }
        server.read_only = true;
        if mysql {
            server.persisted = Some(true);
        }
        Progress::Done
    }

    /// Ends ordinary connections. Who waits for acknowledgements goes on to wait on MySQL, and commits on MariaDB.
    pub(crate) fn expel(&mut self, place: usize) {
        let sessions: Vec<_> = self.servers[place]
            .waiting
            .iter_mut()
            .filter_map(|waiting| waiting.session.take())
            .collect();
        for session in sessions {
            self.send(
                place,
                self.proxy(),
                Event::Reply(place, session, Outcome::Lost),
            );
        }
        if self.setup.flavor == Flavor::MariaDb {
            self.release_all(place);
        }
    }

    fn crown(&mut self, place: usize, epoch: u64, waited: u64) -> Progress {
        let server = &self.servers[place];
        if waited > 0 {
            // Its commit waits for acknowledgements.
            let waits = server.waiting.iter().any(|waiting| {
                matches!(self.txs[waiting.tx as usize].kind, Kind::Crown { epoch: number, .. } if number == epoch)
            });
            return if waits {
                Progress::Waits(20 * MILLI)
            } else {
                Progress::Done
            };
        }
        if server.read_only && self.setup.flavor == Flavor::MySql {
            return failed("1290 super_read_only");
        }
        if server.epoch.is_some_and(|(known, _)| known >= epoch) {
            return Progress::Done;
        }
        if self.mutation == Some(Mutation::NoCrown) {
            return Progress::Done;
        }
        self.check_crown(place, epoch);
        let kind = Kind::Crown {
            epoch,
            primary: place as u8,
        };
        let id = self.begin_commit(place, kind, None);
        match self.servers[place]
            .waiting
            .iter()
            .any(|waiting| waiting.tx == id)
        {
            true => Progress::Waits(20 * MILLI),
            false => Progress::Done,
        }
    }
}
