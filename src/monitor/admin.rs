//! A connection by which a server is changed: the one that holds the server's lock.

use std::time::Duration;

use mysql_async::Row;
use mysql_async::prelude::{FromRow, Queryable};

use super::Target;
use super::connect::{classify, within};
use super::extras::Extras;
use super::probe::Link;
use crate::topology::{ProbeError, ServerFacts, Version};

/// The server ends the connection, and with it the lock, if nothing is heard of this program for so many seconds.
const SILENCE: u32 = 10;

/// To log in.
const LOGIN: Duration = Duration::from_secs(3);

/// A connection of the monitor's account that holds a lock of its server.
///
/// The lock ends with the connection, and a statement cannot run without the connection: who lost the lock can do nothing
/// more by accident.
pub struct Admin {
    link: Link,
}

/// Why a statement has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminError {
    /// The server says so, by this number and text: it was not carried out.
    Refused(u16, String),
    /// Nobody knows whether it was carried out.
    Unknown(String),
    /// There is no connection, or it has no lock: it was not carried out.
    Absent(String),
}

impl AdminError {
    fn of(error: &mysql_async::Error) -> Self {
        match error {
            mysql_async::Error::Server(error) => {
                Self::Refused(error.code, format!("{} {}", error.code, error.message))
            }
            other => Self::Unknown(classify(other).to_string()),
        }
    }
}

impl std::fmt::Display for AdminError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Refused(_, text) | Self::Unknown(text) | Self::Absent(text)) = self;
        f.write_str(text)
    }
}

impl Admin {
    /// Logs in and takes the server's lock of this name. Takes a few seconds at most.
    ///
    /// # Errors
    /// [`AdminError::Absent`]: no connection, or somebody else has the lock.
    pub async fn open(target: &Target, lock: &str) -> Result<Self, AdminError> {
        let opened = within(LOGIN, async {
            let mut link = Link::open(target).await?;
            let setup = format!("SET SESSION wait_timeout={SILENCE}, SESSION lock_wait_timeout=2");
            let setup = link.conn.query_drop(setup).await;
            setup.map_err(|error| classify(&error))?;
            let question = format!("SELECT GET_LOCK('{lock}', 0), IS_USED_LOCK('{lock}')");
            let answer = link.conn.query_first(question).await;
            let answer: Option<(Option<u8>, Option<u64>)> =
                answer.map_err(|error| classify(&error))?;
            match answer {
                Some((Some(1), _)) => Ok(link),
                Some((_, Some(holder))) => Err(ProbeError::Other(
                    format!("another dbproxy holds its lock {lock} (connection {holder})").into(),
                )),
                _ => Err(ProbeError::Other(
                    format!("its lock {lock} cannot be had").into(),
                )),
            }
        });
        let link = opened
            .await
            .map_err(|error| AdminError::Absent(error.to_string()))?;
        Ok(Self { link })
    }

    /// What the server is.
    pub fn version(&self) -> &Version {
        &self.link.version
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn run(&mut self, sql: &str) -> Result<(), AdminError> {
        let done = self.link.conn.query_drop(sql).await;
        done.map_err(|error| AdminError::of(&error))
    }

    /// The rows of a query.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn rows<T: FromRow + Send + 'static>(
        &mut self,
        sql: &str,
    ) -> Result<Vec<T>, AdminError> {
        let rows: Result<Vec<Row>, _> = self.link.conn.query(sql).await;
        let rows = rows.map_err(|error| AdminError::of(&error))?;
        let rows = rows.into_iter().map(mysql_async::from_row_opt);
        let rows: Result<_, _> = rows.collect();
        rows.map_err(|error| AdminError::Absent(format!("a row of another form: {error}")))
    }

    /// What the server says of itself now.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn look(&mut self) -> Result<ServerFacts, AdminError> {
        // Nothing is left out because it was not there before: this program may have made it meanwhile.
        let mut extras = Extras::new(self.link.flavor, None);
        let facts = self.link.ask(&mut extras).await;
        facts.map_err(|error| AdminError::Unknown(error.to_string()))
    }
}
