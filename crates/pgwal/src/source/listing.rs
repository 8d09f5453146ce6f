//! What a folder or archive holds, file by file: segments, histories, backup labels, and what is none of these.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::archive::Tar;
use super::kind::{FIRST_PAGE, Kind, NotWal, Packing, first_page, wrapping};
use super::name::{SegmentFileName, file_of_input, is_beside_segments};
use super::plan::{Entry, Place};
use super::{SourceError, Wal, unpack};
use crate::backup_label::{self, BackupLabel, BackupLabelError};
use crate::format::WalFormat;
use crate::history::{self, History, HistoryError};
use crate::input_file;
use crate::lsn::{SegmentName, TimelineId};
use crate::page::PageHeader;

/// All files of one or more inputs, by name. Nothing is read but first pages and the small files that are text.
#[derive(Debug)]
pub struct Archive {
    files: Vec<ArchiveFile>,
    /// The best history file of each timeline, by its place among the files.
    histories: BTreeMap<TimelineId, usize>,
    wal: Wal,
}

/// A file of an [`Archive`]. There may be hundreds of thousands: what can be told from something else is not kept.
#[derive(Debug)]
pub struct ArchiveFile {
    /// What the user knows it by.
    pub input: Arc<str>,
    /// Bytes, as stored; of a member of a compressed archive, those of the archive.
    pub len: u64,
    /// Which file it is, or is in, as it was when it was listed; `None`: it is none, or could not be looked at.
    pub stamp: Option<Stamp>,
    /// What it is.
    pub kind: FileKind,
    entry: Entry,
}

/// What tells a file from one that was put in its place, and shows when it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Device that the file is on; 0 where the system has none.
    #[serde(with = "as_text")]
    pub device: u64,
    /// Number of the file on its device; 0 where the system has none.
    #[serde(with = "as_text")]
    pub inode: u64,
    /// Bytes, as stored.
    #[serde(with = "as_text")]
    pub len: u64,
    /// When its content was last changed, which its owner may set: nanoseconds since 1970-01-01 00:00:00 UTC.
    #[serde(with = "as_text")]
    pub modified: i64,
    /// When it was last changed in any way, which nobody can set; 0 where the system does not know.
    #[serde(with = "as_text")]
    pub changed: i64,
}

impl Stamp {
    /// The stamp of the file at `path`, through links.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Stamp> {
        fs::metadata(path).map(|metadata| Stamp::of_metadata(&metadata))
    }

    fn of_metadata(metadata: &fs::Metadata) -> Stamp {
        let modified = metadata.modified().map_or(0, nanoseconds);
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let changed = metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec());
            Stamp { device: metadata.dev(), inode: metadata.ino(), len: metadata.len(), modified, changed }
        }
        #[cfg(not(unix))]
        Stamp { device: 0, inode: 0, len: metadata.len(), modified, changed: 0 }
    }
}

/// Since 1970-01-01 00:00:00 UTC.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    let span = |later: SystemTime, earlier| later.duration_since(earlier).ok().and_then(|span| i64::try_from(span.as_nanos()).ok());
    span(time, UNIX_EPOCH).or_else(|| span(UNIX_EPOCH, time).map(|before| -before)).unwrap_or_default()
}

/// Numbers of any size in JSON, as strings.
pub(crate) mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom(format_args!("\"{text}\" has the wrong form")))
    }
}

/// What a file is, by its name.
#[derive(Debug)]
pub enum FileKind {
    /// A segment, or what has the name of one.
    Segment(SegmentFile),
    /// A timeline history file.
    History {
        /// The timeline, by its name.
        timeline: TimelineId,
        /// What it says.
        history: Result<History, HistoryError>,
    },
    /// A backup history file, or a backup_label.
    BackupLabel {
        /// Where the backup starts, by the name of a backup history file; `None`: a backup_label.
        start: Option<(SegmentName, u32)>,
        /// What it says.
        label: Box<Result<BackupLabel, BackupLabelError>>,
    },
    /// A text that cannot be read.
    Unreadable(String),
    /// Anything else.
    Other,
}

/// A file with the name of a segment.
#[derive(Clone, Debug)]
pub struct SegmentFile {
    /// The segment, by its name.
    pub name: SegmentName,
    /// `.partial`: not filled when its timeline was left, or not received to its end. No server asks for it by this name.
    pub partial: bool,
    /// What it starts with.
    pub start: Start,
}

/// What a file starts with that has the name of a segment.
#[derive(Clone, Debug)]
pub enum Start {
    /// The first page of a segment, whether it is this one or another.
    Page(WalFormat, Box<PageHeader>),
    /// No first page of a segment.
    NotWal(NotWal),
    /// It cannot be read.
    Unreadable(String),
}

impl SegmentFile {
    /// Format and first page header, where the file starts as the segment that its name tells.
    pub fn in_place(&self) -> Option<(WalFormat, &PageHeader)> {
        match &self.start {
            Start::Page(fmt, header) if header.address == self.name.start(fmt.segment_size) => Some((*fmt, &**header)),
            _ => None,
        }
    }
}

impl Archive {
    /// Lists the files of `inputs`: everything that [`Wal::open`] takes.
    ///
    /// # Errors
    /// An input that cannot be read.
    pub fn open<P: AsRef<Path>>(inputs: &[P]) -> Result<Archive, SourceError> {
        let mut wal = Wal::open_all(inputs, None)?;
        let mut packed = Packed::default();
        let entries = wal.entries.iter().cloned().chain(std::mem::take(&mut wal.others));
        let mut files: Vec<ArchiveFile> = entries.filter_map(|entry| ArchiveFile::new(entry, &mut packed)).collect();
        // The order of the WAL, and of names.
        files.sort_by(|a, b| (a.entry.name, a.file(), &a.input).cmp(&(b.entry.name, b.file(), &b.input)));
        let mut histories: BTreeMap<TimelineId, usize> = BTreeMap::new();
        let is_good = |file: Option<&ArchiveFile>| matches!(file.map(|file| &file.kind), Some(FileKind::History { history: Ok(_), .. }));
        for (at, file) in files.iter().enumerate() {
            if let FileKind::History { timeline, .. } = file.kind {
                let best = histories.entry(timeline).or_insert(at);
                if !is_good(files.get(*best)) && is_good(Some(file)) {
                    *best = at;
                }
            }
        }
        Ok(Archive { files, histories, wal })
    }

    /// One without files, as the pg_wal of a data directory that has lost all of it.
    pub fn empty() -> Archive {
        Archive { files: Vec::new(), histories: BTreeMap::new(), wal: Wal::default() }
    }

    /// See [`Wal::set_block_size`].
    pub fn set_block_size(&mut self, block_size: u32) {
        self.wal.set_block_size(block_size);
    }

    /// The files: segments by timeline and number, after what is none.
    pub fn files(&self) -> &[ArchiveFile] {
        &self.files
    }

    /// The segments, by timeline and number.
    pub fn segments(&self) -> impl Iterator<Item = (&ArchiveFile, &SegmentFile)> {
        self.files.iter().filter_map(|file| file.segment().map(|segment| (file, segment)))
    }

    /// The files of a segment, with the file of a segment before and after them.
    pub(crate) fn of_segment(&self, name: SegmentName) -> (Option<&ArchiveFile>, &[ArchiveFile], Option<&ArchiveFile>) {
        // They are in the order of these names.
        let start = self.files.partition_point(|file| file.entry.name < Some(name));
        let end = self.files.partition_point(|file| file.entry.name <= Some(name));
        let segment = |at: usize| self.files.get(at).filter(|file| file.segment().is_some());
        (start.checked_sub(1).and_then(segment), self.files.get(start..end).unwrap_or_default(), segment(end))
    }

    /// Files that stand beside segments under names that begin like theirs, and are none: `.tmp`, `.bak`, `.sha256`, …
    pub fn beside_segments(&self) -> impl Iterator<Item = &ArchiveFile> {
        self.files.iter().filter(|file| is_beside_segments(file.file()))
    }

    /// The history files, by timeline.
    pub fn histories(&self) -> impl Iterator<Item = (&ArchiveFile, TimelineId, &Result<History, HistoryError>)> {
        self.files.iter().filter_map(|file| match &file.kind {
            FileKind::History { timeline, history } => Some((file, *timeline, history)),
            _ => None,
        })
    }

    /// The history file of `timeline`; where there are several, one that can be read.
    pub fn history(&self, timeline: TimelineId) -> Option<(&ArchiveFile, &Result<History, HistoryError>)> {
        let file = self.files.get(*self.histories.get(&timeline)?)?;
        match &file.kind {
            FileKind::History { history, .. } => Some((file, history)),
            _ => None,
        }
    }

    /// All of its WAL, on every timeline, with what cannot be read.
    pub fn whole(&self) -> &Wal {
        &self.wal
    }

    /// All of its WAL but the files that `is_left_out` says, and only that of `timeline`, where one is given; with what cannot be read.
    pub fn wal_without(&self, timeline: Option<TimelineId>, is_left_out: impl Fn(&str) -> bool) -> Wal {
        let is_wanted = |entry: &&Entry| {
            !is_left_out(&entry.input) && entry.name.is_none_or(|name| timeline.is_none_or(|wanted| name.timeline == wanted))
        };
        /// More are not asked what is usual among them.
        const VOTERS: usize = 1000;
        let mut wal = Wal::of(self.wal.entries.iter().filter(is_wanted).cloned().collect(), &self.wal);
        if timeline.is_none() {
            let step = self.wal.entries.len().div_ceil(VOTERS).max(1);
            wal.voters = self.wal.entries.iter().step_by(step).cloned().collect();
        }
        wal
    }

    /// The WAL of `files`, segments of this archive that follow each other.
    pub fn wal<'a>(&'a self, files: impl IntoIterator<Item = &'a ArchiveFile>) -> Wal {
        Wal::of(files.into_iter().map(|file| file.entry.clone()).collect(), &self.wal)
    }
}

impl ArchiveFile {
    /// `None`: it has gone since it was listed, as a server removes and renames segments while we look.
    fn new(entry: Entry, packed: &mut Packed) -> Option<ArchiveFile> {
        let file = entry.file();
        let (len, metadata) = entry.place.look();
        let stamp = metadata.as_ref().map(Stamp::of_metadata);
        let mut read = |len| packed.front(&entry.place, len);
        let kind = match entry.name {
            Some(name) => FileKind::Segment(SegmentFile {
                name,
                partial: SegmentFileName::parse(file).is_some_and(|name| name.is_partial),
                start: match read(FIRST_PAGE)
                    .map(|page| wrapping(&page, file).map_or_else(|| first_page(&page), |w| Err(NotWal::Wrapped(w))))
                {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
                    Ok(Ok((fmt, header))) => Start::Page(fmt, Box::new(header)),
                    Ok(Err(what)) => Start::NotWal(what),
                    Err(e) => match unpack::not_unpacked(&e) {
                        Some(wrapping) => Start::NotWal(NotWal::Wrapped(wrapping)),
                        None => Start::Unreadable(e.to_string()),
                    },
                },
            }),
            None => match TextFile::of(file).map(|text| (text, read(TEXT_LEN))) {
                None => FileKind::Other,
                Some((_, Err(e))) if e.kind() == io::ErrorKind::NotFound => return None,
                Some((_, Err(e))) => FileKind::Unreadable(e.to_string()),
                Some((TextFile::History(timeline), Ok(text))) => FileKind::History { timeline, history: History::parse(timeline, &text) },
                Some((TextFile::BackupLabel(start), Ok(text))) => {
                    FileKind::BackupLabel { start, label: Box::new(BackupLabel::parse(&text)) }
                }
            },
        };
        Some(ArchiveFile { input: Arc::clone(&entry.input), len, stamp, kind, entry })
    }

    /// Its name without folders; empty for what has none.
    pub fn file(&self) -> &str {
        self.entry.file()
    }

    /// The file that it is, or is in; `None`: none that has a name.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.entry.place.path()
    }

    /// Whether it is still the file that was listed, and nobody has written to it since.
    pub fn is_as_listed(&self) -> bool {
        let now = self.entry.place.path().and_then(|path| Stamp::of(path).ok());
        now.is_some() && now == self.stamp
    }

    /// Bytes of its content, where that is stored as it is: neither packed nor the member of a packed archive.
    pub(crate) fn plain_len(&self) -> Option<u64> {
        let (path, offset) = match &self.entry.place {
            Place::File(path) => (&**path, 0),
            Place::Range { file, offset, .. } => (&**file, *offset),
            _ => return None,
        };
        let mut look = Vec::new();
        let mut file = input_file::open(path).ok()?;
        file.seek(SeekFrom::Start(offset)).ok()?;
        file.take(self.len.min(Kind::LOOK as u64)).read_to_end(&mut look).ok()?;
        (!matches!(Kind::of(&look), Kind::Packed(_))).then_some(self.len)
    }

    /// The segment, where this is one.
    pub fn segment(&self) -> Option<&SegmentFile> {
        match &self.kind {
            FileKind::Segment(segment) => Some(segment),
            _ => None,
        }
    }

    /// How good a source of its segment this is: whole before `.partial`, plain before compressed.
    pub(crate) fn rank(&self) -> (bool, bool) {
        (self.segment().is_some_and(|segment| !segment.partial), self.file().len() == SegmentName::LEN)
    }
}

/// The small files beside segments, by name.
enum TextFile {
    History(TimelineId),
    BackupLabel(Option<(SegmentName, u32)>),
}

impl TextFile {
    fn of(name: &str) -> Option<TextFile> {
        if name == "backup_label" {
            return Some(TextFile::BackupLabel(None));
        }
        let history = history::timeline_of_file_name(name).map(TextFile::History);
        history.or_else(|| backup_label::start_of_file_name(name).map(|start| TextFile::BackupLabel(Some(start))))
    }
}

/// Whether this is the name of a small file that tells about segments.
pub(crate) fn is_text_file_name(name: &str) -> bool {
    TextFile::of(name).is_some()
}

/// Bytes of a history file or backup label, at most: a line of a history has about 50 and stands for a promotion.
pub(super) const TEXT_LEN: usize = 1 << 20;

impl Entry {
    /// Name of the file without folders; empty for what has none.
    fn file(&self) -> &str {
        match self.place {
            Place::Stdin | Place::Broken { .. } => "",
            // By what the user knows it by: spilled files have other names than they had.
            _ => file_of_input(&self.input),
        }
    }
}

impl Place {
    /// The file that it is, or is in.
    fn path(&self) -> Option<&Path> {
        match self {
            Place::File(path) => Some(path),
            Place::Range { file: path, .. } | Place::Packed { archive: path, .. } => Some(path),
            Place::Stdin | Place::Broken { .. } | Place::NoFile { .. } => None,
        }
    }

    /// Its size, and what the system says of the file that it is, or is in.
    fn look(&self) -> (u64, Option<fs::Metadata>) {
        let metadata = self.path().and_then(|path| fs::metadata(path).ok());
        let whole = metadata.as_ref().map_or(0, fs::Metadata::len);
        (if let Place::Range { len, .. } = self { *len } else { whole }, metadata)
    }
}

/// Reads the small files beside the segments of `wal`.
pub(crate) fn text_of(wal: &Wal) -> Texts<'_> {
    Texts { wal, packed: Packed::default() }
}

/// See [`text_of`].
pub(crate) struct Texts<'w> {
    wal: &'w Wal,
    packed: Packed,
}

impl Texts<'_> {
    /// The file with this number in [`Wal::others`], unpacked, or the first megabyte of it.
    pub(crate) fn read(&mut self, at: usize) -> io::Result<Vec<u8>> {
        let entry = self.wal.others.get(at).ok_or(io::ErrorKind::NotFound)?;
        self.packed.front(&entry.place, TEXT_LEN)
    }
}

/// The first bytes of the members of compressed archives; each of these is unpacked once for all of its members.
#[derive(Default)]
struct Packed {
    fronts: BTreeMap<PathBuf, BTreeMap<PathBuf, Vec<u8>>>,
}

impl Packed {
    /// The first `len` bytes of a file, unpacked; fewer where it ends, or what follows does not unpack.
    fn front(&mut self, place: &Place, len: usize) -> io::Result<Vec<u8>> {
        match place {
            Place::File(path) => front(input_file::open(path)?, len),
            Place::Range { file, offset, len: member } => {
                let mut file = File::open(file)?;
                file.seek(SeekFrom::Start(*offset))?;
                front(file.take(*member), len)
            }
            Place::Packed { archive, packing, member } => {
                if !self.fronts.contains_key(&**archive) {
                    self.fronts.insert(archive.to_path_buf(), fronts(archive, *packing)?);
                }
                let found = self.fronts.get(&**archive).and_then(|members| members.get(member));
                found.cloned().ok_or_else(|| io::Error::other("the archive has changed"))
            }
            Place::Broken { why } => Err(io::Error::other(why.clone())),
            Place::NoFile { what } => Err(io::Error::other(what.to_string())),
            Place::Stdin => Ok(Vec::new()),
        }
    }
}

/// The first bytes of each member of a compressed archive.
fn fronts(archive: &Path, packing: Packing) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut fronts = BTreeMap::new();
    let stream = unpack::stream(packing, File::open(archive)?)?;
    let walked = Tar::new(stream).segments(|mut member| {
        let len = if member.name.is_some() { FIRST_PAGE } else { TEXT_LEN };
        let mut stored = Vec::new();
        (&mut member).take(len as u64).read_to_end(&mut stored)?;
        if let Kind::Packed(_) = Kind::of(&stored) {
            (&mut member).take(unpack::LARGEST_BLOCK as u64).read_to_end(&mut stored)?;
        }
        // What does not unpack shows when it is read.
        fronts.insert(member.path, front(&stored[..], len).unwrap_or_default());
        Ok(())
    });
    match walked {
        Err(e) if fronts.is_empty() => Err(e),
        _ => Ok(fronts),
    }
}

fn front(mut stream: impl Read + Send, len: usize) -> io::Result<Vec<u8>> {
    let mut look = vec![0; Kind::LOOK];
    let filled = unpack::fill(&mut stream, &mut look)?;
    look.truncate(filled);
    let kind = Kind::of(&look);
    let stream = io::Cursor::new(look).chain(stream);
    let mut stream: Box<dyn Read + '_> = match kind {
        Kind::Packed(packing) => unpack::stream(packing, stream)?,
        _ => Box::new(stream),
    };
    let mut front = vec![0; len];
    let (filled, error) = unpack::fill_to_error(&mut *stream, &mut front);
    front.truncate(filled);
    match error {
        Some(e) if filled == 0 => Err(e),
        _ => Ok(front),
    }
}
