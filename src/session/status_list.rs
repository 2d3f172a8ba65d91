//! SHOW STATUS: how passwords and the connection are encrypted is said of the client's connection, which is one to the proxy.

use bytes::BytesMut;
use dbproxy_proto::{
    capability::Capabilities,
    rows::{Format, Value, with_rows},
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
    with_rows(list, capabilities, format, |mut variables| {
        for variable in &mut variables {
            if let [Value::Bytes(name), value] = variable.as_mut_slice()
                && let Some(own) = connected.value_of(name)
            {
                *value = Value::Bytes(own);
            }
        }
        Some(variables)
    })
}

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
            server_name: None,
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
