//! The table of servers that break the rules, and what their clients see of it.

use super::offender::framed;
use super::tamper::{After, Deed, When};

/// What the client of a statement sees that was answered against the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing of it: a read is answered by another server, a write with an error.
    Spared,
    /// A part of an answer, and then the end of the connection; or nothing of it, if all of it came at once.
    Cut,
    /// The answer: it does not break the rules of the protocol, or it is the client's business.
    Passed,
}

impl Fate {
    /// Whether a client may see this where it is to see `self`.
    pub(crate) fn allows(self, seen: Self) -> bool {
        self == seen || (self, seen) == (Self::Cut, Self::Spared)
    }
}

/// One server that breaks the rules.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) deed: Deed,
    pub(crate) fate: Fate,
}

/// Answers to statements.
pub(crate) fn answers() -> Vec<Case> {
    let case = |name, bytes: &[u8], after, fate| Case {
        name,
        deed: Deed {
            when: When::Asked,
            bytes: bytes.to_vec(),
            after,
        },
        fate,
    };
    let ok = framed(1, &[0, 0, 0, 2, 0, 0, 0]);
    let start = [
        framed(1, &[1]),
        framed(2, b"\x03def\0\0\0\x01a\0\x0c\x2d\0\0\x04\0\0\xfd\0\0\0\0\0"),
        framed(3, &[0xfe, 0, 0, 2, 0]),
    ]
    .concat();
    let after_start = |rest: &[u8]| [&start[..], rest].concat();
    use After::{Close, Silence};
    use Fate::{Cut, Passed, Spared};
    vec![
        case("nothing", b"", Close, Spared),
        case("half a header", &[7, 0], Close, Spared),
        case("half an OK", &ok[..8], Close, Spared),
        case(
            "another protocol",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            Silence,
            Spared,
        ),
        case("zeros", &[0; 64], Silence, Spared),
        case("a wrong sequence id", &framed(5, &ok[4..]), Silence, Spared),
        case("an empty packet", &framed(1, b""), Silence, Spared),
        case("an OK of one byte", &framed(1, &[0]), Silence, Spared),
        case(
            "an OK with half a number",
            &framed(1, &[0, 0, 0xfe, 0xff]),
            Silence,
            Spared,
        ),
        case("an OK of 16 MiB", b"\xff\xff\xff\x01\0", Silence, Spared),
        case("an OK of 2 MiB", b"\0\0\x20\x01\0", Silence, Spared),
        case("an error of one byte", &framed(1, &[0xff]), Silence, Spared),
        case(
            "an error with half a state",
            &framed(1, b"\xff\x15\x04#4"),
            Silence,
            Spared,
        ),
        case(
            "an end in place of a result",
            &framed(1, &[0xfe, 0, 0, 2, 0]),
            Silence,
            Spared,
        ),
        case(
            "a file that nobody offered",
            &framed(1, b"\xfb/etc/passwd"),
            Silence,
            Spared,
        ),
        case(
            "2^64 columns",
            &framed(1, &[0xfe, 255, 255, 255, 255, 255, 255, 255, 255]),
            Silence,
            Spared,
        ),
        case(
            "65536 columns",
            &framed(1, &[0xfd, 0, 0, 1]),
            Silence,
            Spared,
        ),
        case(
            "columns with a tail",
            &framed(1, &[1, 2, 3]),
            Silence,
            Spared,
        ),
        case(
            "half a number of columns",
            &framed(1, &[0xfc, 1]),
            Silence,
            Spared,
        ),
        case(
            "65535 columns, none defined",
            &framed(1, &[0xfc, 255, 255]),
            Close,
            Cut,
        ),
        case("no definition", &framed(1, &[1]), Close, Cut),
        case(
            "an empty definition",
            &[framed(1, &[1]), framed(2, b"")].concat(),
            Silence,
            Cut,
        ),
        case("no rows", &start, Close, Cut),
        case(
            "half a row",
            &after_start(b"\x09\0\0\x04\x08abc"),
            Close,
            Cut,
        ),
        case(
            "a row out of order",
            &after_start(&framed(9, b"\x01a")),
            Silence,
            Cut,
        ),
        case("an empty row", &after_start(&framed(4, b"")), Silence, Cut),
        case(
            "an end that is cut short",
            &after_start(&framed(4, &[0xfe, 0, 0])),
            Silence,
            Cut,
        ),
        case(
            "an OK as an end",
            &after_start(&framed(4, &[0xfe, 0, 0, 2, 0, 0, 0])),
            Silence,
            Cut,
        ),
        case(
            "half an error among rows",
            &after_start(&[framed(4, b"\x01a"), framed(5, &[0xff])].concat()),
            Silence,
            Cut,
        ),
        case(
            "rows for ever",
            &after_start(b"\xff\xff\xff\x04\x08abc"),
            After::Repeat(1),
            Cut,
        ),
        case(
            "an error among rows",
            &after_start(&[framed(4, b"\x01a"), framed(5, b"\xff\x15\x04#42000no")].concat()),
            Silence,
            Passed,
        ),
        case(
            "session state beyond its end",
            &framed(1, &[0, 0, 0, 2, 0x40, 0, 0, 0, 4, 0, 200, 1, 1]),
            Silence,
            Passed,
        ),
        case(
            "session state of 250 bytes that are not there",
            &framed(1, &[0, 0, 0, 2, 0x40, 0, 0, 0, 250, 0]),
            Silence,
            Spared,
        ),
        case("two answers", &[ok.clone(), ok].concat(), Silence, Passed),
    ]
}

/// Greetings, and answers to the proxy's login.
pub(crate) fn logins() -> Vec<(&'static str, Deed)> {
    let deed = |when, bytes: &[u8], after| Deed {
        when,
        bytes: bytes.to_vec(),
        after,
    };
    let greet = |bytes: &[u8]| deed(When::Connected, bytes, After::Silence);
    let reply = |bytes: &[u8]| deed(When::LoggingIn, bytes, After::Silence);
    let switch =
        |plugin: &[u8]| framed(2, &[b"\xfe", plugin, b"\0aaaaaaaaaaaaaaaaaaaa\0"].concat());
    let more = |rest: &[u8]| framed(2, &[b"\x01", rest].concat());
    vec![
        ("no greeting", deed(When::Connected, b"", After::Close)),
        ("a greeting that never comes", greet(b"")),
        ("another protocol", greet(b"SSH-2.0-OpenSSH_9.2p1\r\n")),
        ("zeros", greet(&[0; 200])),
        (
            "zeros for ever",
            deed(When::Connected, &[0; 64], After::Repeat(64)),
        ),
        ("a greeting of 16 MiB", greet(b"\xff\xff\xff\0\x0a")),
        (
            "a greeting of an old protocol",
            greet(&framed(0, b"\x095.0.0\0\0\0\0\0aaaaaaaa\0")),
        ),
        (
            "a version without an end",
            greet(&framed(0, &[b'\x0a'; 60_000])),
        ),
        (
            "half a greeting",
            greet(&framed(0, b"\x0a8.4.0\0\x01\0\0\0aaaa")),
        ),
        (
            "too many connections",
            greet(&framed(0, b"\xff\x10\x04Too many connections")),
        ),
        (
            "no answer to a login",
            deed(When::LoggingIn, b"", After::Close),
        ),
        ("half an answer to a login", reply(&[7, 0, 0, 2, 0])),
        ("an empty answer to a login", reply(&framed(2, b""))),
        ("an unknown plugin", reply(&switch(b"no_such_plugin"))),
        (
            "the password in clear",
            reply(&switch(b"mysql_clear_password")),
        ),
        (
            "a switch without a scramble",
            reply(&framed(2, b"\xfecaching_sha2_password")),
        ),
        (
            "a key that is none",
            reply(&more(
                b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            )),
        ),
        ("an unknown step", reply(&more(b"\x09"))),
        (
            "steps for ever",
            deed(When::LoggingIn, &more(b"\x03"), After::Repeat(6)),
        ),
    ]
}
