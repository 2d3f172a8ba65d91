//! A relay in front of a server that answers in its place, and breaks the rules.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What comes after the bytes of a deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The connection stays open, and what the proxy sends next goes to the server.
    Silence,
    /// The connection is closed.
    Close,
    /// The last so many bytes are sent again and again, for as long as anybody takes them.
    Repeat(usize),
}

/// When the relay steps in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// The proxy connects.
    Connected,
    /// The proxy has answered the server's greeting.
    LoggingIn,
    /// The proxy sends a statement with [`MARK`] in it.
    Asked,
}

/// One breach of the rules.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    pub(crate) when: When,
    pub(crate) bytes: Vec<u8>,
    pub(crate) after: After,
}

/// In a statement that the relay answers.
pub(crate) const MARK: &str = "tampered with";

/// A relay in front of one server.
pub(crate) struct Tamper {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    deed: Mutex<Option<Deed>>,
    done: AtomicUsize,
}

impl Tamper {
    /// Relays a port of its own to `target` on this machine.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let shared = serving.clone();
                tokio::spawn(async move { shared.relay(near, target).await });
            }
        });
        Self {
            port,
            shared,
            accepting,
        }
    }

    /// Where the proxy connects to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What to do from now on, if anything.
    pub(crate) fn plan(&self, deed: Option<Deed>) {
        *self.shared.deed.lock().unwrap() = deed;
    }

    /// How often it has stepped in.
    pub(crate) fn done(&self) -> usize {
        self.shared.done.load(Ordering::SeqCst)
    }
}

impl Drop for Tamper {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn deed(&self, when: When) -> Option<Deed> {
        let deed = self.deed.lock().unwrap().clone();
        deed.filter(|deed| deed.when == when)
    }

    /// Relays one connection until either side closes it.
    async fn relay(&self, mut near: TcpStream, target: u16) -> Option<()> {
        if let Some(deed) = self.deed(When::Connected) {
            return self.perform(&deed, &mut near).await;
        }
        let far = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await;
        let mut far = far.ok()?;
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (mut request, mut reply) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut first = true;
        loop {
            tokio::select! {
                read = near.read(&mut request) => {
                    let bytes = &request[..read.ok().filter(|read| *read > 0)?];
                    let logging_in = std::mem::take(&mut first);
                    if let Some(deed) = self.deed(When::LoggingIn).filter(|_| logging_in) {
                        return self.perform(&deed, &mut near).await;
                    }
                    match self.deed(When::Asked).zip(marked(bytes)) {
                        Some((deed, (packets, start))) => {
                            // What was sent in front of the statement has one packet as its answer each.
                            far.write_all(&bytes[..start]).await.ok()?;
                            pass_packets(&mut far, &mut near, packets).await?;
                            self.perform(&deed, &mut near).await?;
                        }
                        None => far.write_all(bytes).await.ok()?,
                    }
                }
                read = far.read(&mut reply) => {
                    let bytes = &reply[..read.ok().filter(|read| *read > 0)?];
                    near.write_all(bytes).await.ok()?;
                }
            }
        }
    }

    async fn perform(&self, deed: &Deed, near: &mut TcpStream) -> Option<()> {
        self.done.fetch_add(1, Ordering::SeqCst);
        near.write_all(&deed.bytes).await.ok()?;
        match deed.after {
            After::Silence if deed.when == When::Asked => Some(()),
            // Nobody is behind: whatever else comes is taken and not answered.
            After::Silence => {
                let mut ignored = [0; 1024];
                while matches!(near.read(&mut ignored).await, Ok(1..)) {}
                None
            }
            After::Close => None,
            After::Repeat(length) => {
                let piece = deed.bytes[deed.bytes.len() - length..].repeat(1 + 65_536 / length);
                while near.write_all(&piece).await.is_ok() {}
                None
            }
        }
    }
}

/// Where the marked statement's packet begins, and how many packets are in front of it.
fn marked(bytes: &[u8]) -> Option<(usize, usize)> {
    let mark = MARK.as_bytes();
    let at = bytes.windows(mark.len()).position(|part| part == mark)?;
    let (mut packets, mut start) = (0, 0);
    loop {
        let header = bytes.get(start..start + 4)?;
        let end = start + 4 + u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
        if at < end {
            return Some((packets, start));
        }
        packets += 1;
        start = end;
    }
}

async fn pass_packets(far: &mut TcpStream, near: &mut TcpStream, packets: usize) -> Option<()> {
    for _ in 0..packets {
        let mut header = [0; 4];
        far.read_exact(&mut header).await.ok()?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let mut payload = vec![0; length as usize];
        far.read_exact(&mut payload).await.ok()?;
        near.write_all(&header).await.ok()?;
        near.write_all(&payload).await.ok()?;
    }
    Some(())
}
