//! Data directories with the accounts in them, made once for each server version.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::demo::directory::{self, PrivateDirectory};
use crate::cli::demo::error::{LaunchError, key, system};
use crate::cli::demo::programs::Programs;
use crate::topology::Flavor;

/// What `app` may do everywhere: all that applications need, and nothing that overrides read_only.
pub const APPLICATION_PRIVILEGES: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, \
    SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, \
    ALTER ROUTINE, EVENT, TRIGGER, PROCESS, RELOAD";

/// A data directory that has the accounts, and that no server runs on. Servers get copies.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) data: PathBuf,
}

impl Template {
    /// Finds the template of this server version, or makes it. Several processes may ask at once.
    pub(super) fn prepare(programs: &Programs, flavor: Flavor) -> Result<Self, LaunchError> {
        let shared = directory::shared().map_err(system("making the cache directory"))?;
        let accounts = accounts(flavor);
        let key = format!(
            "{}-{:016x}",
            key(flavor),
            fingerprint(&[programs.version(), &accounts])
        );
        let data = shared.join(&key);
        let lock = File::create(shared.join(format!("{key}.lock")))
            .map_err(system("locking a template"))?;
        lock.lock().map_err(system("locking a template"))?;
        if !data.exists() {
            let scratch =
                PrivateDirectory::create().map_err(system("making a private directory"))?;
            let file = scratch.path().join("accounts.sql");
            fs::write(&file, accounts).map_err(system("writing the accounts"))?;
            let fresh = scratch.path().join("data");
            let output = programs
                .initialize(&fresh, &file, scratch.path())
                .output()
                .map_err(system("initialising a server"))?;
            if !output.status.success() {
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(LaunchError::Server(format!(
                    "initialising {flavor} failed:\n{text}"
                )));
            }
            // Every MySQL server makes its own identity when this file is missing.
            let _ = fs::remove_file(fresh.join("auto.cnf"));
            // A process that dies in the middle leaves only this, which the next one removes.
            let unfinished = shared.join(format!("{key}.unfinished"));
            let _ = fs::remove_dir_all(&unfinished);
            copy_directory(&fresh, &unfinished).map_err(system("keeping a template"))?;
            fs::rename(&unfinished, &data).map_err(system("keeping a template"))?;
        }
        Ok(Self { data })
    }
}

fn accounts(flavor: Flavor) -> String {
    let (before, monitor) = match flavor {
        // While the system tables are being made no account exists in memory.
        Flavor::MariaDb => (
            "FLUSH PRIVILEGES;\nDELETE FROM mysql.global_priv WHERE User='' OR User='root' AND Host<>'localhost';\n\
             FLUSH PRIVILEGES;\n",
            "PROCESS, REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR, REPLICATION SLAVE ADMIN, \
             REPLICATION MASTER ADMIN, READ_ONLY ADMIN, CONNECTION ADMIN",
        ),
        Flavor::MySql => (
            "",
            "PROCESS, REPLICATION SLAVE, REPLICATION CLIENT, REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, \
             CONNECTION_ADMIN",
        ),
    };
    let routines = match flavor {
        Flavor::MariaDb => "",
        Flavor::MySql => "GRANT SHOW_ROUTINE ON *.* TO dbproxy@'%';\n",
    };
    format!(
        "{before}\
         CREATE USER repl@'%' IDENTIFIED BY 'repl';\n\
         GRANT REPLICATION SLAVE ON *.* TO repl@'%';\n\
         CREATE USER app@'%' IDENTIFIED BY 'app';\n\
         GRANT {APPLICATION_PRIVILEGES} ON *.* TO app@'%';\n\
         CREATE USER dbproxy@'%' IDENTIFIED BY 'dbproxy';\n\
         GRANT {monitor} ON *.* TO dbproxy@'%';\n\
         GRANT SELECT, SHOW VIEW ON *.* TO dbproxy@'%';\n\
         {routines}\
         CREATE DATABASE test;\n\
         CREATE TABLE test.where_am_i (name VARCHAR(64) PRIMARY KEY) ENGINE=InnoDB;\n"
    )
}

/// Copies a directory with everything in it.
pub(super) fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A number that differs when the texts differ, the same in every process.
fn fingerprint(texts: &[&str]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(texts.join("\n").as_bytes())
}
