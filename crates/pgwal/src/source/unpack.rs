//! Decompression of whole segments and archives.
//!
//! The formats are other people's, so are the decoders: flate2 (with its Rust backend) for gzip, lz4_flex for LZ4 frames, zstd, liblzma for xz
//! (which can be told how much memory it may take: a header may ask for 4 GB), bzip2.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::kind::{FIRST_PAGE, Kind, Packing, Wrapping, first_page, skippable_frame};
use crate::aligned;

/// Bytes that unpacking xz may take: `xz -9` needs 65 MiB, and all of what is in flight stays below 256.
const XZ_MEMORY: u64 = 96 << 20;

/// The first bytes come out when this much has gone in: a block of LZ4 may have 4 MB.
pub(super) const LARGEST_BLOCK: usize = 5 << 20;

/// The bytes inside `packed`, as a stream, of all its members. It is read in large pieces, and ends with [`AfterPacked`] where something
/// else follows.
pub(super) fn stream<'a>(packing: Packing, packed: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let input = Front { inner: aligned::Reader::new(packed), front: Vec::new(), position: 0, has_ended: false };
    Ok(Box::new(Members { packing, state: State::Between(input) }))
}

/// A whole segment: no more comes out than it has by its header, whatever goes in; only a first page, where it is none.
pub(super) fn whole(packing: Packing, packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = stream(packing, packed)?;
    let mut bytes = vec![0; FIRST_PAGE];
    let len = fill(&mut stream, &mut bytes)?;
    bytes.truncate(len);
    if let Ok((fmt, _)) = first_page(&bytes) {
        // The smallest segment is larger than a page.
        match UpTo::new(stream, u64::from(fmt.segment_size) - len as u64).read_to_end(&mut bytes) {
            Err(e) if after_packed(&e).is_none() => return Err(e),
            _ => {}
        }
    }
    Ok(bytes)
}

/// The error at the end of a stream: what was compressed came out whole, and then there are other bytes.
///
/// Zeroes are none where the format's own program does not mind them, as tapes and some archives pad with zeroes: behind gzip and bzip2, and
/// behind xz in fours. gzip warns of anything else and exits with 2; bzip2 warns; xz, zstd and lz4 fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AfterPacked {
    /// Where they begin in the file.
    pub(crate) offset: u64,
}

impl fmt::Display for AfterPacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the compressed data ends at 0x{:x}, and other bytes follow", self.offset)
    }
}

impl std::error::Error for AfterPacked {}

/// Whether a stream of [`stream`] ended whole, with other bytes after what is compressed.
pub(crate) fn after_packed(e: &io::Error) -> Option<AfterPacked> {
    e.get_ref()?.downcast_ref().copied()
}

/// Why a file is not unpacked, though nothing may be wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NotUnpacked(Wrapping);

impl fmt::Display for NotUnpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NotUnpacked {}

/// Whether a stream of [`stream`] is compressed in a way that is not read, and in which.
pub(crate) fn not_unpacked(e: &io::Error) -> Option<Wrapping> {
    e.get_ref()?.downcast_ref::<NotUnpacked>().map(|why| why.0)
}

/// What the header of a frame needs that is not there. RFC 8878, section 3.1.1.1; LZ4 Frame Format Description, "Frame Descriptor".
fn needs(packing: Packing, front: &[u8]) -> Option<Wrapping> {
    /// The largest window that is unpacked, as of the zstd program without `--long` or `--memory`.
    const WINDOW: u64 = 128 << 20;
    let descriptor = *front.get(4)?;
    match packing {
        Packing::Lz4 => (descriptor & 1 != 0).then_some(Wrapping::Dictionary),
        Packing::Zstd if descriptor & 3 != 0 => Some(Wrapping::Dictionary),
        Packing::Zstd => {
            let size = front.get(5..)?;
            let window = match (descriptor & 0x20 != 0, descriptor >> 6) {
                (false, _) => {
                    let (exponent, mantissa) = (*size.first()? >> 3, u64::from(*size.first()? & 7));
                    let base = 1u64 << (10 + exponent);
                    base + base / 8 * mantissa
                }
                // A single segment: the content is the window.
                (true, 2) => u32::from_le_bytes(*size.first_chunk()?).into(),
                (true, 3) => u64::from_le_bytes(*size.first_chunk()?),
                (true, _) => 0,
            };
            (window > WINDOW).then_some(Wrapping::LargeWindow)
        }
        _ => None,
    }
}

/// Zeroes that are passed over: more are not padding.
const PADDING: u64 = 1 << 30;

/// What is compressed as a whole may have several members, which are unpacked one after the other: `cat`, pigz, pzstd make them.
struct Members<R: BufRead> {
    packing: Packing,
    state: State<R>,
}

enum State<R: BufRead> {
    /// Before a member, or after the last one.
    Between(Front<R>),
    Inside(Decoder<R>),
    /// There are no more members.
    Over(Option<AfterPacked>),
}

/// Unpacks one member.
enum Decoder<R: BufRead> {
    Gzip(Box<flate2::bufread::GzDecoder<Front<R>>>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<Front<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Front<R>>),
    Xz(liblzma::bufread::XzDecoder<Front<R>>),
    Bzip2(bzip2::bufread::BzDecoder<Front<R>>),
}

impl<R: BufRead> Decoder<R> {
    fn new(packing: Packing, mut input: Front<R>) -> io::Result<Decoder<R>> {
        /// Bytes of a header that tell what the frame needs.
        const HEADER: usize = 14;
        if let Some(what) = needs(packing, input.peek(HEADER)?) {
            return Err(io::Error::other(NotUnpacked(what)));
        }
        Ok(match packing {
            Packing::Gzip => Decoder::Gzip(Box::new(flate2::bufread::GzDecoder::new(input))),
            Packing::Lz4 => Decoder::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(input))),
            Packing::Zstd => Decoder::Zstd(zstd::stream::read::Decoder::with_buffer(input)?.single_frame()),
            Packing::Xz => {
                let decoder = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(io::Error::other)?;
                Decoder::Xz(liblzma::bufread::XzDecoder::new_stream(input, decoder))
            }
            Packing::Bzip2 => Decoder::Bzip2(bzip2::bufread::BzDecoder::new(input)),
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Lz4(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
            Decoder::Xz(decoder) => decoder.read(buffer),
            Decoder::Bzip2(decoder) => decoder.read(buffer),
        }
    }

    /// What follows the member.
    fn into_rest(self) -> Front<R> {
        match self {
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Lz4(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.finish(),
            Decoder::Xz(decoder) => decoder.into_inner(),
            Decoder::Bzip2(decoder) => decoder.into_inner(),
        }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let State::Inside(decoder) = &mut self.state {
                let read = decoder.read(buffer)?;
                if read > 0 {
                    return Ok(read);
                }
            }
            self.state = match std::mem::replace(&mut self.state, State::Over(None)) {
                State::Inside(decoder) => {
                    let rest = decoder.into_rest();
                    // The decoder of LZ4 takes the end of the file for the end of the frame.
                    if self.packing == Packing::Lz4 && rest.has_ended {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the LZ4 frame has no end"));
                    }
                    State::Between(rest)
                }
                State::Between(mut rest) => match rest.find_member(self.packing)? {
                    Next::Member => State::Inside(Decoder::new(self.packing, rest)?),
                    Next::End => State::Over(None),
                    Next::Other(offset) => State::Over(Some(AfterPacked { offset })),
                },
                State::Over(after) => {
                    self.state = State::Over(after);
                    return after.map_or(Ok(0), |after| Err(io::Error::new(io::ErrorKind::InvalidData, after)));
                }
            }
        }
    }
}

/// What follows a member.
enum Next {
    Member,
    End,
    /// Something else, from this offset on.
    Other(u64),
}

/// Compressed bytes whose first ones can be looked at.
struct Front<R> {
    inner: R,
    /// Bytes that were looked at, to be read first.
    front: Vec<u8>,
    /// Offset of the next byte.
    position: u64,
    /// Somebody wanted to read more than there is.
    has_ended: bool,
}

impl<R: BufRead> Front<R> {
    /// The next `len` bytes, without taking them; fewer where the input ends.
    fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        while self.front.len() < len {
            let more = match self.inner.fill_buf() {
                Ok(more) => more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let more = more.get(..len - self.front.len()).unwrap_or(more); // front is shorter than len
            if more.is_empty() {
                break;
            }
            self.front.extend_from_slice(more);
            let taken = more.len();
            self.inner.consume(taken);
        }
        Ok(&self.front)
    }

    /// Passes over up to `len` bytes that `is_passed` says; how many it were.
    fn skip(&mut self, len: u64, is_passed: impl Fn(u8) -> bool) -> io::Result<u64> {
        let mut skipped = 0;
        while skipped < len {
            let bytes = match self.fill_buf() {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let room = usize::try_from(len - skipped).unwrap_or(usize::MAX); // skipped is less than len
            let bytes = bytes.get(..room).unwrap_or(bytes);
            let passed = bytes.iter().take_while(|&&byte| is_passed(byte)).count();
            let is_over = passed < bytes.len() || bytes.is_empty();
            self.consume(passed);
            skipped += passed as u64;
            if is_over {
                break;
            }
        }
        Ok(skipped)
    }

    /// Goes to the next member, over what may stand between two.
    fn find_member(&mut self, packing: Packing) -> io::Result<Next> {
        loop {
            let start = self.position;
            let front = self.peek(Kind::LOOK_PACKED)?;
            if front.is_empty() {
                return Ok(Next::End);
            }
            if Kind::of(front) == Kind::Packed(packing) {
                return Ok(Next::Member);
            }
            if let Some(len) = skippable_frame(front).filter(|_| matches!(packing, Packing::Zstd | Packing::Lz4)) {
                let skipped = self.skip(len, |_| true)?;
                if skipped < len {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a skippable frame is cut short"));
                }
                continue;
            }
            let zeroes = match packing {
                Packing::Gzip | Packing::Xz | Packing::Bzip2 => self.skip(PADDING, |byte| byte == 0)?,
                Packing::Zstd | Packing::Lz4 => 0,
            };
            let is_padding = zeroes > 0 && (packing != Packing::Xz || zeroes.is_multiple_of(4));
            let front = self.peek(Kind::LOOK_PACKED)?;
            return Ok(match () {
                () if is_padding && front.is_empty() => Next::End,
                // The only format that has padding between members.
                () if is_padding && packing == Packing::Xz && Kind::of(front) == Kind::Packed(packing) => Next::Member,
                () => Next::Other(start),
            });
        }
    }
}

impl<R: BufRead> BufRead for Front<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.front.is_empty() {
            return Ok(&self.front);
        }
        let bytes = self.inner.fill_buf()?;
        self.has_ended |= bytes.is_empty();
        Ok(bytes)
    }

    fn consume(&mut self, count: usize) {
        self.position = self.position.saturating_add(count as u64);
        match self.front.is_empty() {
            true => self.inner.consume(count),
            false => drop(self.front.drain(..count.min(self.front.len()))),
        }
    }
}

impl<R: BufRead> Read for Front<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

/// The first bytes of a stream, with the checksum that may stand after them: whoever stops at the last byte does not learn that it is wrong.
pub(super) struct UpTo<S> {
    stream: S,
    left: u64,
    is_over: bool,
    /// Where it is written down what follows, if somebody wants to know.
    rest: Option<Arc<Mutex<Rest>>>,
}

/// What follows a segment in its file, and is no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Bytes.
    pub(crate) len: u64,
    /// There may be more: they were not read to the end.
    pub(crate) is_part: bool,
    /// A hash of them.
    pub(crate) hash: u64,
    /// Where other bytes begin after the compressed data.
    pub(crate) after_packed: Option<u64>,
}

impl Rest {
    /// Bytes that are read of a rest, at most.
    const LIMIT: u64 = 256 << 20;

    /// Reads the rest of `stream`, and says how that ended.
    pub(super) fn read(stream: &mut dyn Read) -> (Rest, Option<io::Error>) {
        let (mut rest, mut hasher, mut buffer) = (Rest::default(), DefaultHasher::new(), vec![0; 64 << 10]);
        loop {
            let (len, error) = fill_to_error(stream, &mut buffer);
            hasher.write(buffer.get(..len).unwrap_or_default());
            rest.len += len as u64; // not much more than the limit
            let is_over = error.is_some() || len < buffer.len();
            rest.is_part = !is_over && rest.len >= Rest::LIMIT;
            if is_over || rest.is_part {
                rest.hash = if rest.len > 0 { hasher.finish() } else { 0 };
                rest.after_packed = error.as_ref().and_then(after_packed).map(|after| after.offset);
                return (rest, error);
            }
        }
    }
}

impl<S: Read> UpTo<S> {
    /// The first `len` bytes of `stream`.
    pub(super) fn new(stream: S, len: u64) -> UpTo<S> {
        UpTo { stream, left: len, is_over: false, rest: None }
    }

    /// The same, and writes down what follows.
    pub(super) fn with_rest(self, rest: &Arc<Mutex<Rest>>) -> UpTo<S> {
        UpTo { rest: Some(Arc::clone(rest)), ..self }
    }
}

impl<S: Read> Read for UpTo<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.is_over && !buffer.is_empty() {
            self.is_over = true;
            if let Some(wanted) = &self.rest {
                let (rest, error) = Rest::read(&mut self.stream);
                *wanted.lock().unwrap_or_else(PoisonError::into_inner) = rest;
                return error.map_or(Ok(0), Err);
            }
            // What is more than that is passed over, but for one byte.
            fill(&mut self.stream, &mut [0])?;
        }
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(room) = buffer.get_mut(..len).filter(|room| !room.is_empty()) else { return Ok(0) };
        let read = self.stream.read(room)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

/// Bytes that a segment whose file starts with `front` can have: by its header, where it has one.
pub(super) fn largest(front: &[u8]) -> u64 {
    first_page(front).map_or(1 << 30, |(fmt, _)| u64::from(fmt.segment_size))
}

/// Reads until `buffer` is full or the stream ends; the number of bytes read.
pub(super) fn fill(stream: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    match fill_to_error(stream, buffer) {
        (_, Some(e)) => Err(e),
        (filled, None) => Ok(filled),
    }
}

/// The same, but what was read before an error is not lost.
pub(super) fn fill_to_error(stream: &mut dyn Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (filled, Some(e)),
        }
    }
    (filled, None)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const ALL: [Packing; 5] = [Packing::Gzip, Packing::Lz4, Packing::Zstd, Packing::Xz, Packing::Bzip2];

    fn packed(packing: Packing, bytes: &[u8]) -> Vec<u8> {
        use std::io::Write;
        match packing {
            Packing::Gzip => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
            Packing::Lz4 => {
                let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
            Packing::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Packing::Xz => {
                let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
            Packing::Bzip2 => {
                let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
        }
    }

    /// What comes out, and how it ends; the same however little comes in at a time.
    fn unpacked(packing: Packing, bytes: &[u8]) -> (Vec<u8>, Option<io::Error>) {
        /// Gives a byte at a time.
        struct Dribble<'a>(&'a [u8]);
        impl Read for Dribble<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let len = out.len().min(1);
                self.0.read(&mut out[..len])
            }
        }
        let read = |mut stream: Box<dyn Read + Send + '_>| {
            let mut out = vec![0; 300_000];
            let (len, error) = fill_to_error(&mut stream, &mut out);
            out.truncate(len);
            (out, error)
        };
        let (out, error) = read(stream(packing, bytes).unwrap());
        let (again, same) = read(stream(packing, Dribble(bytes)).unwrap());
        assert!(out == again && error.as_ref().map(|e| e.to_string()) == same.map(|e| e.to_string()), "{packing:?}: {error:?}");
        (out, error)
    }

    /// Whether the format's own program finds nothing wrong; `None`: it is not installed.
    fn is_good(packing: Packing, bytes: &[u8]) -> Option<bool> {
        let program = match packing {
            Packing::Gzip => "gzip",
            Packing::Lz4 => "lz4",
            Packing::Zstd => "zstd",
            Packing::Xz => "xz",
            Packing::Bzip2 => "bzip2",
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, bytes).unwrap();
        let stdin = std::fs::File::open(&file).unwrap();
        let output = Command::new(program).arg("-t").stdin(stdin).stdout(Stdio::null()).output().ok()?;
        // bzip2 only warns.
        Some(output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("garbage"))
    }

    #[test]
    fn what_follows_the_compressed_data() {
        let bytes: Vec<u8> = (0..100_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 27) as u8).collect();
        for packing in ALL {
            let one = packed(packing, &bytes);
            assert_eq!(unpacked(packing, &one).0, bytes, "{packing:?}");
            // zstd would unpack gzip, xz and LZ4 as well.
            let other = packed(if packing == Packing::Bzip2 { Packing::Gzip } else { Packing::Bzip2 }, &bytes);
            let tails: [&[u8]; 12] = [
                b"",
                &[0],
                &[0; 2],
                &[0; 4],
                &[0; 511],
                &[0; 512],
                &[0; 300_000],
                b"x",
                b"\nsome text",
                &other,
                &[0, 0, 0, 0, 1],
                &[0x50; 3],
            ];
            for tail in tails {
                let file = [&one, tail].concat();
                let (out, error) = unpacked(packing, &file);
                assert!(out == bytes, "{packing:?}: {} bytes follow: {} come out", tail.len(), out.len());
                let after = error.as_ref().map(|e| after_packed(e).unwrap_or_else(|| panic!("{packing:?}: {e}")));
                let is_padding = tail.iter().all(|&byte| byte == 0)
                    && match packing {
                        Packing::Gzip | Packing::Bzip2 => true,
                        Packing::Xz => tail.len() % 4 == 0,
                        Packing::Zstd | Packing::Lz4 => tail.is_empty(),
                    };
                let expected = (!is_padding).then_some(AfterPacked { offset: one.len() as u64 });
                assert_eq!(after, expected, "{packing:?}: {:?}", &tail[..tail.len().min(9)]);
                // The real bzip2 warns of zeroes too, and goes on.
                if let Some(is_good) = is_good(packing, &file).filter(|_| packing != Packing::Bzip2) {
                    assert_eq!(is_good, is_padding, "{packing:?}: {:?}", &tail[..tail.len().min(9)]);
                }
            }
            // Several members, some of them empty, and what may stand between them.
            let between: &[&[u8]] = match packing {
                Packing::Lz4 | Packing::Zstd => &[b"", b"\x5A\x2A\x4D\x18\x03\0\0\0abc", b"\x50\x2A\x4D\x18\0\0\0\0"],
                Packing::Xz => &[b"", &[0; 8]],
                Packing::Gzip | Packing::Bzip2 => &[b""],
            };
            for between in between {
                let file = [&one, *between, &packed(packing, b""), between, &packed(packing, b"end"), between].concat();
                let (out, error) = unpacked(packing, &file);
                assert!(error.is_none() && out == [&bytes[..], b"end"].concat(), "{packing:?}: {error:?}");
                assert_ne!(is_good(packing, &file), Some(false), "{packing:?}");
                if !between.is_empty() && packing != Packing::Xz {
                    let file = [between, &one[..]].concat();
                    let kind = Kind::of(&file);
                    assert!(unpacked(packing, &file).0 == bytes && kind == Kind::Packed(packing), "{kind:?}");
                }
            }
            // Cut short anywhere, the last byte included, it is not whole.
            for len in [one.len() / 2, one.len() - 9, one.len() - 5, one.len() - 4, one.len() - 1] {
                let (_, error) = unpacked(packing, &one[..len]);
                assert!(error.is_some_and(|e| after_packed(&e).is_none()), "{packing:?}: {len} of {}", one.len());
            }
            if packing != Packing::Xz {
                // A member that is cut short is no other bytes.
                let (out, error) = unpacked(packing, &[&one[..], &one[..one.len() / 2]].concat());
                assert!(out.len() >= bytes.len() && error.is_some_and(|e| after_packed(&e).is_none()), "{packing:?}");
            }
        }
    }
}
