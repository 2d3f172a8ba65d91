//! Listening sockets, TCP and unix.

use std::{
    fs, io,
    net::{IpAddr, ToSocketAddrs},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::stream::{Peer, Stream};
use super::tls::Admission;
use crate::{config::ListenAddress, error::Error};

/// A bound, listening socket. Dropping it frees the port, or removes the socket's file.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    name: String,
    entrance: Entrance,
}

/// Where clients come in, and on what terms.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// The address as the configuration has it.
    pub listener: Arc<ListenAddress>,
    /// Whether they may do without TLS.
    pub admission: Admission,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A connection as it was accepted, not yet bound to a worker's runtime.
#[derive(Debug)]
pub enum Accepted {
    /// From a TCP listener.
    Tcp(std::net::TcpStream, std::net::SocketAddr),
    /// From a unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// The peer's address; None for a unix socket.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, peer) => Some(peer.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    /// Binds the connection to the runtime that this is called on.
    pub fn into_stream(self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(stream, peer) => Ok((
                Stream::tcp(tokio::net::TcpStream::from_std(stream)?)?,
                Peer::Tcp(peer),
            )),
            Self::Unix(stream) => Ok((
                Stream::unix(tokio::net::UnixStream::from_std(stream)?),
                Peer::Unix,
            )),
        }
    }
}

/// Connections that the kernel keeps waiting until they are accepted.
const BACKLOG: i32 = 4096;

/// Of the 108 bytes that the system has for a unix socket's path, one ends it.
const LONGEST: usize = 107;

impl Listener {
    /// Binds every socket that `address` stands for (a host name may stand for several).
    pub fn bind(address: &ListenAddress, admission: Admission) -> Result<Vec<Self>, Error> {
        let name = address.to_string();
        let entrance = Entrance {
            listener: Arc::new(address.clone()),
            admission,
        };
        let named = |error: io::Error| Error::setup(format!("cannot listen on {name}: {error}"));
        match address {
            ListenAddress::Tcp { host, port } => {
                let resolved = (host.as_str(), *port).to_socket_addrs().map_err(named)?;
                resolved
                    .map(|address| {
                        let socket = bind_tcp(address).map_err(named)?;
                        // Port 0 is a port of the system's choice.
                        let name = socket.local_addr().map_err(named)?.to_string();
                        let socket = Bound::Tcp(socket);
                        Ok(Self {
                            socket,
                            name,
                            entrance: entrance.clone(),
                        })
                    })
                    .collect()
            }
            ListenAddress::Unix(path) => {
                // Who may log in is decided by the accounts, as with a server's own socket.
                let socket = listen_unix(path, 0o777).map_err(named)?;
                let socket = Bound::Unix(socket, path.clone());
                Ok(vec![Self {
                    socket,
                    name,
                    entrance,
                }])
            }
        }
    }

    /// The address for people and logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its clients come in by.
    pub fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }

    /// Waits for the next connection.
    ///
    /// An error concerns one connection, or the process's limit of open files.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Bound::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Accepted::Tcp(stream.into_std()?, peer))
            }
            Bound::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted::Unix(stream.into_std()?))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Bound::Unix(_, path) = &self.socket {
            let _ = fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Otherwise `[::]` would take the port away from a listener on 0.0.0.0.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Listens on a unix socket whose file has this mode. The file of a process that is gone is replaced.
///
/// # Errors
/// What the system says; a path that is too long, a file that is no socket, and a process that listens there, in words.
pub fn listen_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let address = SockAddr::unix(path).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a socket's path may have at most {LONGEST} bytes"),
        )
    })?;
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// Removes a socket file that nobody listens on any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is not a socket is in the way",
        ));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens on it",
        )),
        Err(_) => fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_port_chosen_by_the_system_is_named() {
        let address = ListenAddress::Tcp {
            host: "127.0.0.1".into(),
            port: 0,
        };
        let listeners = Listener::bind(&address, Admission::Any).unwrap();
        let [listener] = listeners.as_slice() else {
            unreachable!("one address")
        };
        let name: std::net::SocketAddr = listener.name().parse().unwrap();
        assert_ne!(name.port(), 0);
        let (client, accepted) =
            tokio::join!(tokio::net::TcpStream::connect(name), listener.accept());
        assert_eq!(client.unwrap().peer_addr().unwrap(), name);
        accepted.unwrap();
    }
}
