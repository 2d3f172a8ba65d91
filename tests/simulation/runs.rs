//! Whole runs: a seed, or a scenario that somebody has written down.

use tokio::time::Instant;

use super::faults::Fault;
use super::mutations::Mutation;
use super::rng::Rng;
use super::setup::Setup;
use super::world::{Event, World};
use super::{MILLI, SECOND, Time};

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) log: Vec<String>,
    pub(crate) failovers: u32,
    pub(crate) writes: usize,
    pub(crate) lost: u32,
    pub(crate) took: Time,
    /// The primary in the end, and whether a plan of this kind was begun.
    pub(crate) primary: Option<usize>,
    pub(crate) journal: String,
    /// What operators were told.
    pub(crate) answers: String,
}

/// Everything that a seed decides.
pub(crate) fn seed(seed: u64, mutation: Option<Mutation>, base: Instant, log: bool) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut setup = Setup::draw(&mut rng);
    if let Some(mutation) = mutation {
        mutation.stage(&mut setup);
    }
    let faults: Vec<(Time, Fault)> = (0..rng.between(1, 5))
        .map(|_| {
            let at = rng.between(1500, 14_000) * MILLI;
            (at, Fault::draw(&mut rng, &setup))
        })
        .collect();
    run(
        setup,
        &faults,
        16 * SECOND + rng.below(14) * SECOND,
        mutation,
        rng,
        base,
        log,
    )
}

/// A run with these faults, which end at that time.
pub(crate) fn run(
    setup: Setup,
    faults: &[(Time, Fault)],
    calm: Time,
    mutation: Option<Mutation>,
    rng: Rng,
    base: Instant,
    log: bool,
) -> Outcome {
    let mut world = World::new(setup, rng, base, log);
    world.mutation = mutation;
    world.note_setup();
    for (at, fault) in faults {
        world.at(*at, Event::Fault(*fault));
    }
    world.at(calm, Event::Calm);
    let violation = world.run(1000 * SECOND).err();
    Outcome {
        violation,
        failovers: world.checks.failovers,
        writes: world.checks.writes(),
        lost: world.checks.lost,
        took: world.now,
        primary: world.primary().map(|id| id.index()),
        journal: world
            .manager
            .entries
            .iter()
            .map(|entry| format!("{} {}\n", entry.kind, entry.text))
            .collect(),
        answers: format!("{:?}", world.manager.answers),
        log: world.log.unwrap_or_default(),
    }
}

impl World {
    fn note_setup(&mut self) {
        let setup = format!("{:?}", self.setup);
        self.note(|| setup);
    }
}
