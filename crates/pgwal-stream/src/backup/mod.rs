//! Base backups.

pub mod manifest;
