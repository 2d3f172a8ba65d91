//! A connected socket, TCP or unix, and the waiting on it.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    mem::MaybeUninit,
    time::Duration,
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, Interest, Ready},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// A connected stream socket.
#[derive(Debug)]
pub(super) enum Socket {
    /// TCP over IPv4 or IPv6, without Nagle's delay.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Wraps a TCP socket and switches Nagle's delay off.
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Self::Tcp(stream))
    }

    /// Whether both ends are on this machine, as far as the addresses show.
    pub(super) fn is_local(&self) -> bool {
        let Self::Tcp(stream) = self else { return true };
        match (stream.peer_addr(), stream.local_addr()) {
            (Ok(peer), Ok(local)) => {
                let peer = peer.ip().to_canonical();
                peer.is_loopback() || peer == local.ip().to_canonical()
            }
            _ => false,
        }
    }

    /// Waits until there is something to read, or the peer has closed.
    pub(super) async fn readable(&self) -> io::Result<()> {
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
    pub(super) async fn closed(&self) {
        match self.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => std::future::pending().await,
            Ok(_) | Err(_) => {}
        }
    }

    /// Waits until nothing can be sent to the peer any more, as far as the system tells.
    pub(super) async fn broken(&self) {
        let _ = self.ready(Interest::ERROR).await;
    }

    /// Whether nothing can be sent any more to a peer that has closed its side.
    ///
    /// Of a TCP peer nobody knows that before something is sent to it.
    pub(super) async fn is_broken(&self) -> bool {
        match self
            .ready(Interest::READABLE | Interest::WRITABLE | Interest::ERROR)
            .await
        {
            Ok(ready) => ready.is_write_closed() || ready.is_error(),
            Err(_) => true,
        }
    }

    /// Whether the peer has neither sent anything nor closed. Costs no system call when so.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match self {
            Self::Tcp(stream) => stream.try_read(&mut byte),
            Self::Unix(stream) => stream.try_read(&mut byte),
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the peer has sent something that was not read, or closed. Always asks the system.
    pub(super) fn has_arrivals(&self) -> bool {
        let socket = match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        };
        let peeked = socket.peek(&mut [MaybeUninit::uninit()]);
        !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether there may be something to read, as far as is known without a system call.
    pub(super) fn may_be_readable(&self) -> bool {
        let known = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || Ok(())),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || Ok(())),
        };
        known.is_ok()
    }

    /// Reads what is there already into `buffer`'s spare room.
    pub(super) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Waits for bytes and reads them into `buffer`'s spare room, which must not be empty.
    ///
    /// Returns 0 when the peer has closed. May be dropped: nothing read is lost.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        // Not readable() and try_read(): after a read that did not fill the room this
        // waits for the next event at once, where those ask the kernel once more.
        match self {
            Self::Tcp(stream) => stream.read_buf(buffer).await,
            Self::Unix(stream) => stream.read_buf(buffer).await,
        }
    }

    /// Writes what goes without waiting.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
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

    /// Waits until something can be written again, but not for longer than `patience`.
    pub(super) async fn unstalled(&self, patience: Duration) -> io::Result<()> {
        let stalled = |_| io::Error::new(io::ErrorKind::TimedOut, "the peer has stopped reading");
        timeout(patience, self.writable()).await.map_err(stalled)?
    }

    /// Writes all of `bytes`. Dropped half-way, an unknown part was written.
    pub(super) async fn write_all(&self, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unstalled(patience).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `first`, then all of `second`, in one system call where it fits.
    pub(super) async fn write_both(
        &self,
        first: &[u8],
        second: &[u8],
        patience: Duration,
    ) -> io::Result<()> {
        if first.is_empty() {
            return self.write_all(second, patience).await;
        }
        let written = loop {
            match self.try_write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => break written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unstalled(patience).await?;
                }
                Err(error) => return Err(error),
            }
        };
        match written.checked_sub(first.len()) {
            Some(of_second) => {
                self.write_all(second.get(of_second..).unwrap_or_default(), patience)
                    .await
            }
            None => {
                self.write_all(first.get(written..).unwrap_or_default(), patience)
                    .await?;
                self.write_all(second, patience).await
            }
        }
    }

    /// Moves the socket to the runtime that this is called on.
    pub(super) fn rebind(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
        })
    }
}
