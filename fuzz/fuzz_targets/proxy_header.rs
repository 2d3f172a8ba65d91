#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dbproxy::net::fuzz::proxy_header(data));
