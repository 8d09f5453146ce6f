//! One file for each command.

pub mod basebackup;
pub mod diff;
pub mod doctor;
pub mod dump;
pub mod names;
pub mod receive;
pub mod slot;
pub mod stats;
pub mod verify;
