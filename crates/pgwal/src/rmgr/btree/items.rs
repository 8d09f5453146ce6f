//! Tuples of a B-tree's leaf pages that are merged or deleted.

use serde::Serialize;

use crate::error::Result;
use crate::format::WalFormat;
use crate::record::Record;
use crate::rmgr::list::{plain, put_elements, put_list};
use crate::rmgr::{Body, Describe, letter};
use crate::text::Text;
use crate::types::{BlockNumber, OffsetNumber, RelFileLocator, Xid};
use crate::wire::{Array, CBool, FixedSize, List, Parsed, Since, Until, Wire, array, list};

wire_struct! {
    /// Fixed part of DEDUP. C: `xl_btree_dedup`, 2 bytes.
    pub struct DedupHead("xl_btree_dedup") {
        /// Number of groups.
        nintervals: u16,
    }
}
wire_struct! {
    /// Neighbours that become one tuple. C: `BTDedupInterval`, access/nbtree.h, 4 bytes.
    pub struct DedupInterval("BTDedupInterval") {
        /// Line pointer of the first.
        base_off: OffsetNumber,
        /// Number of tuples.
        nitems: u16,
    }
}
/// Tuples with equal keys on the page of block 0 are merged into posting lists. From 13 on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dedup<'a> {
    /// Fixed part.
    pub head: DedupHead,
    /// The groups, data of block 0; absent where the page's image shows them.
    pub intervals: Option<Array<'a, DedupInterval>>,
}
json_object!(Dedup<'_> { ..head, intervals });

wire_struct! {
    /// Fixed part of VACUUM. C: `xl_btree_vacuum`, 4 bytes.
    pub struct VacuumHead("xl_btree_vacuum") {
        /// The page vacuumed before, as far as scans must be kept off the pages in between; 0xFFFFFFFF: none.
        last_block_vacuumed: Until<12, BlockNumber>,
        /// Number of deleted tuples.
        ndeleted: Since<13, u16>,
        /// Number of posting lists that get shorter.
        nupdated: Since<13, u16>,
    }
}
/// VACUUM deletes tuples from the page of block 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vacuum<'a> {
    /// Fixed part.
    pub head: VacuumHead,
    /// What is deleted, data of block 0; absent where the page's image shows it.
    pub items: Option<DeletedItems<'a>>,
}
json_object!(Vacuum<'_> { ..head, items });

/// A number of tuples: 4 bytes on disk up to 13, 2 from 14 on. C: `int`, `uint32` in 13, `uint16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ItemCount(pub u32);

wire_struct! {
    /// Fixed part of DELETE. C: `xl_btree_delete`, 16 bytes in 10 and 11, 8 bytes, from 16 on 9 bytes.
    pub struct DeleteHead("xl_btree_delete") {
        /// The table. C: `hnode`.
        heap: Until<11, RelFileLocator>,
        /// Newest transaction that deleted a row of these tuples. C: `latestRemovedXid` before 16.
        snapshot_conflict_horizon: Since<12, Xid>,
        /// Number of deleted tuples. C: `nitems` before 13.
        ndeleted: ItemCount,
        /// Number of posting lists that get shorter.
        nupdated: Since<14, u16>,
        /// Whether logical decoding may read the table.
        is_catalog_rel: Since<16, CBool>,
    }
}
/// Tuples that nobody needs are deleted from the page of block 0, to make room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delete<'a> {
    /// Fixed part.
    pub head: DeleteHead,
    /// What is deleted. Up to 12 part of the main data; from 13 on data of block 0, absent where the page's image shows it.
    pub items: Option<DeletedItems<'a>>,
}
json_object!(Delete<'_> { ..head, items });

/// Tuples that are deleted whole or in part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DeletedItems<'a> {
    /// Line pointers of deleted tuples.
    pub deleted: Array<'a, OffsetNumber>,
    /// Line pointers of posting lists that get shorter; from 13 on.
    pub updated: Array<'a, OffsetNumber>,
    /// What is deleted of each.
    pub updates: List<'a, PostingUpdate<'a>>,
}

/// What is deleted of a posting list. C: `xl_btree_update`, 2 bytes and the list.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PostingUpdate<'a> {
    /// Places in the posting list, counted from 0.
    pub deleted_tids: Array<'a, u16>,
}

impl Wire<'_> for ItemCount {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        if fmt.since(14) {
            let (input, count) = u16::read(input, fmt)?;
            return Ok((input, ItemCount(count.into())));
        }
        let (input, count) = u32::read(input, fmt)?;
        Ok((input, ItemCount(count)))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        if fmt.since(14) { (self.0 as u16).write(fmt, out) } else { self.0.write(fmt, out) }
    }
}
impl FixedSize for ItemCount {
    fn size(fmt: WalFormat) -> usize {
        if fmt.since(14) { 2 } else { 4 }
    }
}

impl<'a> Wire<'a> for PostingUpdate<'a> {
    fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, PostingUpdate<'a>> {
        let (i, count) = u16::read(input, fmt).map_err(|e| e.in_field("xl_btree_update.ndeletedtids"))?;
        let (i, deleted_tids) = array(i, count, fmt, "xl_btree_update.ndeletedtids")?;
        Ok((i, PostingUpdate { deleted_tids }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        (self.deleted_tids.len() as u16).write(fmt, out); // read from a u16
        self.deleted_tids.write(out);
    }
}

impl<'a> DeletedItems<'a> {
    fn read(i: &'a [u8], ndeleted: u32, nupdated: u16, fmt: WalFormat) -> Parsed<'a, DeletedItems<'a>> {
        let (i, deleted) = array(i, ndeleted, fmt, "ndeleted")?;
        let (i, updated) = array(i, nupdated, fmt, "nupdated")?;
        let (i, updates) = list(i, nupdated, fmt, "xl_btree_update")?;
        Ok((i, DeletedItems { deleted, updated, updates }))
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.deleted.write(out);
        self.updated.write(out);
        self.updates.write(out);
    }

    /// From 16 on. C: `delvacuum_desc`.
    fn describe(&self, out: &mut Text) {
        put!(out, ", deleted:");
        put_list(out, self.deleted.iter(), plain);
        put!(out, ", updated:");
        put_list(out, self.updated.iter().zip(self.updates.iter()), |out, (offnum, update)| {
            put!(out, "{ off: ", offnum, ", nptids: ", update.deleted_tids.len(), ", ptids: [");
            put_elements(out, update.deleted_tids.iter(), plain);
            put!(out, "] }");
        });
    }
}

impl<'r> Dedup<'r> {
    pub(super) fn parse(rec: &Record<'r>, fmt: WalFormat) -> Result<Dedup<'r>> {
        rec.only_block_data("B-tree record", &[0])?;
        let head = rec.parse_all("xl_btree_dedup", rec.main, |i| DedupHead::read(i, fmt))?;
        let intervals = rec.parse_block_or_nothing("BTDedupInterval", 0, |i| array(i, head.nintervals, fmt, "BTDedupInterval"))?;
        Ok(Dedup { head, intervals })
    }

    pub(super) fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(intervals) = &self.intervals {
            intervals.write(body.block(0));
        }
    }
}

impl<'r> Vacuum<'r> {
    pub(super) fn parse(rec: &Record<'r>, fmt: WalFormat) -> Result<Vacuum<'r>> {
        rec.only_block_data("B-tree record", &[0])?;
        let head = rec.parse_all("xl_btree_vacuum", rec.main, |i| VacuumHead::read(i, fmt))?;
        let items = rec.parse_block_or_nothing("OffsetNumber", 0, |i| {
            // Up to 12 the number of tuples is not stored: they take all there is.
            let ndeleted = head.ndeleted.map_or((i.len() / 2) as u32, u32::from); // block data has at most 65535 bytes
            DeletedItems::read(i, ndeleted, head.nupdated.unwrap_or(0), fmt)
        })?;
        Ok(Vacuum { head, items })
    }

    pub(super) fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(items) = &self.items {
            items.write(body.block(0));
        }
    }
}

impl Describe for Vacuum<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if let Some(block) = *self.head.last_block_vacuumed {
            put!(out, "lastBlockVacuumed ", block);
        } else if let (Some(ndeleted), Some(nupdated)) = (*self.head.ndeleted, *self.head.nupdated) {
            if !fmt.since(16) {
                return put!(out, "ndeleted ", ndeleted, "; nupdated ", nupdated);
            }
            put!(out, "ndeleted: ", ndeleted, ", nupdated: ", nupdated);
            if let Some(items) = &self.items {
                items.describe(out);
            }
        }
    }
}

impl<'r> Delete<'r> {
    pub(super) fn parse(rec: &Record<'r>, fmt: WalFormat) -> Result<Delete<'r>> {
        if !fmt.since(13) {
            rec.only_block_data("B-tree record", &[])?;
            return rec.parse_all("xl_btree_delete", rec.main, |i| {
                let (i, head) = DeleteHead::read(i, fmt)?;
                let (i, items) = DeletedItems::read(i, head.ndeleted.0, 0, fmt)?;
                Ok((i, Delete { head, items: Some(items) }))
            });
        }
        rec.only_block_data("B-tree record", &[0])?;
        let head = rec.parse_all("xl_btree_delete", rec.main, |i| DeleteHead::read(i, fmt))?;
        let nupdated = head.nupdated.unwrap_or(0);
        let items = rec.parse_block_or_nothing("OffsetNumber", 0, |i| DeletedItems::read(i, head.ndeleted.0, nupdated, fmt))?;
        Ok(Delete { head, items })
    }

    pub(super) fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(items) = &self.items {
            items.write(if fmt.since(13) { body.block(0) } else { &mut body.main });
        }
    }
}

impl Describe for Delete<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let DeleteHead { snapshot_conflict_horizon, ndeleted: ItemCount(ndeleted), nupdated, is_catalog_rel, .. } = self.head;
        let Some(horizon) = *snapshot_conflict_horizon else { return put!(out, ndeleted, " items") };
        if !fmt.since(13) {
            return put!(out, ndeleted, " items, latest removed xid ", horizon);
        }
        if !fmt.since(16) {
            put!(out, "latestRemovedXid ", horizon, "; ndeleted ", ndeleted);
            if let Some(nupdated) = *nupdated {
                put!(out, "; nupdated ", nupdated);
            }
            return;
        }
        put!(out, "snapshotConflictHorizon: ", horizon, ", ndeleted: ", ndeleted, ", nupdated: ", nupdated.unwrap_or(0));
        // 16 has the flag, and does not show it.
        if let Some(catalog) = is_catalog_rel.filter(|_| fmt.since(17)) {
            put!(out, ", isCatalogRel: ", letter(catalog.get()));
        }
        if let Some(items) = &self.items {
            items.describe(out);
        }
    }
}
