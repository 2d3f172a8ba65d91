//! The reference of keys, as README shows it.

use std::fmt::Write;

use super::keys;

/// A Markdown table of every key: type, default and meaning. Ends with a newline.
pub fn reference() -> String {
    let mut out = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    for entry in keys::ALL {
        let default = match entry.default() {
            default if default.is_empty() => "required".to_owned(),
            default if default.contains(['"', '[']) || default.parse::<f64>().is_ok() => {
                format!("`{default}`")
            }
            default => default,
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {default} | {} |",
            entry.path(),
            entry.describe(),
            entry.meaning()
        );
    }
    out
}
