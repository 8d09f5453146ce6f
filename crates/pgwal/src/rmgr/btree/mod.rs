//! B-tree indexes, resource manager 11. C: access/nbtxlog.h; text: rmgrdesc/nbtdesc.c.

mod items;
mod page;

use serde::Serialize;

pub use items::{Dedup, DedupHead, DedupInterval, Delete, DeleteHead, DeletedItems, ItemCount, PostingUpdate, Vacuum, VacuumHead};
pub use page::{MarkPageHalfDead, Metadata, NewRoot, NewRootHead, ReusePage, UnlinkPage, UnlinkPageHead};

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::{Info, Plain, Record};
use crate::text::Text;
use crate::index_tuple::IndexTuple;
use crate::types::OffsetNumber;
use crate::wire::{List, Since, Wire, list_all, optional};

/// Record types.
pub const OPCODES: &[Opcode] = &[
    op(0x00, "INSERT_LEAF", Majors::ALL),
    op(0x10, "INSERT_UPPER", Majors::ALL),
    op(0x20, "INSERT_META", Majors::ALL),
    op(0x30, "SPLIT_L", Majors::ALL),
    op(0x40, "SPLIT_R", Majors::ALL),
    op(0x50, "SPLIT_L_ROOT", Majors::until(10)),
    op(0x60, "SPLIT_R_ROOT", Majors::until(10)),
    op(0x50, "SPLIT_L_HIGHKEY", Majors::between(11, 11)),
    op(0x60, "SPLIT_R_HIGHKEY", Majors::between(11, 11)),
    op(0x50, "INSERT_POST", Majors::since(13)),
    op(0x60, "DEDUP", Majors::since(13)),
    op(0x70, "DELETE", Majors::ALL),
    op(0x80, "UNLINK_PAGE", Majors::ALL),
    op(0x90, "UNLINK_PAGE_META", Majors::ALL),
    op(0xA0, "NEWROOT", Majors::ALL),
    op(0xB0, "MARK_PAGE_HALFDEAD", Majors::ALL),
    op(0xC0, "VACUUM", Majors::ALL),
    op(0xD0, "REUSE_PAGE", Majors::ALL),
    op(0xE0, "META_CLEANUP", Majors::since(11)),
];

wire_struct! {
    /// Fixed part of INSERT_LEAF, INSERT_UPPER, INSERT_META and INSERT_POST. C: `xl_btree_insert`, 2 bytes.
    pub struct InsertHead("xl_btree_insert") {
        /// Line pointer of the new tuple.
        offnum: OffsetNumber,
    }
}
/// A tuple goes to the page of block 0. On an inner page it ends the split of the page of block 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Insert<'a> {
    /// Fixed part.
    pub head: InsertHead,
    /// The tuple, data of block 0; absent where the page's image has it.
    pub item: Option<InsertItem<'a>>,
    /// New contents of the metapage, data of block 2: only INSERT_META has them.
    pub metadata: Option<Metadata>,
}
json_object!(Insert<'_> { ..head, item, metadata });
/// The tuple of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct InsertItem<'a> {
    /// Where in the posting list of the tuple before, counted from 0, the new tuple's place is: only INSERT_POST has it, and
    /// exchanges heap tuples between the two.
    pub posting_off: Option<u16>,
    /// The tuple as it was given to the index.
    pub tuple: IndexTuple<'a>,
}

wire_struct! {
    /// Fixed part of the splits. C: `xl_btree_split`, 8 bytes, from 13 on 10 bytes.
    pub struct SplitHead("xl_btree_split") {
        /// Level of the page, counted from the leaves.
        level: u32,
        /// First line pointer of the old page that goes to the new one. C: `firstright` before 13.
        first_right_off: OffsetNumber,
        /// Line pointer of the new tuple on the old page.
        new_item_off: OffsetNumber,
        /// Where in the posting list before the new tuple's place is; zero: no posting list is split.
        posting_off: Since<13, u16>,
    }
}
/// A page is split in two: block 0 is the left one, block 1 the new right one, block 2 what was to the right (if anything), block 3
/// the page below whose split this ends (above the leaves).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split<'a> {
    /// Fixed part.
    pub head: SplitHead,
    /// What the left page needs, data of block 0; absent where the page's image shows it.
    pub left: Option<SplitLeft<'a>>,
    /// All tuples of the right page, data of block 1.
    pub right: List<'a, IndexTuple<'a>>,
}
json_object!(Split<'_> { ..head, left, right });
/// The tuples that go to the left page of a split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SplitLeft<'a> {
    /// The new tuple; absent where it goes to the right page and no posting list is split.
    pub new_item: Option<IndexTuple<'a>>,
    /// The page's new high key; up to 11 only where it is not the right page's first tuple.
    pub high_key: Option<IndexTuple<'a>>,
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// A tuple goes to a leaf page.
    InsertLeaf(Insert<'a>),
    /// A tuple goes to an inner page.
    InsertUpper(Insert<'a>),
    /// A tuple goes to an inner page, and the metapage changes.
    InsertMeta(Insert<'a>),
    /// A tuple goes to a leaf page, into the range of a posting list; from 13 on.
    InsertPost(Insert<'a>),
    /// A page is split, the new tuple goes left.
    SplitL(Split<'a>),
    /// A page is split, the new tuple goes right.
    SplitR(Split<'a>),
    /// The root is split, the new tuple goes left; in 10.
    SplitLRoot(Split<'a>),
    /// The root is split, the new tuple goes right; in 10.
    SplitRRoot(Split<'a>),
    /// A page is split, the new tuple goes left, and the high key is stored; in 11.
    SplitLHighkey(Split<'a>),
    /// A page is split, the new tuple goes right, and the high key is stored; in 11.
    SplitRHighkey(Split<'a>),
    /// Tuples with equal keys are merged into posting lists; from 13 on.
    Dedup(Dedup<'a>),
    /// Tuples are deleted while others are inserted.
    Delete(Delete<'a>),
    /// VACUUM deletes tuples.
    Vacuum(Vacuum<'a>),
    /// A leaf page is marked half-dead, and its parent forgets it.
    #[serde(rename = "mark_page_halfdead")]
    MarkPageHalfDead(MarkPageHalfDead),
    /// A half-dead page leaves the tree.
    UnlinkPage(UnlinkPage),
    /// A half-dead page leaves the tree, and the metapage changes.
    UnlinkPageMeta(UnlinkPage),
    /// A new root page.
    #[serde(rename = "newroot")]
    NewRoot(NewRoot<'a>),
    /// A deleted page is used again: changes no page, for conflicts on a standby.
    ReusePage(ReusePage),
    /// VACUUM updates the metapage, block 0; from 11 on.
    MetaCleanup(Metadata),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    Ok(Some(match (rec.info().opcode(), fmt.major) {
        (0x00, _) => Op::InsertLeaf(Insert::parse(rec, fmt, Variant::Plain)?),
        (0x10, _) => Op::InsertUpper(Insert::parse(rec, fmt, Variant::Plain)?),
        (0x20, _) => Op::InsertMeta(Insert::parse(rec, fmt, Variant::Meta)?),
        (0x30, _) => Op::SplitL(Split::parse(rec, fmt, true, false)?),
        (0x40, _) => Op::SplitR(Split::parse(rec, fmt, false, false)?),
        (0x50, 10) => Op::SplitLRoot(Split::parse(rec, fmt, true, false)?),
        (0x60, 10) => Op::SplitRRoot(Split::parse(rec, fmt, false, false)?),
        (0x50, 11) => Op::SplitLHighkey(Split::parse(rec, fmt, true, true)?),
        (0x60, 11) => Op::SplitRHighkey(Split::parse(rec, fmt, false, true)?),
        (0x50, 13..) => Op::InsertPost(Insert::parse(rec, fmt, Variant::Post)?),
        (0x60, 13..) => Op::Dedup(Dedup::parse(rec, fmt)?),
        (0x70, _) => Op::Delete(Delete::parse(rec, fmt)?),
        (0x80, _) => Op::UnlinkPage(UnlinkPage::parse(rec, fmt, false)?),
        (0x90, _) => Op::UnlinkPageMeta(UnlinkPage::parse(rec, fmt, true)?),
        (0xA0, _) => Op::NewRoot(NewRoot::parse(rec, fmt)?),
        (0xB0, _) => {
            rec.only_block_data("B-tree record", &[])?;
            Op::MarkPageHalfDead(rec.parse_all("xl_btree_mark_page_halfdead", rec.main, |i| MarkPageHalfDead::read(i, fmt))?)
        }
        (0xC0, _) => Op::Vacuum(Vacuum::parse(rec, fmt)?),
        (0xD0, _) => {
            rec.only_block_data("B-tree record", &[])?;
            Op::ReusePage(rec.parse_all("xl_btree_reuse_page", rec.main, |i| ReusePage::read(i, fmt))?)
        }
        (0xE0, 11..) => {
            rec.only_block_data("B-tree record", &[0])?;
            rec.parse_all("main data", rec.main, |i| Ok((i, ())))?;
            Op::MetaCleanup(Metadata::parse(rec, fmt, 0)?)
        }
        _ => return Ok(None),
    }))
}

/// See [`super::is_right`].
#[inline]
pub(super) fn is_right(info: Info, plain: &Plain<'_>, fmt: WalFormat) -> bool {
    let is_insert = matches!(info.opcode(), 0x00 | 0x10) && matches!(InsertHead::read(plain.main, fmt), Ok(([], _)));
    is_insert && matches!(IndexTuple::read(plain.data, fmt), Ok(([], _)))
}

/// What an insertion has besides the tuple.
#[derive(Clone, Copy, PartialEq)]
enum Variant {
    Plain,
    /// New contents of the metapage.
    Meta,
    /// A place in a posting list.
    Post,
}

impl<'r> Insert<'r> {
    fn parse(rec: &Record<'r>, fmt: WalFormat, variant: Variant) -> Result<Insert<'r>> {
        rec.only_block_data("B-tree record", if variant == Variant::Meta { &[0, 2] } else { &[0] })?;
        let head = rec.parse_all("xl_btree_insert", rec.main, |i| InsertHead::read(i, fmt))?;
        let item = rec.parse_block_or_image("IndexTupleData", 0, |i| {
            let (i, posting_off) = if variant == Variant::Post {
                let (i, off) = u16::read(i, fmt).map_err(|e| e.in_field("xl_btree_insert.postingoff"))?;
                (i, Some(off))
            } else {
                (i, None)
            };
            let (i, tuple) = IndexTuple::read(i, fmt)?;
            Ok((i, InsertItem { posting_off, tuple }))
        })?;
        let metadata = if variant == Variant::Meta { Some(Metadata::parse(rec, fmt, 2)?) } else { None };
        Ok(Insert { head, item, metadata })
    }

    fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(item) = &self.item {
            if let Some(off) = item.posting_off {
                off.write(fmt, body.block(0));
            }
            item.tuple.write(fmt, body.block(0));
        }
        if let Some(metadata) = &self.metadata {
            metadata.write(fmt, body.block(2));
        }
    }
}

impl<'r> Split<'r> {
    /// `onleft`: the new tuple goes to the left page. `with_high_key`: the record type says that the high key is stored.
    fn parse(rec: &Record<'r>, fmt: WalFormat, onleft: bool, with_high_key: bool) -> Result<Split<'r>> {
        rec.only_block_data("B-tree record", &[0, 1])?;
        let head = rec.parse_all("xl_btree_split", rec.main, |i| SplitHead::read(i, fmt))?;
        // A split posting list needs the new tuple on the left page wherever that goes.
        let with_new_item = onleft || head.posting_off.is_some_and(|off| off != 0);
        // Up to 11 the high key of a leaf page is the right page's first tuple, unless that has more attributes than a key.
        let with_high_key = with_high_key || fmt.since(12) || head.level > 0;
        let left = rec.parse_block_or_image("IndexTupleData", 0, |i| {
            let (i, new_item) = optional(i, with_new_item, |i| IndexTuple::read(i, fmt))?;
            let (i, high_key) = optional(i, with_high_key, |i| IndexTuple::read(i, fmt))?;
            Ok((i, SplitLeft { new_item, high_key }))
        })?;
        // Replay builds the right page from its tuples, whether it has an image or not. There is at least one.
        let right = rec.parse_all("IndexTupleData", rec.block_data(1).unwrap_or_default(), |i| {
            IndexTuple::read(i, fmt)?;
            Ok((&[], list_all(i, fmt)?))
        })?;
        Ok(Split { head, left, right })
    }

    fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(left) = &self.left {
            for tuple in left.new_item.iter().chain(&left.high_key) {
                tuple.write(fmt, body.block(0));
            }
        }
        self.right.write(body.block(1));
    }
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::InsertLeaf(op) | Op::InsertUpper(op) | Op::InsertMeta(op) | Op::InsertPost(op) => op.write(fmt, body),
            Op::SplitL(op) | Op::SplitR(op) => op.write(fmt, body),
            Op::SplitLRoot(op) | Op::SplitRRoot(op) | Op::SplitLHighkey(op) | Op::SplitRHighkey(op) => op.write(fmt, body),
            Op::Dedup(op) => op.write(fmt, body),
            Op::Delete(op) => op.write(fmt, body),
            Op::Vacuum(op) => op.write(fmt, body),
            Op::MarkPageHalfDead(op) => op.write(fmt, &mut body.main),
            Op::UnlinkPage(op) | Op::UnlinkPageMeta(op) => op.write(fmt, body),
            Op::NewRoot(op) => op.write(fmt, body),
            Op::ReusePage(op) => op.write(fmt, &mut body.main),
            Op::MetaCleanup(metadata) => metadata.write(fmt, body.block(0)),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        match self {
            Op::InsertLeaf(op) | Op::InsertUpper(op) | Op::InsertMeta(op) | Op::InsertPost(op) => {
                put!(out, if fmt.since(16) { "off: " } else { "off " }, op.head.offnum);
            }
            Op::SplitL(op) | Op::SplitR(op) => op.describe(rec, fmt, out),
            Op::SplitLRoot(op) | Op::SplitRRoot(op) | Op::SplitLHighkey(op) | Op::SplitRHighkey(op) => op.describe(rec, fmt, out),
            Op::Dedup(op) => put!(out, if fmt.since(16) { "nintervals: " } else { "nintervals " }, op.head.nintervals),
            Op::Delete(op) => op.describe(rec, fmt, out),
            Op::Vacuum(op) => op.describe(rec, fmt, out),
            Op::MarkPageHalfDead(op) => op.describe(rec, fmt, out),
            Op::UnlinkPage(op) | Op::UnlinkPageMeta(op) => op.describe(rec, fmt, out),
            Op::NewRoot(op) => put!(out, if fmt.since(16) { "level: " } else { "lev " }, op.head.level),
            Op::ReusePage(op) => op.describe(rec, fmt, out),
            Op::MetaCleanup(metadata) => metadata.describe(rec, fmt, out),
        }
    }
}

impl Describe for Split<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let SplitHead { level, first_right_off, new_item_off, posting_off } = self.head;
        if fmt.since(16) {
            put!(out, "level: ", level, ", firstrightoff: ", first_right_off, ", newitemoff: ", new_item_off);
        } else if fmt.since(13) {
            put!(out, "level ", level, ", firstrightoff ", first_right_off, ", newitemoff ", new_item_off);
        } else {
            put!(out, "level ", level, ", firstright ", first_right_off, ", newitemoff ", new_item_off);
        }
        if let Some(posting_off) = *posting_off {
            put!(out, if fmt.since(16) { ", postingoff: " } else { ", postingoff " }, posting_off);
        }
    }
}

#[cfg(test)]
mod tests;
