//! Storage manager, resource manager 2. C: catalog/storage_xlog.h; text: rmgrdesc/smgrdesc.c.

use serde::{Serialize, Serializer};

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::{Put, Text};
use crate::types::{BlockNumber, ForkNumber, Oid, RelFileLocator};
use crate::wire::{FixedSize, Parsed, Wire, WireError};

/// Record types. C: `XLOG_SMGR_CREATE`, `XLOG_SMGR_TRUNCATE`.
pub const OPCODES: &[Opcode] = &[op(0x10, "CREATE", Majors::ALL), op(0x20, "TRUNCATE", Majors::ALL)];

wire_struct! {
    /// A fork's file is made. C: `xl_smgr_create`, 16 bytes.
    pub struct Create("xl_smgr_create") {
        /// Relation.
        rel: RelFileLocator,
        /// Fork; four bytes on disk.
        fork: WideFork,
    }
}

wire_struct! {
    /// Forks are cut off. C: `xl_smgr_truncate`, 20 bytes.
    pub struct Truncate("xl_smgr_truncate") {
        /// Pages of the main fork that stay.
        blocks: BlockNumber,
        /// Relation.
        rel: RelFileLocator,
        /// Forks to cut.
        flags: TruncateFlags,
    }
}

wire_flags! {
    /// Which forks a truncation cuts. C: `SMGR_TRUNCATE_*`.
    pub struct TruncateFlags: u32 {
        /// The main fork.
        SMGR_TRUNCATE_HEAP = 0x0001,
        /// The visibility map.
        SMGR_TRUNCATE_VM = 0x0002,
        /// The free space map.
        SMGR_TRUNCATE_FSM = 0x0004,
    }
}

/// A fork in four bytes. C: `ForkNumber` as a struct's member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WideFork(pub ForkNumber);

impl Wire<'_> for WideFork {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        match u32::read(input, fmt)? {
            (rest, number @ 0..=3) => Ok((rest, WideFork(ForkNumber(number as u8)))),
            (_, found) => Err(WireError::invalid(input, "", "a fork, 0 to 3", found.into())),
        }
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        u32::from(self.0.0).write(fmt, out);
    }
}
impl FixedSize for WideFork {
    fn size(_: WalFormat) -> usize {
        4
    }
}
impl Serialize for WideFork {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// A fork's file is made.
    Create(Create),
    /// Forks are cut off.
    Truncate(Truncate),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse(rec: &Record<'_>, fmt: WalFormat) -> Result<Option<Op>> {
    rec.only_block_data("xl_smgr", &[])?;
    Ok(Some(match rec.info().opcode() {
        0x10 => Op::Create(rec.parse_all("xl_smgr_create", rec.main, |i| Create::read(i, fmt))?),
        0x20 => Op::Truncate(rec.parse_all("xl_smgr_truncate", rec.main, |i| Truncate::read(i, fmt))?),
        _ => return Ok(None),
    }))
}

impl Op {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::Create(create) => create.write(fmt, &mut body.main),
            Op::Truncate(truncate) => truncate.write(fmt, &mut body.main),
        }
    }
}

impl Describe for Op {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        match self {
            Op::Create(c) => put!(out, RelPath(c.rel, c.fork.0, fmt)),
            Op::Truncate(t) => {
                let path = RelPath(t.rel, ForkNumber::MAIN, fmt);
                put!(out, path, " to ", t.blocks, " blocks flags ", t.flags.0 as i32);
            }
        }
    }
}

/// Path of a relation's first file, relative to the data directory. C: `relpathperm`, common/relpath.c.
#[derive(Clone, Copy, Debug)]
pub(super) struct RelPath(pub RelFileLocator, pub ForkNumber, pub WalFormat);

/// C: `DEFAULTTABLESPACE_OID`.
const DEFAULT_TABLESPACE: Oid = Oid(1663);
/// C: `GLOBALTABLESPACE_OID`.
const GLOBAL_TABLESPACE: Oid = Oid(1664);

impl Put for RelPath {
    fn put(&self, out: &mut Text) {
        let RelPath(rel, fork, fmt) = *self;
        match rel.spc {
            GLOBAL_TABLESPACE => put!(out, "global/", rel.rel),
            DEFAULT_TABLESPACE => put!(out, "base/", rel.db, "/", rel.rel),
            spc => put!(out, "pg_tblspc/", spc, "/PG_", fmt.major, "_", fmt.catalog_version(), "/", rel.db, "/", rel.rel),
        }
        if fork != ForkNumber::MAIN {
            put!(out, "_", fork);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::super::testing::{Rec, check};
    use super::*;

    fn rel(spc: u32) -> RelFileLocator {
        RelFileLocator { spc: Oid(spc), db: Oid(5), rel: Oid(16384) }
    }

    #[test]
    fn create() {
        let create = |spc, fork| Payload::Storage(Op::Create(Create { rel: rel(spc), fork: WideFork(fork) }));
        for major in 10..=19 {
            check(major, 2, 0x10, &create(1663, ForkNumber::MAIN), 16, "base/5/16384");
            check(major, 2, 0x10, &create(1664, ForkNumber::VM), 16, "global/16384_vm");
        }
        check(15, 2, 0x10, &create(1700, ForkNumber::INIT), 16, "pg_tblspc/1700/PG_15_202209061/5/16384_init");
        check(19, 2, 0x10, &create(1700, ForkNumber::FSM), 16, "pg_tblspc/1700/PG_19_202610061/5/16384_fsm");
    }

    #[test]
    fn truncate() {
        let truncate = Truncate { blocks: BlockNumber(7), rel: rel(1663), flags: TruncateFlags(7) };
        check(15, 2, 0x20, &Payload::Storage(Op::Truncate(truncate)), 20, "base/5/16384 to 7 blocks flags 7");
    }

    #[test]
    fn no_such_fork() {
        let main = [&[0; 12][..], &[4, 0, 0, 0]].concat();
        assert!(Rec { major: 15, rmid: 2, info: 0x10, main: &main, ..Rec::default() }.parse().is_err());
    }
}
