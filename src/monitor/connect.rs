//! The monitor's own connections, and what their failures mean.

use std::future::Future;
use std::io::{Error as SystemError, ErrorKind};
use std::time::Duration;

use mysql_async::{ClientIdentity, Conn, DriverError, Error, IoError, Opts, OptsBuilder, SslOpts};
use tokio::net::{TcpStream, UnixStream};
use tokio::time;

use super::{Target, probe};
use crate::config::{ServerAddress, ServerMode, ServerTls};
use crate::error::tls_problem;
use crate::topology::{ProbeError, ServerId, Version};

/// Enough for the longest answer (accounts, large GTID sets); stated so that no query is spent on asking the server.
const MAX_PACKET: usize = 64 << 20;

/// A server that closes the monitor's connection earlier than this is simply connected to again.
const WAIT_TIMEOUT_SECS: usize = 600;

/// A host that is there accepts a connection in this time, or refuses it.
const CONTACT_DEADLINE: Duration = Duration::from_millis(300);

/// How a server is connected to.
pub(super) struct Options {
    wanted: Opts,
    /// Without TLS, for a server that does not offer it, if that will do.
    plain: Option<Opts>,
}

/// A connection to one of `targets`, and the version of its server.
pub(super) async fn open(
    targets: &[Target],
    server: ServerId,
    deadline: Duration,
) -> Result<(Version, Conn), ProbeError> {
    let target = targets
        .iter()
        .find(|target| target.id == server)
        .ok_or_else(|| ProbeError::Other("not configured".into()))?;
    within(deadline, async {
        let mut conn = connect(&options(target)).await?;
        let version = probe::version(&mut conn).await?;
        Ok((version, conn))
    })
    .await
}

/// Options for connections to `target`.
pub(super) fn options(target: &Target) -> Options {
    let builder = OptsBuilder::default()
        .user(Some(target.user.as_str()))
        .pass(Some(target.password.expose()))
        // Else a unix socket of the proxy's host is used for whatever server names the same path.
        .prefer_socket(false)
        .max_allowed_packet(Some(MAX_PACKET))
        .wait_timeout(Some(WAIT_TIMEOUT_SECS))
        .stmt_cache_size(0)
        // With autocommit off by default on the server, the first snapshot of mysql.user would be the last.
        .setup(vec!["SET autocommit=1"]);
    let (builder, tls) = match &target.address {
        ServerAddress::Tcp { host, port } => (
            builder.ip_or_hostname(host.as_str()).tcp_port(*port),
            tls(&target.tls),
        ),
        ServerAddress::Unix(path) => (
            builder.socket(Some(path.to_string_lossy().into_owned())),
            None,
        ),
    };
    match tls {
        None => Options {
            wanted: builder.into(),
            plain: None,
        },
        Some(tls) => Options {
            wanted: builder.clone().ssl_opts(Some(tls)).into(),
            plain: (target.tls.mode == ServerMode::Preferred).then(|| builder.into()),
        },
    }
}

fn tls(tls: &ServerTls) -> Option<SslOpts> {
    if tls.mode == ServerMode::Disabled {
        return None;
    }
    let identity = tls.identity.clone();
    let identity =
        identity.map(|files| ClientIdentity::new(files.certificate.into(), files.key.into()));
    let options = SslOpts::default()
        .with_client_identity(identity)
        .with_danger_accept_invalid_certs(tls.mode < ServerMode::VerifyCa);
    let options = match &tls.ca {
        // The library cannot do without any; nothing is verified against these.
        None => options,
        Some(ca) => options
            .with_disable_built_in_roots(true)
            .with_root_certs(vec![ca.clone().into()]),
    };
    Some(if tls.mode == ServerMode::VerifyCa {
        // The library forgives an error whose text contains NotValidForName, which that of its TLS only does if this
        // stands in the name that was asked for.
        options
            .with_danger_skip_domain_validation(true)
            .with_danger_tls_hostname_override(Some("NotValidForName.invalid"))
    } else {
        options
    })
}

/// Connects and logs in.
pub(super) async fn connect(options: &Options) -> Result<Conn, ProbeError> {
    let connected = match (Conn::new(options.wanted.clone()).await, &options.plain) {
        (Err(Error::Driver(DriverError::NoClientSslFlagFromServer)), Some(plain)) => {
            Conn::new(plain.clone()).await
        }
        (connected, _) => connected,
    };
    connected.map_err(|error| match &error {
        // What waits to be accepted is reset when the process ends.
        Error::Io(IoError::Io(system)) if system.kind() == ErrorKind::ConnectionReset => {
            ProbeError::Refused
        }
        error => classify(error),
    })
}

/// What it means that a server has not answered in time.
pub(super) async fn silence(address: &ServerAddress) -> ProbeError {
    let connected = time::timeout(CONTACT_DEADLINE, async {
        match address {
            ServerAddress::Tcp { host, port } => {
                TcpStream::connect((host.as_str(), *port)).await.map(drop)
            }
            ServerAddress::Unix(path) => UnixStream::connect(path).await.map(drop),
        }
    });
    match connected.await {
        Ok(Ok(())) => ProbeError::Unresponsive,
        Ok(Err(error)) => match classify_system(&error) {
            found @ (ProbeError::Refused | ProbeError::Unresponsive) => found,
            _ => ProbeError::Timeout,
        },
        Err(_) => ProbeError::Timeout,
    }
}

/// Gives `work` this much time.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    time::timeout(limit, work)
        .await
        .unwrap_or(Err(ProbeError::Timeout))
}

/// What a failure says about the server: <https://dev.mysql.com/doc/mysql-errors/9.4/en/server-error-reference.html>.
pub(super) fn classify(error: &Error) -> ProbeError {
    match error {
        Error::Server(error) => match error.code {
            // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED
            1040 | 1203 | 1226 => ProbeError::TooManyConnections,
            // ER_SERVER_SHUTDOWN, ER_NORMAL_SHUTDOWN; a killed connection (ER_CONNECTION_KILLED and MariaDB's)
            1053 | 1077 | 1927 | 3169 => ProbeError::Closed,
            // ER_DBACCESS_DENIED, ER_ACCESS_DENIED, ER_HOST_IS_BLOCKED, ER_HOST_NOT_PRIVILEGED, no password,
            // unknown plugin, expired, locked (both families)
            1044 | 1045 | 1129 | 1130 | 1698 | 1524 | 1820 | 1862 | 3118 | 4151 => {
                ProbeError::AccessDenied(error.to_string().into())
            }
            _ => ProbeError::Other(error.to_string().into()),
        },
        Error::Io(IoError::Io(error)) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
            tls.map_or_else(
                || classify_system(error),
                |tls| ProbeError::Tls(tls_problem(tls).into()),
            )
        }
        Error::Io(error @ IoError::Tls(_)) => ProbeError::Tls(error.to_string().into()),
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            ProbeError::Tls("it does not offer it, and tls.server.mode requires it".into())
        }
        Error::Driver(DriverError::ConnectionClosed) => ProbeError::Closed,
        other => ProbeError::Other(other.to_string().into()),
    }
}

fn classify_system(error: &SystemError) -> ProbeError {
    match error.kind() {
        // A unix socket that is not there has no server either.
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => ProbeError::Refused,
        ErrorKind::TimedOut
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown => ProbeError::Timeout,
        // A unix socket, on which as many connections wait as may.
        ErrorKind::WouldBlock => ProbeError::Unresponsive,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected
        | ErrorKind::UnexpectedEof => ProbeError::Closed,
        _ => ProbeError::Other(error.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::ServerError;

    use super::*;

    #[test]
    fn failures_are_told_apart() {
        let server = |code| {
            classify(&Error::Server(ServerError {
                code,
                message: "m".to_owned(),
                state: "HY000".to_owned(),
            }))
        };
        assert_eq!(server(1040), ProbeError::TooManyConnections);
        assert!(matches!(server(1045), ProbeError::AccessDenied(_)));
        assert!(matches!(server(1227), ProbeError::Other(_)));
        let system = |kind: ErrorKind| classify(&Error::Io(IoError::Io(kind.into())));
        assert_eq!(system(ErrorKind::ConnectionRefused), ProbeError::Refused);
        assert_eq!(system(ErrorKind::NotFound), ProbeError::Refused);
        assert_eq!(system(ErrorKind::HostUnreachable), ProbeError::Timeout);
        assert_eq!(system(ErrorKind::UnexpectedEof), ProbeError::Closed);
        assert_eq!(system(ErrorKind::WouldBlock), ProbeError::Unresponsive);
        assert!(matches!(
            system(ErrorKind::PermissionDenied),
            ProbeError::Other(_)
        ));
    }
}
