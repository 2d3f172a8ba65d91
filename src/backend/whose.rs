//! Whose connection the server says it is.

use bytes::BytesMut;
use dbproxy_proto::{
    command::put_query,
    response::{Event, Expect, ResponseTracker},
    rows::{Format, Rows, Value},
};

use super::conn::{BackendConn, MUST_CHANGE_PASSWORD};
use crate::{
    accounts::AccountKey,
    error::{Answer, Error, ErrorKind},
    net::Buffers,
};

/// A proxy user goes on as another account than the one that it logged in to.
const WHOSE: &[u8] = b"SELECT CURRENT_USER(), @@proxy_user";

impl BackendConn {
    /// The account that the server has chosen at the login; `None` if its expired password keeps it from telling.
    ///
    /// The connection is of no use afterwards.
    pub async fn whose(mut self) -> Result<Option<AccountKey>, Error> {
        let mut query = BytesMut::new();
        put_query(&mut query, WHOSE, self.capabilities());
        self.send(&query, &[]).await?;
        let buffers = Buffers::default();
        let mut tracker = ResponseTracker::new(Expect::Query, self.capabilities());
        let mut end = 0;
        while !tracker.is_done() {
            let rest = self.input.get(end..).unwrap_or_default();
            match tracker
                .next(rest)
                .map_err(|error| Error::server(ErrorKind::Protocol(error.to_string())))?
            {
                Event::NeedMore => self.fill(&buffers).await?,
                Event::Data { len } | Event::Ok { len, .. } | Event::Eof { len, .. } => end += len,
                Event::Err { packet, .. } if packet.code == MUST_CHANGE_PASSWORD => {
                    return Ok(None);
                }
                Event::Err { packet, .. } => {
                    return Err(Error::server(ErrorKind::Answer(Answer::of(&packet))));
                }
                Event::LocalInfile { .. } | Event::Prepared { .. } => return Err(illegible()),
            }
        }
        let answer = self.input.get(..end).unwrap_or_default();
        let row = Rows::new(answer, self.capabilities(), Format::Text).next();
        let key = match row.as_deref() {
            Some([Value::Bytes(current), Value::Null]) => current_user(current),
            Some([_, Value::Bytes(proxy)]) => proxy_user(proxy),
            _ => None,
        };
        key.map(Some).ok_or_else(illegible)
    }
}

/// user@host; hosts have no `@`.
fn current_user(text: &[u8]) -> Option<AccountKey> {
    let (user, host) = std::str::from_utf8(text).ok()?.rsplit_once('@')?;
    Some(AccountKey {
        user: user.into(),
        host: host.into(),
    })
}

/// 'user'@'host', with nothing escaped.
fn proxy_user(text: &[u8]) -> Option<AccountKey> {
    let text = std::str::from_utf8(text).ok()?;
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    let (user, host) = inner.rsplit_once("'@'")?;
    Some(AccountKey {
        user: user.into(),
        host: host.into(),
    })
}

fn illegible() -> Error {
    let text = "unexpected answer to the question for the account";
    Error::server(ErrorKind::Protocol(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_as_servers_write_them() {
        let key = |user: &str, host: &str| {
            Some(AccountKey {
                user: user.into(),
                host: host.into(),
            })
        };
        assert_eq!(current_user(b"app@%"), key("app", "%"));
        assert_eq!(current_user(b"a@b@127.0.2.%"), key("a@b", "127.0.2.%"));
        assert_eq!(current_user(b"@localhost"), key("", "localhost"));
        assert_eq!(current_user(b"app"), None);
        assert_eq!(proxy_user(b"'app'@'%'"), key("app", "%"));
        assert_eq!(proxy_user(b"'a'@'b'@'%'"), key("a'@'b", "%"));
        assert_eq!(proxy_user(b"app@%"), None);
    }
}
