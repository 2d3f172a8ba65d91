//! What is written: a `dbproxy.toml` in which every value tells where it comes from, and every setting of the source
//! that has no equal is named with the reason.

mod groups;
mod rule;
mod setting;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use toml::Value;

use super::Error;
use crate::config::{self, Config, ListenAddress, SecretFile, ServerAddress, Sources};
pub(super) use groups::groups;
pub(super) use rule::Rule;
use setting::plain;
pub(super) use setting::{Fate, Setting};

/// One server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) address: ServerAddress,
    pub(super) name: Option<String>,
    pub(super) weight: Option<u64>,
    pub(super) group: Option<String>,
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
            group: None,
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

/// One of the clusters.
#[derive(Default)]
struct Cluster {
    name: String,
    entries: Vec<Entry>,
    servers: Vec<Server>,
    /// The smallest so far of what has a smallest.
    seconds: BTreeMap<&'static str, u64>,
}

/// The configuration that comes to be.
#[derive(Default)]
pub(super) struct Draft {
    /// Without those of clusters.
    entries: Vec<Entry>,
    /// What is added goes to the last of them.
    clusters: Vec<Cluster>,
    rules: Vec<Rule>,
    listeners: Vec<(ListenAddress, bool, String)>,
    notes: Vec<(String, Vec<String>)>,
    /// Where a reason stands in `notes`.
    reasons: BTreeMap<String, usize>,
    todo: Vec<String>,
    others: Vec<String>,
    holds_secret: bool,
}

/// As many as dbproxy takes of servers, and more than anybody has of listeners.
const MANY: usize = 256;

/// The largest weight that a server can have.
const HEAVIEST: u64 = 1000;

impl Draft {
    pub(super) fn new(cluster: &str) -> Self {
        let mut draft = Self::default();
        draft.begin(cluster);
        draft
    }

    /// Begins a further cluster, which gets what is added from here on.
    pub(super) fn begin(&mut self, name: &str) {
        self.clusters.push(Cluster {
            name: plain(name),
            ..Cluster::default()
        });
    }

    /// Where a key stands.
    fn entries(&mut self, key: &str) -> &mut Vec<Entry> {
        match self.clusters.last_mut() {
            Some(cluster) if key.starts_with("cluster") => &mut cluster.entries,
            _ => &mut self.entries,
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
        let entries = self.entries(key);
        match entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => {
                entry.value = value;
                entry.from.push(from);
            }
            None => entries.push(Entry {
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
        let own = self.clusters.last().map(|cluster| &cluster.entries);
        let mut entries = self.entries.iter().chain(own.into_iter().flatten());
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
        let mut entries = self.entries(key).iter_mut();
        let known = entries.find(|entry| entry.key == key);
        match known.map(|entry| (&mut entry.value, &mut entry.from)) {
            Some((Value::Array(list), lines)) if config::fits(key, &alone.to_string()).is_ok() => {
                if list.len() == MANY {
                    self.note(from, &format!("more than {MANY} of `{key}`"));
                } else if !list.contains(&item) {
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
        let own = self.clusters.last_mut().map(|cluster| &mut cluster.seconds);
        let least = match own {
            Some(own) => {
                let least = own.entry(key).or_insert(u64::MAX);
                *least = seconds.min(*least);
                *least
            }
            None => seconds,
        };
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
        let Some(cluster) = self.clusters.last_mut() else {
            return Ok(());
        };
        let mut known = cluster.servers.iter_mut();
        if let Some(known) = known.find(|known| known.address == server.address) {
            known.name = known.name.take().or(server.name);
            known.weight = known.weight.max(server.weight);
            known.group = known.group.take().or(server.group);
            known.tls = known.tls.or(server.tls);
            known.zlib |= server.zlib;
            known.proxy_protocol |= server.proxy_protocol;
            known.from.extend(server.from);
            return Ok(());
        }
        if cluster.servers.len() == MANY {
            return Err(Error::new(format!("more than {MANY} servers")));
        }
        cluster.servers.push(server);
        Ok(())
    }

    /// Puts servers of the cluster into a group, if they are in none.
    pub(super) fn group(
        &mut self,
        name: &str,
        from: &Setting,
        is_member: impl Fn(&Server) -> bool,
    ) {
        let shown = Value::String(name.to_owned()).to_string();
        if let Err(message) = config::fits("cluster.server[].group", &shown) {
            self.note(from, &format!("not the name of a group: {message}"));
            return;
        }
        let mut taken = false;
        let servers = self.clusters.last_mut().map(|cluster| &mut cluster.servers);
        for server in servers
            .into_iter()
            .flatten()
            .filter(|server| is_member(server))
        {
            if *server.group.get_or_insert_with(|| name.to_owned()) == name {
                server.from.push(from.to_string());
            } else {
                taken = true;
            }
        }
        if taken {
            self.note(
                from,
                "a server is in one group only, the first that names it",
            );
        }
    }

    /// The servers of the cluster.
    pub(super) fn servers(&self) -> &[Server] {
        self.clusters.last().map_or(&[], |cluster| &cluster.servers)
    }

    /// The addresses for clients so far that fit.
    pub(super) fn listeners(&self, fits: impl Fn(&ListenAddress) -> bool) -> Vec<String> {
        let all = self.listeners.iter().map(|(address, ..)| address);
        all.filter(|address| fits(address))
            .map(ToString::to_string)
            .collect()
    }

    /// Whether there are more rules than will be written.
    pub(super) fn is_full(&self) -> bool {
        self.rules.len() > MOST_RULES
    }

    /// Adds a rule behind those that are there.
    pub(super) fn rule(&mut self, rule: Rule) {
        self.rules.push(rule);
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
        if let Some(empty) = self
            .clusters
            .iter()
            .find(|cluster| cluster.servers.is_empty())
        {
            return Err(Error::new(format!("\"{}\" names no server", empty.name)));
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
        self.complete_servers();
        self.complete_rules();
        let setting = |text: &str| Setting {
            line: None,
            name: text.to_owned(),
            value: String::new(),
            between: "",
        };
        if self.listeners.is_empty() {
            let mut servers = self.clusters.iter().flat_map(|cluster| &cluster.servers);
            let taken = |server: &Server| matches!(&server.address, ServerAddress::Tcp { host, port: 3306 } if matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1"));
            let port = if servers.any(taken) { 3307 } else { 3306 };
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
        for cluster in &mut self.clusters {
            let name = Value::String(cluster.name.clone());
            if config::fits("cluster.name", &name.to_string()).is_ok() {
                let entry = Entry {
                    key: "cluster.name",
                    value: name,
                    from: Vec::new(),
                };
                cluster.entries.insert(0, entry);
            }
        }
    }

    /// Brings weights and names into dbproxy's bounds.
    fn complete_servers(&mut self) {
        let mut names = Vec::new();
        let mut scaled_from = None;
        for cluster in &mut self.clusters {
            let weights = cluster.servers.iter().filter_map(|server| server.weight);
            let heaviest = weights.max().filter(|heaviest| *heaviest > HEAVIEST);
            for server in &mut cluster.servers {
                if let (Some(weight), Some(heaviest)) = (&mut server.weight, heaviest) {
                    let scaled = u128::from(*weight) * u128::from(HEAVIEST) / u128::from(heaviest);
                    *weight = u64::try_from(scaled).unwrap_or(HEAVIEST).max(1);
                }
                server.name = server.name.take().filter(|name| {
                    let shown = Value::String(name.clone()).to_string();
                    config::fits("cluster.server[].name", &shown).is_ok() && !names.contains(name)
                });
                names.extend(server.name.clone());
            }
            scaled_from = scaled_from.or(heaviest);
        }
        if let Some(heaviest) = scaled_from {
            self.todo(&format!(
                "The weights are scaled down from {heaviest} to {HEAVIEST}, dbproxy's largest."
            ));
        }
    }
}

/// More than anybody writes by hand.
const MOST_RULES: usize = 500;

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
