//! See `pgwal_testkit::fuzz::payload`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgwal_testkit::fuzz::payload(data));
