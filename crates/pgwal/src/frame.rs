//! Framing: joining the pieces of records over pages and segments, and checking them.
//!
//! One state machine, `Framer`, serves both readers: it is shown a window of bytes and takes from its front what it can use.
//! [`Decoder`] is the push form: it is fed chunks of any size. [`crate::source::Records`] is the pull form over mapped segments.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Location, Result};
use crate::format::{DEFAULT_BLOCK_SIZE, WalFormat};
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::machine::{self, Crc};
use crate::page::{LONG_HEADER_SIZE, PageHeader, PageInfo, SHORT_HEADER_SIZE};
use crate::record::{
    self, Needs, RECORD_HEADER_SIZE, RawRecord, RecordHeader, Shown, is_rmgr, max_record_size, shown_block_size, unneeded_data,
};
use crate::wire::Wire;

/// Where the WAL ends, and why the reader thinks so: a verdict, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// Where the next record would start, or where the unfinished one starts.
    pub lsn: Lsn,
    /// Why the WAL ends there.
    #[serde(flatten)]
    pub reason: EndReason,
}

/// Why the WAL ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndReason {
    /// Zeroes follow where a record would start: the usual end of the WAL.
    Zeroes,
    /// The page that follows is empty.
    ZeroPage,
    /// The page that follows is left over from an earlier use of the file.
    Recycled {
        /// The address that the page has.
        page: Lsn,
    },
    /// What follows does not belong to this WAL: it is left over from an earlier use of the file.
    Leftover,
    /// No more input, between two records.
    NoMoreInput,
    /// The last record is not finished: what follows is empty, left over from an earlier use of the file, or missing.
    Unfinished {
        /// Bytes of the record that are missing; `None` where not even its length is there.
        missing: Option<u64>,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the WAL ends at {}: ", self.lsn)?;
        match self.reason {
            EndReason::Zeroes => write!(f, "zeroes follow"),
            EndReason::ZeroPage => write!(f, "an empty page follows"),
            EndReason::Recycled { page } => write!(f, "a page left over from {page} follows"),
            EndReason::Leftover => write!(f, "bytes left over from an earlier use of the file follow"),
            EndReason::NoMoreInput => write!(f, "no more input"),
            EndReason::Unfinished { missing: Some(missing) } => write!(f, "the record there is not finished, {missing} bytes are missing"),
            EndReason::Unfinished { missing: None } => write!(f, "the record there is not finished"),
        }
    }
}

/// Bytes that a record cut by a page header gets room for at once: a page image and more.
const JOIN_ROOM: usize = 16 << 10;
/// Memory for records that are joined which is kept for the next one.
const KEPT_ROOM: usize = 4 << 20;
/// So many bytes that are not needed are not kept as zeroes either while the record is joined.
const HUGE: usize = 32 << 20;

/// What a look at the window brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A whole, checked record, which is in the place for it.
    Record,
    /// The window has been used as far as it goes; call again with what is left of it and more behind.
    NeedMore,
}

/// A record that lies inside a page; [`Framer::put`] makes a [`RawRecord`] of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside<'a> {
    /// LSN of its first byte.
    pub(crate) start: Lsn,
    pub(crate) header: RecordHeader,
    pub(crate) bytes: &'a [u8],
    /// The bytes and what is after them up to a multiple of eight.
    padded: &'a [u8],
    /// The bytes, and all that is after them in the window.
    window: &'a [u8],
    /// What is after the padded bytes.
    rest: &'a [u8],
}

impl<'a> Inside<'a> {
    /// Reads what may be a record at the front of `window`, after the one at `previous`.
    #[inline]
    fn read(start: Lsn, previous: Lsn, window: &'a [u8]) -> Option<Inside<'a>> {
        let header = RecordHeader::from_bytes(window.first_chunk()?);
        let len = header.tot_len as usize;
        if len < RECORD_HEADER_SIZE || header.prev != previous {
            return None;
        }
        let (padded, rest) = window.split_at_checked(len.wrapping_add(7) & !7)?;
        Some(Inside { start, header, bytes: padded.get(..len)?, padded, window, rest })
    }

    /// The first bytes of the record, and what is after it if it is shorter; `None`: there is not so much.
    #[inline(always)]
    pub(crate) fn front<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.window.first_chunk()
    }

    /// The record's last eight bytes.
    #[inline(always)]
    pub(crate) fn last(&self) -> u64 {
        self.bytes.last_chunk().map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// LSN after the padded bytes.
    #[inline(always)]
    fn end(&self) -> Lsn {
        Lsn(self.start.0.wrapping_add(self.padded.len() as u64)) // the page has an LSN at its end, too
    }

    /// The record, put together; `timeline` is that of the page.
    #[inline(always)]
    pub(crate) fn raw(&self, timeline: TimelineId, fmt: WalFormat) -> RawRecord<'a> {
        let (header, bytes) = (self.header, Cow::Borrowed(self.bytes));
        RawRecord { lsn: self.start, end: self.end(), timeline, overwritten: None, header, bytes, fmt }
    }

    /// Whether the bytes between this record and the next one are zero, as they should be.
    #[inline]
    pub(crate) fn has_zero_padding(&self) -> bool {
        let padding = self.padded.len() - self.bytes.len(); // less than 8: the bytes are the front of the padded ones
        // In two steps, as a number cannot be shifted by all its bits.
        self.padded.last_chunk().is_some_and(|word| u64::from_le_bytes(*word) >> (63 - 8 * (padding as u32 & 7)) >> 1 == 0)
    }
}

/// The state machine that turns pages into records. It holds a copy only of records that a page header cuts.
#[derive(Clone, Debug)]
pub(crate) struct Framer {
    fmt: WalFormat,
    /// LSN of the first byte of the window.
    next: Lsn,
    state: State,
    /// What there is of the record that is joined, in [`State::Joining`]; else memory for the next one.
    joined: Vec<u8>,
    /// Start of the record before, which `xl_prev` must point to; `None` at the start and after a gap.
    previous: Option<Lsn>,
    /// Timeline of the last page header.
    timeline: Option<TimelineId>,
    /// Start of a record that was lost, until the next record comes.
    overwritten: Option<Lsn>,
    blocks: Blocks,
    /// A record with more bytes than this is damage.
    longest: u32,
    /// What is done with the records.
    needs: Needs,
}

/// What is known of the block size (`BLCKSZ`): see [`WalFormat::block_size`].
///
/// All are equal: readers that stand at the same place do not differ for it. Whether one of them can take over what the other has read
/// is up to [`Blocks::agrees_with`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    /// Zero: not known.
    size: u32,
    /// While it was not known, an image came that does not show it.
    has_unclear_image: bool,
}

impl PartialEq for Blocks {
    fn eq(&self, _: &Blocks) -> bool {
        true
    }
}

impl Eq for Blocks {}

impl Blocks {
    /// What `fmt` says.
    pub(crate) fn of(fmt: WalFormat) -> Blocks {
        Blocks { size: fmt.block_size, has_unclear_image: false }
    }

    /// Whether a reader that knows this would have read as another one did that began at the same place and knows `ahead` at its end.
    pub(crate) fn agrees_with(self, ahead: Blocks) -> bool {
        let is_size = self.size == ahead.size || ahead.size == 0;
        // While none is known, the first image that shows a size decides, for both; others are taken for images of the usual size.
        self.size == 0 || (is_size && (self.size == DEFAULT_BLOCK_SIZE || !ahead.has_unclear_image))
    }

    /// `fmt` with the block size, where that has become known.
    pub(crate) fn complete(self, fmt: WalFormat) -> WalFormat {
        if fmt.block_size == 0 { fmt.with_block_size(self.size) } else { fmt }
    }

    /// This, or if it says nothing, `other`.
    pub(crate) fn or(self, other: Blocks) -> Blocks {
        if self.size == 0 { other } else { self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A record starts at `next`, or a page header that it follows.
    Record,
    /// A record starts at `next`, inside a page whose header has not been read.
    InsidePage,
    /// Looking for the first record: `next` is a page header, after which an earlier record may go on.
    FindFirst,
    /// Everything before this LSN is skipped: padding, the rest of an earlier record, the rest of a switched segment.
    Skip(Lsn),
    /// The rest of a page is skipped that an earlier record fills; the next one is looked at like the first.
    SkipPage(Lsn),
    /// A record that goes on at `next`, after a page header.
    Joining(Joining),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Joining {
    start: Lsn,
    total: u32,
    header: Option<RecordHeader>,
    spared: Spared,
}

/// What is spared of a long record that is joined for someone who does not need all of it: these bytes are not copied but left zero, and
/// the checksum is computed where they lie. If they are very many, they get no memory before all of the record has come; then they are
/// fresh memory of the system, of which no page is in use before somebody writes to it.
///
/// All are equal: what is spared depends on whether the block size is known, and the bytes have been read in any case.
#[derive(Clone, Copy, Debug, Default)]
struct Spared {
    /// From the first of the bytes to before the last; if there are none, the checksum is not computed here either.
    range: (usize, usize),
    /// Running CRC of the record data after the header.
    crc: u32,
    /// Bytes of the record that have come.
    len: usize,
}

impl PartialEq for Spared {
    fn eq(&self, _: &Spared) -> bool {
        true
    }
}

impl Eq for Spared {}

impl Spared {
    fn is_any(self) -> bool {
        self.range.0 < self.range.1
    }

    /// Whether the bytes are so many that they are left out of what is joined.
    fn is_huge(self) -> bool {
        self.range.1.saturating_sub(self.range.0) >= HUGE
    }

    /// Appends `piece` to `joined`.
    fn append(&mut self, piece: &[u8], joined: &mut Vec<u8>) {
        let at = self.len;
        self.len += piece.len();
        if !self.is_any() {
            return joined.extend_from_slice(piece);
        }
        let data = piece.get(RECORD_HEADER_SIZE.saturating_sub(at)..).unwrap_or_default();
        self.crc = machine::append_to_crc(self.crc, data);
        let place = |of: usize| of.saturating_sub(at).min(piece.len());
        let (start, end) = (place(self.range.0), place(self.range.1));
        joined.extend_from_slice(piece.get(..start).unwrap_or_default());
        if !self.is_huge() {
            joined.resize(at + end, 0);
        }
        joined.extend_from_slice(piece.get(end..).unwrap_or_default());
    }

    /// From here on `range` is spared, which is huge, of what has been `joined` whole until now.
    fn begin(&mut self, range: Range<usize>, joined: &mut Vec<u8>) {
        self.range = (range.start, range.end);
        self.crc = machine::append_to_crc(0, joined.get(RECORD_HEADER_SIZE..).unwrap_or_default());
        joined.drain(range.start.min(joined.len())..range.end.min(joined.len()));
    }

    /// The whole record, of which `joined` is what there is.
    fn whole(self, joined: &mut Vec<u8>) -> Vec<u8> {
        if !self.is_huge() {
            return std::mem::take(joined);
        }
        // Zeroes that are asked for like this are not written.
        let mut whole = vec![0; self.len];
        let (front, back) = joined.split_at(self.range.0.min(joined.len()));
        if let (Some(place), Some(behind)) = (whole.get_mut(..front.len()), self.len.checked_sub(back.len())) {
            place.copy_from_slice(front);
            if let Some(place) = whole.get_mut(behind..) {
                place.copy_from_slice(back);
            }
        }
        whole
    }

    /// CRC of the record data after the header, if it was computed.
    fn crc(self) -> Option<u32> {
        self.is_any().then_some(self.crc)
    }
}

/// Two framers are equal that go on in the same way. What they know of the block size may differ.
impl PartialEq for Framer {
    fn eq(&self, other: &Framer) -> bool {
        let state = |framer: &Framer| {
            (framer.fmt.with_block_size(0), framer.next, framer.state, framer.previous, framer.timeline, framer.overwritten)
        };
        let is_same = match (self.state, other.state) {
            (State::Joining(a), State::Joining(b)) if a.spared.is_any() || b.spared.is_any() => a.spared.len == b.spared.len,
            (State::Joining(_), _) => self.joined == other.joined,
            _ => true,
        };
        is_same && state(self) == state(other)
    }
}

impl Eq for Framer {}

impl Framer {
    /// A framer whose first window starts at `start`: a page, whose first record is looked for, or a record.
    pub(crate) fn new(fmt: WalFormat, start: Lsn) -> Framer {
        let state = if fmt.page_offset(start) == 0 { State::FindFirst } else { State::InsidePage };
        Framer {
            fmt,
            next: start,
            state,
            joined: Vec::new(),
            previous: None,
            timeline: None,
            overwritten: None,
            blocks: Blocks::of(fmt),
            longest: max_record_size(fmt),
            needs: Needs::Everything,
        }
    }

    /// For a reader that does not need more than `needs` of records: what it does not need may be zero in those that pages cut.
    pub(crate) fn with_needs(self, needs: Needs) -> Framer {
        Framer { needs, ..self }
    }

    /// A framer whose first window starts at `start`, where a record starts, after the one at `previous`.
    pub(crate) fn behind(previous: Option<Lsn>, timeline: Option<TimelineId>, fmt: WalFormat, start: Lsn) -> Framer {
        Framer { state: State::Record, previous, timeline, ..Framer::new(fmt, start) }
    }

    /// Takes records of any length, as pg_waldump does.
    fn without_limit(self) -> Framer {
        Framer { longest: u32::MAX, ..self }
    }

    /// Takes `timeline` for that of the last page header.
    pub(crate) fn assume_timeline(&mut self, timeline: TimelineId) {
        self.timeline = self.timeline.map(|_| timeline);
    }

    /// Start of the record that goes on after the next page header, and its bytes still to come.
    pub(crate) fn joining(&self) -> Option<(Lsn, u64)> {
        match self.state {
            State::Joining(joining) => Some((joining.start, self.missing(joining))),
            _ => None,
        }
    }

    /// Format of the WAL.
    pub(crate) fn format(&self) -> WalFormat {
        self.fmt
    }

    /// What it knows of the block size.
    pub(crate) fn blocks(&self) -> Blocks {
        self.blocks
    }

    /// Knows also what `blocks` says of the block size.
    pub(crate) fn know_blocks(&mut self, blocks: Blocks) {
        self.blocks = self.blocks.or(blocks);
        self.fmt.block_size = self.blocks.size;
    }

    /// Goes on where `ahead` has come to, which began to read where this stands.
    pub(crate) fn go_on_from(&mut self, ahead: Framer) {
        let blocks = self.blocks;
        *self = ahead;
        self.know_blocks(blocks);
    }

    /// Takes the block size from the images of a whole record whose checksum is right, while it is not known.
    #[inline]
    fn learn_block_size(&mut self, record: &[u8]) {
        if self.blocks.size == 0 {
            match shown_block_size(record, self.fmt) {
                Shown::NoImage => {}
                Shown::Nothing => self.blocks.has_unclear_image = true,
                Shown::Size(size) => (self.blocks.size, self.fmt.block_size) = (size, size),
            }
        }
    }

    /// LSN that the next window must start at.
    pub(crate) fn position(&self) -> Lsn {
        self.next
    }

    /// Where the next record starts, if it does not join on to another: after the page header, where a page starts.
    pub(crate) fn next_record(&self) -> Option<Lsn> {
        let at = match self.state {
            State::Record | State::InsidePage => self.next,
            State::Skip(to) => to,
            State::FindFirst | State::SkipPage(_) | State::Joining(_) => return None,
        };
        Some(if self.fmt.page_offset(at) == 0 { at + self.fmt.page_header_size(at) } else { at })
    }

    /// Start of the last record returned.
    pub(crate) fn previous(&self) -> Option<Lsn> {
        self.previous
    }

    /// Whether a page said that the record before it was lost, and no record has come since.
    pub(crate) fn has_lost_record(&self) -> bool {
        self.overwritten.is_some()
    }

    /// Timeline of the last page header read.
    pub(crate) fn timeline(&self) -> Option<TimelineId> {
        self.timeline
    }

    /// Bytes still to come of the record that is joined.
    fn missing(&self, joining: Joining) -> u64 {
        u64::from(joining.total).saturating_sub(joining.spared.len as u64)
    }

    /// The verdict where no more input comes.
    pub(crate) fn finish(&self, window: &[u8]) -> End {
        // At the start of a page the window has at most a piece of its header, and nothing of a record.
        let here = if self.fmt.page_offset(self.next) == 0 { &[][..] } else { window };
        let missing = |of: u64| of.saturating_sub(here.len() as u64);
        match self.state {
            State::Joining(j) => End { lsn: j.start, reason: EndReason::Unfinished { missing: Some(missing(self.missing(j))) } },
            State::Record | State::InsidePage if here.iter().any(|&b| b != 0) => {
                let total = u32::read(here, self.fmt).ok().map(|(_, total)| total);
                End { lsn: self.next, reason: EndReason::Unfinished { missing: total.map(|total| missing(total.into())) } }
            }
            State::Skip(to) | State::SkipPage(to) => End { lsn: to, reason: EndReason::NoMoreInput },
            _ => End { lsn: self.next, reason: EndReason::NoMoreInput },
        }
    }

    /// Whether `error`, which [`Framer::step`] just gave for `window`, is how WAL ends rather than damage.
    ///
    /// A server zeroes its pages before it fills them, so zeroes follow its last record; in a file that was used before,
    /// the next page still has its old address.
    pub(crate) fn verdict(&self, error: &Error, window: &[u8]) -> Option<End> {
        let zeroes = |len: usize| window.iter().take(len).all(|&b| b == 0);
        let reason = match *error.kind() {
            ErrorKind::RecordLength { found: 0 }
                if error.location().lsn == self.next && zeroes(self.page_left().min(RECORD_HEADER_SIZE)) =>
            {
                EndReason::Zeroes
            }
            ErrorKind::Magic { .. } if zeroes(SHORT_HEADER_SIZE) => EndReason::ZeroPage,
            ErrorKind::PageAddress { expected, found } if found < expected => EndReason::Recycled { page: found },
            _ => return None,
        };
        Some(match self.state {
            State::Joining(j) => End { lsn: j.start, reason: EndReason::Unfinished { missing: Some(self.missing(j)) } },
            _ => End { lsn: self.next, reason },
        })
    }

    /// Takes from the front of `window` what can be used; a record is put into `raw`, see [`Step`].
    ///
    /// After an error the framer stays where it was, so that [`Framer::verdict`] can look at it.
    #[inline]
    pub(crate) fn step<'a>(&mut self, window: &mut &'a [u8], raw: &mut RawRecord<'a>) -> Result<Step> {
        match self.step_inside_page(window) {
            Some(inside) => {
                self.put(inside, raw);
                Ok(Step::Record)
            }
            None => self.step_anywhere(window, raw),
        }
    }

    /// Takes a record that nothing is unusual about: whole, inside a page, behind another one. Most are, and every pass over the
    /// WAL looks at all of them, so this way has no errors to make and moves nothing. Whatever it does not take, it leaves.
    #[inline]
    fn step_inside_page<'a>(&mut self, window: &mut &'a [u8]) -> Option<Inside<'a>> {
        let (previous, page_left) = self.inside_page(window)?;
        let inside = Inside::read(self.next, previous, window)?;
        let header = &inside.header;
        // Pages end where records may start, so the padding lies on the page.
        if inside.padded.len() > page_left || !is_rmgr(header.rmid, self.fmt) || header.is_switch() || !machine::has_right_crc(inside.bytes)
        {
            return None;
        }
        self.pass(inside, window);
        Some(inside)
    }

    /// Takes records as [`Framer::step`] would, as long as they lie inside the page and `is_right` says so of them; it has the word on
    /// everything but lengths, links and checksums: resource managers, and that the record is no switch. With `take` they are used,
    /// unless it says that this one has to be put together. Where the first of them and the last one start, and how many they are.
    #[inline(always)]
    pub(crate) fn take_inside_page<'a>(
        &mut self,
        window: &mut &'a [u8],
        is_right: impl Fn(&Inside<'a>) -> bool,
        mut take: impl FnMut(&Inside<'a>) -> bool,
    ) -> Option<(Lsn, Lsn, u64)> {
        let (previous, page_left) = self.inside_page(window)?;
        // All is done on the stack until the page ends, or a record that is unusual comes.
        let (page, behind) = window.split_at(page_left.min(window.len()));
        let first = self.next;
        let (page, previous, next, count) = Crc::with(
            #[inline(always)]
            |crc| {
                let (mut page, mut previous, mut next, mut count) = (page, previous, first, 0);
                while let Some(inside) = Inside::read(next, previous, page)
                    && is_right(&inside)
                    && crc.is_right(inside.bytes)
                    && take(&inside)
                {
                    machine::fetch_ahead(page);
                    (page, previous, next) = (inside.rest, next, inside.end());
                    count += 1;
                }
                (page, previous, next, count)
            },
        );
        (self.previous, self.next) = (Some(previous), next);
        *window = window.get(window.len() - behind.len() - page.len()..).unwrap_or_default(); // what is left are parts of it
        (count > 0).then_some((first, previous, count))
    }

    /// Where the record before started, and how much of the page is left, if the window starts inside a page with a record that
    /// must follow another.
    #[inline]
    fn inside_page(&mut self, window: &mut &[u8]) -> Option<(Lsn, usize)> {
        if let State::Skip(to) = self.state
            && let Some(rest) = window.get(usize::try_from(to - self.next).unwrap_or(usize::MAX)..)
        {
            (*window, self.next, self.state) = (rest, to, State::Record);
        }
        let (State::Record, Some(previous), None) = (self.state, self.previous, self.overwritten) else { return None };
        let page_left = self.page_left();
        (page_left < self.fmt.wal_page_size as usize).then_some((previous, page_left))
    }

    /// Moves on after a record.
    #[inline]
    fn pass(&mut self, inside: Inside<'_>, window: &mut &[u8]) {
        *window = window.get(inside.padded.len()..).unwrap_or_default();
        (self.previous, self.next) = (Some(inside.start), inside.start + inside.padded.len() as u64);
    }

    /// Makes `raw` the record that [`Framer::step_inside_page`] just took.
    #[inline]
    fn put<'a>(&mut self, inside: Inside<'a>, raw: &mut RawRecord<'a>) {
        // The next record that is joined can have the memory of the last one.
        if let Cow::Owned(bytes) = &mut raw.bytes {
            self.joined = std::mem::take(bytes);
        }
        self.learn_block_size(inside.bytes);
        (raw.lsn, raw.end, raw.timeline) = (inside.start, self.next, self.timeline.unwrap_or_default());
        (raw.overwritten, raw.header, raw.bytes, raw.fmt) = (None, inside.header, Cow::Borrowed(inside.bytes), self.fmt);
    }

    /// [`Framer::step`] for whatever may come.
    #[inline(never)]
    fn step_anywhere<'a>(&mut self, window: &mut &'a [u8], raw: &mut RawRecord<'a>) -> Result<Step> {
        loop {
            if let State::Skip(to) | State::SkipPage(to) = self.state {
                self.take(window, usize::try_from(to - self.next).unwrap_or(usize::MAX));
                if self.next < to {
                    return Ok(Step::NeedMore);
                }
                self.state = if matches!(self.state, State::SkipPage(_)) { State::FindFirst } else { State::Record };
            }
            if self.fmt.page_offset(self.next) == 0 {
                match self.page_start(window)? {
                    None => continue,
                    Some(step) => return Ok(step),
                }
            }
            let step = match self.state {
                State::Joining(joining) => self.join(joining, window, raw)?,
                _ => self.record_start(window, raw)?,
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// Takes the page header at the front of the window. `None`: done, go on.
    fn page_start(&mut self, window: &mut &[u8]) -> Result<Option<Step>> {
        let page = self.next;
        // The header of the next page, for which there is nothing else to do but wait.
        machine::fetch(window, self.fmt.wal_page_size as usize);
        let header = match PageHeader::read(window) {
            // A long header is promised by a flag, so a page that is too short for its header needs more bytes either way.
            Err(_) => return Ok(Some(Step::NeedMore)),
            Ok((_, header)) => header,
        };
        header.check(self.fmt, page, self.timeline).map_err(|kind| self.error(kind, page))?;
        let continues = header.info.contains(PageInfo::XLP_FIRST_IS_CONTRECORD);
        match self.state {
            State::Joining(j) if header.overwrites_contrecord(self.fmt) => {
                if continues {
                    return Err(self.error(ErrorKind::ContinuationAtStart, page));
                }
                self.overwritten = Some(j.start);
                self.state = State::Record;
            }
            State::Joining(j) => {
                let expected = self.missing(j);
                if !continues {
                    return Err(self.error(ErrorKind::NoContinuation, page));
                }
                if header.remaining == 0 || u64::from(header.remaining) != expected {
                    return Err(self.error(ErrorKind::ContinuationLength { expected, found: header.remaining }, page));
                }
                if j.total > self.longest {
                    return Err(self.error(ErrorKind::RecordTooLong { found: j.total }, page));
                }
            }
            State::FindFirst if continues && header.remaining > 0 => {
                // Page by page: each says how much of the record is left, so nothing depends on the first page's word alone.
                let rest = Lsn(u64::from(header.remaining)).align().0;
                let room = u64::from(self.fmt.wal_page_size) - header.size() as u64;
                self.timeline = Some(header.timeline);
                self.take(window, header.size());
                self.state =
                    if rest >= room { State::SkipPage(page + u64::from(self.fmt.wal_page_size)) } else { State::Skip(self.next + rest) };
                return Ok(None);
            }
            _ if continues => return Err(self.error(ErrorKind::ContinuationAtStart, page)),
            _ => self.state = State::Record,
        }
        self.timeline = Some(header.timeline);
        self.take(window, header.size());
        Ok(None)
    }

    /// Takes the record, or its first piece, from the front of the window.
    fn record_start<'a>(&mut self, window: &mut &'a [u8], raw: &mut RawRecord<'a>) -> Result<Option<Step>> {
        let start = self.next;
        let page_left = self.page_left();
        if matches!(self.state, State::InsidePage) {
            let header = self.fmt.page_header_size(Lsn(start.0.saturating_sub(self.fmt.page_offset(start))));
            if self.fmt.page_offset(start) < header {
                return Err(self.error(ErrorKind::InsidePageHeader { header: header as u32 }, start));
            }
        }
        let visible = page_left.min(RECORD_HEADER_SIZE);
        let Some(head) = window.get(..visible) else {
            return Ok(Some(Step::NeedMore));
        };
        let total = match u32::read(head, self.fmt) {
            Ok((_, total)) => total,
            Err(_) => return Ok(Some(Step::NeedMore)), // records start at multiples of 8, so a page always has 4 bytes more
        };
        let header = match RecordHeader::read(head, self.fmt) {
            Ok((_, header)) => {
                self.check_header(start, &header)?;
                Some(header)
            }
            Err(_) if (total as usize) < RECORD_HEADER_SIZE => {
                return Err(self.record_error(ErrorKind::RecordLength { found: total }, start));
            }
            Err(_) => None,
        };
        let len = total as usize;
        match header {
            Some(header) if len <= page_left => {
                let Some(bytes) = window.get(..len) else {
                    return Ok(Some(Step::NeedMore));
                };
                self.take(window, len);
                self.finish_record(start, header, Cow::Borrowed(bytes), None, raw).map(Some)
            }
            header => {
                let Some(piece) = window.get(..page_left) else {
                    return Ok(Some(Step::NeedMore));
                };
                self.take(window, page_left);
                // The memory of the record before, if that was joined too.
                if let Cow::Owned(bytes) = std::mem::take(&mut raw.bytes) {
                    self.joined = bytes;
                }
                self.joined.clear();
                self.joined.shrink_to(KEPT_ROOM);
                // Room for what most records come to; a length that lies costs no more than that.
                self.joined.reserve(len.min(JOIN_ROOM).max(page_left));
                let mut spared = self.spare(piece, len);
                spared.append(piece, &mut self.joined);
                self.state = State::Joining(Joining { start, total, header, spared });
                Ok(None)
            }
        }
    }

    /// What need not be joined of a record of `len` bytes, by its first piece.
    fn spare(&self, piece: &[u8], len: usize) -> Spared {
        /// For fewer bytes, it is not worth it.
        const LONG: usize = 512;
        if self.needs == Needs::Everything || len < LONG {
            return Spared::default();
        }
        let range = unneeded_data(piece, len, self.needs, self.fmt);
        if range.len() < LONG { Spared::default() } else { Spared { range: (range.start, range.end), crc: 0, len: 0 } }
    }

    /// Takes a further piece of a record, after a page header.
    fn join<'a>(&mut self, mut joining: Joining, window: &mut &'a [u8], raw: &mut RawRecord<'a>) -> Result<Option<Step>> {
        let missing = usize::try_from(self.missing(joining)).unwrap_or(usize::MAX);
        let Some(piece) = window.get(..missing.min(self.page_left())) else {
            return Ok(Some(Step::NeedMore));
        };
        joining.spared.append(piece, &mut self.joined);
        self.take(window, piece.len());
        // The first piece may have been too short to say what is not needed, or another one needed everything until now.
        if joining.total as usize >= HUGE && !joining.spared.is_any() && self.needs != Needs::Everything {
            let range = unneeded_data(&self.joined, joining.total as usize, self.needs, self.fmt);
            if range.len() >= HUGE {
                joining.spared.begin(range, &mut self.joined);
            }
        }
        // Whatever is wrong from here on is the record's fault, not that of its rest.
        self.state = State::Record;
        let header = match joining.header {
            Some(header) => header,
            None => match RecordHeader::read(&self.joined, self.fmt) {
                Ok((_, header)) => {
                    self.check_header(joining.start, &header)?;
                    header
                }
                // A page has room for the rest of a header, so this is a record shorter than one, which was refused above.
                Err(_) => return Err(self.record_error(ErrorKind::RecordLength { found: joining.total }, joining.start)),
            },
        };
        if joining.spared.len < joining.total as usize {
            self.state = State::Joining(Joining { header: Some(header), ..joining });
            return Ok(None);
        }
        let bytes = joining.spared.whole(&mut self.joined);
        self.finish_record(joining.start, header, Cow::Owned(bytes), joining.spared.crc(), raw).map(Some)
    }

    /// Bytes from here to the end of the page.
    #[inline]
    fn page_left(&self) -> usize {
        self.fmt.wal_page_size as usize - self.fmt.page_offset(self.next) as usize // a remainder of the page size
    }

    /// Checks what the record header alone can show. C: `ValidXLogRecordHeader`.
    fn check_header(&self, start: Lsn, header: &RecordHeader) -> Result<()> {
        let kind = if (header.tot_len as usize) < RECORD_HEADER_SIZE {
            ErrorKind::RecordLength { found: header.tot_len }
        } else if !is_rmgr(header.rmid, self.fmt) {
            ErrorKind::ResourceManager { found: header.rmid.0 }
        } else if self.previous.map_or(header.prev >= start, |previous| header.prev != previous) {
            ErrorKind::PreviousLink { expected: self.previous, found: header.prev }
        } else {
            return Ok(());
        };
        Err(self.record_error(kind, start))
    }

    /// Checks the CRC of a whole record and moves past it. `data_crc` is the CRC of the data after the header, if already known.
    fn finish_record<'a>(
        &mut self,
        start: Lsn,
        header: RecordHeader,
        bytes: Cow<'a, [u8]>,
        data_crc: Option<u32>,
        raw: &mut RawRecord<'a>,
    ) -> Result<Step> {
        let is_right = match data_crc {
            Some(crc) => record::crc_with_header(crc, &bytes) == header.crc,
            None => machine::has_right_crc(&bytes),
        };
        if !is_right {
            let expected = data_crc.map_or_else(|| record::crc(&bytes), |crc| record::crc_with_header(crc, &bytes));
            return Err(self.record_error(ErrorKind::Crc { expected, found: header.crc }, start));
        }
        self.learn_block_size(&bytes);
        let mut end = self.next.align();
        if header.is_switch() {
            // The rest of the segment is unused. Like the server, a switch record that fills the segment skips nothing.
            let size = u64::from(self.fmt.segment_size);
            end = Lsn(end.0.checked_next_multiple_of(size).unwrap_or(u64::MAX));
        }
        self.state = State::Skip(end);
        self.previous = Some(start);
        let (timeline, overwritten) = (self.timeline.unwrap_or_default(), self.overwritten.take());
        *raw = RawRecord { lsn: start, end, timeline, overwritten, header, bytes, fmt: self.fmt };
        Ok(Step::Record)
    }

    /// Skips to where the next byte is looked at, if that lies behind `fed`.
    fn skip_from(&mut self, fed: Lsn) -> Option<Lsn> {
        match self.state {
            State::Skip(to) | State::SkipPage(to) if to > fed => {
                self.next = to;
                Some(to)
            }
            _ => None,
        }
    }

    #[inline]
    fn take(&mut self, window: &mut &[u8], len: usize) {
        let len = len.min(window.len());
        *window = window.get(len..).unwrap_or_default();
        self.next = self.next + len as u64;
    }

    /// An error at `lsn`, a page header, or where a record was looked for.
    #[cold]
    fn error(&self, kind: ErrorKind, lsn: Lsn) -> Error {
        let record = match self.state {
            State::Joining(j) => Some(j.start),
            _ => None,
        };
        Error::new(kind, Location { record, ..self.location(lsn) })
    }

    /// An error in the header of the record at `start`, or in its checksum.
    #[cold]
    fn record_error(&self, kind: ErrorKind, start: Lsn) -> Error {
        Error::new(kind, Location { record: Some(start), ..self.location(start) })
    }

    fn location(&self, lsn: Lsn) -> Location {
        let segment = SegmentName::of(self.timeline.unwrap_or_default(), lsn, self.fmt.segment_size);
        Location { segment, offset: lsn.segment_offset(self.fmt.segment_size), lsn, record: None }
    }
}

/// Reads WAL that arrives in chunks: fed bytes, asked for records, without any I/O of its own.
///
/// A receiver, a replayer or a fuzzer feeds it what it has; chunks may be cut anywhere.
/// It holds the bytes that are not used yet: at most one record, plus what was fed last.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let segment = pgwal_testkit::example();
/// let mut decoder = pgwal::Decoder::new();
/// let mut records = 0;
/// for chunk in segment.chunks(1000) {
///     decoder.feed(chunk);
///     while let Some(record) = decoder.next_record()? {
///         assert!(record.lsn < record.end);
///         records += 1;
///     }
/// }
/// assert_eq!(records, 3);
/// println!("{}", decoder.finish()); // the WAL ends at 0/010000F8: zeroes follow
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that have been used.
    used: usize,
    framer: Option<Framer>,
    done: Option<std::result::Result<End, Error>>,
    /// Every stop is an error: see [`Decoder::strict_at`].
    strict: bool,
    needs: Needs,
}

impl Decoder {
    /// A decoder whose first byte is the start of a segment; the format comes from its long page header.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// A decoder whose first byte is at `start` of WAL of a known format.
    ///
    /// Where `start` is the start of a page, the rest of an earlier record there is skipped; anywhere else a record must start.
    pub fn starting_at(start: Lsn, fmt: WalFormat) -> Decoder {
        Decoder { framer: Some(Framer::new(fmt, start)), ..Decoder::default() }
    }

    /// Like [`Decoder::starting_at`], but without verdicts: what stops the server's own reader is an error here too,
    /// the usual end of the WAL included. No record is too long. pg_waldump works like this.
    pub fn strict_at(start: Lsn, fmt: WalFormat) -> Decoder {
        Decoder { strict: true, framer: Some(Framer::new(fmt, start).without_limit()), ..Decoder::default() }
    }

    /// Like [`Decoder::strict_at`], after the record that starts at `previous`, which the first one must link to: a record starts at
    /// `start`, or a page whose header it follows.
    pub fn strict_behind(previous: Lsn, start: Lsn, fmt: WalFormat) -> Decoder {
        Decoder { strict: true, framer: Some(Framer::behind(Some(previous), None, fmt, start).without_limit()), ..Decoder::default() }
    }

    /// For a reader that does not need more than `needs` of records: what it does not need may be zero in those that pages cut. Their
    /// checksums are computed of the bytes that came, as always.
    pub fn with_needs(self, needs: Needs) -> Decoder {
        Decoder { framer: self.framer.map(|framer| framer.with_needs(needs)), needs, ..self }
    }

    /// Takes the next bytes of the WAL.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(chunk);
    }

    /// Where the next chunk should start: after the last one, or further on where what follows is not looked at.
    ///
    /// A whole segment may lie between after XLOG_SWITCH, and need not be read. Bytes at hand that are skipped are forgotten.
    /// Zero before the first header has been fed.
    pub fn wanted(&mut self) -> Lsn {
        let Some(framer) = &mut self.framer else { return Lsn::INVALID };
        let fed = framer.position() + self.buffer.len().saturating_sub(self.used) as u64;
        match framer.skip_from(fed) {
            Some(to) => {
                self.buffer.clear();
                self.used = 0;
                to
            }
            None => fed,
        }
    }

    /// The format, once the first header has been fed.
    pub fn format(&self) -> Option<WalFormat> {
        self.framer.as_ref().map(|framer| framer.fmt)
    }

    /// The next record; `None` where more bytes are needed, or the WAL has ended: see [`Decoder::end`].
    ///
    /// # Errors
    /// Damage. The decoder stops there and gives the same error again.
    pub fn next_record(&mut self) -> Result<Option<RawRecord<'_>>> {
        match &self.done {
            Some(Ok(_)) => return Ok(None),
            Some(Err(error)) => return Err(error.clone()),
            None => {}
        }
        let mut window = self.buffer.get(self.used..).unwrap_or_default();
        let framer = match &mut self.framer {
            Some(framer) => framer,
            None => {
                if window.len() < LONG_HEADER_SIZE {
                    return Ok(None);
                }
                match segment_start(window) {
                    Ok((fmt, start)) => self.framer.insert(Framer::new(fmt, start).with_needs(self.needs)),
                    Err(error) => {
                        self.done = Some(Err(error.clone()));
                        return Err(error);
                    }
                }
            }
        };
        let mut raw = RawRecord::vacant(framer.fmt);
        let step = framer.step(&mut window, &mut raw);
        self.used = self.buffer.len() - window.len();
        match step {
            Ok(Step::Record) => Ok(Some(raw)),
            Ok(Step::NeedMore) => Ok(None),
            Err(error) => match framer.verdict(&error, window).filter(|_| !self.strict) {
                Some(end) => {
                    self.done = Some(Ok(end));
                    Ok(None)
                }
                None => {
                    self.done = Some(Err(error.clone()));
                    Err(error)
                }
            },
        }
    }

    /// The next record of what was fed and, after it, `chunk`, which is to be empty before another one comes: as [`Decoder::feed`] and
    /// [`Decoder::next_record`], but what lies in `chunk` is decoded there and not copied first.
    ///
    /// # Errors
    /// As of [`Decoder::next_record`].
    pub fn next_in<'a, 'c: 'a>(&'a mut self, chunk: &mut &'c [u8]) -> Result<Option<RawRecord<'a>>> {
        let framer = match &mut self.framer {
            Some(framer) if self.used == self.buffer.len() && self.done.is_none() => framer,
            _ => {
                let rest = std::mem::take(chunk);
                if !rest.is_empty() {
                    self.feed(rest);
                }
                return self.next_record();
            }
        };
        let mut raw = RawRecord::vacant(framer.fmt);
        match framer.step(chunk, &mut raw) {
            Ok(Step::Record) => Ok(Some(raw)),
            Ok(Step::NeedMore) => {
                self.feed(std::mem::take(chunk));
                Ok(None)
            }
            Err(error) => {
                let end = framer.verdict(&error, chunk).filter(|_| !self.strict);
                self.feed(std::mem::take(chunk));
                self.done = Some(end.ok_or(error));
                // Says it now, and again.
                self.next_record()
            }
        }
    }

    /// Where the WAL ended, once it has: zeroes or an old page followed.
    pub fn end(&self) -> Option<End> {
        self.done.as_ref().and_then(|done| done.as_ref().ok()).copied()
    }

    /// The verdict where no more bytes come.
    pub fn finish(&self) -> End {
        let window = self.buffer.get(self.used..).unwrap_or_default();
        match (&self.done, &self.framer) {
            (Some(Ok(end)), _) => *end,
            (_, Some(framer)) => framer.finish(window),
            (_, None) => End { lsn: Lsn::INVALID, reason: EndReason::NoMoreInput },
        }
    }
}

/// Format and first LSN of what must be a segment's first page.
fn segment_start(page: &[u8]) -> Result<(WalFormat, Lsn)> {
    let (fmt, found) = first_format(page)?;
    match found.segment_offset(fmt.segment_size) {
        0 => Ok((fmt, found)),
        offset => {
            let expected = Lsn(found.0.saturating_sub(offset));
            Err(Error::new(ErrorKind::PageAddress { expected, found }, Location { lsn: found, ..Location::default() }))
        }
    }
}

/// Format and first LSN of a segment, from the header of its first page.
///
/// # Errors
/// The bytes are not the start of a segment.
pub fn first_format(segment: &[u8]) -> Result<(WalFormat, Lsn)> {
    let fail = |kind| Error::new(kind, Location::default());
    let (_, header) = PageHeader::read(segment).map_err(|e| fail(e.into()))?;
    let fmt = header.format().map_err(fail)?;
    Ok((fmt, header.address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Segment;
    use pgwal_testkit::fixtures;

    /// The records of `bytes`, which start at `start`, up to the first that is not whole.
    fn read(bytes: &[u8], start: Lsn, fmt: WalFormat, needs: Needs) -> (Vec<RawRecord<'_>>, Option<Error>) {
        let mut framer = Framer::new(fmt, start).with_needs(needs);
        let (mut window, mut records) = (bytes, Vec::new());
        loop {
            let mut raw = RawRecord::vacant(fmt);
            match framer.step(&mut window, &mut raw) {
                Ok(Step::Record) => records.push(raw),
                Ok(Step::NeedMore) => return (records, None),
                Err(error) => return (records, Some(error)),
            }
        }
    }

    /// Who does not need all of the records gets them at the same places, and learns of the same damage.
    #[test]
    fn what_is_spared_changes_nothing_else() {
        let (mut spared, mut damaged) = (0, 0);
        let known = fixtures::all().into_iter().map(|fixture| (fixture, DEFAULT_BLOCK_SIZE));
        let unknown = fixtures::with_odd().into_iter().map(|fixture| (fixture, 0));
        for (fixture, block_size) in known.chain(unknown) {
            for path in fixture.segments() {
                let segment = Segment::open(&path).unwrap();
                let fmt = segment.format().with_block_size(block_size);
                let (all, end) = read(segment.bytes(), segment.start(), fmt, Needs::Everything);
                for needs in [Needs::NoImages, Needs::MainData, Needs::Headers] {
                    let (records, found) = read(segment.bytes(), segment.start(), fmt, needs);
                    assert_eq!((records.len(), &found), (all.len(), &end));
                    for (found, record) in records.iter().zip(&all) {
                        assert_eq!((found.lsn, found.end, found.header, found.fmt), (record.lsn, record.end, record.header, record.fmt));
                        let is_main = needs == Needs::Headers || found.decode().unwrap().main == record.decode().unwrap().main;
                        assert!(is_main && found.decode().unwrap().main.len() == record.decode().unwrap().main.len());
                        if found.bytes == record.bytes {
                            continue;
                        }
                        spared += 1;
                        if spared % 16 != 0 {
                            continue;
                        }
                        // A bit that is turned in what was not copied.
                        let at = found.bytes.iter().zip(&*record.bytes).position(|(found, byte)| found != byte).unwrap();
                        let place = (fmt.lsn_in_record(record.lsn, at as u64) - segment.start()) as usize;
                        let mut bytes = segment.bytes().to_vec();
                        bytes[place] ^= 0x40;
                        let expected = read(&bytes, segment.start(), fmt, Needs::Everything);
                        let found = read(&bytes, segment.start(), fmt, needs);
                        assert!(matches!(expected.1.as_ref().unwrap().kind(), ErrorKind::Crc { .. }));
                        assert_eq!((found.0.len(), found.1), (expected.0.len(), expected.1));
                        damaged += 1;
                    }
                }
            }
        }
        assert!(spared > 1000 && damaged > 50, "{spared} {damaged}");
    }
}
