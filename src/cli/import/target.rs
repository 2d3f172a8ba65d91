//! What is written: a `dbproxy.toml` in which every value tells where it comes from, and every setting of the source
//! that has no equal is named with the reason.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;
use std::io;
use std::path::Path;

use toml::Value;

use super::Error;
use crate::config::{self, Config, ListenAddress, SecretFile, ServerAddress, Sources};

/// A setting of the source.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// Its line, from 1; `None` where its name says where it is.
    pub(super) line: Option<usize>,
    pub(super) name: String,
    pub(super) value: String,
    /// What stands between the two.
    pub(super) between: &'static str,
}

impl Setting {
    pub(super) fn new(line: usize, name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            name: name.into(),
            value: value.into(),
            between: " = ",
        }
    }

    /// The value as a number.
    pub(super) fn number(&self) -> Option<u64> {
        self.value.trim().parse().ok()
    }

    /// Whether the value says yes, in any of the sources' languages.
    pub(super) fn is_on(&self) -> bool {
        let yes = ["1", "true", "on", "yes", "required"];
        yes.contains(&self.value.trim().to_ascii_lowercase().as_str())
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&plain(&self.name))?;
        if self.value.is_empty() {
            return Ok(());
        }
        f.write_str(self.between)?;
        if is_secret(&self.name) || is_secret(&self.value) {
            f.write_str("…")
        } else {
            f.write_str(&plain(&self.value))
        }
    }
}

/// Whether a text speaks of something that must not be repeated in a comment.
fn is_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let words = [
        "pass",
        "setenv",
        "credential",
        "secret",
        "jwt",
        "token",
        "stats auth",
        "_pw",
        "monitorpw",
        "identified by",
    ];
    words.iter().any(|word| text.contains(word))
}

/// A text as it can stand in one line of a comment.
fn plain(text: &str) -> String {
    const ENOUGH: usize = 200;
    let mut out = String::new();
    for c in text.chars().take(ENOUGH) {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    if text.chars().nth(ENOUGH).is_some() {
        out.push('…');
    }
    out
}

/// What becomes of a setting of the source.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// It has no equal, and why, and what to do instead.
    Nothing(&'static str),
    /// It is the number of this key.
    Count(&'static str),
    /// It is the duration of this key, in the source's unit.
    Span(&'static str, fn(&str) -> Option<u64>, &'static str),
    /// It is the text of this key.
    Text(&'static str),
}

/// One server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) address: ServerAddress,
    pub(super) name: Option<String>,
    pub(super) weight: Option<u64>,
    pub(super) tls: Option<&'static str>,
    pub(super) zlib: bool,
    pub(super) proxy_protocol: bool,
    /// Where it comes from.
    pub(super) from: Vec<String>,
}

impl Server {
    pub(super) fn new(address: ServerAddress, from: &Setting) -> Self {
        Self {
            address,
            name: None,
            weight: None,
            tls: None,
            zlib: false,
            proxy_protocol: false,
            from: vec![from.to_string()],
        }
    }
}

struct Entry {
    key: &'static str,
    value: Value,
    from: Vec<String>,
}

/// The configuration that comes to be.
#[derive(Default)]
pub(super) struct Draft {
    entries: Vec<Entry>,
    servers: Vec<Server>,
    listeners: Vec<(ListenAddress, bool, String)>,
    notes: Vec<(String, Vec<String>)>,
    /// Where a reason stands in `notes`.
    reasons: BTreeMap<String, usize>,
    /// The smallest so far of what has a smallest.
    seconds: BTreeMap<&'static str, u64>,
    todo: Vec<String>,
    others: Vec<String>,
    cluster: String,
    holds_secret: bool,
}

/// The sections in the order in which they are written; the servers stand behind `cluster`.
const SECTIONS: [&str; 8] = [
    "",
    "listen",
    "monitor",
    "cluster",
    "compression",
    "tls.client",
    "tls.server",
    "limits",
];

/// As many as dbproxy takes of servers, and more than anybody has of listeners.
const MANY: usize = 256;

/// The largest weight that a server can have.
const HEAVIEST: u64 = 1000;

impl Draft {
    pub(super) fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            ..Self::default()
        }
    }

    /// Gives a key a value, or says why it cannot have it. The last one counts.
    pub(super) fn set(&mut self, key: &'static str, value: Value, from: &Setting, remark: &str) {
        if let Err(message) = config::fits(key, &value.to_string()) {
            self.note(
                from,
                &format!(
                    "`{key}` stays at its default, because this value does not fit: {message}"
                ),
            );
            return;
        }
        let from = format!("{from}{remark}");
        match self.entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => {
                entry.value = value;
                entry.from.push(from);
            }
            None => self.entries.push(Entry {
                key,
                value,
                from: vec![from],
            }),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// What a key has so far.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        let mut entries = self.entries.iter();
        entries
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
    }

    pub(super) fn text(&mut self, key: &'static str, value: &str, from: &Setting) {
        self.set(key, Value::String(value.to_owned()), from, "");
    }

    /// The same for a secret, which no comment repeats.
    pub(super) fn password(&mut self, from: &Setting) {
        let word = &from.value;
        if word.starts_with("env:") || word.starts_with("file:") {
            self.note(
                from,
                "a password that begins like a reference cannot stand in the file: put it into the environment",
            );
            return;
        }
        self.holds_secret = true;
        self.text("monitor.password", word, from);
    }

    /// Adds to a key that is a list.
    pub(super) fn append(&mut self, key: &'static str, item: &str, from: &Setting) {
        let item = Value::String(item.to_owned());
        let alone = Value::Array(vec![item.clone()]);
        let known = self.entries.iter_mut().find(|entry| entry.key == key);
        match known.map(|entry| (&mut entry.value, &mut entry.from)) {
            Some((Value::Array(list), lines)) if config::fits(key, &alone.to_string()).is_ok() => {
                if !list.contains(&item) && list.len() < MANY {
                    list.push(item);
                    lines.push(from.to_string());
                    lines.dedup();
                }
            }
            _ => self.set(key, alone, from, ""),
        }
    }

    /// Gives a key the smallest of several numbers: what is a limit of each server there, is one limit here.
    pub(super) fn at_most(&mut self, key: &'static str, from: &Setting) {
        let own = from.number().and_then(|number| i64::try_from(number).ok());
        let known = self.value(key).and_then(Value::as_integer);
        match own.map(|own| known.map_or(own, |known| known.min(own))) {
            Some(least) => self.set(key, Value::Integer(least), from, ""),
            None => self.note(from, &format!("`{key}` stays at its default: no number")),
        }
    }

    /// The same for seconds.
    pub(super) fn at_most_seconds(&mut self, key: &'static str, from: &Setting) {
        let seconds = from.number().unwrap_or_default();
        let known = self.seconds.get(key).copied().unwrap_or(u64::MAX);
        let least = seconds.min(known);
        self.seconds.insert(key, least);
        self.set(key, span(least.saturating_mul(1000)), from, " (in s)");
    }

    /// Does with a setting what a table says.
    pub(super) fn apply(&mut self, fate: Fate, from: &Setting) {
        match fate {
            Fate::Nothing(why) => self.note(from, why),
            Fate::Text(key) => self.text(key, from.value.trim(), from),
            Fate::Count(key) => match from.number().and_then(|n| i64::try_from(n).ok()) {
                Some(number) => self.set(key, Value::Integer(number), from, ""),
                None => self.note(from, &format!("`{key}` stays at its default: no number")),
            },
            Fate::Span(key, read, remark) => match read(from.value.trim()) {
                Some(millis) => self.set(key, span(millis), from, remark),
                None => self.note(from, &format!("`{key}` stays at its default: no duration")),
            },
        }
    }

    /// Says of a setting that it has no equal.
    pub(super) fn note(&mut self, from: &Setting, why: &str) {
        let at = *self.reasons.entry(why.to_owned()).or_insert_with(|| {
            self.notes.push((why.to_owned(), Vec::new()));
            self.notes.len() - 1
        });
        if let Some((_, settings)) = self.notes.get_mut(at) {
            settings.push(from.to_string());
        }
    }

    /// Something to be done before dbproxy serves.
    pub(super) fn todo(&mut self, text: &str) {
        if !self.todo.iter().any(|known| known == text) {
            self.todo.push(text.to_owned());
        }
    }

    /// Another cluster of the source.
    pub(super) fn other(&mut self, name: &str, servers: &str) {
        self.others
            .push(format!("{} ({})", plain(name), plain(servers)));
    }

    /// Adds a server, or what is new of one that is there already.
    pub(super) fn server(&mut self, server: Server) -> Result<(), Error> {
        let mut known = self.servers.iter_mut();
        if let Some(known) = known.find(|known| known.address == server.address) {
            known.name = known.name.take().or(server.name);
            known.weight = known.weight.max(server.weight);
            known.tls = known.tls.or(server.tls);
            known.zlib |= server.zlib;
            known.proxy_protocol |= server.proxy_protocol;
            known.from.extend(server.from);
            return Ok(());
        }
        if self.servers.len() == MANY {
            return Err(Error::new(format!("more than {MANY} servers")));
        }
        self.servers.push(server);
        Ok(())
    }

    /// Adds an address for clients.
    pub(super) fn listen(&mut self, text: &str, with_tls: bool, from: &Setting) {
        match ListenAddress::parse(text) {
            Ok(address) => {
                let known = self.listeners.iter().any(|(known, ..)| *known == address);
                if !known && self.listeners.len() < MANY {
                    self.listeners.push((address, with_tls, from.to_string()));
                }
            }
            Err(message) => self.note(from, &format!("not an address for clients: {message}")),
        }
    }

    /// The whole file, accepted by dbproxy's own checks.
    pub(super) fn finish(mut self, head: &str) -> Result<Written, Error> {
        if self.servers.is_empty() {
            return Err(Error::new(format!("\"{}\" names no server", self.cluster)));
        }
        self.complete();
        let text = self.render(head);
        let config = config::parse(&text, "", &Later)
            .map_err(|problems| {
                Error::new(format!("dbproxy could not use the result: {problems}"))
            })?
            .config;
        Ok(Written {
            text,
            config,
            holds_secret: self.holds_secret,
            unequal: self.notes.iter().map(|(_, settings)| settings.len()).sum(),
        })
    }

    /// What every configuration needs, whatever the source had.
    fn complete(&mut self) {
        let heaviest = self.servers.iter().filter_map(|server| server.weight).max();
        if let Some(heaviest) = heaviest.filter(|heaviest| *heaviest > HEAVIEST) {
            for weight in self
                .servers
                .iter_mut()
                .filter_map(|server| server.weight.as_mut())
            {
                let scaled = u128::from(*weight) * u128::from(HEAVIEST) / u128::from(heaviest);
                *weight = u64::try_from(scaled).unwrap_or(HEAVIEST).max(1);
            }
            self.todo(&format!(
                "The weights are scaled down from {heaviest} to {HEAVIEST}, dbproxy's largest."
            ));
        }
        let mut names = Vec::new();
        for server in &mut self.servers {
            let fitting = server.name.take().filter(|name| {
                let shown = Value::String(name.clone()).to_string();
                config::fits("cluster.server[].name", &shown).is_ok() && !names.contains(name)
            });
            names.extend(fitting.clone());
            server.name = fitting;
        }
        let setting = |text: &str| Setting {
            line: None,
            name: text.to_owned(),
            value: String::new(),
            between: "",
        };
        if self.listeners.is_empty() {
            let taken = |server: &Server| matches!(&server.address, ServerAddress::Tcp { host, port: 3306 } if matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1"));
            let port = if self.servers.iter().any(taken) {
                3307
            } else {
                3306
            };
            self.listen(
                &format!("127.0.0.1:{port}"),
                false,
                &setting("not of the source: where clients connect"),
            );
        }
        for (key, tls) in [("listen.mysql_tls", true), ("listen.mysql", false)] {
            let of_key: Vec<_> = self
                .listeners
                .iter()
                .filter(|(_, with_tls, _)| *with_tls == tls)
                .collect();
            // An empty list of the plain ones is not the same as none.
            if of_key.is_empty() && tls {
                continue;
            }
            let list = of_key
                .iter()
                .map(|(address, ..)| Value::String(address.to_string()))
                .collect();
            let mut from: Vec<String> = of_key.iter().map(|(.., from)| from.clone()).collect();
            from.dedup();
            let entry = Entry {
                key,
                value: Value::Array(list),
                from,
            };
            self.entries.insert(0, entry);
        }
        if !self.has("monitor.user") {
            self.text(
                "monitor.user",
                "dbproxy",
                &setting("not of the source: the account to be made"),
            );
        }
        if !self.has("monitor.password") {
            // Set directly: whether the variable is there, is asked when the file is used.
            self.entries.push(Entry {
                key: "monitor.password",
                value: Value::String("env:DBPROXY_MONITOR_PASSWORD".to_owned()),
                from: vec!["not of the source: its password".to_owned()],
            });
            self.todo("Put the monitor account's password into the environment variable DBPROXY_MONITOR_PASSWORD.");
        }
        self.todo.insert(0, "Give the monitor account what dbproxy needs (README, \"Quick start\"): it also reads the servers' accounts.".to_owned());
        self.todo("Run `dbproxy check`: it asks every server and says what is missing.");
        let name = Value::String(plain(&self.cluster));
        if config::fits("cluster.name", &name.to_string()).is_ok() {
            let entry = Entry {
                key: "cluster.name",
                value: name,
                from: Vec::new(),
            };
            self.entries.insert(0, entry);
        }
    }

    fn render(&self, head: &str) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, head);
        out
    }

    fn write(&self, out: &mut String, head: &str) -> fmt::Result {
        writeln!(out, "# {}", plain(head))?;
        writeln!(out, "#\n# Before dbproxy serves with it:")?;
        for todo in &self.todo {
            writeln!(out, "# - {todo}")?;
        }
        if !self.others.is_empty() {
            writeln!(
                out,
                "#\n# The source has more clusters; dbproxy serves one per process (`--cluster NAME` takes another):"
            )?;
        }
        for other in &self.others {
            writeln!(out, "# - {other}")?;
        }
        for section in SECTIONS {
            let of_section = |entry: &&Entry| {
                entry
                    .key
                    .rsplit_once('.')
                    .map_or("", |(section, _)| section)
                    == section
            };
            let mut entries = self.entries.iter().filter(of_section).peekable();
            if entries.peek().is_none() && section != "cluster" {
                continue;
            }
            writeln!(out)?;
            if !section.is_empty() {
                writeln!(out, "[{section}]")?;
            }
            for entry in entries {
                comments(out, &entry.from)?;
                let name = entry.key.rsplit('.').next().unwrap_or(entry.key);
                writeln!(out, "{name} = {}", entry.value)?;
            }
            if section == "cluster" {
                for server in &self.servers {
                    write_server(out, server)?;
                }
            }
        }
        if !self.notes.is_empty() {
            writeln!(out, "\n# What has no equal in dbproxy, and why")?;
        }
        for (why, settings) in &self.notes {
            writeln!(out, "#\n# {}:", plain(why))?;
            for setting in settings {
                writeln!(out, "#   {setting}")?;
            }
        }
        Ok(())
    }
}

fn comments(out: &mut String, from: &[String]) -> fmt::Result {
    from.iter().try_for_each(|from| writeln!(out, "# {from}"))
}

fn write_server(out: &mut String, server: &Server) -> fmt::Result {
    writeln!(out, "\n[[cluster.server]]")?;
    comments(out, &server.from)?;
    let text = |text: &str| Value::String(text.to_owned());
    if let Some(name) = &server.name {
        writeln!(out, "name = {}", text(name))?;
    }
    writeln!(out, "address = {}", text(&server.address.to_string()))?;
    if let Some(weight) = server.weight.filter(|weight| *weight != 1) {
        writeln!(out, "weight = {weight}")?;
    }
    if server.zlib {
        writeln!(out, "compression = \"zlib\"")?;
    }
    if server.proxy_protocol {
        writeln!(out, "proxy_protocol = \"on\"")?;
    }
    if let Some(tls) = server.tls {
        writeln!(out, "tls = \"{tls}\"")?;
    }
    Ok(())
}

/// A duration as the file has it.
pub(super) fn span(millis: u64) -> Value {
    Value::String(if millis.is_multiple_of(1000) {
        format!("{}s", millis / 1000)
    } else {
        format!("{millis}ms")
    })
}

/// A source turned into a configuration.
#[derive(Debug)]
pub struct Written {
    /// The file's text.
    pub text: String,
    /// What dbproxy reads in it.
    pub config: Config,
    /// Whether a password stands in it.
    pub holds_secret: bool,
    /// Settings of the source that have no equal.
    pub unequal: usize,
}

/// The environment and the files of the day on which the file is used.
struct Later;

impl Sources for Later {
    fn variable(&self, _: &str) -> Option<String> {
        Some(String::new())
    }

    fn file(&self, _: &Path) -> io::Result<SecretFile> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn cores(&self) -> usize {
        1
    }
}

/// Sets that share an element, directly or by others, belong together: the numbers of the sets, group by group, in order.
pub(super) fn groups<T: Ord>(sets: &[Vec<T>]) -> Vec<Vec<usize>> {
    let mut leader: Vec<usize> = (0..sets.len()).collect();
    let mut seen: BTreeMap<&T, usize> = BTreeMap::new();
    for (at, set) in sets.iter().enumerate() {
        for element in set {
            let other = *seen.entry(element).or_insert(at);
            let (one, other) = (find(&mut leader, at), find(&mut leader, other));
            if let Some(slot) = leader.get_mut(one.max(other)) {
                *slot = one.min(other);
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in 0..sets.len() {
        groups.entry(find(&mut leader, at)).or_default().push(at);
    }
    groups.into_values().collect()
}

fn find(leader: &mut [usize], mut at: usize) -> usize {
    while let Some(up) = leader.get(at).copied().filter(|up| *up != at) {
        let above = leader.get(up).copied().unwrap_or(up);
        if let Some(slot) = leader.get_mut(at) {
            *slot = above;
        }
        at = above;
    }
    at
}
