//! Proof of who the client is, by a login to the primary in its name.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::super::complaints::Matter;
use super::{Door, authenticate::Checked, refusal::unreachable};
use crate::{
    accounts::{Account, AccountKey, ClientAddress, Lookup, Proof, Requirement},
    backend::{Login, Target},
    config::ProxyProtocol,
    error::{Answer, Error, ErrorKind, Origin},
};

/// Who logs in, and as what.
struct Trial<'a> {
    user: &'a [u8],
    account: &'a Account,
    with_password: bool,
}

const ELSEWHERE: &str = "to the server dbproxy comes from an address of its own, for which the server does not choose this account: \
     let the account's host match that too, or switch cluster.proxy_protocol on";

const PROCESS: &str = "at its unix socket the server would take dbproxy's process for the client's, and that may be enough for the \
     account that it chooses there: give the server's TCP address";

impl Door<'_> {
    /// What only a server can tell, a login to the primary tells.
    pub(super) async fn verify_at_primary(
        &self,
        user: &[u8],
        account: &Account,
        proof: &Arc<Proof>,
        checked: &Checked,
    ) -> Result<(), Error> {
        let target = self.judge()?;
        let trial = Trial {
            user,
            account,
            with_password: !matches!(**proof, Proof::Empty),
        };
        if self.is_let_in_by_process(&target, &trial, checked) {
            return Err(self.unusable(&target, &trial, PROCESS));
        }
        let login = Login::new(user, account, Arc::clone(proof), self.peer.ip());
        match self.context.pool.try_login(target.id, &login).await {
            Ok(used) => {
                let is_it = match used {
                    Some(used) => is_same(&used, &account.key),
                    None => self.context.directory.borrow().is_only(user, &account.key),
                };
                if is_it {
                    Ok(())
                } else {
                    Err(self.unusable(&target, &trial, ELSEWHERE))
                }
            }
            Err(Error {
                kind: ErrorKind::Answer(answer),
                origin,
            }) => Err(self.refused_at(&target, &trial, answer, origin)),
            Err(error) => {
                info!(server = %target.name, %error, "password could not be checked");
                Err(unreachable(&self.context.topology.borrow()))
            }
        }
    }

    /// The server that is asked about passwords.
    pub(super) fn judge(&self) -> Result<Target, Error> {
        let topology = self.context.topology.borrow();
        let server = topology
            .primary()
            .or_else(|| topology.servers.iter().find(|server| server.health.is_up()));
        let target = server.and_then(|server| self.context.pool.target(server.id));
        target.ok_or_else(|| unreachable(&topology))
    }

    /// Whether the server may let dbproxy in whatever the password is, which says nothing of the client.
    fn is_let_in_by_process(&self, target: &Target, trial: &Trial<'_>, checked: &Checked) -> bool {
        if !target.is_unix() {
            return false;
        }
        let seen = match (target.proxy_protocol, self.address()) {
            (ProxyProtocol::On, address @ ClientAddress::Ip(_)) => address,
            _ => ClientAddress::Unix,
        };
        let account = trial.account;
        let (is_it, by_process) = match self.context.directory.borrow().find(trial.user, &seen) {
            Lookup::Account(chosen) => (chosen.key == account.key, chosen.goes_by_process()),
            Lookup::HostNotAllowed | Lookup::UnknownUser | Lookup::NotLoaded => (false, false),
        };
        let is_right = is_it && matches!(checked, Checked::Counted);
        (by_process || account.goes_by_process()) && !is_right
    }

    /// What a client hears whose password the server was asked about: the server says the same to a wrong password and
    /// to somebody who has none of the accounts that it would use for dbproxy.
    fn refused_at(
        &self,
        target: &Target,
        trial: &Trial<'_>,
        answer: Answer,
        origin: Origin,
    ) -> Error {
        let account = trial.account;
        match answer.code {
            1130 => return self.unusable(target, trial, ELSEWHERE),
            1045 | 1698 if answer.message.starts_with("Access denied: dbproxy") => {
                return self.unusable(target, trial, &answer.message);
            }
            1045 | 1698 => {}
            _ => {
                return Error {
                    kind: ErrorKind::Answer(answer),
                    origin,
                };
            }
        }
        if let Some(seen) = seen_from(&answer.message, target.is_unix()) {
            let judged = self.context.directory.borrow().find(trial.user, &seen);
            if !matches!(judged, Lookup::Account(judged) if judged.key == account.key) {
                return self.unusable(target, trial, ELSEWHERE);
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
        self.denied(trial.user, Some(account), trial.with_password)
    }

    /// The answer to a wrong password: anything else would tell a stranger that there is such an account. What dbproxy
    /// lacks to log in as it, only the log tells.
    fn unusable(&self, target: &Target, trial: &Trial<'_>, why: &str) -> Error {
        let (server, account) = (&target.name, &trial.account.key);
        let complaints = &self.context.complaints;
        if complaints.is_due(account, Matter::Login, Instant::now()) {
            warn!(%server, %account, "refused, whatever the password: dbproxy cannot log in as the account: {why}");
        } else {
            debug!(%server, %account, "refused, whatever the password, as before");
        }
        self.denied(trial.user, Some(trial.account), trial.with_password)
    }
}

/// Whether the server means this account; some write hosts in small letters.
fn is_same(used: &AccountKey, account: &AccountKey) -> bool {
    used.user == account.user && used.host.eq_ignore_ascii_case(&account.host)
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
