//! By transaction: subtransactions are counted with their top-level transaction where the WAL tells it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;

use super::{CAP, Map, Others, smaller_half};
use crate::lsn::Lsn;
use crate::stats::Counts;
use crate::types::{TimestampTz, Xid};

/// Transactions that are found without the map, at the place that their id gives: ids that are in use lie close together.
const CACHE: usize = 1024;
/// An empty place, and a row that is not there.
pub(super) const NONE: u32 = u32::MAX;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Committed, perhaps after it was prepared.
    Committed,
    /// Rolled back. A subtransaction that was rolled back alone is a row of its own, unless the WAL tells where it belongs.
    Aborted,
    /// Prepared for two-phase commit, and not ended in this WAL.
    Prepared,
    /// Cut off: a crash, or the end of a timeline, came before its end.
    Lost,
    /// It does not end in this WAL.
    Open,
}

impl Outcome {
    /// Its name, as JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Committed => "committed",
            Outcome::Aborted => "aborted",
            Outcome::Prepared => "prepared",
            Outcome::Lost => "lost",
            Outcome::Open => "open",
        }
    }
}

/// A transaction and what it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its id.
    pub xid: Xid,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended, or was prepared; `None` where neither is known.
    pub time: Option<TimestampTz>,
    /// Start of its first record in this WAL.
    pub first: Lsn,
    /// Start of the record that ended it; `None` where there is none.
    pub end: Option<Lsn>,
    /// Subtransactions that are counted with it.
    pub subtransactions: u64,
    /// What it wrote, its end included.
    pub counts: Counts,
}

impl Transaction {
    fn size(&self) -> u64 {
        self.counts.combined_size()
    }
}

/// A row of a part: an id, until it ends.
#[derive(Clone, Copy, Debug)]
struct Row {
    xid: Xid,
    first: Lsn,
    counts: Counts,
    /// Taken by the event that ended it.
    sealed: bool,
}

/// Transactions of a part.
#[derive(Debug)]
pub(super) struct Part {
    cache: Vec<(Xid, u32)>,
    /// Places in `rows` of those that lost their place in the cache.
    places: Map<Xid, u32>,
    rows: Vec<Row>,
}

impl Default for Part {
    fn default() -> Part {
        Part { cache: vec![(Xid(0), NONE); CACHE], places: Map::default(), rows: Vec::new() }
    }
}

impl Part {
    #[inline(always)]
    pub(super) fn add(&mut self, xid: Xid, lsn: Lsn, counts: Counts) {
        let at = match self.cache.get(xid.0 as usize % CACHE) {
            Some(&(known, at)) if known == xid && at != NONE => at,
            _ => self.find(xid, lsn),
        };
        if let Some(row) = self.rows.get_mut(at as usize) {
            row.counts += counts;
        }
    }

    /// Puts the transaction into the cache, and whatever stood there into the map.
    #[inline(never)]
    fn find(&mut self, xid: Xid, lsn: Lsn) -> u32 {
        let known = if self.places.is_empty() { None } else { self.places.remove(&xid) };
        let at = known.unwrap_or_else(|| {
            self.rows.push(Row { xid, first: lsn, counts: Counts::default(), sealed: false });
            (self.rows.len() - 1) as u32 // a part has far fewer records than 2^32
        });
        if let Some(place) = self.cache.get_mut(xid.0 as usize % CACHE) {
            if place.1 != NONE {
                self.places.insert(place.0, place.1);
            }
            *place = (xid, at);
        }
        at
    }

    /// Takes the row of a transaction that ends: [`NONE`] where it has none. What has its id later is another row.
    pub(super) fn seal(&mut self, xid: Xid) -> u32 {
        let at = match self.cache.get_mut(xid.0 as usize % CACHE) {
            Some(place) if place.0 == xid && place.1 != NONE => std::mem::replace(&mut place.1, NONE),
            _ => self.places.remove(&xid).unwrap_or(NONE),
        };
        if let Some(row) = self.rows.get_mut(at as usize) {
            row.sealed = true;
        }
        at
    }

    /// Takes the rows of all that have not ended: how many rows there are up to here.
    pub(super) fn seal_all(&mut self) -> usize {
        self.cache.fill((Xid(0), NONE));
        self.places.clear();
        self.rows.len()
    }

    pub(super) fn clear(&mut self) {
        self.cache.fill((Xid(0), NONE));
        self.places.clear();
        self.rows.clear();
    }
}

/// The end of a transaction, or its preparation, in the order of the WAL.
#[derive(Debug)]
pub(super) struct End {
    pub(super) xid: Xid,
    /// Its row in the part.
    pub(super) row: u32,
    pub(super) outcome: Outcome,
    pub(super) time: TimestampTz,
    pub(super) lsn: Lsn,
    /// Its subtransactions and their rows.
    pub(super) subxacts: Option<Box<[(Xid, u32)]>>,
}

/// A transaction that has not ended yet.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    first: Lsn,
    counts: Counts,
    subtransactions: u64,
    prepared: Option<TimestampTz>,
}

impl Default for Unfinished {
    fn default() -> Unfinished {
        Unfinished { first: Lsn(u64::MAX), counts: Counts::default(), subtransactions: 0, prepared: None }
    }
}

impl Unfinished {
    fn join(&mut self, first: Lsn, counts: Counts) {
        self.first = self.first.min(first);
        self.counts += counts;
    }

    fn join_subtransaction(&mut self, other: Unfinished) {
        self.join(other.first, other.counts);
        self.subtransactions += 1 + other.subtransactions;
    }

    fn ended(self, xid: Xid, outcome: Outcome, time: Option<TimestampTz>, end: Option<Lsn>) -> Transaction {
        let Unfinished { first, counts, subtransactions, .. } = self;
        Transaction { xid, outcome, time, first, end, subtransactions, counts }
    }
}

/// Transactions of all parts. Those that ended are forgotten but for the largest, so memory depends on those that have not.
#[derive(Debug)]
pub(super) struct Transactions {
    open: Map<Xid, Unfinished>,
    /// The top-level transaction of a subtransaction that has not ended.
    parents: Map<Xid, Xid>,
    /// The largest that ended, the smallest of them first.
    largest: BinaryHeap<Reverse<Ranked>>,
    keep: usize,
    /// Everything that ended.
    pub(super) ended: Others,
    /// Transactions that there was no room for before they ended.
    pub(super) crowded_out: Others,
    /// Records without a transaction.
    pub(super) none: Counts,
}

/// By size, the earlier of two of the same size first.
#[derive(Debug, PartialEq, Eq)]
struct Ranked(Transaction);

impl Ranked {
    fn key(&self) -> (u64, Reverse<Lsn>, Reverse<Xid>) {
        (self.0.size(), Reverse(self.0.first), Reverse(self.0.xid))
    }
}
impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Transactions {
    pub(super) fn new(keep: usize) -> Transactions {
        Transactions {
            open: Map::default(),
            parents: Map::default(),
            largest: BinaryHeap::new(),
            keep: keep.clamp(1, CAP),
            ended: Others::default(),
            crowded_out: Others::default(),
            none: Counts::default(),
        }
    }

    /// A transaction ends, or is prepared.
    pub(super) fn end(&mut self, end: &End, part: &Part) {
        let mut transaction = self.take(end.xid, end.row, part);
        for &(xid, row) in end.subxacts.as_deref().unwrap_or_default() {
            let sub = self.take(xid, row, part);
            transaction.join_subtransaction(sub);
            if !self.parents.is_empty() {
                self.parents.remove(&xid);
            }
        }
        if !self.parents.is_empty()
            && let Some(parent) = self.parents.remove(&end.xid)
        {
            // A subtransaction that was rolled back alone.
            return self.open.entry(parent).or_default().join_subtransaction(transaction);
        }
        if end.outcome == Outcome::Prepared {
            transaction.prepared = Some(end.time);
            self.open.insert(end.xid, transaction);
            return;
        }
        // A commit without records before it in this WAL starts with itself.
        transaction.first = transaction.first.min(end.lsn);
        self.finish(transaction.ended(end.xid, end.outcome, Some(end.time), Some(end.lsn)));
    }

    /// What is known of `xid`, from earlier parts and from its row in this one.
    fn take(&mut self, xid: Xid, row: u32, part: &Part) -> Unfinished {
        let mut transaction = if self.open.is_empty() { None } else { self.open.remove(&xid) }.unwrap_or_default();
        if let Some(row) = part.rows.get(row as usize) {
            transaction.join(row.first, row.counts);
        }
        transaction
    }

    /// The WAL tells that `xid` is a subtransaction of `top`.
    pub(super) fn assign(&mut self, xid: Xid, top: Xid) {
        if xid == top || self.parents.len() >= CAP {
            return;
        }
        let top = self.parents.get(&top).copied().unwrap_or(top);
        if self.parents.insert(xid, top).is_none()
            && let Some(known) = self.open.remove(&xid)
        {
            self.open.entry(top).or_default().join(known.first, known.counts);
        }
    }

    /// What no event has taken of the part's first `rows` rows.
    pub(super) fn merge(&mut self, part: &mut Part, rows: usize) {
        for row in part.rows.iter_mut().take(rows).filter(|row| !row.sealed) {
            row.sealed = true;
            let top = if self.parents.is_empty() { None } else { self.parents.get(&row.xid).copied() };
            self.open.entry(top.unwrap_or(row.xid)).or_default().join(row.first, row.counts);
        }
        if self.open.len() > CAP {
            self.make_room();
        }
    }

    /// A crash or the end of a timeline: whatever had not ended, and was not prepared, never will. Returns how many those are.
    pub(super) fn cut_off(&mut self) -> u64 {
        self.parents.clear();
        // The ids below are not of ordinary transactions. C: `FirstNormalTransactionId`.
        let lost: Vec<(Xid, Unfinished)> = self.open.extract_if(|xid, open| open.prepared.is_none() && xid.0 >= 3).collect();
        lost.iter().for_each(|(xid, open)| self.finish(open.ended(*xid, Outcome::Lost, None, None)));
        lost.len() as u64
    }

    fn finish(&mut self, transaction: Transaction) {
        self.ended.add(transaction.counts);
        if self.largest.len() < self.keep {
            self.largest.push(Reverse(Ranked(transaction)));
        } else if let Some(mut smallest) = self.largest.peek_mut() {
            let ranked = Ranked(transaction);
            if smallest.0 < ranked {
                smallest.0 = ranked;
            }
        }
    }

    #[cold]
    fn make_room(&mut self) {
        let limit = smaller_half(self.open.values().map(|open| open.counts.combined_size()).collect());
        let others = &mut self.crowded_out;
        self.open.retain(|_, open| {
            let stays = open.counts.combined_size() > limit;
            if !stays {
                others.add(open.counts);
            }
            stays
        });
    }

    /// The largest that ended, and all that have not; in no order.
    pub(super) fn rows(&self) -> impl Iterator<Item = Transaction> + '_ {
        let open = self.open.iter().map(|(&xid, open)| {
            let outcome = if open.prepared.is_some() { Outcome::Prepared } else { Outcome::Open };
            open.ended(xid, outcome, open.prepared, None)
        });
        self.largest.iter().map(|ranked| ranked.0.0).chain(open)
    }

    /// All of them.
    pub(super) fn all(&self) -> Others {
        let mut all = self.ended;
        all.join(self.crowded_out);
        self.open.values().for_each(|open| all.add(open.counts));
        all
    }
}
