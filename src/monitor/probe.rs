//! One probe: a question of one round trip on a connection that is kept.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, QueryResult, Row, TextProtocol};

use super::Target;
use super::connect::{classify, connect, options, silence, within};
use super::extras::Extras;
use super::fields::Fields;
use super::queries::{self, Answers};
use crate::topology::{Filters, Flavor, ProbeError, ServerFacts, Version};

/// A probe has failed after this long.
const DEADLINE: Duration = Duration::from_secs(1);

/// A second attempt without what may be locked has failed after this long.
const SECOND_DEADLINE: Duration = Duration::from_millis(500);

/// latin1_swedish_ci, which every server knows.
const FALLBACK_COLLATION: u16 = 8;

/// Probes one server.
pub(super) struct Prober {
    target: Target,
    link: Option<Link>,
    /// From one connection to the next: what is known of a locked table is what was read before.
    extras: Option<Extras>,
}

/// A connection, and what does not change while it lasts.
pub(super) struct Link {
    pub(super) conn: Conn,
    pub(super) version: Version,
    pub(super) flavor: Flavor,
    question: String,
    /// What the server's log leaves out.
    unlogged: Arc<Filters>,
    /// Name and number of the default collation.
    collation: Option<(String, u16)>,
}

impl Prober {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            link: None,
            extras: None,
        }
    }

    /// Asks once. Never takes longer than the deadlines.
    pub(super) async fn probe(&mut self) -> Result<ServerFacts, ProbeError> {
        let mut result = within(DEADLINE, self.ask()).await;
        let silent = result == Err(ProbeError::Timeout);
        // MySQL waits for a table's lock for a second at least, and tells nothing meanwhile.
        if silent && self.extras.as_mut().is_some_and(Extras::give_up) {
            result = within(SECOND_DEADLINE, self.ask()).await;
        }
        match result {
            Err(ProbeError::Timeout) => Err(silence(&self.target.address).await),
            result => result,
        }
    }

    async fn ask(&mut self) -> Result<ServerFacts, ProbeError> {
        // Taken out, so that a probe that is dropped half-way takes its connection along.
        if let Some(mut link) = self.link.take() {
            match link.ask(self.extras_of(link.flavor)).await {
                // Only a new connection can tell a server that went away from one that closed an idle connection.
                Err(ProbeError::Closed) => {}
                result => return self.keep(link, result),
            }
        }
        let mut link = Link::open(&self.target).await?;
        let result = link.ask(self.extras_of(link.flavor)).await;
        self.keep(link, result)
    }

    fn extras_of(&mut self, flavor: Flavor) -> &mut Extras {
        let known = self.extras.take().filter(|extras| extras.flavor == flavor);
        let pulse = self.target.pulse;
        self.extras
            .insert(known.unwrap_or_else(|| Extras::new(flavor, pulse)))
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
    pub(super) async fn open(target: &Target) -> Result<Self, ProbeError> {
        // Made anew each time: options keep the certificates that they were first used with.
        let mut conn = connect(&options(target)).await?;
        let version = version(&mut conn).await?;
        let no_wait = conn.query_drop(queries::no_wait(version.flavor)).await;
        no_wait.map_err(|error| classify(&error))?;
        let unlogged = unlogged(&mut conn, &version).await?;
        Ok(Self {
            conn,
            question: queries::probe(&version),
            flavor: version.flavor,
            version,
            unlogged: Arc::new(unlogged),
            collation: None,
        })
    }

    pub(super) async fn ask(&mut self, extras: &mut Extras) -> Result<ServerFacts, ProbeError> {
        let question = extras.behind(&self.question);
        let (mut result, answers) = answers(&mut self.conn, question).await?;
        let mut facts = queries::facts(&answers)?;
        let mut due = extras.of(facts.identity());
        due.hear(&mut result).await?;
        drop(result);
        due.ask(&mut self.conn).await?;
        extras.complete(&mut facts);
        facts.unlogged = Arc::clone(&self.unlogged);
        let name = queries::collation_name(&answers.variables).unwrap_or_default();
        facts.collation = match &self.collation {
            Some((known, number)) if *known == name => *number,
            _ => {
                let number = collation(&mut self.conn).await?;
                self.collation = Some((name, number));
                number
            }
        };
        Ok(facts)
    }
}

/// What has to be answered, and what follows it.
async fn answers(
    conn: &mut Conn,
    question: String,
) -> Result<(QueryResult<'_, 'static, TextProtocol>, Answers), ProbeError> {
    let failed = |error: mysql_async::Error| classify(&error);
    let mut result = conn.query_iter(question).await.map_err(failed)?;
    let variables: Vec<Row> = result.collect().await.map_err(failed)?;
    let variables = variables
        .into_iter()
        .next()
        .ok_or_else(|| ProbeError::Other("the server does not tell its variables".into()))?;
    let answers = Answers {
        variables,
        connections: result.collect().await.map_err(failed)?,
        status: result.collect().await.map_err(failed)?,
    };
    Ok((result, answers))
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
