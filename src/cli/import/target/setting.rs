//! Settings of the source.

use std::fmt;

/// A setting of the source.
#[derive(Debug, Clone)]
pub(in crate::cli::import) struct Setting {
    /// Its line, from 1; `None` where its name says where it is.
    pub(in crate::cli::import) line: Option<usize>,
    pub(in crate::cli::import) name: String,
    pub(in crate::cli::import) value: String,
    /// What stands between the two.
    pub(in crate::cli::import) between: &'static str,
}

impl Setting {
    pub(in crate::cli::import) fn new(
        line: usize,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        Self {
            line: Some(line),
            name: name.into(),
            value: value.into(),
            between: " = ",
        }
    }

    /// The value as a number.
    pub(in crate::cli::import) fn number(&self) -> Option<u64> {
        self.value.trim().parse().ok()
    }

    /// Whether the value says yes, in any of the sources' languages.
    pub(in crate::cli::import) fn is_on(&self) -> bool {
        let yes = ["1", "true", "on", "yes", "required"];
        yes.contains(&self.value.trim().to_ascii_lowercase().as_str())
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&plain(&self.name))?;
        if self.value.is_empty() {
            return Ok(());
        }
        f.write_str(self.between)?;
        if is_secret(&self.name) || is_secret(&self.value) {
            f.write_str("…")
        } else {
            f.write_str(&plain(&self.value))
        }
    }
}

/// Whether a text speaks of something that must not be repeated in a comment.
fn is_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let words = [
        "pass",
        "setenv",
        "credential",
        "secret",
        "jwt",
        "token",
        "stats auth",
        "_pw",
        "monitorpw",
        "identified by",
    ];
    words.iter().any(|word| text.contains(word))
}

/// A text as it can stand in one line of a comment.
pub(super) fn plain(text: &str) -> String {
    const ENOUGH: usize = 200;
    let mut out = String::new();
    for c in text.chars().take(ENOUGH) {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    if text.chars().nth(ENOUGH).is_some() {
        out.push('…');
    }
    out
}

/// What becomes of a setting of the source.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli::import) enum Fate {
    /// It has no equal, and why, and what to do instead.
    Nothing(&'static str),
    /// It is the number of this key.
    Count(&'static str),
    /// It is the duration of this key, in the source's unit.
    Span(&'static str, fn(&str) -> Option<u64>, &'static str),
    /// It is the text of this key.
    Text(&'static str),
}
