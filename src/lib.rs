//! dbproxy: a MySQL-protocol proxy that knows replication.
//!
//! Each module is a room of the house; `tests/architecture.rs` holds the floors:
//! a room imports only rooms on lower floors.

pub mod accounts;
pub mod admin;
pub mod app;
pub mod backend;
pub mod cli;
pub mod config;
pub mod control;
pub mod error;
pub mod failover;
pub mod monitor;
pub mod net;
pub mod pool;
pub mod routing;
pub mod session;
pub mod shutdown;
pub mod sql;
pub mod state;
pub mod stats;
pub mod topology;
