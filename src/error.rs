//! The error type of the proxy: kind, origin and what to do.
