//! Listeners, streams and the buffers that bytes pass through.

mod buffers;
mod compression;
pub mod conversation;
#[doc(hidden)]
pub mod fuzz;
mod layer;
mod listener;
pub mod proxy_header;
mod socket;
mod stream;
pub mod tls;

pub use buffers::Buffers;
pub use listener::{Accepted, Entrance, Listener, listen_unix};
pub use stream::{Departure, Peer, Stream};
