//! Proof of who the client is, by a login to the primary in its name.

use std::{net::Ipv4Addr, sync::Arc};

use tracing::info;

use super::{Door, authenticate::Checked, refusal::unreachable};
use crate::{
    accounts::{Account, ClientAddress, Lookup, Proof, Requirement},
    backend::{Login, Target},
    config::ServerAddress,
    error::{Answer, Error, ErrorKind, Origin},
};

impl Door<'_> {
    /// What only a server can tell, a login to the primary tells.
    pub(super) async fn verify_at_primary(
        &self,
        user: &[u8],
        account: &Account,
        proof: &Arc<Proof>,
        checked: &Checked,
    ) -> Result<(), Error> {
        let login = Login::new(user, account, Arc::clone(proof), self.peer.ip());
        let topology = Arc::clone(&self.context.topology.borrow());
        let server = topology
            .primary()
            .or_else(|| topology.servers.iter().find(|server| server.health.is_up()));
        let target = server.and_then(|server| self.context.pool.target(server.id));
        let Some(target) = target else {
            return Err(unreachable(&topology));
        };
        let by_socket = matches!(target.address, ServerAddress::Unix(_));
        if by_socket && account.goes_by_process() && matches!(checked, Checked::Open) {
            let why = "at its unix socket the server would take dbproxy's process for the client's, and that may be \
                       enough for this account: give the server's TCP address";
            return Err(unable(&target, account, why));
        }
        match self.context.pool.try_login(target.id, &login).await {
            Ok(()) => Ok(()),
            Err(Error {
                kind: ErrorKind::Answer(answer),
                origin,
            }) => Err(self.refused_at(&target, user, account, answer, origin)),
            Err(error) => {
                info!(server = %target.name, %error, "password could not be checked");
                Err(unreachable(&topology))
            }
        }
    }

    /// What a client hears whose password the server was asked about: the server says the same to a wrong password and
    /// to somebody who has none of the accounts that it would use for dbproxy.
    fn refused_at(
        &self,
        target: &Target,
        user: &[u8],
        account: &Account,
        answer: Answer,
        origin: Origin,
    ) -> Error {
        let elsewhere = "to the server it comes from an address of its own, which is not one of this account's: let the \
                         account's host match that too, or switch cluster.proxy_protocol on";
        let is_denial = answer.code == 1045 && answer.message.ends_with("(using password: YES)");
        if answer.code == 1130 {
            return unable(target, account, elsewhere);
        }
        if !is_denial {
            return Error {
                kind: ErrorKind::Answer(answer),
                origin,
            };
        }
        let by_socket = matches!(target.address, ServerAddress::Unix(_));
        if let Some(seen) = seen_from(&answer.message, by_socket) {
            let judged = self.context.directory.borrow().find(user, &seen);
            if !matches!(judged, Lookup::Account(judged) if judged.key == account.key) {
                return unable(target, account, elsewhere);
            }
        }
        if matches!(
            account.requirement,
            Requirement::Certificate | Requirement::Named(_)
        ) {
            info!(
                server = %target.name, account = %account.key,
                "refused: the password is wrong, or dbproxy's own connection lacks what the account requires of certificate or cipher"
            );
        }
        self.denied(user, Some(account), true)
    }
}

/// Where the server saw dbproxy's connection come from, by what it said to a wrong password; `None` if it gave that a name.
fn seen_from(message: &str, by_socket: bool) -> Option<ClientAddress> {
    let (_, host) = message.rsplit_once("'@'")?;
    match host.split_once('\'')?.0 {
        "localhost" if by_socket => Some(ClientAddress::Unix),
        // It looked the address up.
        "localhost" => Some(ClientAddress::Ip(Ipv4Addr::LOCALHOST.into())),
        address => address.parse().ok().map(ClientAddress::Ip),
    }
}

/// What dbproxy itself lacks to log in to a server.
fn unable(target: &Target, account: &Account, why: &str) -> Error {
    let text = format!(
        "Access denied: dbproxy cannot log in to server {} as {}: {why}",
        target.name, account.key
    );
    // Not 1045, which says that the password is wrong.
    Error::answer_with(Origin::Server, 1698, b"28000", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_where_it_saw_the_proxy() {
        let said = |who: &str| format!("Access denied for user {who} (using password: YES)");
        let address = |text: &str| text.parse().ok().map(ClientAddress::Ip);
        for (who, by_socket, seen) in [
            ("'app'@'10.0.0.5'", false, address("10.0.0.5")),
            ("'app'@'fd00::5'", false, address("fd00::5")),
            ("'a'@'b'@'10.0.0.5'", false, address("10.0.0.5")),
            ("'app'@'localhost'", false, address("127.0.0.1")),
            ("'app'@'localhost'", true, Some(ClientAddress::Unix)),
            ("'app'@'proxy.example'", false, None),
            ("app", false, None),
        ] {
            assert_eq!(seen_from(&said(who), by_socket), seen, "{who}");
        }
    }
}
