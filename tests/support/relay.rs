//! A TCP relay between the proxy and a server, for faults that only the network makes.

use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to the connection on which the proxy sends something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Everything is relayed.
    None,
    /// The connection is cut before the server sees it.
    CutBefore,
    /// The server gets it, runs it and answers; the connection is cut before the proxy sees any of the answer.
    CutAfter,
    /// The server gets half of it and nothing more; the connection stays open.
    Stall,
    /// The server gets it when the relay is told to release what it withholds.
    Withhold,
}

type Judge = dyn Fn(&[u8]) -> Fault + Send + Sync;

/// How connections began.
#[derive(Debug, Default, Clone, Copy)]
pub struct Logins {
    /// Connections that came.
    pub arrived: usize,
    /// Those whose login the server has not answered yet.
    pub opening: usize,
    /// Those that it has let in.
    pub completed: usize,
    /// The most that were opening beyond as many as had been completed.
    pub steepest: usize,
}

/// A connection that begins. It is counted as opening until it is let in or dropped.
struct Beginning {
    logins: Arc<Mutex<Logins>>,
    /// Bytes of the server's that are no whole packet yet; None once it has let the client in.
    said: Option<Vec<u8>>,
}

impl Beginning {
    fn new(logins: &Arc<Mutex<Logins>>) -> Self {
        let mut count = logins.lock().unwrap();
        count.arrived += 1;
        count.opening += 1;
        count.steepest = count
            .steepest
            .max(count.opening.saturating_sub(count.completed));
        drop(count);
        Self {
            logins: Arc::clone(logins),
            said: Some(Vec::new()),
        }
    }

    /// Looks for the server's OK, the only packet of a login that begins with a zero.
    fn hear(&mut self, bytes: &[u8]) {
        let Some(said) = &mut self.said else { return };
        said.extend_from_slice(bytes);
        while let [a, b, c, _, first, ..] = said[..] {
            let whole = 4 + usize::from(a) + (usize::from(b) << 8) + (usize::from(c) << 16);
            if first == 0 {
                let mut count = self.logins.lock().unwrap();
                count.opening -= 1;
                count.completed += 1;
                drop(count);
                self.said = None;
                return;
            }
            if said.len() < whole {
                return;
            }
            said.drain(..whole);
        }
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if self.said.is_some() {
            self.logins.lock().unwrap().opening -= 1;
        }
    }
}

/// A relay in front of one server.
pub struct Relay {
    port: u16,
    faults: Arc<AtomicU32>,
    flowing: watch::Sender<bool>,
    released: watch::Sender<bool>,
    judge: Arc<Mutex<Arc<Judge>>>,
    logins: Arc<Mutex<Logins>>,
    door: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Relays a port of its own to `target` on this machine, faultlessly.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(AtomicU32::new(0));
        let judge: Arc<Mutex<Arc<Judge>>> = Arc::new(Mutex::new(Arc::new(|_: &[u8]| Fault::None)));
        let (flowing, flow) = watch::channel(true);
        let (released, release) = watch::channel(false);
        let logins: Arc<Mutex<Logins>> = Arc::default();
        let door = Arc::new(AtomicBool::new(true));
        let accepting = {
            let (faults, judge) = (faults.clone(), judge.clone());
            let (logins, door) = (logins.clone(), door.clone());
            tokio::spawn(async move {
                while let Ok((near, _)) = listener.accept().await {
                    let (faults, judge, flow) = (faults.clone(), judge.clone(), flow.clone());
                    let release = release.clone();
                    let mut beginning = Beginning::new(&logins);
                    if !door.load(Ordering::SeqCst) {
                        continue;
                    }
                    tokio::spawn(async move {
                        if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await {
                            let hear = |bytes: &[u8]| beginning.hear(bytes);
                            relay(near, far, &judge, &faults, (flow, release), hear).await;
                        }
                    });
                }
            })
        };
        Self {
            port,
            faults,
            flowing,
            released,
            judge,
            logins,
            door,
            accepting,
        }
    }

    /// How connections have begun since they were counted from zero.
    pub fn logins(&self) -> Logins {
        *self.count()
    }

    /// Counts them from zero, but for those that are opening.
    pub fn count_logins_anew(&self) {
        let mut count = self.count();
        *count = Logins {
            opening: count.opening,
            ..Logins::default()
        };
    }

    fn count(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap()
    }

    /// Closes connections that come from now on, while those that are there stay.
    pub fn close_door(&self) {
        self.door.store(false, Ordering::SeqCst);
    }

    /// Takes connections again.
    pub fn open_door(&self) {
        self.door.store(true, Ordering::SeqCst);
    }

    /// Where the proxy connects to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Decides from now on what happens to what the proxy sends.
    pub fn judge(&self, judge: impl Fn(&[u8]) -> Fault + Send + Sync + 'static) {
        *self.judge.lock().unwrap() = Arc::new(judge);
    }

    /// Connections cut so far.
    pub fn faults(&self) -> u32 {
        self.faults.load(Ordering::SeqCst)
    }

    /// Passes on what is withheld, from now on.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Relays nothing any more, in either direction, while all connections stay open.
    pub fn hold(&self) {
        self.flowing.send_replace(false);
    }

    /// Goes on relaying.
    pub fn resume(&self) {
        self.flowing.send_replace(true);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Relays one connection until either side closes it or it is cut; both sockets are closed in the end.
async fn relay(
    near: TcpStream,
    far: TcpStream,
    judge: &Mutex<Arc<Judge>>,
    faults: &AtomicU32,
    (mut flow, mut release): (watch::Receiver<bool>, watch::Receiver<bool>),
    mut hear: impl FnMut(&[u8]),
) {
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let (mut from_proxy, mut to_proxy) = near.into_split();
    let (mut from_server, mut to_server) = far.into_split();
    let cut = AtomicBool::new(false);
    let mut also_flow = flow.clone();
    let requests = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let Ok(length @ 1..) = from_proxy.read(&mut buffer).await else {
                return;
            };
            let _ = flow.wait_for(|flowing| *flowing).await;
            let judge = judge.lock().unwrap().clone();
            let fault = judge(&buffer[..length]);
            if fault == Fault::CutBefore {
                faults.fetch_add(1, Ordering::SeqCst);
                return;
            }
            if fault == Fault::Stall {
                faults.fetch_add(1, Ordering::SeqCst);
                let _ = to_server.write_all(&buffer[..length / 2]).await;
                return pending().await;
            }
            if fault == Fault::Withhold {
                let _ = release.wait_for(|released| *released).await;
            }
            cut.store(fault == Fault::CutAfter, Ordering::SeqCst);
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
            if fault == Fault::CutAfter {
                // The server runs all that it was sent, then finds the end and closes: that ends the replies.
                let _ = to_server.shutdown().await;
                return pending().await;
            }
        }
    };
    let replies = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await;
            let cut = cut.load(Ordering::SeqCst);
            let Ok(length @ 1..) = read else {
                faults.fetch_add(u32::from(cut), Ordering::SeqCst);
                return;
            };
            let _ = also_flow.wait_for(|flowing| *flowing).await;
            hear(&buffer[..length]);
            if !cut && to_proxy.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = replies => {}
    }
}
