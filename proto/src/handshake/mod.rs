//! Logging in, from both sides.
