//! The `dbproxy` program: arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    dbproxy::cli::run(std::env::args_os())
}
