//! What a file is, told by its first bytes.

use std::fmt;

use crate::error::ErrorKind;
use crate::format::WalFormat;
use crate::page::{LONG_HEADER_SIZE, PageHeader};

/// What an input is, by its content; names are not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Compressed; what is inside shows when it is unpacked.
    Packed(Packing),
    /// A tar archive.
    Tar,
    /// Anything else: WAL, or not WAL.
    Plain,
}

/// A compression of whole files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// RFC 1952.
    Gzip,
    /// An LZ4 frame.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// Bytes that tell whether a segment starts here, and what not: zeroes tell an empty segment from a damaged header, so a page is looked at.
pub(super) const FIRST_PAGE: usize = 8192;

impl Kind {
    /// Bytes from the front that [`Kind::of`] looks at.
    pub const LOOK: usize = 512;

    /// Tells by the first [`Kind::LOOK`] bytes, or all where there are fewer.
    pub fn of(front: &[u8]) -> Kind {
        match front {
            [0x1F, 0x8B, 0x08, ..] => Kind::Packed(Packing::Gzip),
            [0x04, 0x22, 0x4D, 0x18, ..] => Kind::Packed(Packing::Lz4),
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Kind::Packed(Packing::Zstd),
            _ if front.get(257..262) == Some(b"ustar") => Kind::Tar,
            _ => Kind::Plain,
        }
    }
}

/// Why bytes are not the start of a WAL segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotWal {
    /// No bytes at all.
    Empty,
    /// Zeroes: a segment that was allocated and never written.
    Zeroed,
    /// Fewer bytes than a page header has.
    TooShort {
        /// Bytes there are.
        len: usize,
    },
    /// The first page header is not that of a segment.
    Header(ErrorKind),
}

impl fmt::Display for NotWal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotWal::Empty => write!(f, "empty, not a WAL segment"),
            NotWal::Zeroed => write!(f, "only zeroes: a segment that was allocated but never written"),
            NotWal::TooShort { len } => {
                write!(f, "only {len} bytes, less than the {LONG_HEADER_SIZE} of the page header that a segment starts with")
            }
            NotWal::Header(ErrorKind::Magic { found, .. }) => {
                if let Some(release) = found.older_release() {
                    write!(f, "WAL of PostgreSQL {release} (page magic {found}); supported are 10 to 19")
                } else if found.is_byte_swapped() {
                    write!(f, "WAL of a machine with the other byte order (page magic {found}); read it on such a machine")
                } else {
                    write!(f, "not a WAL segment: it starts with {found}, which is the page magic of no PostgreSQL from 10 to 19")
                }
            }
            NotWal::Header(ErrorKind::NoLongHeader { .. }) => {
                write!(f, "not the start of a WAL segment: a page of WAL, but without the long header that a segment starts with")
            }
            NotWal::Header(kind) => write!(f, "not a WAL segment: {kind}"),
        }
    }
}

/// Format and header of a segment's first page.
///
/// # Errors
/// The bytes are not the start of a segment.
pub(crate) fn first_page(bytes: &[u8]) -> Result<(WalFormat, PageHeader), NotWal> {
    if bytes.is_empty() {
        return Err(NotWal::Empty);
    }
    let header = match PageHeader::read(bytes) {
        Ok((_, header)) => header,
        Err(_) => return Err(NotWal::TooShort { len: bytes.len() }),
    };
    match header.format() {
        Ok(fmt) => Ok((fmt, header)),
        Err(_) if bytes.iter().take(FIRST_PAGE).all(|&b| b == 0) => Err(NotWal::Zeroed),
        Err(kind) => Err(NotWal::Header(kind)),
    }
}
