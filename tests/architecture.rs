//! The floors of the house: a room imports only rooms on lower floors.
//!
//! The source is read as text: every path that starts with `crate::` or `dbproxy::`, and every `crate::{…}` group, outside comments
//! and strings. Test modules count as well: a test that needs a higher floor belongs in `tests/`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Every room and its floor. The wire protocol, `dbproxy_proto`, is a crate of its own below all of them.
const FLOORS: [&[&str]; 8] = [
    &["config", "shutdown", "state", "stats"],
    &["error", "topology", "sql"],
    &["routing", "net", "accounts", "failover"],
    &["backend", "monitor"],
    &["pool", "control"],
    &["session"],
    &["admin", "web"],
    &["cli", "app", "main"],
];

/// The rooms of the wiring know each other and everyone.
const WIRING: usize = 7;

/// Statements flow here.
const DATA_PLANE: [&str; 4] = ["session", "pool", "backend", "net"];

/// The servers' roles are decided here.
const CONTROL_PLANE: [&str; 3] = ["monitor", "control", "failover"];

/// Rooms that neither do input or output, nor read a clock, nor wait: time comes as an argument.
const PURE: [&str; 5] = ["config", "topology", "sql", "routing", "failover"];

/// Paths that make a room impure. `tokio::time::Instant` as a type is an argument's type and allowed.
const IMPURE: [&str; 9] = [
    "tokio::net",
    "tokio::spawn",
    "tokio::time::sleep",
    "tokio::time::timeout",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "Instant::now",
    "SystemTime::now",
    ".await",
];

#[derive(Debug, PartialEq, Eq)]
struct Import {
    file: PathBuf,
    line: usize,
    room: String,
    imported: String,
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {} imports {}",
            self.file.display(),
            self.line,
            self.room,
            self.imported
        )
    }
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Why an import is not allowed.
fn objection(room: &str, imported: &str) -> Option<String> {
    let (Some(own), Some(other)) = (floor(room), floor(imported)) else {
        return Some("a room without a floor: add it to FLOORS".to_owned());
    };
    if room == imported || own == WIRING {
        return None;
    }
    let planes = (DATA_PLANE.contains(&room), CONTROL_PLANE.contains(&room));
    let crosses = match planes {
        (true, _) => CONTROL_PLANE.contains(&imported),
        (_, true) => DATA_PLANE.contains(&imported),
        _ => false,
    };
    if crosses {
        return Some("the data plane and the control plane never import each other".to_owned());
    }
    (other >= own)
        .then(|| format!("floor {own} may only import lower floors, {imported} is on {other}"))
}

#[test]
fn rooms_import_only_lower_floors() {
    let source = root().join("src");
    let mut wrong = Vec::new();
    let mut imports = 0;
    for file in rust_files(&source) {
        let room = room_of(&source, &file);
        if room == "lib" {
            continue;
        }
        let text = read(&file);
        let mut found = imports_of(&room, &file, &text);
        found.extend(imports_through_super(&source, &room, &file, &text));
        for import in found {
            imports += 1;
            if let Some(rule) = objection(&import.room, &import.imported) {
                wrong.push(format!("{import}: {rule}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert!(
        imports > 10,
        "only {imports} imports found: the test reads the wrong files"
    );
}

#[test]
fn every_room_has_a_floor() {
    let source = root().join("src");
    let rooms: BTreeSet<_> = rust_files(&source)
        .iter()
        .map(|file| room_of(&source, file))
        .collect();
    let homeless: Vec<_> = rooms
        .iter()
        .filter(|room| *room != "lib" && floor(room).is_none())
        .collect();
    assert!(homeless.is_empty(), "rooms without a floor: {homeless:?}");
}

#[test]
fn pure_rooms_do_not_wait_and_do_not_look_at_the_clock() {
    let source = root().join("src");
    let mut wrong = Vec::new();
    for file in rust_files(&source) {
        // Tests drive the pure code with whatever they need.
        if file.ends_with("tests.rs") || !PURE.contains(&room_of(&source, &file).as_str()) {
            continue;
        }
        let text = read(&file);
        let code = text.split("#[cfg(test)]").next().unwrap_or(&text);
        for (line, code) in blank(code).lines().enumerate() {
            if let Some(word) = IMPURE.iter().find(|word| code.contains(**word)) {
                wrong.push(format!(
                    "{}:{}: {word} in a pure room",
                    file.display(),
                    line + 1
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_protocol_does_no_input_or_output() {
    let manifest = read(&root().join("proto/Cargo.toml"));
    let manifest: toml::Table = manifest.parse().unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    for name in ["tokio", "mio", "socket2", "dbproxy"] {
        assert!(!dependencies.contains_key(name), "proto depends on {name}");
    }
    for file in rust_files(&root().join("proto/src")) {
        for (line, code) in blank(&read(&file)).lines().enumerate() {
            let found = ["std::net", "std::fs", "std::time", "std::thread", "tokio::"]
                .into_iter()
                .find(|path| code.contains(path));
            assert!(
                found.is_none(),
                "{}:{}: {found:?} in proto",
                file.display(),
                line + 1
            );
        }
    }
}

/// The test would be worth nothing if it did not see what it forbids.
#[test]
fn forbidden_imports_are_seen() {
    let text = r#"
use crate::pool::Pool;
use crate::{
    error::Error, // crate::web
    config::{self, Config},
    session,
};
/* crate::admin /* nested */ crate::admin */
const A: &str = "crate::admin";
const B: &str = r"crate::admin";
const C: char = '"';
fn f<'a>(x: &'a str) -> crate::routing::Route { dbproxy::monitor::probe(b'"', '\'') }
"#;
    let found: Vec<_> = imports_of("net", Path::new("x.rs"), text)
        .into_iter()
        .map(|import| (import.line, import.imported))
        .collect();
    let expected = [
        (2, "pool"),
        (4, "error"),
        (5, "config"),
        (6, "session"),
        (12, "routing"),
        (12, "monitor"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(line, room)| (*line, (*room).to_owned()))
        .collect();
    assert_eq!(found, expected);

    assert_eq!(objection("session", "pool"), None);
    assert_eq!(objection("routing", "sql"), None);
    assert_eq!(objection("app", "cli"), None);
    assert!(
        objection("pool", "session")
            .unwrap()
            .contains("lower floors")
    );
    assert!(
        objection("topology", "sql")
            .unwrap()
            .contains("lower floors")
    );
    assert!(
        objection("backend", "monitor")
            .unwrap()
            .contains("never import each other")
    );
    assert!(
        objection("control", "net")
            .unwrap()
            .contains("never import each other")
    );
    assert!(
        objection("session", "attic")
            .unwrap()
            .contains("without a floor")
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// `src/pool/wait.rs` and `src/pool.rs` are both of the room `pool`.
fn room_of(source: &Path, file: &Path) -> String {
    let first = file
        .strip_prefix(source)
        .unwrap()
        .components()
        .next()
        .unwrap();
    Path::new(first.as_os_str())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

fn imports_of(room: &str, file: &Path, text: &str) -> Vec<Import> {
    let code = blank(text);
    let mut imports = Vec::new();
    for prefix in ["crate::", "dbproxy::"] {
        for (start, _) in code.match_indices(prefix) {
            let before = code[..start].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let after = start + prefix.len();
            for (offset, imported) in first_segments(&code[after..]) {
                let line = code[..after + offset].matches('\n').count() + 1;
                imports.push(Import {
                    file: file.to_owned(),
                    line,
                    room: room.to_owned(),
                    imported,
                });
            }
        }
    }
    imports.sort_by_key(|import| import.line);
    imports
}

/// `super::` chains that leave the room. Inside test modules the chain is one longer, so those are left out.
fn imports_through_super(source: &Path, room: &str, file: &Path, text: &str) -> Vec<Import> {
    let code = blank(text.split("#[cfg(test)]").next().unwrap_or(text));
    let segments = file.strip_prefix(source).unwrap().components().count();
    let depth = if file.ends_with("mod.rs") {
        segments - 1
    } else {
        segments
    };
    let chain = "super::".repeat(depth);
    let mut imports = Vec::new();
    for (start, _) in code.match_indices(&chain) {
        let imported = first_segments(&code[start + chain.len()..]);
        let known = imported
            .into_iter()
            .filter(|(_, imported)| floor(imported).is_some());
        for (_, imported) in known {
            let line = code[..start].matches('\n').count() + 1;
            imports.push(Import {
                file: file.to_owned(),
                line,
                room: room.to_owned(),
                imported,
            });
        }
    }
    imports
}

/// The first segment of a path, or of each path of a group `{a::b, c::{d, e}}`, with its offset.
fn first_segments(path: &str) -> Vec<(usize, String)> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    if !path.starts_with('{') {
        return vec![(0, word(path))];
    }
    let (mut depth, mut expected, mut found) = (0, false, Vec::new());
    for (offset, c) in path.char_indices() {
        match c {
            '{' => {
                depth += 1;
                expected = depth == 1;
            }
            '}' => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            ',' => expected = depth == 1,
            c if expected && (c.is_alphabetic() || c == '_') => {
                found.push((offset, word(&path[offset..])));
                expected = false;
            }
            _ => {}
        }
    }
    found
}

/// The text with comments, strings and characters replaced by spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = opaque_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(
                chars[at..end]
                    .iter()
                    .map(|c| if *c == '\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    out
}

/// The end of the comment, string or character that starts at `at`; `at` itself if none does.
fn opaque_end(chars: &[char], at: usize) -> usize {
    let starts = |text: &str, at: usize| {
        text.chars()
            .enumerate()
            .all(|(i, c)| chars.get(at + i) == Some(&c))
    };
    let find = |text: &str, from: usize| (from..chars.len()).find(|at| starts(text, *at));
    if starts("//", at) {
        return find("\n", at).unwrap_or(chars.len());
    }
    if starts("/*", at) {
        let (mut depth, mut next) = (1, at + 2);
        while depth > 0 && next < chars.len() {
            if starts("/*", next) {
                depth += 1;
                next += 2;
            } else if starts("*/", next) {
                depth -= 1;
                next += 2;
            } else {
                next += 1;
            }
        }
        return next;
    }
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if !in_word && (chars[at] == 'r' || starts("br", at)) {
        let from = at + if chars[at] == 'b' { 2 } else { 1 };
        let hashes = chars[from..].iter().take_while(|c| **c == '#').count();
        if chars.get(from + hashes) == Some(&'"') {
            let close = format!("\"{}", "#".repeat(hashes));
            return find(&close, from + hashes + 1).map_or(chars.len(), |end| end + close.len());
        }
    }
    if chars[at] == '"' {
        return quoted_end(chars, at + 1, '"');
    }
    // A lifetime has no closing quote right after one character.
    if chars[at] == '\'' && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'')) {
        return quoted_end(chars, at + 1, '\'');
    }
    at
}

fn quoted_end(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}
