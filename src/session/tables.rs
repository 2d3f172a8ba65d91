//! Whether a replica that leaves something out has what a statement reads.

use super::{Session, observe::text_of, prepared::Statement, statement::Request};
use crate::{
    backend::SessionState,
    sql::{self, Facts, Kind, StatementClass, Tables},
    topology::Server,
};

/// Where the words of a statement are, for whoever has to look at them.
#[derive(Clone, Copy)]
pub(super) enum Wording<'a> {
    /// In what is to be run.
    Request(Request<'a>),
    /// Here, as the session understands them now.
    Text(&'a [u8]),
    /// They are not at hand.
    Unknown,
}

impl Session {
    /// Whether a replica surely has all that a statement reads. Without filters it has what the primary has.
    pub(super) fn is_copied(
        &self,
        server: &Server,
        class: &StatementClass,
        wording: Wording<'_>,
    ) -> bool {
        if !server.is_filtered() {
            return true;
        }
        let (text, state) = match wording {
            Wording::Request(
                Request::Execute {
                    statement: Statement { key, .. },
                    ..
                }
                | Request::Prepare { key, .. },
            ) => (Some(key.text()), key.state()),
            Wording::Request(request) => (text_of(request, self.capabilities), &self.wanted),
            Wording::Text(text) => (Some(text), &self.wanted),
            Wording::Unknown => (None, &self.wanted),
        };
        text.is_some_and(|text| self.has_tables_of(server, class, text, state))
    }

    fn has_tables_of(
        &self,
        server: &Server,
        class: &StatementClass,
        text: &[u8],
        state: &SessionState,
    ) -> bool {
        let dialect = self.dialect_of(state);
        // By its text alone: what a stored function reads is not known here.
        let plain = sql::classify(text, dialect);
        let sure = class.kind == Kind::Read
            && plain.is_replica_read()
            && !plain.facts.contains(Facts::SYSTEM_SCHEMA);
        if !sure {
            return false;
        }
        let tables = self.context.classifier.tables(text, &plain, dialect);
        let Tables {
            read,
            written,
            parsed: true,
        } = &*tables
        else {
            return false;
        };
        let schema = state.schema().map(std::str::from_utf8);
        written.is_empty()
            && read.iter().all(|name| {
                let (schema, table) = match (name.split_once('.'), schema) {
                    (Some(parts), _) => parts,
                    (None, Some(Ok(schema))) => (schema, name.as_str()),
                    (None, _) => return false,
                };
                !table.contains('.')
                    && self.context.definitions.is_no_view(table.as_bytes())
                    && server.has_table(schema, table)
            })
    }
}
