//! Read buffers that are lent to a connection while bytes are on their way.

use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;

/// A worker's free list of buffers.
///
/// A connection takes a buffer when its socket becomes readable and gives it
/// back as soon as nothing is left in it, so that an idle connection holds none.
#[derive(Debug, Default)]
pub struct Buffers {
    // Only the worker's own thread uses it: the lock is never contended.
    free: Mutex<Vec<BytesMut>>,
}

impl Buffers {
    /// Bytes of a buffer as it is first lent.
    pub const SMALL: usize = 16 * 1024;
    /// Bytes that a buffer may grow to while it is used for one connection's results.
    pub const LARGE: usize = 256 * 1024;
    /// Buffers kept for the next use; more are given back to the allocator.
    const KEPT: usize = 64;

    /// An empty buffer with room for at least [`Self::SMALL`] bytes.
    pub fn lend(&self) -> BytesMut {
        let reused = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        reused.unwrap_or_else(|| BytesMut::with_capacity(Self::SMALL))
    }

    /// Takes a buffer back. One that grew is dropped, as is one too many.
    pub fn give_back(&self, mut buffer: BytesMut) {
        buffer.clear();
        // What was split off or advanced over comes back when the buffer is its memory's only owner.
        if !buffer.try_reclaim(Self::SMALL) || buffer.capacity() > 2 * Self::SMALL {
            return;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < Self::KEPT {
            free.push(buffer);
        }
    }
}
