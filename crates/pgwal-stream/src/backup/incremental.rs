//! Files of an incremental backup: the blocks of a relation's segment that have changed. From 17 on. C: backup/basebackup_incremental.c,
//! bin/pg_combinebackup/reconstruct.c.

use std::fmt;
use std::io::{self, Read};

/// What stands in front of the name of such a file.
pub(super) const PREFIX: &[u8] = b"INCREMENTAL.";

/// C: `INCREMENTAL_MAGIC`, backup/basebackup_incremental.h; in the byte order of the server's machine.
const MAGIC: u32 = 0xd3ae_1f0d;

/// Bytes before the list of block numbers: the magic, the number of blocks, the length to truncate to.
const FIXED: usize = 12;

/// Block sizes that PostgreSQL can be built with.
const BLOCK_SIZES: [u64; 6] = [1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15];

/// The header of a file of an incremental backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncrementalFile {
    /// Blocks that it has.
    pub blocks: u32,
    /// Blocks that the whole file is to have at least.
    pub truncation_length: u32,
}

/// What is wrong with a file of an incremental backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IncrementalError {
    /// It does not begin as one.
    Magic {
        /// What it begins with.
        found: u32,
    },
    /// It ends in its header.
    Truncated {
        /// Bytes that the header needs.
        needed: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The blocks that the header names do not take up the rest of the file, whatever the size of a block.
    Size {
        /// Blocks by the header.
        blocks: u32,
        /// Bytes of the file.
        found: u64,
    },
    /// The numbers of its blocks do not ascend.
    Order {
        /// A number.
        number: u32,
        /// The one before it.
        previous: u32,
    },
}

impl fmt::Display for IncrementalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IncrementalError::Magic { found } => write!(f, "it begins with 0x{found:08x}: expected 0x{MAGIC:08x}"),
            IncrementalError::Truncated { needed, found } => write!(f, "its header needs {needed} bytes, and it has {found}"),
            IncrementalError::Size { blocks, found } => write!(f, "it should have {blocks} blocks, which do not fit its {found} bytes"),
            IncrementalError::Order { number, previous } => write!(f, "block {number} comes after block {previous}"),
        }
    }
}

impl std::error::Error for IncrementalError {}

impl IncrementalFile {
    /// Whether a file of this path is one.
    pub fn is_path(path: &[u8]) -> bool {
        path.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.starts_with(PREFIX))
    }

    /// Reads the header from the start of a file of `size` bytes, and appends what was read to `head`. The inner error is about the content.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(mut file: impl Read, size: u64, head: &mut Vec<u8>) -> io::Result<Result<IncrementalFile, IncrementalError>> {
        let start = head.len();
        file.by_ref().take(FIXED as u64).read_to_end(head)?;
        let number = |head: &[u8], at: usize| {
            let bytes = head.get(start + at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map(|bytes| u32::from_ne_bytes(*bytes))
        };
        let (Some(magic), Some(blocks), Some(truncation_length)) = (number(head, 0), number(head, 4), number(head, 8)) else {
            return Ok(Err(IncrementalError::Truncated { needed: FIXED as u64, found: (head.len() - start) as u64 }));
        };
        if magic != MAGIC {
            return Ok(Err(IncrementalError::Magic { found: magic }));
        }
        let needed = FIXED as u64 + 4 * u64::from(blocks);
        // Without blocks nothing follows; else the header is padded to a whole block.
        let fits = |block: &u64| size == needed.next_multiple_of(*block) + u64::from(blocks) * block;
        if !(blocks == 0 && size == needed || blocks > 0 && BLOCK_SIZES.iter().any(fits)) {
            return Ok(Err(IncrementalError::Size { blocks, found: size }));
        }
        // As long as the file, which it fits.
        file.take(4 * u64::from(blocks)).read_to_end(head)?;
        let found = (head.len() - start) as u64;
        if found < needed {
            return Ok(Err(IncrementalError::Truncated { needed, found }));
        }
        let mut previous = None;
        for bytes in head.get(start + FIXED..).unwrap_or_default().chunks_exact(4) {
            let number = bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
            if let Some(previous) = previous.filter(|&previous| previous >= number) {
                return Ok(Err(IncrementalError::Order { number, previous }));
            }
            previous = Some(number);
        }
        Ok(Ok(IncrementalFile { blocks, truncation_length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(blocks: &[u32], block_size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [MAGIC, blocks.len() as u32, 100].into_iter().chain(blocks.iter().copied()) {
            bytes.extend(number.to_ne_bytes());
        }
        if !blocks.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(block_size) + blocks.len() * block_size, 0);
        }
        bytes
    }

    fn read(bytes: &[u8], size: u64) -> Result<IncrementalFile, IncrementalError> {
        let mut head = vec![1, 2, 3];
        let result = IncrementalFile::read(bytes, size, &mut head).unwrap();
        assert_eq!(head[..3], [1, 2, 3]);
        assert!(bytes.starts_with(&head[3..]));
        result
    }

    #[test]
    fn headers_of_every_block_size() {
        assert_eq!(read(&file(&[], 8192), 12), Ok(IncrementalFile { blocks: 0, truncation_length: 100 }));
        let many: Vec<u32> = (0..3000).map(|number| 2 * number).collect();
        for size in [1024, 8192, 32768] {
            for blocks in [&[0][..], &[3, 7, 8], &many] {
                let bytes = file(blocks, size);
                let expected = IncrementalFile { blocks: blocks.len() as u32, truncation_length: 100 };
                assert_eq!(read(&bytes, bytes.len() as u64), Ok(expected));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = file(&[3, 7], 8192);
        let size = good.len() as u64;
        for len in 0..20 {
            let error = read(&good[..len], size).unwrap_err();
            assert!(matches!(error, IncrementalError::Truncated { found, .. } if found == len as u64), "{len}: {error}");
        }
        assert_eq!(read(&good, size - 1), Err(IncrementalError::Size { blocks: 2, found: size - 1 }));
        assert_eq!(read(&file(&[], 1), 13), Err(IncrementalError::Size { blocks: 0, found: 13 }));
        assert_eq!(read(&file(&[7, 3], 8192), size), Err(IncrementalError::Order { number: 3, previous: 7 }));
        assert_eq!(read(&file(&[7, 7], 8192), size), Err(IncrementalError::Order { number: 7, previous: 7 }));
        let mut other = good;
        other[0] ^= 1;
        assert!(matches!(read(&other, size), Err(IncrementalError::Magic { .. })));
        // No memory is taken for blocks that are not there.
        other[0] ^= 1;
        other[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(read(&other, size), Err(IncrementalError::Size { blocks: u32::MAX, found: size }));
    }

    #[test]
    fn paths() {
        assert!(IncrementalFile::is_path(b"base/1/INCREMENTAL.1249") && IncrementalFile::is_path(b"INCREMENTAL.1"));
        assert!(!IncrementalFile::is_path(b"base/1/1249") && !IncrementalFile::is_path(b"INCREMENTAL.1/x"));
    }
}
