//! SHOW STATUS: what the server says of a client's connection is said of the one to the proxy.

use bytes::{BufMut, BytesMut};
use dbproxy_proto::{
    capability::Capabilities,
    rows::{Format, Rows, Value, first_seq, put_renumbered},
};

use crate::net::tls::Secured;

/// A client's connection.
pub(super) struct Connected<'a> {
    /// How it is encrypted, if it is.
    pub(super) tls: Option<&'a Secured>,
    /// The key with which the client may encrypt its password.
    pub(super) key: &'a [u8],
}

/// Rewrites the whole answer of a server.
pub(super) fn rewrite(
    list: &[u8],
    (capabilities, format): (Capabilities, Format),
    connected: &Connected<'_>,
) -> BytesMut {
    let mut rows = Rows::new(list, capabilities, format);
    let head = list.len() - rows.rest().len();
    let Some(mut seq) = first_seq(rows.rest()) else {
        return BytesMut::from(list);
    };
    let variables: Vec<_> = rows.by_ref().collect();
    let mut out = BytesMut::with_capacity(list.len() + ROOM);
    out.put_slice(list.get(..head).unwrap_or_default());
    for mut variable in variables {
        if let [Value::Bytes(name), value] = variable.as_mut_slice()
            && let Some(own) = connected.value_of(name)
        {
            *value = Value::Bytes(own);
        }
        rows.put(&mut out, &mut seq, variable);
    }
    put_renumbered(&mut out, &mut seq, rows.rest());
    out
}

/// More than all that is put in.
const ROOM: usize = 1024;

impl Connected<'_> {
    fn value_of(&self, variable: &[u8]) -> Option<&[u8]> {
        let of_tls = |part: fn(&Secured) -> &str| Some(self.tls.map_or("", part).as_bytes());
        match variable {
            b"Ssl_cipher" => of_tls(|tls| tls.cipher),
            b"Ssl_version" => of_tls(|tls| tls.version),
            b"Rsa_public_key" | b"Caching_sha2_password_rsa_public_key" => Some(self.key),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use dbproxy_proto::{
        StatusFlags,
        resultset::{Column, put_columns, put_end, put_row},
    };

    use super::*;

    const CAPS: Capabilities = Capabilities::PROTOCOL_41;

    fn list(rows: &[[&str; 2]]) -> BytesMut {
        let (mut out, mut seq) = (BytesMut::new(), 1);
        let columns = ["Variable_name", "Value"].map(|name| Column::text(name.as_bytes(), 45));
        put_columns(&mut out, &mut seq, &columns, StatusFlags::AUTOCOMMIT, CAPS);
        for row in rows {
            put_row(&mut out, &mut seq, row.map(|value| Some(value.as_bytes())));
        }
        put_end(&mut out, &mut seq, StatusFlags::AUTOCOMMIT, 0, CAPS);
        out
    }

    #[test]
    fn what_is_said_of_the_connection_is_replaced() {
        let tls = Secured {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            certificate: None,
            shown: None,
        };
        let of_server = list(&[
            ["Rsa_public_key", "theirs"],
            ["Ssl_cipher", ""],
            ["Ssl_cipher_list", "many"],
            ["Ssl_version", "TLSv1.2"],
            ["Uptime", "1"],
        ]);
        for (tls, cipher, version) in [
            (Some(&tls), "TLS_AES_256_GCM_SHA384", "TLSv1.3"),
            (None, "", ""),
        ] {
            let connected = Connected { tls, key: b"ours" };
            let rewritten = rewrite(&of_server, (CAPS, Format::Text), &connected);
            let expected = list(&[
                ["Rsa_public_key", "ours"],
                ["Ssl_cipher", cipher],
                ["Ssl_cipher_list", "many"],
                ["Ssl_version", version],
                ["Uptime", "1"],
            ]);
            assert_eq!(rewritten, expected);
        }
        let connected = Connected {
            tls: None,
            key: b"",
        };
        for answer in [list(&[]), BytesMut::new()] {
            assert_eq!(rewrite(&answer, (CAPS, Format::Text), &connected), answer);
        }
    }
}
