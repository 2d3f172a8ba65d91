//! MySQL Router's `ROUTER SET name = value`, where it means the same here.

use super::dialect::Dialect;
use super::lexer::{Token, TokenKind, tokens};
use super::setting::{Access, Settings, Wrong};
use super::words::Word;
use crate::config::Consistency;

/// Takes in a statement that Router would take for itself; `None` for any other.
///
/// # Errors
/// What is wrong with it, by Router's numbers.
pub fn apply(
    sql: &[u8],
    dialect: Dialect,
    settings: Settings,
    in_transaction: bool,
) -> Option<Result<Settings, Wrong>> {
    let tokens = tokens(sql, dialect)?;
    let [router, set, rest @ ..] = tokens.as_slice() else {
        return None;
    };
    let is_router =
        router.kind() == TokenKind::Word && router.bytes(sql).eq_ignore_ascii_case(b"ROUTER");
    if !is_router || set.entry()?.word != Word::Set {
        return None;
    }
    Some(take(rest, sql, settings, in_transaction))
}

/// Most of the seconds that Router waits.
const LONGEST: u32 = 3600;

fn take(
    tokens: &[Token],
    sql: &[u8],
    mut settings: Settings,
    in_transaction: bool,
) -> Result<Settings, Wrong> {
    let (name, value) = match tokens {
        [name, equals, value] if equals.is(b'=') => (*name, *value),
        [_, equals, _, ..] if equals.is(b'=') => {
            return Err(syntax(
                "ROUTER SET <name> = <value> takes one plain value, and nothing behind it",
            ));
        }
        _ => return Err(syntax("ROUTER SET expects <name> = <value>")),
    };
    let name = String::from_utf8_lossy(name.plain_name(sql)).to_ascii_lowercase();
    let expects = |what: &str| {
        syntax(&format!(
            "parse error in 'ROUTER SET {name} = <...>'. Expected {what}"
        ))
    };
    let number = || match value.kind() {
        TokenKind::Number => std::str::from_utf8(value.bytes(sql))
            .ok()?
            .parse::<u32>()
            .ok(),
        _ => None,
    };
    match name.as_str() {
        "access_mode" => {
            let mode = match value.kind() {
                TokenKind::String => value.plain_name(sql).to_ascii_lowercase(),
                _ => Vec::new(),
            };
            let access = match mode.as_slice() {
                b"read_write" => Some(Access::ReadWrite),
                b"read_only" => Some(Access::ReadOnly),
                b"auto" => None,
                _ => return Err(expects("'read_write', 'read_only' or 'auto'")),
            };
            if in_transaction {
                return Err(syntax(
                    "'ROUTER SET access_mode = <...>' is not allowed while a transaction is active",
                ));
            }
            settings.access = access;
        }
        "wait_for_my_writes" => {
            settings.consistency = match number() {
                Some(0) => Some(Consistency::Eventual),
                Some(1) => Some(Consistency::User),
                _ => return Err(expects("0 or 1")),
            };
        }
        "wait_for_my_writes_timeout" => {
            let Some(seconds) = number().filter(|seconds| *seconds <= LONGEST) else {
                return Err(expects("a number of seconds from 0 to 3600"));
            };
            settings.wait = Some(seconds * 1000);
        }
        "trace" => match number() {
            Some(0) => {}
            Some(1) => {
                return Err(Wrong {
                    code: NOT_SUPPORTED,
                    text: "dbproxy writes no trace: EXPLAIN ROUTE <statement> tells where it goes and why".to_owned(),
                });
            }
            _ => return Err(expects("0 or 1")),
        },
        _ => {
            return Err(Wrong {
                code: UNKNOWN_VARIABLE,
                text: format!(
                    "Unknown Router system variable '{name}': there are access_mode, wait_for_my_writes, \
                     wait_for_my_writes_timeout and trace"
                ),
            });
        }
    }
    Ok(settings)
}

fn syntax(text: &str) -> Wrong {
    Wrong {
        code: PARSE_ERROR,
        text: text.to_owned(),
    }
}

const PARSE_ERROR: u16 = 1064;
const UNKNOWN_VARIABLE: u16 = 1193;
const NOT_SUPPORTED: u16 = 1235;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn router(sql: &str, in_transaction: bool) -> Option<Result<Settings, Wrong>> {
        let settings = Settings {
            access: Some(Access::ReadOnly),
            ..Settings::default()
        };
        apply(sql.as_bytes(), Dialect::default(), settings, in_transaction)
    }

    #[test]
    fn what_means_the_same_is_taken() {
        for (sql, access, consistency) in [
            ("ROUTER SET access_mode='auto'", None, None),
            (
                "router set ACCESS_MODE = \"Read_Write\";",
                Some(Access::ReadWrite),
                None,
            ),
            (
                "/* x */ ROUTER SET access_mode = 'read_only'",
                Some(Access::ReadOnly),
                None,
            ),
            (
                "ROUTER SET wait_for_my_writes = 0",
                Some(Access::ReadOnly),
                Some(Consistency::Eventual),
            ),
            (
                "ROUTER SET wait_for_my_writes=1",
                Some(Access::ReadOnly),
                Some(Consistency::User),
            ),
            (
                "ROUTER SET wait_for_my_writes_timeout = 3600",
                Some(Access::ReadOnly),
                None,
            ),
            ("ROUTER SET trace = 0", Some(Access::ReadOnly), None),
        ] {
            let settings = router(sql, false).unwrap().unwrap();
            assert_eq!(
                (settings.access, settings.consistency),
                (access, consistency),
                "{sql}"
            );
        }
        for sql in [
            "ROUTER",
            "ROUTER x",
            "SET access_mode = 1",
            "`ROUTER` SET a = 1",
            "",
        ] {
            assert_eq!(router(sql, false), None, "{sql}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (sql, code, text) in [
            ("ROUTER SET", 1064, "expects <name>"),
            ("ROUTER SET access_mode", 1064, "expects <name>"),
            ("ROUTER SET access_mode = 'auto' 1", 1064, "nothing behind"),
            ("ROUTER SET trace = -1", 1064, "one plain value"),
            ("ROUTER SET access_mode = auto", 1064, "'read_write'"),
            ("ROUTER SET access_mode = 'write'", 1064, "'read_only' or"),
            ("ROUTER SET access_mode = 1", 1064, "Expected 'read_write'"),
            ("ROUTER SET wait_for_my_writes = 2", 1064, "Expected 0 or 1"),
            (
                "ROUTER SET wait_for_my_writes = '1'",
                1064,
                "Expected 0 or 1",
            ),
            ("ROUTER SET wait_for_my_writes_timeout = 3601", 1064, "3600"),
            ("ROUTER SET wait_for_my_writes_timeout = 0.5", 1064, "3600"),
            ("ROUTER SET trace = 1", 1235, "EXPLAIN ROUTE"),
            ("ROUTER SET trace = 'on'", 1064, "Expected 0 or 1"),
            ("ROUTER SET mode = 'auto'", 1193, "'mode'"),
        ] {
            let wrong = router(sql, false).unwrap().unwrap_err();
            assert_eq!(wrong.code, code, "{sql}: {wrong:?}");
            assert!(wrong.text.contains(text), "{sql}: {wrong:?}");
        }
        let wrong = router("ROUTER SET access_mode = 'auto'", true).unwrap();
        assert!(wrong.unwrap_err().text.contains("transaction is active"));
        assert!(
            router("ROUTER SET wait_for_my_writes = 0", true)
                .unwrap()
                .is_ok()
        );
    }
}
