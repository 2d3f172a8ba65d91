//! The client's side of a login: read the greeting, answer, follow the server's wishes.
//!
//! Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::auth::{AuthPlugin, Channel, Scramble, SecretBytes, Secrets, rsa_mask};
use super::curve::{CHALLENGE, Derivation, ed25519_answer};
use super::{
    AUTH_MORE_DATA, AUTH_NEXT_FACTOR, AUTH_SWITCH, FAST_AUTH_SUCCESS, FULL_AUTHENTICATION,
    PUBLIC_KEY_REQUEST, SHA256_KEY_REQUEST, pem,
};
use crate::codec::{Reader, put_lenenc_bytes, put_nul_bytes};
use crate::reply::{self, ErrPacket, OkPacket};
use crate::{Capabilities, ProtocolError, StatusFlags};

/// First byte of dialog's question for a password, and of such a one that is the last.
const DIALOG_PASSWORD: u8 = 4;
const DIALOG_LAST_PASSWORD: u8 = 5;

/// More auth switch requests than this in one login are no login any more.
const MAX_SWITCHES: u8 = 4;

/// Why a login failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginError {
    /// The server says no, be it in place of its greeting (too many connections, host not allowed) or later.
    Refused {
        /// Error number.
        code: u16,
        /// SQLSTATE.
        sqlstate: [u8; 5],
        /// The server's text.
        message: String,
    },
    /// The server wants more than the digests that are known: the password itself, or another plugin's digest.
    NeedPassword,
    /// The server wants a plugin that is not spoken here, or the password in clear on a plain channel.
    UnsupportedPlugin(AuthPlugin),
    /// The account has more than one factor, and only the first is known.
    MultiFactor,
    /// The server broke the protocol.
    Protocol(ProtocolError),
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message, .. } => {
                write!(f, "the server answers: {message} ({code})")
            }
            Self::NeedPassword => f.write_str("the server asks for the password itself"),
            Self::UnsupportedPlugin(plugin) => {
                write!(
                    f,
                    "the server asks for authentication plugin {plugin}, which is not supported here, or only with TLS"
                )
            }
            Self::MultiFactor => f.write_str(
                "the server asks for a second factor: multi-factor authentication is not supported here",
            ),
            Self::Protocol(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoginError {}

impl From<ProtocolError> for LoginError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl LoginError {
    /// From an ERR packet's payload.
    fn refused(payload: &[u8]) -> Self {
        match ErrPacket::parse(payload) {
            Err(error) => Self::Protocol(error),
            Ok(ErrPacket {
                code,
                sqlstate,
                message,
            }) => Self::Refused {
                code,
                sqlstate,
                message: String::from_utf8_lossy(message).into_owned(),
            },
        }
    }
}

/// A server's greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerGreeting {
    /// Server version, without the `5.5.5-` that MariaDB puts in front of its own.
    pub version: String,
    /// Connection id.
    pub connection_id: u32,
    /// What tokens answer to.
    pub scramble: Scramble,
    /// What the server offers, MariaDB's extended capabilities included.
    pub capabilities: Capabilities,
    /// Default collation's low byte.
    pub collation: u8,
    /// Status flags.
    pub status: StatusFlags,
    /// The plugin to try first.
    pub plugin: AuthPlugin,
}

impl ServerGreeting {
    /// Reads a server's first payload.
    ///
    /// # Errors
    /// [`LoginError::Refused`] if it is an ERR packet; such a one has no SQLSTATE, so it says HY000.
    pub fn parse(payload: &[u8]) -> Result<Self, LoginError> {
        let mut reader = Reader::new(payload);
        match reader.u8("greeting")? {
            10 => {}
            reply::ERR => return Err(LoginError::refused(payload)),
            _ => return Err(ProtocolError::Unsupported("protocol versions other than 10").into()),
        }
        let version = String::from_utf8_lossy(reader.nul_bytes("server version")?).into_owned();
        let connection_id = reader.u32("connection id")?;
        let first = reader.bytes(8, "scramble")?;
        reader.u8("filler")?;
        let low = reader.u16("capabilities")?;
        let collation = reader.u8("collation")?;
        let status = StatusFlags::from_bits_retain(reader.u16("status flags")?);
        let high = reader.u16("capabilities")?;
        let scramble_len = reader.u8("scramble length")?;
        reader.bytes(6, "filler")?;
        let extended = reader.u32("extended capabilities")?;
        let standard = u32::from(low) | u32::from(high) << 16;
        let mariadb = standard & Capabilities::LONG_PASSWORD.standard() == 0;
        let capabilities = Capabilities::from_parts(standard, if mariadb { extended } else { 0 });
        if !capabilities.contains(Capabilities::PROTOCOL_41.union(Capabilities::SECURE_CONNECTION))
        {
            return Err(ProtocolError::Unsupported("servers older than 4.1").into());
        }
        let second = reader.bytes(
            usize::from(scramble_len).saturating_sub(8).max(13),
            "scramble",
        )?;
        let scramble = Scramble::from_wire(&[first, second].concat())
            .ok_or(ProtocolError::Malformed("scramble"))?;
        let plugin = if capabilities.contains(Capabilities::PLUGIN_AUTH) {
            AuthPlugin::from_name(reader.nul_bytes_or_rest())
        } else {
            AuthPlugin::MysqlNativePassword
        };
        Ok(Self {
            version: match version.strip_prefix("5.5.5-") {
                Some(own) if own.contains("MariaDB") => own.to_owned(),
                _ => version,
            },
            connection_id,
            scramble,
            capabilities,
            collation,
            status,
            plugin,
        })
    }
}

/// Who logs in, and how.
#[derive(Debug, Clone)]
pub struct Login {
    /// User name.
    pub user: Vec<u8>,
    /// Default schema.
    pub database: Option<Vec<u8>>,
    /// Collation id; those above 255 cannot be asked for here.
    pub collation: u8,
    /// What is wanted; what the server does not offer is left out, what a login needs is added.
    pub capabilities: Capabilities,
    /// The longest packet that is taken from the server, in bytes.
    pub max_packet: u32,
    /// Connection attributes, sent with [`Capabilities::CONNECT_ATTRS`].
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// What is known about the account.
    pub secrets: Secrets,
    /// How the server is connected.
    pub channel: Channel,
    /// The level at which the server compresses, sent with [`Capabilities::ZSTD_COMPRESSION`].
    pub zstd_level: u8,
    /// Random bytes, which parsec signs together with the server's.
    pub nonce: [u8; 32],
    /// TLS is, or is about to be, in between: the server is told so.
    pub tls: bool,
}

impl Login {
    /// A login without schema, attributes and secrets, in utf8mb4_general_ci.
    pub fn new(user: impl Into<Vec<u8>>, capabilities: Capabilities, channel: Channel) -> Self {
        Self {
            user: user.into(),
            database: None,
            collation: 45,
            capabilities,
            max_packet: 1 << 30,
            attributes: Vec::new(),
            secrets: Secrets::default(),
            channel,
            zstd_level: 3,
            nonce: [0; 32],
            tls: false,
        }
    }

    /// The packet that asks a server for TLS if it offers that: the login follows when both sides have agreed.
    pub fn tls_request(&self, greeting: &ServerGreeting) -> Option<Vec<u8>> {
        if !self.tls || !greeting.capabilities.contains(Capabilities::SSL) {
            return None;
        }
        let mut out = BytesMut::with_capacity(32);
        self.put_start(self.in_force(greeting), &mut out);
        Some(out.to_vec())
    }

    /// Answers a greeting. The first step is always [`Step::Send`].
    ///
    /// # Errors
    /// [`LoginError::NeedPassword`] if the server cannot even be offered another plugin.
    pub fn start(self, greeting: &ServerGreeting) -> Result<Step, LoginError> {
        let capabilities = self.in_force(greeting);
        let plugin = self.first_plugin(greeting);
        let response = answer(&plugin, &greeting.scramble, &self.secrets, self.channel)?;
        let payload = self.payload(capabilities, &plugin, &response);
        let next = ClientLogin {
            capabilities,
            secrets: self.secrets,
            channel: self.channel,
            nonce: self.nonce,
            plugin,
            scramble: greeting.scramble,
            awaited: Awaited::Verdict,
            declined: None,
            switches: 0,
        };
        Ok(Step::Send { payload, next })
    }

    fn in_force(&self, greeting: &ServerGreeting) -> Capabilities {
        let needed = Capabilities::PROTOCOL_41
            | Capabilities::SECURE_CONNECTION
            | Capabilities::PLUGIN_AUTH
            | Capabilities::PLUGIN_AUTH_LENENC_DATA;
        // Not spoken here, whatever the caller would like.
        let never = Capabilities::MULTI_FACTOR_AUTHENTICATION;
        let mut wanted = (self.capabilities | needed).difference(never);
        wanted.set(Capabilities::CONNECT_WITH_DB, self.database.is_some());
        wanted.set(Capabilities::CONNECT_ATTRS, !self.attributes.is_empty());
        wanted.set(Capabilities::SSL, self.tls);
        wanted & greeting.capabilities
    }

    /// The greeting's plugin if it can be answered, else one for which enough is known: the server switches if it has to, and a
    /// right guess saves that round trip.
    fn first_plugin(&self, greeting: &ServerGreeting) -> AuthPlugin {
        let Secrets {
            native_stage1,
            sha2_stage1,
            ..
        } = &self.secrets;
        let named = greeting.capabilities.contains(Capabilities::PLUGIN_AUTH);
        match &greeting.plugin {
            AuthPlugin::MysqlNativePassword
                if self.secrets.is_empty() || self.secrets.native().is_some() =>
            {
                AuthPlugin::MysqlNativePassword
            }
            AuthPlugin::CachingSha2Password
                if self.secrets.is_empty() || self.secrets.sha2().is_some() =>
            {
                AuthPlugin::CachingSha2Password
            }
            _ if named && native_stage1.is_none() && sha2_stage1.is_some() => {
                AuthPlugin::CachingSha2Password
            }
            _ => AuthPlugin::MysqlNativePassword,
        }
    }

    /// What a login and a request for TLS begin with.
    fn put_start(&self, capabilities: Capabilities, out: &mut BytesMut) {
        out.put_u32_le(capabilities.standard());
        out.put_u32_le(self.max_packet);
        out.put_u8(self.collation);
        out.put_bytes(0, 19);
        out.put_u32_le(capabilities.extended());
    }

    fn payload(
        &self,
        capabilities: Capabilities,
        plugin: &AuthPlugin,
        response: &[u8],
    ) -> SecretBytes {
        let mut out = BytesMut::with_capacity(256 + self.user.len() + response.len());
        self.put_start(capabilities, &mut out);
        put_nul_bytes(&mut out, &self.user);
        if capabilities.contains(Capabilities::PLUGIN_AUTH_LENENC_DATA) {
            put_lenenc_bytes(&mut out, response);
        } else {
            // Tokens have at most 32 bytes.
            out.put_u8(response.len() as u8);
            out.put_slice(response);
        }
        if let Some(database) = self
            .database
            .as_ref()
            .filter(|_| capabilities.contains(Capabilities::CONNECT_WITH_DB))
        {
            put_nul_bytes(&mut out, database);
        }
        if capabilities.contains(Capabilities::PLUGIN_AUTH) {
            put_nul_bytes(&mut out, plugin.name().as_bytes());
        }
        if capabilities.contains(Capabilities::CONNECT_ATTRS) {
            let mut block = BytesMut::new();
            for (name, value) in &self.attributes {
                put_lenenc_bytes(&mut block, name);
                put_lenenc_bytes(&mut block, value);
            }
            put_lenenc_bytes(&mut out, &block);
        }
        if capabilities.contains(Capabilities::ZSTD_COMPRESSION) {
            out.put_u8(self.zstd_level);
        }
        SecretBytes::new(out.to_vec())
    }
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send the payload; the server's next payload goes to `next`.
    Send {
        /// To send.
        payload: SecretBytes,
        /// Takes the server's reply.
        next: ClientLogin,
    },
    /// Nothing to send; the server's next payload goes to `next`.
    Receive(ClientLogin),
    /// Encrypt `message` for `key` (RSA-OAEP with SHA1); the result goes to `next`.
    Encrypt {
        /// The server's key, a SubjectPublicKeyInfo (DER).
        key: Vec<u8>,
        /// To encrypt.
        message: SecretBytes,
        /// Takes the ciphertext.
        next: AwaitCiphertext,
    },
    /// Logged in.
    Done(LoggedIn),
}

/// What the server said at the end of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// What is in force on the connection.
    pub capabilities: Capabilities,
    /// Status flags.
    pub status: StatusFlags,
    /// Number of warnings.
    pub warnings: u16,
    /// The session state block, for [`Changes::new`](crate::track::Changes::new): MariaDB tells its variables here.
    pub session_state: Vec<u8>,
}

/// A login under way: the server's reply is awaited.
#[derive(Debug)]
pub struct ClientLogin {
    capabilities: Capabilities,
    secrets: Secrets,
    channel: Channel,
    nonce: [u8; CHALLENGE],
    plugin: AuthPlugin,
    scramble: Scramble,
    awaited: Awaited,
    /// Why the server's last wish was not fulfilled, should it insist.
    declined: Option<LoginError>,
    switches: u8,
}

/// What a plugin's next data will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// Its verdict, if anything.
    Verdict,
    /// The RSA key that was asked for.
    Key,
    /// How parsec's key is made, and to what challenge.
    Derivation([u8; CHALLENGE]),
}

/// The caller is encrypting.
#[derive(Debug)]
pub struct AwaitCiphertext(ClientLogin);

impl ClientLogin {
    /// Judges the server's reply.
    ///
    /// # Errors
    /// The login failed; see [`LoginError`]. The connection is of no further use.
    pub fn handle(self, payload: &[u8]) -> Result<Step, LoginError> {
        let mut reader = Reader::new(payload);
        match reader.u8("reply to the login")? {
            reply::OK => {
                let ok = OkPacket::parse(payload, self.capabilities)?;
                Ok(Step::Done(LoggedIn {
                    capabilities: self.capabilities,
                    status: ok.status,
                    warnings: ok.warnings,
                    session_state: ok.session_state.to_vec(),
                }))
            }
            AUTH_SWITCH => self.switch(reader),
            // Whatever the server makes of the empty answer to what cannot be answered.
            _ if let Some(declined) = self.declined => Err(declined),
            reply::ERR => Err(LoginError::refused(payload)),
            AUTH_NEXT_FACTOR => Err(LoginError::MultiFactor),
            // Another question, such as for a one-time password.
            _ if self.plugin == AuthPlugin::Dialog => Err(LoginError::MultiFactor),
            AUTH_MORE_DATA => self.more_data(reader.rest()),
            _ if matches!(self.awaited, Awaited::Derivation(_)) => self.more_data(payload),
            _ => Err(ProtocolError::Malformed("reply to the login").into()),
        }
    }

    fn switch(mut self, mut reader: Reader<'_>) -> Result<Step, LoginError> {
        if reader.is_empty() {
            return Err(LoginError::UnsupportedPlugin(AuthPlugin::Other(
                "mysql_old_password".to_owned(),
            )));
        }
        self.switches += 1;
        if self.switches > MAX_SWITCHES {
            return Err(ProtocolError::Malformed("number of auth switch requests").into());
        }
        self.plugin = AuthPlugin::from_name(reader.nul_bytes_or_rest());
        self.awaited = Awaited::Verdict;
        let payload = match self.answer_switch(reader.rest()) {
            Ok(payload) => {
                self.declined = None;
                payload
            }
            Err(error @ LoginError::Protocol(_)) => return Err(error),
            // An account may have further methods: the server goes on to the next.
            Err(error) => {
                self.declined = Some(error);
                SecretBytes::default()
            }
        };
        Ok(Step::Send {
            payload,
            next: self,
        })
    }

    fn answer_switch(&mut self, data: &[u8]) -> Result<SecretBytes, LoginError> {
        const BAD: LoginError = LoginError::Protocol(ProtocolError::Malformed("scramble"));
        match self.plugin {
            AuthPlugin::Ed25519 | AuthPlugin::Parsec => {
                let Some((challenge, [] | [0])) = data.split_first_chunk::<CHALLENGE>() else {
                    return Err(BAD);
                };
                let password = match self.secrets.password() {
                    Some(password) => password,
                    None if self.secrets.is_empty() => &SecretBytes::default(),
                    None => return Err(LoginError::NeedPassword),
                };
                if self.plugin == AuthPlugin::Parsec {
                    self.awaited = Awaited::Derivation(*challenge);
                    return Ok(SecretBytes::default());
                }
                return Ok(SecretBytes::from(&ed25519_answer(challenge, password)[..]));
            }
            // Without a question it waits for the password. What else it asks for stands in a text for people.
            AuthPlugin::Dialog
                if !matches!(
                    data,
                    [] | [0] | [DIALOG_PASSWORD | DIALOG_LAST_PASSWORD, ..]
                ) =>
            {
                return Err(LoginError::UnsupportedPlugin(AuthPlugin::Dialog));
            }
            AuthPlugin::Dialog => {}
            // They need no scramble, or none is known of them.
            AuthPlugin::MysqlClearPassword | AuthPlugin::Other(_) => {}
            AuthPlugin::MysqlNativePassword
            | AuthPlugin::CachingSha2Password
            | AuthPlugin::Sha256Password => {
                self.scramble = Scramble::from_wire(data).ok_or(BAD)?;
            }
        }
        let (secrets, channel) = (&self.secrets, self.channel);
        let asks = self.plugin == AuthPlugin::Sha256Password && channel == Channel::Plain;
        if asks && secrets.password().is_some() {
            self.awaited = Awaited::Key;
        }
        answer(&self.plugin, &self.scramble, secrets, channel)
    }

    fn more_data(mut self, data: &[u8]) -> Result<Step, LoginError> {
        const BAD: LoginError =
            LoginError::Protocol(ProtocolError::Malformed("authentication data"));
        let awaited = std::mem::replace(&mut self.awaited, Awaited::Verdict);
        match (awaited, data) {
            (Awaited::Key, key) => {
                let password = self.secrets.password().ok_or(LoginError::NeedPassword)?;
                let key = pem::decode(key)?;
                let message = rsa_mask(&with_nul(password), &self.scramble);
                Ok(Step::Encrypt {
                    key,
                    message,
                    next: AwaitCiphertext(self),
                })
            }
            (Awaited::Derivation(challenge), data) => {
                let derivation = Derivation::from_wire(data).ok_or(BAD)?;
                let password = self.secrets.password().map_or(&[][..], |password| password);
                let payload = derivation.answer(&challenge, &self.nonce, password);
                Ok(Step::Send {
                    payload: SecretBytes::new(payload),
                    next: self,
                })
            }
            (Awaited::Verdict, _) if self.plugin != AuthPlugin::CachingSha2Password => Err(BAD),
            (Awaited::Verdict, [FAST_AUTH_SUCCESS]) => Ok(Step::Receive(self)),
            (Awaited::Verdict, [FULL_AUTHENTICATION]) => {
                let password = self.secrets.password().ok_or(LoginError::NeedPassword)?;
                let payload = match self.channel {
                    Channel::Secure => with_nul(password),
                    Channel::Plain => {
                        self.awaited = Awaited::Key;
                        SecretBytes::new(vec![PUBLIC_KEY_REQUEST])
                    }
                };
                Ok(Step::Send {
                    payload,
                    next: self,
                })
            }
            _ => Err(BAD),
        }
    }
}

impl AwaitCiphertext {
    /// Takes the ciphertext and sends it.
    pub fn handle(self, ciphertext: &[u8]) -> Step {
        Step::Send {
            payload: ciphertext.into(),
            next: self.0,
        }
    }
}

/// The answer to a scramble by the rules of a plugin.
fn answer(
    plugin: &AuthPlugin,
    scramble: &Scramble,
    secrets: &Secrets,
    channel: Channel,
) -> Result<SecretBytes, LoginError> {
    match plugin {
        AuthPlugin::MysqlNativePassword | AuthPlugin::CachingSha2Password if secrets.is_empty() => {
            Ok(SecretBytes::default())
        }
        AuthPlugin::MysqlNativePassword => {
            let stage1 = secrets.native().ok_or(LoginError::NeedPassword)?;
            Ok(SecretBytes::from(&stage1.token(scramble)[..]))
        }
        AuthPlugin::CachingSha2Password => {
            let stage1 = secrets.sha2().ok_or(LoginError::NeedPassword)?;
            Ok(SecretBytes::from(&stage1.token(scramble)[..]))
        }
        AuthPlugin::Sha256Password if secrets.is_empty() => Ok(SecretBytes::new(vec![0])),
        AuthPlugin::Sha256Password if channel == Channel::Plain && secrets.password().is_some() => {
            Ok(SecretBytes::new(vec![SHA256_KEY_REQUEST]))
        }
        AuthPlugin::MysqlClearPassword | AuthPlugin::Dialog if channel == Channel::Plain => {
            Err(LoginError::UnsupportedPlugin(plugin.clone()))
        }
        AuthPlugin::MysqlClearPassword | AuthPlugin::Dialog | AuthPlugin::Sha256Password => {
            match secrets.password() {
                Some(password) => Ok(with_nul(password)),
                None if secrets.is_empty() => Ok(SecretBytes::new(vec![0])),
                None => Err(LoginError::NeedPassword),
            }
        }
        other => Err(LoginError::UnsupportedPlugin(other.clone())),
    }
}

fn with_nul(password: &[u8]) -> SecretBytes {
    SecretBytes::new([password, &[0]].concat())
}
