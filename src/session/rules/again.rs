//! Answers that are given again, and what makes them outdated.

use std::sync::Arc;

use bytes::BytesMut;
use dbproxy_proto::capability::StatusFlags;
use tokio::time::Instant;

use super::{
    Ruling,
    cache::{AnswerKey, Filling},
};
use crate::{
    backend::SessionState,
    config::Consistency,
    error::Error,
    routing::{Place, Wish},
    session::{
        Flow, Session, execution::Execution, observe::text_of, prepared::Statement,
        statement::Request,
    },
    sql::{self, Facts, Kind, StatementClass},
};

impl Session {
    /// The answer that the same execution got before, if a rule has kept it.
    pub(in crate::session) async fn execution_again(
        &mut self,
        execution: Execution<'_>,
        statement: &Statement,
    ) -> Result<Option<Flow>, Error> {
        let keeps = |ruling: &Ruling| ruling.actions().cache.is_some();
        if !self.ruling.as_deref().is_some_and(keeps) || execution.wants_cursor() {
            return Ok(None);
        }
        let mut command = BytesMut::new();
        if !matches!(execution, Execution::Once(_))
            || execution.put(&mut command, 0, statement).is_err()
        {
            return Ok(None);
        }
        let key = &statement.key;
        let of_key = (key.text(), key.state());
        self.answer_again(&statement.class, &command, of_key, true)
            .await
    }

    /// Gives the answer that the same command got before, if a rule has kept it. Otherwise its answer is going to be kept, if a
    /// rule wants that. The text is understood in this state.
    pub(super) async fn answer_again(
        &mut self,
        class: &StatementClass,
        command: &[u8],
        (text, state): (&[u8], &Arc<SessionState>),
        prepared: bool,
    ) -> Result<Option<Flow>, Error> {
        let Some(ruling) = &self.ruling else {
            return Ok(None);
        };
        let Some(ttl) = ruling.actions().cache else {
            return Ok(None);
        };
        let configured = self.rules.policy().consistency;
        let wish = Wish::new(class.hint, &self.settings, configured).under(ruling.actions());
        let plain = class.is_replica_read()
            && !class
                .facts
                .intersects(Facts::MULTI.union(Facts::CALC_FOUND_ROWS))
            && !self.is_bound()
            && self.status.contains(StatusFlags::AUTOCOMMIT)
            && wish.place != Place::Primary
            && wish.consistency != Consistency::Strong
            // What it must see is this session's alone.
            && !self.scopes.is_alone()
            && !sql::varies(text, self.dialect);
        // A view that it names may do more than its text tells.
        if !plain || !self.look_up(*class, text, state).await.is_replica_read() {
            return Ok(None);
        }
        let key = AnswerKey {
            cluster: self.context.cluster,
            account: self.login.account.clone(),
            states: (self.wanted.fingerprint(), state.fingerprint()),
            capabilities: self.capabilities,
            news: self.news,
            wish,
            key: self.settings.key,
            command: command.into(),
            prepared: if prepared {
                text.into()
            } else {
                Box::default()
            },
        };
        let context = Arc::clone(&self.context);
        if let Some(answer) = context.answers.find(&key, ttl, Instant::now()) {
            if let Some(ruling) = &mut self.ruling {
                ruling.came_from_cache();
            }
            self.counts = None;
            if let Some(kept) = &mut self.kept {
                // It is not the statement before any more.
                kept.previous = false;
            }
            return self.reply(&answer).await.map(Some);
        }
        let tables = context.classifier.tables(text, class, self.dialect);
        let schema = state.schema().unwrap_or_default();
        if let Some(ruling) = &mut self.ruling {
            let filling = context.answers.begin(key, &tables, schema);
            ruling.filling = Some(Box::new(filling));
        }
        Ok(None)
    }

    /// Takes down what a statement may write: what was kept of it does not count any more when it has ended.
    pub(in crate::session) fn note_written(
        &mut self,
        class: &StatementClass,
        request: Option<Request<'_>>,
    ) {
        let (text, state) = match request {
            // Nothing runs.
            Some(Request::Prepare { .. }) => return,
            Some(Request::Execute { statement, .. }) => {
                (Some(statement.key.text()), statement.key.state())
            }
            Some(request) => (text_of(request, self.capabilities), &self.wanted),
            None => (None, &self.wanted),
        };
        let text = text.filter(|_| class.kind == Kind::Write);
        let tables = text.map(|text| self.context.classifier.tables(text, class, self.dialect));
        let schema = state.schema().unwrap_or_default();
        let written = self.written.get_or_insert_default();
        written.add(tables.as_deref(), schema);
    }

    /// What collects the answer that is about to come, if it is to be kept.
    pub(in crate::session) fn begin_filling(&mut self) -> Option<Box<Filling>> {
        let mut filling = self.ruling.as_mut()?.filling.take()?;
        filling.restart();
        Some(filling)
    }

    /// The answer has come, or as much of it as there is.
    pub(in crate::session) fn filled(&mut self, filling: Option<Box<Filling>>) {
        if let Some(ruling) = &mut self.ruling {
            ruling.filling = filling;
        }
    }

    /// A statement has ended that was the last one of its transaction, or may have been.
    pub(in crate::session) fn forget_written(&mut self) {
        if let Some(written) = self.written.take() {
            self.context.answers.forget(&written);
        }
    }
}
