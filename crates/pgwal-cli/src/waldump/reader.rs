//! Feeding the decoder as the server's reader reads: page by page, up to the end that was asked for.

use pgwal::page::{PageHeader, PageInfo, SHORT_HEADER_SIZE};
use pgwal::record::RECORD_HEADER_SIZE;
use pgwal::{Decoder, EndReason, Error, Location, Lsn, SegmentName, TimelineId, WalFormat};

use super::{Failure, PageSource};

/// Bytes that are read at a time. Only pages that the decoder comes to are looked at.
const CHUNK: u64 = 1 << 17;

/// Why reading stops.
#[derive(Debug)]
pub enum Stop {
    /// The end that was asked for, or as much as was asked for.
    End,
    /// Damage, or the end of the WAL.
    Error(Error),
}

/// A decoder and what it is fed from.
pub struct Reader {
    source: Box<dyn PageSource>,
    fmt: WalFormat,
    /// Records that start before are passed over.
    pub start: Lsn,
    /// Invalid: none.
    end: Lsn,
    /// Gives the records.
    pub decoder: Decoder,
    /// Behind the last record: where to go on after an error, when following.
    pub resume: Option<Lsn>,
    /// Whether the segment's first page and the first page to read have been looked at.
    checked: bool,
    /// The last whole page, and what was read of the page that the end lies on.
    last_page: Vec<u8>,
    end_page: Vec<u8>,
}

impl Reader {
    /// Reads from the page of `start` on, up to `end` where that is valid.
    pub fn new(source: Box<dyn PageSource>, fmt: WalFormat, start: Lsn, end: Lsn) -> Reader {
        let decoder = Decoder::strict_at(page_of(start, fmt), fmt);
        Reader { source, fmt, start, end, decoder, resume: None, checked: false, last_page: Vec::new(), end_page: Vec::new() }
    }

    /// Gives the decoder more bytes, or says why there are none.
    pub fn feed(&mut self) -> Result<Option<Stop>, Failure> {
        if !self.checked {
            if let Some(stop) = self.check_first_pages()? {
                return Ok(Some(stop));
            }
            self.checked = true;
        }
        let at = self.decoder.wanted();
        let page_size = u64::from(self.fmt.wal_page_size);
        let segment_left = u64::from(self.fmt.segment_size) - at.segment_offset(self.fmt.segment_size);
        let page_left = page_size - self.fmt.page_offset(at);
        let (mut least, mut most) = (page_left, segment_left.min(CHUNK.next_multiple_of(page_size)));
        if self.end.is_valid() {
            // The page that the end lies on is read up to it, if that is more than a page header.
            let left = self.end - at;
            if left <= SHORT_HEADER_SIZE as u64 {
                return Ok(Some(self.record_across_end().map_or(Stop::End, Stop::Error)));
            }
            (least, most) = (least.min(left), most.min(left));
            if left > page_size {
                most -= most % page_size; // the page with the end comes alone
            } else if !self.fmt.since(14) && self.unfinished_behind(left) {
                return Ok(Some(Stop::End));
            }
        }
        // At most CHUNK, or a page.
        let bytes = self.source.read(at, least as usize, most as usize)?;
        // A page that is not all there yet is read when it is needed.
        let whole = if bytes.len() as u64 == most { most } else { least + (bytes.len() as u64 - least) / page_size * page_size };
        let bytes = bytes.get(..whole as usize).unwrap_or(bytes);
        self.decoder.feed(bytes);
        let (pages, rest) = bytes.split_at(bytes.len() - bytes.len() % page_size as usize); // a remainder is no more than the whole
        if let Some(page) = pages.len().checked_sub(page_size as usize).and_then(|from| pages.get(from..)) {
            page.clone_into(&mut self.last_page);
        }
        rest.clone_into(&mut self.end_page);
        Ok(None)
    }

    /// Whether the rest of a record, with a page header, is longer than `left` bytes. The reader of 13 and before asks for that
    /// much of a page before it looks at the page's header, later ones look first.
    fn unfinished_behind(&self, left: u64) -> bool {
        let EndReason::Unfinished { missing: Some(missing) } = self.decoder.finish().reason else { return false };
        missing.saturating_add(SHORT_HEADER_SIZE as u64).min(self.fmt.wal_page_size.into()) > left
    }

    /// What the server's reader finds where the end cuts the header of the first record on a page: it asks for as many bytes as
    /// a page header has, and then reads the record's header from a buffer that still has the page before.
    fn record_across_end(&mut self) -> Option<Error> {
        let (_, header) = PageHeader::read(&self.end_page).ok()?;
        let missing = self.last_page.get(self.end_page.len()..header.size() + RECORD_HEADER_SIZE)?;
        if header.info.contains(PageInfo::XLP_FIRST_IS_CONTRECORD) {
            return None;
        }
        let mut decoder = self.decoder.clone();
        decoder.feed(missing);
        decoder.next_record().err()
    }

    /// The reader looks at the first page of a segment wherever it enters it, and the next page must not have an older timeline.
    fn check_first_pages(&mut self) -> Result<Option<Stop>, Failure> {
        let page = page_of(self.start, self.fmt);
        let offset = page.segment_offset(self.fmt.segment_size);
        let page_size = self.fmt.wal_page_size as usize;
        if self.end.is_valid() && self.end < self.start.max(page + SHORT_HEADER_SIZE as u64) {
            return Ok(Some(Stop::End));
        }
        if offset == 0 {
            return Ok(None);
        }
        let first = Lsn(page.0 - offset); // offset is a part of it
        let mut previous = None;
        for at in [first, page] {
            // What lies behind the end is not read, but for a header that is always there.
            let len = if self.end.is_valid() { page_size.min(usize::try_from(self.end - at).unwrap_or(page_size)) } else { page_size };
            let bytes = self.source.read(at, len, len)?;
            let Ok((_, header)) = PageHeader::read(bytes) else { return Ok(Some(Stop::End)) };
            if let Err(kind) = header.check(self.fmt, at, previous) {
                return Ok(Some(Stop::Error(Error::new(kind, self.place(at)))));
            }
            previous = Some(header.timeline);
        }
        Ok(None)
    }

    fn place(&self, lsn: Lsn) -> Location {
        let segment = SegmentName::of(TimelineId::default(), lsn, self.fmt.segment_size);
        Location { segment, offset: lsn.segment_offset(self.fmt.segment_size), lsn, record: None }
    }

    /// Goes back to the end of the last record, to read again what was not there yet.
    pub fn restart(&mut self) {
        if let Some(end) = self.resume {
            self.start = end;
        }
        self.source.forget();
        self.fmt = self.decoder.format().unwrap_or(self.fmt); // with the block size, once that is known
        self.decoder = Decoder::strict_at(page_of(self.start, self.fmt), self.fmt);
        self.checked = false;
    }
}

fn page_of(lsn: Lsn, fmt: WalFormat) -> Lsn {
    Lsn(lsn.0 - fmt.page_offset(lsn)) // the offset is a part of it
}
