//! Which segments there are, in the order of the WAL.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tempfile::NamedTempFile;

use super::archive::{Member, Tar};
use super::copies::{Copies, PassedOver};
use super::extent::Extents;
use super::kind::{FIRST_PAGE, Kind, Packing, first_page};
use super::name::{file_name, is_beside_segments, is_folder_of_segments, rank, segment_of_file_name};
use super::pieces::{Piece, Pieces};
use super::{SourceError, SourceProblem, unpack};
use crate::datadir::DataDir;
use crate::format::WalFormat;
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::page::PageHeader;
use crate::printable::printable;

/// The segments of one or more inputs, in the order of the WAL. Nothing is read but names and first bytes.
#[derive(Debug, Default)]
pub struct Wal {
    pub(super) entries: Vec<Entry>,
    /// The other files of folders, and what archives have of files that tell about segments.
    pub(super) others: Vec<Entry>,
    pub(super) block_sizes: BlockSizes,
    /// Where this is a part of a set, some of the whole: what is usual among them does not depend on the part.
    pub(super) voters: Vec<Entry>,
    /// What folders have under names of segments, and what is no file.
    no_files: Vec<Entry>,
    /// Other files of the segments.
    copies: Copies,
    /// Members of archives that could not be read in their order; removed with the last user.
    _spilled: Vec<Arc<Spill>>,
}

/// The block size (`BLCKSZ`), as far as something else than the WAL tells it: see [`WalFormat::block_size`].
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockSizes {
    /// For all WAL, as the user says.
    told: Option<u32>,
    /// By system identifier, from the `pg_control` files of data directories.
    clusters: BTreeMap<u64, u32>,
    /// Data directories that have been looked at.
    seen: BTreeSet<PathBuf>,
}

impl BlockSizes {
    /// `fmt` with the block size of the cluster with this system identifier, if that is known.
    pub(crate) fn complete(&self, fmt: WalFormat, system_identifier: Option<u64>) -> WalFormat {
        let cluster = || system_identifier.and_then(|identifier| self.clusters.get(&identifier)).copied();
        fmt.with_block_size(self.told.or_else(cluster).unwrap_or(fmt.block_size))
    }

    /// Looks at the data directory that `dir` is, or whose `pg_wal` it is.
    fn look_at(&mut self, dir: &Path) {
        let dir = match dir.parent() {
            Some(parent) if dir.file_name().is_some_and(|name| name == "pg_wal") => Path::new(".").join(parent),
            _ if dir.join("pg_wal").is_dir() => dir.to_owned(),
            _ => return,
        };
        if self.seen.insert(dir.clone()) {
            // What is wrong with a data directory is not this reader's business: the WAL itself shows the size, too.
            let control = DataDir::open(dir, |_| {}).ok().and_then(|dir| dir.control().copied());
            self.clusters.extend(control.map(|control| (control.system_identifier, control.block_size)));
        }
    }
}

/// One segment, or a stream of several.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What the user knows it by.
    pub(super) input: Arc<str>,
    /// From its name; `None`: the page header must tell.
    pub(super) name: Option<SegmentName>,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A file, whole.
    File(PathBuf),
    /// A part of a file: a member of a plain tar.
    Range { file: Arc<Path>, offset: u64, len: u64 },
    /// A member of a compressed tar, which is read once from front to back.
    Packed { archive: Arc<Path>, packing: Packing, member: PathBuf },
    /// Standard input.
    Stdin,
    /// The rest of an archive that cannot be read.
    Broken { why: String },
    /// Something in a directory that has the name of a file, and is none.
    NoFile { what: NoFile },
}

/// What has the name of a file, and is none that can be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "found", rename_all = "snake_case")]
#[non_exhaustive]
pub enum NoFile {
    /// A symbolic link to what is not there.
    DanglingLink {
        /// Where it leads.
        target: String,
    },
    /// A link in an archive: what it leads to is elsewhere.
    Link {
        /// Where it leads.
        target: String,
    },
    /// A directory.
    Directory,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device.
    Device,
    /// The operating system does not say what it is.
    Unknown {
        /// What it says instead.
        reason: String,
    },
}

impl NoFile {
    /// What is at `path`; `None`: a file, or nothing any more. Nothing is opened: opening a pipe waits for somebody who writes into it.
    fn at(path: &Path) -> Option<NoFile> {
        match fs::metadata(path) {
            Ok(metadata) => NoFile::of(&metadata),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let target = fs::read_link(path).ok()?;
                Some(NoFile::DanglingLink { target: target.to_string_lossy().into_owned() })
            }
            Err(e) => Some(NoFile::Unknown { reason: e.to_string() }),
        }
    }

    /// What the operating system says that it is; `None`: a file.
    pub(crate) fn of(metadata: &fs::Metadata) -> Option<NoFile> {
        let kind = metadata.file_type();
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            match () {
                () if kind.is_fifo() => return Some(NoFile::Pipe),
                () if kind.is_socket() => return Some(NoFile::Socket),
                () if kind.is_block_device() || kind.is_char_device() => return Some(NoFile::Device),
                () => {}
            }
        }
        if kind.is_dir() { Some(NoFile::Directory) } else { None }
    }
}

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoFile::DanglingLink { target } => write!(f, "a dangling symbolic link: {} does not exist", printable(target)),
            NoFile::Link { target } => write!(f, "a link to {}, which is not followed inside an archive", printable(target)),
            NoFile::Directory => write!(f, "a directory"),
            NoFile::Pipe => write!(f, "a named pipe"),
            NoFile::Socket => write!(f, "a socket"),
            NoFile::Device => write!(f, "a device"),
            NoFile::Unknown { reason } => write!(f, "cannot be opened: {reason}"),
        }
    }
}

impl Entry {
    fn of_member(archive: &str, member: &Member<'_>, place: Place) -> Entry {
        Entry { input: format!("{archive}:{}", member.path.display()).into(), name: member.name, place }
    }
}

impl Wal {
    /// Finds the segments of `inputs`: segment files, directories of them, data directories, tar archives, `-` for standard
    /// input; each of them also compressed.
    ///
    /// A segment that exists on several timelines is taken from the newest, or the newest up to `timeline`; a whole
    /// file comes before a `.partial` one. Where several files have one segment, one is passed over that opening shows not to be whole: see
    /// [`Wal::passed_over`]. Behind a segment of a newer timeline, those of older ones are what that timeline left.
    /// That holds where the newest one is no file (a dangling link, a directory, a pipe), too: it is an error when its turn comes.
    ///
    /// # Errors
    /// An input that cannot be read, or a directory or archive without any segment. An archive that is damaged after a segment is read
    /// up to there: see [`Wal::broken`].
    pub fn open<P: AsRef<Path>>(inputs: &[P], timeline: Option<TimelineId>) -> Result<Wal, SourceError> {
        let mut wal = Wal::default();
        let mut named = BTreeMap::new();
        let mut broken = Vec::new();
        let mut newer: Option<(TimelineId, TimelineId)> = None;
        let found = wal.find_all(inputs)?;
        for entry in found.into_iter().chain(std::mem::take(&mut wal.no_files)) {
            let Some(name) = entry.name else {
                if matches!(entry.place, Place::Broken { .. }) { &mut broken } else { &mut wal.entries }.push(entry);
                continue;
            };
            if timeline.is_some_and(|newest| name.timeline > newest) {
                let (first, last) = newer.unwrap_or((name.timeline, name.timeline));
                newer = Some((first.min(name.timeline), last.max(name.timeline)));
                continue;
            }
            let is_file = !matches!(entry.place, Place::NoFile { .. });
            let rank = (name.timeline, is_file, rank(&entry.input));
            match named.entry((name.log, name.seg)) {
                btree_map::Entry::Vacant(place) => _ = place.insert((rank, entry)),
                btree_map::Entry::Occupied(mut place) => {
                    let (best, chosen) = place.get();
                    let is_better = (*best, &entry.input) < (rank, &chosen.input);
                    let is_copy = chosen.name == entry.name;
                    let other = if is_better { place.insert((rank, entry)).1 } else { entry };
                    if is_copy {
                        wal.copies.add(other);
                    }
                }
            }
        }
        let mut newest = TimelineId::default();
        for (_, mut entry) in named.into_values() {
            let timeline = entry.name.map_or(newest, |name| name.timeline);
            if timeline >= newest {
                newest = timeline;
                wal.copies.choose(&mut entry);
                wal.entries.push(entry);
            }
        }
        // What can be read comes before what cannot.
        let is_empty = wal.entries.is_empty();
        wal.entries.append(&mut broken);
        let problem = match (timeline, newer) {
            (Some(wanted), Some((first, last))) => SourceProblem::NoTimeline { wanted, or_older: true, first, last },
            _ => SourceProblem::NoSegments,
        };
        match inputs {
            [one] if is_empty => Err(SourceError::new(one.as_ref().display(), problem)),
            _ => Ok(wal),
        }
    }

    /// Finds the segments of `inputs` as [`Wal::open`] does, and keeps all of them, on every timeline, or on `timeline` alone, and
    /// each file of a segment that is there more than once. They are in the order of their names; the best file of a segment
    /// comes first.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open_all<P: AsRef<Path>>(inputs: &[P], timeline: Option<TimelineId>) -> Result<Wal, SourceError> {
        let mut wal = Wal::default();
        wal.entries = wal.find_all(inputs)?;
        wal.entries.append(&mut wal.no_files);
        wal.entries.retain(|entry| entry.name.is_none_or(|name| timeline.is_none_or(|wanted| name.timeline == wanted)));
        // What can be read comes before what cannot.
        let is_broken = |entry: &Entry| matches!(entry.place, Place::Broken { .. });
        wal.entries.sort_by_key(|entry| (is_broken(entry), entry.name, std::cmp::Reverse(rank(&entry.input))));
        match inputs {
            [one] if wal.entries.is_empty() => Err(SourceError::new(one.as_ref().display(), SourceProblem::NoSegments)),
            _ => Ok(wal),
        }
    }

    /// The segments' files, each with the name of its segment, where it has one.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, Option<SegmentName>)> {
        self.entries.iter().map(|entry| (&*entry.input, entry.name))
    }

    /// The other files of folders, and what archives have of files that tell about segments, each with its number.
    pub(crate) fn others(&self) -> impl Iterator<Item = (usize, &str)> {
        self.others.iter().enumerate().map(|(at, entry)| (at, &*entry.input))
    }

    /// System identifier of the cluster, as the first file says that can be looked at without reading others.
    pub fn system_identifier(&self) -> Option<u64> {
        let front = self.fronts(1).into_iter().next()?;
        PageHeader::read(&front).ok().and_then(|(_, header)| header.long).map(|long| long.system_identifier)
    }

    /// The first bytes of up to `count` files that can be looked at without reading others, from all over the WAL.
    pub(crate) fn fronts(&self, count: usize) -> Vec<Vec<u8>> {
        let can_be_read_twice = |entry: &&Entry| match &entry.place {
            Place::File(path) => path.is_file(),
            Place::Range { .. } => true,
            _ => false,
        };
        let all = if self.voters.is_empty() { &self.entries } else { &self.voters };
        let files: Vec<&Entry> = all.iter().filter(can_be_read_twice).collect();
        let step = files.len().div_ceil(count.max(1)).max(1);
        // One that cannot be read says so in its turn.
        files.into_iter().step_by(step).filter_map(|entry| super::pieces::front(entry).ok()).collect()
    }

    /// The bytes of each file in the order of the files, at most `size` at a time (rounded up to whole 64 kB pages), whatever they are.
    pub(crate) fn pieces(&self, size: usize) -> Pieces<'_> {
        Pieces::new(&self.entries, size)
    }

    /// The first bytes of a file, by its number in [`Wal::files`], if it can be read alone and again.
    pub(crate) fn front(&self, at: usize) -> Option<Vec<u8>> {
        let entry = self.entries.get(at).filter(|entry| matches!(entry.place, Place::File(_) | Place::Range { .. }))?;
        super::pieces::front(entry).ok()
    }

    /// Where two files first differ, by their numbers in [`Wal::files`], in their first `len` bytes; `None`: nowhere, or one of them cannot be
    /// read again alone.
    pub(crate) fn first_difference(&self, a: usize, b: usize, len: u64) -> Option<u64> {
        const PIECE: usize = 1 << 20;
        let file = |at: usize| {
            let entry = self.entries.get(at).filter(|entry| matches!(entry.place, Place::File(_) | Place::Range { .. }))?;
            Some(Pieces::new(std::slice::from_ref(entry), PIECE))
        };
        let (mut a, mut b) = (file(a)?, file(b)?);
        loop {
            let (Some((_, Piece::Bytes { offset, bytes: left })), Some((_, Piece::Bytes { bytes: right, .. }))) = (a.next(), b.next())
            else {
                return None;
            };
            let (left, right) = (left.read().ok()?, right.read().ok()?);
            let same = left.iter().zip(right.iter()).take_while(|(a, b)| a == b).count();
            let at = offset + same as u64;
            if at >= len || same == left.len().min(right.len()) && left.len() != right.len() {
                return None;
            }
            if same < left.len() {
                return Some(at);
            }
        }
    }

    /// The segments `entries`, which follow each other; they may be of `whole`.
    pub(super) fn of(entries: Vec<Entry>, whole: &Wal) -> Wal {
        Wal {
            entries,
            others: Vec::new(),
            voters: Vec::new(),
            no_files: Vec::new(),
            copies: Copies::default(),
            block_sizes: whole.block_sizes.clone(),
            _spilled: whole._spilled.clone(),
        }
    }

    /// Names of the segments, of those that have one.
    pub fn names(&self) -> impl Iterator<Item = SegmentName> {
        self.entries.iter().filter_map(|entry| entry.name)
    }

    /// Takes `block_size` for the size of heap and index pages (`BLCKSZ`), whatever else would tell it: see [`WalFormat::block_size`].
    pub fn set_block_size(&mut self, block_size: u32) {
        self.block_sizes.told = Some(block_size);
    }

    /// `fmt` with the block size of the cluster with this system identifier, if that is known.
    pub(crate) fn complete(&self, fmt: WalFormat, system_identifier: Option<u64>) -> WalFormat {
        self.block_sizes.complete(fmt, system_identifier)
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

    /// What stands after the segments of archives that are damaged or cut short.
    pub fn broken(&self) -> impl Iterator<Item = SourceError> {
        self.entries.iter().filter_map(|entry| match &entry.place {
            Place::Broken { why } => Some(SourceError::new(&entry.input, SourceProblem::Unpack(why.clone()))),
            _ => None,
        })
    }

    /// Files of segments that are not read, as they are not whole and other files of these segments are.
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.copies.passed_over
    }

    /// Takes for each segment that has several files one that is whole. All files of such segments are read for that; [`Wal::open`] only opens
    /// them.
    pub fn prefer_whole(&mut self) {
        for entry in &mut self.entries {
            self.copies.choose_whole(entry);
        }
    }

    /// Other files of the segment at the place of `name`, as the user knows them, which may be whole.
    pub fn copies_of(&self, name: SegmentName) -> impl Iterator<Item = &str> {
        let is_there = |found: &SegmentName| (found.log, found.seg) == (name.log, name.seg);
        self.names().find(is_there).into_iter().flat_map(|name| self.copies.beside(name))
    }

    /// Whether a part of it comes from standard input, which can be read once only.
    pub fn is_stream(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.place, Place::Stdin))
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
        Extents::new(&self.entries, self.block_sizes.clone(), start, size)
    }

    /// The segments of all inputs. Where these are files of one folder, as a shell makes them of a pattern, what stands beside segments there
    /// is no more asked for than where the folder itself is named.
    fn find_all<P: AsRef<Path>>(&mut self, inputs: &[P]) -> Result<Vec<Entry>, SourceError> {
        let mut entries = Vec::new();
        let is_pattern = is_pattern(inputs);
        for input in inputs.iter().map(AsRef::as_ref) {
            let name = file_name(input);
            if is_pattern && segment_of_file_name(&name).is_none() {
                if input.is_dir() {
                    continue;
                }
                if super::is_text_file_name(&name) || is_beside_segments(&name) {
                    self.others.push(Entry { input: input.display().to_string().into(), name: None, place: Place::File(input.to_owned()) });
                    continue;
                }
            }
            entries.append(&mut self.find(input)?);
        }
        Ok(entries)
    }

    fn find(&mut self, input: &Path) -> Result<Vec<Entry>, SourceError> {
        if input == Path::new("-") {
            return self.find_in_stdin();
        }
        let metadata = match fs::metadata(input) {
            Ok(metadata) => metadata,
            Err(e) => {
                let problem = match NoFile::at(input) {
                    Some(what @ NoFile::DanglingLink { .. }) => SourceProblem::NoFile(what),
                    _ => SourceProblem::Io(e),
                };
                return Err(SourceError::new(input.display(), problem));
            }
        };
        if metadata.is_dir() {
            return self.find_in_directory(input);
        }
        if !metadata.is_file() {
            return Err(SourceError::new(input.display(), SourceProblem::Special));
        }
        let mut file = File::open(input).map_err(SourceError::io(input.display()))?;
        let (kind, mut rest) = look(&mut file).map_err(SourceError::io(input.display()))?;
        let name = segment_of_file_name(&file_name(input));
        let single = Entry { input: input.display().to_string().into(), name, place: Place::File(input.to_owned()) };
        match kind {
            Kind::Tar => self.find_in_tar(input),
            Kind::Packed(packing) => {
                let mut inside = unpack::stream(packing, &mut rest).map_err(SourceError::unpack(input.display()))?;
                match look(&mut inside).map_err(SourceError::unpack(input.display()))?.0 {
                    Kind::Tar => self.find_in_packed_tar(input, packing),
                    _ => Ok(vec![single]),
                }
            }
            Kind::Plain => {
                self.block_sizes.look_at(input.parent().unwrap_or(Path::new("")));
                Ok(vec![single])
            }
        }
    }

    fn find_in_directory(&mut self, dir: &Path) -> Result<Vec<Entry>, SourceError> {
        self.block_sizes.look_at(dir);
        let pg_wal = dir.join("pg_wal");
        let dir = if pg_wal.is_dir() { pg_wal.as_path() } else { dir };
        let mut entries = Vec::new();
        self.list(dir, true, &mut entries)?;
        if entries.is_empty() && self.no_files.is_empty() {
            Err(SourceError::new(dir.display(), SourceProblem::NoSegments))
        } else {
            Ok(entries)
        }
    }

    /// Lists a directory, and with `has_folders` the folders that Barman and pgBackRest sort segments into.
    fn list(&mut self, dir: &Path, has_folders: bool, entries: &mut Vec<Entry>) -> Result<(), SourceError> {
        for file in fs::read_dir(dir).map_err(SourceError::io(dir.display()))? {
            let path = file.map_err(SourceError::io(dir.display()))?.path();
            let file = file_name(&path);
            if has_folders && is_folder_of_segments(&file) && path.is_dir() {
                self.list(&path, false, entries)?;
                continue;
            }
            let (name, is_text) = (segment_of_file_name(&file), super::is_text_file_name(&file));
            let input = path.display().to_string().into();
            if path.is_file() {
                let entry = Entry { input, name, place: Place::File(path) };
                match name {
                    Some(_) => entries.push(entry),
                    // Of millions of files that have nothing to do with WAL, a few show that they are there.
                    None if is_text || self.others.len() < OTHERS => self.others.push(entry),
                    None => {}
                }
            } else if let Some(what) = NoFile::at(&path).filter(|_| name.is_some() || is_text) {
                let entry = Entry { input, name, place: Place::NoFile { what } };
                if name.is_some() { &mut self.no_files } else { &mut self.others }.push(entry);
            }
        }
        Ok(())
    }

    /// Members of a plain tar are parts of the file, in whatever order they stand.
    fn find_in_tar(&mut self, path: &Path) -> Result<Vec<Entry>, SourceError> {
        let input = path.display().to_string();
        let open = || File::open(path).map_err(SourceError::io(&input));
        let archive_len = path.metadata().map_err(SourceError::io(&input))?.len();
        let file: Arc<Path> = path.into();
        let (mut found, mut has_holes) = (Members::default(), false);
        let walked = Tar::new(open()?).segments_by_seeking(archive_len, |member| {
            let place = Place::Range { file: Arc::clone(&file), offset: member.offset, len: member.len };
            found.add(&input, &member, place);
            has_holes |= member.is_sparse;
            Ok(())
        });
        if has_holes {
            return self.spill(&input, open()?);
        }
        self.take_members(&input, found, walked)
    }

    /// A compressed tar is read in its order where that is the order of the WAL; otherwise its segments are unpacked first.
    fn find_in_packed_tar(&mut self, archive: &Path, packing: Packing) -> Result<Vec<Entry>, SourceError> {
        let input = archive.display().to_string();
        let open = || -> io::Result<_> { unpack::stream(packing, File::open(archive)?) };
        let stream = open().map_err(SourceError::unpack(&input))?;
        let shared: Arc<Path> = archive.into();
        let mut found = Members::default();
        let walked = Tar::new(stream).segments(|member| {
            let place = Place::Packed { archive: Arc::clone(&shared), packing, member: member.path.clone() };
            found.add(&input, &member, place);
            Ok(())
        });
        let place = |entry: &Entry| entry.name.map(|name| (name.log, name.seg));
        let timeline = |entry: &Entry| entry.name.map(|name| name.timeline);
        if found.segments.is_sorted_by(|a, b| place(a) < place(b) && timeline(a) <= timeline(b)) {
            return self.take_members(&input, found, walked);
        }
        self.spill(&input, open().map_err(SourceError::unpack(&input))?)
    }

    /// Unpacks the segments of a tar stream, and the files about them, into a temporary file.
    fn spill(&mut self, input: &str, stream: impl Read) -> Result<Vec<Entry>, SourceError> {
        let (mut spill, path) = Spill::new().map_err(SourceError::unpack(input))?;
        let (mut found, mut offset, mut unknown) = (Members::default(), 0, 0);
        let walked = Tar::new(stream).segments(|mut member| {
            if member.no_file.is_some() {
                found.add(input, &member, Place::Broken { why: String::new() });
                return Ok(());
            }
            let mut front = vec![0; FIRST_PAGE];
            let filled = unpack::fill(&mut member, &mut front)?;
            front.truncate(filled);
            let is_known = member.name.is_none() || first_page(&front).is_ok();
            let most = if member.name.is_some() { unpack::largest(&front) } else { super::listing::TEXT_LEN as u64 };
            let rest = most.saturating_sub(filled as u64);
            if !is_known && unknown >= MOST_UNKNOWN {
                let why =
                    format!("not unpacked: more than {} GB of files with the names of segments do not begin as WAL", MOST_UNKNOWN >> 30);
                found.add(input, &member, Place::Broken { why });
                return Ok(());
            }
            let file = spill.file();
            file.write_all(&front)?;
            let len = filled as u64 + io::copy(&mut (&mut member).take(rest), file)?;
            unknown += if is_known { 0 } else { len };
            found.add(input, &member, Place::Range { file: Arc::clone(&path), offset, len });
            offset += len;
            Ok(())
        });
        self._spilled.push(Arc::new(spill));
        self.take_members(input, found, walked)
    }

    /// What an archive that could be read as far as `walked` says has of the WAL. Damage comes after the segments before it.
    fn take_members(&mut self, input: &str, mut found: Members, walked: io::Result<()>) -> Result<Vec<Entry>, SourceError> {
        let is_empty = found.segments.is_empty() && found.no_files.is_empty();
        self.others.append(&mut found.others);
        self.no_files.append(&mut found.no_files);
        match walked {
            Ok(()) if is_empty => return Err(SourceError::new(input, SourceProblem::NoSegments)),
            Err(e) if is_empty => return Err(SourceError::unpack(input)(e)),
            Ok(()) => {}
            Err(e) => found.segments.push(Entry { input: input.into(), name: None, place: Place::Broken { why: e.to_string() } }),
        }
        Ok(found.segments)
    }

    /// Standard input is read as it comes, unless it is a tar, whose members may stand in any order.
    fn find_in_stdin(&mut self) -> Result<Vec<Entry>, SourceError> {
        let broken = |e| SourceError::unpack("standard input")(e);
        let mut kind = Kind::of(&super::extent::stdin_front(Kind::LOOK).map_err(broken)?);
        if let Kind::Packed(packing) = kind {
            // Only the front is here; the decoder gives what it can before it misses the rest.
            for len in [1 << 16, 1 << 18, unpack::LARGEST_BLOCK] {
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
        Ok(vec![Entry { input: "standard input".into(), name: None, place: Place::Stdin }])
    }
}

/// Bytes that are unpacked of members with the names of segments that do not begin as WAL: segments whose start is damaged, at most so many.
const MOST_UNKNOWN: u64 = 4 << 30;

/// A temporary file. Where the operating system can, it has no name, so that nothing is left of it however the program ends.
#[derive(Debug)]
enum Spill {
    #[cfg(target_os = "linux")]
    Unnamed(File),
    Named(NamedTempFile),
}

impl Spill {
    /// With the path that it can be opened by while it lives.
    fn new() -> io::Result<(Spill, Arc<Path>)> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let file = tempfile::tempfile()?;
            let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            // There may be no /proc.
            if File::open(&path).is_ok() {
                return Ok((Spill::Unnamed(file), path.into()));
            }
        }
        let file = NamedTempFile::with_prefix("pgwal-")?;
        let path = file.path().into();
        Ok((Spill::Named(file), path))
    }

    fn file(&mut self) -> &mut File {
        match self {
            #[cfg(target_os = "linux")]
            Spill::Unnamed(file) => file,
            Spill::Named(file) => file.as_file_mut(),
        }
    }
}

/// Whether inputs look like what a shell makes of a pattern: several files of one folder, segments among them.
fn is_pattern<P: AsRef<Path>>(inputs: &[P]) -> bool {
    let (Some(first), true) = (inputs.first(), inputs.len() > 1) else { return false };
    let parent = first.as_ref().parent();
    let is_segment = |path: &Path| segment_of_file_name(&file_name(path)).is_some();
    inputs.iter().all(|input| input.as_ref().parent() == parent) && inputs.iter().any(|input| is_segment(input.as_ref()))
}

/// Files of a folder that are neither segments nor about segments, as many as are told of.
const OTHERS: usize = 10_000;

/// What an archive has of the WAL.
#[derive(Default)]
struct Members {
    segments: Vec<Entry>,
    others: Vec<Entry>,
    /// What has the name of a segment and is no file.
    no_files: Vec<Entry>,
}

impl Members {
    /// Adds a member that is to be read at `place`.
    fn add(&mut self, archive: &str, member: &Member<'_>, place: Place) {
        let list = match (&member.no_file, member.name) {
            (Some(_), Some(_)) => &mut self.no_files,
            (None, Some(_)) => &mut self.segments,
            (_, None) => &mut self.others,
        };
        let place = member.no_file.clone().map_or(place, |what| Place::NoFile { what });
        list.push(Entry::of_member(archive, member, place));
    }
}

/// What a stream is by its front, and the stream with its front put back.
fn look<'a>(stream: &'a mut (dyn Read + Send + 'a)) -> io::Result<(Kind, impl Read + Send + 'a)> {
    let mut front = vec![0; Kind::LOOK];
    let len = unpack::fill(stream, &mut front)?;
    front.truncate(len);
    Ok((Kind::of(&front), io::Cursor::new(front).chain(stream)))
}
