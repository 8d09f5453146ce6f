//! WAL builder and fixture loader for pgwal's own tests.

pub mod fixtures;
pub mod read;
pub mod wal;

pub use wal::example;
