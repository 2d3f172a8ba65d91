//! Proof of who the client is, by the account's own rules.

use std::{sync::Arc, time::Duration};

use dbproxy_proto::{
    capability::Capabilities,
    handshake::{
        auth::{AuthPlugin, Scramble, SecretBytes, Sha2Stage1},
        server::{Answer as AuthAnswer, Credential, Outcome, Proof as Proven, ServerAuth, Step},
        voucher::{Fingerprint, voucher},
    },
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use zeroize::Zeroizing;

use super::{Claim, Door, Entered, refusal::refusal};
use crate::{
    accounts::{Account, Expiry, Lookup, Method, Proof, Transport, Verdict},
    error::{Answer, Error, ErrorKind},
    topology::Flavor,
};

/// A denial comes this long after what the client gave. Accounts newer than the last reading can be read until then,
/// and the time tells nobody whether the user is known.
const DENIAL: Duration = Duration::from_millis(300);

/// How long logins wait for accounts that sessions have changed: a reading that is under way, the rest after it, and
/// one more, at a primary that may be far or busy.
const CHANGES: Duration = Duration::from_millis(1500);

impl Door<'_> {
    /// Has the client prove that it is who it says.
    pub(in crate::session) async fn authenticate(
        &mut self,
        claim: Claim<'_>,
        default: AuthPlugin,
        scramble: Scramble,
    ) -> Result<Entered, Error> {
        let began = Instant::now();
        self.account_changes_are_read(began).await?;
        let lookup = self.lookup(claim.user).await?;
        let (account, (plugin, credential)) = match lookup {
            Lookup::Account(account) => {
                let asked = self.ask(&account, &claim.answer, scramble);
                (Some(account), asked)
            }
            // Looks the same to the client as an account of whose password nothing is known.
            Lookup::UnknownUser => (None, (default, Credential::Password { known: Vec::new() })),
            Lookup::HostNotAllowed => return Err(self.host_not_allowed(self.flavor())),
            Lookup::NotLoaded => {
                let text = "Access denied: dbproxy has not been able to read the accounts from a server yet; \
                            `dbproxy check` says what is missing";
                return Err(refusal(1045, b"28000", text));
            }
        };
        let auth = ServerAuth {
            plugin: plugin.clone(),
            credential,
            channel: self.channel(),
            public_key: Some(Arc::clone(self.context.server_key.public())),
        };
        let mut last = claim.answer.clone();
        let mut reply;
        let mut step = auth.start(claim.answer, scramble);
        let outcome = loop {
            step = match step {
                Step::Send { payload, next } => {
                    self.send(&payload).await?;
                    reply = Zeroizing::new(self.receive().await?.to_vec());
                    last = AuthAnswer::to_switch(plugin.clone(), &reply, scramble);
                    next.handle(&reply)
                }
                Step::Decrypt { ciphertext, next } => {
                    let plaintext = self.context.server_key.decrypt(&ciphertext).await;
                    next.handle(plaintext.as_deref())
                }
                Step::Finished { payload, outcome } => {
                    if let Some(payload) = payload {
                        self.send(&payload).await?;
                    }
                    break outcome;
                }
            };
        };
        let with_password = match &outcome {
            Outcome::Denied { with_password } => *with_password,
            Outcome::Proven(_) => true,
            Outcome::Unsupported => {
                let text = "Client does not support authentication protocol requested by server; \
                            consider upgrading MySQL client";
                return Err(refusal(1251, b"08004", text));
            }
        };
        let denial_at = Instant::now() + DENIAL.min(self.context.limits.login / 2);
        let answered = last.scramble();
        let mut accepted = match (&account, &outcome) {
            (Some(account), Outcome::Proven(proven)) => {
                let account = Arc::clone(account);
                self.let_in(claim.user, account, proven.clone(), answered)
                    .await
            }
            (account, _) => Err(self.denied(claim.user, account.as_deref(), with_password)),
        };
        if is_denial(&accepted) {
            let newer = self.newer_account(claim.user, began, denial_at).await?;
            let newer = newer.filter(|newer| account.as_ref() != Some(newer));
            if let Some(newer) = newer
                && let Some(proven) = self.judge_again(&newer, outcome, last, scramble)
            {
                accepted = self.let_in(claim.user, newer, proven, answered).await;
            }
        }
        if is_denial(&accepted) {
            self.unless_closed(sleep_until(denial_at)).await?;
        }
        let entered = accepted?;
        self.check_state(claim.user, &entered.account)?;
        Ok(entered)
    }

    async fn let_in(
        &self,
        user: &[u8],
        account: Arc<Account>,
        proven: Proven,
        scramble: Scramble,
    ) -> Result<Entered, Error> {
        let voucher = self.vouch(&proven, &scramble);
        let proof = self.accept(user, &account, proven).await?;
        Ok(Entered {
            account,
            proof,
            voucher,
        })
    }

    /// What lets a client of MariaDB believe in the certificate that it was shown, if its answer was fit for that.
    ///
    /// Whatever the servers' version is: a client that does not know it pays no attention.
    fn vouch(&self, proven: &Proven, scramble: &Scramble) -> Vec<u8> {
        match (proven, self.vouches_for()) {
            (Proven::NativeStage1(stage1), Some(fingerprint)) => {
                voucher(&stage1.stage2(), scramble, &fingerprint)
            }
            _ => Vec::new(),
        }
    }

    fn vouches_for(&self) -> Option<Fingerprint> {
        let shown = self.client.tls()?.shown;
        shown.filter(|_| self.flavor() == Flavor::MariaDb)
    }

    /// Waits for what sessions have changed of the accounts, but not for long: the primary may be away.
    async fn account_changes_are_read(&self, now: Instant) -> Result<(), Error> {
        let Some(changed) = self.context.account_changes.recent(now) else {
            return Ok(());
        };
        let mut directory = self.context.directory.clone();
        let asked_at = directory.borrow().asked_at();
        if asked_at.is_some() && asked_at < Some(changed) {
            self.context.account_changes.nudge();
            let newer = directory.wait_for(|directory| directory.asked_at() >= Some(changed));
            let patience = CHANGES.min(self.context.limits.login / 2);
            // Without an answer the reading before has to do.
            let _ = self.unless_closed(timeout(patience, newer)).await?;
        }
        Ok(())
    }

    /// The account, if it stands in a reading of the accounts that is newer than this attempt.
    async fn newer_account(
        &self,
        user: &[u8],
        attempt: Instant,
        until: Instant,
    ) -> Result<Option<Arc<Account>>, Error> {
        self.context.account_changes.nudge();
        let mut directory = self.context.directory.clone();
        let newer = directory.wait_for(|directory| directory.asked_at() >= Some(attempt));
        let newer = self.unless_closed(timeout_at(until, newer)).await?;
        Ok(match newer {
            Ok(Ok(directory)) => match directory.find(user, &self.address()) {
                Lookup::Account(account) => Some(account),
                Lookup::HostNotAllowed | Lookup::UnknownUser | Lookup::NotLoaded => None,
            },
            _ => None,
        })
    }

    /// Judges by a newer account what the client has given already: nothing more can be asked of it.
    fn judge_again(
        &self,
        account: &Account,
        outcome: Outcome,
        answer: AuthAnswer<'_>,
        scramble: Scramble,
    ) -> Option<Proven> {
        if let Outcome::Proven(password @ Proven::Password { .. }) = outcome {
            return Some(password);
        }
        let (plugin, credential) = self.ask(account, &answer, scramble);
        let auth = ServerAuth {
            plugin,
            credential,
            channel: self.channel(),
            public_key: None,
        };
        match auth.start(answer, scramble) {
            Step::Finished {
                payload: None,
                outcome: Outcome::Proven(proven),
            } => Some(proven),
            Step::Finished { .. } | Step::Send { .. } | Step::Decrypt { .. } => None,
        }
    }

    /// Looks the user up, waiting a little while the accounts are not read yet.
    async fn lookup(&self, user: &[u8]) -> Result<Lookup, Error> {
        let address = self.address();
        let mut directory = self.context.directory.clone();
        let known =
            directory.wait_for(|directory| directory.find(user, &address) != Lookup::NotLoaded);
        let patience = self.context.limits.login / 2;
        let known = self.unless_closed(timeout(patience, known)).await?;
        Ok(match known {
            Ok(Ok(directory)) => directory.find(user, &address),
            _ => Lookup::NotLoaded,
        })
    }

    /// The plugin by which the client is asked, and what its answer is checked against.
    ///
    /// Where the account's own plugin would prove the password without giving away what logs in to servers, or is
    /// unknown here, the client is asked for the password itself by caching_sha2_password, which hides it on the way.
    /// But a client that has yet to verify the certificate would not give it: if the password is known here, an answer
    /// by mysql_native_password will do.
    fn ask(
        &self,
        account: &Account,
        answer: &AuthAnswer<'_>,
        scramble: Scramble,
    ) -> (AuthPlugin, Credential) {
        let own = account.methods.first();
        let own = own.map(|method| AuthPlugin::from_name(method.plugin.as_bytes()));
        let is_own = |plugin| own.as_ref() == Some(&plugin);
        let by_password = if is_own(AuthPlugin::Sha256Password)
            && !answer.is_for(&AuthPlugin::CachingSha2Password)
        {
            AuthPlugin::Sha256Password
        } else {
            AuthPlugin::CachingSha2Password
        };
        if let Some(password) = account.configured() {
            let password = SecretBytes::from(password.expose().as_bytes());
            let credential = Credential::Cleartext(password);
            let native = (AuthPlugin::MysqlNativePassword, credential.clone());
            let will_do = is_own(AuthPlugin::MysqlNativePassword)
                || self.vouches_for().is_some()
                    && self.is_proven_by(native.clone(), answer, scramble);
            return if will_do {
                native
            } else {
                (AuthPlugin::CachingSha2Password, credential)
            };
        }
        let native = (AuthPlugin::MysqlNativePassword, account.native());
        let by_token = || (native.0.clone(), Credential::Native(native.1.clone()));
        if account.counted {
            return (by_password, Credential::Password { known: Vec::new() });
        }
        if account.may_be_empty() && (account.methods.len() == 1 || answer.is_empty()) {
            let plugin = if is_own(AuthPlugin::MysqlNativePassword) {
                AuthPlugin::MysqlNativePassword
            } else {
                by_password
            };
            return (plugin, Credential::NoPassword);
        }
        if !native.1.is_empty() {
            // One of several methods is enough, if the client has chosen it already.
            let several = native.1.len() < account.methods.len();
            if !several || self.is_proven_by(by_token(), answer, scramble) {
                return by_token();
            }
        }
        let proofs = self.context.credentials.proofs(account);
        if self.vouches_for().is_some() {
            let known = proofs.iter().filter_map(|proof| proof.native()).collect();
            let by_known = (native.0, Credential::Native(known));
            if self.is_proven_by(by_known.clone(), answer, scramble) {
                return by_known;
            }
        }
        let known = proofs.iter().filter_map(|proof| match &**proof {
            Proof::Password { stage1, .. } => Some(Sha2Stage1::new(**stage1).stage2()),
            Proof::Native(_) | Proof::Empty => None,
        });
        let known = known.collect();
        (by_password, Credential::Password { known })
    }

    /// Whether the client's first answer is all that is needed.
    fn is_proven_by(
        &self,
        (plugin, credential): (AuthPlugin, Credential),
        answer: &AuthAnswer<'_>,
        scramble: Scramble,
    ) -> bool {
        let auth = ServerAuth {
            plugin,
            credential,
            channel: self.channel(),
            public_key: None,
        };
        matches!(
            auth.start(answer.clone(), scramble),
            Step::Finished {
                outcome: Outcome::Proven(_),
                ..
            }
        )
    }

    /// Turns what the client proved into what logs in to servers.
    async fn accept(
        &self,
        user: &[u8],
        account: &Arc<Account>,
        proven: Proven,
    ) -> Result<Arc<Proof>, Error> {
        if let Some(password) = account.configured() {
            return Ok(Arc::new(password_proof(password.expose().as_bytes())));
        }
        let (password, verified) = match proven {
            Proven::NoPassword => return Ok(Arc::new(Proof::Empty)),
            Proven::NativeStage1(stage1) => {
                let stage2 = stage1.stage2();
                if account.native().contains(&stage2) {
                    return Ok(Arc::new(Proof::Native(Zeroizing::new(*stage1.as_bytes()))));
                }
                let known = self.context.credentials.proofs(account).into_iter();
                let known = known
                    .rev()
                    .find(|proof| proof.native().as_ref() == Some(&stage2));
                return known.ok_or_else(|| self.denied(user, Some(account), true));
            }
            Proven::Sha2Fast(stage1) => {
                let known = self.context.credentials.proofs(account).into_iter();
                let known = known.rev().find(|proof| proof.is_of(stage1.as_bytes()));
                return known.ok_or_else(|| self.denied(user, Some(account), true));
            }
            Proven::Password { password, verified } => (password, verified),
        };
        let proof = Arc::new(password_proof(&password));
        if verified && !account.counted {
            return Ok(proof);
        }
        let checked = self.check(account, password).await?;
        let method = match &checked {
            Checked::Right(method) => method,
            Checked::Wrong => return Err(self.denied(user, Some(account), true)),
            Checked::Open | Checked::Counted => {
                // Not remembered: nothing that is read here changes when such a password does.
                self.verify_at_primary(user, account, &proof, &checked)
                    .await?;
                return Ok(proof);
            }
        };
        let credentials = &self.context.credentials;
        credentials.remember(account, method, Arc::clone(&proof));
        Ok(proof)
    }

    /// Checks a password by what is stored of it. It is slow on purpose: not on the thread of the sessions, and few at a time.
    async fn check(&self, account: &Arc<Account>, password: SecretBytes) -> Result<Checked, Error> {
        // A server that takes dbproxy's process for the client's counts nothing.
        let by_process = account.goes_by_process() && self.judge()?.is_unix();
        if account.counted && !by_process {
            return Ok(Checked::Open);
        }
        let turn = Arc::clone(&self.context.checks).acquire_owned();
        let turn = self.unless_closed(turn).await?;
        let account = Arc::clone(account);
        let checked = spawn_blocking(move || {
            // It takes as long, and so does the turn, if the login is given up meanwhile.
            let _turn = turn;
            match account.check(&password) {
                Verdict::Right(_) if account.counted => Checked::Counted,
                Verdict::Right(method) => Checked::Right(method.clone()),
                Verdict::Wrong => Checked::Wrong,
                Verdict::Open => Checked::Open,
            }
        });
        checked
            .await
            .map_err(|_| Error::setup("the check of a password was broken off"))
    }

    fn check_state(&self, user: &[u8], account: &Account) -> Result<(), Error> {
        let maria = self.flavor() == Flavor::MariaDb;
        if account.locked {
            let text = format!(
                "Access denied for user '{}'@'{}'. Account is locked.",
                String::from_utf8_lossy(user),
                self.host()
            );
            return Err(if maria {
                refusal(4151, b"HY000", "Access denied, this account is locked")
            } else {
                refusal(3118, b"HY000", text)
            });
        }
        if account.multi_factor {
            let text = format!(
                "Access denied: account {} uses multi-factor authentication, which dbproxy does not support",
                account.key
            );
            return Err(refusal(1045, b"28000", text));
        }
        let transport = self.client.tls().map(|tls| Transport {
            cipher: tls.cipher,
            certificate: tls
                .certificate
                .as_ref()
                .map(|names| (&*names.issuer, &*names.subject)),
        });
        if !account.requirement.is_met(transport) {
            return Err(self.denied(user, Some(account), true));
        }
        let handles = Capabilities::CAN_HANDLE_EXPIRED_PASSWORDS;
        let refuses = self.context.directory.borrow().expiry() == Expiry::Refuses;
        if account.expired && refuses && !self.capabilities.contains(handles) {
            let text = "Your password has expired. To log in you must change it using a client that supports \
                        expired passwords.";
            return Err(refusal(1862, b"HY000", text));
        }
        Ok(())
    }
}

/// Whether it is the answer to a wrong password.
fn is_denial<T>(result: &Result<T, Error>) -> bool {
    matches!(
        result,
        Err(Error {
            kind: ErrorKind::Answer(Answer {
                code: 1045 | 1698,
                ..
            }),
            ..
        })
    )
}

/// What a check of a password said.
pub(super) enum Checked {
    Right(Method),
    Wrong,
    /// Only a server can tell.
    Open,
    /// Right, but a server has to be asked as well, to go on counting.
    Counted,
}

fn password_proof(password: &[u8]) -> Proof {
    if password.is_empty() {
        return Proof::Empty;
    }
    Proof::Password {
        password: Zeroizing::new(password.to_vec()),
        stage1: Zeroizing::new(*Sha2Stage1::of(password).as_bytes()),
    }
}
