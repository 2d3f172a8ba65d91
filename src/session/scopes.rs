//! What the session's reads must see, and who must see what it writes.

use std::sync::{Arc, OnceLock};

use dbproxy_proto::gtid::GtidError;
use tokio::time::Instant;

use super::Context;
use crate::{
    accounts::{AccountKey, Awaited, Scope, Scopes, Seen},
    config::Consistency,
    sql::setting::ScopeKey,
    topology::{Server, ServerId, Topology},
};

/// The scopes that a session belongs to.
#[derive(Debug)]
pub(super) struct SessionScopes {
    all: Arc<Scopes>,
    account: Arc<Scope>,
    /// Of the sessions with the same key, if it has one.
    key: Option<Arc<Scope>>,
    /// Of this session alone, from when somebody asks for it.
    own: OnceLock<Box<Scope>>,
    seen: Option<Seen>,
}

impl SessionScopes {
    /// Those of a session that begins. `consistency`: what is configured.
    pub(super) fn begin(context: &Context, account: &AccountKey, consistency: Consistency) -> Self {
        let own = OnceLock::new();
        if consistency == Consistency::Connection {
            // It has to see nothing that others wrote.
            let _ = own.set(Box::default());
        }
        Self {
            all: Arc::clone(&context.scopes),
            account: context.scopes.of_account(account),
            key: None,
            own,
            seen: None,
        }
    }

    /// From now on it shares what it writes and reads with the sessions of this key.
    pub(super) fn set_key(&mut self, account: &AccountKey, key: Option<ScopeKey>) {
        let now = Instant::now();
        self.key = key.and_then(|key| self.all.of_key(account, key, now));
    }

    /// Its reads must see this position.
    pub(super) fn must_see(&self, gtids: &[u8]) -> Result<(), GtidError> {
        self.own().must_see(gtids, Instant::now())
    }

    /// Whether its reads must see something that those of no other session must.
    pub(super) fn is_alone(&self) -> bool {
        self.own.get().is_some()
    }

    fn own(&self) -> &Scope {
        self.own.get_or_init(|| Box::new(self.account.branch()))
    }

    /// What reads of this consistency must see, for people, see [`Scope::position`].
    pub(super) fn position(&self, consistency: Consistency) -> String {
        let scope = self.of(consistency).into_iter().flatten().next();
        scope.unwrap_or(&self.account).position()
    }

    /// All that have to know what it writes.
    fn each(&self) -> impl Iterator<Item = &Scope> {
        [
            Some(&*self.account),
            self.key.as_deref(),
            self.own.get().map(AsRef::as_ref),
            self.all.of_everyone_if_counted(),
        ]
        .into_iter()
        .flatten()
    }

    /// A write was acknowledged, see [`Scope::wrote`].
    pub(super) fn wrote(&self, gtids: &[u8]) {
        let now = Instant::now();
        self.each().for_each(|scope| scope.wrote(gtids, now));
    }

    /// A write has no name, see [`Scope::wrote_unknown`].
    pub(super) fn wrote_unknown(&self) {
        let now = Instant::now();
        self.each().for_each(|scope| scope.wrote_unknown(now));
    }

    /// A write was broken off, see [`Scope::wrote_perhaps`].
    pub(super) fn wrote_perhaps(&self) {
        let now = Instant::now();
        self.each().for_each(|scope| scope.wrote_perhaps(now));
    }

    /// What a read of this consistency must see: that of its scope, and what the session alone must.
    fn of(&self, consistency: Consistency) -> [Option<&Scope>; 2] {
        let own = self.own.get().map(AsRef::as_ref);
        match consistency {
            Consistency::Eventual => [None, None],
            Consistency::Connection => [Some(self.own()), None],
            Consistency::User | Consistency::Strong => {
                [Some(self.key.as_deref().unwrap_or(&self.account)), own]
            }
            Consistency::Global => [Some(self.all.of_everyone()), own],
        }
    }

    /// Whether a server shows everything that a read must see.
    pub(super) fn is_fresh(
        &self,
        consistency: Consistency,
        server: &Server,
        topology: &Topology,
    ) -> bool {
        let mut scopes = self.of(consistency).into_iter().flatten();
        scopes.all(|scope| scope.is_fresh(server, topology))
    }

    /// Whether what a read must see has a name for which a server can be waited.
    pub(super) fn can_await(&self, consistency: Consistency) -> bool {
        let mut scopes = self.of(consistency).into_iter().flatten();
        scopes.all(Scope::is_known)
    }

    /// What a server has to be waited for to have, in each of the scopes; `None` if some of it has no name.
    pub(super) fn awaited(&self, consistency: Consistency) -> Option<[Option<Awaited>; 2]> {
        let mut awaited = [None, None];
        for (awaited, scope) in awaited.iter_mut().zip(self.of(consistency)) {
            if let Some(scope) = scope {
                *awaited = Some(scope.awaited()?);
            }
        }
        Some(awaited)
    }

    /// The position that reads of this consistency must see, as servers read it; `None` if it is not known yet.
    pub(super) fn position_of(
        &self,
        consistency: Consistency,
        topology: &Topology,
    ) -> Option<String> {
        let mut scopes = self.of(consistency).into_iter().flatten();
        if !scopes.all(|scope| scope.name_all(topology)) {
            return None;
        }
        let whole = Awaited::all(self.awaited(consistency)?.into_iter().flatten())?;
        Some(whole.to_string())
    }

    /// A server has what was awaited.
    pub(super) fn arrived(
        &self,
        consistency: Consistency,
        server: ServerId,
        incarnation: u32,
        awaited: &[Option<Awaited>; 2],
    ) {
        for (scope, awaited) in self.of(consistency).into_iter().zip(awaited) {
            if let (Some(scope), Some(awaited)) = (scope, awaited) {
                scope.arrived(server, incarnation, awaited);
            }
        }
    }

    /// A read has ended that ran on this server.
    pub(super) fn saw(&mut self, server: &Server) {
        let seen = Seen::new(server, Instant::now(), self.seen);
        self.seen = Some(seen);
        if let Some(key) = &self.key {
            key.saw(seen);
        }
    }

    /// Whoever uses the connection from now on has read nothing yet.
    pub(super) fn forget_reads(&mut self) {
        self.seen = None;
    }

    /// Whether others share what it reads.
    pub(super) fn shares_reads(&self) -> bool {
        self.key.is_some()
    }

    /// A read begins on this server: others may hear of its answer before it is known here that it has ended.
    pub(super) fn sees(&self, server: &Server) {
        if let Some(key) = &self.key {
            key.saw(Seen::new(server, Instant::now(), None));
        }
    }

    /// A write has ended that has a name: whatever the session has seen was there before.
    pub(super) fn saw_own_write(&mut self) {
        self.seen = None;
    }

    /// Whether a server surely shows nothing older than what was read before.
    pub(super) fn is_no_older(&self, server: &Server, topology: &Topology) -> bool {
        self.seen.is_none_or(|seen| seen.shown_by(server, topology))
            && self
                .key
                .as_ref()
                .is_none_or(|key| key.is_no_older(server, topology))
    }

    /// When the last of the reads ended that none may be older than, and since when they have been the same server's.
    pub(super) fn last_seen(&self) -> Option<(Instant, Instant)> {
        let seen = self.seen?;
        let shared = self.key.as_ref().and_then(|key| key.last_seen());
        Some((
            shared.into_iter().fold(seen.at(), Instant::max),
            seen.since(),
        ))
    }
}
