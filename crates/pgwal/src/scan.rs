//! Reading much WAL with many threads, in order and in bounded memory.
//!
//! The WAL comes in extents. Each worker frames the records that start in its extent and renders them into a part of its own;
//! parts are handed on in the order of the WAL. A record belongs to the extent where its header starts; its rest is joined on
//! the way. Where two extents meet, the state of the reader before must be exactly what the worker behind assumed: where it is
//! not, the extent is read again from that state. So what comes out is what one thread would have read.

use std::ops::ControlFlow;

use rayon::prelude::*;

use crate::error::Error;
use crate::frame::{End, EndReason, Framer, Step};
use crate::lsn::{Lsn, SegmentName};
use crate::page::PageHeader;
use crate::record::RawRecord;
use crate::source::{Extent, SourceError, SourceProblem, Wal, judge};

/// What is done with each record.
pub trait Work: Sync {
    /// What the records of an extent come to: rendered text, counts.
    type Part: Send;

    /// An empty part.
    fn part(&self) -> Self::Part;

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
/// Bytes of an extent, at most: what is rendered from it should stay in the processor's cache until it is written.
const EXTENT: usize = 512 << 10;

/// More threads than this share [`IN_FLIGHT`] in pieces too small to be worth it.
const MAX_THREADS: usize = 64;

/// Reads `wal` and gives the parts to `sink`, in order.
pub fn scan<W: Work>(wal: &Wal, options: Options, work: &W, mut sink: impl FnMut(W::Part) -> ControlFlow<()>) -> Summary {
    let threads = options.threads.clamp(1, MAX_THREADS);
    let batch_len = if threads == 1 { 1 } else { threads * 2 };
    let pool = (threads > 1).then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()).flatten();
    let mut extents = wal.extents_from(options.start.unwrap_or_default(), (IN_FLIGHT / batch_len).min(EXTENT));
    let mut reader = Reader { options, work, framer: None, first: None };
    // One extent more than the workers take: how the WAL goes on tells damage from its end.
    let mut batch = Vec::with_capacity(batch_len + 1);
    let stop = loop {
        let mut failed = None;
        while batch.len() <= batch_len && failed.is_none() {
            match extents.next() {
                None => break,
                Some(Ok(extent)) if options.start.is_some_and(|start| extent.end() <= start) => {}
                Some(Ok(extent)) => batch.push(extent),
                Some(Err(error)) => failed = Some(error),
            }
        }
        if batch.is_empty() {
            break match (failed, &reader.framer) {
                (Some(error), _) => Stop::Source(error),
                (None, Some(framer)) => Stop::End(framer.finish(&[])),
                (None, None) => match options.start {
                    Some(start) => Stop::Source(SourceError::new(wal.last_input(), SourceProblem::NoStart { start })),
                    None => Stop::End(End { lsn: Lsn::INVALID, reason: EndReason::NoMoreInput }),
                },
            };
        }
        let work_len = if batch.len() > batch_len { batch_len } else { batch.len() };
        let in_work = batch.get(..work_len).unwrap_or_default();
        let ahead: Vec<Option<Ahead<W>>> = match &pool {
            // The first extent of all is read by the reader in order.
            Some(pool) => {
                let known = reader.framer.is_some();
                let ahead = |(at, extent)| (known || at > 0).then(|| reader.ahead(extent));
                pool.install(|| in_work.par_iter().enumerate().map(ahead).collect())
            }
            None => in_work.iter().map(|_| None).collect(),
        };
        let mut stop = None;
        for (at, (extent, ahead)) in in_work.iter().zip(ahead).enumerate() {
            let after = batch.get(at + 1).filter(|after| after.start == extent.end()).map_or(&[][..], Extent::bytes);
            stop = reader.read(extent, ahead, after, &mut sink);
            if stop.is_some() {
                break;
            }
        }
        if let Some((mut stop, error)) = stop {
            if let (Stop::End(_), Some(error)) = (&stop, error)
                && goes_on_later(batch.iter().map(Ok).chain(extents.by_ref().map(Err)), reader.framer.as_ref())
            {
                stop = Stop::Damage(error);
            }
            // The records go on to the last byte: it is not the server that stopped there.
            if let (Stop::End(end), Some(_)) = (&stop, &failed)
                && matches!(end.reason, EndReason::NoMoreInput | EndReason::Unfinished { .. })
                && reader.framer.as_ref().zip(batch.last()).is_some_and(|(framer, last)| framer.position() >= last.last_page())
            {
                break failed.map_or(stop, Stop::Source);
            }
            break stop;
        }
        if let Some(error) = failed {
            break Stop::Source(error);
        }
        batch.drain(..work_len);
    };
    let last = reader.framer.as_ref().and_then(Framer::previous);
    Summary { stop, first: reader.first, last, position: reader.framer.as_ref().map(Framer::position) }
}

/// Whether the next segment starts with a page of this WAL: then it did not end before.
fn goes_on_later<'e>(extents: impl Iterator<Item = Result<&'e Extent, Result<Extent, SourceError>>>, framer: Option<&Framer>) -> bool {
    let Some(framer) = framer else { return false };
    let fmt = framer.format();
    let is_next = |extent: &Extent| extent.start > framer.position() && extent.start.segment_offset(fmt.segment_size) == 0;
    let carries_on = |extent: &Extent| {
        let header = PageHeader::read(extent.bytes());
        header.is_ok_and(|(_, header)| header.check(fmt, extent.start, framer.timeline()).is_ok())
    };
    for extent in extents {
        match &extent {
            Ok(extent) if is_next(extent) => return carries_on(extent),
            Err(Ok(extent)) if is_next(extent) => return carries_on(extent),
            Ok(_) | Err(Ok(_)) => {}
            Err(Err(_)) => return false,
        }
    }
    false
}

/// The reader in order; its framer is the state of truth.
struct Reader<'w, W> {
    options: Options,
    work: &'w W,
    framer: Option<Framer>,
    first: Option<Lsn>,
}

/// An extent that a worker has read without knowing what came before.
struct Ahead<W: Work> {
    /// Start and previous link of its first record.
    first: Option<(Lsn, Lsn)>,
    framer: Framer,
    part: W::Part,
}

impl<W: Work> Reader<'_, W> {
    /// The bytes of `extent` that are to be read, up to the end asked for.
    fn window<'e>(&self, extent: &'e Extent) -> &'e [u8] {
        let bytes = extent.bytes();
        let len = self.options.end.map_or(bytes.len(), |end| usize::try_from(end - extent.start).unwrap_or(usize::MAX));
        bytes.get(..len).unwrap_or(bytes)
    }

    /// Reads an extent that others come before. Gives up, and leaves it to the reader in order, at anything unusual.
    fn ahead(&self, extent: &Extent) -> Ahead<W> {
        let mut ahead = Ahead { first: None, framer: Framer::new(extent.fmt, extent.start), part: self.work.part() };
        let mut first = None;
        let mut window = self.window(extent);
        loop {
            match ahead.framer.step(&mut window) {
                Ok(Step::Record(raw)) => {
                    let unusual = raw.overwritten.is_some() || self.options.start.is_some_and(|start| raw.lsn < start);
                    if unusual || self.work.record(&raw, &mut ahead.part).is_err() {
                        return ahead;
                    }
                    first.get_or_insert((raw.lsn, raw.header.prev));
                }
                Ok(Step::NeedMore) if window.is_empty() => break,
                Ok(Step::NeedMore) | Err(_) => return ahead,
            }
        }
        if self.options.end.is_none_or(|end| end > extent.end()) {
            ahead.first = first;
        }
        ahead
    }

    /// Reads an extent in order, or takes over what a worker made of it. `after` are the bytes that follow, as far as known.
    fn read(
        &mut self,
        extent: &Extent,
        mut ahead: Option<Ahead<W>>,
        after: &[u8],
        sink: &mut impl FnMut(W::Part) -> ControlFlow<()>,
    ) -> Option<(Stop, Option<Error>)> {
        let mut part = self.work.part();
        let mut window = self.window(extent);
        let framer = match &mut self.framer {
            Some(framer) if framer.position() == extent.start => framer,
            Some(framer) => {
                let problem = SourceProblem::NotNext { expected: framer.position(), found: extent.start };
                return Some((Stop::Source(SourceError::new(&extent.input, problem)), None));
            }
            None => {
                if let Some(start) = self.options.start.filter(|&start| start < extent.start) {
                    let timeline = PageHeader::read(extent.bytes()).map(|(_, header)| header.timeline).unwrap_or_default();
                    let missing = SegmentName::of(timeline, start, extent.fmt.segment_size);
                    return Some((Stop::Source(SourceError::new(missing, SourceProblem::Missing)), None));
                }
                let start = self.options.start.filter(|&start| start > extent.start).unwrap_or(extent.start);
                let page = Lsn(start.0 - extent.fmt.page_offset(start));
                window = window.get(usize::try_from(page - extent.start).unwrap_or(usize::MAX)..).unwrap_or_default();
                self.framer.insert(Framer::new(extent.fmt, page))
            }
        };
        let timeline = PageHeader::read(extent.bytes()).ok().map(|(_, header)| header.timeline);
        let mut stop = None;
        loop {
            // The seam: this reader stands where the worker found its first record, and in the state that it assumed.
            let meets = |ahead: &mut Ahead<W>| match ahead.first {
                Some((first, prev)) => {
                    let state = framer.next_record() == Some(first) && framer.previous() == Some(prev);
                    state && framer.timeline() <= timeline && framer.format() == extent.fmt
                }
                None => false,
            };
            if let Some(ahead) = ahead.take_if(meets) {
                *framer = ahead.framer;
                return match sink(part).is_break() || sink(ahead.part).is_break() {
                    true => Some((Stop::Enough, None)),
                    false => None,
                };
            }
            match framer.step(&mut window) {
                Ok(Step::Record(raw)) => {
                    if self.options.start.is_some_and(|start| raw.lsn < start) {
                        continue;
                    }
                    self.first.get_or_insert(raw.lsn);
                    if let Err(error) = self.work.record(&raw, &mut part) {
                        stop = Some((Stop::Damage(error), None));
                        break;
                    }
                }
                Ok(Step::NeedMore) => break,
                Err(error) => {
                    stop = Some(match judge(framer, &error, window, after) {
                        Some(end) => (Stop::End(end), Some(error)),
                        None => (Stop::Damage(error), None),
                    });
                    break;
                }
            }
        }
        let enough = sink(part).is_break();
        if stop.is_none() && !window.is_empty() && self.options.end.is_none_or(|end| end > extent.end()) {
            // The segment is cut short inside a page.
            stop = Some((Stop::End(framer.finish(window)), None));
        }
        let reached = self.options.end.filter(|&end| end <= extent.end()).map(|end| (Stop::Reached(end), None));
        // Who has had enough does not want to know what comes behind.
        enough.then_some((Stop::Enough, None)).or(stop).or(reached)
    }
}
