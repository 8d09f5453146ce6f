//! `pgwal verify`: each class of damage, made from real WAL, and WAL that has none.

mod answers;
mod classes;
mod control;
mod copies;
mod forms;
mod hostile;
mod live;
mod options;
mod restore;
mod set;
mod state;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use pgwal_testkit::fixtures;
use serde_json::Value;
use tempfile::TempDir;

fn verify<S: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = S>) -> (i32, String, String) {
    // What was written just now could be a server's, and is looked at again.
    for file in fs::read_dir(dir).unwrap().flatten().filter(|file| file.path().is_file() && !dir.join("PG_VERSION").exists()) {
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        // Once only: it shows in the time of the inode.
        if fs::metadata(file.path()).unwrap().modified().unwrap() != long_ago {
            fs::File::options().append(true).open(file.path()).and_then(|file| file.set_modified(long_ago)).unwrap();
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    command.arg("verify").args(args).current_dir(dir).env_remove("PGDATA").stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The findings of a folder, and the exit status; the same for any number of threads.
fn findings(dir: &Path) -> (i32, Vec<Value>) {
    let (status, out, err) = verify(dir, ["--format", "json", "--threads", "1", "."]);
    assert_eq!(err, "");
    for threads in ["2", "5"] {
        assert_eq!(verify(dir, ["--format", "json", "--threads", threads, "."]), (status, out.clone(), String::new()), "{threads} threads");
    }
    let mut lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap();
    assert_eq!((&summary["type"], &summary["findings"]), (&"summary".into(), &lines.len().into()));
    (status, lines)
}

/// The segments of a scenario of PostgreSQL 15, in a folder of their own.
fn copy(major: u8, scenario: &str) -> (TempDir, Vec<PathBuf>) {
    let fixture = fixtures::all().into_iter().find(|fixture| fixture.major == major && fixture.scenario == scenario).unwrap();
    let dir = TempDir::new().unwrap();
    let copies = fixture.segments().into_iter().map(|path| {
        let copy = dir.path().join(path.file_name().unwrap());
        fs::copy(&path, &copy).unwrap();
        copy
    });
    let copies = copies.collect();
    (dir, copies)
}

/// Changes the bytes of a file.
fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Damages the second segment of three, and expects one finding: of `class`, with `fields`, in that segment, over `at` and not much more.
#[track_caller]
fn one_finding(class: &str, fields: &[(&str, Value)], at: std::ops::Range<u64>, change: impl FnOnce(&mut Vec<u8>, &[u8])) {
    let (dir, files) = copy(15, "workload");
    let before = fs::read(&files[0]).unwrap();
    damage(&files[1], |bytes| change(bytes, &before));
    let (status, found) = findings(dir.path());
    assert_eq!((status, found.len()), (1, 1), "{found:#?}");
    let finding = &found[0];
    assert_eq!(finding["class"], class, "{finding:#}");
    assert_eq!(finding["input"], format!("./{}", files[1].file_name().unwrap().to_str().unwrap()), "{finding:#}");
    for (name, value) in fields {
        assert_eq!(&finding[name], value, "{finding:#}");
    }
    let (start, end) = (finding["offsets"]["start"].as_u64().unwrap(), finding["offsets"]["end"].as_u64().unwrap());
    assert!(start <= at.start && at.start < end && start + 9000 > at.start && end < at.end + 9000, "{at:?}: {finding:#}");
}

const PAGE: usize = 0x2_4000;

#[test]
fn torn_pages() {
    for (sector, from, to) in [(4096, 4096, 8192), (4096, 0, 4096), (512, 7680, 8192), (512, 0, 512), (512, 5120, 5632)] {
        let torn = [("sector", Value::from(sector))];
        let at = (PAGE + from) as u64..(PAGE + to) as u64;
        one_finding("torn_page", &torn, at.clone(), |bytes, _| bytes[PAGE + from..PAGE + to].fill(0));
        // The same place of the segment before: what a reused file has.
        if to - from == 4096 {
            one_finding("torn_page", &torn, at, |bytes, before| {
                bytes[PAGE + from..PAGE + to].copy_from_slice(&before[PAGE + from..PAGE + to]);
            });
        }
    }
}

#[test]
fn zeroed_and_recycled_pages() {
    let page = PAGE as u64..PAGE as u64 + 8192;
    one_finding("zeroed_page", &[], page.clone(), |bytes, _| bytes[PAGE..PAGE + 8192].fill(0));
    one_finding("zeroed_page", &[], PAGE as u64..PAGE as u64 + 3 * 8192, |bytes, _| bytes[PAGE..PAGE + 3 * 8192].fill(0));
    let (_, files) = copy(15, "workload");
    let from = files[0].file_name().unwrap().to_str().unwrap();
    one_finding("recycled_page", &[("from", from.into())], page, |bytes, before| {
        bytes[PAGE..PAGE + 8192].copy_from_slice(&before[PAGE..PAGE + 8192]);
    });
    one_finding("recycled_page", &[("from", from.into())], 0..1 << 20, |bytes, before| bytes.copy_from_slice(before));
}

#[test]
fn flipped_bits() {
    for at in [PAGE + 2000, PAGE + 1, PAGE + 4, PAGE + 9, PAGE + 17, PAGE + 21, 20, 25, 33, 37, 0xF_FFFF, 1000] {
        let flip = [("offset", Value::from(at)), ("bit", 5.into())];
        one_finding("bit_flip", &flip, at as u64..at as u64 + 1, |bytes, _| bytes[at] ^= 1 << 5);
    }
    // Two bits are no flip.
    one_finding("corrupted", &[], PAGE as u64 + 2000..PAGE as u64 + 2101, |bytes, _| {
        bytes[PAGE + 2000] ^= 1;
        bytes[PAGE + 2001] ^= 4;
    });
}

#[test]
fn files_that_do_not_belong() {
    one_finding("truncated", &[("len", 300_000.into()), ("expected", (1 << 20).into())], 300_000..1 << 20, |bytes, _| {
        bytes.truncate(300_000)
    });
    one_finding("too_long", &[("len", ((1 << 20) + 8192).into())], 1 << 20..(1 << 20) + 8192, |bytes, _| bytes.resize((1 << 20) + 8192, 7));
    one_finding("foreign_cluster", &[("found", "7000000000000000001".into())], 0..1 << 20, |bytes, _| {
        bytes[24..32].copy_from_slice(&7_000_000_000_000_000_001u64.to_le_bytes());
    });
    let (_kept, other) = copy(16, "pgbench");
    let other = fs::read(&other[0]).unwrap();
    let (dir, files) = copy(15, "workload");
    fs::write(&files[1], other).unwrap();
    let (status, found) = findings(dir.path());
    assert_eq!(status, 1);
    assert_eq!(
        (&found[0]["class"], &found[0]["found"], &found[0]["expected"]),
        (&"wrong_major".into(), &"D113".into(), &"D110".into()),
        "{found:#?}"
    );

    let (dir, files) = copy(15, "workload");
    fs::remove_file(&files[1]).unwrap();
    let (status, found) = findings(dir.path());
    assert_eq!((status, found.len()), (1, 1), "{found:#?}");
    let name = files[1].file_name().unwrap().to_str().unwrap();
    assert_eq!((&found[0]["class"], &found[0]["first"], &found[0]["last"]), (&"missing_segment".into(), &name.into(), &name.into()));

    let (dir, files) = copy(15, "workload");
    fs::write(&files[1], b"not WAL at all\n").unwrap();
    let (status, found) = findings(dir.path());
    assert_eq!((status, &found[0]["class"]), (1, &"truncated".into()), "{found:#?}");
}

#[test]
fn two_places_are_two_findings() {
    let (dir, files) = copy(15, "workload");
    damage(&files[0], |bytes| bytes[0x8_0000..0x8_2000].fill(0));
    damage(&files[1], |bytes| bytes[PAGE + 2000] ^= 1);
    damage(&files[2], |bytes| bytes[0x1_0000..0x1_1000].fill(0));
    let (status, found) = findings(dir.path());
    let classes: Vec<&str> = found.iter().map(|finding| finding["class"].as_str().unwrap()).collect();
    assert_eq!((status, classes), (1, vec!["zeroed_page", "bit_flip", "torn_page"]), "{found:#?}");
}

#[test]
fn good_fixtures() {
    let here = TempDir::new().unwrap();
    for fixture in fixtures::with_odd() {
        let (status, out, err) = verify(here.path(), [&fixture.dir]);
        assert_eq!((status, err.as_str()), (0, ""), "{}: {out}", fixture.dir.display());
        assert!(out.ends_with(": nothing found.\n"), "{}: {out}", fixture.dir.display());
    }
}

#[test]
fn a_clean_end_is_no_damage() {
    for major in [13, 15, 19] {
        let (dir, files) = copy(major, "crash");
        assert_eq!(findings(dir.path()), (0, vec![]));
        let old = fs::read(&files[0]).unwrap();
        let good = fs::read(&files[1]).unwrap();
        let end = good.iter().rposition(|&byte| byte != 0).unwrap() / 8 * 8 + 8;
        // The rest of the segment from an earlier use of the file: of the page that the WAL ends on, or only of those behind.
        for from in [end, end.next_multiple_of(512), end.next_multiple_of(8192)] {
            damage(&files[1], |bytes| {
                bytes.copy_from_slice(&good);
                bytes[from..].copy_from_slice(&old[from..]);
            });
            assert_eq!(findings(dir.path()), (0, vec![]), "{major}: {from:#x}");
        }
        // Segments that are kept for later use: one that was used, one that is empty.
        let name = files[1].file_name().unwrap().to_str().unwrap();
        let later = |n: u64| dir.path().join(format!("{}{:08X}", &name[..16], u64::from_str_radix(&name[16..], 16).unwrap() + n));
        fs::write(later(1), &old).unwrap();
        fs::write(later(2), vec![0; old.len()]).unwrap();
        assert_eq!(findings(dir.path()), (0, vec![]), "{major}");
        let (_, out, _) = verify(dir.path(), ["."]);
        assert!(out.contains("2 segments behind the end of the WAL, kept for later use."), "{out}");
    }
}
