//! A TCP relay between the proxy and a server, for faults that only the network makes.

use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

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

/// A relay in front of one server.
pub struct Relay {
    port: u16,
    faults: Arc<AtomicU32>,
    flowing: watch::Sender<bool>,
    released: watch::Sender<bool>,
    judge: Arc<Mutex<Arc<Judge>>>,
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
        let accepting = {
            let (faults, judge) = (faults.clone(), judge.clone());
            tokio::spawn(async move {
                while let Ok((near, _)) = listener.accept().await {
                    let (faults, judge, flow) = (faults.clone(), judge.clone(), flow.clone());
                    let release = release.clone();
                    tokio::spawn(async move {
                        if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await {
                            relay(near, far, &judge, &faults, (flow, release)).await;
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
            accepting,
        }
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
