//! What rules allow one answer: time, rows, bytes.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

use super::ruling::{Ruling, exceeded};
use crate::{
    backend::Login,
    error::Answer,
    pool::{Bucket, PooledConn},
};

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// What rules allow one answer, and what ends it when it is over.
pub(in crate::session) struct Curb {
    deadline: Option<(Instant, Answer)>,
    rows: Option<(u64, Answer)>,
    bytes: Option<(u64, Answer)>,
    bucket: Arc<Bucket>,
    login: Login,
    thread_id: u32,
    /// It takes too long.
    overdue: bool,
    runs: Arc<AtomicBool>,
    killing: Option<JoinHandle<()>>,
}

impl Curb {
    /// The curb on the answer to a statement that begins to run on `conn` now; `None` if nothing limits it. What may write is
    /// limited in time only: it would have happened all the same.
    pub(super) fn new(
        ruling: &Ruling,
        conn: &PooledConn,
        login: &Login,
        may_write: bool,
    ) -> Option<Self> {
        let deadline = ruling.timeout().map(|(rule, timeout)| {
            let text = format!(
                "dbproxy: rule \"{rule}\" ended the statement, which took longer than {timeout:?}"
            );
            // ER_QUERY_TIMEOUT
            (Instant::now() + timeout, Answer::new(3024, b"HY000", text))
        });
        let of_answer = |most: Option<(&str, u64)>, unit: &str| {
            let (rule, most) = most.filter(|_| !may_write)?;
            Some((most, exceeded(rule, &format!("{most} {unit} in an answer"))))
        };
        let rows = of_answer(ruling.least(|then| then.limit.rows), "rows");
        let bytes = of_answer(ruling.least(|then| then.limit.bytes), "bytes");
        if deadline.is_none() && rows.is_none() && bytes.is_none() {
            return None;
        }
        Some(Self {
            deadline,
            rows,
            bytes,
            bucket: conn.bucket(),
            login: login.clone(),
            thread_id: conn.thread_id(),
            overdue: false,
            runs: Arc::new(AtomicBool::new(true)),
            killing: None,
        })
    }

    /// What the client gets in place of an answer that has become too long; it is ended on the server as well.
    pub(in crate::session) fn too_long(&mut self, rows: u64, bytes: u64) -> Option<Answer> {
        let over = |limit: &Option<(u64, Answer)>, found: u64| {
            let (most, answer) = limit.as_ref()?;
            (found > *most).then(|| answer.clone())
        };
        let answer = over(&self.rows, rows).or_else(|| over(&self.bytes, bytes))?;
        self.kill();
        Some(answer)
    }

    /// Waits until the statement takes too long, and ends it on the server then.
    pub(in crate::session) async fn expire(&mut self) {
        match &self.deadline {
            Some((deadline, _)) if !self.overdue => sleep_until(*deadline).await,
            _ => pending().await,
        }
        self.overdue = true;
        self.kill();
    }

    /// What the client gets in place of the server's error.
    pub(in crate::session) fn timed_out(&self) -> Option<&Answer> {
        self.deadline
            .as_ref()
            .filter(|_| self.overdue)
            .map(|(_, answer)| answer)
    }

    fn kill(&mut self) {
        if self.killing.is_some() {
            return;
        }
        let (bucket, login, thread_id) =
            (Arc::clone(&self.bucket), self.login.clone(), self.thread_id);
        let runs = Arc::clone(&self.runs);
        self.killing = Some(tokio::spawn(async move {
            while runs.load(SeqCst) {
                let killed = bucket.kill_query(&login, thread_id, || runs.load(SeqCst));
                match killed.await {
                    Ok(()) => return,
                    // A server that has no room for one more connection may have it soon.
                    Err(error) => {
                        debug!(thread_id, %error, "a statement that a rule ends could not be ended");
                        sleep(AGAIN).await;
                    }
                }
            }
        }));
    }

    /// The answer is complete. Whether the server was told to end the statement, perhaps too late.
    pub(in crate::session) async fn end(&mut self) -> bool {
        self.runs.store(false, SeqCst);
        let Some(killing) = self.killing.take() else {
            return false;
        };
        // Bounded by limits.login. Nobody is left to tell of a panic.
        let _ = killing.await;
        true
    }
}
