//! SP-GiST, resource manager 16. C: access/spgxlog.h, access/spgist_private.h; text: rmgrdesc/spgdesc.c.
//!
//! Everything is in the main data; block references carry none.

use serde::Serialize;

use super::{Body, Describe, Opcode, letter, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::index_tuple::IndexTuple;
use crate::record::Record;
use crate::text::Text;
use crate::types::{ItemPointer, OffsetNumber, Xid};
use crate::wire::{Array, Bytes, CBool, List, Pad, Parsed, Since, Wire, WireError, array, bytes, list};

/// Record types.
pub const OPCODES: &[Opcode] = &[
    op(0x00, "CREATE_INDEX", Majors::until(11)),
    op(0x10, "ADD_LEAF", Majors::ALL),
    op(0x20, "MOVE_LEAFS", Majors::ALL),
    op(0x30, "ADD_NODE", Majors::ALL),
    op(0x40, "SPLIT_TUPLE", Majors::ALL),
    op(0x50, "PICKSPLIT", Majors::ALL),
    op(0x60, "VACUUM_LEAF", Majors::ALL),
    op(0x70, "VACUUM_ROOT", Majors::ALL),
    op(0x80, "VACUUM_REDIRECT", Majors::ALL),
];

/// State of a tuple on a page; those in records are live. C: `tupstate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TupleState {
    /// An inner or leaf tuple. C: `SPGIST_LIVE`.
    Live,
    /// Points to where the tuple went. C: `SPGIST_REDIRECT`.
    Redirect,
    /// Dead, kept because of a link to it. C: `SPGIST_DEAD`.
    Dead,
    /// Keeps the offsets of others as they are. C: `SPGIST_PLACEHOLDER`.
    Placeholder,
}

impl TupleState {
    /// The state in the lowest two bits of a tuple's first word.
    fn of(word: u32) -> TupleState {
        match word & 3 {
            0 => TupleState::Live,
            1 => TupleState::Redirect,
            2 => TupleState::Dead,
            _ => TupleState::Placeholder,
        }
    }
}

wire_flags! {
    /// The upper two bits of a leaf tuple's `t_info`.
    pub struct LeafFlags: u16 {
        /// A bitmap of null values follows the header. C: `SGLT_GET_HASNULLMASK`.
        HAS_NULL_MASK = 0x8000,
    }
}

/// Leaf tuple. C: `SpGistLeafTupleData`, 12 bytes and then the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LeafTuple<'a> {
    /// State.
    pub state: TupleState,
    /// Next tuple of the same node on the page, or 0. C: 14 bits of `t_info`; `nextOffset` before 14.
    pub next: OffsetNumber,
    /// Flags. C: the other bits of `t_info`.
    pub flags: Since<14, LeafFlags>,
    /// The heap tuple. C: `heapPtr`.
    pub heap: ItemPointer,
    /// Null bitmap and values with their padding.
    pub data: Bytes<'a>,
}

impl LeafTuple<'_> {
    const HEADER: usize = 12;
}

impl<'a> Wire<'a> for LeafTuple<'a> {
    fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (i, word) = u32::read(input, fmt).map_err(|e| e.in_field("SpGistLeafTupleData.size"))?;
        let Some(len) = (word as usize >> 2).checked_sub(Self::HEADER) else {
            return Err(WireError::invalid(input, "SpGistLeafTupleData.size", "at least 12", u64::from(word >> 2)));
        };
        let (i, info) = u16::read(i, fmt).map_err(|e| e.in_field("SpGistLeafTupleData.t_info"))?;
        let (i, heap) = ItemPointer::read(i, fmt).map_err(|e| e.in_field("SpGistLeafTupleData.heapPtr"))?;
        let (i, data) = bytes(i, len, "SpGistLeafTupleData")?;
        let flags = Since(fmt.since(14).then_some(LeafFlags(info & 0xC000)));
        let next = OffsetNumber(if fmt.since(14) { info & 0x3FFF } else { info });
        Ok((i, LeafTuple { state: TupleState::of(word), next, flags, heap, data: Bytes(data) }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        let size = self.data.len().saturating_add(Self::HEADER) as u32;
        (size << 2 | self.state as u32).write(fmt, out);
        (self.next.0 | self.flags.map_or(0, |flags| flags.0)).write(fmt, out);
        self.heap.write(fmt, out);
        out.extend_from_slice(&self.data);
    }
}

/// Inner tuple: a prefix and the nodes under it. C: `SpGistInnerTupleData`, 8 bytes with padding and then prefix and nodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct InnerTuple<'a> {
    /// State.
    pub state: TupleState,
    /// All nodes mean the same, because the values could not be told apart. C: `allTheSame`.
    pub all_the_same: bool,
    /// Padding.
    #[serde(skip)]
    pub pad: Pad<2>,
    /// The prefix; empty where there is none. C: `prefixSize` bytes.
    pub prefix: Bytes<'a>,
    /// The nodes: each with a label and the place of the child, whose line pointer is 0 where there is none. C: `nNodes` tuples.
    pub nodes: List<'a, IndexTuple<'a>>,
    /// Padding up to the least size of a tuple.
    /// Padding.
    #[serde(skip)]
    pub pad_end: Bytes<'a>,
}

impl InnerTuple<'_> {
    const HEADER: usize = 8;
}

impl<'a> Wire<'a> for InnerTuple<'a> {
    fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (i, word) = u32::read(input, fmt).map_err(|e| e.in_field("SpGistInnerTupleData.tupstate"))?;
        let (i, size) = u16::read(i, fmt).map_err(|e| e.in_field("SpGistInnerTupleData.size"))?;
        let (i, pad) = Pad::read(i, fmt).map_err(|e| e.in_field("SpGistInnerTupleData"))?;
        let Some(len) = usize::from(size).checked_sub(Self::HEADER) else {
            return Err(WireError::invalid(input, "SpGistInnerTupleData.size", "at least 8", size.into()));
        };
        let (rest, content) = bytes(i, len, "SpGistInnerTupleData")?;
        // The tuple's own end limits what is inside; places are counted to the end of the input.
        let inside = |e: WireError| WireError { left: e.left.saturating_add(rest.len()), ..e };
        let (i, prefix) = bytes(content, word as usize >> 16, "SpGistInnerTupleData.prefixSize").map_err(inside)?;
        let (pad_end, nodes) = list(i, word >> 3 & 0x1FFF, fmt, "SpGistNodeTupleData").map_err(inside)?;
        let (state, all_the_same) = (TupleState::of(word), word & 4 != 0);
        Ok((rest, InnerTuple { state, all_the_same, pad, prefix: Bytes(prefix), nodes, pad_end: Bytes(pad_end) }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        let nodes = self.nodes.raw();
        let (n_nodes, prefix_size) = (self.nodes.len() as u32, self.prefix.len() as u32);
        (prefix_size << 16 | n_nodes << 3 | u32::from(self.all_the_same) << 2 | self.state as u32).write(fmt, out);
        ((Self::HEADER + self.prefix.len() + nodes.len() + self.pad_end.len()) as u16).write(fmt, out);
        self.pad.write(fmt, out);
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(nodes);
        out.extend_from_slice(&self.pad_end);
    }
}

wire_struct! {
    /// What replay needs to know of the backend's state, 8 bytes with padding. C: `spgxlogState`.
    pub struct State("spgxlogState") {
        /// Transaction to be written into redirects. C: `redirectXid`, `myXid` before 17.
        redirect_xid: Xid,
        /// The index is being built: nothing needs redirects. C: `isBuild`.
        is_build: CBool,
        /// Padding.
        pad: Pad<3>,
    }
}

wire_struct! {
    /// Fixed part of ADD_LEAF, 10 bytes. C: `spgxlogAddLeaf`.
    pub struct AddLeafHead("spgxlogAddLeaf") {
        /// The page is initialized first. C: `newPage`.
        new_page: CBool,
        /// The page is in the tree of null values. C: `storesNulls`.
        stores_nulls: CBool,
        /// Line pointer of the new tuple. C: `offnumLeaf`.
        offnum_leaf: OffsetNumber,
        /// First tuple of the node's chain, or 0; the same as `offnum_leaf`: a dead tuple there is replaced. C: `offnumHeadLeaf`.
        offnum_head_leaf: OffsetNumber,
        /// Inner tuple with the downlink on the parent, or 0. C: `offnumParent`.
        offnum_parent: OffsetNumber,
        /// Node with the downlink, counted from 0. C: `nodeI`.
        node_i: u16,
    }
}

/// A leaf tuple is added to a page, block 0; its parent is block 1. C: `spgxlogAddLeaf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddLeaf<'a> {
    /// Fixed part.
    pub head: AddLeafHead,
    /// The tuple.
    pub tuple: LeafTuple<'a>,
}
json_object!(AddLeaf<'_> { ..head, tuple });

wire_struct! {
    /// Fixed part of MOVE_LEAFS, 20 bytes with padding. C: `spgxlogMoveLeafs`.
    pub struct MoveLeafsHead("spgxlogMoveLeafs") {
        /// Tuples moved. C: `nMoves`.
        nmoves: u16,
        /// The destination page is initialized first. C: `newPage`.
        new_page: CBool,
        /// A dead tuple is replaced, so only the new one is written. C: `replaceDead`.
        replace_dead: CBool,
        /// The pages are in the tree of null values. C: `storesNulls`.
        stores_nulls: CBool,
        /// Padding.
        pad: Pad<1>,
        /// Inner tuple with the downlink on the parent. C: `offnumParent`.
        offnum_parent: OffsetNumber,
        /// Node with the downlink, counted from 0. C: `nodeI`.
        node_i: u16,
        /// Padding.
        pad_state: Pad<2>,
        /// C: `stateSrc`.
        state_src: State,
    }
}

/// A node's tuples are moved from one leaf page, block 0, to another, block 1, with a new one; the parent is block 2.
/// C: `spgxlogMoveLeafs`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoveLeafs<'a> {
    /// Fixed part.
    pub head: MoveLeafsHead,
    /// Line pointers that the tuples leave.
    pub delete: Array<'a, OffsetNumber>,
    /// Line pointers that the tuples get: one more than moved, or a single one.
    pub insert: Array<'a, OffsetNumber>,
    /// The tuples, as many as in `insert`; the last is the new one.
    pub tuples: List<'a, LeafTuple<'a>>,
}
json_object!(MoveLeafs<'_> { ..head, delete, insert, tuples });

wire_struct! {
    /// Fixed part of ADD_NODE, 20 bytes with padding. C: `spgxlogAddNode`.
    pub struct AddNodeHead("spgxlogAddNode") {
        /// Line pointer of the inner tuple on block 0. C: `offnum`.
        offnum: OffsetNumber,
        /// Its line pointer on block 1, or 0 where it stays. C: `offnumNew`.
        offnum_new: OffsetNumber,
        /// Block 1 is initialized first. C: `newPage`.
        new_page: CBool,
        /// The block with the parent, 0 to 2; -1: the downlink stays as it is. C: `parentBlk`.
        parent_blk: i8,
        /// Inner tuple with the downlink on the parent, or 0. C: `offnumParent`.
        offnum_parent: OffsetNumber,
        /// Node with the downlink, counted from 0. C: `nodeI`.
        node_i: u16,
        /// Padding.
        pad: Pad<2>,
        /// C: `stateSrc`.
        state_src: State,
    }
}

/// An inner tuple gets one more node, in its place on block 0 or on another page, block 1. Block 2 is the parent where it is neither.
/// C: `spgxlogAddNode`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddNode<'a> {
    /// Fixed part.
    pub head: AddNodeHead,
    /// The tuple with the new node.
    pub tuple: InnerTuple<'a>,
}
json_object!(AddNode<'_> { ..head, tuple });

wire_struct! {
    /// Fixed part of SPLIT_TUPLE, 6 bytes. C: `spgxlogSplitTuple`.
    pub struct SplitTupleHead("spgxlogSplitTuple") {
        /// Line pointer of the tuple with the prefix. C: `offnumPrefix`.
        offnum_prefix: OffsetNumber,
        /// Line pointer of the tuple with the rest. C: `offnumPostfix`.
        offnum_postfix: OffsetNumber,
        /// Block 1 is initialized first. C: `newPage`.
        new_page: CBool,
        /// Both tuples are on block 0. C: `postfixBlkSame`.
        postfix_blk_same: CBool,
    }
}

/// An inner tuple is split in two, one above the other: on block 0, and on block 1 where it does not fit. C: `spgxlogSplitTuple`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitTuple<'a> {
    /// Fixed part.
    pub head: SplitTupleHead,
    /// The upper tuple, in the place of the split one.
    pub prefix: InnerTuple<'a>,
    /// The lower tuple.
    pub postfix: InnerTuple<'a>,
}
json_object!(SplitTuple<'_> { ..head, prefix, postfix });

wire_struct! {
    /// Fixed part of PICKSPLIT, 28 bytes with padding. C: `spgxlogPickSplit`.
    pub struct PickSplitHead("spgxlogPickSplit") {
        /// The root, a leaf page before, is split. C: `isRootSplit`.
        is_root_split: CBool,
        /// Padding.
        pad: Pad<1>,
        /// Tuples deleted from block 0. C: `nDelete`.
        ndelete: u16,
        /// Tuples inserted on blocks 0 and 1. C: `nInsert`.
        ninsert: u16,
        /// Block 0 is initialized first. C: `initSrc`.
        init_src: CBool,
        /// Block 1 is initialized first. C: `initDest`.
        init_dest: CBool,
        /// Line pointer of the new inner tuple. C: `offnumInner`.
        offnum_inner: OffsetNumber,
        /// Block 2 is initialized first. C: `initInner`.
        init_inner: CBool,
        /// The pages are in the tree of null values. C: `storesNulls`.
        stores_nulls: CBool,
        /// The parent is on block 2, too. C: `innerIsParent`.
        inner_is_parent: CBool,
        /// Padding.
        pad_parent: Pad<1>,
        /// Inner tuple with the downlink on the parent, or 0. C: `offnumParent`.
        offnum_parent: OffsetNumber,
        /// Node with the downlink, counted from 0. C: `nodeI`.
        node_i: u16,
        /// Padding.
        pad_state: Pad<2>,
        /// C: `stateSrc`.
        state_src: State,
    }
}

/// A node's leaf tuples get an inner tuple of their own. C: `spgxlogPickSplit`.
///
/// Block 0 is the leaf page (unless it was the root), 1 a second leaf page, 2 the page of the inner tuple, 3 its parent where it is
/// on another page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PickSplit<'a> {
    /// Fixed part.
    pub head: PickSplitHead,
    /// Line pointers deleted from block 0.
    pub delete: Array<'a, OffsetNumber>,
    /// Line pointers of the inserted tuples.
    pub insert: Array<'a, OffsetNumber>,
    /// For each inserted tuple its page: 0 for block 0, 1 for block 1. C: `leafPageSelect`.
    pub leaf_page_select: Array<'a, u8>,
    /// The inner tuple.
    pub inner: InnerTuple<'a>,
    /// The inserted tuples.
    pub tuples: List<'a, LeafTuple<'a>>,
}
json_object!(PickSplit<'_> { ..head, delete, insert, leaf_page_select, inner, tuples });

wire_struct! {
    /// Fixed part of VACUUM_LEAF, 16 bytes. C: `spgxlogVacuumLeaf`.
    pub struct VacuumLeafHead("spgxlogVacuumLeaf") {
        /// Tuples that become dead. C: `nDead`.
        ndead: u16,
        /// Tuples that become placeholders. C: `nPlaceholder`.
        nplaceholder: u16,
        /// Tuples that move. C: `nMove`.
        nmove: u16,
        /// Tuples whose link to the next one changes. C: `nChain`.
        nchain: u16,
        /// C: `stateSrc`.
        state_src: State,
    }
}

/// Vacuum of a leaf page, block 0. C: `spgxlogVacuumLeaf`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VacuumLeaf<'a> {
    /// Fixed part.
    pub head: VacuumLeafHead,
    /// Tuples that become dead.
    pub dead: Array<'a, OffsetNumber>,
    /// Tuples that become placeholders.
    pub placeholder: Array<'a, OffsetNumber>,
    /// Where tuples move from; placeholders stay there.
    pub move_src: Array<'a, OffsetNumber>,
    /// Where they move to.
    pub move_dest: Array<'a, OffsetNumber>,
    /// Tuples whose link changes.
    pub chain_src: Array<'a, OffsetNumber>,
    /// The tuples that they link to.
    pub chain_dest: Array<'a, OffsetNumber>,
}
json_object!(VacuumLeaf<'_> { ..head, dead, placeholder, move_src, move_dest, chain_src, chain_dest });

wire_struct! {
    /// Fixed part of VACUUM_ROOT, 12 bytes with padding. C: `spgxlogVacuumRoot`.
    pub struct VacuumRootHead("spgxlogVacuumRoot") {
        /// Tuples deleted. C: `nDelete`.
        ndelete: u16,
        /// Padding.
        pad: Pad<2>,
        /// C: `stateSrc`.
        state_src: State,
    }
}

/// Vacuum of a root that is a leaf, block 0. C: `spgxlogVacuumRoot`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VacuumRoot<'a> {
    /// Fixed part.
    pub head: VacuumRootHead,
    /// Tuples deleted.
    pub delete: Array<'a, OffsetNumber>,
}
json_object!(VacuumRoot<'_> { ..head, delete });

wire_struct! {
    /// Fixed part of VACUUM_REDIRECT: 8 bytes, 10 with padding from 16 on. C: `spgxlogVacuumRedirect`.
    pub struct VacuumRedirectHead("spgxlogVacuumRedirect") {
        /// Redirects that become placeholders. C: `nToPlaceholder`.
        nto_placeholder: u16,
        /// First of the placeholders at the page's end, which are removed, or 0. C: `firstPlaceholder`.
        first_placeholder: OffsetNumber,
        /// Newest transaction of the removed redirects; queries on a standby that may follow them are cancelled.
        /// C: `snapshotConflictHorizon`, `newestRedirectXid` before 16.
        snapshot_conflict_horizon: Xid,
        /// The table is a catalog, to logical decoding. C: `isCatalogRel`.
        is_catalog_rel: Since<16, CBool>,
        /// Padding.
        pad: Since<16, Pad<1>>,
    }
}

/// Redirects and placeholders that nobody needs any more leave a page, block 0. C: `spgxlogVacuumRedirect`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VacuumRedirect<'a> {
    /// Fixed part.
    pub head: VacuumRedirectHead,
    /// Redirects that become placeholders.
    pub to_placeholder: Array<'a, OffsetNumber>,
}
json_object!(VacuumRedirect<'_> { ..head, to_placeholder });

/// A record of this resource manager.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// An empty index: metapage, root and root of the null values, blocks 0 to 2. Up to 11.
    CreateIndex,
    /// A leaf tuple added.
    AddLeaf(AddLeaf<'a>),
    /// Leaf tuples moved.
    MoveLeafs(MoveLeafs<'a>),
    /// A node added to an inner tuple.
    AddNode(AddNode<'a>),
    /// An inner tuple split.
    SplitTuple(SplitTuple<'a>),
    /// Leaf tuples put under a new inner tuple.
    #[serde(rename = "picksplit")]
    PickSplit(PickSplit<'a>),
    /// Vacuum of a leaf page.
    VacuumLeaf(VacuumLeaf<'a>),
    /// Vacuum of a root that is a leaf.
    VacuumRoot(VacuumRoot<'a>),
    /// Redirects and placeholders removed.
    VacuumRedirect(VacuumRedirect<'a>),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let main = rec.main;
    let op = match rec.info().opcode() {
        0x00 if !fmt.since(12) => {
            rec.parse_all("XLOG_SPGIST_CREATE_INDEX", main, |i| Ok((i, ())))?;
            Op::CreateIndex
        }
        0x10 => Op::AddLeaf(rec.parse_all("spgxlogAddLeaf", main, |i| {
            let (i, head) = AddLeafHead::read(i, fmt)?;
            let (i, tuple) = LeafTuple::read(i, fmt)?;
            Ok((i, AddLeaf { head, tuple }))
        })?),
        0x20 => Op::MoveLeafs(rec.parse_all("spgxlogMoveLeafs", main, |i| {
            let (i, head) = MoveLeafsHead::read(i, fmt)?;
            let ninsert = if head.replace_dead.get() { 1 } else { u32::from(head.nmoves) + 1 };
            let (i, delete) = array(i, head.nmoves, fmt, "spgxlogMoveLeafs.offsets")?;
            let (i, insert) = array(i, ninsert, fmt, "spgxlogMoveLeafs.offsets")?;
            let (i, tuples) = list(i, ninsert, fmt, "SpGistLeafTupleData")?;
            Ok((i, MoveLeafs { head, delete, insert, tuples }))
        })?),
        0x30 => Op::AddNode(rec.parse_all("spgxlogAddNode", main, |i| {
            let (i, head) = AddNodeHead::read(i, fmt)?;
            let (i, tuple) = InnerTuple::read(i, fmt)?;
            Ok((i, AddNode { head, tuple }))
        })?),
        0x40 => Op::SplitTuple(rec.parse_all("spgxlogSplitTuple", main, |i| {
            let (i, head) = SplitTupleHead::read(i, fmt)?;
            let (i, prefix) = InnerTuple::read(i, fmt)?;
            let (i, postfix) = InnerTuple::read(i, fmt)?;
            Ok((i, SplitTuple { head, prefix, postfix }))
        })?),
        0x50 => Op::PickSplit(rec.parse_all("spgxlogPickSplit", main, |i| {
            let (i, head) = PickSplitHead::read(i, fmt)?;
            let (i, delete) = array(i, head.ndelete, fmt, "spgxlogPickSplit.offsets")?;
            let (i, insert) = array(i, head.ninsert, fmt, "spgxlogPickSplit.offsets")?;
            let (i, leaf_page_select) = array(i, head.ninsert, fmt, "spgxlogPickSplit.leafPageSelect")?;
            let (i, inner) = InnerTuple::read(i, fmt)?;
            let (i, tuples) = list(i, head.ninsert, fmt, "SpGistLeafTupleData")?;
            Ok((i, PickSplit { head, delete, insert, leaf_page_select, inner, tuples }))
        })?),
        0x60 => Op::VacuumLeaf(rec.parse_all("spgxlogVacuumLeaf", main, |i| {
            let (i, head) = VacuumLeafHead::read(i, fmt)?;
            let (i, dead) = array(i, head.ndead, fmt, "spgxlogVacuumLeaf.offsets")?;
            let (i, placeholder) = array(i, head.nplaceholder, fmt, "spgxlogVacuumLeaf.offsets")?;
            let (i, move_src) = array(i, head.nmove, fmt, "spgxlogVacuumLeaf.offsets")?;
            let (i, move_dest) = array(i, head.nmove, fmt, "spgxlogVacuumLeaf.offsets")?;
            let (i, chain_src) = array(i, head.nchain, fmt, "spgxlogVacuumLeaf.offsets")?;
            let (i, chain_dest) = array(i, head.nchain, fmt, "spgxlogVacuumLeaf.offsets")?;
            Ok((i, VacuumLeaf { head, dead, placeholder, move_src, move_dest, chain_src, chain_dest }))
        })?),
        0x70 => Op::VacuumRoot(rec.parse_all("spgxlogVacuumRoot", main, |i| {
            let (i, head) = VacuumRootHead::read(i, fmt)?;
            let (i, delete) = array(i, head.ndelete, fmt, "spgxlogVacuumRoot.offsets")?;
            Ok((i, VacuumRoot { head, delete }))
        })?),
        0x80 => Op::VacuumRedirect(rec.parse_all("spgxlogVacuumRedirect", main, |i| {
            let (i, head) = VacuumRedirectHead::read(i, fmt)?;
            let (i, to_placeholder) = array(i, head.nto_placeholder, fmt, "spgxlogVacuumRedirect.offsets")?;
            Ok((i, VacuumRedirect { head, to_placeholder }))
        })?),
        _ => return Ok(None),
    };
    rec.only_block_data("SP-GiST record", &[])?;
    Ok(Some(op))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        let out = &mut body.main;
        match self {
            Op::CreateIndex => {}
            Op::AddLeaf(it) => {
                it.head.write(fmt, out);
                it.tuple.write(fmt, out);
            }
            Op::MoveLeafs(it) => {
                it.head.write(fmt, out);
                it.delete.write(out);
                it.insert.write(out);
                it.tuples.write(out);
            }
            Op::AddNode(it) => {
                it.head.write(fmt, out);
                it.tuple.write(fmt, out);
            }
            Op::SplitTuple(it) => {
                it.head.write(fmt, out);
                it.prefix.write(fmt, out);
                it.postfix.write(fmt, out);
            }
            Op::PickSplit(it) => {
                it.head.write(fmt, out);
                it.delete.write(out);
                it.insert.write(out);
                it.leaf_page_select.write(out);
                it.inner.write(fmt, out);
                it.tuples.write(out);
            }
            Op::VacuumLeaf(it) => {
                it.head.write(fmt, out);
                for offsets in [it.dead, it.placeholder, it.move_src, it.move_dest, it.chain_src, it.chain_dest] {
                    offsets.write(out);
                }
            }
            Op::VacuumRoot(it) => {
                it.head.write(fmt, out);
                it.delete.write(out);
            }
            Op::VacuumRedirect(it) => {
                it.head.write(fmt, out);
                it.to_placeholder.write(out);
            }
        }
    }
}

/// 14 brought a new text for every record.
impl Describe for Op<'_> {
    fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        match self {
            Op::CreateIndex => {}
            Op::AddLeaf(it) => it.head.describe(rec, fmt, out),
            Op::MoveLeafs(it) => it.head.describe(rec, fmt, out),
            Op::AddNode(it) => it.head.describe(rec, fmt, out),
            Op::SplitTuple(it) => it.head.describe(rec, fmt, out),
            Op::PickSplit(it) => it.head.describe(rec, fmt, out),
            Op::VacuumLeaf(VacuumLeaf { head: it, .. }) => {
                if fmt.since(14) {
                    put!(out, "ndead: ", it.ndead, ", nplaceholder: ", it.nplaceholder);
                    put!(out, ", nmove: ", it.nmove, ", nchain: ", it.nchain);
                }
            }
            Op::VacuumRoot(it) => {
                if fmt.since(14) {
                    put!(out, "ndelete: ", it.head.ndelete);
                }
            }
            Op::VacuumRedirect(it) => it.head.describe(rec, fmt, out),
        }
    }
}

impl Describe for AddLeafHead {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if fmt.since(14) {
            put!(out, "off: ", self.offnum_leaf, ", headoff: ", self.offnum_head_leaf);
            put!(out, ", parentoff: ", self.offnum_parent, ", nodeI: ", self.node_i);
        } else {
            put!(out, "add leaf to page; off ", self.offnum_leaf, "; headoff ", self.offnum_head_leaf);
            put!(out, "; parentoff ", self.offnum_parent);
        }
        put_if(self.new_page.get(), " (newpage)", out);
        put_if(self.stores_nulls.get(), " (nulls)", out);
    }
}

impl Describe for MoveLeafsHead {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if !fmt.since(14) {
            put!(out, self.nmoves, " leafs");
            return;
        }
        put!(out, "nmoves: ", self.nmoves, ", parentoff: ", self.offnum_parent, ", nodeI: ", self.node_i);
        put_if(self.new_page.get(), " (newpage)", out);
        put_if(self.replace_dead.get(), " (replacedead)", out);
        put_if(self.stores_nulls.get(), " (nulls)", out);
    }
}

impl Describe for AddNodeHead {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if !fmt.since(14) {
            put!(out, "off ", self.offnum);
            return;
        }
        put!(out, "off: ", self.offnum, ", newoff: ", self.offnum_new, ", parentBlk: ", self.parent_blk);
        put!(out, ", parentoff: ", self.offnum_parent, ", nodeI: ", self.node_i);
        put_if(self.new_page.get(), " (newpage)", out);
    }
}

impl Describe for SplitTupleHead {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if !fmt.since(14) {
            put!(out, "prefix off: ", self.offnum_prefix, ", postfix off: ", self.offnum_postfix);
            put!(out, " (same ", self.postfix_blk_same.0, ", new ", self.new_page.0, ")");
            return;
        }
        put!(out, "prefixoff: ", self.offnum_prefix, ", postfixoff: ", self.offnum_postfix);
        put_if(self.new_page.get(), " (newpage)", out);
        put_if(self.postfix_blk_same.get(), " (same)", out);
    }
}

impl Describe for PickSplitHead {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if fmt.since(14) {
            put!(out, "ndelete: ", self.ndelete, ", ninsert: ", self.ninsert, ", inneroff: ", self.offnum_inner);
            put!(out, ", parentoff: ", self.offnum_parent, ", nodeI: ", self.node_i);
        } else {
            put!(out, "ndel ", self.ndelete, "; nins ", self.ninsert);
        }
        put_if(self.inner_is_parent.get(), " (innerIsParent)", out);
        put_if(self.stores_nulls.get() && fmt.since(14), " (nulls)", out);
        put_if(self.is_root_split.get(), " (isRootSplit)", out);
    }
}

impl Describe for VacuumRedirectHead {
    fn describe(&self, _: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if !fmt.since(14) {
            put!(out, "newest XID ", self.snapshot_conflict_horizon);
            return;
        }
        put!(out, "ntoplaceholder: ", self.nto_placeholder, ", firstplaceholder: ", self.first_placeholder);
        put!(out, if fmt.since(16) { ", snapshotConflictHorizon: " } else { ", newestredirectxid: " });
        put!(out, self.snapshot_conflict_horizon);
        // 16 has the field and does not show it.
        if let Some(is_catalog_rel) = self.is_catalog_rel.filter(|_| fmt.since(17)) {
            put!(out, ", isCatalogRel: ", letter(is_catalog_rel.get()));
        }
    }
}

fn put_if(condition: bool, text: &str, out: &mut Text) {
    if condition {
        put!(out, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rmgr::testing::{Rec, le};

    fn rec(major: u8, info: u8, main: &[u8]) -> Rec<'_> {
        Rec { major, rmid: 16, info, main, blocks: &[(0, &[]), (2, &[])], ..Rec::default() }
    }

    /// Checks the record in every major, with the text that it has up to 13 and the one from 14 on.
    fn check(info: u8, main: &[u8], until_13: &str, since_14: &str) {
        for major in 10..=19 {
            rec(major, info, main).check(if major < 14 { until_13 } else { since_14 }, &[]);
        }
    }

    /// A leaf tuple of 16 bytes; its next one is 5, and from 14 on it has the flag of a null bitmap.
    fn leaf() -> Vec<u8> {
        le![16u32 << 2, 0x8005u16, 0u16, 7u16, 3u16, 0xAABB_CCDDu32]
    }

    /// An inner tuple: a prefix of 8 bytes, two nodes, 2 bytes of padding at the end.
    fn inner() -> Vec<u8> {
        let node = le![0u16, 7u16, 3u16, 0x0010u16, 0x11u64];
        [le![8u32 << 16 | 2 << 3 | 4, 50u16, 0xEEEEu16, 0x1122u64], node.clone(), node, le![0u16]].concat()
    }

    fn state() -> Vec<u8> {
        le![750u32, 1u8, 0xEEu8, 0u8, 0u8]
    }

    #[test]
    fn leaf_tuples() {
        let bytes = leaf();
        let (_, old) = LeafTuple::read(&bytes, WalFormat::new(13)).unwrap();
        assert_eq!((old.next, old.flags), (OffsetNumber(0x8005), Since(None)));
        let (_, new) = LeafTuple::read(&bytes, WalFormat::new(14)).unwrap();
        assert_eq!((new.next, new.flags), (OffsetNumber(5), Since(Some(LeafFlags::HAS_NULL_MASK))));
        assert_eq!(new.state, TupleState::Live);
        let error = LeafTuple::read(&le![11u32 << 2 | 3, 0u64, 0u64], WalFormat::new(15)).unwrap_err();
        assert_eq!(error.field, "SpGistLeafTupleData.size");
    }

    #[test]
    fn inner_tuples() {
        let bytes = [inner(), vec![1, 2, 3]].concat();
        let (rest, tuple) = InnerTuple::read(&bytes, WalFormat::new(15)).unwrap();
        assert_eq!(rest, [1, 2, 3]);
        assert_eq!((tuple.all_the_same, tuple.prefix.len(), tuple.nodes.len(), tuple.pad_end.len()), (true, 8, 2, 2));
        // What is inside must fit into the tuple's size, whatever follows it; the place is counted to the end of everything.
        let mut cut = bytes.clone();
        cut[4] = 47;
        let error = InnerTuple::read(&cut, WalFormat::new(15)).unwrap_err();
        assert_eq!((error.field, error.left), ("IndexTupleData", 47 - 40 + 6));
        cut[4] = 7;
        assert_eq!(InnerTuple::read(&cut, WalFormat::new(15)).unwrap_err().field, "SpGistInnerTupleData.size");
    }

    #[test]
    fn create_index() {
        for major in 10..=19 {
            let create = rec(major, 0x00, &[]);
            if major < 12 { create.check("", &[]) } else { assert_eq!(create.parse(), Ok(None)) }
        }
    }

    #[test]
    fn add_leaf() {
        let main = |new_page: u8, nulls: u8| [le![new_page, nulls, 3u16, 4u16, 5u16, 6u16], leaf()].concat();
        let (old, new) = ("add leaf to page; off 3; headoff 4; parentoff 5", "off: 3, headoff: 4, parentoff: 5, nodeI: 6");
        check(0x10, &main(0, 0), old, new);
        check(0x10, &main(1, 1), &format!("{old} (newpage) (nulls)"), &format!("{new} (newpage) (nulls)"));
        let blocks: &[(u8, &[u8])] = &[(0, &[9])];
        assert!(Rec { blocks, ..rec(15, 0x10, &main(0, 0)) }.parse().is_err(), "block data");
    }

    #[test]
    fn move_leafs() {
        let head = |new_page: u8, dead: u8, nulls: u8| {
            [le![2u16, new_page, dead, nulls, 0xEEu8, 5u16, 6u16, 0xEEEEu16], state(), le![1u16, 2u16]].concat()
        };
        let new = "nmoves: 2, parentoff: 5, nodeI: 6";
        let main = [head(0, 0, 0), le![7u16, 8u16, 9u16], leaf(), leaf(), leaf()].concat();
        check(0x20, &main, "2 leafs", new);
        let main = [head(1, 1, 1), le![7u16], leaf()].concat();
        check(0x20, &main, "2 leafs", &format!("{new} (newpage) (replacedead) (nulls)"));
    }

    #[test]
    fn add_node() {
        let main =
            |new_page: u8, parent: i8| [le![3u16, 4u16, new_page, parent, 5u16, 6u16, 0xEEEEu16], state(), inner()].concat();
        check(0x30, &main(0, -1), "off 3", "off: 3, newoff: 4, parentBlk: -1, parentoff: 5, nodeI: 6");
        check(0x30, &main(1, 2), "off 3", "off: 3, newoff: 4, parentBlk: 2, parentoff: 5, nodeI: 6 (newpage)");
    }

    #[test]
    fn split_tuple() {
        let main = |new_page: u8, same: u8| [le![3u16, 4u16, new_page, same], inner(), inner()].concat();
        let old = "prefix off: 3, postfix off: 4";
        let new = "prefixoff: 3, postfixoff: 4";
        check(0x40, &main(0, 1), &format!("{old} (same 1, new 0)"), &format!("{new} (same)"));
        check(0x40, &main(1, 0), &format!("{old} (same 0, new 1)"), &format!("{new} (newpage)"));
    }

    #[test]
    fn pick_split() {
        let main = |root: u8, nulls: u8, inner_is_parent: u8| {
            [
                le![root, 0xEEu8, 1u16, 2u16, 0u8, 1u8, 8u16, 0u8, nulls, inner_is_parent, 0xEEu8, 5u16, 6u16, 0xEEEEu16],
                state(),
                le![1u16, 7u16, 8u16, 0u8, 1u8],
                inner(),
                leaf(),
                leaf(),
            ]
            .concat()
        };
        let (old, new) = ("ndel 1; nins 2", "ndelete: 1, ninsert: 2, inneroff: 8, parentoff: 5, nodeI: 6");
        check(0x50, &main(0, 0, 0), old, new);
        let all = " (innerIsParent) (nulls) (isRootSplit)";
        check(0x50, &main(1, 1, 1), &format!("{old} (innerIsParent) (isRootSplit)"), &format!("{new}{all}"));
    }

    #[test]
    fn vacuum() {
        let main = [le![1u16, 2u16, 3u16, 4u16], state(), vec![9; 2 * (1 + 2 + 3 + 3 + 4 + 4)]].concat();
        check(0x60, &main, "", "ndead: 1, nplaceholder: 2, nmove: 3, nchain: 4");
        let main = [le![2u16, 0xEEEEu16], state(), le![1u16, 2u16]].concat();
        check(0x70, &main, "", "ndelete: 2");
    }

    #[test]
    fn vacuum_redirect() {
        let old = le![2u16, 9u16, 750u32, 3u16, 4u16];
        for major in 10..=13 {
            rec(major, 0x80, &old).check("newest XID 750", &[]);
        }
        for major in [14, 15] {
            rec(major, 0x80, &old).check("ntoplaceholder: 2, firstplaceholder: 9, newestredirectxid: 750", &[]);
        }
        let new = le![2u16, 9u16, 750u32, 1u8, 0xEEu8, 3u16, 4u16];
        let text = "ntoplaceholder: 2, firstplaceholder: 9, snapshotConflictHorizon: 750";
        rec(16, 0x80, &new).check(text, &[]);
        for major in 17..=19 {
            rec(major, 0x80, &new).check(&format!("{text}, isCatalogRel: T"), &[]);
        }
    }
}
