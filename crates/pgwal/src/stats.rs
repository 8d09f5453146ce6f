//! Counts and sizes of records, as pg_waldump's `--stats` shows them. C: access/xlogstats.h, `XLogDumpDisplayStats`.

use std::fmt::Write as _;
use std::ops::AddAssign;

use serde::Serialize;

use crate::format::WalFormat;
use crate::lsn::Lsn;
use crate::record::{Info, Plain, RawRecord, Record};
use crate::rmgr::{self, RMGRS, RmgrId};
use crate::text::Text;

/// Record types that a resource manager can tell apart. C: `MAX_XLINFO_TYPES`.
const TYPES: usize = 16;

/// How many records, and their sizes in bytes. C: `XLogRecStats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Records.
    pub count: u64,
    /// Bytes of the records without page images. C: `rec_len`.
    pub record_size: u64,
    /// Page images.
    pub fpi_count: u64,
    /// Bytes of page images as they are on disk. C: `fpi_len`.
    pub fpi_size: u64,
}

impl Counts {
    /// One record.
    #[inline]
    pub fn of(record: &Record<'_>) -> Counts {
        let (mut fpi_count, mut fpi_size) = (0, 0);
        for image in record.blocks.iter().filter_map(|block| block.image.as_ref()) {
            fpi_count += 1;
            fpi_size += u64::from(image.len);
        }
        Counts { count: 1, record_size: u64::from(record.header().tot_len).saturating_sub(fpi_size), fpi_count, fpi_size }
    }

    /// One record, if that takes no decoding; `None`: it has page images or is otherwise unusual, or it is damaged.
    #[inline(always)]
    pub fn at_a_glance(raw: &RawRecord<'_>) -> Option<Counts> {
        Plain::read(&raw.bytes)?;
        Some(Counts { count: 1, record_size: raw.header.tot_len.into(), ..Counts::default() })
    }

    /// Bytes of records and page images.
    pub fn combined_size(&self) -> u64 {
        self.record_size + self.fpi_size
    }
}

impl AddAssign for Counts {
    /// No WAL is long enough for an overflow: 64 bits count more bytes than LSNs do.
    #[inline(always)]
    fn add_assign(&mut self, other: Counts) {
        self.count = self.count.wrapping_add(other.count);
        self.record_size = self.record_size.wrapping_add(other.record_size);
        // Most have none.
        if other.fpi_count | other.fpi_size == 0 {
            return;
        }
        self.fpi_count = self.fpi_count.wrapping_add(other.fpi_count);
        self.fpi_size = self.fpi_size.wrapping_add(other.fpi_size);
    }
}

/// Statistics of records by resource manager and record type. C: `XLogStats`.
///
/// Parts of the WAL can be counted one by one and joined with [`Stats::merge`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// [`TYPES`] of them for each resource manager, up to the highest id that was seen.
    types: Vec<Counts>,
    end: Lsn,
}

impl Stats {
    /// Counts a record.
    #[inline]
    pub fn add(&mut self, record: &Record<'_>) {
        self.add_counts(record.raw, Counts::of(record));
    }

    /// Counts a record whose `counts` are known already.
    #[inline(always)]
    pub fn add_counts(&mut self, raw: &RawRecord<'_>, counts: Counts) {
        let header = &raw.header;
        let mut opcode = usize::from(header.info.opcode() >> 4);
        if header.rmid == RmgrId::XACT {
            opcode &= 0x07; // the upper bit is a flag, not part of the opcode
        }
        let at = usize::from(header.rmid.0) * TYPES + opcode;
        if self.types.len() <= at {
            self.types.resize((usize::from(header.rmid.0) + 1) * TYPES, Counts::default());
        }
        if let Some(place) = self.types.get_mut(at) {
            *place += counts;
        }
        self.end = raw.end;
    }

    /// Adds what was counted in WAL that comes after this.
    pub fn merge(&mut self, later: &Stats) {
        if self.types.len() < later.types.len() {
            self.types.resize(later.types.len(), Counts::default());
        }
        for (mine, theirs) in self.types.iter_mut().zip(&later.types) {
            *mine += *theirs;
        }
        if later.end.is_valid() {
            self.end = later.end;
        }
    }

    /// Forgets what was counted and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.types.fill(Counts::default());
        self.end = Lsn::INVALID;
    }

    /// End of the last record that was counted; invalid where none was.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Everything counted.
    pub fn total(&self) -> Counts {
        sum(&self.types)
    }

    /// The statistics with names: a row for each resource manager, or `per_record` for each record type that occurred.
    ///
    /// `start` is where reading began. Custom resource managers have a row only where they occurred.
    pub fn report(&self, per_record: bool, fmt: WalFormat, start: Lsn) -> Report {
        let mut rows = Vec::new();
        let managers = RMGRS.len().max(self.types.len() / TYPES);
        for rmid in (0..managers).filter_map(|id| u8::try_from(id).ok()).map(RmgrId) {
            let first = usize::from(rmid.0) * TYPES;
            let types = self.types.get(first..first + TYPES).unwrap_or_default();
            if !per_record {
                let counts = sum(types);
                if rmid.builtin().is_some() || counts.count > 0 {
                    rows.push(Row { rmgr: rmid, opcode: None, counts });
                }
                continue;
            }
            for (opcode, counts) in (0u8..).zip(types).filter(|(_, counts)| counts.count > 0) {
                let info = opcode << 4; // opcode < TYPES
                let name = match rmgr::identify(rmid, Info(info), fmt) {
                    Some(name) => name.to_owned(),
                    None => format!("UNKNOWN ({info:x})"),
                };
                rows.push(Row { rmgr: rmid, opcode: Some(name), counts: *counts });
            }
        }
        Report { start, end: self.end, total: self.total(), rows }
    }

    /// Appends what pg_waldump of the WAL's own major prints for `--stats`, or `per_record` for `--stats=record`.
    pub fn write_text(&self, per_record: bool, fmt: WalFormat, start: Lsn, out: &mut Text) {
        self.report(per_record, fmt, start).write_text(fmt, out);
    }
}

fn sum(counts: &[Counts]) -> Counts {
    let mut total = Counts::default();
    counts.iter().for_each(|counts| total += *counts);
    total
}

/// Statistics with names, for text and JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where reading began.
    pub start: Lsn,
    /// End of the last record counted; invalid where none was.
    pub end: Lsn,
    /// Sum of the rows.
    pub total: Counts,
    /// By id of the resource manager, then by opcode.
    pub rows: Vec<Row>,
}

/// A line of the statistics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Resource manager.
    pub rmgr: RmgrId,
    /// Name of the record type, `UNKNOWN (f0)` for one that the major does not define; `None` where types are not told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opcode: Option<String>,
    /// The counts.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Report {
    /// Appends the table of pg_waldump. Like it, from 15 on, nothing where no record was counted.
    pub fn write_text(&self, fmt: WalFormat, out: &mut Text) {
        if fmt.since(15) {
            if !self.end.is_valid() {
                return;
            }
            put!(out, "WAL statistics between ", self.start, " and ", self.end, ":\n");
        }
        // Writing into memory does not fail. The numbers are few, so core::fmt is fast enough; it rounds like C.
        for [t, n, r, f, c, pct] in [
            ["Type", "N", "Record size", "FPI size", "Combined size", "(%)"],
            ["----", "-", "-----------", "--------", "-------------", "---"],
        ] {
            let _ = writeln!(out, "{t:<27} {n:>20} {pct:>8} {r:>20} {pct:>8} {f:>20} {pct:>8} {c:>20} {pct:>8}");
        }
        let total = &self.total;
        for Row { rmgr, opcode, counts } in &self.rows {
            let mut name = rmgr.name().into_owned();
            if let Some(opcode) = opcode {
                name = format!("{name}/{opcode}");
            }
            let _ = write!(out, "{name:<27}");
            for (part, whole) in [
                (counts.count, total.count),
                (counts.record_size, total.record_size),
                (counts.fpi_size, total.fpi_size),
                (counts.combined_size(), total.combined_size()),
            ] {
                let _ = write!(out, " {part:>20} ({:6.2})", percent(part, whole));
            }
            put!(out, "\n");
        }
        let (none, line) = ("", "--------");
        let _ = writeln!(out, "{none:<27} {line:>20} {none:>8} {line:>20} {none:>8} {line:>20} {none:>8} {line:>20}");
        let combined = total.combined_size();
        let bracket = |part| format!("[{:.2}%]", percent(part, combined));
        let (record_size, fpi_size) = (total.record_size, total.fpi_size);
        let _ = writeln!(
            out,
            "{:<27} {:>20} {none:<9}{record_size:>20} {:<9}{fpi_size:>20} {:<9}{combined:>20} {:<6}",
            "Total",
            total.count,
            bracket(record_size),
            bracket(fpi_size),
            "[100%]"
        );
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Zone;

    fn stats(counts: &[(u8, u8, u64, u64, u64)], end: u64) -> Stats {
        let mut stats = Stats { end: Lsn(end), ..Stats::default() };
        for &(rmid, opcode, count, record_size, fpi_size) in counts {
            let at = usize::from(rmid) * TYPES + usize::from(opcode);
            stats.types.resize(stats.types.len().max((usize::from(rmid) + 1) * TYPES), Counts::default());
            stats.types[at] += Counts { count, record_size, fpi_count: 0, fpi_size };
        }
        stats
    }

    fn text(stats: &Stats, per_record: bool, major: u8) -> String {
        let fmt = WalFormat::new(major);
        let mut out = Text::new(fmt, Zone::utc());
        stats.write_text(per_record, fmt, Lsn(0x100_0028), &mut out);
        out.to_string_lossy()
    }

    #[test]
    fn merged_parts_equal_the_whole() {
        let mut first = stats(&[(10, 0, 2, 100, 0), (0, 1, 1, 114, 0)], 0x500);
        first.merge(&stats(&[], 0));
        assert_eq!(first.end(), Lsn(0x500));
        first.merge(&stats(&[(200, 3, 1, 50, 8000), (10, 0, 1, 54, 10)], 0x700));
        assert_eq!(first, stats(&[(10, 0, 3, 154, 10), (0, 1, 1, 114, 0), (200, 3, 1, 50, 8000)], 0x700));
        assert_eq!(first.total(), Counts { count: 5, record_size: 318, fpi_count: 0, fpi_size: 8010 });
    }

    #[test]
    fn rows_by_resource_manager() {
        let some = stats(&[(3, 0, 2, 60, 0), (200, 3, 1, 40, 300)], 0x100_0ABC);
        let text18 = text(&some, false, 18);
        let lines: Vec<&str> = text18.lines().collect();
        assert_eq!(lines[0], "WAL statistics between 0/1000028 and 0/1000ABC:");
        assert_eq!(lines.len(), 1 + 2 + 22 + 1 + 2);
        let clog = "CLOG                                           2 ( 66.67)                   60 ( 60.00)                    0 (  0.00)                   60 ( 15.00)";
        assert_eq!(lines[6], clog);
        assert!(lines[25].starts_with("custom200                                      1 ( 33.33)"));
        let total = "Total                                          3                           100 [25.00%]                  300 [75.00%]                  400 [100%]";
        assert_eq!(lines[27], total);
        assert!(text(&some, false, 19).starts_with("WAL statistics between 0/01000028 and 0/01000ABC:\n"));
        assert!(text(&some, false, 14).starts_with("Type "));
    }

    #[test]
    fn rows_by_record_type() {
        let some = stats(&[(3, 1, 2, 60, 0), (3, 15, 1, 30, 0), (200, 3, 1, 40, 300)], 0x100_0ABC);
        let text = text(&some, true, 15);
        let names: Vec<&str> = text.lines().skip(3).map(|line| line[..27].trim_end()).collect();
        assert_eq!(names, ["CLOG/TRUNCATE", "CLOG/UNKNOWN (f0)", "custom200/UNKNOWN (30)", "", "Total"]);
    }

    #[test]
    fn nothing_counted() {
        assert_eq!(text(&Stats::default(), false, 15), "");
        assert_eq!(text(&Stats::default(), false, 14).lines().count(), 2 + 22 + 2);
        assert!(text(&Stats::default(), true, 13).ends_with("0 [0.00%]                     0 [0.00%]                     0 [100%]\n"));
    }
}
