//! The table of malformed conversations.

use super::offender::{Case, Outcome, Stage, framed, login_payload};

/// Any error.
const ERROR: u16 = 0;

/// Not let in; what it says exactly depends on the account's plugin.
const KEPT_OUT: &[Outcome] = &[
    Outcome::Expelled(ERROR),
    Outcome::Dropped,
    Outcome::Questioned,
];
const TURNED_AWAY: &[Outcome] = &[Outcome::Expelled(ERROR), Outcome::Dropped];
const OUT_OF_ORDER: &[Outcome] = &[Outcome::Expelled(1156)];
const BAD_HANDSHAKE: &[Outcome] = &[Outcome::Expelled(1043)];
const DENIED: &[Outcome] = &[Outcome::Expelled(ERROR), Outcome::Questioned];
const UNTYPED: &[Outcome] = &[Outcome::Refused(1210)];
const DROPPED: &[Outcome] = &[Outcome::Dropped];
const REFUSED: &[Outcome] = &[Outcome::Refused(ERROR)];
const SERVED: &[Outcome] = &[Outcome::Served];
const UNANSWERED: &[Outcome] = &[Outcome::Unanswered];
/// The flavours differ, or the server decides.
const ANSWERED: &[Outcome] = &[Outcome::Refused(ERROR), Outcome::Served];
const REFUSED_OR_EXPELLED: &[Outcome] = &[Outcome::Refused(ERROR), Outcome::Expelled(ERROR)];
const NO_CHANGE: &[Outcome] = &[
    Outcome::Refused(ERROR),
    Outcome::Expelled(ERROR),
    Outcome::Questioned,
];
/// MariaDB goes on with the session as it was before.
const SWITCH_OUT_OF_ORDER: &[Outcome] = &[Outcome::Expelled(1156), Outcome::Refused(1156)];
const OVER: &[Outcome] = &[Outcome::Expelled(ERROR), Outcome::Dropped, Outcome::Served];

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(strangers());
    cases.extend(logins());
    cases.extend(switches());
    cases.extend(framings());
    cases.extend(commands());
    cases.extend(executions());
    cases.extend(files());
    cases.extend(changes_of_user());
    cases.extend(noise());
    cases
}

fn case(
    name: impl Into<String>,
    stage: Stage,
    bytes: Vec<u8>,
    expected: &'static [Outcome],
) -> Case {
    Case {
        name: name.into(),
        stage,
        bytes,
        leaves: false,
        silent: false,
        expected,
    }
}

impl Case {
    fn leaves(self) -> Self {
        Self {
            leaves: true,
            ..self
        }
    }

    fn silent(self) -> Self {
        Self {
            silent: true,
            ..self
        }
    }
}

/// A command in one packet.
fn command(
    name: impl Into<String>,
    stage: Stage,
    payload: &[u8],
    expected: &'static [Outcome],
) -> Case {
    case(name, stage, framed(0, payload), expected)
}

/// Other protocols at the port, and clients that do not listen.
fn strangers() -> Vec<Case> {
    let words: [(&str, &[u8]); 10] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
        (
            "TLS",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        ("PostgreSQL", b"\0\0\0\x08\x04\xd2\x16\x2f"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n"),
        ("PROXY v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 3306\r\n"),
        (
            "PROXY v2",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x10\0\x0c\xea",
        ),
        ("SMTP", b"EHLO example.org\r\n"),
        ("line ends", b"\r\n\r\n\r\n\r\n\r\n"),
    ];
    let mut cases = Vec::new();
    for (name, bytes) in words {
        // A balancer that is not listed is told so.
        let expected = if name.starts_with("PROXY") {
            BAD_HANDSHAKE
        } else {
            OUT_OF_ORDER
        };
        for stage in [Stage::Unread, Stage::Greeted] {
            cases.push(case(
                format!("{name}, {stage:?}"),
                stage,
                bytes.to_vec(),
                expected,
            ));
        }
        cases.push(
            case(
                format!("{name}, in a session"),
                Stage::In,
                bytes.to_vec(),
                OUT_OF_ORDER,
            )
            .leaves(),
        );
    }
    cases.push(case("nothing at all", Stage::Greeted, Vec::new(), DROPPED).leaves());
    cases.push(case(
        "a command instead of a login",
        Stage::Greeted,
        framed(1, b"\x03SELECT 1"),
        BAD_HANDSHAKE,
    ));
    cases.push(case(
        "a ping instead of a login",
        Stage::Greeted,
        framed(1, b"\x0e"),
        BAD_HANDSHAKE,
    ));
    cases.push(case(
        "a login without having been greeted",
        Stage::Unread,
        framed(1, &login_payload("app", b"", "mysql_native_password")),
        KEPT_OUT,
    ));
    cases
}

/// First packets that lie or end too early.
fn logins() -> Vec<Case> {
    let mut cases = Vec::new();
    let good = login_payload("app", &[7; 20], "mysql_native_password");
    for end in 0..good.len() {
        let payload = good.get(..end).unwrap_or_default();
        let name = format!("a login of {end} bytes");
        // Up to the end of the proof.
        let expected = if end < 57 { BAD_HANDSHAKE } else { KEPT_OUT };
        cases.push(case(name, Stage::Greeted, framed(1, payload), expected));
    }
    for end in 0..framed(1, &good).len() {
        let bytes = framed(1, &good)[..end].to_vec();
        let name = format!("a login cut off after {end} bytes");
        cases.push(case(name, Stage::Greeted, bytes, DROPPED).leaves());
    }
    for (name, bits) in [
        ("no capabilities", 0_u32),
        ("all capabilities", u32::MAX),
        ("all but TLS and compression", !(1 << 11 | 1 << 5 | 1 << 26)),
        ("attributes that are not there", 0x0018_8200 | 1 << 20),
        (
            "lengths of proofs that are not there",
            0x0008_8200 | 1 << 21,
        ),
        ("a schema that is not there", 0x0008_8208),
        ("compression", 0x0008_8220),
        ("TLS after a whole login", 0x0008_8a00),
        ("the protocol of old", 0x0000_8000),
    ] {
        let mut payload = good.clone();
        payload[..4].copy_from_slice(&bits.to_le_bytes());
        cases.push(case(
            format!("a login with {name}"),
            Stage::Greeted,
            framed(1, &payload),
            KEPT_OUT,
        ));
    }
    for collation in [0, 1, 17, 99, 254, 255] {
        let mut payload = good.clone();
        payload[8] = collation;
        let name = format!("a login with collation {collation}");
        cases.push(case(name, Stage::Greeted, framed(1, &payload), KEPT_OUT));
    }
    for length in [0, 1, 19, 21, 200, 250, 251, 252, 253, 254, 255] {
        let mut payload = good.clone();
        payload[36] = length;
        let name = format!("a proof said to have {length} bytes");
        let expected = if length > 43 { BAD_HANDSHAKE } else { KEPT_OUT };
        cases.push(case(name, Stage::Greeted, framed(1, &payload), expected));
    }
    // The same where the length is a length-encoded number, and attributes follow.
    for (name, tail) in [
        ("a huge proof", &b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff"[..]),
        ("a proof of NULL", b"\xfb"),
        ("a proof of 16 MiB", b"\xfd\xff\xff\xff"),
        (
            "a huge block of attributes",
            b"\0mysql_native_password\0\xfe\xff\xff\xff\xff\xff\xff\xff\x7f",
        ),
        (
            "attributes that overlap",
            b"\0mysql_native_password\0\x05\xfc\xff\xffab",
        ),
        (
            "an attribute without a value",
            b"\0mysql_native_password\0\x03\x02ab",
        ),
    ] {
        let mut payload = (0x0038_8200_u32).to_le_bytes().to_vec();
        payload.extend_from_slice(&[0, 0, 0, 64, 45]);
        payload.extend_from_slice(&[0; 23]);
        payload.extend_from_slice(b"app\0");
        payload.extend_from_slice(tail);
        cases.push(case(
            format!("a login with {name}"),
            Stage::Greeted,
            framed(1, &payload),
            KEPT_OUT,
        ));
    }
    for sequence in [0, 2, 3, 255] {
        let name = format!("a login with sequence id {sequence}");
        cases.push(case(
            name,
            Stage::Greeted,
            framed(sequence, &good),
            OUT_OF_ORDER,
        ));
    }
    let huge_name = login_payload(&"x".repeat(5000), b"", "mysql_native_password");
    cases.push(case(
        "a user name of 5000 bytes",
        Stage::Greeted,
        framed(1, &huge_name),
        KEPT_OUT,
    ));
    let odd_name = login_payload("a'\u{fffd}\n\r--", b"", "mysql_native_password");
    cases.push(case(
        "a user name with line ends",
        Stage::Greeted,
        framed(1, &odd_name),
        KEPT_OUT,
    ));
    let plugin = login_payload("app", b"", &"p".repeat(3000));
    cases.push(
        case(
            "a plugin name of 3000 bytes",
            Stage::Greeted,
            framed(1, &plugin),
            KEPT_OUT,
        )
        .leaves(),
    );
    cases.push(case(
        "a login of 60000 bytes",
        Stage::Greeted,
        framed(1, &[b'x'; 60_000]),
        BAD_HANDSHAKE,
    ));
    cases.push(case(
        "a login of 100000 bytes",
        Stage::Greeted,
        framed(1, &[b'x'; 100_000]),
        TURNED_AWAY,
    ));
    cases.push(case(
        "a login announced with 16 MiB",
        Stage::Greeted,
        b"\xff\xff\xff\x01".to_vec(),
        TURNED_AWAY,
    ));
    cases.push(case(
        "a login announced with 15 MiB",
        Stage::Greeted,
        b"\0\0\xf0\x01abc".to_vec(),
        TURNED_AWAY,
    ));
    // TLS is asked for, and something else follows.
    let request = [
        &0x0008_8a00_u32.to_le_bytes()[..],
        &[0, 0, 0, 64, 45],
        &[0; 23],
    ]
    .concat();
    for (name, rest) in [
        ("nothing", &b""[..]),
        ("a plain login", &framed(2, &good)),
        ("a record that is cut short", b"\x16\x03\x01\x02\0\x01"),
        ("an alert", b"\x15\x03\x03\0\x02\x02\x28"),
        ("zeros", &[0; 64]),
        ("an oversized record", b"\x16\x03\x03\xff\xff\x01\0\0\0"),
    ] {
        let bytes = [&framed(1, &request)[..], rest].concat();
        cases.push(case(format!("TLS, then {name}"), Stage::Greeted, bytes, KEPT_OUT).leaves());
    }
    cases
}

/// Answers to an authentication switch.
fn switches() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [
        0, 1, 2, 4, 8, 19, 20, 21, 31, 32, 33, 64, 255, 256, 4096, 60_000,
    ] {
        for sequence in [3, 0, 9] {
            let name = format!("{length} bytes for a switch, sequence id {sequence}");
            let bytes = framed(sequence, &vec![b'x'; length]);
            let expected = if sequence == 3 { DENIED } else { OUT_OF_ORDER };
            cases.push(case(name, Stage::Switched, bytes, expected));
        }
    }
    cases.push(
        case(
            "no answer to a switch",
            Stage::Switched,
            Vec::new(),
            DROPPED,
        )
        .leaves(),
    );
    cases.push(case(
        "a switch answered with 16 MiB",
        Stage::Switched,
        b"\xff\xff\xff\x03xx".to_vec(),
        TURNED_AWAY,
    ));
    cases
}

/// Packet headers that lie.
fn framings() -> Vec<Case> {
    let mut cases = Vec::new();
    for stage in [Stage::In, Stage::InModern] {
        cases.push(case(
            format!("an empty packet, {stage:?}"),
            stage,
            vec![0, 0, 0, 0],
            REFUSED,
        ));
        for sequence in [1, 2, 127, 255] {
            let name = format!("a ping with sequence id {sequence}, {stage:?}");
            cases.push(case(name, stage, framed(sequence, b"\x0e"), OUT_OF_ORDER));
            let name = format!("a query with sequence id {sequence}, {stage:?}");
            cases.push(case(
                name,
                stage,
                framed(sequence, b"\x03SELECT 1"),
                OUT_OF_ORDER,
            ));
            let name = format!("a write with sequence id {sequence}, {stage:?}");
            cases.push(case(
                name,
                stage,
                framed(sequence, b"\x03DO 1"),
                OUT_OF_ORDER,
            ));
        }
        cases.push(
            case(
                format!("half a header, {stage:?}"),
                stage,
                vec![5, 0],
                DROPPED,
            )
            .leaves(),
        );
        for length in [1_u32, 5, 1000, 100_000, 2_000_000, 0xff_fffe, 0xff_ffff] {
            let length = length.to_le_bytes();
            let header = vec![length[0], length[1], length[2], 0];
            let name = format!("{length:?} bytes announced, none sent, {stage:?}");
            cases.push(case(name, stage, header.clone(), DROPPED).leaves());
            for code in [0x03, 0x16, 0x17, 0x18, 0x11, 0x0e, 0x1f, 0xfa] {
                let bytes = [&header[..], &[code], &b"a"[..]].concat();
                let name = format!("{length:?} bytes of {code:#x} announced, two sent, {stage:?}");
                if length[0] != 1 {
                    cases.push(case(name, stage, bytes, DROPPED).leaves());
                }
            }
        }
    }
    cases
}

/// Every command with every body that is too short, and unknown ones.
fn commands() -> Vec<Case> {
    let whole: [(&str, &[u8], &[Outcome]); 12] = [
        ("COM_INIT_DB", b"\x02no_such_schema", REFUSED),
        ("COM_FIELD_LIST", b"\x04no_such_table\0%", REFUSED),
        ("COM_REFRESH", b"\x07\x80", ANSWERED),
        ("COM_PROCESS_KILL", b"\x0c\xff\xff\xff\x7f", REFUSED),
        ("COM_STMT_PREPARE", b"\x16SELECT FROM", REFUSED),
        ("COM_STMT_EXECUTE", b"\x17\x09\0\0\0\0\x01\0\0\0", REFUSED),
        ("COM_STMT_RESET", b"\x1a\x09\0\0\0", REFUSED),
        ("COM_SET_OPTION", b"\x1b\x02\0", ANSWERED),
        ("COM_STMT_FETCH", b"\x1c\x09\0\0\0\x01\0\0\0", REFUSED),
        (
            "COM_STMT_BULK_EXECUTE",
            b"\xfa\x09\0\0\0\x80\0\x03\0",
            REFUSED,
        ),
        (
            "COM_BINLOG_DUMP",
            b"\x12\x04\0\0\0\0\0\x01\0\0\0nofile",
            REFUSED_OR_EXPELLED,
        ),
        (
            "COM_REGISTER_SLAVE",
            b"\x15\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            REFUSED_OR_EXPELLED,
        ),
    ];
    let mut cases = Vec::new();
    for (name, payload, expected) in whole {
        for end in 1..=payload.len() {
            let payload = payload.get(..end).unwrap_or_default();
            cases.push(command(
                format!("{name} of {end} bytes"),
                Stage::In,
                payload,
                expected,
            ));
        }
    }
    let silent: [(&str, &[u8]); 2] = [
        ("COM_STMT_SEND_LONG_DATA", b"\x18\x09\0\0\0\x01\0data"),
        ("COM_STMT_CLOSE", b"\x19\x09\0\0\0"),
    ];
    for (name, payload) in silent {
        for end in 1..=payload.len() {
            let payload = payload.get(..end).unwrap_or_default();
            cases.push(
                command(
                    format!("{name} of {end} bytes"),
                    Stage::In,
                    payload,
                    UNANSWERED,
                )
                .silent(),
            );
        }
    }
    for code in [
        0x00, 0x05, 0x0b, 0x0f, 0x10, 0x13, 0x14, 0x1d, 0x20, 0x21, 0x22, 0x7f, 0xfe, 0xff,
    ] {
        cases.push(command(
            format!("command {code:#x}"),
            Stage::In,
            &[code],
            REFUSED_OR_EXPELLED,
        ));
        cases.push(command(
            format!("command {code:#x} with a body"),
            Stage::In,
            &[code, 1, 2, 3, 4],
            REFUSED_OR_EXPELLED,
        ));
    }
    let queries: [(&str, &[u8]); 12] = [
        ("nothing", b""),
        ("a NUL", b"\0"),
        ("half a string", b"SELECT 'abc"),
        ("half a comment", b"SELECT /* abc"),
        ("half an executable comment", b"SELECT /*!99999 abc"),
        ("half an identifier", b"SELECT `abc"),
        ("bytes that are no text", b"SELECT \xff\xfe\x80\xc0"),
        ("a thousand brackets", &[b'('; 1000]),
        ("a backslash at the end", b"SELECT '\\"),
        ("half a statement", b"SELECT 1 +"),
        ("half a second statement", b"SELECT 1; SELECT '"),
        ("a delimiter", b";"),
    ];
    for (name, text) in queries {
        for code in [0x03, 0x16] {
            let payload = [&[code], text].concat();
            // The first statement is sound; several cannot be prepared.
            let first_is_sound = name == "half a second statement" && code == 0x03;
            let expected = if first_is_sound { SERVED } else { REFUSED };
            cases.push(command(
                format!("{name} as text of {code:#x}"),
                Stage::In,
                &payload,
                expected,
            ));
        }
    }
    let brackets = [&b"\x03SELECT "[..], &[b'('; 60_000]].concat();
    cases.push(command(
        "sixty thousand brackets",
        Stage::In,
        &brackets,
        REFUSED,
    ));
    let quit = [framed(0, b"\x01"), framed(0, b"\x03SELECT 1")].concat();
    cases.push(case("a command after COM_QUIT", Stage::In, quit, DROPPED));
    cases.push(command(
        "COM_QUIT with a body",
        Stage::In,
        b"\x01abc",
        DROPPED,
    ));
    cases.push(command(
        "a fetch of nothing",
        Stage::Prepared,
        b"\x1c\x01\0\0\0\x01\0\0\0",
        REFUSED,
    ));
    cases.push(command(
        "a fetch of nothing after an execution",
        Stage::Executed,
        b"\x1c\x01\0\0\0\x01\0\0\0",
        REFUSED,
    ));
    cases
}

/// Executions of a statement of two parameters.
fn executions() -> Vec<Case> {
    let good = b"\x17\x01\0\0\0\0\x01\0\0\0\0\x01\x08\0\x08\0AAAAAAAABBBBBBBB";
    let mut cases = Vec::new();
    for end in 1..good.len() {
        let name = format!("an execution of {end} bytes");
        // Up to the end of the types; what the values lack the server says.
        let expected = if end < 16 { REFUSED } else { ANSWERED };
        cases.push(command(name, Stage::Prepared, &good[..end], expected));
    }
    // MariaDB's servers end themselves for these.
    for end in [12, 28] {
        let mut payload = good[..end].to_vec();
        payload[11] = 0;
        let name = format!("a first execution of {end} bytes without types");
        cases.push(command(name, Stage::Prepared, &payload, UNTYPED));
    }
    for end in [5, 9, 10, 11, 12, 13, 20] {
        let name = format!("an execution of {end} bytes after a good one");
        cases.push(command(name, Stage::Executed, &good[..end], ANSWERED));
    }
    let mut change = |name: String, at: usize, bytes: &[u8]| {
        let mut payload = good.to_vec();
        payload.splice(at..at + bytes.len(), bytes.iter().copied());
        cases.push(command(name, Stage::Prepared, &payload, ANSWERED));
    };
    for kind in [0x20, 0x50, 0x7f, 0xf4, 0xf5, 0xff] {
        change(format!("parameter type {kind:#x}"), 12, &[kind]);
    }
    for kind in [0xf6, 0xfc, 0xfd, 0xfe, 0x0f, 0x10] {
        // A string whose length is the first byte of its value: 0x41, more than there is.
        change(
            format!("a string of type {kind:#x} beyond the end"),
            12,
            &[kind],
        );
    }
    for kind in [0x07, 0x0a, 0x0b, 0x0c] {
        change(format!("a time of type {kind:#x} of 65 bytes"), 12, &[kind]);
    }
    for flags in [0x01, 0x02, 0x04, 0x07, 0x80, 0xff] {
        change(format!("cursor flags {flags:#x}"), 5, &[flags]);
    }
    for iterations in [0_u32, 2, u32::MAX] {
        change(
            format!("{iterations} iterations"),
            6,
            &iterations.to_le_bytes(),
        );
    }
    for nulls in [1, 3, 0xfc, 0xff] {
        change(format!("NULL bitmap {nulls:#x}"), 10, &[nulls]);
    }
    for bound in [2, 0xff] {
        change(format!("types bound: {bound}"), 11, &[bound]);
    }
    for id in [0_u32, 2, 0x8000_0000, u32::MAX] {
        change(
            format!("an execution of statement {id}"),
            1,
            &id.to_le_bytes(),
        );
    }
    for (name, value) in [
        ("NULL", &b"\xfb"[..]),
        ("two bytes of length", b"\xfc\xff\xff"),
        ("three bytes of length", b"\xfd\xff\xff\xff"),
        (
            "eight bytes of length",
            b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        ("half of eight bytes of length", b"\xfe\xff\xff\xff\xff"),
        (
            "a length that overflows",
            b"\xfe\xf8\xff\xff\xff\xff\xff\xff\x7f",
        ),
        ("no length", b"\xff"),
    ] {
        let payload = [&good[..12], &b"\xfd\0\xfd\0"[..], value].concat();
        cases.push(command(
            format!("a string with {name}"),
            Stage::Prepared,
            &payload,
            ANSWERED,
        ));
    }
    for (name, payload) in [
        (
            "long data for parameter 2 of 2",
            &b"\x18\x01\0\0\0\x02\0data"[..],
        ),
        (
            "long data for parameter 65535",
            b"\x18\x01\0\0\0\xff\xffdata",
        ),
        ("long data without data", b"\x18\x01\0\0\0\0\0"),
        ("long data cut short", b"\x18\x01\0\0\0\0"),
        ("long data for statement 0", b"\x18\0\0\0\0\0\0data"),
        (
            "long data for the last statement",
            b"\x18\xff\xff\xff\xff\0\0data",
        ),
    ] {
        cases.push(command(name, Stage::Prepared, payload, UNANSWERED).silent());
    }
    cases
}

/// What is sent in place of a file.
fn files() -> Vec<Case> {
    let ask = |name: &str, bytes: Vec<u8>, expected| case(name, Stage::Asked, bytes, expected);
    let gone = |name: &str, bytes: Vec<u8>| ask(name, bytes, OVER).leaves();
    vec![
        gone("a file that never ends", framed(2, b"1\n2\n")),
        gone("no file", Vec::new()),
        gone("a file cut off in a packet", b"\xff\0\0\x021\n".to_vec()),
        gone(
            "a file announced with 16 MiB",
            b"\xff\xff\xff\x021\n".to_vec(),
        ),
        gone("half a header of a file", vec![0, 0]),
        ask(
            "a file with sequence ids 9 and 4",
            [framed(9, b"1\n"), framed(4, b"")].concat(),
            OUT_OF_ORDER,
        ),
        ask(
            "a file with sequence ids 2 and 4",
            [framed(2, b"1\n"), framed(4, b"")].concat(),
            OUT_OF_ORDER,
        ),
        ask("an empty file", framed(2, b""), SERVED),
        ask(
            "an empty file with sequence id 9",
            framed(9, b""),
            OUT_OF_ORDER,
        ),
        ask(
            "a file that is no text",
            [framed(2, &[0xff; 200]), framed(3, b"")].concat(),
            ANSWERED,
        ),
        ask(
            "a query as a file",
            [framed(0, b"\x03SELECT 1"), framed(1, b"")].concat(),
            OUT_OF_ORDER,
        ),
    ]
}

/// COM_CHANGE_USER cut short at each byte, and answers to its switch.
fn changes_of_user() -> Vec<Case> {
    let mut cases = Vec::new();
    let good = b"\x11app\0\x14xxxxxxxxxxxxxxxxxxxxtest\0\x2d\0mysql_native_password\0";
    for end in 1..=good.len() {
        let name = format!("a change of user of {end} bytes");
        cases.push(command(name, Stage::In, &good[..end], NO_CHANGE));
    }
    for length in [1, 19, 21, 100, 255] {
        let mut payload = good.to_vec();
        payload[5] = length;
        let name = format!("a change of user with a proof said to have {length} bytes");
        cases.push(command(name, Stage::In, &payload, NO_CHANGE));
    }
    for length in [0, 1, 20, 32, 300, 60_000] {
        for sequence in [2, 0, 77] {
            let name = format!("{length} bytes for the switch of a change, sequence id {sequence}");
            let bytes = framed(sequence, &vec![b'x'; length]);
            let expected = if sequence == 2 {
                NO_CHANGE
            } else {
                SWITCH_OUT_OF_ORDER
            };
            cases.push(case(name, Stage::Changing, bytes, expected));
        }
    }
    cases.push(
        case(
            "no answer to the switch of a change",
            Stage::Changing,
            Vec::new(),
            DROPPED,
        )
        .leaves(),
    );
    cases
}

/// Bytes without any sense, the same in every run.
fn noise() -> Vec<Case> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut byte = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let mut cases = Vec::new();
    for (stage, first) in [
        (Stage::Unread, 1),
        (Stage::Greeted, 1),
        (Stage::Switched, 3),
        (Stage::In, 0),
        (Stage::InModern, 0),
        (Stage::Prepared, 0),
        (Stage::Changing, 2),
    ] {
        let logged_in = !matches!(stage, Stage::Unread | Stage::Greeted | Stage::Switched);
        let expected = if logged_in { OVER } else { KEPT_OUT };
        for round in 0..6 {
            let length = 3 + 30 * round;
            let bytes: Vec<u8> = (0..length).map(|_| byte()).collect();
            let name = format!("{length} bytes of noise, {stage:?}");
            cases.push(case(name, stage, bytes.clone(), expected).leaves());
            let name = format!("a packet with {length} bytes of noise, {stage:?}");
            cases.push(case(name, stage, framed(first, &bytes), expected).leaves());
        }
    }
    cases
}
