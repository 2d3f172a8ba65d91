//! Logging in, from both sides, as typed state machines.
//!
//! [`server`] is for whoever accepts clients, [`client`] for whoever connects to servers, [`auth`] is the arithmetic of the
//! authentication plugins. The machines take a payload and answer with a step; each step owns the machine's next state, so that
//! nothing can be done twice or out of turn. Framing and sequence ids are the caller's: every packet, in either direction, takes the
//! next id, beginning with 0 for the greeting (or with the COM_CHANGE_USER that starts over). RSA is the caller's as well, as it
//! takes time or a random source.
//!
//! Source: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>.
//!
//! Both sides against each other, by the password's hash on one side and by what that side learned on the other:
//!
//! ```
//! use dbproxy_proto::Capabilities;
//! use dbproxy_proto::handshake::auth::{AuthPlugin, Channel, NativeStage1, Scramble, Secrets};
//! use dbproxy_proto::handshake::client::{self, Login, ServerGreeting};
//! use dbproxy_proto::handshake::server::{self, Credential, FirstPacket, Greeting, Outcome, Proof, ServerAuth};
//!
//! let scramble = Scramble::from_random([7; 20]);
//! let caps = Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION | Capabilities::PLUGIN_AUTH;
//! let greeting = Greeting {
//!     version: "8.4.8",
//!     connection_id: 1,
//!     scramble,
//!     capabilities: caps,
//!     collation: 255,
//!     status: Default::default(),
//!     plugin: AuthPlugin::CachingSha2Password,
//! };
//!
//! // The client knows SHA1(password) only, and picks the plugin for which that is enough.
//! let seen = ServerGreeting::parse(&greeting.payload())?;
//! let login = Login {
//!     secrets: Secrets { native_stage1: Some(NativeStage1::of(b"secret")), ..Secrets::default() },
//!     ..Login::new("ann", caps, Channel::Plain)
//! };
//! let client::Step::Send { payload, .. } = login.start(&seen)? else { panic!() };
//!
//! // The server knows the stored hash, SHA1(SHA1(password)).
//! let FirstPacket::Login(request) = FirstPacket::parse(&payload)? else { panic!() };
//! assert_eq!(request.user, b"ann");
//! let stored = NativeStage1::of(b"secret").stage2();
//! let auth = ServerAuth {
//!     plugin: AuthPlugin::MysqlNativePassword,
//!     credential: Credential::Native(vec![stored]),
//!     channel: Channel::Plain,
//!     public_key: None,
//! };
//! let server::Step::Finished { payload: None, outcome } = auth.start(request.answer(scramble), scramble) else { panic!() };
//!
//! // What the client proved is enough to log in to another server as the same user.
//! assert!(matches!(outcome, Outcome::Proven(Proof::NativeStage1(stage1)) if stage1 == NativeStage1::of(b"secret")));
//! # Ok::<(), client::LoginError>(())
//! ```

pub mod auth;
pub mod client;
mod crypt;
mod curve;
pub mod pem;
pub mod server;
pub mod stored;
pub mod voucher;

/// First byte of an auth switch request.
const AUTH_SWITCH: u8 = 0xFE;
/// First byte of a request for a further factor.
const AUTH_NEXT_FACTOR: u8 = 0x02;
/// First byte of a packet with more data for the plugin.
const AUTH_MORE_DATA: u8 = 0x01;
/// caching_sha2_password: the token was right.
const FAST_AUTH_SUCCESS: u8 = 0x03;
/// caching_sha2_password: send the password itself.
const FULL_AUTHENTICATION: u8 = 0x04;
/// caching_sha2_password: the client asks for the RSA key.
const PUBLIC_KEY_REQUEST: u8 = 0x02;
/// sha256_password: the client asks for the RSA key.
const SHA256_KEY_REQUEST: u8 = 0x01;
