#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dbproxy::session::fuzz::hostile_server(data));
