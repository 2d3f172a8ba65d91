//! Private directories that do not outlive the process, and the processes in them that must not either.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cli::demo::programs;

/// A directory for one run, readable by this user only, in memory where the system offers that.
///
/// When it is dropped, or this process ends in any way at all, every process whose number stands in a file
/// `pid` one level below (`<directory>/*/pid`) is killed and the directory is removed.
#[derive(Debug)]
pub struct PrivateDirectory {
    path: PathBuf,
    watchdog: Child,
    /// Closed by the system when this process ends: the watchdog's signal to act.
    alive: Option<ChildStdin>,
}

impl PrivateDirectory {
    /// Makes the directory and its watchdog.
    ///
    /// # Errors
    /// What the system says when neither can be made.
    pub fn create() -> io::Result<Self> {
        let path = unique_directory()?;
        // A shell waits for the end of its input, which comes when this process is gone, however it went.
        let script = r#"while read -r _; do :; done
for file in "$1"/*/pid; do [ -s "$file" ] && kill -KILL "$(cat "$file")"; done
rm -rf -- "$1" || rm -rf -- "$1""#;
        let mut watchdog = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let alive = watchdog.stdin.take();
        Ok(Self {
            path,
            watchdog,
            alive,
        })
    }

    /// Where it is: an absolute path, short enough for unix sockets below it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        drop(self.alive.take());
        // Nothing can be done about a failure here; the watchdog works on its own.
        let _ = self.watchdog.wait();
    }
}

/// Makes a directory below `/dev/shm` or the temporary directory that nobody had before.
fn unique_directory() -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dbproxy-{}-{count}", std::process::id());
        let in_memory = Path::new("/dev/shm").join(&name);
        let result = match private(&in_memory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let path = env::temp_dir().join(&name);
                private(&path).map(|()| path)
            }
            other => other.map(|()| in_memory),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
}

fn private(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// The directory that this user's runs share: data directory templates and the ports in use.
///
/// # Errors
/// What the system says; also when the directory belongs to somebody else.
pub(super) fn shared() -> io::Result<PathBuf> {
    let user = programs::user_id().unwrap_or_default();
    let create = |path: &Path| DirBuilder::new().mode(0o700).recursive(true).create(path);
    let cache = programs::cache_directory().filter(|path| create(path).is_ok());
    let path = match cache {
        Some(path) => path,
        // A user without a home can have no cache there.
        None => {
            let path = env::temp_dir().join(format!("dbproxy-{user}"));
            create(&path)?;
            path
        }
    };
    if fs::metadata(&path)?.uid() != user {
        let reason = format!("{} belongs to another user", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(path)
}
