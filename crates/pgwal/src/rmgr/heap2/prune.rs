//! Pruning, freezing and vacuuming of heap pages: one record each up to 16, one for all of them from 17 on.

use serde::Serialize;

use crate::error::Result;
use crate::format::WalFormat;
use crate::record::Record;
use crate::rmgr::list::{plain, put_elements, put_list};
use crate::rmgr::rules::Rule;
use crate::rmgr::{Body, Describe, letter};
use crate::text::{Text, hex2};
use crate::heap_tuple::{Infomask, Infomask2};
use crate::types::{OffsetNumber, Xid};
use crate::wire::{Array, CBool, FixedSize, Pad, Parsed, Since, Until, Wire, array};

/// Line pointers.
pub type OffsetNumbers<'a> = Array<'a, OffsetNumber>;

wire_struct! {
    /// A line pointer that now leads to another.
    pub struct Redirect("OffsetNumber") {
        /// Line pointer.
        from: OffsetNumber,
        /// The one it leads to.
        to: OffsetNumber,
    }
}

wire_struct! {
    /// Fixed part of CLEAN and PRUNE. C: `xl_heap_clean` up to 13, 8 bytes; `xl_heap_prune` 14 to 16, from 16 on 9 bytes.
    pub struct PruneHead("xl_heap_prune") {
        /// Newest transaction that deleted a removed row; zero: no conflict on a standby. C: `latestRemovedXid` before 16.
        snapshot_conflict_horizon: Xid,
        /// Number of line pointers that become redirections.
        nredirected: u16,
        /// Number of line pointers that become dead.
        ndead: u16,
        /// Whether logical decoding may read the relation.
        is_catalog_rel: Since<16, CBool>,
    }
}
/// Dead tuples are removed from the page of block 0. Up to 16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prune<'a> {
    /// Fixed part.
    pub head: PruneHead,
    /// What becomes of the line pointers, data of block 0; absent where the page's image shows it.
    pub items: Option<PruneItems<'a>>,
}
json_object!(Prune<'_> { ..head, items });
/// What becomes of line pointers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PruneItems<'a> {
    /// These lead to others.
    pub redirected: Array<'a, Redirect>,
    /// These are dead.
    pub dead: OffsetNumbers<'a>,
    /// These are free. Before 17 their number is not stored: they take what is left.
    pub unused: OffsetNumbers<'a>,
}
json_object!(PruneItems<'_> { redirected, dead, unused });

wire_struct! {
    /// Fixed part of VACUUM. C: `xl_heap_vacuum`, 2 bytes.
    pub struct VacuumHead("xl_heap_vacuum") {
        /// Number of line pointers that become free.
        nunused: u16,
    }
}
/// Dead line pointers on the page of block 0 are freed, in VACUUM's second pass over the heap. 14 to 16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vacuum<'a> {
    /// Fixed part.
    pub head: VacuumHead,
    /// The line pointers, data of block 0; absent where the page's image shows it.
    pub unused: Option<OffsetNumbers<'a>>,
}
json_object!(Vacuum<'_> { ..head, unused });

wire_flags! {
    /// C: `XLH_FREEZE_*`, `XLH_INVALID_XVAC`, access/heapam_xlog.h.
    pub struct FreezeFlags: u8 {
        /// xvac becomes `FrozenTransactionId`.
        XLH_FREEZE_XVAC = 0x02,
        /// xvac becomes `InvalidTransactionId`.
        XLH_INVALID_XVAC = 0x04,
    }
}

/// Tuples on the page of block 0 are frozen. Up to 16.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum FreezePage<'a> {
    /// Each on its own, up to 15.
    Tuples(FreezeTuples<'a>),
    /// In groups that get the same new header, in 16.
    Plans(FreezePlans<'a>),
}

wire_struct! {
    /// How one tuple is frozen. C: `xl_heap_freeze_tuple`, 12 bytes with padding.
    pub struct FreezeTuple("xl_heap_freeze_tuple") {
        /// New xmax.
        xmax: Xid,
        /// Line pointer of the tuple.
        offnum: OffsetNumber,
        /// New `t_infomask2`.
        infomask2: Infomask2,
        /// New `t_infomask`.
        infomask: Infomask,
        /// What to do with xvac.
        freeze_flags: FreezeFlags,
        /// Padding.
        pad: Pad<1>,
    }
}
wire_struct! {
    /// Fixed part of FREEZE_PAGE up to 15. C: `xl_heap_freeze_page`, 6 bytes.
    pub struct FreezeTuplesHead("xl_heap_freeze_page") {
        /// Transactions before this one are frozen.
        cutoff_xid: Xid,
        /// Number of tuples.
        ntuples: u16,
    }
}
/// Tuples that are frozen, each on its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FreezeTuples<'a> {
    /// Fixed part.
    pub head: FreezeTuplesHead,
    /// The tuples, data of block 0; absent where the page's image shows them.
    pub tuples: Option<Array<'a, FreezeTuple>>,
}
json_object!(FreezeTuples<'_> { ..head, tuples });

wire_struct! {
    /// How a group of tuples is frozen. C: `xl_heap_freeze_plan` in 16, `xlhp_freeze_plan` from 17 on, 12 bytes with padding.
    pub struct FreezePlan("xlhp_freeze_plan") {
        /// New xmax.
        xmax: Xid,
        /// New `t_infomask2`.
        infomask2: Infomask2,
        /// New `t_infomask`.
        infomask: Infomask,
        /// What to do with xvac.
        freeze_flags: FreezeFlags,
        /// Padding.
        pad: Pad<1>,
        /// Number of tuples.
        ntuples: u16,
    }
}
wire_struct! {
    /// Fixed part of FREEZE_PAGE in 16. C: `xl_heap_freeze_page`, 7 bytes.
    pub struct FreezePlansHead("xl_heap_freeze_page") {
        /// Newest transaction that is frozen.
        snapshot_conflict_horizon: Xid,
        /// Number of groups.
        nplans: u16,
        /// Whether logical decoding may read the relation.
        is_catalog_rel: CBool,
    }
}
/// Tuples that are frozen, in groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FreezePlans<'a> {
    /// Fixed part.
    pub head: FreezePlansHead,
    /// The groups, data of block 0; absent where the page's image shows them.
    pub items: Option<FreezeItems<'a>>,
}
json_object!(FreezePlans<'_> { ..head, ..items });
/// Groups of tuples and the line pointers of them all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FreezeItems<'a> {
    /// The groups.
    pub plans: Array<'a, FreezePlan>,
    /// Line pointers: those of the first group, then those of the second, …
    pub offsets: OffsetNumbers<'a>,
}
json_object!(FreezeItems<'_> { plans, offsets });

wire_newtype! {
    /// Why a page was pruned: 0 on access, 1 VACUUM's first pass, 2 its second. C: `PruneReason`, access/heapam.h.
    #[derive(Serialize)]
    #[serde(transparent)]
    pub struct PruneReason(u8);
}
wire_flags! {
    /// C: `XLHP_*`, access/heapam_xlog.h. One byte on disk in 17 and 18, two from 19 on.
    pub struct PruneFlags: u16 {
        /// Logical decoding may read the relation.
        XLHP_IS_CATALOG_REL = 0x0002,
        /// Replay waits until nobody looks at the page.
        XLHP_CLEANUP_LOCK = 0x0004,
        /// The conflict horizon follows.
        XLHP_HAS_CONFLICT_HORIZON = 0x0008,
        /// Block 0 has freeze plans.
        XLHP_HAS_FREEZE_PLANS = 0x0010,
        /// Block 0 has redirections.
        XLHP_HAS_REDIRECTIONS = 0x0020,
        /// Block 0 has dead line pointers.
        XLHP_HAS_DEAD_ITEMS = 0x0040,
        /// Block 0 has free line pointers.
        XLHP_HAS_NOW_UNUSED_ITEMS = 0x0080,
        /// The page becomes all-visible; from 19 on.
        XLHP_VM_ALL_VISIBLE = 0x0100,
        /// The page becomes all-frozen; from 19 on.
        XLHP_VM_ALL_FROZEN = 0x0200,
    }
}
/// The page of block 0 is pruned, frozen, or both; from 19 on its bits in the visibility map, on the page of block 1, may be set too.
/// From 17 on. C: `xl_heap_prune`, 2 bytes, and the horizon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PruneFreeze<'a> {
    /// Why; the opcode says it too. Not stored from 19 on.
    pub reason: Until<18, PruneReason>,
    /// What the record has.
    pub flags: PruneFlags,
    /// Newest transaction whose rows were removed or frozen; absent: no conflict on a standby.
    pub snapshot_conflict_horizon: Option<Xid>,
    /// What changes on the page, data of block 0; absent where the page's image shows it, or nothing but bits of the map changes.
    pub changes: Option<PruneFreezeItems<'a>>,
}
/// What is pruned and frozen on a page. Parts that the flags leave out are empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PruneFreezeItems<'a> {
    /// How tuples are frozen. C: `xlhp_freeze_plans`.
    pub plans: Array<'a, FreezePlan>,
    /// Padding before the plans.
    pub pad: Pad<2>,
    /// What becomes of line pointers. C: `xlhp_prune_items`, up to three.
    pub items: PruneItems<'a>,
    /// Line pointers of frozen tuples: those of the first plan, then those of the second, …
    pub frozen: OffsetNumbers<'a>,
}
json_object!(PruneFreezeItems<'_> { plans, ..items, frozen });

impl<'r> Prune<'r> {
    pub(super) fn parse(c: &'static str, rec: &Record<'r>, fmt: WalFormat) -> Result<Prune<'r>> {
        let head = rec.parse_all(c, rec.main, |i| PruneHead::read(i, fmt))?;
        let items = rec.parse_block_or_nothing("OffsetNumber", 0, |i| {
            let (i, redirected) = array(i, head.nredirected, fmt, "nredirected")?;
            let (i, dead) = array(i, head.ndead, fmt, "ndead")?;
            let (i, unused) = array(i, i.len() / 2, fmt, "nunused")?;
            Ok((i, PruneItems { redirected, dead, unused }))
        })?;
        Ok(Prune { head, items })
    }

    /// A redirection is two line pointers; those that become unused take up what is left.
    pub(super) fn rule(fmt: WalFormat) -> Rule {
        Rule::sized(PruneHead::size(fmt), 0).counted(4)
    }

    pub(super) fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(items) = &self.items {
            let out = body.block(0);
            items.redirected.write(out);
            items.dead.write(out);
            items.unused.write(out);
        }
    }
}

impl Describe for Prune<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let PruneHead { snapshot_conflict_horizon: horizon, nredirected, ndead, .. } = self.head;
        if !fmt.since(14) {
            put!(out, "remxid ", horizon);
        } else if !fmt.since(16) {
            put!(out, "latestRemovedXid ", horizon, " nredirected ", nredirected, " ndead ", ndead);
        } else {
            put!(out, "snapshotConflictHorizon: ", horizon, ", nredirected: ", nredirected, ", ndead: ", ndead);
            if let Some(items) = &self.items {
                put!(out, ", nunused: ", items.unused.len(), ", redirected:");
                put_list(out, items.redirected.iter(), put_redirect);
                put!(out, ", dead:");
                put_list(out, items.dead.iter(), plain);
                put!(out, ", unused:");
                put_list(out, items.unused.iter(), plain);
            }
        }
    }
}

impl<'r> Vacuum<'r> {
    pub(super) fn parse(rec: &Record<'r>, fmt: WalFormat) -> Result<Vacuum<'r>> {
        let head = rec.parse_all("xl_heap_vacuum", rec.main, |i| VacuumHead::read(i, fmt))?;
        let unused = rec.parse_block_or_nothing("OffsetNumber", 0, |i| array(i, head.nunused, fmt, "nunused"))?;
        Ok(Vacuum { head, unused })
    }

    pub(super) fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(unused) = &self.unused {
            unused.write(body.block(0));
        }
    }
}

impl Describe for Vacuum<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if !fmt.since(16) {
            return put!(out, "nunused ", self.head.nunused);
        }
        put!(out, "nunused: ", self.head.nunused);
        if let Some(unused) = &self.unused {
            put!(out, ", unused:");
            put_list(out, unused.iter(), plain);
        }
    }
}

impl<'r> FreezePage<'r> {
    pub(super) fn parse(rec: &Record<'r>, fmt: WalFormat) -> Result<FreezePage<'r>> {
        if fmt.since(16) {
            let head = rec.parse_all("xl_heap_freeze_page", rec.main, |i| FreezePlansHead::read(i, fmt))?;
            let items = rec.parse_block_or_nothing("xl_heap_freeze_plan", 0, |i| {
                let (i, plans) = array(i, head.nplans, fmt, "xl_heap_freeze_plan")?;
                let (i, offsets) = plan_offsets(&plans, i, fmt)?;
                Ok((i, FreezeItems { plans, offsets }))
            })?;
            return Ok(FreezePage::Plans(FreezePlans { head, items }));
        }
        let head = rec.parse_all("xl_heap_freeze_page", rec.main, |i| FreezeTuplesHead::read(i, fmt))?;
        let tuples = rec.parse_block_or_nothing("xl_heap_freeze_tuple", 0, |i| array(i, head.ntuples, fmt, "xl_heap_freeze_tuple"))?;
        Ok(FreezePage::Tuples(FreezeTuples { head, tuples }))
    }

    pub(super) fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            FreezePage::Tuples(FreezeTuples { head, tuples }) => {
                head.write(fmt, &mut body.main);
                if let Some(tuples) = tuples {
                    tuples.write(body.block(0));
                }
            }
            FreezePage::Plans(FreezePlans { head, items }) => {
                head.write(fmt, &mut body.main);
                if let Some(items) = items {
                    items.plans.write(body.block(0));
                    items.offsets.write(body.block(0));
                }
            }
        }
    }
}

/// The line pointers of all `plans`.
fn plan_offsets<'a>(plans: &Array<'_, FreezePlan>, input: &'a [u8], fmt: WalFormat) -> Parsed<'a, OffsetNumbers<'a>> {
    // At most 65535 plans of at most 65535 tuples.
    let count: u64 = plans.iter().map(|plan| u64::from(plan.ntuples)).sum();
    array(input, count, fmt, "frz_offsets")
}

impl Describe for FreezePage<'_> {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        match self {
            FreezePage::Tuples(FreezeTuples { head, .. }) => {
                put!(out, "cutoff xid ", head.cutoff_xid, " ntuples ", head.ntuples);
            }
            FreezePage::Plans(FreezePlans { head, items }) => {
                put!(out, "snapshotConflictHorizon: ", head.snapshot_conflict_horizon, ", nplans: ", head.nplans);
                if let Some(items) = items {
                    put_plans(out, &items.plans, &items.offsets);
                }
            }
        }
    }
}

impl<'r> PruneFreeze<'r> {
    pub(super) fn parse(rec: &Record<'r>, fmt: WalFormat) -> Result<PruneFreeze<'r>> {
        let (reason, flags, snapshot_conflict_horizon) = rec.parse_all("xl_heap_prune", rec.main, |i| {
            let (i, reason) = Until::read(i, fmt).map_err(|e| e.in_field("xl_heap_prune.reason"))?;
            let (i, flags) = read_flags(i, fmt)?;
            if !flags.contains(PruneFlags::XLHP_HAS_CONFLICT_HORIZON) {
                return Ok((i, (reason, flags, None)));
            }
            let (i, horizon) = Xid::read(i, fmt).map_err(|e| e.in_field("xl_heap_prune.snapshot_conflict_horizon"))?;
            Ok((i, (reason, flags, Some(horizon))))
        })?;
        let changes = rec.parse_block_or_nothing("xlhp_prune_items", 0, |i| PruneFreezeItems::read(i, flags, fmt))?;
        Ok(PruneFreeze { reason, flags, snapshot_conflict_horizon, changes })
    }

    pub(super) fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.reason.write(fmt, &mut body.main);
        if fmt.since(19) {
            self.flags.write(fmt, &mut body.main);
        } else {
            body.main.push(self.flags.0 as u8); // 17 and 18 have no flags above 0x80
        }
        if let Some(horizon) = self.snapshot_conflict_horizon {
            horizon.write(fmt, &mut body.main);
        }
        if let Some(changes) = &self.changes {
            changes.write(self.flags, fmt, body.block(0));
        }
    }
}

fn read_flags(input: &[u8], fmt: WalFormat) -> Parsed<'_, PruneFlags> {
    const FIELD: &str = "xl_heap_prune.flags";
    if fmt.since(19) {
        return PruneFlags::read(input, fmt).map_err(|e| e.in_field(FIELD));
    }
    let (input, flags) = u8::read(input, fmt).map_err(|e| e.in_field(FIELD))?;
    Ok((input, PruneFlags(flags.into())))
}

impl<'a> PruneFreezeItems<'a> {
    fn read(i: &'a [u8], flags: PruneFlags, fmt: WalFormat) -> Parsed<'a, PruneFreezeItems<'a>> {
        let (i, pad, plans) = if flags.contains(PruneFlags::XLHP_HAS_FREEZE_PLANS) {
            let (i, nplans) = u16::read(i, fmt).map_err(|e| e.in_field("xlhp_freeze_plans.nplans"))?;
            let (i, pad) = Pad::read(i, fmt).map_err(|e| e.in_field("xlhp_freeze_plans.plans"))?;
            let (i, plans) = array(i, nplans, fmt, "xlhp_freeze_plans.plans")?;
            (i, pad, plans)
        } else {
            let (i, plans) = array(i, 0, fmt, "")?;
            (i, Pad::default(), plans)
        };
        let (i, redirected) = targets(flags.contains(PruneFlags::XLHP_HAS_REDIRECTIONS), i, fmt)?;
        let (i, dead) = targets(flags.contains(PruneFlags::XLHP_HAS_DEAD_ITEMS), i, fmt)?;
        let (i, unused) = targets(flags.contains(PruneFlags::XLHP_HAS_NOW_UNUSED_ITEMS), i, fmt)?;
        let (i, frozen) = plan_offsets(&plans, i, fmt)?;
        Ok((i, PruneFreezeItems { plans, pad, items: PruneItems { redirected, dead, unused }, frozen }))
    }

    fn write(&self, flags: PruneFlags, fmt: WalFormat, out: &mut Vec<u8>) {
        let count = |count: usize, out: &mut Vec<u8>| (count as u16).write(fmt, out); // read from a u16
        if flags.contains(PruneFlags::XLHP_HAS_FREEZE_PLANS) {
            count(self.plans.len(), out);
            self.pad.write(fmt, out);
            self.plans.write(out);
        }
        if flags.contains(PruneFlags::XLHP_HAS_REDIRECTIONS) {
            count(self.items.redirected.len(), out);
            self.items.redirected.write(out);
        }
        if flags.contains(PruneFlags::XLHP_HAS_DEAD_ITEMS) {
            count(self.items.dead.len(), out);
            self.items.dead.write(out);
        }
        if flags.contains(PruneFlags::XLHP_HAS_NOW_UNUSED_ITEMS) {
            count(self.items.unused.len(), out);
            self.items.unused.write(out);
        }
        self.frozen.write(out);
    }
}

/// A counted list, or an empty one where the flags say that there is none. C: `xlhp_prune_items`.
fn targets<'a, T: Wire<'a> + crate::wire::FixedSize>(present: bool, i: &'a [u8], fmt: WalFormat) -> Parsed<'a, Array<'a, T>> {
    let (i, count) = if present { u16::read(i, fmt).map_err(|e| e.in_field("xlhp_prune_items.ntargets"))? } else { (i, 0) };
    array(i, count, fmt, "xlhp_prune_items.data")
}

impl Describe for PruneFreeze<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        if let Some(horizon) = self.snapshot_conflict_horizon {
            put!(out, "snapshotConflictHorizon: ", horizon);
        }
        put!(out, ", isCatalogRel: ", letter(self.flags.contains(PruneFlags::XLHP_IS_CATALOG_REL)));
        if fmt.since(19) && self.flags.contains(PruneFlags::XLHP_VM_ALL_VISIBLE) {
            // VISIBILITYMAP_ALL_VISIBLE, and VISIBILITYMAP_ALL_FROZEN.
            let bits = if self.flags.contains(PruneFlags::XLHP_VM_ALL_FROZEN) { 0x03u8 } else { 0x01 };
            put!(out, ", vm_flags: 0x", hex2(bits));
        }
        let Some(PruneFreezeItems { plans, items, frozen, .. }) = &self.changes else { return };
        put!(out, ", nplans: ", plans.len(), ", nredirected: ", items.redirected.len());
        put!(out, ", ndead: ", items.dead.len(), ", nunused: ", items.unused.len());
        if !plans.is_empty() {
            put_plans(out, plans, frozen);
        }
        if !items.redirected.is_empty() {
            put!(out, ", redirected:");
            put_list(out, items.redirected.iter(), put_redirect);
        }
        if !items.dead.is_empty() {
            put!(out, ", dead:");
            put_list(out, items.dead.iter(), plain);
        }
        if !items.unused.is_empty() {
            put!(out, ", unused:");
            put_list(out, items.unused.iter(), plain);
        }
    }
}

/// C: `plan_elem_desc` for each plan.
fn put_plans(out: &mut Text, plans: &Array<'_, FreezePlan>, offsets: &OffsetNumbers<'_>) {
    let mut offsets = offsets.iter();
    put!(out, ", plans:");
    put_list(out, plans.iter(), |out, plan| {
        put!(out, "{ xmax: ", plan.xmax, ", infomask: ", plan.infomask.0, ", infomask2: ", plan.infomask2.0);
        put!(out, ", ntuples: ", plan.ntuples, ", offsets: [");
        put_elements(out, offsets.by_ref().take(plan.ntuples.into()), plain);
        put!(out, "] }");
    });
}

/// C: `redirect_elem_desc`.
fn put_redirect(out: &mut Text, redirect: Redirect) {
    put!(out, redirect.from, "->", redirect.to);
}
