//! Heap2, resource manager 9: the heap's records that its first sixteen opcodes have no room for.
//!
//! C: access/heapam_xlog.h; text: rmgrdesc/heapdesc.c.

mod prune;

use std::fmt;

use serde::{Serialize, Serializer};

pub use prune::{
    FreezeFlags, FreezeItems, FreezePage, FreezePlan, FreezePlans, FreezePlansHead, FreezeTuple, FreezeTuples, FreezeTuplesHead,
    OffsetNumbers, Prune, PruneFlags, PruneFreeze, PruneFreezeItems, PruneHead, PruneItems, PruneReason, Redirect, Vacuum, VacuumHead,
};

use super::heap::{INIT_PAGE, Infobits, InsertFlags, LockFlags, OPMASK, put_lock};
use super::list::{plain, put_list};
use super::rules::{Rule, Rules};
use super::{Body, Describe, Opcode, RmgrId, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::lsn::Lsn;
use crate::record::{Info, Plain, Record};
use crate::text::{Text, hex2};
use crate::heap_tuple::{HeapTuple, HeapTupleHeader};
use crate::types::{CommandId, ItemPointer, Oid, OffsetNumber, RelFileLocator, Xid};
use crate::wire::{Array, Bytes, FixedSize, Pad, Parsed, Wire, array, bytes};

/// Record types. `+INIT`: replay starts with an empty page (`XLOG_HEAP_INIT_PAGE`).
pub const OPCODES: &[Opcode] = &[
    op(0x00, "REWRITE", Majors::ALL),
    op(0x10, "CLEAN", Majors::until(13)),
    op(0x10, "PRUNE", Majors::between(14, 16)),
    op(0x10, "PRUNE_ON_ACCESS", Majors::since(17)),
    op(0x20, "FREEZE_PAGE", Majors::until(13)),
    op(0x20, "VACUUM", Majors::between(14, 16)),
    op(0x20, "PRUNE_VACUUM_SCAN", Majors::since(17)),
    op(0x30, "CLEANUP_INFO", Majors::until(13)),
    op(0x30, "FREEZE_PAGE", Majors::between(14, 16)),
    op(0x30, "PRUNE_VACUUM_CLEANUP", Majors::since(17)),
    op(0x40, "VISIBLE", Majors::until(18)),
    op(0x50, "MULTI_INSERT", Majors::ALL),
    op(0xD0, "MULTI_INSERT+INIT", Majors::ALL),
    op(0x60, "LOCK_UPDATED", Majors::ALL),
    op(0x70, "NEW_CID", Majors::ALL),
];

wire_struct! {
    /// Rows removed from a relation, for conflicts on a standby; changes no page. Up to 13. C: `xl_heap_cleanup_info`, 16 bytes.
    pub struct CleanupInfo("xl_heap_cleanup_info") {
        /// The relation.
        rel: RelFileLocator,
        /// Newest transaction that deleted a removed row.
        latest_removed_xid: Xid,
    }
}

wire_flags! {
    /// Bits of the visibility map. C: `VISIBILITYMAP_*`, access/visibilitymapdefs.h.
    pub struct VisibilityFlags: u8 {
        /// Every tuple on the page is visible to all.
        VISIBILITYMAP_ALL_VISIBLE = 0x01,
        /// Every tuple on the page is frozen.
        VISIBILITYMAP_ALL_FROZEN = 0x02,
        /// Not a bit of the map: the relation is a catalog; from 16 on.
        VISIBILITYMAP_XLOG_CATALOG_REL = 0x04,
    }
}
wire_struct! {
    /// Bits are set in the visibility map, on the page of block 0, for the heap page of block 1. Up to 18: 19 sets them in the
    /// records that make the page visible. C: `xl_heap_visible`, 5 bytes.
    pub struct Visible("xl_heap_visible") {
        /// Newest transaction whose rows the page shows to all; zero: no conflict on a standby. C: `cutoff_xid` before 16.
        snapshot_conflict_horizon: Xid,
        /// The bits.
        flags: VisibilityFlags,
    }
}

wire_struct! {
    /// Fixed part of MULTI_INSERT. C: `xl_heap_multi_insert`, 4 bytes with padding.
    pub struct MultiInsertHead("xl_heap_multi_insert") {
        /// What becomes of the page, and what the record carries.
        flags: InsertFlags,
        /// Padding.
        pad: Pad<1>,
        /// Number of tuples.
        ntuples: u16,
    }
}
/// New tuples on the page of block 0. Newer minors of 17 and later name the visibility map's page as block 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MultiInsert<'a> {
    /// Fixed part.
    pub head: MultiInsertHead,
    /// Line pointers; `None`: the page starts empty, and they count from 1.
    pub offsets: Option<Array<'a, OffsetNumber>>,
    /// The tuples, data of block 0; absent where the page's image has them.
    pub tuples: Option<MultiInsertTuples<'a>>,
}
json_object!(MultiInsert<'_> { ..head, offsets, tuples });

/// The tuples of a MULTI_INSERT, read on demand. C: `xl_multi_insert_tuple`, 7 bytes and the data, aligned to 2 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MultiInsertTuples<'a> {
    raw: &'a [u8],
    fmt: WalFormat,
}

wire_struct! {
    /// A version of a row that came after a locked one is locked too. C: `xl_heap_lock_updated`, 8 bytes.
    pub struct LockUpdated("xl_heap_lock_updated") {
        /// The locker: a transaction, or a multixact.
        xmax: Xid,
        /// Line pointer of the tuple on the page of block 0.
        offnum: OffsetNumber,
        /// What xmax means.
        infobits: Infobits,
        /// What becomes of the page.
        flags: LockFlags,
    }
}

wire_struct! {
    /// Command ids of a catalog tuple, for logical decoding; replay ignores it. C: `xl_heap_new_cid`, 34 bytes.
    pub struct NewCid("xl_heap_new_cid") {
        /// Top-level transaction.
        top_xid: Xid,
        /// Command that inserted the tuple; 0xFFFFFFFF: none of this transaction.
        cmin: CommandId,
        /// Command that deleted the tuple; 0xFFFFFFFF: none of this transaction.
        cmax: CommandId,
        /// Combo command id that stands for both; for debugging.
        combo_cid: CommandId,
        /// Relation of the tuple.
        rel: RelFileLocator,
        /// Place of the tuple.
        tid: ItemPointer,
    }
}

wire_struct! {
    /// Fixed part of REWRITE. C: `xl_heap_rewrite_mapping`, 40 bytes with padding.
    pub struct RewriteHead("xl_heap_rewrite_mapping") {
        /// Transaction that might need to see the rows.
        mapped_xid: Xid,
        /// Database; zero for shared relations.
        mapped_db: Oid,
        /// The rewritten relation: `pg_class.oid`.
        mapped_rel: Oid,
        /// Padding.
        pad: Pad<4>,
        /// Where in the mapping file these mappings go, in bytes. C: `off_t`.
        offset: i64,
        /// Number of mappings.
        nmappings: u32,
        /// Padding.
        pad2: Pad<4>,
        /// Where in the WAL the rewrite began.
        start_lsn: Lsn,
    }
}
wire_struct! {
    /// Where a tuple went. C: `LogicalRewriteMappingData`, access/rewriteheap.h, 36 bytes.
    pub struct RewriteMapping("LogicalRewriteMappingData") {
        /// Relation before.
        old_rel: RelFileLocator,
        /// Relation after.
        new_rel: RelFileLocator,
        /// Place before.
        old_tid: ItemPointer,
        /// Place after.
        new_tid: ItemPointer,
    }
}
/// Where the tuples of a rewritten catalog went, for logical decoding: replay appends it to a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rewrite<'a> {
    /// Fixed part.
    pub head: RewriteHead,
    /// The mappings.
    pub mappings: Array<'a, RewriteMapping>,
}
json_object!(Rewrite<'_> { ..head, mappings });

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// Where tuples of a rewritten catalog went.
    Rewrite(Rewrite<'a>),
    /// Dead tuples are removed from a page; up to 13.
    Clean(Prune<'a>),
    /// Dead tuples are removed from a page; 14 to 16.
    Prune(Prune<'a>),
    /// A page is pruned while it is read; from 17 on.
    PruneOnAccess(PruneFreeze<'a>),
    /// VACUUM prunes or freezes in its first pass over the heap; from 17 on.
    PruneVacuumScan(PruneFreeze<'a>),
    /// VACUUM frees line pointers in its second pass over the heap; from 17 on.
    PruneVacuumCleanup(PruneFreeze<'a>),
    /// VACUUM frees line pointers in its second pass over the heap; 14 to 16.
    Vacuum(Vacuum<'a>),
    /// Tuples are frozen; up to 16.
    FreezePage(FreezePage<'a>),
    /// Rows were removed from a relation; up to 13.
    CleanupInfo(CleanupInfo),
    /// Bits are set in the visibility map; up to 18.
    Visible(Visible),
    /// New tuples.
    MultiInsert(MultiInsert<'a>),
    /// A later version of a row is locked.
    LockUpdated(LockUpdated),
    /// Command ids of a catalog tuple.
    NewCid(NewCid),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let opcode = rec.info().0 & OPMASK;
    // What removes, freezes or adds tuples has data for their page. Before 14, 0x30 was CLEANUP_INFO, which is of no page.
    let with_data = matches!(opcode, 0x10..=0x20 | 0x50) || opcode == 0x30 && fmt.since(14);
    rec.only_block_data("heap record", if with_data { &[0] } else { &[] })?;
    Ok(Some(match (opcode, fmt.major) {
        (0x00, _) => Op::Rewrite(rec.parse_all("xl_heap_rewrite_mapping", rec.main, |i| {
            let (i, head) = RewriteHead::read(i, fmt)?;
            let (i, mappings) = array(i, head.nmappings, fmt, "LogicalRewriteMappingData")?;
            Ok((i, Rewrite { head, mappings }))
        })?),
        (0x10, 17..) => Op::PruneOnAccess(PruneFreeze::parse(rec, fmt)?),
        (0x10, 14..) => Op::Prune(Prune::parse("xl_heap_prune", rec, fmt)?),
        (0x10, _) => Op::Clean(Prune::parse("xl_heap_clean", rec, fmt)?),
        (0x20, 17..) => Op::PruneVacuumScan(PruneFreeze::parse(rec, fmt)?),
        (0x20, 14..) => Op::Vacuum(Vacuum::parse(rec, fmt)?),
        (0x20, _) => Op::FreezePage(FreezePage::parse(rec, fmt)?),
        (0x30, 17..) => Op::PruneVacuumCleanup(PruneFreeze::parse(rec, fmt)?),
        (0x30, 14..) => Op::FreezePage(FreezePage::parse(rec, fmt)?),
        (0x30, _) => Op::CleanupInfo(rec.parse_all("xl_heap_cleanup_info", rec.main, |i| CleanupInfo::read(i, fmt))?),
        (0x40, ..=18) => Op::Visible(rec.parse_all("xl_heap_visible", rec.main, |i| Visible::read(i, fmt))?),
        (0x50, _) => Op::MultiInsert(MultiInsert::parse(rec, fmt)?),
        (0x60, _) => Op::LockUpdated(rec.parse_all("xl_heap_lock_updated", rec.main, |i| LockUpdated::read(i, fmt))?),
        (0x70, _) => Op::NewCid(rec.parse_all("xl_heap_new_cid", rec.main, |i| NewCid::read(i, fmt))?),
        _ => return Ok(None),
    }))
}

/// What most records are like.
pub(super) fn rules(fmt: WalFormat, rules: &mut Rules) {
    if !fmt.since(17) {
        rules.add(RmgrId::HEAP2, 0x10, OPMASK, Prune::rule(fmt));
    }
    rules.add(RmgrId::HEAP2, 0x60, OPMASK, Rule::sized(LockUpdated::size(fmt), 0).without_data());
}

/// See [`super::is_right`].
pub(super) fn is_right(info: Info, plain: &Plain<'_>, fmt: WalFormat) -> bool {
    let is_visible = info.0 & OPMASK == 0x40 && !fmt.since(19);
    is_visible && matches!(Visible::read(plain.main, fmt), Ok(([], _))) && plain.data.is_empty()
}

impl<'r> MultiInsert<'r> {
    fn parse(rec: &Record<'r>, fmt: WalFormat) -> Result<MultiInsert<'r>> {
        let (head, offsets) = rec.parse_all("xl_heap_multi_insert", rec.main, |i| {
            let (i, head) = MultiInsertHead::read(i, fmt)?;
            if rec.info().0 & INIT_PAGE != 0 {
                return Ok((i, (head, None)));
            }
            let (i, offsets) = array(i, head.ntuples, fmt, "xl_heap_multi_insert.offsets")?;
            Ok((i, (head, Some(offsets))))
        })?;
        let tuples = rec.parse_block_or_nothing("xl_multi_insert_tuple", 0, |i| MultiInsertTuples::read(i, head.ntuples, fmt))?;
        Ok(MultiInsert { head, offsets, tuples })
    }

    fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(offsets) = &self.offsets {
            offsets.write(&mut body.main);
        }
        if let Some(tuples) = &self.tuples {
            body.block(0).extend_from_slice(tuples.raw);
        }
    }
}

impl<'a> MultiInsertTuples<'a> {
    /// Reads `count` tuples.
    fn read(input: &'a [u8], count: u16, fmt: WalFormat) -> Parsed<'a, MultiInsertTuples<'a>> {
        let mut left = input;
        for _ in 0..count {
            left = MultiInsertTuples::read_one(input, left, fmt)?.0;
        }
        // What is left is not looked at: `raw` ends where the last tuple does.
        let (left, raw) = bytes(input, input.len().saturating_sub(left.len()), "xl_multi_insert_tuple")?;
        Ok((left, MultiInsertTuples { raw, fmt }))
    }

    /// Reads the tuple at `input`, the tail of `start`.
    fn read_one(start: &[u8], input: &'a [u8], fmt: WalFormat) -> Parsed<'a, HeapTuple<'a>> {
        let at = start.len().saturating_sub(input.len());
        let (i, _) = bytes(input, at % 2, "xl_multi_insert_tuple")?;
        let (i, len) = u16::read(i, fmt).map_err(|e| e.in_field("xl_multi_insert_tuple.datalen"))?;
        let (i, header) = HeapTupleHeader::read(i, fmt)?;
        let (i, data) = bytes(i, len.into(), "xl_multi_insert_tuple.datalen")?;
        Ok((i, HeapTuple { header, data: Bytes(data) }))
    }

    /// The tuples in order.
    pub fn iter(&self) -> impl Iterator<Item = HeapTuple<'a>> + use<'a> {
        let (start, mut left, fmt) = (self.raw, self.raw, self.fmt);
        std::iter::from_fn(move || {
            // `read` has seen every tuple, so the error is the end.
            let (rest, tuple) = MultiInsertTuples::read_one(start, left, fmt).ok()?;
            left = rest;
            Some(tuple)
        })
    }
}
impl fmt::Debug for MultiInsertTuples<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
impl Serialize for MultiInsertTuples<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::Rewrite(rewrite) => {
                rewrite.head.write(fmt, &mut body.main);
                rewrite.mappings.write(&mut body.main);
            }
            Op::Clean(prune) | Op::Prune(prune) => prune.write(fmt, body),
            Op::PruneOnAccess(prune) | Op::PruneVacuumScan(prune) | Op::PruneVacuumCleanup(prune) => prune.write(fmt, body),
            Op::Vacuum(vacuum) => vacuum.write(fmt, body),
            Op::FreezePage(freeze) => freeze.write(fmt, body),
            Op::CleanupInfo(info) => info.write(fmt, &mut body.main),
            Op::Visible(visible) => visible.write(fmt, &mut body.main),
            Op::MultiInsert(insert) => insert.write(fmt, body),
            Op::LockUpdated(lock) => lock.write(fmt, &mut body.main),
            Op::NewCid(cid) => cid.write(fmt, &mut body.main),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        match self {
            Op::Rewrite(_) => {}
            Op::Clean(prune) | Op::Prune(prune) => prune.describe(rec, fmt, out),
            Op::PruneOnAccess(prune) | Op::PruneVacuumScan(prune) | Op::PruneVacuumCleanup(prune) => prune.describe(rec, fmt, out),
            Op::Vacuum(vacuum) => vacuum.describe(rec, fmt, out),
            Op::FreezePage(freeze) => freeze.describe(rec, fmt, out),
            Op::CleanupInfo(info) => put!(out, "remxid ", info.latest_removed_xid),
            Op::Visible(visible) => visible.describe(rec, fmt, out),
            Op::MultiInsert(insert) => insert.describe(rec, fmt, out),
            Op::LockUpdated(LockUpdated { xmax, offnum, infobits, flags }) => {
                put_lock(out, fmt, *xmax, *offnum, *infobits, *flags, "xmax");
            }
            Op::NewCid(cid) => cid.describe(rec, fmt, out),
        }
    }
}

impl Describe for Visible {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if fmt.since(16) {
            put!(out, "snapshotConflictHorizon: ", self.snapshot_conflict_horizon, ", flags: 0x", hex2(self.flags.0));
        } else if fmt.since(12) {
            put!(out, "cutoff xid ", self.snapshot_conflict_horizon, " flags 0x", hex2(self.flags.0));
        } else {
            put!(out, "cutoff xid ", self.snapshot_conflict_horizon, " flags ", self.flags.0);
        }
    }
}

impl Describe for MultiInsert<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let MultiInsertHead { flags, ntuples, .. } = self.head;
        if !fmt.since(16) {
            put!(out, ntuples, " tuples");
            if fmt.since(12) {
                put!(out, " flags 0x", hex2(flags.0));
            }
            return;
        }
        put!(out, "ntuples: ", ntuples, ", flags: 0x", hex2(flags.0));
        if fmt.since(19) && flags.contains(InsertFlags::XLH_INSERT_ALL_FROZEN_SET) {
            put!(out, ", vm_flags: 0x03");
        }
        // The line pointers are there with an image as well, but shown only together with the tuples.
        if let (Some(offsets), Some(_)) = (&self.offsets, &self.tuples) {
            put!(out, ", offsets:");
            put_list(out, offsets.iter(), plain);
        }
    }
}

impl Describe for NewCid {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let NewCid { cmin, cmax, combo_cid, rel, tid, .. } = self;
        if fmt.since(16) {
            put!(out, "rel: ", rel, ", tid: ", tid.block, "/", tid.offnum, ", cmin: ", cmin);
        } else {
            put!(out, "rel ", rel, "; tid ", tid.block, "/", tid.offnum, "; cmin: ", cmin);
        }
        put!(out, ", cmax: ", cmax, ", combo: ", combo_cid);
    }
}

#[cfg(test)]
mod tests;
