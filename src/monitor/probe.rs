//! One probe: a question of one round trip on a connection that is kept.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::time::Instant;

use super::Target;
use super::connect::{classify, connect, options, within};
use super::fields::Fields;
use super::heartbeat::{Pulse, REST};
use super::queries;
use crate::topology::{Filters, ProbeError, ServerFacts, Version};

/// A probe has failed after this long.
const DEADLINE: Duration = Duration::from_secs(1);

/// latin1_swedish_ci, which every server knows.
const FALLBACK_COLLATION: u16 = 8;

/// Probes one server.
pub(super) struct Prober {
    target: Target,
    link: Option<Link>,
}

/// A connection, and what does not change while it lasts.
struct Link {
    conn: Conn,
    question: String,
    /// Whose heartbeats are asked for, if any are.
    pulse: Option<Pulse>,
    /// Before this time they are not, since they could not be read.
    deaf_until: Option<Instant>,
    /// What the server's log leaves out.
    unlogged: Arc<Filters>,
    /// Name and number of the default collation.
    collation: Option<(String, u16)>,
}

impl Prober {
    pub(super) fn new(target: Target) -> Self {
        Self { target, link: None }
    }

    /// Asks once. Never takes longer than the deadline.
    pub(super) async fn probe(&mut self) -> Result<ServerFacts, ProbeError> {
        within(DEADLINE, async {
            // Taken out, so that a probe that is dropped half-way takes its connection along.
            if let Some(mut link) = self.link.take() {
                match link.ask().await {
                    // Only a new connection can tell a server that went away from one that closed an idle connection.
                    Err(ProbeError::Closed) => {}
                    result => return self.keep(link, result),
                }
            }
            let mut link = Link::open(&self.target).await?;
            let result = link.ask().await;
            self.keep(link, result)
        })
        .await
    }

    fn keep(
        &mut self,
        link: Link,
        result: Result<ServerFacts, ProbeError>,
    ) -> Result<ServerFacts, ProbeError> {
        if result.is_ok() {
            self.link = Some(link);
        }
        result
    }
}

impl Link {
    async fn open(target: &Target) -> Result<Self, ProbeError> {
        // Made anew each time: options keep the certificates that they were first used with.
        let mut conn = connect(&options(target)).await?;
        let version = version(&mut conn).await?;
        let unlogged = unlogged(&mut conn, &version).await?;
        Ok(Self {
            conn,
            question: queries::probe(&version),
            pulse: target.pulse,
            deaf_until: None,
            unlogged: Arc::new(unlogged),
            collation: None,
        })
    }

    async fn ask(&mut self) -> Result<ServerFacts, ProbeError> {
        let (variables, connections, beat) = self.answers().await?;
        let name = queries::collation_name(&variables).unwrap_or_default();
        let collation = match &self.collation {
            Some((known, number)) if *known == name => *number,
            _ => {
                let number = collation(&mut self.conn).await?;
                self.collation = Some((name, number));
                number
            }
        };
        let facts = queries::facts(&variables, &connections, collation)?;
        Ok(ServerFacts {
            unlogged: Arc::clone(&self.unlogged),
            heartbeat: beat.and_then(|beat| self.pulse?.sent_at(beat)),
            ..facts
        })
    }

    /// Variables, replication connections and the newest heartbeat.
    async fn answers(&mut self) -> Result<(Row, Vec<Row>, Option<u64>), ProbeError> {
        let now = Instant::now();
        let listens = self.deaf_until.is_none_or(|until| until <= now);
        let pulse = self.pulse.filter(|_| listens);
        let question = match pulse {
            Some(pulse) => format!("{}; {}", self.question, pulse.question()),
            None => self.question.clone(),
        };
        let mut result = self
            .conn
            .query_iter(question)
            .await
            .map_err(|error| classify(&error))?;
        let variables: Vec<Row> = result.collect().await.map_err(|error| classify(&error))?;
        let variables = variables
            .into_iter()
            .next()
            .ok_or_else(|| ProbeError::Other("the server does not tell its variables".into()))?;
        let connections: Result<Vec<Row>, _> = result.collect().await;
        let connections = connections.map_err(|error| classify(&error))?;
        if pulse.is_none() {
            return Ok((variables, connections, None));
        }
        let beats: Result<Vec<Row>, _> = result.collect().await;
        let beat = match beats {
            Ok(rows) => rows.first().and_then(|row| Fields(row).number(&["beat"])),
            // No table, or no right to read it.
            Err(mysql_async::Error::Server(_)) => {
                self.deaf_until = Some(now + REST);
                None
            }
            Err(error) => return Err(classify(&error)),
        };
        Ok((variables, connections, beat))
    }
}

/// What the server at the other end is.
pub(super) async fn version(conn: &mut Conn) -> Result<Version, ProbeError> {
    let row: Option<Row> = conn
        .query_first(queries::IDENTIFY)
        .await
        .map_err(|error| classify(&error))?;
    row.and_then(|row| Fields(&row).text(&["version"]))
        .and_then(|text| Version::parse(&text))
        .ok_or_else(|| ProbeError::Other("the server does not tell its version".into()))
}

/// What the server's log leaves out; nothing if it does not tell.
async fn unlogged(conn: &mut Conn, version: &Version) -> Result<Filters, ProbeError> {
    let row: Result<Option<Row>, _> = conn.query_first(queries::log_status(version)).await;
    match row {
        Ok(row) => Ok(row.map(|row| queries::unlogged(&row)).unwrap_or_default()),
        Err(mysql_async::Error::Server(_)) => Ok(Filters::default()),
        Err(error) => Err(classify(&error)),
    }
}

async fn collation(conn: &mut Conn) -> Result<u16, ProbeError> {
    for query in [queries::COLLATION, queries::COLLATION_OF_SET] {
        let row: Result<Option<Row>, _> = conn.query_first(query).await;
        match row {
            Ok(Some(row)) => {
                if let Some(number) = Fields(&row).number(&["id"]) {
                    return Ok(number);
                }
            }
            Ok(None) => {}
            // The second table's columns are MariaDB's alone.
            Err(mysql_async::Error::Server(_)) => {}
            Err(error) => return Err(classify(&error)),
        }
    }
    Ok(FALLBACK_COLLATION)
}
