//! `dbproxy check`: is the configuration right, and can the servers do what it needs of them?

use std::io::Write;

use clap::Args;

use super::{ConfigFile, Failure, Status};

/// What to check.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Status, Failure> {
    let loaded = super::load(&arguments.file.config)?;
    for warning in &loaded.warnings {
        writeln!(out, "{warning}")?;
    }
    writeln!(out, "{}: valid", arguments.file.config.display())?;
    Ok(Status::Fine)
}
