use std::collections::{BTreeMap, HashMap};

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
    Assign(u32, u32),
    Crash,
}

/// Transactions one record after the other, as the module says they are counted.
#[derive(Default)]
struct Model {
    open: BTreeMap<u32, (Counts, bool)>,
    parents: HashMap<u32, u32>,
    ended: Vec<(u32, Outcome, Counts)>,
}

impl Model {
    fn add(&mut self, xid: u32, counts: Counts) {
        let xid = self.parents.get(&xid).copied().unwrap_or(xid);
        self.open.entry(xid).or_default().0 += counts;
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Record(xid, size) => self.add(*xid, bytes(*size)),
            Op::Assign(xid, top) if xid != top => {
                let top = self.parents.get(top).copied().unwrap_or(*top);
                if self.parents.insert(*xid, top).is_none()
                    && let Some((counts, _)) = self.open.remove(xid)
                {
                    self.open.entry(top).or_default().0 += counts;
                }
            }
            Op::Assign(..) => {}
            Op::End(xid, subxacts, outcome) => {
                if let Some(parent) = self.parents.remove(xid) {
                    for sub in subxacts {
                        let (counts, _) = self.open.remove(sub).unwrap_or_default();
                        self.parents.remove(sub);
                        self.open.entry(parent).or_default().0 += counts;
                    }
                    self.open.entry(parent).or_default();
                    return;
                }
                let (mut counts, _) = self.open.remove(xid).unwrap_or_default();
                for sub in subxacts {
                    counts += self.open.remove(sub).unwrap_or_default().0;
                    self.parents.remove(sub);
                }
                match outcome {
                    Outcome::Prepared => {
                        self.open.insert(*xid, (counts, true));
                    }
                    outcome => self.ended.push((*xid, *outcome, counts)),
                }
            }
            Op::Crash => {
                self.parents.clear();
                let lost: Vec<u32> = self.open.iter().filter(|(_, (_, prepared))| !prepared).map(|(xid, _)| *xid).collect();
                for xid in lost {
                    let (counts, _) = self.open.remove(&xid).unwrap();
                    self.ended.push((xid, Outcome::Lost, counts));
                }
            }
        }
    }

    fn rows(self) -> Vec<(u32, Outcome, Counts)> {
        let open = self.open.into_iter();
        let open = open.map(|(xid, (counts, prepared))| (xid, if prepared { Outcome::Prepared } else { Outcome::Open }, counts));
        let mut rows: Vec<_> = self.ended.into_iter().chain(open).collect();
        rows.sort_by_key(|row| (row.0, row.1, row.2.combined_size()));
        rows
    }
}

fn run(op: &Op, part: &mut Part, lsn: Lsn) {
    match op {
        Op::Record(xid, size) => part.transactions.add(Xid(*xid), lsn, bytes(*size)),
        Op::Assign(xid, top) => part.events.push(Event::Assign { xids: [Xid(*xid)].into(), top: Xid(*top) }),
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

/// Work of four transactions, each with two subtransactions that can be live at the same time.
fn sensible(dice: &mut Dice) -> Vec<Op> {
    // Some of them share a place in the cache.
    const TOPS: [(u32, [u32; 2]); 4] = [(700, [1724, 5]), (701, [1725, 2749]), (702, [9000, 2748]), (5_000_000, [2750, 5_000_001])];
    let mut ops = Vec::new();
    let mut live: Vec<u32> = Vec::new();
    while ops.len() < 200 {
        let (top, subs) = TOPS[dice.below(4) as usize];
        let sub = subs[dice.below(2) as usize];
        match dice.below(20) {
            0 => ops.push(Op::Assign(sub, top)),
            1 if dice.below(4) == 0 => {
                ops.push(Op::Crash);
                live.clear();
            }
            2 => {
                ops.push(Op::End(sub, Vec::new(), Outcome::Aborted));
                live.retain(|&xid| xid != sub);
            }
            3 => {
                // Whatever is live is either rolled back alone, or ends with the whole.
                let (aborted, ended): (Vec<u32>, Vec<u32>) =
                    subs.into_iter().filter(|sub| live.contains(sub)).partition(|_| dice.below(2) == 0);
                ops.extend(aborted.into_iter().map(|sub| Op::End(sub, Vec::new(), Outcome::Aborted)));
                let outcome = [Outcome::Committed, Outcome::Aborted, Outcome::Prepared][dice.below(3) as usize];
                ops.push(Op::End(top, ended, outcome));
                live.retain(|xid| !subs.contains(xid));
            }
            4..12 => {
                ops.push(Op::Record(sub, dice.below(1000)));
                live.push(sub);
            }
            _ => ops.push(Op::Record(top, dice.below(1000))),
        }
    }
    ops
}

/// However the WAL is cut into parts, transactions are counted as one record after the other.
#[test]
fn transactions_in_parts() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let ops = sensible(&mut dice);
        let mut model = Model::default();
        let mut usage = Usage::new(Wanted { top: 1000, ..Wanted::default() });
        let mut part = Part::default();
        for (at, op) in ops.iter().enumerate() {
            model.run(op);
            run(op, &mut part, Lsn(at as u64));
            // Every other seed is one part.
            if seed % 2 == 0 && dice.below(10) == 0 {
                usage.take(&mut part);
            }
        }
        usage.take(&mut part);
        let mut rows: Vec<_> = usage.transactions().iter().map(|row| (row.xid.0, row.outcome, row.counts)).collect();
        rows.sort_by_key(|row| (row.0, row.1, row.2.combined_size()));
        let expected = model.rows();
        assert_eq!(rows, expected, "seed {seed}: {ops:?}");
        let mut all = Others::default();
        expected.iter().for_each(|row| all.add(row.2));
        assert_eq!(usage.all_transactions(), all, "seed {seed}");
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
