//! Keeping what rules have learned.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{error::Error, session::Firewall, state};

/// The file in the state directory.
const FILE: &str = "firewall.json";

/// How often what is new is written.
const PERIOD: Duration = Duration::from_secs(2);

/// What rules have learned, and where that is kept.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) firewall: Arc<Firewall>,
    directory: PathBuf,
    /// Whoever writes: what is newer is written later.
    writing: Arc<Mutex<()>>,
}

impl Keeper {
    /// Reads what was learned before.
    ///
    /// Errors: a file that cannot be read. Going on without it would refuse what was learned, or learn it anew.
    pub(super) fn new(directory: &Path) -> Result<Self, Error> {
        let file = directory.join(FILE);
        let firewall = match fs::read_to_string(&file) {
            Ok(text) => Firewall::read(&text).map_err(|why| {
                let file = file.display();
                Error::setup(format!(
                    "{file} does not hold what a firewall has learned ({why}): move it away to begin anew"
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Firewall::default(),
            Err(error) => {
                return Err(Error::setup(format!("cannot read {}: {error}", file.display())));
            }
        };
        Ok(Self {
            firewall: Arc::new(firewall),
            directory: directory.to_owned(),
            writing: Arc::default(),
        })
    }

    /// Writes what is new, from time to time.
    pub(super) async fn keep(self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            ticks.tick().await;
            // Away from this thread, which has servers to watch: a disk may be slow.
            let keeper = self.clone();
            let saved = spawn_blocking(move || keeper.save()).await;
            let saved = saved.unwrap_or_else(|error| Err(io::Error::other(error)));
            match &saved {
                Err(error) if !failed => {
                    let directory = self.directory.display();
                    warn!(%directory, %error, "what rules have learned cannot be kept: set state_directory");
                }
                Ok(()) if failed => info!("what rules have learned is kept again"),
                _ => {}
            }
            failed = saved.is_err();
        }
    }

    /// Writes what is new for the last time.
    pub(super) fn finish(&self) {
        if let Err(error) = self.save() {
            error!(%error, "what rules have learned lately is lost");
        }
    }

    fn save(&self) -> io::Result<()> {
        // It guards a file that is replaced whole.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(text) = self.firewall.write() else {
            return Ok(());
        };
        state::write(&self.directory, FILE, text.as_bytes(), 0o600)
            .inspect_err(|_| self.firewall.not_kept())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::{runtime, task::yield_now};

    use super::*;

    #[test]
    fn a_slow_disk_holds_nobody_else_up() {
        let directory = std::env::temp_dir().join(format!("dbproxy-keep-{}", std::process::id()));
        let keeper = Keeper::new(&directory).unwrap();
        let writing = Arc::clone(&keeper.writing);
        let disk = writing.lock().unwrap();
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        // On this thread it would wait for the disk for ever.
        runtime.block_on(async {
            let keeping = tokio::spawn(keeper.keep());
            yield_now().await;
            keeping.abort();
        });
        drop(disk);
    }
}
