//! Fuzz bodies: plain functions over any bytes that assert what must hold of all input. The targets in `fuzz/` call them, and an
//! ordinary test runs the seeds through them.
#![allow(clippy::missing_panics_doc, clippy::panic, clippy::unwrap_used)]

use bytes::BytesMut;

use crate::codec::Reader;
use crate::command::{Command, put_execute};
use crate::gtid::{GtidPosition, GtidSet};
use crate::handshake::auth::{
    AuthPlugin, Channel, NativeStage1, NativeStage2, Scramble, SecretBytes, Secrets, Sha2Stage1,
};
use crate::handshake::client::{self, ClientLogin, Login, ServerGreeting};
use crate::handshake::pem;
use crate::handshake::server::{self, Answer, Credential, FirstPacket, ServerAuth};
use crate::packet::HEADER_LEN;
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
                let flags = execute.flags;
                let (nulls, values) = (parameters.null_bitmap, parameters.values);
                put_execute(
                    &mut out,
                    &mut 0,
                    execute.statement,
                    flags,
                    execute.iterations,
                    nulls,
                    types,
                    values,
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
    let expect = match shape % 7 {
        0 => Expect::Query,
        1 => Expect::Execute,
        2 => Expect::Prepare,
        3 => Expect::FieldList,
        4 => Expect::Fetch,
        5 => Expect::Statistics,
        _ => Expect::Status,
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
        Credential::Native(NativeStage2::new([1; 20])),
        Credential::Sha2 { known: None },
        Credential::Sha2 {
            known: Some(Sha2Stage1::of(b"secret").stage2()),
        },
        Credential::Cleartext(SecretBytes::from(&b"secret"[..])),
        Credential::Unknown,
    ];
    let plugins = [
        AuthPlugin::MysqlNativePassword,
        AuthPlugin::CachingSha2Password,
        AuthPlugin::MysqlClearPassword,
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

/// Payloads, each behind its length in one byte; a length of 255 takes the rest.
fn payloads(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(data);
    std::iter::from_fn(move || match reader.u8("length").ok()? {
        255 => Some(reader.rest()),
        len => reader.bytes(usize::from(len), "payload").ok(),
    })
}
