//! Multixacts, resource manager 6. C: access/multixact.h; text: rmgrdesc/mxactdesc.c.

use serde::{Serialize, Serializer};

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::{Put, Text};
use crate::types::{MultiXactId, Oid, SlruPage, Xid};
use crate::wire::{Array, FixedSize, Pad, Parsed, Since, Wire, array};

/// Record types. C: `XLOG_MULTIXACT_*`.
pub const OPCODES: &[Opcode] = &[
    op(0x00, "ZERO_OFF_PAGE", Majors::ALL),
    op(0x10, "ZERO_MEM_PAGE", Majors::ALL),
    op(0x20, "CREATE_ID", Majors::ALL),
    op(0x30, "TRUNCATE_ID", Majors::ALL),
];

/// Place in the array of multixact members: 8 bytes on disk from 19 on, 4 before. JSON: a string. C: `MultiXactOffset`, c.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MultiXactOffset(pub u64);

impl Wire<'_> for MultiXactOffset {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        if fmt.since(19) {
            let (input, offset) = u64::read(input, fmt)?;
            return Ok((input, MultiXactOffset(offset)));
        }
        let (input, offset) = u32::read(input, fmt)?;
        Ok((input, MultiXactOffset(offset.into())))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        if fmt.since(19) { self.0.write(fmt, out) } else { (self.0 as u32).write(fmt, out) }
    }
}
impl FixedSize for MultiXactOffset {
    fn size(fmt: WalFormat) -> usize {
        if fmt.since(19) { 8 } else { 4 }
    }
}
impl Serialize for MultiXactOffset {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
impl Put for MultiXactOffset {
    fn put(&self, out: &mut Text) {
        put!(out, self.0);
    }
}

wire_newtype! {
    /// What a member does to the row. C: `MultiXactStatus`.
    pub struct MemberStatus(u32);
}

impl MemberStatus {
    /// As descriptions abbreviate it.
    pub fn name(self) -> &'static str {
        ["keysh", "sh", "fornokeyupd", "forupd", "nokeyupd", "upd"].get(self.0 as usize).copied().unwrap_or("unk")
    }
}
impl Serialize for MemberStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            0..=5 => serializer.serialize_str(self.name()),
            other => serializer.collect_str(&other),
        }
    }
}

wire_struct! {
    /// A transaction and what it does to the row. C: `MultiXactMember`, 8 bytes.
    pub struct Member("MultiXactMember") {
        /// The transaction.
        xid: Xid,
        /// Lock or update.
        status: MemberStatus,
    }
}

wire_struct! {
    /// Fixed part of CREATE_ID. C: `xl_multixact_create`, 12 bytes, in 19 20.
    pub struct CreateHead("xl_multixact_create") {
        /// The new multixact.
        mid: MultiXactId,
        /// Alignment.
        pad: Since<19, Pad<4>>,
        /// Place of its first member.
        moff: MultiXactOffset,
        /// Number of members.
        nmembers: i32,
    }
}

/// A new multixact. C: `xl_multixact_create`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Create<'a> {
    /// Fixed part.
    pub head: CreateHead,
    /// Its members.
    pub members: Array<'a, Member>,
}
json_object!(Create<'_> { ..head, members });

wire_struct! {
    /// Ranges of offsets and members that are removed, before 19. C: `xl_multixact_truncate`, 20 bytes.
    pub struct TruncateRanges("xl_multixact_truncate") {
        /// Database with the oldest multixact.
        oldest_multi_db: Oid,
        /// First multixact that goes.
        start_trunc_off: MultiXactId,
        /// First multixact that stays.
        end_trunc_off: MultiXactId,
        /// First member that goes.
        start_trunc_memb: MultiXactOffset,
        /// First member that stays.
        end_trunc_memb: MultiXactOffset,
    }
}

wire_struct! {
    /// What stays when older multixacts and members are removed, from 19 on. C: `xl_multixact_truncate`, 16 bytes.
    pub struct TruncateBefore("xl_multixact_truncate") {
        /// Database with the oldest multixact.
        oldest_multi_db: Oid,
        /// First multixact that stays.
        oldest_multi: MultiXactId,
        /// First member that stays.
        oldest_offset: MultiXactOffset,
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// A new page of offsets, all zero.
    ZeroOffPage {
        /// Its number.
        page: SlruPage,
    },
    /// A new page of members, all zero.
    ZeroMemPage {
        /// Its number.
        page: SlruPage,
    },
    /// A new multixact.
    CreateId(Create<'a>),
    /// Old multixacts are removed, before 19.
    #[serde(rename = "truncate_id")]
    TruncateRanges(TruncateRanges),
    /// Old multixacts are removed, from 19 on.
    #[serde(rename = "truncate_id")]
    TruncateBefore(TruncateBefore),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    rec.only_block_data("xl_multixact", &[])?;
    Ok(Some(match rec.info().opcode() {
        0x00 => Op::ZeroOffPage { page: rec.parse_all("XLOG_MULTIXACT_ZERO_OFF_PAGE.pageno", rec.main, |i| SlruPage::read(i, fmt))? },
        0x10 => Op::ZeroMemPage { page: rec.parse_all("XLOG_MULTIXACT_ZERO_MEM_PAGE.pageno", rec.main, |i| SlruPage::read(i, fmt))? },
        0x20 => Op::CreateId(rec.parse_all("xl_multixact_create", rec.main, |i| {
            let (i, head) = CreateHead::read(i, fmt)?;
            let (i, members) = array(i, head.nmembers, fmt, "xl_multixact_create.members")?;
            Ok((i, Create { head, members }))
        })?),
        0x30 if fmt.since(19) => {
            Op::TruncateBefore(rec.parse_all("xl_multixact_truncate", rec.main, |i| TruncateBefore::read(i, fmt))?)
        }
        0x30 => Op::TruncateRanges(rec.parse_all("xl_multixact_truncate", rec.main, |i| TruncateRanges::read(i, fmt))?),
        _ => return Ok(None),
    }))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        let out = &mut body.main;
        match self {
            Op::ZeroOffPage { page } | Op::ZeroMemPage { page } => page.write(fmt, out),
            Op::CreateId(create) => {
                create.head.write(fmt, out);
                create.members.write(out);
            }
            Op::TruncateRanges(truncate) => truncate.write(fmt, out),
            Op::TruncateBefore(truncate) => truncate.write(fmt, out),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        match self {
            Op::ZeroOffPage { page } | Op::ZeroMemPage { page } => put!(out, page.0),
            Op::CreateId(Create { head, members }) => {
                put!(out, head.mid, " offset ", head.moff, " nmembers ", head.nmembers, ": ");
                for member in members.iter() {
                    put!(out, member.xid, " (", member.status.name(), ") ");
                }
            }
            Op::TruncateRanges(t) => {
                put!(out, "offsets [", t.start_trunc_off, ", ", t.end_trunc_off);
                put!(out, "), members [", t.start_trunc_memb, ", ", t.end_trunc_memb, ")");
            }
            Op::TruncateBefore(t) => put!(out, "oldestMulti ", t.oldest_multi, ", oldestOffset ", t.oldest_offset),
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
            let size = if major >= 17 { 8 } else { 4 };
            check(major, 6, 0x00, &Payload::MultiXact(Op::ZeroOffPage { page: SlruPage(1) }), size, "1");
            check(major, 6, 0x10, &Payload::MultiXact(Op::ZeroMemPage { page: SlruPage(2) }), size, "2");
        }
    }

    #[test]
    fn create() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let members = words(&[700, 0, 701, 1, 702, 2, 703, 3, 704, 4, 705, 5, 706, 6]);
        fn rec(major: u8, main: &[u8]) -> Rec<'_> {
            Rec { major, rmid: 6, info: 0x20, main, ..Rec::default() }
        }
        let text = "9 offset 40 nmembers 7: 700 (keysh) 701 (sh) 702 (fornokeyupd) 703 (forupd) 704 (nokeyupd) 705 (upd) 706 (unk) ";
        let old = [words(&[9, 40, 7]), members.clone()].concat();
        rec(10, &old).check(text, &[]);
        rec(18, &old).check(text, &[]);
        // 19: the offset has eight bytes, aligned.
        rec(19, &[words(&[9, 0xDEAD, 40, 0, 7]), members].concat()).check(text, &[]);
        // A count from disk buys nothing: neither a huge nor a negative one.
        assert!(rec(15, &words(&[9, 40, 0x7FFF_FFFF, 1, 1])).parse().is_err());
        assert!(rec(15, &words(&[9, 40, 0xFFFF_FFFF, 1, 1])).parse().is_err());
    }

    #[test]
    fn truncate() {
        let ranges = Op::TruncateRanges(TruncateRanges {
            oldest_multi_db: Oid(5),
            start_trunc_off: MultiXactId(1),
            end_trunc_off: MultiXactId(2500),
            start_trunc_memb: MultiXactOffset(1),
            end_trunc_memb: MultiXactOffset(5000),
        });
        for major in 10..=18 {
            check(major, 6, 0x30, &Payload::MultiXact(ranges), 20, "offsets [1, 2500), members [1, 5000)");
        }
        let (oldest_multi_db, oldest_multi, oldest_offset) = (Oid(5), MultiXactId(2500), MultiXactOffset(u64::MAX));
        let before = Op::TruncateBefore(TruncateBefore { oldest_multi_db, oldest_multi, oldest_offset });
        check(19, 6, 0x30, &Payload::MultiXact(before), 16, "oldestMulti 2500, oldestOffset 18446744073709551615");
    }
}
