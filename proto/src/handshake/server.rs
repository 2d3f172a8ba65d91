//! The server's side of a login: greet, read the login request, verify.
//!
//! Sources: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_v10.html>,
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_response.html>.

use std::sync::Arc;

use super::auth::{
    AuthPlugin, Channel, NativeStage1, NativeStage2, Scramble, SecretBytes, Sha2Stage1, Sha2Stage2,
    native_verify, rsa_mask, sha2_verify,
};
use super::{
    AUTH_MORE_DATA, AUTH_SWITCH, FAST_AUTH_SUCCESS, FULL_AUTHENTICATION, PUBLIC_KEY_REQUEST,
    SHA256_KEY_REQUEST,
};
use crate::codec::Reader;
use crate::command::{ChangeUser, ConnectAttributes};
use crate::{Capabilities, ProtocolError, StatusFlags};

/// The longest RSA ciphertext that is passed on to be decrypted, in bytes: a key of 8192 bits.
const MAX_CIPHERTEXT: usize = 1024;

/// The first packet of a connection, protocol version 10.
#[derive(Debug, Clone)]
pub struct Greeting<'a> {
    /// Server version; ends at the first NUL.
    pub version: &'a str,
    /// Connection id, for KILL and CONNECTION_ID().
    pub connection_id: u32,
    /// What the client's token answers to; a fresh one for every connection.
    pub scramble: Scramble,
    /// What is offered. MariaDB's extended ones go out only while [`Capabilities::LONG_PASSWORD`] is absent.
    pub capabilities: Capabilities,
    /// Default collation; the packet has room for its low byte.
    pub collation: u16,
    /// Status flags.
    pub status: StatusFlags,
    /// The plugin that clients try first.
    pub plugin: AuthPlugin,
}

impl Greeting<'_> {
    /// The packet's payload.
    pub fn payload(&self) -> Vec<u8> {
        let caps = self.capabilities;
        let [low0, low1, high0, high1] = caps.standard().to_le_bytes();
        let plugin_auth = caps.contains(Capabilities::PLUGIN_AUTH);
        let (first, second) = self.scramble.as_bytes().split_at(8);
        let mut out = vec![10];
        out.extend(self.version.bytes().take_while(|&byte| byte != 0));
        out.push(0);
        out.extend(self.connection_id.to_le_bytes());
        out.extend(first);
        out.extend([0, low0, low1, self.collation as u8]);
        out.extend(self.status.bits().to_le_bytes());
        out.extend([
            high0,
            high1,
            if plugin_auth {
                Scramble::LEN as u8 + 1
            } else {
                0
            },
        ]);
        out.extend([0; 6]);
        let extended = if caps.contains(Capabilities::LONG_PASSWORD) {
            0
        } else {
            caps.extended()
        };
        out.extend(extended.to_le_bytes());
        out.extend(second);
        out.push(0);
        if plugin_auth {
            out.extend(self.plugin.name().bytes());
            out.push(0);
        }
        out
    }
}

/// What a client says first.
#[derive(Debug, Clone)]
pub enum FirstPacket<'a> {
    /// It logs in.
    Login(LoginRequest<'a>),
    /// It wants TLS before it says more.
    TlsRequest {
        /// What it wants to speak.
        capabilities: Capabilities,
    },
}

impl<'a> FirstPacket<'a> {
    /// Reads the payload that follows the greeting.
    ///
    /// # Errors
    /// Malformed packets, and clients older than 4.1.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut peek = Reader::new(payload);
        let low = Capabilities::from_parts(u32::from(peek.u16("capabilities")?), 0);
        if !low.contains(Capabilities::PROTOCOL_41) {
            return Err(ProtocolError::Unsupported("clients older than 4.1"));
        }
        let mut reader = Reader::new(payload);
        let standard = reader.u32("capabilities")?;
        let max_packet = reader.u32("maximal packet size")?;
        let collation = reader.u8("collation")?;
        reader.bytes(19, "filler")?;
        let extended = reader.u32("extended capabilities")?;
        // Only a client that leaves LONG_PASSWORD out speaks of MariaDB's extended capabilities; others may have anything there.
        let mariadb = standard & Capabilities::LONG_PASSWORD.standard() == 0;
        let capabilities = Capabilities::from_parts(standard, if mariadb { extended } else { 0 });
        if reader.is_empty() && capabilities.contains(Capabilities::SSL) {
            return Ok(Self::TlsRequest { capabilities });
        }
        LoginRequest::parse(reader, capabilities, max_packet, collation).map(Self::Login)
    }
}

/// A client's handshake response.
#[derive(Debug, Clone)]
pub struct LoginRequest<'a> {
    /// What the client wants to speak; it may say more than it was offered.
    pub capabilities: Capabilities,
    /// The longest packet that the client takes, in bytes.
    pub max_packet: u32,
    /// Collation id.
    pub collation: u8,
    /// User name.
    pub user: &'a [u8],
    /// The answer to the scramble.
    pub auth_response: &'a [u8],
    /// Default schema; `None` when empty.
    pub database: Option<&'a [u8]>,
    /// The plugin that `auth_response` is for; `None` from clients without PLUGIN_AUTH.
    pub plugin: Option<&'a [u8]>,
    /// Connection attributes.
    pub attributes: ConnectAttributes<'a>,
    /// The level at which the client would like to be sent zstd; `None` if it does not say.
    pub zstd_level: Option<u8>,
}

impl<'a> LoginRequest<'a> {
    fn parse(
        mut reader: Reader<'a>,
        capabilities: Capabilities,
        max_packet: u32,
        collation: u8,
    ) -> Result<Self, ProtocolError> {
        const RESPONSE: &str = "auth response";
        let user = reader.nul_bytes("user name")?;
        let auth_response = if capabilities.contains(Capabilities::PLUGIN_AUTH_LENENC_DATA) {
            reader.lenenc_bytes(RESPONSE)?
        } else if capabilities.contains(Capabilities::SECURE_CONNECTION) {
            let len = reader.u8(RESPONSE)?;
            reader.bytes(usize::from(len), RESPONSE)?
        } else {
            reader.nul_bytes_or_rest()
        };
        let database = if capabilities.contains(Capabilities::CONNECT_WITH_DB) {
            Some(reader.nul_bytes_or_rest()).filter(|name| !name.is_empty())
        } else {
            None
        };
        let plugin = capabilities
            .contains(Capabilities::PLUGIN_AUTH)
            .then(|| reader.nul_bytes_or_rest());
        let attributes = if capabilities.contains(Capabilities::CONNECT_ATTRS) {
            ConnectAttributes::parse(&mut reader)?
        } else {
            ConnectAttributes::default()
        };
        let zstd_level = capabilities
            .contains(Capabilities::ZSTD_COMPRESSION)
            .then(|| reader.u8("compression level").ok())
            .flatten();
        Ok(Self {
            capabilities,
            max_packet,
            collation,
            user,
            auth_response,
            database,
            plugin,
            attributes,
            zstd_level,
        })
    }

    /// The part that [`ServerAuth::start`] judges. `scramble` is the greeting's.
    pub fn answer(&self, scramble: Scramble) -> Answer<'a> {
        Answer::new(self.plugin, self.auth_response, scramble)
    }
}

impl<'a> ChangeUser<'a> {
    /// The part that [`ServerAuth::start`] judges. `scramble` is that of the connection's greeting. Some clients answer only when
    /// they are asked.
    pub fn answer(&self, scramble: Scramble) -> Answer<'a> {
        let answer = Answer::new(self.plugin, self.auth_response, scramble);
        Answer {
            waits: answer.switches && answer.response.is_empty(),
            ..answer
        }
    }
}

/// A client's answer to a scramble that it was given before its account was known.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    plugin: AuthPlugin,
    /// The client understands auth switch requests.
    switches: bool,
    /// It may be waiting for one.
    waits: bool,
    response: &'a [u8],
    scramble: Scramble,
}

impl<'a> Answer<'a> {
    fn new(plugin: Option<&[u8]>, response: &'a [u8], scramble: Scramble) -> Self {
        Self {
            plugin: plugin.map_or(AuthPlugin::MysqlNativePassword, AuthPlugin::from_name),
            switches: plugin.is_some(),
            waits: false,
            response,
            scramble,
        }
    }

    /// Whether it is an answer by the rules of `plugin`.
    pub fn is_for(&self, plugin: &AuthPlugin) -> bool {
        self.plugin == *plugin
    }

    /// What it answers.
    pub const fn scramble(&self) -> Scramble {
        self.scramble
    }

    /// Whether it says that there is no password.
    pub const fn is_empty(&self) -> bool {
        matches!(self.response, [] | [0])
    }

    /// What a client replied to an auth switch request for `plugin`: so an earlier reply can be judged again.
    pub const fn to_switch(plugin: AuthPlugin, response: &'a [u8], scramble: Scramble) -> Self {
        Self {
            plugin,
            switches: false,
            waits: false,
            response,
            scramble,
        }
    }
}

/// What is known about an account.
#[derive(Debug, Clone)]
pub enum Credential {
    /// It has no password, and must be used without.
    NoPassword,
    /// Its mysql_native_password hashes, any of which will do.
    Native(Vec<NativeStage2>),
    /// Only the password itself can be checked, by the caller.
    Password {
        /// Digests that earlier logins proved. They may be outdated: a token that fits none leads to full authentication.
        known: Vec<Sha2Stage2>,
    },
    /// Its password.
    Cleartext(SecretBytes),
}

/// What a client proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing was asked for.
    NoPassword,
    /// SHA1(password), verified.
    NativeStage1(NativeStage1),
    /// SHA256(password), verified.
    Sha2Fast(Sha2Stage1),
    /// The password itself.
    Password {
        /// It.
        password: SecretBytes,
        /// Whether it was checked here; if not, only a login to a server can tell.
        verified: bool,
    },
}

/// How an authentication ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The client proved what the credential asks for.
    Proven(Proof),
    /// Access denied (1045).
    Denied {
        /// `using password: YES`
        with_password: bool,
    },
    /// The account's plugin cannot be used with this client or on this channel (1251).
    Unsupported,
}

/// The authentication of one login or COM_CHANGE_USER, before the client's answer.
#[derive(Debug, Clone)]
pub struct ServerAuth {
    /// The account's plugin, or the one by which its password shall be obtained: caching_sha2_password, sha256_password and, on a
    /// secure channel, mysql_clear_password ask for the password itself where the credential cannot verify a token.
    pub plugin: AuthPlugin,
    /// What is known about the account.
    pub credential: Credential,
    /// How the client is connected.
    pub channel: Channel,
    /// The RSA key for full authentication on a plain channel, as PEM; without it such clients are denied.
    pub public_key: Option<Arc<[u8]>>,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send the payload; the client's next payload goes to `next`.
    Send {
        /// To send.
        payload: Vec<u8>,
        /// Takes the client's reply.
        next: AwaitReply,
    },
    /// Decrypt with the key that `public_key` belongs to (RSA-OAEP with SHA1); the result goes to `next`.
    Decrypt {
        /// The client's ciphertext.
        ciphertext: Vec<u8>,
        /// Takes the plaintext.
        next: AwaitPlaintext,
    },
    /// The authentication is over.
    Finished {
        /// To send in front of the OK (or of the ERR, if the login fails for another reason yet).
        payload: Option<Vec<u8>>,
        /// How it ended.
        outcome: Outcome,
    },
}

/// The client's reply is awaited.
#[derive(Debug)]
pub struct AwaitReply {
    auth: ServerAuth,
    scramble: Scramble,
    awaited: Awaited,
}

#[derive(Debug)]
enum Awaited {
    /// The answer to an auth switch request.
    Answer,
    /// The password, or the request for the key.
    Password,
    /// The password, encrypted.
    Ciphertext,
}

/// The caller is decrypting.
#[derive(Debug)]
pub struct AwaitPlaintext {
    auth: ServerAuth,
    scramble: Scramble,
}

impl ServerAuth {
    /// Judges the client's first answer. `switch` is the scramble for an auth switch request: the greeting's, as long as clients do
    /// not agree on which of two a COM_CHANGE_USER answers.
    pub fn start(self, answer: Answer<'_>, switch: Scramble) -> Step {
        let usable = match self.plugin {
            AuthPlugin::MysqlNativePassword
            | AuthPlugin::CachingSha2Password
            | AuthPlugin::Sha256Password => true,
            AuthPlugin::MysqlClearPassword => self.channel == Channel::Secure,
            // A signature would not give away what logs in to servers.
            AuthPlugin::Ed25519 | AuthPlugin::Parsec => false,
            AuthPlugin::Dialog | AuthPlugin::Other(_) => false,
        };
        if !usable {
            return finished(Outcome::Unsupported);
        }
        let waits = answer.waits && !matches!(self.credential, Credential::NoPassword);
        if answer.plugin == self.plugin && !waits {
            return self.judge(answer.response, answer.scramble);
        }
        if !answer.switches {
            return finished(Outcome::Unsupported);
        }
        let mut payload = vec![AUTH_SWITCH];
        payload.extend(self.plugin.name().bytes());
        payload.push(0);
        payload.extend(switch.as_bytes());
        payload.push(0);
        Step::Send {
            payload,
            next: AwaitReply {
                auth: self,
                scramble: switch,
                awaited: Awaited::Answer,
            },
        }
    }

    fn judge(self, response: &[u8], scramble: Scramble) -> Step {
        match self.plugin {
            AuthPlugin::CachingSha2Password => self.judge_sha2(response, scramble),
            AuthPlugin::MysqlClearPassword => finished(self.judge_password(without_nul(response))),
            AuthPlugin::Sha256Password => self.judge_sha256(response, scramble),
            _ => finished(self.judge_native(response, scramble)),
        }
    }

    fn judge_native(&self, response: &[u8], scramble: Scramble) -> Outcome {
        let Some(token) = token(response) else {
            return self.judge_nothing(response);
        };
        let stored = match &self.credential {
            Credential::Native(stored) => stored.clone(),
            Credential::Cleartext(password) if !password.is_empty() => {
                vec![NativeStage1::of(password).stage2()]
            }
            // The same work whether or not there is such an account.
            _ => {
                let _ = native_verify(&NativeStage2::new([0; 20]), &scramble, token);
                Vec::new()
            }
        };
        let proven = stored
            .iter()
            .find_map(|stored| native_verify(stored, &scramble, token));
        proven.map_or(DENIED, |stage1| {
            Outcome::Proven(Proof::NativeStage1(stage1))
        })
    }

    fn judge_sha2(self, response: &[u8], scramble: Scramble) -> Step {
        let Some(token) = token(response) else {
            return finished(self.judge_nothing(response));
        };
        let known = match &self.credential {
            Credential::Password { known } => known.clone(),
            Credential::Cleartext(password) => vec![Sha2Stage1::of(password).stage2()],
            // Servers ask for the whole password before they deny, and so nobody learns which accounts there are.
            Credential::NoPassword | Credential::Native(_) => Vec::new(),
        };
        let proven = known
            .iter()
            .find_map(|known| sha2_verify(known, &scramble, token));
        match proven {
            Some(stage1) => Step::Finished {
                payload: Some(vec![AUTH_MORE_DATA, FAST_AUTH_SUCCESS]),
                outcome: Outcome::Proven(Proof::Sha2Fast(stage1)),
            },
            None => Step::Send {
                payload: vec![AUTH_MORE_DATA, FULL_AUTHENTICATION],
                next: AwaitReply {
                    auth: self,
                    scramble,
                    awaited: Awaited::Password,
                },
            },
        }
    }

    /// sha256_password: the password itself, the request for the key, or what was encrypted for a key known from before.
    fn judge_sha256(self, response: &[u8], scramble: Scramble) -> Step {
        match (response, self.channel) {
            ([] | [0], _) => finished(self.judge_nothing(response)),
            (_, Channel::Secure) => finished(self.judge_password(without_nul(response))),
            ([SHA256_KEY_REQUEST], Channel::Plain) => self.send_key(scramble),
            (_, Channel::Plain) => self.decrypt(response, scramble),
        }
    }

    /// The key, which the client has asked for.
    fn send_key(self, scramble: Scramble) -> Step {
        let Some(key) = &self.public_key else {
            return finished(DENIED);
        };
        let mut payload = vec![AUTH_MORE_DATA];
        payload.extend(key.iter());
        Step::Send {
            payload,
            next: AwaitReply {
                auth: self,
                scramble,
                awaited: Awaited::Ciphertext,
            },
        }
    }

    fn decrypt(self, ciphertext: &[u8], scramble: Scramble) -> Step {
        if ciphertext.len() > MAX_CIPHERTEXT {
            return finished(DENIED);
        }
        Step::Decrypt {
            ciphertext: ciphertext.to_vec(),
            next: AwaitPlaintext {
                auth: self,
                scramble,
            },
        }
    }

    fn judge_password(&self, password: &[u8]) -> Outcome {
        if password.is_empty() {
            return self.judge_nothing(password);
        }
        let verified = match &self.credential {
            Credential::NoPassword => return DENIED,
            Credential::Native(stored) => {
                Some(stored.contains(&NativeStage1::of(password).stage2()))
            }
            Credential::Cleartext(expected) => Some(*expected == SecretBytes::from(password)),
            // A digest that does not fit may be that of an older password.
            Credential::Password { known } => known
                .contains(&Sha2Stage1::of(password).stage2())
                .then_some(true),
        };
        if verified == Some(false) {
            return DENIED;
        }
        Outcome::Proven(Proof::Password {
            password: password.into(),
            verified: verified.is_some(),
        })
    }

    /// The response is no token. None at all is a login without password; so is the single NUL of some clients.
    fn judge_nothing(&self, response: &[u8]) -> Outcome {
        let with_password = !matches!(response, [] | [0]);
        match &self.credential {
            Credential::NoPassword if !with_password => Outcome::Proven(Proof::NoPassword),
            Credential::Cleartext(password) if password.is_empty() && !with_password => {
                Outcome::Proven(Proof::NoPassword)
            }
            _ => Outcome::Denied { with_password },
        }
    }
}

impl AwaitReply {
    /// Judges the client's reply.
    pub fn handle(self, payload: &[u8]) -> Step {
        let Self {
            auth,
            scramble,
            awaited,
        } = self;
        match awaited {
            Awaited::Answer => auth.judge(payload, scramble),
            // A password would end with NUL, so a key request cannot be mistaken for one.
            Awaited::Password if *payload == [PUBLIC_KEY_REQUEST] => auth.send_key(scramble),
            Awaited::Password if auth.channel == Channel::Secure => {
                finished(auth.judge_password(without_nul(payload)))
            }
            // Who knows the key from before does not ask for it.
            Awaited::Password | Awaited::Ciphertext => auth.decrypt(payload, scramble),
        }
    }
}

impl AwaitPlaintext {
    /// Takes the plaintext, or `None` if the ciphertext could not be decrypted.
    pub fn handle(self, plaintext: Option<&[u8]>) -> Step {
        finished(match plaintext {
            Some(masked) => self
                .auth
                .judge_password(without_nul(&rsa_mask(masked, &self.scramble))),
            None => DENIED,
        })
    }
}

const DENIED: Outcome = Outcome::Denied {
    with_password: true,
};

const fn finished(outcome: Outcome) -> Step {
    Step::Finished {
        payload: None,
        outcome,
    }
}

/// The token in a response, behind which some clients leave a NUL.
fn token<const N: usize>(response: &[u8]) -> Option<&[u8; N]> {
    match response.split_first_chunk() {
        Some((token, [] | [0])) => Some(token),
        _ => None,
    }
}

fn without_nul(password: &[u8]) -> &[u8] {
    password.strip_suffix(&[0]).unwrap_or(password)
}
