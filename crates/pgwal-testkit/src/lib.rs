//! WAL builder and fixture loader for pgwal's own tests.

pub mod fixtures;
pub mod read;
pub mod server;
pub mod wal;

pub use pgwal::SegmentName;
pub use wal::example;
