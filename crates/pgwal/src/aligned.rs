//! Memory that the kernel copies into, aligned to the system's pages.
//!
//! An allocator puts a large block 16 bytes after the start of a page. The kernel's copy from the page cache is slow for such a
//! destination on some processors: 2.6 GB/s on AMD's Zen 3, where the start of a page gets 13.5. Everything that is read in bulk goes
//! through these two types.

use std::io::{self, BufRead, Read};

use memmap2::{MmapMut, MmapOptions};

/// Every page size in use is a multiple of this, and every cache line a part of it.
const PAGE: usize = 4096;

/// A block of bytes that starts at a page of memory.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Memory,
    len: usize,
}

/// Where the bytes are.
#[derive(Debug)]
enum Memory {
    /// In pages of the system, which were all set up at once: to touch them one by one takes three times as long.
    Pages(MmapMut),
    /// In a block of the allocator, which is longer by up to a page less a byte, from this byte on.
    Block(Vec<u8>, usize),
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::Block(Vec::new(), 0)
    }
}

/// Blocks of at least so many bytes get pages of their own. It is from here on that the usual allocators do the same.
const WORTH_PAGES: usize = 128 << 10;

impl Buffer {
    /// A block of `len` zeroes.
    pub fn new(len: usize) -> Buffer {
        if len == 0 {
            return Buffer::default();
        }
        if len >= WORTH_PAGES
            && cfg!(not(miri))
            && let Ok(pages) = MmapOptions::new().len(len).populate().map_anon()
        {
            return Buffer { memory: Memory::Pages(pages), len };
        }
        let bytes = vec![0; len.saturating_add(PAGE - 1)];
        // Where the address cannot be computed with (under Miri), the block is as good anywhere.
        let start = match bytes.as_ptr().align_offset(PAGE) {
            start if start < PAGE => start,
            _ => 0,
        };
        Buffer { memory: Memory::Block(bytes, start), len }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        let bytes = match &self.memory {
            Memory::Pages(pages) => Some(&**pages),
            Memory::Block(bytes, start) => bytes.get(*start..),
        };
        bytes.and_then(|bytes| bytes.get(..self.len)).unwrap_or_default()
    }

    /// The bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let bytes = match &mut self.memory {
            Memory::Pages(pages) => Some(&mut **pages),
            Memory::Block(bytes, start) => bytes.get_mut(*start..),
        };
        bytes.and_then(|bytes| bytes.get_mut(..self.len)).unwrap_or_default()
    }

    /// Makes it at least `len` bytes long; what is there stays.
    pub fn grow(&mut self, len: usize) {
        if len > self.len {
            let mut longer = Buffer::new(len);
            if let Some(front) = longer.as_mut_slice().get_mut(..self.len) {
                front.copy_from_slice(self.as_slice());
            }
            *self = longer;
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A reader with a [`Buffer`] of its own, for input that is taken in small pieces.
///
/// [`std::io::BufReader`] does the same with memory from the allocator.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    buffer: Buffer,
    start: usize,
    end: usize,
}

/// Bytes that a [`Reader`] asks for at a time.
const READ: usize = 128 << 10;

impl<R> Reader<R> {
    /// Buffers what `inner` gives.
    pub fn new(inner: R) -> Reader<R> {
        Reader { inner, buffer: Buffer::default(), start: 0, end: 0 }
    }

    /// What is read from.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// What is read from, to be told something. What it gives directly is out of order with what is buffered.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }
}

impl<R: Read> BufRead for Reader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start >= self.end {
            if self.buffer.is_empty() {
                self.buffer = Buffer::new(READ);
            }
            // Before the call: if it fails, there is nothing in the buffer.
            (self.start, self.end) = (0, 0);
            self.end = self.inner.read(self.buffer.as_mut_slice())?.min(self.buffer.len());
        }
        Ok(self.buffer.as_slice().get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_start_at_a_page() {
        for len in [1, 4095, 4096, 8192, 300_000, 1 << 20] {
            let mut buffer = Buffer::new(len);
            assert_eq!((buffer.len(), buffer.as_slice().len(), buffer.as_mut_slice().len()), (len, len, len));
            assert!(buffer.as_slice().iter().all(|&byte| byte == 0));
            assert_eq!(buffer.as_slice().as_ptr().addr() % PAGE, 0, "{len}");
        }
        let mut buffer = Buffer::new(3);
        buffer.as_mut_slice().copy_from_slice(b"abc");
        buffer.grow(2);
        buffer.grow(6);
        assert_eq!(buffer.as_slice(), b"abc\0\0\0");
        assert!(Buffer::new(0).is_empty() && Buffer::default().as_mut_slice().is_empty());
    }

    #[test]
    fn a_reader_gives_what_it_reads_and_survives_errors() {
        /// Gives up to `piece` bytes at a time, and every third time an error.
        struct Source {
            left: usize,
            piece: usize,
            calls: usize,
        }
        impl Read for Source {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                self.calls += 1;
                if self.calls.is_multiple_of(3) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let len = self.left.min(self.piece).min(out.len());
                for (byte, number) in out.iter_mut().zip((0..len).map(|at| self.left - at)) {
                    *byte = number as u8;
                }
                self.left -= len;
                Ok(len)
            }
        }
        for piece in [1, 1000, 1 << 20] {
            let mut reader = Reader::new(Source { left: 400_000, piece, calls: 0 });
            let mut found = Vec::new();
            let mut room = vec![0; 70_001];
            loop {
                match reader.read(&mut room) {
                    Ok(0) => break,
                    Ok(len) => found.extend_from_slice(&room[..len]),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::Interrupted),
                }
            }
            assert!(found.iter().copied().eq((1..=400_000_usize).rev().map(|number| number as u8)), "{piece}");
        }
    }
}
