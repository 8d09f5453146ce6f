//! Bytes of WAL in memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use memmap2::Mmap;

use crate::{aligned, machine};

/// Bytes of WAL: a mapped file, memory of their own, or memory that others had before.
#[derive(Debug)]
pub(crate) enum Data {
    Mapped(Mapped),
    Owned(Vec<u8>),
    Buffered(Buffer),
}

/// A mapped part of a file.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: Arc<Mmap>,
    range: Range<usize>,
    _timer: Option<Timer>,
}

/// A file that is read in pieces, and mapped in larger ones, which they share: each time that something is unmapped, the processors that
/// run this process are all interrupted.
#[derive(Debug)]
pub(crate) struct Input {
    file: File,
    /// Where the stretch starts that was mapped last.
    stretch: Mutex<Option<(u64, Arc<Mmap>)>>,
}

/// Bytes that are mapped together: most segments, whole.
const STRETCH: u64 = 16 << 20;

impl Input {
    pub(super) fn new(file: File) -> Input {
        Input { file, stretch: Mutex::default() }
    }

    /// The file alone.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Up to `len` bytes from `offset`, mapped; fewer where the file ends.
    fn map(&self, offset: u64, len: usize) -> io::Result<(Arc<Mmap>, Range<usize>)> {
        // The file may be shorter than it was, and what is not there must not be touched.
        let file_len = self.file.metadata()?.len();
        let len = len.min(usize::try_from(file_len.saturating_sub(offset)).unwrap_or(usize::MAX));
        let start = offset / STRETCH * STRETCH;
        let at = (offset - start) as usize; // less than a stretch
        let map = {
            let mut stretch = self.stretch.lock().unwrap_or_else(PoisonError::into_inner);
            match &*stretch {
                Some((mapped, map)) if *mapped == start && at + len <= map.len() => Arc::clone(map),
                _ => {
                    // A piece may end after its stretch.
                    let whole = file_len.saturating_sub(start).min(STRETCH).max((at + len) as u64);
                    let map = Arc::new(machine::map(&self.file, start, usize::try_from(whole).unwrap_or(usize::MAX))?);
                    *stretch = Some((start, Arc::clone(&map)));
                    map
                }
            }
        };
        machine::populate(&map, at, len);
        Ok((map, at..at + len))
    }
}

impl Deref for Data {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Data::Mapped(mapped) => mapped.map.get(mapped.range.clone()).unwrap_or_default(),
            Data::Owned(bytes) => bytes,
            Data::Buffered(buffer) => buffer.bytes.as_slice().get(..buffer.len).unwrap_or_default(),
        }
    }
}

impl Data {
    /// The first `len` bytes of `file`: mapped, or read where the file system does not map.
    pub(super) fn map(file: &File, len: usize) -> io::Result<Data> {
        let mapped = machine::map(file, 0, len).map(|map| Data::Mapped(Mapped { map: Arc::new(map), range: 0..len, _timer: None }));
        mapped.or_else(|_| Buffers::default().read(file, 0, len))
    }
}

/// Bytes that a thread should take at a time if all it does is look at them, where so many pieces are on their way.
///
/// What has been read should still be in the processor's cache when it is looked at; but each piece costs its seam to the next one, and
/// going from hand to hand.
pub(crate) const fn piece_size(window: usize) -> usize {
    /// Bytes of all pieces that are on their way, as they may have to be kept in memory.
    const IN_FLIGHT: usize = 64 << 20;
    const PIECE: usize = 1 << 20;
    if window * PIECE > IN_FLIGHT { IN_FLIGHT / window } else { PIECE }
}

/// Memory that goes round: what has been read and used makes room for what is read next, and much of it is in the processor's cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers {
    spare: Arc<Mutex<Vec<aligned::Buffer>>>,
    trial: Arc<Trial>,
}

/// How bytes of a file come into memory.
///
/// Reading copies them, and mapping has the system set up pages; which of the two is faster depends on the processor, its memory and the
/// system. On a Xeon (Sapphire Rapids) mapping is faster by a fifth, as the memory is waited for while the bytes are used; on an EPYC (Zen
/// 3) reading is, nearly twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Read,
    Map,
}

/// Finds out which way is the faster one, on the first pieces of the WAL themselves: they come one way and the other in turn, and the time
/// counts from asking for a piece to being done with it.
#[derive(Debug, Default)]
struct Trial {
    /// Pieces that were begun.
    begun: AtomicUsize,
    /// Nanoseconds for a megabyte: of what was read, and of what was mapped.
    took: Mutex<[Vec<u64>; 2]>,
    winner: OnceLock<Way>,
}

/// Pieces of each way that are timed.
const TIMED: usize = 7;

impl Trial {
    /// The way of the next piece, of `len` bytes, and what times it, while that is still of use.
    fn next(self: &Arc<Trial>, len: usize) -> (Way, Option<Timer>) {
        if let Some(winner) = self.winner.get() {
            return (*winner, None);
        }
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let way = if number.is_multiple_of(2) { Way::Read } else { Way::Map };
        (way, Some(Timer { way, len, start: Instant::now(), trial: Arc::clone(self) }))
    }

    fn add(&self, way: Way, took: u64) {
        let mut all = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        let [read, map] = &mut *all;
        if way == Way::Read { &mut *read } else { &mut *map }.push(took);
        if read.len() >= TIMED && map.len() >= TIMED {
            // The second best: on a busy machine most pieces are interrupted, and a single one may have little to look at.
            let time = |times: &mut Vec<u64>| {
                times.sort_unstable();
                times.get(1).copied().unwrap_or_default()
            };
            // Page images, of which there are most after a checkpoint, favour reading, and small records mapping: so reading has to be faster
            // by a seventh at the least.
            let winner = if time(map).saturating_mul(7) < time(read).saturating_mul(8) { Way::Map } else { Way::Read };
            // Whoever comes second has seen as much.
            let _ = self.winner.set(winner);
        }
    }
}

/// Times a piece until it is dropped.
#[derive(Debug)]
struct Timer {
    way: Way,
    len: usize,
    start: Instant,
    trial: Arc<Trial>,
}

impl Drop for Timer {
    fn drop(&mut self) {
        let took = self.start.elapsed().as_nanos().saturating_mul(1 << 20) / self.len.max(1) as u128;
        self.trial.add(self.way, u64::try_from(took).unwrap_or(u64::MAX));
    }
}

/// Fewer bytes than this are read: whoever wants so few does not want many of them.
const WORTH_MAPPING: usize = 64 << 10;

/// Memory of [`Buffers`], which goes back there.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: aligned::Buffer,
    /// Bytes of it that are in use.
    len: usize,
    home: Buffers,
    _timer: Option<Timer>,
}

impl Buffers {
    /// Room for `len` bytes, of which none are in use.
    fn room(&self, len: usize) -> Buffer {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = spare.filter(|spare| spare.len() >= len).unwrap_or_else(|| aligned::Buffer::new(len));
        Buffer { bytes, len: 0, home: self.clone(), _timer: None }
    }

    /// Up to `len` bytes of `input` from `offset`, read or mapped, whichever is faster; fewer where it ends.
    pub(super) fn get(&self, input: &Input, offset: u64, len: usize) -> io::Result<Data> {
        if len < WORTH_MAPPING {
            return self.read(&input.file, offset, len);
        }
        let (way, timer) = self.trial.next(len);
        if way == Way::Read {
            let mut data = self.read(&input.file, offset, len)?;
            if let Data::Buffered(buffer) = &mut data {
                buffer._timer = timer;
            }
            return Ok(data);
        }
        let mapped = input.map(offset, len).map(|(map, range)| Data::Mapped(Mapped { map, range, _timer: timer }));
        mapped.or_else(|_| self.read(&input.file, offset, len))
    }

    /// Up to `len` bytes of `file` from `offset`; fewer where it ends.
    pub(super) fn read(&self, file: &File, offset: u64, len: usize) -> io::Result<Data> {
        let mut buffer = self.room(len);
        while let Some(room) = buffer.bytes.as_mut_slice().get_mut(buffer.len..len).filter(|room| !room.is_empty()) {
            match read_at(file, room, offset + buffer.len as u64) {
                Ok(0) => break,
                Ok(read) => buffer.len += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Data::Buffered(buffer))
    }

    /// `front`, and after it what `fill` puts there: up to `len` bytes in all. What `fill` says besides how much it was.
    pub(super) fn fill<T>(&self, front: &[u8], len: usize, fill: impl FnOnce(&mut [u8]) -> (usize, T)) -> (Data, T) {
        let mut buffer = self.room(len.max(front.len()));
        let (filled, said) =
            match buffer.bytes.as_mut_slice().get_mut(..len.max(front.len())).and_then(|room| room.split_at_mut_checked(front.len())) {
                Some((start, rest)) => {
                    start.copy_from_slice(front);
                    let room = rest.len();
                    let (filled, said) = fill(rest);
                    (front.len() + filled.min(room), said)
                }
                None => fill(&mut []), // not with that much room
            };
        buffer.len = filled;
        (Data::Buffered(buffer), said)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.home.spare.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

/// Reads at `offset`, wherever the file stands.
#[cfg(unix)]
fn read_at(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, room, offset)
}

/// Reads at `offset`; the file stands after it then, which nothing depends on.
#[cfg(windows)]
fn read_at(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, room, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_way_wins_whatever_one_piece_takes() {
        let busy = [9000, 8000, 7000, 9000, 7000];
        for (read, map, winner) in [
            ([5, 6], [7, 8], Way::Read),
            ([5, 6], [3, 2], Way::Map),
            ([5, 6], [1, 9], Way::Read),
            ([1, 6], [4, 5], Way::Map),
            ([70, 70], [79, 79], Way::Map),
            ([70, 70], [81, 81], Way::Read),
        ] {
            let (read, map) = ([&read[..], &busy[..]].concat(), [&busy[..], &map[..]].concat());
            let trial = Trial::default();
            for (read, map) in read.into_iter().zip(map) {
                assert_eq!(trial.winner.get(), None);
                trial.add(Way::Map, map);
                trial.add(Way::Read, read);
            }
            assert_eq!(trial.winner.get(), Some(&winner));
            // Late ones change nothing.
            trial.add(Way::Map, 0);
            trial.add(Way::Read, 0);
            assert_eq!(trial.winner.get(), Some(&winner));
        }
    }

    #[test]
    fn pieces_are_the_files_own_whichever_way_they_come() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        let input = Input::new(file);
        let buffers = Buffers::default();
        let mut ways = [0, 0];
        for (round, len) in [WORTH_MAPPING, 1 << 20, 3 << 20].into_iter().cycle().take(30).enumerate() {
            let offset = 4096 * round;
            let data = buffers.get(&input, offset as u64, len).unwrap();
            ways[usize::from(matches!(data, Data::Mapped(_)))] += 1;
            assert!(*data == bytes[offset..(offset + len).min(bytes.len())], "{round}");
        }
        assert!(ways[0] >= TIMED && ways[1] >= TIMED && buffers.trial.winner.get().is_some(), "{ways:?}");
        // Behind the end there is nothing, and in small pieces everything is read.
        assert!(buffers.get(&input, 4 << 20, 1 << 20).unwrap().is_empty());
        assert!(input.map(17 << 20, 1 << 20).is_ok_and(|(_, range)| range.is_empty()) && input.map(u64::from(u32::MAX) << 20, 9).is_ok());
        assert!(matches!(buffers.get(&input, 0, 100).unwrap(), Data::Buffered(_)));
    }
}
