//! Where the pure checks meet the machine: the file, the environment, the processor.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::thread;

use zeroize::Zeroizing;

use super::check;
use super::problem::Loaded;
use super::problem::Problem;
use super::problem::Problems;
use super::problem::Severity;
use super::secret::SecretFile;
use super::secret::Sources;

/// Reads and checks a file. A relative `file:PATH` in it starts at the file's own directory.
///
/// # Errors
/// All the problems, in the order of their places; an unreadable file is one.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let file = path.display().to_string();
    let general = |severity, message: String, suggestion| Problem {
        severity,
        file: file.clone(),
        place: None,
        key: String::new(),
        message,
        suggestion,
    };
    let text = fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| {
            Problems(vec![general(
                Severity::Error,
                format!("cannot read the file: {error}"),
                None,
            )])
        })?;
    let process = Process {
        directory: path.parent().map(Path::to_path_buf).unwrap_or_default(),
    };
    let (mut loaded, literal_secret) = check::parse_noting_literals(&text, &file, &process)?;
    let open = fs::metadata(path).is_ok_and(|metadata| world_readable(&metadata));
    if literal_secret && open {
        let message = "holds a password, and every account of this machine can read it".to_owned();
        let suggestion = Some(format!("chmod o= {file}"));
        loaded
            .warnings
            .push(general(Severity::Warning, message, suggestion));
    }
    Ok(loaded)
}

/// What changes when a file does; of one that is not there, nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMark(Option<(i64, i64, u64, u64)>);

impl FileMark {
    /// That of a file as it is now.
    pub fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok();
        Self(metadata.map(|metadata| {
            (
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.len(),
                metadata.ino(),
            )
        }))
    }
}

/// This process's environment and files.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Where relative paths start.
    pub directory: PathBuf,
}

impl Sources for Process {
    fn variable(&self, name: &str) -> Option<String> {
        env::var(name).ok()
    }

    fn file(&self, path: &Path) -> io::Result<SecretFile> {
        let path = self.directory.join(path);
        let text = Zeroizing::new(fs::read_to_string(&path)?);
        let world_readable = world_readable(&fs::metadata(&path)?);
        Ok(SecretFile {
            text,
            world_readable,
        })
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    fn program(&self, path: &Path) -> Result<(), String> {
        match fs::metadata(path) {
            Err(error) => Err(format!("cannot be read: {error}")),
            Ok(metadata) if !metadata.is_file() => Err("is not a file".to_owned()),
            Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
                Err("is not executable: chmod +x".to_owned())
            }
            Ok(_) => Ok(()),
        }
    }

    fn cores(&self) -> usize {
        thread::available_parallelism().map_or(1, usize::from)
    }
}

fn world_readable(metadata: &fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o004 != 0
}
