//! The parts of records as most are: block references without page images, short main data, nothing else.
//!
//! Counting needs so little of them that decoding would be most of the work. Whatever is unusual or wrong is left to
//! [`RawRecord::decode`](crate::RawRecord::decode), which this never contradicts.

use crate::record::RECORD_HEADER_SIZE;
use crate::types::{Oid, RelFileLocator};

/// What counting needs of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain<'r> {
    /// Relation of the first block reference.
    pub(super) relation: Option<RelFileLocator>,
    /// Main data.
    pub(super) main: &'r [u8],
}

/// C: `XLR_BLOCK_ID_DATA_SHORT`.
const ID_DATA_SHORT: u8 = 255;
/// C: `XLR_MAX_BLOCK_ID`.
const MAX_BLOCK_ID: u8 = 32;
/// C: `BKPBLOCK_HAS_IMAGE`, `BKPBLOCK_HAS_DATA`, `BKPBLOCK_SAME_REL`.
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const SAME_REL: u8 = 0x80;

/// Reads a whole record; `None`: it is not a plain one, or not a good one.
#[inline]
pub(super) fn plain(record: &[u8]) -> Option<Plain<'_>> {
    let mut input = record.get(RECORD_HEADER_SIZE..)?;
    let mut relation = None;
    let mut next_id = 0;
    // Bytes of block data that the headers read so far speak of.
    let mut data = 0;
    while input.len() > data {
        match input {
            [ID_DATA_SHORT, len, rest @ ..] => {
                let main = rest.get(data..).filter(|main| main.len() == usize::from(*len))?;
                return Some(Plain { relation, main });
            }
            [id, flags, low, high, rest @ ..] if (next_id..=MAX_BLOCK_ID).contains(id) && flags & HAS_IMAGE == 0 => {
                let len = u16::from_le_bytes([*low, *high]);
                if (flags & HAS_DATA != 0) != (len > 0) {
                    return None;
                }
                (next_id, data) = (id + 1, data + usize::from(len)); // at most 33 blocks
                let rest = match flags & SAME_REL {
                    0 => {
                        let (rel, rest) = rest.split_first_chunk::<12>()?;
                        let oid = |at: usize| Oid(u32::from_le_bytes([rel[at], rel[at + 1], rel[at + 2], rel[at + 3]])); // at + 3 < 12
                        relation.get_or_insert(RelFileLocator { spc: oid(0), db: oid(4), rel: oid(8) });
                        rest
                    }
                    _ => {
                        relation?;
                        rest
                    }
                };
                input = rest.get(4..)?; // BlockNumber
            }
            _ => return None,
        }
    }
    (input.len() == data).then_some(Plain { relation, main: &[] })
}
