//! What MaxScale's services and filters say of statements, as rules.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use super::fates::duration;
use super::settings;
use super::whole;
use crate::cli::import::ini::Section;
use crate::cli::import::network;
use crate::cli::import::regex::{Looks, Marks, replacement, translated};
use crate::cli::import::target::{Draft, Rule, Setting, span};
use crate::config::ListenAddress;

/// Writes the rules of a cluster's services; `members` are its servers.
pub(super) fn carry(
    sections: &[Section],
    services: &[&Section],
    members: &[&str],
    draft: &mut Draft,
) {
    let mut listening: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for listener in sections.iter().filter(|section| is_of(section, "listener")) {
        let of_service = listening.entry(listener.value("service")).or_default();
        of_service.extend(addresses(listener));
    }
    let filters = sections.iter().filter(|section| is_of(section, "filter"));
    let filters: BTreeMap<&str, &Section> = filters
        .map(|filter| (filter.name.as_str(), filter))
        .collect();
    let members: BTreeSet<&str> = members.iter().copied().collect();
    let mut used = BTreeSet::new();
    for service in services {
        if draft.is_full() {
            draft.note(&whole(service), "more rules than anybody keeps track of");
            continue;
        }
        let own = listening.get(service.name.as_str());
        let own = own.map(Vec::as_slice).unwrap_or_default();
        let listeners = draft.listeners(|address| own.contains(&address.to_string()));
        let whose = Whose {
            service,
            listeners: (services.len() > 1).then_some(listeners),
        };
        let of_service = service.value("filters").split(['|', ',']).map(str::trim);
        for name in of_service.take(MOST_FILTERS) {
            if let Some(filter) = filters.get(name) {
                used.insert(name);
                filtered(filter, &whose, draft);
            }
        }
        if let Err(why) = routed(&whose, &members, draft) {
            draft.note(&whole(service), &why);
        }
    }
    for (_, filter) in filters.iter().filter(|(name, _)| !used.contains(*name)) {
        draft.note(&whole(filter), "no service of this cluster uses it");
    }
}

/// More than a service has.
const MOST_FILTERS: usize = 100;

fn is_of(section: &Section, kind: &str) -> bool {
    section.value("type").eq_ignore_ascii_case(kind)
}

/// Where a listener listens, as dbproxy writes it.
pub(super) fn addresses(section: &Section) -> Vec<String> {
    let (port, socket) = (section.value("port"), section.value("socket"));
    if !socket.is_empty() {
        return vec![format!("unix:{socket}")];
    }
    let port = if port.is_empty() { "3306" } else { port };
    let texts = match section.value("address") {
        // "::" is every address there, and every one of IPv6 here.
        "" | "::" => vec![format!("0.0.0.0:{port}"), format!("[::]:{port}")],
        host if host.contains(':') => vec![format!("[{host}]:{port}")],
        host => vec![format!("{host}:{port}")],
    };
    let shown =
        |text: String| ListenAddress::parse(&text).map_or(text, |address| address.to_string());
    texts.into_iter().map(shown).collect()
}

/// Whose statements a rule is for.
struct Whose<'a> {
    service: &'a Section,
    /// `None` if there is no other service to be told apart.
    listeners: Option<Vec<String>>,
}

impl Whose<'_> {
    fn rule(&self, name: &str, from: &Setting) -> Result<Rule, String> {
        let mut rule = Rule::new(name, from);
        if let Some(listeners) = &self.listeners {
            if listeners.is_empty() {
                return Err(
                    "the service has no listener, by which dbproxy could tell its sessions"
                        .to_owned(),
                );
            }
            let listeners = listeners.iter().cloned().map(Value::String).collect();
            rule.put("listener", Value::Array(listeners))?;
        }
        Ok(rule)
    }
}

/// Where a service sends statements: by its own servers, or by their role.
fn routed(whose: &Whose<'_>, members: &BTreeSet<&str>, draft: &mut Draft) -> Result<(), String> {
    let service = whose.service;
    let own = [service.list("servers"), service.list("targets")].concat();
    let own: BTreeSet<&str> = own
        .into_iter()
        .filter(|name| members.contains(name))
        .collect();
    let is_part = !own.is_empty() && own.len() < members.len();
    if is_part {
        let listed: Vec<&str> = own.iter().copied().collect();
        let name = format!("[{}] servers", service.name);
        let from = Setting::new(service.line, name, listed.join(","));
        draft.group(&service.name, &from, |server| {
            let name = server.name.as_deref();
            name.is_some_and(|name| own.contains(name))
        });
    }
    let role = match service.value("router").to_ascii_lowercase().as_str() {
        "readconnroute" => service.value("router_options").to_ascii_lowercase(),
        _ => String::new(),
    };
    let place = match role.as_str() {
        "master" => "primary".to_owned(),
        _ if is_part => format!("group={}", service.name),
        "slave" => "replica".to_owned(),
        _ => return Ok(()),
    };
    let mut rule = whose.rule(&format!("service {}", service.name), &whole(service))?;
    for setting in ["servers", "targets", "router_options"]
        .into_iter()
        .filter_map(|name| service.setting(name))
    {
        rule.remark(&setting.to_string());
    }
    rule.text("route", &place)?;
    draft.rule(rule);
    Ok(())
}

/// The rules of a filter that a service uses.
fn filtered(filter: &Section, whose: &Whose<'_>, draft: &mut Draft) {
    let module = filter.value("module").to_ascii_lowercase();
    let made = match module.as_str() {
        "regexfilter" => rewriting(filter, whose),
        "namedserverfilter" => naming(filter, whose),
        "cache" => caching(filter, whose),
        _ => Err(why_not(&module).to_owned()),
    };
    let rules = match made {
        Ok(rules) => rules,
        Err(why) => return draft.note(&whole(filter), &why),
    };
    for mut rule in rules {
        // The filters behind it see the statement too. It always fits.
        let _ = rule.put("continue", Value::Boolean(true));
        draft.rule(rule);
    }
    let known = [
        "type", "module", "match", "replace", "options", "source", "user", "soft_ttl", "hard_ttl",
        "ttl",
    ];
    for (name, setting) in settings(filter) {
        let numbered = ["match", "target"]
            .iter()
            .any(|start| name.starts_with(start));
        if !known.contains(&name) && !numbered {
            draft.note(&setting, "dbproxy's rules have no such setting");
        }
    }
}

fn why_not(module: &str) -> &'static str {
    match module {
        "dbfwfilter" => {
            "its rules stand in a file of their own: a [[rule]] with block refuses statements, one with firewall = \"learn\" is the \
             beginning of a list of those that are allowed"
        }
        "throttlefilter" => {
            "it slowed a session down, then ended it: `limit.per_second` of a [[rule]] refuses what is too much, by account or client"
        }
        "qlafilter" | "topfilter" => {
            "a [[rule]] with log tells the log of statements, without their literals"
        }
        "hintfilter" => "not needed: MaxScale's hints are understood",
        "ccrfilter" => {
            "not needed: `cluster.consistency` lets an account read its own writes at once"
        }
        "masking" => "dbproxy does not change answers; a view on the servers can",
        "maxrows" => "`limit.rows` of a [[rule]] bounds an answer, with an error",
        "tee" => "dbproxy has no mirror; `mode = \"observe\"` compares what replicas answer",
        _ => {
            "dbproxy has no such filter: see [[rule]] for what is rewritten, blocked, limited or routed by one"
        }
    }
}

/// A filter's rule with the conditions that every filter can have.
fn begun(filter: &Section, name: &str, whose: &Whose<'_>) -> Result<Rule, String> {
    let mut rule = whose.rule(&format!("{name} of {}", whose.service.name), &whole(filter))?;
    if let Some(user) = filter.setting("user") {
        if user.value.contains('*') {
            return Err("a * in a name stands for anything in dbproxy".to_owned());
        }
        rule.text("account", &user.value)?;
    }
    let sources = filter.list("source").into_iter().map(network);
    let sources: Vec<Value> = sources
        .map(|source| source.map(Value::String))
        .collect::<Result<_, _>>()?;
    if !sources.is_empty() {
        rule.put("client", Value::Array(sources))?;
    }
    Ok(rule)
}

fn pattern(filter: &Section, setting: &Setting) -> Result<String, String> {
    let options = filter.list("options");
    if options.contains(&"extended") {
        return Err("dbproxy's patterns do not leave out blanks (options = extended)".to_owned());
    }
    let text = setting.value.as_str();
    let inner = text
        .strip_prefix('/')
        .and_then(|text| text.strip_suffix('/'));
    translated(
        inner.unwrap_or(text),
        !options.contains(&"case"),
        Looks::AtText,
    )
    .map_err(|why| format!("its expression cannot be said in dbproxy's: {why}"))
}

fn rewriting(filter: &Section, whose: &Whose<'_>) -> Result<Vec<Rule>, String> {
    let mut rule = begun(filter, &format!("filter {}", filter.name), whose)?;
    let (Some(found), Some(made)) = (filter.setting("match"), filter.setting("replace")) else {
        return Err("it lacks match or replace".to_owned());
    };
    let made = replacement(&made.value, Marks::Dollar, 0).map_err(str::to_owned)?;
    rule.text("pattern", &pattern(filter, found)?)?;
    rule.text("rewrite", &made)?;
    Ok(vec![rule])
}

/// The first of its expressions that is found says where the statement goes.
fn naming(filter: &Section, whose: &Whose<'_>) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for found in &filter.settings {
        let Some(number) = found.name.strip_prefix("match") else {
            continue;
        };
        let target = match number {
            "" => filter
                .setting("target")
                .or_else(|| filter.setting("server")),
            number => filter.setting(&format!("target{number}")),
        };
        let target = target.map_or("", |target| target.value.trim());
        let place = match target {
            "->master" => "primary".to_owned(),
            "->slave" => "replica".to_owned(),
            "" | "->all" => {
                return Err(
                    "a rule sends to the primary, to a replica, to a server or to a group"
                        .to_owned(),
                );
            }
            target if target.contains(',') => {
                return Err("a rule sends to one server; for several give them a `group` in [[cluster.server]]".to_owned());
            }
            target => format!("server={target}"),
        };
        let mut rule = begun(
            filter,
            &format!("filter {} {}", filter.name, found.name),
            whose,
        )?;
        rule.remark(&found.to_string());
        rule.text("pattern", &pattern(filter, found)?)?;
        rule.text("route", &place)?;
        rules.push(rule);
    }
    if rules.is_empty() {
        return Err("it lacks match".to_owned());
    }
    Ok(rules)
}

/// An answer is given again until the softer of its limits: then somebody fetches it anew.
fn caching(filter: &Section, whose: &Whose<'_>) -> Result<Vec<Rule>, String> {
    if !filter.value("rules").is_empty() {
        return Err("what it keeps says a file of its own (rules): write a [[rule]] with table, account and cache".to_owned());
    }
    if filter
        .setting("enabled")
        .is_some_and(|enabled| !enabled.is_on())
    {
        return Err("it is switched off".to_owned());
    }
    let limits = ["soft_ttl", "hard_ttl", "ttl"]
        .into_iter()
        .filter_map(|name| filter.setting(name));
    let limits = limits.filter_map(|limit| Some((limit, duration(&limit.value)?)));
    let Some((limit, millis)) = limits
        .filter(|(_, millis)| *millis > 0)
        .min_by_key(|(_, millis)| *millis)
    else {
        return Err("it keeps answers for ever; `cache` of a [[rule]] has a time".to_owned());
    };
    let mut rule = begun(filter, &format!("filter {}", filter.name), whose)?;
    rule.remark(&limit.to_string());
    rule.text("kind", "read")?;
    rule.put("cache", span(millis))?;
    Ok(vec![rule])
}
