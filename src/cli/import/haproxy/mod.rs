//! HAProxy: sections that share a server are one cluster, such as a listener for writes and one for reads.

mod fates;

use std::collections::BTreeSet;

use toml::Value;

use super::Error;
use super::choose;
use super::target::Draft;
use super::target::Server;
use super::target::Setting;
use super::target::groups;
use crate::config::ServerAddress;
use fates::fate;

/// Words that open a section.
pub(super) const SECTIONS: [&str; 18] = [
    "global",
    "defaults",
    "listen",
    "frontend",
    "backend",
    "peers",
    "resolvers",
    "userlist",
    "mailers",
    "program",
    "ring",
    "cache",
    "http-errors",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "traces",
    "log-profile",
];

struct Section {
    line: usize,
    kind: String,
    name: String,
    lines: Vec<Line>,
}

struct Line {
    number: usize,
    words: Vec<String>,
}

impl Line {
    fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// The line as a setting. Its name is what it has in common with its kind, such as `timeout connect`.
    fn setting(&self) -> Setting {
        let pair = [
            "option",
            "timeout",
            "stats",
            "tcp-check",
            "http-check",
            "tcp-request",
            "http-request",
            "no",
        ];
        let names = if pair.contains(&self.word(0)) { 2 } else { 1 };
        let names = names.min(self.words.len());
        let (name, value) = self
            .words
            .split_at_checked(names)
            .unwrap_or((&self.words, &[]));
        let mut setting = Setting::new(self.number, name.join(" "), value.join(" "));
        setting.between = " ";
        setting
    }
}

impl Section {
    fn all<'s>(&'s self, word: &'s str) -> impl Iterator<Item = &'s Line> {
        self.lines.iter().filter(move |line| line.word(0) == word)
    }

    fn whole(&self) -> Setting {
        let mut setting = Setting::new(self.line, self.kind.clone(), self.name.clone());
        setting.between = " ";
        setting
    }

    /// Its mode, of its own or by the defaults in front of it.
    fn mode(&self, defaults: Option<&Self>) -> String {
        let own = self.all("mode").last();
        let line = own.or_else(|| defaults?.all("mode").last());
        line.map_or("tcp", |line| line.word(1)).to_owned()
    }
}

pub(super) fn draft(text: &str, wanted: Option<&str>) -> Result<Draft, Error> {
    let sections = read(text)?;
    // The last defaults in front of a section are its own.
    let defaults = |of: &Section| {
        let before = sections
            .iter()
            .filter(|section| section.kind == "defaults" && section.line < of.line);
        before.max_by_key(|section| section.line)
    };
    let mut default: Option<&Section> = None;
    let mut proxies: Vec<&Section> = Vec::new();
    for section in &sections {
        match section.kind.as_str() {
            "defaults" => default = Some(section),
            "listen" | "backend" | "frontend" if section.mode(default) == "tcp" => {
                proxies.push(section)
            }
            _ => {}
        }
    }
    // What belongs together: servers by their addresses, frontends and backends by their names.
    let sets: Vec<Vec<String>> = proxies.iter().map(|section| marks(section)).collect();
    let mut clusters: Vec<Vec<&Section>> = groups(&sets)
        .into_iter()
        .map(|group| {
            group
                .iter()
                .filter_map(|at| proxies.get(*at).copied())
                .collect()
        })
        .filter(|group: &Vec<&Section>| {
            group
                .iter()
                .any(|section| section.all("server").next().is_some())
        })
        .collect();
    clusters.sort_by_key(|cluster| !cluster.iter().any(|section| speaks_mysql(section)));
    let names: Vec<String> = clusters.iter().map(|cluster| name_of(cluster)).collect();
    let chosen = choose(&names, wanted)?;
    let mut draft = Draft::new(names.get(chosen).map_or("", String::as_str));
    for (at, (name, cluster)) in names.iter().zip(&clusters).enumerate() {
        if at != chosen {
            let servers = cluster.iter().flat_map(|section| section.all("server"));
            let addresses: Vec<_> = servers.map(|line| line.word(2)).collect();
            draft.other(name, &addresses.join(", "));
        }
    }
    let nothing = Vec::new();
    let ours = clusters.get(chosen).unwrap_or(&nothing);
    if !ours.iter().any(|section| speaks_mysql(section)) {
        draft.todo(
            "Nothing in the source says that these are MySQL or MariaDB servers: make sure of it.",
        );
    }
    // Global settings and defaults first, so that a section's own ones count.
    let used = ours
        .first()
        .and_then(|section| defaults(section))
        .map(|section| section.line);
    for section in sections
        .iter()
        .filter(|section| section.kind == "global" || Some(section.line) == used)
    {
        section
            .lines
            .iter()
            .for_each(|line| common(line, &mut draft));
    }
    let lines: BTreeSet<usize> = ours.iter().map(|section| section.line).collect();
    for section in &sections {
        if lines.contains(&section.line) {
            proxy(section, &mut draft)?;
        } else if section.kind != "global" && Some(section.line) != used {
            draft.note(
                &section.whole(),
                "it is for other servers, or for no MySQL at all",
            );
        }
    }
    Ok(draft)
}

fn read(text: &str) -> Result<Vec<Section>, Error> {
    let mut sections: Vec<Section> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words = words(line).map_err(|message| Error::at(number, message))?;
        let Some(first) = words.first() else {
            continue;
        };
        // Conditions of the configuration itself.
        if first.starts_with('.') {
            let message =
                format!("\"{first}\": decide by hand which of the lines count, and import those");
            return Err(Error::at(number, message));
        }
        if SECTIONS.contains(&first.as_str()) {
            let mut section = Section {
                line: number,
                kind: first.clone(),
                name: words.get(1).cloned().unwrap_or_default(),
                lines: Vec::new(),
            };
            // An address behind the name is an old way to write `bind`.
            if let Some(address) = words.get(2).filter(|word| word.contains(':')) {
                let words = vec!["bind".to_owned(), address.clone()];
                section.lines.push(Line { number, words });
            }
            sections.push(section);
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(Line { number, words });
        } else {
            return Err(Error::at(
                number,
                format!("\"{}\" stands before the first section", clipped(first)),
            ));
        }
    }
    Ok(sections)
}

fn clipped(word: &str) -> String {
    word.chars().take(40).collect()
}

/// As many as HAProxy itself takes.
const MOST_WORDS: usize = 64;

/// A line's words: quotes hold blanks together, a backslash takes the next character as it is, `#` begins a comment.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(characters.next()),
            (_, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.len() > MOST_WORDS {
        return Err(format!("more than {MOST_WORDS} words in a line"));
    }
    match quote {
        Some(_) => Err("a quote is not closed".to_owned()),
        None => Ok(words),
    }
}

fn marks(section: &Section) -> Vec<String> {
    let servers = section
        .all("server")
        .map(|line| format!("server {}", line.word(2)));
    let backends = ["default_backend", "use_backend"].into_iter();
    let backends = backends
        .flat_map(|word| section.all(word))
        .map(|line| format!("backend {}", line.word(1)));
    let own = (section.kind == "backend").then(|| format!("backend {}", section.name));
    servers.chain(backends).chain(own).collect()
}

fn name_of(cluster: &[&Section]) -> String {
    let mysql = cluster
        .iter()
        .find(|section| section.all("server").next().is_some());
    mysql
        .or_else(|| cluster.first())
        .map(|section| section.name.clone())
        .unwrap_or_default()
}

/// Whether something says that a section is about MySQL: the check, a usual port, or a name.
fn speaks_mysql(section: &Section) -> bool {
    let checked = section
        .all("option")
        .any(|line| line.word(1) == "mysql-check");
    let addresses = section
        .all("server")
        .map(|line| line.word(2))
        .chain(section.all("bind").map(|line| line.word(1)));
    let ported = addresses
        .filter_map(|address| address.rsplit(':').next())
        .any(|port| port.starts_with("330"));
    let name = section.name.to_ascii_lowercase();
    checked
        || ported
        || ["mysql", "maria", "galera", "percona", "pxc"]
            .iter()
            .any(|word| name.contains(word))
}

fn proxy(section: &Section, draft: &mut Draft) -> Result<(), Error> {
    let inherited: Vec<&str> = section
        .all("default-server")
        .flat_map(|line| line.words.iter().skip(1))
        .map(String::as_str)
        .take(MOST_WORDS)
        .collect();
    let balanced = section
        .all("server")
        .filter(|line| !line.words.iter().any(|word| word == "backup"))
        .count()
        > 1;
    for line in &section.lines {
        match line.word(0) {
            "bind" => bind(line, draft),
            "server" => server(line, &inherited, draft)?,
            "default-server" => {}
            "balance" if balanced => balance(line, draft),
            "balance" => draft.note(
                &line.setting(),
                "there is one server at a time; reads go to every replica",
            ),
            _ => common(line, draft),
        }
    }
    Ok(())
}

fn common(line: &Line, draft: &mut Draft) {
    let setting = line.setting();
    match line.word(0) {
        "mode" if line.word(1) == "tcp" => {}
        _ => draft.apply(
            fate(&format!("{} {}", line.word(0), line.word(1))),
            &setting,
        ),
    }
}

fn balance(line: &Line, draft: &mut Draft) {
    let value = match line.word(1) {
        "leastconn" => "least-connections",
        "roundrobin" | "static-rr" => "round-robin",
        word if word.starts_with("random") => "random",
        _ => {
            draft.note(&line.setting(), "a session is not kept on one server: each of its reads takes the replica with the fewest statements in flight");
            return;
        }
    };
    draft.set(
        "cluster.balance",
        Value::String(value.to_owned()),
        &line.setting(),
        "",
    );
}

fn bind(line: &Line, draft: &mut Draft) {
    let setting = line.setting();
    for address in line.word(1).split(',') {
        if let Some(path) = address
            .strip_prefix("unix@")
            .or_else(|| Some(address).filter(|address| address.starts_with('/')))
        {
            draft.listen(&format!("unix:{path}"), false, &setting);
            continue;
        }
        let address = address
            .strip_prefix("ipv4@")
            .or_else(|| address.strip_prefix("ipv6@"))
            .unwrap_or(address);
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let host = match host {
            "" | "*" => "0.0.0.0",
            "::" => "[::]",
            host => host,
        };
        let bracketed = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        draft.listen(&format!("{bracketed}:{port}"), false, &setting);
    }
    let mut option = line.setting();
    for word in line.words.iter().skip(2) {
        option.value = format!("{} … {word}", line.word(1));
        match word.as_str() {
            "accept-proxy" => {
                draft.note(&option, "who may tell a client's address is named by its network: `listen.proxy_protocol`");
                draft.todo("Name the load balancers in front of dbproxy in listen.proxy_protocol.");
            }
            "ssl" => {
                draft.note(&option, "MySQL's TLS begins inside the protocol; clients get it from dbproxy: [tls.client]");
                draft.todo("Clients that used TLS around the protocol must use MySQL's own: see [tls.client].");
            }
            _ => {}
        }
    }
}

fn server(line: &Line, inherited: &[&str], draft: &mut Draft) -> Result<(), Error> {
    let mut setting = line.setting();
    let written = line.word(2);
    let text = match written
        .strip_prefix("unix@")
        .or_else(|| Some(written).filter(|address| address.starts_with('/')))
    {
        Some(path) => format!("unix:{path}"),
        None => {
            let bare = written
                .strip_prefix("ipv4@")
                .or_else(|| written.strip_prefix("ipv6@"))
                .unwrap_or(written);
            match bare.rsplit_once(':') {
                Some((host, port)) if host.contains(':') && !host.starts_with('[') => {
                    format!("[{host}]:{port}")
                }
                _ => bare.to_owned(),
            }
        }
    };
    let address = ServerAddress::parse(&text).map_err(|message| Error::at(line.number, message))?;
    let own = line.words.iter().skip(3).map(String::as_str);
    let options: Vec<&str> = inherited.iter().copied().chain(own).collect();
    let last = |name: &str| {
        let at = options.iter().rposition(|option| *option == name)?;
        options.get(at + 1).copied()
    };
    let has = |name: &str| options.contains(&name);
    if has("disabled") || last("weight") == Some("0") {
        draft.note(
            &setting,
            "a server that is disabled or of weight 0 is left out; add it when it is to be used",
        );
        return Ok(());
    }
    let mut server = Server::new(address, &setting);
    server.name = Some(line.word(1).to_owned());
    server.weight = last("weight").and_then(|weight| weight.parse().ok());
    setting.name = format!("server {}", line.word(1));
    let mut note = |option: &str, why: &str| {
        setting.value = option.trim_end().to_owned();
        draft.note(&setting, why);
    };
    if has("send-proxy") || has("send-proxy-v2") {
        server.proxy_protocol = true;
    }
    if has("backup") {
        note(
            "backup",
            "dbproxy has no standby: it finds out which server is the primary, and the others get reads",
        );
    }
    if has("ssl") {
        note(
            "ssl",
            "MySQL's TLS begins inside the protocol; `tls` of a server and [tls.server] say how",
        );
    }
    for option in [
        "check",
        "inter",
        "fastinter",
        "downinter",
        "rise",
        "fall",
        "port",
        "addr",
        "observe",
        "track",
        "slowstart",
        "on-marked-down",
        "on-marked-up",
    ] {
        if has(option) {
            let value = last(option).filter(|_| !matches!(option, "check"));
            note(
                &format!("{option} {}", value.unwrap_or_default()),
                "not needed: dbproxy's monitor looks at each server every `monitor.interval`, by SQL",
            );
        }
    }
    for (option, why) in [
        (
            "maxqueue",
            "`limits.queue_depth` is how many statements may wait",
        ),
        ("cookie", "a session is not kept on one server"),
        (
            "resolvers",
            "names are looked up at each connection, by the system",
        ),
    ] {
        if has(option) {
            note(
                &format!("{option} {}", last(option).unwrap_or_default()),
                why,
            );
        }
    }
    if let Some(most) = last("maxconn") {
        let limit = Setting {
            value: most.to_owned(),
            name: format!("server {} maxconn", line.word(1)),
            ..line.setting()
        };
        draft.at_most("limits.server_connections", &limit);
    }
    draft.server(server)
}
