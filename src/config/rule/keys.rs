//! The keys of rules.

use std::time::Duration;

use super::super::address::ListenAddress;
use super::super::address::Network;
use super::super::keys::Key;
use super::super::kind::Choice;
use super::super::kind::Count;
use super::super::kind::Own;
use super::super::kind::Parsed;
use super::super::kind::Span;
use super::super::kind::Text;
use super::super::kind::closest;
use super::super::kind::server_name;
use super::Consistency;
use super::Firewall;
use super::Glob;
use super::LimitPer;
use super::Pattern;
use super::Priority;
use super::RouteTo;
use super::RuleKind;
use super::TimeOfDay;
use super::kinds::Answer;
use super::kinds::Block;
use super::kinds::Flag;
use super::kinds::Several;
use super::kinds::Share;

macro_rules! key {
    ($name:ident: $kind:ty = $path:literal, $value:expr, $meaning:literal) => {
        pub(in crate::config) const $name: Key<$kind> = Key {
            path: $path,
            kind: $value,
            meaning: $meaning,
        };
    };
}

const fn own<K>(kind: K, otherwise: &'static str) -> Own<K> {
    Own { kind, otherwise }
}

const GLOB: Several<Glob> = Several {
    described: "name with `*`",
    parse: Glob::parse,
    otherwise: "any",
};

key!(NAME: Own<Text> = "rule[].name", own(Text { default: None }, "`rule` and its number"),
    "What logs, errors and `SHOW DBPROXY RULES` call it.");
key!(ACCOUNT: Several<Glob> = "rule[].account", GLOB,
    "Matches statements of these users.");
key!(CLIENT: Several<Network> = "rule[].client", Several { described: "`address/bits` or `address`", parse: Network::parse,
        otherwise: "any",
    },
    "Matches those of clients in these networks.");
key!(LISTENER: Several<ListenAddress> = "rule[].listener",
    Several { described: "address as in `listen`", parse: ListenAddress::parse,
        otherwise: "any",
    },
    "Matches those of clients that connected here.");
key!(APPLICATION: Several<Glob> = "rule[].application", GLOB,
    "Matches those of clients that call themselves so: by the connection attribute `program_name`, or by \
     `application='…'` in a comment as sqlcommenter writes them.");
key!(SCHEMA: Several<Glob> = "rule[].schema", GLOB,
    "Matches while this schema is in use.");
key!(TABLE: Several<Glob> = "rule[].table",
    Several { described: "`table` or `schema.table`, with `*`", parse: table,
        otherwise: "any",
    },
    "Matches statements that name such a table; without a schema: in any. Found by reading the statement: for steering, \
     never in place of grants.");
key!(KIND: Several<RuleKind> = "rule[].kind",
    Several { described: "`read`, `primary-read`, `write`, `definition`, `show`, `call`, `set`, `transaction`, `lock`, \
              `administration`, `multi`, `unknown`", parse: kind,
        otherwise: "any",
    },
    "Matches statements of this kind. `read` is what a replica may answer, `primary-read` any other SELECT. COMMIT, ROLLBACK, \
     savepoints and UNLOCK TABLES are never matched, nor is XA.");
key!(TAG: Several<String> = "rule[].tag", Several { described: "word", parse: tag,
        otherwise: "any",
    },
    "Matches statements with the hint `/* dbproxy: tag=WORD */`.");
key!(DIGEST: Several<u64> = "rule[].digest", Several { described: "16 hexadecimal digits", parse: digest,
        otherwise: "any",
    },
    "Matches statements of this digest, as `EXPLAIN ROUTE` shows it.");
key!(PATTERN: Own<Parsed<Pattern>> = "rule[].pattern",
    own(Parsed { described: "regular expression", parse: Pattern::parse }, "any"),
    "Matches statements in whose text it is found ([syntax](https://docs.rs/regex/1/regex/#syntax)); `(?i)` for any case.");
key!(TIME: Several<TimeOfDay> = "rule[].time",
    Several { described: "`HH:MM-HH:MM`, in UTC, or with an offset: `22:00-06:00+01:00`", parse: TimeOfDay::parse,
        otherwise: "any",
    },
    "Matches at these times of day.");
key!(SAMPLE: Own<Share> = "rule[].sample", own(Share, "1"),
    "The share of what would match that does.");
key!(ROUTE: Own<Parsed<RouteTo>> = "rule[].route",
    own(Parsed { described: "`primary`, `replica`, `server=NAME`, `group=NAME`, `cluster=NAME`", parse: route }, "by itself"),
    "Where reads go, whatever a hint says. Writes and transactions stay where they belong; a server that cannot serve the \
     read is passed over. With `cluster=NAME` reads and writes run on that cluster instead of the session's.");
key!(MIRROR: Own<Parsed<String>> = "rule[].mirror",
    own(Parsed { described: "name of a cluster", parse: cluster }, "no"),
    "The cluster on which a copy of each statement runs that has succeeded. Its answer is dropped.");
key!(CONSISTENCY: Own<Choice<Consistency>> = "rule[].consistency",
    own(super::super::keys::CONSISTENCY.kind, "as without the rule"),
    "What the read has at least seen.");
key!(MAX_LAG: Own<Span> = "rule[].max_lag", own(super::super::keys::MAX_LAG.kind, "as without the rule"),
    "How far behind the replica may be; never more than `cluster.max_lag`.");
key!(TIMEOUT: Own<Span> = "rule[].timeout",
    own(Span { default: Duration::from_secs(1), min: Duration::from_millis(1), max: Duration::from_secs(86_400) }, "none"),
    "How long the statement may run. Then it is ended on the server, and the client gets error 3024.");
key!(REWRITE: Own<Text> = "rule[].rewrite", own(Text { default: None }, "as it is"),
    "What is run in place of the statement. `$1` and `${name}` are what `pattern` found (which is replaced, each time that it \
     is found; `$$` is a dollar); without a `pattern` it is the whole statement, and `?1` the first literal in it.");
key!(ANSWER: Own<Answer> = "rule[].answer", own(Answer, "the server's"),
    "What the client gets without any server being asked. `{}` is NULL.");
key!(BLOCK: Own<Block> = "rule[].block", own(Block, "no"),
    "The error that the client gets without any server being asked.");
key!(PER_SECOND: Own<Count> = "rule[].limit.per_second", own(MANY, "no limit"),
    "Statements that begin in a second. One more gets error 1226.");
key!(CONCURRENCY: Own<Count> = "rule[].limit.concurrency", own(MANY, "no limit"),
    "Statements that run at a time. One more waits for up to `limits.queue_wait`, then gets error 1226.");
key!(ROWS: Own<Count> = "rule[].limit.rows", own(MOST, "no limit"),
    "Rows in an answer. A longer one ends with error 1226 and is ended on the server.");
key!(BYTES: Own<Count> = "rule[].limit.bytes", own(MOST, "no limit"),
    "The same for bytes.");
key!(PER: Choice<LimitPer> = "rule[].limit.per",
    Choice {
        default: ("rule", LimitPer::Rule),
        names: &[("rule", LimitPer::Rule), ("account", LimitPer::Account), ("client", LimitPer::Client)],
        later: &[],
    },
    "Who has `per_second` and `concurrency`: all together, each account, or each client address.");
key!(CACHE: Own<Span> = "rule[].cache",
    own(Span { default: Duration::from_secs(1), min: Duration::from_millis(1), max: Duration::from_secs(86_400) }, "not at all"),
    "How long the answer to a read is given again, to the same account in the same state, unless a table that it names is written \
     through this dbproxy.");
key!(PRIORITY: Own<Choice<Priority>> = "rule[].priority",
    own(
        Choice {
            default: ("normal", Priority::Normal),
            names: &[("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)],
            later: &[],
        },
        "normal",
    ),
    "Who goes first where statements wait for a connection to a server, before transactions and shares count.");
key!(FIREWALL: Own<Choice<Firewall>> = "rule[].firewall",
    own(
        Choice {
            default: ("learn", Firewall::Learn),
            names: &[("learn", Firewall::Learn), ("detect", Firewall::Detect), ("enforce", Firewall::Enforce)],
            later: &[],
        },
        "none",
    ),
    "`learn` remembers the digests of the statements that the rule matches, in `state_directory`; `detect` tells the log of those \
     that were not learned; `enforce` refuses them with error 1227. What was learned goes by the rule's `name`.");
key!(LOG: Flag = "rule[].log", Flag,
    "Whether the statement is logged: without its literals, with where it went, how long it took, and the error if there was one.");
key!(CONTINUE: Flag = "rule[].continue", Flag,
    "Whether the rules behind it are looked at too. What this one says stands; limits add up.");

const MANY: Count = Count {
    default: 1,
    min: 1,
    max: 1_000_000,
};

const MOST: Count = Count {
    default: 1,
    min: 1,
    max: 1 << 40,
};

pub(super) const KINDS: &[(&str, RuleKind)] = &[
    ("read", RuleKind::Read),
    ("primary-read", RuleKind::PrimaryRead),
    ("write", RuleKind::Write),
    ("definition", RuleKind::Definition),
    ("show", RuleKind::Show),
    ("call", RuleKind::Call),
    ("set", RuleKind::Set),
    ("transaction", RuleKind::Transaction),
    ("lock", RuleKind::Lock),
    ("administration", RuleKind::Administration),
    ("multi", RuleKind::Multi),
    ("unknown", RuleKind::Unknown),
];

fn kind(text: &str) -> Result<RuleKind, String> {
    let mut kinds = KINDS.iter();
    if let Some((_, kind)) = kinds.find(|(name, _)| *name == text) {
        return Ok(*kind);
    }
    Err(match closest(text, KINDS.iter().map(|(name, _)| *name)) {
        Some(near) => format!("\"{text}\" is not a kind of statement: did you mean \"{near}\"?"),
        None => {
            let names: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
            format!(
                "\"{text}\" is not a kind of statement: there are {}",
                names.join(", ")
            )
        }
    })
}

fn table(text: &str) -> Result<Glob, String> {
    match text.split_once('.') {
        Some((_, table)) if table.contains('.') => Err(format!(
            "\"{text}\" is not a table: write \"table\" or \"schema.table\""
        )),
        Some(_) => Glob::parse(text),
        None if text.is_empty() => Glob::parse(text),
        None => Glob::parse(&format!("*.{text}")),
    }
}

fn tag(text: &str) -> Result<String, String> {
    server_name(text).map_err(|_| {
        format!("\"{text}\" is not a tag: 1 to 64 letters, digits, \".\", \"_\" or \"-\"")
    })
}

fn digest(text: &str) -> Result<u64, String> {
    let plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16)
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| {
            format!(
                "\"{text}\" is not a digest: 16 hexadecimal digits, as EXPLAIN ROUTE shows them"
            )
        })
}

fn route(text: &str) -> Result<RouteTo, String> {
    match text.split_once('=') {
        None if text == "primary" => Ok(RouteTo::Primary),
        None if text == "replica" => Ok(RouteTo::Replica),
        Some(("server", name)) => server_name(name).map(RouteTo::Server),
        Some(("group", name)) => server_name(name).map(RouteTo::Group),
        Some(("cluster", name)) => cluster(name).map(RouteTo::Cluster),
        _ => Err(format!(
            "\"{text}\" is not a place: it can be \"primary\", \"replica\", \"server=NAME\", \"group=NAME\" or \
             \"cluster=NAME\""
        )),
    }
}

fn cluster(text: &str) -> Result<String, String> {
    match text {
        "" => Err("must name a cluster".to_owned()),
        name => Ok(name.to_owned()),
    }
}
