//! A connected socket: TCP or unix, the same to everyone above.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    time::Duration,
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, Interest, Ready},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// How long a peer may refuse to read before it is given up, as servers do (`net_write_timeout`).
const STALLED: Duration = Duration::from_secs(60);

/// A connected stream socket.
///
/// Waiting for bytes needs no buffer: one is brought along when there is
/// something to read.
#[derive(Debug)]
pub enum Stream {
    /// TCP over IPv4 or IPv6, without Nagle's delay.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A peer on this host's unix socket.
    Unix,
}

impl Stream {
    /// Wraps a TCP socket and switches Nagle's delay off.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Self::Tcp(stream))
    }

    /// Whether the bytes cannot be read on their way: a unix socket.
    pub fn is_secure(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Waits until there is something to read, or the peer has closed.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        })
        .await
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
    }

    /// Waits until the peer has closed its side.
    ///
    /// Bytes that arrive in the meantime stay unread; from then on a close
    /// cannot be seen behind them, and the wait never ends.
    pub async fn closed(&self) {
        match self.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => std::future::pending().await,
            Ok(_) | Err(_) => {}
        }
    }

    /// Whether the peer has neither sent anything nor closed. Costs no system call when so.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match self {
            Self::Tcp(stream) => stream.try_read(&mut byte),
            Self::Unix(stream) => stream.try_read(&mut byte),
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Appends what is there already; false if the peer has closed, or sends without end.
    pub fn read_ahead(&self, buffer: &mut BytesMut) -> bool {
        const MOST: usize = 64 * 1024;
        while buffer.len() < MOST {
            buffer.reserve(256);
            let read = match self {
                Self::Tcp(stream) => stream.try_read_buf(buffer),
                Self::Unix(stream) => stream.try_read_buf(buffer),
            };
            match read {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        false
    }

    /// Waits for bytes and reads them into `buffer`'s spare room, which must not be empty.
    ///
    /// Returns 0 when the peer has closed. May be dropped: nothing read is lost.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        // Not readable() and try_read(): after a read that did not fill the room this
        // waits for the next event at once, where those ask the kernel once more.
        match self {
            Self::Tcp(stream) => stream.read_buf(buffer).await,
            Self::Unix(stream) => stream.read_buf(buffer).await,
        }
    }

    /// Writes what goes without waiting.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Unix(stream) => stream.try_write_vectored(slices),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    /// Waits until something can be written again, but not for ever.
    async fn unstalled(&self) -> io::Result<()> {
        let stalled = |_| io::Error::new(io::ErrorKind::TimedOut, "the peer has stopped reading");
        timeout(STALLED, self.writable()).await.map_err(stalled)?
    }

    /// Writes all of `bytes`. Dropped half-way, an unknown part was written.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unstalled().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `first`, then all of `second`, in one system call where it fits.
    pub async fn write_both(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        if first.is_empty() {
            return self.write_all(second).await;
        }
        let written = loop {
            match self.try_write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => break written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unstalled().await?,
                Err(error) => return Err(error),
            }
        };
        match written.checked_sub(first.len()) {
            Some(of_second) => {
                self.write_all(second.get(of_second..).unwrap_or_default())
                    .await
            }
            None => {
                self.write_all(first.get(written..).unwrap_or_default())
                    .await?;
                self.write_all(second).await
            }
        }
    }

    /// Moves the socket to the runtime that this is called on.
    pub fn rebind(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
        })
    }
}
