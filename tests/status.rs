//! What an answer says besides its rows is what the servers themselves say: flags, counts, insert ids, messages, column
//! definitions, errors and changes of state, byte by byte, whichever connection of whichever server has answered.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use dbproxy::cli::demo::cluster::Flavor;
use tokio::sync::OnceCell;

use support::raw::{Raw, capability, status_of_ok};
use support::{Options, Rig, eventually};

on_both_flavors!(
    text,
    text_for_clients_that_follow_their_state,
    prepared,
    prepared_for_clients_that_follow_their_state,
    cursors,
    trackers_are_the_clients_own,
    a_reset_forgets_the_trackers,
    answers_of_the_proxy_know_the_session,
    a_killed_connection_keeps_the_flags,
    the_greeting,
);

const MODERN: u32 = capability::USUAL | capability::DEPRECATE_EOF | capability::SESSION_TRACK;

/// A primary and two replicas behind a proxy with so few connections that sessions have to share them.
async fn rig(flavor: Flavor) -> &'static Rig {
    static MARIADB: OnceCell<Rig> = OnceCell::const_new();
    static MYSQL: OnceCell<Rig> = OnceCell::const_new();
    let cell = match flavor {
        Flavor::MariaDb => &MARIADB,
        Flavor::MySql => &MYSQL,
    };
    cell.get_or_init(async || {
        let options = Options {
            sections: "[limits]\nserver_connections = 12\n".to_owned(),
            ..Options::default()
        };
        Rig::start(flavor, 2, &options).await
    })
    .await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Prepared,
    Cursor,
}

/// One statement and every packet of its answer.
type Seen = Vec<(String, Vec<Vec<u8>>)>;

/// Runs the script in a schema of its own.
async fn run(port: u16, form: Form, capabilities: u32, schema: &str) -> Seen {
    let mut raw = Raw::tcp(port).await.unwrap();
    raw.login("app", "app", None, capabilities).await.unwrap();
    for name in [schema.to_owned(), format!("{schema}_other")] {
        raw.execute(&format!("DROP DATABASE IF EXISTS {name}"))
            .await;
        raw.execute(&format!("CREATE DATABASE {name}")).await;
    }
    let mut seen = Vec::new();
    for line in include_str!("data/status.sql").lines() {
        let sql = line.replace("{s}", schema);
        let packets = match form {
            Form::Text => {
                raw.query(&sql).await;
                raw.answer(b"5\n6\n").await
            }
            Form::Prepared | Form::Cursor => prepared_answer(&mut raw, &sql, form).await,
        };
        seen.push((sql, packets));
    }
    seen
}

/// Prepares a statement, executes it, reads a cursor to its end, and closes it.
async fn prepared_answer(raw: &mut Raw, sql: &str, form: Form) -> Vec<Vec<u8>> {
    let modern = raw.capabilities & capability::DEPRECATE_EOF != 0;
    raw.command(0x16, sql.as_bytes()).await;
    let mut packets = vec![raw.packet().await.unwrap()];
    if packets[0][0] == 0xff {
        return packets;
    }
    let id: [u8; 4] = packets[0][1..5].try_into().unwrap();
    // Ids are the proxy's own.
    packets[0][1..5].fill(0);
    for at in [7, 5] {
        let count = u16::from_le_bytes([packets[0][at], packets[0][at + 1]]);
        for _ in 0..count + u16::from(count > 0 && !modern) {
            packets.push(raw.packet().await.unwrap());
        }
    }
    let with_id = |code: u8, rest: &[u8]| [&[code][..], &id, rest].concat();
    let flags = u8::from(form == Form::Cursor);
    raw.send(&with_id(0x17, &[flags, 1, 0, 0, 0])).await;
    packets.extend(raw.answer(b"5\n6\n").await);
    let opened = |end: &[u8]| end[0] == 0xfe && end.len() < 9 && end[3] & 0x40 != 0;
    while form == Form::Cursor && opened(&packets[packets.len() - 1]) {
        raw.send(&with_id(0x1c, &[2, 0, 0, 0])).await;
        loop {
            packets.push(raw.packet().await.unwrap());
            if matches!(packets[packets.len() - 1][0], 0xfe | 0xff) {
                break;
            }
        }
        // LAST_ROW_SENT
        if packets[packets.len() - 1][3] & 0x80 != 0 {
            break;
        }
    }
    raw.send(&with_id(0x1a, &[])).await;
    packets.push(raw.packet().await.unwrap());
    raw.send(&with_id(0x19, &[])).await;
    packets
}

/// The differences that are allowed.
fn normalized(flavor: Flavor, sql: &str, mut packet: Vec<u8>) -> Vec<u8> {
    // MariaDB tells the variables of SET NAMES in the order of a hash table, which has one more for the proxy.
    if flavor == Flavor::MariaDb && sql.starts_with("set names") {
        packet.sort_unstable();
    }
    // And its EOF packets have a flag for changes of which an EOF packet cannot tell, such as a position.
    if flavor == Flavor::MariaDb && packet.len() == 5 && packet[0] == 0xfe {
        packet[4] &= !0x40;
    }
    packet
}

/// Runs the script with the primary itself, and in three sessions at once through the proxy, and compares.
async fn compare(flavor: Flavor, form: Form, capabilities: u32, name: &str) {
    let rig = rig(flavor).await;
    let through = async |number: u8| {
        let schema = format!("status_{name}{number}");
        let direct = run(rig.cluster.primary().port(), form, capabilities, &schema).await;
        let proxied = run(rig.proxy.port(), form, capabilities, &schema).await;
        for ((sql, direct), (_, proxied)) in direct.into_iter().zip(proxied) {
            let normalized = |packets: Vec<Vec<u8>>| -> Vec<String> {
                packets
                    .into_iter()
                    .map(|packet| normalized(flavor, &sql, packet).escape_ascii().to_string())
                    .collect()
            };
            assert_eq!(normalized(proxied), normalized(direct), "{sql}");
        }
    };
    tokio::join!(through(1), through(2), through(3));
}

async fn text(flavor: Flavor) {
    compare(flavor, Form::Text, capability::USUAL, "text").await;
}

async fn text_for_clients_that_follow_their_state(flavor: Flavor) {
    compare(flavor, Form::Text, MODERN, "track").await;
}

async fn prepared(flavor: Flavor) {
    compare(flavor, Form::Prepared, capability::USUAL, "prep").await;
}

async fn prepared_for_clients_that_follow_their_state(flavor: Flavor) {
    compare(flavor, Form::Prepared, MODERN, "follow").await;
}

async fn cursors(flavor: Flavor) {
    compare(flavor, Form::Cursor, capability::USUAL, "cursor").await;
}

/// Text without what differs from one run to the next: positions and counters.
fn without_digits(packet: &[u8]) -> String {
    let text = packet.escape_ascii().to_string();
    text.chars()
        .map(|c| if c.is_ascii_digit() { '#' } else { c })
        .collect()
}

async fn trackers_are_the_clients_own(flavor: Flavor) {
    let rig = rig(flavor).await;
    let schema = rig.schema("status_trackers").await;
    let mut statements = vec![
        "SELECT @@session.session_track_state_change, @@session.session_track_schema".to_owned(),
        "SHOW VARIABLES LIKE 'session_track_state_change'".to_owned(),
        "SET session_track_state_change=1".to_owned(),
        "SET time_zone='+01:00'".to_owned(),
        format!("USE {schema}"),
        "CREATE TABLE t (a INT)".to_owned(),
        "INSERT INTO t VALUES (1)".to_owned(),
        "SET session_track_schema=0".to_owned(),
        format!("USE {schema}"),
        "SET session_track_state_change=0".to_owned(),
        "SET @x=1".to_owned(),
        "SET session_track_system_variables='group_concat_max_len'".to_owned(),
        "SET group_concat_max_len=2048".to_owned(),
        "SET time_zone='+02:00'".to_owned(),
        "INSERT INTO t VALUES (2)".to_owned(),
    ];
    if flavor == Flavor::MySql {
        statements.extend(
            [
                "SET session_track_transaction_info='CHARACTERISTICS'",
                "START TRANSACTION READ ONLY",
                "SELECT * FROM t",
                "COMMIT",
                "SET session_track_gtids='OWN_GTID'",
                "INSERT INTO t VALUES (3)",
                "SET session_track_gtids='OFF'",
                "INSERT INTO t VALUES (4)",
            ]
            .map(str::to_owned),
        );
    } else {
        statements.extend(
            [
                "SET session_track_system_variables='last_gtid'",
                "INSERT INTO t VALUES (3)",
                "START TRANSACTION",
                "INSERT INTO t VALUES (4)",
                "COMMIT",
            ]
            .map(str::to_owned),
        );
    }
    let mut seen = Vec::new();
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        rig.schema("status_trackers").await;
        let mut raw = Raw::tcp(port).await.unwrap();
        // MySQL's own clients have attributes in front of each statement.
        let attributes = match flavor {
            Flavor::MySql => capability::QUERY_ATTRIBUTES,
            Flavor::MariaDb => 0,
        };
        raw.login("app", "app", None, MODERN | attributes)
            .await
            .unwrap();
        let mut answers = Vec::new();
        for sql in &statements {
            let attributes = if attributes == 0 { "" } else { "\0\x01" };
            raw.query(&format!("{attributes}{sql}")).await;
            let answer: Vec<String> = raw
                .answer(b"")
                .await
                .iter()
                .map(|p| without_digits(p))
                .collect();
            answers.push((sql.clone(), answer));
        }
        seen.push(answers);
    }
    for (direct, proxied) in seen[0].iter().zip(&seen[1]) {
        assert_eq!(proxied, direct);
    }
}

async fn a_reset_forgets_the_trackers(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
    raw.login("app", "app", None, MODERN).await.unwrap();
    raw.execute("SET session_track_state_change=1").await;
    let told = raw.execute("SET sql_notes=0").await;
    assert!(status_of_ok(&told) & 0x4000 != 0, "{told:?}");
    raw.command(0x1f, b"").await;
    raw.ok().await.unwrap();
    let told = raw.execute("SET sql_notes=0").await;
    assert!(status_of_ok(&told) & 0x4000 == 0, "{told:?}");
    // Nor does the next session find them, nor does a write's position go unheard.
    let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
    raw.login("app", "app", None, MODERN).await.unwrap();
    let told = raw.execute("SET sql_notes=1").await;
    assert!(status_of_ok(&told) & 0x4000 == 0, "{told:?}");
}

/// The flags of the answer to a ping, which a session without a connection of its own gets from the proxy.
async fn flags(raw: &mut Raw) -> u16 {
    raw.command(0x0e, b"").await;
    status_of_ok(&raw.packet().await.unwrap())
}

async fn answers_of_the_proxy_know_the_session(flavor: Flavor) {
    let rig = rig(flavor).await;
    let mut seen = Vec::new();
    for port in [rig.cluster.primary().port(), rig.proxy.port()] {
        let mut raw = Raw::app(port).await;
        let mut found = vec![flags(&mut raw).await];
        for sql in [
            "SET autocommit=0",
            "SET sql_mode='NO_BACKSLASH_ESCAPES'",
            "SET autocommit=1",
            "SET sql_mode=''",
            "START TRANSACTION",
            "COMMIT",
            "START TRANSACTION READ ONLY",
            "ROLLBACK",
            "CREATE DATABASE IF NOT EXISTS status_dropped",
            "USE status_dropped",
            "DROP DATABASE status_dropped",
        ] {
            raw.execute(sql).await;
            found.push(flags(&mut raw).await);
        }
        raw.rows("SELECT DATABASE() IS NULL").await.unwrap();
        raw.command(0x1f, b"").await;
        found.push(status_of_ok(&raw.packet().await.unwrap()));
        seen.push(found);
    }
    assert_eq!(seen[1], seen[0]);
}

async fn a_killed_connection_keeps_the_flags(flavor: Flavor) {
    let rig = rig(flavor).await;
    // Connections of others are not to be killed.
    let user = "status_killed";
    rig.account(user).await;
    let mut raw = Raw::tcp(rig.proxy.port()).await.unwrap();
    raw.login(user, user, None, capability::USUAL)
        .await
        .unwrap();
    raw.execute("SET autocommit=0").await;
    raw.execute("SET sql_mode='NO_BACKSLASH_ESCAPES'").await;
    let before = flags(&mut raw).await;
    for server in rig.cluster.servers() {
        let kill = "SELECT GROUP_CONCAT(CONCAT('KILL ', id) SEPARATOR ';') FROM information_schema.processlist \
                    WHERE user = 'status_killed' AND command = 'Sleep'";
        // Some may have ended meanwhile.
        if let Some(kills) = server
            .first::<Option<String>>(kill)
            .await
            .unwrap_or_default()
        {
            for kill in kills.split(';') {
                let _ = server.run(kill).await;
            }
        }
    }
    eventually("the session to go on", async || {
        raw.query("SELECT 1").await;
        raw.result().await.is_ok()
    })
    .await;
    assert_eq!(flags(&mut raw).await, before);
    assert_eq!(
        raw.rows("SELECT @@autocommit, 'a\\b'").await.unwrap()[0][1].as_deref(),
        Some("a\\b")
    );
}

async fn the_greeting(flavor: Flavor) {
    let rig = rig(flavor).await;
    let direct = Raw::tcp(rig.cluster.primary().port())
        .await
        .unwrap()
        .greeting;
    let proxied = Raw::tcp(rig.proxy.port()).await.unwrap().greeting;
    assert_eq!(proxied.version, direct.version);
    assert_eq!(proxied.charset, direct.charset);
    assert_eq!(proxied.status, direct.status);
    assert_eq!(proxied.plugin, direct.plugin);
    // Nothing is offered that the servers do not have, but for TLS, which is the proxy's own.
    let offered = proxied.capabilities & !capability::TLS;
    assert_eq!(offered & !direct.capabilities, 0);
}
