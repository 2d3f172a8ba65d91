//! The monitor's own connections, and what their failures mean.

use std::future::Future;
use std::io::{Error as SystemError, ErrorKind};
use std::time::Duration;

use mysql_async::{Conn, DriverError, Error, IoError, Opts, OptsBuilder};
use tokio::time;

use super::Target;
use crate::config::ServerAddress;
use crate::topology::ProbeError;

/// Enough for the longest answer (accounts, large GTID sets); stated so that no query is spent on asking the server.
const MAX_PACKET: usize = 64 << 20;

/// A server that closes the monitor's connection earlier than this is simply connected to again.
const WAIT_TIMEOUT_SECS: usize = 600;

/// Options for a connection to `target`.
pub(super) fn options(target: &Target) -> Opts {
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
    match &target.address {
        ServerAddress::Tcp { host, port } => {
            builder.ip_or_hostname(host.as_str()).tcp_port(*port).into()
        }
        ServerAddress::Unix(path) => builder
            .socket(Some(path.to_string_lossy().into_owned()))
            .into(),
    }
}

/// Connects and logs in.
pub(super) async fn connect(options: &Opts) -> Result<Conn, ProbeError> {
    Conn::new(options.clone())
        .await
        .map_err(|error| classify(&error))
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
        Error::Io(IoError::Io(error)) => classify_system(error),
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
        assert!(matches!(
            system(ErrorKind::PermissionDenied),
            ProbeError::Other(_)
        ));
    }
}
