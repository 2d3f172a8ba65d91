//! Copies of statements, run on another cluster for nobody to see their answers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    capability::{Capabilities, StatusFlags},
    reply::OkPacket,
    response::{Event, ResponseTracker},
    track::Change,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{
    Context, Session,
    finish::is_connection_error,
    guest::Claim,
    observe::{Read, shown, text_of},
    relay::Outcome,
    route::Tried,
    rules::{Entry, Written},
    scopes::SessionScopes,
    statement::Request,
    tables::Wording,
};
use crate::{
    backend::{Login, SessionState},
    config::Consistency,
    error::{Answer, Error, ErrorKind},
    pool::{Key, PooledConn},
    routing::{self, Target},
    sql::{Facts, Kind, StatementClass},
    topology::ServerId,
};

/// Copies that wait or run on a worker for one cluster, their bytes, and how many of them run.
const COPIES: usize = 1_000;
const BYTES: usize = 16 << 20;
const AT_A_TIME: usize = 16;

/// How long a copy may run.
const DEADLINE: Duration = Duration::from_secs(60);

/// The time between two complaints, and between two tries to log somebody in who was refused.
const PAUSE: Duration = Duration::from_secs(60);

/// What a worker may have under way for one cluster.
#[derive(Debug)]
pub struct Mirrored {
    copies: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    running: Arc<Semaphore>,
    complained: Mutex<Option<Instant>>,
}

impl Default for Mirrored {
    fn default() -> Self {
        Self {
            copies: Arc::new(Semaphore::new(COPIES)),
            bytes: Arc::new(Semaphore::new(BYTES)),
            running: Arc::new(Semaphore::new(AT_A_TIME)),
            complained: Mutex::default(),
        }
    }
}

/// Room for one more copy, until it is dropped.
struct Room {
    _copy: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Mirrored {
    fn room(&self, bytes: usize) -> Option<Room> {
        let bytes = u32::try_from(bytes).ok()?;
        Some(Room {
            _copy: Arc::clone(&self.copies).try_acquire_owned().ok()?,
            _bytes: Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()?,
        })
    }

    /// Whether the log is to be told of a copy that failed.
    fn complains(&self, now: Instant) -> bool {
        let mut last = lock(&self.complained);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// One session's copies for one cluster, which run one after the other.
pub(super) struct Lane {
    context: Arc<Context>,
    session: u32,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    copies: VecDeque<Copy>,
    /// Somebody sees to them.
    attended: bool,
    login: Option<Login>,
    /// When the login was refused.
    refused: Option<Instant>,
}

/// A statement to be run once more.
struct Copy {
    read: Read,
    claim: Claim,
    profile: Capabilities,
    wanted: Arc<SessionState>,
    /// What LAST_INSERT_ID() gives, if it matters.
    insert_id: Option<u64>,
    target: Target,
    /// What it is on that cluster.
    class: StatementClass,
    /// The tables that it may write, if answers are kept.
    written: Option<Written>,
    entry: Arc<Entry>,
    _room: Room,
}

impl Session {
    /// Sends a copy of a statement that has succeeded to where a rule wants one. The client has its answer, and nobody waits.
    pub(super) fn mirror(
        &mut self,
        class: &StatementClass,
        request: Request<'_>,
        outcome: &Outcome,
    ) {
        let Some((entry, context)) = self.mirror_of(outcome) else {
            return;
        };
        // Of these the copies find what they have changed.
        if matches!(class.kind, Kind::Set | Kind::Use) {
            return;
        }
        let copy = self.copy(class, request, outcome, &entry, context.as_ref());
        let (Some(copy), Some(context)) = (copy, context) else {
            return entry.mirrors().leave_out();
        };
        let id = self.handle().id();
        let lanes = &mut self.lanes;
        let lane = match lanes
            .iter()
            .find(|lane| Arc::ptr_eq(&lane.context, &context))
        {
            Some(lane) => lane,
            None => {
                lanes.push(Arc::new(Lane {
                    context,
                    session: id,
                    waiting: Mutex::default(),
                }));
                let Some(lane) = lanes.last() else { return };
                lane
            }
        };
        let mut waiting = lock(&lane.waiting);
        waiting.copies.push_back(copy);
        if !waiting.attended {
            waiting.attended = true;
            // Every wait in it has a deadline, and it ends with the last copy.
            tokio::spawn(Arc::clone(lane).attend());
        }
    }

    /// A statement that a rule wants a copy of was too long for that.
    pub(super) fn leave_out_of_mirror(&self, outcome: &Outcome) {
        if let Some((entry, _)) = self.mirror_of(outcome) {
            entry.mirrors().leave_out();
        }
    }

    /// The rule that wants a copy of the statement that has ended like this, and the cluster that is to have it, if it is there.
    fn mirror_of(&self, outcome: &Outcome) -> Option<(Arc<Entry>, Option<Arc<Context>>)> {
        let (entry, name) = self.ruling.as_deref()?.mirror()?;
        if outcome.error.is_some() || *self.context.name == *name {
            return None;
        }
        let mut clusters = self.clusters.iter();
        let context = clusters.find(|context| *context.name == *name).cloned();
        Some((entry, context))
    }

    /// The copy of a statement, if there is room for it and it makes sense alone.
    fn copy(
        &mut self,
        class: &StatementClass,
        request: Request<'_>,
        outcome: &Outcome,
        entry: &Arc<Entry>,
        context: Option<&Arc<Context>>,
    ) -> Option<Copy> {
        let context = context?;
        let status = outcome.status.unwrap_or_default();
        let alone = matches!(class.kind, Kind::Read | Kind::Write | Kind::Ddl)
            && !self.is_bound()
            && self.status.contains(StatusFlags::AUTOCOMMIT)
            && !status.intersects(StatusFlags::IN_TRANS | StatusFlags::CURSOR_EXISTS)
            && !class.facts.contains(Facts::PREVIOUS_STATEMENT);
        if !alone {
            return None;
        }
        let claim = self.claim_at(context).ok()?;
        let read = self.repeatable(request)?;
        let room = context.mirrored.room(read.len())?;
        let text = text_of(request, self.capabilities)?;
        // Where it goes and what it leaves behind is for that cluster to say.
        let home = self.visit(context, claim.login());
        let there = self.looked_up(self.classify(text), text, &self.wanted);
        let target = self
            .route(&there, Tried::default(), Wording::Text(text))
            .target;
        let wanted = Arc::clone(&self.wanted);
        let profile = self.profile();
        let writes = !there.is_replica_read() && context.answers.is_used();
        let written = writes.then(|| {
            let find = || context.classifier.tables(text, &there, self.dialect);
            let tables = (there.kind == Kind::Write).then(find);
            let mut written = Written::default();
            written.add(tables.as_deref(), wanted.schema().unwrap_or_default());
            written
        });
        self.end_visit(home);
        if routing::pin_for(&there).is_some() {
            return None;
        }
        let uses_id = there.facts.contains(Facts::LAST_INSERT_ID);
        Some(Copy {
            read,
            claim,
            profile,
            wanted,
            insert_id: uses_id.then_some(self.last_insert_id),
            target,
            class: there,
            written,
            entry: Arc::clone(entry),
            _room: room,
        })
    }
}

impl Lane {
    async fn attend(self: Arc<Self>) {
        loop {
            let copy = {
                let mut waiting = lock(&self.waiting);
                let Some(copy) = waiting.copies.pop_front() else {
                    waiting.attended = false;
                    return;
                };
                copy
            };
            let running = Arc::clone(&self.context.mirrored.running);
            let _turn = running.acquire_owned().await;
            let ended = self.run(&copy).await;
            self.note(&copy);
            match ended {
                Ok(()) => copy.entry.mirrors().succeed(),
                Err(error) => self.failed(&copy, &error),
            }
        }
    }

    /// What a copy may have changed is not what is known of the cluster any more, whatever its answer was.
    fn note(&self, copy: &Copy) {
        let (context, now) = (&self.context, Instant::now());
        if copy.class.facts.contains(Facts::DEFINITIONS) {
            context.definitions.note(now);
        }
        if copy.class.facts.contains(Facts::ACCOUNTS) {
            context.account_changes.note(now);
        }
        if let Some(written) = &copy.written {
            context.answers.forget(written);
        }
    }

    fn failed(&self, copy: &Copy, error: &Error) {
        copy.entry.mirrors().fail();
        let (session, cluster, rule) = (self.session, &self.context.name, copy.entry.name());
        let (code, why) = match &error.kind {
            // Its text may quote what is nobody's business.
            ErrorKind::Answer(answer) => (answer.code, shown(answer)),
            _ => (0, error.to_string()),
        };
        if self.context.mirrored.complains(Instant::now()) {
            warn!(%cluster, rule, code, why, "a mirrored statement has failed; of others the log is told in a minute");
        } else {
            debug!(session, %cluster, rule, code, why, "a mirrored statement has failed");
        }
    }

    async fn run(&self, copy: &Copy) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        let too_late = |what: &str| Error::server(ErrorKind::Timeout(what.to_owned()));
        let taken = timeout_at(deadline, async {
            let login = self.login(&copy.claim).await?;
            let conn = self.connection(copy, &login).await?;
            Ok::<_, Error>((conn, login))
        });
        let (mut conn, login) = taken
            .await
            .unwrap_or_else(|_| Err(too_late("a connection for a mirrored statement")))?;
        match timeout_at(deadline, self.ask(&mut conn, copy)).await {
            Ok(Ok(answer)) => {
                if answer
                    .as_ref()
                    .is_err_and(|answer| is_connection_error(answer.code))
                {
                    conn.condemn();
                } else {
                    conn.mark_idle(&self.context.buffers);
                    if copy.class.is_replica_read() {
                        conn.mark_clean();
                    } else {
                        conn.mark_soiled();
                    }
                }
                answer.map_err(|answer| Error::server(ErrorKind::Answer(answer)))
            }
            // Dropped while it is busy, the connection is closed.
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let (bucket, thread_id) = (conn.bucket(), conn.thread_id());
                drop(conn);
                let kill = bucket.kill_query(&login, thread_id, || true);
                let _ = timeout(DEADLINE, kill).await;
                Err(too_late(
                    "a mirrored statement, which was ended after 60 seconds",
                ))
            }
        }
    }

    /// What logs the user in, who is not tried again and again when refused: servers may count that.
    async fn login(&self, claim: &Claim) -> Result<Login, Error> {
        {
            let waiting = lock(&self.waiting);
            if let Some(login) = &waiting.login
                && login.account == *claim.account()
            {
                return Ok(login.clone());
            }
            if waiting.refused.is_some_and(|at| at.elapsed() < PAUSE) {
                let text = "the login was refused a moment ago".to_owned();
                return Err(Error::server(ErrorKind::Timeout(text)));
            }
        }
        let proven = claim.prove(&self.context).await;
        let mut waiting = lock(&self.waiting);
        match &proven {
            Ok(login) => waiting.login = Some(login.clone()),
            Err(_) => waiting.refused = Some(Instant::now()),
        }
        proven
    }

    async fn connection(&self, copy: &Copy, login: &Login) -> Result<PooledConn, Error> {
        let server = match copy.target {
            Target::Replica(server) => Some(server),
            _ => self.primary(),
        };
        let Some(server) = server else {
            return Err(Error::server(ErrorKind::Timeout("no primary".into())));
        };
        let key = Key::new(server, login, copy.profile);
        let Some(bucket) = self.context.pool.bucket(key) else {
            return Err(Error::server(ErrorKind::Closed));
        };
        bucket.spare(self.context.worker, login, &copy.wanted).await
    }

    fn primary(&self) -> Option<ServerId> {
        let topology = self.context.topology.borrow();
        topology.writable().map(|server| server.id)
    }

    /// Runs it and lets its answer pass.
    async fn ask(&self, conn: &mut PooledConn, copy: &Copy) -> Result<Result<(), Answer>, Error> {
        let buffers = &self.context.buffers;
        let mut commands = BytesMut::new();
        match copy.insert_id {
            Some(id) => {
                let extra = format!(", SESSION last_insert_id={id}");
                conn.put_sync(&mut commands, &copy.wanted, &extra);
                conn.set_insert_id(id);
            }
            None => conn.put_sync(&mut commands, &copy.wanted, ""),
        }
        conn.send(&commands, &[]).await?;
        conn.settle(buffers).await?;
        let _counted = self.context.loads.count(conn.server());
        let expect = copy.read.send(conn, self.session, buffers).await?;
        let mut tracker = ResponseTracker::new(expect, conn.capabilities());
        let scopes = SessionScopes::begin(&self.context, copy.claim.account(), Consistency::User);
        let (mut error, mut insert_id) = (None, 0);
        while !tracker.is_done() {
            let event = tracker.next(&conn.input);
            let event =
                event.map_err(|error| Error::server(ErrorKind::Protocol(error.to_string())))?;
            let len = match event {
                Event::NeedMore => {
                    conn.fill(buffers).await?;
                    continue;
                }
                Event::Ok { len, packet, .. } => {
                    insert_id = packet.last_insert_id;
                    note_positions(&scopes, &packet);
                    len
                }
                Event::Data { len } | Event::Eof { len, .. } => len,
                Event::Err { len, packet, .. } => {
                    error = Some(Answer::of(&packet));
                    len
                }
                Event::LocalInfile { .. } | Event::Prepared { .. } => {
                    let text = "a mirrored statement was answered with something else";
                    return Err(Error::server(ErrorKind::Protocol(text.into())));
                }
            };
            conn.input.advance(len);
        }
        if insert_id != 0 {
            conn.set_insert_id(insert_id);
        }
        Ok(error.map_or(Ok(()), Err))
    }
}

/// The account's own reads must not miss what its copies wrote.
fn note_positions(scopes: &SessionScopes, packet: &OkPacket<'_>) {
    for change in packet.changes().map_while(Result::ok) {
        match change {
            Change::Gtids(text)
            | Change::SystemVariable {
                name: b"last_gtid",
                value: text,
            } if !text.is_empty() => scopes.wrote(text),
            _ => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
