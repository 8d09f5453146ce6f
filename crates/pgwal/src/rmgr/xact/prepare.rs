//! The state of a prepared transaction, as PREPARE logs it and as files in `pg_twophase` keep it.
//! C: access/xact.h, access/twophase_rmgr.h, access/transam/twophase.c.

use std::fmt;

use serde::{Serialize, Serializer};

use super::StatsItem;
use crate::format::WalFormat;
use crate::inval::InvalMessage;
use crate::lsn::Lsn;
use crate::types::{Int8, MultiXactId, Oid, RelFileLocator, TimestampTz, Xid};
use crate::wire::{Array, Bytes, CBool, FixedSize, List, Pad, Parsed, Since, Str, Wire, WireError, array, bytes, list_until};

wire_struct! {
    /// Fixed part of PREPARE. C: `xl_xact_prepare` (`TwoPhaseFileHeader` before 13): 48 bytes in 10, 64 from 11 on, 72 from 15 on.
    pub struct PrepareHead("xl_xact_prepare") {
        /// Identifies the format: `TWOPHASE_MAGIC`, 0x57F94533 in 10 and 0x57F94534 from 11 on.
        magic: u32,
        /// Bytes of the state file: the record's main data and a CRC.
        total_len: u32,
        /// The transaction.
        xid: Xid,
        /// Database that it worked in.
        database: Oid,
        /// When it was prepared.
        prepared_at: TimestampTz,
        /// Role that ran it.
        owner: Oid,
        /// Number of subtransactions.
        nsubxacts: i32,
        /// Number of relations that go at commit.
        ncommit_rels: i32,
        /// Number of relations that go at abort.
        nabort_rels: i32,
        /// Number of statistics that go at commit.
        ncommit_stats: Since<15, i32>,
        /// Number of statistics that go at abort.
        nabort_stats: Since<15, i32>,
        /// Number of invalidation messages.
        ninvals: i32,
        /// The relation cache's init file will be out of date.
        relcache_init_file_inval: CBool,
        /// Alignment.
        pad: Pad<1>,
        /// Bytes of the name, its NUL included.
        gid_len: u16,
        /// LSN of the prepare at the origin; zero: none.
        origin_lsn: Since<11, Lsn>,
        /// When it was prepared at the origin.
        origin_timestamp: Since<11, TimestampTz>,
    }
}

/// A prepared transaction. C: `xl_xact_prepare` and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepare<'a> {
    /// Fixed part.
    pub head: PrepareHead,
    /// Name of the transaction, NUL included; [`Prepare::name`] has it without.
    pub gid: Section<'a, u8>,
    /// Its subtransactions.
    pub subxacts: Section<'a, Xid>,
    /// Relations whose files are deleted at commit.
    pub commit_rels: Section<'a, RelFileLocator>,
    /// Relations whose files are deleted at abort.
    pub abort_rels: Section<'a, RelFileLocator>,
    /// Statistics that are dropped at commit; empty before 15.
    pub commit_stats: Section<'a, StatsItem>,
    /// Statistics that are dropped at abort; empty before 15.
    pub abort_stats: Section<'a, StatsItem>,
    /// Messages to send at commit.
    pub invals: Section<'a, InvalMessage>,
    /// State of the lock manager, statistics and others, up to and including an end mark.
    pub state: List<'a, StateRecord<'a>>,
}
json_object!(Prepare<'_> { ..head, gid(name), subxacts, commit_rels, abort_rels, commit_stats, abort_stats, invals, state });

/// Bytes of C's strictest alignment: every part of the state starts at a multiple of it. C: `MAXIMUM_ALIGNOF`.
const MAXALIGN: usize = 8;

/// An array and the bytes that fill it up to a multiple of eight. JSON: the array.
#[derive(Clone, Copy)]
pub struct Section<'a, T> {
    /// The values.
    pub values: Array<'a, T>,
    /// Padding, kept as it is.
    pub pad: Bytes<'a>,
}

impl<'a, T: Wire<'a> + FixedSize> Section<'a, T> {
    fn read(i: &'a [u8], count: impl TryInto<usize>, fmt: WalFormat, field: &'static str) -> Parsed<'a, Self> {
        let (i, values) = array(i, count, fmt, field)?;
        let (i, pad) = padding(i, values.raw().len(), field)?;
        Ok((i, Section { values, pad }))
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.values.write(out);
        out.extend_from_slice(&self.pad);
    }
}
impl<'a, T: Wire<'a> + FixedSize + PartialEq> PartialEq for Section<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values && self.pad == other.pad
    }
}
impl<'a, T: Wire<'a> + FixedSize + fmt::Debug> fmt::Debug for Section<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values.fmt(f)
    }
}
impl<'a, T: Wire<'a> + FixedSize + Serialize> Serialize for Section<'a, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values.serialize(serializer)
    }
}

/// The bytes that fill `len` up to a multiple of eight.
fn padding<'a>(i: &'a [u8], len: usize, field: &'static str) -> Parsed<'a, Bytes<'a>> {
    let (i, pad) = bytes(i, (MAXALIGN - len % MAXALIGN) % MAXALIGN, field)?;
    Ok((i, Bytes(pad)))
}

impl<'a> Prepare<'a> {
    pub(super) fn read(i: &'a [u8], fmt: WalFormat) -> Parsed<'a, Prepare<'a>> {
        let (i, head) = PrepareHead::read(i, fmt)?;
        let (i, gid) = Section::read(i, head.gid_len, fmt, "xl_xact_prepare.gid")?;
        let (i, subxacts) = Section::read(i, head.nsubxacts, fmt, "xl_xact_prepare.subxacts")?;
        let (i, commit_rels) = Section::read(i, head.ncommit_rels, fmt, "xl_xact_prepare.commitrels")?;
        let (i, abort_rels) = Section::read(i, head.nabort_rels, fmt, "xl_xact_prepare.abortrels")?;
        let (i, commit_stats) = Section::read(i, head.ncommit_stats.unwrap_or(0), fmt, "xl_xact_prepare.commitstats")?;
        let (i, abort_stats) = Section::read(i, head.nabort_stats.unwrap_or(0), fmt, "xl_xact_prepare.abortstats")?;
        let (i, invals) = Section::read(i, head.ninvals, fmt, "xl_xact_prepare.invalmsgs")?;
        let is_last = |record: &StateRecord<'_>| record.data == StateData::End;
        let (i, state) = list_until(i, usize::MAX, fmt, "TwoPhaseRecordOnDisk", is_last)?;
        Ok((i, Prepare { head, gid, subxacts, commit_rels, abort_rels, commit_stats, abort_stats, invals, state }))
    }

    pub(super) fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.head.write(fmt, out);
        self.gid.write(out);
        self.subxacts.write(out);
        self.commit_rels.write(out);
        self.abort_rels.write(out);
        self.commit_stats.write(out);
        self.abort_stats.write(out);
        self.invals.write(out);
        self.state.write(out);
    }

    /// Name of the transaction.
    pub fn name(&self) -> Str<'a> {
        Str(self.gid.values.raw().split(|&byte| byte == 0).next().unwrap_or_default())
    }
}

wire_struct! {
    /// Head of a piece of state. C: `TwoPhaseRecordOnDisk`, 8 bytes.
    pub struct StateHead("TwoPhaseRecordOnDisk") {
        /// Bytes of the data.
        len: u32,
        /// Part of the server that it belongs to: 1 locks, 2 statistics, 3 multixacts, 4 predicate locks; 0 ends the state.
        rmid: u8,
        /// Alignment.
        pad: Pad<1>,
        /// Flags of that part.
        info: u16,
    }
}

/// What one part of the server has to remember of a prepared transaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateRecord<'a> {
    /// Its head.
    pub head: StateHead,
    /// Its data.
    pub data: StateData<'a>,
    /// Padding to a multiple of eight.
    pub pad: Bytes<'a>,
}
json_object!(StateRecord<'_> { ..head, data });

/// Data of a piece of state.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StateData<'a> {
    /// Nothing follows. C: `TWOPHASE_RM_END_ID`.
    End,
    /// A lock that is held. C: `TWOPHASE_RM_LOCK_ID`.
    Lock(LockTag),
    /// Counts of tuples in one table. C: `TWOPHASE_RM_PGSTAT_ID`.
    Stats(TableStats),
    /// The oldest multixact that the transaction may be a member of. C: `TWOPHASE_RM_MULTIXACT_ID`.
    MultiXact {
        /// That multixact.
        oldest_member: MultiXactId,
    },
    /// A serializable transaction. C: `TWOPHASE_RM_PREDICATELOCK_ID`, `TWOPHASEPREDICATERECORD_XACT`.
    PredicateXact(PredicateXact),
    /// A predicate lock. C: `TWOPHASE_RM_PREDICATELOCK_ID`, `TWOPHASEPREDICATERECORD_LOCK`.
    PredicateLock(PredicateLock),
    /// Of a part that no supported major has.
    Unknown {
        /// What it is.
        data: Bytes<'a>,
    },
}

wire_struct! {
    /// A lock. C: `TwoPhaseLockRecord`, 20 bytes, storage/lmgr/lock.c.
    pub struct LockTag("TwoPhaseLockRecord") {
        /// What is locked.
        target: LockTarget,
        /// `locktag_field4`: the third key of objects, the line pointer of tuples.
        field4: u16,
        /// Kind of thing: 0 relation, 1 relation extension, 2 frozen ids, 3 page, 4 tuple, 5 transaction, and so on. C: `LockTagType`.
        locktag_type: u8,
        /// 1 for the server's own locks, 2 for advisory locks.
        lock_method: u8,
        /// Strength, 1 (`AccessShareLock`) to 8 (`AccessExclusiveLock`). C: `LOCKMODE`.
        lock_mode: i32,
    }
}

wire_struct! {
    /// The first three fields of a lock's tag; what they mean depends on its type. C: `LOCKTAG`, storage/lock.h.
    pub struct LockTarget("LOCKTAG") {
        /// `locktag_field1`: most often the database.
        field1: u32,
        /// `locktag_field2`: most often the relation.
        field2: u32,
        /// `locktag_field3`: the page, or the object.
        field3: u32,
    }
}

wire_struct! {
    /// What the transaction did to one table. C: `TwoPhasePgStatRecord`, 56 bytes, utils/activity/pgstat_relation.c.
    pub struct TableStats("TwoPhasePgStatRecord") {
        /// Tuples inserted.
        tuples_inserted: Int8,
        /// Tuples updated.
        tuples_updated: Int8,
        /// Tuples deleted.
        tuples_deleted: Int8,
        /// Tuples inserted before the table was truncated or dropped.
        inserted_pre_truncdrop: Int8,
        /// Tuples updated before.
        updated_pre_truncdrop: Int8,
        /// Tuples deleted before.
        deleted_pre_truncdrop: Int8,
        /// The table.
        id: Oid,
        /// It is a shared catalog.
        shared: CBool,
        /// It was truncated (from 15 on: or dropped).
        truncdropped: CBool,
        /// Alignment.
        pad: Pad<2>,
    }
}

wire_struct! {
    /// A serializable transaction. C: `TwoPhasePredicateXactRecord`, storage/predicate_internals.h; 20 bytes in its union.
    pub struct PredicateXact("TwoPhasePredicateXactRecord") {
        /// Oldest transaction that its snapshot saw running.
        xmin: Xid,
        /// Flags of the transaction, `SXACT_FLAG_*`.
        flags: u32,
        /// The union's other member is longer.
        rest: Pad<12>,
    }
}

wire_struct! {
    /// A predicate lock. C: `TwoPhasePredicateLockRecord`, 20 bytes, storage/predicate_internals.h.
    pub struct PredicateLock("TwoPhasePredicateLockRecord") {
        /// Database, relation and page.
        target: LockTarget,
        /// `locktag_field4`: the line pointer.
        field4: u32,
        /// Not used.
        filler: Pad<4>,
    }
}

/// C: `TWOPHASEPREDICATERECORD_XACT`.
const PREDICATE_XACT: u32 = 0;
/// C: `TWOPHASEPREDICATERECORD_LOCK`.
const PREDICATE_LOCK: u32 = 1;

impl<'a> Wire<'a> for StateRecord<'a> {
    fn read(i: &'a [u8], fmt: WalFormat) -> Parsed<'a, StateRecord<'a>> {
        let (i, head) = StateHead::read(i, fmt)?;
        let after_head = i;
        let (i, raw) = bytes(i, head.len as usize, "TwoPhaseRecordOnDisk.len")?;
        let (i, pad) = padding(i, raw.len(), "TwoPhaseRecordOnDisk.len")?;
        let data = match head.rmid {
            0 => Ok((raw, StateData::End)),
            1 => LockTag::read(raw, fmt).map(|(rest, lock)| (rest, StateData::Lock(lock))),
            2 => TableStats::read(raw, fmt).map(|(rest, stats)| (rest, StateData::Stats(stats))),
            3 => MultiXactId::read(raw, fmt).map(|(rest, oldest_member)| (rest, StateData::MultiXact { oldest_member })),
            4 => match u32::read(raw, fmt) {
                Ok((raw, PREDICATE_XACT)) => PredicateXact::read(raw, fmt).map(|(rest, xact)| (rest, StateData::PredicateXact(xact))),
                Ok((raw, PREDICATE_LOCK)) => PredicateLock::read(raw, fmt).map(|(rest, lock)| (rest, StateData::PredicateLock(lock))),
                Ok((_, found)) => Err(WireError::invalid(raw, "TwoPhasePredicateRecord.type", "0 or 1", found.into())),
                Err(e) => Err(e),
            },
            _ => Ok((&[][..], StateData::Unknown { data: Bytes(raw) })),
        };
        match data {
            Ok(([], data)) => Ok((i, StateRecord { head, data, pad })),
            Ok(_) => Err(WireError::invalid(after_head, "TwoPhaseRecordOnDisk.len", "the length of its kind", head.len.into())),
            // Count what is left from the end of the record, not of the piece.
            Err(mut e) => {
                e.left = e.left.saturating_add(pad.len()).saturating_add(i.len());
                Err(e.in_field("TwoPhaseRecordOnDisk.data"))
            }
        }
    }

    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.head.write(fmt, out);
        match &self.data {
            StateData::End => {}
            StateData::Lock(lock) => lock.write(fmt, out),
            StateData::Stats(stats) => stats.write(fmt, out),
            StateData::MultiXact { oldest_member } => oldest_member.write(fmt, out),
            StateData::PredicateXact(xact) => {
                PREDICATE_XACT.write(fmt, out);
                xact.write(fmt, out);
            }
            StateData::PredicateLock(lock) => {
                PREDICATE_LOCK.write(fmt, out);
                lock.write(fmt, out);
            }
            StateData::Unknown { data } => out.extend_from_slice(data),
        }
        out.extend_from_slice(&self.pad);
    }
}
