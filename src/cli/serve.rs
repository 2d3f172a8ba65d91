//! `dbproxy serve`: runs the proxy until a signal ends it.

use std::io;

use clap::Args;
#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{ConfigFile, Failure, Status, log};
use crate::app;

/// What to serve.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    keep_out_of_cores()?;
    let loaded = super::load(&arguments.file.config)?;
    log::start(&loaded.config.log).map_err(Failure::Other)?;
    for warning in &loaded.warnings {
        warn!(problem = %warning, "configuration");
    }
    super::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
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
            result = app::run(loaded.config, stop) => {
                result.map(|()| Status::Fine).map_err(|error| Failure::Other(error.to_string()))
            }
            second = twice => Err(Failure::Other(format!("stopped at once by a second {second}"))),
        }
    })
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
