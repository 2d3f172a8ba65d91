//! From a text to a [`Config`]: every unknown key, every bad value and every contradiction, in one go.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::iter;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use super::Account;
use super::ClientMode;
use super::Cluster;
use super::Compression;
use super::Config;
use super::Hooks;
use super::Limits;
use super::Listen;
use super::ListenAddress;
use super::Log;
use super::Monitor;
use super::Observe;
use super::SecretFile;
use super::ServerConfig;
use super::Serves;
use super::Sources;
use super::Tls;
use super::User;
use super::keys;
use super::keys::Key;
use super::kind::Kind;
use super::kind::Report;
use super::kind::closest;
use super::problem::Loaded;
use super::problem::Problem;
use super::problem::Problems;
use super::problem::Severity;
use super::rule;
use super::tls;

/// More than any cluster has, and few enough to be probed from one task each.
const MAX_SERVERS: usize = 256;

/// Checks a text; `file` is what problems call it.
///
/// # Errors
/// All the problems, in the order of their places, if at least one of them is an error.
pub fn parse(text: &str, file: &str, sources: &dyn Sources) -> Result<Loaded, Problems> {
    parse_noting_literals(text, file, sources).map(|(loaded, _)| loaded)
}

/// Whether a key, by its path in the reference, can have this value, written as in the file. References to the
/// environment and to files are not followed, so that `env:` and `file:` never fit.
///
/// # Errors
/// What is wrong, in words.
pub fn fits(path: &str, value: &str) -> Result<(), String> {
    let mut keys = keys::ALL.iter();
    let Some(key) = keys.find(|key| key.path() == path) else {
        return Err("is not a key".to_owned());
    };
    let text = format!("value = {value}");
    let table = DeTable::parse(&text).map_err(|error| error.message().to_owned())?;
    let (Some(value), 1) = (table.get_ref().get("value"), table.get_ref().len()) else {
        return Err("is not a value".to_owned());
    };
    let mut report = Report {
        file: "",
        text: &text,
        sources: &Nowhere,
        problems: Vec::new(),
        literal_secret: false,
    };
    key.check(value, &mut report);
    match report.problems.into_iter().next() {
        Some(problem) => Err(problem.message),
        None => Ok(()),
    }
}

/// No environment and no files.
struct Nowhere;

impl Sources for Nowhere {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &Path) -> io::Result<SecretFile> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn cores(&self) -> usize {
        1
    }
}

/// As [`parse`]; also says whether a password stands in the text itself.
pub(super) fn parse_noting_literals(
    text: &str,
    file: &str,
    sources: &dyn Sources,
) -> Result<(Loaded, bool), Problems> {
    let mut report = Report {
        file,
        text,
        sources,
        problems: Vec::new(),
        literal_secret: false,
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = error.message().to_owned();
        report.problem(Severity::Error, error.span(), "", message, None);
    }
    // What a broken text seems to lack may only be hidden by the break.
    if !errors.is_empty() {
        return Err(sorted(report.problems));
    }
    unknown(root.get_ref(), "", "", &mut report);
    let config = config(root.get_ref(), &mut report);
    let literal_secret = report.literal_secret;
    let failed = report
        .problems
        .iter()
        .any(|p| p.severity == Severity::Error);
    let Problems(problems) = sorted(report.problems);
    match config {
        Some(config) if !failed => Ok((
            Loaded {
                config,
                warnings: problems,
            },
            literal_secret,
        )),
        _ => Err(Problems(problems)),
    }
}

fn sorted(mut problems: Vec<Problem>) -> Problems {
    problems.sort_by_key(|problem| problem.place);
    Problems(problems)
}

/// Reports the keys that the table of keys does not have. `pattern` is the table's path there, `path` the one in the
/// text.
fn unknown(table: &DeTable<'_>, pattern: &str, path: &str, report: &mut Report<'_>) {
    let known = children(pattern);
    for (name, value) in table {
        let key = join(path, name.get_ref());
        let matching = known.iter().find(|segment| {
            let bare = segment.strip_suffix("[]").unwrap_or(segment);
            bare == name.get_ref().as_ref() || **segment == "NAME"
        });
        let Some(segment) = matching else {
            report_unknown(name, pattern, &key, &known, report);
            continue;
        };
        let below = join(pattern, segment);
        if children(&below).is_empty() {
            continue;
        }
        if segment.ends_with("[]") {
            match value.get_ref().as_array() {
                Some(items) => {
                    for item in items.iter() {
                        match item.get_ref().as_table() {
                            Some(item) => unknown(item, &below, &key, report),
                            None => report.wrong_type(item, &key, "a table"),
                        }
                    }
                }
                None => report.wrong_type(value, &key, &format!("a list: write [[{key}]]")),
            }
        } else if let Some(table) = value.get_ref().as_table() {
            unknown(table, &below, &key, report);
        } else {
            report.wrong_type(value, &key, &format!("a table: write [{key}]"));
        }
    }
}

fn report_unknown(
    name: &Spanned<std::borrow::Cow<'_, str>>,
    pattern: &str,
    key: &str,
    known: &BTreeSet<&'static str>,
    report: &mut Report<'_>,
) {
    let word = name.get_ref().as_ref();
    let full = join(pattern, word);
    let later = keys::LATER
        .iter()
        .any(|later| *later == full || later.strip_suffix("[]") == Some(&full));
    let (message, suggestion) = if later {
        ("is not supported yet".to_owned(), None)
    } else {
        let plain = known.iter().filter(|segment| **segment != "NAME");
        let near = closest(word, plain.map(|segment| segment.trim_end_matches("[]")));
        let suggestion = match near {
            Some(near) => Some(format!("did you mean \"{near}\"?")),
            None => elsewhere(word),
        };
        ("unknown key".to_owned(), suggestion)
    };
    report.problem(Severity::Error, Some(name.span()), key, message, suggestion);
}

/// Where a key of this name does exist.
fn elsewhere(word: &str) -> Option<String> {
    let mut paths = keys::ALL.iter().map(|entry| entry.path());
    let path = paths.find(|path| path.rsplit('.').next() == Some(word))?;
    let (parent, _) = path.rsplit_once('.').unwrap_or(("", path));
    Some(match parent {
        "" => format!("\"{word}\" belongs at the top, before the first section"),
        _ => match parent.strip_suffix("[]") {
            Some(list) => format!("\"{word}\" belongs in [[{list}]]"),
            None => format!("\"{word}\" belongs in [{parent}]"),
        },
    })
}

/// The segments that may follow a path in the table of keys. `[clusters.NAME]` has what `[cluster]` has.
fn children(pattern: &str) -> BTreeSet<&'static str> {
    let mut children = own_children(pattern);
    if let Some(rest) = pattern.strip_prefix("clusters.NAME") {
        children.extend(own_children(&format!("cluster{rest}")));
        if rest.is_empty() {
            children.remove("name");
        }
    }
    children
}

fn own_children(pattern: &str) -> BTreeSet<&'static str> {
    let below = |path: &'static str| match pattern {
        "" => Some(path),
        _ => path.strip_prefix(pattern)?.strip_prefix('.'),
    };
    let paths = keys::ALL.iter().filter_map(|entry| below(entry.path()));
    paths.filter_map(|rest| rest.split('.').next()).collect()
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// A table of the text, or the lack of one.
pub(super) struct Section<'t, 'i> {
    path: String,
    table: Option<&'t DeTable<'i>>,
    /// Where the table begins.
    span: Option<Range<usize>>,
}

impl<'t, 'i> Section<'t, 'i> {
    pub(super) fn value(&self, name: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        let mut entries = self.table?.iter();
        entries
            .find(|(key, _)| key.get_ref() == name)
            .map(|(_, value)| value)
    }

    /// The table below this one; an absent one if it is not there or not a table, which [`unknown`] reports.
    pub(super) fn section(&self, name: &str) -> Self {
        let value = self.value(name);
        Self {
            path: join(&self.path, name),
            table: value.and_then(|value| value.get_ref().as_table()),
            span: value.map(Spanned::span),
        }
    }

    /// One of the tables of the list of this name; `None` if it is none, which [`unknown`] reports.
    pub(super) fn item(&self, name: &str, item: &'t Spanned<DeValue<'i>>) -> Option<Self> {
        Some(Self {
            path: join(&self.path, name),
            table: Some(item.get_ref().as_table()?),
            span: Some(item.span()),
        })
    }

    /// The key's value or default. `None` means that a problem was reported.
    pub(super) fn read<K: Kind>(&self, key: &Key<K>, report: &mut Report<'_>) -> Option<K::Value> {
        let name = key.path.rsplit('.').next().unwrap_or(key.path);
        let path = join(&self.path, name);
        if let Some(value) = self.value(name) {
            return key.kind.read(value, &path, report);
        }
        let default = key.kind.default();
        if default.is_none() {
            let meaning = key.meaning.split('.').next().unwrap_or_default();
            let message = format!("is missing ({meaning})");
            report.problem(Severity::Error, self.span.clone(), &path, message, None);
        }
        default
    }
}

fn config(root: &DeTable<'_>, report: &mut Report<'_>) -> Option<Config> {
    let root = Section {
        path: String::new(),
        table: Some(root),
        span: None,
    };
    // Every part is checked before any missing one ends the work.
    let listen = root.section("listen");
    let plain = listen.read(&keys::LISTEN_MYSQL, report);
    let with_tls = listen.read(&keys::LISTEN_MYSQL_TLS, report);
    let proxy_protocol = listen.read(&keys::PROXY_PROTOCOL, report);
    let monitor = monitor(&root.section("monitor"), report);
    let tls = tls::tls(&root.section("tls"), report);
    let cluster = cluster(&root.section("cluster"), (0, None), tls.as_ref(), report);
    let clusters = clusters(&root.section("clusters"), tls.as_ref(), report);
    let users = users(&root.section("users"), report);
    let compression = compression(&root.section("compression"), report);
    let limits = limits(&root.section("limits"), report);
    let log = log(&root.section("log"), report);
    let mode = root.read(&keys::MODE, report);
    let sample = root.section("observe").read(&keys::OBSERVE_SAMPLE, report);
    let workers = root.read(&keys::WORKERS, report);
    let state_directory = root.read(&keys::STATE_DIRECTORY, report);

    let (plain, with_tls, cluster, clusters, tls) = (plain?, with_tls?, cluster?, clusters?, tls?);
    let all: Vec<_> = iter::once(&cluster).chain(&clusters).collect();
    twice(&all, &root, report);
    let servers: Vec<_> = all
        .iter()
        .flat_map(|cluster| cluster.servers.iter().cloned())
        .collect();
    itself(&plain, keys::LISTEN_MYSQL.path, &servers, report);
    itself(&with_tls, keys::LISTEN_MYSQL_TLS.path, &servers, report);
    listeners(&plain, &with_tls, tls.client.mode, report);
    if plain.is_empty() && with_tls.is_empty() {
        let span = listen.value("mysql").map(Spanned::span);
        let message = "must name at least one address, unless listen.mysql_tls does";
        report.error(span.unwrap_or_default(), keys::LISTEN_MYSQL.path, message);
    }
    let listeners: Vec<_> = plain
        .iter()
        .chain(&with_tls)
        .map(Spanned::get_ref)
        .collect();
    let rules = rule::rules(&root, &all, &listeners, report);
    let bare = |listeners: Vec<Spanned<ListenAddress>>| {
        listeners.into_iter().map(Spanned::into_inner).collect()
    };
    Some(Config {
        listen: Listen {
            mysql: bare(plain),
            mysql_tls: bare(with_tls),
            proxy_protocol: proxy_protocol?,
        },
        monitor: monitor?,
        cluster,
        clusters,
        rules: rules?,
        users: users?,
        compression: compression?,
        tls,
        limits: limits?,
        log: log?,
        mode: mode?,
        observe: Observe { sample: sample? },
        state_directory: state_directory?,
        workers: workers?.unwrap_or_else(|| report.sources.cores().max(1)),
    })
}

fn monitor(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Monitor> {
    let user = section.read(&keys::MONITOR_USER, report);
    let password = section.read(&keys::MONITOR_PASSWORD, report);
    let interval = section.read(&keys::MONITOR_INTERVAL, report);
    let heartbeat = section.read(&keys::MONITOR_HEARTBEAT, report);
    Some(Monitor {
        user: user?,
        password: password?,
        interval: interval?,
        heartbeat: heartbeat?,
    })
}

/// `[clusters.NAME]`, in the order of their names.
fn clusters(
    section: &Section<'_, '_>,
    tls: Option<&Tls>,
    report: &mut Report<'_>,
) -> Option<Vec<Cluster>> {
    let tables = section.table.into_iter().flatten();
    let names: BTreeSet<&str> = tables.map(|(name, _)| name.get_ref().as_ref()).collect();
    if names.len() > usize::from(u8::MAX) {
        let message = format!("{} clusters are too many: at most {}", names.len(), u8::MAX);
        report.error(
            section.span.clone().unwrap_or_default(),
            &section.path,
            message,
        );
        return None;
    }
    let mut clusters = Vec::new();
    let mut whole = true;
    for (number, name) in (1..=u8::MAX).zip(names) {
        let section = section.section(name);
        if section.table.is_none() {
            // Reported with the unknown keys.
            whole = false;
            continue;
        }
        match cluster(&section, (number, Some(name)), tls, report) {
            Some(cluster) => clusters.push(cluster),
            None => whole = false,
        }
    }
    whole.then_some(clusters)
}

/// Reports names that two clusters or their servers have: hints, rules and logs would not tell which is meant.
fn twice(clusters: &[&Cluster], root: &Section<'_, '_>, report: &mut Report<'_>) {
    let mut names = BTreeSet::new();
    for cluster in clusters {
        let section = root.section("clusters").section(&cluster.name);
        let span = section.span.unwrap_or_default();
        let path = format!("clusters.{}", cluster.name);
        if clusters
            .iter()
            .filter(|other| other.name == cluster.name)
            .count()
            > 1
            && cluster.number > 0
        {
            report.error(
                span.clone(),
                &path,
                "[cluster] has this name: see cluster.name",
            );
        }
        for server in &cluster.servers {
            if !names.insert(&server.name) {
                let message = format!("another cluster has a server \"{}\" too", server.name);
                report.error(span.clone(), &path, message);
            }
        }
    }
}

/// Whose sessions a cluster serves.
fn serves(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Serves> {
    let server_names = section.read(&keys::SERVES_SERVER_NAMES, report);
    let accounts = section.read(&keys::SERVES_ACCOUNTS, report);
    let schemas = section.read(&keys::SERVES_SCHEMAS, report);
    let serves = Serves {
        server_names: server_names?,
        accounts: accounts?,
        schemas: schemas?,
    };
    if serves == Serves::default() {
        let message = "serves nobody: give it accounts, schemas or server_names".to_owned();
        report.problem(
            Severity::Error,
            section.span.clone(),
            &section.path,
            message,
            None,
        );
        return None;
    }
    Some(serves)
}

/// `[cluster]`, or the one of `[clusters]` that has this number and name.
fn cluster(
    section: &Section<'_, '_>,
    (number, own_name): (u8, Option<&str>),
    tls: Option<&Tls>,
    report: &mut Report<'_>,
) -> Option<Cluster> {
    let (name, serves) = match own_name {
        Some(name) => (Some(name.to_owned()), serves(section, report)),
        None => (
            section.read(&keys::CLUSTER_NAME, report),
            Some(Serves::default()),
        ),
    };
    let zone = section.read(&keys::ZONE, report).flatten();
    let servers = servers(section, tls, zone.as_deref(), report);
    let consistency = section.read(&keys::CONSISTENCY, report);
    let monotonic_reads = section.read(&keys::MONOTONIC_READS, report);
    let replica_wait = section.read(&keys::REPLICA_WAIT, report);
    let max_lag = section.read(&keys::MAX_LAG, report);
    let balance = section.read(&keys::BALANCE, report);
    let slow_start = section.read(&keys::SLOW_START, report);
    let hedged_reads = section.read(&keys::HEDGED_READS, report);
    let read_only_transactions = section.read(&keys::READ_ONLY_TRANSACTIONS, report);
    let transaction_replay = section.read(&keys::TRANSACTION_REPLAY, report);
    let transaction_replay_size = section.read(&keys::TRANSACTION_REPLAY_SIZE, report);
    let administration = section.read(&keys::ADMINISTRATION, report);
    let failover = section.read(&keys::FAILOVER, report);
    let max_loss = section.read(&keys::MAX_LOSS, report);
    let rejoin = section.read(&keys::REJOIN, report);
    let replication = replication(section, report);
    let hooks = hooks(&section.section("hooks"), report);
    let compression = section.read(&keys::CLUSTER_COMPRESSION, report);
    let proxy_protocol = section.read(&keys::CLUSTER_PROXY_PROTOCOL, report);
    Some(Cluster {
        number,
        serves: serves?,
        name: name?,
        servers: servers?,
        consistency: consistency?,
        monotonic_reads: monotonic_reads?,
        replica_wait: replica_wait?,
        max_lag: max_lag?,
        balance: balance?,
        slow_start: slow_start?,
        hedged_reads: (hedged_reads? * 1000.0).ceil() as u32,
        read_only_transactions: read_only_transactions?,
        transaction_replay: transaction_replay?,
        transaction_replay_size: transaction_replay_size?,
        administration: administration?,
        failover: failover?,
        max_loss: max_loss?.try_into().unwrap_or(u64::MAX),
        rejoin: rejoin?,
        replication: replication?,
        hooks: hooks?,
        compression: compression?,
        proxy_protocol: proxy_protocol?,
    })
}

/// The operator's programs.
fn hooks(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Hooks> {
    let fence = section.read(&keys::HOOK_FENCE, report);
    let before_promote = section.read(&keys::HOOK_BEFORE_PROMOTE, report);
    let after_promote = section.read(&keys::HOOK_AFTER_PROMOTE, report);
    let timeout = section.read(&keys::HOOK_TIMEOUT, report);
    Some(Hooks {
        fence: fence?,
        before_promote: before_promote?,
        after_promote: after_promote?,
        timeout: timeout?,
    })
}

/// The account of replicas, if there is one.
fn replication(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Option<Account>> {
    let user = section.read(&keys::REPLICATION_USER, report)?;
    let password = section.read(&keys::REPLICATION_PASSWORD, report)?;
    match (user, password) {
        (Some(user), Some(password)) => Some(Some(Account { user, password })),
        (None, None) => Some(None),
        (given, _) => {
            let (there, lacking) = match given {
                Some(_) => ("replication_user", "replication_password"),
                None => ("replication_password", "replication_user"),
            };
            let span = section.value(there).map(Spanned::span);
            let path = join(&section.path, there);
            let message = format!("is of no use without {}", join(&section.path, lacking));
            report.error(span.unwrap_or_default(), &path, message);
            None
        }
    }
}

fn servers(
    section: &Section<'_, '_>,
    tls: Option<&Tls>,
    here: Option<&str>,
    report: &mut Report<'_>,
) -> Option<Vec<ServerConfig>> {
    let short = section.value("servers");
    // Not a list: reported by `unknown`.
    let long = section
        .value("server")
        .filter(|value| value.get_ref().is_array());
    let path = join(&section.path, "servers");
    let servers = match (short, long) {
        (Some(_), Some(long)) => {
            let message = format!("use either {path} or [[{}.server]]", section.path);
            report.error(long.span(), &join(&section.path, "server"), message);
            return None;
        }
        (None, Some(long)) => long_form(section, long, here, report)?,
        _ => section.read(&keys::SERVERS, report)?,
    };
    let listed = short
        .or(long)
        .and_then(|value| value.get_ref().as_array())
        .map_or(0, |a| a.len());
    if listed == 0 {
        let span = short
            .or(long)
            .map(Spanned::span)
            .or_else(|| section.span.clone());
        let suggestion = "write servers = [\"db1=10.0.0.11:3306\", …]".to_owned();
        let message = "names no server".to_owned();
        report.problem(Severity::Error, span, &path, message, Some(suggestion));
        return None;
    }
    if listed > MAX_SERVERS {
        let span = short.or(long).map(Spanned::span);
        let message = format!("{listed} servers are too many: at most {MAX_SERVERS}");
        report.problem(Severity::Error, span, &path, message, None);
    }
    duplicates(&servers, &path, report);
    if tls.is_some_and(|tls| tls.server.ca.is_none()) {
        verified_against_nothing(&servers, report);
    }
    Some(servers.into_iter().map(Spanned::into_inner).collect())
}

fn long_form(
    section: &Section<'_, '_>,
    list: &Spanned<DeValue<'_>>,
    here: Option<&str>,
    report: &mut Report<'_>,
) -> Option<Vec<Spanned<ServerConfig>>> {
    let mut servers = Vec::new();
    for item in list.get_ref().as_array()?.iter() {
        let server = section.item("server", item)?;
        let name = server.read(&keys::SERVER_NAME, report);
        let address = server.read(&keys::SERVER_ADDRESS, report);
        let weight = server.read(&keys::SERVER_WEIGHT, report);
        let group = server.read(&keys::SERVER_GROUP, report);
        let zone = server.read(&keys::SERVER_ZONE, report);
        let promote = server.read(&keys::SERVER_PROMOTE, report);
        let compression = server.read(&keys::SERVER_COMPRESSION, report);
        let proxy_protocol = server.read(&keys::SERVER_PROXY_PROTOCOL, report);
        let tls = server.read(&keys::SERVER_TLS, report);
        let (
            Some(name),
            Some(address),
            Some(weight),
            Some(group),
            Some(zone),
            Some(promote),
            Some(compression),
            Some(proxy_protocol),
            Some(tls),
        ) = (
            name,
            address,
            weight,
            group,
            zone,
            promote,
            compression,
            proxy_protocol,
            tls,
        )
        else {
            continue;
        };
        let server = ServerConfig {
            name: name.unwrap_or_else(|| address.to_string()),
            address,
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
            group,
            near: here.is_some() && zone.as_deref() == here,
            promote,
            compression,
            proxy_protocol,
            tls,
        };
        servers.push(Spanned::new(item.span(), server));
    }
    Some(servers)
}

/// Reports servers whose certificates are to be verified when there is nothing to verify them against.
fn verified_against_nothing(servers: &[Spanned<ServerConfig>], report: &mut Report<'_>) {
    for server in servers {
        tls::needs_ca(
            server.get_ref().tls.unwrap_or_default(),
            server.span(),
            "cluster.server.tls",
            report,
        );
    }
}

fn duplicates(servers: &[Spanned<ServerConfig>], path: &str, report: &mut Report<'_>) {
    let mut names: BTreeMap<&str, ()> = BTreeMap::new();
    let mut addresses: BTreeMap<String, &str> = BTreeMap::new();
    for spanned in servers {
        let server = spanned.get_ref();
        if names.insert(&server.name, ()).is_some() {
            report.error(
                spanned.span(),
                path,
                format!("two servers are named \"{}\"", server.name),
            );
            continue;
        }
        if let Some(other) = addresses.insert(server.address.to_string(), &server.name) {
            let message = format!(
                "\"{}\" and \"{other}\" have the same address, {}",
                server.name, server.address
            );
            report.error(spanned.span(), path, message);
        }
    }
}

/// A proxy that is its own server would connect to itself until no connection is left.
fn itself(
    listen: &[Spanned<ListenAddress>],
    key: &str,
    servers: &[ServerConfig],
    report: &mut Report<'_>,
) {
    for spanned in listen {
        let address = spanned.get_ref().to_string();
        if servers
            .iter()
            .any(|server| server.address.to_string() == address)
        {
            let span = Some(spanned.span()).filter(|span| !span.is_empty());
            let message = format!("{address} is also the address of a server");
            let suggestion = Some("give the proxy an address of its own".to_owned());
            report.problem(Severity::Error, span, key, message, suggestion);
        }
    }
}

/// Listeners that need TLS are others than those that do not, and there is TLS.
fn listeners(
    plain: &[Spanned<ListenAddress>],
    with_tls: &[Spanned<ListenAddress>],
    mode: ClientMode,
    report: &mut Report<'_>,
) {
    let key = keys::LISTEN_MYSQL_TLS.path;
    for spanned in with_tls {
        let address = spanned.get_ref();
        let chosen = matches!(address, ListenAddress::Tcp { port: 0, .. });
        if !chosen && plain.iter().any(|other| other.get_ref() == address) {
            let message = format!("{address} is also in listen.mysql");
            report.error(spanned.span(), key, message);
        }
        if mode == ClientMode::Disabled {
            let message = "needs TLS, which tls.client.mode disables";
            report.error(spanned.span(), key, message);
        }
    }
}

fn users(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<BTreeMap<String, User>> {
    let mut users = BTreeMap::new();
    let mut complete = true;
    for (name, value) in section.table.into_iter().flatten() {
        let name = name.get_ref().as_ref();
        if name.is_empty() {
            report.error(value.span(), &section.path, "an account needs a name");
        }
        let user = section.section(name);
        // Not a table: reported by `unknown`.
        if user.table.is_none() {
            continue;
        }
        match user.read(&keys::USER_PASSWORD, report) {
            Some(password) => {
                users.insert(name.to_owned(), User { password });
            }
            None => complete = false,
        }
    }
    complete.then_some(users)
}

fn compression(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Compression> {
    let client = section.read(&keys::CLIENT_COMPRESSION, report);
    let zlib_level = section.read(&keys::ZLIB_LEVEL, report);
    let zstd_level = section.read(&keys::ZSTD_LEVEL, report);
    let level = |level: usize| u8::try_from(level).unwrap_or(1);
    Some(Compression {
        client: client?,
        zlib_level: level(zlib_level?),
        zstd_level: level(zstd_level?),
    })
}

fn limits(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Limits> {
    let hold = section.read(&keys::HOLD, report);
    let connections = section.read(&keys::CONNECTIONS, report);
    let address_connections = section.read(&keys::ADDRESS_CONNECTIONS, report);
    let account_connections = section.read(&keys::ACCOUNT_CONNECTIONS, report);
    let logins = section.read(&keys::LOGINS, report);
    let server_connections = section.read(&keys::SERVER_CONNECTIONS, report);
    let queue_depth = section.read(&keys::QUEUE_DEPTH, report);
    let queue_wait = section.read(&keys::QUEUE_WAIT, report);
    let login = section.read(&keys::LOGIN, report);
    let idle = section.read(&keys::IDLE, report);
    let connection_age = section.read(&keys::CONNECTION_AGE, report);
    let warm = section.read(&keys::WARM, report);
    let read_timeout = section.read(&keys::READ_TIMEOUT, report);
    let write_timeout = section.read(&keys::WRITE_TIMEOUT, report);
    let abandoned = section.read(&keys::ABANDONED, report);
    let reset_on_ping = section.read(&keys::RESET_ON_PING, report);
    let drain = section.read(&keys::DRAIN, report);
    let cache = section.read(&keys::CACHE, report);
    Some(Limits {
        hold: hold?,
        connections: connections?,
        address_connections: address_connections?,
        account_connections: account_connections?,
        logins: logins?,
        server_connections: server_connections?,
        queue_depth: queue_depth?,
        queue_wait: queue_wait?,
        login: login?,
        idle: idle?,
        connection_age: connection_age?,
        warm: warm?,
        read_timeout: read_timeout?,
        write_timeout: write_timeout?,
        abandoned: abandoned?,
        reset_on_ping: reset_on_ping?,
        drain: drain?,
        cache: cache?,
    })
}

fn log(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Log> {
    let level = section.read(&keys::LEVEL, report);
    let format = section.read(&keys::FORMAT, report);
    Some(Log {
        level: level?,
        format: format?,
    })
}
