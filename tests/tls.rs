//! TLS to clients and to servers, with real clients and servers of both families.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use dbproxy::cli::demo::cluster::{Cluster, Flavor, ReservedPort};
use mysql_async::prelude::Queryable;
use mysql_async::{ChangeUserOpts, ClientIdentity, Conn, OptsBuilder, SslOpts};
use rcgen::{CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use support::raw::{Raw, capability};
use support::relay::{Fault, Relay};
use support::tls::unverifying;
use support::{Options, Proxy, SOON, addresses, application, code, eventually, login, one, output};

on_both_flavors!(
    command_lines_use_tls,
    php_and_python_use_tls,
    large_results_and_files_pass,
    the_status_is_of_the_clients_connection,
    passwords_are_never_in_clear,
    certificates_are_read_again,
    a_certificate_is_made_and_kept,
    the_password_vouches_for_the_certificate,
    tls_can_be_required,
    accounts_require_as_on_the_servers,
    servers_are_verified,
    the_authority_for_servers_is_read_again,
    a_server_without_tls_is_told_of,
    an_account_that_requires_tls_needs_more_than_a_socket,
    connections_with_tls_are_used_again,
    broken_handshakes_are_cut,
    a_client_that_stalls_within_a_record_can_be_ended,
    files_that_cannot_be_used_are_named,
);

/// Certificates in files, and servers that show one of them.
struct Rig {
    cluster: Cluster,
    files: Files,
}

impl Rig {
    async fn shared(flavor: Flavor) -> &'static Self {
        static MARIADB: OnceCell<Rig> = OnceCell::const_new();
        static MYSQL: OnceCell<Rig> = OnceCell::const_new();
        let cell = match flavor {
            Flavor::MariaDb => &MARIADB,
            Flavor::MySql => &MYSQL,
        };
        cell.get_or_init(async || {
            let files = Files::create();
            let options = [
                format!("--ssl-ca={}", files.path("ca.pem")),
                format!("--ssl-cert={}", files.path("server.pem")),
                format!("--ssl-key={}", files.path("server.key")),
            ];
            let cluster = Cluster::start_with(flavor, 0, &options).await.unwrap();
            Self { cluster, files }
        })
        .await
    }

    /// The proxy, with these lines in `[tls.client]` and in `[tls.server]`.
    async fn proxy(&self, client: &str, server: &str) -> Proxy {
        let options = self.options(client, server);
        Proxy::start(&self.cluster, &options).await
    }

    fn options(&self, client: &str, server: &str) -> Options {
        Options {
            sections: format!("[tls.client]\n{client}\n[tls.server]\n{server}\n"),
            ..Options::default()
        }
    }

    /// The proxy shows the certificate for 127.0.0.1 and localhost.
    fn shown(&self) -> String {
        self.files.pair("proxy")
    }

    /// An account whose password is its name, with what it requires.
    async fn account(&self, name: &str, require: &str) {
        let primary = self.cluster.primary();
        let sql = format!(
            "CREATE USER {name}@'%' IDENTIFIED BY '{name}' {require}; GRANT SELECT ON *.* TO {name}@'%'"
        );
        primary.run(&sql).await.unwrap();
    }
}

/// A directory with certificates: `ca` has signed `server`, `proxy` and `client`; `other` has signed nothing of these.
struct Files {
    directory: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn create() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // A server that runs as another user has to read them.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = named(name);
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let files = Self {
            directory,
            ca: authority("authority"),
        };
        files.write("ca.pem", &files.ca.pem());
        files.write("other.pem", &authority("another").pem());
        files.issue("server", &["127.0.0.1"]);
        files.issue("proxy", &["127.0.0.1", "localhost"]);
        files.issue("client", &[]);
        files
    }

    /// Makes a certificate by the authority, for these names.
    fn issue(&self, name: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = named(name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.pem"), &certificate.pem());
    }

    fn write(&self, name: &str, text: &str) {
        let unfinished = self.directory.path().join(format!("{name}.new"));
        fs::write(&unfinished, text).unwrap();
        fs::rename(&unfinished, self.directory.path().join(name)).unwrap();
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// The lines of the configuration that name a certificate and its key.
    fn pair(&self, name: &str) -> String {
        format!(
            "certificate = {:?}\nkey = {:?}\n",
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key"))
        )
    }

    /// What a client needs to verify the proxy, or a server.
    fn verifying(&self) -> SslOpts {
        SslOpts::default()
            .with_root_certs(vec![PathBuf::from(self.path("ca.pem")).into()])
            .with_disable_built_in_roots(true)
    }

    /// The same, with a certificate of its own.
    fn showing(&self) -> SslOpts {
        let file = |name| PathBuf::from(self.path(name)).into();
        let identity = ClientIdentity::new(file("client.pem"), file("client.key"));
        self.verifying().with_client_identity(Some(identity))
    }
}

/// `/O=Shop/CN=name`.
fn named(name: &str) -> DistinguishedName {
    let mut full = DistinguishedName::new();
    full.push(DnType::OrganizationName, "Shop");
    full.push(DnType::CommonName, name);
    full
}

/// The command line client, with these options.
fn command_line(rig: &Rig, port: u16, options: &[&str], sql: &str) -> Command {
    let name = match rig.cluster.flavor() {
        Flavor::MariaDb => "mariadb",
        Flavor::MySql => "mysql",
    };
    let mut command = Command::from(rig.cluster.client(name).unwrap());
    command
        .args(["--host=127.0.0.1", "--user=app", "--password=app"])
        .arg(format!("--port={port}"))
        .arg(format!("--ssl-ca={}", rig.files.path("ca.pem")))
        .args(options)
        .args(["-e", sql]);
    command
}

/// The options of `app`, with TLS.
fn over_tls(port: u16, tls: SslOpts) -> OptsBuilder {
    application(port).ssl_opts(Some(tls))
}

/// Logs in: the result of a query, or the number of the error.
async fn attempt(options: OptsBuilder) -> Result<String, u16> {
    let mut conn = Conn::new(options).await.map_err(|error| code(&error))?;
    conn.query_first("SELECT CURRENT_USER()")
        .await
        .map(Option::unwrap)
        .map_err(|error| code(&error))
}

/// The cipher of the connection between the proxy and the server; empty without TLS.
async fn to_the_server(conn: &mut Conn) -> String {
    let schema = match conn.server_version() {
        (10.., ..) => "information_schema",
        _ => "performance_schema",
    };
    let sql = format!(
        "SELECT variable_value FROM {schema}.session_status WHERE variable_name = 'Ssl_cipher'"
    );
    one(conn, &sql).await
}

/// Asks for TLS as a client does, with nothing behind the request.
async fn ask_for_tls(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.unwrap();
    let mut greeting = vec![0; usize::from(header[0])];
    stream.read_exact(&mut greeting).await.unwrap();
    let mut request = vec![32, 0, 0, 1];
    request.extend_from_slice(&(capability::USUAL | capability::TLS).to_le_bytes());
    request.extend_from_slice(&[0, 0, 0, 1, 45]);
    request.extend_from_slice(&[0; 23]);
    stream.write_all(&request).await.unwrap();
    stream
}

/// Reads until the peer closes.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    // A reset is a close as well.
    let _ = timeout(SOON, stream.read_to_end(&mut read))
        .await
        .expect("to be closed");
    read
}

/// The certificate that clients see (DER).
async fn shown(port: u16) -> Vec<u8> {
    let mut stream = ask_for_tls(port).await;
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(unverifying(), name).unwrap();
    while client.is_handshaking() {
        let mut out = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut out).unwrap();
        }
        stream.write_all(&out).await.unwrap();
        if client.is_handshaking() {
            let mut bytes = vec![0; 16 * 1024];
            let read = stream.read(&mut bytes).await.unwrap();
            client.read_tls(&mut &bytes[..read]).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    client.peer_certificates().unwrap()[0].to_vec()
}

async fn command_lines_use_tls(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = rig.proxy(&rig.shown(), "").await;
    let (verify, wrong): (&[_], _) = match flavor {
        Flavor::MariaDb => (&["--ssl-verify-server-cert"], "--ssl-verify-server-cert"),
        Flavor::MySql => (
            &["--ssl-mode=VERIFY_IDENTITY", "--commands"],
            "--ssl-mode=VERIFY_CA",
        ),
    };
    for (version, cipher) in [("TLSv1.2", "ECDHE-ECDSA-AES"), ("TLSv1.3", "TLS_AES")] {
        let version = format!("--tls-version={version}");
        let options = [verify, &[version.as_str()]].concat();
        let printed = output(command_line(rig, proxy.port(), &options, "\\s")).await;
        let line = printed.lines().find(|line| line.starts_with("SSL:"));
        let line = line.unwrap_or_else(|| panic!("{printed}"));
        assert!(line.contains(cipher), "{line}");
    }
    let other = format!("--ssl-ca={}", rig.files.path("other.pem"));
    let mut command = command_line(rig, proxy.port(), &[wrong, &other], "SELECT 1");
    let refused = command.output().await.unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("2026"), "{said}");
}

async fn php_and_python_use_tls(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let client = format!("mode = \"required\"\n{}", rig.shown());
    let proxy = Proxy::spawn(
        &addresses(&rig.cluster),
        &rig.options(&client, "mode = \"required\""),
    );
    eventually("the proxy to accept a login", async || {
        attempt(over_tls(proxy.port(), rig.files.verifying()))
            .await
            .is_ok()
    })
    .await;
    let (port, ca) = (proxy.port().to_string(), rig.files.path("ca.pem"));

    let mut php = Command::new("php");
    php.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php/tls.php"))
        .args([
            &port,
            &ca,
            &rig.files.path("client.pem"),
            &rig.files.path("client.key"),
        ]);
    assert_eq!(output(php).await, "mysqli app@%\npdo app@%\nverified\n");

    let python =
        std::env::var("DBPROXY_SERVERS").unwrap_or_else(|_| "/var/cache/dbproxy".to_owned());
    let mut python = Command::new(format!("{python}/python/bin/python"));
    let script = "import pymysql, sys\n\
        c = pymysql.connect(host='127.0.0.1', port=int(sys.argv[1]), user='app', password='app', ssl={'ca': sys.argv[2]})\n\
        with c.cursor() as q:\n    q.execute('SELECT CURRENT_USER()'); print(q.fetchone()[0])\n\
        try:\n    pymysql.connect(host='127.0.0.1', port=int(sys.argv[1]), user='app', password='app', ssl_disabled=True)\n\
        except pymysql.OperationalError as e: print(e.args[0])\n";
    python.args(["-c", script, &port, &ca]);
    let refused = match flavor {
        Flavor::MariaDb => 1045,
        Flavor::MySql => 3159,
    };
    assert_eq!(output(python).await, format!("app@%\n{refused}\n"));
}

async fn large_results_and_files_pass(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = rig.proxy(&rig.shown(), "mode = \"required\"").await;
    let mut conn = Conn::new(over_tls(proxy.port(), rig.files.verifying()))
        .await
        .unwrap();
    assert_ne!(to_the_server(&mut conn).await, "");
    let text: String = one(&mut conn, "SELECT REPEAT('0123456789', 3500000)").await;
    assert_eq!(text.len(), 35_000_000);
    assert!(
        text.as_bytes()
            .chunks(10)
            .all(|chunk| chunk == b"0123456789")
    );
    let sql = format!("SELECT LENGTH('{}')", "x".repeat(20_000_000));
    assert_eq!(one::<u32>(&mut conn, &sql).await, 20_000_000);
    let rows: Vec<u32> = conn
        .query(
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
             SELECT a.i * 1000 + b.i FROM n AS a JOIN n AS b WHERE b.i <= 200",
        )
        .await
        .unwrap();
    assert_eq!(rows.len(), 200_000);

    conn.query_drop("CREATE DATABASE tls_files").await.unwrap();
    conn.query_drop("CREATE TABLE tls_files.t (a INT, b VARCHAR(200))")
        .await
        .unwrap();
    let lines: String = (0..200_000)
        .map(|i| format!("{i}\t{:0>100}\n", i % 977))
        .collect();
    rig.files.write("lines", &lines);
    let (tls, local) = match flavor {
        Flavor::MariaDb => ("--ssl", "--local-infile"),
        Flavor::MySql => ("--ssl-mode=REQUIRED", "--local-infile=1"),
    };
    let load = format!(
        "LOAD DATA LOCAL INFILE '{}' INTO TABLE tls_files.t",
        rig.files.path("lines")
    );
    output(command_line(rig, proxy.port(), &[tls, local], &load)).await;
    let sum: (u64, u64) = one(&mut conn, "SELECT COUNT(*), SUM(a) FROM tls_files.t").await;
    assert_eq!(sum, (200_000, 199_999 * 100_000));
}

async fn the_status_is_of_the_clients_connection(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for (server, encrypted) in [("disabled", false), ("required", true)] {
        let proxy = rig
            .proxy(&rig.shown(), &format!("mode = \"{server}\""))
            .await;
        for (options, cipher, version) in [
            (
                over_tls(proxy.port(), rig.files.verifying()),
                "TLS_AES_256_GCM_SHA384",
                "TLSv1.3",
            ),
            (application(proxy.port()), "", ""),
        ] {
            let mut conn = Conn::new(options).await.unwrap();
            assert_eq!(!to_the_server(&mut conn).await.is_empty(), encrypted);
            for scope in ["", "SESSION", "LOCAL", "GLOBAL"] {
                let sql = format!(
                    "SHOW {scope} STATUS WHERE variable_name IN ('Ssl_cipher', 'Ssl_version', 'Uptime')"
                );
                let texts: Vec<(String, String)> = conn.query(&sql).await.unwrap();
                let binaries: Vec<(String, String)> = conn.exec(&sql, ()).await.unwrap();
                for rows in [texts, binaries] {
                    assert_eq!(rows.len(), 3);
                    assert_eq!(rows[0], ("Ssl_cipher".into(), cipher.into()));
                    assert_eq!(rows[1], ("Ssl_version".into(), version.into()));
                    assert!(rows[2].1.parse::<u32>().is_ok(), "{rows:?}");
                }
            }
        }
    }
}

/// A client that knows the server's key before it logs in does not ask for it.
#[tokio::test]
async fn the_key_in_the_status_is_the_one_for_passwords() {
    let rig = Rig::shared(Flavor::MySql).await;
    let known = [
        ("key1", "Caching_sha2_password_rsa_public_key"),
        ("key2", "Rsa_public_key"),
    ];
    for (user, _) in known {
        rig.account(user, "").await;
    }
    let proxy = rig.proxy(&rig.shown(), "").await;
    let mut conn = proxy.connect().await;
    for (user, variable) in known {
        let sql = format!("SHOW STATUS LIKE '{variable}'");
        let (_, key): (String, String) = one(&mut conn, &sql).await;
        rig.files.write("password.pem", &key);
        let mut command = Command::from(rig.cluster.client("mysql").unwrap());
        let port = format!("--port={}", proxy.port());
        let file = rig.files.path("password.pem");
        command
            .args(["--host=127.0.0.1", &port, "--ssl-mode=DISABLED"])
            .arg(format!("--user={user}"))
            .arg(format!("--password={user}"))
            .arg(format!("--server-public-key-path={file}"))
            .args(["--skip-column-names", "-e", "SELECT CURRENT_USER()"]);
        let printed = output(command).await;
        assert!(printed.contains(&format!("{user}@%")), "{printed}");
    }
}

async fn passwords_are_never_in_clear(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.account("hushhush", "").await;
    let recording = |port| async move {
        let relay = Relay::start(port).await;
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let ears = Arc::clone(&heard);
        relay.judge(move |bytes| {
            ears.lock().unwrap().extend_from_slice(bytes);
            Fault::None
        });
        (relay, heard)
    };
    let (server, to_server) = recording(rig.cluster.primary().port()).await;
    let options = Options {
        servers: Some(vec![format!("db1=127.0.0.1:{}", server.port())]),
        ..rig.options(&rig.shown(), "mode = \"required\"")
    };
    let proxy = Proxy::start(&rig.cluster, &options).await;
    let (client, to_proxy) = recording(proxy.port()).await;
    let options =
        login(client.port(), "hushhush", "hushhush").ssl_opts(Some(rig.files.verifying()));
    let mut conn = Conn::new(options).await.unwrap();
    assert_eq!(
        one::<String>(&mut conn, "SELECT 'open sesame'").await,
        "open sesame"
    );
    for heard in [to_proxy, to_server] {
        let heard = heard.lock().unwrap();
        assert!(heard.len() > 500, "{} bytes", heard.len());
        for word in ["hushhush", "open sesame", "SELECT"] {
            let found = heard
                .windows(word.len())
                .any(|window| window == word.as_bytes());
            assert!(!found, "{word} is to be heard");
        }
    }
}

async fn certificates_are_read_again(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let files = Files::create();
    let proxy = rig.proxy(&files.pair("proxy"), "").await;
    let der = |files: &Files| {
        let pem = fs::read(files.path("proxy.pem")).unwrap();
        CertificateDer::from_pem_slice(&pem).unwrap().to_vec()
    };
    let first = der(&files);
    assert_eq!(shown(proxy.port()).await, first);
    let mut old = Conn::new(over_tls(proxy.port(), files.verifying()))
        .await
        .unwrap();

    files.issue("proxy", &["127.0.0.1"]);
    let second = der(&files);
    assert_ne!(first, second);
    eventually("the new certificate to be shown", async || {
        shown(proxy.port()).await == second
    })
    .await;
    // Whoever is in stays in.
    assert_eq!(one::<u8>(&mut old, "SELECT 1").await, 1);

    files.write("proxy.pem", "rubbish");
    eventually("a warning", async || {
        proxy.log().contains("the old ones stay")
    })
    .await;
    assert_eq!(shown(proxy.port()).await, second);
}

async fn a_certificate_is_made_and_kept(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = Proxy::start(&rig.cluster, &Options::default()).await;
    let made = shown(proxy.port()).await;
    let state = proxy.configuration().with_file_name("state");
    let mode = |name: &str| fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("tls-identity.pem"), 0o600);
    assert_eq!(mode("tls-certificate.pem"), 0o644);
    // It verifies itself.
    let tls = SslOpts::default()
        .with_root_certs(vec![state.join("tls-certificate.pem").into()])
        .with_disable_built_in_roots(true)
        .with_danger_tls_hostname_override(Some("localhost"));
    assert_eq!(attempt(over_tls(proxy.port(), tls)).await.unwrap(), "app@%");

    let directory = state.to_str().unwrap();
    let again = Proxy::start(
        &rig.cluster,
        &Options {
            top: format!("state_directory = {directory:?}"),
            ..Options::default()
        },
    )
    .await;
    assert_eq!(shown(again.port()).await, made);
}

/// What a client of MariaDB expects behind its login before it believes in a certificate that nobody has signed.
fn expected(password: &str, scramble: &[u8], certificate: &[u8]) -> String {
    let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let stored = digest(&SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
    let fingerprint = digest(&SHA256, certificate);
    let whole = [stored.as_ref(), scramble, fingerprint.as_ref()].concat();
    let hex = digest(&SHA256, &whole);
    let hex: String = hex.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    format!("\u{1}{hex}")
}

async fn the_password_vouches_for_the_certificate(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let maria = flavor == Flavor::MariaDb;
    let signs = if maria {
        rig.cluster
            .primary()
            .run("INSTALL SONAME 'auth_ed25519'")
            .await
            .unwrap();
        "IDENTIFIED VIA ed25519 USING PASSWORD"
    } else {
        "IDENTIFIED BY"
    };
    for name in ["vouched", "vouched_told"] {
        let sql = format!("CREATE USER {name}@'%' {signs} ('{name}')");
        let sql = if maria {
            sql
        } else {
            sql.replace(['(', ')'], "")
        };
        rig.cluster.primary().run(&sql).await.unwrap();
    }
    let sql = "CREATE USER vouched_not@'%' IDENTIFIED BY ''";
    rig.cluster.primary().run(sql).await.unwrap();
    let options = Options {
        sections: "[users.vouched_told]\npassword = \"vouched_told\"\n".to_owned(),
        ..Options::default()
    };
    let proxy = Proxy::start(&rig.cluster, &options).await;
    let own = shown(proxy.port()).await;
    let usual = capability::USUAL;
    let tracking = usual | capability::SESSION_TRACK;

    for (name, password, capabilities, vouched) in [
        ("app", "app", usual, true),
        ("app", "app", tracking, true),
        ("vouched_told", "vouched_told", usual, true),
        // By its signature dbproxy could not log in to servers: it asks for the password, and knows it from then on.
        ("vouched", "vouched", usual, false),
        ("vouched", "vouched", usual, true),
        ("vouched_not", "", usual, false),
    ] {
        let raw = Raw::tcp(proxy.port()).await.unwrap();
        let (mut raw, certificate) = raw.over_tls(capabilities).await;
        assert_eq!(certificate, own);
        raw.login(name, password, None, capabilities).await.unwrap();
        let expected = if vouched && maria {
            expected(password, &raw.greeting.scramble, &own)
        } else {
            String::new()
        };
        assert_eq!(raw.info, expected, "{name}");
        let rows = raw.rows("SELECT CURRENT_USER()").await.unwrap();
        assert_eq!(rows, [[Some(format!("{name}@%"))]]);

        raw.change_user("app", "app", "").await.unwrap();
        assert_eq!(raw.info.is_empty(), !maria, "{name}");
    }

    // A password that is known is checked all the same.
    for name in ["app", "vouched", "vouched_told"] {
        let raw = Raw::tcp(proxy.port()).await.unwrap();
        let (mut raw, _) = raw.over_tls(usual).await;
        let refused = raw.login(name, "wrong", None, usual).await.unwrap_err();
        assert_eq!(refused.code, 1045, "{refused:?}");
    }
    // Without a certificate there is nothing to vouch for.
    let mut plain = Raw::tcp(proxy.port()).await.unwrap();
    plain.login("app", "app", None, usual).await.unwrap();
    let mut local = Raw::unix(&proxy.socket()).await.unwrap();
    local.login("app", "app", None, usual).await.unwrap();
    assert_eq!([plain.info, local.info], ["", ""]);
}

async fn tls_can_be_required(flavor: Flavor) {
    let files = Files::create();
    let options = [
        format!("--ssl-ca={}", files.path("ca.pem")),
        format!("--ssl-cert={}", files.path("server.pem")),
        format!("--ssl-key={}", files.path("server.key")),
        "--require-secure-transport=ON".to_owned(),
    ];
    let cluster = Cluster::start_with(flavor, 0, &options).await.unwrap();
    let server = cluster.primary().port();
    let proxy = |client: &str| Options {
        sections: format!(
            "[tls.client]\n{client}\n{}\n[tls.server]\nmode = \"required\"\n",
            files.pair("proxy")
        ),
        ..Options::default()
    };
    // A server that has to be spoken to with TLS is.
    let optional = Proxy::start(&cluster, &proxy("")).await;
    assert_eq!(
        attempt(application(optional.port())).await.unwrap(),
        "app@%"
    );

    let required = Proxy::spawn(&addresses(&cluster), &proxy("mode = \"required\""));
    eventually("the proxy to accept a login", async || {
        attempt(over_tls(required.port(), files.verifying()))
            .await
            .is_ok()
    })
    .await;
    let refused = async |port| {
        let mut raw = Raw::tcp(port).await.unwrap();
        raw.login("app", "app", None, capability::USUAL)
            .await
            .unwrap_err()
    };
    let direct = refused(server).await;
    assert_eq!(refused(required.port()).await, direct);
    let code = match flavor {
        Flavor::MariaDb => 1045,
        Flavor::MySql => 3159,
    };
    assert_eq!(direct.code, code, "{direct:?}");
    let mut local = Raw::unix(&required.socket()).await.unwrap();
    local
        .login("app", "app", None, capability::USUAL)
        .await
        .unwrap();

    // One listener of several.
    let port = ReservedPort::take().unwrap();
    let listening = Options {
        listen: format!("mysql_tls = [\"127.0.0.1:{}\"]", port.number()),
        ..proxy("")
    };
    let one_of_two = Proxy::start(&cluster, &listening).await;
    assert_eq!(refused(port.number()).await, direct);
    let tls = over_tls(port.number(), files.verifying());
    assert_eq!(attempt(tls).await.unwrap(), "app@%");
    assert_eq!(
        attempt(application(one_of_two.port())).await.unwrap(),
        "app@%"
    );
}

async fn accounts_require_as_on_the_servers(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let client = format!("{}ca = {:?}\n", rig.shown(), rig.files.path("ca.pem"));
    // To the server the proxy is the client.
    let proxy = rig.proxy(&client, &rig.files.pair("client")).await;
    let server = rig.cluster.primary().port();
    let (subject, issuer) = ("/O=Shop/CN=client", "/O=Shop/CN=authority");
    let requirements = [
        ("r_none", "REQUIRE NONE".to_owned()),
        ("r_ssl", "REQUIRE SSL".to_owned()),
        ("r_x509", "REQUIRE X509".to_owned()),
        ("r_subject", format!("REQUIRE SUBJECT '{subject}'")),
        ("r_issuer", format!("REQUIRE ISSUER '{issuer}'")),
        (
            "r_both",
            format!("REQUIRE ISSUER '{issuer}' AND SUBJECT '{subject}'"),
        ),
        (
            "r_other",
            "REQUIRE SUBJECT '/O=Shop/CN=somebody'".to_owned(),
        ),
        ("r_weak", "REQUIRE CIPHER 'DES-CBC3-SHA'".to_owned()),
    ];
    for (name, require) in &requirements {
        rig.account(name, require).await;
    }
    let mut passed = 0;
    for (name, require) in &requirements {
        for (how, tls) in [
            ("without TLS", None),
            ("with TLS", Some(rig.files.verifying())),
            ("with a certificate", Some(rig.files.showing())),
        ] {
            let outcome = async |port| attempt(login(port, name, name).ssl_opts(tls.clone())).await;
            let direct = outcome(server).await;
            passed += u32::from(direct.is_ok());
            assert_eq!(outcome(proxy.port()).await, direct, "{require} {how}");
        }
    }
    assert_eq!(passed, 9);

    // COM_CHANGE_USER to such an account is measured by the same connection.
    for (tls, expected) in [
        (rig.files.showing(), Ok(())),
        (rig.files.verifying(), Err(1045)),
    ] {
        let mut conn = Conn::new(over_tls(proxy.port(), tls)).await.unwrap();
        let user = ChangeUserOpts::default()
            .with_user(Some("r_x509".to_owned()))
            .with_pass(Some("r_x509".to_owned()));
        let changed = conn.change_user(user).await.map_err(|error| code(&error));
        assert_eq!(changed, expected);
    }

    // What dbproxy lacks is said.
    let bare = rig.proxy(&client, "").await;
    let refused =
        Conn::new(login(bare.port(), "r_x509", "r_x509").ssl_opts(Some(rig.files.showing())));
    let mut conn = refused.await;
    if let Ok(conn) = &mut conn {
        let said = conn.query_drop("SELECT 1").await.unwrap_err().to_string();
        assert!(said.contains("tls.server.certificate"), "{said}");
    } else {
        let said = conn.unwrap_err().to_string();
        assert!(said.contains("tls.server.certificate"), "{said}");
    }
}

async fn servers_are_verified(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let ca = format!("ca = {:?}\n", rig.files.path("ca.pem"));
    let other = format!("ca = {:?}\n", rig.files.path("other.pem"));
    let address = |host: &str| vec![format!("db1={host}:{}", rig.cluster.primary().port())];
    for (host, mode, ca, encrypted) in [
        ("127.0.0.1", "disabled", "", false),
        // It does not leave the machine.
        ("127.0.0.1", "preferred", "", false),
        ("127.0.0.1", "required", "", true),
        ("127.0.0.1", "required", &other, true),
        ("127.0.0.1", "verify-ca", &ca, true),
        ("localhost", "verify-ca", &ca, true),
        ("127.0.0.1", "verify-identity", &ca, true),
    ] {
        let options = Options {
            servers: Some(address(host)),
            ..rig.options(&rig.shown(), &format!("mode = \"{mode}\"\n{ca}"))
        };
        let proxy = Proxy::start(&rig.cluster, &options).await;
        let cipher = to_the_server(&mut proxy.connect().await).await;
        assert_eq!(!cipher.is_empty(), encrypted, "{host} {mode}: {cipher}");
        assert!(
            !proxy.log().contains("cannot ask the server"),
            "{}",
            proxy.log()
        );
    }
    for (host, mode, ca, said) in [
        (
            "127.0.0.1",
            "verify-ca",
            &other,
            "not signed by an authority",
        ),
        ("localhost", "verify-identity", &ca, "for another name"),
    ] {
        let options = Options {
            servers: Some(address(host)),
            ..rig.options(&rig.shown(), &format!("mode = \"{mode}\"\n{ca}"))
        };
        let proxy = Proxy::spawn(options.servers.as_ref().unwrap(), &options);
        eventually("the monitor to complain", async || {
            proxy.log().contains(said)
        })
        .await;
        let (status, text) = check(&proxy).await;
        assert_eq!(status, Some(1), "{text}");
        assert!(
            text.contains("no TLS with the server") && text.contains(said),
            "{text}"
        );
        let error = Conn::new(application(proxy.port())).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

async fn the_authority_for_servers_is_read_again(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let files = Files::create();
    // The authority of the name that the right one has would be another error.
    fs::copy(files.path("other.pem"), files.path("ca.pem")).unwrap();
    let server = format!("mode = \"verify-ca\"\nca = {:?}\n", files.path("ca.pem"));
    let options = rig.options(&rig.shown(), &server);
    let proxy = Proxy::spawn(&addresses(&rig.cluster), &options);
    eventually("the monitor to complain", async || {
        proxy.log().contains("not signed by an authority")
    })
    .await;
    files.write("ca.pem", &rig.files.ca.pem());
    eventually("the server to be found", async || {
        Conn::new(application(proxy.port())).await.is_ok()
    })
    .await;
}

async fn a_server_without_tls_is_told_of(flavor: Flavor) {
    let off = match flavor {
        Flavor::MariaDb => "--skip-ssl",
        Flavor::MySql => "--tls-version=",
    };
    let cluster = Cluster::start_with(flavor, 0, &[off.to_owned()])
        .await
        .unwrap();
    let options = |mode: &str| Options {
        sections: format!("[tls.server]\nmode = \"{mode}\"\n"),
        ..Options::default()
    };
    let proxy = Proxy::start(&cluster, &options("preferred")).await;
    assert_eq!(to_the_server(&mut proxy.connect().await).await, "");
    // Whoever needs it is told that it is lacking, not that the password is wrong.
    let sql = "CREATE USER needs_tls@'%' IDENTIFIED BY 'needs_tls' REQUIRE SSL";
    cluster.primary().run(sql).await.unwrap();
    let said = lacking_tls(&proxy, "needs_tls").await;
    assert!(said.contains("the server does not offer it"), "{said}");
    let proxy = Proxy::spawn(&addresses(&cluster), &options("required"));
    let said = "does not offer it";
    eventually("the monitor to complain", async || {
        proxy.log().contains(said)
    })
    .await;
    let (status, text) = check(&proxy).await;
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains(said), "{text}");
}

async fn an_account_that_requires_tls_needs_more_than_a_socket(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.account("on_a_socket", "REQUIRE SSL").await;
    let socket = rig.cluster.primary().socket();
    // The server itself takes a socket for insecure.
    let direct = OptsBuilder::default()
        .socket(Some(socket.to_str().unwrap()))
        .user(Some("on_a_socket"))
        .pass(Some("on_a_socket"));
    assert_eq!(attempt(direct).await, Err(1045));
    let options = Options {
        servers: Some(vec![format!("db1=unix:{}", socket.display())]),
        ..rig.options(&rig.shown(), "")
    };
    let proxy = Proxy::start(&rig.cluster, &options).await;
    let said = lacking_tls(&proxy, "on_a_socket").await;
    assert!(said.contains("not used on a unix socket"), "{said}");
}

/// What dbproxy says to somebody who logs in with TLS, and for whom it needs TLS to the server.
async fn lacking_tls(proxy: &Proxy, name: &str) -> String {
    let tls = SslOpts::default().with_danger_accept_invalid_certs(true);
    let options = login(proxy.port(), name, name).ssl_opts(Some(tls));
    let error = match Conn::new(options).await {
        Ok(mut conn) => conn.query_drop("SELECT 1").await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(code(&error), 1698, "{error}");
    error.to_string()
}

async fn connections_with_tls_are_used_again(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    rig.account("again", "").await;
    let options = Options {
        top: "workers = 2".to_owned(),
        ..rig.options(&rig.shown(), "mode = \"required\"")
    };
    let proxy = Proxy::start(&rig.cluster, &options).await;
    for _ in 0..40 {
        let tls = login(proxy.port(), "again", "again").ssl_opts(Some(rig.files.verifying()));
        let mut conn = Conn::new(tls).await.unwrap();
        assert_eq!(one::<u8>(&mut conn, "SELECT 1").await, 1);
        conn.disconnect().await.unwrap();
    }
    let open: u32 = rig
        .cluster
        .primary()
        .first("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'again'")
        .await
        .unwrap();
    let ids = "SELECT MAX(id) - MIN(id) FROM information_schema.processlist WHERE user = 'again'";
    assert!((1..=2).contains(&open), "{open} connections");
    let apart: u32 = rig.cluster.primary().first(ids).await.unwrap();
    assert!(apart < 20, "the connections are {apart} apart");
}

async fn broken_handshakes_are_cut(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let mut options = rig.options(&rig.shown(), "");
    options.sections += "[limits]\nlogin = \"2s\"\n";
    let proxy = Proxy::start(&rig.cluster, &options).await;
    let port = proxy.port();
    let mut inside = Conn::new(over_tls(port, rig.files.verifying()))
        .await
        .unwrap();

    // Garbage.
    let mut stream = ask_for_tls(port).await;
    stream.write_all(&[0xa5; 4096]).await.unwrap();
    until_closed(&mut stream).await;
    // A login in clear, although TLS was asked for.
    let mut stream = ask_for_tls(port).await;
    let mut plain = vec![60, 0, 0, 2];
    plain.extend_from_slice(&capability::USUAL.to_le_bytes());
    plain.extend_from_slice(&[0; 56]);
    stream.write_all(&plain).await.unwrap();
    let answer = until_closed(&mut stream).await;
    // An alert at most: nothing of a session.
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    // A ClientHello that is announced and never comes; one whose length is absurd; one that stops half-way.
    for start in [&[22, 3, 1, 2, 0, 1][..], &[22, 3, 1, 0xff, 0xff, 1], &[22]] {
        let mut stream = ask_for_tls(port).await;
        stream.write_all(start).await.unwrap();
        until_closed(&mut stream).await;
        let mut stream = ask_for_tls(port).await;
        stream.write_all(start).await.unwrap();
        drop(stream);
    }
    // Handshake messages without end.
    let mut stream = ask_for_tls(port).await;
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    while stream.write_all(&record).await.is_ok() {}
    // Many at once, none of which goes on.
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(ask_for_tls(port).await);
    }
    assert_eq!(one::<u8>(&mut inside, "SELECT 1").await, 1);
    assert!(attempt(over_tls(port, rig.files.verifying())).await.is_ok());
    for mut stream in waiting {
        until_closed(&mut stream).await;
    }
    proxy.must_run();
}

async fn a_client_that_stalls_within_a_record_can_be_ended(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    let proxy = rig.proxy(&rig.shown(), "").await;
    for killed in [true, false] {
        let relay = Relay::start(proxy.port()).await;
        let mut conn = Conn::new(over_tls(relay.port(), rig.files.verifying()))
            .await
            .unwrap();
        let id = conn.id();
        if !killed {
            conn.query_drop("SET wait_timeout = 1").await.unwrap();
        }
        relay.judge(|_| Fault::Stall);
        let stalled = tokio::spawn(async move { conn.query_drop("SELECT 1").await });
        eventually("the client to stall", async || relay.faults() == 1).await;
        if killed {
            let mut other = proxy.connect().await;
            other.query_drop(format!("KILL {id}")).await.unwrap();
        }
        let ended = timeout(SOON, stalled).await.expect("to be ended");
        assert!(ended.unwrap().is_err());
    }
}

async fn files_that_cannot_be_used_are_named(flavor: Flavor) {
    let rig = Rig::shared(flavor).await;
    for (client, server, said) in [
        (
            "certificate = \"none.pem\"\nkey = \"none.key\"",
            "",
            "tls.client.certificate: ",
        ),
        (
            "",
            "certificate = \"none.pem\"\nkey = \"none.key\"",
            "tls.server.certificate: ",
        ),
        ("ca = \"none.pem\"", "", "tls.client.ca: "),
        ("", "ca = \"none.pem\"", "tls.server.ca: "),
    ] {
        let options = rig.options(client, server);
        let proxy = Proxy::spawn(&addresses(&rig.cluster), &options);
        eventually("the proxy to end", async || proxy.ended().is_some()).await;
        assert!(proxy.log().contains(said), "{}", proxy.log());
        let (status, text) = check(&proxy).await;
        assert_eq!(status, Some(1), "{text}");
        assert!(text.contains(said), "{text}");
    }
    // Files that are not used are not looked at.
    let unused = "mode = \"disabled\"\ncertificate = \"none.pem\"\nkey = \"none.key\"";
    let proxy = Proxy::start(&rig.cluster, &rig.options(unused, "")).await;
    let (_, text) = check(&proxy).await;
    assert!(!text.contains("none.pem"), "{text}");
    let nowhere = Options {
        top: "state_directory = \"/dev/null/state\"".to_owned(),
        ..Options::default()
    };
    let proxy = Proxy::spawn(&addresses(&rig.cluster), &nowhere);
    eventually("the proxy to end", async || proxy.ended().is_some()).await;
    assert!(proxy.log().contains("state_directory: "), "{}", proxy.log());
    let mixed = format!(
        "certificate = {:?}\nkey = {:?}",
        rig.files.path("proxy.pem"),
        rig.files.path("client.key")
    );
    let proxy = Proxy::spawn(&addresses(&rig.cluster), &rig.options(&mixed, ""));
    eventually("the proxy to end", async || proxy.ended().is_some()).await;
    assert!(proxy.log().contains("tls.client"), "{}", proxy.log());
}

/// MySQL makes its own certificates, which bear no name that could be verified.
#[tokio::test]
async fn the_certificates_that_mysql_makes_will_do() {
    let cluster = Cluster::start(Flavor::MySql, 0).await.unwrap();
    let ca = cluster.directory().join("db1/data/ca.pem");
    for server in [
        "mode = \"required\"".to_owned(),
        format!("mode = \"verify-ca\"\nca = {ca:?}"),
    ] {
        let options = Options {
            sections: format!("[tls.server]\n{server}\n"),
            ..Options::default()
        };
        let proxy = Proxy::start(&cluster, &options).await;
        assert_ne!(to_the_server(&mut proxy.connect().await).await, "");
    }
}

/// `dbproxy check` with the proxy's configuration.
async fn check(proxy: &Proxy) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbproxy"));
    command.arg("check").arg("-c").arg(proxy.configuration());
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text)
}
