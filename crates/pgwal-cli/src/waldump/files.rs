//! WAL in a directory: finding it, telling its format, reading its pages.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use pgwal::page::{self, LONG_HEADER_SIZE, PageHeader};
use pgwal::{Lsn, SegmentName, TimelineId, WalFormat, WalMagic};

use super::cscan::Scan;
use super::wording::Wording;
use super::{Failure, PageSource, fatal};
use crate::fullpage::Errno;

/// The size of WAL pages that pg_waldump is built for, unless the server was built for another.
pub const XLOG_BLCKSZ: usize = 8192;

/// The major whose messages are used where no WAL tells one.
pub const DEFAULT_MAJOR: u8 = 18;

/// Name and directory of a path, as pg_waldump splits it: at the last slash.
pub fn split_path(path: &OsStr) -> (Option<OsString>, OsString) {
    let bytes = path.as_encoded_bytes();
    match bytes.iter().rposition(|&b| b == b'/') {
        Some(at) => (Some(part(bytes, ..at)), part(bytes, at + 1..)),
        None => (None, path.to_owned()),
    }
}

fn part(bytes: &[u8], range: impl std::slice::SliceIndex<[u8], Output = [u8]>) -> OsString {
    let bytes = bytes.get(range).unwrap_or_default();
    #[cfg(unix)]
    return std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec());
    #[cfg(not(unix))]
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// Directories in which WAL may lie, in the order that they are tried.
pub fn candidates(directory: Option<&OsStr>) -> Vec<PathBuf> {
    match directory {
        Some(dir) => vec![PathBuf::from(dir), Path::new(dir).join("pg_wal")],
        None => {
            let data = std::env::var_os("PGDATA").map(|data| Path::new(&data).join("pg_wal"));
            [Some(PathBuf::from(".")), Some(PathBuf::from("pg_wal")), data].into_iter().flatten().collect()
        }
    }
}

/// The files with the name of a WAL segment, in whatever order the directory has them.
fn any_segments(dir: &Path) -> impl Iterator<Item = OsString> {
    let is_segment = |name: &OsString| name.to_str().is_some_and(|name| name.parse::<SegmentName>().is_ok());
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).filter(is_segment)
}

/// WAL that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where.
    pub dir: PathBuf,
    /// Its format, from the file that was looked for or the first one.
    pub fmt: WalFormat,
}

/// Finds `name`, or any WAL, and tells its format.
pub fn find(directory: Option<&OsStr>, name: Option<&OsStr>, wording: Wording) -> Result<Found, Failure> {
    for dir in candidates(directory) {
        let Some(name) = name.map(OsStr::to_owned).or_else(|| any_segments(&dir).next()) else { continue };
        let text = name.to_string_lossy();
        let Some(mut file) = open(&dir, &name)? else { continue };
        let mut front = Vec::new();
        if let Err(e) = file.by_ref().take(XLOG_BLCKSZ as u64).read_to_end(&mut front) {
            return Err(fatal(format!("could not read file \"{text}\": {}", Errno(&e))));
        }
        if front.len() != XLOG_BLCKSZ {
            return Err(fatal(format!("could not read file \"{text}\": read {} of {XLOG_BLCKSZ}", front.len())));
        }
        let segment_size = segment_size(&front);
        if !page::is_segment_size(segment_size) {
            let (message, detail) = wording.bad_segment_size(&text, segment_size);
            return Err(Failure::Fatal(message, detail));
        }
        let wal_page_size = wal_page_size(&mut file, &front);
        return Ok(Found { dir, fmt: WalFormat { wal_page_size, segment_size, ..WalFormat::new(wording.major) } });
    }
    Err(fatal(match name {
        Some(name) => format!("could not locate WAL file \"{}\"", name.to_string_lossy()),
        None => "could not find any WAL file".to_owned(),
    }))
}

/// `xlp_seg_size` of a long page header, wherever its flag says that it is one.
pub fn segment_size(page: &[u8]) -> u32 {
    page.get(32..36).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The size of WAL pages that the header says, where the next page is really there; otherwise the usual one, so that a
/// damaged header is found out as such.
fn wal_page_size(file: &mut File, front: &[u8]) -> u32 {
    let usual = XLOG_BLCKSZ as u32;
    let Ok((_, first)) = PageHeader::read(front) else { return usual };
    let said = first.long.map_or(usual, |long| long.wal_page_size);
    if said == usual || !page::is_wal_page_size(said) {
        return usual;
    }
    let mut is_page = |offset: u32| {
        let mut header = [0; LONG_HEADER_SIZE];
        let read = file.seek(SeekFrom::Start(offset.into())).and_then(|_| file.read_exact(&mut header));
        let Ok((_, header)) = PageHeader::read(&header) else { return false };
        read.is_ok() && header.magic == first.magic && header.address == first.address + u64::from(offset)
    };
    if is_page(said) && (said < usual || !is_page(usual)) { said } else { usual }
}

/// Opens a file; `None`: it is not there.
pub fn open(dir: &Path, name: &OsStr) -> Result<Option<File>, Failure> {
    match File::open(dir.join(name)) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fatal(format!("could not open file \"{}\": {}", name.to_string_lossy(), Errno(&e)))),
    }
}

/// The major of the WAL in `directory`: of file `name`, or where that does not tell, of any other.
pub fn major(directory: Option<&OsStr>, name: Option<&OsStr>) -> Option<u8> {
    let dirs = candidates(directory);
    let major_at = |path: PathBuf| File::open(path).ok().and_then(|mut file| major_of(&mut file));
    let named = name.and_then(|name| dirs.iter().map(|dir| dir.join(name)).find(|path| path.exists()));
    let mut others = dirs.iter().flat_map(|dir| any_segments(dir).map(move |name| dir.join(name)));
    named.and_then(major_at).or_else(|| others.find_map(major_at))
}

/// The major that wrote a segment, from the magics of its pages: the first page's, unless the others have another.
fn major_of(file: &mut (impl Read + Seek)) -> Option<u8> {
    let first = magic(file, 0);
    let second = magic(file, 1);
    if first.is_some() && (second == first || second.is_none()) {
        return first;
    }
    let mut votes = [0u32; 256];
    for page in 0..128 {
        if let Some(vote) = magic(file, page).and_then(|major| votes.get_mut(usize::from(major))) {
            *vote += 1;
        }
    }
    let (major, &most) = (0..=u8::MAX).zip(&votes).max_by_key(|(_, votes)| **votes)?;
    (most > 0).then_some(major)
}

/// By the magic at page `number`, counted in 8 kB. In WAL with larger pages some places hold no header.
fn magic(file: &mut (impl Read + Seek), number: u64) -> Option<u8> {
    let mut bytes = [0; 2];
    file.seek(SeekFrom::Start(number * XLOG_BLCKSZ as u64)).ok()?; // number < 128
    file.read_exact(&mut bytes).ok()?;
    WalMagic(u16::from_le_bytes(bytes)).major()
}

/// Timeline and segment number that a file name starts with; what is no hexadecimal number counts as zero.
pub fn from_file_name(name: &OsStr, segment_size: u32) -> (TimelineId, u64) {
    let mut scan = Scan::new(name.as_encoded_bytes());
    let mut number = || scan.unsigned(16, 8);
    let (timeline, log, seg) = match (number(), number(), number()) {
        (Some(timeline), log, seg) => (timeline, log.unwrap_or(0), seg.unwrap_or(0)),
        (None, ..) => (0, 0, 0),
    };
    (TimelineId(timeline), u64::from(log) * (0x1_0000_0000 / u64::from(segment_size.max(1))) + u64::from(seg))
}

/// Segments in a directory.
pub struct Segments {
    dir: PathBuf,
    timeline: TimelineId,
    fmt: WalFormat,
    wording: Wording,
    file: Option<(SegmentName, File)>,
    buffer: Vec<u8>,
}

impl Segments {
    /// The segments of `timeline` in `dir`.
    pub fn new(dir: PathBuf, timeline: TimelineId, fmt: WalFormat, wording: Wording) -> Segments {
        Segments { dir, timeline, fmt, wording, file: None, buffer: Vec::new() }
    }
}

impl PageSource for Segments {
    fn read(&mut self, at: Lsn, least: usize, most: usize) -> Result<&[u8], Failure> {
        let name = SegmentName::of(self.timeline, at, self.fmt.segment_size);
        let file = match &mut self.file {
            Some((open, file)) if *open == name => file,
            other => &mut other.insert((name, open_segment(&self.dir, name)?)).1,
        };
        let offset = at.segment_offset(self.fmt.segment_size);
        self.buffer.resize(most, 0);
        let mut filled = 0;
        let mut failure = None;
        if let Err(e) = file.seek(SeekFrom::Start(offset)) {
            failure = Some(e);
        }
        while failure.is_none() && filled < most {
            match file.read(self.buffer.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => failure = Some(e),
            }
        }
        if filled < least {
            let why = failure.map(|e| Errno(&e).to_string());
            return Err(fatal(self.wording.cannot_read(name, offset + filled as u64, least - filled, why.as_deref())));
        }
        self.buffer.truncate(filled);
        Ok(&self.buffer)
    }

    /// Opens the file anew: another one may have taken its name.
    fn forget(&mut self) {
        self.file = None;
    }
}

/// A server gives a new segment its name a moment after it has filled the one before, so a missing file is waited for.
fn open_segment(dir: &Path, name: SegmentName) -> Result<File, Failure> {
    let file_name = OsString::from(name.to_string());
    for _ in 0..10 {
        if let Some(file) = open(dir, &file_name)? {
            return Ok(file);
        }
        sleep(Duration::from_millis(500));
    }
    Err(fatal(format!("could not find file \"{name}\": No such file or directory")))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn paths_are_split_at_the_last_slash() {
        let split = |path: &str| {
            let (dir, name) = split_path(OsStr::new(path));
            (dir.map(|dir| dir.into_string().unwrap()), name.into_string().unwrap())
        };
        assert_eq!(split("a"), (None, "a".into()));
        assert_eq!(split("/a"), (Some("".into()), "a".into()));
        assert_eq!(split("a/b/c"), (Some("a/b".into()), "c".into()));
        assert_eq!(split("a/"), (Some("a".into()), "".into()));
    }

    #[test]
    fn file_names_are_scanned_and_not_checked() {
        let mib = 1 << 20;
        assert_eq!(from_file_name(OsStr::new("000000020000000100000003"), mib), (TimelineId(2), 0x1003));
        assert_eq!(from_file_name(OsStr::new("000000020000000100000003.partial"), mib), (TimelineId(2), 0x1003));
        assert_eq!(from_file_name(OsStr::new("what"), mib), (TimelineId(0), 0));
    }

    #[test]
    fn the_major_of_a_damaged_segment_comes_from_its_other_pages() {
        let segment = |magics: &[u16]| {
            let pages = magics.iter().map(|magic| [&magic.to_le_bytes()[..], &[0; XLOG_BLCKSZ - 2]].concat());
            Cursor::new(pages.collect::<Vec<_>>().concat())
        };
        let major = |magics: &[u16]| major_of(&mut segment(magics));
        assert_eq!(major(&[0xD110]), Some(15));
        assert_eq!(major(&[0xD110, 0, 0xD118, 0xD118]), Some(15));
        assert_eq!(major(&[0, 0xD118, 0xD118]), Some(18));
        assert_eq!(major(&[0xD106, 0xD118, 0xD118, 0]), Some(18));
        assert_eq!(major(&[0, 0]), None);
        assert_eq!(major(&[]), None);
    }
}
