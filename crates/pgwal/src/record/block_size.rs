//! The block size that page images show.
//!
//! WAL does not record `BLCKSZ`: a server's own programs are compiled for it. But every healthy page image shows it. An image without a
//! hole is as long as a block once it is unpacked; an image with a hole is a standard page, whose header says how long the page is and
//! where its hole lies.

use super::image::{Image, unpack};
use super::{BlockFlags, MAX_BLOCK_ID, RECORD_HEADER_SIZE, RawRecord, Record, RecordHeader};
use crate::format::{MAX_BLOCK_SIZE, WalFormat, is_block_size};
use crate::lsn::{Lsn, TimelineId};

/// What the page images of a record say about the block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The record has no page image.
    NoImage,
    /// None of its images is in order, or they contradict each other.
    Nothing,
    /// All images that are in order have this size.
    Size(u32),
}

impl Shown {
    /// The size, if there is one.
    pub(crate) fn size(self) -> Option<u32> {
        match self {
            Shown::Size(size) => Some(size),
            Shown::NoImage | Shown::Nothing => None,
        }
    }
}

/// Looks at the page images of a whole record whose checksum is right.
///
/// A size is believed only if everything in the image agrees with it: a changed length or hole must not pass for another block size.
pub(crate) fn shown(record: &[u8], fmt: WalFormat) -> Shown {
    if !has_image(record) {
        return Shown::NoImage;
    }
    let Some(header) = record.first_chunk().map(RecordHeader::from_bytes) else { return Shown::Nothing };
    let (lsn, end, timeline) = (Lsn::INVALID, Lsn::INVALID, TimelineId::default());
    let raw = RawRecord { lsn, end, timeline, overwritten: None, header, bytes: record.into(), fmt };
    let mut parts = Record::unread(&raw);
    if raw.try_parts(&mut parts, fmt.with_block_size(0)).is_err() {
        return Shown::Nothing;
    }
    let mut sizes = parts.blocks.iter().filter_map(|block| block.image.as_ref().and_then(of_image));
    match sizes.next() {
        Some(size) if sizes.all(|other| other == size) => Shown::Size(size),
        _ => Shown::Nothing,
    }
}

/// Whether a record has a page image, by the headers of its block references. This is asked of every record until one has shown the
/// block size.
#[inline]
fn has_image(record: &[u8]) -> bool {
    let mut input = record.get(RECORD_HEADER_SIZE..).unwrap_or_default();
    // Block references come first.
    while let [0..=MAX_BLOCK_ID, flags, ..] = *input {
        if flags & BlockFlags::BKPBLOCK_HAS_IMAGE.0 != 0 {
            return true;
        }
        // Flags, the length of the data, and the block number; the relation, unless it is the one before.
        let len = if flags & BlockFlags::BKPBLOCK_SAME_REL.0 == 0 { 20 } else { 8 };
        input = input.get(len..).unwrap_or_default();
    }
    false
}

/// The block size that an image shows. `hole_length` is not known yet where the image is not compressed.
fn of_image(image: &Image<'_>) -> Option<u32> {
    let unpacked;
    let content = match image.info.compression() {
        None => image.data,
        Some(method) => {
            let limit = MAX_BLOCK_SIZE as usize;
            unpacked = unpack(method, image.data, limit.checked_sub(image.hole_length.into())?).ok()?;
            &unpacked
        }
    };
    let page = content.first_chunk::<PAGE_HEADER_SIZE>().map(StandardHeader::read);
    let size = if !image.info.has_hole() {
        let size = content.len() as u32; // at most a u16, or the limit
        // A page of an access method may have any header; one that reads like a standard page's must agree.
        let disagrees = page.is_some_and(|page| page.is_plausible() && page.size != size);
        (image.hole_offset == 0 && !disagrees).then_some(size)?
    } else {
        let page = page.filter(StandardHeader::is_plausible)?;
        let hole = u32::from(page.upper).checked_sub(page.lower.into())?;
        let stored = if image.info.is_compressed() { u32::from(image.hole_length) } else { hole };
        let agrees = page.lower == image.hole_offset && stored == hole && content.len() as u32 + hole == page.size;
        agrees.then_some(page.size)?
    };
    is_block_size(size).then_some(size)
}

/// Bytes of a page header. C: `SizeOfPageHeaderData`.
const PAGE_HEADER_SIZE: usize = 24;

/// What the header of a standard page says about its layout. C: `PageHeaderData`, storage/bufpage.h.
struct StandardHeader {
    lower: u16,
    upper: u16,
    size: u32,
    version: u8,
}

impl StandardHeader {
    fn read(bytes: &[u8; PAGE_HEADER_SIZE]) -> StandardHeader {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]); // at + 1 < 24
        StandardHeader { lower: u16_at(12), upper: u16_at(14), size: u32::from(u16_at(18) & 0xFF00), version: bytes[18] }
    }

    /// Whether it is a header at all. C: `PG_PAGE_LAYOUT_VERSION` is 4 since 8.3.
    fn is_plausible(&self) -> bool {
        self.version == 4 && is_block_size(self.size) && u32::from(self.lower) >= PAGE_HEADER_SIZE as u32 && self.lower <= self.upper
    }
}
