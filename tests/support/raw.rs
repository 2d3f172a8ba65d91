//! A client that speaks the protocol byte by byte, for what no driver does.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use dbproxy_proto::handshake::auth::{AuthPlugin, Channel, Scramble};
use dbproxy_proto::handshake::client::{Login, ServerGreeting, Step};
use dbproxy_proto::{Capabilities, StatusFlags};
use mysql_common::crypto;
use mysql_common::scramble::{scramble_native, scramble_sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::tls::unverifying;

/// Capability flags of the handshake response.
pub mod capability {
    pub const FOUND_ROWS: u32 = 1 << 1;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const COMPRESS: u32 = 1 << 5;
    pub const LOCAL_FILES: u32 = 1 << 7;
    pub const IGNORE_SPACE: u32 = 1 << 8;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const TLS: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const MULTI_STATEMENTS: u32 = 1 << 16;
    pub const MULTI_RESULTS: u32 = 1 << 17;
    pub const PS_MULTI_RESULTS: u32 = 1 << 18;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const CONNECT_ATTRS: u32 = 1 << 20;
    pub const CAN_HANDLE_EXPIRED_PASSWORDS: u32 = 1 << 22;
    pub const SESSION_TRACK: u32 = 1 << 23;
    pub const DEPRECATE_EOF: u32 = 1 << 24;
    pub const OPTIONAL_RESULTSET_METADATA: u32 = 1 << 25;
    pub const ZSTD_COMPRESSION: u32 = 1 << 26;
    pub const QUERY_ATTRIBUTES: u32 = 1 << 27;

    /// MariaDB's extended flags.
    pub const PROGRESS: u32 = 1;
    pub const BULK: u32 = 1 << 2;
    pub const EXTENDED_METADATA: u32 = 1 << 3;
    pub const CACHE_METADATA: u32 = 1 << 4;

    /// What PHP's driver asks for.
    pub const USUAL: u32 = PROTOCOL_41
        | TRANSACTIONS
        | SECURE_CONNECTION
        | MULTI_STATEMENTS
        | MULTI_RESULTS
        | PS_MULTI_RESULTS
        | PLUGIN_AUTH
        | LOCAL_FILES
        | (1 << 0)
        | (1 << 2);
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An error packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub code: u16,
    pub state: String,
    pub message: String,
}

impl Refused {
    /// Reads the payload of an error packet.
    pub fn parse(payload: &[u8]) -> Self {
        let code = u16::from_le_bytes([payload[1], payload[2]]);
        let (state, message) = match payload.get(3) {
            Some(b'#') => (&payload[4..9], &payload[9..]),
            _ => (&payload[..0], &payload[3..]),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code,
            state: text(state),
            message: text(message),
        }
    }
}

/// What the server says first.
#[derive(Debug, Clone, Default)]
pub struct Greeting {
    pub version: String,
    pub connection: u32,
    pub capabilities: u32,
    /// MariaDB's extended ones.
    pub extended: u32,
    pub charset: u8,
    pub status: u16,
    pub plugin: String,
    pub scramble: Vec<u8>,
}

/// One connection.
pub struct Raw {
    stream: Box<dyn Stream>,
    secure: bool,
    sequence: u8,
    pub greeting: Greeting,
    pub capabilities: u32,
    /// What a login asks for.
    pub collation: u8,
    /// MariaDB's extended flags that a login asks for, by leaving out the first of the ordinary ones.
    pub extended: u32,
    /// Whether it answers COM_CHANGE_USER to the scramble that it was given last, as MariaDB's library does, or always to
    /// the greeting's.
    pub keeps_scramble: bool,
    /// What it calls itself.
    pub program: Option<&'static str>,
    /// What the last answer to a login said besides OK.
    pub info: String,
}

impl Raw {
    /// Connects over TCP and reads the greeting, or the error in its place.
    pub async fn tcp(port: u16) -> Result<Self, Refused> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self::greeted(Box::new(stream), false).await
    }

    /// Connects to a unix socket and reads the greeting.
    pub async fn unix(path: &Path) -> Result<Self, Refused> {
        let stream = UnixStream::connect(path).await.unwrap();
        Self::greeted(Box::new(stream), true).await
    }

    /// Uses a TCP connection made by the caller.
    pub async fn over(stream: TcpStream) -> Result<Self, Refused> {
        Self::greeted(Box::new(stream), false).await
    }

    /// Connects and logs in as `app`, with the capabilities that PHP's driver asks for.
    pub async fn app(port: u16) -> Self {
        let mut raw = Self::tcp(port).await.unwrap();
        raw.login("app", "app", None, capability::USUAL)
            .await
            .unwrap();
        raw
    }

    async fn greeted(stream: Box<dyn Stream>, secure: bool) -> Result<Self, Refused> {
        let mut raw = Self {
            stream,
            secure,
            sequence: 0,
            greeting: Greeting::default(),
            capabilities: 0,
            collation: 45,
            extended: 0,
            keeps_scramble: false,
            program: None,
            info: String::new(),
        };
        let payload = raw.packet().await.unwrap();
        if payload[0] == 0xff {
            return Err(Refused::parse(&payload));
        }
        assert_eq!(payload[0], 10, "protocol version");
        let zero = 1 + payload[1..].iter().position(|&byte| byte == 0).unwrap();
        let rest = &payload[zero + 1..];
        let mut scramble = rest[4..12].to_vec();
        let low = u16::from_le_bytes([rest[13], rest[14]]);
        let high = u16::from_le_bytes([rest[18], rest[19]]);
        scramble.extend_from_slice(&rest[31..43]);
        raw.greeting = Greeting {
            version: String::from_utf8_lossy(&payload[1..zero]).into_owned(),
            connection: u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]),
            capabilities: u32::from(low) | u32::from(high) << 16,
            extended: u32::from_le_bytes([rest[27], rest[28], rest[29], rest[30]]),
            charset: rest[15],
            status: u16::from_le_bytes([rest[16], rest[17]]),
            plugin: String::from_utf8_lossy(rest[44..].split(|&byte| byte == 0).next().unwrap())
                .into_owned(),
            scramble,
        };
        Ok(raw)
    }

    /// Goes over to TLS, as a client that will log in with `capabilities`; also returns the certificate that it is shown
    /// (DER), whatever that is.
    pub async fn over_tls(mut self, capabilities: u32) -> (Self, Vec<u8>) {
        let mut request = (capabilities | capability::TLS).to_le_bytes().to_vec();
        request.extend_from_slice(&(1_u32 << 30).to_le_bytes());
        request.push(self.collation);
        request.extend_from_slice(&[0; 23]);
        self.put(&request).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let connector = TlsConnector::from(unverifying());
        let stream = connector.connect(name, self.stream).await.unwrap();
        let certificates = stream.get_ref().1.peer_certificates().unwrap();
        let certificate = certificates[0].to_vec();
        let secured = Self {
            stream: Box::new(stream),
            secure: true,
            ..self
        };
        (secured, certificate)
    }

    /// Logs in, by whichever method the server wants.
    pub async fn login(
        &mut self,
        user: &str,
        password: &str,
        schema: Option<&str>,
        capabilities: u32,
    ) -> Result<(), Refused> {
        let mut capabilities = capabilities & !capability::CONNECT_WITH_DB;
        if schema.is_some() {
            capabilities |= capability::CONNECT_WITH_DB;
        }
        if self.extended != 0 {
            capabilities &= !1;
        }
        if self.program.is_some() {
            capabilities |= capability::CONNECT_ATTRS;
        }
        self.capabilities = capabilities;
        let plugin = self.greeting.plugin.clone();
        let scramble = self.greeting.scramble.clone();
        let proof = proof(&plugin, &scramble, password, self.secure);
        let mut payload = capabilities.to_le_bytes().to_vec();
        payload.extend_from_slice(&(1_u32 << 30).to_le_bytes());
        payload.push(self.collation);
        payload.extend_from_slice(&[0; 19]);
        payload.extend_from_slice(&self.extended.to_le_bytes());
        payload.extend_from_slice(user.as_bytes());
        payload.push(0);
        payload.push(u8::try_from(proof.len()).unwrap());
        payload.extend_from_slice(&proof);
        if let Some(schema) = schema {
            payload.extend_from_slice(schema.as_bytes());
            payload.push(0);
        }
        payload.extend_from_slice(plugin.as_bytes());
        payload.push(0);
        payload.extend(self.attributes());
        if capabilities & capability::ZSTD_COMPRESSION != 0 {
            payload.push(3);
        }
        self.put(&payload).await.unwrap();
        self.authenticate(password, scramble).await
    }

    /// COM_CHANGE_USER, with an answer to the greeting's scramble.
    pub async fn change_user(
        &mut self,
        user: &str,
        password: &str,
        schema: &str,
    ) -> Result<(), Refused> {
        let proof = proof(
            &self.greeting.plugin,
            &self.greeting.scramble,
            password,
            self.secure,
        );
        self.change_user_with(&proof, user, password, schema).await
    }

    /// COM_CHANGE_USER, with an answer only when it is asked for, as MySQL's own client library does it.
    pub async fn change_user_when_asked(
        &mut self,
        user: &str,
        password: &str,
        schema: &str,
    ) -> Result<(), Refused> {
        self.change_user_with(&[], user, password, schema).await
    }

    async fn change_user_with(
        &mut self,
        proof: &[u8],
        user: &str,
        password: &str,
        schema: &str,
    ) -> Result<(), Refused> {
        let mut payload = vec![0x11];
        payload.extend_from_slice(user.as_bytes());
        payload.push(0);
        payload.push(u8::try_from(proof.len()).unwrap());
        payload.extend_from_slice(proof);
        payload.extend_from_slice(schema.as_bytes());
        payload.extend_from_slice(&[0, self.collation, 0]);
        payload.extend_from_slice(self.greeting.plugin.as_bytes());
        payload.push(0);
        payload.extend(self.attributes());
        self.send(&payload).await;
        let scramble = self.greeting.scramble.clone();
        self.authenticate(password, scramble).await
    }

    /// The connection attributes, if it sends any.
    fn attributes(&self) -> Vec<u8> {
        let strings = |strings: &[&str]| {
            let mut out = Vec::new();
            for string in strings {
                out.push(u8::try_from(string.len()).unwrap());
                out.extend_from_slice(string.as_bytes());
            }
            out
        };
        self.program.map_or_else(Vec::new, |program| {
            let pair = strings(&["program_name", program]);
            strings(&[std::str::from_utf8(&pair).unwrap()])
        })
    }

    async fn authenticate(&mut self, password: &str, mut scramble: Vec<u8>) -> Result<(), Refused> {
        loop {
            let payload = self.packet().await.unwrap();
            match (payload[0], payload.get(1)) {
                (0x00, _) => {
                    // Behind two numbers of one byte, the status and the warnings.
                    let info = payload.get(8..).unwrap_or_default();
                    self.info = String::from_utf8_lossy(info).into_owned();
                    return Ok(());
                }
                (0xff, _) => return Err(Refused::parse(&payload)),
                (0xfe, _) => {
                    let zero = payload.iter().position(|&byte| byte == 0).unwrap();
                    let plugin = String::from_utf8_lossy(&payload[1..zero]).into_owned();
                    scramble = payload[zero + 1..].to_vec();
                    scramble.pop_if(|last| *last == 0);
                    if self.keeps_scramble {
                        self.greeting.scramble.clone_from(&scramble);
                    }
                    self.put(&proof(&plugin, &scramble, password, self.secure))
                        .await
                        .unwrap();
                }
                (0x01, Some(0x03)) => {}
                // The method by which MySQL tries accounts that do not exist: the key comes unasked.
                (0x01, Some(b'-')) => {
                    let secret = encrypted(password, &scramble, &payload[1..]);
                    self.put(&secret).await.unwrap();
                }
                (0x01, Some(0x04)) => {
                    let mut secret = password.as_bytes().to_vec();
                    secret.push(0);
                    if !self.secure {
                        self.put(&[2]).await.unwrap();
                        let key = self.packet().await.unwrap();
                        if key[0] == 0xff {
                            return Err(Refused::parse(&key));
                        }
                        secret = encrypted(password, &scramble, &key[1..]);
                    }
                    self.put(&secret).await.unwrap();
                }
                _ => panic!("unexpected packet during login: {payload:?}"),
            }
        }
    }

    /// Starts a new command.
    pub async fn send(&mut self, payload: &[u8]) {
        self.sequence = 0;
        self.put(payload).await.unwrap();
    }

    /// Expects the next packet to have this number: answers to pipelined commands start anew.
    pub fn restart_sequence(&mut self, sequence: u8) {
        self.sequence = sequence;
    }

    /// Starts a new command on a connection that may be closed meanwhile.
    pub async fn try_send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.sequence = 0;
        self.put(payload).await
    }

    /// Starts a new command of a code and its text.
    pub async fn command(&mut self, code: u8, text: &[u8]) {
        let mut payload = Vec::with_capacity(text.len() + 1);
        payload.push(code);
        payload.extend_from_slice(text);
        self.send(&payload).await;
    }

    /// Starts a query.
    pub async fn query(&mut self, sql: &str) {
        self.command(0x03, sql.as_bytes()).await;
    }

    /// Runs a query whose answer is one packet.
    pub async fn execute(&mut self, sql: &str) -> Vec<u8> {
        self.query(sql).await;
        self.packet().await.unwrap()
    }

    /// Runs a query and returns its rows, each field as text. The connection must not have DEPRECATE_EOF.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Refused> {
        self.query(sql).await;
        self.result().await
    }

    /// Reads one text result set.
    pub async fn result(&mut self) -> Result<Vec<Vec<Option<String>>>, Refused> {
        let first = self.packet().await.unwrap();
        match first[0] {
            0xff => return Err(Refused::parse(&first)),
            0x00 => return Ok(Vec::new()),
            _ => {}
        }
        while !is_eof(&self.packet().await.unwrap()) {}
        let mut rows = Vec::new();
        loop {
            let payload = self.packet().await.unwrap();
            if is_eof(&payload) {
                return Ok(rows);
            }
            if payload[0] == 0xff {
                return Err(Refused::parse(&payload));
            }
            let mut rest = &payload[..];
            let mut row = Vec::new();
            while !rest.is_empty() {
                row.push(field(&mut rest).map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
            }
            rows.push(row);
        }
    }

    /// Reads an OK packet, or the error in its place.
    pub async fn ok(&mut self) -> Result<(), Refused> {
        let payload = self.packet().await.unwrap();
        match payload[0] {
            0x00 => Ok(()),
            0xff => Err(Refused::parse(&payload)),
            _ => panic!("neither OK nor an error: {payload:?}"),
        }
    }

    /// Reads an error packet.
    pub async fn refused(&mut self) -> Refused {
        let payload = self.packet().await.unwrap();
        assert_eq!(payload[0], 0xff, "an error is expected: {payload:?}");
        Refused::parse(&payload)
    }

    /// Writes one payload, split as the protocol wants it, continuing the sequence.
    pub async fn put(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut rest = payload;
        loop {
            let length = rest.len().min(0xff_ffff);
            let mut header = u32::try_from(length).unwrap().to_le_bytes();
            header[3] = self.sequence;
            self.sequence = self.sequence.wrapping_add(1);
            self.stream.write_all(&header).await?;
            self.stream.write_all(&rest[..length]).await?;
            rest = &rest[length..];
            if length < 0xff_ffff {
                return self.stream.flush().await;
            }
        }
    }

    /// Reads one payload, joined, and checks the sequence.
    pub async fn packet(&mut self) -> io::Result<Vec<u8>> {
        let mut payload = Vec::new();
        loop {
            let mut header = [0; 4];
            self.stream.read_exact(&mut header).await?;
            let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
            assert_eq!(header[3], self.sequence, "sequence of packets");
            self.sequence = self.sequence.wrapping_add(1);
            let start = payload.len();
            payload.resize(start + length, 0);
            self.stream.read_exact(&mut payload[start..]).await?;
            if length < 0xff_ffff {
                return Ok(payload);
            }
        }
    }

    /// Writes bytes as they are, as far as the other side takes them.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Says that nothing more will be sent, and goes on receiving.
    pub async fn half_close(&mut self) {
        // The other side may have closed already.
        let _ = self.stream.shutdown().await;
    }

    /// Reads one packet whatever its sequence id, which comes with it; None at the end of the connection, however it ended.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await.ok()?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((header[3], payload))
    }

    /// Carries out a command and returns all packets of its answer, with their sequence ids: none if it has no answer.
    ///
    /// A query behind it shows where the answer ends; without an answer to that, the connection was closed and the last
    /// packet is the word "closed".
    pub async fn exchange(&mut self, payload: &[u8]) -> Vec<(u8, Vec<u8>)> {
        const MARK: &[u8] = b"that was all";
        self.send(payload).await;
        let mut fence = vec![0x03];
        if self.capabilities & capability::QUERY_ATTRIBUTES != 0 {
            fence.extend_from_slice(&[0, 1]);
        }
        fence.extend_from_slice(b"SELECT 'that was all'");
        // The connection may be closed already.
        let _ = self.try_send(&fence).await;
        let mut packets = Vec::new();
        let row = [&[MARK.len() as u8], MARK].concat();
        loop {
            let mut header = [0; 4];
            if self.stream.read_exact(&mut header).await.is_err() {
                packets.push((0, b"closed".to_vec()));
                return packets;
            }
            let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.unwrap();
            if payload == row {
                let end = self.capabilities & capability::DEPRECATE_EOF == 0;
                packets.truncate(packets.len() - 2 - usize::from(end));
                self.sequence = header[3].wrapping_add(1);
                self.packet().await.unwrap();
                return packets;
            }
            packets.push((header[3], payload));
        }
    }

    /// Reads all packets of an answer to a query or an execution, however many results it has. A file that the server
    /// asks for has the bytes `file`.
    pub async fn answer(&mut self, file: &[u8]) -> Vec<Vec<u8>> {
        let modern = self.capabilities & capability::DEPRECATE_EOF != 0;
        let mut packets: Vec<Vec<u8>> = Vec::new();
        loop {
            let first = self.packet().await.unwrap();
            packets.push(first.clone());
            let status = match first[0] {
                0xff => return packets,
                0xfb => {
                    self.put(file).await.unwrap();
                    self.put(&[]).await.unwrap();
                    continue;
                }
                0x00 => status_of_ok(&first),
                columns => {
                    for _ in 0..columns {
                        packets.push(self.packet().await.unwrap());
                    }
                    let mut opening = 0;
                    if !modern {
                        packets.push(self.packet().await.unwrap());
                        let end = &packets[packets.len() - 1];
                        if end[0] == 0xff {
                            return packets;
                        }
                        opening = u16::from_le_bytes([end[3], end[4]]);
                    }
                    // A cursor: its rows are fetched.
                    if opening & 0x40 != 0 {
                        return packets;
                    }
                    loop {
                        let row = self.packet().await.unwrap();
                        packets.push(row.clone());
                        match row[0] {
                            0xff => return packets,
                            0xfe if modern => break status_of_ok(&row),
                            0xfe if row.len() < 9 => {
                                let status = u16::from_le_bytes([row[3], row[4]]);
                                // OUT parameters, which only the first end announces.
                                break status | (opening & 0x1000) >> 9;
                            }
                            _ => {}
                        }
                    }
                }
            };
            if status & 8 == 0 {
                return packets;
            }
        }
    }

    /// Reads as many bytes, whatever they mean.
    pub async fn exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(bytes).await.map(drop)
    }

    /// Reads bytes as they come, whatever they mean.
    pub async fn bytes(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer).await
    }
}

/// The status flags of an OK packet.
pub fn status_of_ok(payload: &[u8]) -> u16 {
    let mut rest = &payload[1..];
    for _ in 0..2 {
        let length = match rest[0] {
            0xfc => 3,
            0xfd => 4,
            0xfe => 9,
            _ => 1,
        };
        rest = &rest[length..];
    }
    u16::from_le_bytes([rest[0], rest[1]])
}

/// One packet with the first number of a sequence.
pub fn packet(payload: &[u8]) -> Vec<u8> {
    let mut packet = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
    packet.extend_from_slice(payload);
    packet
}

/// Is it the classic end of a block?
pub fn is_eof(payload: &[u8]) -> bool {
    payload[0] == 0xfe && payload.len() < 9
}

/// Takes a length-encoded string, or NULL, from the front.
pub fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, header) = match rest[0] {
        0xfb => {
            *rest = &rest[1..];
            return None;
        }
        0xfc => (u64::from(u16::from_le_bytes([rest[1], rest[2]])), 3),
        0xfd => (
            u64::from(u32::from_le_bytes([rest[1], rest[2], rest[3], 0])),
            4,
        ),
        0xfe => (u64::from_le_bytes(rest[1..9].try_into().unwrap()), 9),
        short => (u64::from(short), 1),
    };
    let (value, after) = rest[header..].split_at(usize::try_from(length).unwrap());
    *rest = after;
    Some(value)
}

fn encrypted(password: &str, scramble: &[u8], key: &[u8]) -> Vec<u8> {
    let secret = password.bytes().chain([0]).zip(scramble.iter().cycle());
    let secret: Vec<u8> = secret.map(|(byte, mask)| byte ^ mask).collect();
    crypto::encrypt(&secret, key)
}

/// MariaDB's ed25519, which the server verifies.
fn signature(scramble: &[u8], password: &[u8]) -> Vec<u8> {
    let greeting = ServerGreeting {
        version: String::new(),
        connection_id: 0,
        scramble: Scramble::from_random([0; 20]),
        capabilities: Capabilities::PLUGIN_AUTH,
        collation: 0,
        status: StatusFlags::empty(),
        plugin: AuthPlugin::MysqlNativePassword,
    };
    let mut login = Login::new("", Capabilities::empty(), Channel::Plain);
    login.secrets.password = Some(password.into());
    let switch = [b"\xfeclient_ed25519\0", scramble].concat();
    match login.start(&greeting) {
        Ok(Step::Send { next, .. }) => match next.handle(&switch) {
            Ok(Step::Send { payload, .. }) => payload.to_vec(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn proof(plugin: &str, scramble: &[u8], password: &str, secure: bool) -> Vec<u8> {
    let password = password.as_bytes();
    match plugin {
        "caching_sha2_password" => scramble_sha256(scramble, password).map(Vec::from),
        "mysql_native_password" => scramble_native(scramble, password).map(Vec::from),
        "sha256_password" if secure => Some(password.iter().copied().chain([0]).collect()),
        "sha256_password" => Some(vec![u8::from(!password.is_empty())]),
        "mysql_clear_password" => Some(password.iter().copied().chain([0]).collect()),
        "client_ed25519" => Some(signature(scramble, password)),
        // Nobody can know every plugin: the server may want another one then.
        _ => None,
    }
    .unwrap_or_default()
}
