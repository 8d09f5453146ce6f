//! Decodes PostgreSQL's write-ahead log, majors 10 to 19.

#[macro_use]
pub mod wire;
#[macro_use]
pub mod text;
pub mod error;
pub mod filter;
pub mod format;
pub mod frame;
pub mod heap_tuple;
pub mod index_tuple;
pub mod inval;
pub mod json;
pub mod lsn;
pub mod page;
pub mod record;
pub mod rmgr;
pub mod scan;
pub mod source;
pub mod stats;
pub mod types;
pub mod waldump;
mod zone;

pub use error::{Error, ErrorKind, Location, Result};
pub use format::{WalFormat, WalMagic};
pub use frame::{Decoder, End, EndReason};
pub use lsn::{Lsn, SegmentName, TimelineId};
pub use record::{BlockRef, RawRecord, Record};
pub use rmgr::{Payload, RmgrId};
pub use source::{Records, Segment, records};
