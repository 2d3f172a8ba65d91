//! The labelled statements of `data/routing.tsv`.

// One suite has it without the rest of `support`.
#![allow(unreachable_pub)]

use std::sync::LazyLock;

/// A labelled statement.
pub struct Case {
    pub line: usize,
    pub target: &'static str,
    pub kind: &'static str,
    pub cause: &'static str,
    pub dialect: &'static str,
    pub sql: Vec<u8>,
}

static CORPUS: LazyLock<Vec<Case>> = LazyLock::new(read_corpus);

/// All of them.
pub fn corpus() -> &'static [Case] {
    &CORPUS
}

fn read_corpus() -> Vec<Case> {
    include_str!("../data/routing.tsv")
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with('#'))
        .map(|(index, line)| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [target, kind, cause, dialect, _origin, statement] = columns[..] else {
                panic!("line {}: {} columns", index + 1, columns.len());
            };
            Case {
                line: index + 1,
                target,
                kind,
                cause,
                dialect,
                sql: unescape(statement),
            }
        })
        .collect()
}

/// The bytes of a statement as it stands in a file of cases.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().expect("an escape is complete") {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => panic!("unknown escape {other}"),
        });
    }
    bytes
}
