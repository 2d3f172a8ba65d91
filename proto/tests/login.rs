//! Our client against our server: every plugin, every state of knowledge, both kinds of channel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use bytes::BytesMut;
use dbproxy_proto::command::Command;
use dbproxy_proto::handshake::auth::{
    AuthPlugin, Channel, NativeStage1, Scramble, SecretBytes, Secrets, Sha2Stage1,
};
use dbproxy_proto::handshake::client::{
    self, ClientLogin, LoggedIn, Login, LoginError, ServerGreeting,
};
use dbproxy_proto::handshake::pem;
use dbproxy_proto::handshake::server::{
    self, Credential, FirstPacket, Greeting, Outcome, Proof, ServerAuth,
};
use dbproxy_proto::reply::{ErrPacket, OkHeader, OkPacket, put_err, put_ok};
use dbproxy_proto::{Capabilities, ProtocolError, StatusFlags};

const RIGHT: &[u8] = b"correct horse";
const WRONG: &[u8] = b"battery staple";
const KEY: &[u8] = b"not really a key";
const CAPS: Capabilities = Capabilities::LONG_PASSWORD
    .union(Capabilities::PROTOCOL_41)
    .union(Capabilities::SECURE_CONNECTION)
    .union(Capabilities::PLUGIN_AUTH)
    .union(Capabilities::CONNECT_WITH_DB);

fn greeting_scramble() -> Scramble {
    Scramble::from_random(*b"a greeting's nonce !")
}

fn switch_scramble() -> Scramble {
    Scramble::from_random(*b"another nonce, later")
}

fn greeting(plugin: AuthPlugin) -> Vec<u8> {
    Greeting {
        version: "9.7.4",
        connection_id: 77,
        scramble: greeting_scramble(),
        capabilities: CAPS | Capabilities::PLUGIN_AUTH_LENENC_DATA,
        collation: 255,
        status: StatusFlags::AUTOCOMMIT,
        plugin,
    }
    .payload()
}

fn login(secrets: Secrets, channel: Channel) -> Login {
    Login {
        secrets,
        database: Some(b"shop".to_vec()),
        ..Login::new("ann", CAPS, channel)
    }
}

/// Runs a whole login. RSA is left out: the ciphertext is the message.
fn meet(
    greeting: &[u8],
    login: Login,
    auth: ServerAuth,
) -> (Result<LoggedIn, LoginError>, Option<Outcome>) {
    let seen = ServerGreeting::parse(greeting).unwrap();
    let (first, mut client) = match login.start(&seen) {
        Ok(client::Step::Send { payload, next }) => (payload, next),
        Ok(other) => panic!("{other:?}"),
        Err(error) => return (Err(error), None),
    };
    let FirstPacket::Login(request) = FirstPacket::parse(&first).unwrap() else {
        panic!()
    };
    assert_eq!(
        (request.user, request.database),
        (&b"ann"[..], Some(&b"shop"[..]))
    );
    let mut step = auth.start(request.answer(greeting_scramble()), switch_scramble());
    loop {
        step = match step {
            server::Step::Send { payload, next } => match talk(client, &payload) {
                Ok((reply, machine)) => {
                    client = machine;
                    next.handle(&reply.unwrap())
                }
                Err(error) => return (Err(error), None),
            },
            server::Step::Decrypt { ciphertext, next } => next.handle(Some(&ciphertext)),
            server::Step::Finished { payload, outcome } => {
                if let Some(payload) = payload {
                    let (reply, machine) = talk(client, &payload).unwrap();
                    assert!(reply.is_none());
                    client = machine;
                }
                let mut last = BytesMut::new();
                match outcome {
                    Outcome::Proven(_) => {
                        put_ok(&mut last, &mut 0, &OkPacket::default(), OkHeader::Ok, CAPS)
                    }
                    _ => {
                        let err = ErrPacket {
                            code: 1045,
                            sqlstate: *b"28000",
                            message: b"Access denied",
                        };
                        put_err(&mut last, &mut 0, &err, CAPS);
                    }
                }
                return match client.handle(&last[4..]) {
                    Ok(client::Step::Done(logged_in)) => (Ok(logged_in), Some(outcome)),
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => (Err(error), Some(outcome)),
                };
            }
        }
    }
}

fn talk(
    client: ClientLogin,
    payload: &[u8],
) -> Result<(Option<SecretBytes>, ClientLogin), LoginError> {
    Ok(match client.handle(payload)? {
        client::Step::Send { payload, next } => (Some(payload), next),
        client::Step::Receive(next) => (None, next),
        client::Step::Encrypt { key, message, next } => {
            assert_eq!(key, KEY);
            let client::Step::Send { payload, next } = next.handle(&message) else {
                panic!()
            };
            (Some(payload), next)
        }
        client::Step::Done(_) => panic!("logged in too early"),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    NoPassword,
    Native,
    NativeTwice,
    Sha2Known,
    Sha2Twice,
    Sha2Outdated,
    Sha2Unknown,
    Cleartext,
}

const ACCOUNTS: [Account; 8] = [
    Account::NoPassword,
    Account::Native,
    Account::NativeTwice,
    Account::Sha2Known,
    Account::Sha2Twice,
    Account::Sha2Outdated,
    Account::Sha2Unknown,
    Account::Cleartext,
];

impl Account {
    fn credential(self) -> Credential {
        let sha2 = |known: &[&[u8]]| Credential::Password {
            known: known
                .iter()
                .map(|password| Sha2Stage1::of(password).stage2())
                .collect(),
        };
        match self {
            Self::NoPassword => Credential::NoPassword,
            Self::Native => Credential::Native(vec![NativeStage1::of(RIGHT).stage2()]),
            Self::NativeTwice => Credential::Native(
                [&b"long ago"[..], RIGHT]
                    .map(|password| NativeStage1::of(password).stage2())
                    .to_vec(),
            ),
            Self::Sha2Known => sha2(&[RIGHT]),
            Self::Sha2Twice => sha2(&[b"long ago", RIGHT]),
            Self::Sha2Outdated => sha2(&[b"long ago"]),
            Self::Sha2Unknown => sha2(&[]),
            Self::Cleartext => Credential::Cleartext(RIGHT.into()),
        }
    }
}

/// What the client knows.
#[derive(Debug, Clone, Copy)]
struct Knows {
    word: &'static [u8],
    password: bool,
    native: bool,
    sha2: bool,
}

impl Knows {
    fn secrets(self) -> Secrets {
        Secrets {
            password: self.password.then(|| self.word.into()),
            native_stage1: self.native.then(|| NativeStage1::of(self.word)),
            sha2_stage1: self.sha2.then(|| Sha2Stage1::of(self.word)),
        }
    }

    fn nothing(self) -> bool {
        !(self.password || self.native || self.sha2)
    }
}

/// What has to come out, in words of the protocol rather than of the machines.
fn expected(
    plugin: &AuthPlugin,
    account: Account,
    knows: Knows,
    channel: Channel,
) -> Result<Outcome, LoginError> {
    let denied = Ok(Outcome::Denied {
        with_password: !knows.nothing(),
    });
    let right = knows.word == RIGHT;
    let password = |verified| {
        Ok(Outcome::Proven(Proof::Password {
            password: knows.word.into(),
            verified,
        }))
    };
    let whole_password = || match account {
        Account::Native | Account::NativeTwice | Account::Cleartext if right => password(true),
        Account::Sha2Known | Account::Sha2Twice if right => password(true),
        Account::Sha2Known | Account::Sha2Twice | Account::Sha2Outdated | Account::Sha2Unknown => {
            password(false)
        }
        _ => denied.clone(),
    };
    if *plugin == AuthPlugin::MysqlClearPassword && channel == Channel::Plain {
        return Ok(Outcome::Unsupported);
    }
    if knows.nothing() {
        return match account {
            Account::NoPassword => Ok(Outcome::Proven(Proof::NoPassword)),
            _ => denied,
        };
    }
    let answerable = match plugin {
        AuthPlugin::MysqlNativePassword => knows.password || knows.native,
        AuthPlugin::CachingSha2Password => knows.password || knows.sha2,
        _ => knows.password,
    };
    if !answerable {
        // It declines, for the case that the account has another method.
        return match account {
            Account::NoPassword => Ok(Outcome::Proven(Proof::NoPassword)),
            _ => Err(LoginError::NeedPassword),
        };
    }
    match plugin {
        AuthPlugin::MysqlNativePassword => match account {
            Account::Native | Account::NativeTwice | Account::Cleartext if right => Ok(
                Outcome::Proven(Proof::NativeStage1(NativeStage1::of(RIGHT))),
            ),
            _ => denied,
        },
        AuthPlugin::CachingSha2Password => match account {
            Account::Sha2Known | Account::Sha2Twice | Account::Cleartext if right => {
                Ok(Outcome::Proven(Proof::Sha2Fast(Sha2Stage1::of(RIGHT))))
            }
            _ if !knows.password => Err(LoginError::NeedPassword),
            _ => whole_password(),
        },
        _ => whole_password(),
    }
}

#[test]
fn all_combinations() {
    let mut count = 0;
    for greeted in [
        AuthPlugin::MysqlNativePassword,
        AuthPlugin::CachingSha2Password,
        AuthPlugin::Sha256Password,
        AuthPlugin::Other("dialog".into()),
    ] {
        for plugin in [
            AuthPlugin::MysqlNativePassword,
            AuthPlugin::CachingSha2Password,
            AuthPlugin::Sha256Password,
            AuthPlugin::MysqlClearPassword,
        ] {
            for (account, channel) in ACCOUNTS
                .iter()
                .flat_map(|&a| [(a, Channel::Secure), (a, Channel::Plain)])
            {
                for (word, bits) in [RIGHT, WRONG]
                    .iter()
                    .flat_map(|&word| (0..8).map(move |bits| (word, bits)))
                {
                    let knows = Knows {
                        word,
                        password: bits & 1 != 0,
                        native: bits & 2 != 0,
                        sha2: bits & 4 != 0,
                    };
                    let auth = ServerAuth {
                        plugin: plugin.clone(),
                        credential: account.credential(),
                        channel,
                        public_key: Some(pem::encode(KEY).into_bytes().into()),
                    };
                    let (client, outcome) = meet(
                        &greeting(greeted.clone()),
                        login(knows.secrets(), channel),
                        auth,
                    );
                    let context = format!(
                        "{greeted} {plugin} {account:?} {channel:?} {knows:?}: {client:?} {outcome:?}"
                    );
                    match expected(&plugin, account, knows, channel) {
                        Ok(expected) => {
                            assert_eq!(outcome, Some(expected.clone()), "{context}");
                            assert_eq!(
                                client.is_ok(),
                                matches!(expected, Outcome::Proven(_)),
                                "{context}"
                            );
                        }
                        Err(expected) => assert_eq!(client, Err(expected), "{context}"),
                    }
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 4 * 4 * 8 * 2 * 2 * 8);
}

#[test]
fn a_server_without_a_key_denies_full_authentication_on_a_plain_channel() {
    let auth = ServerAuth {
        plugin: AuthPlugin::CachingSha2Password,
        credential: Credential::Password { known: Vec::new() },
        channel: Channel::Plain,
        public_key: None,
    };
    let secrets = Secrets {
        password: Some(RIGHT.into()),
        ..Secrets::default()
    };
    let (_, outcome) = meet(
        &greeting(AuthPlugin::CachingSha2Password),
        login(secrets, Channel::Plain),
        auth,
    );
    assert_eq!(
        outcome,
        Some(Outcome::Denied {
            with_password: true
        })
    );
}

fn first_packet(capabilities: Capabilities, tail: &[u8]) -> Vec<u8> {
    let mut payload = capabilities.standard().to_le_bytes().to_vec();
    payload.extend([0, 0, 0, 1, 45]);
    payload.extend([0; 19]);
    payload.extend(capabilities.extended().to_le_bytes());
    payload.extend(tail);
    payload
}

fn finish(auth: ServerAuth, payload: &[u8]) -> Outcome {
    let FirstPacket::Login(request) = FirstPacket::parse(payload).unwrap() else {
        panic!()
    };
    match auth.start(request.answer(greeting_scramble()), switch_scramble()) {
        server::Step::Finished { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    }
}

fn auth(plugin: AuthPlugin, credential: Credential) -> ServerAuth {
    ServerAuth {
        plugin,
        credential,
        channel: Channel::Plain,
        public_key: None,
    }
}

#[test]
fn habits_of_clients() {
    let native = || {
        auth(
            AuthPlugin::MysqlNativePassword,
            Credential::Native(vec![NativeStage1::of(RIGHT).stage2()]),
        )
    };
    let token = NativeStage1::of(RIGHT).token(&greeting_scramble());
    let proven = Outcome::Proven(Proof::NativeStage1(NativeStage1::of(RIGHT)));
    let old = Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION;

    // No PLUGIN_AUTH: it can only be mysql_native_password.
    let payload = first_packet(old, &[b"ann\0\x14", &token[..]].concat());
    assert_eq!(finish(native(), &payload), proven);
    let sha2 = auth(
        AuthPlugin::CachingSha2Password,
        Credential::Password { known: Vec::new() },
    );
    assert_eq!(finish(sha2, &payload), Outcome::Unsupported);

    // A NUL behind the token, and attributes announced but not sent.
    let named = old | Capabilities::PLUGIN_AUTH | Capabilities::CONNECT_ATTRS;
    let payload = first_packet(
        named,
        &[b"ann\0\x15", &token[..], b"\0mysql_native_password\0"].concat(),
    );
    assert_eq!(finish(native(), &payload), proven);

    // A single NUL is no password.
    let payload = first_packet(named, b"ann\0\x01\0caching_sha2_password\0");
    let nothing = auth(AuthPlugin::CachingSha2Password, Credential::NoPassword);
    assert_eq!(
        finish(nothing, &payload),
        Outcome::Proven(Proof::NoPassword)
    );
    let sha2 = auth(
        AuthPlugin::CachingSha2Password,
        Credential::Password { known: Vec::new() },
    );
    assert_eq!(
        finish(sha2, &payload),
        Outcome::Denied {
            with_password: false
        }
    );

    // Tokens of a wrong length are no tokens.
    let payload = first_packet(named, b"ann\0\x03abcmysql_native_password\0");
    assert_eq!(
        finish(native(), &payload),
        Outcome::Denied {
            with_password: true
        }
    );
}

#[test]
fn change_user_on_the_same_machine() {
    let token = Sha2Stage1::of(RIGHT).token(&greeting_scramble());
    let payload = [
        b"\x11ann\0\x20",
        &token[..],
        b"shop\0\x2d\0caching_sha2_password\0",
    ]
    .concat();
    let Ok(Command::ChangeUser(change)) = Command::parse(&payload, CAPS) else {
        panic!()
    };
    let known = vec![Sha2Stage1::of(RIGHT).stage2()];
    let step = auth(
        AuthPlugin::CachingSha2Password,
        Credential::Password { known },
    )
    .start(change.answer(greeting_scramble()), switch_scramble());
    let server::Step::Finished { payload, outcome } = step else {
        panic!()
    };
    assert_eq!(payload, Some(vec![1, 3]));
    assert!(matches!(outcome, Outcome::Proven(Proof::Sha2Fast(_))));

    // Another plugin's account: switched, with the new scramble.
    let stored = NativeStage1::of(RIGHT).stage2();
    let step = auth(
        AuthPlugin::MysqlNativePassword,
        Credential::Native(vec![stored]),
    )
    .start(change.answer(greeting_scramble()), switch_scramble());
    let server::Step::Send { payload, next } = step else {
        panic!()
    };
    assert_eq!(
        payload,
        [
            b"\xfemysql_native_password\0",
            &switch_scramble().as_bytes()[..],
            b"\0"
        ]
        .concat()
    );
    let step = next.handle(&NativeStage1::of(RIGHT).token(&switch_scramble()));
    assert!(matches!(
        step,
        server::Step::Finished {
            outcome: Outcome::Proven(_),
            ..
        }
    ));
}

#[test]
fn other_first_packets() {
    let tls = first_packet(CAPS | Capabilities::SSL, b"");
    assert!(matches!(
        FirstPacket::parse(&tls),
        Ok(FirstPacket::TlsRequest { .. })
    ));
    assert!(matches!(
        FirstPacket::parse(b"\x85\xa0\0\0\x01ann\0"),
        Err(ProtocolError::Unsupported(_))
    ));
    assert!(matches!(
        FirstPacket::parse(b"\x01"),
        Err(ProtocolError::Truncated(_))
    ));
    let mariadb =
        Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION | Capabilities::CACHE_METADATA;
    let payload = first_packet(mariadb, b"ann\0\0");
    let Ok(FirstPacket::Login(request)) = FirstPacket::parse(&payload) else {
        panic!()
    };
    assert_eq!(request.capabilities, mariadb);
    let payload = first_packet(mariadb | Capabilities::LONG_PASSWORD, b"ann\0\0");
    let Ok(FirstPacket::Login(request)) = FirstPacket::parse(&payload) else {
        panic!()
    };
    assert_eq!(request.capabilities.extended(), 0);
}

#[test]
fn greetings_of_servers() {
    let mariadb = Greeting {
        version: "5.5.5-10.11.6-MariaDB-log",
        connection_id: u32::MAX,
        scramble: greeting_scramble(),
        capabilities: CAPS.difference(Capabilities::LONG_PASSWORD) | Capabilities::CACHE_METADATA,
        collation: 45,
        status: StatusFlags::AUTOCOMMIT,
        plugin: AuthPlugin::MysqlNativePassword,
    };
    let seen = ServerGreeting::parse(&mariadb.payload()).unwrap();
    assert_eq!(seen.version, "10.11.6-MariaDB-log");
    assert_eq!(seen.capabilities, mariadb.capabilities);
    assert_eq!(
        (seen.connection_id, seen.collation, seen.scramble),
        (u32::MAX, 45, mariadb.scramble)
    );

    let old = Greeting {
        version: "5.5.5-m3",
        capabilities: CAPS,
        ..mariadb.clone()
    };
    assert_eq!(
        ServerGreeting::parse(&old.payload()).unwrap().version,
        "5.5.5-m3"
    );

    let payload = mariadb.payload();
    for cut in 0..payload.len() - 23 {
        assert!(ServerGreeting::parse(&payload[..cut]).is_err(), "{cut}");
    }
    assert!(ServerGreeting::parse(b"\x09").is_err());
    assert_eq!(
        ServerGreeting::parse(b"\xff\x10\x04Too many connections"),
        Err(LoginError::Refused {
            code: 1040,
            sqlstate: *b"HY000",
            message: "Too many connections".to_owned()
        })
    );
    assert_eq!(
        ServerGreeting::parse(b"\xff\x10\x04#08004Too many connections"),
        Err(LoginError::Refused {
            code: 1040,
            sqlstate: *b"08004",
            message: "Too many connections".to_owned()
        })
    );
}

/// MariaDB's pam asks like this.
#[test]
fn a_client_is_asked_for_a_password() {
    let secrets = || Secrets {
        password: Some(RIGHT.into()),
        ..Secrets::default()
    };
    let question = b"\xfedialog\0\x04Password: ";
    let asked = |channel| match started(secrets(), channel).handle(question) {
        Ok(client::Step::Send { payload, next }) => (payload, next),
        other => panic!("{other:?}"),
    };
    let (payload, next) = asked(Channel::Secure);
    assert_eq!(&payload[..], b"correct horse\0");
    // As a rule it does not even say what it asks for.
    match started(secrets(), Channel::Secure).handle(b"\xfedialog\0") {
        Ok(client::Step::Send { payload, .. }) => assert_eq!(&payload[..], b"correct horse\0"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        next.handle(b"\xff\x15\x04#28000Access denied"),
        Err(LoginError::Refused { code: 1045, .. })
    ));
    // Only one thing is known.
    for question in [&b"\x04PIN: "[..], b"\x02PIN: "] {
        let (_, next) = asked(Channel::Secure);
        assert_eq!(next.handle(question).unwrap_err(), LoginError::MultiFactor);
    }
    let (payload, next) = asked(Channel::Plain);
    assert!(payload.is_empty());
    assert_eq!(
        next.handle(b"\xff\x15\x04#28000Access denied").unwrap_err(),
        LoginError::UnsupportedPlugin(AuthPlugin::Dialog)
    );
}

fn started(secrets: Secrets, channel: Channel) -> ClientLogin {
    let seen = ServerGreeting::parse(&greeting(AuthPlugin::CachingSha2Password)).unwrap();
    let client::Step::Send { next, .. } = login(secrets, channel).start(&seen).unwrap() else {
        panic!()
    };
    next
}

#[test]
fn a_client_trusts_no_server_with_its_password() {
    let secrets = || Secrets {
        password: Some(RIGHT.into()),
        ..Secrets::default()
    };
    let clear = b"\xfemysql_clear_password\0";
    let refusal = b"\xff\x15\x04#28000Access denied";
    // It declines, and remembers why.
    let Ok(client::Step::Send { payload, next }) = started(secrets(), Channel::Plain).handle(clear)
    else {
        panic!()
    };
    assert!(payload.is_empty());
    assert_eq!(
        next.handle(refusal).unwrap_err(),
        LoginError::UnsupportedPlugin(AuthPlugin::MysqlClearPassword)
    );
    let Ok(client::Step::Send { payload, .. }) = started(secrets(), Channel::Secure).handle(clear)
    else {
        panic!()
    };
    assert_eq!(&payload[..], b"correct horse\0");
    let Ok(client::Step::Send { payload, next }) =
        started(secrets(), Channel::Secure).handle(b"\xfedialog\0\x02PIN: ")
    else {
        panic!()
    };
    assert!(payload.is_empty());
    // Another method that it can answer: now the refusal is the server's own.
    let native = [
        b"\xfemysql_native_password\0",
        &switch_scramble().as_bytes()[..],
        b"\0",
    ]
    .concat();
    let Ok(client::Step::Send { payload, next }) = next.handle(&native) else {
        panic!()
    };
    assert_eq!(payload.len(), 20);
    assert!(matches!(
        next.handle(refusal).unwrap_err(),
        LoginError::Refused { code: 1045, .. }
    ));
    assert_eq!(
        started(secrets(), Channel::Secure)
            .handle(b"\x02authentication_webauthn\0")
            .unwrap_err(),
        LoginError::MultiFactor
    );
    assert!(started(secrets(), Channel::Secure).handle(b"\xfe").is_err());
    assert!(
        started(secrets(), Channel::Secure)
            .handle(b"\x03more")
            .is_err()
    );
    assert!(started(secrets(), Channel::Secure).handle(b"").is_err());
    assert!(
        started(secrets(), Channel::Secure)
            .handle(b"\xfemysql_native_password\0short")
            .is_err()
    );
}

/// An account with a key made of its password: what is signed, and with which key, is tested where it is computed.
#[test]
fn signatures_answer_longer_challenges() {
    let secrets = |password: Option<&[u8]>| Secrets {
        password: password.map(Into::into),
        sha2_stage1: Some(Sha2Stage1::of(RIGHT)),
        ..Secrets::default()
    };
    let start = |password| started(secrets(password), Channel::Plain);
    let switch =
        |plugin: &str, challenge: &[u8]| [b"\xfe", plugin.as_bytes(), b"\0", challenge].concat();
    for challenge in [&[9; 32][..], &[&[9; 32][..], &[0]].concat()] {
        let Ok(client::Step::Send { payload, .. }) =
            start(Some(RIGHT)).handle(&switch("client_ed25519", challenge))
        else {
            panic!()
        };
        assert_eq!(payload.len(), 64);
        // Behind the type of a packet, or bare.
        for derivation in [
            &b"P\0eighteen bytes, yes"[..],
            b"\x01P\0eighteen bytes, yes",
        ] {
            let Ok(client::Step::Send { payload, next }) =
                start(Some(RIGHT)).handle(&switch("parsec", challenge))
            else {
                panic!()
            };
            assert!(payload.is_empty());
            let Ok(client::Step::Send { payload, next }) = next.handle(derivation) else {
                panic!()
            };
            assert_eq!((payload.len(), &payload[..32]), (96, &[0; 32][..]));
            assert!(next.handle(derivation).is_err());
        }
    }
    for plugin in ["client_ed25519", "parsec"] {
        assert!(
            start(Some(RIGHT))
                .handle(&switch(plugin, &[9; 20]))
                .is_err()
        );
        let Ok(client::Step::Send { payload, next }) =
            start(None).handle(&switch(plugin, &[9; 32]))
        else {
            panic!()
        };
        assert!(payload.is_empty());
        assert_eq!(
            next.handle(b"\xff\x15\x04#28000Access denied").unwrap_err(),
            LoginError::NeedPassword
        );
    }
}

/// A client that has the key already encrypts at once.
#[test]
fn a_known_key_saves_a_round_trip() {
    let account = || Credential::Password { known: Vec::new() };
    let step = auth(AuthPlugin::Sha256Password, account()).start(
        server::Answer::to_switch(AuthPlugin::Sha256Password, &[7; 256], switch_scramble()),
        switch_scramble(),
    );
    let server::Step::Decrypt { ciphertext, next } = step else {
        panic!()
    };
    assert_eq!(ciphertext, [7; 256]);
    let server::Step::Finished { outcome, .. } = next.handle(None) else {
        panic!()
    };
    assert_eq!(
        outcome,
        Outcome::Denied {
            with_password: true
        }
    );
    let step = auth(AuthPlugin::Sha256Password, account()).start(
        server::Answer::to_switch(AuthPlugin::Sha256Password, &[7; 2000], switch_scramble()),
        switch_scramble(),
    );
    assert!(matches!(step, server::Step::Finished { .. }));

    // The other plugin sees first whether it takes the whole password.
    let step = auth(AuthPlugin::CachingSha2Password, account()).start(
        server::Answer::to_switch(AuthPlugin::CachingSha2Password, &[7; 32], switch_scramble()),
        switch_scramble(),
    );
    let server::Step::Send { payload, next } = step else {
        panic!()
    };
    assert_eq!(payload, [1, 4]);
    let server::Step::Decrypt { ciphertext, .. } = next.handle(&[8; 256]) else {
        panic!()
    };
    assert_eq!(ciphertext, [8; 256]);
}

#[test]
fn endless_switching_ends() {
    let mut client = started(
        Secrets {
            password: Some(RIGHT.into()),
            ..Secrets::default()
        },
        Channel::Plain,
    );
    let request = [
        b"\xfemysql_native_password\0",
        &switch_scramble().as_bytes()[..],
        b"\0",
    ]
    .concat();
    for _ in 0..100 {
        client = match client.handle(&request) {
            Ok(client::Step::Send { next, .. }) => next,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(matches!(error, LoginError::Protocol(_)));
                return;
            }
        };
    }
    panic!("it goes on");
}
