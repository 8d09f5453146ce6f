//! Commit log, resource manager 3. C: access/clog.h; text: rmgrdesc/clogdesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::Text;
use crate::types::{Oid, SlruPage, Xid};
use crate::wire::Wire;

/// Record types. C: `CLOG_ZEROPAGE`, `CLOG_TRUNCATE`.
pub const OPCODES: &[Opcode] = &[op(0x00, "ZEROPAGE", Majors::ALL), op(0x10, "TRUNCATE", Majors::ALL)];

wire_struct! {
    /// Pages before this one are removed. C: `xl_clog_truncate`.
    pub struct Truncate("xl_clog_truncate") {
        /// First page that stays.
        page: SlruPage,
        /// The oldest transaction whose status is still needed.
        oldest_xact: Xid,
        /// Database that needs it.
        oldest_xact_db: Oid,
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// A new page of zeroes.
    #[serde(rename = "zeropage")]
    ZeroPage {
        /// Its number.
        page: SlruPage,
    },
    /// Old pages are removed.
    Truncate(Truncate),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse(rec: &Record<'_>, fmt: WalFormat) -> Result<Option<Op>> {
    rec.only_block_data("xl_clog", &[])?;
    Ok(Some(match rec.info().opcode() {
        0x00 => Op::ZeroPage { page: rec.parse_all("CLOG_ZEROPAGE.pageno", rec.main, |i| SlruPage::read(i, fmt))? },
        0x10 => Op::Truncate(rec.parse_all("xl_clog_truncate", rec.main, |i| Truncate::read(i, fmt))?),
        _ => return Ok(None),
    }))
}

impl Op {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::ZeroPage { page } => page.write(fmt, &mut body.main),
            Op::Truncate(truncate) => truncate.write(fmt, &mut body.main),
        }
    }
}

impl Describe for Op {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        match self {
            Op::ZeroPage { page } => put!(out, "page ", page.0),
            Op::Truncate(t) => put!(out, "page ", t.page.0, "; oldestXact ", t.oldest_xact),
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
            check(major, 3, 0x00, &Payload::Clog(Op::ZeroPage { page: SlruPage(2) }), 4 + wide, "page 2");
            let truncate = Truncate { page: SlruPage(32), oldest_xact: Xid(1_048_600), oldest_xact_db: Oid(5) };
            check(major, 3, 0x10, &Payload::Clog(Op::Truncate(truncate)), 12 + wide, "page 32; oldestXact 1048600");
        }
    }

    #[test]
    fn block_data_is_refused() {
        let rec = Rec { major: 15, rmid: 3, info: 0, main: &[0; 4], blocks: &[(0, &[1, 2])], ..Rec::default() };
        assert!(rec.parse().is_err());
    }
}
