//! Compressed conversations in memory: what one end encodes the other one decodes, in pieces of any size.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use bytes::BytesMut;
use dbproxy_proto::ProtocolError;
use dbproxy_proto::compress::{Compression, Method, Side};
use dbproxy_proto::packet::{MAX_PAYLOAD, PacketHeader, put_packet};
use proptest::collection::vec;
use proptest::prelude::*;

const METHODS: [Method; 2] = [Method::Zlib(6), Method::Zstd(3)];

/// Everything that `wire` holds, received in pieces of `piece` bytes and unpacked into rooms of `room` bytes.
fn decoded(
    end: &mut Compression,
    wire: &[u8],
    piece: usize,
    room: usize,
) -> Result<Vec<u8>, ProtocolError> {
    let mut plain = Vec::new();
    let mut received = BytesMut::new();
    for piece in wire.chunks(piece) {
        received.extend_from_slice(piece);
        loop {
            let mut space = BytesMut::with_capacity(room);
            let capacity = space.capacity();
            end.decode(&mut received, &mut space)?;
            assert!(space.len() <= capacity && space.capacity() == capacity);
            if space.is_empty() {
                break;
            }
            plain.extend_from_slice(&space);
        }
    }
    Ok(plain)
}

fn packets(first: u8, payloads: &[Vec<u8>]) -> BytesMut {
    let (mut out, mut seq) = (BytesMut::new(), first);
    for payload in payloads {
        put_packet(&mut out, &mut seq, payload);
    }
    out
}

fn ends(method: Method) -> (Compression, Compression) {
    (
        Compression::new(method, Side::Client),
        Compression::new(method, Side::Server),
    )
}

/// Numbers of the frames in `wire`, and of the first packet in each of them if it is stored.
fn frames(mut wire: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::new();
    while !wire.is_empty() {
        let header = PacketHeader::parse(wire).unwrap();
        numbers.push(header.seq);
        wire = &wire[7 + header.len..];
    }
    numbers
}

/// The ids of the packets inside frames of zlib that hold whole packets.
fn ids(wire: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut wire = wire;
    while !wire.is_empty() {
        let len = PacketHeader::parse(wire).unwrap().len;
        assert_eq!(wire[4..7], [0; 3], "stored");
        plain.extend_from_slice(&wire[7..7 + len]);
        wire = &wire[7 + len..];
    }
    let (mut ids, mut rest) = (Vec::new(), &plain[..]);
    while let Some(header) = PacketHeader::parse(rest) {
        ids.push(header.seq);
        rest = &rest[4 + header.len..];
    }
    ids
}

/// What cannot be compressed.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn conversations(
        turns in vec((vec(0_u8..4, 0..3000), vec(vec(any::<u8>(), 0..300), 1..20)), 1..6),
        piece in 1_usize..5000,
        room in 1_usize..5000,
        zstd: bool,
    ) {
        let (mut client, mut server) = ends(METHODS[usize::from(zstd)]);
        for (command, answer) in turns {
            let sent = packets(0, &[command]);
            let mut wire = BytesMut::new();
            // Written in two parts, wherever they are cut.
            let (front, back) = sent.split_at(piece.min(sent.len()));
            client.encode(front, &mut wire);
            client.encode(back, &mut wire);
            prop_assert_eq!(decoded(&mut server, &wire, piece, room)?, &sent[..]);
            server.begin();
            let sent = packets(1, &answer);
            let mut wire = BytesMut::new();
            for part in sent.chunks(room) {
                server.encode(part, &mut wire);
            }
            prop_assert_eq!(decoded(&mut client, &wire, piece, room)?, &sent[..]);
        }
    }

    #[test]
    fn damage_is_found_or_harmless(
        place: prop::sample::Index,
        byte: u8,
        piece in 1_usize..300,
        zstd: bool,
    ) {
        let (mut client, mut server) = ends(METHODS[usize::from(zstd)]);
        let sent = packets(0, &[b"SELECT ".repeat(100)]);
        let mut wire = BytesMut::new();
        client.encode(&sent, &mut wire);
        let place = place.index(wire.len());
        wire[place] = byte;
        if let Ok(plain) = decoded(&mut server, &wire, piece, 64) {
            prop_assert!(plain.len() <= sent.len() + wire.len());
        }
    }
}

#[test]
fn commands_begin_frames_of_their_own() {
    for method in METHODS {
        let (mut client, mut server) = ends(method);
        let commands = [vec![14], b"x".repeat(200), vec![3; 10]];
        let mut sent = BytesMut::new();
        for command in &commands {
            put_packet(&mut sent, &mut 0, command);
        }
        let mut wire = BytesMut::new();
        client.encode(&sent, &mut wire);
        assert_eq!(frames(&wire), [0, 0, 0]);
        assert_eq!(decoded(&mut server, &wire, 9, 9).unwrap(), &sent[..]);
        // Each is answered from 1 on, and told apart by that.
        let mut all = BytesMut::new();
        let mut wire = BytesMut::new();
        for _ in &commands {
            server.begin();
            let answer = packets(1, &[vec![1], vec![2; 90]]);
            server.encode(&answer, &mut wire);
            all.extend_from_slice(&answer);
        }
        assert_eq!(frames(&wire), [1, 1, 1]);
        assert_eq!(decoded(&mut client, &wire, 9, 9).unwrap(), &all[..]);
    }
}

#[test]
fn long_commands_and_files_go_on_counting() {
    for method in METHODS {
        let (mut client, mut server) = ends(method);
        // A statement of two packets, in hundreds of frames.
        let sent = packets(0, &[vec![b' '; MAX_PAYLOAD + 100]]);
        let mut wire = BytesMut::new();
        client.encode(&sent, &mut wire);
        let frames = frames(&wire);
        assert!(
            frames
                .iter()
                .enumerate()
                .all(|(index, number)| index as u8 == *number)
        );
        assert!(decoded(&mut server, &wire, 1 << 14, 1 << 16).unwrap() == sent[..]);
        server.begin();
        // Whatever the frames' numbers are, packets have the ids that they would have without.
        let request = packets(2, &[b"\xfbfile".to_vec()]);
        let mut wire = BytesMut::new();
        server.encode(&request, &mut wire);
        assert_eq!(decoded(&mut client, &wire, 100, 100).unwrap(), &request[..]);
        // The ids of a long file wrap around, which begins no command.
        let mut file = vec![vec![b'f'; 100]; 600];
        file.push(Vec::new());
        let sent = packets(3, &file);
        let mut wire = BytesMut::new();
        client.encode(&sent, &mut wire);
        assert_eq!(decoded(&mut server, &wire, 1000, 1000).unwrap(), &sent[..]);
        let last = 3_u8.wrapping_add(600_u16 as u8);
        let answer = packets(last.wrapping_add(1), &[vec![0; 7]]);
        let mut wire = BytesMut::new();
        server.encode(&answer, &mut wire);
        assert_eq!(decoded(&mut client, &wire, 100, 100).unwrap(), &answer[..]);
    }
}

#[test]
fn a_command_may_come_in_the_middle_of_an_answer() {
    for method in METHODS {
        let (mut client, mut server) = ends(method);
        let first = packets(0, &[vec![3; 10]]);
        let mut wire = BytesMut::new();
        client.encode(&first, &mut wire);
        assert_eq!(decoded(&mut server, &wire, 9, 9).unwrap(), &first[..]);
        // Two frames, which come apart.
        let second = packets(0, &[noise(100_000)]);
        let mut wire = BytesMut::new();
        client.encode(&second, &mut wire);
        assert_eq!(frames(&wire), [0, 1]);
        let cut = 7 + PacketHeader::parse(&wire).unwrap().len;
        let answer = packets(1, &[vec![1], noise(90), vec![0xfe; 5]]);
        server.begin();
        let (mut answered, mut heard) = (BytesMut::new(), Vec::new());
        server.encode(&answer[..5], &mut answered);
        heard.extend(decoded(&mut server, &wire[..cut], 1000, 1000).unwrap());
        server.encode(&answer[5..50], &mut answered);
        heard.extend(decoded(&mut server, &wire[cut..], 1000, 1000).unwrap());
        server.encode(&answer[50..], &mut answered);
        assert!(heard == second[..]);
        assert_eq!(frames(&answered), [1, 2, 3]);
        assert_eq!(ids(&answered), [1, 2, 3], "inside the frames");
        // Its own answer goes on with its own frames' numbers.
        server.begin();
        let mut answered = BytesMut::new();
        server.encode(&packets(1, &[vec![0; 7]]), &mut answered);
        assert_eq!((frames(&answered), ids(&answered)), (vec![2], vec![2]));
    }
}

#[test]
fn a_command_may_go_on_after_its_answer() {
    let (mut client, mut server) = ends(Method::Zlib(6));
    let sent = packets(0, &[noise(300_000)]);
    let mut wire = BytesMut::new();
    client.encode(&sent, &mut wire);
    let cut = 7 + PacketHeader::parse(&wire).unwrap().len;
    let mut heard = decoded(&mut server, &wire[..cut], 1000, 1000).unwrap();
    server.begin();
    server.encode(
        &packets(1, &[b"\xff too long".to_vec()]),
        &mut BytesMut::new(),
    );
    heard.extend(decoded(&mut server, &wire[cut..], 1000, 1000).unwrap());
    assert!(heard == sent[..]);
}

#[test]
fn each_further_result_counts_from_its_frame() {
    let (mut client, mut server) = ends(Method::Zlib(6));
    let sent = packets(0, &[vec![3; 10]]);
    let mut wire = BytesMut::new();
    client.encode(&sent, &mut wire);
    decoded(&mut server, &wire, 9, 9).unwrap();
    server.begin();
    // A row that could be taken for the end of a result behind which another one comes.
    let row = [0, 0, 0, 8, 0, 0, 0].to_vec();
    let mut wire = BytesMut::new();
    server.encode(&packets(1, &[row.clone(), row.clone()]), &mut wire);
    server.encode(&packets(3, std::slice::from_ref(&row)), &mut wire);
    server.begin_result();
    server.encode(&packets(4, &[row]), &mut wire);
    assert_eq!(frames(&wire), [1, 2, 3]);
    assert_eq!(ids(&wire), [1, 2, 3, 3]);
}

#[test]
fn an_idle_end_that_hears_a_goodbye_understands_it() {
    let (mut client, _) = ends(Method::Zlib(6));
    // Frame 0, id 0, unasked.
    let goodbye = b"\x0c\0\0\0\0\0\0\x08\0\0\0\xff\xbf\x0f#HY00";
    let plain = decoded(&mut client, goodbye, 3, 3).unwrap();
    assert_eq!(plain.len(), 12);
}

#[test]
fn lies_are_found() {
    let (mut client, _) = ends(Method::Zlib(6));
    let sent = packets(0, &[vec![b' '; 1000]]);
    let mut wire = BytesMut::new();
    client.encode(&sent, &mut wire);
    for (place, byte, error) in [
        (
            4,
            wire[4] - 1,
            ProtocolError::Malformed("length of compressed content"),
        ),
        (
            4,
            wire[4] + 1,
            ProtocolError::Malformed("length of compressed content"),
        ),
        (
            0,
            wire[0] - 1,
            ProtocolError::Truncated("compressed content"),
        ),
        (0, 0, ProtocolError::Malformed("compressed length")),
        (
            3,
            7,
            ProtocolError::Sequence {
                expected: 0,
                found: 7,
            },
        ),
    ] {
        let mut wire = wire.clone();
        wire[place] = byte;
        let mut server = Compression::new(Method::Zlib(6), Side::Server);
        assert_eq!(
            decoded(&mut server, &wire, 10, 100),
            Err(error),
            "{place}: {byte}"
        );
    }
}
