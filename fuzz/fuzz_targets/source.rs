//! See `pgwal_testkit::fuzz::source`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgwal_testkit::fuzz::source(data));
