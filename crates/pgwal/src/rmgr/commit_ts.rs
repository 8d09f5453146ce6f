//! Commit timestamps, resource manager 18. C: access/commit_ts.h; text: rmgrdesc/committsdesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::Text;
use crate::types::{RepOriginId, SlruPage, TimestampTz, Xid};
use crate::wire::{Array, FixedSize, Pad, Wire, array};

/// Record types. C: `COMMIT_TS_ZEROPAGE`, `COMMIT_TS_TRUNCATE`, `COMMIT_TS_SETTS`.
pub const OPCODES: &[Opcode] =
    &[op(0x00, "ZEROPAGE", Majors::ALL), op(0x10, "TRUNCATE", Majors::ALL), op(0x20, "SETTS", Majors::until(13))];

wire_struct! {
    /// Pages before this one are removed. C: `xl_commit_ts_truncate`, 8 bytes, from 17 on 12.
    pub struct Truncate("xl_commit_ts_truncate") {
        /// First page that stays.
        page: SlruPage,
        /// The oldest transaction whose timestamp is still needed.
        oldest_xid: Xid,
    }
}

wire_struct! {
    /// Fixed part of SETTS. C: `xl_commit_ts_set`, 16 bytes, before 14.
    pub struct SetTsHead("xl_commit_ts_set") {
        /// When the transaction committed.
        timestamp: TimestampTz,
        /// Replication origin that it came from; zero: this server.
        node: RepOriginId,
        /// Alignment.
        pad: Pad<2>,
        /// The transaction.
        main_xid: Xid,
    }
}

/// Sets the timestamp of a transaction and its subtransactions. C: `xl_commit_ts_set` and the ids after it, before 14.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SetTs<'a> {
    /// Fixed part.
    pub head: SetTsHead,
    /// Subtransactions, to the end of the record.
    pub subxids: Array<'a, Xid>,
}
json_object!(SetTs<'_> { ..head, subxids });

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// A new page of zeroes.
    #[serde(rename = "zeropage")]
    ZeroPage {
        /// Its number.
        page: SlruPage,
    },
    /// Old pages are removed.
    Truncate(Truncate),
    /// Timestamp of one transaction, before 14.
    #[serde(rename = "setts")]
    SetTs(SetTs<'a>),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    rec.only_block_data("xl_commit_ts", &[])?;
    Ok(Some(match rec.info().opcode() {
        0x00 => Op::ZeroPage { page: rec.parse_all("COMMIT_TS_ZEROPAGE.pageno", rec.main, |i| SlruPage::read(i, fmt))? },
        0x10 => Op::Truncate(rec.parse_all("xl_commit_ts_truncate", rec.main, |i| Truncate::read(i, fmt))?),
        0x20 if !fmt.since(14) => Op::SetTs(rec.parse_all("xl_commit_ts_set", rec.main, |i| {
            let (i, head) = SetTsHead::read(i, fmt)?;
            let (i, subxids) = array(i, i.len() / Xid::size(fmt), fmt, "xl_commit_ts_set.subxids")?;
            Ok((i, SetTs { head, subxids }))
        })?),
        _ => return Ok(None),
    }))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::ZeroPage { page } => page.write(fmt, &mut body.main),
            Op::Truncate(truncate) => truncate.write(fmt, &mut body.main),
            Op::SetTs(set) => {
                set.head.write(fmt, &mut body.main);
                set.subxids.write(&mut body.main);
            }
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        match self {
            Op::ZeroPage { page } => put!(out, page.0),
            Op::Truncate(t) => put!(out, "pageno ", t.page.0, ", oldestXid ", t.oldest_xid),
            Op::SetTs(set) => {
                put!(out, "set ", set.head.timestamp, "/", set.head.node, " for: ", set.head.main_xid);
                for xid in set.subxids.iter() {
                    put!(out, ", ", xid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::super::testing::{Rec, check};
    use super::*;

    #[test]
    fn pages() {
        for major in 10..=19 {
            let wide = if major >= 17 { 4 } else { 0 };
            let zero = Op::ZeroPage { page: SlruPage(9) };
            check(major, 18, 0x00, &Payload::CommitTs(zero), 4 + wide, "9");
            let truncate = Op::Truncate(Truncate { page: SlruPage(2), oldest_xid: Xid(3000) });
            check(major, 18, 0x10, &Payload::CommitTs(truncate), 8 + wide, "pageno 2, oldestXid 3000");
        }
    }

    #[test]
    fn set() {
        let mut main = Vec::new();
        main.extend(1_000_001i64.to_le_bytes());
        main.extend([3, 0, 0xAA, 0xBB]); // the padding may hold anything
        main.extend([700u32, 701, 702].map(u32::to_le_bytes).concat());
        // The ids go on to the end, so a record cut after one of them is another record.
        let rec = Rec { major: 13, rmid: 18, info: 0x20, main: &main, ..Rec::default() };
        rec.check("set 2000-01-01 00:00:01.000001 UTC/3 for: 700, 701, 702", &[16, 20]);
        let one = Rec { major: 10, main: &main[..16], ..rec.clone() };
        one.check("set 2000-01-01 00:00:01.000001 UTC/3 for: 700", &[]);
        assert_eq!(Rec { major: 14, ..rec }.parse(), Ok(None));
    }
}
