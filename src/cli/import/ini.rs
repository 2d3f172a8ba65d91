//! MaxScale's INI: sections, `key=value`, comments in lines of their own, and values that go on in indented lines.

use super::Error;
use super::target::Setting;

/// A section and what stands in it.
pub(super) struct Section {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) settings: Vec<Setting>,
}

impl Section {
    pub(super) fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// A setting's value, or nothing.
    pub(super) fn value(&self, name: &str) -> &str {
        self.setting(name)
            .map_or("", |setting| setting.value.as_str())
    }

    /// The items of a list with commas.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        let items = self.value(name).split(',').map(str::trim);
        items.filter(|item| !item.is_empty()).collect()
    }
}

const LONGEST_NAME: usize = 256;
const MOST_SETTINGS: usize = 1000;

/// Reads all sections. Names of settings come in lower case, with `_` for `-`.
pub(super) fn read(text: &str) -> Result<Vec<Section>, Error> {
    let mut sections: Vec<Section> = Vec::new();
    for (line, raw) in (1..).zip(text.lines()) {
        let trimmed = raw.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            let name = rest
                .split_once(']')
                .map(|(name, _)| name.trim())
                .filter(|name| (1..=LONGEST_NAME).contains(&name.len()))
                .ok_or_else(|| {
                    Error::at(
                        line,
                        "a section lacks its \"]\", or its name is empty or too long",
                    )
                })?;
            sections.push(Section {
                line,
                name: name.to_owned(),
                settings: Vec::new(),
            });
            continue;
        }
        let Some(section) = sections.last_mut() else {
            return Err(Error::at(line, "stands before the first [section]"));
        };
        if raw.starts_with([' ', '\t'])
            && let Some(last) = section.settings.last_mut()
        {
            last.value.push_str(trimmed);
            continue;
        }
        let Some((name, value)) = trimmed.split_once('=') else {
            return Err(Error::at(line, "is neither key=value nor a [section]"));
        };
        if section.settings.len() == MOST_SETTINGS {
            let message = format!("more than {MOST_SETTINGS} settings in a section");
            return Err(Error::at(line, message));
        }
        let name = name.trim().to_ascii_lowercase().replace('-', "_");
        let value = value.trim();
        let unquoted = ['"', '\'']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        section
            .settings
            .push(Setting::new(line, name, unquoted.unwrap_or(value)));
    }
    Ok(sections)
}
