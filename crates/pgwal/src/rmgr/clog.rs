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
