//! Kinds of value that only rules have.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use super::super::kind::Kind;
use super::super::kind::Report;
use super::FixedAnswer;

/// What `parse` makes of a string, or of each string of a list; nothing by default.
pub(in crate::config) struct Several<T> {
    pub(in crate::config) described: &'static str,
    pub(in crate::config) parse: fn(&str) -> Result<T, String>,
    /// What it means to leave it out.
    pub(in crate::config) otherwise: &'static str,
}

impl<T> Kind for Several<T> {
    type Value = Vec<T>;

    fn describe(&self) -> String {
        format!("{}, or a list", self.described)
    }

    fn shown_default(&self) -> String {
        self.otherwise.to_owned()
    }

    fn default(&self) -> Option<Vec<T>> {
        Some(Vec::new())
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<Vec<T>> {
        if let Some(text) = value.get_ref().as_str() {
            let parsed = (self.parse)(text);
            return parsed
                .map(|one| vec![one])
                .map_err(|message| report.error(value.span(), key, message))
                .ok();
        }
        let parsed = report.each(value, key, self.parse)?;
        if value
            .get_ref()
            .as_array()
            .is_some_and(|list| list.is_empty())
        {
            let message = "an empty list fits nothing: leave the key out for anything";
            report.error(value.span(), key, message);
        }
        Some(parsed.into_iter().map(Spanned::into_inner).collect())
    }
}

/// `true` or `false`, the latter by default.
pub(in crate::config) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn describe(&self) -> String {
        "`true`, `false`".to_owned()
    }

    fn shown_default(&self) -> String {
        "false".to_owned()
    }

    fn default(&self) -> Option<bool> {
        Some(false)
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<bool> {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            report.wrong_type(value, key, "true or false");
        }
        flag
    }
}

/// A share between 0 and 1, without 0, in parts of a million.
pub(in crate::config) struct Share;

impl Kind for Share {
    type Value = u32;

    fn describe(&self) -> String {
        "number, 0.000001 to 1".to_owned()
    }

    fn shown_default(&self) -> String {
        String::new()
    }

    fn default(&self) -> Option<u32> {
        None
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<u32> {
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(integer) => integer.as_str().parse::<f64>().ok(),
            _ => {
                report.wrong_type(value, key, "a number such as 0.01");
                return None;
            }
        };
        let parts = number.map(|share| share * 1e6);
        match parts {
            Some(parts) if (0.999..=1e6).contains(&parts) => Some(parts.round() as u32),
            _ => {
                report.error(value.span(), key, "is out of range: 0.000001 to 1");
                None
            }
        }
    }
}

/// An answer that is not an error.
pub(in crate::config) struct Answer;

const ANSWER: &str = "\"ok\" or { columns = [\"name\"], rows = [[\"value\"]] }";

impl Kind for Answer {
    type Value = FixedAnswer;

    fn describe(&self) -> String {
        "`\"ok\"`, or `{ columns = [\"name\", …], rows = [[\"value\", …], …] }`".to_owned()
    }

    fn shown_default(&self) -> String {
        String::new()
    }

    fn default(&self) -> Option<FixedAnswer> {
        None
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<FixedAnswer> {
        match value.get_ref() {
            DeValue::String(text) if text == "ok" => return Some(FixedAnswer::Ok),
            DeValue::Table(table) => return rows(table, value, key, report),
            _ => {}
        }
        report.error(value.span(), key, format!("expected {ANSWER}"));
        None
    }
}

fn rows(
    table: &DeTable<'_>,
    value: &Spanned<DeValue<'_>>,
    key: &str,
    report: &mut Report<'_>,
) -> Option<FixedAnswer> {
    only(table, &["columns", "rows"], key, report)?;
    let list = |name: &str| find(table, name).and_then(|value| value.get_ref().as_array());
    let (Some(columns), Some(rows)) = (list("columns"), list("rows")) else {
        report.error(value.span(), key, format!("expected {ANSWER}"));
        return None;
    };
    let names: Option<Vec<_>> = columns
        .iter()
        .map(|name| name.get_ref().as_str().map(str::to_owned))
        .collect();
    let names = names.filter(|names| !names.is_empty() && names.len() <= 4_096);
    let Some(names) = names else {
        report.error(value.span(), key, "columns: one to 4096 names");
        return None;
    };
    let mut read = Vec::new();
    for row in rows.iter() {
        let cells = row.get_ref().as_array();
        let cells: Option<Vec<_>> =
            cells.and_then(|cells| cells.iter().map(|cell| text(cell.get_ref())).collect());
        match cells.filter(|cells| cells.len() == names.len()) {
            Some(cells) => read.push(cells),
            None => {
                let message = format!(
                    "rows: each is a list of {} strings, numbers or booleans, as many as there are columns; \
                     {{}} is NULL",
                    names.len()
                );
                report.error(row.span(), key, message);
                return None;
            }
        }
    }
    Some(FixedAnswer::Rows {
        columns: names,
        rows: read,
    })
}

/// A value as the text protocol has it; `{}` is NULL.
fn text(value: &DeValue<'_>) -> Option<Option<String>> {
    Some(match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(
            i64::from_str_radix(number.as_str(), number.radix())
                .ok()?
                .to_string(),
        ),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(u8::from(*flag).to_string()),
        DeValue::Table(table) if table.is_empty() => None,
        _ => return None,
    })
}

/// An error.
pub(in crate::config) struct Block;

const BLOCK: &str = "a text, or { message = \"…\", code = 1227, state = \"42000\" }";

impl Kind for Block {
    type Value = FixedAnswer;

    fn describe(&self) -> String {
        "text, or `{ message = \"…\", code = 1227, state = \"42000\" }`".to_owned()
    }

    fn shown_default(&self) -> String {
        String::new()
    }

    fn default(&self) -> Option<FixedAnswer> {
        None
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<FixedAnswer> {
        let found = match value.get_ref() {
            DeValue::String(text) => Some((text.to_string(), None, None)),
            DeValue::Table(table) => {
                only(table, &["message", "code", "state"], key, report)?;
                let word = |name: &str| find(table, name)?.get_ref().as_str().map(str::to_owned);
                let code = find(table, "code").map(|code| match code.get_ref() {
                    DeValue::Integer(number) => number.as_str().parse::<u16>().unwrap_or(0),
                    _ => 0,
                });
                let state = find(table, "state").map(|_| word("state").unwrap_or_default());
                word("message").map(|message| (message, code, state))
            }
            _ => None,
        };
        let Some((message, code, state)) = found.filter(|(message, ..)| !message.is_empty()) else {
            report.error(value.span(), key, format!("expected {BLOCK}"));
            return None;
        };
        let code = code.unwrap_or(1227);
        let state = state.unwrap_or_else(|| "42000".to_owned());
        // https://dev.mysql.com/doc/refman/8.4/en/signal.html: class 00 is no error.
        let sane = state
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        match <[u8; 5]>::try_from(state.as_bytes()) {
            Ok(state) if sane && !state.starts_with(b"00") && code > 0 && message.len() <= 512 => {
                Some(FixedAnswer::Error {
                    code,
                    state,
                    message,
                })
            }
            _ => {
                let message = "code is 1 to 65535, state five digits and capital letters that do not begin with 00, \
                               message at most 512 bytes";
                report.error(value.span(), key, message);
                None
            }
        }
    }
}

fn find<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Option<&'t Spanned<DeValue<'i>>> {
    table
        .iter()
        .find(|(key, _)| key.get_ref() == name)
        .map(|(_, value)| value)
}

/// Reports what is in a table that should not be.
fn only(table: &DeTable<'_>, known: &[&str], key: &str, report: &mut Report<'_>) -> Option<()> {
    let known: BTreeSet<_> = known.iter().copied().collect();
    for (name, _) in table {
        if !known.contains(name.get_ref().as_ref()) {
            let names: Vec<_> = known.iter().copied().collect();
            let message = format!("unknown key in it; there are {}", names.join(", "));
            report.error(name.span(), &format!("{key}.{}", name.get_ref()), message);
            return None;
        }
    }
    Some(())
}
