//! Compression to clients and to servers, in every combination, and what clients can do wrong with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use dbproxy::cli::demo::cluster::Flavor;
use flate2::write::ZlibEncoder;
use mysql_async::prelude::Queryable;
use mysql_async::{Compression, Conn, OptsBuilder, WhiteListFsHandler};
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use support::raw::{Raw, capability};
use support::{Options, Proxy, Rig, SOON, application, eventually, one, output};

on_both_flavors!(
    scripts_and_shells_work_compressed,
    servers_are_spoken_to_compressed,
    long_statements_follow_a_change_of_state,
    sizes_and_files_survive_compression,
    pipelined_commands_are_answered_one_by_one,
    clients_that_may_not_compress_are_told,
    broken_frames_end_only_their_own_session,
    a_client_that_stalls_within_a_frame_can_be_ended,
    a_bomb_costs_little,
);

/// What the flavour's servers know.
fn methods(flavor: Flavor) -> &'static [&'static str] {
    match flavor {
        Flavor::MariaDb => &["zlib"],
        Flavor::MySql => &["zlib", "zstd"],
    }
}

/// A proxy for each way to compress towards the servers, the one without first.
async fn proxies(flavor: Flavor) -> (&'static Rig, Vec<(&'static str, &'static Proxy)>) {
    static MARIADB: OnceCell<Vec<Proxy>> = OnceCell::const_new();
    static MYSQL: OnceCell<Vec<Proxy>> = OnceCell::const_new();
    let rig = Rig::shared(flavor).await;
    let cell = match flavor {
        Flavor::MariaDb => &MARIADB,
        Flavor::MySql => &MYSQL,
    };
    let start = async || {
        let mut proxies = Vec::new();
        for method in methods(flavor) {
            let options = Options {
                cluster: format!("compression = \"{method}\""),
                ..Options::default()
            };
            let proxy = Proxy::start(&rig.cluster, &options).await;
            proxy.knows_replicas(2).await;
            proxies.push(proxy);
        }
        proxies
    };
    let own = cell.get_or_init(start).await;
    let named = methods(flavor).iter().copied().zip(own);
    (
        rig,
        [("off", &rig.proxy)].into_iter().chain(named).collect(),
    )
}

async fn compressed(proxy: &Proxy) -> Conn {
    let options = application(proxy.port()).compression(Some(Compression::fast()));
    Conn::new(options).await.unwrap()
}

/// Runs a program with the primary itself and through every proxy, compressed, each time in an empty schema.
async fn same(flavor: Flavor, name: &str, lines: usize, command: impl Fn(u16, PathBuf) -> Command) {
    let (rig, proxies) = proxies(flavor).await;
    let schema = format!("compressed_{name}");
    let primary = rig.cluster.primary();
    let run = async |port: u16, socket: PathBuf| {
        rig.schema(&schema).await;
        let mut command = command(port, socket);
        command.env("COMPRESSED", "1");
        output(command).await
    };
    let direct = run(primary.port(), primary.socket()).await;
    assert!(direct.lines().count() >= lines, "{direct}");
    for (method, proxy) in proxies {
        let through = run(proxy.port(), proxy.socket()).await;
        for (number, (through, direct)) in through.lines().zip(direct.lines()).enumerate() {
            assert_eq!(through, direct, "{method}, line {}", number + 1);
        }
        assert_eq!(through, direct, "{method}");
    }
}

async fn scripts_and_shells_work_compressed(flavor: Flavor) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for name in ["mysqli", "pdo"] {
        same(flavor, name, 50, |port, socket| {
            let mut command = Command::new("php");
            command
                .args(["-d", "mysqli.allow_local_infile=1"])
                .arg(tests.join("php").join(format!("{name}.php")))
                .args(["127.0.0.1", &port.to_string()])
                .arg(socket)
                .args(["app", "app", &format!("compressed_{name}")]);
            command
        })
        .await;
    }
    let rig = Rig::shared(flavor).await;
    let mut shells: Vec<(_, std::process::Command, Vec<&str>)> = vec![(
        "maria",
        std::process::Command::new("mariadb"),
        vec!["--no-defaults", "--compress"],
    )];
    if flavor == Flavor::MySql {
        for (name, option) in [
            ("zlib", "--compression-algorithms=zlib"),
            ("zstd", "--compression-algorithms=zstd"),
            ("both", "--compression-algorithms=zstd,zlib"),
        ] {
            let options = vec![
                option,
                "--zstd-compression-level=7",
                "--get-server-public-key",
            ];
            shells.push((name, rig.cluster.client("mysql").unwrap(), options));
        }
    }
    for (name, program, options) in shells {
        same(flavor, name, 30, |port, _| {
            let mut command = Command::new(program.get_program());
            command.args(program.get_args()).args(&options);
            command.args(["--host=127.0.0.1", "--user=app", "--password=app"]);
            command.arg(format!("--port={port}"));
            command.args(["--force", "--show-warnings", "--verbose", "--table"]);
            command
                .args([
                    "--default-character-set=utf8mb4",
                    &format!("compressed_{name}"),
                ])
                .stdin(File::open(tests.join("clients/shell.sql")).unwrap());
            command
        })
        .await;
    }
}

async fn servers_are_spoken_to_compressed(flavor: Flavor) {
    let (_, proxies) = proxies(flavor).await;
    for (method, proxy) in proxies {
        for mut conn in [proxy.connect().await, compressed(proxy).await] {
            let status = "SHOW SESSION STATUS LIKE 'Compression'";
            let (_, compressed): (String, String) = one(&mut conn, status).await;
            assert_eq!(compressed, if method == "off" { "OFF" } else { "ON" });
            if flavor == Flavor::MySql {
                let status = "SHOW SESSION STATUS LIKE 'Compression_algorithm'";
                let (_, name): (String, String) = one(&mut conn, status).await;
                assert_eq!(name, if method == "off" { "" } else { method });
            }
        }
    }
}

/// Lengths round the limits of frames, packets and buffers.
const SIZES: [usize; 6] = [0, 40, 60, (64 << 10) - 4, 1 << 19, 0xff_ffff];

/// Text whose first 300 KB zlib can make no shorter.
fn noise(len: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let part: String = (0..100_003)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(
                b"0123456789abcdefghijklmnopqrstuvwxyz-+ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                    [state as usize % 64],
            )
        })
        .collect();
    let mut noise = part.repeat(3);
    noise.push_str(&"z".repeat(len.saturating_sub(noise.len())));
    noise.truncate(len);
    noise
}

async fn long_statements_follow_a_change_of_state(flavor: Flavor) {
    let (rig, proxies) = proxies(flavor).await;
    let schema = rig.schema("compression_long").await;
    rig.cluster
        .primary()
        .run(&format!("CREATE TABLE {schema}.t (a INT)"))
        .await
        .unwrap();
    let noise = noise(1 << 18);
    for (method, proxy) in &proxies {
        let mut conn = Conn::new(application(proxy.port())).await.unwrap();
        // Round the limits of one frame and of two.
        for (hour, size) in (1..).zip([65_000, 65_500, 65_600, 100_000, 131_000, 131_100, 200_000])
        {
            let text = &noise[..size];
            let zone = format!("+0{hour}:00");
            conn.query_drop(format!("SET time_zone = '{zone}'"))
                .await
                .unwrap();
            let sql = format!("SELECT '{text}', @@time_zone");
            let seen: (String, String) = one(&mut conn, &sql).await;
            assert!(seen == (text.to_owned(), zone), "{method}: {size}");
            conn.query_drop(format!("SET time_zone = '-0{hour}:00'"))
                .await
                .unwrap();
            let sql = format!("INSERT INTO {schema}.t VALUES (LENGTH('{text}'))");
            conn.query_drop(sql).await.unwrap();
            assert_eq!(conn.affected_rows(), 1, "{method}: {size}");
        }
    }
    let mut direct = Conn::new(application(rig.cluster.primary().port()))
        .await
        .unwrap();
    let sql = format!("SELECT COUNT(*) FROM {schema}.t");
    let count: usize = one(&mut direct, &sql).await;
    assert_eq!(count, 7 * proxies.len(), "each ran once");
}

async fn sizes_and_files_survive_compression(flavor: Flavor) {
    let (rig, proxies) = proxies(flavor).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut lines = String::new();
    for number in 0..30_000_u64 {
        lines.push_str(&format!("{number}\t{:x}\n", number * 7919));
    }
    fs::write(file.path(), &lines).unwrap();
    let path = file.path().to_str().unwrap();
    let schema = rig.schema("compressed_sizes").await;
    let noise = noise(0xff_ffff);
    for (number, (method, proxy)) in proxies.into_iter().enumerate() {
        let options = |options: OptsBuilder| {
            options.local_infile_handler(Some(WhiteListFsHandler::new(&[path][..])))
        };
        let plain = options(application(proxy.port()));
        let packed = plain.clone().compression(Some(Compression::fast()));
        for (name, options) in [("plain", plain), ("packed", packed)] {
            let mut conn = Conn::new(options).await.unwrap();
            for size in SIZES {
                let text = &noise[..size];
                let sql = format!("SELECT '{text}', REPEAT('y', {size})");
                let (seen, repeated): (String, String) = one(&mut conn, &sql).await;
                assert!(
                    seen == text && repeated.len() == size,
                    "{method}, {name}: {size}"
                );
                let seen: Option<(String,)> = conn.exec_first("SELECT ?", (text,)).await.unwrap();
                assert!(
                    seen.unwrap().0 == text,
                    "{method}, {name}: {size}, prepared"
                );
            }
            let table = format!("{schema}.t{number}{name}");
            conn.query_drop(format!("CREATE TABLE {table} (a INT, b VARCHAR(20))"))
                .await
                .unwrap();
            let load =
                format!("SELECT 1; LOAD DATA LOCAL INFILE '{path}' INTO TABLE {table}; SELECT 2");
            conn.query_drop(load).await.unwrap();
            let counted: (u64, u64) =
                one(&mut conn, &format!("SELECT COUNT(*), SUM(a) FROM {table}")).await;
            assert_eq!(counted, (30_000, 449_985_000), "{method}, {name}");
            let rows: Vec<(u64, String)> = conn
                .query(format!("SELECT a, b FROM {table} ORDER BY a"))
                .await
                .unwrap();
            assert!(rows.iter().all(|(a, b)| *b == format!("{:x}", a * 7919)));
            let results: Vec<u64> = conn.query("SELECT 1; SELECT 2; SELECT 3").await.unwrap();
            assert_eq!(results, [1]);
            conn.change_user(mysql_async::ChangeUserOpts::default())
                .await
                .unwrap();
            assert_eq!(one::<u64>(&mut conn, "SELECT 5").await, 5);
        }
    }
}

/// One frame whose content is stored.
fn stored(number: u8, content: &[u8]) -> Vec<u8> {
    framed(number, content, 0)
}

fn framed(number: u8, content: &[u8], announced: usize) -> Vec<u8> {
    let mut frame = content.len().to_le_bytes()[..3].to_vec();
    frame.push(number);
    frame.extend_from_slice(&announced.to_le_bytes()[..3]);
    frame.extend_from_slice(content);
    frame
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    zlib.write_all(content).unwrap();
    zlib.finish().unwrap()
}

/// A packet of a command.
fn query(sql: &str) -> Vec<u8> {
    let mut packet = (sql.len() + 1).to_le_bytes()[..3].to_vec();
    packet.extend_from_slice(&[0, 3]);
    packet.extend_from_slice(sql.as_bytes());
    packet
}

/// A session of `app` whose client has agreed on zlib.
async fn session(port: u16) -> Raw {
    let mut raw = Raw::tcp(port).await.unwrap();
    let capabilities = capability::USUAL | capability::COMPRESS;
    raw.login("app", "app", None, capabilities).await.unwrap();
    raw
}

/// Reads one frame: its number and its content, which must be stored or zlib's.
async fn frame(raw: &mut Raw) -> (u8, Vec<u8>) {
    let mut header = [0; 7];
    raw.exact(&mut header).await.unwrap();
    let length = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as usize;
    let mut content = vec![0; length(&header)];
    raw.exact(&mut content).await.unwrap();
    match length(&header[4..]) {
        0 => (header[3], content),
        announced => {
            let mut plain = Vec::new();
            let mut zlib = flate2::write::ZlibDecoder::new(&mut plain);
            zlib.write_all(&content).unwrap();
            zlib.finish().unwrap();
            assert_eq!(plain.len(), announced);
            (header[3], plain)
        }
    }
}

/// Reads frames until a result set of one row with the text `expected` is complete; frames are numbered from 1.
async fn answered(raw: &mut Raw, expected: &str) {
    let mut bytes = Vec::new();
    for number in 1.. {
        let (found, content) = frame(raw).await;
        assert_eq!(found, number);
        bytes.extend_from_slice(&content);
        let mut packets = Vec::new();
        let mut rest = &bytes[..];
        while rest.len() >= 4 {
            let length = u32::from_le_bytes([rest[0], rest[1], rest[2], 0]) as usize;
            assert_eq!(
                usize::from(rest[3]),
                packets.len() + 1,
                "sequence of packets"
            );
            let Some(payload) = rest.get(4..4 + length) else {
                break;
            };
            packets.push(payload);
            rest = &rest[4 + length..];
        }
        // The number of columns, a definition, EOF, the row, EOF.
        if let [_, _, _, row, _] = &packets[..] {
            assert!(rest.is_empty());
            assert_eq!(&row[1..], expected.as_bytes());
            return;
        }
    }
}

async fn pipelined_commands_are_answered_one_by_one(flavor: Flavor) {
    let (_, proxies) = proxies(flavor).await;
    for (_, proxy) in proxies {
        let mut raw = session(proxy.port()).await;
        // Each in a frame of its own, all at once.
        let mut bytes = Vec::new();
        for number in 0..50 {
            bytes.extend(stored(0, &query(&format!("SELECT {number}"))));
        }
        raw.write(&bytes).await.unwrap();
        for number in 0..50 {
            answered(&mut raw, &number.to_string()).await;
        }
        // Several in one frame, and one in several frames.
        let commands = [
            query("SELECT 'a'"),
            query("SELECT 'b'"),
            query("SELECT 'c'"),
        ]
        .concat();
        raw.write(&framed(0, &zlib(&commands), commands.len()))
            .await
            .unwrap();
        for letter in ["a", "b", "c"] {
            answered(&mut raw, letter).await;
        }
        let command = query("SELECT 'in pieces'");
        for (number, byte) in command.iter().enumerate() {
            raw.write(&stored(u8::try_from(number).unwrap(), &[*byte]))
                .await
                .unwrap();
        }
        let (first, content) = frame(&mut raw).await;
        assert_eq!(usize::from(first), command.len());
        // As servers do, where the turn changes.
        assert_eq!(content[..5], [1, 0, 0, first, 1]);
        // The state of the session travels in front of the statement, in the same write.
        let mut conn = compressed(proxy).await;
        for number in 0..20 {
            let schema = ["test", "mysql"][number % 2];
            conn.query_drop(format!("USE {schema}")).await.unwrap();
            conn.query_drop(format!(
                "SET @@session.group_concat_max_len = {}",
                1000 + number
            ))
            .await
            .unwrap();
            let sql = "SELECT DATABASE(), @@group_concat_max_len";
            let seen: (String, usize) = one(&mut conn, sql).await;
            assert_eq!(seen, (schema.to_owned(), 1000 + number));
        }
    }
}

async fn clients_that_may_not_compress_are_told(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let raw = Raw::tcp(rig.proxy.port()).await.unwrap();
    let both = capability::COMPRESS | capability::ZSTD_COMPRESSION;
    let offered = match flavor {
        Flavor::MariaDb => capability::COMPRESS,
        Flavor::MySql => both,
    };
    assert_eq!(raw.greeting.capabilities & both, offered);
    let options = Options {
        sections: "[compression]\nclient = \"off\"".to_owned(),
        ..Options::default()
    };
    let proxy = Proxy::start(&rig.cluster, &options).await;
    for wanted in [capability::COMPRESS, capability::ZSTD_COMPRESSION, both] {
        let mut raw = Raw::tcp(proxy.port()).await.unwrap();
        assert_eq!(raw.greeting.capabilities & both, 0);
        let capabilities = capability::USUAL | wanted;
        let refused = raw
            .login("app", "app", None, capabilities)
            .await
            .unwrap_err();
        assert_eq!(refused.code, 1043);
        assert!(
            refused.message.contains("compression.client"),
            "{}",
            refused.message
        );
    }
    // PHP's driver compresses whatever it was offered.
    let script = "mysqli_report(MYSQLI_REPORT_OFF); $db = mysqli_init(); \
                  var_dump(@$db->real_connect('127.0.0.1', 'app', 'app', null, (int) $argv[1], null, \
                  MYSQLI_CLIENT_COMPRESS), $db->connect_errno, $db->connect_error);";
    let mut command = Command::new("php");
    command.args(["-r", script, &proxy.port().to_string()]);
    let printed = output(command).await;
    assert!(
        printed.contains("int(1043)") && printed.contains("compression.client"),
        "{printed}"
    );
    // Others see that it is not offered.
    let mut conn = compressed(&proxy).await;
    assert_eq!(one::<u64>(&mut conn, "SELECT 1").await, 1);
}

async fn a_client_that_stalls_within_a_frame_can_be_ended(flavor: Flavor) {
    let (_, proxies) = proxies(flavor).await;
    let (_, proxy) = proxies[0];
    for killed in [true, false] {
        // Of a packet that has begun the end is waited for otherwise, but nothing of this one can be decoded.
        let mut raw = session(proxy.port()).await;
        if !killed {
            raw.write(&stored(0, &query("SET wait_timeout = 1")))
                .await
                .unwrap();
            frame(&mut raw).await;
        }
        let command = query("SELECT 1");
        let command = framed(0, &zlib(&command), command.len());
        raw.write(&command[..9]).await.unwrap();
        if killed {
            let id = raw.greeting.connection;
            let mut other = proxy.connect().await;
            other.query_drop(format!("KILL {id}")).await.unwrap();
        }
        timeout(SOON, async {
            while raw.bytes(&mut [0; 100]).await.is_ok_and(|read| read > 0) {}
        })
        .await
        .expect("to be ended");
    }
}

async fn broken_frames_end_only_their_own_session(flavor: Flavor) {
    let (_, proxies) = proxies(flavor).await;
    let (_, proxy) = proxies[0];
    let command = query(&format!("SELECT '{}'", "x".repeat(200)));
    let packed = zlib(&command);
    let mut garbage = packed.clone();
    garbage[packed.len() / 2] ^= 0xff;
    let broken: &[(&str, Vec<u8>)] = &[
        ("more than announced", framed(0, &packed, command.len() - 1)),
        ("less than announced", framed(0, &packed, command.len() + 1)),
        ("one byte announced", framed(0, &packed, 1)),
        (
            "content cut short",
            framed(0, &packed[..packed.len() - 5], command.len()),
        ),
        (
            "something behind the content",
            framed(0, &[&packed[..], b"x"].concat(), command.len()),
        ),
        (
            "not zlib",
            framed(0, b"this is not compressed at all", command.len()),
        ),
        ("damaged", framed(0, &garbage, command.len())),
        ("no content", framed(0, b"", 10)),
        ("starts with the wrong number", stored(1, &command)),
        (
            "goes on with the wrong number",
            [stored(0, &command[..9]), stored(2, &command[9..])].concat(),
        ),
        (
            "a command within a command",
            [stored(0, &command[..9]), stored(0, &command)].concat(),
        ),
    ];
    for (name, bytes) in broken {
        let mut raw = session(proxy.port()).await;
        raw.write(bytes).await.unwrap();
        let end = timeout(SOON, raw.bytes(&mut [0; 1])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{name}: {end:?}");
    }
    // Without its end a frame is waited for, and the end of the connection is the end of it.
    let mut raw = session(proxy.port()).await;
    raw.write(&framed(0, &packed, command.len())[..20])
        .await
        .unwrap();
    drop(raw);
    let mut raw = session(proxy.port()).await;
    // Empty frames are odd and harmless.
    raw.write(&[stored(0, b""), stored(1, b"")].concat())
        .await
        .unwrap();
    raw.write(&framed(0, &packed, command.len())).await.unwrap();
    answered(&mut raw, &"x".repeat(200)).await;
    proxy.must_run();
}

/// KiB of the process's memory: now, and at most since the last time this was asked.
fn memory(proxy: &Proxy) -> (u64, u64) {
    let directory = PathBuf::from(format!("/proc/{}", proxy.pid()));
    let status = fs::read_to_string(directory.join("status")).unwrap();
    let value = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    fs::write(directory.join("clear_refs"), "5").unwrap();
    (value("VmRSS:"), value("VmHWM:"))
}

async fn a_bomb_costs_little(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = Proxy::start(&rig.cluster, &Options::default()).await;
    drop(proxy.connect().await);
    // As long as a frame can be, and all of it one statement.
    let mut content = query("");
    content.resize(0xff_ffff, b' ');
    let len = content.len() - 4;
    content[..3].copy_from_slice(&len.to_le_bytes()[..3]);
    for (capability, packed) in [
        (capability::COMPRESS, zlib(&content)),
        (
            capability::ZSTD_COMPRESSION,
            zstd::bulk::compress(&content, 19).unwrap(),
        ),
    ] {
        if capability == capability::ZSTD_COMPRESSION && flavor == Flavor::MariaDb {
            continue;
        }
        assert!(packed.len() < 20_000);
        for announced in [content.len(), content.len() - 1] {
            let mut raw = Raw::tcp(proxy.port()).await.unwrap();
            raw.login("app", "app", None, capability::USUAL | capability)
                .await
                .unwrap();
            let (before, _) = memory(&proxy);
            raw.write(&framed(0, &packed, announced)).await.unwrap();
            // Whatever it is answered: by then all of it was unpacked.
            let end = timeout(SOON, raw.bytes(&mut [0; 1])).await.unwrap();
            let (_, most) = memory(&proxy);
            assert_eq!(matches!(end, Ok(1)), announced == content.len(), "{end:?}");
            assert!(most < before + (32 << 10), "{before} KiB, then {most} KiB");
        }
    }
    eventually("the proxy to serve others", async || {
        Conn::new(application(proxy.port())).await.is_ok()
    })
    .await;
}
