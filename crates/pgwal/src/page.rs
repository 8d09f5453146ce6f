//! WAL page headers. C: access/xlog_internal.h.

use serde::Serialize;

use crate::error::ErrorKind;
use crate::format::{WalFormat, WalMagic};
use crate::lsn::{Lsn, TimelineId};
use crate::wire::{Parsed, Wire, WireError};

/// Bytes of a page header. C: `SizeOfXLogShortPHD`.
pub const SHORT_HEADER_SIZE: usize = 24;
/// Bytes of the header of a segment's first page. C: `SizeOfXLogLongPHD`.
pub const LONG_HEADER_SIZE: usize = 40;

wire_flags! {
    /// C: `xlp_info`. What the bits above these two mean depends on the major: see [`PageHeader::overwrites_contrecord`].
    pub struct PageInfo: u16 {
        /// The page starts with the rest of a record.
        XLP_FIRST_IS_CONTRECORD = 0x0001,
        /// The header is a long one: the first page of a segment.
        XLP_LONG_HEADER = 0x0002,
    }
}

impl PageInfo {
    /// Full-page images on the page may be removed by a compressing archiver; up to 18. C: `XLP_BKP_REMOVABLE`.
    pub const XLP_BKP_REMOVABLE: PageInfo = PageInfo(0x0004);

    /// A record that started before the page was lost; a new one starts here. Up to 18, in minors of 2021-11 and later; 19 took
    /// over the bit that had become free. C: `XLP_FIRST_IS_OVERWRITE_CONTRECORD`.
    pub const fn overwrite_contrecord(fmt: WalFormat) -> PageInfo {
        PageInfo(if fmt.since(19) { 0x0004 } else { 0x0008 })
    }

    /// Every bit that has a meaning. C: `XLP_ALL_FLAGS`.
    pub const fn all(fmt: WalFormat) -> PageInfo {
        PageInfo(if fmt.since(19) { 0x0007 } else { 0x000F })
    }
}

/// Header of a WAL page. C: `XLogPageHeaderData`, 24 bytes, or `XLogLongPageHeaderData`, 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PageHeader {
    /// Tells the format and so the major version. C: `xlp_magic`.
    pub magic: WalMagic,
    /// C: `xlp_info`.
    pub info: PageInfo,
    /// Timeline of the first record on the page. C: `xlp_tli`.
    pub timeline: TimelineId,
    /// LSN of the page's first byte. C: `xlp_pageaddr`.
    pub address: Lsn,
    /// Bytes left of the record that goes on here; zero where none does. C: `xlp_rem_len`.
    pub remaining: u32,
    /// Padding after `xlp_rem_len`; zero in healthy WAL.
    pub padding: u32,
    /// The rest of a long header; `None` in a short one.
    pub long: Option<LongHeader>,
}

/// What only the first page of a segment has. C: `XLogLongPageHeaderData`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LongHeader {
    /// Identifies the cluster, as in pg_control. JSON: a string. C: `xlp_sysid`.
    #[serde(serialize_with = "crate::json::as_string")]
    pub system_identifier: u64,
    /// Bytes in a segment. C: `xlp_seg_size`.
    pub segment_size: u32,
    /// Bytes in a WAL page. C: `xlp_xlog_blcksz`.
    pub wal_page_size: u32,
}

/// Any format will do: page headers have been the same since 9.3.
const ANY: WalFormat = WalFormat::new(10);

impl PageHeader {
    /// Reads the header at the start of `page`; whether it is a long one is up to its flag.
    ///
    /// # Errors
    /// Fewer bytes than the header has.
    pub fn read(page: &[u8]) -> Parsed<'_, PageHeader> {
        let field = |name: &'static str| move |e: WireError| e.in_field(name);
        let (i, magic) = u16::read(page, ANY).map_err(field("xlp_magic"))?;
        let (i, info) = PageInfo::read(i, ANY).map_err(field("xlp_info"))?;
        let (i, timeline) = TimelineId::read(i, ANY).map_err(field("xlp_tli"))?;
        let (i, address) = Lsn::read(i, ANY).map_err(field("xlp_pageaddr"))?;
        let (i, remaining) = u32::read(i, ANY).map_err(field("xlp_rem_len"))?;
        let (mut i, padding) = u32::read(i, ANY).map_err(field("padding after xlp_rem_len"))?;
        let mut long = None;
        if info.contains(PageInfo::XLP_LONG_HEADER) {
            let (rest, system_identifier) = u64::read(i, ANY).map_err(field("xlp_sysid"))?;
            let (rest, segment_size) = u32::read(rest, ANY).map_err(field("xlp_seg_size"))?;
            let (rest, wal_page_size) = u32::read(rest, ANY).map_err(field("xlp_xlog_blcksz"))?;
            (i, long) = (rest, Some(LongHeader { system_identifier, segment_size, wal_page_size }));
        }
        Ok((i, PageHeader { magic: WalMagic(magic), info, timeline, address, remaining, padding, long }))
    }

    /// Appends the header's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.magic.0.write(ANY, out);
        self.info.write(ANY, out);
        self.timeline.write(ANY, out);
        self.address.write(ANY, out);
        self.remaining.write(ANY, out);
        self.padding.write(ANY, out);
        if let Some(long) = self.long {
            long.system_identifier.write(ANY, out);
            long.segment_size.write(ANY, out);
            long.wal_page_size.write(ANY, out);
        }
    }

    /// Bytes that the header takes. C: `XLogPageHeaderSize`.
    pub fn size(&self) -> usize {
        if self.info.contains(PageInfo::XLP_LONG_HEADER) { LONG_HEADER_SIZE } else { SHORT_HEADER_SIZE }
    }

    /// Whether a record that started before the page was lost, and a new one starts here.
    pub fn overwrites_contrecord(&self, fmt: WalFormat) -> bool {
        self.info.contains(PageInfo::overwrite_contrecord(fmt))
    }

    /// The format that a long header describes. It does not tell the block size.
    ///
    /// # Errors
    /// An unknown magic, no long header, or sizes that no server has.
    pub fn format(&self) -> Result<WalFormat, ErrorKind> {
        let Some(major) = self.magic.major() else {
            return Err(ErrorKind::Magic { expected: None, found: self.magic });
        };
        let Some(long) = self.long else {
            return Err(ErrorKind::NoLongHeader { info: self.info.0 });
        };
        if !is_segment_size(long.segment_size) {
            return Err(ErrorKind::SegmentSize { expected: None, found: long.segment_size });
        }
        if !is_wal_page_size(long.wal_page_size) {
            return Err(ErrorKind::WalPageSize { expected: None, found: long.wal_page_size });
        }
        Ok(WalFormat { major, wal_page_size: long.wal_page_size, segment_size: long.segment_size, block_size: 0 })
    }

    /// Checks the header of the page at `at` as the server does, in its order. C: `XLogReaderValidatePageHeader`.
    ///
    /// `previous` is the timeline of an earlier page, where one has been read.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(&self, fmt: WalFormat, at: Lsn, previous: Option<TimelineId>) -> Result<(), ErrorKind> {
        if self.magic.major() != Some(fmt.major) {
            return Err(ErrorKind::Magic { expected: WalMagic::of(fmt.major), found: self.magic });
        }
        if self.info.0 & !PageInfo::all(fmt).0 != 0 {
            return Err(ErrorKind::InfoBits { found: self.info.0 });
        }
        if let Some(long) = self.long {
            if long.segment_size != fmt.segment_size {
                return Err(ErrorKind::SegmentSize { expected: Some(fmt.segment_size), found: long.segment_size });
            }
            if long.wal_page_size != fmt.wal_page_size {
                return Err(ErrorKind::WalPageSize { expected: Some(fmt.wal_page_size), found: long.wal_page_size });
            }
        } else if at.segment_offset(fmt.segment_size) == 0 {
            return Err(ErrorKind::InfoBits { found: self.info.0 });
        }
        if self.address != at {
            return Err(ErrorKind::PageAddress { expected: at, found: self.address });
        }
        match previous {
            Some(previous) if self.timeline < previous => Err(ErrorKind::PageTimeline { previous, found: self.timeline }),
            _ => Ok(()),
        }
    }
}

/// C: `IsValidWalSegSize`.
pub fn is_segment_size(size: u32) -> bool {
    size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size)
}

/// WAL page sizes that `configure --with-wal-blocksize` offers.
pub fn is_wal_page_size(size: u32) -> bool {
    size.is_power_of_two() && (1 << 10..=1 << 16).contains(&size)
}

impl WalFormat {
    /// Bytes of the header of the page at `page`, by its place.
    pub fn page_header_size(self, page: Lsn) -> u64 {
        if page.segment_offset(self.segment_size) == 0 { LONG_HEADER_SIZE as u64 } else { SHORT_HEADER_SIZE as u64 }
    }

    /// Offset of `lsn` in its WAL page.
    #[inline]
    pub fn page_offset(self, lsn: Lsn) -> u64 {
        // The size is a power of two, and every record asks: a mask in the place of a division.
        lsn.0 & u64::from(self.wal_page_size.wrapping_sub(1))
    }

    /// LSN of byte `at` of the record that starts at `record`, whose bytes step over page headers.
    pub fn lsn_in_record(self, record: Lsn, mut at: u64) -> Lsn {
        let mut lsn = record;
        loop {
            let left = u64::from(self.wal_page_size) - self.page_offset(lsn);
            if at < left {
                return lsn + at;
            }
            at -= left;
            lsn = lsn + left;
            lsn = lsn + self.page_header_size(lsn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: PageHeader = PageHeader {
        magic: WalMagic(0xD110),
        info: PageInfo(0x0003),
        timeline: TimelineId(7),
        address: Lsn(0x1_0020_0000),
        remaining: 99,
        padding: 0,
        long: Some(LongHeader { system_identifier: 0x0123_4567_89AB_CDEF, segment_size: 1 << 20, wal_page_size: 8192 }),
    };

    #[test]
    fn headers_round_trip_and_prefixes_fail() {
        let short = PageHeader { info: PageInfo(1), long: None, ..LONG };
        for (header, size) in [(LONG, LONG_HEADER_SIZE), (short, SHORT_HEADER_SIZE)] {
            let mut bytes = Vec::new();
            header.write(&mut bytes);
            assert_eq!(bytes.len(), size);
            assert_eq!(header.size(), size);
            assert_eq!(PageHeader::read(&bytes), Ok((&[][..], header)));
            for len in 0..size {
                assert!(PageHeader::read(&bytes[..len]).is_err(), "{len}");
            }
        }
    }

    #[test]
    fn the_format_comes_from_the_long_header() {
        let fmt = LONG.format().unwrap();
        assert_eq!((fmt.major, fmt.segment_size, fmt.wal_page_size), (15, 1 << 20, 8192));
        let with = |segment_size, wal_page_size| PageHeader {
            long: Some(LongHeader { system_identifier: 1, segment_size, wal_page_size }),
            ..LONG
        };
        for size in [0, 1 << 19, 3 << 20, 1 << 31, u32::MAX] {
            assert_eq!(with(size, 8192).format(), Err(ErrorKind::SegmentSize { expected: None, found: size }));
        }
        for size in [0, 512, 8191, 1 << 17] {
            assert_eq!(with(1 << 24, size).format(), Err(ErrorKind::WalPageSize { expected: None, found: size }));
        }
        let unknown = PageHeader { magic: WalMagic(0x10D1), ..LONG };
        assert!(unknown.format().unwrap_err().to_string().contains("other byte order"));
    }

    #[test]
    fn bytes_of_a_record_step_over_page_headers() {
        let fmt = WalFormat { segment_size: 1 << 20, ..WalFormat::new(15) };
        let start = Lsn(0x1F_FF00);
        assert_eq!(fmt.lsn_in_record(start, 0xFF), Lsn(0x1F_FFFF));
        assert_eq!(fmt.lsn_in_record(start, 0x100), Lsn(0x20_0000 + 40));
        assert_eq!(fmt.lsn_in_record(start, 0x100 + 8192 - 40), Lsn(0x20_2000 + 24));
    }
}
