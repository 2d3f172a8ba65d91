//! Which server ran a statement, as the servers' own logs tell.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use dbproxy::cli::demo::cluster::{Cluster, Flavor};

/// Accounts whose statements are no client's.
const OURS: &[&str] = &["dbproxy@", "repl@", "root@", "root["];

/// The general logs of all servers, read as they grow.
pub(crate) struct Logs(Vec<Log>);

struct Log {
    server: String,
    file: PathBuf,
    offset: u64,
    /// The connections of clients' accounts. What replication runs is logged on connections that nobody opened.
    clients: HashSet<String>,
}

/// A statement that a server was asked to run by a client's account.
struct Event {
    prepared: bool,
    text: String,
}

impl Logs {
    /// Has every server log from now on.
    pub(crate) async fn begin(cluster: &Cluster) -> Self {
        let mut logs = Vec::new();
        for server in cluster.servers() {
            if cluster.flavor() == Flavor::MySql {
                // Without it what cannot be parsed is left out.
                server.run("SET GLOBAL log_raw = 1").await.unwrap();
            }
            server.run("SET GLOBAL general_log = 1").await.unwrap();
            logs.push(Log {
                server: server.name().to_owned(),
                file: cluster
                    .directory()
                    .join(server.name())
                    .join("data/statements"),
                offset: 0,
                clients: HashSet::new(),
            });
        }
        Self(logs)
    }

    /// The servers that have run this statement for a client since the last call.
    ///
    /// A statement that was changed on its way is the only one of a client there that sets no session's state.
    pub(crate) fn ran(&mut self, statement: &[u8], prepared: bool) -> Vec<String> {
        let wanted = letters(&String::from_utf8_lossy(statement));
        let mut exactly = Vec::new();
        let mut perhaps = Vec::new();
        for log in &mut self.0 {
            let events = log.news();
            let is_it =
                |event: &Event| event.prepared == prepared && letters(&event.text) == wanted;
            if events.iter().any(is_it) {
                exactly.push(log.server.clone());
            }
            if events.iter().any(|event| !event.text.starts_with("SET ")) {
                perhaps.push(log.server.clone());
            }
        }
        if exactly.is_empty() { perhaps } else { exactly }
    }
}

impl Log {
    fn news(&mut self) -> Vec<Event> {
        let mut bytes = Vec::new();
        let mut file = File::open(&self.file).unwrap();
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        // Of a line that is being written the rest comes later.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(whole.map_or(0, |end| end + 1));
        self.offset += bytes.len() as u64;
        let mut events: Vec<Event> = Vec::new();
        let mut of_client = false;
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Some((connection, did, text)) = event(line) else {
                // A statement may go on over several lines.
                if let Some(event) = events.last_mut().filter(|_| of_client) {
                    event.text.push('\n');
                    event.text.push_str(line);
                }
                continue;
            };
            if ["Connect", "Change user"].contains(&did) {
                if OURS.iter().any(|account| text.starts_with(account)) {
                    self.clients.remove(connection);
                } else {
                    self.clients.insert(connection.to_owned());
                }
            }
            of_client = ["Query", "Execute"].contains(&did) && self.clients.contains(connection);
            if of_client {
                events.push(Event {
                    prepared: did == "Execute",
                    text: text.to_owned(),
                });
            }
        }
        events
    }
}

/// What is left of a text by whichever character set it went.
fn letters(text: &str) -> String {
    let mut letters = text.to_owned();
    letters.retain(|letter| letter.is_ascii_alphanumeric());
    letters
}

/// The connection's number, what happened, and the text, of a line of a general log that starts an event.
fn event(line: &str) -> Option<(&str, &str, &str)> {
    // The time comes first, or nothing where it is the same as before; both end with a tab.
    let (_, rest) = line.split_once('\t')?;
    let (front, text) = rest.trim_start_matches(['\t', ' ']).split_once('\t')?;
    let (connection, did) = front.split_once(' ')?;
    let numeric = connection.bytes().all(|byte| byte.is_ascii_digit());
    numeric.then_some((connection, did, text))
}
