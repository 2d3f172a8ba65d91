//! Body of the fuzz target: classification of any bytes.

use super::{Dialect, classify};

/// Runs everything in this room that reads foreign bytes over `data`.
///
/// The first byte chooses the dialect. Panics are findings.
pub fn run(data: &[u8]) {
    let _ = classify(data, Dialect::default());
}
