//! The parallel scan: the same records and the same end for any number of threads, on good WAL and on damaged WAL.

use std::fs;

use pgwal::scan::Options;
use pgwal::source::Wal as Inputs;
use pgwal::{Lsn, RmgrId, WalFormat};
use pgwal_testkit::read::{Found, random_sizes, scanned, whole};
use pgwal_testkit::wal::{MIB, Placed, RecordBuilder, Wal};

/// Reads the segments in `dir` with so many threads: the records, and the summary as text.
fn read(dir: &std::path::Path, threads: usize, start: Option<Lsn>, end: Option<Lsn>) -> (Vec<Found>, String) {
    let inputs = Inputs::open(&[dir], None).unwrap();
    let (records, summary) = scanned(&inputs, Options { start, end, threads });
    let text = format!("{summary:?}");
    // Messages name the files, which lie elsewhere each time.
    (records, text.replace(&dir.display().to_string(), ""))
}

/// Numbers of threads; with many, what each of them reads is 64 kB.
const THREADS: [usize; 4] = [2, 3, 16, 64];

/// Expects the same from any number of threads, and returns what one reads.
fn same_with_threads(wal: &Wal, what: &str) -> (Vec<Found>, String) {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in wal.segments() {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    let one = read(dir.path(), 1, None, None);
    for threads in THREADS {
        let many = read(dir.path(), threads, None, None);
        assert_eq!(many.1, one.1, "{what}, {threads} threads");
        assert!(many.0 == one.0, "{what}, {threads} threads: {} records, not {}", many.0.len(), one.0.len());
    }
    one
}

/// A few segments with records of all sizes, some of them longer than what a thread reads, a switch, and a lost record.
fn busy() -> Wal {
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(16) }).starting_at(Lsn(32 << 20));
    let mut sizes = random_sizes(7, 3000);
    let mut fill = |wal: &mut Wal, to: u64| {
        while wal.end().0 - wal.start().0 < to {
            wal.record(&RecordBuilder::filler(26 + sizes.next().unwrap()));
        }
        // The next record starts where a thread's part starts.
        wal.fill_to(Lsn((wal.end().0 >> 16 << 16) + (1 << 16) + 24));
        wal.record(&RecordBuilder::filler(100));
    };
    fill(&mut wal, 700_000);
    wal.record(&RecordBuilder::filler(200_000));
    fill(&mut wal, 1_500_000);
    wal.switch();
    wal.record(&RecordBuilder::filler(1_300_000));
    fill(&mut wal, 4_000_000);
    wal.leave_in_segment(16);
    let lost = wal.cut_short(&RecordBuilder::filler(9000), 0);
    wal.overwrite_contrecord(lost);
    fill(&mut wal, 5_000_000);
    wal.leave(304);
    let lost = wal.cut_short(&RecordBuilder::filler(90_000), 4);
    wal.overwrite_contrecord(lost);
    fill(&mut wal, 6_000_000);
    wal
}

#[test]
fn good_wal() {
    let wal = busy();
    let (records, _) = same_with_threads(&wal, "good");
    assert!(records == whole(wal.bytes()).records);
    assert_eq!(records.len(), wal.records().len());
}

#[test]
fn damage_anywhere() {
    let good = busy();
    let mut places = random_sizes(3, good.bytes().len() - 9000);
    for round in 0..40 {
        let mut wal = good.clone();
        let at = wal.start() + places.next().unwrap() as u64;
        let page = Lsn(at.0 / 8192 * 8192);
        let what = match round % 8 {
            0 => ("a zeroed page", wal.patch(page, &[0; 8192])).0,
            1 => ("half a page", wal.patch(page + 4096, &[0; 4096])).0,
            2 => ("no continuation", wal.patch_page(page, |header| header.info.0 ^= 1)).0,
            3 => ("a wrong length of the rest", wal.patch_page(page, |header| header.remaining += 8)).0,
            4 => ("an old page", wal.patch_page(page, |header| header.address = Lsn(header.address.0 - (1 << 20)))).0,
            5 => ("a timeline that is too high", wal.patch_page(page, |header| header.timeline.0 = 5)).0,
            _ => ("a changed byte", wal.patch(at, &[0x42])).0,
        };
        let (records, _) = same_with_threads(&wal, &format!("{what} at {at}"));
        let written = good.records();
        assert!(records.iter().zip(written).all(|(found, written)| found.placed == *written), "{what} at {at}");
    }
}

/// Damage exactly where one thread's part ends and another's starts, which neither of them sees alone.
#[test]
fn damage_at_the_seams() {
    let good = busy();
    let mut stopped = [0; 6];
    let seams = (1..good.bytes().len() as u64 >> 16).map(|part| good.start() + (part << 16));
    let starts = |seam: &Lsn| good.records().iter().any(|record| record.lsn == *seam + 24);
    assert_eq!(seams.clone().filter(starts).count(), 4);
    for seam in seams.clone().filter(starts).chain(seams.clone().step_by(13)) {
        let Some(first) = good.records().iter().find(|record| record.lsn > seam) else { break };
        let previous = good.records().iter().rfind(|record| record.lsn < first.lsn).unwrap();
        for (kind, stopped) in (0..).zip(&mut stopped) {
            let mut wal = good.clone();
            match kind {
                0 => wal.patch_record(first.lsn, 8, &(previous.lsn.0 - 8).to_le_bytes()).refresh_crc(first.lsn),
                1 => wal.patch_page(Lsn(seam.0 - 8192), |header| header.timeline.0 = 2),
                2 => wal.patch_page(seam, |header| header.timeline.0 = 0),
                3 => wal.patch_page(seam, |header| header.info.0 ^= 1),
                4 => wal.patch_page(seam, |header| header.remaining ^= 8),
                _ => wal.patch_record(previous.lsn, 4, &[1]),
            };
            let what = format!("kind {kind} at {seam}");
            let (records, _) = same_with_threads(&wal, &what);
            assert!(records == whole(wal.bytes()).records, "{what}");
            *stopped += usize::from(records.len() < good.records().len());
        }
    }
    // A length of the rest means nothing where no record goes on.
    assert!(stopped.iter().all(|&stopped| stopped > 3), "{stopped:?}");
}

#[test]
fn a_start_and_an_end() {
    let wal = busy();
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in wal.segments() {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    let mut places = random_sizes(11, wal.bytes().len());
    for _ in 0..20 {
        let mut bounds = [0; 2].map(|_| Lsn((wal.start().0 + places.next().unwrap() as u64) & !7));
        bounds.sort();
        let [start, end] = bounds.map(Some);
        let one = read(dir.path(), 1, start, end);
        for found in &one.0 {
            assert!(bounds[0] <= found.placed.lsn && found.placed.lsn < bounds[1]);
        }
        // Every record that lies between the two is there; but in what a switch leaves unused no record is found, as by the server.
        let in_switch = |record: &Placed| record.bytes[16] == 0x40 && (record.lsn + 8192..record.end).contains(&bounds[0]);
        let unused = wal.records().iter().any(in_switch);
        let between = wal.records().iter().filter(|record| !unused && bounds[0] <= record.lsn && record.end <= bounds[1]).count();
        assert!(one.0.len() >= between, "{bounds:?}: {} of {between}", one.0.len());
        for threads in THREADS {
            let many = read(dir.path(), threads, start, end);
            assert_eq!(many.1, one.1, "{bounds:?}, {threads} threads");
            assert!(many.0 == one.0, "{bounds:?}, {threads} threads");
        }
    }
}

#[test]
fn a_missing_segment() {
    let wal = busy();
    for missing in 0..wal.segments().len() {
        let dir = tempfile::tempdir().unwrap();
        for (number, (name, bytes)) in wal.segments().into_iter().enumerate() {
            if number != missing {
                fs::write(dir.path().join(name.to_string()), bytes).unwrap();
            }
        }
        let one = read(dir.path(), 1, None, None);
        for threads in THREADS {
            let many = read(dir.path(), threads, None, None);
            assert_eq!(many.1, one.1, "without segment {missing}, {threads} threads");
            assert!(many.0 == one.0, "without segment {missing}, {threads} threads");
        }
    }
}

/// A record that its header does not fit stops every reader at the same place.
#[test]
fn a_record_that_does_not_decode() {
    let mut wal = busy();
    let mut bytes = RecordBuilder::new(RmgrId(10), 0).main(&[1, 2, 3]).bytes(wal.format(), wal.records().last().unwrap().lsn);
    bytes[24] = 200; // no part of a record has this id
    pgwal_testkit::wal::refresh_crc(&mut bytes);
    wal.raw_record(bytes);
    wal.record(&RecordBuilder::filler(200_000));
    let (_, summary) = same_with_threads(&wal, "a bad part");
    assert!(summary.contains("BlockId"), "{summary}");
}
