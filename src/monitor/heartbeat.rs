//! A row on the primary that is changed all the time: how old it is on a replica is how far that is behind.
//!
//! Only one clock counts, this process's: a beat is the time since the process began, and each process has a row of its own.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::watch;
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::{debug, info};

use super::Target;
use super::connect::{classify, open, within};
use crate::topology::{Flavor, ProbeError, Role, ServerId, Topology, WriteProbe};

/// Nobody waits for a beat; one that takes longer may have been written all the same.
const DEADLINE: Duration = Duration::from_secs(3);

/// Where the table cannot be written to it is tried again after this.
pub(super) const REST: Duration = Duration::from_secs(5);

/// Makes the table, on the primary. For people.
pub(super) const CREATE: &str = "CREATE DATABASE dbproxy; CREATE TABLE dbproxy.heartbeat (instance BIGINT UNSIGNED PRIMARY KEY, \
     beat BIGINT UNSIGNED NOT NULL, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)";

/// Rows of processes that ended are removed after this, in hours: no transaction waits that long for its turn.
const KEPT: u32 = 24;

/// This process's row.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    instance: u64,
    begun: Instant,
}

impl Pulse {
    /// A row that no other process has.
    pub fn new() -> Self {
        Self {
            // The keys of a hasher are random.
            instance: RandomState::new().hash_one(std::process::id()),
            begun: Instant::now(),
        }
    }

    /// What asks a server for the newest beat that it has.
    pub(super) fn question(&self) -> String {
        let instance = self.instance;
        format!("SELECT beat FROM dbproxy.heartbeat WHERE instance = {instance}")
    }

    /// When a beat was sent; `None` if it was not.
    pub(super) fn sent_at(&self, beat: u64) -> Option<Instant> {
        let at = self.begun.checked_add(Duration::from_micros(beat))?;
        (at <= Instant::now()).then_some(at)
    }

    /// A beat, for the server of this identity alone, and only while it takes writes.
    fn statement(&self, flavor: Flavor, identity: &str) -> String {
        let instance = self.instance;
        let beat = self.begun.elapsed().as_micros();
        let guard = guard(flavor, identity);
        format!(
            "INSERT INTO dbproxy.heartbeat (instance, beat) SELECT {instance}, {beat} FROM DUAL WHERE {guard} \
             ON DUPLICATE KEY UPDATE beat = {beat}"
        )
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

/// What holds on this server alone, and only while it takes writes. An account that may write in spite of `read_only` must not
/// do so: the transaction would be nowhere else.
fn guard(flavor: Flavor, identity: &str) -> String {
    let variable = match flavor {
        Flavor::MySql => "server_uuid",
        Flavor::MariaDb => "server_id",
    };
    // As text: in some versions the variable is a word, which compared with a number would be 0.
    format!("CONCAT(@@global.read_only) IN ('0', 'OFF') AND CONCAT(@@{variable}) = '{identity}'")
}

/// Writes a beat on the primary every `interval`, until nobody publishes the topology any more.
///
/// Only to a primary that is the one writable server, and no more as soon as it is not. `fate` tells how that goes. May be
/// dropped at any time.
pub async fn beat(
    targets: Vec<Target>,
    mut topology: watch::Receiver<Arc<Topology>>,
    fate: watch::Sender<WriteProbe>,
) {
    let Some((pulse, interval)) = targets
        .first()
        .and_then(|target| Some((target.pulse?, target.interval)))
    else {
        return;
    };
    loop {
        let found = topology
            .wait_for(|topology| place(topology).is_some())
            .await;
        let Some(place) = found.ok().and_then(|topology| place(&topology)) else {
            return;
        };
        fate.send_replace(WriteProbe {
            server: Some(place.server),
            ..WriteProbe::default()
        });
        let mut meanwhile = topology.clone();
        tokio::select! {
            biased;
            changed = meanwhile.wait_for(|topology| self::place(topology).as_ref() != Some(&place)) => {
                if changed.is_err() {
                    return;
                }
            }
            () = beat_at(&targets, &place, pulse, interval, &fate) => {}
        }
        fate.send_replace(WriteProbe::default());
    }
}

/// A server, and who that is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    server: ServerId,
    flavor: Flavor,
    identity: Arc<str>,
}

/// Where a beat may be written.
fn place(topology: &Topology) -> Option<Place> {
    let primary = topology.writable()?;
    let rival = topology
        .servers
        .iter()
        .any(|server| server.role == Role::Spare || server.writable && server.id != primary.id);
    let identity = primary.identity.clone()?;
    // It comes from the server and goes into a statement.
    let plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (!rival && identity.bytes().all(plain)).then_some(Place {
        server: primary.id,
        flavor: topology.flavor(),
        identity,
    })
}

async fn beat_at(
    targets: &[Target],
    place: &Place,
    pulse: Pulse,
    interval: Duration,
    fate: &watch::Sender<WriteProbe>,
) {
    loop {
        let ended = beat_on(targets, place, pulse, interval, fate).await;
        debug!(server = place.server.0, error = %ended, "no heartbeat");
        time::sleep(REST).await;
    }
}

/// Beats on one connection for as long as that goes well.
async fn beat_on(
    targets: &[Target],
    place: &Place,
    pulse: Pulse,
    interval: Duration,
    fate: &watch::Sender<WriteProbe>,
) -> ProbeError {
    let mut conn = match ready(targets, place, fate).await {
        Ok(conn) => conn,
        Err(error) => return error,
    };
    let mut ticks = time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        ticks.tick().await;
        let statement = pulse.statement(place.flavor, &place.identity);
        if let Err(error) = write(&mut conn, &statement, fate).await {
            return error;
        }
        if !told {
            info!(server = place.server.0, "lag is measured with heartbeats");
            told = true;
        }
    }
}

async fn ready(
    targets: &[Target],
    place: &Place,
    fate: &watch::Sender<WriteProbe>,
) -> Result<Conn, ProbeError> {
    let (_, mut conn) = open(targets, place.server, DEADLINE).await?;
    let format: Option<(String, String)> = within(DEADLINE, async {
        let found = conn
            .query_first("SHOW VARIABLES LIKE 'binlog_format'")
            .await;
        found.map_err(|error| classify(&error))
    })
    .await?;
    if format.is_some_and(|(_, format)| format.eq_ignore_ascii_case("statement")) {
        // Each one would be a warning in the server's log.
        return Err(ProbeError::Other("binlog_format is STATEMENT".into()));
    }
    let guard = guard(place.flavor, &place.identity);
    let tidy = format!(
        "DELETE FROM dbproxy.heartbeat WHERE at < NOW() - INTERVAL {KEPT} HOUR AND {guard}"
    );
    write(&mut conn, &tidy, fate).await?;
    Ok(conn)
}

async fn write(
    conn: &mut Conn,
    statement: &str,
    fate: &watch::Sender<WriteProbe>,
) -> Result<(), ProbeError> {
    let sent = Instant::now();
    fate.send_modify(|fate| {
        fate.pending_since.get_or_insert(sent);
    });
    let done = run(conn, statement).await;
    fate.send_modify(|fate| match done {
        Ok(()) => {
            // What changes nothing succeeds on a server that cannot commit.
            if conn.affected_rows() > 0 {
                fate.last_ok = Some(Instant::now());
            }
            fate.pending_since = None;
        }
        // Nobody waits for it any more, but it has no answer all the same.
        Err(ProbeError::Timeout) => {}
        Err(_) => fate.pending_since = None,
    });
    done
}

async fn run(conn: &mut Conn, statement: &str) -> Result<(), ProbeError> {
    within(DEADLINE, async {
        let done = conn.query_drop(statement).await;
        done.map_err(|error| classify(&error))
    })
    .await
}

/// Whether the table can be read, and written to: nothing is changed. The error says what is missing.
pub(super) async fn allowed(conn: &mut Conn, writes: bool) -> Result<(), ProbeError> {
    const READS: &[&str] = &["SELECT instance, beat, at FROM dbproxy.heartbeat LIMIT 0"];
    const WRITES: &[&str] = &[
        "INSERT INTO dbproxy.heartbeat (instance, beat) SELECT 0, 0 FROM DUAL WHERE FALSE ON DUPLICATE KEY UPDATE beat = 0",
        "DELETE FROM dbproxy.heartbeat WHERE FALSE",
    ];
    let writes = if writes { WRITES } else { &[] };
    for statement in READS.iter().chain(writes) {
        run(conn, statement).await?;
    }
    Ok(())
}
