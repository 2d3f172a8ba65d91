//! Every statement of `data/routing.tsv` is understood and routed as its label says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/corpus.rs"]
mod corpus;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use dbproxy::config::{Balance, Consistency, ReadOnlyTransactions, ServerAddress};
use dbproxy::routing::{
    Author, Freshness, Load, PinReason, Place, Reason, Route, SessionView, Target, Turn, Wish,
    decide,
};
use dbproxy::sql::fuzz::{Excuse, dangers};
use dbproxy::sql::setting::Settings;
use dbproxy::sql::{Dialect, Facts, StatementClass, classify, digest_text};
use dbproxy::topology::{Gate, Health, Lag, Role, Server, ServerId, Topology};
use proptest::prelude::*;
use tokio::time::Instant;

use corpus::{Case, corpus};

fn dialects(name: &str) -> Vec<Dialect> {
    let mysql = [Dialect::of(false, 80_044), Dialect::of(false, 90_700)];
    let maria = [
        Dialect::of(true, 100_529),
        Dialect::of(true, 101_119),
        Dialect::of(true, 120_300),
    ];
    match name {
        "any" => mysql.into_iter().chain(maria).collect(),
        "mysql" => mysql.to_vec(),
        "maria" => maria.to_vec(),
        "mysql8" => vec![mysql[0]],
        "mysql9" => vec![mysql[1]],
        "maria12" => vec![maria[2]],
        "ansi" => vec![mysql[1].with_sql_mode(b"ANSI_QUOTES")],
        "nobs" => vec![mysql[1].with_sql_mode(b"NO_BACKSLASH_ESCAPES")],
        "gbk" => vec![mysql[1].with_charset(b"gbk")],
        other => panic!("unknown dialect {other}"),
    }
}

fn server(id: u16, role: Role) -> Server {
    Server {
        id: ServerId(id),
        name: format!("db{id}").into(),
        address: ServerAddress::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 3306 + id,
        },
        weight: 1,
        group: None,
        near: false,
        role,
        health: Health::Up,
        version: None,
        identity: None,
        incarnation: 0,
        writable: role == Role::Primary,
        lag: Lag::Known(Duration::ZERO),
        position: None,
        asked_at: None,
        filters: Vec::new(),
        delay: Duration::ZERO,
        readable_since: None,
        barred: None,
        why: Arc::from("test"),
        wait_timeout: Duration::MAX,
    }
}

fn topology() -> Topology {
    Topology {
        epoch: 1,
        at: Instant::now(),
        servers: vec![
            server(0, Role::Primary),
            server(1, Role::Replica),
            server(2, Role::Replica),
        ],
        primary: Some(ServerId(0)),
        reign: None,
        gate: Gate::Open,
        greeting: None,
        max_lag: Duration::from_secs(5),
    }
}

const DEFAULT: Wish = Wish {
    place: Place::Any,
    author: Author::Hint,
    consistency: Consistency::User,
    max_lag: None,
    reads_only: false,
};

const FREE: SessionView = SessionView {
    in_transaction: false,
    reading: None,
    read_only: false,
    locks_reads: false,
    read_only_transactions: ReadOnlyTransactions::Primary,
    pinned: None,
    autocommit: true,
    wish: DEFAULT,
    previous: Some(ServerId(0)),
};

/// The round robin's place.
fn turn(count: u64) -> Turn {
    Turn {
        balance: Balance::RoundRobin,
        count,
        ..Turn::default()
    }
}

fn route(class: &StatementClass, session: &SessionView, topology: &Topology) -> Route {
    decide(
        class,
        &asked(class, session),
        topology,
        |_| Freshness::Fresh,
        |_| Load::default(),
        &Turn {
            balance: Balance::LeastConnections,
            ..turn(1)
        },
    )
}

/// With the wish of the statement's hint.
fn asked(class: &StatementClass, session: &SessionView) -> SessionView {
    let consistency = session.wish.consistency;
    SessionView {
        wish: Wish::new(class.hint, &Settings::default(), consistency),
        ..*session
    }
}

fn target_name(route: Route) -> &'static str {
    match route.target {
        Target::Primary => "primary",
        Target::Replica(_) => "replica",
        Target::Kept => "kept",
        Target::Nowhere => "nowhere",
    }
}

#[test]
fn every_statement_goes_where_its_label_says() {
    let topology = topology();
    let mut failures = String::new();
    let cases = corpus();
    assert!(cases.len() >= 1500, "{} cases", cases.len());
    for case in cases {
        for dialect in dialects(case.dialect) {
            let class = classify(&case.sql, dialect);
            let route = route(&class, &FREE, &topology);
            let kind = format!("{:?}", class.kind);
            let kind = kind.split([' ', '{']).next().unwrap_or_default();
            let found = (target_name(route), kind, format!("{:?}", class.cause));
            if found != (case.target, case.kind, case.cause.to_owned()) {
                writeln!(
                    failures,
                    "line {}: {:?}: {found:?} instead of {:?} ({:?}, maria: {})",
                    case.line,
                    String::from_utf8_lossy(&case.sql),
                    (case.target, case.kind, case.cause),
                    class.facts,
                    dialect.maria,
                )
                .unwrap();
                break;
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// What may go to a replica writes nothing and locks nothing, whatever else is known of it.
#[test]
fn replica_reads_carry_no_dangerous_fact() {
    let dangerous = [
        Facts::USER_VARIABLE,
        Facts::LAST_INSERT_ID,
        Facts::PREVIOUS_STATEMENT,
        Facts::TEMPORARY_TABLE,
        Facts::LOCKING_READ,
        Facts::INTO,
        Facts::NAMED_LOCK,
        Facts::LOCK_TABLES,
        Facts::HANDLER,
        Facts::TEXT_PREPARE,
        Facts::UNKNOWN_FUNCTION,
        Facts::CONNECTION,
        Facts::SEQUENCE,
        Facts::MAY_WRITE,
        Facts::IMPLICIT_COMMIT,
        Facts::UNTERMINATED,
        Facts::AMBIGUOUS,
        Facts::SESSION_STATE,
    ];
    for case in corpus() {
        for dialect in dialects(case.dialect) {
            let class = classify(&case.sql, dialect);
            if class.is_replica_read() {
                for fact in dangerous {
                    assert!(!class.facts.contains(fact), "line {}: {fact:?}", case.line);
                }
            }
        }
    }
}

/// Any two statements in one packet go to the primary unless both alone go to a replica.
#[test]
fn a_packet_is_no_safer_than_its_parts() {
    let topology = topology();
    let cases: Vec<&Case> = corpus()
        .iter()
        .filter(|case| case.dialect == "any")
        // What has no end goes on into what follows.
        .filter(|case| {
            !classify(&case.sql, Dialect::of(false, 90_700))
                .facts
                .intersects(Facts::UNTERMINATED.union(Facts::AMBIGUOUS))
        })
        .collect();
    let dialect = Dialect::of(false, 90_700);
    for (index, first) in cases.iter().enumerate() {
        for second in cases.iter().skip(index % 7).step_by(7) {
            let packet = [&first.sql[..], b"\n;\n", &second.sql[..]].concat();
            let replica = |sql: &[u8]| {
                let class = classify(sql, dialect);
                class.is_replica_read() || class.cause == dbproxy::sql::Cause::Empty
            };
            let class = classify(&packet, dialect);
            if class.is_replica_read() {
                assert!(
                    replica(&first.sql) && replica(&second.sql),
                    "{}",
                    String::from_utf8_lossy(&packet)
                );
            }
            let _ = route(&class, &FREE, &topology);
        }
    }
}

/// A word that can write or lock stands in no read, but for the ways that the corpus names.
#[test]
fn no_read_holds_a_word_that_writes_or_locks() {
    let mut excuses = BTreeSet::new();
    for case in corpus() {
        for dialect in dialects(case.dialect) {
            if !classify(&case.sql, dialect).is_replica_read() {
                continue;
            }
            for danger in dangers(&case.sql, dialect) {
                assert!(danger.excuse.is_some(), "line {}: {danger:?}", case.line);
                excuses.extend(danger.excuse);
            }
        }
    }
    let all = [Excuse::Name, Excuse::Function, Excuse::Shown];
    assert_eq!(excuses, BTreeSet::from(all));
}

#[test]
fn transaction_and_pin_come_before_everything() {
    let topology = topology();
    for case in corpus() {
        let class = classify(&case.sql, Dialect::default());
        let in_transaction = SessionView {
            in_transaction: true,
            ..FREE
        };
        let held = route(&class, &in_transaction, &topology);
        assert_eq!(
            (held.target, held.reason),
            (Target::Kept, Reason::InTransaction)
        );
        let pinned = SessionView {
            pinned: Some(PinReason::UserVariable),
            ..FREE
        };
        assert_eq!(route(&class, &pinned, &topology).target, Target::Kept);
        for session in [
            SessionView {
                autocommit: false,
                ..FREE
            },
            SessionView {
                wish: Wish {
                    consistency: Consistency::Strong,
                    ..DEFAULT
                },
                ..FREE
            },
        ] {
            assert!(!matches!(
                route(&class, &session, &topology).target,
                Target::Replica(_)
            ));
        }
    }
}

/// A replica that ran the statement before is asked about it, but does nothing else.
#[test]
fn what_writes_or_locks_is_not_kept_on_a_replica() {
    let topology = topology();
    let after_read = SessionView {
        previous: Some(ServerId(1)),
        ..FREE
    };
    let acts = Facts::MAY_WRITE
        .union(Facts::LOCKING_READ)
        .union(Facts::NAMED_LOCK)
        .union(Facts::SEQUENCE);
    for case in corpus() {
        for dialect in dialects(case.dialect) {
            let class = classify(&case.sql, dialect);
            if class.facts.intersects(acts) {
                let target = route(&class, &after_read, &topology).target;
                assert_eq!(target, Target::Primary, "line {}", case.line);
            }
        }
    }
}

#[test]
fn only_readable_fresh_and_near_replicas_are_chosen() {
    let read = classify(b"SELECT 1", Dialect::default());
    let fresh_on = |topology: &Topology, fresh: Option<u16>, class: &StatementClass| {
        let is_fresh = |server: &Server| match fresh.is_none_or(|id| server.id == ServerId(id)) {
            true => Freshness::Fresh,
            false => Freshness::Stale,
        };
        let route = decide(
            class,
            &asked(class, &FREE),
            topology,
            is_fresh,
            |_| Load::default(),
            &turn(5),
        );
        (route.target, route.reason.to_string())
    };
    let all = topology();
    for id in [1, 2] {
        let (target, reason) = fresh_on(&all, Some(id), &read);
        assert_eq!(target, Target::Replica(ServerId(id)));
        assert_eq!(reason, "read: a replica has every write it must see");
    }
    let (target, reason) = fresh_on(&all, Some(9), &read);
    assert_eq!(target, Target::Primary);
    assert_eq!(
        reason,
        "read: no replica is fresh enough for what it must see"
    );

    let mut lagging = topology();
    lagging.servers[1].lag = Lag::Known(Duration::from_secs(3));
    lagging.servers[2].lag = Lag::Unknown;
    assert_eq!(
        fresh_on(&lagging, None, &read).0,
        Target::Replica(ServerId(1))
    );
    let near = classify(b"/* dbproxy: max_lag=2 */ SELECT 1", Dialect::default());
    let (target, reason) = fresh_on(&lagging, None, &near);
    assert_eq!(target, Target::Primary);
    assert_eq!(
        reason,
        "read: no replica is within the lag that a rule, the hint or the session allows"
    );
    lagging.servers[1].role = Role::Spare;
    let (target, reason) = fresh_on(&lagging, None, &read);
    assert_eq!(
        (target, reason.as_str()),
        (Target::Primary, "read: no replica may serve reads now")
    );

    for (hint, expected) in [
        ("db2", Target::Replica(ServerId(2))),
        ("db0", Target::Primary),
    ] {
        let sql = format!("/* dbproxy: server={hint} */ SELECT 1");
        let class = classify(sql.as_bytes(), Dialect::default());
        let (target, reason) = fresh_on(&all, None, &class);
        assert_eq!(
            (target, reason.as_str()),
            (expected, "hint names the server")
        );
    }
    let class = classify(b"/* dbproxy: server=nobody */ SELECT 1", Dialect::default());
    assert!(matches!(fresh_on(&all, None, &class).0, Target::Replica(_)));
}

#[test]
fn a_replica_is_waited_for_only_if_none_is_fresh() {
    let read = classify(b"SELECT 1", Dialect::default());
    let placed = |one: Freshness, two: Freshness, seed: u64| {
        let freshness = |server: &Server| match server.id {
            ServerId(1) => one,
            _ => two,
        };
        let topology = topology();
        let view = asked(&read, &FREE);
        let load = |_| Load::default();
        let route = decide(&read, &view, &topology, freshness, load, &turn(seed));
        (route.target, route.reason)
    };
    use Freshness::{Fresh, Soon, Stale};
    let (one, two) = (Target::Replica(ServerId(1)), Target::Replica(ServerId(2)));
    for seed in 0..4 {
        assert_eq!(placed(Soon, Fresh, seed), (two, Reason::FreshReplica));
        assert_eq!(placed(Soon, Stale, seed), (one, Reason::SoonFresh));
        assert_eq!(
            placed(Stale, Stale, seed),
            (Target::Primary, Reason::NoFreshReplica)
        );
        let (target, reason) = placed(Soon, Soon, seed);
        assert!(target == one || target == two);
        assert_eq!(reason, Reason::SoonFresh);
    }
    assert_ne!(placed(Soon, Soon, 0).0, placed(Soon, Soon, 1).0, "by turns");
}

#[test]
fn replicas_that_are_near_go_first() {
    let read = classify(b"SELECT 1", Dialect::default());
    let placed = |near: u16, freshness: fn(ServerId) -> Freshness| {
        let mut topology = topology();
        topology.servers[usize::from(near)].near = true;
        let mut targets = Vec::new();
        for seed in 0..8 {
            let view = asked(&read, &FREE);
            let fresh = |server: &Server| freshness(server.id);
            let load = |_| Load::default();
            let route = decide(&read, &view, &topology, fresh, load, &turn(seed));
            if !targets.contains(&route.target) {
                targets.push(route.target);
            }
        }
        targets
    };
    let (one, two) = (Target::Replica(ServerId(1)), Target::Replica(ServerId(2)));
    assert_eq!(placed(1, |_| Freshness::Fresh), [one]);
    assert_eq!(placed(2, |_| Freshness::Fresh), [two]);
    // The primary's place takes nothing away from the replicas.
    assert_eq!(placed(0, |_| Freshness::Fresh).len(), 2);
    // Far away at once is better than near in a moment.
    let late = |server| match server {
        ServerId(1) => Freshness::Soon,
        _ => Freshness::Fresh,
    };
    assert_eq!(placed(1, late), [two]);
    assert_eq!(placed(1, |_| Freshness::Soon), [one]);
}

#[test]
fn digests_ignore_literals_blanks_and_comments_only() {
    let mut texts: BTreeMap<(bool, u64), String> = BTreeMap::new();
    for case in corpus() {
        for dialect in dialects(case.dialect) {
            let class = classify(&case.sql, dialect);
            let text = digest_text(&case.sql, dialect, usize::MAX);
            let known = texts
                .entry((dialect.maria, class.digest))
                .or_insert_with(|| text.clone());
            assert_eq!(*known, text, "line {}", case.line);
        }
    }
}

/// A gap between tokens written otherwise: blanks, a comment, or nothing where there was nothing.
fn gap() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(" "),
        Just("\t"),
        Just("\n"),
        Just("\r\n"),
        Just("  "),
        Just("/**/"),
        Just("/* FROM t ; ' */"),
        Just(" -- '\n"),
        Just("\n# \"\n"),
    ]
}

/// The bytes of a statement, and which of them may be spelled otherwise: those outside of quotes and comments.
fn spelling(sql: &[u8], dialect: Dialect) -> Vec<(u8, bool)> {
    let mut spelling = Vec::with_capacity(sql.len());
    let mut rest = sql;
    // In these nothing is sure to be a blank.
    let doubtful = classify(sql, dialect)
        .facts
        .intersects(Facts::UNTERMINATED.union(Facts::AMBIGUOUS))
        || sql.windows(3).any(|start| start == b"/*!")
        || sql.windows(4).any(|start| start == b"/*M!");
    while let Some((&first, tail)) = rest.split_first() {
        let fixed = match (first, tail) {
            _ if doubtful => rest.len(),
            (b'\'' | b'"' | b'`', _) => {
                let name = first == b'`' || (first == b'"' && dialect.ansi_quotes);
                let escapes = !name && !dialect.no_backslash_escapes;
                let mut end = 1;
                while rest[end] != first {
                    end += if escapes && rest[end] == b'\\' { 2 } else { 1 };
                }
                end + 1
            }
            (b'#', _) | (b'-', [b'-', 0..=b' ', ..] | [b'-']) => rest
                .iter()
                .position(|&byte| byte == b'\n' || byte == 0)
                .unwrap_or(rest.len()),
            (b'/', [b'*', body @ ..]) => 4 + body.windows(2).position(|end| end == b"*/").unwrap(),
            // The letter of `\N` counts.
            (b'\\', _) => 2,
            _ => 0,
        };
        spelling.extend(rest[..fixed].iter().map(|&byte| (byte, false)));
        rest = &rest[fixed..];
        if fixed == 0 {
            spelling.push((first, true));
            rest = tail;
        }
    }
    spelling
}

const PIECES: &[&str] = &[
    "SELECT",
    " ",
    "FOR",
    "UPDATE",
    "(",
    ")",
    ",",
    "'",
    "\"",
    "`",
    "/*",
    "*/",
    "/*!",
    "/*!50000",
    "--",
    "-- ",
    "#",
    "\n",
    "@",
    "@@",
    ".",
    ";",
    "1",
    "1e",
    "0x",
    "a",
    "f(",
    "WITH",
    "AS",
    "INSERT",
    "NULL",
    "-",
    "+",
    "?",
    "\\",
    "\0",
    "é",
    "$",
    "VALUES",
    "INTO",
    "N'",
    "x'",
    "information_schema",
    "global",
    "CREATE",
    "PROCEDURE",
    "BEGIN",
    "NOT",
    "ATOMIC",
    "",
    "LOCK IN SHARE MODE",
    " FOR SHARE ",
    "GET_LOCK(",
    "NEXTVAL (",
    "LAST_INSERT_ID/**/(",
    "@a:=",
    "REPLACE(",
    "SHOW CREATE ",
    "EXPLAIN ",
    "/*M!",
    "/*!99999",
    "/*!80000",
    "TABLE ",
    "HIGH_PRIORITY ",
    "DEFAULT(",
    ":=",
    "--\t",
    "CALL ",
    "t.",
    "DROP",
    "SHOW ",
    "*/*",
    "/",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Other blanks, other comments and another case never make a replica read out of anything else.
    #[test]
    fn spelling_never_moves_a_statement_to_a_replica(
        index in any::<prop::sample::Index>(),
        gaps in prop::collection::vec(gap(), 8),
        flips in prop::collection::vec(any::<bool>(), 16),
        between in any::<bool>(),
    ) {
        let cases = corpus();
        let case = index.get(cases);
        let dialect = dialects(case.dialect)[0];
        let before = classify(&case.sql, dialect);
        let mut respelled = Vec::new();
        let mut turn = 0;
        for (place, (byte, free)) in spelling(&case.sql, dialect).into_iter().enumerate() {
            let gap = gaps[turn % gaps.len()].as_bytes();
            if free && byte == b' ' {
                respelled.extend_from_slice(gap);
                turn += 1;
            } else if free && between && matches!(byte, b'(' | b')' | b',') {
                respelled.extend_from_slice(gap);
                respelled.push(byte);
                respelled.extend_from_slice(gap);
                turn += 1;
            } else if free && byte.is_ascii_alphabetic() && flips[place % flips.len()] {
                respelled.push(byte ^ 0x20);
            } else {
                respelled.push(byte);
            }
        }
        let after = classify(&respelled, dialect);
        let text = String::from_utf8_lossy(&respelled);
        prop_assert!(before.is_replica_read() || !after.is_replica_read(), "{}", text);
        // A blank before `(` makes other functions of some.
        if !between {
            prop_assert_eq!(before.cause, after.cause, "{}", text);
        }
    }

    /// A comment in front or behind changes nothing.
    #[test]
    fn comments_around_change_nothing(index in any::<prop::sample::Index>()) {
        let cases = corpus();
        let case = index.get(cases);
        let dialect = dialects(case.dialect)[0];
        let before = classify(&case.sql, dialect);
        let wrapped = [&b"/* x */ -- y\n# z\n"[..], &case.sql].concat();
        let after = classify(&wrapped, dialect);
        prop_assert_eq!((before.kind, before.facts, before.cause, before.digest), (after.kind, after.facts, after.cause, after.digest));
    }

    /// Any bytes are classified without a panic, and the digest is that of the text.
    #[test]
    fn any_bytes_are_classified(bytes in prop::collection::vec(any::<u8>(), 0..300), mode in 0u8..16) {
        dbproxy::sql::fuzz::run(&[&[mode], &bytes[..]].concat());
    }

    /// Statements of the corpus cut and put together anywhere, with something between.
    #[test]
    fn any_splices_are_classified(
        parts in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index, prop::sample::Index)>(), 2..4),
        mode in 0u8..16,
    ) {
        let mut spliced = vec![mode];
        for (index, cut, piece) in parts {
            let sql = &index.get(corpus()).sql;
            let cut = cut.index(sql.len() + 1);
            spliced.truncate(1 + cut.min(spliced.len() - 1));
            spliced.extend_from_slice(piece.get(PIECES).as_bytes());
            spliced.extend_from_slice(&sql[cut..]);
        }
        dbproxy::sql::fuzz::run(&spliced);
    }

    /// Pieces of SQL in any order.
    #[test]
    fn any_pieces_are_classified(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40),
        mode in 0u8..16,
    ) {
        dbproxy::sql::fuzz::run(&[&[mode], pieces.concat().as_bytes()].concat());
    }
}
