//! By time: what was written between two ends of transactions belongs to the time of the second.

use std::collections::BTreeMap;

use crate::stats::Counts;
use crate::types::TimestampTz;

/// Intervals that are kept.
const CAP: usize = 100_000;

/// What was written in an interval of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Transactions that committed.
    pub commits: u64,
    /// Transactions that were rolled back; subtransactions that were rolled back alone count too.
    pub aborts: u64,
    /// What was written.
    pub counts: Counts,
}

impl Interval {
    fn join(&mut self, other: Interval) {
        self.commits += other.commits;
        self.aborts += other.aborts;
        self.counts += other.counts;
    }
}

/// Intervals of a part.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// In the order of the WAL; times need not be.
    runs: Vec<(i64, Interval)>,
    /// Since the last end of a transaction.
    pub(super) tail: Counts,
}

impl Part {
    /// A transaction ends; its last record is counted already.
    pub(super) fn end(&mut self, time: TimestampTz, width: i64, is_commit: bool) {
        let number = time.0.div_euclid(width.max(1));
        let counts = std::mem::take(&mut self.tail);
        let one = Interval { commits: is_commit.into(), aborts: (!is_commit).into(), counts };
        match self.runs.last_mut() {
            Some((last, run)) if *last == number => run.join(one),
            _ => self.runs.push((number, one)),
        }
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.tail = Counts::default();
    }
}

/// Intervals of all parts.
#[derive(Debug)]
pub(super) struct Curve {
    /// By number, counted from 2000-01-01 in units of `width * factor`.
    intervals: BTreeMap<i64, Interval>,
    /// Microseconds of an interval in the parts.
    width: i64,
    /// So many of them are one here: grows where there would be too many.
    factor: i64,
    /// Since the last end of a transaction.
    pub(super) tail: Counts,
}

impl Curve {
    pub(super) fn new(width: i64) -> Curve {
        Curve { intervals: BTreeMap::new(), width: width.max(1), factor: 1, tail: Counts::default() }
    }

    pub(super) fn merge(&mut self, part: &Part) {
        for &(number, run) in &part.runs {
            let interval = self.intervals.entry(number.div_euclid(self.factor)).or_default();
            interval.join(run);
            interval.counts += std::mem::take(&mut self.tail);
        }
        self.tail += part.tail;
        // 64 bits of microseconds have an end, so this has one.
        while self.intervals.len() > CAP {
            const WIDER: i64 = 60;
            self.factor = self.factor.saturating_mul(WIDER);
            for (number, interval) in std::mem::take(&mut self.intervals) {
                self.intervals.entry(number.div_euclid(WIDER)).or_default().join(interval);
            }
        }
    }

    /// Microseconds of an interval.
    pub(super) fn width(&self) -> i64 {
        self.width.saturating_mul(self.factor)
    }

    /// The intervals in which transactions ended, by their starts, `times` as wide as they were counted.
    pub(super) fn rows(&self, times: i64) -> BTreeMap<TimestampTz, Interval> {
        let times = times.max(1);
        let mut rows: BTreeMap<TimestampTz, Interval> = BTreeMap::new();
        for (&number, &interval) in &self.intervals {
            let start = number.div_euclid(times).saturating_mul(times).saturating_mul(self.width());
            rows.entry(TimestampTz(start)).or_default().join(interval);
        }
        rows
    }
}
