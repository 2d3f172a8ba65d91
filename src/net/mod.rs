//! Listeners, streams and the buffers that bytes pass through.

mod buffers;
pub mod conversation;
mod listener;
mod stream;

pub use buffers::Buffers;
pub use listener::{Accepted, Listener};
pub use stream::{Peer, Stream};
