//! From the text to rules.

use toml::Spanned;
use toml::de::DeValue;

use super::super::Cluster;
use super::super::check::Section;
use super::super::check::join;
use super::super::kind::Report;
use super::super::kind::closest;
use super::super::problem::Severity;
use super::Actions;
use super::Conditions;
use super::Limit;
use super::ListenAddress;
use super::RouteTo;
use super::Rule;
use super::keys;

/// More than anybody keeps track of, and few enough to be tried one after the other.
const MAX_RULES: usize = 10_000;

/// The rules of a list, in its order. `None` means that problems were reported.
pub(in crate::config) fn rules(
    root: &Section<'_, '_>,
    clusters: &[&Cluster],
    listeners: &[&ListenAddress],
    report: &mut Report<'_>,
) -> Option<Vec<Rule>> {
    let Some(value) = root.value("rule") else {
        return Some(Vec::new());
    };
    // Not a list: reported with the unknown keys.
    let list = value.get_ref().as_array()?;
    if list.len() > MAX_RULES {
        let message = format!("{} rules are too many: at most {MAX_RULES}", list.len());
        report.error(value.span(), "rule", message);
        return None;
    }
    let mut rules: Vec<Rule> = Vec::new();
    let mut whole = true;
    for (number, item) in list.iter().enumerate() {
        let Some(rule) = rule(item, number, root, report) else {
            whole = false;
            continue;
        };
        if rules.iter().any(|known| known.name == rule.name) {
            let message = format!("another rule has the name \"{}\"", rule.name);
            report.error(item.span(), "rule.name", message);
        }
        known_places(&rule, item, clusters, listeners, report);
        rules.push(rule);
    }
    whole.then_some(rules)
}

fn rule(
    item: &Spanned<DeValue<'_>>,
    number: usize,
    root: &Section<'_, '_>,
    report: &mut Report<'_>,
) -> Option<Rule> {
    let section = root.item("rule", item)?;
    let name = section.read(&keys::NAME, report);
    let when = conditions(&section, report);
    let then = actions(&section, report);
    let go_on = section.read(&keys::CONTINUE, report);
    let rule = Rule {
        name: name?.unwrap_or_else(|| format!("rule {}", number + 1)),
        when: when?,
        then: then?,
        go_on: go_on?,
    };
    if rule.then == Actions::default() {
        let message = "does nothing: it has no action, such as route or block".to_owned();
        report.problem(Severity::Error, Some(item.span()), "rule", message, None);
        return None;
    }
    if rule.then.firewall.is_some() && section.value("name").is_none() {
        let message = "what a firewall learns goes by the rule's name: give it one";
        report.error(item.span(), "rule.name", message);
    }
    contradictions(&rule, &section, report);
    Some(rule)
}

fn conditions(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Conditions> {
    let account = section.read(&keys::ACCOUNT, report);
    let client = section.read(&keys::CLIENT, report);
    let listener = section.read(&keys::LISTENER, report);
    let application = section.read(&keys::APPLICATION, report);
    let schema = section.read(&keys::SCHEMA, report);
    let table = section.read(&keys::TABLE, report);
    let kind = section.read(&keys::KIND, report);
    let tag = section.read(&keys::TAG, report);
    let digest = section.read(&keys::DIGEST, report);
    let pattern = section.read(&keys::PATTERN, report);
    let time = section.read(&keys::TIME, report);
    let sample = section.read(&keys::SAMPLE, report);
    Some(Conditions {
        account: account?,
        client: client?,
        listener: listener?,
        application: application?,
        schema: schema?,
        table: table?,
        kind: kind?,
        tag: tag?,
        digest: digest?,
        pattern: pattern?,
        time: time?,
        sample: sample?,
    })
}

fn actions(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Actions> {
    let route = section.read(&keys::ROUTE, report);
    let mirror = section.read(&keys::MIRROR, report);
    let consistency = section.read(&keys::CONSISTENCY, report);
    let max_lag = section.read(&keys::MAX_LAG, report);
    let timeout = section.read(&keys::TIMEOUT, report);
    let rewrite = section.read(&keys::REWRITE, report);
    let answer = section.read(&keys::ANSWER, report);
    let block = section.read(&keys::BLOCK, report);
    let limit = limit(&section.section("limit"), report);
    let cache = section.read(&keys::CACHE, report);
    let priority = section.read(&keys::PRIORITY, report);
    let firewall = section.read(&keys::FIREWALL, report);
    let log = section.read(&keys::LOG, report);
    let (answer, block) = (answer?, block?);
    if let (Some(_), Some(block), Some(value)) = (&answer, &block, section.value("block")) {
        let _ = block;
        report.error(
            value.span(),
            "rule.block",
            "a rule answers or blocks, not both",
        );
    }
    Some(Actions {
        route: route?,
        mirror: mirror?,
        consistency: consistency?,
        max_lag: max_lag?,
        timeout: timeout?,
        rewrite: rewrite?,
        answer: block.or(answer),
        limit: limit?,
        cache: cache?,
        priority: priority?,
        firewall: firewall?,
        log: log?,
    })
}

fn limit(section: &Section<'_, '_>, report: &mut Report<'_>) -> Option<Limit> {
    let per_second = section.read(&keys::PER_SECOND, report);
    let concurrency = section.read(&keys::CONCURRENCY, report);
    let rows = section.read(&keys::ROWS, report);
    let bytes = section.read(&keys::BYTES, report);
    let per = section.read(&keys::PER, report);
    // The keys' own bounds are below.
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Some(Limit {
        per_second: per_second?.map(small),
        concurrency: concurrency?.map(small),
        rows: rows?.map(|rows| rows as u64),
        bytes: bytes?.map(|bytes| bytes as u64),
        per: per?,
    })
}

/// Actions of one rule that cannot both be done.
fn contradictions(rule: &Rule, section: &Section<'_, '_>, report: &mut Report<'_>) {
    let then = &rule.then;
    let place = |key: &str| section.value(key).map(Spanned::span).unwrap_or_default();
    if then.answer.is_some() {
        let runs = [
            ("route", then.route.is_some()),
            ("mirror", then.mirror.is_some()),
            ("consistency", then.consistency.is_some()),
            ("max_lag", then.max_lag.is_some()),
            ("timeout", then.timeout.is_some()),
            ("rewrite", then.rewrite.is_some()),
            ("cache", then.cache.is_some()),
        ];
        for (key, _) in runs.iter().filter(|(_, given)| *given) {
            let message =
                "has no meaning: the rule's answer or block lets no server see the statement";
            report.error(place(key), &format!("rule.{key}"), message);
        }
    }
    if let (Some(rewrite), Some(pattern)) = (&then.rewrite, &rule.when.pattern) {
        let names: Vec<_> = pattern.regex().capture_names().flatten().collect();
        for found in references(rewrite) {
            let known = match found.parse::<usize>() {
                Ok(number) => number < pattern.regex().captures_len(),
                Err(_) => names.contains(&found),
            };
            if !known {
                let message =
                    format!("the pattern has no group \"{found}\"; a dollar sign is written $$");
                report.error(place("rewrite"), "rule.rewrite", message);
            }
        }
    }
}

/// The groups that a replacement names, as the expressions' library reads it.
fn references(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = rest.get(at + 1..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
        } else if let Some(braced) = rest.strip_prefix('{') {
            found.extend(braced.split_once('}').map(|(name, _)| name));
        } else {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            found.extend(rest.get(..end).filter(|name| !name.is_empty()));
        }
    }
    found
}

/// Servers, groups, clusters and listeners that a rule names must be there.
fn known_places(
    rule: &Rule,
    item: &Spanned<DeValue<'_>>,
    clusters: &[&Cluster],
    listeners: &[&ListenAddress],
    report: &mut Report<'_>,
) {
    let value = |key: &str| {
        let table = item.get_ref().as_table()?;
        let mut entries = table.iter();
        entries
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| value.span())
    };
    let servers = || clusters.iter().flat_map(|cluster| &cluster.servers);
    let names_of_clusters = || {
        clusters
            .iter()
            .map(|cluster| cluster.name.as_str())
            .collect()
    };
    let place: Option<(_, _, Vec<&str>)> = match &rule.then.route {
        None | Some(RouteTo::Primary | RouteTo::Replica) => None,
        Some(RouteTo::Server(name)) => {
            let known = servers().map(|server| server.name.as_str());
            Some(("server", name, known.collect()))
        }
        Some(RouteTo::Group(name)) => {
            let known = servers().filter_map(|server| server.group.as_deref());
            Some(("group", name, known.collect()))
        }
        Some(RouteTo::Cluster(name)) => Some(("cluster", name, names_of_clusters())),
    };
    let mirror = rule.then.mirror.as_ref();
    let mirror = mirror.map(|name| ("mirror", ("cluster", name, names_of_clusters())));
    let named = place
        .map(|place| ("route", place))
        .into_iter()
        .chain(mirror);
    for (key, (what, name, known)) in named {
        if known.contains(&name.as_str()) {
            continue;
        }
        let suggestion = match closest(name, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if what == "group" => {
                "servers get into a group by `group` in [[cluster.server]]".to_owned()
            }
            None => format!("there are {}", known.join(", ")),
        };
        report.problem(
            Severity::Error,
            value(key),
            &join("rule", key),
            format!("there is no {what} \"{name}\""),
            Some(suggestion),
        );
    }
    for listener in &rule.when.listener {
        if !listeners.contains(&listener) {
            let known: Vec<_> = listeners.iter().map(ToString::to_string).collect();
            let message = format!("nothing listens on {listener}");
            let suggestion = format!("there are {}", known.join(", "));
            report.problem(
                Severity::Error,
                value("listener"),
                "rule.listener",
                message,
                Some(suggestion),
            );
        }
    }
}
