//! One side as a stream: read by one thread, decoded by another, a few batches ahead of the comparison.
//!
//! Damage does not end the stream. The decoder looks for the next place where records start again and goes on there, so that one
//! flipped bit costs one record.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex};

use super::{Damage, Finish, Trouble};
use crate::error::{Error as Damaged, ErrorKind};
use crate::format::WalFormat;
use crate::frame::{Blocks, End, Framer, Step};
use crate::lsn::{Lsn, TimelineId};
use crate::page::PageHeader;
use crate::record::{RECORD_HEADER_SIZE, RawRecord, RecordHeader, is_rmgr};
use crate::source::{Extent, FileRest, SourceError, SourceProblem, Wal, judge};
use crate::wire::Wire;

/// Bytes that are read at a time.
const EXTENT: usize = 512 << 10;
/// Extents or batches that one thread may be ahead of the next.
pub(super) const AHEAD: usize = 4;
/// Bytes of a damaged record that are kept to be shown.
const DAMAGED: usize = 64 << 10;

/// A piece of an extent: it starts with a page.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    extent: Arc<Extent>,
    range: Range<usize>,
}

impl Chunk {
    pub(super) fn new(extent: Extent) -> Chunk {
        let range = 0..extent.bytes().len();
        Chunk { extent: Arc::new(extent), range }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.extent.bytes().get(self.range.clone()).unwrap_or_default()
    }

    pub(super) fn start(&self) -> Lsn {
        self.extent.start + self.range.start as u64
    }

    pub(super) fn end(&self) -> Lsn {
        self.extent.start + self.range.end as u64
    }

    pub(super) fn fmt(&self) -> WalFormat {
        self.extent.fmt
    }

    pub(super) fn input(&self) -> &str {
        &self.extent.input
    }

    /// The cluster of its segment, as the header of that says.
    pub(super) fn cluster(&self) -> Option<u64> {
        self.extent.cluster
    }

    /// The bytes from `lsn` on; none where that is outside.
    pub(super) fn bytes_from(&self, lsn: Lsn) -> &[u8] {
        let at = lsn.0.checked_sub(self.start().0).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.bytes().get(at..)).unwrap_or_default()
    }

    /// Cuts off what comes before `lsn`.
    pub(super) fn skip_to(&mut self, lsn: Lsn) {
        let len = usize::try_from(lsn - self.start()).unwrap_or(usize::MAX).min(self.range.len());
        self.range.start += len; // at most the end
    }

    /// Cuts off what comes from `lsn` on; whether that was anything.
    fn cut_at(&mut self, lsn: Lsn) -> bool {
        let len = usize::try_from(lsn - self.start()).unwrap_or(usize::MAX).min(self.range.len());
        let end = self.range.start + len; // at most the end
        std::mem::replace(&mut self.range.end, end) > end
    }

    /// The part before `lsn`.
    pub(super) fn before(&self, lsn: Lsn) -> Chunk {
        let mut part = self.clone();
        part.cut_at(lsn);
        part
    }
}

/// Reads `wal` from `start` on, or a little before it, until nobody wants more; what follows the segments in their files goes to `rests`.
pub(super) fn read(wal: &Wal, start: Lsn, rests: &Mutex<Vec<FileRest>>, sender: &SyncSender<Result<Extent, SourceError>>) {
    for extent in wal.extents_from(start, EXTENT).with_rests(rests) {
        if sender.send(extent).is_err() {
            return;
        }
    }
}

/// What the reading thread has read, in order, up to the end that was asked for.
#[derive(Debug)]
pub(super) struct Feed {
    receiver: Receiver<Result<Extent, SourceError>>,
    front: VecDeque<Result<Chunk, SourceError>>,
    end: Option<Lsn>,
    /// Whether there is WAL after that end.
    pub(super) reached: bool,
}

impl Feed {
    pub(super) fn new(receiver: Receiver<Result<Extent, SourceError>>, end: Option<Lsn>) -> Feed {
        Feed { receiver, front: VecDeque::new(), end, reached: false }
    }

    /// What comes next; `None` at the end.
    pub(super) fn peek(&mut self) -> Option<&Result<Chunk, SourceError>> {
        if self.front.is_empty() && !self.reached {
            let mut next = self.receiver.recv().ok()?.map(Chunk::new);
            if let (Ok(chunk), Some(end)) = (&mut next, self.end) {
                self.reached = chunk.cut_at(end);
            }
            if next.as_ref().is_ok_and(|chunk| chunk.bytes().is_empty()) {
                return None;
            }
            self.front.push_back(next);
        }
        self.front.front()
    }

    pub(super) fn next(&mut self) -> Option<Result<Chunk, SourceError>> {
        self.peek()?;
        self.front.pop_front()
    }

    /// The next chunk, to cut off its front.
    pub(super) fn head(&mut self) -> Option<&mut Chunk> {
        self.peek()?;
        self.front.front_mut()?.as_mut().ok()
    }

    /// Puts chunks back before everything else.
    pub(super) fn put_back(&mut self, chunks: impl DoubleEndedIterator<Item = Chunk>) {
        chunks.rev().for_each(|chunk| self.front.push_front(Ok(chunk)));
    }
}

/// What one chunk came to.
#[derive(Debug)]
pub(super) struct Batch {
    chunk: Chunk,
    /// Format of its records.
    fmt: WalFormat,
    pub(super) items: Vec<Item>,
    /// Page headers as they are, right or wrong, by their place.
    pub(super) pages: Vec<(Lsn, PageHeader)>,
}

/// Something that stands in the WAL, in the order of `lsn`.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) lsn: Lsn,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Record(Framed),
    /// Where records could not be read.
    Damage(Box<Damage>),
    /// The unused rest of a segment behind XLOG_SWITCH, without its page headers: a hash of it.
    Unused(u64),
}

/// A record without its bytes, which mostly are where they were read.
#[derive(Debug)]
pub(super) struct Framed {
    pub(super) end: Lsn,
    timeline: TimelineId,
    overwritten: Option<Lsn>,
    pub(super) header: RecordHeader,
    /// The alignment padding after it.
    pub(super) padding: u64,
    bytes: Place,
}

#[derive(Debug)]
enum Place {
    InChunk(Range<u32>),
    Joined(Vec<u8>),
}

impl Batch {
    pub(super) fn chunk(&self) -> &Chunk {
        &self.chunk
    }

    /// Bytes of one of its records.
    pub(super) fn bytes<'b>(&'b self, record: &'b Framed) -> &'b [u8] {
        match &record.bytes {
            Place::InChunk(range) => self.chunk.bytes().get(range.start as usize..range.end as usize).unwrap_or_default(),
            Place::Joined(bytes) => bytes,
        }
    }

    /// One of its records.
    pub(super) fn raw<'b>(&'b self, lsn: Lsn, record: &'b Framed) -> RawRecord<'b> {
        RawRecord {
            lsn,
            end: record.end,
            timeline: record.timeline,
            overwritten: record.overwritten,
            header: record.header,
            bytes: self.bytes(record).into(),
            fmt: self.fmt,
        }
    }
}

/// From the decoder to the comparison.
#[derive(Debug)]
pub(super) enum Message {
    Batch(Batch),
    Finish(Finish, Tail),
}

/// What is after the end of the WAL: leftovers and zeroes that nobody reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    /// Bytes.
    pub(super) len: u64,
    hasher: DefaultHasher,
}

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.hasher.write(bytes);
    }
}

impl PartialEq for Tail {
    fn eq(&self, other: &Tail) -> bool {
        (self.len, self.hasher.finish()) == (other.len, other.hasher.finish())
    }
}

/// Decodes `feed` into batches.
pub(super) fn decode(mut feed: Feed, fmt: WalFormat, sender: &SyncSender<Message>) {
    let mut decoder =
        Decoder { fmt, blocks: Blocks::of(fmt), state: State::Start, rest: Vec::new(), before: None, unused: None, found: None };
    while let Some(piece) = feed.next() {
        let batch = match piece {
            Err(error) => {
                decoder.fail(Trouble::Source(error));
                continue;
            }
            Ok(chunk) => {
                let after = match feed.peek() {
                    Some(Ok(next)) if next.start() == chunk.end() => next.bytes(),
                    _ => &[],
                };
                decoder.decode(chunk, after)
            }
        };
        if sender.send(Message::Batch(batch)).is_err() {
            return;
        }
    }
    let (batch, finish, tail) = decoder.finish(feed.reached.then_some(feed.end).flatten());
    if let Some(batch) = batch
        && sender.send(Message::Batch(batch)).is_err()
    {
        return;
    }
    let _ = sender.send(Message::Finish(finish, tail)); // nobody left to tell is no trouble
}

struct Decoder {
    fmt: WalFormat,
    /// What is known of the block size, from one framer to the next.
    blocks: Blocks,
    state: State,
    /// Bytes at the end of the last chunk that were too few to be used: an input that is cut short inside a page.
    rest: Vec<u8>,
    /// The chunk before, in which a damaged record may start.
    before: Option<Chunk>,
    /// The unused rest of a segment that is being hashed.
    unused: Option<Unused>,
    /// What was lost, when records seem to start again, until the first of them is there.
    found: Option<Box<Lost>>,
}

enum State {
    Start,
    Reading(Framer),
    /// Looking for where records start again.
    Lost(Box<Lost>),
}

struct Lost {
    damage: Damage,
    /// Start of the last good record.
    previous: Option<Lsn>,
    /// A page whose header is not believed again.
    bad_page: Option<Lsn>,
    /// What this is instead of damage, if records do not start again.
    end: Option<End>,
    tail: Tail,
}

struct Unused {
    start: Lsn,
    end: Lsn,
    hasher: DefaultHasher,
}

impl Decoder {
    /// Reads records from `start` on, which is in `chunk`.
    fn framer(&self, chunk: &Chunk, start: Lsn) -> Framer {
        Framer::new(self.blocks.complete(chunk.fmt()), start)
    }

    fn decode(&mut self, chunk: Chunk, after: &[u8]) -> Batch {
        if let State::Reading(framer) = &self.state
            && framer.position() != chunk.start()
        {
            let problem = SourceProblem::NotNext { expected: framer.position(), found: chunk.start() };
            self.fail(Trouble::Source(SourceError::new(chunk.input(), problem)));
        }
        if let State::Start = self.state {
            self.state = State::Reading(self.framer(&chunk, chunk.start()));
        }
        let mut items = Vec::new();
        self.hash_unused(&chunk, &mut items);
        let mut window = chunk.bytes();
        let mut raw = RawRecord::vacant(self.fmt);
        let mut search_from = chunk.start();
        loop {
            match &mut self.state {
                State::Start => break, // left above
                State::Reading(framer) => match framer.step(&mut window, &mut raw) {
                    Ok(Step::Record) => {
                        self.blocks = framer.blocks();
                        if let Some(mut lost) = self.found.take() {
                            lost.damage.to = Some(raw.lsn);
                            items.push(Item { lsn: lost.damage.lsn, what: What::Damage(Box::new(lost.damage)) });
                        }
                        let last = raw.fmt.lsn_in_record(raw.lsn, u64::from(raw.header.tot_len) - 1) + 1; // a header at least
                        if raw.header.is_switch() {
                            self.unused = Some(Unused { start: last, end: raw.end, hasher: DefaultHasher::new() });
                        }
                        items.push(record(&chunk, &mut raw, last));
                        self.hash_unused(&chunk, &mut items);
                    }
                    Ok(Step::NeedMore) => {
                        self.rest = window.to_vec();
                        break;
                    }
                    Err(error) => {
                        let end = judge(framer, &error, window, after);
                        let (position, previous, fmt) = (framer.position(), framer.previous(), chunk.fmt());
                        let location = error.location();
                        let lsn = location.record.unwrap_or(location.lsn);
                        let before = self.before.as_ref().filter(|before| location.lsn < chunk.start() && location.lsn >= before.start());
                        let input = Some(Arc::clone(&before.unwrap_or(&chunk).extent.input));
                        let bytes = location.record.map_or(Vec::new(), |start| self.damaged_bytes(&chunk, start));
                        let mut tail = Tail::default();
                        if end.is_some() {
                            tail.add(chunk.bytes_from(position));
                        }
                        // Behind the end of the WAL nothing is looked for but the pages of a WAL that goes on after all.
                        let next_page = Lsn(position.0 - fmt.page_offset(position)) + u64::from(fmt.wal_page_size);
                        search_from = if end.is_some() { next_page } else { lsn + 8 };
                        let mut lost = self.found.take().unwrap_or_else(|| {
                            let damage = Damage { lsn, to: None, trouble: Trouble::Damage(error), input, fmt, bytes };
                            Box::new(Lost { damage, previous, bad_page: None, end, tail })
                        });
                        lost.bad_page = Some(location.lsn);
                        self.state = State::Lost(lost);
                    }
                },
                State::Lost(lost) => {
                    let Some(found) = search(self.before.as_ref(), &chunk, after, search_from, lost) else {
                        if lost.end.is_some() && search_from == chunk.start() {
                            lost.tail.add(chunk.bytes());
                        }
                        break;
                    };
                    window = chunk.bytes_from(found);
                    let framer = self.framer(&chunk, found);
                    if let State::Lost(lost) = std::mem::replace(&mut self.state, State::Reading(framer)) {
                        self.found = Some(lost);
                    }
                }
            }
        }
        // Behind the end, what looks like page headers is left over.
        let pages = match &self.state {
            State::Lost(lost) => page_headers(&chunk, lost.end.map(|end| end.lsn)),
            _ => page_headers(&chunk, None),
        };
        self.before = Some(chunk.clone());
        let fmt = self.blocks.complete(chunk.fmt());
        Batch { chunk, fmt, items, pages }
    }

    /// Goes on behind something that could not be read at all.
    fn fail(&mut self, trouble: Trouble) {
        self.unused = None;
        if let Some(lost) = self.found.take() {
            self.state = State::Lost(lost);
        }
        let (lsn, previous) = match &self.state {
            State::Start => (Lsn::INVALID, None),
            State::Reading(framer) => (framer.finish(&self.rest).lsn, framer.previous()),
            State::Lost(_) => return, // told already
        };
        let damage = Damage { lsn, to: None, trouble, input: None, fmt: self.fmt, bytes: Vec::new() };
        self.state = State::Lost(Box::new(Lost { damage, previous, bad_page: None, end: None, tail: Tail::default() }));
    }

    fn finish(self, reached: Option<Lsn>) -> (Option<Batch>, Finish, Tail) {
        match self.found.map_or(self.state, State::Lost) {
            State::Start => (None, Finish::Damage, Tail::default()),
            State::Reading(framer) => {
                let finish = match reached {
                    Some(lsn) => Finish::Reached { lsn },
                    None => Finish::End(framer.finish(&self.rest)),
                };
                (None, finish, Tail::default())
            }
            State::Lost(lost) => match (lost.end, reached) {
                (Some(end), _) => (None, Finish::End(end), lost.tail),
                (None, _) => {
                    let item = Item { lsn: lost.damage.lsn, what: What::Damage(Box::new(lost.damage)) };
                    let batch = self.before.map(|chunk| Batch { fmt: chunk.fmt(), chunk, items: vec![item], pages: Vec::new() });
                    (batch, Finish::Damage, Tail::default())
                }
            },
        }
    }

    /// The bytes of the damaged record at `start`, as far as they are available: as many as its header says, if that can be believed.
    fn damaged_bytes(&self, chunk: &Chunk, start: Lsn) -> Vec<u8> {
        let fmt = chunk.fmt();
        let mut found = Vec::new();
        let mut wanted = RECORD_HEADER_SIZE;
        let mut lsn = start;
        loop {
            let place = if lsn < chunk.start() { self.before.as_ref() } else { Some(chunk) };
            let page_left = (u64::from(fmt.wal_page_size) - fmt.page_offset(lsn)) as usize;
            let piece = place.map_or(&[][..], |chunk| chunk.bytes_from(lsn));
            let piece = piece.get(..page_left.min(wanted - found.len())).unwrap_or(piece); // wanted is more than found
            if piece.is_empty() {
                return found;
            }
            found.extend_from_slice(piece);
            lsn = lsn + piece.len() as u64;
            if fmt.page_offset(lsn) == 0 {
                lsn = lsn + fmt.page_header_size(lsn);
            }
            if found.len() == RECORD_HEADER_SIZE && wanted == RECORD_HEADER_SIZE {
                let len = u32::read(&found, fmt).map_or(0, |(_, len)| len as usize);
                wanted = if (RECORD_HEADER_SIZE..=DAMAGED).contains(&len) { len } else { 256 };
            }
            if found.len() >= wanted {
                return found;
            }
        }
    }

    /// Adds to the hash what `chunk` has of the unused rest of a segment.
    fn hash_unused(&mut self, chunk: &Chunk, items: &mut Vec<Item>) {
        let Some(unused) = &mut self.unused else { return };
        let size = u64::from(chunk.fmt().wal_page_size);
        let mut at = unused.start.max(chunk.start());
        while at < unused.end.min(chunk.end()) {
            let page = Lsn(at.0 - chunk.fmt().page_offset(at));
            if page == at {
                at = at + chunk.fmt().page_header_size(page);
            }
            let bytes = chunk.bytes_from(at);
            let len = usize::try_from(page + size - at).unwrap_or(usize::MAX);
            unused.hasher.write(bytes.get(..len).unwrap_or(bytes));
            at = page + size;
        }
        if unused.end <= chunk.end() {
            items.push(Item { lsn: unused.start, what: What::Unused(unused.hasher.finish()) });
            self.unused = None;
        }
    }
}

/// Makes an item of the record that has just been framed, whose last byte is before `last`.
fn record(chunk: &Chunk, raw: &mut RawRecord<'_>, last: Lsn) -> Item {
    let bytes = match std::mem::take(&mut raw.bytes) {
        Cow::Borrowed(bytes) => {
            let start = (raw.lsn - chunk.start()) as u32; // chunks have less than 4 GB
            Place::InChunk(start..start.saturating_add(bytes.len() as u32))
        }
        Cow::Owned(bytes) => Place::Joined(bytes),
    };
    let padding = chunk.bytes_from(last).iter().take((last.align() - last) as usize);
    let padding = padding.fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    let (end, timeline, overwritten, header) = (raw.end, raw.timeline, raw.overwritten, raw.header);
    Item { lsn: raw.lsn, what: What::Record(Framed { end, timeline, overwritten, header, padding, bytes }) }
}

/// The page headers of `chunk` up to `end`.
fn page_headers(chunk: &Chunk, end: Option<Lsn>) -> Vec<(Lsn, PageHeader)> {
    let size = chunk.fmt().wal_page_size as usize;
    let pages = chunk.bytes().chunks(size).zip(0..).map(|(page, number)| (chunk.start() + number * size as u64, page));
    let pages = pages.take_while(|(lsn, _)| end.is_none_or(|end| *lsn < end));
    pages.filter_map(|(lsn, page)| PageHeader::read(page).ok().map(|(_, header)| (lsn, header))).collect()
}

/// The first place at or after `from` where records start again: a page, or a record on the page that is damaged. `after` are the bytes after
/// `chunk`, `before` is the chunk before it.
fn search(before: Option<&Chunk>, chunk: &Chunk, after: &[u8], from: Lsn, lost: &Lost) -> Option<Lsn> {
    let fmt = chunk.fmt();
    let mut at = from.max(chunk.start());
    while at < chunk.end() {
        let is_page = fmt.page_offset(at) == 0;
        let plausible = (is_page && lost.bad_page != Some(at)) || {
            let left = u64::from(fmt.wal_page_size) - fmt.page_offset(at);
            match RecordHeader::read(chunk.bytes_from(at), fmt) {
                Ok((_, header)) if left >= RECORD_HEADER_SIZE as u64 => {
                    header.tot_len as usize >= RECORD_HEADER_SIZE && is_rmgr(header.rmid, fmt) && lost.can_link(header.prev, at)
                }
                _ => false,
            }
        };
        if plausible && (Candidate { before, chunk, after, lost }).is_start(at) {
            return Some(at);
        }
        // After the end of the WAL there is nothing but whole pages to look for.
        at = at + if lost.end.is_some() { u64::from(fmt.wal_page_size) } else { 8 };
    }
    None
}

impl Lost {
    /// Whether a record at `at` that links to `prev` can follow what was lost. Leftovers of an earlier use of the file have records with right
    /// checksums too; their links give them away.
    fn can_link(&self, prev: Lsn, at: Lsn) -> bool {
        prev < at && self.previous.is_none_or(|previous| prev >= previous)
    }
}

/// A place where records may start again, and what is around it.
///
/// A right checksum alone is not enough: where bytes were inserted or removed, or blocks stand in each other's place, whole records stand
/// where they were not written. The links of those that follow them tell.
struct Candidate<'c> {
    before: Option<&'c Chunk>,
    chunk: &'c Chunk,
    after: &'c [u8],
    lost: &'c Lost,
}

/// What follows a record that was found after damage.
enum Follows {
    /// A record that links to it.
    Linked,
    /// A record that names another place for it: the content is not where it was written.
    Contradiction,
    /// Nothing: the WAL seems to end.
    End,
    /// Something that tells nothing, such as further damage.
    Unclear,
}

impl Candidate<'_> {
    fn is_start(&self, at: Lsn) -> bool {
        let fmt = self.chunk.fmt();
        let (mut window, mut after) = (self.chunk.bytes_from(at), self.after);
        let (mut framer, mut raw) = (Framer::new(fmt, at), RawRecord::vacant(fmt));
        match step(&mut framer, &mut window, &mut after, &mut raw) {
            Ok(Step::Record) => {}
            // It goes on after what is at hand; should it turn out to be none, it is damaged again.
            step => return step.is_ok() && window.is_empty(),
        }
        let (lsn, prev, end) = (raw.lsn, raw.header.prev, raw.end);
        if !self.lost.can_link(prev, lsn) {
            return false;
        }
        let follows = match step(&mut framer, &mut window, &mut after, &mut raw) {
            Ok(Step::Record) => Follows::Linked,
            Ok(Step::NeedMore) if end < self.chunk.end() && self.has_header(end) => Follows::Linked,
            Ok(Step::NeedMore) => Follows::End,
            Err(error) if framer.verdict(&error, window).is_some() => Follows::End,
            Err(error) => self.judge(lsn, &error),
        };
        match follows {
            Follows::Linked => true,
            Follows::Contradiction => false,
            Follows::End => {
                let is_after_lost = prev == self.lost.damage.lsn || Some(prev) == self.lost.previous;
                self.is_in_place(lsn) && (is_after_lost || self.end_of(prev) == Some(lsn))
            }
            Follows::Unclear => self.is_in_place(lsn) && self.end_of(prev) == Some(lsn),
        }
    }

    /// What the `error` of the record after the one at `lsn` says about that one.
    fn judge(&self, lsn: Lsn, error: &Damaged) -> Follows {
        let (fmt, location) = (self.chunk.fmt(), error.location());
        match *error.kind() {
            ErrorKind::PreviousLink { found, .. } => {
                let is_near = found.0.abs_diff(lsn.0) < u64::from(fmt.wal_page_size);
                let next = location.record.unwrap_or(location.lsn);
                let is_right = Framer::new(fmt, next).step(&mut self.chunk.bytes_from(next), &mut RawRecord::vacant(fmt)).is_ok();
                if found.is_valid() && (is_near || is_right) { Follows::Contradiction } else { Follows::Unclear }
            }
            // Its header, with the link, was right, if it could be seen whole.
            ErrorKind::RecordLength { .. } | ErrorKind::ResourceManager { .. } => Follows::Unclear,
            // The header, and with it the link, was right, if it could be seen whole: the checksum is wrong, or a page on its way.
            _ if location.record.is_some_and(|next| self.has_header(next)) => Follows::Linked,
            _ => Follows::Unclear,
        }
    }

    /// Whether the header of a record at `lsn` lies on one page.
    fn has_header(&self, lsn: Lsn) -> bool {
        let fmt = self.chunk.fmt();
        u64::from(fmt.wal_page_size) - fmt.page_offset(lsn) >= RECORD_HEADER_SIZE as u64
    }

    /// Whether the header of the page that `lsn` is on is right.
    fn is_in_place(&self, lsn: Lsn) -> bool {
        let fmt = self.chunk.fmt();
        let page = Lsn(lsn.0 - fmt.page_offset(lsn));
        PageHeader::read(self.chunk.bytes_from(page)).is_ok_and(|(_, header)| header.check(fmt, page, None).is_ok())
    }

    /// Where a record comes after the one at `lsn`, by the length that that one has.
    fn end_of(&self, lsn: Lsn) -> Option<Lsn> {
        let fmt = self.chunk.fmt();
        let place = if lsn < self.chunk.start() { self.before? } else { self.chunk };
        let (_, len) = u32::read(place.bytes_from(lsn), fmt).ok().filter(|(_, len)| *len as usize >= RECORD_HEADER_SIZE)?;
        let end = (fmt.lsn_in_record(lsn, u64::from(len) - 1) + 1).align();
        let header = if fmt.page_offset(end) == 0 { fmt.page_header_size(end) } else { 0 };
        Some(end + header)
    }
}

/// The next record from `window`, and `after` it.
fn step<'b>(framer: &mut Framer, window: &mut &'b [u8], after: &mut &'b [u8], raw: &mut RawRecord<'b>) -> Result<Step, Damaged> {
    loop {
        match framer.step(window, raw)? {
            Step::NeedMore if window.is_empty() && !after.is_empty() => *window = std::mem::take(after),
            step => return Ok(step),
        }
    }
}
