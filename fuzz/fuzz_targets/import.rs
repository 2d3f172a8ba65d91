#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dbproxy::cli::import::fuzz::run(data));
