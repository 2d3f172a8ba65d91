//! Probes: what is asked of the servers, and when.
