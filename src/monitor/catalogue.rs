//! Reads the stored routines and views of the primary, so that reads through them find their place.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use super::Target;
use super::connect::{classify, open, within};
use super::fields::Fields;
use super::inspect::{Finding, good, warning};
use crate::sql::Dialect;
use crate::sql::catalogue::{Catalogue, Reading, Routine, RoutineKind, View};
use crate::topology::{Flavor, ProbeError, ServerId, Topology, Version};

/// What somebody else defines counts after this long, unless looking takes long.
const PERIOD: Duration = Duration::from_secs(2);

/// The least time between two readings, however often somebody asks.
const REST: Duration = Duration::from_millis(10);

/// Looking for changes takes at most one part in this many of a server's time.
const SHARE: u32 = 20;

/// A reading has failed after this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// Until there is a server to read from, it is looked for this often.
const NO_SERVER: Duration = Duration::from_millis(100);

/// Beyond what lag allows, a replica may be this much older than its last probe said.
const MARGIN: Duration = Duration::from_secs(2);

/// Bytes of a text that is looked at, and of all of them.
const LONGEST: usize = 64 << 10;
const ROOM: usize = 64 << 20;

/// Most routines, and most views.
const MOST: usize = 50_000;

/// One number for all rows of a table: equal as long as nothing in it changes.
macro_rules! fingerprint {
    ($columns:literal, $from:literal) => {
        concat!(
            "SELECT CONCAT_WS('/', COUNT(*), BIT_XOR(sums.sum), SUM(sums.sum)) AS fingerprint FROM (SELECT CRC32(CONCAT_WS('/', ",
            $columns,
            ")) AS sum FROM ",
            $from,
            ") AS sums"
        )
    };
}

/// How a flavor is asked.
struct Queries {
    routines_fingerprint: &'static str,
    routines: &'static str,
    loadable: &'static str,
}

const MYSQL: Queries = Queries {
    routines_fingerprint: fingerprint!(
        "ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE, IS_DETERMINISTIC, SQL_DATA_ACCESS, SQL_MODE, LAST_ALTERED, \
         COALESCE(ROUTINE_DEFINITION, '')",
        "information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN ('sys', 'mysql')"
    ),
    routines: "SELECT ROUTINE_SCHEMA AS home, ROUTINE_NAME AS name, ROUTINE_TYPE AS kind, \
         IS_DETERMINISTIC AS is_fixed, SQL_DATA_ACCESS AS access, SQL_MODE AS mode, \
         CHARACTER_SET_CLIENT AS charset, ROUTINE_DEFINITION AS body \
         FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN ('sys', 'mysql')",
    // Those of components and plugins stand only here.
    loadable: "SELECT UDF_NAME AS name FROM performance_schema.user_defined_functions",
};

/// information_schema would parse each routine anew.
const MARIADB: Queries = Queries {
    routines_fingerprint: fingerprint!(
        "db, name, type, is_deterministic, sql_data_access, sql_mode, modified, COALESCE(body_utf8, '')",
        "mysql.proc WHERE db NOT IN ('sys', 'mysql')"
    ),
    routines: "SELECT db AS home, name, type AS kind, is_deterministic AS is_fixed, \
         REPLACE(sql_data_access, '_', ' ') AS access, sql_mode AS mode, character_set_client AS charset, \
         body_utf8 AS body FROM mysql.proc WHERE db NOT IN ('sys', 'mysql')",
    loadable: "SELECT name FROM mysql.func",
};

const VIEWS_FINGERPRINT: &str = fingerprint!(
    "TABLE_SCHEMA, TABLE_NAME, COALESCE(VIEW_DEFINITION, '')",
    "information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN ('sys', 'mysql')"
);

const VIEWS: &str = "SELECT TABLE_SCHEMA AS home, TABLE_NAME AS name, NULLIF(VIEW_DEFINITION, '') AS body \
     FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN ('sys', 'mysql')";

/// What the account may do everywhere.
const PRIVILEGES: &str = "SELECT PRIVILEGE_TYPE AS name FROM information_schema.USER_PRIVILEGES \
     WHERE GRANTEE = CONCAT('\\'', REPLACE(CURRENT_USER(), '@', '\\'@\\''), '\\'')";

const FOLDS: &str = "SELECT @@global.lower_case_table_names <> 0 AS folds";

/// Reads routines and views again and again and publishes what follows, until nobody listens any more.
///
/// `nudge` asks for a reading at once, as after a definition. `max_lag`: replicas that serve reads are no older. May be
/// dropped at any time.
pub async fn watch(
    targets: Vec<Target>,
    max_lag: Duration,
    topology: watch::Receiver<Arc<Topology>>,
    catalogue: watch::Sender<Arc<Catalogue>>,
    nudge: Arc<Notify>,
) {
    let mut reader = Reader {
        targets,
        settle: max_lag.saturating_add(MARGIN),
        link: None,
        trouble: None,
    };
    loop {
        let primary = topology.borrow().writable().map(|server| server.id);
        let asked_at = Instant::now();
        let before = Arc::clone(&catalogue.borrow());
        let next = match primary {
            Some(server) => reader.next(server, &before, asked_at).await,
            None => None,
        };
        let took = asked_at.elapsed();
        debug!(?took, read = next.is_some(), "looked for definitions");
        let (pause, rest) = match primary {
            Some(_) => (PERIOD.max(took * SHARE), REST.max(took * 2)),
            None => (NO_SERVER, NO_SERVER),
        };
        if let Some(next) = next {
            catalogue.send_replace(Arc::new(next));
        }
        tokio::select! {
            () = time::sleep(pause) => {}
            () = rested(&nudge, rest) => {}
            () = catalogue.closed() => return,
        }
    }
}

/// A nudge, but not before the rest is over; meanwhile others may nudge for the same reading.
async fn rested(nudge: &Notify, rest: Duration) {
    time::sleep(rest).await;
    nudge.notified().await;
}

struct Reader {
    targets: Vec<Target>,
    settle: Duration,
    link: Option<Link>,
    trouble: Option<Arc<str>>,
}

/// A connection, and what was last read on it.
struct Link {
    server: ServerId,
    version: Version,
    conn: Conn,
    fingerprint: Option<Fingerprint>,
}

/// Of routines, views and loadable functions.
#[derive(Debug, PartialEq, Eq)]
struct Fingerprint {
    routines: String,
    views: String,
    loadable: Option<Vec<Vec<u8>>>,
}

/// What is shown to the monitor's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// There may be functions that are not shown at all.
    all_routines: bool,
    /// The same of views.
    all_views: bool,
    routines: usize,
    hidden_routines: usize,
    views: usize,
    hidden_views: usize,
    loadable: bool,
}

impl Reader {
    /// The next catalogue; `None` if the server does not answer, which is told of elsewhere.
    async fn next(
        &mut self,
        server: ServerId,
        before: &Catalogue,
        asked_at: Instant,
    ) -> Option<Catalogue> {
        let link = match self.link.take() {
            Some(link) if link.server == server => link,
            _ => match self.open(server).await {
                Ok(link) => link,
                Err(error) => return self.failed(&error, before, asked_at),
            },
        };
        let read = async |mut link: Link| {
            let result = within(DEADLINE, link.read()).await;
            result.map(|reading| (link, reading))
        };
        let result = match read(link).await {
            // It may only have been closed for idleness.
            Err(ProbeError::Closed) => match self.open(server).await {
                Ok(link) => read(link).await,
                Err(error) => Err(error),
            },
            result => result,
        };
        match result {
            Ok((link, reading)) => {
                self.link = Some(link);
                Some(match reading {
                    Some((reading, rights)) => {
                        self.report(server, Seen::of(&reading, rights));
                        Catalogue::new(&reading, before, asked_at, self.settle)
                    }
                    None => before.confirmed(asked_at),
                })
            }
            Err(error) => self.failed(&error, before, asked_at),
        }
    }

    async fn open(&self, server: ServerId) -> Result<Link, ProbeError> {
        let (version, conn) = open(&self.targets, server, DEADLINE).await?;
        Ok(Link {
            server,
            version,
            conn,
            fingerprint: None,
        })
    }

    fn failed(
        &mut self,
        error: &ProbeError,
        before: &Catalogue,
        asked_at: Instant,
    ) -> Option<Catalogue> {
        if !matches!(
            error,
            ProbeError::Timeout | ProbeError::Unresponsive | ProbeError::Other(_)
        ) {
            return None;
        }
        self.tell(&format!(
            "stored functions and views cannot be read ({error}): functions count as unknown, and their calls go to the primary"
        ));
        Some(before.unreadable(asked_at))
    }

    fn report(&mut self, server: ServerId, seen: Seen) {
        if !seen.is_whole() {
            self.tell(
                "not all stored functions and views are shown to the monitor's account; `dbproxy check` says which right \
                 is missing and what that costs",
            );
        } else if self.trouble.take().is_some() {
            let target = self.targets.iter().find(|target| target.id == server);
            let server = target.map_or("", |target| &target.name);
            info!(server, "stored functions and views can be read");
        }
    }

    fn tell(&mut self, text: &str) {
        if self.trouble.as_deref() != Some(text) {
            warn!("{text}");
            self.trouble = Some(text.into());
        }
    }
}

impl Link {
    /// A reading; `None` if nothing has changed since the last one.
    async fn read(&mut self) -> Result<Option<(Reading, Rights)>, ProbeError> {
        let queries = queries(self.version.flavor);
        // Before the rest: what changes in between shows at the next look.
        let fingerprint = Fingerprint {
            routines: permitted(number(&mut self.conn, queries.routines_fingerprint).await)?
                .unwrap_or_default(),
            views: number(&mut self.conn, VIEWS_FINGERPRINT).await?,
            loadable: permitted(names(&mut self.conn, queries.loadable).await)?,
        };
        if self.fingerprint.as_ref() == Some(&fingerprint) {
            return Ok(None);
        }
        self.fingerprint = None;
        let (mut reading, rights) = read(&mut self.conn, &self.version).await?;
        reading.loadable.clone_from(&fingerprint.loadable);
        self.fingerprint = Some(fingerprint);
        Ok(Some((reading, rights)))
    }
}

impl Seen {
    fn of(reading: &Reading, rights: Rights) -> Self {
        let routines = reading.routines.iter();
        Self {
            all_routines: rights.routines,
            all_views: rights.views,
            routines: reading.routines.len(),
            hidden_routines: routines
                .filter(|routine| routine.kind != RoutineKind::Package && routine.body.is_none())
                .count(),
            views: reading.views.len(),
            hidden_views: reading
                .views
                .iter()
                .filter(|view| view.definition.is_none())
                .count(),
            loadable: reading.loadable.is_some(),
        }
    }

    fn is_whole(self) -> bool {
        self.all_routines
            && self.all_views
            && self.hidden_routines == 0
            && self.hidden_views == 0
            && self.loadable
    }

    /// What is missing, and what that costs.
    pub(super) fn findings(self, flavor: Flavor, findings: &mut Vec<Finding>) {
        let (routines, loadable) = match flavor {
            Flavor::MySql => (
                "GRANT SHOW_ROUTINE ON *.*",
                "GRANT SELECT ON performance_schema.user_defined_functions",
            ),
            Flavor::MariaDb => ("GRANT SELECT ON mysql.proc", "GRANT SELECT ON mysql.func"),
        };
        let views = "GRANT SELECT, SHOW VIEW ON the schemas that have views, or ON *.*,";
        let to = "TO the monitor's account";
        if self.is_whole() {
            findings.push(good(format!(
                "{} stored routines and {} views can be read",
                self.routines, self.views
            )));
        }
        if !self.all_routines {
            findings.push(warning(format!(
                "stored functions cannot be read: their calls go to the primary and tie the session to it; {routines} {to}"
            )));
        }
        if self.hidden_routines > 0 {
            findings.push(warning(format!(
                "the bodies of {} stored routines cannot be read, or are longer than 64 KiB: calls of such functions go to \
                 the primary",
                self.hidden_routines
            )));
        }
        if !self.loadable {
            findings.push(warning(format!(
                "loadable functions cannot be read, and one of them comes before a stored function of its name: calls \
                 without a schema go to the primary; {loadable} {to}"
            )));
        }
        if self.hidden_views > 0 {
            findings.push(warning(format!(
                "the definitions of {} views cannot be read, or are longer than 64 KiB: reads of them go to the primary; \
                 {views} {to}",
                self.hidden_views
            )));
        }
        if !self.all_views {
            findings.push(warning(format!(
                "views of schemas on which the monitor's account has no right cannot be seen: a read of one that calls a \
                 function which writes, or asks about its connection, may go to a replica; {views} {to}"
            )));
        }
    }
}

/// What of routines and views is shown on `conn`.
pub(super) async fn seen(conn: &mut Conn, version: &Version) -> Result<Seen, ProbeError> {
    let (mut reading, rights) = read(conn, version).await?;
    reading.loadable = permitted(names(conn, queries(version.flavor).loadable).await)?;
    Ok(Seen::of(&reading, rights))
}

fn queries(flavor: Flavor) -> &'static Queries {
    match flavor {
        Flavor::MySql => &MYSQL,
        Flavor::MariaDb => &MARIADB,
    }
}

/// What the account may see for certain.
#[derive(Debug, Clone, Copy)]
struct Rights {
    routines: bool,
    views: bool,
}

/// A reading without loadable functions.
async fn read(conn: &mut Conn, version: &Version) -> Result<(Reading, Rights), ProbeError> {
    let maria = version.flavor == Flavor::MariaDb;
    let mut room = ROOM;
    let routines = queries(version.flavor).routines;
    let routines = permitted(rows(conn, routines, &mut room, routine).await)?;
    let views = rows(conn, VIEWS, &mut room, view).await?;
    let folds: Option<Row> = conn
        .query_first(FOLDS)
        .await
        .map_err(|error| classify(&error))?;
    let privileges = rows(conn, PRIVILEGES, &mut room, |row, _| row.text(&["name"])).await?;
    let has = |name: &str| privileges.iter().any(|privilege| privilege == name);
    let rights = Rights {
        routines: routines.is_some() && (maria || has("SHOW_ROUTINE") || has("SELECT")),
        views: has("SELECT") && has("SHOW VIEW"),
    };
    let reading = Reading {
        dialect: Dialect::of(maria, version.number()),
        routines: routines.unwrap_or_default(),
        views,
        loadable: None,
        folds_names: folds.is_none_or(|row| Fields(&row).is_set(&["folds"])),
    };
    Ok((reading, rights))
}

/// Nothing where the account has no right to it.
fn permitted<T>(result: Result<T, ProbeError>) -> Result<Option<T>, ProbeError> {
    match result {
        Err(ProbeError::AccessDenied(_)) => Ok(None),
        // ER_TABLEACCESS_DENIED_ERROR, ER_COLUMNACCESS_DENIED_ERROR
        Err(ProbeError::Other(error))
            if ["ERROR 1142 ", "ERROR 1143 "]
                .iter()
                .any(|code| error.starts_with(code)) =>
        {
            Ok(None)
        }
        result => result.map(Some),
    }
}

async fn number(conn: &mut Conn, query: &str) -> Result<String, ProbeError> {
    let row: Option<Row> = conn
        .query_first(query)
        .await
        .map_err(|error| classify(&error))?;
    let text = row.and_then(|row| Fields(&row).text(&["fingerprint"]));
    text.ok_or_else(|| ProbeError::Other("no fingerprint".into()))
}

async fn names(conn: &mut Conn, query: &str) -> Result<Vec<Vec<u8>>, ProbeError> {
    let mut room = ROOM;
    rows(conn, query, &mut room, |row, _| {
        Some(row.bytes(&["name"])?.into_owned())
    })
    .await
}

/// The rows of an answer, one by one, as long as there is room for their texts.
async fn rows<T>(
    conn: &mut Conn,
    query: &str,
    room: &mut usize,
    parse: impl Fn(&Fields<'_>, Option<Vec<u8>>) -> Option<T>,
) -> Result<Vec<T>, ProbeError> {
    let mut result = conn
        .query_iter(query)
        .await
        .map_err(|error| classify(&error))?;
    let mut parsed = Vec::new();
    while let Some(row) = result.next().await.map_err(|error| classify(&error))? {
        let row = Fields(&row);
        let text = row.bytes(&["body"]);
        let text = text.filter(|text| text.len() <= LONGEST && text.len() <= *room);
        *room -= text.as_ref().map_or(0, |text| text.len());
        parsed.extend(parse(&row, text.map(|text| text.into_owned())));
        if parsed.len() > MOST {
            return Err(ProbeError::Other(
                format!("there are more than {MOST} of a kind").into(),
            ));
        }
    }
    Ok(parsed)
}

fn routine(row: &Fields<'_>, body: Option<Vec<u8>>) -> Option<Routine> {
    let bytes = |name| row.bytes(&[name]).unwrap_or_default().into_owned();
    let is = |name, value: &str| {
        let text = row.text(&[name]);
        text.is_some_and(|text| text.eq_ignore_ascii_case(value))
    };
    Some(Routine {
        kind: if is("kind", "FUNCTION") {
            RoutineKind::Function {
                reads: is("is_fixed", "YES") && !is("access", "MODIFIES SQL DATA"),
            }
        } else if is("kind", "PROCEDURE") {
            RoutineKind::Procedure
        } else {
            RoutineKind::Package
        },
        schema: row.bytes(&["home"])?.into_owned(),
        name: row.bytes(&["name"])?.into_owned(),
        sql_mode: bytes("mode"),
        charset: bytes("charset"),
        body,
    })
}

fn view(row: &Fields<'_>, definition: Option<Vec<u8>>) -> Option<View> {
    Some(View {
        schema: row.bytes(&["home"])?.into_owned(),
        name: row.bytes(&["name"])?.into_owned(),
        definition,
    })
}
