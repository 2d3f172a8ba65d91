//! MaxScale: a cluster is what one monitor watches; services and listeners follow their servers.

mod fates;
mod services;

use std::collections::BTreeMap;

use toml::Value;

use super::Error;
use super::choose;
use super::ini;
use super::ini::Section;
use super::target::Draft;
use super::target::Fate::{Count, Span};
use super::target::Server;
use super::target::Setting;
use super::target::groups;
use crate::config::ServerAddress;
use fates::{GLOBAL, LISTENER, MONITOR, SECONDS, SERVER, SERVICE, duration, fate, interval};

pub(super) fn draft(text: &str, wanted: Option<&str>) -> Result<Draft, Error> {
    let sections = ini::read(text)?;
    let of_type = |kind: &str| -> Vec<&Section> {
        let fitting = |section: &&Section| section.value("type").eq_ignore_ascii_case(kind);
        sections.iter().filter(fitting).collect()
    };
    let servers = of_type("server");
    let (monitors, services) = (of_type("monitor"), of_type("service"));
    let known: BTreeMap<&str, &Section> = servers
        .iter()
        .map(|server| (server.name.as_str(), *server))
        .collect();
    let by_name = |name: &str| monitors.iter().find(|monitor| monitor.name == name);
    // A monitor watches servers; a service uses servers, or those of a monitor. Sections that share a server belong together.
    let users: Vec<&Section> = monitors.iter().chain(&services).copied().collect();
    let sets: Vec<Vec<&str>> = users
        .iter()
        .map(|user| {
            let watched = by_name(user.value("cluster"));
            let names = [user.list("servers"), user.list("targets")].concat();
            let names = names.into_iter().chain(
                watched
                    .map(|monitor| monitor.list("servers"))
                    .unwrap_or_default(),
            );
            names.filter(|name| known.contains_key(name)).collect()
        })
        .collect();
    let clusters: Vec<Vec<usize>> = groups(&sets)
        .into_iter()
        .filter(|group| {
            group
                .iter()
                .any(|at| sets.get(*at).is_some_and(|set| !set.is_empty()))
        })
        .collect();
    let name_of = |group: &Vec<usize>| {
        let first = group.first().and_then(|at| users.get(*at));
        first
            .map(|section| section.name.clone())
            .unwrap_or_default()
    };
    let members = |group: &[usize]| -> Vec<&str> {
        let mut names: Vec<&str> = group
            .iter()
            .filter_map(|at| sets.get(*at))
            .flatten()
            .copied()
            .collect();
        names.sort_unstable();
        names.dedup();
        // In the order of the source.
        let order = servers.iter().map(|server| server.name.as_str());
        order
            .filter(|name| names.binary_search(name).is_ok())
            .collect()
    };
    let names: Vec<String> = clusters.iter().map(name_of).collect();
    let chosen = choose(&names, wanted)?;
    let mut draft = Draft::new(names.get(chosen).map_or("", String::as_str));
    for (at, (name, group)) in names.iter().zip(&clusters).enumerate() {
        if at != chosen {
            draft.other(name, &members(group).join(", "));
        }
    }
    let group = clusters.get(chosen).map(Vec::as_slice).unwrap_or_default();
    let ours: Vec<&Section> = group
        .iter()
        .filter_map(|at| users.get(*at).copied())
        .collect();
    let members = members(group);

    for section in &sections {
        let kind = section.value("type").to_ascii_lowercase();
        let named = |name: &str| ours.iter().any(|own| own.name == name);
        match kind.as_str() {
            _ if section.name.eq_ignore_ascii_case("maxscale") => global(section, &mut draft),
            "server" if members.contains(&section.name.as_str()) => {
                server(section, &weighed(&ours), &mut draft)?;
            }
            "monitor" if named(&section.name) => monitor(section, &mut draft),
            "service" if named(&section.name) => service(section, &mut draft),
            "listener" if named(section.value("service")) => listener(section, &mut draft),
            "server" | "monitor" | "service" | "listener" => {
                draft.note(&whole(section), "it belongs to another cluster, or to none");
            }
            "filter" => {}
            _ => draft.note(&whole(section), "dbproxy knows nothing like it"),
        }
    }
    let is_service = |section: &&&Section| section.value("type").eq_ignore_ascii_case("service");
    let ours: Vec<&Section> = ours.iter().filter(is_service).copied().collect();
    services::carry(&sections, &ours, &members, &mut draft);
    Ok(draft)
}

/// A section as one setting, for those that are named whole.
fn whole(section: &Section) -> Setting {
    let mut setting = Setting::new(
        section.line,
        format!("[{}]", section.name),
        section.value("type"),
    );
    setting.between = " ";
    for part in ["module", "router"] {
        if !section.value(part).is_empty() {
            setting.value.push(' ');
            setting.value.push_str(section.value(part));
        }
    }
    setting
}

/// The settings of a section, each with the section's name in front.
fn settings(section: &Section) -> impl Iterator<Item = (&str, Setting)> {
    section.settings.iter().map(|setting| {
        let mut full = setting.clone();
        full.name = format!("[{}] {}", section.name, setting.name);
        (setting.name.as_str(), full)
    })
}

/// The setting of a server that is its weight, where a service has `weightby`.
fn weighed(ours: &[&Section]) -> String {
    let mut names = ours.iter().map(|section| section.value("weightby"));
    names
        .find(|name| !name.is_empty())
        .unwrap_or_default()
        .to_ascii_lowercase()
}

fn server(section: &Section, weight: &str, draft: &mut Draft) -> Result<(), Error> {
    let line = |name: &str| {
        section
            .setting(name)
            .and_then(|setting| setting.line)
            .unwrap_or(section.line)
    };
    let (host, socket) = (section.value("address"), section.value("socket"));
    let (text, at) = match host {
        "" => (format!("unix:{socket}"), line("socket")),
        host => {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.to_owned()
            };
            let port = section.value("port");
            (
                format!("{host}:{}", if port.is_empty() { "3306" } else { port }),
                line("address"),
            )
        }
    };
    let address = ServerAddress::parse(&text).map_err(|message| Error::at(at, message))?;
    let mut server = Server::new(
        address,
        &Setting::new(section.line, format!("[{}]", section.name), ""),
    );
    server.name = Some(section.name.clone());
    let mut encrypted = false;
    let (mut chain, mut host) = (false, false);
    for (name, setting) in settings(section) {
        match name {
            "type" | "address" | "port" | "socket" => {}
            "ssl" => encrypted = setting.is_on(),
            "ssl_verify_peer_certificate" => chain = setting.is_on(),
            "ssl_verify_peer_host" => host = setting.is_on(),
            "ssl_ca" | "ssl_ca_cert" => draft.text("tls.server.ca", &setting.value, &setting),
            // Certificate and key stand together or not at all.
            "ssl_cert" if section.setting("ssl_key").is_some() => {
                draft.text("tls.server.certificate", &setting.value, &setting);
            }
            "ssl_key" if section.setting("ssl_cert").is_some() => {
                draft.text("tls.server.key", &setting.value, &setting);
            }
            "proxy_protocol" => server.proxy_protocol = setting.is_on(),
            "max_routing_connections" => least(draft, &setting),
            "persistmaxtime" => draft.apply(Span("limits.idle", duration, SECONDS), &setting),
            _ if !weight.is_empty() && name == weight => server.weight = setting.number(),
            _ => draft.apply(fate(SERVER, name), &setting),
        }
    }
    if encrypted {
        let ca = draft.has("tls.server.ca");
        server.tls = Some(match (chain && ca, host && ca) {
            (_, true) => "verify-identity",
            (true, false) => "verify-ca",
            (false, false) => "required",
        });
        if (chain || host) && !ca {
            draft.todo("MaxScale verified the servers' certificates by the system's authorities: name them in tls.server.ca and set tls.server.mode.");
        }
    }
    draft.server(server)
}

/// The smallest of several limits of connections to a server: dbproxy has one for all.
fn least(draft: &mut Draft, setting: &Setting) {
    match setting.number() {
        Some(0) | None => draft.note(
            setting,
            "no limit there; dbproxy has one, `limits.server_connections`",
        ),
        Some(_) => draft.at_most("limits.server_connections", setting),
    }
}

fn monitor(section: &Section, draft: &mut Draft) {
    if !section.value("module").eq_ignore_ascii_case("mariadbmon")
        && !section.value("module").is_empty()
    {
        draft.todo("dbproxy follows asynchronous and semi-synchronous replication only, not Galera and not Group Replication.");
    }
    for (name, setting) in settings(section) {
        match name {
            "type" | "servers" => {}
            "user" => draft.text("monitor.user", &setting.value, &setting),
            "password" | "passwd" if is_encrypted(&setting.value) => draft.note(
                &setting,
                "encrypted for MaxScale's own key; give dbproxy the password itself, by the environment or a file",
            ),
            "password" | "passwd" => draft.password(&setting),
            "monitor_interval" => draft.apply(Span("monitor.interval", interval, " (without a unit: ms)"), &setting),
            _ => draft.apply(fate(MONITOR, name), &setting),
        }
    }
}

/// Whether a password looks like what `maxpasswd` makes.
fn is_encrypted(text: &str) -> bool {
    text.len() >= 32 && text.chars().all(|c| c.is_ascii_hexdigit() || c == ':')
}

fn service(section: &Section, draft: &mut Draft) {
    for (name, setting) in settings(section) {
        match name {
            "type" | "servers" | "cluster" | "targets" | "weightby" | "filters" => {}
            "router"
                if ["readwritesplit", "readconnroute"]
                    .contains(&setting.value.to_ascii_lowercase().as_str()) => {}
            "router_options"
                if ["master", "slave"].contains(&setting.value.to_ascii_lowercase().as_str()) => {}
            "slave_selection_criteria" => selection(&setting, draft),
            "causal_reads" => causal_reads(&setting, draft),
            "causal_reads_timeout" => {
                draft.apply(Span("cluster.replica_wait", duration, SECONDS), &setting)
            }
            "max_slave_replication_lag" | "max_replication_lag" if setting.number() != Some(0) => {
                draft.apply(Span("cluster.max_lag", duration, SECONDS), &setting);
            }
            "delayed_retry_timeout" => {
                draft.apply(Span("limits.hold", duration, SECONDS), &setting)
            }
            "max_connections" if setting.number() != Some(0) => {
                draft.apply(Count("limits.connections"), &setting)
            }
            _ => draft.apply(fate(SERVICE, name), &setting),
        }
    }
}

fn selection(setting: &Setting, draft: &mut Draft) {
    match setting.value.to_ascii_lowercase().as_str() {
        "least_current_operations" | "least_global_connections" | "least_router_connections" => {
            draft.text("cluster.balance", "least-connections", setting);
        }
        _ => draft.note(setting, "dbproxy does not choose by response time or lag yet; it takes the replica with the fewest statements in flight"),
    }
}

fn causal_reads(setting: &Setting, draft: &mut Draft) {
    match setting.value.to_ascii_lowercase().as_str() {
        "local" | "fast" | "true" | "1" | "on" => draft.set("cluster.consistency", Value::String("user".to_owned()), setting, ""),
        "none" | "false" | "0" | "off" => draft.note(
            setting,
            "dbproxy's default lets an account read its own writes; `cluster.consistency = \"eventual\"` is what it was",
        ),
        "global" | "fast_global" => draft.text("cluster.consistency", "global", setting),
        _ => {
            draft.text("cluster.consistency", "global", setting);
            draft.todo("Reads saw every write; now those that went through this dbproxy. If that is not enough, set cluster.consistency = \"strong\".");
        }
    }
}

fn listener(section: &Section, draft: &mut Draft) {
    let with_tls = section.setting("ssl").is_some_and(Setting::is_on);
    let named = section
        .setting("socket")
        .or_else(|| section.setting("port"));
    let line = named
        .and_then(|setting| setting.line)
        .unwrap_or(section.line);
    let from = Setting::new(line, format!("[{}]", section.name), "");
    for address in services::addresses(section) {
        draft.listen(&address, with_tls, &from);
    }
    for (name, setting) in settings(section) {
        match name {
            "type" | "service" | "port" | "address" | "socket" | "ssl" => {}
            "ssl_cert" if section.setting("ssl_key").is_some() => {
                draft.text("tls.client.certificate", &setting.value, &setting);
            }
            "ssl_key" if section.setting("ssl_cert").is_some() => {
                draft.text("tls.client.key", &setting.value, &setting);
            }
            "ssl_ca" | "ssl_ca_cert" => draft.text("tls.client.ca", &setting.value, &setting),
            "proxy_protocol_networks" => {
                for network in section.list(name) {
                    draft.append("listen.proxy_protocol", network, &setting);
                }
            }
            _ => draft.apply(fate(LISTENER, name), &setting),
        }
    }
}

fn global(section: &Section, draft: &mut Draft) {
    for (name, setting) in settings(section) {
        match name {
            "threads" if setting.number().is_some() => draft.apply(Count("workers"), &setting),
            _ => draft.apply(fate(GLOBAL, name), &setting),
        }
    }
}
