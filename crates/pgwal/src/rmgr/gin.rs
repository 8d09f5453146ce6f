//! GIN, resource manager 13. C: access/ginxlog.h, access/ginblock.h; text: rmgrdesc/gindesc.c, which 19 changed.

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::{Body, Describe, Opcode, letter, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::index_tuple::IndexTuple;
use crate::record::Record;
use crate::text::Text;
use crate::types::{BlockNumber, Int8, ItemPointer, OffsetNumber, RelFileLocator, Xid};
use crate::wire::{Array, Bytes, CBool, FixedSize, List, Pad, Parsed, Wire, WireError, array, bytes, list, list_all, list_until, rest};

/// Record types.
pub const OPCODES: &[Opcode] = &[
    op(0x00, "CREATE_INDEX", Majors::until(11)),
    op(0x10, "CREATE_PTREE", Majors::ALL),
    op(0x20, "INSERT", Majors::ALL),
    op(0x30, "SPLIT", Majors::ALL),
    op(0x40, "VACUUM_PAGE", Majors::ALL),
    op(0x50, "DELETE_PAGE", Majors::ALL),
    op(0x60, "UPDATE_META_PAGE", Majors::ALL),
    op(0x70, "INSERT_LISTPAGE", Majors::ALL),
    op(0x80, "DELETE_LISTPAGE", Majors::ALL),
    op(0x90, "VACUUM_DATA_LEAF_PAGE", Majors::ALL),
];

/// A block number in two halves, the upper one first, so that it needs no more than 2-byte alignment. C: `BlockIdData`,
/// storage/block.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct BlockId(pub BlockNumber);

impl Wire<'_> for BlockId {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        let (input, high) = u16::read(input, fmt)?;
        let (input, low) = u16::read(input, fmt)?;
        Ok((input, BlockId(BlockNumber(u32::from(high) << 16 | u32::from(low)))))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        ((self.0.0 >> 16) as u16).write(fmt, out);
        (self.0.0 as u16).write(fmt, out);
    }
}
impl FixedSize for BlockId {
    fn size(_: WalFormat) -> usize {
        4
    }
}

wire_flags! {
    /// What kind of page an INSERT or SPLIT changes. C: `ginxlogInsert.flags`, `ginxlogSplit.flags`.
    pub struct GinFlags: u16 {
        /// A page of a posting tree; without it, of the entry tree.
        GIN_INSERT_ISDATA = 0x01,
        /// A leaf page.
        GIN_INSERT_ISLEAF = 0x02,
        /// The root is split: it moves down to a new left page. Only in SPLIT.
        GIN_SPLIT_ROOT = 0x04,
    }
}

/// Heap tuples with one key, compressed: the first as it is, each further one as its distance from the one before.
///
/// C: `GinPostingList`, 8 bytes and then `nbytes`, padded to a multiple of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostingList<'a> {
    /// First heap tuple.
    pub first: ItemPointer,
    /// Distances to the further ones, seven bits a byte, the lowest first. C: `bytes`, `nbytes`.
    pub bytes: Bytes<'a>,
    /// Padding after an odd number of bytes.
    pub pad: Option<u8>,
}

impl PostingList<'_> {
    /// Bits of an item's number that hold the offset on its page. C: `MaxHeapTuplesPerPageBits`.
    const OFFSET_BITS: u32 = 11;

    /// The heap tuples in order; `None` where the bytes are not a posting list's.
    pub fn items(&self) -> Option<Vec<ItemPointer>> {
        let mut value = u64::from(self.first.block.0) << Self::OFFSET_BITS | u64::from(self.first.offnum.0);
        let mut items = vec![self.first];
        let (mut distance, mut shift) = (0u64, 0);
        for &byte in self.bytes.iter() {
            // Seven bytes of seven bits hold the 43 bits of the largest number.
            if shift > 42 {
                return None;
            }
            distance |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                value = value.checked_add(distance)?;
                let block = u32::try_from(value >> Self::OFFSET_BITS).ok()?;
                let offnum = OffsetNumber((value & ((1 << Self::OFFSET_BITS) - 1)) as u16);
                items.push(ItemPointer { block: BlockNumber(block), offnum });
                (distance, shift) = (0, 0);
            }
        }
        (shift == 0).then_some(items)
    }
}

impl<'a> Wire<'a> for PostingList<'a> {
    fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (input, first) = ItemPointer::read(input, fmt).map_err(|e| e.in_field("GinPostingList.first"))?;
        let (input, nbytes) = u16::read(input, fmt).map_err(|e| e.in_field("GinPostingList.nbytes"))?;
        let (mut input, items) = bytes(input, nbytes.into(), "GinPostingList.bytes")?;
        let mut pad = None;
        if nbytes % 2 == 1 {
            let (rest, byte) = u8::read(input, fmt).map_err(|e| e.in_field("GinPostingList.bytes"))?;
            (input, pad) = (rest, Some(byte));
        }
        Ok((input, PostingList { first, bytes: Bytes(items), pad }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.first.write(fmt, out);
        (self.bytes.len() as u16).write(fmt, out);
        out.extend_from_slice(&self.bytes);
        out.extend(self.pad);
    }
}

/// `first`, `bytes` in hexadecimal, and `items`: the tuples that these stand for, or null.
impl Serialize for PostingList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_struct("PostingList", 3)?;
        list.serialize_field("first", &self.first)?;
        list.serialize_field("bytes", &self.bytes)?;
        list.serialize_field("items", &self.items())?;
        list.end()
    }
}

/// New leaf page of a posting tree, the root of its own; block 0. C: `ginxlogCreatePostingTree` and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CreatePtree<'a> {
    /// The page's content. C: `size` bytes.
    pub segments: List<'a, PostingList<'a>>,
}

impl<'a> CreatePtree<'a> {
    fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (input, size) = u32::read(input, fmt).map_err(|e| e.in_field("ginxlogCreatePostingTree.size"))?;
        let (rest, segments) = bytes(input, size as usize, "ginxlogCreatePostingTree.size")?;
        let segments = list_all(segments, fmt).map_err(|e| WireError { left: e.left.saturating_add(rest.len()), ..e })?;
        Ok((rest, CreatePtree { segments }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        (self.segments.raw().len() as u32).write(fmt, out);
        self.segments.write(out);
    }
}

wire_struct! {
    /// The two pages of an earlier split that this insertion finishes. C: `BlockIdData[2]` after `ginxlogInsert`.
    pub struct Children("ginxlogInsert") {
        /// Page that was split; block 1 refers to it, too.
        left: BlockId,
        /// New page on its right.
        right: BlockId,
    }
}

/// Insertion into a page, block 0. C: `ginxlogInsert` and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Insert<'a> {
    /// Kind of the page.
    pub flags: GinFlags,
    /// The split that this downlink finishes; `None` on a leaf page.
    pub children: Option<Children>,
    /// Data of block 0; `None` where an image of the page stands for it.
    pub change: Option<Change<'a>>,
}

/// What an INSERT does to the page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change<'a> {
    /// To a page of the entry tree.
    Entry(InsertEntry<'a>),
    /// To a leaf page of a posting tree.
    Recompress(RecompressLeaf<'a>),
    /// To an inner page of a posting tree.
    Downlink(InsertDataInternal),
}

wire_struct! {
    /// Fixed part of an insertion into the entry tree, 4 bytes with padding. C: `ginxlogInsertEntry`.
    pub struct InsertEntryHead("ginxlogInsertEntry") {
        /// Line pointer of the new tuple.
        offset: OffsetNumber,
        /// The tuple that is there goes first. C: `isDelete`.
        is_delete: CBool,
        /// Padding.
        pad: Pad<1>,
    }
}

/// Insertion into the entry tree. C: `ginxlogInsertEntry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertEntry<'a> {
    /// Where.
    pub head: InsertEntryHead,
    /// The new tuple: a key with its posting list or the root of its posting tree, or a downlink.
    pub tuple: IndexTuple<'a>,
}
json_object!(InsertEntry<'_> { ..head, tuple });

wire_struct! {
    /// Downlink in a posting tree, 10 bytes. C: `PostingItem`.
    pub struct PostingItem("PostingItem") {
        /// Child page. C: `child_blkno`.
        child: BlockId,
        /// Upper bound of the tuples under the child.
        key: ItemPointer,
    }
}

wire_struct! {
    /// Insertion into an inner page of a posting tree. C: `ginxlogInsertDataInternal`, 12 bytes.
    pub struct InsertDataInternal("ginxlogInsertDataInternal") {
        /// Place among the page's items, counted from 1.
        offset: OffsetNumber,
        /// The new item; the one that was there now leads to the new right page. C: `newitem`.
        new_item: PostingItem,
    }
}

/// Changes to the segments of a posting tree's leaf page. C: `ginxlogRecompressDataLeaf`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RecompressLeaf<'a> {
    /// Number of actions; more than `actions` has where one of an unknown type ends these early. C: `nactions`.
    pub nactions: u16,
    /// The actions, by ascending segment.
    pub actions: List<'a, SegmentAction<'a>>,
}

/// A change to one segment, a posting list. C: `ginxlogSegmentAction`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SegmentAction<'a> {
    /// Number of the segment on the page, counted from 0.
    pub segno: u8,
    /// What happens to it. C: `type`.
    pub action: Action<'a>,
}

/// What happens to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action<'a> {
    /// It is removed. C: `GIN_SEGMENT_DELETE`.
    Delete,
    /// A new one is put in front of it. C: `GIN_SEGMENT_INSERT`.
    Insert(PostingList<'a>),
    /// A new one takes its place. C: `GIN_SEGMENT_REPLACE`.
    Replace(PostingList<'a>),
    /// Heap tuples are added to it. C: `GIN_SEGMENT_ADDITEMS`.
    AddItems {
        /// The tuples.
        items: Array<'a, ItemPointer>,
    },
    /// A type that no server writes; nothing after it can be read.
    Unknown {
        /// The type.
        r#type: u8,
        /// The rest of the data.
        rest: Bytes<'a>,
    },
}

impl<'a> Wire<'a> for SegmentAction<'a> {
    fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (input, segno) = u8::read(input, fmt).map_err(|e| e.in_field("ginxlogSegmentAction.segno"))?;
        let (input, r#type) = u8::read(input, fmt).map_err(|e| e.in_field("ginxlogSegmentAction.type"))?;
        let (input, action) = match r#type {
            1 => (input, Action::Delete),
            2 => PostingList::read(input, fmt).map(|(input, list)| (input, Action::Insert(list)))?,
            3 => PostingList::read(input, fmt).map(|(input, list)| (input, Action::Replace(list)))?,
            4 => {
                let (input, nitems) = u16::read(input, fmt).map_err(|e| e.in_field("ginxlogSegmentAction.nitems"))?;
                let (input, items) = array(input, nitems, fmt, "ginxlogSegmentAction.items")?;
                (input, Action::AddItems { items })
            }
            _ => rest(input).map(|(input, rest)| (input, Action::Unknown { r#type, rest: Bytes(rest) }))?,
        };
        Ok((input, SegmentAction { segno, action }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        out.push(self.segno);
        match &self.action {
            Action::Delete => out.push(1),
            Action::Insert(list) => {
                out.push(2);
                list.write(fmt, out);
            }
            Action::Replace(list) => {
                out.push(3);
                list.write(fmt, out);
            }
            Action::AddItems { items } => {
                out.push(4);
                (items.len() as u16).write(fmt, out);
                items.write(out);
            }
            Action::Unknown { r#type, rest } => {
                out.push(*r#type);
                out.extend_from_slice(rest);
            }
        }
    }
}

impl<'a> Wire<'a> for RecompressLeaf<'a> {
    fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (input, nactions) = u16::read(input, fmt).map_err(|e| e.in_field("ginxlogRecompressDataLeaf.nactions"))?;
        let is_last = |action: &SegmentAction<'_>| matches!(action.action, Action::Unknown { .. });
        let (input, actions) = list_until(input, nactions, fmt, "ginxlogSegmentAction", is_last)?;
        Ok((input, RecompressLeaf { nactions, actions }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.nactions.write(fmt, out);
        self.actions.write(out);
    }
}

wire_struct! {
    /// Split of a page; images of all pages come along. C: `ginxlogSplit`, 28 bytes with padding.
    ///
    /// Block 0 is the new left page (the split one itself, unless it was the root), 1 the new right page, 2 the root that was
    /// split, 3 the left child of an earlier split that this one finishes.
    pub struct Split("ginxlogSplit") {
        /// The index. C: `locator`, `node` before 16.
        rel: RelFileLocator,
        /// Right link of the split page, or the root's block when the root is split.
        right_link: BlockNumber,
        /// Child that was split; meaningful on inner pages. C: `leftChildBlkno`.
        left_child: BlockNumber,
        /// Its new right sibling. C: `rightChildBlkno`.
        right_child: BlockNumber,
        /// Kind of the page.
        flags: GinFlags,
        /// Padding.
        pad: Pad<2>,
    }
}

/// Vacuum of a posting tree's leaf page, block 0. C: `ginxlogVacuumDataLeafPage`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct VacuumDataLeafPage<'a> {
    /// Data of block 0; `None` where an image of the page stands for it.
    pub data: Option<RecompressLeaf<'a>>,
}

wire_struct! {
    /// Fixed part of DELETE_PAGE, 8 bytes with padding. C: `ginxlogDeletePage`.
    pub struct DeletePageHead("ginxlogDeletePage") {
        /// Item of the parent that led to the page, counted from 1. C: `parentOffset`.
        parent_offset: OffsetNumber,
        /// Padding.
        pad: Pad<2>,
        /// Right link of the page, which its left sibling takes over. C: `rightLink`.
        right_link: BlockNumber,
    }
}

/// A posting tree's page is deleted. Block 0 is the page, 1 its parent, 2 its left sibling. C: `ginxlogDeletePage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletePage {
    /// Where.
    pub head: DeletePageHead,
    /// Newest transaction that could still come to the page; `None` in WAL of 10 before 10.7 and 11 before 11.2. C: `deleteXid`.
    pub delete_xid: Option<Xid>,
}
json_object!(DeletePage { ..head, delete_xid });

impl DeletePage {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        let (input, head) = DeletePageHead::read(input, fmt)?;
        if input.is_empty() && !fmt.since(12) {
            return Ok((input, DeletePage { head, delete_xid: None }));
        }
        let (input, xid) = Xid::read(input, fmt).map_err(|e| e.in_field("ginxlogDeletePage.deleteXid"))?;
        Ok((input, DeletePage { head, delete_xid: Some(xid) }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.head.write(fmt, out);
        if let Some(xid) = self.delete_xid {
            xid.write(fmt, out);
        }
    }
}

wire_struct! {
    /// Content of an index's first page. C: `GinMetaPageData`, 56 bytes with padding.
    pub struct MetaPageData("GinMetaPageData") {
        /// First page of the pending list; invalid when it is empty.
        head: BlockNumber,
        /// Last page of the pending list.
        tail: BlockNumber,
        /// Free bytes on the last page. C: `tailFreeSize`.
        tail_free_size: u32,
        /// Pages in the pending list. C: `nPendingPages`.
        npending_pages: u32,
        /// Heap tuples in the pending list. C: `nPendingHeapTuples`.
        npending_heap_tuples: Int8,
        /// Pages of the index when it was last vacuumed. C: `nTotalPages`.
        ntotal_pages: u32,
        /// Entry tree's pages then. C: `nEntryPages`.
        nentry_pages: u32,
        /// Posting trees' pages then. C: `nDataPages`.
        ndata_pages: u32,
        /// Padding.
        pad: Pad<4>,
        /// Keys then. C: `nEntries`.
        nentries: Int8,
        /// Format of the index: 0 and 1 are from before 9.4. C: `ginVersion`.
        gin_version: i32,
        /// Padding.
        pad_end: Pad<4>,
    }
}

wire_struct! {
    /// Fixed part of UPDATE_META_PAGE, 88 bytes with padding. C: `ginxlogUpdateMeta`.
    pub struct UpdateMetaHead("ginxlogUpdateMeta") {
        /// The index. C: `locator`, `node` before 16.
        rel: RelFileLocator,
        /// Padding.
        pad: Pad<4>,
        /// New content of the metapage.
        metadata: MetaPageData,
        /// Last page of the pending list before, where a list is appended to it, or invalid. C: `prevTail`.
        prev_tail: BlockNumber,
        /// First page of the appended list. C: `newRightlink`.
        new_right_link: BlockNumber,
        /// Tuples added to the last page of the pending list; 0: a list was appended, or only the metapage changes.
        ntuples: i32,
        /// Padding.
        pad_end: Pad<4>,
    }
}

/// The metapage, block 0, changes, and with it the last page of the pending list, block 1. C: `ginxlogUpdateMeta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateMeta<'a> {
    /// Main data.
    pub head: UpdateMetaHead,
    /// Tuples added to block 1; `None` where there are none, or an image of the page stands for them.
    pub tuples: Option<List<'a, IndexTuple<'a>>>,
}
json_object!(UpdateMeta<'_> { ..head, tuples });

wire_struct! {
    /// Fixed part of INSERT_LISTPAGE, 8 bytes. C: `ginxlogInsertListPage`.
    pub struct InsertListPageHead("ginxlogInsertListPage") {
        /// Next page of the pending list; invalid on the last one.
        right_link: BlockNumber,
        /// Tuples on the page.
        ntuples: i32,
    }
}

/// New page of the pending list, block 0. C: `ginxlogInsertListPage`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InsertListPage<'a> {
    /// Main data.
    pub head: InsertListPageHead,
    /// The page's tuples; `None` where an image of the page stands for them.
    pub tuples: Option<List<'a, IndexTuple<'a>>>,
}
json_object!(InsertListPage<'_> { ..head, tuples });

wire_struct! {
    /// Pages at the front of the pending list are deleted: blocks 1 to `ndeleted`. Block 0 is the metapage.
    /// C: `ginxlogDeleteListPages`, 64 bytes with padding.
    pub struct DeleteListPages("ginxlogDeleteListPages") {
        /// New content of the metapage.
        metadata: MetaPageData,
        /// Pages deleted.
        ndeleted: i32,
        /// Padding.
        pad: Pad<4>,
    }
}

/// A record of this resource manager.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// An empty index: the metapage, block 0, and the root of the entry tree, block 1. Up to 11.
    CreateIndex,
    /// A new posting tree.
    CreatePtree(CreatePtree<'a>),
    /// An insertion.
    Insert(Insert<'a>),
    /// A page split.
    Split(Split),
    /// Vacuum of a page of the entry tree, block 0, whose image comes along.
    VacuumPage,
    /// Vacuum of a leaf page of a posting tree.
    VacuumDataLeafPage(VacuumDataLeafPage<'a>),
    /// A page of a posting tree is deleted.
    DeletePage(DeletePage),
    /// The metapage changes.
    #[serde(rename = "update_meta_page")]
    UpdateMeta(UpdateMeta<'a>),
    /// A new page of the pending list.
    #[serde(rename = "insert_listpage")]
    InsertListPage(InsertListPage<'a>),
    /// Pages of the pending list are deleted.
    #[serde(rename = "delete_listpage")]
    DeleteListPages(DeleteListPages),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let main = rec.main;
    let empty = |what| rec.parse_all(what, main, |i| Ok((i, ())));
    let op = match rec.info().opcode() {
        0x00 if !fmt.since(12) => empty("XLOG_GIN_CREATE_INDEX").map(|()| Op::CreateIndex)?,
        0x10 => Op::CreatePtree(rec.parse_all("ginxlogCreatePostingTree", main, |i| CreatePtree::read(i, fmt))?),
        0x20 => Op::Insert(parse_insert(rec, fmt)?),
        0x30 => Op::Split(rec.parse_all("ginxlogSplit", main, |i| Split::read(i, fmt))?),
        0x40 => empty("XLOG_GIN_VACUUM_PAGE").map(|()| Op::VacuumPage)?,
        0x50 => Op::DeletePage(rec.parse_all("ginxlogDeletePage", main, |i| DeletePage::read(i, fmt))?),
        0x60 => {
            let head = rec.parse_all("ginxlogUpdateMeta", main, |i| UpdateMetaHead::read(i, fmt))?;
            let tuples = if head.ntuples > 0 { parse_tuples(rec, 1, head.ntuples, fmt)? } else { None };
            Op::UpdateMeta(UpdateMeta { head, tuples })
        }
        0x70 => {
            let head = rec.parse_all("ginxlogInsertListPage", main, |i| InsertListPageHead::read(i, fmt))?;
            let tuples = parse_tuples(rec, 0, head.ntuples.max(0), fmt)?;
            Op::InsertListPage(InsertListPage { head, tuples })
        }
        0x80 => Op::DeleteListPages(rec.parse_all("ginxlogDeleteListPages", main, |i| DeleteListPages::read(i, fmt))?),
        0x90 => {
            empty("XLOG_GIN_VACUUM_DATA_LEAF_PAGE")?;
            let data = rec.parse_block_or_image("ginxlogVacuumDataLeafPage", 0, |i| RecompressLeaf::read(i, fmt))?;
            Op::VacuumDataLeafPage(VacuumDataLeafPage { data })
        }
        _ => return Ok(None),
    };
    let with_data: &[u8] = match &op {
        Op::Insert(_) | Op::VacuumDataLeafPage(_) | Op::InsertListPage(_) => &[0],
        Op::UpdateMeta(meta) if meta.head.ntuples > 0 => &[1],
        _ => &[],
    };
    rec.only_block_data("GIN record", with_data)?;
    Ok(Some(op))
}

fn parse_insert<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Insert<'r>> {
    let (flags, children) = rec.parse_all("ginxlogInsert", rec.main, |i| {
        let (i, flags) = GinFlags::read(i, fmt).map_err(|e| e.in_field("ginxlogInsert.flags"))?;
        if flags.contains(GinFlags::GIN_INSERT_ISLEAF) {
            return Ok((i, (flags, None)));
        }
        let (i, children) = Children::read(i, fmt)?;
        Ok((i, (flags, Some(children))))
    })?;
    let change = match (flags.contains(GinFlags::GIN_INSERT_ISDATA), children) {
        (false, _) => rec.parse_block_or_image("ginxlogInsertEntry", 0, |i| {
            let (i, head) = InsertEntryHead::read(i, fmt)?;
            let (i, tuple) = IndexTuple::read(i, fmt)?;
            Ok((i, Change::Entry(InsertEntry { head, tuple })))
        }),
        (true, None) => rec.parse_block_or_image("ginxlogRecompressDataLeaf", 0, |i| {
            RecompressLeaf::read(i, fmt).map(|(i, data)| (i, Change::Recompress(data)))
        }),
        (true, Some(_)) => rec.parse_block_or_image("ginxlogInsertDataInternal", 0, |i| {
            InsertDataInternal::read(i, fmt).map(|(i, data)| (i, Change::Downlink(data)))
        }),
    };
    Ok(Insert { flags, children, change: change? })
}

/// Tuples of a page of the pending list.
fn parse_tuples<'r>(rec: &Record<'r>, id: u8, count: i32, fmt: WalFormat) -> Result<Option<List<'r, IndexTuple<'r>>>> {
    rec.parse_block_or_image("IndexTupleData", id, |i| list(i, count, fmt, "IndexTupleData"))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::CreateIndex | Op::VacuumPage => {}
            Op::CreatePtree(it) => it.write(fmt, &mut body.main),
            Op::Insert(it) => {
                it.flags.write(fmt, &mut body.main);
                if let Some(children) = &it.children {
                    children.write(fmt, &mut body.main);
                }
                match &it.change {
                    None => {}
                    Some(Change::Entry(entry)) => {
                        let out = body.block(0);
                        entry.head.write(fmt, out);
                        entry.tuple.write(fmt, out);
                    }
                    Some(Change::Recompress(data)) => data.write(fmt, body.block(0)),
                    Some(Change::Downlink(data)) => data.write(fmt, body.block(0)),
                }
            }
            Op::Split(it) => it.write(fmt, &mut body.main),
            Op::VacuumDataLeafPage(it) => {
                if let Some(data) = &it.data {
                    data.write(fmt, body.block(0));
                }
            }
            Op::DeletePage(it) => it.write(fmt, &mut body.main),
            Op::UpdateMeta(it) => {
                it.head.write(fmt, &mut body.main);
                if let Some(tuples) = &it.tuples {
                    tuples.write(body.block(1));
                }
            }
            Op::InsertListPage(it) => {
                it.head.write(fmt, &mut body.main);
                if let Some(tuples) = it.tuples.filter(|tuples| !tuples.is_empty()) {
                    tuples.write(body.block(0));
                }
            }
            Op::DeleteListPages(it) => it.write(fmt, &mut body.main),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        match self {
            Op::CreateIndex | Op::CreatePtree(_) | Op::VacuumPage | Op::DeletePage(_) => {}
            Op::Insert(it) => it.describe(rec, fmt, out),
            Op::Split(it) => it.describe(rec, fmt, out),
            Op::VacuumDataLeafPage(it) => it.describe(rec, fmt, out),
            Op::UpdateMeta(it) => it.head.describe(rec, fmt, out),
            Op::InsertListPage(it) => it.head.describe(rec, fmt, out),
            Op::DeleteListPages(it) => put!(out, "ndeleted: ", it.ndeleted),
        }
    }
}

impl Describe for Insert<'_> {
    fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        put!(out, "isdata: ", letter(self.flags.contains(GinFlags::GIN_INSERT_ISDATA)));
        put!(out, " isleaf: ", letter(self.flags.contains(GinFlags::GIN_INSERT_ISLEAF)));
        if let Some(children) = &self.children {
            put!(out, " children: ", children.left.0, "/", children.right.0);
        }
        if describe_image(rec, fmt, out) {
            return;
        }
        match &self.change {
            None => {}
            Some(Change::Entry(entry)) => put!(out, " isdelete: ", letter(entry.head.is_delete.get())),
            Some(Change::Recompress(data)) => data.describe(rec, fmt, out),
            Some(Change::Downlink(data)) => {
                let item = &data.new_item;
                put!(out, " pitem: ", item.child.0, "-", item.key.block, "/", item.key.offnum);
            }
        }
    }
}

impl Describe for Split {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        put!(out, "isrootsplit: ", letter(self.flags.contains(GinFlags::GIN_SPLIT_ROOT)));
        put!(out, " isdata: ", letter(self.flags.contains(GinFlags::GIN_INSERT_ISDATA)));
        put!(out, " isleaf: ", letter(self.flags.contains(GinFlags::GIN_INSERT_ISLEAF)));
        if fmt.since(19) && self.left_child != BlockNumber::INVALID {
            put!(out, " children: ", self.left_child, "/", self.right_child);
        }
    }
}

impl Describe for VacuumDataLeafPage<'_> {
    fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if !describe_image(rec, fmt, out)
            && let Some(data) = &self.data
        {
            data.describe(rec, fmt, out);
        }
    }
}

impl Describe for UpdateMetaHead {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if !fmt.since(19) {
            return;
        }
        put!(out, "ntuples: ", self.ntuples);
        if self.prev_tail != BlockNumber::INVALID {
            put!(out, " prevTail: ", self.prev_tail);
        }
        if self.new_right_link != BlockNumber::INVALID {
            put!(out, " newRightlink: ", self.new_right_link);
        }
    }
}

impl Describe for InsertListPageHead {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if !fmt.since(19) {
            return;
        }
        put!(out, "ntuples: ", self.ntuples);
        if self.right_link != BlockNumber::INVALID {
            put!(out, " rightlink: ", self.right_link);
        }
    }
}

impl Describe for RecompressLeaf<'_> {
    fn describe(&self, _: &Record<'_>, _: WalFormat, out: &mut Text) {
        put!(out, " ", self.nactions, " segments:");
        for SegmentAction { segno, action } in self.actions.iter() {
            match action {
                Action::AddItems { items } => put!(out, " ", segno, " (add ", items.len(), " items)"),
                Action::Delete => put!(out, " ", segno, " (delete)"),
                Action::Insert(_) => put!(out, " ", segno, " (insert)"),
                Action::Replace(_) => put!(out, " ", segno, " (replace)"),
                Action::Unknown { r#type, .. } => put!(out, " ", segno, " unknown action ", r#type, " ???"),
            }
        }
    }
}

/// Whether block 0 has an image, whose data is then not described. Before 19 the text says so.
fn describe_image(rec: &Record<'_>, fmt: WalFormat, out: &mut Text) -> bool {
    let Some(image) = rec.block(0).and_then(|block| block.image.as_ref()) else {
        return false;
    };
    if !fmt.since(19) {
        put!(out, if image.apply() { " (full page image)" } else { " (full page image, for WAL verification)" });
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Image, ImageInfo};
    use crate::rmgr::testing::{Rec, le};
    use crate::text::Zone;

    fn rec<'a>(major: u8, info: u8, main: &'a [u8], blocks: &'a [(u8, &'a [u8])]) -> Rec<'a> {
        Rec { major, rmid: 13, info, main, blocks, ..Rec::default() }
    }

    /// An index tuple of 16 bytes.
    fn tuple() -> Vec<u8> {
        le![0u16, 7u16, 3u16, 0x4010u16, 0x0102_0304_0506_0708u64]
    }

    fn metadata() -> Vec<u8> {
        le![2u32, 3u32, 8000u32, 2u32, 40i64, 10u32, 6u32, 3u32, 0u32, 99i64, 2i32, 0u32]
    }

    /// (1,2), and two more: 3 and 2048 (a block further, on the same line pointer) away.
    fn posting_list() -> Vec<u8> {
        [le![0u16, 1u16, 2u16, 3u16], vec![0x03, 0x80, 0x10, 0xEE]].concat()
    }

    #[test]
    fn posting_lists_hold_distances() {
        let bytes = posting_list();
        let (rest, list) = PostingList::read(&bytes, WalFormat::new(15)).unwrap();
        assert!(rest.is_empty());
        assert_eq!(list.pad, Some(0xEE));
        let item = |block, offnum| ItemPointer { block: BlockNumber(block), offnum: OffsetNumber(offnum) };
        assert_eq!(list.items(), Some(vec![item(1, 2), item(1, 5), item(2, 5)]));
        let none = PostingList { bytes: Bytes(&[]), ..list };
        assert_eq!(none.items(), Some(vec![item(1, 2)]));
        // Seven bytes for the farthest block; then what no list can hold: an open end, eight bytes, a block beyond the last.
        let far = PostingList { first: item(0, 1), bytes: Bytes(&[0x80, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]), ..list };
        assert_eq!(far.items(), Some(vec![item(0, 1), item(u32::MAX, 1)]));
        for bad in [&[0x80][..], &[0x80; 8], &[0x80, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0x03]] {
            assert_eq!(PostingList { bytes: Bytes(bad), ..list }.items(), None, "{bad:x?}");
        }
    }

    #[test]
    fn create() {
        for major in [10, 11] {
            rec(major, 0x00, &[], &[(0, &[]), (1, &[])]).check("", &[]);
        }
        assert_eq!(rec(12, 0x00, &[], &[(0, &[])]).parse(), Ok(None));
        let lists = [posting_list(), le![0u16, 9u16, 1u16, 2u16, 0x0101u16]].concat();
        let main = [le![lists.len() as u32], lists].concat();
        for major in 10..=19 {
            rec(major, 0x10, &main, &[(0, &[])]).check("", &[]);
        }
    }

    #[test]
    fn insert_into_the_entry_tree() {
        let data = [le![4u16, 1u8, 0xAAu8], tuple()].concat();
        for major in 10..=19 {
            rec(major, 0x20, &le![2u16], &[(0, &data)]).check("isdata: F isleaf: T isdelete: T", &[]);
            let main = le![0u16, 1u16, 2u16, 0u16, 9u16];
            let blocks: &[(u8, &[u8])] = &[(0, &data), (1, &[])];
            rec(major, 0x20, &main, blocks).check("isdata: F isleaf: F children: 65538/9 isdelete: T", &[]);
        }
        assert!(rec(15, 0x20, &le![2u16], &[(0, &data), (1, &[1])]).parse().is_err(), "data of a block that has none");
        assert!(rec(15, 0x20, &le![2u16], &[(0, &[])]).parse().is_err(), "neither data nor image");
        let short = [le![4u16, 0u16], le![0u16, 7u16, 3u16, 0x4007u16]].concat();
        let error = rec(15, 0x20, &le![2u16], &[(0, &short)]).parse().unwrap_err();
        assert!(error.to_string().contains("IndexTupleData.t_info: expected a size of at least 8, found 7"), "{error}");
    }

    #[test]
    fn insert_into_a_posting_tree() {
        let leaf = [
            le![4u16, 0u8, 1u8],
            le![1u8, 2u8],
            posting_list(),
            le![5u8, 3u8],
            posting_list(),
            le![9u8, 4u8, 2u16],
            le![0u16, 1u16, 2u16, 0u16, 1u16, 3u16],
        ]
        .concat();
        let inner = le![2u16, 0u16, 8u16, 1u16, 0u16, 5u16];
        for major in 10..=19 {
            let text = "isdata: T isleaf: T 4 segments: 0 (delete) 1 (insert) 5 (replace) 9 (add 2 items)";
            rec(major, 0x20, &le![3u16], &[(0, &leaf)]).check(text, &[]);
            rec(major, 0x90, &[], &[(0, &leaf)]).check(&text["isdata: T isleaf: T".len()..], &[]);
            let text = "isdata: T isleaf: F children: 1/2 pitem: 8-65536/5";
            rec(major, 0x20, &le![1u16, 0u16, 1u16, 0u16, 2u16], &[(0, &inner)]).check(text, &[]);
        }
    }

    #[test]
    fn an_unknown_action_ends_the_list() {
        let data = le![3u16, 0u8, 1u8, 7u8, 9u8, 0xABCDu16];
        rec(15, 0x90, &[], &[(0, &data)]).with(|rec| {
            let Some(Op::VacuumDataLeafPage(VacuumDataLeafPage { data: Some(leaf) })) = parse(rec, rec.fmt()).unwrap() else {
                panic!("{:?}", parse(rec, rec.fmt()))
            };
            assert_eq!((leaf.nactions, leaf.actions.len()), (3, 2));
            let mut out = Text::new(rec.fmt(), Zone::utc());
            leaf.describe(rec, rec.fmt(), &mut out);
            assert_eq!(out.to_string_lossy(), " 3 segments: 0 (delete) 7 unknown action 9 ???");
            let mut body = Body::default();
            Op::VacuumDataLeafPage(VacuumDataLeafPage { data: Some(leaf) }).write(rec.fmt(), &mut body);
            assert_eq!(body.blocks, [(0, data.clone())]);
        });
    }

    #[test]
    fn an_image_stands_for_the_data() {
        for (major, bits, text) in [
            (10, 0x05, " (full page image)"),
            (14, 0x01, " (full page image, for WAL verification)"),
            (15, 0x03, " (full page image)"),
            (18, 0x01, " (full page image, for WAL verification)"),
            (19, 0x03, ""),
        ] {
            for (info, main, start) in [(0x20, &[2, 0][..], "isdata: F isleaf: T"), (0x90, &[], "")] {
                rec(major, info, main, &[(0, &[])]).with(|rec| {
                    let mut rec = rec.clone();
                    let info = ImageInfo::new(bits, rec.fmt());
                    rec.blocks[0].image = Some(Image { data: &[], len: 0, hole_offset: 0, hole_length: 0, info });
                    let op = parse(&rec, rec.fmt()).unwrap().unwrap();
                    let mut out = Text::new(rec.fmt(), Zone::utc());
                    op.describe(&rec, rec.fmt(), &mut out);
                    assert_eq!(out.to_string_lossy(), format!("{start}{text}"), "{major}");
                });
            }
        }
    }

    #[test]
    fn split() {
        let main = |left: u32, right: u32, flags: u16| le![1663u32, 5u32, 16400u32, 77u32, left, right, flags, 0xEEEEu16];
        for major in 10..=19 {
            let text = "isrootsplit: T isdata: F isleaf: T";
            rec(major, 0x30, &main(u32::MAX, u32::MAX, 6), &[(0, &[]), (1, &[]), (2, &[])]).check(text, &[]);
            let children = if major >= 19 { " children: 4/5" } else { "" };
            let text = format!("isrootsplit: F isdata: T isleaf: F{children}");
            rec(major, 0x30, &main(4, 5, 1), &[(0, &[]), (1, &[]), (3, &[])]).check(&text, &[]);
        }
    }

    #[test]
    fn vacuum_and_delete_page() {
        for major in 10..=19 {
            rec(major, 0x40, &[], &[(0, &[])]).check("", &[]);
            let main = le![3u16, 0u16, 12u32, 750u32];
            let open: &[usize] = if major < 12 { &[8] } else { &[] };
            rec(major, 0x50, &main, &[(0, &[]), (1, &[]), (2, &[])]).check("", open);
        }
    }

    #[test]
    fn pending_list() {
        let tuples = [tuple(), tuple()].concat();
        let meta = |prev_tail: u32, new_right_link: u32, ntuples: i32| {
            [le![1663u32, 5u32, 16400u32, 0u32], metadata(), le![prev_tail, new_right_link, ntuples, 0u32]].concat()
        };
        for major in 10..=19 {
            let text = |text: &'static str| if major >= 19 { text } else { "" };
            let none = u32::MAX;
            rec(major, 0x60, &meta(none, none, 2), &[(0, &[]), (1, &tuples)]).check(text("ntuples: 2"), &[]);
            rec(major, 0x60, &meta(none, none, 0), &[(0, &[])]).check(text("ntuples: 0"), &[]);
            let appended = text("ntuples: 0 prevTail: 7 newRightlink: 9");
            rec(major, 0x60, &meta(7, 9, 0), &[(0, &[]), (1, &[])]).check(appended, &[]);
            rec(major, 0x70, &le![none, 2i32], &[(0, &tuples)]).check(text("ntuples: 2"), &[]);
            rec(major, 0x70, &le![8u32, 2i32], &[(0, &tuples)]).check(text("ntuples: 2 rightlink: 8"), &[]);
            let main = [metadata(), le![3i32, 0u32]].concat();
            rec(major, 0x80, &main, &[(0, &[]), (1, &[]), (2, &[]), (3, &[])]).check("ndeleted: 3", &[]);
        }
        assert!(rec(15, 0x60, &meta(7, 9, 0), &[(0, &[]), (1, &tuples)]).parse().is_err(), "tuples that nobody counted");
        assert!(rec(15, 0x70, &le![8u32, i32::MAX], &[(0, &tuples)]).parse().is_err(), "more tuples than bytes");
    }
}
