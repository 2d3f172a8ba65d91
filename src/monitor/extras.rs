//! Questions of a probe that a server may be unable to answer: their tables may be missing, locked, or not to be read.

use std::collections::VecDeque;
use std::sync::Arc;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, QueryResult, Row, TextProtocol};
use tokio::time::Instant;

use super::connect::classify;
use super::fields::Fields;
use super::heartbeat::{Pulse, REST};
use super::sources::period;
use crate::topology::{EpochRow, Flavor, ProbeError, ServerFacts};

/// The ballot of a MySQL server is in a variable that can be persisted in spite of `super_read_only`; this stands before it.
const BALLOT_PREFIX: &str = "dbproxy-b";

/// ER_DBACCESS_DENIED_ERROR, ER_BAD_DB_ERROR, ER_BAD_FIELD_ERROR, ER_UNKNOWN_TABLE, ER_TABLEACCESS_DENIED_ERROR,
/// ER_COLUMNACCESS_DENIED_ERROR, ER_NO_SUCH_TABLE, ER_SPECIFIC_ACCESS_DENIED_ERROR.
const ABSENT: [u16; 8] = [1044, 1049, 1054, 1109, 1142, 1143, 1146, 1227];

/// The questions, and the newest answers.
pub(super) struct Extras {
    pub(super) flavor: Flavor,
    /// Whose answers they are.
    server: Option<Arc<str>>,
    pulse: Option<Pulse>,
    beat: Option<Extra>,
    epoch: Extra,
    ballot: Extra,
    heartbeats: Option<Extra>,
}

struct Extra {
    question: String,
    answer: Vec<Row>,
    /// Whether somebody else's lock keeps it waiting.
    waits: bool,
    /// Whether the last question had it.
    asked: bool,
    /// Before this time it is not asked, since it could not be answered.
    deaf_until: Option<Instant>,
}

impl Extras {
    pub(super) fn new(flavor: Flavor, pulse: Option<Pulse>) -> Self {
        let (ballot, heartbeats) = match flavor {
            Flavor::MySql => (
                "SELECT variable_value AS ballot FROM performance_schema.persisted_variables \
                 WHERE variable_name = 'report_user'",
                Some(
                    "SELECT status.channel_name, count_received_heartbeats AS heartbeats, heartbeat_interval AS period \
                     FROM performance_schema.replication_connection_status AS status \
                     JOIN performance_schema.replication_connection_configuration USING (channel_name)",
                ),
            ),
            Flavor::MariaDb => ("SELECT MAX(ballot) AS ballot FROM dbproxy.ballot", None),
        };
        // MariaDB need not wait, and MySQL has no locks on the others.
        let waits = flavor == Flavor::MySql;
        Self {
            flavor,
            server: None,
            pulse,
            beat: pulse.map(|pulse| Extra {
                waits,
                ..Extra::new(pulse.question())
            }),
            epoch: Extra {
                waits,
                ..Extra::new("SELECT epoch, primary_id FROM dbproxy.epoch WHERE id = 1")
            },
            ballot: Extra::new(ballot),
            heartbeats: heartbeats.map(Extra::new),
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Extra> {
        let always = [&mut self.epoch, &mut self.ballot];
        self.beat
            .iter_mut()
            .chain(always)
            .chain(&mut self.heartbeats)
    }

    /// Those that are to be asked now, behind this question.
    pub(super) fn behind(&mut self, question: &str) -> String {
        let now = Instant::now();
        let mut all = vec![question];
        for extra in self.all() {
            extra.asked = extra.deaf_until.is_none_or(|until| until <= now);
            if extra.asked {
                all.push(&extra.question);
            }
        }
        all.join("; ")
    }

    /// Those that were asked, of this server.
    pub(super) fn of(&mut self, server: Arc<str>) -> Due<'_> {
        if self.server.as_ref() != Some(&server) {
            self.all().for_each(|extra| extra.answer.clear());
            self.server = Some(server);
        }
        Due(self.all().filter(|extra| extra.asked).collect())
    }

    /// For a while asks no more for what waits for locks; false if nothing such was asked.
    pub(super) fn give_up(&mut self) -> bool {
        let mut any = false;
        for extra in self.all().filter(|extra| extra.waits && extra.asked) {
            any = true;
            extra.rest();
        }
        any
    }

    /// Adds the answers to what else is known.
    pub(super) fn complete(&self, facts: &mut ServerFacts) {
        facts.heartbeat = self.heartbeat();
        facts.epoch = self.epoch();
        facts.ballot = self.ballot();
        for row in self.heartbeats.iter().flat_map(|extra| &extra.answer) {
            let row = Fields(row);
            let channel = row.text(&["channel_name"]).unwrap_or_default();
            let mut sources = facts.sources.iter_mut();
            if let Some(source) = sources.find(|source| *source.channel == *channel) {
                source.heartbeats = row.number(&["heartbeats"]);
                source.heartbeat_period = period(&row).unwrap_or(source.heartbeat_period);
            }
        }
    }

    fn heartbeat(&self) -> Option<Instant> {
        let row = self.beat.as_ref()?.answer.first()?;
        self.pulse?.sent_at(Fields(row).number(&["beat"])?)
    }

    fn epoch(&self) -> Option<EpochRow> {
        let row = Fields(self.epoch.answer.first()?);
        Some(EpochRow {
            epoch: row.number(&["epoch"])?,
            primary: row.text(&["primary_id"])?.into(),
        })
    }

    fn ballot(&self) -> u64 {
        let row = self.ballot.answer.first();
        let text = row.and_then(|row| Fields(row).text(&["ballot"]));
        let text = text.unwrap_or_default();
        let number = text.strip_prefix(BALLOT_PREFIX).unwrap_or(&text);
        number.parse().unwrap_or_default()
    }
}

/// Questions that are not answered yet.
pub(super) struct Due<'a>(VecDeque<&'a mut Extra>);

impl Due<'_> {
    /// Hears the answers, up to the first that is an error: that one ends its query.
    pub(super) async fn hear(
        &mut self,
        result: &mut QueryResult<'_, '_, TextProtocol>,
    ) -> Result<(), ProbeError> {
        while !self.0.is_empty() {
            match result.collect().await {
                Ok(rows) => {
                    if let Some(extra) = self.0.pop_front() {
                        extra.answer = rows;
                    }
                }
                Err(error) => return self.failed(&error),
            }
        }
        Ok(())
    }

    /// Asks for those that were not told because one before them failed.
    pub(super) async fn ask(mut self, conn: &mut Conn) -> Result<(), ProbeError> {
        while !self.0.is_empty() {
            let questions: Vec<_> = self.0.iter().map(|extra| &*extra.question).collect();
            match conn.query_iter(questions.join("; ")).await {
                Ok(mut result) => self.hear(&mut result).await?,
                Err(error) => self.failed(&error)?,
            }
        }
        Ok(())
    }

    /// Why the first of them has no answer.
    fn failed(&mut self, error: &mysql_async::Error) -> Result<(), ProbeError> {
        let mysql_async::Error::Server(refusal) = error else {
            return Err(classify(error));
        };
        if let error @ ProbeError::Closed = classify(error) {
            return Err(error);
        }
        if let Some(extra) = self.0.pop_front() {
            extra.rest();
            // Whatever else it is (a lock, say), what was read before is still the best that is known.
            if ABSENT.contains(&refusal.code) {
                extra.answer.clear();
            }
        }
        Ok(())
    }
}

impl Extra {
    fn new(question: impl Into<String>) -> Self {
        Self {
            question: question.into(),
            answer: Vec::new(),
            waits: false,
            asked: false,
            deaf_until: None,
        }
    }

    fn rest(&mut self) {
        self.asked = false;
        self.deaf_until = Some(Instant::now() + REST);
    }
}
