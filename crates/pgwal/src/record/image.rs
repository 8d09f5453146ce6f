//! Page images: holes and compression. C: `XLogRecordBlockImageHeader`, access/xlogrecord.h; `RestoreBlockImage`, xlogreader.c.

use serde::Serialize;

use super::{Refusal, read};
use crate::error::ErrorKind;
use crate::format::WalFormat;

/// How an image is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// PostgreSQL's own method; the only one before 15.
    Pglz,
    /// LZ4, from 15 on.
    Lz4,
    /// Zstandard, from 15 on.
    Zstd,
}

impl Compression {
    /// Name as `wal_compression` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Compression::Pglz => "pglz",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// Flags of an image as they are on disk; their meaning changed with 15. C: `bimg_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// The byte.
    pub bits: u8,
    /// From 15 on: three compression methods.
    since_15: bool,
}

impl ImageInfo {
    /// The flags `bits` in WAL of format `fmt`.
    pub fn new(bits: u8, fmt: WalFormat) -> ImageInfo {
        ImageInfo { bits, since_15: fmt.since(15) }
    }

    /// The page had a hole of zeroes between its line pointers and its tuples. C: `BKPIMAGE_HAS_HOLE`.
    pub fn has_hole(self) -> bool {
        self.bits & 0x01 != 0
    }

    /// Replay restores the page from the image. C: `BKPIMAGE_APPLY`.
    pub fn apply(self) -> bool {
        self.bits & (if self.since_15 { 0x02 } else { 0x04 }) != 0
    }

    /// Whether any compression is said. C: `BKPIMAGE_COMPRESSED`, `BKPIMAGE_IS_COMPRESSED` before 15.
    pub fn is_compressed(self) -> bool {
        self.bits & (if self.since_15 { 0x1C } else { 0x02 }) != 0
    }

    /// The compression method; the first that is set, as the server reads it.
    pub fn compression(self) -> Option<Compression> {
        match self.bits {
            bits if !self.since_15 => (bits & 0x02 != 0).then_some(Compression::Pglz),
            bits if bits & 0x04 != 0 => Some(Compression::Pglz),
            bits if bits & 0x08 != 0 => Some(Compression::Lz4),
            bits if bits & 0x10 != 0 => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// Image of a page. C: `XLogRecordBlockImageHeader` and what follows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Image<'r> {
    /// Bytes on disk: without the hole, compressed.
    pub data: &'r [u8],
    /// Length of `data`. C: `bimg_len`.
    pub len: u16,
    /// Bytes before the hole. C: `hole_offset`.
    pub hole_offset: u16,
    /// Bytes of the hole. C: `hole_length`.
    pub hole_length: u16,
    /// Flags. C: `bimg_info`.
    pub info: ImageInfo,
}

impl std::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Image { len, hole_offset, hole_length, info, .. } = self;
        write!(f, "Image {{ len: {len}, hole: {hole_offset}+{hole_length}, compression: {:?} }}", info.compression())
    }
}

impl<'r> Image<'r> {
    /// Reads the image's header; its data comes later in the record.
    ///
    /// Without a block size, nothing is checked that depends on it, and `hole_length` stays zero where the image is not compressed.
    pub(super) fn read_header(i: &[u8], fmt: WalFormat) -> Result<(&[u8], Image<'r>), Refusal> {
        let left = i.len();
        let (i, len) = read::<u16>(i, fmt, "XLogRecordBlockImageHeader.length")?;
        let (i, hole_offset) = read::<u16>(i, fmt, "XLogRecordBlockImageHeader.hole_offset")?;
        let (mut i, bits) = read::<u8>(i, fmt, "XLogRecordBlockImageHeader.bimg_info")?;
        let info = ImageInfo::new(bits, fmt);
        let hole_length = if !info.is_compressed() {
            // Before the check below, C computes this in a uint16 too.
            if fmt.block_size == 0 { 0 } else { (fmt.block_size as u16).wrapping_sub(len) }
        } else if info.has_hole() {
            let (rest, length) = read::<u16>(i, fmt, "XLogRecordBlockCompressHeader.hole_length")?;
            i = rest;
            length
        } else {
            0
        };
        if fmt.block_size == 0 {
            return Ok((i, Image { data: &[], len, hole_offset, hole_length, info }));
        }
        let whole_page = u32::from(len) == fmt.block_size;
        let kind = if info.has_hole() && (hole_offset == 0 || hole_length == 0 || whole_page) {
            ErrorKind::ImageHole { has_hole: true, offset: hole_offset, length: hole_length, image: len }
        } else if !info.has_hole() && (hole_offset != 0 || hole_length != 0) {
            ErrorKind::ImageHole { has_hole: false, offset: hole_offset, length: hole_length, image: len }
        } else if info.is_compressed() && whole_page {
            ErrorKind::ImageCompressedLength { image: len }
        } else if !info.has_hole() && !info.is_compressed() && !whole_page {
            ErrorKind::ImageLength { image: len, expected: fmt.block_size }
        } else {
            return Ok((i, Image { data: &[], len, hole_offset, hole_length, info }));
        };
        Err(Refusal { kind, left })
    }

    /// Whether replay restores the page from it. C: `XLogRecBlockImageApply`.
    pub fn apply(&self) -> bool {
        self.info.apply()
    }

    /// Bytes that compression saved. C: what pg_waldump calls `compression saved`.
    pub fn saved(&self, fmt: WalFormat) -> u32 {
        fmt.known_block_size().wrapping_sub(self.hole_length.into()).wrapping_sub(self.len.into())
    }

    /// Restores the whole page into `page`, which is cleared first: decompresses, and puts the hole back as zeroes.
    ///
    /// # Errors
    /// The data does not decompress to a page without its hole. C: `RestoreBlockImage`.
    pub fn restore(&self, fmt: WalFormat, page: &mut Vec<u8>) -> Result<(), ErrorKind> {
        page.clear();
        let block_size = fmt.known_block_size() as usize;
        let (offset, length) = (usize::from(self.hole_offset), usize::from(self.hole_length));
        let Some(raw_size) = block_size.checked_sub(length).filter(|&size| offset <= size) else {
            let (offset, length) = (self.hole_offset, self.hole_length);
            return Err(ErrorKind::ImageHole { has_hole: self.info.has_hole(), offset, length, image: self.len });
        };
        let unpacked;
        let content = match self.info.compression() {
            None => self.data,
            Some(method) => {
                unpacked =
                    decompress(method, self.data, raw_size).map_err(|reason| ErrorKind::Decompress { method: method.name(), reason })?;
                &unpacked
            }
        };
        let (Some(before), Some(after), true) = (content.get(..offset), content.get(offset..), content.len() == raw_size) else {
            let reason = format!("{} bytes, expected {raw_size}", content.len());
            return Err(ErrorKind::Decompress { method: self.info.compression().map_or("none", Compression::name), reason });
        };
        page.extend_from_slice(before);
        page.resize(offset + length, 0);
        page.extend_from_slice(after);
        Ok(())
    }
}

/// Decompresses `data` to exactly `size` bytes, at most a block.
fn decompress(method: Compression, data: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let page = unpack(method, data, size)?;
    if page.len() == size { Ok(page) } else { Err(format!("{} bytes, expected {size}", page.len())) }
}

/// Decompresses all of `data` to at most `limit` bytes.
pub(super) fn unpack(method: Compression, data: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    match method {
        Compression::Pglz => pglz(data, limit),
        Compression::Lz4 => lz4_flex::block::decompress(data, limit).map_err(|e| e.to_string()),
        Compression::Zstd => zstd::bulk::decompress(data, limit).map_err(|e| e.to_string()),
    }
}

/// PostgreSQL's own LZ compression: a control byte before every eight items, each a literal byte or a tag of two or three bytes
/// with an offset back and a length. C: `pglz_decompress`, common/pg_lzcompress.c.
fn pglz(data: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let cut = || "the data is cut short".to_owned();
    let mut out = Vec::with_capacity(size);
    let mut input = data.iter().copied();
    'items: while let Some(control) = input.next() {
        for bit in 0..8 {
            if out.len() >= size {
                break 'items;
            }
            let Some(first) = input.next() else { break 'items };
            if control >> bit & 1 == 0 {
                out.push(first);
                continue;
            }
            let second = input.next().ok_or_else(cut)?;
            let mut len = usize::from(first & 0x0F) + 3;
            let offset = usize::from(first & 0xF0) << 4 | usize::from(second);
            if len == 18 {
                len += usize::from(input.next().ok_or_else(cut)?);
            }
            let Some(from) = out.len().checked_sub(offset).filter(|_| offset > 0) else {
                return Err(format!("a tag points {offset} bytes back from byte {}", out.len()));
            };
            // Copied byte by byte: the source may overlap what is being written.
            for at in from..(from + len).min(from + size - out.len()) {
                let byte = out.get(at).copied().ok_or_else(cut)?;
                out.push(byte);
            }
        }
    }
    if input.next().is_some() {
        return Err(format!("bytes are left over after {size}"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pglz_literals_and_overlapping_tags() {
        // Three literals, then a tag: 9 bytes from 3 back.
        assert_eq!(pglz(&[0b1000, b'a', b'b', b'c', 0x06, 0x03], 12).unwrap(), b"abcabcabcabc");
        // A long tag: 18 + 2 bytes from 1 back.
        assert_eq!(pglz(&[0b10, b'z', 0x0F, 0x01, 0x02], 21).unwrap(), [b'z'; 21]);
        for bad in [&[0b1, 0x06, 0x03][..], &[0b10, b'a', 0x06], &[0b10, b'a', 0x06, 0x00], &[0b10, b'a', 0x0F, 0x01]] {
            assert!(pglz(bad, 12).is_err(), "{bad:?}");
        }
        assert!(pglz(&[0, b'a', b'b'], 1).is_err(), "left over");
    }

    #[test]
    fn images_are_restored_with_their_hole() {
        let fmt = WalFormat::new(15);
        let page: Vec<u8> = (0..8192u32).map(|i| if (100..5000).contains(&i) { 0 } else { (i / 7) as u8 }).collect();
        let content = [&page[..100], &page[5000..]].concat();
        let lz4 = lz4_flex::block::compress(&content);
        let zstd = zstd::bulk::compress(&content, 3).unwrap();
        for (bits, data) in [(0x03, &content), (0x0B, &lz4), (0x13, &zstd)] {
            let image = Image { data, len: data.len() as u16, hole_offset: 100, hole_length: 4900, info: ImageInfo::new(bits, fmt) };
            let mut restored = vec![1; 3];
            image.restore(fmt, &mut restored).unwrap();
            assert!(restored == page, "{bits:#x}");
            for len in [0, 1, data.len() / 2, data.len() - 1] {
                assert!(Image { data: &data[..len], ..image }.restore(fmt, &mut restored).is_err(), "{bits:#x} cut at {len}");
            }
        }
    }
}
