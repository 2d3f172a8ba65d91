//! A connected stream: a socket, and the layers that its bytes pass through.

use std::{
    future::ready,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use dbproxy_proto::compress::{Compression, Method, Side};
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpStream, UnixStream},
    select,
};

use super::{
    layer::{Layer, Layers},
    socket::Socket,
    tls::{self, Acceptor, Agreed, Connector, Secured},
};

/// A connected stream, the same to everyone above whatever it is made of.
///
/// Waiting for bytes needs no buffer: one is brought along when there is
/// something to read.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    write_timeout: Duration,
    // None on most connections: it costs them a look and nothing more.
    layers: Option<Box<Layers>>,
    tls: Option<Box<Secured>>,
}

/// How a peer has closed its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It sends nothing more. It may still read, or not be there at all: TCP does not tell.
    Half,
    /// It is not there any more.
    Gone,
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A peer on this host's unix socket.
    Unix,
}

impl Peer {
    /// Its address, if it has one; that of a peer over IPv4 is always an IPv4 address.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

/// How long a peer may refuse to read before it is given up, as servers do (`net_write_timeout`).
const STALLED: Duration = Duration::from_secs(60);

/// Bytes that are read ahead at most while something else is waited for.
const AHEAD: usize = 64 * 1024;

/// Bytes that are encoded at once. Layers hold less than twice as much in memory on top of the caller's.
const ENCODED_AT_ONCE: usize = 64 * 1024;

impl Stream {
    /// Wraps a TCP socket and switches Nagle's delay off.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::tcp(stream)?,
            write_timeout: STALLED,
            layers: None,
            tls: None,
        })
    }

    /// Wraps a unix socket.
    pub fn unix(stream: UnixStream) -> Self {
        Self {
            socket: Socket::Unix(stream),
            write_timeout: STALLED,
            layers: None,
            tls: None,
        }
    }

    /// How long the peer may take nothing of what is written.
    pub fn set_write_timeout(&mut self, timeout: Duration) {
        self.write_timeout = timeout;
    }

    /// Whether the bytes cannot be read on their way: TLS, or a unix socket.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some() || matches!(self.socket, Socket::Unix(_))
    }

    /// Whether the peer is a process of this machine, as far as the addresses show.
    pub fn is_local(&self) -> bool {
        self.socket.is_local()
    }

    /// What is known of the peer by TLS; `None` without it.
    pub fn tls(&self) -> Option<&Secured> {
        self.tls.as_deref()
    }

    /// Shakes hands with a client that has asked for TLS. `input` has what came behind its request and is empty then.
    ///
    /// Dropped half-way, or after an error, the stream is of no further use.
    pub async fn accept_tls(
        &mut self,
        acceptor: &Acceptor,
        input: &mut BytesMut,
    ) -> io::Result<()> {
        let incoming = acceptor.incoming();
        let config = Arc::clone(&incoming.config);
        let mut agreed = tls::accept(&mut self.socket, config, &acceptor.turns, input).await?;
        agreed.secured.shown = incoming.fingerprint;
        self.secure(agreed, input);
        Ok(())
    }

    /// Shakes hands with the server `host`, which has offered TLS. Errors say in words what is wrong; what the server
    /// said instead of shaking hands is in `input` then.
    ///
    /// Dropped half-way, or after an error, nothing more can be sent.
    pub async fn connect_tls(
        &mut self,
        connector: &Connector,
        host: &str,
        input: &mut BytesMut,
    ) -> io::Result<()> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let agreed = tls::connect(&mut self.socket, connector.config()?, name, input).await;
        self.secure(agreed.map_err(tls::explain)?, input);
        Ok(())
    }

    fn secure(&mut self, agreed: Agreed, input: &mut BytesMut) {
        self.push(agreed.layer, std::mem::take(input));
        self.tls = Some(Box::new(agreed.secured));
    }

    /// Has all further bytes pass through `layer`. `incoming` was read already, but is for the layer to decode.
    pub(super) fn push(&mut self, layer: Box<dyn Layer>, incoming: BytesMut) {
        self.layers.get_or_insert_default().push(layer, incoming);
    }

    /// Compresses all further bytes. `incoming` was read already, but is compressed.
    pub fn compress(&mut self, method: Method, side: Side, incoming: BytesMut) {
        self.push(Box::new(Compression::new(method, side)), incoming);
    }

    /// What is written from now on answers the next command of those received.
    pub fn begin_answer(&mut self) {
        if let Some(layers) = &mut self.layers {
            layers.begin();
        }
    }

    /// What is written from now on is another result of the same answer.
    pub fn begin_result(&mut self) {
        if let Some(layers) = &mut self.layers {
            layers.begin_result();
        }
    }

    /// Whether bytes pass through anything on their way.
    pub fn has_layers(&self) -> bool {
        self.layers.is_some()
    }

    /// Waits until a read has something to tell: bytes, the end, or an error.
    ///
    /// Part of what a layer needs to go on is not enough. Without layers it may return too early: only
    /// [`Self::read_now`] asks the system. May be dropped: nothing read is lost.
    pub async fn readable(&mut self) -> io::Result<()> {
        let Some(layers) = &mut self.layers else {
            return self.socket.readable().await;
        };
        while !layers.hold_bytes() {
            // A layer may have an answer of its own to what it read. Nobody waits for it.
            layers.encode(&[])?;
            layers.try_flush(&self.socket)?;
            layers.rest();
            self.socket.readable().await?;
            let Some(incoming) = layers.receiving() else {
                return Ok(());
            };
            if let Some(read) = now(self.socket.read(incoming)).await
                && read? == 0
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits until the peer has closed its side.
    ///
    /// Bytes that arrive in the meantime stay unread; from then on a close
    /// cannot be seen behind them, and the wait never ends.
    pub async fn closed(&self) {
        self.socket.closed().await;
    }

    /// Waits until the peer has closed its side. Bytes that arrive in the meantime are appended to `ahead`, but not
    /// without end: behind too many of them a close is not seen.
    ///
    /// May be dropped: nothing read is lost.
    pub async fn departed(&mut self, ahead: &mut BytesMut) -> Departure {
        while ahead.len() < AHEAD {
            if self.readable().await.is_err() {
                return Departure::Gone;
            }
            ahead.reserve(256);
            match self.try_read(ahead) {
                Ok(0) if self.socket.is_broken().await => return Departure::Gone,
                Ok(0) => return Departure::Half,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Departure::Gone,
            }
        }
        self.broken().await;
        Departure::Gone
    }

    /// Waits until nothing can be sent to the peer any more, as far as the system tells.
    pub async fn broken(&self) {
        self.socket.broken().await;
    }

    /// Whether the peer has neither sent anything nor closed. Costs no system call when so.
    pub fn is_quiet(&mut self) -> bool {
        let Some(layers) = &mut self.layers else {
            return self.socket.is_quiet();
        };
        // What a layer says for itself, such as a ticket of TLS, breaks no silence.
        while !layers.hold_bytes() {
            layers.rest();
            if !self.socket.may_be_readable() {
                return true;
            }
            let Some(incoming) = layers.receiving() else {
                return true;
            };
            match self.socket.try_read(incoming) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return false,
            }
        }
        false
    }

    /// Whether the system has bytes of the peer's that were not read, or its close.
    pub fn has_arrivals(&self) -> bool {
        self.socket.has_arrivals()
    }

    /// Appends what is there already; false if the peer has closed, or sends without end.
    pub fn read_ahead(&mut self, buffer: &mut BytesMut) -> bool {
        while buffer.len() < AHEAD {
            buffer.reserve(256);
            match self.try_read(buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        false
    }

    /// Reads what is there already into `buffer`'s spare room, which must not be empty.
    fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let Some(layers) = &mut self.layers else {
            return self.socket.try_read(buffer);
        };
        loop {
            match layers.decode(buffer) {
                Ok(0) => {}
                read => return ended(read),
            }
            let Some(incoming) = layers.receiving() else {
                return Ok(0);
            };
            if self.socket.try_read(incoming)? == 0 {
                return Ok(0);
            }
        }
    }

    /// Waits for bytes and reads them into `buffer`'s spare room, which must not be empty.
    ///
    /// Returns 0 when the peer has closed. May be dropped: nothing read is lost.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let Some(layers) = &mut self.layers else {
            return self.socket.read(buffer).await;
        };
        loop {
            match layers.decode(buffer) {
                Ok(0) => {}
                read => return ended(read),
            }
            // A layer may have an answer of its own to what it read.
            layers.encode(&[])?;
            flush(layers, &self.socket, self.write_timeout).await?;
            let Some(incoming) = layers.receiving() else {
                return Ok(0);
            };
            if self.socket.read(incoming).await? == 0 {
                return Ok(0);
            }
        }
    }

    /// Reads what is there already into `buffer`'s spare room, which must not be empty; `None` if nothing is.
    pub async fn read_now(&mut self, buffer: &mut BytesMut) -> Option<io::Result<usize>> {
        now(self.read(buffer)).await
    }

    /// Writes what goes without waiting, and says how much.
    ///
    /// With layers that is all of it or 0, which does not tell whether some of it is under way: who does not wait for
    /// that with [`Self::write_all`] has to give up the stream.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(layers) = &mut self.layers else {
            return self.socket.try_write(bytes);
        };
        if !layers.try_flush(&self.socket)? {
            return Ok(0);
        }
        layers.encode(bytes)?;
        Ok(if layers.try_flush(&self.socket)? {
            bytes.len()
        } else {
            0
        })
    }

    /// Writes all of `bytes`. Dropped half-way, an unknown part was written.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_both(&[], bytes).await
    }

    /// Writes all of `first`, then all of `second`, in one system call where it fits.
    pub async fn write_both(&mut self, first: &[u8], second: &[u8]) -> io::Result<()> {
        let Some(layers) = &mut self.layers else {
            return self
                .socket
                .write_both(first, second, self.write_timeout)
                .await;
        };
        let (first, second) = (
            first.chunks(ENCODED_AT_ONCE),
            second.chunks(ENCODED_AT_ONCE),
        );
        for part in first.chain(second) {
            layers.encode(part)?;
            if layers.unsent() >= ENCODED_AT_ONCE {
                flush(layers, &self.socket, self.write_timeout).await?;
            }
        }
        flush(layers, &self.socket, self.write_timeout).await
    }

    /// Moves the socket to the runtime that this is called on.
    pub fn rebind(self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.rebind()?,
            ..self
        })
    }
}

async fn flush(layers: &mut Layers, socket: &Socket, patience: Duration) -> io::Result<()> {
    while !layers.try_flush(socket)? {
        socket.unstalled(patience).await?;
    }
    Ok(())
}

/// What `read` gives without waiting.
///
/// Unlike a `try_read` it knows after a read that left room that there is no more, and spares the next one.
async fn now<T>(read: impl Future<Output = T>) -> Option<T> {
    select! {
        biased;
        done = read => Some(done),
        () = ready(()) => None,
    }
}

/// A peer that says that nothing follows has closed.
fn ended(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        read => read,
    }
}
