//! Sequences, resource manager 15. C: commands/sequence.h (19: commands/sequence_xlog.h); text: rmgrdesc/seqdesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::Text;
use crate::heap_tuple::{Infomask, Infomask2};
use crate::types::{CommandId, Int8, ItemPointer, RelFileLocator, Xid};
use crate::wire::{CBool, Pad, Wire};

/// Record types. C: `XLOG_SEQ_LOG`.
pub const OPCODES: &[Opcode] = &[op(0x00, "LOG", Majors::ALL)];

wire_struct! {
    /// The one row of a sequence, as it is on the page. C: `HeapTupleHeaderData`, access/htup_details.h, then
    /// `FormData_pg_sequence_data`, 41 bytes together.
    pub struct SequenceTuple("HeapTupleHeaderData") {
        /// Transaction that wrote the row, frozen in a healthy sequence. C: `t_xmin`.
        xmin: Xid,
        /// Transaction that deleted or locked it. C: `t_xmax`.
        xmax: Xid,
        /// Command that wrote it. C: `t_cid`.
        cid: CommandId,
        /// Its place. C: `t_ctid`.
        ctid: ItemPointer,
        /// Number of attributes, 3, and flags. C: `t_infomask2`.
        infomask2: Infomask2,
        /// State of the row. C: `t_infomask`.
        infomask: Infomask,
        /// Bytes from the start of the row to its attributes, 24. C: `t_hoff`.
        hoff: u8,
        /// Padding before the attributes.
        pad: Pad<1>,
        /// The value given last, or the one to be given next while nothing is `is_called`. What a record says is the value up to
        /// which the server may give values without another record.
        last_value: Int8,
        /// Values that may be given without another record.
        log_cnt: Int8,
        /// Whether `last_value` has been given.
        is_called: CBool,
    }
}

wire_struct! {
    /// The page of a sequence, block 0, is made anew with this row on it. C: `xl_seq_rec` and the tuple that follows it.
    pub struct Log("xl_seq_rec") {
        /// The sequence. C: `locator`, before 16 `node`.
        rel: RelFileLocator,
        /// Its row.
        tuple: SequenceTuple,
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// LOG.
    Log(Log),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse(rec: &Record<'_>, fmt: WalFormat) -> Result<Option<Op>> {
    let op = match rec.info().opcode() {
        0x00 => Op::Log(rec.parse_all("xl_seq_rec", rec.main, |i| Log::read(i, fmt))?),
        _ => return Ok(None),
    };
    rec.only_block_data("xl_seq_rec", &[])?;
    Ok(Some(op))
}

impl Op {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        let Op::Log(log) = self;
        log.write(fmt, &mut body.main);
    }
}

impl Describe for Op {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        let Op::Log(log) = self;
        put!(out, "rel ", log.rel);
    }
}

#[cfg(test)]
mod tests {
    use crate::rmgr::testing::{Rec, le};

    #[test]
    fn log() {
        let header = le![2u32, 0u32, 0u32, 0u16, 0u16, 1u16, 3u16, 0x0900u16, 24u8, 0xEEu8];
        let main = [le![1663u32, 5u32, 16385u32], header, le![100i64, 32i64, 1u8]].concat();
        for major in 10..=19 {
            let rec = Rec { major, rmid: 15, main: &main, blocks: &[(0, &[])], ..Rec::default() };
            rec.check("rel 1663/5/16385", &[]);
        }
        let rec = Rec { major: 15, rmid: 15, main: &main, ..Rec::default() };
        let text = rec.parse().unwrap().unwrap();
        assert!(text.contains("last_value: Int8(100), log_cnt: Int8(32), is_called: true"), "{text}");
    }
}
