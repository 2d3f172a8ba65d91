//! Who a session's user is at another cluster than its own, and by what right.

use std::{net::IpAddr, sync::Arc};

use dbproxy_proto::handshake::auth::NativeStage1;
use tokio::task::spawn_blocking;

use super::{Context, Session, scopes::SessionScopes};
use crate::{
    accounts::{Account, AccountKey, ClientAddress, Lookup, Method, Proof, Transport, Verdict},
    backend::Login,
    error::{Error, Origin},
};

/// What a session has at other clusters.
#[derive(Debug, Default)]
pub(super) struct Guest(Vec<Stay>);

/// What it has at one of them.
#[derive(Debug)]
struct Stay {
    cluster: u8,
    /// It has proven its right to it.
    login: Login,
    /// Not there before the first visit, and during one.
    scopes: Option<SessionScopes>,
}

impl Session {
    /// What logs the session's user in at another cluster: the same user with the same password, if that is right there.
    ///
    /// An error of the client's origin means that the session is to end.
    pub(super) async fn login_at(&mut self, context: &Arc<Context>) -> Result<Login, Error> {
        if let Some(stay) = self.stay_at(context.cluster) {
            return Ok(stay.login.clone());
        }
        let claim = self.claim_at(context)?;
        let proven = self.patiently(claim.prove(context)).await?;
        let guest = self.guest.get_or_insert_default();
        guest.0.push(Stay {
            cluster: context.cluster,
            login: proven.clone(),
            scopes: None,
        });
        Ok(proven)
    }

    fn stay_at(&mut self, cluster: u8) -> Option<&mut Stay> {
        let stays = &mut self.guest.as_mut()?.0;
        stays.iter_mut().find(|stay| stay.cluster == cluster)
    }

    /// What the session has written and seen at another cluster.
    pub(super) fn scopes_at(&mut self, context: &Context) -> Option<SessionScopes> {
        self.stay_at(context.cluster)?.scopes.take()
    }

    /// Remembers that until its next statement there.
    pub(super) fn keep_scopes(&mut self, cluster: u8, scopes: SessionScopes) {
        if let Some(stay) = self.stay_at(cluster) {
            stay.scopes = Some(scopes);
        }
    }

    /// What the session's user claims to be at another cluster, which all but the password speaks for.
    pub(super) fn claim_at(&self, context: &Context) -> Result<Claim, Error> {
        let user = &self.login.user;
        let client = self.peer.ip();
        let address = client.map_or(ClientAddress::Unix, ClientAddress::Ip);
        let found = context.directory.borrow().find(user.as_bytes(), &address);
        let denied = |why| Err(denied(context, user, why));
        let account = match found {
            Lookup::Account(account) => account,
            Lookup::NotLoaded => return denied("its accounts could not be read yet"),
            Lookup::HostNotAllowed | Lookup::UnknownUser => {
                return denied("there is no such account");
            }
        };
        let transport = self.client.tls().map(|tls| Transport {
            cipher: tls.cipher,
            certificate: tls
                .certificate
                .as_ref()
                .map(|names| (&*names.issuer, &*names.subject)),
        });
        if account.locked {
            return denied("the account is locked");
        }
        if account.expired {
            return denied("the password has expired");
        }
        if account.multi_factor || account.goes_by_process() {
            return denied("the account needs more than a password");
        }
        if !account.requirement.is_met(transport) {
            return denied("the account requires TLS, or more of it than the client has");
        }
        Ok(Claim {
            user: Arc::clone(user),
            account,
            proof: Arc::clone(&self.login.proof),
            client,
        })
    }
}

/// Who somebody says to be whose password is still to be held against an account's.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    user: Arc<str>,
    account: Arc<Account>,
    /// What was proven elsewhere.
    proof: Arc<Proof>,
    client: Option<IpAddr>,
}

impl Claim {
    /// The account's name.
    pub(super) fn account(&self) -> &AccountKey {
        &self.account.key
    }

    /// The login that this is if it is true.
    pub(super) fn login(&self) -> Login {
        let proof = Arc::clone(&self.proof);
        Login::new(self.user.as_bytes(), &self.account, proof, self.client)
    }

    /// Finds out whether it is. Connections of the account may lie in the pool, which ask nobody for a password.
    pub(super) async fn prove(&self, context: &Context) -> Result<Login, Error> {
        let wrong = || denied(context, &self.user, "the password is another one there");
        let account = &self.account;
        let known = context.credentials.proofs(account);
        let proof = match &*self.proof {
            Proof::Empty if account.may_be_empty() => Arc::clone(&self.proof),
            Proof::Empty => return Err(wrong()),
            Proof::Native(stage1) => {
                let stage2 = NativeStage1::new(**stage1).stage2();
                let configured = account.configured().is_some_and(|password| {
                    NativeStage1::of(password.expose().as_bytes()).stage2() == stage2
                });
                if configured || account.native().contains(&stage2) {
                    Arc::clone(&self.proof)
                } else {
                    let known = known.into_iter();
                    let mut same = known.filter(|proof| proof.native().as_ref() == Some(&stage2));
                    same.next().ok_or_else(|| {
                        let why = "the password is another one there, or the account's plugin needs more than \
                                   mysql_native_password has proven: log in there once";
                        denied(context, &self.user, why)
                    })?
                }
            }
            Proof::Password { stage1, .. } if known.iter().any(|proof| proof.is_of(stage1)) => {
                Arc::clone(&self.proof)
            }
            Proof::Password { .. } => {
                match self.check(context).await? {
                    Some(method) if account.configured().is_none() => {
                        let proof = Arc::clone(&self.proof);
                        context.credentials.remember(account, &method, proof);
                    }
                    Some(_) => {}
                    None if self.is_let_in(context).await? => {}
                    None => return Err(wrong()),
                }
                Arc::clone(&self.proof)
            }
        };
        Ok(Login {
            proof,
            ..self.login()
        })
    }

    /// The method by which the password is right; `None` if only a server can tell.
    async fn check(&self, context: &Context) -> Result<Option<Method>, Error> {
        if self.account.counted {
            return Ok(None);
        }
        let turn = Arc::clone(&context.checks).acquire_owned().await;
        let (account, proof) = (Arc::clone(&self.account), Arc::clone(&self.proof));
        // It is slow on purpose: not on the thread of the sessions.
        let checked = spawn_blocking(move || {
            let _turn = turn;
            let Proof::Password { password, .. } = &*proof else {
                return Err(());
            };
            match account.check(password) {
                Verdict::Right(method) => Ok(Some(method.clone())),
                Verdict::Open => Ok(None),
                Verdict::Wrong => Err(()),
            }
        });
        match checked.await {
            Ok(Ok(method)) => Ok(method),
            Ok(Err(())) => {
                let why = "the password is another one there";
                Err(denied(context, &self.user, why))
            }
            Err(_) => Err(Error::setup("the check of a password was broken off")),
        }
    }

    /// Whether a server of the cluster lets it in, as this account.
    async fn is_let_in(&self, context: &Context) -> Result<bool, Error> {
        let server = {
            let topology = context.topology.borrow();
            let up = || topology.servers.iter().find(|server| server.health.is_up());
            topology.primary().or_else(up).map(|server| server.id)
        };
        let Some(server) = server else {
            return Err(denied(context, &self.user, "no server of it answers"));
        };
        let used = context.pool.try_login(server, &self.login()).await;
        let used = used.map_err(|error| {
            let why = format!("a server of it answers: {error}");
            denied(context, &self.user, &why)
        })?;
        let key = &self.account.key;
        Ok(used
            .is_some_and(|used| used.user == key.user && used.host.eq_ignore_ascii_case(&key.host)))
    }
}

/// ER_CONNECT_TO_FOREIGN_DATA_SOURCE
fn denied(context: &Context, user: &str, why: &str) -> Error {
    let text = format!(
        "Unable to connect to foreign data source: dbproxy cannot log user '{user}' in to the cluster {}: {why}",
        context.name
    );
    Error::answer_with(Origin::Proxy, 1429, b"HY000", text)
}
