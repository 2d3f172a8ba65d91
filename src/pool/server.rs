//! The hard cap of one server, and who gets its connections.

mod grant;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

pub(super) use grant::{Grant, Opening, Place, Slot, Waited};

use super::{
    bucket::{Bucket, Entry},
    gate::{Gate, Pass, Passage, Shut, Why},
    line::{Claim, Line},
};
use crate::{
    accounts::AccountKey,
    backend::Target,
    config::Limits,
    error::{Error, ErrorKind, Origin},
};

/// One server's connections over all workers.
#[derive(Debug)]
pub(super) struct ServerPool {
    pub(super) target: Target,
    limit: usize,
    queue_depth: usize,
    queue_wait: Duration,
    /// Milliseconds after which the server closes an idle connection.
    wait_timeout: AtomicU64,
    // Equal to the length of the line, so that a return need not take the lock.
    waiting: AtomicUsize,
    desk: Mutex<Desk>,
    buckets: Mutex<Vec<Weak<Bucket>>>,
    /// Connections beyond the cap, for ending queries of clients that left.
    pub(super) kills: Semaphore,
}

const KILLS: usize = 4;

/// What has to be decided in one place.
#[derive(Debug, Default)]
struct Desk {
    /// Connections that are open or being opened.
    open: usize,
    gate: Gate,
    line: Line<Waiter>,
    /// Since when there has been somebody waiting.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    bucket: usize,
    grant: oneshot::Sender<Grant>,
}

impl ServerPool {
    pub(super) fn new(target: Target, limits: &Limits) -> Self {
        Self {
            target,
            limit: limits.server_connections,
            queue_depth: limits.queue_depth,
            queue_wait: limits.queue_wait,
            wait_timeout: AtomicU64::new(u64::MAX),
            waiting: AtomicUsize::new(0),
            desk: Mutex::default(),
            buckets: Mutex::default(),
            kills: Semaphore::new(KILLS),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.desk().open
    }

    /// After this time the server closes an idle connection.
    pub(super) fn wait_timeout(&self) -> Duration {
        Duration::from_millis(self.wait_timeout.load(Relaxed))
    }

    pub(super) fn set_wait_timeout(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.wait_timeout.store(millis, Relaxed);
    }

    pub(super) fn adopt(&self, bucket: &Arc<Bucket>) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        // Only then, so that it costs little however many there are.
        if buckets.len() == buckets.capacity() {
            buckets.retain(|bucket| bucket.strong_count() > 0);
        }
        buckets.push(Arc::downgrade(bucket));
    }

    #[cfg(test)]
    pub(super) fn adopted(&self) -> usize {
        self.buckets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called whenever the line has changed.
    fn count(&self, desk: &mut Desk) {
        self.waiting.store(desk.line.len(), SeqCst);
        if desk.line.is_empty() {
            desk.since = None;
        }
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// The right to open a connection, if nobody waits, the cap leaves one and the server takes one more now.
    pub(super) fn begin(self: &Arc<Self>, account: &AccountKey) -> Result<Option<Opening>, Error> {
        let now = Instant::now();
        let mut desk = self.desk();
        if let Some(error) = self.refusal(&desk, now) {
            return Err(error);
        }
        if !desk.line.is_empty() || desk.open >= self.limit {
            return Ok(None);
        }
        let Passage::Now(pass) = desk.gate.pass(now) else {
            return Ok(None);
        };
        desk.open += 1;
        desk.line.hold(account);
        drop(desk);
        let slot = Slot {
            server: Arc::clone(self),
            account: Some(account.clone()),
        };
        Ok(Some(Opening::new(slot, pass)))
    }

    /// The right to open a connection in the place of one that works but does not fit.
    pub(super) fn exchange(&self, slot: Slot) -> Opening {
        let pass = self.desk().gate.exchange();
        Opening::new(slot, pass)
    }

    /// Why no statement gets a new connection, or may wait for one.
    fn refusal(&self, desk: &Desk, now: Instant) -> Option<Error> {
        let shut = desk.gate.refusal(now)?;
        // A server that has all its connections is waited for if some of them are ours.
        let waited_for = shut.why.is_full() && desk.open > 0;
        (!waited_for).then(|| self.shut_error(desk, shut, now))
    }

    fn shut_error(&self, desk: &Desk, shut: &Shut, now: Instant) -> Error {
        let (failures, since) = desk.gate.failures().unwrap_or((1, now));
        let text = format!(
            "server {} gets no new connections for {:.1} s more: {failures} in a row failed, the first {:.1} s ago, the last with: {}",
            self.target.name,
            shut.until.saturating_duration_since(now).as_secs_f64(),
            now.saturating_duration_since(since).as_secs_f64(),
            shut.why.words(),
        );
        match &shut.why {
            Why::Absent(_) => Error::server(ErrorKind::Io(std::io::Error::other(text))),
            Why::Refused(answer) => {
                Error::answer_with(Origin::Server, answer.code, &answer.sqlstate, text)
            }
        }
    }

    fn note_success(&self, pass: Pass) {
        if self.desk().gate.succeeded(pass) {
            info!(server = %self.target.name, "server takes connections again");
        }
    }

    fn note_failure(&self, pass: Pass, error: &Error) {
        let why = match &error.kind {
            ErrorKind::Answer(answer) => Why::Refused(answer.clone()),
            _ => Why::Absent(error.to_string()),
        };
        let shut = self.desk().gate.failed(pass, why, Instant::now());
        if let Some(pause) = shut {
            warn!(server = %self.target.name, %error, ?pause, "no new connections to a server that fails them");
        }
    }

    /// Whether a statement whose connection failed can wait for another one: the server has all that it takes, and some of
    /// them are ours.
    pub(super) fn is_waited_for(&self) -> bool {
        let desk = self.desk();
        let shut = desk.gate.refusal(Instant::now());
        desk.open > 0 && shut.is_some_and(|shut| shut.why.is_full())
    }

    /// The server was found dead: it will begin anew.
    pub(super) fn went_down(&self) {
        self.desk().gate.narrow();
    }

    /// The server answers again.
    pub(super) fn came_back(self: &Arc<Self>) {
        self.desk().gate.reopen();
        self.advance();
    }

    /// Gives a connection that is free to the next in line. Returns it if nobody waits.
    pub(super) fn serve(self: &Arc<Self>, bucket: usize, mut entry: Entry) -> Option<Entry> {
        loop {
            let mut desk = self.desk();
            if desk.line.is_empty() {
                return Some(entry);
            }
            // It counts for nobody while its next owner is chosen.
            entry.slot().vacate(&mut desk);
            let Some((account, waiter)) = desk.line.serve() else {
                return Some(entry);
            };
            entry.slot().account = Some(account);
            self.count(&mut desk);
            if waiter.bucket != bucket {
                let pass = desk.gate.exchange();
                drop(desk);
                let opening = Opening::new(entry.into_slot(), pass);
                // If it was given up meanwhile, dropping it looks for the next.
                let _ = waiter.grant.send(Grant::Opening(opening));
                return None;
            }
            drop(desk);
            match waiter.grant.send(Grant::Conn(entry)) {
                Err(Grant::Conn(back)) => entry = back,
                Ok(()) | Err(_) => return None,
            }
        }
    }

    /// Lets those in line open connections, as far as the cap, idle connections that can be closed and the server allow.
    pub(super) fn advance(self: &Arc<Self>) {
        while self.has_waiters() {
            let mut desk = self.desk();
            let now = Instant::now();
            if let Some(shut) = desk.gate.refusal(now) {
                let error = || self.shut_error(&desk, shut, now);
                if self.refusal(&desk, now).is_none() {
                    return;
                }
                let refusals: Vec<_> = (0..desk.line.len()).map(|_| error()).collect();
                let dismissed = desk.line.dismiss();
                self.count(&mut desk);
                drop(desk);
                for (waiter, error) in dismissed.into_iter().zip(refusals) {
                    let _ = waiter.grant.send(Grant::Refused(error));
                }
                return;
            }
            let Passage::Now(pass) = desk.gate.pass(now) else {
                return;
            };
            let fresh = desk.open < self.limit;
            desk.open += usize::from(fresh);
            drop(desk);
            let slot = match fresh {
                true => Some(Slot {
                    server: Arc::clone(self),
                    account: None,
                }),
                false => self.evict(),
            };
            let Some(slot) = slot else {
                self.desk().gate.abandoned(pass);
                return;
            };
            if !self.assign(Opening::new(slot, pass)) {
                return;
            }
        }
    }

    /// Gives the next in line the right to open a connection; false if nobody waits.
    fn assign(&self, mut opening: Opening) -> bool {
        loop {
            let mut desk = self.desk();
            if let Some(slot) = &mut opening.slot {
                slot.vacate(&mut desk);
            }
            let next = desk.line.serve();
            self.count(&mut desk);
            drop(desk);
            let Some((account, waiter)) = next else {
                return false;
            };
            if let Some(slot) = &mut opening.slot {
                slot.account = Some(account);
            }
            match waiter.grant.send(Grant::Opening(opening)) {
                Err(Grant::Opening(back)) => opening = back,
                Ok(()) | Err(_) => return true,
            }
        }
    }

    /// Closes the connection of any bucket that has been idle for longest and returns its right to be open.
    fn evict(&self) -> Option<Slot> {
        let buckets = self
            .buckets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let buckets: Vec<_> = buckets.iter().filter_map(Weak::upgrade).collect();
        let oldest = buckets
            .iter()
            .filter_map(|bucket| Some((bucket.idle_since()?, bucket)))
            .min_by_key(|(since, _)| *since)
            .map(|(_, bucket)| bucket);
        // Of the first one somebody else may have been quicker.
        let mut candidates = oldest.into_iter().chain(&buckets);
        candidates
            .find_map(|bucket| bucket.take_oldest())
            .map(Entry::into_slot)
    }

    /// Takes a place in the line; the one that it had before, if there was one.
    pub(super) fn join(
        self: &Arc<Self>,
        key: (usize, &AccountKey),
        claim: Claim,
        now: Instant,
        waited: Option<Waited>,
    ) -> Result<Place, Error> {
        let (bucket, account) = key;
        let (grant, granted) = oneshot::channel();
        let mut desk = self.desk();
        if let Some(error) = self.refusal(&desk, now) {
            return Err(error);
        }
        if desk.line.len() >= self.queue_depth {
            let what = format!(
                "limits.queue_depth = {} statements are waiting",
                self.queue_depth
            );
            return Err(self.full(&desk, account, now, &what));
        }
        desk.since.get_or_insert(now);
        let before = waited.map(|waited| waited.ticket);
        let waiter = Waiter { bucket, grant };
        let ticket = desk.line.join(account, claim, before, waiter);
        self.count(&mut desk);
        let until = waited.map_or_else(|| now + self.queue_wait, |waited| waited.until);
        Ok(Place {
            server: Arc::clone(self),
            account: account.clone(),
            waited: Waited { ticket, until },
            granted,
        })
    }

    /// Waits until it is this place's turn.
    pub(super) async fn wait(&self, mut place: Place) -> Result<Grant, Error> {
        match timeout_at(place.waited.until, &mut place.granted).await {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(_)) | Err(_) => {
                let what = format!("no connection became free within {:?}", self.queue_wait);
                // Giving up the place needs the desk as well.
                let desk = self.desk();
                let error = self.full(&desk, &place.account, Instant::now(), &what);
                drop(desk);
                Err(error)
            }
        }
    }

    fn full(&self, desk: &Desk, account: &AccountKey, now: Instant, what: &str) -> Error {
        let waiting = desk.since.map_or_else(Duration::default, |since| {
            now.saturating_duration_since(since)
        });
        Error::answer_with(
            Origin::Proxy,
            1040,
            b"08004",
            format!(
                "Too many connections: {what}: server {} has {} of limits.server_connections = {} open ({} of them for \
                 {account}, {} being opened), and statements have been waiting for {:.1} s",
                self.target.name,
                desk.open,
                self.limit,
                desk.line.held(account),
                desk.gate.opening(),
                waiting.as_secs_f64()
            ),
        )
    }
}
