//! Why servers could not be started or asked.

use std::fmt;
use std::io;

use crate::topology::Flavor;

/// Why a cluster could not be started or asked.
#[derive(Debug)]
pub enum LaunchError {
    /// The server programs are not on this machine.
    MissingPrograms(Flavor),
    /// The system refused something; the text says what was tried.
    System(String, io::Error),
    /// A server did not do what it should; the text has the end of its log.
    Server(String),
    /// A statement failed on a server of the cluster.
    Statement(String, mysql_async::Error),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingPrograms(flavor) => {
                let key = key(*flavor);
                write!(
                    f,
                    "no {flavor} server on this machine; install it with: sudo compose/install-servers {key}"
                )
            }
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Server(what) => f.write_str(what),
            Self::Statement(sql, error) => write!(f, "{sql}: {error}"),
        }
    }
}

impl std::error::Error for LaunchError {}

/// The flavour's name in options, commands and files.
pub(super) fn key(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MariaDb => "mariadb",
        Flavor::MySql => "mysql",
    }
}

/// Says what was tried when the system refused it.
pub(super) fn system(what: &str) -> impl FnOnce(io::Error) -> LaunchError + use<> {
    let what = what.to_owned();
    move |error| LaunchError::System(what, error)
}

/// Says which statement failed.
pub(super) fn statement(sql: &str) -> impl FnOnce(mysql_async::Error) -> LaunchError + use<> {
    let sql = sql.to_owned();
    move |error| LaunchError::Statement(sql, error)
}
