//! One file for each command.

pub mod basebackup;
pub mod diff;
pub mod dump;
pub mod names;
pub mod receive;
pub mod stats;
pub mod verify;
