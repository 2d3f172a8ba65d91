//! Properties: what this crate writes, another implementation reads, and the other way round.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::HashMap;

use bytes::BytesMut;
use dbproxy_proto::command::{Command, put_execute};
use dbproxy_proto::handshake::auth::{
    AuthPlugin, Channel, NativeStage1, Scramble, Secrets, Sha2Stage1,
};
use dbproxy_proto::handshake::client::{self, Login, ServerGreeting};
use dbproxy_proto::handshake::server::{FirstPacket, Greeting};
use dbproxy_proto::packet::{Frame, PacketHeader, complete, put_packet};
use dbproxy_proto::reply::{ErrPacket, OkHeader, OkPacket, put_eof, put_err, put_ok};
use dbproxy_proto::response::{Event, Expect, ResponseTracker};
use dbproxy_proto::track::Change;
use dbproxy_proto::{Capabilities, StatusFlags};
use mysql_common::constants::{CapabilityFlags, StatusFlags as OracleStatus};
use mysql_common::io::ParseBuf;
use mysql_common::packets::session_state_change::SessionStateChange;
use mysql_common::packets::{
    AuthPlugin as OraclePlugin, ComChangeUser, ComChangeUserMoreData, ComStmtExecuteRequestBuilder,
    CommonOkPacket, ErrPacket as OracleErr, HandshakePacket, HandshakeResponse,
    OkPacket as OracleOk, OkPacketDeserializer, ResultSetTerminator, StmtPacket,
};
use mysql_common::proto::MySerialize;
use mysql_common::value::Value;
use proptest::collection::vec;
use proptest::prelude::*;

fn flags(caps: Capabilities) -> CapabilityFlags {
    CapabilityFlags::from_bits_truncate(caps.standard())
}

/// Text without NUL, as user names and the like.
fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_äß☃ -]{0,40}"
}

fn plugin() -> impl Strategy<Value = AuthPlugin> {
    prop_oneof![
        Just(AuthPlugin::MysqlNativePassword),
        Just(AuthPlugin::CachingSha2Password),
        "[a-z_]{1,20}".prop_map(|name| AuthPlugin::from_name(name.as_bytes())),
    ]
}

fn status() -> impl Strategy<Value = StatusFlags> {
    any::<u16>().prop_map(|bits| StatusFlags::from_bits_truncate(bits & OracleStatus::all().bits()))
}

const LOGIN: Capabilities = Capabilities::PROTOCOL_41
    .union(Capabilities::SECURE_CONNECTION)
    .union(Capabilities::PLUGIN_AUTH);

proptest! {
    #[test]
    fn greetings(
        version in "[0-9]\\.[0-9]{1,2}\\.[0-9]{1,2}[a-zA-Z-]{0,10}",
        connection_id: u32,
        random: [u8; 20],
        bits: u32,
        collation: u8,
        status in status(),
        plugin in plugin(),
    ) {
        let capabilities = Capabilities::from_parts(bits, 0) | LOGIN | Capabilities::LONG_PASSWORD;
        let scramble = Scramble::from_random(random);
        let ours = Greeting {
            version: &version, connection_id, scramble, capabilities, collation: collation.into(), status, plugin: plugin.clone(),
        };
        let payload = ours.payload();
        let theirs: HandshakePacket<'_> = ParseBuf(&payload).parse(()).unwrap();
        prop_assert_eq!(theirs.server_version_ref(), version.as_bytes());
        prop_assert_eq!(theirs.connection_id(), connection_id);
        prop_assert_eq!(theirs.capabilities(), flags(capabilities));
        prop_assert_eq!(theirs.status_flags().bits(), status.bits());
        prop_assert_eq!(theirs.default_collation(), collation);
        prop_assert_eq!(&theirs.nonce()[..20], scramble.as_bytes());
        prop_assert_eq!(theirs.auth_plugin_name_ref(), Some(plugin.name().as_bytes()));

        let mut written = Vec::new();
        theirs.serialize(&mut written);
        let back = ServerGreeting::parse(&written).unwrap();
        prop_assert_eq!(&back, &ServerGreeting::parse(&payload).unwrap());
        prop_assert_eq!(back.version, version);
        prop_assert_eq!(back.plugin, plugin);
    }

    #[test]
    fn login_requests_of_ours(
        user in name(),
        database in proptest::option::of(name()),
        attributes in vec((name(), name()), 0..4),
        lenenc: bool,
        sha2: bool,
        password in "[a-z]{0,8}",
        max_packet: u32,
    ) {
        let mut offered = LOGIN | Capabilities::LONG_PASSWORD | Capabilities::CONNECT_ATTRS | Capabilities::CONNECT_WITH_DB;
        offered.set(Capabilities::PLUGIN_AUTH_LENENC_DATA, lenenc);
        let scramble = Scramble::from_random([9; 20]);
        let plugin = if sha2 { AuthPlugin::CachingSha2Password } else { AuthPlugin::MysqlNativePassword };
        let greeting = Greeting {
            version: "8.0.40", connection_id: 1, scramble, capabilities: offered, collation: 45,
            status: StatusFlags::empty(), plugin: plugin.clone(),
        };
        let login = Login {
            database: database.clone().map(String::into_bytes),
            attributes: attributes.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect(),
            max_packet,
            secrets: Secrets { password: Some(password.as_bytes().into()), ..Secrets::default() },
            ..Login::new(user.as_bytes(), Capabilities::all(), Channel::Plain)
        };
        let client::Step::Send { payload, .. } = login.start(&ServerGreeting::parse(&greeting.payload()).unwrap()).unwrap()
            else { panic!() };

        let theirs: HandshakeResponse<'_> = ParseBuf(&payload).parse(()).unwrap();
        prop_assert_eq!(theirs.user(), user.as_bytes());
        prop_assert_eq!(theirs.db_name(), database.as_ref().map(String::as_bytes));
        prop_assert_eq!(theirs.auth_plugin().map(OraclePlugin::as_bytes), Some(plugin.name().as_bytes()));
        let token = match password.as_bytes() {
            b"" => vec![],
            word if sha2 => Sha2Stage1::of(word).token(&scramble).to_vec(),
            word => NativeStage1::of(word).token(&scramble).to_vec(),
        };
        prop_assert_eq!(theirs.scramble_buf(), &token);
        let expected: HashMap<_, _> = attributes.iter().cloned().collect();
        let found = theirs.connect_attributes().unwrap_or_default();
        prop_assert_eq!(found, expected);

        let FirstPacket::Login(back) = FirstPacket::parse(&payload).unwrap() else { panic!() };
        prop_assert_eq!(back.auth_response, &token);
        prop_assert_eq!(back.max_packet, max_packet);
        let pairs: Vec<_> = back.attributes.iter().collect();
        let sent: Vec<_> = attributes.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        prop_assert_eq!(pairs, sent);
    }

    #[test]
    fn login_requests_of_theirs(
        user in name(),
        database in proptest::option::of("[a-z]{1,10}"),
        token in vec(any::<u8>(), 0..40),
        attributes in proptest::collection::hash_map(name(), name(), 0..4),
        lenenc: bool,
        max_packet: u32,
    ) {
        let mut caps = CapabilityFlags::CLIENT_PROTOCOL_41 | CapabilityFlags::CLIENT_SECURE_CONNECTION | CapabilityFlags::CLIENT_LONG_PASSWORD;
        caps.set(CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA, lenenc);
        let mut payload = Vec::new();
        HandshakeResponse::new(
            Some(&token[..]), (8, 0, 40), Some(user.as_bytes()), database.as_ref().map(String::as_bytes),
            Some(OraclePlugin::CachingSha2Password), caps, Some(attributes.clone()), max_packet,
        ).serialize(&mut payload);
        let FirstPacket::Login(ours) = FirstPacket::parse(&payload).unwrap() else { panic!() };
        prop_assert_eq!(ours.user, user.as_bytes());
        prop_assert_eq!(ours.database, database.as_ref().map(String::as_bytes));
        prop_assert_eq!(ours.auth_response, &token[..]);
        prop_assert_eq!(ours.max_packet, max_packet);
        prop_assert_eq!(ours.plugin, Some(&b"caching_sha2_password"[..]));
        prop_assert_eq!(ours.attributes.iter().count(), attributes.len());
        for (name, value) in &attributes {
            prop_assert_eq!(ours.attributes.find(name.as_bytes()), Some(value.as_bytes()));
        }
    }

    #[test]
    fn change_user(
        user in name(),
        database in "[a-z]{0,10}",
        token in vec(any::<u8>(), 0..40),
        attributes in proptest::collection::hash_map(name(), name(), 0..4),
        collation: u16,
        more: bool,
    ) {
        let caps = LOGIN | Capabilities::CONNECT_ATTRS;
        let more_data = ComChangeUserMoreData::new(collation)
            .with_auth_plugin(Some(OraclePlugin::MysqlNativePassword))
            .with_connect_attributes(Some(attributes.clone()));
        let mut payload = Vec::new();
        ComChangeUser::new()
            .with_user(Some(user.as_bytes()))
            .with_auth_plugin_data(Some(&token[..]))
            .with_database(Some(database.as_bytes()))
            .with_more_data(more.then_some(more_data))
            .serialize(&mut payload);
        let Ok(Command::ChangeUser(ours)) = Command::parse(&payload, caps) else { panic!() };
        prop_assert_eq!(ours.user, user.as_bytes());
        prop_assert_eq!(ours.database, Some(database.as_bytes()).filter(|name| !name.is_empty()));
        prop_assert_eq!(ours.auth_response, &token[..]);
        prop_assert_eq!(ours.collation, more.then_some(collation));
        prop_assert_eq!(ours.plugin, more.then_some(&b"mysql_native_password"[..]));
        for (name, value) in attributes.iter().filter(|_| more) {
            prop_assert_eq!(ours.attributes.find(name.as_bytes()), Some(value.as_bytes()));
        }
    }

    #[test]
    fn ok_packets(
        affected_rows: u64,
        last_insert_id: u64,
        status in status(),
        warnings: u16,
        info in "[ -~]{0,300}",
        gtid in "[a-f0-9:-]{1,300}",
        schema in name(),
        variables in vec((name(), name()), 0..3),
        eof: bool,
        client_tracks: bool,
    ) {
        let mut state = BytesMut::new();
        let mut entry = |kind: u8, parts: &[&str], prefix: &[u8]| {
            let mut data = BytesMut::from(prefix);
            for part in parts {
                dbproxy_proto::codec::put_lenenc_bytes(&mut data, part.as_bytes());
            }
            state.extend([kind]);
            dbproxy_proto::codec::put_lenenc_bytes(&mut state, &data);
        };
        for (name, value) in &variables {
            entry(0, &[name, value], b"");
        }
        entry(1, &[&schema], b"");
        entry(3, &[&gtid], b"\0");
        let changed = status.contains(StatusFlags::SESSION_STATE_CHANGED);
        let packet = OkPacket {
            affected_rows, last_insert_id, status, warnings, info: info.as_bytes(),
            session_state: if changed { &state } else { b"" },
        };
        let header = if eof { OkHeader::Eof } else { OkHeader::Ok };
        let mut caps = LOGIN | Capabilities::DEPRECATE_EOF;
        caps.set(Capabilities::SESSION_TRACK, client_tracks);
        let mut out = BytesMut::new();
        put_ok(&mut out, &mut 1, &packet, header, caps);
        let theirs: OracleOk<'_> = if eof {
            ParseBuf(&out[4..]).parse::<OkPacketDeserializer<'_, ResultSetTerminator>>(flags(caps)).unwrap().into()
        } else {
            ParseBuf(&out[4..]).parse::<OkPacketDeserializer<'_, CommonOkPacket>>(flags(caps)).unwrap().into()
        };
        // They leave the counts out of the packet that ends a result set.
        if !eof {
            prop_assert_eq!(theirs.affected_rows(), affected_rows);
            prop_assert_eq!(theirs.last_insert_id(), Some(last_insert_id).filter(|&id| id != 0));
        }
        prop_assert_eq!(theirs.warnings(), warnings);
        if client_tracks {
            prop_assert_eq!(theirs.status_flags().bits(), status.bits());
            prop_assert_eq!(theirs.info_ref().unwrap_or_default(), info.as_bytes());
        } else {
            prop_assert!(!theirs.status_flags().contains(OracleStatus::SERVER_SESSION_STATE_CHANGED));
        }
        if client_tracks && changed {
            let changes = theirs.session_state_info().unwrap();
            prop_assert_eq!(changes.len(), variables.len() + 2);
            let Ok(SessionStateChange::Schema(theirs)) = changes[variables.len()].decode() else { panic!() };
            prop_assert_eq!(theirs.as_bytes(), schema.as_bytes());
        }

        let ours = OkPacket::parse(&out[4..], caps).unwrap();
        let changes: Vec<_> = ours.changes().map(Result::unwrap).collect();
        let mut expected = packet;
        if !client_tracks {
            expected.session_state = b"";
            expected.status.remove(StatusFlags::SESSION_STATE_CHANGED);
        } else if changed {
            prop_assert_eq!(changes.last(), Some(&Change::Gtids(gtid.as_bytes())));
            for ((name, value), change) in variables.iter().zip(&changes) {
                prop_assert_eq!(*change, Change::SystemVariable { name: name.as_bytes(), value: value.as_bytes() });
            }
        }
        prop_assert_eq!(ours, expected);
    }

    #[test]
    fn errors(code in 1_u16..0xFFFF, sqlstate in "[0-9A-Z]{5}", message in "[ -~]{0,300}", early: bool) {
        let caps = if early { Capabilities::empty() } else { LOGIN };
        let sqlstate: [u8; 5] = sqlstate.into_bytes().try_into().unwrap();
        let mut out = BytesMut::new();
        put_err(&mut out, &mut 0, &ErrPacket { code, sqlstate, message: message.as_bytes() }, caps);
        let OracleErr::Error(theirs) = ParseBuf(&out[4..]).parse(flags(caps)).unwrap() else { panic!() };
        prop_assert_eq!(theirs.error_code(), code);
        prop_assert_eq!(theirs.message_ref(), message.as_bytes());
        prop_assert_eq!(theirs.sql_state_ref().map(|state| state.as_bytes()), (!early).then_some(sqlstate));

        let mut written = Vec::new();
        OracleErr::Error(theirs).serialize(&mut written);
        prop_assert_eq!(&written, &out[4..]);
    }

    #[test]
    fn prepared(statement: u32, columns: u16, parameters: u16, warnings: u16) {
        let mut payload = vec![0];
        payload.extend(statement.to_le_bytes());
        payload.extend(columns.to_le_bytes());
        payload.extend(parameters.to_le_bytes());
        payload.push(0);
        payload.extend(warnings.to_le_bytes());
        let theirs: StmtPacket = ParseBuf(&payload).parse(()).unwrap();
        let mut packet = BytesMut::new();
        put_packet(&mut packet, &mut 1, &payload);
        let event = ResponseTracker::new(Expect::Prepare, LOGIN).next(&packet);
        prop_assert_eq!(event, Ok(Event::Prepared {
            len: 16,
            statement: theirs.statement_id(),
            columns: theirs.num_columns(),
            parameters: theirs.num_params(),
            warnings: theirs.warning_count(),
            last: columns == 0 && parameters == 0,
        }));
    }

    #[test]
    fn executions(
        statement: u32,
        values in vec(prop_oneof![
            Just(Value::NULL),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Double),
            vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
            (0_u16..9999, 1_u8..13, 1_u8..29, 0_u8..24).prop_map(|(y, m, d, h)| Value::Date(y, m, d, h, 0, 0, 0)),
        ], 1..20),
    ) {
        let mut theirs = Vec::new();
        ComStmtExecuteRequestBuilder::new(statement).build(&values).0.serialize(&mut theirs);
        let Ok(Command::StmtExecute(execute)) = Command::parse(&theirs, LOGIN) else { panic!() };
        prop_assert_eq!((execute.statement, execute.flags, execute.iterations), (statement, 0, 1));
        let parameters = execute.parameters(values.len()).unwrap();
        for (index, value) in values.iter().enumerate() {
            let null = parameters.null_bitmap[index / 8] >> (index % 8) & 1 == 1;
            prop_assert_eq!(null, *value == Value::NULL);
        }
        let types = parameters.types.unwrap();
        prop_assert_eq!(types.len(), 2 * values.len());

        let mut ours = BytesMut::new();
        put_execute(&mut ours, &mut 0, statement, &execute, &parameters, Some(types));
        prop_assert_eq!(&ours[4..], &theirs[..]);
    }
}

/// A response of random shape.
#[derive(Debug, Clone)]
enum Part {
    Ok,
    Rows {
        columns: u8,
        rows: Vec<Vec<u8>>,
        binary: bool,
    },
}

fn response() -> impl Strategy<Value = (Vec<Part>, bool, bool)> {
    let rows = (1_u8..5, vec(vec(any::<u8>(), 0..40), 0..20), any::<bool>()).prop_map(
        |(columns, rows, binary)| Part::Rows {
            columns,
            rows,
            binary,
        },
    );
    (
        vec(prop_oneof![Just(Part::Ok), rows], 1..5),
        any::<bool>(),
        any::<bool>(),
    )
}

fn write(parts: &[Part], fails: bool, caps: Capabilities) -> BytesMut {
    let (mut out, mut seq) = (BytesMut::new(), 1);
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len() && !fails;
        let status = if last {
            StatusFlags::AUTOCOMMIT
        } else {
            StatusFlags::MORE_RESULTS
        };
        let ok = OkPacket {
            status,
            ..OkPacket::default()
        };
        match part {
            Part::Ok => put_ok(&mut out, &mut seq, &ok, OkHeader::Ok, caps),
            Part::Rows {
                columns,
                rows,
                binary,
            } => {
                put_packet(&mut out, &mut seq, &[*columns]);
                for _ in 0..*columns {
                    put_packet(
                        &mut out,
                        &mut seq,
                        b"\x03def\0\0\0\x01a\0\x0c\x3f\0\x01\0\0\0\x08\x81\0\0\0\0",
                    );
                }
                if !caps.contains(Capabilities::DEPRECATE_EOF) {
                    put_eof(&mut out, &mut seq, StatusFlags::MORE_RESULTS, 0);
                }
                for row in rows {
                    // A text row begins with a length or NULL, never with 0xFE or 0xFF in rows as short as these.
                    let first = if *binary {
                        0
                    } else {
                        row.first().map_or(0xFB, |byte| byte % 0xFC)
                    };
                    put_packet(&mut out, &mut seq, &[&[first], &row[..]].concat());
                }
                if caps.contains(Capabilities::DEPRECATE_EOF) {
                    put_ok(&mut out, &mut seq, &ok, OkHeader::Eof, caps);
                } else {
                    put_eof(&mut out, &mut seq, status, 0);
                }
            }
        }
    }
    if fails {
        put_err(
            &mut out,
            &mut seq,
            &ErrPacket {
                code: 1317,
                sqlstate: *b"70100",
                message: b"stop",
            },
            caps,
        );
    }
    out
}

/// Everything that matters of the events, in sum: the status packets with the number of data bytes in front of each.
fn follow(bytes: &[u8], cuts: &[usize], caps: Capabilities) -> (Vec<(usize, String)>, u64) {
    let mut tracker = ResponseTracker::new(Expect::Query, caps);
    let (mut at, mut shown, mut data, mut cut) = (0, 0, 0, 0);
    let mut seen = Vec::new();
    while !tracker.is_done() {
        let event = tracker.next(&bytes[at..shown]).unwrap();
        let len = match event {
            Event::NeedMore => {
                assert!(shown < bytes.len(), "no end");
                shown = (shown + cuts[cut % cuts.len()]).min(bytes.len());
                cut += 1;
                continue;
            }
            Event::Data { len } => {
                data += len;
                at += len;
                continue;
            }
            Event::Ok { len, .. } | Event::Eof { len, .. } | Event::Err { len, .. } => len,
            other => panic!("{other:?}"),
        };
        seen.push((std::mem::take(&mut data), format!("{event:?}")));
        at += len;
    }
    assert_eq!(at, bytes.len());
    (seen, tracker.rows())
}

proptest! {
    #[test]
    fn a_response_may_be_cut_anywhere((parts, fails, modern) in response(), cuts in vec(1_usize..60, 1..10)) {
        let mut caps = LOGIN;
        caps.set(Capabilities::DEPRECATE_EOF, modern);
        let bytes = write(&parts, fails, caps);
        let whole = follow(&bytes, &[bytes.len()], caps);
        prop_assert_eq!(whole.0.len(), parts.len() + usize::from(fails));
        let rows: usize = parts.iter().map(|part| match part { Part::Ok => 0, Part::Rows { rows, .. } => rows.len() }).sum();
        prop_assert_eq!(whole.1, rows as u64);
        prop_assert_eq!(follow(&bytes, &cuts, caps), whole);
    }

    #[test]
    fn framing(len in 0_usize..2000, seq: u8, tail in vec(any::<u8>(), 0..10)) {
        let (mut out, mut next) = (BytesMut::new(), seq);
        put_packet(&mut out, &mut next, &vec![1; len]);
        prop_assert_eq!(next, seq.wrapping_add(1));
        prop_assert_eq!(PacketHeader::parse(&out), Some(PacketHeader { len, seq }));
        for cut in 0..out.len() {
            prop_assert_eq!(complete(&out[..cut]), Frame::Incomplete);
        }
        out.extend(tail);
        prop_assert_eq!(complete(&out), Frame::Complete { len: len + 4, payload: 4..len + 4 });
    }
}
