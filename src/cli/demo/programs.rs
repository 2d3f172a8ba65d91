//! Where the database servers' programs are, and how they are started.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::demo::cluster::{Flavor, LaunchError};

/// The server programs of one flavour on this machine.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    flavor: Flavor,
    /// What is run for the server: the program itself, or the loader of the unpacked system that it belongs to.
    server: Vec<PathBuf>,
    /// Options that every run needs because the files are not where the program was built for.
    relocation: Vec<String>,
    /// MariaDB's script that makes the system tables.
    install_db: Option<PathBuf>,
    /// Where the clients are; without it they are found as every program.
    clients: Option<PathBuf>,
    version: String,
}

impl Programs {
    /// Finds the programs.
    ///
    /// # Errors
    /// [`LaunchError::MissingPrograms`], which says what to run to install them.
    pub(super) fn find(flavor: Flavor) -> Result<Self, LaunchError> {
        match flavor {
            Flavor::MariaDb => Self::mariadb(),
            Flavor::MySql => unpacked_mysql().or_else(installed_mysql),
        }
        .ok_or(LaunchError::MissingPrograms(flavor))
    }

    fn mariadb() -> Option<Self> {
        let server = vec![in_path("mariadbd")?];
        let install_db = Some(in_path("mariadb-install-db")?);
        let version = version_of(&server)?;
        Some(Self {
            flavor: Flavor::MariaDb,
            server,
            relocation: Vec::new(),
            install_db,
            clients: None,
            version,
        })
    }

    /// What the server says to `--version`.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The server, with the options that every run of it needs in front.
    pub(super) fn server(&self) -> Command {
        let mut command = command(&self.server);
        command.arg("--no-defaults").args(&self.relocation);
        if superuser() {
            command.arg("--user=root");
        }
        command
    }

    /// A client program of the same packages: `mysql`, `mariadb-dump`, ...
    pub(super) fn client(&self, name: &str) -> Command {
        let mut command = match (&self.clients, self.server.split_last()) {
            (Some(directory), Some((_, loader))) => {
                let mut words = loader.to_vec();
                words.push(directory.join(name));
                command(&words)
            }
            _ => Command::new(name),
        };
        command.arg("--no-defaults");
        command
    }

    /// A command that makes a new data directory, running the statements of `accounts` (one per line) in it; what it
    /// needs for a while goes to `temporary`.
    pub(super) fn initialize(&self, data: &Path, accounts: &Path, temporary: &Path) -> Command {
        let mut command = match (&self.install_db, self.flavor) {
            (Some(script), Flavor::MariaDb) => {
                let mut command = Command::new(script);
                command.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
                command.args(["--skip-test-db", "--skip-name-resolve"]);
                if superuser() {
                    command.arg("--user=root");
                }
                command.arg(option("--extra-file", accounts));
                command
            }
            _ => {
                let mut command = self.server();
                command
                    .arg("--initialize-insecure")
                    .arg(option("--init-file", accounts));
                command
            }
        };
        command
            .arg(option("--datadir", data))
            .arg(option("--tmpdir", temporary))
            .args(redo_log(self.flavor));
        command
    }
}

/// The redo log's size: small enough to be copied in no time, large enough for rows of 40 MiB.
pub(super) fn redo_log(flavor: Flavor) -> [&'static str; 1] {
    match flavor {
        Flavor::MariaDb => ["--innodb-log-file-size=64M"],
        Flavor::MySql => ["--innodb-redo-log-capacity=64M"],
    }
}

/// `--name=path`, whatever bytes the path has.
pub(super) fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push("=");
    option.push(path);
    option
}

/// Is this process the superuser? The servers refuse to run as root unless told to.
pub(super) fn superuser() -> bool {
    user_id() == Some(0)
}

/// The effective user of this process.
pub(super) fn user_id() -> Option<u32> {
    fs::metadata("/proc/self")
        .ok()
        .map(|metadata| metadata.uid())
}

/// A MySQL server unpacked from a newer Debian, run through that system's own loader.
fn unpacked_mysql() -> Option<Programs> {
    let root = server_directories()
        .into_iter()
        .map(|directory| directory.join("mysql"));
    let root = root
        .into_iter()
        .find(|root| root.join("usr/sbin/mysqld").is_file())?;
    let loader = ["lib64", "lib"].iter().find_map(|directory| {
        entries(&root.join(directory))
            .into_iter()
            .find(|path| file_name(path).starts_with("ld-linux"))
    })?;
    let triplet = entries(&root.join("usr/lib"))
        .into_iter()
        .find(|path| file_name(path).ends_with("-linux-gnu"))?;
    let libraries = format!(
        "{}:{}",
        triplet.display(),
        root.join("usr/lib/mysql/private").display()
    );
    let server = vec![
        loader,
        "--library-path".into(),
        libraries.into(),
        root.join("usr/sbin/mysqld"),
    ];
    let relocation = vec![
        format!("--basedir={}", root.join("usr").display()),
        format!(
            "--lc-messages-dir={}",
            root.join("usr/share/mysql").display()
        ),
        format!(
            "--character-sets-dir={}",
            root.join("usr/share/mysql/charsets").display()
        ),
        format!(
            "--plugin-dir={}",
            root.join("usr/lib/mysql/plugin").display()
        ),
    ];
    let version = version_of(&server)?;
    Some(Programs {
        flavor: Flavor::MySql,
        server,
        relocation,
        install_db: None,
        clients: Some(root.join("usr/bin")),
        version,
    })
}

/// A MySQL server of this system's own packages. `mysqld` may also be a link to MariaDB's server.
fn installed_mysql() -> Option<Programs> {
    let server = vec![in_path("mysqld")?];
    let version = version_of(&server)?;
    let wanted = !version.contains("MariaDB");
    wanted.then_some(Programs {
        flavor: Flavor::MySql,
        server,
        relocation: Vec::new(),
        install_db: None,
        clients: None,
        version,
    })
}

fn server_directories() -> Vec<PathBuf> {
    if let Some(directory) = env::var_os("DBPROXY_SERVERS") {
        return vec![directory.into()];
    }
    let mut directories = vec![PathBuf::from("/var/cache/dbproxy")];
    directories.extend(cache_directory());
    directories
}

/// Where this user's programs keep what can be made again.
pub(super) fn cache_directory() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    cache.is_absolute().then(|| cache.join("dbproxy"))
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let mut directories = env::split_paths(&path).chain(system);
    directories
        .find_map(|directory| Some(directory.join(program)).filter(|candidate| candidate.is_file()))
}

fn command(words: &[PathBuf]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(
        words
            .next()
            .map_or_else(|| Path::new("false"), PathBuf::as_path),
    );
    command.args(words);
    command
}

fn version_of(server: &[PathBuf]) -> Option<String> {
    let output = command(server)
        .args(["--no-defaults", "--version"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}
