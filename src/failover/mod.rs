//! Whether the primary has failed, who is to follow it, and what has to be done: all of it as data.
//!
//! Nothing here does input or output, or reads a clock. [`Failover`] is fed with what the monitors see, with the time and with
//! what became of its steps, and answers with [`Output`]s; whoever carries these out (`control`, or a simulation) decides
//! nothing.
//!
//! What is relied on:
//! - A reign is a row, `dbproxy.epoch`, whose number grows with each change of the primary. It is the first transaction that
//!   the new primary commits, and what decides whether a plan that was interrupted is finished or undone.
//! - Before anything is done that cannot be taken back, the number is put down on every server that answers (the ballot),
//!   over the connection that holds the server's lock.
//! - The proxy's own sessions are cut off from the old primary first, so that nothing it says later reaches a client.

mod action;
mod begin;
mod candidate;
mod ended;
mod evidence;
mod machine;
mod member;
mod plan;
mod policy;
mod reign;

pub use action::{Action, Credentials, statements};
pub use candidate::{Choice, Question, Refusal, Unfit, choose};
pub use evidence::{Death, Evidence, Verdict};
pub use machine::{Entry, Failover, Input, Order, Output, Reply};
pub use member::{Member, Promote};
pub use plan::{Act, Done, Failure, Hook, Job, Need, Plan, Purpose, Report, Step};
pub use policy::{Hooks, Mode, Policy};
pub use reign::Reign;

pub use crate::topology::{Decree, Gate};
