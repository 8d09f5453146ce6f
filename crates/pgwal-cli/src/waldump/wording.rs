//! Messages as the pg_waldump of each major words them. C: bin/pg_waldump/pg_waldump.c, access/transam/xlogreader.c.

use pgwal::{Error, ErrorKind, Lsn, SegmentName, TimelineId, WalFormat};

use crate::dropin::log::{self, Colors, Level};

/// Wording of one major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wording {
    /// The major.
    pub major: u8,
}

impl Wording {
    fn since(self, major: u8) -> bool {
        self.major >= major
    }

    /// A line for standard error.
    pub fn line(self, level: Level, text: &str, colors: &Colors) -> String {
        log::line("pg_waldump", self.major, level, text, colors)
    }

    /// An LSN in a message.
    pub fn lsn(self, lsn: Lsn) -> String {
        if self.since(19) { lsn.to_string() } else { format!("{:X}/{:X}", lsn.high(), lsn.low()) }
    }

    /// `-e` or `-s` that is no LSN.
    pub fn bad_location(self, which: &str, text: &str) -> String {
        if self.since(15) {
            format!("invalid WAL location: \"{text}\"")
        } else {
            format!("could not parse {which} WAL location \"{text}\"")
        }
    }

    /// `-n` that is no number.
    pub fn bad_limit(self, text: &str) -> String {
        if self.since(15) { bad_value(text, "-n/--limit") } else { format!("could not parse limit \"{text}\"") }
    }

    /// `-t` that is no number.
    pub fn bad_timeline(self, text: &str) -> String {
        match self.major {
            16.. => bad_value(text, "-t/--timeline"),
            15 => format!("invalid timeline specification: \"{text}\""),
            _ => format!("could not parse timeline \"{text}\""),
        }
    }

    /// `-x` that is no number.
    pub fn bad_xid(self, text: &str) -> String {
        if self.since(15) {
            format!("invalid transaction ID specification: \"{text}\"")
        } else {
            format!("could not parse \"{text}\" as a transaction ID")
        }
    }

    /// `--stats` that is neither `record` nor `rmgr`.
    pub fn bad_stats(self, text: &str) -> String {
        if self.since(15) {
            format!("unrecognized value for option --stats: {text}")
        } else {
            format!("unrecognized argument to --stats: {text}")
        }
    }

    /// A file that does not start with a segment size; from 17 on with a second line.
    pub fn bad_segment_size(self, file: &str, size: u32) -> (String, Option<&'static str>) {
        let number = if self.since(19) { size.to_string() } else { (size as i32).to_string() };
        let bytes = if size == 1 { "byte" } else { "bytes" };
        if self.since(17) {
            let detail = "The WAL segment size must be a power of two between 1 MB and 1 GB.";
            return (format!("invalid WAL segment size in WAL file \"{file}\" ({number} {bytes})"), Some(detail));
        }
        let range = "WAL segment size must be a power of two between 1 MB and 1 GB";
        (format!("{range}, but the WAL file \"{file}\" header specifies {number} {bytes}"), None)
    }

    /// Reading a segment fails at `offset`, where `wanted` bytes were to come; `why` is what the operating system says, if anything.
    pub fn cannot_read(self, segment: SegmentName, offset: u64, wanted: usize, why: Option<&str>) -> String {
        let place = match self.major {
            17.. => format!("could not read from file \"{segment}\", offset {offset}"),
            13.. => format!("could not read from file {segment}, offset {offset}"),
            _ => format!("could not read from log file {segment}, offset {offset}"),
        };
        match why {
            None if self.since(11) => format!("{place}: read 0 of {wanted}"),
            Some(why) if self.since(13) => format!("{place}: {why}"),
            why => format!("{place}, length {wanted}: {}", why.unwrap_or("Success")),
        }
    }

    /// Nothing to start from.
    pub fn no_valid_record(self, after: Lsn, why: Option<&str>) -> String {
        let text = format!("could not find a valid record after {}", self.lsn(after));
        match why {
            Some(why) if self.since(19) => format!("{text}: {why}"),
            _ => text,
        }
    }

    /// A page image that does not restore.
    pub fn bad_image(self, record: Lsn, block: u8) -> String {
        let what = if self.since(15) { "could not decompress image" } else { "invalid compressed image" };
        format!("{what} at {}, block {block}", self.lsn(record))
    }

    /// What stops the reader. `timeline` is the one that is being read, `last` the start of the last good record.
    pub fn reader_error(self, error: &Error, fmt: WalFormat, timeline: TimelineId, last: Lsn) -> String {
        use ErrorKind::*;
        let place = error.location();
        let here = self.lsn(place.lsn);
        // Where the record starts that the reader is at, also when the error is on a later page.
        let record = self.lsn(place.record.unwrap_or(place.lsn));
        // While it decoded the parts of a record, the reader of 15 and later still had the record before as its position.
        let decoding = if self.since(15) { self.lsn(last) } else { record.clone() };
        let segment = SegmentName::of(timeline, place.lsn, fmt.segment_size);
        let page = if self.since(16) {
            format!("in WAL segment {segment}, LSN {here}, offset {}", place.offset)
        } else {
            format!("in log segment {segment}, offset {}", place.offset)
        };
        let compressed = if self.since(15) { "BKPIMAGE_COMPRESSED" } else { "BKPIMAGE_IS_COMPRESSED" };
        match *error.kind() {
            Magic { found, .. } => format!("invalid magic number {found} {page}"),
            InfoBits { found } | NoLongHeader { info: found } => format!("invalid info bits {found:04X} {page}"),
            SegmentSize { .. } if self.since(11) => other_system("incorrect segment size in page header"),
            SegmentSize { .. } => other_system("incorrect XLOG_SEG_SIZE in page header"),
            WalPageSize { .. } => other_system("incorrect XLOG_BLCKSZ in page header"),
            PageAddress { found, .. } => format!("unexpected pageaddr {} {page}", self.lsn(found)),
            PageTimeline { previous, found } => format!("out-of-sequence timeline ID {found} (after {previous}) {page}"),
            InsidePageHeader { header } if self.since(16) => {
                let offset = fmt.page_offset(place.lsn);
                format!("invalid record offset at {here}: expected at least {header}, got {offset}")
            }
            InsidePageHeader { .. } => format!("invalid record offset at {here}"),
            ContinuationAtStart => {
                format!("contrecord is requested by {}", self.lsn(place.lsn + fmt.page_header_size(place.lsn)))
            }
            NoContinuation => format!("there is no contrecord flag at {record}"),
            ContinuationLength { expected, found } if self.since(14) => {
                format!("invalid contrecord length {found} (expected {expected}) at {record}")
            }
            ContinuationLength { found, .. } => format!("invalid contrecord length {found} at {record}"),
            RecordLength { found } if self.since(16) => format!("invalid record length at {record}: expected at least 24, got {found}"),
            RecordLength { found } => format!("invalid record length at {record}: wanted 24, got {found}"),
            RecordTooLong { found } => format!("record length {found} at {record} too long"),
            ResourceManager { found } => format!("invalid resource manager ID {found} at {record}"),
            PreviousLink { found, .. } => format!("record with incorrect prev-link {} at {record}", self.lsn(found)),
            Crc { .. } => format!("incorrect resource manager data checksum in record at {record}"),
            BlockOrder { id, .. } => format!("out-of-order block_id {id} at {decoding}"),
            BlockId { found } => format!("invalid block_id {found} at {decoding}"),
            BlockData { has_data: true, .. } => format!("BKPBLOCK_HAS_DATA set, but no data included at {decoding}"),
            BlockData { len, .. } => format!("BKPBLOCK_HAS_DATA not set, but data length is {len} at {decoding}"),
            NoPreviousRelation { .. } => format!("BKPBLOCK_SAME_REL set but no previous rel at {decoding}"),
            ImageHole { has_hole: true, offset, length, image } => {
                format!("BKPIMAGE_HAS_HOLE set, but hole offset {offset} length {length} block image length {image} at {decoding}")
            }
            ImageHole { offset, length, .. } => {
                format!("BKPIMAGE_HAS_HOLE not set, but hole offset {offset} length {length} at {decoding}")
            }
            ImageCompressedLength { image } => format!("{compressed} set, but block image length {image} at {decoding}"),
            ImageLength { image, .. } => {
                format!("neither BKPIMAGE_HAS_HOLE nor {compressed} set, but block image length is {image} at {decoding}")
            }
            RecordLayout { .. } => format!("record with invalid length at {decoding}"),
            // Of payloads, which the reader does not look into.
            ref other => format!("{other} at {record}"),
        }
    }
}

fn bad_value(text: &str, option: &str) -> String {
    format!("invalid value \"{text}\" for option {option}")
}

fn other_system(what: &str) -> String {
    format!("WAL file is from different database system: {what}")
}

#[cfg(test)]
mod tests {
    use pgwal::Location;

    use super::*;

    #[test]
    fn read_errors_by_major() {
        let text = |major, why| Wording { major }.cannot_read(SegmentName::default(), 300, 40, why);
        assert_eq!(text(18, None), "could not read from file \"000000000000000000000000\", offset 300: read 0 of 40");
        assert_eq!(text(13, Some("why")), "could not read from file 000000000000000000000000, offset 300: why");
        assert_eq!(text(12, None), "could not read from log file 000000000000000000000000, offset 300: read 0 of 40");
        assert_eq!(text(11, Some("why")), "could not read from log file 000000000000000000000000, offset 300, length 40: why");
        assert_eq!(text(10, None), "could not read from log file 000000000000000000000000, offset 300, length 40: Success");
    }

    #[test]
    fn reader_errors_by_major() {
        let place = Location { segment: SegmentName::default(), offset: 0x2000, lsn: Lsn(0x0100_2000), record: Some(Lsn(0x0100_1FF8)) };
        let text = |major, kind| {
            let fmt = WalFormat { segment_size: 1 << 20, ..WalFormat::new(major) };
            Wording { major }.reader_error(&Error::new(kind, place), fmt, TimelineId(3), Lsn(0x0100_1F00))
        };
        let address = || ErrorKind::PageAddress { expected: place.lsn, found: Lsn(0x2000) };
        assert_eq!(text(15, address()), "unexpected pageaddr 0/2000 in log segment 000000030000000000000010, offset 8192");
        assert_eq!(text(16, address()), "unexpected pageaddr 0/2000 in WAL segment 000000030000000000000010, LSN 0/1002000, offset 8192");
        assert_eq!(
            text(19, address()),
            "unexpected pageaddr 0/00002000 in WAL segment 000000030000000000000010, LSN 0/01002000, offset 8192"
        );
        let length = || ErrorKind::ContinuationLength { expected: 5, found: 7 };
        assert_eq!(text(13, length()), "invalid contrecord length 7 at 0/1001FF8");
        assert_eq!(text(14, length()), "invalid contrecord length 7 (expected 5) at 0/1001FF8");
        assert_eq!(text(14, ErrorKind::BlockId { found: 99 }), "invalid block_id 99 at 0/1001FF8");
        assert_eq!(text(15, ErrorKind::BlockId { found: 99 }), "invalid block_id 99 at 0/1001F00");
        assert_eq!(text(18, ErrorKind::ContinuationAtStart), "contrecord is requested by 0/1002018");
    }
}
