//! What servers say to a client that they do not let in.

use std::borrow::Cow;

use dbproxy_proto::handshake::server::LoginRequest;
use tracing::debug;

use super::Door;
use crate::{
    accounts::Account,
    error::{Error, Origin},
    topology::{Flavor, Topology},
};

impl Door<'_> {
    /// The answer to a wrong password. Whether one was given is told as the account's server tells it.
    pub(super) fn denied(
        &self,
        user: &[u8],
        account: Option<&Account>,
        with_password: bool,
    ) -> Error {
        let has = |plugins: &[&str]| {
            let methods = account.map_or(&[][..], |account| &account.methods);
            methods
                .iter()
                .any(|method| plugins.contains(&&*method.plugin))
        };
        let user = String::from_utf8_lossy(user);
        let who = format!("Access denied for user '{user}'@'{}'", self.host());
        // Even an empty password is signed.
        let with_password = with_password || has(&["ed25519", "parsec"]);
        let last = account.and_then(|account| account.methods.last());
        let by_process = last.is_some_and(|method| &*method.plugin == "unix_socket");
        if by_process || !with_password && has(&["unix_socket"]) {
            return refusal(1698, b"28000", who);
        }
        let using = if with_password { "YES" } else { "NO" };
        refusal(1045, b"28000", format!("{who} (using password: {using})"))
    }

    /// Anybody could say to be anybody by a header.
    pub(super) fn unasked_header(&self) -> Error {
        let text = format!(
            "Bad handshake: a PROXY header from {}, which is in no network of dbproxy's listen.proxy_protocol",
            self.host()
        );
        refusal(1043, b"08S01", text)
    }

    /// The client has to use TLS and does not.
    pub(super) fn insecure(&self, request: &LoginRequest<'_>) -> Error {
        debug!("a client without TLS where it is required");
        match self.flavor() {
            Flavor::MySql => refusal(
                3159,
                b"HY000",
                "Connections using insecure transport are prohibited while --require_secure_transport=ON.",
            ),
            // Says nothing of the reason, as for an account that requires TLS.
            Flavor::MariaDb => self.denied(request.user, None, !request.auth_response.is_empty()),
        }
    }

    pub(super) fn host_not_allowed(&self, flavor: Flavor) -> Error {
        let family = if flavor == Flavor::MariaDb {
            "MariaDB"
        } else {
            "MySQL"
        };
        let text = format!(
            "Host '{}' is not allowed to connect to this {family} server",
            self.host()
        );
        refusal(1130, b"HY000", text)
    }
}

pub(super) fn refusal(code: u16, sqlstate: &[u8; 5], text: impl Into<Cow<'static, str>>) -> Error {
    Error::answer_with(Origin::Proxy, code, sqlstate, text)
}

pub(super) fn unreachable(topology: &Topology) -> Error {
    let servers: Vec<_> = topology
        .servers
        .iter()
        .map(|server| format!("{}: {}", server.name, server.why))
        .collect();
    let text = format!(
        "Can't connect to MySQL server: no server can be reached ({})",
        servers.join("; ")
    );
    Error::answer_with(Origin::Server, 2003, b"HY000", text)
}
