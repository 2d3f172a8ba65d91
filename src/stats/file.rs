//! The file that keeps what was observed.

use std::fs;
use std::io;
use std::path::Path;

use super::{Observations, Unusable};

/// Its name in the state directory.
pub const FILE: &str = "observe.json";

/// Reads a file.
///
/// # Errors
/// Those of the system; a file that is something else, or cannot be understood, is [`io::ErrorKind::InvalidData`] with the
/// reason in words.
pub fn read(file: &Path) -> io::Result<Observations> {
    let invalid = |why: Unusable| io::Error::new(io::ErrorKind::InvalidData, why.to_string());
    Observations::from_json(&fs::read(file)?).map_err(invalid)
}
