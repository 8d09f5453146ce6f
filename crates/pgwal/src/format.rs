//! Versions as data: what a segment's long page header says about the format of everything after it.

use std::fmt;

use serde::{Serialize, Serializer};

/// Size of a heap or index page (`BLCKSZ`) that almost every server is built with.
pub const DEFAULT_BLOCK_SIZE: u32 = 8192;
/// Largest size of a heap or index page that a server can be built with.
pub const MAX_BLOCK_SIZE: u32 = 32768;

/// Sizes of heap and index pages that `configure --with-blocksize` offers.
pub const fn is_block_size(size: u32) -> bool {
    size.is_power_of_two() && size >= 1024 && size <= MAX_BLOCK_SIZE
}

/// The magic number at the start of every WAL page; it changes with the WAL format. C: `XLOG_PAGE_MAGIC`, access/xlog_internal.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WalMagic(pub u16);

/// One row per format: page magic and the major version that writes it.
///
/// A new major adds its row here. 19's number is that of its first release candidate.
pub const MAGICS: &[(WalMagic, u8)] = &[
    (WalMagic(0xD097), 10),
    (WalMagic(0xD098), 11),
    (WalMagic(0xD101), 12),
    (WalMagic(0xD106), 13),
    (WalMagic(0xD10D), 14),
    (WalMagic(0xD110), 15),
    (WalMagic(0xD113), 16),
    (WalMagic(0xD116), 17),
    (WalMagic(0xD118), 18),
    (WalMagic(0xD122), 19),
];

/// One row per major: the version number of its system catalogs. C: `CATALOG_VERSION_NO`, catalog/catversion.h.
///
/// It is part of the name of the folder that each major has in a tablespace. 19's is that of its first release candidate.
pub const CATALOG_VERSIONS: &[(u8, u32)] = &[
    (10, 201_707_211),
    (11, 201_809_051),
    (12, 201_909_212),
    (13, 202_007_201),
    (14, 202_107_181),
    (15, 202_209_061),
    (16, 202_307_071),
    (17, 202_406_281),
    (18, 202_506_291),
    (19, 202_610_061),
];

/// Magics of majors that came before the supported ones, to say what such a file is.
const OLDER_MAGICS: &[(u16, &str)] =
    &[(0xD064, "9.0"), (0xD066, "9.1"), (0xD071, "9.2"), (0xD075, "9.3"), (0xD07E, "9.4"), (0xD087, "9.5"), (0xD093, "9.6")];

impl WalMagic {
    /// The supported major version with this magic.
    pub fn major(self) -> Option<u8> {
        MAGICS.iter().find(|row| row.0 == self).map(|row| row.1)
    }

    /// The magic that `major` writes.
    pub fn of(major: u8) -> Option<WalMagic> {
        MAGICS.iter().find(|row| row.1 == major).map(|row| row.0)
    }

    /// Name of a release too old to be supported that wrote this magic.
    pub fn older_release(self) -> Option<&'static str> {
        OLDER_MAGICS.iter().find(|row| row.0 == self.0).map(|row| row.1)
    }

    /// The magic of a machine with the other byte order, when it is one we know.
    pub fn is_byte_swapped(self) -> bool {
        WalMagic(self.0.swap_bytes()).major().is_some()
    }
}

impl fmt::Display for WalMagic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", self.0)
    }
}

impl Serialize for WalMagic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Everything that decoding depends on; small, passed down by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct WalFormat {
    /// Major version of the server that wrote the WAL: 10 to 19.
    pub major: u8,
    /// Bytes in a WAL page (`XLOG_BLCKSZ`), a power of two from 1 kB to 64 kB.
    pub wal_page_size: u32,
    /// Bytes in a segment, a power of two from 1 MB to 1 GB.
    pub segment_size: u32,
    /// Bytes in a heap or index page (`BLCKSZ`), a power of two from 1 kB to 32 kB; zero while it is not known.
    ///
    /// The WAL does not record it, so a format that comes from a page header has zero here. Whoever knows better says so: the user, the
    /// `pg_control` of a data directory ([`crate::source::Wal`] asks it), or the server that sends the WAL. Otherwise the reader of records takes
    /// the size from the first page image that shows it, and the records that it returns have that size in their format. Nothing in the
    /// WAL depends on the size but page images; one that is read without it is taken for [`DEFAULT_BLOCK_SIZE`].
    pub block_size: u32,
}

impl WalFormat {
    /// The usual format of `major`: WAL pages and blocks of 8 kB, segments of 16 MB.
    pub const fn new(major: u8) -> WalFormat {
        WalFormat { major, wal_page_size: 8192, segment_size: 16 << 20, block_size: DEFAULT_BLOCK_SIZE }
    }

    /// The same with another block size; zero: not known.
    pub const fn with_block_size(self, block_size: u32) -> WalFormat {
        WalFormat { block_size, ..self }
    }

    /// The block size, [`DEFAULT_BLOCK_SIZE`] while it is not known.
    pub const fn known_block_size(self) -> u32 {
        if self.block_size == 0 { DEFAULT_BLOCK_SIZE } else { self.block_size }
    }

    /// Whether `other` is the same, as far as both are known: only the block size can be unknown.
    pub fn is_same_wal(self, other: WalFormat) -> bool {
        let is_known = self.block_size != 0 && other.block_size != 0;
        self == if is_known { other } else { other.with_block_size(self.block_size) }
    }

    /// Version number of the major's system catalogs; zero for a major without a row in [`CATALOG_VERSIONS`].
    pub fn catalog_version(self) -> u32 {
        CATALOG_VERSIONS.iter().find(|row| row.0 == self.major).map_or(0, |row| row.1)
    }

    /// Whether the WAL is of `major` or newer.
    pub const fn since(self, major: u8) -> bool {
        self.major >= major
    }
}

/// A closed range of major versions, for rows of version-dependent data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Majors {
    first: u8,
    last: u8,
}

impl Majors {
    /// Every supported major.
    pub const ALL: Majors = Majors { first: 10, last: u8::MAX };

    /// `first` and every later one.
    pub const fn since(first: u8) -> Majors {
        Majors { first, last: u8::MAX }
    }

    /// Every one up to `last`, itself included.
    pub const fn until(last: u8) -> Majors {
        Majors { first: 10, last }
    }

    /// From `first` to `last`, both included.
    pub const fn between(first: u8, last: u8) -> Majors {
        Majors { first, last }
    }

    /// Whether `major` is in the range.
    pub const fn contains(self, major: u8) -> bool {
        self.first <= major && major <= self.last
    }
}
