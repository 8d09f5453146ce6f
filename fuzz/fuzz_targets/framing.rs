//! See `pgwal_testkit::fuzz::framing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgwal_testkit::fuzz::framing(data));
