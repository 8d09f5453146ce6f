//! WAL builder, fixture loader and bodies of the fuzz targets, for pgwal's own tests.

pub mod fixtures;
pub mod fuzz;
pub mod json;
pub mod read;
pub mod server;
pub mod wal;

pub use pgwal::{SegmentName, aligned};
pub use wal::example;
