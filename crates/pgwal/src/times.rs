//! Finding a range of times in the WAL.
//!
//! Only ends of transactions have times. So a record belongs to the time of the first commit or abort at or behind it, and a range
//! of times is a range of the WAL, just as for recovery: it begins behind the last end of a transaction that comes before the first
//! one at or after its start, and it ends before the first one after its end (C: `recovery_target_time`). Times are not quite
//! in the order of the WAL, by microseconds or as far as clocks jump; the first ones in its order count.

use std::ops::ControlFlow;

use crate::error::Error;
use crate::lsn::Lsn;
use crate::record::{Needs, RawRecord};
use crate::rmgr::{RmgrId, xact};
use crate::scan::{Options, Summary, Work, scan};
use crate::source::Wal;
use crate::types::TimestampTz;

/// A range of the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The records from `start` up to `end`; `None`: from the first one, to the last one.
    Range {
        /// Where the first record starts, or can start.
        start: Option<Lsn>,
        /// Where the last one ends.
        end: Option<Lsn>,
    },
    /// No transaction ended in that time.
    Nothing {
        /// The last end of a transaction that was looked at; `None`: there was none.
        last: Option<TimestampTz>,
    },
}

/// Finds the records from `since` on and up to `until`, within `options`. Reads the WAL as far as it must; what stopped it is in the
/// summary.
pub fn find(wal: &Wal, options: Options, since: Option<TimestampTz>, until: Option<TimestampTz>) -> (Found, Summary) {
    let mut search = Search { since, until, start: None, end: None, last: None, before: None, done: false };
    let summary = scan(wal, options, &Ends, |ends| search.look(&ends));
    let Search { start, end, last, .. } = search;
    let found = match (since, start) {
        (Some(_), None) => Found::Nothing { last },
        // Not even the first end is early enough.
        _ if search.done && end.is_none() && until.is_some() => Found::Nothing { last },
        (_, start) => Found::Range { start: start.flatten().or(options.start), end: end.or(options.end) },
    };
    (found, summary)
}

struct Search {
    since: Option<TimestampTz>,
    until: Option<TimestampTz>,
    /// `Some(None)`: from the first record on.
    start: Option<Option<Lsn>>,
    end: Option<Lsn>,
    last: Option<TimestampTz>,
    /// End of the last transaction's end before.
    before: Option<Lsn>,
    done: bool,
}

impl Search {
    fn look(&mut self, ends: &[(TimestampTz, Lsn)]) -> ControlFlow<()> {
        for &(time, lsn) in ends {
            self.last = Some(time);
            if self.start.is_none() && self.since.is_none_or(|since| time >= since) {
                self.start = Some(self.before.filter(|_| self.since.is_some()));
                self.done = self.until.is_none();
            }
            if self.start.is_some() && self.until.is_some_and(|until| time > until) {
                // A range that begins here is empty.
                self.end = self.before.filter(|_| self.start != Some(self.before));
                self.done = true;
            }
            if self.done {
                return ControlFlow::Break(());
            }
            self.before = Some(lsn);
        }
        ControlFlow::Continue(())
    }
}

/// Collects the times of transactions' ends, and where those records end.
struct Ends;

impl Work for Ends {
    type Part = Vec<(TimestampTz, Lsn)>;

    fn part(&self) -> Self::Part {
        Vec::new()
    }

    fn needs(&self) -> Needs {
        Needs::MainData
    }

    #[inline]
    fn record(&self, raw: &RawRecord<'_>, part: &mut Self::Part) -> Result<(), Error> {
        if raw.header.rmid != RmgrId::XACT {
            return Ok(());
        }
        let record = raw.decode()?;
        // A payload that does not parse has no time; whoever reads the WAL for its records will report it.
        if let Ok(Some(op)) = xact::parse(&record, raw.fmt)
            && let Some(time) = ended(&op)
        {
            part.push((time, raw.end));
        }
        Ok(())
    }
}

/// When the transaction ended, where the record says that one did. C: `getRecordTimestamp`, `recoveryStopsBefore`.
#[inline]
pub(crate) fn ended(op: &xact::Op<'_>) -> Option<TimestampTz> {
    use xact::Op::*;
    match op {
        Commit(end) | Abort(end) | CommitPrepared(end) | AbortPrepared(end) => Some(end.time),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(since: Option<i64>, until: Option<i64>, parts: &[&[(i64, u64)]]) -> (Option<Option<u64>>, Option<u64>, bool) {
        let time = |time: Option<i64>| time.map(TimestampTz);
        let mut search = Search { since: time(since), until: time(until), start: None, end: None, last: None, before: None, done: false };
        for part in parts {
            let ends: Vec<_> = part.iter().map(|&(time, lsn)| (TimestampTz(time), Lsn(lsn))).collect();
            if search.look(&ends).is_break() {
                break;
            }
        }
        (search.start.map(|start| start.map(|lsn| lsn.0)), search.end.map(|lsn| lsn.0), search.done)
    }

    /// Ends at times 10, 20, 20, 30, whose records end at 100, 200, 300, 400.
    #[test]
    fn ranges_of_times_are_ranges_of_the_wal() {
        let parts: &[&[(i64, u64)]] = &[&[(10, 100), (20, 200)], &[], &[(20, 300), (30, 400)]];
        for (since, until, expected) in [
            (None, Some(20), (Some(None), Some(300), true)),
            (None, Some(30), (Some(None), None, false)),
            (None, Some(5), (Some(None), None, true)), // nothing
            (Some(5), None, (Some(None), None, true)),
            (Some(10), None, (Some(None), None, true)),
            (Some(11), None, (Some(Some(100)), None, true)),
            (Some(20), Some(20), (Some(Some(100)), Some(300), true)),
            (Some(21), Some(25), (Some(Some(300)), None, true)), // nothing
            (Some(30), Some(40), (Some(Some(300)), None, false)),
            (Some(31), None, (None, None, false)), // nothing
        ] {
            assert_eq!(search(since, until, parts), expected, "{since:?} to {until:?}");
        }
    }
}
