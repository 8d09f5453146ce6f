//! Hot standby, resource manager 8. C: storage/standbydefs.h; text: rmgrdesc/standbydesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::inval::{InvalMessage, put_invalidations};
use crate::record::Record;
use crate::text::Text;
use crate::types::{Oid, Xid};
use crate::wire::{Array, CBool, Pad, Wire, array};

/// Record types. C: `XLOG_STANDBY_LOCK`, `XLOG_RUNNING_XACTS`, `XLOG_INVALIDATIONS`.
pub const OPCODES: &[Opcode] =
    &[op(0x00, "LOCK", Majors::ALL), op(0x10, "RUNNING_XACTS", Majors::ALL), op(0x20, "INVALIDATIONS", Majors::ALL)];

wire_struct! {
    /// An access exclusive lock. C: `xl_standby_lock`, 12 bytes.
    pub struct Lock("xl_standby_lock") {
        /// Transaction that holds it.
        xid: Xid,
        /// Database of the relation; zero for shared relations.
        db: Oid,
        /// Relation.
        rel: Oid,
    }
}

/// Access exclusive locks that are held. C: `xl_standby_locks`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Locks<'a> {
    /// The locks, counted by `nlocks`.
    pub locks: Array<'a, Lock>,
}

wire_struct! {
    /// Fixed part of RUNNING_XACTS. C: `xl_running_xacts`, 24 bytes.
    pub struct RunningXactsHead("xl_running_xacts") {
        /// Number of top-level transactions.
        nxids: i32,
        /// Number of subtransactions, which come after the top-level ones.
        nsubxids: i32,
        /// Some subtransactions are left out.
        subxid_overflow: CBool,
        /// Alignment.
        pad: Pad<3>,
        /// The next id that will be given out.
        next_xid: Xid,
        /// The oldest transaction that runs; a lower bound of `xids`.
        oldest_running_xid: Xid,
        /// The newest transaction that has ended.
        latest_completed_xid: Xid,
    }
}

/// Transactions that run, so that a standby can build a snapshot. C: `xl_running_xacts`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunningXacts<'a> {
    /// Fixed part.
    pub head: RunningXactsHead,
    /// Top-level transactions.
    pub xids: Array<'a, Xid>,
    /// Subtransactions.
    pub subxids: Array<'a, Xid>,
}
json_object!(RunningXacts<'_> { ..head, xids, subxids });

wire_struct! {
    /// Fixed part of INVALIDATIONS. C: `xl_invalidations`, 16 bytes.
    pub struct InvalidationsHead("xl_invalidations") {
        /// Database of the relation cache's init file.
        db: Oid,
        /// Tablespace of the init file.
        spc: Oid,
        /// The init file is out of date.
        relcache_init_file_inval: CBool,
        /// Alignment.
        pad: Pad<3>,
        /// Number of messages.
        ninvals: i32,
    }
}

/// Invalidation messages of a change without a transaction id. C: `xl_invalidations`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Invalidations<'a> {
    /// Fixed part.
    pub head: InvalidationsHead,
    /// The messages.
    pub invals: Array<'a, InvalMessage>,
}
json_object!(Invalidations<'_> { ..head, invals });

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// Access exclusive locks that are held.
    Lock(Locks<'a>),
    /// Transactions that run.
    RunningXacts(RunningXacts<'a>),
    /// Invalidation messages.
    Invalidations(Invalidations<'a>),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    rec.only_block_data("xl_standby", &[])?;
    Ok(Some(match rec.info().opcode() {
        0x00 => Op::Lock(rec.parse_all("xl_standby_locks", rec.main, |i| {
            let (i, nlocks) = i32::read(i, fmt).map_err(|e| e.in_field("xl_standby_locks.nlocks"))?;
            let (i, locks) = array(i, nlocks, fmt, "xl_standby_locks.locks")?;
            Ok((i, Locks { locks }))
        })?),
        0x10 => Op::RunningXacts(rec.parse_all("xl_running_xacts", rec.main, |i| {
            let (i, head) = RunningXactsHead::read(i, fmt)?;
            let (i, xids) = array(i, head.nxids, fmt, "xl_running_xacts.xids")?;
            let (i, subxids) = array(i, head.nsubxids, fmt, "xl_running_xacts.xids")?;
            Ok((i, RunningXacts { head, xids, subxids }))
        })?),
        0x20 => Op::Invalidations(rec.parse_all("xl_invalidations", rec.main, |i| {
            let (i, head) = InvalidationsHead::read(i, fmt)?;
            let (i, invals) = array(i, head.ninvals, fmt, "xl_invalidations.msgs")?;
            Ok((i, Invalidations { head, invals }))
        })?),
        _ => return Ok(None),
    }))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        let out = &mut body.main;
        match self {
            Op::Lock(Locks { locks }) => {
                (locks.len() as i32).write(fmt, out); // the count was an i32
                locks.write(out);
            }
            Op::RunningXacts(running) => {
                running.head.write(fmt, out);
                running.xids.write(out);
                running.subxids.write(out);
            }
            Op::Invalidations(invalidations) => {
                invalidations.head.write(fmt, out);
                invalidations.invals.write(out);
            }
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        match self {
            Op::Lock(Locks { locks }) => {
                for lock in locks.iter() {
                    put!(out, "xid ", lock.xid, " db ", lock.db, " rel ", lock.rel, " ");
                }
            }
            Op::RunningXacts(running) => describe_running(running, fmt, out),
            Op::Invalidations(Invalidations { head, invals }) => {
                put_invalidations(out, fmt, invals, head.db, head.spc, head.relcache_init_file_inval.get());
            }
        }
    }
}

fn describe_running(running: &RunningXacts<'_>, fmt: WalFormat, out: &mut Text) {
    let head = &running.head;
    put!(out, "nextXid ", head.next_xid, " latestCompletedXid ", head.latest_completed_xid);
    put!(out, " oldestRunningXid ", head.oldest_running_xid);
    if !running.xids.is_empty() {
        put!(out, "; ", head.nxids, " xacts:");
        running.xids.iter().for_each(|xid| put!(out, " ", xid));
    }
    if head.subxid_overflow.get() {
        put!(out, if fmt.since(16) { "; subxid overflowed" } else { "; subxid ovf" });
    }
    if fmt.since(16) && !running.subxids.is_empty() {
        put!(out, "; ", head.nsubxids, " subxacts:");
        running.subxids.iter().for_each(|xid| put!(out, " ", xid));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rec;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn rec(major: u8, info: u8, main: &[u8]) -> Rec<'_> {
        Rec { major, rmid: 8, info, main, ..Rec::default() }
    }

    #[test]
    fn locks() {
        let main = words(&[2, 700, 5, 16384, 701, 0, 1260]);
        for major in 10..=19 {
            rec(major, 0x00, &main).check("xid 700 db 5 rel 16384 xid 701 db 0 rel 1260 ", &[]);
        }
    }

    #[test]
    fn running() {
        let none = words(&[0, 0, 0, 800, 800, 799]);
        rec(10, 0x10, &none).check("nextXid 800 latestCompletedXid 799 oldestRunningXid 800", &[]);
        let full = words(&[1, 2, 0xABCD_EF01, 800, 790, 799, 790, 791, 792]);
        let start = "nextXid 800 latestCompletedXid 799 oldestRunningXid 790; 1 xacts: 790; subxid ov";
        rec(15, 0x10, &full).check(&format!("{start}f"), &[]);
        rec(16, 0x10, &full).check(&format!("{start}erflowed; 2 subxacts: 791 792"), &[]);
    }

    #[test]
    fn invalidations() {
        let mut main = words(&[5, 1663, 1, 8]);
        let ids = [7i8, -1, -2, -3, -4, -5, -6, -7];
        for (message, id) in (1u8..).zip(ids) {
            main.extend([id as u8, 0xAA, 0xBB, 0xCC]); // the padding may hold anything
            main.extend([message; 12]);
        }
        let known = "; relcache init file inval dbid 5 tsid 1663; inval msgs: catcache 7 catalog 33686018 relcache 50529027 \
                     smgr relmap db 84215045 snapshot 101058054";
        rec(17, 0x20, &main).check(&format!("{known} unrecognized id -6 unrecognized id -7"), &[]);
        rec(18, 0x20, &main).check(&format!("{known} relsync 117901063 unrecognized id -7"), &[]);
    }

    #[test]
    fn no_messages() {
        let main = words(&[5, 1663, 1, 0]);
        rec(12, 0x20, &main).check("; relcache init file inval dbid 5 tsid 1663; inval msgs:", &[]);
        rec(13, 0x20, &main).check("", &[]);
    }
}
