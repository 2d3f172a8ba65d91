//! Conversations with real servers, recorded byte by byte (`captures/capture.py`), followed packet by packet.
//!
//! What is seen is kept beside each capture; `UPDATE_CONVERSATIONS=1 cargo test` writes it anew, to be read before it is committed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use dbproxy_proto::Capabilities;
use dbproxy_proto::command::Command;
use dbproxy_proto::handshake::auth::{
    AuthPlugin, Channel, Scramble, SecretBytes, Secrets, rsa_mask,
};
use dbproxy_proto::handshake::client::{self, LoggedIn, Login, LoginError, ServerGreeting};
use dbproxy_proto::handshake::server::{
    self, Answer, Credential, FirstPacket, Outcome, Proof, ServerAuth,
};
use dbproxy_proto::packet::{Frame, complete};
use dbproxy_proto::reply::{ErrPacket, OkPacket};
use dbproxy_proto::response::{Event, Expect, ResponseTracker};
use dbproxy_proto::track::Changes;

/// One direction of a conversation.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    at: usize,
}

impl Stream {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn payload(&mut self) -> Option<Vec<u8>> {
        let Frame::Complete { len, payload } = complete(self.rest()) else {
            return None;
        };
        let payload = self.rest()[payload].to_vec();
        self.at += len;
        Some(payload)
    }
}

struct Conversation {
    client: Stream,
    server: Stream,
    /// How many bytes more of the server's stream the tracker gets at a time.
    step: usize,
    caps: Capabilities,
    scramble: Scramble,
    seen: String,
}

impl Conversation {
    fn read(path: &Path, step: usize) -> Self {
        let (mut client, mut server) = (Stream::default(), Stream::default());
        for line in fs::read_to_string(path).unwrap().lines() {
            let (arrow, hex) = line.split_once(' ').unwrap();
            let stream = if arrow == ">" {
                &mut client
            } else {
                &mut server
            };
            stream.bytes.extend(
                (0..hex.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()),
            );
        }
        Self {
            client,
            server,
            step,
            caps: Capabilities::empty(),
            scramble: Scramble::from_random([0; 20]),
            seen: String::new(),
        }
    }

    fn log(&mut self, line: String) {
        self.seen.push_str(&line);
        self.seen.push('\n');
    }

    fn follow(mut self) -> String {
        if !self.login() {
            return self.seen;
        }
        while let Some(payload) = self.client.payload() {
            let command = Command::parse(&payload, self.caps).unwrap();
            let line = match command {
                Command::Query(text) => format!("Query {}", String::from_utf8_lossy(text)),
                Command::StmtPrepare(text) => format!("Prepare {}", String::from_utf8_lossy(text)),
                Command::ChangeUser(change) => {
                    format!("ChangeUser {}", String::from_utf8_lossy(change.user))
                }
                Command::StmtExecute(execute) => {
                    format!("Execute {} flags {}", execute.statement, execute.flags)
                }
                other => format!("{other:?}"),
            };
            self.log(line);
            match command.expect() {
                Some(expect) => self.response(expect),
                None => {
                    if let Command::ChangeUser(change) = command {
                        self.change_user(change.answer(self.scramble));
                    }
                }
            }
        }
        assert!(self.client.rest().is_empty());
        assert!(
            self.server.rest().is_empty(),
            "left: {:?}\n{}",
            self.server.rest(),
            self.seen
        );
        self.seen
    }

    /// Both of our sides take the part that the recorded peer had.
    fn login(&mut self) -> bool {
        let greeting = ServerGreeting::parse(&self.server.payload().unwrap()).unwrap();
        self.scramble = greeting.scramble;
        self.log(format!(
            "greeting {} {} {:?}",
            greeting.version, greeting.plugin, greeting.capabilities
        ));
        let first = self.client.payload().unwrap();
        let FirstPacket::Login(request) = FirstPacket::parse(&first).unwrap() else {
            panic!()
        };
        let user = String::from_utf8_lossy(request.user).into_owned();
        self.log(format!(
            "login {user} {:?} {:?} {:?}",
            request.database.map(String::from_utf8_lossy),
            request.plugin.map(String::from_utf8_lossy),
            request.capabilities,
        ));
        for (name, value) in request.attributes.iter() {
            // The process id and such change from capture to capture.
            if name == b"_client_name" {
                self.log(format!("attribute {}", String::from_utf8_lossy(value)));
            }
        }
        let password = if user == "empty" { "" } else { "secret" };
        let step = Login {
            secrets: Secrets {
                password: Some(SecretBytes::from(password.as_bytes())),
                ..Secrets::default()
            },
            database: request.database.map(<[u8]>::to_vec),
            attributes: request
                .attributes
                .iter()
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
            ..Login::new(request.user, request.capabilities, Channel::Plain)
        }
        .start(&greeting)
        .unwrap();
        let plugin = AuthPlugin::from_name(request.plugin.unwrap());
        let auth = self
            .auth(plugin, password)
            .start(request.answer(self.scramble), self.scramble);
        match self.authenticate(auth, Some(step)) {
            Some(logged_in) => {
                // What every login of ours does, and what none does.
                let differing = Capabilities::PLUGIN_AUTH_LENENC_DATA
                    | Capabilities::PROGRESS
                    | Capabilities::MULTI_FACTOR_AUTHENTICATION;
                self.caps = request.capabilities & greeting.capabilities;
                assert_eq!(logged_in.capabilities - differing, self.caps - differing);
                true
            }
            None => false,
        }
    }

    /// Our server, knowing as much as the recorded one.
    fn auth(&self, plugin: AuthPlugin, password: &str) -> ServerAuth {
        let full = |packet: &[u8]| packet[..3] == [2, 0, 0] && packet[4..] == [1, 4];
        let ahead = &self.server.rest()[..self.server.rest().len().min(64)];
        ServerAuth {
            plugin,
            credential: match password {
                "" => Credential::NoPassword,
                _ if ahead.windows(6).any(full) => Credential::Password { known: Vec::new() },
                _ => Credential::Cleartext(password.as_bytes().into()),
            },
            channel: Channel::Plain,
            public_key: Some(b"".to_vec().into()),
        }
    }

    /// The recorded servers do not look at the first answer and ask for another one, to a new scramble.
    fn change_user(&mut self, first: Answer<'_>) {
        let Frame::Complete { payload, .. } = complete(self.server.rest()) else {
            panic!()
        };
        let theirs = &self.server.rest()[payload];
        let mut parts = theirs[1..].splitn(2, |&byte| byte == 0);
        let plugin = AuthPlugin::from_name(parts.next().unwrap());
        let switch = Scramble::from_wire(parts.next().unwrap()).unwrap();

        let line = match self
            .auth(plugin.clone(), "secret")
            .start(first, self.scramble)
        {
            server::Step::Finished { outcome, .. } => format!("  first answer: {outcome:?}"),
            _ => "  first answer: not the known password".to_owned(),
        };

        // Our machine switches like that where the first answer is for another plugin.
        let other = b"\x11app\0\0\0\x2d\0other\0";
        let caps = Capabilities::SECURE_CONNECTION | Capabilities::PLUGIN_AUTH;
        let Ok(Command::ChangeUser(other)) = Command::parse(other, caps) else {
            panic!()
        };
        let auth = self
            .auth(plugin, "secret")
            .start(other.answer(self.scramble), switch);
        let server::Step::Send { payload, .. } = &auth else {
            panic!()
        };
        assert_eq!(payload, theirs);
        self.scramble = switch;
        self.log(line);
        self.authenticate(auth, None);
    }

    /// Plays on until the recorded server says OK or ERR. `step` is what our client does, `auth` what our server does.
    fn authenticate(
        &mut self,
        mut auth: server::Step,
        mut step: Option<client::Step>,
    ) -> Option<LoggedIn> {
        loop {
            let theirs = self.server.payload().unwrap();
            // Our server sees the client's packets; it says what the recorded server says, as long as that asks for something.
            match (theirs[0], &auth) {
                (0x00, server::Step::Finished { outcome, .. }) => {
                    assert!(matches!(outcome, Outcome::Proven(_)), "{outcome:?}")
                }
                (0xFF, server::Step::Finished { outcome, .. }) => assert!(
                    matches!(
                        outcome,
                        Outcome::Denied {
                            with_password: true
                        } | Outcome::Proven(Proof::Password {
                            verified: false,
                            ..
                        })
                    ),
                    "{outcome:?}"
                ),
                (
                    0x01,
                    server::Step::Finished {
                        payload: Some(ours),
                        ..
                    },
                ) => assert_eq!(*ours, theirs),
                (0x01, server::Step::Finished { payload: None, .. }) => {}
                // The keys differ.
                (0x01 | 0xFE, server::Step::Send { payload, .. }) => {
                    assert!(*payload == theirs || theirs.len() > 100 && payload[..] == [1]);
                }
                (other, auth) => panic!("the server says {other:#x}, our machine is at {auth:?}"),
            }
            if let Some(ours) = step.take() {
                let (client::Step::Send { next: machine, .. } | client::Step::Receive(machine)) =
                    ours
                else {
                    panic!()
                };
                match machine.handle(&theirs) {
                    Ok(client::Step::Done(logged_in)) => {
                        assert_eq!(theirs[0], 0);
                        self.log("logged in".to_owned());
                        for change in Changes::new(&logged_in.session_state) {
                            self.log(format!("  {:?}", change.unwrap()));
                        }
                        return Some(logged_in);
                    }
                    Ok(client::Step::Encrypt {
                        key,
                        message,
                        next: machine,
                    }) => {
                        assert_eq!(key.len(), 294);
                        assert_eq!(&rsa_mask(&message, &self.scramble)[..], b"secret\0");
                        step = Some(machine.handle(&[7; 256]));
                    }
                    Ok(other) => step = Some(other),
                    Err(LoginError::Refused { code, message, .. }) => {
                        assert_eq!(theirs[0], 0xFF);
                        self.log(format!("refused: {code} {message}"));
                        return None;
                    }
                    Err(error) => panic!("{error}"),
                }
            } else if theirs[0] == 0 {
                self.log("changed".to_owned());
                let ok = OkPacket::parse(&theirs, self.caps).unwrap();
                ok.changes()
                    .for_each(|change| self.log(format!("  {:?}", change.unwrap())));
                return None;
            } else if theirs[0] == 0xFF {
                let err = ErrPacket::parse(&theirs).unwrap();
                self.log(format!("refused: {}", err.code));
                return None;
            }
            if theirs == [1, 3] {
                continue;
            }
            let reply = self.client.payload().unwrap();
            self.log(format!("client sends {} bytes", reply.len()));
            auth = match auth {
                server::Step::Send { next, .. } => match next.handle(&reply) {
                    server::Step::Decrypt { ciphertext, next } => {
                        assert_eq!(ciphertext, reply);
                        // Only the recorded server has the key. What it found is seen by its answer.
                        let next_payload = complete(self.server.rest());
                        let Frame::Complete { payload, .. } = next_payload else {
                            panic!()
                        };
                        let right = self.server.rest()[payload.start] == 0;
                        let password: &[u8] = if right { b"secret\0" } else { b"wrong\0" };
                        next.handle(Some(&rsa_mask(password, &self.scramble)))
                    }
                    step => step,
                },
                finished => finished,
            };
        }
    }

    fn response(&mut self, expect: Expect) {
        let mut tracker = ResponseTracker::new(expect, self.caps);
        let (mut shown, mut data) = (0, 0);
        while !tracker.is_done() {
            let front = &self.server.rest()[..shown];
            let event = tracker
                .next(front)
                .unwrap_or_else(|error| panic!("{error} at\n{}", self.seen));
            let mut line = String::new();
            let len = match event {
                Event::NeedMore => {
                    assert!(
                        shown < self.server.rest().len(),
                        "no end after\n{}",
                        self.seen
                    );
                    shown = shown
                        .saturating_add(self.step)
                        .min(self.server.rest().len());
                    continue;
                }
                Event::Data { len } => {
                    data += len;
                    len
                }
                Event::Ok {
                    len,
                    packet,
                    header,
                    last,
                    ..
                } => {
                    write!(
                        line,
                        "  {header:?} packet: affected {} id {} {:?} warnings {} {:?} last {last}",
                        packet.affected_rows,
                        packet.last_insert_id,
                        packet.status,
                        packet.warnings,
                        String::from_utf8_lossy(packet.info),
                    )
                    .unwrap();
                    for change in packet.changes() {
                        let change = change.unwrap();
                        let text = match change {
                            dbproxy_proto::track::Change::Gtids(text) => {
                                format!("Gtids {}", String::from_utf8_lossy(text))
                            }
                            dbproxy_proto::track::Change::SystemVariable { name, value } => {
                                format!(
                                    "{} = {}",
                                    String::from_utf8_lossy(name),
                                    String::from_utf8_lossy(value)
                                )
                            }
                            other => format!("{other:?}"),
                        };
                        write!(line, "\n    {text}").unwrap();
                    }
                    len
                }
                Event::Eof {
                    len,
                    status,
                    warnings,
                    last,
                    ..
                } => {
                    write!(line, "  EOF {status:?} warnings {warnings} last {last}").unwrap();
                    len
                }
                Event::Err { len, packet, .. } => {
                    write!(line, "  error {}", packet.code).unwrap();
                    len
                }
                Event::LocalInfile { len } => {
                    write!(line, "  local infile").unwrap();
                    len
                }
                Event::Prepared {
                    len,
                    statement,
                    columns,
                    parameters,
                    last,
                    ..
                } => {
                    write!(line, "  prepared {statement}: {columns} columns, {parameters} parameters, last {last}").unwrap();
                    len
                }
            };
            let infile = matches!(event, Event::LocalInfile { .. });
            self.server.at += len;
            shown -= len;
            if !line.is_empty() {
                if data > 0 {
                    self.log(format!(
                        "  {data} bytes of data, {} rows so far",
                        tracker.rows()
                    ));
                    data = 0;
                }
                self.log(line);
            }
            if infile {
                while self.client.payload().is_some_and(|part| !part.is_empty()) {}
                tracker.local_infile_sent();
            }
        }
        if data > 0 {
            self.log(format!("  {data} bytes of data, {} rows", tracker.rows()));
        }
    }
}

#[test]
fn recorded_conversations_are_followed_to_the_byte() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        count += 1;
        let whole = Conversation::read(&path, usize::MAX).follow();
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_CONVERSATIONS").is_some() {
            fs::write(&golden, &whole).unwrap();
        }
        assert_eq!(
            whole,
            fs::read_to_string(&golden).unwrap(),
            "{}",
            path.display()
        );
        for step in [1, 2, 3, 5, 11, 64, 1000] {
            assert_eq!(
                Conversation::read(&path, step).follow(),
                whole,
                "{} in steps of {step}",
                path.display()
            );
        }
    }
    assert!(count >= 13, "captures are missing");
}
