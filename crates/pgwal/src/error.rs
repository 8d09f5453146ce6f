//! Errors: where it happened, what was expected, what was found.

use std::fmt;

use serde::Serialize;

use crate::format::{MAGICS, WalMagic};
use crate::lsn::{Lsn, SegmentName, TimelineId};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Damage, with its place. Boxed, so that the good path stays small.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<(ErrorKind, Location)>);

/// A place in the WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Location {
    /// Segment that holds the byte.
    pub segment: SegmentName,
    /// Offset of the byte in the segment.
    pub offset: u64,
    /// LSN of the byte.
    pub lsn: Lsn,
    /// Start of the record that the byte belongs to, where there is one.
    pub record: Option<Lsn>,
}

/// What is wrong: one variant per check, with its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The page does not start with a magic that a supported major writes.
    Magic {
        /// The magic of the WAL read so far, if any was.
        expected: Option<WalMagic>,
        /// What the page has.
        found: WalMagic,
    },
    /// The segment does not start with a long page header, which has the format of everything after it.
    NoLongHeader {
        /// `xlp_info` of its first page.
        info: u16,
    },
    /// `xlp_info` has bits that no version defines, or a short header where a segment starts.
    InfoBits {
        /// `xlp_info`.
        found: u16,
    },
    /// `xlp_pageaddr` is of another place: the page is left over from an earlier use of the file, or copied.
    PageAddress {
        /// LSN of the page's place.
        expected: Lsn,
        /// `xlp_pageaddr`.
        found: Lsn,
    },
    /// The page's timeline is older than that of the page before.
    PageTimeline {
        /// Timeline of the page before.
        previous: TimelineId,
        /// `xlp_tli`.
        found: TimelineId,
    },
    /// `xlp_seg_size` is not a power of two from 1 MB to 1 GB, or not that of the WAL before.
    SegmentSize {
        /// Size of the segments before, if known.
        expected: Option<u32>,
        /// `xlp_seg_size`.
        found: u32,
    },
    /// `xlp_xlog_blcksz` is not a power of two from 1 kB to 64 kB, or not that of the WAL before.
    WalPageSize {
        /// Size of the pages before, if known.
        expected: Option<u32>,
        /// `xlp_xlog_blcksz`.
        found: u32,
    },
    /// A record was looked for inside a page header.
    InsidePageHeader {
        /// Size of the page header.
        header: u32,
    },
    /// A record was looked for where the page says that an earlier record goes on.
    ContinuationAtStart,
    /// The page header does not say that the record goes on here.
    NoContinuation,
    /// `xlp_rem_len` is not what is left of the record.
    ContinuationLength {
        /// Bytes of the record that are missing.
        expected: u64,
        /// `xlp_rem_len`.
        found: u32,
    },
    /// `xl_tot_len` is less than a record header.
    RecordLength {
        /// `xl_tot_len`.
        found: u32,
    },
    /// `xl_tot_len` is more than a server of this major replays: see [`crate::record::max_record_size`].
    RecordTooLong {
        /// `xl_tot_len`.
        found: u32,
    },
    /// `xl_rmid` is of no resource manager in this major.
    ResourceManager {
        /// `xl_rmid`.
        found: u8,
    },
    /// `xl_prev` does not point to the record before.
    PreviousLink {
        /// Start of the record before; `None`: unknown, any earlier place would have done.
        expected: Option<Lsn>,
        /// `xl_prev`.
        found: Lsn,
    },
    /// The record's checksum is wrong.
    Crc {
        /// CRC-32C of its bytes.
        expected: u32,
        /// `xl_crc`.
        found: u32,
    },
    /// Block references are not in ascending order.
    BlockOrder {
        /// Id of the block reference.
        id: u8,
        /// Highest id so far.
        after: u8,
    },
    /// An id that is neither a block reference nor another known part.
    BlockId {
        /// The id.
        found: u8,
    },
    /// The flag and the length of a block's data contradict each other.
    BlockData {
        /// Id of the block reference.
        id: u8,
        /// `BKPBLOCK_HAS_DATA`.
        has_data: bool,
        /// Length of the data.
        len: u16,
    },
    /// The first block reference says that it has the relation of the one before.
    NoPreviousRelation {
        /// Id of the block reference.
        id: u8,
    },
    /// Flags, hole and length of a page image contradict each other.
    ImageHole {
        /// `BKPIMAGE_HAS_HOLE`.
        has_hole: bool,
        /// Bytes before the hole.
        offset: u16,
        /// Bytes of the hole.
        length: u16,
        /// Bytes of the image.
        image: u16,
    },
    /// A compressed image is as long as the page.
    ImageCompressedLength {
        /// Bytes of the image.
        image: u16,
    },
    /// An image with neither hole nor compression is not as long as the page.
    ImageLength {
        /// Bytes of the image.
        image: u16,
        /// Bytes of the page.
        expected: u32,
    },
    /// Header and data of the record do not add up to its length.
    RecordLayout {
        /// Part that the bytes run out in, or are left over after.
        field: &'static str,
        /// Bytes that the header speaks of.
        needed: u64,
        /// Bytes that are there.
        left: u64,
    },
    /// A field of the payload is cut short.
    Truncated {
        /// C struct and field.
        field: &'static str,
        /// Bytes missing.
        needed: usize,
    },
    /// A field of the payload has a value that the format does not allow.
    Value {
        /// C struct and field.
        field: &'static str,
        /// What the format allows.
        expected: &'static str,
        /// The value.
        found: u64,
    },
    /// The payload has bytes after its end.
    TrailingBytes {
        /// C struct that was read.
        after: &'static str,
        /// Bytes left.
        count: usize,
    },
    /// The page image does not decompress to a page.
    Decompress {
        /// `pglz`, `lz4` or `zstd`.
        method: &'static str,
        /// What the decompressor says.
        reason: String,
    },
}

impl Error {
    /// `kind`, found at `location`.
    pub fn new(kind: ErrorKind, location: Location) -> Error {
        Error(Box::new((kind, location)))
    }

    /// What is wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.0
    }

    /// Where.
    pub fn location(&self) -> Location {
        self.0.1
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:0x{:x} ({})", self.segment, self.offset, self.lsn)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, location) = &*self.0;
        write!(f, "{location}: {kind}")?;
        match location.record {
            Some(record) if record != location.lsn => write!(f, ", in the record at {record}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.kind(), self.location())
    }
}

impl std::error::Error for Error {}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ErrorKind::*;
        match *self {
            Magic { expected: Some(expected), found } => write!(f, "xlp_magic: expected {expected}, found {found}{}", Origin(found)),
            Magic { expected: None, found } => {
                write!(f, "xlp_magic: found {found}{}, expected one of", Origin(found))?;
                MAGICS.iter().try_for_each(|(magic, major)| write!(f, " {magic} ({major})"))
            }
            NoLongHeader { info } => write!(f, "xlp_info: expected a long page header (0002), found {info:04X}"),
            InfoBits { found } => {
                write!(f, "xlp_info: expected only bits that have a meaning, and 0002 where a segment starts; found {found:04X}")
            }
            PageAddress { expected, found } => write!(f, "xlp_pageaddr: expected {expected}, found {found}"),
            PageTimeline { previous, found } => write!(f, "xlp_tli: expected {previous} or later, found {found}"),
            SegmentSize { expected: Some(expected), found } => write!(f, "xlp_seg_size: expected {expected}, found {found}"),
            SegmentSize { expected: None, found } => write!(f, "xlp_seg_size: expected a power of two from 1 MB to 1 GB, found {found}"),
            WalPageSize { expected: Some(expected), found } => write!(f, "xlp_xlog_blcksz: expected {expected}, found {found}"),
            WalPageSize { expected: None, found } => {
                write!(f, "xlp_xlog_blcksz: expected a power of two from 1024 to 65536, found {found}")
            }
            InsidePageHeader { header } => write!(f, "expected a record, found the page header of {header} bytes"),
            ContinuationAtStart => write!(f, "expected the start of a record, found the rest of an earlier one (XLP_FIRST_IS_CONTRECORD)"),
            NoContinuation => write!(f, "xlp_info: expected XLP_FIRST_IS_CONTRECORD, since a record goes on here; it is not set"),
            ContinuationLength { expected, found } => write!(f, "xlp_rem_len: expected {expected}, found {found}"),
            RecordLength { found } => write!(f, "xl_tot_len: expected at least 24, found {found}"),
            RecordTooLong { found } => {
                write!(f, "xl_tot_len: expected at most 1069547520 (before PostgreSQL 16: less than 1 GB), found {found}")
            }
            ResourceManager { found } => write!(f, "xl_rmid: no resource manager has id {found}"),
            PreviousLink { expected: Some(expected), found } => write!(f, "xl_prev: expected {expected}, found {found}"),
            PreviousLink { expected: None, found } => write!(f, "xl_prev: expected an earlier record, found {found}"),
            Crc { expected, found } => write!(f, "xl_crc: the bytes have {expected:08X}, the header says {found:08X}"),
            BlockOrder { id, after } => write!(f, "block_id: expected more than {after}, found {id}"),
            BlockId { found } => write!(f, "block_id: no part of a record has id {found}"),
            BlockData { id, has_data, len } => {
                let state = if has_data { "is" } else { "is not" };
                write!(f, "block {id}: BKPBLOCK_HAS_DATA {state} set, but data_length is {len}")
            }
            NoPreviousRelation { id } => write!(f, "block {id}: BKPBLOCK_SAME_REL is set, but no relation came before"),
            ImageHole { has_hole, offset, length, image } => {
                let state = if has_hole { "is" } else { "is not" };
                write!(f, "BKPIMAGE_HAS_HOLE {state} set, but the image has hole offset {offset}, hole length {length}, {image} bytes")
            }
            ImageCompressedLength { image } => write!(f, "bimg_len: a compressed image has a whole page's {image} bytes"),
            ImageLength { image, expected } => write!(f, "bimg_len: expected {expected}, found {image}"),
            RecordLayout { field, needed, left } => write!(f, "{field}: expected {needed} bytes, found {left}"),
            Truncated { field, needed } => write!(f, "{field}: {needed} more byte{} needed", if needed == 1 { "" } else { "s" }),
            Value { field, expected, found } => write!(f, "{field}: expected {expected}, found {found}"),
            TrailingBytes { after, count } => write!(f, "{count} byte{} left over after {after}", if count == 1 { "" } else { "s" }),
            Decompress { method, ref reason } => write!(f, "the page image ({method}) does not decompress to a page: {reason}"),
        }
    }
}

/// What is known of a magic that is not supported.
struct Origin(WalMagic);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(major) = self.0.major() {
            write!(f, " (PostgreSQL {major})")
        } else if let Some(release) = self.0.older_release() {
            write!(f, " (PostgreSQL {release}, too old)")
        } else if self.0.is_byte_swapped() {
            write!(f, " (WAL of a machine with the other byte order)")
        } else {
            Ok(())
        }
    }
}
