//! The file's text.

use std::fmt;
use std::fmt::Write;

use toml::Value;

use super::Cluster;
use super::Draft;
use super::Entry;
use super::Rule;
use super::Server;
use super::plain;

/// The sections in the order in which they are written; clusters and rules stand behind them.
const SECTIONS: [&str; 7] = [
    "",
    "listen",
    "monitor",
    "compression",
    "tls.client",
    "tls.server",
    "limits",
];

impl Draft {
    pub(super) fn render(&self, head: &str) -> String {
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
            writeln!(out, "#\n# {OTHERS}")?;
        }
        for other in &self.others {
            writeln!(out, "# - {other}")?;
        }
        for section in SECTIONS {
            let of_section = |entry: &&Entry| section_of(entry.key) == section;
            let mut entries = self.entries.iter().filter(of_section).peekable();
            if entries.peek().is_none() {
                continue;
            }
            writeln!(out)?;
            if !section.is_empty() {
                writeln!(out, "[{section}]")?;
            }
            entries.try_for_each(|entry| write_entry(out, entry))?;
            if section == "monitor" {
                let clusters = self.clusters.iter().enumerate();
                for (number, cluster) in clusters {
                    write_cluster(out, number, cluster)?;
                }
            }
        }
        self.rules
            .iter()
            .try_for_each(|rule| write_rule(out, rule))?;
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

const OTHERS: &str = "The source has more clusters (`--cluster NAME` takes another). dbproxy can serve them too, as [clusters.NAME], once \
                      it is known which accounts or schemas are theirs:";

fn section_of(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(section, _)| section)
}

fn write_entry(out: &mut String, entry: &Entry) -> fmt::Result {
    comments(out, &entry.from)?;
    let name = entry.key.rsplit('.').next().unwrap_or(entry.key);
    writeln!(out, "{name} = {}", entry.value)
}

fn write_cluster(out: &mut String, number: usize, cluster: &Cluster) -> fmt::Result {
    let path = match number {
        0 => "cluster".to_owned(),
        _ => format!("clusters.{}", text(&cluster.name)),
    };
    writeln!(out, "\n[{path}]")?;
    for entry in &cluster.entries {
        // The others' names stand in their paths.
        if number == 0 || entry.key != "cluster.name" {
            write_entry(out, entry)?;
        }
    }
    for server in &cluster.servers {
        writeln!(out, "\n[[{path}.server]]")?;
        write_server(out, server)?;
    }
    Ok(())
}

fn write_rule(out: &mut String, rule: &Rule) -> fmt::Result {
    writeln!(out, "\n[[rule]]")?;
    comments(out, &rule.from)?;
    for (key, value) in &rule.pairs {
        writeln!(out, "{key} = {value}")?;
    }
    Ok(())
}

fn comments(out: &mut String, from: &[String]) -> fmt::Result {
    from.iter().try_for_each(|from| writeln!(out, "# {from}"))
}

fn write_server(out: &mut String, server: &Server) -> fmt::Result {
    comments(out, &server.from)?;
    if let Some(name) = &server.name {
        writeln!(out, "name = {}", text(name))?;
    }
    writeln!(out, "address = {}", text(&server.address.to_string()))?;
    if let Some(weight) = server.weight.filter(|weight| *weight != 1) {
        writeln!(out, "weight = {weight}")?;
    }
    if let Some(group) = &server.group {
        writeln!(out, "group = {}", text(group))?;
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

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}
