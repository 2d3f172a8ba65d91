//! Extended capabilities: the same bytes through the proxy as from the server, in every form of commands and answers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::Flavor;

use support::Rig;
use support::pair::{
    BULK, CLOSE, LONG_DATA, Pair, RESET, execute, fetch, prepare, query, shown, with_id,
};
use support::raw::{Raw, capability};

on_both_flavors!(
    what_servers_have_is_offered,
    answers_have_the_form_that_was_asked_for,
    statements_of_one_text_are_independent,
    cursors_stay_open_among_many_statements,
    long_executions_bring_their_types_once,
    an_execution_that_cannot_be_answered_does_not_run,
);

/// The one prepared last.
const LAST: u32 = u32::MAX;

const MYSQL: u32 = capability::OPTIONAL_RESULTSET_METADATA | capability::QUERY_ATTRIBUTES;
const MARIADB: u32 = capability::PROGRESS
    | capability::BULK
    | capability::EXTENDED_METADATA
    | capability::CACHE_METADATA;

async fn numbers(rig: &Rig, schema: &str) {
    rig.cluster
        .primary()
        .run(&format!(
            "CREATE TABLE {schema}.numbers (n INT PRIMARY KEY, j JSON, g POINT, t VARCHAR(20)); \
             INSERT INTO {schema}.numbers VALUES (1, '[1]', POINT(1, 1), 'one'), (2, '{{}}', NULL, 'two'), (3, NULL, NULL, 'three')"
        ))
        .await
        .unwrap();
    rig.cluster.caught_up().await.unwrap();
}

async fn what_servers_have_is_offered(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let direct = Raw::tcp(rig.cluster.primary().port()).await.unwrap();
    let proxied = Raw::tcp(rig.proxy.port()).await.unwrap();
    let (standard, extended) = match flavor {
        Flavor::MySql => (MYSQL, 0),
        Flavor::MariaDb => (0, MARIADB),
    };
    for raw in [&direct, &proxied] {
        assert_eq!(raw.greeting.capabilities & MYSQL, standard);
        assert_eq!(raw.greeting.extended & MARIADB, extended);
    }
}

async fn answers_have_the_form_that_was_asked_for(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("extended_form").await;
    numbers(rig, &schema).await;
    let forms: &[(u32, u32)] = match flavor {
        Flavor::MySql => &[
            (0, 0),
            (capability::QUERY_ATTRIBUTES, 0),
            (capability::OPTIONAL_RESULTSET_METADATA, 0),
            (MYSQL | capability::DEPRECATE_EOF, 0),
        ],
        Flavor::MariaDb => &[
            (0, 0),
            (0, capability::EXTENDED_METADATA),
            (
                capability::DEPRECATE_EOF,
                MARIADB & !capability::CACHE_METADATA,
            ),
        ],
    };
    for &(standard, extended) in forms {
        let mut pair = Pair::new(rig, &schema, standard, extended).await;
        for sql in [
            "SELECT * FROM numbers ORDER BY n",
            "SELECT 1 WHERE FALSE",
            "SELECT 1; SELECT 2, 3; DO 1",
            "SELECT * FROM nothing",
            "SET time_zone = '+03:00'",
            "SELECT @@time_zone",
            "UPDATE numbers SET n = 4 WHERE n = 4",
            "DELETE FROM numbers WHERE n = 9",
            "INSERT INTO numbers VALUES (1, NULL, NULL, '')",
            "CALL no_such_procedure()",
        ] {
            pair.query(sql).await;
        }
        if standard & capability::OPTIONAL_RESULTSET_METADATA != 0 {
            for sql in [
                "SET resultset_metadata = NONE",
                "SELECT n, t FROM numbers ORDER BY n",
                "SELECT 1; SELECT 2, 3",
                "SET resultset_metadata = FULL",
                "SELECT n FROM numbers",
            ] {
                pair.query(sql).await;
            }
        }
        let prepared = pair
            .same(&prepare("SELECT n, ? FROM numbers ORDER BY n"))
            .await;
        assert_eq!(prepared[0].1[..5], [0, 1, 0, 0, 0]);
        // Without names where they are expected, the server finds nonsense: sent only in their own form.
        let named = standard & capability::QUERY_ATTRIBUTES != 0;
        let types: &[u8] = if named { &[3, 0, 0] } else { &[3, 0] };
        let first = [&[0, 1][..], types, &[7, 0, 0, 0]].concat();
        pair.same(&execute(1, 0, &first)).await;
        let again = [0, 0, 8, 0, 0, 0];
        pair.same(&execute(1, 0, &again)).await;
        pair.same(&execute(1, 1, &again)).await;
        pair.same(&fetch(1, 2)).await;
        pair.same(&fetch(1, 2)).await;
        pair.same(&fetch(1, 2)).await;
        if named {
            let counted = [&[1, 0, 1][..], types, &[9, 0, 0, 0]].concat();
            pair.same(&execute(1, 8, &counted)).await;
            pair.same(&execute(1, 8, &[1, 0, 0, 10, 0, 0, 0])).await;
            let attribute = [
                &[2, 0, 1][..],
                types,
                b"\xfe\0\x01a",
                &[9, 0, 0, 0],
                b"\x01b",
            ];
            pair.same(&execute(1, 8, &attribute.concat())).await;
        }
        pair.same(&with_id(CLOSE, 1, &[])).await;
        pair.same(&execute(1, 0, &[])).await;
        pair.same(&with_id(RESET, 1, &[])).await;
        pair.same(&fetch(1, 1)).await;
    }
}

async fn statements_of_one_text_are_independent(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("extended_copies").await;
    numbers(rig, &schema).await;
    let mut pair = Pair::new(rig, &schema, 0, 0).await;
    for id in 1..=3 {
        let prepared = pair
            .same(&prepare("SELECT n, ? FROM numbers ORDER BY n"))
            .await;
        assert_eq!(prepared[0].1[..5], [0, id, 0, 0, 0]);
    }
    let value = |value: u8| [0, 1, 3, 0, value, 0, 0, 0];
    pair.same(&execute(1, 1, &value(11))).await;
    pair.same(&execute(2, 1, &value(22))).await;
    pair.same(&fetch(1, 1)).await;
    pair.same(&fetch(2, 2)).await;
    pair.same(&with_id(LONG_DATA, 3, b"\0\0early")).await;
    let prepared = pair
        .same(&prepare("SELECT n, ? FROM numbers ORDER BY n"))
        .await;
    assert_eq!(prepared[0].1[..5], [0, 4, 0, 0, 0]);
    pair.same(&fetch(1, 1)).await;
    pair.same(&with_id(CLOSE, 1, &[])).await;
    pair.same(&fetch(1, 1)).await;
    pair.same(&fetch(2, 2)).await;
    pair.same(&execute(4, 0, &value(44))).await;
    pair.same(&execute(3, 0, &[0, 1, 0xfc, 0])).await;
    pair.same(&with_id(RESET, 2, &[])).await;
    pair.same(&fetch(2, 2)).await;
    pair.same(&execute(2, 1, &value(5))).await;
    pair.same(&fetch(2, 9)).await;
}

async fn cursors_stay_open_among_many_statements(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("extended_cursors").await;
    numbers(rig, &schema).await;
    let mut pair = Pair::new(rig, &schema, 0, 0).await;
    for number in 1..=3 {
        pair.same(&prepare(&format!(
            "SELECT n, {number} FROM numbers ORDER BY n"
        )))
        .await;
        pair.same(&execute(number, 1, &[])).await;
        pair.same(&fetch(number, 1)).await;
    }
    // More than are kept on one server connection.
    for number in 4..100 {
        pair.same(&prepare(&format!("SELECT {number}"))).await;
        pair.same(&execute(number, 0, &[])).await;
    }
    for number in [1, 2, 3, 1, 2, 3] {
        pair.same(&fetch(number, 1)).await;
    }
    pair.same(&execute(50, 0, &[])).await;
}

/// The value of an attribute, as the component makes it visible.
const ATTRIBUTE: &str = "SELECT mysql_query_attribute_string('who'), @@time_zone";

#[tokio::test]
async fn attributes_reach_the_server() {
    let rig = Rig::shared(Flavor::MySql).await;
    // Asked about in transactions: on the primary.
    rig.cluster
        .primary()
        .run("INSTALL COMPONENT 'file://component_query_attributes'")
        .await
        .unwrap();
    let mut pair = Pair::new(rig, "test", capability::QUERY_ATTRIBUTES, 0).await;
    let attributes = b"\x01\x01\0\x01\xfe\0\x03who\x05alice";
    let packets = pair
        .same(&[&[0x03], &attributes[..], ATTRIBUTE.as_bytes()].concat())
        .await;
    assert!(shown(&packets).contains("alice"), "{}", shown(&packets));
    for sql in ["SET time_zone = '+02:00'", ATTRIBUTE, "SELECT 1"] {
        let payload = [&[0x03], &attributes[..], sql.as_bytes()].concat();
        pair.same(&payload).await;
    }
    // Rewritten for the client's own id, and still with the attribute.
    let text = "SELECT mysql_query_attribute_string('who'), CONNECTION_ID()";
    let packets = pair.raws[1]
        .exchange(&[&[0x03], &attributes[..], text.as_bytes()].concat())
        .await;
    let id = pair.raws[1].greeting.connection.to_string();
    assert!(shown(&packets).contains("alice"), "{}", shown(&packets));
    assert!(shown(&packets).contains(&id), "{}", shown(&packets));
    pair.same(&prepare(ATTRIBUTE)).await;
    let none = pair.same(&execute(1, 0, &[])).await;
    assert!(!shown(&none).contains("alice"));
    let counted = [&[1, 0, 1][..], b"\xfe\0\x03who\x05carol"].concat();
    let packets = pair.same(&execute(1, 8, &counted)).await;
    assert!(shown(&packets).contains("carol"), "{}", shown(&packets));
    // On a connection that is new to the statement, behind a change of state.
    pair.same(&[&[0x03, 0, 1], &b"SET time_zone = '+04:00'"[..]].concat())
        .await;
    let packets = pair.same(&execute(1, 8, &counted)).await;
    assert!(shown(&packets).contains("+04:00"), "{}", shown(&packets));
    for cut in [2, 5, 9] {
        pair.same(&[&[0x03], &attributes[..cut]].concat()).await;
    }
}

/// One packet holds less than 16 MiB: its largest payload.
const LARGEST: usize = 0xff_ffff;

/// COM_STMT_EXECUTE with one string, `size` bytes in all; `counted`: as clients with query attributes send it.
fn long_execution(statement: u32, size: usize, flags: u8, types: bool, counted: bool) -> Vec<u8> {
    let mut parameters: Vec<u8> = if counted { vec![1] } else { Vec::new() };
    parameters.extend_from_slice(&[0, u8::from(types)]);
    match (types, counted) {
        (true, true) => parameters.extend_from_slice(b"\xfd\x00\x04name"),
        (true, false) => parameters.extend_from_slice(&[0xfd, 0]),
        (false, _) => {}
    }
    parameters.push(0xfe);
    let value = size - 10 - parameters.len() - 8;
    parameters.extend_from_slice(&(value as u64).to_le_bytes());
    parameters.resize(size - 10, b'z');
    // Some announce the number of parameters, others do not.
    let announced = if counted && types { 8 } else { 0 };
    execute(statement, flags | announced, &parameters)
}

async fn long_executions_bring_their_types_once(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let forms: &[u32] = match flavor {
        Flavor::MySql => &[0, capability::QUERY_ATTRIBUTES],
        Flavor::MariaDb => &[0],
    };
    for &standard in forms {
        let counted = standard != 0;
        let mut pair = Pair::new(rig, "test", standard, 0).await;
        // One for each kind: MySQL 9 itself loses the rows of one that had a cursor first and then has none.
        for _ in [0, 1] {
            pair.same(&prepare("SELECT LENGTH(?), 7")).await;
        }
        for (size, types) in [
            (1000, true),
            (2 << 20, false),
            (2 << 20, true),
            (LARGEST - 100, false),
            (LARGEST, false),
            (LARGEST + 1, false),
            (2 * LARGEST, true),
            (2 * LARGEST, false),
            (1000, false),
        ] {
            for (statement, flags) in [(1, 0), (2, 1)] {
                let execution = long_execution(statement, size, flags, types, counted);
                let packets = pair.same(&execution).await;
                assert_ne!(packets[0].1[0], 0xff, "{}", shown(&packets));
                if flags == 1 {
                    // The cursor is open, whichever connection it is on.
                    let packets = pair.same(&fetch(2, 5)).await;
                    assert_eq!(packets[0].1[0], 0, "{}", shown(&packets));
                }
            }
        }
    }
}

async fn an_execution_that_cannot_be_answered_does_not_run(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let schema = rig.schema("extended_uneven").await;
    let mut pair = Pair::new(rig, &schema, 0, 0).await;
    let create = query(&pair.raws[1], "CREATE TABLE t (n INT)");
    pair.one(1, &create).await;
    pair.one(1, &prepare("INSERT INTO t VALUES (LENGTH(?))"))
        .await;
    let told = pair.one(1, &long_execution(1, 1000, 0, true, false)).await;
    assert_eq!(told[0].1[0], 0, "{}", shown(&told));
    // With its types it takes one packet more than without.
    let refused = pair
        .one(1, &long_execution(1, LARGEST - 1, 0, false, false))
        .await;
    assert!(
        shown(&refused).contains("one more packet"),
        "{}",
        shown(&refused)
    );
    let mut direct = Raw::app(rig.cluster.primary().port()).await;
    let count = format!("SELECT COUNT(*) FROM {schema}.t");
    let rows = direct.rows(&count).await.unwrap();
    assert_eq!(rows, [[Some("1".to_owned())]]);
}

#[tokio::test]
async fn long_bulks_bring_their_types_once() {
    let rig = Rig::shared(Flavor::MariaDb).await;
    let schema = rig.schema("extended_long_bulk").await;
    let create = format!("CREATE TABLE {schema}.t (t LONGTEXT)");
    rig.cluster.primary().run(&create).await.unwrap();
    let mut pair = Pair::new(rig, &schema, 0, capability::BULK).await;
    pair.same(&prepare("INSERT INTO t VALUES (?)")).await;
    let row = [
        &[0, 0xfd][..],
        &60_000_u32.to_le_bytes()[..3],
        &[b'r'; 60_000],
    ]
    .concat();
    for (rows, types) in [
        (1, true),
        (40, false),
        (300, false),
        (300, true),
        (1, false),
    ] {
        let head: &[u8] = if types { &[128, 0, 0xfc, 0] } else { &[0, 0] };
        let packets = pair
            .same(&with_id(BULK, 1, &[head, &row.repeat(rows)].concat()))
            .await;
        assert_eq!(
            packets[0].1[..2],
            [0, if rows == 300 { 0xfc } else { rows as u8 }]
        );
    }
}

#[tokio::test]
async fn rows_come_in_bulk() {
    let rig = Rig::shared(Flavor::MariaDb).await;
    let schema = rig.schema("extended_bulk").await;
    let create = format!(
        "CREATE TABLE {schema}.t (id INT AUTO_INCREMENT PRIMARY KEY, n INT, t VARCHAR(300))"
    );
    rig.cluster.primary().run(&create).await.unwrap();
    let mut pair = Pair::new(rig, &schema, 0, MARIADB & !capability::CACHE_METADATA).await;
    let row = |number: u8| {
        let text = [&[0, 3][..], &[b'a' + number; 3]].concat();
        [&[0, number, 0, 0, 0][..], &text].concat()
    };
    let rows = [row(1), row(2), vec![1, 1], row(3)].concat();
    let types = [3, 0, 0xfe, 0];
    // One table for both: each finds it empty.
    for (number, command) in [
        "INSERT INTO t (n, t) VALUES (?, ?)",
        "INSERT INTO t (n, t) VALUES (?, ?) RETURNING n",
    ]
    .into_iter()
    .enumerate()
    {
        let id = number as u32 + 1;
        let mut heard = Vec::new();
        for side in [0, 1] {
            let truncate = query(&pair.raws[0], "TRUNCATE t");
            let all = query(&pair.raws[0], "SELECT n, t FROM t ORDER BY id");
            pair.one(side, &truncate).await;
            let mut packets = pair.one(side, &prepare(command)).await;
            for request in [
                with_id(BULK, LAST, &[&[128, 0], &types[..], &rows].concat()),
                with_id(BULK, id, &[&[128, 0], &types[..], &rows].concat()),
                with_id(BULK, id, &[&[0, 0], &rows[..]].concat()),
                with_id(BULK, id, &[&[0, 0], &row(1)[..]].concat()),
                with_id(BULK, LAST, &[128, 0, 3]),
                with_id(BULK, 4711, &[&[128, 0], &types[..], &rows].concat()),
                with_id(BULK, LAST, &[]),
                all.clone(),
            ] {
                packets.extend(pair.one(side, &request).await);
            }
            heard.push(shown(&packets));
        }
        assert_eq!(heard[1], heard[0]);
        assert!(heard[0].contains("ddd"), "{}", heard[0]);
    }
}

#[tokio::test]
async fn the_last_prepared_needs_no_id() {
    let rig = Rig::shared(Flavor::MariaDb).await;
    let mut pair = Pair::new(rig, "test", 0, 0).await;
    let value = [0, 1, 3, 0, 9, 0, 0, 0];
    pair.same(&execute(LAST, 0, &value)).await;
    pair.same(&prepare("SELECT 1 + ?")).await;
    pair.same(&execute(LAST, 0, &value)).await;
    pair.same(&prepare("SELECT 2 + ?")).await;
    pair.same(&execute(LAST, 0, &value)).await;
    pair.same(&execute(1, 0, &value)).await;
    pair.same(&prepare("SELEKT")).await;
    pair.same(&execute(LAST, 0, &value)).await;
    pair.same(&prepare("SELECT 3 + ?")).await;
    pair.same(&with_id(LONG_DATA, LAST, b"\0\x0012")).await;
    pair.same(&execute(LAST, 0, &[0, 1, 0xfc, 0])).await;
    pair.same(&with_id(RESET, LAST, &[])).await;
    pair.same(&with_id(CLOSE, LAST, &[])).await;
    pair.same(&execute(LAST, 0, &value)).await;
    // Both in one write, as drivers do.
    for raw in &mut pair.raws {
        raw.send(&prepare("SELECT 4 + ?")).await;
        let answer = raw.exchange(&execute(LAST, 0, &value)).await;
        let text = shown(&answer);
        assert!(text.contains("\\r\\x00\\x00\\x00\\x00"), "{text}");
    }
}

#[tokio::test]
async fn definitions_follow_where_they_could_be_cached() {
    let rig = Rig::shared(Flavor::MariaDb).await;
    let schema = rig.schema("extended_cached").await;
    numbers(rig, &schema).await;
    for standard in [0, capability::DEPRECATE_EOF] {
        let mut pair = Pair::new(rig, &schema, standard, capability::CACHE_METADATA).await;
        for sql in [
            "SELECT * FROM numbers",
            "SELECT 1; SELECT 2",
            "DO 1",
            "SELEKT",
        ] {
            pair.query(sql).await;
        }
        pair.one(1, &prepare("SELECT n, t FROM numbers ORDER BY n"))
            .await;
        // With a cursor too.
        let packets = pair.one(1, &execute(1, 1, &[])).await;
        assert_eq!(packets[0], (1, vec![2, 1]), "{}", shown(&packets));
        for _ in 0..3 {
            let packets = pair.one(1, &execute(1, 0, &[])).await;
            // Two columns, and their definitions.
            assert_eq!(packets[0], (1, vec![2, 1]));
            assert_eq!(packets[1].1[..4], *b"\x03def");
            let end = usize::from(standard == 0);
            assert_eq!(packets.len(), 3 + end + 3 + 1, "{}", shown(&packets));
        }
    }
}
