//! Decompression of whole segments and archives.
//!
//! The formats are other people's, so are the decoders: flate2 (with its Rust backend) for gzip, lz4_flex for LZ4 frames, zstd, liblzma for xz
//! (which can be told how much memory it may take: a header may ask for 4 GB), bzip2.

use std::io::{self, Read};

use super::kind::{FIRST_PAGE, Packing, first_page};
use crate::aligned;

/// Bytes that unpacking xz may take: `xz -9` needs 65 MiB, and all of what is in flight stays below 256.
const XZ_MEMORY: u64 = 96 << 20;

/// The first bytes come out when this much has gone in: a block of LZ4 may have 4 MB.
pub(super) const LARGEST_BLOCK: usize = 5 << 20;

/// The bytes inside `packed`, as a stream. It is read in large pieces.
pub(super) fn stream<'a>(packing: Packing, packed: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let packed = aligned::Reader::new(packed);
    Ok(match packing {
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Packing::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        Packing::Xz => {
            let decoder =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED).map_err(io::Error::other)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, decoder))
        }
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
    })
}

/// A whole segment: no more comes out than it has by its header, whatever goes in; only a first page, where it is none.
pub(super) fn whole(packing: Packing, packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = stream(packing, packed)?;
    let mut bytes = vec![0; FIRST_PAGE];
    let len = fill(&mut stream, &mut bytes)?;
    bytes.truncate(len);
    if let Ok((fmt, _)) = first_page(&bytes) {
        // The smallest segment is larger than a page.
        UpTo::new(stream, u64::from(fmt.segment_size) - len as u64).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The first bytes of a stream, with the checksum that may stand behind them: whoever stops at the last byte does not learn that it is wrong.
pub(super) struct UpTo<S> {
    stream: S,
    left: u64,
    is_over: bool,
}

impl<S: Read> UpTo<S> {
    /// The first `len` bytes of `stream`.
    pub(super) fn new(stream: S, len: u64) -> UpTo<S> {
        UpTo { stream, left: len, is_over: false }
    }
}

impl<S: Read> Read for UpTo<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.is_over && !buffer.is_empty() {
            self.is_over = true;
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
