//! The file that keeps what was observed.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
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

/// Replaces the file in `directory`, which is made if need be: whole or not at all, and readable for this account alone.
///
/// # Errors
/// Those of the system.
pub fn keep(directory: &Path, observations: &Observations) -> io::Result<()> {
    const MODE: u32 = 0o600;
    let text = observations.to_json()?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    let unfinished = directory.join(format!("{FILE}.{}", std::process::id()));
    // Left behind by an earlier process of this number.
    let _ = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&unfinished)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(FILE))
}
