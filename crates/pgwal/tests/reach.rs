//! Can I restore? On built WAL, on real promotions, and on the archive of a running server, whose own recovery is the judge.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgwal::backup_label::BackupLabel;
use pgwal::base_backup::{BaseBackup, ManifestEnd};
use pgwal::check::{Class, Finding};
use pgwal::history::History;
use pgwal::reach::{Caveat, Doubt, Obstacle, Outcome, Reach, Request, Target, TargetTimeline, reach};
use pgwal::source::Archive;
use pgwal::types::{TimestampTz, Xid};
use pgwal::{Lsn, RmgrId, TimelineId, WalFormat};
use pgwal_testkit::fixtures::{self, Fixture};
use pgwal_testkit::server::{PATIENCE, Postgres, Server, wait_until};
use pgwal_testkit::wal::{MIB, RecordBuilder, Wal};

const SIZE: u64 = 1 << 20;

fn ask(dir: &Path, target: Target, request: Request<'_>) -> Reach {
    let archive = Archive::open(&[dir]).unwrap();
    let many = reach(&archive, Request { target: &target, threads: 4, ..request });
    let one = reach(&archive, Request { target: &target, threads: 1, ..request });
    assert_eq!(many, one);
    one
}

const PLAIN: Request<'static> = Request {
    target: &Target::Latest,
    inclusive: true,
    backup: None,
    timeline: TargetTimeline::Latest,
    system_identifier: None,
    findings: &[],
    threads: 1,
};

/// Names of the files of an answer.
fn files(answer: &Reach) -> Vec<String> {
    let name = |input: &String| Path::new(input).file_name().unwrap().to_string_lossy().trim_end_matches(".zst").to_owned();
    answer.files.iter().map(name).collect()
}

fn segment(n: u32) -> String {
    format!("0000000100000000000000{n:02X}")
}

/// WAL of four segments with a base backup that starts in the second and ends in the third, and a commit each 5000 bytes.
struct Built {
    dir: tempfile::TempDir,
    label: BackupLabel,
    /// Start of the record that ends the backup.
    backup_end: Lsn,
    /// Start and time of each commit.
    commits: Vec<(Lsn, TimestampTz)>,
    end: Lsn,
}

fn built() -> Built {
    built_with(|_| {})
}

/// The same, with what `more` adds in the third segment, after the end of the backup.
fn built_with(more: impl FnOnce(&mut Wal)) -> Built {
    let fmt = WalFormat { segment_size: MIB, ..WalFormat::new(16) };
    let mut wal = Wal::new(fmt);
    let mut commits: Vec<(Lsn, TimestampTz)> = Vec::new();
    let mut go_on = |wal: &mut Wal, to: u64| {
        while wal.end().0 < to {
            wal.record(&RecordBuilder::filler(5000));
            let time = TimestampTz(1_000_000 * (commits.len() as i64 + 1));
            let lsn = wal.record(&RecordBuilder::new(RmgrId::XACT, 0x00).xid(700).main(&time.0.to_le_bytes()));
            commits.push((lsn, time));
        }
    };
    go_on(&mut wal, 2 * SIZE + 300_000);
    let redo = wal.position();
    go_on(&mut wal, 2 * SIZE + 400_000);
    let mut checkpoint = vec![0; 88];
    checkpoint[..8].copy_from_slice(&redo.0.to_le_bytes());
    checkpoint[8..16].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
    let checkpoint = wal.record(&RecordBuilder::new(RmgrId::XLOG, 0x10).main(&checkpoint));
    go_on(&mut wal, 3 * SIZE + 200_000);
    let backup_end = wal.record(&RecordBuilder::new(RmgrId::XLOG, 0x50).main(&redo.0.to_le_bytes()));
    go_on(&mut wal, 3 * SIZE + 500_000);
    more(&mut wal);
    go_on(&mut wal, 4 * SIZE + 500_000);
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in wal.segments() {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    let label = format!(
        "START WAL LOCATION: {redo} (file {})\nCHECKPOINT LOCATION: {checkpoint}\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n",
        segment(2)
    );
    Built { dir, label: BackupLabel::parse(label.as_bytes()).unwrap(), backup_end, commits, end: wal.end() }
}

#[test]
fn yes_with_the_files_it_takes() {
    let Built { dir, label, commits, end, .. } = built();
    let backup = BaseBackup::from(label.clone());
    let from_backup = Request { backup: Some(&backup), ..PLAIN };
    let answer = ask(dir.path(), Target::Latest, PLAIN);
    let last = commits.last().unwrap();
    assert_eq!(answer.outcome, Outcome::Yes { end, last_transaction: Some(last.1), partial: None });
    assert_eq!(files(&answer), [1, 2, 3, 4].map(segment));
    assert_eq!((answer.start, answer.timeline), (Some(Lsn(SIZE)), Some(TimelineId(1))));
    let answer = ask(dir.path(), Target::Latest, from_backup);
    assert_eq!(files(&answer), [2, 3, 4].map(segment));
    assert_eq!(answer.start, Some(label.start));
    // Up to a record that starts where it was asked for, or later.
    let in_third = commits.iter().filter(|(lsn, _)| lsn.0 > 3 * SIZE + 300_000).map(|commit| commit.0).next().unwrap();
    for target in [in_third, Lsn(in_third.0 - 8)] {
        let answer = ask(dir.path(), Target::Lsn(target), from_backup);
        assert_eq!(files(&answer), [2, 3].map(segment), "{answer}");
        assert!(matches!(answer.outcome, Outcome::Yes { end, .. } if end > in_third), "{answer}");
    }
    // A time is passed by the first commit after it.
    let at = commits.iter().position(|(lsn, _)| *lsn == in_third).unwrap();
    for time in [commits[at - 1].1, TimestampTz(commits[at].1.0 - 1)] {
        let answer = ask(dir.path(), Target::Time(time), from_backup);
        let expected = Outcome::Yes { end: in_third, last_transaction: Some(commits[at - 1].1), partial: None };
        assert_eq!(answer.outcome, expected);
        assert_eq!(files(&answer), [2, 3].map(segment));
    }
    // Older segments are not needed, nor what comes after the target.
    fs::remove_file(dir.path().join(segment(1))).unwrap();
    fs::remove_file(dir.path().join(segment(4))).unwrap();
    assert!(ask(dir.path(), Target::Lsn(in_third), from_backup).is_yes());
}

#[test]
fn no_with_what_is_in_the_way() {
    let Built { dir, label, backup_end, commits, end } = built();
    let backup = BaseBackup::from(label.clone());
    let from_backup = Request { backup: Some(&backup), ..PLAIN };
    let obstacle = |dir: &Path, target, request| match ask(dir, target, request).outcome {
        Outcome::No { obstacle, .. } => obstacle,
        yes => panic!("{yes:?}"),
    };
    // Nothing starts there: like the server, which wants a record to stop at.
    let last = commits.last().unwrap();
    assert_eq!(obstacle(dir.path(), Target::Lsn(end), PLAIN), Obstacle::End { end, last_transaction: Some(last.1) });
    assert_eq!(obstacle(dir.path(), Target::Time(last.1), PLAIN), Obstacle::End { end, last_transaction: Some(last.1) });
    // Too early.
    let early = Obstacle::BeforeConsistency { consistent: Some(Lsn(backup_end.0 + 40)) };
    let before = commits.iter().rfind(|(lsn, _)| *lsn < backup_end).unwrap();
    assert_eq!(obstacle(dir.path(), Target::Lsn(before.0), from_backup), early);
    assert_eq!(obstacle(dir.path(), Target::Lsn(Lsn(1)), from_backup), early);
    assert_eq!(obstacle(dir.path(), Target::Time(TimestampTz(before.1.0 - 1)), from_backup), early);
    assert!(ask(dir.path(), Target::Lsn(backup_end), from_backup).is_yes());
    assert_eq!(obstacle(dir.path(), Target::Lsn(Lsn(SIZE)), PLAIN), Obstacle::BeforeConsistency { consistent: Some(Lsn(SIZE + 40)) });
    assert_eq!(obstacle(dir.path(), Target::Time(TimestampTz(1)), PLAIN), Obstacle::BeforeConsistency { consistent: Some(Lsn(SIZE + 40)) });
    // A label that does not belong to this WAL.
    let moved = BaseBackup::from(BackupLabel { checkpoint: commits[90].0, ..label.clone() });
    let request = Request { backup: Some(&moved), ..PLAIN };
    assert_eq!(obstacle(dir.path(), Target::Latest, request), Obstacle::NoCheckpoint { expected: commits[90].0 });
    let moved = BaseBackup::from(BackupLabel { start: Lsn(label.start.0 + 8), ..label.clone() });
    let request = Request { backup: Some(&moved), ..PLAIN };
    let place = moved.start();
    assert!(matches!(obstacle(dir.path(), Target::Latest, request), Obstacle::Damaged { lsn, .. } if lsn == place));
    let incremental = BaseBackup::from(BackupLabel { incremental_from: Some(Lsn(8)), ..label.clone() });
    assert_eq!(obstacle(dir.path(), Target::Latest, Request { backup: Some(&incremental), ..PLAIN }), Obstacle::Incremental);
    // A timeline without a history file.
    let request = Request { timeline: TargetTimeline::Id(TimelineId(2)), ..PLAIN };
    assert_eq!(obstacle(dir.path(), Target::Latest, request), Obstacle::NoHistory { file: "00000002.history".to_owned() });
    fs::write(dir.path().join("00000002.history"), "1\n").unwrap();
    assert!(matches!(obstacle(dir.path(), Target::Latest, PLAIN), Obstacle::History { input, .. } if input.ends_with("/00000002.history")));
    // The backup was taken on timeline 1 after that had been left.
    let switch = Lsn(label.start.0 - 8);
    fs::write(dir.path().join("00000002.history"), format!("1\t{switch}\tx\n")).unwrap();
    let expected = Obstacle::NotDescendant {
        timeline: TimelineId(2),
        start_timeline: TimelineId(1),
        expected: TimelineId(2),
        start: label.checkpoint,
    };
    assert_eq!(obstacle(dir.path(), Target::Latest, from_backup), expected);
    let current = Request { timeline: TargetTimeline::Current, ..from_backup };
    assert!(ask(dir.path(), Target::Latest, current).is_yes());
    fs::remove_file(dir.path().join("00000002.history")).unwrap();
    // Damage on the way, seen while reading, or told by a finding; but not after the target.
    let third = dir.path().join(segment(3));
    let good = fs::read(&third).unwrap();
    let mut bad = good.clone();
    bad[500_000] ^= 1;
    fs::write(&third, bad).unwrap();
    let found = obstacle(dir.path(), Target::Latest, from_backup);
    assert!(
        matches!(&found, Obstacle::Damaged { input, lsn: Some(lsn), reason }
        if *input == third.display().to_string() && lsn.0 > 3 * SIZE + 490_000 && reason.starts_with("xl_crc: ")),
        "{found:?}"
    );
    assert!(ask(dir.path(), Target::Lsn(backup_end), from_backup).is_yes());
    fs::write(&third, &good).unwrap();
    let mut finding = Finding {
        input: third.display().to_string(),
        segment: segment(3).parse().ok(),
        offsets: None,
        lsns: Some(Lsn(3 * SIZE + 500_000)..Lsn(3 * SIZE + 500_008)),
        record: None,
        class: Class::Malformed,
        problem: None,
        whole_copy: None,
    };
    let with = |finding: &Finding, target| ask(dir.path(), target, Request { findings: std::slice::from_ref(finding), ..from_backup });
    let answer = with(&finding, Target::Latest);
    assert!(answer.to_string().contains("003 is damaged at 0/0037A120: malformed"), "{answer}");
    assert_eq!(files(&answer), [2, 3].map(segment));
    assert!(with(&finding, Target::Lsn(backup_end)).is_yes());
    finding.class = Class::NotZero;
    assert!(with(&finding, Target::Latest).is_yes());
    // Missing.
    let missing = |n: u32, gap, end: Option<Lsn>| Obstacle::Missing { segment: segment(n).parse().unwrap(), end, gap, partial: None };
    fs::remove_file(&third).unwrap();
    let found = obstacle(dir.path(), Target::Latest, from_backup);
    assert!(matches!(found, Obstacle::Missing { end: Some(end), .. } if end < Lsn(3 * SIZE) && end.0 > 3 * SIZE - 6000), "{found:?}");
    assert!(matches!(found, Obstacle::Missing { segment: name, gap: true, partial: None, .. } if name.to_string() == segment(3)));
    fs::remove_file(dir.path().join(segment(4))).unwrap();
    fs::write(dir.path().join(segment(3) + ".partial"), &good).unwrap();
    let Obstacle::Missing { gap, partial, .. } = obstacle(dir.path(), Target::Latest, from_backup) else { panic!() };
    assert!(!gap && partial.unwrap().ends_with(".partial"));
    // Without a backup, the WAL just ends there; the file has more.
    let Outcome::Yes { partial: Some(partial), .. } = ask(dir.path(), Target::Latest, PLAIN).outcome else { panic!() };
    assert!(partial.ends_with(".partial"));
    fs::remove_file(dir.path().join(segment(2))).unwrap();
    assert_eq!(obstacle(dir.path(), Target::Latest, from_backup), missing(2, true, None)); // the next one is there as .partial
}

/// PARAMETER_CHANGE of 16: max_connections, max_worker_processes, max_wal_senders, max_prepared_transactions, max_locks_per_transaction,
/// and wal_level.
fn parameters(values: [i32; 6]) -> RecordBuilder {
    let mut main: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    main.extend([0; 4]);
    RecordBuilder::new(RmgrId::XLOG, 0x60).main(&main)
}

#[test]
fn what_stops_a_server_in_between() {
    let Built { dir, label, commits, backup_end, .. } = built_with(|wal| {
        wal.record(&parameters([100, 8, 10, 0, 64, 0]));
    });
    let backup = BaseBackup::from(label);
    let from_backup = Request { backup: Some(&backup), ..PLAIN };
    let Outcome::No { obstacle: Obstacle::MinimalWal { lsn: Some(lsn) }, how_far } = ask(dir.path(), Target::Latest, from_backup).outcome
    else {
        panic!()
    };
    let last = commits.iter().rfind(|(start, _)| *start < lsn).unwrap();
    let how_far = how_far.unwrap();
    assert_eq!((how_far.end, how_far.last_transaction, how_far.opens), (lsn, Some(last.1), false));
    // Up to there, all is well: the record itself is not replayed.
    assert!(ask(dir.path(), Target::Time(TimestampTz(last.1.0 - 1)), from_backup).is_yes());
    assert!(ask(dir.path(), Target::Lsn(backup_end), from_backup).is_yes());
    let exclusive = Request { inclusive: false, ..from_backup };
    assert!(ask(dir.path(), Target::Lsn(lsn), exclusive).is_yes());
    assert!(!ask(dir.path(), Target::Lsn(lsn), from_backup).is_yes());
    assert!(!ask(dir.path(), Target::Time(last.1), from_backup).is_yes());
}

/// Before 14 a server with hot_standby off only warns, and opens with what may be missing: still no restore.
#[test]
fn minimal_wal_of_a_server_that_only_warns() {
    let fmt = WalFormat { segment_size: MIB, ..WalFormat::new(13) };
    let mut wal = Wal::new(fmt);
    let commit = |seconds: i64| RecordBuilder::new(RmgrId::XACT, 0x00).xid(700).main(&(seconds * 1_000_000).to_le_bytes());
    wal.record(&commit(1));
    let minimal = wal.record(&parameters([100, 8, 10, 0, 64, 0]));
    wal.record(&commit(2));
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in wal.segments() {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    let answer = ask(dir.path(), Target::Latest, PLAIN);
    let Outcome::No { obstacle: Obstacle::MinimalWal { lsn }, how_far: Some(how_far) } = &answer.outcome else { panic!("{answer}") };
    assert_eq!((*lsn, how_far.opens, how_far.last_transaction), (Some(minimal), true, Some(TimestampTz(2_000_000))));
    assert!(answer.to_string().ends_with("a server of this version only warns, and opens with data that may be missing"), "{answer}");
    assert!(ask(dir.path(), Target::Lsn(minimal), Request { inclusive: false, ..PLAIN }).is_yes());
}

/// A backup that began after the target time: a server opens with all that it contains.
#[test]
fn a_backup_that_began_after_the_target_time() {
    const BEGAN: i64 = 1_764_000_000;
    let began = BEGAN * 1_000_000 - TimestampTz::UNIX_EPOCH_OFFSET;
    let fmt = WalFormat { segment_size: MIB, ..WalFormat::new(16) };
    let mut wal = Wal::new(fmt);
    wal.record(&RecordBuilder::filler(100));
    let redo = wal.position();
    wal.record(&RecordBuilder::filler(100));
    let mut checkpoint = vec![0; 88];
    checkpoint[..8].copy_from_slice(&redo.0.to_le_bytes());
    checkpoint[8..16].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
    checkpoint[64..72].copy_from_slice(&BEGAN.to_le_bytes());
    let checkpoint = wal.record(&RecordBuilder::new(RmgrId::XLOG, 0x10).main(&checkpoint));
    wal.record(&RecordBuilder::new(RmgrId::XLOG, 0x50).main(&redo.0.to_le_bytes()));
    let commits = [5_000_000, 9_000_000].map(|after| {
        let time = TimestampTz(began + after);
        (wal.record(&RecordBuilder::new(RmgrId::XACT, 0x00).xid(700).main(&time.0.to_le_bytes())), time)
    });
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in wal.segments() {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    let label = format!("START WAL LOCATION: {redo} (file {})\nCHECKPOINT LOCATION: {checkpoint}\nBACKUP METHOD: streamed\n", segment(1));
    let backup = BaseBackup::from(BackupLabel::parse(label.as_bytes()).unwrap());
    let ask_at = |time: i64| ask(dir.path(), Target::Time(TimestampTz(time)), Request { backup: Some(&backup), ..PLAIN });
    // The checkpoint's time is that of a second, in which there may have been commits that the backup has.
    for time in [began - 1, began, began + 999_999] {
        let answer = ask_at(time);
        let Outcome::No { obstacle: Obstacle::BeforeBackup { began: found }, how_far: Some(how_far) } = &answer.outcome else {
            panic!("{answer}")
        };
        assert_eq!((found.0, how_far.opens, how_far.end, how_far.last_transaction), (began, true, commits[0].0, None));
    }
    for (time, end, last) in [(began + 1_000_000, commits[0].0, None), (commits[0].1.0, commits[1].0, Some(commits[0].1))] {
        assert_eq!(ask_at(time).outcome, Outcome::Yes { end, last_transaction: last, partial: None });
    }
}

/// What the backup has in its own pg_wal a server reads as it is; only what it fetches must have the right size.
#[test]
fn a_short_segment_in_the_backups_own_wal() {
    let Built { dir, label, commits, .. } = built();
    let own = dir.path().join("own");
    fs::create_dir(&own).unwrap();
    let moved = own.join(segment(4));
    fs::rename(dir.path().join(segment(4)), &moved).unwrap();
    let archive = tempfile::tempdir().unwrap();
    for n in 1..=3 {
        fs::rename(dir.path().join(segment(n)), archive.path().join(segment(n))).unwrap();
    }
    let ask = |target: Target| {
        let backup = BaseBackup { label: Some(label.clone()), wal: Archive::open(&[&own]).ok(), ..BaseBackup::default() };
        ask(archive.path(), target, Request { backup: Some(&backup), ..PLAIN })
    };
    let last = commits.last().unwrap();
    assert!(ask(Target::Lsn(last.0)).is_yes());
    let len = 300_000;
    fs::File::options().write(true).open(&moved).unwrap().set_len(len).unwrap();
    let whole = 4 * SIZE + len / 8192 * 8192;
    let reached = commits.iter().rfind(|(lsn, _)| lsn.0 + 40 < whole).unwrap();
    assert!(ask(Target::Lsn(reached.0)).is_yes());
    let answer = ask(Target::Lsn(last.0));
    let Outcome::No { obstacle: Obstacle::Damaged { input, reason, .. }, how_far: Some(how_far) } = &answer.outcome else {
        panic!("{answer}")
    };
    assert!(*input == moved.display().to_string() && reason == "it has 300000 bytes instead of 1048576", "{answer}");
    assert_eq!(how_far.last_transaction, Some(reached.1));
    // A server that has no target opens there.
    let answer = ask(Target::Latest);
    assert!(matches!(&answer.outcome, Outcome::No { how_far: Some(how_far), .. } if how_far.opens), "{answer}");
    fs::write(&moved, "").unwrap();
    assert!(!ask(Target::Lsn(reached.0)).is_yes());
}

#[test]
fn what_a_server_needs_besides() {
    let mut place = Lsn(0);
    let create = [&16_400_u32.to_le_bytes()[..], b"/srv/fast\0"].concat();
    let Built { dir, label, backup_end, .. } = built_with(|wal| {
        wal.record(&parameters([100, 8, 10, 0, 64, 1]));
        place = wal.record(&parameters([200, 8, 10, 3, 64, 1]));
        wal.record(&parameters([150, 8, 10, 0, 64, 1]));
        wal.record(&RecordBuilder::new(RmgrId(5), 0x00).main(&create));
    });
    let backup = BaseBackup::from(label);
    let from_backup = Request { backup: Some(&backup), ..PLAIN };
    let answer = ask(dir.path(), Target::Latest, from_backup);
    assert!(answer.is_yes(), "{answer}");
    let setting = |setting, needed| Caveat::Setting { setting, needed, had: None, lsn: place, pauses: true };
    assert_eq!(answer.caveats[..2], [setting("max_connections", 200), setting("max_prepared_transactions", 3)]);
    assert!(matches!(&answer.caveats[2..], [Caveat::Tablespace { oid: 16_400, directory, lsn: Some(_) }] if directory == "/srv/fast"));
    assert_eq!(ask(dir.path(), Target::Lsn(backup_end), from_backup).caveats, []);
}

#[test]
fn transactions_names_and_the_consistent_point() {
    let mut point = [0; 72];
    point[8..14].copy_from_slice(b"before");
    let point = RecordBuilder::new(RmgrId::XLOG, 0x70).main(&point);
    let end = RecordBuilder::new(RmgrId::XACT, 0x00).xid(777).main(&900_000_000_i64.to_le_bytes());
    let mut places = Vec::new();
    let Built { dir, label, backup_end, .. } = built_with(|wal| {
        places.push(wal.record(&point));
        places.push(wal.record(&end));
        places.push(wal.record(&point));
    });
    let backup = BaseBackup::from(label);
    let from_backup = Request { backup: Some(&backup), ..PLAIN };
    let exclusive = Request { inclusive: false, ..from_backup };
    let end_of = |target: Target, request| match ask(dir.path(), target, request).outcome {
        Outcome::Yes { end, last_transaction, .. } => (end, last_transaction),
        no => panic!("{no:?}"),
    };
    let time = Some(TimestampTz(900_000_000));
    // At the first of two points with that name, whether inclusive or not.
    let name = Target::Name("before".to_owned());
    assert_eq!(end_of(name.clone(), from_backup).0, places[1]);
    assert_eq!(end_of(name, exclusive).0, places[1]);
    assert_eq!(end_of(Target::Xid(Xid(777)), from_backup), (places[2], time));
    assert!(end_of(Target::Xid(Xid(777)), exclusive).0 == places[1] && end_of(Target::Xid(Xid(777)), exclusive).1 != time);
    assert_eq!(end_of(Target::Lsn(places[1]), exclusive).0, places[1]);
    let (consistent, _) = end_of(Target::Immediate, from_backup);
    assert_eq!(consistent, Lsn(backup_end.0 + 40));
    for target in [Target::Xid(Xid(778)), Target::Name("befor".to_owned())] {
        let answer = ask(dir.path(), target, from_backup);
        assert!(matches!(answer.outcome, Outcome::No { obstacle: Obstacle::End { .. }, how_far: Some(_) }), "{answer}");
    }
    // The record that ends the backup must be followed by another one, before which a server asks whether it is consistent.
    let third = dir.path().join(segment(3));
    let mut bytes = fs::read(&third).unwrap();
    bytes[usize::try_from(consistent.0 - 3 * SIZE).unwrap()..].fill(0);
    fs::write(&third, bytes).unwrap();
    fs::remove_file(dir.path().join(segment(4))).unwrap();
    assert!(!ask(dir.path(), Target::Immediate, from_backup).is_yes());
    assert!(ask(dir.path(), Target::Latest, from_backup).is_yes());
}

#[test]
fn a_backup_of_a_standby_needs_its_control_file() {
    let Built { dir, label, commits, .. } = built();
    let mut backup = BaseBackup::from(BackupLabel { from_standby: Some(true), ..label });
    let (early, late) = (commits[commits.len() - 100], commits[commits.len() - 10]);
    for target in [Target::Latest, Target::Immediate, Target::Lsn(late.0), Target::Time(late.1)] {
        let answer = ask(dir.path(), target, Request { backup: Some(&backup), ..PLAIN });
        assert!(matches!(answer.outcome, Outcome::Unknown { doubt: Doubt::Consistency { at_latest: None }, .. }), "{answer}");
        assert!(answer.to_string().contains("cannot be told: only this backup's pg_control"), "{answer}");
    }
    // Its manifest tells where it is consistent at the latest.
    backup.manifest = Some(ManifestEnd { end: Some(late.0), ..ManifestEnd::default() });
    let from_backup = Request { backup: Some(&backup), ..PLAIN };
    assert!(ask(dir.path(), Target::Lsn(late.0), from_backup).is_yes());
    assert!(ask(dir.path(), Target::Latest, from_backup).is_yes());
    let answer = ask(dir.path(), Target::Lsn(early.0), from_backup);
    assert!(matches!(answer.outcome, Outcome::Unknown { doubt: Doubt::Consistency { at_latest: Some(_) }, .. }), "{answer}");
    // What does not come so far is a no, whatever is known.
    fs::remove_file(dir.path().join(segment(3))).unwrap();
    assert!(matches!(ask(dir.path(), Target::Lsn(late.0), from_backup).outcome, Outcome::No { .. }));
}

#[test]
fn files_that_a_server_refuses_or_does_not_have() {
    let Built { dir, label, commits, backup_end, .. } = built();
    let backup = BaseBackup::from(label);
    let from_backup = Request { backup: Some(&backup), ..PLAIN };
    let fourth = dir.path().join(segment(4));
    let good = fs::read(&fourth).unwrap();
    let in_fourth = commits.iter().find(|(lsn, _)| lsn.0 > 4 * SIZE + 100_000).unwrap();
    // A file of another size is not read at all, also where the target is in what is there.
    for len in [700_000, good.len() + 1, 0] {
        let mut bytes = good.clone();
        bytes.resize(len, 0);
        fs::write(&fourth, bytes).unwrap();
        let answer = ask(dir.path(), Target::Lsn(in_fourth.0), from_backup);
        let Outcome::No { obstacle: Obstacle::WrongSize { input, expected: 1_048_576, found }, how_far } = &answer.outcome else {
            panic!("{answer}")
        };
        assert!(*input == fourth.display().to_string() && *found == len as u64 && !how_far.as_ref().unwrap().opens, "{answer}");
        let answer = ask(dir.path(), Target::Lsn(backup_end), from_backup);
        assert!(answer.is_yes() && matches!(&answer.caveats[..], [Caveat::ReadAhead { .. }]), "{answer}");
        assert!(!ask(dir.path(), Target::Latest, from_backup).is_yes());
    }
    // A compressed file that does not unpack to its end is as good as none.
    fs::remove_file(&fourth).unwrap();
    let packed = zstd_of(&good);
    let path = dir.path().join(segment(4) + ".zst");
    fs::write(&path, &packed).unwrap();
    assert!(ask(dir.path(), Target::Lsn(in_fourth.0), from_backup).is_yes());
    fs::write(&path, &packed[..packed.len() - 2]).unwrap();
    let answer = ask(dir.path(), Target::Lsn(in_fourth.0), from_backup);
    assert!(
        matches!(&answer.outcome, Outcome::No { obstacle: Obstacle::Damaged { .. }, how_far: Some(far) } if far.end.0 <= 4 * SIZE),
        "{answer}"
    );
    fs::remove_file(&path).unwrap();
    // A file that was made ready for later is where the WAL ends for a server; but a record goes on in it. One of another cluster is told.
    fs::write(&fourth, fs::read(dir.path().join(segment(1))).unwrap()).unwrap();
    let answer = ask(dir.path(), Target::Latest, from_backup);
    assert!(matches!(&answer.outcome, Outcome::No { obstacle: Obstacle::Damaged { .. }, how_far: Some(far) } if far.opens), "{answer}");
    let mut foreign = good.clone();
    foreign[24..32].copy_from_slice(&77_u64.to_le_bytes());
    fs::write(&fourth, foreign).unwrap();
    let answer = ask(dir.path(), Target::Lsn(in_fourth.0), from_backup);
    assert!(matches!(answer.outcome, Outcome::No { obstacle: Obstacle::ForeignSegment { found: 77, .. }, .. }), "{answer}");
    // The backup's cluster is the one that is meant, whatever the majority.
    let of =
        |id| BaseBackup { manifest: Some(ManifestEnd { system_identifier: Some(id), ..ManifestEnd::default() }), ..BaseBackup::default() };
    let backup = BaseBackup { label: backup.label.clone(), ..of(78) };
    let answer = ask(dir.path(), Target::Latest, Request { backup: Some(&backup), ..PLAIN });
    assert!(matches!(answer.outcome, Outcome::No { obstacle: Obstacle::ForeignBackup { found: 78, .. }, .. }), "{answer}");
    let backup = BaseBackup { label: backup.label.clone(), ..of(77) };
    let answer = ask(dir.path(), Target::Latest, Request { backup: Some(&backup), ..PLAIN });
    assert!(matches!(answer.outcome, Outcome::No { obstacle: Obstacle::ForeignSegment { expected: 77, .. }, .. }), "{answer}");
    // Where a damaged file has a twin, that is named.
    fs::write(&fourth, &good).unwrap();
    let mut bad = good.clone();
    bad[500_000] ^= 1;
    fs::write(&fourth, bad).unwrap();
    let twin = dir.path().join(segment(4) + ".partial");
    fs::write(&twin, &good).unwrap();
    let last = commits.last().unwrap();
    let backup = BaseBackup { label: backup.label.clone(), ..BaseBackup::default() };
    let answer = ask(dir.path(), Target::Lsn(last.0), Request { backup: Some(&backup), ..PLAIN });
    let Outcome::No { obstacle: Obstacle::Damaged { .. }, how_far: Some(how_far) } = answer.outcome else { panic!("{answer}") };
    assert_eq!(how_far.copies, [twin.display().to_string()]);
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

#[test]
fn the_backup_is_found_in_the_archive() {
    let Built { dir, label, commits, backup_end, .. } = built();
    let stop = Lsn(backup_end.0 + 40);
    let history = format!(
        "START WAL LOCATION: {} (file {})\nSTOP WAL LOCATION: {stop} (file {})\nCHECKPOINT LOCATION: {}\nBACKUP METHOD: streamed\n\
         BACKUP FROM: primary\nSTART TIME: 2026-11-23 05:10:00 UTC\nLABEL: nightly\nSTART TIMELINE: 1\n\
         STOP TIME: 2026-11-23 05:10:02 UTC\nSTOP TIMELINE: 1\n",
        label.start,
        segment(2),
        segment(3),
        label.checkpoint
    );
    let name = format!("{}.{:08X}.backup", segment(2), label.start.0 & 0xFFFFF);
    fs::write(dir.path().join(&name), &history).unwrap();
    let late = commits[commits.len() - 10];
    let answer = ask(dir.path(), Target::Time(late.1), PLAIN);
    let backup = answer.backup.clone().unwrap();
    assert!(answer.is_yes() && backup.found && backup.input.ends_with(&name) && answer.start == Some(label.start), "{answer}");
    // One that is newer than the target does not do, and says so if there is no other.
    let early = commits.iter().rfind(|(lsn, _)| *lsn < backup_end).unwrap();
    let answer = ask(dir.path(), Target::Lsn(early.0), PLAIN);
    let text = format!("this backup ended at {stop}");
    assert!(answer.to_string().contains(&text) && answer.to_string().contains("take an older one"), "{answer}");
    assert!(answer.to_string().contains("(stop time 2026-11-23 05:10:02 UTC)"), "{answer}");
    // A label without the WAL that it starts in does not hide an older one.
    let newer = history.replace(&format!("{}", label.start), &Lsn(5 * SIZE + 40).to_string()).replace(&segment(2), &segment(5));
    fs::write(dir.path().join(format!("{}.00000028.backup", segment(5))), newer).unwrap();
    let answer = ask(dir.path(), Target::Time(late.1), PLAIN);
    assert!(answer.is_yes() && answer.backup.as_ref().unwrap().input.ends_with(&name), "{answer}");
    // None at all is said.
    fs::remove_file(dir.path().join(&name)).unwrap();
    fs::remove_file(dir.path().join(format!("{}.00000028.backup", segment(5)))).unwrap();
    let answer = ask(dir.path(), Target::Time(late.1), PLAIN);
    assert!(answer.is_yes() && answer.caveats == [Caveat::NoBackup { start: Lsn(SIZE) }], "{answer}");
}

fn timeline2() -> Vec<Fixture> {
    let found: Vec<Fixture> = fixtures::all().into_iter().filter(|fixture| fixture.scenario == "timeline2").collect();
    assert_eq!(found.len(), 10);
    found
}

/// Over a real promotion: timeline 1 up to the switch point in the copy that timeline 2 has, and on.
#[test]
fn over_timelines() {
    for fixture in timeline2() {
        let what = fixture.dir.display();
        let dir = fixture.unpacked();
        let text = fixture.read("00000002.history").unwrap();
        let switch = History::parse(TimelineId(2), &text).unwrap().ancestors[0].switch;
        let path_of = |start: &str, end: &str| -> PathBuf {
            let paths = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
            let is_it = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name.starts_with(start) && name.ends_with(end) && name.len() - end.len() == 24
            };
            paths.filter(is_it).min().unwrap()
        };
        let (one, partial, two) = (path_of("00000001", ""), path_of("00000001", ".partial"), path_of("00000002", ""));
        let names = |paths: &[&Path]| paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>();
        let history = dir.path().join("00000002.history");
        let answer = ask(dir.path(), Target::Latest, PLAIN);
        assert!(answer.is_yes(), "{what}: {answer}");
        assert_eq!(files(&answer), names(&[&history, &one, &two]), "{what}");
        assert_eq!(answer.timeline, Some(TimelineId(2)));
        // Not asked for by that timeline's own server, which never had it whole.
        let first = Request { timeline: TargetTimeline::Current, ..PLAIN };
        let answer = ask(dir.path(), Target::Latest, first);
        assert_eq!(files(&answer), names(&[&one]), "{what}");
        assert!(
            matches!(&answer.outcome, Outcome::Yes { partial: Some(found), .. } if *found == partial.display().to_string()),
            "{what}: {answer}"
        );
        assert!(ask(dir.path(), Target::Lsn(switch), PLAIN).is_yes(), "{what}");
        let answer = ask(dir.path(), Target::Lsn(switch), first);
        assert!(matches!(answer.outcome, Outcome::No { obstacle: Obstacle::Missing { partial: Some(_), .. }, .. }), "{what}: {answer}");
        // The old timeline's own segment serves up to the switch point, and no further.
        fs::rename(&partial, partial.with_extension("")).unwrap();
        fs::remove_file(&two).unwrap();
        let answer = ask(dir.path(), Target::Lsn(Lsn(switch.0 - 200)), PLAIN);
        assert!(answer.is_yes(), "{what}: {answer}");
        assert_eq!(files(&answer), names(&[&history, &one, &partial.with_extension("")]), "{what}");
        let answer = ask(dir.path(), Target::Lsn(switch), PLAIN);
        let Outcome::No { obstacle: Obstacle::Missing { segment, end, .. }, .. } = answer.outcome else { panic!("{what}: {answer}") };
        assert_eq!((segment.to_string(), end), (names(&[&two])[0].clone(), Some(switch)), "{what}");
    }
}

/// A server that archives its WAL, and a base backup of it.
struct Live {
    postgres: Postgres,
    server: Server,
    archive: PathBuf,
    backup: PathBuf,
    label: BackupLabel,
}

impl Live {
    fn start(test: &str) -> Option<Live> {
        let postgres = Postgres::find_or_skip(Some(15), test)?;
        let settings = "archive_mode = on\narchive_command = 'false'\nautovacuum = off\nmax_wal_size = 1GB";
        let server = postgres.start(&["--wal-segsize=1"], settings).expect("a server");
        let (archive, backup) = (server.dir().join("archive"), server.dir().join("backup"));
        fs::create_dir(&archive).unwrap();
        fs::set_permissions(&archive, fs::Permissions::from_mode(0o777)).unwrap();
        server.sql(&format!("ALTER SYSTEM SET archive_command = 'cp %p {}/%f'", archive.display())).unwrap();
        server.sql("SELECT pg_reload_conf()").unwrap();
        server.sql("CREATE TABLE t(i int, txt text)").unwrap();
        server
            .client("pg_basebackup", ["-X", "none", "-c", "fast", "-l", "nightly", "-D", &backup.display().to_string()])
            .expect("a backup");
        let label = BackupLabel::parse(&fs::read(backup.join("backup_label")).unwrap()).unwrap();
        assert!(label.has_end_record() && label.label.as_deref() == Some("nightly"), "{label:?}");
        Some(Live { postgres, server, archive, backup, label })
    }

    /// What a server does that recovers to `target`: the segments that it fetches, or nothing, where it does not come there.
    fn recover(&self, target: &str) -> Option<Vec<String>> {
        let fetched = tempfile::tempdir().unwrap();
        fs::set_permissions(fetched.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let list = fetched.path().join("list");
        let settings = format!(
            "restore_command = 'cp {}/%f %p && echo %f >> {}'\narchive_mode = off\nrecovery_target_action = promote\n\
             recovery_prefetch = off\n{target}", // a prefetch may take a segment more
            self.archive.display(),
            list.display()
        );
        let server = self.postgres.recover(&self.backup, &settings).ok()?;
        let start = Instant::now();
        while server.sql("SELECT pg_is_in_recovery()").ok()? != "f" {
            assert!(start.elapsed() < PATIENCE, "{target}: {}", server.log().unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut names: Vec<String> = fs::read_to_string(list).unwrap().lines().filter(|name| name.len() == 24).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        Some(names)
    }

    /// Expects of our answer what a server does, whose setting is `setting`.
    fn same(&self, target: Target, setting: &str) -> Reach {
        let answer = ask(&self.archive, target, Request { backup: Some(&self.label.clone().into()), ..PLAIN });
        let ours = answer.is_yes().then(|| files(&answer).into_iter().filter(|name| name.len() == 24).collect::<Vec<_>>());
        assert_eq!(ours, self.recover(setting), "{setting}: {answer}");
        answer
    }

    /// Ends the segment on `server` and waits until it is in the archive.
    fn archived(&self, server: &Server) {
        let name = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
        let start = Instant::now();
        while !self.archive.join(&name).exists() {
            assert!(start.elapsed() < PATIENCE, "{name}: {}", server.log().unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn lsn_target(lsn: &str) -> (Target, String) {
    (Target::Lsn(lsn.parse().unwrap()), format!("recovery_target_lsn = '{lsn}'"))
}

fn time_target(time: &str) -> (Target, String) {
    (time.parse().unwrap(), format!("recovery_target_time = '{time}'"))
}

#[test]
fn a_server_recovers_as_told() {
    let Some(live) = Live::start("reach::a_server_recovers_as_told") else { return };
    let server = &live.server;
    let mut rounds = Vec::new();
    for round in 0..4 {
        server.sql(&format!("INSERT INTO t SELECT i, repeat('x', 300) FROM generate_series(1, 2000) i; SELECT {round}")).unwrap();
        let place = server.sql(
            "SELECT pg_current_wal_insert_lsn() || ' ' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US\"+00\"')",
        );
        rounds.push(place.unwrap().split_once(' ').map(|(lsn, time)| (lsn.to_owned(), time.to_owned())).unwrap());
        server.sql("INSERT INTO t VALUES (0, 'between')").unwrap();
        live.archived(server);
    }
    let end = server.sql("SELECT pg_current_wal_insert_lsn()").unwrap();
    assert!(live.same(Target::Latest, "").is_yes());
    for (lsn, time) in &rounds[1..3] {
        let (target, setting) = lsn_target(lsn);
        assert!(live.same(target, &setting).is_yes());
        let (target, setting) = time_target(time);
        assert!(live.same(target, &setting).is_yes());
    }
    // Where the archive ends, nothing starts; and the backup is not consistent where it starts.
    for place in [&end, &live.label.start.to_string()] {
        let (target, setting) = lsn_target(place);
        assert!(!live.same(target, &setting).is_yes());
    }
    let (target, setting) = time_target("2100-01-01 00:00:00+00");
    assert!(!live.same(target, &setting).is_yes());
    // One segment less, on the way to the last round.
    let answer = ask(&live.archive, Target::Latest, Request { backup: Some(&live.label.clone().into()), ..PLAIN });
    let lost = answer.files[answer.files.len() - 3].clone();
    fs::rename(&lost, live.server.dir().join("kept")).unwrap();
    let (target, setting) = lsn_target(&rounds[3].0);
    let answer = live.same(target, &setting);
    let name = Path::new(&lost).file_name().unwrap().to_string_lossy().into_owned();
    assert!(answer.to_string().contains(&format!("{name} is missing, although later segments are present")), "{answer}");
    fs::rename(live.server.dir().join("kept"), &lost).unwrap();
    // A promotion half way: from there on, the newest timeline counts.
    let settings = format!(
        "restore_command = 'cp {0}/%f %p'\narchive_command = 'cp %p {0}/%f'\nrecovery_target_action = promote\nrecovery_target_lsn = '{1}'",
        live.archive.display(),
        rounds[1].0
    );
    let promoted = live.postgres.recover(&live.backup, &settings).expect("a recovery");
    wait_until("the promotion", || promoted.sql("SELECT pg_is_in_recovery()").unwrap() == "f");
    promoted.sql("INSERT INTO t SELECT i, 'new' FROM generate_series(1, 20000) i").unwrap();
    let on_two = promoted.sql("SELECT pg_current_wal_insert_lsn()").unwrap();
    promoted.sql("INSERT INTO t VALUES (0, 'last')").unwrap();
    live.archived(&promoted);
    drop(promoted);
    for (target, setting) in [(Target::Latest, String::new()), lsn_target(&on_two), lsn_target(&rounds[1].0)] {
        let answer = live.same(target, &setting);
        assert!(answer.is_yes() && answer.timeline == Some(TimelineId(2)), "{answer}");
        assert!(files(&answer)[0] == "00000002.history", "{answer:?}");
    }
    // The old timeline is still there for who asks for it.
    let (target, setting) = lsn_target(&rounds[2].0);
    let backup = BaseBackup::from(live.label.clone());
    let first = Request { backup: Some(&backup), timeline: TargetTimeline::Current, ..PLAIN };
    let answer = ask(&live.archive, target, first);
    let ours = answer.is_yes().then(|| files(&answer));
    assert_eq!(ours, live.recover(&format!("{setting}\nrecovery_target_timeline = 'current'")), "{answer}");
}
