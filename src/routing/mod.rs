//! Where a statement goes, and why.
//!
//! [`decide`] is pure: the class of the statement, the state of the session and the picture of the
//! servers go in, a [`Route`] with its [`Reason`] comes out. [`pin_for`] says which statements tie
//! the session to its connection.

mod balance;
pub mod clusters;
mod decide;
mod hedge;
mod held;
mod pin;
mod reading;
mod reason;
pub mod rewrite;
pub mod rules;
mod wish;

pub use balance::{Candidate, Load, Pace, Turn, pick};
pub use decide::{Freshness, Route, SessionView, Target, decide};
pub use hedge::Tail;
pub use held::Held;
pub use pin::{PinReason, may_change_variables, pin_for, pin_for_set};
pub use reading::{Reading, begins_reading};
pub use reason::Reason;
pub use wish::{Author, Place, Wish};
