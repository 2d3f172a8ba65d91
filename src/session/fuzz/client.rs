//! A model of a client: commands whose answers are followed to their end, or anything at all by a script.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    capability::Capabilities,
    command::Command,
    handshake::{
        auth::{Channel, SecretBytes, Secrets},
        client::{Login, ServerGreeting, Step},
    },
    packet::{HEADER_LEN, PacketHeader, put_packet},
    response::{Event, Expect, ResponseTracker},
};
use tokio::task::yield_now;

use super::script::Script;
use crate::{
    error::Origin,
    net::{Stream, conversation},
};

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    /// It keeps to the protocol.
    Good,
    /// It does as the script says.
    Bad,
}

pub(super) struct Client {
    stream: Stream,
    input: BytesMut,
    script: Script,
    manners: Manners,
    capabilities: Capabilities,
    progress: Arc<AtomicU64>,
    /// Waits for the answer to a whole command.
    waits: Arc<AtomicBool>,
    /// Bytes written at a time, or more of them where it takes too long; 0 is all.
    piece: usize,
}

/// An answer that came whole.
#[derive(Default)]
struct Answer {
    data: Vec<u8>,
    failed: bool,
    statement: u32,
}

/// Most pieces that something is written in: a long command byte by byte would look like a session that hangs.
const PIECES: usize = 1024;

const COMMANDS: [&[u8]; 24] = [
    b"\x03SELECT 1",
    b"\x03SELECT name FROM t WHERE id = 7",
    b"\x03SELECT 1; SELECT 2",
    b"\x03SELECT CONNECTION_ID(), LAST_INSERT_ID()",
    b"\x03SELECT @a := 1",
    b"\x03BEGIN",
    b"\x03UPDATE t SET a = 1",
    b"\x03COMMIT",
    b"\x03USE x",
    b"\x03SET NAMES latin1",
    b"\x03SET SESSION sql_mode = 'ANSI_QUOTES'",
    b"\x03FAIL",
    b"\x03LOAD DATA LOCAL INFILE 'f' INTO TABLE t",
    b"\x03KILL QUERY 1",
    b"\x03SHOW WARNINGS",
    b"\x16SELECT ?, ?",
    b"\x16FAIL",
    b"\x02x",
    b"\x04t\0%",
    b"\x09",
    b"\x0e",
    b"\x1b\0\0",
    b"\x1f",
    b"\x0a",
];

impl Client {
    pub(super) fn new(
        stream: Stream,
        script: Script,
        manners: Manners,
        progress: Arc<AtomicU64>,
    ) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            script,
            manners,
            capabilities: Capabilities::empty(),
            progress,
            waits: Arc::default(),
            piece: 0,
        }
    }

    /// Whether it waits for the answer to a whole command.
    pub(super) fn waits(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.waits)
    }

    /// Says all that it has to say; whether everything was answered, and without an error where none is due.
    pub(super) async fn talk(mut self) -> bool {
        let choice = self.script.byte_or_0();
        if choice % 8 == 7 && self.manners == Manners::Bad {
            return self.shout().await;
        }
        if self.log_in(choice).await.is_none() {
            return false;
        }
        let done = match self.manners {
            Manners::Good => self.behave().await,
            Manners::Bad => self.misbehave().await,
        };
        done.is_some()
    }

    async fn log_in(&mut self, choice: u8) -> Option<()> {
        let (mut seq, stream, input) = (0, &mut self.stream, &mut self.input);
        let greeting = conversation::receive(stream, input, &mut seq, Origin::Server).await;
        let greeting = ServerGreeting::parse(&greeting.ok()?).expect("a sound greeting");
        let mut wanted = Capabilities::MULTI_RESULTS
            | Capabilities::MULTI_STATEMENTS
            | Capabilities::PS_MULTI_RESULTS;
        wanted.set(Capabilities::DEPRECATE_EOF, choice & 1 != 0);
        wanted.set(Capabilities::SESSION_TRACK, choice & 2 != 0);
        wanted.set(Capabilities::LOCAL_FILES, choice & 8 == 0);
        let mut login = Login::new("app", wanted, Channel::Secure);
        login.secrets = Secrets {
            password: Some(SecretBytes::from(&b"app"[..])),
            ..Secrets::default()
        };
        let mut step = login.start(&greeting).expect("a known plugin");
        loop {
            let next = match step {
                Step::Done(done) => {
                    self.capabilities = done.capabilities;
                    return Some(());
                }
                Step::Send { payload, next } => {
                    let sent = conversation::send(stream, &mut seq, &payload, Origin::Server);
                    sent.await.ok()?;
                    next
                }
                Step::Receive(next) => next,
                Step::Encrypt { .. } => panic!("a key for a socket that nobody can listen to"),
            };
            let payload = conversation::receive(stream, input, &mut seq, Origin::Server).await;
            self.progress.fetch_add(1, Relaxed);
            step = next.handle(&payload.ok()?).expect("the password is right");
        }
    }

    /// One of everything; None as soon as something is not served.
    async fn behave(&mut self) -> Option<()> {
        for command in COMMANDS {
            let answer = self.command(command).await?;
            let text = command.strip_prefix(b"\x03").unwrap_or_default();
            let echoed = text.starts_with(b"SELECT 1") || text.starts_with(b"SELECT name");
            // Its own answer, not somebody else's.
            let own = answer
                .data
                .windows(text.len().max(1))
                .any(|part| part == text);
            let fails = command.ends_with(b"FAIL") || text.starts_with(b"KILL");
            if (echoed && !own) || (answer.failed && !fails) {
                return None;
            }
            if command.starts_with(b"\x16") && !answer.failed {
                self.execute(answer.statement).await?;
            }
        }
        // Has no answer.
        self.write(&framed(b"\x01")).await;
        Some(())
    }

    async fn execute(&mut self, statement: u32) -> Option<()> {
        let id = statement.to_le_bytes();
        let rest = b"\x01\0\0\0\0\x01\x08\0\x08\0AAAAAAAABBBBBBBB";
        for command in [
            [&b"\x18"[..], &id, b"\0\0data"].concat(),
            [&b"\x1a"[..], &id].concat(),
            [&b"\x17"[..], &id, b"\0", rest].concat(),
            [&b"\x17"[..], &id, b"\x01", rest].concat(),
            [&b"\x1c"[..], &id, b"\x01\0\0\0"].concat(),
            [&b"\x19"[..], &id].concat(),
        ] {
            let answer = self.command(&command).await?;
            if answer.failed {
                return None;
            }
        }
        Some(())
    }

    /// As the script says.
    async fn misbehave(&mut self) -> Option<()> {
        while let Some(decision) = self.script.byte() {
            let payload = match decision % 10 {
                0..4 => {
                    let choice = usize::from(self.script.byte_or_0());
                    COMMANDS.get(choice % COMMANDS.len())?.to_vec()
                }
                4 => self.script.run(),
                5 => [&b"\x17\x01\0\0\0"[..], &self.script.run()].concat(),
                6 => {
                    // Longer than what is collected whole, now and then.
                    let length = usize::from(self.script.byte_or_0()) << 13;
                    let code = [0x03, 0x17, 0x18, 0x16][usize::from(decision / 10 % 4)];
                    let mut payload = vec![b'x'; length];
                    let start = [&[code][..], &self.script.run()].concat();
                    let end = start.len().min(length);
                    payload.splice(..end, start);
                    payload
                }
                7 => {
                    self.piece = usize::from(self.script.byte_or_0());
                    continue;
                }
                8 => {
                    let statement = u32::from(self.script.byte_or_0() % 4).to_le_bytes();
                    let code = [0x17, 0x18, 0x19, 0x1a, 0x1c][usize::from(decision / 10 % 5)];
                    [&[code][..], &statement, &self.script.run()].concat()
                }
                _ => {
                    self.shout().await;
                    return None;
                }
            };
            let parsed = Command::parse(&payload, self.capabilities);
            if matches!(parsed, Ok(Command::ChangeUser(_))) {
                self.write(&framed(&payload)).await;
                self.shout().await;
                return None;
            }
            self.command(&payload).await?;
        }
        Some(())
    }

    /// Writes the rest of the script as it is, and reads whatever comes.
    async fn shout(&mut self) -> bool {
        while let Some(length) = self.script.byte() {
            let mut bytes = vec![length];
            bytes.extend_from_slice(&self.script.run());
            self.write(&bytes).await;
        }
        loop {
            self.input.clear();
            if !self.fill().await {
                return false;
            }
        }
    }

    /// Sends one whole command and follows its answer; None when the connection has ended.
    async fn command(&mut self, payload: &[u8]) -> Option<Answer> {
        self.write(&framed(payload)).await;
        let expect = match Command::parse(payload, self.capabilities) {
            Ok(Command::StmtSendLongData { .. } | Command::StmtClose(_)) => {
                return Some(Answer::default());
            }
            Ok(command) => command.expect().unwrap_or(Expect::Status),
            Err(_) => Expect::Status,
        };
        self.waits.store(true, SeqCst);
        let answer = self.follow(expect).await;
        self.waits.store(false, SeqCst);
        answer
    }

    async fn follow(&mut self, expect: Expect) -> Option<Answer> {
        let mut tracker = ResponseTracker::new(expect, self.capabilities);
        let mut answer = Answer::default();
        while !tracker.is_done() {
            let event = tracker.next(&self.input);
            let event = event.unwrap_or_else(|error| panic!("an answer out of order: {error}"));
            let len = match event {
                Event::NeedMore => {
                    if !self.fill().await {
                        return None;
                    }
                    continue;
                }
                Event::Data { len } => {
                    let data = self.input.get(..len).unwrap_or_default();
                    answer.data.extend_from_slice(data);
                    len
                }
                Event::Ok { len, .. } | Event::Eof { len, .. } => len,
                Event::Err { len, .. } => {
                    answer.failed = true;
                    len
                }
                Event::Prepared { len, statement, .. } => {
                    answer.statement = statement;
                    len
                }
                Event::LocalInfile { len } => {
                    let may = self.capabilities.contains(Capabilities::LOCAL_FILES);
                    assert!(may, "asked for a file although it gives none");
                    let seq = PacketHeader::parse(&self.input).map_or(0, |header| header.seq);
                    self.input.advance(len);
                    let mut file = BytesMut::new();
                    let mut seq = seq.wrapping_add(1);
                    put_packet(&mut file, &mut seq, b"1\n");
                    put_packet(&mut file, &mut seq, b"");
                    self.write(&file).await;
                    tracker.local_infile_sent();
                    continue;
                }
            };
            self.input.advance(len);
        }
        Some(answer)
    }

    /// Writes as much as the other side takes, and reads meanwhile.
    async fn write(&mut self, bytes: &[u8]) {
        let piece = match self.piece {
            0 => bytes.len().max(1),
            piece => piece.max(bytes.len() / PIECES),
        };
        for mut part in bytes.chunks(piece) {
            while !part.is_empty() {
                match self.stream.try_write(part) {
                    Ok(written) => {
                        self.progress.fetch_add(1, Relaxed);
                        part.advance(written);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        self.stream.read_ahead(&mut self.input);
                        yield_now().await;
                    }
                    Err(_) => return,
                }
            }
            if piece < bytes.len() {
                yield_now().await;
            }
        }
    }

    /// Waits for more; false at the end of the connection.
    async fn fill(&mut self) -> bool {
        self.input.reserve(4096);
        let read = self.stream.read(&mut self.input).await;
        self.progress.fetch_add(1, Relaxed);
        matches!(read, Ok(1..))
    }
}

/// A command in one packet; longer ones are not made here.
fn framed(payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEADER_LEN + payload.len());
    put_packet(&mut out, &mut 0, payload);
    out
}
