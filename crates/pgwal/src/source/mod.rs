//! Where WAL comes from: segment files, compressed or not, directories of them, tar archives, streams.
//!
//! [`Segment`] maps one segment and [`records`] iterates over a few of them. [`Wal`] is a plan over any number of inputs;
//! its [`Extents`] come a few megabytes at a time, so that memory stays bounded however large the input.
//!
//! Segments and large pieces of files are mapped. A file that another process cuts short meanwhile, as `cp` does when it writes over it, ends
//! this one with SIGBUS; a program that reads what others may overwrite should have a handler that says so, as the command has.

mod archive;
mod copies;
mod data;
mod extent;
mod kind;
mod listing;
mod members;
mod name;
mod pieces;
mod plan;
mod unpack;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

pub use archive::{GuardedTar, TarGuard, guarded};
pub use copies::{CopyProblem, PassedOver};
pub(crate) use data::{Data, piece_size};
pub use extent::{Extent, Extents};
pub(crate) use extent::{FileRest, Span, Unread};
pub(crate) use kind::wrapping;
pub use kind::{Kind, NotWal, Packing, Wrapping};
pub use listing::{Archive, ArchiveFile, FileKind, SegmentFile, Stamp, Start};
pub(crate) use listing::{as_text, is_text_file_name, nanoseconds, text_of};
pub(crate) use members::{members, unpacked};
pub use name::{NamedForm, SegmentFileName, file_of_input, is_wal_file_name, segment_of_file_name};
pub(crate) use name::{is_packed, is_partial};
pub(crate) use pieces::{Piece, Pieces};
pub use plan::{NoFile, Wal};
pub(crate) use unpack::{AfterPacked, Rest};

use crate::error::{Error, Result};
use crate::format::WalFormat;
use crate::frame::{End, EndReason, Framer, Step};
use crate::lsn::{Lsn, TimelineId};
use crate::page::PageHeader;
use crate::printable::printable;
use crate::record::RawRecord;

/// An input that cannot be read as WAL at all; damage inside WAL is [`crate::Error`].
#[derive(Debug)]
pub struct SourceError {
    /// The file, archive member or stream, as the user knows it.
    pub input: String,
    /// What is wrong with it.
    pub problem: SourceProblem,
}

/// What can be wrong with an input.
#[derive(Debug)]
#[non_exhaustive]
pub enum SourceProblem {
    /// The operating system says no.
    Io(io::Error),
    /// It is not WAL.
    NotWal(NotWal),
    /// It does not decompress, or its archive is damaged.
    Unpack(String),
    /// A directory or archive without any WAL segment.
    NoSegments,
    /// No segment of the timeline that was asked for.
    NoTimeline {
        /// That timeline.
        wanted: TimelineId,
        /// An older one would have done, too.
        or_older: bool,
        /// The oldest timeline that is there.
        first: TimelineId,
        /// The newest timeline that is there.
        last: TimelineId,
    },
    /// A segment that should come next is not there.
    Missing,
    /// The file ends inside the segment, and so do the records.
    CutShort {
        /// Bytes there are.
        len: u64,
        /// Bytes that its header promises.
        expected: u32,
    },
    /// It does not start where the input before it ends.
    NotNext {
        /// Where the input before ends.
        expected: Lsn,
        /// Where this one starts.
        found: Lsn,
    },
    /// The last input ends before the place where reading was to start.
    NoStart {
        /// Where it was to start.
        start: Lsn,
    },
    /// It has the name of a file, and is none.
    NoFile(NoFile),
    /// A pipe or a device, which cannot be looked at before it is read.
    Special,
}

impl SourceProblem {
    /// What an error of the decompressor means.
    fn of_unpacking(e: &io::Error) -> SourceProblem {
        match unpack::not_unpacked(e) {
            Some(wrapping) => SourceProblem::NotWal(NotWal::Wrapped(wrapping)),
            None => SourceProblem::Unpack(e.to_string()),
        }
    }
}

impl SourceError {
    pub(crate) fn new(input: impl fmt::Display, problem: SourceProblem) -> SourceError {
        SourceError { input: input.to_string(), problem }
    }

    pub(crate) fn io(input: impl fmt::Display) -> impl FnOnce(io::Error) -> SourceError {
        move |e| SourceError::new(input, SourceProblem::Io(e))
    }

    pub(crate) fn unpack(input: impl fmt::Display) -> impl FnOnce(io::Error) -> SourceError {
        move |e| SourceError::new(input, SourceProblem::of_unpacking(&e))
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (input, problem) = (printable(&self.input), &self.problem);
        match problem {
            SourceProblem::Io(e) if e.kind() == io::ErrorKind::NotFound => write!(f, "{input}: does not exist"),
            SourceProblem::Io(e) => write!(f, "{input}: {e}"),
            SourceProblem::NoFile(what) => write!(f, "{input}: {what}"),
            SourceProblem::NotWal(what) => write!(f, "{input}: {what}"),
            SourceProblem::Unpack(why) => write!(f, "{input}: does not unpack: {}", printable(why)),
            SourceProblem::NoSegments => write!(f, "{input}: no WAL segment in it"),
            SourceProblem::NoTimeline { wanted, or_older, first, last } => {
                let or_older = if *or_older { " or an older one" } else { "" };
                write!(f, "{input}: no WAL segment of timeline {wanted}{or_older}; the segments are of ")?;
                if first == last { write!(f, "timeline {first}") } else { write!(f, "timelines {first} to {last}") }
            }
            SourceProblem::Missing => write!(f, "{input}: no such segment"),
            SourceProblem::CutShort { len, expected } => {
                write!(f, "{input}: cut short: the segment has {len} of its {expected} bytes")
            }
            SourceProblem::NotNext { expected, found } => {
                write!(f, "{input}: starts at {found}, but what comes before it ends at {expected}")
            }
            SourceProblem::NoStart { start } => write!(f, "{input}: ends before {start}, where reading was to start"),
            SourceProblem::Special => {
                write!(f, "{input}: neither a file nor a directory; what a pipe gives can be read from standard input, as `-`")
            }
        }
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            SourceProblem::Io(e) => Some(e),
            _ => None,
        }
    }
}

/// One segment, whole: mapped, or decompressed into memory.
#[derive(Debug)]
pub struct Segment {
    data: Data,
    fmt: WalFormat,
    start: Lsn,
}

impl Segment {
    /// Opens a segment file; gzip, LZ4 and Zstandard are found by content.
    ///
    /// # Errors
    /// The file cannot be read, or is not the start of a segment.
    pub fn open(path: impl AsRef<Path>) -> std::result::Result<Segment, SourceError> {
        let path = path.as_ref();
        let fail = |problem| SourceError::new(path.display(), problem);
        let file = File::open(path).map_err(|e| fail(SourceProblem::Io(e)))?;
        let len = file.metadata().map_err(|e| fail(SourceProblem::Io(e)))?.len();
        let data = Data::map(&file, usize::try_from(len).unwrap_or(usize::MAX)).map_err(|e| fail(SourceProblem::Io(e)))?;
        let data = match Kind::of(&data) {
            Kind::Packed(packing) => Data::Owned(unpack::whole(packing, &data).map_err(|e| fail(SourceProblem::of_unpacking(&e)))?),
            _ => data,
        };
        Segment::new(data).map_err(|what| fail(SourceProblem::NotWal(what)))
    }

    /// Takes a segment that is in memory.
    ///
    /// # Errors
    /// The bytes are not the start of a segment.
    pub fn from_bytes(bytes: Vec<u8>) -> std::result::Result<Segment, NotWal> {
        Segment::new(Data::Owned(bytes))
    }

    fn new(data: Data) -> std::result::Result<Segment, NotWal> {
        let (fmt, header) = kind::first_page(&data)?;
        Ok(Segment { data, fmt, start: header.address })
    }

    /// Format, from the long page header.
    pub fn format(&self) -> WalFormat {
        self.fmt
    }

    /// LSN of the first byte, from the long page header.
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }
}

/// The records of `segments`, which follow each other in the WAL.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = std::env::temp_dir().join(format!("pgwal-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let path = dir.join("000000010000000000000001");
/// # std::fs::write(&path, pgwal_testkit::example())?;
/// let segments = [pgwal::Segment::open(&path)?];
/// let mut records = pgwal::records(&segments);
/// for raw in &mut records {
///     let raw = raw?;
///     let record = raw.decode()?;
///     println!("{} {} {:?}", raw.lsn, record.rmgr_name(), record.payload()?);
/// }
/// println!("{}", records.end().unwrap());
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok(())
/// # }
/// ```
pub fn records(segments: &[Segment]) -> Records<'_> {
    Records { left: segments, window: &[], framer: None, end: None, failed: false }
}

/// Iterator over the records of mapped segments; see [`records`]. It stops after an error.
#[derive(Debug)]
pub struct Records<'a> {
    left: &'a [Segment],
    window: &'a [u8],
    framer: Option<Framer>,
    end: Option<End>,
    failed: bool,
}

impl<'a> Records<'a> {
    /// Where the WAL ended and why, once the iterator has returned `None` without an error.
    pub fn end(&self) -> Option<End> {
        self.end
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RawRecord<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.end.is_none() && !self.failed {
            if let Some(framer) = &mut self.framer {
                let mut raw = RawRecord::vacant(framer.format());
                match framer.step(&mut self.window, &mut raw) {
                    Ok(Step::Record) => return Some(Ok(raw)),
                    Ok(Step::NeedMore) => {}
                    Err(error) => {
                        let after = self.left.first().map_or(&[][..], Segment::bytes);
                        match judge(framer, &error, self.window, after) {
                            Some(end) => self.end = Some(end),
                            None => {
                                self.failed = true;
                                return Some(Err(error));
                            }
                        }
                        break;
                    }
                }
            }
            // A segment that was cut short, or one that is not the next: the WAL ends before it.
            let next = self.left.split_first().filter(|(next, _)| match &self.framer {
                Some(framer) => self.window.is_empty() && framer.position() == next.start,
                None => true,
            });
            match (next, &self.framer) {
                (Some((next, left)), framer) => {
                    if framer.is_none() {
                        self.framer = Some(Framer::new(next.fmt, next.start));
                    }
                    (self.left, self.window) = (left, next.bytes());
                }
                (None, Some(framer)) => self.end = Some(framer.finish(self.window)),
                (None, None) => self.end = Some(End { lsn: Lsn::INVALID, reason: EndReason::NoMoreInput }),
            }
        }
        None
    }
}

/// The end of the WAL that `error` means; `None`: damage. `window` are the bytes where the reader stopped, `after` what follows.
///
/// Where the next page carries on, the WAL did not end here. Where it does not, and what stands here does not even link to the
/// record before, it is left over from an earlier use of the file: a receiver writes no zeroes after the last record.
pub(crate) fn judge(framer: &Framer, error: &Error, window: &[u8], after: &[u8]) -> Option<End> {
    use crate::error::ErrorKind::*;
    let fmt = framer.format();
    let at = framer.position();
    let left = (u64::from(fmt.wal_page_size) - fmt.page_offset(at)) as usize;
    let next_page = window.get(left..).filter(|rest| !rest.is_empty()).unwrap_or(after);
    let next = PageHeader::read(next_page).ok().map(|(_, header)| header);
    if next.as_ref().is_some_and(|header| header.check(fmt, at + left as u64, framer.timeline()).is_ok()) {
        return None;
    }
    let recycled = next.is_some_and(|header| header.magic.major() == Some(fmt.major) && header.address < at);
    framer.verdict(error, window).or(match error.kind() {
        RecordLength { .. } | ResourceManager { .. } | PreviousLink { expected: Some(_), .. } if recycled => {
            Some(End { lsn: error.location().lsn, reason: EndReason::Leftover })
        }
        _ => None,
    })
}
