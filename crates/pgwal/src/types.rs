//! Small types that many records share, named as in PostgreSQL's headers.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::format::WalFormat;
use crate::lsn::{Lsn, TimelineId};
use crate::text::{Put, Text, civil_from_days};
use crate::wire::{FixedSize, Parsed, Wire};

wire_newtype! {
    /// Transaction id; zero is `InvalidTransactionId`. C: `TransactionId`, c.h.
    #[derive(Serialize)]
    #[serde(transparent)]
    pub struct Xid(u32);
    /// Transaction id with its epoch in the upper 32 bits. JSON: a string. C: `FullTransactionId`, access/transam.h.
    pub struct FullXid(u64);
    /// Multixact id. C: `MultiXactId`, c.h.
    #[derive(Serialize)]
    #[serde(transparent)]
    pub struct MultiXactId(u32);
    /// Object id; zero is `InvalidOid`. C: `Oid`, postgres_ext.h.
    #[derive(Serialize)]
    #[serde(transparent)]
    pub struct Oid(u32);
    /// Number of a page in its relation fork; 0xFFFFFFFF is `InvalidBlockNumber`. C: `BlockNumber`, storage/block.h.
    #[derive(Serialize)]
    #[serde(transparent)]
    pub struct BlockNumber(u32);
    /// Number of a line pointer on its page, counted from 1. C: `OffsetNumber`, storage/off.h.
    #[derive(Serialize)]
    #[serde(transparent)]
    pub struct OffsetNumber(u16);
    /// Number of a command in its transaction, counted from 0. C: `CommandId`, c.h.
    #[derive(Serialize)]
    #[serde(transparent)]
    pub struct CommandId(u32);
    /// Microseconds since 2000-01-01 00:00:00 UTC. JSON: an ISO 8601 string in UTC. C: `TimestampTz`, datatype/timestamp.h.
    pub struct TimestampTz(i64);
    /// A 64-bit number that no other bound holds. JSON: a string, which keeps all digits where numbers are doubles. C: `int64`.
    pub struct Int8(i64);
    /// A double-precision number, kept as its bits. JSON: a number, or null where JSON has none for it. C: `double`, `float8`.
    pub struct Float8(u64);
    /// Replication origin; zero is `InvalidRepOriginId`. C: `RepOriginId` (19: `ReplOriginId`), replication/origin.h.
    #[derive(Serialize)]
    #[serde(transparent)]
    pub struct RepOriginId(u16);
}

impl Xid {
    /// Whether this is a transaction id at all. C: `TransactionIdIsValid`.
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }
}

impl FullXid {
    /// Times the 32-bit counter has wrapped. C: `EpochFromFullTransactionId`.
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }
    /// The 32-bit transaction id. C: `XidFromFullTransactionId`.
    pub const fn xid(self) -> Xid {
        Xid(self.0 as u32)
    }
}
impl Serialize for FullXid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for Int8 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Float8 {
    /// The number.
    pub const fn value(self) -> f64 {
        f64::from_bits(self.0)
    }
}
impl Serialize for Float8 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl BlockNumber {
    /// `InvalidBlockNumber`, also `P_NEW`.
    pub const INVALID: BlockNumber = BlockNumber(u32::MAX);
}

impl TimestampTz {
    /// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
    pub const UNIX_EPOCH_OFFSET: i64 = 946_684_800_000_000;

    /// Microseconds since the Unix epoch.
    pub const fn unix_micros(self) -> i64 {
        self.0.saturating_add(TimestampTz::UNIX_EPOCH_OFFSET)
    }

    /// Text of a time in the years 0 to 9999, made without `core::fmt`: every commit has one.
    fn iso(self) -> Option<[u8; 27]> {
        let (seconds, micros) = (self.unix_micros().div_euclid(1_000_000), self.unix_micros().rem_euclid(1_000_000));
        let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
        let year = u32::try_from(year).ok().filter(|&year| year <= 9999)?;
        let second = seconds.rem_euclid(86_400) as u32; // less than a day
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut pair = |at: usize, value: u32| {
            text[at] = b'0' + (value / 10 % 10) as u8; // at is one of those below, and `text` is longer
            text[at + 1] = b'0' + (value % 10) as u8;
        };
        let micros = micros as u32; // less than a million
        pair(0, year / 100);
        pair(2, year);
        pair(5, month as u32); // 1 to 12
        pair(8, day as u32); // 1 to 31
        pair(11, second / 3600);
        pair(14, second / 60 % 60);
        pair(17, second % 60);
        pair(20, micros / 10_000);
        pair(22, micros / 100);
        pair(24, micros);
        Some(text)
    }
}
impl fmt::Display for TimestampTz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.iso().as_ref().map(|text| std::str::from_utf8(text)) {
            Some(Ok(text)) => f.write_str(text),
            // Beyond the calendar's end (and PostgreSQL's own infinities): the raw count.
            _ => write!(f, "{} us since 2000-01-01", self.0),
        }
    }
}
impl Serialize for TimestampTz {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.iso().as_ref().map(|text| std::str::from_utf8(text)) {
            Some(Ok(text)) => serializer.serialize_str(text),
            _ => serializer.collect_str(self),
        }
    }
}

macro_rules! wire_as {
    ($($ty:ty: $int:ty),*) => {$(
        impl Wire<'_> for $ty {
            #[inline]
            fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
                let (input, value) = <$int>::read(input, fmt)?;
                Ok((input, Self(value)))
            }
            #[inline]
            fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
                self.0.write(fmt, out);
            }
        }
        impl FixedSize for $ty {
            fn size(_: WalFormat) -> usize {
                size_of::<$int>()
            }
        }
    )*};
}
wire_as!(Lsn: u64, TimelineId: u32);

wire_struct! {
    /// Physical identity of a relation. C: `RelFileLocator`, storage/relfilelocator.h (`RelFileNode` before 16), 12 bytes.
    #[derive(Hash, PartialOrd, Ord, Default)]
    pub struct RelFileLocator("RelFileLocator") {
        /// Tablespace.
        spc: Oid,
        /// Database; zero for shared relations.
        db: Oid,
        /// File number: `pg_class.relfilenode`.
        rel: Oid,
    }
}

impl fmt::Display for RelFileLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.spc.0, self.db.0, self.rel.0)
    }
}

/// `spc/db/rel`, the form that most descriptions use.
impl Put for RelFileLocator {
    #[inline]
    fn put(&self, out: &mut Text) {
        out.relation(*self);
    }
}

/// Fork of a relation. C: `ForkNumber`, common/relpath.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForkNumber(pub u8);

impl ForkNumber {
    /// The table or index itself.
    pub const MAIN: ForkNumber = ForkNumber(0);
    /// Free space map.
    pub const FSM: ForkNumber = ForkNumber(1);
    /// Visibility map.
    pub const VM: ForkNumber = ForkNumber(2);
    /// Initial contents of an unlogged relation.
    pub const INIT: ForkNumber = ForkNumber(3);

    /// Names by number. C: `forkNames`.
    pub const NAMES: [&'static str; 4] = ["main", "fsm", "vm", "init"];

    /// The fork's name; `None` beyond the four that exist.
    pub fn name(self) -> Option<&'static str> {
        ForkNumber::NAMES.get(usize::from(self.0)).copied()
    }
}
impl Serialize for ForkNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(name),
            None => serializer.collect_str(&self.0),
        }
    }
}

/// Place of a tuple: block and line pointer. C: `ItemPointerData`, storage/itemptr.h, 6 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ItemPointer {
    /// Page of the tuple; on disk its upper half comes first. C: `ip_blkid`.
    pub block: BlockNumber,
    /// Line pointer. C: `ip_posid`.
    pub offnum: OffsetNumber,
}

impl Wire<'_> for ItemPointer {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        let (input, high) = u16::read(input, fmt).map_err(|e| e.in_field("ItemPointerData.ip_blkid"))?;
        let (input, low) = u16::read(input, fmt).map_err(|e| e.in_field("ItemPointerData.ip_blkid"))?;
        let (input, offnum) = OffsetNumber::read(input, fmt).map_err(|e| e.in_field("ItemPointerData.ip_posid"))?;
        Ok((input, ItemPointer { block: BlockNumber(u32::from(high) << 16 | u32::from(low)), offnum }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        ((self.block.0 >> 16) as u16).write(fmt, out);
        (self.block.0 as u16).write(fmt, out);
        self.offnum.write(fmt, out);
    }
}
impl FixedSize for ItemPointer {
    fn size(_: WalFormat) -> usize {
        6
    }
}

/// Number of a page of an SLRU (commit log, multixacts, commit timestamps): 8 bytes on disk from 17 on, 4 before. C: `pageno`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SlruPage(pub i64);

impl Wire<'_> for SlruPage {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        if fmt.since(17) {
            let (input, page) = i64::read(input, fmt)?;
            return Ok((input, SlruPage(page)));
        }
        let (input, page) = i32::read(input, fmt)?;
        Ok((input, SlruPage(page.into())))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        if fmt.since(17) { self.0.write(fmt, out) } else { (self.0 as i32).write(fmt, out) }
    }
}
impl FixedSize for SlruPage {
    fn size(fmt: WalFormat) -> usize {
        if fmt.since(17) { 8 } else { 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_those_of_a_calendar_library() {
        let day = 86_400_000_000;
        let days = (-730_000..2_920_000).step_by(13).map(|n| TimestampTz(n * day + n * 1_234_567));
        // The last moments of year 0's February, of a year, of the library's calendar.
        let edges = [0, -1, 1, 999_999, day - 1, -63_108_806_400_000_001, -63_082_281_600_000_001, 252_455_522_399_999_999];
        for time in days.chain(edges.map(TimestampTz)) {
            let expected = format!("{:.6}", jiff::Timestamp::from_microsecond(time.unix_micros()).unwrap());
            assert_eq!((time.to_string(), serde_json::to_value(time).unwrap()), (expected.clone(), expected.into()));
        }
        assert_eq!(TimestampTz(252_455_616_000_000_000).to_string(), "252455616000000000 us since 2000-01-01");
        assert_eq!(serde_json::to_value(TimestampTz(i64::MIN)).unwrap(), "-9223372036854775808 us since 2000-01-01");
    }
}
