//! Transactions, resource manager 1. C: access/xact.h; text: rmgrdesc/xactdesc.c.

mod prepare;

use serde::{Serialize, Serializer};

pub use prepare::{
    LockTag, LockTarget, PredicateLock, PredicateXact, Prepare, PrepareHead, Section, StateData, StateHead, StateRecord, TableStats,
};

use super::smgr::RelPath;
use super::rules::{Rule, Rules};
use super::{Body, Describe, Opcode, RmgrId, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::inval::{InvalMessage, put_invalidations};
use crate::lsn::Lsn;
use crate::record::Record;
use crate::text::{Put, Text};
use crate::types::{ForkNumber, Oid, RelFileLocator, RepOriginId, TimestampTz, Xid};
use crate::wire::{Array, Bytes, FixedSize, Parsed, Str, Wire, array, c_string, optional};

/// Bits of the info byte that tell the record types apart. C: `XLOG_XACT_OPMASK`.
pub const OPMASK: u8 = 0x70;
/// Bit of the info byte: the commit or abort has an `xinfo` and optional parts. C: `XLOG_XACT_HAS_INFO`.
const HAS_INFO: u8 = 0x80;

/// Record types. C: `XLOG_XACT_*`.
pub const OPCODES: &[Opcode] = &[
    op(0x00, "COMMIT", Majors::ALL),
    op(0x10, "PREPARE", Majors::ALL),
    op(0x20, "ABORT", Majors::ALL),
    op(0x30, "COMMIT_PREPARED", Majors::ALL),
    op(0x40, "ABORT_PREPARED", Majors::ALL),
    op(0x50, "ASSIGNMENT", Majors::ALL),
    op(0x60, "INVALIDATION", Majors::since(14)),
];

wire_flags! {
    /// Optional parts of a commit or abort, and what replay has to do. C: `xl_xact_xinfo`.
    pub struct XactInfo: u32 {
        /// Database and tablespace follow; in aborts from 11 on.
        XACT_XINFO_HAS_DBINFO = 1 << 0,
        /// Subtransactions follow.
        XACT_XINFO_HAS_SUBXACTS = 1 << 1,
        /// Files to delete follow. C: `XACT_XINFO_HAS_RELFILENODES` before 16.
        XACT_XINFO_HAS_RELFILELOCATORS = 1 << 2,
        /// Invalidation messages follow; in commits only.
        XACT_XINFO_HAS_INVALS = 1 << 3,
        /// Id of the prepared transaction follows.
        XACT_XINFO_HAS_TWOPHASE = 1 << 4,
        /// Place at the replication origin follows; in aborts from 11 on.
        XACT_XINFO_HAS_ORIGIN = 1 << 5,
        /// The transaction held access exclusive locks.
        XACT_XINFO_HAS_AE_LOCKS = 1 << 6,
        /// Name of the prepared transaction follows, from 11 on.
        XACT_XINFO_HAS_GID = 1 << 7,
        /// Statistics to drop follow, from 15 on.
        XACT_XINFO_HAS_DROPPED_STATS = 1 << 8,
        /// The commit waits until standbys have applied it.
        XACT_COMPLETION_APPLY_FEEDBACK = 1 << 29,
        /// The relation cache's init file is out of date.
        XACT_COMPLETION_UPDATE_RELCACHE_FILE = 1 << 30,
        /// The commit has to be flushed even where `synchronous_commit` is off.
        XACT_COMPLETION_FORCE_SYNC_COMMIT = 1 << 31,
    }
}

wire_struct! {
    /// Where the transaction worked. C: `xl_xact_dbinfo`, 8 bytes.
    pub struct DbInfo("xl_xact_dbinfo") {
        /// Database.
        db: Oid,
        /// Its default tablespace.
        spc: Oid,
    }
}

wire_struct! {
    /// Statistics to drop with the object. C: `xl_xact_stats_item`, from 15 on: 12 bytes, from 18 on 16.
    pub struct StatsItem("xl_xact_stats_item") {
        /// Kind of statistics: 1 database, 2 relation, 3 function, 4 replication slot, 5 subscription.
        kind: i32,
        /// Database; zero for shared objects.
        db: Oid,
        /// The object.
        object: StatsObject,
    }
}

/// Object that statistics belong to: an object id before 18, 64 bits from 18 on. JSON: a string.
/// C: `objoid`, from 18 on `objid_lo` and `objid_hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsObject(pub u64);

impl Wire<'_> for StatsObject {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        if fmt.since(18) {
            let (input, object) = u64::read(input, fmt)?;
            return Ok((input, StatsObject(object)));
        }
        let (input, object) = u32::read(input, fmt)?;
        Ok((input, StatsObject(object.into())))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        if fmt.since(18) { self.0.write(fmt, out) } else { (self.0 as u32).write(fmt, out) }
    }
}
impl FixedSize for StatsObject {
    fn size(fmt: WalFormat) -> usize {
        if fmt.since(18) { 8 } else { 4 }
    }
}
impl Serialize for StatsObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
impl Put for StatsObject {
    fn put(&self, out: &mut Text) {
        put!(out, self.0);
    }
}

wire_struct! {
    /// Where the transaction stands at the server that it was replicated from. C: `xl_xact_origin`, 16 bytes.
    pub struct Origin("xl_xact_origin") {
        /// LSN of the commit, prepare or abort there.
        lsn: Lsn,
        /// When it happened there.
        timestamp: TimestampTz,
    }
}

/// End of a transaction: the flags in `xinfo` say which of the other parts are there. C: `xl_xact_commit`, `xl_xact_abort`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct End<'a> {
    /// When it ended.
    pub time: TimestampTz,
    /// Flags; `None`: the record is only the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xinfo: Option<XactInfo>,
    /// Where it worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_info: Option<DbInfo>,
    /// Its subtransactions. C: `xl_xact_subxacts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subxacts: Option<Array<'a, Xid>>,
    /// Relations whose files are deleted. C: `xl_xact_relfilelocators`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rels: Option<Array<'a, RelFileLocator>>,
    /// Statistics that are dropped, from 15 on. C: `xl_xact_stats_items`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<Array<'a, StatsItem>>,
    /// What caches have to forget; commits only. C: `xl_xact_invals`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invals: Option<Array<'a, InvalMessage>>,
    /// The prepared transaction that ends. C: `xl_xact_twophase`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twophase_xid: Option<Xid>,
    /// Its name, at `wal_level=logical` and from 11 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<Str<'a>>,
    /// Where it stands at its origin; not aligned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Subtransactions and the transaction that they belong to. C: `xl_xact_assignment`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Assignment<'a> {
    /// The top-level transaction.
    pub top_xid: Xid,
    /// Its subtransactions, counted by `nsubxacts`.
    pub subxacts: Array<'a, Xid>,
}

/// What caches have to forget as soon as the transaction's next command starts. C: `xl_xact_invals`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Invalidation<'a> {
    /// The messages, counted by `nmsgs`.
    pub invals: Array<'a, InvalMessage>,
}

/// A record of this resource manager.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// The transaction is committed.
    Commit(End<'a>),
    /// The transaction is prepared: its whole state, to survive a crash.
    Prepare(Box<Prepare<'a>>),
    /// The transaction is rolled back.
    Abort(End<'a>),
    /// A prepared transaction is committed.
    CommitPrepared(End<'a>),
    /// A prepared transaction is rolled back.
    AbortPrepared(End<'a>),
    /// Subtransactions and the transaction that they belong to.
    Assignment(Assignment<'a>),
    /// Invalidation messages in the middle of a transaction, at `wal_level=logical`, from 14 on.
    Invalidation(Invalidation<'a>),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    rec.only_block_data("xl_xact", &[])?;
    let has_info = rec.info().0 & HAS_INFO != 0;
    let commit = || rec.parse_all("xl_xact_commit", rec.main, |i| End::read(i, true, has_info, fmt));
    let abort = || rec.parse_all("xl_xact_abort", rec.main, |i| End::read(i, false, has_info, fmt));
    Ok(Some(match rec.info().0 & OPMASK {
        0x00 => Op::Commit(commit()?),
        0x10 => Op::Prepare(Box::new(rec.parse_all("xl_xact_prepare", rec.main, |i| Prepare::read(i, fmt))?)),
        0x20 => Op::Abort(abort()?),
        0x30 => Op::CommitPrepared(commit()?),
        0x40 => Op::AbortPrepared(abort()?),
        0x50 => Op::Assignment(rec.parse_all("xl_xact_assignment", rec.main, |i| {
            let (i, top_xid) = Xid::read(i, fmt).map_err(|e| e.in_field("xl_xact_assignment.xtop"))?;
            let (i, subxacts) = counted(i, fmt, "xl_xact_assignment.nsubxacts", "xl_xact_assignment.xsub")?;
            Ok((i, Assignment { top_xid, subxacts }))
        })?),
        0x60 if fmt.since(14) => Op::Invalidation(rec.parse_all("xl_xact_invals", rec.main, |i| {
            let (i, invals) = counted(i, fmt, "xl_xact_invals.nmsgs", "xl_xact_invals.msgs")?;
            Ok((i, Invalidation { invals }))
        })?),
        _ => return Ok(None),
    }))
}

/// What most records are like: commits and aborts that are a time and nothing else.
pub(super) fn rules(rules: &mut Rules) {
    let time = Rule::sized(size_of::<TimestampTz>(), 0).without_block();
    rules.add(RmgrId::XACT, 0x00, u8::MAX, time);
    rules.add(RmgrId::XACT, 0x20, u8::MAX, time);
}

impl<'a> End<'a> {
    fn read(i: &'a [u8], is_commit: bool, has_info: bool, fmt: WalFormat) -> Parsed<'a, End<'a>> {
        let field = if is_commit { "xl_xact_commit.xact_time" } else { "xl_xact_abort.xact_time" };
        let (i, time) = TimestampTz::read(i, fmt).map_err(|e| e.in_field(field))?;
        let (i, xinfo) = optional(i, has_info, |i| XactInfo::read(i, fmt).map_err(|e| e.in_field("xl_xact_xinfo.xinfo")))?;
        let flags = xinfo.unwrap_or_default();
        let has = |flag| flags.contains(flag);
        // Aborts learnt these two with the logical decoding of prepared transactions.
        let full = is_commit || fmt.since(11);
        let (i, db_info) = optional(i, full && has(XactInfo::XACT_XINFO_HAS_DBINFO), |i| DbInfo::read(i, fmt))?;
        let (i, subxacts) = optional(i, has(XactInfo::XACT_XINFO_HAS_SUBXACTS), |i| {
            counted(i, fmt, "xl_xact_subxacts.nsubxacts", "xl_xact_subxacts.subxacts")
        })?;
        let (i, rels) = optional(i, has(XactInfo::XACT_XINFO_HAS_RELFILELOCATORS), |i| {
            counted(i, fmt, "xl_xact_relfilelocators.nrels", "xl_xact_relfilelocators.xlocators")
        })?;
        let (i, stats) = optional(i, fmt.since(15) && has(XactInfo::XACT_XINFO_HAS_DROPPED_STATS), |i| {
            counted(i, fmt, "xl_xact_stats_items.nitems", "xl_xact_stats_items.items")
        })?;
        let (i, invals) = optional(i, is_commit && has(XactInfo::XACT_XINFO_HAS_INVALS), |i| {
            counted(i, fmt, "xl_xact_invals.nmsgs", "xl_xact_invals.msgs")
        })?;
        let (i, twophase_xid) = optional(i, has(XactInfo::XACT_XINFO_HAS_TWOPHASE), |i| {
            Xid::read(i, fmt).map_err(|e| e.in_field("xl_xact_twophase.xid"))
        })?;
        let has_gid = fmt.since(11) && twophase_xid.is_some() && has(XactInfo::XACT_XINFO_HAS_GID);
        let (i, gid) = optional(i, has_gid, |i| c_string(i, "xl_xact_commit.twophase_gid"))?;
        let gid = gid.map(|Bytes(gid)| Str(gid));
        let (i, origin) = optional(i, full && has(XactInfo::XACT_XINFO_HAS_ORIGIN), |i| Origin::read(i, fmt))?;
        Ok((i, End { time, xinfo, db_info, subxacts, rels, stats, invals, twophase_xid, gid, origin }))
    }

    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.time.write(fmt, out);
        self.xinfo.iter().for_each(|xinfo| xinfo.write(fmt, out));
        self.db_info.iter().for_each(|db_info| db_info.write(fmt, out));
        self.subxacts.iter().for_each(|subxacts| write_counted(subxacts, fmt, out));
        self.rels.iter().for_each(|rels| write_counted(rels, fmt, out));
        self.stats.iter().for_each(|stats| write_counted(stats, fmt, out));
        self.invals.iter().for_each(|invals| write_counted(invals, fmt, out));
        self.twophase_xid.iter().for_each(|xid| xid.write(fmt, out));
        if let Some(gid) = &self.gid {
            out.extend_from_slice(gid.0);
            out.push(0);
        }
        self.origin.iter().for_each(|origin| origin.write(fmt, out));
    }
}

/// Reads a count of four bytes and so many values.
fn counted<'a, T: Wire<'a> + FixedSize>(
    i: &'a [u8],
    fmt: WalFormat,
    count: &'static str,
    values: &'static str,
) -> Parsed<'a, Array<'a, T>> {
    let (i, n) = i32::read(i, fmt).map_err(|e| e.in_field(count))?;
    array(i, n, fmt, values)
}

fn write_counted<'a, T: Wire<'a> + FixedSize>(values: &Array<'a, T>, fmt: WalFormat, out: &mut Vec<u8>) {
    (values.len() as i32).write(fmt, out); // the count was an i32
    values.write(out);
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        let out = &mut body.main;
        match self {
            Op::Commit(end) | Op::Abort(end) | Op::CommitPrepared(end) | Op::AbortPrepared(end) => end.write(fmt, out),
            Op::Prepare(prepare) => prepare.write(fmt, out),
            Op::Assignment(assignment) => {
                assignment.top_xid.write(fmt, out);
                write_counted(&assignment.subxacts, fmt, out);
            }
            Op::Invalidation(invalidation) => write_counted(&invalidation.invals, fmt, out),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let node = rec.origin.unwrap_or_default();
        match self {
            Op::Commit(end) | Op::CommitPrepared(end) => describe_commit(end, node, fmt, out),
            Op::Abort(end) | Op::AbortPrepared(end) => describe_abort(end, node, fmt, out),
            Op::Prepare(prepare) => describe_prepare(prepare, node, fmt, out),
            Op::Assignment(assignment) => {
                put!(out, "xtop ", assignment.top_xid, ": subxacts:");
                assignment.subxacts.iter().for_each(|xid| put!(out, " ", xid));
            }
            Op::Invalidation(Invalidation { invals }) => {
                put_invalidations(out, fmt, invals, Oid(0), Oid(0), false);
            }
        }
    }
}

fn describe_commit(end: &End<'_>, node: RepOriginId, fmt: WalFormat, out: &mut Text) {
    describe_end(end, fmt, out);
    if let Some(stats) = &end.stats {
        describe_stats("", stats, out);
    }
    let flags = end.xinfo.unwrap_or_default();
    if let Some(invals) = end.invals.filter(|invals| !invals.is_empty()) {
        let DbInfo { db, spc } = end.db_info.unwrap_or(DbInfo { db: Oid(0), spc: Oid(0) });
        let init_file = flags.contains(XactInfo::XACT_COMPLETION_UPDATE_RELCACHE_FILE);
        put_invalidations(out, fmt, &invals, db, spc, init_file);
    }
    if fmt.since(15) && flags.contains(XactInfo::XACT_COMPLETION_APPLY_FEEDBACK) {
        put!(out, "; apply_feedback");
    }
    if flags.contains(XactInfo::XACT_COMPLETION_FORCE_SYNC_COMMIT) {
        put!(out, "; sync");
    }
    if let Some(origin) = &end.origin {
        describe_origin(node, origin, out);
    }
}

fn describe_abort(end: &End<'_>, node: RepOriginId, fmt: WalFormat, out: &mut Text) {
    describe_end(end, fmt, out);
    if let Some(origin) = end.origin.as_ref().filter(|_| fmt.since(15)) {
        describe_origin(node, origin, out);
    }
    if let Some(stats) = &end.stats {
        describe_stats("", stats, out);
    }
}

/// What commits and aborts begin with.
fn describe_end(end: &End<'_>, fmt: WalFormat, out: &mut Text) {
    if let Some(xid) = end.twophase_xid.filter(|xid| xid.is_valid()) {
        put!(out, xid, ": ");
    }
    put!(out, end.time);
    if let Some(rels) = &end.rels {
        describe_relations("rels", rels, fmt, out);
    }
    if let Some(subxacts) = &end.subxacts {
        describe_subxacts(subxacts, out);
    }
}

/// Before 13 a prepared transaction has no description.
fn describe_prepare(prepare: &Prepare<'_>, node: RepOriginId, fmt: WalFormat, out: &mut Text) {
    if !fmt.since(13) {
        return;
    }
    let head = &prepare.head;
    put!(out, "gid ", prepare.name(), ": ", head.prepared_at);
    describe_relations("rels(commit)", &prepare.commit_rels.values, fmt, out);
    describe_relations("rels(abort)", &prepare.abort_rels.values, fmt, out);
    describe_stats("commit ", &prepare.commit_stats.values, out);
    describe_stats("abort ", &prepare.abort_stats.values, out);
    describe_subxacts(&prepare.subxacts.values, out);
    // The tablespace is not in the record; the description has zero for it.
    put_invalidations(out, fmt, &prepare.invals.values, head.database, Oid(0), head.relcache_init_file_inval.get());
    if fmt.since(15) && node != RepOriginId(0) {
        let lsn = head.origin_lsn.unwrap_or_default();
        let timestamp = head.origin_timestamp.unwrap_or_default();
        describe_origin(node, &Origin { lsn, timestamp }, out);
    }
}

fn describe_relations(label: &str, rels: &Array<'_, RelFileLocator>, fmt: WalFormat, out: &mut Text) {
    if !rels.is_empty() {
        put!(out, "; ", label, ":");
        rels.iter().for_each(|rel| put!(out, " ", RelPath(rel, ForkNumber::MAIN, fmt)));
    }
}

fn describe_subxacts(subxacts: &Array<'_, Xid>, out: &mut Text) {
    if !subxacts.is_empty() {
        put!(out, "; subxacts:");
        subxacts.iter().for_each(|xid| put!(out, " ", xid));
    }
}

fn describe_stats(label: &str, stats: &Array<'_, StatsItem>, out: &mut Text) {
    if !stats.is_empty() {
        put!(out, "; ", label, "dropped stats:");
        stats.iter().for_each(|item| put!(out, " ", item.kind, "/", item.db, "/", item.object));
    }
}

fn describe_origin(node: RepOriginId, origin: &Origin, out: &mut Text) {
    put!(out, "; origin: node ", node, ", lsn ", origin.lsn, ", at ", origin.timestamp);
}

#[cfg(test)]
mod tests;
