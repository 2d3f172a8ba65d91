//! `dbproxy import`: the configuration of another proxy turned into one for dbproxy.
//!
//! Reading and translating are pure: a text in, a text out. Each format has its file; `target` writes.

#[doc(hidden)]
pub mod fuzz;
mod haproxy;
mod ini;
mod maxscale;
mod mysqlnd_ms;
mod proxysql;
mod regex;
mod target;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use clap::{Args, ValueEnum};

use super::{Failure, Status};
use target::Draft;
pub use target::Written;

/// A configuration that is longer is something else.
const LONGEST: usize = 1 << 20;

/// What to import.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The other proxy's configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Whose it is, if its content does not tell
    #[arg(long, value_name = "PROXY")]
    from: Option<Format>,

    /// The cluster to take, if there are several; otherwise the first
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,

    /// Where to write; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace the file if it exists
    #[arg(long, requires = "output")]
    force: bool,
}

/// The configurations that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// PHP's plugin: JSON.
    #[value(name = "mysqlnd_ms")]
    MysqlndMs,
    /// `proxysql.cnf`, or SQL for its administration.
    #[value(name = "proxysql")]
    ProxySql,
    /// `maxscale.cnf`.
    #[value(name = "maxscale")]
    MaxScale,
    /// `haproxy.cfg` with MySQL servers behind it.
    #[value(name = "haproxy")]
    HaProxy,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MysqlndMs => "mysqlnd_ms",
            Self::ProxySql => "ProxySQL",
            Self::MaxScale => "MaxScale",
            Self::HaProxy => "HAProxy",
        })
    }
}

/// Why a configuration could not be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where in the source, from 1.
    pub line: Option<usize>,
    /// What is wrong. Never contains a secret.
    pub message: String,
}

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self {
            line: None,
            message: message.into(),
        }
    }

    fn at(line: usize, message: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            message: message.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "{line}: ")?;
        }
        write!(f, "error: {}", self.message)
    }
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Status, Failure> {
    let file = arguments.file.display();
    let mut bytes = Vec::new();
    let opened = File::open(&arguments.file);
    opened
        .and_then(|source| source.take(LONGEST as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::Other(format!("{file}: error: cannot read the file: {error}")))?;
    let name = arguments.file.file_name().unwrap_or_default();
    let written = import(
        &bytes,
        &name.to_string_lossy(),
        arguments.from,
        arguments.cluster.as_deref(),
    )
    .map_err(|error| {
        let blank = if error.line.is_some() { "" } else { " " };
        Failure::Other(format!("{file}:{blank}{error}"))
    })?;
    match &arguments.output {
        None => out.write_all(written.text.as_bytes())?,
        Some(path) => write_file(path, &written, arguments.force)
            .map_err(|error| Failure::Other(could_not_write(path, &error)))?,
    }
    super::say(&format_args!(
        "{} servers of \"{}\"; {} settings have no equal, see the comments at the end",
        written
            .config
            .all_clusters()
            .map(|cluster| cluster.servers.len())
            .sum::<usize>(),
        written
            .config
            .all_clusters()
            .map(|cluster| cluster.name.as_str())
            .collect::<Vec<_>>()
            .join("\", \""),
        written.unequal
    ));
    Ok(Status::Fine)
}

fn could_not_write(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    if error.kind() == io::ErrorKind::AlreadyExists {
        return format!("{path} exists; --force replaces it");
    }
    format!("cannot write {path}: {error}")
}

/// Writes a file that is complete or not there, and readable by its owner only if it holds a password.
fn write_file(path: &Path, written: &Written, replace: bool) -> io::Result<()> {
    let mode = if written.holds_secret { 0o600 } else { 0o644 };
    let write = |path: &Path| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
        let written = file.write_all(written.text.as_bytes());
        written.inspect_err(|_| drop(fs::remove_file(path)))
    };
    if !replace {
        return write(path);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", process::id()));
    let beside = PathBuf::from(beside);
    write(&beside)?;
    fs::rename(&beside, path).inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Turns a source into a configuration; `name` is what comments call it.
///
/// # Errors
/// What cannot be read, or not be expressed, with its line.
pub fn import(
    source: &[u8],
    name: &str,
    format: Option<Format>,
    cluster: Option<&str>,
) -> Result<Written, Error> {
    if source.len() > LONGEST {
        return Err(Error::new("longer than 1 MiB: not a configuration"));
    }
    if source.starts_with(b"SQLite format 3\0") {
        return Err(Error::new(
            "a database, not a text: on ProxySQL's administration run SAVE CONFIG TO FILE /tmp/proxysql.cnf \
             and import that file",
        ));
    }
    let text = str::from_utf8(source).map_err(|error| {
        let before = source.get(..error.valid_up_to()).unwrap_or_default();
        Error::at(line_after(before), "not UTF-8")
    })?;
    let text = text.trim_start_matches('\u{feff}');
    let format = match format {
        Some(format) => format,
        None => recognise(text).ok_or_else(|| {
            Error::new(
                "neither of mysqlnd_ms, ProxySQL, MaxScale nor HAProxy, by its first line; --from says whose it is",
            )
        })?,
    };
    let draft: Draft = match format {
        Format::MysqlndMs => mysqlnd_ms::draft(text, cluster)?,
        Format::ProxySql => proxysql::draft(text, cluster)?,
        Format::MaxScale => maxscale::draft(text, cluster)?,
        Format::HaProxy => haproxy::draft(text, cluster)?,
    };
    draft.finish(&format!(
        "Made by `dbproxy import` from {name} ({format}); lines are those of that file."
    ))
}

fn line_after(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Whose configuration it is, by its first line that says something.
fn recognise(text: &str) -> Option<Format> {
    let mut lines = text.lines().map(str::trim);
    let says = |line: &&str| !line.is_empty() && !line.starts_with(['#', ';']);
    let first = lines.find(says)?;
    if first.starts_with('{') {
        return Some(Format::MysqlndMs);
    }
    if first.starts_with('[') {
        return Some(Format::MaxScale);
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (word, rest) = first.split_at(first.find(|c| !is_name(c)).unwrap_or(first.len()));
    let assigned = rest.trim_start().starts_with(['=', ':']);
    match word {
        _ if haproxy::SECTIONS.contains(&word) && !assigned => Some(Format::HaProxy),
        _ if !word.is_empty() && assigned => Some(Format::ProxySql),
        _ if proxysql::STATEMENTS.contains(&word.to_ascii_uppercase().as_str()) => {
            Some(Format::ProxySql)
        }
        // A group's brace may stand on the next line, and a comment of C or SQL in front of everything.
        _ if word.ends_with("_variables") || word.starts_with("mysql_") => Some(Format::ProxySql),
        "" if ["@include", "--", "/*", "//"]
            .iter()
            .any(|start| first.starts_with(start)) =>
        {
            Some(Format::ProxySql)
        }
        _ => None,
    }
}

/// The network of an address, or of one that ends with a `%`.
fn network(text: &str) -> Result<String, String> {
    let Some(start) = text.strip_suffix('%') else {
        return Ok(text.to_owned());
    };
    let octets: Vec<&str> = start
        .strip_suffix('.')
        .unwrap_or_default()
        .split('.')
        .collect();
    let whole = octets.iter().all(|octet| octet.parse::<u8>().is_ok());
    if !whole || octets.len() > 3 {
        return Err("dbproxy's networks end between two numbers of an address".to_owned());
    }
    let bits = octets.len() * 8;
    let mut address: Vec<&str> = octets;
    address.resize(4, "0");
    Ok(format!("{}/{bits}", address.join(".")))
}

/// The cluster to take: the one of this name, or the first.
fn choose(names: &[String], wanted: Option<&str>) -> Result<usize, Error> {
    let Some(wanted) = wanted else {
        return if names.is_empty() {
            Err(Error::new("names no server"))
        } else {
            Ok(0)
        };
    };
    names.iter().position(|name| name == wanted).ok_or_else(|| {
        let known: Vec<_> = names.iter().take(20).map(String::as_str).collect();
        Error::new(format!(
            "no cluster \"{wanted}\"; there are: {}",
            known.join(", ")
        ))
    })
}
