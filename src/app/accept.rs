//! From a listener to the worker with the fewest sessions.

use std::{io::Write, sync::Arc, time::Duration};

use bytes::BytesMut;
use dbproxy_proto::{capability::Capabilities, reply::put_err};
use tracing::warn;

use super::worker::Worker;
use crate::{
    config::{Limits, Network},
    error::Answer,
    net::{Accepted, Listener},
    session::{Registry, Source},
};

/// Pause after a failed accept, which is mostly the limit of open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts clients until it is dropped.
pub(super) async fn run(
    listener: Listener,
    workers: Arc<[Worker]>,
    registry: Arc<Registry>,
    limits: Limits,
    balancers: Vec<Network>,
) {
    let mut refused_before = None;
    loop {
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(address = listener.name(), %error, "cannot accept a client");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let worker = workers.iter().min_by_key(|worker| worker.sessions());
        let address = accepted.address();
        // A balancer's own address says nothing of the client.
        let counted = !balancers
            .iter()
            .any(|network| address.is_some_and(|address| network.contains(address)));
        let registered = registry.register(address.map(Source::from), counted, &limits);
        match (registered, worker) {
            (Ok(registration), Some(worker)) => {
                refused_before = None;
                worker.serve(accepted, listener.entrance(), registration);
            }
            (Err(full), _) => {
                let answer = full.answer(address, &limits);
                if refused_before.replace(full) != Some(full) {
                    warn!(reason = %answer.message, "clients are refused");
                }
                refuse(accepted, &answer);
            }
            // Not without workers.
            (Ok(_), None) => {}
        }
    }
}

/// In place of a greeting, as servers do it.
fn refuse(accepted: Accepted, answer: &Answer) {
    let mut out = BytesMut::new();
    put_err(&mut out, &mut 0, &answer.packet(), Capabilities::empty());
    // Fits into an empty socket buffer; a client that is gone need not be told.
    let _ = match accepted {
        Accepted::Tcp(mut stream, _) => stream.write_all(&out),
        Accepted::Unix(mut stream) => stream.write_all(&out),
    };
}
