//! BRIN, resource manager 17. C: access/brin_xlog.h; text: rmgrdesc/brindesc.c, the same in every major.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::Text;
use crate::types::{BlockNumber, OffsetNumber};
use crate::wire::{Bytes, Pad, Parsed, Wire, WireError, bytes, rest};

/// Record types. C: `XLOG_BRIN_CREATE_INDEX` and its like; `+INIT` is `XLOG_BRIN_INIT_PAGE`: the tuple is the first of a new page.
pub const OPCODES: &[Opcode] = &[
    op(0x00, "CREATE_INDEX", Majors::ALL),
    op(0x10, "INSERT", Majors::ALL),
    op(0x90, "INSERT+INIT", Majors::ALL),
    op(0x20, "UPDATE", Majors::ALL),
    op(0xA0, "UPDATE+INIT", Majors::ALL),
    op(0x30, "SAMEPAGE_UPDATE", Majors::ALL),
    op(0x40, "REVMAP_EXTEND", Majors::ALL),
    op(0x50, "DESUMMARIZE", Majors::ALL),
];

/// Bits that tell the record types apart. C: `XLOG_BRIN_OPMASK`.
const OPMASK: u8 = 0x70;

wire_flags! {
    /// Flags of an index tuple, without the offset in the lower five bits. C: `bt_info` of `BrinTuple`, access/brin_tuple.h.
    pub struct TupleFlags: u8 {
        /// No row is in the range. From 11 on, in minor versions since May 2023.
        BRIN_EMPTY_RANGE_MASK = 0x20,
        /// The range is being summarized: the tuple keeps its place.
        BRIN_PLACEHOLDER_MASK = 0x40,
        /// A null bitmap follows the header.
        BRIN_NULLS_MASK = 0x80,
    }
}

/// Summary of a range of heap pages. C: `BrinTuple`, access/brin_tuple.h.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BrinTuple<'a> {
    /// First heap page of the range. C: `bt_blkno`.
    pub heap_block: BlockNumber,
    /// Flags. C: `bt_info`.
    pub flags: TupleFlags,
    /// What stands between the header and the values: two bits per attribute where the flags say so (all null, has nulls; set
    /// means null), then padding. With the 5 bytes of the header, its length is the offset in `bt_info`.
    pub nulls: Bytes<'a>,
    /// Values of the attributes, as each operator class keeps them.
    pub data: Bytes<'a>,
}

impl<'a> BrinTuple<'a> {
    /// Bytes of the header. C: `SizeOfBrinTuple`.
    const HEADER: usize = 5;
    /// Where the values start. C: `BRIN_OFFSET_MASK`.
    const OFFSET_MASK: u8 = 0x1F;
}

/// The tuple reaches to the end of the bytes.
impl<'a> Wire<'a> for BrinTuple<'a> {
    fn read(i: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (at, heap_block) = BlockNumber::read(i, fmt).map_err(|e| e.in_field("BrinTuple.bt_blkno"))?;
        let (i, info) = u8::read(at, fmt).map_err(|e| e.in_field("BrinTuple.bt_info"))?;
        let offset = info & Self::OFFSET_MASK;
        let Some(nulls) = usize::from(offset).checked_sub(Self::HEADER) else {
            return Err(WireError::invalid(at, "BrinTuple.bt_info", "an offset of at least 5", offset.into()));
        };
        let (i, nulls) = bytes(i, nulls, "BrinTuple (nulls)")?;
        let (i, data) = rest(i)?;
        Ok((i, BrinTuple { heap_block, flags: TupleFlags(info & !Self::OFFSET_MASK), nulls: Bytes(nulls), data: Bytes(data) }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.heap_block.write(fmt, out);
        let offset = (Self::HEADER + self.nulls.len()) as u8 & Self::OFFSET_MASK; // was read as such
        (self.flags.0 | offset).write(fmt, out);
        out.extend_from_slice(self.nulls.0);
        out.extend_from_slice(self.data.0);
    }
}

wire_struct! {
    /// A new index; block 0 is its metapage. C: `xl_brin_createidx`, 6 bytes.
    pub struct CreateIndex("xl_brin_createidx") {
        /// Heap pages that one tuple summarizes.
        pages_per_range: BlockNumber,
        /// Version of the index format.
        version: u16,
    }
}

wire_struct! {
    /// Fixed part of INSERT. C: `xl_brin_insert`, 10 bytes.
    pub struct InsertHead("xl_brin_insert") {
        /// First heap page of the range.
        heap_block: BlockNumber,
        /// Heap pages that one tuple summarizes.
        pages_per_range: BlockNumber,
        /// Line pointer of the new tuple.
        offnum: OffsetNumber,
    }
}

/// A summary of a range that had none. Block 0 is its page, block 1 the page of the range map that points there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Insert<'a> {
    /// Fixed part.
    pub head: InsertHead,
    /// The tuple, data of block 0; `None` where an image of the page stands for it.
    pub tuple: Option<BrinTuple<'a>>,
}
json_object!(Insert<'_> { ..head, tuple });

wire_struct! {
    /// Fixed part of UPDATE. C: `xl_brin_update`, 14 bytes.
    pub struct UpdateHead("xl_brin_update") {
        /// Line pointer of the old tuple on the page of block 2. C: `oldOffnum`.
        old_offnum: OffsetNumber,
        /// Padding.
        pad: Pad<2>,
        /// The new tuple's place.
        insert: InsertHead,
    }
}

/// A summary that moves to another page. Block 0 is the new page, block 1 the page of the range map, block 2 the old page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update<'a> {
    /// Fixed part.
    pub head: UpdateHead,
    /// The tuple, data of block 0; `None` where an image of the page stands for it.
    pub tuple: Option<BrinTuple<'a>>,
}
json_object!(Update<'_> { ..head, tuple });

/// A summary that stays where it is, on the page of block 0. C: `xl_brin_samepage_update`, 2 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SamepageUpdate<'a> {
    /// Line pointer of the tuple.
    pub offnum: OffsetNumber,
    /// The tuple, data of block 0; `None` where an image of the page stands for it.
    pub tuple: Option<BrinTuple<'a>>,
}

wire_struct! {
    /// A new page of the range map, block 1; block 0 is the metapage, which counts them. C: `xl_brin_revmap_extend`, 4 bytes.
    pub struct RevmapExtend("xl_brin_revmap_extend") {
        /// Number of the page, which block 1 has too.
        target_block: BlockNumber,
    }
}

wire_struct! {
    /// The summary of a range is removed. Block 0 is the page of the range map, block 1 that of the tuple.
    /// C: `xl_brin_desummarize`, 10 bytes.
    pub struct Desummarize("xl_brin_desummarize") {
        /// Heap pages that one tuple summarizes.
        pages_per_range: BlockNumber,
        /// First heap page of the range.
        heap_block: BlockNumber,
        /// Line pointer of the tuple. C: `regOffset`.
        offnum: OffsetNumber,
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// CREATE_INDEX.
    CreateIndex(CreateIndex),
    /// INSERT, INSERT+INIT.
    Insert(Insert<'a>),
    /// UPDATE, UPDATE+INIT.
    Update(Update<'a>),
    /// SAMEPAGE_UPDATE.
    SamepageUpdate(SamepageUpdate<'a>),
    /// REVMAP_EXTEND.
    RevmapExtend(RevmapExtend),
    /// DESUMMARIZE.
    Desummarize(Desummarize),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let tuple = || rec.parse_block_or_image("BrinTuple", 0, |i| BrinTuple::read(i, fmt));
    let op = match rec.info().opcode() & OPMASK {
        0x00 => Op::CreateIndex(rec.parse_all("xl_brin_createidx", rec.main, |i| CreateIndex::read(i, fmt))?),
        0x10 => {
            let head = rec.parse_all("xl_brin_insert", rec.main, |i| InsertHead::read(i, fmt))?;
            Op::Insert(Insert { head, tuple: tuple()? })
        }
        0x20 => {
            let head = rec.parse_all("xl_brin_update", rec.main, |i| UpdateHead::read(i, fmt))?;
            Op::Update(Update { head, tuple: tuple()? })
        }
        0x30 => {
            let offnum = rec.parse_all("xl_brin_samepage_update.offnum", rec.main, |i| OffsetNumber::read(i, fmt))?;
            Op::SamepageUpdate(SamepageUpdate { offnum, tuple: tuple()? })
        }
        0x40 => Op::RevmapExtend(rec.parse_all("xl_brin_revmap_extend", rec.main, |i| RevmapExtend::read(i, fmt))?),
        0x50 => Op::Desummarize(rec.parse_all("xl_brin_desummarize", rec.main, |i| Desummarize::read(i, fmt))?),
        _ => return Ok(None),
    };
    let with_data: &[u8] = match op {
        Op::Insert(_) | Op::Update(_) | Op::SamepageUpdate(_) => &[0],
        Op::CreateIndex(_) | Op::RevmapExtend(_) | Op::Desummarize(_) => &[],
    };
    rec.only_block_data("BRIN", with_data)?;
    Ok(Some(op))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        let out = &mut body.main;
        let tuple = match self {
            Op::CreateIndex(create) => return create.write(fmt, out),
            Op::RevmapExtend(extend) => return extend.write(fmt, out),
            Op::Desummarize(desummarize) => return desummarize.write(fmt, out),
            Op::Insert(insert) => {
                insert.head.write(fmt, out);
                insert.tuple
            }
            Op::Update(update) => {
                update.head.write(fmt, out);
                update.tuple
            }
            Op::SamepageUpdate(update) => {
                update.offnum.write(fmt, out);
                update.tuple
            }
        };
        if let Some(tuple) = tuple {
            tuple.write(fmt, body.block(0));
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        match self {
            Op::CreateIndex(create) => put!(out, "v", create.version, " pagesPerRange ", create.pages_per_range),
            Op::Insert(Insert { head, .. }) => {
                put!(out, "heapBlk ", head.heap_block, " pagesPerRange ", head.pages_per_range, " offnum ", head.offnum);
            }
            Op::Update(Update { head: UpdateHead { old_offnum, insert, .. }, .. }) => {
                put!(out, "heapBlk ", insert.heap_block, " pagesPerRange ", insert.pages_per_range);
                put!(out, " old offnum ", old_offnum, ", new offnum ", insert.offnum);
            }
            Op::SamepageUpdate(update) => put!(out, "offnum ", update.offnum),
            Op::RevmapExtend(extend) => put!(out, "targetBlk ", extend.target_block),
            Op::Desummarize(d) => {
                put!(out, "pagesPerRange ", d.pages_per_range, ", heapBlk ", d.heap_block, ", page offset ", d.offnum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rmgr::testing::{Rec, le};

    fn rec<'a>(info: u8, main: &'a [u8], blocks: &'a [(u8, &'a [u8])]) -> Rec<'a> {
        Rec { major: 14, rmid: 17, info, main, blocks, ..Rec::default() }
    }

    /// Header, one byte of bitmap, two of padding, no values.
    const PLACEHOLDER: [u8; 8] = [7, 0, 0, 0, 0xE8, 1, 0, 0];

    #[test]
    fn records_without_a_tuple() {
        rec(0x00, &le![128u32, 1u16], &[(0, &[])]).check("v1 pagesPerRange 128", &[]);
        rec(0x40, &le![3u32], &[(0, &[]), (1, &[])]).check("targetBlk 3", &[]);
        rec(0x50, &le![128u32, 256u32, 9u16], &[(0, &[]), (1, &[])]).check("pagesPerRange 128, heapBlk 256, page offset 9", &[]);
        let unexpected = rec(0x40, &[3, 0, 0, 0], &[(1, b"x")]).parse().unwrap_err();
        assert_eq!(unexpected.kind().to_string(), "1 byte left over after BRIN");
    }

    #[test]
    fn records_with_a_tuple() {
        let insert = le![7u32, 128u32, 65535u16];
        for info in [0x10, 0x90] {
            rec(info, &insert, &[(0, &PLACEHOLDER), (1, &[])]).check("heapBlk 7 pagesPerRange 128 offnum 65535", &[]);
        }
        let update = le![11u16, 0xAAAAu16, 7u32, 128u32, 12u16];
        for info in [0x20, 0xA0] {
            let expected = "heapBlk 7 pagesPerRange 128 old offnum 11, new offnum 12";
            rec(info, &update, &[(0, &PLACEHOLDER), (1, &[]), (2, &[])]).check(expected, &[]);
        }
        rec(0x30, &le![5u16], &[(0, &PLACEHOLDER)]).check("offnum 5", &[]);
    }

    #[test]
    fn a_tuple_ends_in_its_values() {
        let parse = |tuple: &[u8]| rec(0x30, &[5, 0], &[(0, tuple)]).parse();
        let text = parse(&[&PLACEHOLDER[..], b"values"].concat()).unwrap().unwrap();
        let expected = "BrinTuple { heap_block: BlockNumber(7), flags: TupleFlags(224), nulls: 010000, data: 76616c756573 }";
        assert!(text.contains(expected), "{text}");
        let no_offset = parse(&[7, 0, 0, 0, 0x84]).unwrap_err();
        assert_eq!(no_offset.kind().to_string(), "BrinTuple.bt_info: expected an offset of at least 5, found 4");
        let beyond = parse(&[7, 0, 0, 0, 0x88, 0]).unwrap_err();
        assert_eq!(beyond.kind().to_string(), "BrinTuple (nulls): 2 more bytes needed");
    }

    #[test]
    fn the_init_bit_does_not_change_the_description() {
        // Only INSERT and UPDATE have a name with it, but every record is described.
        let text = rec(0x80, &le![128u32, 1u16], &[]).parse().unwrap().unwrap();
        assert!(text.contains("CreateIndex"), "{text}");
    }
}
