//! Replication origins, resource manager 19. C: replication/origin.h; text: rmgrdesc/replorigindesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::lsn::Lsn;
use crate::record::Record;
use crate::text::Text;
use crate::types::RepOriginId;
use crate::wire::{CBool, Pad, Wire};

/// Record types. C: `XLOG_REPLORIGIN_SET`, `XLOG_REPLORIGIN_DROP`.
pub const OPCODES: &[Opcode] = &[op(0x00, "SET", Majors::ALL), op(0x10, "DROP", Majors::ALL)];

wire_struct! {
    /// The position of an origin is set, outside of any transaction from there. C: `xl_replorigin_set`, 16 bytes with padding.
    pub struct Set("xl_replorigin_set") {
        /// Position in the origin's own WAL up to which everything has been replayed here.
        remote_lsn: Lsn,
        /// The origin.
        node_id: RepOriginId,
        /// Whether the position may also go back.
        force: CBool,
        /// Padding.
        pad: Pad<5>,
    }
}

wire_struct! {
    /// The position of an origin is forgotten. C: `xl_replorigin_drop`.
    pub struct Drop("xl_replorigin_drop") {
        /// The origin.
        node_id: RepOriginId,
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// SET.
    Set(Set),
    /// DROP.
    Drop(Drop),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse(rec: &Record<'_>, fmt: WalFormat) -> Result<Option<Op>> {
    let op = match rec.info().opcode() {
        0x00 => Op::Set(rec.parse_all("xl_replorigin_set", rec.main, |i| Set::read(i, fmt))?),
        0x10 => Op::Drop(rec.parse_all("xl_replorigin_drop", rec.main, |i| Drop::read(i, fmt))?),
        _ => return Ok(None),
    };
    rec.only_block_data("ReplicationOrigin", &[])?;
    Ok(Some(op))
}

impl Op {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::Set(set) => set.write(fmt, &mut body.main),
            Op::Drop(drop) => drop.write(fmt, &mut body.main),
        }
    }
}

impl Describe for Op {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        match self {
            Op::Set(set) => put!(out, "set ", set.node_id, "; lsn ", set.remote_lsn, "; force: ", set.force.0),
            Op::Drop(drop) => put!(out, "drop ", drop.node_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rmgr::testing::{Rec, le};

    #[test]
    fn set_and_drop() {
        let main = le![0x1_000A_BCDEu64, 513u16, 1u8, 7u8, 0u32];
        for major in 10..=18 {
            Rec { major, rmid: 19, main: &main, ..Rec::default() }.check("set 513; lsn 1/ABCDE; force: 1", &[]);
        }
        Rec { major: 19, rmid: 19, main: &main, ..Rec::default() }.check("set 513; lsn 1/000ABCDE; force: 1", &[]);
        // The server prints the byte as it is.
        let main = le![0u64, 513u16, 2u8, 0u8, 0u32];
        Rec { major: 15, rmid: 19, main: &main, ..Rec::default() }.check("set 513; lsn 0/0; force: 2", &[]);
        let main = le![513u16];
        Rec { major: 10, rmid: 19, info: 0x10, main: &main, ..Rec::default() }.check("drop 513", &[]);
    }
}
