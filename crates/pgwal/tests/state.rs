//! The state file: what it lets a run skip, what it makes it read again, and what is done about a bad one.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use pgwal::WalFormat;
use pgwal::source::Archive;
use pgwal::state::{Reread, State, Unusable, VERSION, Verified};
use pgwal_testkit::wal::{MIB, RecordBuilder, Wal};

fn archive_of(segments: u64) -> tempfile::TempDir {
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(16) });
    while wal.end().0 < (segments + 1) << 20 {
        wal.record(&RecordBuilder::filler(50_000));
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in wal.segments().into_iter().take(segments as usize) {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    dir
}

fn remember(dir: &Path) -> State {
    let archive = Archive::open(&[dir]).unwrap();
    let mut state = State::default();
    for (file, _) in archive.segments() {
        state.insert(file, Verified::new(file).unwrap());
    }
    state
}

/// Last digits of the segments that are not read again.
fn skipped(state: &State, dir: &Path) -> Vec<String> {
    let archive = Archive::open(&[dir]).unwrap();
    state
        .unchanged(&archive)
        .iter()
        .map(|file| file.file().trim_start_matches('0').trim_start_matches("100000000000000").trim_start_matches('0').to_owned())
        .collect()
}

fn segment(dir: &Path, n: u32) -> std::path::PathBuf {
    dir.join(format!("0000000100000000000000{n:02X}"))
}

#[test]
fn what_is_new_is_read_with_its_neighbours() {
    let dir = archive_of(8);
    let state = remember(dir.path());
    assert_eq!(state.len(), 8);
    assert_eq!(skipped(&state, dir.path()), ["1", "2", "3", "4", "5", "6", "7", "8"]);
    // A new one after the last.
    fs::copy(segment(dir.path(), 8), segment(dir.path(), 9)).unwrap();
    assert_eq!(skipped(&state, dir.path()), ["1", "2", "3", "4", "5", "6", "7"]);
    fs::remove_file(segment(dir.path(), 9)).unwrap();
    // Changed in size, in time, and in content that shows in neither: that one is what the state file promises to trust.
    let later = SystemTime::now() + Duration::from_secs(10);
    File::options().write(true).open(segment(dir.path(), 4)).unwrap().set_modified(later).unwrap();
    assert_eq!(skipped(&state, dir.path()), ["1", "2", "6", "7", "8"]);
    let file = File::options().write(true).open(segment(dir.path(), 1)).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.set_len(1000).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(skipped(&state, dir.path()), ["6", "7", "8"]);
    // Removed: the archive expires.
    fs::remove_file(segment(dir.path(), 1)).unwrap();
    assert_eq!(skipped(&state, dir.path()), ["2", "6", "7", "8"]);
    // A second file of a segment, and the segment on a new timeline.
    fs::copy(segment(dir.path(), 8), dir.path().join("000000020000000000000008")).unwrap();
    assert_eq!(skipped(&state, dir.path()), ["2", "6"]);
    assert_eq!(skipped(&State::default(), dir.path()), [""; 0]);
}

#[test]
fn written_whole_and_read_back() {
    let dir = archive_of(3);
    let mut state = remember(dir.path());
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    assert_eq!(State::load(&path).unwrap(), (State::default(), Some(Unusable::Missing)));
    for _ in 0..2 {
        state.store(&path).unwrap();
        assert_eq!(State::load(&path).unwrap(), (state.clone(), None));
        state = State::default(); // the second time, over the first
    }
    // Nothing else is left there.
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    assert!(State::load(home.path()).is_err());
    assert!(state.store(&home.path().join("none/state")).is_err());
}

/// Every byte of it counts.
#[test]
fn a_bad_file_is_as_good_as_none() {
    let dir = archive_of(2);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    remember(dir.path()).store(&path).unwrap();
    let good = fs::read(&path).unwrap();
    let load = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let (state, unusable) = State::load(&path).unwrap();
        assert!(unusable.is_none() || state.is_empty());
        unusable
    };
    assert_eq!(load(&good), None);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(load(&bad).is_some(), "byte {at}");
        assert!(load(&good[..at]).is_some(), "{at} bytes");
    }
    assert_eq!(load(b""), Some(Unusable::Foreign));
    assert_eq!(load(b"{}\n"), Some(Unusable::Foreign));
    assert_eq!(load(format!("pgwal state {}\n", VERSION + 1).as_bytes()), Some(Unusable::Version(VERSION + 1)));
    let right_sum = format!("pgwal state {VERSION} {:08X}\n[]", crc32c::crc32c(b"[]"));
    assert_eq!(load(right_sum.as_bytes()), Some(Unusable::Damaged));
}

/// Each night a part, and within so many days all.
#[test]
fn turns_of_segments() {
    const DAY: i64 = 86_400;
    for days in [1u16, 2, 7, 30] {
        let mut read = vec![20_000 * DAY + 5; 5000];
        let mut age = 0;
        let mut most = 0;
        for night in 1..=3 * i64::from(days) + 5 {
            let now = (20_000 + night) * DAY + 3 * 3600;
            let reread = Reread::new(days.try_into().unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(now as u64));
            let due: Vec<usize> = (0..read.len()).filter(|&number| reread.is_due(number as u64, read[number])).collect();
            due.iter().for_each(|&number| read[number] = now);
            most = most.max(due.len());
            age = read.iter().map(|read| (now - read) / DAY).max().unwrap().max(age);
            assert!(!(0..read.len()).any(|number| reread.is_due(number as u64, read[number])), "twice a day");
        }
        assert!(age < i64::from(days), "{days}: {age}");
        assert!(most <= 5000 / usize::from(days) + 2 * 64, "{days}: {most}");
        // Nights without a run are made up for, and so is a clock that was wrong.
        let reread = Reread::new(days.try_into().unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(30_000 * DAY as u64));
        assert!((0..1000).all(|number| reread.is_due(number, (30_000 - i64::from(days)) * DAY) && reread.is_due(number, 30_001 * DAY)));
        let after_half = (0..5000).filter(|&number| reread.is_due(number, (30_000 - (i64::from(days) + 1) / 2) * DAY)).count();
        // Each of these days has its whole groups of 64, of which the last one may be cut.
        let groups = usize::from(days).div_ceil(2) * (5000 / 64 / usize::from(days));
        assert!(after_half + 64 >= groups * 64 && (days == 1 || after_half < 4000), "{days}: {after_half}");
    }
}
