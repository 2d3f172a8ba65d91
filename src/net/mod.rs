//! Listeners and streams.
