//! Carries out the steps of plans, and decides nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dbproxy_proto::gtid::Position;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::hook::{self, Case};
use super::job::{Ended, Task};
use super::journal::{Journal, Line};
use crate::config::{Cluster, Hooks};
use crate::failover::{Act, Credentials, Done, Hook, Step};
use crate::monitor::{Admin, Target};
use crate::topology::ServerId;

/// How often it is looked whether sessions have let go of a server.
const PACE: Duration = Duration::from_millis(2);

/// Sessions have so long to let go of a server that they are cut off from.
const CUT: Duration = Duration::from_secs(3);

/// What the control plane has to know of the sessions, and to tell them.
pub trait Sessions: Send + Sync {
    /// Tells those that run a statement on this server to let go of it.
    fn cut(&self, server: ServerId);
    /// How many run a statement on it.
    fn running(&self, server: ServerId) -> usize;
    /// How many run a statement on it, or keep a connection to it between their statements.
    fn attached(&self, server: ServerId) -> usize;
    /// Everything that a client was told to be committed, as far as is known.
    fn acknowledged(&self) -> Option<Position>;
}

/// Carries out steps, one after the other.
pub(super) struct Executor {
    targets: Vec<Target>,
    lock: Arc<str>,
    credentials: Option<Credentials>,
    programs: Hooks,
    sessions: Arc<dyn Sessions>,
    /// Connections that hold the servers' locks, as long as a plan lasts.
    admins: HashMap<ServerId, Admin>,
    journal: Arc<Journal>,
}

impl Executor {
    pub(super) fn new(
        cluster: &Cluster,
        targets: Vec<Target>,
        sessions: Arc<dyn Sessions>,
        journal: Arc<Journal>,
    ) -> Self {
        Self {
            targets,
            lock: format!("dbproxy/{}", cluster.name).into(),
            credentials: cluster.replication.as_ref().map(|account| Credentials {
                user: account.user.clone(),
                password: account.password.clone(),
            }),
            programs: cluster.hooks.clone(),
            sessions,
            admins: HashMap::new(),
            journal,
        }
    }

    /// A plan is over: the locks are somebody else's as soon as they are not needed.
    pub(super) fn release(&mut self) {
        self.admins.clear();
    }

    /// Carries out a step that is about `primary`, if it is about the proxy's own. A program is told `case`.
    pub(super) async fn carry_out(
        &mut self,
        plan: &str,
        step: Step,
        primary: Option<ServerId>,
        case: Option<Case>,
    ) -> Done {
        let begun = Instant::now();
        let until = begun + step.deadline;
        let done = match (&step.act, primary) {
            (Act::Pause(drain), Some(primary)) => self.pause(primary, begun + *drain).await,
            (Act::Close, Some(primary)) => self.close(primary).await,
            (Act::Hook(hook), _) => self.hook(plan, *hook, case, step.deadline).await,
            _ => self.jobs(plan, &step, until).await,
        };
        let line = Line {
            kind: "step",
            plan: Some(plan.to_owned()),
            text: step.act.to_string(),
            milliseconds: Some(begun.elapsed().as_secs_f64() * 1000.0),
            error: done.failure.clone(),
            ..Line::default()
        };
        self.journal.write(&line);
        done
    }

    /// Runs one of the operator's programs.
    async fn hook(&self, plan: &str, hook: Hook, case: Option<Case>, limit: Duration) -> Done {
        let program = match hook {
            Hook::Fence => &self.programs.fence,
            Hook::BeforePromote => &self.programs.before_promote,
            Hook::AfterPromote => &self.programs.after_promote,
        };
        let (Some(program), Some(case)) = (program, case) else {
            return Done {
                failure: Some("there is no program for it".to_owned()),
                ..Done::default()
            };
        };
        let begun = Instant::now();
        let hook::Outcome { failure, said } = hook::run(program, &case, limit).await;
        self.journal.write(&Line {
            kind: "hook",
            plan: Some(plan.to_owned()),
            text: program.display().to_string(),
            output: said,
            milliseconds: Some(begun.elapsed().as_secs_f64() * 1000.0),
            error: failure.clone(),
            ..Line::default()
        });
        Done {
            failure,
            ..Done::default()
        }
    }

    /// Lets transactions end, as long as there is time.
    async fn pause(&self, primary: ServerId, until: Instant) -> Done {
        while self.sessions.attached(primary) > 0 && Instant::now() < until {
            sleep(PACE).await;
        }
        Done::default()
    }

    /// Cuts every session off from the primary.
    async fn close(&self, primary: ServerId) -> Done {
        let until = Instant::now() + CUT;
        loop {
            // Also those that came in between: they looked before the gate was closed.
            self.sessions.cut(primary);
            if self.sessions.running(primary) == 0 {
                return Done {
                    acknowledged: self.sessions.acknowledged(),
                    ..Done::default()
                };
            }
            if Instant::now() >= until {
                return Done {
                    failure: Some("sessions do not let go of the primary".to_owned()),
                    ..Done::default()
                };
            }
            sleep(PACE).await;
        }
    }

    async fn jobs(&mut self, plan: &str, step: &Step, until: Instant) -> Done {
        let mut running = JoinSet::new();
        for job in &step.jobs {
            let Some(target) = self.targets.iter().find(|target| target.id == job.server) else {
                continue;
            };
            let task = Task {
                target: target.clone(),
                lock: Arc::clone(&self.lock),
                credentials: self.credentials.clone(),
                job: job.clone(),
                until,
            };
            running.spawn(task.carry_out(self.admins.remove(&job.server)));
        }
        let mut done = Done::default();
        while let Some(ended) = running.join_next().await {
            let Ok(Ended {
                admin,
                report,
                lines,
            }) = ended
            else {
                continue;
            };
            if let Some(admin) = admin {
                self.admins.insert(report.server, admin);
            }
            for line in lines {
                self.journal.write(&Line {
                    plan: Some(plan.to_owned()),
                    ..line
                });
            }
            done.reports.push(report);
        }
        done
    }
}
