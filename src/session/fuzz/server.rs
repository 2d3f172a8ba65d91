//! A model of a server: simple rules that keep to the protocol, and mischief by a script.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use bytes::{Buf, BytesMut};
use dbproxy_proto::{
    capability::{Capabilities, StatusFlags},
    command::{Command, Execute},
    handshake::{
        auth::{AuthPlugin, Scramble},
        server::{FirstPacket, Greeting},
    },
    packet::{HEADER_LEN, MAX_PAYLOAD, PacketHeader, put_packet},
    reply::{ErrPacket, OkHeader, OkPacket, put_eof, put_err, put_ok},
    response::Expect,
    resultset::{Column, put_columns, put_end, put_row},
};
use tokio::{net::UnixListener, select, sync::watch};

use super::script::Script;
use crate::net::Stream;

pub(super) struct Model {
    script: Mutex<Script>,
    behaves: AtomicBool,
    /// Grows with everything that client and servers read.
    pub(super) progress: Arc<AtomicU64>,
    cut: watch::Sender<u64>,
}

/// What follows an answer.
enum Next {
    Command,
    File,
    Close,
}

impl Model {
    /// Listens at `path`. Without a script it keeps to the protocol.
    pub(super) fn listen(path: &Path, script: Script) -> Arc<Self> {
        let listener = UnixListener::bind(path).expect("the address is new");
        let model = Arc::new(Self {
            behaves: AtomicBool::new(script.is_empty()),
            script: Mutex::new(script),
            progress: Arc::default(),
            cut: watch::Sender::new(0),
        });
        let accepting = Arc::clone(&model);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (model, mut cut) = (Arc::clone(&accepting), accepting.cut.subscribe());
                tokio::spawn(async move {
                    select! {
                        _ = model.serve(Stream::unix(stream)) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        model
    }

    /// Keeps to the protocol from now on.
    pub(super) fn behave(&self) {
        self.behaves.store(true, SeqCst);
    }

    /// Whether it keeps to the protocol.
    pub(super) fn behaves(&self) -> bool {
        self.behaves.load(SeqCst)
    }

    /// Closes all connections.
    pub(super) fn cut(&self) {
        self.cut.send_modify(|cut| *cut += 1);
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one connection; None when it ends.
    async fn serve(&self, stream: Stream) -> Option<()> {
        let mut talk = Talk {
            stream,
            input: BytesMut::new(),
            progress: Arc::clone(&self.progress),
        };
        let greeting = Greeting {
            version: "8.4.0",
            connection_id: 7,
            scramble: Scramble::from_random([9; 20]),
            capabilities: Capabilities::from_parts(u32::MAX, 0).difference(UNOFFERED),
            collation: 255,
            status: StatusFlags::AUTOCOMMIT,
            plugin: AuthPlugin::MysqlNativePassword,
        };
        let mut out = BytesMut::new();
        put_packet(&mut out, &mut 0, &greeting.payload());
        self.send(&mut talk, &out).await?;
        let (mut seq, login) = talk.command().await?;
        let caps = match FirstPacket::parse(&login) {
            Ok(FirstPacket::Login(login)) => login.capabilities & greeting.capabilities,
            login => panic!("the proxy logs in with {login:?}"),
        };
        out.clear();
        let mut status = StatusFlags::AUTOCOMMIT;
        put_status(&mut out, &mut seq, status, caps);
        self.send(&mut talk, &out).await?;
        loop {
            let (mut seq, payload) = talk.command().await?;
            let mut out = BytesMut::new();
            match answer(&payload, caps, &mut status, &mut seq, &mut out) {
                Next::Close => return None,
                Next::Command => self.send(&mut talk, &out).await?,
                Next::File => {
                    self.send(&mut talk, &out).await?;
                    let mut seq = talk.file().await?;
                    out.clear();
                    put_status(&mut out, &mut seq, status, caps);
                    self.send(&mut talk, &out).await?;
                }
            }
        }
    }

    /// Sends an answer, or what the script makes of it.
    async fn send(&self, talk: &mut Talk, answer: &[u8]) -> Option<()> {
        let mut bytes = answer.to_vec();
        let mut close = false;
        if !self.behaves.load(SeqCst) {
            let mut script = self.script();
            match script.byte_or_0() % 10 {
                6 => {
                    let (at, byte) = (usize::from(script.byte_or_0()), script.byte_or_0());
                    if let Some(place) = bytes.get_mut(at) {
                        *place = byte;
                    }
                }
                7 => {
                    bytes.truncate(usize::from(script.byte_or_0()));
                    close = script.byte_or_0().is_multiple_of(2);
                }
                8 => {
                    let (at, run) = (usize::from(script.byte_or_0()), script.run());
                    let at = at.min(bytes.len());
                    bytes.splice(at..at, run);
                }
                9 => bytes = script.run(),
                _ => {}
            }
        }
        let sent = talk.stream.write_all(&bytes).await;
        self.progress.fetch_add(1, Relaxed);
        (sent.is_ok() && !close).then_some(())
    }
}

/// Not spoken here.
const UNOFFERED: Capabilities = Capabilities::SSL
    .union(Capabilities::COMPRESS)
    .union(Capabilities::ZSTD_COMPRESSION)
    .union(Capabilities::OPTIONAL_RESULTSET_METADATA)
    .union(Capabilities::QUERY_ATTRIBUTES)
    .union(Capabilities::MULTI_FACTOR_AUTHENTICATION);

struct Talk {
    stream: Stream,
    input: BytesMut,
    progress: Arc<AtomicU64>,
}

impl Talk {
    /// One payload, joined, and the sequence id of the answer.
    async fn command(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut payload = Vec::new();
        loop {
            let (header, part) = self.packet().await?;
            payload.extend_from_slice(&part);
            if header.len < MAX_PAYLOAD {
                return Some((header.seq.wrapping_add(1), payload));
            }
        }
    }

    /// A file up to its end, and the sequence id of the answer.
    async fn file(&mut self) -> Option<u8> {
        loop {
            let (header, _) = self.packet().await?;
            if header.len == 0 {
                return Some(header.seq.wrapping_add(1));
            }
        }
    }

    async fn packet(&mut self) -> Option<(PacketHeader, BytesMut)> {
        loop {
            if let Some(header) = PacketHeader::parse(&self.input)
                && self.input.len() >= HEADER_LEN + header.len
            {
                self.input.advance(HEADER_LEN);
                return Some((header, self.input.split_to(header.len)));
            }
            self.input.reserve(4096);
            let read = self.stream.read(&mut self.input).await;
            self.progress.fetch_add(1, Relaxed);
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }
}

fn put_status(out: &mut BytesMut, seq: &mut u8, status: StatusFlags, caps: Capabilities) {
    let packet = OkPacket {
        status,
        ..OkPacket::default()
    };
    put_ok(out, seq, &packet, OkHeader::Ok, caps);
}

/// A server's answer by the first word of the text.
fn answer(
    payload: &[u8],
    caps: Capabilities,
    status: &mut StatusFlags,
    seq: &mut u8,
    out: &mut BytesMut,
) -> Next {
    let Ok(command) = Command::parse(payload, caps) else {
        put_failure(out, seq, caps);
        return Next::Command;
    };
    match command {
        Command::Quit => return Next::Close,
        Command::StmtSendLongData { .. } | Command::StmtClose(_) => {}
        Command::ResetConnection => {
            *status = StatusFlags::AUTOCOMMIT;
            put_status(out, seq, *status, caps);
        }
        Command::Query(text) => return query(text, caps, status, seq, out),
        Command::ProcessInfo => put_rows(out, seq, &[b"process"], *status, caps),
        Command::StmtPrepare(text) => put_preparation(out, seq, text, *status, caps),
        Command::StmtExecute(execute) if Execute::expects(execute.flags) == Expect::Cursor => {
            put_columns(
                out,
                seq,
                &[Column::integer(b"n")],
                *status,
                Capabilities::DEPRECATE_EOF,
            );
            put_eof(out, seq, *status | StatusFlags::CURSOR_EXISTS, 0);
        }
        Command::StmtExecute(_) => {
            put_columns(out, seq, &[Column::integer(b"n")], *status, caps);
            put_packet(out, seq, b"\0\0\x01\0\0\0\0\0\0\0");
            put_end(out, seq, *status, 0, caps);
        }
        Command::StmtFetch { .. } => {
            put_packet(out, seq, b"\0\0\x01\0\0\0\0\0\0\0");
            put_end(out, seq, *status | StatusFlags::LAST_ROW_SENT, 0, caps);
        }
        Command::FieldList { .. } => put_end(out, seq, *status, 0, caps),
        Command::Statistics => put_packet(out, seq, b"Uptime: 1"),
        Command::Other { .. } => put_failure(out, seq, caps),
        _ => put_status(out, seq, *status, caps),
    }
    Next::Command
}

fn query(
    text: &[u8],
    caps: Capabilities,
    status: &mut StatusFlags,
    seq: &mut u8,
    out: &mut BytesMut,
) -> Next {
    let starts = |word: &[u8]| {
        text.get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    if starts(b"SELECT") {
        let several = text.contains(&b';') && caps.contains(Capabilities::MULTI_RESULTS);
        if several {
            put_rows(out, seq, &[text], *status | StatusFlags::MORE_RESULTS, caps);
        }
        put_rows(out, seq, &[text], *status, caps);
    } else if starts(b"LOAD DATA LOCAL") && caps.contains(Capabilities::LOCAL_FILES) {
        put_packet(out, seq, b"\xfbfile");
        return Next::File;
    } else if starts(b"FAIL") {
        put_failure(out, seq, caps);
    } else {
        if starts(b"BEGIN") || starts(b"START") {
            status.insert(StatusFlags::IN_TRANS);
        } else if starts(b"COMMIT") || starts(b"ROLLBACK") {
            status.remove(StatusFlags::IN_TRANS);
        }
        // The schema in use, as a server that was asked to tracks it.
        let mut packet = OkPacket {
            status: *status,
            affected_rows: 1,
            ..OkPacket::default()
        };
        if starts(b"USE") {
            packet.status |= StatusFlags::SESSION_STATE_CHANGED;
            packet.session_state = b"\x01\x02\x01x";
        }
        put_ok(out, seq, &packet, OkHeader::Ok, caps);
    }
    Next::Command
}

fn put_failure(out: &mut BytesMut, seq: &mut u8, caps: Capabilities) {
    let packet = ErrPacket {
        code: 1064,
        sqlstate: *b"42000",
        message: b"no",
    };
    put_err(out, seq, &packet, caps);
}

fn put_rows(
    out: &mut BytesMut,
    seq: &mut u8,
    rows: &[&[u8]],
    status: StatusFlags,
    caps: Capabilities,
) {
    put_columns(out, seq, &[Column::text(b"text", 45)], status, caps);
    for row in rows {
        put_row(out, seq, [Some(*row)]);
    }
    put_end(out, seq, status, 0, caps);
}

fn put_preparation(
    out: &mut BytesMut,
    seq: &mut u8,
    text: &[u8],
    status: StatusFlags,
    caps: Capabilities,
) {
    let parameters = text.iter().filter(|&&byte| byte == b'?').count().min(300);
    let count = u16::try_from(parameters).unwrap_or(0).to_le_bytes();
    let head = [0, 5, 0, 0, 0, 1, 0, count[0], count[1], 0, 0, 0];
    put_packet(out, seq, &head);
    for definitions in [parameters, 1] {
        for _ in 0..definitions {
            put_packet(out, seq, b"\x03def");
        }
        if definitions > 0 && !caps.contains(Capabilities::DEPRECATE_EOF) {
            put_eof(out, seq, status, 0);
        }
    }
}
