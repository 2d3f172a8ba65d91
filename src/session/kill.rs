//! KILL by the ids that clients know.

use super::{Flow, Session};
use crate::{
    error::{Answer, Error},
    pool::Key,
    sql::kill::Scope,
};

impl Session {
    /// Ends another session, or the statement it runs.
    ///
    /// Whether this account may do that is the server's to say: the statement
    /// is ended there, by this account. Idle sessions can be ended by their own account only.
    pub(super) async fn kill(&mut self, scope: Scope, id: u64) -> Result<Flow, Error> {
        let victim = u32::try_from(id)
            .ok()
            .and_then(|id| self.context.registry.find(id));
        let Some(victim) = victim else {
            return self
                .reply_error(&Answer::new(
                    1094,
                    b"HY000",
                    format!("Unknown thread id: {id}"),
                ))
                .await;
        };
        match victim.running() {
            Some((server, thread_id)) if victim.id() != self.handle().id() => {
                let key = Key {
                    server,
                    account: self.login.account.clone(),
                    profile: self.capabilities & super::route::PROFILE,
                };
                let Some(bucket) = self.context.pool.bucket(&key) else {
                    return self.reply_ok().await;
                };
                // It may have ended meanwhile, and its connection may serve somebody else.
                let still_runs = || victim.running() == Some((server, thread_id));
                if let Err(error) = bucket.kill_query(&self.login, thread_id, still_runs).await {
                    return self.reply_error(&error.answer()).await;
                }
            }
            _ if !victim.belongs_to(&self.login.user) => {
                let text = format!("You are not owner of thread {id}");
                return self.reply_error(&Answer::new(1095, b"HY000", text)).await;
            }
            _ => {}
        }
        if scope == Scope::Connection {
            victim.kill();
        }
        self.reply_ok().await
    }
}
