//! By transaction: subtransactions are counted with their top-level transaction where the WAL names it.
//!
//! # What the WAL says about subtransactions
//! - COMMIT, ABORT and PREPARE list the subtransactions that were released and end with the transaction. COMMIT PREPARED and ROLLBACK
//!   PREPARED repeat the list of PREPARE.
//! - A subtransaction that is rolled back by itself has an ABORT record of its own, which lists those released into it. Nothing in that
//!   record tells it from the rollback of a top-level transaction.
//! - ASSIGNMENT names the top-level transaction of up to 64 subtransactions, also of those rolled back since the last one. At
//!   `wal_level=logical` the first record of a subtransaction names it, from 14 on.
//! - RUNNING_XACTS, which checkpoints and the background writer log, lists the top-level transactions that run and, unless there are too
//!   many, the subtransactions; not which belongs to which. A top-level transaction is older than its subtransactions, so if it is the only
//!   one that is, they are its own. With too many (`subxid_overflow`), whatever has not ended and is not listed is a subtransaction.
//!
//! A transaction stays on that list after its end has been logged until it leaves the process array, which may take long (synchronous
//! replication waits in between), so the ends since the last list are remembered.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use serde::Serialize;

use super::{CAP, Map, Others, smaller_half};
use crate::lsn::Lsn;
use crate::stats::Counts;
use crate::types::{TimestampTz, Xid};

type Set = HashSet<Xid, foldhash::fast::RandomState>;

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
    /// Rolled back. A subtransaction that was rolled back by itself is a row of its own unless the WAL names its top-level transaction.
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
    /// Its subtransactions that the WAL names, each once; what they wrote is in its counts.
    pub subtransactions: u64,
    /// It is a subtransaction itself, as RUNNING_XACTS says, of a top-level transaction that the WAL does not name.
    pub is_subtransaction: bool,
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
    /// An event of this part ends it, or it has been merged.
    sealed: bool,
    /// That event has been seen.
    taken: bool,
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
            self.rows.push(Row { xid, first: lsn, counts: Counts::default(), sealed: false, taken: false });
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

    /// Rows up to here.
    pub(super) fn row_count(&self) -> usize {
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

/// RUNNING_XACTS.
#[derive(Debug)]
pub(super) struct Running {
    /// Top-level transactions.
    pub(super) xids: Box<[Xid]>,
    /// Subtransactions; none where there are too many.
    pub(super) subxids: Box<[Xid]>,
    /// There are too many subtransactions to list them.
    pub(super) overflow: bool,
    /// The next id to be given out.
    pub(super) next: Xid,
    /// Rows of the part before it.
    pub(super) rows: usize,
}

/// A transaction that has not ended yet.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    first: Lsn,
    counts: Counts,
    /// Subtransactions that have ended, or were listed by PREPARE.
    subtransactions: u64,
    /// Subtransactions that have not: those in [`Transactions::parents`].
    live: u64,
    prepared: Option<TimestampTz>,
}

impl Default for Unfinished {
    fn default() -> Unfinished {
        Unfinished { first: Lsn(u64::MAX), counts: Counts::default(), subtransactions: 0, live: 0, prepared: None }
    }
}

impl Unfinished {
    fn join(&mut self, first: Lsn, counts: Counts) {
        self.first = self.first.min(first);
        self.counts += counts;
    }

    /// Its subtransactions, ended or not.
    fn all_subtransactions(&self) -> u64 {
        self.subtransactions + self.live
    }

    /// Has `sub` be one of its subtransactions.
    fn join_subtransaction(&mut self, sub: &Transaction) {
        self.join(sub.first, sub.counts);
        self.subtransactions += 1 + sub.subtransactions;
    }

    /// One of its subtransactions has ended.
    fn forget_live(&mut self) {
        self.live = self.live.saturating_sub(1);
    }

    fn ended(self, xid: Xid, outcome: Outcome, time: Option<TimestampTz>, end: Option<Lsn>) -> Transaction {
        let subtransactions = self.all_subtransactions();
        let Unfinished { first, counts, .. } = self;
        Transaction { xid, outcome, time, first, end, subtransactions, is_subtransaction: false, counts }
    }
}

/// What ended by an ABORT record and may be named by its top-level transaction later.
#[derive(Debug)]
enum RolledBack {
    /// Its top-level transaction, if it has one, is not known.
    Alone(Box<Transaction>),
    /// It was rolled back with this one, into which it had been released.
    With(Xid),
    /// It is counted with its top-level transaction.
    Counted,
}

/// The top-level transaction of a subtransaction where that is not known.
const UNKNOWN: Xid = Xid(0);
/// The first id of an ordinary transaction. C: `FirstNormalTransactionId`.
const FIRST_NORMAL: Xid = Xid(3);
/// Transactions looked at for RUNNING_XACTS with too many subtransactions: WAL full of such records must not take for ever.
const LOOKS: u64 = 1 << 32;

/// Whether `xid` was given out before `other`. C: `TransactionIdPrecedes`.
fn precedes(xid: Xid, other: Xid) -> bool {
    (xid.0.wrapping_sub(other.0) as i32) < 0
}

/// Transactions of all parts. Those that ended are forgotten except for the largest, so memory depends on those that have not.
#[derive(Debug)]
pub(super) struct Transactions {
    open: Map<Xid, Unfinished>,
    /// The top-level transaction of each subtransaction that has not ended, or [`UNKNOWN`].
    parents: Map<Xid, Xid>,
    /// Until no transaction runs that can be their top-level transaction.
    rolled_back: Map<Xid, RolledBack>,
    /// So many of them, and it is time to look which can be forgotten.
    crowd: usize,
    /// What has ended since the last RUNNING_XACTS, or may be on its list though it had ended, each with the transaction that it ended
    /// with; in the order of the WAL.
    settled: Vec<(Xid, Xid)>,
    /// Top-level transactions of the last RUNNING_XACTS that had not ended.
    running: Vec<Xid>,
    /// See [`LOOKS`].
    looks: u64,
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
            rolled_back: Map::default(),
            crowd: 0,
            settled: Vec::new(),
            running: Vec::new(),
            looks: 0,
            largest: BinaryHeap::new(),
            keep: keep.clamp(1, CAP),
            ended: Others::default(),
            crowded_out: Others::default(),
            none: Counts::default(),
        }
    }

    /// A transaction ends, or is prepared.
    pub(super) fn end(&mut self, end: &End, part: &mut Part) {
        let parent = self.forget_parent(end.xid);
        // One that is rolled back with a subtransaction tells of it.
        let mut top = parent.filter(|top| top.is_valid());
        let mut transaction = self.take(end.xid, end.row, part);
        // The end of a prepared transaction lists again what its PREPARE has listed.
        let is_prepared = transaction.prepared.is_some();
        let subxacts = end.subxacts.as_deref().unwrap_or_default();
        for &(xid, row) in subxacts {
            let sub = self.take(xid, row, part);
            transaction.join(sub.first, sub.counts);
            transaction.subtransactions += sub.all_subtransactions() + u64::from(!is_prepared);
            match self.forget_parent(xid) {
                Some(parent) if parent == end.xid => transaction.forget_live(),
                Some(parent) if parent.is_valid() => {
                    self.forget_live(parent);
                    top.get_or_insert(parent);
                }
                _ => {}
            }
            self.settle(xid, end.xid);
        }
        self.settle(end.xid, end.xid);
        // A commit without records before it in this WAL starts with itself.
        transaction.first = transaction.first.min(end.lsn);
        if end.outcome == Outcome::Prepared {
            transaction.prepared = Some(end.time);
            self.open.insert(end.xid, transaction);
        }
        if let Some(parent) = parent {
            self.forget_live(parent);
        }
        let mut ended = transaction.ended(end.xid, end.outcome, Some(end.time), Some(end.lsn));
        match (end.outcome, top) {
            (Outcome::Prepared, _) => {}
            // Only top-level transactions are prepared.
            (Outcome::Aborted, top) if !is_prepared => {
                ended.is_subtransaction = parent.is_some();
                self.roll_back(ended, top, subxacts);
            }
            _ => self.finish(ended),
        }
    }

    /// A transaction is rolled back, which may be a subtransaction: that of `top`, if that is known.
    fn roll_back(&mut self, transaction: Transaction, top: Option<Xid>, subxacts: &[(Xid, u32)]) {
        if self.rolled_back.len() >= CAP {
            self.forget_rolled_back(|_| false);
        }
        let xid = transaction.xid;
        let its = match top {
            Some(top) => {
                self.open.entry(top).or_default().join_subtransaction(&transaction);
                RolledBack::Counted
            }
            None => RolledBack::Alone(Box::new(transaction)),
        };
        for &(sub, _) in subxacts.iter().take(CAP - self.rolled_back.len().min(CAP)) {
            let as_well = if top.is_some() { RolledBack::Counted } else { RolledBack::With(xid) };
            self.remember_rolled_back(sub, as_well);
        }
        self.remember_rolled_back(xid, its);
    }

    fn remember_rolled_back(&mut self, xid: Xid, rolled_back: RolledBack) {
        // The same id again is another transaction.
        if let Some(RolledBack::Alone(transaction)) = self.rolled_back.insert(xid, rolled_back) {
            self.finish(*transaction);
        }
    }

    /// Forgets those that are not to stay: they are what they seem, rows of their own.
    fn forget_rolled_back(&mut self, stays: impl Fn(Xid) -> bool) {
        let gone: Vec<_> = self.rolled_back.extract_if(|&xid, _| !stays(xid)).collect();
        for (_, rolled_back) in gone {
            if let RolledBack::Alone(transaction) = rolled_back {
                self.finish(*transaction);
            }
        }
        self.crowd = 2 * self.rolled_back.len() + 16;
    }

    /// What is known of `xid`, from earlier parts and from its row in this one.
    fn take(&mut self, xid: Xid, row: u32, part: &mut Part) -> Unfinished {
        let mut transaction = if self.open.is_empty() { None } else { self.open.remove(&xid) }.unwrap_or_default();
        if let Some(row) = part.rows.get_mut(row as usize) {
            row.taken = true;
            transaction.join(row.first, row.counts);
        }
        transaction
    }

    /// The top-level transaction of a subtransaction that ends.
    fn forget_parent(&mut self, xid: Xid) -> Option<Xid> {
        if self.parents.is_empty() { None } else { self.parents.remove(&xid) }
    }

    /// A subtransaction of `top` has ended.
    fn forget_live(&mut self, top: Xid) {
        if let Some(top) = self.open.get_mut(&top) {
            top.forget_live();
        }
    }

    /// Remembers an end, see [`Transactions::settled`].
    fn settle(&mut self, xid: Xid, with: Xid) {
        if self.settled.len() >= CAP {
            self.settled.drain(..CAP / 2);
        }
        self.settled.push((xid, with));
    }

    fn settled(&self) -> Set {
        self.settled.iter().map(|(xid, _)| *xid).collect()
    }

    /// The WAL tells that `xid` is a subtransaction of `top`.
    pub(super) fn assign(&mut self, xid: Xid, top: Xid) {
        let top = self.parents.get(&top).copied().filter(|top| top.is_valid()).unwrap_or(top);
        if xid == top || !top.is_valid() {
            return;
        }
        match if self.rolled_back.is_empty() { None } else { self.rolled_back.remove(&xid) } {
            Some(RolledBack::Alone(transaction)) => return self.open.entry(top).or_default().join_subtransaction(&transaction),
            Some(RolledBack::With(first)) => return self.assign_rolled_back(first, top),
            Some(RolledBack::Counted) => return,
            None => {}
        }
        let has_room = self.parents.len() < CAP;
        match self.parents.get_mut(&xid) {
            Some(known) if known.is_valid() => return,
            Some(unknown) => *unknown = top,
            None if !has_room => return,
            None => drop(self.parents.insert(xid, top)),
        }
        let known = self.open.remove(&xid).unwrap_or_default();
        let parent = self.open.entry(top).or_default();
        parent.join(known.first, known.counts);
        parent.subtransactions += known.all_subtransactions();
        parent.live += 1;
    }

    /// The WAL tells where something belongs that was rolled back with `first`: so that does, too.
    fn assign_rolled_back(&mut self, first: Xid, top: Xid) {
        if let Some(rolled_back @ RolledBack::Alone(_)) = self.rolled_back.get_mut(&first)
            && let RolledBack::Alone(transaction) = std::mem::replace(rolled_back, RolledBack::Counted)
        {
            self.open.entry(top).or_default().join_subtransaction(&transaction);
        }
    }

    /// The WAL lists what runs: see the [module](self).
    pub(super) fn running(&mut self, running: &Running, part: &Part) {
        let tops: Set = running.xids.iter().copied().collect();
        let subs: Set = running.subxids.iter().copied().collect();
        // A subtransaction is listed as long as its top-level transaction is, but for lists that have too many of them.
        self.settled.retain(|(xid, with)| tops.contains(with) || subs.contains(xid));
        let settled = self.settled();
        self.running.clear();
        self.running.extend(running.xids.iter().filter(|xid| !settled.contains(xid)).take(CAP));
        // What is older than all but the first of them can belong to the first only.
        let (mut first, mut second) = (None, None);
        for &xid in &self.running {
            if first.is_none_or(|first| precedes(xid, first)) {
                (first, second) = (Some(xid), first);
            } else if second.is_none_or(|second| precedes(xid, second)) {
                second = Some(xid);
            }
        }
        let top_of =
            |sub: Xid| first.filter(|&first| precedes(first, sub) && second.is_none_or(|second| !precedes(second, sub))).unwrap_or(UNKNOWN);
        for &sub in running.subxids.iter().filter(|sub| !settled.contains(sub)) {
            self.know_subtransaction(sub, top_of(sub));
        }
        if running.overflow && self.looks < LOOKS {
            let rows = part.rows.get(..running.rows).unwrap_or_default();
            self.looks += (rows.len() + self.open.len()) as u64;
            let unended = rows.iter().filter(|row| !row.taken).map(|row| row.xid);
            let earlier = self.open.iter().filter(|(_, open)| open.prepared.is_none()).map(|(&xid, _)| xid);
            let is_sub = |&xid: &Xid| xid >= FIRST_NORMAL && precedes(xid, running.next) && !tops.contains(&xid) && !settled.contains(&xid);
            let found: Vec<Xid> = unended.chain(earlier).filter(is_sub).collect();
            found.into_iter().for_each(|sub| self.know_subtransaction(sub, top_of(sub)));
        }
        if self.rolled_back.len() >= self.crowd {
            self.forget_rolled_back(|xid| first.is_some_and(|first| precedes(first, xid)));
        }
    }

    /// `sub` is a subtransaction that has not ended: that of `top`, unless that is [`UNKNOWN`].
    fn know_subtransaction(&mut self, sub: Xid, top: Xid) {
        if top != UNKNOWN {
            self.assign(sub, top);
        } else if self.parents.len() < CAP {
            self.parents.entry(sub).or_insert(UNKNOWN);
        }
    }

    /// What no event has taken of the part's first `rows` rows.
    pub(super) fn merge(&mut self, part: &mut Part, rows: usize) {
        for row in part.rows.iter_mut().take(rows).filter(|row| !row.sealed) {
            (row.sealed, row.taken) = (true, true);
            let top = if self.parents.is_empty() { None } else { self.parents.get(&row.xid).copied() };
            let top = top.filter(|top| top.is_valid());
            self.open.entry(top.unwrap_or(row.xid)).or_default().join(row.first, row.counts);
        }
        if self.open.len() > CAP {
            self.make_room();
        }
    }

    /// A crash or the end of a timeline: whatever had not ended, and was not prepared, never will. Returns how many transactions those
    /// are, without subtransactions.
    pub(super) fn cut_off(&mut self) -> u64 {
        let lost: Vec<(Xid, Unfinished)> = self.open.extract_if(|&xid, open| open.prepared.is_none() && xid >= FIRST_NORMAL).collect();
        // One without records in this WAL is known by its subtransactions.
        let settled = self.settled();
        let mut silent: Set = self.running.drain(..).filter(|xid| !settled.contains(xid)).collect();
        let (mut count, mut newest_sub) = (0, None);
        for (xid, open) in lost {
            let is_subtransaction = self.parents.get(&xid) == Some(&UNKNOWN);
            if open.counts.count == 0 {
                continue;
            }
            silent.remove(&xid);
            if !is_subtransaction {
                count += 1;
            } else if newest_sub.is_none_or(|newest| precedes(newest, xid)) {
                newest_sub = Some(xid);
            }
            self.finish(Transaction { is_subtransaction, ..open.ended(xid, Outcome::Lost, None, None) });
        }
        count += newest_sub.map_or(0, |sub| silent.iter().filter(|&&top| precedes(top, sub)).count() as u64);
        self.parents.clear();
        self.settle_all();
        count
    }

    /// No more is to come that tells of what was rolled back.
    pub(super) fn settle_all(&mut self) {
        self.forget_rolled_back(|_| false);
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
            if !stays && open.counts.count > 0 {
                others.add(open.counts);
            }
            stays
        });
    }

    /// The largest that ended, and all that have not; in no order.
    pub(super) fn rows(&self) -> impl Iterator<Item = Transaction> + '_ {
        let open = self.unfinished().map(|(&xid, open)| {
            let outcome = if open.prepared.is_some() { Outcome::Prepared } else { Outcome::Open };
            let is_subtransaction = self.parents.get(&xid) == Some(&UNKNOWN);
            Transaction { is_subtransaction, ..open.ended(xid, outcome, open.prepared, None) }
        });
        self.largest.iter().map(|ranked| ranked.0.0).chain(open)
    }

    /// Those that have not ended, and wrote something in this WAL, or their subtransactions did.
    fn unfinished(&self) -> impl Iterator<Item = (&Xid, &Unfinished)> {
        self.open.iter().filter(|(_, open)| open.counts.count > 0)
    }

    /// All of them.
    pub(super) fn all(&self) -> Others {
        let mut all = self.ended;
        all.join(self.crowded_out);
        self.unfinished().for_each(|(_, open)| all.add(open.counts));
        all
    }
}
