//! The cases of `data/placement.txt`. How the file is written is said at its beginning.

use dbproxy::cli::demo::cluster::Flavor;

use crate::support::{Options, corpus};

/// A configuration, and the cases to be run with it.
#[derive(Debug, Default)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) options: Options,
    pub(crate) cases: Vec<Case>,
}

/// What one client does, in its order.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) line: usize,
    pub(crate) why: &'static str,
    /// The only servers that it is for.
    pub(crate) flavor: Option<Flavor>,
    /// To be run again with prepared statements.
    pub(crate) twice: bool,
    pub(crate) steps: Vec<Step>,
}

/// One thing that is done.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) text: &'static str,
    pub(crate) does: Does,
    pub(crate) expected: Expected,
}

#[derive(Debug)]
pub(crate) enum Does {
    /// A statement, of a connection of that account if it is not the case's own connection.
    Statement(Option<&'static str>, Vec<u8>),
    /// Execution of the statement that was prepared under that name.
    Execute(&'static str),
    /// Anything else: its name, and what it is for.
    Command(&'static str, &'static str),
}

/// What a step is to come to.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) place: Option<&'static str>,
    pub(crate) error: Option<u16>,
    pub(crate) value: Option<&'static str>,
    /// Again and again, until it is so.
    pub(crate) soon: bool,
}

impl Expected {
    pub(crate) fn is_nothing(&self) -> bool {
        self.place.is_none() && self.error.is_none() && self.value.is_none()
    }
}

impl Case {
    pub(crate) fn is_for(&self, flavor: Flavor) -> bool {
        self.flavor.is_none_or(|only| only == flavor)
    }
}

const PLACES: &[&str] = &[
    "primary", "replica", "db2", "db3", "same", "other", "spread", "nowhere",
];

const COMMANDS: &[&str] = &[
    "@account",
    "@change_user",
    "@fresh",
    "@freeze",
    "@init_db",
    "@ping",
    "@prepare",
    "@reset",
    "@start",
    "@stop",
    "@thaw",
];

/// All of them.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    // The section of the configuration that a line belongs to.
    let mut section = "";
    for (index, line) in include_str!("../data/placement.txt").lines().enumerate() {
        let number = index + 1;
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if let Some(name) = content.strip_prefix("scenario: ") {
            scenarios.push(Scenario {
                name,
                ..Scenario::default()
            });
            section = "";
            continue;
        }
        let scenario = scenarios.last_mut().expect("a scenario comes first");
        if !line.starts_with(' ') {
            scenario.cases.push(head(number, content));
        } else if let Some(case) = scenario.cases.last_mut() {
            case.steps.push(step(number, content));
        } else {
            configure(&mut scenario.options, &mut section, content);
        }
    }
    for case in scenarios.iter().flat_map(|scenario| &scenario.cases) {
        assert!(
            case.steps.iter().any(|step| !step.expected.is_nothing()),
            "line {}: a case that expects nothing",
            case.line
        );
    }
    scenarios
}

/// `case: …`, `twice mysql: …` and so on.
fn head(line: usize, content: &'static str) -> Case {
    let (words, why) = content
        .split_once(": ")
        .unwrap_or_else(|| panic!("line {line}: neither a case nor a scenario"));
    let (kind, flavor) = words.split_once(' ').unwrap_or((words, ""));
    assert!(["case", "twice"].contains(&kind), "line {line}: {kind}?");
    assert!(why.ends_with(']'), "line {line}: no origin in [ ]");
    Case {
        line,
        why,
        flavor: match flavor {
            "" => None,
            "mariadb" => Some(Flavor::MariaDb),
            "mysql" => Some(Flavor::MySql),
            other => panic!("line {line}: {other}?"),
        },
        twice: kind == "twice",
        steps: Vec::new(),
    }
}

/// `expected | statement` or `| @command what`.
fn step(line: usize, content: &'static str) -> Step {
    let (expected, text) = content
        .split_once('|')
        .unwrap_or_else(|| panic!("line {line}: no | before the statement"));
    let text = text.trim();
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let does = match word {
        "@as" => {
            let (account, sql) = rest.split_once(' ').expect("an account and a statement");
            Does::Statement(Some(account), corpus::unescape(sql))
        }
        "@execute" => Does::Execute(rest),
        word if COMMANDS.contains(&word) => Does::Command(word, rest),
        word => {
            assert!(!word.starts_with('@'), "line {line}: {word}?");
            Does::Statement(None, corpus::unescape(text))
        }
    };
    Step {
        line,
        text,
        does,
        expected: expectation(line, expected.trim()),
    }
}

fn expectation(line: usize, text: &'static str) -> Expected {
    let mut expected = Expected::default();
    let text = match text.split_once('=') {
        Some((front, value)) => {
            expected.value = Some(value.trim());
            front
        }
        None => text,
    };
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "soon" => expected.soon = true,
            "error" => {
                let code = words.next().and_then(|code| code.parse().ok());
                expected.error = Some(code.unwrap_or_else(|| panic!("line {line}: error what?")));
            }
            place if PLACES.contains(&place) => expected.place = Some(place),
            other => panic!("line {line}: {other}?"),
        }
    }
    expected
}

fn configure(options: &mut Options, section: &mut &'static str, content: &'static str) {
    if content.starts_with('[') {
        *section = content;
    }
    let part = match *section {
        "" => &mut options.top,
        "[cluster]" => &mut options.cluster,
        _ => &mut options.sections,
    };
    match content.strip_prefix("groups: ") {
        Some(groups) => options.groups = groups.split(' ').map(group).collect(),
        None if content == "[cluster]" => {}
        None => {
            part.push_str(content);
            part.push('\n');
        }
    }
}

fn group(pair: &'static str) -> (&'static str, &'static str) {
    pair.split_once('=').expect("server=group")
}
