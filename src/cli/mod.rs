//! The subcommands, one file each.
//!
//! A command writes its results to standard output and everything else to standard error. It ends with status 0 if all
//! is well, 1 if it found problems or failed, 2 if it was called wrongly.

mod admin;
mod check;
pub mod demo;
mod explain;
pub mod import;
mod log;
mod observe_report;
mod serve;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tokio::runtime::{self, Runtime};

use crate::config::{self, Loaded, Problems};

/// The configuration that is read when none is named.
const DEFAULT_FILE: &str = "dbproxy.toml";

/// A replication-aware proxy for MySQL and MariaDB.
#[derive(Debug, Parser)]
#[command(name = "dbproxy", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration, the servers and what the monitor account may see
    Check(check::Arguments),
    /// Say where statements would go, and why
    Explain(explain::Arguments),
    /// Turn another proxy's configuration into one for dbproxy
    Import(import::Arguments),
    /// Say what mode = "observe" has found, and whether reads can be switched on
    ObserveReport(observe_report::Arguments),
    /// Give orders to a dbproxy that runs here: SWITCHOVER, FAILOVER, STATUS and others
    Admin(admin::Arguments),
    /// Serve clients
    Serve(serve::Arguments),
    /// Start a primary, two replicas and the proxy on this machine, and show what it does
    Demo(demo::Arguments),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// All is well.
    Fine,
    /// The command did its work and found problems.
    Problems,
}

/// Why a command could not do its work.
#[derive(Debug)]
enum Failure {
    /// The configuration cannot be used.
    Config(Problems),
    /// Standard output, a file or the system failed.
    Io(io::Error),
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => problems.fmt(f),
            Self::Io(error) => write!(f, "dbproxy: {error}"),
            Self::Other(text) => write!(f, "dbproxy: {text}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Runs the program with these arguments, the first of which is its name.
pub fn run<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let mut out = io::stdout().lock();
    let result = match &arguments.command {
        Command::Admin(arguments) => admin::run(arguments, &mut out),
        Command::Check(arguments) => check::run(arguments, &mut out),
        Command::Explain(arguments) => explain::run(arguments, &mut out),
        Command::Import(arguments) => import::run(arguments, &mut out),
        Command::ObserveReport(arguments) => observe_report::run(arguments, &mut out),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Demo(arguments) => demo::run(arguments, &mut out),
    };
    let result = result.and_then(|status| out.flush().map(|()| status).map_err(Failure::from));
    match result {
        Ok(Status::Fine) => ExitCode::SUCCESS,
        Ok(Status::Problems) => ExitCode::FAILURE,
        // The reader, such as `head`, has seen enough.
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure);
            ExitCode::FAILURE
        }
    }
}

/// One line, or several, to standard error. A closed one is no reason to fail.
fn say(text: &dyn fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A runtime for the calling thread.
fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

/// Reads the configuration for a command.
fn load(file: &Path) -> Result<Loaded, Failure> {
    config::load(file).map_err(Failure::Config)
}
