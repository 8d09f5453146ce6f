//! Telling kinds of damage apart by what the bytes look like.

use super::finding::Class;
use crate::format::{WalFormat, WalMagic};
use crate::frame::{Framer, Step};
use crate::lsn::{Lsn, SegmentName};
use crate::page::{PageHeader, SHORT_HEADER_SIZE};
use crate::record::{RECORD_HEADER_SIZE, RawRecord, RecordHeader, is_rmgr};
use crate::wire::Wire;

/// Bytes that a disk writes at once.
pub(super) const SECTOR: u64 = 512;
/// Bytes that the operating system writes at once.
pub(super) const OS_PAGE: u64 = 4096;

/// What happened to the page at `lsn`, whose header is not the one that should be there.
pub(super) fn of_page(bytes: &[u8], header: &PageHeader, lsn: Lsn, fmt: WalFormat) -> Class {
    let zeroes = bytes.iter().position(|&byte| byte != 0).map_or(u64::MAX, |at| at as u64);
    if zeroes == u64::MAX {
        return Class::ZeroedPage;
    }
    if zeroes >= SECTOR {
        return Class::TornPage { sector: if zeroes >= OS_PAGE { OS_PAGE as u32 } else { SECTOR as u32 } };
    }
    match (header.magic.major(), WalMagic::of(fmt.major)) {
        // A page among those of another major is damaged.
        (Some(major), Some(expected)) if major != fmt.major && lsn.segment_offset(fmt.segment_size) == 0 => {
            Class::WrongMajor { expected, found: header.magic }
        }
        (Some(_), _)
            if header.address != lsn && header.address.segment_offset(fmt.segment_size) == lsn.segment_offset(fmt.segment_size) =>
        {
            let from = SegmentName::of(header.timeline, header.address, fmt.segment_size);
            Class::RecycledPage { from, address: header.address }
        }
        _ => Class::Corrupted,
    }
}

/// Whether the content around the page at `lsn` is displaced: its header, or that of the next page, stands elsewhere in `bytes`.
pub(super) fn of_displaced(bytes: &[u8], lsn: Lsn, fmt: WalFormat) -> Option<Class> {
    let [low, high] = WalMagic::of(fmt.major)?.0.to_le_bytes();
    let size = i64::from(fmt.wal_page_size);
    let has_magic = |header: &[u8]| matches!(header, [a, b, ..] if *a == low && *b == high);
    let found = bytes.windows(SHORT_HEADER_SIZE).enumerate().filter(|(_, header)| has_magic(header)).find_map(|(at, header)| {
        let address = address_in(header)?;
        let at = i64::try_from(at).ok()?;
        if address == lsn { Some(at) } else { (address == lsn + u64::from(fmt.wal_page_size)).then_some(at - size) }
    });
    // By whole pages, the next one must say so, too: a single address may be wrong.
    let next = usize::try_from(size).ok().and_then(|size| bytes.get(size..)).and_then(address_in);
    let is_confirmed = |by: i64| by % size != 0 || next.is_some_and(|next| u64::try_from(size - by) == Ok(next - lsn));
    let by = found.filter(|by| *by != 0 && is_confirmed(*by))?;
    let line_feeds = || bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let has_return = |at: usize| at.checked_sub(1).and_then(|at| bytes.get(at)).is_none_or(|&byte| byte == b'\r');
    let text_mode = by > 0 && line_feeds().count() > 2 && line_feeds().all(has_return);
    Some(Class::Displaced { by, text_mode })
}

/// `xlp_pageaddr` of the page header at the start of `bytes`.
fn address_in(bytes: &[u8]) -> Option<Lsn> {
    Some(Lsn(u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?)))
}

/// What happened to a record that no single bit explains: `bytes` go from it, at `start`, to the end of the page at which it failed.
/// Where that is a part of a page that was not written, where the part begins.
pub(super) fn of_record(bytes: &[u8], start: Lsn, fmt: WalFormat, previous: Option<Lsn>) -> (Class, Option<Lsn>) {
    let end = start + bytes.len() as u64;
    let at = |lsn: Lsn| usize::try_from(lsn - start).unwrap_or(usize::MAX).min(bytes.len());
    // A record of an earlier use of the file.
    if let Some(previous) = previous {
        let mut lsn = start.align();
        while lsn < end {
            let left = bytes.get(at(lsn)..).unwrap_or_default();
            let Ok((_, header)) = RecordHeader::read(left, fmt) else { break };
            // At least a segment older.
            let is_old = header.prev.is_valid()
                && header.prev < previous
                && header.prev.0.saturating_add(fmt.segment_size.into()) <= lsn.0
                && is_rmgr(header.rmid, fmt);
            let len = header.tot_len as usize;
            if is_old && (RECORD_HEADER_SIZE..=left.len()).contains(&len) && lsn != start {
                let mut window = left;
                let mut raw = RawRecord::vacant(fmt);
                if Framer::behind(None, None, fmt, lsn).step(&mut window, &mut raw).is_ok_and(|step| step == Step::Record) {
                    // It starts somewhere in the piece that was not written.
                    let unwritten = Lsn(lsn.0 / SECTOR * SECTOR);
                    return (Class::TornPage { sector: size_of_piece(start, unwritten) }, Some(unwritten));
                }
            }
            lsn = lsn + 8;
        }
    }
    // The first whole piece of zeroes.
    let mut sector = Lsn(start.0.next_multiple_of(SECTOR));
    while sector < end {
        let next = sector + SECTOR;
        if bytes.get(at(sector)..at(next)).is_some_and(|part| part.iter().all(|&byte| byte == 0)) {
            let part = bytes.get(at(sector)..at(sector + OS_PAGE)).unwrap_or_default();
            let is_page = sector.0.is_multiple_of(OS_PAGE) && part.len() as u64 == OS_PAGE && part.iter().all(|&byte| byte == 0);
            return (Class::TornPage { sector: if is_page { OS_PAGE as u32 } else { SECTOR as u32 } }, Some(sector));
        }
        sector = next;
    }
    (Class::Corrupted, None)
}

/// The larger piece, if one of its borders lies between the damaged record and the bytes that were not written.
fn size_of_piece(start: Lsn, unwritten: Lsn) -> u32 {
    let border = unwritten.0 / OS_PAGE * OS_PAGE;
    let is_between = border > start.0 || (border == start.0 && border == unwritten.0);
    if is_between { OS_PAGE as u32 } else { SECTOR as u32 }
}
