//! Body of the fuzz target: the configuration of another proxy.

use clap::ValueEnum;

use super::{Format, import};

/// Reads `data` as every format. What is wrong is said without panicking; what comes out is checked by `import` itself.
pub fn run(data: &[u8]) {
    let formats = Format::value_variants().iter().copied().map(Some);
    for format in formats.chain([None]) {
        match import(data, "fuzz", format, None) {
            Ok(written) => assert!(!written.config.cluster.servers.is_empty()),
            Err(error) => {
                assert!(!error.message.is_empty());
                let lines = data.split(|byte| *byte == b'\n').count();
                assert!(
                    error.line.is_none_or(|line| (1..=lines).contains(&line)),
                    "{error}"
                );
            }
        }
    }
}
