//! What was verified before: a file beside the archive, so that a nightly run reads only what is new.
//!
//! The file is one line that says what it is, with a checksum of the rest, and JSON. Anything that is not as it was written, and anything
//! of another version, is as good as no state: everything is read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize};

use crate::source::{Archive, ArchiveFile};

/// Version of the form that [`State`] is stored in, and of the checks that it stands for: a new check makes a new version.
pub const VERSION: u32 = 1;

/// Segments that were verified and had no findings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    segments: BTreeMap<String, Verified>,
}

/// A segment without findings: which file it was. How its records go on is not needed: its neighbours stay as they were too, or it is
/// read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Bytes of the file, as stored.
    pub len: u64,
    /// When the file was last changed: nanoseconds since 1970-01-01 00:00:00 UTC. JSON: a string.
    #[serde(serialize_with = "crate::json::as_string", deserialize_with = "from_string")]
    pub modified: i128,
    /// System identifier of its long page header. JSON: a string.
    #[serde(serialize_with = "crate::json::as_string", deserialize_with = "from_string")]
    pub system_identifier: u64,
}

impl Verified {
    /// What is known of `file` before it is read; `None`: not when it was changed, so that nobody can tell whether it was since.
    pub fn new(file: &ArchiveFile) -> Option<Verified> {
        let modified = nanoseconds(file.modified?);
        let header = file.segment().and_then(|segment| segment.in_place()).map(|(_, header)| header)?;
        let system_identifier = header.long?.system_identifier;
        Some(Verified { len: file.len, modified, system_identifier })
    }

    /// Whether `file` is still the one that was verified.
    fn is(&self, file: &ArchiveFile) -> bool {
        Verified::new(file).as_ref() == Some(self)
    }
}

fn nanoseconds(time: SystemTime) -> i128 {
    let since =
        |later: SystemTime, earlier: SystemTime| later.duration_since(earlier).ok().and_then(|span| i128::try_from(span.as_nanos()).ok());
    since(time, UNIX_EPOCH).or_else(|| since(UNIX_EPOCH, time).map(|before| -before)).unwrap_or_default()
}

fn from_string<'de, T: std::str::FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom(format_args!("\"{text}\" has the wrong form")))
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
const MAGIC: &str = "pgwal state";

impl State {
    /// Reads a state file. A file that cannot be used gives an empty state, with the reason.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn load(path: &Path) -> io::Result<(State, Option<Unusable>)> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((State::default(), Some(Unusable::Missing))),
            Err(e) => return Err(e),
        };
        Ok(match State::parse(&bytes) {
            Ok(state) => (state, None),
            Err(unusable) => (State::default(), Some(unusable)),
        })
    }

    fn parse(bytes: &[u8]) -> Result<State, Unusable> {
        let mut parts = bytes.splitn(2, |&b| b == b'\n');
        let (head, body) = (parts.next().unwrap_or_default(), parts.next());
        let head = std::str::from_utf8(head).ok().and_then(|head| head.strip_prefix(MAGIC)).ok_or(Unusable::Foreign)?;
        let mut fields = head.split_whitespace();
        let version = fields.next().and_then(|version| version.parse().ok()).ok_or(Unusable::Foreign)?;
        if version != VERSION {
            return Err(Unusable::Version(version));
        }
        let checksum = fields.next().and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let body = body.ok_or(Unusable::Damaged)?;
        if checksum != Some(crc32c::crc32c(body)) {
            return Err(Unusable::Damaged);
        }
        serde_json::from_slice(body).map(|segments| State { segments }).map_err(|_| Unusable::Damaged)
    }

    /// Writes the state to `path`. Whoever reads it finds the old state or the new one, also after a crash.
    ///
    /// # Errors
    /// It cannot be written; the old file stays.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let body = serde_json::to_vec(&self.segments)?;
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut file = tempfile::NamedTempFile::with_prefix_in(".pgwal-state-", &dir)?;
        writeln!(file, "{MAGIC} {VERSION} {:08X}", crc32c::crc32c(&body))?;
        file.write_all(&body)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&dir)?.sync_all()
    }

    /// What is known of `file`; `None`: it is new, or was changed.
    pub fn get(&self, file: &ArchiveFile) -> Option<&Verified> {
        self.segments.get(&file.input).filter(|verified| verified.is(file))
    }

    /// Remembers that `file` has no findings.
    pub fn insert(&mut self, file: &ArchiveFile, verified: Verified) {
        self.segments.insert(file.input.clone(), verified);
    }

    /// Number of segments that are remembered.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The segments of `archive` that need not be read again: unchanged, and so are those before and behind them.
    ///
    /// A record may go on in the next segment, and its link comes from the one before. So the neighbours of a segment that is new
    /// or changed are read again with it, and with them its seams.
    pub fn unchanged<'a>(&self, archive: &'a Archive) -> Vec<&'a ArchiveFile> {
        let size = archive.segments().find_map(|(_, segment)| segment.in_place()).map(|(fmt, _)| fmt.segment_size);
        let Some(size) = size else { return Vec::new() };
        // By number: a neighbour may be of another timeline, and there may be several.
        let mut quiet: BTreeMap<u64, bool> = BTreeMap::new();
        for (file, segment) in archive.segments() {
            *quiet.entry(segment.name.number(size)).or_insert(true) &= self.get(file).is_some();
        }
        // A neighbour that is not there has no say: it was removed, or has yet to come.
        let is_quiet = |number: u64| quiet.get(&number).copied().unwrap_or(true);
        let stays = |number: u64| is_quiet(number) && is_quiet(number.saturating_add(1)) && number.checked_sub(1).is_none_or(is_quiet);
        archive.segments().filter(|(_, segment)| stays(segment.name.number(size))).map(|(file, _)| file).collect()
    }
}
