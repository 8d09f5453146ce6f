//! WAL in a directory: finding it, telling its format, reading its pages.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use pgwal::page::{self, PageHeader, SHORT_HEADER_SIZE};
use pgwal::{Lsn, SegmentName, TimelineId, WalFormat, WalMagic};

use super::cscan::Scan;
use super::wording::Wording;
use super::{Failure, PageSource, fatal};
use crate::fullpage::Errno;

/// The size of WAL pages that pg_waldump is built for, unless the server was built for another.
const XLOG_BLCKSZ: usize = 8192;
/// Bytes of the largest WAL page.
const MAX_XLOG_BLCKSZ: usize = 1 << 16;
/// Bytes of a file that are enough to tell the size of its pages.
pub const PAGE_SIZE_LOOK: usize = MAX_XLOG_BLCKSZ + SHORT_HEADER_SIZE;

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
        if let Err(e) = file.by_ref().take(PAGE_SIZE_LOOK as u64).read_to_end(&mut front) {
            return Err(fatal(format!("could not read file \"{text}\": {}", Errno(&e))));
        }
        let wal_page_size = wal_page_size(&front).or_else(|| any_page_size(&dir)).unwrap_or(XLOG_BLCKSZ as u32);
        if front.len() < wal_page_size as usize {
            return Err(fatal(format!("could not read file \"{text}\": read {} of {wal_page_size}", front.len())));
        }
        let segment_size = segment_size(&front);
        if !page::is_segment_size(segment_size) {
            let (message, detail) = wording.bad_segment_size(&text, segment_size);
            return Err(Failure::Fatal(message, detail));
        }
        // The block size comes from the page images.
        return Ok(Found { dir, fmt: WalFormat { wal_page_size, segment_size, block_size: 0, ..WalFormat::new(wording.major) } });
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

/// The size of WAL pages that a segment was written with, by its first bytes ([`PAGE_SIZE_LOOK`], or all where there are fewer).
/// `None`: they do not tell.
///
/// The real program is compiled for one size and finds a header damaged that says another. Here the header is believed unless the pages
/// after it contradict it, whether they are of this segment or left over from an earlier use of the file.
pub fn wal_page_size(front: &[u8]) -> Option<u32> {
    let (_, first) = PageHeader::read(front).ok()?;
    let long = first.long.filter(|long| first.magic.major().is_some() && page::is_segment_size(long.segment_size))?;
    let page_at = |offset: u32| front.get(offset as usize..).filter(|page| page.len() >= SHORT_HEADER_SIZE);
    let has_header = |offset: &u32| {
        let header = page_at(*offset).and_then(|page| PageHeader::read(page).ok());
        let is_here = |header: &PageHeader| header.address.segment_offset(long.segment_size) == u64::from(*offset);
        header.is_some_and(|(_, header)| header.magic == first.magic && is_here(&header))
    };
    let is_empty = |offset: u32| page_at(offset).is_none_or(|page| page.iter().take(SHORT_HEADER_SIZE).all(|&byte| byte == 0));
    let said = long.wal_page_size;
    let is_size = page::is_wal_page_size(said);
    match (10..=16).map(|power| 1 << power).find(has_header) {
        // A page that is empty, or not there, says nothing.
        Some(found) if !is_size || said > found || (said < found && !is_empty(said)) => Some(found),
        _ if !is_size => None,
        None if said < XLOG_BLCKSZ as u32 && !is_empty(said) => None,
        _ => Some(said),
    }
}

/// The size of WAL pages in `dir`, by the first segment that tells.
fn any_page_size(dir: &Path) -> Option<u32> {
    any_segments(dir).find_map(|name| {
        let mut front = Vec::new();
        File::open(dir.join(name)).ok()?.take(PAGE_SIZE_LOOK as u64).read_to_end(&mut front).ok()?;
        wal_page_size(&front)
    })
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

    use pgwal::page::{LongHeader, PageInfo};

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
    fn the_size_of_pages_is_that_of_the_header_unless_other_pages_contradict() {
        let header = |address: u64, long: Option<u32>| {
            let info = PageInfo(if long.is_some() { 2 } else { 0 });
            let long = long.map(|wal_page_size| LongHeader { system_identifier: 1, segment_size: 1 << 20, wal_page_size });
            let header = PageHeader {
                magic: WalMagic(0xD118),
                info,
                timeline: TimelineId(1),
                address: Lsn(address),
                remaining: 0,
                padding: 0,
                long,
            };
            let mut bytes = Vec::new();
            header.write(&mut bytes);
            bytes
        };
        // The header says a size; the pages have another, from `address` on; the second is cut off, empty, or full of a record.
        let front = |said: u32, size: usize, second: Option<Vec<u8>>| {
            let mut bytes = header(1 << 20, Some(said));
            bytes.resize(size, 0xA5);
            for page in 1..3 {
                let page = second.clone().filter(|_| page == 1).unwrap_or_else(|| header((1 << 20) + (page * size) as u64, None));
                bytes.extend(page);
                bytes.resize(bytes.len().next_multiple_of(size), 0xA5);
            }
            bytes
        };
        for size in (10..=16).map(|power| 1u32 << power) {
            let pages = size as usize;
            for (what, second) in
                [("whole", None), ("empty", Some(vec![0; pages])), ("left over", Some(header((7 << 20) + u64::from(size), None)))]
            {
                assert_eq!(wal_page_size(&front(size, pages, second)), Some(size), "{what}");
            }
            for cut in [40, 100, pages - 1, pages, pages + 10] {
                assert_eq!(wal_page_size(&front(size, pages, None)[..cut]), Some(size), "cut to {cut}");
            }
            for said in [0, 8193, 1024, 4096, 8192, 16384, 32768, 65536] {
                assert_eq!(wal_page_size(&front(said, pages, None)), Some(size), "the header says {said}");
            }
        }
        assert_eq!(wal_page_size(&front(8193, 8192, None)[..8000]), None);
        assert_eq!(wal_page_size(&[0; 8192]), None);
        assert_eq!(wal_page_size(b"notes"), None);
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
