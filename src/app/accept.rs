//! From a listener to the worker with the fewest sessions.

use std::{io::Write, sync::Arc, time::Duration};

use bytes::BytesMut;
use dbproxy_proto::{capability::Capabilities, reply::put_err};
use tracing::warn;

use super::worker::Worker;
use crate::{
    error::Answer,
    net::{Accepted, Listener},
    session::Registry,
};

/// Pause after a failed accept, which is mostly the limit of open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts clients until it is dropped.
pub(super) async fn run(
    listener: Listener,
    workers: Arc<[Worker]>,
    registry: Arc<Registry>,
    limit: usize,
) {
    let mut refused_before = false;
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
        match (registry.register(limit), worker) {
            (Some(registration), Some(worker)) => {
                refused_before = false;
                worker.serve(accepted, registration);
            }
            (None, _) | (_, None) => {
                if !refused_before {
                    warn!(limit, "limits.connections is reached: clients are refused");
                }
                refused_before = true;
                refuse(accepted);
            }
        }
    }
}

/// In place of a greeting, as servers do it.
fn refuse(accepted: Accepted) {
    let answer = Answer::new(1040, b"08004", "Too many connections");
    let mut out = BytesMut::new();
    put_err(&mut out, &mut 0, &answer.packet(), Capabilities::empty());
    // Fits into an empty socket buffer; a client that is gone need not be told.
    let _ = match accepted {
        Accepted::Tcp(mut stream, _) => stream.write_all(&out),
        Accepted::Unix(mut stream) => stream.write_all(&out),
    };
}
