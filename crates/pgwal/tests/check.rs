//! Checking: good WAL gives no findings, and every damage is found.

use std::ops::ControlFlow;
use std::path::Path;

use pgwal::check::{Event, Finding, Options, Summary, check};
use pgwal::source::Wal;
use pgwal_testkit::fixtures;

const ALL: Options = Options { from: None, to: None, system_identifier: None, threads: 1 };

fn run(path: &Path, options: Options) -> (Vec<Finding>, Summary) {
    let wal = Wal::open_all(&[path], None).unwrap();
    let mut findings = Vec::new();
    let summary = check(&wal, options, |event| {
        if let Event::Finding(finding) = event {
            findings.push(finding);
        }
        ControlFlow::Continue(())
    });
    (findings, summary)
}

#[test]
fn good_wal_gives_no_findings() {
    let mut records = 0;
    for fixture in fixtures::with_odd() {
        let (findings, summary) = run(&fixture.dir, ALL);
        let name = fixture.dir.display();
        for finding in findings.iter().take(5) {
            println!("{name}: {finding}");
        }
        println!("{name}: {summary:?}");
        records += summary.records;
        assert!(findings.is_empty(), "{name}");
        let (_, parallel) = run(&fixture.dir, Options { threads: 3, ..ALL });
        assert_eq!(parallel, summary, "{name}");
    }
    println!("{records} records");
}

/// A copy of a fixture, to be damaged.
fn copy_of(fixture: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(fixture);
    for file in std::fs::read_dir(from).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap();
        if name.to_str().unwrap().starts_with('0') {
            std::fs::copy(&file, dir.path().join(name)).unwrap();
        }
    }
    dir
}

/// Bytes without a pattern.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(len)
    .collect()
}

/// A server leaves zeroes or pages of earlier WAL after the end. Whatever else is there is told: no record shows that it is not damage.
#[test]
fn what_no_server_leaves_is_no_end_of_the_wal() {
    let (last, size) = ("000000010000000000000026", 1 << 20);
    let found = |bytes: &[u8]| {
        let dir = copy_of("v17/workload");
        std::fs::write(dir.path().join(last), bytes).unwrap();
        let (findings, summary) = run(dir.path(), ALL);
        assert_eq!(run(dir.path(), Options { threads: 3, ..ALL }).1, summary);
        (findings.iter().map(|finding| finding.input.ends_with(last)).collect::<Vec<_>>(), summary.leftover.len())
    };
    assert_eq!(found(&vec![0; size]), (vec![], 1));
    assert_eq!(found(&noise(size)), (vec![true], 0));
    assert_eq!(found(&[]), (vec![true], 0));

    // An empty segment of the newer timeline, where the older one has ended.
    let dir = copy_of("v15/timeline2");
    let (findings, before) = run(dir.path(), ALL);
    assert!(findings.is_empty() && before.leftover.is_empty());
    std::fs::write(dir.path().join("000000020000000000000008"), "").unwrap();
    let (findings, summary) = run(dir.path(), ALL);
    assert!(!findings.is_empty() && summary.leftover.is_empty(), "{findings:?} {summary:?}");
}

/// Who asks for WAL up to a place wants to know that it ends before, however much of the files there is after that.
#[test]
fn what_ends_before_the_place_asked_for_is_told() {
    let dir = copy_of("v17/pgbench");
    let mut segments: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
    segments.sort();
    let last = segments.last().unwrap();
    let (_, whole) = run(dir.path(), ALL);
    let to = whole.lsns.unwrap().end;
    let ends = |to| run(dir.path(), Options { to: Some(to), ..ALL }).1.ends.iter().filter(|end| end.end.lsn < to).count();
    assert_eq!(ends(to), 0);
    let mut bytes = std::fs::read(last).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() / 8192;
    for page in [used, used / 2, 1] {
        bytes[page * 8192..].fill(0);
        std::fs::write(last, &bytes).unwrap();
        assert_eq!(ends(to), 1, "page {page} of {used}");
    }
}
