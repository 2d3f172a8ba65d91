//! mysqlnd_ms: each section of the JSON is a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;
use toml::Value;

use super::Error;
use super::choose;
use super::target::Draft;
use super::target::Rule;
use super::target::Server;
use super::target::Setting;
use super::target::span;
use crate::config::ServerAddress;

pub(super) fn draft(text: &str, wanted: Option<&str>) -> Result<Draft, Error> {
    let Sections(sections) =
        serde_json::from_str(text).map_err(|error| Error::at(error.line(), said(&error)))?;
    let names: Vec<String> = sections.iter().map(|(name, _)| name.clone()).collect();
    let chosen = choose(&names, wanted)?;
    let mut draft = Draft::new(names.get(chosen).map_or("", String::as_str));
    for (at, (name, section)) in sections.iter().enumerate() {
        if at == chosen {
            take(name, section, &mut draft)?;
        } else {
            let hosts: Vec<_> = members(section)
                .map(|(_, server)| word(server.get("host")))
                .collect();
            draft.other(name, &hosts.join(", "));
        }
    }
    draft.todo("The application's host is dbproxy's address instead of the section's name, and its account one of the servers'; unload mysqlnd_ms.");
    Ok(draft)
}

/// What is wrong, without the place, which stands in front.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The sections in the order of the file.
struct Sections(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Sections {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Sections;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a section for each host of the application")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sections, A::Error> {
                let mut sections = Vec::new();
                while let Some(section) = map.next_entry()? {
                    sections.push(section);
                }
                Ok(Sections(sections))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// The servers of a section, masters first, each with its path below the section.
fn members(section: &Json) -> impl Iterator<Item = (String, &Json)> {
    ["master", "slave"].into_iter().flat_map(|role| {
        let named = section
            .get(role)
            .and_then(Json::as_object)
            .into_iter()
            .flatten();
        let listed = section
            .get(role)
            .and_then(Json::as_array)
            .into_iter()
            .flatten();
        let named = named.map(|(name, server)| (name.clone(), server));
        let listed = listed
            .enumerate()
            .map(|(at, server)| (at.to_string(), server));
        let all = named.chain(listed).filter(|(_, server)| server.is_object());
        all.map(move |(name, server)| (format!("{role}.{name}"), server))
    })
}

fn take(name: &str, section: &Json, draft: &mut Draft) -> Result<(), Error> {
    let Some(settings) = section.as_object() else {
        return Err(Error::new(format!("\"{name}\" is not an object")));
    };
    if settings.contains_key("fabric") && members(section).next().is_none() {
        return Err(Error::new(format!(
            "\"{name}\" gets its servers from MySQL Fabric, which is no more: name the servers in dbproxy.toml"
        )));
    }
    if !settings.contains_key("master") {
        return Err(Error::new(format!("\"{name}\" lacks its key \"master\"")));
    }
    let weights = weights(section);
    for (path, server) in members(section) {
        member(name, &path, server, &weights, draft)?;
    }
    // Filters stand before `master_on_write` in the order of names, so that the latter counts.
    for (key, value) in settings {
        let path = format!("{name}.{key}");
        match key.as_str() {
            "master" | "slave" => {}
            "filters" => filters(&path, value, draft),
            // It let reads see writes for the rest of a request.
            "master_on_write" if setting(&path, &word(Some(value))).is_on() => {
                let strong =
                    draft.value("cluster.consistency").and_then(Value::as_str) == Some("strong");
                if !strong {
                    draft.text(
                        "cluster.consistency",
                        "user",
                        &setting(&path, &word(Some(value))),
                    );
                }
            }
            _ => each(&path, value, &mut |setting| draft.note(setting, why(key))),
        }
    }
    Ok(())
}

/// The weights of the filters that have some, by the server's name.
fn weights(section: &Json) -> BTreeMap<&str, u64> {
    let filters = ["random", "roundrobin"].into_iter();
    let filters = filters.filter_map(|filter| section.get("filters")?.get(filter));
    let weights = filters.filter_map(|filter| {
        filter
            .get("weights")
            .or_else(|| filter.get("weight"))?
            .as_object()
    });
    let weights = weights
        .flatten()
        .filter_map(|(name, weight)| Some((name.as_str(), word(Some(weight)).parse().ok()?)));
    weights.collect()
}

fn member(
    section: &str,
    path: &str,
    server: &Json,
    weights: &BTreeMap<&str, u64>,
    draft: &mut Draft,
) -> Result<(), Error> {
    let text = |key: &str| word(server.get(key));
    let (host, port, socket) = (text("host"), text("port"), text("socket"));
    let address = match (host.as_str(), socket.as_str()) {
        ("" | "localhost", socket) if !socket.is_empty() => format!("unix:{socket}"),
        (host, _) => {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.to_owned()
            };
            format!("{host}:{}", if port.is_empty() { "3306" } else { &port })
        }
    };
    let full = format!("{section}.{path}");
    let address = ServerAddress::parse(&address)
        .map_err(|message| Error::new(format!("{full}: {message}")))?;
    let mut made = Server::new(address, &setting(&full, ""));
    let name = path.rsplit('.').next().unwrap_or(path);
    if !name.chars().all(|c| c.is_ascii_digit()) {
        made.name = Some(name.to_owned());
        made.weight = weights.get(name).copied();
    }
    draft.server(made)?;
    for (key, value) in server.as_object().into_iter().flatten() {
        let why = match key.as_str() {
            "host" | "port" | "socket" => continue,
            "user" | "password" => {
                "clients log in with an account of the servers: give the application this one; dbproxy reads the accounts itself"
            }
            "db" => "the client names the schema, at its login or by USE",
            "connect_flags" => "servers are asked for what the client asks for",
            _ => "dbproxy has no such setting of a server",
        };
        each(&format!("{full}.{key}"), value, &mut |setting| {
            draft.note(setting, why)
        });
    }
    Ok(())
}

fn filters(path: &str, filters: &Json, draft: &mut Draft) {
    // An array of filters is an older way to write them.
    let listed = filters
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_object)
        .flatten();
    for (name, filter) in filters.as_object().into_iter().flatten().chain(listed) {
        let path = format!("{path}.{name}");
        match name.as_str() {
            "random" | "roundrobin" => {
                let value = if name == "random" {
                    "random"
                } else {
                    "round-robin"
                };
                draft.set(
                    "cluster.balance",
                    Value::String(value.to_owned()),
                    &setting(&path, ""),
                    "",
                );
                for (key, value) in filter.as_object().into_iter().flatten() {
                    if !key.starts_with("weight") {
                        each(&format!("{path}.{key}"), value, &mut |setting| {
                            draft.note(setting, "a session is not kept on one replica; `cluster.consistency` says what its reads see");
                        });
                    }
                }
            }
            "quality_of_service" => quality(&path, filter, draft),
            "node_groups" => node_groups(&path, filter, draft),
            _ => {
                let why = match name.as_str() {
                    "user" | "user_multi" => {
                        "PHP chose the server; dbproxy chooses by the statement, and a leading comment such as /*ms=master*/ can ask, as before"
                    }
                    "table" => {
                        "dbproxy does not divide tables over servers; `schemas` of [clusters.NAME] divide schemas over clusters"
                    }
                    _ => "dbproxy has no such filter",
                };
                each(&path, filter, &mut |setting| draft.note(setting, why));
            }
        }
    }
}

/// A group's servers answer the reads that begin with its name in a comment.
fn node_groups(path: &str, filter: &Json, draft: &mut Draft) {
    for (name, members) in filter.as_object().into_iter().flatten() {
        let from = setting(&format!("{path}.{name}"), "");
        if draft.is_full() {
            draft.note(&from, "more groups than anybody keeps track of");
            continue;
        }
        let listed = ["master", "slave"]
            .into_iter()
            .filter_map(|role| members.get(role));
        let members: BTreeSet<&str> = listed
            .flat_map(|list| list.as_array().into_iter().flatten())
            .filter_map(Json::as_str)
            .collect();
        draft.group(name, &from, |server| {
            let name = server.name.as_deref();
            name.is_some_and(|name| members.contains(name))
        });
        let mut rule = Rule::new(&format!("node group {name}"), &from);
        let pattern = format!(r"^\s*/\*{}\*/", ::regex::escape(name));
        let made = rule
            .text("pattern", &pattern)
            .and_then(|()| rule.text("route", &format!("group={name}")));
        match made {
            Ok(()) => draft.rule(rule),
            Err(why) => draft.note(&from, &why),
        }
    }
}

fn quality(path: &str, filter: &Json, draft: &mut Draft) {
    for (level, options) in filter.as_object().into_iter().flatten() {
        let path = format!("{path}.{level}");
        let value = match level.as_str() {
            "strong_consistency" => "strong",
            "session_consistency" => "user",
            "eventual_consistency" => "eventual",
            _ => {
                draft.note(&setting(&path, ""), "dbproxy has no such level");
                continue;
            }
        };
        draft.set(
            "cluster.consistency",
            Value::String(value.to_owned()),
            &setting(&path, ""),
            "",
        );
        for (key, value) in options.as_object().into_iter().flatten() {
            let full = format!("{path}.{key}");
            match (key.as_str(), word(Some(value)).parse::<u64>()) {
                ("age", Ok(seconds)) if seconds > 0 => {
                    let found = setting(&full, &word(Some(value)));
                    draft.set(
                        "cluster.max_lag",
                        span(seconds.saturating_mul(1000)),
                        &found,
                        " (in s)",
                    );
                }
                _ => each(&full, value, &mut |setting| {
                    draft.note(
                        setting,
                        "a [[rule]] with kind = \"read\" and cache keeps answers for a while",
                    );
                }),
            }
        }
    }
}

/// Characters of a path.
const MOST: usize = 200;

/// Calls `f` with every single value at or below a path.
fn each(path: &str, value: &Json, f: &mut dyn FnMut(&Setting)) {
    // The parser has bounded the depth. A path longer than a comment would only take time.
    let path: String = path.chars().take(MOST).collect();
    match value {
        Json::Object(map) if !map.is_empty() => {
            map.iter()
                .for_each(|(key, value)| each(&format!("{path}.{key}"), value, f));
        }
        Json::Array(list) if list.iter().any(|item| item.is_object() || item.is_array()) => {
            let items = list.iter().enumerate();
            items.for_each(|(at, value)| each(&format!("{path}.{at}"), value, f));
        }
        _ => f(&setting(&path, &word(Some(value)))),
    }
}

fn setting(path: &str, value: &str) -> Setting {
    Setting {
        line: None,
        name: path.to_owned(),
        value: value.to_owned(),
        between: " = ",
    }
}

/// A value as text, a string without its quotes.
fn word(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn why(key: &str) -> &'static str {
    match key {
        "lazy_connections" => "always so: a connection is taken when a statement needs one",
        "server_charset" => {
            "the session's character set is brought to each server before its statements"
        }
        "failover" => {
            "dbproxy watches the servers: a read goes to another replica or the primary, a write waits up to `limits.hold` for a primary"
        }
        "master_on_write" => "not needed: `cluster.consistency` says what reads see",
        "trx_stickiness" => {
            "always so: a transaction stays on its connection, also one that begins in SQL"
        }
        "global_transaction_id_injection" => {
            "not needed: servers tell the position of a write in their answer; nothing is injected"
        }
        "transient_error" => {
            "a read that has not yet sent a row is repeated elsewhere; a write is never repeated"
        }
        "fabric" => "MySQL Fabric is no more",
        "xa" => "XA statements run on the primary; dbproxy begins none itself",
        "master_on" | "inject_on" => {
            "dbproxy tells reads from writes by the whole statement; there are no lists of words"
        }
        _ => "dbproxy has no such setting",
    }
}
