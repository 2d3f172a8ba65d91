//! Where log lines go: standard error, as text or as JSON.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Overrides `log.level` of the configuration.
const VARIABLE: &str = "DBPROXY_LOG";

/// Starts logging for the whole process.
///
/// # Errors
/// A sentence, if the filter in `DBPROXY_LOG` does not parse or logging was started before.
pub(super) fn start(log: &Log) -> Result<(), String> {
    let (filter, origin) = match env::var(VARIABLE) {
        Ok(filter) if !filter.is_empty() => (filter, VARIABLE),
        _ => (log.level.clone(), "log.level"),
    };
    let filter = EnvFilter::builder()
        .parse(&filter)
        .map_err(|error| format!("{origin}: \"{filter}\" is not a log filter: {error}"))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let result = match log.format {
        LogFormat::Text => subscriber.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .with_ansi(false)
            .try_init(),
    };
    result.map_err(|error| format!("cannot start logging: {error}"))
}
