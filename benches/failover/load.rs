//! Clients that know what they were told.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::support::application;

const COUNTERS: u32 = 16;
const MOVERS: u32 = 8;
const ACCOUNTS: u32 = 64;
const MONEY: i64 = 1000;

/// What the clients write to.
pub(crate) const TABLES: &str = "CREATE TABLE test.counters (id INT PRIMARY KEY, n INT NOT NULL); \
    CREATE TABLE test.accounts (id INT PRIMARY KEY, money INT NOT NULL); \
    INSERT INTO test.counters SELECT seq, 0 FROM (WITH RECURSIVE s AS (SELECT 1 AS seq UNION ALL SELECT seq + 1 FROM s WHERE seq < 16) \
    SELECT seq FROM s) AS numbers; \
    INSERT INTO test.accounts SELECT seq, 1000 FROM (WITH RECURSIVE s AS (SELECT 1 AS seq UNION ALL SELECT seq + 1 FROM s WHERE seq < 64) \
    SELECT seq FROM s) AS numbers";

/// What became of all writes.
#[derive(Default)]
pub(crate) struct Tally {
    acknowledged: u64,
    unknown: u64,
    rolled_back: u64,
    lost: u64,
    twice: u64,
    other_errors: BTreeMap<String, u64>,
    money_is_right: Vec<bool>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.rolled_back += other.rolled_back;
        self.lost += other.lost;
        self.twice += other.twice;
        for (text, count) in other.other_errors {
            *self.other_errors.entry(text).or_default() += count;
        }
        self.money_is_right.extend(other.money_is_right);
    }

    /// Whether the promises are kept: nothing acknowledged is lost, nothing ran twice, and with a planned change nothing failed.
    pub(crate) fn is_sound(&self, keeps_all: bool, planned: bool) -> bool {
        (!keeps_all || self.lost == 0)
            && self.twice == 0
            && self.other_errors.is_empty()
            && self.money_is_right.iter().all(|right| *right)
            && (!planned || self.unknown + self.rolled_back == 0)
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes acknowledged, {} lost of them, {} run twice; {} of unknown outcome, {} rolled back; money right {} of {} times",
            self.acknowledged,
            self.lost,
            self.twice,
            self.unknown,
            self.rolled_back,
            self.money_is_right.iter().filter(|right| **right).count(),
            self.money_is_right.len()
        )?;
        for (text, count) in &self.other_errors {
            write!(f, "; {count} times: {text}")?;
        }
        Ok(())
    }
}

/// Of one counter.
#[derive(Default, Clone, Copy)]
struct Told {
    acknowledged: u64,
    unknown: u64,
}

#[derive(Default)]
struct Seen {
    told: BTreeMap<u32, Told>,
    rolled_back: u64,
    moves_unknown: u64,
    moves: u64,
    errors: BTreeMap<String, u64>,
    commits: Vec<Instant>,
}

/// Clients at work.
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
    before: BTreeMap<u32, u64>,
}

impl Load {
    /// Begins, and returns when everybody has written.
    pub(crate) async fn start(port: u16) -> Self {
        let before = counters(port).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for id in 1..=COUNTERS {
            clients.spawn(count(port, id, Arc::clone(&seen), Arc::clone(&stop)));
        }
        for id in 1..=MOVERS {
            clients.spawn(transfer(port, id, Arc::clone(&seen), Arc::clone(&stop)));
        }
        let load = Self {
            seen,
            stop,
            clients,
            before,
        };
        while load.seen.lock().unwrap().commits.len() < 100 {
            sleep(Duration::from_millis(5)).await;
        }
        load
    }

    /// Waits until something was committed after this.
    pub(crate) async fn writes_after(&self, at: Instant) {
        let deadline = at + Duration::from_secs(90);
        loop {
            let commits = self.seen.lock().unwrap().commits.clone();
            if commits.iter().filter(|commit| **commit > at).count() > 200 {
                return;
            }
            assert!(Instant::now() < deadline, "no write for 90 s");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The longest time without a commit from shortly before this on.
    pub(crate) fn longest_gap(&self, from: Instant) -> Duration {
        let mut commits = self.seen.lock().unwrap().commits.clone();
        commits.sort_unstable();
        let from = from - Duration::from_millis(100);
        let late: Vec<Instant> = commits.into_iter().filter(|at| *at > from).collect();
        let gaps = late.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// Ends, and holds what is in the tables against what the clients were told.
    pub(crate) async fn end(mut self, port: u16) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        while self.clients.join_next().await.is_some() {}
        let after = counters(port).await;
        let mut conn = connect(port).await;
        let money: Option<String> = conn
            .query_first("/* dbproxy: primary */ SELECT CONCAT(SUM(money)) FROM test.accounts")
            .await
            .unwrap();
        let seen = self.seen.lock().unwrap();
        let mut tally = Tally {
            unknown: seen.moves_unknown,
            acknowledged: seen.moves,
            rolled_back: seen.rolled_back,
            other_errors: seen.errors.clone(),
            money_is_right: vec![money == Some((i64::from(ACCOUNTS) * MONEY).to_string())],
            ..Tally::default()
        };
        for (id, told) in &seen.told {
            let grown = after[id] - self.before[id];
            tally.acknowledged += told.acknowledged;
            tally.unknown += told.unknown;
            tally.lost += told.acknowledged.saturating_sub(grown);
            tally.twice += grown.saturating_sub(told.acknowledged + told.unknown);
        }
        tally
    }
}

async fn connect(port: u16) -> Conn {
    loop {
        if let Ok(conn) = Conn::new(application(port)).await {
            return conn;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn counters(port: u16) -> BTreeMap<u32, u64> {
    let mut conn = connect(port).await;
    let rows: Vec<(u32, u64)> = conn
        .query("/* dbproxy: primary */ SELECT id, n FROM test.counters")
        .await
        .unwrap();
    rows.into_iter().collect()
}

/// What an error says of the write that it answers.
enum Fate {
    Unknown,
    RolledBack,
    Other(String),
}

fn fate(error: &Error) -> Fate {
    match error {
        Error::Server(error) if error.state == "08S01" => Fate::Unknown,
        Error::Server(error) if error.state == "40001" => Fate::RolledBack,
        Error::Server(error) => Fate::Other(format!("{} {}", error.code, error.message)),
        Error::Io(_) | Error::Driver(_) => Fate::Unknown,
        other => Fate::Other(other.to_string()),
    }
}

/// Adds to a counter that nobody else touches.
async fn count(port: u16, id: u32, seen: Arc<Mutex<Seen>>, stop: Arc<AtomicBool>) {
    let mut conn = connect(port).await;
    let sql = format!("UPDATE test.counters SET n = n + 1 WHERE id = {id}");
    while !stop.load(Ordering::SeqCst) {
        let done = conn.query_drop(&sql).await;
        let failed = done.is_err();
        {
            let mut seen = seen.lock().unwrap();
            let told = seen.told.entry(id).or_default();
            match done.as_ref().map_err(fate) {
                Ok(()) => {
                    told.acknowledged += 1;
                    seen.commits.push(Instant::now());
                }
                Err(Fate::Unknown) => told.unknown += 1,
                Err(Fate::RolledBack) => seen.rolled_back += 1,
                Err(Fate::Other(text)) => *seen.errors.entry(text).or_default() += 1,
            }
        }
        if failed {
            conn = connect(port).await;
        }
    }
}

/// Moves money from one account to another, which nobody may see half done.
async fn transfer(port: u16, id: u32, seen: Arc<Mutex<Seen>>, stop: Arc<AtomicBool>) {
    let mut conn = connect(port).await;
    let mut turn = id;
    while !stop.load(Ordering::SeqCst) {
        turn += 1;
        // In the order of their ids, so that no two wait for each other.
        let first = 1 + (turn * 7) % (ACCOUNTS - 1);
        let sums = [(first, -1), (first + 1, 1)];
        let done = moved(&mut conn, sums).await;
        let failed = done.is_err();
        {
            let mut seen = seen.lock().unwrap();
            match done.as_ref().map_err(fate) {
                Ok(()) => {
                    seen.moves += 1;
                    seen.commits.push(Instant::now());
                }
                Err(Fate::Unknown) => seen.moves_unknown += 1,
                Err(Fate::RolledBack) => seen.rolled_back += 1,
                Err(Fate::Other(text)) => *seen.errors.entry(text).or_default() += 1,
            }
        }
        if failed {
            conn = connect(port).await;
        }
    }
}

async fn moved(conn: &mut Conn, sums: [(u32, i32); 2]) -> Result<(), Error> {
    conn.query_drop("BEGIN").await?;
    for (id, sum) in sums {
        let sql = format!("UPDATE test.accounts SET money = money + {sum} WHERE id = {id}");
        conn.query_drop(sql).await?;
    }
    conn.query_drop("COMMIT").await
}
