//! What the servers are: facts in, one immutable picture out.
//!
//! [`Tracker`] folds [`Observation`]s into roles, health, lag and eligibility; it reads no clock and does no IO.
//! [`Topology`] is the picture that everybody else works with, published whole on each change.

mod filters;
mod observation;
mod replication;
mod snapshot;
mod tracker;
mod version;

pub use filters::Filters;
pub use observation::{
    Contact, Defaults, EpochRow, Observation, ProbeError, SemiSync, ServerFacts, SourceFacts,
    ThreadState, WriteBlock, WriteProbe,
};
pub use snapshot::{
    Decree, Gate, Greeting, Health, Lag, Role, Server, ServerId, Topology, Unreadable,
};
pub use tracker::{Changed, Event, Tracker};
pub use version::{Flavor, Version};
