//! The single writer of the topology.
