//! The part that both sides have in common byte for byte: found by comparing bytes, without a look at what they mean.

use std::collections::VecDeque;

use super::clusters::Clusters;
use super::stream::{Chunk, Feed};
use super::{Error, OnlyBefore, Sides, Which};
use crate::format::WalFormat;
use crate::lsn::Lsn;
use crate::page::{PageHeader, PageInfo};
use crate::source::{SourceError, SourceProblem};
use crate::wire::Wire;

/// Equal bytes that are kept, at most: enough to find the record before a difference in all but the strangest WAL.
const KEPT: u64 = 32 << 20;

/// Where the two begin to be compared.
pub(super) struct Begin {
    pub(super) fmt: WalFormat,
    pub(super) lsn: Lsn,
    pub(super) only_before: Option<OnlyBefore>,
}

/// Skips what only one side has, and the pages before `start`. `known` are the LSNs that the sides begin at, as far as known.
pub(super) fn align(feeds: &mut Sides<Feed>, known: &Sides<Option<Lsn>>, start: Option<Lsn>) -> Result<Begin, Error> {
    let a = first_chunk(&mut feeds.a, known.a, Which::A)?;
    let b = first_chunk(&mut feeds.b, known.b, Which::B)?;
    if let (Some((a, _)), Some((b, _))) = (a, b)
        && !a.is_same_wal(b)
    {
        return Err(Error::Formats { a, b });
    }
    let begins = Sides { a: known.a.or(a.map(|a| a.1)).unwrap_or_default(), b: known.b.or(b.map(|b| b.1)).unwrap_or_default() };
    let mut lsn = begins.a.max(begins.b);
    let Some((fmt, _)) = a.and(b) else {
        return Err(Error::Apart { side: if a.is_none() { Which::A } else { Which::B }, begin: start.unwrap_or_default().max(lsn) });
    };
    let only_before = match () {
        () if start.is_some_and(|start| start >= lsn) => None,
        () if begins.a < lsn => Some(OnlyBefore { side: Which::A, from: begins.a, to: lsn }),
        () if begins.b < lsn => Some(OnlyBefore { side: Which::B, from: begins.b, to: lsn }),
        () => None,
    };
    if let Some(start) = start {
        lsn = lsn.max(Lsn(start.0 - fmt.page_offset(start)));
    }
    // Where a segment is missing right there, the other side skips it too.
    loop {
        let from = lsn;
        for side in Which::BOTH {
            lsn = skip_to(feeds.get_mut(side), lsn).ok_or(Error::Apart { side, begin: from })?;
        }
        if lsn == from {
            return Ok(Begin { fmt, lsn, only_before });
        }
    }
}

/// Skips to `lsn`, and returns where the feed goes on: after that, where it is missing. `None`: it ends before.
fn skip_to(feed: &mut Feed, lsn: Lsn) -> Option<Lsn> {
    loop {
        if let Some(chunk) = feed.head().filter(|chunk| chunk.end() > lsn) {
            chunk.skip_to(lsn);
            return Some(chunk.start());
        }
        // What cannot be read before the beginning is not missed.
        drop(feed.next()?);
    }
}

/// Format and start of the first WAL that can be read; `None`: there is none, though the side begins at `known`.
fn first_chunk(feed: &mut Feed, known: Option<Lsn>, side: Which) -> Result<Option<(WalFormat, Lsn)>, Error> {
    loop {
        if let Some(chunk) = feed.head() {
            return Ok(Some((chunk.fmt(), chunk.start())));
        }
        match feed.next() {
            Some(Err(SourceError { problem: SourceProblem::Missing, .. })) | Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Error::Source { side, error }),
            None if known.is_some() => return Ok(None),
            None => return Err(Error::Nothing { side }),
        }
    }
}

/// What was equal.
pub(super) struct Equal {
    /// The first byte that is not.
    pub(super) difference: Option<Lsn>,
    /// Whether all was equal, up to the end of both.
    pub(super) all: bool,
    /// LSN after the equal bytes.
    pub(super) end: Lsn,
    /// The clusters of the equal segments.
    pub(super) clusters: Sides<Clusters>,
}

/// Takes equal bytes from both feeds until they differ, one ends, or something is wrong with one. What is then at the front of
/// both is a page where records start, with `records` or more before the difference, as far as there are.
pub(super) fn skip_equal(feeds: &mut Sides<Feed>, begin: &Begin, records: usize) -> Equal {
    let mut kept = Kept { fmt: begin.fmt, chunks: VecDeque::new(), pages: VecDeque::new(), wanted: records.max(2) };
    let mut end = begin.lsn;
    let mut clusters = Sides::<Clusters>::default();
    let (difference, all) = loop {
        let (a, b) = match (feeds.a.head().cloned(), feeds.b.head().cloned()) {
            (Some(a), Some(b)) if a.start() == b.start() => (a, b),
            _ => break (None, feeds.a.peek().is_none() && feeds.b.peek().is_none()),
        };
        clusters.a.add(&a);
        clusters.b.add(&b);
        let mut common = a.end().min(b.end());
        if a.end() != b.end() {
            // Records are read page by page: where one side is cut short inside a page, the other one has all of it.
            common = Lsn(common.0 - begin.fmt.page_offset(common));
        }
        if common <= a.start() {
            break (None, false);
        }
        let (piece, other) = (a.before(common), b.before(common));
        if let Some(at) = first_difference(piece.bytes(), other.bytes()) {
            break (Some(piece.start() + at as u64), false);
        }
        for (feed, chunk) in [(&mut feeds.a, a), (&mut feeds.b, b)] {
            if chunk.end() == common {
                feed.next();
            } else if let Some(chunk) = feed.head() {
                chunk.skip_to(common);
            }
        }
        end = common;
        if kept.add(piece) > KEPT {
            break (None, false);
        }
    };
    if !all {
        feeds.a.put_back(kept.chunks.iter().cloned());
        feeds.b.put_back(kept.chunks.into_iter());
    }
    Equal { difference, all, end: difference.unwrap_or(end), clusters }
}

/// Offset of the first byte that differs.
fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    const BLOCK: usize = 4096;
    let block = a.chunks(BLOCK).zip(b.chunks(BLOCK)).position(|(a, b)| a != b)?;
    let from = block * BLOCK;
    let within = a.iter().zip(b).skip(from).position(|(a, b)| a != b)?;
    Some(from + within)
}

/// Equal chunks, from the first of the last few pages on that records start on.
struct Kept {
    fmt: WalFormat,
    chunks: VecDeque<Chunk>,
    pages: VecDeque<Lsn>,
    wanted: usize,
}

impl Kept {
    /// Adds a chunk and forgets what is no longer wanted; bytes that are kept.
    fn add(&mut self, chunk: Chunk) -> u64 {
        let size = self.fmt.wal_page_size as usize;
        let pages = (0..).map(|number| chunk.start() + number * size as u64).zip(chunk.bytes().chunks(size));
        let pages: Vec<(Lsn, &[u8])> = pages.collect();
        let last = pages.iter().rev().filter(|(lsn, page)| starts_record(self.fmt, *lsn, page)).take(self.wanted);
        let mut found: VecDeque<Lsn> = last.map(|(lsn, _)| *lsn).collect();
        found.make_contiguous().reverse();
        self.pages.append(&mut found);
        while self.pages.len() > self.wanted {
            self.pages.pop_front();
        }
        self.chunks.push_back(chunk);
        if self.pages.len() == self.wanted
            && let Some(&from) = self.pages.front()
        {
            self.chunks.retain_mut(|chunk| {
                chunk.skip_to(from);
                !chunk.bytes().is_empty()
            });
        }
        self.chunks.iter().map(|chunk| chunk.bytes().len() as u64).sum()
    }
}

/// Whether a record starts on the page, by its header.
fn starts_record(fmt: WalFormat, lsn: Lsn, page: &[u8]) -> bool {
    let Ok((rest, header)) = PageHeader::read(page) else { return false };
    if !header.check(fmt, lsn, None).is_ok_and(|()| page.len() == fmt.wal_page_size as usize) {
        return false;
    }
    let continues = header.info.contains(PageInfo::XLP_FIRST_IS_CONTRECORD);
    let skip = if continues { Lsn(header.remaining.into()).align().0 } else { 0 };
    let start = usize::try_from(skip).ok().and_then(|skip| rest.get(skip..)).unwrap_or_default();
    u32::read(start, fmt).is_ok_and(|(_, len)| len != 0)
}
