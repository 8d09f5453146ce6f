//! GiST, resource manager 14. C: access/gistxlog.h; text: rmgrdesc/gistdesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, letter, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::index_tuple::IndexTuple;
use crate::lsn::Lsn;
use crate::record::Record;
use crate::text::Text;
use crate::types::{BlockNumber, FullXid, OffsetNumber, RelFileLocator, Xid};
use crate::wire::{Array, CBool, List, Pad, Since, Until, Wire, array, list};

/// Record types.
pub const OPCODES: &[Opcode] = &[
    op(0x00, "PAGE_UPDATE", Majors::ALL),
    op(0x10, "DELETE", Majors::since(12)),
    op(0x20, "PAGE_REUSE", Majors::since(12)),
    op(0x30, "PAGE_SPLIT", Majors::ALL),
    op(0x50, "CREATE_INDEX", Majors::until(11)),
    op(0x60, "PAGE_DELETE", Majors::since(12)),
    op(0x70, "ASSIGN_LSN", Majors::between(13, 18)),
];

wire_struct! {
    /// Fixed part of PAGE_UPDATE, 4 bytes. C: `gistxlogPageUpdate`.
    pub struct PageUpdateHead("gistxlogPageUpdate") {
        /// Line pointers deleted.
        nto_delete: u16,
        /// Tuples added.
        nto_insert: u16,
    }
}

/// Tuples are deleted from a page, block 0, and added to it. C: `gistxlogPageUpdate`.
///
/// Block 1 is the left half of an earlier split that this one finishes, where there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PageUpdate<'a> {
    /// Fixed part of the main data.
    pub head: PageUpdateHead,
    /// What the deletion is checked against on a standby. Only up to 11 (from 10.7 and 11.2 on), where dead tuples are deleted to
    /// make room; 12 has DELETE for it.
    pub conflict: Until<11, Conflict<'a>>,
    /// Data of block 0; `None` where an image of the page stands for it.
    pub change: Option<PageChange<'a>>,
}
json_object!(PageUpdate<'_> { ..head, conflict, change });

/// Tuples whose heap tuples a standby looks up to find queries that still need them. C: what follows `gistxlogPageUpdate`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Conflict<'a> {
    /// The index's table.
    pub heap: RelFileLocator,
    /// Line pointers deleted, as in the data of block 0.
    pub delete: Array<'a, OffsetNumber>,
}

/// What a PAGE_UPDATE does to the page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PageChange<'a> {
    /// Line pointers deleted.
    pub delete: Array<'a, OffsetNumber>,
    /// Tuples added after the others.
    pub insert: List<'a, IndexTuple<'a>>,
}

wire_struct! {
    /// Fixed part of DELETE: 6 bytes, 8 with padding from 16 on. C: `gistxlogDelete`.
    pub struct DeleteHead("gistxlogDelete") {
        /// Newest transaction among the deleted tuples; queries on a standby that see older rows are cancelled.
        /// C: `snapshotConflictHorizon`, `latestRemovedXid` before 16.
        snapshot_conflict_horizon: Xid,
        /// Line pointers deleted.
        nto_delete: u16,
        /// The table is a catalog, to logical decoding. C: `isCatalogRel`.
        is_catalog_rel: Since<16, CBool>,
        /// Padding.
        pad: Since<16, Pad<1>>,
    }
}

/// Dead tuples are deleted from a leaf page, block 0, to make room. C: `gistxlogDelete`. From 12 on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delete<'a> {
    /// Fixed part.
    pub head: DeleteHead,
    /// Line pointers deleted.
    pub offsets: Array<'a, OffsetNumber>,
}
json_object!(Delete<'_> { ..head, offsets });

wire_struct! {
    /// A deleted page is used again; only a point of conflict for queries on a standby. C: `gistxlogPageReuse`: 24 bytes, 25 from
    /// 16 on. From 12 on.
    pub struct PageReuse("gistxlogPageReuse") {
        /// The index. C: `locator`, `node` before 16.
        rel: RelFileLocator,
        /// The page.
        block: BlockNumber,
        /// Newest transaction that could still come to the deleted page. C: `snapshotConflictHorizon`, `latestRemovedFullXid`
        /// before 16.
        snapshot_conflict_horizon: FullXid,
        /// The table is a catalog, to logical decoding. C: `isCatalogRel`.
        is_catalog_rel: Since<16, CBool>,
    }
}

wire_struct! {
    /// Fixed part of PAGE_SPLIT, 24 bytes with padding. C: `gistxlogPageSplit`.
    pub struct PageSplitHead("gistxlogPageSplit") {
        /// Right link of the page before the split. C: `origrlink`.
        orig_right_link: BlockNumber,
        /// Padding.
        pad: Pad<4>,
        /// Node sequence number of the page before the split: the position of the last split of it. C: `orignsn`.
        orig_nsn: Lsn,
        /// The page is a leaf. C: `origleaf`.
        orig_leaf: CBool,
        /// Padding.
        pad_npage: Pad<1>,
        /// Pages that the split makes of one.
        npages: u16,
        /// The new pages are marked as not yet in the parent. C: `markfollowright`.
        mark_follow_right: CBool,
        /// Padding.
        pad_end: Pad<3>,
    }
}

/// Split of a page into several: blocks 1 to `npage`, of which 1 is the page itself. C: `gistxlogPageSplit`.
///
/// Block 0 is the left half of an earlier split that this one finishes, where there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSplit<'a> {
    /// Main data.
    pub head: PageSplitHead,
    /// All tuples of each page, from block 1 on. On disk, a 4-byte count goes before each list.
    pub pages: Vec<List<'a, IndexTuple<'a>>>,
}
json_object!(PageSplit<'_> { ..head, pages });

wire_struct! {
    /// An empty page, block 0, is deleted, and its downlink in the parent, block 1. C: `gistxlogPageDelete`, 10 bytes. From 12 on.
    pub struct PageDelete("gistxlogPageDelete") {
        /// Newest transaction that could still come to the page. C: `deleteXid`.
        delete_xid: FullXid,
        /// Line pointer of the downlink. C: `downlinkOffset`.
        downlink_offset: OffsetNumber,
    }
}

wire_struct! {
    /// Does nothing but take up a place in the WAL, whose LSN stands in a page. The record must have content: C: an `int`, 0.
    /// 13 to 18; from 19 on the XLOG resource manager has such a record.
    pub struct AssignLsn("XLOG_GIST_ASSIGN_LSN") {
        /// Zero.
        dummy: i32,
    }
}

/// A record of this resource manager.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// Tuples deleted and added.
    PageUpdate(PageUpdate<'a>),
    /// Dead tuples deleted. From 12 on.
    Delete(Delete<'a>),
    /// A deleted page used again. From 12 on.
    PageReuse(PageReuse),
    /// A page split.
    PageSplit(PageSplit<'a>),
    /// An empty index: its root, block 0. Up to 11.
    CreateIndex,
    /// A page deleted. From 12 on.
    PageDelete(PageDelete),
    /// A place in the WAL. 13 to 18.
    AssignLsn(AssignLsn),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let op = match (rec.info().opcode(), fmt.major) {
        (0x00, _) => {
            let (head, conflict) = rec.parse_all("gistxlogPageUpdate", rec.main, |i| {
                let (i, head) = PageUpdateHead::read(i, fmt)?;
                if i.is_empty() || fmt.since(12) {
                    return Ok((i, (head, Until(None))));
                }
                let (i, heap) = RelFileLocator::read(i, fmt)?;
                let (i, delete) = array(i, head.nto_delete, fmt, "gistxlogPageUpdate.todelete")?;
                Ok((i, (head, Until(Some(Conflict { heap, delete })))))
            })?;
            let change = rec.parse_block_or_image("gistxlogPageUpdate", 0, |i| {
                let (i, delete) = array(i, head.nto_delete, fmt, "gistxlogPageUpdate.todelete")?;
                let (i, insert) = list(i, head.nto_insert, fmt, "IndexTupleData")?;
                Ok((i, PageChange { delete, insert }))
            })?;
            Op::PageUpdate(PageUpdate { head, conflict, change })
        }
        (0x10, 12..) => {
            let delete = rec.parse_all("gistxlogDelete", rec.main, |i| {
                let (i, head) = DeleteHead::read(i, fmt)?;
                let (i, offsets) = array(i, head.nto_delete, fmt, "gistxlogDelete.offsets")?;
                Ok((i, Delete { head, offsets }))
            })?;
            Op::Delete(delete)
        }
        (0x20, 12..) => Op::PageReuse(rec.parse_all("gistxlogPageReuse", rec.main, |i| PageReuse::read(i, fmt))?),
        (0x30, _) => Op::PageSplit(parse_split(rec, fmt)?),
        (0x50, ..=11) => {
            rec.parse_all("XLOG_GIST_CREATE_INDEX", rec.main, |i| Ok((i, ())))?;
            Op::CreateIndex
        }
        (0x60, 12..) => Op::PageDelete(rec.parse_all("gistxlogPageDelete", rec.main, |i| PageDelete::read(i, fmt))?),
        (0x70, 13..=18) => Op::AssignLsn(rec.parse_all("XLOG_GIST_ASSIGN_LSN", rec.main, |i| AssignLsn::read(i, fmt))?),
        _ => return Ok(None),
    };
    let with_data: &[u8] = match &op {
        Op::PageUpdate(_) => &[0],
        Op::PageSplit(split) => SPLIT_BLOCKS.get(..split.pages.len()).unwrap_or(SPLIT_BLOCKS),
        _ => &[],
    };
    rec.only_block_data("GiST record", with_data)?;
    Ok(Some(op))
}

/// Block references that a split can have for its pages: from 1 to `XLR_MAX_BLOCK_ID`.
const SPLIT_BLOCKS: &[u8] =
    &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32];

fn parse_split<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<PageSplit<'r>> {
    let head = rec.parse_all("gistxlogPageSplit", rec.main, |i| PageSplitHead::read(i, fmt))?;
    let mut pages = Vec::new();
    // A block that is not there ends this with an error: the count alone makes nothing grow.
    for id in 1..=head.npages {
        let data = u8::try_from(id).ok().and_then(|id| rec.block_data(id)).unwrap_or_default();
        pages.push(rec.parse_all("gistxlogPage", data, |i| {
            let (i, num) = u32::read(i, fmt).map_err(|e| e.in_field("gistxlogPage.num"))?;
            list(i, num, fmt, "IndexTupleData")
        })?);
    }
    Ok(PageSplit { head, pages })
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::PageUpdate(it) => {
                it.head.write(fmt, &mut body.main);
                if let (Some(conflict), false) = (&*it.conflict, fmt.since(12)) {
                    conflict.heap.write(fmt, &mut body.main);
                    conflict.delete.write(&mut body.main);
                }
                if let Some(change) = it.change.filter(|change| !(change.delete.is_empty() && change.insert.is_empty())) {
                    let out = body.block(0);
                    change.delete.write(out);
                    change.insert.write(out);
                }
            }
            Op::Delete(it) => {
                it.head.write(fmt, &mut body.main);
                it.offsets.write(&mut body.main);
            }
            Op::PageReuse(it) => it.write(fmt, &mut body.main),
            Op::PageSplit(it) => {
                it.head.write(fmt, &mut body.main);
                for (id, tuples) in (1..).zip(&it.pages) {
                    let out = body.block(id);
                    (tuples.len() as u32).write(fmt, out);
                    tuples.write(out);
                }
            }
            Op::CreateIndex => {}
            Op::PageDelete(it) => it.write(fmt, &mut body.main),
            Op::AssignLsn(it) => it.write(fmt, &mut body.main),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        match self {
            Op::PageUpdate(_) | Op::CreateIndex | Op::AssignLsn(_) => {}
            Op::Delete(it) => it.head.describe(rec, fmt, out),
            Op::PageReuse(it) => it.describe(rec, fmt, out),
            Op::PageSplit(it) => put!(out, "page_split: splits to ", it.head.npages, " pages"),
            Op::PageDelete(it) => put!(out, "deleteXid ", it.delete_xid, "; downlink ", it.downlink_offset),
        }
    }
}

impl Describe for DeleteHead {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        put!(out, if fmt.since(16) { "delete: snapshotConflictHorizon " } else { "delete: latestRemovedXid " });
        put!(out, self.snapshot_conflict_horizon, ", nitems: ", self.nto_delete);
        describe_catalog_rel(*self.is_catalog_rel, fmt, out);
    }
}

impl Describe for PageReuse {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        put!(out, "rel ", self.rel, "; blk ", self.block);
        put!(out, if fmt.since(16) { "; snapshotConflictHorizon " } else { "; latestRemovedXid " });
        put!(out, self.snapshot_conflict_horizon);
        describe_catalog_rel(*self.is_catalog_rel, fmt, out);
    }
}

/// 16 has the field and does not show it.
fn describe_catalog_rel(is_catalog_rel: Option<CBool>, fmt: WalFormat, out: &mut Text) {
    if let Some(is_catalog_rel) = is_catalog_rel.filter(|_| fmt.since(17)) {
        put!(out, ", isCatalogRel ", letter(is_catalog_rel.get()));
    }
}

#[cfg(test)]
mod tests {
    use crate::rmgr::testing::{Rec, le};

    fn rec<'a>(major: u8, info: u8, main: &'a [u8], blocks: &'a [(u8, &'a [u8])]) -> Rec<'a> {
        Rec { major, rmid: 14, info, main, blocks, ..Rec::default() }
    }

    /// An index tuple of 16 bytes.
    fn tuple() -> Vec<u8> {
        le![0u16, 7u16, 3u16, 0x0010u16, 0x0102_0304_0506_0708u64]
    }

    #[test]
    fn page_update() {
        let data = [le![4u16, 5u16], tuple()].concat();
        for major in 10..=19 {
            rec(major, 0x00, &le![2u16, 1u16], &[(0, &data), (1, &[])]).check("", &[]);
            rec(major, 0x00, &le![0u16, 0u16], &[(0, &[])]).check("", &[]);
            assert!(rec(major, 0x00, &le![0u16, 1u16], &[(0, &[])]).parse().is_err(), "{major}: neither data nor image");
            assert!(rec(major, 0x00, &le![0u16, 0u16], &[(0, &[1])]).parse().is_err(), "{major}: data that nobody counted");
        }
        let main = le![2u16, 0u16, 1663u32, 5u32, 16384u32, 4u16, 5u16];
        for major in [10, 11] {
            rec(major, 0x00, &main, &[(0, &le![4u16, 5u16])]).check("", &[4]);
        }
        assert!(rec(12, 0x00, &main, &[(0, &le![4u16, 5u16])]).parse().is_err());
    }

    #[test]
    fn delete() {
        let old = le![750u32, 2u16, 3u16, 9u16];
        for major in 12..=15 {
            rec(major, 0x10, &old, &[(0, &[])]).check("delete: latestRemovedXid 750, nitems: 2", &[]);
        }
        let new = le![750u32, 2u16, 1u8, 0xEEu8, 3u16, 9u16];
        rec(16, 0x10, &new, &[(0, &[])]).check("delete: snapshotConflictHorizon 750, nitems: 2", &[]);
        for major in 17..=19 {
            rec(major, 0x10, &new, &[(0, &[])]).check("delete: snapshotConflictHorizon 750, nitems: 2, isCatalogRel T", &[]);
        }
        assert_eq!(rec(11, 0x10, &old, &[(0, &[])]).parse(), Ok(None));
        let neither = le![750u32, 0u16, 2u8, 0u8]; // to the server, 2 is true
        rec(17, 0x10, &neither, &[(0, &[])]).check("delete: snapshotConflictHorizon 750, nitems: 0, isCatalogRel T", &[]);
    }

    #[test]
    fn page_reuse() {
        let main = le![1663u32, 5u32, 16400u32, 42u32, 0x3_0000_02EEu64];
        for major in 12..=15 {
            rec(major, 0x20, &main, &[]).check("rel 1663/5/16400; blk 42; latestRemovedXid 3:750", &[]);
        }
        let main = [main, vec![0]].concat();
        let text = "rel 1663/5/16400; blk 42; snapshotConflictHorizon 3:750";
        rec(16, 0x20, &main, &[]).check(text, &[]);
        for major in 17..=19 {
            rec(major, 0x20, &main, &[]).check(&format!("{text}, isCatalogRel F"), &[]);
        }
    }

    #[test]
    fn page_split() {
        let main = le![u32::MAX, 0u32, 0x1234_5678u64, 1u8, 0u8, 2u16, 1u8, 0u8, 0u8, 0u8];
        let (two, none) = ([le![2u32], tuple(), tuple()].concat(), le![0u32]);
        for major in 10..=19 {
            rec(major, 0x30, &main, &[(1, &two), (2, &none)]).check("page_split: splits to 2 pages", &[]);
            rec(major, 0x30, &main, &[(0, &[]), (1, &none), (2, &two)]).check("page_split: splits to 2 pages", &[]);
        }
        assert!(rec(15, 0x30, &main, &[(1, &two)]).parse().is_err(), "a page is missing");
        assert!(rec(15, 0x30, &main, &[(1, &two), (2, &none), (3, &none)]).parse().is_err(), "a page too many");
        let mut many = main.clone();
        many[18..20].copy_from_slice(&[0xFF, 0xFF]);
        assert!(rec(15, 0x30, &many, &[(1, &two), (2, &none)]).parse().is_err(), "65535 pages");
        let huge = [le![u32::MAX], tuple()].concat();
        assert!(rec(15, 0x30, &main, &[(1, &two), (2, &huge)]).parse().is_err(), "more tuples than bytes");
    }

    #[test]
    fn opcodes_come_and_go() {
        let delete = le![0x3_0000_02EEu64, 17u16];
        for major in 10..=19 {
            let create = rec(major, 0x50, &[], &[(0, &[])]);
            if major < 12 { create.check("", &[]) } else { assert_eq!(create.parse(), Ok(None)) }
            let delete = rec(major, 0x60, &delete, &[(0, &[]), (1, &[])]);
            if major < 12 { assert_eq!(delete.parse(), Ok(None)) } else { delete.check("deleteXid 3:750; downlink 17", &[]) }
            let assign = rec(major, 0x70, &[0, 0, 0, 0], &[]);
            if (13..=18).contains(&major) { assign.check("", &[]) } else { assert_eq!(assign.parse(), Ok(None)) }
        }
    }
}
