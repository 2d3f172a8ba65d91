//! The conversation of a login to a server, in which a server may refuse at any time and close.

use std::io;

use bytes::BytesMut;
use dbproxy_proto::{
    packet::{self, Frame},
    reply::ErrPacket,
};

use super::login::Target;
use crate::{
    config::ServerAddress,
    error::{Answer, Error, ErrorKind, Origin},
    net::{Stream, conversation},
};

/// Packets of a login, whose sequence ids go on from one side to the other.
pub(super) struct Talk {
    pub(super) stream: Stream,
    /// What was received and not yet looked at.
    pub(super) input: BytesMut,
    seq: u8,
}

impl Talk {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::with_capacity(1024),
            seq: 0,
        }
    }

    pub(super) async fn receive(&mut self) -> Result<BytesMut, Error> {
        let Self { stream, input, seq } = self;
        conversation::receive(stream, input, seq, Origin::Server).await
    }

    /// The packet that answers what was `sent`. A server that refuses something says why and closes: then that counts,
    /// and not that nothing more could be sent.
    pub(super) async fn answer_to(&mut self, sent: Result<(), Error>) -> Result<BytesMut, Error> {
        match (self.receive().await, sent) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }

    /// Asks for TLS and shakes hands. Whatever came behind the greeting in clear is not the server's.
    pub(super) async fn secure(&mut self, target: &Target, request: &[u8]) -> Result<(), Error> {
        let ServerAddress::Tcp { host, .. } = &target.address else {
            let text = format!("no TLS with server {} on a unix socket", target.name);
            return Err(Error::server(ErrorKind::Protocol(text)));
        };
        let shaken = match self.send(request).await {
            Err(error) => Err(error),
            Ok(()) if !self.input.is_empty() => {
                let text = format!("server {} speaks out of turn", target.name);
                Err(Error::server(ErrorKind::Protocol(text)))
            }
            Ok(()) => {
                let connector = &target.tls;
                let shaken = self.stream.connect_tls(connector, host, &mut self.input);
                shaken.await.map_err(|error| {
                    let text = format!(
                        "no TLS with server {} ({}): {error}",
                        target.name, target.address
                    );
                    Error::server(ErrorKind::Io(io::Error::new(error.kind(), text)))
                })
            }
        };
        match shaken {
            Ok(()) => Ok(()),
            Err(error) => Err(self.refusal(&error).await.unwrap_or(error)),
        }
    }

    /// The ERR packet in clear of a server that has closed instead of shaking hands.
    async fn refusal(&mut self, failure: &Error) -> Option<Error> {
        let is_cut = matches!(&failure.kind, ErrorKind::Io(error) if matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        ));
        let is_here = matches!(packet::complete(&self.input), Frame::Complete { .. });
        // Else there might be nothing to wait for.
        if !is_cut && !is_here {
            return None;
        }
        let packet = self.receive().await.ok()?;
        let refusal = ErrPacket::parse(&packet).ok()?;
        Some(Error::server(ErrorKind::Answer(Answer::of(&refusal))))
    }

    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        conversation::send(&mut self.stream, &mut self.seq, payload, Origin::Server).await
    }
}
