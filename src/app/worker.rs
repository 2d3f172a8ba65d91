//! A thread with a runtime of its own, on which its sessions live.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime, select,
    sync::mpsc,
    time::{self, Instant},
};
use tracing::debug;

use crate::{
    net::{Accepted, Entrance},
    session::{self, Context, Registration},
    shutdown::Drain,
};

/// How often unused server connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

type Arrival = (Accepted, Entrance, Registration);

/// A running worker. Dropping it ends it after its last session.
#[derive(Debug)]
pub(super) struct Worker {
    arrivals: mpsc::UnboundedSender<Arrival>,
    sessions: Arc<AtomicUsize>,
}

impl Worker {
    pub(super) fn start(contexts: Arc<[Arc<Context>]>, drain: Drain) -> io::Result<Self> {
        // Bounded by limits.connections: nobody arrives without a registration.
        let (arrivals, arriving) = mpsc::unbounded_channel();
        let sessions = Arc::new(AtomicUsize::new(0));
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let count = Arc::clone(&sessions);
        thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || runtime.block_on(work(contexts, arriving, count, drain)))?;
        Ok(Self { arrivals, sessions })
    }

    /// Sessions that live here now.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }

    /// Has the worker serve a client.
    pub(super) fn serve(&self, accepted: Accepted, entrance: Entrance, registration: Registration) {
        self.sessions.fetch_add(1, Relaxed);
        // Fails only when the worker has ended, and then the client is cut off with it.
        let _ = self.arrivals.send((accepted, entrance, registration));
    }
}

async fn work(
    contexts: Arc<[Arc<Context>]>,
    mut arriving: mpsc::UnboundedReceiver<Arrival>,
    sessions: Arc<AtomicUsize>,
    mut drain: Drain,
) {
    let mut sweep = time::interval(SWEEP);
    loop {
        select! {
            arrived = arriving.recv() => match arrived {
                Some((accepted, entrance, registration)) => {
                    let (contexts, sessions, drain) = (Arc::clone(&contexts), Arc::clone(&sessions), drain.clone());
                    tokio::spawn(async move {
                        match accepted.into_stream() {
                            Ok((stream, peer)) => session::serve(stream, peer, entrance, registration, contexts).await,
                            Err(error) => debug!(%error, "client lost before its login"),
                        }
                        sessions.fetch_sub(1, Relaxed);
                        drop(drain);
                    });
                }
                None => break,
            },
            _ = sweep.tick() => {
                for context in contexts.iter() {
                    for server in &context.topology.borrow().servers {
                        context.pool.set_wait_timeout(server.id, server.wait_timeout);
                    }
                    context.pool.sweep(context.worker, Instant::now());
                }
            }
        }
    }
    drain.ordered().await;
    // The sessions hold clones: when the last one is gone nobody waits any more.
    drop(drain);
    std::future::pending::<()>().await;
}
