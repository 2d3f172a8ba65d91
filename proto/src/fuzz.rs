//! Fuzz bodies: plain functions over any bytes that assert what must hold of all input. The targets in `fuzz/` call them, and an
//! ordinary test runs the seeds through them.
#![allow(clippy::missing_panics_doc, clippy::panic, clippy::unwrap_used)]

use bytes::BytesMut;

use crate::codec::Reader;
use crate::command::{Command, put_execute};
use crate::compress::{Compression, Method, Side};
use crate::gtid::{GtidPosition, GtidSet};
use crate::handshake::auth::{
    AuthPlugin, Channel, NativeStage1, NativeStage2, Scramble, SecretBytes, Secrets, Sha2Stage1,
};
use crate::handshake::client::{self, ClientLogin, Login, ServerGreeting};
use crate::handshake::pem;
use crate::handshake::server::{self, Answer, Credential, FirstPacket, ServerAuth};
use crate::handshake::stored::Stored;
use crate::packet::{HEADER_LEN, put_packet};
use crate::reply::{ErrPacket, OkHeader, OkPacket, put_err, put_ok};
use crate::response::{Event, Expect, ResponseTracker};
use crate::track::{Change, Changes};
use crate::{Capabilities, ProtocolError};

/// Capabilities (8 bytes), then a command's payload.
pub fn command(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Ok(bits) = reader.u64("capabilities") else {
        return;
    };
    let caps = Capabilities::from_bits_retain(bits);
    let payload = reader.rest();
    let Ok(command) = Command::parse(payload, caps) else {
        return;
    };
    let _ = command.expect();
    match command {
        Command::Query(text) | Command::StmtPrepare(text) => assert!(payload.ends_with(text)),
        Command::ChangeUser(change) => {
            let pairs: usize = change
                .attributes
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            assert!(pairs + change.user.len() + change.auth_response.len() < payload.len());
            judge(change.answer(Scramble::from_random([1; 20])), &[payload]);
        }
        Command::StmtExecute(execute) => {
            for count in [0, 1, 7, 8, 9, 1000, usize::MAX] {
                let Ok(parameters) = execute.parameters(count) else {
                    continue;
                };
                let Some(types) = parameters.types else {
                    continue;
                };
                let mut out = BytesMut::new();
                let statement = execute.statement;
                put_execute(
                    &mut out,
                    &mut 0,
                    statement,
                    &execute,
                    &parameters,
                    Some(types),
                );
                let Some(written) = out.get(HEADER_LEN..) else {
                    panic!("no packet")
                };
                let Ok(Command::StmtExecute(again)) = Command::parse(written, caps) else {
                    panic!("{written:?}")
                };
                assert_eq!(again.parameters(count), Ok(parameters));
            }
        }
        _ => {}
    }
}

/// Capabilities (8 bytes), then an OK, ERR or EOF payload, or a session state block.
pub fn reply(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Ok(bits) = reader.u64("capabilities") else {
        return;
    };
    let caps = Capabilities::from_bits_retain(bits);
    let payload = reader.rest();
    changes(payload);
    if let Ok(packet) = OkPacket::parse(payload, caps) {
        changes(packet.session_state);
        let mut out = BytesMut::new();
        put_ok(&mut out, &mut 0, &packet, OkHeader::Ok, caps);
        let again = out
            .get(HEADER_LEN..)
            .map(|written| OkPacket::parse(written, caps));
        let mut expected = packet;
        if !caps.contains(Capabilities::SESSION_TRACK) {
            expected
                .status
                .remove(crate::StatusFlags::SESSION_STATE_CHANGED);
        }
        assert_eq!(again, Some(Ok(expected)));
    }
    if let Ok(packet) = ErrPacket::parse(payload) {
        let mut out = BytesMut::new();
        put_err(&mut out, &mut 0, &packet, Capabilities::PROTOCOL_41);
        assert_eq!(
            out.get(HEADER_LEN..).map(ErrPacket::parse),
            Some(Ok(packet))
        );
    }
}

fn changes(block: &[u8]) {
    let mut bytes = 0;
    let mut failed = false;
    for change in Changes::new(block) {
        assert!(!failed, "an error is the last thing");
        bytes += match change {
            Ok(Change::SystemVariable { name, value }) => name.len() + value.len(),
            Ok(Change::Other { data: text, .. })
            | Ok(Change::Schema(text) | Change::Gtids(text) | Change::TransactionState(text)) => {
                text.len()
            }
            Ok(Change::TransactionCharacteristics(text)) => text.len(),
            Ok(Change::StateChanged(_)) => 1,
            Err(_) => {
                failed = true;
                0
            }
        };
    }
    assert!(bytes <= block.len());
}

/// Shape (1 byte), piece length (1 byte), capabilities (8 bytes), then what the server sends. In one piece or in many, the events
/// are the same in sum.
pub fn response(data: &[u8]) {
    let mut reader = Reader::new(data);
    let (Ok(shape), Ok(piece), Ok(bits)) = (reader.u8(""), reader.u8(""), reader.u64("")) else {
        return;
    };
    let expect = match shape % 8 {
        0 => Expect::Query,
        1 => Expect::Execute,
        2 => Expect::Prepare,
        3 => Expect::FieldList,
        4 => Expect::Fetch,
        5 => Expect::Statistics,
        6 => Expect::Status,
        _ => Expect::Cursor,
    };
    let caps = Capabilities::from_bits_retain(bits);
    let bytes = reader.rest();
    let whole = follow(bytes, bytes.len().max(1), expect, caps);
    let pieces = follow(bytes, usize::from(piece).max(1), expect, caps);
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        (Err(_), Err(_)) => {}
        (whole, pieces) => panic!("in one piece {whole:?}, in pieces of {piece} {pieces:?}"),
    }
}

/// What was followed: data bytes, status packets, rows, and how far.
type Followed = (usize, Vec<String>, u64, usize);

fn follow(
    bytes: &[u8],
    piece: usize,
    expect: Expect,
    caps: Capabilities,
) -> Result<Followed, ProtocolError> {
    let mut tracker = ResponseTracker::new(expect, caps);
    let (mut at, mut shown, mut data, mut seen) = (0, 0, 0, Vec::new());
    while !tracker.is_done() {
        let front = bytes.get(at..shown).unwrap_or_default();
        let event = tracker.next(front)?;
        let len = match event {
            Event::NeedMore if shown == bytes.len() => break,
            Event::NeedMore => {
                shown = bytes.len().min(shown + piece);
                continue;
            }
            Event::Data { len } => {
                data += len;
                len
            }
            Event::Ok { len, .. }
            | Event::Eof { len, .. }
            | Event::Err { len, .. }
            | Event::Prepared { len, .. }
            | Event::LocalInfile { len } => {
                seen.push(format!("after {data}: {event:?}"));
                len
            }
        };
        assert!(len > 0 && len <= front.len());
        at += len;
        tracker.local_infile_sent();
    }
    Ok((data, seen, tracker.rows(), at))
}

/// A client's first payload, then what it sends in the course of authentication (each behind its length in one byte).
pub fn server_login(data: &[u8]) {
    let payloads: Vec<_> = payloads(data).collect();
    let Some((first, replies)) = payloads.split_first() else {
        return;
    };
    if let Ok(FirstPacket::Login(request)) = FirstPacket::parse(first) {
        let pairs: usize = request
            .attributes
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(pairs + request.user.len() + request.auth_response.len() < first.len());
        judge(request.answer(Scramble::from_random([1; 20])), replies);
    }
}

/// Every kind of account judges the same answers.
fn judge(answer: Answer<'_>, replies: &[&[u8]]) {
    let credentials = [
        Credential::NoPassword,
        Credential::Native(vec![NativeStage2::new([1; 20])]),
        Credential::Password { known: Vec::new() },
        Credential::Password {
            known: vec![Sha2Stage1::of(b"secret").stage2()],
        },
        Credential::Cleartext(SecretBytes::from(&b"secret"[..])),
    ];
    let plugins = [
        AuthPlugin::MysqlNativePassword,
        AuthPlugin::CachingSha2Password,
        AuthPlugin::Sha256Password,
        AuthPlugin::MysqlClearPassword,
        AuthPlugin::Ed25519,
    ];
    for (credential, plugin) in credentials
        .iter()
        .flat_map(|c| plugins.iter().map(move |p| (c, p)))
    {
        for channel in [Channel::Secure, Channel::Plain] {
            let auth = ServerAuth {
                plugin: plugin.clone(),
                credential: credential.clone(),
                channel,
                public_key: Some(b"key".to_vec().into()),
            };
            let mut step = auth.start(answer.clone(), Scramble::from_random([2; 20]));
            let mut replies = replies.iter();
            for _ in 0..10 {
                step = match step {
                    server::Step::Finished { .. } => break,
                    server::Step::Decrypt { ciphertext, next } => next.handle(Some(&ciphertext)),
                    server::Step::Send { next, .. } => match replies.next() {
                        Some(reply) => next.handle(reply),
                        None => break,
                    },
                };
            }
        }
    }
}

/// A server's greeting, then what it says in the course of authentication (each behind its length in one byte).
pub fn client_login(data: &[u8]) {
    let mut payloads = payloads(data);
    let Some(Ok(greeting)) = payloads.next().map(ServerGreeting::parse) else {
        return;
    };
    assert!(greeting.version.len() <= data.len() * 3);
    let secrets = Secrets {
        password: Some(SecretBytes::from(&b"secret"[..])),
        native_stage1: Some(NativeStage1::of(b"secret")),
        sha2_stage1: None,
    };
    let login = Login {
        secrets,
        ..Login::new("ann", Capabilities::all(), Channel::Plain)
    };
    let mut step = login.start(&greeting);
    for _ in 0..20 {
        let next: ClientLogin = match step {
            Err(_) | Ok(client::Step::Done(_)) => return,
            Ok(client::Step::Encrypt { next, .. }) => {
                step = Ok(next.handle(&[7; 256]));
                continue;
            }
            Ok(client::Step::Send { payload, next }) => {
                // Nobody learns the password on a plain channel.
                assert!(!payload.windows(6).any(|part| part == b"secret"));
                next
            }
            Ok(client::Step::Receive(next)) => next,
        };
        let Some(payload) = payloads.next() else {
            return;
        };
        step = next.handle(payload);
    }
}

/// An armoured key.
pub fn key(data: &[u8]) {
    if let Ok(der) = pem::decode(data) {
        assert!(der.len() < data.len());
        assert_eq!(pem::decode(pem::encode(&der).as_bytes()), Ok(der));
    }
}

/// What a server stores of a password, by every plugin. Whether a password fits may take long: that is not asked.
pub fn stored(data: &[u8]) {
    let plugins = [
        "mysql_native_password",
        "caching_sha2_password",
        "sha256_password",
        "ed25519",
        "parsec",
    ];
    let read = plugins.map(|plugin| Stored::parse(plugin, data).is_some());
    // The forms are different: bytes have one at most.
    assert!(read.iter().filter(|read| **read).count() <= 1);
}

/// Two sets or positions of GTIDs, a NUL between them: printed and read again they are the same, and the laws of sets hold.
pub fn gtid(data: &[u8]) {
    let mut halves = data.splitn(2, |&byte| byte == 0);
    let (Some(left), Some(right)) = (halves.next(), halves.next()) else {
        return;
    };
    if let (Ok(left), Ok(right)) = (GtidSet::parse(left), GtidSet::parse(right)) {
        assert_eq!(
            GtidSet::parse(left.to_string().as_bytes()),
            Ok(left.clone())
        );
        let (both, rest) = (left.union(&right), left.difference(&right));
        assert!(both.contains(&left) && both.contains(&right) && left.contains(&rest));
        assert_eq!(rest.union(&right), both);
        assert_eq!(rest.is_empty(), right.contains(&left));
    }
    if let (Ok(left), Ok(right)) = (GtidPosition::parse(left), GtidPosition::parse(right)) {
        assert_eq!(
            GtidPosition::parse(left.to_string().as_bytes()),
            Ok(left.clone())
        );
        let both = left.union(&right);
        assert!(both.covers(&left) && both.covers(&right));
        assert_eq!(left.difference(&right).is_empty(), right.covers(&left));
    }
}

/// Method and side (1 byte), piece length (1 byte), then frames from a peer: whatever they are, no more comes out at once than
/// there is room for, and in other pieces the same comes out. Encoded as packets the same bytes come back.
pub fn compress(data: &[u8]) {
    let mut reader = Reader::new(data);
    let (Ok(choice), Ok(piece)) = (reader.u8(""), reader.u8("")) else {
        return;
    };
    let method = if choice & 1 == 0 {
        Method::Zlib(6)
    } else {
        Method::Zstd(3)
    };
    let side = if choice & 2 == 0 {
        Side::Server
    } else {
        Side::Client
    };
    let bytes = reader.rest();
    let piece = usize::from(piece).max(1);
    let whole = unpacked(
        Compression::new(method, side),
        bytes,
        bytes.len().max(1),
        4096,
    );
    let pieces = unpacked(Compression::new(method, side), bytes, piece, piece);
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => assert!(whole == pieces),
        (Err(_), Err(_)) => {}
        // One of them was cut before it came to what is wrong.
        (Ok(cut), Err(_)) | (Err(_), Ok(cut)) => assert_eq!(cut.len(), MOST),
    }
    let mut packet = BytesMut::new();
    put_packet(&mut packet, &mut 0, bytes);
    let (mut wire, mut client) = (BytesMut::new(), Compression::new(method, Side::Client));
    for part in packet.chunks(piece) {
        client.encode(part, &mut wire);
    }
    let server = Compression::new(method, Side::Server);
    assert_eq!(
        unpacked(server, &wire, piece, piece).as_deref(),
        Ok(&packet[..])
    );
}

/// A bomb has more content than a fuzzer has patience for.
const MOST: usize = 1 << 16;

/// The first [`MOST`] bytes that come out.
fn unpacked(
    mut end: Compression,
    wire: &[u8],
    piece: usize,
    room: usize,
) -> Result<Vec<u8>, ProtocolError> {
    let (mut plain, mut received) = (Vec::new(), BytesMut::new());
    for piece in wire.chunks(piece) {
        received.extend_from_slice(piece);
        loop {
            let mut space = BytesMut::with_capacity(room);
            let capacity = space.capacity();
            let held = received.len();
            end.decode(&mut received, &mut space)?;
            assert!(space.capacity() == capacity && received.len() <= held);
            if space.is_empty() {
                break;
            }
            plain.extend_from_slice(&space);
            if plain.len() > MOST {
                plain.truncate(MOST);
                return Ok(plain);
            }
        }
    }
    Ok(plain)
}

/// Payloads, each behind its length in one byte; a length of 255 takes the rest.
fn payloads(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(data);
    std::iter::from_fn(move || match reader.u8("length").ok()? {
        255 => Some(reader.rest()),
        len => reader.bytes(usize::from(len), "payload").ok(),
    })
}
