//! Positions in the WAL: LSNs, timelines and the names of segment files.

use std::fmt;
use std::num::ParseIntError;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A byte position in the WAL. C: `XLogRecPtr`, access/xlogdefs.h.
///
/// Zero is `InvalidXLogRecPtr`. Written as two hexadecimal halves, `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `InvalidXLogRecPtr`: no position.
    pub const INVALID: Lsn = Lsn(0);

    /// Whether this is a position at all.
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The upper 32 bits, written before the slash.
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The lower 32 bits, written after the slash.
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// Number of the segment that holds this byte. C: `XLByteToSeg`.
    pub const fn segment_number(self, segment_size: u32) -> u64 {
        self.0 / segment_size as u64
    }

    /// Offset of this byte in its segment. C: `XLogSegmentOffset`.
    pub const fn segment_offset(self, segment_size: u32) -> u64 {
        self.0 % segment_size as u64
    }

    /// The first position at or after this one that a record can start at: records are 8-byte aligned. C: `MAXALIGN`.
    pub const fn align(self) -> Lsn {
        Lsn(self.0.saturating_add(7) & !7)
    }
}

impl Add<u64> for Lsn {
    type Output = Lsn;
    /// Saturates at the end of the address space, which no real WAL reaches.
    fn add(self, len: u64) -> Lsn {
        Lsn(self.0.saturating_add(len))
    }
}

impl Sub<Lsn> for Lsn {
    type Output = u64;
    /// Bytes from `start` to `self`; zero where `start` is later.
    fn sub(self, start: Lsn) -> u64 {
        self.0.saturating_sub(start.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:08X}", self.high(), self.low())
    }
}

impl Serialize for Lsn {
    /// Written without `core::fmt`: every record has several.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let digits = |value: u32, place: u32| DIGITS[(value >> (place * 4) & 15) as usize];
        let mut text = [b'/'; 17];
        let high = 8 - (self.high().leading_zeros() / 4).min(7) as usize;
        for (at, place) in (0..high).rev().enumerate() {
            text[at] = digits(self.high(), place as u32); // at < high <= 8
        }
        for (at, place) in (0..8).rev().enumerate() {
            text[high + 1 + at] = digits(self.low(), place); // high + 1 + 7 <= 16
        }
        match std::str::from_utf8(&text[..high + 9]) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_str(self), // never: the bytes are digits and a slash
        }
    }
}

/// Text that is not an LSN of the form `16/B374D848`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseLsnError(String);

impl fmt::Display for ParseLsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not an LSN: expected two hexadecimal halves like 16/B374D848", self.0)
    }
}

impl std::error::Error for ParseLsnError {}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        let half = |digits: &str| match digits.len() {
            1..=8 if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16).ok(),
            _ => None,
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?))))
            .ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

/// A timeline: it grows by one with every promotion and point-in-time recovery. C: `TimeLineID`, access/xlogdefs.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Name of a segment file: three groups of eight hexadecimal digits. C: `XLogFileName`, access/xlog_internal.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Timeline that wrote the segment.
    pub timeline: TimelineId,
    /// Upper 32 bits of the LSNs inside ("log file").
    pub log: u32,
    /// Number of the segment within its 4 GB "log file".
    pub seg: u32,
}

impl SegmentName {
    /// Length of the file name.
    pub const LEN: usize = 24;

    /// Name of segment `number` (the count of whole segments before it).
    pub const fn new(timeline: TimelineId, number: u64, segment_size: u32) -> SegmentName {
        let per_log = segments_per_log(segment_size);
        SegmentName { timeline, log: (number / per_log) as u32, seg: (number % per_log) as u32 }
    }

    /// Name of the segment that holds the byte at `lsn`.
    pub const fn of(timeline: TimelineId, lsn: Lsn, segment_size: u32) -> SegmentName {
        SegmentName::new(timeline, lsn.segment_number(segment_size), segment_size)
    }

    /// Number of the segment, counted from the start of the WAL.
    pub const fn number(self, segment_size: u32) -> u64 {
        self.log as u64 * segments_per_log(segment_size) + self.seg as u64
    }

    /// LSN of the segment's first byte.
    pub const fn start(self, segment_size: u32) -> Lsn {
        Lsn(self.number(segment_size).wrapping_mul(segment_size as u64))
    }
}

/// Segments in 4 GB of WAL. C: `XLogSegmentsPerXLogId`.
const fn segments_per_log(segment_size: u32) -> u64 {
    match segment_size {
        0 => 1,
        size => 0x1_0000_0000 / size as u64,
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.seg)
    }
}

impl Serialize for SegmentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Text that is not the name of a WAL segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSegmentNameError(String);

impl fmt::Display for ParseSegmentNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not the name of a WAL segment: expected 24 upper-case hexadecimal digits", self.0)
    }
}

impl std::error::Error for ParseSegmentNameError {}

impl FromStr for SegmentName {
    type Err = ParseSegmentNameError;

    /// Accepts exactly what C's `IsXLogFileName` does.
    fn from_str(text: &str) -> Result<SegmentName, ParseSegmentNameError> {
        let is_name = text.len() == SegmentName::LEN && is_upper_hex(text);
        let part = |from: usize| -> Result<u32, ParseIntError> { u32::from_str_radix(text.get(from..from + 8).unwrap_or(""), 16) };
        match (is_name, part(0), part(8), part(16)) {
            (true, Ok(timeline), Ok(log), Ok(seg)) => Ok(SegmentName { timeline: TimelineId(timeline), log, seg }),
            _ => Err(ParseSegmentNameError(text.to_owned())),
        }
    }
}

/// Whether `text` is of the digits that names of WAL files are made of.
pub(crate) fn is_upper_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_text_round_trips() {
        for (text, lsn) in [("0/0", Lsn(0)), ("16/B374D848", Lsn(0x16_B374_D848)), ("FFFFFFFF/FFFFFFFF", Lsn(u64::MAX))] {
            assert_eq!(text.parse(), Ok(lsn));
        }
        assert_eq!(Lsn(0x16_0000_0028).to_string(), "16/00000028");
        for lsn in [0, 1, 0xF_FFFF_FFFF, 0x16_B374_D848, u64::MAX].map(Lsn) {
            assert_eq!(serde_json::to_string(&lsn).unwrap(), format!("\"{lsn}\""));
        }
        for bad in ["", "/", "1/", "/1", "1", "1/2/3", "+1/2", "123456789/0", "g/0", " 1/2"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn segment_names_count_by_segment_size() {
        let mib = 1 << 20;
        let name: SegmentName = "000000020000000100000FFF".parse().unwrap();
        assert_eq!(name.number(mib), 0x1FFF);
        assert_eq!(name.start(mib), Lsn(0x1_FFF0_0000));
        assert_eq!(SegmentName::of(TimelineId(2), Lsn(0x1_FFF0_1234), mib), name);
        assert_eq!(name.to_string(), "000000020000000100000FFF");
        for bad in ["", "000000020000000100000fff", "000000020000000100000FFF.partial", "00000002000000010000FFF"] {
            assert!(bad.parse::<SegmentName>().is_err(), "{bad:?}");
        }
    }
}
