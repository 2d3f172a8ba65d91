//! Tables of cases for the tracker: what is observed, step by step, and the picture that follows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::gtid::{GtidPosition, GtidSet, Position};
use tokio::time::Instant;

use dbproxy::config::{ServerAddress, ServerConfig};
use dbproxy::topology::*;

const INTERVAL: Duration = Duration::from_millis(250);
const MAX_LAG: Duration = Duration::from_secs(5);

/// A cluster of MariaDB servers db1, db2, … at port 3301, 3302, …, whose facts a test changes.
struct Scene {
    start: Instant,
    millis: u64,
    tracker: Tracker,
    facts: Vec<ServerFacts>,
}

fn maria(text: &str) -> Option<Arc<Position>> {
    let position = GtidPosition::parse(text.as_bytes()).unwrap();
    Some(Arc::new(Position::MariaDb(position)))
}

fn facts(number: u16) -> ServerFacts {
    let version = Version::parse("10.11.19-MariaDB").unwrap();
    ServerFacts {
        write_block: Some(WriteBlock::ReadOnly),
        executed: maria("0-1-10"),
        replicated: maria("0-1-10"),
        ..ServerFacts::sound(version, u32::from(number))
    }
}

fn source(of: u16) -> SourceFacts {
    SourceFacts {
        server_id: Some(u32::from(of)),
        ..SourceFacts::running("127.0.0.1", 3300 + of)
    }
}

impl Scene {
    /// `shape`: per server `rw` or `ro`, then the numbers of its sources, as in "rw ro:1 ro:1".
    fn new(shape: &str) -> Self {
        let facts: Vec<_> = (1..)
            .zip(shape.split(' '))
            .map(|(number, server)| {
                let (mode, sources) = server.split_once(':').unwrap_or((server, ""));
                ServerFacts {
                    write_block: (mode == "ro").then_some(WriteBlock::ReadOnly),
                    sources: sources
                        .split(',')
                        .filter_map(|of| of.parse().ok())
                        .map(source)
                        .collect(),
                    ..facts(number)
                }
            })
            .collect();
        let configs: Vec<_> = (1..=facts.len())
            .map(|number| {
                let address = format!("127.0.0.1:{}", 3300 + number);
                ServerConfig::new(
                    format!("db{number}"),
                    ServerAddress::parse(&address).unwrap(),
                )
            })
            .collect();
        let start = Instant::now();
        Self {
            start,
            millis: 0,
            tracker: Tracker::new(&configs, INTERVAL, MAX_LAG, start),
            facts,
        }
    }

    /// All servers were probed once.
    fn started(shape: &str) -> Self {
        let mut scene = Self::new(shape);
        scene.round(&[]);
        scene
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.millis)
    }

    fn send(&mut self, number: u16, result: Result<ServerFacts, ProbeError>) -> Changed {
        self.tracker.observe(Observation {
            server: ServerId(number - 1),
            asked_at: self.now(),
            at: self.now(),
            result,
        })
    }

    fn probe(&mut self, number: u16) -> Changed {
        let facts = self.facts[usize::from(number) - 1].clone();
        self.send(number, Ok(facts))
    }

    fn fail(&mut self, number: u16, error: ProbeError) -> Changed {
        self.send(number, Err(error))
    }

    /// One interval later every server is probed; those named fail.
    fn round(&mut self, failing: &[(u16, ProbeError)]) {
        self.millis += 250;
        for number in 1..=u16::try_from(self.facts.len()).unwrap() {
            match failing.iter().find(|(failing, _)| *failing == number) {
                Some((_, error)) => self.fail(number, error.clone()),
                None => self.probe(number),
            };
        }
    }

    fn rounds(&mut self, count: usize, failing: &[(u16, ProbeError)]) {
        for _ in 0..count {
            self.round(failing);
        }
    }

    fn server(&mut self, number: u16) -> &mut ServerFacts {
        &mut self.facts[usize::from(number) - 1]
    }

    fn set_writable(&mut self, number: u16, writable: bool) {
        self.server(number).write_block = (!writable).then_some(WriteBlock::ReadOnly);
    }

    /// `P` primary, `p` primary that takes no writes or is down, `R` readable replica, `r` other replica, `S`, `?`.
    fn roles(&self) -> String {
        let topology = self.tracker.snapshot();
        topology
            .servers
            .iter()
            .map(|server| match server.role {
                Role::Primary if topology.writable().is_some() => 'P',
                Role::Primary => 'p',
                Role::Replica if server.readable(MAX_LAG).is_ok() => 'R',
                Role::Replica => 'r',
                Role::Spare => 'S',
                Role::Unknown => '?',
            })
            .collect()
    }

    fn shown(&self, number: u16) -> Server {
        self.tracker.snapshot().servers[usize::from(number) - 1].clone()
    }

    fn barred(&self, number: u16) -> Option<Unreadable> {
        self.shown(number).readable(MAX_LAG).err()
    }

    fn lag(&self, number: u16) -> Option<u64> {
        match self.shown(number).lag {
            Lag::Known(lag) => Some(u64::try_from(lag.as_millis()).unwrap()),
            Lag::Unknown => None,
        }
    }
}

#[test]
fn roles_at_the_start() {
    for (shape, roles, why) in [
        ("rw ro:1 ro:1", "PRR", "the only server that takes writes"),
        ("ro:2 rw ro:2", "RPR", "the only server that takes writes"),
        ("ro:2 rw", "RP", "the only"),
        ("rw", "P", "the only"),
        // A chain, and a ring with one active server.
        ("ro:2 ro:3 rw", "RRP", "the only"),
        ("rw:2 ro:1", "PR", "the only"),
        ("ro:2 rw:1", "RP", "the only"),
        ("ro:2 rw:3 ro:1", "RPR", "the only"),
        // Two writable: whom the others follow, else the first.
        (
            "rw rw ro:2",
            "SPR",
            "most others replicate from it; also writable, and unused: db1",
        ),
        ("rw:2 rw", "SP", "most others"),
        (
            "rw rw",
            "PS",
            "first such in the configuration; also writable, and unused: db2",
        ),
        ("rw:2 rw:1", "PS", "first such"),
        ("rw:2 rw:1 ro:2", "PSR", "first such"),
        // A replica of somebody else, a replica of nobody.
        ("rw ro:9", "Pr", "the only"),
        ("rw ro", "P?", "the only"),
        // Several sources: one leads to the primary.
        ("rw ro:9,1", "PR", "the only"),
    ] {
        let scene = Scene::started(shape);
        assert_eq!(scene.roles(), roles, "{shape}");
        let topology = scene.tracker.snapshot();
        let told = topology.primary().unwrap().why.to_string();
        assert!(told.contains(why), "{shape}: {told}");
    }
    assert_eq!(Scene::started("ro ro:1").roles(), "?r");
}

#[test]
fn the_first_answer_does_not_make_a_primary() {
    let mut scene = Scene::new("rw rw ro:2");
    scene.probe(1);
    scene.probe(3);
    assert_eq!(scene.roles(), "??r");
    assert_eq!(scene.barred(3), Some(Unreadable::NoPrimary));
    // Any answer of the last one will do.
    scene.fail(2, ProbeError::Timeout);
    assert_eq!(scene.roles(), "P?r");
}

#[test]
fn the_primary_stays_while_it_takes_writes() {
    let mut scene = Scene::started("rw ro:1 ro:1");
    scene.set_writable(2, true);
    scene.rounds(3, &[]);
    assert_eq!(scene.roles(), "PSR");
    assert!(scene.shown(1).why.contains("unused: db2"));
    assert!(scene.shown(2).why.contains("db1 is the primary"));
    assert_eq!(scene.barred(2), Some(Unreadable::Spare));
    // Others following the second writable server do not depose the first.
    scene.server(3).sources = vec![source(2)];
    scene.rounds(3, &[]);
    assert_eq!(scene.roles(), "PSR", "db3 follows db1 through db2");
}

#[test]
fn an_operators_switch_is_followed_at_the_next_probe() {
    // Old one closed first: writes wait, then go to the new one.
    let mut scene = Scene::started("rw ro:1 ro:1");
    scene.set_writable(1, false);
    let changed = scene.probe(1);
    assert_eq!(scene.roles(), "pRR");
    assert!(changed.events.contains(&Event::Writes {
        server: "db1".into(),
        taken: false
    }));
    scene.set_writable(2, true);
    let changed = scene.probe(2);
    assert_eq!(scene.roles(), "?Pr");
    assert!(changed.epoch);
    let Event::Primary { from, to, why } = &changed.events[0] else {
        panic!("{:?}", changed.events);
    };
    assert_eq!((from.as_deref(), to.as_deref()), (Some("db1"), Some("db2")));
    assert!(why.contains("db1 takes no writes"), "{why}");
    scene.server(1).sources = vec![source(2)];
    scene.server(3).sources = vec![source(2)];
    scene.round(&[]);
    assert_eq!(scene.roles(), "RPR");

    // New one opened first.
    let mut scene = Scene::started("rw ro:1 ro:1");
    scene.set_writable(3, true);
    scene.probe(3);
    assert_eq!(scene.roles(), "PRS");
    scene.set_writable(1, false);
    scene.probe(1);
    assert_eq!(scene.roles(), "?rP");
}

#[test]
fn a_dead_primary_keeps_its_role_until_an_heir_takes_writes() {
    let mut scene = Scene::started("rw ro:1 ro:1");
    let changed = scene.fail(1, ProbeError::Refused);
    assert_eq!(scene.roles(), "pRR");
    assert!(
        matches!(&changed.events[0], Event::Down { error, .. } if &**error == "connection refused")
    );
    assert_eq!(scene.barred(1), Some(Unreadable::Down));
    scene.set_writable(2, true);
    scene.probe(2);
    assert_eq!(scene.roles(), "?Pr");
    // The old one comes back writable: no writes for it.
    scene.server(3).sources = vec![source(2)];
    scene.rounds(4, &[]);
    assert_eq!(scene.roles(), "SPR");
    // It never followed the present primary, so it does not replace it either.
    scene.rounds(4, &[(2, ProbeError::Refused)]);
    assert_eq!(scene.roles(), "SpR");
}

#[test]
fn a_crash_makes_the_other_active_master_the_primary() {
    let mut scene = Scene::started("rw:2 rw:1");
    assert_eq!(scene.roles(), "PS");
    scene.fail(1, ProbeError::Refused);
    scene.probe(2);
    assert_eq!(scene.roles(), "?P");
    scene.rounds(4, &[]);
    assert_eq!(scene.roles(), "SP", "no fail-back");
}

#[test]
fn a_replica_that_came_up_writable_is_no_heir() {
    let mut scene = Scene::started("rw ro:1 ro:1");
    scene.round(&[(2, ProbeError::Refused)]);
    scene.set_writable(2, true);
    scene.round(&[]);
    assert_eq!(scene.roles(), "PSR");
    scene.rounds(4, &[(1, ProbeError::Timeout)]);
    assert_eq!(scene.roles(), "pSR");
    // Nor when an operator closes the primary in order to open another one.
    scene.set_writable(1, false);
    scene.round(&[]);
    assert_eq!(scene.roles(), "pSR");
    // Whoever ends its replication means it.
    scene.server(2).sources.clear();
    scene.round(&[]);
    assert_eq!(scene.roles(), "?Pr");
}

#[test]
fn claims_to_take_over() {
    // (shape, primary is closed instead of dead, roles afterwards)
    for (shape, closed, roles) in [
        ("rw rw ro:1", true, "?Pr"),
        ("rw rw ro:1", false, "pSR"),
        ("rw rw:1 ro:1", true, "pSR"),
        ("rw rw:1 ro:1", false, "pSR"),
        ("rw:2 rw:1 ro:1", true, "RPR"),
        ("rw:2 rw:1 ro:1", false, "?Pr"),
    ] {
        let mut scene = Scene::started(shape);
        if closed {
            scene.set_writable(1, false);
            scene.round(&[]);
        } else {
            scene.round(&[(1, ProbeError::Refused)]);
        }
        assert_eq!(scene.roles(), roles, "{shape} {closed}");
    }
}

#[test]
fn silence_is_not_death_at_once() {
    let mut scene = Scene::started("rw ro:1");
    scene.round(&[(1, ProbeError::Timeout)]);
    scene.round(&[(1, ProbeError::Closed)]);
    assert_eq!(scene.roles(), "PR");
    scene.round(&[]);
    scene.rounds(2, &[(1, ProbeError::Timeout)]);
    assert_eq!(scene.roles(), "PR", "counted anew");
    scene.round(&[(1, ProbeError::Timeout)]);
    assert_eq!(scene.roles(), "pR");
    let Health::Down { since, .. } = scene.shown(1).health else {
        panic!("up");
    };
    assert_eq!(scene.now() - since, INTERVAL * 2);
    scene.round(&[]);
    assert_eq!(scene.roles(), "PR");
}

#[test]
fn refusing_the_monitor_is_a_sign_of_life() {
    for error in [
        ProbeError::TooManyConnections,
        ProbeError::AccessDenied("1045".into()),
        ProbeError::Other("1227".into()),
    ] {
        let mut scene = Scene::started("rw ro:1");
        scene.rounds(20, &[(1, error.clone())]);
        assert_eq!(scene.roles(), "PR", "{error}");
        assert!(scene.shown(1).why.contains(&error.to_string()));
        // Of a replica nothing is known any more, so it gets no reads.
        scene.round(&[]);
        scene.rounds(6, &[(2, error.clone())]);
        assert_eq!(scene.roles(), "Pr", "{error}");
        assert_eq!(scene.barred(2), Some(Unreadable::Stale));
        assert!(scene.shown(2).health.is_up());
    }
}

#[test]
fn replicas_need_running_threads_and_a_known_source() {
    type Change = fn(&mut SourceFacts);
    let cases: [(&str, Change, Option<Unreadable>); 9] = [
        ("well", |_| {}, None),
        (
            "applier",
            |source| source.applier = ThreadState::Stopped,
            Some(Unreadable::ApplierStopped),
        ),
        (
            "receiver",
            |source| source.receiver = ThreadState::Stopped,
            Some(Unreadable::ReceiverStopped),
        ),
        (
            "delay",
            |source| source.delay = Duration::from_secs(60),
            Some(Unreadable::Delayed(Duration::from_secs(60))),
        ),
        (
            "other",
            |source| source.server_id = Some(77),
            Some(Unreadable::OtherSource),
        ),
        // Not connected yet: the configured address decides.
        ("address", |source| source.server_id = None, None),
        (
            "other address",
            |source| {
                source.server_id = None;
                source.port = 4000;
            },
            Some(Unreadable::OtherSource),
        ),
        // The address is an alias, the id is the proof.
        (
            "alias",
            |source| source.host = "primary.example".into(),
            None,
        ),
        (
            "short delay",
            |source| source.delay = Duration::from_secs(2),
            None,
        ),
    ];
    for (name, change, barred) in cases {
        let mut scene = Scene::started("rw ro:1");
        change(&mut scene.server(2).sources[0]);
        scene.round(&[]);
        assert_eq!(scene.barred(2), barred, "{name}");
    }
}

#[test]
fn lag_is_the_worse_of_what_is_told_and_what_is_proven() {
    // (primary's and replica's position, seconds told, lag in ms)
    let mut scene = Scene::started("rw ro:1");
    for (primary, replica, told, lag) in [
        ("0-1-10", "0-1-10", Some(0), Some(0)),
        ("0-1-10", "0-1-10", Some(3), Some(0)),
        ("0-1-10", "0-1-10", None, Some(0)),
        ("0-1-11", "0-1-10", Some(3), Some(3000)),
        ("0-1-11", "0-1-10", None, None),
        ("0-1-11", "0-1-10", Some(0), Some(500)),
        ("0-1-11", "0-1-10", Some(0), Some(750)),
        ("0-1-12", "0-1-11", Some(0), Some(0)),
    ] {
        scene.server(1).executed = maria(primary);
        scene.server(2).replicated = maria(replica);
        scene.server(2).sources[0].behind = told.map(Duration::from_secs);
        scene.round(&[]);
        assert_eq!(scene.lag(2), lag, "{primary} {replica} {told:?}");
    }
}

#[test]
fn a_replica_that_hangs_unnoticed_is_found_by_position() {
    let mut scene = Scene::started("rw ro:1");
    scene.server(1).executed = maria("0-1-11");
    // Nothing more is written: the replica says 0 s for ever.
    scene.rounds(21, &[]);
    assert_eq!(scene.roles(), "PR");
    scene.round(&[]);
    assert_eq!(scene.roles(), "Pr");
    assert!(matches!(scene.barred(2), Some(Unreadable::Lagging(_))));
    scene.rounds(400, &[]);
    assert_eq!(scene.roles(), "Pr");
    scene.server(2).replicated = maria("0-1-11");
    scene.round(&[]);
    assert_eq!((scene.roles().as_str(), scene.lag(2)), ("PR", Some(0)));
}

#[test]
fn old_differences_of_hand_made_replicas_do_not_count() {
    let mut scene = Scene::new("rw ro:1");
    scene.server(1).executed = maria("0-1-10,7-7-7");
    scene.rounds(40, &[]);
    assert_eq!((scene.roles().as_str(), scene.lag(2)), ("PR", Some(0)));
    scene.server(1).executed = maria("0-1-11,7-7-7");
    scene.rounds(40, &[]);
    assert_eq!(scene.roles(), "Pr");
    scene.server(2).replicated = maria("0-1-11");
    scene.round(&[]);
    assert_eq!(scene.roles(), "PR");
}

#[test]
fn a_replica_without_its_source_ages() {
    let mut scene = Scene::started("rw ro:1");
    // The primary goes on without it.
    scene.server(1).executed = maria("0-1-11");
    scene.server(2).sources[0].receiver = ThreadState::Connecting;
    scene.server(2).sources[0].behind = None;
    scene.rounds(20, &[]);
    assert_eq!((scene.roles().as_str(), scene.lag(2)), ("PR", Some(5000)));
    scene.round(&[]);
    assert_eq!(scene.roles(), "Pr");

    // Where nobody listens nothing is written: replicas go on with reads.
    let mut scene = Scene::started("rw ro:1");
    scene.server(2).sources[0].receiver = ThreadState::Connecting;
    scene.server(2).sources[0].behind = None;
    scene.rounds(100, &[(1, ProbeError::Refused)]);
    assert_eq!((scene.roles().as_str(), scene.lag(2)), ("pR", Some(250)));

    // One that is merely silent may be writing for others.
    let mut scene = Scene::started("rw ro:1");
    scene.server(2).sources[0].receiver = ThreadState::Connecting;
    scene.server(2).sources[0].behind = None;
    scene.rounds(100, &[(1, ProbeError::Timeout)]);
    assert_eq!(scene.roles(), "pr");

    // Never seen connected.
    let mut scene = Scene::new("rw ro:1");
    scene.server(2).replicated = maria("0-1-3");
    scene.server(2).sources[0].receiver = ThreadState::Connecting;
    scene.round(&[]);
    assert_eq!(scene.barred(2), Some(Unreadable::LagUnknown));
}

#[test]
fn chains_hold_only_while_every_link_runs() {
    let mut scene = Scene::started("rw ro:1 ro:2");
    assert_eq!(scene.roles(), "PRR");
    assert!(scene.shown(3).why.contains("through db2"));
    scene.server(2).sources[0].applier = ThreadState::Stopped;
    scene.round(&[]);
    assert_eq!(scene.barred(3), Some(Unreadable::BrokenChain));
    scene.server(2).sources[0].applier = ThreadState::Running;
    scene.round(&[(2, ProbeError::Refused)]);
    assert_eq!(scene.barred(3), Some(Unreadable::BrokenChain));

    // Without positions the delays of the links add up.
    let mut scene = Scene::new("rw ro:1 ro:2");
    for number in 1..=3 {
        let facts = scene.server(number);
        (facts.gtid, facts.executed, facts.replicated) = (false, None, None);
        for source in &mut facts.sources {
            source.behind = Some(Duration::from_secs(2));
        }
    }
    scene.round(&[]);
    assert_eq!((scene.lag(2), scene.lag(3)), (Some(2000), Some(4000)));
}

#[test]
fn old_answers_end_reads_but_not_the_primary() {
    let mut scene = Scene::started("rw ro:1");
    let epoch = scene.tracker.snapshot().epoch;
    scene.millis += 1000;
    assert!(!scene.tracker.tick(scene.now()).epoch);
    assert_eq!(scene.roles(), "PR");
    scene.millis += 1;
    let changed = scene.tracker.tick(scene.now());
    assert_eq!(
        changed.events,
        [Event::Reads {
            server: "db2".into(),
            barred: Some(Unreadable::Stale)
        }]
    );
    assert_eq!(
        (scene.roles().as_str(), scene.tracker.snapshot().epoch),
        ("Pr", epoch + 1)
    );
}

#[test]
fn progress_alone_does_not_raise_the_epoch() {
    let mut scene = Scene::started("rw ro:1");
    scene.rounds(2, &[]);
    let epoch = scene.tracker.snapshot().epoch;
    for sequence in 11..40 {
        scene.server(1).executed = maria(&format!("0-1-{sequence}"));
        scene.server(2).replicated = maria(&format!("0-1-{}", sequence - 1));
        scene.round(&[]);
    }
    let topology = scene.tracker.snapshot();
    assert_eq!(topology.epoch, epoch);
    assert_eq!(topology.servers[0].position, maria("0-1-39"));
    assert_eq!(topology.servers[1].position, maria("0-1-38"));
    assert_eq!(topology.servers[1].asked_at, Some(scene.now()));
}

#[test]
fn another_server_at_the_address_is_another_server() {
    let mut scene = Scene::started("rw ro:1");
    let before = scene.shown(2).incarnation;
    scene.server(2).server_id = 99;
    let changed = scene.probe(2);
    assert_eq!(
        changed.events[0],
        Event::Replaced {
            server: "db2".into()
        }
    );
    assert_eq!(scene.shown(2).incarnation, before + 1);
    // An old backup restored: same server, earlier position.
    scene.server(2).replicated = maria("0-1-3");
    scene.probe(2);
    assert_eq!(scene.shown(2).incarnation, before + 2);
    // The primary was replaced: its successor has to qualify like anybody at the start.
    scene.server(1).server_id = 98;
    scene.set_writable(1, false);
    scene.probe(1);
    assert_eq!(scene.tracker.snapshot().primary, None);
}

#[test]
fn mysql_sources_are_known_by_uuid() {
    let set = |text: &str| {
        let text = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{text}");
        Some(Arc::new(Position::MySql(
            GtidSet::parse(text.as_bytes()).unwrap(),
        )))
    };
    let mut scene = Scene::new("rw ro:1 ro:1");
    for number in 1..=3 {
        let facts = scene.server(number);
        facts.version = Version::parse("8.4.8").unwrap();
        // Ids that an operator forgot to make unique.
        facts.server_id = 1;
        facts.uuid = Some(format!("uuid-{number}").into());
        (facts.executed, facts.replicated) = (set("1-10"), set("1-10"));
        for source in &mut facts.sources {
            source.server_id = Some(1);
            source.uuid = Some("uuid-1".into());
        }
    }
    scene.server(3).sources[0].uuid = Some("uuid-9".into());
    scene.server(3).write_block = Some(WriteBlock::SuperReadOnly);
    scene.round(&[]);
    assert_eq!(scene.roles(), "PRr");
    assert_eq!(scene.barred(3), Some(Unreadable::OtherSource));
    scene.server(2).write_block = Some(WriteBlock::Offline);
    scene.round(&[]);
    assert_eq!(scene.barred(2), Some(Unreadable::Offline));
}

#[test]
fn the_greeting_has_the_lowest_version_of_the_primarys_family() {
    let mut scene = Scene::new("rw ro:1 ro:1");
    assert_eq!(scene.tracker.snapshot().greeting, None);
    scene.server(1).collation = 255;
    scene.server(2).version = Version::parse("10.6.4-MariaDB").unwrap();
    scene.server(3).version = Version::parse("8.0.1").unwrap();
    scene.round(&[]);
    let greeting = scene.tracker.snapshot().greeting.unwrap();
    assert_eq!(&*greeting.version.text, "10.6.4-MariaDB");
    assert_eq!((greeting.collation, greeting.gtid), (255, false));
    scene.server(3).version = Version::parse("12.1.1-MariaDB").unwrap();
    scene.round(&[(1, ProbeError::Refused)]);
    let greeting = scene.tracker.snapshot().greeting.unwrap();
    assert_eq!((greeting.collation, greeting.gtid), (255, true));
}

/// Heartbeats: each server shows one that was sent this many milliseconds after the start.
impl Scene {
    fn beat(&mut self, number: u16, millis: Option<u64>) {
        let at = millis.map(|millis| self.start + Duration::from_millis(millis));
        self.server(number).heartbeat = at;
    }

    /// So many rounds, in which the primary writes a beat each; those named have them at once.
    fn beats(&mut self, rounds: usize, reach: &[u16]) {
        for _ in 0..rounds {
            let sent = self.millis + 250;
            self.beat(1, Some(sent));
            for number in reach {
                self.beat(*number, Some(sent));
            }
            self.round(&[]);
        }
    }

    /// Without positions.
    fn without_positions(mut self) -> Self {
        for facts in &mut self.facts {
            (facts.gtid, facts.executed, facts.replicated) = (false, None, None);
        }
        self
    }
}

#[test]
fn heartbeats_measure_what_servers_do_not_say() {
    type Change = fn(&mut SourceFacts);
    let cases: [(&str, Change, Option<Unreadable>); 5] = [
        (
            "a link that hangs, of which the replica says 0 s",
            |_| {},
            None,
        ),
        (
            "a delay",
            |source| source.delay = Duration::from_secs(3),
            None,
        ),
        (
            "a long transaction, of which it says 60 s",
            |source| source.behind = Some(Duration::from_secs(60)),
            None,
        ),
        (
            "a stopped applier",
            |source| {
                source.applier = ThreadState::Stopped;
                source.behind = None;
            },
            Some(Unreadable::ApplierStopped),
        ),
        (
            "a stopped receiver",
            |source| {
                source.receiver = ThreadState::Stopped;
                source.behind = None;
            },
            Some(Unreadable::ReceiverStopped),
        ),
    ];
    for (name, change, barred) in cases {
        let mut scene = Scene::new("rw ro:1").without_positions();
        scene.beats(8, &[2]);
        assert_eq!(scene.lag(2), Some(0), "{name}");
        change(&mut scene.server(2).sources[0]);
        scene.beats(3, &[]);
        assert_eq!(
            (scene.lag(2), scene.barred(2)),
            (Some(750), barred),
            "{name}"
        );
        scene.beats(18, &[]);
        let lagging = Some(Unreadable::Lagging(Duration::from_millis(5250)));
        assert_eq!(scene.lag(2), Some(5250), "{name}");
        assert_eq!(scene.barred(2), barred.or(lagging), "{name}");
        scene.server(2).sources[0] = source(1);
        scene.beats(1, &[2]);
        assert_eq!((scene.lag(2), scene.barred(2)), (Some(0), None), "{name}");
    }
}

#[test]
fn heartbeats_go_through_chains() {
    let mut scene = Scene::new("rw ro:1 ro:2").without_positions();
    scene.beats(8, &[2, 3]);
    // The servers say nothing of it: the link to the middle one hangs, so both are behind.
    scene.beats(4, &[]);
    assert_eq!((scene.lag(2), scene.lag(3)), (Some(1000), Some(1000)));
    scene.beats(4, &[2]);
    assert_eq!((scene.lag(2), scene.lag(3)), (Some(0), Some(2000)));
}

#[test]
fn heartbeats_and_positions_correct_each_other() {
    let mut scene = Scene::new("rw ro:1");
    scene.beats(8, &[2]);
    // Committed out of order: the beat is there, a write before it is not.
    scene.server(1).executed = maria("0-1-11");
    scene.beats(3, &[2]);
    assert_eq!(scene.lag(2), Some(500));
    // A beat that is on its way makes nobody lag who has everything.
    scene.server(2).replicated = maria("0-1-11");
    scene.beats(2, &[]);
    assert_eq!(scene.lag(2), Some(0));
}

#[test]
fn without_heartbeats_the_other_ways_count() {
    // (the replica's and the primary's beats when 3 s are said, lag)
    let told = Some(3000);
    for (name, replica, primary, lag) in [
        ("both beat", Some(2250), Some(2250), Some(0)),
        ("no row there", None, Some(2250), told),
        ("none on the primary", Some(2250), None, told),
        ("none any more", Some(1000), Some(1000), told),
        ("ahead of the primary", Some(2250), Some(2000), Some(0)),
    ] {
        let mut scene = Scene::new("rw ro:1").without_positions();
        scene.rounds(8, &[]);
        scene.server(2).sources[0].behind = Some(Duration::from_secs(3));
        scene.beat(1, primary);
        scene.beat(2, replica);
        scene.round(&[]);
        assert_eq!(scene.lag(2), lag, "{name}");
    }
    // Filters leave them out.
    let mut scene = Scene::new("rw ro:1").without_positions();
    scene.beats(4, &[2]);
    scene.server(2).sources[0].filters = Arc::new(Filters {
        ignore_schemas: vec!["dbproxy".to_owned()],
        ..Filters::default()
    });
    scene.beats(40, &[]);
    assert_eq!((scene.lag(2), scene.barred(2)), (Some(0), None));
}

#[test]
fn an_idle_or_silent_primary_makes_nobody_lag() {
    // Its probes go on, and its beats do not: nothing is written for hours.
    let mut scene = Scene::started("rw ro:1");
    scene.millis += 7_200_000;
    scene.rounds(8, &[]);
    assert_eq!((scene.lag(2), scene.barred(2)), (Some(0), None));
    // Beats that cannot be written are not lag.
    let mut scene = Scene::new("rw ro:1").without_positions();
    scene.beats(4, &[2]);
    scene.rounds(40, &[]);
    assert_eq!((scene.lag(2), scene.barred(2)), (Some(0), None));
    let silent = (1, ProbeError::Timeout);
    scene.beats(4, &[2]);
    scene.rounds(40, &[silent]);
    assert_eq!((scene.roles().as_str(), scene.lag(2)), ("pR", Some(0)));
}

#[test]
fn lag_by_position_is_known_to_a_quarter_of_a_second() {
    let mut scene = Scene::new("rw ro:1");
    scene.rounds(4, &[]);
    for sequence in 11..200 {
        let executed = maria(&format!("0-1-{sequence}"));
        scene.server(1).executed = executed;
        scene.round(&[]);
    }
    // A write for each round: who lacks the last n of them lacks something since n rounds ago, and less by one.
    for behind in 1..40_u64 {
        scene.server(2).replicated = maria(&format!("0-1-{}", 199 - behind));
        scene.probe(2);
        let lag = scene.lag(2).unwrap();
        let exact = (behind - 1) * 250;
        assert!((exact..=exact + 500).contains(&lag), "{behind}: {lag}");
    }
}

#[test]
fn what_is_left_out_on_the_way_is_known() {
    let without = |schema: &str| {
        Arc::new(Filters {
            ignore_schemas: vec![schema.to_owned()],
            ..Filters::default()
        })
    };
    let mut scene = Scene::new("rw ro:1 ro:2");
    scene.server(1).unlogged = without("a");
    scene.server(2).sources[0].filters = without("b");
    scene.server(2).unlogged = without("c");
    scene.server(3).sources[0].filters = without("d");
    scene.round(&[]);
    let lacks = |number: u16| {
        let server = scene.shown(number);
        let schemas = ["a", "b", "c", "d", "e"].into_iter();
        schemas
            .filter(|schema| !server.has_table(schema, "t"))
            .collect::<String>()
    };
    assert_eq!([lacks(1), lacks(2), lacks(3)], ["", "ab", "abcd"]);
    assert!(!scene.shown(1).is_filtered() && scene.shown(3).is_filtered());
    assert!(!Scene::started("rw ro:1").shown(2).is_filtered());
}
