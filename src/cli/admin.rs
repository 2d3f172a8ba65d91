//! `dbproxy admin`: an operator's orders for a dbproxy that runs on this machine.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{ConfigFile, Failure, Status};
use crate::admin::{self, Answer, orders};

/// No answer is longer.
const LONGEST: u64 = 16 << 20;

/// What to order, and of which dbproxy.
#[derive(Debug, Args)]
#[command(after_help = format!("Orders:\n{}", orders::USAGE))]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,

    /// The orders, with semicolons between them; without this they are read from standard input, one a line
    #[arg(short, long, value_name = "ORDERS")]
    execute: Option<String>,

    /// The socket of the dbproxy, instead of control.sock in the configuration's state_directory
    #[arg(short = 'S', long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Status, Failure> {
    let socket = match &arguments.socket {
        Some(path) => path.clone(),
        None => {
            let config = super::load(&arguments.file.config)?.config;
            config.state_directory().join(admin::FILE)
        }
    };
    if let Some(text) = &arguments.execute {
        return carry_out(text, &socket, out);
    }
    let is_person = io::stdin().is_terminal();
    let mut lines = io::stdin().lock().lines();
    loop {
        if is_person {
            write!(out, "dbproxy> ")?;
            out.flush()?;
        }
        let Some(line) = lines.next().transpose()? else {
            return Ok(Status::Fine);
        };
        let word = line.trim().trim_end_matches(';').to_ascii_lowercase();
        if is_person && ["exit", "quit"].contains(&word.as_str()) {
            return Ok(Status::Fine);
        }
        if is_person && ["help", "?", "\\h"].contains(&word.as_str()) {
            writeln!(out, "{}", orders::USAGE)?;
            continue;
        }
        match carry_out(&line, &socket, out) {
            Ok(Status::Problems) if !is_person => return Ok(Status::Problems),
            Err(failure) if is_person => super::say(&failure),
            other => drop(other?),
        }
    }
}

/// Carries orders out, one after the other, up to the first that is not.
fn carry_out(text: &str, socket: &Path, out: &mut dyn Write) -> Result<Status, Failure> {
    let orders = text.split(';').map(str::trim);
    for order in orders.filter(|order| !order.is_empty()) {
        let Answer { ok, text } = ask(socket, order)?;
        if !ok {
            super::say(&format_args!("dbproxy: {text}"));
            return Ok(Status::Problems);
        }
        writeln!(out, "{}", text.trim_end())?;
        out.flush()?;
    }
    Ok(Status::Fine)
}

fn ask(socket: &Path, order: &str) -> Result<Answer, Failure> {
    let named = |what: &str, error: io::Error| {
        Failure::Other(format!("{what} {}: {error}", socket.display()))
    };
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            named("no dbproxy runs that listens on", error)
        }
        io::ErrorKind::PermissionDenied => {
            let what =
                "orders are taken from root and from dbproxy's own account only: cannot connect to";
            named(what, error)
        }
        _ => named("cannot connect to", error),
    })?;
    // A line ends with it.
    let order = order.replace(['\n', '\r'], " ");
    let sent = stream.write_all(format!("{order}\n").as_bytes());
    sent.map_err(|error| named("cannot write to", error))?;
    let mut line = String::new();
    let read = BufReader::new(stream).take(LONGEST).read_line(&mut line);
    read.map_err(|error| named("cannot read from", error))?;
    serde_json::from_str(&line).map_err(|_| {
        let text = "dbproxy has ended before it answered: what became of the order stands in its journal, failover.jsonl, \
                    and STATUS tells it when dbproxy runs again";
        Failure::Other(text.to_owned())
    })
}
