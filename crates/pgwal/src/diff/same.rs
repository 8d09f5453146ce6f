//! Two records: the same, the same in meaning, or different.

use crate::record::{BlockFlags, BlockRef, Image, Info, RawRecord, Record};
use crate::rmgr::RmgrId;

/// How the bytes of two records differ that mean the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ButFor {
    pub(super) padding: bool,
    pub(super) compression: bool,
    pub(super) layout: bool,
}

/// Compares two records that stand at the same place, or behind two that were the same: then their links may differ.
/// `None`: they differ in meaning.
pub(super) fn same(a: &RawRecord<'_>, b: &RawRecord<'_>, linked: bool) -> Option<ButFor> {
    if a.bytes == b.bytes {
        return Some(ButFor::default());
    }
    let (x, y) = (&a.header, &b.header);
    if (x.xid, x.info, x.rmid) != (y.xid, y.info, y.rmid) || !(linked || x.prev == y.prev) {
        return None;
    }
    let (Ok(a), Ok(b)) = (a.decode(), b.decode()) else { return None };
    if (a.origin, a.toplevel_xid, a.blocks.len()) != (b.origin, b.toplevel_xid, b.blocks.len()) {
        return None;
    }
    let mut but_for = ButFor { padding: x.padding != y.padding, ..ButFor::default() };
    for (p, q) in a.blocks.iter().zip(&b.blocks) {
        let page = |block: &BlockRef<'_>| (block.id, block.rel, block.fork, block.block, block.image.is_some(), inits(block));
        if page(p) != page(q) {
            return None;
        }
        if let (Some(p), Some(q)) = (&p.image, &q.image)
            && p != q
        {
            if !same_page(p, q, &a) {
                return None;
            }
            but_for.compression = true;
        }
    }
    if a.main != b.main || !a.blocks.iter().map(data).eq(b.blocks.iter().map(data)) {
        if !same_payload(&a, &b) {
            return None;
        }
        but_for.padding = true;
    }
    // The same parts in other bytes: a long header for short data, a relation that is told again. Links differ where lengths did.
    but_for.layout = but_for == ButFor::default() && x.prev == y.prev;
    Some(but_for)
}

fn inits(block: &BlockRef<'_>) -> bool {
    block.flags.contains(BlockFlags::BKPBLOCK_WILL_INIT)
}

fn data<'r>(block: &BlockRef<'r>) -> &'r [u8] {
    block.data
}

/// Whether replay makes the same page of both images.
fn same_page(a: &Image<'_>, b: &Image<'_>, record: &Record<'_>) -> bool {
    let (mut page, mut other) = (Vec::new(), Vec::new());
    let restored = a.restore(record.fmt(), &mut page).is_ok() && b.restore(record.fmt(), &mut other).is_ok();
    restored && a.apply() == b.apply() && page == other
}

/// Whether the payloads differ in nothing but padding, which their JSON leaves out.
fn same_payload(a: &Record<'_>, b: &Record<'_>) -> bool {
    let json = |record: &Record<'_>| match record.payload() {
        Ok(Some(payload)) => serde_json::to_vec(&payload).ok(),
        _ => None,
    };
    json(a).is_some_and(|payload| Some(payload) == json(b))
}

/// What a record does, as far as it matters for what is lost with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It changes nothing that anybody has stored: hint bits, or the server's own bookkeeping.
    HintOnly,
    /// It ends a transaction that is kept.
    Commit,
    /// Anything else.
    Change,
}

/// Hint bits are set again by whoever needs them, so the images that checksums make of them (FPI_FOR_HINT) can be missing. The rest
/// is written by an idle server too, and replay of it touches no relation: NOOP, SWITCH, RESTORE_POINT, the checkpoints, RUNNING_XACTS.
/// Pruning is not among them: later records rely on the line pointers that it leaves.
pub(super) fn effect(raw: &RawRecord<'_>) -> Effect {
    const STANDBY: RmgrId = RmgrId(8);
    let info = raw.header.info;
    match (raw.header.rmid, info.opcode()) {
        (RmgrId::XLOG, 0x00 | 0x10 | 0x20 | Info::XLOG_SWITCH | 0x70 | 0xA0) => Effect::HintOnly,
        (RmgrId::XLOG, 0xE0) if raw.fmt.since(17) => Effect::HintOnly,
        (STANDBY, 0x10) => Effect::HintOnly,
        (RmgrId::XACT, _) if matches!(info.0 & 0x70, 0x00 | 0x30) => Effect::Commit,
        _ => Effect::Change,
    }
}
