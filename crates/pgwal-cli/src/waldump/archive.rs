//! WAL in a tar archive, plain or compressed, as pg_waldump of 19 and later reads it: from front to back, once; segments that
//! come before their turn wait in a temporary directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pgwal::page::{self, LONG_HEADER_SIZE};
use pgwal::{Lsn, SegmentName, TimelineId, WalFormat, WalMagic, aligned};
use tempfile::TempDir;

use super::files::{self, Segments};
use super::wording::Wording;
use super::{Failure, PageSource, fatal};
use crate::dropin::log::{Colors, Level, to_stderr};
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
    /// With their lengths.
    names: BTreeMap<SegmentName, u64>,
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
        let wal_page_size = files::wal_page_size(front).unwrap_or(8192);
        if !page::is_segment_size(segment_size) {
            let bytes = if segment_size == 1 { "byte" } else { "bytes" };
            return Err(Failure::Fatal(
                format!("invalid WAL segment size in WAL file from archive \"{name}\" ({segment_size} {bytes})"),
                Some("The WAL segment size must be a power of two between 1 MB and 1 GB."),
            ));
        }
        // The block size comes from the page images.
        let fmt = WalFormat { wal_page_size, segment_size, block_size: 0, ..WalFormat::new(wording.major) };
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
            if let Some(len) = self.tar.short.get(&wanted) {
                let (archive, page) = (&self.name, self.fmt.wal_page_size);
                return Err(fatal(format!("WAL segment \"{wanted}\" in archive \"{archive}\" is too short: read {len} of {page} bytes")));
            }
            if self.spilled.as_ref().is_some_and(|spilled| spilled.has(wanted)) {
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
        if spilled.has(name) {
            let text = format!("ignoring duplicate WAL \"{name}\" found in archive \"{}\"", self.name);
            to_stderr(&self.wording.line(Level::Warning, &text, &Colors::default()));
            return Ok(());
        }
        let path = spilled.dir.path().join(name.to_string());
        let at = |what: &str, e: &io::Error| fatal(format!("could not {what} file \"{}\": {}", path.display(), Errno(e)));
        let mut file = File::create(&path).map_err(|e| at("create", &e))?;
        let mut len = 0;
        let mut part = vec![0; 1 << 17];
        loop {
            let read = self.tar.read_member(&mut part).map_err(|broken| broken.failure(&self.name))?;
            len += read as u64;
            let Some(bytes) = part.get(..read).filter(|bytes| !bytes.is_empty()) else {
                spilled.names.insert(name, len);
                return Ok(());
            };
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
        let dir = tempfile::Builder::new().prefix("waldump_tmp-").tempdir_in(&parent).map_err(|e| {
            // The error names the path too; most often the parent's own tells why.
            let e = std::fs::read_dir(&parent).err().unwrap_or(e);
            fatal(format!("could not create directory \"{}\": {}", parent.join("waldump_tmp-XXXXXX").display(), Errno(&e)))
        })?;
        let segments = Segments::new(dir.path().to_owned(), timeline, fmt, wording);
        Ok(Spilled { dir, names: BTreeMap::new(), segments })
    }

    fn has(&self, name: SegmentName) -> bool {
        self.names.contains_key(&name)
    }
}

impl PageSource for Archive {
    fn read(&mut self, at: Lsn, least: usize, most: usize) -> Result<&[u8], Failure> {
        let wanted = SegmentName::of(self.timeline, at, self.fmt.segment_size);
        let waits = self.go_to(wanted)?;
        let offset = at.segment_offset(self.fmt.segment_size);
        let short = |read: usize| {
            let archive = &self.name;
            fatal(format!("WAL segment \"{wanted}\" in archive \"{archive}\" is too short: read {read} of {least} bytes"))
        };
        if let (Some(spilled), true) = (&mut self.spilled, waits) {
            let there = spilled.names.get(&wanted).map_or(0, |len| len.saturating_sub(offset));
            if there < least as u64 {
                return Err(short(there as usize));
            }
            return spilled.segments.read(at, least, most);
        }
        // The first page is looked at before the page to start at, so what was read last may be asked for again.
        let kept = self.buffer.len() as u64;
        let mut position = self.tar.member.as_ref().map_or(0, |member| member.position);
        let from = position.saturating_sub(kept);
        if (from..position).contains(&offset) {
            self.buffer.drain(..(offset - from) as usize); // less than `kept`, by the condition
        } else if offset < position {
            return Err(fatal(format!("could not go back to offset {offset} of WAL segment \"{wanted}\" in archive \"{}\"", self.name)));
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
    /// The compressed bytes end too soon, or there are none.
    Incomplete,
    Empty,
    /// A header is not that of a member.
    NotTar,
    NoName,
    /// A member with a name of a POSIX extension to tar, or one that leads out of the archive.
    Pax,
    Unsafe(String),
}

impl Broken {
    fn failure(self, archive: &str) -> Failure {
        fatal(match self {
            Broken::Io(e) if e.raw_os_error().is_some() => format!("could not read file \"{archive}\": {}", Errno(&e)),
            // In the words of zlib.
            Broken::Io(e) if e.kind() == io::ErrorKind::InvalidInput => "could not decompress data: incorrect header check".to_owned(),
            Broken::Io(e) => format!("could not decompress data: {e}"),
            Broken::Incomplete => "could not decompress data: compressed stream is incomplete".to_owned(),
            Broken::Empty => "could not decompress data: compressed stream is empty".to_owned(),
            Broken::Pax => "pax extensions to tar format are not supported".to_owned(),
            Broken::Unsafe(name) => format!("tar member has unsafe path name: \"{name}\""),
            Broken::NotTar => "input file does not appear to be a valid tar archive".to_owned(),
            Broken::Cut => "COPY stream ended before last file was finished".to_owned(),
            Broken::NoName => "tar member has empty name".to_owned(),
        })
    }
}

/// A tar as a stream of members. It understands what the server's own tar reader does: no extended headers, no long names.
struct Tar {
    stream: Stream,
    member: Option<Member>,
    /// Bytes of the member that have been looked at, and not taken.
    front: Vec<u8>,
    /// Segments before the first that has a page header, with the bytes that they have.
    short: BTreeMap<SegmentName, u64>,
}

struct Member {
    /// None: not a WAL segment.
    segment: Option<SegmentName>,
    /// Bytes that have been taken.
    position: u64,
    /// Bytes that are left in the stream, without padding.
    left: u64,
    padding: u64,
}

impl Tar {
    fn open(path: &Path) -> io::Result<Tar> {
        let file = File::open(path)?;
        let is_empty = file.metadata()?.len() == 0;
        let file = aligned::Reader::new(file);
        let ends = |end: &[u8]| path.as_os_str().as_encoded_bytes().ends_with(end);
        let is_plain = ends(b".tar");
        let stream: Box<dyn Read> = if ends(b".gz") || ends(b".tgz") {
            Box::new(flate2::bufread::MultiGzDecoder::new(file))
        } else if ends(b".lz4") {
            Box::new(lz4_flex::frame::FrameDecoder::new(file))
        } else if ends(b".zst") {
            Box::new(zstd::stream::read::Decoder::with_buffer(file)?)
        } else {
            Box::new(file)
        };
        let (waits, block, failed) = (ends(b".zst"), Vec::new(), (is_empty && !is_plain).then_some(Broken::Empty));
        let stream = Stream { stream, is_plain, waits, block, following: None, used: 0, failed, position: 0, next_header: 0 };
        Ok(Tar { stream, member: None, front: Vec::new(), short: BTreeMap::new() })
    }

    /// Goes to the first segment that is long enough for a page header, and shows its first bytes: a usual page and a header at most.
    fn first_wal(&mut self) -> Result<Option<&[u8]>, Broken> {
        while self.next_member()? {
            let Some((Some(name), left)) = self.member.as_ref().map(|member| (member.segment, member.left)) else { continue };
            if left < LONG_HEADER_SIZE as u64 {
                self.short.entry(name).or_insert(left);
                continue;
            }
            let mut front = vec![0; left.min(files::PAGE_SIZE_LOOK as u64) as usize];
            let len = self.read_member(&mut front)?;
            if len < LONG_HEADER_SIZE {
                return Err(Broken::Cut);
            }
            front.truncate(len);
            if let Some(member) = &mut self.member {
                member.position = 0;
            }
            self.front = front;
            return Ok(Some(&self.front));
        }
        Ok(None)
    }

    /// Skips what is left of the member and reads the next one's header; whether there is one.
    fn next_member(&mut self) -> Result<bool, Broken> {
        self.front.clear();
        if let Some(member) = self.member.take() {
            let mut skip = member.left.saturating_add(member.padding);
            let mut sink = vec![0; skip.min(1 << 17) as usize];
            while skip > 0 {
                let len = skip.min(sink.len() as u64) as usize;
                let skipped = self.stream.fill(sink.get_mut(..len).unwrap_or_default())?;
                if skipped == 0 {
                    return Err(Broken::Cut);
                }
                skip -= skipped as u64; // at most len, which is at most skip
            }
        }
        let mut header = [0; BLOCK];
        match self.stream.fill(&mut header)? {
            0 => return Ok(false),
            BLOCK => {}
            _ => return Err(Broken::Cut),
        }
        if header.iter().all(|&b| b == 0) {
            return Ok(false);
        }
        if !is_header(&header) {
            return Err(Broken::NotTar);
        }
        let (name, _) = header.split_at(100);
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        if name.is_empty() {
            return Err(Broken::NoName);
        }
        let kind = header.get(156).copied().unwrap_or_default();
        if matches!(kind, b'x' | b'g') {
            return Err(Broken::Pax);
        }
        let path = canonical(name).ok_or_else(|| Broken::Unsafe(String::from_utf8_lossy(name).into_owned()))?;
        let segment = if matches!(kind, b'2' | b'5') { None } else { segment_of(&path) };
        let (left, padding) = sizes(&header);
        self.stream.next_header = self.stream.position.saturating_add(left).saturating_add(padding);
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
        let read = self.stream.fill(buffer.get_mut(..len).unwrap_or_default())?;
        if read == 0 && len > 0 {
            return Err(Broken::Cut);
        }
        member.left -= read as u64; // at most len, which is at most left
        member.position += read as u64;
        Ok(read)
    }
}

/// The bytes of a tar, unpacked.
struct Stream {
    stream: Box<dyn Read>,
    is_plain: bool,
    /// Unpacked bytes are passed on only when it is clear that more follow: so does the server's reader of zstd.
    waits: bool,
    /// Unpacked bytes, those that follow where they have been looked at, and how many of the first have been taken.
    block: Vec<u8>,
    following: Option<Vec<u8>>,
    used: usize,
    /// What comes behind the bytes that have been given.
    failed: Option<Broken>,
    /// Bytes taken from the start of the tar, and where its next header starts.
    position: u64,
    next_header: u64,
}

impl Stream {
    /// What is unpacked is passed on when so much has come together, or at the end of a whole stream.
    const BLOCK: usize = 1 << 18;

    /// Takes bytes until `buffer` is full or the stream ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        let mut filled = 0;
        while filled < buffer.len() && self.failed.is_none() {
            match self.read(buffer.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    self.position += read as u64;
                }
                Err(broken) => self.failed = Some(broken),
            }
        }
        match self.failed.take_if(|_| filled == 0) {
            Some(broken) => Err(broken),
            None => Ok(filled),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        while self.is_plain {
            match self.stream.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(Broken::Io),
            }
        }
        let unpacked = self.unpacked()?;
        let len = unpacked.len().min(buffer.len());
        buffer.iter_mut().zip(unpacked).for_each(|(to, from)| *to = *from);
        self.used += len;
        Ok(len)
    }

    /// Unpacked bytes that have not been taken; none at the end.
    fn unpacked(&mut self) -> Result<&[u8], Broken> {
        if self.used == self.block.len() {
            self.block = match self.following.take() {
                Some(block) => block,
                None => self.unpack()?,
            };
            self.used = 0;
            let mut is_last = self.block.len() < Stream::BLOCK;
            if self.waits && !is_last {
                let following = self.unpack()?;
                is_last = following.is_empty();
                self.following = Some(following);
            }
            // The last part comes together with the end, so an archive that is cut there gives nothing of it.
            if is_last && !self.block.is_empty() && !self.ends_well() {
                self.block.clear();
                return Err(Broken::Cut);
            }
        }
        Ok(self.block.get(self.used..).unwrap_or_default())
    }

    fn unpack(&mut self) -> Result<Vec<u8>, Broken> {
        let mut block = Vec::new();
        match self.stream.by_ref().take(Stream::BLOCK as u64).read_to_end(&mut block) {
            Ok(_) => Ok(block),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(Broken::Incomplete),
            Err(e) => Err(Broken::Io(e)),
        }
    }

    /// Whether the tar ends in the block at hand as a tar ends: behind a member.
    fn ends_well(&self) -> bool {
        let end = self.position.saturating_add(self.block.len() as u64);
        let mut header = self.next_header.max(self.position);
        while header < end {
            let at = (header - self.position) as usize; // less than the block's length
            match self.block.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
                None => return false,
                Some(zeroes) if zeroes.iter().all(|&b| b == 0) => return true,
                Some(block) => {
                    let (len, padding) = sizes(block);
                    header = header.saturating_add(BLOCK as u64).saturating_add(len).saturating_add(padding);
                }
            }
        }
        header == end
    }
}

/// Length and padding of the member that a tar header begins.
fn sizes(header: &[u8; BLOCK]) -> (u64, u64) {
    let len = number(header.get(124..136).unwrap_or_default());
    (len, (BLOCK as u64 - len % BLOCK as u64) % BLOCK as u64)
}

/// Whether a block is a tar header, of POSIX or GNU: checksum and magic are right.
fn is_header(block: &[u8; BLOCK]) -> bool {
    let (checksum, magic) = (148..156, 257..265);
    let sum: u64 = block.iter().enumerate().map(|(at, &b)| u64::from(if checksum.contains(&at) { b' ' } else { b })).sum();
    let is_tar = [&b"ustar\x0000"[..], b"ustar  \0", b"ustar\0\0\0"].contains(&block.get(magic).unwrap_or_default());
    is_tar && number(block.get(checksum).unwrap_or_default()) == sum
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

/// A member's name without `.`, `..` and empty parts; `None`: it leads out of the archive.
fn canonical(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts = Vec::new();
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// The segment that a member is: at the top of the archive or in pg_wal.
fn segment_of(path: &[u8]) -> Option<SegmentName> {
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
            assert_eq!(canonical(path.as_bytes()).and_then(|path| segment_of(&path)), segment, "{path}");
        }
        for path in [format!("base/{name}"), format!("{name}.partial"), format!("a/../../{name}"), "short".to_owned(), String::new()] {
            assert_eq!(canonical(path.as_bytes()).and_then(|path| segment_of(&path)), None, "{path}");
        }
        assert_eq!(number(b"00100000000\0"), 1 << 24);
        assert_eq!(number(b"  7 "), 7);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), 1 << 24);
    }
}
