//! What can go wrong: kind, whose fault, and what the client is told.

use std::{borrow::Cow, fmt, io};

use dbproxy_proto::reply::ErrPacket;
use rustls::CertificateError;

/// An error of the proxy.
///
/// It is classified where it is born and translated once, in the session, to
/// the ERR packet that the client gets ([`Error::answer`]).
#[derive(Debug)]
pub struct Error {
    /// What happened.
    pub kind: ErrorKind,
    /// Whose fault it is.
    pub origin: Origin,
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The application in front of the proxy.
    Client,
    /// The proxy itself: its limits or its configuration.
    Proxy,
    /// A database server behind the proxy.
    Server,
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer closed the connection.
    Closed,
    /// An ERR answer with its number, SQLSTATE and text, to be passed on as it is.
    Answer(Answer),
    /// Reading or writing failed.
    Io(io::Error),
    /// The peer broke the protocol.
    Protocol(String),
    /// A deadline passed; the text names what was waited for.
    Timeout(String),
    /// A replica did not get in time what a read must see there.
    Behind,
    /// The program cannot start or go on; the text says what to do.
    Setup(String),
}

/// Number, SQLSTATE and text of an ERR packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Error number, from the server's error reference.
    pub code: u16,
    /// Five characters.
    pub sqlstate: [u8; 5],
    /// Text in UTF-8.
    pub message: Cow<'static, str>,
}

impl Answer {
    /// An answer from its parts.
    pub fn new(code: u16, sqlstate: &[u8; 5], message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            sqlstate: *sqlstate,
            message: message.into(),
        }
    }

    /// What a server's packet says.
    pub fn of(packet: &ErrPacket<'_>) -> Self {
        let text = String::from_utf8_lossy(packet.message).into_owned();
        Self::new(packet.code, &packet.sqlstate, text)
    }

    /// The packet of this answer.
    pub fn packet(&self) -> ErrPacket<'_> {
        ErrPacket {
            code: self.code,
            sqlstate: self.sqlstate,
            message: self.message.as_bytes(),
        }
    }
}

impl Error {
    /// An error of the client's making.
    pub fn client(kind: ErrorKind) -> Self {
        Self {
            kind,
            origin: Origin::Client,
        }
    }

    /// An error of the proxy's making.
    pub fn proxy(kind: ErrorKind) -> Self {
        Self {
            kind,
            origin: Origin::Proxy,
        }
    }

    /// An error of a server's making.
    pub fn server(kind: ErrorKind) -> Self {
        Self {
            kind,
            origin: Origin::Server,
        }
    }

    /// An ERR answer that the proxy gives.
    pub fn answer_with(
        origin: Origin,
        code: u16,
        sqlstate: &[u8; 5],
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind: ErrorKind::Answer(Answer::new(code, sqlstate, message)),
            origin,
        }
    }

    /// A setup error: the program cannot start.
    pub fn setup(message: impl Into<String>) -> Self {
        Self::proxy(ErrorKind::Setup(message.into()))
    }

    /// Whether it says that the other side is not there, rather than that it answered.
    pub fn is_absence(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Io(_) | ErrorKind::Closed | ErrorKind::Timeout(_)
        )
    }

    /// Whether it is an answer with this error number.
    pub fn is_answer(&self, code: u16) -> bool {
        matches!(&self.kind, ErrorKind::Answer(answer) if answer.code == code)
    }

    /// What the client is told.
    ///
    /// The texts of lost connections are those that drivers and frameworks
    /// search for when they decide to reconnect.
    pub fn answer(&self) -> Answer {
        match &self.kind {
            ErrorKind::Answer(answer) => answer.clone(),
            ErrorKind::Closed | ErrorKind::Io(_) => Answer::new(
                2013,
                b"HY000",
                format!("Lost connection to MySQL server during query ({self})"),
            ),
            ErrorKind::Protocol(_) if self.origin == Origin::Client => Answer::new(
                1835,
                b"HY000",
                format!("Malformed communication packet: {self}"),
            ),
            ErrorKind::Protocol(_) => Answer::new(
                2027,
                b"HY000",
                format!("Malformed packet from the server: {self}"),
            ),
            ErrorKind::Timeout(_) => Answer::new(
                2013,
                b"HY000",
                format!("Lost connection to MySQL server: {self}"),
            ),
            ErrorKind::Behind => Answer::new(1105, b"HY000", format!("dbproxy: {self}")),
            ErrorKind::Setup(text) => Answer::new(1105, b"HY000", text.clone()),
        }
    }
}

/// Why TLS with a server could not be agreed on, in words.
pub fn tls_problem(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer => {
                "its certificate is not signed by an authority in tls.server.ca".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is for another name: {problem}")
            }
            problem => format!("its certificate is not valid: {problem}"),
        },
        error => error.to_string(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            Origin::Client => "client",
            Origin::Proxy => "dbproxy",
            Origin::Server => "server",
        };
        match &self.kind {
            ErrorKind::Closed => write!(f, "{origin}: connection closed"),
            ErrorKind::Answer(answer) => {
                write!(f, "{origin}: error {}: {}", answer.code, answer.message)
            }
            ErrorKind::Io(error) => write!(f, "{origin}: {error}"),
            ErrorKind::Protocol(text) => write!(f, "{origin}: protocol: {text}"),
            ErrorKind::Timeout(what) => write!(f, "{origin}: timed out: {what}"),
            ErrorKind::Behind => write!(f, "{origin}: the replica has not caught up in time"),
            ErrorKind::Setup(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}
