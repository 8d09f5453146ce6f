//! The bytes of segment files as they are, for checking: nothing is assumed of them.

use std::io::ErrorKind;

use super::data::Buffers;
use super::extent::{Bytes, Extents, LARGEST_PAGE, Span};
use super::name::is_partial;
use super::plan::Entry;
use super::unpack::{AfterPacked, after_packed};
use super::{SourceError, SourceProblem};

/// What comes next of a file.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Bytes of it; only the last ones of a file are less than asked for.
    Bytes {
        /// Where they start in the file.
        offset: u64,
        /// Only the first ones of a file have been read.
        bytes: Span,
    },
    /// It has ended.
    End {
        /// Bytes it had.
        len: u64,
        /// Where other bytes begin after what is compressed.
        after: Option<AfterPacked>,
    },
    /// It cannot be read (further).
    Failed(SourceError),
}

/// The pieces of a [`super::Wal`]: of each file its bytes, and then one piece that says how it ended.
pub(crate) struct Pieces<'w> {
    /// Opens files, and keeps an archive open from one member to the next.
    opener: Extents<'w>,
    entries: &'w [Entry],
    at: usize,
    current: Option<(Bytes, u64)>,
    size: usize,
    buffers: Buffers,
}

impl<'w> Pieces<'w> {
    pub(super) fn new(entries: &'w [Entry], size: usize) -> Pieces<'w> {
        let size = size.next_multiple_of(LARGEST_PAGE).max(LARGEST_PAGE);
        Pieces { opener: Extents::opener(), entries, at: 0, current: None, size, buffers: Buffers::default() }
    }

    /// Reads no further in the current file.
    pub(crate) fn skip_file(&mut self) {
        self.current = None;
        self.at += 1;
    }
}

/// The first bytes of a file, a few thousand.
pub(super) fn front(entry: &Entry) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Extents::opener().open_place(entry)?;
    bytes.front().map_err(|e| SourceError::new(&entry.input, SourceProblem::of_unpacking(&e)))
}

/// The number of the file in [`super::Wal::files`], and a piece of it.
impl Iterator for Pieces<'_> {
    type Item = (usize, Piece);

    fn next(&mut self) -> Option<(usize, Piece)> {
        let at = self.at;
        let entry = self.entries.get(at)?;
        let (bytes, offset) = match &mut self.current {
            Some(current) => current,
            None => match self.opener.open_place(entry) {
                Ok(bytes) => self.current.insert((bytes, 0)),
                Err(error) => {
                    self.at += 1;
                    return Some((at, Piece::Failed(error)));
                }
            },
        };
        let start = *offset;
        let next =
            bytes.next(self.size, &self.buffers).and_then(|bytes| if start == 0 { bytes.read().map(Span::Ready) } else { Ok(bytes) });
        let piece = match next {
            Ok(bytes) if bytes.len() == 0 => Piece::End { len: start, after: None },
            Ok(bytes) => {
                *offset += bytes.len() as u64; // the size of a file
                return Some((at, Piece::Bytes { offset: start, bytes }));
            }
            // A receiver is still compressing it: what has come is all there is.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof && is_partial(&entry.input) => Piece::End { len: start, after: None },
            Err(e) if after_packed(&e).is_some() => Piece::End { len: start, after: after_packed(&e) },
            Err(e) => Piece::Failed(SourceError::new(&entry.input, SourceProblem::of_unpacking(&e))),
        };
        self.skip_file();
        Some((at, piece))
    }
}
