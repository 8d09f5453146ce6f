//! What fills the WAL: by record type, relation, database, transaction, time and segment; its page images and its checkpoints.
//!
//! [`count`] reads the WAL once, with many threads, and gives a [`Usage`] to ask. Totals are always right, whatever the WAL; memory
//! is bounded, so that tables with very many rows keep the large ones and put the rest together:
//! - Transactions that ended are ranked as they end and only the [`Wanted::top`] largest are kept, which is exact. Those that have
//!   not ended must be remembered, and so must rollbacks as long as the WAL may still say that they were subtransactions; at most
//!   200,000 of each are. Then the smaller half of the unfinished ones is given up, and rollbacks are taken for transactions of their own.
//! - Relations are all remembered, up to the same number.
//! - Times are kept in intervals, at most 100,000, which become wider where there would be more.
//!
//! Whoever is given up and comes again starts from zero: [`Others::count`] counts rows then, and a row may be too small.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = std::env::temp_dir().join(format!("pgwal-doc-usage-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir)?;
//! # std::fs::write(dir.join("000000010000000000000010"), pgwal_testkit::example())?;
//! use pgwal::{scan, source::Wal, usage};
//! let wal = Wal::open(&[&dir], None)?;
//! let options = scan::Options { start: None, end: None, threads: 2 };
//! let (usage, summary) = usage::count(&wal, options, usage::Wanted::default());
//! assert_eq!(usage.total().count, 3);
//! for (relation, counts) in usage.relations() {
//!     println!("{relation}: {} records, {} bytes", counts.count, counts.combined_size());
//! }
//! println!("{:?}", summary.stop);
//! # std::fs::remove_dir_all(&dir)?;
//! # Ok(())
//! # }
//! ```

mod checkpoints;
mod curve;
mod images;
mod relations;
#[cfg(test)]
mod tests;
mod transactions;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

pub use checkpoints::{Cause, Checkpoint};
pub use curve::Interval;
pub use images::{Estimate, ImageRow, Reason};
pub use transactions::{Outcome, Transaction};

use crate::error::Error;
use crate::format::WalFormat;
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::record::{Needs, Plain, RawRecord, Record};
use crate::rmgr::{RmgrId, standby, xact, xlog};
use crate::scan::{self, Summary, Work, scan};
use crate::source::Wal;
use crate::stats::{Counts, Stats};
use crate::types::{Oid, RelFileLocator, TimestampTz, Xid};

/// Rows of a table that are kept at most: all tables full take less than 150 MB.
const CAP: usize = 200_000;
/// Payloads that do not parse, of which the errors are kept.
const BAD: usize = 100;

/// Seeded, so that no WAL can be made that fills one place of it; a few instructions for a number.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What is counted besides record types and checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// By relation and database.
    pub relations: bool,
    /// By transaction. Without it, a crash is not told from a shutdown.
    pub transactions: bool,
    /// Transactions that are kept after their end, at most 200,000.
    pub top: usize,
    /// By time: width of an interval in microseconds; `None`: not.
    pub interval: Option<i64>,
    /// By segment.
    pub segments: bool,
    /// Page images by reason and compression, with a sample.
    pub images: bool,
}

impl Default for Wanted {
    /// Relations, and the ten largest transactions.
    fn default() -> Wanted {
        Wanted { relations: true, transactions: true, top: 10, interval: None, segments: false, images: false }
    }
}

/// What was put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// How many rows it would be.
    pub count: u64,
    /// Their sums.
    pub counts: Counts,
}

impl Others {
    /// Adds a row.
    pub fn add(&mut self, counts: Counts) {
        self.count += 1;
        self.counts += counts;
    }

    /// Adds what was put together elsewhere.
    pub fn join(&mut self, other: Others) {
        self.count += other.count;
        self.counts += other.counts;
    }
}

/// Counts the records of `wal`.
pub fn count(wal: &Wal, options: scan::Options, wanted: Wanted) -> (Usage, Summary) {
    let counting = Counting { wanted, spare: Mutex::default(), image_limit: AtomicU64::new(u64::MAX) };
    let mut usage = Usage::new(wanted);
    let summary = scan(wal, options, &counting, |mut part| {
        usage.take(&mut part);
        counting.image_limit.store(usage.images.limit(), Ordering::Relaxed);
        counting.spare.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        ControlFlow::Continue(())
    });
    usage.transactions.settle_all();
    (usage, summary)
}

/// The work on each record.
struct Counting {
    wanted: Wanted,
    /// Parts that have been taken: their memory is used again.
    #[expect(clippy::vec_box, reason = "parts go through the scan in their boxes, and come back in them")]
    spare: Mutex<Vec<Box<Part>>>,
    /// See [`images::Images::limit`].
    image_limit: AtomicU64,
}

impl Work for Counting {
    type Part = Box<Part>;

    fn part(&self) -> Box<Part> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn needs(&self) -> Needs {
        if self.wanted.images { Needs::Everything } else { Needs::MainData }
    }

    const IS_QUICK: bool = true;

    #[inline(always)]
    fn quick_record(&self, raw: &RawRecord<'_>, part: &mut Box<Part>) -> bool {
        let Some(Plain { relation, main, .. }) = Plain::read(&raw.bytes) else { return false };
        let end = match (raw.header.rmid, raw.header.info.0, main.first_chunk()) {
            // Most commits are a time and nothing else.
            (RmgrId::XACT, 0x00, Some(time)) if main.len() == 8 => Some(TimestampTz(i64::from_le_bytes(*time))),
            (RmgrId::XACT | RmgrId::XLOG | RmgrId::STANDBY, ..) => return false,
            _ => None,
        };
        let counts = Counts { count: 1, record_size: raw.header.tot_len.into(), ..Counts::default() };
        part.add(raw, counts, &self.wanted);
        if self.wanted.relations {
            match relation {
                Some(relation) => part.relations.add_to(relation, counts),
                None => part.relations.without_blocks(counts),
            }
        }
        if let Some(time) = end {
            part.end(raw.header.xid, Outcome::Committed, time, raw.lsn, None, &self.wanted);
        }
        true
    }

    fn record(&self, raw: &RawRecord<'_>, part: &mut Box<Part>) -> Result<(), Error> {
        let record = raw.decode()?;
        let counts = Counts::of(&record);
        part.add(raw, counts, &self.wanted);
        if self.wanted.relations {
            part.relations.add(&record, counts);
        }
        if self.wanted.images && counts.fpi_count > 0 {
            part.images.add(&record, self.image_limit.load(Ordering::Relaxed));
        }
        // A payload that does not parse costs that record alone.
        if let Err(error) = part.tell(&record, &self.wanted) {
            part.bad_payloads += 1;
            if part.bad.len() < BAD {
                part.bad.push(error);
            }
        }
        Ok(())
    }
}

/// Where counting began.
#[derive(Clone, Copy, Debug)]
struct First {
    lsn: Lsn,
    fmt: WalFormat,
    timeline: TimelineId,
}

/// What the records of an extent come to.
#[derive(Debug, Default)]
struct Part {
    first: Option<First>,
    stats: Stats,
    relations: relations::Part,
    transactions: transactions::Part,
    without_xid: Counts,
    curve: curve::Part,
    segments: Vec<(SegmentName, Counts)>,
    /// LSNs of the last of them.
    segment: (Lsn, Lsn),
    images: images::Images,
    /// What depends on the order of the WAL.
    events: Vec<Event>,
    ends: Ends,
    bad: Vec<Error>,
    bad_payloads: u64,
}

#[derive(Debug)]
enum Event {
    End(transactions::End),
    /// `xids` are subtransactions of `top`.
    Assign {
        xids: Box<[Xid]>,
        top: Xid,
    },
    Running(transactions::Running),
    Checkpoint {
        lsn: Lsn,
        is_shutdown: bool,
        checkpoint: Box<xlog::Checkpoint>,
        /// Rows of transactions before it.
        rows: usize,
    },
    BackupEnd {
        start: Lsn,
    },
    EndOfRecovery {
        /// Rows of transactions before it.
        rows: usize,
    },
}

/// Ends of transactions, and their times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Commits, also of prepared transactions.
    pub commits: u64,
    /// Rollbacks, also of prepared transactions; subtransactions that were rolled back alone count too.
    pub aborts: u64,
    /// The earliest and the latest time of an end; `None`: no transaction ended.
    pub times: Option<(TimestampTz, TimestampTz)>,
}

impl Ends {
    fn add(&mut self, time: TimestampTz, is_commit: bool) {
        self.commits += u64::from(is_commit);
        self.aborts += u64::from(!is_commit);
        self.times = Some(self.times.map_or((time, time), |(first, last)| (first.min(time), last.max(time))));
    }

    fn join(&mut self, other: Ends) {
        self.commits += other.commits;
        self.aborts += other.aborts;
        self.times = match (self.times, other.times) {
            (Some(mine), Some(theirs)) => Some((mine.0.min(theirs.0), mine.1.max(theirs.1))),
            (mine, theirs) => mine.or(theirs),
        };
    }
}

impl Part {
    /// Counts a record where its header and its place say.
    ///
    /// Always inlined, as a record's counts must stay in registers: when they were passed in memory, adding them up in vectors waited
    /// for the single words to get there, which took an eighth of the time.
    #[inline(always)]
    fn add(&mut self, raw: &RawRecord<'_>, counts: Counts, wanted: &Wanted) {
        if self.first.is_none() {
            self.first = Some(First { lsn: raw.lsn, fmt: raw.fmt, timeline: raw.timeline });
        }
        self.stats.add_counts(raw, counts);
        if wanted.transactions {
            match raw.header.xid {
                Xid(0) => self.without_xid += counts,
                xid => self.transactions.add(xid, raw.lsn, counts),
            }
        }
        if wanted.interval.is_some() {
            self.curve.tail += counts;
        }
        if wanted.segments {
            self.count_segment(raw, counts);
        }
    }

    /// What a record tells of transactions and checkpoints.
    fn tell(&mut self, record: &Record<'_>, wanted: &Wanted) -> Result<(), Error> {
        if let (Some(top), true) = (record.toplevel_xid, wanted.transactions) {
            self.events.push(Event::Assign { xids: [record.header().xid].into(), top });
        }
        match record.rmid() {
            RmgrId::XACT => self.transaction_record(record, wanted),
            RmgrId::XLOG => self.xlog_record(record),
            RmgrId::STANDBY if wanted.transactions => self.standby_record(record),
            _ => Ok(()),
        }
    }

    #[inline(always)]
    fn count_segment(&mut self, raw: &RawRecord<'_>, counts: Counts) {
        let (start, end) = self.segment;
        if raw.lsn < start || raw.lsn >= end {
            let name = SegmentName::of(raw.timeline, raw.lsn, raw.fmt.segment_size);
            let start = name.start(raw.fmt.segment_size);
            self.segment = (start, start + u64::from(raw.fmt.segment_size));
            self.segments.push((name, Counts::default()));
        }
        if let Some((_, row)) = self.segments.last_mut() {
            *row += counts;
        }
    }

    fn transaction_record(&mut self, record: &Record<'_>, wanted: &Wanted) -> Result<(), Error> {
        let lsn = record.raw.lsn;
        let xid = record.header().xid;
        let subxacts = |part: &mut Part, xids: &mut dyn Iterator<Item = Xid>| {
            let xids = xids.take(if wanted.transactions { usize::MAX } else { 0 });
            let rows = xids.map(|xid| (xid, part.transactions.seal(xid))).collect::<Box<[_]>>();
            Some(rows).filter(|rows| !rows.is_empty())
        };
        match xact::parse(record, record.fmt())? {
            Some(xact::Op::Commit(end) | xact::Op::CommitPrepared(end)) => {
                let subxacts = end.subxacts.and_then(|xids| subxacts(self, &mut xids.iter()));
                self.end(end.twophase_xid.unwrap_or(xid), Outcome::Committed, end.time, lsn, subxacts, wanted);
            }
            Some(xact::Op::Abort(end) | xact::Op::AbortPrepared(end)) => {
                let subxacts = end.subxacts.and_then(|xids| subxacts(self, &mut xids.iter()));
                self.end(end.twophase_xid.unwrap_or(xid), Outcome::Aborted, end.time, lsn, subxacts, wanted);
            }
            Some(xact::Op::Prepare(prepare)) if wanted.transactions => {
                let subxacts = subxacts(self, &mut prepare.subxacts.values.iter());
                let (xid, time) = (prepare.head.xid, prepare.head.prepared_at);
                let row = self.transactions.seal(xid);
                self.events.push(Event::End(transactions::End { xid, row, outcome: Outcome::Prepared, time, lsn, subxacts }));
            }
            Some(xact::Op::Assignment(assignment)) if wanted.transactions => {
                let top = assignment.top_xid;
                self.events.push(Event::Assign { xids: assignment.subxacts.iter().collect(), top });
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, xid: Xid, outcome: Outcome, time: TimestampTz, lsn: Lsn, subxacts: Option<Box<[(Xid, u32)]>>, wanted: &Wanted) {
        let is_commit = outcome == Outcome::Committed;
        self.ends.add(time, is_commit);
        if let Some(width) = wanted.interval {
            self.curve.end(time, width, is_commit);
        }
        if wanted.transactions && xid.is_valid() {
            let row = self.transactions.seal(xid);
            self.events.push(Event::End(transactions::End { xid, row, outcome, time, lsn, subxacts }));
        }
    }

    fn standby_record(&mut self, record: &Record<'_>) -> Result<(), Error> {
        if let Some(standby::Op::RunningXacts(running)) = standby::parse(record, record.fmt())? {
            self.events.push(Event::Running(transactions::Running {
                xids: running.xids.iter().collect(),
                subxids: running.subxids.iter().collect(),
                overflow: running.head.subxid_overflow.get(),
                next: running.head.next_xid,
                rows: self.transactions.row_count(),
            }));
        }
        Ok(())
    }

    fn xlog_record(&mut self, record: &Record<'_>) -> Result<(), Error> {
        // Page images are many, and have nothing to tell here.
        if !matches!(record.info().opcode(), 0x00 | 0x10 | 0x50 | 0x90) {
            return Ok(());
        }
        let lsn = record.raw.lsn;
        let event = match xlog::parse(record, record.fmt())? {
            Some(xlog::Op::CheckpointShutdown(checkpoint)) => {
                let rows = self.transactions.seal_all();
                Event::Checkpoint { lsn, is_shutdown: true, checkpoint: Box::new(checkpoint), rows }
            }
            Some(xlog::Op::CheckpointOnline(checkpoint)) => {
                Event::Checkpoint { lsn, is_shutdown: false, checkpoint: Box::new(checkpoint), rows: 0 }
            }
            Some(xlog::Op::BackupEnd { start }) => Event::BackupEnd { start },
            Some(xlog::Op::EndOfRecovery(_)) => Event::EndOfRecovery { rows: self.transactions.seal_all() },
            _ => return Ok(()),
        };
        self.events.push(event);
        Ok(())
    }

    fn clear(&mut self) {
        self.first = None;
        self.stats.clear();
        self.relations.clear();
        self.transactions.clear();
        self.without_xid = Counts::default();
        self.curve.clear();
        self.segments.clear();
        self.segment = Default::default();
        self.ends = Ends::default();
        self.bad_payloads = 0;
    }
}

/// What fills the WAL.
#[derive(Debug)]
pub struct Usage {
    first: Option<First>,
    stats: Stats,
    relations: relations::Relations,
    transactions: transactions::Transactions,
    curve: curve::Curve,
    segments: Vec<(SegmentName, Counts)>,
    more_segments: Others,
    images: images::Images,
    checkpoints: checkpoints::Checkpoints,
    ends: Ends,
    bad: Vec<Error>,
    bad_payloads: u64,
}

impl Usage {
    fn new(wanted: Wanted) -> Usage {
        Usage {
            first: None,
            stats: Stats::default(),
            relations: relations::Relations::default(),
            transactions: transactions::Transactions::new(wanted.top),
            curve: curve::Curve::new(wanted.interval.unwrap_or(1)),
            segments: Vec::new(),
            more_segments: Others::default(),
            images: images::Images::default(),
            checkpoints: checkpoints::Checkpoints::default(),
            ends: Ends::default(),
            bad: Vec::new(),
            bad_payloads: 0,
        }
    }

    /// Adds the part that comes next in the WAL, and empties it.
    fn take(&mut self, part: &mut Part) {
        self.first = self.first.or(part.first);
        self.stats.merge(&part.stats);
        self.relations.merge(&part.relations);
        for event in part.events.drain(..) {
            match event {
                Event::End(end) => self.transactions.end(&end, &mut part.transactions),
                Event::Assign { xids, top } => xids.iter().for_each(|&xid| self.transactions.assign(xid, top)),
                Event::Running(running) => self.transactions.running(&running, &part.transactions),
                Event::Checkpoint { lsn, is_shutdown, checkpoint, rows } => {
                    let lost = if is_shutdown {
                        self.transactions.merge(&mut part.transactions, rows);
                        self.transactions.cut_off()
                    } else {
                        0
                    };
                    self.checkpoints.add(lsn, is_shutdown, &checkpoint, lost);
                }
                Event::BackupEnd { start } => self.checkpoints.backup_ended(start),
                Event::EndOfRecovery { rows } => {
                    self.transactions.merge(&mut part.transactions, rows);
                    self.transactions.cut_off();
                    self.checkpoints.promoted();
                }
            }
        }
        self.transactions.merge(&mut part.transactions, usize::MAX);
        self.transactions.none += part.without_xid;
        self.curve.merge(&part.curve);
        for &(name, counts) in &part.segments {
            let has_room = self.segments.len() < CAP;
            match self.segments.last_mut() {
                Some((last, row)) if *last == name => *row += counts,
                _ if has_room => self.segments.push((name, counts)),
                _ => self.more_segments.add(counts),
            }
        }
        self.images.merge(&mut part.images);
        self.ends.join(part.ends);
        self.bad_payloads += part.bad_payloads;
        let room = BAD.saturating_sub(self.bad.len());
        self.bad.extend(part.bad.drain(..).take(room));
        part.clear();
    }

    /// Start of the first record counted; `None` where there was none.
    pub fn start(&self) -> Option<Lsn> {
        self.first.map(|first| first.lsn)
    }

    /// End of the last record counted; `None` where there was none.
    pub fn end(&self) -> Option<Lsn> {
        Some(self.stats.end()).filter(|end| end.is_valid())
    }

    /// Format of the WAL, from its first segment.
    pub fn format(&self) -> Option<WalFormat> {
        self.first.map(|first| first.fmt)
    }

    /// Timeline of the first record.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.first.map(|first| first.timeline)
    }

    /// Everything counted.
    pub fn total(&self) -> Counts {
        self.stats.total()
    }

    /// By resource manager and record type.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Ends of transactions.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// By relation, largest first. A record counts for the relation of its first block reference, its images for those that they are
    /// of.
    pub fn relations(&self) -> Vec<(RelFileLocator, Counts)> {
        let mut rows: Vec<_> = self.relations.rows().collect();
        rows.sort_unstable_by_key(|&(rel, counts)| (std::cmp::Reverse(counts.combined_size()), rel));
        rows
    }

    /// Relations that there was no room for.
    pub fn other_relations(&self) -> Others {
        self.relations.others
    }

    /// Records without a block reference: commits, checkpoints, locks, files created and dropped.
    pub fn without_relation(&self) -> Counts {
        self.relations.none
    }

    /// By database, largest first; 0 is the relations that all databases share. As for [`Usage::relations`], records without a
    /// block reference are in none.
    pub fn databases(&self) -> Vec<(Oid, Counts)> {
        let mut rows: Vec<_> = self.relations.databases().into_iter().collect();
        rows.sort_unstable_by_key(|&(db, counts)| (std::cmp::Reverse(counts.combined_size()), db));
        rows
    }

    /// By transaction, largest first: the [`Wanted::top`] largest of those that ended, and those that have not.
    pub fn transactions(&self) -> Vec<Transaction> {
        let mut rows: Vec<_> = self.transactions.rows().collect();
        rows.sort_unstable_by_key(|row| (std::cmp::Reverse(row.counts.combined_size()), row.first, row.xid));
        rows
    }

    /// All transactions together.
    pub fn all_transactions(&self) -> Others {
        self.transactions.all()
    }

    /// Records without a transaction id.
    pub fn without_transaction(&self) -> Counts {
        self.transactions.none
    }

    /// Microseconds of an interval as they were counted: [`Wanted::interval`], or more where there were too many intervals.
    pub fn interval(&self) -> i64 {
        self.curve.width()
    }

    /// By time: intervals in which transactions ended, by their starts, `times` as wide as [`Usage::interval`]. What was written
    /// between two ends of transactions belongs to the second's time.
    pub fn intervals(&self, times: i64) -> BTreeMap<TimestampTz, Interval> {
        self.curve.rows(times)
    }

    /// What was written after the last end of a transaction.
    pub fn after_last_end(&self) -> Counts {
        self.curve.tail
    }

    /// By segment, in the order of the WAL. A record belongs to the segment that it starts in.
    pub fn segments(&self) -> &[(SegmentName, Counts)] {
        &self.segments
    }

    /// Segments that there was no room for.
    pub fn other_segments(&self) -> Others {
        self.more_segments
    }

    /// Page images by reason and compression.
    pub fn images(&self) -> Vec<ImageRow> {
        self.images.rows()
    }

    /// What compression would save; empty where no image is uncompressed. Compresses a sample of at most 1000 images.
    pub fn compression_estimates(&self) -> Vec<Estimate> {
        self.images.estimates()
    }

    /// Checkpoints, in the order of the WAL; the first 200,000.
    pub fn checkpoints(&self) -> &[Checkpoint] {
        self.checkpoints.rows()
    }

    /// How many checkpoints there are.
    pub fn checkpoint_count(&self) -> u64 {
        self.checkpoints.count
    }

    /// Payloads that did not parse, of those that had to be looked at: how many, and the first hundred.
    pub fn bad_payloads(&self) -> (u64, &[Error]) {
        (self.bad_payloads, &self.bad)
    }
}

/// The size that half of `sizes` do not exceed.
fn smaller_half(mut sizes: Vec<u64>) -> u64 {
    let middle = sizes.len() / 2;
    if middle == 0 { 0 } else { *sizes.select_nth_unstable(middle).1 }
}
