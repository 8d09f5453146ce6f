//! WAL in a tar archive, plain or compressed, as pg_waldump of 19 and later reads it: from front to back, once; segments that
//! come before their turn wait in a temporary directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use pgwal::page::{self, LONG_HEADER_SIZE};
use pgwal::{Lsn, SegmentName, TimelineId, WalFormat, WalMagic};
use tempfile::TempDir;

use super::files::{self, Segments};
use super::wording::{Colors, Level, Wording};
use super::{Failure, PageSource, fatal};
use crate::fullpage::Errno;

/// The first major whose pg_waldump reads archives.
pub const FIRST_MAJOR: u8 = 19;

/// Bytes of a tar header, and what members are padded to.
const BLOCK: usize = 512;

/// Whether a path is taken for an archive, by its end.
pub fn is_archive_name(path: &OsStr) -> bool {
    [&b".tar"[..], b".tgz", b".tar.gz", b".tar.lz4", b".tar.zst"].iter().any(|end| path.as_encoded_bytes().ends_with(end))
}

/// The major of the first WAL in the archive.
pub fn major(path: &Path) -> Option<u8> {
    let mut tar = Tar::open(path).ok()?;
    let front = tar.first_wal().ok()??;
    let magic = front.get(..2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes)?;
    WalMagic(magic).major()
}

/// The segments of an archive.
pub struct Archive {
    tar: Tar,
    /// Name of the archive in messages.
    name: String,
    path: PathBuf,
    timeline: TimelineId,
    /// Segments that may be asked for.
    range: (u64, u64),
    fmt: WalFormat,
    wording: Wording,
    spilled: Option<Spilled>,
    buffer: Vec<u8>,
}

/// Segments that have been met before their turn.
struct Spilled {
    dir: TempDir,
    names: Vec<SegmentName>,
    segments: Segments,
}

impl Archive {
    /// Opens the archive at `path` and tells its format by the first WAL in it.
    pub fn open(path: &Path, timeline: TimelineId, start: Lsn, end: Lsn, wording: Wording) -> Result<Archive, Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut tar = Tar::open(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => fatal(format!("could not open file \"{name}\"")),
            _ => fatal(format!("could not open file \"{name}\": {}", Errno(&e))),
        })?;
        let Some(front) = tar.first_wal().map_err(|broken| broken.failure(&name))? else {
            return Err(fatal(format!("could not find WAL in archive \"{name}\"")));
        };
        let segment_size = files::segment_size(front);
        if !page::is_segment_size(segment_size) {
            let bytes = if segment_size == 1 { "byte" } else { "bytes" };
            return Err(Failure::Fatal(
                format!("invalid WAL segment size in WAL file from archive \"{name}\" ({segment_size} {bytes})"),
                Some("The WAL segment size must be a power of two between 1 MB and 1 GB."),
            ));
        }
        let fmt = WalFormat { segment_size, ..WalFormat::new(wording.major) };
        let last = if end.is_valid() { end.segment_number(segment_size) } else { u64::MAX };
        let range = (start.segment_number(segment_size), last);
        Ok(Archive { tar, name, path: path.to_owned(), timeline, range, fmt, wording, spilled: None, buffer: Vec::new() })
    }

    /// Format of the WAL.
    pub fn format(&self) -> WalFormat {
        self.fmt
    }

    fn broken(&self, broken: Broken) -> Failure {
        broken.failure(&self.name)
    }

    /// Goes on to segment `wanted`; whether it waits in the temporary directory.
    fn go_to(&mut self, wanted: SegmentName) -> Result<bool, Failure> {
        loop {
            if self.tar.member.as_ref().is_some_and(|member| member.segment == Some(wanted)) {
                return Ok(false);
            }
            if self.spilled.as_ref().is_some_and(|spilled| spilled.names.contains(&wanted)) {
                return Ok(true);
            }
            if let Some(name) = self.tar.member.as_ref().and_then(|member| member.segment).filter(|name| self.comes_after(*name, wanted)) {
                self.spill(name)?;
            }
            if !self.tar.next_member().map_err(|broken| self.broken(broken))? {
                return Err(fatal(format!("could not find WAL \"{wanted}\" in archive \"{}\"", self.name)));
            }
        }
    }

    /// Whether a segment may be asked for later.
    fn comes_after(&self, name: SegmentName, wanted: SegmentName) -> bool {
        let size = self.fmt.segment_size;
        let number = name.number(size);
        name.timeline == self.timeline && number > wanted.number(size) && self.range.0 <= number && number <= self.range.1
    }

    /// Writes the member at hand to the temporary directory.
    fn spill(&mut self, name: SegmentName) -> Result<(), Failure> {
        let spilled = match &mut self.spilled {
            Some(spilled) => spilled,
            none => none.insert(Spilled::create(&self.path, self.timeline, self.fmt, self.wording)?),
        };
        if spilled.names.contains(&name) {
            let text = format!("ignoring duplicate WAL \"{name}\" found in archive \"{}\"", self.name);
            eprint!("{}", self.wording.line(Level::Warning, &text, &Colors::default()));
            return Ok(());
        }
        let path = spilled.dir.path().join(name.to_string());
        let at = |what: &str, e: &io::Error| fatal(format!("could not {what} file \"{}\": {}", path.display(), Errno(e)));
        let mut file = File::create(&path).map_err(|e| at("create", &e))?;
        spilled.names.push(name);
        let mut part = vec![0; 1 << 17];
        loop {
            let read = self.tar.read_member(&mut part).map_err(|broken| broken.failure(&self.name))?;
            let Some(bytes) = part.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            io::Write::write_all(&mut file, bytes).map_err(|e| at("write to", &e))?;
        }
    }
}

impl Spilled {
    fn create(archive: &Path, timeline: TimelineId, fmt: WalFormat, wording: Wording) -> Result<Spilled, Failure> {
        let parent = match std::env::var_os("TMPDIR") {
            Some(dir) => PathBuf::from(dir),
            None => archive.parent().map(Path::to_owned).unwrap_or_default(),
        };
        let dir = tempfile::Builder::new().prefix("waldump_tmp-").tempdir_in(&parent);
        let shown = parent.join("waldump_tmp-XXXXXX");
        let dir = dir.map_err(|e| fatal(format!("could not create directory \"{}\": {}", shown.display(), Errno(&e))))?;
        let segments = Segments::new(dir.path().to_owned(), timeline, fmt, wording);
        Ok(Spilled { dir, names: Vec::new(), segments })
    }
}

impl PageSource for Archive {
    fn read(&mut self, at: Lsn, least: usize, most: usize) -> Result<&[u8], Failure> {
        let wanted = SegmentName::of(self.timeline, at, self.fmt.segment_size);
        if self.go_to(wanted)? {
            // go_to has just found it there.
            return match &mut self.spilled {
                Some(spilled) => spilled.segments.read(at, least, most),
                None => Err(fatal(format!("could not find WAL \"{wanted}\" in archive \"{}\"", self.name))),
            };
        }
        let offset = at.segment_offset(self.fmt.segment_size);
        let short = |read: usize| {
            let archive = &self.name;
            fatal(format!("WAL segment \"{wanted}\" in archive \"{archive}\" is too short: read {read} of {least} bytes"))
        };
        // The first page is looked at before the page to start at, so a page may be asked for twice, but never an earlier one.
        let kept = self.buffer.len() as u64;
        let mut position = self.tar.member.as_ref().map_or(0, |member| member.position);
        let from = position.saturating_sub(kept);
        if (from..position).contains(&offset) {
            self.buffer.drain(..(offset - from) as usize); // less than `kept`, by the condition
        } else {
            self.buffer.clear();
            while position < offset {
                self.buffer.resize((offset - position).min(1 << 17) as usize, 0);
                let read = self.tar.read_member(&mut self.buffer).map_err(|broken| broken.failure(&self.name))?;
                if read == 0 {
                    return Err(short(0));
                }
                position += read as u64;
            }
            self.buffer.clear();
        }
        while self.buffer.len() < most {
            let have = self.buffer.len();
            self.buffer.resize(most, 0);
            let result = self.tar.read_member(self.buffer.get_mut(have..).unwrap_or_default());
            self.buffer.truncate(have + result.as_ref().copied().unwrap_or(0));
            match result {
                Ok(0) if self.buffer.len() < least => return Err(short(self.buffer.len())),
                Err(broken) if self.buffer.len() < least => return Err(broken.failure(&self.name)),
                Ok(0) | Err(_) => break, // enough for now; the next page meets it again
                Ok(_) => {}
            }
        }
        Ok(&self.buffer)
    }
}

/// Why an archive cannot be read on.
enum Broken {
    Io(io::Error),
    /// It ends inside a member.
    Cut,
    NoName,
}

impl Broken {
    fn failure(self, archive: &str) -> Failure {
        fatal(match self {
            Broken::Io(e) if e.raw_os_error().is_some() => format!("could not read file \"{archive}\": {}", Errno(&e)),
            Broken::Io(e) => format!("could not decompress data: {e}"),
            Broken::Cut => "COPY stream ended before last file was finished".to_owned(),
            Broken::NoName => "tar member has empty name".to_owned(),
        })
    }
}

/// A tar as a stream of members. It understands what the server's own tar reader does: no extended headers, no long names.
struct Tar {
    stream: Box<dyn Read>,
    member: Option<Member>,
    /// Bytes of the member that have been looked at, and not taken.
    front: Vec<u8>,
}

struct Member {
    /// None: not a WAL segment.
    segment: Option<SegmentName>,
    /// Bytes that have been taken.
    position: u64,
    /// Bytes that are left in the stream, without padding.
    left: u64,
    padding: usize,
}

impl Tar {
    fn open(path: &Path) -> io::Result<Tar> {
        let file = File::open(path)?;
        let file = BufReader::with_capacity(1 << 17, file);
        let ends = |end: &[u8]| path.as_os_str().as_encoded_bytes().ends_with(end);
        let stream: Box<dyn Read> = if ends(b".gz") || ends(b".tgz") {
            Box::new(flate2::bufread::MultiGzDecoder::new(file))
        } else if ends(b".lz4") {
            Box::new(lz4_flex::frame::FrameDecoder::new(file))
        } else if ends(b".zst") {
            Box::new(zstd::stream::read::Decoder::with_buffer(file)?)
        } else {
            Box::new(file)
        };
        Ok(Tar { stream, member: None, front: Vec::new() })
    }

    /// Goes to the first segment that is long enough for a page header, and shows its first bytes.
    fn first_wal(&mut self) -> Result<Option<&[u8]>, Broken> {
        while self.next_member()? {
            if self.member.as_ref().is_some_and(|member| member.segment.is_some() && member.left >= LONG_HEADER_SIZE as u64) {
                let mut front = vec![0; LONG_HEADER_SIZE];
                let read = self.read_member(&mut front)?;
                front.truncate(read);
                if let Some(member) = &mut self.member {
                    member.position = 0;
                }
                self.front = front;
                return Ok(Some(&self.front));
            }
        }
        Ok(None)
    }

    /// Skips what is left of the member and reads the next one's header; whether there is one.
    fn next_member(&mut self) -> Result<bool, Broken> {
        self.front.clear();
        if let Some(member) = self.member.take() {
            let skip = member.left.saturating_add(member.padding as u64);
            let skipped = io::copy(&mut self.stream.by_ref().take(skip), &mut io::sink()).or_else(end_of_stream)?;
            if skipped < skip {
                return Err(Broken::Cut);
            }
        }
        let mut header = [0; BLOCK];
        match fill(&mut self.stream, &mut header)? {
            0 => return Ok(false),
            BLOCK => {}
            _ => return Err(Broken::Cut),
        }
        if header.iter().all(|&b| b == 0) {
            return Ok(false);
        }
        let (name, rest) = header.split_at(100);
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        if name.is_empty() {
            return Err(Broken::NoName);
        }
        let left = number(rest.get(24..36).unwrap_or_default());
        let kind = rest.get(56).copied().unwrap_or_default();
        let segment = if matches!(kind, b'2' | b'5') { None } else { segment_of(name) };
        let padding = (BLOCK - (left % BLOCK as u64) as usize) % BLOCK;
        self.member = Some(Member { segment, position: 0, left, padding });
        Ok(true)
    }

    /// Takes bytes of the member; none at its end.
    fn read_member(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        let Some(member) = &mut self.member else { return Ok(0) };
        if !self.front.is_empty() {
            let len = self.front.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(self.front.drain(..len)) {
                *to = from;
            }
            member.position += len as u64;
            return Ok(len);
        }
        let len = usize::try_from(member.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = fill(&mut self.stream, buffer.get_mut(..len).unwrap_or_default())?;
        if read == 0 && len > 0 {
            return Err(Broken::Cut);
        }
        member.left -= read as u64; // at most len, which is at most left
        member.position += read as u64;
        Ok(read)
    }
}

/// Reads until `buffer` is full or the stream ends.
fn fill(stream: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, Broken> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                end_of_stream(e)?;
                break;
            }
        }
    }
    Ok(filled)
}

/// A compressed stream that is cut ends the archive where it is cut.
fn end_of_stream(e: io::Error) -> Result<u64, Broken> {
    if e.kind() == io::ErrorKind::UnexpectedEof { Ok(0) } else { Err(Broken::Io(e)) }
}

/// A number of a tar header: octal digits, or, marked by the first bit, binary.
fn number(field: &[u8]) -> u64 {
    match field {
        [0x80, binary @ ..] => binary.iter().fold(0u64, |value, &b| value << 8 | u64::from(b)),
        _ => {
            let digits = field.iter().skip_while(|b| **b == b' ').take_while(|b| (b'0'..=b'7').contains(*b));
            digits.fold(0u64, |value, b| value << 3 | u64::from(b - b'0'))
        }
    }
}

/// The segment that a member is: at the top of the archive or in pg_wal.
fn segment_of(name: &[u8]) -> Option<SegmentName> {
    let mut parts = Vec::new();
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let path = parts.join(&b'/');
    if path.len() > SegmentName::LEN && !path.starts_with(b"pg_wal") {
        return None;
    }
    std::str::from_utf8(path.get(path.len().checked_sub(SegmentName::LEN)?..)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_names() {
        for name in ["a.tar", "a.tgz", "d/a.tar.gz", "a.tar.lz4", "a.tar.zst", ".tar"] {
            assert!(is_archive_name(OsStr::new(name)), "{name}");
        }
        for name in ["tar", "a.gz", "a.tar.zstd", "a.tar/", "a.tar.bz2"] {
            assert!(!is_archive_name(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn members() {
        let name = "000000010000000000000003";
        let segment = Some(name.parse().unwrap());
        for path in [name.to_owned(), format!("./{name}"), format!("pg_wal/{name}"), format!("./pg_wal/x/../{name}")] {
            assert_eq!(segment_of(path.as_bytes()), segment, "{path}");
        }
        for path in [format!("base/{name}"), format!("{name}.partial"), "short".to_owned(), String::new()] {
            assert_eq!(segment_of(path.as_bytes()), None, "{path}");
        }
        assert_eq!(number(b"00100000000\0"), 1 << 24);
        assert_eq!(number(b"  7 "), 7);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), 1 << 24);
    }
}
