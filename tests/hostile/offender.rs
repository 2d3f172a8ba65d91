//! A client that breaks the rules, and what becomes of it.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::raw::{Raw, Refused, capability, is_eof};

/// How far a client comes before it breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It speaks without reading the greeting.
    Unread,
    /// It was greeted.
    Greeted,
    /// It has answered with a plugin of its own choice and was asked to switch to another one.
    Switched,
    /// It is logged in.
    In,
    /// It is logged in and understands sessions' trackers and the newer ends of results.
    InModern,
    /// It is logged in and has prepared a statement of two parameters, whose id is 1.
    Prepared,
    /// The same, and it has executed the statement.
    Executed,
    /// It was asked for a file.
    Asked,
    /// It has asked to change its user and was asked to switch to another plugin.
    Changing,
}

/// What becomes of a client that broke the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It gets this error and its session goes on.
    Refused(u16),
    /// It gets this error and its connection is closed.
    Expelled(u16),
    /// Its connection is closed without a word.
    Dropped,
    /// It is asked for more of its login; when it leaves, its connection is closed.
    Questioned,
    /// It gets an answer that is no error, and its session goes on.
    Served,
    /// It gets no answer, and its session goes on.
    Unanswered,
    /// It is logged in.
    Admitted,
}

/// One conversation that breaks the rules.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) stage: Stage,
    /// What is sent then, headers included.
    pub(crate) bytes: Vec<u8>,
    /// Nothing follows: the client closes its side.
    pub(crate) leaves: bool,
    /// Has no answer of its own.
    pub(crate) silent: bool,
    /// Any of these is well; error 0 is any error.
    pub(crate) expected: &'static [Outcome],
}

/// No answer takes longer than this.
const PATIENCE: Duration = Duration::from_secs(40);

/// What a session that goes on is asked.
const PROBE: &str = "SELECT 'still here'";

impl Case {
    /// Has the conversation with the proxy at `port`; an error says what went on for ever, or was out of order.
    pub(crate) async fn run(&self, port: u16, schema: &str) -> Result<Outcome, String> {
        let conversation = timeout(PATIENCE, self.converse(port, schema)).await;
        conversation.unwrap_or_else(|_| Err(format!("still open after {PATIENCE:?}")))
    }

    /// Whether the client was to be treated like that.
    pub(crate) fn allows(&self, outcome: Outcome) -> bool {
        let any_error = match outcome {
            Outcome::Refused(_) => Outcome::Refused(0),
            Outcome::Expelled(_) => Outcome::Expelled(0),
            other => other,
        };
        self.expected.contains(&outcome) || self.expected.contains(&any_error)
    }

    async fn converse(&self, port: u16, schema: &str) -> Result<Outcome, String> {
        if self.stage == Stage::Unread {
            return self.unread(port).await;
        }
        let mut raw = reach(self.stage, port, schema).await?;
        // The proxy may have closed the connection before it has read everything.
        let _ = raw.write(&self.bytes).await;
        if self.leaves {
            raw.half_close().await;
        }
        let logged_in = !matches!(self.stage, Stage::Greeted | Stage::Switched);
        if self.silent {
            return still_here(raw, Outcome::Unanswered).await;
        }
        let Some((_, payload)) = raw.frame().await else {
            return Ok(Outcome::Dropped);
        };
        match payload.first() {
            Some(0xff) if logged_in && !self.leaves => {
                let code = Refused::parse(&payload).code;
                let outcome = still_here(raw, Outcome::Refused(code)).await?;
                Ok(if outcome == Outcome::Dropped {
                    Outcome::Expelled(code)
                } else {
                    outcome
                })
            }
            Some(0xff) => {
                let code = Refused::parse(&payload).code;
                ended(raw).await.map(|()| Outcome::Expelled(code))
            }
            Some(0xfe | 0x01)
                if !logged_in || self.stage == Stage::Changing || is_switch(&payload) =>
            {
                raw.half_close().await;
                ended(raw).await.map(|()| Outcome::Questioned)
            }
            Some(0) if !logged_in => Ok(Outcome::Admitted),
            Some(_) if self.leaves => ended(raw).await.map(|()| Outcome::Served),
            Some(_) => still_here(raw, Outcome::Served).await,
            None => Err("an empty packet".to_owned()),
        }
    }

    /// Says what it has to say at once and reads whatever comes up to the end.
    async fn unread(&self, port: u16) -> Result<Outcome, String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(|error| error.to_string())?;
        let _ = stream.write_all(&self.bytes).await;
        if self.leaves {
            let _ = stream.shutdown().await;
        }
        let Ok(mut raw) = Raw::over(stream).await else {
            return Err("no greeting".to_owned());
        };
        match raw.frame().await {
            None => Ok(Outcome::Dropped),
            Some((_, payload)) if payload.first() == Some(&0xff) => {
                let code = Refused::parse(&payload).code;
                ended(raw).await.map(|()| Outcome::Expelled(code))
            }
            Some((_, payload)) if payload.first() == Some(&0) => Ok(Outcome::Admitted),
            Some(_) => {
                raw.half_close().await;
                ended(raw).await.map(|()| Outcome::Questioned)
            }
        }
    }
}

/// A client that has come so far.
async fn reach(stage: Stage, port: u16, schema: &str) -> Result<Raw, String> {
    let refused = |refused: Refused| format!("not let in: {refused:?}");
    let mut raw = Raw::tcp(port).await.map_err(refused)?;
    match stage {
        Stage::Unread | Stage::Greeted => return Ok(raw),
        Stage::Switched => {
            raw.write(&framed(1, &login_payload("app", b"x", "dialog")))
                .await
                .map_err(|error| error.to_string())?;
            return match raw.frame().await {
                Some((2, payload)) if payload.first() == Some(&0xfe) => Ok(raw),
                other => Err(format!("not asked to switch: {other:?}")),
            };
        }
        _ => {}
    }
    let modern = capability::SESSION_TRACK | capability::DEPRECATE_EOF;
    let capabilities = match stage {
        Stage::InModern => capability::USUAL | modern,
        _ => capability::USUAL,
    };
    raw.login("app", "app", None, capabilities)
        .await
        .map_err(refused)?;
    match stage {
        Stage::Prepared | Stage::Executed => {
            raw.command(0x16, b"SELECT ?, ?").await;
            let answer = raw.packet().await.map_err(|error| error.to_string())?;
            if answer.get(..5) != Some(&[0, 1, 0, 0, 0]) {
                return Err(format!("not prepared as statement 1: {answer:?}"));
            }
            while !is_eof(&raw.packet().await.map_err(|error| error.to_string())?) {}
            while !is_eof(&raw.packet().await.map_err(|error| error.to_string())?) {}
            if stage == Stage::Executed {
                raw.send(b"\x17\x01\0\0\0\0\x01\0\0\0\0\x01\x08\0\x08\0AAAAAAAABBBBBBBB")
                    .await;
                raw.packet().await.map_err(|error| error.to_string())?;
                while !is_eof(&raw.packet().await.map_err(|error| error.to_string())?) {}
                while !is_eof(&raw.packet().await.map_err(|error| error.to_string())?) {}
            }
        }
        Stage::Asked => {
            let sql = format!("LOAD DATA LOCAL INFILE 'f' INTO TABLE {schema}.t");
            let answer = raw.execute(&sql).await;
            if answer.first() != Some(&0xfb) {
                return Err(format!("not asked for a file: {answer:?}"));
            }
        }
        Stage::Changing => {
            raw.send(b"\x11app\0\x01x\0\x2d\0dialog\0").await;
            let answer = raw.packet().await.map_err(|error| error.to_string())?;
            if answer.first() != Some(&0xfe) {
                return Err(format!("not asked to switch: {answer:?}"));
            }
        }
        _ => {}
    }
    Ok(raw)
}

/// Is it a request for another proof? No result begins like this.
fn is_switch(payload: &[u8]) -> bool {
    payload.first() == Some(&0xfe) && payload.len() > 9
}

/// Reads on to the answer to a query that any session can ask; without one the connection has ended.
async fn still_here(mut raw: Raw, outcome: Outcome) -> Result<Outcome, String> {
    let mut query = vec![0x03];
    query.extend_from_slice(PROBE.as_bytes());
    if raw.try_send(&query).await.is_err() {
        return Ok(Outcome::Dropped);
    }
    let mut before = None;
    while let Some((sequence, payload)) = raw.frame().await {
        let goes_on = before.is_none_or(|before: u8| sequence == before.wrapping_add(1));
        if !goes_on && sequence != 1 {
            return Err(format!("packet {sequence} after {before:?}: {payload:?}"));
        }
        before = Some(sequence);
        if payload == b"\x0astill here" {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Dropped)
}

/// Waits for the end of the connection. What is left of the client's bytes may be refused as well.
async fn ended(mut raw: Raw) -> Result<(), String> {
    while let Some((_, payload)) = raw.frame().await {
        if payload.first() != Some(&0xff) {
            return Err(format!("goes on after its end: {payload:?}"));
        }
    }
    Ok(())
}

/// A packet.
pub(crate) fn framed(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let mut packet = vec![length[0], length[1], length[2], sequence];
    packet.extend_from_slice(payload);
    packet
}

/// An answer to the greeting.
pub(crate) fn login_payload(user: &str, proof: &[u8], plugin: &str) -> Vec<u8> {
    let mut payload = capability::USUAL.to_le_bytes().to_vec();
    payload.extend_from_slice(&[0, 0, 0, 64, 45]);
    payload.extend_from_slice(&[0; 23]);
    payload.extend_from_slice(user.as_bytes());
    payload.push(0);
    payload.push(u8::try_from(proof.len()).unwrap());
    payload.extend_from_slice(proof);
    payload.extend_from_slice(plugin.as_bytes());
    payload.push(0);
    payload
}
