//! Keeping what was observed: collected from the workers, and written to the state directory.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    select,
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    config::{Config, Mode},
    error::Error,
    session::Observer,
    state,
    stats::{self, Observations},
};

/// How often it is written, if there is anything new.
const PERIOD: Duration = Duration::from_secs(3);

/// The workers' observers, and the file for what they observe.
pub(super) struct Observing {
    observers: Vec<Arc<Observer>>,
    end: oneshot::Sender<()>,
    keeping: JoinHandle<()>,
}

impl Observing {
    /// Begins, if the configuration says so. What an earlier process has kept is continued.
    ///
    /// Errors: it could not be kept, or something else is in its place.
    pub(super) fn begin(config: &Config) -> Result<Option<Self>, Error> {
        if config.mode != Mode::Observe {
            return Ok(None);
        }
        let directory = config.state_directory().to_path_buf();
        let observations = kept(config)?;
        keep(&directory, &observations).map_err(|error| unusable(&directory, &error))?;
        info!(
            file = %directory.join(stats::FILE).display(),
            "observing: everything goes to the primary; see dbproxy observe-report"
        );
        let observers: Vec<_> = (0..config.workers)
            .map(|worker| Arc::new(Observer::new(config.observe.sample, seed(worker))))
            .collect();
        let (end, ended) = oneshot::channel();
        let record = Record {
            directory,
            observations,
            observers: observers.clone(),
        };
        Ok(Some(Self {
            observers,
            end,
            keeping: tokio::spawn(record.keep_up(ended)),
        }))
    }

    /// The observer of a worker.
    pub(super) fn observer(&self, worker: usize) -> Option<Arc<Observer>> {
        self.observers.get(worker).cloned()
    }

    /// Writes what is left.
    pub(super) async fn end(self) {
        // It listens until the end.
        let _ = self.end.send(());
        let _ = self.keeping.await;
    }
}

struct Record {
    directory: PathBuf,
    observations: Observations,
    observers: Vec<Arc<Observer>>,
}

impl Record {
    async fn keep_up(mut self, mut ended: oneshot::Receiver<()>) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            let last = select! {
                _ = ticks.tick() => false,
                _ = &mut ended => true,
            };
            let mut news = failed;
            for observer in &self.observers {
                let collected = observer.collect();
                news |= !collected.is_empty();
                self.observations.merge(collected);
            }
            if news {
                match self.write().await {
                    Ok(()) => failed = false,
                    // Once, not at each attempt.
                    Err(error) if !failed => {
                        failed = true;
                        warn!(
                            directory = %self.directory.display(), %error,
                            "what was observed cannot be written: it is tried again"
                        );
                    }
                    Err(_) => {}
                }
            }
            if last {
                return;
            }
        }
    }

    /// Away from this thread, which has servers to watch: a disk may be slow.
    async fn write(&self) -> io::Result<()> {
        let directory = self.directory.clone();
        let observations = self.observations.clone();
        let written = spawn_blocking(move || keep(&directory, &observations)).await;
        written.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// Replaces the file, for this account alone to read.
fn keep(directory: &Path, observations: &Observations) -> io::Result<()> {
    state::write(directory, stats::FILE, &observations.to_json()?, 0o600)
}

/// What was kept so far.
///
/// Errors: there is something else, or it cannot be read.
pub(crate) fn kept(config: &Config) -> Result<Observations, Error> {
    let directory = config.state_directory();
    let file = directory.join(stats::FILE);
    match stats::read(&file) {
        Ok(observations) => Ok(observations),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(Observations::default()),
            io::ErrorKind::InvalidData => Err(Error::setup(format!(
                "mode = \"observe\" would continue {}, which cannot be used: {error}; move it away",
                file.display()
            ))),
            _ => Err(unusable(directory, &error)),
        },
    }
}

fn unusable(directory: &Path, error: &io::Error) -> Error {
    Error::setup(format!(
        "mode = \"observe\" needs a directory to keep its record in: {}: {error}; set state_directory",
        directory.display()
    ))
}

/// Another number for each worker and each start.
fn seed(worker: usize) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(worker)
}
