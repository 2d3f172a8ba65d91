//! Graceful stop: one signal out, and the knowledge of when everybody has left.

use tokio::sync::{mpsc, watch};

/// The side that orders the stop and waits for everybody to leave.
#[derive(Debug)]
pub struct Shutdown {
    signal: watch::Sender<bool>,
    left: mpsc::Receiver<()>,
    drain: Drain,
}

/// The side that is told. Everybody who holds one is waited for.
#[derive(Clone, Debug)]
pub struct Drain {
    signal: watch::Receiver<bool>,
    // Never sent on: the channel closes when the last clone is dropped.
    _present: mpsc::Sender<()>,
}

impl Shutdown {
    /// A new, not yet ordered, stop.
    pub fn new() -> Self {
        let (signal, receiver) = watch::channel(false);
        let (present, left) = mpsc::channel(1);
        Self {
            signal,
            left,
            drain: Drain {
                signal: receiver,
                _present: present,
            },
        }
    }

    /// A handle for somebody who is to be told and waited for.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Orders the stop and waits until every [`Drain`] handed out is dropped.
    pub async fn stop(self) {
        let Self {
            signal,
            mut left,
            drain,
        } = self;
        signal.send_replace(true);
        drop(drain);
        left.recv().await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Waits until the stop is ordered. May be dropped and called again.
    pub async fn ordered(&mut self) {
        // An error means that the ordering side is gone, which is a stop as well.
        let _ = self.signal.wait_for(|ordered| *ordered).await;
    }
}
