//! Listeners, streams and the buffers that bytes pass through.

mod buffers;
mod listener;
mod stream;

pub use buffers::Buffers;
pub use listener::{Accepted, Listener};
pub use stream::{Peer, Stream};
