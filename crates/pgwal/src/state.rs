//! What was verified before: a file beside the archive, so that a nightly run reads only what is new.
//!
//! The file is one line that says what it is, with a checksum of the rest, and JSON. A state of another version or that is damaged is as good
//! as none: everything is read. A file that is no state file is never written over.
//!
//! What is skipped is the very file that was verified, unchanged since: same device and inode, size, and times of its content and of
//! its inode. Nobody can set the latter, so a file cannot be changed and made to look as it did.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::input_file;
use crate::output_file::OutputFile;
use crate::source::{self, Archive, ArchiveFile, Stamp, as_text};

/// Version of the form that [`State`] is stored in, and of the checks that it stands for: a new check makes a new version.
pub const VERSION: u32 = 2;

/// Segments that were verified and had no findings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    scope: Scope,
    segments: BTreeMap<String, Verified>,
    #[serde(skip)]
    folders: Folders,
}

/// What was verified, and how: a state says nothing about another place, or another question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The inputs, as absolute paths without links.
    pub inputs: Vec<String>,
    /// The options that change what is found.
    pub options: BTreeMap<String, String>,
}

impl Scope {
    /// The scope of a run over `inputs`.
    pub fn new<P: AsRef<Path>>(inputs: &[P]) -> Scope {
        let absolute = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned());
        let inputs = inputs.iter().map(|path| absolute(path.as_ref()).to_string_lossy().into_owned()).collect();
        Scope { inputs, options: BTreeMap::new() }
    }
}

/// A segment without findings: which file it was. How its records go on is not needed: its neighbours stay as they were too, or it is
/// read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The file that it is, or is in.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// System identifier of its long page header. JSON: a string.
    #[serde(with = "as_text")]
    pub system_identifier: u64,
    /// When it was read: seconds since 1970-01-01 00:00:00 UTC. JSON: a string; 0 where that is not known.
    #[serde(with = "as_text", default)]
    pub read: i64,
}

impl Verified {
    /// What is known of `file` before it is read, which is to be now; `None`: not which file it is, so that nobody can tell whether it was changed since.
    pub fn new(file: &ArchiveFile) -> Option<Verified> {
        let header = file.segment().and_then(|segment| segment.in_place()).map(|(_, header)| header)?;
        let system_identifier = header.long?.system_identifier;
        let read = source::nanoseconds(SystemTime::now()) / 1_000_000_000;
        Some(Verified { stamp: file.stamp?, system_identifier, read })
    }

    /// Whether `file` is still the one that was verified.
    fn is(&self, file: &ArchiveFile) -> bool {
        Verified::new(file).is_some_and(|now| (now.stamp, now.system_identifier) == (self.stamp, self.system_identifier))
    }
}

/// A part of the archive is read again each day although nothing shows that it was changed, so that all of it is within so many days.
///
/// Which part is a matter of the day alone: segments are numbered, and 64 that follow each other have their turn on the same day, as the
/// neighbours of a segment are read with it. A day without a run is made up for by the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reread {
    days: i64,
    /// Days since 1970-01-01 UTC.
    today: i64,
}

/// Segments that have their turn on the same day.
const TURN: u64 = 64;

impl Reread {
    /// All of the archive within `days` days; it is `now`.
    pub fn new(days: NonZero<u16>, now: SystemTime) -> Reread {
        Reread { days: days.get().into(), today: (source::nanoseconds(now) / 1_000_000_000).div_euclid(86_400) }
    }

    /// Whether it is the turn of the segment with this number, which was last read at `read`: seconds since 1970-01-01 00:00:00 UTC.
    pub fn is_due(self, number: u64, read: i64) -> bool {
        let read = read.div_euclid(86_400);
        let turn = (number / TURN) % self.days as u64; // not negative
        // A time to come is not believed.
        read > self.today
            || self.today.saturating_sub(read) >= self.days
            || (read.saturating_add(1)..=self.today).any(|day| day.rem_euclid(self.days) as u64 == turn)
    }
}

/// Folders by the way to them, without links, so that a file has one key however the way to it is spelt.
#[derive(Debug, Default)]
struct Folders(Mutex<BTreeMap<PathBuf, PathBuf>>);

impl Clone for Folders {
    fn clone(&self) -> Folders {
        Folders::default()
    }
}

/// What was looked up makes no difference.
impl PartialEq for Folders {
    fn eq(&self, _: &Folders) -> bool {
        true
    }
}

impl Eq for Folders {}

impl Folders {
    /// What a file is remembered by.
    fn key(&self, file: &ArchiveFile) -> String {
        // Of a member of an archive, its path there follows.
        let in_file = file.path().and_then(|path| Some((path, file.input.strip_prefix(&*path.to_string_lossy())?)));
        match in_file {
            Some((path, member)) => {
                let folder = self.canonical(path.parent().unwrap_or(Path::new("")));
                format!("{}{member}", folder.join(path.file_name().unwrap_or_default()).to_string_lossy())
            }
            None => file.input.to_string(),
        }
    }

    fn canonical(&self, folder: &Path) -> PathBuf {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(canonical) = known.get(folder) {
            return canonical.clone();
        }
        let named = if folder == Path::new("") { Path::new(".") } else { folder };
        let canonical = fs::canonicalize(named).or_else(|_| std::path::absolute(named)).unwrap_or_else(|_| named.to_owned());
        known.insert(folder.to_owned(), canonical.clone());
        canonical
    }
}

/// Resolution of the times of files: the system's clock ticks a hundred times a second at least, and some file systems keep whole seconds,
/// or every second one.
const TICK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Waits, for a moment at most, until a change of any segment of `archive` would show in its times. Before that, a file can be written
/// to after it has been read without a trace.
pub fn wait_for_clock(archive: &Archive) {
    let changed = archive.segments().filter_map(|(file, _)| file.stamp).map(|stamp| stamp.changed.max(stamp.modified));
    let (mut newest, mut is_fine) = (i64::MIN, false);
    let now = source::nanoseconds(SystemTime::now());
    for time in changed.filter(|&time| time <= now) {
        newest = newest.max(time);
        is_fine |= time % 1_000_000_000 != 0;
    }
    let tick = if is_fine { TICK.0 } else { TICK.1 };
    let passed = u64::try_from(now.saturating_sub(newest)).map_or(Duration::MAX, Duration::from_nanos);
    std::thread::sleep(tick.saturating_sub(passed));
}

/// Why a state file was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unusable {
    /// It is not there: the first run.
    Missing,
    /// It is no state file.
    Foreign,
    /// It is of another version of the form.
    Version(
        /// That version.
        u32,
    ),
    /// It is not what was written.
    Damaged,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Missing => write!(f, "no state file yet"),
            Unusable::Foreign => write!(f, "not a state file"),
            Unusable::Version(version) => write!(f, "a state file of version {version}, where {VERSION} is needed"),
            Unusable::Damaged => write!(f, "a damaged state file"),
        }
    }
}

/// First words of a state file.
const MAGIC: &str = "pgwal state ";

/// Bytes of the first line of a state file, at most.
const HEAD: u64 = 64;

/// Bytes of a state file, at most: some 250,000 segments. What does not fit is read again the next time.
const LARGEST: u64 = 64 << 20;

impl State {
    /// An empty state for runs of `scope`.
    pub fn new(scope: Scope) -> State {
        State { scope, segments: BTreeMap::new(), folders: Folders::default() }
    }

    /// What it was made for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Reads a state file. A file that cannot be used gives an empty state, with the reason.
    ///
    /// # Errors
    /// The file is there and cannot be read, or what is there is no file; it is not opened then.
    pub fn load(path: &Path) -> io::Result<(State, Option<Unusable>)> {
        let read = || -> io::Result<Result<State, Unusable>> {
            match open(path)? {
                Ok((file, checksum)) => State::read(file, checksum),
                Err(unusable) => Ok(Err(unusable)),
            }
        };
        Ok(match read()? {
            Ok(state) => (state, None),
            Err(unusable) => (State::default(), Some(unusable)),
        })
    }

    /// Reads what follows the first line: twice, so that nothing is believed before the checksum fits.
    fn read(mut file: File, checksum: u32) -> io::Result<Result<State, Unusable>> {
        let body = file.stream_position()?;
        let mut reader = BufReader::new((&file).take(LARGEST.saturating_add(1)));
        let (mut sum, mut len) = (0, 0u64);
        loop {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            sum = crc32c::crc32c_append(sum, bytes);
            let read = bytes.len();
            len += read as u64; // at most LARGEST and one
            reader.consume(read);
        }
        if sum != checksum || len > LARGEST {
            return Ok(Err(Unusable::Damaged));
        }
        file.seek(io::SeekFrom::Start(body))?;
        Ok(serde_json::from_reader(BufReader::new(file.take(LARGEST))).map_err(|_| Unusable::Damaged))
    }

    /// Writes the state to `path`. Whoever reads it finds the old state or the new one, also after a crash; of two runs, the last one's stays.
    ///
    /// # Errors
    /// It cannot be written, or what is there now is no state file; that stays.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        if let Err(Unusable::Foreign) = open(path)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, Unusable::Foreign.to_string()));
        }
        let mut body = serde_json::to_vec(self)?;
        if body.len() as u64 > LARGEST {
            let part = self.segments.len() as u64 * (LARGEST / 2) / body.len() as u64;
            let segments = self.segments.iter().take(part as usize).map(|(input, verified)| (input.clone(), verified.clone())).collect();
            body = serde_json::to_vec(&State { scope: self.scope.clone(), segments, folders: Folders::default() })?;
        }
        let mut file = OutputFile::create(path)?;
        writeln!(file, "{MAGIC}{VERSION} {:08X}", crc32c::crc32c(&body))?;
        file.write_all(&body)?;
        file.commit()
    }

    /// What is known of `file`; `None`: it is new, or was changed.
    pub fn get(&self, file: &ArchiveFile) -> Option<&Verified> {
        self.segments.get(&self.folders.key(file)).filter(|verified| verified.is(file))
    }

    /// Remembers that `file` has no findings.
    pub fn insert(&mut self, file: &ArchiveFile, verified: Verified) {
        self.segments.insert(self.folders.key(file), verified);
    }

    /// Number of segments that are remembered.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The segments of `archive` that need not be read again: unchanged, and so are those before and after them.
    ///
    /// A record may go on in the next segment, and its link comes from the one before. So the neighbours of a segment that is new
    /// or changed are read again with it, and with them its seams.
    pub fn unchanged<'a>(&self, archive: &'a Archive) -> Vec<&'a ArchiveFile> {
        self.unchanged_or_due(archive, None)
    }

    /// The same, without those whose turn it is to be read again, and their neighbours.
    pub fn unchanged_or_due<'a>(&self, archive: &'a Archive, reread: Option<Reread>) -> Vec<&'a ArchiveFile> {
        let size = archive.segments().find_map(|(_, segment)| segment.in_place()).map(|(fmt, _)| fmt.segment_size);
        let Some(size) = size else { return Vec::new() };
        // By number: a neighbour may be of another timeline, and there may be several.
        let mut quiet: BTreeMap<u64, bool> = BTreeMap::new();
        for (file, segment) in archive.segments() {
            let number = segment.name.number(size);
            let is_due = |verified: &Verified| reread.is_some_and(|reread| reread.is_due(number, verified.read));
            *quiet.entry(number).or_insert(true) &= self.get(file).is_some_and(|verified| !is_due(verified));
        }
        // A neighbour that is not there has no say: it was removed, or has yet to come.
        let is_quiet = |number: u64| quiet.get(&number).copied().unwrap_or(true);
        let stays = |number: u64| is_quiet(number) && is_quiet(number.saturating_add(1)) && number.checked_sub(1).is_none_or(is_quiet);
        archive.segments().filter(|(_, segment)| stays(segment.name.number(size))).map(|(file, _)| file).collect()
    }
}

/// Opens a state file after its first line, whose checksum of the rest it gives.
fn open(path: &Path) -> io::Result<Result<(File, u32), Unusable>> {
    let mut file = match input_file::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Err(Unusable::Missing)),
        Err(e) => return Err(e),
    };
    let mut head = Vec::new();
    (&file).take(HEAD).read_to_end(&mut head)?;
    let line = head.split(|&b| b == b'\n').next().unwrap_or_default();
    let parsed = parse_head(line).and_then(|checksum| if line.len() < head.len() { Ok(checksum) } else { Err(Unusable::Damaged) });
    match parsed {
        Ok(checksum) => {
            file.seek(io::SeekFrom::Start(line.len() as u64 + 1))?;
            Ok(Ok((file, checksum)))
        }
        Err(unusable) => Ok(Err(unusable)),
    }
}

/// The checksum in the first line: `pgwal state 2 0123ABCD`. Other versions may have something else there, or nothing, but no prose.
fn parse_head(line: &[u8]) -> Result<u32, Unusable> {
    let head = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(MAGIC)).ok_or(Unusable::Foreign)?;
    let (version, rest) = head.split_once(' ').unwrap_or((head, ""));
    let is_hex = rest.len() <= 32 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    let version: u32 = version.parse().ok().filter(|_| is_hex).ok_or(Unusable::Foreign)?;
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    if rest.len() == 8 { u32::from_str_radix(rest, 16).map_err(|_| Unusable::Damaged) } else { Err(Unusable::Damaged) }
}
