//! A cluster, its network, its clients and the program that looks after it, in a time of its own.

pub(crate) mod actions;
pub(crate) mod checks;
pub(crate) mod clients;
pub(crate) mod faults;
pub(crate) mod manager;
pub(crate) mod matrix;
pub(crate) mod mutations;
pub(crate) mod network;
pub(crate) mod replication;
pub(crate) mod rng;
pub(crate) mod runs;
pub(crate) mod servers;
pub(crate) mod setup;
pub(crate) mod world;

/// Microseconds since the world began.
pub(crate) type Time = u64;

pub(crate) const MILLI: Time = 1000;
pub(crate) const SECOND: Time = 1_000_000;
