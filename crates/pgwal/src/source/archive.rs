//! Tar archives, whatever they say about themselves.
//!
//! The tar crate reads the headers. What it would trust is checked here: the length of a header that holds a name, and the size of
//! a member that is called like a segment.

use std::cell::Cell;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::rc::Rc;

use super::listing::is_text_file_name;
use super::name::{file_name, segment_of_file_name};
use super::plan::NoFile;
use crate::lsn::SegmentName;

/// Bytes that the headers of one member may have: the tar crate keeps a long name in memory.
const HEADERS: u64 = 1 << 20;
/// What no segment has, not even one that compression made larger.
const TOO_LARGE: u64 = 2 << 30;

/// A tar archive as a stream.
pub(super) struct Tar<R: Read> {
    archive: tar::Archive<Metered<R>>,
    allowed: Allowed,
}

/// A file in a tar archive that is called like a segment, or like a file that tells about segments.
pub(super) struct Member<'a> {
    /// The segment; `None`: a file about segments.
    pub(super) name: Option<SegmentName>,
    /// Its path in the archive.
    pub(super) path: PathBuf,
    /// Where its bytes start in the archive.
    pub(super) offset: u64,
    /// Its bytes, as many as it says.
    pub(super) len: u64,
    /// Whether the archive leaves out its holes, so that its bytes are not those from `offset` on.
    pub(super) is_sparse: bool,
    /// What it is, where it is no file.
    pub(super) no_file: Option<NoFile>,
    bytes: io::Take<&'a mut dyn Read>,
}

impl Read for Member<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer)
    }
}

impl<R: Read> Tar<R> {
    pub(super) fn new(stream: R) -> Tar<R> {
        let (stream, TarGuard(allowed)) = guarded(stream);
        Tar { archive: tar::Archive::new(stream), allowed }
    }

    /// Shows `visit` the segments and the files about them, in the archive's order.
    ///
    /// # Errors
    /// The archive is damaged or ends too early, or `visit` fails; the segments before have been visited.
    pub(super) fn segments(&mut self, visit: impl FnMut(Member<'_>) -> io::Result<()>) -> io::Result<()> {
        walk(self.archive.entries()?, u64::MAX, &self.allowed, visit)
    }
}

impl<R: Read + Seek> Tar<R> {
    /// The same without reading the bytes of members, of an archive of `len` bytes.
    pub(super) fn segments_by_seeking(&mut self, len: u64, visit: impl FnMut(Member<'_>) -> io::Result<()>) -> io::Result<()> {
        walk(self.archive.entries_with_seek()?, len, &self.allowed, visit)
    }
}

fn walk<R: Read>(
    members: tar::Entries<'_, Metered<R>>,
    archive_len: u64,
    allowed: &Allowed,
    mut visit: impl FnMut(Member<'_>) -> io::Result<()>,
) -> io::Result<()> {
    for member in members {
        let mut member = member.map_err(|e| allowed.explain(e))?;
        let kind = member.header().entry_type();
        let offset = member.raw_file_position();
        let stored = if kind.is_gnu_sparse() { member.header().entry_size()? } else { member.size() };
        let end = offset.saturating_add(stored);
        allowed.up_to.set(end.saturating_add(HEADERS));
        let path = member.path()?.into_owned();
        let is_file = kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
        let file = file_name(&path);
        let name = segment_of_file_name(&file);
        if name.is_none() && !is_text_file_name(&file) {
            if end > archive_len {
                return Err(io::Error::other(format!("cut short inside {path:?}")));
            }
            continue;
        }
        let no_file = if is_file { None } else { Some(no_file(&member)) };
        let len = member.size();
        let bytes = (&mut member as &mut dyn Read).take(TOO_LARGE);
        visit(Member { name, path, offset, len, is_sparse: kind.is_gnu_sparse(), no_file, bytes })?;
        if len >= TOO_LARGE || stored >= TOO_LARGE {
            return Err(io::Error::other(format!("damaged archive: {file} has {len} bytes there, more than a segment can have")));
        }
        if end > archive_len {
            return Ok(()); // what is missing is missed where the segment is read
        }
    }
    Ok(())
}

/// What a member is that is no file.
fn no_file<R: Read>(member: &tar::Entry<'_, R>) -> NoFile {
    let kind = member.header().entry_type();
    match () {
        () if kind.is_symlink() || kind.is_hard_link() => {
            let target = member.link_name_bytes().unwrap_or_default();
            NoFile::Link { target: String::from_utf8_lossy(&target).into_owned() }
        }
        () if kind.is_dir() => NoFile::Directory,
        () if kind.is_fifo() => NoFile::Pipe,
        () if kind.is_block_special() || kind.is_character_special() => NoFile::Device,
        () => NoFile::Unknown { reason: format!("tar type {:?}", char::from(kind.as_byte())) },
    }
}

/// What the tar crate may read of `stream`: an error where the headers of one member, such as a name, take more than 1 MB, as it would keep
/// them in memory whatever they say of their length. The guard is to be told of each member.
pub fn guarded<R: Read>(stream: R) -> (GuardedTar<R>, TarGuard) {
    let allowed = Allowed { up_to: Rc::new(Cell::new(HEADERS)), stream: Rc::new(Cell::new(Went::On)) };
    (Metered { stream, position: 0, allowed: allowed.clone() }, TarGuard(allowed))
}

/// The stream of a tar archive, of [`guarded`].
pub type GuardedTar<R> = Metered<R>;

/// What lets a [`GuardedTar`] be read further.
#[derive(Clone)]
pub struct TarGuard(Allowed);

impl TarGuard {
    /// A member's bytes may be read, and the headers of the next one.
    pub fn allow<R: Read>(&self, member: &tar::Entry<'_, R>) -> io::Result<()> {
        let is_sparse = member.header().entry_type().is_gnu_sparse();
        let stored = if is_sparse { member.header().entry_size()? } else { member.size() };
        self.0.up_to.set(member.raw_file_position().saturating_add(stored).saturating_add(HEADERS));
        Ok(())
    }
}

/// How far a stream may be read, and how that went.
#[derive(Clone)]
struct Allowed {
    up_to: Rc<Cell<u64>>,
    stream: Rc<Cell<Went>>,
}

/// What came of the last look at a stream.
#[derive(Clone, Copy)]
enum Went {
    On,
    ToItsEnd,
    Wrong,
}

impl Allowed {
    /// An error of the tar crate, without the bytes of the archive that it may quote.
    fn explain(&self, e: io::Error) -> io::Error {
        match self.stream.get() {
            Went::Wrong => e,
            Went::ToItsEnd => io::Error::other("cut short"),
            Went::On => {
                let text = e.to_string();
                let what = text.split(": ").next().unwrap_or_default();
                io::Error::other(format!("damaged archive: {what}"))
            }
        }
    }
}

/// A stream that ends with an error where it is read further than is allowed.
pub struct Metered<R> {
    stream: R,
    position: u64,
    allowed: Allowed,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.allowed.up_to.get() && !buffer.is_empty() {
            return Err(io::Error::other("a name longer than 1 MB"));
        }
        let result = self.stream.read(buffer);
        self.allowed.stream.set(match &result {
            Ok(0) if !buffer.is_empty() => Went::ToItsEnd,
            Ok(_) => Went::On,
            Err(_) => Went::Wrong,
        });
        self.position = self.position.saturating_add(*result.as_ref().unwrap_or(&0) as u64);
        result
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.position = self.stream.seek(to)?;
        Ok(self.position)
    }
}
