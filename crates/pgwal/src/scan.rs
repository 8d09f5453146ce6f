//! Reading much WAL with many threads, in order and in bounded memory.
//!
//! The WAL comes in extents. Each worker frames the records that start in its extent and renders them into a part of its own;
//! parts are handed on in the order of the WAL. A record belongs to the extent where its header starts; its rest is joined on
//! the way. Where two extents meet, the state of the reader before must be exactly what the worker behind assumed: where it is
//! not, the extent is read again from that state. So what comes out is what one thread would have read.

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;
use crate::frame::{Blocks, End, EndReason, Framer, Step};
use crate::lsn::{Lsn, SegmentName};
use crate::ordered::{self, Results};
use crate::page::PageHeader;
pub use crate::record::Needs;
use crate::record::{RawRecord, is_rmgr};
use crate::source::{Extent, SourceError, SourceProblem, Unread, Wal, judge, piece_size};

/// What is done with each record.
pub trait Work: Sync {
    /// What the records of an extent come to: rendered text, counts.
    type Part: Send;

    /// An empty part.
    fn part(&self) -> Self::Part;

    /// Bytes of WAL that make a part, at most: what is rendered from them should stay in the processor's cache until it is written.
    fn part_size(&self) -> usize {
        512 << 10
    }

    /// What the work needs of a record's bytes; what it does not need may be zero.
    fn needs(&self) -> Needs {
        Needs::Everything
    }

    /// Whether there are records that [`Work::quick_record`] adds.
    const IS_QUICK: bool = false;

    /// Adds a record to the part if that is quickly done and cannot fail, and says whether it did: then [`Work::record`] is not asked.
    ///
    /// Only records inside a page come here, which are most. What this does should be inlined, so that no record has to be put
    /// together for it.
    fn quick_record(&self, _raw: &RawRecord<'_>, _part: &mut Self::Part) -> bool {
        false
    }

    /// Adds a record to the part.
    ///
    /// # Errors
    /// The record does not decode; the WAL is not read further, as the server would not replay it.
    fn record(&self, raw: &RawRecord<'_>, part: &mut Self::Part) -> Result<(), Error>;
}

/// Which WAL is read, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The first record at or after this LSN; `None`: the first there is.
    pub start: Option<Lsn>,
    /// Bytes from here on are not read; `None`: to the end.
    pub end: Option<Lsn>,
    /// Worker threads.
    pub threads: usize,
}

/// Why the reading stopped.
#[derive(Debug)]
pub enum Stop {
    /// The WAL ends.
    End(End),
    /// The WAL is damaged.
    Damage(Error),
    /// An input could not be read, or the next segment is missing.
    Source(SourceError),
    /// The end that was asked for.
    Reached(Lsn),
    /// The consumer has had enough.
    Enough,
}

/// What there is to say besides the records.
#[derive(Debug)]
pub struct Summary {
    /// Why the reading stopped.
    pub stop: Stop,
    /// Start of the first record read.
    pub first: Option<Lsn>,
    /// Start of the last record read.
    pub last: Option<Lsn>,
    /// LSN behind the last record.
    pub position: Option<Lsn>,
}

/// Bytes of all extents in flight, so that parts rendered from them stay in bounds.
const IN_FLIGHT: usize = 8 << 20;

/// Reads `wal` and gives the parts to `sink`, in order.
pub fn scan<W: Work>(wal: &Wal, options: Options, work: &W, mut sink: impl FnMut(W::Part) -> ControlFlow<()>) -> Summary {
    let window = ordered::window(options.threads);
    let size = if W::IS_QUICK { piece_size(window) } else { (IN_FLIGHT / window).min(work.part_size()) };
    let mut extents = wal.extents_from(options.start.unwrap_or_default(), size);
    let is_wanted = |unread: &Result<Unread, _>| match (unread, options.start) {
        (Ok(unread), Some(from)) => unread.end() > from,
        _ => true,
    };
    let wanted = std::iter::from_fn(|| extents.next_unread()).filter(is_wanted);
    // The block size, once the reader in order knows it: so that not every worker looks for it anew.
    let block_size = AtomicU32::new(0);
    let work_on = |unread: Result<Unread, _>, is_ahead: bool| {
        let mut extent = unread?.read()?;
        let ahead = is_ahead.then(|| Ahead::read(options, work, &extent, block_size.load(Ordering::Relaxed)));
        // The reader in order looks at what comes before the first record, and this thread reads the next extent into memory that
        // it has just used.
        if let Some((first, _)) = ahead.as_ref().and_then(|ahead| ahead.first) {
            extent.keep_front(first);
        }
        Ok((extent, ahead))
    };
    let mut reader = Reader { options, work, framer: None, first: None, block_size: &block_size };
    let stop = ordered::with_workers(options.threads, wanted, work_on, |feed| reader.run(wal, feed, &mut sink));
    let last = reader.framer.as_ref().and_then(Framer::previous);
    Summary { stop, first: reader.first, last, position: reader.framer.as_ref().map(Framer::position) }
}

/// An extent in its turn, with what a worker made of it; or why there is none.
type Item<W> = Result<(Extent, Option<Ahead<W>>), SourceError>;

/// The reader in order; its framer is the state of truth.
struct Reader<'w, W> {
    options: Options,
    work: &'w W,
    framer: Option<Framer>,
    first: Option<Lsn>,
    /// What the framer knows of the block size, for the workers.
    block_size: &'w AtomicU32,
}

/// An extent that a worker has read without knowing what came before.
struct Ahead<W: Work> {
    /// Start and previous link of its first record.
    first: Option<(Lsn, Lsn)>,
    framer: Framer,
    part: W::Part,
}

/// The bytes of `extent` from `start` on, up to the end asked for.
fn rest(options: Options, extent: &Extent, start: Lsn) -> &[u8] {
    let bytes = extent.bytes();
    let at = |lsn: Lsn| usize::try_from(lsn - extent.start).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(at(start)..options.end.map_or(bytes.len(), at)).unwrap_or_default()
}

impl<W: Work> Ahead<W> {
    /// Reads an extent that others come before. Gives up, and leaves it to the reader in order, at anything unusual.
    fn read(options: Options, work: &W, extent: &Extent, block_size: u32) -> Ahead<W> {
        let mut ahead = Ahead { first: None, framer: Framer::new(extent.fmt, extent.start).with_needs(work.needs()), part: work.part() };
        ahead.framer.know_blocks(Blocks::of(extent.fmt.with_block_size(block_size)));
        let mut first = None;
        let mut window = rest(options, extent, extent.start);
        let mut raw = RawRecord::vacant(extent.fmt);
        loop {
            // The first record is one that the framer has had to look for.
            if W::IS_QUICK && options.start.is_none_or(|start| ahead.framer.position() >= start) {
                take_quick_records(&mut ahead.framer, &mut window, work, &mut ahead.part);
            }
            match ahead.framer.step(&mut window, &mut raw) {
                Ok(Step::Record) => {
                    let unusual = raw.overwritten.is_some() || options.start.is_some_and(|start| raw.lsn < start);
                    if unusual || work.record(&raw, &mut ahead.part).is_err() {
                        return ahead;
                    }
                    first.get_or_insert((raw.lsn, raw.header.prev));
                }
                Ok(Step::NeedMore) if window.is_empty() => break,
                Ok(Step::NeedMore) | Err(_) => return ahead,
            }
        }
        if options.end.is_none_or(|end| end > extent.end()) {
            ahead.first = first;
        }
        ahead
    }
}

/// Has [`Work::quick_record`] take what it can of the page.
fn take_quick_records<W: Work>(framer: &mut Framer, window: &mut &[u8], work: &W, part: &mut W::Part) {
    let (fmt, timeline) = (framer.format(), framer.timeline().unwrap_or_default());
    framer.take_inside_page(
        window,
        #[inline(always)]
        |inside| is_rmgr(inside.header.rmid, fmt) && !inside.header.is_switch(),
        #[inline(always)]
        |inside| work.quick_record(&inside.raw(timeline, fmt), part),
    );
}

impl<W: Work> Reader<'_, W> {
    /// Reads all that `feed` brings.
    fn run(&mut self, wal: &Wal, feed: &dyn Results<Item<W>>, sink: &mut impl FnMut(W::Part) -> ControlFlow<()>) -> Stop {
        loop {
            match feed.next() {
                Some(Ok((extent, ahead))) => {
                    let stop = self.read(extent, ahead, feed, sink);
                    self.block_size.store(self.framer.as_ref().map_or(0, |framer| framer.format().block_size), Ordering::Relaxed);
                    if let Some(stop) = stop {
                        return stop;
                    }
                }
                Some(Err(error)) => return Stop::Source(error),
                None => {
                    return match (&self.framer, self.options.start) {
                        (Some(framer), _) => Stop::End(framer.finish(&[])),
                        (None, Some(start)) => Stop::Source(SourceError::new(wal.last_input(), SourceProblem::NoStart { start })),
                        (None, None) => Stop::End(End { lsn: Lsn::INVALID, reason: EndReason::NoMoreInput }),
                    };
                }
            }
        }
    }

    /// Reads an extent in order, or takes over what a worker made of it. What `feed` brings next tells damage from
    /// the end of the WAL.
    fn read(
        &mut self,
        extent: Extent,
        mut ahead: Option<Ahead<W>>,
        feed: &dyn Results<Item<W>>,
        sink: &mut impl FnMut(W::Part) -> ControlFlow<()>,
    ) -> Option<Stop> {
        let mut part = self.work.part();
        let framer = match &mut self.framer {
            Some(framer) if framer.position() == extent.start => framer,
            Some(framer) => {
                let problem = SourceProblem::NotNext { expected: framer.position(), found: extent.start };
                return Some(Stop::Source(SourceError::new(&extent.input, problem)));
            }
            None => {
                if let Some(start) = self.options.start.filter(|&start| start < extent.start) {
                    let timeline = PageHeader::read(extent.bytes()).map(|(_, header)| header.timeline).unwrap_or_default();
                    let missing = SegmentName::of(timeline, start, extent.fmt.segment_size);
                    return Some(Stop::Source(SourceError::new(missing, SourceProblem::Missing)));
                }
                let start = self.options.start.filter(|&start| start > extent.start).unwrap_or(extent.start);
                let page = Lsn(start.0 - extent.fmt.page_offset(start));
                self.framer.insert(Framer::new(extent.fmt, page).with_needs(self.work.needs()))
            }
        };
        let timeline = PageHeader::read(extent.bytes()).ok().map(|(_, header)| header.timeline);
        let (mut extent, whole) = (&extent, OnceCell::new());
        let mut window = rest(self.options, extent, framer.position());
        let mut raw = RawRecord::vacant(extent.fmt);
        let mut stop = loop {
            // The seam: this reader stands where the worker found its first record, and in the state that it assumed.
            let meets = |ahead: &mut Ahead<W>| match ahead.first {
                Some((first, prev)) => {
                    let state = framer.next_record() == Some(first) && framer.previous() == Some(prev) && !framer.has_lost_record();
                    let is_format = framer.format().is_same_wal(extent.fmt);
                    state && framer.timeline() <= timeline && is_format && framer.blocks().agrees_with(ahead.framer.blocks())
                }
                None => false,
            };
            if let Some(ahead) = ahead.take_if(meets) {
                framer.go_on_from(ahead.framer);
                return (sink(part).is_break() || sink(ahead.part).is_break()).then_some(Stop::Enough);
            }
            if W::IS_QUICK && ahead.is_none() && self.first.is_some() {
                take_quick_records(framer, &mut window, self.work, &mut part);
            }
            match framer.step(&mut window, &mut raw) {
                Ok(Step::Record) => {
                    if self.options.start.is_some_and(|start| raw.lsn < start) {
                        continue;
                    }
                    self.first.get_or_insert(raw.lsn);
                    if let Err(error) = self.work.record(&raw, &mut part) {
                        break Some(Stop::Damage(error));
                    }
                }
                step => {
                    // The reader did not get to where the worker began, so what the worker made is of no use.
                    if !extent.is_whole() && whole.get().is_none() {
                        match extent.read_again() {
                            Ok(again) => {
                                extent = whole.get_or_init(|| again);
                                window = rest(self.options, extent, framer.position());
                            }
                            Err(error) => break Some(Stop::Source(error)),
                        }
                        if step.is_ok() {
                            continue;
                        }
                    }
                    break step.err().map(|error| stopped(framer, error, window, extent, feed));
                }
            }
        };
        let enough = sink(part).is_break();
        if stop.is_none() && !window.is_empty() && self.options.end.is_none_or(|end| end > extent.end()) {
            // The segment is cut short inside a page.
            stop = Some(ended(framer, framer.finish(window), extent, feed.next()));
        }
        let reached = self.options.end.filter(|&end| end <= extent.end()).map(Stop::Reached);
        // Who has had enough does not want to know what comes behind.
        enough.then_some(Stop::Enough).or(stop).or(reached)
    }
}

/// What `error`, where the reader stopped in `extent`, means: damage, or the end of the WAL.
fn stopped<W: Work>(framer: &Framer, error: Error, window: &[u8], extent: &Extent, feed: &dyn Results<Item<W>>) -> Stop {
    feed.close();
    let next = feed.next();
    let after = match &next {
        Some(Ok((after, _))) if after.start == extent.end() => after.bytes(),
        _ => &[],
    };
    let Some(end) = judge(framer, &error, window, after) else { return Stop::Damage(error) };
    if let Some(Ok((next, _))) = &next
        && goes_on(framer, next).unwrap_or_else(|| goes_on_later(framer, feed))
    {
        return Stop::Damage(error);
    }
    ended(framer, end, extent, next)
}

/// The end of the WAL in `extent`, unless the records go on to its last byte and the `next` extent is missing: then it is not
/// the server that stopped there.
fn ended<W: Work>(framer: &Framer, end: End, extent: &Extent, next: Option<Item<W>>) -> Stop {
    match (next, end.reason) {
        (Some(Err(missing)), EndReason::NoMoreInput | EndReason::Unfinished { .. }) if framer.position() >= extent.last_page() => {
            Stop::Source(missing)
        }
        _ => Stop::End(end),
    }
}

/// Whether the next segment, which `feed` has still to bring, starts with a page of this WAL: then it did not end before.
fn goes_on_later<W: Work>(framer: &Framer, feed: &dyn Results<Item<W>>) -> bool {
    std::iter::from_fn(|| feed.next()).find_map(|item| item.map_or(Some(false), |(extent, _)| goes_on(framer, &extent))) == Some(true)
}

/// Whether `extent` starts with a page of this WAL, if it is the start of a segment.
fn goes_on(framer: &Framer, extent: &Extent) -> Option<bool> {
    let fmt = framer.format();
    let is_next = extent.start > framer.position() && extent.start.segment_offset(fmt.segment_size) == 0;
    is_next.then(|| {
        let header = PageHeader::read(extent.bytes());
        header.is_ok_and(|(_, header)| header.check(fmt, extent.start, framer.timeline()).is_ok())
    })
}
