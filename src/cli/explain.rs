//! `dbproxy explain`: where statements would go, and why, without a server.

use std::io::{self, BufRead, Write};

use clap::{Args, ValueEnum};

use super::{Failure, Status};
use crate::sql::{self, Dialect};

/// What to explain.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The servers' family, which decides how the statements are read
    #[arg(long, value_name = "FLAVOR", default_value = "mysql")]
    flavor: Flavor,

    /// Statements, in the order of one session; without any, one per line from standard input
    #[arg(value_name = "STATEMENT")]
    statements: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flavor {
    #[value(name = "mariadb")]
    MariaDb,
    #[value(name = "mysql")]
    MySql,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Status, Failure> {
    let dialect = match arguments.flavor {
        Flavor::MariaDb => Dialect::of(true, 101_100),
        Flavor::MySql => Dialect::of(false, 80_400),
    };
    if arguments.statements.is_empty() {
        // Statements need not be UTF-8.
        for line in io::stdin().lock().split(b'\n') {
            let line = line?;
            let statement = line.trim_ascii();
            if !statement.is_empty() {
                explain(statement, dialect, out)?;
            }
        }
    }
    for statement in &arguments.statements {
        explain(statement.as_bytes(), dialect, out)?;
    }
    Ok(Status::Fine)
}

fn explain(statement: &[u8], dialect: Dialect, out: &mut dyn Write) -> Result<(), Failure> {
    let class = sql::classify(statement, dialect);
    writeln!(out, "{}", String::from_utf8_lossy(statement))?;
    writeln!(out, "  class   {:?}", class.kind)?;
    writeln!(out, "  reason  {}", class.cause)?;
    writeln!(out, "  digest  {:016x}", class.digest)?;
    Ok(())
}
