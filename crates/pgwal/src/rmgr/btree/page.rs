//! Whole pages of a B-tree: the metapage, new roots, deletion and reuse.


use crate::error::Result;
use crate::format::WalFormat;
use crate::record::Record;
use crate::rmgr::{Body, Describe, letter};
use crate::text::Text;
use crate::index_tuple::IndexTuple;
use crate::types::{BlockNumber, Float8, FullXid, OffsetNumber, RelFileLocator, Xid};
use crate::wire::{CBool, List, Pad, Since, Until, Wire, list};

wire_struct! {
    /// Contents of the metapage. C: `xl_btree_metadata`: 16 bytes in 10, 32 in 11 and 12, 40 in 13, 28 from 14 on.
    pub struct Metadata("xl_btree_metadata") {
        /// Version of the index's format.
        version: Since<12, u32>,
        /// Root page.
        root: BlockNumber,
        /// Level of the root, counted from the leaves.
        level: u32,
        /// The lowest page that is alone on its level: searches start there.
        fast_root: BlockNumber,
        /// Level of that page.
        fast_level: u32,
        /// Oldest transaction id on a deleted page; 11 to 13.
        oldest_btpo_xact: Since<11, Until<13, Xid>>,
        /// Padding.
        pad11: Since<11, Until<11, Pad<4>>>,
        /// Tuples in the table at the last cleanup, -1: unknown; 11 to 13.
        last_cleanup_num_heap_tuples: Since<11, Until<13, Float8>>,
        /// Deleted pages at the last cleanup that could not be reused yet.
        last_cleanup_num_delpages: Since<14, u32>,
        /// Whether equal keys look the same, so that posting lists can merge them. C: `allequalimage`.
        all_equal_image: Since<13, CBool>,
        /// Padding.
        pad13: Since<13, Until<13, Pad<7>>>,
        /// Padding.
        pad14: Since<14, Pad<3>>,
    }
}

impl Metadata {
    /// The metadata in the data of block `id`, where every record that has any keeps them.
    pub(super) fn parse(rec: &Record<'_>, fmt: WalFormat, id: u8) -> Result<Metadata> {
        rec.parse_all("xl_btree_metadata", rec.block_data(id).unwrap_or_default(), |i| Metadata::read(i, fmt))
    }
}

impl Describe for Metadata {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if let Some(pages) = *self.last_cleanup_num_delpages {
            put!(out, if fmt.since(16) { "last_cleanup_num_delpages: " } else { "last_cleanup_num_delpages " }, pages);
        } else if let (Some(Until(Some(xact))), Some(Until(Some(tuples)))) = (*self.oldest_btpo_xact, *self.last_cleanup_num_heap_tuples)
        {
            put!(out, "oldest_btpo_xact ", xact, "; last_cleanup_num_heap_tuples: ");
            put_float(out, tuples.value(), fmt);
        }
    }
}

/// C: `%f`; from 12 on with the server's own printf, which spells out what is not a number.
fn put_float(out: &mut Text, value: f64, fmt: WalFormat) {
    let sign = if value.is_sign_negative() { "-" } else { "" };
    match (value.is_nan(), value.is_infinite(), fmt.since(12)) {
        (true, _, true) => put!(out, "NaN"),
        (true, _, false) => put!(out, sign, "nan"),
        (_, true, true) => put!(out, sign, "Infinity"),
        (_, true, false) => put!(out, sign, "inf"),
        _ => put!(out, format!("{value:.6}").as_str()),
    }
}

wire_struct! {
    /// Fixed part of NEWROOT. C: `xl_btree_newroot`, 8 bytes.
    pub struct NewRootHead("xl_btree_newroot") {
        /// The new root: the page of block 0.
        root: BlockNumber,
        /// Its level, counted from the leaves.
        level: u32,
    }
}
/// The page of block 0 becomes the root: empty, or with the two halves of the old one below it, the left one block 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewRoot<'a> {
    /// Fixed part.
    pub head: NewRootHead,
    /// Its two tuples, data of block 0; absent where it is the first root, and empty.
    pub tuples: Option<List<'a, IndexTuple<'a>>>,
    /// New contents of the metapage, data of block 2.
    pub metadata: Metadata,
}
json_object!(NewRoot<'_> { ..head, tuples, metadata });

wire_struct! {
    /// A leaf page, block 0, is marked half-dead, and the page above, block 1, forgets it. C: `xl_btree_mark_page_halfdead`, 20 bytes.
    pub struct MarkPageHalfDead("xl_btree_mark_page_halfdead") {
        /// Line pointer of the tuple that goes from the page above.
        parent_offset: OffsetNumber,
        /// Padding.
        pad: Pad<2>,
        /// The leaf page.
        leaf: BlockNumber,
        /// Its left sibling; 0: none.
        left: BlockNumber,
        /// Its right sibling.
        right: BlockNumber,
        /// The highest page that goes with it; 0xFFFFFFFF: the leaf page goes alone.
        top_parent: BlockNumber,
    }
}

wire_struct! {
    /// Fixed part of UNLINK_PAGE and UNLINK_PAGE_META. C: `xl_btree_unlink_page`, 24 bytes, from 14 on 36 bytes with padding.
    pub struct UnlinkPageHead("xl_btree_unlink_page") {
        /// Left sibling of the page; 0: none.
        left: BlockNumber,
        /// Right sibling of the page.
        right: BlockNumber,
        /// Level of the page, counted from the leaves.
        level: Since<14, u32>,
        /// Padding.
        pad: Since<14, Pad<4>>,
        /// The page can be used again when nobody sees this transaction as running. C: `safexid`.
        safe_xid: Since<14, FullXid>,
        /// Left sibling of the leaf page below; only where the page is an inner one.
        leaf_left: BlockNumber,
        /// Right sibling of the leaf page below; only where the page is an inner one.
        leaf_right: BlockNumber,
        /// Next page below that goes. C: `leaftopparent`, `topparent` before 14.
        leaf_top_parent: BlockNumber,
        /// The page can be used again when nobody sees this transaction as running. C: `btpo_xact`.
        btpo_xact: Until<13, Xid>,
    }
}
/// A half-dead page, block 0, leaves the tree: blocks 1 and 2 are its siblings, block 3 the leaf page below where it is an inner
/// one, block 4 the metapage where that changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnlinkPage {
    /// Fixed part.
    pub head: UnlinkPageHead,
    /// New contents of the metapage, data of block 4: only UNLINK_PAGE_META has them.
    pub metadata: Option<Metadata>,
}
json_object!(UnlinkPage { ..head, metadata });

wire_struct! {
    /// A deleted page is used again: changes no page, for conflicts on a standby.
    ///
    /// C: `xl_btree_reuse_page`, 20 bytes, 24 in 14 and 15, 25 from 16 on.
    pub struct ReusePage("xl_btree_reuse_page") {
        /// The index.
        rel: RelFileLocator,
        /// The page.
        block: BlockNumber,
        /// Newest transaction that may still look for something on the page.
        latest_removed_xid: Until<13, Xid>,
        /// The same, with its epoch. C: `latestRemovedFullXid` before 16.
        snapshot_conflict_horizon: Since<14, FullXid>,
        /// Whether logical decoding may read the table.
        is_catalog_rel: Since<16, CBool>,
    }
}

impl<'r> NewRoot<'r> {
    pub(super) fn parse(rec: &Record<'r>, fmt: WalFormat) -> Result<NewRoot<'r>> {
        let head = rec.parse_all("xl_btree_newroot", rec.main, |i| NewRootHead::read(i, fmt))?;
        // The first root is an empty leaf; every later one has the two halves of the root before.
        rec.only_block_data("B-tree record", if head.level > 0 { &[0, 2] } else { &[2] })?;
        let tuples = match head.level {
            0 => None,
            _ => rec.parse_block_or_image("IndexTupleData", 0, |i| list(i, 2, fmt, "IndexTupleData"))?,
        };
        Ok(NewRoot { head, tuples, metadata: Metadata::parse(rec, fmt, 2)? })
    }

    pub(super) fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(tuples) = &self.tuples {
            tuples.write(body.block(0));
        }
        self.metadata.write(fmt, body.block(2));
    }
}

impl UnlinkPage {
    pub(super) fn parse(rec: &Record<'_>, fmt: WalFormat, with_metadata: bool) -> Result<UnlinkPage> {
        rec.only_block_data("B-tree record", if with_metadata { &[4] } else { &[] })?;
        let head = rec.parse_all("xl_btree_unlink_page", rec.main, |i| UnlinkPageHead::read(i, fmt))?;
        let metadata = if with_metadata { Some(Metadata::parse(rec, fmt, 4)?) } else { None };
        Ok(UnlinkPage { head, metadata })
    }

    pub(super) fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(metadata) = &self.metadata {
            metadata.write(fmt, body.block(4));
        }
    }
}

impl Describe for MarkPageHalfDead {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let MarkPageHalfDead { leaf, left, right, top_parent, .. } = self;
        if fmt.since(16) {
            put!(out, "topparent: ", top_parent, ", leaf: ", leaf, ", left: ", left, ", right: ", right);
        } else {
            put!(out, "topparent ", top_parent, "; leaf ", leaf, "; left ", left, "; right ", right);
        }
    }
}

impl Describe for UnlinkPage {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let UnlinkPageHead { left, right, level, safe_xid, leaf_left, leaf_right, leaf_top_parent, btpo_xact, .. } = self.head;
        if let (Some(level), Some(safe_xid)) = (*level, *safe_xid) {
            if fmt.since(16) {
                put!(out, "left: ", left, ", right: ", right, ", level: ", level, ", safexid: ", safe_xid);
                put!(out, ", leafleft: ", leaf_left, ", leafright: ", leaf_right, ", leaftopparent: ", leaf_top_parent);
            } else {
                put!(out, "left ", left, "; right ", right, "; level ", level, "; safexid ", safe_xid);
                put!(out, "; leafleft ", leaf_left, "; leafright ", leaf_right, "; leaftopparent ", leaf_top_parent);
            }
        } else if let Some(xact) = *btpo_xact {
            put!(out, "left ", left, "; right ", right, "; btpo_xact ", xact);
            put!(out, "; leafleft ", leaf_left, "; leafright ", leaf_right, "; topparent ", leaf_top_parent);
        }
    }
}

impl Describe for ReusePage {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if let Some(xid) = *self.latest_removed_xid {
            put!(out, "rel ", self.rel, "; latestRemovedXid ", xid);
        } else if let Some(horizon) = *self.snapshot_conflict_horizon {
            if !fmt.since(16) {
                return put!(out, "rel ", self.rel, "; latestRemovedXid ", horizon);
            }
            put!(out, "rel: ", self.rel, ", snapshotConflictHorizon: ", horizon);
            // 16 has the flag, and does not show it.
            if let Some(catalog) = self.is_catalog_rel.filter(|_| fmt.since(17)) {
                put!(out, ", isCatalogRel: ", letter(catalog.get()));
            }
        }
    }
}
