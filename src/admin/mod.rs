//! The operator's console: orders come in over a unix socket, and answers go out.
//!
//! A client sends a line with one order ([`orders`]) and gets a line with one [`Answer`], as often as it likes.

mod desk;
pub mod orders;
mod socket;

pub use desk::{Answer, Desk};
pub use socket::{Door, FILE};
