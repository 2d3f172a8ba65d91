//! The console's door: a unix socket in the state directory, for the account that dbproxy runs as and for root.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::desk::{Answer, Desk};
use crate::{error::Error, net::listen_unix};

/// The socket's name in the state directory.
pub const FILE: &str = "control.sock";

/// No order is longer.
const LINE: u64 = 4096;

/// Clients at a time; one more takes the place of another that asks nothing.
const GUESTS: usize = 32;

/// A client may take so long to ask.
const READ: Duration = Duration::from_secs(60);

/// A client may take so long to take its answer.
const WRITE: Duration = Duration::from_secs(10);

/// After an error of the system.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket, listening. Its file goes with it.
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Makes the socket in this directory, which is made if it is not there. One that a dead process has left is replaced.
    ///
    /// # Errors
    /// What keeps it from being made, in words: among them that another dbproxy lives there.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let listener = DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .and_then(|()| listen_unix(&path, 0o600));
        let listener = listener.map_err(|error| {
            let other = match error.kind() {
                io::ErrorKind::AddrInUse => "; each dbproxy needs its own state_directory",
                _ => "; see state_directory",
            };
            Error::setup(format!(
                "cannot listen for an operator's orders on {}: {error}{other}",
                path.display()
            ))
        })?;
        Ok(Self { listener, path })
    }

    /// Lets clients in, for ever.
    pub async fn serve(self, desk: Arc<Desk>) {
        let mut tasks = JoinSet::new();
        let mut guests = VecDeque::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        make_room(&mut guests);
                        let asks = Arc::new(AtomicBool::new(false));
                        let task = serve(stream, Arc::clone(&desk), Arc::clone(&asks));
                        let task = tasks.spawn(task);
                        guests.push_back(Guest { task, asks });
                    }
                    Err(error) => {
                        warn!(%error, "an operator's connection cannot be accepted");
                        sleep(PAUSE).await;
                    }
                },
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A client that was let in.
struct Guest {
    task: AbortHandle,
    /// It waits for what becomes of an order.
    asks: Arc<AtomicBool>,
}

/// Shows the oldest out that asks nothing; where all of them ask, the oldest.
fn make_room(guests: &mut VecDeque<Guest>) {
    guests.retain(|guest| !guest.task.is_finished());
    if guests.len() < GUESTS {
        return;
    }
    let silent = guests
        .iter()
        .position(|guest| !guest.asks.load(Ordering::Relaxed));
    if let Some(guest) = guests.remove(silent.unwrap_or_default()) {
        guest.task.abort();
    }
}

/// One client, until it goes, is too slow, or breaks the rules.
async fn serve(stream: UnixStream, desk: Arc<Desk>, asks: Arc<AtomicBool>) {
    let user = stream
        .peer_cred()
        .map(|peer| peer.uid())
        .unwrap_or_default();
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let reading = (&mut stream).take(LINE);
        let read = timeout(READ, { reading }.read_until(b'\n', &mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        let whole = line.len() < LINE as usize || line.ends_with(b"\n");
        let answer = match whole {
            true => {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim();
                asks.store(true, Ordering::Relaxed);
                info!(user, order = ?text, "an operator asks");
                let answer = desk.take(text).await;
                asks.store(false, Ordering::Relaxed);
                answer
            }
            false => Answer {
                ok: false,
                text: format!("an order has at most {LINE} bytes"),
            },
        };
        let Ok(mut text) = serde_json::to_vec(&answer) else {
            return;
        };
        text.push(b'\n');
        let written = timeout(WRITE, stream.get_mut().write_all(&text)).await;
        if !matches!(written, Ok(Ok(()))) || !whole {
            return;
        }
    }
}
