//! Which segments there are, in the order of the WAL.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::extent::Extents;
use super::kind::{Kind, Packing};
use super::{SourceError, SourceProblem, unpack};
use crate::lsn::{Lsn, SegmentName, TimelineId};

/// The segments of one or more inputs, in the order of the WAL. Nothing is read but names and first bytes.
#[derive(Debug)]
pub struct Wal {
    entries: Vec<Entry>,
    /// Members of archives that could not be read in their order; removed with the last user.
    _spilled: Vec<Arc<TempDir>>,
}

/// One segment, or a stream of several.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What the user knows it by.
    pub(super) input: String,
    /// From its name; `None`: the page header must tell.
    pub(super) name: Option<SegmentName>,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A file, whole.
    File(PathBuf),
    /// A part of a file: a member of a plain tar.
    Range { file: PathBuf, offset: u64, len: u64 },
    /// A member of a compressed tar, which is read once from front to back.
    Packed { archive: PathBuf, packing: Packing, member: PathBuf },
    /// Standard input.
    Stdin,
}

/// The segment that a file name tells: `000000010000000000000001`, also with `.partial`, a compression's suffix, or the
/// checksum that pgBackRest appends. `None` for history files, backup labels and anything else.
pub fn segment_of_file_name(name: &str) -> Option<SegmentName> {
    let (digits, suffix) = name.split_at_checked(SegmentName::LEN)?;
    let is_other = [".history", ".backup", ".ready", ".done"].iter().any(|other| suffix.ends_with(other));
    if is_other || !(suffix.is_empty() || suffix.starts_with(['.', '-'])) {
        return None;
    }
    digits.parse().ok()
}

impl Wal {
    /// Finds the segments of `inputs`: segment files, directories of them, data directories, tar archives, `-` for standard
    /// input; each of them also compressed.
    ///
    /// A segment that exists on several timelines is taken from the newest, or the newest up to `timeline`; a whole
    /// file comes before a `.partial` one. Behind a segment of a newer timeline, those of older ones are what that timeline left.
    ///
    /// # Errors
    /// An input that cannot be read, or a directory or archive without any segment.
    pub fn open<P: AsRef<Path>>(inputs: &[P], timeline: Option<TimelineId>) -> Result<Wal, SourceError> {
        let mut wal = Wal { entries: Vec::new(), _spilled: Vec::new() };
        let mut named = BTreeMap::new();
        for input in inputs {
            for entry in wal.find(input.as_ref())? {
                let Some(name) = entry.name else {
                    wal.entries.push(entry);
                    continue;
                };
                if timeline.is_some_and(|newest| name.timeline > newest) {
                    continue;
                }
                let rank = (name.timeline, rank(&entry.input));
                let best = named.entry((name.log, name.seg)).or_insert_with(|| (rank, entry.clone()));
                if best.0 < rank {
                    *best = (rank, entry);
                }
            }
        }
        let mut newest = TimelineId::default();
        for (_, entry) in named.into_values() {
            let timeline = entry.name.map_or(newest, |name| name.timeline);
            if timeline >= newest {
                newest = timeline;
                wal.entries.push(entry);
            }
        }
        match inputs {
            [one] if wal.entries.is_empty() => Err(SourceError::new(one.as_ref().display(), SourceProblem::NoSegments)),
            _ => Ok(wal),
        }
    }

    /// Names of the segments, of those that have one.
    pub fn names(&self) -> impl Iterator<Item = SegmentName> {
        self.entries.iter().filter_map(|entry| entry.name)
    }

    /// Keeps the segments from `first` to `last`, both included, whatever their timeline.
    pub fn keep_range(&mut self, first: Option<SegmentName>, last: Option<SegmentName>) {
        let place = |name: SegmentName| (name.log, name.seg);
        self.entries.retain(|entry| {
            entry.name.is_none_or(|name| {
                first.is_none_or(|first| place(first) <= place(name)) && last.is_none_or(|last| place(name) <= place(last))
            })
        });
    }

    /// What the last input is known by.
    pub(crate) fn last_input(&self) -> &str {
        self.entries.last().map_or("", |entry| &entry.input)
    }

    /// The WAL itself, at most `size` bytes at a time (rounded up to whole 64 kB pages).
    pub fn extents(&self, size: usize) -> Extents<'_> {
        self.extents_from(Lsn::INVALID, size)
    }

    /// The same from `start` on, or a little before it.
    pub fn extents_from(&self, start: Lsn, size: usize) -> Extents<'_> {
        Extents::new(&self.entries, start, size)
    }

    fn find(&mut self, input: &Path) -> Result<Vec<Entry>, SourceError> {
        if input == Path::new("-") {
            return self.find_in_stdin();
        }
        let metadata = fs::metadata(input).map_err(SourceError::io(input.display()))?;
        if metadata.is_dir() {
            return find_in_directory(input);
        }
        if !metadata.is_file() {
            return Err(SourceError::new(input.display(), SourceProblem::Special));
        }
        let mut file = File::open(input).map_err(SourceError::io(input.display()))?;
        let (kind, mut rest) = look(&mut file).map_err(SourceError::io(input.display()))?;
        let name = segment_of_file_name(&file_name(input));
        let single = Entry { input: input.display().to_string(), name, place: Place::File(input.to_owned()) };
        match kind {
            Kind::Tar => find_in_tar(input),
            Kind::Packed(packing) => {
                let broken = |e: io::Error| SourceError::new(input.display(), SourceProblem::Unpack(e.to_string()));
                let mut inside = unpack::stream(packing, &mut rest).map_err(broken)?;
                match look(&mut inside).map_err(broken)?.0 {
                    Kind::Tar => self.find_in_packed_tar(input, packing),
                    _ => Ok(vec![single]),
                }
            }
            Kind::Plain => Ok(vec![single]),
        }
    }

    /// A compressed tar is read in its order where that is the order of the WAL; otherwise its segments are unpacked first.
    fn find_in_packed_tar(&mut self, archive: &Path, packing: Packing) -> Result<Vec<Entry>, SourceError> {
        let broken = |e: io::Error| SourceError::new(archive.display(), SourceProblem::Unpack(e.to_string()));
        let open = || -> io::Result<_> { unpack::stream(packing, io::BufReader::new(File::open(archive)?)) };
        let mut tar = tar::Archive::new(open().map_err(broken)?);
        let mut entries = Vec::new();
        for member in tar.entries().map_err(broken)? {
            let member = member.map_err(broken)?;
            let path = member.path().map_err(broken)?.into_owned();
            if let Some(name) = segment_of_file_name(&file_name(&path)) {
                entries.push(Entry {
                    input: format!("{}:{}", archive.display(), path.display()),
                    name: Some(name),
                    place: Place::Packed { archive: archive.to_owned(), packing, member: path },
                });
            }
        }
        let place = |entry: &Entry| entry.name.map(|name| (name.log, name.seg));
        if entries.is_empty() {
            return Err(SourceError::new(archive.display(), SourceProblem::NoSegments));
        }
        if entries.is_sorted_by(|a, b| place(a) < place(b)) {
            return Ok(entries);
        }
        self.spill(&archive.display().to_string(), open().map_err(broken)?)
    }

    /// Unpacks the segments of a tar stream into a temporary directory.
    fn spill(&mut self, input: &str, stream: impl Read) -> Result<Vec<Entry>, SourceError> {
        let broken = |e: io::Error| SourceError::new(input, SourceProblem::Unpack(e.to_string()));
        let dir = Arc::new(TempDir::with_prefix("pgwal-").map_err(broken)?);
        let mut entries = Vec::new();
        for member in tar::Archive::new(stream).entries().map_err(broken)? {
            let mut member = member.map_err(broken)?;
            let path = member.path().map_err(broken)?.into_owned();
            let file_name = file_name(&path);
            let Some(name) = segment_of_file_name(&file_name) else { continue };
            let spilled = dir.path().join(format!("{}-{file_name}", entries.len()));
            io::copy(&mut member, &mut File::create(&spilled).map_err(broken)?).map_err(broken)?;
            entries.push(Entry { input: format!("{input}:{}", path.display()), name: Some(name), place: Place::File(spilled) });
        }
        self._spilled.push(dir);
        if entries.is_empty() { Err(SourceError::new(input, SourceProblem::NoSegments)) } else { Ok(entries) }
    }

    /// Standard input is read as it comes, unless it is a tar, whose members may stand in any order.
    fn find_in_stdin(&mut self) -> Result<Vec<Entry>, SourceError> {
        let broken = |e: io::Error| SourceError::new("standard input", SourceProblem::Unpack(e.to_string()));
        let mut kind = Kind::of(&super::extent::stdin_front(Kind::LOOK).map_err(broken)?);
        if let Kind::Packed(packing) = kind {
            // Only the front is here; the decoder gives what it can before it misses the rest. A block of LZ4 may have 4 MB.
            for len in [1 << 16, 1 << 18, 5 << 20] {
                let front = super::extent::stdin_front(len).map_err(broken)?;
                let mut inside = [0; Kind::LOOK];
                let mut stream = unpack::stream(packing, &front[..]).map_err(broken)?;
                let (filled, _) = unpack::fill_to_error(&mut stream, &mut inside);
                kind = Kind::of(inside.get(..filled).unwrap_or_default());
                if filled == inside.len() || front.len() < len {
                    break;
                }
            }
        }
        if kind == Kind::Tar {
            let stream = super::extent::stdin_stream().map_err(broken)?;
            return self.spill("standard input", stream);
        }
        Ok(vec![Entry { input: "standard input".to_owned(), name: None, place: Place::Stdin }])
    }
}

/// Which of several files with the same segment is the best: whole before `.partial`, plain before compressed.
fn rank(input: &str) -> u8 {
    match input {
        _ if segment_name_only(input) => 2,
        _ if input.contains(".partial") => 0,
        _ => 1,
    }
}

fn segment_name_only(input: &str) -> bool {
    Path::new(input).extension().is_none()
}

fn find_in_directory(dir: &Path) -> Result<Vec<Entry>, SourceError> {
    let pg_wal = dir.join("pg_wal");
    let dir = if pg_wal.is_dir() { pg_wal.as_path() } else { dir };
    let mut entries = Vec::new();
    for file in fs::read_dir(dir).map_err(SourceError::io(dir.display()))? {
        let path = file.map_err(SourceError::io(dir.display()))?.path();
        if let Some(name) = segment_of_file_name(&file_name(&path)).filter(|_| path.is_file()) {
            entries.push(Entry { input: path.display().to_string(), name: Some(name), place: Place::File(path) });
        }
    }
    if entries.is_empty() { Err(SourceError::new(dir.display(), SourceProblem::NoSegments)) } else { Ok(entries) }
}

/// Members of a plain tar are parts of the file, in whatever order they stand.
fn find_in_tar(path: &Path) -> Result<Vec<Entry>, SourceError> {
    let broken = |e: io::Error| SourceError::new(path.display(), SourceProblem::Unpack(e.to_string()));
    let mut archive = tar::Archive::new(File::open(path).map_err(SourceError::io(path.display()))?);
    let mut entries = Vec::new();
    for member in archive.entries_with_seek().map_err(broken)? {
        let member = member.map_err(broken)?;
        let member_path = member.path().map_err(broken)?.into_owned();
        if let Some(name) = segment_of_file_name(&file_name(&member_path)) {
            let (offset, len) = (member.raw_file_position(), member.size());
            let place = Place::Range { file: path.to_owned(), offset, len };
            entries.push(Entry { input: format!("{}:{}", path.display(), member_path.display()), name: Some(name), place });
        }
    }
    if entries.is_empty() { Err(SourceError::new(path.display(), SourceProblem::NoSegments)) } else { Ok(entries) }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a stream is by its front, and the stream with its front put back.
fn look<'a>(stream: &'a mut (dyn Read + Send + 'a)) -> io::Result<(Kind, impl Read + Send + 'a)> {
    let mut front = vec![0; Kind::LOOK];
    let len = unpack::fill(stream, &mut front)?;
    front.truncate(len);
    Ok((Kind::of(&front), io::Cursor::new(front).chain(stream)))
}
