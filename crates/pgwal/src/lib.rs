//! Decodes PostgreSQL's write-ahead log, majors 10 to 19: bytes in, typed records out.
//!
//! There are three ways in:
//! - [`records`] iterates over mapped [`Segment`]s;
//! - [`Decoder`] is fed chunks of any size and asked for the next record, without any I/O of its own;
//! - [`RawRecord::from_bytes`] takes one record's bytes.
//!
//! Each gives [`RawRecord`]s: whole, with a right CRC. [`RawRecord::decode`] reads block references, page images and main data, and
//! [`Record::payload`] the resource manager's own part, when asked. [`waldump`] and [`json`] show records. [`source::Wal`] and
//! [`scan`](mod@scan) read any number of segments, compressed or in archives, with many threads in bounded memory.
//!
//! The version is data: a [`WalFormat`] comes from each segment's long page header, and there is one struct for each record of all
//! majors. Input is hostile: damage is an [`Error`] with its place, what was expected and what was found, and the end of the WAL is
//! a verdict, [`End`], not an error.

#![deny(missing_docs)]
// What comes in is hostile: nothing that it says may stop the program.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo))]
// A library prints nothing.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

#[macro_use]
pub mod wire;
#[macro_use]
pub mod text;
pub mod aligned;
pub mod backup_label;
pub mod base_backup;
pub mod check;
pub mod datadir;
pub mod diff;
pub mod error;
pub mod filter;
pub mod format;
pub mod frame;
pub mod heap_tuple;
pub mod history;
pub mod index_tuple;
pub mod input_file;
pub mod inval;
pub mod json;
mod keywords;
pub mod lsn;
mod machine;
pub mod names;
mod ordered;
pub mod output_file;
pub mod page;
pub mod printable;
mod processors;
pub mod reach;
pub mod record;
pub mod rmgr;
pub mod scan;
pub mod set;
pub mod source;
pub mod state;
pub mod stats;
pub mod time_input;
pub mod times;
pub mod types;
pub mod usage;
pub mod waldump;
mod zone;

pub use error::{Error, ErrorKind, Location, Result};
pub use format::{WalFormat, WalMagic};
pub use frame::{Decoder, End, EndReason};
pub use lsn::{Lsn, SegmentName, TimelineId};
pub use record::{BlockRef, RawRecord, Record};
pub use rmgr::{Payload, RmgrId};
pub use source::{Records, Segment, records};
