//! See `stream::receiver`.
#![no_main]

#[path = "../src/stream.rs"]
#[allow(dead_code)]
mod stream;

libfuzzer_sys::fuzz_target!(|data: &[u8]| stream::receiver(data));
