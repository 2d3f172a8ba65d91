//! What the rules say of one statement.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::info;

use super::{
    cache::Filling,
    policy::Entry,
    quota::{Place, Whose},
};
use crate::{
    accounts::AccountKey,
    config::rule::{Actions, Firewall, FixedAnswer},
    error::Answer,
    routing::{Reason, rewrite::rewritten},
    sql::{self, Dialect},
};

/// What the rules say of one statement: of each action, what the first rule that matches and has it says.
#[derive(Debug)]
pub(in crate::session) struct Ruling {
    matched: Vec<Arc<Entry>>,
    /// Without the limits and the firewall, which are each rule's own.
    actions: Actions,
    /// Given back when the statement has ended.
    places: Vec<Place>,
    began: Instant,
    ran: Option<Ran>,
    /// The answer as it comes, to be kept.
    pub(in crate::session) filling: Option<Box<Filling>>,
    from_cache: bool,
}

#[derive(Debug)]
struct Ran {
    server: String,
    reason: Reason,
    error: Option<u16>,
}

impl Ruling {
    /// What rules that match say, in their order; `None` if there are none.
    pub(super) fn new(matched: Vec<Arc<Entry>>, now: Instant) -> Option<Self> {
        if matched.is_empty() {
            return None;
        }
        let actions = Actions::of(matched.iter().map(|entry| &entry.rule.then));
        Some(Self {
            matched,
            actions,
            places: Vec::new(),
            began: now,
            ran: None,
            filling: None,
            from_cache: false,
        })
    }

    /// What is to be done, but for limits and firewall.
    pub(in crate::session) fn actions(&self) -> &Actions {
        &self.actions
    }

    /// Counts the match, `now` seconds after 1970.
    pub(super) fn count(&self, now: u64) {
        self.matched.iter().for_each(|entry| entry.hit(now));
    }

    /// The names of the rules.
    pub(in crate::session) fn names(&self) -> String {
        let names: Vec<_> = self
            .matched
            .iter()
            .map(|entry| entry.rule.name.as_str())
            .collect();
        names.join(", ")
    }

    /// The answer that no server gives.
    pub(super) fn answer(&self) -> Option<&FixedAnswer> {
        self.actions.answer.as_ref()
    }

    /// The rule that wants a copy of the statement, and the cluster that is to have it.
    pub(in crate::session) fn mirror(&self) -> Option<(Arc<Entry>, &str)> {
        let mut rules = self.matched.iter();
        rules.find_map(|entry| Some((Arc::clone(entry), entry.rule.then.mirror.as_deref()?)))
    }

    /// The rule whose timeout counts, and how long that is.
    pub(super) fn timeout(&self) -> Option<(&str, Duration)> {
        let mut rules = self.matched.iter().map(|entry| &entry.rule);
        rules.find_map(|rule| Some((rule.name.as_str(), rule.then.timeout?)))
    }

    /// The rules whose firewall has to know the statement.
    pub(super) fn firewalls(&self) -> impl Iterator<Item = (&str, Firewall)> {
        let rules = self.matched.iter().map(|entry| &entry.rule);
        rules.filter_map(|rule| Some((rule.name.as_str(), rule.then.firewall?)))
    }

    /// The least that a limit allows, and whose it is.
    pub(super) fn least(&self, limit: impl Fn(&Actions) -> Option<u64>) -> Option<(&str, u64)> {
        let rules = self.matched.iter().map(|entry| &entry.rule);
        rules
            .filter_map(|rule| Some((rule.name.as_str(), limit(&rule.then)?)))
            .min_by_key(|(_, most)| *most)
    }

    /// Waits for a place among the statements that may run, if there are limits. Without patience it runs beside those that have one.
    ///
    /// # Errors
    /// What the client is told if there is none.
    pub(super) async fn admit(
        &mut self,
        account: &AccountKey,
        client: Option<std::net::IpAddr>,
        patience: Option<Duration>,
    ) -> Result<(), Answer> {
        for entry in &self.matched {
            let (name, limit) = (&entry.rule.name, &entry.rule.then.limit);
            if limit.per_second.is_none() && limit.concurrency.is_none() {
                continue;
            }
            let now = Instant::now();
            let whose = Whose::new(limit.per, account, client);
            let quota = entry.quotas.of(whose, limit, now);
            let place = quota.place(patience.unwrap_or_default()).await;
            match (place, patience) {
                (Some(place), _) => self.places.push(place),
                (None, None) => {}
                (None, Some(patience)) => {
                    let most = limit.concurrency.unwrap_or(0);
                    return Err(exceeded(
                        name,
                        &format!("{most} statements at a time, and none ended within {patience:?}"),
                    ));
                }
            }
            if let Some(per_second) = limit.per_second
                && !quota.take(per_second, Instant::now())
            {
                return Err(exceeded(
                    name,
                    &format!("{per_second} statements in a second"),
                ));
            }
        }
        Ok(())
    }

    /// The statement that is run in place of this one; `None` if it stays as it is.
    ///
    /// # Errors
    /// What the client is told if it cannot be made.
    pub(super) fn rewritten(
        &self,
        text: &[u8],
        dialect: Dialect,
    ) -> Result<Option<Vec<u8>>, Answer> {
        let rules = self.matched.iter().map(|entry| &entry.rule);
        rewritten(rules, text, dialect).map_err(|why| {
            let text = format!("dbproxy: {why}");
            Answer::new(1105, b"HY000", text)
        })
    }

    /// Takes down that the answer was kept from an earlier one.
    pub(super) fn came_from_cache(&mut self) {
        self.from_cache = true;
    }

    /// Takes down where the statement ran.
    pub(in crate::session) fn ran(&mut self, server: &str, reason: Reason, error: Option<u16>) {
        self.ran = Some(Ran {
            server: server.to_owned(),
            reason,
            error,
        });
    }

    /// Tells the log, if the rules want that.
    pub(super) fn log(&self, session: u32, account: &AccountKey, text: &[u8], dialect: Dialect) {
        if !self.actions.log {
            return;
        }
        let micros = self.began.elapsed().as_micros();
        let rules = self.names();
        let statement = sql::loggable_digest(text, dialect, LOGGED);
        let statement = statement.as_deref().unwrap_or(UNSURE);
        match &self.ran {
            Some(Ran {
                server,
                reason,
                error,
            }) => info!(
                session, %account, rules, server, %reason, micros, error, %statement, "statement"
            ),
            None if self.from_cache => {
                info!(session, %account, rules, micros, %statement, "statement, from the cache");
            }
            None => info!(session, %account, rules, micros, %statement, "statement, not run"),
        }
    }
}

/// In place of a statement whose literals might be shown.
const UNSURE: &str = "(not shown: where its literals end is not certain)";

/// Bytes of a statement that are logged.
const LOGGED: usize = 2_048;

/// ER_USER_LIMIT_REACHED
pub(super) fn exceeded(rule: &str, what: &str) -> Answer {
    let text = format!("dbproxy: rule \"{rule}\" allows {what}");
    Answer::new(1226, b"42000", text)
}
