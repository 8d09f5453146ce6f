//! The parts of records as most are: block references without page images, short main data, nothing else.
//!
//! Who counts or checks millions of records needs so little of these that decoding them would be most of the work. Whatever is
//! unusual or wrong is left to [`RawRecord::decode`](crate::RawRecord::decode), which this never contradicts.

use super::{BlockFlags, ID_DATA_SHORT, MAX_BLOCK_ID, RECORD_HEADER_SIZE};
use crate::types::{Oid, RelFileLocator};

/// What can be had of a record at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain<'r> {
    /// Relation of the first block reference.
    pub(crate) relation: Option<RelFileLocator>,
    /// Data of block reference 0; empty where it has none, or there is no such block.
    pub(crate) data: &'r [u8],
    /// Another block reference has data.
    pub(crate) has_other_data: bool,
    /// Main data.
    pub(crate) main: &'r [u8],
    /// The record's last eight bytes.
    pub(crate) last: u64,
}

impl Plain<'_> {
    /// Reads a whole record; `None`: it is not a plain one, or not a good one.
    #[inline(always)]
    pub(crate) fn read(record: &[u8]) -> Option<Plain<'_>> {
        let last = u64::from_le_bytes(*record.last_chunk()?);
        let input = record.get(RECORD_HEADER_SIZE..)?;
        match input {
            // Of those most have one block, whose header is twenty bytes, each in its place.
            &[0, flags, low, high, s0, s1, s2, s3, d0, d1, d2, d3, r0, r1, r2, r3, _, _, _, _, ID_DATA_SHORT, main_len, ref rest @ ..]
                if flags & (BlockFlags::BKPBLOCK_HAS_IMAGE.0 | BlockFlags::BKPBLOCK_SAME_REL.0) == 0 =>
            {
                let len = u16::from_le_bytes([low, high]);
                let (data, main) = rest.split_at_checked(len.into())?;
                let is_whole = (flags & BlockFlags::BKPBLOCK_HAS_DATA.0 != 0) == (len > 0) && main.len() == usize::from(main_len);
                let oid = |bytes| Oid(u32::from_le_bytes(bytes));
                let rel = RelFileLocator { spc: oid([s0, s1, s2, s3]), db: oid([d0, d1, d2, d3]), rel: oid([r0, r1, r2, r3]) };
                is_whole.then_some(Plain { relation: Some(rel), data, has_other_data: false, main, last })
            }
            // Or they have none.
            [ID_DATA_SHORT, len, main @ ..] => (main.len() == usize::from(*len)).then(|| Plain::new(None, &[], 0, main, last)),
            _ => Plain::read_parts(input, last),
        }
    }

    /// The same with any number of blocks.
    #[inline(never)]
    fn read_parts(mut input: &[u8], last: u64) -> Option<Plain<'_>> {
        let mut relation = None;
        let mut next_id = 0;
        let mut first_len = 0;
        // Bytes of block data that the headers read so far speak of.
        let mut data = 0;
        while input.len() > data {
            match input {
                [ID_DATA_SHORT, len, rest @ ..] => {
                    let (data, main) = rest.split_at_checked(data)?;
                    let is_whole = main.len() == usize::from(*len);
                    return is_whole.then(|| Plain::new(relation, data, first_len, main, last));
                }
                [id, flags, low, high, rest @ ..]
                    if (next_id..=MAX_BLOCK_ID).contains(id) && flags & BlockFlags::BKPBLOCK_HAS_IMAGE.0 == 0 =>
                {
                    let len = u16::from_le_bytes([*low, *high]);
                    if (flags & BlockFlags::BKPBLOCK_HAS_DATA.0 != 0) != (len > 0) {
                        return None;
                    }
                    if *id == 0 {
                        first_len = usize::from(len);
                    }
                    (next_id, data) = (id + 1, data + usize::from(len)); // at most 33 blocks
                    let rest = if flags & BlockFlags::BKPBLOCK_SAME_REL.0 == 0 {
                        let (&[s0, s1, s2, s3, d0, d1, d2, d3, r0, r1, r2, r3], rest) = rest.split_first_chunk()?;
                        let oid = |bytes| Oid(u32::from_le_bytes(bytes));
                        let (spc, db, rel) = (oid([s0, s1, s2, s3]), oid([d0, d1, d2, d3]), oid([r0, r1, r2, r3]));
                        relation.get_or_insert(RelFileLocator { spc, db, rel });
                        rest
                    } else {
                        relation?;
                        rest
                    };
                    input = rest.get(4..)?; // BlockNumber
                }
                _ => return None,
            }
        }
        (input.len() == data).then(|| Plain::new(relation, input, first_len, &[], last))
    }

    /// `data` is that of all blocks, the one of block 0 first, which has `first_len` bytes.
    #[inline]
    fn new<'r>(relation: Option<RelFileLocator>, data: &'r [u8], first_len: usize, main: &'r [u8], last: u64) -> Plain<'r> {
        let (first, others) = data.split_at_checked(first_len).unwrap_or_default(); // it is a part of the sum
        Plain { relation, data: first, has_other_data: !others.is_empty(), main, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordHeader;
    use crate::{Segment, records, rmgr};
    use pgwal_testkit::fixtures;

    /// What is taken for plain and right is what decoding says, for the records of all fixtures and for what damage makes of them.
    #[test]
    fn never_contradicts_decoding() {
        let (mut plains, mut rights, mut at_a_glance, mut damaged) = (0, 0, 0, 0);
        for fixture in fixtures::with_odd() {
            let segments: Vec<Segment> = fixture.segments().iter().map(|path| Segment::open(path).unwrap()).collect();
            let mut number = 0_usize;
            for raw in records(&segments) {
                let Ok(raw) = raw else { break };
                number += 1;
                let mut check = |raw: &crate::RawRecord<'_>| {
                    // Whatever stands behind a short record.
                    for behind in [0, 8, 255] {
                        let mut front = [behind; _];
                        front.iter_mut().zip(raw.bytes.iter()).for_each(|(place, byte)| *place = *byte);
                        let last = u64::from_le_bytes(*raw.bytes.last_chunk().unwrap());
                        if raw.header.tot_len as usize == raw.bytes.len() && rmgr::Rules::of(raw.fmt).allow_record(&front, last) {
                            at_a_glance += 1;
                            assert!(raw.decode().unwrap().payload().is_ok(), "{raw:?}");
                            assert_eq!(raw.header.padding, 0);
                        }
                    }
                    let Some(plain) = Plain::read(&raw.bytes) else { return };
                    let record = raw.decode().unwrap();
                    assert_eq!(record.blocks.first().map(|block| block.rel), plain.relation);
                    assert_eq!(record.main, plain.main);
                    assert_eq!(record.block_data(0).unwrap_or_default(), plain.data);
                    assert_eq!(record.blocks.iter().any(|block| block.id > 0 && block.has_data()), plain.has_other_data);
                    plains += 1;
                    if rmgr::is_right(&raw.header, &plain, raw.fmt) {
                        rights += 1;
                        assert!(record.payload().is_ok(), "{raw:?}");
                    }
                };
                check(&raw);
                // The first ones are of all kinds, and the later ones much like them.
                if number > 400 && !number.is_multiple_of(50) || raw.bytes.len() > 300 {
                    continue;
                }
                for at in (16..20).chain(RECORD_HEADER_SIZE..raw.bytes.len()) {
                    for bit in 0..8 {
                        let mut raw = raw.clone();
                        raw.bytes.to_mut()[at] ^= 1 << bit;
                        raw.header = RecordHeader::from_bytes(raw.bytes.first_chunk().unwrap());
                        check(&raw);
                        damaged += 1;
                    }
                }
                for len in RECORD_HEADER_SIZE..raw.bytes.len() {
                    let mut raw = raw.clone();
                    raw.bytes.to_mut().truncate(len);
                    check(&raw);
                    damaged += 1;
                }
            }
        }
        let counts = format!("{plains} plain, {rights} right, {at_a_glance} at a glance, {damaged} damaged");
        assert!(rights > 100_000 && plains > rights && at_a_glance > 100_000 && damaged > 100_000, "{counts}");
    }
}
