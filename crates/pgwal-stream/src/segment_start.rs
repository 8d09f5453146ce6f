//! What the first page of a segment file says: whether it is the segment that the file's name says, and if not, what it is.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pgwal::format::WalMagic;
use pgwal::page::{LONG_HEADER_SIZE, LongHeader, PageHeader, is_segment_size};
use pgwal::{Lsn, SegmentName, TimelineId};

use crate::compress::Compression;
use crate::input_file;

/// Why the first page is not that of the segment that the file's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartProblem {
    /// It is no WAL.
    NotWal {
        /// The first bytes.
        begins: Vec<u8>,
    },
    /// It is not compressed in the way that the name says.
    NotPacked {
        /// The first bytes.
        begins: Vec<u8>,
        /// The method that the name says.
        method: Compression,
    },
    /// WAL, but not the first page of a segment.
    NotFirstPage {
        /// The first bytes.
        begins: Vec<u8>,
    },
    /// Another major version wrote it.
    Major {
        /// The major that wrote it.
        found: u8,
        /// The server's.
        expected: u8,
    },
    /// The cluster has segments of another size.
    SegmentSize {
        /// Bytes of its segments.
        found: u32,
        /// Bytes of the server's.
        expected: u32,
    },
    /// It belongs to another cluster.
    System {
        /// Its system identifier.
        found: u64,
        /// The server's.
        expected: u64,
    },
    /// It is another segment of such a cluster.
    OtherSegment {
        /// Its first page.
        header: PageHeader,
        /// Bytes of its segments.
        segment_size: u32,
    },
    /// The page is of an older timeline than the server's history has at this place.
    OldTimeline {
        /// The timeline that the page says.
        found: TimelineId,
        /// The timeline of the name, and where it began.
        expected: (TimelineId, Lsn),
    },
}

impl fmt::Display for StartProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line of text is told whole, noise in part.
        let begins = |bytes: &[u8]| format!("it begins with \"{}\"", bytes.get(..SHOWN).unwrap_or(bytes).escape_ascii());
        match self {
            StartProblem::NotWal { begins: bytes } => write!(f, "{}, which is not WAL; move it away", begins(bytes)),
            StartProblem::NotPacked { begins: bytes, method } => {
                write!(f, "{}, which is not a file of {}; move it away", begins(bytes), method.suffix())
            }
            StartProblem::NotFirstPage { begins: bytes } => {
                write!(f, "{}, which is not the start of a segment; move it away", begins(bytes))
            }
            StartProblem::Major { found, expected } => {
                write!(f, "it was written by PostgreSQL {found}, but the server runs PostgreSQL {expected}")
            }
            StartProblem::SegmentSize { found, expected } => {
                write!(f, "it is of a cluster with segments of {found} bytes: expected {expected}")
            }
            StartProblem::System { found, expected } => {
                write!(f, "it is of the cluster with system identifier {found}: expected {expected}")
            }
            StartProblem::OtherSegment { header, segment_size } => write!(
                f,
                "its first page says {} on timeline {}, so it is segment {} by another name",
                header.address,
                header.timeline,
                SegmentName::of(header.timeline, header.address, *segment_size)
            ),
            StartProblem::OldTimeline { found, expected: (timeline, begin) } => {
                write!(f, "its first page is of timeline {found}, but timeline {timeline} began at {begin}, before it")
            }
        }
    }
}

/// Bytes of what is no WAL that are shown.
const SHOWN: usize = 16;

/// Who wrote WAL, as the first page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The segment that says it.
    pub segment: SegmentName,
    /// Major version of the server.
    pub major: u8,
    /// Bytes of the cluster's segments.
    pub segment_size: u32,
    /// Identifies the cluster.
    pub system_identifier: u64,
    /// Timeline of the page. In the segment in which a timeline begins, it is the one before.
    pub timeline: TimelineId,
}

impl Origin {
    /// What the file says that has the name of `segment`, compressed or not. `None`: it does not say it, or is not that segment: its
    /// bytes could then be anything, such as noise that looks like another system identifier.
    pub(crate) fn of(path: &Path, segment: SegmentName) -> Option<Origin> {
        let front = front(path).ok()?;
        let (_, header) = PageHeader::read(&front).ok()?;
        let (major, long) = (header.magic.major()?, header.long?);
        let is_itself = is_segment_size(long.segment_size) && header.address == segment.start(long.segment_size);
        let LongHeader { segment_size, system_identifier, .. } = long;
        is_itself.then_some(Origin { segment, major, segment_size, system_identifier, timeline: header.timeline })
    }
}

/// The first bytes of a file, unpacked.
fn front(path: &Path) -> io::Result<Vec<u8>> {
    let name = path.to_str().unwrap_or_default();
    let packed = Compression::of_name(name.strip_suffix(crate::segments::PARTIAL).unwrap_or(name));
    let mut front = Vec::new();
    packed.reader(input_file::open_regular(path)?)?.take(LONG_HEADER_SIZE as u64).read_to_end(&mut front)?;
    Ok(front)
}

/// What is wrong with the first page of a whole segment. What the WAL's decoder finds itself, such as bytes that are no page, is left to
/// it.
pub(crate) fn page_problem(segment: &[u8], name: SegmentName, major: u8, segment_size: u32, system: Option<u64>) -> Option<StartProblem> {
    let (_, header) = PageHeader::read(segment).ok()?;
    let found = header.magic.major()?;
    if found != major {
        return Some(StartProblem::Major { found, expected: major });
    }
    let long = header.long?;
    if long.segment_size != segment_size {
        return Some(StartProblem::SegmentSize { found: long.segment_size, expected: segment_size });
    }
    if let Some(expected) = system.filter(|&expected| expected != long.system_identifier) {
        return Some(StartProblem::System { found: long.system_identifier, expected });
    }
    is_another(&header, name, segment_size).then_some(StartProblem::OtherSegment { header, segment_size })
}

/// Whether a first page is that of another segment. A timeline that begins within a segment leaves the one before on its first page.
fn is_another(header: &PageHeader, name: SegmentName, segment_size: u32) -> bool {
    header.address != name.start(segment_size) || header.timeline > name.timeline
}

/// What is wrong with the start of a segment that is not whole; `None`: it has begun to be this segment, or has nothing yet.
pub(crate) fn partial_problem(
    file: &File,
    name: SegmentName,
    segment_size: u32,
    compression: Compression,
) -> io::Result<Option<StartProblem>> {
    use std::os::unix::fs::FileExt;
    let mut raw = [0; LONG_HEADER_SIZE];
    let len = file.read_at(&mut raw, 0)?;
    let raw = raw.get(..len).unwrap_or_default();
    // A crash leaves zeroes of what had no time to come to the disk.
    if raw.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let begins = raw.to_vec();
    if compression != Compression::None {
        return Ok((!compression.begins(raw)).then_some(StartProblem::NotPacked { begins, method: compression }));
    }
    // A header may be cut: by the end of the file, or by zeroes, which are the room that is taken before. Its last field is never zero.
    let cut = raw.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let magic = raw.first_chunk().map(|magic| WalMagic(u16::from_le_bytes(*magic)));
    if cut >= 2 && magic.is_none_or(|magic| magic.major().is_none()) {
        return Ok(Some(StartProblem::NotWal { begins }));
    }
    let mut whole = [0; LONG_HEADER_SIZE];
    whole.iter_mut().zip(raw).for_each(|(to, from)| *to = *from);
    let Ok((_, header)) = PageHeader::read(&whole) else { return Ok(None) };
    if cut > SEGMENT_SIZE_END {
        let Some(long) = header.long else { return Ok(Some(StartProblem::NotFirstPage { begins })) };
        if long.segment_size != segment_size {
            return Ok(Some(StartProblem::SegmentSize { found: long.segment_size, expected: segment_size }));
        }
    }
    Ok((cut > ADDRESS_END && is_another(&header, name, segment_size)).then_some(StartProblem::OtherSegment { header, segment_size }))
}

/// Where the address of the first page ends in it.
const ADDRESS_END: usize = 16;
/// Where the size of segments ends in it.
const SEGMENT_SIZE_END: usize = 36;
