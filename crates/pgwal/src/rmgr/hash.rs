//! Hash, resource manager 12. C: access/hash_xlog.h; text: rmgrdesc/hashdesc.c.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Body, Describe, Opcode, letter, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::index_tuple::IndexTuple;
use crate::record::Record;
use crate::text::Text;
use crate::types::{BlockNumber, Float8, Oid, OffsetNumber, RelFileLocator, Xid};
use crate::wire::{Array, CBool, FixedSize, List, Pad, Parsed, Since, Until, Wire, array, list};

/// Record types. C: `XLOG_HASH_INIT_META_PAGE` and its like.
pub const OPCODES: &[Opcode] = &[
    op(0x00, "INIT_META_PAGE", Majors::ALL),
    op(0x10, "INIT_BITMAP_PAGE", Majors::ALL),
    op(0x20, "INSERT", Majors::ALL),
    op(0x30, "ADD_OVFL_PAGE", Majors::ALL),
    op(0x40, "SPLIT_ALLOCATE_PAGE", Majors::ALL),
    op(0x50, "SPLIT_PAGE", Majors::ALL),
    op(0x60, "SPLIT_COMPLETE", Majors::ALL),
    op(0x70, "MOVE_PAGE_CONTENTS", Majors::ALL),
    op(0x80, "SQUEEZE_PAGE", Majors::ALL),
    op(0x90, "DELETE", Majors::ALL),
    op(0xA0, "SPLIT_CLEANUP", Majors::ALL),
    op(0xB0, "UPDATE_META_PAGE", Majors::ALL),
    op(0xC0, "VACUUM_ONE_PAGE", Majors::ALL),
];

wire_newtype! {
    /// Number of a bucket, counted from 0. C: `Bucket`, access/hash.h.
    #[derive(Serialize)]
    #[serde(transparent)]
    pub struct Bucket(u32);
}

wire_flags! {
    /// What a page is and what state its bucket is in. C: `hasho_flag` of `HashPageOpaqueData`, access/hash.h.
    pub struct PageFlags: u16 {
        /// An overflow page of a bucket.
        LH_OVERFLOW_PAGE = 0x01,
        /// The first page of a bucket.
        LH_BUCKET_PAGE = 0x02,
        /// A bitmap of the overflow pages in use.
        LH_BITMAP_PAGE = 0x04,
        /// The metapage.
        LH_META_PAGE = 0x08,
        /// The new bucket of a split that is not complete.
        LH_BUCKET_BEING_POPULATED = 0x10,
        /// The old bucket of a split that is not complete.
        LH_BUCKET_BEING_SPLIT = 0x20,
        /// The split is complete, but tuples that moved are still here, too.
        LH_BUCKET_NEEDS_SPLIT_CLEANUP = 0x40,
        /// Line pointers of the page are marked dead.
        LH_PAGE_HAS_DEAD_TUPLES = 0x80,
    }
}

wire_struct! {
    /// A new index; block 0 is its metapage. C: `xl_hash_init_meta_page`, 14 bytes.
    pub struct InitMetaPage("xl_hash_init_meta_page") {
        /// Tuples that are expected, from which the number of buckets follows.
        ntuples: Float8,
        /// The hash function. C: `procid`.
        proc: Oid,
        /// Tuples a bucket is meant to hold. C: `ffactor`.
        fill_factor: u16,
    }
}

wire_struct! {
    /// A new bitmap page, block 0; block 1 is the metapage. C: `xl_hash_init_bitmap_page`, 2 bytes.
    pub struct InitBitmapPage("xl_hash_init_bitmap_page") {
        /// Bytes of the bitmap. C: `bmsize`.
        bitmap_size: u16,
    }
}

/// A new tuple on the page of block 0; block 1 is the metapage, which counts them. C: `xl_hash_insert`, 2 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Insert<'a> {
    /// Line pointer of the tuple.
    pub offnum: OffsetNumber,
    /// The tuple, data of block 0; `None` where an image of the page stands for it.
    pub tuple: Option<IndexTuple<'a>>,
}

wire_struct! {
    /// Fixed part of ADD_OVFL_PAGE. C: `xl_hash_add_ovfl_page`, 3 bytes.
    pub struct AddOverflowPageHead("xl_hash_add_ovfl_page") {
        /// Bytes of a bitmap. C: `bmsize`.
        bitmap_size: u16,
        /// Whether a bitmap had a free bit, so that the page existed before. C: `bmpage_found`.
        bitmap_page_found: CBool,
    }
}

/// A bucket grows by a page: block 0 is the overflow page, block 1 the page before it, block 4 the metapage. Block 2 is the
/// bitmap page with the page's bit, where there is one already; block 3 a bitmap page that is new.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddOverflowPage {
    /// Fixed part.
    pub head: AddOverflowPageHead,
    /// The bucket, data of block 0; `None` where an image of the page stands for it.
    pub bucket: Option<Bucket>,
    /// Number of the bit that is set, data of block 2; `None` where there is no such block, or an image of the page stands for it.
    pub bitmap_bit: Option<u32>,
    /// First overflow page that is free, data of block 4; `None` where an image of the metapage stands for it.
    /// C: `hashm_firstfree`.
    pub first_free: Option<u32>,
}
json_object!(AddOverflowPage { ..head, bucket, bitmap_bit, first_free });

wire_flags! {
    /// What a split changes on the metapage. C: `XLH_SPLIT_META_UPDATE_MASKS` and its like.
    pub struct SplitFlags: u8 {
        /// The masks that turn a hash value into a bucket.
        XLH_SPLIT_META_UPDATE_MASKS = 0x01,
        /// The splitpoint, up to which pages for buckets are allocated.
        XLH_SPLIT_META_UPDATE_SPLITPOINT = 0x02,
    }
}

wire_struct! {
    /// Fixed part of SPLIT_ALLOCATE_PAGE. C: `xl_hash_split_allocate_page`, 9 bytes.
    pub struct SplitAllocatePageHead("xl_hash_split_allocate_page") {
        /// The new bucket.
        new_bucket: Bucket,
        /// State of the old bucket from now on.
        old_bucket_flag: PageFlags,
        /// State of the new bucket.
        new_bucket_flag: PageFlags,
        /// What the metapage's data has.
        flags: SplitFlags,
    }
}

wire_struct! {
    /// How a hash value becomes a bucket: by the high mask, or by the low one where that gives a bucket too high.
    /// C: `HashMetaPageData`, access/hash.h.
    pub struct Masks("HashMetaPageData") {
        /// C: `hashm_lowmask`.
        low: u32,
        /// C: `hashm_highmask`.
        high: u32,
    }
}

wire_struct! {
    /// The splitpoint in use. C: `HashMetaPageData`, access/hash.h.
    pub struct SplitPoint("HashMetaPageData") {
        /// Its number. C: `hashm_ovflpoint`.
        number: u32,
        /// Overflow pages allocated before it. C: the element of `hashm_spares` with that number.
        spares: u32,
    }
}

/// What a split changes on the metapage, data of block 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SplitMeta {
    /// New masks; `None` where the flags say they stay.
    pub masks: Option<Masks>,
    /// New splitpoint; `None` where the flags say it stays.
    pub split_point: Option<SplitPoint>,
}

impl SplitMeta {
    fn read(mut i: &[u8], flags: SplitFlags, fmt: WalFormat) -> Parsed<'_, SplitMeta> {
        let mut meta = SplitMeta::default();
        if flags.contains(SplitFlags::XLH_SPLIT_META_UPDATE_MASKS) {
            let (rest, masks) = Masks::read(i, fmt)?;
            (i, meta.masks) = (rest, Some(masks));
        }
        if flags.contains(SplitFlags::XLH_SPLIT_META_UPDATE_SPLITPOINT) {
            let (rest, split_point) = SplitPoint::read(i, fmt)?;
            (i, meta.split_point) = (rest, Some(split_point));
        }
        Ok((i, meta))
    }
}

/// A bucket is about to be split: block 0 is the first page of the old one, block 1 that of the new one, block 2 the metapage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitAllocatePage {
    /// Fixed part.
    pub head: SplitAllocatePageHead,
    /// Changes of the metapage, data of block 2; `None` where an image of the page stands for them.
    pub meta: Option<SplitMeta>,
}
json_object!(SplitAllocatePage { ..head, meta });

wire_struct! {
    /// A bucket has been split: block 0 is the first page of the old one, block 1 that of the new one.
    /// C: `xl_hash_split_complete`, 4 bytes.
    pub struct SplitComplete("xl_hash_split_complete") {
        /// State of the old bucket from now on.
        old_bucket_flag: PageFlags,
        /// State of the new bucket from now on.
        new_bucket_flag: PageFlags,
    }
}

/// Tuples that a page gets. On disk: line pointers, then tuples, each a multiple of 8 bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AddedTuples<'a> {
    /// Line pointer of each tuple.
    pub offnums: Array<'a, OffsetNumber>,
    /// The tuples.
    pub tuples: List<'a, IndexTuple<'a>>,
}

impl<'a> AddedTuples<'a> {
    fn read(i: &'a [u8], ntups: u16, fmt: WalFormat) -> Parsed<'a, AddedTuples<'a>> {
        let (i, offnums) = array(i, ntups, fmt, "itup_offsets")?;
        let (i, tuples) = list(i, ntups, fmt, "IndexTupleData")?;
        Ok((i, AddedTuples { offnums, tuples }))
    }
    fn write(&self, out: &mut Vec<u8>) {
        self.offnums.write(out);
        self.tuples.write(out);
    }
}

wire_struct! {
    /// Fixed part of MOVE_PAGE_CONTENTS. C: `xl_hash_move_page_contents`, 3 bytes.
    pub struct MovePageContentsHead("xl_hash_move_page_contents") {
        /// Tuples that move. C: `ntups`.
        ntuples: u16,
        /// Whether they move to the first page of the bucket. C: `is_prim_bucket_same_wrt`.
        to_primary_page: CBool,
    }
}

/// Tuples move to an earlier page of their bucket: from block 2 to block 1. Block 0 is the first page of the bucket, unless that
/// is block 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MovePageContents<'a> {
    /// Fixed part.
    pub head: MovePageContentsHead,
    /// The tuples, data of block 1; `None` where an image of the page stands for them.
    pub added: Option<AddedTuples<'a>>,
    /// Line pointers that they leave, data of block 2; `None` where an image of the page stands for them.
    pub deleted: Option<Array<'a, OffsetNumber>>,
}
json_object!(MovePageContents<'_> { ..head, added, deleted });

wire_struct! {
    /// Fixed part of SQUEEZE_PAGE. C: `xl_hash_squeeze_page`, 12 bytes.
    pub struct SqueezePageHead("xl_hash_squeeze_page") {
        /// Page before the freed one. C: `prevblkno`.
        prev_block: BlockNumber,
        /// Page after the freed one; invalid where it was the last. C: `nextblkno`.
        next_block: BlockNumber,
        /// Tuples that move. C: `ntups`.
        ntuples: u16,
        /// Whether they move to the first page of the bucket. C: `is_prim_bucket_same_wrt`.
        to_primary_page: CBool,
        /// Whether they move to the page before the freed one. C: `is_prev_bucket_same_wrt`.
        to_prev_page: CBool,
    }
}

/// An overflow page, block 2, is freed: its last tuples move to block 1, blocks 3 and 4 are the pages before and after it, block
/// 5 the bitmap page, block 6 the metapage. Block 0 is the first page of the bucket, unless that is block 1. Only those that
/// change are there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SqueezePage<'a> {
    /// Fixed part.
    pub head: SqueezePageHead,
    /// The tuples, data of block 1; `None` where there are none, or an image of the page stands for them.
    pub added: Option<AddedTuples<'a>>,
    /// Number of the bit that is cleared, data of block 5; `None` where an image of the page stands for it.
    pub bitmap_bit: Option<u32>,
    /// First overflow page that is free, data of block 6; `None` where it stays, or an image of the page stands for it.
    /// C: `hashm_firstfree`.
    pub first_free: Option<u32>,
}
json_object!(SqueezePage<'_> { ..head, added, bitmap_bit, first_free });

wire_struct! {
    /// Fixed part of DELETE. C: `xl_hash_delete`, 2 bytes.
    pub struct DeleteHead("xl_hash_delete") {
        /// Whether the page has no line pointers marked dead any more.
        clear_dead_marking: CBool,
        /// Whether the page is the first of the bucket. C: `is_primary_bucket_page`.
        is_primary_page: CBool,
    }
}

/// Vacuum removes tuples of block 1. Block 0 is the first page of the bucket, unless that is block 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delete<'a> {
    /// Fixed part.
    pub head: DeleteHead,
    /// Line pointers of the tuples, data of block 1; `None` where an image of the page stands for them.
    pub deleted: Option<Array<'a, OffsetNumber>>,
}
json_object!(Delete<'_> { ..head, deleted });

wire_struct! {
    /// Vacuum has counted the tuples; block 0 is the metapage. C: `xl_hash_update_meta_page`, 8 bytes.
    pub struct UpdateMetaPage("xl_hash_update_meta_page") {
        /// Tuples in the index.
        ntuples: Float8,
    }
}

/// A number of tuples: 4 bytes, from 16 on 2 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TupleCount(pub i32);

impl Wire<'_> for TupleCount {
    fn read(i: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        if fmt.since(16) {
            let (i, count) = u16::read(i, fmt)?;
            return Ok((i, TupleCount(count.into())));
        }
        let (i, count) = i32::read(i, fmt)?;
        Ok((i, TupleCount(count)))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        if fmt.since(16) { (self.0 as u16).write(fmt, out) } else { self.0.write(fmt, out) }
    }
}
impl FixedSize for TupleCount {
    fn size(fmt: WalFormat) -> usize {
        if fmt.since(16) { 2 } else { 4 }
    }
}

wire_struct! {
    /// Fixed part of VACUUM_ONE_PAGE: 16 bytes up to 11, 8 bytes from 12 on. C: `xl_hash_vacuum_one_page`.
    pub struct VacuumOnePageHead("xl_hash_vacuum_one_page") {
        /// The table, whose tuples say which standby queries conflict; `None` from 12 on. C: `hnode`.
        table: Until<11, RelFileLocator>,
        /// Standby queries conflict that see this transaction as running; `None` before 12. C: `snapshotConflictHorizon`, before 16
        /// `latestRemovedXid`.
        snapshot_conflict_horizon: Since<12, Xid>,
        /// Tuples that are removed.
        ntuples: TupleCount,
        /// Whether the table is a catalog to logical decoding; `None` before 16.
        is_catalog_rel: Since<16, CBool>,
        /// Padding; `None` before 16.
        pad: Since<16, Pad<1>>,
    }
}

/// An insertion removes tuples marked dead from block 0; block 1 is the metapage, which counts them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VacuumOnePage<'a> {
    /// Fixed part.
    pub head: VacuumOnePageHead,
    /// Line pointers of the tuples.
    pub deleted: Array<'a, OffsetNumber>,
}
json_object!(VacuumOnePage<'_> { ..head, deleted });

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// INIT_META_PAGE.
    InitMetaPage(InitMetaPage),
    /// INIT_BITMAP_PAGE.
    InitBitmapPage(InitBitmapPage),
    /// INSERT.
    Insert(Insert<'a>),
    /// ADD_OVFL_PAGE.
    #[serde(rename = "add_ovfl_page")]
    AddOverflowPage(AddOverflowPage),
    /// SPLIT_ALLOCATE_PAGE.
    SplitAllocatePage(SplitAllocatePage),
    /// SPLIT_PAGE: a page of the new bucket, block 0, whose image comes along.
    SplitPage,
    /// SPLIT_COMPLETE.
    SplitComplete(SplitComplete),
    /// MOVE_PAGE_CONTENTS.
    MovePageContents(MovePageContents<'a>),
    /// SQUEEZE_PAGE.
    SqueezePage(SqueezePage<'a>),
    /// DELETE.
    Delete(Delete<'a>),
    /// SPLIT_CLEANUP: vacuum has removed the tuples that a split moved from the bucket with first page block 0.
    SplitCleanup,
    /// UPDATE_META_PAGE.
    UpdateMetaPage(UpdateMetaPage),
    /// VACUUM_ONE_PAGE.
    VacuumOnePage(VacuumOnePage<'a>),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    // The data of a block that the record need not have.
    let optional_u32 = |what, id| match rec.block(id) {
        Some(_) => rec.parse_block_or_image(what, id, |i| u32::read(i, fmt)),
        None => Ok(None),
    };
    let (op, with_data): (Op<'r>, &[u8]) = match rec.info().opcode() {
        0x00 => (Op::InitMetaPage(rec.parse_all("xl_hash_init_meta_page", rec.main, |i| InitMetaPage::read(i, fmt))?), &[]),
        0x10 => (Op::InitBitmapPage(rec.parse_all("xl_hash_init_bitmap_page", rec.main, |i| InitBitmapPage::read(i, fmt))?), &[]),
        0x20 => {
            let offnum = rec.parse_all("xl_hash_insert.offnum", rec.main, |i| OffsetNumber::read(i, fmt))?;
            let tuple = rec.parse_block_or_image("IndexTupleData", 0, |i| IndexTuple::read(i, fmt))?;
            (Op::Insert(Insert { offnum, tuple }), &[0])
        }
        0x30 => {
            let head = rec.parse_all("xl_hash_add_ovfl_page", rec.main, |i| AddOverflowPageHead::read(i, fmt))?;
            let bucket = rec.parse_block_or_image("hasho_bucket", 0, |i| Bucket::read(i, fmt))?;
            let bitmap_bit = optional_u32("bitmap_page_bit", 2)?;
            let first_free = rec.parse_block_or_image("hashm_firstfree", 4, |i| u32::read(i, fmt))?;
            (Op::AddOverflowPage(AddOverflowPage { head, bucket, bitmap_bit, first_free }), &[0, 2, 4])
        }
        0x40 => {
            let head = rec.parse_all("xl_hash_split_allocate_page", rec.main, |i| SplitAllocatePageHead::read(i, fmt))?;
            let meta = rec.parse_block_or_image("HashMetaPageData", 2, |i| SplitMeta::read(i, head.flags, fmt))?;
            (Op::SplitAllocatePage(SplitAllocatePage { head, meta }), &[2])
        }
        0x50 => (rec.parse_all("XLOG_HASH_SPLIT_PAGE", rec.main, |i| Ok((i, Op::SplitPage)))?, &[]),
        0x60 => (Op::SplitComplete(rec.parse_all("xl_hash_split_complete", rec.main, |i| SplitComplete::read(i, fmt))?), &[]),
        0x70 => {
            let head = rec.parse_all("xl_hash_move_page_contents", rec.main, |i| MovePageContentsHead::read(i, fmt))?;
            let added = rec.parse_block_or_image("AddedTuples", 1, |i| AddedTuples::read(i, head.ntuples, fmt))?;
            let deleted = rec.parse_block_or_image("deletable", 2, |i| array(i, head.ntuples, fmt, "deletable"))?;
            (Op::MovePageContents(MovePageContents { head, added, deleted }), &[1, 2])
        }
        0x80 => {
            let head = rec.parse_all("xl_hash_squeeze_page", rec.main, |i| SqueezePageHead::read(i, fmt))?;
            let added = match head.ntuples {
                0 => None,
                ntups => rec.parse_block_or_image("AddedTuples", 1, |i| AddedTuples::read(i, ntups, fmt))?,
            };
            let bitmap_bit = rec.parse_block_or_image("bitmap_page_bit", 5, |i| u32::read(i, fmt))?;
            let first_free = optional_u32("hashm_firstfree", 6)?;
            let with_data: &[u8] = if head.ntuples > 0 { &[1, 5, 6] } else { &[5, 6] };
            (Op::SqueezePage(SqueezePage { head, added, bitmap_bit, first_free }), with_data)
        }
        0x90 => {
            let head = rec.parse_all("xl_hash_delete", rec.main, |i| DeleteHead::read(i, fmt))?;
            let deleted = rec.parse_block_or_image("deletable", 1, |i| array(i, i.len().div_ceil(2), fmt, "deletable"))?;
            (Op::Delete(Delete { head, deleted }), &[1])
        }
        0xA0 => (rec.parse_all("XLOG_HASH_SPLIT_CLEANUP", rec.main, |i| Ok((i, Op::SplitCleanup)))?, &[]),
        0xB0 => (Op::UpdateMetaPage(rec.parse_all("xl_hash_update_meta_page", rec.main, |i| UpdateMetaPage::read(i, fmt))?), &[]),
        0xC0 => {
            let vacuum = rec.parse_all("xl_hash_vacuum_one_page", rec.main, |i| {
                let (i, head) = VacuumOnePageHead::read(i, fmt)?;
                let (i, deleted) = array(i, head.ntuples.0, fmt, "xl_hash_vacuum_one_page.offsets")?;
                Ok((i, VacuumOnePage { head, deleted }))
            })?;
            (Op::VacuumOnePage(vacuum), &[])
        }
        _ => return Ok(None),
    };
    rec.only_block_data("Hash", with_data)?;
    Ok(Some(op))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        // The data of block `id`, where there is any.
        fn block<'a>(body: &mut Body, id: u8, fmt: WalFormat, data: Option<impl Wire<'a>>) {
            if let Some(data) = data {
                data.write(fmt, body.block(id));
            }
        }
        match self {
            Op::InitMetaPage(init) => init.write(fmt, &mut body.main),
            Op::InitBitmapPage(init) => init.write(fmt, &mut body.main),
            Op::Insert(insert) => {
                insert.offnum.write(fmt, &mut body.main);
                block(body, 0, fmt, insert.tuple);
            }
            Op::AddOverflowPage(add) => {
                add.head.write(fmt, &mut body.main);
                block(body, 0, fmt, add.bucket);
                block(body, 2, fmt, add.bitmap_bit);
                block(body, 4, fmt, add.first_free);
            }
            Op::SplitAllocatePage(split) => {
                split.head.write(fmt, &mut body.main);
                let meta = split.meta.unwrap_or_default();
                block(body, 2, fmt, meta.masks);
                block(body, 2, fmt, meta.split_point);
            }
            Op::SplitPage | Op::SplitCleanup => {}
            Op::SplitComplete(split) => split.write(fmt, &mut body.main),
            Op::MovePageContents(moved) => {
                moved.head.write(fmt, &mut body.main);
                if let Some(added) = moved.added {
                    added.write(body.block(1));
                }
                if let Some(deleted) = moved.deleted {
                    deleted.write(body.block(2));
                }
            }
            Op::SqueezePage(squeeze) => {
                squeeze.head.write(fmt, &mut body.main);
                if let Some(added) = squeeze.added {
                    added.write(body.block(1));
                }
                block(body, 5, fmt, squeeze.bitmap_bit);
                block(body, 6, fmt, squeeze.first_free);
            }
            Op::Delete(delete) => {
                delete.head.write(fmt, &mut body.main);
                if let Some(deleted) = delete.deleted {
                    deleted.write(body.block(1));
                }
            }
            Op::UpdateMetaPage(update) => update.write(fmt, &mut body.main),
            Op::VacuumOnePage(vacuum) => {
                vacuum.head.write(fmt, &mut body.main);
                vacuum.deleted.write(&mut body.main);
            }
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        match self {
            Op::InitMetaPage(init) => {
                put!(out, "num_tuples ");
                put_general(init.ntuples.value(), fmt, out);
                if fmt.since(19) {
                    put!(out, ", procid ", init.proc);
                }
                put!(out, ", fillfactor ", init.fill_factor);
            }
            Op::InitBitmapPage(init) => put!(out, "bmsize ", init.bitmap_size),
            Op::Insert(insert) => put!(out, "off ", insert.offnum),
            Op::AddOverflowPage(AddOverflowPage { head, .. }) => {
                put!(out, "bmsize ", head.bitmap_size, ", bmpage_found ", letter(head.bitmap_page_found.get()));
            }
            Op::SplitAllocatePage(SplitAllocatePage { head, .. }) => {
                put!(out, "new_bucket ", head.new_bucket.0);
                if fmt.since(19) {
                    put!(out, ", old_bucket_flag ", head.old_bucket_flag.0, ", new_bucket_flag ", head.new_bucket_flag.0);
                }
                let has = |flag| letter(head.flags.contains(flag));
                put!(out, ", meta_page_masks_updated ", has(SplitFlags::XLH_SPLIT_META_UPDATE_MASKS));
                put!(out, ", issplitpoint_changed ", has(SplitFlags::XLH_SPLIT_META_UPDATE_SPLITPOINT));
            }
            Op::SplitPage | Op::SplitCleanup => {}
            Op::SplitComplete(split) => {
                put!(out, "old_bucket_flag ", split.old_bucket_flag.0, ", new_bucket_flag ", split.new_bucket_flag.0);
            }
            Op::MovePageContents(MovePageContents { head, .. }) => {
                put!(out, "ntups ", head.ntuples, ", is_primary ", letter(head.to_primary_page.get()));
            }
            Op::SqueezePage(SqueezePage { head, .. }) => {
                put!(out, "prevblkno ", head.prev_block, ", nextblkno ", head.next_block, ", ntups ", head.ntuples);
                put!(out, ", is_primary ", letter(head.to_primary_page.get()));
                if fmt.since(19) {
                    put!(out, ", is_previous ", letter(head.to_prev_page.get()));
                }
            }
            Op::Delete(Delete { head, .. }) => {
                put!(out, "clear_dead_marking ", letter(head.clear_dead_marking.get()), ", is_primary ", letter(head.is_primary_page.get()));
            }
            Op::UpdateMetaPage(update) => {
                put!(out, "ntuples ");
                put_general(update.ntuples.value(), fmt, out);
            }
            Op::VacuumOnePage(VacuumOnePage { head, .. }) => {
                put!(out, "ntuples ", head.ntuples.0);
                if let Some(horizon) = *head.snapshot_conflict_horizon {
                    let name = match fmt.major {
                        ..=13 => ", latest removed xid ",
                        14..=15 => ", latestRemovedXid ",
                        _ => ", snapshotConflictHorizon ",
                    };
                    put!(out, name, horizon);
                }
                // 16 has the field but does not show it.
                if let Some(catalog) = head.is_catalog_rel.filter(|_| fmt.since(17)) {
                    put!(out, ", isCatalogRel ", letter(catalog.get()));
                }
            }
        }
    }
}

/// C's `%g`: six significant digits without zeroes at the end, in scientific form where the exponent is below -4 or above 5.
fn put_general(value: f64, fmt: WalFormat, out: &mut Text) {
    if !value.is_finite() {
        // 12 brought PostgreSQL's own printf; before, it was the C library's.
        let (nan, infinity) = if fmt.since(12) { ("NaN", "Infinity") } else { ("nan", "inf") };
        let sign = value.is_sign_negative() && !(value.is_nan() && fmt.since(12));
        put!(out, if sign { "-" } else { "" }, if value.is_nan() { nan } else { infinity });
        return;
    }
    let scientific = format!("{value:.5e}"); // -1.23457e5
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0); // Rust wrote it
    let trim = |digits: &str| digits.trim_end_matches('0').trim_end_matches('.').len();
    if (-4..6).contains(&exponent) {
        let decimals = (5 - exponent) as usize; // 0 to 9
        let plain = format!("{value:.decimals$}");
        put!(out, if decimals == 0 { plain.as_str() } else { plain.get(..trim(&plain)).unwrap_or_default() });
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let mantissa = mantissa.get(..trim(mantissa)).unwrap_or_default();
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs()); // Text never fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rmgr::testing::{Rec, le};
    use crate::text::Zone;

    fn rec<'a>(major: u8, info: u8, main: &'a [u8], blocks: &'a [(u8, &'a [u8])]) -> Rec<'a> {
        Rec { major, rmid: 12, info, main, blocks, ..Rec::default() }
    }

    /// An index tuple of 16 bytes.
    fn tuple(offnum: u16) -> Vec<u8> {
        le![0u16, 7u16, offnum, 16u16, 0xABCDu32, 0u32]
    }

    #[test]
    fn general_format_equals_that_of_c() {
        let text = |value: f64, major| {
            let fmt = WalFormat::new(major);
            let mut out = Text::new(fmt, Zone::utc());
            put_general(value, fmt, &mut out);
            out.to_string_lossy()
        };
        // Each as printf("%g") of glibc writes it.
        let cases: &[(f64, &str)] = &[
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (10.0, "10"),
            (100_000.0, "100000"),
            (999_999.0, "999999"),
            (999_999.5, "1e+06"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.23457e+06"),
            (123_456.5, "123456"),
            (123_457.5, "123458"),
            (0.5, "0.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.000123456789, "0.000123457"),
            (3.25, "3.25"),
            (1e15, "1e+15"),
            (1.7976931348623157e308, "1.79769e+308"),
            (5e-324, "4.94066e-324"),
        ];
        for &(value, expected) in cases {
            assert_eq!(text(value, 15), expected);
            assert_eq!(text(value, 10), expected);
        }
        assert_eq!([text(f64::NAN, 12), text(-f64::NAN, 12), text(f64::INFINITY, 12), text(f64::NEG_INFINITY, 12)].join(" "), "NaN NaN Infinity -Infinity");
        assert_eq!([text(f64::NAN, 11), text(-f64::NAN, 11), text(f64::INFINITY, 11), text(f64::NEG_INFINITY, 11)].join(" "), "nan -nan inf -inf");
    }

    #[test]
    fn metapage_and_bitmap() {
        let main = [&12345678f64.to_le_bytes()[..], &le![400u32, 307u16]].concat();
        rec(18, 0x00, &main, &[(0, &[])]).check("num_tuples 1.23457e+07, fillfactor 307", &[]);
        rec(19, 0x00, &main, &[(0, &[])]).check("num_tuples 1.23457e+07, procid 400, fillfactor 307", &[]);
        rec(10, 0x10, &le![4096u16], &[(0, &[]), (1, &[])]).check("bmsize 4096", &[]);
        rec(15, 0xB0, &1500f64.to_le_bytes(), &[(0, &[])]).check("ntuples 1500", &[]);
    }

    #[test]
    fn insert() {
        rec(15, 0x20, &le![9u16], &[(0, &tuple(1)), (1, &[])]).check("off 9", &[]);
    }

    #[test]
    fn overflow_pages() {
        let four = 4u32.to_le_bytes();
        let (found, added) = (&[0, 16, 1], &[0, 16, 0]);
        rec(15, 0x30, found, &[(0, &four), (1, &[]), (2, &four), (4, &four)]).check("bmsize 4096, bmpage_found T", &[]);
        rec(15, 0x30, added, &[(0, &four), (1, &[]), (3, &[]), (4, &four)]).check("bmsize 4096, bmpage_found F", &[]);
    }

    #[test]
    fn splits() {
        let meta = le![1u32, 3u32, 2u32, 5u32];
        for (flags, meta, letters) in [(0, &[][..], "F F"), (1, &meta[..8], "T F"), (2, &meta[8..], "F T"), (3, &meta[..], "T T")] {
            let (masks, point) = letters.split_once(' ').unwrap();
            let main = le![3u32, 0x22u16, 0x12u16, flags as u8];
            let blocks: &[(u8, &[u8])] = &[(0, &[]), (1, &[]), (2, meta)];
            let old = format!("new_bucket 3, meta_page_masks_updated {masks}, issplitpoint_changed {point}");
            rec(18, 0x40, &main, blocks).check(&old, &[]);
            let new = format!(
                "new_bucket 3, old_bucket_flag 34, new_bucket_flag 18, meta_page_masks_updated {masks}, issplitpoint_changed {point}"
            );
            rec(19, 0x40, &main, blocks).check(&new, &[]);
        }
        rec(15, 0x50, &[], &[(0, &[])]).check("", &[]);
        rec(15, 0x60, &le![0x42u16, 0x02u16], &[(0, &[]), (1, &[])]).check("old_bucket_flag 66, new_bucket_flag 2", &[]);
        rec(15, 0xA0, &[], &[(0, &[])]).check("", &[]);
    }

    #[test]
    fn moved_tuples() {
        let added = [le![3u16, 4u16], tuple(1), tuple(2)].concat();
        let deleted = le![1u16, 2u16];
        rec(15, 0x70, &[2, 0, 1], &[(1, &added), (2, &deleted)]).check("ntups 2, is_primary T", &[]);
        let squeeze = le![5u32, u32::MAX, 2u16, 0u8, 1u8];
        let four = 4u32.to_le_bytes();
        let blocks: &[(u8, &[u8])] = &[(0, &[]), (1, &added), (2, &[]), (5, &four), (6, &four)];
        let expected = "prevblkno 5, nextblkno 4294967295, ntups 2, is_primary F";
        rec(18, 0x80, &squeeze, blocks).check(expected, &[]);
        rec(19, 0x80, &squeeze, blocks).check(&format!("{expected}, is_previous T"), &[]);
        let nothing = le![5u32, 8u32, 0u16, 0u8, 0u8];
        let blocks: &[(u8, &[u8])] = &[(0, &[]), (2, &[]), (3, &[]), (4, &[]), (5, &four)];
        rec(18, 0x80, &nothing, blocks).check("prevblkno 5, nextblkno 8, ntups 0, is_primary F", &[]);
        let unexpected = rec(18, 0x80, &nothing, &[(1, &added), (5, &four)]).parse().unwrap_err();
        assert_eq!(unexpected.kind().to_string(), "36 bytes left over after Hash");
    }

    #[test]
    fn removed_tuples() {
        let deleted = le![1u16, 2u16, 9u16];
        let delete = |data| rec(15, 0x90, &[1, 0], &[(0, &[]), (1, data)]).parse().map(Option::unwrap);
        assert!(delete(&deleted).unwrap().contains("deleted: Some([OffsetNumber(1), OffsetNumber(2), OffsetNumber(9)])"));
        for cut in 0..deleted.len() {
            assert_eq!(delete(&deleted[..cut]).is_ok(), cut % 2 == 0, "{cut}");
        }
        let blocks: &[(u8, &[u8])] = &[(0, &[]), (1, &[])];
        let old = [le![1663u32, 5u32, 16384u32, 3i32], deleted.clone()].concat();
        rec(10, 0xC0, &old, blocks).check("ntuples 3", &[]);
        rec(11, 0xC0, &old, blocks).check("ntuples 3", &[]);
        let with_xid = [le![777u32, 3i32], deleted.clone()].concat();
        rec(12, 0xC0, &with_xid, blocks).check("ntuples 3, latest removed xid 777", &[]);
        rec(13, 0xC0, &with_xid, blocks).check("ntuples 3, latest removed xid 777", &[]);
        rec(14, 0xC0, &with_xid, blocks).check("ntuples 3, latestRemovedXid 777", &[]);
        rec(15, 0xC0, &with_xid, blocks).check("ntuples 3, latestRemovedXid 777", &[]);
        let new = [le![777u32, 3u16, 1u8, 0x7Fu8], deleted].concat();
        rec(16, 0xC0, &new, blocks).check("ntuples 3, snapshotConflictHorizon 777", &[]);
        rec(17, 0xC0, &new, blocks).check("ntuples 3, snapshotConflictHorizon 777, isCatalogRel T", &[]);
        rec(19, 0xC0, &new, blocks).check("ntuples 3, snapshotConflictHorizon 777, isCatalogRel T", &[]);
        let negative = le![777u32, -1i32];
        assert!(rec(15, 0xC0, &negative, blocks).parse().is_err());
    }
}
