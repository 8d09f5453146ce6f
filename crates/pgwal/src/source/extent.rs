//! The bytes of the WAL, a few megabytes at a time.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::archive::Tar;
use super::data::{Buffers, Input};
use super::kind::{FIRST_PAGE, Kind, NotWal, Packing, first_page, wrapping};
use super::name::{file_of_input, is_begun, is_partial};
use super::plan::{BlockSizes, Entry, Place};
use super::unpack::{Rest, after_packed};
use super::{Data, SourceError, SourceProblem, unpack};
use crate::format::WalFormat;
use crate::input_file;
use crate::lsn::{Lsn, SegmentName};

/// Whole WAL pages that follow each other, of one segment.
#[derive(Debug)]
pub struct Extent {
    /// Where they come from, as the user knows it.
    pub input: Arc<str>,
    /// LSN of the first byte.
    pub start: Lsn,
    /// Format of the WAL.
    pub fmt: WalFormat,
    /// System identifier of the cluster, from the header of the segment's first page; `None` where that cannot be read.
    pub(crate) cluster: Option<u64>,
    data: Data,
    /// Where all bytes can be read again, if `data` has only the first of them.
    again: Option<Span>,
    end: Lsn,
}

impl Extent {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// LSN after the last byte.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Whether all bytes are there.
    pub(crate) fn is_whole(&self) -> bool {
        self.data.len() as u64 == self.end - self.start
    }

    /// Gives away the memory of what stands behind `to`, if it can be had again.
    pub(crate) fn keep_front(&mut self, to: Lsn) {
        let front = usize::try_from(to - self.start).ok().and_then(|len| self.data.get(..len));
        if let (Some(front), true) = (front, self.again.is_some()) {
            self.data = Data::Owned(front.to_vec());
        }
    }

    /// Reads again what was given away.
    pub(crate) fn read_again(&self) -> Result<Extent, SourceError> {
        let bytes = self.again.as_ref().and_then(Span::again).unwrap_or(Span::Ready(Data::Owned(Vec::new())));
        Unread { input: Arc::clone(&self.input), start: self.start, fmt: self.fmt, cluster: self.cluster, bytes }.read()
    }

    /// LSN of the page that has the last byte, whole or not; of the end, where that is one.
    pub(crate) fn last_page(&self) -> Lsn {
        Lsn(self.end().0 - self.fmt.page_offset(self.end()))
    }
}

/// An extent whose bytes may have to be read: whoever has time for that does it.
#[derive(Debug)]
pub(crate) struct Unread {
    input: Arc<str>,
    start: Lsn,
    fmt: WalFormat,
    cluster: Option<u64>,
    bytes: Span,
}

impl Unread {
    /// LSN after the last byte.
    pub(crate) fn end(&self) -> Lsn {
        self.start + self.bytes.len() as u64
    }

    /// Reads the bytes.
    pub(crate) fn read(self) -> Result<Extent, SourceError> {
        let Unread { input, start, fmt, cluster, bytes } = self;
        let again = bytes.again();
        match bytes.read() {
            Ok(data) => {
                let end = start + data.len() as u64;
                Ok(Extent { input, start, fmt, cluster, data, again, end })
            }
            Err(e) => Err(SourceError::new(input, SourceProblem::Io(e))),
        }
    }
}

/// Bytes, or where they are to be read.
#[derive(Debug)]
pub(crate) enum Span {
    Ready(Data),
    File { file: Arc<Input>, offset: u64, len: usize, buffers: Buffers },
}

impl Span {
    pub(crate) fn len(&self) -> usize {
        match self {
            Span::Ready(data) => data.len(),
            Span::File { len, .. } => *len,
        }
    }

    /// The same again, if it can be read twice.
    pub(crate) fn again(&self) -> Option<Span> {
        match self {
            Span::Ready(_) => None,
            Span::File { file, offset, len, buffers } => {
                Some(Span::File { file: Arc::clone(file), offset: *offset, len: *len, buffers: buffers.clone() })
            }
        }
    }

    /// The bytes, if they have been read.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Span::Ready(data) => data,
            Span::File { .. } => &[],
        }
    }

    /// The bytes; fewer where the file has become shorter meanwhile.
    pub(crate) fn read(self) -> io::Result<Data> {
        match self {
            Span::Ready(data) => Ok(data),
            Span::File { file, offset, len, buffers } => buffers.get(&file, offset, len),
        }
    }
}

/// Extents start and end at multiples of the largest WAL page.
pub(super) const LARGEST_PAGE: usize = 1 << 16;

/// The extents of a [`super::Wal`], in its order. An error concerns one segment; the next call goes on after it.
pub struct Extents<'w> {
    entries: slice::Iter<'w, Entry>,
    /// Nothing that ends before this is wanted.
    from: Lsn,
    size: usize,
    current: Option<Current>,
    /// The segment before, and its format: what the next one should carry on.
    before: Option<(Option<SegmentName>, WalFormat)>,
    /// An entry that was put back after a gap before it was reported.
    waiting: Option<&'w Entry>,
    archive: Option<PackedTar>,
    buffers: Buffers,
    block_sizes: BlockSizes,
    /// What follows the segments in their files, if somebody wants to know.
    rests: Option<&'w Mutex<Vec<FileRest>>>,
}

/// What follows a segment in its file.
#[derive(Clone, Debug)]
pub(crate) struct FileRest {
    /// What the user knows the file by.
    pub(crate) input: Arc<str>,
    /// The segment.
    pub(crate) name: SegmentName,
    pub(crate) rest: Rest,
}

/// The segment that is being read.
struct Current {
    input: Arc<str>,
    fmt: WalFormat,
    cluster: Option<u64>,
    start: Lsn,
    next: Lsn,
    bytes: Bytes,
    /// Whether the input is one that may end anywhere: a `.partial` segment.
    partial: bool,
    rest: Option<(SegmentName, Behind)>,
}

/// Where it can be learned what follows a segment in its file.
enum Behind {
    /// Here.
    File { file: Arc<Input>, offset: u64, len: u64 },
    /// From who has read the stream to its end.
    Stream(Arc<Mutex<Rest>>),
}

pub(super) enum Bytes {
    File {
        file: Arc<Input>,
        offset: u64,
        left: u64,
    },
    Stream {
        /// What has been looked at and not taken.
        front: Vec<u8>,
        stream: Box<dyn Read + Send>,
        /// What stopped the stream, once everything before it has been taken.
        failed: Option<io::Error>,
        /// It is unpacked as it is read, so that a checksum may stand at its end.
        is_unpacked: bool,
    },
}

impl<'w> Extents<'w> {
    pub(super) fn new(entries: &'w [Entry], block_sizes: BlockSizes, from: Lsn, size: usize) -> Extents<'w> {
        let size = size.next_multiple_of(LARGEST_PAGE).max(LARGEST_PAGE);
        Extents {
            entries: entries.iter(),
            from,
            size,
            current: None,
            before: None,
            waiting: None,
            archive: None,
            buffers: Buffers::default(),
            block_sizes,
            rests: None,
        }
    }

    /// The same, which also tells what follows the segments in their files, where anything does.
    pub(crate) fn with_rests(self, rests: &'w Mutex<Vec<FileRest>>) -> Extents<'w> {
        Extents { rests: Some(rests), ..self }
    }

    /// Opens single files.
    pub(super) fn opener() -> Extents<'w> {
        Extents::new(&[], BlockSizes::default(), Lsn::INVALID, LARGEST_PAGE)
    }

    fn open(&mut self, entry: &Entry) -> Result<Current, SourceError> {
        let fail = |problem| SourceError::new(&entry.input, problem);
        let mut bytes = self.open_place(entry)?;
        let front = match bytes.front() {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && is_begun(&entry.input) => Vec::new(),
            front => front.map_err(|e| fail(SourceProblem::of_unpacking(&e)))?,
        };
        if let Some(wrapping) = wrapping(&front, file_of_input(&entry.input)) {
            return Err(fail(SourceProblem::NotWal(NotWal::Wrapped(wrapping))));
        }
        let (fmt, start) = match (first_page(&front), self.before, entry.name) {
            // The name says where the segment belongs; a header that says otherwise shows when the page is read.
            (Ok((fmt, header)), _, name) => {
                let fmt = self.block_sizes.complete(fmt, header.long.map(|long| long.system_identifier));
                (fmt, name.map_or(header.address, |name| name.start(fmt.segment_size)))
            }
            // Behind good WAL, whatever stands in the file is judged page by page: zeroes, or damage with its place.
            (Err(_), Some((_, fmt)), Some(name)) if !front.is_empty() => (fmt, name.start(fmt.segment_size)),
            (Err(what), ..) => return Err(fail(SourceProblem::NotWal(what))),
        };
        let cluster = first_page(&front).ok().and_then(|(_, header)| header.long).map(|long| long.system_identifier);
        let mut rest = None;
        if let Some(name) = entry.name {
            let (front, behind) = bytes.up_to(fmt.segment_size, self.rests.is_some());
            bytes = front;
            rest = behind.map(|behind| (name, behind));
        }
        self.before = Some((entry.name, fmt));
        let next = start + bytes.skip((self.from - start) / LARGEST_PAGE as u64 * LARGEST_PAGE as u64);
        let partial = is_partial(&entry.input);
        Ok(Current { input: Arc::clone(&entry.input), fmt, cluster, start, next, bytes, partial, rest })
    }

    pub(super) fn open_place(&mut self, entry: &Entry) -> Result<Bytes, SourceError> {
        let fail = |e: io::Error| SourceError::new(&entry.input, SourceProblem::Io(e));
        let stream = match &entry.place {
            Place::File(path) => {
                let file = input_file::open(path).map_err(fail)?;
                let left = file.metadata().map_err(fail)?.len();
                return Bytes::File { file: Arc::new(Input::new(file)), offset: 0, left }.unpacked().map_err(fail);
            }
            Place::Range { file, offset, len } => {
                let file = File::open(file).map_err(fail)?;
                // An archive that was cut short promises more than it has, and what is not there must not be mapped.
                let left = file.metadata().map_err(fail)?.len().saturating_sub(*offset).min(*len);
                return Bytes::File { file: Arc::new(Input::new(file)), offset: *offset, left }.unpacked().map_err(fail);
            }
            Place::Packed { archive, packing, member } => self.open_member(archive, *packing, member).map_err(fail)?,
            Place::Stdin => stdin_stream().map_err(fail)?,
            Place::NoFile { what } => return Err(SourceError::new(&entry.input, SourceProblem::NoFile(what.clone()))),
            Place::Broken { why } => return Err(SourceError::new(&entry.input, SourceProblem::Unpack(why.clone()))),
        };
        Bytes::stream(stream).unpacked().map_err(fail)
    }

    /// The compressed tar is read once; members come in its order.
    fn open_member(&mut self, path: &Path, packing: Packing, member: &Path) -> io::Result<Box<dyn Read + Send>> {
        let archive = match &mut self.archive {
            Some(open) if open.path == path => open,
            other => other.insert(PackedTar::open(path, packing)?),
        };
        archive.member(member)
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_unread()?.and_then(Unread::read))
    }
}

impl Extents<'_> {
    /// The next extent, without its bytes where reading them can wait.
    pub(crate) fn next_unread(&mut self) -> Option<Result<Unread, SourceError>> {
        loop {
            if let Some(current) = &mut self.current {
                match current.bytes.next(self.size, &self.buffers) {
                    Ok(bytes) if bytes.len() == 0 => {
                        let cut_short = current.cut_short();
                        current.tell_rest(self.rests);
                        self.current = None;
                        if let Some(error) = cut_short {
                            return Some(Err(error));
                        }
                    }
                    Ok(bytes) => {
                        let (input, start, fmt, cluster) = (Arc::clone(&current.input), current.next, current.fmt, current.cluster);
                        current.next = start + bytes.len() as u64;
                        return Some(Ok(Unread { input, start, fmt, cluster, bytes }));
                    }
                    // A receiver is still compressing it: what has come is all there is.
                    Err(e) if current.partial && e.kind() == io::ErrorKind::UnexpectedEof => self.current = None,
                    // What stands after a segment is no part of it, compressed or not.
                    Err(e) if after_packed(&e).is_some() => {
                        let cut_short = current.cut_short();
                        current.tell_rest(self.rests);
                        self.current = None;
                        if let Some(error) = cut_short {
                            return Some(Err(error));
                        }
                    }
                    Err(e) => {
                        let input = Arc::clone(&current.input);
                        self.current = None;
                        return Some(Err(SourceError::new(input, SourceProblem::of_unpacking(&e))));
                    }
                }
                continue;
            }
            let entry = match self.waiting.take() {
                Some(entry) => entry,
                None => {
                    let entry = self.entries.next()?;
                    if let (Some((Some(before), fmt)), Some(name)) = (self.before, entry.name) {
                        let size = fmt.segment_size;
                        if name.start(size) + u64::from(size) <= self.from {
                            self.before = Some((Some(name), fmt));
                            continue;
                        }
                        // What is missing before the start is not missed.
                        let number = self.from.segment_number(size).max(before.number(size).saturating_add(1));
                        let next = SegmentName::new(before.timeline, number, size);
                        if (next.log, next.seg) < (name.log, name.seg) {
                            self.waiting = Some(entry);
                            return Some(Err(SourceError::new(next, SourceProblem::Missing)));
                        }
                    }
                    entry
                }
            };
            match self.open(entry) {
                Ok(current) => self.current = Some(current),
                Err(SourceError { problem: SourceProblem::NotWal(NotWal::Empty), .. }) if is_begun(&entry.input) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Current {
    /// What to say where the input ends inside a segment.
    fn cut_short(&self) -> Option<SourceError> {
        let expected = self.fmt.segment_size;
        let is_whole = self.next.segment_offset(expected) == 0;
        let problem = SourceProblem::CutShort { len: (self.next - self.start) % u64::from(expected), expected };
        (!is_whole && !self.partial).then(|| SourceError::new(&self.input, problem))
    }

    /// Writes down what follows the segment, which has been read to its end.
    fn tell_rest(&mut self, rests: Option<&Mutex<Vec<FileRest>>>) {
        let (Some(rests), Some((name, behind))) = (rests, self.rest.take()) else { return };
        let rest = match behind {
            Behind::Stream(rest) => rest.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            // What cannot be read of it is not there.
            Behind::File { file, offset, len } => {
                use std::io::Seek;
                let mut file = file.file(); // whoever else reads it says where
                let sought = file.seek(io::SeekFrom::Start(offset));
                sought.map_or_else(|_| Rest::default(), |_| Rest::read(&mut file.take(len)).0)
            }
        };
        if rest != Rest::default() {
            let rest = FileRest { input: Arc::clone(&self.input), name, rest };
            rests.lock().unwrap_or_else(PoisonError::into_inner).push(rest);
        }
    }
}

impl Bytes {
    fn stream(stream: Box<dyn Read + Send>) -> Bytes {
        Bytes::Stream { front: Vec::new(), stream, failed: None, is_unpacked: false }
    }

    /// Leaves out up to `len` bytes, where that costs nothing; how many it were.
    fn skip(&mut self, len: u64) -> u64 {
        match self {
            Bytes::File { offset, left, .. } => {
                let len = len.min(*left);
                (*offset, *left) = (*offset + len, *left - len); // offset + left is inside the file
                len
            }
            Bytes::Stream { .. } => 0,
        }
    }

    /// The first `len` bytes: what follows is no part of the segment, and may be asked for.
    fn up_to(self, len: u32, is_rest_wanted: bool) -> (Bytes, Option<Behind>) {
        let len = u64::from(len);
        match self {
            Bytes::File { file, offset, left } => {
                let rest = left.checked_sub(len).filter(|&rest| is_rest_wanted && rest > 0);
                let rest = rest.map(|rest| Behind::File { file: Arc::clone(&file), offset: offset + len, len: rest });
                (Bytes::File { file, offset, left: left.min(len) }, rest)
            }
            // The front is not longer than the smallest segment.
            Bytes::Stream { front, stream, failed, is_unpacked } => {
                let left = len.saturating_sub(front.len() as u64);
                let rest = is_rest_wanted.then(Arc::<Mutex<Rest>>::default);
                let stream: Box<dyn Read + Send> = match &rest {
                    Some(rest) => Box::new(unpack::UpTo::new(stream, left).with_rest(rest)),
                    None if is_unpacked => Box::new(unpack::UpTo::new(stream, left)),
                    None => Box::new(stream.take(left)),
                };
                (Bytes::Stream { front, stream, failed, is_unpacked }, rest.map(Behind::Stream))
            }
        }
    }

    /// The bytes inside, where these are compressed.
    fn unpacked(mut self) -> io::Result<Bytes> {
        let front = self.front()?;
        let Kind::Packed(packing) = Kind::of(&front) else { return Ok(self) };
        let stream = unpack::stream(packing, self.into_stream()?)?;
        Ok(Bytes::Stream { front: Vec::new(), stream, failed: None, is_unpacked: true })
    }

    /// The first bytes, without taking them.
    pub(super) fn front(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Bytes::File { file, offset, left } => {
                Ok(Buffers::default().read(file.file(), *offset, (*left).min(FIRST_PAGE as u64) as usize)?.to_vec())
            }
            Bytes::Stream { front, stream, failed, .. } => {
                let have = front.len();
                front.resize(have.max(FIRST_PAGE), 0);
                let (filled, error) = unpack::fill_to_error(stream, front.get_mut(have..).unwrap_or_default());
                front.truncate(have + filled);
                match error {
                    Some(e) if front.is_empty() => return Err(e),
                    error => *failed = error.or(failed.take()),
                }
                Ok(front.clone())
            }
        }
    }

    fn into_stream(self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Bytes::File { file, offset, left } => {
                use std::io::Seek;
                let mut file = Arc::try_unwrap(file).map_or_else(|shared| shared.file().try_clone(), |input| Ok(input.into_file()))?;
                file.seek(io::SeekFrom::Start(offset))?;
                Box::new(file.take(left))
            }
            Bytes::Stream { front, stream, failed, .. } => Box::new(io::Cursor::new(front).chain(Failing { stream, failed })),
        })
    }

    /// Up to `size` bytes; none at the end.
    pub(super) fn next(&mut self, size: usize, buffers: &Buffers) -> io::Result<Span> {
        match self {
            Bytes::File { file, offset, left } => {
                let len = (*left).min(size as u64);
                let span = Span::File { file: Arc::clone(file), offset: *offset, len: len as usize, buffers: buffers.clone() };
                (*offset, *left) = (*offset + len, *left - len); // offset + left is inside the file
                Ok(span)
            }
            Bytes::Stream { front, stream, failed, .. } => {
                let front = std::mem::take(front);
                // Before what does not unpack, there may be much that did.
                let bytes = match failed {
                    Some(_) => Data::Owned(front),
                    None => {
                        let (bytes, error) = buffers.fill(&front, size, |room| unpack::fill_to_error(stream, room));
                        *failed = error;
                        bytes
                    }
                };
                match failed.take_if(|_| bytes.is_empty()) {
                    Some(e) => Err(e),
                    None => Ok(Span::Ready(bytes)),
                }
            }
        }
    }
}

/// A stream that gives the error that it has given before.
struct Failing {
    stream: Box<dyn Read + Send>,
    failed: Option<io::Error>,
}

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.failed.take() {
            Some(e) => Err(e),
            None => self.stream.read(buffer),
        }
    }
}

/// Standard input can be looked at once; what the look took is kept here.
static STDIN_FRONT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// The first `len` bytes of standard input, without taking them; fewer where it ends.
pub(super) fn stdin_front(len: usize) -> io::Result<Vec<u8>> {
    let mut front = STDIN_FRONT.lock().unwrap_or_else(PoisonError::into_inner);
    let have = front.len();
    if have < len {
        front.resize(len, 0);
        let (filled, error) = unpack::fill_to_error(&mut io::stdin(), front.get_mut(have..).unwrap_or_default());
        front.truncate(have + filled);
        if let Some(e) = error {
            return Err(e);
        }
    }
    Ok(front.clone())
}

/// Standard input from its first byte, unpacked.
pub(super) fn stdin_stream() -> io::Result<Box<dyn Read + Send>> {
    let front = std::mem::take(&mut *STDIN_FRONT.lock().unwrap_or_else(PoisonError::into_inner));
    let kind = Kind::of(&front);
    let stream = io::Cursor::new(front).chain(io::stdin());
    Ok(match kind {
        Kind::Packed(packing) => unpack::stream(packing, stream)?,
        _ => Box::new(stream),
    })
}

/// A compressed tar, unpacked in a thread of its own.
struct PackedTar {
    path: PathBuf,
    parts: Arc<Mutex<Parts>>,
}

struct Parts {
    receiver: Receiver<Part>,
    /// The member whose header ended the one before.
    next: Option<PathBuf>,
}

enum Part {
    Member(PathBuf),
    Bytes(Vec<u8>),
    Failed(io::Error),
}

impl PackedTar {
    fn open(path: &Path, packing: Packing) -> io::Result<PackedTar> {
        let stream = unpack::stream(packing, File::open(path)?)?;
        // A few parts ahead: unpacking goes on while records are read.
        let (sender, receiver) = sync_channel(4);
        // A receiver that has gone away wants no more; there is nobody to tell.
        let nobody = |_| io::Error::other("nobody reads");
        std::thread::spawn(move || {
            let work = || -> io::Result<()> {
                Tar::new(stream).segments(|mut member| {
                    sender.send(Part::Member(member.path.clone())).map_err(nobody)?;
                    let mut left = member.len;
                    loop {
                        let mut bytes = vec![0; left.min(1 << 20) as usize];
                        let (len, error) = unpack::fill_to_error(&mut member, &mut bytes);
                        bytes.truncate(len);
                        left -= len as u64; // not more than was asked for
                        if len > 0 {
                            sender.send(Part::Bytes(bytes)).map_err(nobody)?;
                        }
                        if let Some(e) = error {
                            return Err(e);
                        }
                        if len == 0 {
                            return Ok(());
                        }
                    }
                })
            };
            if let Err(e) = work() {
                let _ = sender.send(Part::Failed(e)); // as above
            }
        });
        Ok(PackedTar { path: path.to_owned(), parts: Arc::new(Mutex::new(Parts { receiver, next: None })) })
    }

    fn member(&mut self, wanted: &Path) -> io::Result<Box<dyn Read + Send>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        while parts.next.take().is_none_or(|path| path != wanted) {
            match parts.receiver.recv() {
                Ok(Part::Member(path)) => parts.next = Some(path),
                Ok(Part::Bytes(_)) => {}
                Ok(Part::Failed(e)) => return Err(e),
                Err(_) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ended before this member")),
            }
        }
        Ok(Box::new(Member { parts: Arc::clone(&self.parts), bytes: io::Cursor::new(Vec::new()), done: false }))
    }
}

/// The bytes of one member; the header of the next one ends it.
struct Member {
    parts: Arc<Mutex<Parts>>,
    bytes: io::Cursor<Vec<u8>>,
    done: bool,
}

impl Read for Member {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.bytes.read(buffer)?;
            if read > 0 || self.done || buffer.is_empty() {
                return Ok(read);
            }
            let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            match parts.receiver.recv() {
                Ok(Part::Bytes(bytes)) => self.bytes = io::Cursor::new(bytes),
                Ok(Part::Member(path)) => (parts.next, self.done) = (Some(path), true),
                Ok(Part::Failed(e)) => return Err(e),
                Err(_) => self.done = true,
            }
        }
    }
}
