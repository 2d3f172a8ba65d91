//! SHOW PROCESSLIST: the primary's list of threads as a list of sessions.
//!
//! A thread that works for a session is shown as that session. Sessions that have no thread there now are added, and the
//! threads that work for nobody, of connections in the pool, are left out.

use std::collections::{HashMap, HashSet};

use bytes::BytesMut;
use dbproxy_proto::{
    capability::Capabilities,
    rows::{Format, Value, with_rows},
};

use super::handle::Listed;

/// Rewrites the whole answer of a server. The session `viewer` asks; `idle` are the server's ids of connections in the pool.
///
/// Sessions of others are added only where the server shows threads of others.
pub(super) fn rewrite(
    list: &[u8],
    (capabilities, format): (Capabilities, Format),
    viewer: u32,
    sessions: &[Listed],
    idle: &HashSet<u32>,
) -> BytesMut {
    with_rows(list, capabilities, format, |threads| {
        let by_thread = by_thread(sessions);
        let session_of = |thread: &[Value<'_>]| by_thread.get(&id(thread)?).copied();
        let is_own = |thread: &&Vec<Value<'_>>| {
            session_of(thread).is_some_and(|session| session.id == viewer)
        };
        let own = threads.iter().find(is_own)?;
        let (user, columns) = (user(own)?, own.len());
        // Otherwise the list is in another character set than names are here.
        let own = session_of(own).filter(|session| session.user.as_bytes() == user)?;
        let sees_others = threads
            .iter()
            .any(|thread| self::user(thread) != Some(user));

        let mut shown = HashSet::new();
        let mut rows = Vec::with_capacity(threads.len() + sessions.len());
        for mut thread in threads {
            if let Some(session) = session_of(&thread) {
                shown.insert(session.id);
                for (value, whose) in thread.iter_mut().zip(session.whose()) {
                    *value = whose;
                }
            } else if id(&thread).is_some_and(|id| idle.contains(&id)) {
                continue;
            }
            rows.push(thread);
        }
        let others = sessions
            .iter()
            .filter(|session| !shown.contains(&session.id))
            .filter(|session| sees_others || session.user == own.user);
        let more = || std::iter::repeat(Value::Integer(0));
        rows.extend(others.map(|session| session.row().chain(more()).take(columns).collect()));
        Some(rows)
    })
}

/// What another session held may have been forgotten a moment too late: who runs a statement there has the thread.
fn by_thread(sessions: &[Listed]) -> HashMap<u32, &Listed> {
    let of = |runs: bool| {
        let theirs = sessions.iter().filter(move |session| session.runs == runs);
        theirs.filter_map(|session| Some((session.thread?, session)))
    };
    of(false).chain(of(true)).collect()
}

fn id(thread: &[Value<'_>]) -> Option<u32> {
    u32::try_from(thread.first()?.number()?).ok()
}

fn user<'a>(thread: &[Value<'a>]) -> Option<&'a [u8]> {
    thread.get(1).copied().and_then(Value::text)
}

impl Listed {
    /// Id, user and host.
    fn whose(&self) -> [Value<'_>; 3] {
        [
            Value::Integer(u64::from(self.id)),
            Value::Bytes(self.user.as_bytes()),
            Value::Bytes(self.host.as_bytes()),
        ]
    }

    /// The row of a session without a thread, as far as both flavors have the same columns.
    fn row(&self) -> impl Iterator<Item = Value<'_>> {
        let schema = self.schema.as_deref().map_or(Value::Null, Value::Bytes);
        let (command, seconds) = match self.idle {
            Some(seconds) => (&b"Sleep"[..], seconds),
            None => (&b"Query"[..], 0),
        };
        let rest = [
            schema,
            Value::Bytes(command),
            Value::Integer(u64::from(seconds)),
            Value::Bytes(b""),
            Value::Null,
        ];
        self.whose().into_iter().chain(rest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use dbproxy_proto::{
        StatusFlags,
        resultset::{Column, put_columns, put_end, put_row},
        rows::Rows,
    };

    use super::*;

    const CAPS: Capabilities = Capabilities::PROTOCOL_41;

    fn session(id: u32, user: &str, thread: Option<u32>, runs: bool) -> Listed {
        Listed {
            id,
            user: user.into(),
            host: "192.0.2.1:40000".into(),
            schema: Some((*b"shop").into()),
            idle: (!runs).then_some(7),
            thread,
            runs,
        }
    }

    /// A server's list of (id, user).
    fn list(threads: &[(&str, &str)]) -> BytesMut {
        let (mut out, mut seq) = (BytesMut::new(), 1);
        let columns = [
            "Id", "User", "Host", "db", "Command", "Time", "State", "Info",
        ];
        let columns = columns.map(|name| Column::text(name.as_bytes(), 45));
        put_columns(&mut out, &mut seq, &columns, StatusFlags::empty(), CAPS);
        for (id, user) in threads {
            let values = [id, user, "proxy:1", "shop", "Query", "0", "", "SELECT 1"];
            let values = values.map(|value| Some(value.as_bytes()));
            put_row(&mut out, &mut seq, values);
        }
        put_end(&mut out, &mut seq, StatusFlags::empty(), 0, CAPS);
        out
    }

    /// Id, host, command, time.
    fn shown(threads: &[(&str, &str)], sessions: &[Listed], idle: &[u32]) -> Vec<[String; 4]> {
        let idle = idle.iter().copied().collect();
        let out = rewrite(&list(threads), (CAPS, Format::Text), 1002, sessions, &idle);
        let rows = Rows::new(&out, CAPS, Format::Text);
        let text = |value: Value<'_>| String::from_utf8(value.text().unwrap().into()).unwrap();
        rows.map(|row| [0, 2, 4, 5].map(|column| text(row[column])))
            .collect()
    }

    #[test]
    fn sessions_stand_for_their_threads() {
        let sessions = [
            session(1001, "app", Some(11), false),
            session(1002, "app", Some(11), true),
            session(1003, "app", None, false),
            session(1004, "other", None, false),
        ];
        let rows = shown(
            &[("11", "app"), ("12", "app"), ("13", "app")],
            &sessions,
            &[12],
        );
        let client = "192.0.2.1:40000";
        assert_eq!(
            rows,
            [
                ["1002", client, "Query", "0"],
                ["13", "proxy:1", "Query", "0"],
                ["1001", client, "Sleep", "7"],
                ["1003", client, "Sleep", "7"],
            ]
        );
    }

    #[test]
    fn sessions_of_others_are_for_those_who_see_their_threads() {
        let sessions = [
            session(1002, "app", Some(11), true),
            session(1004, "other", None, false),
        ];
        let ids = |threads| {
            let rows = shown(threads, &sessions, &[]);
            rows.into_iter().map(|[id, ..]| id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&[("11", "app")]), ["1002"]);
        let seen = [("11", "app"), ("5", "monitor")];
        assert_eq!(ids(&seen), ["1002", "5", "1004"]);
    }

    #[test]
    fn a_list_in_another_character_set_stays_as_it_is() {
        let sessions = [
            session(1002, "\u{e9}", Some(11), true),
            session(1004, "other", None, false),
        ];
        // UTF-16 has ids that are no numbers here, Latin 1 other bytes for the name.
        for row in [("\u{0}1\u{0}1", "\u{0}\u{e9}"), ("11", "\u{c3}\u{a9}")] {
            assert_eq!(shown(&[row, ("12", "x")], &sessions, &[12]).len(), 2);
        }
    }

    #[test]
    fn an_answer_without_rows_stays_as_it_is() {
        let list = list(&[]);
        let sessions = [session(1, "app", None, false)];
        let out = rewrite(&list, (CAPS, Format::Text), 1, &sessions, &HashSet::new());
        assert_eq!(out, list);
    }
}
