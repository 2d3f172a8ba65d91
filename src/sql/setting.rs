//! User variables that are meant for the proxy: `SET @dbproxy_consistency = 'strong'`. Without it they are variables like others.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use super::dialect::Dialect;
use super::lexer::{Token, TokenKind, tokens};
use super::words::Word;
use crate::config::Consistency;

/// What a session wants otherwise than the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// What reads must see.
    pub consistency: Option<Consistency>,
    /// Reads use a replica at most this many milliseconds behind.
    pub max_lag: Option<u32>,
    /// Where reads go, and whether there are writes.
    pub access: Option<Access>,
    /// The most that a read waits for a replica, in milliseconds.
    pub wait: Option<u32>,
    /// With whom the session shares what its reads must see, instead of with its account.
    pub key: Option<ScopeKey>,
}

/// A key by which sessions of an account find each other, whatever their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeKey(u128);

impl ScopeKey {
    /// The key of this text.
    pub fn new(text: &[u8]) -> Self {
        Self(xxh3_128(text))
    }
}

/// What a SET statement for the proxy asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The settings from now on.
    pub settings: Settings,
    /// A position that reads must see from now on, as it stands there.
    pub position: Option<Vec<u8>>,
}

/// What a session is for, if it has said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its reads go to replicas, and it writes nothing.
    ReadOnly,
    /// Its reads go to the primary.
    ReadWrite,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read_only",
            Self::ReadWrite => "read_write",
        })
    }
}

/// Why a setting is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The number of the server's error for such a thing.
    pub code: u16,
    /// What is wrong, and what it may be.
    pub text: String,
}

/// ER_WRONG_VALUE_FOR_VAR
const WRONG_VALUE: u16 = 1231;

/// Takes in a SET statement of variables for the proxy.
///
/// `None` for any other statement.
///
/// # Errors
/// What is wrong with it, and what it may be.
pub fn apply(sql: &[u8], dialect: Dialect, settings: Settings) -> Option<Result<Change, Wrong>> {
    // Most are not meant, and this is quicker than to take them apart.
    let is_prefix = |window: &[u8]| window.eq_ignore_ascii_case(PREFIX);
    if !sql.windows(PREFIX.len()).any(is_prefix) {
        return None;
    }
    let tokens = tokens(sql, dialect)?;
    let (verb, list) = tokens.split_first()?;
    if verb.entry()?.word != Word::Set || !list.iter().any(|token| is_setting(*token, sql)) {
        return None;
    }
    let mut change = Change {
        settings,
        position: None,
    };
    for assignment in list.split(|token| token.is(b',')) {
        if let Err(text) = assign(assignment, sql, &mut change) {
            let code = WRONG_VALUE;
            return Some(Err(Wrong { code, text }));
        }
    }
    Some(Ok(change))
}

const PREFIX: &[u8] = b"dbproxy_";

fn is_setting(token: Token, sql: &[u8]) -> bool {
    let name = token.plain_name(sql).get(..PREFIX.len());
    token.kind() == TokenKind::UserVariable
        && name.is_some_and(|name| name.eq_ignore_ascii_case(PREFIX))
}

fn assign(assignment: &[Token], sql: &[u8], change: &mut Change) -> Result<(), String> {
    let alone = || "variables for dbproxy are set in a statement of their own".to_owned();
    let (name, value) = match assignment {
        [name, equals, value] if equals.is(b'=') => (name, value),
        [name, colon, equals, value] if colon.is(b':') && equals.is(b'=') => (name, value),
        [name, ..] if is_setting(*name, sql) => {
            let name = String::from_utf8_lossy(name.plain_name(sql)).into_owned();
            return Err(format!("@{name} takes a plain value, not an expression"));
        }
        _ => return Err(alone()),
    };
    if !is_setting(*name, sql) {
        return Err(alone());
    }
    let name = String::from_utf8_lossy(name.plain_name(sql)).to_ascii_lowercase();
    let value = match value.kind() {
        TokenKind::String | TokenKind::Number | TokenKind::Word => value.plain_name(sql),
        _ => return Err(format!("@{name} takes a plain value")),
    };
    let as_written = value;
    let value = String::from_utf8_lossy(value).to_ascii_lowercase();
    let default = matches!(value.as_str(), "null" | "default" | "");
    let settings = &mut change.settings;
    match name.as_str() {
        "dbproxy_consistency" => {
            settings.consistency = match value.as_str() {
                "eventual" => Some(Consistency::Eventual),
                "connection" => Some(Consistency::Connection),
                "user" => Some(Consistency::User),
                "global" => Some(Consistency::Global),
                "strong" => Some(Consistency::Strong),
                _ if default => None,
                _ => {
                    return Err(format!(
                        "@{name} is 'eventual', 'connection', 'user', 'global', 'strong' or NULL, not '{value}'"
                    ));
                }
            };
        }
        "dbproxy_max_lag" => {
            settings.max_lag = match super::hint::millis(value.as_bytes()) {
                Some(millis) => Some(millis),
                None if default => None,
                None => {
                    return Err(format!(
                        "@{name} is seconds such as 4 or 0.5, '250ms' or NULL, not '{value}'"
                    ));
                }
            };
        }
        "dbproxy_session" => {
            settings.key = (!default).then(|| ScopeKey::new(as_written));
        }
        // As it was asked for: of nothing written there is none.
        "dbproxy_position" => {
            change.position = (!default).then(|| as_written.to_vec());
        }
        _ => {
            return Err(format!(
                "there is no @{name}: there are @dbproxy_consistency, @dbproxy_max_lag, @dbproxy_session and \
                 @dbproxy_position"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set(sql: &str) -> Option<Result<Settings, Wrong>> {
        let change = apply(sql.as_bytes(), Dialect::default(), Settings::default());
        change.map(|change| change.map(|change| change.settings))
    }

    #[test]
    fn settings_are_read() {
        let of = |consistency, max_lag| {
            let settings = Settings {
                consistency,
                max_lag,
                ..Settings::default()
            };
            Some(Ok(settings))
        };
        for (sql, expected) in [
            (
                "SET @dbproxy_consistency = 'strong'",
                of(Some(Consistency::Strong), None),
            ),
            (
                "set @DBPROXY_consistency:=\"Eventual\";",
                of(Some(Consistency::Eventual), None),
            ),
            ("SET @dbproxy_consistency = NULL", of(None, None)),
            (
                "SET @dbproxy_consistency = connection",
                of(Some(Consistency::Connection), None),
            ),
            (
                "SET @dbproxy_consistency = 'GLOBAL'",
                of(Some(Consistency::Global), None),
            ),
            ("SET @dbproxy_max_lag = 0.25", of(None, Some(250))),
            (
                "SET @dbproxy_max_lag='2s', @dbproxy_consistency=user",
                of(Some(Consistency::User), Some(2000)),
            ),
            ("SET @a = 'dbproxy_consistency'", None),
            ("SET @a = 1", None),
            ("SELECT @dbproxy_consistency", None),
        ] {
            assert_eq!(set(sql), expected, "{sql}");
        }
    }

    #[test]
    fn keys_and_positions_are_taken_as_they_are_written() {
        let key = |sql| set(sql).unwrap().unwrap().key;
        assert_eq!(
            key("SET @dbproxy_session = 'Ab'"),
            Some(ScopeKey::new(b"Ab"))
        );
        assert_ne!(
            key("SET @dbproxy_session = 'ab'"),
            Some(ScopeKey::new(b"Ab"))
        );
        assert_eq!(key("SET @dbproxy_session = NULL"), None);
        let position = |sql: &str| {
            let change = apply(sql.as_bytes(), Dialect::default(), Settings::default());
            change.unwrap().unwrap().position
        };
        assert_eq!(
            position("SET @dbproxy_position = '0-1-7'").unwrap(),
            b"0-1-7"
        );
        assert_eq!(position("SET @dbproxy_position = ''"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (sql, text) in [
            ("SET @dbproxy_consistency = 'storng'", "'storng'"),
            ("SET @dbproxy_max_lag = -1", "takes a plain value"),
            ("SET @dbproxy_max_lag = 'soon'", "'soon'"),
            ("SET @dbproxy_lag = 1", "there is no @dbproxy_lag"),
            ("SET @dbproxy_max_lag = 1, @a = 2", "of their own"),
            ("SET @dbproxy_max_lag = 1, NAMES utf8", "of their own"),
            (
                "SET @dbproxy_consistency = CONCAT('a')",
                "takes a plain value",
            ),
        ] {
            let error = set(sql).unwrap().unwrap_err();
            assert!(error.text.contains(text), "{sql}: {error:?}");
        }
    }
}
