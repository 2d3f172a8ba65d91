//! `dbproxy serve`: runs the proxy until a signal ends it, and reads its configuration again when that changes.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{ConfigFile, Failure, Status, log};
use crate::{
    app,
    config::{Config, FileMark},
};

/// What to serve.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    keep_out_of_cores()?;
    // Before it is read: a change in between is not missed.
    let seen = FileMark::of(&arguments.file.config);
    let loaded = super::load(&arguments.file.config)?;
    log::start(&loaded.config.log).map_err(Failure::Other)?;
    for warning in &loaded.warnings {
        warn!(problem = %warning, "configuration");
    }
    super::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let (changed, news) = mpsc::channel(1);
        let reloading = Reload::new(&arguments.file.config, seen)?;
        tokio::spawn(reloading.follow(changed));
        let (order, ordered) = oneshot::channel();
        let stop = async {
            // An error means that nobody is left who could order it.
            let _ = ordered.await;
        };
        let twice = async {
            let first = signals.next().await;
            info!(signal = first, "stopping; a second signal stops at once");
            let _ = order.send(());
            signals.next().await
        };
        tokio::select! {
            result = app::run(loaded.config, news, stop) => {
                result.map(|()| Status::Fine).map_err(|error| Failure::Other(error.to_string()))
            }
            second = twice => Err(Failure::Other(format!("stopped at once by a second {second}"))),
        }
    })
}

/// How often the file is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// The configuration's file, and when it was last read.
struct Reload {
    path: PathBuf,
    seen: Seen<FileMark>,
    hangup: Signal,
}

/// What the looks at a file have shown, by a mark that changes when it does.
struct Seen<M> {
    /// When it was last read.
    read: M,
    /// At the last look.
    last: M,
}

impl<M: Copy + PartialEq> Seen<M> {
    fn new(read: M) -> Self {
        Self { read, last: read }
    }

    /// Whether a file that looks like this is to be read: it has changed, and whoever changes it seems to be done, since it
    /// looked the same before.
    fn wants_reading(&mut self, now: M) -> bool {
        let stands = self.last == now;
        self.last = now;
        let wants = stands && self.read != now;
        if wants {
            self.read = now;
        }
        wants
    }
}

impl Reload {
    fn new(path: &Path, seen: FileMark) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            seen: Seen::new(seen),
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Reads the file again when it has changed and when SIGHUP asks for it, until nobody listens any more. One that cannot be
    /// used changes nothing.
    async fn follow(mut self, changed: mpsc::Sender<Config>) {
        while !changed.is_closed() {
            let asked = timeout(PERIOD, self.hangup.recv()).await.is_ok();
            let now = FileMark::of(&self.path);
            if asked {
                self.seen = Seen::new(now);
            } else if !self.seen.wants_reading(now) {
                continue;
            }
            match super::load(&self.path) {
                Ok(loaded) => {
                    for warning in &loaded.warnings {
                        warn!(problem = %warning, "configuration");
                    }
                    // An error says that the program is about to end.
                    let _ = changed.send(loaded.config).await;
                }
                Err(Failure::Config(problems)) => {
                    for problem in &problems.0 {
                        error!(%problem, "the configuration was changed and cannot be used: the old one stays");
                    }
                }
                Err(failure) => {
                    error!(%failure, "the configuration cannot be read: the old one stays")
                }
            }
        }
    }
}

/// The memory holds passwords: whatever ends the program, it is not to be found in a file afterwards.
fn keep_out_of_cores() -> io::Result<()> {
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, nothing)?;
    // Programs that the system hands cores to do not ask for the limit.
    #[cfg(target_os = "linux")]
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// The signals that end the program.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them and names it.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_it_stands_still() {
        let at = |len| Some((1, 0, len, 1));
        let mut seen = Seen::new(at(10));
        for (now, wants) in [
            (at(10), false),
            // Being written.
            (at(0), false),
            (at(4), false),
            (at(9), false),
            (at(9), true),
            (at(9), false),
            // Replaced by nothing, which is told once.
            (None, false),
            (None, true),
            (None, false),
            // Back as it was.
            (at(9), false),
            (at(9), true),
        ] {
            assert_eq!(seen.wants_reading(now), wants, "{now:?}");
        }
    }
}
