//! Heap, resource manager 10. C: access/heapam_xlog.h; text: rmgrdesc/heapdesc.c.

use serde::Serialize;

use super::list::{plain, put_list, put_names};
use super::rules::{Rule, Rules};
use super::{Body, Describe, Opcode, RmgrId, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::inval::{InvalMessage, put_invalidations};
use crate::record::Record;
use crate::text::{Text, hex2};
use crate::heap_tuple::{HeapTuple, HeapTupleHeader};
use crate::types::{Oid, OffsetNumber, Xid};
use crate::wire::{FixedSize, Array, Bytes, CBool, Pad, Since, Wire, array, optional, rest};

/// Record types. `+INIT`: replay starts with an empty page (`XLOG_HEAP_INIT_PAGE`).
pub const OPCODES: &[Opcode] = &[
    op(0x00, "INSERT", Majors::ALL),
    op(0x80, "INSERT+INIT", Majors::ALL),
    op(0x10, "DELETE", Majors::ALL),
    op(0x20, "UPDATE", Majors::ALL),
    op(0xA0, "UPDATE+INIT", Majors::ALL),
    op(0x30, "TRUNCATE", Majors::since(11)),
    op(0x40, "HOT_UPDATE", Majors::ALL),
    op(0xC0, "HOT_UPDATE+INIT", Majors::ALL),
    op(0x50, "HEAP_CONFIRM", Majors::ALL),
    op(0x60, "LOCK", Majors::ALL),
    op(0x70, "INPLACE", Majors::ALL),
];

/// The bits that say what the record is; the one above is [`INIT_PAGE`]. C: `XLOG_HEAP_OPMASK`.
pub const OPMASK: u8 = 0x70;
/// Replay starts with an empty page. C: `XLOG_HEAP_INIT_PAGE`.
pub const INIT_PAGE: u8 = 0x80;

wire_flags! {
    /// C: `XLH_INSERT_*`, access/heapam_xlog.h.
    pub struct InsertFlags: u8 {
        /// The page is no longer all-visible.
        XLH_INSERT_ALL_VISIBLE_CLEARED = 0x01,
        /// The last record of a multi-insert.
        XLH_INSERT_LAST_IN_MULTI = 0x02,
        /// Inserted on trial, for INSERT ON CONFLICT.
        XLH_INSERT_IS_SPECULATIVE = 0x04,
        /// The tuple is here even where the page has an image, for logical decoding.
        XLH_INSERT_CONTAINS_NEW_TUPLE = 0x08,
        /// The relation is a TOAST table; from 14 on.
        XLH_INSERT_ON_TOAST_RELATION = 0x10,
        /// The page is all-visible and all-frozen now; from 14 on.
        XLH_INSERT_ALL_FROZEN_SET = 0x20,
    }
}
wire_flags! {
    /// C: `XLH_DELETE_*`, access/heapam_xlog.h.
    pub struct DeleteFlags: u8 {
        /// The page is no longer all-visible.
        XLH_DELETE_ALL_VISIBLE_CLEARED = 0x01,
        /// The whole old tuple follows.
        XLH_DELETE_CONTAINS_OLD_TUPLE = 0x02,
        /// The old tuple's key follows.
        XLH_DELETE_CONTAINS_OLD_KEY = 0x04,
        /// A speculative insertion is taken back.
        XLH_DELETE_IS_SUPER = 0x08,
        /// The row moved to another partition; from 11 on.
        XLH_DELETE_IS_PARTITION_MOVE = 0x10,
        /// Logical decoding skips the record; from 19 on.
        XLH_DELETE_NO_LOGICAL = 0x20,
    }
}
wire_flags! {
    /// C: `XLH_UPDATE_*`, access/heapam_xlog.h.
    pub struct UpdateFlags: u8 {
        /// The old page is no longer all-visible.
        XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED = 0x01,
        /// The new page is no longer all-visible.
        XLH_UPDATE_NEW_ALL_VISIBLE_CLEARED = 0x02,
        /// The whole old tuple follows.
        XLH_UPDATE_CONTAINS_OLD_TUPLE = 0x04,
        /// The old tuple's key follows.
        XLH_UPDATE_CONTAINS_OLD_KEY = 0x08,
        /// The new tuple is here even where the page has an image, for logical decoding.
        XLH_UPDATE_CONTAINS_NEW_TUPLE = 0x10,
        /// The new tuple starts like the old one.
        XLH_UPDATE_PREFIX_FROM_OLD = 0x20,
        /// The new tuple ends like the old one.
        XLH_UPDATE_SUFFIX_FROM_OLD = 0x40,
    }
}
wire_flags! {
    /// What to set in the infomasks of a tuple that gets an xmax. C: `XLHL_*`, access/heapam_xlog.h.
    pub struct Infobits: u8 {
        /// xmax is a multixact.
        XLHL_XMAX_IS_MULTI = 0x01,
        /// xmax only locks.
        XLHL_XMAX_LOCK_ONLY = 0x02,
        /// xmax locks exclusively.
        XLHL_XMAX_EXCL_LOCK = 0x04,
        /// xmax locks the key, shared.
        XLHL_XMAX_KEYSHR_LOCK = 0x08,
        /// The key changed, or the tuple was deleted.
        XLHL_KEYS_UPDATED = 0x10,
    }
}
wire_flags! {
    /// C: `XLH_LOCK_*`, access/heapam_xlog.h.
    pub struct LockFlags: u8 {
        /// The page is no longer all-frozen.
        XLH_LOCK_ALL_FROZEN_CLEARED = 0x01,
    }
}
wire_flags! {
    /// C: `XLH_TRUNCATE_*`, access/heapam_xlog.h.
    pub struct TruncateFlags: u8 {
        /// TRUNCATE … CASCADE.
        XLH_TRUNCATE_CASCADE = 0x01,
        /// TRUNCATE … RESTART IDENTITY.
        XLH_TRUNCATE_RESTART_SEQS = 0x02,
    }
}

impl DeleteFlags {
    /// An old tuple follows, whole or its key. C: `XLH_DELETE_CONTAINS_OLD`.
    pub const CONTAINS_OLD: DeleteFlags = DeleteFlags(0x06);
}
impl UpdateFlags {
    /// An old tuple follows, whole or its key. C: `XLH_UPDATE_CONTAINS_OLD`.
    pub const CONTAINS_OLD: UpdateFlags = UpdateFlags(0x0C);
}

wire_struct! {
    /// Fixed part of INSERT. C: `xl_heap_insert`, 3 bytes.
    pub struct InsertHead("xl_heap_insert") {
        /// Line pointer of the new tuple.
        offnum: OffsetNumber,
        /// What becomes of the page, and what the record carries.
        flags: InsertFlags,
    }
}
/// A new tuple on the page of block 0. Newer minors of 17 and later name the visibility map's page as block 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Insert<'a> {
    /// Fixed part.
    pub head: InsertHead,
    /// The tuple, data of block 0; absent where the page's image has it.
    pub tuple: Option<HeapTuple<'a>>,
}
json_object!(Insert<'_> { ..head, tuple });

wire_struct! {
    /// Fixed part of DELETE. C: `xl_heap_delete`, 8 bytes.
    pub struct DeleteHead("xl_heap_delete") {
        /// Who deleted it: a transaction, or a multixact with lockers.
        xmax: Xid,
        /// Line pointer of the tuple.
        offnum: OffsetNumber,
        /// What xmax means.
        infobits: Infobits,
        /// How the tuple goes, and what the record carries.
        flags: DeleteFlags,
    }
}
/// The tuple on the page of block 0 is deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delete<'a> {
    /// Fixed part.
    pub head: DeleteHead,
    /// The old tuple, or the attributes of its replica identity, for logical decoding.
    pub old_tuple: Option<HeapTuple<'a>>,
}
json_object!(Delete<'_> { ..head, old_tuple });

wire_struct! {
    /// Fixed part of UPDATE and HOT_UPDATE. C: `xl_heap_update`, 14 bytes.
    pub struct UpdateHead("xl_heap_update") {
        /// xmax of the old version.
        old_xmax: Xid,
        /// Line pointer of the old version.
        old_offnum: OffsetNumber,
        /// What the old version's xmax means.
        old_infobits: Infobits,
        /// What becomes of the pages, and what the record carries.
        flags: UpdateFlags,
        /// xmax of the new version: zero, or lockers that stay.
        new_xmax: Xid,
        /// Line pointer of the new version.
        new_offnum: OffsetNumber,
    }
}
/// A new version of a row, on the page of block 0; the old one is on the page of block 1, or on the same page where there is no
/// such block. Newer minors of 17 and later name the visibility map's pages as blocks 2 (new) and 3 (old).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update<'a> {
    /// Fixed part.
    pub head: UpdateHead,
    /// The new version, data of block 0; absent where the page's image has it.
    pub new_tuple: Option<NewTuple<'a>>,
    /// The old version, or the attributes of its replica identity, for logical decoding.
    pub old_tuple: Option<HeapTuple<'a>>,
}
json_object!(Update<'_> { ..head, new_tuple, old_tuple });

/// The new version of a row, without what it shares with the old one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewTuple<'a> {
    /// Bytes that the attributes start with like the old version's; `None`: not shortened at the start.
    pub prefix_len: Option<u16>,
    /// Bytes that the attributes end with like the old version's; `None`: not shortened at the end.
    pub suffix_len: Option<u16>,
    /// What is left.
    pub tuple: HeapTuple<'a>,
}
json_object!(NewTuple<'_> { prefix_len, suffix_len, ..tuple });

wire_struct! {
    /// Fixed part of TRUNCATE. C: `xl_heap_truncate`, 12 bytes with padding.
    pub struct TruncateHead("xl_heap_truncate") {
        /// Database of the relations.
        db: Oid,
        /// Number of relations.
        nrelids: u32,
        /// Options of the command.
        flags: TruncateFlags,
        /// Padding.
        pad: Pad<3>,
    }
}
/// TRUNCATE as logical decoding sees it; replay ignores it. From 11 on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truncate<'a> {
    /// Fixed part.
    pub head: TruncateHead,
    /// The relations: `pg_class.oid`.
    pub relids: Array<'a, Oid>,
}
json_object!(Truncate<'_> { ..head, relids });

wire_struct! {
    /// A speculative insertion stays. C: `xl_heap_confirm`, 2 bytes.
    pub struct Confirm("xl_heap_confirm") {
        /// Line pointer of the tuple on the page of block 0.
        offnum: OffsetNumber,
    }
}
wire_struct! {
    /// A tuple on the page of block 0 is locked. C: `xl_heap_lock`, 8 bytes.
    pub struct Lock("xl_heap_lock") {
        /// The locker: a transaction, or a multixact. C: `locking_xid` before 16.
        xmax: Xid,
        /// Line pointer of the tuple.
        offnum: OffsetNumber,
        /// What xmax means.
        infobits: Infobits,
        /// What becomes of the page.
        flags: LockFlags,
    }
}

wire_struct! {
    /// Fixed part of INPLACE. C: `xl_heap_inplace`, 2 bytes; from 18 on 20 bytes with padding.
    pub struct InplaceHead("xl_heap_inplace") {
        /// Line pointer of the tuple.
        offnum: OffsetNumber,
        /// Padding.
        pad: Since<18, Pad<2>>,
        /// Database of the session.
        db: Since<18, Oid>,
        /// Default tablespace of that database.
        ts: Since<18, Oid>,
        /// Whether the relation cache's start-up files are out of date.
        relcache_init_file_inval: Since<18, CBool>,
        /// Padding.
        pad2: Since<18, Pad<3>>,
        /// Number of invalidation messages.
        ninvals: Since<18, i32>,
    }
}
/// A catalog tuple on the page of block 0 is overwritten where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inplace<'a> {
    /// Fixed part.
    pub head: InplaceHead,
    /// Cache entries that are out of date.
    pub invals: Since<18, Array<'a, InvalMessage>>,
    /// The tuple's attributes as they are now, data of block 0; absent where the page's image has them.
    pub attributes: Option<Bytes<'a>>,
}
json_object!(Inplace<'_> { ..head, invals, attributes });

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// A new tuple.
    Insert(Insert<'a>),
    /// A tuple is deleted.
    Delete(Delete<'a>),
    /// A new version of a row.
    Update(Update<'a>),
    /// A new version of a row on the same page, without new index entries.
    HotUpdate(Update<'a>),
    /// Relations are emptied.
    Truncate(Truncate<'a>),
    /// A speculative insertion stays.
    #[serde(rename = "heap_confirm")]
    Confirm(Confirm),
    /// A tuple is locked.
    Lock(Lock),
    /// A catalog tuple is overwritten.
    Inplace(Inplace<'a>),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let opcode = rec.info().0 & OPMASK;
    rec.only_block_data("heap record", if matches!(opcode, 0x00 | 0x20 | 0x40 | 0x70) { &[0] } else { &[] })?;
    Ok(Some(match opcode {
        0x00 => Op::Insert(Insert {
            head: rec.parse_all("xl_heap_insert", rec.main, |i| InsertHead::read(i, fmt))?,
            tuple: rec.parse_block_or_image("xl_heap_header", 0, |i| HeapTuple::read(i, fmt))?,
        }),
        0x10 => Op::Delete(rec.parse_all("xl_heap_delete", rec.main, |i| {
            let (i, head) = DeleteHead::read(i, fmt)?;
            let (i, old_tuple) = optional(i, head.flags.intersects(DeleteFlags::CONTAINS_OLD), |i| HeapTuple::read(i, fmt))?;
            Ok((i, Delete { head, old_tuple }))
        })?),
        0x20 => Op::Update(parse_update(rec, fmt)?),
        0x30 if fmt.since(11) => Op::Truncate(rec.parse_all("xl_heap_truncate", rec.main, |i| {
            let (i, head) = TruncateHead::read(i, fmt)?;
            let (i, relids) = array(i, head.nrelids, fmt, "xl_heap_truncate.relids")?;
            Ok((i, Truncate { head, relids }))
        })?),
        0x40 => Op::HotUpdate(parse_update(rec, fmt)?),
        0x50 => Op::Confirm(rec.parse_all("xl_heap_confirm", rec.main, |i| Confirm::read(i, fmt))?),
        0x60 => Op::Lock(rec.parse_all("xl_heap_lock", rec.main, |i| Lock::read(i, fmt))?),
        0x70 => {
            let attributes = rec.parse_block("xl_heap_inplace", 0, rest)?.map(Bytes);
            Op::Inplace(rec.parse_all("xl_heap_inplace", rec.main, |i| {
                let (i, head) = InplaceHead::read(i, fmt)?;
                let (i, invals) = match *head.ninvals {
                    Some(count) => {
                        let (i, invals) = array(i, count, fmt, "xl_heap_inplace.msgs")?;
                        (i, Some(invals))
                    }
                    None => (i, None),
                };
                Ok((i, Inplace { head, invals: Since(invals), attributes }))
            })?)
        }
        _ => return Ok(None),
    }))
}

/// What most records are like.
pub(super) fn rules(fmt: WalFormat, rules: &mut Rules) {
    let tuple = HeapTupleHeader::size(fmt);
    let update = Rule::sized(UpdateHead::size(fmt), tuple + 2 * size_of::<u16>()).without_bits(7, UpdateFlags::CONTAINS_OLD.0);
    let delete = Rule::sized(DeleteHead::size(fmt), 0).without_data().without_bits(7, DeleteFlags::CONTAINS_OLD.0);
    rules.add(RmgrId::HEAP, 0x00, OPMASK, Rule::sized(InsertHead::size(fmt), tuple));
    rules.add(RmgrId::HEAP, 0x10, OPMASK, delete);
    rules.add(RmgrId::HEAP, 0x20, OPMASK, update);
    rules.add(RmgrId::HEAP, 0x40, OPMASK, update);
    rules.add(RmgrId::HEAP, 0x60, OPMASK, Rule::sized(Lock::size(fmt), 0).without_data());
}

fn parse_update<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Update<'r>> {
    let (head, old_tuple) = rec.parse_all("xl_heap_update", rec.main, |i| {
        let (i, head) = UpdateHead::read(i, fmt)?;
        let (i, old_tuple) = optional(i, head.flags.intersects(UpdateFlags::CONTAINS_OLD), |i| HeapTuple::read(i, fmt))?;
        Ok((i, (head, old_tuple)))
    })?;
    let new_tuple = rec.parse_block_or_image("xl_heap_header", 0, |i| {
        let len_if = |i, flag, field| optional(i, head.flags.contains(flag), |i| u16::read(i, fmt).map_err(|e| e.in_field(field)));
        let (i, prefix_len) = len_if(i, UpdateFlags::XLH_UPDATE_PREFIX_FROM_OLD, "prefixlen")?;
        let (i, suffix_len) = len_if(i, UpdateFlags::XLH_UPDATE_SUFFIX_FROM_OLD, "suffixlen")?;
        let (i, tuple) = HeapTuple::read(i, fmt)?;
        Ok((i, NewTuple { prefix_len, suffix_len, tuple }))
    })?;
    Ok(Update { head, new_tuple, old_tuple })
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::Insert(insert) => {
                insert.head.write(fmt, &mut body.main);
                if let Some(tuple) = &insert.tuple {
                    tuple.write(fmt, body.block(0));
                }
            }
            Op::Delete(delete) => {
                delete.head.write(fmt, &mut body.main);
                if let Some(tuple) = &delete.old_tuple {
                    tuple.write(fmt, &mut body.main);
                }
            }
            Op::Update(update) | Op::HotUpdate(update) => update.write(fmt, body),
            Op::Truncate(truncate) => {
                truncate.head.write(fmt, &mut body.main);
                truncate.relids.write(&mut body.main);
            }
            Op::Confirm(confirm) => confirm.write(fmt, &mut body.main),
            Op::Lock(lock) => lock.write(fmt, &mut body.main),
            Op::Inplace(inplace) => {
                inplace.head.write(fmt, &mut body.main);
                if let Some(invals) = *inplace.invals {
                    invals.write(&mut body.main);
                }
                if let Some(attributes) = inplace.attributes {
                    body.block(0).extend_from_slice(&attributes);
                }
            }
        }
    }
}

impl Update<'_> {
    fn write(&self, fmt: WalFormat, body: &mut Body) {
        self.head.write(fmt, &mut body.main);
        if let Some(tuple) = &self.old_tuple {
            tuple.write(fmt, &mut body.main);
        }
        if let Some(new) = &self.new_tuple {
            let out = body.block(0);
            for len in new.prefix_len.iter().chain(&new.suffix_len) {
                len.write(fmt, out);
            }
            new.tuple.write(fmt, out);
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        match self {
            Op::Insert(Insert { head, .. }) => {
                if fmt.since(16) {
                    put!(out, "off: ", head.offnum, ", flags: 0x", hex2(head.flags.0));
                } else {
                    put!(out, "off ", head.offnum);
                    put_flags(out, fmt, head.flags.0);
                }
            }
            Op::Delete(Delete { head, .. }) => {
                if fmt.since(16) {
                    put!(out, "xmax: ", head.xmax, ", off: ", head.offnum, ", infobits: [");
                    put_infobits(out, head.infobits);
                    put!(out, "], flags: 0x", hex2(head.flags.0));
                } else {
                    put!(out, "off ", head.offnum);
                    put_flags(out, fmt, head.flags.0);
                    put!(out, " ");
                    put_infobits_old(out, head.infobits);
                }
            }
            Op::Update(update) | Op::HotUpdate(update) => update.describe(rec, fmt, out),
            Op::Truncate(truncate) => truncate.describe(rec, fmt, out),
            Op::Confirm(Confirm { offnum }) => put_off(out, fmt, *offnum),
            Op::Lock(Lock { xmax, offnum, infobits, flags }) => put_lock(out, fmt, *xmax, *offnum, *infobits, *flags, "xid"),
            Op::Inplace(inplace) => {
                put_off(out, fmt, inplace.head.offnum);
                if let (Some(invals), Some(db), Some(ts), Some(init)) =
                    (*inplace.invals, *inplace.head.db, *inplace.head.ts, *inplace.head.relcache_init_file_inval)
                {
                    put_invalidations(out, fmt, &invals, db, ts, init.get());
                }
            }
        }
    }
}

impl Describe for Update<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let head = &self.head;
        if fmt.since(16) {
            put!(out, "old_xmax: ", head.old_xmax, ", old_off: ", head.old_offnum, ", old_infobits: [");
            put_infobits(out, head.old_infobits);
            put!(out, "], flags: 0x", hex2(head.flags.0));
            put!(out, ", new_xmax: ", head.new_xmax, ", new_off: ", head.new_offnum);
        } else {
            put!(out, "off ", head.old_offnum, " xmax ", head.old_xmax);
            put_flags(out, fmt, head.flags.0);
            put!(out, " ");
            put_infobits_old(out, head.old_infobits);
            put!(out, "; new off ", head.new_offnum, " xmax ", head.new_xmax);
        }
    }
}

impl Describe for Truncate<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let flags = self.head.flags;
        if fmt.since(16) {
            put!(out, "flags: [");
            put_names(out, flags.0, &[(0x01, "CASCADE"), (0x02, "RESTART_SEQS")]);
            put!(out, "], nrelids: ", self.head.nrelids, ", relids:");
            put_list(out, self.relids.iter(), plain);
        } else {
            if flags.contains(TruncateFlags::XLH_TRUNCATE_CASCADE) {
                put!(out, "cascade ");
            }
            if flags.contains(TruncateFlags::XLH_TRUNCATE_RESTART_SEQS) {
                put!(out, "restart_seqs ");
            }
            put!(out, "nrelids ", self.head.nrelids, " relids");
            self.relids.iter().for_each(|relid| put!(out, " ", relid));
        }
    }
}

fn put_off(out: &mut Text, fmt: WalFormat, offnum: OffsetNumber) {
    put!(out, if fmt.since(16) { "off: " } else { "off " }, offnum);
}

/// The flags of a change before 16; 10 and 11 do not show them.
fn put_flags(out: &mut Text, fmt: WalFormat, flags: u8) {
    if fmt.since(12) {
        put!(out, " flags 0x", hex2(flags));
    }
}

/// LOCK, and Heap2's LOCK_UPDATED, which differ in the word for the locker before 16.
pub(super) fn put_lock(
    out: &mut Text,
    fmt: WalFormat,
    xmax: Xid,
    offnum: OffsetNumber,
    infobits: Infobits,
    flags: LockFlags,
    locker: &str,
) {
    if fmt.since(16) {
        put!(out, "xmax: ", xmax, ", off: ", offnum, ", infobits: [");
        put_infobits(out, infobits);
        put!(out, "], flags: 0x", hex2(flags.0));
    } else {
        put!(out, "off ", offnum, ": ", locker, " ", xmax, ": flags ");
        if fmt.since(12) {
            put!(out, "0x", hex2(flags.0));
        } else {
            put!(out, flags.0);
        }
        put!(out, " ");
        put_infobits_old(out, infobits);
    }
}

const INFOBITS: [(u8, &str); 5] =
    [(0x01, "IS_MULTI"), (0x02, "LOCK_ONLY"), (0x04, "EXCL_LOCK"), (0x08, "KEYSHR_LOCK"), (0x10, "KEYS_UPDATED")];

/// From 16 on. C: `infobits_desc`.
fn put_infobits(out: &mut Text, infobits: Infobits) {
    put_names(out, infobits.0, &INFOBITS);
}

/// Before 16: a blank after each. C: `out_infobits`.
fn put_infobits_old(out: &mut Text, infobits: Infobits) {
    for (bit, name) in INFOBITS {
        if infobits.0 & bit != 0 {
            put!(out, name, " ");
        }
    }
}

#[cfg(test)]
mod tests;
