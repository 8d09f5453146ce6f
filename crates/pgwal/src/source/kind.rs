//! What a file is, told by its first bytes.

use std::fmt;

use serde::Serialize;

use super::name::{NamedForm, SegmentFileName};
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
    /// The .xz format of XZ Utils.
    Xz,
    /// bzip2 of Julian Seward.
    Bzip2,
}

/// What a file is wrapped in that is not unwrapped here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Wrapping {
    /// Brotli, which has no magic number: by the name alone.
    Brotli,
    /// LZMA's own format, before .xz.
    Lzma,
    /// lzop.
    Lzop,
    /// LZ4's format before frames (`lz4 -l`).
    LegacyLz4,
    /// Snappy, framed.
    Snappy,
    /// compress(1).
    Compress,
    /// Compressed with a dictionary, which whoever unpacks it must have (`zstd -D`, `lz4 -D`).
    Dictionary,
    /// Compressed in a way that takes more memory to unpack than this program gives it (`zstd --long=31`).
    LargeWindow,
    /// A zip archive.
    Zip,
    /// A 7z archive.
    SevenZip,
    /// A RAR archive.
    Rar,
    /// RFC 9580: GnuPG and others.
    OpenPgp,
    /// age-encryption.org.
    Age,
    /// `openssl enc`, and repositories of pgBackRest with a cipher.
    OpenSsl,
    /// By its name.
    Encrypted,
}

impl Wrapping {
    /// Tells by the first bytes.
    fn of(front: &[u8]) -> Option<Wrapping> {
        Some(match front {
            [0x89, b'L', b'Z', b'O', 0, b'\r', b'\n', 0x1A, b'\n', ..] => Wrapping::Lzop,
            [0x02, 0x21, 0x4C, 0x18, ..] => Wrapping::LegacyLz4,
            [0xFF, 6, 0, 0, b's', b'N', b'a', b'P', b'p', b'Y', ..] => Wrapping::Snappy,
            // Properties, the size of the dictionary, and that of the content, which is not told or below 2^40.
            [0x5D, 0, 0, _, _, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, ..] | [0x5D, 0, 0, _, _, _, _, _, _, _, 0, 0, 0, ..] => {
                Wrapping::Lzma
            }
            [0x1F, 0x9D | 0xA0, ..] => Wrapping::Compress,
            [b'P', b'K', 3, 4, ..] => Wrapping::Zip,
            [b'7', b'z', 0xBC, 0xAF, 0x27, 0x1C, ..] => Wrapping::SevenZip,
            [b'R', b'a', b'r', b'!', 0x1A, 7, ..] => Wrapping::Rar,
            [b'S', b'a', b'l', b't', b'e', b'd', b'_', b'_', ..] => Wrapping::OpenSsl,
            _ if front.starts_with(b"-----BEGIN PGP MESSAGE") || is_openpgp(front) => Wrapping::OpenPgp,
            _ if front.starts_with(b"age-encryption.org/") || front.starts_with(b"-----BEGIN AGE ENCRYPTED FILE") => Wrapping::Age,
            _ => return None,
        })
    }
}

/// Whether these are the first bytes of an encrypted message of OpenPGP: a packet with a session key, for a key (tag 1) or for a passphrase
/// (tag 3), of a version and with algorithms that there are. RFC 9580, sections 4.2 and 5.
fn is_openpgp(front: &[u8]) -> bool {
    let (tag, body) = match *front {
        // Of the old form, with the length in one byte or in two.
        [first @ (0x84 | 0x8C), _, ref body @ ..] | [first @ (0x85 | 0x8D), _, _, ref body @ ..] => ((first & 0x3C) >> 2, body),
        // Of the new form, likewise.
        [first @ (0xC1 | 0xC3), 0..=191, ref body @ ..] | [first @ (0xC1 | 0xC3), 192..=223, _, ref body @ ..] => (first & 0x3F, body),
        _ => return false,
    };
    match (tag, body) {
        // Version, eight bytes of key id, algorithm of the key; or version 6.
        (1, [3, _, _, _, _, _, _, _, _, 1..=30, ..]) | (1, [6, ..]) => true,
        // Version, cipher, how the passphrase becomes a key.
        (3, [4, 1..=13, 0 | 1 | 3 | 4, ..]) | (3, [5 | 6, ..]) => true,
        _ => false,
    }
}

impl fmt::Display for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrapping::Brotli => "compressed with Brotli, by its name",
            Wrapping::Lzma => "compressed with LZMA",
            Wrapping::Lzop => "compressed with lzop",
            Wrapping::LegacyLz4 => "compressed in the legacy format of LZ4 (lz4 -l)",
            Wrapping::Snappy => "compressed with Snappy",
            Wrapping::Compress => "compressed with compress",
            Wrapping::Dictionary => "compressed with a dictionary, which is not in the file",
            Wrapping::LargeWindow => "compressed with a window or dictionary that takes too much memory to unpack here",
            Wrapping::Zip => "a zip archive",
            Wrapping::SevenZip => "a 7z archive",
            Wrapping::Rar => "a RAR archive",
            Wrapping::OpenPgp => "encrypted with OpenPGP (gpg)",
            Wrapping::Age => "encrypted with age",
            Wrapping::OpenSsl => "encrypted with OpenSSL",
            Wrapping::Encrypted => "encrypted, by its name",
        })
    }
}

/// Bytes that tell whether a segment starts here, and what not: zeroes tell an empty segment from a damaged header, so a page is looked at.
pub(super) const FIRST_PAGE: usize = 8192;

impl Kind {
    /// Bytes from the front that [`Kind::of`] looks at.
    pub const LOOK: usize = 512;

    /// Bytes from the front that tell one compression from another.
    pub(super) const LOOK_PACKED: usize = 10;

    /// Tells by the first [`Kind::LOOK`] bytes, or all where there are fewer.
    pub fn of(front: &[u8]) -> Kind {
        match front {
            [0x1F, 0x8B, 0x08, ..] => Kind::Packed(Packing::Gzip),
            [0x04, 0x22, 0x4D, 0x18, ..] => Kind::Packed(Packing::Lz4),
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Kind::Packed(Packing::Zstd),
            [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Kind::Packed(Packing::Xz),
            // Behind the block size, the first block, or the end.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Kind::Packed(Packing::Bzip2),
            _ if front.get(257..262) == Some(b"ustar") => Kind::Tar,
            // pzstd begins each of its frames with one that says how long it is.
            _ => match skippable_frame(front).and_then(|len| front.get(usize::try_from(len).ok()?..)) {
                Some(rest) if matches!(Kind::of(rest), Kind::Packed(Packing::Zstd | Packing::Lz4)) => Kind::of(rest),
                _ => Kind::Plain,
            },
        }
    }
}

/// Bytes of the frame that starts here, where it is one that decoders of LZ4 and Zstandard pass over. RFC 8878, section 3.1.2.
pub(super) fn skippable_frame(front: &[u8]) -> Option<u64> {
    match *front {
        [0x50..=0x5F, 0x2A, 0x4D, 0x18, a, b, c, d, ..] => Some(8 + u64::from(u32::from_le_bytes([a, b, c, d]))),
        _ => None,
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
    /// Compressed or encrypted in a way that is not read.
    Wrapped(Wrapping),
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
            NotWal::Wrapped(wrapping) => write!(f, "not read: {wrapping}"),
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

/// What a file is wrapped in that has the name `file` and these first bytes, where that is not unwrapped here. A suffix tells of what has
/// no magic number, unless WAL is inside.
pub(crate) fn wrapping(front: &[u8], file: &str) -> Option<Wrapping> {
    match (first_page(front), SegmentFileName::parse(file).map(|name| name.form)) {
        (Err(NotWal::Wrapped(wrapping)), _) => Some(wrapping),
        (Err(NotWal::Header(ErrorKind::Magic { .. }) | NotWal::TooShort { .. }), Some(NamedForm::Wrapped(wrapping))) => Some(wrapping),
        _ => None,
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
        Err(kind) => Err(Wrapping::of(bytes).map_or(NotWal::Header(kind), NotWal::Wrapped)),
    }
}
