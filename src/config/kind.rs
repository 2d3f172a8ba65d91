//! The kinds of value a key can have: how each is read, described and defaulted.

use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use super::ListenAddress;
use super::Network;
use super::Secret;
use super::ServerAddress;
use super::ServerConfig;
use super::Sources;
use super::problem::Problem;
use super::problem::Severity;
use super::problem::place;
use super::units;

/// Collects the problems of one text.
pub(super) struct Report<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    pub(super) sources: &'a dyn Sources,
    pub(super) problems: Vec<Problem>,
    /// Whether a password stands in the text itself.
    pub(super) literal_secret: bool,
}

impl Report<'_> {
    pub(super) fn error(&mut self, span: Range<usize>, key: &str, message: impl Into<String>) {
        self.problem(Severity::Error, Some(span), key, message.into(), None);
    }

    pub(super) fn problem(
        &mut self,
        severity: Severity,
        span: Option<Range<usize>>,
        key: &str,
        message: String,
        suggestion: Option<String>,
    ) {
        self.problems.push(Problem {
            severity,
            file: self.file.to_owned(),
            place: span.map(|span| place(self.text, span.start)),
            key: key.to_owned(),
            message,
            suggestion,
        });
    }

    /// The value as a string, or a problem.
    fn string<'v>(&mut self, value: &'v Spanned<DeValue<'_>>, key: &str) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(value, key, "a string");
        }
        text
    }

    /// What `parse` makes of each string of a list, with its place, or problems.
    pub(super) fn each<T>(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<Spanned<T>>> {
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(value, key, "a list of strings, such as [\"…\", \"…\"]");
            return None;
        };
        let mut parsed = Vec::new();
        for item in items.iter() {
            match self.string(item, key).map(&parse) {
                Some(Ok(one)) => parsed.push(Spanned::new(item.span(), one)),
                Some(Err(message)) => self.error(item.span(), key, message),
                None => {}
            }
        }
        Some(parsed)
    }

    pub(super) fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, key: &str, wanted: &str) {
        let found = value.get_ref().type_str();
        self.error(
            value.span(),
            key,
            format!("expected {wanted}, found {found}"),
        );
    }
}

/// How a value is read, and what the reference says of it.
pub(super) trait Kind {
    type Value;

    /// The reference's column "type", in Markdown.
    fn describe(&self) -> String;

    /// The reference's column "default", as it would stand in the file; empty for a required key.
    fn shown_default(&self) -> String;

    /// What an absent key means; `None` if it may not be absent.
    fn default(&self) -> Option<Self::Value>;

    /// The value, or at least one problem in `report` and `None`.
    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<Self::Value>;
}

/// A duration within bounds.
pub(super) struct Span {
    pub(super) default: Duration,
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Kind for Span {
    type Value = Duration;

    fn describe(&self) -> String {
        format!(
            "duration, {} to {}",
            units::show(self.min),
            units::show(self.max)
        )
    }

    fn shown_default(&self) -> String {
        format!("\"{}\"", units::show(self.default))
    }

    fn default(&self) -> Option<Duration> {
        Some(self.default)
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<Duration> {
        let text = match value.get_ref() {
            DeValue::Integer(number) => {
                let message = "a duration is a string with a unit".to_owned();
                let suggestion = format!("write \"{}s\" or \"{0}ms\"", number.as_str());
                report.problem(
                    Severity::Error,
                    Some(value.span()),
                    key,
                    message,
                    Some(suggestion),
                );
                return None;
            }
            _ => report.string(value, key)?,
        };
        match units::parse(text) {
            Ok(duration) if (self.min..=self.max).contains(&duration) => Some(duration),
            Ok(duration) if duration.is_zero() => {
                report.error(value.span(), key, "must not be zero");
                None
            }
            Ok(duration) => {
                let (min, max) = (units::show(self.min), units::show(self.max));
                let shown = units::show(duration);
                report.error(
                    value.span(),
                    key,
                    format!("{shown} is out of range: {min} to {max}"),
                );
                None
            }
            Err(message) => {
                report.error(value.span(), key, message);
                None
            }
        }
    }
}

/// A number of bytes within bounds.
pub(super) struct Size {
    pub(super) default: u64,
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Kind for Size {
    type Value = u64;

    fn describe(&self) -> String {
        let (min, max) = (units::show_size(self.min), units::show_size(self.max));
        format!("size, {min} to {max}")
    }

    fn shown_default(&self) -> String {
        format!("\"{}\"", units::show_size(self.default))
    }

    fn default(&self) -> Option<u64> {
        Some(self.default)
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<u64> {
        let text = report.string(value, key)?;
        let size = units::parse_size(text).and_then(|size| {
            let (min, max) = (units::show_size(self.min), units::show_size(self.max));
            (self.min..=self.max)
                .contains(&size)
                .then_some(size)
                .ok_or_else(|| format!("{text} is out of range: {min} to {max}"))
        });
        size.map_err(|message| report.error(value.span(), key, message))
            .ok()
    }
}

/// A whole number within bounds.
pub(super) struct Count {
    pub(super) default: usize,
    pub(super) min: usize,
    pub(super) max: usize,
}

impl Kind for Count {
    type Value = usize;

    fn describe(&self) -> String {
        format!("number, {} to {}", self.min, self.max)
    }

    fn shown_default(&self) -> String {
        self.default.to_string()
    }

    fn default(&self) -> Option<usize> {
        Some(self.default)
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<usize> {
        let Some(number) = value.get_ref().as_integer() else {
            report.wrong_type(value, key, "a whole number");
            return None;
        };
        let parsed = i128::from_str_radix(number.as_str(), number.radix()).ok();
        let range = self.min..=self.max;
        let fitting = parsed
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| range.contains(n));
        if fitting.is_none() {
            let message = format!("{number} is out of range: {} to {}", self.min, self.max);
            report.error(value.span(), key, message);
        }
        fitting
    }
}

/// A part of a whole, from 0 to 1.
pub(super) struct Portion {
    pub(super) default: f64,
}

impl Kind for Portion {
    type Value = f64;

    fn describe(&self) -> String {
        "number, 0 to 1".to_owned()
    }

    fn shown_default(&self) -> String {
        self.default.to_string()
    }

    fn default(&self) -> Option<f64> {
        Some(self.default)
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<f64> {
        let number = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => {
                report.wrong_type(value, key, "a number from 0 to 1");
                return None;
            }
        };
        let fitting = number.filter(|number| (0.0..=1.0).contains(number));
        if fitting.is_none() {
            report.error(value.span(), key, "is out of range: 0 to 1");
        }
        fitting
    }
}

/// One of several words.
pub(super) struct Choice<T: 'static> {
    pub(super) default: (&'static str, T),
    pub(super) names: &'static [(&'static str, T)],
    /// Words that the design knows and this version does not.
    pub(super) later: &'static [&'static str],
}

impl<T: Copy> Kind for Choice<T> {
    type Value = T;

    fn describe(&self) -> String {
        let names: Vec<_> = self
            .names
            .iter()
            .map(|(name, _)| format!("`\"{name}\"`"))
            .collect();
        names.join(", ")
    }

    fn shown_default(&self) -> String {
        format!("\"{}\"", self.default.0)
    }

    fn default(&self) -> Option<T> {
        Some(self.default.1)
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, key: &str, report: &mut Report<'_>) -> Option<T> {
        let text = report.string(value, key)?;
        if let Some((_, found)) = self.names.iter().find(|(name, _)| *name == text) {
            return Some(*found);
        }
        let names = self.names.iter().map(|(name, _)| *name);
        let shown: Vec<_> = names.clone().map(|name| format!("\"{name}\"")).collect();
        let shown = shown.join(", ");
        let (message, suggestion) = if self.later.contains(&text) {
            (
                format!("\"{text}\" is not supported yet"),
                format!("it can be {shown}"),
            )
        } else {
            let suggestion = match closest(text, names) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("it can be {shown}"),
            };
            (format!("\"{text}\" is not known"), suggestion)
        };
        report.problem(
            Severity::Error,
            Some(value.span()),
            key,
            message,
            Some(suggestion),
        );
        None
    }
}

/// A value that may be absent, which means `otherwise`, in Markdown.
pub(super) struct Own<K> {
    pub(super) kind: K,
    pub(super) otherwise: &'static str,
}

impl<K: Kind> Kind for Own<K> {
    type Value = Option<K::Value>;

    fn describe(&self) -> String {
        self.kind.describe()
    }

    fn shown_default(&self) -> String {
        self.otherwise.to_owned()
    }

    fn default(&self) -> Option<Self::Value> {
        Some(None)
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<Self::Value> {
        self.kind.read(value, key, report).map(Some)
    }
}

/// A string that is not empty.
pub(super) struct Text {
    /// `None` makes the key a required one.
    pub(super) default: Option<&'static str>,
}

impl Kind for Text {
    type Value = String;

    fn describe(&self) -> String {
        "string".to_owned()
    }

    fn shown_default(&self) -> String {
        self.default
            .map(|default| format!("\"{default}\""))
            .unwrap_or_default()
    }

    fn default(&self) -> Option<String> {
        self.default.map(str::to_owned)
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<String> {
        let text = report.string(value, key)?;
        if text.is_empty() {
            report.error(value.span(), key, "must not be empty");
            return None;
        }
        Some(text.to_owned())
    }
}

/// The path of a file or directory; a relative one starts at the configuration's own directory.
pub(super) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn describe(&self) -> String {
        "path".to_owned()
    }

    fn shown_default(&self) -> String {
        String::new()
    }

    fn default(&self) -> Option<PathBuf> {
        None
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<PathBuf> {
        let text = Text { default: None }.read(value, key, report)?;
        Some(report.sources.resolve(Path::new(&text)))
    }
}

/// The path of a program that can be run.
pub(super) struct Program;

impl Kind for Program {
    type Value = PathBuf;

    fn describe(&self) -> String {
        "path of an executable file".to_owned()
    }

    fn shown_default(&self) -> String {
        String::new()
    }

    fn default(&self) -> Option<PathBuf> {
        None
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<PathBuf> {
        let path = FilePath.read(value, key, report)?;
        if let Err(why) = report.sources.program(&path) {
            report.error(value.span(), key, format!("{} {why}", path.display()));
            return None;
        }
        Some(path)
    }
}

/// A log filter.
pub(super) struct Filter {
    pub(super) default: &'static str,
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Kind for Filter {
    type Value = String;

    fn describe(&self) -> String {
        "`off`, `error`, `warn`, `info`, `debug`, or directives such as \
         `info,dbproxy::monitor=debug`"
            .to_owned()
    }

    fn shown_default(&self) -> String {
        format!("\"{}\"", self.default)
    }

    fn default(&self) -> Option<String> {
        Some(self.default.to_owned())
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<String> {
        let text = report.string(value, key)?;
        // The filter takes a lone unknown word for the name of a module and would log all of it.
        let unknown = text.split(',').map(str::trim).find(|word| {
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric());
            plain && !LEVELS.contains(&word.to_ascii_lowercase().as_str())
        });
        if let Some(word) = unknown {
            let suggestion = closest(word, LEVELS).map(|name| format!("did you mean \"{name}\"?"));
            let message = format!("\"{word}\" is not a level");
            report.problem(
                Severity::Error,
                Some(value.span()),
                key,
                message,
                suggestion,
            );
            return None;
        }
        if let Err(error) = EnvFilter::builder().parse(text) {
            report.error(value.span(), key, format!("not a log filter: {error}"));
            return None;
        }
        Some(text.to_owned())
    }
}

/// A secret: the text itself, `env:NAME` or `file:PATH`.
pub(super) struct Password;

impl Kind for Password {
    type Value = Secret;

    fn describe(&self) -> String {
        "secret: the text itself, `env:NAME` or `file:PATH`".to_owned()
    }

    fn shown_default(&self) -> String {
        String::new()
    }

    fn default(&self) -> Option<Secret> {
        None
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<Secret> {
        let text = report.string(value, key)?;
        if let Some(name) = text.strip_prefix("env:") {
            let found = report.sources.variable(name);
            if found.is_none() {
                let message = format!("the environment variable \"{name}\" is not set");
                report.error(value.span(), key, message);
            }
            return found.map(Secret::new);
        }
        let Some(path) = text.strip_prefix("file:") else {
            report.literal_secret = true;
            return Some(Secret::new(text));
        };
        let file = match report.sources.file(path.as_ref()) {
            Ok(file) => file,
            Err(error) => {
                report.error(
                    value.span(),
                    key,
                    format!("cannot read \"{path}\": {error}"),
                );
                return None;
            }
        };
        if file.world_readable {
            let message = format!("every account of this machine can read \"{path}\"");
            let suggestion = Some(format!("chmod o= {path}"));
            report.problem(
                Severity::Warning,
                Some(value.span()),
                key,
                message,
                suggestion,
            );
        }
        let plain = file.text.strip_suffix('\n').unwrap_or(&file.text);
        let plain = plain.strip_suffix('\r').unwrap_or(plain);
        if plain.is_empty() {
            report.error(value.span(), key, format!("\"{path}\" is empty"));
            return None;
        }
        Some(Secret::new(plain))
    }
}

/// Addresses to listen on, each with its place in the text.
pub(super) struct Listeners {
    pub(super) default: Option<&'static str>,
}

impl Kind for Listeners {
    type Value = Vec<Spanned<ListenAddress>>;

    fn describe(&self) -> String {
        "list of `host:port`, `[IPv6]:port`, `unix:/path`".to_owned()
    }

    fn shown_default(&self) -> String {
        self.default
            .map_or_else(|| "[]".to_owned(), |default| format!("[\"{default}\"]"))
    }

    fn default(&self) -> Option<Self::Value> {
        let Some(default) = self.default else {
            return Some(Vec::new());
        };
        let address = ListenAddress::parse(default).ok()?;
        Some(vec![Spanned::new(0..0, address)])
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<Self::Value> {
        let addresses = report.each(value, key, ListenAddress::parse)?;
        for (at, spanned) in addresses.iter().enumerate() {
            let address = spanned.get_ref();
            // Port 0 is another port each time, so it may stand there twice.
            let chosen = matches!(address, ListenAddress::Tcp { port: 0, .. });
            if !chosen
                && addresses
                    .iter()
                    .take(at)
                    .any(|known| known.get_ref() == address)
            {
                report.error(spanned.span(), key, format!("{address} stands there twice"));
            }
        }
        Some(addresses)
    }
}

/// Networks, none of them by default.
pub(super) struct Networks;

impl Kind for Networks {
    type Value = Vec<Network>;

    fn describe(&self) -> String {
        "list of `address/bits` or `address`".to_owned()
    }

    fn shown_default(&self) -> String {
        "[]".to_owned()
    }

    fn default(&self) -> Option<Self::Value> {
        Some(Vec::new())
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<Self::Value> {
        let networks = report.each(value, key, Network::parse)?;
        Some(networks.into_iter().map(Spanned::into_inner).collect())
    }
}

/// A string that is parsed; the key is a required one.
pub(super) struct Parsed<T> {
    pub(super) described: &'static str,
    pub(super) parse: fn(&str) -> Result<T, String>,
}

impl<T> Kind for Parsed<T> {
    type Value = T;

    fn describe(&self) -> String {
        self.described.to_owned()
    }

    fn shown_default(&self) -> String {
        String::new()
    }

    fn default(&self) -> Option<T> {
        None
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, key: &str, report: &mut Report<'_>) -> Option<T> {
        let text = report.string(value, key)?;
        (self.parse)(text)
            .map_err(|message| report.error(value.span(), key, message))
            .ok()
    }
}

/// Servers in the short form, each with its place in the text.
pub(super) struct Servers;

impl Kind for Servers {
    type Value = Vec<Spanned<ServerConfig>>;

    fn describe(&self) -> String {
        "list of `name=address` or `address`".to_owned()
    }

    fn shown_default(&self) -> String {
        String::new()
    }

    fn default(&self) -> Option<Self::Value> {
        Some(Vec::new())
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<Self::Value> {
        report.each(value, key, server)
    }
}

fn server(text: &str) -> Result<ServerConfig, String> {
    // A path may hold an equals sign, a name or a host cannot.
    let (name, address) = match text.split_once('=') {
        Some((name, address)) if !name.starts_with("unix:") => {
            (Some(server_name(name.trim())?), address.trim())
        }
        _ => (None, text),
    };
    let address = ServerAddress::parse(address)?;
    let name = name.unwrap_or_else(|| address.to_string());
    Ok(ServerConfig::new(name, address))
}

pub(in crate::config) fn server_name(text: &str) -> Result<String, String> {
    let sane = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > 64 || !text.chars().all(sane) {
        return Err(format!(
            "\"{text}\" is not a server's name: 1 to 64 letters, digits, \".\", \"_\" or \"-\""
        ));
    }
    Ok(text.to_owned())
}

/// The candidate that a misspelt word most likely means.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| {
            let normal = candidate.to_ascii_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&word, &normal), candidate)
        })
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
