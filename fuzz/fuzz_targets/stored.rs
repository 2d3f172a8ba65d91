#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dbproxy_proto::fuzz::stored(data));
