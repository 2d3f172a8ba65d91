//! The handshakes: bytes go to and fro until both sides have agreed.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::BytesMut;
use rustls::{
    ClientConfig, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::{ClientHello, ResolvesServerCert, UnbufferedServerConnection},
    sign::CertifiedKey,
};
use tokio::{sync::Semaphore, task};

use super::{
    Secured,
    layer::{Shaken, Tls},
};
use crate::net::{layer::Layer, socket::Socket};

/// No handshake needs more bytes from the peer, however long the chains of certificates are.
const LONGEST: usize = 128 * 1024;

/// A connection after its handshake.
pub(in crate::net) struct Agreed {
    pub(in crate::net) layer: Box<dyn Layer>,
    pub(in crate::net) secured: Secured,
}

/// Shakes hands with a client. `incoming` has the bytes that came already, and in the end those behind the handshake.
///
/// A handshake is work of up to a millisecond: it is done in `turns`, so that those who are in are served in between.
pub(in crate::net) async fn accept(
    socket: &mut Socket,
    config: Arc<ServerConfig>,
    turns: &Semaphore,
    incoming: &mut BytesMut,
) -> io::Result<Agreed> {
    let name = Arc::new(OnceLock::new());
    let mut config = ServerConfig::clone(&config);
    config.cert_resolver = Arc::new(Overhearing {
        resolver: Arc::clone(&config.cert_resolver),
        name: Arc::clone(&name),
    });
    let connection = UnbufferedServerConnection::new(Arc::new(config)).map_err(io::Error::other)?;
    let tls = Tls::accepting(connection);
    let mut agreed = shake_hands(socket, tls, Some(turns), incoming).await?;
    agreed.secured.server_name = name.get().cloned();
    Ok(agreed)
}

/// Finds the certificate as another one does, and remembers which name the client asked for: connections without buffers of their
/// own do not tell.
#[derive(Debug)]
struct Overhearing {
    resolver: Arc<dyn ResolvesServerCert>,
    name: Arc<OnceLock<String>>,
}

impl ResolvesServerCert for Overhearing {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            // The first one stays, if a client is asked to begin again.
            let _ = self.name.set(name.to_owned());
        }
        self.resolver.resolve(hello)
    }
}

/// Shakes hands with a server.
pub(in crate::net) async fn connect(
    socket: &mut Socket,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    incoming: &mut BytesMut,
) -> io::Result<Agreed> {
    let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
    shake_hands(socket, Tls::connecting(connection), None, incoming).await
}

async fn shake_hands(
    socket: &mut Socket,
    mut tls: Tls,
    turns: Option<&Semaphore>,
    incoming: &mut BytesMut,
) -> io::Result<Agreed> {
    let mut outgoing = BytesMut::new();
    let mut received = incoming.len();
    loop {
        let shaken = match turns {
            None => tls.shake(incoming, &mut outgoing),
            Some(turns) => {
                let _turn = turns.acquire().await;
                let shaken = tls.shake(incoming, &mut outgoing);
                task::yield_now().await;
                shaken
            }
        };
        // The login has a deadline of its own.
        let sent = socket.write_all(&outgoing, Duration::MAX).await;
        outgoing.clear();
        if shaken? == Shaken::Done {
            sent?;
            let secured = Secured::of(tls.state());
            return Ok(Agreed {
                layer: Box::new(tls),
                secured,
            });
        }
        sent?;
        if received > LONGEST {
            let text = "the TLS handshake has no end";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        incoming.reserve(4096);
        match socket.read(incoming).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => received += read,
        }
    }
}
