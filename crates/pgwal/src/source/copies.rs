//! Which of several files of one segment is read: one that is whole.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::extent::{Bytes, Extents};
use super::kind::{NotWal, first_page, wrapping};
use super::name::{file_of_input, rank};
use super::pieces::{Piece, Pieces};
use super::plan::{Entry, Place};
use super::{SourceError, SourceProblem};
use crate::error::{Error, ErrorKind};
use crate::format::WalFormat;
use crate::frame::{Framer, Step};
use crate::lsn::SegmentName;
use crate::printable::printable;
use crate::record::RawRecord;

/// A file of a segment that is not read: it is not whole, and another file of that segment is.
#[derive(Debug)]
pub struct PassedOver {
    /// What is wrong with it.
    pub problem: CopyProblem,
    /// The file that is read instead, as the user knows it.
    pub instead: String,
}

/// Why a file of a segment is not whole.
#[derive(Debug)]
#[non_exhaustive]
pub enum CopyProblem {
    /// It cannot be read as a segment.
    Source(SourceError),
    /// The WAL in it is damaged.
    Damage {
        /// The file, as the user knows it.
        input: String,
        /// The damage.
        error: Error,
    },
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            CopyProblem::Source(error) => write!(f, "{error}")?,
            CopyProblem::Damage { input, error } => write!(f, "{}: damaged: {error}", printable(input))?,
        }
        write!(f, "; reading {} instead", printable(&self.instead))
    }
}

/// Files of segments that stand beside those that are read.
#[derive(Debug, Default)]
pub(super) struct Copies {
    others: BTreeMap<SegmentName, Vec<Entry>>,
    pub(super) passed_over: Vec<PassedOver>,
}

/// So many files of one segment are looked at, besides the first choice. An archive can have any number of members of one name.
const MOST_OTHERS: usize = 16;

impl Copies {
    /// Keeps a file that is not the first choice for its segment.
    pub(super) fn add(&mut self, entry: Entry) {
        if let (Some(name), false) = (entry.name, matches!(entry.place, Place::NoFile { .. })) {
            let others = self.others.entry(name).or_default();
            let key = |entry: &Entry| (Reverse(rank(&entry.input)), Arc::clone(&entry.input));
            let at = others.partition_point(|other| key(other) <= key(&entry));
            if at < MOST_OTHERS {
                others.insert(at, entry);
                others.truncate(MOST_OTHERS);
            }
        }
    }

    /// Changes `entry` to another file of its segment, where the first look shows that it is not whole and the other may be.
    pub(super) fn choose(&mut self, entry: &mut Entry) {
        self.choose_by(entry, |entry, name| first_look(entry, name).map(drop).map_err(CopyProblem::Source));
    }

    /// Changes `entry` to another file of its segment, where it is not whole and the other is. Both are read for that.
    pub(super) fn choose_whole(&mut self, entry: &mut Entry) {
        self.choose_by(entry, whole);
    }

    fn choose_by(&mut self, entry: &mut Entry, check: impl Fn(&Entry, SegmentName) -> Result<(), CopyProblem>) {
        let Some((name, others)) = entry.name.and_then(|name| Some((name, self.others.get_mut(&name)?))) else { return };
        let Err(problem) = check(entry, name) else { return };
        if let Some(at) = others.iter().position(|other| check(other, name).is_ok()) {
            *entry = others.remove(at);
            self.passed_over.push(PassedOver { problem, instead: entry.input.to_string() });
        }
    }

    /// Other files of the segment which may be whole.
    pub(super) fn beside(&self, name: SegmentName) -> impl Iterator<Item = &str> {
        let others = self.others.get(&name).into_iter().flatten();
        others.filter(move |other| first_look(other, name).is_ok()).map(|other| &*other.input)
    }
}

/// What opening the file shows: its size, its first page, and whether it unpacks so far. `None`: it cannot be opened alone.
fn first_look(entry: &Entry, name: SegmentName) -> Result<Option<WalFormat>, SourceError> {
    if !matches!(entry.place, Place::File(_) | Place::Range { .. }) {
        return Ok(None);
    }
    let fail = |problem| Err(SourceError::new(&entry.input, problem));
    let mut bytes = Extents::opener().open_place(entry)?;
    let front = match bytes.front() {
        Ok(front) => front,
        Err(e) => return fail(SourceProblem::Unpack(e.to_string())),
    };
    if let Some(wrapping) = wrapping(&front, file_of_input(&entry.input)) {
        return fail(SourceProblem::NotWal(NotWal::Wrapped(wrapping)));
    }
    let (fmt, header) = match first_page(&front) {
        Ok(found) => found,
        Err(what) => return fail(SourceProblem::NotWal(what)),
    };
    let start = name.start(fmt.segment_size);
    if header.address != start {
        return fail(SourceProblem::NotWal(NotWal::Header(ErrorKind::PageAddress { expected: start, found: header.address })));
    }
    match bytes {
        Bytes::Stream { failed: Some(e), .. } => fail(SourceProblem::Unpack(e.to_string())),
        Bytes::File { left, .. } if left < u64::from(fmt.segment_size) => {
            fail(SourceProblem::CutShort { len: left, expected: fmt.segment_size })
        }
        _ => Ok(Some(fmt)),
    }
}

/// Reads the whole file: whether it has all bytes of a segment, and right records up to where the WAL ends in it.
fn whole(entry: &Entry, name: SegmentName) -> Result<(), CopyProblem> {
    /// Bytes that are read at a time.
    const PIECE: usize = 1 << 20;
    let Some(fmt) = first_look(entry, name).map_err(CopyProblem::Source)? else { return Ok(()) };
    let fail = |problem| Err(CopyProblem::Source(SourceError::new(&entry.input, problem)));
    let mut framer = Some(Framer::new(fmt, name.start(fmt.segment_size)));
    for (_, piece) in Pieces::new(std::slice::from_ref(entry), PIECE) {
        let (offset, bytes) = match piece {
            Piece::Bytes { offset, bytes } => (offset, bytes),
            Piece::End { len, .. } if len < u64::from(fmt.segment_size) => {
                return fail(SourceProblem::CutShort { len, expected: fmt.segment_size });
            }
            Piece::End { .. } => break,
            Piece::Failed(error) => return Err(CopyProblem::Source(error)),
        };
        let bytes = match bytes.read() {
            Ok(bytes) => bytes,
            Err(e) => return fail(SourceProblem::Io(e)),
        };
        // What follows the segment is no part of it.
        let len = usize::try_from(u64::from(fmt.segment_size).saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut window = bytes.get(..len).unwrap_or(&bytes);
        let mut raw = RawRecord::vacant(fmt);
        while let Some(reading) = &mut framer {
            match reading.step(&mut window, &mut raw) {
                Ok(Step::Record) => {}
                Ok(Step::NeedMore) => break,
                // The rest is only unpacked.
                Err(error) if reading.verdict(&error, window).is_some() => framer = None,
                Err(error) => return Err(CopyProblem::Damage { input: entry.input.to_string(), error }),
            }
        }
    }
    Ok(())
}
