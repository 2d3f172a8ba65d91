//! One server's part of a step, over the connection that holds its lock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::journal::Line;
use crate::failover::{Action, Credentials, Failure, Job, Report, statements};
use crate::monitor::{Admin, AdminError, Target};
use crate::topology::{ServerFacts, ThreadState};

/// How often a server is asked whether it is where it should be.
const PACE: Duration = Duration::from_millis(20);

/// A server's last word after a job that failed.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// ER_REPLICA_NOT_CONFIGURED, and MariaDB's WARN_NO_MASTER_INFO: there is nothing to be stopped.
const NO_SOURCE: [u16; 2] = [1200, 1617];

/// ER_UNKNOWN_SYSTEM_VARIABLE: the plugin is not there.
const NO_VARIABLE: u16 = 1193;

/// What a job needs to know.
pub(super) struct Task {
    pub(super) target: Target,
    /// The name of the servers' lock.
    pub(super) lock: Arc<str>,
    /// Of replicas at the primary.
    pub(super) credentials: Option<Credentials>,
    pub(super) job: Job,
    pub(super) until: Instant,
}

/// What became of a job.
pub(super) struct Ended {
    pub(super) admin: Option<Admin>,
    pub(super) report: Report,
    pub(super) lines: Vec<Line>,
}

impl Task {
    /// Carries the job out, on `admin` if that is a connection that still lives.
    pub(super) async fn carry_out(self, admin: Option<Admin>) -> Ended {
        let mut lines = Vec::new();
        let mut facts = None;
        let mut admin = admin;
        let mut failure = None;
        for action in &self.job.actions {
            let begun = Instant::now();
            let done = timeout_at(self.until, self.perform(&mut admin, action)).await;
            let done = done.unwrap_or_else(|_| Err(AdminError::Unknown("no end in time".into())));
            lines.push(self.line(action, &admin, begun, done.as_ref().err()));
            match done {
                Ok(Some(seen)) => facts = Some(Arc::new(seen)),
                Ok(None) => {}
                Err(error) => {
                    failure = Some(Failure {
                        at: Some(action.clone()),
                        text: format!("{}: {action}: {error}", self.target.name),
                        unknown: matches!(error, AdminError::Unknown(_)),
                    });
                    if !matches!(error, AdminError::Refused(..)) {
                        // Whatever it still does ends with it.
                        admin = None;
                    }
                    break;
                }
            }
        }
        if failure.is_some() {
            let look = self.look_again(&mut admin);
            facts = timeout_at(Instant::now() + LAST_LOOK, look)
                .await
                .unwrap_or(None)
                .or(facts);
        }
        Ended {
            admin,
            report: Report {
                server: self.job.server,
                facts,
                failure,
            },
            lines,
        }
    }

    /// Whether something was done of which nobody heard.
    async fn look_again(&self, admin: &mut Option<Admin>) -> Option<Arc<ServerFacts>> {
        let facts = self.connected(admin).await.ok()?.look().await;
        facts.ok().map(Arc::new)
    }

    async fn connected<'a>(
        &self,
        admin: &'a mut Option<Admin>,
    ) -> Result<&'a mut Admin, AdminError> {
        // One that was idle for too long has been closed, and its lock is gone.
        let lives = match admin.as_mut() {
            Some(open) => open.run("DO 0").await.is_ok(),
            None => false,
        };
        if !lives {
            *admin = None;
        }
        match admin {
            Some(open) => Ok(open),
            None => Ok(admin.insert(Admin::open(&self.target, &self.lock).await?)),
        }
    }

    /// Does one thing. Gives what the server said of itself, if that was asked.
    async fn perform(
        &self,
        admin: &mut Option<Admin>,
        action: &Action,
    ) -> Result<Option<ServerFacts>, AdminError> {
        let admin = self.connected(admin).await?;
        match action {
            Action::Look => return admin.look().await.map(Some),
            Action::Expel => return expel(admin, &self.target.user).await.map(|()| None),
            Action::AwaitReplication => return replicating(admin).await.map(Some),
            Action::Await(_) => return self.await_position(admin, action).await.map(|()| None),
            _ => {}
        }
        let version = admin.version().clone();
        for sql in statements(action, &version, self.credentials.as_ref()) {
            match admin.run(&sql).await {
                Err(AdminError::Refused(code, _)) if is_moot(action, code) => {}
                done => done?,
            }
        }
        if *action == Action::StartApplier {
            applying(admin).await?;
        }
        Ok(None)
    }

    /// Asks again and again, since the server gives up earlier than this job does.
    async fn await_position(&self, admin: &mut Admin, action: &Action) -> Result<(), AdminError> {
        let version = admin.version().clone();
        loop {
            for sql in statements(action, &version, None) {
                let answer: Vec<Option<i64>> = admin.rows(&sql).await?;
                match answer.first() {
                    Some(Some(0)) => return Ok(()),
                    Some(Some(_)) => {}
                    _ => return Err(AdminError::Absent("it does not replicate".into())),
                }
            }
            let facts = admin.look().await?;
            let error = facts
                .sources
                .iter()
                .find_map(|source| source.applier_error.as_ref());
            if let Some(error) = error {
                return Err(AdminError::Absent(format!(
                    "its applier has stopped: {error}"
                )));
            }
        }
    }

    fn line(
        &self,
        action: &Action,
        admin: &Option<Admin>,
        begun: Instant,
        error: Option<&AdminError>,
    ) -> Line {
        let version = admin.as_ref().map(Admin::version);
        Line {
            kind: "action",
            server: Some(self.target.name.to_string()),
            text: action.to_string(),
            sql: version
                .map(|version| statements(action, version, None))
                .unwrap_or_default(),
            milliseconds: Some(begun.elapsed().as_secs_f64() * 1000.0),
            error: error.map(ToString::to_string),
            ..Line::default()
        }
    }
}

/// Whether an error says no more than that there was nothing to be done.
fn is_moot(action: &Action, code: u16) -> bool {
    match action {
        Action::StopReplication | Action::ForgetSource | Action::StopReceiver => {
            NO_SOURCE.contains(&code)
        }
        Action::SemiSync { .. } => code == NO_VARIABLE,
        _ => false,
    }
}

/// Waits until the applier runs: until then the receiver must not be stopped, or MariaDB forgets what it has received.
async fn applying(admin: &mut Admin) -> Result<(), AdminError> {
    loop {
        let facts = admin.look().await?;
        let stopped = facts
            .sources
            .iter()
            .find(|source| source.applier != ThreadState::Running);
        match stopped {
            None => return Ok(()),
            Some(source) => {
                if let Some(error) = &source.applier_error {
                    return Err(AdminError::Absent(format!(
                        "its applier does not run: {error}"
                    )));
                }
            }
        }
        sleep(PACE).await;
    }
}

/// Waits until the server replicates.
async fn replicating(admin: &mut Admin) -> Result<ServerFacts, AdminError> {
    loop {
        let facts = admin.look().await?;
        let runs = facts.sources.iter().all(|source| {
            source.receiver == ThreadState::Running && source.applier == ThreadState::Running
        });
        if runs && !facts.sources.is_empty() {
            return Ok(facts);
        }
        let ended = facts.sources.iter().find(|source| {
            source.receiver == ThreadState::Stopped || source.applier_error.is_some()
        });
        if let Some(error) = ended.and_then(|source| source.error.as_ref()) {
            return Err(AdminError::Absent(format!(
                "it does not replicate: {error}"
            )));
        }
        sleep(PACE).await;
    }
}

/// Ends the connections of clients, and of those who came meanwhile.
async fn expel(admin: &mut Admin, own: &str) -> Result<(), AdminError> {
    let question = "SELECT id, user, command FROM information_schema.processlist \
                    WHERE id <> CONNECTION_ID()";
    for _ in 0..2 {
        let list: Vec<(u64, Option<String>, Option<String>)> = admin.rows(question).await?;
        let clients: BTreeSet<u64> = list
            .into_iter()
            .filter(|(_, user, command)| {
                let user = user.as_deref().unwrap_or_default();
                let command = command.as_deref().unwrap_or_default();
                let replicates = command.starts_with("Binlog Dump") || command == "Daemon";
                !replicates && !["system user", "event_scheduler", own].contains(&user)
            })
            .map(|(id, ..)| id)
            .collect();
        for id in clients {
            match admin.run(&format!("KILL {id}")).await {
                // It has ended meanwhile, or may not be ended by this account.
                Ok(()) | Err(AdminError::Refused(..)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
