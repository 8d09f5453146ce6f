//! Usage statistics, against what the real pg_waldump says of every fixture.

use std::collections::{BTreeMap, HashMap};

use pgwal::Lsn;
use pgwal::scan::{Options, Stop};
use pgwal::source::Wal;
use pgwal::stats::Counts;
use pgwal::text::{Text, Zone};
use pgwal::usage::{self, Cause, Outcome, Usage, Wanted};
use pgwal_testkit::fixtures::{self, Fixture};

const EVERYTHING: Wanted =
    Wanted { relations: true, transactions: true, top: 200_000, interval: Some(1_000_000), segments: true, images: true };

fn count(fixture: &Fixture, threads: usize) -> Usage {
    let wal = Wal::open(&[&fixture.dir], None).unwrap();
    let (usage, summary) = usage::count(&wal, Options { start: None, end: None, threads }, EVERYTHING);
    assert!(matches!(summary.stop, Stop::End(_)), "{}: {:?}", fixture.dir.display(), summary.stop);
    usage
}

fn sum(rows: impl IntoIterator<Item = Counts>) -> Counts {
    let mut sum = Counts::default();
    rows.into_iter().for_each(|counts| sum += counts);
    sum
}

/// Fixtures on one timeline: for the others, the real program was run twice.
fn single_timelines() -> impl Iterator<Item = Fixture> {
    fixtures::with_odd().into_iter().filter(|fixture| fixture.scenario != "timeline2" && fixture.read("stats.txt").is_some())
}

#[test]
fn totals_are_those_of_pg_waldump() {
    let mut compared = 0;
    for fixture in single_timelines() {
        let usage = count(&fixture, 2);
        let fmt = usage.format().unwrap();
        let mut text = Text::new(fmt, Zone::utc());
        usage.stats().write_text(true, fmt, usage.start().unwrap(), &mut text);
        let expected = String::from_utf8(fixture.read("stats.txt").unwrap()).unwrap();
        // The stored output may be of both forms; the one by record type is the one with a slash in its first name.
        assert!(expected.contains("XLOG/") || expected.contains("Heap/"), "{}", fixture.dir.display());
        let start_line = |text: &str| text.lines().find(|line| line.starts_with("WAL statistics")).map(str::to_owned);
        let rows = |text: &str| text.lines().filter(|line| !line.starts_with("WAL statistics")).collect::<Vec<_>>().join("\n");
        let ours = text.to_string_lossy();
        assert_eq!(rows(&ours), rows(&expected), "{}", fixture.dir.display());
        // It says where it was told to start, not where the first record is.
        let end = |line: Option<String>| line.map(|line| line.split_whitespace().last().unwrap().to_owned());
        assert_eq!(end(start_line(&ours)), end(start_line(&expected)), "{}", fixture.dir.display());
        compared += 1;
    }
    assert!(compared >= 40, "only {compared} fixtures");
}

#[test]
fn tables_add_up_with_any_number_of_threads() {
    for fixture in fixtures::with_odd() {
        let what = fixture.dir.display();
        let one = count(&fixture, 1);
        let total = one.total();
        assert!(total.count > 0, "{what}");
        let relations = sum(one.relations().into_iter().map(|row| row.1));
        assert_eq!(sum([relations, one.without_relation(), one.other_relations().counts]), total, "{what}");
        assert_eq!(sum(one.databases().into_iter().map(|row| row.1)), relations, "{what}");
        let transactions = sum(one.transactions().iter().map(|row| row.counts));
        assert_eq!(sum([transactions, one.without_transaction()]), total, "{what}");
        assert_eq!(one.all_transactions().counts, transactions, "{what}");
        let intervals = sum(one.intervals(1).into_values().map(|row| row.counts));
        assert_eq!(sum([intervals, one.after_last_end()]), total, "{what}");
        assert_eq!(sum(one.segments().iter().map(|row| row.1)), total, "{what}");
        let images = one.images();
        let sizes = images.iter().fold((0, 0), |sum, row| (sum.0 + row.count, sum.1 + row.size));
        assert_eq!(sizes, (total.fpi_count, total.fpi_size), "{what}");
        assert!(images.iter().all(|row| row.size <= row.raw_size && row.raw_size <= row.page_size), "{what}");
        assert_eq!(one.bad_payloads().0, 0, "{what}");
        for threads in [2, 16, 64] {
            let many = count(&fixture, threads);
            assert_eq!(many.total(), total, "{what}, {threads} threads");
            assert_eq!(many.relations(), one.relations(), "{what}, {threads} threads");
            assert_eq!(many.transactions(), one.transactions(), "{what}, {threads} threads");
            assert_eq!(many.intervals(1), one.intervals(1), "{what}, {threads} threads");
            assert_eq!(many.segments(), one.segments(), "{what}, {threads} threads");
            assert_eq!(many.checkpoints(), one.checkpoints(), "{what}, {threads} threads");
            assert_eq!(many.images(), images, "{what}, {threads} threads");
            assert_eq!(many.compression_estimates(), one.compression_estimates(), "{what}, {threads} threads");
            assert_eq!(many.ends(), one.ends(), "{what}, {threads} threads");
        }
    }
}

/// What a line of pg_waldump says of a record.
struct Line<'t> {
    text: &'t str,
    xid: u32,
    record_size: u64,
    size: u64,
}

/// `rmgr: Heap len (rec/tot): 54/ 8150, tx: 740, lsn: …, desc: …, blkref #0: rel 1663/5/16384 blk 7 FPW`.
fn line(text: &str) -> Option<Line<'_>> {
    let (_, rest) = text.split_once("len (rec/tot):")?;
    let (record_size, rest) = rest.split_once('/')?;
    let (size, rest) = rest.split_once(", tx:")?;
    let (xid, _) = rest.split_once(',')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    Some(Line { text, xid: number(xid)? as u32, record_size: number(record_size)?, size: number(size)? })
}

/// Relations and transactions, counted from the text that the real program printed.
#[test]
fn relations_and_transactions_are_those_of_the_text() {
    let (mut relations, mut transactions) = (0, 0);
    for fixture in single_timelines() {
        let what = fixture.dir.display();
        let text = String::from_utf8_lossy(&fixture.read("waldump.txt").unwrap()).into_owned();
        let mut by_relation: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
        let mut open: HashMap<u32, (u64, u64)> = HashMap::new();
        let mut committed: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for line in text.lines().filter_map(line) {
            let mut blocks = line.text.split(", blkref #").skip(1).peekable();
            let rel = |block: &str| block.split_whitespace().nth(2).map(str::to_owned);
            if let Some(first) = blocks.peek().and_then(|block| rel(block)) {
                let row = by_relation.entry(first).or_default();
                (row.0, row.1) = (row.0 + 1, row.1 + line.record_size);
            }
            for block in blocks.filter(|block| block.contains(" FPW")) {
                by_relation.entry(rel(block).unwrap()).or_default().2 += 1;
            }
            if line.xid > 0 {
                let row = open.entry(line.xid).or_default();
                *row = (row.0 + 1, row.1 + line.size);
            }
            if line.text.contains("desc: COMMIT 2") {
                let (count, size) = open.remove(&line.xid).unwrap();
                let subxacts = line.text.split_once("subxacts: ").map_or("", |(_, rest)| rest.split(';').next().unwrap_or_default());
                let subxacts: Vec<_> =
                    subxacts.split_whitespace().map(|xid| open.remove(&xid.parse().unwrap()).unwrap_or_default()).collect();
                let total = subxacts.iter().fold((count, size), |sum, sub| (sum.0 + sub.0, sum.1 + sub.1));
                committed.insert(line.xid, total);
            }
        }
        let usage = count(&fixture, 2);
        let ours: BTreeMap<String, _> =
            usage.relations().into_iter().map(|(rel, row)| (rel.to_string(), (row.count, row.record_size, row.fpi_count))).collect();
        assert_eq!(ours, by_relation, "{what}");
        relations += ours.len();
        let ours: HashMap<u32, _> = usage.transactions().into_iter().map(|row| (row.xid.0, row)).collect();
        for (xid, (count, size)) in committed {
            let row = ours.get(&xid).unwrap_or_else(|| panic!("{what}: {xid}"));
            assert_eq!((row.counts.count, row.counts.combined_size()), (count, size), "{what}: {xid}");
            assert_eq!(row.outcome, Outcome::Committed, "{what}: {xid}");
            transactions += 1;
        }
    }
    assert!(relations > 1000 && transactions > 1000, "{relations} relations, {transactions} transactions");
}

/// The scenario: a backup, a crash with a transaction open and one prepared, recovery, a crash right after, recovery.
#[test]
fn a_crash_is_told_from_a_shutdown() {
    let mut seen = 0;
    for fixture in fixtures::all().into_iter().filter(|fixture| fixture.scenario == "crash") {
        let what = fixture.dir.display();
        let usage = count(&fixture, 2);
        let checkpoints = usage.checkpoints();
        assert!(checkpoints.iter().any(|row| row.cause == Cause::Backup), "{what}: {checkpoints:?}");
        let crashes: Vec<_> = checkpoints.iter().filter(|row| row.cause == Cause::CrashRecovery).collect();
        assert_eq!(crashes.len(), 1, "{what}: {checkpoints:?}");
        let lost: Vec<_> = usage.transactions().into_iter().filter(|row| row.outcome == Outcome::Lost).collect();
        assert_eq!(lost.len() as u64, crashes[0].lost_transactions, "{what}");
        assert!(lost.iter().all(|row| row.end.is_none() && row.time.is_none() && row.first < crashes[0].lsn), "{what}: {lost:?}");
        for pair in checkpoints.windows(2) {
            assert_eq!(pair[1].distance, Some(pair[1].redo - pair[0].redo), "{what}");
        }
        assert_eq!(checkpoints[0].distance, None, "{what}");
        seen += 1;
    }
    assert_eq!(seen, 10);
}

#[test]
fn a_promotion_is_followed_by_its_checkpoint() {
    for fixture in fixtures::all().into_iter().filter(|fixture| fixture.scenario == "timeline2") {
        let usage = count(&fixture, 2);
        let on_two: Vec<Cause> = usage.checkpoints().iter().filter(|row| row.timeline.0 == 2).map(|row| row.cause).collect();
        assert!(
            matches!(on_two[..], [Cause::Promotion | Cause::EndOfRecovery, ..]),
            "{}: {:?}",
            fixture.dir.display(),
            usage.checkpoints()
        );
    }
}

#[test]
fn parts_of_the_wal() {
    let fixture = fixtures::all().into_iter().find(|fixture| (fixture.major, &fixture.scenario[..]) == (17, "workload")).unwrap();
    let whole = count(&fixture, 1);
    let wal = Wal::open(&[&fixture.dir], None).unwrap();
    let middle = Lsn((whole.start().unwrap().0 + whole.end().unwrap().0) / 2);
    let part = |start, end| usage::count(&wal, Options { start, end, threads: 2 }, EVERYTHING).0;
    let (first, second) = (part(None, Some(middle)), part(Some(middle), None));
    let cut = whole.total().count - first.total().count - second.total().count;
    // The record that stands over the middle is in neither.
    assert!(cut <= 1, "{cut} records are in neither part");
    assert!(first.total().count > 1000 && second.total().count > 1000);
}
