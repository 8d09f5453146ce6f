//! Bytes of WAL in memory.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::Mmap;

use crate::machine;

/// Bytes of WAL: a mapped file, memory of their own, or memory that others had before.
#[derive(Debug)]
pub(crate) enum Data {
    Mapped(Mmap),
    Owned(Vec<u8>),
    Buffered(Buffer),
}

impl Deref for Data {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Data::Mapped(map) => map,
            Data::Owned(bytes) => bytes,
            Data::Buffered(buffer) => buffer.bytes.get(..buffer.len).unwrap_or_default(),
        }
    }
}

impl Data {
    /// The first `len` bytes of `file`: mapped, or read where the file system does not map.
    pub(super) fn map(file: &File, len: usize) -> io::Result<Data> {
        machine::map(file, 0, len).map(Data::Mapped).or_else(|_| Buffers::default().read(file, 0, len))
    }
}

/// Fewer bytes than this are read rather than mapped.
const WORTH_MAPPING: usize = 1 << 20;

/// Bytes that a thread should take at a time if all it does is look at them, where so many pieces are on their way.
///
/// They can be mapped, and the processor told to fetch them ahead, which copies nothing; but every time that a piece is unmapped, all
/// threads are stopped, so pieces must not be small.
pub(crate) const fn piece_size(window: usize) -> usize {
    /// Bytes of all pieces that are on their way, as they may have to be kept in memory.
    const IN_FLIGHT: usize = 64 << 20;
    const PIECE: usize = 2 << 20;
    if window * PIECE > IN_FLIGHT { IN_FLIGHT / window } else { PIECE }
}

/// Memory that goes round: what has been read and used makes room for what is read next.
///
/// For small pieces, reading into memory that the processor's cache still holds is quicker than mapping.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// Memory of [`Buffers`], which goes back there.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Bytes of it that are in use.
    len: usize,
    home: Buffers,
}

impl Buffers {
    /// Up to `len` bytes of `file` from `offset`, mapped where that is possible and worth it; fewer where it ends.
    pub(super) fn get(&self, file: &File, offset: u64, len: usize) -> io::Result<Data> {
        if len < WORTH_MAPPING {
            return self.read(file, offset, len);
        }
        // The file may be shorter than it was, and what is not there must not be mapped.
        let left = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        machine::map(file, offset, len.min(left)).map(Data::Mapped).or_else(|_| self.read(file, offset, len))
    }

    /// Reads up to `len` bytes of `file` from `offset`; fewer where it ends.
    pub(super) fn read(&self, file: &File, offset: u64, len: usize) -> io::Result<Data> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = Buffer { bytes: spare.unwrap_or_default(), len: 0, home: self.clone() };
        if buffer.bytes.len() < len {
            buffer.bytes.resize(len, 0);
        }
        while let Some(room) = buffer.bytes.get_mut(buffer.len..len).filter(|room| !room.is_empty()) {
            match read_at(file, room, offset + buffer.len as u64) {
                Ok(0) => break,
                Ok(read) => buffer.len += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Data::Buffered(buffer))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

/// Reads at `offset`, wherever the file stands.
#[cfg(unix)]
fn read_at(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, room, offset)
}

/// Reads at `offset`; the file stands behind it then, which nothing depends on.
#[cfg(windows)]
fn read_at(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, room, offset)
}
