use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;

fn bytes(record_size: u64) -> Counts {
    Counts { count: 1, record_size, ..Counts::default() }
}

/// Numbers that look random, the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[derive(Clone, Debug)]
enum Op {
    Record(u32, u64),
    End(u32, Vec<u32>, Outcome),
    Assign(Vec<u32>, u32),
    Running { xids: Vec<u32>, subxids: Vec<u32>, overflow: bool, next: u32 },
    Crash,
}

fn run(op: &Op, part: &mut Part, lsn: Lsn) {
    match op {
        Op::Record(xid, size) => part.transactions.add(Xid(*xid), lsn, bytes(*size)),
        Op::Assign(xids, top) => part.events.push(Event::Assign { xids: xids.iter().copied().map(Xid).collect(), top: Xid(*top) }),
        Op::Running { xids, subxids, overflow, next } => part.events.push(Event::Running(transactions::Running {
            xids: xids.iter().copied().map(Xid).collect(),
            subxids: subxids.iter().copied().map(Xid).collect(),
            overflow: *overflow,
            next: Xid(*next),
            rows: part.transactions.row_count(),
        })),
        Op::End(xid, subxacts, outcome) => {
            let subxacts = subxacts.iter().map(|&xid| (Xid(xid), part.transactions.seal(Xid(xid)))).collect();
            let (xid, row) = (Xid(*xid), part.transactions.seal(Xid(*xid)));
            let end = transactions::End { xid, row, outcome: *outcome, time: TimestampTz(7), lsn, subxacts: Some(subxacts) };
            part.events.push(Event::End(end));
        }
        Op::Crash => {
            let rows = part.transactions.seal_all();
            part.events.push(Event::EndOfRecovery { rows });
        }
    }
}

/// A server whose transactions are known, in small: a few subtransactions are too many for a list, and few are named at a time.
#[derive(Default)]
struct Sim {
    next: u32,
    tops: Vec<Top>,
    /// What every subtransaction belongs to, as far as the WAL has told.
    told: HashMap<u32, u32>,
    /// What RUNNING_XACTS has called a subtransaction.
    known: HashSet<u32>,
    wrote: BTreeMap<u32, Counts>,
    rows: Vec<Seen>,
    /// Each record names the top-level transaction of its subtransaction once.
    logical: bool,
}

#[derive(Default)]
struct Top {
    xid: u32,
    /// Live ones, the innermost last, and those released into each.
    stack: Vec<(u32, Vec<u32>)>,
    released: Vec<u32>,
    unreported: Vec<u32>,
    has_too_many: bool,
    /// Rolled back: each with those released into it.
    rolled_back: Vec<(u32, Vec<u32>)>,
    prepared: bool,
    /// It has ended and still runs, for others.
    lingers: bool,
}

/// A row as it should be.
type Seen = (u32, Outcome, Counts, u64, bool);

/// How many subtransactions are named at a time, and how many a list has room for.
const FEW: usize = 3;

impl Top {
    fn live(&self) -> Vec<u32> {
        let inner = self.stack.iter().flat_map(|(xid, released)| released.iter().chain([xid]));
        inner.chain(&self.released).copied().collect()
    }
}

impl Sim {
    fn record(&mut self, xid: u32, size: u64, ops: &mut Vec<Op>) {
        ops.push(Op::Record(xid, size));
        *self.wrote.entry(xid).or_default() += bytes(size);
    }

    fn write(&mut self, top: usize, size: u64, ops: &mut Vec<Op>) {
        let its = &self.tops[top];
        let xid = its.stack.last().map_or(its.xid, |sub| sub.0);
        if self.logical && xid != its.xid && self.told.insert(xid, its.xid).is_none() {
            ops.push(Op::Assign(vec![xid], its.xid));
        }
        self.record(xid, size, ops);
    }

    fn savepoint(&mut self, top: usize, ops: &mut Vec<Op>) {
        self.next += 1;
        let its = &mut self.tops[top];
        its.stack.push((self.next, Vec::new()));
        its.unreported.push(self.next);
        its.has_too_many |= its.live().len() > FEW;
        if its.unreported.len() == FEW {
            let xids = std::mem::take(&mut its.unreported);
            self.told.extend(xids.iter().map(|&xid| (xid, its.xid)));
            ops.push(Op::Assign(xids, its.xid));
        }
    }

    fn rollback_to(&mut self, top: usize, ops: &mut Vec<Op>) {
        let Some((xid, released)) = self.tops[top].stack.pop() else { return };
        self.tops[top].stack.push((xid, released.clone()));
        self.write(top, 34, ops); // its ABORT
        self.tops[top].stack.pop();
        ops.push(Op::End(xid, released.clone(), Outcome::Aborted));
        self.tops[top].rolled_back.push((xid, released));
    }

    fn running(&mut self, ops: &mut Vec<Op>) {
        let overflow = self.tops.iter().any(|top| top.has_too_many);
        let xids: Vec<u32> = self.tops.iter().map(|top| top.xid).collect();
        let subxids: Vec<u32> = if overflow { Vec::new() } else { self.tops.iter().flat_map(Top::live).collect() };
        let open: Vec<u32> = self.tops.iter().filter(|top| !top.lingers && !top.prepared).map(|top| top.xid).collect();
        for top in self.tops.iter().filter(|top| !top.lingers && !top.prepared) {
            for sub in top.live() {
                // Of one that is not listed, there must have been a record.
                if overflow && !self.wrote.contains_key(&sub) {
                    continue;
                }
                self.known.insert(sub);
                if open.iter().filter(|&&xid| xid < sub).count() == 1 {
                    self.told.insert(sub, top.xid);
                }
            }
        }
        self.tops.retain(|top| !top.lingers || top.xid % 2 == 0);
        ops.push(Op::Running { xids, subxids, overflow, next: self.next + 1 });
    }

    fn end(&mut self, top: usize, outcome: Outcome, ops: &mut Vec<Op>) {
        if self.tops[top].prepared {
            // COMMIT PREPARED: its record has no transaction id, and lists the subtransactions again.
            let (xid, subs) = (self.tops[top].xid, self.tops[top].released.clone());
            ops.push(Op::End(xid, subs, outcome));
            return self.ended(top, Some(outcome));
        }
        if outcome == Outcome::Aborted {
            while !self.tops[top].stack.is_empty() {
                self.rollback_to(top, ops);
            }
        }
        while let Some((xid, released)) = self.tops[top].stack.pop() {
            let its = &mut self.tops[top];
            let into = its.stack.last_mut().map_or(&mut its.released, |outer| &mut outer.1);
            into.extend(released.into_iter().chain([xid]));
        }
        let xid = self.tops[top].xid;
        self.record(xid, 34, ops);
        ops.push(Op::End(xid, self.tops[top].released.clone(), outcome));
        if outcome == Outcome::Prepared {
            self.tops[top].prepared = true;
        } else {
            self.ended(top, Some(outcome));
        }
    }

    /// What the rows of a transaction and its subtransactions are to be; `None`: it has not ended.
    fn ended(&mut self, top: usize, outcome: Option<Outcome>) {
        let its = std::mem::take(&mut self.tops[top]);
        let (mut counts, mut subs) = (Counts::default(), 0);
        let wrote = |xid: &u32| self.wrote.get(xid).copied().unwrap_or_default();
        counts += wrote(&its.xid);
        for (first, released) in &its.rolled_back {
            let group: Vec<u32> = released.iter().chain([first]).copied().collect();
            let written = group.iter().fold(Counts::default(), |mut sum, xid| {
                sum += wrote(xid);
                sum
            });
            if group.iter().any(|xid| self.told.contains_key(xid)) {
                counts += written;
                subs += group.len() as u64;
            } else {
                self.rows.push((*first, Outcome::Aborted, written, group.len() as u64 - 1, self.known.contains(first)));
            }
        }
        let open = if its.prepared { Outcome::Prepared } else { Outcome::Open };
        let is_listed = its.prepared || matches!(outcome, Some(Outcome::Committed | Outcome::Aborted));
        for sub in its.live() {
            if is_listed || self.told.contains_key(&sub) {
                counts += wrote(&sub);
                subs += 1;
            } else if wrote(&sub).count > 0 {
                self.rows.push((sub, outcome.unwrap_or(open), wrote(&sub), 0, self.known.contains(&sub)));
            }
        }
        if counts.count > 0 {
            self.rows.push((its.xid, outcome.unwrap_or(open), counts, subs, false));
        }
        let lingers = outcome.is_some_and(|outcome| outcome != Outcome::Lost);
        self.tops[top] = Top { lingers, has_too_many: its.has_too_many, ..its };
    }
}

/// What such a server writes, and the rows that this should come to.
fn simulated(dice: &mut Dice) -> (Vec<Op>, Vec<Seen>) {
    let mut sim = Sim { next: 700, logical: dice.below(3) == 0, ..Sim::default() };
    let mut ops = Vec::new();
    let most = 1 + dice.below(4) as usize;
    while ops.len() < 250 {
        let live: Vec<usize> = (0..sim.tops.len()).filter(|&at| !sim.tops[at].lingers).collect();
        if live.is_empty() || (live.len() < most && dice.below(6) == 0) {
            sim.next += 1;
            sim.tops.push(Top { xid: sim.next, ..Top::default() });
            continue;
        }
        let top = live[dice.below(live.len() as u64) as usize];
        let prepared = sim.tops[top].prepared;
        match dice.below(40) {
            0..4 => sim.running(&mut ops),
            4 => {
                // A crash. What is prepared stays.
                for top in live {
                    if !sim.tops[top].prepared {
                        sim.ended(top, Some(Outcome::Lost));
                    }
                }
                sim.tops.retain(|top| top.prepared && !top.lingers);
                ops.push(Op::Crash);
            }
            5 => sim.end(top, Outcome::Committed, &mut ops),
            6 => sim.end(top, Outcome::Aborted, &mut ops),
            _ if prepared => {}
            7 => sim.end(top, Outcome::Prepared, &mut ops),
            8..18 => sim.savepoint(top, &mut ops),
            18..22 => sim.rollback_to(top, &mut ops),
            22..25 => {
                let its = &mut sim.tops[top];
                if let Some((xid, released)) = its.stack.pop() {
                    let into = its.stack.last_mut().map_or(&mut its.released, |outer| &mut outer.1);
                    into.extend(released.into_iter().chain([xid]));
                }
            }
            _ => sim.write(top, dice.below(1000), &mut ops),
        }
    }
    for top in 0..sim.tops.len() {
        if !sim.tops[top].lingers {
            sim.ended(top, None);
        }
    }
    (ops, sim.rows)
}

/// However the WAL is cut into parts, every subtransaction that the WAL names is counted once, with its top-level transaction.
#[test]
fn transactions_in_parts() {
    let mut seen = [0; 4];
    for seed in 0..3000 {
        let mut dice = Dice(seed);
        let (ops, mut expected) = simulated(&mut dice);
        let mut usage = Usage::new(Wanted { top: 1000, ..Wanted::default() });
        let mut part = Part::default();
        for (at, op) in ops.iter().enumerate() {
            run(op, &mut part, Lsn(at as u64));
            // Every other seed is one part.
            if seed % 2 == 0 && dice.below(10) == 0 {
                usage.take(&mut part);
            }
        }
        usage.take(&mut part);
        usage.transactions.settle_all();
        let row = |row: &Transaction| (row.xid.0, row.outcome, row.counts, row.subtransactions, row.is_subtransaction);
        let mut rows: Vec<Seen> = usage.transactions().iter().map(row).collect();
        rows.sort_by_key(|row| row.0);
        expected.sort_by_key(|row| row.0);
        assert_eq!(rows, expected, "seed {seed}: {ops:#?}");
        let mut all = Others::default();
        expected.iter().for_each(|row| all.add(row.2));
        assert_eq!(usage.all_transactions(), all, "seed {seed}");
        for row in expected {
            seen[0] += usize::from(row.1 == Outcome::Lost && row.3 > 0);
            seen[1] += usize::from(row.1 == Outcome::Prepared && row.3 > 0);
            seen[2] += usize::from(row.4);
            seen[3] += usize::from(row.1 == Outcome::Open && row.3 > 0);
        }
    }
    assert!(seen.iter().all(|&seen| seen > 100), "{seen:?}");
}

/// What a crash has cut off is counted in transactions, however many subtransactions had no named parent.
#[test]
fn a_crash_counts_transactions() {
    let running = |xids: &[u32], subxids: &[u32], overflow| Op::Running { xids: xids.into(), subxids: subxids.into(), overflow, next: 800 };
    let of = |xid| Op::Record(xid, 10);
    for (what, ops, lost, rows) in [
        ("nothing tells them apart", vec![of(700), of(701), of(702)], 3, 3),
        ("one transaction", vec![of(700), of(701), of(702), running(&[700], &[701, 702], false)], 1, 1),
        ("one without records of its own", vec![of(701), of(702), running(&[700], &[701, 702], false)], 1, 1),
        ("two", vec![of(700), of(701), of(702), of(703), running(&[700, 702], &[701, 703], false)], 2, 3),
        ("two without records of their own", vec![of(702), of(703), running(&[700, 701], &[702, 703], false)], 2, 2),
        ("too many", vec![of(700), of(701), of(702), running(&[700], &[], true)], 1, 1),
        ("one had ended", vec![of(700), of(702), Op::End(700, vec![], Outcome::Committed), running(&[700, 701], &[702], false)], 1, 2),
        ("one was prepared", vec![of(700), Op::End(700, vec![], Outcome::Prepared), of(702), running(&[700, 701], &[702], false)], 1, 2),
    ] {
        let mut usage = Usage::new(Wanted::default());
        let mut part = Part::default();
        ops.iter().for_each(|op| run(op, &mut part, Lsn(1)));
        usage.take(&mut part);
        assert_eq!((usage.transactions.cut_off(), usage.transactions().len()), (lost, rows), "{what}: {:?}", usage.transactions());
    }
}

#[test]
fn the_largest_transactions_are_kept() {
    let mut usage = Usage::new(Wanted { top: 3, ..Wanted::default() });
    let mut part = Part::default();
    for (at, size) in [5u64, 9, 1, 9, 7, 2, 9].into_iter().enumerate() {
        let (xid, lsn) = (100 + at as u32, Lsn(at as u64));
        run(&Op::Record(xid, size), &mut part, lsn);
        run(&Op::End(xid, Vec::new(), Outcome::Committed), &mut part, lsn);
        usage.take(&mut part);
    }
    // Of several of the same size, the first ones.
    assert_eq!(usage.transactions().iter().map(|row| row.xid.0).collect::<Vec<_>>(), [101, 103, 106]);
    assert_eq!(usage.all_transactions(), Others { count: 7, counts: Counts { count: 7, record_size: 42, ..Counts::default() } });
}

/// More rows than there is room for: the large ones stay, the totals are right.
#[test]
fn totals_are_right_whatever_does_not_fit() {
    const ROWS: u32 = CAP as u32 + CAP as u32 / 4;
    let mut usage = Usage::new(Wanted::default());
    let mut part = Part::default();
    let mut total = Counts::default();
    for n in 0..ROWS {
        let counts = bytes(u64::from(n.reverse_bits() >> 12) + 1);
        total += counts;
        part.transactions.add(Xid(n + 10), Lsn(n.into()), counts);
        let rel = RelFileLocator { spc: Oid(1663), db: Oid(n % 5), rel: Oid(n) };
        part.relations.add_to(rel, counts);
        if n % 1000 == 0 {
            usage.take(&mut part);
        }
    }
    usage.take(&mut part);
    let all = usage.all_transactions();
    assert_eq!((all.count, all.counts), (ROWS.into(), total));
    assert!(usage.transactions.rows().count() <= CAP);
    let others = usage.other_relations();
    let mut sum = others;
    usage.relations().iter().for_each(|row| sum.add(row.1));
    assert_eq!((sum.count, sum.counts), (ROWS.into(), total));
    assert!(others.count > 0 && usage.relations().len() <= CAP);
    let mut databases = Counts::default();
    usage.databases().iter().for_each(|row| databases += row.1);
    assert_eq!((databases, usage.databases().len()), (total, 5));
    // The largest of all is the one whose number reads the largest from its end.
    assert_eq!(usage.relations()[0].0.rel, Oid((0..ROWS).max_by_key(|n| n.reverse_bits() >> 12).unwrap()));
}

#[test]
fn intervals() {
    let width = 60_000_000;
    let mut usage = Usage::new(Wanted { interval: Some(width), ..Wanted::default() });
    let mut part = Part::default();
    let end = |part: &mut Part, size: u64, time: i64, is_commit| {
        part.curve.tail += bytes(size);
        part.curve.end(TimestampTz(time), width, is_commit);
    };
    end(&mut part, 10, 5, true);
    part.curve.tail += bytes(100);
    usage.take(&mut part);
    // What was written since the last end goes to the next one, in another part too; times go back.
    part.curve.tail += bytes(200);
    usage.take(&mut part);
    end(&mut part, 1, 2 * width + 1, false);
    end(&mut part, 2, -1, true);
    part.curve.tail += bytes(7);
    usage.take(&mut part);
    let rows: Vec<_> =
        usage.intervals(1).into_iter().map(|(start, row)| (start.0, row.commits, row.aborts, row.counts.record_size)).collect();
    assert_eq!(rows, [(-width, 1, 0, 2), (0, 1, 0, 10), (2 * width, 0, 1, 301)]);
    assert_eq!(usage.after_last_end(), bytes(7));
    let rows: Vec<_> = usage.intervals(2).into_iter().map(|(start, row)| (start.0, row.counts.record_size)).collect();
    assert_eq!(rows, [(-2 * width, 2), (0, 10), (2 * width, 301)]);
    // More intervals than there is room for become wider.
    for n in 0..150_000 {
        end(&mut part, 1, n * width, true);
        if n % 10_000 == 0 {
            usage.take(&mut part);
        }
    }
    usage.take(&mut part);
    assert_eq!(usage.interval(), 60 * width);
    let rows = usage.intervals(1);
    assert_eq!(rows.len(), 2501);
    assert_eq!(rows.values().map(|row| row.counts.record_size).sum::<u64>(), 150_000 + 313 + 7);
    assert!(rows.values().map(|row| row.commits).sum::<u64>() == 150_002);
}

#[test]
fn the_sample_is_the_same_in_any_order() {
    let numbers: Vec<u64> = (0..5000u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    let sample = |numbers: &mut dyn Iterator<Item = &u64>| {
        let mut images = images::Images::default();
        numbers.for_each(|&number| images.draw(number, || number.to_le_bytes().to_vec()));
        images.sample.into_sorted_vec()
    };
    let forwards = sample(&mut numbers.iter());
    assert_eq!(forwards.len(), 1000);
    assert!(forwards == sample(&mut numbers.iter().rev()));
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    assert_eq!(forwards.iter().map(|sampled| sampled.0).collect::<Vec<_>>(), sorted[..1000]);
}
