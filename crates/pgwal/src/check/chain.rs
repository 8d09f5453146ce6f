//! Checking pages and records in their order, and finding the way back to records behind damage.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::damage;
use super::finding::{Authority, Check, Class, Finding, Problem};
use super::flip;
use crate::error::{Error, ErrorKind};
use crate::format::{WalFormat, WalMagic};
use crate::frame::{Blocks, End, EndReason, Framer, Inside, Step};
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::page::{LongHeader, PageHeader, PageInfo, SHORT_HEADER_SIZE};
use crate::record::{Needs, Plain, RECORD_HEADER_SIZE, RawRecord, Record, RecordHeader, is_rmgr, max_record_size};
use crate::rmgr::{self, Payload, RmgrId, Rules, xlog};
use crate::wire::Wire;

/// A segment file that is being checked.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// What the user knows it by.
    pub input: Arc<str>,
    /// Segment that the file's name tells.
    pub name: Option<SegmentName>,
    pub fmt: WalFormat,
    /// LSN of the file's first byte.
    pub start: Lsn,
    /// The file that holds the WAL before it.
    pub before: Option<Arc<Place>>,
}

/// What came out of checking some pages.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub findings: Vec<Finding>,
    /// Records that are whole and have the right checksum.
    pub records: u64,
    /// Start of the first of them.
    pub first: Option<Lsn>,
    /// Start of the last of them.
    pub last: Option<Lsn>,
    /// The newest timeline of the pages.
    pub timeline: TimelineId,
    /// Space for the pages that images are restored to.
    page: Vec<u8>,
}

/// What is known of the WAL up to a place, and what must come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Joins the records; `None` while the place is looked for where records start again.
    framer: Option<Framer>,
    fmt: WalFormat,
    /// What is known of the block size, from one framer to the next.
    blocks: Blocks,
    /// Behind the last byte that has been looked at.
    position: Lsn,
    /// The page at which the search for a first record began, until one is found.
    origin: Option<Lsn>,
    /// What the next page must say is left of the record that goes on from before the first page.
    leading: Option<u64>,
    /// The bytes so far of a record that pages cut, as far as they may be needed.
    cut: Vec<u8>,
    timeline: Timeline,
    /// The page that says that the record before it was lost, until a record says so too.
    overwriting: Option<Lsn>,
    /// Of the first segment, or the one asked for.
    system_identifier: Option<u64>,
    /// The segment is one of another cluster.
    foreign: bool,
    /// Up to here nothing more is said about bytes that should be zero.
    quiet: Lsn,
    lost: Option<Box<Lost>>,
}

/// Which timeline pages must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Timeline {
    /// The one that the WAL is on; `None`: not known yet, or not any more.
    now: Option<TimelineId>,
    /// No page may have an older one.
    floor: TimelineId,
    /// A page that came before the record that explains it.
    change: Option<Change>,
}

/// A page with a newer timeline than the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    page: Lsn,
    from: TimelineId,
    to: TimelineId,
    /// Records since; the server writes a few before the one that tells the new timeline.
    records: u8,
}

/// Where records stopped, until they start again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lost {
    /// The first byte that belongs to no good record.
    from: Lsn,
    record: Option<Lsn>,
    problem: Option<Problem>,
    class: Class,
    /// A page of an earlier use of the file; if a record is found further on in it, the page was torn.
    page: Option<Lsn>,
    /// What this is if no WAL comes behind: its end.
    end: Option<EndReason>,
    /// There is WAL after it, even if no whole record has been found yet.
    goes_on: bool,
    /// Start of the last good record.
    last: Option<Lsn>,
    /// It has been reported already.
    reported: bool,
    branch: Option<Branch>,
    /// The bytes from the damaged record on, without page headers, as far as they are kept, and where they end.
    cut: Vec<u8>,
    cut_end: Lsn,
    /// Where a part of a page begins that was not written, if that is what it was.
    unwritten: Option<Lsn>,
    /// End of the page at which records stopped.
    noticed: Lsn,
    /// From here on all bytes so far are zero.
    zeroes: Option<Lsn>,
    /// From here on all bytes of a segment are zero, to its end.
    tail: Option<Lsn>,
    /// The first page after it that belongs here.
    resumed: Option<Lsn>,
    /// The files that have pages of it that do not belong here, in their order, up to [`MOST_FILES`].
    files: Vec<LostFile>,
    /// The last segment whose first page is neither of this WAL nor what a server leaves after its end.
    strange: Option<Lsn>,
    /// Pages whose header was looked for elsewhere.
    searched: u8,
}

/// A page that does not carry on what came before, although it belongs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Branch {
    page: Lsn,
    /// The link that its first record should have.
    expected: Lsn,
    /// Where its first record starts at the latest.
    first: Lsn,
}

impl Branch {
    fn new(page: &Page<'_>, expected: Lsn, fmt: WalFormat) -> Branch {
        let (body, remaining) = (page.lsn + fmt.page_header_size(page.lsn), u64::from(page.header.remaining));
        let is_long = remaining > u64::from(fmt.wal_page_size) && remaining <= max_record_size(fmt).into();
        let first = if is_long { fmt.lsn_in_record(body, remaining).align() } else { page.end() };
        Branch { page: page.lsn, expected, first: first.max(page.end()) }
    }
}

/// A file in which no page belongs where it is, from its start or from where records stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LostFile {
    input: Arc<str>,
    name: Option<SegmentName>,
    start: Lsn,
    /// What the first of these pages looks like, or all of them if they are zero.
    class: Class,
    /// The segment that all pages are of, from the first page of the file on; `None`: of several, or of none.
    content: Option<SegmentName>,
}

/// Pages of one range of damage whose header is looked for elsewhere: where content is displaced, the next header shows it.
const MOST_SEARCHED: u8 = 8;

/// Files that one range of damage is told apart into.
const MOST_FILES: usize = 10_000;

impl Lost {
    /// Whether a record stands at `link`, which lies in the record that seemed to go on: then that one is not so long as it says.
    fn has_record_at(&self, link: Lsn, fmt: WalFormat) -> bool {
        let Some(start) = self.record.filter(|start| *start < link) else { return false };
        let (mut lsn, mut at) = (start, 0);
        while at < self.cut.len() as u64 {
            let end = Lsn(lsn.0 - fmt.page_offset(lsn)) + u64::from(fmt.wal_page_size);
            if link < end {
                let bytes = usize::try_from(at + (link.max(lsn) - lsn)).ok().and_then(|at| self.cut.get(at..)).unwrap_or_default();
                let header = RecordHeader::read(bytes, fmt).ok().map(|(_, header)| header);
                return header.is_some_and(|header| {
                    header.tot_len as usize >= RECORD_HEADER_SIZE && is_rmgr(header.rmid, fmt) && header.prev >= start && header.prev < link
                });
            }
            at += end - lsn;
            lsn = end + fmt.page_header_size(end);
        }
        false
    }

    /// Keeps the bytes of the next page, as long as they are those after the damaged record's, and not too many. What is left after the
    /// end of the WAL is worth nothing.
    fn keep(&mut self, page: &Page<'_>, fmt: WalFormat) {
        let is_here = page.header.address == page.lsn;
        if is_here && self.cut_end == page.lsn && !self.cut.is_empty() && self.cut.len() < KEPT_LIMIT {
            self.cut.extend_from_slice(page.from(page.lsn + fmt.page_header_size(page.lsn)));
            self.cut_end = page.end();
        }
    }

    /// The header at `lsn`, which does not lie before the damaged record, if it can be that of a record.
    fn header_at(&self, lsn: Lsn, fmt: WalFormat) -> Option<(RecordHeader, Lsn)> {
        let at = usize::try_from(bytes_between(self.record?, lsn, fmt)?).ok()?;
        let (_, header) = RecordHeader::read(self.cut.get(at..)?, fmt).ok()?;
        let is_possible = header.tot_len as usize >= RECORD_HEADER_SIZE
            && header.tot_len <= max_record_size(fmt)
            && is_rmgr(header.rmid, fmt)
            && header.prev < lsn;
        let end = fmt.lsn_in_record(lsn, u64::from(header.tot_len).saturating_sub(1)) + 1;
        is_possible.then(|| (header, end.align()))
    }

    /// Whether the record at the damage's start is whole.
    fn is_right(&self, header: &RecordHeader) -> bool {
        self.cut.get(..header.tot_len as usize).is_some_and(|record| crate::record::crc(record) == header.crc)
    }

    /// Whether the first good record after the damage, at `next` with `link` to the one before, cannot follow the record that is damaged:
    /// then the WAL there is that of another history. If so, the link that shows it, and whether records of that history precede
    /// `next`.
    ///
    /// Of the same history, the way back along the links ends at the damaged record, or somewhere in the damage after it. The other
    /// history passes the damaged record's start by, or has a record inside it, at a place where there are no bytes of one. What is left
    /// over from an earlier use of a file has links that are at least a segment older.
    fn other_link(&self, next: Lsn, link: Lsn, fmt: WalFormat) -> Option<(Lsn, bool)> {
        let (start, last) = (self.record?, self.last?);
        let is_near = |link: Lsn| link.is_valid() && link.0.saturating_add(fmt.segment_size.into()) > next.0;
        let own = self.header_at(start, fmt).filter(|(header, _)| header.prev == last);
        let (mut next, mut link, mut is_before) = (next, link, false);
        while is_near(link) && link < next {
            if link < start {
                return Some((link, is_before));
            }
            match self.header_at(link, fmt) {
                Some((header, end)) if end == next || (fmt.page_offset(end) == 0 && end + fmt.page_header_size(end) == next) => {
                    if link == start {
                        // It starts where a record of the other history does, too.
                        let is_other = header.prev != last && is_near(header.prev) && self.is_right(&header);
                        return is_other.then_some((header.prev, true));
                    }
                    (next, link, is_before) = (link, header.prev, true);
                }
                _ if link == start => return None,
                _ => {
                    let is_inside = own.is_some_and(|(_, end)| link < end) || link < start + RECORD_HEADER_SIZE as u64;
                    return is_inside.then_some((link, is_before));
                }
            }
        }
        None
    }

    /// Notes whether a page ends with zeroes.
    fn see(&mut self, place: &Place, page: &Page<'_>, is_last: bool, fmt: WalFormat) {
        let is_ours = page.header.check(fmt, page.lsn, None).is_ok();
        let is_full = self.files.len() >= MOST_FILES;
        match self.files.last_mut() {
            Some(file) if file.start == place.start => {
                if file.class == Class::ZeroedPage && page.bytes.iter().any(|&byte| byte != 0) {
                    file.class = Class::Corrupted;
                }
                // After a switch, pages have no header.
                if file.content.is_some() && !page.has_no_header() && page.other_segment(fmt) != file.content {
                    file.content = None;
                }
            }
            _ if is_ours || is_full => {}
            _ => {
                let class = damage::of_page(&page.bytes, &page.header, page.lsn, fmt);
                let content = page.other_segment(fmt).filter(|_| page.lsn == place.start);
                self.files.push(LostFile { input: Arc::clone(&place.input), name: place.name, start: place.start, class, content });
            }
        }
        self.zeroes = match page.bytes.iter().rposition(|&byte| byte != 0) {
            None => self.zeroes.or(Some(page.lsn)),
            Some(at) if at + 1 < page.bytes.len() => Some(page.lsn + at as u64 + 1),
            Some(_) => None,
        };
        if is_last && self.tail.is_none() {
            self.tail = self.zeroes;
        }
    }
}

/// What [`check_content`] looks at.
const NEEDS: Needs = Needs::NoImages;

/// More of a record is not kept for a search for a flipped bit.
const CUT_LIMIT: usize = 1 << 20;
/// After damage, no more bytes are kept for a look at what lies between it and the next good record.
const KEPT_LIMIT: usize = 1 << 16;
/// Records that may come between a page with a new timeline and the record that tells of it: OVERWRITE_CONTRECORD, FPW_CHANGE, …
const RECORDS_BEFORE_SWITCH: u8 = 4;

/// A page, and what lies around it.
struct Page<'p> {
    lsn: Lsn,
    header: PageHeader,
    /// Its bytes, with damage undone that is understood.
    bytes: Cow<'p, [u8]>,
    /// The piece of the file that it lies in.
    piece: &'p [u8],
    piece_start: Lsn,
}

impl Found {
    /// Counts records, by the start of the first and of the last one.
    #[inline]
    fn count(&mut self, first: Lsn, last: Lsn, count: u64) {
        self.records += count;
        self.first.get_or_insert(first);
        self.last = Some(last);
    }

    /// Takes over what was found before this.
    pub(super) fn add(&mut self, before: &mut Found) {
        std::mem::swap(&mut self.findings, &mut before.findings);
        self.findings.append(&mut before.findings);
        self.records += before.records;
        self.first = before.first.or(self.first);
        self.last = self.last.or(before.last);
        self.timeline = self.timeline.max(before.timeline);
    }
}

impl Page<'_> {
    /// LSN after its last byte.
    fn end(&self) -> Lsn {
        self.lsn + self.bytes.len() as u64
    }

    /// Its bytes from `lsn` on, which lies inside it.
    fn from(&self, lsn: Lsn) -> &[u8] {
        usize::try_from(lsn - self.lsn).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }

    /// Whether there are zeroes where its header should be.
    fn has_no_header(&self) -> bool {
        self.bytes.iter().take(SHORT_HEADER_SIZE).all(|&byte| byte == 0)
    }

    /// Whether it may be left over from an earlier use of the file: then its place in that segment was the same. A server renames old
    /// segments to later names only.
    fn is_recycled(&self, fmt: WalFormat) -> bool {
        let is_same_place = self.header.address.segment_offset(fmt.segment_size) == self.lsn.segment_offset(fmt.segment_size);
        is_same_place && self.header.address <= self.lsn
    }

    /// The other segment of the same major that it says to be a page of, at the same place.
    fn other_segment(&self, fmt: WalFormat) -> Option<SegmentName> {
        let PageHeader { address, timeline, magic, .. } = self.header;
        let is_same_place = address.segment_offset(fmt.segment_size) == self.lsn.segment_offset(fmt.segment_size);
        let is_other = is_same_place && address != self.lsn && magic.major() == Some(fmt.major);
        is_other.then(|| SegmentName::of(timeline, address, fmt.segment_size))
    }

    /// Its bytes as they are in the file, and up to `more` after them.
    fn and_more(&self, more: usize) -> &[u8] {
        let at = |lsn: Lsn| usize::try_from(lsn - self.piece_start).unwrap_or(usize::MAX).min(self.piece.len());
        self.piece.get(at(self.lsn)..at(self.end() + more as u64)).unwrap_or_default()
    }

    /// The bytes of the piece from `lsn` to the end of this page.
    fn piece_from(&self, lsn: Lsn) -> &[u8] {
        let at = |lsn: Lsn| usize::try_from(lsn - self.piece_start).unwrap_or(usize::MAX).min(self.piece.len());
        self.piece.get(at(lsn)..at(self.end())).unwrap_or_default()
    }
}

impl Place {
    /// The segment, by its name, or by where it lies.
    pub(super) fn segment(&self, timeline: TimelineId, lsn: Lsn) -> SegmentName {
        match self.name {
            Some(name) if lsn.segment_number(self.fmt.segment_size) == self.start.segment_number(self.fmt.segment_size) => name,
            _ => SegmentName::of(timeline, lsn, self.fmt.segment_size),
        }
    }

    /// The file that the byte at `lsn` lies in: this one, or one before it.
    fn of(&self, lsn: Lsn) -> &Place {
        let mut place = self;
        while let Some(before) = place.before.as_ref().filter(|_| lsn < place.start) {
            place = before;
        }
        place
    }

    /// Offset of the byte at `lsn` in the file; its end, for what lies after it.
    fn offset(&self, lsn: Lsn) -> u64 {
        let len = if self.name.is_some() { u64::from(self.fmt.segment_size) } else { u64::MAX };
        (lsn - self.start).min(len)
    }

    /// Newest timeline that the segment can have.
    fn ceiling(&self) -> TimelineId {
        self.name.map_or(TimelineId(u32::MAX), |name| name.timeline)
    }
}

impl Chain {
    /// Knows nothing yet: starts at the page at `start`.
    pub(super) fn new(fmt: WalFormat, start: Lsn, system_identifier: Option<u64>) -> Chain {
        Chain {
            framer: Some(Framer::new(fmt, start).with_needs(NEEDS)),
            fmt,
            blocks: Blocks::of(fmt),
            position: start,
            origin: Some(start),
            leading: None,
            cut: Vec::new(),
            timeline: Timeline::default(),
            overwriting: None,
            system_identifier,
            foreign: false,
            quiet: Lsn::INVALID,
            lost: None,
        }
    }

    /// Behind the last byte looked at.
    pub(super) fn position(&self) -> Lsn {
        self.position
    }

    /// Of the first segment, or the one asked for.
    pub(super) fn system_identifier(&self) -> Option<u64> {
        self.system_identifier
    }

    /// Goes on where `ahead` has come to, which began to read where this stands, unless the two disagree on the block size.
    pub(super) fn go_on_from(&mut self, ahead: Chain) -> bool {
        let agrees = self.blocks.agrees_with(ahead.blocks);
        if agrees {
            let blocks = self.blocks;
            *self = ahead;
            self.blocks = self.blocks.or(blocks);
        }
        agrees
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.cut.len()
    }

    /// Start of the record that goes on at the next page.
    #[cfg(test)]
    pub(super) fn joining(&self) -> Option<Lsn> {
        self.framer.as_ref()?.joining().map(|(start, _)| start)
    }

    /// Whether records follow each other up to here: no damage, no end, nothing open but a record that goes on.
    pub(super) fn is_sound(&self) -> bool {
        self.lost.is_none() && self.framer.is_some() && self.origin.is_none()
    }

    /// Whether the WAL seems to have ended.
    pub(super) fn seems_ended(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| lost.end.is_some() && !lost.goes_on)
    }

    /// What the segment at `start` is, if it begins with what no server leaves after the end of the WAL.
    pub(super) fn strange(&self, start: Lsn) -> Option<Class> {
        let lost = self.lost.as_ref().filter(|lost| lost.strange == Some(start))?;
        let content = lost.files.last().filter(|file| file.start == start).and_then(|file| file.content);
        Some(content.map_or(Class::NotWal, |content| Class::WrongName { content }))
    }

    /// Whether the content is displaced here, so that the file has another length, too.
    pub(super) fn is_displaced(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| matches!(lost.class, Class::Displaced { .. }))
    }

    /// Up to where the WAL is right.
    pub(super) fn sound_to(&self) -> Lsn {
        self.lost.as_ref().map_or(self.position, |lost| lost.record.unwrap_or(lost.from))
    }

    /// What the bytes after that place are, if there are any.
    pub(super) fn class_of_end(&self) -> Option<Class> {
        self.lost.as_ref().map(|lost| if lost.tail.is_some() { Class::ZeroedTail } else { lost.class.clone() })
    }

    /// Whether the records in `bytes`, which begin at `start`, carry on what came before.
    pub(super) fn goes_on_in(&self, place: &Place, bytes: &[u8], start: Lsn) -> bool {
        let (mut chain, mut found) = (self.clone(), Found::default());
        while chain.next_page(place, bytes, start, &mut found) {
            if !found.findings.is_empty() || !chain.is_sound() {
                return false;
            }
            // A record has followed.
            if found.records > 0 && chain.is_settled() {
                return true;
            }
        }
        true
    }

    /// Whether the state is that which a reader has who began at a page shortly before: its next record is known.
    pub(super) fn is_settled(&self) -> bool {
        self.is_sound() && self.leading.is_none() && self.timeline.change.is_none() && self.overwriting.is_none() && !self.foreign
    }

    /// There is WAL at `next`, behind segments that are missing: this is not its end.
    pub(super) fn goes_on(&mut self, next: Lsn) {
        match &mut self.lost {
            Some(lost) => {
                lost.goes_on = true;
                lost.resumed.get_or_insert(self.position);
            }
            None => self.skip_to(next, Class::Corrupted),
        }
    }

    /// Goes on at `next`, behind bytes that are missing and have been reported.
    pub(super) fn skip_to(&mut self, next: Lsn, class: Class) {
        if self.lost.is_none() {
            let lost = self.lose(self.position, None, None, class);
            self.lost = Some(Box::new(Lost { reported: true, goes_on: true, ..lost }));
        }
        self.framer = None;
        self.cut.clear();
        self.position = next;
    }

    /// Checks the next page: the one at the position, in `piece`, which starts at `start`. `false`: there is none.
    pub(super) fn next_page(&mut self, place: &Place, piece: &[u8], start: Lsn, found: &mut Found) -> bool {
        let lsn = self.position;
        let left = usize::try_from(lsn - start).ok().and_then(|at| piece.get(at..)).unwrap_or_default();
        let bytes = left.get(..self.fmt.wal_page_size as usize).unwrap_or(left);
        self.position = lsn + bytes.len() as u64;
        if let Ok((_, header)) = PageHeader::read(bytes) {
            self.page(place, Page { lsn, header, bytes: Cow::Borrowed(bytes), piece, piece_start: start }, found);
        }
        !bytes.is_empty()
    }

    fn page(&mut self, place: &Place, mut page: Page<'_>, found: &mut Found) {
        if self.foreign && page.header.long.is_some_and(|long| Some(long.system_identifier) == self.system_identifier) {
            *self = Chain { position: self.position, ..Chain::new(self.fmt, page.lsn, self.system_identifier) };
        }
        if self.quiet <= page.lsn {
            self.quiet = Lsn::INVALID;
        }
        if let Some(lost) = &mut self.lost {
            lost.keep(&page, self.fmt);
        }
        let unused = self.behind_switch(page.lsn);
        // From 11 on, the server leaves out the headers of pages that nothing is written to.
        let is_empty = unused.is_some() && count_ones(page.bytes.get(..SHORT_HEADER_SIZE).unwrap_or_default()) <= 2;
        if self.framer.is_some() && (is_empty || self.is_expected(place, &page.header) || self.header(place, &mut page, found)) {
            if let Some(end) = unused {
                let header = if is_empty { 0 } else { SHORT_HEADER_SIZE as u64 };
                self.not_zero(place, page.lsn + header, page.from(page.lsn + header), end, found);
            }
            if let Some(framer) = &mut self.framer {
                framer.assume_timeline(page.header.timeline);
            }
            found.timeline = found.timeline.max(page.header.timeline);
        } else {
            self.start_again(place, &page);
        }
        // Each round ends the page or goes on further behind in it.
        while let Some(mut framer) = self.framer.take() {
            framer.know_blocks(self.blocks);
            let result = self.records(place, &page, &mut framer, found);
            self.blocks = framer.blocks();
            match result {
                Ok(()) => {
                    self.keep_cut(&page, &framer);
                    self.framer = Some(framer);
                    break;
                }
                Err(error) => self.failed(place, &mut page, &framer, &error, found),
            }
        }
        let is_last = page.end().segment_offset(self.fmt.segment_size) == 0;
        if let Some(lost) = &mut self.lost {
            lost.see(place, &page, is_last, self.fmt);
        }
    }

    /// Whether a page header is just what it must be. Every page asks, so this is quick and leaves the hard cases to [`Chain::header`].
    fn is_expected(&self, place: &Place, header: &PageHeader) -> bool {
        let Some(framer) = &self.framer else { return false };
        let at = framer.position();
        let long = self.long_header(at);
        let mut info = header.info.0;
        if !self.fmt.since(19) {
            info &= !PageInfo::XLP_BKP_REMOVABLE.0;
        }
        let (continues, remaining) = match (framer.joining(), self.leading) {
            (Some((_, missing)), _) => (true, missing),
            (None, Some(missing)) => (missing > 0, missing),
            (None, None) if self.is_searching() => (header.remaining > 0, header.remaining.into()),
            (None, None) => (false, 0),
        };
        let bits = if continues { PageInfo::XLP_FIRST_IS_CONTRECORD.0 } else { 0 } | if long { PageInfo::XLP_LONG_HEADER.0 } else { 0 };
        let system = match (header.long, self.system_identifier) {
            (Some(long), Some(expected)) => long.system_identifier == expected,
            _ => true,
        };
        let sizes =
            header.long.is_none_or(|long| long.segment_size == self.fmt.segment_size && long.wal_page_size == self.fmt.wal_page_size);
        let timeline = match self.timeline.now {
            Some(now) => header.timeline == now && self.timeline.change.is_none(),
            None => header.timeline >= self.timeline.floor && header.timeline.0 > 0,
        };
        // Behind a switch, from 11 on, there are no headers.
        info == bits
            && header.address == at
            && u64::from(header.remaining) == remaining
            && header.padding == 0
            && header.magic.major() == Some(self.fmt.major)
            && system
            && sizes
            && timeline
            && header.timeline <= place.ceiling()
            && self.knows(header)
    }

    /// Whether nothing is to be learned from the header.
    fn knows(&self, header: &PageHeader) -> bool {
        self.timeline.now.is_some() && (header.long.is_none() || self.system_identifier.is_some()) && !self.is_searching()
    }

    /// Whether it is not known yet if a record goes on at the next page.
    fn is_searching(&self) -> bool {
        self.framer.as_ref().is_some_and(|framer| framer.next_record().is_none() && framer.joining().is_none())
    }

    fn long_header(&self, page: Lsn) -> bool {
        page.segment_offset(self.fmt.segment_size) == 0
    }

    /// End of the unused rest of a segment that the page at `page` lies in.
    fn behind_switch(&self, page: Lsn) -> Option<Lsn> {
        let next = self.framer.as_ref()?.next_record()?;
        (next >= page + u64::from(self.fmt.wal_page_size)).then(|| Lsn(next.0 - self.fmt.page_offset(next)))
    }

    /// Judges a page header that is not plainly right: says what is wrong with it, and undoes it in the copy of the page.
    /// `false`: the page cannot be used as what should come next.
    fn header(&mut self, place: &Place, page: &mut Page<'_>, found: &mut Found) -> bool {
        let Some(framer) = &self.framer else { return false };
        let lsn = page.lsn;
        let joining = framer.joining();
        let overwrite = PageInfo::overwrite_contrecord(self.fmt).0;
        // A page that begins with another record than that has not lost the flag for it.
        let may_overwrite = page.header.overwrites_contrecord(self.fmt) || begins_with_overwrite(page, self.fmt);
        // What the header can be: the record before goes on, it was lost and is written over, or none goes on.
        let plain = self.plain_header(place, page);
        let with = |bits: u16, remaining: u64| PageHeader {
            info: PageInfo(plain.info.0 | bits),
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            ..plain
        };
        let goes_on = PageInfo::XLP_FIRST_IS_CONTRECORD.0;
        let mut forms = match (joining, self.leading) {
            (Some((_, missing)), _) | (None, Some(missing @ 1..)) => vec![with(goes_on, missing)],
            (None, None) if self.is_searching() && page.header.remaining > 0 => vec![with(goes_on, page.header.remaining.into()), plain],
            _ => vec![plain],
        };
        if may_overwrite && (joining.is_some() || self.leading.is_some_and(|missing| missing > 0) || self.is_searching()) {
            forms.push(with(overwrite, 0));
        }
        let distance = |form: &PageHeader| written(form).iter().zip(page.bytes.iter()).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        let Some((form, bits)) = forms.into_iter().map(|form| (form, distance(&form))).min_by_key(|&(_, bits)| bits) else { return false };
        if bits > 0 && self.lost.is_some() {
            // What looked like a record, and was to go on here, was none.
            self.framer = None;
            return false;
        }
        let expected = written(&form);
        let actual = page.bytes.get(..expected.len()).unwrap_or_default().to_vec();
        if let (1.., Some((start, _))) = (bits, joining)
            && form.remaining != page.header.remaining
            && flip::in_record(&self.gather(page, start), framer.previous()).is_some()
        {
            // The page is right: it is the record's length that is not.
            self.lose_page(place, page, self.header_problem(place, &page.header, &form, lsn), found);
            return false;
        }
        // A record that is not right with this header either does not go on here.
        let is_refuted =
            || form.remaining != page.header.remaining && joining.is_some_and(|(start, _)| is_wrong(&self.gather(page, start)));
        let is_ours = page.header.address == lsn || joining.is_some() || self.is_confirmed(page, &form);
        if bits == 1 && is_ours && !is_refuted() {
            if let Some(bit) = flip::between(&actual, &expected) {
                let problem = self.header_problem(place, &page.header, &form, lsn);
                let offset = lsn - place.start + bit.at as u64;
                found.findings.push(self.finding(
                    place,
                    lsn..lsn + expected.len() as u64,
                    None,
                    Class::BitFlip { offset, bit: bit.bit },
                    problem,
                ));
            }
        } else if bits > 0 {
            let problem = self.header_problem(place, &page.header, &form, lsn);
            let head = lsn..lsn + expected.len() as u64;
            if let Some(Problem::Check(Check::SystemIdentifier { expected, found: other })) = problem {
                // Its records are checked, but not its links to the segments around it.
                let whole = lsn..lsn + u64::from(self.fmt.segment_size);
                let class = Class::ForeignCluster { expected, found: other, by: Authority::Majority };
                found.findings.push(Finding { record: None, ..self.finding(place, whole, None, class, problem) });
                let system_identifier = self.system_identifier;
                *self = Chain { position: self.position, foreign: true, ..Chain::new(self.fmt, lsn, system_identifier) };
                return true;
            }
            let is_ours = page.header.address == lsn && page.header.magic.major() == Some(self.fmt.major);
            let is_continuity = matches!(
                problem,
                Some(Problem::Format(ErrorKind::NoContinuation | ErrorKind::ContinuationLength { .. } | ErrorKind::ContinuationAtStart))
            );
            if !is_ours || is_continuity {
                self.lose_page(place, page, problem, found);
                return false;
            }
            let class = match problem {
                Some(Problem::Check(Check::PagePadding { .. } | Check::RemainingAlone { .. })) => Class::NotZero,
                Some(Problem::Check(Check::TimelineAboveName { .. }) | Problem::Format(ErrorKind::PageTimeline { .. }))
                    if !self.next_page_is_on(page, form.timeline) =>
                {
                    Class::Timeline
                }
                _ => Class::Corrupted,
            };
            if class == Class::Timeline {
                // Said once; the pages behind are taken as they are.
                self.timeline = Timeline { now: Some(page.header.timeline), ..Timeline::default() };
            }
            found.findings.push(self.finding(place, head, None, class, problem));
        }
        self.learn(place, &form, lsn, found);
        if bits > 0 {
            page.bytes.to_mut().splice(..expected.len(), expected);
        }
        page.header = form;
        true
    }

    /// The header that the page has if no record goes on at it. The timeline is its own, where it can be.
    fn plain_header(&self, place: &Place, page: &Page<'_>) -> PageHeader {
        let Page { lsn, header, .. } = *page;
        let found = header.timeline;
        let floor = self.timeline.floor.max(TimelineId(1));
        let timeline = match &self.timeline {
            // A change that the page after it does not know of was none.
            Timeline { now: Some(_), change: Some(change), .. } if found == change.from => found,
            Timeline { now: Some(now), .. } if found < *now || found > place.ceiling() => *now,
            _ if found < floor => floor,
            _ if found > place.ceiling() => place.ceiling(),
            _ => found,
        };
        let removable = if self.fmt.since(19) { 0 } else { header.info.0 & PageInfo::XLP_BKP_REMOVABLE.0 };
        let long = self.long_header(lsn).then(|| LongHeader {
            // Its own is read even where the flag of the long header is missing.
            system_identifier: self.system_identifier.or(u64_at(&page.bytes, SHORT_HEADER_SIZE)).unwrap_or_default(),
            segment_size: self.fmt.segment_size,
            wal_page_size: self.fmt.wal_page_size,
        });
        let info = PageInfo(removable | if long.is_some() { PageInfo::XLP_LONG_HEADER.0 } else { 0 });
        let magic = WalMagic::of(self.fmt.major).unwrap_or(header.magic);
        PageHeader { magic, info, timeline, address: lsn, remaining: 0, padding: 0, long }
    }

    /// The first check that `header` fails, where it should be `form`.
    fn header_problem(&self, place: &Place, header: &PageHeader, form: &PageHeader, lsn: Lsn) -> Option<Problem> {
        let check = |check| Some(Problem::Check(check));
        if let Err(kind) = header.check(self.fmt, lsn, self.timeline.now.filter(|_| header.timeline < form.timeline)) {
            return Some(Problem::Format(kind));
        }
        let continues = |header: &PageHeader| header.info.contains(PageInfo::XLP_FIRST_IS_CONTRECORD);
        match (header.long, form.long) {
            (Some(_), None) => return check(Check::LongHeaderInside),
            (Some(long), Some(expected)) if long.system_identifier != expected.system_identifier => {
                return check(Check::SystemIdentifier { expected: expected.system_identifier, found: long.system_identifier });
            }
            _ => {}
        }
        if header.timeline != form.timeline {
            return match place.name {
                Some(name) if header.timeline > name.timeline => {
                    check(Check::TimelineAboveName { name: name.timeline, found: header.timeline })
                }
                _ => check(Check::TimelineWithoutSwitch { expected: form.timeline, found: header.timeline }),
            };
        }
        match (continues(form), continues(header)) {
            (true, false) => return Some(Problem::Format(ErrorKind::NoContinuation)),
            (false, true) => return Some(Problem::Format(ErrorKind::ContinuationAtStart)),
            _ => {}
        }
        if header.remaining != form.remaining {
            return match (continues(form), self.leading) {
                (true, Some(expected)) => check(Check::Remaining { expected, found: header.remaining }),
                (true, None) => {
                    Some(Problem::Format(ErrorKind::ContinuationLength { expected: form.remaining.into(), found: header.remaining }))
                }
                (false, _) => check(Check::RemainingAlone { found: header.remaining }),
            };
        }
        if header.padding != 0 {
            return check(Check::PagePadding { found: header.padding });
        }
        (header.overwrites_contrecord(self.fmt) != form.overwrites_contrecord(self.fmt)).then_some(Problem::Check(Check::NoOverwriteRecord))
    }

    /// Whether a page with another address belongs here all the same: what is on it carries on the WAL.
    fn is_confirmed(&self, page: &Page<'_>, form: &PageHeader) -> bool {
        let Some(framer) = &self.framer else { return false };
        if form.remaining == 0
            && let Some(previous) = framer.previous()
        {
            let first = page.from(page.lsn + form.size() as u64);
            return RecordHeader::read(first, self.fmt).is_ok_and(|(_, record)| record.prev == previous && record.tot_len > 0);
        }
        let size = u64::from(self.fmt.wal_page_size);
        let at = usize::try_from(page.lsn + size - page.piece_start).unwrap_or(usize::MAX);
        let next = PageHeader::read(page.piece.get(at..).unwrap_or_default());
        next.is_ok_and(|(_, next)| next.check(self.fmt, page.lsn + size, None).is_ok())
    }

    /// Whether the next page, if it is at hand, is right and of `timeline`: then it is this page's header alone that is not.
    fn next_page_is_on(&self, page: &Page<'_>, timeline: TimelineId) -> bool {
        let at = usize::try_from(page.end() - page.piece_start).unwrap_or(usize::MAX);
        let next = page.piece.get(at..).and_then(|bytes| PageHeader::read(bytes).ok());
        next.is_some_and(|(_, next)| next.timeline == timeline && next.check(self.fmt, page.end(), None).is_ok())
    }

    /// Takes over what a header, right or put right, tells.
    fn learn(&mut self, place: &Place, header: &PageHeader, lsn: Lsn, found: &mut Found) {
        if let Some(long) = header.long {
            self.system_identifier.get_or_insert(long.system_identifier);
        }
        match (self.timeline.now, self.timeline.change.take()) {
            (Some(_), Some(change)) if header.timeline == change.from => self.deny(place, change, found),
            (Some(now), None) if header.timeline > now => {
                self.timeline.change = Some(Change { page: lsn, from: now, to: header.timeline, records: 0 });
                self.timeline.now = Some(header.timeline);
            }
            (Some(_), change) => self.timeline.change = change,
            (None, _) => self.timeline.now = Some(header.timeline),
        }
        self.timeline.floor = TimelineId::default(); // only of use while the timeline is not known
        let joining = self.framer.as_ref().is_some_and(|framer| framer.joining().is_some());
        if header.overwrites_contrecord(self.fmt) {
            self.overwriting = Some(lsn);
        }
        if !joining && header.info.contains(PageInfo::XLP_FIRST_IS_CONTRECORD) {
            let room = u64::from(self.fmt.wal_page_size).saturating_sub(header.size() as u64);
            self.leading = u64::from(header.remaining).checked_sub(room).filter(|_| self.is_searching());
            // A record that fills the page to its end still makes the next one look for the first record.
        } else if self.is_searching() {
            self.leading = None;
        }
    }

    /// A page's timeline was not explained by a record: it stays as it was before.
    fn deny(&mut self, place: &Place, change: Change, found: &mut Found) {
        let Change { page, from, to, .. } = change;
        let bits = (from.0 ^ to.0).to_le_bytes();
        let flip = (from.0 ^ to.0).is_power_of_two().then(|| bits.iter().position(|&byte| byte != 0)).flatten();
        let class = match flip {
            Some(at) => {
                let bit = (from.0 ^ to.0).trailing_zeros() % 8;
                Class::BitFlip { offset: page - place.start + 4 + at as u64, bit: bit as u8 } // xlp_tli is at byte 4
            }
            None => Class::Timeline,
        };
        let problem = Some(Problem::Check(Check::TimelineWithoutSwitch { expected: from, found: to }));
        found.findings.push(self.finding(place, page..page + SHORT_HEADER_SIZE as u64, None, class, problem));
        self.timeline.now = Some(from);
    }

    /// Reports bytes that should be zero, up to `end` at most; once for all of them.
    fn not_zero(&mut self, place: &Place, start: Lsn, bytes: &[u8], end: Lsn, found: &mut Found) {
        let Some(at) = first_not_zero(bytes).filter(|_| self.quiet <= start) else { return };
        self.quiet = end;
        let byte = bytes.get(at).copied().unwrap_or_default();
        let lsn = start + at as u64;
        let class = one_bit(bytes).map_or(Class::NotZero, |bit| Class::BitFlip { offset: lsn - place.start, bit });
        found.findings.push(self.finding(place, lsn..end, None, class, Some(Problem::Check(Check::AfterSwitch { found: byte }))));
    }

    /// The records that start or end on the page.
    fn records(&mut self, place: &Place, page: &Page<'_>, framer: &mut Framer, found: &mut Found) -> Result<(), Error> {
        let mut window = page.from(framer.position());
        let mut raw = RawRecord::vacant(self.fmt);
        let rules = Rules::of(self.fmt);
        let fmt = self.fmt;
        loop {
            // Most records are as they should be in every way.
            if !self.is_waiting() {
                let skipped = framer.take_inside_page(
                    &mut window,
                    #[inline(always)]
                    |inside| is_right(inside, rules, &fmt),
                    |_| true,
                );
                if let Some((first, last, count)) = skipped {
                    found.count(first, last, count);
                }
            }
            match framer.step(&mut window, &mut raw)? {
                Step::Record => {}
                Step::NeedMore => return Ok(()),
            }
            self.padding(place, page, &raw, found);
            self.record(place, &raw, found);
        }
    }

    /// Whether something that came before has yet to be judged by the records that follow.
    #[inline]
    fn is_waiting(&self) -> bool {
        self.origin.is_some() || self.lost.is_some() || self.overwriting.is_some() || self.timeline.change.is_some()
    }

    /// Checks what follows a record up to the next: at most seven bytes, or the rest of the page after a switch.
    #[inline]
    fn padding(&mut self, place: &Place, page: &Page<'_>, raw: &RawRecord<'_>, found: &mut Found) {
        let end = match &raw.bytes {
            Cow::Borrowed(bytes) => raw.lsn + bytes.len() as u64,
            Cow::Owned(bytes) => self.fmt.lsn_in_record(raw.lsn, bytes.len() as u64 - 1) + 1, // a record is not empty
        };
        let len = usize::try_from(raw.end - end).unwrap_or(usize::MAX);
        if len == 0 {
            return;
        }
        let behind = page.from(end);
        // Most records have a word left on their page, which is quicker to look at than one byte after the other.
        match behind.first_chunk() {
            Some(word) if len < 8 && u64::from_le_bytes(*word) << (64 - 8 * len) == 0 => {}
            _ => {
                let padding = behind.get(..len).unwrap_or(behind);
                if padding.iter().any(|&byte| byte != 0) {
                    self.check_padding(place, raw, end, padding, found);
                }
            }
        }
    }

    #[cold]
    fn check_padding(&mut self, place: &Place, raw: &RawRecord<'_>, start: Lsn, padding: &[u8], found: &mut Found) {
        if raw.header.is_switch() {
            return self.not_zero(place, start, padding, raw.end, found);
        }
        let at = padding.iter().position(|&byte| byte != 0).unwrap_or_default();
        let lsn = start + at as u64;
        let class = one_bit(padding).map_or(Class::NotZero, |bit| Class::BitFlip { offset: lsn - place.start, bit });
        let problem = Some(Problem::Check(Check::AlignmentPadding { found: padding.get(at).copied().unwrap_or_default() }));
        found.findings.push(self.finding(place, start..raw.end, Some(raw.lsn), class, problem));
    }

    /// A whole record with the right checksum.
    #[inline]
    fn record(&mut self, place: &Place, raw: &RawRecord<'_>, found: &mut Found) {
        found.count(raw.lsn, raw.lsn, 1);
        if self.is_waiting() {
            self.unusual_record(place, raw, found);
        }
        if raw.header.rmid == RmgrId::XLOG {
            self.follow_timeline(raw);
        }
        if raw.header.padding != 0 {
            let problem = Problem::Check(Check::RecordPadding { found: raw.header.padding });
            found.findings.push(self.finding(place, raw.lsn..raw.end, Some(raw.lsn), Class::NotZero, Some(problem)));
        }
        if let Err(error) = check_content(raw, &mut found.page) {
            let problem = Problem::Format(error.kind().clone());
            found.findings.push(self.finding(place, raw.lsn..raw.end, Some(raw.lsn), Class::Malformed, Some(problem)));
        }
    }

    /// A record that something before it waits for.
    #[cold]
    fn unusual_record(&mut self, place: &Place, raw: &RawRecord<'_>, found: &mut Found) {
        if let Some(mut lost) = self.lost.take() {
            if !lost.reported
                && let Some((at, expected, link)) = self.branches_at(&lost, raw)
            {
                self.other_history(place, at, expected, link, found);
                lost.reported = true;
            }
            self.report(place, *lost, raw.lsn, found);
        }
        if let Some(origin) = self.origin.take()
            && raw.header.prev >= origin
        {
            let problem = Problem::Format(ErrorKind::PreviousLink { expected: None, found: raw.header.prev });
            found.findings.push(self.finding(place, origin..raw.lsn, None, Class::Corrupted, Some(problem)));
        }
        self.leading = None;
        if let Some(page) = self.overwriting.take() {
            let check = match (overwritten(raw), raw.overwritten) {
                (None, _) => Some(Check::NoOverwriteRecord),
                (Some(found), Some(expected)) if found != expected => Some(Check::OverwrittenRecord { expected, found }),
                _ => None,
            };
            if let Some(check) = check {
                let class = match check {
                    Check::NoOverwriteRecord => {
                        let bit = PageInfo::overwrite_contrecord(self.fmt).0.trailing_zeros() as u8;
                        Class::BitFlip { offset: page - place.start + 2, bit } // xlp_info is at byte 2
                    }
                    _ => Class::Malformed,
                };
                let head = page..page + self.fmt.page_header_size(page);
                found.findings.push(self.finding(place, head, None, class, Some(Problem::Check(check))));
            }
        }
        if let Some(change) = self.timeline.change.take() {
            if switched(raw) == Some((change.from, change.to)) {
                return;
            }
            if raw.header.rmid == RmgrId::XLOG && change.records < RECORDS_BEFORE_SWITCH {
                self.timeline.change = Some(Change { records: change.records + 1, ..change });
            } else {
                self.deny(place, change, found);
            }
        }
    }

    /// Whether `raw`, the first good record after `lost`, is of another history than what is before: where that begins, and the link that
    /// was expected and the one found there.
    fn branches_at(&self, lost: &Lost, raw: &RawRecord<'_>) -> Option<(Lsn, Lsn, Lsn)> {
        let link = raw.header.prev;
        // Pages that belong elsewhere are damage, whatever else there is.
        let is_all_ours = lost.files.is_empty() && lost.page.is_none();
        let other = if is_all_ours { lost.other_link(raw.lsn, link, self.fmt) } else { None };
        if let Some(Branch { page, expected, first }) = lost.branch
            && link != expected
            && link < page
            && raw.lsn <= first
        {
            match other {
                Some((found, true)) => return Some((lost.from, lost.last.unwrap_or(expected), found)),
                _ if other.is_some() || !lost.has_record_at(link, self.fmt) => return Some((page, expected, link)),
                _ => {}
            }
        }
        let (found, _) = other?;
        Some((lost.from, lost.last.unwrap_or_default(), found))
    }

    /// Follows a record that switches the timeline before a page says so.
    fn follow_timeline(&mut self, raw: &RawRecord<'_>) {
        if let Some((from, to)) = switched(raw)
            && self.timeline.now == Some(from)
        {
            self.timeline.now = Some(to);
        }
    }

    /// Keeps the bytes of a record that goes on at the next page.
    fn keep_cut(&mut self, page: &Page<'_>, framer: &Framer) {
        match framer.joining() {
            None => self.cut.clear(),
            Some((start, _)) => {
                let body = page.lsn + self.fmt.page_header_size(page.lsn);
                if start >= body {
                    self.cut.clear();
                }
                let piece = page.from(start.max(body));
                let room = CUT_LIMIT.saturating_sub(self.cut.len());
                self.cut.extend_from_slice(piece.get(..room).unwrap_or(piece));
            }
        }
    }

    /// A record is damaged: says so, undoes it in the copy of the page if it is one bit, and otherwise looks for the next record.
    fn failed(&mut self, place: &Place, page: &mut Page<'_>, framer: &Framer, error: &Error, found: &mut Found) {
        let start = error.location().record.unwrap_or(error.location().lsn);
        let on_page = start >= page.lsn;
        if self.lost.is_some() {
            // What looked like a record was none.
            let next = if on_page { start + 8 } else { page.lsn + self.fmt.page_header_size(page.lsn) };
            if on_page {
                self.find_record(place, page, next);
            } else {
                self.start_again(place, page);
            }
            return;
        }
        let bytes = self.gather(page, start);
        let previous = framer.previous();
        let timeline = framer.timeline();
        let problem = Some(Problem::Format(error.kind().clone()));
        let flip = flip::in_record(&bytes, previous);
        if let Some(bit) = flip {
            let len = RecordHeader::read(&bytes, self.fmt).map_or(RECORD_HEADER_SIZE as u64, |(_, mut header)| {
                let mut length = header.tot_len.to_le_bytes();
                bit.turn(&mut length);
                header.tot_len = u32::from_le_bytes(length);
                header.tot_len.into()
            });
            let at = self.fmt.lsn_in_record(start, bit.at as u64);
            let end = self.fmt.lsn_in_record(start, len.saturating_sub(1)) + 1;
            found.findings.push(self.flip_finding(place, start..end, at, bit.bit, problem.clone()));
            if at >= page.lsn && on_page {
                if let Some(byte) = usize::try_from(at - page.lsn).ok().and_then(|at| page.bytes.to_mut().get_mut(at)) {
                    *byte ^= 1 << bit.bit;
                }
                self.framer = Some(Framer::behind(previous, timeline, self.fmt, start).with_needs(NEEDS));
                return;
            }
            // The record ends here, and the next one can be told to follow it.
            let behind = framer.position().align();
            if matches!(error.kind(), ErrorKind::Crc { .. }) && behind <= page.end() {
                self.cut.clear();
                self.framer = Some(Framer::behind(Some(start), timeline, self.fmt, behind).with_needs(NEEDS));
                return;
            }
            let class = Class::BitFlip { offset: at - place.start, bit: bit.bit };
            let lost = self.lose(start, Some(start), problem, class);
            self.lost = Some(Box::new(Lost { reported: true, goes_on: true, last: previous, ..lost }));
        } else if let Some(link) = self.follows_other(page, start, error) {
            let is_first = start == page.lsn + self.fmt.page_header_size(page.lsn);
            self.other_history(place, if is_first { page.lsn } else { start }, previous.unwrap_or_default(), link, found);
            self.cut.clear();
            self.framer = Some(Framer::behind(None, timeline, self.fmt, start).with_needs(NEEDS));
            return;
        } else {
            let end = self.end_reason(page, &bytes, start, previous, error);
            let (class, unwritten) =
                damage::of_record(page.piece_from(start.max(page.piece_start)), start.max(page.piece_start), self.fmt, previous);
            let lost = self.lose(start, Some(start), problem, class);
            let mut cut = if end == Some(EndReason::Zeroes) { Vec::new() } else { bytes };
            cut.truncate(bytes_between(start, page.end(), self.fmt).and_then(|len| usize::try_from(len).ok()).unwrap_or_default());
            let cut_end = page.end();
            let is_cut = !on_page && matches!(error.kind(), ErrorKind::Crc { .. });
            let branch = is_cut.then(|| Branch::new(page, start, self.fmt));
            self.lost = Some(Box::new(Lost { end, last: previous, branch, unwritten, noticed: page.end(), cut, cut_end, ..lost }));
        }
        self.cut.clear();
        let next = if on_page { start + 8 } else { page.lsn + self.fmt.page_header_size(page.lsn) };
        self.find_record(place, page, next);
    }

    /// The previous-record link of a record that is valid, except that it follows a different record. Nothing is damaged in that case: WAL of
    /// another history continues here. Inside a page, a link that is more than a segment older is that of an earlier use of the file.
    fn follows_other(&self, page: &Page<'_>, start: Lsn, error: &Error) -> Option<Lsn> {
        let ErrorKind::PreviousLink { expected: Some(_), found } = *error.kind() else { return None };
        let is_first = start == page.lsn + self.fmt.page_header_size(page.lsn);
        let is_near = found < start && found.0.saturating_add(self.fmt.segment_size.into()) > start.0;
        if !found.is_valid() || (is_first && found >= page.lsn) || (!is_first && !is_near) {
            return None;
        }
        let mut window = page.from(start);
        let step = Framer::behind(None, None, self.fmt, start).step(&mut window, &mut RawRecord::vacant(self.fmt));
        matches!(step, Ok(Step::Record)).then_some(found)
    }

    /// Reports that the page at `page` follows another record than the one that is before it.
    fn other_history(&self, place: &Place, page: Lsn, expected: Lsn, link: Lsn, found: &mut Found) {
        let size = u64::from(self.fmt.segment_size);
        let end = Lsn(page.0 - page.segment_offset(self.fmt.segment_size)) + size;
        let problem = Some(Problem::Format(ErrorKind::PreviousLink { expected: Some(expected), found: link }));
        // The bytes before it may be of the other history, too.
        let is_part = |finding: &Finding| {
            matches!(finding.problem, Some(Problem::Check(Check::AlignmentPadding { .. })))
                && finding.lsns.as_ref().is_some_and(|lsns| lsns.end == page)
        };
        if found.findings.last().is_some_and(is_part) {
            found.findings.pop();
        }
        found.findings.push(self.finding(place, page..end, None, Class::OtherHistory, problem));
    }

    /// What the damage at `start` is if no WAL comes after it.
    fn end_reason(&self, page: &Page<'_>, bytes: &[u8], start: Lsn, previous: Option<Lsn>, error: &Error) -> Option<EndReason> {
        let head = bytes.get(..RECORD_HEADER_SIZE.min(bytes.len())).unwrap_or_default();
        if start >= page.lsn && head.iter().all(|&byte| byte == 0) {
            return Some(EndReason::Zeroes);
        }
        let links = RecordHeader::read(bytes, self.fmt).is_ok_and(|(_, header)| Some(header.prev) == previous);
        match error.kind() {
            // The record before it is not the one that came before: left over from an earlier use of the file.
            _ if !links => Some(EndReason::Leftover),
            // A record is written a sector at a time; one inside a sector is there or it is not.
            ErrorKind::Crc { .. } => {
                let total = RecordHeader::read(bytes, self.fmt).map_or(0, |(_, header)| u64::from(header.tot_len));
                let last = self.fmt.lsn_in_record(start, total.saturating_sub(1));
                (start.0 / damage::SECTOR != last.0 / damage::SECTOR).then_some(EndReason::Unfinished { missing: None })
            }
            _ => None,
        }
    }

    /// The bytes of the record at `start`, as far as they are available; what comes after it may follow.
    fn gather(&self, page: &Page<'_>, start: Lsn) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut lsn = start;
        if start < page.lsn {
            bytes.extend_from_slice(&self.cut);
            lsn = page.lsn + self.fmt.page_header_size(page.lsn);
        }
        let size = u64::from(self.fmt.wal_page_size);
        let piece_end = page.piece_start + page.piece.len() as u64;
        while lsn < piece_end && bytes.len() < CUT_LIMIT {
            let end = Lsn(lsn.0 - self.fmt.page_offset(lsn)) + size;
            let at = |lsn: Lsn| usize::try_from(lsn - page.piece_start).unwrap_or(usize::MAX).min(page.piece.len());
            let part = if lsn < page.end() { page.from(lsn) } else { page.piece.get(at(lsn)..at(end)).unwrap_or_default() };
            // A record rarely takes more than a few pages; a length says how much is worth looking at.
            bytes.extend_from_slice(part);
            lsn = end + self.fmt.page_header_size(end);
            if bytes.len() > 16 * size as usize && start >= page.lsn {
                break;
            }
        }
        bytes
    }

    /// Records stop at a page that is not the one that should be here.
    fn lose_page(&mut self, place: &Place, page: &Page<'_>, problem: Option<Problem>, found: &mut Found) {
        let Some(framer) = self.framer.take() else { return };
        let joining = framer.joining();
        let record = joining.map(|(start, _)| start);
        // A page that belongs here and does not carry on the record shows that the record is damaged, or what came of it.
        let is_ours = page.header.address == page.lsn && page.header.magic.major() == Some(self.fmt.major);
        let length = self.cut.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let is_possible = joining.is_none() || length <= max_record_size(self.fmt);
        let from = record.filter(|_| is_ours || !is_possible).unwrap_or(page.lsn);
        if joining.is_some()
            && let Some(bit) = flip::in_record(&self.cut, framer.previous())
        {
            // The record does not go on here: its length is wrong.
            let start = record.unwrap_or(from);
            let at = self.fmt.lsn_in_record(start, bit.at as u64);
            found.findings.push(self.flip_finding(place, start..page.lsn, at, bit.bit, problem.clone()));
            let lost = self.lose(from, record, problem, Class::Corrupted);
            self.lost = Some(Box::new(Lost { reported: true, goes_on: true, last: framer.previous(), ..lost }));
            return;
        }
        // What a server leaves after the end of the WAL; other bytes are none of its doing.
        let (zeroes, is_recycled) = (page.has_no_header(), page.is_recycled(self.fmt));
        let end = match (joining, &problem) {
            _ if is_ours || !is_possible => None,
            _ if !(zeroes || is_recycled) => None,
            (Some((_, missing)), _) => Some(EndReason::Unfinished { missing: Some(missing) }),
            (None, _) if zeroes => Some(EndReason::ZeroPage),
            (None, _) => Some(EndReason::Recycled { page: page.header.address }),
        };
        let class = match is_possible {
            true => damage::of_page(&page.bytes, &page.header, page.lsn, self.fmt),
            false => Class::ImpossibleLength { found: length },
        };
        let lost = self.lose(from, record, problem, class);
        let branch = record.or(framer.previous()).filter(|_| is_ours && is_possible);
        let branch = branch.map(|expected| Branch::new(page, expected, self.fmt));
        let cut = if branch.is_some() { std::mem::take(&mut self.cut) } else { Vec::new() };
        let torn = Some(page.lsn).filter(|_| !is_ours);
        let mut lost = Lost { end, last: framer.previous(), page: torn, branch, cut, cut_end: page.lsn, noticed: page.end(), ..lost };
        lost.keep(page, self.fmt);
        self.lost = Some(Box::new(lost));
        self.cut.clear();
    }

    fn lose(&mut self, from: Lsn, record: Option<Lsn>, problem: Option<Problem>, class: Class) -> Lost {
        let last = self.framer.as_ref().and_then(Framer::previous);
        self.timeline = Timeline { now: None, floor: self.timeline.now.unwrap_or(self.timeline.floor), change: None };
        self.overwriting = None;
        self.leading = None;
        self.origin = None;
        Lost {
            from,
            record,
            problem,
            class,
            page: None,
            end: None,
            goes_on: false,
            last,
            reported: false,
            branch: None,
            cut: Vec::new(),
            cut_end: Lsn::INVALID,
            unwritten: None,
            noticed: from,
            zeroes: None,
            tail: None,
            resumed: None,
            files: Vec::new(),
            strange: None,
            searched: 0,
        }
    }

    /// Looks for records on a page, with nothing known but its place.
    fn start_again(&mut self, place: &Place, page: &Page<'_>) {
        let header = &page.header;
        if let Some(lost) = &mut self.lost
            && page.lsn.segment_offset(self.fmt.segment_size) == 0
            && !page.has_no_header()
            && !page.is_recycled(self.fmt)
        {
            lost.strange = Some(page.lsn);
        }
        let long = self.long_header(page.lsn);
        let is_page = header.check(self.fmt, page.lsn, None).is_ok()
            && header.long.is_some() == long
            && header.timeline >= self.timeline.floor
            && header.timeline <= place.ceiling();
        let is_tried = self.framer.is_some();
        self.framer = None;
        if let Some(lost) = &mut self.lost
            && !is_page
            && !lost.reported
            && lost.searched < MOST_SEARCHED
        {
            lost.searched += 1;
            if let Some(class) = damage::of_displaced(page.and_more(SHORT_HEADER_SIZE), page.lsn, self.fmt) {
                // No server leaves such WAL after its end.
                (lost.class, lost.goes_on, lost.searched) = (class, true, MOST_SEARCHED);
            }
        }
        if let Some(lost) = &mut self.lost
            && is_page
        {
            lost.goes_on = true;
            lost.resumed.get_or_insert(page.lsn);
        }
        if is_page && !is_tried {
            self.framer = Some(Framer::new(self.fmt, page.lsn).with_needs(NEEDS));
        } else {
            self.find_record(place, page, page.lsn + self.fmt.page_header_size(page.lsn));
        }
    }

    /// Looks on the page, from `from` on, for a record that belongs here.
    fn find_record(&mut self, place: &Place, page: &Page<'_>, from: Lsn) {
        self.framer = None;
        let Some(lost) = &self.lost else { return };
        // What was there before has older links.
        let is_ours = page.header.check(self.fmt, page.lsn, None).is_ok();
        // Whole records that are not in their place do not end it.
        if matches!(lost.class, Class::Displaced { .. }) && !is_ours {
            return;
        }
        let oldest = match lost.last {
            Some(last) => last,
            None if is_ours => Lsn(page.lsn.0.saturating_sub(self.fmt.segment_size.into())),
            // Nothing is known of the records before: those of an earlier use of the file would do as well.
            None => return,
        };
        let timeline = page.header.check(self.fmt, page.lsn, None).is_ok().then_some(page.header.timeline);
        let timeline = timeline.or(Some(self.timeline.floor.max(TimelineId(1)))).filter(|&timeline| timeline <= place.ceiling());
        // A whole page of another segment: a record there that can be one of that segment is.
        let claimed = page.other_segment(self.fmt).map(|_| page.header.address).filter(|address| *address > oldest);
        let mut at = from.align();
        while at < page.end() {
            let bytes = page.from(at);
            let Ok((_, header)) = RecordHeader::read(bytes, self.fmt) else { return };
            // Nothing is left over from an earlier use of the file that has a link as new as this.
            let is_near = is_ours && header.prev.0.saturating_add(self.fmt.segment_size.into()) > at.0;
            let is_plausible = header.tot_len as usize >= RECORD_HEADER_SIZE
                && (header.prev >= oldest || is_near)
                && header.prev < at
                && is_rmgr(header.rmid, self.fmt)
                && header.padding == 0
                && claimed.is_none_or(|address| header.prev >= address + (at - page.lsn));
            if is_plausible {
                let framer = Framer::behind(None, timeline, self.fmt, at).with_needs(NEEDS);
                let (mut window, mut probe) = (bytes, framer.clone());
                let is_right = match probe.step(&mut window, &mut RawRecord::vacant(self.fmt)) {
                    Ok(Step::Record) => !self.is_contradicted(page, at, &probe),
                    // It goes on after the page, and has the link that it should have.
                    Ok(Step::NeedMore) => lost.record == Some(header.prev) || lost.last == Some(header.prev),
                    Err(_) => false,
                };
                if is_right {
                    self.framer = Some(framer);
                    if let Some(lost) = &mut self.lost {
                        lost.goes_on = true;
                    }
                    return;
                }
            }
            at = at + 8;
        }
    }

    /// Whether something follows the page that is not the page that should come next.
    fn is_wrong_after(&self, page: &Page<'_>) -> bool {
        let at = usize::try_from(page.end() - page.piece_start).unwrap_or(usize::MAX);
        let Some(bytes) = page.piece.get(at..).filter(|bytes| bytes.iter().take(SHORT_HEADER_SIZE).any(|&byte| byte != 0)) else {
            return false;
        };
        PageHeader::read(bytes).is_ok_and(|(_, header)| header.check(self.fmt, page.end(), None).is_err())
    }

    /// Whether the record after the one at `at`, which `framer` has read, is right and names another place for it: then the content is not
    /// where it was written.
    fn is_contradicted(&self, page: &Page<'_>, at: Lsn, framer: &Framer) -> bool {
        let Some(next) = framer.next_record() else { return false };
        if next + RECORD_HEADER_SIZE as u64 > page.end() {
            return self.is_wrong_after(page);
        }
        let mut window = page.from(next);
        let Ok((_, header)) = RecordHeader::read(window, self.fmt) else { return false };
        if header.prev == at || !header.prev.is_valid() || header.prev >= next || (header.tot_len as usize) < RECORD_HEADER_SIZE {
            return false;
        }
        let is_near = header.prev.0.abs_diff(at.0) < u64::from(self.fmt.wal_page_size);
        is_near || Framer::behind(None, None, self.fmt, next).step(&mut window, &mut RawRecord::vacant(self.fmt)).is_ok()
    }

    fn finding(&self, place: &Place, lsns: Range<Lsn>, record: Option<Lsn>, class: Class, problem: Option<Problem>) -> Finding {
        let place = place.of(lsns.start);
        let segment = Some(place.segment(self.timeline.now.unwrap_or(self.timeline.floor), lsns.start));
        let offsets = Some(place.offset(lsns.start)..place.offset(lsns.end));
        Finding { input: place.input.to_string(), segment, offsets, lsns: Some(lsns), record, class, problem, whole_copy: None }
    }

    /// The bit at `at` of the record in `lsns` was turned.
    fn flip_finding(&self, place: &Place, lsns: Range<Lsn>, at: Lsn, bit: u8, problem: Option<Problem>) -> Finding {
        // The file that has the bit may not be the one that has the record's start.
        let file = place.of(at);
        let class = Class::BitFlip { offset: file.offset(at), bit };
        self.finding(place, lsns.start.max(file.start)..lsns.end, Some(lsns.start), class, problem)
    }

    /// Reports what was lost up to `end`.
    fn report(&self, place: &Place, lost: Lost, end: Lsn, found: &mut Found) {
        if lost.reported {
            return;
        }
        let Lost { from, record, problem, mut class, page, unwritten, noticed, tail, resumed, files, .. } = lost;
        let mut end = end;
        let size = u64::from(self.fmt.segment_size);
        if let (Some(last), true) = (files.last(), place.name.is_some()) {
            // The rest of a record in a file that is sound is lost, too, but not damaged.
            end = end.min(last.start + size).max(from);
        }
        if matches!(class, Class::TornPage { .. }) && unwritten.is_some_and(|unwritten| unwritten >= end) {
            // The records go on before it: the zeroes there are the end of the WAL, or have nothing to do with this.
            class = Class::Corrupted;
        }
        if let (Class::Corrupted, Some(Problem::Format(ErrorKind::RecordLength { found } | ErrorKind::RecordTooLong { found }))) =
            (&class, &problem)
            && *found > 0
        {
            class = Class::ImpossibleLength { found: *found };
        }
        // The next file goes on, or is lost from its start.
        let second = files.get(1).map(|file| file.start);
        if let Some(tail) = tail
            && matches!(class, Class::TornPage { .. } | Class::ZeroedPage | Class::Corrupted)
        {
            let start = Lsn((tail.0 - 1) / size * size); // a page header is not zero, so a tail is not at zero
            let is_part = tail > start + self.fmt.page_header_size(start);
            if is_part && tail <= noticed && resumed.into_iter().chain(second).any(|next| next == start + size) && from < start + size {
                class = Class::ZeroedTail;
                end = if second.is_some() { end } else { start + size };
            }
        }
        if let (Class::RecycledPage { .. } | Class::Corrupted, Some(page)) = (&class, page) {
            // Records start again on the same page: a part of it was written.
            let half = end - page;
            if half < u64::from(self.fmt.wal_page_size) && half > self.fmt.page_header_size(page) {
                class = Class::TornPage { sector: if half >= damage::OS_PAGE { damage::OS_PAGE as u32 } else { damage::SECTOR as u32 } };
            }
        }
        let first_end = second.filter(|_| place.name.is_some()).unwrap_or(end).min(end).max(from);
        let content_of = |file: &LostFile| file.content.map(|content| Class::WrongName { content });
        if let Some(named) = files.first().filter(|file| from == file.start && first_end == from + size).and_then(content_of) {
            class = named;
        }
        let mut first = self.finding(place, from..first_end, record, class, problem);
        if let (Some(file), true) = (files.first().filter(|file| from >= file.start), place.name.is_some()) {
            // It may be far back.
            first.input = file.input.to_string();
            first.segment = file.name;
            first.offsets = Some(from - file.start..(first_end - file.start).min(size));
        }
        found.findings.push(first);
        if place.name.is_none() {
            return;
        }
        // Each of the further files has to be replaced, too.
        for file in files.into_iter().skip(1) {
            let lsns = file.start..(file.start + size).min(end.max(file.start));
            let offsets = Some(0..lsns.end - lsns.start);
            let named = content_of(&file).filter(|_| lsns.end == file.start + size);
            let (input, segment, class) = (file.input.to_string(), file.name, named.unwrap_or(file.class));
            found.findings.push(Finding {
                input,
                segment,
                offsets,
                lsns: Some(lsns),
                record: None,
                class,
                problem: None,
                whole_copy: None,
            });
        }
    }

    /// Takes damage that begins at `start` or later for told of.
    pub(super) fn forget_lost_from(&mut self, start: Lsn) {
        if let Some(lost) = self.lost.as_mut().filter(|lost| lost.from >= start) {
            (lost.reported, lost.goes_on) = (true, true);
        }
    }

    /// Nothing follows: where the WAL ends, if it does, and what is left to report.
    pub(super) fn finish(mut self, place: &Place, found: &mut Found) -> Option<End> {
        if let Some(lost) = self.lost.take() {
            if let (Some(reason), false) = (lost.end, lost.goes_on || lost.reported) {
                return Some(End { lsn: lost.record.unwrap_or(lost.from), reason });
            }
            self.report(place, *lost, self.position, found);
            return None;
        }
        let framer = self.framer.take()?;
        if let Some((start, _)) = framer.joining()
            && let Some(bit) = flip::in_record(&self.cut, framer.previous())
        {
            let at = self.fmt.lsn_in_record(start, bit.at as u64);
            let problem = framer.joining().map(|(_, missing)| {
                let needed = missing.saturating_add(self.cut.len() as u64);
                Problem::Format(ErrorKind::RecordLayout { field: "xl_tot_len", needed, left: self.cut.len() as u64 })
            });
            found.findings.push(self.flip_finding(place, start..self.position, at, bit.bit, problem));
            return None;
        }
        if let Some(change) = self.timeline.change.take() {
            self.deny(place, change, found);
        }
        Some(framer.finish(&[]))
    }
}

/// Whether the first record of a page is the one that says that the record before was lost. C: `XLOG_OVERWRITE_CONTRECORD`,
/// catalog/pg_control.h.
fn begins_with_overwrite(page: &Page<'_>, fmt: WalFormat) -> bool {
    const OVERWRITE_CONTRECORD: u8 = 0xD0;
    let first = RecordHeader::read(page.from(page.lsn + fmt.page_header_size(page.lsn)), fmt);
    first.is_ok_and(|(_, header)| header.rmid == RmgrId::XLOG && header.info.0 & 0xF0 == OVERWRITE_CONTRECORD)
}

/// Whether the record at the start of `bytes` is all there, and its checksum is wrong.
fn is_wrong(bytes: &[u8]) -> bool {
    let len = bytes.first_chunk().map_or(0, |len| u32::from_le_bytes(*len)) as usize;
    let record = bytes.get(..len).filter(|record| record.len() >= RECORD_HEADER_SIZE);
    record.is_some_and(|record| {
        record.get(20..).and_then(|crc| crc.first_chunk()).is_some_and(|stored| crate::record::crc(record) != u32::from_le_bytes(*stored))
    })
}

/// Bytes of a record from `start` to `end`, without page headers; `None`: `end` is before it, in a page header, or too far away.
fn bytes_between(start: Lsn, end: Lsn, fmt: WalFormat) -> Option<u64> {
    let (mut lsn, mut bytes) = (start, 0);
    loop {
        let next = Lsn(lsn.0 - fmt.page_offset(lsn)) + u64::from(fmt.wal_page_size);
        if end <= next {
            return (end >= lsn).then(|| bytes + (end - lsn));
        }
        bytes += next - lsn;
        if bytes > CUT_LIMIT as u64 {
            return None;
        }
        lsn = next + fmt.page_header_size(next);
    }
}

/// Whether a segment that begins with `front` begins the WAL anew: with a checkpoint that follows no record. pg_resetwal writes such a
/// segment, and so does initdb. C: `WriteEmptyXLOG`, bin/pg_resetwal/pg_resetwal.c; `BootStrapXLOG`, access/transam/xlog.c.
pub(super) fn begins_anew(front: &[u8], fmt: WalFormat, start: Lsn) -> bool {
    let Ok((_, header)) = PageHeader::read(front) else { return false };
    if header.check(fmt, start, None).is_err() || header.long.is_none() || header.info.contains(PageInfo::XLP_FIRST_IS_CONTRECORD) {
        return false;
    }
    let mut window = front.get(header.size()..fmt.wal_page_size as usize).unwrap_or_default();
    let mut raw = RawRecord::vacant(fmt);
    let step = Framer::behind(None, Some(header.timeline), fmt, start + header.size() as u64).step(&mut window, &mut raw);
    let is_checkpoint = matches!(step, Ok(Step::Record)) && raw.header.rmid == RmgrId::XLOG && !raw.header.prev.is_valid();
    is_checkpoint
        && matches!(raw.decode().ok().and_then(|record| record.payload().ok()?), Some(Payload::Xlog(xlog::Op::CheckpointShutdown(_))))
}

/// Bits that are set.
fn count_ones(bytes: &[u8]) -> u32 {
    bytes.iter().map(|byte| byte.count_ones()).sum()
}

/// The only bit that is set, by its place in its byte.
fn one_bit(bytes: &[u8]) -> Option<u8> {
    let byte = bytes.iter().find(|&&byte| byte != 0)?;
    (count_ones(bytes) == 1).then_some(byte.trailing_zeros() as u8)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// The bytes of a header.
fn written(header: &PageHeader) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.write(&mut bytes);
    bytes
}

/// The record that `raw` says was lost before it.
fn overwritten(raw: &RawRecord<'_>) -> Option<Lsn> {
    match raw.decode().ok()?.payload() {
        Ok(Some(Payload::Xlog(xlog::Op::OverwriteContrecord(overwrite)))) => Some(overwrite.overwritten_lsn),
        _ => None,
    }
}

/// The timelines before and after a record that switches from one to another.
fn switched(raw: &RawRecord<'_>) -> Option<(TimelineId, TimelineId)> {
    if raw.header.rmid != RmgrId::XLOG {
        return None;
    }
    match raw.decode().ok()?.payload().ok()?? {
        Payload::Xlog(op) => op.timeline_switch(),
        _ => None,
    }
}

/// Where the first byte stands that is not zero. There may be many that are, so whole blocks of them are passed over.
fn first_not_zero(bytes: &[u8]) -> Option<usize> {
    let (blocks, _) = bytes.as_chunks::<64>();
    let zeroes = 64 * blocks.iter().take_while(|block| **block == [0; 64]).count();
    bytes.iter().skip(zeroes).position(|&byte| byte != 0).map(|at| zeroes + at)
}

/// Whether everything about a record inside a page is seen to be right at a glance.
///
/// Only resource managers that are there say so, and XLOG, which has switches, does not.
#[inline(always)]
fn is_right(inside: &Inside<'_>, rules: &Rules, fmt: &WalFormat) -> bool {
    let at_a_glance = inside.front().is_some_and(|front| rules.allow_record(front, inside.last()));
    (at_a_glance || is_plain_and_right(inside.bytes, fmt)) && inside.has_zero_padding()
}

/// The same with a second glance.
#[inline(never)]
fn is_plain_and_right(record: &[u8], &fmt: &WalFormat) -> bool {
    match (RecordHeader::read(record, fmt), Plain::read(record)) {
        (Ok((_, header)), Some(plain)) => header.padding == 0 && rmgr::is_right(&header, &plain, fmt),
        _ => false,
    }
}

/// Decodes the record, its payload and its images, and drops them.
#[inline(never)]
fn check_content(raw: &RawRecord<'_>, page: &mut Vec<u8>) -> Result<(), Error> {
    let mut record = Record::unread(raw);
    record.read()?;
    rmgr::check(&record, raw.fmt)?;
    for block in &record.blocks {
        // An image without compression was measured when the record was decoded.
        if let Some(image) = block.image.filter(|image| image.info.is_compressed()) {
            image.restore(raw.fmt, page).map_err(|kind| Error::new(kind, raw.location(0)))?;
        }
    }
    Ok(())
}
